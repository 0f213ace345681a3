"""What a peer lacks where its cursor says nothing about this store (node/refill.py), through whole exchanges."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain import TOWNSHIP, VILLAGE, Chain, Node
from fednode.crypto import checkpoint
from fednode.node import fence, refill, witness
from fednode.node.admission import GATHERS
from fednode.node.outcomes import newest_from, unheard
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.change import LogName
from fednode.sync.versions import Versions
from parties import Party, meet, settle
from world import seed, shop

LOG = LogName.parse(f"hebei/{VILLAGE}/1/shop")


def successor(node: Node, folder: Path) -> Node:
    """A node with the same logs in another store, which has met nobody: as a standby that was promoted."""
    copy = node.copy(folder)
    with copy.disk() as c:
        c.execute("update meta set value = ? where key = 'store_id'", (seed("another")[:16],))
        c.execute("delete from peer")
        c.execute("update segment set peer = null, peer_lsn = null")
    copy.store.close()
    return Node(node.node, folder)


def write(node: Node, *names: str) -> None:
    """A segment for each."""
    for name in names:
        node.write(shop(name, node.trust.area))


def exchange(child: Node, parent: Node, **more: object) -> tuple[Party, Party]:
    """One, to its end."""
    sides = meet(child, parent, **more)
    settle(*sides)
    assert sides[0].closed == sides[1].closed == fx.Close(None)
    return sides


def chunks(side: Party) -> int:
    """How many segments it sent."""
    return sum(1 for one in side.sent if isinstance(one, wire.Chunk) and one.total)


def acked(node: Node, peer: str) -> int:
    row = node.store.peer(peer)
    assert row is not None
    return row.acked


def test_only_what_a_successor_lacks_is_sent(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b", "c")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    write(village, "d", "e")
    exchange(village, township)  # the successor has not seen these two, though they were acknowledged
    write(village, "f")
    child, parent = exchange(village, other)
    assert chunks(child) == 3
    assert sorted(other.records()) == sorted(village.records()) == ["a", "b", "c", "d", "e", "f"]
    assert acked(village, TOWNSHIP) == village.store.lsn
    child, parent = exchange(village, other)
    assert (chunks(child), chunks(parent)) == (0, 0)
    assert not any(isinstance(one, wire.Holdings) for one in parent.sent)  # its cursor is of use now
    other.store.close()


def test_regression_a_successor_that_gathers_is_sent_what_it_lacks_alone(chain: Chain, tmp_path: Path) -> None:
    """Every promoted node gathers, and since it did each child sent it everything again."""
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b", "c")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    with other.store.write() as tx:
        tx.set_meta(GATHERS, 1)
    write(village, "d")
    child, _ = exchange(village, other)
    assert chunks(child) == 1
    assert sorted(other.records()) == ["a", "b", "c", "d"]
    other.store.close()


def test_what_a_child_holds_from_above_is_not_sent_again(chain: Chain, tmp_path: Path) -> None:
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain["130102"]
    county.write(shop("down", VILLAGE), audience=VILLAGE)
    exchange(township, county)
    _, parent = exchange(village, township)
    assert chunks(parent) == 1
    other = successor(township, tmp_path / "other")
    county.write(shop("more", VILLAGE), audience=VILLAGE)
    exchange(other, county)
    _, parent = exchange(village, other)
    assert chunks(parent) == 1
    assert sorted(village.records()) == ["down", "more"]
    other.store.close()


def test_acknowledged_goes_back_to_what_the_successor_holds(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    write(village, "b", "c")
    exchange(village, township)
    assert acked(village, TOWNSHIP) == 3
    child, parent = meet(village, other)
    while not child.of_kind(fx.Compare):
        settle_one(child, parent)
    assert acked(village, TOWNSHIP) == 1
    settle(child, parent)
    assert acked(village, TOWNSHIP) == 3
    other.store.close()


def test_what_is_held_beyond_the_last_thing_that_was_lacking_counts_as_acknowledged(chain: Chain) -> None:
    """Seed 173: nothing was sent after it, so nothing said so, and it was pending for ever."""
    link = chain[VILLAGE].link(TOWNSHIP)
    assert [link.holds(lsn) for lsn in (0, 4)] == [0, 4]
    link.refill = refill.Refill([8, 9, 12], 18)
    assert [link.holds(lsn) for lsn in (7, 8, 9, 11, 12, 17, 18, 22)] == [7, 8, 11, 11, 18, 18, 18, 22]


def settle_one(*sides: Party) -> None:
    """One frame each."""
    for one in sides:
        if one.inbox:
            one.receive(one.inbox.popleft())


def test_what_no_first_parent_has_cosigned_is_sent_again_and_comes_back_cosigned(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    with village.disk() as c:  # the acknowledgement of the second was lost on its way
        c.execute("update segment set first_time = null, first_signature = null where lsn = 2")
    child, _ = exchange(village, other)
    assert chunks(child) == 1
    assert village.store.first_parent(2) == township.store.first_parent(2)
    other.store.close()


def test_a_log_whose_root_does_not_fit_is_sent_and_the_fork_is_found(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    twin = village.copy(tmp_path / "twin")
    write(village, "a", "b")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    write(twin, "x", "b")
    write(twin, "c")
    child, _ = exchange(twin, other)
    assert chunks(child) == 3
    assert "FN-6420" in other.refusals()
    twin.store.close()
    other.store.close()


def test_stripped_segments_are_announced_to_whoever_may_not_have_heard_of_it(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    held = village.held(LOG, 0)
    with village.store.write() as tx:
        tx.execute("insert into resealed (lsn, segment_lsn) values (?, ?)", tx.next_lsn(), held.lsn)
    child, _ = exchange(village, other)
    assert chunks(child) == 1
    other.store.close()


def test_a_long_list_is_no_list(chain: Chain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refill, "MISSING_MAX", 2)
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    write(village, "c", "d")
    child, _ = exchange(village, other)
    assert chunks(child) == 2  # at the limit
    third = successor(township, tmp_path / "third")
    write(village, "e")
    child, _ = exchange(village, third)
    assert chunks(child) == 5  # one over it: all of it, from the beginning
    assert len(third.records()) == 5
    other.store.close()
    third.store.close()


def test_to_a_program_of_version_1_all_is_sent(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    child, _ = exchange(village, other, speaks=Versions(1, 1))
    assert chunks(child) == 2
    other.store.close()


def test_new_changes_meanwhile_come_after_what_is_lacking(chain: Chain, tmp_path: Path) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    write(village, "b")
    child, parent = meet(village, other, once=False)
    while not child.of_kind(fx.Compare):
        settle_one(child, parent)
    write(village, "c")
    child.do(child.exchange.wake(0))
    settle(child, parent)
    assert chunks(child) == 2
    assert sorted(other.records()) == ["a", "b", "c"]
    other.store.close()


def test_a_witness_s_signature_is_not_missed_by_what_is_not_sent(chain: Chain, tmp_path: Path) -> None:
    """Seed 2: a node that was recovered did not hear again what those above had signed of its children's logs."""
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain["130102"]
    write(village, "a", "b")
    exchange(village, township)
    exchange(township, county)
    other = successor(township, tmp_path / "other")
    with other.disk() as c:
        c.execute("delete from witness")
    child, _ = exchange(other, county)
    assert chunks(child) == 0
    log_id = other.store.log_id(LOG)
    assert log_id is not None
    (given,) = witness.kept(other.store, log_id)
    assert (given.size, given.witness) == (2, "130102")
    head = checkpoint.Checkpoint(str(LOG), 2, other.store.log_state(LOG).root)
    checkpoint.verify_cosignature(head, county.keys.sign.public, given.time_s, given.signature)
    other.store.close()


def signed(node: Node, size: int) -> list[str]:
    """Who has signed the village's log at a size."""
    log_id = node.store.log_id(LOG)
    assert log_id is not None
    return [one.witness for one in witness.kept(node.store, log_id) if one.size == size]


def test_regression_a_witness_s_word_on_what_it_held_before_is_told_until_it_is_heard(
    chain: Chain, tmp_path: Path
) -> None:
    """Seed 84 of the promotions: the successor had sent the segment again, and was cut off before the acknowledgement.
    Then it heard that all was held, and never got the cosignature."""
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain["130102"]
    write(village, "a")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    write(village, "b")
    exchange(village, township)
    exchange(township, county)
    county.write(shop("down", VILLAGE), audience=VILLAGE)  # so that the next cursor is one of the county's store
    child, parent = meet(other, county, once=False)
    settle(child, parent)
    exchange(village, other)
    child.take_acks = lambda _outcomes: None  # cut off
    child.do(child.exchange.wake(0))
    settle(child, parent)
    assert chunks(child) == 1
    assert signed(other, 2) == []
    child, _ = exchange(other, county)
    assert chunks(child) == 0
    assert signed(other, 2) == ["130102"]
    exchange(other, county)
    assert county.store.rows("select * from came_again") == []
    other.store.close()


def test_regression_a_higher_witness_s_word_that_came_before_the_segment_is_told_again(
    chain: Chain, tmp_path: Path
) -> None:
    """The successor left it out, as it did not hold the segment yet, and was not told again when it did."""
    village, township, county, city = chain[VILLAGE], chain[TOWNSHIP], chain["130102"], chain["1301"]
    write(village, "a")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    county.write(shop("down", VILLAGE), audience=VILLAGE)  # so that the next cursor is one of the county's store
    exchange(other, county)
    write(village, "b")
    exchange(village, township)
    for child, parent in ((township, county), (county, city), (other, county)):
        exchange(child, parent)
    assert signed(county, 2) == ["1301"]
    assert signed(other, 2) == []
    exchange(village, other)
    exchange(other, county)
    exchange(other, county)
    assert sorted(signed(other, 2)) == ["1301", "130102"]
    other.store.close()


def test_regression_a_first_parent_s_word_on_what_it_held_before_is_told_until_it_is_heard(
    chain: Chain, tmp_path: Path
) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a", "b")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    with village.disk() as c:
        c.execute("update segment set first_time = null, first_signature = null where lsn = 1")
    write(village, "c")
    child, parent = meet(village, other)
    child.take_acks = lambda _outcomes: None
    settle(child, parent)
    assert chunks(child) == 2
    assert village.store.first_parent(1) is None
    exchange(village, other)
    assert village.store.first_parent(1) == township.store.first_parent(1)
    assert village.store.first_parent(3) == other.store.first_parent(other.store.lsn)
    chain["130102"].write(shop("down", VILLAGE), audience=VILLAGE)
    exchange(other, chain["130102"])
    exchange(village, other)
    exchange(village, other)  # its cursor says which store acknowledged
    assert other.store.rows("select * from came_again") == []
    other.store.close()


def test_regression_what_a_first_parent_s_predecessor_cosigned_stands(chain: Chain, tmp_path: Path) -> None:
    """Simulator, promoting, small, seed 291: the county had a village's change of a clock that was ahead with the time
    of the township that is gone; its successor cosigned once more, later, so that at the successor alone the change
    counted as of another moment, and won."""
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain["130102"]
    other = successor(township, tmp_path / "other")
    village.now_ms += 60_000
    write(village, "a")
    exchange(village, township)
    exchange(township, county)
    first = township.store.first_parent(township.store.lsn)
    assert first is not None
    other.now_ms += 3_600_000
    village.now_ms = other.now_ms
    write(village, "b")  # nobody has cosigned this one
    exchange(village, other)
    exchange(other, county)
    for node in (village, other, county):
        given = [node.store.first_parent(node.held(LOG, at).lsn) for at in (0, 1)]
        assert given[0] == first, node.node
        assert given[1] is not None
        assert given[1].time_s == other.now_ms // 1000
    assert other.refusals() == set()
    other.store.close()


@pytest.mark.parametrize("met", [False, True], ids=["compared afterwards", "compared before"])
def test_regression_what_a_first_parent_cosigned_twice_counts_as_above_it(
    chain: Chain, tmp_path: Path, met: bool
) -> None:
    """Simulator, promoting, small, seed 874: a township cosigned what a village had written, whose clock was ahead, and
    passed it on; it failed before the village had heard of that. Its successor cosigned it, later: at the two the
    change counted as of another moment than above them, and won there alone."""
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain["130102"]
    other = successor(township, tmp_path / "other")
    village.now_ms += 86_400_000
    write(village, "a")
    unheard = village.copy(tmp_path / "unheard")
    exchange(village, township)
    exchange(township, county)
    first = county.store.first_parent(county.held(LOG, 0).lsn)
    other.now_ms += 60_000
    if met:
        exchange(other, county)
    exchange(unheard, other)
    assert unheard.store.first_parent(unheard.held(LOG, 0).lsn) == other.store.first_parent(other.held(LOG, 0).lsn)
    assert other.store.first_parent(other.held(LOG, 0).lsn) != first
    for _ in range(2):  # it is found, and then told
        exchange(other, county)
    exchange(unheard, other)
    for node in (county, other, unheard):
        assert node.store.first_parent(node.held(LOG, 0).lsn) == first, node.node
        assert node.refusals() == set()
    for node in (other, unheard):
        node.store.close()


def test_regression_what_was_held_before_is_acknowledged_when_a_standby_has_it(chain: Chain, tmp_path: Path) -> None:
    """It was told to whoever asked again, without a look at where it lies."""
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    write(village, "a")
    exchange(village, township)
    other = successor(township, tmp_path / "other")
    with village.disk() as c:
        c.execute("update segment set first_time = null, first_signature = null")
    child, parent = meet(village, other)
    child.take_acks = lambda _outcomes: None
    settle(child, parent)
    peer = other.store.peer(VILLAGE)
    assert peer is not None
    assert newest_from(other.store, peer, 0) == other.store.lsn
    asked: list[int] = []
    key, now_ms = other.keys.sign, 0
    assert unheard(other.store, other.trust, peer, 0, key, now_ms, lambda at: bool(asked.append(at))) == ()
    assert asked == [other.store.lsn]
    (told,) = unheard(other.store, other.trust, peer, 0, key, now_ms, lambda _at: True)
    assert (told.lsn, told.cosignature is not None) == (1, True)
    other.store.close()


def test_a_parent_that_holds_more_of_ones_own_logs_shows_a_rollback(chain: Chain) -> None:
    """The cursor that would show it was the parent's predecessor's (simulator, promoting, seed 0)."""
    village = chain[VILLAGE]
    write(village, "a", "b")
    link, root = village.link(TOWNSHIP), village.store.log_state(LOG).root[:8]
    other = wire.Holding(str(LOG).replace("/1/", "/2/"), 7, bytes(8))  # of another life
    refill.compare(village.writer, link, fx.Compare((wire.Holding(str(LOG), 2, root), other), True))
    assert fence.standing(village.store) is None
    refill.compare(village.writer, link, fx.Compare((wire.Holding(str(LOG), 3, bytes(8)),), True))
    there = fence.standing(village.store)
    assert there is not None
    assert there.code == "FN-6422"


def test_a_signature_that_does_not_verify_is_not_kept(chain: Chain, tmp_path: Path) -> None:
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain["130102"]
    write(village, "a")
    exchange(village, township)
    exchange(township, county)
    link = township.link("130102")
    held = wire.Holding(str(LOG), 1, township.store.log_state(LOG).root[:8], wire.Cosignature(1, bytes(64)))
    with township.disk() as c:
        c.execute("delete from witness")
    refill.compare(township.writer, link, fx.Compare((held,), True))
    log_id = township.store.log_id(LOG)
    assert log_id is not None
    assert witness.kept(township.store, log_id) == []
    assert link.refill == refill.Refill([], township.store.lsn)
