"""An event loop whose time passes at once: hours of a slow line in a moment, with real sockets.

Rules
1. `loop.time()` is virtual. When nothing is ready, it leaps to whatever is due next; nobody waits.
2. Sockets are the kernel's own: what one end has sent is looked for at the other before time leaps. Only within one
   thread: a thread that works meanwhile takes no time at all here.

>>> async def hours() -> float:
...     loop, over = asyncio.get_running_loop(), asyncio.Event()
...     loop.call_later(7200, over.set)
...     await over.wait()
...     return loop.time()
>>> leap(hours())
7200.0
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
LOOK_S = 0.001


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits by letting virtual time pass."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        ready: list[Any] = super().select(0)
        if ready or timeout == 0:
            return ready
        ready = super().select(LOOK_S if timeout is not None else None)
        if not ready and timeout is not None:
            self.now += timeout
        return ready


class Leaping(asyncio.SelectorEventLoop):
    """An event loop in virtual time."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Virtual seconds since the loop was made."""
        return self._virtual.now


def leap(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine in virtual time."""
    with asyncio.Runner(loop_factory=Leaping) as runner:
        return runner.run(job)
