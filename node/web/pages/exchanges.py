"""The history of exchanges: lag, backlog and throughput as charts, and the last exchanges with each peer.

Rules
1. Only what this node has moved itself is known here: with its parent, and with each child (`node.mesh.history`).
2. The charts are drawn by `static/exchanges.js` out of `/data/exchanges`; the same numbers are in the page as a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from fednode.node import sqlite
from fednode.node.mesh.history import COARSE_S, FINE_CHILD_S, FINE_PARENT_S, History
from fednode.node.web.pages.mesh import meeting
from fednode.node.web.visit import Nav, Page, Visit
from fednode.sync.errors import Refused

DAY_S = 86_400
SPANS = {"day": DAY_S, "week": 7 * DAY_S, "months": 60 * DAY_S}
BELOW = "*"  # all children together
ROWS_MAX, MEETINGS_MAX, CHILDREN_MAX = 60, 50, 500


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be shown: of whom, since when, in which steps."""

    peer: str
    names: tuple[str, ...]
    span: str
    since_s: int
    step_s: int


def _peers(visit: Visit) -> list[tuple[str, str]]:
    """Whom this node meets: id and how it is called here."""
    trust = visit.app.trust
    found = []
    if trust.parent is not None:
        name = f"{trust.parent.node} {trust.parent.name}"
        found.append((trust.parent.node, visit.words("web.exchange.parent", name=name)))
    children = sorted(trust.directory.children_of(trust.node), key=lambda one: one.node)
    if children:
        found.append((BELOW, visit.words("web.exchange.all")))
    return found + [(one.node, f"{one.node} {one.name}") for one in children]


def _asked(visit: Visit, peers: list[tuple[str, str]]) -> Asked:
    """Raises Refused FN-2801, FN-3110."""
    names = [name for name, _ in peers]
    peer = visit.value("peer") or (names[0] if names else "")
    if peer and peer not in names:
        raise Refused("FN-3110", node=peer)
    span = visit.choice("span", tuple(SPANS), "day")
    parent = visit.app.trust.parent
    fine_s = FINE_PARENT_S if parent is not None and peer == parent.node else FINE_CHILD_S
    children = tuple(name for name in names if name != BELOW and (parent is None or name != parent.node))
    wanted = children if peer == BELOW else (peer,) if peer else ()
    step_s = fine_s if span == "day" else COARSE_S
    return Asked(peer, wanted, span, visit.app.now_s - SPANS[span], step_s)


def _read(visit: Visit, asked: Asked) -> tuple[list[dict[str, int]], list[dict[str, Any]]]:
    path = visit.app.home.health_db
    connection = sqlite.connect(path, synchronous="NORMAL", readonly=True)
    try:
        history = History(connection, path)
        met = history.meetings(asked.peer, MEETINGS_MAX) if asked.peer != BELOW else []
        return history.series(asked.names, asked.step_s, asked.since_s), [meeting(one) for one in met]
    finally:
        connection.close()


def show(visit: Visit) -> Response:
    """The charts of one peer, or of all below."""
    peers = _peers(visit)
    asked = _asked(visit, peers)
    series, meetings = _read(visit, asked)
    return visit.render(
        "exchanges.html",
        peers=peers[: CHILDREN_MAX + 2],
        asked=asked,
        spans=tuple(SPANS),
        series=series,
        rows=series[-ROWS_MAX:][::-1],
        meetings=meetings,
        data=f"/data/exchanges?{visit.request.url.query}",
    )


def data(visit: Visit) -> Response:
    """The samples, oldest first; where one is missing nothing was open."""
    asked = _asked(visit, _peers(visit))
    series, _ = _read(visit, asked)
    return visit.json(
        {
            "v": 1,
            "peer": asked.peer,
            "since_s": asked.since_s,
            "now_s": visit.app.now_s,
            "step_s": asked.step_s,
            "samples": series,
        }
    )


ROUTES = (Page("/exchanges", show), Page("/data/exchanges", data))
NAV = (Nav("web.nav.exchanges", "/exchanges", 40),)
