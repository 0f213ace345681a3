"""`fednode bundle export|import|inspect` and joining by stick: shapes, words in both languages, exit codes; sticks that
are full, read-only, or too small."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node import stick
from fednode.node.cli import invoke
from fednode.sync import volume as vol
from sticks import Row, forge, header, held, opening, write, write_much

Run = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 1)
    yield made
    made.close()


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command at one node: (exit code, document)."""

    def one(node: str, *words: object) -> tuple[int, dict[str, Any]]:
        capsys.readouterr()
        code = invoke(["--home", str(tmp_path / node), "--json", *map(str, words)], {"LANG": "C.UTF-8"})
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert document["ok"] is (code == 0)
        return code, document

    return one


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What a command says to a person."""

    def one(node: str, lang: str, *words: object) -> str:
        capsys.readouterr()
        invoke(["--home", str(tmp_path / node), "--lang", lang, *map(str, words)], {"LANG": "C.UTF-8"})
        shown = capsys.readouterr()
        return shown.out + shown.err

    return one


def state(row: Row) -> list[int]:
    return [app.store.lsn for app in row.apps]


# ---------------------------------------------------------------- shapes


def test_there_and_back_as_documents(row: Row, run: Run) -> None:
    write(row.apps[1], "a", "b")
    carried = row.stick()
    code, document = run("1301", "bundle", "export", "--to", "parent", "-o", carried)
    made = document["bundle"]
    assert code == 0
    assert document["command"] == "bundle export"
    assert document["dry_run"] is False
    assert set(made) == {
        *("recipient", "after", "upto", "segments", "acks", "bytes", "files", "fingerprint", "id", "damaged")
    }
    assert (made["recipient"], made["damaged"], len(made["files"])) == ("13", 0, 1)
    assert len(made["fingerprint"]) == 24
    code, document = run("13", "bundle", "inspect", carried)
    (seen,) = document["bundles"]
    assert (code, seen["kind"], seen["from"], seen["to"], seen["domain"]) == (0, "bundle", "1301", "13", "hebei")
    assert (seen["fingerprint"], seen["signature"], seen["missing"]) == (made["fingerprint"], True, [])
    assert seen["contents"]["segments"] == made["segments"]
    code, document = run("13", "bundle", "import", carried)
    (taken,) = document["bundles"]
    assert (code, taken["sender"], taken["fingerprint"]) == (0, "1301", made["fingerprint"])
    assert (taken["segments"], taken["refused"], taken["refusals"], taken["error"]) == (made["segments"], [], 0, None)
    assert taken["answer"]["recipient"] == "1301"
    assert document["applied"] > 0
    code, document = run("1301", "bundle", "import", carried)
    assert code == 0
    assert document["bundles"][0]["acked"] >= made["segments"]
    assert held(row.apps[0]) == 2


def test_words_in_both_languages(row: Row, say: Callable[..., str]) -> None:
    write(row.apps[1], "a")
    carried = row.stick()
    shown = {}
    for lang, word in (("en", "fingerprint: "), ("zh", "指纹：")):
        shown[lang] = [
            say("1301", lang, "bundle", "export", "--to", "13", "-o", carried, "--dry-run"),
            say("1301", lang, "bundle", "export", "--to", "13", "-o", carried),
            say("13", lang, "bundle", "inspect", carried),
            say("13", lang, "bundle", "import", carried, "--dry-run"),
            say("13", lang, "bundle", "import", carried, "--no-reply"),
            say("13", lang, "bundle", "import", carried),
            say("13", lang, "bundle", "import", row.stick()),
        ]
        assert all(word in one for one in shown[lang][1:6]), lang
    assert all(en != zh for en, zh in zip(shown["en"], shown["zh"], strict=True))
    assert not any("{" in one for texts in shown.values() for one in texts)


def test_a_dry_run_changes_nothing_at_either_side(row: Row, run: Run) -> None:
    write(row.apps[1], "a")
    carried = row.stick()
    before = state(row)
    code, document = run("1301", "bundle", "export", "--to", "13", "-o", carried, "--dry-run")
    assert (code, document["dry_run"], list(carried.iterdir())) == (0, True, [])
    size = document["bundle"]["bytes"]
    assert state(row) == before
    code, document = run("1301", "bundle", "export", "--to", "13", "-o", carried)
    assert abs(document["bundle"]["bytes"] - size) < 200
    before, files = state(row), sorted(carried.iterdir())
    code, document = run("13", "bundle", "import", carried, "--dry-run")
    assert (code, document["dry_run"], document["bundles"][0]["segments"] > 0) == (0, True, True)
    assert (state(row), sorted(carried.iterdir()), held(row.apps[0])) == (before, files, 0)


def test_without_a_node_a_stick_can_be_looked_at(row: Row, run: Run) -> None:
    carried = row.stick()
    run("1301", "bundle", "export", "--to", "13", "-o", carried)
    code, document = run("nowhere", "bundle", "inspect", carried)
    assert (code, document["bundles"][0]["signature"], document["bundles"][0]["contents"]) == (0, None, None)
    assert len(document["bundles"][0]["fingerprint"]) == 24


# ---------------------------------------------------------------- exit codes


def test_exit_codes(row: Row, run: Run) -> None:
    province, city = row.apps
    write_much(city, 8)
    carried = row.stick()
    _, document = run("1301", "bundle", "export", "--to", "13", "-o", carried, "--volume-size", "128K")
    files = [Path(one) for one in document["bundle"]["files"]]
    assert len(files) >= 3

    def told(code: int, document: dict[str, Any]) -> tuple[int, str]:
        return code, document["error"]["code"]

    assert told(*run("13", "bundle", "import", row.stick())) == (3, "FN-3501")
    assert told(*run("1301", "bundle", "import", carried)) == (3, "FN-3501")
    hidden = files[1].read_bytes()
    files[1].unlink()
    assert told(*run("13", "bundle", "import", carried)) == (3, "FN-3502")
    files[1].write_bytes(hidden[:-5])
    assert told(*run("13", "bundle", "import", carried)) == (6, "FN-6504")
    files[1].write_bytes(hidden)
    assert told(*run("13", "bundle", "import", carried / "nothing.fnb")) == (7, "FN-7651")
    junk = row.stick() / "x.fnb"
    junk.write_bytes(b"junk")
    assert told(*run("13", "bundle", "import", junk)) == (6, "FN-6505")
    forged = row.stick()
    forge(forged, header(city, province), province, opening(city, province))
    assert told(*run("13", "bundle", "import", forged)) == (6, "FN-6502")
    for to, expected in (("1399", (3, "FN-3110")), ("standby", (3, "FN-3520")), ("13", (5, "FN-5125"))):
        assert told(*run("13", "bundle", "export", "--to", to, "-o", row.stick())) == expected
    for size, expected in (
        ("x", (2, "FN-2732")),
        (str(vol.VOLUME_BYTES_MIN - 1), (3, "FN-3507")),
        (str(vol.VOLUME_BYTES_MAX + 1), (3, "FN-3507")),
        ("9" * 5000, (2, "FN-2732")),
    ):
        found = run("1301", "bundle", "export", "--to", "13", "-o", row.stick(), "--volume-size", size)
        assert told(*found) == expected
    for size in (vol.VOLUME_BYTES_MIN, vol.VOLUME_BYTES_MAX):
        found = run("1301", "bundle", "export", "--to", "13", "-o", row.stick(), "--volume-size", size)
        assert found[0] == 0
    assert run("1301", "bundle", "export", "--to", "13", "-o", row.stick(), "--from", 1 << 63)[0] == 2
    assert run("1301", "bundle", "export", "--to", "13", "-o", row.stick(), "--from", (1 << 63) - 1)[0] == 0
    assert run("13", "bundle", "import", carried)[0] == 0
    province.revoke("1301", "stolen")
    assert told(*run("13", "bundle", "export", "--to", "1301", "-o", row.stick())) == (5, "FN-5511")


def test_a_part_that_is_refused_exits_5(row: Row, run: Run) -> None:
    from fednode.sync import wire

    province, city = row.apps
    carried = row.stick()
    junk = [wire.Chunk(99, 0, b"junk", 4, vol.SUITE_1.hash(b"junk"))]
    forge(carried, header(city, province), province, opening(city, province), junk, city.keys.sign.sign)
    code, document = run("13", "bundle", "import", carried)
    assert (code, document["bundles"][0]["refusals"], document["bundles"][0]["refused"][0]["by"]) == (5, 1, "us")


def test_volumes_on_two_sticks(row: Row, run: Run) -> None:
    write_much(row.apps[1], 6)
    carried, other = row.stick(), row.stick()
    _, document = run("1301", "bundle", "export", "--to", "13", "-o", carried, "--volume-size", "128K")
    first = Path(document["bundle"]["files"][0])
    first.rename(other / first.name)
    assert run("13", "bundle", "import", carried)[0] == 3
    assert run("13", "bundle", "import", other)[1]["error"]["code"] == "FN-3503"
    assert run("13", "bundle", "import", other, carried)[0] == 0
    assert held(row.apps[0]) == 600


def test_joining_by_stick_in_words_and_documents(row: Row, run: Run, say: Callable[..., str]) -> None:
    carried = row.stick()
    code, document = run("1302", "join", "--request", "--node", "1302", "-o", carried)
    asked = document["request"]
    assert (code, asked["node"], asked["token"]) == (0, "1302", False)
    assert asked["fingerprint"] in say("13", "zh", "bundle", "inspect", carried)
    code, document = run("13", "bundle", "import", carried)
    assert document["asking"] == [{"node": "1302", "fingerprint": asked["fingerprint"], "code": ""}]
    assert "1302 申请加入" in say("13", "zh", "bundle", "import", carried)
    assert "asks to join" in say("13", "en", "bundle", "import", carried)
    given = ("invite", "1302", "--level", "city", "--name", "唐山市", "--answer", carried)
    assert run("13", *given, "--fingerprint", "1" * 20)[1]["error"]["code"] == "FN-3509"
    code, document = run("13", *given, "--fingerprint", asked["fingerprint"])
    root = document["root_fingerprint"]
    assert run("1302", "join", "--grant", carried)[1]["error"]["code"] == "FN-3516"
    assert run("1302", "join", "--grant", carried, "--root", "2" * 20)[0] == 6
    code, document = run("1302", "join", "--grant", carried, "--root", root)
    assert (code, document["node"]["id"], document["parent"]) == (0, "1302", "13")
    assert run("13", "bundle", "import", carried)[0] == 0


# ---------------------------------------------------------------- sticks that fail


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A stick of 256 KiB that is one: a file system of its own. Skips where this machine mounts none."""
    path = tmp_path / "small"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(path)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounts need root; the next tests do the same with a stick that only says so")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_stick_that_is_full_in_the_middle(row: Row, run: Run, small: Path) -> None:
    write_much(row.apps[1], 4)
    (small / "photographs").write_bytes(bytes(100_000))
    before = row.apps[1].store.lsn
    code, document = run("1301", "bundle", "export", "--to", "13", "-o", small, "--volume-size", "128K")
    assert (code, document["error"]["code"]) == (7, "FN-7650")
    assert [path.name for path in small.iterdir()] == ["photographs"]
    assert row.apps[1].store.lsn == before + 1, "the audit has it"
    subprocess.run(["mount", "-o", "remount,size=2m", str(small)], check=True)
    assert run("1301", "bundle", "export", "--to", "13", "-o", small, "--volume-size", "128K")[0] == 0
    assert run("13", "bundle", "import", small)[0] == 0
    assert held(row.apps[0]) == 400


def test_a_stick_that_is_full_when_the_answer_comes(row: Row, run: Run, small: Path) -> None:
    write(row.apps[1], "a")
    run("1301", "bundle", "export", "--to", "13", "-o", small)
    room = os.statvfs(small)
    (small / "photographs").write_bytes(bytes(room.f_bavail * room.f_bsize))
    code, document = run("13", "bundle", "import", small)
    (taken,) = document["bundles"]
    assert (code, taken["error"], taken["answer"], taken["unanswered"]["code"]) == (0, None, None, "FN-7650")
    assert held(row.apps[0]) == 1
    assert not list(small.glob("*.new"))


def test_a_stick_that_is_read_only(row: Row, run: Run, small: Path) -> None:
    write(row.apps[1], "a")
    run("1301", "bundle", "export", "--to", "13", "-o", small)
    subprocess.run(["mount", "-o", "remount,ro", str(small)], check=True)
    code, document = run("1301", "bundle", "export", "--to", "13", "-o", small)
    assert (code, document["error"]["code"]) == (7, "FN-7652")
    code, document = run("13", "bundle", "import", small)
    assert (code, document["bundles"][0]["unanswered"]["code"]) == (0, "FN-7652")
    assert held(row.apps[0]) == 1


@pytest.mark.parametrize("after", range(0, 14, 3))
@pytest.mark.parametrize("call", ["write", "fsync", "replace"])
def test_a_stick_that_fails_at_any_call(
    row: Row, run: Run, monkeypatch: pytest.MonkeyPatch, call: str, after: int
) -> None:
    """Nothing half done counts, whatever call it was; what was there before is still good."""
    province, city = row.apps
    write_much(city, 1)
    carried = row.stick()
    run("1301", "bundle", "export", "--to", "13", "-o", carried)
    good = {path.name for path in carried.iterdir()}
    write_much(city, 3)
    real, count = getattr(os, call), 0

    def failing(*given: Any, **more: Any) -> Any:
        nonlocal count
        count += 1
        if count > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(*given, **more)

    class Os:
        def __getattr__(self, name: str) -> Any:
            return failing if name == call else getattr(os, name)

    monkeypatch.setattr(stick, "os", Os())
    code, document = run("1301", "bundle", "export", "--to", "13", "-o", carried, "--volume-size", "128K")
    monkeypatch.setattr(stick, "os", os)
    if code:
        assert document["error"]["code"] == "FN-7650"
        assert good <= {path.name for path in carried.iterdir()}
    taken, document = run("13", "bundle", "import", carried, "--no-reply")
    assert taken == 0 or (call, document["bundles"][-1]["error"]["code"]) == ("replace", "FN-3503")
    assert held(province) in (100, 400)
    assert run("1301", "bundle", "export", "--to", "13", "-o", carried)[0] == 0
    assert len([path for path in carried.iterdir() if "1301" not in path.name]) == 1, "what was left has gone"
    assert run("13", "bundle", "import", carried, "--no-reply")[0] == 0
    assert held(province) == 400
