"""The daemon's eye on the disk: gives the reserve up in time, lays it down again, says when room ends and returns.

Rules
1. Low is said once: in the log, the audit (`disk.low`) and as an alert (FN-7630), so that the levels above hear of it.
2. Whenever that changes, open sessions end politely and begin anew: a greeting says whether this node takes segments.

>>> # keeper = Keeper(app, engine, projector.wake); in the job `watch`: await keeper.look()
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from fednode.crypto.errors import FednodeError
from fednode.node.writer import Writer

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.engine import Engine

log = logging.getLogger("fednode.room")
LOW = "FN-7630"


class Keeper:
    """One daemon's. `again`: called when there is room again."""

    def __init__(self, app: App, engine: Engine, again: Callable[[], None]) -> None:
        self._app, self._engine, self._again = app, engine, again
        self._room = app.room
        self._low = False

    async def look(self) -> None:
        """Do what is due."""
        room = self._room
        room.make_way()
        if not self._low and room.low:
            self._low = True
            log.error("disk nearly full", extra={"code": LOW, "free": room.free(), "reserve": room.held()})
            await self._engine.writer.call(self._tell_low)
            self._greet_again()
        elif self._low and room.calm:
            self._low = False
            await asyncio.to_thread(room.restore)
            log.info("room on the disk again", extra={"free": room.free()})
            await self._engine.note("disk.ok", free_bytes=room.free())
            self._greet_again()
            self._again()
        elif not self._low and room.held() < room.reserve_bytes and room.calm:
            await asyncio.to_thread(room.restore)

    def _greet_again(self) -> None:
        for session in list(self._engine.sessions):
            session.end(None)

    def _tell_low(self, writer: Writer) -> None:
        """In the writer's thread."""
        node, reserve = self._app.trust.node, self._room.reserve_bytes
        journal = self._app.journal(writer)
        journal.note("disk.low", code=LOW, free_bytes=self._room.free(), reserve_bytes=reserve)
        try:
            journal.alert(LOW, node, {"node": node, "reserve_bytes": reserve})
        except FednodeError as error:
            log.error("alert not recorded", extra={"code": error.code})
