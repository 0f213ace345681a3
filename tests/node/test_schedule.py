"""node/schedule: where jobs run, when, and what is noted of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers import base

from fednode.node.jobs import IDLE, Ledger, State, spread
from fednode.node.schedule import Jobs
from fednode.sync.errors import StoreError
from world import Stream

NOW_MS = 1_780_000_000_000


class Office:
    """Jobs with a ledger, and a clock on the wall that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.now_ms, self.seconds = folder, NOW_MS, 0.0
        self.ledger = Ledger(folder, "daemon")
        self.jobs = self.make()

    def make(self) -> Jobs:
        return Jobs(self.ledger, lambda: self.seconds, lambda: self.now_ms, Stream("jitter"), 10)


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path)


def real(folder: Path) -> Jobs:
    """Jobs in the time of the loop."""
    return Jobs(Ledger(folder, "daemon"), asyncio.get_running_loop().time, lambda: NOW_MS, Stream("jitter"))


async def test_regression_a_job_runs_in_the_event_loop(tmp_path: Path) -> None:
    """APScheduler ran it in a thread, beside the loop that owns the exchanges which it woke."""
    ran: asyncio.Future[threading.Thread] = asyncio.get_running_loop().create_future()
    jobs = real(tmp_path)
    jobs.every("look", 0.01, lambda: ran.done() or ran.set_result(threading.current_thread()))
    jobs.start()
    try:
        assert await asyncio.wait_for(ran, 30) is threading.current_thread()
    finally:
        jobs.stop()


async def test_regression_a_job_that_is_a_coroutine_is_awaited(tmp_path: Path) -> None:
    """It was called and dropped: the scrub never took a step."""
    ran = asyncio.Event()

    async def step() -> None:
        ran.set()

    jobs = real(tmp_path)
    jobs.every("scrub", 0.01, step)
    jobs.start()
    try:
        await asyncio.wait_for(ran.wait(), 30)
    finally:
        jobs.stop()


def wall(shift: Callable[[], timedelta | None]) -> type[datetime]:
    """A clock on the wall that is off by so much; None: it stands still."""

    class Wall(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> datetime:
            off = shift()
            now = datetime(2026, 11, 26, tzinfo=UTC) if off is None else datetime.now(UTC) + off
            return now.astimezone(tz)

    return Wall


@pytest.mark.parametrize("then", [timedelta(days=-3650), timedelta(days=3650), None])
async def test_regression_a_clock_that_jumps_or_stands_still_stops_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, then: timedelta | None
) -> None:
    """APScheduler goes by the clock on the wall: set back by years no job ran for years, set forward by ten years every
    one of 315 million missed runs was counted, standing still nothing was ever due."""
    shift: list[timedelta | None] = [timedelta(0)]
    monkeypatch.setattr(base, "datetime", wall(lambda: shift[0]))
    runs: list[int] = []
    enough = asyncio.Event()

    def run() -> None:
        runs.append(1)
        shift[0] = then
        if len(runs) == 4:
            enough.set()

    jobs = real(tmp_path)
    jobs.every("look", 0.01, run)
    jobs.start()
    try:
        await asyncio.wait_for(enough.wait(), 30)
    finally:
        jobs.stop()


async def test_what_became_of_a_job_is_noted(office: Office) -> None:
    def fail() -> None:
        raise StoreError("FN-7621")

    def bug() -> None:
        raise ZeroDivisionError

    for name, function in {"fine": lambda: None, "fails": fail, "bug": bug, "idle": lambda: IDLE}.items():
        office.jobs.every(name, 60, function)
        await office.jobs._turn(name)
    found = {name: office.ledger.read(name) for name in ("fine", "fails", "bug", "idle")}
    assert {name: (one.outcome, one.code, one.began_ms) for name, one in found.items()} == {
        "fine": ("done", "", NOW_MS),
        "fails": ("failed", "FN-7621", NOW_MS),
        "bug": ("failed", "FN-7001", NOW_MS),
        "idle": ("", "", 0),
    }
    assert all(NOW_MS < one.next_ms <= NOW_MS + 66_000 for one in found.values())
    assert found["fine"].by == "daemon"


async def test_a_job_that_is_run_by_hand_is_left_out(office: Office) -> None:
    ran: list[int] = []
    office.jobs.every("scrub", 60, lambda: ran.append(1))
    by_hand = Ledger(office.folder, "alice")
    with by_hand.turn("scrub") as free:
        assert free
        await office.jobs._turn("scrub")
    assert ran == []
    await office.jobs._turn("scrub")
    assert ran == [1]


async def test_a_machine_that_is_off_every_night_has_its_daily_jobs(office: Office) -> None:
    """The wait goes on from the last run that is known, not from the start of the daemon."""
    day = 86_400
    for began_ago_ms, least, greatest in (
        (day * 1000, 20, 100),  # due
        (day * 500, day * 0.49, day * 0.51),
        (-day * 1000, 20, 100),  # a last run in the future is none
        (NOW_MS, 20, 100),
    ):
        office.ledger._write("cleaning", State(began_ms=office.now_ms - began_ago_ms, outcome="done"))
        jobs = office.make()
        jobs.every("cleaning", day, lambda: None)
        jobs._scheduler.start(paused=True)
        wait_s = (jobs.next_ms("cleaning") - office.now_ms) / 1000
        jobs.stop()
        assert least <= wait_s <= greatest, began_ago_ms


async def test_waits_have_jitter_from_the_random_source_that_was_given(office: Office) -> None:
    waits = {round(spread(100, 10, Stream("a", i)), 3) for i in range(50)}
    assert len(waits) > 40
    assert all(90 <= wait <= 110 for wait in waits)
    assert [spread(100, 10, Stream("a"))] * 2 == [spread(100, 10, Stream("a"))] * 2
    assert spread(100, 10, lambda size: bytes(size)) == 90
    assert spread(100, 0, Stream("a")) == 100


def notes(ledger: Ledger, now_ms: int, *, outcome: str = "") -> int:
    ledger.note("watch", now_ms, 1, outcome)
    return ledger.read("watch").began_ms


def test_what_runs_every_second_is_noted_every_half_a_minute(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, "daemon")
    assert notes(ledger, NOW_MS) == NOW_MS
    assert notes(ledger, NOW_MS + 29_999) == NOW_MS
    assert notes(ledger, NOW_MS + 30_000) == NOW_MS + 30_000
    assert notes(ledger, NOW_MS + 30_001, outcome="failed") == NOW_MS + 30_001
    assert notes(ledger, NOW_MS - 10**9) == NOW_MS - 10**9  # the clock was set back


@pytest.mark.parametrize("damage", [b"", b"{", b'{"began_ms": "x"}', b"[]", b"\xff" * 100_000])
def test_a_ledger_that_cannot_be_read_is_empty(tmp_path: Path, damage: bytes) -> None:
    ledger = Ledger(tmp_path, "daemon")
    (tmp_path / "jobs/scrub.json").write_bytes(damage)
    assert ledger.read("scrub") == State()
    ledger.note("scrub", NOW_MS, 5)
    assert ledger.read("scrub").took_ms == 5


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "jobs").write_text("a file")
    ledger: Any = Ledger(tmp_path, "daemon")
    ledger.note("scrub", NOW_MS, 5)
    with ledger.turn("scrub") as free:
        assert free
