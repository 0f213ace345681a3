"""node/follower: when records are made of what was stored, and what is done when nothing else is to be done."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest

from fednode.node import follower, heap
from fednode.node.follower import PROJECT_DELAY_S, PROJECT_DELAY_S_MAX, Lull


class Loop:
    """The part of an event loop that tells the time, which stands still until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._timers: list[Timer] = []

    def time(self) -> float:
        return self.now_s

    def call_at(self, when: float, call: Callable[[], None]) -> Timer:
        self._timers.append(Timer(when, call))
        return self._timers[-1]

    def to(self, now_s: float) -> None:
        """Let the time pass until then."""
        self.now_s = now_s
        due = [one for one in self._timers if one.when <= now_s]
        self._timers = [one for one in self._timers if one.when > now_s]
        for one in due:
            if not one.cancelled:
                one.call()


class Timer:
    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when, self.call, self.cancelled = when, call, False

    def cancel(self) -> None:
        self.cancelled = True


def test_what_follows_one_upon_the_other_is_waited_for_but_not_for_ever() -> None:
    """Regression: 20 ms after each change its records were made, in the middle of the next one's way to the parent."""
    loop: Any = Loop()
    woken: list[float] = []
    lull = Lull(loop, lambda: woken.append(loop.time()))
    lull.put_off()
    loop.to(PROJECT_DELAY_S / 2)
    lull.put_off()
    loop.to(PROJECT_DELAY_S)
    assert woken == []
    loop.to(PROJECT_DELAY_S * 1.5)
    assert woken == [PROJECT_DELAY_S * 1.5]
    start_s = loop.time()
    while len(woken) == 1:
        lull.put_off()
        loop.to(loop.time() + PROJECT_DELAY_S / 2)
    assert PROJECT_DELAY_S_MAX <= woken[1] - start_s <= PROJECT_DELAY_S_MAX + PROJECT_DELAY_S


def test_both_logs_are_brought_into_their_databases_when_nothing_else_is_to_be_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Regression: a commit that wrote the page too many did it, with the sender waiting."""
    brought: list[tuple[str, int]] = []
    monkeypatch.setattr(follower.sqlite, "checkpoint", lambda name, pages: brought.append((name, pages)))

    class Projector:
        """Nothing is to be done, twice; then the thread is to end."""

        connection, unclean, wakes = "state.db", 0, 0

        class store:
            connection, lsn = "log.db", 7

            @staticmethod
            def meta(_key: str, default: Any) -> Any:
                return default

        def nothing(self, **_: Any) -> bool:
            return False

        index_fields = index_text = nothing

    one: Any = follower.Follower.__new__(follower.Follower)
    one._stopping, one._busy = False, lambda: False
    one._step = one._clean = lambda _projector: False

    class Wanted:
        def clear(self) -> None: ...

        def wait(self, seconds: float | None = None) -> bool:
            one._stopping = seconds is None
            return seconds is None

    one._wanted = Wanted()
    one._follow(Projector())
    assert brought == [(name, follower.CHECKPOINT_PAGES_MIN) for name in ("log.db", "state.db")]


def test_the_collector_passes_over_what_a_daemon_has_made_until_it_is_ready() -> None:
    """Regression: it looked at all of it every thousand changes, 40 ms in the middle of one."""
    try:
        heap.settle()
        assert gc.get_freeze_count() > 1_000
    finally:
        heap.unsettle()
    assert gc.get_freeze_count() == 0
