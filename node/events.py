"""What the audit and the alerts say: reading `sys.audit` and `sys.alerts`, this node's own and those from below.

Rules
1. Who wrote an event is told by the log it stands in, which its origin signed; never by its payload.
2. The time is the change's effective one: a first parent has bounded it, whatever the writer's clock said.
3. An event that was written again, or taken away, is shown as such (`altered`): the log still has what it was.
4. Closing or acknowledging an alert is a new version of it, in the log of whoever does it: it goes up, and down to
   where it came from. Raised anew, it is neither.
5. Payloads come from other nodes: what is not as it should be is shown as empty, never an error. An alert's key begins
   with its code; what has another is none.

>>> time_of("2026-11-25T08:00:00+08:00"), time_of("2026-11-25T08:00:00+08:00", end=True)
(1795564800000, 1795564800999)
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from fednode.crypto import canonical
from fednode.node import sqlite
from fednode.node.alerting.rules import LEVELS, RULES, Rules, rule_of
from fednode.node.follower import follow
from fednode.node.journal import CLOSED, OPEN, RULE_VERSION, TEXT_BYTES_MAX, Journal, cut
from fednode.node.mesh.own import ALERT_KEYS
from fednode.node.projection import Projector
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer
from fednode.sync.change import ALERTS, AUDIT, UPSERT, Change, LogName
from fednode.sync.clock import STAMP_MAX, milliseconds, stamp
from fednode.sync.errors import Refused

PAGE_DEFAULT, PAGE_MAX = 50, 10_000


@dataclass(frozen=True, slots=True)
class Event:
    """One event. `node`: whose log it stands in; `number`: its place there."""

    at_ms: int
    node: str
    name: str
    who: str
    action: str
    outcome: str
    code: str
    details: dict[str, Any]
    software: str
    log: str
    number: int
    altered: bool


@dataclass(frozen=True, slots=True)
class Filter:
    """Which events: `who` a part of the name, `action` the whole or what stands before a dot, times in Unix
    milliseconds, both ends included."""

    since_ms: int = 0
    until_ms: int = milliseconds(STAMP_MAX)
    node: str = ""
    who: str = ""
    action: str = ""
    outcome: str = ""

    @property
    def names(self) -> list[str]:
        """The filters that are set, without their values."""
        empty = Filter()
        every = ("since_ms", "until_ms", "node", "who", "action", "outcome")
        return [name.removesuffix("_ms") for name in every if getattr(self, name) != getattr(empty, name)]


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert. `node`: whom it is about; `by`: who raised it; `rule`, `level`: as that node says, else as this one's
    settings have it; `at_ms`: of its newest version, `raised_ms`: when it was raised; `gone`: it was closed because its
    cause is gone."""

    key: str
    at_ms: int
    code: str
    node: str
    name: str
    by: str
    peer: str
    state: str
    params: dict[str, Any]
    evidence: list[str]
    closed_by: str = ""
    reason: str = ""
    area: str = field(default="", repr=False)
    rule: str = ""
    level: str = ""
    raised_ms: int = 0
    acked_ms: int = 0
    acked_by: str = ""
    note: str = ""
    gone: bool = False


def time_of(text: str, *, end: bool = False) -> int | None:
    """Unix milliseconds of a date, or a date and time (ISO 8601; local time where no zone is given); with `end` the
    last millisecond of it. None for what is neither."""
    try:
        moment = datetime.fromisoformat(text)
        if end:
            moment += timedelta(days=1) if len(text) <= len("2026-01-01") else timedelta(seconds=1)
        return int(moment.timestamp() * 1000) - (1 if end else 0)
    except (ValueError, OverflowError, OSError):
        return None


class Events:
    """Reads events and alerts through a projection of this thread. `follows`: brought up to date first; else as far as
    the daemon has brought it."""

    def __init__(self, projector: Projector, rules: Rules | None = None, *, follows: bool = True) -> None:
        self._projector, self._trust = projector, projector.trust
        self._rules = rules or Rules.of(())
        if follows:
            follow(projector)
        self._names: dict[int, LogName] = {log_id: name for log_id, name, _ in projector.store.logs()}

    # ------------------------------------------------------------ the audit

    def page(self, wanted: Filter, limit: int = PAGE_DEFAULT, after: str = "") -> tuple[list[Event], str]:
        """Events, the newest first, and where to go on ("" at the end). Raises Refused FN-3330."""
        number = self._dataset(AUDIT)
        if number is None:
            return [], ""
        effective, row_id = _cursor(after)
        conditions = [f"r.dataset = {number}", "(r.effective, r.id) < (?, ?)", "r.effective >= ?", "r.effective <= ?"]
        values: list[Any] = [effective, row_id, *self._between(wanted)]
        if wanted.node:
            logs = [str(one) for one, name in self._names.items() if name.origin == wanted.node]
            conditions.append(f"r.log in ({','.join(logs)})")
        if wanted.who:
            conditions.append(f"instr({_told('who')}, ?) > 0")
            values.append(wanted.who)
        if wanted.action:
            conditions.append(f"({_told('action')} = ? or instr({_told('action')}, ?) = 1)")
            values += [wanted.action, wanted.action + "."]
        if wanted.outcome:
            conditions.append(f"{_told('outcome')} = ?")
            values.append(wanted.outcome)
        size = max(1, min(limit, PAGE_MAX))
        rows = self._rows(
            f"""select r.effective, r.id, r.op, r.payload, r.log, r.seq, exists (select 1 from superseded s
                where s.dataset = r.dataset and s.area = r.area and s.key = r.key) from record r
                where {" and ".join(conditions)} order by r.effective desc, r.id desc limit ?""",
            *values,
            size + 1,
        )
        found = [self._event(*row) for row in rows[:size]]
        return found, f"{rows[size - 1][0]}-{rows[size - 1][1]}" if len(rows) > size else ""

    def all(self, wanted: Filter, after: str = "") -> Iterator[Event]:
        """Every event that `page` would page through."""
        while True:
            found, after = self.page(wanted, PAGE_MAX, after)
            yield from found
            if not after:
                return

    def _event(self, effective: int, _id: int, op: int, payload: str | None, log: int, seq: int, again: int) -> Event:
        told = _read(payload)
        name = self._names[log]
        who, action, outcome, code = (str(told.get(one, "")) for one in ("who", "action", "outcome", "code"))
        details = told.get("details")
        return Event(
            milliseconds(effective),
            name.origin,
            self._name_of(name.origin),
            who,
            action,
            outcome,
            code,
            details if isinstance(details, dict) else {},
            str(told.get("software", "")),
            str(name),
            seq,
            bool(again) or op != UPSERT,
        )

    # ------------------------------------------------------------ alerts

    def alerts(self, *, closed: bool = False) -> list[Alert]:
        """Every alert known here, the newest first; those that are closed as well when `closed`."""
        return [alert for alert, _ in self._alerts(closed=closed)]

    def of_key(self, key: str) -> list[Alert]:
        """The records of one alert, closed or not."""
        return [alert for alert, _ in self._alerts(key)]

    def raised_here(self, by: str) -> dict[str, tuple[Alert, int]]:
        """By key, every alert that this node has raised, with the stamp of its newest version."""
        return {alert.key: (alert, hlc) for alert, hlc in self._alerts() if alert.by == by}

    def _alerts(self, key: str = "", *, closed: bool = True) -> list[tuple[Alert, int]]:
        number = self._dataset(ALERTS)
        if number is None:
            return []
        rows = self._rows(
            f"""select r.effective, r.key, r.payload, r.hlc, a.code from record r join area a on a.id = r.area
                where r.key >= ?1 and r.key < ?2 and r.dataset = {number} and r.op = {UPSERT}
                and (?3 or iif(json_valid(r.payload), r.payload ->> '$.state', '') is not 'closed')
                order by r.effective desc, r.id desc""",
            *((key, key + "\0") if key else ALERT_KEYS),
            closed,
        )
        return [(self._alert(effective, found, payload, area), hlc) for effective, found, payload, hlc, area in rows]

    def _alert(self, effective: int, key: str, payload: str, area: str) -> Alert:
        told = _read(payload)
        params, evidence = told.get("params"), told.get("evidence")
        node, code = str(told.get("node", "")), str(told.get("code", ""))
        rule, level = str(told.get("rule", "")), str(told.get("level", ""))
        at_ms, acked_ms = (_number(told.get(name)) for name in ("at_ms", "acked_ms"))
        return Alert(
            key,
            milliseconds(effective),
            code,
            node,
            self._name_of(node),
            str(told.get("by", "")),
            str(told.get("peer", "")),
            CLOSED if told.get("state") == CLOSED else OPEN,
            params if isinstance(params, dict) else {},
            [str(one) for one in evidence] if isinstance(evidence, list) else [],
            str(told.get("closed_by", "")),
            str(told.get("reason", "")),
            area,
            rule if rule in RULES else rule_of(code),
            level if level in LEVELS else self._rules.level_of(code),
            min(at_ms, milliseconds(effective)) or milliseconds(effective),
            acked_ms,
            str(told.get("acked_by", "")),
            str(told.get("note", "")),
            told.get("gone") is True,
        )

    def close(self, writer: Writer, journal: Journal, key: str, reason: str, who: str, now_ms: int) -> list[Alert]:
        """Close an alert, wherever it stands: each area's record of it gets a new version, with its event. Raises
        Refused FN-3331 when no such alert is open."""
        closed = {"state": CLOSED, "closed_ms": now_ms, "closed_by": cut(who, TEXT_BYTES_MAX)}
        closed |= {"closed_at": self._trust.node, "reason": cut(reason, TEXT_BYTES_MAX)}
        return self._anew(writer, journal, key, closed, "alerts.close")

    def ack(self, writer: Writer, journal: Journal, key: str, note: str, who: str, now_ms: int) -> list[Alert]:
        """Say that somebody sees to an open alert, as `close` does. Raises Refused FN-3331."""
        acked = {"v": RULE_VERSION, "acked_ms": now_ms, "acked_by": cut(who, TEXT_BYTES_MAX)}
        acked |= {"acked_at": self._trust.node, "note": cut(note, TEXT_BYTES_MAX)}
        return self._anew(writer, journal, key, acked, "alerts.ack")

    def _anew(self, writer: Writer, journal: Journal, key: str, more: Mapping[str, Any], action: str) -> list[Alert]:
        there = [(alert, hlc) for alert, hlc in self._alerts(key) if alert.state == OPEN]
        if not there:
            raise Refused("FN-3331", key=key)
        with writer.store.write() as tx:
            for alert, hlc in there:
                self.rewrite(writer, tx, alert, hlc, more)
            journal.within(tx, action, alert=key, records=len(there))
        return [alert for alert, _ in there]

    def rewrite(self, writer: Writer, tx: Transaction, alert: Alert, base: int, more: Mapping[str, Any]) -> None:
        """A new version of an alert, in a transaction of this writer's store."""
        change = Change(alert.key.encode(), canonical.dumps({**self._payload(alert), **more}), UPSERT, base)
        writer.append_system(tx, ALERTS, alert.area, [change])

    def _payload(self, alert: Alert) -> dict[str, Any]:
        row = self._projector.current(ALERTS, alert.area, [alert.key])[alert.key]
        return dict(_read((row.payload or b"{}").decode()))

    # ------------------------------------------------------------ the tables

    @staticmethod
    def _between(wanted: Filter) -> tuple[int, int]:
        last = milliseconds(STAMP_MAX)
        since, until = max(0, min(wanted.since_ms, last)), max(0, min(wanted.until_ms, last))
        return stamp(since), stamp(until, 0xFFFF)

    def _dataset(self, name: str) -> int | None:
        rows = self._rows("select id from dataset where name = ?", name)
        return int(rows[0][0]) if rows else None

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._projector.connection.execute(sql, parameters).fetchall()
            return rows
        except sqlite.DatabaseError as error:
            raise sqlite.trouble(error, self._projector.path) from error

    def _name_of(self, node: str) -> str:
        known = self._trust.directory.get(node)
        return known.name if known else ""


def _told(name: str) -> str:
    """A text of an event's payload; what SQLite does not take for JSON fails no query."""
    return f"iif(json_valid(r.payload), r.payload ->> '$.{name}', '')"


def _read(payload: str | None) -> Mapping[str, Any]:
    try:
        found = msgspec.json.decode(payload or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> int:
    return value if isinstance(value, int) and 0 <= value <= milliseconds(STAMP_MAX) else 0


def _cursor(after: str) -> tuple[int, int]:
    if not after:
        return STAMP_MAX, STAMP_MAX
    effective, _, row_id = after.partition("-")
    if not (effective.isascii() and effective.isdigit() and row_id.isascii() and row_id.isdigit()) or len(after) > 40:
        raise Refused("FN-3330", cursor=after)
    return min(int(effective), STAMP_MAX), min(int(row_id), STAMP_MAX)
