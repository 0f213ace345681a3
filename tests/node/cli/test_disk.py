"""Commands on a disk that is full or read-only: each says so, with its code, and nothing is half done."""

from __future__ import annotations

import gc
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.cli import invoke
from fednode.node.shipped import catalog
from sample_data import records, write
from tiny import MIB, PAGE, Disk, tiny

NAME = "admin-licence"
Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with tiny(tmp_path / "disk", 16 * MIB) as made:
        yield made


@pytest.fixture
def run(disk: Disk, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command at a province whose home is on the small disk."""

    def one(*words: str) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        environ = {"LANG": "C.UTF-8", "FEDNODE_RESERVE_MIB": "1"}
        code = invoke(["--home", str(disk.path / "home"), "--json", *words], environ)
        return code, json.loads(capsys.readouterr().out)

    assert one("init", "--id", "13", "--name", "河北省")[0] == 0
    assert one("catalog", "publish", "--shipped")[0] == 0
    return one


def sample(folder: Path, rows: int, seed: int = 7) -> Path:
    path = folder / f"{seed}.csv"
    write(path, catalog().datasets[NAME], records(NAME, rows, seed=seed, area="130102001001"))
    return path


def test_a_home_that_is_low_refuses_writes_and_does_all_else(run: Run, disk: Disk, tmp_path: Path) -> None:
    assert run("import", NAME, str(sample(tmp_path, 40)))[1]["added"] == 40
    page = run("find", NAME, "--limit", "2")[1]["records"]
    first, second = page[0]["key"], page[1]["key"]
    disk.leave(2 * MIB // PAGE - 100)  # no reserve yet: room for it, and less than as much again
    code, said = run("status")
    assert code == 0, said
    assert said["status"]["disk"]["low"] is True
    before = run("digest")[1]
    for words in (("import", NAME, str(sample(tmp_path, 10, 8))), ("put", NAME, "--key", first, "--field", "xk_nr=x")):
        code, document = run(*words)
        assert (code, document["error"]["code"]) == (7, "FN-7630")
    code, document = run("delete", NAME, first)
    assert (code, document["error"]["code"]) == (7, "FN-7630")
    assert run("digest")[1] == before
    assert run("get", NAME, first)[0] == 0  # it is audited: that can be written
    assert run("erase", NAME, first, "--reason", "court order 12", "--yes")[0] == 0
    assert run("get", NAME, first)[1]["error"]["code"] == "FN-3324"
    assert run("get", NAME, second)[0] == 0
    assert run("invite", "1301", "--level", "city", "--name", "x")[0] == 0
    assert run("verify", "--full")[0] == 0
    events = run("audit", "log")[1]["events"]
    assert {(one["action"], one["outcome"]) for one in events} >= {("import", "failed"), ("erase", "done")}
    disk.empty()
    assert run("status")[1]["status"]["disk"]["low"] is False
    assert run("import", NAME, str(sample(tmp_path, 10, 8)))[1]["added"] == 10


@pytest.mark.parametrize("pages", [0, 2, 4, 8, 20, 40])
def test_init_on_a_full_disk_says_so_and_leaves_nothing(
    disk: Disk, capsys: pytest.CaptureFixture[str], pages: int
) -> None:
    home = disk.path / "home"
    words = ["--home", str(home), "--json", "init", "--id", "13", "--name", "河北省"]
    disk.leave(pages)
    assert invoke(words, {"LANG": "C.UTF-8"}) == 7
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["message"]) == ("FN-7617", f"cannot write to {home}: No space left on device")
    assert "free space" in error["hint"]
    assert [one.name for one in disk.path.iterdir()] == ["ballast"]
    disk.empty()
    assert invoke(words, {"LANG": "C.UTF-8"}) == 0


def test_regression_init_closes_what_it_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It was left to the garbage collector, and with it the files that SQLite has beside an open database."""
    gc.disable()
    try:
        home = tmp_path / "home"
        assert invoke(["--home", str(home), "init", "--id", "13", "--name", "河北省"], {"LANG": "C.UTF-8"}) == 0
        assert [one.name for one in home.iterdir() if one.name.startswith("log.db")] == ["log.db"]
    finally:
        gc.enable()


def test_a_full_disk_without_a_reserve_is_read_as_long_as_there_is_room_to_open_it(run: Run, disk: Disk) -> None:
    disk.leave(0)
    code, document = run("status")
    assert (code, document["error"]["code"]) == (7, "FN-7605")
    disk.empty()
    assert run("status")[0] == 0


def test_the_reserve_makes_way_for_a_command(run: Run, disk: Disk) -> None:
    (disk.path / "home" / "reserve").write_bytes(bytes(MIB))
    disk.leave(0)
    code, said = run("status")
    assert code == 0, said
    assert said["status"]["disk"]["low"] is True
    assert run("invite", "1301", "--level", "city", "--name", "x")[0] == 0
    assert not (disk.path / "home" / "reserve").exists()


@pytest.mark.parametrize("suffix", [".csv", ".xlsx"])
def test_rejects_that_cannot_be_written(run: Run, disk: Disk, tmp_path: Path, suffix: str) -> None:
    path = sample(tmp_path, 300)
    text = path.read_text(encoding="utf-8-sig").splitlines()
    bad = [line.replace(",", ",@", 9) for line in text[1:200]]
    path.write_text("\n".join([text[0], *bad, *text[200:]]), encoding="utf-8")
    home = tmp_path / "elsewhere"
    shutil.copytree(disk.path / "home", home)
    disk.leave(1)
    command = [str(Path(sys.executable).with_name("fednode")), "--home", str(home), "--json", "import", NAME, str(path)]
    done = subprocess.run(
        [*command, "--rejects", str(disk.path / f"bad{suffix}")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stdout + done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "FN-7301"
    assert "Traceback" not in done.stderr


def test_a_read_only_file_system_is_named_by_every_command(run: Run, disk: Disk, tmp_path: Path) -> None:
    if not disk.remount("ro"):
        pytest.skip("this file system cannot be remounted here")
    for words in (
        ("status",),
        ("digest",),
        ("put", NAME, "--key", "x", "--field", "xk_nr=x"),
        ("verify",),
        ("rebuild",),
    ):
        code, document = run(*words)
        assert (code, document["error"]["code"]) == (7, "FN-7631"), words
    fednode = str(Path(sys.executable).with_name("fednode"))
    done = subprocess.run(
        [fednode, "--home", str(disk.path / "home"), "--json", "run"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 7, done.stdout + done.stderr
    assert json.loads(done.stdout)["error"]["code"] == "FN-7631"
    done = subprocess.run(
        [fednode, "--home", str(disk.path / "other"), "--json", "init", "--id", "13", "--name", "x"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout)["error"]["code"] == "FN-7617"
    assert disk.remount("rw")
    assert run("status")[0] == 0
