"""The running node: serves its children, keeps an exchange with its parent, keeps the projections up to date.

Rules
1. Changes are pushed: an exchange stays open, and is woken as soon as something was stored, by whichever process.
2. The parent away is normal life: retry with full jitter, the backlog grows, everything else goes on.
3. A stop is clean: no new sessions, a Bye to those that are open, what is queued is stored, then the end.
4. Errors end at the session that had them; the daemon goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node import carrier, poke, retention
from fednode.node.config import Config, shown
from fednode.node.engine import Engine, code_of, quietly
from fednode.node.follower import Follower
from fednode.node.journal import REFUSED
from fednode.node.schedule import Jobs, retrying
from fednode.node.scrubber import STEP_EVERY_S, Scrubber
from fednode.node.writer import Writer
from fednode.proto import fednode_pb2 as pb
from fednode.sync import versions
from fednode.sync.errors import Refused, Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.daemon")
GRACE_S = 3.0
WATCH_S = 1.0
DAILY_LOOK_S = 600.0  # how often to look whether another day has begun
SWITCH_S = 0.0005
PROJECT_DELAY_S = 0.003  # an ack goes out first: projecting would hold Python's lock in between
BUSY_RETRY_MS = 60_000


class Daemon:
    """`fednode run`."""

    def __init__(self, app: App) -> None:
        self.app = app
        self.engine = Engine(app, self._project_soon)
        self.projector = Follower(app, self.engine.writer.busy)
        self.scrubber = Scrubber(app, self.engine.writer, self.engine.mender.found) if app.config.scrub_days else None
        self.server = carrier.Server(app.credentials)
        self._stop = asyncio.Event()
        self._data_version = -1
        self._failing = ""
        self._started = False
        self._dialer: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ask for a clean end; safe from a signal handler in the loop."""
        self._stop.set()

    async def run(self, ready: Callable[[int, int], None] = lambda port, enrol_port: None) -> None:
        """Until `stop`. `ready` is called with the ports once they are open. Raises StoreError FN-7620 when a port is
        taken.
        """
        app = self.app
        sys.setswitchinterval(SWITCH_S)
        jobs = Jobs()
        listener = poke.Listener(app.home.run_dir, self._poked)
        try:
            if app.trust.me.may_issue:
                await self.server.start(
                    app.config.listen, app.config.enrol_listen, self.engine.serve_child, self._chain, self._join
                )
            await self.engine.note("daemon.started", settings=_digest(app.config))
            self._started = True
            self.projector.wake()
            jobs.every("watch", WATCH_S, self._watch)
            if self.scrubber is not None:
                jobs.every("scrub", STEP_EVERY_S, self.scrubber.step)
            jobs.every("retention", DAILY_LOOK_S, self._daily)
            jobs.start()
            if app.trust.parent is not None:
                self._dialer = asyncio.create_task(self._dial_for_ever())
            ready(self.server.port, self.server.enrol_port)
            await self._stop.wait()
        finally:
            jobs.stop()
            listener.close()
            await self._shut()

    async def _shut(self) -> None:
        if self._dialer is not None:
            self._dialer.cancel()
        for session in list(self.engine.sessions):
            session.end(None)
        await asyncio.sleep(0)
        await self.server.stop(GRACE_S)
        if self._dialer is not None:
            await asyncio.gather(self._dialer, return_exceptions=True)
        if self.scrubber is not None:
            await self.scrubber.close()
        if self._started:
            await self.engine.note("daemon.stopped")
        await self.engine.stop()
        await asyncio.to_thread(self.projector.stop)

    def _project_soon(self) -> None:
        asyncio.get_running_loop().call_later(PROJECT_DELAY_S, self.projector.wake)

    # ------------------------------------------------------------ other processes

    def _poked(self) -> None:
        self.app.trust.refresh(self.engine.store)
        self.engine.moved()

    def _watch(self) -> None:
        """Another process may have written without poking."""
        version = self.engine.store.data_version()
        if version != self._data_version:
            self._data_version = version
            self._poked()

    async def _daily(self) -> None:
        """Retention by the catalog, and cleaning up, when another day has begun."""
        now_ms = self.app.now_ms()
        day = retention.day_of(now_ms).isoformat()
        if self.engine.store.meta("retention_day") == day:
            return
        with contextlib.suppress(Refused):  # behind the fence it makes no change of its own
            await asyncio.to_thread(self._retain, now_ms)

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.set_meta("retention_day", day)

        await quietly(self.engine.writer.call(note))

    def _retain(self, now_ms: int) -> None:
        records = self.app.records(self.app.new_store())
        try:
            retention.run_daily(records, now_ms)
        finally:
            records.close()
            records.store.close()

    # ------------------------------------------------------------ the parent

    async def _dial_for_ever(self) -> None:
        while not self._stop.is_set():
            async for attempt in retrying():
                with attempt:
                    await self._dial_once()

    async def _dial_once(self) -> None:
        app = self.app
        last: Exception = Unavailable("FN-4506", parent=app.trust.parent.node if app.trust.parent else "")
        for address in app.parent_addresses():
            try:
                close, moved = await carrier.dial(
                    address,
                    app.credentials(),
                    app.parent_dns(),
                    lambda stream: self.engine.converse(stream, once=False),
                )
            except Unavailable as error:
                last = error
                continue
            if close.error is None:
                self._failing = ""
                return
            log.warning("exchange with the parent ended", extra={"reason": str(close.error), "address": address})
            self._failing = ""
            if isinstance(close.error, Unavailable):
                if (moved.acked or moved.received) and not close.retry_after_ms:
                    return  # the line was cut: dial at once, and count failures anew
                last = close.error
                continue
            await self._note_failure(code_of(close.error))
            raise Unavailable("FN-4507", retry_after_ms=BUSY_RETRY_MS, reason=str(close.error)) from close.error
        await self._note_failure(code_of(last))
        raise last

    async def _note_failure(self, code: str) -> None:
        """Say in the store, once for each kind of failure, why the parent is not reached: `fednode status` shows it."""
        parent = self.app.trust.parent
        if parent is None or code == self._failing:
            return
        self._failing = code

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.note_error(tx.ensure_peer(parent.node, "parent").id, code)

        await quietly(self.engine.writer.call(note))

    # ------------------------------------------------------------ enrolment

    async def _chain(self) -> pb.ChainReply:
        chain = self.app.trust.directory.chain(self.app.trust.node)
        return pb.ChainReply(
            chain=chain, version_min=versions.SPOKEN.low, version_max=versions.SPOKEN.high, now_ms=self.app.now_ms()
        )

    async def _join(self, request: pb.JoinRequest) -> pb.JoinReply:
        try:
            reply: pb.JoinReply = await self.engine.writer.call(lambda writer: self.app.enrol(writer, request))
        except FednodeError as error:
            log.warning("join refused", extra={"node": request.node, "code": error.code})
            await self.engine.tell("join.refused", REFUSED, peer=request.node, code=error.code)
            params = {key: str(value) for key, value in error.params.items()}
            return pb.JoinReply(refused=error.code, params=params, now_ms=self.app.now_ms())
        return reply


def _digest(config: Config) -> str:
    """Tells in the audit whether the settings have changed from one start to the next."""
    return SUITE_1.hash(msgspec.json.encode(shown(config), order="sorted"))[:8].hex()


async def serve(app: App, ready: Callable[[int, int], None], stopper: Callable[[Callable[[], None]], None]) -> None:
    """Run the daemon until told to stop. `stopper` is handed the function that stops it (for signal handlers)."""
    daemon = Daemon(app)
    stopper(daemon.stop)
    await daemon.run(ready)
