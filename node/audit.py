"""Verification of what this node holds, from its disk: bytes, leaves, roots, signatures, cosignatures, chains, gaps.

Rules
1. Nothing is believed because it was believed before. Where verification goes on from (`verified`), the root is
   compared with the one that the origin signed there; when they differ, the log is verified from its first change.
2. A problem names the log, the changes [first, end) and a code. One problem does not stop the rest. What comes after
   it in its log is proved by its signatures; its roots are proved again once the problem is mended.
3. Segments are checked apart (`fednode.node.checker`), in this process or in several (`fednode.node.workers`), and
   folded here in the order of their log. The answer is the same.
4. A log is verified up to the size that it had when it was looked up: the daemon may append meanwhile.

>>> Problem("hebei/13/1/sys.catalog", 0, 1, "FN-6411").log
'hebei/13/1/sys.catalog'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from fednode.crypto import checkpoint
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.merkle import Frontier, TreeNode, verify_consistency
from fednode.node import schema, sqlite, sums
from fednode.node.checker import Checker, Seen, cosigned
from fednode.node.room import if_room
from fednode.node.store import Store
from fednode.node.tree import KeptNodes
from fednode.node.trust import Trust
from fednode.sync.change import LogName
from fednode.sync.errors import PeerError, Refused
from fednode.sync.wire import Cosignature

RUN_CHANGES = 10_000  # about this much goes to a core at a time
SEGMENT_CHANGES = 100  # a segment costs as much as this many changes, whatever it holds: its signatures
PLACES = 256
KEPT, SUMS, SHAPE = "FN-6635", "FN-6637", "FN-6638"
_ASTRAY = """from tree t left join log l on l.id = t.log_id
    where l.id is null or t.level not between 0 and 62 or t.idx < 0 or t.idx >= l.size >> t.level"""
_LOG = """select id, name, size, root, frontier, last_hlc, coalesce((select s.first + s.count from segment s
    where s.log_id = log.id order by s.first desc limit 1), 0) from log"""

Place = tuple[int, int, int]  # lsn, first, count


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold, in which log, for which changes [first, end)."""

    log: str
    first: int
    end: int
    code: str


@dataclass(slots=True)
class Report:
    """What was verified. `carried`: segments that this node may not read; their hash, signatures and order were
    checked. `stripped`: changes of which only the leaf is left."""

    full: bool = True
    logs: int = 0
    segments: int = 0
    changes: int = 0
    carried: int = 0
    stripped: int = 0
    problems: list[Problem] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Run:
    """Consecutive segments of a log, enough for a core to work on."""

    log_id: int
    name: LogName
    places: list[Place]


@dataclass(frozen=True, slots=True)
class Log:
    """A row of `log`, and where its last segment ends."""

    id: int
    name: LogName
    size: int
    root: bytes
    frontier: bytes | None
    last_hlc: int
    end: int


@dataclass(frozen=True, slots=True)
class Edge:
    """How far a log holds: so many changes, leading to this root, the last with this stamp. `frontier` is None where
    what came before could not be read here."""

    frontier: Frontier | None = Frontier.EMPTY
    size: int = 0
    root: bytes = b""
    last_hlc: int = 0


class Fold:
    """Segments of one log, taken in order: gaps, stamps, roots. `good`: the edge before the first problem; `broken`:
    there was one."""

    def __init__(
        self, log: Log, start: Edge, report: Report, broken: bool = False, kept: KeptNodes | None = None
    ) -> None:
        self.log, self.edge, self.broken = log, start, broken
        self.good = Edge() if broken else start
        self._report, self._kept = report, kept
        self.altered: list[TreeNode] = []  # what should stand in the place of kept nodes

    def problem(self, first: int, end: int, code: str) -> None:
        self.broken = True
        self._report.problems.append(Problem(str(self.log.name), first, end, code))

    def take(self, seen: Seen) -> None:
        edge, problems = self.edge, len(self._report.problems)
        frontier = edge.frontier if seen.first == edge.size and seen.parts is not None else None
        if seen.first > edge.size:
            self.problem(edge.size, seen.first, "FN-6602")
        elif seen.first < edge.size:
            self.problem(seen.first, edge.size, "FN-6604")
        if seen.code:
            self.problem(seen.first, seen.end, seen.code)
        elif seen.first_hlc <= edge.last_hlc:
            self.problem(seen.first, seen.end, "FN-6409")
        elif frontier is not None and seen.parts is not None:
            frontier, made = frontier.joined(seen.count, seen.parts)
            if frontier.root() != seen.root:
                self.problem(seen.first, seen.end, "FN-6411")
            elif self._kept is not None:
                self.altered += self._kept.wrong(seen.first, seen.end, made)
        elif edge.root and seen.first == edge.size:
            self._extends(seen)
        if len(self._report.problems) > problems:  # nothing that follows is measured by what does not hold
            frontier, seen.root = None, b""
        self.edge = Edge(frontier, seen.end, seen.root, max(edge.last_hlc, seen.last_hlc))
        if not self.broken:
            self.good = self.edge
        report = self._report
        report.segments += 1
        report.changes += seen.count
        report.stripped += seen.stripped
        report.carried += not seen.code and seen.parts is None

    def _extends(self, seen: Seen) -> None:
        """Where the leaves before it are not known, the origin's proof that its log only grew. Who was to read it and
        has no key holds segments without."""
        try:
            if seen.consistency:
                verify_consistency(self.edge.size, seen.end, self.edge.root, seen.root, seen.consistency)
        except IntegrityError:
            self.problem(seen.first, seen.end, "FN-6415")

    def kept_problems(self) -> list[Problem]:
        """What was found of kept nodes so far. It says nothing of the log itself."""
        return [Problem(str(self.log.name), *span, KEPT) for span in spans(self.altered)]

    def finish(self) -> None:
        """The log's row against its last segment; what was found of kept nodes."""
        log, edge = self.log, self.edge
        self._report.problems += self.kept_problems()
        if edge.size > log.size:  # more had been verified than is here now
            self.problem(log.size, edge.size, "FN-6602")
        elif edge.size < log.size:
            self.problem(edge.size, log.size, "FN-6602")
        elif log.end > log.size:
            self.problem(log.size, log.end, "FN-6631")
        elif not self.broken:
            frontier = None if edge.frontier is None else edge.frontier.to_bytes()
            if (log.root, log.frontier, log.last_hlc) != (edge.root, frontier, edge.last_hlc):
                self.problem(0, log.size, "FN-6631")


def spans(nodes: Iterable[TreeNode]) -> list[tuple[int, int]]:
    """The changes [first, end) that lie under some nodes, in order, joined where they touch."""
    found: list[tuple[int, int]] = []
    for first, end in sorted((one.index << one.level, (one.index + 1) << one.level) for one in nodes):
        if found and first <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((first, end))
    return found


# ---------------------------------------------------------------- what there is


def logs(store: Store) -> list[Log]:
    """Every log held, as its row says, by one look at the store."""
    return [_log(row) for row in store.rows(f"{_LOG} order by id")]


def log_from(store: Store, log_id: int) -> Log | None:
    """The first log of this number or a later one."""
    rows = store.rows(f"{_LOG} where id >= ? order by id limit 1", log_id)
    return _log(rows[0]) if rows else None


def size_of_all(store: Store) -> int:
    """Changes in all logs."""
    return int(store.rows("select coalesce(sum(size), 0) from log")[0][0])


def _log(row: Sequence[Any]) -> Log:
    return Log(row[0], LogName.parse(row[1]), *row[2:])


def runs(store: Store, log: Log, after: int) -> Iterator[Run]:
    """A log's segments from a change on, in order, in runs of similar cost."""
    some: list[Place] = []
    cost, last = 0, after - 1
    while places := store.places(log.id, last, PLACES):
        last = places[-1][1]
        for place in places:
            if place[1] >= log.size:  # appended since, or told by `Fold.finish`
                break
            some.append(place)
            cost += place[2] + SEGMENT_CHANGES
            if cost >= RUN_CHANGES:
                yield Run(log.id, log.name, some)
                some, cost = [], 0
    if some:
        yield Run(log.id, log.name, some)


def resume(store: Store, log: Log, edge: Edge) -> Edge:
    """Where to go on from: an edge that was kept, when what the origin signed there agrees with it, else the start."""
    if edge.size > log.size:
        return edge  # `Fold.finish` says that the log was cut off
    try:
        lsn = store.ending_at(log.name, edge.size)
        place = None if lsn is None else store.place(lsn)
    except FednodeError:  # what lies there is damaged, and will be found
        return Edge()
    agrees = place is not None and place[2] == edge.root
    return edge if agrees and (edge.frontier is None or edge.frontier.root() == edge.root) else Edge()


def verified(store: Store, log: Log) -> Edge:
    """How far a log was found to hold before."""
    rows = store.rows("select frontier, size, root, last_hlc from verified where log_id = ?", log.id)
    if not rows:
        return Edge()
    frontier, *rest = rows[0]
    try:
        return resume(store, log, Edge(None if frontier is None else Frontier.from_bytes(frontier), *rest))
    except FednodeError:
        return Edge()


def mend(store: Store, altered: Iterable[tuple[int, list[TreeNode]]], problems: Iterable[Problem] = ()) -> None:
    """Put kept nodes of logs' trees right: they are only a projection, and what they should be was just found out.
    Those that stand nowhere (`astray`) go."""
    todo = [(log_id, nodes) for log_id, nodes in altered if nodes]
    astray = any(one.code == KEPT and not one.end for one in problems)
    if todo or astray:
        with store.write() as tx:
            for log_id, nodes in todo:
                tx.keep_nodes(log_id, nodes)
            if astray:
                tx.execute(
                    f"delete from tree where (log_id, level, idx) in (select t.log_id, t.level, t.idx {_ASTRAY})"
                )


def remember(store: Store, edges: Iterable[tuple[Log, Edge]]) -> None:
    """Keep how far each log holds, for the next incremental verification; on a full disk that one has more to do."""
    with if_room(), store.write() as tx:
        for log, edge in edges:
            frontier = None if edge.frontier is None else edge.frontier.to_bytes()
            values = (log.id, edge.size, edge.root, frontier, edge.last_hlc)
            tx.execute("insert or replace into verified values (?, ?, ?, ?, ?)", *values)


# ---------------------------------------------------------------- what is not in segments


def witnesses(store: Store, checker: Checker, fold: Fold) -> Iterator[Problem]:
    """The cosignatures of the levels above, each for the size that the witness saw. After a problem in the log there is
    nothing to compare them with until it is mended."""
    log = fold.log
    rows = store.rows(
        "select witness, size, time_s, signature from witness where log_id = ? order by size, witness", log.id
    )
    for witness, size, time_s, signature in rows:
        if fold.broken and size > fold.good.size:
            continue
        if size > log.size:
            if size > _size_now(store, log):  # a daemon may have taken in more since: the next verification's
                yield Problem(str(log.name), log.size, size, "FN-6632")
            continue
        try:
            lsn = store.ending_at(log.name, size)
            place = None if lsn is None else store.place(lsn)
            lives = checker.lives(witness)
            head = None if place is None else checkpoint.Checkpoint(str(log.name), size, place[2])
            if head is None or not cosigned(head, lives, Cosignature(time_s, signature)):
                raise PeerError("FN-6414", log=str(log.name), witness=witness)
        except FednodeError as error:
            yield Problem(str(log.name), 0, size, error.code)


def _size_now(store: Store, log: Log) -> int:
    return int(store.rows("select size from log where id = ?", log.id)[0][0])


def strays(store: Store) -> Iterator[Problem]:
    """Rows that belong to nothing: segments of no log, or of another than their index says, and late cosignatures that
    no segment has; and whether the schema is the one that this program makes."""
    for log_id, first, end in store.rows(
        """select log_id, min(first), max(first + count) from segment where log_id not in (select id from log)
           group by log_id"""
    ):
        yield Problem(f"#{log_id}", first, end, "FN-6633")
    # all else goes by the index: a row that names another log than that was found by nobody (flipped bits)
    for name, first, end in store.rows(
        """select coalesce(l.name, '#' || s.log_id), s.first, s.first + s.count
           from segment s not indexed left join log l on l.id = s.log_id
           where not exists (select 1 from segment p indexed by segment_place
                             where p.log_id = s.log_id and p.first = s.first and p.lsn = s.lsn)"""
    ):
        yield Problem(name, first, end, "FN-6633")
    for name, first, end in store.rows(
        """select coalesce(l.name, '#' || t.log_id), coalesce(s.first, 0), coalesce(s.first + s.count, 0)
           from late t left join log l on l.id = t.log_id left join segment s on s.lsn = t.segment_lsn
           where l.id is null or s.lsn is null or s.log_id <> t.log_id
              or s.first_time is null or s.first_time > t.time_s"""
    ):
        yield Problem(name, first, end, "FN-6634")
    with sqlite.told(store.path):
        if schema.shape(store.connection) != schema.log_shape():
            yield Problem(store.path.name, 0, 0, SHAPE)


def astray(store: Store) -> Iterator[Problem]:
    """Kept nodes of trees where no leaf is."""
    for (name,) in store.rows(f"select distinct coalesce(l.name, '#' || t.log_id) {_ASTRAY}"):
        yield Problem(name, 0, 0, KEPT)


def summed(store: Store, key: str) -> Iterator[Problem]:
    """One of the sums over what nothing else proves (`node.sums`)."""
    if not sums.holds(store, key):
        table, first, end = sums.names(key)
        yield Problem(f"{store.path.name}/{table}", first, end, SUMS)


def explained(problems: Iterable[Problem]) -> bool:
    """Whether something else was found that may be why sums do not hold, or nodes of trees stand
    nowhere. They are looked at when that is mended."""
    return any(one.code not in (KEPT, SUMS) for one in problems)


# ---------------------------------------------------------------- all of it

Checked = tuple[Run, list[Seen]]
Check = Callable[[Iterable[Run]], Iterator[Checked]]  # checks runs, and hands them back in their order
Progress = Callable[[int, int], None]


def quiet(_done: int, _total: int) -> None:
    """No progress."""


class Audit:
    """One verification of a store: what there is to do, and the doing of it. `keep`: whether how far the logs hold is
    kept, and kept nodes are put right; else nothing is written. Raises Refused FN-3410 when `only` is no log that is
    held."""

    def __init__(self, store: Store, trust: Trust, *, full: bool = True, only: str = "", keep: bool = True) -> None:
        self._store, self._only, self._keep = store, only, keep
        self.checker = Checker(store, trust.directory, trust.node)
        self._report = Report(full)
        found = [log for log in logs(store) if only in ("", str(log.name))]
        if only and not found:
            raise Refused("FN-3410", log=only)
        self._folds = {
            log.id: Fold(log, Edge() if full else verified(store, log), self._report, kept=KeptNodes(store, log.id))
            for log in found
        }
        self.changes = sum(max(0, fold.log.size - fold.edge.size) for fold in self._folds.values())

    def here(self, todo: Iterable[Run]) -> Iterator[Checked]:
        """Check runs in this process, a segment at a time."""
        for run in todo:
            for place in run.places:
                yield run, [self.checker.check(run.name, *place)]

    def run(self, check: Check, progress: Progress = quiet) -> Report:
        """Verify. `check` checks the segments: `here`, or `fednode.node.workers.spread`."""
        report, folds = self._report, self._folds
        done = 0
        progress(done, self.changes)
        for run, some in check(run for fold in folds.values() for run in runs(self._store, fold.log, fold.edge.size)):
            for seen in some:
                folds[run.log_id].take(seen)
                done += seen.count
            progress(done, self.changes)
        for fold in folds.values():
            fold.finish()
            report.problems += witnesses(self._store, self.checker, fold)
        wrong: list[str] = []
        if not self._only:
            report.problems += strays(self._store)
            if not explained(report.problems):
                report.problems += astray(self._store)
                for key in sums.keys(self._store):
                    found = list(summed(self._store, key))
                    report.problems += found
                    wrong += [key] if found else []
        report.logs = len(folds)
        if self._keep:
            mend(self._store, [(fold.log.id, fold.altered) for fold in folds.values()], report.problems)
            sums.take(self._store, wrong)
            remember(self._store, [(fold.log, fold.good) for fold in folds.values()])
        return report


def verify_store(
    store: Store, trust: Trust, *, full: bool = True, only: str = "", progress: Progress = quiet
) -> Report:
    """Verify in this process: every log, or `only` one; all of it, or what came since the last time."""
    audit = Audit(store, trust, full=full, only=only)
    return audit.run(audit.here, progress)
