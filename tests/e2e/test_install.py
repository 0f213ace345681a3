"""The binary as scripts/build-binary makes it, built once for all tests of this file."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

import fednode
from source import ROOT

TOOLS = ("readelf", "objdump", "strip", "dpkg-deb", "openssl")
MISSING = [name for name in TOOLS if shutil.which(name) is None]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.e2e,
    pytest.mark.skipif(bool(MISSING), reason=f"a binary cannot be built without {', '.join(MISSING)}"),
]
BUILD_S = 1200


def succeed(*command: str | Path, **settings: object) -> str:
    done = subprocess.run([str(one) for one in command], capture_output=True, text=True, check=False, **settings)  # type: ignore[call-overload]
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed build. It starts what it has made in an empty environment, and ends where that does not answer."""
    folder = tmp_path_factory.mktemp("build")
    succeed("openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / "release.pem")
    succeed(ROOT / "scripts/build-binary", "--out", folder / "dist", "--key", folder / "release.pem", timeout=BUILD_S)
    return folder / "dist"


@pytest.fixture(scope="module")
def folder(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The archive, unpacked."""
    (archive,) = dist.glob("*.tar.gz")
    target = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as packed:
        packed.extractall(target, filter="data")
    (only,) = target.iterdir()
    return only


def test_the_signature_is_checked_by_openssl_and_covers_every_file(dist: Path) -> None:
    files = ("-rawin", "-in", dist / "SHA256SUMS", "-sigfile", dist / "SHA256SUMS.sig")
    check = ("openssl", "pkeyutl", "-verify", "-pubin", "-inkey", dist / "fednode-release.pub", *files)
    succeed(*check)
    succeed("sha256sum", "--strict", "-c", "SHA256SUMS", cwd=dist)
    named = {line.split("  ")[1] for line in (dist / "SHA256SUMS").read_text("utf-8").splitlines()}
    apart = {"SHA256SUMS", "SHA256SUMS.sig", "fednode-release.pub"}
    assert named == {path.name for path in dist.iterdir()} - apart
    (dist / "altered").write_bytes((dist / "SHA256SUMS").read_bytes() + b"\n")
    altered = [str(dist / "altered") if one == dist / "SHA256SUMS" else str(one) for one in check]
    assert subprocess.run(altered, capture_output=True, check=False).returncode != 0
    (dist / "altered").unlink()


def test_it_runs_in_an_empty_environment_with_nothing_of_python_around(folder: Path, tmp_path: Path) -> None:
    home = str(tmp_path / "home")
    program = str(folder / "fednode")
    run = lambda *arguments: succeed(program, "--home", home, *arguments, env={}, cwd="/")  # noqa: E731
    run("init", "--id", "13", "--name", "河北省")
    run("catalog", "publish", "--shipped")
    assert json.loads(run("nodes", "--json"))["nodes"][0]["name"] == "河北省"
    assert json.loads(run("verify", "--json"))["ok"]
    assert "用法" in run("--lang", "zh", "--help") or "Usage" in run("--help")


def test_the_parts_list_names_what_is_inside(dist: Path, folder: Path) -> None:
    (listed,) = dist.glob("*.cdx.json")
    document = json.loads(listed.read_text("utf-8"))
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert document["metadata"]["component"]["version"] == fednode.__version__
    names = {one["name"] for one in document["components"]}
    wanted = {"cpython", "cryptography", "grpcio", "pysqlite3", "protobuf", "zstandard", "libcrypto.so.3"}
    assert wanted <= names
    assert not names & {"pytest", "ruff", "mypy", "hypothesis", "grpcio-tools", "setuptools"}
    assert {path.name for path in (folder / "licences").iterdir()} <= names


def test_the_debian_package_asks_for_the_glibc_that_was_computed(dist: Path) -> None:
    (deb,) = dist.glob("*.deb")
    oldest = json.loads((dist / "glibc.json").read_text("utf-8"))["oldest"]
    assert f"libc6 (>= {oldest})" in succeed("dpkg-deb", "--field", deb, "Depends")
    listing = succeed("dpkg-deb", "--contents", deb)
    for name in ("./usr/bin/fednode -> ../lib/fednode/fednode", "./usr/lib/systemd/system/fednode.service"):
        assert name in listing
    assert all(line.split()[1] == "root/root" for line in listing.splitlines())
