"""Known answers: what this machine's cryptography must compute, from the documents that define it. A library that was
built wrong, or a processor with a fault, is found before it signs anything.

>>> wrong_answers()
[]
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from fednode.crypto import seal
from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1

_hex = bytes.fromhex
# RFC 8032, section 7.1, TEST 2
ED25519 = (
    _hex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb"),
    _hex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"),
    _hex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    ),
)
# RFC 6979, section A.2.5 (P-256, SHA-256, "sample"): x, y, r, s
P256 = (
    0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6,
    0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299,
    0xEFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716,
    0xF7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8,
)
# RFC 7748, section 6.1: Alice's keys
X25519 = (
    _hex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a"),
    _hex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a"),
)
# This program's own format (tests/crypto/vectors/seal.json, "two readers"): HPKE (RFC 9180) with X25519 and AES-256-GCM
SEALED = {
    "header": _hex("686561646572206f662061207365676d656e74"),
    "body": _hex("626f6479206f662061207365676d656e74"),
    "private": _hex("385a6f38f85824c6220bd0cb6df31d34abe087bbc6d419eac40cf833cff50a22"),
    "wrap": _hex(
        "95a0f4f7c4800d5f182558ab6aa3f147f2ab2a3c60cb70ea1b08ba9def31153c73e57ddacb9a2d68c5039a9b832e66a7"
        "9d5b0c4e26e74e4520cfcf1341163adf63440552b4516709ad369b6bbabc813e"
    ),
    "commit": _hex("000f094fec05cfd458656c5036b5925d01eb4b072103877b383950996222b319"),
    "ciphertext": _hex("61b77586f3d558ae947862405dcc626a53a2838fe6d2512015947d62fa9873daaa"),
}


def _sha256() -> bool:
    """FIPS 180-4, "abc"."""
    return SUITE_1.hash(b"abc") == _hex("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")


def _hmac() -> bool:
    """RFC 4231, section 4.3."""
    expected = _hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
    return SUITE_1.mac(b"Jefe", b"what do ya want for nothing?") == expected


def _hkdf() -> bool:
    """RFC 5869, section A.1."""
    made = SUITE_1.hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    return made == _hex("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")


def _ed25519() -> bool:
    seed, public, signature = ED25519
    SUITE_1.verify(public, b"\x72", signature)
    return SUITE_1.public_of(seed) == public and SUITE_1.sign(seed, b"\x72") == signature


def _ed25519_refuses() -> bool:
    try:
        SUITE_1.verify(ED25519[1], b"\x73", ED25519[2])
    except FednodeError:
        return True
    return False


def _p256() -> bool:
    x, y, r, s = P256
    key = ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    key.verify(encode_dss_signature(r, s), b"sample", ec.ECDSA(SHA256()))
    return True


def _x25519() -> bool:
    return SUITE_1.seal_public_of(X25519[0]) == X25519[1]


def _aes_gcm() -> bool:
    """McGrew and Viega, "The Galois/Counter Mode of Operation", test case 14."""
    made = SUITE_1.aead_seal(bytes(32), bytes(12), bytes(16), b"")
    return made == _hex("cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919")


def _sealed() -> bool:
    held = SEALED
    key = seal.unwrap(held["private"], held["wrap"], held["header"], SUITE_1)
    return seal.open_with_key(held["commit"], held["ciphertext"], held["header"], key, SUITE_1) == held["body"]


ANSWERS: dict[str, Callable[[], bool]] = {
    "SHA-256": _sha256,
    "HMAC": _hmac,
    "HKDF": _hkdf,
    "Ed25519": _ed25519,
    "Ed25519 refuses": _ed25519_refuses,
    "P-256": _p256,
    "X25519": _x25519,
    "AES-256-GCM": _aes_gcm,
    "HPKE": _sealed,
}


def wrong_answers(answers: Mapping[str, Callable[[], bool]] = ANSWERS) -> list[str]:
    """What this machine computes wrongly, or not at all."""
    return list(_wrong(answers))


def _wrong(answers: Mapping[str, Callable[[], bool]]) -> Iterator[str]:
    for name, right in answers.items():
        try:
            if right():
                continue
        except (FednodeError, InvalidSignature, ValueError):
            pass
        yield name
