"""A proof file under the eyes of golang.org/x/mod/sumdb: the Go project's own signed notes and RFC 6962 trees.

Runs where Debian's `golang-go` and `golang-golang-x-mod-dev` are installed (scripts/test does it where it may).
"""

from __future__ import annotations

import base64
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import proofs
from fednode.crypto import note
from fednode.node.home import root_of_pem
from fednode.sync import proof_file
from world import NOW_S, World

PROGRAM = Path(__file__).parents[1] / "third_party/check.go"
GOPATH = Path("/usr/share/gocode")
WORLD = World()
VILLAGE = proofs.VILLAGE
TOLD = ("130102001", "130102", "1301", "13")
pytestmark = pytest.mark.skipif(
    shutil.which("go") is None or not (GOPATH / "src/golang.org/x/mod/sumdb").is_dir(),
    reason="needs Debian's golang-go and golang-golang-x-mod-dev",
)

Check = Callable[..., tuple[int, str]]


@pytest.fixture(scope="session")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """The program, compiled: (exit code, what it says) of a file."""
    folder = tmp_path_factory.mktemp("go")
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": str(GOPATH), "GOCACHE": str(folder / "cache")}
    subprocess.run(["go", "build", "-o", str(folder / "check"), str(PROGRAM)], check=True, env=env)

    def run(file: bytes, log_key: str, leaf: bytes, *witnesses: str) -> tuple[int, str]:
        (folder / "file").write_bytes(file)
        words = [str(folder / "check"), str(folder / "file"), log_key, base64.b64encode(leaf).decode(), *witnesses]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout.strip()

    return run


def leaf_data(file: bytes, root_der: bytes = WORLD.root_der) -> bytes:
    """What RFC 6962 hashes after 0x00."""
    return proof_file.check(file, root_der).leaf.data()


def key_of(node: str, kind: int) -> str:
    return note.verifier_key(f"hebei/{node}", kind, WORLD.places[node].keys.sign.public)


LOG_KEY = key_of(proofs.VILLAGE, note.ED25519)
WITNESS_KEYS = [key_of(node, note.COSIGNATURE) for node in TOLD]


def file_of(index: int = 3) -> bytes:
    """Witnessed by every level above."""
    return proofs.made(WORLD, witnesses=[(node, NOW_S + 60 * n) for n, node in enumerate(TOLD, 1)], index=index)


def test_it_verifies_signatures_cosignatures_of_all_levels_and_the_path(check: Check) -> None:
    for index in range(7):
        file = file_of(index)
        times = " ".join(str(NOW_S + 60 * n) for n in range(1, 5))
        assert check(file, LOG_KEY, leaf_data(file), *WITNESS_KEYS) == (
            0,
            f"ok hebei/{VILLAGE}/1/shop {index} 7 {times}",
        )


@pytest.mark.parametrize("kind", ["", "-wide"])
def test_it_verifies_the_recorded_file(check: Check, kind: str) -> None:
    vectors = Path(__file__).parent / "vectors"
    file, root = (vectors / f"record{kind}.tlog-proof").read_bytes(), root_of_pem(vectors / f"root{kind}.pem").der
    code, said = check(file, LOG_KEY, leaf_data(file, root), *WITNESS_KEYS[:2])
    assert (code, said.split()[:4]) == (0, ["ok", f"hebei/{VILLAGE}/1/shop", "3", "7"])


@pytest.mark.parametrize(
    ("was", "now", "says"),
    [(b"\n7\n", b"\n8\n", "note"), (b"index 3", b"index 4", "inclusion"), (b"/1/shop\n", b"/2/shop\n", "note")],
)
def test_what_was_altered_it_refuses(check: Check, was: bytes, now: bytes, says: str) -> None:
    file = file_of()
    assert was in file
    code, said = check(file.replace(was, now, 1), LOG_KEY, leaf_data(file), *WITNESS_KEYS)
    assert (code, said.split(":")[0]) == (1, says)


def test_another_leaf_another_key_and_a_witness_left_out_it_refuses(check: Check) -> None:
    file = file_of()
    assert check(file, LOG_KEY, b"other", *WITNESS_KEYS)[0] == 1
    assert check(file, key_of("1301", note.ED25519), leaf_data(file), *WITNESS_KEYS)[0] == 1
    assert check(file, LOG_KEY, leaf_data(file), *WITNESS_KEYS[1:])[0] == 1
    wrong = proofs.made(WORLD, witnesses=[("130102001", NOW_S + 60)]).replace(b"hebei/130102001 ", b"hebei/130102 ")
    assert check(wrong, LOG_KEY, leaf_data(file), WITNESS_KEYS[1])[0] == 1
