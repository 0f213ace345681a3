"""fednode.sync.rewrap: a key for a reader that came later: who may give it, who is given, and that it opens just that
segment."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import seal
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.sync import rewrap
from fednode.sync import segment as seg
from fednode.sync.errors import PeerError
from fednode.sync.identity import Directory, revocation_payload
from fednode.sync.log import OwnSegment
from fednode.sync.rewrap import REWRAP_BYTES_MAX, Renamed, Rewrap, giver_of, givers_of, readers_of
from rekeyed import identity, knowing, rekeyed
from world import NOW_S, World, shop

VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"
WORLD = World()
LATER = rekeyed(WORLD, COUNTY)
DIRECTORY = knowing(WORLD, LATER)
OWN = WORLD.segment(VILLAGE)
ENVELOPE, SHA256 = seg.parse(OWN.raw), hashlib.sha256(OWN.raw).digest()
VECTOR = Path(__file__).parent / "vectors" / "rewrap.json"


def given_by(
    by: str = PROVINCE,
    *,
    to: str = COUNTY,
    directory: Directory = DIRECTORY,
    own: OwnSegment = OWN,
    content_key: bytes | None = None,
    signer: str = "",
    **changed: Any,
) -> Rewrap:
    """A rewrap of a segment; `signer`: whose key signs it, `changed`: fields that are other than they should be."""
    envelope, sign = seg.parse(own.raw), WORLD.places[signer or by].keys.sign.sign
    made = rewrap.give(
        envelope,
        hashlib.sha256(own.raw).digest(),
        own.content_key if content_key is None else content_key,
        identity(directory, to),
        identity(directory, by),
        sign,
    )
    found = rewrap.parse(made)
    fields = {name: changed.get(name, getattr(found, name)) for name in ("sha256", "node", "key_id", "wrap", "giver")}
    log, first = changed.get("log", str(found.log)), changed.get("first", found.first)
    return rewrap.parse(rewrap.encode(log, first, **fields, sign=sign, suite=changed.get("suite", 1)))


def checked(found: Rewrap, directory: Directory = DIRECTORY, world: World = WORLD) -> str:
    return rewrap.check(found, directory, world.dataset).node


def refused(code: str, act: Callable[..., Any], *arguments: Any) -> None:
    with pytest.raises(PeerError) as caught:
        act(*arguments)
    assert caught.value.code == code


def opened(found: Rewrap, envelope: seg.Envelope = ENVELOPE, **more: Any) -> bytes:
    may = more.get("may", lambda version: True)
    key, columns = rewrap.open_with(found, envelope, more.get("private", LATER.keys.seal.private), may)
    assert columns == seg.open_with_content_key(ENVELOPE, OWN.content_key)
    return key


# ---------------------------------------------------------------- who


def test_who_reads_is_who_the_origin_would_seal_to() -> None:
    def names(node: str, **more: Any) -> list[str]:
        name = WORLD.log(node, **more)
        dataset = WORLD.dataset(name.dataset)
        assert dataset is not None
        return [one.node for one in readers_of(name, dataset, DIRECTORY)]

    assert names(VILLAGE) == [PROVINCE, COUNTY, TOWNSHIP, VILLAGE]  # the city carries
    assert names(COUNTY, audience=VILLAGE) == [PROVINCE, COUNTY, TOWNSHIP, VILLAGE]
    assert names(COUNTY) == [PROVINCE, COUNTY]
    assert names(CITY) == [PROVINCE, CITY]  # its level does not read, and it reads what it wrote
    assert names(COUNTY, dataset="sys.audit") == [PROVINCE, CITY, COUNTY]


def test_the_nearest_above_gives_else_the_nearest_below() -> None:
    readers = readers_of(WORLD.log(VILLAGE), WORLD.catalog.datasets["shop"], DIRECTORY)

    def givers(*sealed_to: str) -> dict[str, str]:
        keys = [SUITE_1.hash(one.seal_key)[:8] for one in readers if one.node in sealed_to]
        found = {one.node: giver_of(givers_of(one.node, readers, DIRECTORY), keys) for one in readers}
        return {node: giver.node if giver is not None else "" for node, giver in found.items()}

    nearest = {PROVINCE: COUNTY, COUNTY: PROVINCE, TOWNSHIP: COUNTY, VILLAGE: TOWNSHIP}
    assert givers(PROVINCE, COUNTY, TOWNSHIP, VILLAGE) == nearest
    # whoever took another's place may lack it, too
    assert givers(TOWNSHIP, VILLAGE) == {**nearest, PROVINCE: TOWNSHIP, COUNTY: TOWNSHIP, TOWNSHIP: VILLAGE}
    assert givers() == nearest
    alone = readers_of(WORLD.log(PROVINCE), WORLD.catalog.datasets["shop"], DIRECTORY)
    assert giver_of(givers_of(PROVINCE, alone, DIRECTORY), ()) is None


def test_who_was_revoked_neither_reads_nor_gives() -> None:
    directory = knowing(WORLD, LATER)
    directory.apply(PROVINCE, revocation_payload(TOWNSHIP, 1, NOW_S * 1000, "stolen"))
    refused("FN-5443", checked, given_by(TOWNSHIP), directory)
    refused("FN-5440", checked, given_by("130104"), with_revoked("130102"))
    refused("FN-5441", checked, given_by(COUNTY, to=TOWNSHIP, directory=WORLD.directory()), with_revoked(TOWNSHIP))


def with_revoked(node: str) -> Directory:
    directory = WORLD.directory()
    directory.apply(PROVINCE, revocation_payload(node, 1, NOW_S * 1000, "stolen"))
    return directory


# ---------------------------------------------------------------- one that is right


@pytest.mark.parametrize("giver", [PROVINCE, TOWNSHIP, VILLAGE])
def test_whoever_reads_may_give(giver: str) -> None:
    found = given_by(giver)
    assert checked(found) == COUNTY
    assert opened(found) == OWN.content_key


def test_the_segment_stays_as_it_is() -> None:
    given_by()
    assert ENVELOPE.raw == OWN.raw
    assert LATER.keys.seal.key_id not in ENVELOPE.header.readers


# ---------------------------------------------------------------- what is refused


def test_who_may_not_give() -> None:
    refused("FN-5440", checked, given_by(CITY))  # its level carries and does not read
    refused("FN-5440", checked, given_by("130104"))  # another county
    refused("FN-5440", checked, given_by(PROVINCE, giver="13/2"))  # a life that is not in force
    refused("FN-5440", checked, given_by(PROVINCE, giver="13"))
    refused("FN-5440", checked, given_by(PROVINCE, log=f"tianjin/{VILLAGE}/1/shop"))
    refused("FN-5440", checked, given_by(PROVINCE, log=f"hebei/{VILLAGE}/1/sys.nodes"))  # nothing is sealed there
    refused("FN-5440", checked, given_by(PROVINCE, log=f"hebei/{VILLAGE}/1/unheard-of"))


def test_who_may_not_be_given() -> None:
    """A level that does not read, a node on another branch, a key that is not in force."""
    refused("FN-5441", checked, given_by(PROVINCE, to=CITY))
    refused("FN-5441", checked, given_by(PROVINCE, to="130104"))
    refused("FN-5443", checked, given_by(PROVINCE, directory=WORLD.directory()))
    refused("FN-5443", checked, given_by(PROVINCE, to=TOWNSHIP, node=COUNTY))
    refused("FN-5443", checked, given_by(PROVINCE, to=COUNTY, node=f"{COUNTY}-s1"))  # a standby that succeeded it
    with pytest.raises(Renamed):  # passed over: nothing is wrong
        checked(given_by(PROVINCE, to=COUNTY, node=f"{COUNTY}-s1"))


def test_a_forged_signature() -> None:
    refused("FN-6406", checked, given_by(PROVINCE, signer=CITY))
    raw = bytearray(given_by().raw)
    raw[-1] ^= 1
    refused("FN-6406", checked, rewrap.parse(bytes(raw)))


@settings(max_examples=80, derandomize=True, deadline=None)
@given(st.data())
def test_no_byte_can_be_changed(data: st.DataObject) -> None:
    raw = bytearray(GOOD.raw)
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(PeerError):
        checked(rewrap.parse(bytes(raw)))


def test_one_of_another_segment_opens_nothing() -> None:
    other = WORLD.segment(VILLAGE, [shop("c", VILLAGE)], state=OWN.after, hlc=(NOW_S * 1000 + 1) << 16)
    moved = given_by(own=other)
    refused("FN-6404", opened, moved)
    bound = given_by(sha256=hashlib.sha256(other.raw).digest())  # its wrap was made for the bytes of the first
    refused("FN-6404", opened, bound, seg.parse(other.raw))


def test_a_key_that_is_not_the_segments_opens_nothing() -> None:
    """The envelope commits to its key: whoever gives, it is this body or none."""
    refused("FN-6404", opened, given_by(content_key=bytes(32)))
    right = seal.rewrap(LATER.keys.seal.public, SHA256, OWN.content_key, SUITE_1)
    wrong = right[:-1] + bytes((right[-1] ^ 1,))
    refused("FN-6404", opened, given_by(wrap=wrong))
    refused("FN-6404", opened, given_by(wrap=wrong[:-1]))


def test_a_wrap_of_the_envelope_is_no_rewrap() -> None:
    index = ENVELOPE.header.readers.index(WORLD.places[COUNTY].keys.seal.key_id)
    with pytest.raises(IntegrityError):
        seal.unwrap_again(WORLD.places[COUNTY].keys.seal.private, ENVELOPE.wraps[index], SHA256, SUITE_1)
    again = seal.rewrap(WORLD.places[COUNTY].keys.seal.public, SHA256, OWN.content_key, SUITE_1)
    with pytest.raises(IntegrityError):
        seal.unwrap(WORLD.places[COUNTY].keys.seal.private, again, ENVELOPE.header.raw, SUITE_1)


def test_nobody_elses_key_opens_it() -> None:
    with pytest.raises(PeerError) as caught:
        opened(given_by(), private=WORLD.places[COUNTY].keys.seal.private)
    assert caught.value.code == "FN-6404"


def test_a_level_that_did_not_read_when_it_was_written() -> None:
    asked: list[int] = []
    with pytest.raises(PeerError) as caught:
        opened(given_by(), may=lambda version: asked.append(version))
    assert (caught.value.code, asked) == ("FN-5441", [1])


# ---------------------------------------------------------------- bytes


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (b"", "FN-6402"),
        (b"\x01" * 64, "FN-6402"),
        (b"\x02" + bytes(200), "FN-6403"),
        (b"\x01\x01" + bytes(200), "FN-6402"),
        (b"\x01\x01\xff\xff" + bytes(200), "FN-6402"),
        (b"\x01\x01\x00\x01\xff" + bytes(200), "FN-6402"),
        (b"\x01" * (REWRAP_BYTES_MAX + 1), "FN-6402"),
    ],
)
def test_bytes_that_are_none(raw: bytes, code: str) -> None:
    refused(code, rewrap.parse, raw)


def test_a_log_that_has_no_name() -> None:
    refused("FN-6410", lambda: given_by(log="hebei/13"))


def test_what_follows_is_refused() -> None:
    refused("FN-6402", rewrap.parse, GOOD.raw + b"\0")
    refused("FN-6402", rewrap.parse, GOOD.raw[:-1])


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_read_or_refused(raw: bytes, like: bool) -> None:
    with suppress(PeerError):
        rewrap.parse(b"\x01\x01" + raw if like else raw)


def test_an_envelope_is_never_taken_for_one() -> None:
    assert rewrap.is_rewrap(GOOD.raw)
    assert not rewrap.is_rewrap(OWN.raw)
    assert not rewrap.is_rewrap(b"")


GOOD = given_by()


def vector() -> dict[str, Any]:
    """What make_vectors writes: the wrap is fresh every time, all else is not."""
    found = given_by()
    return {
        "envelope": OWN.raw.hex(),
        "content_key": OWN.content_key.hex(),
        "reader_private": LATER.keys.seal.private.hex(),
        "wrap": found.wrap.hex(),
        "rewrap": found.raw.hex(),
    }


def test_golden_bytes() -> None:
    kept = {name: bytes.fromhex(text) for name, text in json.loads(VECTOR.read_text()).items()}
    found = rewrap.parse(kept["rewrap"])
    envelope = seg.parse(kept["envelope"])
    assert (found.log, found.first, found.node, found.giver) == (envelope.header.log, 0, COUNTY, "13/1")
    assert found.sha256 == hashlib.sha256(kept["envelope"]).digest()
    assert checked(found) == COUNTY
    key, _ = rewrap.open_with(found, envelope, kept["reader_private"], lambda version: True)
    assert key == kept["content_key"]
    sign = WORLD.places[PROVINCE].keys.sign.sign
    fields = (found.sha256, found.node, found.key_id, kept["wrap"], found.giver)
    assert rewrap.encode(str(found.log), found.first, *fields, sign) == kept["rewrap"]
