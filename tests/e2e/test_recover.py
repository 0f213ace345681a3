"""`fednode recover` as an operator runs it: real processes, a store that is lost, rolled back, damaged, keys that are
gone; exit codes, and what it says in both languages."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.shipped import catalog
from processes import Processes
from sample_data import records, write

pytestmark = pytest.mark.e2e
LICENCE, ROWS = "admin-licence", 30


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Processes]:
    """A province, which runs, and a city with records that the province holds, which does not."""
    nodes = Processes(tmp_path)
    try:
        nodes.found("13", "province", "河北省")
        nodes.run("13", "catalog", "publish", "--shipped")
        nodes.found("1301", "city", "石家庄市", "13")
        nodes.until("the city has the catalog", lambda: nodes.run("1301", "status")["status"]["catalog"] == 1)
        fill(nodes, tmp_path / "x.csv", seed=1)
        nodes.until("the province holds all", lambda: nodes.pending("1301") == 0)
        nodes.kill("1301", signal.SIGTERM)
        yield nodes
    finally:
        for process in nodes.daemons.values():
            process.kill()
            process.wait()


def fill(nodes: Processes, path: Path, seed: int) -> None:
    write(path, catalog().datasets[LICENCE], records(LICENCE, ROWS, seed=seed, area="130102001001"))
    nodes.run("1301", "import", LICENCE, str(path))


def store(nodes: Processes) -> list[Path]:
    return sorted(nodes.home("1301").glob("log.db*"))


def lose(nodes: Processes) -> None:
    for path in store(nodes):
        path.unlink()


def keep(nodes: Processes, to: Path) -> None:
    to.mkdir()
    for path in store(nodes):
        shutil.copy2(path, to)


def put_back(nodes: Processes, kept: Path) -> None:
    lose(nodes)
    for path in kept.iterdir():
        shutil.copy2(path, nodes.home("1301"))


def goes_on(nodes: Processes, rows: int) -> None:
    """What was there is there, verified; more can be written, and reaches the province."""
    assert nodes.run("1301", "verify", "--full")["problems"] == []
    assert nodes.records("1301") == nodes.records("13")
    assert nodes.records("1301")[0] == rows
    nodes.start("1301")
    fill(nodes, nodes.folder / "more.csv", seed=77)
    nodes.until("more is held by the province", lambda: nodes.pending("1301") == 0)
    nodes.until("both hold the same", lambda: nodes.records("1301") == nodes.records("13"))
    assert nodes.records("13")[0] == rows + ROWS


def test_a_store_that_is_lost(pair: Processes) -> None:
    lose(pair)
    for lang, words in (("en", "fednode recover"), ("zh", "fednode recover")):
        shown = pair.text("1301", "status", lang=lang, expect=7)
        assert "FN-7610" in shown
        assert words in shown
    planned = pair.run("1301", "recover", "--dry-run")
    assert (planned["dry_run"], planned["plan"]["lsn"], planned["plan"]["begun"]) == (True, None, False)
    assert not store(pair), "a dry run makes nothing"
    assert "no old store that can be read" in pair.text("1301", "recover", "--dry-run", lang="en")
    assert "没有可读取的旧数据库" in pair.text("1301", "recover", "--dry-run", lang="zh")
    assert "FN-27" in pair.text("1301", "recover", lang="en", expect=2), "nobody is there to confirm it"
    assert not store(pair)
    shown = pair.text("1301", "recover", "--yes", lang="zh")
    assert "1301 以第 2 代身份继续" in shown
    assert "旧数据库保留在" not in shown
    goes_on(pair, ROWS)


def test_a_store_that_was_rolled_back(pair: Processes, tmp_path: Path) -> None:
    keep(pair, tmp_path / "backup")
    fill(pair, tmp_path / "y.csv", seed=2)
    assert pair.run("1301", "sync")["sync"]["pending"] == 0
    put_back(pair, tmp_path / "backup")
    assert pair.run("1301", "sync", expect=6)["sync"]["fenced"] == "FN-6422"
    record = {**next(iter(records(LICENCE, 1, seed=3, area="1301"))), "xk_yxqzi": "2099-12-31"}
    refused = pair.run("1301", "put", LICENCE, json.dumps(record, ensure_ascii=False), expect=5)
    assert refused["error"]["code"] == "FN-5303"
    assert "FN-6422" in pair.text("1301", "recover", "--dry-run", lang="zh")
    done = pair.run("1301", "recover", "--yes")["recovered"]
    assert (done["left"], done["incarnation"], done["refused"], done["salvaged"]["skipped"]) == (1, 2, [], [])
    assert Path(done["aside"]).exists()
    assert Path(done["aside"]).name.startswith("log.db.before-recover-")
    assert pair.run("1301", "status")["status"]["fenced"] is None
    goes_on(pair, 2 * ROWS)


def test_a_store_that_is_damaged(pair: Processes) -> None:
    for path in store(pair):
        if path.name == "log.db":
            size = path.stat().st_size
            with path.open("r+b") as file:
                file.seek(0)
                file.write(b"\xaa" * min(size, 64 * 1024))
        else:
            path.unlink()
    assert pair.run("1301", "status", expect=7)["error"]["code"].startswith("FN-76")
    assert pair.run("1301", "recover", "--dry-run")["plan"]["lsn"] is None
    shown = pair.text("1301", "recover", "--yes", lang="en")
    assert "goes on as incarnation 2" in shown
    assert "the old store is kept: " in shown
    assert "damaged in the old store" in shown
    goes_on(pair, ROWS)


def test_while_the_parent_is_away_nothing_is_lost_and_it_can_be_run_again(pair: Processes) -> None:
    lose(pair)
    pair.kill("13", signal.SIGTERM)
    assert pair.run("1301", "recover", "--yes", expect=4)["error"]["code"].startswith("FN-4")
    begun = pair.run("1301", "status", expect=7)["error"]
    assert begun["code"] == "FN-7625"
    assert "fednode recover" in begun["hint"]
    assert pair.run("1301", "recover", "--dry-run")["plan"]["begun"] is True
    pair.start("13")
    assert "从中断处继续" in pair.text("1301", "recover", "--yes", lang="zh")
    goes_on(pair, ROWS)


def test_a_daemon_that_runs_is_not_recovered_under_its_feet(pair: Processes) -> None:
    pair.start("1301")
    before = pair.records("1301")
    refused = pair.run("1301", "recover", "--yes", expect=7)["error"]
    assert refused["code"].startswith("FN-76")
    assert pair.records("1301") == before


def test_the_province_has_nobody_to_take_it_from(pair: Processes) -> None:
    pair.kill("13", signal.SIGTERM)
    for path in pair.home("13").glob("log.db*"):
        path.unlink()
    assert pair.run("13", "recover", "--yes", expect=5)["error"]["code"] == "FN-5304"
    for lang, words in (("en", "standby"), ("zh", "备用节点")):
        shown = pair.text("13", "recover", "--yes", lang=lang, expect=5)
        assert "FN-5304" in shown
        assert words in shown


def test_a_province_that_was_rolled_back_goes_on_by_the_root_key(pair: Processes, tmp_path: Path) -> None:
    pair.kill("13", signal.SIGTERM)
    home, kept = pair.home("13"), tmp_path / "snapshot"
    kept.mkdir()
    for path in home.glob("log.db*"):
        shutil.copy2(path, kept)
    pair.start("13")
    pair.start("1301")
    fill(pair, tmp_path / "y.csv", seed=2)
    correction = {**next(iter(records(LICENCE, 1, seed=3, area="1301"))), "xk_yxqzi": "2099-12-31"}
    pair.run("13", "put", LICENCE, json.dumps(correction, ensure_ascii=False), "--area", "1301")
    pair.until("the city has the correction", lambda: pair.records("1301")[0] == 2 * ROWS + 1)
    pair.until("the province has all", lambda: pair.records("13") == pair.records("1301"))
    whole = pair.records("1301")
    for name in ("13", "1301"):
        pair.kill(name, signal.SIGTERM)
    for path in home.glob("*.db*"):
        path.unlink()
    for path in kept.iterdir():
        shutil.copy2(path, home)
    key = home / "keys" / "root.pem"
    away = key.rename(tmp_path / "root.pem")
    assert pair.run("13", "recover", "--yes", expect=5)["error"]["code"] == "FN-5331"
    assert pair.run("13", "recover", "--dry-run")["plan"]["begun"] is False, "nothing was begun without the key"
    for lang, words in (("en", "stands under nobody"), ("zh", "没有上级")):
        assert words in pair.text("13", "recover", "--dry-run", lang=lang)
    shown = pair.text("13", "recover", "--yes", "--root-key", str(away), lang="en")
    assert ", from its own store" in shown
    assert "not fenced" not in shown
    assert pair.run("13", "verify", "--full")["problems"] == []
    for name in ("13", "1301"):
        pair.start(name)
    pair.until("the city has given it back", lambda: pair.records("13") == whole)
    pair.run("13", "put", LICENCE, json.dumps({**correction, "xk_wsh": "after"}, ensure_ascii=False), "--area", "1301")
    pair.until("more comes down", lambda: pair.records("1301") == pair.records("13"))
    for name in ("13", "1301"):
        assert pair.run(name, "refused")["refused"] == []
        assert pair.run(name, "verify", "--full")["problems"] == []


def test_keys_that_are_lost(pair: Processes) -> None:
    """The machine is gone: a fresh token, another home; what was sealed to the old keys is readable again."""
    home = pair.home("1301")
    config = (home / "config.toml").read_text()
    shutil.rmtree(home)
    home.mkdir()
    (home / "config.toml").write_text(config)
    token = pair.run("13", "invite", "1301", "--level", "city", "--name", "石家庄市")["token"]
    pair.run("1301", "join", token)
    done = pair.run("1301", "recover", "--yes")["recovered"]
    assert (done["left"], done["incarnation"], done["refused"]) == (2, 3, [])
    pair.run("1301", "sync")
    goes_on(pair, ROWS)
    found = pair.run("13", "audit", "log", "--action", "rewrap")["events"]
    assert [one["details"]["node"] for one in found] == ["1301"]
    assert pair.run("1301", "rebuild")["changes"] > 0
    assert pair.records("1301") == pair.records("13")
