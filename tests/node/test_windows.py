"""Sync windows, renewal in a session that stays open, jobs beside a daemon: real nodes over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from backups import KEY
from fednode.crypto.errors import FednodeError
from fednode.node import dialer, engine, jobs, status, syncing
from fednode.node.app import App, real_clock
from fednode.node.jobs import Ledger
from fednode.sync.backup import encode_key
from fednode.sync.enrol import Token
from fednode.sync.errors import Refused, StoreError
from fednode.sync.strip import erase_change
from mesh import Mesh, Running, configuration

YEAR_MS = 365 * 86_400_000


class Hands:
    """A clock whose hands the test moves."""

    def __init__(self, off_ms: int = 0) -> None:
        self.off_ms = off_ms

    def __call__(self) -> int:
        return real_clock() + self.off_ms

    def turn_to(self, text: str) -> None:
        """To a time of today, at UTC+8."""
        day = real_clock() // 86_400_000 * 86_400_000
        hour, minute = map(int, text.split(":"))
        self.off_ms = day + ((hour - 8) * 60 + minute) * 60_000 - real_clock()


async def village(mesh: Mesh, parent: Running, **more: Any) -> App:
    """A city that has joined and does not run yet."""
    token = Token.decode(parent.app.invite("1301", "city", "x"))
    return await App.join(mesh.folder / "1301", configuration(**more), token, clock=mesh.clock)


async def test_the_daemon_dials_inside_a_window_only_and_by_hand_it_always_works(tmp_path: Path) -> None:
    hands = Hands()
    hands.turn_to("01:00")
    async with Mesh(tmp_path, hands) as mesh:
        province = await mesh.found()
        app = await village(mesh, province, sync_windows=("02:00-03:30",), sync_zone="+08:00")
        city = await mesh.start(app)
        found = status.collect(city.app)["sync"]
        assert (found["open"], found["until_ms"]) == (False, None)
        assert abs(found["next_open_ms"] - hands() - 3_600_000) < 60_000
        await syncing.sync_once(city.app)  # by hand
        city.write("k1", {"name": "a"})
        assert city.pending() == 1
        await syncing.sync_once(city.app)
        assert city.pending() == 0
        city.write("k2", {"name": "b"})
        ledger = Ledger(city.app.home.run_dir, "test")
        await mesh.until(lambda: ledger.read("watch").began_ms > 0)  # it has had the time
        assert city.pending() == 1
        hands.turn_to("02:30")
        await mesh.until(lambda: city.pending() == 0 and "k2" in province.records())
        assert status.collect(city.app)["sync"]["open"]
        hands.turn_to("03:31")
        await mesh.until(lambda: ledger.read("sync").began_ms >= hands() - 30_000)  # it has seen that it is over
        peer = city.app.store.peer("13")
        assert peer is not None
        assert peer.last_error is None  # a polite end
        city.write("k3", {"name": "c"})
        assert city.pending() == 1


async def test_the_window_is_judged_by_the_corrected_clock(tmp_path: Path) -> None:
    """A village whose clock says 2056, and ten hours of another time of day, keeps its parent's 02:00."""
    right = Hands()
    right.turn_to("02:10")
    wrong = Hands(right.off_ms)
    async with Mesh(tmp_path, right) as mesh:
        province = await mesh.found()
        mesh.clock = wrong
        app = await village(mesh, province, sync_windows=("02:00-03:30",), sync_zone="+08:00")
        wrong.off_ms = right.off_ms + 30 * YEAR_MS + 10 * 3_600_000
        assert not jobs.window(app)["open"]
        await syncing.sync_once(app)  # learns how far off it is
        assert jobs.window(app)["open"]
        city = await mesh.start(app)
        city.write("k1", {"name": "a"})
        await mesh.until(lambda: "k1" in province.records())


async def test_a_node_that_is_not_sure_of_the_time_asks_for_it_outside_its_windows(tmp_path: Path) -> None:
    """Its clock stands still at a time of day when the window is closed: by that clock it would never open."""
    right = Hands()
    right.turn_to("02:10")
    async with Mesh(tmp_path, right) as mesh:
        province = await mesh.found()
        app = await village(mesh, province, sync_windows=("02:00-03:30",), sync_zone="+08:00")
        still = right() + 30 * YEAR_MS + 10 * 3_600_000
        app.close()
        app = App.open(mesh.folder / "1301", app.config, clock=lambda: still)
        assert not jobs.window(app)["open"]
        city = await mesh.start(app)
        await mesh.until(lambda: city.app.reference.sure and city.app.trust.catalog_version == 1)
        assert jobs.window(app)["open"]


async def test_what_is_urgent_goes_up_outside_the_windows_where_the_settings_say_so(tmp_path: Path) -> None:
    hands = Hands()
    hands.turn_to("01:00")
    async with Mesh(tmp_path, hands) as mesh:
        province = await mesh.found()
        windows: dict[str, Any] = {"sync_windows": ("02:00-03:30",), "sync_zone": "+08:00"}
        city = await mesh.start(await village(mesh, province, sync_urgent=True, **windows))
        await syncing.sync_once(city.app)
        city.write("k1", {"name": "a"})
        await syncing.sync_once(city.app)
        assert "k1" in province.records()
        city.write("k2", {"name": "b"}, dataset="admin-penalty")
        writer = city.app.new_writer()
        log = city.app.trust.log_name("admin-licence", "1301")
        writer.local("admin-licence", "1301", [erase_change(log, 0, "court order")])
        writer.store.close()
        await mesh.until(lambda: "k1" not in province.records())
        assert "k2" not in province.records()  # it waits for its window
        hands.turn_to("02:30")
        await mesh.until(lambda: "k2" in province.records() and city.pending() == 0)
        assert province.app.store.refused() == [] == city.app.store.refused()


async def test_a_limit_that_begins_begins_a_new_session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dialled: list[int] = []
    dial = dialer.carrier.dial

    async def counted(*given: Any) -> Any:
        dialled.append(status.collect(app)["sync"]["limit_bit_s"] or 0)
        return await dial(*given)

    monkeypatch.setattr(dialer.carrier, "dial", counted)
    hands = Hands()
    hands.turn_to("07:00")
    async with Mesh(tmp_path, hands) as mesh:
        province = await mesh.found()
        app = await village(mesh, province, sync_limits=("08:00-18:00 800k",), sync_zone="+08:00")
        city = await mesh.start(app)
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        city.write("k1", {"name": "a"})
        await mesh.until(lambda: "k1" in province.records())
        assert dialled == [0]
        hands.turn_to("09:00")
        await mesh.until(lambda: dialled == [0, 800_000])
        city.write("k2", {"name": "b"})
        await mesh.until(lambda: "k2" in province.records())
        city.write("k3", {"name": "c"})
        report = await syncing.sync_once(city.app, limit=64_000)
        assert report.pending == 0


async def test_regression_a_certificate_is_renewed_in_a_session_that_stays_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was asked for in the greeting alone: a session that stayed open for a third of a certificate's life let it run
    out, and the node had to join again."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city", jobs_renewal="1s", jobs_jitter=0)
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        before = city.app.trust.directory.chain("1301")[0]
        chain_file = city.app.home.path / "chain.pem"
        written = chain_file.read_bytes()
        due = [True]
        monkeypatch.setattr(engine, "renewal_due", lambda _me, _now_s: due[0])
        await mesh.until(lambda: chain_file.read_bytes() != written)
        due[0] = False
        assert city.app.trust.directory.chain("1301")[0] != before
        city.write("k1", {"name": "a"})
        await mesh.until(lambda: "k1" in province.records())


def test_regression_status_while_state_db_is_being_made(tmp_path: Path) -> None:
    """FN-7607, no such table: the daemon had made the file and not yet what is in it."""
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="x", domain="hebei")
    app.home.state_db.touch()
    assert status.collect(app)["projection"]["records"] == 0
    app.close()


async def by_hand(node: Running, name: str) -> dict[str, Any]:
    """As another process would: an App of its own, in another thread."""

    def run() -> dict[str, Any]:
        app = App.open(node.app.home.path, node.app.config, operator="alice")
        try:
            return jobs.run_by_hand(app, name, time.monotonic)
        finally:
            app.close()

    return await asyncio.to_thread(run)


async def test_every_job_can_be_run_by_hand_beside_the_daemon(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        backups = {"backup_to": str(tmp_path / "backup"), "backup_key": encode_key(KEY.public)}
        city = await mesh.child(province, "1301", "city", **backups)
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        city.write("k1", {"name": "a"})
        ledger = Ledger(city.app.home.run_dir, "test")
        for name in jobs.BY_NAME:
            found = await by_hand(city, name)
            assert found, name
            if name not in ("watch", "sync"):  # the daemon does these again and again
                assert (ledger.read(name).outcome, ledger.read(name).by) == ("done", "alice")
        assert all(one["next_ms"] is None for one in jobs.listing(city.app))
        with city.app.home.lock():  # as `fednode run` holds it
            listed = {one["name"]: one for one in jobs.listing(city.app)}
        # it is no standby, and has not rehearsed; its settings name nobody to tell alerts to
        assert set(listed) == set(jobs.BY_NAME) - {"drill", "notify"}
        assert all(one["outcome"] == "done" for one in listed.values()), listed
        assert all(one["next_ms"] for name, one in listed.items() if name != "sync")
        with ledger.turn("scrub"), pytest.raises(FednodeError) as caught:
            await by_hand(city, "scrub")
        assert caught.value.code == "FN-7635"
        with pytest.raises(StoreError, match="FN-7621"):  # no parent
            await by_hand(province, "renewal")
        province.app.config = replace(province.app.config, scrub_days=0)
        with pytest.raises(Refused, match="FN-3704"):
            await by_hand(province, "scrub")
        assert city.app.store.refused() == [] == province.app.store.refused()


async def test_the_daemon_goes_on_from_where_a_scrub_by_hand_left_off(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        assert province.app.store.lsn > 0
        found = await by_hand(province, "scrub")
        assert found["problems"] == 0
        state = status.collect(province.app)["verified"]["scrub"]
        assert state["started_ms"]


async def test_regression_a_cancellation_that_is_swallowed_ends_the_dialer_all_the_same(tmp_path: Path) -> None:
    """gRPC may swallow it while a call is ending: the dialer dialled again, and the daemon waited for it for ever."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        app = await village(mesh, province)
        dialling: Any = asyncio.Event()
        unused: Any = None
        one = dialer.Dialer(app, unused)

        async def swallows() -> None:
            dialling.set()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.get_running_loop().create_future()

        one._once = swallows  # type: ignore[method-assign]
        task = asyncio.create_task(one.run())
        await dialling.wait()
        one.stop()
        task.cancel()
        await asyncio.wait_for(asyncio.gather(task, return_exceptions=True), 60)
        app.close()
