"""What this node believes: who is who (sys.nodes), and what may be recorded (sys.catalog), both read from its own
log.db.

Rules
1. Belief is a projection of verified system logs; it is rebuilt at start and follows them, never the other way round.
2. Nothing here decides by itself: signatures and chains are `crypto.certs`, precedence is `sync.identity` and
   `sync.catalog`.
3. Another process may append system logs; `refresh` costs two small queries when nothing came.
4. That a node above goes on in a new life is also heard from the parent (`hear`), whose feed may have what was written
   in that life before it has the word of it. It is kept (`LATER_LIVES`) until a log here says it, and passed on in
   greetings, so that every level below believes what it gets. At a start the logs are read first: they may say who its
   issuer is by now.
5. The event loop, the writer and the projection share one: they take turns at following the logs, and look without.

>>> # trust = Trust.load(store, chain=(own_der, ..., root_der), node="130102")
>>> # trust.readers(dataset, "130102001001")
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from threading import RLock
from typing import Any, TypeVar, cast

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.sync.catalog import Catalog, Dataset, check_succession, system_datasets
from fednode.sync.change import CATALOG, NODES, UPSERT, Columns, LogName
from fednode.sync.errors import StoreError
from fednode.sync.feed import Route, Side, route
from fednode.sync.identity import Directory, node_payload
from fednode.sync.segment import Reader

READ_AT_ONCE = 200
KNOWN_MAX = 4_096  # answers that are kept
T = TypeVar("T")
LATER_LIVES = "later_lives"  # certificates of lives of nodes above that no log here has said yet (meta)


class Trust:
    """Directory and catalog as this node knows them. `node` is this node's id."""

    def __init__(self, chain: tuple[bytes, ...], node: str) -> None:
        self._seed = chain
        self.node = node
        self.root_sha256 = SUITE_1.hash(chain[-1])
        self.domain = certs.parse(chain[-1]).domain
        self.directory = Directory(chain[-1], self.domain)
        self.directory.seed(chain)
        self.catalog: Catalog | None = None
        self._readers_then: dict[int, dict[str, tuple[str, ...]]] = {}
        self._seen = 0
        self._unsaid: dict[tuple[str, int], bytes] = {}
        self._heard_of = ""  # `LATER_LIVES`, as it was read
        self.heard = 0  # how often something was heard
        self._turn = RLock()
        self._worked_out: tuple[tuple[Directory, int, Catalog | None], dict[Any, Any]] = ((self.directory, 0, None), {})

    @classmethod
    def load(cls, store: Store, chain: tuple[bytes, ...], node: str) -> Trust:
        """Read every system log of the store. `chain`: this node's certificates, own first, root last."""
        trust = cls(chain, node)
        trust.refresh(store)
        return trust

    @property
    def seen(self) -> int:
        """Up to which arrival number system logs were read."""
        return self._seen

    @property
    def may_have_children(self) -> bool:
        """Whether nodes may stand below this one; one of the lowest level issues for its standbys alone."""
        return self.me.may_issue and self.me.level != self.directory.levels[-1]

    def refresh(self, store: Store) -> bool:
        """Take in system segments that came since; True when there were any."""
        with self._turn:
            found = store.metas("system_lsn", LATER_LIVES)
            upto = int(found.get("system_lsn", 0))  # what is committed after this is for the next call, or taken twice
            news = upto > self._seen
            for dataset in (NODES, CATALOG) if news else ():
                after = self._seen
                while held := store.segments(after, READ_AT_ONCE, dataset=dataset):
                    for one in held:
                        columns = store.columns(one)
                        if columns is None:
                            raise StoreError("FN-7612", log=str(one.name))
                        self.take(one.name, columns)
                    after = held[-1].lsn
            self._seen = max(self._seen, upto)
            told = str(found.get(LATER_LIVES) or "")
            if told != self._heard_of:  # now: who could have said it may have been said in what was read just before
                self._heard_of = told
                self.hear([bytes.fromhex(one) for one in told.split()])
            return news

    def reload(self, store: Store) -> None:
        """Forget and read again: after a transaction that was rolled back. Other threads see the old or the new,
        nothing between.
        """
        with self._turn:
            fresh = Trust.load(store, self._seed, self.node)
            fresh.hear(list(self._unsaid.values()))
            self._unsaid, self._heard_of = fresh._unsaid, fresh._heard_of
            self._readers_then = fresh._readers_then
            self.directory, self.catalog, self._seen = fresh.directory, fresh.catalog, fresh._seen

    def adopt(self, chain: tuple[bytes, ...]) -> None:
        """Take in a fresh chain of this node's own, verified by the caller."""
        with self._turn:
            self._seed = chain
            self.directory.seed(chain)

    def hear(self, lives: Sequence[bytes]) -> None:
        """What the parent says of those above, the highest first: certificates of later lives. What their issuers could
        not have said counts for nothing."""
        with self._turn:
            above = {one.node for one in self.directory.path(self.node)[:-1]}
            for der in lives:
                with suppress(FednodeError):
                    one = certs.parse(der)
                    place = (one.node, one.incarnation)
                    if one.node not in above or self.directory.life(*place) is not None:
                        continue
                    origin, payload = one.node if one.issuer == ROOT else one.issuer, node_payload(der)
                    self.directory.check(origin, payload)
                    self.directory.apply(origin, payload)
                    self._unsaid = {**self._unsaid, place: der}  # other threads look at it
                    self.directory.heard = frozenset(self._unsaid)
                    self.heard += 1

    def keep_heard(self, tx: Transaction) -> None:
        """What was heard is still known after a start."""
        with self._turn:
            text = " ".join(der.hex() for der in self._unsaid.values())
            if text != str(tx.store.meta(LATER_LIVES) or ""):
                tx.set_meta(LATER_LIVES, text or None)
                self._heard_of = text

    def take(self, name: LogName, columns: Columns) -> None:
        """Apply the changes of one verified system segment."""
        with self._turn:
            for position, payload in enumerate(columns.payloads):
                if columns.ops[position] != UPSERT or position in columns.leaves:
                    continue
                if name.dataset == NODES:
                    said = msgspec.json.decode(payload)
                    self.directory.apply(name.origin, said)
                    if self._unsaid and said.get("kind") == "node":
                        one = certs.parse(bytes.fromhex(said["certificate"]))
                        said_now = (one.node, one.incarnation)
                        self._unsaid = {place: der for place, der in self._unsaid.items() if place != said_now}
                        self.directory.heard = frozenset(self._unsaid)
                elif name.dataset == CATALOG:
                    catalog = Catalog.from_json(payload)
                    self._readers_then[catalog.version] = {one.name: one.readers for one in catalog.datasets.values()}
                    if self.catalog is None or catalog.version > self.catalog.version:
                        self.catalog = catalog

    def lawful(self, name: LogName, columns: Columns) -> None:
        """Whether these system changes may be taken (verification, gate 13). Raises PeerError or Refused."""
        for position, payload in enumerate(columns.payloads):
            if columns.ops[position] != UPSERT or position in columns.leaves:
                continue
            if name.dataset == NODES:
                self.directory.check(name.origin, msgspec.json.decode(payload))
            elif name.dataset == CATALOG:
                catalog = Catalog.from_json(payload)
                if self.catalog is not None:
                    check_succession(self.catalog, catalog)

    # ------------------------------------------------------------ questions

    def known(self, question: Hashable, answer: Callable[[], T]) -> T:
        """What follows from the directory and the catalog alone: worked out once, until one of them changes."""
        now = (self.directory, self.directory.version, self.catalog)
        said, found = self._worked_out
        if said != now or len(found) >= KNOWN_MAX:
            self._worked_out = now, found = now, {}  # at once: other threads ask, too
        if question not in found:
            found[question] = answer()
        return cast(T, found[question])

    def might_read(self, one: Identity, name: LogName, version: int) -> bool:
        """Whether a node's level read a log's dataset by a version of the catalog, or wrote the log itself. A version
        that is not known here says no."""
        if one.node == name.origin or name.is_system:
            return True
        if self.catalog is not None and self.catalog.version == version:
            found = self.catalog.datasets.get(name.dataset)
            return found is not None and one.level in found.readers
        return one.level in self._readers_then.get(version, {}).get(name.dataset, ())

    @property
    def me(self) -> Identity:
        """This node's own identity, as last certified."""
        identity = self.directory.get(self.node)
        if identity is None:
            raise StoreError("FN-7613", node=self.node)
        return identity

    @property
    def parent(self) -> Identity | None:
        """The node above this one; None at the province."""
        parent = self.directory.parent_of(self.node)
        return self.directory.get(parent) if parent else None

    @property
    def area(self) -> str:
        """The area that this node's own records belong to."""
        return self.me.scope[0]

    @property
    def catalog_version(self) -> int:
        return self.catalog.version if self.catalog else 0

    @property
    def bodies(self) -> int:
        """How bodies may be packed: what every node reads, as the catalog says."""
        return self.catalog.bodies if self.catalog else 1

    def dataset(self, name: str) -> Dataset | None:
        """A dataset of the catalog, or a system dataset."""
        found = system_datasets(self.directory.levels).get(name)
        if found is None and self.catalog is not None:
            found = self.catalog.datasets.get(name)
        return found

    def log_name(self, dataset: str, area: str) -> LogName:
        """This node's log for changes of a dataset that concern an area."""
        me = self.me
        return LogName(self.domain, me.node, me.incarnation, dataset, "" if area == self.area else area)

    def side(self, name: LogName) -> Side:
        """Where a log's origin stands, seen from here."""
        if name.origin == self.node:
            return Side.SELF
        above = [one.node for one in self.directory.path(self.node)[:-1]]
        return Side.ABOVE if name.origin in above or self._primary_of(name) in above else Side.BELOW

    def _primary_of(self, name: LogName) -> str:
        """For whom a log's origin stands in; "" where it is no standby."""
        origin = self.directory.life(name.origin, name.incarnation)
        return origin.stands_for if origin is not None else ""

    def route(self, name: LogName) -> Route:
        """Which way a log goes on from here. What a standby follows ends with it."""
        return self.known(("route", name), lambda: self._route(name))

    def _route(self, name: LogName) -> Route:
        if self.me.stands_for and name.origin != self.node:
            return Route(up=False, down="")
        dataset = self.dataset(name.dataset)
        flow = dataset.flow if dataset else "up"
        side = Side.SELF if self._primary_of(name) == self.node else self.side(name)
        return route(name, side, flow in ("up", "both"), flow in ("down", "both"), self.me.scope)

    def readers(self, dataset: Dataset, area: str) -> tuple[list[Reader], bool]:
        """Who gets the key of a segment of this node's: the nodes from the root down to the area, at a level that may
        read, and this node itself, which may have to take it back from its parent one day; each with its standbys. And
        whether anybody on the way carries it who may not read it: the area's own node may be one that is not known
        yet."""
        question = ("readers", dataset.name, dataset.readers, area)
        return self.known(question, lambda: self._readers(dataset, area))

    def _readers(self, dataset: Dataset, area: str) -> tuple[list[Reader], bool]:
        me = self.me
        target = self.directory.node_covering(area) or me
        path = self.directory.path(target.node)
        others = [
            one
            for one in path
            if one.node != self.node and one.level in dataset.readers and not self.directory.is_revoked(one.node)
        ]
        carried = len(others) < len(path) - 1 or area not in target.scope
        both = [two for one in (*others, me) for two in (one, *self.directory.standbys_of(one.node))]
        return [Reader(SUITE_1.hash(one.seal_key)[:8], one.seal_key) for one in both], carried
