"""How nodes are, through real daemons and real gRPC: what the province sees of a village, a township, and itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto.certs import Identity
from fednode.node import cli, driver, sqlite, syncing
from fednode.node.app import App, real_clock
from fednode.node.driver import Report
from fednode.node.engine import Engine
from mesh import Mesh, Running

HOUR_MS = 3_600_000
PATH = (("130102", "county"), ("130102001", "township"), ("130102001001", "village"))
COUNTY, TOWNSHIP, VILLAGE = (node for node, _ in PATH)
Told = Callable[..., dict[str, Any]]


@pytest.fixture
def shift_ms() -> list[int]:
    """How far the clock of all nodes is ahead of this machine's."""
    return [0]


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shift_ms: list[int]) -> Told:
    """`fednode mesh --json` at a node, by the nodes' clock."""
    opened = App.open.__func__  # type: ignore[attr-defined]

    def with_clock(kind: type[App], *given: Any, **more: Any) -> App:
        app: App = opened(kind, *given, **{**more, "clock": lambda: real_clock() + shift_ms[0]})
        return app

    monkeypatch.setattr(App, "open", classmethod(with_clock))
    monkeypatch.setattr(driver, "TICK_S", 0.1)

    def run(node: Running, *arguments: str) -> dict[str, Any]:
        capsys.readouterr()
        home = str(node.app.home.path)
        assert cli.invoke(["--home", home, "--json", "mesh", *arguments], {"PATH": "/usr/bin"}) == 0
        document = json.loads(capsys.readouterr().out)
        assert (document["version"], document["command"], document["ok"]) == (1, "mesh", True)
        found: dict[str, Any] = document["mesh"]
        return found

    return run


def state(found: dict[str, Any], node: str) -> Any:
    return next((one["state"] for one in found["nodes"] if one["id"] == node), None)


async def chain(mesh: Mesh) -> list[Running]:
    """Province, county, township, village; each tells its parent once a second."""
    nodes = [await mesh.found()]
    for node, level in PATH:
        nodes.append(await mesh.child(nodes[-1], node, level, health_interval="1s"))
    return nodes


async def test_a_villages_backlog_a_cut_township_and_a_recovery_are_seen_at_the_province(
    tmp_path: Path, told: Told, shift_ms: list[int]
) -> None:
    async with Mesh(tmp_path, clock=lambda: real_clock() + shift_ms[0]) as mesh:
        province, county, township, village = await chain(mesh)

        def seen(node: str) -> dict[str, Any]:
            found: dict[str, Any] = told(province, node)["node"]
            return found

        await mesh.until(lambda: village.app.trust.catalog_version == 1 and seen(VILLAGE)["software"] is not None)
        first = told(province)
        assert [one["id"] for one in first["nodes"]] == ["13", COUNTY, TOWNSHIP, VILLAGE]
        assert first["total"]["states"]["ok"] == 4
        assert first["cuts"] == []
        assert [one["up"] for one in first["nodes"]] == [False, True, True, True]

        await mesh.halt(village)
        for n in range(3):
            village.write(f"k{n}", {"name": str(n)})
        shift_ms[0] += 27 * HOUR_MS
        await syncing.sync_once(village.app, up=False)
        await mesh.until(lambda: seen(VILLAGE)["state"] == "behind" and not seen(VILLAGE)["up"])  # it has left, too
        behind = seen(VILLAGE)
        assert (behind["changes"], behind["up"]) == (3, False)
        assert behind["bytes"] > 0
        assert 26 * HOUR_MS < told(province)["now_ms"] - behind["since_ms"] < 28 * HOUR_MS
        assert told(province, "--state", "behind")["nodes"] == [behind]

        await syncing.sync_once(village.app)
        await mesh.until(lambda: seen(VILLAGE)["state"] == "ok")
        assert (seen(VILLAGE)["changes"], seen(VILLAGE)["since_ms"]) == (0, None)

        await mesh.halt(township)
        await mesh.until(lambda: not seen(TOWNSHIP)["up"])
        shift_ms[0] += 48 * HOUR_MS
        await mesh.until(lambda: seen(COUNTY)["up"])
        cut = told(province)
        assert {one["id"]: one["state"] for one in cut["nodes"]} == {"13": "ok", COUNTY: "ok", TOWNSHIP: "stale"}
        assert [(one["id"], one["why"], one["below"]) for one in cut["cuts"]] == [(TOWNSHIP, "silent", 1)]
        assert cut["cuts"][0]["since_ms"] == seen(TOWNSHIP)["known_ms"]
        assert (seen(VILLAGE)["state"], seen(VILLAGE)["cut"]) == ("unknown", TOWNSHIP)
        assert [one["state"] for one in told(province, VILLAGE)["way_up"]] == ["stale", "ok", "ok"]
        assert state(told(county), TOWNSHIP) == "stale"

        await mesh.run(township)
        await syncing.sync_once(village.app)
        await mesh.until(lambda: seen(VILLAGE)["state"] == "ok" == seen(TOWNSHIP)["state"])
        assert told(province)["cuts"] == []


async def test_what_a_store_of_health_that_was_lost_had_comes_again(tmp_path: Path, told: Told) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        county = await mesh.child(province, COUNTY, "county", health_interval="1s")
        await mesh.until(lambda: told(province, COUNTY)["node"]["software"] is not None)
        await mesh.halt(province)
        for path in province.app.home.path.glob("health.db*"):
            path.unlink()
        await mesh.run(province)
        await mesh.until(lambda: told(province, COUNTY)["node"]["software"] is not None)
        await mesh.halt(county)
        county.app.home.health_db.write_bytes(b"no database" * 1000)
        await syncing.sync_once(county.app)
        assert told(county)["total"]["states"]["ok"] == 1


async def test_regression_the_writers_last_word_comes_when_the_store_is_closed(tmp_path: Path) -> None:
    """The store is closed in another thread while the loop still hears that it has grown: it was read all the same, and
    the process died."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        await mesh.halt(province)
        engine = Engine(province.app)
        await engine.stop()
        engine.moved()


async def test_it_works_with_no_daemon_and_no_link(tmp_path: Path, told: Told) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        await mesh.halt(province)
        province.app.invite("1301", "city", "石家庄市")
        found = told(province)
        assert [(one["id"], one["state"]) for one in found["nodes"]] == [("13", "ok")]
        assert [(one["id"], one["name"]) for one in found["invited"]] == [("1301", "石家庄市")]
        assert told(province, "13")["way_up"] == []


class Line:
    """What the watcher asks of a session."""

    def __init__(self, peer: Identity) -> None:
        self.peer, self.report, self.exchange = peer, Report(), self
        self.dials, self.now_ms = False, lambda: 0

    def silent_ms(self, _now_ms: int) -> int:
        return 0


async def test_regression_a_child_is_down_when_its_last_session_ends_while_one_before_winds_down(
    tmp_path: Path,
) -> None:
    """The engine still had the first when the second ended, so neither marked the child as gone: a township that was
    cut off right after it had dialled again was up for ever, and never stale."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.halt(city)
        await mesh.halt(province)
        engine = Engine(province.app)
        first, second = (Line(city.app.trust.me) for _ in "12")
        for line in (first, second):
            engine.sessions.add(line)  # type: ignore[arg-type]
            engine.health.began(line)  # type: ignore[arg-type]
        engine.health.ended(first)  # type: ignore[arg-type]
        engine.health.ended(second)  # type: ignore[arg-type]
        engine.sessions.clear()
        await engine.stop()
        connection = sqlite.connect(province.app.home.health_db, synchronous="NORMAL", readonly=True)
        assert connection.execute("select up from node where id = '1301'").fetchone() == (0,)
        connection.close()
