"""Every node of the subtree as one character, kept up to date: what the overview draws.

Rules
1. The layout (who there is, in the order of the tree) and the states (a digit a node, in that order) are two documents.
   The first changes only when the tree does, and its tag tells; the second has a count of its own, `seq`.
2. A look costs what has changed: rows with a later number, all below a node whose contact or program changed (its
   children are known as it is), and those whose time has come (`View.standing`: stale, behind). All rows are read where
   the tree, or who is accused, has changed.
3. It reads health.db, and nothing else. Who is `me` stands first; of a node with no path from there nothing is drawn.
4. Not thread-safe: whoever keeps one asks it in one thread (`node.web` does).

>>> # picture = Picture(path, "13", bounds); picture.look(now_ms); picture.states(); picture.since(seq)
"""

from __future__ import annotations

import gzip
import os
from array import array
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite
from fednode.node.mesh.bounds import STATES, Bounds
from fednode.node.mesh.table import ACCUSED, NAMED
from fednode.node.mesh.view import View

VERSION = 1
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
ALL_FROM = 8_000  # so many rows to look at: then all at once is cheaper
KEPT_MAX = 50_000  # changes that can be told one by one; who is farther behind takes the states
TAG_BYTES = 12
GZIP = 1  # of 56,712 nodes: 13 ms and 480 kB; 6: 60 ms and 410 kB
_NUMBER = {state: i for i, state in enumerate(STATES)}


@dataclass(frozen=True, slots=True)
class Layout:
    """`body`: JSON, compressed with gzip. `tag`: of its contents."""

    tag: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Group:
    """A node with all below it: how many nodes there are of each state; `index` is its place in the layout."""

    index: int
    id: str
    nodes: int
    states: dict[str, int]
    itself: str


class Picture:
    """Of this node's subtree, out of health.db."""

    def __init__(self, path: Path, me: str, bounds: Bounds) -> None:
        self._path, self._me, self._bounds = path, me, bounds
        self._c: sqlite.Connection | None = None
        self._file = (0, 0)
        self._seen: tuple[int, ...] = ()  # epoch, names, accusations, count: as of the last look
        self._data_version = -1
        self._ids: list[str] = []
        self._at: dict[str, int] = {}
        self._end = array("L")  # the place after the last one below
        self._levels: list[str] = []
        self._level = ""  # a digit a node
        self._states = bytearray()
        self._due = array("q")
        self._next_s = 0
        self._layout = Layout("", b"")
        self._kept: deque[tuple[int, list[tuple[int, int]]]] = deque()
        self._kept_size = 0
        self.seq = 0
        self.now_ms = 0
        self.waiting = False  # what is here is older than what could be looked at (`node.web.pictures`)

    def close(self) -> None:
        """Let go of the file."""
        if self._c is not None:
            self._c.close()
            self._c = None

    # ------------------------------------------------------------ looking

    def look(self, now_ms: int) -> int:
        """Bring it up to date; the number of the last change. Raises StoreError."""
        try:
            self._look(now_ms)
        except sqlite.DatabaseError as error:
            self.close()
            raise sqlite.trouble(error, self._path) from error
        return self.seq

    def moved(self) -> bool:
        """Whether somebody has written to health.db since the last look. Raises StoreError."""
        try:
            return self._c is None or self._version(self._c) != self._data_version
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, self._path) from error

    @staticmethod
    def _version(c: sqlite.Connection) -> int:
        return int(c.execute("pragma data_version").fetchone()[0])

    def _look(self, now_ms: int) -> None:
        c = self._open()
        self.now_ms, self.waiting = now_ms, False
        version = self._version(c)
        now_s = now_ms // 1000
        if version == self._data_version and now_s < self._next_s:
            return
        c.execute("begin")  # one moment for all that is read
        try:
            self._take(c, now_ms)
        finally:
            c.execute("rollback")
        self._data_version = version

    def _take(self, c: sqlite.Connection, now_ms: int) -> None:
        meta = dict(c.execute("select key, value from meta").fetchall())
        seen = tuple(int(meta.get(key, 0)) for key in ("epoch", NAMED, ACCUSED, "count"))
        before, self._seen = self._seen, seen
        if before[:2] != seen[:2]:
            self._people(c, now_ms)
        wanted = None if before[:3] != seen[:3] else self._changed(c, before[3], now_ms // 1000)
        if wanted is None or wanted:
            self._judge(View(c, self._me, self._bounds, now_ms), wanted)

    def _open(self) -> sqlite.Connection:
        """The connection, a new one where the file is another."""
        try:
            found = os.stat(self._path)
        except OSError as error:
            raise sqlite.trouble(sqlite.OperationalError(str(error)), self._path) from error
        if self._c is not None and self._file == (found.st_dev, found.st_ino):
            return self._c
        self.close()
        self._c = sqlite.connect(self._path, synchronous="NORMAL", readonly=True)
        self._file, self._data_version, self._seen = (found.st_dev, found.st_ino), -1, ()
        return self._c

    def _people(self, c: sqlite.Connection, now_ms: int) -> None:
        """Who there is (rule 1)."""
        rows = c.execute(
            """select id, name, level, length(path) - length(replace(path, ' ', '')) from node
               where known = 1 and (id = ?1 or substr(path, 1, length(?1) + 1) = ?1 || ' ') order by path""",
            (self._me,),
        ).fetchall()
        self._ids = [row[0] for row in rows]
        self._at = {node: i for i, node in enumerate(self._ids)}
        self._levels = list(dict.fromkeys(row[2] for row in sorted(rows, key=lambda row: row[3])))
        digit = {level: DIGITS[min(i, len(DIGITS) - 1)] for i, level in enumerate(self._levels)}
        self._level = "".join(digit[row[2]] for row in rows)
        depths = [min(row[3], len(DIGITS) - 1) for row in rows]
        self._end = _ends(depths)
        self._states = bytearray(b"0") * len(rows)
        self._due = array("q", bytes(8 * len(rows)))
        body = msgspec.json.encode(
            {
                "v": VERSION,
                "levels": self._levels,
                "states": STATES,
                "ids": self._ids,
                "names": [row[1] for row in rows],
                "level": self._level,
                "depth": "".join(DIGITS[depth] for depth in depths),
            }
        )
        self._layout = Layout(SUITE_1.hash(body)[:TAG_BYTES].hex(), gzip.compress(body, GZIP, mtime=0))
        self._kept.clear()
        self._kept_size, self.seq = 0, max(self.seq + 1, now_ms)  # no number of a process before this one again

    def _changed(self, c: sqlite.Connection, after: int, now_s: int) -> set[int] | None:
        """The places whose state may be another (rule 2); None: look at all."""
        found: set[int] = set()
        rows = c.execute(
            "select id, v_seen > ?1 or v_about > ?1 from node where version > ?1 and known = 1", (after,)
        ).fetchall()
        if len(rows) > ALL_FROM:
            return None
        for node, wide in rows:
            self._reach(found, self._at.get(node), wide=bool(wide))
        if now_s >= self._next_s:
            for i in [i for i, due_s in enumerate(self._due) if due_s <= now_s]:
                self._reach(found, i, wide=True)
        return None if len(found) > ALL_FROM else found

    def _reach(self, found: set[int], i: int | None, *, wide: bool) -> None:
        """A place, with those below it where they are known as it is. Below this node that is a matter of each."""
        if i is not None:
            found.update(range(i, self._end[i]) if wide and i else (i,))

    def _judge(self, view: View, wanted: set[int] | None) -> None:
        rows = view.standing(None if wanted is None else [self._ids[i] for i in sorted(wanted)])
        changes = []
        for node, state, due_s in rows:
            i = self._at.get(node)
            if i is None:
                continue
            self._due[i] = due_s
            number = _NUMBER[state]
            if self._states[i] != 48 + number:
                self._states[i] = 48 + number
                changes.append((i, number))
        self._next_s = min(self._due, default=0)
        if not changes:
            return
        self.seq += 1
        self._kept.append((self.seq, changes))
        self._kept_size += len(changes)
        while self._kept_size > KEPT_MAX:
            self._kept_size -= len(self._kept.popleft()[1])

    # ------------------------------------------------------------ documents

    @property
    def layout(self) -> Layout:
        """Who there is: `ids`, `names`, and as one digit (to base 36) a node its `level` (of `levels`) and its `depth`,
        in the order of the tree, each before those below it. So its parent is the last one before it that is less
        deep."""
        return self._layout

    def states(self) -> dict[str, Any]:
        """All states, a digit a node (of the layout's `states`), and the number of the last change."""
        return {**self._head(), "states": self._states.decode()}

    def since(self, seq: int) -> dict[str, Any] | None:
        """What has changed after a number: pairs of place and state; None: that can no longer be told one by one."""
        oldest = self._kept[0][0] - 1 if self._kept else self.seq
        if not oldest <= seq <= self.seq:
            return None
        changes = {i: state for number, some in self._kept if number > seq for i, state in some}
        return {**self._head(), "changes": sorted(changes.items())}

    def _head(self) -> dict[str, Any]:
        """`next_ms`: in how long to ask again: time alone may change a state, or there was something to look at."""
        next_ms = 0 if self.waiting else max(0, self._next_s * 1000 - self.now_ms)
        return {"v": VERSION, "layout": self._layout.tag, "seq": self.seq, "now_ms": self.now_ms, "next_ms": next_ms}

    # ------------------------------------------------------------ counts

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self._ids)

    def place(self, node: str) -> int | None:
        """A node's place in the layout."""
        return self._at.get(node)

    def group(self, i: int) -> Group:
        """A node, with those below it."""
        states = Counter(self._states[i : self._end[i]])
        told = {state: states.get(48 + n, 0) for n, state in enumerate(STATES)}
        return Group(i, self._ids[i], self._end[i] - i, told, STATES[self._states[i] - 48])

    def children(self, i: int) -> Iterator[Group]:
        """Each node right below one, with those below it."""
        below = i + 1
        while below < self._end[i]:
            yield self.group(below)
            below = self._end[below]

    def way(self, i: int) -> list[int]:
        """The places above one, from the top down."""
        return [above for above in range(i) if self._end[above] > i]

    def find(
        self, i: int, states: Sequence[str], levels: Sequence[str], after: int, limit: int
    ) -> tuple[list[str], int | None]:
        """Nodes of a node's subtree that are in one of these states (none: any) and levels (none: any), after a place;
        and after which to go on (None: there are no more)."""
        wanted = {48 + _NUMBER[state] for state in states} or set(range(48, 48 + len(STATES)))
        of = {digit for digit, level in zip(DIGITS, self._levels, strict=False) if not levels or level in levels}
        found: list[int] = []
        for at in range(max(i, after + 1), self._end[i]):
            if self._states[at] in wanted and self._level[at] in of:
                if len(found) == limit:
                    return [self._ids[one] for one in found], found[-1]
                found.append(at)
        return [self._ids[one] for one in found], None

    def by_level(self, i: int) -> dict[str, dict[str, int]]:
        """Of a node and those below it: level -> state -> how many."""
        found = Counter(zip(self._level[i : self._end[i]], self._states[i : self._end[i]], strict=True))
        return {
            level: counts
            for digit, level in zip(DIGITS, self._levels, strict=False)
            if any((counts := {state: found.get((digit, 48 + n), 0) for n, state in enumerate(STATES)}).values())
        }


def _ends(depths: Sequence[int]) -> array[int]:
    """Of each place, the one after the last below it."""
    ends = array("L", bytes(array("L").itemsize * len(depths)))
    open_: list[int] = []
    for i, depth in enumerate(depths):
        while open_ and depths[open_[-1]] >= depth:
            ends[open_.pop()] = i
        open_.append(i)
    for i in open_:
        ends[i] = len(depths)
    return ends
