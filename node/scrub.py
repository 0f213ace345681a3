"""The scrub: verification of the whole store, a little at a time, round and round, for as long as the daemon runs.

Rules
1. It keeps pace: a round takes a number of days. A step does what is due, and never more than `STEP_MS` of work: after
   a long stop it catches up step by step.
2. It gives way: before each segment it asks whether it may go on.
3. Where it stands (`State`) is a value that the caller keeps, so a restart goes on. The root that it goes on from is
   compared with what the origin signed there; when it does not agree, the log is taken from its first change again.
4. A problem is told once a round, and the round goes on.
5. After the logs, what state.db says is compared with them (`node.table_scrub`), then the sums over what is in no log
   (`node.sums`).

>>> due(total=1_000, started_ms=0, now_ms=DAY_MS, days=10)
100
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from fednode.crypto.merkle import TreeNode
from fednode.node import audit, sqlite, sums
from fednode.node.audit import Edge, Fold, Problem, Report
from fednode.node.checker import Checker
from fednode.node.store import Store
from fednode.node.table_scrub import UNREADABLE, Tables
from fednode.node.tree import KeptNodes
from fednode.sync.identity import Directory

DAY_MS = 86_400_000
STEP_MS = 200
PROBLEMS_MAX = 100
WHOLE_BYTES = 256 * 1024 * 1024  # a larger file is looked at as a whole by `fednode doctor` alone
SQLITE_STEPS = 200_000  # of SQLite's machine, before it rests
LOOK_MS = 20_000
META = "scrub"


class State(msgspec.Struct):
    """Where the scrub stands: the log under way, its edge there, whether a problem was found in it; and how the round
    goes, and the last one went; `row`, `rows`: of the record table, the last that was looked at, and how many were;
    `compared`: all of it was, and what else is in no log; `sums`: how many of those were looked at. Times are 0 for
    never, the log 0 where a round begins."""

    log_id: int = 0
    edge: Edge = Edge()
    broken: bool = False
    done: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    problems: list[Problem] = []
    last_ended_ms: int = 0
    last_changes: int = 0
    last_problems: int = 0
    row: int = 0
    rows: int = 0
    sums: int = 0
    compared: bool = False


def load(store: Store) -> State:
    """Where the scrub of this store stands. What cannot be read is begun anew: it is no record of anything."""
    try:
        return msgspec.json.decode(store.meta(META) or b"{}", type=State)
    except (msgspec.DecodeError, TypeError):
        return State()


def save(store: Store, state: State) -> None:
    with store.write() as tx:
        tx.set_meta(META, msgspec.json.encode(state))


def due(total: int, started_ms: int, now_ms: int, days: int) -> int:
    """How many changes of a round should have been verified by now."""
    return min(total, total * max(0, now_ms - started_ms) // (days * DAY_MS))


class Scrub:
    """Scrubs one store, in one thread. `days`: for a round. `clock_ms`: any clock that runs steadily. `tables`: what is
    compared with the logs."""

    def __init__(
        self,
        store: Store,
        directory: Directory,
        me: str,
        days: int,
        clock_ms: Callable[[], float],
        tables: Tables | None = None,
    ) -> None:
        self._store, self._directory, self._me, self._days, self._clock_ms = store, directory, me, days, clock_ms
        self._tables = tables
        self.state = load(store)
        self.altered: list[tuple[int, list[TreeNode]]] = []  # until `mend`: kept nodes of trees,
        self.wrong: list[str] = []  # and sums

    def step(self, now_ms: int, may_go_on: Callable[[], bool] = lambda: True) -> list[Problem]:
        """Do what is due, within `STEP_MS`. Returns the problems that were found."""
        if not self._in_round(now_ms):
            return []
        state, store = self.state, self._store
        checker, report = Checker(store, self._directory, self._me), Report()
        until, total = self._clock_ms() + STEP_MS, audit.size_of_all(store)
        total += self._tables.count() if self._tables is not None else 0

        def may() -> bool:
            return self._clock_ms() < until and may_go_on()

        def go_on() -> bool:
            enough = state.done + state.rows >= due(total, state.started_ms, now_ms, self._days)
            in_time = (
                now_ms < state.started_ms + self._days * DAY_MS
            )  # a segment may say that it is any number of changes
            return not (enough and in_time) and may()

        while (log := audit.log_from(store, state.log_id)) is not None:
            if log.id != state.log_id:
                state.log_id, state.edge, state.broken = log.id, Edge(), False
            start = state.edge if state.broken else audit.resume(store, log, state.edge)
            fold = Fold(log, start, report, state.broken, KeptNodes(store, log.id))
            whole = self._take(fold, checker, go_on)
            state.edge, state.broken = fold.edge, fold.broken
            if fold.altered:
                self.altered.append((log.id, fold.altered))
            if not whole:
                report.problems += fold.kept_problems()
                break
            fold.finish()
            report.problems += audit.witnesses(store, checker, fold)
            state.log_id, state.edge, state.broken = log.id + 1, Edge(), False
        else:
            if self._compare(report, go_on, may_go_on) and self._sums(report, may):
                self._end(now_ms, len(state.problems) + len(report.problems))
        state.problems = (state.problems + report.problems)[:PROBLEMS_MAX]
        return report.problems

    def _take(self, fold: Fold, checker: Checker, go_on: Callable[[], bool]) -> bool:
        """Take what is left of a log; whether that was done."""
        for run in audit.runs(self._store, fold.log, fold.edge.size):
            for place in run.places:
                if not go_on():
                    return False
                fold.take(checker.check(run.name, *place))
                self.state.done += place[2]
        return True

    def _compare(self, report: Report, go_on: Callable[[], bool], may_go_on: Callable[[], bool]) -> bool:
        """Compare what is left of the tables, a few rows at least, then the rest; whether that was all."""
        tables, state = self._tables, self.state
        while tables is not None and not state.compared:
            state.row, count, problems = tables.check(state.row)
            state.rows += count
            report.problems += problems
            if not state.row:
                break
            if not go_on():
                return False
        if not state.compared:
            self._rest(report, may_go_on)
            state.compared = True
        return True

    def _rest(self, report: Report, may_go_on: Callable[[], bool]) -> None:
        """What is not in the rows of tables, rows of log.db that belong to nothing, and SQLite's own look at both
        files, where they are not too large: in one go."""
        store, tables, until = self._store, self._tables, self._clock_ms() + LOOK_MS

        def go_on() -> bool:
            may_go_on()  # it rests
            return self._clock_ms() < until

        if store.path.stat().st_size <= WHOLE_BYTES:
            with sqlite.told(store.path):
                _, fault = sqlite.whole(store.connection, SQLITE_STEPS, go_on, full=True)
            report.problems += [Problem(store.path.name, 0, 0, UNREADABLE)] if fault else []
        if tables is not None:
            report.problems += tables.rest()
            report.problems += tables.whole(SQLITE_STEPS, go_on) if tables.size() <= WHOLE_BYTES else []
        report.problems += audit.strays(store)

    def _sums(self, report: Report, may: Callable[[], bool]) -> bool:
        """What is left of the sums, one at least; whether that was all."""
        state, keys = self.state, sums.keys(self._store)
        if audit.explained([*state.problems, *report.problems]):
            return True
        if not state.sums:
            report.problems += audit.astray(self._store)
        while state.sums < len(keys):
            found = list(audit.summed(self._store, keys[state.sums]))
            report.problems += found
            self.wrong += [keys[state.sums]] if found else []
            state.sums += 1
            if len(sums.TABLES) <= state.sums < len(keys) and not may():  # the tables are small: in one go
                return False
        return True

    def mend(self, store: Store, problems: list[Problem]) -> None:
        """Put right, in a store that may be written, what the steps found that is only derived; `problems`: theirs."""
        audit.mend(store, self.altered, problems)
        self.altered.clear()
        sums.take(store, self.wrong)
        self.wrong.clear()

    def _in_round(self, now_ms: int) -> bool:
        """Whether there is something to do in this round; begins one when it is time, or when the clock went back."""
        state = self.state
        over = state.ended_ms and now_ms >= state.started_ms + self._days * DAY_MS
        if not state.started_ms or over or now_ms < state.started_ms:
            last = (state.last_ended_ms, state.last_changes, state.last_problems)
            self.state = State(0, Edge(), False, 0, now_ms, 0, [], *last)
        return not self.state.ended_ms

    def _end(self, now_ms: int, problems: int) -> None:
        state = self.state
        state.ended_ms = state.last_ended_ms = now_ms
        state.last_changes, state.last_problems = state.done, problems
