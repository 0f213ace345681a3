"""What a store that was set aside still holds and nobody else does: taken over into the store that goes on.

Rules
1. Nothing is taken that does not verify: the hash of its bytes, the signatures, and for what others wrote every gate.
2. This node's own changes that are in no log of the new store (the tail that its parent never had, a fork's branch) are
   made again as changes of the new incarnation, in their old order. A `base` that names such a change follows it.
   What was made again, or said once more (`node.meanwhile`), stands: of its segment the rest is made again. So does
   what another machine made again that was this node in a life since.
   The two places of each are kept (`made_again`): who erases the one erases the other, too (`node.stripping`, rule 7).
   What was erased meanwhile is not made again.
3. What others wrote below this node goes in as it came.
4. It may be cut off anywhere and run again: what was done is marked in the transaction that did it.

>>> Salvaged().appended
0
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from fednode.crypto.errors import FednodeError
from fednode.node.link import Link
from fednode.node.meanwhile import Meanwhile, Place
from fednode.node.rows import Held
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, ERASE, NODES, Change, Columns, LogName
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
    """One old store, one writer of the new one. `meanwhile`: what stands over what is made again is to stand."""

    def __init__(self, old: Store, writer: Writer, meanwhile: Meanwhile | None = None) -> None:
        self._old, self._writer, self._store, self._trust = old, writer, writer.store, writer.trust
        self._meanwhile = meanwhile
        self._stamps: dict[int, int] = {}
        self.found = Salvaged()

    def run(self) -> Salvaged:
        """Take over everything. Raises StoreError when the new store is in trouble."""
        done = int(self._store.meta(META, 0))
        self._know_twins()
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

    def _know_twins(self) -> None:
        """What the old store made again it holds twice."""
        try:
            rows = self._old.rows("select log, first, count, new_log, new_first from made_again")
        except FednodeError:
            self.found.whole = False
            return
        with self._writer.telling() as tx:
            tx.know_twins(rows)

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
        name, again = held.name, self._store.made_again(held.name, held.first, held.count)
        gone = columns.leaves.keys() | self._erased(held, columns)
        there = [i for i in range(len(columns)) if i not in gone]
        left = [i for i in there if held.first + i not in again]
        if left and self._meanwhile is not None and self._by_another(held, columns, left, self._meanwhile):
            again = self._store.made_again(name, held.first, held.count)
            left = [i for i in there if held.first + i not in again]
        if left:
            if held.lsn <= done:
                return  # it was refused then
            again = self._again(held, columns, self._changes(columns, left), [held.first + i for i in left])
        elif held.lsn > done:  # somebody else did it, or nothing is left of it
            with self._store.write() as tx:
                tx.set_meta(META, held.lsn)
        self._remember(columns, held.first, again)
        self._list(name, [columns.keys[i].decode() for i in there])

    def _erased(self, held: Held, columns: Columns) -> set[int]:
        """What was erased since the old store was set aside."""
        due = self._writer.stripping.due(held.name, held.first, held.first + held.count)
        return {seq - held.first for seq in due if columns.ops[seq - held.first] != ERASE}

    def _by_another(self, held: Held, columns: Columns, left: list[int], meanwhile: Meanwhile) -> bool:
        """What a life since then has made again, on another machine. Whether there is any."""
        found = meanwhile.made_again(held, columns, left)
        if found:
            with self._writer.telling() as tx:
                for i, (log, seq) in found.items():
                    tx.made_again(held.name, [held.first + i], log, seq)
        return bool(found)

    def _changes(self, columns: Columns, positions: list[int]) -> list[Change]:
        found = []
        for i in positions:
            base = columns.base(i)
            found.append(Change(columns.keys[i], columns.payloads[i], columns.ops[i], self._stamps.get(base, base)))
        return found

    def _again(self, held: Held, columns: Columns, changes: list[Change], seqs: list[int]) -> dict[int, list[Place]]:
        name = held.name
        if name.dataset == NODES:
            self._trust.lawful(name, columns)
        area = name.audience or self._trust.area
        new = self._trust.log_name(name.dataset, area)
        stands = self._meanwhile.over(held, changes) if self._meanwhile is not None else []
        seen = {one.change.key: one.change.base for one in reversed(stands)}
        stamps = set(self._stamps.values())
        late = [one if one.base in stamps else replace(one, base=seen.get(one.key, one.base)) for one in changes]

        def note(tx: Transaction) -> None:
            tx.set_meta(META, held.lsn)
            first = self._store.log_state(new).size - len(late) - len(stands)
            tx.made_again(name, seqs, new, first)
            for at, one in enumerate(stands, first + len(late)):
                for log, seq in one.places:
                    tx.made_again(log, [seq], new, at)

        self._writer.local(name.dataset, area, [*late, *(one.change for one in stands)], note)
        return self._store.made_again(name, held.first, held.count)

    def _remember(self, columns: Columns, first: int, again: Mapping[int, Sequence[Place]]) -> None:
        """The new stamps of what was made again: what follows may name it as its `base`."""
        there: Held | None = None
        for seq, (new, at) in ((seq, place) for seq, places in again.items() for place in places):
            if there is None or there.name != new or not there.first <= at < there.first + there.count:
                log_id = self._store.log_id(new)
                there = self._store.segment_at(log_id, at) if log_id is not None else None
                known = self._store.columns(there) if there is not None else None
            if there is not None and known is not None:
                old, stamp = columns.hlcs[seq - first], known.hlcs[at - there.first]
                self._stamps[old] = max(stamp, self._stamps.get(old, 0))

    def _list(self, name: LogName, keys: list[str]) -> None:
        self.found.appended += len(keys)
        room = LISTED_MAX - len(self.found.again)
        area = name.audience or self._trust.area
        self.found.again += [Again(name.dataset, area, key) for key in keys[:room]]

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
