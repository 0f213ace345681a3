"""`fednode recover` at the province, above which nobody stands: from its own store, by the root key."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto.keys import TlsKey
from fednode.node import mending
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.home import Home
from fednode.node.recovery import Recovery, Result
from fednode.node.writer import Writer
from fednode.sync.errors import Refused
from mesh import Mesh, Running


async def recovered(node: Running, root_key: TlsKey | None = None) -> Result:
    """As the command line does it: in a process of its own, so in a thread without a loop here."""
    node.app.store.close()
    try:
        return await asyncio.to_thread(Recovery(node.app.home.path, node.app.config).run, root_key)
    finally:
        with contextlib.suppress(Exception):
            node.app = App.open(node.app.home.path, node.app.config)


async def rolled_back(mesh: Mesh, tmp_path: Path) -> tuple[Running, Running]:
    """A province whose city holds a correction of the province's, and a record of its own, that it has lost."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
    await mesh.halt(province)
    kept = tmp_path / "snapshot"
    kept.mkdir()
    province.app.store.close()
    for path in province.app.home.path.glob("log.db*"):
        shutil.copy2(path, kept)
    province.app = App.open(province.app.home.path, province.app.config)
    await mesh.run(province)
    province.write("down", {"name": "下"}, area="1301")
    city.write("up", {"name": "上"})
    await mesh.until(lambda: {"down", "up"} <= city.records().keys() & province.records().keys())
    await mesh.until(lambda: city.pending() == 0)
    await mesh.halt(province)
    await mesh.halt(city)
    province.app.store.close()
    for path in province.app.home.path.glob("*.db*"):
        path.unlink()
    for path in kept.iterdir():
        shutil.copy2(path, province.app.home.path)
    province.app = App.open(province.app.home.path, province.app.config)
    assert province.records() == {}
    return province, city


async def goes_on(mesh: Mesh, province: Running, city: Running) -> None:
    await mesh.run(province)
    await mesh.run(city)
    await mesh.until(lambda: mending.known(province.app.store) == [])
    await mesh.until(lambda: province.records().keys() == {"down", "up"})
    province.write("more", {"name": "多"}, area="1301")
    await mesh.until(lambda: "more" in city.records())
    for node in (province, city):
        assert verify_store(node.app.store, node.app.trust).problems == []
        assert node.app.store.refused() == []


@pytest.mark.parametrize("cut", range(4))
async def test_it_may_be_cut_off_anywhere(tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before each change of the disk that it makes, and run again."""
    async with Mesh(tmp_path) as mesh:
        province, city = await rolled_back(mesh, tmp_path)
        count = 0

        class Cut(BaseException):
            pass

        def step(real: Any) -> Any:
            def stepped(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                count += 1
                if count == cut + 1:
                    raise Cut
                return real(*arguments, **named)

            return stepped

        with monkeypatch.context() as patch:
            patch.setattr(Home, "write_recovery", step(Home.write_recovery))
            patch.setattr(Home, "write_chain", step(Home.write_chain))
            patch.setattr(Writer, "local", step(Writer.local))
            with pytest.raises(Cut):
                await recovered(province)
        result = await recovered(province)
        assert (result.left, result.parent, result.refused) == (1, "", [])
        assert result.incarnation == province.app.trust.me.incarnation > 1
        await goes_on(mesh, province, city)


async def test_nothing_is_begun_without_the_root_key(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city = await rolled_back(mesh, tmp_path)
        own = province.app.home.path / "keys" / "root.pem"
        right = TlsKey.from_pem(own.rename(tmp_path / "root.pem").read_bytes(), None)
        for key, code in ((None, "FN-5331"), (TlsKey.generate(), "FN-5309")):
            with pytest.raises(Refused, match=code):
                await recovered(province, key)
            assert not province.app.home.recovery.exists()
        await recovered(province, right)
        await goes_on(mesh, province, city)


async def test_a_store_that_does_not_hold_is_no_start(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        await mesh.halt(province)
        with province.app.store.write() as tx:
            tx.execute("update segment set last_hlc = last_hlc + 1 where lsn = (select min(lsn) from segment)")
        assert verify_store(province.app.store, province.app.trust).problems
        with pytest.raises(Refused, match="FN-5304"):
            await recovered(province)


async def test_single_damaged_segments_are_no_hindrance(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city = await rolled_back(mesh, tmp_path)
        with province.app.store.write() as tx:
            ((lsn, data),) = province.app.store.rows(
                """select s.lsn, s.data from segment s join log l on l.id = s.log_id
                   where l.dataset = 'sys.audit' and l.origin = '1301' and s.first = 0"""
            )
            tx.execute("update segment set data = ? where lsn = ?", data[:-1] + bytes((data[-1] ^ 1,)), lsn)
        problems = verify_store(province.app.store, province.app.trust).problems
        assert [one.code for one in problems] == ["FN-6601"]
        await recovered(province)
        with province.app.store.write() as tx:
            mending.remember(tx, [(one.log, one.first) for one in problems])  # as `audit verify` does
        await goes_on(mesh, province, city)
