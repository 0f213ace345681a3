"""How nodes are: what is rounded, what it looks like on the wire, to whom it is told and when."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.proto import fednode_pb2 as pb
from fednode.sync import health, wire, wire_health
from fednode.sync.effects import HearHealth, PullHealth
from fednode.sync.errors import PeerError
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen, settle, settle_about, settle_load
from fednode.sync.states import State
from fednode.sync.versions import Versions
from sides import NOW, Side, broken, item, pair
from sides import settle as both_settle

VECTORS = Path(__file__).parent / "vectors"
EPOCH = 0x5EED0001
LOAD = Load(1_204, 3, 482_113, 1_780_000_000, 1, 2, 1, 40, 1_780_000_100)
ABOUT = About("0.2.0", 7, 11_264, 30_720, -1_250, True, 1_811_536_000, 1_779_000_000, "FN-6422")
OWN = HealthEntry("", 1, None, wire_health.load_bytes(LOAD), wire_health.about_bytes(ABOUT))
BELOW = HealthEntry("130102001001", 2, Seen(1_780_000_123, up=True))
FRAME = Health(HealthPlace(EPOCH, 42), (OWN, BELOW))


def report(upto: int, *nodes: str) -> Health:
    entries = tuple(HealthEntry(one, seen=Seen(NOW // 1000) if one else None, load=b"") for one in nodes or ("",))
    return Health(HealthPlace(EPOCH, upto), entries)


# ---------------------------------------------------------------- values


def test_what_moves_all_the_time_is_seldom_news_and_whether_there_is_any_always() -> None:
    assert settle_load(Load(changes=1600, bytes=32_000), Load(changes=1700, bytes=33_000)) == Load(1600, bytes=32_000)
    assert settle_load(Load(changes=1600), Load(changes=1701)) == Load(changes=1701)
    assert settle_load(Load(changes=1600), Load()) == Load()
    assert settle_load(None, Load(changes=1)) == Load(changes=1)
    for exact in (Load(since_s=5), Load(alerts_critical=1), Load(alerts_warning=1), Load(standbys=1)):
        assert settle_load(Load(), exact) == exact
    before = About("0.2.0", 7, 16_000, 30_000, 200)
    assert settle_about(before, About("0.2.0", 7, 15_000, 30_000, 699)) == before
    assert settle_about(before, About("0.2.0", 7, 14_999, 30_000, 700)) == About("0.2.0", 7, 14_999, 30_000, 700)
    for exact_ in (About("0.2.1"), About("0.2.0", 8), About("0.2.0", unsure=True), About("0.2.0", fenced="FN-6422")):
        assert settle_about(About("0.2.0"), exact_) == exact_


@settings(derandomize=True, deadline=None)
@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=50))
def test_a_rounded_number_is_never_further_off_than_a_sixteenth(found: list[int]) -> None:
    said = 0
    for now in found:
        said = settle(said, now)
        assert abs(said - now) * 16 <= said
        assert (said == 0) == (now == 0)


# ---------------------------------------------------------------- bytes


def test_golden_bytes() -> None:
    """Frames on the wire, and parts that lie in relays: they change with a new number of the hint, never in place."""
    golden = json.loads((VECTORS / "health.json").read_text("utf-8"))
    assert golden == {
        "frame": wire.encode(3, FRAME).hex(),
        "greeting": wire_health.place_out(HealthPlace(EPOCH, 42)).SerializeToString().hex(),  # type: ignore[union-attr]
        "load": wire_health.load_bytes(LOAD).hex(),
        "about": wire_health.about_bytes(ABOUT).hex(),
    }
    assert wire.decode(bytes.fromhex(golden["frame"])) == (3, FRAME)
    assert wire_health.read_load(bytes.fromhex(golden["load"])) == LOAD
    assert wire_health.read_about(bytes.fromhex(golden["about"])) == ABOUT


def test_what_it_costs_in_bytes() -> None:
    """A node's own report with every number there is, one as most are, and what alone moves with a short session."""
    full = wire.encode(9, Health(HealthPlace(EPOCH, 42), (OWN,)))
    assert len(full) <= 100
    usual = Health(HealthPlace(EPOCH, 42), (HealthEntry("", load=wire_health.load_bytes(Load(0)), about=None),))
    assert len(wire.encode(9, usual)) <= 20
    backlog = wire_health.load_bytes(Load(12, 1, 4_000, 1_780_000_000))
    assert len(wire.encode(9, Health(HealthPlace(EPOCH, 42), (HealthEntry("", load=backlog),)))) <= 36
    seen = HealthEntry("130102001001", seen=Seen(1_780_000_123))
    one, two = (len(wire.encode(9, Health(HealthPlace(EPOCH, 42), (seen,) * n))) for n in (1, 2))
    assert two - one <= 26  # each village more, at each hop
    greeted = len(wire.encode(1, wire.Hello("13", (), NOW, bytes(16), health=HealthPlace(EPOCH, 100_000))))
    assert greeted - len(wire.encode(1, wire.Hello("13", (), NOW, bytes(16)))) <= 12


def test_what_a_newer_program_says_is_passed_on_and_passed_over() -> None:
    newer = wire_health.load_bytes(LOAD) + b"\xf8\x06\x07"  # field 111
    entry = HealthEntry("130102001001", load=newer)
    _, came = wire.decode(wire.encode(1, Health(HealthPlace(1, 1), (entry,))))
    assert isinstance(came, Health)
    assert came.entries[0].load == newer
    assert wire_health.read_load(newer) == LOAD


def test_the_limits() -> None:
    def came(*entries: HealthEntry) -> None:
        wire.decode(wire.encode(1, Health(HealthPlace(1, 1), entries)))

    size = health.PART_BYTES_MAX
    most = HealthEntry("x" * 64, 2, Seen(1 << 40, up=True), bytes(size), None)
    came(*(most,) * health.ENTRIES_MAX)
    for wrong in (
        (most,) * (health.ENTRIES_MAX + 1),
        (HealthEntry("x" * 65),),
        (HealthEntry("x", load=bytes(size + 1)),),
        (HealthEntry("x", about=bytes(size + 1)),),
        (HealthEntry("x", seen=Seen((1 << 40) + 1)),),
    ):
        with pytest.raises(PeerError, match="FN-5502"):
            came(*wrong)
    huge = pb.Frame(number=1, health=pb.Health(epoch=1, upto=1 << 63))
    with pytest.raises(PeerError, match="FN-5502"):
        wire.decode(huge.SerializeToString())
    for read in (wire_health.read_load, wire_health.read_about):
        with pytest.raises(PeerError, match="FN-5502"):
            read(b"\xff")
    with pytest.raises(PeerError, match="FN-5502"):
        wire_health.read_load(pb.HealthLoad(changes=1 << 63).SerializeToString())


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=60))
def test_a_part_is_read_or_refused(data: bytes) -> None:
    for read in (wire_health.read_load, wire_health.read_about):
        try:
            read(data)
        except PeerError as error:
            assert error.code == "FN-5502"  # noqa: PT017 - either is right


# ---------------------------------------------------------------- to whom


def told(
    *reports: Health, child: Any = None, parent: Any = None, up: Any = (), once: bool = False
) -> tuple[Side, Side]:
    """A child with reports, and a parent that takes them, settled."""
    sides = pair(
        up,
        child={"reports": reports, "once": once, **(child or {})},
        parent={"health": HealthPlace(), **(parent or {})},
    )
    both_settle(*sides)
    return sides


def tick(side: Side, after_ms: int = 5_000) -> None:
    side.now_ms = NOW + after_ms
    side.do(side.exchange.tick(side.now_ms))


@pytest.mark.parametrize("how", ["the parent does not say it", "the parent is of version 1", "the driver does not"])
def test_who_does_not_take_it_is_told_nothing_and_the_session_goes_on(how: str) -> None:
    child, parent = {
        "the parent does not say it": ({}, {"health": None}),
        "the parent is of version 1": ({}, {"speaks": Versions(1, 1), "version_max": 1}),
        "the driver does not": ({"tells_health": False}, {}),
    }[how]
    one, other = told(report(3), child=child, parent=parent, once=True, up=[item(1)])
    assert not one.of(PullHealth)
    assert not one.messages(Health)
    assert other.held
    assert one.closed is not None
    assert one.closed.error is None


def test_a_parent_tells_its_child_nothing() -> None:
    child, parent = told()
    child.do(child.exchange.receive(wire.encode(child.exchange._received_number + 1, report(1)), NOW))
    broken(child, "FN-5504")
    assert not parent.of(PullHealth)


# ---------------------------------------------------------------- when


def test_a_short_session_tells_it_last_and_then_ends() -> None:
    child, parent = told(report(3), once=True, up=[item(1), item(2)])
    kinds = [type(one) for one in child.sent]
    assert kinds[-2:] == [Health, wire.Bye]
    assert parent.hearing == [report(3)]
    assert len(parent.held) == 2
    assert parent.closed is not None


def test_a_short_session_with_nothing_new_sends_no_byte_more() -> None:
    with_it, without = told(once=True), told(once=True, parent={"health": None})
    assert [type(one) for one in with_it[0].sent] == [type(one) for one in without[0].sent]
    known = told(report(3), once=True, parent={"health": HealthPlace(EPOCH, 3)})
    assert not known[0].messages(Health)


def test_an_open_session_tells_with_the_ticks_and_news_at_once() -> None:
    child, parent = told(report(3))
    assert not parent.hearing
    tick(child)
    both_settle(child, parent)
    assert parent.hearing == [report(3)]
    tick(child, 10_000)
    both_settle(child, parent)
    assert parent.hearing == [report(3)]
    child.reports.append(report(5, "130102001001"))
    child.do(child.exchange.news(NOW))
    both_settle(child, parent)
    assert parent.hearing[1:] == [report(5, "130102001001")]


def test_all_that_is_known_goes_in_as_many_frames_as_it_needs() -> None:
    child, parent = told(*(report(n, f"1301{n:02}") for n in range(1, 30)), once=True)
    assert [one.upto for one in parent.hearing] == list(range(1, 30))
    assert child.closed is not None


def test_it_costs_credit_and_without_credit_it_waits() -> None:
    many = [report(n, *(f"{n:04}{m:04}" for m in range(200))) for n in range(1, 60)]
    child, parent = told(*many, parent={"window": 100_000})
    tick(child)
    both_settle(child, parent)
    first = len(parent.hearing)
    assert 1 <= first < len(many)
    assert sum(one.cost for one in parent.hearing) < 100_000 + wire.CHUNK_BYTES_MAX
    for one in list(parent.hearing):
        parent.do(parent.exchange.folded(one, NOW))
    both_settle(child, parent)
    tick(child, 10_000)
    both_settle(child, parent)
    assert len(parent.hearing) > first


def test_a_child_that_sends_more_than_its_credit_is_refused() -> None:
    _child, parent = told(parent={"window": 1_000})
    for n in range(1, 20):
        if parent.exchange.state is State.CLOSED:
            break
        frame = wire.encode(parent.exchange._received_number + 1, report(n, *(f"{m:012}" for m in range(256))))
        parent.do(parent.exchange.receive(frame, NOW))
    broken(parent, "FN-5506")


def test_a_slow_driver_is_asked_once() -> None:
    child, _parent = told()
    child.exchange.news(NOW)
    assert child.exchange.news(NOW) == []
    assert not [one for one in child.exchange.tick(NOW + 5_000) if isinstance(one, PullHealth)]
    child.do(child.exchange.tell_health(None, NOW))
    assert [type(one) for one in child.exchange.news(NOW)] == [PullHealth]


def test_an_answer_that_comes_after_the_end_changes_nothing() -> None:
    child, parent = told(report(3))
    child.exchange.news(NOW)
    child.do(child.exchange.finish(NOW))
    both_settle(child, parent)
    assert child.exchange.tell_health(report(3), NOW) == []
    parent.do(parent.exchange.folded(report(3), NOW))
    assert not parent.of(HearHealth)
