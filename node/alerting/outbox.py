"""The outbox: what is to be told to whom, until it was (table `delivery` of alerts.db).

Rules
1. An alert that opens, of the level of `[alerts] notify` or above, and neither silenced nor seen to, is told once to
   each target; that it has closed, to those who heard that it opened. `id` is the same for all attempts and targets, so
   a receiver that hears something twice knows (at least once).
2. What is in here is on disk before anything is sent, and stays until it was. So a restart loses nothing.
3. A target that is in trouble is tried again later: exponential, with jitter, at most an hour (`schedule`); its other
   letters wait with it, and those of other targets do not. What it will not have, waits alone. After `GIVE_UP_MS` it is
   given up, and that is in the audit.

>>> letter_id("FN-4610/1301/", "13", 1780000000000, "alert.opened")
'384a16fd06135441ae3944faf71691aa'
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fednode.crypto import canonical
from fednode.crypto.certs import iso
from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite
from fednode.node.alerting.local import Local, if_readable
from fednode.node.alerting.raising import reading, rules_of
from fednode.node.alerting.reading import area_of, id_of, message, silences, state_of
from fednode.node.alerting.rules import LEVELS
from fednode.node.alerting.targets import Letter, Target, Told, targets
from fednode.node.events import Alert, Events
from fednode.node.journal import FAILED, OPEN, TEXT_BYTES_MAX, cut, small
from fednode.node.messages import LANGUAGES, safe, text

if TYPE_CHECKING:
    from fednode.node.app import App

VERSION = 1
TRIAL = "FN-4623"
OPENED, CLOSED, TEST = "alert.opened", "alert.closed", "alert.test"
GIVE_UP_MS = 7 * 86_400_000
KEEP_MS = 30 * 86_400_000
RUN_MAX = 200  # letters to one target in one run
ID_DIGITS = 32
WORDS_MAX = 2_000
Attempt = Callable[[Target, Letter], Told]
Wait = Callable[[int], float]


@dataclass(slots=True)
class Sent:
    """What one run did."""

    sent: int = 0
    failed: int = 0
    given_up: int = 0
    waiting: int = 0


def letter_id(key: str, area: str, raised_ms: int, kind: str) -> str:
    """Tells one thing that is told from another."""
    return SUITE_1.hash(canonical.dumps([key, area, raised_ms, kind])).hex()[:ID_DIGITS]


def document(app: App, alert: Alert, kind: str, id_: str) -> bytes:
    """What a webhook is sent (docs/monitoring.md). `timestamp`: of what it tells of."""
    me, known = app.trust.me, app.trust.directory.get(alert.node)
    at_ms = alert.raised_ms if kind != CLOSED else alert.at_ms
    told = {
        "version": VERSION,
        "type": kind,
        "id": id_,
        "timestamp": iso(at_ms // 1000),
        "from": {"domain": me.domain, "node": me.node, "name": me.name},
        "data": {
            "key": _plain(alert.key),
            "id": id_of(alert.key),
            "rule": alert.rule,
            "level": alert.level,
            "code": alert.code,
            "node": _plain(alert.node),
            "name": alert.name,
            "node_level": known.level if known is not None else "",
            "area": area_of(app.trust, alert),
            "by": _plain(alert.by),
            "raised_ms": alert.raised_ms,
            "params": small(alert.params),
            "message": {lang: cut(message(alert, lang)[0], WORDS_MAX) for lang in LANGUAGES},
            "hint": {lang: cut(message(alert, lang)[1], WORDS_MAX) for lang in LANGUAGES},
            "gone": alert.gone,
            "closed_by": _plain(alert.closed_by),
            "reason": _plain(alert.reason),
        },
    }
    return canonical.dumps(told)


def _plain(value: str) -> str:
    """A text as every JSON can say it: other nodes write these."""
    return cut(value, TEXT_BYTES_MAX)


def letter(body: bytes) -> Letter:
    """A letter for both kinds of targets, made out of its document."""
    told: dict[str, Any] = canonical.loads(body)
    data, subjects, lines = told["data"], [], []
    code, node, name = (safe(data[part]) for part in ("code", "node", "name"))
    for lang in ("zh", "en"):
        level = text(f"alerts.level_{data['level']}", lang)
        kind = text(f"alerts.told_{told['type'].partition('.')[2]}", lang)
        subjects.append(f"{kind} {level}")
        lines += [f"{kind} {level} {code} {node} {name}", data["message"][lang]]
        lines += [data["hint"][lang]] if data["hint"][lang] else []
        lines.append("")
    where = f"{told['from']['node']} {safe(told['from']['name'])}"
    lines += [f"{told['timestamp']}  {safe(data['key'])}", where, told["id"]]
    subject = f"[fednode] {' / '.join(subjects)}: {code} {node} {name}"
    return Letter(told["id"], body, subject, "\n".join(lines) + "\n")


class Outbox:
    """Of one thread."""

    def __init__(self, connection: sqlite.Connection, local: Local) -> None:
        self._c, self._local = connection, local

    # ------------------------------------------------------------ in

    def post(self, app: App, to: Iterable[Target]) -> int:
        """Put in what is new (rule 1). Returns how many letters."""
        names = [one.name for one in to]
        with reading(app) as (_, projector):
            events = Events(projector, rules_of(app))
            quiet, now_ms = silences(app), app.now_ms()
            there = {(one.key, one.area): one for one in events.alerts()}
            rows = []
            heard = LEVELS[: LEVELS.index(app.config.alerts_notify) + 1]
            for one in there.values():
                area = area_of(app.trust, one)
                if one.level in heard and state_of(one, area, quiet) == OPEN:
                    rows += self._rows(app, one, OPENED, names, now_ms)
            rows += self._closed(app, events, set(there), now_ms)
        with sqlite.transaction(self._c, self._local.path) as c:
            before = c.total_changes
            c.executemany(
                """insert or ignore into delivery (id, target, alert, area, raised_ms, kind, body, made_ms, next_ms)
                   values (?, ?, ?, ?, ?, ?, ?, ?, 0)""",
                rows,
            )
            new = int(c.total_changes - before)
            c.execute(
                f"""update delivery set done_ms = ?, error = 'closed' where kind = '{OPENED}' and done_ms is null
                    and exists (select 1 from delivery d where d.kind = '{CLOSED}' and d.target = ''
                    and d.alert = delivery.alert and d.area = delivery.area and d.raised_ms = delivery.raised_ms)""",
                (now_ms,),
            )  # nobody needs to hear of what opened and closed before it could be told
            marks = ", ".join("?" * (len(names) + 1))
            c.execute(f"delete from delivery where done_ms is null and target not in ({marks})", ("", *names))
            self._forget(c, now_ms)
        return new

    @staticmethod
    def _forget(c: sqlite.Connection, now_ms: int) -> None:
        """What closed long ago, all of it at once."""
        old = c.execute(
            "select alert, area, raised_ms from delivery where target = '' and made_ms < ?", (now_ms - KEEP_MS,)
        ).fetchall()
        c.executemany("delete from delivery where alert = ? and area = ? and raised_ms = ?", old)

    @staticmethod
    def _rows(app: App, alert: Alert, kind: str, names: Iterable[str], now_ms: int) -> list[tuple[Any, ...]]:
        id_ = letter_id(alert.key, alert.area, alert.raised_ms, kind)
        body = document(app, alert, kind, id_)
        return [(id_, name, alert.key, alert.area, alert.raised_ms, kind, body, now_ms) for name in names]

    def _closed(self, app: App, events: Events, there: set[tuple[str, str]], now_ms: int) -> list[tuple[Any, ...]]:
        """That what was told, or is to be told, has closed; a row to nobody says that this was seen."""
        rows: list[tuple[Any, ...]] = []
        for key, area, raised_ms in self._c.execute(
            f"""select distinct alert, area, raised_ms from delivery d where kind = '{OPENED}' and not exists
                (select 1 from delivery e where e.kind = '{CLOSED}' and e.target = '' and e.alert = d.alert
                 and e.area = d.area and e.raised_ms = d.raised_ms)"""
        ).fetchall():
            if (key, area) in there:
                continue
            found = [one for one in events.of_key(key) if one.area == area and one.raised_ms == raised_ms]
            heard = self._c.execute(
                f"""select target from delivery where kind = '{OPENED}' and alert = ? and area = ? and raised_ms = ?
                    and done_ms is not null and error = ''""",
                (key, area, raised_ms),
            ).fetchall()
            id_ = letter_id(key, area, raised_ms, CLOSED)
            rows.append((id_, "", key, area, raised_ms, CLOSED, b"", now_ms))
            for one in found:
                rows += self._rows(app, one, CLOSED, [name for (name,) in heard], now_ms)
        return rows

    # ------------------------------------------------------------ out

    def run(self, to: Iterable[Target], attempt: Attempt, wait_s: Wait, now_ms: int) -> Sent:
        """Try what is due (rule 3). `wait_s`: how long after so many attempts. Raises StoreError."""
        found = Sent()
        for target in to:
            self._run(target, attempt, wait_s, now_ms, found)
        ((found.waiting,),) = self._c.execute(
            "select count(*) from delivery where done_ms is null and target <> ''"
        ).fetchall()
        return found

    def _run(self, target: Target, attempt: Attempt, wait_s: Wait, now_ms: int, found: Sent) -> None:
        rows = self._c.execute(
            """select rowid, body, attempts, made_ms from delivery
               where target = ? and done_ms is null and (next_ms <= ? or next_ms > ?) order by rowid limit ?""",
            (target.name, now_ms, now_ms + GIVE_UP_MS, RUN_MAX),  # a clock that was put back
        ).fetchall()
        for row, body, attempts, made_ms in rows:
            told = attempt(target, letter(body))
            if told.ok:
                self._end(row, now_ms, "")
                found.sent += 1
                continue
            found.failed += 1
            if now_ms - made_ms >= GIVE_UP_MS:
                self._end(row, now_ms, told.reason or "?")
                found.given_up += 1
                continue
            wait_ms = round(max(told.retry_after_s, wait_s(attempts + 1)) * 1000)
            with sqlite.transaction(self._c, self._local.path) as c:
                sql = "update delivery set next_ms = ?, error = ? where done_ms is null and "
                told_when = (now_ms + wait_ms, told.reason)
                if told.theirs:
                    c.execute(sql + "rowid = ?", (*told_when, row))
                else:
                    c.execute(sql + "target = ?", (*told_when, target.name))
                c.execute("update delivery set attempts = attempts + 1 where rowid = ?", (row,))
            if not told.theirs:
                return

    def _end(self, row: int, now_ms: int, error: str) -> None:
        with sqlite.transaction(self._c, self._local.path) as c:
            c.execute("update delivery set done_ms = ?, error = ? where rowid = ?", (now_ms, error, row))

    def standing(self) -> list[dict[str, Any]]:
        """Of each target how many letters wait, since when, and why."""
        rows = self._c.execute(
            """select target, count(*), min(made_ms), min(next_ms), max(attempts), max(error) from delivery
               where done_ms is null and target <> '' group by target order by target"""
        ).fetchall()
        keys = ("target", "waiting", "since_ms", "next_ms", "attempts", "error")
        return [dict(zip(keys, row, strict=True)) for row in rows]


# ---------------------------------------------------------------- the job


def deliver(app: App, attempt: Attempt, wait_s: Wait) -> dict[str, Any]:
    """Put in what is new, and send what is due; in whatever thread. Raises StoreError."""
    to = list(targets(app.config))
    with closing(Local.open(app.home.alerts_db)) as local:
        outbox = Outbox(local.connection, local)
        new = outbox.post(app, to)
        found = outbox.run(to, attempt, wait_s, app.now_ms())
    if found.given_up:
        with closing(app.new_store()) as store:
            app.journal(app.new_writer(store)).befell("alerts.undelivered", FAILED, count=found.given_up)
    return {"new": new, "sent": found.sent, "failed": found.failed, "waiting": found.waiting}


def standing(app: App) -> list[dict[str, Any]]:
    """What waits to be told; nothing where the file cannot be read."""
    with if_readable(app.home.alerts_db) as local:
        return [] if local is None else Outbox(local.connection, local).standing()


def trial(app: App, attempt: Attempt) -> list[tuple[str, Told]]:
    """One letter to each target now, past the outbox; in the audit."""
    me, now_ms = app.trust.me, app.now_ms()
    place = {"area": me.scope[0], "rule": "other", "level": LEVELS[-1], "raised_ms": now_ms}
    trial_ = Alert(
        *("test", now_ms, TRIAL, me.node, me.name, me.node, "", OPEN, {"node": me.node}, []),
        **place,  # type: ignore[arg-type]
    )
    id_ = letter_id("test", me.node, now_ms, TEST)
    body = document(app, trial_, TEST, id_)
    found = [(target.name, attempt(target, letter(body))) for target in targets(app.config)]
    failed = sum(not told.ok for _, told in found)
    app.journal().event("alerts.test", FAILED if failed else "done", targets=len(found), failed=failed)
    return found
