"""Keys: to PEM and back, with and without passphrase; what is not the key is one error, and no key shows itself."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_public_key

from fednode.crypto.errors import FednodeError
from fednode.crypto.keys import SealKey, SigningKey, TlsKey

SEED = bytes(range(32))
KINDS: list[type[SigningKey] | type[SealKey] | type[TlsKey]] = [SigningKey, SealKey, TlsKey]


def counter(start: int = 0) -> Callable[[int], bytes]:
    """A repeatable `rng`."""
    state = [start]

    def rng(size: int) -> bytes:
        state[0] += 1
        return hashlib.shake_256(state[0].to_bytes(8, "big")).digest(size)

    return rng


def make(kind: type[SigningKey] | type[SealKey] | type[TlsKey]) -> SigningKey | SealKey | TlsKey:
    return kind.from_seed(hashlib.sha512(SEED).digest()[:48] if kind is TlsKey else SEED)


def public(key: SigningKey | SealKey | TlsKey) -> bytes:
    return key.public_der if isinstance(key, TlsKey) else key.public


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("passphrase", [None, b"", b"secret", "口令".encode(), b"x" * 1000])
def test_pem_and_back(kind: type[SigningKey], passphrase: bytes | None) -> None:
    key = make(kind)
    pem = key.to_pem(passphrase)
    header = b"-----BEGIN ENCRYPTED PRIVATE KEY-----" if passphrase else b"-----BEGIN PRIVATE KEY-----"
    assert pem.startswith(header)
    assert public(kind.from_pem(pem, passphrase)) == public(key)


@pytest.mark.parametrize("kind", KINDS)
def test_what_does_not_yield_the_key_is_one_error(kind: type[SigningKey]) -> None:
    key = make(kind)
    plain, locked = key.to_pem(), key.to_pem(b"secret")
    others = [make(other).to_pem() for other in KINDS if other is not kind]
    big = rsa.generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    p384 = TlsKey(ec.derive_private_key(7, ec.SECP384R1())).to_pem()
    wrong: list[tuple[bytes, bytes | None]] = [
        (locked, None), (locked, b"other"), (plain, b"secret"), (b"", None), (b"not a key", None),
        (plain[:-40], None), (locked[: len(locked) // 2], b"secret"), *((pem, None) for pem in (*others, big, p384)),
    ]  # fmt: skip
    for pem, passphrase in wrong:
        with pytest.raises(FednodeError) as caught:
            kind.from_pem(pem, passphrase)
        assert caught.value.code == "FN-7615"
        assert b"secret" not in str(caught.value).encode()


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_the_same_key_again(kind: type[SigningKey]) -> None:
    assert public(make(kind)) == public(make(kind))


@pytest.mark.parametrize("kind", [SigningKey, SealKey])
def test_generate_takes_its_randomness_from_the_argument(kind: type[SigningKey]) -> None:
    assert kind.generate(counter()) == kind.generate(counter()) != kind.generate(counter(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_key_does_not_show_itself(kind: type[SigningKey]) -> None:
    key = make(kind)
    private = key.key.private_numbers().private_value if isinstance(key, TlsKey) else key.private
    assert str(private) not in repr(key)
    assert "private" not in repr(key)


def test_the_private_part_of_a_pem_is_the_seed() -> None:
    assert SigningKey.from_pem(SigningKey.from_seed(SEED).to_pem()).private == SEED
    assert SealKey.from_pem(SealKey.from_seed(SEED).to_pem()).private == SEED


def test_a_key_id_is_the_start_of_the_hash() -> None:
    key = SealKey.from_seed(SEED)
    assert key.key_id == hashlib.sha256(key.public).digest()[:8]


def test_tls_keys_are_p256() -> None:
    loaded = load_der_public_key(TlsKey.generate().public_der)
    assert isinstance(loaded, ec.EllipticCurvePublicKey)
    assert isinstance(loaded.curve, ec.SECP256R1)
