"""Alerts: the rules, when one is raised and when it closes itself, what counts as one, who has the last word."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import canonical, issuing
from fednode.node import jobs
from fednode.node.alerting import acting, raising, reading
from fednode.node.alerting.finding import EACH_MAX, Found
from fednode.node.alerting.local import SILENCE_DAYS_MAX, Local
from fednode.node.alerting.raising import CALM_MS, weigh
from fednode.node.alerting.reading import STATES, Wanted
from fednode.node.alerting.rules import LEVELS, RULES, Rules, parse_rule
from fednode.node.app import App, encoded
from fednode.node.config import Config
from fednode.node.mesh.table import Table, Who
from fednode.node.mesh.watcher import BEGAN, ROSTER, bounds_of
from fednode.node.messages import catalogue
from fednode.node.timetable import Unreadable
from fednode.sync.catalog import Catalog
from fednode.sync.change import ALERTS, AUDIT, NODES, Change
from fednode.sync.errors import Refused
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load
from fednode.sync.identity import node_payload
from fednode.sync.wire_health import about_bytes, load_bytes
from mesh import Mesh
from timed import START_MS, Clock
from world import keys_of

HOUR_S, DAY_S = 3600, 86_400
CITY = "1301"
GOOD = About("0.2.0", 1, 5_000, 20_000, 0, False, START_MS // 1000 + 300 * DAY_S, 0, "")


# ---------------------------------------------------------------- the rules


def test_every_rule_and_every_code_of_one_has_words() -> None:
    words = catalogue()
    for rule in RULES.values():
        assert f"alerts.rule_{rule.name}" in words
        assert all(code in words for code in rule.codes if len(code) == len("FN-1234"))
        assert f"alerts.level_{rule.level}" in words
    assert [job.name for job in jobs.JOBS if f"job.{job.name}" not in words] == []


@pytest.mark.parametrize(
    "line",
    ["", "disk", "nothing off", "disk 0%", "disk 5", "disk 100%", "disk off critical", "disk critical notice",
     "disk 5% 6%", "certificate 5%", "stale 5m", "fork off", "drill off", "room off", "version new", "refusals 0",
     "disk critical 5% more"],
)  # fmt: skip
def test_lines_that_say_nothing(line: str) -> None:
    with pytest.raises(Unreadable):
        parse_rule(line)


def test_the_last_line_on_a_rule_counts() -> None:
    rules = Rules.of(("disk off", "disk 1% notice", "version 1.3", "fork warning"))
    assert (rules["disk"].off, rules["disk"].level, rules["disk"].threshold) == (False, "notice", 1)
    assert rules["version"].threshold == 10_003
    assert rules.level_of("FN-6420") == "warning"
    assert rules.level_of("FN-6601") == "critical"


# ---------------------------------------------------------------- when


def test_raised_once_closed_when_calm_and_a_person_has_the_last_word() -> None:
    """The table of a life: what is found, what was kept, what is done."""
    found = Found("disk", "FN-4617", "13", {"node": "13", "percent": 3, "free_mib": 1})
    key = found.key
    held = raising.Findings([found], {"disk"})
    gone = raising.Findings([], {"disk"})

    first = weigh(held, {}, {}, 0)
    assert [one for one, _ in first.opens] == [found]
    assert first.active == {key: ("disk", None)}
    assert weigh(held, {}, first.active, 1).opens == []  # a person may have closed it: it goes on, and is not news
    quiet = weigh(gone, {}, first.active, 1000)
    assert (quiet.active, quiet.closes, quiet.ended) == ({key: ("disk", 1000)}, [], [])
    assert weigh(held, {}, quiet.active, 2000).active == {key: ("disk", None)}  # it is there again: the same
    assert weigh(gone, {}, quiet.active, 999 + CALM_MS).ended == []
    assert weigh(gone, {}, quiet.active, 1000 + CALM_MS).ended == [key]
    assert weigh(gone, {}, quiet.active, 0).active == {key: ("disk", 0)}  # a clock that was put back
    assert weigh(raising.Findings(), {}, quiet.active, 1000 + CALM_MS).ended == []  # nobody looked


# ---------------------------------------------------------------- a province that is told


@pytest.fixture
def clock() -> Clock:
    return Clock()


def enrol(app: App, city: str) -> None:
    """A city that the directory knows."""
    mine = keys_of(city)
    asked = issuing.parse_request(issuing.make_request(city, mine.tls, mine.sign, mine.seal))
    der = app.certify(asked, city, "city", (city,), 1)
    app.new_writer(app.store).local(NODES, "13", [Change(city.encode(), encoded(node_payload(der)))])


class Desk:
    """A province, and what it was told of those below it."""

    def __init__(self, app: App, clock: Clock) -> None:
        self.app, self.clock = app, clock
        self.table = Table.open(app.home.health_db, bytes(4), bounds_of(app))
        self.table.set_meta(ROSTER, f"{app.store.store_id.hex()}/{app.trust.seen}")
        self.table.set_meta(BEGAN, self.now_s)
        self._upto = 1

    @property
    def now_s(self) -> int:
        return self.clock.ms // 1000

    def name(self, cities: int, below: int) -> None:
        """So many cities, each with so many nodes below it."""
        people = [Who("13", "河北省", "province", "13", "", "13", 1, "", False, cities)]
        for one in range(1, cities + 1):
            city = f"13{one:02}"
            enrol(self.app, city)
            people.append(Who(city, city, "city", city, "13", f"13 {city}", 1, "", False, below))
            for n in range(below):
                area = f"{city}{n:03}"
                people.append(Who(area, area, "county", area, city, f"13 {city} {area}", 1, "", False, 0))
        self.table.name(people, "13")

    def hear(self, city: str, *, up: bool = True, load: Load | None = None, about: About = GOOD) -> None:
        self._upto += 1
        self.table.see(city, 1, self.now_s, self.clock.ms, up=up)
        entry = HealthEntry("", load=load_bytes(load or Load(*(0,) * 9)), about=about_bytes(about))
        self.table.fold(city, 1, Health(HealthPlace(1, self._upto), (entry,)), self.clock.ms, lambda _node: True)

    def me(self, about: About, load: Load | None = None) -> None:
        self.table.say("13", 1, load or Load(*(0,) * 9), about, self.clock.ms)

    def look(self, later_s: int = 0, *, serving: bool = True) -> dict[str, Any]:
        """The job, as the daemon runs it."""
        self.clock.ms += later_s * 1000
        local = Local.open(self.app.home.alerts_db)
        plan = raising.look(self.app, local, serving=serving)
        done = raising.carry_out(self.app, self.app.new_writer(self.app.store), plan)
        raising.settle(local, plan)
        local.close()
        return done

    def open(self, **wanted: Any) -> list[tuple[str, str, str]]:
        found = reading.listing(self.app, Wanted(**wanted), "en")["alerts"]
        return sorted((one["rule"], one["node"], one["shown"]) for one in found)

    def one(self, rule: str, *, states: tuple[str, ...] = STATES) -> dict[str, Any]:
        (found,) = reading.listing(self.app, Wanted(rule=rule, states=states), "en")["alerts"]
        return dict(found)

    def payloads(self) -> list[dict[str, Any]]:
        found = []
        for held in self.app.store.segments(0, 1000, dataset=ALERTS):
            columns = self.app.store.columns(held)
            assert columns is not None
            found += [canonical.loads(one) for one in columns.payloads]
        return found


@pytest.fixture
def desk(tmp_path: Path, clock: Clock) -> Iterator[Desk]:
    config = Config(reserve_mib=0, alerts_rules=("disk 20%",), health_stale=("1h",), health_behind=("2h",))
    app = App.init_province(tmp_path / "13", config, node="13", name="河北省", domain="hebei", clock=clock)
    made = Desk(app, clock)
    yield made
    made.table.close()
    app.close()


def test_a_city_that_is_cut_off_is_one_alert_whatever_is_below_it(desk: Desk) -> None:
    desk.name(cities=2, below=200)
    desk.hear("1301")
    desk.hear("1302", up=False)
    desk.me(GOOD)
    assert desk.look(HOUR_S) == {"opened": 0, "closed": 0}
    assert desk.look(1) == {"opened": 1, "closed": 0}
    cut = desk.one("cut")
    assert (cut["node"], cut["level"], cut["code"], cut["params"]["below"]) == ("1302", "critical", "FN-4611", 200)
    assert "nothing is known of the 200 nodes below it" in cut["message"]
    assert desk.look(DAY_S) == {"opened": 0, "closed": 0}

    desk.hear("1302", up=True)
    assert desk.look(60) == {"opened": 0, "closed": 0}
    assert desk.look(CALM_MS // 1000) == {"opened": 0, "closed": 1}
    assert desk.open() == []
    closed = desk.one("cut")
    assert (closed["state"], closed["gone"], closed["closed_by"]) == ("closed", True, "daemon")
    assert len(desk.payloads()) == 2


def test_nobody_is_late_while_this_node_could_not_hear(desk: Desk) -> None:
    desk.name(cities=1, below=0)
    desk.hear("1301", up=False)
    desk.clock.ms += DAY_S * 1000
    assert desk.look(serving=False)["opened"] == 0  # no daemon
    desk.table.set_meta(BEGAN, desk.now_s)
    assert desk.look(HOUR_S)["opened"] == 0
    assert desk.look(1)["opened"] == 1
    assert desk.open() == [("stale", "1301", "open")]


def test_many_at_once_are_one_and_single_again_when_half_are_back(desk: Desk) -> None:
    desk.name(cities=EACH_MAX + 1, below=0)
    cities = [f"13{n:02}" for n in range(1, EACH_MAX + 2)]
    for city in cities:
        desk.hear(city, up=False)
    assert desk.look(HOUR_S + 1) == {"opened": 1, "closed": 0}
    many = desk.one("stale")
    assert (many["code"], many["node"], many["params"]["count"]) == ("FN-4613", "13", EACH_MAX + 1)
    for city in cities[:5]:
        desk.hear(city)
    assert desk.look(1) == {"opened": 0, "closed": 0}
    for city in cities[5:11]:
        desk.hear(city)
    assert desk.look(1) == {"opened": 10, "closed": 0}
    assert desk.look(CALM_MS // 1000) == {"opened": 0, "closed": 1}
    assert len(desk.open()) == 10


def test_what_each_rule_sees(desk: Desk) -> None:
    """Each cause alone is its alert; without it, none."""
    desk.name(cities=1, below=0)
    desk.hear("1301", load=Load(*(0,) * 9))
    desk.me(GOOD)
    assert desk.look()["opened"] == 0
    now_s = desk.now_s
    behind = Load(5, 2, 900, now_s - 2 * HOUR_S - 1, *(0,) * 5)
    desk.table.set_meta(BEGAN, now_s - DAY_S)
    standby = Load(*(0,) * 6, 1, 40, now_s - HOUR_S - 1)
    cases: list[tuple[str, str, dict[str, Any], dict[str, Any]]] = [
        ("backlog", "1301", {"load": behind}, {"changes": 7}),
        ("version", "13", {"about": _about(software="0.1.9")}, {"least": "0.2", "names": "1301", "count": 1}),
        ("clock", "13", {"mine": _about(clock_ms=-301_000)}, {"seconds": 301}),
        ("certificate", "13", {"mine": _about(certificate_s=now_s + 59 * DAY_S)}, {}),
        ("disk", "13", {"mine": _about(disk_free_mib=3_900)}, {"percent": 19}),
        ("standby", "13", {"mine": GOOD, "load": standby}, {}),
    ]
    for rule, node, told, params in cases:
        if "mine" in told:
            desk.me(told["mine"], told.get("load"))
        else:
            desk.hear("1301", load=told.get("load"), about=told.get("about", GOOD))
        assert desk.look() == {"opened": 1, "closed": 0}, rule
        alert = desk.one(rule)
        assert (alert["node"], alert["level"]) == (node, RULES[rule].level)
        assert params.items() <= alert["params"].items()
        assert "{" not in alert["message"] + alert["hint"]
        desk.hear("1301")
        desk.me(GOOD)
        assert desk.look(1) == {"opened": 0, "closed": 0}
        assert desk.look(CALM_MS // 1000) == {"opened": 0, "closed": 1}
        assert desk.open() == []


def _about(**more: Any) -> About:
    told = {name: getattr(GOOD, name) for name in About.__dataclass_fields__}
    return About(**{**told, **more})


def test_who_has_connected_and_said_nothing_yet_is_no_older_program(desk: Desk) -> None:
    desk.name(cities=1, below=0)
    desk.table.see("1301", 1, desk.now_s, desk.clock.ms, up=True)
    assert desk.look(600)["opened"] == 0
    assert desk.look(1)["opened"] == 1
    assert desk.open() == [("version", "13", "open")]


def test_refusals_and_the_revoked(desk: Desk) -> None:
    """The audit has of one peer and code an event an hour."""
    journal = desk.app.journal()
    for _ in range(3):
        desk.clock.ms += HOUR_S * 1000
        journal.befell("session.refused", "refused", peer="1301", code="FN-5513")
        journal.befell("session.refused", "refused", peer="1302", code="FN-4508")  # come again later: no refusal
    assert desk.look()["opened"] == 1
    alert = desk.one("refusals")
    assert (alert["node"], alert["params"]["peer"], alert["params"]["why"]) == ("13", "1301", "FN-5513")
    assert desk.look(DAY_S - HOUR_S)["closed"] == 0
    assert desk.look(CALM_MS // 1000)["closed"] == 1


def test_blank_areas_right_below_and_what_was_published_late_here(desk: Desk) -> None:
    every = ["province", "city", "county"]
    number = {"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 40, "required": True}
    day = {"code": "decided", "zh": "决定日期", "en": "Decided", "type": "date"}
    told: dict[str, Any] = {"zh": "许可", "en": "Licences", "key": ["id"], "writers": every, "readers": every}
    told |= {"field": [number, day], "timeliness": {"field": "decided", "working_days": 7}, "no_blank": ["city"]}
    names = ("licence", "notice")
    desk.app.publish_catalog(Catalog.from_toml_dict({"version": 1, "dataset": [{"name": n, **told} for n in names]}))
    desk.name(cities=2, below=0)

    def write(dataset: str, area: str, decided: str, count: int) -> None:
        rows = [{"id": f"{decided}{n}", "decided": decided} for n in range(count)]
        changes = [Change(f"{area}-{one['id']}".encode(), encoded(one)) for one in rows]
        desk.app.new_writer(desk.app.store).local(dataset, area, changes)

    def survey() -> dict[str, Any]:
        local = Local.open(desk.app.home.alerts_db)
        raising.survey(desk.app, local)
        local.close()
        return desk.look()

    write("licence", "1301", "2026-01-05", 1)  # late, but not this node's
    write("licence", "13", "2026-05-28", 10)
    write("licence", "13", "2026-01-05", 1)
    assert survey() == {"opened": 2, "closed": 0}
    found = reading.listing(desk.app, Wanted(rule="blank"), "en")["alerts"]
    assert {one["area"]: (one["node"], one["params"]["datasets"]) for one in found} == {
        "1301": ("1301", "notice"),
        "1302": ("1302", "licence, notice"),
    }
    write("licence", "13", "2026-01-06", 1)  # 2 of 12: more than one in ten
    write("notice", "1301", "2026-05-28", 1)
    assert survey() == {"opened": 1, "closed": 0}
    late = desk.one("late")
    assert (late["node"], late["params"]["late"], late["params"]["dated"]) == ("13", 2, 12)
    assert desk.look(CALM_MS // 1000) == {"opened": 0, "closed": 1}
    assert desk.open() == [("blank", "1302", "open"), ("late", "13", "open")]


# ---------------------------------------------------------------- what people do


def test_acknowledged_silenced_closed_each_in_the_audit(desk: Desk) -> None:
    desk.name(cities=2, below=1)
    desk.hear("1301", up=False)
    desk.hear("1302", up=False)
    desk.look(HOUR_S + 1)
    assert desk.open() == [("cut", "1301", "open"), ("cut", "1302", "open")]
    one = next(a for a in reading.listing(desk.app, Wanted(), "en")["alerts"] if a["node"] == "1301")
    acting.ack(desk.app, one["id"], "on the way")
    assert desk.open(states=("acked",)) == [("cut", "1301", "acked")]
    until = acting.until_ms("4h", desk.clock.ms)
    assert until is not None
    acting.silence(desk.app, "1302", until, "roadworks")
    assert desk.open() == [("cut", "1301", "acked"), ("cut", "1302", "silenced")]
    assert desk.look(60) == {"opened": 0, "closed": 0}
    assert desk.one("cut", states=("acked",))["note"] == "on the way"
    acting.unsilence(desk.app, "1302")
    assert desk.open(states=("open",)) == [("cut", "1302", "open")]
    acting.silence(desk.app, "13", desk.clock.ms + 1000, "", below=True)
    assert desk.open(states=("silenced",)) == [("cut", "1301", "silenced"), ("cut", "1302", "silenced")]
    desk.clock.ms += 1000
    assert desk.open(states=("silenced",)) == []  # its end has come
    acting.close(desk.app, one["key"], "known")
    assert desk.look(60) == {"opened": 0, "closed": 0}  # whoever closed it knows: it goes on, and is not raised again
    assert desk.open() == [("cut", "1302", "open")]
    actions = []
    for held in desk.app.store.segments(0, 1000, dataset=AUDIT):
        columns = desk.app.store.columns(held)
        assert columns is not None
        actions += [canonical.loads(one)["action"] for one in columns.payloads]
    acts = [one for one in actions if one.startswith("alerts.")]
    assert acts == ["alerts.ack", "alerts.silence", "alerts.unsilence", "alerts.silence", "alerts.close"]


def test_a_silence_has_an_end_and_a_target(desk: Desk) -> None:
    now_ms, days_ms = desk.clock.ms, SILENCE_DAYS_MAX * DAY_S * 1000
    for until in (now_ms, now_ms - 1, now_ms + days_ms + 1):
        with pytest.raises(Refused, match="FN-3333"):
            acting.silence(desk.app, "disk", until, "")
    for target in ("nothing", "14", ""):
        with pytest.raises(Refused, match="FN-3332"):
            acting.silence(desk.app, target, now_ms + 1, "")
    assert acting.silence(desk.app, "disk", now_ms + days_ms, "").kind == "rule"
    assert acting.silence(desk.app, "130100", now_ms + 1, "").target == "1301"
    with pytest.raises(Refused, match="FN-3334"):
        acting.unsilence(desk.app, "clock")


def test_pages_and_totals(desk: Desk) -> None:
    desk.name(cities=5, below=0)
    for n in range(1, 6):
        desk.hear(f"130{n}", up=False)
    desk.look(HOUR_S + 1)
    first = reading.listing(desk.app, Wanted(limit=3), "zh")
    rest = reading.listing(desk.app, Wanted(limit=3, after=first["next"]), "zh")
    assert len({one["node"] for one in first["alerts"] + rest["alerts"]}) == 5
    assert rest["next"] == ""
    assert first["total"] == {level: {"open": 5 * (level == "warning"), "acked": 0, "silenced": 0} for level in LEVELS}
    assert reading.listing(desk.app, Wanted(area="1303"), "zh")["alerts"][0]["message"].startswith("1303 自")
    assert reading.listing(desk.app, Wanted(levels=("critical",)), "zh")["alerts"] == []
    with pytest.raises(Refused, match="FN-2001"):
        reading.listing(desk.app, Wanted(after="x"), "zh")


# ---------------------------------------------------------------- what was raised where it happened


def test_regression_what_closed_itself_is_raised_again_by_whoever_raised_it(desk: Desk) -> None:
    """The journal took an alert with the same words for known, though its cause had gone and come back."""
    journal = desk.app.journal()
    assert journal.alert("FN-7630", "13", {"node": "13", "reserve_bytes": 1})
    assert not journal.alert("FN-7630", "13", {"node": "13", "reserve_bytes": 1})
    desk.look()
    assert desk.look(CALM_MS // 1000) == {"opened": 0, "closed": 1}
    assert desk.app.journal().alert("FN-7630", "13", {"node": "13", "reserve_bytes": 1})


def test_evidence_is_for_people_to_close(desk: Desk) -> None:
    desk.app.journal().alert("FN-6420", "1301", {"log": "l", "node": "1301", "first": 1, "size": 2}, ["head"])
    desk.look()
    assert desk.look(DAY_S) == {"opened": 0, "closed": 0}
    assert desk.one("fork")["level"] == "critical"


def test_golden_bytes(desk: Desk) -> None:
    """What is stored and sent (docs/formats.md)."""
    desk.name(cities=1, below=0)
    desk.hear("1301", up=False)
    desk.clock.ms += HOUR_S * 1000 + 1000
    desk.look()
    desk.clock.ms += 1000
    desk.app.operator = "alice"
    acting.ack(desk.app, "FN-4610/1301/", "on the way")
    desk.hear("1301")
    desk.look(1)
    desk.look(CALM_MS // 1000)
    lines = [canonical.dumps({**one, "software": "fednode/0"}) for one in desk.payloads()]
    assert b"\n".join(lines) + b"\n" == (Path(__file__).parent / "vectors/alerts.txt").read_bytes()


# ---------------------------------------------------------------- real daemons


async def test_a_township_that_is_cut_off_reaches_the_province_as_one_alert_and_goes_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(raising, "CALM_MS", 0)
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        often = {"health_interval": "1s", "alerts_every": "1s", "health_stale": ("1s",)}
        county = await mesh.child(province, "130102", "county", **often)
        township = await mesh.child(county, "130102001", "township")
        await mesh.child(township, "130102001001", "village")

        def told() -> list[tuple[str, str, str, str]]:
            found = reading.listing(province.app, Wanted(states=STATES, rule="cut"), "en")["alerts"]
            return [(one["node"], one["by"], one["shown"], one["level"]) for one in found]

        await mesh.until(lambda: province.app.trust.directory.get("130102001001") is not None)
        await mesh.halt(township)
        await mesh.until(lambda: told() == [("130102001", "130102", "open", "critical")])
        await mesh.run(township)
        await mesh.until(lambda: told() == [("130102001", "130102", "closed", "critical")])
        assert jobs.run_by_hand(province.app, "coverage", lambda: 0.0) == {"found": 1}
        assert jobs.run_by_hand(province.app, "alerts", lambda: 0.0) == {"opened": 1, "closed": 0}
