"""The documents behind the pages of the mesh, of exchanges and of coverage, over a real socket."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest
from python_calamine import CalamineWorkbook

from console import ANY_PORT, Visitor
from fednode.node import sqlite
from fednode.node.app import App
from fednode.node.web import counted as counted_
from fednode.node.web import pictures
from fednode.node.web.counted import Counted
from fednode.node.web.pages import mesh as mesh_page
from fednode.sync.health import Load
from mesh import Mesh
from province import Province, people, small

VILLAGE = "130102001001"
WAIT_S = 60.0
ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n limit 100000000000) select count(*) from n"


async def answer(visitor: Visitor, path: str, holds: Callable[[httpx.Response], bool]) -> httpx.Response:
    """Ask again until the answer is such: the console looks a few times a second, and counts beside."""
    loop = asyncio.get_running_loop()
    end = loop.time() + WAIT_S
    while not holds(found := await visitor.get(path)):
        assert loop.time() < end, found.text
    return found


@pytest.fixture
async def province(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Province]:
    async with Mesh(tmp_path) as mesh:
        found = await Province.found(mesh, small(), monkeypatch)
        found.all_well()
        yield found
        found.close()


async def test_a_browser_keeps_the_layout_until_the_tree_changes(province: Province) -> None:
    async with Visitor(province.node) as alice:
        assert (await alice.http.get("/data/mesh/layout", headers={"accept": "application/json"})).status_code == 401
        await alice.join("viewer")
        states = (await alice.get("/data/mesh/states")).json()
        first = await alice.get(f"/data/mesh/layout?tag={states['layout']}")
        assert "immutable" in first.headers["cache-control"]
        assert len(first.json()["ids"]) == len(states["states"]) == len(province.who)
        again = await alice.get("/data/mesh/layout", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        other = await alice.get("/data/mesh/layout?tag=0000")
        assert "immutable" not in other.headers["cache-control"], "under another tag it would be kept for ever"
        assert other.headers["x-layout"] == states["layout"]
        province.table.name(people(small(cities=2)), "13")
        path = f"/data/mesh/changes?since={states['seq']}&layout={states['layout']}"
        found = (await answer(alice, path, lambda got: "changes" not in got.json())).json()
        assert found["layout"] != states["layout"]


async def test_changes_are_told_one_by_one(province: Province) -> None:
    async with Visitor(province.node) as alice:
        await alice.join("viewer")
        states = (await alice.get("/data/mesh/states")).json()
        ids = (await alice.get("/data/mesh/layout")).json()["ids"]
        province.tell(VILLAGE, Load(alerts_critical=1))
        path = f"/data/mesh/changes?since={states['seq']}&layout={states['layout']}"
        found = (await answer(alice, path, lambda got: bool(got.json()["changes"]))).json()
        alert = (await alice.get("/data/mesh/layout")).json()["states"].index("alert")
        assert found["changes"] == [[ids.index(VILLAGE), alert]]
        assert (await alice.get(f"/data/mesh/changes?since={found['seq']}&layout={found['layout']}")).json()[
            "changes"
        ] == []


async def test_regression_who_got_an_older_picture_is_told_to_ask_again(
    province: Province, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A browser that asked a moment after another had asked missed a change until the next one came."""
    async with Visitor(province.node) as alice:
        await alice.join("viewer")
        monkeypatch.setattr(pictures, "LOOK_MS", 0)
        states = (await alice.get("/data/mesh/states")).json()
        assert states["next_ms"] > 0
        monkeypatch.setattr(pictures, "LOOK_MS", 600_000)
        province.tell(VILLAGE, Load(alerts_critical=1))
        path = f"/data/mesh/changes?since={states['seq']}&layout={states['layout']}"
        found = (await alice.get(path)).json()
        assert (found["changes"], found["next_ms"]) == ([], 0)
        monkeypatch.setattr(pictures, "LOOK_MS", 0)
        found = (await alice.get(path)).json()
        assert len(found["changes"]) == 1
        assert found["next_ms"] > 0


async def test_filters_stand_in_the_url_and_pages_go_on(province: Province, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh_page, "LIST_MAX", 50)
    async with Visitor(province.node) as alice:
        await alice.join("viewer")
        seen: list[str] = []
        path = "/mesh?state=ok&level=village"
        for _ in range(3):
            text = (await alice.get(path)).text
            listed = text[text.index('id="overview-list"') : text.index('id="overview-groups"')]
            seen += [one for one in province.who if f'href="/mesh/{one}"' in listed]
            if 'rel="next"' not in listed:
                break
            path = listed.partition('rel="next" href="')[2].partition('"')[0].replace("&amp;", "&")
        villages = [one.id for one in province.who.values() if one.level == "village"]
        assert seen == villages
        assert 'href="/mesh/1302' not in (await alice.get("/mesh?at=1301&state=ok")).text
        for query in ("at=nobody", "state=fine", "level=planet", "after=x"):
            assert (await alice.get(f"/mesh?{query}")).status_code in (400, 404), query
        for path in ("/mesh/nobody", "/exchanges?peer=nobody", "/exchanges?span=year", "/coverage?dataset=none"):
            assert (await alice.get(path)).status_code in (400, 404, 422), path


async def test_coverage_and_its_files(province: Province) -> None:
    province.node.write("a", {"name": "=1+1"})
    async with Visitor(province.node) as alice:
        await alice.join("viewer")
        for query in ("blank=1", "timely=1"):
            await answer(alice, f"/coverage?{query}", lambda got: "coverage-rows" in got.text)
        assert (await alice.get("/coverage?area=999999")).status_code == 400
        csv = await alice.get("/coverage.csv?dataset=admin-licence")
        assert csv.headers["content-disposition"] == 'attachment; filename="coverage.csv"'
        lines = csv.content.decode("utf-8-sig").splitlines()
        assert len(lines) == 2
        xlsx = await alice.get("/coverage.xlsx?dataset=admin-licence&timely=1")
        heads, row = CalamineWorkbook.from_filelike(io.BytesIO(xlsx.content)).get_sheet_by_index(0).to_python()
        assert heads[: len(lines[0].split(","))] == lines[0].split(",")
        assert len(heads) == len(lines[0].split(",")) + 5
        assert row[0] in (13, "13")


async def test_the_list_as_a_file_and_a_search(province: Province) -> None:
    province.tell(VILLAGE, Load(alerts_critical=1, alerts_warning=2))
    async with Visitor(province.node) as alice:
        await alice.join("viewer")
        found = await answer(alice, "/mesh.csv", lambda got: VILLAGE in got.text)
        lines = found.content.decode("utf-8-sig").splitlines()
        assert len(lines) == 2
        assert lines[1].split(",")[0] == VILLAGE
        assert lines[1].split(",")[7] == "3"
        everyone = (await alice.get("/mesh.csv?at=1301&state=ok&state=alert")).content.decode("utf-8-sig").splitlines()
        assert [line.partition(",")[0] for line in everyone[1:]] == sorted(province.cities["1301"])
        assert (await alice.get(f"/mesh?q={VILLAGE}")).url.path == f"/mesh/{VILLAGE}"
        text = (await alice.get("/mesh?q=第2镇")).text
        listed = text[text.index('id="overview-list"') : text.index('id="overview-groups"')]
        towns = [one for one in province.who.values() if one.name == "第2镇"]
        assert listed.count('id="list-') == len(towns) > 1
        assert "&lt;b&gt;" in (await alice.get("/mesh?q=<b>")).text


async def test_a_nodes_page_has_the_alerts_about_it(province: Province) -> None:
    app = province.node.app
    writer = app.new_writer()
    for node in (VILLAGE, "130102"):
        app.journal(writer).alert("FN-6420", node, {"log": f"hebei/{node}/1/admin-licence"})
    writer.store.close()
    app.poke()
    async with Visitor(province.node) as alice:
        await alice.join("viewer")
        text = (await answer(alice, f"/mesh/{VILLAGE}", lambda got: "level-critical" in got.text)).text
        assert text.count("level-critical") == 1
        assert f"hebei/{VILLAGE}/1/admin-licence" in text
        assert f'href="/alerts?node={VILLAGE}"' in text
        assert "level-critical" not in (await alice.get("/mesh/130102001")).text


async def test_a_count_is_broken_off_when_the_console_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 500 million records it takes hours; a daemon that stops must not wait for it."""
    began = threading.Event()
    broken: list[str] = []

    def endless(_app: App, connection: sqlite.Connection, **_: object) -> None:
        began.set()
        try:
            connection.execute(ENDLESS).fetchone()
        except sqlite.DatabaseError as error:
            broken.append(str(error))
            raise

    monkeypatch.setattr(counted_, "measured", endless)
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found(http_listen=ANY_PORT)
        async with Visitor(node) as alice:
            await alice.join("viewer")
            assert "coverage-counting" in (await alice.get("/coverage")).text
            assert began.is_set()
    assert broken == ["interrupted"]


def test_counting_takes_a_small_part_of_the_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever looks gets what was counted last; the next begins when that is old enough, once for all who look."""

    class Clock:
        ms = 1_000_000

        def now_ms(self) -> int:
            return self.ms

    clock, began = Clock(), []
    counted = Counted(clock)  # type: ignore[arg-type]

    def count(timely: bool) -> counted_.Count:
        began.append(timely)
        return counted_.Count(clock.ms, 4_000, None, {})  # type: ignore[arg-type]

    monkeypatch.setattr(counted, "_count", count)

    def get() -> counted_.Count:
        found, coming = counted.get(timely=False)
        while coming:
            counted._coming[False].result(WAIT_S)
            found, coming = counted.get(timely=False)
        assert found is not None
        return found

    first = get()
    assert (first.lasts_ms, len(began)) == (200_000, 1)
    clock.ms += 199_999
    assert get() is first
    clock.ms += 1
    assert get() is not first
    assert began == [False, False]
