"""How far a standby is behind its primary, in changes and in time; both know it.

Rules
1. Behind is what the standby has not acknowledged. In time: since when the primary has had the oldest of that, by the
   primary's clock. Stamps would not do: what a village wrote weeks ago may have come this minute.
2. The primary counts the changes in its store. Since when, its daemon notes every second, and tells the standby in its
   beats, as soon as it changes.
3. What a daemon knows lies in a small file of the run folder (`run/lag.json`), so that a command sees it; it may be
   lost. A standby that has heard nothing for `FRESH_MS` knows only since when.

>>> samples = Samples(); samples.note(1_000, 7); samples.note(2_000, 9); samples.since(7), samples.since(9)
(2000, 0)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.errors import FednodeError
from fednode.node import digests, files
from fednode.sync import wire

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.driver import Session
    from fednode.node.engine import Engine

log = logging.getLogger("fednode.lag")
FILE = "lag.json"
NEAR_MAX = 1_000  # changes that a standby lacks
FRESH_MS = 70_000  # a session is silent for no longer (sync.exchange)
SAMPLES_MAX = 4096
TRY_AGAIN_MS = 3_600_000
STATE_BYTES_MAX = 256 * 1024


class Word(msgspec.Struct, frozen=True):
    """How far one standby is behind, as its primary said at `at_ms`."""

    changes: int = 0
    since_ms: int = 0
    at_ms: int = 0


def read(run_dir: Path) -> dict[str, Word]:
    """The last word on each standby (at a standby: under its primary's id); what cannot be read is nothing."""
    try:
        with (run_dir / FILE).open("rb") as file:
            return msgspec.json.decode(file.read(STATE_BYTES_MAX), type=dict[str, Word])
    except (OSError, *files.UNREADABLE):
        return {}


def keep(run_dir: Path, words: Mapping[str, Word]) -> None:
    """For whoever looks; it may be lost."""
    with contextlib.suppress(OSError):  # the disk may be full, the folder read-only
        files.jot(run_dir / FILE, msgspec.json.encode(words))


class Samples:
    """What was the last arrival number when: to tell since when there is more than a given one. Pure."""

    def __init__(self) -> None:
        self._found: list[tuple[int, int]] = []  # (time, arrival number), both rising

    def note(self, now_ms: int, lsn: int) -> None:
        """The last arrival number, now."""
        if not self._found or lsn > self._found[-1][1]:
            self._found.append((now_ms, lsn))
        if len(self._found) > SAMPLES_MAX:  # two become one, with the earlier time: a lag is never told too short
            odd = self._found[len(self._found) // 2 * 2 :]
            pairs = zip(self._found[::2], self._found[1::2], strict=False)
            self._found = [(first[0], second[1]) for first, second in pairs] + odd

    def covers(self, lsn: int) -> bool:
        """Whether it was seen to arrive: it is later than the first sample."""
        return bool(self._found) and lsn > self._found[0][1]

    def since(self, lsn: int) -> int:
        """Since when there has been more than up to this number; 0 where there is no more."""
        return next((at_ms for at_ms, last in self._found if last > lsn), 0)

    def forget(self, lsn: int) -> None:
        """Nobody is behind this number."""
        self._found = [one for one in self._found if one[1] > lsn] or self._found[-1:]


class LagWatch:
    """A daemon's. As a primary it counts and tells; as a standby it hears."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._run_dir = engine.app.home.run_dir
        self._samples = Samples()
        self._began = engine.store.lsn  # what lies before came before this daemon: since when is in the file, if at all
        self._words = read(self._run_dir)
        self._digest_tried_ms = -TRY_AGAIN_MS
        self.told: wire.Lag | None = None  # at a standby: the last word of its primary

    def look(self) -> None:
        """Every second or so."""
        app, store = self._engine.app, self._engine.store
        standbys = [one.node for one in app.trust.directory.standbys_of(app.trust.node)]
        if not standbys:
            return
        now_ms = app.now_ms()
        self._samples.note(now_ms, store.lsn)
        peers = {node: store.peer(node) for node in standbys}
        acked = {node: peer.acked if peer else 0 for node, peer in peers.items()}
        self._samples.forget(min(acked.values()))
        found = {node: self._word(node, upto) for node, upto in acked.items()}
        if found != self._words:
            keep(self._run_dir, found)
        self._words = found
        if any(word.changes <= NEAR_MAX for word in found.values()):  # else it would slow down who catches up
            self._digest(now_ms)
        records = digests.to_tell(store)
        for session in [one for one in self._engine.sessions if not one.exchange.dials]:
            if (word := found.get(session.shown)) is not None:
                session.tell_lag(wire.Lag(word.changes, word.since_ms), records)

    def _digest(self, now_ms: int) -> None:
        """Once a day: what standbys are to compare with (`node.digests`)."""
        if now_ms - self._digest_tried_ms < TRY_AGAIN_MS or not digests.due(self._engine.store, now_ms):
            return
        self._digest_tried_ms = now_ms
        self._engine.soon(self._take_digest())

    async def _take_digest(self) -> None:
        try:
            await asyncio.to_thread(digests.take, self._engine.app)
        except FednodeError as error:
            log.warning("records not digested", extra={"code": error.code})

    def _word(self, node: str, acked: int) -> Word:
        changes = self._engine.store.backlog_standby(node, acked).all
        if not changes:
            return Word()
        known_ms = self._words.get(node, Word()).since_ms if acked < self._began else 0
        return Word(changes, known_ms or self._samples.since(acked))

    def heard(self, session: Session, lag: wire.Lag, records: wire.RecordsDigest | None) -> None:
        """The primary has said it."""
        self.told = lag
        if records is not None and session.link is not None:
            digests.heard(self._run_dir, session.link.store, records)
        if session.peer is not None:
            keep(self._run_dir, {session.peer.node: Word(lag.changes, lag.since_ms, self._engine.app.now_ms())})


def listing(app: App, *, of_others: bool = True) -> list[dict[str, Any]]:
    """The standbys of this node; at a standby: itself; `of_others`: at an issuer also those of its children, of which
    it cannot tell. `behind_changes`, `behind_ms` None: not known here."""
    store, trust = app.store, app.trust
    trust.refresh(store)
    directory, me = trust.directory, trust.me
    words, running, now_ms = read(app.home.run_dir), app.home.running(), app.now_ms()
    found = []
    for one in directory.all():
        mine, myself = one.stands_for == me.node, one.node == me.node
        if directory.is_revoked(one.node) or not one.stands_for:
            continue
        if not (mine or myself or (of_others and directory.parent_of(one.stands_for) == me.node)):
            continue
        peer = store.peer(one.node if mine else one.stands_for)
        last_ms = peer.last_ms if peer else None
        behind: tuple[int | None, int | None] = (None, None)
        if mine:
            behind = _of_mine(app, one.node, words.get(one.node, Word()), last_ms)
        elif myself:
            behind = of_myself(words.get(one.stands_for, Word()), running, last_ms, now_ms)
        found.append(
            {
                "id": one.node,
                "name": one.name,
                "for": one.stands_for,
                "heir": directory.is_heir(one),
                "behind_changes": behind[0],
                "behind_ms": behind[1],
                "last_exchange_ms": last_ms,
            }
        )
    return found


def _of_mine(app: App, node: str, word: Word, last_ms: int | None) -> tuple[int, int | None]:
    """Without a daemon's word on it, since the last exchange."""
    peer = app.store.peer(node)
    changes = app.store.backlog_standby(node, peer.acked if peer else 0).all
    since_ms = word.since_ms or last_ms
    if not changes:
        return 0, 0
    return changes, None if since_ms is None else max(0, app.now_ms() - since_ms)


def of_myself(word: Word, running: bool, last_ms: int | None, now_ms: int) -> tuple[int | None, int | None]:
    """Changes and milliseconds that a standby is behind, by its primary's last word; None: not known."""
    if running and 0 <= now_ms - word.at_ms < FRESH_MS:
        return word.changes, max(0, now_ms - word.since_ms) if word.changes else 0
    heard_ms = max(word.at_ms, last_ms or 0)
    return None, max(0, now_ms - heard_ms) if heard_ms else None
