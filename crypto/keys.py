"""Keys: Ed25519 to sign, X25519 to be sealed to, P-256 for TLS and certificates. Bytes in, bytes out.

Rules
1. At rest a key is PKCS #8 in PEM, encrypted when there is a passphrase.
2. The random bytes of Ed25519 and X25519 keys are given; a P-256 key draws its own (OpenSSL), or is made from given
   ones.

>>> key = SigningKey.from_seed(bytes(32))
>>> SigningKey.from_pem(key.to_pem(b"secret"), b"secret").public == key.public
True
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cryptography.exceptions import InternalError, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1

Rng = Callable[[int], bytes]

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of P-256's base point


def _encryption(passphrase: bytes | None) -> KeySerializationEncryption:
    return BestAvailableEncryption(passphrase) if passphrase else NoEncryption()


def _dump(key: Any, passphrase: bytes | None) -> bytes:
    return bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, _encryption(passphrase)))


def _load(pem: bytes, passphrase: bytes | None, kind: type[Any]) -> Any:
    try:
        key = load_pem_private_key(pem, passphrase or None)
    except (ValueError, TypeError, UnsupportedAlgorithm, InternalError) as error:  # the last: an Ed448 key of 32 bytes
        raise FednodeError("FN-7615", reason=str(error)[:200]) from error
    if not isinstance(key, kind):
        raise FednodeError("FN-7615", reason=type(key).__name__)
    return key


@dataclass(frozen=True, slots=True)
class SigningKey:
    """Ed25519. `private`: the seed, 32 bytes; `public`: raw, 32 bytes."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> SigningKey:
        return cls(seed, SUITE_1.public_of(seed))

    @classmethod
    def generate(cls, rng: Rng) -> SigningKey:
        return cls.from_seed(rng(32))

    def sign(self, message: bytes) -> bytes:
        """A signature, 64 bytes."""
        return SUITE_1.sign(self.private, message)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        return _dump(Ed25519PrivateKey.from_private_bytes(self.private), passphrase)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> SigningKey:
        """Raises FednodeError FN-7615: not this kind of key, or not its passphrase."""
        return cls.from_seed(_load(pem, passphrase, Ed25519PrivateKey).private_bytes_raw())


@dataclass(frozen=True, slots=True)
class SealKey:
    """X25519. `private`, `public`: raw, 32 bytes each."""

    private: bytes = field(repr=False)
    public: bytes

    @classmethod
    def from_seed(cls, seed: bytes) -> SealKey:
        return cls(seed, SUITE_1.seal_public_of(seed))

    @classmethod
    def generate(cls, rng: Rng) -> SealKey:
        return cls.from_seed(rng(32))

    @property
    def key_id(self) -> bytes:
        """What names this key in a segment's header."""
        return SUITE_1.hash(self.public)[:8]

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        return _dump(X25519PrivateKey.from_private_bytes(self.private), passphrase)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> SealKey:
        """Raises FednodeError FN-7615: not this kind of key, or not its passphrase."""
        return cls.from_seed(_load(pem, passphrase, X25519PrivateKey).private_bytes_raw())


@dataclass(frozen=True, slots=True)
class TlsKey:
    """P-256. `key`: the private key of `cryptography`; `public_der`: SubjectPublicKeyInfo."""

    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @classmethod
    def generate(cls) -> TlsKey:
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def from_seed(cls, seed: bytes) -> TlsKey:
        """The key that 40 or more random bytes stand for (FIPS 186-5 A.2.1: extra random bits, reduced)."""
        return cls(ec.derive_private_key(int.from_bytes(seed, "big") % (_ORDER - 1) + 1, ec.SECP256R1()))

    @property
    def public_der(self) -> bytes:
        return self.key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

    def to_pem(self, passphrase: bytes | None = None) -> bytes:
        return _dump(self.key, passphrase)

    @classmethod
    def from_pem(cls, pem: bytes, passphrase: bytes | None = None) -> TlsKey:
        """Raises FednodeError FN-7615: not this kind of key, or not its passphrase."""
        key = cls(_load(pem, passphrase, ec.EllipticCurvePrivateKey))
        if not isinstance(key.key.curve, ec.SECP256R1):
            raise FednodeError("FN-7615", reason=key.key.curve.name)
        return key
