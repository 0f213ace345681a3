"""How this node stands, as one document: what `fednode status` shows, and what the console and the health report build
on.

Rules
1. Reading only: it never writes, and it works beside a running daemon and without one.
2. "Saved here" and "held by the parent" are two different numbers, always.
3. Counts of changes and records are of what people record. What the mesh keeps about itself (nodes, catalog, audit,
   alerts) is counted apart: `..._system`.

>>> days_left(1_000_000 + 3 * 86400, 1_000_000)
3
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.certs import Identity
from fednode.node import acks, audit, drills, fence, lag, scrub, sqlite
from fednode.node.demotion import handing_of
from fednode.node.jobs import window
from fednode.node.room import if_room
from fednode.node.store import Store

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.audit import Report


def days_left(until_s: int, now_s: int) -> int:
    """Whole days from now to a time, negative after it."""
    return (until_s - now_s) // 86400


def identity(me: Identity) -> dict[str, Any]:
    """What a node is, in a document."""
    return {
        "id": me.node,
        "name": me.name,
        "level": me.level,
        "domain": me.domain,
        "scope": list(me.scope),
        "incarnation": me.incarnation,
    }


def collect(app: App) -> dict[str, Any]:
    """Identity, parent link, sync windows, backlog, children, store, projections, catalog, certificate, clock, disk."""
    store, trust = app.store, app.trust
    trust.refresh(store)
    me, now_ms = trust.me, app.now_ms()
    logs = store.logs()
    return {
        "node": identity(me),
        "running": app.home.running(),
        "fenced": _fenced(app),
        "handing": _handing(store),
        "parent": _parent(app),
        "sync": window(app) if trust.parent is not None else None,
        "drill": drills.standing(app),
        "ack": acks.standing(app.config, store, trust),
        "standbys": lag.listing(app, of_others=False),
        "children": [_child(app, one.node) for one in trust.directory.children_of(me.node)],
        "store": {
            "lsn": store.lsn,
            "logs": len(logs),
            "changes": sum(size for _, name, size in logs if not name.is_system),
            "system_changes": sum(size for _, name, size in logs if name.is_system),
            "refused": len(store.refused()),
        },
        "projection": _projection(app),
        "catalog": trust.catalog_version,
        "certificate": {
            "valid_to_s": me.not_after,
            "days_left": days_left(me.not_after, now_ms // 1000),
            "revoked": trust.directory.is_revoked(me.node),
        },
        "clock": {"offset_ms": app.reference.offset_ms, "sure": app.reference.sure},
        "verified": _verified(store),
        "backup": backed_up(app),
        "disk": {
            "free_bytes": shutil.disk_usage(app.home.path).free,
            "reserve_bytes": app.room.held(),
            "low": app.room.low,
        },
    }


def note_verified(store: Store, now_ms: int, report: Report) -> None:
    """Keep how a verification of all logs ended."""
    told = {"at_ms": now_ms, "changes": report.changes, "problems": len(report.problems)}
    with if_room(), store.write() as tx:
        tx.set_meta("verified_full" if report.full else "verified_new", msgspec.json.encode(told))


def _verified(store: Store) -> dict[str, Any]:
    """When all was last verified at once, when what was new, and where the scrub stands."""
    state = scrub.load(store)
    return {
        "full": msgspec.json.decode(store.meta("verified_full") or b"null"),
        "new": msgspec.json.decode(store.meta("verified_new") or b"null"),
        "scrub": {
            "started_ms": state.started_ms or None,
            "changes": state.done,
            "of": audit.size_of_all(store),
            "problems": [msgspec.to_builtins(one) for one in state.problems],
            "last_ended_ms": state.last_ended_ms or None,
            "last_changes": state.last_changes,
            "last_problems": state.last_problems,
        },
    }


def backed_up(app: App) -> dict[str, Any] | None:
    """The last backup into the place that the settings name; None where they name none."""
    from fednode.node.backup.making import remembered
    from fednode.node.backup.places import place_of

    if not app.config.backup_to:
        return None
    shown = place_of(app.config.backup_to, app.config).shown
    last = remembered(app.store, shown)
    found = {"place": shown, "number": None, "lsn": None, "made_ms": None}
    return found if last is None else {**found, "number": last.number, "lsn": last.lsn, "made_ms": last.made_ms}


def _handing(store: Store) -> dict[str, Any] | None:
    """To whom this node hands over its place."""
    found = handing_of(store)
    return None if found is None else {"standby": found.standby, "at_ms": found.at_ms}


def _fenced(app: App) -> dict[str, Any] | None:
    """Why this node writes no more, None when it does."""
    found = fence.standing(app.store)
    return None if found is None else {"code": found.code, "at_ms": found.at_ms, "heads": list(found.heads)}


def _parent(app: App) -> dict[str, Any] | None:
    parent = app.trust.parent
    if parent is None:
        return None
    peer = app.store.peer(parent.node)
    backlog = app.store.backlog_up(peer.acked if peer else 0)
    return {
        "id": parent.node,
        "name": parent.name,
        "addresses": list(app.parent_addresses()),
        "last_exchange_ms": peer.last_ms if peer else None,
        "last_error": peer.last_error if peer else None,
        "pending_changes": backlog.changes,
        "pending_system": backlog.system,
        "pending_segments": backlog.segments,
        "pending_bytes": backlog.bytes,
    }


def _child(app: App, node: str) -> dict[str, Any]:
    peer = app.store.peer(node)
    identity = app.trust.directory.get(node)
    acked = peer.acked if peer else 0
    if identity is not None and identity.stands_for == app.trust.node:
        backlog = app.store.backlog_standby(node, acked)
    else:
        backlog = app.store.backlog_down(identity.scope if identity else (), acked)
    return {
        "id": node,
        "name": identity.name if identity else "",
        "last_exchange_ms": peer.last_ms if peer else None,
        "last_error": peer.last_error if peer else None,
        "pending_changes": backlog.changes,
        "pending_system": backlog.system,
        "revoked": app.trust.directory.is_revoked(node),
    }


def _projection(app: App) -> dict[str, Any]:
    """How far state.db follows; it need not exist yet, or be no more than a file."""
    nothing = {"lsn": 0, "behind": app.store.lsn, "records": 0}
    if not app.home.state_db.exists():
        return nothing
    connection = sqlite.connect(app.home.state_db, synchronous="NORMAL", readonly=True)
    try:
        if connection.execute("select 1 from sqlite_master where name = 'record'").fetchone() is None:
            return nothing
        row = connection.execute("select value from meta where key = 'lsn'").fetchone()
        records = connection.execute(
            """select count(*) from record where op = 1
               and dataset not in (select id from dataset where name like 'sys.%')"""
        ).fetchone()[0]
    except sqlite.DatabaseError as error:
        raise sqlite.trouble(error, app.home.state_db) from error
    finally:
        connection.close()
    lsn = int(row[0]) if row else 0
    return {"lsn": lsn, "behind": max(0, app.store.lsn - lsn), "records": int(records)}
