"""What health.db says, as documents: for `fednode mesh`, and for whoever shows it otherwise.

Rules
1. Reading works beside the daemon and without one, and with no link: what a command finds is brought up to date first
   (who there is, and how this node itself is), where the disk allows it.

>>> # with opened(app) as view: overview(app, view, Filter(states=("stale",)), "area")
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fednode.node import sqlite
from fednode.node.lag import Samples
from fednode.node.mesh.bounds import STATES
from fednode.node.mesh.view import Filter, View
from fednode.node.mesh.watcher import Keeping, bounds_of
from fednode.sync.errors import Refused, StoreError

if TYPE_CHECKING:
    from fednode.node.app import App


@contextlib.contextmanager
def opened(app: App) -> Iterator[View]:
    """The view as of now. Raises StoreError where there is nothing to read and nothing can be written."""
    app.trust.refresh(app.store)
    connection = _connection(app)
    try:
        yield View(connection, app.trust.node, bounds_of(app), app.now_ms())
    except sqlite.DatabaseError as error:
        raise sqlite.trouble(error, app.home.health_db) from error
    finally:
        connection.close()


def _connection(app: App) -> sqlite.Connection:
    """To health.db, brought up to date (rule 1); where nothing can be written, as it is."""
    there = app.home.health_db.exists()
    try:
        if not (there and app.room.low):
            keeping = Keeping(app, app.store)
            keeping.look(Samples(), alone=not app.home.running())
            return keeping.table.connection
    except StoreError:
        if not there:
            raise
    return sqlite.connect(app.home.health_db, synchronous="NORMAL", readonly=True)


def overview(app: App, view: View, wanted: Filter, by: str = "") -> dict[str, Any]:
    """A page of nodes, or, with `by`, how many there are of each state in each group; the sum; the cuts; who was
    invited here and has not joined."""
    (total,) = view.counts("state", Filter(wanted.levels, (), wanted.area)) or [{"nodes": 0, "states": {}}]
    nodes, after = ([], "") if by else view.page(wanted)
    return {
        "me": app.trust.node,
        "now_ms": app.now_ms(),
        "total": {"nodes": total["nodes"], "states": {state: total["states"].get(state, 0) for state in STATES}},
        "groups": view.counts(by, wanted) if by else None,
        "nodes": nodes,
        "next": after,
        "cuts": [{"id": one.id, "since_ms": one.since_ms, "why": one.why, "below": one.below} for one in view.cuts()],
        "invited": [
            {"id": one.node, "name": one.name, "level": one.level, "expires_s": one.expires_s}
            for one in app.store.invitations()
            if one.used_key is None and app.trust.directory.get(one.node) is None
        ],
    }


def older_than(app: App, version: str) -> list[str]:
    """The nodes below this one that are not known to run this version of the program or a later one."""
    with opened(app) as view:
        return view.older_than(version)


def one(app: App, view: View, node: str) -> dict[str, Any]:
    """Everything known of a node. Raises Refused FN-3110 for one that is not in this subtree."""
    found = view.node(node)
    if found is None:
        raise Refused("FN-3110", node=node)
    standbys = [view.node(one.node) for one in app.trust.directory.standbys_of(node)]
    return {
        "me": app.trust.node,
        "now_ms": app.now_ms(),
        "node": found,
        "way_up": view.way_up(found),
        "standbys": [one for one in standbys if one is not None],
    }
