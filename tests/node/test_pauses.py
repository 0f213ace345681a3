"""Whom a node does not serve for a while, and that it serves everybody else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fednode.node import lanes, pauses, shares, shipped
from fednode.node.app import App
from fednode.node.doubts import DOUBTED
from fednode.node.engine import Engine
from fednode.node.pauses import (
    BREACHES,
    CHILDREN_MAX,
    FOLLOWS,
    FORGET_MS,
    FREE,
    PAUSE_MS_MAX,
    PAUSE_MS_MIN,
    REFUSED_MAX,
    SILENT,
    Pauses,
    breach,
    judged,
    never_sent,
    too_much,
)
from fednode.sync import wire
from fednode.sync.effects import Done
from fednode.sync.errors import Unavailable
from fednode.sync.inbox import hash_of
from hostile import Guest, invite
from mesh import configuration


def test_a_few_are_nothing_and_each_more_doubles_the_pause_up_to_the_longest() -> None:
    some, told = Pauses(), []
    for _ in range(FREE + 12):
        some.broke("1301", 0)
        told.append(some.left_ms("1301", 0))
    doubled = [min(PAUSE_MS_MIN << n, PAUSE_MS_MAX) for n in range(12)]
    assert told == [0] * FREE + doubled
    assert doubled[-1] == PAUSE_MS_MAX
    assert some.left_ms("1301", PAUSE_MS_MAX - 1) == 1
    assert some.left_ms("1301", PAUSE_MS_MAX) == 0


def test_an_hour_without_one_and_all_is_forgotten() -> None:
    for after_ms, left_ms in ((FORGET_MS - 1, PAUSE_MS_MIN), (FORGET_MS, 0)):
        some = Pauses()
        for _ in range(FREE):
            some.broke("1301", 0)
        some.broke("1301", after_ms)
        assert some.left_ms("1301", after_ms) == left_ms


def test_no_more_are_remembered_than_that() -> None:
    some = Pauses()
    for number in range(CHILDREN_MAX + 1):
        for _ in range(FREE + 1):
            some.broke(f"{number}", 0)
    assert len(some._broken) == CHILDREN_MAX
    assert some.left_ms("0", 0) == 0
    assert some.left_ms(f"{CHILDREN_MAX}", 0) > 0


def test_what_is_a_breach_and_what_is_this_side_s_word() -> None:
    assert all(breach(code, True) for code in BREACHES)
    assert breach(SILENT, False)
    assert not breach(SILENT, True)
    assert not breach("FN-4501", False), "a line that was cut before the greeting"
    for code in ("", "FN-4501", "FN-4508", "FN-5505", "FN-5511", "FN-5513", "FN-5514"):
        assert not breach(code, True), code


def test_when_too_much_was_refused() -> None:
    many = ["FN-6406"] * REFUSED_MAX
    assert not too_much(many, REFUSED_MAX)
    assert too_much([*many, "FN-6406"], REFUSED_MAX + 1)
    assert not too_much([*many, FOLLOWS], REFUSED_MAX + 1), "what follows what was refused is no news"
    assert not too_much([*many, "FN-6406"], 2 * REFUSED_MAX + 2), "as much was taken"


class Line:
    """A child's end that says frames; then nothing more comes, or (`hangs_up`) the line ends."""

    def __init__(self, *frames: bytes) -> None:
        self.frames = list(frames)
        self.sent: list[wire.Message] = []

    async def read(self) -> bytes | None:
        return self.frames.pop(0) if self.frames else None

    async def write(self, data: bytes) -> None:
        self.sent.append(wire.decode(data)[1])


class Greeted(Line):
    """Its first frame is its greeting; the others come when it was answered."""

    def __init__(self, *frames: bytes) -> None:
        super().__init__(*frames)
        self.all = len(frames)
        self.answered = asyncio.Event()

    async def read(self) -> bytes | None:
        if len(self.frames) < self.all:
            await self.answered.wait()
        return await super().read()

    async def write(self, data: bytes) -> None:
        await super().write(data)
        self.answered.set()


class Province:
    def __init__(self, folder: Path) -> None:
        self.app = App.init_province(folder / "13", configuration(), node="13", name="x", domain="hebei")
        self.app.publish_catalog(shipped.catalog())
        self.guests = invite(self.app, 2)
        self.engine = Engine(self.app)

    async def serve(self, guest: Guest, *frames: bytes, line: type[Line] = Line) -> None:
        certificate = self.app.trust.directory.get(guest.node)
        assert certificate is not None
        await asyncio.wait_for(self.engine.serve_child(line(*frames), certificate.der), 60)

    async def close(self) -> None:
        await self.engine.stop()
        self.app.close()


async def test_regression_who_breaks_the_rules_again_and_again_is_not_served_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was let in as often as it came, each time with two transactions of the writer."""
    monkeypatch.setattr(pauses, "HOLD_S", 0.0)
    monkeypatch.setattr(pauses, "PAUSE_MS_MIN", pauses.PAUSE_MS_MAX)  # it is over on no slow machine
    province = Province(tmp_path)
    thief, honest = province.guests
    for _ in range(FREE + 1):
        await province.serve(thief, b"no frame")
    with pytest.raises(Unavailable, match="FN-4508") as caught:
        await province.serve(thief, wire.encode(1, thief.hello()))
    assert PAUSE_MS_MIN <= caught.value.retry_after_ms <= PAUSE_MS_MAX
    assert not province.engine._door._held
    await province.serve(honest, wire.encode(1, honest.hello()))
    await province.close()


async def test_regression_who_refuses_what_it_was_never_sent_is_not_heard_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """25 thieves who did nothing else had half of the writer's time."""
    monkeypatch.setattr(pauses, "HOLD_S", 0.0)
    monkeypatch.setattr(lanes, "ASIDE", 1.0)  # it is not what is tested that the doubted wait
    monkeypatch.setattr(shares, "SHARE_DOUBTED", 1.0)
    monkeypatch.setattr(pauses, "PAUSE_MS_MIN", pauses.PAUSE_MS_MAX)  # it is over on no slow machine
    province = Province(tmp_path)
    thief, _ = province.guests
    refusals = [wire.encode(n, wire.Ack((wire.Outcome(n, None, "FN-6406"),))) for n in range(2, 4 * REFUSED_MAX)]
    for _ in range(FREE + 1):
        await province.serve(thief, wire.encode(1, thief.hello()), *refusals, line=Greeted)
    with pytest.raises(Unavailable, match="FN-4508"):
        await province.serve(thief, wire.encode(1, thief.hello()))
    await province.close()


async def test_regression_what_is_refused_is_a_doubt(tmp_path: Path) -> None:
    """50 thieves whose commits were all refused came as often as 20 honest children, each: these waited for seconds."""
    province = Province(tmp_path)
    thief, honest = province.guests
    data = b"no segment"
    junk = [wire.encode(n, wire.Chunk(n, 0, data, len(data), hash_of(data))) for n in range(2, 4 + DOUBTED)]
    refusals = [wire.encode(n, wire.Ack((wire.Outcome(n, None, "FN-6406"),))) for n in range(2, 4 + DOUBTED)]
    wants = [wire.encode(n, wire.Want(str(thief.state.name), n)) for n in range(2, 4 + DOUBTED)]
    doubts = province.engine.doubts
    await province.serve(honest, wire.encode(1, honest.hello()))
    for frames in (junk, refusals, wants, [b"no frame"]):
        doubts._amiss.clear()
        await province.serve(thief, wire.encode(1, thief.hello()), *frames, line=Greeted)
        assert doubts.doubted(thief.node)
    assert not doubts.doubted(honest.node)
    await province.close()


def test_what_counts_as_refused_and_as_kept() -> None:
    done = [Done(1, at=1), Done(2, refused="FN-6406"), Done(3, refused=FOLLOWS), Done(4, gap=wire.Want("x", 1))]
    assert judged(done) == (1, 1)
    assert judged([wire.Outcome(1, None, "FN-6406"), wire.Outcome(2, None)]) == (1, 1)


def test_when_more_was_refused_than_was_sent() -> None:
    assert not never_sent(REFUSED_MAX, 0)
    assert never_sent(REFUSED_MAX + 1, 0)
    assert not never_sent(REFUSED_MAX + 20, 10), "all that it was sent, twice, and some of before"
    assert never_sent(REFUSED_MAX + 21, 10)


async def test_who_hangs_up_after_its_greeting_is_served_as_often_as_it_comes(tmp_path: Path) -> None:
    province = Province(tmp_path)
    honest, _ = province.guests
    for _ in range(2 * FREE + 2):
        await province.serve(honest, wire.encode(1, honest.hello()))
    await province.close()
