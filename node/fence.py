"""The fence that a node puts up around itself when its store is not what its logs say: rolled back, lost, or cloned.

Rules
1. A node that went on from such a store would sign a second history. Behind the fence it makes no change of its own
   (Refused FN-5303); it goes on reading, receiving, and serving those below it.
2. What puts it up (the parent's word is enough, for it holds what this node signed):
   FN-6422  the parent holds more of this node's feed than is here: rolled back
   FN-6423  the parent holds something else at a place of this node's feed: rolled back and written on, or cloned
   FN-6420, FN-6411, FN-6415, FN-6409  the parent refused a segment of this node's own log: it holds another history,
            which this one contradicts, does not go on from, or is older than
   FN-5514  the parent knows another store under this incarnation: this one is new, or a copy
   FN-5412, FN-5513  the parent knows a later incarnation of this node
   FN-5515  another installation with these keys is sending, too
  FN-5516  this node hands its place over to its standby (`node.switchover`), which may still come to nothing
3. A child's word is not enough to stop its parent: it is an alert.
4. The first reason stays. Only `fednode recover` takes the fence away, which goes on in a new store and a new
   incarnation; and whoever put it up in a switchover that came to nothing.

>>> Place.BEHIND.value
'FN-6422'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import msgspec

from fednode.crypto import checkpoint
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.sync import segment as seg
from fednode.sync.change import LogName
from fednode.sync.wire import HEADS_MAX, Cursor

META = "fenced"
PARENTS_WORD = frozenset({"FN-5513", "FN-5514", "FN-5515"})  # codes of a Bye
HANDED = "FN-5516"
SUPERSEDED = frozenset({"FN-5513", "FN-5412", HANDED})  # a later life of this node is in force somewhere else, or will
FORK = "FN-6420"
OF_MINE = frozenset({FORK, "FN-5412", "FN-6409", "FN-6411", "FN-6415"})  # refusals of this node's own segments


class Place(Enum):
    """What a peer's cursor says about this store; the value is the code, where there is one."""

    SAME = ""
    UNKNOWN = "unknown"  # another store, or nothing to compare with: the feed starts from its beginning
    BEHIND = "FN-6422"
    OTHER = "FN-6423"

    @property
    def code(self) -> str:
        return self.value if self in (Place.BEHIND, Place.OTHER) else ""


@dataclass(frozen=True, slots=True)
class Fence:
    """Why, since when (Unix milliseconds), and the signed heads of this node's logs at that time."""

    code: str
    at_ms: int
    heads: tuple[str, ...] = ()


def place(store: Store, have: Cursor) -> Place:
    """Whether what a peer holds of this store's feed is a part of it."""
    if not have.lsn:
        return Place.SAME if have.store in (b"", store.store_id) else Place.UNKNOWN
    if have.store != store.store_id:
        return Place.UNKNOWN
    if have.lsn > store.lsn:
        return Place.BEHIND
    if not have.check:
        return Place.SAME
    there = store.checks_at(have.lsn)
    if not there:
        return Place.UNKNOWN
    return Place.SAME if have.check in there else Place.OTHER


def standing(store: Store) -> Fence | None:
    """The fence, while it stands."""
    text = store.meta(META)
    if text is None:
        return None
    found = msgspec.json.decode(text)
    return Fence(found["code"], found["at_ms"], tuple(found["heads"]))


def superseded(store: Store) -> bool:
    """Whether another installation is this node now: this one serves nobody; its children look for the other."""
    there = standing(store)
    return there is not None and there.code in SUPERSEDED


def put_up(tx: Transaction, me: Identity, code: str, now_ms: int) -> Fence:
    """Put the fence up, in a running transaction; one that stands is left as it is."""
    there = standing(tx.store)
    if there is not None:
        return there
    fence = Fence(code, now_ms, heads(tx.store, me))
    document = {"code": fence.code, "at_ms": fence.at_ms, "heads": fence.heads}
    tx.set_meta(META, msgspec.json.encode(document).decode())
    return fence


def lift(tx: Transaction) -> None:
    """Take the fence away: the store is a new one, and a new life has begun."""
    tx.set_meta(META, None)


# ---------------------------------------------------------------- signed heads, as evidence


def note(origin: Identity, header: seg.Header) -> str:
    """The checkpoint at a segment's end as its origin signed it: a C2SP note, for tools that are not ours."""
    head = checkpoint.Checkpoint(str(header.log), header.end, header.root)
    return checkpoint.to_note(head, header.log.signer, origin.sign_key, header.checkpoint)


def heads(store: Store, origin: Identity, logs: Sequence[LogName] = ()) -> tuple[str, ...]:
    """The newest heads that this store holds of a node's logs in one life: of these logs, or of its longest."""
    found = [
        (size, log_id, name)
        for log_id, name, size in store.logs()
        if (name.origin, name.incarnation) == (origin.node, origin.incarnation) and (not logs or name in logs)
    ]
    notes = []
    for size, log_id, _ in sorted(found, key=lambda one: (-one[0], one[1]))[:HEADS_MAX]:
        try:
            last = store.segment_at(log_id, size - 1)
        except FednodeError:  # damaged: the other heads must do
            continue
        if last is not None:
            notes.append(note(origin, seg.parse(last.raw).header))
    return tuple(notes)


def proved(lives: Sequence[Identity], notes: Sequence[str]) -> list[tuple[checkpoint.Checkpoint, str]]:
    """Those of a peer's notes that it signed itself, in one of its lives."""
    found = []
    for text in notes:
        try:
            head, parsed = checkpoint.from_note(text)
            name = LogName.parse(head.origin)
        except FednodeError:
            continue
        for one in lives:
            signed = [line.signature for line in parsed.lines if line.name == name.signer]
            if (
                one.incarnation == name.incarnation
                and one.node == name.origin
                and any(_holds(head, one.sign_key, given) for given in signed)
            ):
                found.append((head, text))
                break
    return found


def _holds(head: checkpoint.Checkpoint, public: bytes, signed: bytes) -> bool:
    try:
        checkpoint.verify_signature(head, public, signed)
    except FednodeError:
        return False
    return True
