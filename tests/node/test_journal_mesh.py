"""Events and alerts over real sockets: they reach every level above, as they are, and an alert that is closed is closed
for all."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import checkpoint
from fednode.crypto.errors import FednodeError
from fednode.node.app import App, real_clock
from fednode.node.cli import invoke
from fednode.node.events import Alert, Event, Events, Filter
from fednode.sync.change import ALERTS
from fednode.sync.enrol import Token
from mesh import Mesh, Running, configuration

LOG = "hebei/1301/1/admin-licence"


def events(at: Running, **wanted: Any) -> list[Event]:
    """What `fednode audit log` finds at a node."""
    projector = at.app.new_projector()
    try:
        return Events(projector).page(Filter(**wanted), 1000)[0]
    finally:
        projector.close()
        projector.store.close()


def alerts(node: Running) -> list[Alert]:
    """What `fednode alerts --all` finds at a node."""
    projector = node.app.new_projector()
    try:
        return Events(projector).alerts(closed=True)
    finally:
        projector.close()
        projector.store.close()


def close(node: Running, key: str) -> None:
    projector, writer = node.app.new_projector(), node.app.new_writer()
    Events(projector).close(writer, node.app.journal(writer), key, "looked into", "alice", node.app.now_ms())
    for store in (projector.store, writer.store):
        store.close()
    projector.close()
    node.app.poke()


def raise_alert(node: Running, evidence: str) -> bool:
    writer = node.app.new_writer()
    new = node.app.journal(writer).alert("FN-6420", "1301", {"log": LOG, "first": 3, "size": 5}, [evidence])
    writer.store.close()
    node.app.poke()
    return new


async def line(mesh: Mesh) -> list[Running]:
    """A province, a city and a county, all running."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    return [province, city, await mesh.child(city, "130102", "county")]


async def test_what_a_county_does_is_known_in_the_province(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county = await line(mesh)
        await mesh.until(lambda: county.app.trust.catalog_version == 1)
        writer = county.app.new_writer()
        county.app.journal(writer).event("erase", who="alice (alice, uid 1000)", dataset="admin-licence", changes=3)
        writer.store.close()
        county.app.poke()
        await mesh.until(lambda: any(one.action == "erase" for one in events(province)))
        (found,) = events(province, who="alice", action="erase")
        assert (found.node, found.who, found.outcome) == ("130102", "alice (alice, uid 1000)", "done")
        assert found.details == {"dataset": "admin-licence", "changes": 3}
        theirs = {one.action for one in events(province, node="130102")}
        assert theirs == {"join", "daemon.started", "erase"}
        assert {one.node for one in events(province, action="enrol")} == {"13", "1301"}
        assert [one.node for one in events(county)] == ["130102"] * 3, "nothing of it comes down"
        assert [node.app.store.refused() for node in (province, city, county)] == [[]] * 3


async def test_an_alert_reaches_the_province_and_is_closed_for_all(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county = await line(mesh)
        assert raise_alert(county, "head 1")
        await mesh.until(lambda: bool(alerts(province)))
        assert not raise_alert(county, "head 1")
        (found,) = alerts(province)
        assert (found.code, found.node, found.by, found.state) == ("FN-6420", "1301", "130102", "open")
        assert found.evidence == ["head 1"]
        close(province, found.key)
        await mesh.until(lambda: all([one.state for one in alerts(node)] == ["closed"] for node in (city, county)))
        assert alerts(county)[0].closed_by == "alice"
        assert not raise_alert(county, "head 1"), "what was looked into stays closed"
        assert raise_alert(county, "head 2")
        await mesh.until(lambda: [one.state for one in alerts(province)] == ["open"])
        assert alerts(province)[0].evidence == ["head 2"]


async def test_a_domain_with_levels_of_its_own(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        levels = ("country", "region", "office")
        top = App.init_province(
            tmp_path / "11", configuration(), node="11", name="国", level="country", domain="cn", levels=levels
        )
        country = await mesh.start(top)
        region = await mesh.child(country, "1101", "region")
        office = await mesh.child(region, "110101", "office")
        await mesh.until(lambda: {one.node for one in events(country)} == {"11", "1101", "110101"})
        assert raise_alert(office, "head")
        await mesh.until(lambda: bool(alerts(country)))


async def test_who_is_refused_is_in_the_audit_once(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        token = Token.decode(province.app.invite("1301", "city", "石家庄市"))
        app = await App.join(tmp_path / "1301", configuration(), token, clock=real_clock)
        for folder in ("again", "and again"):
            with pytest.raises(FednodeError, match="FN-5102"):
                await App.join(tmp_path / folder, configuration(), token, clock=real_clock)
        await mesh.until(lambda: bool(events(province, action="join.refused")))
        (found,) = events(province, action="join")
        assert (found.action, found.code, found.details) == ("join.refused", "FN-5102", {"peer": "1301"})
        city = await mesh.start(app)
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        province.app.revoke("1301", "x")
        await mesh.until(lambda: bool(events(province, action="session.refused")))
        await mesh.until(lambda: bool(events(city, action="session.refused")))
        assert [one.code for one in events(province, action="session")] == ["FN-5511"]
        assert events(province, action="session")[0].outcome == "refused"


async def test_a_clone_is_found_by_its_audit_as_soon_as_it_runs(tmp_path: Path) -> None:
    """Both write that they have started, at the same place of the same log."""
    async with Mesh(tmp_path) as mesh:
        province, city, county = await line(mesh)
        await mesh.until(lambda: len(events(province, node="130102")) == 2)
        await mesh.halt(county)
        shutil.copytree(tmp_path / "130102", tmp_path / "clone")
        await mesh.run(county)
        await mesh.until(lambda: len(events(city, node="130102", action="daemon.started")) == 2)
        await mesh.halt(county)
        await mesh.start(App.open(tmp_path / "clone", configuration()))
        await mesh.until(lambda: any(one.node == "130102" for one in alerts(province)))
        found = next(one for one in alerts(province) if one.node == "130102")
        heads = [checkpoint.from_note(text)[0] for text in found.evidence]
        assert heads, "signed heads for whoever looks into it"
        assert all(head.origin.startswith("hebei/130102/1/") for head in heads)


async def test_an_exchange_by_hand_is_in_the_audit_and_pending_counts_records_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        await mesh.halt(city)
        city.write("k", {"name": "甲"})
        home = str(tmp_path / "1301")
        assert city.pending() == 1
        code = await asyncio.to_thread(invoke, ["--home", home, "--json", "sync"], {"LANG": "C.UTF-8"})
        report = json.loads(capsys.readouterr().out.splitlines()[-1])["sync"]
        assert (code, report["pending"]) == (0, 0)
        (done,) = events(city, action="sync")
        assert (done.outcome, done.details["parent"], done.details["refused"]) == ("done", "13", 0)
        await mesh.halt(province)
        code = await asyncio.to_thread(invoke, ["--home", home, "--json", "sync"], {"LANG": "C.UTF-8"})
        assert code == 4
        assert [(one.outcome, one.code) for one in events(city, action="sync")] == [("failed", "FN-4501"), ("done", "")]
        assert city.pending() == 0, "events wait for the next exchange; records do not"
        assert city.app.store.log_state(city.app.trust.log_name(ALERTS, "1301")).size == 0
