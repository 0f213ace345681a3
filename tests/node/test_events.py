"""Reading the audit and the alerts: filters, pages, what was altered, and what a hostile child may have written."""

from __future__ import annotations

import ast
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.app import App
from fednode.node.cli.journal import _csv
from fednode.node.config import Config
from fednode.node.events import Events, Filter, time_of
from fednode.node.messages import catalogue
from fednode.sync.change import ALERTS, AUDIT, DELETE, Change
from fednode.sync.errors import Refused
from source import sources
from world import NOW_S, Clock, Stream

DAY_MS = 86_400_000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> Iterator[App]:
    made = App.init_province(
        tmp_path / "13", Config(), node="13", name="河北省", domain="hebei", clock=clock, rng=Stream("events")
    )
    yield made
    made.close()


@pytest.fixture
def week(app: App, clock: Clock) -> App:
    """An event a day for a week, by two people."""
    for day in range(7):
        clock.ms = (NOW_S * 1000) + day * DAY_MS
        outcome = "refused" if day == 3 else "done"
        app.journal().event("import" if day % 2 else "daemon.started", outcome, who=f"p{day % 2} (x, uid 1)", day=day)
    return app


def days(app: App, **wanted: Any) -> list[int]:
    """The events of a week that a filter lets through."""
    found, _ = Events(app.new_projector()).page(Filter(**wanted), 100)
    return [one.details["day"] for one in found if "day" in one.details]


def test_the_newest_come_first(week: App) -> None:
    assert days(week) == [6, 5, 4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"who": "p1"}, [5, 3, 1]),
        ({"action": "import"}, [5, 3, 1]),
        ({"action": "daemon"}, [6, 4, 2, 0]),
        ({"action": "daem"}, []),
        ({"outcome": "refused"}, [3]),
        ({"node": "13", "who": "p0"}, [6, 4, 2, 0]),
        ({"node": "1301"}, []),
        ({"since_ms": NOW_S * 1000 + 2 * DAY_MS, "until_ms": NOW_S * 1000 + 4 * DAY_MS}, [4, 3, 2]),
        ({"since_ms": -1, "until_ms": 1 << 70}, [6, 5, 4, 3, 2, 1, 0]),
    ],
)
def test_filters(week: App, wanted: dict[str, Any], found: list[int]) -> None:
    assert days(week, **wanted) == found


def test_pages_have_every_event_once(week: App) -> None:
    events = Events(week.new_projector())
    seen, cursor = [], ""
    while True:
        page, cursor = events.page(Filter(), 3, cursor)
        seen += [one.number for one in page]
        if not cursor:
            break
        assert len(page) == 3
    assert seen == sorted(seen, reverse=True)
    assert len(set(seen)) == len(seen) == 8
    assert [one.number for one in events.all(Filter())] == seen


@pytest.mark.parametrize("cursor", ["x", "1", "1-x", "-", "9" * 50 + "-1"])
def test_a_cursor_that_is_none(week: App, cursor: str) -> None:
    with pytest.raises(Refused, match="FN-3330"):
        Events(week.new_projector()).page(Filter(), 3, cursor)


def test_pages_are_read_by_the_index(week: App) -> None:
    projector = week.new_projector()
    projector.catch_up()
    number = projector.connection.execute("select id from dataset where name = ?", (AUDIT,)).fetchone()[0]
    plan = projector.connection.execute(
        f"explain query plan select id from record r where r.dataset = {number} and (r.effective, r.id) < (9, 9) "
        "order by r.effective desc, r.id desc limit 5"
    ).fetchall()
    assert "time:sys.audit" in str(plan)
    assert "B-TREE" not in str(plan)
    projector.rebuild()
    assert days(week) == [6, 5, 4, 3, 2, 1, 0]


def hostile(app: App, *changes: Change) -> None:
    """What the owner of a node's keys may append to its audit."""
    writer = app.new_writer(app.store)
    with app.store.write() as tx:
        writer.append_system(tx, AUDIT, "13", list(changes))


def test_an_event_that_was_written_again_or_deleted_shows(week: App) -> None:
    projector = week.new_projector()
    first, second = (Events(projector).page(Filter(), 2))[0]
    keys = [row[0] for row in projector.connection.execute("select key from record order by effective desc limit 2")]
    hostile(week, Change(keys[0].encode(), b'{"action":"nothing"}'), Change(keys[1].encode(), b"", DELETE))
    assert not first.altered
    assert not second.altered
    altered = {one.action for one in Events(projector).page(Filter(), 100)[0] if one.altered}
    assert altered == {"nothing", ""}


def test_whatever_a_payload_is_the_audit_can_be_read(week: App) -> None:
    odd = [b"{}", b'{"who":1,"action":[],"details":"x"}', b'{"who":"\\ud800"}', b'{"at_ms":"x","node":"1301"}']
    hostile(week, *(Change(f"~{i}".encode(), payload) for i, payload in enumerate(odd)))
    events = Events(week.new_projector())
    found, _ = events.page(Filter(), 100)
    assert {one.node for one in found} == {"13"}, "the log says whose it is, not the payload"
    assert len(found) == 8 + len(odd)
    assert events.page(Filter(who="p1", action="import", outcome="done"), 100)[0]


def test_alerts_whatever_their_payload(app: App) -> None:
    writer = app.new_writer(app.store)
    with app.store.write() as tx:
        writer.append_system(tx, ALERTS, "13", [Change(b"FN-x", b"{}"), Change(b"FN-y", b'{"params":1,"evidence":{}}')])
    assert [one.state for one in Events(app.new_projector()).alerts()] == ["open", "open"]


def test_a_spreadsheet_computes_nothing_of_what_a_peer_wrote(app: App) -> None:
    app.journal().befell("join.refused", "refused", peer="x", code="FN-5101", who="=1+1")
    app.journal().event("=cmd|'/c calc'!A0", who="@x")
    out = io.StringIO()
    events, _ = Events(app.new_projector()).page(Filter(), 100)
    list(_csv(events, out))
    rows = list(csv.reader(io.StringIO(out.getvalue())))[1:]
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "+", "-", "@"))]


def test_times() -> None:
    assert time_of("2026-01-02T00:00:00Z") == 1767312000000
    assert time_of("2026-01-02T00:00:00Z", end=True) == 1767312000999
    day, end = time_of("2026-01-02"), time_of("2026-01-02", end=True)
    assert day is not None
    assert end == day + DAY_MS - 1
    assert [time_of(text) for text in ("", "x", "2026-13-01", "99999-01-01")] == [None] * 4


def test_every_action_has_words() -> None:
    """Actions that the program writes, by name or as the act of a command."""
    missing = []
    for one in sources("node"):
        for call in one.calls():
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            at = {"event": 0, "within": 1, "befell": 0, "tell": 0, "command": 1}.get(name)
            if at is None or len(call.args) <= at or not isinstance(call.args[at], ast.Constant):
                continue
            action = call.args[at].value  # type: ignore[attr-defined]
            if action and f"action.{action}" not in catalogue():
                missing.append(f"{one.name}:{call.lineno} {action}")
    assert missing == []


def test_json_lines_are_json(week: App, tmp_path: Path) -> None:
    from fednode.node.cli import invoke

    out = tmp_path / "x.jsonl"
    home = str(tmp_path / "13")
    assert invoke(["--home", home, "audit", "log", "--jsonl", "-o", str(out)], {}) == 0
    assert len([json.loads(line) for line in out.read_text().splitlines()]) == 8
    assert out.stat().st_mode & 0o077 == 0
    assert invoke(["--home", home, "audit", "log", "-o", str(out)], {}) == 7, "a file that is there stays"
    assert invoke(["--home", home, "audit", "log", "--since", "yesterday"], {}) == 2
