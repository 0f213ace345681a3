"""docs/recovery.md, backups: the page's own commands, in its order, with real processes, SIGKILL, and a home that is
gone."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.shipped import catalog
from processes import Processes
from runbook import commands
from sample_data import records, write

pytestmark = pytest.mark.e2e
LICENCE, ROWS = "admin-licence", 200


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Processes]:
    """Province, city, county, township, running; all with the catalog."""
    found = Processes(tmp_path)
    try:
        found.found("13", "province", "河北省")
        found.run("13", "catalog", "publish", "--shipped")
        found.found("1301", "city", "石家庄市", "13")
        found.found("130102", "county", "长安区", "1301")
        found.found("130102001", "township", "建北街道", "130102")
        found.until("the catalog", lambda: found.run("130102001", "status")["status"]["catalog"] == 1)
        yield found
    finally:
        for process in found.daemons.values():
            process.kill()
            process.wait()


def fill(nodes: Processes, node: str, seed: int) -> None:
    path = nodes.folder / f"{node}-{seed}.csv"
    write(path, catalog().datasets[LICENCE], records(LICENCE, ROWS, seed=seed, area="130102001"))
    nodes.run(node, "import", LICENCE, str(path))


class Desk:
    """Whoever follows the page: `node` is the county, `above` the city."""

    def __init__(self, nodes: Processes) -> None:
        self.nodes = nodes
        self.place = nodes.folder / "backup"
        self.names = {"node": "130102", "above": "1301"}
        (nodes.folder / "passphrase.txt").write_text("一句口令\n", "utf-8")

    def do(self, words: list[str], *more: str, expect: int = 0) -> dict[str, object]:
        """One command of the page."""
        node = self.names[words[1]] if words[0] == "--home" else "nowhere"
        words = words[2:] if words[0] == "--home" else words
        folder = self.nodes.folder
        files = {"/mnt/backup": str(self.place)} | {
            name: str(folder / name) for name in ("recovery.pem", "passphrase.txt", "county.token")
        }
        given = [files.get(word, word) for word in words]
        if given == ["run"]:
            self.nodes.start(node)
            return {}
        return self.nodes.run(node, *given, *more, expect=expect)

    def settings(self, key: str) -> None:
        with (self.nodes.home("130102") / "config.toml").open("a", encoding="utf-8") as file:
            file.write(f'\n[backup]\nto = "{self.place}"\nkey = "{key}"\n')


def burn(nodes: Processes, node: str) -> None:
    nodes.kill(node, signal.SIGKILL)
    shutil.rmtree(nodes.home(node))


def the_same_everywhere(nodes: Processes, rows: int) -> None:
    nodes.until("the province has all", lambda: nodes.records("13")[0] == rows)
    for node in ("1301", "130102", "130102001"):
        nodes.until(f"{node} holds the same", lambda node=node: nodes.records(node) == nodes.records("13"))
    for node in ("13", "1301", "130102", "130102001"):
        assert nodes.run(node, "verify", "--full")["problems"] == []
        assert nodes.run(node, "refused")["refused"] == []


def test_a_county_comes_back_from_its_backup(nodes: Processes) -> None:
    desk = Desk(nodes)
    make_key, back_up, list_, verify, look = commands("Have a backup")
    made = desk.do(make_key)
    assert (nodes.folder / "recovery.pem").stat().st_mode & 0o777 == 0o600
    nodes.kill("130102", signal.SIGTERM)
    desk.settings(str(made["key"]))
    desk.do(back_up)  # the daemon's own is due tomorrow, however long this takes
    nodes.start("130102")
    fill(nodes, "130102001", 1)
    nodes.until("the county has it", lambda: nodes.records("130102")[0] == ROWS)
    first = desk.do(back_up)["backup"]  # beside the daemon
    assert isinstance(first, dict)
    jobs = {one["name"]: one for one in nodes.run("130102", "jobs")["jobs"]}
    assert jobs["backup"]["outcome"] == "done"
    fill(nodes, "130102001", 2)
    nodes.until("the province has more", lambda: nodes.records("13")[0] == 2 * ROWS)
    second = nodes.run("130102", "jobs", "run", "backup")["found"]
    assert second["number"] == first["number"] + 1
    listed = desk.do(list_)["backups"]
    assert isinstance(listed, list)
    assert [one["number"] for one in listed][:2] == [second["number"], first["number"]]
    assert nodes.run("130102", "status")["status"]["backup"]["number"] == second["number"]
    desk.do(verify)
    opened = desk.do(look)["verified"]
    assert isinstance(opened, dict)
    assert opened["opened"] == opened["objects"] > 0
    fill(nodes, "130102001", 3)  # what the backup has not
    nodes.until("the province has the rest", lambda: nodes.records("13")[0] == 3 * ROWS)

    burn(nodes, "130102")
    fill(nodes, "130102001", 4)  # nobody above: it stays there
    dry, restore, check, run = commands("All that is left is a backup")
    assert desk.do(dry)["plan"]["number"] == second["number"]  # type: ignore[index]
    assert not nodes.home("130102").exists()
    wrong = desk.do([*restore[:-1], str(nodes.folder / "130102001-1.csv")], "--yes", expect=7)["error"]
    assert wrong["code"] == "FN-7615"  # type: ignore[index]  # another file is no passphrase
    done = desk.do(restore, "--yes")["restored"]
    assert isinstance(done, dict)
    assert (done["left"], done["incarnation"], done["number"], done["newer"]) == (1, 3, second["number"], 0)
    assert desk.do(check)["problems"] == []
    again = nodes.run("130102", "backup")["backup"]
    assert again["number"] == 1  # of another store
    desk.do(run)
    the_same_everywhere(nodes, 4 * ROWS)
    assert nodes.run("130102", "restore", str(desk.place), "--key", "x", expect=7)["error"]["code"] == "FN-7616"


def test_an_older_backup_is_told_from_the_newest_by_what_the_parent_heard(nodes: Processes) -> None:
    """The place was put back to an older state: nothing in it is wrong, and the node's own events say so."""
    desk = Desk(nodes)
    made = desk.do(commands("Have a backup")[0])
    nodes.kill("130102", signal.SIGTERM)
    desk.settings(str(made["key"]))
    nodes.start("130102")
    nodes.run("130102", "backup")
    shutil.copytree(desk.place, nodes.folder / "older")
    nodes.run("130102", "backup")

    def told(at: str) -> list[int]:
        found = nodes.run(at, "audit", "log", "--action", "backup", "--node", "130102")["events"]
        return [one["details"]["number"] for one in found if one["action"] == "backup"]

    assert told("130102") == [2, 1]
    nodes.until("the city has heard of both", lambda: told("1301") == [2, 1])
    burn(nodes, "130102")
    shutil.rmtree(desk.place)
    shutil.move(nodes.folder / "older", desk.place)
    restore = commands("All that is left is a backup")[1]
    refused = desk.do(restore, "--yes", "--at-least", "2", expect=5)["error"]
    assert refused["code"] == "FN-5332"  # type: ignore[index]
    done = desk.do(restore, "--yes")["restored"]
    assert (done["number"], done["newer"]) == (1, 2)  # type: ignore[index]


def test_a_restore_that_is_killed_while_the_parent_is_away_goes_on(nodes: Processes) -> None:
    desk = Desk(nodes)
    made = desk.do(commands("Have a backup")[0])
    nodes.kill("130102", signal.SIGTERM)
    desk.settings(str(made["key"]))
    nodes.start("130102")
    fill(nodes, "130102001", 1)
    nodes.until("the county has it", lambda: nodes.records("130102")[0] == ROWS)
    nodes.run("130102", "backup")
    burn(nodes, "130102")
    nodes.kill("1301", signal.SIGKILL)
    restore = commands("All that is left is a backup")[1]
    desk.do(restore, "--yes", expect=4)
    assert nodes.run("130102", "status", expect=7)["error"]["code"] == "FN-7625"
    plan = nodes.run("130102", "recover", "--dry-run")["plan"]
    assert (plan["begun"], plan["restored"]) == (True, 1)
    nodes.start("1301")
    done = nodes.run("130102", "recover", "--yes")["recovered"]
    assert (done["number"], done["incarnation"]) == (1, 3)
    nodes.start("130102")
    the_same_everywhere(nodes, ROWS)


def test_a_county_of_which_nothing_is_left_is_refilled_from_above_and_below(nodes: Processes) -> None:
    desk = Desk(nodes)
    invite, join, recover, check, run = commands("Nothing is left, and there is no backup")
    fill(nodes, "130102001", 1)
    fill(nodes, "130102", 2)
    nodes.until("the province has all", lambda: nodes.records("13")[0] == 2 * ROWS)
    nodes.until("the county knows", lambda: nodes.pending("130102") == 0)
    config = (nodes.home("130102") / "config.toml").read_text("utf-8")
    burn(nodes, "130102")
    fill(nodes, "130102001", 3)  # nobody above: it stays there
    nodes.home("130102").mkdir()  # another machine at the old address
    (nodes.home("130102") / "config.toml").write_text(config, "utf-8")
    desk.do(invite)
    joined = desk.do(join)
    assert joined["former_lives"] == 1
    done = desk.do(recover, "--yes")["recovered"]
    assert isinstance(done, dict)
    assert (done["left"], done["incarnation"], done["refused"]) == (2, 3, [])
    assert desk.do(check)["problems"] == []
    desk.do(run)
    nodes.until("the province has the rest", lambda: nodes.records("13")[0] == 3 * ROWS)
    assert nodes.records("1301") == nodes.records("13")
    assert nodes.records("130102001")[0] == 2 * ROWS
    fill(nodes, "130102", 4)
    nodes.until("the county goes on", lambda: nodes.records("13")[0] == 4 * ROWS)
    nodes.until("it reads what it wrote before", lambda: nodes.records("130102") == nodes.records("13"))
    for node in ("13", "1301", "130102", "130102001"):
        assert nodes.run(node, "verify", "--full")["problems"] == []
        assert nodes.run(node, "refused")["refused"] == []
