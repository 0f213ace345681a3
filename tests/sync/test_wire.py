"""Frames: every message comes back as it was; whatever else comes in is one of the declared errors."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.proto import fednode_pb2 as pb
from fednode.sync import wire
from fednode.sync.clock import WALL_MS_MAX
from fednode.sync.errors import PeerError
from fednode.sync.health import HealthEntry, Seen

U64 = st.integers(0, 2**64 - 1)
NUMBER = st.integers(0, wire.NUMBER_MAX)
U32 = st.integers(0, 2**32 - 1)
WORDS = st.text(st.characters(codec="utf-8"), max_size=40)
HASH = st.binary(min_size=32, max_size=32)

cursors = st.one_of(
    st.just(wire.Cursor()),
    st.builds(wire.Cursor, st.binary(max_size=32), st.integers(1, wire.NUMBER_MAX), st.binary(max_size=8)),
)
cosignatures = st.builds(wire.Cosignature, st.integers(0, 1 << 40), st.binary(min_size=64, max_size=64), WORDS)
chains = st.lists(st.binary(max_size=50), max_size=wire.CHAIN_LENGTH_MAX).map(tuple)
messages = st.one_of(
    st.builds(
        wire.Hello,
        node=WORDS,
        chain=chains,
        now_ms=st.integers(0, WALL_MS_MAX),
        store=st.binary(max_size=32),
        have=cursors,
        acked=NUMBER,
        window=U64,
        partial=st.none() | st.builds(wire.Partial, NUMBER, st.binary(max_size=32), NUMBER),
        feeds=st.booleans(),
        wants=st.booleans(),
        catalog_version=NUMBER,
        software=WORDS,
        version_min=U32,
        version_max=U32,
        witnessed=st.none() | NUMBER,
        unsure=st.booleans(),
        restore=st.booleans(),
        above=st.lists(U32, max_size=wire.CHAIN_LENGTH_MAX).map(tuple),
        lives=st.lists(st.binary(max_size=50), max_size=wire.LIVES_MAX).map(tuple),
        health=st.none() | st.builds(wire.HealthPlace, U32, NUMBER),
    ),
    st.builds(
        wire.Chunk,
        lsn=NUMBER,
        offset=NUMBER,
        data=st.binary(min_size=1, max_size=200),
        total=NUMBER,
        digest=st.just(b"") | HASH,
        first_parent=st.none() | cosignatures,
        idle=st.booleans(),
    ),
    st.builds(
        wire.Ack,
        st.lists(
            st.builds(wire.Outcome, NUMBER, st.none() | cosignatures, st.text("FN-0123456789", max_size=16)), max_size=5
        ).map(tuple),
    ),
    st.builds(wire.Credit, U64),
    st.builds(wire.Idle, U64),
    st.builds(
        wire.Beat,
        U64,
        st.none() | st.builds(wire.Lag, NUMBER, NUMBER),
        st.none() | st.lists(WORDS, max_size=3).map(tuple),
        st.none() | st.builds(wire.RecordsDigest, NUMBER, NUMBER, NUMBER, st.text("0123456789abcdef", max_size=64)),
        st.none() | st.lists(WORDS, max_size=3).map(tuple),
    ),
    st.builds(wire.Bye, st.text("FN-0123456789", max_size=16), WORDS, U64, st.dictionaries(WORDS, WORDS, max_size=4)),
    st.builds(wire.Want, WORDS, NUMBER),
    st.builds(wire.Missing, WORDS, NUMBER),
    st.builds(wire.Renew, st.binary(max_size=200)),
    st.builds(wire.Renewed, chains, st.text("FN-0123456789", max_size=16)),
    st.builds(wire.Late, NUMBER, WORDS, NUMBER, HASH, cosignatures),
    st.builds(
        wire.Holdings,
        st.lists(
            st.builds(wire.Holding, WORDS, NUMBER, st.binary(min_size=8, max_size=8), st.none() | cosignatures),
            max_size=4,
        ).map(tuple),
        st.booleans(),
    ),
    st.builds(
        wire.Witnessed,
        NUMBER,
        st.lists(
            st.builds(wire.WitnessedHead, WORDS, NUMBER, st.lists(cosignatures, max_size=3).map(tuple)), max_size=3
        ).map(tuple),
    ),
    st.builds(
        wire.Health,
        st.builds(wire.HealthPlace, U32, NUMBER),
        st.lists(
            st.builds(
                HealthEntry,
                WORDS,
                st.integers(1, 2**32 - 1),
                st.none() | st.builds(Seen, st.integers(0, 1 << 40), st.booleans()),
                st.none() | st.binary(max_size=40),
                st.none() | st.binary(max_size=40),
            ),
            max_size=3,
        ).map(tuple),
    ),
)


def refused(code: str, data: bytes, reason: str = "") -> None:
    with pytest.raises(PeerError) as caught:
        wire.decode(data)
    assert caught.value.code == code
    if reason:
        assert caught.value.params["reason"] == reason


@settings(max_examples=400, derandomize=True, deadline=None)
@given(U64, messages)
def test_every_message_comes_back(number: int, message: Any) -> None:
    assert wire.decode(wire.encode(number, message)) == (number, message)


def test_every_kind_of_message_is_tried_above_and_known_on_both_sides() -> None:
    kinds = set(get_args(wire.Message))
    assert set(wire._OUT) == kinds
    assert set(wire._IN) == {field.name for field in pb.Frame.DESCRIPTOR.oneofs_by_name["body"].fields}
    assert len(wire._IN) == len(kinds)


KINDS = {"Unknown", "FN-5501", "FN-5502", "FN-5503", *(kind.__name__ for kind in get_args(wire.Message))}


def kind_of(data: bytes) -> str:
    """The name of the message, or the code of the refusal."""
    try:
        return type(wire.decode(data)[1]).__name__
    except PeerError as error:
        return error.code


@settings(max_examples=500, derandomize=True, deadline=None)
@given(st.binary(max_size=300))
def test_garbage_is_a_peer_error_or_a_message(data: bytes) -> None:
    assert kind_of(data) in KINDS


@settings(max_examples=300, derandomize=True, deadline=None)
@given(messages, st.data())
def test_an_altered_frame_is_a_peer_error_or_a_message(message: Any, data: st.DataObject) -> None:
    frame = bytearray(wire.encode(3, message))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    assert kind_of(bytes(frame[: data.draw(st.integers(0, len(frame)))])) in KINDS


def test_a_newer_peers_fields_are_ignored_and_its_frames_refused() -> None:
    frame = wire.encode(1, wire.Idle(3))
    assert wire.decode(frame + b"\xf8\x07\x01") == (1, wire.Idle(3))  # field 127
    refused("FN-5503", b"\x08\x01" + b"\xfa\x07\x00")
    refused("FN-5503", b"")
    assert wire.decode(b"\x08\x01" + b"\xfa\x7c\x00") == (1, wire.Unknown(1999))  # a hint
    refused("FN-5503", b"\x08\x01" + b"\xfa\x3f\x00", "1023")  # to be understood
    refused("FN-5503", b"\x08\x01" + b"\xf8\x7c\x00")  # not a message
    refused("FN-5503", b"\x08\x01" + b"\xfa\x7c\x00\xf2\x7c\x00")  # two


def test_the_params_of_a_bye_are_cut() -> None:
    given_ = {f"k{i:02}": "v" for i in range(wire.PARAMS_MAX + 1)} | {"a": "x" * 201}
    _, bye = wire.decode(wire.encode(1, wire.Bye("FN-5505", params=given_)))
    assert isinstance(bye, wire.Bye)
    assert len(bye.params) == wire.PARAMS_MAX
    assert bye.params["a"] == "x" * 200


def test_the_frame_limit() -> None:
    empty = len(pb.Frame(number=1, renew=pb.Renew(request=b"")).SerializeToString())
    size = wire.FRAME_BYTES_MAX - empty - 6  # a tag, and lengths of three bytes
    frame = wire.encode(1, wire.Renew(bytes(size)))
    assert len(frame) == wire.FRAME_BYTES_MAX
    assert wire.decode(frame)[0] == 1
    refused("FN-5501", wire.encode(1, wire.Renew(bytes(size + 1))))


def test_the_chunk_limit() -> None:
    at = wire.Chunk(1, 0, bytes(wire.CHUNK_BYTES_MAX))
    assert wire.decode(wire.encode(1, at)) == (1, at)
    refused("FN-5502", wire.encode(1, wire.Chunk(1, 0, bytes(wire.CHUNK_BYTES_MAX + 1))), "chunk")
    refused("FN-5502", wire.encode(1, wire.Chunk(1, 0, b"")), "chunk")
    for size in (1, 31, 33):
        refused("FN-5502", wire.encode(1, wire.Chunk(1, 0, b"x", 1, bytes(size))), "digest")


def test_the_ack_limit() -> None:
    at = wire.Ack(tuple(wire.Outcome(i) for i in range(wire.OUTCOMES_MAX)))
    assert wire.decode(wire.encode(1, at)) == (1, at)
    refused("FN-5502", wire.encode(1, wire.Ack((*at.outcomes, wire.Outcome(1)))), "ack")


def test_the_largest_ack_fits_a_frame() -> None:
    """512 cosigned outcomes at the end of a long life: lsn and time as large as they get."""
    outcome = wire.Outcome(2**63, wire.Cosignature(1 << 40, bytes(64)))
    assert len(wire.encode(2**63, wire.Ack((outcome,) * wire.OUTCOMES_MAX))) <= wire.FRAME_BYTES_MAX


def test_the_largest_chunk_and_hello_fit_a_frame() -> None:
    cosigned = wire.Cosignature(1 << 40, bytes(64), "w" * 64)
    chunk = wire.Chunk(2**63, 2**22, bytes(wire.CHUNK_BYTES_MAX), 2**22, bytes(32), cosigned)
    assert len(wire.encode(2**63, chunk)) <= wire.FRAME_BYTES_MAX


def test_the_chain_limits() -> None:
    certificate = bytes(wire.CERTIFICATE_BYTES_MAX)
    assert wire.decode(wire.encode(1, wire.Renewed((certificate,)))) == (1, wire.Renewed((certificate,)))
    refused("FN-5502", wire.encode(1, wire.Renewed((certificate + b"x",))), "certificate")
    many = (b"c",) * wire.CHAIN_LENGTH_MAX
    assert wire.decode(wire.encode(1, wire.Renewed(many))) == (1, wire.Renewed(many))
    refused("FN-5502", wire.encode(1, wire.Renewed((*many, b"c"))), "chain")


@pytest.mark.parametrize(
    "given_",
    [
        wire.Cosignature(1, bytes(63)),
        wire.Cosignature(1, bytes(65)),
        wire.Cosignature((1 << 40) + 1, bytes(64)),
        wire.Cosignature(1, bytes(64), "w" * 65),
    ],
)
def test_the_cosignature_limits(given_: wire.Cosignature) -> None:
    refused("FN-5502", wire.encode(1, wire.Ack((wire.Outcome(1, given_),))), "cosignature")
    refused("FN-5502", wire.encode(1, wire.Late(1, "log", 1, bytes(32), given_)), "cosignature")
    refused("FN-5502", wire.encode(1, wire.Chunk(1, 0, b"x", first_parent=given_)), "cosignature")


@pytest.mark.parametrize(
    "hello",
    [
        wire.Hello("n", (), 0, bytes(33)),
        wire.Hello("n", (), 0, b"", wire.Cursor(bytes(33), 1)),
        wire.Hello("n", (), 0, b"", wire.Cursor(b"", 1, bytes(9))),
        wire.Hello("n", (), 0, b"", partial=wire.Partial(1, bytes(33), 1)),
    ],
)
def test_the_hello_limits(hello: wire.Hello) -> None:
    refused("FN-5502", wire.encode(1, hello), "hello")


def test_the_limits_of_what_is_said_of_those_above() -> None:
    at = wire.Hello("n", (), 0, b"", above=(1,) * wire.CHAIN_LENGTH_MAX, lives=(b"x",) * wire.LIVES_MAX)
    assert wire.decode(wire.encode(1, at)) == (1, at)
    longest = wire.Hello("n", (), 0, b"", lives=(bytes(wire.CERTIFICATE_BYTES_MAX),))
    assert wire.decode(wire.encode(1, longest)) == (1, longest)
    refused("FN-5502", wire.encode(1, wire.Hello("n", (), 0, b"", above=(1,) * (wire.CHAIN_LENGTH_MAX + 1))), "above")
    refused("FN-5502", wire.encode(1, wire.Hello("n", (), 0, b"", lives=(b"x",) * (wire.LIVES_MAX + 1))), "chain")
    over = wire.Hello("n", (), 0, b"", lives=(bytes(wire.CERTIFICATE_BYTES_MAX + 1),))
    refused("FN-5502", wire.encode(1, over), "certificate")


@pytest.mark.parametrize(("root", "log"), [(bytes(31), "l"), (bytes(33), "l"), (bytes(32), "l" * 257)])
def test_the_late_limits(root: bytes, log: str) -> None:
    refused("FN-5502", wire.encode(1, wire.Late(1, log, 1, root, wire.Cosignature(1, bytes(64)))), "late")


def _told(heads: int, each: int, log: str = "l", **more: Any) -> wire.Witnessed:
    given_ = (wire.Cosignature(1, bytes(64), "13"),) * each
    return wire.Witnessed(more.get("upto", 1), (wire.WitnessedHead(log, more.get("size", 1), given_),) * heads)


def test_the_limits_of_what_witnesses_have_signed() -> None:
    for at in (_told(512, 1, "l" * 80), _told(1, 512), _told(1, 1, "l" * 256), _told(512, 0)):
        assert wire.decode(wire.encode(1, at)) == (1, at)
    for over in (_told(513, 0), _told(513, 1), _told(1, 513), _told(27, 19), _told(1, 1, "l" * 257)):
        refused("FN-5502", wire.encode(1, over), "witnessed")
    refused("FN-5502", wire.encode(1, wire.Witnessed(1, (wire.WitnessedHead("l", 1, (COSIGNED_WRONG,)),))))


COSIGNED_WRONG = wire.Cosignature(1, bytes(63), "13")


def test_words_of_a_peer_are_cut() -> None:
    _, bye = wire.decode(wire.encode(1, wire.Bye("FN-5501" * 9, "d" * 900)))
    assert bye == wire.Bye(("FN-5501" * 9)[:16], "d" * 500)
    _, want = wire.decode(wire.encode(1, wire.Want("l" * 900, 1)))
    assert want == wire.Want("l" * 256, 1)


COSIGNED = wire.Cosignature(1, bytes(64))


@pytest.mark.parametrize(
    "make",
    [
        lambda n: wire.Hello("n", (), 0, b"", wire.Cursor(b"", n)),
        lambda n: wire.Hello("n", (), 0, b"", acked=n),
        lambda n: wire.Hello("n", (), 0, b"", catalog_version=n),
        lambda n: wire.Hello("n", (), 0, b"", partial=wire.Partial(n, b"", 1)),
        lambda n: wire.Hello("n", (), 0, b"", partial=wire.Partial(1, b"", n)),
        lambda n: wire.Chunk(n, 0, b"x"),
        lambda n: wire.Chunk(1, n, b"x"),
        lambda n: wire.Chunk(1, 0, b"x", n),
        lambda n: wire.Ack((wire.Outcome(1), wire.Outcome(n))),
        lambda n: wire.Want("log", n),
        lambda n: wire.Missing("log", n),
        lambda n: wire.Late(n, "log", 1, bytes(32), COSIGNED),
        lambda n: wire.Late(1, "log", n, bytes(32), COSIGNED),
        lambda n: _told(1, 1, upto=n),
        lambda n: _told(1, 1, size=n),
        lambda n: wire.Hello("n", (), 0, b"", witnessed=n),
    ],
)
def test_regression_numbers_fit_a_store(make: Any) -> None:
    """One that did not was an OverflowError in SQLite, in the writer's group or in the event loop."""
    at = make(wire.NUMBER_MAX)
    assert wire.decode(wire.encode(1, at)) == (1, at)
    refused("FN-5502", wire.encode(1, make(wire.NUMBER_MAX + 1)), "number")


def test_a_clock_of_a_peer_fits_a_stamp() -> None:
    at = wire.Hello("n", (), WALL_MS_MAX, b"")
    assert wire.decode(wire.encode(1, at)) == (1, at)
    refused("FN-5502", wire.encode(1, wire.Hello("n", (), WALL_MS_MAX + 1, b"")), "clock")
