"""Real processes of different versions: release 0.1 (its own code, out of the history) beside today's, in both
directions; and a program two versions on."""

from __future__ import annotations

import io
import json
import signal
import subprocess
import tarfile
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

import fednode
from fednode.node.shipped import catalog
from processes import FEDNODE, ROOT, Processes
from sample_data import records, write

LAST_OF_0_1 = "61e5c9291934fbdf255287688113ed83118b01dd"  # the last commit that speaks protocol version 1 alone
PROVINCE, CITY = "13", "1301"


def _archive() -> bytes | None:
    """The program of release 0.1; None where the history does not reach back (a shallow clone)."""
    command = ["git", "archive", LAST_OF_0_1, "proto", "crypto", "sync", "node", "src"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


ARCHIVE = _archive()
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(ARCHIVE is None, reason=f"no commit {LAST_OF_0_1} in this clone (or no git)"),
]


@pytest.fixture
def old(tmp_path: Path) -> dict[str, str]:
    """The environment of a program of release 0.1."""
    folder = tmp_path / "release-0.1"
    with tarfile.open(fileobj=io.BytesIO(ARCHIVE or b"")) as archive:
        archive.extractall(folder, filter="data")
    return {"PYTHONPATH": str(folder / "src")}


@pytest.fixture
def two_on(tmp_path: Path) -> dict[str, str]:
    """The environment of a program that is two versions on."""
    folder = tmp_path / "two-on"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from fednode.sync import versions\n"
        "versions.SPOKEN = versions.Versions(versions.SPOKEN.high + 1, versions.SPOKEN.high + 2)\n"
        "versions.RELEASES[versions.SPOKEN.high] = '9.8.7'\n"
    )
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path)
    made.settings = ""  # release 0.1 knows none of the newer ones
    try:
        yield made
    finally:
        for process in made.daemons.values():
            process.kill()
            process.wait()


def exchanged(nodes: Processes, tmp_path: Path, seed: int) -> None:
    """Forty licences up, a correction of one of them down; the same at both."""
    path = tmp_path / f"{seed}.csv"
    write(path, catalog().datasets["admin-licence"], records("admin-licence", 40, seed=seed, area=CITY))
    before = nodes.records(PROVINCE)[0]
    nodes.until("the catalog is there", lambda: nodes.run(CITY, "status")["status"]["catalog"] == 1)
    assert nodes.run(CITY, "import", "admin-licence", str(path))["added"] == 40
    nodes.until("they arrived", lambda: nodes.records(PROVINCE)[0] == before + 40)
    listed = nodes.run(PROVINCE, "find", "admin-licence", "--limit", "100")["records"]
    found = max(listed, key=lambda one: one["record"].get("xk_yxqzi", ""))  # release 0.1 shows what is over, too
    record = {**found["record"], "xk_zt": "1" if found["record"]["xk_zt"] == "2" else "2"}
    nodes.run(PROVINCE, "put", "admin-licence", json.dumps(record, ensure_ascii=False), "--area", CITY)
    nodes.until("corrected", lambda: nodes.run(CITY, "get", "admin-licence", found["key"])["record"] == record)
    nodes.until("the same at both", lambda: nodes.records(CITY) == nodes.records(PROVINCE))
    for node in (PROVINCE, CITY):
        assert nodes.run(node, "verify")["problems"] == []
        assert nodes.run(node, "refused")["refused"] == []


def plain(tmp_path: Path) -> str:
    """The shipped catalog as docs/catalog.md has it for a mesh with nodes of release 0.1: without `bodies`."""
    text = resources.files("fednode.node").joinpath("data/catalogs/organisations.toml").read_text(encoding="utf-8")
    assert "\nbodies = 2\n" in text
    path = tmp_path / "plain.toml"
    path.write_text(text.replace("\nbodies = 2\n", "\n"))
    return str(path)


@pytest.mark.parametrize("older", [CITY, PROVINCE])
def test_release_0_1_and_today_exchange_in_both_directions_and_upgrade(
    nodes: Processes, old: dict[str, str], tmp_path: Path, older: str
) -> None:
    nodes.environment[older] = old
    assert nodes.run(older, "version")["versions"]["fednode"] == "0.1.0"
    assert nodes.run(CITY if older == PROVINCE else PROVINCE, "version")["versions"]["fednode"] == fednode.__version__
    nodes.found(PROVINCE, "province", "河北省")
    nodes.run(PROVINCE, "catalog", "publish", *(["--shipped"] if older == PROVINCE else [plain(tmp_path)]))
    nodes.found(CITY, "city", "石家庄市", PROVINCE)
    exchanged(nodes, tmp_path, 1)
    if older == PROVINCE:  # a parent of 0.1 answers a sounding, too
        moved = nodes.run(CITY, "sync")["sync"]
        assert (moved["over"], moved["pending"]) == ("daemon", 0)
    nodes.kill(older, signal.SIGTERM)
    del nodes.environment[older]  # upgraded
    nodes.start(older)
    exchanged(nodes, tmp_path, 2)


@pytest.mark.parametrize("child", ["today", "0.1"])
def test_who_is_two_versions_behind_is_told_the_package(
    nodes: Processes, old: dict[str, str], two_on: dict[str, str], child: str
) -> None:
    if child == "0.1":
        nodes.environment[CITY] = old
    nodes.found(PROVINCE, "province", "河北省")
    nodes.run(PROVINCE, "catalog", "publish", "--shipped")
    nodes.found(CITY, "city", "石家庄市", PROVINCE)
    nodes.stop_all()
    nodes.environment[PROVINCE] = two_on
    nodes.start(PROVINCE)
    for lang, words in (("zh", "本机程序版本过旧"), ("en", "this machine's program is too old")):
        done = subprocess.run(
            [str(FEDNODE), "--home", str(nodes.home(CITY)), "--lang", lang, "sync"],
            capture_output=True, text=True, env=nodes._environ(CITY), check=False,
        )  # fmt: skip
        assert done.returncode == 5, done.stdout + done.stderr
        assert "fednode>=9.8.7" in done.stderr
        assert child == "0.1" or words in done.stderr
