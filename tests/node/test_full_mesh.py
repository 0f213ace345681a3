"""Daemons whose disk fills up: what is there goes on being read and sent, what comes waits where it is, and when there
is room again all goes on by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fednode.node import shipped, status, syncing
from fednode.node.app import App
from fednode.node.room import Room
from fednode.sync.change import ALERTS, AUDIT
from fednode.sync.errors import StoreError, Unavailable
from mesh import Mesh, Running
from tiny import MIB, PAGE, Disk, tiny

R_PAGES = MIB // PAGE  # `reserve_mib = 1`
LOW = R_PAGES - 50
SIZE = 24 * MIB


def last_error(node: Running) -> str | None:
    parent = status.collect(node.app)["parent"]
    return None if parent is None else parent["last_error"]


def low(node: Running) -> bool:
    return bool(status.collect(node.app)["disk"]["low"])


def told_at(node: Running, origin: str, dataset: str) -> str:
    """What a node holds of a system log of one node, as one text."""
    texts = []
    for held in node.app.store.segments(0, 10_000, dataset=dataset):
        columns = node.app.store.columns(held)
        if columns is not None and held.name.origin == origin:
            texts += [payload.decode() for payload in columns.payloads]
    return "\n".join(texts)


def told(node: Running, dataset: str) -> str:
    """What a node's own system log says."""
    return told_at(node, node.app.trust.node, dataset)


def publish(node: Running, version: int) -> None:
    node.app.publish_catalog(replace(shipped.catalog(), version=version))


async def pair(mesh: Mesh, disk: Disk, on_disk: str) -> tuple[Running, Running]:
    """A province and a city, one of them on the small disk."""
    elsewhere = mesh.folder
    mesh.folder = disk.path if on_disk == "13" else elsewhere
    province = await mesh.found()
    mesh.folder = disk.path if on_disk == "1301" else elsewhere
    city = await mesh.child(province, "1301", "city")
    await mesh.until(lambda: city.app.trust.catalog_version == 1)
    node = province if on_disk == "13" else city
    await mesh.until(lambda: node.app.room.held() == MIB)
    return province, city


async def test_a_parent_without_room_sends_takes_nothing_and_goes_on_by_itself(tmp_path: Path) -> None:
    with tiny(tmp_path / "disk", SIZE) as disk:
        async with Mesh(tmp_path) as mesh:
            province, city = await pair(mesh, disk, "13")
            city.write("k0", {"name": "0"})
            await mesh.until(lambda: "k0" in province.records())
            disk.leave(LOW)
            await mesh.until(lambda: "disk.low" in told(province, AUDIT))
            assert low(province)
            await mesh.until(lambda: "FN-7630" in told(province, ALERTS))  # two transactions, one after the other
            city.write("k1", {"name": "1"})
            await mesh.until(lambda: last_error(city) == "FN-4505")
            with pytest.raises(StoreError, match="FN-7630"):
                province.write("k9", {"name": "9"}, area="1301")
            publish(province, 2)
            await mesh.until(lambda: city.app.trust.catalog_version == 2)  # what is small and its own goes on, and down
            with pytest.raises(Unavailable, match="FN-4505"):
                await syncing.sync_once(city.app)
            disk.leave(0)
            await mesh.until(lambda: province.app.room.held() == 0)
            publish(province, 3)
            await mesh.until(lambda: city.app.trust.catalog_version == 3)
            assert "k0" in province.records()
            assert city.pending() == 1
            disk.empty()
            await mesh.until(lambda: "k1" in province.records() and city.pending() == 0)
            await mesh.until(lambda: province.app.room.held() == MIB and last_error(city) is None)
            await mesh.until(lambda: "disk.ok" in told(province, AUDIT))
            assert not low(province)
            assert province.app.store.refused() == city.app.store.refused() == []


async def test_a_child_without_room_sends_what_it_has_and_goes_on_by_itself(tmp_path: Path) -> None:
    with tiny(tmp_path / "disk", SIZE) as disk:
        async with Mesh(tmp_path) as mesh:
            province, city = await pair(mesh, disk, "1301")
            await mesh.halt(province)
            city.write("k1", {"name": "1"})
            disk.leave(LOW)
            await mesh.until(lambda: "disk.low" in told(city, AUDIT))
            with pytest.raises(StoreError, match="FN-7630"):
                city.write("k2", {"name": "2"})
            await mesh.run(province)
            publish(province, 2)
            await mesh.until(lambda: "k1" in province.records() and city.pending() == 0)
            assert city.app.trust.catalog_version == 1
            assert (await syncing.sync_once(city.app)).pending == 0
            disk.leave(0)
            await mesh.until(lambda: city.app.room.held() == 0)
            await mesh.until(lambda: "FN-7630" in told_at(province, "1301", ALERTS))  # the level above hears of it
            disk.empty()
            await mesh.until(lambda: city.app.trust.catalog_version == 2)
            city.write("k2", {"name": "2"})
            await mesh.until(lambda: "k2" in province.records())
            await mesh.until(lambda: city.app.room.held() == MIB)


async def test_a_daemon_starts_on_a_disk_that_is_full_and_serves_what_it_has(tmp_path: Path) -> None:
    with tiny(tmp_path / "disk", SIZE) as disk:
        async with Mesh(tmp_path) as mesh:
            province, city = await pair(mesh, disk, "13")
            city.write("k0", {"name": "0"})
            await mesh.until(lambda: "k0" in province.records() and city.pending() == 0)
            await mesh.halt(province)
            await mesh.halt(city)
            province.app.close()
            assert not province.app.home.log_db.with_name("log.db-wal").exists()
            disk.leave(0)
            province.app = App.open(province.app.home.path, province.app.config)
            await mesh.run(province)
            assert low(province)
            assert "k0" in province.records()
            publish(province, 2)
            await mesh.run(city)
            await mesh.until(lambda: city.app.trust.catalog_version == 2)
            disk.empty()
            city.write("k1", {"name": "1"})
            await mesh.until(lambda: "k1" in province.records())


async def test_regression_history_is_not_taken_back_without_room(tmp_path: Path) -> None:
    """Found by the simulator with disks that are full: a node that recovered asked for nothing, took the answer for all
    that its parent has, and went on with that."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        await mesh.halt(city)
        city.app.room = city.app.store.room = Room(city.app.home.path, MIB, free=lambda _: 0)
        with pytest.raises(StoreError, match="FN-7630"):
            await syncing.take_back(city.app)
