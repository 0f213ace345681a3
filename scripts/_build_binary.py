"""scripts/build-binary: the program as one file that needs no Python; the folder in it, .deb, parts list, signature.

Rules
1. The same checkout on the same machine gives the same bytes: one hash seed, one time (SOURCE_DATE_EPOCH), one order,
   no paths of the machine that built (`--twice` proves it).
2. The oldest glibc is what the libraries inside ask for, read from their symbol versions; the launcher and the .deb
   hold the machine to it.
3. What is made speaks: it is started in an empty environment, and must name the same versions as the program that it
   was made of.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import _man
import _older_root
import _release
import _sbom
from _release import ROOT, files_in, say

import fednode

VERSION = fednode.__version__
MACHINE = platform.machine()
DEBIAN = {"x86_64": "amd64", "aarch64": "arm64", "loongarch64": "loong64"}
LOADERS = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}
NAME = f"fednode-{VERSION}-linux-{MACHINE}"
PACKAGES = ("proto", "crypto", "sync", "node")
# Loaded by name only, so that PyInstaller does not see them. Without pysqlite3 an older SQLite would be taken.
HIDDEN = ("pysqlite3", "pysqlite3.dbapi2", "obstore", "obstore.store")
# Never used: what PyInstaller takes along because something could import it.
# The system's, not ours: what a newer libstdc++ asks of libgcc, and of glibc, only its own system knows, and ours would
# ask for the glibc of the machine that built. apt and dnf need them, so every system has them; the launcher looks.
SYSTEMS = ("libstdc++.so.6", "libgcc_s.so.1")
LEFT_OUT = (
    "setuptools",
    "pkg_resources",
    "grpc_tools",
    "tkinter",
    "readline",
    "_pytest",
    "pytest",
    "IPython",
    "PIL",
    "lib2to3",
    "opentelemetry",  # an extra, not tried frozen: FN-2604 says that it is not there
    "requests",
)
HEAD_BYTES = 16 * 1024  # of the one file: the script, before the archive
SPARE_KIB = 8 * 1024  # what an unpacked folder takes beside its files
GLIBC = re.compile(r"\bName: GLIBC_(\d+)\.(\d+)(?:\.\d+)?\b")


# ---------------------------------------------------------------- freezing


def data_files() -> Iterator[tuple[Path, str]]:
    """Every file of the packages that is no module: words, catalogs, divisions, documentation (links into docs/); and
    the folder it belongs in."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*")):
            if path.is_file() and (path.suffix not in (".py", ".pyc", ".pyi", ".proto", ".md") or path.is_symlink()):
                yield path, str(Path("fednode") / path.parent.relative_to(ROOT))


def modules() -> Iterator[str]:
    """Every module of the packages by name: commands are imported when they are named."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            yield ".".join(("fednode", *(parts[:-1] if parts[-1] == "__init__" else parts)))


def freeze(work: Path, time_s: int) -> Path:
    """PyInstaller, in a process of its own. Returns the folder."""
    command = [sys.executable, "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level", "ERROR", "--strip"]
    command += ["--onedir", "--name", "fednode.bin", "--paths", str(ROOT / "src")]
    command += ["--distpath", f"{work}/dist", "--workpath", f"{work}/work", "--specpath", str(work)]
    for name in (*HIDDEN, *modules()):
        command += ["--hidden-import", name]
    for name in LEFT_OUT:
        command += ["--exclude-module", name]
    for path, folder in data_files():
        command += ["--add-data", f"{path}:{folder}"]
    fixed = {"PYTHONHASHSEED": "0", "SOURCE_DATE_EPOCH": str(time_s), "TZ": "UTC", "LC_ALL": "C.UTF-8"}
    fixed |= {"PYINSTALLER_CONFIG_DIR": f"{work}/cache", "PYI_LOG_LEVEL": "ERROR"}
    subprocess.run([*command, str(ROOT / "deploy/binary/entry.py")], env=os.environ | fixed, check=True)
    return work / "dist/fednode.bin"


# ---------------------------------------------------------------- the oldest glibc


def is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def glibc_of(path: Path) -> tuple[int, int]:
    """The newest symbol version of glibc that a program or library asks for."""
    shown = subprocess.run(
        ["readelf", "--version-info", "--wide", path], capture_output=True, text=True, check=True
    ).stdout
    return max(((int(major), int(minor)) for major, minor in GLIBC.findall(shown)), default=(2, 0))


def glibc(folder: Path) -> tuple[tuple[int, int], list[str]]:
    """What all files in a folder need, and which of them need just that."""
    needs = {
        str(path.relative_to(folder)): glibc_of(path)
        for path in files_in(folder)
        if not path.is_symlink() and is_elf(path)
    }
    oldest = max(needs.values())
    return oldest, sorted(name for name, need in needs.items() if need == oldest)


def script(name: str, oldest: tuple[int, int], **values: str) -> str:
    """A script of deploy/binary, with what it holds the machine to."""
    major, minor = oldest
    checks = (ROOT / "deploy/binary/machine.sh").read_text("utf-8")
    text = (ROOT / "deploy/binary" / name).read_text("utf-8").replace("@CHECKS@\n", checks)
    known = {"VERSION": VERSION, "MACHINE": MACHINE, "LOADER": LOADERS[MACHINE]}
    known |= {"GLIBC": f"{major}.{minor}", "GLIBC_MAJOR": str(major), "GLIBC_MINOR": str(minor)}
    for word, value in (known | values).items():
        text = text.replace(f"@{word}@", value)
    return text


def single(archive: Path, folder: Path, target: Path, oldest: tuple[int, int]) -> None:
    """The one file: a script that unpacks what is behind it, and the archive. `folder`: what is in the archive."""
    inside = files_in(folder)
    room_kib = sum(path.stat().st_size for path in inside) // 1024 + SPARE_KIB
    values = {"ARCHIVE": _release.sha256(archive), "DIGEST": _release.sha256(folder / _release.SUMS)}
    values |= {"OFFSET": str(HEAD_BYTES), "COUNT": str(len(inside) - 1), "ROOM_KIB": str(room_kib)}
    head = script("single.sh", oldest, **values).encode()
    if len(head) > HEAD_BYTES:
        sys.exit(f"deploy/binary/single.sh does not fit into HEAD_BYTES ({len(head)} > {HEAD_BYTES})")
    with target.open("wb") as one, archive.open("rb") as packed:
        one.write(head.ljust(HEAD_BYTES, b"\n"))
        shutil.copyfileobj(packed, one)
    target.chmod(0o755)


# ---------------------------------------------------------------- one build


def commit() -> str:
    if known := os.environ.get("FEDNODE_COMMIT"):  # in an older root there is no git
        return known
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def build(out: Path, work: Path, *, deb: bool, time_s: int, level: int) -> None:
    """Everything but the checksums, into `out`."""
    folder = work / NAME
    shutil.move(freeze(work, time_s), folder)
    for name in SYSTEMS:
        (folder / "_internal" / name).unlink(missing_ok=True)
    oldest, because = glibc(folder)
    (folder / "fednode").write_text(script("launcher.sh", oldest), "utf-8")
    (folder / "fednode").chmod(0o755)
    (folder / "VERSION").write_text(f"{VERSION}\n", "ascii")
    shutil.copy(ROOT / "LICENSE", folder / "LICENSE")
    parts = _sbom.parts(work, SYSTEMS)
    for name, path in _sbom.licences(parts):
        target = folder / "licences" / name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    _sbom.write(parts, out / f"{NAME}.cdx.json", time_s, commit())
    shutil.copy(out / f"{NAME}.cdx.json", folder / "sbom.cdx.json")
    about = {"oldest": f"{oldest[0]}.{oldest[1]}", "because_of": because, "built_on": " ".join(platform.libc_ver())}
    (out / "glibc.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    _release.checksums(folder, files_in(folder))
    archive = out / f"{NAME}.tar.gz"
    _release.tar_gz(folder, archive, time_s, level)
    single(archive, folder, out / NAME, oldest)
    check_it_speaks(out / NAME, work / "unpacked")
    if deb:
        package(folder, out, work, oldest, time_s, level)


def check_it_speaks(program: Path, unpacked: Path) -> None:
    """Rule 3. `unpacked`: where the one file may unpack itself."""
    made_of = subprocess.run(
        [Path(sys.executable).with_name("fednode"), "version", "--json"], capture_output=True, check=True
    )
    unpacked.mkdir()
    where = {"FEDNODE_UNPACK_DIR": str(unpacked)}
    made = subprocess.run([program, "version", "--json"], env=where, capture_output=True, check=False)
    if made.stdout != made_of.stdout:
        sys.exit(f"{program} says {made.stdout.decode()} {made.stderr.decode()}, not {made_of.stdout.decode()}")


# ---------------------------------------------------------------- the Debian package


def package(folder: Path, out: Path, work: Path, oldest: tuple[int, int], time_s: int, level: int) -> None:
    """The .deb: the folder in /usr/lib/fednode, the command, the unit, what makes user and home."""
    tree = work / "deb"
    shutil.copytree(folder, tree / "usr/lib/fednode", symlinks=True)
    for name in ("usr/bin", "usr/lib/systemd/system", "usr/share/doc/fednode", "DEBIAN"):
        (tree / name).mkdir(parents=True)
    command = (ROOT / "deploy/fednode.sh").read_text("utf-8").replace("@PROGRAM@", "/usr/lib/fednode/fednode")
    (tree / "usr/bin/fednode").write_text(command, "utf-8")
    (tree / "usr/bin/fednode").chmod(0o755)
    shutil.copy(ROOT / "deploy/fednode.service", tree / "usr/lib/systemd/system")
    shutil.copy(ROOT / "LICENSE", tree / "usr/share/doc/fednode/copyright")
    for lang, section in (("en", tree / "usr/share/man/man1"), ("zh", tree / "usr/share/man/zh_CN/man1")):
        section.mkdir(parents=True)
        for name, page in _man.pages(lang).items():
            (section / name).write_text(page, "utf-8")
    size_kib = sum(path.stat().st_size for path in files_in(tree) if not path.is_symlink()) // 1024
    control = (ROOT / "deploy/debian/control").read_text("utf-8")
    values = {"VERSION": VERSION, "ARCH": DEBIAN[MACHINE], "GLIBC": f"{oldest[0]}.{oldest[1]}", "SIZE": str(size_kib)}
    for name, value in values.items():
        control = control.replace(f"@{name}@", value)
    (tree / "DEBIAN/control").write_text(control, "utf-8")
    for name in ("postinst", "prerm", "postrm"):
        shutil.copy(ROOT / "deploy/debian" / name, tree / "DEBIAN" / name)
        (tree / "DEBIAN" / name).chmod(0o755)
    for path in (tree, *tree.rglob("*")):
        if not path.is_symlink():
            path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
    target = out / f"fednode_{VERSION}_{DEBIAN[MACHINE]}.deb"
    pack = ["dpkg-deb", "--root-owner-group", "-Zgzip", f"-z{level}", "--build", str(tree), str(target)]
    subprocess.run(pack, env=os.environ | {"SOURCE_DATE_EPOCH": str(time_s)}, check=True, stdout=subprocess.DEVNULL)


# ---------------------------------------------------------------- the command


def tools(deb: bool) -> None:
    """What this machine must have."""
    missing = [
        name for name in ("readelf", "objdump", "strip", *(("dpkg-deb",) if deb else ())) if shutil.which(name) is None
    ]
    if missing:
        sys.exit(f"scripts/build-binary needs {', '.join(missing)} (Debian: apt install binutils dpkg)")
    if MACHINE not in LOADERS:
        sys.exit(f"scripts/build-binary does not know the loader of {MACHINE}: add it to LOADERS")


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/build-binary")
    parser.add_argument("--out", type=Path, default=ROOT / "dist")
    parser.add_argument("--key", type=Path, help="an Ed25519 private key (PEM) that signs SHA256SUMS")
    parser.add_argument("--no-deb", action="store_true")
    parser.add_argument("--twice", action="store_true")
    parser.add_argument("--in-root", metavar="SUITE", help="build in this older Debian (bullseye)")
    parser.add_argument("--level", type=int, default=6, help="how hard to compress: 1 is quick")
    given = parser.parse_args()
    tools(not given.no_deb)
    time_s, out, began = _release.epoch(), given.out.resolve(), time.monotonic()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    if given.in_root:
        words = [
            f"--level={given.level}",
            *(["--no-deb"] if given.no_deb else []),
            *(["--twice"] if given.twice else []),
        ]
        _older_root.build(given.in_root, out, words, time_s, commit())
    else:
        settings = {"deb": not given.no_deb, "time_s": time_s, "level": given.level}
        with tempfile.TemporaryDirectory(prefix="fednode-build-") as work:
            build(out, Path(work), **settings)
        if given.twice:
            compare(out, files_in(out), settings)
    made = [path for path in files_in(out) if path.name != _release.SUMS]
    _release.checksums(out, made)
    signed = _release.sign(out, given.key)
    oldest = json.loads((out / "glibc.json").read_text("utf-8"))["oldest"]
    for path in made:
        say(f"{path.stat().st_size / 1e6:7.1f} MB  {path}")
    say(
        f"runs on glibc {oldest} or newer ({MACHINE}); "
        f"{'signed' if signed else 'not signed (--key)'}; {time.monotonic() - began:.0f} s"
    )


def compare(out: Path, made: list[Path], settings: dict[str, object]) -> None:
    """Rule 1: build again in another folder, and compare every byte."""
    with tempfile.TemporaryDirectory(prefix="fednode-again-") as work, tempfile.TemporaryDirectory() as other:
        build(Path(other), Path(work), **settings)  # type: ignore[arg-type]
        unlike = [
            path.name for path in made if _release.sha256(path) != _release.sha256(Path(other) / path.relative_to(out))
        ]
    if unlike:
        sys.exit(f"two builds of one checkout differ: {', '.join(unlike)}")
    say("built twice: every byte is the same")


if __name__ == "__main__":
    main()
