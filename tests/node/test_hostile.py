"""Strangers and thieves over real sockets while an honest child goes on: a short form of `scripts/bench hostile`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from fednode.node import carrier, shipped
from fednode.node.app import App
from fednode.node.carrier import Stream
from fednode.sync.change import Change
from hostile import STRANGERS, THIEVES, Tally, Target, attack, invite
from mesh import WAIT_S, Mesh, configuration

TIMES = 2


def change(number: int) -> Change:
    return Change(f"9113010{number}".encode(), b'{"name":"x"}')


async def test_an_honest_child_goes_on_among_those_who_mean_harm(tmp_path: Path) -> None:
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="x", domain="hebei")
    app.publish_catalog(shipped.catalog())
    honest, comes, *thieves = invite(app, 2 + TIMES * len(THIEVES))
    to = Target(app.config.listen, app.config.enrol_listen, lambda: asyncio.sleep(0))
    tally = Tally()
    async with Mesh(tmp_path) as mesh:
        node = await mesh.start(app)
        serving = asyncio.ensure_future(carrier.dial(to.exchange, honest.credentials, honest.parent, honest.run))
        await asyncio.wait_for(honest.put(change(0)), WAIT_S)
        attacks = attack(to, TIMES * len(STRANGERS), thieves, tally)
        for number in range(1, 21):
            await asyncio.wait_for(honest.put(change(number)), WAIT_S)
        # all have begun, and those who were hung up on have come again
        again = ("garbage", "handshake", "pings", "guesses", "no frames", "oversized")
        await mesh.until(lambda: len(tally) >= 16 and min(tally[one] for one in again) > 2 * TIMES)

        async def come(stream: Stream) -> None:
            running = asyncio.ensure_future(comes.run(stream))
            await asyncio.wait_for(comes.put(change(99)), WAIT_S)
            running.cancel()

        await carrier.dial(to.exchange, comes.credentials, comes.parent, come)
        await asyncio.wait_for(honest.put(change(21)), WAIT_S)
        assert not any(one.done() for one in attacks)
        assert not serving.done()
        assert node.records_in_log() == 23
        for one in attacks:
            one.cancel()
        serving.cancel()
        await asyncio.gather(*attacks, serving, return_exceptions=True)
