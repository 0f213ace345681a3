"""APScheduler and tenacity: what runs at its time, and what is tried again.

Rules
1. Only `Unavailable` is tried again: exponential with full jitter, capped; a peer that names a delay is obeyed.
2. A job that fails is logged, noted in the ledger, and runs again at its next time. It runs in the event loop: sessions
   are the loop's own.
3. Waits are counted in the time that the machine has run. APScheduler asks the clock on the wall, which at a village
   may jump by years or stand still: set back it would run nothing for years, set forward each run that was missed.
4. A job that is run by hand now (`fednode jobs run`) is left out.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from typing import Any

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.base import BaseTrigger
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random, wait_random_exponential

from fednode.crypto.errors import FednodeError
from fednode.node.jobs import IDLE, Ledger, outcome_of, spread
from fednode.node.journal import DONE, FAILED
from fednode.node.tracing import OFF, Tracer
from fednode.sync.errors import Unavailable

RETRY_FIRST_S = 0.5
RETRY_MAX_S = 60.0
ASKED_MAX_S = 3600.0  # no peer makes this node wait for longer
ASKED_SPREAD = 0.1
LETTER_FIRST_S, LETTER_MAX_S = 30.0, 3570.0
log = logging.getLogger("fednode.schedule")


def wait_s(state: RetryCallState, max_s: float = RETRY_MAX_S) -> float:
    """How long to wait before the next attempt: as long as the peer asked for, and a little more, so that not all whom
    it told the same come at once; where it asked for nothing, exponential with full jitter."""
    error = state.outcome.exception() if state.outcome else None
    asked_s = min((getattr(error, "retry_after_ms", 0) or 0) / 1000, ASKED_MAX_S)
    if asked_s:
        return asked_s + float(wait_random(0, asked_s * ASKED_SPREAD + RETRY_FIRST_S)(state))
    return float(wait_random_exponential(multiplier=RETRY_FIRST_S, max=max_s)(state))


def _log(state: RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    log.info("parent not reachable", extra={"reason": str(error), "attempt": state.attempt_number})


def retrying(max_s: Callable[[], float]) -> AsyncRetrying:
    """Attempts without end, until one is not ended by Unavailable; `max_s`: the longest wait, where none was asked
    for, as it is after each attempt."""

    def wait(state: RetryCallState) -> float:
        return wait_s(state, max_s())

    return AsyncRetrying(retry=retry_if_exception_type(Unavailable), wait=wait, before_sleep=_log, reraise=True)


def letter_wait_s(attempt: int) -> float:
    """How long to wait after so many attempts at somebody outside the mesh: exponential with full jitter, at least
    `LETTER_FIRST_S`, at most an hour."""
    state = RetryCallState(AsyncRetrying(), None, (), {})
    state.attempt_number = max(1, attempt)
    return LETTER_FIRST_S + float(wait_random_exponential(multiplier=LETTER_FIRST_S, max=LETTER_MAX_S)(state))


class SteadyTime(tzinfo):
    """A zone in which it is as late as the machine has run (rule 3). `seconds`: a clock that never jumps."""

    def __init__(self, seconds: Callable[[], float]) -> None:
        self._seconds = seconds

    def time(self) -> datetime:
        """How late it is."""
        return datetime(2000, 1, 1, tzinfo=self) + timedelta(seconds=self._seconds())

    def fromutc(self, dt: datetime) -> datetime:
        return self.time()

    def utcoffset(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, dt: datetime | None) -> timedelta:
        return timedelta(0)

    def tzname(self, dt: datetime | None) -> str:
        return "steady"


@dataclass(slots=True)
class _After(BaseTrigger):  # type: ignore[misc]  # APScheduler has no types
    """So long after the last run began, whenever that was to be."""

    wait_s: Callable[[], float]

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        return now + timedelta(seconds=self.wait_s())


@dataclass(frozen=True, slots=True)
class _Job:
    function: Callable[[], Any]
    seconds: float


class Jobs:
    """The node's scheduled jobs, in its event loop. `seconds`: a clock that never jumps (the loop's); `now_ms`: the
    corrected clock, for the ledger alone; `rng`: for the jitter, so many per cent of each wait either way."""

    def __init__(
        self,
        ledger: Ledger,
        seconds: Callable[[], float],
        now_ms: Callable[[], int],
        rng: Callable[[int], bytes],
        jitter_percent: int = 0,
        tracer: Tracer = OFF,
    ) -> None:
        self._tracer = tracer
        self._ledger, self._seconds, self._now_ms, self._rng, self._jitter = (
            ledger,
            seconds,
            now_ms,
            rng,
            jitter_percent,
        )
        self._steady = SteadyTime(seconds)
        self._scheduler = AsyncIOScheduler(timezone=self._steady)
        self._jobs: dict[str, _Job] = {}

    def every(self, name: str, seconds: float, function: Callable[[], Any], *, jitter: bool = True) -> None:
        """Run `function` every so many seconds; a late run is not made up for. The first is due as if the one that the
        ledger knows of had been the last: a machine that is switched off every night has its daily jobs, too."""

        def wait_s() -> float:
            return spread(seconds, self._jitter, self._rng) if jitter else seconds

        first = min(wait_s(), max(self._since_last(name, seconds), spread(min(seconds, 60.0), 50, self._rng)))

        async def in_the_loop() -> None:  # APScheduler runs a plain function in another thread
            await self._turn(name)

        self._jobs[name] = _Job(function, seconds)
        self._scheduler.add_job(
            in_the_loop,
            _After(wait_s),
            id=name,
            name=name,
            coalesce=True,
            max_instances=1,
            misfire_grace_time=None,
            next_run_time=self._steady.time() + timedelta(seconds=first),
        )

    def _since_last(self, name: str, seconds: float) -> float:
        """What is left of a job's wait, by what the ledger says; all of it has passed where that lies in the future."""
        began_ms, now_ms = self._ledger.read(name).began_ms, self._now_ms()
        return seconds - (now_ms - began_ms) / 1000 if began_ms <= now_ms else 0.0

    async def _turn(self, name: str) -> None:
        job = self._jobs[name]
        with self._ledger.turn(name) as free:
            if not free:
                return
            began_ms, began_s = self._now_ms(), self._seconds()
            with self._tracer.span(f"job {name}", job=name) as span:
                outcome, code = await self._outcome(name, job)
                span.set(outcome=outcome or DONE, error=code)
                if outcome == IDLE:
                    span.drop()
            took_ms = round((self._seconds() - began_s) * 1000)
            self._ledger.note(name, began_ms, took_ms, outcome, code, next_ms=self.next_ms(name))

    @staticmethod
    async def _outcome(name: str, job: _Job) -> tuple[str, str]:
        """Do a job's work. How it ended, and the code of its error."""
        try:
            found = job.function()
            if inspect.isawaitable(found):
                found = await found
        except FednodeError as error:
            log.error("job", extra={"job": name, "code": error.code, "params": dict(error.params)})
            return outcome_of(error), error.code
        except Exception:  # a bug in one job must not stop the others
            log.exception("job", extra={"job": name})
            return FAILED, "FN-7001"
        return IDLE if found is IDLE else "", ""

    def next_ms(self, name: str) -> int:
        """When a job runs next, by the corrected clock."""
        due = self._scheduler.get_job(name)
        if due is None or due.next_run_time is None:
            return 0
        wait: timedelta = due.next_run_time - self._steady.time()
        return self._now_ms() + max(0, round(wait.total_seconds() * 1000))

    def start(self) -> None:
        logging.getLogger("apscheduler").setLevel(logging.WARNING)
        self._scheduler.start()
        for name in self._jobs:
            self._ledger.plan(name, self.next_ms(name))

    def stop(self) -> None:
        if self._scheduler.running:
            self._scheduler.shutdown(wait=False)
