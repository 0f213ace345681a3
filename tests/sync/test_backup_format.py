"""Backups as bytes: golden vectors, another reader that knows docs/formats.md alone, and whatever else a file may
hold."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from cryptography.hazmat.primitives.hpke import Suite as Hpke
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import seal
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.keys import SealKey
from fednode.crypto.suite import SUITE_1
from fednode.sync import backup as fmt
from fednode.sync.backup import Entry, Header, Manifest, Table
from world import NOW_S, Stream, World, keys_of, seed

VECTORS = Path(__file__).parent / "vectors"
NODE = "130102"
KEY = SealKey.from_seed(seed("recovery key"))
STORE = seed("store")[:16]
HEADER = Header("hebei", NODE, STORE, fmt.SEGMENTS, 1, 2)
TABLES = [
    Table("segment", ("lsn", "data", "first_time"), [[1, b"\x00\xff", None], [2, b"", NOW_S]]),
    Table("meta", ("key", "value"), [["石", 1.5], ["b", True]]),
]


def manifest(chain: tuple[bytes, ...], **changed: Any) -> Manifest:
    index = fmt.encode_index(entries())
    given: dict[str, Any] = {
        "domain": "hebei",
        "node": NODE,
        "incarnation": 1,
        "store": STORE,
        "number": 2,
        "made_ms": NOW_S * 1000,
        "lsn": 40,
        "key_id": KEY.key_id,
        "previous": seed("previous"),
        "index": SUITE_1.hash(index),
        "index_size": len(index),
        "chain": chain,
    }
    return Manifest(**{**given, **changed})


def entries() -> list[Entry]:
    return [
        Entry(fmt.SEGMENTS, 1, 30, 7000, seed("a"), seed("b")),
        Entry(fmt.SEGMENTS, 31, 40, 900, seed("c"), seed("d")),
        Entry(fmt.REST, 1, 1, 1234, seed("e"), bytes(32)),
    ]


def chain_of(world: World, node: str = NODE) -> tuple[bytes, ...]:
    return world.directory().chain(node)


def signed(one: Manifest, world: World, node: str = NODE) -> bytes:
    sign = world.keys(node).sign
    return one.sign(sign.public, sign.sign)


def vector() -> dict[str, Any]:
    """Wraps and certificates are randomised, so that they are recorded; all else is made again by the test."""
    world = World()
    one = manifest(chain_of(world))
    return {
        "recovery_private": KEY.private.hex(),
        "recovery_text": fmt.encode_key(KEY.public),
        "header": HEADER.encode().decode(),
        "object": fmt.seal_object(HEADER, TABLES, KEY.public, Stream("object")).hex(),
        "index": fmt.encode_index(entries()).decode(),
        "sign_seed": world.keys(NODE).sign.private.hex(),
        "root_sha256": SUITE_1.hash(world.root_der).hex(),
        "manifest": signed(one, world).decode(),
        "state": fmt.state_of([(7, seed("s"), None, None), (8, seed("t"), NOW_S, b"key")]).hex(),
    }


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((VECTORS / "backup.json").read_text("utf-8"))
    return found


# ---------------------------------------------------------------- golden


def test_what_was_written_once_is_read_for_ever(golden: dict[str, Any]) -> None:
    header, tables = fmt.open_object(bytes.fromhex(golden["object"]), bytes.fromhex(golden["recovery_private"]))
    assert (header, header.encode().decode()) == (HEADER, golden["header"])
    assert [(one.name, one.columns, [list(row) for row in one.rows]) for one in tables] == [
        (one.name, one.columns, list(one.rows)) for one in TABLES
    ]
    assert list(fmt.parse_index(golden["index"].encode())) == entries()
    raw = golden["manifest"].encode()
    found, signer = fmt.parse_manifest(raw, bytes.fromhex(golden["root_sha256"]))
    assert found == manifest(found.chain)
    assert signer.node == NODE
    key = keys_of(f"hebei/{NODE}").sign
    assert key.private.hex() == golden["sign_seed"]
    assert found.sign(key.public, key.sign) == raw
    assert golden["recovery_text"] == fmt.encode_key(KEY.public)
    assert fmt.decode_key(golden["recovery_text"]) == KEY.public
    again = fmt.state_of([(7, seed("s"), None, None), (8, seed("t"), NOW_S, b"key")])
    assert again.hex() == golden["state"]


def test_another_reader_of_the_page_opens_the_same(golden: dict[str, Any]) -> None:
    """Nothing of ours: docs/formats.md, `cryptography`, zstandard, msgpack."""
    data, private = bytes.fromhex(golden["object"]), bytes.fromhex(golden["recovery_private"])
    assert data[:8] == b"FNBACKO1"
    size = int.from_bytes(data[8:10], "big")
    header, rest = data[10 : 10 + size], data[10 + size :]
    commit, wrap, ciphertext = rest[:32], rest[32:112], rest[112:]
    hashed = hashlib.sha256(header).digest()
    reader = X25519PrivateKey.from_private_bytes(private)
    key_id = hashlib.sha256(reader.public_key().public_bytes_raw()).digest()[:8]
    hpke = Hpke(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
    content_key = hpke.decrypt(wrap, reader, b"fednode wrap v1\n" + key_id + hashed)
    assert hmac.digest(content_key, b"fednode commit v1\n" + hashed, "sha256") == commit
    key = hmac.digest(content_key, b"fednode content v1\n" + hashed, "sha256")
    packed = AESGCM(key).decrypt(bytes(12), ciphertext, hashed + commit)
    tables = msgspec.msgpack.decode(zstandard.ZstdDecompressor().decompress(packed))
    assert [table[0] for table in tables] == ["segment", "meta"]
    assert tables[0][2] == [[1, b"\x00\xff", None], [2, b"", NOW_S]]
    text, _, lines = golden["manifest"].rpartition("\n\n")
    signature = base64.b64decode(lines.split(" ")[2])[4:]
    public = keys_of(f"hebei/{NODE}").sign.public
    Ed25519PublicKey.from_public_bytes(public).verify(signature, text.encode() + b"\n")
    assert text.split("\n")[8] == f"index {hashlib.sha256(golden['index'].encode()).hexdigest()} {len(golden['index'])}"


# ---------------------------------------------------------------- altered


@given(st.data())
def test_no_altered_object_opens(data: st.DataObject) -> None:
    whole = fmt.seal_object(HEADER, TABLES, KEY.public, Stream("altered"))
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    altered = bytearray(whole)
    altered[at] ^= bit
    with pytest.raises(FednodeError):
        fmt.open_object(bytes(altered), KEY.private)


@given(st.integers(0, 10_000), st.binary(max_size=40))
def test_no_cut_or_longer_object_opens(cut: int, more: bytes) -> None:
    whole = fmt.seal_object(HEADER, TABLES, KEY.public, Stream("cut"))
    for one in (whole[: cut % len(whole)], whole + b"\0" + more, more):
        with pytest.raises(FednodeError):
            fmt.open_object(one, KEY.private)


def test_an_object_opens_for_its_key_alone() -> None:
    whole = fmt.seal_object(HEADER, TABLES, KEY.public, Stream("key"))
    with pytest.raises(IntegrityError, match="FN-6204"):
        fmt.open_object(whole, SealKey.from_seed(seed("another")).private)
    assert b"segment" not in whole.replace(HEADER.encode(), b"")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@settings(deadline=None)
@given(data=st.data())
def test_no_altered_manifest_holds(world: World, data: st.DataObject) -> None:
    root = SUITE_1.hash(world.root_der)
    whole = signed(manifest(chain_of(world)), world)
    at = data.draw(st.integers(0, len(whole) - 1))
    altered = whole[:at] + bytes((data.draw(st.integers(0, 255)),)) + whole[at + 1 :]
    if altered != whole:
        with pytest.raises(IntegrityError):
            fmt.parse_manifest(altered, root)
    with pytest.raises(IntegrityError):
        fmt.parse_manifest(whole[:at], root)


def test_a_manifest_is_its_own_node_s_and_of_this_trust_domain() -> None:
    world = World()
    root, chain = SUITE_1.hash(world.root_der), chain_of(world)
    fmt.parse_manifest(signed(manifest(chain), world), root)
    for raw, reason in (
        (signed(manifest(chain), world, "130102001"), "FN-6201"),  # by a child, in its parent's name
        (signed(manifest(chain_of(world, "130102001")), world, "130102001"), "130102001"),
        (signed(manifest(chain_of(world, "130102001")), world), "FN-6201"),
        (signed(manifest(chain, incarnation=2), world), "130102"),
        (signed(manifest(chain[:1]), world), "FN-6103"),
    ):
        with pytest.raises(IntegrityError, match="FN-6641") as caught:
            fmt.parse_manifest(raw, root)
        assert caught.value.params["reason"] == reason
    with pytest.raises(IntegrityError, match="FN-6641"):
        fmt.parse_manifest(signed(manifest(chain), world), seed("another root"))


@pytest.mark.parametrize(
    "changed",
    [{"number": 0}, {"number": fmt.MANIFESTS_MAX + 1}, {"index_size": fmt.INDEX_BYTES_MAX + 1}, {"node": "../x"}],
)
def test_a_manifest_has_limits(changed: dict[str, Any]) -> None:
    world = World()
    with pytest.raises(IntegrityError, match="FN-6640"):
        fmt.parse_manifest(signed(manifest(chain_of(world), **changed), world), SUITE_1.hash(world.root_der))


@pytest.mark.parametrize(
    "lines",
    [
        entries()[1:],  # it does not begin at the first arrival number
        [entries()[0], Entry(fmt.SEGMENTS, 32, 40, 1, seed(), seed())],  # a gap
        [entries()[0], Entry(fmt.SEGMENTS, 30, 40, 1, seed(), seed())],  # an overlap
        [entries()[0], Entry(fmt.SEGMENTS, 31, 30, 1, seed(), seed())],
        [*entries(), Entry(fmt.REST, 3, 3, 1, seed(), seed())],  # a part is missing
    ],
)
def test_an_index_leaves_nothing_out(lines: list[Entry]) -> None:
    with pytest.raises(IntegrityError, match="FN-6640"):
        fmt.parse_index(fmt.encode_index(lines))


@given(st.binary(max_size=200))
def test_what_is_no_index_is_refused(data: bytes) -> None:
    found = None
    with contextlib.suppress(IntegrityError):  # any other error fails
        found = fmt.parse_index(data)
    assert found is None or fmt.encode_index(found) == data


@given(st.text(max_size=80))
def test_what_is_no_key_is_refused(text: str) -> None:
    for one in (text, fmt.KEY_PREFIX + text):
        with pytest.raises(ValueError):  # noqa: PT011 - whichever kind
            fmt.decode_key(one)


def test_a_slip_of_the_pen_in_a_key_is_noticed() -> None:
    whole = fmt.encode_key(KEY.public)
    for at in range(len(whole)):
        slip = whole[:at] + ("A" if whole[at] != "A" else "B") + whole[at + 1 :]
        with pytest.raises(ValueError):  # noqa: PT011 - whichever kind
            fmt.decode_key(slip)


def test_bounds_of_an_object() -> None:
    with pytest.raises(IntegrityError, match="FN-6640"):
        fmt.open_object(fmt.MAGIC + bytes(fmt.OBJECT_BYTES_MAX), KEY.private)
    raw = HEADER.encode() + b" " * fmt.HEADER_BYTES_MAX
    whole = fmt.MAGIC + len(raw).to_bytes(2, "big") + raw + bytes(seal.KEY_BYTES + seal.WRAP_BYTES + 20)
    with pytest.raises(IntegrityError, match="FN-6640"):
        fmt.open_object(whole, KEY.private)
