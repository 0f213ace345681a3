"""scripts/build-binary --in-root bullseye: the same build in an older Debian, so that it runs on older systems.

Rules
1. The root is made by debootstrap, and kept in /var/cache/fednode-build. Its Python, and the OpenSSL under it, are
   Debian 12's sources (apt checks who signed them) with Debian's security patches: those of the older Debian are no
   longer looked after. They are built as deploy/binary/older/python.sh says.
2. Nothing is fetched in the root: wheels are fetched outside, those for its glibc, as constraints.txt pins them.
3. No key enters the root: checksums and signature are made outside.
"""

from __future__ import annotations

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from _release import ROOT, say

CACHE = Path(os.environ.get("FEDNODE_BUILD_CACHE", "/var/cache/fednode-build"))
PACKAGES = "gcc,make,libc6-dev,zlib1g-dev,libbz2-dev,liblzma-dev,libffi-dev,libsqlite3-dev,uuid-dev,perl,binutils"
MANYLINUX = (28, 27, 26, 25, 24, 17, 12, 5)  # glibc 2.N: wheels for these run in the root, and on 2.28
SOURCES_OF = "bookworm"
# Where in Debian's series of patches the security patches begin: those before lay Python out as Debian has it.
PATCHES_FROM = {"python3.11": "shutdown-deadlock.diff", "openssl": ""}
TOOLS = ("pyinstaller", "cyclonedx-python-lib", "obstore", "setuptools", "pip")
HERE = Path("usr/src/fednode")


def run(*command: str | Path, **settings: object) -> None:
    subprocess.run([str(one) for one in command], check=True, **settings)  # type: ignore[call-overload]


def inside(root: Path, *command: str, **environ: str) -> None:
    """A command in the root, in an environment of its own, niced as its caller is."""
    mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" "$@"'
    known = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/root"} | environ
    run("unshare", "--mount", "--propagation", "private", "sh", "-c", mounts, root, *command, env=known)


# ---------------------------------------------------------------- the root


def root(suite: str) -> Path:
    """The root, with its Python; made once."""
    made = CACHE / suite
    if (made / "opt/python/SOURCES").exists():
        return made
    say(f"{made}: making the root, once (debootstrap, OpenSSL, Python: a quarter of an hour)")
    making = CACHE / f"{suite}.making"
    shutil.rmtree(making, ignore_errors=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    log = CACHE / f"{suite}.log"
    with log.open("wb") as told:
        quiet = {"stdout": told, "stderr": told}
        run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", suite, making, **quiet)
        (making / HERE).mkdir(parents=True)
        for path in (ROOT / "deploy/binary/older").iterdir():
            shutil.copy(path, making / HERE)
        versions = {name: source(name, making / HERE / name) for name in PATCHES_FROM}
    say(f"{made}: building OpenSSL and Python")
    inside(making, "sh", "-c", f"sh /{HERE}/python.sh >/{HERE}.log 2>&1")
    shutil.rmtree(making / HERE)
    libraries = "".join(f"{name} openssl={versions['openssl']}\n" for name in ("libssl.so.3", "libcrypto.so.3"))
    (making / "opt/python/SOURCES").write_text(f"cpython python3.11={versions['python3.11']}\n{libraries}", "ascii")
    shutil.rmtree(made, ignore_errors=True)
    making.rename(made)
    return made


def sources() -> str:
    """Where this machine's apt has Debian 12 from, as a list for sources."""
    ask = ["apt-get", "indextargets", "--format", "$(SITE) $(CODENAME) $(COMPONENT)", "Created-By: Packages"]
    told = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {site for site, name, part in (line.split() for line in told) if (name, part) == (SOURCES_OF, "main")}
    if not found:
        sys.exit(f"scripts/build-binary --in-root takes sources of Debian {SOURCES_OF}, and apt has no such place here")
    return "".join(f"deb-src {site} {SOURCES_OF} main\n" for site in sorted(found))


def source(name: str, target: Path) -> str:
    """Debian 12's source of a package, with its security patches, at `target`. Returns its version."""
    with tempfile.TemporaryDirectory() as folder:
        lists = Path(folder, "lists/partial")
        lists.mkdir(parents=True)
        Path(folder, "sources.list").write_text(sources(), "ascii")
        settings = {"Dir::Etc::sourcelist": f"{folder}/sources.list", "Dir::Etc::sourceparts": "-"}
        settings |= {"Dir::State::lists": f"{folder}/lists", "Dir::Cache::pkgcache": "", "Dir::Cache::srcpkgcache": ""}
        settings |= {"APT::Sandbox::User": "root"}
        apt = ["apt-get", "-qq", *(part for key, value in settings.items() for part in ("-o", f"{key}={value}"))]
        run(*apt, "update")
        run(*apt, "source", "--download-only", name, cwd=folder)
        (described,) = Path(folder).glob("*.dsc")
        (original,) = Path(folder).glob("*.orig.tar.*[!c]")  # the tarball, not its signature
        (debian,) = Path(folder).glob("*.debian.tar.*")
        for archive in (original, debian):
            with tarfile.open(archive) as packed:
                packed.extractall(f"{folder}/{archive.name}.d", filter="tar")
        (tree,) = Path(f"{folder}/{original.name}.d").iterdir()
        patches = Path(f"{folder}/{debian.name}.d/debian/patches")
        series = [line.split()[0] for line in (patches / "series").read_text("utf-8").splitlines() if line.strip()]
        first = series.index(PATCHES_FROM[name]) if PATCHES_FROM[name] else 0
        for patch in series[first:]:
            run("patch", "-s", "-p1", "-N", "-i", patches / patch, cwd=tree)
        shutil.move(tree, target)
        text = described.read_text("utf-8")
    return next(line.split(": ")[1] for line in text.splitlines() if line.startswith("Version: "))


# ---------------------------------------------------------------- what it builds with


def wheels() -> Path:
    """All wheels that the program and its building need, for an older glibc; fetched once."""
    pins, ours = (ROOT / "constraints.txt").read_bytes(), (ROOT / "setup.cfg").read_bytes()
    made = CACHE / f"wheels-{hashlib.sha256(pins + ours).hexdigest()[:16]}"
    if made.exists():
        return made
    settings = configparser.ConfigParser()
    settings.read_string(ours.decode("utf-8"))
    needed = [line.split(";")[0].strip() for line in settings["options"]["install_requires"].splitlines()]
    making = made.with_suffix(".making")
    shutil.rmtree(making, ignore_errors=True)
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in MANYLINUX]
    tags = ["--python-version=3.11", "--implementation=cp", "--abi=cp311", "--abi=abi3", "--abi=none"]
    tags += ["--platform=manylinux2014_x86_64", "--platform=any", *platforms]
    fetch = [sys.executable, "-m", "pip", "download", "-q", "--only-binary=:all:", "-c", ROOT / "constraints.txt"]
    run(*fetch, *tags, "-d", making, *filter(None, needed), *TOOLS)
    making.rename(made)
    return made


def build(suite: str, out: Path, words: list[str], time_s: int, commit: str) -> None:
    """scripts/build-binary in the root, with these words, into `out`."""
    if missing := [name for name in ("debootstrap", "unshare", "patch") if shutil.which(name) is None]:
        sys.exit(f"scripts/build-binary --in-root needs {', '.join(missing)}, and root")
    base, found = root(suite), wheels()
    at = base / "build"
    shutil.rmtree(at, ignore_errors=True)
    (at / "fednode").mkdir(parents=True)
    shutil.copytree(found, at / "wheels")
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_symlink() or (ROOT / name).exists():
            (at / "fednode" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, at / "fednode" / name, follow_symlinks=False)
    (pip,) = (at / "wheels").glob("pip-*.whl")
    install = f"/build/venv/bin/python /build/wheels/{pip.name}/pip install -q --no-index --find-links /build/wheels"
    steps = [
        "cd /build/fednode",
        "/opt/python/bin/python3.11 -m venv --without-pip /build/venv",
        f"{install} {' '.join(TOOLS)}",
        f"{install} --no-build-isolation -e .",
        'PYTHONPATH=scripts exec /build/venv/bin/python scripts/_build_binary.py --out /build/dist "$@"',
    ]
    told = {"SOURCE_DATE_EPOCH": str(time_s), "FEDNODE_COMMIT": commit}
    inside(base, "sh", "-c", " && ".join(steps), "sh", *words, **told)
    shutil.copytree(at / "dist", out, dirs_exist_ok=True)
    shutil.rmtree(at)
