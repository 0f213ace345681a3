"""Daemons over a bad line: what was half sent goes on where it was cut, and something moves each time."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from fednode.node import admission, carrier, sqlite
from fednode.sync import wire
from fednode.sync.change import Change
from fednode.sync.pace import CHUNK_BYTES_START
from mesh import Mesh, Running
from shaper import Line, Shaper

RATE = 200_000  # slow enough that what has arrived is read before the cut
HANDSHAKE_BYTES = 8_000  # TLS, HTTP/2, Hello, upward, with room to spare


def backlog(node: Running, changes: int) -> int:
    """One segment that does not compress. Its sealed bytes."""
    rng = random.Random(1)
    writer = node.app.new_writer()
    payloads = [b'{"name":"%s"}' % rng.randbytes(60).hex().encode() for _ in range(changes)]
    writer.local("admin-licence", node.app.trust.area, [Change(b"k%d" % i, one) for i, one in enumerate(payloads)])
    writer.store.close()
    connection = sqlite.connect(node.app.home.path / "log.db", synchronous="NORMAL", readonly=True)
    try:
        return int(connection.execute("select max(length(data)) from segment").fetchone()[0])
    finally:
        connection.close()


@pytest.mark.parametrize("cut_after_bytes", [60_000, HANDSHAKE_BYTES + 2 * CHUNK_BYTES_START])
async def test_a_line_that_is_cut_again_and_again_brings_a_long_segment_over(
    tmp_path: Path, cut_after_bytes: int
) -> None:
    """What a line of 64 kbit/s carries in 10 s, and in 3: less than the segment, so each session has to add to what the
    last one left. With chunks of 64 KiB none of them ever did."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        line = Line(rate=RATE, cut_after_bytes=cut_after_bytes)
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        await mesh.halt(city)
        sealed = backlog(city, 1000)
        assert sealed > 65_000
        host, _, port = province.app.config.listen.partition(":")
        async with Shaper(host, int(port), line) as shaper:
            object.__setattr__(city.app.config, "parent_addresses", (f"127.0.0.1:{shaper.port}",))
            await mesh.run(city)
            await mesh.until(lambda: city.pending() == 0 and province.records_in_log() == 1000)
            assert shaper.cuts >= sealed // cut_after_bytes
            lost = shaper.cuts * (HANDSHAKE_BYTES + CHUNK_BYTES_START)
            assert shaper.bytes_up < 1.05 * sealed + HANDSHAKE_BYTES + lost
            await mesh.halt(city)


async def test_what_an_older_session_holds_half_is_known_to_the_next_one(tmp_path: Path) -> None:
    """A NAT forgot the first; its parent has not noticed yet, when the child dials again."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        await mesh.halt(city)
        app, held = city.app, bytes(100)

        async def greet(stream: carrier.Stream) -> wire.Hello:
            peer = app.store.peer("13")
            await stream.write(wire.encode(1, admission.hello(app.trust, app.store, app.now_ms(), "", peer, None)))
            while (data := await stream.read()) is not None:
                if isinstance(answer := wire.decode(data)[1], wire.Hello):
                    return answer
            raise AssertionError("no answer")

        async def second(stream: carrier.Stream) -> wire.Partial | None:
            return (await greet(stream)).partial

        async def first(stream: carrier.Stream) -> wire.Partial | None:
            await greet(stream)
            await stream.write(wire.encode(2, wire.Chunk(99, 0, held, 1000, bytes(32))))
            half = province.app.store.partial
            for _ in range(100):
                found = await carrier.dial(address, app.credentials(), app.parent_dns(), second)
                if found is not None:
                    assert half("1301") is not None
                    return found
            return None

        address = province.app.config.listen
        partial = await carrier.dial(address, app.credentials(), app.parent_dns(), first)
        assert partial == wire.Partial(99, bytes(32), len(held))
