"""What keeps a page current without a reload: one stream of small events that say *that* something has changed.

Rules
1. An event names topics, never data: `mesh` (health.db), `log` (log.db), `records` (state.db). The browser then asks
   for what it shows, with its own session, and replaces the parts that are marked (docs/console.md).
2. Nobody looks while nobody listens. One look for all listeners, every half second, at SQLite's data version: whichever
   process has written is noticed. What moved is counted: a page carries the count as it was before the page was made,
   so what moves between that and its listening is not missed, nor what moves while the line is cut.
3. A stream ends with the session (looked at once a minute), with the daemon, and when there are too many (FN-4802).

>>> # live = Live(home, "5f3a"); mark = live.mark(); response = live.response(still_signed_in, mark)
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
    """Of one console; in its event loop, but for the looking. `epoch`: tells one daemon's count from another's."""

    def __init__(self, home: Home, epoch: str) -> None:
        self._watched = {
            "log": _Watched(home.log_db),
            "mesh": _Watched(home.health_db),
            "records": _Watched(home.state_db),
        }
        self._epoch, self._count = epoch, 0
        self._moved = dict.fromkeys(self._watched, 0)  # the count at which each has moved last
        self._listeners: set[asyncio.Event] = set()
        self._task: asyncio.Task[None] | None = None
        self._turn = threading.Lock()
        self._ended = self._closed = False

    @property
    def listeners(self) -> int:
        """How many pages are open."""
        return len(self._listeners)

    def mark(self) -> str:
        """Now, as a text: what moves after this a page that carries it hears of. In any thread."""
        with self._turn:
            found = [topic for topic, watched in self._watched.items() if not self._closed and _moved(topic, watched)]
            if found:
                self._count += 1
                self._moved |= dict.fromkeys(found, self._count)
            return f"{self._epoch}.{self._count}"

    def _since(self, mark: str) -> list[str]:
        """What has moved after a mark; all, where it is another daemon's."""
        epoch, _, count = mark.partition(".")
        seen = int(count) if epoch == self._epoch and count.isascii() and count.isdigit() and len(count) < 16 else -1
        return [topic for topic, moved in self._moved.items() if moved > seen]

    def response(self, there: Callable[[], Awaitable[bool]], mark: str) -> Response:
        """A stream for one page. `there`: whether its session still is; `mark`: of the page, or of the last event that
        the browser has seen; "" for from now on. Raises Unavailable FN-4802."""
        if len(self._listeners) >= LISTENERS_MAX:
            raise Unavailable("FN-4802", limit=LISTENERS_MAX)
        return StreamingResponse(
            self._stream(there, mark),
            media_type="text/event-stream",
            headers={"cache-control": "no-store", "x-accel-buffering": "no"},
        )

    async def _stream(self, there: Callable[[], Awaitable[bool]], mark: str) -> AsyncIterator[str]:
        news = asyncio.Event()
        self._listeners.add(news)
        clock = asyncio.get_running_loop().time
        checked_s = clock()
        try:
            now = await asyncio.to_thread(self.mark)
            mark = mark or now
            if self._task is None or self._task.done():
                self._task = asyncio.create_task(self._look())
            yield "retry: 3000\n\n"
            while not self._ended:
                if topics := self._since(mark):
                    mark = f"{self._epoch}.{self._count}"
                    yield f"id: {mark}\nevent: moved\ndata: {msgspec.json.encode(topics).decode()}\n\n"
                news.clear()
                if not self._since(mark) and not self._ended:
                    try:
                        await asyncio.wait_for(news.wait(), BEAT_S)
                    except TimeoutError:
                        yield ": beat\n\n"
                if clock() - checked_s > CHECK_S:
                    if not await there():
                        return
                    checked_s = clock()
        finally:
            self._listeners.discard(news)

    async def _look(self) -> None:
        """While anybody listens."""
        told = -1
        while self._listeners and not self._ended:
            await asyncio.to_thread(self.mark)
            if self._count != told:  # a page that was made meanwhile has looked, too
                told = self._count
                self._wake()
            await asyncio.sleep(LOOK_S)

    def _wake(self) -> None:
        for news in self._listeners:
            news.set()

    def end(self) -> None:
        """Every stream ends; in the event loop."""
        self._ended = True
        if self._task is not None:
            self._task.cancel()
        self._wake()

    def close(self) -> None:
        """After `end`."""
        with self._turn:
            self._closed = True
            for watched in self._watched.values():
                watched.close()


def _moved(topic: str, watched: _Watched) -> bool:
    try:
        return watched.moved()
    except (FednodeError, sqlite.DatabaseError) as error:
        watched.close()
        log.debug("not looked at", extra={"topic": topic, "reason": str(error)})
        return False
