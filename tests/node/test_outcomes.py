"""What became of what a peer sent is told until it has heard (node/outcomes.py)."""

from __future__ import annotations

import pytest

from chain import COUNTY, TOWNSHIP, VILLAGE, WORLD, Chain, Node
from fednode.node import fence
from fednode.node.outcomes import outcomes
from fednode.node.rows import Peer
from fednode.node.transaction import REFUSED_MAX
from fednode.sync.change import Change
from fednode.sync.effects import Commit
from fednode.sync.errors import PeerError
from fednode.sync.wire import Outcome
from parties import Party, meet, settle
from world import shop


def unheard_of(village: Node, township: Node) -> None:
    """They meet, and the line is cut before the village has read what became of what it sent."""
    child, parent = meet(village, township)
    child.take_acks = lambda _outcomes: None
    settle(child, parent)


def again(village: Node, township: Node) -> Party:
    child, parent = meet(village, township)
    settle(child, parent)
    return child


def row(node: Node, peer: str) -> Peer:
    found = node.store.peer(peer)
    assert found is not None
    return found


def told(township: Node) -> list[Outcome]:
    peer = row(township, VILLAGE)
    return list(outcomes(township.store, township.trust, peer, 0, township.keys.sign, township.now_ms))


def test_regression_a_refusal_that_a_cut_took_along_is_told_again(chain: Chain) -> None:
    """Found by the simulator (promoting, small, seed 580): the village took what its township had refused for held; its
    backlog was 0, and it had nothing on record as refused."""
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    chain[COUNTY].write(shop("down", VILLAGE), audience=VILLAGE)  # the next cursor is one of its store
    again(township, chain[COUNTY])
    village.write(shop("refused", VILLAGE))
    township.trust.catalog = None
    unheard_of(village, township)
    assert township.refusals() == {"FN-5416"}
    assert village.refusals() == set()
    again(village, township)
    assert village.refusals() == {"FN-5416"}
    assert row(village, TOWNSHIP).acked == 1
    assert [one.refused for one in told(township)].count("FN-5416") == 1
    again(village, township)  # its greeting says that it has heard
    assert [one.refused for one in told(township)].count("FN-5416") == 0


def test_what_was_refused_and_taken_later_is_told_as_taken(chain: Chain) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    village.write(shop("a", VILLAGE))
    catalog, township.trust.catalog = township.trust.catalog, None
    unheard_of(village, township)
    township.trust.catalog = catalog
    with township.store.write() as tx:
        tx.forget_refused(VILLAGE)
    again(village, township)
    assert sorted(township.records()) == ["a"]
    assert village.refusals() == set()
    assert {one.refused for one in told(township)} == {""}


def test_few_refusals_of_one_peer_are_remembered(chain: Chain) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    link = township.link(VILLAGE)
    township.writer.incoming([(link, Commit(1 + i, b"no segment", None)) for i in range(REFUSED_MAX + 5)])
    assert len(told(township)) == REFUSED_MAX + 1  # and the end of what was looked at
    assert told(township)[-1] == Outcome(REFUSED_MAX + 5)
    other = meet(village, township)
    settle(*other)


def test_another_store_has_another_order(chain: Chain) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    village.write(shop("a", VILLAGE))
    township.trust.catalog = None
    unheard_of(village, township)
    assert "FN-5416" in [one.refused for one in told(township)]
    with township.store.write() as tx:
        tx.meet_store(row(township, VILLAGE).id, bytes(16))
    assert township.store.rows("select * from refused_at") == []


def test_regression_a_fork_that_is_told_beside_a_cosignature_of_what_was_lost_fences_the_store(chain: Chain) -> None:
    """Found by the simulator (seed 117 with disks that are full): an old backup in the place of a village's store, that
    sticks alone carry. It refused its parent's cosignature of what the backup has not got (FN-6414), each time, and
    what came with it never said that its log has another history above."""
    village = chain[VILLAGE]
    (lost,) = village.write(shop("a", VILLAGE))
    (other,) = village.write(shop("b", VILLAGE))
    link = village.link(TOWNSHIP)
    of_another = WORLD.cosignature(TOWNSHIP, WORLD.segment(VILLAGE, [Change(b"other", b"{}")]).raw)
    told = [(lost, of_another, ""), (other, None, "FN-6420")]
    village.writer.acknowledged(link.peer_id, told, WORLD.identity(TOWNSHIP), other)
    assert fence.standing(village.store) is not None
    with village.store.write() as tx:
        fence.lift(tx)
    with pytest.raises(PeerError, match="FN-6414"):
        village.writer.acknowledged(link.peer_id, told[:1], WORLD.identity(TOWNSHIP), other)
