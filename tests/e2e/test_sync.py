"""`fednode sync` as an operator runs it, beside a daemon and beside what a killed one leaves: real processes."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from fednode.node.asking import NAME
from processes import Processes
from sample_data import records

pytestmark = pytest.mark.e2e


def test_in_the_daemons_session_while_there_is_one(tmp_path: Path) -> None:
    nodes = Processes(tmp_path)
    try:
        nodes.found("13", "province", "河北省")
        nodes.run("13", "catalog", "publish", "--shipped")
        nodes.found("1301", "city", "石家庄市", "13")
        nodes.until("it is asked", lambda: nodes.run("1301", "sync")["sync"]["over"] == "daemon")
        (record,) = records("admin-licence", 1, seed=1, area="1301")
        nodes.run("1301", "put", "admin-licence", json.dumps(record, ensure_ascii=False))
        moved = nodes.run("1301", "sync")["sync"]
        assert (moved["over"], moved["pending"], moved["refused"]) == ("daemon", 0, [])
        assert nodes.records("13")[0] == 1
        english, chinese = (nodes.text("1301", "sync", lang=lang) for lang in ("en", "zh"))
        nodes.kill("1301", signal.SIGKILL)
        assert (nodes.home("1301") / "run" / NAME).is_socket()
        alone = nodes.run("1301", "sync")["sync"]
        assert (alone["over"], alone["pending"], set(alone)) == ("own", 0, set(moved))
        for lang, beside in (("en", english), ("zh", chinese)):
            shown = nodes.text("1301", "sync", lang=lang)
            assert [line.split()[0] for line in shown.splitlines()] == [line.split()[0] for line in beside.splitlines()]
        nodes.start("1301")
        nodes.until("it is asked again", lambda: nodes.run("1301", "sync")["sync"]["over"] == "daemon")
        nodes.kill("13", signal.SIGKILL)
        assert nodes.run("1301", "sync", expect=4)["error"]["exit"] == 4
    finally:
        nodes.stop_all(signal.SIGKILL)
