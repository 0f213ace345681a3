"""The daemon's line to its parent: an exchange that stays open, for as long as the sync windows allow.

Rules
1. The parent away is normal life: retry with full jitter, the backlog grows, everything else goes on.
2. A parent that is busy says when to come again, and is obeyed.
3. It dials inside a window only. When the window ends the exchange ends with a Bye: what is half sent or half received
   goes on at that chunk in the next one. `fednode sync` by hand does not ask for windows.
4. A limit on the line that begins or ends begins a new session: the greeting says how much may come at once.
5. Windows are judged by the corrected clock, again and again: a clock that is put right counts at once.

>>> # dialer = Dialer(app, engine); jobs.every("sync", JUDGE_S, dialer.judge); await dialer.run()
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from fednode.node import carrier
from fednode.node.engine import Engine, code_of, quietly
from fednode.node.jobs import IDLE, limit, windows
from fednode.node.schedule import retrying
from fednode.node.writer import Writer
from fednode.sync.errors import Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App

log = logging.getLogger("fednode.daemon")
BUSY_RETRY_MS = 60_000


class Dialer:
    """Keeps an exchange with the parent."""

    def __init__(self, app: App, engine: Engine) -> None:
        self._app, self._engine = app, engine
        self._table = windows(app.config)
        self._open = asyncio.Event()
        self._limited = False
        self._failing = ""
        self._stopping = False

    def stop(self) -> None:
        """Dial no more. `run` ends when it is cancelled, too; but gRPC may swallow that while a call is ending."""
        self._stopping = True

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
                if session.exchange.dials:
                    session.end(None)
        return None if moved else IDLE

    async def run(self) -> None:
        """Until `stop`, or until it is cancelled."""
        self.judge()
        while not self._stopping:
            await self._open.wait()
            async for attempt in retrying():
                with attempt:
                    if self._open.is_set() and not self._stopping:
                        await self._once()

    async def _once(self) -> None:
        app = self._app
        last: Exception = Unavailable("FN-4506", parent=app.trust.parent.node if app.trust.parent else "")
        for address in app.parent_addresses():
            try:
                close, moved = await carrier.dial(
                    address,
                    app.credentials(),
                    app.parent_dns(),
                    lambda stream: self._engine.converse(stream, once=False),
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
                if (moved.acked or moved.received) and not asked:
                    return  # the line was cut: dial at once, and count failures anew
                last = close.error
                if asked:
                    break
                continue
            await self._note_failure(code_of(close.error))
            raise Unavailable("FN-4507", retry_after_ms=BUSY_RETRY_MS, reason=str(close.error)) from close.error
        await self._note_failure(code_of(last))
        raise last

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
