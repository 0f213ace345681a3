"""The line between two programs that the other tests here rely on: it delays, slows, loses, cuts, forgets as it says.

Its clock is the event loop's; here that is virtual (`leaping`), so what is said of seconds is exact."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from leaping import leap
from shaper import PACKET_BYTES, Direction, Line, Shaper, connect, listening, passes

VILLAGE = Line(rate=8000, delay_s=0.3)


def arrivals(line: Line, count: int, *, seed: int = 1, every: float = 0.0, size: int = 800) -> list[float]:
    direction = Direction(line, seed)
    return [direction.arrival(i * every, size) for i in range(count)]


def test_packets_leave_one_after_the_other_at_the_lines_rate() -> None:
    assert arrivals(VILLAGE, 3) == pytest.approx([0.4, 0.5, 0.6])
    assert arrivals(VILLAGE, 3, every=1.0) == pytest.approx([0.4, 1.4, 2.4])  # each finds it free


def test_without_a_rate_only_the_way_takes_time() -> None:
    assert arrivals(Line(delay_s=0.3), 3) == pytest.approx([0.3, 0.3, 0.3])


def test_a_lost_packet_takes_the_line_twice_and_comes_a_round_trip_later() -> None:
    assert arrivals(Line(rate=8000, delay_s=0.3, loss=1.0), 2) == pytest.approx([0.2 + 0.9, 0.4 + 0.9])


def test_losses_are_those_of_the_seed() -> None:
    lossy = Line(rate=8000, delay_s=0.3, loss=0.05)
    assert arrivals(lossy, 500) == arrivals(lossy, 500)
    assert arrivals(lossy, 500) != arrivals(lossy, 500, seed=2)
    direction = Direction(lossy, 1)
    for i in range(2000):
        direction.arrival(float(i), 800)
    assert 70 < direction.lost < 130  # of 2,000, 5 %


# ---------------------------------------------------------------- over sockets


Talk = Callable[[Shaper, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[Any]]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.transport.abort()


async def _through(line: Line, talk: Talk) -> tuple[Any, Shaper]:
    server = await asyncio.start_server(_echo, sock=listening())
    async with server, Shaper("127.0.0.1", server.sockets[0].getsockname()[1], line) as shaper:
        reader, writer = await connect(shaper.port)
        found = await talk(shaper, reader, writer)
        writer.transport.abort()
        await passes(1)  # the other ends hear of it
    await passes(1)
    return found, shaper


def through(line: Line, talk: Talk) -> tuple[Any, Shaper]:
    """What `talk` found at the dialling end of an echo, and the line."""
    return leap(_through(line, talk))


async def _said(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> float:
    """When the echo was back."""
    writer.write(data)
    assert await reader.readexactly(len(data)) == data
    return asyncio.get_running_loop().time()


def test_a_connection_costs_a_round_trip_and_an_echo_another() -> None:
    async def talk(_line: Shaper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> list[float]:
        return [await _said(reader, writer, b"x"), await _said(reader, writer, b"y")]

    found, line = through(Line(delay_s=0.3), talk)
    assert found == pytest.approx([1.2, 1.8])
    assert (line.bytes_up, line.bytes_down, line.connections) == (2, 2, 1)


@pytest.mark.parametrize("line", [Line(), VILLAGE, Line(8000, 0.3, 0.3)])
def test_what_is_sent_arrives_whole_and_in_order(line: Line) -> None:
    data = bytes(i % 251 for i in range(20 * PACKET_BYTES + 17))

    async def talk(_line: Shaper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> float:
        return await _said(reader, writer, data)

    took, shaper = through(line, talk)
    assert (shaper.bytes_up, shaper.bytes_down) == (len(data), len(data))
    if line.rate:
        assert took >= len(data) / line.rate
    assert (shaper.lost > 0) == (line.loss > 0)


def test_cuts_come_by_the_clock_and_count_only_when_somebody_is_on_the_line() -> None:
    async def talk(line: Shaper, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> float:
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        cut_at = asyncio.get_running_loop().time()
        await passes(100)
        assert line.cuts == 1
        return cut_at

    found, _ = through(Line(cut_every_s=60), talk)
    assert found == pytest.approx(60)


def test_a_cut_after_so_many_bytes_delivers_them_first() -> None:
    async def talk(_line: Shaper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _said(reader, writer, bytes(4000))
        writer.write(bytes(5000))
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await reader.readexactly(10_000)

    _, line = through(Line(cut_after_bytes=5000), talk)
    assert line.cuts == 1
    assert 5000 <= line.bytes_up < 5000 + PACKET_BYTES


def test_a_nat_forgets_who_is_silent_and_tells_nobody() -> None:
    async def talk(line: Shaper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(5):
            await passes(29)
            await _said(reader, writer, b"still here")
        up, down = line.bytes_up, line.bytes_down
        await passes(31)
        writer.write(b"and now?")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 3600)
        assert (line.bytes_up, line.bytes_down) == (up, down)

    through(Line(idle_drop_s=30), talk)


def test_a_nat_that_restarts_forgets_all() -> None:
    async def talk(line: Shaper, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _said(reader, writer, b"x")
        line.forget()
        writer.write(b"y")
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(reader.readexactly(1), 3600)

    through(Line(), talk)


def test_where_nobody_listens_the_connection_ends() -> None:
    async def nobody() -> bytes:
        server = await asyncio.start_server(_echo, sock=listening())
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        async with Shaper("127.0.0.1", port, Line()) as line:
            reader, writer = await connect(line.port)
            try:
                return await reader.read(1)
            except ConnectionError:
                return b""
            finally:
                writer.transport.abort()
                await passes(1)

    assert leap(nobody()) == b""
