"""Files outside the databases: whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fednode.node import files
from tiny import MIB, tiny


def test_a_file_is_replaced_whole_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    files.write(path, b"one", 0o600)
    files.write(path, b"two", 0o600)
    assert path.read_bytes() == b"two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["key.pem"]


def test_what_was_synced_before_it_got_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, then name, then folder: in any other order a power cut leaves an empty file under the right name."""
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        done.append("sync " + Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    def renamed(old: Path, new: Path) -> None:
        done.append(f"rename {Path(new).name}")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    files.write(tmp_path / "chain.pem", b"x")
    assert done == ["sync chain.pem.new", "rename chain.pem", f"sync {tmp_path.name}"]


def test_exclusive_never_replaces(tmp_path: Path) -> None:
    path = tmp_path / "token"
    files.write(path, b"one", exclusive=True)
    with pytest.raises(FileExistsError):
        files.write(path, b"two", exclusive=True)
    draft = files.Draft(tmp_path / "late", exclusive=True)
    (tmp_path / "late").write_bytes(b"another's")
    draft.file.write(b"mine")
    with pytest.raises(FileExistsError):
        draft.commit()
    assert (tmp_path / "late").read_bytes() == b"another's"
    assert path.read_bytes() == b"one"
    assert sorted(one.name for one in tmp_path.iterdir()) == ["late", "token"]


def test_a_link_stays_and_a_pipe_is_written_to(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    files.write(link, b"one")
    assert link.is_symlink()
    assert target.read_bytes() == b"one"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    files.write(pipe, b"two")
    assert os.read(reader, 9) == b"two"
    os.close(reader)
    assert pipe.is_fifo()


def test_on_a_full_disk_the_old_file_is_left(tmp_path: Path) -> None:
    with tiny(tmp_path / "disk", MIB) as disk:
        path = disk.path / "chain.pem"
        files.write(path, b"old")
        disk.leave(1)
        with pytest.raises(OSError, match="No space"):
            files.write(path, bytes(3 * 4096))
        assert path.read_bytes() == b"old"
        assert sorted(one.name for one in disk.path.iterdir()) == ["ballast", "chain.pem"]
        assert disk.free() == 1
