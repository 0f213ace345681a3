"""Sealing: each reader opens, nobody else does; nothing can be swapped, and one ciphertext has one key."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import seal
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SealKey
from fednode.crypto.suite import SUITE_1

READERS = [SealKey.from_seed(bytes([n]) * 32) for n in range(1, 4)]
STRANGER = SealKey.from_seed(bytes(range(32)))
HEADER = b"header"
BODY = b"body of a segment" * 10
CONTENT_KEY = hashlib.sha256(b"content key").digest()
OTHER_KEY = hashlib.sha256(b"other content key").digest()


def sealed(header: bytes = HEADER, content_key: bytes = CONTENT_KEY, body: bytes = BODY) -> seal.Sealed:
    return seal.seal_body(body, header, [(key.key_id, key.public) for key in READERS], content_key, SUITE_1)


def refused(check: object, *arguments: object) -> None:
    assert callable(check)
    with pytest.raises(IntegrityError) as caught:
        check(*arguments)
    assert caught.value.code == "FN-6204"


def flip(data: bytes, bit: int) -> bytes:
    return data[: bit // 8] + bytes((data[bit // 8] ^ 1 << bit % 8,)) + data[bit // 8 + 1 :]


def test_each_reader_opens() -> None:
    done = sealed()
    assert (len(done.commit), [len(wrap) for wrap in done.wraps]) == (32, [seal.WRAP_BYTES] * 3)
    assert seal.WRAP_BYTES == 80
    for key, wrap in zip(READERS, done.wraps, strict=True):
        content_key = seal.unwrap(key.private, wrap, HEADER, SUITE_1)
        assert content_key == CONTENT_KEY
        assert seal.open_with_key(done.commit, done.ciphertext, HEADER, content_key, SUITE_1) == BODY


def test_no_readers_and_no_body() -> None:
    done = seal.seal_body(b"", HEADER, [], CONTENT_KEY, SUITE_1)
    assert done.wraps == ()
    assert seal.open_with_key(done.commit, done.ciphertext, HEADER, CONTENT_KEY, SUITE_1) == b""


def test_a_wrap_is_for_one_reader_in_one_segment() -> None:
    done = sealed()
    refused(seal.unwrap, STRANGER.private, done.wraps[0], HEADER, SUITE_1)
    refused(seal.unwrap, READERS[1].private, done.wraps[0], HEADER, SUITE_1)
    refused(seal.unwrap, READERS[0].private, done.wraps[0], b"Header", SUITE_1)
    for wrong in (b"", done.wraps[0][:-1], done.wraps[0] + b"\0", bytes(80)):
        refused(seal.unwrap, READERS[0].private, wrong, HEADER, SUITE_1)


@settings(deadline=None)
@given(st.integers(0, 8 * 80 - 1))
def test_no_bit_of_a_wrap_can_change(bit: int) -> None:
    # X25519 ignores the top bit of a public key, so RFC 9180 leaves it to the key schedule, which binds the very bytes
    refused(seal.unwrap, READERS[0].private, flip(sealed().wraps[0], bit), HEADER, SUITE_1)


@settings(deadline=None)
@given(st.data())
def test_no_bit_of_commitment_ciphertext_header_or_key_can_change(data: st.DataObject) -> None:
    done = sealed()
    parts = [done.commit, done.ciphertext, HEADER, CONTENT_KEY]
    for i, part in enumerate(parts):
        bit = data.draw(st.integers(0, 8 * len(part) - 1))
        refused(seal.open_with_key, *[*parts[:i], flip(part, bit), *parts[i + 1 :]], SUITE_1)
        refused(seal.open_with_key, *[*parts[:i], part[:-1], *parts[i + 1 :]], SUITE_1)


def test_parts_of_two_segments_do_not_mix() -> None:
    one, two = sealed(), sealed(b"other header")
    refused(seal.open_with_key, two.commit, one.ciphertext, HEADER, CONTENT_KEY, SUITE_1)
    refused(seal.open_with_key, one.commit, two.ciphertext, HEADER, CONTENT_KEY, SUITE_1)
    refused(seal.open_with_key, two.commit, two.ciphertext, HEADER, CONTENT_KEY, SUITE_1)
    refused(seal.unwrap, READERS[0].private, two.wraps[0], HEADER, SUITE_1)


def test_the_commitment_names_one_key() -> None:
    """The attack that AEAD alone allows: the sealer wraps another key to one of the readers."""
    one, two = sealed(), sealed(content_key=OTHER_KEY)
    assert one.commit != two.commit
    swapped = seal.unwrap(READERS[1].private, two.wraps[1], HEADER, SUITE_1)
    assert swapped == OTHER_KEY
    for commit in (one.commit, two.commit):
        refused(seal.open_with_key, commit, one.ciphertext, HEADER, swapped, SUITE_1)


def _times(x: int, y: int) -> int:
    """The product in GCM's field, bits as they stand in a block (NIST SP 800-38D 6.3)."""
    z = 0
    for i in range(127, -1, -1):
        if x >> i & 1:
            z ^= y
        y = y >> 1 ^ (0xE1 << 120 if y & 1 else 0)
    return z


def _power(x: int, exponent: int) -> int:
    found = 1 << 127
    for _ in range(exponent):
        found = _times(found, x)
    return found


def _inverse(x: int) -> int:
    found, square = 1 << 127, x
    for _ in range(127):  # x to the power of 2^128 - 2
        square = _times(square, square)
        found = _times(found, square)
    return found


def _opens_under_both(one: bytes, two: bytes, aad: bytes) -> bytes:
    """A block and a tag that AES-GCM opens under two keys (Albertini et al., 2022): the tag is linear in the block."""
    blocks = [int.from_bytes(aad[i : i + 16].ljust(16, b"\0"), "big") for i in range(0, len(aad), 16)]
    sizes = 8 * len(aad) << 64 | 128
    hashed, factor = [], []
    for key in (one, two):
        encryptor = Cipher(AES(key), ECB()).encryptor()
        h = int.from_bytes(encryptor.update(bytes(16)), "big")
        y = 0
        for block in blocks:
            y = _times(y ^ block, h)
        rest = _times(_times(y, h), h) ^ _times(sizes, h)
        hashed.append(rest ^ int.from_bytes(encryptor.update(bytes(12) + b"\0\0\0\1"), "big"))
        factor.append(_power(h, 2))
    block = _times(hashed[0] ^ hashed[1], _inverse(factor[0] ^ factor[1]))
    tag = hashed[0] ^ _times(block, factor[0])
    return block.to_bytes(16, "big") + tag.to_bytes(16, "big")


def test_what_two_keys_would_open_only_the_one_that_was_committed_to_does() -> None:
    """The attack of rule 1, carried out: without the commitment two readers would read two things of one segment."""
    header_hash = SUITE_1.hash(HEADER)
    commit = sealed().commit
    keys = [SUITE_1.mac(key, b"fednode content v1\n" + header_hash) for key in (CONTENT_KEY, OTHER_KEY)]
    aad = header_hash + commit
    both = _opens_under_both(*keys, aad)
    said = [SUITE_1.aead_open(key, bytes(12), both, aad) for key in keys]
    assert said[0] != said[1], "AES-GCM alone opens it twice"
    assert seal.open_with_key(commit, both, HEADER, CONTENT_KEY, SUITE_1) == said[0]
    refused(seal.open_with_key, commit, both, HEADER, OTHER_KEY, SUITE_1)


def test_the_commitment_is_neither_the_key_nor_shows_it() -> None:
    done = sealed()
    assert CONTENT_KEY not in done.commit + b"".join(done.wraps) + done.ciphertext
    refused(SUITE_1.aead_open, done.commit, bytes(12), done.ciphertext, b"")


def test_a_mistake_of_the_callers_is_no_integrity_error() -> None:
    with pytest.raises(ValueError, match="content key"):
        seal.seal_body(BODY, HEADER, [], bytes(31), SUITE_1)
    with pytest.raises(ValueError, match="key id"):
        seal.seal_body(BODY, HEADER, [(b"readerid", STRANGER.public)], CONTENT_KEY, SUITE_1)


def test_nothing_is_sealed_to_a_key_that_opens_for_anyone() -> None:
    small = bytes(32)
    with pytest.raises(IntegrityError) as caught:
        seal.seal_body(BODY, HEADER, [(SUITE_1.hash(small)[:8], small)], CONTENT_KEY, SUITE_1)
    assert caught.value.code == "FN-6205"


def test_the_digest_tells_every_arrangement_of_the_parts_apart() -> None:
    arrangements = [
        (b"header", b"commit", [b"wrap"], b"body"),
        (b"headerc", b"ommit", [b"wrap"], b"body"),
        (b"header", b"commitw", [b"rap"], b"body"),
        (b"header", b"commit", [b"wra", b"p"], b"body"),
        (b"header", b"commit", [b"wrap", b""], b"body"),
        (b"header", b"commit", [b"wrap", b"body"], b""),
        (b"header", b"commit", [], b"wrapbody"),
        (b"header", b"commit", [b"wrapbody"], b""),
        (b"", b"", [], b""),
        (b"", b"", [b""], b""),
        (b"header", b"commit", [b"wrap"], b"bodY"),
    ]
    digests = {seal.envelope_digest(*arrangement) for arrangement in arrangements}
    assert len(digests) == len(arrangements)
    assert seal.envelope_digest(b"h", b"c", (b"w",), b"b") == seal.envelope_digest(b"h", b"c", [b"w"], b"b")
