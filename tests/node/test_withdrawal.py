"""`retention.action = "withdraw"`: a record past its time is kept, proved and counted, and not shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node import retention
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.records import Records
from fednode.node.withdrawal import day_of
from fednode.sync.catalog import Catalog
from fednode.sync.errors import Refused
from mesh import configuration
from timed import CATALOG, DAY_MS, START_MS, Clock

JULY_MS = START_MS + 34 * DAY_MS  # July 1st, 2026
OVER, LAST = "2026-05-31", "2026-06-01"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> Iterator[App]:
    made = App.init_province(tmp_path / "13", configuration(), node="13", name="省", domain="hebei", clock=clock)
    made.publish_catalog(Catalog.from_toml_dict(CATALOG))
    yield made
    made.close()


@pytest.fixture
def records(app: App, clock: Clock) -> Iterator[Records]:
    found = app.records()
    for key, until in (("over", OVER), ("last", LAST), ("open", "2099-12-31"), ("none", "")):
        found.put("shown", {"id": key, "text": f"word {key}", "until": until})
    clock.ms = JULY_MS
    yield found
    found.close()


def keys(records: Records, **more: Any) -> list[str]:
    return [one.key for one in records.find("shown", limit=100, **more).items]


def view(records: Records) -> list[str]:
    return [key for (key,) in records.projector.connection.execute('select record_key from "shown" order by 1')]


def reads(records: Records) -> list[str]:
    records.projector.catch_up()
    rows = records.projector.connection.execute(
        """select payload ->> '$.action' from record where dataset = (select id from dataset where name = 'sys.audit')
           and payload ->> '$.action' in ('get', 'find', 'history') order by key"""
    )
    return [action for (action,) in rows]


def withdrawn(call: Any, *arguments: Any) -> str:
    with pytest.raises(Refused) as caught:
        call(*arguments)
    assert caught.value.code == "FN-3350"
    return str(caught.value.params["since"])


def test_a_record_is_shown_to_its_last_day_and_not_after(records: Records, clock: Clock) -> None:
    assert day_of(JULY_MS).isoformat() == "2026-07-01"
    assert keys(records) == ["last", "open", "none"]
    assert withdrawn(records.get, "shown", "over") == withdrawn(records.history, "shown", "over") == "2026-07-01"
    assert records.get("shown", "last").withdrawn == ""
    assert keys(records, text="over") == []
    assert keys(records, text="last") == ["last"]
    clock.ms += DAY_MS
    assert keys(records) == ["open", "none"]
    clock.ms -= 2 * DAY_MS
    assert keys(records) == ["over", "last", "open", "none"]


def test_views_follow_the_day(app: App, records: Records, clock: Clock) -> None:
    assert view(records) == ["last", "none", "open", "over"]  # nobody has read, and no day has passed, since
    retention.run_daily(records, clock.ms)
    assert view(records) == ["last", "none", "open"]
    clock.ms += DAY_MS
    keys(records)
    assert view(records) == ["none", "open"]
    records.projector.rebuild()
    keys(records)
    assert view(records) == ["none", "open"]


def test_views_of_an_older_program_are_made_again(app: App, records: Records) -> None:
    c = records.projector.connection
    keys(records)
    c.execute('drop view "shown"')
    c.execute('create view "shown" as select key as record_key from record where op = 1')
    c.execute("update meta set value = 1 where key = 'views'")
    again = app.records()
    again.projector.catch_up()
    assert view(again) == ["last", "none", "open"]
    again.close()


def test_who_asks_for_it_gets_it_and_the_audit_has_that(records: Records) -> None:
    assert keys(records) == ["last", "open", "none"]
    assert records.get("shown", "last").record["text"] == "word last"
    assert reads(records) == []  # the dataset is public
    assert records.get("shown", "over", withdrawn=True).withdrawn == "2026-07-01"
    assert len(records.history("shown", "over", withdrawn=True)) == 1
    page = records.find("shown", withdrawn=True)
    assert [(one.key, one.withdrawn) for one in page.items][:2] == [("over", "2026-07-01"), ("last", "")]
    assert reads(records) == ["get", "history", "find"]
    assert records.find("shown", {"id": "open"}, withdrawn=True).items
    assert reads(records) == ["get", "history", "find"]


def test_it_is_kept_proved_and_counted(records: Records) -> None:
    before = records.digest()
    assert before.datasets["shown"] == 4
    retention.run_daily(records, JULY_MS)
    assert records.digest() == before
    assert verify_store(records.store, records.trust).problems == []
    assert retention.run_daily(records, JULY_MS) == retention.Report()


def test_a_correction_brings_it_back_and_it_can_be_deleted(records: Records) -> None:
    assert records.put("shown", {"id": "over", "text": "word over", "until": OVER}).outcome == "unchanged"
    assert records.amend("shown", "over", {"until": "2026-12-31"}).outcome == "changed"
    assert keys(records) == ["over", "last", "open", "none"]
    assert len(records.history("shown", "over")) == 2
    records.amend("shown", "over", {"until": OVER})
    assert withdrawn(records.get, "shown", "over")
    assert records.delete("shown", "over").outcome == "deleted"
    with pytest.raises(Refused, match="FN-3324"):
        records.get("shown", "over")


def test_other_datasets_are_not_touched(records: Records) -> None:
    records.put("lasting", {"id": "a", "until": "2020-01-01"})
    assert records.get("lasting", "a").withdrawn == ""
    assert [one.key for one in records.find("lasting").items] == ["a"]
