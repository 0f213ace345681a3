"""A stream of frames sealed to one reader: for files that are too large to be held at once.

Rules
1. The content key is fresh for each stream, wrapped to the reader with HPKE. The encryption key and a public commitment
   are both derived from it and the header (as in `fednode.crypto.seal`): no second key opens a stream, and header and
   frames cannot be swapped.
2. The nonce of a frame is its number and whether it is the last (STREAM: Hoang and others, "Online
   Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance", 2015): a frame that is missing, repeated, out of its
   place or cut off at the end does not open.
3. The commitment is compared before anything is decrypted.
4. Nothing here says who sealed it: the maker signs the stream's hash.

>>> from fednode.crypto.keys import SealKey
>>> key = SealKey.from_seed(bytes(31) + b"\\x01")
>>> out = Sealer(b"header", key.public, bytes(32))
>>> sealed = [out.seal(b"one"), out.seal(b"two", last=True)]
>>> stream = Opener(b"header", out.commit, unwrap(key.private, out.wrap, b"header"))
>>> stream.open(sealed[0], last=False), stream.open(sealed[1], last=True)
(b'one', b'two')
"""

from __future__ import annotations

from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1, Suite

KEY_BYTES, COMMIT_BYTES = 32, 32
WRAP_BYTES = 32 + KEY_BYTES + 16  # encapsulated key, content key, tag
TAG_BYTES = 16
FRAMES_MAX = 1 << 32
_CONTENT, _COMMIT, _WRAP = b"fednode stream v1\n", b"fednode stream commit v1\n", b"fednode stream wrap v1\n"


def _info(public: bytes, header_hash: bytes, suite: Suite) -> bytes:
    return _WRAP + suite.hash(public)[:8] + header_hash


def _derived(content_key: bytes, header_hash: bytes, suite: Suite) -> tuple[bytes, bytes]:
    return suite.mac(content_key, _CONTENT + header_hash), suite.mac(content_key, _COMMIT + header_hash)


def _nonce(number: int, last: bool) -> bytes:
    if number >= FRAMES_MAX:
        raise IntegrityError("FN-6204")
    return number.to_bytes(11, "big") + bytes((last,))


def unwrap(private: bytes, wrap: bytes, header: bytes, suite: Suite = SUITE_1) -> bytes:
    """The content key of a stream. Raises IntegrityError FN-6204."""
    if len(wrap) != WRAP_BYTES:
        raise IntegrityError("FN-6204")
    return suite.hpke_open(private, _info(suite.seal_public_of(private), suite.hash(header), suite), wrap)


class Sealer:
    """Makes a stream. `public`: the reader's; `content_key`: 32 fresh random bytes. Raises IntegrityError FN-6205 for a
    reader's key that must not be used."""

    def __init__(self, header: bytes, public: bytes, content_key: bytes, suite: Suite = SUITE_1) -> None:
        if len(content_key) != KEY_BYTES:
            raise ValueError("a content key has 32 bytes")
        header_hash = suite.hash(header)
        self._suite, self._number = suite, 0
        self._key, self.commit = _derived(content_key, header_hash, suite)
        self._bound = header_hash + self.commit
        self.wrap = suite.hpke_seal(public, _info(public, header_hash, suite), content_key)

    def seal(self, data: bytes, *, last: bool = False) -> bytes:
        """The next frame."""
        sealed = self._suite.aead_seal(self._key, _nonce(self._number, last), data, self._bound)
        self._number += 1
        return sealed


class Opener:
    """Reads a stream. Raises IntegrityError FN-6204 where the key is not the one that the stream commits to."""

    def __init__(self, header: bytes, commit: bytes, content_key: bytes, suite: Suite = SUITE_1) -> None:
        header_hash = suite.hash(header)
        self._suite, self._number = suite, 0
        self._key, expected = _derived(content_key, header_hash, suite)
        if not suite.equal(expected, commit):
            raise IntegrityError("FN-6204")
        self._bound = header_hash + commit

    def open(self, sealed: bytes, *, last: bool) -> bytes:
        """The next frame. Raises IntegrityError FN-6204: altered, or not the next one, or not (or yet) the last."""
        data = self._suite.aead_open(self._key, _nonce(self._number, last), sealed, self._bound)
        self._number += 1
        return data
