"""What waits for the writer comes out in turns, and nothing is lost."""

from __future__ import annotations

import threading
import time
from typing import Any

from fednode.node.lanes import ASIDE, ASIDE_JOBS, CHARGE_S_MAX, IDLE_MAX, Lanes


def drained(lanes: Lanes) -> list[Any]:
    found = []
    while (job := lanes.look()) is not None:
        found.append(job)
    return found


def test_regression_nobody_waits_behind_all_that_another_has_sent() -> None:
    """It was one queue: what an honest child sent waited behind the 50,000 things that hostile ones had sent before."""
    lanes = Lanes()
    for number in range(10_000):
        lanes.put("hostile", ("hostile", number))
    for number in range(3):
        lanes.put("honest", ("honest", number))
    lanes.put("", ("own", 0))
    assert [lanes.get()[0] for _ in range(8)] == [
        *("hostile", "honest", "own", "hostile", "honest", "hostile", "honest", "hostile")
    ]


def test_each_lane_keeps_its_order_and_nothing_is_lost() -> None:
    lanes = Lanes()
    jobs = [(name, number) for number in range(50) for name in ("a", "b", "c")[: number % 3 + 1]]
    for name, number in jobs:
        lanes.put(name, (name, number))
    found = drained(lanes)
    assert sorted(found) == sorted(jobs)
    for name in "abc":
        assert [one for one in found if one[0] == name] == [one for one in jobs if one[0] == name]
    assert lanes.empty


def test_who_waits_is_woken_and_the_end_comes_after_all_that_was_put_in() -> None:
    lanes, found = Lanes(), list[Any]()

    def run() -> None:
        while (job := lanes.get()) is not None:
            found.append(job)

    thread = threading.Thread(target=run)
    thread.start()
    for number in range(100):
        lanes.put(str(number % 3), number)
    lanes.end()
    thread.join(60)
    assert sorted(found) == list(range(100))
    assert lanes.get() is None


def test_regression_who_sends_now_and_then_waits_for_one_job_whatever_others_have_cost() -> None:
    """One job of each in turn: an honest child waited for one of each of 200 thieves, each a transaction of its own."""
    lanes = Lanes()
    for thief in range(200):
        for number in range(10):
            lanes.put(f"thief{thief}", (f"thief{thief}", number))
    for _ in range(400):
        lane, _ = lanes.get()
        lanes.charge(lane, 0.002)
    for number in range(3):
        lanes.put("honest", ("honest", number))
        assert lanes.get()[0] == "honest"
        lanes.charge("honest", 0.0005)
        lane, _ = lanes.get()
        lanes.charge(lane, 0.002)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def busy(lanes: Lanes, clock: Clock, thieves: int) -> None:
    """So many always have something here; one job of each."""
    for thief in range(thieves):
        for number in range(1_000):
            lanes.put(f"thief{thief}", number)
    for _ in range(thieves):
        worked(lanes, clock, 0.015)


def worked(lanes: Lanes, clock: Clock, cost_s: float) -> Any:
    """The writer does a job."""
    at = set(lanes._lanes)
    before = {one: len(lanes._lanes[one]) for one in at}
    job = lanes.get()
    (lane,) = [one for one in at if len(lanes._lanes.get(one, ())) < before[one]]
    clock.now_s += cost_s
    lanes.charge(lane, cost_s)
    return job


def test_regression_who_sends_now_and_then_waits_for_one_job_though_its_own_cost_as_much() -> None:
    """A commit costs what the disk takes: an honest child's put it behind 50 thieves, each of whom had had less, for
    seconds."""
    clock = Clock()
    lanes = Lanes(clock)
    busy(lanes, clock, 50)
    for number in range(20):
        lanes.put("honest", ("honest", number))
        assert worked(lanes, clock, 0.03) == ("honest", number)
        for _ in range(66):
            worked(lanes, clock, 0.015)


def test_those_who_always_have_something_come_however_many_send_now_and_then() -> None:
    clock = Clock()
    lanes = Lanes(clock)
    busy(lanes, clock, 1)
    came, due_s = 0, dict.fromkeys((f"now and then {number}" for number in range(150)), 0.0)
    for _ in range(4_000):
        for lane in [one for one, at_s in due_s.items() if at_s <= clock.now_s]:  # more than the writer can do
            lanes.put(lane, lane)
            del due_s[lane]
        job = worked(lanes, clock, 0.01)
        if job in lanes._left_s:
            due_s[job] = clock.now_s + 1.0
        came += isinstance(job, int)
    assert came >= 4_000 / 151 / 3


def test_what_costs_more_comes_more_rarely() -> None:
    lanes, times = Lanes(), {"dear": 0, "cheap": 0}
    for number in range(1_000):
        for lane in times:
            lanes.put(lane, (lane, number))
    for _ in range(550):
        lane, _ = lanes.get()
        times[lane] += 1
        lanes.charge(lane, 0.01 if lane == "dear" else 0.001)
    assert 48 <= times["dear"] <= 52


def test_one_long_job_does_not_put_its_lane_back_for_long() -> None:
    lanes = Lanes()
    lanes.put("", "long")
    lanes.get()
    lanes.charge("", 3_600.0)
    lanes.put("", "next")
    for number in range(1_000):
        lanes.put("other", number)
    waited = 0
    while lanes.get() != "next":
        lanes.charge("other", 0.001)
        waited += 1
    assert CHARGE_S_MAX / 0.001 - 2 <= waited <= CHARGE_S_MAX / 0.001 + 2


def aside(thieves: int) -> tuple[Lanes, Clock]:
    """Lanes in which so many thieves, who are doubted, have much."""
    clock = Clock()
    lanes = Lanes(clock, lambda lane: lane.startswith("thief"))
    for thief in range(thieves):
        for number in range(1_000):
            lanes.put(f"thief{thief}", number)
    return lanes, clock


def test_regression_who_has_just_come_rarely_finds_one_at_work_who_is_doubted() -> None:
    """50 thieves whose commits were all refused kept the writer at work all the time: whoever came waited for what one
    of them had begun, and for the disk after it."""
    lanes, clock = aside(50)
    busy_s = 0.0
    while clock.now_s < 100:
        if lanes.look() is None:
            clock.now_s += 0.01
            continue
        group = 1
        while lanes.look() is not None:
            group += 1
        assert group == ASIDE_JOBS
        took_s = 0.01
        clock.now_s += took_s
        busy_s += took_s
        for one in list(lanes._out):
            lanes.charge(one, took_s / group)
    assert 0.8 * ASIDE < busy_s / clock.now_s < 1.1 * ASIDE


def test_who_is_doubted_does_not_hold_up_the_others_and_is_served_beside_them() -> None:
    lanes, clock = aside(2)
    came = 0
    for number in range(1_000):
        lanes.put("honest", ("honest", number))
        honest = False
        while (job := lanes.look()) is not None:
            honest = honest or job == ("honest", number)
            came += isinstance(job, int)
        assert honest, "in the same group, if one of theirs comes at all"
        clock.now_s += 0.01
        for lane in {*lanes._out, "honest"}:
            lanes.charge(lane, 0.01)
    assert came >= 10


def test_one_who_is_doubted_no_more_is_as_everybody_else() -> None:
    doubted, clock = {"thief"}, Clock()
    lanes = Lanes(clock, doubted.__contains__)
    for number in range(100):
        lanes.put("thief", number)
    first = drained(lanes)
    assert first == list(range(ASIDE_JOBS))
    lanes.charge("thief", 1.0)
    assert lanes.look() is None
    assert lanes.empty, "but for what is set aside"
    doubted.clear()
    clock.now_s += 1.0 / ASIDE
    assert drained(lanes) == list(range(ASIDE_JOBS, 100))


def test_at_the_end_what_is_set_aside_comes_out_at_once() -> None:
    lanes, _ = aside(1)
    drained(lanes)
    lanes.charge("thief0", 3_600.0)
    lanes.end()
    found = []
    while (job := lanes.get()) is not None:
        found.append(job)
    assert found == list(range(ASIDE_JOBS, 1_000))


def test_the_writer_is_woken_for_what_is_set_aside_when_its_time_comes() -> None:
    lanes = Lanes(time.monotonic, lambda lane: True)
    lanes.put("thief", 0)
    assert lanes.get() == 0
    lanes.charge("thief", 0.0005)
    lanes.put("thief", 1)
    assert lanes.look() is None
    assert lanes.get() == 1


def test_lanes_in_which_nothing_waits_are_forgotten() -> None:
    lanes = Lanes()
    for number in range(10 * IDLE_MAX):
        lanes.put(f"{number}", number)
        lanes.get()
    assert len(lanes._had) <= IDLE_MAX + 1
    assert lanes.empty
