"""Coverage: records by area and dataset against the catalog's targets, as `fednode coverage` has them.

Counting is dear and done beside (`node.web.counted`): the page says when it was. The files have every row that the
filter lets through.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from starlette.responses import Response

from fednode.node.coverage import ALL, Coverage, Wanted
from fednode.node.coverage_cells import TERMS, Tongue, area_cells
from fednode.node.sheets import write_csv, write_xlsx
from fednode.node.web.counted import Count, counted_of
from fednode.node.web.files import sheet
from fednode.node.web.visit import Nav, Page, Visit
from fednode.sync.errors import Refused, Unavailable

AREAS_MAX = 50


def _wanted(visit: Visit) -> tuple[Wanted, bool]:
    """The filter, and whether timeliness is asked for. Raises Refused FN-2801, FN-3401."""
    catalog = visit.app.trust.catalog
    dataset = visit.value("dataset")
    if catalog is not None and dataset and dataset not in catalog.datasets:
        raise Refused("FN-3401", dataset=dataset)
    levels = tuple(one for one in visit.choices("level", visit.app.trust.directory.levels) if one)
    blank, timely = bool(visit.choice("blank", ("1",))), bool(visit.choice("timely", ("1",)))
    wanted = Wanted(dataset, visit.value("area", most=32), levels, blank, AREAS_MAX, visit.value("after", most=32))
    return wanted, timely


def _tongue(visit: Visit) -> Tongue:
    return Tongue(visit.words, lambda level: visit.worded("level", level), visit.lang)


def show(visit: Visit) -> Response:
    """One page of areas."""
    wanted, timely = _wanted(visit)
    count, coming = counted_of(visit.site).get(timely=timely)
    query = visit.request.url.query
    given: dict[str, Any] = {"count": count, "coming": coming, "wanted": wanted, "timely": timely, "query": query}
    given |= {"levels": visit.app.trust.directory.levels, "terms": TERMS[:-1]}
    tongue = _tongue(visit)
    catalog = visit.app.trust.catalog
    names = list(catalog.datasets) if catalog is not None else []
    given["datasets"] = [(name, _title(visit, name)) for name in names]
    if count is None:
        return visit.render("coverage.html", **given)
    found = count.coverage
    rows, following = found.page(wanted)
    whole = dataclasses.replace(wanted, after="", limit=None)
    given |= {
        "rows": [(row, tongue.title(found, row.dataset)) for row in rows],
        "following": visit.url(after=following) if following else "",
        "records": found.total(whole),
        "areas": len(found.inside(whole)),
        "blanks": {tongue.title(found, name): n for name, n in found.blanks(whole).items()},
        "unread": found.unread,
        "all_key": ALL,
        "days": _days(count, found, wanted, tongue),
    }
    return visit.render("coverage.html", **given)


def _title(visit: Visit, name: str) -> str:
    catalog = visit.app.trust.catalog
    declared = catalog.datasets[name] if catalog is not None else None
    return name if declared is None else declared.zh if visit.lang == "zh" else declared.en


def _days(
    count: Count, found: Coverage, wanted: Wanted, tongue: Tongue
) -> tuple[list[str], list[tuple[str, list[int]]]]:
    """What was first published on each day in the whole subtree: titles, and rows, the newest first."""
    names = [name for name in found.names(wanted) if name != ALL]
    rows = [(day.isoformat(), [counts[name] for name in names]) for day, counts in count.days.items()]
    return [tongue.title(found, name) for name in names], rows[::-1]


def _file(visit: Visit, kind: str) -> Response:
    wanted, timely = _wanted(visit)
    count, _ = counted_of(visit.site).get(timely=timely)
    if count is None:
        raise Unavailable("FN-4803", retry_after_ms=2000)
    whole = dataclasses.replace(wanted, after="", limit=None)
    heads, cells = area_cells(_tongue(visit), count.coverage, whole, timely=timely)
    title = visit.words("coverage.title")

    def write(path: Path) -> int:
        return write_csv(path, heads, cells()) if kind == "csv" else write_xlsx(path, title, heads, cells())

    return sheet(visit, "coverage", write, kind)


def as_csv(visit: Visit) -> Response:
    """Every row, as CSV."""
    return _file(visit, "csv")


def as_xlsx(visit: Visit) -> Response:
    """Every row, as a workbook."""
    return _file(visit, "xlsx")


ROUTES = (Page("/coverage", show), Page("/coverage.csv", as_csv), Page("/coverage.xlsx", as_xlsx))
NAV = (Nav("web.nav.coverage", "/coverage", 30),)
