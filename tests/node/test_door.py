"""A child that has connected: a seat, the line, or a word when to come again. In virtual time."""

from __future__ import annotations

import asyncio
import heapq

import pytest

from fednode.node import door, pauses
from fednode.node.door import LINE_MS, Door
from fednode.node.doubts import AMISS_MAX, Doubts
from fednode.node.turns import OF_ONE_MAX, RETRY_MS_MAX, Turns
from fednode.sync.errors import Unavailable


class Hall:
    """A door, its clock, and who sleeps before it."""

    def __init__(self, seats: int) -> None:
        self.now_ms = 0
        self._asleep: list[tuple[int, int, asyncio.Future[None]]] = []
        self.turns, self.pauses = Turns(seats, 60_000), pauses.Pauses()
        self.doubts = Doubts(lambda: self.now_ms / 1000)
        self.door = Door(self.turns, self.pauses, self.doubts, lambda: self.now_ms, self._sleep)
        self.slept: list[float] = []

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        woken = asyncio.get_running_loop().create_future()
        heapq.heappush(self._asleep, (self.now_ms + round(seconds * 1000), len(self.slept), woken))
        await woken

    async def passes(self, until_ms: int) -> None:
        """Time, and who wakes meanwhile goes on."""
        await settled()
        while self._asleep and self._asleep[0][0] <= until_ms:
            self.now_ms, _, woken = heapq.heappop(self._asleep)
            if not woken.done():
                woken.set_result(None)
            await settled()
        self.now_ms = until_ms

    async def full(self) -> list[int]:
        """All seats are taken."""
        seats = []
        for n in range(self.turns.seats):
            seats.append(await self.door.enter(f"13{n:02}"))
            self.turns.let_in(seats[-1], self.now_ms)
        return seats

    def comes(self, node: str) -> asyncio.Task[int]:
        return asyncio.ensure_future(self.door.enter(node))


async def settled() -> None:
    """Whoever can go on has gone on."""
    for _ in range(5):
        await asyncio.sleep(0)


def told(task: asyncio.Task[int]) -> int:
    """When it is to come again."""
    assert task.done(), "it waits"
    error = task.exception()
    assert isinstance(error, Unavailable)
    assert error.code == "FN-4508"
    return error.retry_after_ms or 0


async def test_who_finds_a_seat_sits_down() -> None:
    hall = Hall(1)
    assert await hall.door.enter("1301") == 1
    assert hall.slept == []


async def test_whose_turn_is_near_waits_on_its_line_and_sits_down() -> None:
    hall = Hall(5)
    seats = await hall.full()
    late = hall.comes("1399")
    await hall.passes(1_500)
    assert not late.done()
    assert hall.door.waiting == 1
    hall.turns.leave(seats[0], hall.now_ms)
    await hall.passes(LINE_MS)
    assert late.result() == 6
    assert hall.door.waiting == 0


async def test_nobody_waits_on_its_line_for_longer_than_a_child_waits_for_a_parent() -> None:
    hall = Hall(5)
    await hall.full()
    late = hall.comes("1399")
    await hall.passes(LINE_MS)
    assert 1_000 <= told(late) <= RETRY_MS_MAX
    assert sum(hall.slept) * 1000 <= LINE_MS
    assert hall.door.waiting == 0


async def test_whose_turn_is_far_off_is_told_at_once() -> None:
    hall = Hall(1)  # a seat is given up once in ten seconds, as far as anybody knows
    await hall.door.enter("1301")
    assert told(await done(hall.comes("1302"))) > LINE_MS
    assert hall.slept == []


async def test_who_is_doubted_does_not_wait_on_its_line() -> None:
    hall = Hall(5)
    await hall.full()
    hall.doubts.judged("1399", refused=AMISS_MAX, kept=0)
    assert told(await done(hall.comes("1399"))) >= 1_000
    assert hall.slept == []


async def test_of_one_child_no_more_wait_than_may_have_seats() -> None:
    hall = Hall(5)
    await hall.full()
    tasks = [hall.comes("1399") for _ in range(OF_ONE_MAX + 2)]
    await settled()
    assert [task.done() for task in tasks] == [False] * OF_ONE_MAX + [True] * 2
    await hall.passes(LINE_MS)
    assert all(told(task) for task in tasks)


async def test_the_line_is_not_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door, "LINE_MAX", 3)
    hall = Hall(50)
    await hall.full()
    tasks = [hall.comes(f"14{n:02}") for n in range(5)]
    await settled()
    assert [task.done() for task in tasks] == [False] * 3 + [True] * 2
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert hall.door.waiting == 0  # who hangs up is not counted any more


async def test_who_is_not_served_for_a_while_is_held_and_told_of_one_child_so_many() -> None:
    hall = Hall(5)
    for _ in range(pauses.FREE + 4):
        hall.pauses.broke("1301", 0)
    tasks = [hall.comes("1301") for _ in range(pauses.HELD_MAX + 1)]
    await settled()
    assert [task.done() for task in tasks] == [False] * pauses.HELD_MAX + [True]
    await hall.passes(60_000)
    assert all(told(task) >= pauses.PAUSE_MS_MIN for task in tasks)
    assert max(hall.slept) <= pauses.HOLD_S
    assert not hall.door._held
    assert await hall.door.enter("1301") == 1  # when it was told to


async def done(task: asyncio.Task[int]) -> asyncio.Task[int]:
    await settled()
    return task
