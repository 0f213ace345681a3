"""Two sessions with a bad line between them, hours of it in virtual time: what keeps a NAT awake, what a line that went
dead in silence comes to, and how little a cut loses. Real sockets, engine and driver; the store is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from fednode.node.driver import TICK_S, Session, Welcome
from fednode.node.hooks import Hooks
from fednode.node.link import Link
from fednode.node.profile import NORMAL, Profile
from fednode.sync import wire
from fednode.sync.effects import Admission, Close, Commit, Done, HalfSegment, Item
from fednode.sync.errors import Unavailable
from fednode.sync.exchange import BEAT_MS, SILENCE_MS_MAX, Exchange
from leaping import leap
from shaper import Line, Shaper, connect, listening, passes
from sides import NOW, hello, item
from world import World

CHILD, PARENT = World().identity("1301"), World().identity("13")
VILLAGE = Line(rate=8000, delay_s=0.3, loss=0.05)


class Frames:
    """Frames over TCP: a length, then bytes. A `carrier.Stream`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def read(self) -> bytes | None:
        try:
            size = int.from_bytes(await self._reader.readexactly(4), "big")
            return await self._reader.readexactly(size)
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            raise Unavailable("FN-4501", address="", reason=str(error)) from error

    async def write(self, data: bytes) -> None:
        try:
            self._writer.write(len(data).to_bytes(4, "big") + data)
            await self._writer.drain()
        except ConnectionError as error:
            raise Unavailable("FN-4501", address="", reason=str(error)) from error


@dataclass
class Memory:
    """A node's store and writer thread: what was committed, what is half here, what the peer has answered for."""

    items: list[Item] = field(default_factory=list)
    held: dict[int, bytes] = field(default_factory=dict)
    half: HalfSegment | None = None
    acked: int = 0
    closes: list[Close] = field(default_factory=list)
    session: Session | None = None
    profile: Profile = NORMAL

    def partial(self, _node: str) -> HalfSegment | None:
        return self.half

    def commit(self, _link: Link, commit: Commit, done: Callable[[Done], None]) -> None:
        self.held[commit.lsn] = commit.data
        asyncio.get_running_loop().call_soon(done, Done(commit.lsn))

    async def call(self, function: Callable[[Any], Any], _lane: str = "") -> None:
        await passes(0)
        function(self)

    # as a Writer
    def keep_half(self, _node: str, half: HalfSegment | None) -> None:
        self.half = half

    def acknowledged(self, _peer_id: int, _outcomes: Any, _peer: Any, upto: int) -> None:
        self.acked = max(self.acked, upto)

    def feed(self, after: int, _bytes_max: int) -> tuple[list[Item], bool]:
        return [one for one in self.items if one.lsn > after], True

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, dials: bool) -> Close:
        """One session over a connection."""
        loop = asyncio.get_running_loop()
        peer = PARENT if dials else CHILD

        def mine() -> wire.Hello:
            half = self.half
            partial = wire.Partial(half.lsn, half.digest, len(half.data)) if half else None
            return hello("1301" if dials else "13", partial=partial)

        async def admit(_greeting: wire.Hello) -> Welcome:
            await passes(0)
            if not dials:
                exchange.half = self.half
            start = self.acked if dials else 0
            return Welcome(
                Link(peer, 1, bytes(16), dials, 0), Admission(start, (), None if dials else mine()), self.feed, _none
            )

        exchange = Exchange(
            dials=dials,
            hello=mine() if dials else None,
            half=self.half if dials else None,
        )
        me: Any = self
        session = Session(
            Frames(reader, writer), exchange, me, me, lambda: NOW + int(loop.time() * 1000), admit, Hooks()
        )
        self.session = session
        try:
            close = await session.run()
        finally:
            writer.transport.abort()
        self.closes.append(close)
        return close


def _none(_log: str, _first: int, _until: int) -> list[Item]:
    return []


async def _between(line: Line, talk: Callable[[Memory, Memory, Shaper], Awaitable[None]], child: Memory) -> None:
    parent = Memory()
    errors: list[object] = []  # of what a server's handler raises asyncio only tells this
    asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context.get("exception")))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await parent.run(reader, writer, dials=False)

    server = await asyncio.start_server(serve, sock=listening())
    async with server, Shaper("127.0.0.1", server.sockets[0].getsockname()[1], line) as shaper:
        try:
            await talk(child, parent, shaper)
        finally:
            assert errors == []
        await passes(SILENCE_MS_MAX / 1000 + 2 * TICK_S)  # a parent that was not told notices, too
    await passes(1)
    assert errors == []


def between(line: Line, talk: Callable[[Memory, Memory, Shaper], Awaitable[None]], *items: Item) -> Memory:
    """Run `talk` with a child that has these to say, its parent, and the line. The child."""
    child = Memory(list(items))
    leap(_between(line, talk, child))
    return child


async def until(holds: Callable[[], bool]) -> None:
    """Let time pass until something holds. A kernel may keep bytes for a moment, in which hours may pass here."""
    for _ in range(3600):
        if holds():
            return
        await passes(1)
    raise AssertionError("not within an hour")


async def dial(child: Memory, line: Shaper) -> Close:
    return await child.run(*await connect(line.port), dials=True)


@pytest.mark.parametrize("idle_drop_s", [30.0, BEAT_MS / 1000 + TICK_S + 1])
def test_beats_keep_a_nat_awake_through_an_hour_of_silence(idle_drop_s: float) -> None:
    async def talk(child: Memory, parent: Memory, line: Shaper) -> None:
        running = asyncio.ensure_future(dial(child, line))
        await passes(3600)
        assert not running.done()
        child.items.append(item(1))
        assert child.session is not None
        child.session.wake()
        await until(lambda: child.acked == 1)
        assert list(parent.held) == [1]
        assert line.connections == 1
        assert line.bytes_up + line.bytes_down < 2 * (3600 * 1000 // BEAT_MS) * 30 + 2000
        child.session.end(None)
        assert (await running).error is None

    between(Line(delay_s=0.3, idle_drop_s=idle_drop_s), talk)


def test_a_line_that_went_dead_in_silence_is_noticed_by_both_and_dialled_again() -> None:
    """The NAT has forgotten the connection: nothing arrives any more, and nobody is told."""

    async def talk(child: Memory, parent: Memory, line: Shaper) -> None:
        running = asyncio.ensure_future(dial(child, line))
        await passes(100)
        line.forget()
        close = await running
        assert getattr(close.error, "code", "") == "FN-4502"
        again = asyncio.ensure_future(dial(child, line))
        await passes(SILENCE_MS_MAX / 1000 + 2 * TICK_S)
        assert [getattr(one.error, "code", "") for one in parent.closes] == ["FN-4502"]
        child.items.append(item(1))
        assert child.session is not None
        child.session.wake()
        await until(lambda: child.acked == 1)
        assert list(parent.held) == [1]
        child.session.end(None)
        await again

    between(Line(delay_s=0.3), talk)


@pytest.mark.parametrize("cut_every_s", [60.0, 10.0])
def test_what_a_cut_loses_is_a_second_of_the_line(cut_every_s: float) -> None:
    """64 kbit/s, 600 ms, 5 % loss: 600 kB in segments of 100 kB, of which one takes longer than there is between cuts
    of 10 s. Bytes are those of the line, so what was sent twice shows."""
    items = [item(i, 100_000) for i in range(1, 7)]

    async def talk(child: Memory, parent: Memory, line: Shaper) -> None:
        for _ in range(100):
            await dial(child, line)
            if child.acked == 6:
                break
            assert line.cuts > 0
        assert parent.held == {one.lsn: one.data for one in items}
        assert line.bytes_up < 1.02 * 600_000 + line.cuts * 20_000

    async def until_all(child: Memory, parent: Memory, line: Shaper) -> None:
        talking = asyncio.ensure_future(talk(child, parent, line))
        while child.acked < 6 and not talking.done():
            await asyncio.wait([talking], timeout=1)
        if child.session is not None and not talking.done():
            child.session.end(None)
        await talking

    between(Line(8000, 0.3, 0.05, cut_every_s), until_all, *items)
