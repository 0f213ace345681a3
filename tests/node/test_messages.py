"""The message catalogue and the choice of language."""

from __future__ import annotations

import pytest

from fednode.crypto.errors import FednodeError
from fednode.node.i18n import language
from fednode.node.messages import error_text, text
from fednode.sync.errors import PeerError


def test_both_languages_and_the_hint() -> None:
    error = FednodeError("FN-2001", option="--since", value="昨天")
    assert error_text(error, "en") == ('--since: cannot read "昨天"', "run the command with --help")
    assert error_text(error, "zh") == ("--since：无法识别“昨天”", "用 --help 查看该命令的用法")


def test_a_language_that_is_not_there_falls_back_to_english() -> None:
    assert text("error.unknown", "fr", code="FN-1") == "error FN-1"


def test_an_unknown_code_shows_itself_with_its_parameters() -> None:
    message, hint = error_text(FednodeError("FN-6999", log="a\nb"), "en")
    assert message == "error FN-6999 FN-6999 (log=a\\nb)"
    assert hint == ""


def test_a_missing_parameter_shows_its_name() -> None:
    assert error_text(FednodeError("FN-2001", option="--since"), "en")[0] == '--since: cannot read "{value}"'


@pytest.mark.parametrize("bad", ["\x1b", "\n", "\r", "\x00", "\x9b", "\u202e", "\u2028", "\udc80", "\u200b"])
def test_nothing_that_moves_a_terminal_or_a_line_gets_through(bad: str) -> None:
    shown = text("error.unknown", "zh", code=f"好{bad}x")
    assert bad not in shown
    assert shown.startswith("错误 好\\")


def test_ordinary_text_stays_as_it_is() -> None:
    assert text("error.unknown", "en", code="石家庄市　①é😀") == "error 石家庄市　①é😀"


@pytest.mark.parametrize(
    ("flag", "environ", "expected"),
    [
        ("zh", {}, "zh"),
        ("zh-CN", {"LANG": "en_US.UTF-8"}, "zh"),
        ("en", {"LANG": "zh_CN.UTF-8"}, "en"),
        (None, {"FEDNODE_LANG": "zh", "LC_ALL": "C"}, "zh"),
        (None, {"LC_ALL": "C", "LANG": "zh_CN.UTF-8"}, "en"),
        (None, {"LC_ALL": "", "LC_MESSAGES": "zh_TW.UTF-8", "LANG": "en"}, "zh"),
        (None, {"LANG": "ZH_cn"}, "zh"),
        (None, {"LANG": "de_DE"}, "en"),
        ("", {}, "en"),
    ],
)
def test_language(flag: str | None, environ: dict[str, str], expected: str) -> None:
    assert language(flag, environ) == expected


def test_a_peer_s_reason_is_told_in_our_words_and_made_safe() -> None:
    error = PeerError("FN-5508", code="FN-5130", detail="FN-5130 (node=1301)")
    assert error_text(error, "en")[0].endswith("FN-5130 FN-5130 (node=1301)")  # a peer of version 1 says no more
    error.told = {"node": "1301\x1b[2J", "valid_to": "2027-01-01T00:00:00Z"}
    text, hint = error_text(error, "en")
    assert "the certificate of 1301\\x1b[2J ended at 2027-01-01T00:00:00Z" in text
    assert "ask the parent of 1301" in hint
    assert "证书已于" in error_text(error, "zh")[0]
    error = PeerError("FN-5508", code="FN-9999", detail="x")
    error.told = {"a": "b"}
    assert "FN-9999 x" in error_text(error, "en")[0]
