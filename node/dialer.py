"""The daemon's line to its parent: an exchange that stays open, for as long as the sync windows allow.

Rules
1. The parent away is normal life: retry with full jitter, the backlog grows, everything else goes on. Where it has
   standbys, one of them may serve soon: the waits are short then. Where none of its addresses answers for a while, the
   node above it is asked where it is now (`node.whereabouts`).
2. A parent that is busy says when to come again, and is obeyed.
3. It dials inside a window only. When the window ends the exchange ends with a Bye: what is half sent or half received
   goes on at that chunk in the next one. `fednode sync` by hand does not ask for windows.
4. Where the settings say so, what is urgent goes up outside the windows, too: an errand, which takes nothing else. A
   node that is not sure of the time (`node.clocks`) goes on one to learn it: its windows might never come.
5. A limit on the line that begins or ends begins a new session: the greeting says how much may come at once.
6. Windows are judged by the corrected clock, again and again: a clock that is put right counts at once.

>>> # dialer = Dialer(app, engine); jobs.every("sync", JUDGE_S, dialer.judge); await dialer.run()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from fednode.crypto.errors import FednodeError
from fednode.node import carrier, urgent, whereabouts
from fednode.node.demotion import FOUND, SUCCESSORS
from fednode.node.engine import Engine, code_of, quietly
from fednode.node.jobs import IDLE, limit, windows
from fednode.node.schedule import RETRY_MAX_S, retrying
from fednode.node.writer import Writer
from fednode.sync.errors import Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.daemon")
BUSY_RETRY_MS = 60_000
ERRAND_EVERY_S = 60.0  # receipts and alerts may trickle; each errand is a connection
SUCCEEDED_S = 3.0
EARLIER_LIFE = "FN-5513"


class Dialer:
    """Keeps an exchange with the parent."""

    def __init__(self, app: App, engine: Engine) -> None:
        self._app, self._engine = app, engine
        self._table = windows(app.config)
        self._open = asyncio.Event()
        self._limited = False
        self._failing = ""
        self._stopping = False
        self._errand: asyncio.Task[None] | None = None
        self._errand_at_s = 0.0
        self._asking = whereabouts.Asking(asyncio.get_running_loop().time, app.rng)

    def stop(self) -> None:
        """Dial no more. `run` ends when it is cancelled, too; but gRPC may swallow that while a call is ending."""
        self._stopping = True

    async def ended(self) -> None:
        """After `stop`: nothing of it runs any more."""
        if self._errand is not None:
            self._errand.cancel()
            await asyncio.gather(self._errand, return_exceptions=True)

    def judge(self) -> object:
        """Open or close the line, as the windows say. `IDLE` where it stays as it is."""
        now_ms = self._app.now_ms()
        now_open = self._table.open_until(now_ms) is not None
        was, self._limited = self._limited, bool(limit(self._app.config, now_ms))
        moved = now_open != self._open.is_set()
        if moved:
            if self._table.spans:
                log.info("sync window", extra={"open": now_open})
            (self._open.set if now_open else self._open.clear)()
        if not now_open or was != self._limited:  # also what was being dialled when the window ended
            for session in list(self._engine.sessions):
                if session.exchange.dials and not session.errand:
                    session.end(None)
        if not now_open and not self._stopping:
            self._send_errand()
        return None if moved else IDLE

    async def run(self) -> None:
        """Until `stop`, or until it is cancelled."""
        self.judge()
        while not self._stopping:
            await self._open.wait()
            async for attempt in retrying(self._longest_s):
                with attempt:
                    if self._open.is_set() and not self._stopping:
                        await self._once()

    def _longest_s(self) -> float:
        """The longest wait between two attempts: a parent that has standbys may have a successor any moment."""
        return SUCCEEDED_S if any(self._app.store.metas(SUCCESSORS, FOUND).values()) else RETRY_MAX_S

    # ------------------------------------------------------------ errands

    def _due(self) -> int:
        """The last arrival number of what is urgent and not with the parent yet; 0 where nothing is."""
        parent, store = self._app.trust.parent, self._engine.store
        peer = store.peer(parent.node) if parent is not None else None
        if parent is None or peer is None:
            return 0
        return urgent.pending(store, max(peer.acked, int(store.meta(f"hurried/{parent.node}", 0))))

    def _send_errand(self) -> None:
        loop = asyncio.get_running_loop()
        if (self._errand is not None and not self._errand.done()) or loop.time() < self._errand_at_s:
            return
        last = self._due() if self._app.config.sync_urgent else 0
        if last > 0 or not self._app.reference.sure:
            self._errand_at_s = loop.time() + ERRAND_EVERY_S
            self._errand = loop.create_task(self._run_errand(last))

    async def _run_errand(self, last: int) -> None:
        """Take what is urgent up; what fails is tried again, what comes meanwhile goes with the next one."""
        app = self._app
        await self._engine.where.look_up()
        for address in app.parent_addresses():
            try:
                app.check_tls_clock()
                close, _ = await carrier.dial(
                    address,
                    app.credentials(),
                    app.parent_dns(),
                    lambda stream: self._engine.converse(stream, once=True, wants=False, errand=True),
                )
            except FednodeError as error:
                log.info("errand", extra={"reason": str(error)})
                if isinstance(error, Unavailable) and not error.retry_after_ms:
                    continue
                return
            if close.error is None and last == 0:
                self._errand_at_s = 0.0  # it asked for the time alone: what is urgent need not wait for it
            elif close.error is None:
                await quietly(self._engine.writer.call(lambda writer: self._note_errand(writer, last)))
            return

    def _note_errand(self, writer: Writer, last: int) -> None:
        parent = self._app.trust.parent
        if parent is not None:
            with writer.store.write() as tx:
                tx.set_meta(f"hurried/{parent.node}", last)

    # ------------------------------------------------------------ the exchange

    async def _once(self) -> None:
        """One round. Where no address of the parent answers, the node above it is asked, now and then."""
        try:
            await self._dial(self._app.parent_addresses())
        except Unavailable as error:
            if error.retry_after_ms or not self._asking.failed():
                raise
            found = await whereabouts.ask(self._engine)
            if not found:
                raise
            await self._dial(found)
        self._asking.reached()

    async def _dial(self, addresses: Sequence[str]) -> None:
        app = self._app
        last: Exception = Unavailable("FN-4506", parent=app.trust.parent.node if app.trust.parent else "")
        await self._engine.where.look_up()
        for address in addresses:
            try:
                app.check_tls_clock()
                close, moved = await carrier.dial(
                    address,
                    app.credentials(),
                    app.parent_dns(),
                    partial(self._engine.converse, once=False, address=address),
                )
            except Unavailable as error:
                last = error
                if error.retry_after_ms:  # it is the parent that says so: its other addresses are no way round
                    break
                continue
            if close.error is None:
                self._failing = ""
                return
            log.warning("exchange with the parent ended", extra={"reason": str(close.error), "address": address})
            self._failing = ""
            if isinstance(close.error, Unavailable):
                asked = close.retry_after_ms or close.error.retry_after_ms
                if (moved.acked or moved.received or moved.advanced) and not asked:
                    return  # the line was cut: dial at once, and count failures anew
                last = close.error
                if asked:
                    break
                continue
            last = close.error
            if code_of(last) == EARLIER_LIFE:  # an old primary that was started again: its successor is elsewhere
                continue
            await self._note_failure(code_of(last))
            raise Unavailable("FN-4507", retry_after_ms=BUSY_RETRY_MS, reason=str(last)) from last
        await self._note_failure(code_of(last))
        raise last if isinstance(last, Unavailable) else Unavailable("FN-4507", reason=str(last))

    async def _note_failure(self, code: str) -> None:
        """Say in the store, once for each kind of failure, why the parent is not reached: `fednode status` shows it."""
        parent = self._app.trust.parent
        if parent is None or code == self._failing:
            return
        self._failing = code

        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                tx.note_error(tx.ensure_peer(parent.node, "parent").id, code)

        await quietly(self._engine.writer.call(note))
