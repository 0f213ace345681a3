"""The scrub in a real node: a flipped bit becomes an alert, an event and a line of `status`; the place is kept."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fednode.crypto import canonical
from fednode.node import audit, scrub, status
from fednode.node.scrub import DAY_MS
from fednode.node.scrubber import Scrubber
from fednode.node.writer_thread import WriterThread
from mesh import Mesh, Running
from stored import Bench

START_MS = 1_780_000_000_000
DATASET = "admin-licence"


class Clock:
    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms


def alerts(node: Running) -> list[tuple[str, str, int]]:
    """Out of the log: the projection stops at the damaged segment."""
    found = []
    for held in node.app.store.segments(0, 100, dataset="sys.alerts"):
        columns = node.app.store.columns(held)
        assert columns is not None
        for payload in map(canonical.loads, columns.payloads):
            found.append((payload["code"], payload["params"]["log"], payload["params"]["first"]))
    return found


@pytest.mark.asyncio
async def test_a_flipped_bit_is_told(tmp_path: Path) -> None:
    clock = Clock()
    async with Mesh(tmp_path, clock) as mesh:
        node = await mesh.found()
        await mesh.halt(node)
        for i in range(3):
            node.write(f"k{i}", {"n": i})
        name = str(node.app.trust.log_name(DATASET, node.app.trust.area))
        bench = Bench(node.app.home.log_db)
        bench.flip("data", name, 1, 30)
        bench.c.close()
        writer = WriterThread(node.app.new_writer, lambda: None)
        scrubber = Scrubber(node.app, writer)
        await scrubber.step()
        assert status.collect(node.app)["verified"]["scrub"]["started_ms"] == START_MS
        clock.ms += 8 * DAY_MS
        await scrubber.step()
        assert alerts(node) == [("FN-6601", name, 1)]
        shown = status.collect(node.app)["verified"]["scrub"]
        assert shown["problems"] == [{"log": name, "first": 1, "end": 2, "code": "FN-6601"}]
        assert shown["last_ended_ms"] == clock.ms
        clock.ms += 8 * DAY_MS
        await scrubber.step()  # the next round begins
        clock.ms += DAY_MS
        await scrubber.step()
        place = scrub.load(node.app.store)
        await scrubber.close()
        writer.stop()
        kept = scrub.load(node.app.store)
        assert kept.done >= place.done
        assert 0 < kept.done < audit.size_of_all(node.app.store)
        assert (kept.log_id > 0, kept.last_problems) == (True, 1)


@pytest.mark.asyncio
async def test_the_daemon_keeps_the_place_when_it_stops(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found()
        await mesh.halt(node)
        assert scrub.load(node.app.store) == scrub.State()
        assert node.app.store.meta(scrub.META) is not None


@pytest.mark.asyncio
async def test_regression_a_step_taken_away_is_waited_for_before_its_store_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a stop APScheduler cancels the jobs that run, but a step is in a thread of its own: its store was closed while
    it was reading, which ends the process (SIGSEGV in pysqlite3)."""
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found()
        await mesh.halt(node)
        writer = WriterThread(node.app.new_writer, lambda: None)
        scrubber = Scrubber(node.app, writer)
        reading, go_on = asyncio.Event(), threading.Event()
        loop, read = asyncio.get_running_loop(), list[object]()

        def step(*_: object) -> list[audit.Problem]:
            loop.call_soon_threadsafe(reading.set)
            go_on.wait(60)
            read.append(scrubber._store.meta(scrub.META))
            return []

        monkeypatch.setattr(scrubber._scrub, "step", step)
        job = asyncio.create_task(scrubber.step())
        await reading.wait()
        job.cancel()
        closing = asyncio.create_task(scrubber.close())
        try:
            for _ in range(10):
                await writer.call(lambda _writer: None)
            assert not closing.done()
        finally:
            go_on.set()
            await closing
            writer.stop()
        assert len(read) == 1, "the store was open"
        assert job.cancelled()
