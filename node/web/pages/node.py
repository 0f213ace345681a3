"""This node: what `fednode status` says, for people who look at it from somewhere else."""

from __future__ import annotations

from starlette.responses import Response

from fednode.node import status
from fednode.node.web.visit import Nav, Page, Visit


def show(visit: Visit) -> Response:
    """Identity, parent, backlog, store, certificate, clock, disk."""
    found = status.collect(visit.reader.app)
    if "json" in visit.query:
        return visit.json(found)
    return visit.render("node.html", found=found)


ROUTES = (Page("/node", show),)
NAV = (Nav("web.nav.node", "/node", 90),)
