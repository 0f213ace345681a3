"""The append-only Merkle log of one origin's changes for one dataset and one audience. `extend` is pure: the store
makes it last.

Rules
1. A log has one writer. Its state is its size, the right edge of its tree and its last stamp; nothing else is needed
   to go on.
2. Once a segment, the origin signs a checkpoint (C2SP tlog-checkpoint) whose origin line is the log's name.
3. Stage, sign, compare-and-swap, publish: `extend` stages and signs; the store appends only where the size is still
   what
   `extend` started from. A staged segment that lost that race is thrown away *unpublished*, so no two published
   checkpoints contradict.
4. Whoever may read a log computes its root from the leaves. For those who only carry it, a segment's header proves that
   its checkpoint extends the one before (RFC 9162 consistency, `prove`).

>>> state = LogState(LogName.parse("hebei/13/1/sys.catalog"))
>>> state.size
0
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fednode.crypto import checkpoint, proof
from fednode.crypto.keys import SigningKey
from fednode.crypto.merkle import Frontier, TreeNode
from fednode.sync.change import JUST_BEFORE, Change, Columns, LogName
from fednode.sync.segment import (
    SEED_BYTES,
    SEGMENT_CHANGES,
    SEGMENT_SEALED_BYTES,
    Draft,
    Reader,
    Rng,
    encode_body,
    leaf_hashes,
    seal_segment,
)

SUITE = 1
SEGMENT_RAW_BYTES = 1024 * 1024  # keys and payloads before compression; the sealed size is checked after


@dataclass(frozen=True, slots=True)
class LogState:
    """Where a log stands. `frontier` is None where this node carries the log but may not read it."""

    name: LogName
    frontier: Frontier | None = Frontier.EMPTY
    last_hlc: int = 0
    opaque_size: int = 0
    opaque_root: bytes = b""

    @property
    def size(self) -> int:
        return self.opaque_size if self.frontier is None else self.frontier.size

    @property
    def root(self) -> bytes:
        return self.opaque_root if self.frontier is None else self.frontier.root()


@dataclass(frozen=True, slots=True)
class OwnSegment:
    """An extension of one of this node's own logs, sealed and signed, not yet stored. Only `extend` makes it. `nodes`:
    of the tree, to keep with it."""

    before: LogState
    after: LogState
    columns: Columns
    raw: bytes
    content_key: bytes
    nodes: list[TreeNode]

    @property
    def first(self) -> int:
        return self.before.size

    @property
    def count(self) -> int:
        return len(self.columns)


def cut(changes: Sequence[Change]) -> Iterator[Sequence[Change]]:
    """Runs of changes, each small enough for one normal segment."""
    start = size = 0
    for i, change in enumerate(changes):
        weight = len(change.key) + len(change.payload)
        if i > start and (i - start >= SEGMENT_CHANGES or size + weight > SEGMENT_RAW_BYTES):
            yield changes[start:i]
            start, size = i, 0
        size += weight
    if start < len(changes):
        yield changes[start:]


def _base(change: Change, stamp: int) -> int:
    return stamp - 1 if change.base == JUST_BEFORE else change.base  # stamps of one call follow one another


def extend(
    state: LogState,
    changes: Sequence[Change],
    stamps: Sequence[int],
    schema_version: int,
    key: SigningKey,
    readers: Sequence[Reader],
    sealed: bool,
    rng: Rng,
    prove: bool = False,
    bodies: int = 1,
) -> Iterator[OwnSegment]:
    """One segment, or several when the sealed bytes would be too many. `stamps`: one for each change, rising, all
    greater than `state.last_hlc`. `prove`: somebody carries the log who may not read it (rule 4). `bodies`: how they
    may be packed (`Catalog.bodies`)."""
    edge = state.frontier
    if edge is None or not changes or stamps[0] <= state.last_hlc:
        raise ValueError("extend needs a log of one's own, changes, and stamps that rise")
    columns = Columns(
        schema_version,
        [change.key for change in changes],
        list(stamps),
        bytes([change.op for change in changes]),
        [change.payload for change in changes],
        rng(SEED_BYTES),
        [_base(*one) for one in zip(changes, stamps, strict=True)] if any(change.base for change in changes) else [],
    )
    body = encode_body(columns, bodies)
    if len(body) > SEGMENT_SEALED_BYTES and len(changes) > 1:
        half = len(changes) // 2
        alike = (schema_version, key, readers, sealed, rng, prove, bodies)
        for part in extend(state, changes[:half], stamps[:half], *alike):
            yield part
            state = part.after
        yield from extend(state, changes[half:], stamps[half:], *alike)
        return
    hashes = leaf_hashes(columns, SUITE)
    frontier, nodes = edge.grow(hashes)
    root = frontier.root()
    proved = tuple(proof.extension(edge, hashes)) if prove and edge.size else ()
    head = checkpoint.Checkpoint(str(state.name), frontier.size, root)
    signed = checkpoint.signature(head, key)
    draft = Draft(SUITE, state.name, state.size, len(changes), root, signed, stamps[-1], consistency=proved)
    raw, content_key = seal_segment(draft, body, readers, sealed, key.sign, rng)
    yield OwnSegment(state, LogState(state.name, frontier, stamps[-1]), columns, raw, content_key, nodes)
