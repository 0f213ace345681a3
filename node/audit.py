"""Verification of what this node holds, from its disk: bytes, leaves, roots, signatures, cosignatures, gaps.

Rules
1. Nothing is believed because it was believed before: each segment is opened, hashed and checked anew against its own
   header, the key of its origin, and the segment before it.
2. A problem names the log and the range. One problem does not stop the rest.

>>> Problem("hebei/13/1/sys.catalog", 0, 1, "FN-6411").log
'hebei/13/1/sys.catalog'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from fednode.crypto import checkpoint
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.merkle import Frontier
from fednode.crypto.suite import suite
from fednode.node.store import Held, Store
from fednode.node.trust import Trust
from fednode.sync import segment as seg
from fednode.sync.change import LogName
from fednode.sync.strip import sealer_of

AT_ONCE = 64


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
    checked."""

    logs: int = 0
    segments: int = 0
    changes: int = 0
    carried: int = 0
    problems: list[Problem] = field(default_factory=list)


def verify_store(store: Store, trust: Trust, progress: Callable[[int, int], None] = lambda done, total: None) -> Report:
    """Verify every log. `progress(done, total)` counts changes."""
    report = Report()
    logs = store.logs()
    total = sum(size for _, _, size in logs)
    for log_id, name, size in logs:
        report.logs += 1
        _Log(store, trust, name, report).verify(log_id, size)
        progress(report.changes, total)
    return report


class _Log:
    """One log, from its first segment to its last."""

    def __init__(self, store: Store, trust: Trust, name: LogName, report: Report) -> None:
        self._store, self._trust, self._name, self._report = store, trust, name, report
        self._frontier: Frontier | None = Frontier.EMPTY
        self._end = self._last_hlc = 0

    def _problem(self, first: int, end: int, code: str) -> None:
        self._report.problems.append(Problem(str(self._name), first, end, code))

    def verify(self, log_id: int, size: int) -> None:
        for lsn, first, count in self._places(log_id):
            try:
                if first != self._end:
                    self._problem(self._end, first, "FN-6602")
                    self._frontier = None
                (held,) = self._store.segments(lsn - 1, 1)
                self._one(held)
            except FednodeError as error:
                self._problem(first, first + count, error.code)
                self._frontier = None
            self._end = first + count
            self._report.segments += 1
            self._report.changes += count
        if self._end != size:
            self._problem(self._end, size, "FN-6602")
        state = self._store.log_state(self._name)
        if self._frontier is not None and state.frontier is not None and state.root != self._frontier.root():
            self._problem(0, size, "FN-6603")

    def _places(self, log_id: int) -> Iterator[tuple[int, int, int]]:
        after = -1
        while rows := self._store.places(log_id, after, AT_ONCE):
            yield from rows
            after = rows[-1][1]

    def _one(self, held: Held) -> None:
        envelope = seg.parse(held.raw)
        header = envelope.header
        if header.log != self._name or (header.first, header.count) != (held.first, held.count):
            raise IntegrityError("FN-6604", log=str(self._name), first=held.first)
        origin = self._trust.directory.get(header.log.origin)
        if origin is None:
            raise IntegrityError("FN-6605", log=str(self._name), node=header.log.origin)
        head = checkpoint.Checkpoint(str(header.log), header.end, header.root)
        checkpoint.verify_signature(head, origin.sign_key, header.checkpoint)
        sealer = sealer_of(header, origin, self._trust.directory)
        suite(header.suite).verify(sealer.sign_key, envelope.digest(), envelope.signature)
        self._witness(held, head)
        columns = self._store.columns(held)
        if columns is None:
            self._report.carried += 1
            self._frontier = None
            return
        if columns.hlcs[0] <= self._last_hlc or columns.hlcs[-1] != header.last_hlc or len(columns) != header.count:
            raise IntegrityError("FN-6604", log=str(self._name), first=held.first)
        self._last_hlc = columns.hlcs[-1]
        if self._frontier is None:
            return
        self._frontier = self._frontier.extend(seg.leaf_hashes(columns, header.suite))
        if self._frontier.root() != header.root:
            raise IntegrityError("FN-6603", log=str(self._name), first=held.first)

    def _witness(self, held: Held, head: checkpoint.Checkpoint) -> None:
        given = self._store.first_parent(held.lsn)
        parent = self._trust.directory.get(self._trust.directory.parent_of(held.name.origin))
        if given is not None and parent is not None:
            checkpoint.verify_cosignature(head, parent.sign_key, given.time_s, given.signature)
