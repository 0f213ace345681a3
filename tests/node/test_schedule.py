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
