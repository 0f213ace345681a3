"""Real processes that are killed, again and again, at any moment: what was acknowledged is there."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.shipped import catalog
from processes import Processes
from sample_data import records, write

ROUNDS = 6
ROWS = 400
AREAS = ("130102001001", "130102001002", "130102001003", "130104001001", "130102", "1301")


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Processes]:
    """A province and a city, running."""
    nodes = Processes(tmp_path)
    try:
        nodes.found("13", "province", "河北省")
        nodes.run("13", "catalog", "publish", "--shipped")
        nodes.found("1301", "city", "石家庄市", "13")
        nodes.until("the city has the catalog", lambda: nodes.run("1301", "status")["status"]["catalog"] == 1)
        yield nodes
    finally:
        for process in nodes.daemons.values():
            process.kill()
            process.wait()


@pytest.mark.e2e
def test_daemons_that_are_killed_at_any_moment_lose_nothing(pair: Processes, tmp_path: Path) -> None:
    rng = random.Random(11)
    dataset = catalog().datasets["admin-licence"]
    for number in range(ROUNDS):
        path = tmp_path / f"{number}.csv"
        write(path, dataset, records("admin-licence", ROWS, seed=number, area=AREAS[number]))
        assert pair.run("1301", "import", "admin-licence", str(path))["added"] == ROWS
        victim = rng.choice(("13", "1301"))
        pair.kill(victim, signal.SIGKILL)  # most likely in the middle of the exchange that the import set off
        pair.start(victim)
    pair.until("everything arrived", lambda: pair.pending("1301") == 0)
    pair.until("the same at both", lambda: pair.records("13") == pair.records("1301"))
    assert pair.records("13")[0] == ROUNDS * ROWS
    for node in ("13", "1301"):
        assert pair.run(node, "verify")["problems"] == []
    assert pair.run("13", "refused")["refused"] == []


@pytest.mark.e2e
def test_sigterm_is_a_clean_stop(pair: Processes) -> None:
    process = pair.daemons["1301"]
    pair.kill("1301", signal.SIGTERM)
    assert process.returncode == 0
    assert pair.run("1301", "status")["status"]["running"] is False
    assert "Traceback" not in (pair.home("1301") / "daemon.log").read_text()
