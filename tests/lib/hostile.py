"""Peers over real sockets: honest ones that cost next to nothing, and those that mean harm.

Rules
1. A `Guest` is a child that has joined, without a home: its keys, its certificate, a log. Thousands fit into a process.
2. An attack holds one connection, or opens one after the other, until it is cancelled; whatever the node does to it, it
   goes on. What it did is counted (`Tally`).

>>> sorted({*STRANGERS} & {*THIEVES})
[]
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field, replace
from typing import Any

from fednode.crypto import certs, issuing
from fednode.node import carrier
from fednode.node.app import App, encoded
from fednode.node.home import pem_of
from fednode.proto import fednode_pb2 as pb
from fednode.sync import effects as fx
from fednode.sync import segment as seg
from fednode.sync import wire
from fednode.sync.change import NODES, Change, LogName
from fednode.sync.enrol import Token
from fednode.sync.errors import Unavailable
from fednode.sync.exchange import Exchange
from fednode.sync.identity import node_payload
from fednode.sync.inbox import hash_of
from fednode.sync.log import LogState, extend
from world import Keys, keys_of

LEVEL, AREA = "county", "1301"
DATASET = "org-registration"
TICK_S = 5.0
Tally = Counter[str]


def now_ms() -> int:
    return round(time.time() * 1000)


@dataclass
class Guest:
    """A child of a province. `parent`: its DNS name; `readers`: to whom it seals; `area`: of what it writes."""

    node: str
    keys: Keys
    credentials: carrier.Credentials
    parent: str
    readers: list[seg.Reader]
    catalog: int
    state: LogState
    area: str = AREA
    items: list[fx.Item] = field(default_factory=list)
    acked: dict[int, asyncio.Future[float]] = field(default_factory=dict)
    exchange: Exchange | None = None
    closed: Exception | None = None
    _out: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)

    def hello(self) -> wire.Hello:
        return wire.Hello(
            *(self.node, (), now_ms(), self.node.encode().ljust(16, b"-")[:16], wire.Cursor(), 0, 4 << 20, None),
            *(True, False),
            incarnation=1,
        )

    def seal(self, change: Change) -> None:
        """A change at the end of its log, to be sent."""
        stamp = max(self.state.last_hlc + 1, now_ms() << 16)
        key, readers = self.keys.sign, self.readers
        (made,) = extend(self.state, [change], [stamp], self.catalog, key, readers, True, os.urandom)
        self.state = made.after
        lsn = len(self.items) + 1
        self.items.append(fx.Item(lsn, made.raw, digest=hash_of(made.raw)))

    async def run(self, stream: carrier.Stream) -> None:
        """An honest exchange, until it is over."""
        self.exchange = Exchange(dials=True, hello=self.hello())
        self._out = asyncio.Queue()
        writing = asyncio.create_task(self._write(stream))
        try:
            self._do(self.exchange.start(now_ms()))
            while self.exchange is not None and (data := await stream.read()) is not None:
                self._do(self.exchange.receive(data, now_ms()))
        finally:
            self.exchange = None
            writing.cancel()

    async def _write(self, stream: carrier.Stream) -> None:
        with contextlib.suppress(Unavailable):
            while (data := await self._out.get()) is not None:
                await stream.write(data)

    def _do(self, effects: list[fx.Effect]) -> None:
        exchange = self.exchange
        for effect in effects:
            if exchange is None:
                return
            if isinstance(effect, fx.Send):
                self._out.put_nowait(effect.data)
            elif isinstance(effect, fx.Admit):
                self._do(exchange.admitted(fx.Admission(0), now_ms()))
            elif isinstance(effect, fx.Compare) and effect.last:
                self._do(exchange.compared(now_ms()))
            elif isinstance(effect, fx.Pull):
                self._do(exchange.feed(self.items[effect.after :], True, now_ms()))
            elif isinstance(effect, fx.Hurry):
                self._do(exchange.hurried([], effect.beyond, False, now_ms()))
            elif isinstance(effect, fx.Again):
                self._do(exchange.resend(effect.log, effect.first, [], now_ms()))
            elif isinstance(effect, fx.Acked):
                for one in effect.outcomes:
                    waiting = self.acked.pop(one.lsn, None)
                    if one.refused:
                        error = RuntimeError(f"{self.node}: {one.refused}")
                        if waiting is not None and not waiting.done():
                            waiting.set_exception(error)
                        raise error
                    if waiting is not None and not waiting.done():
                        waiting.set_result(time.monotonic())
            elif isinstance(effect, fx.Close):
                self.closed, self.exchange = effect.error, None

    async def put(self, change: Change) -> float:
        """Write a change and wait for its acknowledgement. Seconds."""
        self.seal(change)
        began = time.monotonic()
        return await self.until_acked() - began

    def until_acked(self) -> asyncio.Future[float]:
        """When (by time.monotonic) the last of its changes was acknowledged."""
        waiting = self.acked[len(self.items)] = asyncio.get_running_loop().create_future()
        if self.exchange is not None:
            self._do(self.exchange.wake(now_ms()))
        return waiting

    def tick(self) -> None:
        """Every few seconds, so that the parent hears of it."""
        if self.exchange is not None:
            self._do(self.exchange.tick(now_ms()))


def invite(app: App, count: int, prefix: str = "9") -> list[Guest]:
    """Children of a province that is not running: they have joined, and hold keys and a certificate."""
    writer, found = app.new_writer(app.store), []
    for number in range(count):
        node = f"{AREA}{prefix}{number:05}"
        keys = keys_of(node)
        secret = Token.decode(app.invite(node, LEVEL, node, (AREA,))).secret
        asked = issuing.make_request(node, keys.tls, keys.sign, keys.seal)
        reply = app.enrol(writer, pb.JoinRequest(node=node, secret=secret, request=asked))
        found.append(_guest(app, node, keys, tuple(reply.chain)))
    return found


def enrolled(app: App, count: int, prefix: str = "9") -> list[Guest]:
    """As `invite`, for thousands: each with an area of its own, and their certificates are put straight into the
    province's log, many in a change of the store, without tokens."""
    writer, found, changes = app.new_writer(app.store), list[Guest](), list[Change]()
    above = app.trust.directory.chain(app.trust.node)
    for number in range(count):
        node = f"{AREA}{prefix}{number:05}"
        keys = keys_of(node)
        asked = issuing.parse_request(issuing.make_request(node, keys.tls, keys.sign, keys.seal))
        der = app.certify(asked, node, LEVEL, (f"{node}00",), 1)
        changes.append(Change(node.encode(), encoded(node_payload(der))))
        found.append(replace(_guest(app, node, keys, (der, *above)), area=f"{node}00"))
    writer.local(NODES, app.trust.area, changes)
    return found


def _guest(app: App, node: str, keys: Keys, chain: tuple[bytes, ...]) -> Guest:
    pems = [pem_of(one) for one in (chain[:1], chain[:-1], chain[1:], chain[-1:])]
    credentials = carrier.Credentials(keys.tls.to_pem(None), *pems)
    me = app.keys.seal
    readers = [seg.Reader(me.key_id, me.public), seg.Reader(keys.seal.key_id, keys.seal.public)]
    log = LogName(app.trust.domain, node, 1, DATASET, "")
    name, version = app.trust.me.dns, app.trust.catalog_version
    return Guest(node, keys, credentials, name, readers, version, LogState(log))


@dataclass(frozen=True)
class Target:
    """Where a node listens. `pause`: between two connections of one attack."""

    exchange: str
    enrol: str
    pause: Callable[[], Awaitable[None]]


# ---------------------------------------------------------------- who has no certificate


def _context(alpn: bool = True) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(["h2"])
    return context


def _place(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def _held(
    to: Target, address: str, first: bytes, tally: Tally, what: str, tls: ssl.SSLContext | None = None
) -> None:
    """Say something, then nothing; again whenever the node hangs up."""
    while True:
        tally[what] += 1
        writer = None
        try:
            reader, writer = await asyncio.open_connection(*_place(address), ssl=tls)
            writer.write(first)
            await writer.drain()
            while await reader.read(65_536):
                pass
        except (OSError, ssl.SSLError):
            pass
        finally:
            if writer is not None:
                writer.transport.abort()
        tally[f"{what}, hung up on"] += 1
        await to.pause()


async def silent(to: Target, tally: Tally) -> None:
    """A connection, and no byte."""
    await _held(to, to.exchange, b"", tally, "silent")


async def half_handshake(to: Target, tally: Tally) -> None:
    """Half of a ClientHello."""
    out = ssl.MemoryBIO()
    begun = _context().wrap_bio(ssl.MemoryBIO(), out, server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        begun.do_handshake()
    await _held(to, to.exchange, out.read()[:100], tally, "half a handshake")


async def garbage(to: Target, tally: Tally) -> None:
    """Bytes that are no TLS."""
    await _held(to, to.exchange, os.urandom(4096), tally, "garbage")


async def tls_flood(to: Target, tally: Tally) -> None:
    """One handshake after the other, without a certificate."""
    await _held(to, to.exchange, b"x", tally, "handshake", _context())


PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + b"\x04" + bytes(5)


def _frame(kind: int, flags: int, stream: int, body: bytes) -> bytes:
    return len(body).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + body


def _header(name: bytes, value: bytes) -> bytes:
    length = bytes([len(value)]) if len(value) < 127 else b"\x7f" + _varint(len(value) - 127)
    return b"\x00" + bytes([len(name)]) + name + length + value


def _varint(value: int) -> bytes:
    found = b""
    while value >= 128:
        found += bytes([value % 128 + 128])
        value //= 128
    return found + bytes([value])


def _call(path: str, stream: int, **more: bytes) -> bytes:
    named = {":method": b"POST", ":scheme": b"https", ":path": path.encode(), ":authority": b"x", "te": b"trailers"}
    headers = {**named, "content-type": b"application/grpc", **more}
    return _frame(1, 4, stream, b"".join(_header(name.encode(), value) for name, value in headers.items()))


async def no_request(to: Target, tally: Tally) -> None:
    """Sixteen calls to join whose request never comes."""
    calls = b"".join(_call(carrier.ENROL_JOIN, stream) for stream in range(1, 33, 2))
    await _held(to, to.enrol, PREFACE + calls, tally, "no request", _context())


async def big_headers(to: Target, tally: Tally) -> None:
    """Headers of 12 kB."""
    await _held(to, to.enrol, PREFACE + _call(carrier.ENROL_JOIN, 1, x=b"y" * 12_000), tally, "big headers", _context())


async def pings(to: Target, tally: Tally) -> None:
    """A thousand pings."""
    await _held(to, to.enrol, PREFACE + _frame(6, 0, 0, bytes(8)) * 1_000, tally, "pings", _context())


async def guessing(to: Target, tally: Tally) -> None:
    """Requests to join with secrets that are guessed."""
    der = await asyncio.to_thread(carrier.presented_certificate, to.enrol)
    while True:
        tally["guesses"] += 1
        with contextlib.suppress(Exception):
            name = certs.parse(der).dns
            tls = carrier.grpc.ssl_channel_credentials(pem_of((der,)))
            body = pb.JoinRequest(node=os.urandom(8).hex(), secret=os.urandom(16), request=os.urandom(60_000))
            await carrier._unary(to.enrol, tls, name, carrier.ENROL_JOIN, body.SerializeToString())
        await to.pause()


STRANGERS: dict[str, Callable[[Target, Tally], Awaitable[None]]] = {
    one.__name__: one for one in (silent, half_handshake, garbage, tls_flood, no_request, big_headers, pings, guessing)
}

# ---------------------------------------------------------------- who has stolen a certificate


async def _dialled(to: Target, guest: Guest, tally: Tally, what: str, use: Callable[[Any], Awaitable[None]]) -> None:
    while True:
        tally[what] += 1
        try:
            await carrier.dial(to.exchange, guest.credentials, guest.parent, use)
        except Unavailable as error:
            tally[f"{what}: {error.code}"] += 1
        await to.pause()


async def _greet(stream: carrier.Stream, guest: Guest) -> None:
    await stream.write(wire.encode(1, guest.hello()))


async def mute(to: Target, guest: Guest, tally: Tally) -> None:
    """It connects, and does not greet."""

    async def use(stream: carrier.Stream) -> None:
        await stream.read()

    await _dialled(to, guest, tally, "mute", use)


async def deaf(to: Target, guest: Guest, tally: Tally) -> None:
    """It greets, wants everything, and reads nothing."""

    async def use(stream: carrier.Stream) -> None:
        await stream.write(wire.encode(1, replace(guest.hello(), wants=True)))
        await asyncio.Event().wait()

    await _dialled(to, guest, tally, "deaf", use)


async def _flood(
    to: Target, guest: Guest, tally: Tally, what: str, frame: Callable[[int], wire.Message], reads: bool
) -> None:
    async def use(stream: carrier.Stream) -> None:
        await _greet(stream, guest)
        await stream.read()
        reading = asyncio.create_task(_drain(stream)) if reads else None
        try:
            number = 1
            while True:
                number += 1
                await stream.write(wire.encode(number, frame(number)))
                tally[f"{what}, frames"] += 1
        finally:
            if reading is not None:
                reading.cancel()

    await _dialled(to, guest, tally, what, use)


async def _drain(stream: carrier.Stream) -> None:
    with contextlib.suppress(Unavailable):
        while await stream.read() is not None:
            pass


async def late(to: Target, guest: Guest, tally: Tally) -> None:
    """Cosignatures that cost no credit, as fast as they go."""
    signed = wire.Cosignature(1, bytes(64))
    log = str(guest.state.name)
    await _flood(to, guest, tally, "late", lambda n: wire.Late(n, log, n, bytes(32), signed), reads=True)


async def wanting(to: Target, guest: Guest, tally: Tally) -> None:
    """Wants for what is not there; no answer is read."""
    log = str(guest.state.name)
    await _flood(to, guest, tally, "wants", lambda n: wire.Want(log, n), reads=False)


async def refusing(to: Target, guest: Guest, tally: Tally) -> None:
    """Refusals of what it was never sent."""
    await _flood(to, guest, tally, "refusals", lambda n: wire.Ack((wire.Outcome(n, None, "FN-6406"),)), reads=True)


async def junk(to: Target, guest: Guest, tally: Tally) -> None:
    """Segments that are none, as fast as the credit allows."""

    def segment(number: int) -> wire.Message:
        data = os.urandom(60_000)
        return wire.Chunk(number, 0, data, len(data), hash_of(data))

    await _flood(to, guest, tally, "junk", segment, reads=True)


async def no_frames(to: Target, guest: Guest, tally: Tally) -> None:
    """Bytes that are no frame."""

    async def use(stream: carrier.Stream) -> None:
        await stream.write(os.urandom(2_000))
        await _drain(stream)

    await _dialled(to, guest, tally, "no frames", use)


async def oversized(to: Target, guest: Guest, tally: Tally) -> None:
    """A message of 3 MiB."""

    async def use(stream: carrier.Stream) -> None:
        await stream.write(bytes(3 << 20))
        await _drain(stream)

    await _dialled(to, guest, tally, "oversized", use)


THIEVES: dict[str, Callable[[Target, Guest, Tally], Awaitable[None]]] = {
    one.__name__: one for one in (mute, deaf, late, wanting, refusing, junk, no_frames, oversized)
}


def attack(
    to: Target, strangers: int, thieves: list[Guest], tally: Tally, only: Collection[str] = ()
) -> list[asyncio.Future[None]]:
    """As many connections of those without a certificate, in turn of each kind, and one of each thief. `only`: of these
    kinds; else of all."""
    kinds = [use for name, use in STRANGERS.items() if not only or name in only]
    stolen = [use for name, use in THIEVES.items() if not only or name in only]
    jobs = [kinds[number % len(kinds)](to, tally) for number in range(strangers if kinds else 0)]
    jobs += [stolen[number % len(stolen)](to, guest, tally) for number, guest in enumerate(thieves if stolen else ())]
    return [asyncio.ensure_future(job) for job in jobs]
