"""What nodes above have signed comes down to whoever holds the log: real stores, real exchanges, five levels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from sqlite_utils import Database

from chain import CITY, COUNTY, PATH, PROVINCE, SIBLING, TOWNSHIP, VILLAGE, WORLD, Chain, Node
from fednode.crypto import checkpoint
from fednode.node import fence, sqlite, witness
from fednode.node.audit import verify_store
from fednode.node.schema import log_migrations, migrate
from fednode.node.transaction import Transaction
from fednode.node.witness import Given, Keeper
from fednode.sync import wire
from fednode.sync.versions import Versions
from fednode.sync.wire import Cosignature, Witnessed, WitnessedHead
from parties import Party, meet, settle
from world import NOW_S, shop

LOG = WORLD.log(VILLAGE)
ABOVE = [PROVINCE, CITY, COUNTY, TOWNSHIP]
Shown = dict[int, set[str]]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    made[PROVINCE].write(shop("of the province", PROVINCE))
    down(made)
    yield made
    made.close()


def write(chain: Chain, *keys: str) -> None:
    """A segment each."""
    for key in keys:
        chain[VILLAGE].write(shop(key, VILLAGE))


def up(chain: Chain, *, to: str = PROVINCE) -> None:
    for child, parent in pairwise(PATH[: PATH.index(to) + 1]):
        settle(*meet(chain[child], chain[parent]))


def down(chain: Chain, *, since: str = PROVINCE) -> dict[str, list[Witnessed]]:
    """What was told on the way, by the node that it was told to."""
    told: dict[str, list[Witnessed]] = {}
    way = PATH[: PATH.index(since) + 1][::-1]
    for parent, child in pairwise(way):
        sides = meet(chain[child], chain[parent])
        settle(*sides)
        told[child] = [one for one in sides[1].sent if isinstance(one, Witnessed)]
    return told


def kept(node: Node, log: str = str(LOG)) -> Shown:
    """Size -> who has signed it."""
    found: Shown = {}
    for size, by in node.store.rows(
        "select size, witness from witness where log_id = (select id from log where name = ?)", log
    ):
        found.setdefault(size, set()).add(by)
    return found


def sound(chain: Chain) -> None:
    """Each store is proved again from its disk, its cosignatures too."""
    for node in chain.nodes.values():
        assert not verify_store(node.store, node.trust).problems
        assert not node.store.refused()


# ---------------------------------------------------------------- down to the writer


def test_what_every_level_has_signed_comes_down_to_the_village(chain: Chain) -> None:
    write(chain, "a", "b")
    up(chain)
    assert kept(chain[VILLAGE]) == {}
    down(chain)
    assert kept(chain[VILLAGE]) == {2: {COUNTY, CITY, PROVINCE}}
    assert kept(chain[TOWNSHIP]) == {2: {COUNTY, CITY, PROVINCE}}
    assert kept(chain[COUNTY]) == {2: {CITY, PROVINCE}}
    sound(chain)


def test_however_many_changes_wait_it_is_one_head_in_one_frame(chain: Chain) -> None:
    write(chain, *(f"k{i}" for i in range(40)))
    up(chain)
    for told in down(chain).values():
        assert len(told) <= 1
        assert sum(len(one.heads) for one in told) <= 1
    assert kept(chain[VILLAGE]) == {40: {COUNTY, CITY, PROVINCE}}


def test_a_lone_change_costs_the_village_one_frame_of_less_than_300_bytes(chain: Chain) -> None:
    """With the signatures of three levels in it: the township's came with its ack."""
    write(chain, "a")
    up(chain)
    down(chain)
    frames = []
    write(chain, "b")
    up(chain)
    for parent, child in pairwise(PATH[::-1]):
        sides = meet(chain[child], chain[parent])
        settle(*sides)
        frames = [one for one in sides[1].frames if isinstance(wire.decode(one)[1], Witnessed)]
    assert [len(one) < 300 for one in frames] == [True]
    assert kept(chain[VILLAGE])[2] == {COUNTY, CITY, PROVINCE}


def test_what_was_told_is_not_told_again(chain: Chain) -> None:
    write(chain, "a")
    up(chain)
    assert sum(map(len, down(chain).values())) == 3
    assert sum(map(len, down(chain).values())) == 0
    write(chain, "b")
    up(chain)
    down(chain)
    assert kept(chain[VILLAGE]) == {2: {COUNTY, CITY, PROVINCE}}


def test_while_the_levels_above_lag_the_checkpoint_that_most_have_signed_is_kept(chain: Chain) -> None:
    """Each level signs as it receives: of a log that grows all the time their newest are hardly ever the same."""
    write(chain, "a", "b")
    up(chain, to=CITY)
    write(chain, "c", "d", "e")
    up(chain, to=COUNTY)
    settle(*meet(chain[VILLAGE], chain[TOWNSHIP]))
    assert kept(chain[VILLAGE]) == {2: {COUNTY, CITY}, 5: {COUNTY}}
    up(chain)
    down(chain)
    assert kept(chain[VILLAGE]) == {5: {COUNTY, CITY, PROVINCE}}
    sound(chain)


def test_a_signature_that_was_passed_over_follows_when_somebody_higher_signs_the_same(chain: Chain) -> None:
    """The county's of size 1 was never told, for size 3 was newer; then the city's of size 1 comes."""
    write(chain, "a", "b", "c")
    up(chain, to=COUNTY)
    settle(*meet(chain[VILLAGE], chain[TOWNSHIP]))
    assert kept(chain[VILLAGE]) == {3: {COUNTY}}
    forge(chain, CITY, 1)
    settle(*meet(chain[VILLAGE], chain[TOWNSHIP]))
    assert kept(chain[VILLAGE]) == {1: {COUNTY, CITY}, 3: {COUNTY}}


def test_the_window_is_bounded(chain: Chain) -> None:
    write(chain, "a")
    up(chain, to=TOWNSHIP)
    township = chain[TOWNSHIP].store
    log_id = township.log_id(LOG)
    with township.write() as tx:
        for size in range(2, witness.WINDOW + 30):
            tx.execute("insert into witness values (?, ?, ?, 1, x'00', ?, null)", log_id, size, COUNTY, size)
    up(chain, to=COUNTY)
    assert len(kept(chain[TOWNSHIP])) == witness.WINDOW
    assert max(kept(chain[TOWNSHIP])) == witness.WINDOW + 29


def test_of_the_highest_level_only_the_newest_is_kept(chain: Chain) -> None:
    for n in range(4):
        write(chain, f"k{n}")
        up(chain)
    assert kept(chain[CITY]) == {4: {PROVINCE}}


# ---------------------------------------------------------------- logs that flow down


def test_a_log_for_a_village_is_shown_there_with_those_above_its_writer(chain: Chain) -> None:
    county = chain[COUNTY]
    county.write(shop("x", VILLAGE), audience=VILLAGE)
    county.write(shop("own", COUNTY))
    up(chain)
    down(chain)
    log = str(WORLD.log(COUNTY, audience=VILLAGE))
    assert kept(chain[VILLAGE], log) == kept(chain[TOWNSHIP], log) == {1: {CITY, PROVINCE}}
    own = str(WORLD.log(COUNTY))
    assert kept(county, own) == kept(chain[TOWNSHIP], own) == kept(chain[VILLAGE], own) == {1: {CITY, PROVINCE}}
    sound(chain)


# ---------------------------------------------------------------- what is not believed


def forge(chain: Chain, by: str, size: int, *, key: str = "") -> None:
    """The township has something to tell: a signature with `by`'s key, or another's."""
    township = chain[TOWNSHIP]
    lsn = township.store.ending_at(LOG, size)
    place = township.store.place(lsn) if lsn else None
    head = checkpoint.Checkpoint(str(LOG), size, place[2] if place else bytes(32))
    signed = checkpoint.cosign(head, WORLD.places[key or by].keys.sign, NOW_S)
    with township.store.write() as tx:
        keeper = Keeper(tx, township.trust)
        keeper.keep(LOG, size, Cosignature(NOW_S, signed, by))


def told(chain: Chain) -> tuple[Party, Party]:
    sides = meet(chain[VILLAGE], chain[TOWNSHIP])
    settle(*sides)
    return sides


def test_what_does_not_verify_is_evidence_and_the_rest_is_kept(chain: Chain) -> None:
    write(chain, "a")
    up(chain, to=COUNTY)
    forge(chain, CITY, 1, key=TOWNSHIP)
    sides = told(chain)
    village = chain[VILLAGE]
    assert kept(village) == {1: {COUNTY}}
    assert [(one["code"], one["peer"], one["log"]) for one in village.store.refused()] == [
        ("FN-6414", TOWNSHIP, f"{LOG}@1")
    ]
    assert sides[0].closed is not None
    assert sides[0].closed.error is None
    write(chain, "b")
    up(chain)  # nothing of the feed was refused
    down(chain)
    assert kept(village)[2] == {COUNTY, CITY, PROVINCE}


def test_another_history_than_the_one_that_is_held_does_not_verify(chain: Chain) -> None:
    """The county signed what the village never wrote."""
    write(chain, "a")
    up(chain, to=TOWNSHIP)
    head = checkpoint.Checkpoint(str(LOG), 1, bytes(32))
    signed = checkpoint.cosign(head, WORLD.places[COUNTY].keys.sign, NOW_S)
    with chain[TOWNSHIP].store.write() as tx:
        Keeper(tx, chain[TOWNSHIP].trust).keep(LOG, 1, Cosignature(NOW_S, signed, COUNTY))
    told(chain)
    assert kept(chain[VILLAGE]) == {}
    assert chain[VILLAGE].refusals() == {"FN-6414"}


def test_behind_the_fence_it_is_of_the_history_that_was_lost(chain: Chain) -> None:
    write(chain, "a")
    up(chain, to=COUNTY)
    forge(chain, CITY, 1, key=TOWNSHIP)
    village = chain[VILLAGE]
    with village.store.write() as tx:
        fence.put_up(tx, village.trust.me, "FN-6422", NOW_S * 1000)
    told(chain)
    assert not village.store.refused()


@pytest.mark.parametrize(("by", "size"), [(SIBLING, 1), (VILLAGE, 1), ("9999", 1), (COUNTY, 7)])
def test_who_is_not_above_and_what_is_not_held_is_left_out(chain: Chain, by: str, size: int) -> None:
    write(chain, "a")
    up(chain, to=COUNTY)
    forge(chain, by, size, key=by if by in WORLD.places else SIBLING)
    told(chain)
    assert kept(chain[VILLAGE]) == ({1: {COUNTY}} if size == 1 else {})
    assert not chain[VILLAGE].store.refused()


@pytest.mark.parametrize("log", ["", "no log", f"hebei/{VILLAGE}/1/other", f"hebei/{VILLAGE}/9/shop"])
def test_logs_that_are_not_here_are_left_out(chain: Chain, log: str) -> None:
    write(chain, "a")
    told_of = Witnessed(5, (WitnessedHead(log, 1, (Cosignature(1, bytes(64), COUNTY),)),))
    village = chain[VILLAGE]
    village.writer.witnessed(village.link(TOWNSHIP), told_of)
    assert kept(village) == {}
    assert not village.store.refused()


# ---------------------------------------------------------------- with whom


def early(node: Node, *given: Cosignature, size: int = 1) -> int:
    """It is told of a head of the village's; how many such words wait."""
    with node.store.write() as tx:
        head = WitnessedHead(str(LOG), size, given)
        assert list(witness.take(tx, node.trust, Witnessed(1, (head,)))) == []
    return int(node.store.rows("select count(*) from early")[0][0])


def test_what_is_told_before_the_segment_has_come_waits_and_is_verified_then(chain: Chain) -> None:
    write(chain, "a")
    village = chain[VILLAGE].store
    place = village.place(village.ending_at(LOG, 1) or 0)
    assert place is not None
    head = checkpoint.Checkpoint(str(LOG), 1, place[2])
    good, forged = (
        Cosignature(NOW_S, checkpoint.cosign(head, WORLD.places[key].keys.sign, NOW_S), by)
        for by, key in ((COUNTY, COUNTY), (CITY, TOWNSHIP))
    )
    assert early(chain[TOWNSHIP], good, forged) == 2
    up(chain, to=TOWNSHIP)
    assert kept(chain[TOWNSHIP]) == {1: {COUNTY}}
    assert chain[TOWNSHIP].refusals() == {"FN-6414"}
    assert early(chain[TOWNSHIP]) == 0


def test_few_words_wait_the_newest(chain: Chain) -> None:
    township = chain[TOWNSHIP]
    word = Cosignature(NOW_S, bytes(64), COUNTY)
    for size in range(1, witness.EARLY_MAX + 1):
        waiting = early(township, word, size=size)
    assert waiting == witness.EARLY_MAX
    assert early(township, word, size=witness.EARLY_MAX + 1) == witness.EARLY_MAX
    assert township.store.rows("select min(size), max(size) from early") == [(2, witness.EARLY_MAX + 1)]


def test_a_child_of_the_version_before_is_told_nothing_and_served_all_the_same(chain: Chain) -> None:
    write(chain, "a")
    up(chain)
    settle(*meet(chain[TOWNSHIP], chain[COUNTY]))
    sides = meet(chain[VILLAGE], chain[TOWNSHIP], speaks=Versions(1, 1))
    settle(*sides)
    assert not [one for one in sides[1].sent if isinstance(one, Witnessed)]
    assert sides[0].closed is not None
    assert sides[0].closed.error is None
    told(chain)
    assert COUNTY in kept(chain[VILLAGE])[1]


def test_a_number_that_the_parent_has_never_given_out_is_not_believed(chain: Chain) -> None:
    """Its store was restored: it tells from the start."""
    write(chain, "a")
    up(chain, to=COUNTY)
    village = chain[VILLAGE]
    peer = village.link(TOWNSHIP).peer_id
    with village.store.write() as tx:
        tx.set_witnessed(peer, 10_000)
    told(chain)
    assert kept(village) == {1: {COUNTY}}


# ---------------------------------------------------------------- older stores


def test_a_store_from_before_keeps_its_cosignatures(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    with closing(sqlite.connect(path, synchronous="FULL")) as connection:
        log_migrations.apply(Database(connection), stop_before="m008_witness")
        connection.execute("insert into log values (1, 'hebei/1/1/x', '1', 1, 'x', '', 9, x'', null, 0, 1, '')")
        connection.execute("insert into witness values (1, '13', 9, 1700000000, x'0102')")
        migrate(connection, log_migrations, path)
        assert connection.execute("select * from witness").fetchall() == [
            (1, 9, "13", 1700000000, b"\x01\x02", 0, None)
        ]
        assert connection.execute("select value from meta where key = 'witnessed'").fetchone() == (0,)


# ---------------------------------------------------------------- the choice


def given(*signed: tuple[int, str]) -> list[Given]:
    return [Given(size, by, 0, b"", n) for n, (size, by) in enumerate(signed, 1)]


@pytest.mark.parametrize(
    ("signed", "size"),
    [
        ([], 0),
        ([(3, COUNTY)], 3),
        ([(3, COUNTY), (5, COUNTY)], 5),
        ([(3, COUNTY), (3, CITY), (5, COUNTY)], 3),
        ([(3, CITY), (5, COUNTY)], 3),
        ([(3, COUNTY), (3, CITY), (5, COUNTY), (5, PROVINCE)], 5),
        ([(3, PROVINCE), (3, COUNTY), (5, CITY), (5, COUNTY), (7, CITY), (7, PROVINCE)], 7),
        ([(3, "stranger"), (5, COUNTY)], 5),
    ],
)
def test_which_checkpoint_is_best(signed: list[tuple[int, str]], size: int) -> None:
    assert witness.best(given(*signed), ABOVE) == size


def test_a_cosignature_of_a_log_that_is_not_here_is_not_kept(chain: Chain) -> None:
    with chain[VILLAGE].store.write() as tx:
        assert isinstance(tx, Transaction)
        keeper = Keeper(tx, chain[VILLAGE].trust)
        keeper.keep(LOG, 1, Cosignature(1, bytes(64), COUNTY))
        keeper.settle()
    assert kept(chain[VILLAGE]) == {}


def test_regression_a_late_cosignature_goes_out_with_the_time_that_it_signs(chain: Chain) -> None:
    """Simulator, small, promoting, seed 3176: an earlier one had come meanwhile, of the first parent's life before, and
    went out with the time of the later one: refused (FN-6407) by whoever had neither."""
    write(chain, "a")
    store = chain[VILLAGE].store
    lsn = store.ending_at(LOG, 1)
    assert lsn is not None
    given = [Cosignature(NOW_S - 3600, b"2" * 64), Cosignature(NOW_S - 7200, b"1" * 64)]
    for one in given:
        with store.write() as tx:
            tx.set_first_parent(lsn, one)
    items, _ = store.feed_all("", lsn, 1 << 20)
    assert [item.late.first_parent for item in items if item.late] == [given[-1]] * 2
