"""Nodes with backups: a recovery key, settings that name a place, a restore as `fednode restore` makes it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from pathlib import Path

from fednode.crypto.keys import SealKey
from fednode.node.app import App, real_clock
from fednode.node.backup import acting
from fednode.node.backup.keyfile import RecoveryKey
from fednode.node.backup.making import Made
from fednode.node.backup.places import Folder, Place
from fednode.node.backup.restoring import Chosen, Restoring, choose
from fednode.node.backup.series import Series, all_series, folder_of, only_node
from fednode.node.recovery import Recovery, Result
from fednode.sync.backup import encode_key
from mesh import Mesh, Running

KEY = SealKey.from_seed(bytes(31) + b"\x07")


def keep_backups(node: Running, place: Path | str, keep: int = 14) -> None:
    """The node's settings name a place and the recovery key."""
    key = encode_key(KEY.public)
    node.app.config = dataclasses.replace(node.app.config, backup_to=str(place), backup_key=key, backup_keep=keep)


def back_up(node: Running, *, anew: bool = False) -> Made:
    """One backup, as the command makes it."""
    return acting.back_up(node.app, anew=anew)


def recovery_key(app: App) -> RecoveryKey:
    return RecoveryKey(KEY, app.trust.domain, app.trust.root_sha256)


def series_of(place: Place | Path, key: RecoveryKey, node: str = "") -> Series:
    """The newest store of a node in a place."""
    where = Folder(place) if isinstance(place, Path) else place
    return only_node(all_series(where, key.root_sha256, node), where, node)[0]


def chosen(
    place: Place | Path, key: RecoveryKey, node: str = "", number: int | None = None, upto: int | None = None
) -> Chosen:
    """What `fednode restore` would put back."""
    where = Folder(place) if isinstance(place, Path) else place
    series, newest = only_node(all_series(where, key.root_sha256, node, strict=True), where, node)
    return choose(series, newest, key, number, upto)


def put_back(node: Running, what: Chosen, key: RecoveryKey) -> None:
    """The home, as the backup has it, where the node's own was."""
    Restoring(node.app.home.path, node.app.config, what, key, clock=real_clock, rng=os.urandom).run()


async def go_on(node: Running) -> Result:
    result = await asyncio.to_thread(Recovery(node.app.home.path, node.app.config).run)
    node.app = App.open(node.app.home.path, node.app.config)
    return result


def burn(node: Running) -> None:
    """Nothing is left of a node's home; its daemon is not running."""
    node.app.close()
    shutil.rmtree(node.app.home.path)


async def family(mesh: Mesh) -> tuple[Running, Running, Running, Running]:
    """Province, city, county, township; all with the catalog."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county")
    town = await mesh.child(county, "130102001", "township")
    await mesh.until(lambda: town.app.trust.catalog_version == 1)
    return province, city, county, town


async def lone(mesh: Mesh, tmp_path: Path, **more: int) -> tuple[Running, Path]:
    """A province and a city that does not run; the city keeps backups."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
    await mesh.halt(city)
    keep_backups(city, tmp_path / "backup", **more)
    return city, tmp_path / "backup"


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}


def newest_objects(folder: Path) -> list[Path]:
    """The objects of the newest backup, the largest first."""
    manifest = max(folder.glob("*.manifest")).read_text("utf-8")
    index = next(line.split(" ")[1] for line in manifest.split("\n") if line.startswith("index "))
    names = [line.split(" ")[4] for line in (folder / f"{index}.index").read_text("ascii").splitlines()]
    return sorted((folder / f"{name}.object" for name in names), key=lambda path: -path.stat().st_size)


def folder(node: Running) -> str:
    return folder_of(node.app.trust.domain, node.app.trust.node, node.app.store.store_id)


class Cut(Exception):
    """The power goes."""
