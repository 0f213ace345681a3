"""Conflicts: concurrent changes that lost. They are kept, and nobody is told that all is well."""

from __future__ import annotations

from starlette.responses import Response

from fednode.node.web.visit import Nav, Page, Visit

LIMIT, LIMIT_MAX = 100, 2_000


def show(visit: Visit) -> Response:
    """The newest, of one dataset or all: where each stands, never what is in it."""
    catalog = visit.reader.app.trust.catalog
    datasets = tuple(sorted(catalog.datasets)) if catalog is not None else ()
    dataset = visit.choice("dataset", datasets)
    limit = visit.number("limit", LIMIT, 1, LIMIT_MAX)
    found = visit.reader.projector.conflicts(dataset, limit + 1)
    if "json" in visit.query:
        return visit.json({"conflicts": found[:limit]})
    more = visit.url(limit=min(limit * 4, LIMIT_MAX)) if len(found) > limit and limit < LIMIT_MAX else ""
    return visit.render("conflicts.html", found=found[:limit], datasets=datasets, dataset=dataset, next=more)


ROUTES = (Page("/conflicts", show),)
NAV = (Nav("web.nav.conflicts", "/conflicts", 50),)
