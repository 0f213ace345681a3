"""Keys of a node that has asked to join, and has no home yet: they wait beside it (`<home>.joining`, 0700) until it has
one. Whoever asks again, after a cut, a lost stick or a power failure, asks with the same keys, so that a token that was
used for them is still good.

>>> folder(Path("/srv/fednode")).name
'fednode.joining'
"""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from fednode.node import files
from fednode.node.home import Home, NodeKeys
from fednode.sync.errors import Refused, StoreError

WAITING = "request.json"


class Pending(msgspec.Struct):
    """What is remembered of a request. `root`: SHA-256 of the root certificate in hex, "" where no token named it."""

    node: str
    root: str = ""


def folder(path: Path) -> Path:
    """Where the keys of a home to be wait."""
    path = path.expanduser().absolute()
    return path.with_name(f"{path.name}.joining")


def load(path: Path) -> Pending | None:
    """The request that waits, if one does. Raises StoreError FN-7619."""
    return files.read(folder(path) / WAITING, Pending)


def keys(path: Path, pending: Pending, passphrase: bytes | None) -> NodeKeys | None:
    """The keys that wait for this node; None where none do. Raises Refused FN-3512 when they wait for another."""
    there = load(path)
    if there is None:
        return None
    if there.node != pending.node:
        raise Refused("FN-3512", node=pending.node, before=there.node, path=str(folder(path)))
    return Home(folder(path)).keys(passphrase)


def keep(path: Path, pending: Pending, made: NodeKeys, passphrase: bytes | None) -> None:
    """Keep keys, durably: the request comes last, so that half of them count for nothing. What is known of the root
    stays known. Raises StoreError FN-7617."""
    there, place = load(path), folder(path)
    try:
        if there is None:
            shutil.rmtree(place, ignore_errors=True)
            for one in (place, place / "keys"):
                one.mkdir(mode=0o700)
            Home(place).write_keys(made, passphrase)
        known = pending if pending.root or there is None else there
        files.write(place / WAITING, msgspec.json.encode(known))
        files.sync_folder(place.parent)
    except OSError as error:
        raise StoreError("FN-7617", path=str(place), reason=error.strerror or str(error)) from error


def drop(path: Path) -> None:
    """The home is there, or the request was refused."""
    shutil.rmtree(folder(path), ignore_errors=True)
