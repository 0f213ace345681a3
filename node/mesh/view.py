"""Reads health.db: each node's state, the tree, counts, one node with its way up. What `fednode mesh` and the console
show.

Rules
1. A state is made here, from what was said and how old it is (`node.mesh.bounds`); it is stored nowhere. The first that
   holds: revoked; superseded (what is known is of an earlier life, or the node says that another took its place);
   alert; unknown; never (nothing heard yet); stale; behind; ok.
2. A node is known to be as it was said up to `known_ms`: while its exchange is open, as long as its parent is known,
   else when its parent heard it last. A node that is silent for longer than its level may be is stale.
3. Below a node that is silent, or tells nothing (an older program), all is unknown since then: that is one thing, a
   cut, and not as many as there are nodes.
4. Only nodes that have children are looked at one by one; all else is done by SQLite.

>>> # view = View(table.connection, "13", bounds, now_ms); view.page(Filter(states=("stale",))); view.counts("level")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fednode.node import sqlite
from fednode.node.fence import SUPERSEDED as SUCCEEDED
from fednode.node.mesh.bounds import STATES, Bounds
from fednode.node.units import version_number

PAGE_DEFAULT, PAGE_MAX = 100, 10_000
GROUPS = ("level", "area", "state")
_SUCCEEDED = ", ".join(f"'{code}'" for code in sorted(SUCCEEDED))
_KNOWN = "iif(n.id = :me, :now, iif(n.up, a.known_s, n.seen_s))"
_STATE = f"""case
    when n.revoked then 'revoked'
    when n.said_life < n.life or n.fenced in ({_SUCCEEDED}) then 'superseded'
    when n.alerts_critical > 0 or n.fenced <> '' or n.accused > 0 then 'alert'
    when n.id <> :me and a.cut is not null then 'unknown'
    when n.id <> :me and n.seen_s is null then 'never'
    when n.id <> :me and :now - {_KNOWN} > {{stale}} then 'stale'
    when n.since_s > 0 and :now - n.since_s > {{behind}} then 'behind'
    when :much > 0 and n.changes + n.system >= :much then 'behind'
    else 'ok' end"""
_NEVER = 1 << 60
_DUE = f"""min(iif({_KNOWN} + {{stale}} >= :now, {_KNOWN} + {{stale}} + 1, {_NEVER}),
    iif(n.since_s > 0 and n.since_s + {{behind}} >= :now, n.since_s + {{behind}} + 1, {_NEVER}))"""
_FROM = "from node n left join temp.above a on a.id = n.parent where n.known = 1"
_COLUMNS = (
    *("id", "name", "level", "area", "parent", "path", "life", "said_life", "stands_for", "revoked", "children"),
    *("seen_s", "up", "changes", "system", "bytes", "since_s", "alerts_critical", "alerts_warning", "accused"),
    *("standbys", "standby_changes", "standby_since_s", "software", "catalog", "disk_free_mib", "disk_total_mib"),
    *("clock_ms", "unsure", "certificate_s", "drill_s", "fenced", "arrived_ms"),
)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which nodes: of these levels, of these states, in this area. `after`: the last node of the page before. Nodes
    that are unknown are left out, unless that state is asked for: `View.cuts` has them as one."""

    levels: tuple[str, ...] = ()
    states: tuple[str, ...] = ()
    area: str = ""
    after: str = ""
    limit: int = PAGE_DEFAULT


@dataclass(frozen=True, slots=True)
class Cut:
    """A node below which nothing is known, since when (None: ever), and why: `silent`, or `older` (it tells nothing).
    `below`: how many nodes are under it."""

    id: str
    since_ms: int | None
    why: str
    below: int


class View:
    """As of `now_ms`, by the reference clock. `connection`: to health.db; `me`: this node."""

    def __init__(self, connection: sqlite.Connection, me: str, bounds: Bounds, now_ms: int) -> None:
        self._c, self._me = connection, me
        self._given: dict[str, Any] = {"me": me, "now": now_ms // 1000, "much": bounds.changes}
        spans = {
            "stale": self._by_level("stale", bounds.stale, bounds.stale_s("")),
            "behind": self._by_level("behind", bounds.behind, bounds.behind_s("")),
        }
        self._state, self._due = _STATE.format(**spans), _DUE.format(**spans)
        self._cuts: dict[str, tuple[int | None, str]] = {}
        self._prepare(bounds, now_ms // 1000)

    def _by_level(self, name: str, found: Mapping[str, int], default: int) -> str:
        """Seconds that a level has, as SQL."""
        self._given |= {f"{name}_default": default}
        cases = ""
        for i, (level, seconds) in enumerate(found.items()):
            self._given |= {f"{name}_level{i}": level, f"{name}_s{i}": seconds}
            cases += f" when :{name}_level{i} then :{name}_s{i}"
        return f"case n.level{cases} else :{name}_default end" if cases else f":{name}_default"

    def _prepare(self, bounds: Bounds, now_s: int) -> None:
        """Rules 2 to 4: up to when each node with children is known, and under which cut its children are."""
        c = self._c
        c.execute("drop table if exists temp.above")
        c.execute("create temp table above (id text primary key, known_s integer, cut text) without rowid")
        known: dict[str, int | None] = {self._me: now_s}
        under: dict[str, str | None] = {self._me: None}
        rows = c.execute(
            """select id, parent, level, up, seen_s, software, revoked from node
               where children > 0 and known = 1 order by path"""
        ).fetchall()
        for node, parent, level, up, seen_s, software, revoked in rows:
            if node == self._me:
                continue
            known[node] = at_s = known.get(parent) if up else seen_s
            under[node] = under.get(parent)
            if under[node] is not None:
                continue
            silent = at_s is None or now_s - at_s > bounds.stale_s(level) or revoked
            if silent or software is None:
                self._cuts[node] = (at_s, "silent" if silent else "older")
                under[node] = node
        c.executemany("insert into temp.above values (?, ?, ?)", [(node, known[node], under[node]) for node in known])

    # ------------------------------------------------------------ many

    def older_than(self, version: str) -> list[str]:
        """The nodes below this one that are not known to run this version of the program or a later one: they last said
        another, or have never said any. Not those that are revoked."""
        least = version_number(version) or 0
        rows = self._c.execute(
            "select id, software from node where known = 1 and revoked = 0 and id <> ? order by path", (self._me,)
        ).fetchall()
        return [node for node, software in rows if (version_number(software or "") or -1) < least]

    def _where(self, wanted: Filter) -> tuple[str, dict[str, Any]]:
        conditions, given = [], dict(self._given)
        if wanted.area:
            conditions.append("n.area >= :area and n.area < :area_end")
            given |= {"area": wanted.area, "area_end": wanted.area + ":"}  # ':' follows '9'
        for name, column, values in (("level", "n.level", wanted.levels), ("state", f"({self._state})", wanted.states)):
            if values:
                marks = ", ".join(f":{name}{i}" for i in range(len(values)))
                conditions.append(f"{column} in ({marks})")
                given |= {f"{name}{i}": value for i, value in enumerate(values)}
        return "".join(f" and {one}" for one in conditions), given

    def page(self, wanted: Filter) -> tuple[list[dict[str, Any]], str]:
        """Nodes in the order of the tree, and after which the next page begins ("": there is none)."""
        where, given = self._where(wanted)
        if not wanted.states:
            where += f" and ({self._state}) <> 'unknown'"
        row = self._c.execute("select path from node where id = ?", (wanted.after,)).fetchone()
        columns = ", ".join(f"n.{name}" for name in _COLUMNS)
        rows = self._c.execute(
            f"""select {columns}, {_KNOWN}, {self._state}, a.cut {_FROM} and n.path > :after {where}
                order by n.path limit :limit""",
            {**given, "after": row[0] if row else "", "limit": wanted.limit + 1},
        ).fetchall()
        found = [_shown(row) for row in rows[: wanted.limit]]
        return found, found[-1]["id"] if len(rows) > wanted.limit else ""

    def counts(self, by: str, wanted: Filter) -> list[dict[str, Any]]:
        """How many nodes of each state: by `level`, by `area` (the nodes right below this one, or below the one of the
        area that is asked for), or by `state`, all together."""
        where, given = self._where(wanted)
        key, base = {"level": "n.level", "state": "''"}.get(by, ""), ""
        if by == "area":
            base = self._path_of(wanted.area)
            rest = "substr(n.path || ' ', length(:base) + 2)"
            key = f"iif(n.path = :base, '', substr({rest}, 1, instr({rest}, ' ') - 1))"
            where += " and (n.path = :base or (n.path >= :base || ' ' and n.path < :base || '!'))"
        sql = f"select {key} as grouped, {self._state} as state, count(*) {_FROM} {where} group by 1, 2"
        rows = self._c.execute(sql, {**given, "base": base}).fetchall()
        groups: dict[str, dict[str, int]] = {}
        for group, state, count in rows:
            groups.setdefault(group, dict.fromkeys(STATES, 0))[state] = count
        order = self._order(by, base)
        keys = sorted(groups, key=lambda one: order.get(one, (len(order), one)))
        return [self._group(by, one, base, groups[one]) for one in keys]

    def _order(self, by: str, base: str) -> dict[str, tuple[int, str]]:
        """Levels from the highest down; nodes by their code."""
        if by != "level":
            return {}
        sql = "select level, min(length(path) - length(replace(path, ' ', ''))) from node where known = 1 group by 1"
        return {level: (depth, level) for level, depth in self._c.execute(sql)}

    def _group(self, by: str, key: str, base: str, states: dict[str, int]) -> dict[str, Any]:
        found: dict[str, Any] = {"nodes": sum(states.values()), "states": states}
        if by == "level":
            return {"level": key, **found}
        if by == "state":
            return found
        node = key or base.rpartition(" ")[2]
        row = self._c.execute("select name from node where id = ?", (node,)).fetchone()
        return {"id": node, "name": row[0] if row else "", "itself": not key, **found}

    def _path_of(self, area: str) -> str:
        """The path of the node that an area is grouped under."""
        row = self._c.execute(
            """select path from node where known = 1 and stands_for = '' and (id = ?1 or area = ?1)
               order by length(path) limit 1""",
            (area,),
        ).fetchone()
        mine = self._c.execute("select path from node where id = ?", (self._me,)).fetchone()
        return str((row if area and row else mine or ("",))[0])

    def cuts(self) -> list[Cut]:
        """Where nothing is known further down, each with how many nodes are there; whoever stands higher first."""
        counted = dict(
            self._c.execute(
                """select a.cut, count(*) from node n join temp.above a on a.id = n.parent
                   where n.known = 1 and a.cut is not null group by 1"""
            ).fetchall()
        )
        return [
            Cut(node, None if at_s is None else at_s * 1000, why, counted.get(node, 0))
            for node, (at_s, why) in self._cuts.items()
        ]

    def standing(self, nodes: Sequence[str] | None = None) -> list[tuple[str, str, int]]:
        """Of these nodes, or of all: id, state, and the second from which on that may be another by time alone."""
        given, where = dict(self._given), ""
        if nodes is not None:
            where = "and n.id in (select value from json_each(:nodes))"
            given["nodes"] = json.dumps(list(nodes))
        rows = self._c.execute(f"select n.id, {self._state}, {self._due} {_FROM} {where}", given)
        return [(node, state, due_s) for node, state, due_s in rows]

    # ------------------------------------------------------------ one

    def node(self, node: str) -> dict[str, Any] | None:
        """Everything known of a node; None for one that is not in this subtree."""
        columns = ", ".join(f"n.{name}" for name in _COLUMNS)
        row = self._c.execute(
            f"select {columns}, {_KNOWN}, {self._state}, a.cut {_FROM} and n.id = :node", {**self._given, "node": node}
        ).fetchone()
        return None if row is None else _shown(row)

    def some(self, nodes: Sequence[str]) -> list[dict[str, Any]]:
        """Everything known of each of these nodes that is in this subtree, in the order of the tree."""
        columns = ", ".join(f"n.{name}" for name in _COLUMNS)
        rows = self._c.execute(
            f"""select {columns}, {_KNOWN}, {self._state}, a.cut {_FROM}
                and n.id in (select value from json_each(:nodes)) order by n.path""",
            {**self._given, "nodes": json.dumps(list(nodes))},
        ).fetchall()
        return [_shown(row) for row in rows]

    def named(self, text: str, limit: int) -> list[str]:
        """Nodes whose name has this in it, or whose id begins with it, in the order of the tree."""
        rows = self._c.execute(
            """select id from node where known = 1 and (instr(name, ?1) > 0 or substr(id, 1, length(?1)) = ?1)
               order by path limit ?2""",
            (text, limit),
        )
        return [node for (node,) in rows]

    def way_up(self, node: dict[str, Any]) -> list[dict[str, Any]]:
        """The nodes above one, up to this one, the nearest first."""
        above = str(node["path"]).split(" ")[-2::-1]
        return [found for found in map(self.node, above) if found is not None]


def _shown(row: Sequence[Any]) -> dict[str, Any]:
    """A row for a document: times in milliseconds."""
    found: dict[str, Any] = dict(zip(_COLUMNS, row[: len(_COLUMNS)], strict=True))
    known_s, state, cut = row[len(_COLUMNS) :]
    for name in ("revoked", "up"):
        found[name] = bool(found[name])
    found["unsure"] = None if found["unsure"] is None else bool(found["unsure"])
    seen_s, since_s, standby_s = (found.pop(name) for name in ("seen_s", "since_s", "standby_since_s"))
    drill_s = found.pop("drill_s")
    return {
        **found,
        "state": state,
        "cut": cut if state == "unknown" else None,
        "known_ms": None if known_s is None else known_s * 1000,
        "seen_ms": None if seen_s is None else seen_s * 1000,
        "since_ms": since_s * 1000 if since_s else None,
        "standby_since_ms": standby_s * 1000 if standby_s else None,
        "drill_ms": drill_s * 1000 if drill_s else None,
    }
