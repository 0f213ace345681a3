"""`fednode doctor`: each wound is found by its check, which says what to do; and nothing is written."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fednode.node import fence, sqlite
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import NAMES, Config
from fednode.node.doctor import machine, selftest
from fednode.node.doctor.answers import ANSWERS, wrong_answers
from fednode.node.doctor.checks import CHECKS
from fednode.node.doctor.finding import FAILURE, NOT_APPLICABLE, OK, WARNING, Check, Finding, document, run
from fednode.node.doctor.scene import Scene
from fednode.node.doctor.selftest import TESTS
from fednode.node.files import preallocate
from fednode.node.messages import LANGUAGES, catalogue, text
from fednode.sync.change import Change
from mesh import Mesh, Running, configuration
from source import ROOT

Found = dict[str, Finding]
HOUR_MS = 3_600_000
SILENT = "127.0.0.1:1"  # nobody listens there


def examine(home: Path, config: Config | None = None, **more: Any) -> Found:
    """What the doctor finds in a home; every word of it can be said in both languages."""
    given = config or Config(reserve_mib=1)
    scene = Scene(home, lambda: (given, dict.fromkeys(NAMES, "default")), reach_s=60, **more)
    try:
        found = run(CHECKS, scene)
    finally:
        scene.close()
    for lang in LANGUAGES:
        for check, one in found:
            message, following = one.told(lang)
            assert message, check.id
            assert not re.search(r"\{\w*\}", message + following), (check.id, message, following)
            assert bool(following) or one.state in (OK, NOT_APPLICABLE), (check.id, "says not what to do")
    return {check.id: one for check, one in found}


def failed(found: Found) -> list[str]:
    """What failed, apart from what this machine may lack."""
    return [name for name, one in found.items() if one.state == FAILURE and name not in ("disk", "memory")]


def contents(home: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of a home: when it was written, and what is in it."""
    files = (path for path in home.rglob("*") if path.is_file())
    return {str(path.relative_to(home)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Config]:
    """A city's home after its first exchange, with a record of its own; nobody runs."""
    folder = tmp_path_factory.mktemp("patient")
    config = Config(listen="127.0.0.1:0", enrol_listen="127.0.0.1:0", parent_addresses=(SILENT,), reserve_mib=1)

    async def live() -> None:
        async with Mesh(folder) as mesh:
            city = await mesh.child(await mesh.found(), "1301", "city")
            await mesh.until(lambda: city.app.trust.catalog_version == 1)

    asyncio.run(live())
    app = App.open(folder / "1301", config)
    app.new_writer(app.store).local("admin-licence", "1301", [Change(b"k", b"{}")])
    app.close()
    return folder / "1301", config


def wounded(
    patient: tuple[Path, Config], tmp_path: Path, wound: Callable[[Path], None]
) -> tuple[Found, dict[str, Any]]:
    """What is found in a copy of the home after a wound; nothing of it is written."""
    home, config = patient
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    wound(copy)
    before = contents(copy)
    found = examine(copy, config)
    assert contents(copy) == before
    return found, document([(check, found[check.id]) for check in CHECKS], "en")


def flip(home: Path) -> None:
    """One bit of the newest segment."""
    connection = sqlite.connect(home / "log.db", synchronous="FULL")
    lsn, data = connection.execute("select lsn, data from segment order by lsn desc limit 1").fetchone()
    connection.execute(
        "update segment set data = ? where lsn = ?", (data[:-9] + bytes([data[-9] ^ 1]) + data[-8:], lsn)
    )
    sqlite.truncate(connection)
    connection.close()


def fenced(home: Path) -> None:
    app = App.open(home, Config(reserve_mib=1))
    with app.store.write() as tx:
        fence.put_up(tx, app.trust.me, "FN-6422", app.now_ms())
    app.close()


def strange_keys(home: Path) -> None:
    """Keys of another node."""
    app = App.init_province(home.parent / "other", Config(reserve_mib=1), node="14", name="x", domain="x")
    app.close()
    shutil.rmtree(home / "keys")
    shutil.copytree(home.parent / "other/keys", home / "keys")


WOUNDS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "gone": (lambda home: shutil.rmtree(home), "home", "FN-7618"),
    "file": (lambda home: (home / "chain.pem").unlink(), "home", ""),
    "cut": (lambda home: (home / "recover.json").write_text("{}"), "home", "FN-7625"),
    "open": (lambda home: (home / "keys/sign.pem").chmod(0o640), "permissions", ""),
    "writable": (lambda home: home.chmod(0o777), "permissions", ""),
    "torn_key": (lambda home: (home / "keys/seal.pem").write_text("no key"), "keys", "FN-7615"),
    "other_keys": (strange_keys, "certificate", "FN-6115"),
    "chain": (
        lambda home: (home / "root.pem").write_bytes((home / "chain.pem").read_bytes()),
        "certificate",
        "FN-6102",
    ),
    "log": (lambda home: (home / "log.db").write_bytes(b"SQLite no more" * 999), "store", "FN-7604"),
    "bit": (flip, "store", ""),
    "state": (lambda home: (home / "state.db").write_bytes(b"SQLite no more" * 999), "tables", "FN-7604"),
    "fence": (fenced, "standing", ""),
}


@pytest.mark.parametrize("name", WOUNDS)
def test_a_wound_is_found_and_nothing_is_written(patient: tuple[Path, Config], tmp_path: Path, name: str) -> None:
    wound, where, code = WOUNDS[name]
    found, shown = wounded(patient, tmp_path, wound)
    assert failed(found)[0] == where
    assert found[where].code == code
    assert shown["state"] == FAILURE
    blame = next(check.number for check in CHECKS if check.id == where)
    for check in CHECKS:
        if where in check.needs:
            assert (found[check.id].state, found[check.id].params) == (NOT_APPLICABLE, {"number": blame}), check.id
    for one in shown["checks"]:
        assert one["state"] != FAILURE or one["next"]


def test_a_stopped_node_fails_for_its_parent_alone(patient: tuple[Path, Config], tmp_path: Path) -> None:
    found, _ = wounded(patient, tmp_path, lambda home: None)
    assert failed(found) == ["parent"]
    assert found["daemon"].state == WARNING
    assert found["daemon"].commands("en") == ["sudo systemctl start fednode", "fednode run"]
    assert found["ports"].words == "doctor.ports_free"
    assert found["backlog"].data["changes"] == 1
    assert (found["store"].words, found["store"].data["changes"]) == ("doctor.store", found["store"].params["changes"])
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = replace(patient[1], listen=f"127.0.0.1:{taken.getsockname()[1]}")
        assert examine(patient[0], busy)["ports"].words == "doctor.port_taken"


def test_full_proves_every_change_and_writes_nothing(patient: tuple[Path, Config], tmp_path: Path) -> None:
    home, config = patient
    copy = tmp_path / "home"
    shutil.copytree(home, copy)
    before, steps = contents(copy), []
    found = examine(copy, config, full=True, progress=lambda done, of: steps.append((done, of)))
    assert found["store"].words == "doctor.store_proved"
    assert steps[-1] == (found["store"].data["changes"],) * 2
    flip(copy)
    assert "FN-6601" in [one["code"] for one in examine(copy, config, full=True)["store"].data["problems"]]
    assert set(contents(copy)) == set(before)


def test_time_that_passes(patient: tuple[Path, Config]) -> None:
    """The clock of the machine is put forward: the node goes by its parent's as long as it is sure, and after a start
    of the machine it is not."""
    home, config = patient
    app = App.open(home, config)
    last_ms, ends_ms = app.now_ms(), app.trust.me.not_after * 1000
    app.close()
    later = examine(home, config, clock=lambda: last_ms + 30 * HOUR_MS)
    assert (later["clock"].state, later["sync"].state, later["backlog"].state) == (WARNING, WARNING, WARNING)
    assert later["sync"].words == "doctor.met_long_ago"
    assert later["certificate"].state == OK
    old = examine(home, config, clock=lambda: ends_ms - 24 * HOUR_MS)
    assert old["certificate"].words == "doctor.certificate_old"
    assert examine(home, config, clock=lambda: 0)["clock"].state == WARNING


def test_the_clock_where_there_is_no_node(tmp_path: Path) -> None:
    assert examine(tmp_path / "x", clock=lambda: 86_400_000)["clock"].words == "doctor.clock_impossible"
    assert examine(tmp_path / "x", clock=lambda: 1_800_000_000_000)["clock"].words == "doctor.clock_alone"


@pytest.mark.parametrize(
    ("free_kib", "state"), [(1_000, FAILURE), (100 * 1024, WARNING), (1024 * 1024, OK), (0, NOT_APPLICABLE)]
)
def test_memory(tmp_path: Path, free_kib: int, state: str) -> None:
    said = tmp_path / "meminfo"
    said.write_text("MemTotal: 2000000 kB\n" + (f"MemAvailable: {free_kib} kB\n" if free_kib else ""))
    assert machine.memory(Scene(tmp_path, lambda: (Config(), {})), said).state == state


# ---------------------------------------------------------------- beside daemons


async def beside(node: Running, **more: Any) -> Found:
    """The doctor's visit to a node whose daemon runs."""
    with node.app.home.lock():
        return await asyncio.to_thread(examine, node.app.home.path, node.app.config, **more)


async def test_a_node_that_runs_is_well_and_a_parent_that_is_another_is_found(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        for node in (city, province):
            found = await beside(node)
            told = {name: one for name, one in found.items() if one.state not in (OK, NOT_APPLICABLE)}
            assert told.keys() <= {"disk", "memory"}, told
        found = await beside(city)
        assert found["versions"].data["theirs"] == province.app.software
        assert found["identity"].data["node"] == "13"
        stranger = await mesh.start(
            App.init_province(tmp_path / "s", configuration(), node="13", name="x", domain="hebei")
        )
        theirs = stranger.app.config.listen
        city.app.config = replace(city.app.config, listen=theirs, parent_addresses=(theirs, SILENT))
        found = await beside(city)
        assert found["ports"].words == "doctor.port_other"
        assert (found["parent"].state, found["parent"].data["addresses"][theirs]) == (WARNING, "")
        assert found["identity"].words == "doctor.parent_other"
        visited = await asyncio.to_thread(examine, city.app.home.path, city.app.config)
        assert visited["ports"].words == "doctor.port_taken"


# ---------------------------------------------------------------- the command, the docs


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"LANG": "C.UTF-8", "NO_COLOR": "1"}
    home = ["--home", str(tmp_path / "home")]
    assert invoke([*home, "--json", "doctor"], environ) == 7
    shown = json.loads(capsys.readouterr().out)
    assert (shown["ok"], shown["doctor"]["state"]) == (False, FAILURE)
    assert [one["number"] for one in shown["doctor"]["checks"]] == [check.number for check in CHECKS]
    assert sum(shown["doctor"]["counts"].values()) == len(CHECKS)
    for lang, word in (("en", "FAILURE"), ("zh", "失败")):
        assert invoke([*home, "--lang", lang, "--quiet", "doctor"], environ) == 7
        lines = capsys.readouterr().out.splitlines()
        assert lines[0].startswith(f"{word}  4")
        assert "fednode join" in lines[1]
        assert len(lines) == 4
    (tmp_path / "home").mkdir()
    (tmp_path / "home/config.toml").write_text("listne = 1\n")
    assert invoke([*home, "--json", "doctor"], environ) == 7
    capsys.readouterr()
    assert invoke([*home, "--json", "init", "--id", "13", "--name", "x"], environ) == 2
    assert not (tmp_path / "home/chain.pem").exists()


@pytest.mark.parametrize(("checks", "kind"), [(CHECKS, "check"), (TESTS, "selfcheck")])
def test_the_tables_in_the_docs_are_the_code(checks: tuple[Check[Scene], ...], kind: str) -> None:
    page = (ROOT / "docs/doctor.md").read_text("utf-8").partition("## Before there is a node")
    part = page[0] if kind == "check" else page[2]
    rows = re.findall(r"^\| (\d+) `(\w+)` \| ([^|]+) \| ([^|]+) \| [^|]+ \| ([^|]*) \| (\d) \|$", part, re.MULTILINE)
    titles = [(text(f"{kind}.{check.id}", "en"), text(f"{kind}.{check.id}", "zh")) for check in checks]
    needs = [", ".join(str(one.number) for one in checks if one.id in check.needs) for check in checks]
    assert [(int(number), name, en, zh, needed.strip(), int(code)) for number, name, en, zh, needed, code in rows] == [
        (check.number, check.id, *title, needed, check.exit_code)
        for check, title, needed in zip(checks, titles, needs, strict=True)
    ]


def test_what_the_system_refuses_is_a_finding(tmp_path: Path) -> None:
    def closed(_scene: Path) -> Finding:
        raise PermissionError(13, "Permission denied", "/var/lib/fednode")

    ((_, found),) = run([Check(1, "x", 7, closed)], tmp_path)
    assert (found.state, found.told("en")[0]) == (FAILURE, "/var/lib/fednode: Permission denied")


# ---------------------------------------------------------------- before there is a node


def test_this_machine_can_run_it_and_nothing_is_left(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(["--home", str(tmp_path / "home"), "--json", "self-test"], {"LANG": "C.UTF-8"}) in (0, 7)
    shown = json.loads(capsys.readouterr().out)["self_test"]["checks"]
    assert [one["number"] for one in shown] == [check.number for check in TESTS]
    here = {one["id"]: one["state"] for one in shown if one["id"] not in ("memory", "disk")}
    assert set(here.values()) <= {OK, WARNING}
    assert [here[name] for name in ("program", "cryptography", "network")] == [OK] * 3
    assert list(tmp_path.iterdir()) == []


def test_what_a_machine_may_lack(tmp_path: Path) -> None:
    scene = Scene(tmp_path, lambda: (Config(), {}))
    assert selftest.processor(scene, "mips").state == WARNING
    assert selftest.processor(scene, "aarch64").state == OK
    assert selftest.system(scene, "2.27").words == "selftest.system_old"
    assert selftest.system(scene, "2.28").state == OK
    ticks = iter(range(100))
    slow = Scene(tmp_path, lambda: (Config(), {}), steady_s=lambda: next(ticks))
    assert selftest.database(slow).words == "selftest.database_slow"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_answer_is_noticed() -> None:
    def raises() -> bool:
        raise ValueError

    assert wrong_answers({**ANSWERS, "SHA-256": lambda: False, "other": raises}) == ["SHA-256", "other"]


def test_every_word_of_the_doctor_is_used_and_says_what_to_do() -> None:
    """A state that needs somebody has a hint, whose commands are commands."""
    code = "".join(path.read_text("utf-8") for path in (ROOT / "node").rglob("*.py"))
    for key in catalogue():
        kind, _, name = key.partition(".")
        if kind in ("doctor", "selftest"):
            assert f'"{key}"' in code or name.startswith(("sum_", "state_")), key
    for use in re.findall(r'(?:warning|failure)\(\s*"((?:doctor|selftest)\.\w+)"', code):
        for lang in LANGUAGES:
            assert catalogue()[use].get(f"{lang}_hint"), use


def test_a_full_disk(tmp_path: Path) -> None:
    """A reserve that is larger than the disk is free space that is not there."""
    (tmp_path / "home").mkdir()
    preallocate(tmp_path / "home/reserve", 1)
    huge = Config(reserve_mib=65_536 * 64)
    assert examine(tmp_path / "home", huge)["disk"].words == "doctor.disk_low"
