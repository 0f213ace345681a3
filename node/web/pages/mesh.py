"""The mesh: every node at a glance (`/mesh`), and one node with all that is known of it (`/mesh/NODE`).

Rules
1. The picture is drawn by `static/overview.js` out of two documents (`/data/mesh/...`); the same numbers stand in the
   page as tables, which need no script.
2. `at`: the node whose subtree is shown; `state`, `level`: what is picked out, each as often as one likes; `after`: the
   next page of the list.
3. Without a filter the list has whoever needs somebody: `TROUBLED`. The file has all that the list pages through.
4. `q`: a part of a name, or the beginning of a code; a code alone leads to its node.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.responses import Response

from fednode.node import sqlite
from fednode.node.alerting import reading as alerts
from fednode.node.coverage_cells import china
from fednode.node.mesh import reading
from fednode.node.mesh.bounds import ALERT, BEHIND, OK, STALE, STATES
from fednode.node.mesh.history import History, Meeting
from fednode.node.mesh.picture import Group, Picture
from fednode.node.sheets import Cell, write_csv
from fednode.node.web.files import sheet
from fednode.node.web.pictures import picture_of
from fednode.node.web.visit import Nav, Page, Visit
from fednode.sync.errors import Refused

TROUBLED = (ALERT, STALE, BEHIND)
GROUPS_MAX, LIST_MAX, CHILDREN_MAX, ALERTS_MAX, MEETINGS_MAX = 300, 100, 200, 50, 20
NAME_MAX = 60
FILE_STEP = 5_000  # nodes that are read at once
FILE_KEYS = ("node", "name", "level", "state", "known", "backlog", "lag", "alerts", "version")
KEEP_S = 30 * 86400
GRAVITY = {state: n for n, state in enumerate((ALERT, STALE, BEHIND, "never", "unknown", "revoked", "superseded", OK))}


def overview(visit: Visit) -> Response:
    """The whole subtree in one picture, with its numbers."""
    levels = visit.app.trust.directory.levels
    at, after = visit.value("at"), visit.number("after", -1, 0, 10_000_000)
    name = visit.value("q", most=NAME_MAX)
    states, wanted = visit.choices("state", STATES), visit.choices("level", levels)
    with picture_of(visit.site) as picture:
        place = _place(picture, at)
        group, children = picture.group(place), list(picture.children(place))
        by_level = picture.by_level(place)
        way = [picture.group(one).id for one in picture.way(place)]
        listed, following = picture.find(place, states or TROUBLED, wanted, after, LIST_MAX)
        tag, age_ms = picture.layout.tag, visit.app.now_ms()
    shown = children[:GROUPS_MAX]
    with visit.reader.mesh() as view:
        if name:
            listed, following = view.named(name, LIST_MAX), None
            if listed == [name]:
                return visit.go(f"/mesh/{quote(name, safe='')}")
        names = {one["id"]: one for one in view.some([*(one.id for one in shown), *way, group.id, *listed])}
    words = {
        "states": {state: visit.worded("state", state) for state in STATES},
        "levels": {level: visit.worded("level", level) for level in levels},
        "nodes": visit.words("web.mesh.nodes", count="{count}"),
        "open": visit.words("web.mesh.open"),
    }
    return visit.render(
        "mesh.html",
        at=at,
        group=group,
        way=[names[one] for one in way if one in names],
        me=names.get(group.id),
        groups=[(names[one.id], one) for one in shown if one.id in names],
        groups_more=len(children) - len(shown),
        by_level=by_level,
        states=STATES,
        chosen_states=states,
        chosen_levels=wanted,
        listed=[names[one] for one in listed if one in names],
        list_states=states or TROUBLED,
        wanted_name=name,
        file=visit.url(after=None).replace("/mesh", "/mesh.csv", 1),
        following="" if following is None else visit.url(after=following),
        tag=tag,
        words=msgspec.json.encode(words).decode(),
        made_ms=age_ms,
    )


def _place(picture: Picture, node: str) -> int:
    """Where a node stands in the picture ("": at the top). Raises Refused FN-3110."""
    place = 0 if not node else picture.place(node)
    if place is None:
        raise Refused("FN-3110", node=node)
    return place


def as_csv(visit: Visit) -> Response:
    """The list of the overview, whole."""
    levels = visit.choices("level", visit.app.trust.directory.levels)
    with picture_of(visit.site) as picture:
        place = _place(picture, visit.value("at"))
        found, _ = picture.find(place, visit.choices("state", STATES) or TROUBLED, levels, -1, picture.size)
    heads = [visit.words(f"head.{key}") for key in FILE_KEYS]
    now_ms = visit.app.now_ms()

    def rows() -> Iterator[Sequence[Cell]]:
        with visit.reader.mesh() as view:
            for i in range(0, len(found), FILE_STEP):
                yield from (_cells(visit, one, now_ms) for one in view.some(found[i : i + FILE_STEP]))

    return sheet(visit, "mesh", lambda path: write_csv(path, heads, rows()))


def _cells(visit: Visit, one: dict[str, Any], now_ms: int) -> Sequence[Cell]:
    backlog = None if one["changes"] is None else one["changes"] + one["system"]
    alerts = None if one["alerts_critical"] is None else one["alerts_critical"] + one["alerts_warning"]
    lag_s = 0 if one["since_ms"] is None else max(0, now_ms - one["since_ms"]) // 1000
    state, level = visit.worded("state", one["state"]), visit.worded("level", one["level"])
    return one["id"], one["name"], level, state, china(one["known_ms"]), backlog, lag_s, alerts, one["software"]


# ---------------------------------------------------------------- documents


def layout(visit: Visit) -> Response:
    """Who there is. Under the tag that it has now a browser may keep it, under another it may not."""
    with picture_of(visit.site) as picture:
        found = picture.layout
    asked, tag = visit.value("tag"), f'"{found.tag}"'
    keep = f"private, max-age={KEEP_S}, immutable" if asked == found.tag else "private, no-cache"
    headers = {"etag": tag, "cache-control": keep, "vary": "cookie", "x-layout": found.tag}
    if visit.request.headers.get("if-none-match", "").removeprefix("W/") == tag:
        return Response(status_code=304, headers=headers)
    return Response(found.body, media_type="application/json", headers={**headers, "content-encoding": "gzip"})


def states(visit: Visit) -> Response:
    """Every node's state."""
    with picture_of(visit.site) as picture:
        return visit.json(picture.states())


def changes(visit: Visit) -> Response:
    """What has changed after a number; without `changes` where all states are to be asked for."""
    since, tag = visit.number("since", 0, 0, 1 << 53), visit.value("layout")
    with picture_of(visit.site) as picture:
        found = picture.since(since) if tag == picture.layout.tag else None
        return visit.json(found or {"layout": picture.layout.tag})


# ---------------------------------------------------------------- one node


def node(visit: Visit) -> Response:
    """What is known of one node, its way up, those right below it, its alerts, its last exchanges with this one."""
    name = visit.path["node"]
    with picture_of(visit.site) as picture:
        place = picture.place(name)
        children = [] if place is None else sorted(picture.children(place), key=_gravity)
    with visit.reader.mesh() as view:
        found = reading.one(visit.app, view, name)
        below = {one["id"]: one for one in view.some([one.id for one in children[:CHILDREN_MAX]])}
    about = alerts.Wanted(node=name, limit=ALERTS_MAX)
    return visit.render(
        "mesh_node.html",
        found=found,
        one=found["node"],
        certificate_days=_days(found),
        children=[(below[one.id], one) for one in children if one.id in below],
        children_more=max(0, len(children) - CHILDREN_MAX),
        alerts=alerts.listing(visit.reader.app, about, visit.lang)["alerts"],
        meetings=_meetings(visit, name),
        peer=_is_peer(visit, name),
        states=STATES,
    )


def _gravity(one: Group) -> tuple[int, int, str]:
    """Whoever needs somebody comes first."""
    trouble = sum(one.states[state] for state in TROUBLED)
    return GRAVITY[one.itself], -trouble, one.id


def _days(found: dict[str, Any]) -> int | None:
    until_s = found["node"]["certificate_s"]
    return None if until_s is None else (until_s * 1000 - found["now_ms"]) // 86_400_000


def _is_peer(visit: Visit, name: str) -> bool:
    """Whether this node meets that one itself."""
    directory, me = visit.app.trust.directory, visit.app.trust.node
    there = directory.get(name)
    return there is not None and me in (there.issuer, there.stands_for) and name != me


def _meetings(visit: Visit, name: str) -> list[dict[str, Any]]:
    path = visit.app.home.health_db
    parent = visit.app.trust.parent
    peer = parent.node if name == visit.app.trust.node and parent is not None else name
    connection = sqlite.connect(path, synchronous="NORMAL", readonly=True)
    try:
        return [meeting(one) for one in History(connection, path).meetings(peer, MEETINGS_MAX)]
    finally:
        connection.close()


def meeting(one: Meeting) -> dict[str, Any]:
    """An exchange that has ended, for a page."""
    return {**dataclasses.asdict(one), "began_ms": one.began_s * 1000, "lasted_ms": (one.ended_s - one.began_s) * 1000}


ROUTES = (
    Page("/mesh", overview),
    Page("/mesh.csv", as_csv),
    Page("/mesh/{node}", node),
    Page("/data/mesh/layout", layout),
    Page("/data/mesh/states", states),
    Page("/data/mesh/changes", changes),
)
NAV = (Nav("web.nav.mesh", "/mesh", 10),)
