"""Bundles as bytes: golden vectors, another reader that knows docs/formats.md alone, limits, and whatever else a file
may hold."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from cryptography.hazmat.primitives.hpke import Suite as Hpke
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import issuing, stream
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SealKey, SigningKey
from fednode.crypto.suite import SUITE_1
from fednode.sync import bundle as bun
from fednode.sync import volume as vol
from fednode.sync import wire
from fednode.sync.effects import Commit
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused
from world import NOW_S, Stream, World, keys_of, seed

VECTORS = Path(__file__).parent / "vectors"
SENDER, RECIPIENT = "130102001", "130102001001"
KEYS = keys_of("bundle-recipient")
SIGN = keys_of("bundle-sender").sign
HEADER = vol.Header(
    "hebei", SENDER, 2, RECIPIENT, seed("bundle")[:16], NOW_S * 1000, SUITE_1.hash(KEYS.seal.public)[:8]
)
Pieces = list[tuple[int, bytes]]


# ---------------------------------------------------------------- making the vectors


def frames_of_the_vector() -> list[list[bytes]]:
    """Two volumes: an opening with a chain, an acknowledgement and half a segment; its rest and a late cosignature."""
    world = World(wide=False)
    segment = b"".join(seed("segment", number) for number in range(6))  # what a carrier need not understand
    given = wire.Cosignature(NOW_S, seed("r") + seed("s"), "130102")
    have = wire.Cursor(seed("store of the recipient")[:16], 3, bytes(range(8)))
    hello = wire.Hello(
        SENDER,
        (),
        NOW_S * 1000,
        seed("store of the sender")[:16],
        have,
        acked=2,
        software="fednode/1",
        version_min=1,
        version_max=1,
    )
    first = bun.Opening(hello, 4, 9, world.places[RECIPIENT].chain, ("10.0.0.1:7443",))
    frames, digest = bun.Frames(), SUITE_1.hash(segment)
    late = wire.Late(9, f"hebei/{SENDER}/1/shop", 2, seed("root"), given)
    ack = wire.Ack((wire.Outcome(3, wire.Cosignature(given.time_s, given.signature)), wire.Outcome(4, None, "FN-5420")))
    return [
        [
            bun.opening_frame(first),
            frames.of(ack),
            frames.of(wire.Chunk(5, 0, segment[:100], len(segment), digest, given)),
        ],
        [frames.of(wire.Chunk(5, 100, segment[100:])), frames.of(late)],
    ]


def bundle_vector() -> dict[str, Any]:
    """HPKE is randomised, so that the wraps are recorded; all else is made again by the test."""
    volumes, sums, whole = [], [], []
    for number, frames in enumerate(frames_of_the_vector(), 1):
        key = seed("content key", number)
        data, sealer = vol._head(vol.replace(HEADER, volume=number), KEYS.seal.public, key)
        data += b"".join(vol._frame(sealer, frame, frame is frames[-1]) for frame in frames)
        sums.append(vol.Sum(len(data), SUITE_1.hash(data)))
        whole.append(data)
        volumes.append({"content_key": key.hex(), "frames": [frame.hex() for frame in frames]})
    piece = vol._manifest(HEADER, sums, SIGN.sign)
    whole[-1] += piece
    for volume, data in zip(volumes, whole, strict=True):
        head = vol.read_head(reader(data))
        volume |= {"header": head.raw.hex(), "commit": head.commit.hex(), "wrap": head.wrap.hex(), "file": data.hex()}
    manifest = vol.manifest_of(piece)
    return {
        "sign_seed": SIGN.private.hex(),
        "seal_private": KEYS.seal.private.hex(),
        "domain": HEADER.domain,
        "sender": HEADER.sender,
        "incarnation": HEADER.incarnation,
        "recipient": HEADER.recipient,
        "id": HEADER.id.hex(),
        "made_ms": HEADER.made_ms,
        "volumes": volumes,
        "manifest": manifest.raw.hex(),
        "signature": manifest.signature.hex(),
        "fingerprint": manifest.fingerprint,
    }


def request_vector() -> dict[str, Any]:
    """A request with a token, and the same without. ECDSA may be randomised, so that the request is recorded."""
    keys = keys_of("request")
    token = Token(seed("root"), seed("secret")[:16], "1303", NOW_S, ())
    der = issuing.make_request("1303", keys.tls, keys.sign, keys.seal)
    return {
        "node": "1303",
        "root_sha256": token.root_sha256.hex(),
        "secret": token.secret.hex(),
        "stick_key": token.stick_key.private.hex(),
        "stick_public": token.stick_key.public.hex(),
        "request": der.hex(),
        "signature": bun.request_proof(der, token).hex(),
        "file": bun.encode_request(der, token).hex(),
        "file_without_token": bun.encode_request(der, None).hex(),
        "fingerprint": vol.digits(SUITE_1.hash(der)),
    }


def reader(data: bytes) -> vol.Read:
    rest = memoryview(data)

    def read(size: int) -> bytes:
        nonlocal rest
        part, rest = bytes(rest[:size]), rest[size:]
        return part

    return read


def golden(name: str) -> Any:
    return json.loads((VECTORS / name).read_text("utf-8"))


# ---------------------------------------------------------------- golden


def test_a_bundle_is_made_as_it_always_was() -> None:
    want = golden("bundle.json")
    sums = []
    for number, (frames, volume) in enumerate(zip(frames_of_the_vector(), want["volumes"], strict=True), 1):
        assert [frame.hex() for frame in frames] == volume["frames"]
        head, sealer = vol._head(
            vol.replace(HEADER, volume=number), KEYS.seal.public, bytes.fromhex(volume["content_key"])
        )
        mine = vol.read_head(reader(head))
        assert (mine.raw.hex(), mine.commit.hex()) == (volume["header"], volume["commit"])
        data = head.replace(mine.wrap, bytes.fromhex(volume["wrap"]))
        data += b"".join(vol._frame(sealer, frame, frame is frames[-1]) for frame in frames)
        sums.append(vol.Sum(len(data), SUITE_1.hash(data)))
        assert volume["file"].startswith(data.hex())
    piece = vol._manifest(HEADER, sums, SIGN.sign)
    assert want["volumes"][-1]["file"].endswith(piece.hex())
    found = vol.manifest_of(piece)
    made = (found.raw.hex(), found.signature.hex(), found.fingerprint)
    assert made == (want["manifest"], want["signature"], want["fingerprint"])


def test_a_bundle_is_read_as_it_always_was() -> None:
    want = golden("bundle.json")
    read, manifest = [], None
    for number, volume in enumerate(want["volumes"], 1):
        one = vol.Volume(reader(bytes.fromhex(volume["file"])))
        assert one.head.header == vol.replace(HEADER, volume=number)
        key = stream.unwrap(bytes.fromhex(want["seal_private"]), one.head.wrap, one.head.raw)
        read += list(one.open(key))
        manifest = one.manifest or manifest
    assert manifest is not None
    manifest.check(SigningKey.from_seed(bytes.fromhex(want["sign_seed"])).public)
    assert bun.parse_opening(read[0]).addresses == ("10.0.0.1:7443",)
    intake = bun.Intake()
    kinds = [type(message) for message in map(intake.take, read[1:])]
    intake.end()
    assert kinds == [wire.Ack, type(None), Commit, Commit]


def test_a_request_is_what_it_always_was() -> None:
    want = golden("request.json")
    token = Token(bytes.fromhex(want["root_sha256"]), bytes.fromhex(want["secret"]), want["node"], NOW_S, ())
    assert (token.stick_key.private.hex(), token.stick_key.public.hex()) == (want["stick_key"], want["stick_public"])
    der = bytes.fromhex(want["request"])
    assert issuing.parse_request(der).node == want["node"]
    assert bun.encode_request(der, token).hex() == want["file"]
    assert bun.encode_request(der, None).hex() == want["file_without_token"]
    assert bun.parse_request(bytes.fromhex(want["file"])) == (der, bytes.fromhex(want["signature"]))
    assert bun.parse_request(bytes.fromhex(want["file_without_token"])) == (der, b"")
    assert bun.proves(token.stick_key.public, token.root_sha256, der, bytes.fromhex(want["signature"]))


# ---------------------------------------------------------------- another reader, of what docs/formats.md says


def fields(data: bytes) -> dict[int, list[Any]]:
    """Protobuf as its specification has it: varints and length-delimited fields."""
    found: dict[int, list[Any]] = {}
    rest = iter(data)

    def varint() -> int:
        value = shift = 0
        for byte in rest:
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
        raise AssertionError("cut")

    for byte in rest:
        tag = byte & 127
        if byte > 127:
            tag |= varint() << 7
        value = varint() if tag & 7 == 0 else bytes(next(rest) for _ in range(varint()))
        found.setdefault(tag >> 3, []).append(value)
    return found


def strange_reader(files: list[bytes], private: bytes, sender_key: bytes) -> list[bytes]:
    """The frames of a bundle. Nothing of fednode's is used."""
    frames, sums, manifest = [], [], b""
    for data in files:
        assert data[:8] == b"FNBUNDL1"
        at = 12 + int.from_bytes(data[8:12], "big")
        volume = fields(data[12:at])
        header, commit, wrap = (volume[number][0] for number in (1, 2, 3))
        h = hashlib.sha256(header).digest()
        public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        info = b"fednode stream wrap v1\n" + hashlib.sha256(public).digest()[:8] + h
        k = Hpke(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM).decrypt(
            wrap, X25519PrivateKey.from_private_bytes(private), info
        )
        key = hmac.digest(k, b"fednode stream v1\n" + h, "sha256")
        assert commit == hmac.digest(k, b"fednode stream commit v1\n" + h, "sha256")
        number = last = 0
        while not last:
            length = int.from_bytes(data[at : at + 4], "big")
            last, length = length >> 31, length & ~(1 << 31)
            nonce = number.to_bytes(11, "big") + bytes([last])
            frames.append(AESGCM(key).decrypt(nonce, data[at + 4 : at + 4 + length], h + commit))
            at, number = at + 4 + length, number + 1
        sums.append((at, hashlib.sha256(data[:at]).digest()))
        if len(data) > at:
            assert data[at : at + 4] == bytes(4)
            signed = fields(data[at + 8 :])
            manifest, signature = signed[1][0], signed[2][0]
    message = b"fednode bundle v1\n" + hashlib.sha256(manifest).digest()
    Ed25519PublicKey.from_public_bytes(sender_key).verify(signature, message)
    said = fields(manifest)
    assert [(one[1][0], one[2][0]) for one in map(fields, said[8])] == sums
    assert said[6] == fields(header)[7], "the id"
    return frames


def test_what_the_document_says_is_enough_to_read_a_bundle() -> None:
    want = golden("bundle.json")
    files = [bytes.fromhex(volume["file"]) for volume in want["volumes"]]
    sender_key = SigningKey.from_seed(bytes.fromhex(want["sign_seed"])).public
    frames = strange_reader(files, bytes.fromhex(want["seal_private"]), sender_key)
    assert [frame.hex() for frame in frames] == [frame for volume in want["volumes"] for frame in volume["frames"]]
    number = int.from_bytes(
        hashlib.sha256(b"fednode bundle v1\n" + bytes.fromhex(want["manifest"])).digest()[:16], "big"
    )
    assert f"{number % 10**20:020d}" == want["fingerprint"].replace(" ", "")


def test_what_the_document_says_is_enough_to_read_a_request() -> None:
    want = golden("request.json")
    data = bytes.fromhex(want["file"])
    assert data[:8] == b"FNREQST1"
    said = fields(data[8:])
    assert said[1] == [2]
    key = HKDF(SHA256(), 32, b"", b"fednode invitation by stick v1\n").derive(bytes.fromhex(want["secret"]))
    public = SigningKey.from_seed(key).public
    message = b"fednode stick request v2\n" + bytes.fromhex(want["root_sha256"]) + said[2][0]
    Ed25519PublicKey.from_public_bytes(public).verify(said[4][0], message)


# ---------------------------------------------------------------- limits


def packed(frames: list[bytes], volume_bytes: int, volumes_max: int = vol.VOLUMES_MAX) -> dict[int, bytes]:
    files: dict[int, bytes] = {}
    for number, data in vol.pack(
        frames, HEADER, KEYS.seal.public, SIGN.sign, Stream("pack"), volume_bytes, volumes_max
    ):
        files[number] = files.get(number, b"") + data
    return files


@pytest.mark.parametrize(
    ("size", "counts"),
    [(wire.FRAME_BYTES_MAX, (1, 2)), (65_600, (1, 2, 3)), *((n, (127, 128)) for n in range(990, 1020, 3))],
)
def test_no_file_is_larger_than_was_asked_for(size: int, counts: Sequence[int]) -> None:
    """Was: the last one was, by the manifest; of 4 GiB - 1, too large for FAT32 and for the reader."""
    for count in counts:
        files = packed([bytes(size)] * count, vol.VOLUME_BYTES_MIN)
        assert max(map(len, files.values())) <= vol.VOLUME_BYTES_MIN
        opened = [vol.Volume(reader(files[number])) for number in sorted(files)]
        assert sum(len(list(one.sealed())) for one in opened) == count


def test_as_many_volumes_as_may_be_and_no_more() -> None:
    """Was: a ValueError after all that had been written."""
    frame = bytes(wire.FRAME_BYTES_MAX)
    assert len(packed([frame] * 3, vol.VOLUME_BYTES_MIN, 3)) == 3
    with pytest.raises(Refused, match="FN-3518"):
        packed([frame] * 4, vol.VOLUME_BYTES_MIN, 3)


def test_volumes_that_have_no_room_for_the_manifest_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    most = next(n for n in range(1, 10_000) if vol._manifest_room(n) + 100 * 1024 > vol.VOLUME_BYTES_MIN)
    monkeypatch.setattr(vol, "_SUM_BYTES", vol._SUM_BYTES * most // 3)
    with pytest.raises(Refused, match="FN-3518"):
        packed([bytes(wire.FRAME_BYTES_MAX)] * 6, vol.VOLUME_BYTES_MIN)


def test_what_is_reserved_for_a_manifest_is_enough() -> None:
    longest = vol.Header("d" * 32, "n" * 64, (1 << 32) - 1, "m" * 64, bytes(16), vol.MADE_MS_MAX, bytes(8))
    for count in (1, vol.VOLUMES_MAX):
        data = vol._manifest(longest, [vol.Sum(vol.VOLUME_BYTES_MAX, bytes(32))] * count, SIGN.sign)
        assert len(data) <= vol._manifest_room(count)
        assert len(data) <= vol.MANIFEST_BYTES_MAX


def test_the_longest_head_there_is_can_be_read() -> None:
    longest = vol.Header("d" * 32, "n" * 64, (1 << 32) - 1, "m" * 64, bytes(16), vol.MADE_MS_MAX, bytes(8), 9_999)
    data, _ = vol._head(longest, KEYS.seal.public, bytes(32))
    assert vol.read_head(reader(data)).header == longest


# ---------------------------------------------------------------- whatever else


def sources() -> list[bytes]:
    want, asked = golden("bundle.json"), golden("request.json")
    files = [bytes.fromhex(volume["file"]) for volume in want["volumes"]]
    frames = [bytes.fromhex(frame) for volume in want["volumes"] for frame in volume["frames"]]
    return [*files, *frames, bytes.fromhex(want["manifest"]), bytes.fromhex(asked["file"])]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """Something valid with a few bytes changed, cut out, put in or repeated; or just bytes."""
    if draw(st.integers(0, 4)) == 0:
        return vol.MAGIC * draw(st.integers(0, 1)) + draw(st.binary(max_size=400))
    data = bytearray(draw(st.sampled_from(sources())))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        size = draw(st.integers(1, 40))
        what = draw(st.integers(0, 3))
        if what == 0 and data:
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif what == 1:
            del data[at : at + size]
        elif what == 2:
            data[at:at] = draw(st.binary(min_size=1, max_size=size))
        else:
            data[at:at] = data[at : at + size]
    return bytes(data)


def _open(data: bytes) -> None:
    one = vol.Volume(reader(data))
    for _ in one.open(stream.unwrap(KEYS.seal.private, one.head.wrap, one.head.raw)):
        pass


def _take(data: bytes) -> None:
    intake = bun.Intake()
    intake.take(data)
    intake.end()


DECODERS: dict[str, Callable[[bytes], Any]] = {
    "head": lambda data: vol.read_head(reader(data)),
    "skip": lambda data: vol.Volume(reader(data)).skip(),
    "open": _open,
    "manifest": vol.parse_manifest,
    "opening": bun.parse_opening,
    "frame": _take,
    "request": bun.parse_request,
    "pkcs10": issuing.parse_request,
}


@settings(max_examples=400, deadline=None)
@given(mutated())
def test_decoders_raise_their_declared_errors_only(data: bytes) -> None:
    """INVARIANTS 29."""
    for decode in DECODERS.values():
        with contextlib.suppress(IntegrityError, PeerError):
            decode(data)


def test_each_decoder_takes_what_is_right() -> None:
    """So that the test above can fail: what it mutates is taken whole."""
    want, asked = golden("bundle.json"), golden("request.json")
    first, last = (bytes.fromhex(volume["file"]) for volume in want["volumes"])
    opening, ack = (bytes.fromhex(frame) for frame in want["volumes"][0]["frames"][:2])
    for name, data in (("head", first), ("skip", last), ("open", first), ("open", last), ("opening", opening)):
        DECODERS[name](data)
    DECODERS["frame"](ack)
    DECODERS["request"](bytes.fromhex(asked["file"]))
    DECODERS["pkcs10"](bytes.fromhex(asked["request"]))


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=12), st.data())
def test_a_stream_opens_in_its_order_and_whole_or_it_does_not(frames: list[bytes], data: st.DataObject) -> None:
    """Frames dropped, repeated, exchanged, cut off, moved between streams: nothing opens past the first such place."""
    key = SealKey.from_seed(seed("stream"))
    content, other = seed("content"), seed("other")
    out, elsewhere = stream.Sealer(b"h", key.public, content), stream.Sealer(b"h", key.public, other)
    sealed = [(out.seal(one, last=one is frames[-1]), one is frames[-1]) for one in frames]
    strange = [(elsewhere.seal(one, last=i == len(frames) - 1), i == len(frames) - 1) for i, one in enumerate(frames)]
    order = data.draw(st.lists(st.integers(0, 2 * len(frames) - 1), max_size=len(frames) + 2))
    offered = [(sealed + strange)[i] for i in order]
    opener = stream.Opener(b"h", out.commit, content)
    got: list[bytes] = []
    try:
        for one, last in offered:
            got.append(opener.open(one, last=last))
    except IntegrityError:
        pass
    honest = list(_prefix(offered, sealed))
    assert got == [frames[i] for i in range(len(honest))]


def test_a_stream_ends_with_its_last_frame_and_with_no_other() -> None:
    """Whoever cuts a volume off, and marks the frame before as its last, has made nothing that opens."""
    key, content = SealKey.from_seed(seed("stream")), seed("content")
    out = stream.Sealer(b"h", key.public, content)
    sealed = [out.seal(b"one"), out.seal(b"two", last=True)]
    for frames, last in ((sealed[:1], True), (sealed, False)):
        opener = stream.Opener(b"h", out.commit, content)
        opened = [opener.open(one, last=False) for one in frames[:-1]]
        with pytest.raises(IntegrityError):
            opener.open(frames[-1], last=last)
        assert opened == [b"one"][: len(frames) - 1]


def _prefix(offered: list[tuple[bytes, bool]], sealed: list[tuple[bytes, bool]]) -> Iterator[int]:
    for number, one in enumerate(offered):
        if number >= len(sealed) or one != sealed[number]:
            return
        yield number
