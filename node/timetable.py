"""Times of day: when the line to the parent is used (sync windows), and how much of it (limits by the time of day).

Rules
1. A span is `[days] HH:MM-HH:MM`: days are `mon` to `sun` or ranges of them, none means every day. A span whose end is
   not after its start ends on the next day; the days are those on which it starts. 24:00 is the end of a day.
2. Times are those of a zone: the machine's own (""), an offset from UTC (+08:00), or a name (Asia/Shanghai).
3. Nothing here reads a clock: the caller gives the corrected one, Unix milliseconds, so a machine whose clock is years
   off keeps its windows once it has met its parent.
4. A rate is in bits per second, k is 1,000: as lines are sold. 0 is no limit.

>>> table = Timetable((parse_span("22:00-02:00"),), "+00:00")
>>> table.open_until(23 * HOUR_MS) // HOUR_MS, table.open_until(3 * HOUR_MS), table.next_open(3 * HOUR_MS) // HOUR_MS
(26, None, 22)
>>> parse_rate("32k"), parse_rate("1.5M"), rate_text(32_000)
(32000, 1500000, '32k')
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DAY_MINUTES = 24 * 60
LOOK_DAYS = 8  # a span that has days comes again within a week
YEAR_MAX_MS = 253_000_000_000_000  # what a date can say (the year 9987), with room for LOOK_DAYS
RATE_MIN, RATE_MAX = 2_400, 10**12
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_SPAN = re.compile(r"(?:(?P<days>[a-z][a-z \-]*) )?(\d{1,2}):(\d\d)-(\d{1,2}):(\d\d)", re.ASCII)
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?) ?([kmg]?)(?:bit/s|bps)?", re.ASCII)
_DURATION = re.compile(r"(\d{1,6})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_OFFSET = re.compile(r"([+-])(\d\d):([0-5]\d)", re.ASCII)
_UNITS = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


class Unreadable(ValueError):
    """A text that is no span, rate, zone or span of time."""


@dataclass(frozen=True, slots=True)
class Span:
    """From a minute of the day to another; `end` may lie in the next day (more than 1,440). `days`: 0 is Monday."""

    start: int
    end: int
    days: frozenset[int] = frozenset(range(7))


@dataclass(frozen=True, slots=True)
class Limit:
    """So many bits per second in a span."""

    span: Span
    rate: int


def parse_span(text: str) -> Span:
    """A span out of `mon-fri 22:00-02:00`. Raises Unreadable."""
    match = _SPAN.fullmatch(" ".join(text.lower().split()))
    if match is None:
        raise Unreadable(text)
    start, end = _minute(match[2], match[3]), _minute(match[4], match[5])
    if start == DAY_MINUTES:
        raise Unreadable(text)
    days = _days(match["days"] or "")
    return Span(start, end if end > start else end + DAY_MINUTES, days)


def _minute(hours: str, minutes: str) -> int:
    found = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or found > DAY_MINUTES:
        raise Unreadable(f"{hours}:{minutes}")
    return found


def _days(text: str) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split():
        first, dash, last = part.partition("-")
        last = last if dash else first
        if first not in DAYS or last not in DAYS:
            raise Unreadable(text)
        a, b = DAYS.index(first), DAYS.index(last)
        found |= {day % 7 for day in range(a, (b if b >= a else b + 7) + 1)}
    return frozenset(found or range(7))


def parse_rate(text: str) -> int:
    """Bits per second out of `32k`, `1.5M`, `64000`; "" and `0` are no limit. Raises Unreadable, for less than 2.4k
    too: an exchange would fall silent."""
    if text.strip() in ("", "0"):
        return 0
    match = _RATE.fullmatch(text.strip().lower())
    if match is None:
        raise Unreadable(text)
    rate = round(float(match[1]) * _UNITS[match[2]])
    if not RATE_MIN <= rate <= RATE_MAX:
        raise Unreadable(text)
    return rate


def rate_text(rate: int) -> str:
    """A rate as it is written."""
    for unit in ("g", "m", "k"):
        if rate >= _UNITS[unit] and rate % (_UNITS[unit] // 1000 or 1) == 0:
            return f"{rate / _UNITS[unit]:.3f}".rstrip("0").rstrip(".") + (unit if unit == "k" else unit.upper())
    return str(rate)


def parse_duration(text: str) -> int:
    """Seconds out of `90s`, `10m`, `1h`, `7d`. Raises Unreadable."""
    match = _DURATION.fullmatch(text.strip())
    if match is None or not int(match[1]):
        raise Unreadable(text)
    return int(match[1]) * _SECONDS[match[2]]


def parse_limit(text: str) -> Limit:
    """A span and a rate out of `mon-fri 08:00-18:00 32k`. Raises Unreadable."""
    span, _, rate = text.strip().rpartition(" ")
    return Limit(parse_span(span), parse_rate(rate))


def parse_zone(text: str) -> tzinfo | None:
    """A zone; None is the machine's own. Raises Unreadable for one that is not known here."""
    if not text:
        return None
    if match := _OFFSET.fullmatch(text):
        minutes = int(match[2]) * 60 + int(match[3])
        if minutes >= DAY_MINUTES:
            raise Unreadable(text)
        return timezone(timedelta(minutes=minutes if match[1] == "+" else -minutes))
    try:
        return ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise Unreadable(text) from error


def on_the_wall(ms: int, zone: str) -> str:
    """A moment as clocks in a zone show it."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone(parse_zone(zone)).isoformat(" ", "minutes")


class Timetable:
    """Spans in a zone. None at all: always open."""

    def __init__(self, spans: Sequence[Span], zone: str = "") -> None:
        self.spans = tuple(spans)
        self._zone = parse_zone(zone)

    def open_until(self, now_ms: int) -> int | None:
        """When the span that is open ends; None while none is. Without spans: never, which is far away."""
        if not self.spans:
            return YEAR_MAX_MS
        for start, end in _joined(self._intervals(now_ms)):
            if start <= now_ms < end:
                return end
        return None

    def next_open(self, now_ms: int) -> int | None:
        """When a span opens that is not open now; None without spans."""
        later = [start for start, _ in _joined(self._intervals(now_ms)) if start > now_ms]
        return min(later, default=None)

    def _intervals(self, now_ms: int) -> list[tuple[int, int]]:
        seconds = min(max(now_ms, 0), YEAR_MAX_MS) // 1000
        today = datetime.fromtimestamp(seconds, self._zone or UTC)
        if self._zone is None:  # the machine's zone is what a date without one is in
            today = today.astimezone().replace(tzinfo=None)
        found = []
        for day in range(-1, LOOK_DAYS):
            if seconds + day * (DAY_MS // 1000) < 0:
                continue
            date = today.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=day)
            for span in self.spans:
                if date.weekday() in span.days:
                    found.append((_ms(date, span.start), _ms(date, span.end)))
        return sorted(found)


def _ms(date: datetime, minute: int) -> int:
    """The instant at which clocks on the wall show this minute of the day; an hour that is left out falls where it
    would have been."""
    return round((date + timedelta(minutes=minute)).timestamp() * 1000)


def _joined(intervals: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Intervals, sorted, with those that touch made one."""
    pending: tuple[int, int] | None = None
    for start, end in intervals:
        if end <= start:
            continue
        if pending is None:
            pending = (start, end)
        elif start <= pending[1]:
            pending = (pending[0], max(pending[1], end))
        else:
            yield pending
            pending = (start, end)
    if pending is not None:
        yield pending


def rate_at(limits: Sequence[Limit], otherwise: int, zone: str, now_ms: int) -> int:
    """The limit in force, bits per second: that of the first span that is open, else `otherwise`."""
    for limit in limits:
        if Timetable((limit.span,), zone).open_until(now_ms) is not None:
            return limit.rate
    return otherwise
