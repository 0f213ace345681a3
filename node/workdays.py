"""Working days in China: Monday to Friday, without the public holidays, with the weekends that are made up for.

Rules
1. Which days these are the State Council says, a year at a time; `chinesecalendar` has them for the years from
   `FIRST_YEAR` to `LAST_YEAR`. Of any other year a working day is Monday to Friday, and whoever asks is told so
   (`known`): the installed library may be older than the holidays of a new year.
2. A term of n working days begins on the day after: it is kept on the n-th working day, and on the days off before the
   next one.

>>> between(date(2026, 2, 13), date(2026, 2, 24))  # the Spring Festival: worked are the 14th and the 24th
2
>>> known(date(2026, 1, 1)), known(date(2003, 12, 31))
(True, False)
"""

from __future__ import annotations

from bisect import bisect_right
from datetime import date, timedelta
from functools import cache

import chinese_calendar

FIRST_YEAR: int = min(chinese_calendar.holidays).year
LAST_YEAR: int = max(chinese_calendar.holidays).year
WEEK = 7
WORKING = 5  # Monday is ordinal 1


def known(day: date) -> bool:
    """Whether the holidays of its year are known (rule 1)."""
    return FIRST_YEAR <= day.year <= LAST_YEAR


def between(start: date, end: date) -> int:
    """Working days after `start`, up to `end` and with it; 0 where `end` is not after `start`."""
    return max(0, _up_to(end) - _up_to(start))


def _up_to(day: date) -> int:
    """Working days up to a day, since the beginning of the calendar."""
    weeks, rest = divmod(day.toordinal(), WEEK)
    days, sums = _exceptions()
    return weeks * WORKING + min(rest, WORKING) + sums[bisect_right(days, day)]


@cache
def _exceptions() -> tuple[list[date], list[int]]:
    """The days that are other than their weekday says, and, for each number of the first of them, how many more days
    are worked."""
    days, sums = [], [0]
    day = date(FIRST_YEAR, 1, 1)
    while day.year <= LAST_YEAR:
        works = bool(chinese_calendar.is_workday(day))
        if works != (day.weekday() < WORKING):
            days.append(day)
            sums.append(sums[-1] + (1 if works else -1))
        day += timedelta(days=1)
    return days, sums
