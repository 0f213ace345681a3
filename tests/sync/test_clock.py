"""Clocks: stamps never go back, a clock in 2036 wins nothing, a child's clock does not carry its parent's away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.sync import clock
from fednode.sync.clock import HybridClock, bound, effective, lowest, milliseconds, stamp

NOW = 1_780_000_000_000
YEARS = 10 * 365 * 86_400_000
walls = st.integers(-(2**40), 2**43)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.lists(st.tuples(walls, st.integers(1, 5), st.integers(0, 2**60)), max_size=30))
def test_stamps_rise_whatever_the_wall_clock_does(steps: list[tuple[int, int, int]]) -> None:
    """Ahead, back, standing still, negative; singly, in runs, and after what was seen."""
    own = HybridClock()
    last = 0
    for wall, count, seen in steps:
        for one in own.run(wall, count):
            assert one > last
            last = one
        own.observe(seen)
        last = max(last, seen)
        one = own.next(wall)
        assert one > last
        assert milliseconds(one) >= max(wall, 0)
        last = one


def test_stamps_go_on_over_a_restart_with_a_clock_set_back() -> None:
    before = HybridClock()
    last = list(before.run(NOW, 1000))[-1]
    after = HybridClock(before.last)
    assert after.next(NOW - YEARS) == last + 1


def test_a_stamp_is_time_and_counter() -> None:
    assert milliseconds(stamp(NOW, 7)) == NOW
    assert stamp(NOW, 7) == (NOW << 16) + 7
    assert stamp(NOW, clock.COUNTER_MAX) + 1 == stamp(NOW + 1)


def test_regression_a_broken_clock_makes_stamps_that_fit() -> None:
    """In the year 9999, or at whatever a peer says the time is (64 bits), the stamp was larger than SQLite takes."""
    for wall in (253_402_300_799_999, 2**64 - 1):
        own = HybridClock()
        assert own.next(wall) < own.run(wall, 3)[0] < clock.STAMP_MAX // 2


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 2**62), st.none() | st.integers(0, 2**62))
def test_the_effective_stamp_is_the_earlier(hlc: int, limit: int | None) -> None:
    assert effective(hlc, limit) == (hlc if limit is None else min(hlc, limit))
    assert lowest([limit, None, hlc]) == effective(hlc, limit)
    assert lowest([]) is lowest([None]) is None


@settings(max_examples=200, derandomize=True, deadline=None)
@given(walls, walls, st.integers(0, 2**46))
def test_a_witness_signs_no_earlier_than_what_it_has_seen(wall: int, later: int, ahead_ms: int) -> None:
    """So what its author made after seeing another still beats it, once both are bounded."""
    parent = HybridClock()
    seen = parent.next(wall)
    parent.observe(stamp(ahead_ms))
    time_s = parent.witness_time(later)
    assert bound(time_s) >= max(seen, stamp(ahead_ms), parent.last)
    assert time_s * 1000 >= later


def test_a_child_far_in_the_future_moves_its_parent_by_a_second_at_most() -> None:
    """The parent cosigns with its own time, clamps, and only then observes."""
    parent = HybridClock()
    child = HybridClock()
    moved = []
    for i in range(50):
        hlc = child.next(NOW + YEARS + i)
        time_s = parent.witness_time(NOW + i, hlc)
        parent.observe(effective(hlc, bound(time_s)))
        moved.append(milliseconds(parent.last) - (NOW + i))
    assert max(moved) <= 1000


def test_what_was_made_after_seeing_another_beats_it() -> None:
    """A village in 2036 writes; the county sees it (bounded) and corrects it: the correction wins everywhere."""
    village, county = HybridClock(), HybridClock()
    wrong = village.next(NOW + YEARS)
    time_s = county.witness_time(NOW)
    shown = effective(wrong, bound(time_s))
    county.observe(shown)
    right = county.next(NOW + 1)
    assert right > shown
    assert effective(right, bound(county.witness_time(NOW + 2))) > shown


@pytest.mark.parametrize("ahead_ms", [-5, 13_000])
def test_regression_what_followed_a_bounded_stamp_is_not_bounded_to_the_same(ahead_ms: int) -> None:
    """Simulator, seed 6003: a village in 2033, bounded; the county sees that and corrects it. The city cosigned both
    with the same second: a tie, which the village's clock won. `small`, seed 300: so it was where the county's clock
    was 13 s ahead of the city's."""
    village, county, city = HybridClock(), HybridClock(), HybridClock()
    wrong = village.next(NOW + YEARS)
    shown = effective(wrong, bound(village_s := county.witness_time(NOW - 10, wrong)))
    county.observe(shown)
    right = county.next(NOW + ahead_ms)
    city.observe(shown)
    time_s = city.witness_time(NOW - 20, right)
    assert effective(right, bound(time_s)) > effective(wrong, bound(village_s))


def test_stamps_that_follow_closely_move_a_witness_by_five_minutes_at_most() -> None:
    parent = HybridClock()
    for _ in range(1000):
        hlc = bound(parent.witness_time(NOW)) + 1  # a child that stamps right after whatever its parent would sign
        parent.observe(effective(hlc, bound(parent.witness_time(NOW, hlc))))
    assert milliseconds(parent.last) - NOW == clock.SKEW_MS_MAX, "as far as it may, and no further"
    late = stamp(NOW + YEARS)
    assert effective(late, bound(parent.witness_time(NOW, late))) <= bound((NOW + clock.SKEW_MS_MAX) // 1000 + 1)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(walls, st.integers(0, 10_000), st.integers(-(2**40), 2**40), st.integers(0, 10_000))
def test_the_offset_is_right_to_half_the_round_trip(sent: int, out_ms: int, off: int, back_ms: int) -> None:
    remote = sent + out_ms + off
    received = sent + out_ms + back_ms
    assert abs(clock.offset(sent, received, remote) - off) <= (out_ms + back_ms) // 2 + 1
