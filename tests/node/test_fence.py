"""A node whose store is not what its logs say: found at first contact, fenced, told to all above, over real sockets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import checkpoint
from fednode.node import daemon, fence, status
from fednode.node.app import App
from fednode.node.journal import Journal
from fednode.node.store import Store
from fednode.sync.errors import PeerError, Refused
from fednode.sync.wire import Cursor
from mesh import Mesh, Running, configuration


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


async def test_a_store_that_was_rolled_back_and_written_on_is_a_fork(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, _city, county = await family(mesh)
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(county)
        copy_store(county, tmp_path / "backup")
        county.write("k2", {"name": "二"})
        await daemon.sync_once(county.app)
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
        county.write("k1", {"name": "一"})
        await mesh.until(lambda: "k1" in province.records())
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
            await daemon.sync_once(county.app)
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
    store.close()
