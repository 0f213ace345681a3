"""Operators who restore an old copy of a store, and who recover the node that fences itself for it; operators whose
node burns, and who put its last backup back."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from fednode.crypto import issuing
from fednode.crypto.errors import FednodeError
from fednode.crypto.keys import SealKey
from fednode.node import fence, succession
from fednode.node.admission import GATHERS, RESTORED_STORE, note_restored
from fednode.node.app import App
from fednode.node.backup.keyfile import RecoveryKey
from fednode.node.backup.making import Maker
from fednode.node.backup.places import Folder
from fednode.node.backup.restoring import Restoring, choose
from fednode.node.backup.series import all_series, only_node
from fednode.node.config import Config
from fednode.node.home import Home
from fednode.node.journal import Journal
from fednode.node.recovery import NUMBERS
from fednode.node.rows import Peer
from fednode.node.salvage import Salvage
from fednode.node.store import Store
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.change import LogName

if TYPE_CHECKING:
    from sim.world import SimNode

FILES = ("log.db", "log.db-wal")
RETRY_MS = 15_000


def keep_backup(node: SimNode) -> None:
    """Copy the store while nothing writes (one event at a time)."""
    if not node.up:
        return
    node.wake()
    folder = node.folder / "backup"
    folder.mkdir(exist_ok=True)
    for name in FILES:
        if (node.folder / name).exists():
            shutil.copyfile(node.folder / name, folder / name)


def restore_backup(node: SimNode) -> None:
    """Put the copy in the store's place. What only the newer store held is gone; what was in it is found again by what
    its parent holds."""
    backup = node.folder / "backup"
    if not node.up or node.restoring or not backup.exists() or node.id in node.world.revoked | node.world.burnt:
        return
    if node.member.parent in node.world.burnt | node.world.failed:  # see `burn`
        return
    node.crash("a backup is restored")
    for name in (*FILES, "log.db-shm"):  # state.db stays: it must notice by itself that its log has another history
        (node.folder / name).unlink(missing_ok=True)
    for name in FILES:
        if (backup / name).exists():
            shutil.copyfile(backup / name, node.folder / name)
    store = Store.open(node.folder / "log.db", stash_key=node.member.keys.stash_key)
    sizes = {name: size for _, name, size in store.logs()}
    store.close()
    node.stamped = 0
    node.world.rollbacks[node.id] = node.world.rollbacks.get(node.id, 0) + 1
    forget(node)
    parent = node.world.nodes[node.member.parent]
    if any(size > sizes.get(name, 0) for name, size in _held(parent) if name.origin == node.id):
        node.world.restored.add(node.id)  # what nobody else has seen can be cut off unseen, and nobody misses it


def _held(node: SimNode) -> list[tuple[LogName, int]]:
    node.wake()
    store = Store.open(node.folder / "log.db", stash_key=node.member.keys.stash_key)
    try:
        return [(name, size) for _, name, size in store.logs()]
    finally:
        store.close()


def forget(node: SimNode) -> None:
    """What was promised of the logs of this life holds no more: another history may be the one that is kept."""
    world, mine = node.world, f"/{node.id}/"
    world.written = {one for one in world.written if one[0] != node.id}
    world.acked = {one for one in world.acked if one[0] != node.id and mine not in one[1]}
    world.erased = {one for one in world.erased if one[0] != node.id and mine not in one[1]}


def app_of(node: SimNode) -> App:
    """The node as the daemon's code knows it."""
    place = (Home(node.folder), Config(backup_keep=2), node.member.keys)
    app = App(*place, node.store, node.trust, node.wall_ms, node.world.clock.rng.randbytes)
    app.reference = node.reference
    return app


def renew(parent: SimNode, child: str, asked: fx.RenewAsked) -> tuple[tuple[bytes, ...], str]:
    """The parent's answer, by the code that the daemon runs."""
    app = app_of(parent)
    identity = parent.trust.directory.get(child)
    assert identity is not None
    try:
        chain = parent.guarded(lambda: app.renew(parent.writer, identity, asked.request, asked.life))
    except FednodeError as error:
        return (), error.code
    parent.moved()
    return chain or (), ""


# ---------------------------------------------------------------- backups

KEY = SealKey.from_seed(bytes(31) + b"\x07")


def back_up(node: SimNode) -> None:
    """`fednode backup`, into a folder that does not burn."""
    if node.up and not node.restoring:
        made = Maker(app_of(node), Folder(node.folder / "vault"), KEY.public).run()
        node.world.note("backup", node.id, made.number, made.lsn)


def burn(node: SimNode) -> None:
    """Nothing is left of a node but its backups; the newest is put back (`fednode restore`). Not while a store below
    was rolled back: the cursor that shows it burns, too (seed 17; docs/architecture.md, known limits)."""
    vault = node.folder / "vault"
    if not node.up or node.restoring or not vault.exists() or node.id in node.world.revoked:
        return
    below = {one.id for one in node.world.nodes.values() if one.member.parent == node.id}
    if below & node.world.rollbacks.keys():
        return
    node.crash("it burns")
    for name in (*FILES, "log.db-shm", "state.db", "state.old"):
        (node.folder / name).unlink(missing_ok=True)
    key = RecoveryKey(KEY, node.trust.domain, node.trust.root_sha256)
    place = Folder(vault)
    series, newest = only_node(all_series(place, key.root_sha256, node.id, strict=True), place, node.id)
    chosen = choose(series, newest, key, None, None)
    home, rng = node.folder / "put back", node.world.clock.rng.randbytes
    Restoring(home, Config(), chosen, key, clock=node.wall_ms, rng=rng).run()
    (home / "log.db").rename(node.folder / "log.db")
    shutil.rmtree(home)
    node.member = replace(node.member, chain=chosen.backup.manifest.chain)
    node.stamped = 0
    node.world.burnt.add(node.id)
    node.world.note("burnt", node.id, chosen.backup.manifest.number)
    lost(node)
    node.recovery.from_backup(chosen.backup.manifest.incarnation)


def lost(node: SimNode, *, gone: bool = False) -> None:
    """What nobody has any more cannot come back: neither the backup (`gone`: there is none), nor the parent, nor a
    child, a standby among them. What a revoked one alone holds it gives to nobody any more (promoting, small, seed 13:
    a county wrote for a village that it had revoked and that was still connected, and was gone for good)."""
    world = node.world
    related = [one for one in world.nodes.values() if node.member.parent == one.id or one.member.parent == node.id]
    related = [one for one in related if one.id not in world.revoked]
    related = related if gone else [node, *related]
    held: dict[str, int] = {}
    for one in related:
        for name, size in _held(one):
            held[str(name)] = max(size, held.get(str(name), 0))
    world.written = {one for one in world.written if one[0] != node.id or held.get(one[1], 0) >= one[2]}
    known: set[tuple[str, int]] = set()
    for one in related:
        one.wake()
        store = Store.open(one.folder / "log.db", stash_key=one.member.keys.stash_key)
        known |= set(store.rows("select log, seq from erased"))
        store.close()
    world.erased = {one for one in world.erased if one[0] != node.id or one[1:] in known}


class SimRecovery:
    """`fednode recover` of one node; what it keeps here lies on its disk (`recover.json`)."""

    def __init__(self, node: SimNode) -> None:
        self._node = node
        self.under_way = self.wanted = False
        self._life = 0
        self._fence = fence.Fence("", 0)
        self._put_back = self._asked = False

    def from_backup(self, life: int) -> None:
        """The store is a backup that was put back: `fednode recover` goes on from there."""
        self.under_way, self._life, self._put_back, self._asked = True, life, True, False

    def adopted(self) -> None:
        """A life was given: the first may be one that was lived already."""
        if self._put_back and not self._asked:
            self._life, self._asked = self._node.trust.me.incarnation, True

    def when_fenced(self) -> None:
        """The operator looks at the node's state, and recovers it."""
        node = self._node
        if self._put_back:  # it burnt meanwhile
            node.world.clock.at(RETRY_MS, self.when_fenced)
            return
        if self.under_way or node.id in node.world.revoked:
            return
        there = fence.standing(node.store) if node.up else None
        if there is None:
            node.world.clock.at(RETRY_MS, self.when_fenced)
            return
        self._fence = there
        node.world.note("recover", node.id)
        self._life = node.trust.me.incarnation
        self.under_way = True
        node.crash("to recover")
        for name in ("log.db", "log.db-wal", "log.db-shm"):
            if (node.folder / name).exists():
                (node.folder / name).rename(node.folder / name.replace("log.db", "old.db"))
        store_id = node.world.clock.rng.randbytes(16)
        store = Store.create(node.folder / "log.db", store_id=store_id, stash_key=node.member.keys.stash_key)
        with store.write() as tx:
            fence.put_up(tx, node.trust.me, "FN-7625", node.wall_ms())
        store.close()
        node.stamped = 0

    @property
    def in_old_life(self) -> bool:
        """Whether the new life has not come yet: nothing is taken before."""
        return self.under_way and self._node.trust.me.incarnation == self._life

    def asks(self) -> wire.Renew | None:
        """The certificate of a new life, until there is one."""
        node, keys = self._node, self._node.member.keys
        if not self.in_old_life:
            return None
        return wire.Renew(issuing.make_request(node.id, keys.tls, keys.sign, keys.seal), self._life)

    def finish(self) -> None:
        """All is here that the parent has: what the old store has besides, then business as usual."""
        node = self._node
        if not self.under_way or not node.up or node.trust.me.incarnation == self._life:
            return
        if not self.wanted:  # the life alone has come
            return
        if self._put_back:
            node.guarded(self._begin_life)
            return
        peer = node.store.peer(node.member.parent)
        assert peer is not None
        forget(node)
        node.guarded(lambda: self._take_over(node.folder / "old.db", peer))

    def _lift(self, since: int) -> None:
        with self._node.store.write() as tx:
            fence.lift(tx)
            tx.set_meta(GATHERS, 1)
            self._node.writer.rewrapping.anew(tx)
        self._node.writer.tell_stripped(since)

    def _begin_life(self) -> None:
        node = self._node
        self._lift(node.store.lsn // NUMBERS * NUMBERS)
        again = succession.begin_life(app_of(node))
        self.under_way = self._put_back = False
        node.world.note("restored", node.id, again)
        node.moved()

    def _take_over(self, path: Path, peer: Peer) -> None:
        node = self._node
        if node.store.meta(RESTORED_STORE) is None:
            with node.store.write() as tx:
                note_restored(tx, peer)
        if fence.standing(node.store) is not None:
            self._lift(0)
        old = Store.open(path, stash_key=node.member.keys.stash_key)
        try:
            found = Salvage(old, node.writer).run()
        finally:
            old.close()
        assert (found.damaged, found.unreadable, found.whole) == (0, 0, True), f"{node.id}: {found}"
        assert not found.skipped, f"{node.id} could not make again: {found.skipped}"
        journal = Journal(node.writer, node.now_ms, "sim", "sim")
        journal.alert(self._fence.code, node.id, {"node": node.id, "left": self._life}, self._fence.heads)
        self.under_way = False
        node.writer.refusals.clear()
        node.world.note("recovered", node.id, found.appended, found.below)
        node.moved()
