"""The token bucket: never more than it allows, and never stuck."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fednode.sync.bucket import STEP_S, Bucket

PIECES = st.lists(st.tuples(st.integers(1, 5000), st.floats(0, 3)), min_size=1, max_size=60)


@given(st.integers(300, 10**6), st.integers(1, 10_000), PIECES)
def test_over_any_span_no_more_goes_than_the_rate_and_the_burst(rate: int, burst: int, pieces: list[Any]) -> None:
    bucket, now_s = Bucket(rate, burst), 0.0
    went: list[tuple[float, int]] = []
    for size, rest_s in pieces:
        now_s += rest_s
        while wait_s := bucket.wait_s(size, now_s):
            now_s += wait_s
        went.append((now_s, size))
    for i, (start_s, _) in enumerate(went):
        total = 0
        for at_s, size in went[i:]:
            assert total <= rate * (at_s - start_s) + burst + max(size for _, size in went) + 1
            total += size


@given(st.integers(300, 10**6), st.integers(1, 10_000), st.integers(1, 10**7))
def test_what_is_larger_than_the_burst_goes_and_is_paid_for(rate: int, burst: int, size: int) -> None:
    bucket = Bucket(rate, burst)
    assert bucket.wait_s(size, 5.0) == 0.0
    wait_s = bucket.wait_s(1, 5.0)
    if size > burst:
        assert abs(wait_s - (size - burst + 1) / rate) < 0.01 + wait_s / 1000
        assert bucket.wait_s(1, 5.0 + wait_s + 2 * STEP_S) == 0.0


def test_a_clock_that_is_set_back_gives_and_takes_nothing() -> None:
    bucket = Bucket(1000, 100)
    assert bucket.available(100.0) == 100
    bucket.take(60)
    assert bucket.available(-5000.0) == 40
    assert bucket.available(-4999.99) == 50


def test_a_rest_is_saved_up_to_the_burst() -> None:
    bucket = Bucket(1000, 100)
    bucket.take(bucket.available(0.0))
    assert [bucket.available(0.0), bucket.available(0.05), bucket.available(1e9)] == [0, 50, 100]
