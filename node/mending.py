"""Mending: a segment that is damaged here is fetched again from a neighbour, and takes its old place.

Rules
1. What is damaged is neither served nor forwarded: feeds pass it over, and note it (`Store.damaged`). What was found,
   by a feed, the scrub or a verification by hand, is known until it is mended, over restarts, too (`remember`).
2. Every neighbour with whom a session is open, or opens, is asked for it (`Want.restore`): the parent, and children;
   and again every `AGAIN_MS`, for who has not got it may get it.
3. A neighbour gives only what the asker may hold: to its parent what goes up or came from above, to a child what goes
   down to it and what is of it or below it; a standby and its primary give each other everything.
4. Bytes are taken where they are the very bytes that were verified when they first came: their hash is the one that
   the store keeps, or, where that hash is what was damaged, they are what lies there. A neighbour that has stripped the
   segment since has no others: its form is taken where erases that are known here name all that is gone from it, or
   this node only carries it (`Stripping.restored`).
5. A mended segment is announced (`node.resealed`): whom the feed had passed it over gets it.

>>> # mender = Mender(engine.store, engine.sessions, keep, engine.clock_ms); mender.found([("hebei/1301/1/shop", 1000)])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from fednode.crypto.suite import SUITE_1
from fednode.node import resealed
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.sync.change import LogName
from fednode.sync.effects import Item
from fednode.sync.feed import Side, goes_down_to
from fednode.sync.segment import Envelope
from fednode.sync.wire import Cosignature, Want

if TYPE_CHECKING:
    from fednode.node.driver import Session
    from fednode.node.link import Link

log = logging.getLogger("fednode.mending")
Place = tuple[str, int]  # a log's name, and the first change of the segment
DAMAGED = "FN-6601"
META = "damaged"
KNOWN_MAX = 1_000
AGAIN_MS = 600_000


def remember(tx: Transaction, places: Iterable[Place]) -> None:
    """These are damaged. Beyond `KNOWN_MAX` the oldest are left to the scrub."""
    _write(tx, [*dict.fromkeys((*_read(tx.store), *places))][-KNOWN_MAX:])


def _forget(tx: Transaction, place: Place) -> None:
    known = _read(tx.store)
    if place in known:
        _write(tx, [one for one in known if one != place])


def known(store: Store) -> list[Place]:
    """What was found damaged, and is."""
    return [(name, first) for name, first in _read(store) if _is_damaged(store, LogName.parse(name), first)]


def _read(store: Store) -> list[Place]:
    return msgspec.json.decode(store.meta(META) or b"[]", type=list[Place])


def _write(tx: Transaction, places: Sequence[Place]) -> None:
    tx.set_meta(META, msgspec.json.encode(places) if places else None)


class Mender:
    """What is damaged here, and who was asked for it. Belongs to the event loop, as the sessions do. `keep`: is told
    what is to be remembered. `clock_ms`: any clock that runs steadily."""

    def __init__(
        self,
        store: Store,
        sessions: Collection[Session],
        keep: Callable[[list[Place]], None],
        clock_ms: Callable[[], float],
    ) -> None:
        self._store, self._sessions, self._keep, self._clock_ms = store, sessions, keep, clock_ms
        self._damaged: set[Place] = set()
        self._asked_ms = clock_ms()
        self.recall()

    def found(self, places: Iterable[Place]) -> None:
        """Damage was found: ask whoever is connected."""
        if news := self._ask_all(places):
            self._keep(news)

    def recall(self) -> None:
        """What was found before, or by another process."""
        self._ask_all(known(self._store))

    def _ask_all(self, places: Iterable[Place]) -> list[Place]:
        news = sorted(set(places) - self._damaged)
        for place in news:
            log.warning("damaged segment", extra={"log": place[0], "first": place[1]})
            self._damaged.add(place)
            for session in self._sessions:
                session.ask_segment(*place)
        return news

    def look(self) -> None:
        """Whether a feed met damage."""
        if self._store.damaged:
            places, self._store.damaged = self._store.damaged, set()
            self.found(places)

    def ask_again(self) -> None:
        """Every second or so: those who are connected, now and then, for what is damaged still."""
        now_ms = self._clock_ms()
        if now_ms - self._asked_ms >= AGAIN_MS:
            self._asked_ms = now_ms
            for session in self._sessions if self._damaged else ():
                self.ask(session)

    def ask(self, session: Session) -> None:
        """A session has opened: ask for all that is damaged."""
        for place in sorted(self._damaged):
            session.ask_segment(*place)

    def mended(self, want: Want) -> None:
        """It is whole again."""
        self._damaged.discard((want.log, want.first))
        log.warning("damaged segment mended", extra={"log": want.log, "first": want.first})


def one(store: Store, trust: Trust, link: Link) -> Callable[[str, int], list[Item]]:
    """What a peer that asks for a single segment gets: that segment, or nothing (rule 3)."""

    def give(name: str, first: int) -> list[Item]:
        row = store.connection.execute(
            """select s.lsn, s.data, s.sha256, s.first_time, s.first_signature, l.up, l.down
               from segment s join log l on l.id = s.log_id where l.name = ? and s.first = ?""",
            (name, first),
        ).fetchone()
        if row is None or SUITE_1.hash(row[1]) != row[2]:
            return []
        lsn, data, sha256, time_s, signature, up, down = row
        held = LogName.parse(name)
        if link.peer.stands_for == trust.node or trust.me.stands_for == link.peer.node:
            may = True
        elif link.from_parent:
            may = bool(up) or trust.side(held) is Side.ABOVE
        else:
            below = link.peer.node in [node.node for node in trust.directory.path(held.origin)]
            may = below or goes_down_to(down, link.peer.scope)
        given = None if time_s is None else Cosignature(time_s, signature)
        return [Item(lsn, data, given, digest=sha256)] if may else []

    return give


def is_damaged(store: Store, envelope: Envelope) -> bool:
    """Whether the segment that is held in an envelope's place is damaged."""
    return _is_damaged(store, envelope.header.log, envelope.header.first)


def _is_damaged(store: Store, name: LogName, first: int) -> bool:
    there = store.held_range(name, first)
    return there is not None and SUITE_1.hash(there[3]) != there[1]


def mended(tx: Transaction, envelope: Envelope) -> None:
    """Other bytes lie in the place of what was damaged."""
    _forget(tx, (str(envelope.header.log), envelope.header.first))


def mend(
    tx: Transaction, store: Store, envelope: Envelope, content_key: Callable[[Envelope], bytes | None]
) -> int | None:
    """Put a neighbour's bytes in the place of a damaged segment. Its arrival number; None where these are not the
    bytes."""
    header = envelope.header
    there = store.held_range(header.log, header.first)
    if there is None:
        return None
    lsn, sha256, _, data, _ = there
    if SUITE_1.hash(envelope.raw) != sha256 and envelope.raw != data:
        return None
    (stashed,) = tx.connection.execute("select content_key from segment where lsn = ?", (lsn,)).fetchone()
    key = content_key(envelope) or (store.unstash(stashed) if stashed else b"")
    resealed.replace(tx, lsn, envelope.raw, key, announce=True)
    return lsn
