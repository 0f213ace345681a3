"""health.db: what is folded, from whom it is taken, what is passed on; and the states that a reader makes of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.mesh.bounds import STATES, Bounds, parse_bound
from fednode.node.mesh.table import FRAME_ENTRIES, PARKED_MAX, Table, Who
from fednode.node.mesh.view import Filter, View
from fednode.node.timetable import Unreadable
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen
from fednode.sync.wire_health import about_bytes, load_bytes

NOW_S = 1_780_000_000
NOW_MS = NOW_S * 1000
HOUR = 3600
EPOCH = 7
ME, COUNTY, TOWN, VILLAGE = "1301", "130102", "130102001", "130102001001"
BOUNDS = Bounds.of(("26h", "county 1h"), ("2h",), 1000)


def who(node: str, *above: str, level: str = "village", life: int = 1, **more: Any) -> Who:
    given = {"stands_for": "", "revoked": False, "children": 0, "area": node[:12], **more}
    parent = above[-1] if above else ""
    return Who(node, f"name of {node}", level, given.pop("area"), parent, " ".join((*above, node)), life, **given)


PEOPLE = (
    who(ME, level="city", children=1),
    who(COUNTY, ME, level="county", children=1),
    who(TOWN, ME, COUNTY, level="township", children=2),
    who(VILLAGE, ME, COUNTY, TOWN),
    who("130102001002", ME, COUNTY, TOWN),
)


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table.open(tmp_path / "health.db", EPOCH.to_bytes(4, "big"), BOUNDS)
    made.name(PEOPLE, ME)
    yield made
    made.close()


def below(*nodes: str) -> Any:
    """What `Keeping` asks the directory: of these it says yes, of unknown ones it does not know."""
    return lambda node: True if node in nodes else None if node.startswith("new") else False


def told(upto: int, *entries: HealthEntry, epoch: int = 99) -> Health:
    return Health(HealthPlace(epoch, upto), entries)


def entry(node: str, load: Load | None = None, about: About | None = None, **more: Any) -> HealthEntry:
    return HealthEntry(
        node,
        load=None if load is None else load_bytes(load),
        about=None if about is None else about_bytes(about),
        **more,
    )


def owed(table: Table, upto: int = 0, epoch: int = EPOCH) -> dict[str, HealthEntry]:
    found, _ = table.owed(ME, HealthPlace(epoch, upto))
    return {} if found is None else {one.node: one for one in found.entries}


def view(table: Table, now_s: int = NOW_S, bounds: Bounds = BOUNDS) -> View:
    return View(table.connection, ME, bounds, now_s * 1000)


def states(table: Table, now_s: int = NOW_S, bounds: Bounds = BOUNDS) -> dict[str, str]:
    shown = view(table, now_s, bounds)
    return {one.id: found["state"] for one in PEOPLE if (found := shown.node(one.id)) is not None}


def all_well(table: Table) -> None:
    """Everybody is connected, and says so."""
    table.say(ME, 1, Load(), About("0.2.0"), NOW_MS)
    table.see(COUNTY, 1, NOW_S, NOW_MS, up=True)
    fine = {"load": Load(), "about": About("0.2.0")}
    up = Seen(NOW_S, up=True)
    names = (TOWN, VILLAGE, "130102001002")
    others = [entry(one, **fine, seen=up) for one in names]
    table.fold(COUNTY, 1, told(9, entry("", **fine), *others), NOW_MS, below(*names))


# ---------------------------------------------------------------- folding


def test_what_is_the_same_changes_nothing_and_is_not_passed_on(table: Table) -> None:
    all_well(table)
    before = table.place()
    assert len(owed(table)) == 5
    table.say(ME, 1, Load(), About("0.2.0"), NOW_MS + 1)
    table.see(COUNTY, 1, NOW_S, NOW_MS + 1, up=True)
    again = table.fold(COUNTY, 1, told(12, entry(TOWN, Load(), About("0.2.0"))), NOW_MS, below(TOWN))
    assert (again.changed, again.news) == (0, False)
    assert table.place() == before
    assert owed(table, before.upto) == {}


def test_of_three_parts_the_one_that_changed_goes_up(table: Table) -> None:
    all_well(table)
    upto = table.place().upto
    table.see(COUNTY, 1, NOW_S + 60, NOW_MS + 60_000, up=False)
    table.fold(COUNTY, 1, told(10, entry(VILLAGE, Load(changes=4))), NOW_MS, below(VILLAGE))
    found = owed(table, upto)
    assert found == {COUNTY: entry(COUNTY, seen=Seen(NOW_S + 60)), VILLAGE: entry(VILLAGE, Load(changes=4))}
    assert owed(table, upto + 1) == {VILLAGE: found[VILLAGE]}


def test_this_node_speaks_of_itself_without_its_name_and_says_nothing_of_being_seen(table: Table) -> None:
    table.say(ME, 3, Load(changes=1), About("0.2.0"), NOW_MS)
    assert owed(table) == {"": entry("", Load(changes=1), About("0.2.0"), life=3)}


def test_a_place_of_another_count_or_beyond_the_end_begins_anew(table: Table) -> None:
    all_well(table)
    end = table.place().upto
    assert owed(table, end) == {}
    assert len(owed(table, end + 1)) == 5
    assert len(owed(table, end, epoch=EPOCH + 1)) == 5


def test_a_frame_has_so_many_and_the_next_the_rest(table: Table) -> None:
    names = [f"13010200{n:04}" for n in range(FRAME_ENTRIES + 3)]
    table.name((*PEOPLE, *(who(one, ME, COUNTY) for one in names)), ME)
    told_ = [entry(one, Load(changes=1)) for one in names]
    table.fold(COUNTY, 1, told(9, *told_), NOW_MS, below(*names))
    first, _ = table.owed(ME, HealthPlace(EPOCH, 0))
    assert first is not None
    rest = owed(table, first.upto)
    assert len(first.entries) == FRAME_ENTRIES
    assert {one.node for one in first.entries} | rest.keys() == set(names)


def test_an_old_frame_of_another_session_takes_nothing_back(table: Table) -> None:
    table.fold(COUNTY, 1, told(6, entry("", Load(changes=2))), NOW_MS, below())
    table.fold(COUNTY, 1, told(5, entry("", Load(changes=1))), NOW_MS, below())
    assert view(table).node(COUNTY)["changes"] == 2  # type: ignore[index]
    assert table.reached(COUNTY) == HealthPlace(99, 6)
    table.fold(COUNTY, 1, told(1, entry("", Load(changes=3)), epoch=100), NOW_MS, below())  # its table was lost
    assert view(table).node(COUNTY)["changes"] == 3  # type: ignore[index]


# ---------------------------------------------------------------- who may say what


def test_a_child_speaks_of_itself_and_of_those_below_it_and_of_nobody_else(table: Table) -> None:
    fold = table.fold(
        COUNTY, 2, told(3, entry(ME, Load(changes=9)), entry("1302", Load(changes=9)), entry(TOWN, Load(changes=9)),
                        entry("", Load(changes=5)), entry(COUNTY, Load(changes=6), seen=Seen(NOW_S + 99))), NOW_MS,
        below(TOWN),
    )  # fmt: skip
    assert (fold.changed, fold.left_out) == (3, 2)
    county = view(table).node(COUNTY)
    assert county is not None
    assert (county["changes"], county["said_life"], county["seen_ms"]) == (6, 2, None)
    assert view(table).node(ME)["changes"] is None  # type: ignore[index]
    assert view(table).node("1302") is None


def test_of_a_node_that_is_not_known_yet_it_is_kept_until_it_is(table: Table) -> None:
    all_well(table)
    upto = table.place().upto
    table.fold(COUNTY, 1, told(20, entry("new1", Load(changes=8))), NOW_MS, below())
    table.fold(COUNTY, 1, told(21, entry("new2", Load(changes=8))), NOW_MS, below())
    assert view(table).node("new1") is None
    assert owed(table, upto) == {}
    table.name((*PEOPLE, who("new1", ME, COUNTY), who("new2", ME)), ME)
    assert view(table).node("new1")["changes"] == 8  # type: ignore[index]
    assert owed(table, upto) == {"new1": entry("new1", Load(changes=8))}
    assert view(table).node("new2")["changes"] is None  # type: ignore[index]  # it was not the county's to speak of


def test_a_child_may_speak_of_so_many_that_nobody_knows(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    assert PARKED_MAX >= 5_000
    monkeypatch.setattr("fednode.node.mesh.table.PARKED_MAX", 3)
    made_up = [entry(f"new{n}", Load()) for n in range(5)]
    assert table.fold(COUNTY, 1, told(1, *made_up), NOW_MS, below()).left_out == 2
    assert table.fold(COUNTY, 1, told(2, entry("new0", Load(changes=1))), NOW_MS, below()).left_out == 0


def test_what_cannot_be_read_is_left_out_and_the_rest_taken(table: Table) -> None:
    broken = HealthEntry(TOWN, load=b"\xff")
    fold = table.fold(COUNTY, 1, told(3, broken, entry(VILLAGE, Load(changes=1))), NOW_MS, below(TOWN, VILLAGE))
    assert (fold.changed, fold.left_out) == (1, 1)


def test_a_clock_ahead_keeps_nobody_fresh(table: Table) -> None:
    all_well(table)
    ahead = entry(VILLAGE, seen=Seen(NOW_S + 100 * HOUR))
    for upto in (30, 31):
        table.fold(COUNTY, 1, told(upto, ahead), NOW_MS, below(VILLAGE))
    assert view(table).node(VILLAGE)["seen_ms"] == NOW_MS  # type: ignore[index]
    assert table.owed(ME, HealthPlace(EPOCH, table.place().upto - 1))[0] is not None


def test_better_and_worse_are_news_and_a_new_number_is_not(table: Table) -> None:
    all_well(table)
    upto = 30

    def fold(load: Load) -> bool:
        nonlocal upto
        upto += 1
        news = table.fold(COUNTY, 1, told(upto, entry(VILLAGE, load)), NOW_MS, below(VILLAGE)).news
        assert table.owed(ME, HealthPlace(EPOCH, table.place().upto - 1))[1] is news
        return news

    young = Load(changes=3, since_s=NOW_S - HOUR)
    loads = (young, Load(changes=4, since_s=NOW_S - HOUR), Load(changes=4, since_s=NOW_S - 3 * HOUR), Load(1001),
             Load(), Load(alerts_critical=1), Load(alerts_critical=2), Load())  # fmt: skip
    assert [fold(one) for one in loads] == [False, False, True, False, True, True, False, True]


def test_a_daemon_that_was_killed_had_heard_whoever_was_connected(table: Table) -> None:
    all_well(table)
    table.set_meta("alive_s", NOW_S + 500)
    table.begin(ME, NOW_MS + 900_000)
    county = view(table).node(COUNTY)
    assert county is not None
    assert (county["up"], county["seen_ms"]) == (False, NOW_MS + 500_000)
    assert view(table).node(TOWN)["up"] is True  # type: ignore[index]  # the county's word


def test_a_file_that_is_no_database_is_made_anew(tmp_path: Path) -> None:
    path = tmp_path / "health.db"
    path.write_bytes(b"no database" * 1000)
    made = Table.open(path, bytes(3) + b"\x05")
    assert made.place() == HealthPlace(5, 0)
    made.close()


def test_another_node_in_this_home_begins_with_its_own_people(table: Table) -> None:
    all_well(table)
    table.name((who(COUNTY, level="county", children=0),), COUNTY)
    assert [one for (one,) in table.connection.execute("select id from node")] == [COUNTY]


# ---------------------------------------------------------------- states


def test_each_state(table: Table) -> None:
    assert set(states(table).values()) == {"ok", "never", "unknown"}
    all_well(table)
    assert set(states(table).values()) == {"ok"}
    later = [NOW_S]

    def made(load: Load | None = None, about: About | None = None, **more: Any) -> str:
        later[0] += 1
        one = entry(VILLAGE, load, about, **more)
        table.fold(COUNTY, 1, told(later[0], one), NOW_MS, below(VILLAGE))
        return states(table)[VILLAGE]

    assert made(Load(changes=1, since_s=NOW_S - 2 * HOUR)) == "ok"
    assert made(Load(changes=1, since_s=NOW_S - 2 * HOUR - 1)) == "behind"
    assert made(Load(changes=998, system=1)) == "ok"
    assert made(Load(changes=998, system=2)) == "behind"
    assert made(Load(), seen=Seen(NOW_S - 26 * HOUR)) == "ok"
    assert made(seen=Seen(NOW_S - 26 * HOUR - 1)) == "stale"
    assert made(Load(alerts_critical=1)) == "alert"
    assert made(Load(alerts_warning=1), seen=Seen(NOW_S)) == "ok"
    assert made(about=About("0.2.0", fenced="FN-6422")) == "alert"
    assert made(about=About("0.2.0", fenced="FN-5513")) == "superseded"
    assert made(about=About("0.2.0")) == "ok"
    table.accuse({VILLAGE: 1})
    assert states(table)[VILLAGE] == "alert"
    table.accuse({})
    table.name((*PEOPLE[:3], who(VILLAGE, ME, COUNTY, TOWN, life=2), PEOPLE[4]), ME)
    assert states(table)[VILLAGE] == "superseded"
    assert made(Load(changes=1), life=2) == "ok"
    table.name((*PEOPLE[:3], who(VILLAGE, ME, COUNTY, TOWN, life=2, revoked=True), PEOPLE[4]), ME)
    assert states(table)[VILLAGE] == "revoked"


@pytest.mark.parametrize("since", [0, NOW_S - 2 * HOUR, NOW_S - 2 * HOUR - 1])
@pytest.mark.parametrize("changes", [0, 999, 1000])
@pytest.mark.parametrize("critical", [0, 1])
@pytest.mark.parametrize("fenced", ["", "FN-6422"])
def test_what_is_news_and_what_is_shown_go_by_the_same_rule(
    table: Table, since: int, changes: int, critical: int, fenced: str
) -> None:
    load, about = Load(changes, since_s=since, alerts_critical=critical), About("0.2.0", fenced=fenced)
    table.say(ME, 1, load, about, NOW_MS)
    assert states(table)[ME] == BOUNDS.grade("city", load, about, NOW_S)


def test_what_is_connected_is_as_fresh_as_its_parent(table: Table) -> None:
    all_well(table)
    later = NOW_S + 100 * HOUR
    assert set(states(table, later).values()) == {"ok"}
    assert view(table, later).node(VILLAGE)["known_ms"] == later * 1000  # type: ignore[index]


def test_below_a_silent_node_is_one_cut(table: Table) -> None:
    all_well(table)
    table.see(COUNTY, 1, NOW_S, NOW_MS, up=False)
    at_bound, later = NOW_S + HOUR, NOW_S + HOUR + 1
    assert set(states(table, at_bound).values()) == {"ok"}
    found = states(table, later)
    assert (found[COUNTY], {found[one] for one in (TOWN, VILLAGE, "130102001002")}) == ("stale", {"unknown"})
    shown = view(table, later)
    assert [(one.id, one.since_ms, one.why, one.below) for one in shown.cuts()] == [(COUNTY, NOW_MS, "silent", 3)]
    assert shown.node(VILLAGE)["known_ms"] == NOW_MS  # type: ignore[index]
    assert [one["id"] for one in shown.page(Filter())[0]] == [ME, COUNTY]
    assert len(shown.page(Filter(states=("unknown",)))[0]) == 3


def test_below_a_node_of_an_older_program_nothing_is_known_and_it_is_said_why(table: Table) -> None:
    table.say(ME, 1, Load(), About("0.2.0"), NOW_MS)
    table.see(COUNTY, 1, NOW_S, NOW_MS, up=True)
    found = states(table)
    assert (found[COUNTY], found[TOWN], found[VILLAGE]) == ("ok", "unknown", "unknown")
    assert [(one.id, one.why, one.below) for one in view(table).cuts()] == [(COUNTY, "older", 3)]


def test_a_fault_below_a_cut_is_still_a_fault(table: Table) -> None:
    all_well(table)
    table.fold(COUNTY, 1, told(30, entry(VILLAGE, Load(alerts_critical=1))), NOW_MS, below(VILLAGE))
    table.see(COUNTY, 1, NOW_S, NOW_MS, up=False)
    assert states(table, NOW_S + 2 * HOUR)[VILLAGE] == "alert"


# ---------------------------------------------------------------- reading


def test_pages_filters_and_counts(table: Table) -> None:
    all_well(table)
    shown = view(table)
    first, after = shown.page(Filter(limit=2))
    rest, end = shown.page(Filter(limit=3, after=after))
    assert ([one["id"] for one in first], after, end) == ([ME, COUNTY], COUNTY, "")
    assert [one["id"] for one in rest] == [TOWN, VILLAGE, "130102001002"]
    assert [one["id"] for one in shown.page(Filter(levels=("city", "county")))[0]] == [ME, COUNTY]
    assert [one["id"] for one in shown.page(Filter(area="13010200100"))[0]] == [VILLAGE, "130102001002"]
    assert [one["id"] for one in shown.page(Filter(states=("ok",), levels=("township",)))[0]] == [TOWN]
    (total,) = shown.counts("state", Filter())
    assert (total["nodes"], total["states"]["ok"], set(total["states"])) == (5, 5, set(STATES))
    by_level = [(one["level"], one["nodes"]) for one in shown.counts("level", Filter())]
    assert by_level == [("city", 1), ("county", 1), ("township", 1), ("village", 2)]
    by_area = [(one["id"], one["nodes"], one["itself"]) for one in shown.counts("area", Filter())]
    assert by_area == [(ME, 1, True), (COUNTY, 4, False)]
    inside = [(one["id"], one["nodes"], one["itself"]) for one in shown.counts("area", Filter(area=TOWN))]
    assert inside == [(TOWN, 1, True), (VILLAGE, 1, False), ("130102001002", 1, False)]


def test_one_node_and_its_way_up(table: Table) -> None:
    all_well(table)
    shown = view(table)
    found = shown.node(VILLAGE)
    assert found is not None
    assert [one["id"] for one in shown.way_up(found)] == [TOWN, COUNTY, ME]
    assert (found["name"], found["level"], found["up"], found["software"]) == (
        *(f"name of {VILLAGE}", "village"),
        *(True, "0.2.0"),
    )
    assert shown.node("14") is None


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("text", ["", "county", "county 1", "1h county", "county 0h"])
def test_a_bound_that_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(Unreadable):
        parse_bound(text)


def test_bounds_by_level() -> None:
    bounds = Bounds.of(("26h", "county 1h"), ("county 2h",), 0)
    assert (bounds.stale_s("county"), bounds.stale_s("village")) == (3600, 26 * 3600)
    assert (bounds.behind_s("county"), bounds.behind_s("village")) == (7200, 26 * 3600)
    assert bounds.grade("village", Load(changes=10**9), About(), NOW_S) == "ok"  # 0: no number of changes is too many
