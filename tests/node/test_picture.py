"""The picture of all nodes: whatever happens it says what the view says, and tells each change."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.mesh import picture as picture_
from fednode.node.mesh.bounds import STATES, Bounds
from fednode.node.mesh.picture import Picture
from fednode.node.mesh.table import Table, Who
from fednode.node.mesh.view import Filter, View
from fednode.sync.errors import StoreError
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen
from fednode.sync.wire_health import about_bytes, load_bytes

NOW_S = 1_780_000_000
ME = "13"
BOUNDS = Bounds.of(("2h", "city 15m", "county 1h"), ("30m",), 1000)
LEVELS = ("province", "city", "county", "township")
Nodes = dict[str, Who]


def people(*, cities: int = 2, counties: int = 2, towns: int = 3) -> Nodes:
    """A small province."""
    found: Nodes = {}

    def add(node: str, parent: str, level: int, children: int) -> str:
        path = f"{found[parent].path} {node}" if parent else node
        found[node] = Who(node, f"名 {node}", LEVELS[level], node, parent, path, 1, "", False, children)
        return node

    add(ME, "", 0, cities)
    for a in range(cities):
        city = add(f"{ME}{a + 1:02}", ME, 1, counties)
        for b in range(counties):
            county = add(f"{city}{b + 1:02}", city, 2, towns)
            for n in range(towns):
                add(f"{county}{n + 1:03}", county, 3, 0)
    return found


@pytest.fixture
def table(tmp_path: Path) -> Iterator[Table]:
    made = Table.open(tmp_path / "health.db", bytes(4), BOUNDS)
    yield made
    made.close()


@pytest.fixture
def picture(table: Table) -> Iterator[Picture]:
    made = Picture(table.path, ME, BOUNDS)
    yield made
    made.close()


def truth(table: Table, now_s: int) -> dict[str, str]:
    return {node: state for node, state, _ in View(table.connection, ME, BOUNDS, now_s * 1000).standing()}


def layout(picture: Picture) -> dict[str, Any]:
    return dict(json.loads(gzip.decompress(picture.layout.body)))


def shown(picture: Picture) -> dict[str, str]:
    """As a browser puts the two documents together."""
    told = layout(picture)
    states = [told["states"][int(one)] for one in picture.states()["states"]]
    return dict(zip(told["ids"], states, strict=True))


def meet(table: Table, nodes: Nodes, node: str, now_s: int, rng: random.Random, upto: int) -> None:
    """A node has met its parent; its city, or itself, tells."""
    load = about = None
    if rng.random() < 0.5:
        backlog = rng.choice((0, 5, 2000))
        late = now_s - rng.choice((10, 1700, 2000))
        load = load_bytes(Load(backlog, since_s=late if backlog else 0, alerts_critical=rng.choice((0, 0, 0, 1))))
    if rng.random() < 0.4:
        about = about_bytes(About("0.2.0", fenced=rng.choice(("", "", "", "FN-5303", "FN-5513"))))
    city = nodes[node].path.split(" ")[1]
    up = rng.random() < 0.5
    if node == city:
        table.see(city, 1, now_s - rng.choice((0, 0, 4000)), now_s * 1000, up=up)
        told = HealthEntry("", 1, None, load, about)
    else:
        told = HealthEntry(node, 1, Seen(now_s - rng.choice((0, 0, 4000)), up), load, about)
    table.fold(city, 1, Health(HealthPlace(1, upto), (told,)), now_s * 1000, lambda one: one != city)


@pytest.mark.parametrize("seed", range(3))
def test_it_says_what_the_view_says_whatever_happens(
    table: Table, picture: Picture, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Meetings, cuts, accusations, revocations, new nodes and time alone, in any order; and a browser that takes the
    changes one by one has what one has that takes all states."""
    rng = random.Random(seed)
    monkeypatch.setattr(picture_, "ALL_FROM", 20)
    now_s, nodes = NOW_S, people()
    table.name(list(nodes.values()), ME)
    table.say(ME, 1, Load(), About("0.2.0"), now_s * 1000)
    seq, tag, mine = 0, "", bytearray()
    found: set[str] = set()
    for upto in range(1, 251):
        what = rng.random()
        if what < 0.7:
            meet(table, nodes, rng.choice([one for one in nodes if one != ME]), now_s, rng, upto)
        elif what < 0.9:
            now_s += rng.choice((1, 60, 899, 1801, 4000))
        elif what < 0.95:
            table.accuse({rng.choice(list(nodes)): 1} if rng.random() < 0.7 else {})
        else:
            towns = rng.choice((2, 3, 4))
            nodes = people(towns=towns)
            gone = rng.choice(list(nodes))
            nodes[gone] = Who(**{**{k: getattr(nodes[gone], k) for k in Who.__dataclass_fields__}, "revoked": True})
            table.name(list(nodes.values()), ME)
        picture.look(now_s * 1000)
        expected = truth(table, now_s)
        assert shown(picture) == expected
        told = picture.since(seq) if tag == picture.layout.tag else None
        if told is None:
            mine = bytearray(picture.states()["states"].encode())
        for i, state in () if told is None else told["changes"]:
            mine[i] = 48 + state
        assert mine.decode() == picture.states()["states"]
        seq, tag = picture.seq, picture.layout.tag
        found |= set(expected.values())
    assert found == set(STATES)


def test_a_node_that_falls_silent_is_stale_to_the_second_without_a_word(table: Table, picture: Picture) -> None:
    nodes = people()
    table.name(list(nodes.values()), ME)
    table.see("1301", 1, NOW_S, NOW_S * 1000, up=False)
    picture.look(NOW_S * 1000)
    seq = picture.seq
    picture.look((NOW_S + 900) * 1000)
    assert (picture.seq, shown(picture)["1301"]) == (seq, "ok")
    picture.look((NOW_S + 901) * 1000)
    assert shown(picture)["1301"] == "stale"
    told = picture.since(seq)
    assert told is not None
    assert told["changes"] == [(picture.place("1301"), STATES.index("stale"))]


def test_groups_and_levels_count_what_is_below(table: Table, picture: Picture) -> None:
    nodes = people()
    table.name(list(nodes.values()), ME)
    table.say(ME, 1, Load(), About("0.2.0"), NOW_S * 1000)
    table.see("1301", 1, NOW_S, NOW_S * 1000, up=True)
    said = HealthEntry("", 1, None, load_bytes(Load()), about_bytes(About("0.2.0")))
    table.fold("1301", 1, Health(HealthPlace(1, 1), (said,)), NOW_S * 1000, lambda _: True)
    picture.look(NOW_S * 1000)
    top = picture.group(0)
    assert (top.id, top.nodes, sum(top.states.values()), top.itself) == (ME, len(nodes), len(nodes), "ok")
    assert [(one.id, one.nodes) for one in picture.children(0)] == [("1301", 9), ("1302", 9)]
    place = picture.place("130201001") or 0
    assert [layout(picture)["ids"][i] for i in picture.way(place)] == [ME, "1302", "130201"]
    levels = picture.by_level(0)
    assert list(levels) == list(LEVELS)
    assert {level: sum(states.values()) for level, states in levels.items()} == dict(
        zip(LEVELS, (1, 2, 4, 12), strict=True)
    )
    view = View(table.connection, ME, BOUNDS, NOW_S * 1000)
    assert levels == {one["level"]: one["states"] for one in view.counts("level", Filter())}


def test_the_layout_changes_with_the_tree_alone(table: Table, picture: Picture) -> None:
    nodes = people()
    table.name(list(nodes.values()), ME)
    picture.look(NOW_S * 1000)
    first = picture.layout
    meet(table, nodes, "1301", NOW_S, random.Random(1), 1)
    picture.look(NOW_S * 1000)
    assert picture.layout is first
    seq = picture.seq
    table.name(list(people(towns=4).values()), ME)
    picture.look(NOW_S * 1000)
    assert picture.layout.tag != first.tag
    assert picture.since(seq) is None


def test_what_is_too_far_back_or_of_another_process_is_not_told_one_by_one(
    table: Table, picture: Picture, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = people()
    table.name(list(nodes.values()), ME)
    table.say(ME, 1, Load(), About("0.2.0"), NOW_S * 1000)
    picture.look(NOW_S * 1000)
    seq = picture.seq
    assert picture.since(seq) is not None
    assert picture.since(seq + 1) is None
    assert picture.since(3) is None
    monkeypatch.setattr(picture_, "KEPT_MAX", 2)
    for n, name in enumerate(("1301", "1302", "1301")):
        table.accuse({name: n + 1})
        picture.look(NOW_S * 1000 + n)
    assert picture.since(seq) is None
    assert picture.since(picture.seq) == {**picture._head(), "changes": []}


def test_a_file_that_is_made_anew_is_read_anew_and_one_that_is_not_there_is_said(
    table: Table, picture: Picture
) -> None:
    table.name(list(people().values()), ME)
    picture.look(NOW_S * 1000)
    for end in ("", "-wal", "-shm"):
        table.path.with_name(table.path.name + end).unlink(missing_ok=True)
    with pytest.raises(StoreError):
        picture.look(NOW_S * 1000)
    other = Table.open(table.path, b"\x01\0\0\0", BOUNDS)
    other.name(list(people(cities=1).values()), ME)
    picture.look(NOW_S * 1000)
    assert len(shown(picture)) == 10
    other.close()
