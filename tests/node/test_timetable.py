"""Times of day: spans, zones, limits. A clock is never read: each test says what time it is."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.node.timetable import (
    DAY_MS,
    HOUR_MS,
    YEAR_MAX_MS,
    Timetable,
    Unreadable,
    parse_limit,
    parse_rate,
    parse_span,
    parse_zone,
    rate_at,
    rate_text,
)


def ms(text: str, zone: str = "Asia/Shanghai") -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def table(*spans: str, zone: str = "Asia/Shanghai") -> Timetable:
    return Timetable([parse_span(one) for one in spans], zone)


def test_no_span_is_always_open() -> None:
    assert Timetable(()).open_until(0) == YEAR_MAX_MS
    assert Timetable(()).next_open(0) is None


def test_a_window_begins_and_ends_at_its_minute() -> None:
    nightly = table("02:00-03:30")
    start, end = ms("2026-11-26T02:00"), ms("2026-11-26T03:30")
    assert nightly.open_until(start - 1) is None
    assert nightly.open_until(start) == nightly.open_until(end - 1) == end
    assert nightly.open_until(end) is None
    assert nightly.next_open(start - 1) == start
    assert nightly.next_open(start) == start + DAY_MS


def test_over_midnight_and_the_days_are_those_of_the_start() -> None:
    friday = table("fri 22:00-02:00")  # 2026-11-27 is a Friday
    assert friday.open_until(ms("2026-11-27T23:00")) == ms("2026-11-28T02:00")
    assert friday.open_until(ms("2026-11-28T01:59")) == ms("2026-11-28T02:00")
    assert friday.open_until(ms("2026-11-27T01:00")) is None
    assert friday.next_open(ms("2026-11-28T02:00")) == ms("2026-12-04T22:00")


def test_spans_that_touch_are_one() -> None:
    assert table("22:00-24:00", "00:00-01:00").open_until(ms("2026-11-26T23:00")) == ms("2026-11-27T01:00")
    assert table("00:00-24:00").open_until(ms("2026-11-26T23:00")) == ms("2026-12-04T00:00")
    assert table("00:00-24:00").next_open(ms("2026-11-26T23:00")) is None


@pytest.mark.parametrize(
    ("text", "days"),
    [("mon", {0}), ("sat sun", {5, 6}), ("fri-mon", {4, 5, 6, 0}), ("MON-Wed fri", {0, 1, 2, 4}), ("", set(range(7)))],
)
def test_days(text: str, days: set[int]) -> None:
    assert parse_span(f"{text} 8:00-9:00").days == days


@pytest.mark.parametrize(
    "text",
    [
        *("", "02:00", "2-3", "25:00-26:00", "02:60-03:00", "24:00-01:00", "24:01-01:00", "xyz 02:00-03:00"),
        *("mon- 1:00-2:00", "mon,tue 01:00-02:00", "-mon 01:00-02:00", "０2:00-03:00", "02:00-03:00 mon"),
        "99999999:00-01:00",
    ],
)
def test_what_is_no_span(text: str) -> None:
    with pytest.raises(Unreadable):
        parse_span(text)


@pytest.mark.parametrize("text", ["Mars/Olympus", "+24:00", "+8", "../etc/passwd", "/etc/localtime"])
def test_what_is_no_zone(text: str) -> None:
    with pytest.raises(Unreadable):
        parse_zone(text)


def test_an_offset_is_a_zone() -> None:
    assert table("02:00-03:00", zone="+08:00").open_until(ms("2026-11-26T02:30")) == ms("2026-11-26T03:00")
    assert table("02:00-03:00", zone="-03:30").next_open(0) == 5 * HOUR_MS + HOUR_MS // 2


@pytest.fixture
def berlin() -> Iterator[None]:
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("berlin")
def test_the_machines_own_zone_is_the_default() -> None:
    own = table("02:00-03:30", zone="")
    assert own.next_open(ms("2026-11-26T00:00", "Europe/Berlin")) == ms("2026-11-26T02:00", "Europe/Berlin")
    # the night on which clocks go from 03:00 back to 02:00: by the clock on the wall, so an hour longer
    assert own.open_until(ms("2026-10-25T02:00", "Europe/Berlin")) == ms("2026-10-25T03:30", "Europe/Berlin")


@given(
    now_ms=st.integers(-(10**15), 10**15),
    start=st.integers(0, 1439),
    length=st.integers(1, 1439),
    days=st.sets(st.sampled_from(["mon", "tue", "wed", "thu", "fri", "sat", "sun"])),
    zone=st.sampled_from(["Asia/Shanghai", "+00:00", "Europe/Berlin", "-11:00"]),
)
def test_every_instant_has_an_answer(now_ms: int, start: int, length: int, days: set[str], zone: str) -> None:
    """Whatever a clock says: a window that is open ends later than now, and the next one is at most a week off."""
    end = (start + length) % 1440
    span = f"{' '.join(sorted(days))} {start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    one = table(span, zone=zone)
    until, opens = one.open_until(now_ms), one.next_open(now_ms)
    assert until is None or until > now_ms
    if 0 <= now_ms < YEAR_MAX_MS:
        assert opens is not None
        assert now_ms < opens <= now_ms + 8 * DAY_MS
        assert one.open_until(opens) is not None


@given(st.integers(DAY_MS, 4 * 10**12), st.integers(0, 1439), st.integers(1, 1439))
def test_it_agrees_with_the_clock_on_the_wall(now_ms: int, start: int, length: int) -> None:
    now_ms -= now_ms % 60_000
    end = (start + length) % 1440
    one = table(f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}", zone="+08:00")
    wall = datetime.fromtimestamp(now_ms / 1000, UTC) + timedelta(hours=8)
    inside = (wall.hour * 60 + wall.minute - start) % 1440 < length
    assert (one.open_until(now_ms) is not None) == inside


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("32k", 32_000),
        ("1.5M", 1_500_000),
        ("64000", 64_000),
        ("0", 0),
        ("", 0),
        ("9.6 kbit/s", 9_600),
        ("2.4k", 2400),
        ("1Gbps", 10**9),
    ],
)
def test_rates(text: str, rate: int) -> None:
    assert parse_rate(text) == rate
    assert parse_rate(rate_text(rate)) == rate


@pytest.mark.parametrize("text", ["32x", "k", "-1k", "2.3k", "1", "32kB", "1e6", "٣k", "9" * 40, "2000G"])
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(Unreadable):
        parse_rate(text)


def test_the_first_limit_that_is_open_is_in_force() -> None:
    limits = [parse_limit("mon-fri 08:00-18:00 32k"), parse_limit("06:00-22:00 128k")]
    at = {
        "2026-11-26T09:00": 32_000,
        "2026-11-26T19:00": 128_000,
        "2026-11-28T09:00": 128_000,
        "2026-11-26T23:00": 7000,
    }
    for when, rate in (at | {"2026-11-26T23:00": 7000}).items():
        assert rate_at(limits, 7000, "Asia/Shanghai", ms(when)) == rate
    for wrong in ("08:00-18:00", "32k", "08:00-18:00 fast", ""):
        with pytest.raises(Unreadable):
            parse_limit(wrong)
