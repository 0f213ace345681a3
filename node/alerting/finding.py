"""Where a rule holds at this moment, at this node and right below it.

Rules
1. Reading only: health.db, state.db and log.db, as they are. What cannot be read says nothing, so nothing is closed
   for it.
2. A node says of itself what it knows best (disk, clock, certificate, standbys, drills); of a child its parent says
   that it is silent, behind, or of an old program. So each is said once, wherever it is.
3. Silence counts from when this node began to serve: after a night in which it was off itself, nobody is late.
4. More than `EACH_MAX` of one rule at once are one thing: an alert with their number. They are single again when there
   are half as many.
5. Areas are looked at once in `[alerts] coverage`: that reads every record. A blank area is said by the node right
   above it, once for all datasets that it lacks; late is what this node has published itself.

>>> found = [Found("stale", "FN-4610", str(n), {}) for n in range(EACH_MAX + 1)]
>>> [(one.code, one.params["count"]) for one in fewer(found, "13", ())]
[('FN-4613', 21)]
>>> len(fewer(found[1:], "13", ())), len(fewer(found[11:], "13", {many_key("13", "stale")}))
(20, 10)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

import fednode
from fednode.crypto.certs import iso
from fednode.node import acks, drills, sqlite
from fednode.node.alerting.rules import MANY, Rules
from fednode.node.coverage import Wanted, measured
from fednode.node.journal import alert_key
from fednode.node.mesh.bounds import Bounds
from fednode.node.timeliness import timeliness
from fednode.node.units import version_number
from fednode.sync.change import AUDIT
from fednode.sync.clock import stamp

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.store import Store

EACH_MAX = 20
NAMES_MAX = 8
SILENT_S = 600  # a program that has been connected for so long and told nothing of itself is an older one
DAY_S = 86_400
REFUSALS_S = DAY_S
REVOKED = "FN-5511"
REFUSED_ACTIONS = ("session.refused", "join.refused", "segment.refused", "segment.rejected", "renewal.refused")
OF_MESH = ("cut", "stale", "backlog", "version")
OF_ITSELF = ("clock", "certificate", "disk", "standby", "room", "away", "drill")
OF_AUDIT = ("revoked", "refusals")
OF_AREAS = ("blank", "late")


class Found(msgspec.Struct, frozen=True):
    """What an alert would say. `subject`: what tells two alerts of one code about a node apart."""

    rule: str
    code: str
    node: str
    params: dict[str, Any]
    subject: str = ""

    @property
    def key(self) -> str:
        """Of its alert."""
        return alert_key(self.code, self.node, self.subject)


@dataclass(slots=True)
class Findings:
    """What holds, and which rules were looked at."""

    found: list[Found] = field(default_factory=list)
    looked: set[str] = field(default_factory=set)


def many_key(me: str, rule: str) -> str:
    """The key of the alert in place of many of a rule."""
    return alert_key(MANY, me, rule)


def names(nodes: Sequence[str]) -> str:
    """The first of them."""
    return ", ".join(nodes[:NAMES_MAX]) + (", ..." if len(nodes) > NAMES_MAX else "")


def fewer(found: Sequence[Found], me: str, active: Collection[str]) -> list[Found]:
    """Rule 4. `active`: keys of what held before."""
    counts = Counter(one.rule for one in found)
    much = {
        rule for rule, count in counts.items() if count > (EACH_MAX // 2 if many_key(me, rule) in active else EACH_MAX)
    }
    kept = [one for one in found if one.rule not in much]
    for rule in sorted(much):
        which = sorted(one.node for one in found if one.rule == rule)
        told = {"count": len(which), "node": me, "rule": rule, "names": names(which)}
        kept.append(Found(rule, MANY, me, told, rule))
    return kept


# ---------------------------------------------------------------- the mesh


def of_mesh(c: sqlite.Connection, me: str, bounds: Bounds, rules: Rules, now_s: int, began_s: int) -> Iterator[Found]:
    """What this node sees right below it. `c`: to health.db; `began_s`: since when it serves (rule 3)."""
    least = rules["version"].threshold or version_number(fednode.__version__) or 0
    old: list[str] = []
    for node, level, up, seen_s, since_s, changes, software, path in c.execute(
        """select id, level, up, seen_s, since_s, coalesce(changes, 0) + coalesce(system, 0), software, path from node
           where parent = ? and known = 1 and revoked = 0 and seen_s is not null order by id""",
        (me,),
    ).fetchall():
        if not up and now_s - max(seen_s, began_s) > bounds.stale_s(level):
            inside = "select count(*) from node where known = 1 and path >= ? || ' ' and path < ? || '!'"
            ((below,),) = c.execute(inside, (path, path)).fetchall()
            told = {"node": node, "since": iso(seen_s)}
            if below:
                yield Found("cut", "FN-4611", node, {**told, "below": below})
            else:
                yield Found("stale", "FN-4610", node, told)
            continue
        late = bool(since_s) and now_s - max(since_s, began_s) > bounds.behind_s(level)
        if late or 0 < bounds.changes <= changes:
            yield Found("backlog", "FN-4612", node, {"node": node, "since": iso(since_s or now_s), "changes": changes})
        told_nothing = software is None and up and now_s - max(seen_s, began_s) > SILENT_S
        if told_nothing or (software is not None and (version_number(software) or 0) < least):
            old.append(node)
    if old:
        told = {"count": len(old), "node": me, "least": f"{least // 10_000}.{least % 10_000}", "names": names(old)}
        yield Found("version", "FN-4614", me, told)


# ---------------------------------------------------------------- this node


def of_itself(c: sqlite.Connection, me: str, rules: Rules, now_s: int) -> Iterator[Found]:
    """What this node has said of itself. `c`: to health.db."""
    row = c.execute(
        """select clock_ms, unsure, certificate_s, disk_free_mib, disk_total_mib, standbys, standby_since_s
           from node where id = ?""",
        (me,),
    ).fetchone()
    if row is None:
        return
    clock_ms, unsure, certificate_s, free, total, standbys, standby_s = row
    if clock_ms and not unsure and abs(clock_ms) // 1000 > (rules["clock"].threshold or 0):
        yield Found("clock", "FN-4615", me, {"node": me, "seconds": abs(clock_ms) // 1000})
    if certificate_s and certificate_s - now_s < (rules["certificate"].threshold or 0):
        yield Found("certificate", "FN-4616", me, {"node": me, "until": iso(certificate_s)})
    if total and free * 100 < total * (rules["disk"].threshold or 0):
        yield Found("disk", "FN-4617", me, {"node": me, "percent": free * 100 // total, "free_mib": free})
    if standbys and standby_s and now_s - standby_s > (rules["standby"].threshold or 0):
        yield Found("standby", "FN-4618", me, {"node": me, "since": iso(standby_s)})


def raised_elsewhere(app: App, store: Store, active: Collection[str]) -> Iterator[Found]:
    """What is raised where it happens, and still holds. `active`: keys of what held before."""
    me = app.trust.node
    low = Found("room", "FN-7630", me, {"node": me, "reserve_bytes": app.room.reserve_bytes})
    if app.room.low or (low.key in active and not app.room.calm):
        yield low
    if app.config.ack == "standby" and (since_ms := store.meta(acks.AWAY)) is not None:
        told = {"node": me, "since": iso(int(since_ms) // 1000), "away": app.config.ack_away}
        yield Found("away", acks.ALERT, me, told)
    standing = drills.standing(app, store)
    if standing is not None and standing["overdue"]:
        since = iso(standing["good_ms"] // 1000) if standing["good_ms"] else "-"
        yield Found("drill", drills.OVERDUE, me, {"node": me, "since": since, "days": app.config.drill_days})


# ---------------------------------------------------------------- the audit


def of_audit(c: sqlite.Connection, app: App, rules: Rules, now_ms: int) -> Iterator[Found]:
    """Who was refused again and again, or is revoked and comes all the same. `c`: to state.db. An event's key begins
    with its stamp, so these are a range of the index."""
    revoked_s = rules["revoked"].threshold or DAY_S
    since_ms = max(0, now_ms - max(revoked_s, REFUSALS_S) * 1000)
    rows = c.execute(
        """select effective >> 16, payload ->> '$.code', payload ->> '$.details.peer' from record
           where key >= ? and key < 'g' and dataset = (select id from dataset where name = ?) and op = 1
           and payload ->> '$.node' = ? and payload ->> '$.outcome' = 'refused'
           and payload ->> '$.action' in (select value from json_each(?))""",
        (f"{stamp(since_ms):016x}", AUDIT, app.trust.node, msgspec.json.encode(REFUSED_ACTIONS).decode()),
    ).fetchall()
    directory, me = app.trust.directory, app.trust.node
    tried: dict[str, int] = {}
    refused: dict[tuple[str, str], list[int]] = {}
    for at_ms, code, peer in rows:
        if not peer or not str(code).startswith(("FN-5", "FN-6")):
            continue
        if code == REVOKED and directory.is_revoked(peer):
            if now_ms - at_ms < revoked_s * 1000:
                tried[peer] = max(at_ms, tried.get(peer, 0))
        elif now_ms - at_ms < REFUSALS_S * 1000:
            refused.setdefault((peer, code), []).append(at_ms)
    for peer in tried:
        yield Found("revoked", "FN-4619", peer, {"node": peer, "me": me})
    for (peer, code), times in refused.items():
        if len(times) >= (rules["refusals"].threshold or 1):
            told = {"peer": peer, "why": code, "since": iso(min(times) // 1000), "me": me}
            known = directory.get(peer) is not None
            yield Found("refusals", "FN-4620", peer if known else me, told, code if known else f"{peer} {code}"[:80])


# ---------------------------------------------------------------- areas


def of_areas(c: sqlite.Connection, app: App, rules: Rules) -> Iterator[Found]:
    """Rule 5. `c`: to state.db. A standby says nothing: its primary does."""
    trust = app.trust
    if trust.catalog is None or trust.me.stands_for:
        return
    if not rules["blank"].off:
        yield from _blank(c, app)
    if not rules["late"].off:
        yield from _late(c, app, rules["late"].threshold or 0)


def _blank(c: sqlite.Connection, app: App) -> Iterator[Found]:
    directory, coverage = app.trust.directory, measured(app, c)
    node_of = {one.scope[0]: one.node for one in directory.children_of(app.trust.node)}
    blank: dict[str, list[str]] = {}
    for row in coverage.rows(Wanted(blank=True, limit=None)):
        if row.must and row.parent == coverage.top:
            blank.setdefault(row.area, []).append(row.dataset)
    for area, datasets in blank.items():
        told = {"area": area, "count": len(datasets), "datasets": names(datasets)}
        yield Found("blank", "FN-4621", node_of.get(area, app.trust.node), told, area)


def _late(c: sqlite.Connection, app: App, percent: int) -> Iterator[Found]:
    trust = app.trust
    limited = [one for one in trust.catalog.datasets.values() if one.timeliness is not None] if trust.catalog else []
    own = set(trust.me.scope)
    for name, areas in timeliness(c, limited, trust.me.scope).items():
        mine = [one for area, one in areas.items() if area in own]
        dated, late = sum(one.dated for one in mine), sum(one.late for one in mine)
        if late and late * 100 >= dated * percent:
            days = next(one.timeliness.working_days for one in limited if one.name == name and one.timeliness)
            told = {"node": trust.node, "dataset": name, "late": late, "dated": dated, "days": days}
            yield Found("late", "FN-4622", trust.node, told, name)


def without(found: Iterable[Found], rules: Rules) -> list[Found]:
    """Those whose rules are not switched off."""
    return [one for one in found if not rules[one.rule].off]
