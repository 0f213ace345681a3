"""scripts/build-stick: what a technician carries to a village, as a folder to copy to a USB stick."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import _release
from _release import ROOT, files_in, say

INSTALLER = ("deploy/offline/install.sh", "deploy/offline/uninstall.sh", "deploy/offline/answers.example")
MACHINE = ("deploy/fednode.service", "deploy/fednode.sh", "LICENSE")
MANUAL = (
    "docs/technician.zh.md",
    "docs/quickstart.zh.md",
    "docs/install.md",
    "docs/operate.zh.md",
    "docs/recovery.md",
    "docs/errors.md",
    "deploy/README.md",
)
TOKEN = "token"


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/build-stick")
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--out", type=Path, default=ROOT / "dist/stick")
    parser.add_argument("--key", type=Path, help="an Ed25519 private key (PEM) that signs SHA256SUMS")
    parser.add_argument("--token", type=Path, help="a join token (fednode invite --token-file)")
    given = parser.parse_args()
    archives = sorted(given.dist.glob("fednode-*.tar.gz"))
    if len(archives) != 1:
        sys.exit(f"{given.dist}: one fednode-*.tar.gz is wanted, and {len(archives)} are there (scripts/build-binary)")
    shutil.rmtree(given.out, ignore_errors=True)
    (given.out / "manual").mkdir(parents=True)
    for name in (*INSTALLER, *MACHINE):
        shutil.copy(ROOT / name, given.out)
    for name in MANUAL:
        shutil.copy(ROOT / name, given.out / "manual" / name.replace("/", "-"))
    shutil.copy(archives[0], given.out)
    sums = _release.checksums(given.out, files_in(given.out))
    signed = _release.sign(given.out, given.key)
    if given.token:
        shutil.copyfile(given.token, given.out / TOKEN)
    number = _release.sha256(sums)[:20]
    say(f"{given.out}: {'signed' if signed else 'not signed (--key)'}")
    say(f"for the printed page, the stick's number: {' '.join(number[at : at + 4] for at in range(0, 20, 4))}")


if __name__ == "__main__":
    main()
