"""The running node: serves its children, keeps an exchange with its parent, keeps the projections up to date.

Rules
1. Changes are pushed: an exchange stays open, and is woken as soon as something was stored, by whichever process.
2. A stop is clean: no new sessions, a Bye to those that are open, what is queued is stored, then the end.
3. Errors end at the session that had them; the daemon goes on.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec

import fednode
from fednode.crypto import certs
from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node import asking, carrier, heap, poke, succession, switchover, threads, tracing
from fednode.node.alerting.daily import Alerts
from fednode.node.config import Config, shown
from fednode.node.dialer import Dialer
from fednode.node.engine import Engine
from fednode.node.fence import standing
from fednode.node.follower import Follower, Lull
from fednode.node.jobs import IDLE, JOBS, Ledger, clean_up, exists, note_drills, notify, retain, save
from fednode.node.journal import DAEMON, REFUSED, TEXT_BYTES_MAX, cut
from fednode.node.keeper import Keeper
from fednode.node.schedule import Jobs
from fednode.node.scrubber import Scrubber
from fednode.node.switchover import Return, Switchover
from fednode.node.upgrading import settled
from fednode.node.withdrawal import day_of
from fednode.node.writer import Writer
from fednode.proto import fednode_pb2 as pb
from fednode.sync import versions
from fednode.sync.errors import PeerError
from fednode.sync.wire_where import Whereabouts

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.web.server import Server

log = logging.getLogger("fednode.daemon")
GRACE_S = 3.0
STRANGERS = "?"  # the lane (`node.lanes`) of all who ask for a certificate: no node is called so
SWITCH_S = 0.0005


class Daemon:
    """`fednode run`. Raises Refused FN-2604."""

    def __init__(self, app: App) -> None:
        self.app = app
        app.tracer = tracing.tracer(app.config, app.trust.node, fednode.__version__)
        self._lull = Lull(asyncio.get_running_loop(), lambda: self.projector.wake())
        self.engine = Engine(app, self._lull.put_off)
        self.projector = Follower(app, self.engine.writer.busy)
        self.scrubber = Scrubber(app, self.engine.writer, self.engine.mender.found) if app.config.scrub_days else None
        self._alerts = Alerts(app, self.engine)
        self.keeper = Keeper(app, self.engine, self.projector.wake)
        self.server = carrier.Server(app.credentials)
        self._asked = asking.Listener(app, self.engine, self.projector, self._poked)
        self._stop = asyncio.Event()
        self._data_version = -1
        self._started = self._serving = False
        self._dialer = Dialer(app, self.engine)
        self._dialing: asyncio.Task[None] | None = None
        self.console: Server | None = None
        self.next: Callable[[], Awaitable[App]] | None = None  # what makes the node that goes on in this one's place
        self._switchover = Switchover(app, self.engine, lambda: self._become(partial(reopened, app)))
        self._return = Return(app, self.engine, self._become)
        self._jobs = Jobs(
            Ledger(app.home.run_dir, DAEMON),
            asyncio.get_running_loop().time,
            app.now_ms,
            app.rng,
            app.config.jobs_jitter,
            app.tracer,
        )

    def stop(self) -> None:
        """Ask for a clean end; safe from a signal handler in the loop."""
        self._stop.set()

    def _become(self, next_: Callable[[], Awaitable[App]]) -> None:
        """Stop, and go on as another node: its standby, or its primary, that is."""
        self.next = next_
        self._stop.set()

    async def run(self, ready: Callable[[int, int], None] = lambda port, enrol_port: None) -> None:
        """Until `stop`. `ready` is called with the ports once they are open. Raises StoreError FN-7620 when a port is
        taken.
        """
        app = self.app
        sys.setswitchinterval(SWITCH_S)
        listener = poke.Listener(app.home.run_dir, self._poked)
        try:
            await self._open()
            await self._open_console()
            await self.engine.note("daemon.started", settings=_digest(app.config))
            self._started = True
            self.engine.health.begin()
            await self.keeper.look()
            self.projector.wake()
            self._plan()
            self._jobs.start()
            if app.trust.parent is not None:
                self._dialing = asyncio.create_task(self._dialer.run())
            await self._asked.open()
            settled(app.home.log_db)
            heap.settle()
            threads.give_way()
            ready(self.server.port, self.server.enrol_port)
            await self._switchover.begin(app.now_ms())
            await self._stop.wait()
        finally:
            self._jobs.stop()
            listener.close()
            await self._asked.close()
            await self._shut()
            heap.unsettle()

    async def _open(self) -> None:
        """The ports, where somebody may dial this node; a village's when it has invited a standby. Raises StoreError
        FN-7620."""
        app = self.app
        if self._serving or not app.serves:
            return
        self._serving = True
        await self.server.start(
            *(app.config.listen, app.config.enrol_listen, self.engine.serve_child, self._succeed),
            *(self._hand_over, self._where, self._chain, self._join),
        )

    async def _open_console(self) -> None:
        """The console, where the settings give it an address: nothing of it is loaded else. Raises StoreError
        FN-780x."""
        if not self.app.config.http_listen:
            return
        from fednode.node.web.server import Server

        self.console = Server(self.app, self.engine)
        await self.console.start()

    async def _open_late(self) -> None:
        try:
            await self._open()
        except FednodeError as error:  # the next start says it, too, and ends
            log.error("the ports cannot be opened", extra={"code": error.code, "reason": str(error)})

    def _plan(self) -> None:
        app = self.app  # to strip, and to write files anew, takes room at first
        functions: dict[str, Callable[[], object]] = {
            "watch": self._look,
            "sync": self._dialer.judge,
            "renewal": self.engine.renew_when_due,
            "retention": self._daily,
            "cleaning": lambda: IDLE if app.room.low else asyncio.to_thread(clean_up, app),
            "backup": lambda: asyncio.to_thread(save, app, self._stop.is_set),
            "drill": lambda: asyncio.to_thread(note_drills, app),
            "health": self.engine.health.look,
            "alerts": self._alerts.look,
            "coverage": self._alerts.survey,
            "notify": lambda: IDLE if app.room.low else asyncio.to_thread(notify, app),
        }
        if self.scrubber is not None:
            functions["scrub"] = self.scrubber.step
        for job in JOBS:
            if exists(job, self.app):
                self._jobs.every(job.name, job.seconds(self.app.config), functions[job.name], jitter=bool(job.setting))

    async def _shut(self) -> None:
        if self.console is not None:
            await self.console.stop()
        await self._switchover.stop()
        await self._return.stop()
        self._dialer.stop()
        sessions = list(self.engine.sessions)
        for session in sessions:
            session.end(None)
        # who is cancelled says nothing any more, and its parent would take it for a cut (FN-4501)
        dialled = [asyncio.ensure_future(one.over.wait()) for one in sessions if one.exchange.dials]
        if dialled:
            _, late = await asyncio.wait(dialled, timeout=GRACE_S)
            for waiting in late:
                waiting.cancel()
        if self._dialing is not None:
            self._dialing.cancel()
        await self.server.stop(GRACE_S)
        if self._dialing is not None:
            await asyncio.gather(self._dialing, return_exceptions=True)
        await self._dialer.ended()
        if self.scrubber is not None:
            await self.scrubber.close()
        if self._started:
            await self.engine.note("daemon.stopped")
        await self.engine.stop()
        await asyncio.to_thread(self.projector.stop)
        await asyncio.to_thread(self.app.tracer.stop)

    # ------------------------------------------------------------ other processes

    def _poked(self) -> None:
        self.app.trust.refresh(self.engine.store)
        self.engine.mender.recall()
        if self._started and not self._serving and self.app.serves and not self._stop.is_set():
            self.engine.soon(self._open_late())
        self.engine.moved()
        self._switchover.look()
        self._return.look()

    async def _look(self) -> object:
        """At the disk, and for what other processes have written."""
        await self.keeper.look()
        return self._watch()

    def _watch(self) -> object:
        """Another process may have written without poking; children may wait for their turn."""
        self.engine.take_turns()
        self.engine.acks.look()
        self.engine.lags.look()
        self.engine.where.look()
        self.engine.mender.ask_again()
        self.engine.health.sample()
        self._return.look()  # its time passes by itself
        version = self.engine.store.data_version()
        if version == self._data_version:
            return IDLE
        self._data_version = version
        self._poked()
        return None

    def _daily(self) -> object:
        """Retention by the catalog, and cleaning up, when another day has begun; not behind the fence, where nothing is
        changed. What is stripped does not come back: a clock that nobody has confirmed does not make a day."""
        now_ms, store = self.app.reference.certain_ms(), self.engine.store
        due = store.meta("retention_day") != day_of(now_ms).isoformat()
        if not due or standing(store) is not None or self.app.room.low:
            return IDLE
        return asyncio.to_thread(retain, self.app, now_ms)

    # ------------------------------------------------------------ enrolment

    async def _chain(self) -> pb.ChainReply:
        chain = self.app.trust.directory.chain(self.app.trust.node)
        return pb.ChainReply(
            chain=chain, version_min=versions.SPOKEN.low, version_max=versions.SPOKEN.high, now_ms=self.app.now_ms()
        )

    async def _succeed(self, request: pb.SuccessionRequest, certificate: bytes) -> pb.JoinReply:
        def grant(writer: Writer) -> pb.JoinReply:
            return succession.grant(self.app, writer, certs.parse(certificate), request)

        return await self._certified("succession.refused", request.node, grant)

    async def _hand_over(self, request: pb.HandOverRequest, certificate: bytes) -> pb.HandOverReply:
        asker, app = certs.parse(certificate), self.app
        try:
            handing = await self.engine.writer.call(lambda w: switchover.hand_over(app, w, asker, request))
        except FednodeError as error:
            self._line("handover refused", asker.node, error)
            await self.engine.tell("handover.refused", REFUSED, peer=asker.node, code=error.code)
            return pb.HandOverReply(refused=error.code, params=_texts(error))
        if handing is None:
            return pb.HandOverReply()
        self.engine.send_away(but=asker.node)
        return switchover.agreed(app, handing, await switchover.witnessed_upto(app, self.engine, asker.node))

    async def _where(self, node: str, certificate: bytes) -> Whereabouts:
        asker = certs.parse(certificate)
        try:
            return self.engine.where.answer(asker, node)
        except PeerError as error:
            self._line("where refused", asker.node, error)
            raise

    async def _join(self, request: pb.JoinRequest) -> pb.JoinReply:
        return await self._certified("join.refused", request.node, lambda writer: self.app.enrol(writer, request))

    async def _certified(self, refusal: str, node: str, grant: Callable[[Writer], pb.JoinReply]) -> pb.JoinReply:
        """The answer to who asks for a certificate: what `grant` makes, or why not."""
        try:
            reply: pb.JoinReply = await self.engine.writer.call(grant, STRANGERS)
        except FednodeError as error:
            self._line(refusal.replace(".", " "), node, error)
            await self.engine.tell(refusal, REFUSED, peer=node, code=error.code)
            return pb.JoinReply(refused=error.code, params=_texts(error), now_ms=self.app.now_ms())
        return reply

    def _line(self, what: str, node: str, error: FednodeError) -> None:
        """In the log, within bounds: anybody can ask to join, as often as he likes and by any name."""
        if self.app.throttle.spare(f"line {what}"):
            log.warning(what, extra={"node": cut(node, TEXT_BYTES_MAX), "code": error.code})


def _texts(error: FednodeError) -> dict[str, str]:
    return {key: str(value) for key, value in error.params.items()}


def _digest(config: Config) -> str:
    """Tells in the audit whether the settings have changed from one start to the next."""
    return SUITE_1.hash(msgspec.json.encode(shown(config), order="sorted"))[:8].hex()


async def reopened(app: App) -> App:
    """The node of the same home, as it is now."""
    app.close()
    return type(app).open(app.home.path, app.config, clock=app.clock, rng=app.rng, operator=app.operator)


async def serve(
    app: App,
    ready: Callable[[int, int], None],
    stopper: Callable[[Callable[[], None]], None],
    became: Callable[[App], None] = lambda app: None,
) -> None:
    """Run the daemon until told to stop. `stopper` is handed the function that stops it (for signal handlers); `became`
    the node that goes on when a switchover has made another of it."""
    while True:
        daemon = Daemon(app)
        stopper(daemon.stop)
        await daemon.run(ready)
        if daemon.next is None:
            return
        app = await daemon.next()
        became(app)
