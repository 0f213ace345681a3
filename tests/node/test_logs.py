"""Logs: to stderr, as lines or as JSON, with what the record carries."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator

import pytest

from fednode.node import logs


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def test_json_is_one_document_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    logging.getLogger("fednode.x").warning("join %s", "refused", extra={"node": "石家庄\n市", "code": "FN-5105"})
    logging.getLogger("fednode.x").debug("not shown")
    shown = capsys.readouterr()
    assert shown.out == ""
    (line,) = shown.err.splitlines()
    found = json.loads(line)
    assert (found["event"], found["level"], found["logger"]) == ("join refused", "warning", "fednode.x")
    assert (found["node"], found["code"]) == ("石家庄\n市", "FN-5105")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", found["timestamp"])


def test_an_exception_is_in_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    try:
        raise ValueError("x")
    except ValueError:
        logging.getLogger("fednode").exception("bug")
    assert "ValueError: x" in json.loads(capsys.readouterr().err)["exception"]


def test_text_has_no_escapes_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("warning", "text")
    logging.getLogger("fednode.x").info("not shown")
    logging.getLogger("fednode.x").error("stopped", extra={"peer": "1301"})
    shown = capsys.readouterr().err
    assert "stopped" in shown
    assert "1301" in shown
    assert "\x1b" not in shown
    assert shown.count("\n") == 1


def test_a_peer_cannot_forge_a_line_or_move_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "text")
    logging.getLogger("fednode.x").warning("refused", extra={"reason": "x\n2026-01-01 [info] all is well\x1b[2J"})
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "\x1b" not in shown


def test_setting_up_twice_does_not_double(capsys: pytest.CaptureFixture[str]) -> None:
    logs.set_up("info", "json")
    logs.set_up("info", "json")
    logging.getLogger("fednode").info("once")
    assert len(capsys.readouterr().err.splitlines()) == 1
