"""`fednode user`, and what may be an account."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from console import PASSWORD
from fednode.node.cli import invoke
from fednode.node.cli import user as command
from fednode.node.web.accounts import (
    DISTINCT_MIN,
    PASSWORD_BYTES_MAX,
    PASSWORD_MIN,
    Accounts,
    check_name,
    check_password,
)
from fednode.node.web.roles import ACTIONS, ROLES
from fednode.sync.errors import Refused


def code(function: Any, *arguments: Any) -> str:
    try:
        function(*arguments)
    except Refused as error:
        return error.code
    return ""


@pytest.mark.parametrize("name", ["a", "a" * 32, "li.ming-2", "0_x"])
def test_names(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "a" * 33, "Alice", ".a", "a b", "李明", "a\n", "a/b"])
def test_what_is_no_name(name: str) -> None:
    assert code(check_name, name) == "FN-2802"


def test_passwords_at_their_limits() -> None:
    good = "abcde" * 10
    for text, refused in (
        (good[:PASSWORD_MIN], ""),
        (good[: PASSWORD_MIN - 1], "FN-2803"),
        ("abcd" * 10 if DISTINCT_MIN == 5 else "", "FN-2803"),
        ("long enough, with Alice in it", "FN-2803"),
        ("abcde" * 51 + "a", ""),
        ("abcde" * 51 + "ab", "FN-2803"),
        ("电池订书钉正确马匹一二三四", ""),
        ("", "FN-2803"),
    ):
        assert code(check_password, text, "alice") == refused, text
    assert len("abcde" * 51 + "a") == PASSWORD_BYTES_MAX


def test_the_same_password_however_it_is_typed(tmp_path: Path) -> None:
    """é may be one character or two: the keyboard decides."""
    accounts = Accounts.open(tmp_path)
    accounts.add("alice", "viewer", "caf\u00e9 au lait 12", 1)
    assert accounts.verify("alice", "cafe\u0301 au lait 12") is not None
    assert accounts.verify("alice", "cafe au lait 12") is None
    assert accounts.verify("bob", "cafe au lait 12") is None
    accounts.close()


def test_the_command_line_knows_every_role() -> None:
    assert tuple(ROLES) == command.ROLES
    assert set().union(*ROLES.values()) == set(ACTIONS), "an action that nobody may do"


def test_user(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home, secret = tmp_path / "home", tmp_path / "password"
    secret.write_text(PASSWORD + "\n", encoding="utf-8")

    def run(*words: str, expect: int = 0) -> dict[str, Any]:
        capsys.readouterr()
        assert invoke(["--home", str(home), "--json", *words], {"LANG": "C.UTF-8"}) == expect
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    run("init", "--id", "13", "--name", "河北省")
    assert run("user", "list")["accounts"] == []
    made = run("user", "add", "alice", "--role", "administrator", "--password-file", str(secret))["account"]
    assert (made["name"], made["role"], made["disabled"], made["last_ms"]) == ("alice", "administrator", False, None)
    again = run("user", "add", "alice", "--role", "viewer", "--password-file", str(secret), expect=3)
    assert again["error"]["code"] == "FN-3803"
    assert run("user", "passwd", "bob", "--password-file", str(secret), expect=3)["error"]["code"] == "FN-3802"
    assert run("user", "passwd", "alice", expect=2)["error"]["code"] == "FN-2808", "nobody is there to be asked"
    assert run("user", "role", "alice", "auditor")["account"]["role"] == "auditor"
    assert run("user", "disable", "alice")["account"]["disabled"] is True
    assert run("user", "disable", "alice", "--undo")["account"]["disabled"] is False
    assert PASSWORD.encode() not in (home / "accounts.db").read_bytes()
    assert (home / "accounts.db").stat().st_mode & 0o077 == 0
