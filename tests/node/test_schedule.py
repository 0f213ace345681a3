"""node/schedule: where jobs run."""

from __future__ import annotations

import asyncio
import threading

from fednode.node.schedule import Jobs


async def test_regression_a_job_runs_in_the_event_loop() -> None:
    """APScheduler ran it in a thread, beside the loop that owns the exchanges which it woke."""
    ran: asyncio.Future[threading.Thread] = asyncio.get_running_loop().create_future()
    jobs = Jobs()
    jobs.every("look", 0.01, lambda: ran.done() or ran.set_result(threading.current_thread()))
    jobs.start()
    try:
        assert await asyncio.wait_for(ran, 30) is threading.current_thread()
    finally:
        jobs.stop()


async def test_regression_a_job_that_is_a_coroutine_is_awaited() -> None:
    """It was called and dropped: the scrub never took a step."""
    ran = asyncio.Event()

    async def step() -> None:
        ran.set()

    jobs = Jobs()
    jobs.every("scrub", 0.01, step)
    jobs.start()
    try:
        await asyncio.wait_for(ran.wait(), 30)
    finally:
        jobs.stop()
