"""What this node says of itself: its backlog, its alerts, its standbys; its program, disk, clock, certificate, drills.

Rules
1. Reading only, from a store of the caller's thread; what cannot be read is left out.
2. A backlog counts from `YOUNG_S` on: what is on its way is none. It is as old as its first change has been here: by
   what the daemon has seen arrive, else by that change's own stamp, or its first witness's.
3. An alert counts where it was raised, at its level; what a rule has found about a node below is no trouble of whoever
   sees it, and counts nowhere: that node's own state says it.

>>> severity("FN-6420"), severity("FN-4524")
('critical', 'warning')
"""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import fednode
from fednode.node import drills, fence, lag, sqlite
from fednode.node.alerting.rules import CRITICAL, WARNING
from fednode.node.lag import Samples
from fednode.node.store import Store
from fednode.sync.change import ALERTS
from fednode.sync.health import About, Load

if TYPE_CHECKING:
    from fednode.node.app import App

YOUNG_S = 30
MIB = 1024 * 1024
ALERT_KEYS = ("FN-", "FN.")  # from, to: a range of the index, however many records there are


def severity(code: str) -> str:
    """The level of an alert that does not say its own: integrity and refused peers are critical."""
    return CRITICAL if code.startswith(("FN-5", "FN-6")) else WARNING


@dataclass(slots=True)
class Alerts:
    """Open alerts, as this node's projection has them. `raised`: by level, those that this node has raised; `accused`:
    by node, the critical ones about it, whoever raised them."""

    raised: Counter[str] = field(default_factory=Counter)
    accused: Counter[str] = field(default_factory=Counter)


def alerts(state_db: Path, me: str) -> Alerts:
    """Nothing where there is no projection yet. Raises what SQLite raises."""
    if not state_db.exists():
        return Alerts()
    connection = sqlite.connect(state_db, synchronous="NORMAL", readonly=True, cache_kib=512)
    try:
        return alerts_in(connection, me)
    finally:
        connection.close()


def alerts_in(connection: sqlite.Connection, me: str) -> Alerts:
    """The same, of state.db as somebody has opened it. Raises what SQLite raises."""
    found = Alerts()
    if connection.execute("select 1 from sqlite_master where name = 'record'").fetchone() is None:
        return found
    rows = connection.execute(
        """select payload ->> '$.code', payload ->> '$.node', payload ->> '$.by', payload ->> '$.level', count(*)
           from record where key >= ? and key < ? and dataset = (select id from dataset where name = ?) and op = 1
           and payload ->> '$.state' = 'open' group by 1, 2, 3, 4""",
        (*ALERT_KEYS, ALERTS),
    ).fetchall()
    for code, node, by, told, count in rows:
        level = severity(str(code))
        if by == me and (told is None or node == me):
            found.raised[told or level] += count
        if level == CRITICAL:
            found.accused[str(node)] += count
    return found


def load(app: App, store: Store, samples: Samples, found: Alerts) -> Load:
    """What changes often. `samples`: arrival numbers as the daemon has seen them."""
    standbys, standby_changes, standby_since_s = _standbys(app, store)
    changes = system = size = since_s = 0
    parent = app.trust.parent
    if parent is not None:
        peer = store.peer(parent.node)
        acked = peer.acked if peer else 0
        since_s = _since_s(store, samples, acked, app.now_s)
        if since_s and app.now_s - since_s >= YOUNG_S:
            backlog = store.backlog_up(acked)
            changes, system, size = backlog.changes, backlog.system, backlog.bytes
    return Load(
        *(changes, system, size, since_s if size else 0),
        *(found.raised[CRITICAL], found.raised[WARNING]),
        *(standbys, standby_changes, standby_since_s),
    )


def _since_s(store: Store, samples: Samples, acked: int, now_s: int) -> int:
    """Since when this node has had the oldest change that its parent does not hold; 0 where there is none."""
    rows = store.rows(
        """select s.lsn, s.last_hlc, s.first_time, s.peer from segment s join log l on l.id = s.log_id
           where l.up = 1 and s.lsn > ? and s.lsn not in (select lsn from held_back) order by s.lsn limit 1""",
        acked,
    )
    if not rows:
        return 0
    lsn, last_hlc, first_time, peer = rows[0]
    if seen_ms := samples.since(lsn - 1) if samples.covers(lsn) else 0:
        return seen_ms // 1000
    stamp = (last_hlc >> 16) // 1000 if peer is None or first_time is None else int(first_time)
    return min(stamp, now_s)


def _standbys(app: App, store: Store) -> tuple[int, int, int]:
    """How many there are, and what the nearest of them has not acknowledged, since when."""
    names = [one.node for one in app.trust.directory.standbys_of(app.trust.node)]
    if not names:
        return 0, 0, 0
    words = lag.read(app.home.run_dir)
    behind = []
    for node in names:
        peer = store.peer(node)
        word = words.get(node, lag.Word())
        behind.append((store.backlog_standby(node, peer.acked if peer else 0).all, word.since_ms // 1000))
    changes, since_s = min(behind)
    old = bool(since_s) and app.now_s - since_s >= YOUNG_S
    return len(names), changes if old or not since_s else 0, since_s if old else 0


def about(app: App, store: Store) -> About:
    """What changes rarely."""
    me, reference, there = app.trust.me, app.reference, fence.standing(store)
    disk = shutil.disk_usage(app.home.path)
    good = next((one.at_ms for one in drills.history(app.home) if one.passed), 0)
    return About(
        fednode.__version__,
        app.trust.catalog_version,
        disk.free // MIB,
        disk.total // MIB,
        reference.offset_ms,
        not reference.sure,
        me.not_after,
        good // 1000,
        there.code if there is not None else "",
    )
