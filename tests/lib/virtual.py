"""Time that passes only when nothing else is left to do: for tests of what waits.

>>> # clock = VirtualTime(); await clock.run(lambda: done)
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable

ROUNDS = 30  # turns of the event loop after which nothing that runs is left
STEPS_MAX = 1_000_000


class VirtualTime:
    """`now_s` moves on to the next one who waits, when everyone waits."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._waiting: list[tuple[float, int, asyncio.Future[None]]] = []
        self._count = 0

    def __call__(self) -> float:
        return self.now_s

    async def pause(self, seconds: float) -> None:
        """As asyncio.sleep."""
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._waiting, (self.now_s + seconds, self._count, done))
        await done

    async def run(self, until: Callable[[], bool]) -> None:
        """Let time pass until something holds."""
        for _ in range(STEPS_MAX):
            for _ in range(ROUNDS):
                await asyncio.sleep(0)
                if until():
                    return
            if not self._waiting:
                raise AssertionError("everyone waits, and nobody for time to pass")
            at_s, _, done = heapq.heappop(self._waiting)
            self.now_s = max(self.now_s, at_s)
            if not done.done():
                done.set_result(None)
        raise AssertionError(f"it does not hold after {self.now_s:.0f} s")
