"""A bad line between two real programs: a TCP proxy on the loopback that delays, slows, loses, cuts and forgets.

Rules
1. One line for each direction, shared by all connections, as a village's modem is: bytes leave one after the other at
   `rate`.
2. It sees a stream, not packets, so it shows what loss does to a stream: of `PACKET_BYTES` at a time, one that is
   lost takes the line twice
   and holds up all behind it for a round trip. Congestion control that gives up rate is not shown: that needs a
   kernel's own `netem`.
3. A new connection costs a round trip before its first byte goes (TCP's handshake).
4. `cut_every_s` resets every connection so often, on the event loop's clock, whoever is on it; `cut_after_bytes` each
   one when it has carried so much upward, which does not depend on how quick a machine is. `idle_drop_s` does what a
   NAT does: a connection that was silent for so long is forgotten, and nobody is told (bytes vanish).
5. Losses are drawn from `seed`, in the order of packets in each direction. Buffers on the way are small
   (`BUFFER_BYTES`), so that what a sender has handed over is soon on the line, and the kernel adds no pace of its own
   (under BBR a loopback holds a packet back for tens of milliseconds).

    async with Shaper("127.0.0.1", port, Line(rate=8000, delay_s=0.3, loss=0.05)) as line:
        ...  # dial 127.0.0.1:line.port
        line.bytes_up, line.bytes_down, line.lost, line.cuts

`first_up_at` and `last_up_at` are when the first byte went on the line upward and when the last was off it;
`paused_up_at` is when it went on after the last rest of a round trip.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any

PACKET_BYTES = 1200
BUFFER_BYTES = 8192
LINE_BUFFER_S = 0.25
RESET = struct.pack("ii", 1, 0)  # struct linger: on, no time


async def passes(seconds: float) -> None:
    """A line takes its time: that is what is shown here, nothing is waited for."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()


@dataclass(frozen=True, slots=True)
class Line:
    """`rate`: bytes a second in each direction, 0 without bound; `delay_s`: one way; `loss`: share of packets."""

    rate: float = 0.0
    delay_s: float = 0.0
    loss: float = 0.0
    cut_every_s: float = 0.0
    cut_after_bytes: int = 0
    idle_drop_s: float = 0.0
    seed: int = 1


class Direction:
    """When what is sent now arrives at the other end. Knows no clock: `now` is any clock's seconds."""

    def __init__(self, line: Line, seed: int) -> None:
        self._line, self._random = line, random.Random(seed)
        self.bytes = self.lost = self.repeated = 0
        self.free_at = 0.0

    def arrival(self, now: float, size: int) -> float:
        """Put a packet on the line."""
        line = self._line
        takes = size / line.rate if line.rate else 0.0
        self.free_at = max(now, self.free_at) + takes
        self.bytes += size
        arrives = self.free_at + line.delay_s
        if line.loss and self._random.random() < line.loss:
            self.lost += 1
            self.repeated += size
            self.free_at += takes
            arrives = self.free_at + 3 * line.delay_s  # noticed after a round trip, then on its way again
        return arrives


@dataclass(eq=False, slots=True)
class _Connection:
    near: asyncio.StreamWriter
    far: asyncio.StreamWriter
    last: float
    forgotten: bool = False
    carried: int = 0

    def abort(self) -> None:
        """Who dialled is reset (RST), as where a modem hangs up. The other end keeps what has arrived, then sees the
        end."""
        if not self.near.transport.is_closing():
            self.near.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.near.transport.abort()
        self.far.transport.abort()


def _prompt() -> socket.socket:
    """A socket that sends at once; it must be told before it is connected."""
    one = socket.socket()
    if hasattr(socket, "TCP_CONGESTION"):
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, b"reno")
    return one


def listening() -> socket.socket:
    """A socket for a server on the loopback."""
    one = _prompt()
    one.bind(("127.0.0.1", 0))
    return one


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Dial a port of the loopback."""
    one = _prompt()
    one.setblocking(False)
    await asyncio.get_running_loop().sock_connect(one, ("127.0.0.1", port))
    return await asyncio.open_connection(sock=one)


def _small() -> socket.socket:
    """With a buffer of a few packets, and packets to match: with a loopback's own of 64 KiB the sender would wait for a
    window that never opens, and after 20 s gRPC's TCP_USER_TIMEOUT would end the connection."""
    one = _prompt()
    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, PACKET_BYTES)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return one


class Shaper:
    """The line to one address. `line` may be put into place of another while it runs."""

    def __init__(self, host: str, port: int, line: Line) -> None:
        self.target, self.line = (host, port), line
        self.port = 0
        self.cuts = self.connections = 0
        self.first_up_at = self.last_up_at = self.paused_up_at = 0.0
        self.paused_up_bytes = 0
        self._up, self._down = Direction(line, line.seed), Direction(line, line.seed + 1)
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Shaper:
        server = _small()
        server.bind(("127.0.0.1", 0))
        self.port = int(server.getsockname()[1])
        self._server = await asyncio.start_server(self._accept, sock=server, limit=BUFFER_BYTES)
        if self.line.cut_every_s:
            self._spawn(self._cutting())
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.cut()

    @property
    def bytes_up(self) -> int:
        """What dialling programs sent, each byte once."""
        return self._up.bytes

    @property
    def bytes_down(self) -> int:
        return self._down.bytes

    @property
    def repeated_up(self) -> int:
        """Bytes that the line carried upward a second time."""
        return self._up.repeated

    @property
    def lost(self) -> int:
        """Packets, in both directions."""
        return self._up.lost + self._down.lost

    def cut(self) -> None:
        """Reset every connection."""
        for one in list(self._open):
            one.abort()

    def forget(self) -> None:
        """What a NAT that restarts does: whatever is sent on these connections vanishes."""
        for one in self._open:
            one.forgotten = True

    def _spawn(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _cutting(self) -> None:
        while True:
            await passes(self.line.cut_every_s)
            self.cuts += bool(self._open)
            self.cut()

    async def _accept(self, reader: asyncio.StreamReader, near: asyncio.StreamWriter) -> None:
        self.connections += 1
        await passes(2 * self.line.delay_s)
        out = _small()
        out.setblocking(False)
        loop = asyncio.get_running_loop()
        try:
            await loop.sock_connect(out, self.target)
        except OSError:
            out.close()
            near.transport.abort()
            return
        back, far = await asyncio.open_connection(sock=out, limit=BUFFER_BYTES)
        for writer in (near, far):
            writer.transport.set_write_buffer_limits(0)  # what is delivered is with the kernel
        one = _Connection(near, far, loop.time())
        self._open.add(one)
        pumps = [
            self._spawn(self._pump(one, reader, far, self._up)),
            self._spawn(self._pump(one, back, near, self._down)),
        ]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        if one.forgotten:  # nor is the other end told that this one has gone
            await asyncio.wait(pumps)
        self._open.discard(one)
        for pump in pumps:
            pump.cancel()
        one.abort()

    async def _pump(
        self, one: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, direction: Direction
    ) -> None:
        """Until either end closes; what was on the line by then still arrives."""
        loop = asyncio.get_running_loop()
        on_the_way: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivering = self._spawn(self._deliver(on_the_way, writer))
        last = 0.0
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(PACKET_BYTES):
                    now = loop.time()
                    idle = self.line.idle_drop_s
                    one.forgotten = one.forgotten or bool(idle and now - one.last > idle)
                    one.last = now
                    if one.forgotten:
                        continue
                    if direction is self._up:
                        self.first_up_at = self.first_up_at or now
                        if now - direction.free_at > self.line.delay_s:
                            self.paused_up_at, self.paused_up_bytes = now, direction.bytes
                    last = max(last, direction.arrival(now, len(data)))
                    if direction is self._up:
                        self.last_up_at = direction.free_at
                    on_the_way.put_nowait((last, data))
                    if direction is self._up and self._spent(one, len(data)):
                        on_the_way.put_nowait((last, b""))
                        await delivering
                        self.cuts += 1
                        one.abort()
                        return
                    if direction.free_at - now > LINE_BUFFER_S:
                        await passes(direction.free_at - now - LINE_BUFFER_S)
            if not one.forgotten:
                on_the_way.put_nowait((last, b""))
                await delivering
        finally:
            delivering.cancel()

    def _spent(self, one: _Connection, size: int) -> bool:
        one.carried += size
        return 0 < self.line.cut_after_bytes <= one.carried

    @staticmethod
    async def _deliver(on_the_way: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionError):
            while True:
                at, data = await on_the_way.get()
                await passes(max(0.0, at - loop.time()))
                if not data:
                    return
                writer.write(data)
                await writer.drain()
