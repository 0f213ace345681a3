"""Of whom little good is expected, and for how long."""

from __future__ import annotations

from fednode.node.doubts import AMISS_MAX, BREACH, CHILDREN_MAX, DOUBTED, FORGIVEN_S, Doubts


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def test_some_refusals_make_a_doubt_and_what_is_kept_makes_up_for_them() -> None:
    doubts = Doubts(Clock())
    doubts.judged("1301", DOUBTED - 1, 0)
    assert not doubts.doubted("1301")
    doubts.judged("1301", 1, 0)
    assert doubts.doubted("1301")
    assert not doubts.doubted("1302")
    doubts.judged("1301", 0, 1)
    assert not doubts.doubted("1301")
    doubts.judged("1301", DOUBTED, DOUBTED), doubts.judged("1301", 0, AMISS_MAX)
    assert doubts.remembered == 0


def test_nobody_has_more_against_it_than_that_and_time_makes_up_for_it() -> None:
    clock = Clock()
    doubts = Doubts(clock)
    doubts.judged("1301", 1_000_000, 0)
    clock.now_s += (AMISS_MAX - DOUBTED) * FORGIVEN_S
    assert doubts.doubted("1301")
    clock.now_s += FORGIVEN_S
    assert not doubts.doubted("1301")
    doubts.judged("1302", BREACH, 0)
    assert doubts.doubted("1302")


def test_no_more_are_remembered_than_that() -> None:
    doubts = Doubts(Clock())
    for number in range(CHILDREN_MAX + 1):
        doubts.judged(f"{number}", DOUBTED, 0)
    assert doubts.remembered == CHILDREN_MAX
    assert not doubts.doubted("0")
    assert doubts.doubted(f"{CHILDREN_MAX}")
