"""What makes a folder of files a release: an archive whose bytes depend on the files alone, checksums, a signature.

The signature is a bare Ed25519 signature (64 bytes) over the bytes of SHA256SUMS, so that no program of ours is needed
to check it:

    openssl pkeyutl -verify -pubin -inkey fednode-release.pub -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
    sha256sum -c SHA256SUMS
"""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

ROOT = Path(__file__).resolve().parent.parent
SUMS, SIGNATURE, PUBLIC = "SHA256SUMS", "SHA256SUMS.sig", "fednode-release.pub"
PASSPHRASE = "FEDNODE_RELEASE_PASSPHRASE"
BLOCK = 1024 * 1024


def say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)


def epoch() -> int:
    """The time that everything in a release bears: SOURCE_DATE_EPOCH, else that of the commit; Unix seconds."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    if given:
        return int(given)
    done = subprocess.run(["git", "log", "-1", "--format=%ct"], cwd=ROOT, capture_output=True, text=True, check=False)
    return int(done.stdout) if done.returncode == 0 else 0


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def files_in(folder: Path) -> list[Path]:
    """Every file and link below a folder, in one order."""
    return sorted(path for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def tar_gz(folder: Path, target: Path, time_s: int, level: int) -> None:
    """The folder as an archive: owner root, one time, sorted. The same files give the same bytes. `level`: gzip's."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        member.mtime = time_s
        member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
        return member

    with (
        target.open("wb") as raw,
        gzip.GzipFile("", "wb", level, raw, mtime=time_s) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for path in sorted([folder, *folder.rglob("*")]):
            archive.add(path, str(path.relative_to(folder.parent)), recursive=False, filter=plain)


def checksums(folder: Path, of: Iterable[Path]) -> Path:
    """SHA256SUMS in `folder` for these files below it, in sha256sum's own form."""
    target = folder / SUMS
    lines = [f"{sha256(path)}  {path.relative_to(folder)}\n" for path in sorted(of)]
    target.write_text("".join(lines), "utf-8")
    return target


def sign(folder: Path, key: Path | None) -> bool:
    """Sign the folder's SHA256SUMS, and lay the public key beside it; without a key an old signature goes."""
    for name in (SIGNATURE, PUBLIC):
        (folder / name).unlink(missing_ok=True)
    if key is None:
        return False
    passphrase = os.environ.get(PASSPHRASE)
    private = load_pem_private_key(key.read_bytes(), passphrase.encode() if passphrase else None)
    if not isinstance(private, Ed25519PrivateKey):
        sys.exit(f"{key}: not an Ed25519 key (openssl genpkey -algorithm ed25519 -out release.pem)")
    (folder / SIGNATURE).write_bytes(private.sign((folder / SUMS).read_bytes()))
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (folder / PUBLIC).write_bytes(public)
    return True
