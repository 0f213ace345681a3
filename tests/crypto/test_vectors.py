"""Golden vectors: the bytes of leaf, tree, checkpoint and seal are for good. A change here breaks every log there is.

`vectors/*.json` say what goes in and what comes out, in hex, so that another implementation can be held to them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import checkpoint, merkle, note, seal
from fednode.crypto.checkpoint import Checkpoint, Cosigner
from fednode.crypto.keys import SealKey, SigningKey
from fednode.crypto.suite import suite

VECTORS = Path(__file__).parent / "vectors"


def load(name: str) -> list[dict[str, Any]]:
    cases: list[dict[str, Any]] = json.loads((VECTORS / f"{name}.json").read_text(encoding="utf-8"))["cases"]
    return cases


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def unhex(text: str) -> bytes:
    return bytes.fromhex(text)


@pytest.mark.parametrize("case", load("leaf"), ids=lambda case: case["what"])
def test_leaf(case: dict[str, Any]) -> None:
    hlc, op, version = case["hlc"], case["op"], case["schema_version"]
    key, salt, payload = unhex(case["key"]), unhex(case["salt"]), unhex(case["payload"])
    # By hand, from DESIGN.md section 5, so that the vector does not rest on the code that it tests
    committed = sha256(b"\x02", salt, payload)
    head = b"\0\1" + hlc.to_bytes(8, "big") + op.to_bytes(1, "big") + version.to_bytes(4, "big")
    assert sha256(head, len(key).to_bytes(2, "big"), key, committed).hex() == case["leaf"]
    assert merkle.commitment(salt, payload).hex() == case["commitment"]
    assert merkle.leaf(hlc, op, version, key, unhex(case["commitment"])).hex() == case["leaf"]
    assert [each.hex() for each in merkle.leaves([hlc], bytes((op,)), version, [key], salt, [payload])] == [
        case["leaf"]
    ]


@pytest.mark.parametrize("case", load("salts"), ids=lambda case: case["what"])
def test_salts(case: dict[str, Any]) -> None:
    stream = suite(case["suite"]).keystream(unhex(case["seed"]), 32 * len(case["salts"]))
    assert [stream[at : at + 32].hex() for at in range(0, len(stream), 32)] == case["salts"]


@pytest.mark.parametrize("case", load("checkpoint"), ids=lambda case: case["what"])
def test_checkpoint(case: dict[str, Any]) -> None:
    signer, witness = SigningKey.from_seed(unhex(case["seed"])), SigningKey.from_seed(unhex(case["witness_seed"]))
    head = Checkpoint(case["origin"], case["size"], unhex(case["root"]))
    assert (signer.public.hex(), witness.public.hex()) == (case["public"], case["witness_public"])
    assert head.text() == case["text"]
    signature = checkpoint.signature(head, signer)
    assert signature.hex() == case["signature"]
    cosignature = checkpoint.cosign(head, witness, case["time_s"])
    assert cosignature.hex() == case["cosignature"]
    assert note.verifier_key(case["name"], note.ED25519, signer.public) == case["vkey"]
    assert note.verifier_key(case["witness"], note.COSIGNATURE, witness.public) == case["witness_vkey"]
    cosigner = Cosigner(case["witness"], witness.public, case["time_s"], cosignature)
    assert checkpoint.to_note(head, case["name"], signer.public, signature, [cosigner]) == case["note"]
    assert checkpoint.from_note(case["note"])[0] == head


@pytest.mark.parametrize("case", load("seal"), ids=lambda case: case["what"])
def test_seal(case: dict[str, Any]) -> None:
    algorithms = suite(case["suite"])
    header, body, content_key = unhex(case["header"]), unhex(case["body"]), unhex(case["content_key"])
    readers = [SealKey.from_seed(unhex(reader["private"])) for reader in case["readers"]]
    made = seal.seal_body(body, header, [(key.key_id, key.public) for key in readers], content_key, algorithms)
    assert (made.commit.hex(), made.ciphertext.hex()) == (case["commit"], case["ciphertext"])
    for key, reader in zip(readers, case["readers"], strict=True):
        assert (key.public.hex(), key.key_id.hex()) == (reader["public"], reader["key_id"])
        # A wrap holds a fresh ephemeral key, so it can be opened again but not made again
        assert seal.unwrap(key.private, unhex(reader["wrap"]), header, algorithms) == content_key
    assert seal.open_with_key(made.commit, made.ciphertext, header, content_key, algorithms) == body
    wraps = [unhex(reader["wrap"]) for reader in case["readers"]]
    assert seal.envelope_digest(header, made.commit, wraps, made.ciphertext).hex() == case["envelope_digest"]
