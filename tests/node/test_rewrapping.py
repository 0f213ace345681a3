"""Readers that come later: what the nearest reader gives them, what they take, and what of it is kept and forgotten."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fednode.node import fence, rewrapping
from fednode.node.audit import verify_store
from fednode.node.link import Link
from fednode.node.projection import Projector
from fednode.node.room import MIB, Room
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync import rewrap
from fednode.sync import segment as seg
from fednode.sync.change import NODES, UPSERT, Change, Columns, LogName
from fednode.sync.effects import Commit, Done, Item
from fednode.sync.errors import StoreError
from fednode.sync.identity import Directory, node_payload, revocation_payload
from fednode.sync.side import PULL_BYTES
from fednode.sync.strip import erase_change
from rekeyed import identity, knowing, rekeyed
from world import NOW_S, Place, Stream, World, seed, shop

VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"
WORLD = World()
LOST = rekeyed(WORLD, COUNTY)  # the county, with new keys
OLD = WORLD.places[COUNTY]
HLC = (NOW_S * 1000) << 16


class Node:
    """A node with a real store. `directory`: whom it knows; the world as it was, else."""

    def __init__(self, node: str, folder: Path, place: Place | None = None, directory: Directory | None = None) -> None:
        folder.mkdir(exist_ok=True)
        self.id, self.place = node, place or WORLD.places[node]
        self.path = folder / "log.db"
        self.store = Store.create(self.path, store_id=seed(folder.name)[:16], stash_key=seed("stash", folder.name))
        self.trust = Trust(self.place.chain, node)
        self.trust.directory, self.trust.catalog = directory or WORLD.directory(), WORLD.catalog
        keys: Any = self.place.keys
        self.writer = Writer(self.store, self.trust, keys, lambda: NOW_S * 1000, Stream(folder.name))
        self.given: list[tuple[str, int]] = []
        self.writer.rewrapping.on_given = lambda _tx, to, segments: self.given.append((to, segments))
        self._lsn = 0

    def link(self, peer: str, *, restoring: bool = False) -> Link:
        with self.store.write() as tx:
            row = tx.ensure_peer(peer, "x")
        from_parent = self.trust.directory.parent_of(self.id) == peer
        link = Link(identity(self.trust.directory, peer), row.id, bytes(16), from_parent, row.have.lsn)
        link.position, link.restoring = row.have.lsn, restoring
        return link

    def take(self, peer: str, *raws: bytes, restoring: bool = False) -> list[Done]:
        """What the writer says of what a peer sends, with the cosignature of the first parent where it is needed."""
        link, commits = self.link(peer, restoring=restoring), []
        for raw in raws:
            self._lsn += 1
            witness = None
            if not rewrap.is_rewrap(raw):
                log = seg.parse(raw).header.log
                witness = WORLD.directory().parent_of(log.origin)
                if not restoring and (witness == self.id or log.origin == self.id):
                    witness = None
            commits.append(Commit(self._lsn, raw, WORLD.cosignature(witness, raw) if witness else None))
        return [done for _, done in self.writer.incoming([(link, commit) for commit in commits])]

    def feed(self, child: str = "", after: int = 0, size: int = PULL_BYTES) -> list[Item]:
        """All that goes to a child (that takes its history back), or up."""
        if not child:
            return self.store.feed_up(after, size)[0]
        logs = [number for number, name, _ in self.store.logs() if not name.is_open]
        return self.store.feed_down(identity(self.trust.directory, child).scope, after, size, also=logs)[0]

    def rewraps(self, child: str = "") -> list[bytes]:
        return [one.data for one in self.feed(child) if rewrap.is_rewrap(one.data)]

    def segments(self, child: str = "") -> list[bytes]:
        return [one.data for one in self.feed(child) if one.data and not rewrap.is_rewrap(one.data)]

    def columns(self, log: LogName, first: int = 0) -> Columns | None:
        log_id = self.store.log_id(log)
        held = self.store.segment_at(log_id, first) if log_id is not None else None
        assert held is not None
        return self.store.columns(held)

    def enrol(self, place: Place) -> None:
        """Certify another life of a node below, as its parent does."""
        self.writer.local(NODES, self.trust.area, [enrolment(place)])

    def records(self) -> dict[str, str]:
        projector = Projector(self.path.with_name("state.db"), self.store, self.trust)
        projector.catch_up()
        rows = """select key, payload from record r join dataset d on d.id = r.dataset
            where r.op = 1 and d.name = 'shop'"""
        found = dict(projector.connection.execute(rows))
        projector.close()
        return found

    def problems(self) -> list[str]:
        return [problem.code for problem in verify_store(self.store, self.trust).problems]


def village_log(count: int = 3, per: int = 2) -> list[bytes]:
    """The village's log, in segments that the county of old could read."""
    made, state, raws = None, None, []
    for i in range(count):
        changes = [shop(f"k{i}-{j}", VILLAGE) for j in range(per)]
        made = WORLD.segment(VILLAGE, changes, state=state, hlc=HLC - 10_000 + i * 100)
        state = made.after
        raws.append(made.raw)
    return raws


LOG = WORLD.log(VILLAGE)
HISTORY = village_log()  # wraps are drawn anew every time: these are the bytes


def everything(items: Sequence[Item]) -> list[bytes]:
    return [one.data for one in items if one.data]


def refusals(reports: Sequence[Done]) -> set[str]:
    return {done.refused for done in reports}


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[list[Node]]:
    made: list[Node] = []
    yield made
    for one in made:
        one.store.close()


@pytest.fixture
def city(tmp_path: Path, nodes: list[Node]) -> Node:
    """It carries what the village wrote, and cannot read it."""
    nodes.append(Node(CITY, tmp_path / "city"))
    return nodes[-1]


@pytest.fixture
def province(tmp_path: Path, nodes: list[Node]) -> Node:
    """It reads what the village wrote."""
    node = Node(PROVINCE, tmp_path / "province")
    nodes.append(node)
    assert [done.refused for done in node.take(CITY, *HISTORY)] == ["", "", ""]
    return node


@pytest.fixture
def county(tmp_path: Path, nodes: list[Node]) -> Node:
    """It lost its keys, and everything else."""
    nodes.append(Node(COUNTY, tmp_path / "county", LOST, knowing(WORLD, LOST)))
    return nodes[-1]


def through(city: Node, province: Node, county: Node) -> None:
    """What the province holds goes to the county by way of the city, which carries it."""
    assert refusals(city.take(COUNTY, *HISTORY)) == {""}
    assert refusals(city.take(PROVINCE, *province.rewraps(CITY))) == {""}
    assert refusals(county.take(CITY, *everything(city.feed(COUNTY)), restoring=True)) == {""}


def test_a_node_with_new_keys_reads_its_history_through_a_carrier(city: Node, province: Node, county: Node) -> None:
    province.take(CITY, nodes_log())
    city.trust.directory = knowing(WORLD, LOST)
    assert province.given == [(COUNTY, 3)]
    before = [one.data for one in province.feed() if one.data]
    through(city, province, county)
    assert [columns and columns.keys for columns in (county.columns(LOG, first) for first in (0, 2, 4))] == [
        [b"k0-0", b"k0-1"],
        [b"k1-0", b"k1-1"],
        [b"k2-0", b"k2-1"],
    ]
    assert city.columns(LOG) is None, "the carrier reads nothing"
    assert before == [one.data for one in province.feed() if one.data], "the segments' bytes are what they were"
    assert sorted(county.records()) == [f"k{i}-{j}" for i in range(3) for j in range(2)]
    assert county.problems() == city.problems() == province.problems() == []
    assert county.store.log_state(LOG).frontier is not None, "the log is whole: its next root is checked here"


def nodes_log() -> bytes:
    """The city's word that the county has other keys."""
    return WORLD.segment(CITY, [enrolment(LOST)], dataset=NODES).raw


def test_the_projection_finds_what_became_readable_after_it_had_passed(province: Node, county: Node) -> None:
    province.take(CITY, nodes_log())
    county.take(CITY, *province.segments(COUNTY), restoring=True)
    assert county.records() == {}
    county.take(CITY, *province.rewraps(COUNTY), restoring=True)
    found = county.records()
    assert len(found) == 6
    projector = Projector(county.path.with_name("state.db"), county.store, county.trust)
    projector.rebuild()
    projector.close()
    assert county.records() == found


def test_a_key_that_comes_before_its_segment_waits_for_it(province: Node, county: Node) -> None:
    province.take(CITY, nodes_log())
    county.take(CITY, *province.rewraps(COUNTY), restoring=True)
    county.take(CITY, *province.segments(COUNTY), restoring=True)
    assert len(county.records()) == 6
    assert county.store.log_state(LOG).frontier is not None
    assert county.problems() == []


@pytest.mark.parametrize("order", [(2, 1, 0), (1, 2, 0), (0, 2, 1)])
def test_in_any_order_the_log_becomes_whole(province: Node, county: Node, order: Sequence[int]) -> None:
    province.take(CITY, nodes_log())
    county.take(CITY, *province.segments(COUNTY), restoring=True)
    raws = province.rewraps(COUNTY)
    for i in order:
        assert county.store.log_state(LOG).frontier is None
        county.take(CITY, raws[i], restoring=True)
    assert county.store.log_state(LOG).frontier is not None
    assert county.problems() == []
    more = WORLD.segment(
        VILLAGE, [shop("new", VILLAGE)], state=province.store.log_state(LOG), hlc=HLC, readers=(PROVINCE,)
    )
    (done,) = county.take(TOWNSHIP, more.raw)
    assert done.refused == ""
    assert county.store.log_state(LOG).frontier is None, "it cannot read this one"


def test_a_replayed_one_changes_nothing(province: Node, county: Node) -> None:
    province.take(CITY, nodes_log())
    feed = [*province.segments(COUNTY), *province.rewraps(COUNTY)]
    county.take(CITY, *feed, restoring=True)
    lsn = county.store.lsn
    assert refusals(county.take(CITY, *feed, restoring=True)) == {""}
    assert county.store.lsn == lsn
    assert province.writer.rewrapping.step() is False
    assert len(province.rewraps(COUNTY)) == 3


def test_what_arrives_without_the_new_key_is_given_it_at_once(province: Node, county: Node) -> None:
    """Its origin has not heard of the new key yet."""
    province.take(CITY, nodes_log())
    state = province.store.log_state(LOG)
    late = WORLD.segment(VILLAGE, [shop("late", VILLAGE)], state=state, hlc=HLC)
    province.take(CITY, late.raw)
    assert province.given == [(COUNTY, 3), (COUNTY, 1)]
    county.take(CITY, *(one.data for one in province.feed(COUNTY)), restoring=True)
    assert "late" in county.records()


@pytest.mark.parametrize("order", [(COUNTY, PROVINCE), (PROVINCE, COUNTY)])
def test_who_took_another_s_place_lacks_what_the_next_one_gives(
    tmp_path: Path, nodes: list[Node], order: Sequence[str]
) -> None:
    """Simulator (promoting, seed 2): a city and the province were succeeded, and what a village had sealed to those
    before them neither could read. Each was to be given it by the other; the county, which reads it, gave nothing."""
    township = Node(TOWNSHIP, tmp_path / "township")
    nodes.append(township)
    assert refusals(township.take(VILLAGE, *HISTORY)) == {""}
    said = {
        COUNTY: WORLD.segment(CITY, [enrolment(LOST)], dataset=NODES).raw,
        PROVINCE: WORLD.segment(PROVINCE, [enrolment(rekeyed(WORLD, PROVINCE))], dataset=NODES).raw,
    }
    assert refusals(township.take(COUNTY, said[order[0]])) == {""}
    assert township.given == [], "the other one reads it still, and is nearer"
    assert refusals(township.take(COUNTY, said[order[1]])) == {""}
    assert sorted(township.given) == [(PROVINCE, 3), (COUNTY, 3)]
    assert len(township.rewraps()) == 6


def test_what_was_given_to_a_key_that_was_replaced_since_goes_nowhere(city: Node, province: Node) -> None:
    """A county changes places with its standby, and back: the standby's key, for which it was given, is gone."""
    province.take(CITY, nodes_log())
    assert refusals(city.take(COUNTY, *HISTORY)) == {""}
    city.trust.directory = knowing(WORLD, LOST)
    assert refusals(city.take(PROVINCE, *province.rewraps(CITY))) == {""}
    assert (len(province.rewraps(CITY)), len(city.rewraps(COUNTY))) == (3, 3)
    for node in (city, province):
        node.trust.directory = knowing(WORLD, LOST)
        node.enrol(OLD)
    assert (len(province.rewraps(CITY)), len(city.rewraps(COUNTY))) == (3, 3), "the word of an earlier life, late"
    back = rekeyed(WORLD, COUNTY, life=3)
    for node in (city, province):
        node.enrol(back)
    assert city.rewraps(COUNTY) == []
    assert {rewrap.parse(raw).key_id for raw in province.rewraps(CITY)} == {rewrapping.key_id(back.identity)}


def enrolment(place: Place) -> Change:
    payload = msgspec.json.encode(node_payload(place.chain[0]), order="sorted")
    return Change(place.identity.node.encode(), payload, UPSERT)


def test_nothing_is_made_for_who_has_the_key_already(province: Node) -> None:
    assert province.rewraps(CITY) == []
    assert province.given == []
    renewed = WORLD.certificate(COUNTY, level="county", parent=CITY, scope=(COUNTY,), now_s=NOW_S + 50)
    payload = msgspec.json.encode(node_payload(renewed), order="sorted")
    province.take(CITY, WORLD.segment(CITY, [Change(COUNTY.encode(), payload, UPSERT)], dataset=NODES).raw)
    assert province.rewraps(CITY) == []


def test_a_level_that_may_not_read_is_given_nothing(province: Node) -> None:
    lost = rekeyed(WORLD, CITY)
    province.enrol(lost)
    assert identity(province.trust.directory, CITY).incarnation == 2
    assert province.rewraps(CITY) == []
    assert province.given == []


def test_a_catalog_that_lets_more_levels_read_opens_nothing_that_was_written_before(province: Node) -> None:
    import dataclasses

    before = WORLD.catalog.datasets["shop"]
    opened = msgspec.structs.replace(before, readers=(*before.readers, "city"))
    province.trust._readers_then[1] = {"shop": before.readers}
    province.trust.catalog = dataclasses.replace(WORLD.catalog, version=2, datasets={"shop": opened})
    province.enrol(rekeyed(WORLD, CITY))
    assert province.rewraps(CITY) == []
    state = province.store.log_state(LOG)
    late = WORLD.segment(VILLAGE, [shop("late", VILLAGE)], state=state, hlc=HLC)
    province.take(CITY, late.raw)
    assert province.rewraps(CITY) == [], "written under version 1 as well"


def test_who_is_below_gives_where_nobody_above_reads(tmp_path: Path, nodes: list[Node]) -> None:
    """The county gives the province what it lacks: it goes up."""
    lost = rekeyed(WORLD, PROVINCE)
    county = Node(COUNTY, tmp_path / "below")
    nodes.append(county)
    county.take(TOWNSHIP, *HISTORY)
    assert county.rewraps() == []
    root = msgspec.json.encode(node_payload(lost.chain[0]), order="sorted")
    county.take(CITY, WORLD.segment(PROVINCE, [Change(b"13", root, UPSERT)], dataset=NODES).raw)
    assert county.given == [(PROVINCE, 3)]
    assert len(county.rewraps()) == 3
    assert county.rewraps(VILLAGE) == []


def test_the_way_is_walked_in_steps(province: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rewrapping, "STEP_SEGMENTS", 2)
    province.take(CITY, nodes_log())
    assert (len(province.rewraps(CITY)), province.given) == (2, [])
    assert province.writer.rewrapping.step() is False
    assert (len(province.rewraps(CITY)), province.given) == (3, [(COUNTY, 3)])


def test_trouble_with_what_is_due_does_not_undo_what_was_written(
    province: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full() -> bool:
        raise StoreError("FN-7605", path="x", reason="full")

    monkeypatch.setattr(province.writer.rewrapping, "step", full)
    assert province.writer.local("shop", VILLAGE, [shop("p", VILLAGE)])
    assert refusals(province.take(CITY, nodes_log())) == {""}
    monkeypatch.undo()
    province.writer.rewrapping.step()
    assert province.given == [(COUNTY, 4)], "its own, which the old key can open, among them"


def test_a_feed_is_cut_where_it_must_be(province: Node) -> None:
    province.take(CITY, nodes_log())
    whole = province.feed(COUNTY)
    found, after, drained = list[Item](), 0, False
    scope = identity(province.trust.directory, COUNTY).scope
    logs = [number for number, name, _ in province.store.logs() if not name.is_open]
    while not drained:
        items, drained = province.store.feed_down(scope, after, 1, also=logs)
        found += items
        after = items[-1].lsn if items else after
    assert found == whole
    assert [one.lsn for one in found] == sorted(one.lsn for one in found)


# ---------------------------------------------------------------- what is not taken


def given_by(by: str, to: Place, raw: bytes, content_key: bytes, signer: str = "") -> bytes:
    envelope = seg.parse(raw)
    sign = WORLD.places[signer or by].keys.sign.sign
    return rewrap.give(envelope, hashlib.sha256(raw).digest(), content_key, to.identity, WORLD.identity(by), sign)


@pytest.fixture
def own() -> tuple[bytes, bytes]:
    made = WORLD.segment(VILLAGE, [shop("k0-0", VILLAGE), shop("k0-1", VILLAGE)], hlc=HLC - 10_000)
    return made.raw, made.content_key


def evidence(node: Node) -> list[tuple[str, str]]:
    return [(row["code"], row["log"]) for row in node.store.refused()]


def test_a_forged_one_is_refused_kept_as_evidence_and_harms_nothing(county: Node, own: tuple[bytes, bytes]) -> None:
    raw, key = own
    county.take(CITY, raw, restoring=True)
    for made, code in (
        (given_by(PROVINCE, LOST, raw, key, signer=CITY), "FN-6406"),
        (given_by(CITY, LOST, raw, key), "FN-5440"),
        (given_by(PROVINCE, WORLD.places["130104"], raw, key), "FN-5441"),
        (given_by(PROVINCE, OLD, raw, key), "FN-5443"),
        (given_by(PROVINCE, LOST, raw, bytes(32)), "FN-6404"),
        (b"\x01\x01nonsense" + bytes(100), "FN-6402"),
    ):
        (done,) = county.take(CITY, made, restoring=True)
        assert done.refused == code
    assert county.columns(LOG) is None
    assert {log for _, log in evidence(county)} == {f"{LOG}#rewrap", "#rewrap"}
    assert not county.store.refusals(str(LOG), 9), "the log itself is not under suspicion"
    (done,) = county.take(CITY, given_by(PROVINCE, LOST, raw, key), restoring=True)
    assert done.refused == ""
    assert county.columns(LOG) is not None


def test_one_of_another_segment_is_not_kept(county: Node, own: tuple[bytes, bytes]) -> None:
    raw, _ = own
    county.take(CITY, raw, restoring=True)
    other = WORLD.segment(VILLAGE, [shop("x", VILLAGE)], hlc=HLC)
    lsn = county.store.lsn
    (done,) = county.take(CITY, given_by(PROVINCE, LOST, other.raw, other.content_key), restoring=True)
    assert (done.refused, county.store.lsn) == ("", lsn)
    assert county.columns(LOG) is None


def test_a_waiting_one_of_another_segment_opens_nothing(county: Node, own: tuple[bytes, bytes]) -> None:
    raw, key = own
    other = WORLD.segment(VILLAGE, [shop("x", VILLAGE)], hlc=HLC)
    county.take(CITY, given_by(PROVINCE, LOST, other.raw, other.content_key), restoring=True)
    (done,) = county.take(CITY, raw, restoring=True)
    assert done.refused == ""
    assert county.columns(LOG) is None
    county.take(CITY, given_by(PROVINCE, LOST, raw, key), restoring=True)
    assert county.columns(LOG) is not None


def test_a_waiting_one_of_a_giver_that_was_revoked_since_opens_nothing(county: Node, own: tuple[bytes, bytes]) -> None:
    raw, key = own
    county.take(CITY, given_by(TOWNSHIP, LOST, raw, key), restoring=True)
    assert len(county.store.rows("select 1 from rewrap")) == 1
    county.trust.directory.apply(PROVINCE, revocation_payload(TOWNSHIP, 1, NOW_S * 1000 + 5_000, "stolen"))
    assert refusals(county.take(CITY, raw, restoring=True)) == {""}
    assert county.columns(LOG) is None


STANDBY = "130102-s1"
BESIDE = Place(
    WORLD.keys(STANDBY),
    (
        WORLD.certificate(STANDBY, level="county", parent=COUNTY, scope=(COUNTY,), standby=True),
        *WORLD.places[COUNTY].chain,
    ),
)


@pytest.fixture
def primary(tmp_path: Path, nodes: list[Node]) -> Node:
    """The county, which reads what the village wrote, and has a standby since."""
    node = Node(COUNTY, tmp_path / "primary")
    nodes.append(node)
    assert refusals(node.take(TOWNSHIP, *HISTORY)) == {""}
    node.enrol(BESIDE)
    return node


def test_regression_keys_for_a_standby_go_to_no_child_that_has_all_of_its_area(primary: Node) -> None:
    """A hundred children with the scope of their parent were sent each key that was for its standby, refused it as one
    that came from the wrong side (FN-5442), and kept it as evidence; their parent kept that they had refused."""
    assert primary.given == [(STANDBY, 3)]
    to_the_standby = [one.data for one in primary.store.feed_all(STANDBY, 0, PULL_BYTES)[0]]
    assert len([raw for raw in to_the_standby if rewrap.is_rewrap(raw)]) == 3
    to_a_child = [one.data for one in primary.store.feed_down((COUNTY,), 0, PULL_BYTES)[0]]
    assert [raw for raw in to_a_child if rewrap.is_rewrap(raw)] == []
    assert COUNTY not in primary.store.grown_down(0)


def test_a_key_for_a_standby_is_taken_from_either_side_but_not_from_itself(primary: Node) -> None:
    made = WORLD.segment(VILLAGE, [shop("x", VILLAGE)], hlc=HLC)
    theirs = given_by(PROVINCE, BESIDE, made.raw, made.content_key)
    assert refusals(primary.take(STANDBY, theirs)) == {"FN-5442"}
    assert refusals(primary.take(CITY, theirs)) == {""}
    assert refusals(primary.take(TOWNSHIP, given_by(TOWNSHIP, BESIDE, made.raw, made.content_key))) == {""}


def test_one_that_comes_from_the_side_of_its_reader_is_refused(city: Node, own: tuple[bytes, bytes]) -> None:
    raw, key = own
    city.trust.directory = knowing(WORLD, LOST)
    assert [done.refused for done in city.take(COUNTY, given_by(PROVINCE, LOST, raw, key))] == ["FN-5442"]
    assert [done.refused for done in city.take(PROVINCE, given_by(PROVINCE, LOST, raw, key))] == [""]


def test_contents_that_the_origin_might_not_write_are_refused_at_the_opening(county: Node) -> None:
    made = WORLD.segment(VILLAGE, [shop("a", "130104")], hlc=HLC - 10_000)
    county.take(CITY, made.raw, restoring=True)
    (done,) = county.take(CITY, given_by(PROVINCE, LOST, made.raw, made.content_key), restoring=True)
    assert done.refused == "FN-5415"
    assert county.columns(LOG) is None
    assert county.records() == {}


def test_other_contents_than_the_root_says_are_refused_at_the_opening(county: Node, own: tuple[bytes, bytes]) -> None:
    """Sealed again by a relay in its own name, with a change that the origin never made."""
    from chain import resealed

    raw, _ = own
    envelope = seg.parse(raw)
    columns = WORLD.segment(VILLAGE, [shop("evil", VILLAGE), shop("k0-1", VILLAGE)], hlc=HLC - 10_000).columns
    forged, key = resealed(envelope, columns, by=TOWNSHIP)
    (done,) = county.take(TOWNSHIP, forged)
    assert done.refused == "", "a carrier cannot know"
    (done,) = county.take(CITY, given_by(PROVINCE, LOST, forged, key), restoring=True)
    assert done.refused == "FN-6411"
    assert county.columns(LOG) is None


# ---------------------------------------------------------------- erasing: county and township, both read


LOST_TOWNSHIP = rekeyed(WORLD, TOWNSHIP)
LEFT = ["k0-1", "k1-0", "k1-1", "k2-0", "k2-1"]


@pytest.fixture
def above(tmp_path: Path, nodes: list[Node]) -> Node:
    """The county, which has certified the township's new keys."""
    nodes.append(Node(COUNTY, tmp_path / "above"))
    nodes[-1].take(TOWNSHIP, *HISTORY)
    nodes[-1].enrol(LOST_TOWNSHIP)
    assert nodes[-1].given == [(TOWNSHIP, 3)]
    return nodes[-1]


@pytest.fixture
def below(tmp_path: Path, nodes: list[Node]) -> Node:
    """The township, with new keys and an empty store."""
    nodes.append(Node(TOWNSHIP, tmp_path / "below", LOST_TOWNSHIP, knowing(WORLD, LOST_TOWNSHIP)))
    return nodes[-1]


def erase(node: Node, *seqs: int) -> None:
    node.writer.local("shop", VILLAGE, [erase_change(LOG, seq, "r") for seq in seqs])


def test_an_erase_takes_the_rewraps_of_the_old_bytes_with_it(above: Node, below: Node) -> None:
    old_segments, old = above.segments(TOWNSHIP), above.rewraps(TOWNSHIP)
    erase(above, 0)
    new = above.rewraps(TOWNSHIP)
    assert len([one for one in new if rewrap.parse(one).log == LOG]) == 3
    assert old[0] not in new
    rows = above.store.rows("select data from rewrap where log = ?", str(LOG))
    assert old[0] not in [data for (data,) in rows]
    assert refusals(below.take(COUNTY, *everything(above.feed(TOWNSHIP)), restoring=True)) == {""}
    assert sorted(below.records()) == LEFT
    assert below.problems() == []
    below.take(COUNTY, *old_segments, *old, restoring=True)
    assert sorted(below.records()) == LEFT
    assert below.problems() == []


def test_what_was_opened_and_then_erased_is_gone_and_the_rest_is_shown(above: Node, below: Node) -> None:
    """The projection has not come by yet when the segment is stripped."""
    below.take(COUNTY, *above.segments(TOWNSHIP), restoring=True)
    assert below.records() == {}
    below.take(COUNTY, *above.rewraps(TOWNSHIP), restoring=True)
    after = above.store.lsn
    erase(above, 0)
    below.take(COUNTY, *everything(above.feed(TOWNSHIP, after)), restoring=True)
    assert sorted(below.records()) == LEFT
    assert below.problems() == []


def test_an_erase_that_was_known_before_strips_at_the_opening(above: Node, below: Node) -> None:
    segments, rewraps = above.segments(TOWNSHIP), above.rewraps(TOWNSHIP)
    below.take(COUNTY, *segments, restoring=True)
    erasing = WORLD.segment(COUNTY, [erase_change(LOG, 0, "r")], audience=VILLAGE, hlc=HLC + 1)
    below.take(COUNTY, erasing.raw)
    below.take(COUNTY, given_by(COUNTY, LOST_TOWNSHIP, erasing.raw, erasing.content_key))
    assert refusals(below.take(COUNTY, *rewraps, restoring=True)) == {""}
    columns = below.columns(LOG)
    assert columns is not None
    assert sorted(columns.leaves) == [0]
    assert sorted(below.records()) == LEFT
    assert below.problems() == []


def test_behind_the_fence_nothing_is_given(tmp_path: Path, nodes: list[Node]) -> None:
    node = Node(COUNTY, tmp_path / "fenced")
    nodes.append(node)
    node.take(TOWNSHIP, *HISTORY)
    payload = msgspec.json.encode(node_payload(rekeyed(WORLD, PROVINCE).chain[0]), order="sorted")
    with node.store.write() as tx:
        fence.put_up(tx, node.trust.me, "FN-6422", NOW_S * 1000)
    node.take(CITY, WORLD.segment(PROVINCE, [Change(b"13", payload, UPSERT)], dataset=NODES).raw)
    assert (node.given, node.rewraps()) == ([], [])
    with node.store.write() as tx:
        fence.lift(tx)
    while node.writer.rewrapping.step():
        pass
    assert (node.given, len(node.rewraps())) == ([(PROVINCE, 3)], 3)


def test_with_little_room_on_the_disk_nothing_is_given(tmp_path: Path, nodes: list[Node]) -> None:
    node = Node(COUNTY, tmp_path / "full")
    nodes.append(node)
    node.take(TOWNSHIP, *HISTORY)
    free = 8 * MIB
    node.store.room = Room(tmp_path, MIB, free=lambda _: free)
    step, node.writer.rewrapping.step = node.writer.rewrapping.step, lambda: False  # type: ignore[method-assign]
    payload = msgspec.json.encode(node_payload(rekeyed(WORLD, PROVINCE).chain[0]), order="sorted")
    node.take(CITY, WORLD.segment(PROVINCE, [Change(b"13", payload, UPSERT)], dataset=NODES).raw)
    free = MIB // 2
    assert (step(), node.given, node.rewraps()) == (False, [], [])
    free = 8 * MIB
    while step():
        pass
    assert (node.given, len(node.rewraps())) == ([(PROVINCE, 3)], 3)
