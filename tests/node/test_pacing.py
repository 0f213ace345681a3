"""A limit on the line, both ways, in virtual time: two sessions, an endless wire, one of them held to a rate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from fednode.node.driver import Session, Welcome
from fednode.node.hooks import Hooks
from fednode.node.link import Link
from fednode.node.pacing import AHEAD_BYTES, Pacer
from fednode.node.profile import NORMAL
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.exchange import WINDOW_BYTES, Exchange
from sides import NOW, hello, item
from virtual import VirtualTime
from world import World

WORLD = World()
RATE = 32_000


class End:
    """One end of a wire without a limit of its own; says when what was written."""

    def __init__(self, clock: VirtualTime) -> None:
        self.clock, self.incoming = clock, asyncio.Queue[bytes | None]()
        self.wrote: list[tuple[float, int]] = []
        self.chunks: list[tuple[float, int]] = []
        self.other: End

    async def read(self) -> bytes | None:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        self.wrote.append((self.clock.now_s, len(data)))
        message = wire.decode(data)[1]
        if isinstance(message, wire.Chunk):
            self.chunks.append((self.clock.now_s, len(message.data)))
        self.other.incoming.put_nowait(data)


class Paper:
    """A writer that stores nothing and says that it did."""

    profile = NORMAL

    def __init__(self) -> None:
        self.stored: list[int] = []

    def partial(self, _node: str) -> None:
        return None

    async def call(self, _function: Callable[..., Any], _lane: str = "") -> None:
        await asyncio.sleep(0)

    def commit(self, _link: Link, commit: fx.Commit, done: Callable[[Any], None]) -> None:
        self.stored.append(commit.lsn)
        asyncio.get_running_loop().call_soon(done, fx.Done(commit.lsn))


def feed(items: list[fx.Item]) -> Callable[[int, int], tuple[list[fx.Item], bool]]:
    def after(lsn: int, bytes_max: int) -> tuple[list[fx.Item], bool]:
        found: list[fx.Item] = []
        for one in items:
            if one.lsn > lsn:
                if found and sum(len(one.data) for one in found) > bytes_max:
                    return found, False
                found.append(one)
        return found, True

    return after


def session(
    end: End, paper: Paper, peer: str, items: list[fx.Item], pacer: Pacer | None = None, *, dials: bool
) -> Session:
    link = Link(WORLD.identity(peer), 1, bytes(16), dials, 0)
    reply = None if dials else hello("13")
    welcome = Welcome(link, fx.Admission(0, (), reply), feed(items), lambda *_: [])

    async def admit(_hello: wire.Hello) -> Welcome:
        await asyncio.sleep(0)
        return welcome

    given: Any = paper
    greeting = hello("1301", window=pacer.window if pacer else WINDOW_BYTES) if dials else None
    exchange = Exchange(dials=dials, hello=greeting, once=dials, paced=pacer is not None)
    return Session(end, exchange, given, given, lambda: NOW, admit, Hooks(), pacer)


async def meet(rate: Callable[[VirtualTime], int], up: list[fx.Item], down: list[fx.Item]) -> tuple[Any, ...]:
    """One exchange of a child that is held to a rate: both ends, what was stored, the time it took."""
    clock = VirtualTime()
    child, parent = End(clock), End(clock)
    child.other, parent.other = parent, child
    pacer = Pacer(lambda: rate(clock), clock, clock.pause) if rate(clock) else None
    papers = Paper(), Paper()
    below = session(child, papers[0], "13", down, pacer, dials=True)
    above = session(parent, papers[1], "1301", up, dials=False)
    tasks = [asyncio.ensure_future(one.run()) for one in (above, below)]
    await clock.run(lambda: all(task.done() for task in tasks))
    assert [task.result().error for task in tasks] == [None, None]
    return child, parent, papers, clock.now_s


def most(wrote: list[tuple[float, int]], span_s: float) -> int:
    """The most bytes that went in any span of so many seconds."""
    return max(sum(size for at, size in wrote if start <= at < start + span_s) for start, _ in wrote)


@pytest.mark.parametrize("span_s", [1.0, 5.0, 20.0])
async def test_both_directions_are_held_to_the_limit_and_it_is_used(span_s: float) -> None:
    up, down = [item(n, 20_000) for n in range(1, 9)], [item(n, 20_000) for n in range(1, 9)]
    child, parent, papers, took_s = await meet(lambda _clock: RATE, down, up)
    bytes_s = RATE / 8
    assert [paper.stored for paper in papers] == [[one.lsn for one in down], [one.lsn for one in up]]
    assert most(child.wrote, span_s) <= bytes_s * (span_s + 1) + 2 * 2000
    assert most(parent.chunks, span_s) <= bytes_s * (span_s + 1) + 8_000 + 2000  # the window that it was given first
    assert 160_000 / bytes_s - 2 < took_s < 160_000 / bytes_s * 1.1 + 2


async def test_a_segment_larger_than_the_window_comes_through() -> None:
    _, parent, papers, took_s = await meet(lambda _clock: 9_600, [item(1, 300_000)], [])
    assert papers[0].stored == [1]
    assert max(size for _, size in parent.chunks) <= 4096
    assert 300_000 / 1200 * 0.9 < took_s < 300_000 / 1200 * 1.15


async def test_the_limit_follows_the_time_of_day() -> None:
    """A tenth for ten seconds, then all of it: at a tenth it would take 110 s, at all of it 11 s."""
    _, _, _, took_s = await meet(lambda clock: 8_000 if clock.now_s < 10 else 80_000, [], [item(1, 110_000)])
    assert 19 < took_s < 24
    _, _, _, free_s = await meet(lambda clock: 8_000 if clock.now_s < 10 else 0, [], [item(1, 110_000)])
    assert free_s < 12


async def test_without_a_limit_nothing_waits() -> None:
    _, _, papers, took_s = await meet(lambda _clock: 0, [item(1, 500_000)], [item(1, 500_000)])
    assert (took_s, papers[0].stored, papers[1].stored) == (0.0, [1], [1])


async def test_no_more_is_handed_over_than_the_line_takes_soon() -> None:
    """4 MiB of credit were put in front of a slow line at once: nothing could overtake them, not even a Bye."""
    clock = VirtualTime()
    child, parent = End(clock), End(clock)
    child.other, parent.other = parent, child
    gate = asyncio.Event()

    async def slow(data: bytes) -> None:
        if isinstance(wire.decode(data)[1], wire.Chunk):
            await gate.wait()
        await End.write(child, data)

    child.write = slow  # type: ignore[method-assign]
    below = session(child, Paper(), "13", [item(n, 400_000) for n in range(1, 10)], dials=True)
    above = session(parent, Paper(), "1301", [], dials=False)
    tasks = [asyncio.ensure_future(one.run()) for one in (above, below)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert 0 < below._queued <= AHEAD_BYTES + 2 * wire.CHUNK_BYTES_MAX
    gate.set()
    assert [(await task).error for task in tasks] == [None, None]
