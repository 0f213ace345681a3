"""Nodes from the province down that meet by stick alone: real homes, no network; and sticks made by hand, as whoever
has some keys could make them.

>>> # row = Row(tmp_path, depth=2); carried = row.stick(); bundle_out.export(row.apps[1], "parent", carried)
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

from fednode.crypto.suite import SUITE_1
from fednode.node import admission, bundle_out, bundles, joining, shipped, stick
from fednode.node.app import App, random_bytes, real_clock
from fednode.node.config import Config
from fednode.sync import bundle as bun
from fednode.sync import volume as vol
from fednode.sync import wire
from fednode.sync.catalog import Catalog
from fednode.sync.change import Change
from fednode.sync.enrol import Token

PATH = (("1301", "city"), ("130102", "county"), ("130102001", "township"), ("130102001001", "village"))
SETTINGS = Config(advertise=("parent.example:7443",), advertise_enrol=("parent.example:7444",))
REAL: dict[str, Any] = {"rng": random_bytes, "clock": real_clock, "operator": "test"}


class Row:
    """Nodes from the province down, each joined by stick. Close it."""

    def __init__(self, folder: Path, depth: int, catalog: Catalog | None = None) -> None:
        self.folder, self._sticks = folder, count()
        province = App.init_province(folder / "13", SETTINGS, node="13", name="河北省", domain="hebei")
        province.publish_catalog(catalog or shipped.catalog())
        self.apps = [province]
        for node, level in PATH[:depth]:
            self.apps.append(self.join(self.apps[-1], node, level))

    def stick(self) -> Path:
        """An empty one."""
        path = self.folder / f"stick{next(self._sticks)}"
        path.mkdir()
        return path

    def join(self, parent: App, node: str, level: str) -> App:
        return self.admit(parent, Token.decode(parent.invite(node, level, node)))

    def admit(self, parent: App, token: Token) -> App:
        """Whoever has this token joins."""
        carried, path = self.stick(), self.folder / token.node
        joining.ask(path, SETTINGS, "", token, carried, random_bytes)
        assert [one.recipient for one in bundles.take_in(parent, [carried]).joined] == [token.node]
        app, report = joining.finish(path, SETTINGS, [carried], "", **REAL)
        assert [one.error for one in report.bundles] == [None]
        bundles.take_in(parent, [carried])  # what the child wrote back
        return app

    def standby_of(self, primary: App) -> App:
        """A standby of a node joins by stick, and is one of the row."""
        made = self.admit(primary, Token.decode(primary.invite_standby()))
        self.apps.append(made)
        return made

    def copy(self, folder: Path) -> Row:
        """The same nodes in another folder, as they are on disk."""
        made = copy.copy(self)
        made.folder, made._sticks = folder, count(1000)
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)
        made.apps = [App.open(folder / one.home.path.relative_to(self.folder), SETTINGS, **REAL) for one in self.apps]
        return made

    def close(self) -> None:
        for app in self.apps:
            app.close()


def write(app: App, *keys: str) -> None:
    """Records of its own, one segment."""
    writer = app.new_writer(app.store)
    writer.local("admin-licence", app.trust.area, [Change(key.encode(), b'{"name":"x"}') for key in keys])


def write_much(app: App, segments: int) -> None:
    """About 80 kB each: random letters do not compress."""
    writer = app.new_writer(app.store)
    for i in range(segments):
        record = [Change(f"{i}-{j}".encode(), b'{"x":"' + random_bytes(400).hex().encode() + b'"}') for j in range(100)]
        writer.local("admin-licence", app.trust.area, record)


def carry(row: Row, child: App, parent: App) -> tuple[bundles.Imported, bundles.Imported]:
    """A stick from a child to its parent and back: what became of it at the one and at the other."""
    carried = row.stick()
    bundle_out.export(child, "parent", carried)
    up = only(bundles.take_in(parent, [carried]))
    down = only(bundles.take_in(child, [carried]))
    for one in (up, down):
        if one.error is not None:
            raise one.error
    return up, down


def held(app: App) -> int:
    """How many changes of the one dataset are here."""
    return sum(size for _, name, size in app.store.logs() if name.dataset == "admin-licence")


def pending(app: App) -> int:
    """How many changes the parent has not acknowledged."""
    parent = app.store.peer(app.trust.parent.node) if app.trust.parent else None
    return app.store.backlog_up(parent.acked if parent else 0).changes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only(report: bundles.Report) -> bundles.Imported:
    (one,) = report.bundles
    return one


def code(report: bundles.Report) -> str:
    error = only(report).error
    return error.code if error else ""


# ---------------------------------------------------------------- made by hand


def opening(sender: App, recipient: App, **more: Any) -> bun.Opening:
    """What a bundle of nothing begins with."""
    peer = sender.store.peer(recipient.trust.node)
    hello = admission.hello(sender.trust, sender.store, sender.now_ms(), "test", peer, None)
    return bun.Opening(**{"hello": hello, "after": 0, "upto": 0, **more})


def header(sender: App, recipient: App, **more: Any) -> vol.Header:
    me = sender.trust.me
    made: dict[str, Any] = {
        "domain": me.domain,
        "sender": me.node,
        "incarnation": me.incarnation,
        "recipient": recipient.trust.node,
        "id": random_bytes(16),
        "made_ms": sender.now_ms(),
        "key_id": SUITE_1.hash(recipient.keys.seal.public)[:8],
    }
    return vol.Header(**{**made, **more})


def forge(
    folder: Path,
    head: vol.Header,
    recipient: App,
    first: bun.Opening,
    messages: Sequence[wire.Message] = (),
    sign: Callable[[bytes], bytes] = lambda _: bytes(64),
) -> Path:
    """A bundle of one volume with these messages, signed by whoever; its file."""
    frames = bun.Frames()
    sent = [bun.opening_frame(first), *(frames.of(one) for one in messages)]
    pieces = vol.pack(sent, head, recipient.keys.seal.public, sign, random_bytes, vol.VOLUME_BYTES_MAX)
    path = folder / stick.volume_name(head.id, 1)
    path.write_bytes(b"".join(data for _, data in pieces))
    return path
