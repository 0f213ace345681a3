"""docs/recovery.md with real processes: a primary is killed, its standby succeeds it, the old machine comes back."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fednode.node.shipped import catalog
from processes import Processes
from runbook import commands
from sample_data import records, write
from sites import standbys

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


HOMES = {"above": "13", "primary": "130102", "standby": "130102-s1"}


class Book:
    """The page's commands one by one, at the node that it names."""

    def __init__(self, nodes: Processes, files: Path) -> None:
        self._nodes, self._files = nodes, files

    def do(self, command: list[str], *more: str, expect: int = 0, **given: str) -> dict[str, Any]:
        """`more`: besides, as for scripts; `given`: what stands for the page's capitals. A daemon is started."""
        option, home, *words = command
        assert option == "--home"
        node = HOMES[home]
        if words == ["run"]:
            self._nodes.start(node)
            return {}
        words = [given.get(word, word) for word in words]
        words = [str(self._files / word) if word.endswith(".token") else word for word in words]
        return self._nodes.run(node, *words, *more, expect=expect)


@pytest.mark.e2e
def test_the_day_of_the_fire(nodes: Processes, tmp_path: Path) -> None:
    """The page's own commands, of the sections on a standby, the day, and the old machine."""
    book, above, primary, standby = Book(nodes, tmp_path), *HOMES.values()
    nodes.found(above, "province", "河北省")
    nodes.run(above, "catalog", "publish", "--shipped")
    nodes.found(primary, "county", "长安区", above)
    nodes.found("130102001", "township", "建北街道", primary)
    invite, join, run, allow = commands("Have a standby")
    book.do(invite)
    nodes.settle(standby)
    book.do(join)
    book.do(run)
    nodes.until("the level above knows it", lambda: bool(nodes.run(above, "standby", "list")["standbys"]))
    book.do(allow)
    nodes.until("it may succeed", lambda: any(one["heir"] for one in standbys(nodes, standby)))
    nodes.run("130102001", "sync", "--limit", "0")  # a greeting: its parent tells where its standby is
    dataset = catalog().datasets["admin-licence"]
    for seed in (1, 2):
        write(tmp_path / f"{seed}.csv", dataset, records("admin-licence", ROWS, seed=seed, area="130102001"))
    nodes.run("130102001", "import", "admin-licence", str(tmp_path / "1.csv"))
    nodes.until("the standby has all", lambda: nodes.records(standby)[0] == ROWS)

    look, promote, go_on = commands("The day")
    assert book.do(promote, "--yes", expect=7)["error"]["code"] == "FN-7622"  # its daemon runs
    nodes.kill(standby, signal.SIGTERM)
    assert book.do(promote, "--yes", expect=5)["error"]["code"] == "FN-5120"  # the primary answers
    nodes.kill(primary, signal.SIGKILL)
    nodes.run("130102001", "import", "admin-licence", str(tmp_path / "2.csv"))  # nobody above: it stays here
    plan = book.do(look)["plan"]
    assert (plan["primary"], plan["life"], plan["reachable"], plan["heir"]) == (primary, 1, False, True)
    taken = book.do(promote, "--yes")["promoted"]
    assert (taken["node"], taken["incarnation"]) == (primary, 2)
    book.do(go_on)
    nodes.until("the level above has all", lambda: nodes.records(above)[0] == 2 * ROWS)
    everywhere = (above, standby, "130102001")
    nodes.until("the same everywhere", lambda: len({nodes.records(node) for node in everywhere}) == 1)

    nodes.start(primary)  # somebody finds the old machine
    nodes.until("it is fenced", lambda: nodes.run(primary, "status")["status"]["fenced"] is not None)
    nodes.kill(primary, signal.SIGTERM)
    join, run = commands("The old machine is found")
    book.do(join, TOKEN=nodes.run(standby, "standby", "invite")["token"])
    book.do(run)
    nodes.until("it follows", lambda: any(one["for"] == primary for one in standbys(nodes, primary)))
    for node in (*everywhere, primary):
        assert nodes.run(node, "verify", "--full")["problems"] == []
    assert nodes.run(above, "refused")["refused"] == []


@pytest.mark.e2e
def test_they_change_places_and_back_while_a_child_writes_on(nodes: Processes, tmp_path: Path) -> None:
    nodes.found("13", "province", "河北省")
    nodes.run("13", "catalog", "publish", "--shipped")
    nodes.found("1301", "city", "石家庄市", "13")
    nodes.found("130102", "county", "长安区", "1301")
    standby = nodes.standby("1301")
    nodes.until("the province knows it", lambda: bool(nodes.run("13", "standby", "list")["standbys"]))
    nodes.run("13", "standby", "allow", standby)
    nodes.until("the standby may succeed", lambda: any(one["heir"] for one in standbys(nodes, standby)))
    nodes.until("it has everything", lambda: nodes.run(standby, "status")["status"]["standbys"][0]["behind_ms"] == 0)
    dataset = catalog().datasets["admin-licence"]
    stop, imported = threading.Event(), 0

    def write_on() -> int:
        count = 0
        while not stop.is_set():
            rows = tmp_path / f"{count}.csv"
            write(rows, dataset, records("admin-licence", 50, seed=100 + count, area="130102"))
            nodes.run("130102", "import", "admin-licence", str(rows))
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_on)
        try:
            told = by_the_book(nodes, standby)
            assert (told["node"], told["incarnation"], told["back"]) == ("1301", 2, "1301-s2")
            nodes.until("the old one follows", lambda: nodes.run("1301", "status")["status"]["node"]["id"] == "1301-s2")
            nodes.until("it may go back", lambda: follows(nodes, "1301"))
            told = by_the_book(nodes, "1301")
            assert (told["node"], told["incarnation"], told["back"]) == ("1301", 3, "1301-s3")
            nodes.until("the other follows", lambda: nodes.run(standby, "status")["status"]["node"]["id"] == "1301-s3")
        finally:
            stop.set()
        imported = writing.result()
    assert imported > 0
    nodes.until("the province has all", lambda: nodes.records("13")[0] == 50 * imported)
    nodes.until("and the city", lambda: nodes.pending("130102") == 0 and nodes.pending("1301") == 0)
    assert nodes.records("13") == nodes.records("130102")
    for node in ("13", "1301", standby, "130102"):
        assert nodes.run(node, "verify", "--full")["problems"] == []
        assert nodes.run(node, "refused")["refused"] == []
        assert nodes.run(node, "status")["status"]["fenced"] is None


def by_the_book(nodes: Processes, standby: str) -> dict[str, Any]:
    """The section's commands at the standby, as they stand there; what the last of them says."""
    told: dict[str, Any] = {}
    for option, home, *words in commands("Changing places on purpose"):
        assert option == "--home"
        if home == "standby":
            sure = ["--yes"] if words == ["promote", "--planned"] else []
            told = nodes.run(standby, *words, *sure)
    return dict(told["switched"])


def follows(nodes: Processes, node: str) -> bool:
    """Whether a standby holds everything, and may succeed."""
    (one,) = nodes.run(node, "status")["status"]["standbys"]
    return one["heir"] and one["behind_ms"] == 0
