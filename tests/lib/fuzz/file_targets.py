"""Targets in `fednode.sync` that are files: bundles, backups, grants, proofs. Rule 1 of `crypto_targets`.

>>> [one.name for one in TARGETS][:3]
['volume', 'volume-manifest', 'volume-inside']
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from io import BytesIO

from fednode.crypto import canonical, note, seal, tlogproof
from fednode.crypto.certs import IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import proof_words
from fednode.node.backup import keyfile
from fednode.node.receipt import moment
from fednode.sync import backup, grant, packing, proof_code, proof_file
from fednode.sync import segment as seg
from fednode.sync import volume as vol
from fednode.sync.backup import Entry, Header, Table
from fednode.sync.change import Change
from fuzz.crypto_targets import KEYS, SYNC_VECTORS, world
from fuzz.sync_targets import vector
from fuzz.target import PROTOBUF, TEXT, Target, codes, law
from proofs import TITLES, VILLAGE, made
from world import NOW_S, Stream, seed

COUNTY = "130102"

# ---------------------------------------------------------------- bundles


def _volume(data: bytes) -> None:
    volume = vol.Volume(BytesIO(data).read)
    manifest = volume.skip()
    law(volume.sum.size <= len(data), "the size of a volume")
    if manifest is not None:
        law(len(manifest.fingerprint) == 24, "a fingerprint")


def _opened(data: bytes) -> None:
    """A volume whose content key is known."""
    volume = vol.Volume(BytesIO(data).read)
    for frame in volume.open(bytes(32)):
        law(len(frame) <= vol.wire.FRAME_BYTES_MAX, "a frame's size")


@cache
def _volumes() -> tuple[bytes, ...]:
    header = vol.Header("hebei", COUNTY, 1, "1301", bytes(16), NOW_S * 1000, KEYS.seal.key_id)
    found = []
    for frames in ((b"opening", b"", b"x" * 70), (b"opening",)):
        pieces = vol.pack(frames, header, KEYS.seal.public, KEYS.sign.sign, lambda size: bytes(size), 1 << 20)
        found.append(b"".join(data for _, data in pieces))
    found += [bytes.fromhex(one["file"]) for one in vector("bundle.json")["volumes"]]
    return tuple(one for one in found if len(one) < 4000)


def _manifest(data: bytes) -> None:
    found = vol.parse_manifest(data)
    law(len(found.fingerprint) == 24, "a fingerprint")
    try:
        found.check(KEYS.sign.public)
    except IntegrityError as error:
        law(error.code == "FN-6502", str(error))


@cache
def _manifests() -> tuple[bytes, ...]:
    found = []
    for data in _volumes():
        volume = vol.Volume(BytesIO(data).read)
        manifest = volume.skip()
        if manifest is not None:
            found.append(data[volume.sum.size + 8 :])
    return tuple(found)


# ---------------------------------------------------------------- backups


def _index(data: bytes) -> None:
    law(backup.encode_index(backup.parse_index(data)) == data, "an index has one form")


def _indexes() -> Iterator[bytes]:
    yield backup.encode_index(
        [
            Entry(backup.SEGMENTS, 1, 30, 7000, seed("a"), seed("b")),
            Entry(backup.SEGMENTS, 31, 40, 900, seed("c"), seed("d")),
            Entry(backup.REST, 1, 1, 1234, seed("e"), bytes(32)),
        ]
    )


def _backup(data: bytes) -> None:
    found, _ = backup.parse_manifest(data, world().root_sha256)
    law(found.made_ms <= backup.NUMBER_MAX and found.lsn <= backup.NUMBER_MAX, "numbers fit a store")


def _backup_inside(data: bytes) -> None:
    """A manifest that the county has signed, whatever it says."""
    county = world().places[COUNTY]
    text = data.decode("utf-8", "surrogateescape")
    name, public = f"hebei/{COUNTY}", county.keys.sign.public
    line = note.Line(name, note.key_id(name, note.ED25519, public), county.keys.sign.sign(data))
    _backup((text + "\n" + line.format()).encode("utf-8", "surrogateescape"))


@cache
def _backups() -> tuple[bytes, ...]:
    chain = world().directory().chain(COUNTY)
    one = backup.Manifest(
        *("hebei", COUNTY, 1, bytes(16), 2, NOW_S * 1000, 40, KEYS.seal.key_id, seed("previous"), seed("index"), 700),
        chain,
    )
    county = world().places[COUNTY].keys.sign
    return one.sign(county.public, county.sign), one.text().encode()


def _object(data: bytes) -> None:
    header, tables = backup.open_object(data, KEYS.seal.private)
    law(header.encode() == data[10 : 10 + int.from_bytes(data[8:10], "big")], "a header has one form")
    law(all(len(row) == len(one.columns) for one in tables for row in one.rows), "rows")


def _object_inside(body: bytes) -> None:
    """Whatever an object may hold, sealed as it should be."""
    raw = _header().encode()
    reader = (KEYS.seal.key_id, KEYS.seal.public)
    done = seal.seal_body(packing.pack(body), raw, [reader], bytes(32), SUITE_1)
    _object(backup.MAGIC + len(raw).to_bytes(2, "big") + raw + done.commit + done.wraps[0] + done.ciphertext)


def _header() -> Header:
    return Header("hebei", COUNTY, bytes(16), backup.SEGMENTS, 1, 2)


def _object_header(raw: bytes) -> None:
    """Any header, sealed as it should be."""
    reader = (KEYS.seal.key_id, KEYS.seal.public)
    done = seal.seal_body(packing.pack(b"\x90"), raw, [reader], bytes(32), SUITE_1)
    _object(backup.MAGIC + len(raw).to_bytes(2, "big") + raw + done.commit + done.wraps[0] + done.ciphertext)


TABLES = (
    Table("segment", ("lsn", "data", "first_time"), [[1, b"\x00\xff", None], [2, b"", NOW_S]]),
    Table("meta", ("key", "value"), [["石", 1.5], ["b", True]]),
)


@cache
def _objects() -> tuple[bytes, ...]:
    return (backup.seal_object(_header(), TABLES, KEYS.seal.public, Stream("object")),)


def _object_bodies() -> Iterator[bytes]:
    rows = [[one.name, list(one.columns), [list(row) for row in one.rows]] for one in TABLES]
    yield backup.msgspec.msgpack.encode(rows)


def _recovery_key(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    law(backup.encode_key(backup.decode_key(text)) == text, "a recovery key has one form")


def _recovery_keys() -> Iterator[bytes]:
    yield backup.encode_key(KEYS.seal.public).encode()


def _key_file(data: bytes) -> None:
    found = keyfile.parse(data, None)
    law(keyfile.parse(found.to_file(None), None) == found, "a recovery key comes back")


def _key_files() -> Iterator[bytes]:
    yield keyfile.RecoveryKey(KEYS.seal, "hebei", bytes(32)).to_file(None)


# ---------------------------------------------------------------- grants


def _grant(data: bytes) -> None:
    head, sealed = grant.read(data)
    for one in (head.made_s, head.valid_to_s):
        grant_time(one)
    law(grant.unlock(head, sealed, KEYS.seal, bytes(16)) == b"a certificate", "what a grant opens to")


def grant_time(seconds: int) -> str:
    """As `promote` shows it."""
    from fednode.crypto.certs import iso

    return iso(seconds)


@cache
def _grants() -> tuple[bytes, ...]:
    head = grant.Head("hebei", COUNTY, 2, "130102-s1", "1301", NOW_S, NOW_S + 9999, KEYS.seal.key_id)
    made_ = grant.lock(head, b"a certificate", KEYS.seal.public, bytes(16), Stream("grant"))
    return made_, (SYNC_VECTORS / "grant-1.txt").read_bytes()


def _grant_code(data: bytes) -> None:
    secret = grant.secret_of(data.decode("utf-8", "surrogateescape"))
    law(grant.secret_of(grant.code_of(secret)) == secret, "a code comes back")


def _grant_codes() -> Iterator[bytes]:
    yield from (grant.code_of(bytes(range(n, n + 16))).encode() for n in (0, 7, 200))


# ---------------------------------------------------------------- proofs


def _proof(data: bytes) -> None:
    checked = proof_file.check(data, world().root_der)
    _read_out(checked)
    proof_code.reference(data, checked)


def _read_out(checked: proof_file.Checked) -> None:
    """As `audit check` and a receipt do."""
    for lang in ("en", "zh"):
        for title, value in proof_words.fields_of(checked, lang):
            (title + value).encode()
    moment(checked.made_ms // 1000), moment(checked.written_ms // 1000)


def proof_of(payload: bytes) -> bytes:
    """A proof of whatever a village has signed as a record: text, or it would not be in the file."""
    own = world().segment(VILLAGE, [Change(b"k", payload)], readers=())
    columns = own.columns
    leaf = proof_file.Leaf.of(b"k", columns.hlcs[0], 1, 1, seg.salt_of(columns, 0), payload)
    head = proof_file.Checkpoint(str(own.after.name), 1, own.after.root)
    village = world().places[VILLAGE]
    signed = proof_file.Head(head, proof_file.checkpoint.signature(head, village.keys.sign))
    return proof_file.compose(
        *(leaf, 0, (), signed, TITLES, village.chain[:-1], world().root_sha256, village.identity),
        *(village.keys.sign.sign, NOW_S * 1000),
    )


def _records() -> Iterator[bytes]:
    yield b'{"name":"a","area":["1",{"b":-1.5}]}'


@cache
def _proofs() -> tuple[bytes, ...]:
    return made(world()), made(world(), audience="130102001001", witnesses=())


def _proof_inside(extra: bytes) -> None:
    """Anything in the extra of a file that is right otherwise, signed by its maker where it can be."""
    file = tlogproof.parse(_proofs()[0])
    try:
        document = canonical.loads(extra)
        if isinstance(document, dict) and "signature" in document:
            signed = b"fednode proof v1\n" + canonical.dumps({**document, "signature": ""})
            signature = world().places[COUNTY].keys.sign.sign(signed)
            extra = canonical.dumps({**document, "signature": proof_file._text(signature)})
    except IntegrityError:
        pass
    if extra:
        _proof(tlogproof.TlogProof(file.index, file.hashes, file.checkpoint, extra).format().encode())


def _proof_code(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = proof_code.from_code(text)
    law(tlogproof.parse(found).format().encode() == found, "what a code holds")


def _proof_code_inside(body: bytes) -> None:
    """A code that is packed as it should be."""
    kind = (proof_code.PREFIX, proof_code.PREFIX_2)[len(body) % 2]
    _proof_code((kind + proof_code.base45_encode(proof_code.zlib.compress(body))).encode())


@cache
def _proof_codes() -> tuple[bytes, ...]:
    small = note.Note("hebei/13/1/x\n1\n" + "A" * 43 + "=\n", (note.Line("hebei/13", b"\0\0\0\1", b"s" * 64),))
    files = (*_proofs(), tlogproof.TlogProof(0, (bytes(32),), small, b"").format().encode())
    found = [proof_code.to_code(one) for one in files]
    return tuple(one.encode() for one in found if one is not None)


@cache
def _proof_code_bodies() -> tuple[bytes, ...]:
    texts = (one.decode().partition(":") for one in _proof_codes())
    found = [(kind, proof_code.zlib.decompress(proof_code.base45_decode(coded))) for kind, _, coded in texts]
    # `_proof_code_inside` reads the kind off the length
    return tuple(body + b"\n" * (len(body) % 2 != (kind == "FNP2")) for kind, body in found)


def _to_code(data: bytes) -> None:
    code = proof_code.to_code(data)
    law(code is None or proof_code.from_code(code) == data, "a code comes back")


PROOF = codes("6220 6221 6222 6223 6224 6225 6226 6227 6228 6229 6230 6231 6232 6233 6101 6102 6205 6208")
VOLUME = codes("6501 5524 6202")
TARGETS = (
    Target("volume", _volume, VOLUME, _volumes, bytes_max=8192),
    Target("volume-manifest", _manifest, codes("6501 5524"), _manifests, PROTOBUF),
    Target("volume-inside", _opened, VOLUME | codes("6204"), _volumes),
    Target("backup-index", _index, codes("6640"), _indexes, TEXT),
    Target("backup", _backup, codes("6640 6641"), _backups, TEXT, bytes_max=8192),
    Target("backup-inside", _backup_inside, codes("6640 6641"), lambda: _backups()[1:], TEXT, bytes_max=8192),
    Target("object", _object, codes("6640 6204 6202"), _objects),
    Target("object-inside", _object_inside, codes("6640 6204 6202"), _object_bodies),
    Target("object-header", _object_header, codes("6640 6204 6202"), lambda: [_header().encode()], TEXT),
    Target("recovery-key", _recovery_key, codes(""), _recovery_keys, TEXT, (ValueError,)),
    Target("recovery-key-file", _key_file, codes("2743 7615"), _key_files, TEXT),
    Target("grant", _grant, codes("3121 3122 6204"), _grants, TEXT),
    Target("grant-code", _grant_code, codes("3120"), _grant_codes, TEXT),
    Target("proof", _proof, PROOF, _proofs, TEXT, bytes_max=16384),
    Target("proof-inside", _proof_inside, PROOF, lambda: [tlogproof.parse(one).extra for one in _proofs()], TEXT,
           bytes_max=16384),
    Target("proof-record", lambda data: _proof(proof_of(data.decode().encode())), PROOF, _records, TEXT,
           (UnicodeDecodeError,)),
    Target("proof-code", _proof_code, codes("6221"), _proof_codes, TEXT, bytes_max=5000),
    Target("proof-code-inside", _proof_code_inside, codes("6221"), _proof_code_bodies, bytes_max=8192),
    Target("to-code", _to_code, codes("6220 6221 6208"), _proofs, TEXT, bytes_max=16384),
)  # fmt: skip
