"""Suite 1 against published answers, and what it must refuse."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

import fednode.crypto.suite as suites
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1, suite

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P
SEED = bytes(range(32))
PUBLIC = SUITE_1.public_of(SEED)

# The encodings of the eight points of small order of edwards25519, and those that say the same in a second way.
SMALL_ORDER = [
    "0100000000000000000000000000000000000000000000000000000000000000",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
]
NOT_CANONICAL = [
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
]
# RFC 7748 section 6.1 and https://cr.yp.to/ecdh.html: u of small order, on the curve or its twist, reduced or not.
SMALL_U = [
    bytes(32).hex(),
    (1).to_bytes(32, "little").hex(),
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    (P - 1).to_bytes(32, "little").hex(),
    P.to_bytes(32, "little").hex(),
    (P + 1).to_bytes(32, "little").hex(),
]


def test_the_number_picks_the_suite() -> None:
    assert suite(1) is SUITE_1
    assert SUITE_1.number == 1


@pytest.mark.parametrize("number", [0, 2, -1, 2**32])
def test_an_unknown_suite_is_refused(number: int) -> None:
    with pytest.raises(IntegrityError) as caught:
        suite(number)
    assert (caught.value.code, caught.value.params) == ("FN-6202", {"suite": number})


def test_published_answers() -> None:
    assert SUITE_1.hash(b"abc").hex() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180
    # RFC 8032 section 7.1, TEST 2
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signature = (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    assert SUITE_1.public_of(seed).hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert SUITE_1.sign(seed, b"\x72").hex() == signature
    # RFC 5869 appendix A.1
    okm = SUITE_1.hkdf(b"\x0b" * 22, bytes(range(13)), bytes(range(0xF0, 0xFA)), 42)
    assert okm.hex() == ("3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865")
    # RFC 4231 test case 2
    assert SUITE_1.mac(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    # The GCM specification, test case 14: AES-256, zero key, nonce and block
    assert SUITE_1.aead_seal(bytes(32), bytes(12), bytes(16), b"").hex() == (
        "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919"
    )


def test_the_keystream_is_secret_long_and_a_function_of_its_seed() -> None:
    stream = SUITE_1.keystream(SEED, 1000)
    assert len(stream) == 1000
    assert SUITE_1.keystream(SEED, 0) == b""
    assert SUITE_1.keystream(SEED, 100) == stream[:100], "salts of the first changes do not depend on how many follow"
    assert SUITE_1.keystream(bytes(32), 1000) != stream
    # AES-256 of a zero block under a zero key (FIPS 197, NIST's known answers)
    assert SUITE_1.keystream(bytes(32), 16).hex() == "dc95c078a2408989ad48a21492842087"


# ---------------------------------------------------------------- signatures


def double(point: tuple[int, int]) -> tuple[int, int]:
    x, y = point
    bend = D * x * x * y * y
    return 2 * x * y * pow(1 + bend, -1, P) % P, (y * y + x * x) * pow(1 - bend, -1, P) % P


def decode(raw: bytes) -> tuple[int, int]:
    y = int.from_bytes(raw, "little") & (2**255 - 1)
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert x * x % P == square
    return (P - x if x & 1 != raw[31] >> 7 else x), y


@pytest.mark.parametrize("raw", SMALL_ORDER)
def test_the_list_of_small_order_points_is_right(raw: str) -> None:
    assert double(double(double(decode(bytes.fromhex(raw))))) == (0, 1)


@pytest.mark.parametrize("raw", [*SMALL_ORDER, *NOT_CANONICAL])
def test_small_order_and_non_canonical_keys_are_refused(raw: str) -> None:
    key = bytes.fromhex(raw)
    for check in (lambda: SUITE_1.check_public(key), lambda: SUITE_1.verify(key, b"m", bytes(64))):
        with pytest.raises(IntegrityError) as caught:
            check()
        assert caught.value.code == "FN-6205"


def test_why_they_are_refused() -> None:
    """With the neutral element as key, R = neutral and s = 0 sign every message, and the library accepts it."""
    neutral = bytes.fromhex(SMALL_ORDER[0])
    for message in (b"one", b"another"):
        Ed25519PublicKey.from_public_bytes(neutral).verify(neutral + bytes(32), message)
        with pytest.raises(IntegrityError):
            SUITE_1.verify(neutral, message, neutral + bytes(32))


@pytest.mark.parametrize(
    ("raw", "reason"),
    [(bytes(31), "length"), (bytes(33), "length"), (b"", "length"), ((2).to_bytes(32, "little"), "not a key")],
)
def test_other_bytes_are_no_key(raw: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError) as caught:
        SUITE_1.check_public(raw)
    assert caught.value.params["reason"] == reason


def test_every_real_key_is_accepted() -> None:
    for n in range(64):
        seed = hashlib.sha256(bytes((n,))).digest()
        SUITE_1.check_public(SUITE_1.public_of(seed))
        SUITE_1.check_seal_public(SUITE_1.seal_public_of(seed))


@pytest.mark.parametrize("size", [0, 1, 63, 64, 65, 4_096])
def test_two_libraries_sign_alike(size: int) -> None:
    message = bytes(range(256)) * 16
    expected = Ed25519PrivateKey.from_private_bytes(SEED).sign(message[:size])
    assert SUITE_1.sign(SEED, message[:size]) == expected


def test_a_signature_holds_for_its_key_and_message_alone() -> None:
    signature = SUITE_1.sign(SEED, b"message")
    SUITE_1.verify(PUBLIC, b"message", signature)
    others = [
        (SUITE_1.public_of(bytes(32)), b"message", signature),
        (PUBLIC, b"messagf", signature),
        (PUBLIC, b"message", b""),
        (PUBLIC, b"message", signature[:63]),
        (PUBLIC, b"message", signature + b"\0"),
    ]
    others += [(PUBLIC, b"message", signature[:i] + bytes((signature[i] ^ 1,)) + signature[i + 1 :]) for i in range(64)]
    order = 2**252 + 27742317777372353535851937790883648493
    again = int.from_bytes(signature[32:], "little") + order  # the same s, written otherwise
    others.append((PUBLIC, b"message", signature[:32] + again.to_bytes(32, "little")))
    for public, message, given in others:
        with pytest.raises(IntegrityError) as caught:
            SUITE_1.verify(public, message, given)
        assert caught.value.code == "FN-6201"


def add(left: tuple[int, int], right: tuple[int, int]) -> tuple[int, int]:
    (x1, y1), (x2, y2) = left, right
    bend = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + bend, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - bend, -1, P) % P


def times(factor: int, point: tuple[int, int]) -> tuple[int, int]:
    total = (0, 1)
    while factor:
        if factor & 1:
            total = add(total, point)
        point, factor = double(point), factor >> 1
    return total


def encode(point: tuple[int, int]) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


ORDER = 2**252 + 27742317777372353535851937790883648493
BASE = decode((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
NEUTRAL, EIGHTH = (0, 1), decode(bytes.fromhex(SMALL_ORDER[4]))


def odd(nonce: int, on_r: tuple[int, int], on_key: tuple[int, int], message: bytes) -> tuple[bytes, bytes, int]:
    """A public key and a signature that only who has the private key can make, with points of small order added to R
    and to the key; and the challenge."""
    private = int.from_bytes(hashlib.sha256(b"odd").digest(), "little") % ORDER
    public, r = encode(add(times(private, BASE), on_key)), encode(add(times(nonce, BASE), on_r))
    challenge = int.from_bytes(hashlib.sha512(r + public + message).digest(), "little") % ORDER
    return public, r + ((nonce + challenge * private) % ORDER).to_bytes(32, "little"), challenge


def accepted(public: bytes, message: bytes, signature: bytes) -> bool:
    try:
        SUITE_1.verify(public, message, signature)
    except IntegrityError:
        return False
    return True


@pytest.mark.parametrize(
    ("nonce", "on_r", "on_key", "good"),
    [
        (7, NEUTRAL, NEUTRAL, True),
        (7, EIGHTH, NEUTRAL, False),  # the equation with the cofactor holds, that without does not
        (7, double(double(EIGHTH)), NEUTRAL, False),
        (0, NEUTRAL, NEUTRAL, True),  # R is the neutral element: libsodium refuses it, OpenSSL does not
        (0, EIGHTH, NEUTRAL, False),
    ],
)
def test_of_two_libraries_the_verdict_is_openssls(
    nonce: int, on_r: tuple[int, int], on_key: tuple[int, int], good: bool
) -> None:
    public, signature, _ = odd(nonce, on_r, on_key, b"message")
    assert accepted(public, b"message", signature) is good
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, b"message")
    except InvalidSignature:
        assert not good
    else:
        assert good


def test_a_key_of_mixed_order_verifies_as_with_openssl() -> None:
    """For such a key it hangs on the message whether the equation without the cofactor holds: one in eight does."""
    verdicts = []
    for n in range(40):
        message = bytes((n,))
        public, signature, challenge = odd(7, NEUTRAL, EIGHTH, message)
        verdicts.append(accepted(public, message, signature))
        assert verdicts[-1] is (challenge % 8 == 0)
    assert any(verdicts)


def test_a_libsodium_that_accepts_more_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    loose = odd(7, EIGHTH, NEUTRAL, b"message")
    monkeypatch.setattr(suites, "crypto_sign_open", lambda signed, public: signed[64:])
    suites._is_strict.cache_clear()
    try:
        assert not accepted(loose[0], b"message", loose[1])
        assert not accepted(PUBLIC, b"message", bytes(64))
        assert accepted(PUBLIC, b"message", SUITE_1.sign(SEED, b"message"))
    finally:
        suites._is_strict.cache_clear()


def test_what_strictness_is_asked_with_holds_by_the_equation_with_the_cofactor() -> None:
    public, signature = suites._LOOSE
    r, s = signature[:32], int.from_bytes(signature[32:], "little")
    challenge = int.from_bytes(hashlib.sha512(r + public).digest(), "little") % ORDER
    assert times(8 * s, BASE) == add(times(8, decode(r)), times(8 * challenge, decode(public)))
    assert times(s, BASE) != add(decode(r), times(challenge, decode(public)))
    assert suites._is_strict(), "this libsodium could be used no longer: verification takes twice as long"


# ---------------------------------------------------------------- encryption


def test_aead_opens_only_what_was_sealed() -> None:
    sealed = SUITE_1.aead_seal(SEED, bytes(12), b"data", b"aad")
    assert SUITE_1.aead_open(SEED, bytes(12), sealed, b"aad") == b"data"
    for key, nonce, data, aad in (
        (bytes(32), bytes(12), sealed, b"aad"),
        (SEED, b"\1" * 12, sealed, b"aad"),
        (SEED, bytes(12), sealed[:-1], b"aad"),
        (SEED, bytes(12), b"", b"aad"),
        (SEED, bytes(12), sealed, b""),
    ):
        with pytest.raises(IntegrityError) as caught:
            SUITE_1.aead_open(key, nonce, data, aad)
        assert caught.value.code == "FN-6204"


def test_hpke_opens_only_for_its_reader_and_info() -> None:
    public = SUITE_1.seal_public_of(SEED)
    sealed = SUITE_1.hpke_seal(public, b"info", b"plain")
    assert len(sealed) == 32 + 5 + 16
    assert sealed != SUITE_1.hpke_seal(public, b"info", b"plain"), "each has an ephemeral key of its own"
    assert SUITE_1.hpke_open(SEED, b"info", sealed) == b"plain"
    for private, info, data in (
        (bytes(32), b"info", sealed),
        (SEED, b"", sealed),
        (SEED, b"info", sealed[:-1]),
        (SEED, b"info", sealed[:32]),
        (SEED, b"info", b""),
        (SEED, b"info", bytes(32) + sealed[32:]),
    ):
        with pytest.raises(IntegrityError) as caught:
            SUITE_1.hpke_open(private, info, data)
        assert caught.value.code == "FN-6204"


@pytest.mark.parametrize("raw", [*SMALL_U, bytes(31).hex(), (2**255 - 1).to_bytes(32, "little").hex(), "ff" * 32])
def test_nothing_is_sealed_to_a_key_that_opens_for_anyone(raw: str) -> None:
    public = bytes.fromhex(raw)
    for check in (lambda: SUITE_1.check_seal_public(public), lambda: SUITE_1.hpke_seal(public, b"", b"")):
        with pytest.raises(IntegrityError) as caught:
            check()
        assert caught.value.code == "FN-6205"
