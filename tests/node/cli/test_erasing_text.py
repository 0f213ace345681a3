"""What `erase --status` and `audit verify` say to people, in both languages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import Config
from sample_data import records

LICENCE = "admin-licence"
Say = Callable[..., str]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """Run a command at a province with the shipped catalog: all that it says."""

    def one(*words: str, expect: int = 0) -> str:
        capsys.readouterr()
        code = invoke(["--home", str(tmp_path / "home"), *words], {"LANG": "C.UTF-8", "COLUMNS": "200"})
        shown = capsys.readouterr()
        assert code == expect, shown.out + shown.err
        return shown.out + shown.err

    one("init", "--id", "13", "--name", "河北省")
    one("catalog", "publish", "--shipped")
    return one


def put(say: Say, tmp_path: Path) -> str:
    record = {**next(iter(records(LICENCE, 1, seed=7, area="13"))), "xk_yxqzi": "2099-12-31"}
    return str(json.loads(say("--json", "put", LICENCE, json.dumps(record, ensure_ascii=False)))["key"])


def erased(say: Say, tmp_path: Path) -> dict[str, Any]:
    key = put(say, tmp_path)
    (place,) = json.loads(say("--json", "erase", LICENCE, key, "--reason", "court order 12", "--yes"))["places"]
    return dict(place)


def test_nothing_was_erased(say: Say) -> None:
    assert say("erase", "--status", "--lang", "en").strip() == "nothing was erased from here"
    assert say("erase", "--status", "--lang", "zh").strip() == "本节点没有删除过记录"


def test_who_has_confirmed_and_who_has_not(say: Say, tmp_path: Path) -> None:
    place = erased(say, tmp_path)
    for lang, line, states in (
        ("en", "1 of 1 have confirmed", ("confirmed",)),
        ("zh", "1 个节点中 1 个已确认", ("已确认",)),
    ):
        shown = say("erase", "--status", "--lang", lang)
        assert place["erase"] in shown
        assert line in shown
        assert "河北省" not in shown, "who has confirmed is not listed"
        whole = say("erase", "--status", place["erase"], "--lang", lang)
        assert "河北省" in whole
        assert all(state in whole for state in states)


def test_who_is_waited_for_is_named(say: Say, tmp_path: Path) -> None:
    assert erased(say, tmp_path)["log"] == f"hebei/13/1/{LICENCE}"
    app = App.open(tmp_path / "home", Config())
    with app.store.write() as tx:  # the receipt of this node itself is gone: as one that has not confirmed
        tx.execute("delete from segment where log_id in (select id from log where dataset = 'sys.receipts')")
    (tmp_path / "home" / "state.db").unlink()
    app.close()
    for lang, line, state in (("en", "0 of 1 have confirmed", "not yet"), ("zh", "1 个节点中 0 个已确认", "未确认")):
        shown = say("erase", "--status", "--lang", lang)
        assert line in shown
        assert "河北省" in shown
        assert state in shown


def test_what_came_stripped_without_an_erase_is_told(say: Say, tmp_path: Path) -> None:
    place = erased(say, tmp_path)
    assert "FN-6430" not in say("audit", "verify", "--full", "--lang", "en")
    app = App.open(tmp_path / "home", Config())
    with app.store.write() as tx:
        tx.execute("delete from erased")
        tx.execute("insert into withheld values (?, ?, ?, ?)", place["log"], place["seq"], "1301", 0)
    app.close()
    assert json.loads(say("--json", "audit", "verify", "--full"))["withheld"] == 1
    shown = say("audit", "verify", "--full", "--lang", "en")
    assert "1 change(s) came stripped, and no erase that is known here asks for it: see FN-6430" in shown
    assert "1 条变更收到时已被剥离" in say("audit", "verify", "--full", "--lang", "zh")
