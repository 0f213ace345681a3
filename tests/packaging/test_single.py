"""The one file that is the program (deploy/binary/single.sh): it unpacks itself once into a private folder, runs
nothing that is not whole, and says what to do where it cannot. The program inside is a stand-in, so that each start
takes a moment; the real one is started by tests/e2e/test_install.py."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import builder

DAMAGED, NO_FOLDER, CANNOT = 3, 7, 78
PROGRAM = """#!/bin/sh
printf '{"pid": %s, "words": "%s", "umask": "%s", "version": "VERSION"}' $$ "$*" "$(umask)"
exit 5
"""
RAN = 5


def single(at: Path, version: str = "1", oldest: tuple[int, int] = (2, 2)) -> Path:
    """The one file, as scripts/build-binary makes it, of a program that says what it was given."""
    build, release = builder.module("_build_binary"), builder.module("_release")
    folder = at / f"fednode-{version}"
    (folder / "_internal").mkdir(parents=True)
    (folder / "fednode.bin").write_text(PROGRAM.replace("VERSION", version), "utf-8")
    (folder / "fednode.bin").chmod(0o755)
    (folder / "_internal/library.so").write_bytes(bytes(range(256)) * 2000)
    (folder / "_internal/link.so").symlink_to("library.so")
    release.checksums(folder, release.files_in(folder))
    archive, one = at / f"{version}.tar.gz", at / f"fednode-{version}-one"
    release.tar_gz(folder, archive, 1_000_000_000, 1)
    build.single(archive, folder, one, oldest)
    shutil.rmtree(folder)
    return one


@pytest.fixture
def one(tmp_path: Path) -> Path:
    return single(tmp_path)


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Where it may unpack itself."""
    folder = tmp_path / "disk"
    folder.mkdir()
    return folder


Done = subprocess.CompletedProcess[str]


def start(one: Path, disk: Path | None, *words: str, before: tuple[str, ...] = (), **environ: str) -> Done:
    """Started with nothing in its environment but where it may unpack itself. `before`: a command that starts it."""
    where = {} if disk is None else {"FEDNODE_UNPACK_DIR": str(disk)}
    command = [*before, str(one), *words]
    return subprocess.run(command, env=where | environ, capture_output=True, text=True, check=False)


def said(done: Done) -> dict[str, object]:
    assert done.returncode == RAN, f"{done.returncode} {done.stdout} {done.stderr}"
    document: dict[str, object] = json.loads(done.stdout)
    return document


def unpacked(disk: Path) -> Path:
    """The one folder in which a program lies. Nothing half done may be beside it."""
    (folder,) = (path for path in (disk / "fednode").iterdir() if path.is_dir())
    assert len(folder.name) == 64
    return folder


def test_it_unpacks_itself_once_and_hands_everything_on(one: Path, disk: Path) -> None:
    assert said(start(one, disk, "status", "--json"))["words"] == "status --json"
    first = unpacked(disk)
    assert (disk / "fednode").stat().st_mode & 0o777 == 0o700
    assert first.stat().st_mode & 0o777 == 0o700
    assert (first / "_internal/link.so").readlink() == Path("library.so")
    made = first.stat()
    assert said(start(one, disk))["words"] == ""
    assert (unpacked(disk).stat().st_ino, first.stat().st_ctime_ns) == (made.st_ino, made.st_ctime_ns)


def test_the_program_is_the_process_that_was_started(one: Path, disk: Path) -> None:
    for _first_and_later in range(2):
        process = subprocess.Popen([one], env={"FEDNODE_UNPACK_DIR": str(disk)}, stdout=subprocess.PIPE, umask=0o027)
        out, _ = process.communicate()
        told = json.loads(out)
        assert told["pid"] == process.pid, "systemd would hear from a process that it did not start"
        assert told["umask"] == "0027"


def test_it_is_found_through_a_link_and_run_by_a_shell(one: Path, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "command").symlink_to(one)
    said(start(tmp_path / "command", disk))
    one.chmod(0o644)  # on a stick that is mounted without the right to run programs
    said(start(one, disk, before=("/bin/sh",)))


def test_many_starts_at_once_unpack_once(one: Path, disk: Path) -> None:
    where = {"FEDNODE_UNPACK_DIR": str(disk)}
    processes = [subprocess.Popen([one], env=where, stdout=subprocess.PIPE) for _ in range(6)]
    for process in processes:
        process.communicate()
        assert process.returncode == RAN
    unpacked(disk)
    assert not list((disk / "fednode").glob(".incoming*"))


def alter(folder: Path) -> None:
    program = folder / "fednode.bin"
    program.write_text(program.read_text("utf-8").replace("exit 5", "exit 0"), "utf-8")


def alter_and_hide(folder: Path) -> None:
    """As many bytes as before, and the old time of change."""
    program, before = folder / "fednode.bin", (folder / "fednode.bin").stat()
    alter(folder)
    os.utime(program, ns=(before.st_atime_ns, before.st_mtime_ns))


def take_away(folder: Path) -> None:
    (folder / "_internal/library.so").unlink()


def add(folder: Path) -> None:
    (folder / "_internal/more.so").write_bytes(b"more")


def list_what_was_altered(folder: Path) -> None:
    """The list of digests names the altered program."""
    release = builder.module("_release")
    alter(folder)
    (folder / "SHA256SUMS").unlink()
    release.checksums(folder, release.files_in(folder))


@pytest.mark.parametrize("harm", [alter, alter_and_hide, take_away, add, list_what_was_altered])
def test_what_is_not_whole_is_not_run_but_unpacked_again(one: Path, disk: Path, harm: Callable[[Path], None]) -> None:
    said(start(one, disk))
    harm(unpacked(disk))
    said(start(one, disk))
    assert not (unpacked(disk) / "_internal/more.so").exists()


def test_a_copy_that_is_whole_is_run_and_sealed_anew(one: Path, disk: Path) -> None:
    """A home that was moved to another disk: other inodes and times, the same bytes."""
    said(start(one, disk))
    before = unpacked(disk)
    shutil.copytree(before, disk / "copy", symlinks=True)
    shutil.rmtree(before)
    (disk / "copy").rename(before)
    copied, seal = before.stat().st_ino, next((disk / "fednode").glob("seal-*"))
    old = seal.read_text("ascii")
    said(start(one, disk))
    assert before.stat().st_ino == copied
    assert seal.read_text("ascii") != old


def test_where_ls_cannot_tell_each_start_reads_every_file(one: Path, disk: Path, tmp_path: Path) -> None:
    (tmp_path / "ls").write_text("#!/bin/sh\nexit 1\n", "ascii")
    (tmp_path / "ls").chmod(0o755)
    path = f"{tmp_path}:/usr/bin:/bin"
    said(start(one, disk, PATH=path))
    assert not list((disk / "fednode").glob("seal*"))
    alter(unpacked(disk))
    said(start(one, disk, PATH=path))


def test_what_an_interrupted_start_left_is_taken_away(one: Path, disk: Path) -> None:
    (disk / "fednode/.incoming.abcdef/_internal").mkdir(parents=True)
    (disk / "fednode").chmod(0o700)
    said(start(one, disk))
    assert not list((disk / "fednode").glob(".incoming*"))


@pytest.mark.parametrize("harm", ["short", "flipped"])
def test_a_damaged_file_says_so_and_leaves_nothing(one: Path, disk: Path, harm: str) -> None:
    whole = one.read_bytes()
    middle = (16 * 1024 + len(whole)) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    one.write_bytes(flipped if harm == "flipped" else whole[:middle])
    done = start(one, disk)
    assert (done.returncode, done.stdout) == (DAMAGED, "")
    assert "已损坏" in done.stderr
    assert "damaged" in done.stderr
    assert {path.name for path in (disk / "fednode").iterdir()} == {"lock"}


def test_an_old_system_is_told_before_anything_is_unpacked(tmp_path: Path, disk: Path) -> None:
    done = start(single(tmp_path, oldest=(2, 999)), disk)
    assert (done.returncode, done.stdout) == (CANNOT, "")
    assert "系统太旧" in done.stderr
    assert "2.999" in done.stderr
    assert not list(disk.iterdir())


def refused(done: Done, *words: str) -> None:
    """Refused for want of a folder, in both languages, with what to do."""
    assert (done.returncode, done.stdout) == (NO_FOLDER, ""), done.stderr
    for word in (*words, "FEDNODE_UNPACK_DIR=/目录", "FEDNODE_UNPACK_DIR=/folder"):
        assert word in done.stderr


def test_a_folder_that_others_may_enter_is_not_used(one: Path, disk: Path) -> None:
    (disk / "fednode").mkdir(mode=0o755)
    refused(start(one, disk), "不是您一个人的", "not yours alone", "755")
    (disk / "fednode").rmdir()
    (disk / "elsewhere").mkdir(mode=0o700)
    (disk / "fednode").symlink_to("elsewhere")
    refused(start(one, disk), "not yours alone")
    assert not list((disk / "elsewhere").iterdir())


@pytest.mark.skipif(os.getuid() != 0, reason="giving a folder to another user wants root")
def test_a_folder_that_somebody_else_has_made_is_not_used(one: Path, disk: Path) -> None:
    """In /tmp, say, where whoever is first could lay what we run."""
    said(start(one, disk))
    os.chown(disk / "fednode", 12345, 12345)
    refused(start(one, disk), "not yours alone")


def test_older_versions_go_but_the_one_before_and_those_that_run(tmp_path: Path, disk: Path) -> None:
    at = {}
    for day, version in enumerate("1234"):
        said(start(single(tmp_path, version), disk))
        (new,) = {path for path in (disk / "fednode").iterdir() if path.is_dir()} - set(at.values())
        at[version] = new
        if version == "1":  # a program that runs out of this folder: another, for the stand-in is a script
            shutil.copy("/bin/sleep", new / "sleep")
            runs = subprocess.Popen([new / "sleep", "infinity"])
        if version != "4":  # when they were made, without waiting
            when = time.time() - 1000 + day
            os.utime(new, (when, when))
    try:
        assert {version for version, path in at.items() if path.exists()} == {"1", "3", "4"}
    finally:
        runs.kill()
        runs.wait()


# ---------------------------------------------------------------- disks, and users, of a namespace's own

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")
USER = ("unshare", "--user", "--map-user=1000", "--map-group=1000")


def namespaces() -> bool:
    if shutil.which("unshare") is None:
        return False
    tried = [[*NAMESPACE, "mount -t tmpfs none /mnt"], [*USER, "true"]]
    return all(subprocess.run(one, capture_output=True, check=False).returncode == 0 for one in tried)


apart = pytest.mark.skipif(not namespaces(), reason="namespaces are not permitted here")


def mounted(mounts: str, disk: Path) -> tuple[str, ...]:
    """What mounts `disk` first, in a namespace of its own."""
    return (*NAMESPACE, f'cd / && {mounts} && exec "$@"', str(disk))


@apart
def test_a_disk_that_permits_no_programs(one: Path, disk: Path) -> None:
    refused(start(one, disk, before=mounted('mount -t tmpfs -o noexec,size=64m none "$0"', disk)), "noexec")


@apart
def test_a_full_disk(one: Path, disk: Path) -> None:
    small, few = 'mount -t tmpfs -o size=1m none "$0"', 'mount -t tmpfs -o nr_inodes=6,size=64m none "$0"'
    refused(start(one, disk, before=mounted(small, disk)), "MiB")
    found = '; code=$?; ls -A "$0/fednode" >&2; exit $code'
    run = (*NAMESPACE, f'{few} && "$@" {found}', str(disk))
    done = start(one, disk, before=run)
    refused(done, "disk is full")
    assert ".incoming" not in done.stderr


@apart
def test_a_read_only_disk_is_good_enough_once_it_is_there(one: Path, disk: Path) -> None:
    closed = mounted('mount --bind "$0" "$0" && mount -o remount,ro,bind "$0"', disk)
    refused(start(one, disk, before=closed), "read-only")
    said(start(one, disk))
    said(start(one, disk, before=closed))
    next((disk / "fednode").glob("seal-*")).unlink()
    said(start(one, disk, before=closed))
    alter(unpacked(disk))
    refused(start(one, disk, before=closed), "read-only")


@apart
def test_where_it_unpacks_itself(one: Path, disk: Path) -> None:
    said(start(one, None, before=USER, XDG_CACHE_HOME=str(disk / "xdg"), HOME=str(disk / "home")))
    assert [path.name for path in disk.iterdir()] == ["xdg"]
    said(start(one, None, before=USER, HOME=str(disk / "home")))
    assert (disk / "home/.cache/fednode").is_dir()
    refused(start(one, None, before=USER, XDG_CACHE_HOME="relative"))
    root = mounted('mount -t tmpfs none /var/cache && "$@"; code=$?; ls /var/cache >&2; exit $code; :', disk)
    done = start(one, None, before=root, HOME=str(disk / "root"))
    said(done)
    assert done.stderr == "fednode\n"
    assert not (disk / "root").exists()
