"""Rows that imports refused, by reason: in the import's answer, in its event, and in `fednode coverage --rejected`."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import canonical
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.coverage import opened
from fednode.node.journal import TEXT_BYTES_MAX, event_key
from fednode.node.rejected import OTHER, reasons, rejected, told
from fednode.sync.catalog import Catalog
from fednode.sync.change import AUDIT, Change
from fednode.sync.clock import stamp
from mesh import Mesh, configuration
from timed import DAY_MS, START_MS, Clock

EVERY = ["province", "city", "county"]
CATALOG: dict[str, Any] = {
    "version": 1,
    "dataset": [
        {"name": name, "zh": zh, "en": name, "key": ["id"], "writers": EVERY, "readers": EVERY, "field": [
            {"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 4, "required": True},
            {"code": "day", "zh": "日期", "en": "Day", "type": "date"}]}
        for name, zh in (("licence", "许可"), ("notice", "通知"))
    ],
}  # fmt: skip
BAD = "id,day\n1,2026-01-01\n,2026-01-01\nlong one,tomorrow\n2,never\n1,2026-01-02\n"
BAD_REASONS = {"required": 1, "too_long": 1, "date": 2, "duplicate": 1}
Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """A command at a province, by the test's clock: its exit code, its document, or its words."""
    made = App.init_province(tmp_path / "13", configuration(), node="13", name="河北省", domain="hebei", clock=clock)
    made.publish_catalog(Catalog.from_toml_dict(CATALOG))
    made.close()
    opened_ = App.open.__func__  # type: ignore[attr-defined]

    def with_clock(kind: type[App], *given: Any, **more: Any) -> App:
        app: App = opened_(kind, *given, **{**more, "clock": clock})
        return app

    monkeypatch.setattr(App, "open", classmethod(with_clock))

    def invoked(*words: str, lang: str = "") -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        form = ["--lang", lang] if lang else ["--json"]
        code = invoke(["--home", str(tmp_path / "13"), *form, *words], {"LANG": "C.UTF-8"})
        shown = capsys.readouterr().out
        return code, {} if lang else json.loads(shown), shown

    return invoked


def why(run: Run, *words: str) -> dict[str, Any]:
    code, document, _ = run("coverage", "--rejected", *words)
    assert code == 0
    found: dict[str, Any] = document["coverage"]["rejected"]
    return found


def counts(found: dict[str, Any]) -> dict[tuple[str, str, str], int]:
    return {(row["area"], row["dataset"], row["reason"]): row["rows"] for row in found["rows"]}


def test_each_reason_is_counted_in_the_answer_the_event_and_the_list(run: Run, tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "a.csv"
    path.write_text(BAD, encoding="utf-8")
    code, answer, _ = run("import", "licence", str(path), "--dry-run")
    assert (code, answer["files"][0]["reasons"]) == (3, BAD_REASONS)
    assert why(run) == {"days": 30, "imports": 0, "read": 0, "rejected": 0, "untold": 0, "rows": []}
    for _ in "again":
        clock.ms += 1000
        assert run("import", "licence", str(path))[1]["rejected"] == 4
    found = why(run)
    assert (found["imports"], found["read"], found["rejected"], found["untold"]) == (1, 5, 4, 0)
    assert counts(found) == {("13", "licence", name): count for name, count in BAD_REASONS.items()}
    assert found["rows"][0]["reason"] == "date", "the most frequent first"

    path.write_text("id,day\n,\n7,2026-01-01\n,2026-01-01\n", encoding="utf-8")  # it was corrected, and is worse
    clock.ms += 1000
    run("import", "notice", str(path), "--area", "1301")
    assert counts(why(run, "--area", "130100")) == {("1301", "notice", "required"): 1}
    assert counts(why(run, "licence")) == {("13", "licence", name): count for name, count in BAD_REASONS.items()}
    out = tmp_path / "out.csv"
    _, _, words = run("coverage", "--rejected", lang="zh")
    assert "30 天内导入 2 次：读取 7 行，拒绝 5 行" in words
    assert "为必填项，不能为空" in words
    assert run("coverage", "--rejected", "--csv", str(out))[1]["coverage"]["files"] == [{"path": str(out), "rows": 5}]
    rows = list(csv.reader(out.read_text(encoding="utf-8-sig").splitlines()))
    assert rows[1][:2] + rows[1][3:4] + rows[1][5:] == ["13", "licence", "date", "2"]

    clock.ms += 2 * DAY_MS
    assert why(run, "--days", "1")["imports"] == 0
    assert why(run, "--days", "3")["imports"] == 2
    assert run("coverage", "--rejected", "--timely")[0] == 2


def test_what_older_and_hostile_nodes_write(run: Run, tmp_path: Path, clock: Clock) -> None:
    app = App.open(tmp_path / "13", configuration())
    details: list[Any] = [
        {"dataset": "licence", "area": "13", "rejected": 3, "read": 9},
        {"dataset": "licence", "area": "13", "rejected": -1, "read": "x", "reasons": 7},
        {"dataset": "licence", "area": "13", "code": "FN-3401"},
        {"read": 0, "dataset": "\x1b[2J", "area": ["13"], "rejected": 1 << 52, "reasons": "date 1, a; b 2, \u202e 3"},
        [],
        None,
    ]
    payloads = [{"v": 1, "action": "import", "node": "13", "details": one} for one in details]
    changes = [
        Change(event_key(stamp(START_MS + n), "13").encode(), canonical.dumps(one)) for n, one in enumerate(payloads)
    ]
    with app.store.write() as tx:
        app.new_writer(app.store).append_system(tx, AUDIT, "13", changes)
    with opened(app) as connection:
        found = rejected(connection, START_MS - DAY_MS)
    assert (found.imports, found.read, found.rejected, found.untold) == (3, 9, (1 << 52) + 3, 3)
    assert [(row.dataset, row.reason, row.rows) for row in found.rows] == [("\x1b[2J", "date", 1)]
    app.close()
    clock.ms += 1000
    assert "\x1b" not in run("coverage", "--rejected", lang="en")[2]


def test_reasons_fit_into_an_event() -> None:
    many = {f"reason_number_{n:02}": 100 - n for n in range(25)}
    text = told(many)
    assert len(text.encode()) <= TEXT_BYTES_MAX
    found = reasons(text)
    assert sum(found.values()) == sum(many.values())
    assert found[OTHER] > 0
    assert {name: count for name, count in found.items() if name != OTHER}.items() <= many.items()
    exact = {"a" * 39 + str(n): 1 for n in range(5)}
    assert OTHER not in reasons(told(exact))


async def test_what_a_county_refused_is_seen_at_the_province(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found(publish=False)
        province.app.publish_catalog(Catalog.from_toml_dict(CATALOG))
        county = await mesh.child(province, "130102", "county")

        def stored() -> bool:
            """On disk: the daemon knows the catalog a moment before, and the command is another process."""
            app = App.open(tmp_path / "130102", county.app.config)
            version = app.trust.catalog_version
            app.close()
            return version == 1

        await mesh.until(stored)
        path = tmp_path / "a.csv"
        path.write_text(BAD, encoding="utf-8")
        assert invoke(["--home", str(tmp_path / "130102"), "import", "licence", str(path)], {"LANG": "C.UTF-8"}) == 3

        def seen() -> dict[str, Any]:
            capsys.readouterr()
            invoke(["--home", str(tmp_path / "13"), "--json", "coverage", "--rejected"], {"LANG": "C.UTF-8"})
            found: dict[str, Any] = json.loads(capsys.readouterr().out)["coverage"]["rejected"]
            return found

        await mesh.until(lambda: seen()["imports"] == 1)
        assert counts(seen()) == {("130102", "licence", name): count for name, count in BAD_REASONS.items()}
