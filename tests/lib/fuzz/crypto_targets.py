"""Targets in `fednode.crypto`.

Rules
1. Where a signature or a seal stands before a reader, a second target of it (`...-inside`) makes that itself, with keys
   of the world of `world`, around what is altered.

>>> [one.name for one in TARGETS][:2]
['canonical', 'note']
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from fednode.crypto import canonical, certs, checkpoint, issuing, merkle, note, seal, stream, tlogproof
from fednode.crypto.checkpoint import Checkpoint
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.crypto.merkle import Frontier
from fednode.crypto.suite import SUITE_1
from fuzz.target import PROTOBUF, TEXT, Target, codes, law
from world import NOW_S, World, keys_of

VECTORS = Path(__file__).parents[2] / "crypto" / "vectors"
SYNC_VECTORS = Path(__file__).parents[2] / "sync" / "vectors"
KEYS = keys_of("fuzz")
VILLAGE = "130102001001"


@cache
def world() -> World:
    return World()


def vector(name: str) -> Any:
    """A golden vector of crypto's."""
    return json.loads((VECTORS / name).read_text("utf-8"))


# ---------------------------------------------------------------- texts


def _canonical(data: bytes) -> None:
    value = canonical.loads(data)
    law(canonical.dumps(value) == data, "canonical JSON has one form")


def _canonical_seeds() -> Iterator[bytes]:
    yield from (b"{}", b"[]", b'"\\u0001"', b"-0.5", b"1e+21", b'[1,2.5,null,true,false,"\xe7\x9f\xb3"]')
    yield canonical.dumps({"a": [{"b": 1}, "\U0001f600", 9007199254740991], "\ufb33": -1, "z": 1.5e-7})


def _note(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    parsed = note.parse(text)
    law(parsed.format() == text, "a note has one form")
    for line in parsed.lines:
        for check in (note.verify, note.verify_cosignature):
            law(_refuses(check, parsed, line.name), "nobody's signature verifies")
        checkpoint.find_cosignature(parsed, line.name, KEYS.sign.public)


def _refuses(check: Any, parsed: note.Note, name: str) -> bool:
    try:
        check(parsed, name, KEYS.sign.public)
    except certs.IntegrityError as error:
        return error.code == "FN-6201"
    return False


def _note_seeds() -> Iterator[bytes]:
    for case in vector("checkpoint.json")["cases"]:
        yield from (text.encode() for text in case.values() if isinstance(text, str) and "\n\n\u2014" in text)
    yield note.Note("text\n", (note.Line("hebei/13", b"\0\0\0\1", b"s" * 64),)).format().encode()


def _note_inside(data: bytes) -> None:
    """A note that somebody whose key is known has signed: name, time, text."""
    name = data[:1].decode("latin-1") + "/13"
    time_s = int.from_bytes(data[1:9], "big")
    text = data[9:].decode("utf-8", "replace")
    public = KEYS.sign.public
    stamped = data[1:9] + KEYS.sign.sign(note.cosigned(text, time_s))
    lines = (
        note.Line(name, note.key_id(name, note.ED25519, public), KEYS.sign.sign(text.encode())),
        note.Line(name, note.key_id(name, note.COSIGNATURE, public), stamped),
    )
    made = note.parse(note.Note(text, lines).format())
    note.verify(made, name, public)
    note.verify_cosignature(made, name, public)
    checkpoint.from_text(made.text)


def _note_inside_seeds() -> Iterator[bytes]:
    yield b"h" + NOW_S.to_bytes(8, "big") + Checkpoint("hebei/13/1/sys.nodes", 3, bytes(32)).text().encode()


def _verifier_key(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    law(note.verifier_key(*note.parse_verifier_key(text)) == text, "a verifier key has one form")


def _verifier_key_seeds() -> Iterator[bytes]:
    for kind in (note.ED25519, note.COSIGNATURE):
        yield note.verifier_key("hebei/13", kind, KEYS.sign.public).encode()


def _checkpoint(data: bytes) -> None:
    head, parsed = checkpoint.from_note(data.decode("utf-8", "surrogateescape"))
    law(parsed.text.startswith(head.text()), "a checkpoint's text")


def _tlogproof(data: bytes) -> None:
    law(tlogproof.parse(data).format().encode() == data, "a proof file has one form")


def _tlogproof_seeds() -> Iterator[bytes]:
    for name in ("record.tlog-proof", "record-wide.tlog-proof"):
        yield (SYNC_VECTORS / name).read_bytes()
    parsed = note.Note("hebei/13/1/x\n1\n" + "A" * 43 + "=\n", (note.Line("hebei/13", b"\0\0\0\1", b"s" * 64),))
    yield tlogproof.TlogProof(5, (bytes(32), bytes(32)), parsed, b"more").format().encode()


# ---------------------------------------------------------------- certificates


def _certificate(der: bytes) -> None:
    found = certs.parse(der)
    certs.key_ids(der)
    certs.tls_dates(der)
    certs.outside_tls_dates((der,), NOW_S)
    _shown(found)


def _shown(found: certs.Identity) -> None:
    """What is done with any certificate that was read."""
    certs.iso(found.not_before), certs.iso(found.not_after)
    law(0 < found.incarnation < 10**9 and type(found.incarnation) is int, "incarnation")
    law(all(type(one) is str for one in (*found.scope, *found.levels, found.dns, found.stands_for)), "texts")
    hash((found.scope, found.levels))


def _certificates() -> Iterator[bytes]:
    for name in ("certificate.json", "certificate-wide.json"):
        yield from map(bytes.fromhex, vector(name)["chain"])


def _chain(data: bytes) -> None:
    """A chain, each certificate with its length, that ends with the pinned root."""
    chain, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        chain.append(data[at + 2 : at + 2 + size])
        at += 2 + size
    for one in certs.check_chain([*chain, world().root_der], world().root_sha256, NOW_S):
        _shown(one)


def _chain_seeds() -> Iterator[bytes]:
    for node in (VILLAGE, "13"):
        yield b"".join(len(one).to_bytes(2, "big") + one for one in world().places[node].chain[:-1])


def _profile(raw: bytes) -> bytes:
    """The county's certificate with another profile, signed by its issuer."""
    old = x509.load_der_x509_certificate(world().places["130102"].chain[0])
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(old.public_key())
        .serial_number(7)
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for one in old.extensions:
        made = one.value if one.oid != certs.PROFILE else x509.UnrecognizedExtension(certs.PROFILE, certs.text_der(raw))
        builder = builder.add_extension(made, one.critical)
    key = world().places["1301"].keys.tls.key
    return builder.sign(key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def _certificate_inside(raw: bytes) -> None:
    der = _profile(raw)
    for one in certs.check_chain((der, *world().places["1301"].chain), world().root_sha256, NOW_S):
        _shown(one)


def _profile_seeds() -> Iterator[bytes]:
    for der in (world().places["130102"].chain[0], world().places[VILLAGE].chain[0]):
        found = x509.load_der_x509_certificate(der).extensions.get_extension_for_oid(certs.PROFILE).value
        yield certs.text_of(found.public_bytes())


def _request(der: bytes) -> None:
    found = issuing.parse_request(der)
    law(len(found.sign_key) == len(found.seal_key) == 32, "keys of a request")


def _requests() -> Iterator[bytes]:
    for name in ("certificate.json", "certificate-wide.json"):
        yield from (bytes.fromhex(one) for what, one in vector(name).items() if what == "request")
    yield issuing.make_request("1303", KEYS.tls, KEYS.sign, KEYS.seal)


def _request_inside(raw: bytes) -> None:
    """A request with any profile that the TLS key has signed."""
    subject = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "1303")])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    made = x509.UnrecognizedExtension(certs.PROFILE, certs.text_der(raw))
    signed = builder.add_extension(made, False).sign(KEYS.tls.key, hashes.SHA256(), ecdsa_deterministic=True)
    _request(signed.public_bytes(Encoding.DER))


def _request_profiles() -> Iterator[bytes]:
    found = x509.load_der_x509_csr(issuing.make_request("1303", KEYS.tls, KEYS.sign, KEYS.seal))
    yield certs.text_of(found.extensions.get_extension_for_oid(certs.PROFILE).value.public_bytes())


# ---------------------------------------------------------------- keys and trees


def _key_file(data: bytes) -> None:
    for kind in (SigningKey, SealKey, TlsKey):
        for passphrase in (None, b"secret"):
            try:
                kind.from_pem(data, passphrase)
            except certs.FednodeError as error:
                law(error.code == "FN-7615", f"{kind.__name__}: {error}")


def _key_files() -> Iterator[bytes]:
    yield from (KEYS.sign.to_pem(), KEYS.seal.to_pem(), KEYS.tls.to_pem())


def _frontier(data: bytes) -> None:
    found = Frontier.from_bytes(data)
    law(found.to_bytes() == data, "a frontier has one form")
    found.extend([bytes(32)]).root()


def _frontiers() -> Iterator[bytes]:
    yield from (bytes.fromhex(case["bytes"]) for case in vector("frontier.json")["cases"])


def _path(data: bytes) -> None:
    """Inclusion and consistency: two numbers, then hashes."""
    a, b = int.from_bytes(data[:8], "big"), int.from_bytes(data[8:16], "big")
    one, other, *rest = [data[i : i + 32] for i in range(16, max(len(data), 49), 32)]
    for check in (
        lambda: merkle.verify_inclusion(one, a, b, rest, other),
        lambda: merkle.verify_consistency(a, b, one, other, rest),
    ):
        try:
            check()
        except certs.IntegrityError as error:
            law(error.code == "FN-6203", str(error))


def _paths() -> Iterator[bytes]:
    from fednode.crypto import proof

    leaves = [SUITE_1.hash(bytes((n,))) for n in range(11)]
    tree = proof.over(leaves)
    for index, size in ((5, 11), (0, 1), (7, 8)):
        path = proof.inclusion(tree, index, size)
        begin = index.to_bytes(8, "big") + size.to_bytes(8, "big") + leaves[index] + proof.root(tree, size)
        yield begin + b"".join(path)
    path = proof.consistency(tree, 6, 11)
    begin = (6).to_bytes(8, "big") + (11).to_bytes(8, "big") + proof.root(tree, 6) + proof.root(tree, 11)
    yield begin + b"".join(path)


# ---------------------------------------------------------------- sealed


def _sealed(data: bytes) -> None:
    """Commitment, wrapped key, ciphertext, opened with a reader's key; and with the key of a rewrap."""
    commit, wrap, rest = data[:32], data[32 : 32 + seal.WRAP_BYTES], data[32 + seal.WRAP_BYTES :]
    content_key = seal.unwrap(KEYS.seal.private, wrap, b"header", SUITE_1)
    seal.open_with_key(commit, rest, b"header", content_key, SUITE_1)


@cache
def _sealed_seeds() -> tuple[bytes, ...]:
    done = seal.seal_body(b"body", b"header", [(KEYS.seal.key_id, KEYS.seal.public)], bytes(32), SUITE_1)
    again = seal.rewrap(KEYS.seal.public, bytes(32), bytes(32), SUITE_1)
    return done.commit + done.wraps[0] + done.ciphertext, done.commit + again + done.ciphertext


def _stream(data: bytes) -> None:
    """A header's commitment, a wrapped key, frames with their lengths; the last frame is the last."""
    commit, wrap = data[:32], data[32 : 32 + stream.WRAP_BYTES]
    content_key = stream.unwrap(KEYS.seal.private, wrap, b"header")
    opener = stream.Opener(b"header", commit, content_key)
    at = 32 + stream.WRAP_BYTES
    while at < len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        frame, at = data[at + 2 : at + 2 + size], at + 2 + size
        opener.open(frame, last=at >= len(data))


@cache
def _stream_seeds() -> tuple[bytes, ...]:
    out = stream.Sealer(b"header", KEYS.seal.public, bytes(32))
    frames = [out.seal(b"one"), out.seal(b""), out.seal(b"two", last=True)]
    return (out.commit + out.wrap + b"".join(len(one).to_bytes(2, "big") + one for one in frames),)


CHAIN = codes("6101 6102 6103 6104 6105")
TARGETS = (
    Target("canonical", _canonical, codes("6206"), _canonical_seeds, TEXT),
    Target("note", _note, codes("6208"), _note_seeds, TEXT),
    Target("note-inside", _note_inside, codes("6201 6208"), _note_inside_seeds, TEXT),
    Target("verifier-key", _verifier_key, codes("6208 6205"), _verifier_key_seeds, TEXT),
    Target("checkpoint", _checkpoint, codes("6208"), _note_seeds, TEXT),
    Target("tlogproof", _tlogproof, codes("6220 6221 6208"), _tlogproof_seeds, TEXT, bytes_max=16384),
    Target("certificate", _certificate, codes("6101"), _certificates),
    Target("certificate-inside", _certificate_inside, CHAIN, _profile_seeds, TEXT),
    Target("chain", _chain, CHAIN, _chain_seeds, bytes_max=8192),
    Target("request", _request, codes("6106"), _requests),
    Target("request-inside", _request_inside, codes("6106"), _request_profiles, TEXT),
    Target("key-file", _key_file, codes(""), _key_files, TEXT),
    Target("frontier", _frontier, codes("6207"), _frontiers),
    Target("path", _path, codes(""), _paths),
    Target("sealed", _sealed, codes("6204"), _sealed_seeds),
    Target("stream", _stream, codes("6204"), _stream_seeds),
)
__all__ = ["KEYS", "PROTOBUF", "TARGETS", "world"]
