"""What a store that was set aside still holds and nobody else does: taken over into the store that goes on.

Rules
1. Nothing is taken that does not verify: the hash of its bytes, the signatures, and for what others wrote every gate.
2. This node's own changes that are in no log of the new store (the tail that its parent never had, a fork's branch) are
   made again as changes of the new incarnation, in their old order. A `base` that names such a change follows it.
3. What others wrote below this node goes in as it came.
4. It may be cut off anywhere and run again: what was done is marked in the transaction that did it.

>>> Salvaged().appended
0
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from fednode.crypto.errors import FednodeError
from fednode.node.rows import Held
from fednode.node.store import Store
from fednode.node.writer import Link, Writer
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, NODES, UPSERT, Change, Columns, LogName
from fednode.sync.effects import Commit
from fednode.sync.errors import PeerError, Refused
from fednode.sync.verify import verify_signatures
from fednode.sync.wire import NUMBER_MAX

META = "salvaged"
LISTED_MAX = 1_000
AT_ONCE = 1_000


@dataclass(frozen=True, slots=True)
class Again:
    """A change of this node's own that was made again."""

    dataset: str
    area: str
    key: str


@dataclass(slots=True)
class Salvaged:
    """`appended`: own changes made again; `below`: segments of others that were taken over; `skipped`: own changes that
    may not be made again, and why; `damaged`: segments that do not verify, `unreadable`: own ones without a key."""

    appended: int = 0
    again: list[Again] = field(default_factory=list)
    below: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    damaged: int = 0
    unreadable: int = 0
    whole: bool = True


class Salvage:
    """One old store, one writer of the new one."""

    def __init__(self, old: Store, writer: Writer) -> None:
        self._old, self._writer, self._store, self._trust = old, writer, writer.store, writer.trust
        self._stamps: dict[int, int] = {}
        self._read: dict[LogName, int] = {}
        self.found = Salvaged()

    def run(self) -> Salvaged:
        """Take over everything. Raises StoreError when the new store is in trouble."""
        done = int(self._store.meta(META, 0))
        for lsn in self._missing():
            try:
                (held,) = self._old.segments(lsn - 1, 1)
            except FednodeError:
                self.found.damaged += 1
                continue
            try:
                if self._is_there(held):
                    continue
                if held.name.origin == self._trust.node:
                    self._own(held, done)
                elif held.lsn > done:
                    self._below(held)
            except (PeerError, Refused) as error:
                self.found.skipped.append((str(held.name), error.code))
        return self.found

    def _missing(self) -> Iterator[int]:
        """Arrival numbers of the old store's segments that the new one has not, byte for byte; as far as the file can
        be read."""
        after = 0
        while True:
            try:
                rows = self._old.digests(after, AT_ONCE)
            except FednodeError:
                self.found.whole = False
                return
            if not rows:
                return
            for after, name, first, sha256 in rows:
                if self._store.digest(name, first) != sha256:
                    yield after

    def _is_there(self, held: Held) -> bool:
        there = self._store.held_range(held.name, held.first)
        if there is None:
            return False
        return (
            there[2] == held.first + held.count and seg.parse(there[3]).header.root == seg.parse(held.raw).header.root
        )

    # ------------------------------------------------------------ own changes

    def make_again(self, held: Held) -> None:
        """One segment of an earlier life of this node's, whose changes nobody else is known to hold. Raises what
        `Writer.local` raises."""
        self._own(held, int(self._store.meta(META, 0)))

    def _own(self, held: Held, done: int) -> None:
        envelope = seg.parse(held.raw)
        life = self._trust.directory.life(held.name.origin, held.name.incarnation)
        if life is None or envelope.header.log != held.name or held.name.dataset == CATALOG:
            raise PeerError("FN-5412", node=held.name.origin, theirs=held.name.incarnation, ours=0)
        verify_signatures(envelope, life, self._trust.directory)
        columns = self._old.columns(held)
        if columns is None:
            self.found.unreadable += 1
            return
        changes = [
            Change(key, payload, op, self._stamps.get(columns.base(i), columns.base(i)))
            for i, (key, op, payload) in enumerate(zip(columns.keys, columns.ops, columns.payloads, strict=True))
            if i not in columns.leaves
        ]
        name = held.name
        if changes and (held.lsn > done or not self._follows(name, columns, changes)):
            if held.lsn <= done:
                return  # it was refused then
            if name.dataset == NODES:
                self._lawful(changes)
            area = name.audience or self._trust.area
            self._writer.local(name.dataset, area, changes, lambda tx: tx.set_meta(META, held.lsn))
            self._follows(name, columns, changes)
        self._list(name, changes)

    def _lawful(self, changes: list[Change]) -> None:
        for change in changes:
            if change.op == UPSERT:
                self._trust.directory.check(self._trust.node, msgspec.json.decode(change.payload))

    def _follows(self, name: LogName, columns: Columns, changes: list[Change]) -> bool:
        """Whether the new log goes on with these changes: then their new stamps are known from there."""
        new = self._trust.log_name(name.dataset, name.audience or self._trust.area)
        log_id, at = self._store.log_id(new), self._read.get(new, 0)
        stamps: list[int] = []
        while log_id is not None and len(stamps) < len(changes):
            held = self._store.segment_at(log_id, at + len(stamps))
            there = self._store.columns(held) if held is not None else None
            if held is None or there is None:
                return False
            for i in range(at + len(stamps) - held.first, len(there)):
                if len(stamps) < len(changes):
                    if there.keys[i] != changes[len(stamps)].key:
                        return False
                    stamps.append(there.hlcs[i])
        if log_id is None:
            return False
        self._read[new] = at + len(stamps)
        kept = [hlc for i, hlc in enumerate(columns.hlcs) if i not in columns.leaves]
        self._stamps.update(zip(kept, stamps, strict=True))
        return True

    def _list(self, name: LogName, changes: list[Change]) -> None:
        self.found.appended += len(changes)
        room = LISTED_MAX - len(self.found.again)
        area = name.audience or self._trust.area
        self.found.again += [Again(name.dataset, area, one.key.decode()) for one in changes[:room]]

    # ------------------------------------------------------------ what others wrote

    def _below(self, held: Held) -> None:
        path = [one.node for one in self._trust.directory.path(held.name.origin)]
        if self._trust.node not in path or self._is_there(held):
            return  # from above: it comes from there
        child = self._trust.directory.get(path[path.index(self._trust.node) + 1])
        if child is None:
            return
        with self._store.write() as tx:
            peer = tx.ensure_peer(child.node, "child")
        # neither a session nor a place in the child's order: its cursor stays where it is
        link = Link(child, peer.id, b"", False, NUMBER_MAX, fenced=True)
        ((_, done),) = self._writer.incoming([(link, Commit(held.lsn, held.raw, self._old.first_parent(held.lsn)))])
        if not done.refused and done.gap is None:
            self.found.below += 1
