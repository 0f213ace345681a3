"""Suites: the one place that names algorithms. A number in every header says which suite was used.

Rules
1. Suite 1: SHA-256, Ed25519 (RFC 8032), HPKE base mode with X25519, HKDF-SHA256 and AES-256-GCM (RFC 9180), AES-256-GCM
   for bodies, AES-256-CTR as the keystream of salts.
2. Public keys of small order, or not in canonical encoding, are refused. Ed25519: one signature by a small-order key
   verifies for every message, and `cryptography` accepts it. X25519: what is sealed to a small-order key, anyone can
   open. The verdict and the loaded key are cached.
3. HPKE draws its ephemeral key from the operating system, the one randomness that is no argument: a repeated one would
   give away what it seals.
4. The AEAD and HPKE do not commit to their key. What has several readers goes through `seal`, which does.
5. A failure of a check is an IntegrityError; it says nothing about why that would help a forger.
6. Two libraries verify Ed25519, and OpenSSL's verdict is what counts, so that every node judges alike. libsodium takes
   half the time and is asked first: it accepts nothing that OpenSSL would refuse (as of 1.0.20: no cofactor, S below
   the order, no R or key of small order). What it refuses, OpenSSL decides. A libsodium that accepts more, as RFC 8032
   section 5.1.7 allows, is not used at all (`_is_strict` asks it about such a signature). It signs, too: a key has one
   signature of a message (RFC 8032 section 5.1.6), whoever makes it.

>>> SUITE_1.hash(b"")[:4].hex(), suite(1) is SUITE_1
('e3b0c442', True)
"""

from __future__ import annotations

import hashlib
import hmac
from functools import cache, lru_cache

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM
from cryptography.hazmat.primitives.hpke import Suite as HpkeSuite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import CryptoError

from fednode.crypto.errors import IntegrityError

SIGNATURE_BYTES = 64
_FIELD = 2**255 - 19
# y of the eight points whose order divides 8 (RFC 7748 section 7; "Taming the many EdDSAs", 2020, table 1)
_SMALL_ORDER_Y = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        int.from_bytes(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"), "little"),
        int.from_bytes(bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"), "little"),
    )
)
_EDWARDS_D = -121665 * pow(121666, -1, _FIELD) % _FIELD
# u of the points of small order, on the curve and on its twist (RFC 7748 section 6.1; https://cr.yp.to/ecdh.html)
_SMALL_ORDER_U = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        int.from_bytes(bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"), "little"),
        int.from_bytes(bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"), "little"),
    )
)


# A key, and its signature of nothing with a point of order 8 added to R: a verification with the cofactor accepts it.
_LOOSE = (
    bytes.fromhex("69498a14689613c612e389990b85972868e86ba9e58a537a0db3d260c9f919cf"),
    bytes.fromhex(
        "0d02ee045de3ca9a52c25f200497685140e29acb48c3232b19c2a33186727d5c"
        "fda47a9f81291af59e36b84804ae1bd74db3c84c22d5f30b79d73479683e190b"
    ),
)


def _quickly(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether libsodium accepts a signature."""
    if len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except CryptoError:
        return False
    return True


@cache
def _is_strict() -> bool:
    """Whether this libsodium verifies without the cofactor, as OpenSSL does (rule 6)."""
    public, signature = _LOOSE
    return not _quickly(public, b"", signature)


@lru_cache(maxsize=8192)
def _public(raw: bytes) -> Ed25519PublicKey:
    if len(raw) != 32:
        raise IntegrityError("FN-6205", reason="length")
    y = int.from_bytes(raw, "little") & ((1 << 255) - 1)
    if y >= _FIELD:
        raise IntegrityError("FN-6205", reason="not canonical")
    if y in _SMALL_ORDER_Y:
        raise IntegrityError("FN-6205", reason="small order")
    # x^2 = (y^2 - 1) / (d y^2 + 1) must have a root. The library would say so only at each verification.
    square = (y * y - 1) * pow(_EDWARDS_D * y * y + 1, -1, _FIELD) % _FIELD
    if pow(square, (_FIELD - 1) // 2, _FIELD) != 1:
        raise IntegrityError("FN-6205", reason="not a key")
    return Ed25519PublicKey.from_public_bytes(raw)


@lru_cache(maxsize=8192)
def _seal_public(raw: bytes) -> X25519PublicKey:
    if len(raw) != 32:
        raise IntegrityError("FN-6205", reason="length")
    u = int.from_bytes(raw, "little")
    if u >= _FIELD:
        raise IntegrityError("FN-6205", reason="not canonical")
    if u in _SMALL_ORDER_U:
        raise IntegrityError("FN-6205", reason="small order")
    return X25519PublicKey.from_public_bytes(raw)


@lru_cache(maxsize=64)
def _seal_private(raw: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(raw)


@lru_cache(maxsize=64)
def _seal_public_of(raw: bytes) -> bytes:
    return _seal_private(raw).public_key().public_bytes_raw()


@lru_cache(maxsize=64)
def _private(seed: bytes) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(seed)


@lru_cache(maxsize=64)
def _signing(seed: bytes) -> bytes:
    """A private key as libsodium takes it: the seed, and the public key made of it."""
    secret: bytes = crypto_sign_seed_keypair(seed)[1]
    return secret


class Suite:
    """One set of algorithms. All lengths in bytes."""

    number = 1

    def __init__(self) -> None:
        self._hpke = HpkeSuite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)

    @staticmethod
    def hash(data: bytes) -> bytes:
        """32 bytes."""
        return hashlib.sha256(data).digest()

    @staticmethod
    def hasher() -> hashlib._Hash:
        """The same hash, of what comes bit by bit."""
        return hashlib.sha256()

    @staticmethod
    def mac(key: bytes, data: bytes) -> bytes:
        """32 bytes; also the key derivation of `seal` (a PRF under a uniformly random key)."""
        return hmac.digest(key, data, "sha256")

    @staticmethod
    def equal(left: bytes, right: bytes) -> bool:
        """Whether two secrets are the same, in a time that does not tell where they differ."""
        return hmac.compare_digest(left, right)

    @staticmethod
    def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> bytes:
        """RFC 5869, for secrets that are not uniformly random and for more than one hash of output."""
        return HKDF(SHA256(), size, salt, info).derive(secret)

    @staticmethod
    def keystream(seed: bytes, size: int) -> bytes:
        """`size` bytes that only who has the 32-byte seed can make. A seed is used for one keystream."""
        encryptor = Cipher(AES(seed), CTR(bytes(16))).encryptor()
        return encryptor.update(bytes(size)) + encryptor.finalize()

    # ------------------------------------------------------------ signatures

    @staticmethod
    def public_of(seed: bytes) -> bytes:
        """The raw public key (32) of a private seed (32)."""
        return _private(seed).public_key().public_bytes_raw()

    @staticmethod
    def sign(seed: bytes, message: bytes) -> bytes:
        """A signature (64)."""
        signed: bytes = crypto_sign(message, _signing(seed))
        return signed[:SIGNATURE_BYTES]

    @staticmethod
    def verify(public: bytes, message: bytes, signature: bytes) -> None:
        """Raises IntegrityError FN-6201 (the signature does not hold), FN-6205 (not an acceptable key)."""
        key = _public(public)
        if _is_strict() and _quickly(public, message, signature):
            return
        try:
            key.verify(signature, message)
        except InvalidSignature as error:
            raise IntegrityError("FN-6201") from error

    @staticmethod
    def check_public(public: bytes) -> None:
        """Raises IntegrityError FN-6205 for a key that must not be certified (rule 2)."""
        _public(public)

    # ------------------------------------------------------------ encryption

    @staticmethod
    def aead_seal(key: bytes, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Ciphertext with its tag. Does not commit to the key: `seal` adds that."""
        return AESGCM(key).encrypt(nonce, data, aad)

    @staticmethod
    def aead_open(key: bytes, nonce: bytes, data: bytes, aad: bytes) -> bytes:
        """Raises IntegrityError FN-6204."""
        try:
            return AESGCM(key).decrypt(nonce, data, aad)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError("FN-6204") from error

    @staticmethod
    def seal_public_of(private: bytes) -> bytes:
        """The raw X25519 public key (32) of a private one (32)."""
        return _seal_public_of(private)

    @staticmethod
    def check_seal_public(public: bytes) -> None:
        """Raises IntegrityError FN-6205 for a key that must not be certified (rule 2)."""
        _seal_public(public)

    def hpke_seal(self, public: bytes, info: bytes, plaintext: bytes) -> bytes:
        """HPKE single shot, base mode: enc || ciphertext. `public`: raw X25519. Raises IntegrityError FN-6205."""
        return self._hpke.encrypt(plaintext, _seal_public(public), info)

    def hpke_open(self, private: bytes, info: bytes, sealed: bytes) -> bytes:
        """Raises IntegrityError FN-6204."""
        try:
            return self._hpke.decrypt(sealed, _seal_private(private), info)
        except (InvalidTag, ValueError) as error:
            raise IntegrityError("FN-6204") from error


SUITE_1 = Suite()
_SUITES = {1: SUITE_1}


def suite(number: int) -> Suite:
    """The suite of a number. Raises IntegrityError FN-6202 for one that is not known here."""
    found = _SUITES.get(number)
    if found is None:
        raise IntegrityError("FN-6202", suite=number)
    return found
