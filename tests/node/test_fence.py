"""A node whose store is not what its logs say: found at first contact, fenced, told to all above, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import checkpoint
from fednode.crypto.errors import FednodeError
from fednode.node import fence, status, syncing
from fednode.node import recovery as module
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.cli import invoke
from fednode.node.home import Home
from fednode.node.journal import Journal
from fednode.node.recovery import Recovery, Result
from fednode.node.store import Store
from fednode.node.writer import Writer
from fednode.sync.errors import PeerError, Refused, StoreError
from fednode.sync.feed import Route
from fednode.sync.wire import Cursor
from mesh import Mesh, Running, configuration
from world import World


def alerts(node: Running) -> dict[str, Any]:
    """(code, node) -> alert, as a node's projection has them."""
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        rows = projector.connection.execute(
            "select r.payload from record r join dataset d on d.id = r.dataset where d.name = 'sys.alerts' and r.op = 1"
        ).fetchall()
        found = [json.loads(payload) for (payload,) in rows]
        return {(one["code"], one["node"]): one for one in found}
    finally:
        projector.close()
        projector.store.close()


def fenced(node: Running) -> str | None:
    found = status.collect(node.app)["fenced"]
    return found["code"] if found else None


def copy_store(node: Running, to: Path) -> None:
    """The store's files as they lie there; its daemon is not running."""
    node.app.store.close()
    to.mkdir(exist_ok=True)
    for path in node.app.home.path.glob("log.db*"):
        shutil.copy2(path, to / path.name)
    reopen(node)


def restore_store(node: Running, copy: Path) -> None:
    """Put an older copy of log.db in its place, as an operator with a backup would."""
    node.app.store.close()
    for path in node.app.home.path.glob("log.db*"):
        path.unlink()
    for path in copy.glob("log.db*"):
        shutil.copy2(path, node.app.home.path / path.name)
    reopen(node)


def reopen(node: Running) -> None:
    node.app = App.open(node.app.home.path, node.app.config)


async def family(mesh: Mesh) -> tuple[Running, Running, Running]:
    """Province, city, county; all with the catalog."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county")
    await mesh.until(lambda: county.app.trust.catalog_version == 1)
    return province, city, county


def evidence_holds(alert: dict[str, Any], log: str) -> list[int]:
    """The sizes in the notes that an alert carries; each of them reads as a C2SP note of that log's node."""
    heads = [checkpoint.from_note(text)[0] for text in alert["evidence"]]
    assert heads
    assert all(head.origin.startswith(log) for head in heads)
    return [head.size for head in heads]


async def test_a_store_from_an_older_backup_is_found_at_first_contact(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county = await family(mesh)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        copy_store(county, tmp_path / "backup")
        await mesh.run(county)
        county.write("k2", {"name": "二"})
        await mesh.until(lambda: "k2" in province.records() and county.pending() == 0)
        await mesh.halt(county)
        restore_store(county, tmp_path / "backup")
        assert fenced(county) is None
        await mesh.run(county)
        await mesh.until(lambda: fenced(county) == "FN-6422")
        with pytest.raises(Refused, match="FN-5303"):
            county.write("k3", {"name": "三"})
        await mesh.until(lambda: ("FN-6422", "130102") in alerts(province))
        sizes = evidence_holds(alerts(province)["FN-6422", "130102"], "hebei/130102/1/")
        assert len(sizes) >= 2, "what it shows and what is held, side by side"
        # all else goes on: the city writes, the county receives
        city.write("k9", {"name": "九"})
        await mesh.until(lambda: "k9" in province.records())
        assert "k2" in province.records()


async def test_an_exchange_by_hand_says_that_it_ended_behind_the_fence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Regression: it said that the parent held everything, and ended with 0."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        await mesh.halt(city)
        copy_store(city, tmp_path / "backup")
        await mesh.run(city)
        city.write("k1", {"name": "一"})
        await mesh.until(lambda: city.pending() == 0)
        await mesh.halt(city)
        restore_store(city, tmp_path / "backup")
        command = ["--home", str(city.app.home.path), "--json", "sync"]
        assert await asyncio.to_thread(invoke, command, {"LANG": "C.UTF-8"}) == 6
        assert json.loads(capsys.readouterr().out)["sync"]["fenced"] == "FN-6422"


async def test_a_store_that_was_rolled_back_and_written_on_is_a_fork(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, _city, county = await family(mesh)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        copy_store(county, tmp_path / "backup")
        county.write("k2", {"name": "二"})
        await syncing.sync_once(county.app)
        restore_store(county, tmp_path / "backup")
        for key in ("k3", "k4", "k5"):
            county.write(key, {"name": key})  # nobody has told it yet
        await mesh.run(county)
        await mesh.until(lambda: fenced(county) == "FN-6423")
        await mesh.until(lambda: {("FN-6423", "130102"), ("FN-6420", "130102")} <= alerts(province).keys())
        fork = alerts(province)["FN-6420", "130102"]
        log = fork["params"]["log"]
        heads = [checkpoint.from_note(text)[0] for text in fork["evidence"]]
        same_size = [head for head in heads if head.size == heads[0].size]
        assert len({head.root for head in same_size}) == 2, "two roots of one size, both signed"
        assert log.startswith("hebei/130102/1/")
        assert "k2" in province.records()
        assert "k3" not in province.records()


async def test_a_clone_is_found_when_both_have_written(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, _city, county = await family(mesh)
        await mesh.halt(county)
        county.app.store.close()
        shutil.copytree(tmp_path / "130102", tmp_path / "clone")
        reopen(county)
        await mesh.run(county)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: "k1" in province.records())
        clone = Running(App.open(tmp_path / "clone", configuration()))
        mesh.running.append(clone)
        clone.write("k2", {"name": "二"})
        await mesh.run(clone)
        await mesh.until(lambda: fenced(clone) is not None)
        assert fenced(county) is None, "the other goes on"
        county.write("k3", {"name": "三"})
        await mesh.until(lambda: "k3" in province.records())
        await mesh.until(lambda: any(node == "130102" for _, node in alerts(province)))


async def test_a_clone_that_writes_into_another_log_while_both_are_connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No log forks (as the audit would, at the clone's first start), but there are two arrival orders under one store's
    name."""
    monkeypatch.setattr(Journal, "note", lambda *_, **__: None)
    async with Mesh(tmp_path) as mesh:
        province, city, county = await family(mesh)
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        county.app.store.close()
        shutil.copytree(tmp_path / "130102", tmp_path / "clone")
        reopen(county)
        await mesh.run(county)
        await mesh.until(lambda: met(city, "130102") > 0)
        before = met(city, "130102")
        clone = await mesh.start(App.open(tmp_path / "clone", configuration()))
        await mesh.until(lambda: met(city, "130102") > before)
        # with no wait in between: else one of them may have been found by a greeting
        county.write("k1", {"name": "一"})
        clone.write("k2", {"name": "二"}, dataset="admin-penalty")
        await mesh.until(lambda: fenced(clone) is not None or fenced(county) is not None)
        await mesh.until(lambda: any(node == "130102" for _, node in alerts(province)))


def met(node: Running, child: str) -> int:
    """When a child was let in last."""
    peer = node.app.store.peer(child)
    return peer.last_ms or 0 if peer else 0


async def test_a_new_store_under_old_keys_must_recover_first(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, _city, county = await family(mesh)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        county.app.store.close()
        for path in (tmp_path / "130102").glob("log.db*"):
            path.unlink()
        keys = county.app.keys
        Store.create(tmp_path / "130102" / "log.db", store_id=bytes(16), stash_key=keys.stash_key).close()
        reopen(county)
        with pytest.raises(PeerError, match="FN-5514"):
            await syncing.sync_once(county.app)
        assert fenced(county) == "FN-5514"
        await mesh.until(lambda: ("FN-5514", "130102") in alerts(province))


def test_what_a_cursor_says(tmp_path: Path) -> None:
    store = Store.create(tmp_path / "log.db", store_id=b"s" * 16, stash_key=bytes(32))
    assert fence.place(store, Cursor()) is fence.Place.SAME
    assert fence.place(store, Cursor(b"t" * 16, 5)) is fence.Place.UNKNOWN
    assert fence.place(store, Cursor(b"s" * 16, 1)) is fence.Place.BEHIND
    with store.write() as tx:
        tx.next_lsn()
    assert fence.place(store, Cursor(b"s" * 16, 1)) is fence.Place.SAME
    assert fence.place(store, Cursor(b"s" * 16, 1, b"12345678")) is fence.Place.UNKNOWN, "nothing to compare with"
    world = World()
    with store.write() as tx:
        tx.append_own(world.segment("130102"), Route(True, ""))
    (check, _) = store.checks_at(2)
    assert fence.place(store, Cursor(b"s" * 16, 2, check)) is fence.Place.SAME
    assert fence.place(store, Cursor(b"s" * 16, 2, b"12345678")) is fence.Place.OTHER, "a clone has written that"
    store.close()


# ---------------------------------------------------------------- the way back


def recovery(node: Running) -> Recovery:
    return Recovery(node.app.home.path, node.app.config)


async def recovered(node: Running) -> Result:
    """`fednode recover`, as the command line does it: in a process of its own, so in a thread without a loop here."""
    node.app.store.close()
    result = await asyncio.to_thread(recovery(node).run)
    reopen(node)
    return result


async def test_a_rolled_back_node_loses_nothing_that_its_parent_or_its_files_hold(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, _city, county = await family(mesh)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        copy_store(county, tmp_path / "backup")
        county.write("k2", {"name": "二"})
        await syncing.sync_once(county.app)
        restore_store(county, tmp_path / "backup")
        county.write("k3", {"name": "三"})  # on the fork: nobody else has it
        with contextlib.suppress(FednodeError):
            await syncing.sync_once(county.app)
        assert fenced(county)
        plan = recovery(county).plan()
        assert (plan.node, plan.parent, plan.life, plan.begun) == ("130102", "1301", 1, False)
        result = await recovered(county)
        assert (result.left, result.incarnation, result.refused, result.salvaged.skipped) == (1, 2, [], [])
        assert "k3" in [one.key for one in result.salvaged.again]
        assert [str(one) for one in (tmp_path / "130102").glob("log.db.before-recover-*")] == [result.aside]
        assert fenced(county) is None
        assert not verify_store(county.app.store, county.app.trust).problems
        assert {key: county.records()[key] for key in ("k1", "k2", "k3")} == {
            "k1": {"name": "一"},
            "k2": {"name": "二"},
            "k3": {"name": "三"},
        }
        await mesh.run(county)
        county.write("k4", {"name": "四"})
        await mesh.until(lambda: {"k1", "k2", "k3", "k4"} <= province.records().keys())
        await mesh.until(lambda: county.pending() == 0)
        assert not verify_store(province.app.store, province.app.trust).problems
        logs = {name.incarnation for _, name, _ in province.app.store.logs() if name.origin == "130102"}
        assert logs == {1, 2}


async def test_a_node_that_lost_its_store_takes_all_of_it_back_and_its_children_go_on(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county = await family(mesh)
        town = await mesh.child(county, "130102001", "township")
        await mesh.until(lambda: town.app.trust.catalog_version == 1)
        town.write("t1", {"name": "镇"})
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: {"t1", "k1"} <= province.records().keys() and county.pending() == 0)
        await mesh.halt(county)
        await mesh.halt(town)
        town.write("t2", {"name": "镇二"})  # its parent never had it
        county.app.store.close()
        for path in (tmp_path / "130102").glob("log.db*"):
            path.unlink()
        with pytest.raises(StoreError, match="FN-7610"):
            App.open(tmp_path / "130102", county.app.config)
        result = await recovered(county)
        assert (result.incarnation, result.aside, result.salvaged.appended) == (2, "", 0)
        assert {"t1", "k1"} <= county.records().keys(), "it reads its own history again, and what is below it"
        await mesh.run(county)
        await mesh.run(town)
        await mesh.until(lambda: "t2" in province.records())
        assert fenced(town) is None
        await mesh.until(lambda: town.pending() == 0)
        for node in (province, city, county, town):
            assert not verify_store(node.app.store, node.app.trust).problems


async def test_the_copy_of_a_node_that_recovered_is_refused_and_fenced(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _province, _city, county = await family(mesh)
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        county.app.store.close()
        shutil.copytree(tmp_path / "130102", tmp_path / "clone")
        reopen(county)
        await recovered(county)
        clone = Running(App.open(tmp_path / "clone", configuration()))
        mesh.running.append(clone)
        with pytest.raises(PeerError, match="FN-5513"):
            await syncing.sync_once(clone.app)
        assert fenced(clone) == "FN-5513"


@pytest.mark.parametrize("cut", range(16))
async def test_a_recovery_that_is_cut_off_anywhere_goes_on(tmp_path: Path, cut: int, monkeypatch: Any) -> None:
    """Every change of the disk that `recovery` itself makes, cut off before it and run again."""
    async with Mesh(tmp_path) as mesh:
        province, _city, county = await family(mesh)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        county.write("k2", {"name": "二"})
        county.write("k3", {"name": "三"})
        count = 0
        reopen(county)

        class Cut(BaseException):
            pass

        def step(real: Any) -> Any:
            def stepped(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                if isinstance(arguments[0], Writer) and arguments[0].trust.node != "130102":
                    return real(*arguments, **named)
                if isinstance(arguments[0], str | Path) and "130102" not in Path(arguments[0]).parts:
                    return real(*arguments, **named)  # the jobs of the others' daemons
                count += 1
                if count == cut + 1:
                    raise Cut
                return real(*arguments, **named)

            return stepped

        with monkeypatch.context() as patch:
            patch.setattr(module.os, "replace", step(os.replace))
            patch.setattr(Home, "write_recovery", step(Home.write_recovery))
            patch.setattr(Home, "write_chain", step(Home.write_chain))
            patch.setattr(Writer, "local", step(Writer.local))
            county.app.store.close()
            with contextlib.suppress(Cut, RuntimeError):  # inside a session it ends that
                await asyncio.to_thread(recovery(county).run)
        assert count == cut + 1
        if (tmp_path / "130102" / "recover.json").exists():
            with pytest.raises(StoreError, match="FN-7625"):
                App.open(tmp_path / "130102", county.app.config)
        result = await recovered(county)
        assert county.app.trust.me.incarnation >= 2
        assert result.salvaged.skipped == []
        assert {"k1", "k2", "k3"} <= county.records().keys()
        found = {(name.incarnation, name.dataset): size for _, name, size in county.app.store.logs()}
        assert found[2, "admin-licence"] == 2, "made again once"
        await mesh.run(county)
        await mesh.until(lambda: {"k1", "k2", "k3"} <= province.records().keys())
