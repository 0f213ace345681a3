"""The audit trail: what was done at this node and those below it, by whom. Looking at it is an act, too."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator, Iterable, Sequence
from functools import partial

from starlette.responses import Response, StreamingResponse

from fednode.node.events import Event, Filter, time_of
from fednode.node.events_csv import COLUMNS, cells, details_text
from fednode.node.journal import DONE, FAILED, REFUSED
from fednode.node.messages import safe
from fednode.node.web import roles
from fednode.node.web.desk import Reader
from fednode.node.web.visit import Nav, Page, Visit
from fednode.sync.errors import Refused

PATH, ACT = "/audit", "audit.log"
PAGE, EXPORT_PAGE = 50, 1_000
OUTCOMES = (DONE, REFUSED, FAILED)


def wanted_of(visit: Visit) -> Filter:
    """The filter of the URL. Raises Refused FN-2801."""
    every = Filter()
    return Filter(
        *(_time(visit, "since", every.since_ms), _time(visit, "until", every.until_ms)),
        *(visit.value("node"), visit.value("who"), visit.value("action"), visit.choice("outcome", OUTCOMES)),
    )


def _time(visit: Visit, name: str, default: int) -> int:
    value = visit.value(name)
    found = time_of(value, end=name == "until") if value else default
    if found is None:
        raise Refused("FN-2801", field=name, value=value[:40])
    return found


def show(visit: Visit) -> Response:
    """A page of events, the newest first."""
    wanted = wanted_of(visit)
    found, after = visit.reader.events().page(wanted, PAGE, visit.value("after"))
    visit.act(ACT, filters=", ".join(wanted.names), count=len(found), exported=False)
    return visit.render(
        "audit.html",
        found=found,
        wanted=wanted,
        outcomes=OUTCOMES,
        details=lambda one: safe(details_text(one.details)),
        export=visit.url(after="").replace(PATH, f"{PATH}.csv", 1),
        next=visit.url(after=after) if after else "",
    )


def export(visit: Visit) -> Response:
    """All events that the filter lets through, as they are read: however many there are, memory does not grow."""
    wanted = wanted_of(visit)
    visit.act(ACT, filters=", ".join(wanted.names), exported=True)
    name = f"audit-{visit.reader.app.trust.node}.csv"
    headers = {"content-disposition": f'attachment; filename="{name}"', "cache-control": "no-store"}
    return StreamingResponse(_lines(visit, wanted), media_type="text/csv; charset=utf-8", headers=headers)


async def _lines(visit: Visit, wanted: Filter) -> AsyncIterator[str]:
    """In the event loop: each page of it is read in a thread of the desk."""
    yield "\ufeff" + _csv([COLUMNS])  # spreadsheets go by the mark
    after = ""
    while True:
        found, after = await visit.site.desk.ask(partial(_page, wanted, after))
        yield _csv([cells(one) for one in found])
        if not after:
            return


def _page(wanted: Filter, after: str, reader: Reader) -> tuple[list[Event], str]:
    return reader.events().page(wanted, EXPORT_PAGE, after)


def _csv(rows: Iterable[Sequence[str]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\r\n").writerows(rows)
    return out.getvalue()


ROUTES = (Page(PATH, show, roles.AUDIT, tell=ACT), Page(f"{PATH}.csv", export, roles.AUDIT, tell=ACT))
NAV = (Nav("web.nav.audit", PATH, 60, roles.AUDIT),)
