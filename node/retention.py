"""What goes without an erase: records past their time by the catalog, superseded versions that nobody needs any more
(`fednode compact`), and the watch over versions that came stripped with no erase to explain it.

Rules
1. Each holder does its own, with the same strip as an erase: no erase, no receipt, nothing is sent again. Who carries a
   log and cannot read it keeps its sealed bytes.
2. Retention by the catalog: `strip` takes every version of a record, so many days after the date in its field. A
   record without such a date stays. (`withdraw` takes nothing: `fednode.node.withdrawal`.)
3. Compact takes superseded versions, older than so many days, of datasets that do not merge field by field: their
   record is made of all its versions. Only what the parent and every child on the log's way has acknowledged, and what
   no late cosignature can bring back: the segment that won has its first parent's.
4. log.db first, then state.db; again after a crash, or twice, changes nothing. A step is bounded.
5. A relay could hide versions by stripping them. What came stripped, and after a day no erase explains, is an alert:
   the sender's retention, its compacting, or worse.

>>> # while expire(records, day) or compact(records, cursor, ...): pass
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from typing import Any

from fednode.crypto.errors import FednodeError
from fednode.node.erasing import clean
from fednode.node.journal import Journal
from fednode.node.records import Records
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.withdrawal import day_of, last_day, set_day
from fednode.sync.catalog import Dataset
from fednode.sync.change import LogName
from fednode.sync.feed import goes_down_to

STEP_RECORDS = 2_000
STEP_VERSIONS = 20_000
WITHHELD_AFTER_MS = 86_400_000
WITHHELD = "FN-6430"


@dataclass(frozen=True, slots=True)
class Version:
    """A version in state.db: where it stands, and its record."""

    log_id: int
    seq: int
    key: str


@dataclass(slots=True)
class Report:
    """What was stripped, or would be."""

    versions: int = 0
    segments: int = 0

    def add(self, other: Report) -> None:
        self.versions += other.versions
        self.segments += other.segments


def strip_versions(records: Records, versions: Iterable[Version]) -> Report:
    """Strip these versions in log.db, then forget them in state.db."""
    writer, store, projector = records.writer, records.store, records.projector
    names = {number: name for number, name, _ in store.logs()}
    waiting = sorted(versions, key=lambda one: (one.log_id, one.seq))
    report = Report()
    with writer.telling() as tx:
        at = 0
        while at < len(waiting):
            first = waiting[at]
            held = store.segment_at(first.log_id, first.seq)
            columns = store.columns(held) if held is not None else None
            end = held.first + held.count if held is not None else first.seq + 1
            run = [one for one in waiting[at : at + end - first.seq] if one.log_id == first.log_id and one.seq < end]
            at += len(run)
            if held is not None and columns is not None:
                positions = [one.seq - held.first for one in run]
                report.segments += not columns.leaves.keys() >= set(positions)
                report.versions += len(run)
                writer.stripping.strip(tx, held, columns, positions, announce=False)
    projector.forget([(names[one.log_id], one.seq, one.key) for one in waiting if one.log_id in names])
    return report


def run_daily(records: Records, now_ms: int) -> Report:
    """What is due once a day, all of it, told in the audit if there was any. Cleans up, large files too."""
    today = day_of(now_ms)
    report = Report()
    set_day(records.projector, today)
    while (step := expire(records, today)).versions:
        report.add(step)
    if report.versions:
        records.journal.event("retention", versions=report.versions, segments=report.segments)
    watch(records.store, records.journal, now_ms)
    clean(records.store, records.projector, thorough=True)
    return report


# ---------------------------------------------------------------- retention


def expire(records: Records, today: date) -> Report:
    """One step of what the catalog says: records whose time is over by `today`. Nothing stripped: it is done."""
    report = Report()
    catalog = records.trust.catalog
    for declared in catalog.datasets.values() if catalog else ():
        if declared.retention.action == "strip" and report.versions < STEP_RECORDS:
            report.add(strip_versions(records, _expired(records, declared, today)))
    return report


def _expired(records: Records, declared: Dataset, today: date) -> list[Version]:
    c = records.projector.connection
    path = f"$.{declared.retention.field}"
    rows = c.execute(
        f"""select dataset, area, key, log, seq from record where dataset = (select id from dataset where name = ?1)
            and op = 1 and payload ->> '{path}' <> '' and payload ->> '{path}' <= ?2 limit ?3""",
        (declared.name, last_day(declared.retention, today), STEP_RECORDS),
    ).fetchall()
    found = []
    for dataset, area, key, log, seq in rows:
        older = c.execute(
            "select log, seq from superseded where dataset = ? and area = ? and key = ?", (dataset, area, key)
        ).fetchall()
        found += [Version(one, number, key) for one, number in ((log, seq), *older)]
    return found


# ---------------------------------------------------------------- compact


def compact_all(records: Records, now_ms: int, days: int, *, dry_run: bool = False) -> Report:
    """Every step of compacting, told in the audit; the files are written anew."""
    report = Report()
    after: tuple[int, int] | None = (0, -1)
    records.projector.catch_up()
    while after is not None:
        step, after = compact(records, after, now_ms, days, dry_run=dry_run)
        report.add(step)
    if not dry_run:
        records.journal.event("compact", versions=report.versions, segments=report.segments, days=days)
        clean(records.store, records.projector, thorough=True)
    return report


def compact(
    records: Records, after: tuple[int, int], now_ms: int, days: int, *, dry_run: bool = False
) -> tuple[Report, tuple[int, int] | None]:
    """One step of compacting, after a place (log, number): what it did, and where to go on, None at the end."""
    projector, store, trust = records.projector, records.store, records.trust
    catalog = trust.catalog
    names = [one.name for one in catalog.datasets.values() if one.merge != "field"] if catalog else []
    marks = ",".join("?" * len(names))
    limit_stamp = (now_ms - days * 86_400_000) << 16
    rows = projector.connection.execute(
        f"""select s.log, s.seq, s.key, r.log, r.seq from superseded s
            join dataset d on d.id = s.dataset
            join record r on r.key = s.key and r.dataset = s.dataset and r.area = s.area
            where d.name in ({marks}) and s.effective < ? and s.hlc < ? and (s.log, s.seq) > (?, ?)
            order by s.log, s.seq limit ?""",
        (*names, limit_stamp, limit_stamp, *after, STEP_VERSIONS),
    ).fetchall()
    acked = _acked(store, trust)
    final: dict[tuple[int, int], bool] = {}
    chosen = []
    for log, seq, key, won_log, won_seq in rows:
        if _is_final(store, trust, log, seq, acked, final) and _is_final(store, trust, won_log, won_seq, acked, final):
            chosen.append(Version(log, seq, key))
    on = (rows[-1][0], rows[-1][1]) if len(rows) == STEP_VERSIONS else None
    if dry_run:
        places = {(one.log_id, _first(store, one.log_id, one.seq)) for one in chosen}
        return Report(len(chosen), len(places)), on
    return strip_versions(records, chosen), on


def _first(store: Store, log_id: int, seq: int) -> int:
    row = store.connection.execute(
        "select max(first) from segment where log_id = ? and first <= ?", (log_id, seq)
    ).fetchone()
    return int(row[0] or 0)


def _acked(store: Store, trust: Trust) -> dict[int, int]:
    """Log -> the arrival number up to which everyone has it who is to have it from here."""
    peers = {peer.node: peer.acked for peer in store.peers()}
    children = [one for one in trust.directory.children_of(trust.node) if not trust.directory.is_revoked(one.node)]
    parent = trust.parent
    found = {}
    for log_id, up, down in store.connection.execute("select id, up, down from log").fetchall():
        asked = [parent.node] if up and parent is not None else []
        asked += [one.node for one in children if down and goes_down_to(down, one.scope)]
        found[log_id] = min((peers.get(node, 0) for node in asked), default=1 << 62)
    return found


def _is_final(
    store: Store, trust: Trust, log_id: int, seq: int, acked: dict[int, int], seen: dict[tuple[int, int], bool]
) -> bool:
    first = _first(store, log_id, seq)
    known = seen.get((log_id, first))
    if known is not None:
        return known
    row = store.connection.execute(
        """select s.lsn, s.first_time is not null, l.origin from segment s join log l on l.id = s.log_id
           where s.log_id = ? and s.first = ?""",
        (log_id, first),
    ).fetchone()
    witnessed = row is not None and (row[1] or trust.directory.parent_of(row[2]) is None)
    seen[(log_id, first)] = found = bool(witnessed and row[0] <= acked.get(log_id, 0))
    return found


# ---------------------------------------------------------------- what came stripped


def watch(store: Store, journal: Journal, now_ms: int) -> int:
    """Raise an alert for what came stripped and no erase explains by now. Returns how many versions there are."""
    c = store.connection
    total = 0
    for log, first, peer, at_ms in c.execute("select log, first, peer, at_ms from withheld").fetchall():
        count = _unexplained(store, LogName.parse(log), first)
        if not count:
            with store.write() as tx:
                tx.execute("delete from withheld where log = ? and first = ?", log, first)
            continue
        total += count
        if now_ms - at_ms >= WITHHELD_AFTER_MS:
            params: dict[str, Any] = {"log": log, "first": first, "count": count, "peer": peer}
            journal.alert(WITHHELD, peer, params)
    return total


def withheld(store: Store) -> int:
    """How many versions came stripped and no erase explains, at this moment."""
    rows = store.connection.execute("select log, first from withheld").fetchall()
    return sum(_unexplained(store, LogName.parse(log), first) for log, first in rows)


def _unexplained(store: Store, log: LogName, first: int) -> int:
    log_id = store.log_id(log)
    try:
        held = store.segment_at(log_id, first) if log_id is not None else None
        columns = store.columns(held) if held is not None else None
    except FednodeError:
        return 0
    if held is None or columns is None:
        return 0
    erased = store.connection.execute(
        "select seq from erased where log = ? and seq >= ? and seq < ?", (str(log), first, first + held.count)
    ).fetchall()
    return len(columns.leaves.keys() - {seq - first for (seq,) in erased})
