"""What of the loop's time each child's messages have."""

from __future__ import annotations

from fednode.node.shares import BURST_DOUBTED_S, BURST_S, LOOK_S, PAUSE_S_MAX, READ_S, SHARE, SHARE_DOUBTED, Shares

STEP_S = 0.001


def test_a_little_at_once_is_nobody_s_business() -> None:
    shares = Shares()
    times = round(BURST_S / READ_S)
    assert [shares.spent("1301", 0.0, 0.0) for _ in range(times - 1)] == [0.0] * (times - 1)
    shares.spent("1301", 0.0, 0.0)
    assert 0 < shares.spent("1301", 0.0, 0.0) <= 1.1 * READ_S / SHARE


def test_who_is_doubted_has_next_to_nothing_at_once() -> None:
    """Regression: two hundred thieves who came again had 50 ms of the loop each before anybody held them back."""
    shares = Shares(lambda child: child == "thief")
    assert shares.spent("honest", BURST_S / 2, 0.0) == 0.0
    assert shares.spent("thief", 2 * BURST_DOUBTED_S, 0.0) > BURST_DOUBTED_S


def flooded(children: int, seconds: float) -> tuple[Shares, float, list[float]]:
    """Children who send without end, each of whose messages takes a millisecond. And the loop's time that they had,
    of each in the second half."""
    shares, now_s = Shares(), 0.0
    free, had = [0.0] * children, [0.0] * children
    while now_s < seconds:
        for child in range(children):
            if free[child] <= now_s:
                now_s += STEP_S
                if now_s > seconds / 2:
                    had[child] += STEP_S
                free[child] = now_s + shares.spent(f"{child}", STEP_S, now_s)
        now_s += STEP_S / 10
    return shares, now_s, had


def test_however_many_send_without_end_together_they_have_their_share() -> None:
    for children in (1, 10, 200):
        _, took_s, had = flooded(children, 30.0)
        assert 0.3 * took_s / 2 < sum(had) < (SHARE + 0.1) * took_s / 2, children
        assert max(had) <= 2.5 * max(min(had), STEP_S), children


def test_who_sends_now_and_then_is_read_at_once_whatever_others_send() -> None:
    shares, took_s, _ = flooded(200, 10.0)
    assert [shares.spent("honest", STEP_S, took_s + 0.05 * n) for n in range(1, 200)] == [0.0] * 199


def test_all_who_are_doubted_have_little_and_nothing_of_the_others_share() -> None:
    shares, now_s = Shares(lambda child: child.startswith("thief")), 0.0
    free, had = dict.fromkeys([*(f"thief{n}" for n in range(50)), "a", "b"], 0.0), {"thief": 0.0, "a": 0.0, "b": 0.0}
    while now_s < 60.0:
        for child in free:
            if free[child] <= now_s:
                now_s += STEP_S
                had[child.rstrip("0123456789")] += STEP_S if now_s > 30.0 else 0.0
                free[child] = now_s + shares.spent(child, STEP_S, now_s)
        now_s += STEP_S / 10
    assert had["thief"] < (SHARE_DOUBTED + 0.02) * 30
    assert min(had["a"], had["b"]) > 0.35 * SHARE * 30


def test_nobody_is_left_unread_for_longer_than_that() -> None:
    assert Shares().spent("1301", 3_600.0, 0.0) == PAUSE_S_MAX


def test_who_has_had_nothing_lately_is_forgotten() -> None:
    shares = Shares()
    for number in range(10_000):
        shares.spent(f"{number}", 0.0, 0.0)
    shares.spent("1301", 0.0, 1 + 2 * LOOK_S)
    assert shares.remembered == 1
