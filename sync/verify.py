"""Verification of a segment from a peer: the only maker of `VerifiedSegment`.

A `VerifiedSegment` says that all of this was proved, in this order (the code cites the numbers):

 1. the envelope parses, within the limits; its suite is known
 2. the log belongs to this trust domain
 3. the origin is enrolled, its chain leads to the pinned root, in the incarnation that the log names
 4. the origin stands on the side of the peer that sent it: at or below a child, above when it comes from the parent;
    to a node that takes its history back the parent sends its own and that of those below it, too, to a standby its
    primary that of all below; a standby stands beside its primary; one that was the primary gives what it wrote in
    earlier lives, and children what they hold of a parent's that goes on from less than it had
 5. the dataset is in the catalog (or is a system dataset), the origin's level may write it, the log's area lies in
    the origin's scope
 6. the segment continues the log exactly where this node's copy ends: no gap, no overlap
 7. the origin signed the checkpoint at its end
 8. the sealer signed the envelope: the origin, or who stripped it on its way here (`fednode.sync.strip`)
 9. the first parent's cosignature verifies; a segment of somebody further away must carry one, and so must one of an
    earlier life (else it is no history), whoever brings it, but for this node's own from below. To a first parent it
    need carry none: what that cosigned before, in any life, stands. Where none is needed, one that is false is none
10. the origin was not revoked, or the first parent witnessed the segment before (`Revocation.until_ms`)
11. it opens (when this node is a reader); count, stamps and what is stripped agree with the header, stamps rise
12. the leaves recomputed from the body lead to the very root that was signed
13. the payloads are JSON objects, no deeper than `NESTING_MAX`; the areas that they name lie in the origin's scope;
    system changes and erases are lawful

Where this node is not a reader, 11 to 13 are left to those who are; the rest holds all the same, and

14. the header proves that the checkpoint extends the one that this node holds (RFC 9162 consistency), so that nobody
    cosigns two histories. A node that should read and was given no key (it joined later, or has new keys) takes the
    segment without, and is given the key afterwards (`fednode.sync.rewrap`)

A log may become readable, or cease to be, halfway (a village joins after its county wrote for it; the catalog changes
its readers): from then on its root is for those to check who read it whole (12), while the origin's signature on the
envelope still vouches for each segment (8). What fails is refused as a whole: PeerError with its own code, and the
evidence (the bytes) is kept by the caller.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from fednode.crypto import checkpoint, merkle
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.merkle import TreeNode
from fednode.crypto.suite import suite as suite_of
from fednode.sync import segment as seg
from fednode.sync.catalog import Dataset
from fednode.sync.change import CATALOG, ERASE, OF_ITSELF, UPSERT, Columns, LogName
from fednode.sync.errors import PeerError
from fednode.sync.feed import Side
from fednode.sync.identity import Directory, covers
from fednode.sync.log import LogState
from fednode.sync.strip import check_erase, check_sealer, sealer_of
from fednode.sync.wire import Cosignature

NESTING_MAX = 32
States = Callable[[LogName], LogState]


@dataclass(frozen=True, slots=True)
class Context:
    """What verification may rely on: this node's place, keys and trust. `peer`: who sent it."""

    me: Identity
    peer: Identity
    from_parent: bool
    directory: Directory
    dataset: Callable[[str], Dataset | None]
    key_id: bytes
    unwrap: Callable[[seg.Envelope], bytes | None]
    now_s: int
    lawful: Callable[[LogName, Columns], None]
    restoring: bool = False
    gathers: bool = False


@dataclass(frozen=True, slots=True)
class VerifiedSegment:
    """A segment that passed every gate. `columns` and `content_key` are None / empty where this node only carries
    it. `nodes`: of the log's tree, to keep with it; none where the log is not read from its start.
    """

    envelope: seg.Envelope
    before: LogState
    after: LogState
    origin: Identity
    side: Side
    columns: Columns | None
    content_key: bytes
    first_parent: Cosignature | None
    nodes: list[TreeNode]

    @property
    def raw(self) -> bytes:
        return self.envelope.raw


class Gap(Exception):
    """Not an error of the peer's: something in between has not come yet. `size`: what is held of the log."""

    def __init__(self, log: str, size: int) -> None:
        super().__init__(log, size)
        self.log, self.size = log, size


class Held(Exception):
    """The log already reaches beyond this segment's start; the caller compares with what it holds."""

    def __init__(self, envelope: seg.Envelope, state: LogState) -> None:
        super().__init__(str(state.name))
        self.envelope, self.state = envelope, state


def verify(
    raw: bytes | seg.Envelope, state_of: States, context: Context, first_parent: Cosignature | None
) -> VerifiedSegment:
    """All gates. Raises PeerError, `Gap` (gate 6, something is missing) or `Held` (gate 6, seen before or a fork)."""
    envelope = raw if isinstance(raw, seg.Envelope) else seg.parse(raw)  # 1
    header, name = envelope.header, envelope.header.log
    _known_suite(header)
    if name.domain != context.me.domain:  # 2
        raise PeerError("FN-5410", theirs=name.domain, ours=context.me.domain)
    origin = _origin(name, context)  # 3
    side = _side(origin, context)  # 4
    _entitled(name, origin, envelope, context)  # 5
    state = state_of(name)  # 6
    if header.first > state.size:
        raise Gap(str(name), state.size)
    if header.first < state.size:
        raise Held(envelope, state)
    _signatures(envelope, origin, context)  # 7, 8
    first_parent = _witnessed(envelope, origin, side, context, first_parent)  # 9
    _not_revoked(origin, context, envelope, first_parent)  # 10
    content_key = b""
    if envelope.sealed:
        opened = context.unwrap(envelope)
        if opened is None:
            _extends(envelope, origin, state, context)  # 14
            after = LogState(name, None, header.last_hlc, header.end, header.root)
            return VerifiedSegment(envelope, state, after, origin, side, None, b"", first_parent, [])
        content_key = opened
    columns = _opened(envelope, content_key, state)  # 11
    after, nodes = _root(envelope, columns, state)  # 12
    check_content(name, columns, origin, context)  # 13
    return VerifiedSegment(envelope, state, after, origin, side, columns, content_key, first_parent, nodes)


def check_signed(raw: bytes, context: Context) -> tuple[seg.Envelope, Identity]:
    """Gates 1 to 3, 7 and 8 alone: enough to know that a conflicting segment is the origin's own doing (a fork)."""
    envelope = seg.parse(raw)
    _known_suite(envelope.header)
    origin = _origin(envelope.header.log, context)
    _signatures(envelope, origin, context)
    return envelope, origin


def _known_suite(header: seg.Header) -> None:
    try:
        suite_of(header.suite)
    except IntegrityError as error:
        raise PeerError("FN-6403", version=f"suite {header.suite}") from error


def _origin(name: LogName, context: Context) -> Identity:
    in_force = context.directory.get(name.origin)
    if in_force is None:
        raise PeerError("FN-5411", node=name.origin, log=str(name))
    origin = context.directory.life(name.origin, name.incarnation)
    if origin is None:
        raise PeerError("FN-5412", node=name.origin, theirs=name.incarnation, ours=in_force.incarnation)
    return origin


def _side(origin: Identity, context: Context) -> Side:
    path = [node.node for node in context.directory.path(origin.node)]
    mine = [node.node for node in context.directory.path(context.me.node)]
    gives_back = context.gathers or context.peer.stands_for == context.me.node
    if context.from_parent:
        # a standby stands beside its primary: to it, another standby of that is one of those below
        if origin.node in mine[:-1] or origin.stands_for in mine[: -2 if context.me.stands_for else -1]:
            return Side.ABOVE
        if context.me.node in path and (context.restoring or context.gathers):
            own = origin.node == context.me.node
            if not own or context.restoring or origin.incarnation < context.me.incarnation:
                return Side.SELF if own else Side.BELOW
        if context.me.stands_for == context.peer.node in path and context.me.node not in path:
            return Side.BELOW
    elif context.peer.node in path or context.peer.stands_for == context.me.node in path[:-1]:
        return Side.BELOW
    elif gives_back and origin.node == context.me.node and origin.incarnation < context.me.incarnation:
        return Side.SELF
    raise PeerError("FN-5413", node=origin.node, peer=context.peer.node)


def _entitled(name: LogName, origin: Identity, envelope: seg.Envelope, context: Context) -> None:
    area = name.audience or origin.scope[0]
    if not covers(origin.scope, area):
        raise PeerError("FN-5415", node=origin.node, area=area, scope=",".join(origin.scope))
    if origin.stands_for and name.dataset not in OF_ITSELF:
        raise PeerError("FN-5417", node=origin.node, dataset=name.dataset)
    if name.is_open:
        if name.audience or envelope.sealed:
            raise PeerError("FN-5416", dataset=name.dataset)
        if name.dataset == CATALOG and context.directory.path(origin.node)[0].node != origin.node:
            raise PeerError("FN-5417", node=origin.node, dataset=name.dataset)
        return
    dataset = context.dataset(name.dataset)
    if dataset is None:
        raise PeerError("FN-5416", dataset=name.dataset)
    if origin.level not in dataset.writers:
        raise PeerError("FN-5417", node=origin.node, dataset=name.dataset)
    if not envelope.sealed:
        raise PeerError("FN-5418", log=str(name))


def _signatures(envelope: seg.Envelope, origin: Identity, context: Context) -> None:
    verify_signatures(envelope, origin, context.directory)
    check_sealer(envelope.header, origin, context.peer, context.directory, from_parent=context.from_parent)


def verify_signatures(envelope: seg.Envelope, origin: Identity, directory: Directory) -> None:
    """Gates 7 and 8: the origin signed the checkpoint, the sealer the envelope. Raises FN-6406, and as `sealer_of`."""
    header = envelope.header
    sealer = sealer_of(header, origin, directory)
    head = checkpoint.Checkpoint(str(header.log), header.end, header.root)
    try:
        checkpoint.verify_signature(head, origin.sign_key, header.checkpoint)  # 7
        suite_of(header.suite).verify(sealer.sign_key, envelope.digest(), envelope.signature)  # 8
    except IntegrityError as error:
        raise PeerError("FN-6406", log=str(header.log), first=header.first) from error


def verify_first_parent(
    directory: Directory, name: LogName, size: int, root: bytes, given: Cosignature, me: str, *, mine: bool = False
) -> Cosignature:
    """Gate 9 for one cosignature: it is by the origin's parent, with the key of any of its lives. `mine`: this node may
    be that parent, and is shown what it cosigned once. Raises PeerError FN-6407."""
    origin = directory.life(name.origin, name.incarnation)
    parent = origin.issuer if origin is not None else ""
    if given.witness not in ("", parent) or (parent == me and not mine):
        raise PeerError("FN-6407", log=str(name), witness=given.witness)
    head = checkpoint.Checkpoint(str(name), size, root)
    for key in dict.fromkeys(one.sign_key for one in directory.lives(parent)):
        with suppress(IntegrityError):
            checkpoint.verify_cosignature(head, key, given.time_s, given.signature)
            return Cosignature(given.time_s, given.signature, parent)
    raise PeerError("FN-6407", log=str(name), witness=parent)


def _witnessed(
    envelope: seg.Envelope, origin: Identity, side: Side, context: Context, given: Cosignature | None
) -> Cosignature | None:
    header, directory = envelope.header, context.directory
    said = directory.said(origin.node)
    earlier = origin.incarnation < said
    first_hand = side is Side.BELOW and origin.issuer == context.me.node and not earlier and not context.from_parent
    late = side is Side.SELF and not context.restoring  # an old primary's: kept, and made again in this life
    if given is None and not (late or first_hand):  # the first parent cosigns when it stores
        if earlier and origin.issuer != ROOT:  # above the province there is nobody to cosign
            raise PeerError("FN-5412", node=origin.node, theirs=origin.incarnation, ours=said)
        if side is not Side.ABOVE:
            raise PeerError("FN-6408", log=str(header.log), first=header.first)
    if given is None:
        return None
    mine = earlier or context.from_parent or late or first_hand
    needs_none = first_hand or (late and not context.from_parent)
    with suppress(*((PeerError,) if needs_none else ())):  # what it cosigned in an earlier life stands, as above it
        return verify_first_parent(directory, header.log, header.end, header.root, given, context.me.node, mine=mine)
    return None


def _not_revoked(origin: Identity, context: Context, envelope: seg.Envelope, first_parent: Cosignature | None) -> None:
    revoked = context.directory.revocation(origin.node, origin.incarnation)
    if revoked is not None and (first_parent is None or first_parent.time_s * 1000 > revoked.until_ms):
        raise PeerError("FN-5420", node=origin.node, log=str(envelope.header.log))


def _extends(envelope: seg.Envelope, origin: Identity, state: LogState, context: Context) -> None:
    header = envelope.header
    if not state.size:
        return
    dataset = context.dataset(header.log.dataset)
    if not header.consistency and dataset is not None and context.me.level in dataset.readers:
        return
    try:
        merkle.verify_consistency(state.size, header.end, state.root, header.root, header.consistency)
    except IntegrityError as error:
        raise PeerError("FN-6415", log=str(header.log), size=state.size, end=header.end, node=origin.node) from error


def _opened(envelope: seg.Envelope, content_key: bytes, state: LogState) -> Columns:
    header = envelope.header
    columns = seg.open_with_content_key(envelope, content_key)
    size, stripped = len(columns), len(columns.leaves)
    if (size, stripped) != (header.count, header.stripped) or columns.hlcs[-1] != header.last_hlc:
        raise PeerError("FN-6409", log=str(header.log), first=header.first)
    if columns.hlcs[0] <= state.last_hlc:
        raise PeerError("FN-6409", log=str(header.log), first=header.first)
    return columns


def _root(envelope: seg.Envelope, columns: Columns, state: LogState) -> tuple[LogState, list[TreeNode]]:
    header = envelope.header
    if state.frontier is None:  # what came before could not be read here: the root is for others to check
        return LogState(header.log, None, header.last_hlc, header.end, header.root), []
    frontier, nodes = state.frontier.grow(seg.leaf_hashes(columns, header.suite))
    if frontier.root() != header.root:
        raise PeerError("FN-6411", log=str(header.log), first=header.first, size=header.end)
    return LogState(header.log, frontier, header.last_hlc), nodes


_NEITHER_TEXT_NOR_WORD = re.compile(rb':[^"tfn]')


class _Kept(msgspec.Struct):
    area: Any


@cache
def _decoder(area_field: str) -> Callable[[bytes], Any]:
    """Reads a payload: proves a JSON object, and keeps nothing of it but the field `area_field`, as `area`."""
    fields = [("area", Any, "")] if area_field else []
    kept = msgspec.defstruct("Kept", fields, rename={"area": area_field} if area_field else None)
    return msgspec.json.Decoder(kept).decode


def _reader(columns: Columns, area_field: str) -> Callable[[bytes], Any]:
    """The decoder for these payloads. What is not kept is passed over, far faster than reading it, but its escapes,
    the range of its numbers and its depth go unchecked: where there may be any, everything is read. Raises
    UnicodeDecodeError, PeerError FN-6402."""
    every = b"".join(columns.payloads)
    every.decode()  # of all at once: an object begins with ASCII, so no character reaches across two payloads
    if b"\\" not in every and not _NEITHER_TEXT_NOR_WORD.search(every):
        return _decoder(area_field)
    for payload in columns.payloads:
        _check_nesting(payload)
    return lambda payload: _Kept(msgspec.json.decode(payload, type=dict[str, Any]).get(area_field, ""))


_TEXTS = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")


def _check_nesting(payload: bytes) -> None:
    """Deeper JSON than this is no record, and would exhaust the stack of whoever reads it, here or later on."""
    if payload.count(b"[") + payload.count(b"{") <= NESTING_MAX:
        return
    depth = 0
    for bracket in _BRACKETS.findall(_TEXTS.sub(b"", payload)):
        depth += 1 if bracket in b"[{" else -1
        if depth > NESTING_MAX:
            raise PeerError("FN-6402", reason="nesting")


def check_content(name: LogName, columns: Columns, origin: Identity, context: Context) -> None:
    """Gate 13. Raises PeerError."""
    try:
        if name.is_open:
            for payload in columns.payloads:
                _check_nesting(payload)
            context.lawful(name, columns)
            return
        dataset = context.dataset(name.dataset)
        area_field = dataset.area_field if dataset else ""
        areas: set[str] = set()
        decode = _reader(columns, area_field)
        for position, (op, payload) in enumerate(zip(columns.ops, columns.payloads, strict=True)):
            if position in columns.leaves:
                continue
            if op == UPSERT:
                kept = decode(payload)
                if area_field:
                    areas.add(str(kept.area))
            elif op == ERASE:
                check_erase(origin, name, columns.keys[position], payload, context.directory)
            elif payload:
                raise PeerError("FN-6402", reason="payload of a delete")
        for key in columns.keys:
            key.decode()
        _areas(areas, origin)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise PeerError("FN-6402", reason="payload") from error
    except PeerError:
        raise
    except FednodeError as error:
        raise PeerError(error.code, **error.params) from error


def _areas(areas: set[str], origin: Identity) -> None:
    for area in sorted(areas):
        if area and not covers(origin.scope, area):
            raise PeerError("FN-5415", node=origin.node, area=area, scope=",".join(origin.scope))
