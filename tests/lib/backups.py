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
from fednode.node.backup.series import Series, all_series, only_node
from fednode.node.recovery import Recovery, Result
from fednode.sync.backup import encode_key
from mesh import Running

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
