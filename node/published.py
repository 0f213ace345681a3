"""When records were first published: how many on each day.

Rules
1. Published is a record from the effective time of its first version on, as far as that is known: what was erased, or
   compacted away, has left no time behind, and the earliest version that is left counts.
2. Counted are records that are in force now, by the day of that time in China (UTC+8). So the days of all time add up
   to the records that there are.

>>> day_of(1_780_000_000_000)
datetime.date(2026, 5, 29)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from datetime import date, timedelta

import msgspec

from fednode.node import sqlite

CHINA_MS = 8 * 3_600_000
DAY_MS = 86_400_000
DAYS_MAX = 3_660
EPOCH = date(1970, 1, 1)
# the first version of a record `r` in force
FIRST = """min(r.effective, coalesce(
    (select min(s.effective) from superseded s
     where s.dataset = r.dataset and s.area = r.area and s.key = r.key and s.op = 1), r.effective))"""
FIRST_DAY = f"((({FIRST}) >> 16) + {CHINA_MS}) / {DAY_MS}"


def day_of(ms: int) -> date:
    """The day in China of a time in Unix milliseconds."""
    return EPOCH + timedelta(days=(ms + CHINA_MS) // DAY_MS)


def growth(
    connection: sqlite.Connection, datasets: Sequence[str], inside: Callable[[str], bool], now_ms: int, days: int
) -> dict[date, Mapping[str, int]]:
    """Of each of the last `days` days, today's the last, the number of records of each dataset that were first
    published then, in areas that are `inside`. One pass over the record table."""
    numbers = {n: name for n, name in connection.execute("select id, name from dataset") if name in set(datasets)}
    areas = dict(connection.execute("select id, code from area").fetchall())
    today = (now_ms + CHINA_MS) // DAY_MS
    since = today - days + 1
    found: dict[int, Counter[str]] = {day: Counter(dict.fromkeys(datasets, 0)) for day in range(since, today + 1)}
    for dataset, area, day, count in connection.execute(
        f"""select r.dataset, r.area, {FIRST_DAY} as day, count(*) from record r
            where r.op = 1 and r.dataset in (select value from json_each(?)) and r.effective >= ?
            group by 1, 2, 3 having day between ? and ?""",
        (msgspec.json.encode(list(numbers)).decode(), (since * DAY_MS - CHINA_MS) << 16, since, today),
    ):
        if inside(areas[area]):
            found[day][numbers[dataset]] += count
    return {EPOCH + timedelta(days=day): counts for day, counts in found.items()}
