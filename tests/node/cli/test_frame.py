"""What all commands share: usage errors, languages, pipes, interruption, and that every word is there."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.cli import cli, frame, invoke
from fednode.node.messages import catalogue
from source import ROOT, dotted, sources

FEDNODE = str(Path(sys.executable).with_name("fednode"))
ENVIRON = {"LANG": "C.UTF-8"}


@pytest.fixture
def province(tmp_path: Path) -> Path:
    home = tmp_path / "home"
    assert invoke(["init", "--id", "13", "--name", "河北省", "--home", str(home), "-q"], ENVIRON) == 0
    return home


def answer(capsys: pytest.CaptureFixture[str], *words: str, environ: dict[str, str] | None = None) -> dict[str, Any]:
    """The JSON document of one run, with the exit code it ended with."""
    capsys.readouterr()
    code = invoke(words, environ or ENVIRON)
    out = capsys.readouterr().out
    assert out.count("\n") == 1, "one document on stdout"
    document: dict[str, Any] = json.loads(out)
    assert (document["version"], document["ok"]) == (1, code == 0)
    if code:
        assert document["error"]["exit"] == code
    return document


def process(home: Path, *words: str, **options: Any) -> subprocess.Popen[str]:
    environ = {**os.environ, "FEDNODE_HOME": str(home), **ENVIRON}
    return subprocess.Popen(
        [FEDNODE, *words], env=environ, text=True, **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    )


# ---------------------------------------------------------------- usage errors


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["status", "--galaxy", "--json"], "FN-2704"),
        (["--json", "catlog"], "FN-2712"),
        (["--json"], "FN-2705"),
        (["catalog", "--json"], "FN-2705"),
        (["get", "x", "--json"], "FN-2705"),
        (["get", "a", "b", "c", "--json"], "FN-2713"),
        (["init", "--json", "--id"], "FN-2714"),
        (["find", "x", "--limit", "0", "--json"], "FN-2706"),
        (["find", "x", "--limit", "many", "--json"], "FN-2706"),
        (["completion", "csh", "--json"], "FN-2706"),
        (["invite", "1301", "--level", "city", "--name", "\udcff", "--json"], "FN-2715"),
        (["invite", "1301", "--level", "city", "--name", "x", "--expires", "soon", "--json"], "FN-2707"),
    ],
)
def test_a_usage_error_is_a_document_wherever_json_stands(
    words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for lang in ("en", "zh"):
        error = answer(capsys, *words, environ={"FEDNODE_LANG": lang})["error"]
        assert (error["code"], error["exit"]) == (code, 2)
        assert error["message"]


def test_a_usage_error_speaks_chinese_throughout(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["find", "x", "--limit", "0"], ["get", "a", "b", "c"], ["galaxy"], ["find", "--where"]):
        assert invoke([*words[:1], "--lang=zh", *words[1:]] if words != ["galaxy"] else ["--lang=zh", *words], {}) == 2
        shown = capsys.readouterr().err
        assert "错误" in shown
        assert " is " not in shown
        assert "unexpected" not in shown


def test_the_nearest_command_and_option_are_offered(capsys: pytest.CaptureFixture[str]) -> None:
    assert "catalog" in answer(capsys, "--json", "catlog")["error"]["message"]
    assert "--limit" in answer(capsys, "find", "x", "--json", "--limt", "3")["error"]["message"]


def test_the_language_of_the_home(province: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (province / "config.toml").write_text('lang = "zh"\n')
    for environ, expected in (({"LANG": "en_US.UTF-8"}, "上级"), ({"FEDNODE_LANG": "en"}, "parent")):
        capsys.readouterr()
        assert invoke(["nodes", "--home", str(province)], environ) == 0
        assert expected in capsys.readouterr().out
    (province / "config.toml").write_text('lang = "de"\n')
    assert invoke(["nodes", "--home", str(province)], {"LANG": "zh_CN.UTF-8"}) == 2
    assert "config.toml" in capsys.readouterr().err


# ---------------------------------------------------------------- the world outside


def test_a_reader_that_goes_away_is_no_error(province: Path) -> None:
    for words in (["status"], ["--help"], ["status", "--json"]):
        read, write = os.pipe()
        os.close(read)
        done = process(province, *words, stdout=write)
        os.close(write)
        assert done.communicate()[1] == ""
        assert done.returncode == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("words", [["status"], ["status", "--json"]])
def test_a_full_stdout_is_said_on_stderr(province: Path, words: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        done = process(province, *words, stdout=full)
        shown = done.communicate()[1]
    assert done.returncode == 7
    assert shown.startswith("error FN-7701")
    assert "Traceback" not in shown


def test_ctrl_c_says_what_holds(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(frame.Session, "app", interrupt)
    assert answer(capsys, "status", "--json")["error"]["code"] == "interrupted"
    assert invoke(["status"], ENVIRON) == 130
    assert "nothing is half done" in capsys.readouterr().err


def test_a_bug_is_said_to_be_one(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(*_: Any) -> None:
        raise ZeroDivisionError("1/0")

    monkeypatch.setattr(frame.Session, "app", stumble)
    error = answer(capsys, "status", "--json")["error"]
    assert (error["code"], error["exit"]) == ("FN-7001", 7)
    assert "1/0" in error["message"]


def test_a_token_goes_to_a_file_of_its_own_or_is_not_given_out(
    province: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    invite = ["invite", "1301", "--level", "city", "--name", "石家庄市", "--home", str(province), "--json"]
    error = answer(capsys, *invite, "--token-file", str(tmp_path / "none/token"))["error"]
    assert error["code"] == "FN-7701"
    there = tmp_path / "there"
    there.write_text("mine")
    assert answer(capsys, *invite, "--token-file", str(there))["error"]["code"] == "FN-7701"
    assert there.read_text() == "mine"
    assert answer(capsys, "invites", "--home", str(province), "--json")["invites"] == []
    path = tmp_path / "token"
    assert answer(capsys, *invite, "--token-file", str(path))["token"] is None
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().startswith("fednode1.")
    bad = ["invite", "9", "--level", "city", "--name", "x", "--home", str(province), "--json"]
    assert not answer(capsys, *bad, "--token-file", str(tmp_path / "bad"))["ok"]
    assert not (tmp_path / "bad").exists()


@pytest.mark.e2e
def test_the_daemon_says_its_ports_and_stops_cleanly(province: Path) -> None:
    daemon = process(province, "run", "--listen", "127.0.0.1:0", "--enrol-listen", "127.0.0.1:0", "--json")
    try:
        line = daemon.stdout.readline() if daemon.stdout else ""
        document = json.loads(line)
        assert document["node"] == "13"
        socket.create_connection(("127.0.0.1", document["port"]), 5).close()
        second = process(province, "run", "--json")
        assert json.loads(second.communicate()[0])["error"]["code"] == "FN-7622"
        beside = process(province, "status", "--json")
        assert json.loads(beside.communicate()[0])["status"]["running"] is True
        daemon.send_signal(signal.SIGTERM)
        rest, _ = daemon.communicate(timeout=120)
        assert (daemon.returncode, rest) == (0, "")
    finally:
        daemon.kill()


@pytest.mark.e2e
def test_a_port_that_is_taken(province: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = process(province, "run", "--listen", address, "--enrol-listen", "127.0.0.1:0", "--json")
        out, shown = done.communicate(timeout=120)
    assert done.returncode == 7
    assert json.loads(out)["error"]["code"] == "FN-7620"
    assert len(shown.splitlines()) == 2, "the words and the hint, nothing of gRPC's"


# ---------------------------------------------------------------- words and docs


def keys() -> Iterator[tuple[str, str]]:
    """(place, key) of each text that the commands name."""
    for source in sources("node"):
        if not source.name.startswith("node/cli/"):
            continue
        for call in source.calls():
            function = dotted(call.func).split(".")[-1]
            named = [keyword.value for keyword in call.keywords if keyword.arg == "words"]
            if function in ("words", "note", "command", "text"):
                named += call.args[:1]
            for value in named:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield f"{source.name}:{value.lineno}", value.value


def test_every_text_of_the_commands_is_in_the_catalogue() -> None:
    found = list(keys())
    assert len(found) > 100
    assert [f"{place} {key}" for place, key in found if key not in catalogue()] == []


def test_every_option_has_help_in_the_catalogue() -> None:
    def walk(group: Any) -> Iterator[Any]:
        for name in group.list_commands(None):
            one = group.get_command(None, name)
            yield one
            if hasattr(one, "list_commands"):
                yield from walk(one)

    for one in walk(cli):
        for parameter in one.params:
            if isinstance(parameter, frame.Option):
                key = getattr(parameter, "words_key", parameter.help)
                assert key in catalogue(), f"{one.name} {parameter.name}"


def test_docs_errors_is_in_step() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts/_errors.py", "--check"], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("address", "warned"),
    [
        ("localhost:7444", True),
        ("127.0.0.1:7444", True),
        ("[::1]:7444", True),
        ("10.13.1.5:7444", False),
        ("centre.hebei.example:7444", False),
    ],
)
def test_a_token_that_says_to_dial_ones_own_machine_is_warned_of(
    province: Path, capsys: pytest.CaptureFixture[str], address: str, warned: bool
) -> None:
    invite = ["invite", "1301", "--level", "city", "--name", "石家庄市", "--home", str(province), "--lang", "en"]
    assert invoke(invite, {**ENVIRON, "FEDNODE_ADVERTISE_ENROL": address}) == 0
    said = capsys.readouterr().err
    assert address in said
    assert ("another machine cannot reach" in said) == warned
