"""A county is lost and there is neither standby nor backup: its name is given anew, and it is refilled from its parent
and its children, as far as each may read. Over real gRPC."""

from __future__ import annotations

import asyncio
from pathlib import Path

from backups import burn
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.recovery import Recovery
from fednode.sync.enrol import Token
from mesh import Mesh, Running


async def family(mesh: Mesh) -> tuple[Running, Running, Running, Running]:
    """Province, city, county, township; all with the catalog."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county")
    town = await mesh.child(county, "130102001", "township")
    await mesh.until(lambda: town.app.trust.catalog_version == 1)
    return province, city, county, town


async def join_again(county: Running, parent: Running) -> None:
    """With nothing but a fresh token, on the old addresses."""
    token = Token.decode(parent.app.invite("130102", "county", "长安区"))
    county.app = await App.join(county.app.home.path, county.app.config, token)


async def test_a_county_without_a_backup_is_refilled_from_above_and_below(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county, town = await family(mesh)
        county.write("k1", {"name": "县"})
        county.write("c1", {"name": "更正"}, area="130102001")
        town.write("t1", {"name": "镇"})
        await mesh.until(lambda: {"k1", "c1", "t1"} <= province.records().keys())
        await mesh.until(lambda: "c1" in town.records() and county.pending() == 0)
        await mesh.halt(city)
        county.write("c2", {"name": "上级没有的更正"}, area="130102001")  # the township alone has it
        await mesh.until(lambda: "c2" in town.records())
        await mesh.halt(county)
        town.write("t2", {"name": "镇二"})  # nobody above has it
        burn(county)
        await mesh.run(city)
        await join_again(county, city)
        assert county.app.trust.me.incarnation == 2
        county.app.close()
        result = await asyncio.to_thread(Recovery(county.app.home.path, county.app.config).run)
        county.app = App.open(county.app.home.path, county.app.config)
        assert (result.node, result.left, result.incarnation, result.refused) == ("130102", 2, 3, [])
        await mesh.run(county)
        await mesh.until(lambda: "t2" in province.records() and town.pending() == 0)  # without a token, or a hand
        late = """select 1 from held_back h join segment s on s.lsn = h.lsn join log l on l.id = s.log_id
                  where l.audience <> ''"""
        await mesh.until(lambda: bool(county.app.store.rows(late)))  # the correction that only the township held
        county.write("k2", {"name": "县二"})
        await mesh.until(lambda: "k2" in province.records() and county.pending() == 0)
        read = {"k1", "k2", "c1", "t1", "t2"}  # by the keys that its city, which reads them, too, has given it anew
        await mesh.until(lambda: read <= county.records().keys())
        assert county.records() == province.records()
        held = {str(name): size for _, name, size in county.app.store.logs()}
        for _, name, size in (*city.app.store.logs(), *town.app.store.logs()):
            if name.origin == "130102" and name.incarnation == 1:
                assert held[str(name)] >= size, "its own history, all that anybody holds of it"
        for node in (province, city, county, town):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []
