"""Timeliness: whether records were published within the working days that the catalog allows.

Rules
1. The term runs from the date in the field that the catalog names (`timeliness`) to the day on which the record was
   first published (`node.published`, rule 1), in working days (`node.workdays`, rule 2). Who publishes on the last day
   of the term is in time; so is who publishes before the date, whatever that means.
2. A record without such a date is counted apart, and is neither in time nor late.
3. Where a term touches a year whose holidays are not known, Monday to Friday are its working days, and the record is
   counted as `guessed`, too.

>>> from datetime import date
>>> one = judged("2026-02-13", date(2026, 2, 27), 3, 4); one, one + Timely(1, 0, 2, 9, 1)
(Timely(dated=4, late=4, undated=0, longest=5, guessed=0), Timely(dated=5, late=4, undated=2, longest=9, guessed=1))
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from fednode.node import sqlite
from fednode.node.published import EPOCH, FIRST_DAY
from fednode.node.views import field_sql
from fednode.node.workdays import between, known
from fednode.sync.catalog import Dataset


@dataclass(frozen=True, slots=True)
class Timely:
    """Records with a date, how many of those were late, records without one; the longest term in working days; how many
    were judged without the holidays of a year (rule 3)."""

    dated: int = 0
    late: int = 0
    undated: int = 0
    longest: int = 0
    guessed: int = 0

    def __add__(self, other: Timely) -> Timely:
        return Timely(
            *(self.dated + other.dated, self.late + other.late, self.undated + other.undated),
            *(max(self.longest, other.longest), self.guessed + other.guessed),
        )


def judged(decided: str | None, published: date, limit: int, count: int = 1) -> Timely:
    """`count` records that were decided and published on the same days, of which the term is `limit` working days."""
    try:
        start = date.fromisoformat(decided or "")
    except ValueError:
        return Timely(undated=count)
    days = between(start, published)
    guessed = 0 if known(start) and known(published) else count
    return Timely(count, count if days > limit else 0, 0, days, guessed)


def timeliness(
    connection: sqlite.Connection, datasets: Iterable[Dataset], only: Sequence[str] = ()
) -> dict[str, dict[str, Timely]]:
    """Of each of these datasets for which the catalog has a limit, each area's own records in force; `only`: of these
    areas. One pass over the record table for each."""
    numbers = {name: number for number, name in connection.execute("select id, name from dataset")}
    areas = dict(connection.execute("select id, code from area").fetchall())
    wanted = [number for number, code in areas.items() if code in only]
    of_these = f"and r.area in ({','.join(map(str, wanted))})" if only else ""
    found: dict[str, dict[str, Timely]] = {}
    for one in datasets:
        due = one.timeliness
        field = one.field(due.field) if due is not None else None
        if due is None or field is None:
            continue
        here = found[one.name] = {}
        terms: dict[tuple[str | None, int], Timely] = {}  # days come again and again
        for area, decided, day, count in connection.execute(
            f"""select r.area, {field_sql(one, field)} as decided, {FIRST_DAY} as day, count(*) from record r
                where r.op = 1 and r.dataset = ? {of_these} group by 1, 2, 3""",
            (numbers.get(one.name, 0),),
        ):
            term = terms.get((decided, day))
            if term is None:
                term = terms[decided, day] = judged(decided, EPOCH + timedelta(days=day), due.working_days)
            many = Timely(
                term.dated * count, term.late * count, term.undated * count, term.longest, term.guessed * count
            )
            here[areas[area]] = here.get(areas[area], Timely()) + many
    return found
