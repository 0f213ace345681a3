"""Commands and daemons that are killed with SIGKILL at a counted moment (`tests/lib/mortal`), again and again: what was
acknowledged to the operator is there, the same command again is through, and the node is whole.

The moments are drawn with a seed, the first and the last among them; a failure names the act and the moment.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.cli import invoke
from fednode.node.config import Config
from fednode.node.shipped import catalog
from processes import ROOT, Processes
from sample_data import records, write

NAME = "admin-licence"
SEED = 20_261_126
MOMENTS = 6
MORTAL = Path(__file__).resolve().parents[1] / "lib" / "mortal.py"
VILLAGE = "130102001001"


def mortal(home: Path, count: int, *words: str) -> tuple[int, int, dict[str, Any]]:
    """Run a command that is to die: (exit code, things counted, its answer if it came to that)."""
    command = [sys.executable, str(MORTAL), str(count), "--", "--home", str(home), "--json", *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    seen = [line for line in done.stderr.splitlines() if line.startswith("mortal: ")]
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, int(seen[0].split()[1]) if seen else 0, json.loads(done.stdout or "{}")


def here(home: Path, *words: str) -> tuple[int, dict[str, Any]]:
    """Run a command in this process, which is quicker: (exit code, answer)."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = invoke(["--home", str(home), "--json", *words], {"LANG": "C.UTF-8", "FEDNODE_RESERVE_MIB": "1"})
    return code, json.loads(out.getvalue())


def held(home: Path) -> tuple[int, str]:
    """How many records, and their digest."""
    code, found = here(home, "digest")
    assert code == 0, found
    return int(found["records"]), str(found["digest"])


def moments(name: str, total: int) -> list[int]:
    """When to die: the first, the last, and some in between."""
    assert total > 2, name
    rng = random.Random(f"{SEED} {name}")
    between = sorted(rng.sample(range(2, total), min(MOMENTS - 2, total - 2)))
    return [1, *between, total]


def whole(home: Path) -> None:
    """The node proves, from its disk."""
    app = App.open(home, Config())
    try:
        assert verify_store(app.store, app.trust).problems == []
    finally:
        app.close()


def left_over(folder: Path) -> list[str]:
    """What a killed init or join leaves beside a home."""
    return [one.name for one in folder.iterdir() if ".making-" in one.name or one.name.endswith((".joining", ".new"))]


def sample(path: Path, rows: int, seed: int, area: str = VILLAGE) -> str:
    write(path, catalog().datasets[NAME], records(NAME, rows, seed=seed, area=area))
    return str(path)


# ---------------------------------------------------------------- one node


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A province with records, and in its folder the files that the acts need: made once, copied for each death."""
    nodes = Processes(tmp_path_factory.mktemp("original"))
    folder = nodes.folder
    nodes.run("13", "init", "--id", "13", "--level", "province", "--name", "河北省", "--domain", "hebei")
    nodes.run("13", "catalog", "publish", "--shipped")
    nodes.run("13", "import", NAME, sample(folder / "first.csv", 40, 1))
    sample(folder / "more.csv", 2_500, 2)
    (folder / "record.json").write_text(json.dumps(next(iter(records(NAME, 1, seed=3, area=VILLAGE)))))
    (folder / "key").write_text(nodes.run("13", "find", NAME, "--limit", "1")["records"][0]["key"])
    return folder


ACTS = ("put", "import", "delete", "erase", "compact", "rebuild", "invite")


def words_of(act: str, folder: Path) -> tuple[str, ...]:
    key = (folder / "key").read_text()
    return {
        "put": ("put", NAME, (folder / "record.json").read_text()),
        "import": ("import", NAME, str(folder / "more.csv")),
        "delete": ("delete", NAME, key),
        "erase": ("erase", NAME, key, "--reason", "court order 12", "--yes"),
        "compact": ("compact", "--older-than", "0"),
        "rebuild": ("rebuild",),
        "invite": ("invite", "1301", "--level", "city", "--name", "x", "--token-file", str(folder / "token")),
    }[act]


GONE = {"delete": "FN-3324", "erase": "FN-3324"}  # what the same command says when it was through already


@pytest.mark.e2e
@pytest.mark.parametrize("act", ACTS)
def test_a_command_that_is_killed_at_any_moment(original: Path, tmp_path: Path, act: str) -> None:
    folder = tmp_path / "work"
    home = folder / "13"

    def fresh() -> tuple[str, ...]:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(original, folder)
        return words_of(act, folder)

    words = fresh()
    before = held(home)
    code, total, _ = mortal(home, 0, *words)
    assert code == 0
    after = held(home)
    for moment in moments(act, total):
        where = f"{act} at {moment} of {total}"
        words = fresh()
        code, _, answer = mortal(home, moment, *words)
        assert code == -signal.SIGKILL, where
        whole(home)
        found = held(home)
        if answer:  # it was told to the operator
            assert found == after, f"{where}: said, and not there"
        elif act in ("put", "delete", "erase"):
            assert found in (before, after), f"{where}: half done"
        code, answer = here(home, *words)
        if code and act == "invite":  # it does not write over a file
            assert (folder / "token").read_text().startswith("fednode1."), where
        elif code:
            assert answer["error"]["code"] == GONE.get(act), f"{where}: {answer}"
        assert held(home) == after, where
        whole(home)
        assert not left_over(folder), where


@pytest.mark.e2e
def test_init_that_is_killed_at_any_moment(tmp_path: Path) -> None:
    """A settings file that was there before is never lost; nothing of what was begun stays."""
    home, settings = tmp_path / "13", 'listen = "127.0.0.1:7999"\n'
    words = ("init", "--id", "13", "--level", "province", "--name", "河北省", "--domain", "hebei")

    def fresh() -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "config.toml").write_text(settings)

    fresh()
    code, total, _ = mortal(home, 0, *words)
    assert code == 0
    for moment in moments("init", total):
        fresh()
        code, _, answer = mortal(home, moment, *words)
        assert code == -signal.SIGKILL
        code, second = here(home, *words)
        through = code == 0 or second["error"]["code"] == "FN-7616"  # the home was in its place already
        assert through, f"init at {moment} of {total}: {second}"
        assert code == 0 or (home / "chain.pem").exists()
        assert not answer or code == 7
        whole(home)
        assert (home / "config.toml").read_text() == settings, f"init at {moment} of {total}"
        assert left_over(tmp_path) == [], f"init at {moment} of {total}"


# ---------------------------------------------------------------- two nodes


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Processes]:
    """A province that runs, and a city that does not."""
    nodes = Processes(tmp_path)
    try:
        nodes.found("13", "province", "河北省")
        nodes.run("13", "catalog", "publish", "--shipped")
        nodes.found("1301", "city", "石家庄市", "13")
        nodes.kill("1301", signal.SIGTERM)
        nodes.run("1301", "sync")
        yield nodes
    finally:
        for process in nodes.daemons.values():
            process.kill()
            process.wait()


@pytest.mark.e2e
def test_join_that_is_killed_at_any_moment(pair: Processes) -> None:
    """The token still joins: the keys that it was used for wait beside the home."""
    names = iter(f"13{number:02d}" for number in range(2, 99))

    def fresh() -> tuple[str, str]:
        node = next(names)
        return node, pair.run("13", "invite", node, "--level", "city", "--name", "x")["token"]

    node, token = fresh()
    code, total, _ = mortal(pair.home(node), 0, "join", token)
    assert code == 0
    for moment in moments("join", total):
        node, token = fresh()
        code, _, _ = mortal(pair.home(node), moment, "join", token)
        assert code == -signal.SIGKILL
        pair.run(node, "join", token)
        assert pair.run(node, "sync")["sync"]["pending"] == 0
        whole(pair.home(node))
        assert left_over(pair.folder) == [], f"join at {moment} of {total}"


@pytest.mark.e2e
@pytest.mark.parametrize("victim", ["1301", "13"])
def test_an_exchange_whose_end_is_killed_at_any_moment(pair: Processes, victim: str, tmp_path: Path) -> None:
    total, rows, died = 0, 0, 0
    when = [0]
    while when:
        moment = when.pop(0)
        path = sample(tmp_path / f"{rows}.csv", 300, 100 + rows, "130102")
        assert pair.run("1301", "import", NAME, path)["added"] == 300
        rows += 300
        if victim == "1301":
            code, seen, _ = mortal(pair.home("1301"), moment, "sync")
            assert code == -signal.SIGKILL or (code == 0 and (not moment or seen < moment)), f"at {moment} of {total}"
        else:
            code, seen = dying_parent(pair, moment)
        if not moment:
            total = seen
            when = moments(f"sync {victim}", total)
        elif code == 0:  # how things fall into transactions varies: this time there were fewer
            when.append(moment * 2 // 3)
        died += code == -signal.SIGKILL
        pair.run("1301", "sync")
        assert pair.pending("1301") == 0, f"at {moment} of {total}"
        for node in ("13", "1301"):
            whole(pair.home(node))
        assert held(pair.home("13")) == held(pair.home("1301"))
        assert held(pair.home("13"))[0] == rows
    assert pair.run("13", "refused")["refused"] == []
    assert died == MOMENTS


def dying_parent(pair: Processes, moment: int) -> tuple[int, int]:
    """One exchange with a parent that dies in it, at a moment; it runs again afterwards. (Exit code, things counted if
    it lived.)"""
    pair.kill("13", signal.SIGTERM)
    begin = pair.folder / "begin"
    begin.unlink(missing_ok=True)
    command = [sys.executable, str(MORTAL), str(moment), "--", "--home", str(pair.home("13")), "run"]
    with (pair.folder / "mortal.log").open("w") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, cwd=ROOT, env={**os.environ, "MORTAL_AFTER": str(begin)}
        )
        pair.daemons["13"] = process
        pair.until("it runs", lambda: bool(pair.run("13", "status")["status"]["running"]))
        del pair.daemons["13"]  # its end is no failure
        begin.touch()
        fednode = str(Path(sys.executable).with_name("fednode"))
        done = subprocess.run([fednode, "--home", str(pair.home("1301")), "sync"], capture_output=True, check=False)
        assert done.returncode in (0, 4), done.stderr
        process.send_signal(signal.SIGTERM)  # what is left of the moments lies in its stopping
        code = process.wait(timeout=180)
        assert code == 0 if not moment else code in (0, -signal.SIGKILL)
    text = (pair.folder / "mortal.log").read_text(errors="replace")
    pair.start("13")
    return code, 0 if code else int(text.rpartition("mortal: ")[2].split()[0])


@pytest.mark.e2e
def test_recover_that_is_killed_at_any_moment(pair: Processes, tmp_path: Path) -> None:
    assert pair.run("1301", "import", NAME, sample(tmp_path / "a.csv", 300, 1, "130102"))["added"] == 300
    pair.run("1301", "sync")
    expected = held(pair.home("1301"))
    when, total = [0], 0
    while when:
        moment = when.pop(0)
        for suffix in ("", "-wal", "-shm"):
            (pair.home("1301") / f"log.db{suffix}").unlink(missing_ok=True)
        code, seen, _ = mortal(pair.home("1301"), moment, "recover", "--yes")
        assert code == (-signal.SIGKILL if moment else 0)
        if not moment:
            total, when = seen, moments("recover", seen)
        pair.run("1301", "recover", "--yes")
        pair.run("1301", "sync")
        assert held(pair.home("1301")) == expected, f"recover at {moment} of {total}"
        assert pair.run("1301", "status")["status"]["fenced"] is None
        whole(pair.home("1301"))


@pytest.mark.e2e
def test_a_bundle_import_that_is_killed_at_any_moment(pair: Processes, tmp_path: Path) -> None:
    pair.kill("13", signal.SIGTERM)
    assert pair.run("1301", "import", NAME, sample(tmp_path / "a.csv", 1_500, 1, "130102"))["added"] == 1_500
    stick = tmp_path / "stick"
    pair.run("1301", "bundle", "export", "--to", "parent", "-o", str(stick))
    shutil.copytree(pair.home("13"), tmp_path / "copy")
    shutil.copytree(stick, tmp_path / "stick.copy")
    when, total = [0], 0
    while when:
        moment = when.pop(0)
        for place, copy in ((pair.home("13"), tmp_path / "copy"), (stick, tmp_path / "stick.copy")):
            shutil.rmtree(place)
            shutil.copytree(copy, place)
        code, seen, answer = mortal(pair.home("13"), moment, "bundle", "import", str(stick))
        assert code == (-signal.SIGKILL if moment else 0)
        if not moment:
            total, when = seen, moments("bundle import", seen)
        whole(pair.home("13"))
        if answer:
            assert held(pair.home("13"))[0] == 1_500
        pair.run("13", "bundle", "import", str(stick))
        assert held(pair.home("13")) == held(pair.home("1301")), f"bundle import at {moment} of {total}"
        whole(pair.home("13"))
        assert not left_over(stick)
    pair.run("1301", "bundle", "import", str(stick))
    assert pair.pending("1301") == 0
