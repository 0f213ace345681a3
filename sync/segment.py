"""Segments: columns to sealed bytes and back. Pure; randomness is an argument.

Rules
1. Bytes that were received are stored and forwarded as they came. Nothing signed is ever serialised again.
2. Limits are enforced before anything is decompressed: `ENVELOPE_BYTES_MAX`, those of `packing`, and then
   `SEGMENT_CHANGES_MAX`.
3. The header is in clear; its hash goes into every key wrap, into the associated data and into the sealer's
   signature, so header and body cannot be swapped.
4. A log without readers (sys.catalog, sys.nodes) is signed and not sealed.
5. `Envelope` says nothing about trust. `fednode.sync.verify` does.

>>> from fednode.sync.change import DELETE
>>> columns = Columns(1, [b"k1", b"k2"], [10, 12], bytes((UPSERT, DELETE)), [b"{}", b""], seed=bytes(32))
>>> decode_body(encode_body(columns)) == columns
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import accumulate, pairwise

from google.protobuf.message import DecodeError

from fednode.crypto import merkle, seal
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import suite as suite_of
from fednode.proto import fednode_pb2 as pb
from fednode.sync.change import (
    KEY_BYTES_MAX,
    LOG_SIZE_MAX,
    OPS,
    PAYLOAD_BYTES_MAX,
    SEGMENT_CHANGES_MAX,
    UPSERT,
    Columns,
    LogName,
)
from fednode.sync.clock import STAMP_MAX
from fednode.sync.errors import PeerError
from fednode.sync.packing import pack, unpack

VERSION = 1
ENVELOPE_BYTES_MAX = 4 * 1024 * 1024
READERS_MAX = 64
HEADER_TAG, HEADER_SIZE_BYTES_MAX = b"\x0a", 4  # an envelope begins with this, and the size of its header
SEGMENT_CHANGES = 1_000  # a normal segment: a cut link loses little
SEGMENT_SEALED_BYTES = 256 * 1024
SEED_BYTES = 32
HASH_BYTES = 32

Rng = Callable[[int], bytes]


@dataclass(frozen=True, slots=True)
class Header:
    """What is in clear about a segment. `raw` are the very bytes that were hashed and signed."""

    suite: int
    log: LogName
    first: int
    count: int
    root: bytes
    checkpoint: bytes
    last_hlc: int
    readers: tuple[bytes, ...]
    sealer: str
    raw: bytes
    consistency: tuple[bytes, ...] = ()
    stripped: int = 0

    @property
    def end(self) -> int:
        """Size of the log after this segment."""
        return self.first + self.count


@dataclass(frozen=True, slots=True)
class Envelope:
    """A parsed, not yet verified envelope. `raw` are the bytes to store and forward."""

    header: Header
    commit: bytes
    wraps: tuple[bytes, ...]
    body: bytes
    signature: bytes
    raw: bytes

    @property
    def sealed(self) -> bool:
        return bool(self.header.readers) or bool(self.commit)

    def digest(self) -> bytes:
        """What the sealer signed."""
        return seal.envelope_digest(self.header.raw, self.commit, list(self.wraps), self.body)


def parse(raw: bytes) -> Envelope:
    """Bytes from outside to an envelope. Raises PeerError FN-6401 (size), FN-6402 (no envelope), FN-6403 (version)."""
    if len(raw) > ENVELOPE_BYTES_MAX:
        raise PeerError("FN-6401", size=len(raw), limit=ENVELOPE_BYTES_MAX)
    try:
        envelope = pb.Envelope.FromString(raw)
        header = pb.Header.FromString(envelope.header)
    except DecodeError as error:
        raise PeerError("FN-6402", reason="protobuf") from error
    if header.version != VERSION:
        raise PeerError("FN-6403", version=header.version)
    _check_shape(header, envelope)
    return Envelope(
        _header(header, envelope.header),
        envelope.commit,
        tuple(envelope.wraps),
        envelope.body,
        envelope.signature,
        raw,
    )


def _header(h: pb.Header, raw: bytes) -> Header:
    of_log = (h.suite, LogName.parse(h.log), h.first, h.count, h.root, h.checkpoint, h.last_hlc)
    return Header(*of_log, tuple(h.readers), h.sealer, raw, tuple(h.consistency), h.stripped)


def beginning(data: bytes) -> Header | None:
    """The header of an envelope, as `_seal` writes it, of which only a first part is there, unverified; None where not
    even that is whole: then nothing of the body is there."""
    size, at = 0, 1
    while data[:1] == HEADER_TAG and at < len(data) and at <= HEADER_SIZE_BYTES_MAX:
        size |= (data[at] & 127) << 7 * (at - 1)
        at += 1
        if data[at - 1] < 128:
            raw = data[at : at + size]
            try:
                return _header(pb.Header.FromString(raw), raw) if len(raw) == size else None
            except (DecodeError, PeerError):
                return None
    return None


def _check_shape(header: pb.Header, envelope: pb.Envelope) -> None:
    wrong = (
        (not 1 <= header.count <= SEGMENT_CHANGES_MAX, "count"),
        (header.stripped > header.count, "stripped"),
        (header.first + header.count > LOG_SIZE_MAX, "first"),
        (len(header.root) != HASH_BYTES, "root"),
        (len(header.checkpoint) != 64 or len(envelope.signature) != 64, "signature"),
        (header.last_hlc > STAMP_MAX, "last_hlc"),
        (len(header.readers) > READERS_MAX or len(header.readers) != len(envelope.wraps), "readers"),
        (any(len(reader) != 8 for reader in header.readers), "readers"),
        (len(header.consistency) > merkle.PROOF_HASHES_MAX, "consistency"),
        (any(len(one) != HASH_BYTES for one in header.consistency), "consistency"),
        (len(envelope.commit) not in (0, HASH_BYTES), "commit"),
        (bool(header.readers) and not envelope.commit, "commit"),
    )
    for bad, what in wrong:
        if bad:
            raise PeerError("FN-6402", reason=what)


# ---------------------------------------------------------------- body


def encode_body(columns: Columns, bodies: int = 1) -> bytes:
    """Columns to compressed bytes, in a way that every reader knows (`Catalog.bodies`)."""
    hlcs = columns.hlcs
    body = pb.Body(
        schema_version=columns.schema_version,
        seed=columns.seed,
        keys=b"".join(columns.keys),
        key_lengths=list(map(len, columns.keys)),
        first_hlc=hlcs[0],
        hlc_deltas=[later - earlier for earlier, later in pairwise(hlcs)],
        ops=b"" if columns.ops.count(UPSERT) == len(columns.ops) else columns.ops,
        payloads=b"".join(columns.payloads),
        payload_lengths=list(map(len, columns.payloads)),
        bases=columns.bases if any(columns.bases) else [],
        stripped=sorted(columns.leaves),
        leaves=b"".join(columns.leaves[position] for position in sorted(columns.leaves)),
        salts=b"".join(columns.salts[position] for position in sorted(columns.salts)),
    )
    return pack(body.SerializeToString(), bodies)


def decode_body(compressed: bytes) -> Columns:
    """Compressed bytes to columns. Raises PeerError FN-6401 (a limit would be passed), FN-6402 (it is not a body)."""
    return _columns(_plain(compressed))


@dataclass(frozen=True, slots=True)
class Leaves:
    """What a body comes to for who only verifies it. `stripped`: how many of the leaves were given."""

    first_hlc: int
    last_hlc: int
    hashes: list[bytes]
    stripped: int


def decode_leaves(compressed: bytes, suite: int = 1) -> Leaves:
    """`leaf_hashes` of `decode_body`, without keeping the columns: a fifth faster. Raises what `decode_body` raises."""
    body = _plain(compressed)
    if body.stripped:
        columns = _columns(body)
        return Leaves(columns.hlcs[0], columns.hlcs[-1], leaf_hashes(columns, suite), len(columns.leaves))
    key_lengths, payload_lengths, hlcs, ops, _, _ = _checked(body)
    keys = _cut(body.keys, key_lengths, KEY_BYTES_MAX, "keys")
    payloads = _cut(body.payloads, payload_lengths, PAYLOAD_BYTES_MAX, "payloads")
    salts = suite_of(suite).keystream(body.seed, HASH_BYTES * len(hlcs))
    return Leaves(hlcs[0], hlcs[-1], merkle.leaves(hlcs, ops, body.schema_version, keys, salts, payloads), 0)


def _plain(compressed: bytes) -> pb.Body:
    try:
        return pb.Body.FromString(unpack(compressed))
    except DecodeError as error:
        raise PeerError("FN-6402", reason="body") from error


def _checked(body: pb.Body) -> tuple[list[int], list[int], list[int], bytes, list[int], list[int]]:
    """Lengths of keys and payloads, stamps, ops, bases, stripped positions, when all of it fits together. Repeated
    fields become lists once, by a slice: each look at one of protobuf's own costs more than a look at a list."""
    key_lengths, payload_lengths = body.key_lengths[:], body.payload_lengths[:]
    deltas, bases, stripped = body.hlc_deltas[:], body.bases[:], body.stripped[:]
    count = len(key_lengths)
    ops = body.ops or bytes((UPSERT,)) * count
    wrong = (
        (not 1 <= count <= SEGMENT_CHANGES_MAX, "count"),
        (len(payload_lengths) != count or len(deltas) != count - 1 or len(ops) != count, "columns"),
        (len(bases) not in (0, count), "bases"),
        (bool(set(ops) - OPS), "ops"),
        (len(body.leaves) != HASH_BYTES * len(stripped), "leaves"),
        (any(later <= earlier for earlier, later in pairwise(stripped)), "stripped"),
        (bool(stripped) and stripped[-1] >= count, "stripped"),
        (len(body.seed) != (0 if stripped else SEED_BYTES), "seed"),
        (len(body.salts) != (HASH_BYTES * (count - len(stripped)) if stripped else 0), "salts"),
    )
    for bad, what in wrong:
        if bad:
            raise PeerError("FN-6402", reason=what)
    hlcs = list(accumulate(deltas, initial=body.first_hlc))
    if hlcs[-1] > STAMP_MAX or (count > 1 and min(deltas) < 1):
        raise PeerError("FN-6402", reason="stamps")
    return key_lengths, payload_lengths, hlcs, ops, bases, stripped


def _columns(body: pb.Body) -> Columns:
    key_lengths, payload_lengths, hlcs, ops, bases, stripped = _checked(body)
    leaves = {position: body.leaves[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i, position in enumerate(stripped)}
    left = [position for position in range(len(hlcs)) if position not in leaves] if stripped else []
    salts = {position: body.salts[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i, position in enumerate(left)}
    keys = list(_cut(body.keys, key_lengths, KEY_BYTES_MAX, "keys"))
    payloads = list(_cut(body.payloads, payload_lengths, PAYLOAD_BYTES_MAX, "payloads"))
    return Columns(body.schema_version, keys, hlcs, ops, payloads, body.seed, bases, leaves, salts)


def _cut(blob: bytes, lengths: Sequence[int], limit: int, what: str) -> Iterator[bytes]:
    if sum(lengths) != len(blob) or max(lengths) > limit:
        raise PeerError("FN-6402", reason=what)
    return map(BytesIO(blob).read, lengths)  # twice as fast as slices: no bounds are made


def leaf_hashes(columns: Columns, suite: int = 1) -> list[bytes]:
    """The leaf of each change (DESIGN.md section 5), those of stripped changes as they were given."""
    hlcs, ops, version, keys = columns.hlcs, columns.ops, columns.schema_version, columns.keys
    if not columns.leaves:
        salts = suite_of(suite).keystream(columns.seed, HASH_BYTES * len(columns))
        return merkle.leaves(hlcs, ops, version, keys, salts, columns.payloads)

    def left(i: int) -> bytes:
        return merkle.leaf(hlcs[i], ops[i], version, keys[i], merkle.commitment(columns.salts[i], columns.payloads[i]))

    return [columns.leaves[i] if i in columns.leaves else left(i) for i in range(len(columns))]


def salt_of(columns: Columns, position: int, suite: int = 1) -> bytes:
    """The salt of a change that is not stripped."""
    if columns.leaves:
        return columns.salts[position]
    return suite_of(suite).keystream(columns.seed, HASH_BYTES * (position + 1))[-HASH_BYTES:]


# ---------------------------------------------------------------- seal and open


@dataclass(frozen=True, slots=True)
class Reader:
    """A recipient: 8-byte key id and raw X25519 public key."""

    key_id: bytes
    public: bytes


@dataclass(frozen=True, slots=True)
class Draft:
    """A header before its readers are known: what the origin says of a segment."""

    suite: int
    log: LogName
    first: int
    count: int
    root: bytes
    checkpoint: bytes
    last_hlc: int
    consistency: tuple[bytes, ...] = ()


def seal_segment(
    draft: Draft, body: bytes, readers: Sequence[Reader], sealed: bool, sign: Callable[[bytes], bytes], rng: Rng
) -> tuple[bytes, bytes]:
    """The bytes of an envelope and its content key (empty when it is not sealed).

    `sign` signs the envelope digest with the sealer's Ed25519 key. `sealed`
    with no
    readers makes a segment that only its origin's stash can open."""
    header = pb.Header(
        version=VERSION,
        suite=draft.suite,
        log=str(draft.log),
        first=draft.first,
        count=draft.count,
        root=draft.root,
        checkpoint=draft.checkpoint,
        last_hlc=draft.last_hlc,
        readers=[reader.key_id for reader in readers],
        consistency=draft.consistency,
    )
    return _seal(header, body, readers, sealed, sign, rng)


def seal_again(
    envelope: Envelope,
    body: bytes,
    readers: Sequence[Reader],
    sealer: str,
    stripped: int,
    sign: Callable[[bytes], bytes],
    rng: Rng,
) -> tuple[bytes, bytes]:
    """The bytes and the content key of a stripped segment: what the origin said of it stays word for word, whatever a
    newer program wrote there."""
    header = pb.Header.FromString(envelope.header.raw)
    header.readers[:] = [reader.key_id for reader in readers]
    header.sealer, header.stripped = sealer, stripped
    return _seal(header, body, readers, True, sign, rng)


def head_only(raw: bytes) -> bytes:
    """An envelope without body and keys: what its origin signed of the log, as evidence. Nothing of what is none."""
    try:
        envelope = pb.Envelope.FromString(raw)
    except DecodeError:
        return b""
    return pb.Envelope(header=envelope.header, signature=envelope.signature).SerializeToString()


def _seal(
    header: pb.Header, body: bytes, readers: Sequence[Reader], sealed: bool, sign: Callable[[bytes], bytes], rng: Rng
) -> tuple[bytes, bytes]:
    raw_header = header.SerializeToString()
    content_key, commit, wraps, payload = b"", b"", [], body
    if sealed:
        content_key = rng(32)
        done = seal.seal_body(
            body, raw_header, [(r.key_id, r.public) for r in readers], content_key, suite_of(header.suite)
        )
        commit, wraps, payload = done.commit, list(done.wraps), done.ciphertext
    digest = seal.envelope_digest(raw_header, commit, wraps, payload)
    envelope = pb.Envelope(header=raw_header, commit=commit, wraps=wraps, body=payload, signature=sign(digest))
    return envelope.SerializeToString(), content_key


def open_with_content_key(envelope: Envelope, content_key: bytes) -> Columns:
    """The columns, for whoever holds the content key (or for an unsealed segment, where it is ignored)."""
    return decode_body(open_body(envelope, content_key))


def open_body(envelope: Envelope, content_key: bytes) -> bytes:
    """The compressed body, likewise."""
    if not envelope.sealed:
        return envelope.body
    try:
        return seal.open_with_key(
            envelope.commit, envelope.body, envelope.header.raw, content_key, suite_of(envelope.header.suite)
        )
    except IntegrityError as error:
        raise PeerError("FN-6404", log=str(envelope.header.log), first=envelope.header.first) from error


def unwrap(envelope: Envelope, key_id: bytes, private: bytes) -> bytes | None:
    """The content key for one reader; None when the envelope is not for that reader. Raises PeerError FN-6404."""
    if key_id not in envelope.header.readers:
        return None
    wrap = envelope.wraps[envelope.header.readers.index(key_id)]
    try:
        return seal.unwrap(private, wrap, envelope.header.raw, suite_of(envelope.header.suite))
    except IntegrityError as error:
        raise PeerError("FN-6404", log=str(envelope.header.log), first=envelope.header.first) from error
