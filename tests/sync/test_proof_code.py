"""Proof files as QR codes: RFC 9285's examples, the very bytes back, limits, and nothing else taken."""

from __future__ import annotations

import base64
import zlib

import pytest
import segno
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import tlogproof
from fednode.crypto.errors import IntegrityError
from fednode.sync import proof_code, proof_file
from fednode.sync.proof_code import (
    CODE_CHARACTERS_MAX,
    PREFIX,
    PREFIX_2,
    base45_decode,
    base45_encode,
    from_code,
    to_code,
)
from proofs import made
from world import NOW_S, World

WORLD = World()
PROVINCE = made(WORLD, writer="13", witnesses=(), maker="13")
COUNTY = made(WORLD, writer="130102", witnesses=(("1301", NOW_S + 5), ("13", NOW_S + 5)), maker="130102")
VILLAGE = made(WORLD)


@pytest.mark.parametrize(
    ("plain", "coded"),
    [(b"AB", "BB8"), (b"Hello!!", "%69 VD92EX0"), (b"base-45", "UJCLQE7W581"), (b"ietf!", "QED8WEX0")],
)
def test_published_examples(plain: bytes, coded: str) -> None:
    """RFC 9285 sections 4.3 and 4.4."""
    assert base45_encode(plain) == coded
    assert base45_decode(coded) == plain


@given(st.binary(max_size=200))
def test_base45_comes_back(data: bytes) -> None:
    assert base45_decode(base45_encode(data)) == data


@pytest.mark.parametrize("text", ["A", "::", ":::", "BB8A", "bb8", "GGW"])
def test_what_is_not_base45(text: str) -> None:
    with pytest.raises(ValueError, match="base45"):
        base45_decode(text)


@pytest.mark.parametrize("data", [PROVINCE, COUNTY], ids=["province", "county"])
def test_a_proof_fits_in_one_code_and_comes_back_byte_for_byte(data: bytes) -> None:
    code = to_code(data)
    assert code is not None
    assert from_code(code) == data
    made_of = segno.make(code, error="l", micro=False)
    assert made_of.mode == "alphanumeric"


def test_what_does_not_fit_is_named() -> None:
    assert to_code(VILLAGE) is None
    checked = proof_file.check(VILLAGE, WORLD.root_der)
    root = base64.b64encode(checked.head.root).decode()
    lines = proof_code.reference(VILLAGE, checked).split("\n")
    assert lines[:4] == ["fednode proof", "hebei/130102001001/1/shop", "3 7", root]
    assert lines[4].startswith("sha256 ")


def test_the_longest_code_is_the_longest_that_a_qr_code_takes() -> None:
    assert segno.make("A" * CODE_CHARACTERS_MAX, error="l").version == 40
    with pytest.raises(segno.DataOverflowError):
        segno.make("A" * (CODE_CHARACTERS_MAX + 1), error="l")


def refused(text: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        from_code(text)
    assert caught.value.code == "FN-6221"


def test_damaged_codes_are_refused() -> None:
    code = to_code(PROVINCE)
    assert code is not None
    packed = zlib.compress(bytes(100))
    bomb = zlib.compress(bytes(8 * 1024 * 1024), 9)
    for text in (
        *("", "FNP2:" + code[5:], "FNP3:" + code[5:], code[:-3], code + "000", code.lower(), code[5:]),
        *(
            PREFIX,
            PREFIX + "A" * CODE_CHARACTERS_MAX,
            PREFIX + base45_encode(packed),
            PREFIX + base45_encode(bomb)[:4000],
        ),
    ):
        refused(text)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2000), st.sampled_from("0AZ:$"))
def test_an_altered_code_is_never_another_proof(at: int, character: str) -> None:
    code = to_code(PROVINCE)
    assert code is not None
    altered = code[:at] + character + code[at + 1 :]
    if altered == code:
        return
    with pytest.raises(IntegrityError):
        proof_file.check(from_code(altered), WORLD.root_der)


@given(st.text(max_size=60), st.sampled_from([PREFIX, PREFIX_2]))
def test_any_text_is_refused_or_a_proof(text: str, prefix: str) -> None:
    refused(prefix + text)


@given(st.binary(max_size=400), st.sampled_from([PREFIX, PREFIX_2]))
def test_any_bytes_are_refused(data: bytes, prefix: str) -> None:
    refused(prefix + base45_encode(zlib.compress(data)))


def test_the_first_form_is_written_where_it_fits_and_both_are_read() -> None:
    """Release 0.1 reads the first. Its certificates were shorter: what it made of this county's proof is recorded."""
    for data, prefix in ((PROVINCE, PREFIX), (COUNTY, PREFIX_2)):
        code = to_code(data)
        assert code is not None
        assert code.startswith(prefix)
        assert proof_code.is_code(code.encode())
    old = made(World(wide=False), writer="130102", witnesses=(("1301", NOW_S + 5), ("13", NOW_S + 5)), maker="130102")
    code = to_code(old)
    assert code is not None
    assert code.startswith(PREFIX)
    assert from_code(code) == old


def test_an_extra_that_does_not_come_back_as_it_was_does_not_fit() -> None:
    """The second form makes the extra again; one that is not canonical would come back as another file."""
    file = tlogproof.parse(COUNTY)
    extra = file.extra.replace(b'{"by":', b'{ "by":', 1)
    assert extra != file.extra
    odd = tlogproof.TlogProof(file.index, file.hashes, file.checkpoint, extra).format().encode()
    assert to_code(odd) is None
