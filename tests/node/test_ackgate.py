"""What waits for a standby before children are told (node/ackgate.py): each rule, without a clock."""

from __future__ import annotations

import pytest

from fednode.node.ackgate import AckGate, Go, Standby
from fednode.sync import wire
from fednode.sync.effects import Done

WAIT_MS = 10_000


def lsns(found: list[Go]) -> dict[object, list[int]]:
    """Session -> what it may tell."""
    return {one.who: [done.lsn for done in one.reports] for one in found}


def test_an_outcome_waits_for_a_standby_and_goes_when_one_has_it() -> None:
    gate = AckGate(WAIT_MS, hold=True)
    assert gate.take("a", [Done(1, at=10), Done(2, at=11)], 0) == []
    assert gate.take("b", [Done(1, at=12)], 0) == []
    assert lsns(gate.reached("s1", 10)) == {"a": [1]}
    assert gate.reached("s2", 9) == []
    assert lsns(gate.reached("s2", 12)) == {"a": [2], "b": [1]}
    assert gate.take("a", [Done(3, at=12)], 0) == [Done(3)]


def test_refusals_and_gaps_wait_for_nobody() -> None:
    gate = AckGate(WAIT_MS, hold=True)
    free = [Done(1, refused="FN-6406"), Done(2, gap=wire.Want("log", 0))]
    assert gate.take("a", [*free, Done(3, at=1)], 0) == free


def test_what_a_standby_has_refused_it_does_not_hold() -> None:
    gate = AckGate(WAIT_MS, hold=True)
    gate.take("a", [Done(1, at=10), Done(2, at=11)], 0)
    assert lsns(gate.reached("s1", 11, refused=[10])) == {"a": [2]}
    assert gate.reached("s1", 50) == []
    assert lsns(gate.reached("s2", 10)) == {"a": [1]}


@pytest.mark.parametrize(("now_ms", "away"), [(WAIT_MS - 1, False), (WAIT_MS, True)])
def test_a_standby_is_away_after_the_wait_and_not_before(now_ms: int, away: bool) -> None:
    gate = AckGate(WAIT_MS, hold=True)
    gate.take("a", [Done(1, at=10)], 0)
    due = gate.due(now_ms)
    assert (gate.away, due.ends) == (away, ["a"] if away else [])
    assert due.go == []


def test_hold_gives_nothing_until_a_standby_has_it() -> None:
    gate = AckGate(WAIT_MS, hold=True)
    gate.take("a", [Done(1, at=10)], 0)
    gate.due(WAIT_MS)
    gate.forget("a")  # its session was ended; it comes again, and has not heard of it
    gate.owe("a2", 10, WAIT_MS)
    assert gate.may(10)(10) is False
    assert gate.reached("s1", 9) == []
    assert gate.away
    assert [(one.who, one.reports, one.unheard) for one in gate.reached("s1", 10)] == [("a2", [], True)]
    assert not gate.away
    assert gate.may(10)(10) is True


def test_regression_nothing_is_told_before_what_was_sent_before_the_session() -> None:
    """Simulator (promoting, seed 21): an outcome of a later thing was told first, the line was cut right after, and its
    sender took all before it for told: the cosignatures of that never came."""
    gate = AckGate(WAIT_MS, hold=True)
    gate.reached("s1", 8)
    gate.owe("a", 10, 0)
    want = wire.Want("log", 0)
    assert gate.take("a", [Done(5, at=7), Done(6, refused="FN-6406"), Done(7, gap=want)], 0) == [Done(7, gap=want)]
    assert gate.reached("s1", 9) == []
    assert gate.take("a", [Done(8, at=11)], 0) == []
    (go,) = gate.reached("s1", 10)
    assert (go.unheard, [one.lsn for one in go.reports]) == (True, [5, 6])
    assert lsns(gate.reached("s1", 11)) == {"a": [8]}


def test_alone_gives_everything_until_a_standby_has_all_that_was_given() -> None:
    gate = AckGate(WAIT_MS, hold=False)
    gate.take("a", [Done(1, at=10)], 0)
    assert lsns(gate.due(WAIT_MS).go) == {"a": [1]}
    assert gate.take("a", [Done(2, at=20)], WAIT_MS) == [Done(2)]
    assert gate.may(30)(30) is True  # a session that begins is told of all that it sent: now up to 30
    gate.reached("s1", 29)
    assert gate.alone
    gate.reached("s1", 30)
    assert not gate.alone
    assert gate.take("a", [Done(3, at=31)], WAIT_MS) == []


def test_what_a_standby_refuses_does_not_make_it_away() -> None:
    holding, alone = AckGate(WAIT_MS, hold=True), AckGate(WAIT_MS, hold=False)
    for gate in (holding, alone):
        gate.take("a", [Done(1, at=10)], 0)
        gate.reached("s1", 11, refused=[10])
    assert holding.due(WAIT_MS).ends == ["a"]
    assert lsns(alone.due(WAIT_MS).go) == {"a": [1]}
    assert not holding.away
    assert not alone.away


def test_a_standby_that_is_none_any_more_counts_for_nothing() -> None:
    gate = AckGate(WAIT_MS, hold=True, standbys={"s1": Standby(5), "s2": Standby(3)})
    assert gate.may(5)(5)
    gate.only(["s2"])
    assert not gate.may(5)(5)
    assert gate.may(5)(3)


def test_after_a_start_a_standby_that_was_away_still_is() -> None:
    gate = AckGate(WAIT_MS, hold=False, standbys={"s1": Standby(5)}, away=True, highest=9)
    assert gate.take("a", [Done(1, at=10)], 0) == [Done(1)]
    gate.reached("s1", 9)
    assert gate.alone  # it was given out since
    gate.reached("s1", 10)
    assert not gate.alone


def test_a_session_that_ended_is_told_nothing() -> None:
    gate = AckGate(WAIT_MS, hold=False)
    gate.take("a", [Done(1, at=10)], 0)
    gate.forget("a")
    assert gate.reached("s1", 10) == []
    assert gate.due(WAIT_MS).go == []
