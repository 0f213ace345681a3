"""Backups: the bytes of their files. Sealed objects, an index that lists them, a manifest that the node signs.

    NNNNNNNNNN.manifest     a C2SP signed note: which backup of which store this is, the index's hash, certificates
    <sha256>.index          one line for each object: what it holds, size, SHA-256
    <sha256>.object         rows of log.db, or the small rest; sealed to the recovery key

Rules
1. A backup of a store is numbered from 1; each manifest names the hash of the one before. So an old manifest in a new
   one's place, a missing one, and one of another store show without any key.
2. A manifest carries the node's certificates: whoever pins the root knows that this node wrote it, with nothing else
   at hand.
3. An object is sealed under a fresh key to the recovery key alone. Its header (whose store, which arrival numbers) is
   bound into it: no object fits in another's place, or in another node's backup.
4. Files are named by what is in them; a manifest by its number, which is in it, too.
5. One form: what `parse` takes, `encode` gives back byte for byte. Limits hold before anything is unpacked.

>>> line = Entry(SEGMENTS, 1, 40, 7000, bytes(32), bytes(32))
>>> parse_index(encode_index([line])) == (line,)
True
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from fednode.crypto import canonical, certs, note, seal
from fednode.crypto.certs import DOMAIN_NAME, NODE_NAME, Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1, suite
from fednode.sync import packing
from fednode.sync.wire import NUMBER_MAX

VERSION = 1
MAGIC = b"FNBACKO1"
SEGMENTS, REST = "segments", "rest"
KINDS = (SEGMENTS, REST)
STORE_BYTES, KEY_ID_BYTES, HASH_BYTES = 16, 8, 32
HEADER_BYTES_MAX = 1024
OBJECT_BYTES_MAX = 20 * 1024 * 1024
INDEX_BYTES_MAX = 32 * 1024 * 1024
CERTIFICATES_MAX = 16
MANIFESTS_MAX = 9_999_999_999
_FIRST_LINE = "fednode backup v1"
_OVERHEAD = len(MAGIC) + 2 + seal.KEY_BYTES + seal.WRAP_BYTES
_HEX32, _HEX64 = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
_NUMBER = re.compile("0|[1-9][0-9]{0,18}")

Rows = Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one table. The columns are named, so that a later program can read them."""

    name: str
    columns: tuple[str, ...]
    rows: Rows


def broken(what: str, reason: str) -> IntegrityError:
    """Bytes of a backup that are not what they should be."""
    return IntegrityError("FN-6640", what=what, reason=reason)


# ---------------------------------------------------------------- objects


@dataclass(frozen=True, slots=True)
class Header:
    """What an object says of itself, in clear. `first`, `last`: the arrival numbers that it covers; of the rest: both
    the number of the part."""

    domain: str
    node: str
    store: bytes
    kind: str
    first: int
    last: int

    def encode(self) -> bytes:
        return canonical.dumps(
            {
                "v": VERSION,
                "suite": SUITE_1.number,
                "domain": self.domain,
                "node": self.node,
                "store": self.store.hex(),
                "kind": self.kind,
                "first": self.first,
                "last": self.last,
            }
        )


def seal_object(header: Header, tables: Iterable[Table], public: bytes, rng: Callable[[int], bytes]) -> bytes:
    """One object, sealed. `public`: the recovery key's raw public half."""
    rows = [[one.name, list(one.columns), [list(row) for row in one.rows]] for one in tables]
    raw = header.encode()
    reader = (SUITE_1.hash(public)[:KEY_ID_BYTES], public)
    done = seal.seal_body(packing.pack(msgspec.msgpack.encode(rows)), raw, [reader], rng(seal.KEY_BYTES), SUITE_1)
    return MAGIC + len(raw).to_bytes(2, "big") + raw + done.commit + done.wraps[0] + done.ciphertext


def open_object(data: bytes, private: bytes) -> tuple[Header, tuple[Table, ...]]:
    """What is in an object. Raises IntegrityError FN-6640 (no object, or altered), FN-6204 (another key), FN-6202
    (a suite that is not known here)."""
    if not data.startswith(MAGIC) or not _OVERHEAD < len(data) <= OBJECT_BYTES_MAX:
        raise broken("object", "form")
    start = len(MAGIC) + 2
    size = int.from_bytes(data[start - 2 : start], "big")
    raw, rest = data[start : start + size], data[start + size :]
    if size > HEADER_BYTES_MAX or len(rest) < seal.KEY_BYTES + seal.WRAP_BYTES:
        raise broken("object", "form")
    header, known = _header(raw)
    commit, wrap, ciphertext = (
        rest[: seal.KEY_BYTES],
        rest[seal.KEY_BYTES : seal.KEY_BYTES + seal.WRAP_BYTES],
        rest[seal.KEY_BYTES + seal.WRAP_BYTES :],
    )
    content_key = seal.unwrap(private, wrap, raw, known)
    body = seal.open_with_key(commit, ciphertext, raw, content_key, known)
    try:
        found = msgspec.msgpack.decode(packing.unpack(body), type=list[tuple[str, list[str], list[list[Any]]]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, FednodeError) as error:
        raise broken("object", "body") from error
    if any(len(row) != len(columns) for _, columns, rows in found for row in rows):
        raise broken("object", "columns")
    return header, tuple(Table(name, tuple(columns), rows) for name, columns, rows in found)


def _header(raw: bytes) -> tuple[Header, Any]:
    try:
        value = canonical.loads(raw)
    except IntegrityError as error:
        raise broken("object", "header") from error
    names = {"v": int, "suite": int, "domain": str, "node": str, "store": str, "kind": str, "first": int, "last": int}
    if not isinstance(value, dict) or {name: type(one) for name, one in value.items()} != names:
        raise broken("object", "header")
    if value["v"] != VERSION:
        raise broken("object", f"version {value['v']}")
    if not _HEX32.fullmatch(value["store"]) or value["kind"] not in KINDS:
        raise broken("object", "header")
    place = (value["domain"], value["node"], bytes.fromhex(value["store"]), value["kind"])
    return Header(*place, value["first"], value["last"]), suite(value["suite"])


# ---------------------------------------------------------------- the index


@dataclass(frozen=True, slots=True)
class Entry:
    """An object of a backup. `size`, `sha256`: of its file; `state`: of segments, how they stood (`state_of`): what
    was stripped or cosigned since has another; of the rest zeros."""

    kind: str
    first: int
    last: int
    size: int
    sha256: bytes
    state: bytes

    @property
    def file(self) -> str:
        return f"{self.sha256.hex()}.object"


def state_of(rows: Iterable[tuple[int, bytes, int | None, bytes | None]]) -> bytes:
    """How segments stand: (arrival number, SHA-256, first parent's time, content key as it lies in log.db) of each."""
    hasher = SUITE_1.hasher()
    for lsn, sha256, first_time, content_key in rows:
        stamped = NUMBER_MAX if first_time is None else first_time
        key = content_key or b""
        hasher.update(lsn.to_bytes(8, "big") + sha256 + stamped.to_bytes(8, "big") + len(key).to_bytes(2, "big") + key)
    return hasher.digest()


def encode_index(entries: Iterable[Entry]) -> bytes:
    """One line for each object."""
    return "".join(
        f"{one.kind} {one.first} {one.last} {one.size} {one.sha256.hex()} {one.state.hex()}\n" for one in entries
    ).encode()


def parse_index(data: bytes) -> tuple[Entry, ...]:
    """Raises IntegrityError FN-6640: not an index, or one whose arrival numbers or parts leave something out."""
    found = []
    try:
        for line in data.decode("ascii").split("\n")[:-1]:
            kind, first, last, size, sha256, state = line.split(" ")
            numbers = (first, last, size)
            if kind not in KINDS or not all(map(_NUMBER.fullmatch, numbers)):
                raise broken("index", "line")
            if not _HEX64.fullmatch(sha256) or not _HEX64.fullmatch(state):
                raise broken("index", "line")
            span = (int(first), int(last), int(size))
            found.append(Entry(kind, *span, bytes.fromhex(sha256), bytes.fromhex(state)))
    except ValueError as error:
        raise broken("index", "line") from error
    if encode_index(found) != data:
        raise broken("index", "form")
    _whole(found)
    return tuple(found)


def _whole(entries: Sequence[Entry]) -> None:
    upto, parts = 0, [one for one in entries if one.kind == REST]
    for one in entries:
        if one.kind == SEGMENTS:
            if one.first != upto + 1 or one.last < one.first:
                raise broken("index", "gap")
            upto = one.last
    if [(one.first, one.last) for one in parts] != [(part, part) for part in range(1, len(parts) + 1)]:
        raise broken("index", "parts")


# ---------------------------------------------------------------- the manifest


@dataclass(frozen=True, slots=True)
class Manifest:
    """One backup. `lsn`: the last arrival number in it; `key_id`: of the recovery key; `previous`: the SHA-256 of the
    manifest before it, b"" for the first; `index`, `index_size`: of the index; `chain`: certificates, own first, root
    last."""

    domain: str
    node: str
    incarnation: int
    store: bytes
    number: int
    made_ms: int
    lsn: int
    key_id: bytes
    previous: bytes
    index: bytes
    index_size: int
    chain: tuple[bytes, ...]

    @property
    def signer(self) -> str:
        return f"{self.domain}/{self.node}"

    @property
    def file(self) -> str:
        return manifest_file(self.number)

    @property
    def index_file(self) -> str:
        return f"{self.index.hex()}.index"

    def text(self) -> str:
        """The note's text: what is signed."""
        lines = [
            _FIRST_LINE,
            f"{self.domain}/{self.node}/{self.incarnation}",
            f"store {self.store.hex()}",
            f"number {self.number}",
            f"made_ms {self.made_ms}",
            f"lsn {self.lsn}",
            f"key {self.key_id.hex()}",
            f"previous {self.previous.hex() or '-'}",
            f"index {self.index.hex()} {self.index_size}",
            *(f"certificate {base64.b64encode(der).decode()}" for der in self.chain),
        ]
        return "".join(f"{line}\n" for line in lines)

    def sign(self, public: bytes, sign: Callable[[bytes], bytes]) -> bytes:
        """The file: a signed note."""
        text = self.text()
        line = note.Line(self.signer, note.key_id(self.signer, note.ED25519, public), sign(text.encode()))
        return note.Note(text, (line,)).format().encode()


def manifest_file(number: int) -> str:
    """The name of a manifest's file."""
    return f"{number:010d}.manifest"


_MANIFEST = re.compile(
    _FIRST_LINE + "\n(?P<domain>[^/\n]+)/(?P<node>[^/\n]+)/(?P<incarnation>[0-9]+)\nstore (?P<store>[0-9a-f]{32})\n"
    "number (?P<number>[0-9]+)\nmade_ms (?P<made_ms>[0-9]+)\nlsn (?P<lsn>[0-9]+)\nkey (?P<key>[0-9a-f]{16})\n"
    "previous (?P<previous>-|[0-9a-f]{64})\nindex (?P<index>[0-9a-f]{64}) (?P<size>[0-9]+)\n"
    "(?P<chain>(?:certificate [A-Za-z0-9+/=]+\n)+)"
)


def parse_manifest(data: bytes, root_sha256: bytes) -> tuple[Manifest, Identity]:
    """A manifest that holds: its form, the chain up to the pinned root, the node's signature. And who signed it. Raises
    IntegrityError FN-6640 (its form), FN-6641 (not by that node, or not of this trust domain)."""
    try:
        parsed = note.parse(data.decode())
    except (UnicodeDecodeError, IntegrityError) as error:
        raise broken("manifest", "form") from error
    match = _MANIFEST.fullmatch(parsed.text)
    if match is None or match["chain"].count("\n") > CERTIFICATES_MAX:
        raise broken("manifest", "form")
    numbers = [match[name] for name in ("incarnation", "number", "made_ms", "lsn", "size")]
    if not all(_NUMBER.fullmatch(one) and int(one) <= NUMBER_MAX for one in numbers):
        raise broken("manifest", "number")
    incarnation, number, made_ms, lsn, size = map(int, numbers)
    previous = "" if match["previous"] == "-" else match["previous"]
    hashes = (bytes.fromhex(match["key"]), bytes.fromhex(previous), bytes.fromhex(match["index"]))
    found = Manifest(
        *(match["domain"], match["node"], incarnation, bytes.fromhex(match["store"]), number, made_ms, lsn),
        *(*hashes, size, _chain(match["chain"])),
    )
    if found.text() != parsed.text or not 1 <= number <= MANIFESTS_MAX or size > INDEX_BYTES_MAX:
        raise broken("manifest", "form")
    if not DOMAIN_NAME.fullmatch(found.domain) or not NODE_NAME.fullmatch(found.node):
        raise broken("manifest", "name")
    return found, _signed(found, parsed, root_sha256)


def _chain(lines: str) -> tuple[bytes, ...]:
    try:
        return tuple(
            base64.b64decode(line.removeprefix("certificate "), validate=True) for line in lines.split("\n")[:-1]
        )
    except binascii.Error as error:
        raise broken("manifest", "certificate") from error


def _signed(found: Manifest, parsed: note.Note, root_sha256: bytes) -> Identity:
    """By what time the certificates held is no question here: what was true when it was made stays so."""
    try:
        me = certs.check_chain(found.chain, root_sha256)[0]
        note.verify(parsed, found.signer, me.sign_key)
    except IntegrityError as error:
        raise IntegrityError("FN-6641", node=found.node, reason=error.code) from error
    if (me.domain, me.node, me.incarnation) != (found.domain, found.node, found.incarnation):
        raise IntegrityError("FN-6641", node=found.node, reason=me.node)
    return me


def fingerprint(data: bytes) -> bytes:
    """What names a manifest: the hash of its file."""
    return SUITE_1.hash(data)


# ---------------------------------------------------------------- the recovery key

KEY_PREFIX = "fnrecover1."
CHECK_BYTES = 4


def encode_key(public: bytes) -> str:
    """The public half as it stands in the settings: with a checksum against typing errors."""
    return KEY_PREFIX + base64.urlsafe_b64encode(public + _check(public)).decode().rstrip("=")


def decode_key(text: str) -> bytes:
    """The raw public key. Raises ValueError for any other text, and for a key that must not be used."""
    encoded = text.removeprefix(KEY_PREFIX)
    data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    public = data[:-CHECK_BYTES]
    if len(public) != HASH_BYTES or encode_key(public) != text:
        raise ValueError(text)
    try:
        SUITE_1.check_seal_public(public)
    except IntegrityError as error:
        raise ValueError(text) from error
    return public


def _check(public: bytes) -> bytes:
    return SUITE_1.hash(b"fednode recovery key v1\n" + public)[:CHECK_BYTES]
