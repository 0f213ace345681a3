"""Turns: 5,000 children whose window opens at the same minute, in virtual time; and what must hold whatever they do."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.node import turns
from fednode.node.turns import (
    ADMITTING_MAX,
    DOUBTED_MAX,
    LET_IN_MS_MAX,
    OF_ONE_MAX,
    RETRY_MS_MAX,
    RETRY_MS_MIN,
    Turns,
    Wait,
)
from night import Child, Night, village

CHILDREN = 5_000


def test_five_thousand_children_at_two_in_the_morning_are_all_served() -> None:
    rng = random.Random(1)
    children = {village(n): Child(rng.choice((500, 2_000, 8_000))) for n in range(CHILDREN)}
    night = Night(200, 60_000, children)
    night.run(3_600_000)
    assert night.all_done()
    assert night.most == 200
    assert night.most_admitting <= ADMITTING_MAX
    assert night.most_waiting <= CHILDREN
    last_ms = max(child.done_ms for child in children.values())
    work_ms = sum(child.work_ms + night.let_in_ms for child in children.values())
    assert last_ms <= 2 * work_ms / 200 + 30_000  # seats are not left empty for long
    assert night.asks <= 6 * CHILDREN  # nobody hammers
    assert night.turns.waiting == 0


def test_regression_who_stays_when_it_is_done_keeps_nobody_from_being_served() -> None:
    """Each that gave up a seat stood in the queue once more: a seat was kept free for it, and others were sent away to
    make room for it, 4,977 of 5,000 in the end."""
    rng = random.Random(1)
    children = {village(n): Child(rng.choice((500, 2_000)), stays=True) for n in range(5_000)}
    night = Night(2_000, 60_000, children)
    night.run(3_600_000)
    assert night.all_done()
    assert max(child.done_ms for child in children.values()) <= 13_000
    assert night.turns.taken == 2_000, "nobody is sent away whose seat nobody wants"
    assert night.turns.waiting == 0


def test_regression_a_slow_beginning_is_not_taken_for_how_it_goes_on() -> None:
    """In the rush of 5,000 handshakes letting in took seconds: those who were sent away were told to come minutes
    later, to a node that had nothing to do by then."""
    one = Turns(10_000, 60_000)
    for n in range(200):
        seat = one.ask(f"{n}", 0)
        assert isinstance(seat, int)
        one.let_in(seat, 5_000)
    for n in range(ADMITTING_MAX):
        one.ask(f"slow {n}", 5_000)
    waits = [one.ask(f"w{n}", 5_000) for n in range(1_000)]
    assert isinstance(waits[-1], Wait)
    assert waits[-1].retry_ms <= 1_000 * LET_IN_MS_MAX / ADMITTING_MAX


def test_regression_free_seats_are_not_kept_for_those_who_are_late() -> None:
    """In the rush of 5,000 those who were due came late, for nobody had the processor: newcomers were sent away and
    sessions ended, with a thousand seats free. 1,764 were served after 101 s, where with 6,000 seats all were after
    91."""
    one = Turns(2_000, 60_000)
    for n in range(900):
        seat = one.ask(f"here {n}", 0)
        assert isinstance(seat, int)
        one.let_in(seat, 200)
    being_let_in = [one.ask(f"now {n}", 300) for n in range(ADMITTING_MAX)]
    waits = [one.ask(f"late {n}", 300) for n in range(3_000)]
    assert all(isinstance(turn, Wait) for turn in waits)
    for turn in being_let_in:
        assert isinstance(turn, int)
        one.let_in(turn, 400)
    now_ms = 300 + max(turn.retry_ms for turn in waits if isinstance(turn, Wait))
    assert one.over(now_ms, lambda _seat: True) == []
    assert isinstance(one.ask("newcomer", now_ms), int)
    assert isinstance(one.ask("late 2999", now_ms), int)


def test_who_gives_up_a_seat_at_which_nothing_moved_has_no_number() -> None:
    one = Turns(1, 60_000)
    seat = one.ask("still", 0)
    assert isinstance(seat, int)
    one.let_in(seat, 0)
    told = one.ask("next", 10_000)
    assert isinstance(told, Wait)
    ((ended, retry_ms),) = one.over(10_000 + told.retry_ms, lambda _seat: True)
    assert ended == seat
    assert retry_ms >= RETRY_MS_MIN
    assert one.waiting == 1


def test_endless_backlogs_delay_nobody_for_long() -> None:
    """A hundred children with more to say than a night takes hold every seat; each gives it up after a quantum."""
    children = {village(n): Child(1_000, endless=n < 100) for n in range(600)}
    night = Night(50, 20_000, children)
    night.run(1_800_000)
    assert night.all_done()
    waits = [child.seated_ms - child.first_ms for child in children.values() if not child.endless]
    assert max(waits) <= (600 // 50 + 2) * 20_000 + turns.GRACE_MS
    assert sum(waits) / len(waits) < 120_000
    assert night.most == 50


def test_who_has_waited_longer_is_seated_first() -> None:
    one = Turns(1, 60_000)
    assert one.ask("a", 0) == 1
    first, second = one.ask("b", 10), one.ask("c", 20)
    assert isinstance(first, Wait)
    assert isinstance(second, Wait)
    assert first.retry_ms < second.retry_ms  # it grows with the queue
    one.leave(1, 60_000)
    due_ms = 20 + second.retry_ms
    assert isinstance(one.ask("d", due_ms), Wait)  # a newcomer
    assert isinstance(one.ask("c", due_ms), Wait)  # b is due, and was before
    assert one.ask("b", due_ms) == 2


def test_who_does_not_come_in_time_loses_its_place() -> None:
    one = Turns(1, 60_000)
    one.ask("a", 0)
    told = one.ask("b", 0)
    assert isinstance(told, Wait)
    one.leave(1, 1_000)
    late_ms = 2 * told.retry_ms + turns.GRACE_MS
    assert isinstance(one.ask("c", late_ms), Wait)
    assert one.ask("c", late_ms + 1) == 2
    assert one.waiting == 0


def test_a_seat_is_given_up_only_for_somebody_who_is_due() -> None:
    one = Turns(2, 60_000)
    for name in ("a", "b"):
        seat = one.ask(name, 0)
        assert isinstance(seat, int)
        one.let_in(seat, 10)
    assert one.over(10**9, lambda _seat: True) == []
    told = one.ask("c", 0)
    assert isinstance(told, Wait)
    assert one.over(0, lambda _seat: True) == []  # it is not due yet, and they have just begun
    assert one.over(told.retry_ms, lambda _seat: False) == []  # they move, and have had no quantum
    (ended,) = one.over(told.retry_ms, lambda seat: seat == 2)  # one is quiet: that one
    assert ended[0] == 2
    assert one.over(told.retry_ms, lambda seat: seat == 2) == []  # it is ending already
    one.leave(2, told.retry_ms + 5)
    assert one.ask("c", told.retry_ms + 10) == 3


def test_the_longest_gives_up_its_seat_first() -> None:
    one = Turns(2, 60_000)
    for name, at_ms in (("a", 0), ("b", 5)):
        seat = one.ask(name, at_ms)
        assert isinstance(seat, int)
        one.let_in(seat, at_ms)
    told = one.ask("c", 100_000 - 9_000)
    assert isinstance(told, Wait)
    assert [seat for seat, _ in one.over(100_000, lambda _seat: False)] == [1]


def test_a_busy_session_stays_until_its_quantum() -> None:
    one = Turns(1, 60_000)
    one.ask("a", 0)
    one.let_in(1, 0)
    one.ask("b", 0)
    one.ask("b", 45_000)  # due ten seconds later
    assert one.over(59_999, lambda _seat: False) == []
    assert [seat for seat, _ in one.over(60_000, lambda _seat: False)] == [1]


def test_regression_who_is_doubted_keeps_nobody_else_from_being_let_in() -> None:
    """Thieves who connected and said nothing had all places of those who are being let in, for 15 s each time."""
    one = Turns(10_000, 60_000)
    thieves = [one.ask(f"thief{n}", 0, doubted=True) for n in range(DOUBTED_MAX + 20)]
    assert [isinstance(turn, int) for turn in thieves] == [True] * DOUBTED_MAX + [False] * 20
    honest = [one.ask(f"{n}", 0) for n in range(ADMITTING_MAX - DOUBTED_MAX)]
    assert all(isinstance(turn, int) for turn in honest)
    assert isinstance(one.ask("late", 0), Wait)
    assert isinstance(thieves[0], int)
    one.leave(thieves[0], 1_000)
    assert one.admitting == ADMITTING_MAX - 1
    assert isinstance(one.ask("thief9", 1_000, doubted=True), int), "and comes as soon as there is a place of theirs"


def test_one_child_has_three_sessions_at_most() -> None:
    one = Turns(100, 60_000)
    seats = [one.ask("a", 0) for _ in range(OF_ONE_MAX + 1)]
    assert seats[:OF_ONE_MAX] == [1, 2, 3]
    assert isinstance(seats[-1], Wait)
    one.leave(2, 0)
    assert one.ask("a", 0) == 4


@pytest.mark.parametrize("over", [0, 1])
def test_who_is_being_let_in_is_limited(over: int) -> None:
    one = Turns(10_000, 60_000)
    for n in range(ADMITTING_MAX - 1 + over):
        assert isinstance(one.ask(village(n), 0), int)
    assert isinstance(one.ask("x", 0), Wait if over else int)


@pytest.mark.parametrize("over", [0, 1])
def test_the_queue_is_limited(monkeypatch: pytest.MonkeyPatch, over: int) -> None:
    monkeypatch.setattr(turns, "WAITING_MAX", 20)
    one = Turns(1, 60_000)
    one.ask("a", 0)
    for n in range(19 + over):
        one.ask(village(n), 0)
    told = one.ask("x", 0)
    assert one.waiting == 20
    assert (told == Wait(RETRY_MS_MAX)) is bool(over)


STEPS = st.lists(
    st.tuples(st.sampled_from(["ask", "let_in", "leave", "over", "pass"]), st.integers(0, 11), st.integers(0, 90_000)),
    max_size=120,
)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 5), STEPS)
def test_whatever_they_do_the_seats_are_as_many_and_the_books_agree(seats: int, steps: list[Any]) -> None:
    one, now_ms = Turns(seats, 20_000), 0
    open_seats: dict[int, str] = {}
    for what, number, more_ms in steps:
        if what == "pass":
            now_ms += more_ms
        elif what == "ask":
            got = one.ask(f"n{number}", now_ms)
            if isinstance(got, int):
                open_seats[got] = f"n{number}"
            else:
                assert turns.RETRY_MS_MIN <= got.retry_ms <= RETRY_MS_MAX
        elif open_seats and what in ("let_in", "leave"):
            seat = sorted(open_seats)[number % len(open_seats)]
            if what == "let_in":
                one.let_in(seat, now_ms)
            else:
                one.leave(seat, now_ms)
                one.leave(seat, now_ms)  # twice is once
                del open_seats[seat]
        elif what == "over":
            given_up = [seat for seat, _ in one.over(now_ms, lambda seat: seat % 2 == 0)]
            assert set(given_up) <= set(open_seats)
        assert one.taken == len(open_seats) <= seats
        assert 0 <= one.admitting <= one.taken
        assert one._numbers == sorted(one._numbers) == [ticket.number for ticket in one._waiting.values()]
    for seat in list(open_seats):
        one.leave(seat, now_ms)
    assert (one.taken, one.admitting, one._of) == (0, 0, {})
    # whoever was told to wait and does not come again blocks nobody for ever
    assert isinstance(one.ask("newcomer", now_ms + 2 * RETRY_MS_MAX + turns.GRACE_MS + 1), int)
