"""What keeps a page current without a reload: one stream of small events that say *that* something has changed.

Rules
1. An event names topics, never data: `mesh` (health.db), `log` (log.db), `records` (state.db). The browser then asks
   for what it shows, with its own session, and replaces the parts that are marked (docs/console.md).
2. Nobody looks while nobody listens. One look for all listeners, every half second, at SQLite's data version: whichever
   process has written is noticed.
3. A stream ends with the session (looked at once a minute), with the daemon, and when there are too many (FN-4802).

>>> # live = Live(home); response = live.response(still_signed_in)
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec
from starlette.responses import Response, StreamingResponse

from fednode.crypto.errors import FednodeError
from fednode.node import sqlite
from fednode.sync.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from fednode.node.home import Home

log = logging.getLogger("fednode.web")
LOOK_S = 0.5
BEAT_S = 15.0  # a comment, so that a proxy, and we, notice a connection that is gone
CHECK_S = 60.0
LISTENERS_MAX = 100


class _Watched:
    """One database, and its version when it was looked at last."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: sqlite.Connection | None = None
        self._version: int | None = None

    def moved(self) -> bool:
        """Whether somebody has written since the last look; of a file that was not there yet: yes, once."""
        if self._connection is None:
            if not self._path.exists():
                return False
            self._connection = sqlite.connect(self._path, synchronous="NORMAL", readonly=True, cache_kib=64)
        version = int(self._connection.execute("pragma data_version").fetchone()[0])
        before, self._version = self._version, version
        return version != before

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._version = None


class Live:
    """Of one console; in its event loop, but for the looking."""

    def __init__(self, home: Home) -> None:
        self._watched = {
            "log": _Watched(home.log_db),
            "mesh": _Watched(home.health_db),
            "records": _Watched(home.state_db),
        }
        self._queues: set[asyncio.Queue[list[str] | None]] = set()
        self._task: asyncio.Task[None] | None = None
        self._turn = threading.Lock()
        self._closed = False

    @property
    def listeners(self) -> int:
        """How many pages are open."""
        return len(self._queues)

    def response(self, there: Callable[[], Awaitable[bool]]) -> Response:
        """A stream for one page. `there`: whether its session still is. Raises Unavailable FN-4802."""
        if len(self._queues) >= LISTENERS_MAX:
            raise Unavailable("FN-4802", limit=LISTENERS_MAX)
        return StreamingResponse(
            self._stream(there),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _stream(self, there: Callable[[], Awaitable[bool]]) -> AsyncIterator[str]:
        queue: asyncio.Queue[list[str] | None] = asyncio.Queue(1)
        self._queues.add(queue)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._look())
        clock = asyncio.get_running_loop().time
        checked_s = clock()
        try:
            yield "retry: 3000\n\n"
            while True:
                try:
                    topics = await asyncio.wait_for(queue.get(), BEAT_S)
                except TimeoutError:
                    yield ": beat\n\n"
                else:
                    if topics is None:
                        return
                    yield f"event: moved\ndata: {msgspec.json.encode(topics).decode()}\n\n"
                if clock() - checked_s > CHECK_S:
                    if not await there():
                        return
                    checked_s = clock()
        finally:
            self._queues.discard(queue)

    async def _look(self) -> None:
        """While anybody listens."""
        await asyncio.to_thread(self._moved)  # from here on
        while self._queues:
            await asyncio.sleep(LOOK_S)
            topics = await asyncio.to_thread(self._moved)
            for queue in list(self._queues) if topics else ():
                before = queue.get_nowait() if queue.full() else []  # whoever is slow hears it with the next
                queue.put_nowait(sorted({*(before or []), *topics}))

    def _moved(self) -> list[str]:
        found = []
        with self._turn:
            for topic, watched in self._watched.items() if not self._closed else ():
                try:
                    if watched.moved():
                        found.append(topic)
                except (FednodeError, sqlite.DatabaseError) as error:
                    watched.close()
                    log.debug("not looked at", extra={"topic": topic, "reason": str(error)})
        return found

    def end(self) -> None:
        """Every stream ends; in the event loop."""
        if self._task is not None:
            self._task.cancel()
        for queue in self._queues:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    def close(self) -> None:
        """After `end`."""
        with self._turn:
            self._closed = True
            for watched in self._watched.values():
                watched.close()
