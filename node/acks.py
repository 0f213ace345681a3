"""Acknowledgements that wait for a standby (`ack = "standby"`): what `fednode.node.ackgate` decides, carried out.

Rules
1. What a standby acknowledges counts when it is heard: it is on the standby's disk then. After a start it is what the
   store has of it.
2. When no standby has acknowledged for `ack_wait` what waits, that is an alert, with a new time each time it begins;
   `fednode status` shows it (`AWAY` in log.db) until a standby has caught up. Its end is in the audit.
3. Nothing of this touches what is stored and passed on: only what children are told.

>>> # acks = Acks(engine); acks.take(session, reports); acks.heard(session, effect); jobs: acks.look()
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fednode.crypto.certs import Identity, iso
from fednode.crypto.errors import FednodeError
from fednode.node import admission
from fednode.node.ackgate import HOLD, AckGate, Go, Standby
from fednode.node.config import Config
from fednode.node.outcomes import May, unheard
from fednode.node.store import Store
from fednode.node.timetable import parse_duration
from fednode.node.trust import Trust
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.errors import Unavailable

if TYPE_CHECKING:
    from fednode.node.driver import Session
    from fednode.node.engine import Engine
    from fednode.node.link import Link
    from fednode.node.writer import Writer

log = logging.getLogger("fednode.acks")
STANDBY = "standby"
AWAY = "ack_away"  # since when no standby acknowledges what waits, Unix milliseconds (meta)
HELD = "FN-4519"  # to a child: stored, and not acknowledged yet
ALERT = "FN-4524"
RETRY_MS = 60_000


def standbys(store: Store, trust: Trust) -> dict[str, Standby]:
    """What each standby of this node has acknowledged, and refused."""
    found = {}
    for one in trust.directory.standbys_of(trust.node):
        peer = store.peer(one.node)
        rows = store.rows("select first from refused where peer = ? and log like 'lsn:%'", one.node)
        found[one.node] = Standby(peer.acked if peer else 0, frozenset(first for (first,) in rows))
    return found


def gate(config: Config, store: Store, trust: Trust) -> AckGate | None:
    """The gate of a node whose settings ask for one, as the store has it."""
    if config.ack != STANDBY:
        return None
    wait_ms, hold = parse_duration(config.ack_wait) * 1000, config.ack_away == HOLD
    return AckGate(wait_ms, hold, standbys(store, trust), store.meta(AWAY) is not None, store.lsn)


def may(config: Config, store: Store, trust: Trust) -> May | None:
    """For who is no daemon (a bundle); None where nothing waits for a standby."""
    found = gate(config, store, trust)
    return None if found is None else found.may(0)


def standing(config: Config, store: Store, trust: Trust) -> dict[str, Any] | None:
    """How it stands, for a document: what children have sent that no standby holds, and since when none has
    acknowledged. None where nothing waits for a standby."""
    found = gate(config, store, trust)
    if found is None:
        return None
    reached = max((one.upto for one in standbys(store, trust).values()), default=0)
    children = [one.node for one in trust.directory.children_of(trust.node) if not one.stands_for]
    marks = ", ".join("?" * len(children))
    rows = store.rows(
        f"""select coalesce(sum(iif(l.dataset like 'sys.%', 0, s.count)), 0),
                   coalesce(sum(iif(l.dataset like 'sys.%', s.count, 0)), 0)
            from segment s join log l on l.id = s.log_id
            where s.lsn > ? and s.peer in (select id from peer where node in ({marks}))""",
        *(reached, *children),
    )
    return {
        "away": config.ack_away,
        "wait": config.ack_wait,
        "away_since_ms": store.meta(AWAY),
        "waiting_changes": rows[0][0],
        "waiting_system": rows[0][1],
    }


class Acks:
    """Of one engine. Everything happens in its event loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._app = engine, engine.app
        self._gate = gate(self._app.config, engine.store, self._app.trust)
        self._away = self._gate is not None and self._gate.away
        self._telling: dict[Session, list[fx.Done]] = {}  # to whom it is being told what they had not heard of

    def may(self, peer: Identity, from_parent: bool) -> May | None:
        """What a peer may be told at its admission; None where nothing waits for a standby."""
        if self._gate is None or from_parent or peer.stands_for:
            return None
        return self._gate.may(self._engine.store.lsn)

    def begun(self, session: Session, owed: int) -> None:
        """A session is open. `owed`: its peer has yet to hear of what it sent, the last of it stored at this number."""
        link = session.link
        if self._gate is None or link is None:
            return
        if self._waits(link):
            self._gate.owe(session, owed, self._engine.clock_ms())
        elif link.peer.stands_for == self._app.trust.node:
            peer = self._engine.store.peer(link.peer.node)
            self._reached(link.peer.node, peer.acked if peer else 0)

    @staticmethod
    def _waits(link: Link) -> bool:
        """Whether what this session sends waits for a standby: a child's does."""
        return not link.from_parent and not link.peer.stands_for

    def take(self, session: Session, reports: Sequence[fx.Done]) -> Sequence[fx.Done]:
        """The writer's reports: those that may be told now."""
        if self._gate is None or session.link is None or not self._waits(session.link):
            return reports
        may = self._gate.take(session, reports, self._engine.clock_ms())
        if session in self._telling:  # behind what was sent before
            self._telling[session].extend(may)
            return []
        return may

    def heard(self, session: Session, effect: fx.Acked) -> None:
        """A peer has acknowledged."""
        peer = session.peer
        if peer is not None and peer.stands_for == self._app.trust.node:
            self._reached(peer.node, effect.upto, [one.lsn for one in effect.outcomes if one.refused])

    def ended(self, session: Session) -> None:
        """Whoever it was asks again."""
        self._telling.pop(session, None)
        if self._gate is not None:
            self._gate.forget(session)

    def look(self) -> None:
        """Every second or so: what has waited for too long."""
        if self._gate is None:
            return
        trust = self._app.trust
        self._gate.only([one.node for one in trust.directory.standbys_of(trust.node)])
        due = self._gate.due(self._engine.clock_ms())
        self._go(due.go)
        error = Unavailable(HELD, retry_after_ms=RETRY_MS, parent=trust.node, seconds=RETRY_MS // 1000)
        for session in due.ends:
            session.end(error, RETRY_MS)  # type: ignore[attr-defined]
        self._say()

    # ------------------------------------------------------------ carrying out

    def _reached(self, standby: str, upto: int, refused: Sequence[int] = ()) -> None:
        if self._gate is not None:
            self._go(self._gate.reached(standby, upto, refused))
            self._say()

    def _go(self, found: Sequence[Go]) -> None:
        for one in found:
            session: Any = one.who
            if one.unheard or session in self._telling:
                self._telling.setdefault(session, []).extend(one.reports)
            else:
                session.answer(one.reports)
            if one.unheard:
                session.spawn(self._tell_unheard(session, session.link))

    async def _tell_unheard(self, session: Session, link: Link) -> None:
        """What the peer had sent before this session began, and was not told at its beginning; then what it has sent
        since."""
        allowed = self.may(link.peer, link.from_parent)

        def outcomes(writer: Writer) -> Sequence[wire.Outcome]:
            store, app, peer = writer.store, self._app, writer.store.peer(link.peer.node)
            if peer is None:
                return ()
            heard = admission.heard(store, link.peer.node)
            then = replace(peer, have=replace(peer.have, lsn=link.before))  # of what came since there are reports
            return unheard(store, app.trust, then, heard, app.keys.sign, app.now_ms(), allowed)

        with contextlib.suppress(FednodeError):
            found = await self._engine.writer.call(outcomes)
            session.answer([fx.Done(one.lsn, one.cosignature, one.refused) for one in found])
            session.answer(self._telling.pop(session, []))

    def _say(self) -> None:
        """Where a standby has gone away, or is back."""
        if self._gate is not None and self._gate.away != self._away:
            self._away = self._gate.away
            self._engine.soon(self._note(self._away))

    async def _note(self, away: bool) -> None:
        app = self._app
        log.warning("no standby acknowledges" if away else "a standby has caught up")

        def note(writer: Writer) -> None:
            now_ms, journal = app.now_ms(), app.journal(writer)
            names = ", ".join(one.node for one in app.trust.directory.standbys_of(app.trust.node))
            with writer.store.write() as tx:
                tx.set_meta(AWAY, now_ms if away else None)
                if away:
                    told = {"standbys": names, "since": iso(now_ms // 1000), "away": app.config.ack_away}
                    journal.alert_within(tx, ALERT, app.trust.node, {**told, "wait": app.config.ack_wait})
                else:
                    journal.within(tx, "ack.resumed", standbys=names)

        with contextlib.suppress(FednodeError):
            await self._engine.writer.call(note)
