"""Proof files as C2SP tlog-proof says: one form, every limit, and what another implementation reads."""

from __future__ import annotations

import contextlib
import hashlib

import proofbundle.tlogproof as theirs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.crypto import checkpoint, merkle, note, proof, tlogproof
from fednode.crypto.checkpoint import Checkpoint
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SigningKey
from fednode.crypto.tlogproof import FILE_BYTES_MAX, TlogProof

KEY = SigningKey.from_seed(bytes(range(32)))
DATA = [bytes((n,)) for n in range(7)]
LEAVES = [hashlib.sha256(b"\0" + one).digest() for one in DATA]
HEAD = Checkpoint("hebei/13/1/shop", 7, merkle.root(LEAVES))
NOTE = note.parse(checkpoint.to_note(HEAD, "hebei/13", KEY.public, checkpoint.signature(HEAD, KEY)))


def made(index: int, extra: bytes = b"more") -> str:
    return TlogProof(index, tuple(proof.inclusion(proof.over(LEAVES), index, 7)), NOTE, extra).format()


def refused(data: bytes, code: str = "FN-6221") -> None:
    with pytest.raises(IntegrityError) as caught:
        tlogproof.parse(data)
    assert caught.value.code == code


@given(st.integers(0, 10**19 - 1), st.lists(st.binary(min_size=32, max_size=32), max_size=65), st.binary(max_size=300))
def test_what_is_written_is_read_back(index: int, hashes: list[bytes], extra: bytes) -> None:
    file = TlogProof(index, tuple(hashes), NOTE, extra)
    assert tlogproof.parse(file.format().encode()) == file


@given(st.binary(max_size=200), st.integers(0, 6), st.integers(0, 10**6))
def test_a_reader_ends_and_takes_one_form_alone(noise: bytes, index: int, at: int) -> None:
    whole = made(index).encode()
    at %= len(whole)
    for data in (noise, whole[:at] + noise, whole[:at] + noise + whole[at:]):
        with contextlib.suppress(IntegrityError):
            assert tlogproof.parse(data).format().encode() == data


@pytest.mark.parametrize(
    ("was", "now"),
    [
        ("tlog-proof@v1", "tlog-proof@v2"),
        ("extra bW9yZQ==\n", "extra \n"),
        ("extra bW9yZQ==", "extra bW9yZR=="),
        ("index 5", "index 05"),
        ("index 5", "index -5"),
        ("index 5", "index \u0665"),
        ("index 5", "index 10000000000000000000"),
        ("index 5\n", ""),
        ("index 5", "Index 5"),
        ("\nindex", "\nmore bW9yZQ==\nindex"),
        ("index 5\n", "index 5\nAAAA\n"),
        ("index 5\n", "index 5\n" + "A" * 43 + "=\n" * 1 + ("A" * 43 + "=\n") * 65),
        ("\n", "\r\n"),
    ],
)
def test_other_forms_are_refused(was: str, now: str) -> None:
    whole = made(5)
    assert was in whole
    refused(whole.replace(was, now, 1).encode())


def test_the_largest_file_and_one_byte_more() -> None:
    refused(bytes(FILE_BYTES_MAX))
    refused(bytes(FILE_BYTES_MAX + 1), "FN-6220")


def test_no_extra_and_no_path() -> None:
    file = TlogProof(0, (), NOTE)
    assert file.format().splitlines()[:3] == ["c2sp.org/tlog-proof@v1", "index 0", ""]
    assert tlogproof.parse(file.format().encode()) == file


def test_another_implementation_reads_and_verifies_ours_and_we_read_theirs() -> None:
    key = note.verifier_key("hebei/13", note.ED25519, KEY.public)
    for index, data in enumerate(DATA):
        found = theirs.verify_tlog_proof(made(index), data, key, expected_origin=HEAD.origin)
        assert (found["ok"], found["index"], found["root"]) == (True, index, HEAD.root)
        assert not theirs.verify_tlog_proof(made(index), b"other", key)["ok"]
        path = proof.inclusion(proof.over(LEAVES), index, 7)
        assert theirs.format_tlog_proof(index, path, NOTE.format(), b"more") == made(index)
