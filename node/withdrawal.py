"""Records that are withdrawn: `retention.action = "withdraw"` of the catalog. Kept, proved, counted, and not shown.

Rules
1. A record is withdrawn from the day after its last one on: so many days after the date in its field. It is the record
   in force that counts, so a correction of the date brings it back. A record without such a date stays.
2. Withdrawing changes nothing in any log: nothing is sent, every level decides by the same catalog and its own day, and
   digests stay equal.
3. What shows records leaves it out: `get`, `find` with its CSV, full text, the views in state.db. Whoever asks for it
   by name (`--withdrawn`) gets it, and the audit has that, also where the dataset is public.
4. Views are SQL that others run, so they know no clock of this node's: the last days stand in state.db's `meta`, put
   there whenever records are read here, and once a day. Where the disk has no room for that they stay at the day they
   know; reading goes on.

>>> from fednode.sync.catalog import Retention
>>> last_day(Retention("withdraw", "until", 30), date(2026, 7, 1))  # until that day and 30 more: over on July 1st
'2026-05-31'
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from fednode.node import sqlite
from fednode.node.room import NO_ROOM
from fednode.sync.catalog import Dataset, Retention
from fednode.sync.errors import StoreError

if TYPE_CHECKING:
    from fednode.node.projection import Projector

log = logging.getLogger("fednode.withdrawal")
WITHDRAW = "withdraw"
_KEY = "last_day:"


def day_of(now_ms: int) -> date:
    """The day of a time in Unix milliseconds, in UTC."""
    return date(1970, 1, 1) + timedelta(milliseconds=now_ms)


def last_day(kept: Retention, today: date) -> str:
    """The latest date in the retention field of records whose time is over."""
    return (today - timedelta(days=kept.days + 1)).isoformat()


def withdrawn_since(declared: Dataset, record: Mapping[str, Any], today: date) -> str:
    """The first day on which a record is withdrawn; "" where it is not, today."""
    kept = declared.retention
    until = str(record.get(kept.field, "")) if kept.action == WITHDRAW else ""
    if not until or until > last_day(kept, today):
        return ""
    return (date.fromisoformat(until) + timedelta(days=kept.days + 1)).isoformat()


def shown_sql(declared: Dataset, today: date | None = None) -> str:
    """The condition that leaves out what is withdrawn of rows `r` of `record`, by the day that state.db was told, or by
    `today`; "" where nothing ever is."""
    kept = declared.retention
    if kept.action != WITHDRAW:
        return ""
    field, last = f"coalesce(r.payload ->> '$.{kept.field}', '')", f"'{last_day(kept, today)}'" if today else ""
    told = f"coalesce((select value from meta where key = '{_KEY}{declared.name}'), '')"
    return f"({field} = '' or {field} > {last or told})"


def set_day(projector: Projector, today: date) -> None:
    """Tell state.db which day it is (rule 4): one small read where that is known. Raises StoreError, but not where
    there is no room."""
    c, catalog = projector.connection, projector.trust.catalog
    kept = {name: one.retention for name, one in (catalog.datasets if catalog else {}).items()}
    days = {_KEY + name: last_day(one, today) for name, one in kept.items() if one.action == WITHDRAW}
    told = dict(c.execute("select key, value from meta where key glob ?", (f"{_KEY}*",)).fetchall())
    news = [(key, day) for key, day in days.items() if told.get(key) != day]
    if not news:
        return
    try:
        with sqlite.transaction(c, projector.path):
            c.executemany("insert or replace into meta values (?, ?)", news)
    except StoreError as error:
        if error.code not in NO_ROOM:
            raise
        log.warning("views keep their day", extra={"code": error.code})
