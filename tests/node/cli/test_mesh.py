"""`fednode mesh` in words: the tree, the counts, one node; what is refused; how watching ends."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

import pytest

from fednode.node.app import App, real_clock
from fednode.node.cli import invoke
from fednode.node.cli import mesh as command
from fednode.node.config import Config
from fednode.node.mesh.table import Table, Who
from fednode.node.mesh.watcher import ROSTER, bounds_of
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen
from fednode.sync.wire_health import about_bytes, load_bytes

HOUR = 3600
Run = Callable[..., tuple[int, str, str]]


def who(node: str, name: str, level: str, *above: str, children: int = 0) -> Who:
    return Who(node, name, level, node, above[-1] if above else "", " ".join((*above, node)), 1, "", False, children)


PEOPLE = (
    who("13", "河北省", "province", children=2),
    who("1301", "石家庄市", "city", "13", children=1),
    who("130102", "长安区", "county", "13", "1301"),
    who("1302", "唐山市", "city", "13", children=1),
    who("130202", "路南区", "county", "13", "1302"),
)


def _told(app: App) -> str:
    """As if the directory had been asked for its nodes: it knows the province alone."""
    return f"{app.store.store_id.hex()}/{app.trust.seen}"


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """At a province below which one city is well and behind, the other silent for two days."""
    app = App.init_province(tmp_path / "13", Config(), node="13", name="河北省", domain="hebei")
    now_ms = real_clock()
    now_s = now_ms // 1000
    table = Table.open(app.home.health_db, bytes(4), bounds_of(app))
    table.name(PEOPLE, "13")
    table.set_meta(ROSTER, _told(app))
    late = load_bytes(Load(1200, 3, 3_000_000, now_s - 5 * HOUR, 0, 2, 1, 40, now_s - HOUR))
    about = about_bytes(About("0.2.0", 7, 5_000, 20_000, -700, False, now_s + 100 * 86_400 + 60, now_s - 26 * HOUR, ""))
    for city, county, at_s, up in (("1301", "130102", now_s, True), ("1302", "130202", now_s - 50 * HOUR, False)):
        table.see(city, 1, at_s, now_ms, up=up)
        entries = (
            HealthEntry("", load=late if up else b"", about=about),
            HealthEntry(county, 1, Seen(at_s, up=True), b"", about),
        )
        table.fold(city, 1, Health(HealthPlace(1, 2), entries), now_ms, lambda _node: True)
    table.close()
    app.close()

    def invoked(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = invoke(["--home", str(tmp_path / "13"), *words], {"LANG": "C.UTF-8"})
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return invoked


def test_the_tree_in_both_languages(run: Run) -> None:
    code, english, _ = run("mesh")
    assert code == 0
    lines = [line.split("  ") for line in english.splitlines()]
    assert lines[0] == ["5 nodes: ok 2, behind 1, stale 1, unknown 1"]
    rows = [line for line in english.splitlines() if "市" in line or "区" in line or "省" in line]
    assert [row.split()[0] for row in rows] == ["13", "1301", "130102", "1302"]
    assert rows[2].startswith("    130102 长安区")
    assert "1203 (2.9 MiB, 5 h" in rows[1]
    assert "4.9 GiB (25%)" in rows[1]
    assert "1302 is silent: 1 nodes below it are unknown since then (2 d 2 h ago)" in english
    _, chinese, _ = run("--lang", "zh", "mesh")
    assert "共 5 个节点：正常 2, 积压 1, 失联 1, 情况不明 1" in chinese
    assert "1302 失联：其下 1 个节点此后情况不明（2 天 2 小时前）" in chinese


def test_counts_filters_and_pages(run: Run) -> None:
    levels = run("mesh", "--by", "level")[1].splitlines()
    assert [line.split()[:2] for line in levels[3:6]] == [["province", "1"], ["city", "2"], ["county", "2"]]
    areas = run("mesh", "--by", "area")[1]
    assert [line.split()[0] for line in areas.splitlines() if "省" in line or "市" in line] == ["13", "1301", "1302"]
    assert "130202 路南区" in run("mesh", "--state", "unknown")[1]
    assert "130102" not in run("mesh", "--level", "city")[1]
    assert "more: --after 1301" in run("mesh", "--limit", "2")[1]
    assert "石家庄市" not in run("mesh", "--after", "1301")[1]


def test_one_node_and_its_way_up(run: Run) -> None:
    shown = run("mesh", "1301")[1]
    for part in ("behind", "connected", "1203 (2.9 MiB", "0.2.0, catalog 7", "-700 ms", "100 days left",
                 "0 critical, 2 warnings", "1, 40 changes behind", "1 d 2 h ago", "13 河北省: ok"):  # fmt: skip
        assert part in shown
    assert "情况不明 (在 1302 之下)" in run("--lang", "zh", "mesh", "130202")[1]


def test_what_is_refused(run: Run) -> None:
    for words, code, said in (
        (("mesh", "14"), 3, "FN-3110"),
        (("mesh", "1301", "--by", "level"), 2, "FN-2706"),
        (("mesh", "--level", "village-like"), 2, "FN-2001"),
        (("mesh", "--state", "fine"), 2, ""),
    ):
        found, out, err = run(*words)
        assert found == code, (words, out, err)
        assert said in err


def test_a_way_of_packing_waits_until_every_node_reads_it(run: Run, tmp_path: Path) -> None:
    """Nodes that last said an older program, or none, could not read what is written under such a catalog."""
    shipped = resources.files("fednode.node.data").joinpath("catalogs/organisations.toml").read_text("utf-8")
    before, after = tmp_path / "1.toml", tmp_path / "2.toml"
    before.write_text(shipped.replace("\nbodies = 2\n", "\n"), "utf-8")
    after.write_text(shipped.replace("\nversion = 1\n", "\nversion = 2\n"), "utf-8")
    assert run("catalog", "publish", str(before))[0] == 0
    app = App.open(tmp_path / "13", Config())
    table = Table.open(app.home.health_db, bytes(4), bounds_of(app))
    table.set_meta(ROSTER, _told(app))
    assert run("catalog", "publish", "--dry-run", str(after))[0] == 0  # each of the four said 0.2.0
    for node, software in (("130102", "0.1.7"), ("130202", None)):
        table.connection.execute("update node set software = ? where id = ?", (software, node))
    table.close()
    app.close()
    code, _, err = run("catalog", "publish", str(after))
    assert code == 3
    assert "FN-3226" in err
    assert "2 below are not known to run it: 130102, 130202" in err
    assert run("catalog", "publish", "--all-upgraded", str(after))[0] == 0


def test_a_full_disk_shows_what_is_there(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fednode.node.room.Room.low", property(lambda _room: True))
    code, out, _ = run("--json", "mesh")
    assert code == 0
    assert json.loads(out)["mesh"]["total"]["nodes"] == 5


def test_watching_shows_it_again_and_ends_with_ctrl_c_and_no_failure() -> None:
    shown: list[int] = []
    waits: list[float] = []

    def pause(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    command.again(lambda: shown.append(1), pause, clear=False)
    assert (len(shown), waits) == (3, [command.WATCH_S] * 3)
