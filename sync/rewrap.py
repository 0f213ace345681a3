"""Rewrap: the content key of a sealed segment for a reader to whom it was not sealed: one that joined later, or whose
keys are new because the old ones were lost.

Rules
1. The segment's bytes stay as they are, and with them every signature and proof. A rewrap stands beside them: the
   content key, HPKE-wrapped to the reader's key in force, bound to the SHA-256 of those very bytes, signed by the
   giver.
2. Who may be given a key is who the origin would have sealed to, had it known: by the catalog in force the nodes from
   the root down to the log's area at a level that reads, and the origin itself, which are not revoked (`readers_of`).
   A catalog that lets more levels read opens nothing that was written before: the level must read by the catalog that
   the changes were written under, too (`open_with`).
3. One reader gives: of those to whose key in force the segment was sealed the nearest above the one who lacks it, else
   the nearest below; where it was sealed to none of them, the nearest of all (`giver_of`): whoever took another's place
   may lack it, too. Others that may read are believed as well (they could give it away by any means); who may not
   read, and who is revoked, is not.
4. A rewrap cannot make anybody read anything else: the envelope commits to its key, the sealer has signed the envelope.
   So a false one is refused, and harms nobody.
5. A segment that was stripped and sealed again has other bytes and another key: no rewrap of the old ones fits.

The bytes (version 1, integers big-endian; kept and passed on as they came):

    body      = 0x01 || suite:u8 || len(log):u16 || log || first:u64 || sha256[32] || len(node):u8 || node || key id[8]
                || len(wrap):u16 || wrap || len(giver):u8 || giver             giver: <node>/<incarnation>
    rewrap    = body || signature[64]       Ed25519(giver, "fednode rewrap v1\\n" || body)

>>> raw = encode("hebei/13/1/a", 7, bytes(32), "1301", bytes(8), bytes(80), "13/1", lambda signed: bytes(64))
>>> (found := parse(raw)).log.dataset, found.first, found.giver, found.raw == raw
('a', 7, '13/1', True)
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from fednode.crypto import seal
from fednode.crypto.certs import Identity
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import suite as suite_of
from fednode.sync import segment as seg
from fednode.sync.catalog import Dataset
from fednode.sync.change import LOG_SIZE_MAX, Columns, LogName
from fednode.sync.errors import PeerError
from fednode.sync.identity import Directory
from fednode.sync.segment import HASH_BYTES, Envelope

VERSION = 1
REWRAP_BYTES_MAX = 1024
KEY_ID_BYTES, SIGNATURE_BYTES = 8, 64
_SIGNED = b"fednode rewrap v1\n"


@dataclass(frozen=True, slots=True)
class Rewrap:
    """A parsed, not yet verified rewrap. `sha256`: of the envelope; `node`, `key_id`: for whom; `raw`: the very
    bytes."""

    suite: int
    log: LogName
    first: int
    sha256: bytes
    node: str
    key_id: bytes
    wrap: bytes
    giver: str
    raw: bytes


# ---------------------------------------------------------------- bytes


def encode(
    log: str,
    first: int,
    sha256: bytes,
    node: str,
    key_id: bytes,
    wrap: bytes,
    giver: str,
    sign: Callable[[bytes], bytes],
    suite: int = 1,
) -> bytes:
    """The bytes of a rewrap. `sign` signs with the giver's Ed25519 key."""
    name, reader, by = log.encode(), node.encode(), giver.encode()
    body = b"".join(
        (
            bytes((VERSION, suite)),
            len(name).to_bytes(2, "big") + name + first.to_bytes(8, "big") + sha256,
            bytes((len(reader),)) + reader + key_id,
            len(wrap).to_bytes(2, "big") + wrap,
            bytes((len(by),)) + by,
        )
    )
    return body + sign(_SIGNED + body)


def is_rewrap(raw: bytes) -> bool:
    """Whether bytes of a feed are a rewrap: no protobuf message, and so no envelope, begins with this byte."""
    return raw[:1] == bytes((VERSION,))


def parse(raw: bytes) -> Rewrap:
    """Bytes from outside. Raises PeerError FN-6402 (no rewrap), FN-6403 (version), FN-6410 (no log's name)."""
    if not SIGNATURE_BYTES < len(raw) <= REWRAP_BYTES_MAX:
        raise PeerError("FN-6402", reason="rewrap")
    if raw[0] != VERSION:
        raise PeerError("FN-6403", version=f"rewrap {raw[0]}")
    at = 2

    def take(size: int) -> bytes:
        nonlocal at
        at += size
        if at > len(raw) - SIGNATURE_BYTES:
            raise PeerError("FN-6402", reason="rewrap")
        return raw[at - size : at]

    def sized(width: int) -> bytes:
        return take(int.from_bytes(take(width), "big"))

    try:
        log, first, sha256 = sized(2).decode(), int.from_bytes(take(8), "big"), take(HASH_BYTES)
        node, key_id, wrap, giver = sized(1).decode(), take(KEY_ID_BYTES), sized(2), sized(1).decode()
    except UnicodeDecodeError as error:
        raise PeerError("FN-6402", reason="rewrap") from error
    if at != len(raw) - SIGNATURE_BYTES or first >= LOG_SIZE_MAX:
        raise PeerError("FN-6402", reason="rewrap")
    return Rewrap(raw[1], LogName.parse(log), first, sha256, node, key_id, wrap, giver, raw)


# ---------------------------------------------------------------- who


def readers_of(name: LogName, dataset: Dataset, directory: Directory) -> list[Identity]:
    """Who may read a log now, from the root down, each with its standbys (rule 2); not one that has succeeded it, whose
    keys are its own now."""
    origin = directory.get(name.origin)
    area = name.audience or (origin.scope[0] if origin else "")
    target = directory.node_covering(area) if area else None
    path = directory.path(target.node if target else name.origin)
    if origin is not None and origin.node not in [one.node for one in path]:
        path = [*path, origin]
    reading = [one for one in path if one.level in dataset.readers or one.node == name.origin]
    good = [one for one in reading if not directory.is_revoked(one.node)]
    standbys = {one.node: directory.standbys_of(one.node) for one in good}
    return [two for one in good for two in (one, *(s for s in standbys[one.node] if s.seal_key != one.seal_key))]


def givers_of(node: str, readers: list[Identity], directory: Directory) -> list[Identity]:
    """Who could give a reader what it lacks, the first to be asked first (rule 3)."""
    above = {one.node for one in directory.path(node)[:-1]}
    over = [one for one in readers if one.node in above]
    under = [one for one in readers if node in [step.node for step in directory.path(one.node)[:-1]]]
    return over[::-1] + under


def giver_of(givers: Sequence[Identity], sealed_to: Collection[bytes]) -> Identity | None:
    """Who of `givers_of` gives of a segment that was sealed to keys with these ids; None where nobody is left."""
    reads = (one for one in givers if suite_of(1).hash(one.seal_key)[:KEY_ID_BYTES] in sealed_to)
    return next(reads, givers[0] if givers else None)


def give(
    envelope: Envelope,
    sha256: bytes,
    content_key: bytes,
    reader: Identity,
    me: Identity,
    sign: Callable[[bytes], bytes],
) -> bytes:
    """The rewrap of a segment for a reader; that it may have it was found before."""
    header = envelope.header
    suite = suite_of(header.suite)
    wrap = seal.rewrap(reader.seal_key, sha256, content_key, suite)
    key_id = suite.hash(reader.seal_key)[:KEY_ID_BYTES]
    giver = f"{me.node}/{me.incarnation}"
    return encode(str(header.log), header.first, sha256, reader.node, key_id, wrap, giver, sign, header.suite)


class Renamed(PeerError):
    """A good rewrap for a standby that has taken its primary's name since: it is given the keys under that."""


def check(found: Rewrap, directory: Directory, dataset_of: Callable[[str], Dataset | None]) -> Identity:
    """All that can be said without the segment: the giver is known, in force and may read the log; its signature holds;
    the reader may have the key, and it is wrapped to its key in force. Returns the reader. Raises PeerError FN-5440
    (who gives), FN-5441 (who is given), FN-5443 (the giver, or that key, was in force once; under another name:
    `Renamed`), FN-6406 (signature), FN-6403 (suite)."""
    name = found.log
    dataset = dataset_of(name.dataset)
    readers = readers_of(name, dataset, directory) if dataset is not None and not name.is_open else []
    node, _, incarnation = found.giver.rpartition("/")
    giver = next((one for one in readers if one.node == node and str(one.incarnation) == incarnation), None)
    if giver is None or name.domain != directory.domain:
        lived = giver is None and incarnation in [str(one.incarnation) for one in directory.lives(node)]
        was = lived and (directory.is_revoked(node) or node in [one.node for one in readers])
        raise PeerError("FN-5443" if was else "FN-5440", giver=found.giver, log=str(name), node=found.node)
    try:
        suite = suite_of(found.suite)
    except IntegrityError as error:
        raise PeerError("FN-6403", version=f"suite {found.suite}") from error
    try:
        suite.verify(giver.sign_key, _SIGNED + found.raw[:-SIGNATURE_BYTES], found.raw[-SIGNATURE_BYTES:])
    except IntegrityError as error:
        raise PeerError("FN-6406", log=str(name), first=found.first) from error
    reader = next((one for one in readers if one.node == found.node), None)
    if reader is None:  # a standby that succeeded its primary has its keys under another name now: no cause for alarm
        succeeded = found.key_id in [suite.hash(one.seal_key)[:KEY_ID_BYTES] for one in readers]
        told = {"giver": found.giver, "log": str(name), "node": found.node}
        raise Renamed("FN-5443", **told) if succeeded else PeerError("FN-5441", **told)
    if suite.hash(reader.seal_key)[:KEY_ID_BYTES] != found.key_id:
        raise PeerError("FN-5443", giver=found.giver, log=str(name), node=found.node)
    return reader


def open_with(
    found: Rewrap, envelope: Envelope, private: bytes, may_read: Callable[[int], bool]
) -> tuple[bytes, Columns]:
    """The content key and what it opens, for the reader. `may_read`: whether this node might read by a version of the
    catalog (rule 2). Raises PeerError FN-6404 (not this segment's key), FN-6409 (other changes than the header says),
    FN-5441."""
    header = envelope.header
    try:
        content_key = seal.unwrap_again(private, found.wrap, found.sha256, suite_of(found.suite))
    except IntegrityError as error:
        raise PeerError("FN-6404", log=str(found.log), first=found.first) from error
    columns = seg.open_with_content_key(envelope, content_key)
    if (len(columns), len(columns.leaves), columns.hlcs[-1]) != (header.count, header.stripped, header.last_hlc):
        raise PeerError("FN-6409", log=str(found.log), first=found.first)
    if not may_read(columns.schema_version):
        raise PeerError("FN-5441", giver=found.giver, log=str(found.log), node=found.node)
    return content_key, columns
