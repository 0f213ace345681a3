"""Segments: the bytes that are fixed for good (vectors/), what is refused, and the stripped form."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import merkle
from fednode.proto import fednode_pb2 as pb
from fednode.sync import packing
from fednode.sync import segment as seg
from fednode.sync.change import (
    DELETE,
    JUST_BEFORE,
    KEY_BYTES_MAX,
    LOG_SIZE_MAX,
    PAYLOAD_BYTES_MAX,
    SEGMENT_CHANGES_MAX,
    UPSERT,
    Change,
    Columns,
    LogName,
)
from fednode.sync.clock import STAMP_MAX
from fednode.sync.errors import PeerError
from fednode.sync.log import LogState, cut, extend
from fednode.sync.strip import strip
from strategies import some_columns
from world import Stream, World, keys_of, shop

VECTORS = Path(__file__).parent / "vectors"
VILLAGE = "130102001001"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def refused(code: str, call: Any, *arguments: Any) -> PeerError:
    with pytest.raises(PeerError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value


# ---------------------------------------------------------------- any columns come back


@settings(max_examples=150, derandomize=True, deadline=None)
@given(some_columns())
def test_columns_come_back(columns: Columns) -> None:
    assert seg.decode_body(seg.encode_body(columns)) == columns


@settings(max_examples=80, derandomize=True, deadline=None)
@given(some_columns(), st.data())
def test_the_stripped_form_comes_back_with_the_same_leaves(columns: Columns, data: st.DataObject) -> None:
    count = len(columns)
    gone = data.draw(st.sets(st.integers(0, count - 1), min_size=1))
    whole = seg.leaf_hashes(columns)
    stripped = strip(columns, gone)
    again = seg.decode_body(seg.encode_body(stripped))
    assert again == stripped
    assert seg.leaf_hashes(again) == whole
    for position in gone:
        assert again.payloads[position] == again.keys[position] == b""
    assert again.seed == b""


@settings(max_examples=80, derandomize=True, deadline=None)
@given(some_columns(), st.data())
def test_leaves_are_those_of_the_columns(columns: Columns, data: st.DataObject) -> None:
    """The short way, which verification takes, and the plain one."""
    gone = data.draw(st.sets(st.integers(0, len(columns) - 1)))
    given_ = strip(columns, gone) if gone else columns
    found = seg.decode_leaves(seg.encode_body(given_))
    assert found == seg.Leaves(columns.hlcs[0], columns.hlcs[-1], seg.leaf_hashes(columns), len(gone))


def test_what_was_stripped_is_nowhere_in_the_bytes(world: World) -> None:
    secret = "石家庄秘密".encode()
    columns = Columns(1, [b"k" + secret, b"other"], [10, 11], bytes((1, 1)), [secret, b"{}"], bytes(range(32)))
    plain = zstandard.ZstdDecompressor().decompress(seg.encode_body(strip(columns, {0})))
    salts = seg.suite_of(1).keystream(columns.seed, 64)
    assert secret not in plain
    assert columns.seed not in plain
    assert salts[:32] not in plain
    assert salts[32:] in plain


# ---------------------------------------------------------------- golden vectors: see vectors/README.md


def vector(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((VECTORS / name).read_text("utf-8"))
    return content


def made(sealed: bool) -> dict[str, Any]:
    """What the vector files hold, made again."""
    key = keys_of("vector")
    log = LogName("hebei", "130102001001", 1, "admin-licence" if sealed else "sys.nodes")
    changes = [
        Change("甲".encode(), '{"名称":"甲"}'.encode()),
        Change("乙".encode(), b'{"n":1}', UPSERT, 7),
        Change("丙".encode(), b"", DELETE),
    ]
    stamps = [116654080000000000, 116654080000000001, 116654080000065536]
    (own,) = extend(LogState(log), changes, stamps, 4, key.sign, [], sealed, Stream("vector"))
    envelope = seg.parse(own.raw)
    return {
        "sign_seed": key.sign.private.hex(),
        "seal_seed": key.seal.private.hex(),
        "log": str(log),
        "schema_version": 4,
        "stamps": stamps,
        "changes": [[c.key.hex(), c.payload.hex(), c.op, c.base] for c in changes],
        "seed": own.columns.seed.hex(),
        "content_key": own.content_key.hex(),
        "leaves": [leaf.hex() for leaf in seg.leaf_hashes(own.columns)],
        "root": envelope.header.root.hex(),
        "header": envelope.header.raw.hex(),
        "commit": envelope.commit.hex(),
        "digest": envelope.digest().hex(),
        "checkpoint_signature": envelope.header.checkpoint.hex(),
        "envelope": own.raw.hex(),
    }


@pytest.mark.parametrize("name", ["segment-unsealed.json", "segment-sealed.json"])
def test_segments_are_made_byte_for_byte_as_ever(name: str) -> None:
    """Holds zstd to its output too: a release that compresses otherwise changes `envelope`, `digest` and nothing else,
    and needs no new format."""
    want, got = vector(name), made(name == "segment-sealed.json")
    for key in want:
        if key not in ("envelope", "digest"):
            assert got[key] == want[key], key
    if tuple(vector("README.json")["zstd"]) == zstandard.ZSTD_VERSION:
        assert got == want


@pytest.mark.parametrize("name", ["segment-unsealed.json", "segment-sealed.json", "segment-readers.json"])
def test_recorded_segments_are_read_as_ever(name: str) -> None:
    """The last of them has two readers: its wraps are random, so it was recorded and must open for ever."""
    want = vector(name)
    envelope = seg.parse(bytes.fromhex(want["envelope"]))
    columns = seg.open_with_content_key(envelope, bytes.fromhex(want["content_key"]))
    assert [[k.hex(), p.hex(), o, columns.base(i)] for i, (k, p, o) in enumerate(zip(
        columns.keys, columns.payloads, columns.ops, strict=True))] == want["changes"]  # fmt: skip
    assert (columns.hlcs, columns.schema_version, columns.seed.hex()) == (
        want["stamps"],
        want["schema_version"],
        want["seed"],
    )
    assert [leaf.hex() for leaf in seg.leaf_hashes(columns)] == want["leaves"]
    assert merkle.root(seg.leaf_hashes(columns)).hex() == want["root"] == envelope.header.root.hex()
    assert envelope.digest().hex() == want["digest"]
    for private in want.get("reader_seeds", []):
        reader = seg_reader(private)
        assert seg.unwrap(envelope, reader.key_id, bytes.fromhex(private)) == bytes.fromhex(want["content_key"])


def proved() -> dict[str, Any]:
    """Three segments of one log, the later ones with a proof of consistency; in clear, so that they can be made
    again."""
    key = keys_of("vector").sign
    state, stamp, segments = LogState(LogName.parse("hebei/13/7/sys.nodes")), 1 << 40, []
    for count in (3, 4, 1):
        changes = [Change(b"k%d" % (state.size + i), b'{"n":%d}' % (state.size + i)) for i in range(count)]
        stamps = range(stamp, stamp + count)
        (own,) = extend(state, changes, stamps, 4, key, [], False, Stream("vector", state.size), True)
        state, stamp = own.after, stamp + count
        proof = [one.hex() for one in seg.parse(own.raw).header.consistency]
        segments.append({"size": state.size, "root": state.root.hex(), "consistency": proof, "envelope": own.raw.hex()})
    return {"sign_seed": key.private.hex(), "log": str(state.name), "segments": segments}


def test_proofs_of_consistency_are_made_and_read_as_ever() -> None:
    want, got = vector("segment-consistency.json"), proved()
    size, root = 0, b""
    for one, again in zip(want["segments"], got["segments"], strict=True):
        header = seg.parse(bytes.fromhex(one["envelope"])).header
        assert [hash_.hex() for hash_ in header.consistency] == one["consistency"] == again["consistency"]
        assert (header.end, header.root.hex()) == (one["size"], one["root"]) == (again["size"], again["root"])
        if size:
            merkle.verify_consistency(size, header.end, root, header.root, header.consistency)
        size, root = header.end, header.root
    if tuple(vector("README.json")["zstd"]) == zstandard.ZSTD_VERSION:
        assert got == want


def test_a_proof_of_consistency_is_bounded(world: World) -> None:
    first = world.segment(VILLAGE)
    raw = world.segment(VILLAGE, [shop("c", VILLAGE)], state=first.after, hlc=1 << 62).raw
    envelope = pb.Envelope.FromString(raw)
    for proof in ([bytes(31)], [bytes(32)] * (merkle.PROOF_HASHES_MAX + 1)):
        header = pb.Header.FromString(envelope.header)
        del header.consistency[:]
        header.consistency.extend(proof)
        again = pb.Envelope(header=header.SerializeToString())
        again.MergeFrom(pb.Envelope(commit=envelope.commit, wraps=envelope.wraps, signature=envelope.signature))
        assert refused("FN-6402", seg.parse, again.SerializeToString()).params["reason"] == "consistency"


def seg_reader(private: str) -> seg.Reader:
    public = seg.suite_of(1).seal_public_of(bytes.fromhex(private))
    return seg.Reader(seg.suite_of(1).hash(public)[:8], public)


# ---------------------------------------------------------------- what is refused


def test_every_truncation_is_refused(world: World) -> None:
    raw = world.segment(VILLAGE).raw
    for end in range(len(raw)):
        with pytest.raises(PeerError):
            opened(raw[:end], world)


def opened(raw: bytes, world: World) -> Columns:
    envelope = seg.parse(raw)
    keys = world.places["130102001"].keys.seal
    content_key = seg.unwrap(envelope, keys.key_id, keys.private)
    if content_key is None:
        raise PeerError("FN-6404")
    return seg.open_with_content_key(envelope, content_key)


def test_every_altered_byte_of_header_commitment_own_wrap_and_body_is_refused(world: World) -> None:
    """The signature and the others' wraps are not looked at here; `verify` does (tests/sync/test_verify)."""
    raw = world.segment(VILLAGE).raw
    envelope = seg.parse(raw)
    own_wrap = envelope.wraps[2]
    for part in (envelope.header.raw, envelope.commit, own_wrap, envelope.body):
        start = raw.index(part)
        for at in range(start, start + len(part), max(1, len(part) // 40)):
            altered = bytearray(raw)
            altered[at] ^= 1
            with pytest.raises(PeerError):
                opened(bytes(altered), world)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=400))
def test_garbage_is_a_peer_error(data: bytes) -> None:
    for call in (seg.parse, seg.decode_body):
        with pytest.raises(PeerError):
            call(data)  # type: ignore[operator]


@settings(max_examples=200, derandomize=True, deadline=None)
@given(some_columns(), st.data())
def test_an_altered_body_is_a_peer_error_or_columns(columns: Columns, data: st.DataObject) -> None:
    plain = bytearray(zstandard.ZstdDecompressor().decompress(seg.encode_body(columns)))
    for _ in range(data.draw(st.integers(1, 3))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    assert outcome(compressed(bytes(plain))) in ("columns", "FN-6401", "FN-6402")


def outcome(data: bytes) -> str:
    try:
        return "columns" if seg.leaf_hashes(seg.decode_body(data)) else "nothing"
    except PeerError as error:
        return error.code


def compressed(plain: bytes) -> bytes:
    return zstandard.ZstdCompressor(level=3, write_content_size=True).compress(plain)


def test_the_envelope_limit(world: World) -> None:
    envelope = pb.Envelope.FromString(world.segment(VILLAGE).raw)
    room = seg.ENVELOPE_BYTES_MAX - len(envelope.SerializeToString())
    envelope.body += bytes(room - 2)  # the length takes two bytes more
    at = envelope.SerializeToString()
    assert len(at) == seg.ENVELOPE_BYTES_MAX
    assert seg.parse(at).raw == at
    refused("FN-6401", seg.parse, at + b"\x00")


def body(count: int, **changed: Any) -> bytes:
    fields: dict[str, Any] = {
        "schema_version": 1,
        "seed": bytes(32),
        "keys": b"k" * count,
        "key_lengths": [1] * count,
        "first_hlc": 1,
        "hlc_deltas": [1] * (count - 1),
        "payload_lengths": [0] * count,
    }
    return compressed(pb.Body(**{**fields, **changed}).SerializeToString())


def test_the_limit_of_changes(world: World) -> None:
    assert len(seg.decode_body(body(SEGMENT_CHANGES_MAX))) == SEGMENT_CHANGES_MAX
    refused("FN-6402", seg.decode_body, body(SEGMENT_CHANGES_MAX + 1))
    raw = world.segment(VILLAGE).raw
    assert with_header(raw, count=SEGMENT_CHANGES_MAX).header.count == SEGMENT_CHANGES_MAX
    for count in (0, SEGMENT_CHANGES_MAX + 1):
        assert refused("FN-6402", lambda n=count: with_header(raw, count=n)).params["reason"] == "count"


def with_header(raw: bytes, **changed: Any) -> seg.Envelope:
    envelope = pb.Envelope.FromString(raw)
    header = pb.Header.FromString(envelope.header)
    for name, value in changed.items():
        if isinstance(value, list):
            del getattr(header, name)[:]
            getattr(header, name).extend(value)
        else:
            setattr(header, name, value)
    envelope.header = header.SerializeToString()
    return seg.parse(envelope.SerializeToString())


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"first": LOG_SIZE_MAX - 1}, "first"),
        ({"first": 2**64 - 1}, "first"),
        ({"root": bytes(31)}, "root"),
        ({"checkpoint": bytes(63)}, "signature"),
        ({"last_hlc": STAMP_MAX + 1}, "last_hlc"),
        ({"readers": [bytes(8)]}, "readers"),
        ({"readers": [bytes(8)] * (seg.READERS_MAX + 1)}, "readers"),
        ({"readers": [bytes(7)] * 4}, "readers"),
    ],
)
def test_header_fields_that_cannot_be(world: World, changed: dict[str, Any], reason: str) -> None:
    raw = world.segment(VILLAGE).raw
    assert refused("FN-6402", lambda: with_header(raw, **changed)).params["reason"] == reason


@pytest.mark.parametrize(
    "log", ["", "hebei", "hebei/13/0/x", "hebei/13/01/x", "hebei/13/1/X", "hebei/13/1/x@1", "a" * 300]
)
def test_a_header_that_names_no_log(world: World, log: str) -> None:
    refused("FN-6410", lambda: with_header(world.segment(VILLAGE).raw, log=log))


def test_sealed_or_not_but_nothing_between(world: World) -> None:
    """Readers without a commitment would be opened without a check of the key."""
    envelope = pb.Envelope.FromString(world.segment(VILLAGE).raw)
    envelope.commit = b""
    assert refused("FN-6402", seg.parse, envelope.SerializeToString()).params["reason"] == "commit"
    envelope.commit = bytes(31)
    assert refused("FN-6402", seg.parse, envelope.SerializeToString()).params["reason"] == "commit"


def test_the_limits_of_key_and_payload() -> None:
    for blob, lengths, limit in (
        ("keys", "key_lengths", KEY_BYTES_MAX),
        ("payloads", "payload_lengths", PAYLOAD_BYTES_MAX),
    ):
        noise = Stream(blob)(limit + 1)
        at = seg.decode_body(body(1, **{blob: noise[:limit], lengths: [limit]}))
        assert len(at.keys[0] if blob == "keys" else at.payloads[0]) == limit
        assert (
            refused("FN-6402", seg.decode_body, body(1, **{blob: noise, lengths: [limit + 1]})).params["reason"] == blob
        )


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"key_lengths": []}, "count"),
        ({"payload_lengths": [0]}, "columns"),
        ({"hlc_deltas": []}, "columns"),
        ({"ops": bytes((1,))}, "columns"),
        ({"ops": bytes((1, 9))}, "ops"),
        ({"ops": bytes((0, 1))}, "ops"),
        ({"bases": [1]}, "bases"),
        ({"seed": b""}, "seed"),
        ({"seed": bytes(31)}, "seed"),
        ({"salts": bytes(64)}, "salts"),
        ({"leaves": bytes(32)}, "leaves"),
        ({"stripped": [1, 1], "leaves": bytes(64), "seed": b""}, "stripped"),
        ({"stripped": [1, 0], "leaves": bytes(64), "seed": b""}, "stripped"),
        ({"stripped": [2], "leaves": bytes(32), "seed": b"", "salts": bytes(32)}, "stripped"),
        ({"stripped": [1], "leaves": bytes(32), "seed": b"", "salts": b""}, "salts"),
        ({"stripped": [1], "leaves": bytes(32), "salts": bytes(32)}, "seed"),
        ({"keys": b"kkk"}, "keys"),
        ({"keys": b"k"}, "keys"),
        ({"payloads": b"p"}, "payloads"),
        ({"hlc_deltas": [0]}, "stamps"),
        ({"first_hlc": STAMP_MAX}, "stamps"),
        ({"first_hlc": 5, "hlc_deltas": [2**64 - 1]}, "stamps"),
    ],
)
def test_columns_that_do_not_fit_one_another(changed: dict[str, Any], reason: str) -> None:
    assert seg.decode_body(body(2)).hlcs == [1, 2]
    for decode in (seg.decode_body, seg.decode_leaves):
        assert refused("FN-6402", decode, body(2, **changed)).params["reason"] == reason


def test_a_bomb_is_found_before_it_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = compressed(bytes(packing.BODY_BYTES_MAX))
    assert len(bomb) < 4096
    claims_less = zstandard.ZstdCompressor(level=3, write_content_size=False).compress(bytes(packing.BODY_BYTES_MAX))
    too_big = compressed(Stream("big")(packing.BODY_BYTES_MAX + 1))

    def never(*_: object, **__: object) -> None:
        raise AssertionError("decompressed")

    monkeypatch.setattr(zstandard, "ZstdDecompressor", never)
    for data in (bomb, claims_less, too_big):
        refused("FN-6401", seg.decode_body, data)


def test_a_frame_that_lies_about_its_size() -> None:
    """The header says little, the data is much: the decompressor is bounded as well."""
    honest = bytearray(compressed(bytes(200)))
    assert zstandard.frame_content_size(bytes(honest)) == 200
    huge = compressed(bytes(1_000_000))
    header = zstandard.get_frame_parameters(huge)
    assert header.content_size == 1_000_000
    lying = huge.replace((1_000_000).to_bytes(4, "little"), (60_000).to_bytes(4, "little"))
    assert zstandard.frame_content_size(lying) == 60_000
    refused("FN-6402", seg.decode_body, lying)


def test_the_ratio_limit() -> None:
    """Small bodies are free of it; a large one of much the same text is not."""
    small = pb.Body(schema_version=1, seed=bytes(32), keys=b"k", key_lengths=[1], first_hlc=1, payload_lengths=[0])
    small.payloads = b" " * (packing.RATIO_FREE_BYTES - 100)
    small.payload_lengths[0] = len(small.payloads)
    assert len(seg.decode_body(compressed(small.SerializeToString()))) == 1
    small.payloads = b" " * (packing.RATIO_FREE_BYTES + 1)
    small.payload_lengths[0] = len(small.payloads)
    refused("FN-6401", seg.decode_body, compressed(small.SerializeToString()))


def test_a_wrong_content_key(world: World) -> None:
    own = world.segment(VILLAGE)
    envelope = seg.parse(own.raw)
    assert seg.open_with_content_key(envelope, own.content_key) == own.columns
    for wrong in (b"", bytes(32), own.content_key[:31], own.content_key + b"x", own.content_key[::-1]):
        refused("FN-6404", seg.open_with_content_key, envelope, wrong)


def test_a_wrap_opens_for_its_own_reader_alone(world: World) -> None:
    own = world.segment(VILLAGE)
    envelope = seg.parse(own.raw)
    county, city, township = (world.places[one].keys.seal for one in ("130102", "1301", "130102001"))
    assert seg.unwrap(envelope, county.key_id, county.private) == own.content_key
    assert seg.unwrap(envelope, city.key_id, city.private) is None
    refused("FN-6404", seg.unwrap, envelope, county.key_id, township.private)
    swapped = replace(envelope, wraps=(envelope.wraps[1], envelope.wraps[0], *envelope.wraps[2:]))
    refused("FN-6404", seg.unwrap, swapped, county.key_id, county.private)


# ---------------------------------------------------------------- the log


def test_any_cut_of_the_changes_makes_one_tree(world: World) -> None:
    changes = [shop(str(i), VILLAGE) for i in range(25)]
    whole = world.segment(VILLAGE, changes)
    for at in (1, 8, 16, 24):
        first = world.segment(VILLAGE, changes[:at])
        second = world.segment(VILLAGE, changes[at:], state=first.after, hlc=whole.columns.hlcs[at])
        assert (first.after.size, second.after.size) == (at, 25)
        assert second.after.root != whole.after.root  # other salts, so other leaves
        hashes = seg.leaf_hashes(first.columns) + seg.leaf_hashes(second.columns)
        assert second.after.root == merkle.root(hashes)


def test_cut_keeps_order_and_limits() -> None:
    small = [Change(str(i).encode(), b"{}") for i in range(2 * seg.SEGMENT_CHANGES + 1)]
    runs = [list(run) for run in cut(small)]
    assert [len(run) for run in runs] == [seg.SEGMENT_CHANGES, seg.SEGMENT_CHANGES, 1]
    assert [one for run in runs for one in run] == small
    large = [Change(b"k", bytes(400_000)) for _ in range(5)]
    assert [len(list(run)) for run in cut(large)] == [2, 2, 1]
    assert list(cut([])) == []


def test_what_does_not_compress_is_split_until_it_fits(world: World) -> None:
    noise = Stream("noise")
    changes = [Change(str(i).encode(), noise(40_000)) for i in range(20)]
    parts = list(
        extend(LogState(world.log(VILLAGE)), changes, range(1, 21), 1, keys_of("x").sign, [], True, Stream("split"))
    )
    assert len(parts) == 4
    for before, after in itertools.pairwise(parts):
        assert after.before == before.after
    assert [key for part in parts for key in part.columns.keys] == [one.key for one in changes]
    assert all(len(part.raw) < seg.SEGMENT_SEALED_BYTES + 2000 for part in parts)
    one = Change(b"k", noise(seg.SEGMENT_SEALED_BYTES + 1))  # a single change is never split
    assert len(list(extend(LogState(world.log(VILLAGE)), [one], [1], 1, keys_of("x").sign, [], True, noise))) == 1


def test_extend_refuses_what_would_break_the_log(world: World) -> None:
    state = LogState(world.log(VILLAGE), merkle.Frontier.EMPTY, 100)
    key = keys_of("x").sign
    for changes, stamps, where in (
        ([], [], state),
        ([shop("a", VILLAGE)], [100], state),
        ([shop("a", VILLAGE)], [101], LogState(state.name, None)),
    ):
        with pytest.raises(ValueError, match="extend needs"):
            next(extend(where, changes, stamps, 1, key, [], True, Stream("x")))


def test_a_change_may_follow_the_one_before_it_in_the_same_call(world: World) -> None:
    changes = [Change(b"a", b"{}", base=7), Change(b"a", b"{}", base=JUST_BEFORE), Change(b"b", b"{}")]
    columns = world.segment("130102", changes, hlc=1 << 20).columns
    assert columns.bases == [7, 1 << 20, 0]
