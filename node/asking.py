"""`fednode sync` beside a daemon: it asks for an exchange now, in the session that the daemon has open with the parent.

Rules
1. A stream socket in the run directory, for the node's own user alone. One line of JSON asks, empty lines say that it
   goes on, one line of JSON answers.
2. Asked, the daemon takes in what other processes have written, wakes the session and sounds it (`sync.side`, rule 8).
   It answers when that was answered, what waited to go up when it was asked is acknowledged or refused, the parent has
   said that it has nothing more, and what came of it is in state.db.
3. Who is not answered so dials by itself, and loses nothing by having asked: where there is no daemon, or one of an
   older program; no session that both sides use in full, or one at an address that the asker would not dial; where
   this node is fenced, or its disk full; where the parent is silent for longer than its beats are apart, nothing moves
   for `STILL_S`, or the session ends.
4. There are `ASKERS_MAX` at a time; a question is a line within `ASK_S`. Whoever hangs up is not worked for.
5. What is not understood is no question, and no answer: the other end may be of another program.

>>> asyncio.run(ask(Path("/nonexistent"), ("192.0.2.1:7443",))) is None
True
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fednode.crypto.errors import FednodeError
from fednode.node import fence
from fednode.node.driver import Report, Session
from fednode.node.engine import Engine
from fednode.node.follower import Follower
from fednode.sync.change import AUDIT
from fednode.sync.exchange import BEAT_MS

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.asking")
NAME = "sync.sock"
ASKERS_MAX = 8
ASK_S = 5.0
ASK_BYTES_MAX = 16 * 1024
ANSWER_BYTES_MAX = 256 * 1024
GOES_ON_S = 5.0  # so often the asker hears that it goes on
HEARD_S = 20.0  # and waits so long for that
SILENT_MS_MAX = BEAT_MS + 5_000
STILL_S = 120.0
LOOK_S = 1.0
PROJECT_S = 10.0
DONE, NOT_HERE, ENDED = "done", "not here", "ended"
OWN, DAEMONS = "own", "daemon"  # whose session


class Question(msgspec.Struct):
    """`addresses`: where the asker would dial the parent."""

    addresses: list[str]


@dataclass(slots=True)
class SyncReport:
    """What one exchange moved. `pending`: changes saved here that the parent does not hold yet; `over`: over whose
    session."""

    parent: str = ""
    address: str = ""
    sent: int = 0
    acked: int = 0
    received: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    bytes_sent: int = 0
    bytes_received: int = 0
    pending: int = 0
    applied: int = 0
    over: str = OWN

    def add(self, moved: Report | SyncReport) -> None:
        """What a session, or another report, counted."""
        self.sent += moved.sent
        self.acked += moved.acked
        self.received += moved.received
        self.refused += moved.refused
        self.bytes_sent += moved.bytes_sent
        self.bytes_received += moved.bytes_received


class Answer(msgspec.Struct):
    """`outcome`: `done`; or for who asked to dial: `not here`, or `ended`, given up before it was done. `report`: what
    was moved since it was asked."""

    outcome: str
    report: SyncReport


# ---------------------------------------------------------------- who asks


async def ask(run_dir: Path, addresses: Sequence[str]) -> Answer | None:
    """Ask the daemon of this home, and wait for its answer. None where there is none."""
    try:
        async with asyncio.timeout(HEARD_S):
            reader, writer = await asyncio.open_unix_connection(str(run_dir / NAME), limit=ANSWER_BYTES_MAX)
    except (OSError, TimeoutError):  # no daemon, an older one, a path too long for a socket
        return None
    try:
        writer.write(msgspec.json.encode(Question(list(addresses))) + b"\n")
        line = b"\n"
        while line == b"\n":
            async with asyncio.timeout(HEARD_S):
                line = await reader.readline()
        return msgspec.json.decode(line, type=Answer)
    except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:  # ValueError: a line too long
        log.info("the daemon gave no answer", extra={"reason": str(error)})
        return None
    finally:
        writer.close()


# ---------------------------------------------------------------- who answers


class Listener:
    """The daemon's end. `take_in`: looks at what other processes have written."""

    def __init__(self, app: App, engine: Engine, follower: Follower, take_in: Callable[[], None]) -> None:
        self._app, self._engine, self._follower, self._take_in = app, engine, follower, take_in
        self._path = app.home.run_dir / NAME
        self._server: asyncio.Server | None = None
        self._askers: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Where there can be no socket (a path too long, a read-only folder), there is none: rule 3."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            try:
                listening.bind(str(self._path))
                os.chmod(self._path, 0o600)  # nobody can connect before it listens
                self._server = await asyncio.start_unix_server(self._asked, sock=listening, limit=ASK_BYTES_MAX)
            except OSError:
                listening.close()
                raise

    async def close(self) -> None:
        """Whoever waits for an answer dials by itself."""
        if self._server is None:
            return
        self._server.close()
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        for task in list(self._askers):
            task.cancel()
        await asyncio.gather(*self._askers, return_exceptions=True)

    def _asked(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._askers) >= ASKERS_MAX:
            writer.close()
            return
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._askers.add(task)
        task.add_done_callback(self._askers.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ASK_S):
                question = msgspec.json.decode(await reader.readline(), type=Question)
            answer = await self._work(question, reader, writer)
            if answer is not None:
                writer.write(msgspec.json.encode(answer) + b"\n")
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            log.info("a question that is none", extra={"reason": str(error)[:200]})
        except FednodeError as error:
            log.warning("asked for an exchange in vain", extra={"code": error.code, "reason": str(error)})
        finally:
            writer.close()

    async def _work(
        self, question: Question, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Answer | None:
        """The answer; None where nobody waits for it any more."""
        working = asyncio.ensure_future(self._exchange(question))
        gone = asyncio.ensure_future(reader.read(1))
        try:
            while not working.done():
                await asyncio.wait({working, gone}, timeout=GOES_ON_S, return_when=asyncio.FIRST_COMPLETED)
                if gone.done() and not working.done():
                    return None
                writer.write(b"\n")
            return working.result()
        finally:
            for one in (working, gone):
                one.cancel()
            await asyncio.gather(working, gone, return_exceptions=True)

    def _session(self, addresses: Sequence[str]) -> Session | None:
        """The session with the parent, if it is open and of use to the asker (rule 3)."""
        engine = self._engine
        if engine.app.room.low or fence.standing(engine.store) is not None:
            return None
        for one in engine.sessions:
            of_parent = one.link is not None and one.link.from_parent and one.ended is None
            if of_parent and not one.errand and one.exchange.both_ways and one.address in addresses:
                return one
        return None

    async def _exchange(self, question: Question) -> Answer:
        """Rule 2. Raises FednodeError."""
        engine, follower = self._engine, self._follower
        session = self._session(question.addresses)
        if session is None:
            return Answer(NOT_HERE, SyncReport())
        then, applied, trust = replace(session.report), follower.applied, self._app.trust
        self._take_in()
        engine.renew_when_due()
        last = engine.store.lsn
        session.wake()
        sounding = session.sound(str(trust.log_name(AUDIT, trust.area)))
        outcome = await self._met(session, sounding, last) if sounding else NOT_HERE
        if outcome == NOT_HERE:
            return Answer(NOT_HERE, SyncReport())
        if outcome == DONE:
            await self._projected()
        report = SyncReport(session.shown, session.address, applied=follower.applied - applied, over=DAEMONS)
        report.add(session.report.since(then))
        return Answer(outcome, report)

    async def _met(self, session: Session, sounding: int, last: int) -> str:
        """Wait until the session has exchanged all that there was. `last`: the arrival number when it was asked."""
        exchange, loop = session.exchange, asyncio.get_running_loop()

        def gone_up() -> bool:
            held = self._engine.store.peer(session.shown)
            return (held is not None and held.acked >= last) or (exchange.answered and session.settled)

        def over() -> bool:
            return session.ended is not None or (exchange.echoed(sounding) and exchange.heard_out and gone_up())

        asked_at_s = moved_at_s = loop.time()
        before: object = None
        while not over():
            now_s = loop.time()
            done = session.report
            now = (done.sent, done.acked, done.received, exchange.underway)
            if now != before:
                before, moved_at_s = now, now_s
            silent_ms = min(exchange.silent_ms(session.now_ms()), (now_s - asked_at_s) * 1000)
            if silent_ms > SILENT_MS_MAX or now_s - moved_at_s > STILL_S:
                return ENDED
            await self._engine.until(over, LOOK_S)
        return DONE if session.ended is None else ENDED

    async def _projected(self) -> None:
        """What is stored comes into state.db; where it cannot, the asker's own look says why."""
        follower, upto = self._follower, self._engine.store.lsn
        follower.wake()
        await self._engine.until(lambda: follower.upto >= upto or follower.stuck, PROJECT_S)
