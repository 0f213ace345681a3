"""Readers that come later, over real sockets: a node that joins late, and one that comes back without its keys."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path
from typing import Any

from fednode.node import syncing
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.engine import Engine
from fednode.node.recovery import Recovery, Result
from fednode.sync.catalog import Catalog
from fednode.sync.change import AUDIT
from fednode.sync.enrol import Token
from mesh import Mesh, Running, configuration

COUNTY, TOWNSHIP, VILLAGE = "130102", "130102001", "130102001001"
CONFIDENTIAL: dict[str, Any] = {
    "version": 1,
    "dataset": [
        {
            "name": "secret",
            "zh": "内部",
            "en": "Internal",
            "key": ["id"],
            "writers": ["province", "county"],
            "readers": ["province", "county"],  # not the city: it carries
            "class": "confidential",
            "flow": "both",
            "field": [{"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 20, "required": True}],
        }
    ],
}


def events(node: Running, action: str) -> list[dict[str, Any]]:
    """What the audit of a node says of one kind of act."""
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        rows = projector.connection.execute(
            """select payload from record where dataset = (select id from dataset where name = ?)
               and payload ->> '$.action' = ? order by key""",
            (AUDIT, action),
        )
        return [json.loads(payload)["details"] for (payload,) in rows]
    finally:
        projector.close()
        projector.store.close()


def carried(node: Running) -> int:
    """Segments that a node holds and cannot read; everything it holds verifies."""
    report = verify_store(node.app.store, node.app.trust, full=True)
    assert report.problems == []
    return report.carried


async def lose_everything(mesh: Mesh, node: Running, parent: Running) -> Running:
    """The machine is gone, keys and all: a fresh token, a new home, `fednode recover`, and the daemon."""
    me = node.app.trust.me
    await mesh.halt(node)
    node.app.store.close()
    mesh.running.remove(node)
    shutil.rmtree(node.app.home.path)
    token = Token.decode(parent.app.invite(me.node, me.level, me.node))
    app = await App.join(mesh.folder / f"{me.node}-again", configuration(), token)
    app.store.close()
    result = await asyncio.to_thread(Recovery(app.home.path, app.config).run)
    assert isinstance(result, Result)
    assert (result.refused, result.salvaged.skipped) == ([], [])
    return await mesh.start(App.open(app.home.path, app.config))


async def test_a_node_that_joins_late_reads_what_was_written_for_it_before(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        for i in range(3):
            city.write(f"k{i}", {"name": str(i)}, area=COUNTY)
        county = await mesh.child(city, COUNTY, "county")
        await mesh.until(lambda: len(county.records()) == 3)
        assert county.records() == {f"k{i}": {"name": str(i)} for i in range(3)}
        assert carried(county) == 0
        county.write("k0", {"name": "changed"})
        await mesh.until(lambda: province.records().get("k0") == {"name": "changed"} == city.records().get("k0"))
        assert [node.app.store.refused() for node in (province, city, county)] == [[]] * 3
        assert events(city, "rewrap") == [{"node": COUNTY, "segments": 3}]


async def test_a_node_that_lost_its_keys_reads_its_history_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, COUNTY, "county")
        town = await mesh.child(county, TOWNSHIP, "township")
        await mesh.until(lambda: town.app.trust.catalog_version == 1)
        county.write("own", {"name": "县"})
        county.write("below", {"name": "镇改"}, area=TOWNSHIP)
        town.write("t1", {"name": "镇"})
        city.write("above", {"name": "市"}, area=COUNTY)
        wanted = {"own", "below", "t1", "above"}
        await mesh.until(lambda: county.records().keys() == wanted == province.records().keys())
        await mesh.until(lambda: county.pending() == town.pending() == 0)
        again = await lose_everything(mesh, county, city)
        assert again.app.trust.me.incarnation == 3, "joined again, then recovered"
        await mesh.until(lambda: again.records() == province.records())
        assert carried(again) == 0
        projector = again.app.new_projector()
        assert projector.rebuild() >= len(wanted)
        projector.close()
        assert again.records() == province.records()
        again.write("own", {"name": "县二"})
        await mesh.until(lambda: province.records()["own"] == {"name": "县二"})
        assert [one["node"] for one in events(city, "rewrap")] == [COUNTY]
        assert {one["code"] for node in (province, city, again) for one in node.app.store.refused()} == set()


async def test_through_a_carrier_that_may_not_read(tmp_path: Path) -> None:
    """A confidential dataset: the province gives, the city passes it on and reads nothing."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found(publish=False)
        province.app.publish_catalog(Catalog.from_toml_dict(CONFIDENTIAL))
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, COUNTY, "county")
        await mesh.until(lambda: county.app.trust.catalog_version == 1)
        for i in range(2):
            county.write(f"s{i}", {"id": f"s{i}"}, dataset="secret")
        province.write("p", {"id": "p"}, dataset="secret", area=COUNTY)
        await mesh.until(lambda: len(province.records()) == 3 == len(county.records()) and county.pending() == 0)
        again = await lose_everything(mesh, county, city)
        await mesh.until(lambda: again.records() == province.records())
        assert carried(again) == 0
        assert city.records() == {}
        assert carried(city) > 0
        assert {one["node"] for one in events(province, "rewrap")} == {COUNTY}


async def test_a_carrier_that_lost_its_keys_is_given_nothing_of_what_it_may_not_read(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found(publish=False)
        province.app.publish_catalog(Catalog.from_toml_dict(CONFIDENTIAL))
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, COUNTY, "county")
        await mesh.until(lambda: county.app.trust.catalog_version == 1)
        county.write("s", {"id": "s"}, dataset="secret")
        await mesh.until(lambda: len(province.records()) == 1 and county.pending() == 0)
        await mesh.halt(county)
        again = await lose_everything(mesh, city, province)
        await syncing.sync_once(again.app)
        logs = "select log from rewrap where log like '%/secret%'"
        for node in (province, again):
            assert node.app.store.rows(logs) == []
        assert again.records() == {}
        assert carried(again) > 0


async def test_regression_an_engine_that_stops_does_not_look_into_its_store(tmp_path: Path) -> None:
    """The writer's last words came while another thread closed the store: now and then the process crashed."""
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="省", domain="hebei")
    engine = Engine(app)
    await engine.stop()
    engine.moved()
    app.close()
