"""What moved between this node and each peer, and how far who tells was behind: samples, and the last exchanges.

Rules
1. It lies in health.db, and may be lost with it. Nothing rests on it; it is for people who look.
2. A sample is of one peer (the parent, or a child) and one span of time: what went out and came in, and the backlog
   and lag of who sends upwards (of the parent's: this node's own), the greatest in that span. Each is counted in a fine
   and a coarse span. Where nothing moved there is none.
3. Everything is bounded: by age, by peer, and all together.

>>> # history = History(table.connection, path); history.add({"1301": Moved(bytes_out=7)}, now_s, "", "13")
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fednode.node import sqlite

FINE_PARENT_S, FINE_CHILD_S, COARSE_S = 60, 600, 3600
FINE_KEPT_S, COARSE_KEPT_S = 2 * 86_400, 60 * 86_400
ROWS_MAX = 200_000
MEETINGS_OF_ONE_MAX, MEETINGS_MAX = 50, 20_000
_SUMS = ("segments_out", "segments_in", "bytes_out", "bytes_in")
_GREATEST = ("changes", "lag_s")


@dataclass(frozen=True, slots=True)
class Moved:
    """What one exchange, or a part of it, has moved: sealed segments, and bytes of frames."""

    segments_out: int = 0
    segments_in: int = 0
    bytes_out: int = 0
    bytes_in: int = 0

    def less(self, before: Moved) -> Moved:
        """Since then."""
        return Moved(*(getattr(self, name) - getattr(before, name) for name in _SUMS))


@dataclass(frozen=True, slots=True)
class Meeting:
    """One exchange that has ended. `dialled`: with the parent. `code`: why, where it did not end well."""

    node: str
    dialled: bool
    began_s: int
    ended_s: int
    moved: Moved
    code: str = ""


class History:
    """On the connection of the table of health.db, in its thread."""

    def __init__(self, connection: sqlite.Connection, path: Path) -> None:
        self._c, self._path = connection, path

    # ------------------------------------------------------------ writing

    def add(self, moved: Mapping[str, Moved], at_s: int, parent: str, me: str) -> None:
        """What moved with each peer until now. With it stands what the one below last said of its backlog."""
        with sqlite.transaction(self._c, self._path) as c:
            for peer, one in moved.items():
                teller = me if peer == parent else peer
                row = c.execute("select changes + system, since_s from node where id = ?", (teller,)).fetchone()
                changes, since_s = (0, 0) if row is None else (row[0] or 0, row[1] or 0)
                told = (changes, max(0, at_s - since_s) if since_s else 0)
                for step_s in (FINE_PARENT_S if peer == parent else FINE_CHILD_S, COARSE_S):
                    self._put(peer, step_s, at_s, (*(getattr(one, name) for name in _SUMS), *told))

    def _put(self, peer: str, step_s: int, at_s: int, values: Sequence[int]) -> None:
        names = (*_SUMS, *_GREATEST)
        more = [f"{name} = {name} + excluded.{name}" for name in _SUMS]
        more += [f"{name} = max({name}, excluded.{name})" for name in _GREATEST]
        self._c.execute(
            f"""insert into traffic (node, step_s, at_s, {", ".join(names)})
                values (?, ?, ?{", ?" * len(names)}) on conflict do update set {", ".join(more)}""",
            (peer, step_s, at_s // step_s * step_s, *values),
        )

    def met(self, one: Meeting) -> None:
        """An exchange has ended."""
        with sqlite.transaction(self._c, self._path) as c:
            values = (*(getattr(one.moved, name) for name in _SUMS), one.code)
            c.execute(
                "insert into meeting values (null, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (one.node, one.dialled, one.began_s, one.ended_s, *values),
            )
            c.execute(
                """delete from meeting where node = ?1 and id <=
                   (select id from meeting where node = ?1 order by id desc limit 1 offset ?2)""",
                (one.node, MEETINGS_OF_ONE_MAX),
            )

    def prune(self, now_s: int) -> None:
        """Forget what is old, or too much."""
        with sqlite.transaction(self._c, self._path) as c:
            c.execute("delete from traffic where step_s < ? and at_s < ?", (COARSE_S, now_s - FINE_KEPT_S))
            c.execute("delete from traffic where at_s < ?", (now_s - COARSE_KEPT_S,))
            c.execute(
                """delete from traffic where at_s <=
                   (select at_s from traffic order by at_s desc limit 1 offset ?)""",
                (ROWS_MAX,),
            )
            c.execute(
                "delete from meeting where id <= (select id from meeting order by id desc limit 1 offset ?)",
                (MEETINGS_MAX,),
            )

    # ------------------------------------------------------------ reading

    def series(self, peers: Sequence[str], step_s: int, since_s: int) -> list[dict[str, int]]:
        """The samples of these peers together, oldest first: sums of what moved, the greatest backlog and lag."""
        sums = [f"sum({name}) as {name}" for name in _SUMS] + [f"max({name}) as {name}" for name in _GREATEST]
        names = ("at_s", *_SUMS, *_GREATEST)
        rows = self._c.execute(
            f"""select at_s, {", ".join(sums)} from traffic
                where node in (select value from json_each(?)) and step_s = ? and at_s >= ?
                group by at_s order by at_s""",
            (json.dumps(list(peers)), step_s, since_s),
        ).fetchall()
        return [dict(zip(names, row, strict=True)) for row in rows]

    def meetings(self, node: str, limit: int = MEETINGS_OF_ONE_MAX) -> list[Meeting]:
        """The last exchanges with a peer, the newest first."""
        rows = self._c.execute(
            f"""select node, dialled, began_s, ended_s, {", ".join(_SUMS)}, code from meeting
                where node = ? order by id desc limit ?""",
            (node, limit),
        ).fetchall()
        return [Meeting(row[0], bool(row[1]), row[2], row[3], Moved(*row[4:8]), row[8]) for row in rows]


class Tally:
    """What the sessions of a daemon have moved since it was last asked. Pure; `key`: a session."""

    def __init__(self) -> None:
        self._open: dict[Any, tuple[str, bool, int, Moved]] = {}
        self._rest: dict[str, Moved] = {}

    def began(self, key: object, node: str, dialled: bool, now_s: int) -> None:
        """A session is open."""
        self._open[key] = (node, dialled, now_s, Moved())

    def ended(self, key: object, total: Moved, now_s: int, code: str) -> Meeting | None:
        """It has ended, with so much moved in all. None for one that never began."""
        if key not in self._open:
            return None
        node, dialled, began_s, before = self._open.pop(key)
        self._add(self._rest, node, total.less(before))
        return Meeting(node, dialled, began_s, max(began_s, now_s), total, code)

    def take(self, totals: Mapping[Any, Moved]) -> dict[str, Moved]:
        """By peer, what was moved since the last time. `totals`: of the sessions that are open."""
        found, self._rest = self._rest, {}
        for key, total in totals.items():
            if key in self._open:
                node, dialled, began_s, before = self._open[key]
                self._open[key] = (node, dialled, began_s, total)
                self._add(found, node, total.less(before))
        return found

    @staticmethod
    def _add(found: dict[str, Moved], node: str, more: Moved) -> None:
        had = found.get(node, Moved())
        found[node] = replace(had, **{name: getattr(had, name) + getattr(more, name) for name in _SUMS})
