"""Checkpoints: what is signed, what is refused, and what implementations that are not ours say of them."""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import proofbundle.checkpoint as theirs
import proofbundle.merkle as their_tree
import pytest

from fednode.crypto import checkpoint, merkle, note, proof
from fednode.crypto.checkpoint import Checkpoint, Cosigner
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SigningKey

VILLAGE = SigningKey.from_seed(bytes(range(32)))
TOWN = SigningKey.from_seed(bytes(range(1, 33)))
STRANGER = SigningKey.from_seed(bytes(32))
LEAVES = [hashlib.sha256(bytes((n,))).digest() for n in range(7)]
HEAD = Checkpoint("hebei/130102001001/1/admin-licence@130102001001", 7, merkle.root(LEAVES))
TIME_S = 1_700_000_000


def published(head: Checkpoint = HEAD) -> str:
    witness = Cosigner("hebei/130102001", TOWN.public, TIME_S, checkpoint.cosign(head, TOWN, TIME_S))
    return checkpoint.to_note(
        head, "hebei/130102001001", VILLAGE.public, checkpoint.signature(head, VILLAGE), [witness]
    )


def refused(code: str, check: object, *arguments: object) -> None:
    assert callable(check)
    with pytest.raises(IntegrityError) as caught:
        check(*arguments)
    assert caught.value.code == code


ALTERED = [
    replace(HEAD, origin="hebei/130102001001/2/admin-licence@130102001001"),
    replace(HEAD, size=8),
    replace(HEAD, root=bytes(32)),
]


def test_a_signature_holds_for_its_head_and_key_alone() -> None:
    signature = checkpoint.signature(HEAD, VILLAGE)
    assert len(signature) == 64
    checkpoint.verify_signature(HEAD, VILLAGE.public, signature)
    refused("FN-6201", checkpoint.verify_signature, HEAD, STRANGER.public, signature)
    refused("FN-6201", checkpoint.verify_signature, HEAD, VILLAGE.public, bytes(64))
    for head in ALTERED:
        refused("FN-6201", checkpoint.verify_signature, head, VILLAGE.public, signature)


def test_a_cosignature_holds_for_its_head_time_and_key_alone() -> None:
    signature = checkpoint.cosign(HEAD, TOWN, TIME_S)
    checkpoint.verify_cosignature(HEAD, TOWN.public, TIME_S, signature)
    refused("FN-6201", checkpoint.verify_cosignature, HEAD, TOWN.public, TIME_S + 1, signature)
    refused("FN-6201", checkpoint.verify_cosignature, HEAD, VILLAGE.public, TIME_S, signature)
    refused("FN-6201", checkpoint.verify_signature, HEAD, TOWN.public, signature)
    for head in ALTERED:
        refused("FN-6201", checkpoint.verify_cosignature, head, TOWN.public, TIME_S, signature)


def test_a_note_and_back() -> None:
    head, parsed = checkpoint.from_note(published())
    assert head == HEAD
    note.verify(parsed, "hebei/130102001001", VILLAGE.public)
    assert note.verify_cosignature(parsed, "hebei/130102001", TOWN.public) == TIME_S
    found = checkpoint.find_cosignature(parsed, "hebei/130102001", TOWN.public)
    assert found is not None
    checkpoint.verify_cosignature(head, TOWN.public, found.time_s, found.signature)
    assert checkpoint.find_cosignature(parsed, "hebei/130102001", STRANGER.public) is None


def test_the_published_example_is_read() -> None:
    """C2SP tlog-cosignature's example (its keys are not published, so it is read and not verified)."""
    text = (
        "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
        "— example.com/behind-the-sofa "
        "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
        "— witness.example.com/w1 "
        "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n"
    )
    head, parsed = checkpoint.from_note(text)
    assert (head.origin, head.size) == ("example.com/behind-the-sofa", 20852163)
    assert parsed.lines[1].key_id.hex() == "8d66cf3f"
    assert int.from_bytes(parsed.lines[1].signature[:8], "big") == 1679315147
    assert parsed.format() == text


ROOT = base64.b64encode(HEAD.root).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "o\n7\n",
        f"\n7\n{ROOT}\n",
        f"o\n07\n{ROOT}\n",
        f"o\n-7\n{ROOT}\n",
        f"o\n+7\n{ROOT}\n",
        f"o\n\u0667\n{ROOT}\n",
        f"o\n{10**19}\n{ROOT}\n",
        f"o\n7\n{ROOT}",
        f"o\n7\n{ROOT[:-4]}\n",
        f"o\n7\n{ROOT[:-1]}\n",
        f"o\n7\n {ROOT}\n",
        f"o\n7\n{ROOT}\n\n",
        f"o\n7\n{ROOT}\n\nextension\n",
        f"o\n7\n{ROOT[:-2]}{chr(ord(ROOT[-2]) + 1)}=\n",
        "o\n7\né\n",
    ],
)
def test_what_is_no_checkpoint_is_refused(text: str) -> None:
    refused("FN-6208", checkpoint.from_text, text)


def test_extension_lines_are_ignored_but_signed() -> None:
    assert checkpoint.from_text(HEAD.text() + "extension\n") == HEAD
    extended = Checkpoint(HEAD.origin, HEAD.size, HEAD.root)
    signature = VILLAGE.sign((HEAD.text() + "extension\n").encode())
    refused("FN-6201", checkpoint.verify_signature, extended, VILLAGE.public, signature)


# ---------------------------------------------------------------- implementations that are not ours


def openssl(folder: Path, public: bytes, message: bytes, signature: bytes) -> bool:
    """What the `openssl` command says of an Ed25519 signature."""
    # SubjectPublicKeyInfo of Ed25519 (RFC 8410) is these twelve bytes and the key
    spki = base64.encodebytes(bytes.fromhex("302a300506032b6570032100") + public).decode()
    (folder / "key.pem").write_text(f"-----BEGIN PUBLIC KEY-----\n{spki}-----END PUBLIC KEY-----\n")
    (folder / "message").write_bytes(message)
    (folder / "signature").write_bytes(signature)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "key.pem", "-rawin"]
    done = subprocess.run([*command, "-in", "message", "-sigfile", "signature"], cwd=folder, capture_output=True)
    return done.returncode == 0


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command on this machine")
def test_openssl_verifies_a_published_checkpoint(tmp_path: Path) -> None:
    """From the note and the vkeys as text, taken apart here with nothing of ours."""
    keys = {
        "hebei/130102001001": note.verifier_key("hebei/130102001001", note.ED25519, VILLAGE.public),
        "hebei/130102001": note.verifier_key("hebei/130102001", note.COSIGNATURE, TOWN.public),
    }
    text, _, tail = published().rpartition("\n\n")
    text += "\n"
    for line in tail.splitlines():
        _, name, encoded = line.split(" ")
        data = base64.b64decode(encoded)
        vkey = keys[name].split("+", 2)
        typed = base64.b64decode(vkey[2])
        assert data[:4].hex() == vkey[1] == hashlib.sha256(name.encode() + b"\n" + typed).hexdigest()[:8]
        message, signature = text.encode(), data[4:]
        if typed[0] == 4:
            time_s = int.from_bytes(signature[:8], "big")
            message, signature = f"cosignature/v1\ntime {time_s}\n{text}".encode(), signature[8:]
        assert openssl(tmp_path, typed[1:], message, signature)
        assert not openssl(tmp_path, typed[1:], message.replace(b"\n7\n", b"\n8\n"), signature)
        assert not openssl(tmp_path, STRANGER.public, message, signature)


def test_another_c2sp_implementation_verifies_a_published_checkpoint() -> None:
    """proofbundle (MIT, pure Python, another's reading of C2SP and RFC 9162): note, cosignature, tree, proofs."""
    log_key = note.verifier_key("hebei/130102001001", note.ED25519, VILLAGE.public)
    witness = note.verifier_key("hebei/130102001", note.COSIGNATURE, TOWN.public)
    found = theirs.verify_checkpoint(published(), log_key)
    assert found["ok"]
    assert (found["origin"], found["tree_size"], found["root"]) == (HEAD.origin, HEAD.size, HEAD.root)
    seen = theirs.verify_cosignature(published(), witness)
    assert (seen["ok"], seen["timestamp"], seen["root"]) == (True, TIME_S, HEAD.root)
    for altered in (published().replace("\n7\n", "\n8\n"), published().replace("@130102001001", "@130102001002")):
        assert not theirs.verify_checkpoint(altered, log_key)["ok"]
        assert not theirs.verify_cosignature(altered, witness)["ok"]


def test_another_implementation_agrees_on_trees_and_proofs() -> None:
    """A leaf is SHA-256(0x00 || data) to them as to us: these leaves are of one byte each."""
    data = [bytes((n,)) for n in range(7)]
    leaves = [hashlib.sha256(b"\0" + one).digest() for one in data]
    root = merkle.root(leaves)
    assert their_tree.merkle_tree_hash(data) == root
    for index, one in enumerate(data):
        path = proof.inclusion(proof.over(leaves), index, 7)
        assert path == their_tree.inclusion_proof(data, index)
        assert their_tree.verify_inclusion(one, index, 7, path, root)
        assert not their_tree.verify_inclusion(one, (index + 1) % 7, 7, path, root)
    for old in range(1, 8):
        steps = proof.consistency(proof.over(leaves), old, 7)
        assert their_tree.verify_consistency(old, 7, steps, merkle.root(leaves[:old]), root)
