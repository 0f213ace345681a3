"""The rehearsal of a promotion (node/drill.py): what it finds, that it touches nothing, that it sends nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from fednode.node import carrier, digests, drills, shadow, sqlite, succession
from fednode.node.admission import json_list
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.demotion import ISSUERS
from fednode.node.drill import Drill
from fednode.node.drill_report import page
from fednode.node.drills import FAILED, LEFT_OUT, PASSED, Report, Step
from fednode.node.events import Events, Filter
from fednode.node.home import Home
from fednode.node.status import collect
from fednode.sync import wire
from fednode.sync.errors import StoreError, Unavailable
from mesh import Mesh, Running
from processes import FEDNODE
from standbys import county_with_villages, held_by, standby_of, with_standby, write_some


def drill_of(node: Running, **more: Any) -> Drill:
    app = node.app
    return Drill(app.home, app.config, app.clock, monotonic, os.urandom, "tester", **more)


async def run(node: Running, **more: Any) -> Report:
    """One drill, in a thread of its own: it has an event loop of its own."""
    report, folder = await asyncio.to_thread(drill_of(node).run, **more)
    drills.write(report, folder, page(report, "x"))
    return report


def outcomes(report: Report) -> dict[str, str]:
    return {one.name: one.outcome if one.outcome != FAILED else one.code for one in report.steps}


async def rehearsing(mesh: Mesh) -> tuple[Running, Running, Running, Running]:
    """City, county, township, and the county's standby with records of both; it knows what the county had."""
    city, county, township, standby = await with_standby(mesh)
    write_some(township, 5, 1)
    write_some(county, 3, 2)
    await mesh.until(lambda: len(county.records()) == 8 and held_by(standby, county))
    await mesh.until(lambda: standby.records() == county.records())
    known = digests.take(county.app)
    await mesh.until(lambda: digests.read(standby.app.home.run_dir) == known)
    return city, county, township, standby


ALL = ("copy", "new", "verify", "records", "promote", "serve", "child", "untouched")


def files_of(home: Path) -> dict[str, str]:
    """SHA-256 of every file of a home but what a drill may write, and SQLite's own index of its journal."""
    found = {}
    for path in sorted(home.rglob("*")):
        inside = path.relative_to(home).parts
        if path.is_file() and inside[0] not in (drills.FOLDER, "run") and not path.name.endswith("-shm"):
            found[str(path.relative_to(home))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


async def test_a_drill_of_a_good_standby_touches_no_file(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        standby.app.close()
        before = files_of(standby.app.home.path)
        others = [{str(name): size for _, name, size in node.app.store.logs()} for node in (city, county, township)]
        report = await run(standby)
        assert outcomes(report) == dict.fromkeys(ALL, PASSED)
        assert report.passed
        assert files_of(standby.app.home.path) == before
        assert {name for name, (one, two) in report.files.items() if one == two} == set(report.files)
        assert {"log.db", "chain.pem", "keys/sign.pem", "keys/seal.pem", "keys/tls.pem"} <= set(report.files)
        assert others == [{str(n): size for _, n, size in node.app.store.logs()} for node in (city, county, township)]
        step = report.step("records")
        assert step is not None
        assert (step.found["records"], step.found["digest"]) == (8, step.found["their_digest"])
        child = report.step("child")
        assert child is not None
        assert (child.found["node"], child.found["real"], child.found["written"]) == ("130102001", True, 1)
        assert (report.stands_for, report.rto_s is not None) == ("130102", True)


async def test_beside_its_daemon_and_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, _, standby = await rehearsing(mesh)
        with standby.app.home.lock():
            write_some(county, 1, 9)
            await mesh.until(lambda: standby.records() == county.records())
            first = await run(standby)
            assert (first.passed, first.daemon, first.rpo_changes, first.rpo_ms) == (True, True, 0, 0)
            step = first.step("records")
            assert step is not None
            assert step.found["records"] == 8  # as of what its primary has told: one change less than there is now
        write_some(county, 1, 10)
        await mesh.until(lambda: standby.records() == county.records())  # nothing of it hinders what goes on


async def test_damage_is_found_and_ends_the_drill(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, _, _, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        with standby.app.store.write() as tx:
            tx.execute("update segment set data = cast('x' || data as blob) where lsn = (select max(lsn) from segment)")
        report = await run(standby)
        assert outcomes(report) == {"copy": PASSED, "new": "FN-7642", "untouched": PASSED}
        assert not report.passed


async def test_records_that_differ_are_found(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, _, _, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        known = digests.read(standby.app.home.run_dir)
        assert known is not None
        other = wire.RecordsDigest(known.lsn, known.at_ms, known.records, "0" * 64)
        digests.heard(standby.app.home.run_dir, bytes.fromhex(known.store), other)
        assert outcomes(await run(standby))["records"] == "FN-7643"


async def test_without_a_word_of_the_primary_the_comparison_is_left_out(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, _ = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: held_by(standby, county))
        await mesh.halt(standby)
        (standby.app.home.run_dir / digests.FILE).unlink(missing_ok=True)
        report = await run(standby)
        assert outcomes(report)["records"] == LEFT_OUT
        assert report.passed


async def test_the_province_s_standby_a_primary_and_a_village_rehearse_too(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, "130102", "county")
        township = await mesh.child(county, "130102001", "township")
        village = await mesh.child(township, "130102001001", "village")
        await mesh.until(lambda: village.app.trust.catalog_version == 1)
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: held_by(standby, province))
        write_some(village, 2, 1)
        await mesh.until(lambda: len(township.records()) == 2)
        for node in (standby, township, village):
            await mesh.halt(node)
        assert set(outcomes(await run(standby)).values()) <= {PASSED, LEFT_OUT}
        report = await run(township)
        assert outcomes(report) == dict.fromkeys(ALL, PASSED)
        assert (report.rpo_changes, report.stands_for) == (0, "")
        report = await run(village)
        assert outcomes(report)["child"] == LEFT_OUT  # nobody joins below a village
        assert report.passed


async def test_where_no_child_is_one_is_made_up(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        await mesh.halt(province)
        report = await run(province)
        child = report.step("child")
        assert child is not None
        assert (child.outcome, child.found["node"], child.found["real"]) == (PASSED, shadow.MADE_UP, False)


# ---------------------------------------------------------------- nothing is sent


@contextmanager
def tripwires(addresses: set[str]) -> Iterator[list[str]]:
    """Listeners on addresses: what connects to them is listed."""
    touched: list[str] = []
    sockets = []
    for address in sorted(addresses):
        host, _, port = address.rpartition(":")
        one = socket.create_server((host, int(port)))
        one.settimeout(0.05)
        sockets.append((address, one))
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            for address, one in sockets:
                with suppress(TimeoutError):
                    one.accept()[0].close()
                    touched.append(address)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield touched
    finally:
        over.set()
        thread.join()
        for _, one in sockets:
            one.close()


async def test_nothing_is_sent_to_anybody_that_the_home_knows(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await rehearsing(mesh)
        known = {*standby.app.parent_addresses(), *json_list(standby.app.store.meta(ISSUERS))}
        known |= {address for node in (city, county, township, standby) for address in ports(node)}
        assert {county.app.config.listen, city.app.config.listen} <= known
        for node in (township, standby, county, city, mesh.running[0]):
            await mesh.halt(node)
        known |= set(ports(mesh.running[0]))
        with tripwires(known) as touched:
            with socket.create_connection(("127.0.0.1", int(county.app.config.listen.rpartition(":")[2]))):
                pass
            report = await run(standby)
            assert report.passed
        assert touched == [county.app.config.listen]  # the test's own: the wires hold


def ports(node: Running) -> tuple[str, ...]:
    return node.app.config.listen, node.app.config.enrol_listen


async def test_real_nodes_and_the_shadow_s_refuse_each_other(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        folder = tmp_path / "aside"
        folder.mkdir()
        for name in ("log.db", "state.db"):
            sqlite.copy(standby.app.home.path / name, folder / name)
        dark = shadow.parent(folder, standby.app.trust, standby.app.keys.seal, mesh.clock, os.urandom)
        assert (dark.trust.node, dark.trust.me.incarnation) == ("130102", 2)
        assert dark.parent_addresses() == ()
        succession.settle(dark)
        lit = Running(dark)
        await mesh.run(lit)
        try:
            for address, app, name in (
                (dark.config.listen, township.app, county.app.trust.me.dns),  # a real child at the shadow
                (county.app.config.listen, dark, county.app.trust.me.dns),  # the shadow at real nodes
                (city.app.config.listen, dark, city.app.trust.me.dns),
            ):
                with pytest.raises(Unavailable):
                    await carrier.dial(address, app.credentials(), name, never)
            with pytest.raises(Unavailable):
                await succession.ask(dark_standby(standby, dark), (city.app.config.listen,))
        finally:
            await mesh.halt(lit)
            dark.close()
        assert city.app.trust.directory.get("130102").incarnation == 1


async def never(_stream: Any) -> None:
    raise AssertionError("they talk")


def dark_standby(standby: Running, dark: shadow.Shadow) -> Any:
    """A standby that shows the shadow's certificate."""

    class Masked:
        trust, store, keys = standby.app.trust, standby.app.store, standby.app.keys

        @staticmethod
        def credentials() -> Any:
            return dark.credentials()

    return Masked()


def test_a_shadow_dials_the_loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    told = ("10.1.2.3:7443", "127.0.0.1:9", "[::1]:8", "x.cn:7")
    monkeypatch.setattr(App, "parent_addresses", lambda self, store=None: told)
    assert shadow.Shadow.parent_addresses(shadow.Shadow.__new__(shadow.Shadow)) == ("127.0.0.1:9", "[::1]:8")
    made = shadow.settings()
    assert all(map(shadow.loopback, (made.listen, made.enrol_listen, *made.advertise, *made.advertise_enrol)))
    assert (made.parent_addresses, made.backup_to) == ((), "")


async def test_it_needs_no_network_at_all(tmp_path: Path) -> None:
    """In a network namespace of its own, where there is nothing but a loopback."""
    if shutil.which("unshare") is None or shutil.which("ip") is None or os.getuid() != 0:
        pytest.skip("needs root, unshare and ip")
    async with Mesh(tmp_path) as mesh:
        _, _, _, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        standby.app.close()
        words = [str(FEDNODE), "--home", str(standby.app.home.path), "--json", "drill"]
        inside = ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", *words]
        done = await asyncio.to_thread(subprocess.run, inside, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["drill"]["passed"] is True


async def test_no_key_that_signs_is_in_the_copies(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, _, _, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        folder = tmp_path / "kept"
        report = await run(standby, out=folder, keep=True)
        assert report.passed
        keys = standby.app.keys
        secrets = [keys.sign.to_pem(None), keys.tls.to_pem(None), keys.seal.to_pem(None), keys.seal.private]
        kept = [path for path in folder.rglob("*") if path.is_file()]
        assert any(path.name == "log.db" for path in kept)
        for path in kept:
            data = path.read_bytes()
            assert not [one for one in secrets if one in data], path


# ---------------------------------------------------------------- what stays of it


async def test_drills_are_noted_in_the_audit_and_missed_when_they_are_too_old(tmp_path: Path) -> None:
    now_ms = [1_780_000_000_000]
    async with Mesh(tmp_path, lambda: now_ms[0]) as mesh:
        city, _, _, standby = await rehearsing(mesh)
        app, day = standby.app, 86_400_000

        def look() -> dict[str, Any]:
            store = app.new_store()
            try:
                return drills.note(app, app.new_writer(store))
            finally:
                store.close()

        assert collect(app)["drill"]["overdue"] is False
        assert look() == {"noted": 0, "overdue": False}
        now_ms[0] += 184 * day
        assert collect(app)["drill"]["overdue"] is True  # there was none since the node was made
        assert look() == {"noted": 0, "overdue": True}
        await mesh.until(lambda: "FN-7640" in alerts(city))
        with app.home.lock():  # its daemon runs, and writes
            report = await run(standby)
        assert report.passed
        assert look() == {"noted": 1, "overdue": False}
        assert look() == {"noted": 0, "overdue": False}
        told = collect(app)["drill"]
        assert (told["passed"], told["overdue"], told["last_ms"]) == (True, False, now_ms[0])
        await mesh.until(lambda: "drill" in actions(city))
        now_ms[0] += 10 * day
        with app.store.write() as tx:
            tx.execute("update segment set data = cast('x' || data as blob) where lsn = (select max(lsn) from segment)")
        assert not (await run(standby)).passed
        told = collect(app)["drill"]
        assert (told["passed"], told["good_ms"]) == (False, now_ms[0] - 10 * day)  # a bad one counts for nothing
        assert [one.passed for one in drills.history(app.home)] == [False, True]


def events_of(node: Running) -> tuple[set[str], set[str]]:
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        events = Events(projector)
        return {one.code for one in events.alerts()}, {one.action for one in events.all(Filter())}
    finally:
        projector.close()
        projector.store.close()


def alerts(node: Running) -> set[str]:
    return events_of(node)[0]


def actions(node: Running) -> set[str]:
    return events_of(node)[1]


def test_drill_days_0_asks_for_none() -> None:
    good = drills.Drilled(0, True)
    assert not drills.overdue(good, 0, 1 << 50)
    assert not drills.overdue(good, 1, drills.DAY_MS)
    assert drills.overdue(good, 1, drills.DAY_MS + 1)


async def test_there_must_be_room_for_the_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        await mesh.halt(province)
        full = [province.app.home.path, tmp_path]
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(1, 1, 0 if path in full else 1 << 40)
        )
        with pytest.raises(StoreError, match="FN-7641"):
            drill_of(province).run()
        with pytest.raises(StoreError, match="FN-7641"):
            drill_of(province).run(tmp_path / "new" / "folder")
        assert not (province.app.home.path / drills.FOLDER).exists()
        assert not (tmp_path / "new").exists()
        (tmp_path / "disk").mkdir()
        report, _ = await asyncio.to_thread(drill_of(province).run, tmp_path / "disk" / "folder")
        assert report.passed, "the room is where the copies are to lie"


def test_the_page_says_it_in_both_languages_and_escapes_what_it_shows() -> None:
    steps = [Step("copy", found={"log.db": 1}), Step("verify", FAILED, 1.5, code="FN-7642", params={"log": "<b>"})]
    report = Report(1, 1_780_000_000_000, "x-s1", "<i>县", "x", 1, "hebei", "ab", "s", "h", "me", True, steps)
    report.rpo_changes, report.rpo_ms = 12, 3_000
    text = page(report, "0" * 64)
    assert "灾难恢复演练报告" in text
    assert "Disaster recovery drill" in text
    assert "<b>" not in text.replace("<b>未通过", "").replace("<b>通过", "")
    assert "&lt;i&gt;县" in text
    assert "12 条变更" in text
    assert "12 changes" in text
    assert "FN-7642" in text
    assert "http" not in text


def test_a_report_comes_back_as_it_was(tmp_path: Path) -> None:
    report = Report(1, 5, "x", "x", "", 1, "hebei", "ab", "s", "h", "me", False, [Step("copy")])
    report.files, report.passed = {"log.db": ("a", "a")}, True
    folder = tmp_path / drills.FOLDER / "1"
    folder.mkdir(parents=True)
    drills.write(report, folder, "page")
    (one,) = drills.history(Home(tmp_path))
    assert (one.at_ms, one.passed, one.folder) == (5, True, str(folder))
    (tmp_path / drills.FOLDER / "2").mkdir()
    (tmp_path / drills.FOLDER / "2" / drills.REPORT).write_bytes(b"{")
    assert len(drills.history(Home(tmp_path))) == 1


async def test_the_command_says_how_it_went(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Mesh(tmp_path) as mesh:
        _, _, _, standby = await rehearsing(mesh)
        await mesh.halt(standby)
        home = str(standby.app.home.path)

        async def told(*words: str, expect: int = 0) -> str:
            capsys.readouterr()
            code = await asyncio.to_thread(invoke, ["--home", home, *words], {"LANG": "C.UTF-8"})
            out, err = capsys.readouterr()
            assert code == expect, (out, err)
            return out

        assert "no drill" in await told("drill", "--list")
        assert "未做过" in await told("--lang", "zh", "drill", "--list")
        assert "passed" in await told("drill")
        (made,) = (standby.app.home.path / drills.FOLDER).iterdir()
        assert sorted(path.name for path in made.iterdir()) == [drills.PAGE, drills.REPORT]
        assert str(made) in await told("drill", "--list")
        with standby.app.store.write() as tx:
            tx.execute("update segment set data = cast('x' || data as blob) where lsn = (select max(lsn) from segment)")
        document = json.loads(await told("--json", "drill", "--out", str(tmp_path / "out"), expect=6))
        assert (document["ok"], document["drill"]["passed"]) == (False, False)
        assert document["report"] == [str(tmp_path / "out" / name) for name in (drills.REPORT, drills.PAGE)]
