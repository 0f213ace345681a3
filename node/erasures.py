"""What was erased, as log.db remembers it; and who has confirmed what was erased here.

Rules
1. What state.db still has to forget is in `erased` with its key, sealed; the key goes when state.db has forgotten it
   for good (`node.cleaning`).
2. Whoever holds the log of a version must confirm: the nodes above its origin that get it, the origin, and those below
   down to its audience, each with its standbys. Who cannot read the log confirms by whom what it carries was stripped,
   and of how many changes: it is without a version when that node has said that it stripped that one, and no more of
   them since.

>>> # for one in waiting(store, 100): projector forgets (one.log, one.seq, one.key)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.suite import SUITE_1
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.sync.change import RECEIPTS, LogName
from fednode.sync.feed import Side, goes_down_to, route
from fednode.sync.strip import place_key

if TYPE_CHECKING:
    from fednode.node.projection import Projector

_CONTEXT = b"fednode erased key v1\n"
Receipts = dict[tuple[str, str], list[dict[str, Any]]]  # of a node about a log


@dataclass(frozen=True, slots=True)
class Forgotten:
    """A version that state.db has to forget. `by_lsn`: where the erase lies in the arrival order."""

    log: LogName
    seq: int
    by_lsn: int
    key: str


def seal_key(store: Store, log: LogName, seq: int, key: bytes) -> bytes:
    """A record's key under a key of the place's own, so that the disk alone reveals nothing."""
    return SUITE_1.aead_seal(_key_of(store, log, seq), bytes(12), key, _CONTEXT)


def _key_of(store: Store, log: LogName, seq: int) -> bytes:
    return SUITE_1.mac(store.stash_key, _CONTEXT + place_key(log, seq))


def waiting(store: Store, limit: int) -> list[Forgotten]:
    """What was stripped here and may still be in state.db."""
    rows = store.connection.execute(
        "select log, seq, by_lsn, record_key from erased where record_key is not null order by by_lsn limit ?", (limit,)
    ).fetchall()
    return [
        Forgotten(name, seq, lsn, SUITE_1.aead_open(_key_of(store, name, seq), bytes(12), sealed, _CONTEXT).decode())
        for name, seq, lsn, sealed in ((LogName.parse(log), *rest) for log, *rest in rows)
    ]


def without_key(store: Store, places: Iterable[tuple[LogName, int]]) -> list[tuple[LogName, int]]:
    """Those of these erased places whose key was forgotten already."""
    found = []
    for log, seq in places:
        row = store.connection.execute(
            "select record_key is null from erased where log = ? and seq = ?", (str(log), seq)
        ).fetchone()
        if row is not None and row[0]:
            found.append((log, seq))
    return found


def forget_keys(tx: Transaction, done: Iterable[Forgotten], upto: int) -> None:
    """state.db has forgotten these, for good, and has come as far as `upto`."""
    for one in done:
        tx.connection.execute(
            "update erased set record_key = null where log = ? and seq = ? and by_lsn <= ?",
            (str(one.log), one.seq, upto),
        )


# ---------------------------------------------------------------- who has confirmed


@dataclass(frozen=True, slots=True)
class Holder:
    """A node that has to confirm. `confirmed_ms`: when it stripped its copy, None: not yet. `reads`: whether it can."""

    node: str
    name: str
    level: str
    reads: bool
    revoked: bool
    confirmed_ms: int | None


@dataclass(frozen=True, slots=True)
class Erasure:
    """One version that was erased from here. `erase`: the place of the erase, which names it in `--status`."""

    erase: str
    log: str
    seq: int
    at_ms: int
    holders: tuple[Holder, ...]

    @property
    def waiting(self) -> list[Holder]:
        """Who has not confirmed and is still in force."""
        return [one for one in self.holders if one.confirmed_ms is None and not one.revoked]


def receipts(projector: Projector) -> list[dict[str, Any]]:
    """What holders have said, as far as it has come here."""
    rows = projector.connection.execute(
        "select payload from record where op = 1 and dataset = (select id from dataset where name = ?)", (RECEIPTS,)
    )
    return [msgspec.json.decode(payload) for (payload,) in rows]


def own_erasures(store: Store, trust: Trust, said: Sequence[dict[str, Any]], wanted: str = "") -> list[Erasure]:
    """What this node erased, the newest first. `said`: the receipts; `wanted`: the place of one erase, all of them
    without."""
    by_place = {(one["node"], one["log"], one["first"]): one for one in said}
    of_logs: Receipts = {}
    for one in by_place.values():
        of_logs.setdefault((one["node"], one["log"]), []).append(one)
    rows = store.connection.execute(
        """select e.log, e.seq, e.by_log, e.by_seq, e.at_ms from erased e join log l on l.name = e.by_log
           where l.origin = ? order by e.by_lsn desc, e.by_seq desc""",
        (trust.node,),
    ).fetchall()
    found = []
    for log, seq, by_log, by_seq, at_ms in rows:
        erase = f"{by_log}#{by_seq}"
        if not wanted or wanted == erase:
            name = LogName.parse(log)
            holders = tuple(_holder(trust, by_place, of_logs, name, seq, at_ms, node) for node in _route(trust, name))
            found.append(Erasure(erase, log, seq, at_ms, holders))
    return found


def _route(trust: Trust, log: LogName) -> list[str]:
    """The nodes that get a log, from the top, each before its standbys (rule 2)."""
    directory = trust.directory
    dataset = trust.dataset(log.dataset)
    flow = dataset.flow if dataset else "up"
    path = [one.node for one in directory.path(log.origin)]
    nodes = path if flow in ("up", "both") else path[-1:]
    origin = directory.get(log.origin)
    if origin is None:
        return [log.origin]
    down = route(log, Side.SELF, False, flow in ("down", "both"), origin.scope).down
    if down:  # whoever it may go to is soon found; to go up from each of 56,712 nodes, for each version, takes long
        may = [one for one in directory.all() if goes_down_to(down, one.scope) and not one.stands_for]
        below = [one.node for one in may if one.node not in path and log.origin in _above(trust, one.node)]
        nodes = [*nodes, *below]
    return [two for node in nodes for two in (node, *(one.node for one in directory.standbys_of(node)))]


def _above(trust: Trust, node: str) -> list[str]:
    return [one.node for one in trust.directory.path(node)]


def _without(said: dict[str, Any], by_sealer: dict[str, Any] | None, seq: int, at_ms: int) -> bool:
    """Whether a receipt says that a version is gone. `by_sealer`: of who stripped what a carrier holds."""
    erased = said.get("erased")
    if erased is not None:
        return seq in erased
    if "sealer" not in said:  # of a program before 0.2.0
        return bool(said["at_ms"] >= at_ms)
    return by_sealer is not None and seq in by_sealer.get("erased", ()) and said["stripped"] >= by_sealer["stripped"]


def _holder(
    trust: Trust,
    by_place: dict[tuple[str, str, int], dict[str, Any]],
    of_logs: Receipts,
    log: LogName,
    seq: int,
    at_ms: int,
    node: str,
) -> Holder:
    identity, dataset = trust.directory.get(node), trust.dataset(log.dataset)
    level = identity.level if identity else ""
    confirmed = None
    for one in of_logs.get((node, str(log)), ()):
        if one["first"] <= seq < one["first"] + one["count"]:
            sealer = str(one.get("sealer", "")).rpartition("/")[0]
            if _without(one, by_place.get((sealer, str(log), one["first"])), seq, at_ms):
                confirmed = int(one["at_ms"])
    reads = dataset is not None and level in dataset.readers
    return Holder(node, identity.name if identity else "", level, reads, trust.directory.is_revoked(node), confirmed)
