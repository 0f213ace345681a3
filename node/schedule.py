"""APScheduler and tenacity: what runs at its time, and what is tried again.

Rules
1. Only `Unavailable` is tried again: exponential with full jitter, capped; a peer that names a delay is obeyed.
2. A job that fails is logged and runs again at its next time. It runs in the event loop: sessions are the loop's own.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from datetime import UTC
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from fednode.sync.errors import Unavailable

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 60.0
log = logging.getLogger("fednode.schedule")


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    asked = getattr(error, "retry_after_ms", 0) or 0
    jitter: float = wait_random_exponential(multiplier=RETRY_FIRST_S, max=RETRY_MAX_S)(state)
    return max(asked / 1000, jitter)


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.info("parent not reachable", extra={"reason": str(error), "attempt": state.attempt_number})


def retrying() -> AsyncRetrying:
    """Attempts without end, until one is not ended by Unavailable."""
    return AsyncRetrying(retry=retry_if_exception_type(Unavailable), wait=_wait, before_sleep=_log, reraise=True)


class Jobs:
    """The node's scheduled jobs, in its event loop."""

    def __init__(self) -> None:
        self._scheduler = AsyncIOScheduler(timezone=UTC)

    def every(self, name: str, seconds: float, function: Callable[[], Any]) -> None:
        """Run `function` every so many seconds; a late run is not made up for."""

        async def in_the_loop() -> None:  # APScheduler runs a plain function in another thread
            found = function()
            if inspect.isawaitable(found):
                await found

        self._scheduler.add_job(
            in_the_loop,
            "interval",
            seconds=seconds,
            id=name,
            name=name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=60,
        )

    def start(self) -> None:
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler.start()

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
