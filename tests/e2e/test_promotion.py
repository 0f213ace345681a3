"""docs/recovery.md with real processes: a primary is killed, its standby succeeds it, the old machine comes back."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.shipped import catalog
from processes import Processes
from sample_data import records, write

ROWS = 300


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Processes]:
    """Processes that are gone at the end."""
    found = Processes(tmp_path)
    try:
        yield found
    finally:
        for process in found.daemons.values():
            process.kill()
            process.wait()


@pytest.mark.e2e
def test_the_day_of_the_fire(nodes: Processes, tmp_path: Path) -> None:
    nodes.found("13", "province", "河北省")
    nodes.run("13", "catalog", "publish", "--shipped")
    nodes.found("1301", "city", "石家庄市", "13")
    nodes.found("130102", "county", "长安区", "1301")
    standby = nodes.standby("1301")
    nodes.until("the province knows it", lambda: bool(nodes.run("13", "standby", "list")["standbys"]))
    nodes.run("13", "standby", "allow", standby)
    nodes.until("the standby may succeed", lambda: bool(nodes.run(standby, "standby", "list")["standbys"][0]["heir"]))
    nodes.run("130102", "sync")  # its parent tells where its standby is
    dataset = catalog().datasets["admin-licence"]
    for seed in (1, 2):
        write(tmp_path / f"{seed}.csv", dataset, records("admin-licence", ROWS, seed=seed, area="130102"))
    nodes.run("130102", "import", "admin-licence", str(tmp_path / "1.csv"))
    nodes.until("the standby has all", lambda: nodes.records(standby)[0] == ROWS)

    assert nodes.run(standby, "promote", "--yes", expect=7)["error"]["code"] == "FN-7622"  # its daemon runs
    nodes.kill(standby, signal.SIGTERM)
    assert nodes.run(standby, "promote", "--yes", expect=5)["error"]["code"] == "FN-5120"  # the primary answers
    nodes.kill("1301", signal.SIGKILL)
    nodes.run("130102", "import", "admin-licence", str(tmp_path / "2.csv"))  # nobody above: it stays here
    plan = nodes.run(standby, "promote", "--dry-run")["plan"]
    assert (plan["primary"], plan["life"], plan["reachable"], plan["heir"]) == ("1301", 1, False, True)
    taken = nodes.run(standby, "promote", "--yes")["promoted"]
    assert (taken["node"], taken["incarnation"]) == ("1301", 2)
    nodes.start(standby)
    nodes.until("the province has all", lambda: nodes.records("13")[0] == 2 * ROWS)
    nodes.until("the same everywhere", lambda: nodes.records("13") == nodes.records(standby) == nodes.records("130102"))

    nodes.start("1301")  # somebody finds the old machine
    nodes.until("it is fenced", lambda: nodes.run("1301", "status")["status"]["fenced"] is not None)
    nodes.kill("1301", signal.SIGTERM)
    token = nodes.run(standby, "standby", "invite")["token"]
    nodes.run("1301", "join", token)
    nodes.start("1301")
    nodes.until("it follows", lambda: nodes.run("1301", "standby", "list")["standbys"][0]["for"] == "1301")
    for node in ("13", standby, "130102", "1301"):
        assert nodes.run(node, "verify", "--full")["problems"] == []
    assert nodes.run("13", "refused")["refused"] == []
