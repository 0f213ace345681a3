"""health.db: one row for each node in this one's subtree: who it is, what was last said of it, and since which number.

Rules
1. It may be lost: it is made anew with another `epoch`, and every child tells all again. So it is neither in log.db
   (whose every write waits for the disk) nor in state.db (which belongs to the projection, and is rebuilt).
2. Each of a row's three parts (`seen`, `load`, `about`) has the number of its last change; a row's `version` is the
   greatest. No number is given out twice, so a parent's place in the count says what it lacks.
3. What is the same as before changes nothing. `urgent` is the number at which a node last got worse, or better: that
   does not wait for its turn.
4. A child may speak of itself and of nodes below it, nothing else (`inside`). Of nodes that the directory does not know
   yet it is kept, unseen and bounded (`known` 0), until it does.
5. A frame that goes no further than the child's last one is old: another session of the child's was faster.
6. Times that others tell are cut at the present: a clock ahead keeps nobody fresh.

>>> table = Table.open(Path(":memory:"), bytes(4)); table.place()
HealthPlace(epoch=0, upto=0)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fednode.node import sqlite
from fednode.node.mesh.bounds import Bounds
from fednode.node.schema import File, health_migrations, opened
from fednode.sync.errors import PeerError, StoreError
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen
from fednode.sync.wire_health import about_bytes, load_bytes, read_about, read_load

FRAME_ENTRIES = 100
PARKED_MAX = 10_000  # nodes that a child speaks of and the directory does not know
CACHE_KIB = 4_096
LOAD = tuple(Load.__dataclass_fields__)
ABOUT = tuple(About.__dataclass_fields__)
NAMED = "named"  # in `meta`: how often who there is has changed
ACCUSED = "accused"  # in `meta`: how often it has changed who is accused, which no row's number tells
NEW = ("FN-7604", "FN-7608")  # not a database, or of a newer program: made anew
Inside = Callable[[str], bool | None]  # whether a node is below the child that speaks of it; None: it is not known


@dataclass(frozen=True, slots=True)
class Who:
    """A node, as the directory has it. `path`: ids from the top of this subtree to it, with spaces between: a subtree
    is a range. `life`: the incarnation in force."""

    id: str
    name: str
    level: str
    area: str
    parent: str
    path: str
    life: int
    stands_for: str
    revoked: bool
    children: int


@dataclass(slots=True)
class Folded:
    """What came of a report. `news`: somebody got worse, or better; `left_out`: nodes that are not the child's to speak
    of, or too many that nobody knows."""

    changed: int = 0
    news: bool = False
    left_out: int = 0


class Table(File):
    """Not thread-safe: one for each thread."""

    def __init__(self, connection: sqlite.Connection, path: Path, bounds: Bounds | None = None) -> None:
        super().__init__(connection, path)
        self.bounds = bounds or Bounds()

    @classmethod
    def open(cls, path: Path, epoch: bytes, bounds: Bounds | None = None) -> Table:
        """The table, made where there is none. `epoch`: 4 random bytes for a new one. Raises StoreError."""
        try:
            return cls._open(path, epoch, bounds)
        except StoreError as error:
            if error.code not in NEW:
                raise
        for end in ("", "-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
        return cls._open(path, epoch, bounds)

    @classmethod
    def _open(cls, path: Path, epoch: bytes, bounds: Bounds | None) -> Table:
        connection = opened(path, health_migrations, synchronous="NORMAL", cache_kib=CACHE_KIB, secure=False)
        try:
            with sqlite.transaction(connection, path) as c:
                values = [("epoch", int.from_bytes(epoch, "big")), ("count", 0)]
                c.executemany("insert or ignore into meta values (?, ?)", values)
        except BaseException:
            connection.close()
            raise
        return cls(connection, path, bounds)

    def place(self) -> HealthPlace:
        """The end of the count."""
        return HealthPlace(int(self.meta("epoch")), int(self.meta("count")))

    # ------------------------------------------------------------ who there is

    def name(self, nodes: Sequence[Who], me: str) -> int:
        """Take in who is in this subtree, as the directory has it; what was kept of a node that was not known counts
        from now on. Returns how many rows changed."""
        columns = tuple(Who.__dataclass_fields__)
        before = {row[0]: row for row in self._c.execute(f"select {', '.join(columns)} from node where known = 1")}
        news = [row for row in (tuple(getattr(one, name) for name in columns) for one in nodes)
                if before.get(row[0]) != row]  # fmt: skip
        gone = before.keys() - {one.id for one in nodes}
        if not news and not gone:
            return 0
        sets = ", ".join(f"{name} = excluded.{name}" for name in columns[1:])
        with sqlite.transaction(self._c, self.path) as c:
            c.execute("insert into meta values (?, 1) on conflict (key) do update set value = value + 1", (NAMED,))
            c.executemany("delete from node where id = ?", [(node,) for node in gone])  # another node lives here now
            c.executemany(
                f"""insert into node ({", ".join(columns)}, known, branch)
                    values ({", ".join("?" * len(columns))}, 1, '')
                    on conflict (id) do update set {sets}, known = 1, branch = ''""",
                news,
            )
            # the child of this node that leads to it; what another child has said of it does not count
            rest = "substr(path, length(?1) + 2)"
            c.execute(
                f"""update node set branch = substr({rest}, 1, instr({rest} || ' ', ' ') - 1)
                    where branch = '' and known = 1 and id <> ?1""",
                (me,),
            )
            c.execute("update node set branch = id where id = ?", (me,))
            parked = c.execute(
                "select id, via = branch from node where known = 1 and version > 0 and version = parked"
            ).fetchall()
            count = self._count()
            for node, rightly in parked:
                count += 1
                if rightly:
                    self._renumber(node, count)
                else:
                    self._forget(node)
            self._keep_count(count)
        return len(news) + len(gone)

    def _renumber(self, node: str, count: int) -> None:
        parts = ", ".join(f"v_{one} = iif(v_{one} > 0, {count}, 0)" for one in ("seen", "load", "about"))
        self._c.execute(f"update node set version = {count}, parked = 0, {parts} where id = ?", (node,))

    def _forget(self, node: str) -> None:
        names = ("version", "parked", "v_seen", "v_load", "v_about", "up")
        sets = [f"{name} = 0" for name in names]
        sets += [f"{name} = null" for name in ("seen_s", "said_life", "load", "about", *LOAD, *ABOUT)]
        self._c.execute(f"update node set {', '.join(sets)} where id = ?", (node,))

    def accuse(self, accused: dict[str, int]) -> None:
        """Open critical alerts about nodes, by node, as this node knows them; for itself alone."""
        if dict(self._c.execute("select id, accused from node where accused > 0").fetchall()) == accused:
            return
        with sqlite.transaction(self._c, self.path) as c:
            c.execute("update node set accused = 0 where accused > 0")
            c.executemany("update node set accused = ? where id = ?", [(n, node) for node, n in accused.items()])
            c.execute("insert into meta values (?, 1) on conflict (key) do update set value = value + 1", (ACCUSED,))

    # ------------------------------------------------------------ what is said

    def _count(self) -> int:
        return int(self.meta("count"))

    def _keep_count(self, count: int) -> None:
        self._c.execute("update meta set value = ? where key = 'count'", (count,))

    def reached(self, child: str) -> HealthPlace:
        """How far a child's reports have come."""
        row = self._c.execute("select epoch, upto from child where id = ?", (child,)).fetchone()
        return HealthPlace() if row is None else HealthPlace(*row)

    def fold(self, child: str, life: int, told: Health, now_ms: int, inside: Inside) -> Folded:
        """Take in what a child tells: of itself, and of those below it."""
        found = Folded()
        reached = self.reached(child)
        if told.place.epoch == reached.epoch and told.place.upto <= reached.upto:
            return found
        with sqlite.transaction(self._c, self.path) as c:
            for one in told.entries:
                known: bool | None = True
                entry = HealthEntry(child, life, None, one.load, one.about)
                if one.node not in ("", child):
                    entry, known = one, inside(one.node)
                if known is False or (known is None and not self._may_park(child, entry.node)):
                    found.left_out += 1
                    continue
                try:
                    self._put(entry, child, now_ms, known=known is not None, found=found)
                except PeerError:  # a part that nobody can read
                    found.left_out += 1
            c.execute("insert or replace into child values (?, ?, ?)", (child, told.place.epoch, told.place.upto))
        return found

    def _may_park(self, child: str, node: str) -> bool:
        if self._c.execute("select 1 from node where id = ?", (node,)).fetchone():
            return True
        sql = "select count(*) from node where known = 0 and via = ?"
        return bool(self._c.execute(sql, (child,)).fetchone()[0] < PARKED_MAX)

    def see(self, child: str, life: int, at_s: int, now_ms: int, *, up: bool) -> None:
        """This node's own word on a child: heard at that time; `up`: their exchange is open."""
        with sqlite.transaction(self._c, self.path):
            entry = HealthEntry(child, life, Seen(at_s, up))
            self._put(entry, child, now_ms, known=True, found=Folded())

    def say(self, me: str, life: int, load: Load, about: About, now_ms: int) -> Folded:
        """What this node says of itself."""
        found = Folded()
        with sqlite.transaction(self._c, self.path):
            entry = HealthEntry(me, life, None, load_bytes(load), about_bytes(about))
            self._put(entry, me, now_ms, known=True, found=found)
        return found

    def said(self, me: str) -> tuple[Load | None, About | None]:
        """What this node said of itself last."""
        row = self._c.execute("select load, about from node where id = ?", (me,)).fetchone()
        if row is None:
            return None, None
        return (
            None if row[0] is None else read_load(row[0]),
            None if row[1] is None else read_about(row[1]),
        )

    def _put(self, entry: HealthEntry, via: str, now_ms: int, *, known: bool, found: Folded) -> None:
        """Fold one entry into its row (rules 2, 3, 6)."""
        c = self._c
        row = c.execute(
            "select level, said_life, seen_s, up, load, about, known from node where id = ?", (entry.node,)
        ).fetchone()
        if row is None:
            c.execute("insert into node (id, known, via) values (?, 0, ?)", (entry.node, via))
            row = ("", None, None, 0, None, None, 0)
        level, life, seen_s, up, load, about, was_known = row
        changes: dict[str, Any] = {}
        parts = set()
        seen = None if entry.seen is None else (min(entry.seen.at_s, now_ms // 1000), int(entry.seen.up))
        if seen is not None and seen != (seen_s, up):
            changes |= {"seen_s": seen[0], "up": seen[1]}
            parts.add("seen")
        if entry.load is not None and (entry.load != load or life != entry.life):
            told = read_load(entry.load)
            changes |= {"load": entry.load, **{name: getattr(told, name) for name in LOAD}}
            parts.add("load")
        if entry.about is not None and (entry.about != about or life != entry.life):
            said = read_about(entry.about)
            changes |= {"about": entry.about, **{name: getattr(said, name) for name in ABOUT}}
            parts.add("about")
        if not parts and life == entry.life:
            return
        count = self._count() + 1
        changes |= {"said_life": entry.life, "via": via, "version": count, "arrived_ms": now_ms}
        changes |= {f"v_{part}": count for part in parts}
        if not known or not was_known:
            changes["parked"] = count
        if self._turned(level, (load, about), changes, now_ms // 1000):
            changes["urgent"] = count
            found.news = True
        self._keep_count(count)
        names = ", ".join(f"{name} = ?" for name in changes)
        c.execute(f"update node set {names} where id = ?", (*changes.values(), entry.node))
        found.changed += 1

    def _turned(
        self, level: str, before: tuple[bytes | None, bytes | None], changes: dict[str, Any], now_s: int
    ) -> bool:
        """Whether a node's own word makes another of its state than before."""
        if not {"load", "about"} & changes.keys():
            return False
        was, now = (
            self.bounds.grade(level or "", read_load(load or b""), read_about(about or b""), now_s)
            for load, about in (before, (changes.get("load", before[0]), changes.get("about", before[1])))
        )
        return was != now

    # ------------------------------------------------------------ passing on

    def begin(self, me: str, now_ms: int) -> None:
        """A daemon begins: no exchange is open. Who was up was heard until the last daemon's end, or nearly."""
        alive_s = int(self.meta("alive_s", 0))
        rows = self._c.execute("select id, said_life, seen_s from node where up = 1 and via = id and id <> ?", (me,))
        for child, life, seen_s in rows.fetchall():
            self.see(child, life, max(seen_s or 0, alive_s), now_ms, up=False)

    def owed(self, me: str, after: HealthPlace) -> tuple[Health | None, bool]:
        """What has changed after a place, as much as one frame takes; and whether any of it is news. None: nothing."""
        place = self.place()
        start = after.upto if after.epoch == place.epoch and after.upto <= place.upto else 0
        rows = self._c.execute(
            """select id, said_life, seen_s, up, load, about, v_seen, v_load, v_about, version, urgent from node
               where version > ? and known = 1 order by version limit ?""",
            (start, FRAME_ENTRIES),
        ).fetchall()
        if not rows:
            return None, False
        entries = []
        for node, life, seen_s, up, load, about, v_seen, v_load, v_about, _, _ in rows:
            seen = Seen(seen_s, bool(up)) if v_seen > start and seen_s is not None and node != me else None
            entries.append(
                HealthEntry(
                    "" if node == me else node,
                    life or 1,
                    seen,
                    load if v_load > start else None,
                    about if v_about > start else None,
                )
            )
        news = any(row[10] > start for row in rows)
        return Health(HealthPlace(place.epoch, rows[-1][9]), tuple(entries)), news
