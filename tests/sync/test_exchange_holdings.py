"""Whose cursor says nothing about the peer's store says what it holds; the peer waits for that (sync/side, rule 6)."""

from __future__ import annotations

from typing import Any

import pytest

from fednode.sync import side as sd
from fednode.sync import wire
from fednode.sync.effects import Alert, Compare, PullHoldings
from fednode.sync.states import State
from sides import NOW, Side, item, pair, settle

MET = wire.Cursor(bytes(16), 1)
OTHER = wire.Cursor(b"another store...", 7)
NEVER = wire.Cursor()


def entries(count: int) -> list[wire.Holding]:
    return [wire.Holding(f"hebei/13/1/log{number}", number + 1, bytes(8)) for number in range(count)]


def told(side: Side) -> list[wire.Holdings]:
    return list(side.messages(wire.Holdings))


@pytest.mark.parametrize("have", [NEVER, OTHER, wire.Cursor(bytes(16), 0)])
@pytest.mark.parametrize("who", ["child", "parent"])
def test_who_tells_and_who_waits(who: str, have: wire.Cursor) -> None:
    child, parent = pair([item(1)], [item(1)], **{who: {"have": have, "holdings": entries(3)}})
    settle(child, parent)
    tells, hears = (child, parent) if who == "child" else (parent, child)
    assert told(tells) == [wire.Holdings(tuple(entries(3)), True)]
    assert told(hears) == []
    assert hears.compared == entries(3)
    assert list(child.held) == list(parent.held) == [1]


def test_who_has_met_the_store_says_nothing() -> None:
    child, parent = pair([item(1)], [item(1)])
    settle(child, parent)
    assert (told(child), told(parent), child.of(PullHoldings), parent.of(PullHoldings)) == ([], [], [], [])


def test_the_feed_waits_for_the_answer() -> None:
    child, parent = pair([item(1)], parent={"have": NEVER, "holdings": entries(sd.wire.HOLDINGS_MAX + 1)})
    child.hold_comparison = True
    settle(child, parent)
    assert [len(one.entries) for one in told(parent)] == [sd.wire.HOLDINGS_MAX, 1]
    assert [one.last for one in told(parent)] == [False, True]
    assert [one.last for one in child.of(Compare)] == [False, True]
    child.do(child.exchange.wake(NOW))
    child.do(child.exchange.ready(1 << 20, NOW))
    assert (child.messages(wire.Chunk), child.messages(wire.Idle)) == ([], [])
    child.do(child.exchange.compared(NOW))
    settle(child, parent)
    assert list(parent.held) == [1]


def test_a_session_for_one_exchange_does_not_end_before_the_answer() -> None:
    child, parent = pair([item(1)], child={"once": True}, parent={"have": NEVER})
    child.hold_comparison = True
    settle(child, parent)
    assert child.closed is None
    child.do(child.exchange.compared(NOW))
    settle(child, parent)
    assert child.closed is not None
    assert child.closed.error is None


@pytest.mark.parametrize(
    "given",
    [
        {"child": {"have": NEVER}, "parent": {"version_max": 1}},
        {"child": {"have": NEVER, "restore": True}},
        {"child": {"have": NEVER, "wants": False}},
        {"child": {"have": NEVER}, "parent": {"feeds": False}},
    ],
)
def test_nobody_tells_where_nobody_would_listen(given: dict[str, Any]) -> None:
    child, parent = pair([item(1)], [item(1)], **given)
    settle(child, parent)
    assert told(child) == []
    assert parent.exchange.state is State.OPEN
    assert list(parent.held) == [1]


def refused(side: Side) -> list[str]:
    return [one.code for one in side.of(Alert)]


def hear(side: Side, *messages: wire.Message) -> None:
    for one in messages:
        number = side.exchange._received_number + 1
        side.do(side.exchange.receive(wire.encode(number, one), NOW))


def test_it_is_told_once_and_only_when_asked_for() -> None:
    child, parent = pair([item(1)])
    settle(child, parent)
    hear(child, wire.Holdings((), True))
    assert refused(child) == ["FN-5504"]
    child, parent = pair([item(1)], parent={"have": NEVER})
    child.hold_comparison = True
    settle(child, parent)
    hear(child, wire.Holdings((), True))
    assert refused(child) == ["FN-5504"]


@pytest.mark.parametrize(("more", "codes"), [(0, []), (1, ["FN-5504"])])
def test_how_many_logs_a_peer_may_name(monkeypatch: pytest.MonkeyPatch, more: int, codes: list[str]) -> None:
    monkeypatch.setattr(sd, "LOGS_MAX", 5)
    child, parent = pair([item(1)], parent={"have": NEVER, "holdings": entries(5 + more)})
    settle(child, parent)
    assert refused(child) == codes


@pytest.mark.parametrize(
    ("holdings", "fine"),
    [
        (wire.Holdings(tuple(entries(wire.HOLDINGS_MAX)), True), True),
        (wire.Holdings(tuple(entries(wire.HOLDINGS_MAX + 1)), True), False),
        (wire.Holdings((wire.Holding("x" * wire.LOG_CHARACTERS_MAX, wire.NUMBER_MAX, bytes(8)),), True), True),
        (wire.Holdings((wire.Holding("x" * (wire.LOG_CHARACTERS_MAX + 1), 1, bytes(8)),), True), False),
        (wire.Holdings((wire.Holding("x", wire.NUMBER_MAX + 1, bytes(8)),), True), False),
        (wire.Holdings((wire.Holding("x", 1, bytes(7)),), True), False),
    ],
)
def test_limits_of_one_frame(holdings: wire.Holdings, fine: bool) -> None:
    data = wire.encode(1, holdings)
    if fine:
        assert wire.decode(data) == (1, holdings)
        return
    with pytest.raises(wire.PeerError, match="FN-5502"):
        wire.decode(data)
