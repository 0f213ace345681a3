"""What happens while a segment is damaged, and when it is mended: found by the simulator with bits that flip."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chain import COUNTY, TOWNSHIP, VILLAGE, WORLD, Chain, Node
from fednode.crypto.errors import IntegrityError
from fednode.node import mending, witness
from fednode.node.follower import follow, follow_what_came
from fednode.node.journal import Journal
from fednode.node.projection import Projector
from fednode.sync import effects as fx
from fednode.sync import segment as seg
from fednode.sync.change import ALERTS, LogName
from fednode.sync.effects import Commit
from fednode.sync.wire import Cosignature, Want
from parties import meet, settle
from world import shop

LOG = LogName("hebei", VILLAGE, 1, "shop")
WANT = Want(str(LOG), 0, restore=True)


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """A change of a village's has gone up to the county, which was heard."""
    found = Chain(tmp_path)
    found[VILLAGE].write(shop("a", VILLAGE))
    found.up((VILLAGE, TOWNSHIP, COUNTY))
    yield found
    found.close()


def damage(node: Node, name: LogName = LOG) -> tuple[int, bytes]:
    """A bit flips in the first segment of a log: its arrival number, and the bytes that were right."""
    with node.disk() as c:
        sql = "select s.lsn, s.data from segment s join log l on l.id = s.log_id where l.name = ? and s.first = 0"
        lsn, raw = c.execute(sql, (str(name),)).fetchone()
        c.execute("update segment set data = ? where lsn = ?", (raw[:-1] + bytes((raw[-1] ^ 1,)), lsn))
    with pytest.raises(IntegrityError, match="FN-6601"):
        node.store.place(lsn)
    return lsn, raw


def mend(node: Node, peer: str, raw: bytes, first_parent: Cosignature | None = None) -> fx.Done:
    (done,) = node.take(peer, Commit(50, raw, first_parent, asked=WANT))
    return done


def kept(node: Node) -> set[str]:
    log_id = node.store.log_id(LOG)
    assert log_id is not None
    return {one.witness for one in witness.kept(node.store, log_id)}


def given(by: str, raw: bytes) -> Cosignature:
    return WORLD.cosignature(by, raw)


def test_regression_two_neighbours_that_are_asked_may_both_answer(chain: Chain) -> None:
    """The second answer to what a child was asked for, of a log from above, was refused (FN-5413) as what no child may
    bring; and wherever it was taken for held it moved the cursor past what had not come."""
    county, township, village = chain[COUNTY], chain[TOWNSHIP], chain[VILLAGE]
    county.write(shop("down", VILLAGE), audience=VILLAGE)
    name = LogName("hebei", COUNTY, 1, "shop", VILLAGE)
    raw = county.held(name, 0).raw
    assert township.take(COUNTY, Commit(9, raw))[0].refused == ""
    want = Want(str(name), 0, restore=True)
    before = township.link(VILLAGE).position
    (done,) = township.take(VILLAGE, Commit(50, raw, asked=want))
    assert (done.refused, done.unfit) == ("", want)
    assert township.link(VILLAGE).position == before
    assert township.refusals() == set()
    assert township.take(VILLAGE, Commit(51, raw))[0].refused == "FN-5413"
    assert village.refusals() == set()


def test_regression_a_neighbour_is_asked_once_at_a_time(chain: Chain) -> None:
    """It was asked twice as a session began whose feed met the damage, and the second answer was refused."""
    township = chain[TOWNSHIP]
    _, raw = damage(township)
    child, parent = meet(township, chain[COUNTY], once=False)
    settle(child, parent)
    for _ in range(2):
        child.do(child.exchange.ask_segment(str(LOG), 0, 0))
    settle(child, parent)
    assert [one for one in child.sent if isinstance(one, Want)] == [WANT]
    commits: list[Any] = child.of_kind(fx.Commit)
    assert [one.asked for one in commits if one.data == raw] == [WANT]
    assert township.verified() == set()
    assert township.refusals() == set()


class Session:
    def __init__(self) -> None:
        self.asked = 0

    def ask_segment(self, log: str, first: int) -> None:
        self.asked += 1


def test_regression_who_had_it_not_is_asked_again(chain: Chain) -> None:
    """A village was told once that its township has not got it, whose own was damaged just then, and not again for as
    long as they were connected."""
    village, now_ms = chain[VILLAGE], [0.0]
    damage(village)
    session: Any = Session()
    mender = mending.Mender(village.store, [session], lambda _places: None, lambda: now_ms[0])
    mender.found([(str(LOG), 0)])
    mender.ask_again()
    assert session.asked == 1
    now_ms[0] = mending.AGAIN_MS
    mender.ask_again()
    mender.ask_again()
    assert session.asked == 2
    mender.mended(WANT)
    now_ms[0] *= 2
    mender.ask_again()
    assert session.asked == 2


def test_regression_what_came_is_taken_in_whatever_lies_damaged_in_the_way(chain: Chain, tmp_path: Path) -> None:
    """A stick was taken in, and its answer not written: the projection met a damaged segment."""
    township = chain[TOWNSHIP]
    damage(township)
    with closing(Projector(tmp_path / "state.db", township.store, township.trust)) as projector:
        with pytest.raises(IntegrityError, match="FN-6601"):
            follow(projector)
        assert follow_what_came(projector) == 0


def test_regression_a_head_is_not_compared_with_damaged_bytes(chain: Chain) -> None:
    """An honest parent's cosignature was refused (FN-6414), with an alert: the root was read from where a bit had
    flipped. It waits, and is kept when the segment is mended."""
    township = chain[TOWNSHIP]
    _, raw = damage(township)
    link = township.link(COUNTY)
    head = witness.WitnessedHead(str(LOG), 1, (given("1301", raw),))
    township.writer.witnessed(link, witness.Witnessed(7, (head,)))
    assert township.refusals() == set()
    assert "1301" not in kept(township)
    assert mend(township, VILLAGE, raw).mended == WANT
    assert "1301" in kept(township)
    assert township.store.rows("select * from early") == []


def test_regression_a_cosignature_for_what_is_damaged_waits_for_it(chain: Chain) -> None:
    """The session with the honest parent that gave it ended (FN-6414), or it was lost."""
    township = chain[TOWNSHIP]
    with township.store.write() as tx:
        tx.execute("delete from witness")
    lsn, raw = damage(township)
    told = [(lsn, replace(given(COUNTY, raw), witness=""), "")]
    township.writer.acknowledged(township.link(COUNTY).peer_id, told, WORLD.identity(COUNTY), lsn)
    assert COUNTY not in kept(township)
    mend(township, VILLAGE, raw)
    assert COUNTY in kept(township)


def test_regression_what_the_first_parent_signed_comes_back_with_a_mended_segment(chain: Chain) -> None:
    """At its author, where the acknowledgement came while it was damaged: there alone its changes would have counted as
    of their own stamps."""
    village = chain[VILLAGE]
    lsn, raw = damage(village)
    signed = village.store.first_parent(lsn)
    assert signed is not None
    with village.disk() as c:
        c.execute("update segment set first_time = null, first_signature = null where lsn = ?", (lsn,))
    assert mend(village, TOWNSHIP, raw, signed).mended == WANT
    assert village.store.first_parent(lsn) == signed


def test_regression_what_could_not_be_signed_for_the_author_is_signed_when_it_is_mended(chain: Chain) -> None:
    """A cut took a county's cosignature along, and at the next greeting the segment was damaged there."""
    county = chain[COUNTY]
    _, raw = damage(county)
    assert COUNTY not in kept(county)
    mend(county, TOWNSHIP, raw)
    rows = county.store.rows("select witness, child from witness where witness = ?", COUNTY)
    assert rows == [(COUNTY, TOWNSHIP)]


def test_regression_a_cosignature_of_what_was_announced_is_kept(chain: Chain) -> None:
    """The feed passed a damaged segment over, and announced it when it was mended: what the level above signed of it
    was taken for nothing's."""
    township = chain[TOWNSHIP]
    with township.store.write() as tx:
        tx.execute("delete from witness")
    lsn, raw = damage(township)
    mend(township, VILLAGE, raw)
    ((announced, of),) = township.store.rows("select lsn, segment_lsn from resealed")
    assert of == lsn == township.store.announced(announced) == township.store.announced(lsn)
    told = [(announced, replace(given(COUNTY, raw), witness=""), "")]
    township.writer.acknowledged(township.link(COUNTY).peer_id, told, WORLD.identity(COUNTY), announced)
    assert COUNTY in kept(township)
    assert seg.parse(raw).header.log == LOG


def test_regression_an_alert_is_written_though_one_before_it_is_damaged(chain: Chain) -> None:
    """Found by the simulator (seed 263): a township could not write that a child had fenced itself."""
    township = chain[TOWNSHIP]
    Journal(township.writer, lambda: township.now_ms, "test", "test").alert("FN-6420", VILLAGE, {"log": "one"})
    name = township.trust.log_name(ALERTS, township.trust.area)
    damage(township, name)
    journal = Journal(township.writer, lambda: township.now_ms, "test", "test")
    journal.alert("FN-6422", VILLAGE, {"log": "other"})
    assert township.store.log_state(name).size == 2


def test_what_was_refused_of_what_is_damaged_is_told_of_by_its_number(chain: Chain) -> None:
    village = chain[VILLAGE]
    journal = Journal(village.writer, lambda: village.now_ms, "test", "test")
    village.writer.on_refusals = journal.refused
    lsn, _ = damage(village)
    told = [(lsn, None, "FN-6406")]
    village.writer.acknowledged(village.link(TOWNSHIP).peer_id, told, WORLD.identity(TOWNSHIP), lsn)
    assert village.refusals() == {"FN-6406"}
