"""Sticks and a link in turns: whatever comes first, late or twice, nothing is lost, refused or counted twice."""

from __future__ import annotations

from pathlib import Path

from fednode.node import bundle_out, bundles
from fednode.node.audit import verify_store
from fednode.node.syncing import sync_once
from mesh import Mesh


async def test_a_stick_a_link_and_a_stick(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        await mesh.halt(city)
        sticks = [tmp_path / f"stick{number}" for number in range(3)]
        for number, carried in enumerate(sticks):
            city.write(f"k{number}", {"id": number})
            bundle_out.export(city.app, "parent", carried)
            if number == 0:  # the stick is still on its way when the link is up for a moment
                report = await sync_once(city.app)
                assert (report.refused, report.pending) == ([], 0)
        for number in (1, 0, 2, 1):
            found = bundles.take_in(province.app, [sticks[number]])
            assert [one.error for one in found.bundles] == [None]
        assert len(province.records()) == 3
        province.write("down", {"id": "d"}, area="1301")
        report = await sync_once(city.app)
        assert report.refused == []
        assert "down" in city.records()
        for number in (2, 0):  # the answers, after the link has told all of it already
            found = bundles.take_in(city.app, [sticks[number]])
            assert [one.error for one in found.bundles] == [None]
        await mesh.run(city)
        await mesh.until(lambda: city.pending() == 0)
        for one in (province, city):
            assert one.app.store.refused() == []
            assert verify_store(one.app.store, one.app.trust).problems == []
        peer = province.app.store.peer("1301")
        assert peer is not None
        assert peer.have.lsn <= city.app.store.lsn


async def test_a_stick_while_the_link_is_up(tmp_path: Path) -> None:
    """The daemons talk; somebody imports a stick beside them all the same."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        for number in range(4):
            city.write(f"a{number}", {"id": number})
            carried = tmp_path / f"stick{number}"
            bundle_out.export(city.app, "parent", carried, since=0)
            bundles.take_in(province.app, [carried])
            bundles.take_in(city.app, [carried])
            city.write(f"b{number}", {"id": number})
        await mesh.until(lambda: len(province.records()) == 8 and city.pending() == 0)
        for one in (province, city):
            assert one.app.store.refused() == []
            assert verify_store(one.app.store, one.app.trust).problems == []
