"""Sealing: a body encrypted under a fresh key, the key wrapped to each reader, all of it bound to the header in clear.

Rules
1. The encryption key and a public commitment are both derived from (content key, header): no second key opens a
   ciphertext (AES-GCM alone does not commit; Albertini et al., "How to Abuse and Fix Authenticated Encryption Without
   Key Commitment", 2022).
2. A content key seals one body under one header, so the derived key is used once and its nonce is zero.
3. The header's hash is in the HPKE info and in the associated data: header and body cannot be swapped. So is the
   reader's key id in the info: a wrap works in no other reader's place.
4. The commitment is compared before anything is decrypted.
5. HPKE in base mode does not say who sent: the sealer signs `envelope_digest`, which a relay that cannot read checks.
6. The content key may be wrapped again, to a reader that the sealer did not have (`rewrap`): bound to the very
   envelope, under an info of its own. By rule 1 it opens that one body or nothing, whoever gave it.

>>> from fednode.crypto.keys import SealKey
>>> key = SealKey.from_seed(bytes(31) + b"\\x01")
>>> done = seal_body(b"body", b"header", [(key.key_id, key.public)], bytes(32), SUITE_1)
>>> content_key = unwrap(key.private, done.wraps[0], b"header", SUITE_1)
>>> open_with_key(done.commit, done.ciphertext, b"header", content_key, SUITE_1)
b'body'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1, Suite

KEY_BYTES = 32
WRAP_BYTES = 32 + KEY_BYTES + 16  # encapsulated key, content key, tag
_NONCE = bytes(12)
_CONTENT, _COMMIT, _WRAP = b"fednode content v1\n", b"fednode commit v1\n", b"fednode wrap v1\n"
_REWRAP = b"fednode rewrap v1\n"


@dataclass(frozen=True, slots=True)
class Sealed:
    """`commit`: 32 bytes; `wraps`: one for each reader, enc || ciphertext of the content key."""

    commit: bytes
    wraps: tuple[bytes, ...]
    ciphertext: bytes


def envelope_digest(header: bytes, commit: bytes, wraps: Sequence[bytes], body: bytes) -> bytes:
    """What the sealer signs: every part, each by its hash, so no two envelopes share a digest."""
    hashed = SUITE_1.hash
    parts = b"".join(hashed(part) for part in (header, commit, *wraps, body))
    return b"fednode envelope v1\n" + hashed(len(wraps).to_bytes(4, "big") + parts)


def _key_id(public: bytes, suite: Suite) -> bytes:
    return suite.hash(public)[:8]


def _derived(content_key: bytes, header_hash: bytes, suite: Suite) -> tuple[bytes, bytes]:
    return suite.mac(content_key, _CONTENT + header_hash), suite.mac(content_key, _COMMIT + header_hash)


def seal_body(
    body: bytes, header: bytes, readers: Sequence[tuple[bytes, bytes]], content_key: bytes, suite: Suite
) -> Sealed:
    """Encrypt a body. `readers`: (key id, raw public key); `content_key`: 32 fresh random bytes.

    Raises IntegrityError FN-6205 for a reader's key that must not be used."""
    if len(content_key) != KEY_BYTES or any(key_id != _key_id(public, suite) for key_id, public in readers):
        raise ValueError("a content key has 32 bytes, a key id is the start of the hash of the key")
    header_hash = suite.hash(header)
    key, commit = _derived(content_key, header_hash, suite)
    wraps = tuple(suite.hpke_seal(public, _WRAP + key_id + header_hash, content_key) for key_id, public in readers)
    return Sealed(commit, wraps, suite.aead_seal(key, _NONCE, body, header_hash + commit))


def unwrap(private: bytes, wrap: bytes, header: bytes, suite: Suite) -> bytes:
    """The content key. Raises IntegrityError FN-6204."""
    if len(wrap) != WRAP_BYTES:
        raise IntegrityError("FN-6204")
    key_id = _key_id(suite.seal_public_of(private), suite)
    return suite.hpke_open(private, _WRAP + key_id + suite.hash(header), wrap)


def open_with_key(commit: bytes, ciphertext: bytes, header: bytes, content_key: bytes, suite: Suite) -> bytes:
    """The body. Raises IntegrityError FN-6204: another key, another header, or altered bytes."""
    header_hash = suite.hash(header)
    key, expected = _derived(content_key, header_hash, suite)
    if not suite.equal(expected, commit):
        raise IntegrityError("FN-6204")
    return suite.aead_open(key, _NONCE, ciphertext, header_hash + commit)


def rewrap(public: bytes, envelope_sha256: bytes, content_key: bytes, suite: Suite) -> bytes:
    """The content key of a sealed envelope for one more reader. `envelope_sha256`: of its very bytes. Raises
    IntegrityError FN-6205 for a key that must not be used."""
    return suite.hpke_seal(public, _REWRAP + _key_id(public, suite) + envelope_sha256, content_key)


def unwrap_again(private: bytes, wrap: bytes, envelope_sha256: bytes, suite: Suite) -> bytes:
    """The content key out of what `rewrap` made; `open_with_key` proves that it is the one. Raises IntegrityError
    FN-6204."""
    if len(wrap) != WRAP_BYTES:
        raise IntegrityError("FN-6204")
    key_id = _key_id(suite.seal_public_of(private), suite)
    return suite.hpke_open(private, _REWRAP + key_id + envelope_sha256, wrap)
