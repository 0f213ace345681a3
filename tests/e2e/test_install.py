"""The binary as scripts/build-binary makes it, built once for all tests of this file; and what the installer on the
stick does with it to a fresh Debian: install, upgrade, step back, uninstall. tests/lib/fresh_root says what is real."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import fednode
import fresh_root
import sites
from console import PASSWORD, TOKEN
from fresh_root import WAIT_S, Root
from ports import free_port
from processes import Processes
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
    if made := os.environ.get("TEST_DIST"):  # for who works on these tests: signed, with release.pem beside it
        return Path(made)
    folder = tmp_path_factory.mktemp("build")
    succeed("openssl", "genpkey", "-algorithm", "ed25519", "-out", folder / "release.pem")
    build = ("--out", folder / "dist", "--key", folder / "release.pem", "--level", "1")
    succeed(ROOT / "scripts/build-binary", *build, timeout=BUILD_S)
    return folder / "dist"


def one_file(dist: Path) -> Path:
    """The program as one file."""
    (archive,) = dist.glob("*.tar.gz")
    return archive.with_name(archive.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the one file unpacks itself."""
    return tmp_path_factory.mktemp("disk")


@pytest.fixture(scope="module")
def folder(dist: Path, disk: Path) -> Path:
    """What is in it, unpacked by itself."""
    succeed(one_file(dist), "version", env={"FEDNODE_UNPACK_DIR": str(disk)})
    (only,) = (path for path in (disk / "fednode").iterdir() if path.is_dir())
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


def test_it_runs_in_an_empty_environment_with_nothing_of_python_around(dist: Path, disk: Path, tmp_path: Path) -> None:
    home, where = str(tmp_path / "home"), {"FEDNODE_UNPACK_DIR": str(disk)}
    run = lambda *arguments: succeed(one_file(dist), "--home", home, *arguments, env=where, cwd="/")  # noqa: E731
    run("init", "--id", "13", "--name", "河北省")
    run("catalog", "publish", "--shipped")
    assert json.loads(run("nodes", "--json"))["nodes"][0]["name"] == "河北省"
    assert json.loads(run("verify", "--json"))["ok"]
    pages = {path.stem for path in (ROOT / "node/data/docs").glob("*.md")}
    assert {one["topic"] for one in json.loads(run("docs", "--json"))["docs"]} == pages
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
    for name in ("./usr/bin/fednode\n", "./usr/lib/fednode/fednode.bin\n", "./usr/lib/systemd/system/fednode.service"):
        assert name in listing
    assert all(line.split()[1] == "root/root" for line in listing.splitlines())


# ---------------------------------------------------------------- the stick

VILLAGE, NAME = "130102001001", "棉一东社区"
BROKEN = """#!/bin/sh
case "$*" in
  *self-test*) exit 0 ;;
  *run) {run} ;;
esac
"""


@pytest.fixture(scope="module")
def province(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Processes]:
    """The node that the machine joins: it runs on this machine, from the checkout."""
    with sites.province(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    """A fresh Debian."""
    if why := fresh_root.why_not():
        pytest.skip(why)
    path = tmp_path_factory.mktemp("machine") / "root"
    if why := fresh_root.unpacked(path):
        pytest.skip(why)
    root = Root(path)
    try:
        yield root
    finally:
        root.close()
        shutil.rmtree(path)


def release(dist: Path, folder: Path, version: str, run: str) -> Path:
    """Another version in a dist of its own: the same program, or one whose daemon does `run` instead."""
    (folder / version).mkdir(parents=True)
    (archive,) = dist.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "parts", filter="data", members=None if not run else [])
    inside = folder / "parts" / archive.name.removesuffix(".tar.gz")
    inside.mkdir(parents=True, exist_ok=True)
    if run:
        (inside / "fednode").write_text(BROKEN.format(run=run), "utf-8")
        (inside / "fednode").chmod(0o755)
    (inside / "VERSION").write_text(f"{version}\n", "ascii")
    target = folder / version / archive.name.replace(fednode.__version__, version)
    with tarfile.open(target, "w:gz", compresslevel=0) as packed:
        packed.add(inside, inside.name)
    shutil.rmtree(folder / "parts")
    return folder / version


def inside(machine: Root, *command: str) -> str:
    """What a command in the root says."""
    done = machine.run(*command)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def three_questions(machine: Root) -> str:
    """Somebody at the terminal who thinks better of it, then answers each of the three questions, and first each
    wrongly. What was on the screen."""
    code, screen = machine.talk("/media/stick/install.sh", answers=[("language", "\x03")])
    assert code == 130, screen
    assert "fednode" not in (machine.path / "etc/passwd").read_text("utf-8")
    assert not [name for name in ("opt/fednode", "etc/fednode", "srv/fednode") if (machine.path / name).exists()]
    answers = [("language", "fr\n"), ("type zh or en", ""), ("language", "zh\n")]
    answers += [
        ("令牌本身", "tokn\n"),
        ("读不到令牌 /media/stick/tokn", ""),
        ("令牌本身", "install.sh\n"),
        ("里没有令牌", ""),
    ]
    answers += [("[/media/stick/token]", "\n"), ("数据放在哪个目录", "数据\n"), ("不能用", "")]
    answers += [("数据放在哪个目录", "/srv/fednode\n")]
    code, said = machine.talk("/media/stick/install.sh", answers=answers)
    assert code == 0, said
    assert "完成：fednode" in said
    return said


def the_debian_package(dist: Path, machine: Root, records: object) -> None:
    """It finds the data where they were put; its unit can run the one file, and the console is in it; a purge leaves
    the data."""
    (deb,) = dist.glob("*.deb")
    shutil.copy(deb, machine.path / "var/tmp/fednode.deb")
    shutil.copy(one_file(dist), machine.path / "usr/local/bin/fednode-one")
    (machine.path / "etc/fednode/install.conf").write_text("data=/srv/fednode\n", "ascii")
    inside(machine, "dpkg", "--install", "/var/tmp/fednode.deb")
    assert json.loads(inside(machine, "fednode", "digest", "--json"))["records"] == records
    added, port = machine.path / "etc/systemd/system/fednode.service.d", free_port()
    service = f"[Service]\nExecStart=\nExecStart=/usr/local/bin/fednode-one run --http 127.0.0.1:{port}\n"
    (added / "one.conf").write_text(service, "ascii")
    done = machine.run("fednode", "user", "add", "alice", "--role", "viewer", "--password-file", "-", given=PASSWORD)
    assert done.returncode == 0, done.stderr
    inside(machine, "systemctl", "start", "fednode")
    process = machine.systemd.process
    assert process is not None
    unpacked = os.readlink(f"/proc/{process.pid}/exe").removeprefix(str(machine.path))
    assert re.fullmatch(r"/srv/fednode/\.cache/fednode/[0-9a-f]{64}/fednode\.bin", unpacked)
    the_console_works(f"http://127.0.0.1:{port}")
    inside(machine, "systemctl", "stop", "fednode")
    shutil.rmtree(added)
    inside(machine, "dpkg", "--purge", "fednode")
    assert not (machine.path / "usr/bin/fednode").exists()


def test_install_upgrade_step_back_and_uninstall(
    dist: Path, province: Processes, machine: Root, tmp_path: Path
) -> None:
    key, home = dist.parent / "release.pem", machine.path / "srv/fednode/node"

    def stick(source: Path, *settings: str | Path) -> Path:
        at = machine.path / "media/stick"
        succeed(ROOT / "scripts/build-stick", "--dist", source, "--out", at, *settings)
        return at

    def install(expected: int, *arguments: str, **environ: str) -> str:
        done = machine.run("/media/stick/install.sh", *arguments, **environ)
        said = done.stdout + done.stderr
        log = machine.path / "daemon.log"
        shown = log.read_text("utf-8")[-2000:] if log.exists() else ""
        assert done.returncode == expected, f"{done.returncode}\n{said}\n{shown}"
        return said

    def ask(*words: str) -> dict[str, object]:
        document: dict[str, object] = json.loads(inside(machine, "/usr/local/bin/fednode", *words, "--json"))
        return document

    def runs(version: str) -> None:
        """The daemon is up, of this version, as its own user, and holds what it held."""
        process = machine.systemd.process
        assert process is not None
        assert process.poll() is None
        assert os.readlink(machine.path / "opt/fednode/current") == f"/opt/fednode/{version}"
        where = os.readlink(f"/proc/{process.pid}/exe")
        assert where.endswith(f"/opt/fednode/{version}/fednode.bin")
        assert os.stat(f"/proc/{process.pid}").st_uid == home.stat().st_uid != 0
        assert ask("digest")["records"] == records

    # a machine that has never heard of it, and somebody at it
    token = province.folder / "token"
    province.run("13", "invite", VILLAGE, "--level", "village", "--name", NAME, "--token-file", str(token))
    stick(dist, "--key", key, "--token", token)
    (machine.path / "usr/bin/openssl").rename(machine.path / "root/openssl")
    said = three_questions(machine)
    assert "签名未检查" in said  # there is no openssl, and the installer does not pretend
    (machine.path / "root/openssl").rename(machine.path / "usr/bin/openssl")
    assert machine.systemd.said[-1]["READY"] == "1"
    assert NAME in machine.systemd.said[-1]["STATUS"] or VILLAGE in machine.systemd.said[-1]["STATUS"]
    assert machine.systemd.enabled == {"fednode"}
    assert not list((machine.path / "run").glob("fednode-token*")), "the token is left on the machine"
    rows = tmp_path / "rows.csv"
    succeed(ROOT / "scripts/sample-data", "--rows", "20", "--area", VILLAGE, "-o", rows)
    shutil.copy(rows, machine.path / "var/tmp/rows.csv")
    province.until(
        "the catalog is there", lambda: machine.run("/usr/local/bin/fednode", "catalog", "show").returncode == 0
    )
    ask("import", "admin-licence", "/var/tmp/rows.csv")
    records = ask("digest")["records"]
    assert records == 20
    runs(fednode.__version__)

    # what root does is done as the service's user, and reaches where only root may
    (machine.path / "root/usb").mkdir(mode=0o700)
    shutil.copy(rows, machine.path / "root/rows.csv")
    (machine.path / "root/rows.csv").chmod(0o600)
    assert ask("import", "admin-licence", "/root/rows.csv", "--dry-run")["command"] == "import"
    ask("bundle", "export", "--to", "parent", "-o", "/root/usb")
    assert list((machine.path / "root/usb").rglob("*.fnb"))
    assert {path.stat().st_uid for path in (home, *home.rglob("*"))} == {home.stat().st_uid}

    # a stick that is damaged, one that is not signed, one of somebody else: nothing is touched
    (archive,) = (machine.path / "media/stick").glob("*.tar.gz")
    whole = archive.read_bytes()
    archive.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    assert archive.name in install(3)
    stick(dist)
    assert "没有签名" in install(3)
    succeed("openssl", "genpkey", "-algorithm", "ed25519", "-out", tmp_path / "other.pem")
    stick(dist, "--key", tmp_path / "other.pem")
    assert "签名不对" in install(3)
    runs(fednode.__version__)

    # a version that works, one that ends at once, one that never says that it is ready
    better = release(dist, tmp_path, "0.2.1", "")
    stick(better, "--key", key)
    said = install(0)
    assert "完成：fednode 0.2.1" in said
    assert "签名正确（/etc/fednode/release.pub）" in said
    runs("0.2.1")
    for version, run, ready_s in (("0.2.2", "exit 1", "900"), ("0.2.3", "exec sleep 3600", "2")):
        stick(release(dist, tmp_path, version, run), "--key", key)
        said = install(8, READY_S=ready_s)
        assert f"新版本 {version} 没有起来" in said
        runs("0.2.1")
        assert not (machine.path / "opt/fednode" / version).exists()

    # gone, with the data kept; and back with them, without a token
    stick(better, "--key", key)
    inside(machine, "/media/stick/uninstall.sh")
    assert machine.systemd.process is None
    for name in ("opt/fednode", "usr/local/bin/fednode", "etc/systemd/system/fednode.service"):
        assert not (machine.path / name).exists()
    assert (home / "log.db").exists()

    the_debian_package(dist, machine, records)
    assert (home / "log.db").exists()

    # and back with the stick, the data where it puts them by itself, without a token
    (machine.path / "etc/fednode/install.conf").unlink()
    home.parent.rename(machine.path / "var/lib/fednode")
    home = machine.path / "var/lib/fednode/node"
    install(0, "--answers", "/media/stick/answers.example")
    runs("0.2.1")


def the_console_works(url: str) -> None:
    """As a browser would: its pages with all that belongs to them, and signing in."""
    with httpx.Client(base_url=url, timeout=WAIT_S, trust_env=False) as browser:
        page = browser.get("/signin").text
        assets = set(re.findall(r'(?:src|href)="(/static/[^"]+)"', page))
        assert assets
        for asset in assets:
            assert browser.get(asset).status_code == 200, asset
        found = TOKEN.search(page)
        assert found is not None
        answer = browser.post("/signin", data={"form_token": found[1], "name": "alice", "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        assert NAME in browser.get("/node").text
