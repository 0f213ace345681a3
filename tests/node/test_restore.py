"""Real nodes come back from their backups, over real gRPC, with what the backup, the parent and the children hold."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
from pathlib import Path
from typing import Any

import pytest

from backups import (
    Cut,
    back_up,
    burn,
    chosen,
    family,
    go_on,
    keep_backups,
    lone,
    put_back,
    recovery_key,
)
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import fence, succession, syncing
from fednode.node.app import App, real_clock
from fednode.node.audit import verify_store
from fednode.node.backup.restoring import Restoring
from fednode.node.erasing import erase
from fednode.node.home import Home
from fednode.node.recovery import Recovery
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer
from fednode.sync.errors import Refused, StoreError
from mesh import Mesh


async def test_a_county_that_burnt_comes_back_from_its_backup_and_what_others_hold(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county, town = await family(mesh)
        keep_backups(county, tmp_path / "backup")
        county.write("k1", {"name": "一"})
        town.write("t1", {"name": "镇"})
        await mesh.until(lambda: {"k1", "t1"} <= province.records().keys() and county.pending() == 0)
        made = await asyncio.to_thread(back_up, county)  # beside its daemon
        assert (made.number, made.kept) == (1, 1)
        county.write("k2", {"name": "二"})  # its parent has it, the backup has not
        town.write("t2", {"name": "镇二"})
        await mesh.until(lambda: {"k2", "t2"} <= province.records().keys() and county.pending() == 0)
        await mesh.halt(county)
        town.write("t3", {"name": "镇三"})  # nobody above has it
        key = recovery_key(county.app)
        burn(county)
        put_back(county, chosen(tmp_path / "backup", key), key)
        result = await go_on(county)
        assert (result.node, result.left, result.incarnation, result.refused) == ("130102", 1, 3, [])
        assert {"k1", "k2", "t1", "t2"} <= county.records().keys()
        await mesh.run(county)
        await mesh.until(lambda: "t3" in province.records() and town.pending() == 0)
        county.write("k3", {"name": "三"})
        await mesh.until(lambda: "k3" in province.records() and county.pending() == 0)
        assert county.records() == province.records()
        for node in (province, city, county, town):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert fence.standing(node.app.store) is None
            assert node.app.store.refused() == []


async def test_what_only_the_backup_holds_is_made_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})  # its parent never had it
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        assert city.app.home.path.joinpath("recover.json").exists()
        with pytest.raises(StoreError, match="FN-7625"):
            App.open(city.app.home.path, city.app.config)
        result = await go_on(city)
        assert result.salvaged.appended >= 1
        await mesh.run(city)
        province = mesh.running[0]
        await mesh.until(lambda: "k1" in province.records() and city.pending() == 0)
        assert province.app.store.refused() == []
        assert not verify_store(city.app.store, city.app.trust).problems


async def test_what_does_not_verify_is_not_put_back(tmp_path: Path) -> None:
    """Altered in the store, hash and all, before the backup was made: every object is what the index says."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})
        with city.app.store.write() as tx:
            lsn = city.app.store.lsn
            (raw,) = city.app.store.rows("select data from segment where lsn = ?", lsn)[0]
            altered = raw[:-9] + bytes((raw[-9] ^ 1,)) + raw[-8:]  # in the signature
            tx.execute("update segment set data = ?, sha256 = ? where lsn = ?", altered, SUITE_1.hash(altered), lsn)
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        with pytest.raises(IntegrityError, match="FN-6648"):
            put_back(city, chosen(place, key), key)
        assert not (city.app.home.path / "recover.json").exists()


@pytest.mark.parametrize("where", ["file", "environment"])
async def test_private_keys_come_back_under_the_passphrase_of_the_place(tmp_path: Path, where: str) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        if where == "file":
            (city.app.home.path / "config.toml").write_text('passphrase = "春眠"\n', "utf-8")
        back_up(city)
        key, secret = recovery_key(city.app), "春眠" if where == "file" else "不觉晓"
        config = (
            city.app.config if where == "file" else dataclasses.replace(city.app.config, passphrase=secret.encode())
        )
        burn(city)
        Restoring(city.app.home.path, config, chosen(place, key), key, clock=real_clock, rng=os.urandom).run()
        assert b"ENCRYPTED" in (city.app.home.keys_dir / "seal.pem").read_bytes()
        city.app.config = dataclasses.replace(config, passphrase=secret.encode())
        assert (await go_on(city)).incarnation == 3


@pytest.mark.parametrize("offline", [False, True])
async def test_the_province_comes_back_with_its_root_key(tmp_path: Path, *, offline: bool) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        keep_backups(province, tmp_path / "backup")
        root_pem = province.app.home.keys_dir / "root.pem"
        if offline:
            root_pem = root_pem.rename(tmp_path / "root.pem")
        province.write("p1", {"name": "省"})
        city.write("k1", {"name": "一"})
        await mesh.until(lambda: "k1" in province.records() and city.pending() == 0)
        await asyncio.to_thread(back_up, province)
        city.write("k2", {"name": "二"})
        await mesh.until(lambda: "k2" in province.records() and city.pending() == 0)
        await mesh.halt(province)
        city.write("k3", {"name": "三"})
        key = recovery_key(province.app)
        burn(province)
        put_back(province, chosen(tmp_path / "backup", key), key)
        recovery = Recovery(province.app.home.path, province.app.config)
        if offline:
            with pytest.raises(Refused, match="FN-5331"):
                await asyncio.to_thread(recovery.run)
            root_key = recovery.home.read_root_key(root_pem, None)
            result = await asyncio.to_thread(recovery.run, root_key)
            province.app = App.open(province.app.home.path, province.app.config)
        else:
            result = await go_on(province)
        assert (result.left, result.incarnation, result.parent) == (1, 11, "")
        await mesh.run(province)
        await mesh.until(lambda: {"p1", "k1", "k2", "k3"} <= province.records().keys() and city.pending() == 0)
        province.write("p2", {"name": "省二"})
        await mesh.until(lambda: city.app.trust.directory.get("13").incarnation == 11)
        for node in (province, city):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []


async def test_up_to_an_arrival_number(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})
        upto = city.app.store.lsn
        states = {str(name): city.app.store.log_state(name) for _, name, _ in city.app.store.logs()}
        city.write("k1", {"name": "错"})
        city.write("k2", {"name": "错"})
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key, upto=upto), key)
        with contextlib.closing(Store.open(city.app.home.log_db, stash_key=city.app.keys.stash_key)) as store:
            assert {str(name): store.log_state(name) for _, name, _ in store.logs()} == states
        await go_on(city)
        assert city.records() == {"k1": {"name": "一"}}
        assert city.app.store.lsn > 1_000_000_000
        assert not verify_store(city.app.store, city.app.trust).problems


async def test_up_to_an_arrival_number_before_a_late_reader_was_given_its_keys(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        for number in range(3):
            city.write(f"k{number}", {"name": str(number)}, area="130102")
        county = await mesh.child(city, "130102", "county")
        keep_backups(county, tmp_path / "backup")
        await mesh.until(lambda: len(county.records()) == 3)
        await asyncio.to_thread(back_up, county)
        await mesh.halt(county)
        sql = "select min(s.lsn) from segment s join log l on l.id = s.log_id where l.audience = '130102'"
        ((first,),) = county.app.store.rows(sql)
        key = recovery_key(county.app)
        burn(county)
        put_back(county, chosen(tmp_path / "backup", key, upto=first - 1), key)
        with contextlib.closing(Store.open(county.app.home.log_db, stash_key=county.app.keys.stash_key)) as store:
            assert store.rows("select * from rewrap") == []
        await go_on(county)
        await mesh.run(county)
        await mesh.until(lambda: len(county.records()) == 3)
        assert verify_store(county.app.store, county.app.trust, full=True).carried == 0


async def test_children_give_the_province_what_it_wrote_since_its_backup(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        keep_backups(province, tmp_path / "backup")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        await asyncio.to_thread(back_up, province)
        later = await mesh.child(province, "1302", "city")  # enrolled since: only the cities know
        province.write("p1", {"name": "只有下级持有"}, area="1301")
        await mesh.until(lambda: later.app.trust.catalog_version == 1)
        later.write("l1", {"name": "后"})
        await mesh.until(lambda: "p1" in city.records() and later.pending() == 0)
        await mesh.until(lambda: city.app.trust.directory.get("1302") is not None)
        await mesh.halt(later)  # were it the first to dial, it would be refused, and come again in a minute
        await mesh.halt(province)
        key = recovery_key(province.app)
        burn(province)
        put_back(province, chosen(tmp_path / "backup", key), key)
        await go_on(province)
        assert province.app.trust.directory.get("1302") is None
        await mesh.run(province)
        await mesh.until(lambda: province.app.trust.directory.get("1302") is not None)
        await mesh.run(later)
        await mesh.until(lambda: {"p1", "l1"} <= province.records().keys())
        await mesh.until(lambda: later.app.trust.directory.get("13").incarnation == 11)
        for node in (province, city, later):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []
        assert province.app.store.rows("select * from held_back") == []


async def test_a_child_gives_what_only_it_holds_of_its_parent_and_it_is_made_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county, town = await family(mesh)
        keep_backups(county, tmp_path / "backup")
        await mesh.until(lambda: county.pending() == 0)
        await asyncio.to_thread(back_up, county)
        await mesh.halt(city)  # nobody above hears any more
        county.write("k9", {"name": "更正"}, area="130102001")
        await mesh.until(lambda: "k9" in town.records())
        await mesh.halt(county)
        key = recovery_key(county.app)
        burn(county)
        await mesh.run(city)
        put_back(county, chosen(tmp_path / "backup", key), key)
        await go_on(county)
        assert "k9" not in county.records()
        await mesh.run(county)
        await mesh.until(lambda: "k9" in county.records() and "k9" in province.records())
        await mesh.until(lambda: county.pending() == 0 and town.pending() == 0)
        assert county.records() == province.records()
        for node in (province, city, county, town):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []


@pytest.mark.parametrize("cut", range(10))
async def test_a_restore_that_is_cut_off_anywhere_goes_on(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change that going on from a backup makes, cut off before it and run again."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})  # nobody above has these
        city.write("k2", {"name": "二"})
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        count = 0

        def step(real: Any) -> Any:
            def stepped(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                if getattr(getattr(arguments[0], "trust", None), "node", "1301") != "1301":
                    return real(*arguments, **named)
                count += 1
                if count == cut + 1:
                    raise Cut
                return real(*arguments, **named)

            return stepped

        with monkeypatch.context() as patch:
            patch.setattr(Home, "write_chain", step(Home.write_chain))
            patch.setattr(Writer, "local", step(Writer.local))
            patch.setattr(Transaction, "hold_back", step(Transaction.hold_back))
            patch.setattr(fence, "lift", step(fence.lift))
            patch.setattr(succession, "make_again", step(succession.make_again))
            with contextlib.suppress(Cut, RuntimeError, FednodeError):
                await asyncio.to_thread(Recovery(city.app.home.path, city.app.config).run)
        assert count > cut or cut == 9
        if count > cut:
            assert (city.app.home.path / "recover.json").exists()
            await asyncio.to_thread(Recovery(city.app.home.path, city.app.config).run)
        city.app = App.open(city.app.home.path, city.app.config)
        assert city.app.trust.me.incarnation == 3
        assert city.records() == {"k1": {"name": "一"}, "k2": {"name": "二"}}
        await mesh.run(city)
        province = mesh.running[0]
        await mesh.until(lambda: city.pending() == 0 and {"k1", "k2"} <= province.records().keys())
        logs = [name for _, name, _ in province.app.store.logs() if name.origin == "1301"]
        again = [name for name in logs if name.incarnation == 3 and name.dataset == "admin-licence"]
        assert len(again) <= 1
        assert province.app.store.refused() == []
        assert not verify_store(city.app.store, city.app.trust).problems


async def test_a_backup_of_an_earlier_life_does_not_go_on_in_one_that_was_lived(tmp_path: Path) -> None:
    """Regression: who asks for a new life in the place of an old one gets the one that is in force; that was another
    store's."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        province = mesh.running[0]
        city.write("k1", {"name": "一"})
        back_up(city)
        city.app.store.close()
        for path in city.app.home.path.glob("log.db*"):
            path.unlink()
        recovered = await go_on(city)
        assert recovered.incarnation == 2
        city.write("k2", {"name": "二"})
        await syncing.sync_once(city.app)
        city.write("k3", {"name": "三"})  # in the second life, and with nobody else
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        result = await go_on(city)
        assert (result.left, result.incarnation) == (1, 3)
        assert city.records().keys() == {"k1", "k2"}
        await mesh.run(city)
        city.write("k4", {"name": "四"})
        await mesh.until(lambda: city.pending() == 0 and {"k1", "k2", "k4"} <= province.records().keys())
        assert province.app.store.refused() == [] == city.app.store.refused()
        assert not verify_store(city.app.store, city.app.trust).problems


@pytest.mark.parametrize("restored", [True, False])
async def test_a_new_life_writes_nothing_before_its_enrolment_is_here(tmp_path: Path, *, restored: bool) -> None:
    """Regression (simulator, seed 32, burning): an erase came back with the history, its receipt was written in the new
    life and passed down before the word of that life; who got it refused it for good (FN-5412)."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})
        back_up(city)
        records = city.app.records()
        records.projector.catch_up()
        erase(records, "admin-licence", "k1", "court order 12")
        records.close()
        await syncing.sync_once(city.app)
        key = recovery_key(city.app)
        if restored:
            burn(city)
            put_back(city, chosen(place, key), key)
        else:
            city.app.store.close()
            for path in city.app.home.path.glob("log.db*"):
                path.unlink()
        await go_on(city)
        me, store = city.app.trust.me, city.app.store
        sql = "select s.lsn from segment s join log l on l.id = s.log_id where l.origin = ? and l.incarnation = ?"
        own = store.rows(f"{sql} order by s.lsn", me.node, me.incarnation)
        enrolled = store.rows(f"{sql} and l.dataset = 'sys.nodes' order by s.lsn desc", "13", 1)
        assert own[0][0] > enrolled[0][0]
        assert [
            name for _, name, _ in store.logs() if (name.dataset, name.incarnation) == ("sys.receipts", me.incarnation)
        ]
        assert "k1" not in city.records()
