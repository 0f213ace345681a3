"""Merge: any order and any duplication of the same changes give one winner and one list of conflicts.

Once as values, and once through the real projection on SQLite, with segments that arrive in different orders and
cosignatures that come late."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto.merkle import Frontier
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync import merge
from fednode.sync.catalog import Catalog
from fednode.sync.change import DELETE, UPSERT, Change
from fednode.sync.clock import bound, effective
from fednode.sync.feed import Route
from fednode.sync.log import LogState, OwnSegment
from fednode.sync.merge import Version
from fednode.sync.verify import verify
from fednode.sync.wire import Cosignature
from world import CATALOG_TOML, NOW_S, World, seed, shop

VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"
HLC = (NOW_S * 1000) << 16


# ---------------------------------------------------------------- as values


@st.composite
def some_versions(draw: st.DrawFn) -> list[Version]:
    """Versions of one record; stamps, effective stamps and bases often meet."""
    places = draw(
        st.lists(st.tuples(st.sampled_from("xyz"), st.integers(1, 2), st.integers(0, 3)), unique=True, min_size=1)
    )
    small = st.integers(0, 5)
    ranks = {"x": 0, "y": 2, "z": 4}
    return [
        Version(draw(small), draw(small), origin, life, seq, ranks[origin], draw(st.sampled_from((1, 2))), draw(small))
        for origin, life, seq in places
    ]


@settings(max_examples=300, derandomize=True, deadline=None)
@given(some_versions(), st.sampled_from(merge.RULES), st.randoms(use_true_random=False))
def test_any_order_and_duplication_is_one_result(versions: list[Version], rule: str, random: Any) -> None:
    winner, conflicts = merge.resolve(rule, versions)
    again = versions + random.choices(versions, k=3)
    random.shuffle(again)
    assert merge.resolve(rule, again) == (winner, conflicts)
    assert winner in versions
    assert winner not in conflicts
    assert merge.order(rule, winner) == max(merge.order(rule, one) for one in versions)
    assert len(conflicts) == len(set(conflicts))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(some_versions(), st.sampled_from(merge.RULES))
def test_a_chain_of_versions_that_saw_one_another_has_no_conflicts(versions: list[Version], rule: str) -> None:
    ordered = sorted(versions, key=lambda one: merge.order(rule, one))
    seen = [replace(upper, base=lower.hlc) for lower, upper in itertools.pairwise(ordered)]
    assert merge.resolve(rule, [ordered[0], *seen])[1] == []


def test_the_order_of_the_rules() -> None:
    village = Version(10, 10, "v", 1, 0, 0, UPSERT, 0)
    county = Version(5, 5, "c", 1, 0, 2, UPSERT, 0)
    assert merge.resolve("latest", [village, county])[0] == village
    assert merge.resolve("authority", [village, county])[0] == county
    assert merge.resolve("field", [village, county])[0] == village
    assert merge.resolve("latest", [village, county])[1] == [county]
    assert merge.resolve("latest", [replace(village, base=5), county])[1] == []


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ({"effective": 4, "hlc": 9}, {"effective": 5, "hlc": 6}),  # the effective stamp first
        ({"hlc": 6}, {"hlc": 7}),
        ({"origin": "a"}, {"origin": "b"}),
        ({"incarnation": 1}, {"incarnation": 2}),
        ({"seq": 1}, {"seq": 2}),
        ({"audience": ""}, {"audience": "13"}),
    ],
)
def test_every_tie_is_broken(lower: dict[str, Any], higher: dict[str, Any]) -> None:
    """Never by `place`, which is another number at each node."""
    plain = Version(5, 5, "o", 1, 0, 0, UPSERT, 0)
    low, high = replace(plain, **{"place": 9, **lower}), replace(plain, **{"place": 3, **higher})
    for versions in ([low, high], [high, low]):
        assert merge.resolve("latest", versions) == (high, [low])


def test_overlay() -> None:
    assert merge.overlay([]) == {}
    assert merge.overlay([(UPSERT, {"a": 1, "b": 2}), (UPSERT, {"b": None, "c": 3})]) == {"a": 1, "c": 3}
    assert merge.overlay([(UPSERT, {"a": 1}), (DELETE, {}), (UPSERT, {"b": 2})]) == {"b": 2}
    assert merge.overlay([(UPSERT, {"a": 1}), (DELETE, {})]) == {}
    assert merge.overlay([(UPSERT, {"a": None})]) == {}


# ---------------------------------------------------------------- through the projection

WORLD = World()
MEMORY = Path("/dev/shm")  # what is tested here is not whether it survives


@dataclass(frozen=True)
class Arriving:
    """A segment, how it is looked at, and the first parent's time: with it, or after it (`late`)."""

    own: OwnSegment
    peer: str
    time_s: int | None
    late: bool


def catalog(rule: str) -> Catalog:
    (dataset,) = CATALOG_TOML["dataset"]  # type: ignore[misc]
    return Catalog.from_toml_dict({**CATALOG_TOML, "dataset": [{**dataset, "merge": rule}]})  # type: ignore[dict-item]


class Node:
    """The township: log.db and state.db as the daemon has them."""

    def __init__(self, folder: Path, rule: str) -> None:
        self.store = Store.create(folder / "log.db", store_id=bytes(16), stash_key=seed("stash"))
        self.trust = Trust(WORLD.places[TOWNSHIP].chain, TOWNSHIP)
        self.trust.directory, self.trust.catalog = WORLD.directory(), catalog(rule)
        self.projector = Projector(folder / "state.db", self.store, self.trust)

    def take(self, one: Arriving) -> int:
        """Verify and store, as the writer does."""
        context = WORLD.context(TOWNSHIP, one.peer, from_parent=one.peer == COUNTY)
        verified = verify(one.own.raw, self.store.log_state, context, None)
        given_ = None if one.time_s is None or one.late else Cosignature(one.time_s, bytes(64))
        with self.store.write() as tx:
            return tx.append_verified(verified, Route(True, ""), tx.ensure_peer(one.peer, "x").id, 1, given_)

    def cosigned(self, lsn: int, time_s: int) -> None:
        with self.store.write() as tx:
            tx.set_first_parent(lsn, Cosignature(time_s, bytes(64)))

    def state(self) -> tuple[Any, Any]:
        """Records, and what was superseded, by names that are the same at every node."""
        names = {log_id: str(name) for log_id, name, _ in self.store.logs()}
        c = self.projector.connection
        records = c.execute(
            "select key, op, effective, hlc, base, log, seq, schema_version, payload from record order by key"
        ).fetchall()
        older = c.execute("select key, op, effective, hlc, base, log, seq, conflict from superseded").fetchall()
        return (
            [(*row[:5], names[row[5]], *row[6:]) for row in records],
            sorted((*row[:5], names[row[5]], *row[6:]) for row in older),
        )

    def close(self) -> None:
        self.projector.close()
        self.store.close()


def play(rule: str, order: Sequence[Arriving], step_after: set[int], late_at_once: bool) -> tuple[Any, Any, Any]:
    """What the township has in the end; projected after the steps named, and once more from nothing."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        node = Node(Path(folder), rule)
        waiting: list[tuple[int, int]] = []
        for i, one in enumerate(order):
            lsn = node.take(one)
            if one.late and one.time_s is not None:
                waiting.append((lsn, one.time_s))
            if i in step_after:
                node.projector.catch_up()
            if late_at_once:
                while waiting:
                    node.cosigned(*waiting.pop(0))
        for lsn, time_s in waiting:
            node.cosigned(lsn, time_s)
        node.projector.catch_up()
        done = node.state()
        node.projector.rebuild()
        rebuilt = node.state()
        node.close()
    return (*done, rebuilt)


LOGS = ((VILLAGE, "", VILLAGE), (COUNTY, VILLAGE, COUNTY), (PROVINCE, VILLAGE, COUNTY))


@st.composite
def some_logs(draw: st.DrawFn) -> list[list[Arriving]]:
    """Up to three writers of the same two records, each with a few segments in the order of its log."""
    stamps = [0]
    logs = []
    for node, audience, peer in LOGS:
        state, hlc = LogState(WORLD.log(node, "shop", audience), Frontier.EMPTY), HLC
        arriving = []
        for _ in range(draw(st.integers(0, 3))):
            hlc += draw(st.integers(1, 3)) << 26  # a second or so: cosignatures fall between
            changes = []
            for i in range(draw(st.integers(1, 3))):
                key, base = draw(st.sampled_from("ab")), draw(st.sampled_from(stamps))
                if draw(st.integers(0, 3)) == 0:
                    changes.append(Change(key.encode(), b"", DELETE, base))
                else:
                    fields = draw(st.dictionaries(st.sampled_from("pq"), st.none() | st.integers(0, 2), max_size=2))
                    changes.append(replace(shop(key, VILLAGE, **fields), base=base))
                stamps.append(hlc + i)
            own = WORLD.segment(node, changes, state=state, audience=audience, hlc=hlc, readers=(TOWNSHIP,))
            time_s = None if node == PROVINCE else draw(st.none() | st.integers(NOW_S - 1, NOW_S + 8))
            if node == VILLAGE and time_s is None:
                time_s = NOW_S + 100
            arriving.append(Arriving(own, peer, time_s, node != VILLAGE and draw(st.booleans())))
            state, hlc = own.after, hlc + 4
        logs.append(arriving)
    return logs


def interleaved(logs: list[list[Arriving]], random: Any) -> list[Arriving]:
    """Any order that keeps each log's."""
    queues = [list(log) for log in logs if log]
    order = []
    while queues:
        queue = random.choice(queues)
        order.append(queue.pop(0))
        queues = [one for one in queues if one]
    return order


def by_the_book(rule: str, logs: list[list[Arriving]]) -> tuple[dict[str, tuple[str, int]], set[tuple[str, str, int]]]:
    """(key -> place of the winner), (key and place of each conflict), straight from `merge`."""
    versions: dict[str, list[Version]] = {}
    ranks = {VILLAGE: 1, COUNTY: 3, PROVINCE: 5}
    for log in logs:
        for one in log:
            name, columns = one.own.after.name, one.own.columns
            limit = None if one.time_s is None else bound(one.time_s)
            for i, key in enumerate(columns.keys):
                hlc = columns.hlcs[i]
                version = Version(
                    *(effective(hlc, limit), hlc, name.origin, 1, one.own.first + i, ranks[name.origin]),
                    columns.ops[i],
                    columns.base(i),
                    audience=name.audience,
                )
                versions.setdefault(key.decode(), []).append(version)
    names = {node: str(WORLD.log(node, "shop", audience)) for node, audience, _ in LOGS}
    winners, conflicts = {}, set()
    for key, some in versions.items():
        winner, lost = merge.resolve(rule, some)
        winners[key] = (names[winner.origin], winner.seq)
        conflicts |= {(key, names[one.origin], one.seq) for one in lost}
    return winners, conflicts


@settings(max_examples=40, derandomize=True, deadline=None)
@given(
    some_logs(),
    st.sampled_from(merge.RULES),
    st.sets(st.integers(0, 9)),
    st.booleans(),
    st.randoms(use_true_random=False),
)
def test_any_order_of_arrival_is_one_state(
    logs: list[list[Arriving]], rule: str, steps: set[int], late_at_once: bool, random: Any
) -> None:
    in_one_go = [one for log in logs for one in log]
    records, older, rebuilt = play(rule, in_one_go, set(), False)
    assert rebuilt == (records, older)
    assert play(rule, interleaved(logs, random), steps, late_at_once) == (records, older, rebuilt)
    winners, conflicts = by_the_book(rule, logs)
    assert {row[0]: (row[5], row[6]) for row in records} == winners
    assert {(row[0], row[5], row[6]) for row in older if row[7]} == conflicts
    total = sum(len(one.own.columns) for one in in_one_go)
    assert len(records) + len(older) == total


def test_the_record_is_the_winners(tmp_path: Path) -> None:
    """Under `latest` the payload of the winner; under `field` all of them, one over the other."""
    first = WORLD.segment(VILLAGE, [shop("a", VILLAGE, p=1, q=1)], readers=(TOWNSHIP,))
    second = WORLD.segment(
        COUNTY, [replace(shop("a", VILLAGE, q=None, r=3), base=HLC)], audience=VILLAGE, hlc=HLC + 5, readers=(TOWNSHIP,)
    )
    both = [Arriving(first, VILLAGE, NOW_S + 100, False), Arriving(second, COUNTY, None, False)]
    for rule, want in (
        ("latest", {"name": "a", "area": VILLAGE, "q": None, "r": 3}),
        ("authority", {"name": "a", "area": VILLAGE, "q": None, "r": 3}),
        ("field", {"name": "a", "area": VILLAGE, "p": 1, "r": 3}),
    ):
        for order in (both, both[::-1]):
            records, older, _ = play(rule, order, {0}, False)
            assert msgspec.json.decode(records[0][8]) == want
            assert [row[7] for row in older] == [0]


def test_a_clock_in_2036_wins_nothing() -> None:
    """A village whose clock is ten years ahead writes; its township saw it now; the county corrects it a minute on."""
    ahead = ((NOW_S + 10 * 365 * 86400) * 1000) << 16
    wrong = WORLD.segment(VILLAGE, [shop("a", VILLAGE, p=0)], hlc=ahead, readers=(TOWNSHIP,))
    minute = ((NOW_S + 60) * 1000) << 16
    right = WORLD.segment(COUNTY, [shop("a", VILLAGE, p=1)], audience=VILLAGE, hlc=minute, readers=(TOWNSHIP,))
    for order in itertools.permutations(
        [Arriving(wrong, VILLAGE, NOW_S, False), Arriving(right, COUNTY, NOW_S + 61, True)]
    ):
        records, _, _ = play("latest", order, {0}, False)
        assert msgspec.json.decode(records[0][8])["p"] == 1


@pytest.mark.parametrize("rule", ["latest", "field"])
def test_a_late_cosignature_can_change_the_winner(rule: str) -> None:
    """The county's clock was a minute fast; what it wrote had won until its parent's cosignature came."""
    fast = WORLD.segment(
        COUNTY, [shop("a", VILLAGE, p=1)], audience=VILLAGE, hlc=HLC + (60_000 << 16), readers=(TOWNSHIP,)
    )
    slow = WORLD.segment(VILLAGE, [shop("a", VILLAGE, p=2)], hlc=HLC + (10_000 << 16), readers=(TOWNSHIP,))
    before = [Arriving(fast, COUNTY, None, False), Arriving(slow, VILLAGE, NOW_S + 100, False)]
    after = [Arriving(fast, COUNTY, NOW_S + 5, True), Arriving(slow, VILLAGE, NOW_S + 100, False)]
    for order in ((0, 1), (1, 0)):
        records, _, _ = play(rule, [before[i] for i in order], {0, 1}, False)
        assert msgspec.json.decode(records[0][8])["p"] == 1
        records, older, rebuilt = play(rule, [after[i] for i in order], {0, 1}, False)
        assert msgspec.json.decode(records[0][8])["p"] == 2
        assert [(row[5], row[7]) for row in older] == [(str(fast.after.name), 1)]
        assert rebuilt == (records, older)


def test_two_logs_of_one_writer_for_one_area() -> None:
    """A village writes its own area under both names that it has, all numbers the same: one winner still."""
    plain = WORLD.segment(VILLAGE, [shop("a", VILLAGE, p=0)], readers=(TOWNSHIP,))
    named = WORLD.segment(VILLAGE, [shop("a", VILLAGE, p=1)], audience=VILLAGE, readers=(TOWNSHIP,))
    both = [Arriving(plain, VILLAGE, NOW_S + 9, False), Arriving(named, VILLAGE, NOW_S + 9, False)]
    assert play("latest", both, {0}, False) == play("latest", both[::-1], {0}, False)
