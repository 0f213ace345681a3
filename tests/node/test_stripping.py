"""The writer and erases: what sticks, who may put stripped bytes in the place of others, what is sent again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto.errors import FednodeError
from fednode.node import erasures, fence
from fednode.node.admission import feeds
from fednode.node.erasures import own_erasures
from fednode.node.fence import Place, place
from fednode.node.link import Link
from fednode.node.store import Store
from fednode.node.stripping import HANDED_BACK_MAX
from fednode.node.trust import Trust
from fednode.node.writer import CHECK_BYTES, Writer
from fednode.sync import segment as seg
from fednode.sync.change import ERASE, Change, Columns, LogName
from fednode.sync.effects import Commit, Done, HalfSegment, Item
from fednode.sync.log import OwnSegment
from fednode.sync.rewrap import is_rewrap
from fednode.sync.side import PULL_BYTES
from fednode.sync.strip import erase_change, reseal, strip
from fednode.sync.wire import Cursor, Want
from world import NOW_S, Stream, World, seed, shop

WORLD = World()
VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"
READERS = (PROVINCE, COUNTY, TOWNSHIP, VILLAGE)
LOG = WORLD.log(VILLAGE)
HLC = (NOW_S * 1000) << 16


def flipped(raw: bytes) -> bytes:
    """Other bytes, whatever they were."""
    return raw[:-1] + bytes((raw[-1] ^ 1,))


class Node:
    """A node that knows all of the world, with a real store and writer."""

    def __init__(self, node: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.id = node
        home = WORLD.places[node]
        self.store = Store.create(folder / "log.db", store_id=seed(node)[:16], stash_key=seed("stash"))
        self.trust = Trust(home.chain, node)
        self.trust.directory, self.trust.catalog = WORLD.directory(), WORLD.catalog
        self.writer = Writer(self.store, self.trust, home.keys, lambda: NOW_S * 1000, Stream(node))  # type: ignore[arg-type]
        self._lsn = 0

    def link(self, peer: str) -> Link:
        with self.store.write() as tx:
            row = tx.ensure_peer(peer, "x")
        from_parent = self.trust.directory.parent_of(self.id) == peer
        return Link(WORLD.identity(peer), row.id, bytes(16), from_parent, row.have.lsn, position=row.have.lsn)

    def take(self, link: Link, *raws: bytes) -> list[Done]:
        """Segments from a peer, with the first parent's cosignature where one is needed."""
        commits = []
        for raw in raws:
            self._lsn += 1
            log = seg.parse(raw).header.log
            witness = WORLD.directory().parent_of(log.origin)
            needed = witness is not None and self.id not in (witness, log.origin)
            commits.append(Commit(self._lsn, raw, WORLD.cosignature(witness, raw) if needed and witness else None))
        return [done for _, done in self.writer.incoming([(link, commit) for commit in commits])]

    def raw(self, log: LogName = LOG, first: int = 0) -> bytes:
        there = self.store.held_range(log, first)
        assert there is not None
        return there[3]

    def columns(self, log: LogName = LOG, first: int = 0) -> Columns | None:
        log_id = self.store.log_id(log)
        held = self.store.segment_at(log_id, first) if log_id is not None else None
        assert held is not None
        return self.store.columns(held)

    def receipts(self) -> list[dict[str, Any]]:
        """What it said in sys.receipts."""
        import msgspec

        found = []
        for log_id, name, size in self.store.logs():
            if name.dataset == "sys.receipts" and name.origin == self.id:
                for seq in range(size):
                    held = self.store.segment_at(log_id, seq)
                    assert held is not None
                    columns = self.store.columns(held)
                    assert columns is not None
                    found.append({"audience": name.audience, **msgspec.json.decode(columns.payloads[seq - held.first])})
        return found


Make = Callable[[str], Node]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    nodes: list[Node] = []

    def one(node: str) -> Node:
        nodes.append(Node(node, tmp_path / f"{node}-{len(nodes)}"))
        return nodes[-1]

    yield one
    for node in nodes:
        node.store.close()


def records(*names: str) -> OwnSegment:
    return WORLD.segment(VILLAGE, [shop(name, VILLAGE) for name in names], readers=READERS)


def erase_of(own: OwnSegment, *seqs: int, by: str = VILLAGE) -> OwnSegment:
    """The erase of changes of the village's log, by the village itself or by its county."""
    changes = [erase_change(LOG, seq, "court order") for seq in seqs]
    if by == VILLAGE:
        return WORLD.segment(VILLAGE, changes, state=own.after, hlc=HLC + 1000, readers=READERS)
    return WORLD.segment(by, changes, audience=VILLAGE, hlc=HLC + 1000, readers=READERS)


def resealed(own: OwnSegment, sealer: str, *positions: int, readers: tuple[str, ...] = READERS) -> bytes:
    place = WORLD.places[sealer]
    columns = strip(own.columns, positions)
    made, _ = reseal(
        seg.parse(own.raw),
        columns,
        place.identity,
        WORLD.readers(*readers),
        place.keys.sign.sign,
        Stream(sealer, positions),
    )
    return made


def feed(node: Node, after: int = 0) -> list[Item]:
    items, drained = node.store.feed_up(after, PULL_BYTES)
    assert drained
    return items


# ---------------------------------------------------------------- an erase, and what comes after it


def test_an_erase_strips_what_is_held_and_tells_of_it(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b", "c")
    link = county.link(TOWNSHIP)
    assert not any(done.refused for done in county.take(link, own.raw, erase_of(own, 1).raw))
    columns = county.columns()
    assert columns == strip(own.columns, [1])
    header = seg.parse(county.raw()).header
    assert (header.sealer, header.root) == ("130102/1", own.after.root)
    (told,) = county.receipts()
    assert (told["audience"], told["log"], told["first"], told["erased"]) == (VILLAGE, str(LOG), 0, [1])
    # the segment is sent again, after the erase, to the city, which cannot read it
    sent = [(seg.parse(item.data).header.log.dataset, seg.parse(item.data).header.stripped) for item in feed(county)]
    assert sent == [("shop", 1), ("shop", 0), ("shop", 1), ("sys.receipts", 0)]


@pytest.mark.parametrize("again", ["whole", "stripped", "both"])
def test_a_replay_changes_nothing_and_is_no_fork(make: Make, again: str) -> None:
    county, own = make(COUNTY), records("a", "b")
    link = county.link(TOWNSHIP)
    county.take(link, own.raw, erase_of(own, 0).raw)
    before, lsn = county.raw(), county.store.lsn
    for raw in {"whole": [own.raw], "stripped": [resealed(own, VILLAGE, 0)]}.get(
        again, [own.raw, resealed(own, TOWNSHIP, 0)]
    ):
        (done,) = county.take(link, raw)
        assert not done.refused
        assert done.gap is None
    assert (county.raw(), county.store.lsn, county.store.refused()) == (before, lsn, [])


def test_what_comes_after_its_erase_is_stripped_before_it_is_stored(make: Make) -> None:
    """The county's erase overtakes the village's record, as after a long time apart, or from a stick."""
    county, own = make(COUNTY), records("a", "b")
    county.take(county.link(CITY))  # nothing yet
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "court order")])
    assert county.receipts() == []
    (done,) = county.take(county.link(TOWNSHIP), own.raw)
    assert not done.refused
    assert county.columns() == strip(own.columns, [0])
    assert [told["erased"] for told in county.receipts()] == [[0]]
    assert [seg.parse(item.data).header.stripped for item in feed(county)] == [0, 1, 0]  # as it is, and only once


def test_erases_of_one_segment_add_up(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b", "c")
    county.take(county.link(TOWNSHIP), own.raw)
    for seq in (2, 0, 2):
        county.writer.local("shop", VILLAGE, [erase_change(LOG, seq, "x")])
    assert county.columns() == strip(own.columns, [0, 2])
    assert county.receipts()[-1]["erased"] == [0, 2]


def test_an_erase_is_not_erased(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b")
    erase = erase_of(own, 0)
    county.take(county.link(TOWNSHIP), own.raw, erase.raw)
    before = county.raw(first=2)
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 2, "x")])
    assert county.raw(first=2) == before
    columns = county.columns(first=2)
    assert columns is not None
    assert columns.ops == bytes((ERASE,))


def test_nothing_stays_of_a_transaction_that_failed(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b")
    county.take(county.link(TOWNSHIP), own.raw)

    def fails(_tx: Any) -> None:
        raise RuntimeError

    with pytest.raises(RuntimeError):
        county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")], fails)
    assert (county.raw(), county.receipts()) == (own.raw, [])
    county.writer.local("shop", VILLAGE, [Change(b"z", b'{"name":"z"}')])
    assert county.receipts() == []


# ---------------------------------------------------------------- who carries and cannot read


@pytest.fixture
def city(make: Make) -> Node:
    """A city that carries the village's log."""
    node = make(CITY)
    node.take(node.link(COUNTY), records("a", "b", "c").raw)
    assert node.columns() is None
    return node


OWN = records("a", "b", "c")


def test_a_carrier_takes_the_stripped_segment_passes_it_on_and_says_so(city: Node) -> None:
    raw = resealed(OWN, COUNTY, 1)
    (done,) = city.take(city.link(COUNTY), raw)
    assert not done.refused
    assert city.raw() == raw
    assert [item.data for item in feed(city)][:2] == [raw, raw]
    (told,) = city.receipts()
    assert (told["audience"], told["stripped"], "erased" in told) == (VILLAGE, 1, False)


def test_it_never_goes_back(city: Node) -> None:
    link = city.link(COUNTY)
    two = resealed(OWN, COUNTY, 0, 1)
    city.take(link, resealed(OWN, COUNTY, 1), two)
    lsn = city.store.lsn
    city.take(link, OWN.raw, resealed(OWN, COUNTY, 1), resealed(OWN, TOWNSHIP, 1, 2))
    assert (city.raw(), city.store.lsn) == (two, lsn)


@pytest.mark.parametrize("hostile", ["sibling", "readers", "signature", "count", "body"])
def test_a_carrier_takes_it_from_nobody_else(city: Node, hostile: str) -> None:
    before = city.raw()
    raw = {
        "sibling": lambda: resealed(OWN, "130104", 1),
        "readers": lambda: resealed(OWN, COUNTY, 1, readers=(PROVINCE, "1302")),
        "signature": lambda: flipped(resealed(OWN, COUNTY, 1)),
        "count": lambda: resealed(records("a", "b"), COUNTY, 1),
        "body": lambda: resealed(OWN, COUNTY, 1).replace(seg.parse(resealed(OWN, COUNTY, 1)).body[:16], bytes(16)),
    }[hostile]()
    (done,) = city.take(city.link(COUNTY), raw)
    assert done.refused
    assert (city.raw(), city.receipts()) == (before, [])


@pytest.mark.parametrize("sealer", [PROVINCE, CITY])
def test_what_was_stripped_above_comes_down_to_who_carries_it(make: Make, sealer: str) -> None:
    """Where the city can read it, or another above it, the county below that carries it gets the stripped form."""
    readers = (PROVINCE, CITY, VILLAGE)
    own = WORLD.segment(VILLAGE, [shop("a", VILLAGE), shop("b", VILLAGE)], readers=readers)
    county = make(COUNTY)
    county.take(county.link(TOWNSHIP), own.raw)
    raw = resealed(own, sealer, 1, readers=readers)
    (done,) = county.take(county.link(CITY), raw)
    assert not done.refused
    assert county.raw() == raw
    down, _ = county.store.feed_down(WORLD.identity(TOWNSHIP).scope, 0, PULL_BYTES)
    assert [item.data for item in down if seg.parse(item.data).header.stripped] == [raw]  # the township carries, too
    (told,) = county.receipts()
    assert (told["audience"], told["stripped"]) == (VILLAGE, 1)


@pytest.mark.parametrize("hostile", ["whole", "sibling", "readers", "signature", "count"])
def test_from_above_a_carrier_takes_nothing_else(make: Make, hostile: str) -> None:
    own = WORLD.segment(VILLAGE, [shop("a", VILLAGE), shop("b", VILLAGE)], readers=(PROVINCE, VILLAGE))
    county = make(COUNTY)
    county.take(county.link(TOWNSHIP), own.raw)
    raw = {
        "whole": lambda: own.raw,
        "sibling": lambda: resealed(own, "130104", 1, readers=(PROVINCE,)),
        "readers": lambda: resealed(own, PROVINCE, 1, readers=(PROVINCE, "1302")),
        "signature": lambda: flipped(resealed(own, PROVINCE, 1, readers=(PROVINCE,))),
        "count": lambda: resealed(records("a"), PROVINCE, 0, readers=(PROVINCE,)),
    }[hostile]()
    (done,) = county.take(county.link(CITY), raw)
    assert done.refused
    assert (county.raw(), county.receipts()) == (own.raw, [])


def test_from_above_a_reader_takes_nothing(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b")
    county.take(county.link(TOWNSHIP), own.raw)
    (done,) = county.take(county.link(CITY), resealed(own, PROVINCE, 0, 1))
    assert not done.refused
    assert (county.raw(), county.receipts()) == (own.raw, [])


def test_what_is_not_held_is_not_asked_for(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b")
    more = WORLD.segment(VILLAGE, [shop("d", VILLAGE)], state=own.after, hlc=HLC + 50, readers=READERS)
    for raw in (resealed(own, PROVINCE, 0), resealed(more, PROVINCE, 0)):
        (done,) = county.take(county.link(CITY), raw)
        assert (done.refused, done.gap) == ("", None)
    assert county.store.log_id(LOG) is None


def test_a_child_that_reads_it_is_not_told_again(make: Make) -> None:
    """It strips by the erase, and tells who is below it."""
    county, own = make(COUNTY), records("a", "b")
    county.take(county.link(TOWNSHIP), own.raw)
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])
    down, _ = county.store.feed_down(WORLD.identity(TOWNSHIP).scope, 0, PULL_BYTES)
    assert [seg.parse(item.data).header.log.origin for item in down] == [COUNTY, COUNTY]  # the erase, the receipt


def test_regression_a_carrier_that_comes_with_an_old_copy_is_told_again(make: Make) -> None:
    """It was given the stripped form while it did not hold the segment (its store was lost, say), and then took the
    whole one from an old stick of the village's: it kept that for good. Not told: whose word is on its way, and who
    brings it again and again."""
    readers = (PROVINCE, COUNTY, VILLAGE)
    county, own = make(COUNTY), WORLD.segment(VILLAGE, [shop("a", VILLAGE)], readers=readers)
    link = county.link(TOWNSHIP)
    county.take(link, own.raw)
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])

    def told(after: int) -> list[bytes]:
        down, _ = county.store.feed_down(WORLD.identity(TOWNSHIP).scope, after, PULL_BYTES)
        return [item.data for item in down if not is_rewrap(item.data) and seg.parse(item.data).header.log == LOG]

    lsn = county.store.lsn
    assert told(0) == [county.raw()]
    county.take(link, own.raw)
    assert told(lsn) == [], "it has not answered yet"
    for round in range(HANDED_BACK_MAX + 1):
        lsn = county.store.lsn
        with county.store.write() as tx:
            tx.raise_acked(link.peer_id, lsn)
        (done,) = county.take(link, own.raw)
        assert not done.refused
        assert told(lsn) == ([county.raw()] if round < HANDED_BACK_MAX - 1 else [])
    assert seg.parse(county.raw()).header.stripped == 1


def test_a_child_of_release_0_1_is_handed_nothing_back(make: Make) -> None:
    """It would refuse it, and raise an alert."""
    readers = (PROVINCE, COUNTY, VILLAGE)
    county, own = make(COUNTY), WORLD.segment(VILLAGE, [shop("a", VILLAGE)], readers=readers)
    county.take(county.link(TOWNSHIP), own.raw)
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])
    link = county.link(TOWNSHIP)
    for version, handed in ((1, []), (2, [VILLAGE])):
        with county.store.write() as tx:
            tx.set_meta(f"protocol/{TOWNSHIP}", version)
        down, _ = feeds(county.store, county.trust, link)[0](0, PULL_BYTES)
        origins = [seg.parse(item.data).header.log.origin for item in down if not is_rewrap(item.data)]
        assert [one for one in origins if one != COUNTY] == handed


def test_a_reader_does_not_take_anothers_word_for_what_is_gone(make: Make) -> None:
    """Else a relay could make everyone forget what it pleases."""
    county = make(COUNTY)
    link = county.link(TOWNSHIP)
    county.take(link, OWN.raw)
    (done,) = county.take(link, resealed(OWN, TOWNSHIP, 0, 1, 2))
    assert not done.refused
    assert county.raw() == OWN.raw


def test_what_comes_stripped_and_no_erase_explains_is_remembered(make: Make) -> None:
    county = make(COUNTY)
    county.take(county.link(TOWNSHIP), resealed(OWN, TOWNSHIP, 0))
    assert county.store.connection.execute("select log, first, peer from withheld").fetchall() == [
        (str(LOG), 0, TOWNSHIP)
    ]


def test_a_gap_is_asked_for_as_ever(city: Node) -> None:
    more = WORLD.segment(VILLAGE, [shop("d", VILLAGE)], state=OWN.after, hlc=HLC + 50)
    last = WORLD.segment(VILLAGE, [shop("e", VILLAGE), shop("f", VILLAGE)], state=more.after, hlc=HLC + 60)
    (done,) = city.take(city.link(COUNTY), resealed(last, COUNTY, 0))
    assert done.gap == Want(str(LOG), 3)


# ---------------------------------------------------------------- cursors, evidence, keys


def test_a_peers_cursor_is_recognised_after_a_strip(make: Make) -> None:
    county = make(COUNTY)
    county.take(county.link(TOWNSHIP), OWN.raw)
    (item,) = feed(county)
    there = Cursor(county.store.store_id, item.lsn, seg.parse(item.data).header.root[:CHECK_BYTES])
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])
    assert place(county.store, there) is Place.SAME
    for again in feed(county, item.lsn):
        check = seg.parse(again.data).header.root[:CHECK_BYTES]
        assert place(county.store, Cursor(county.store.store_id, again.lsn, check)) is Place.SAME
        assert place(county.store, Cursor(county.store.store_id, again.lsn, bytes(8))) is Place.OTHER


def test_what_is_sent_again_is_owed_until_it_is_acknowledged(make: Make) -> None:
    county = make(COUNTY)
    county.take(county.link(TOWNSHIP), OWN.raw)
    lsn = county.store.lsn
    assert county.store.backlog_up(lsn).segments == 0
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])
    owed = county.store.backlog_up(lsn)
    assert (owed.segments, owed.changes) == (3, 1)  # the erase, the stripped segment, the receipt


def test_a_feed_of_many_that_are_sent_again_is_bounded(make: Make) -> None:
    county = make(COUNTY)
    link, state = county.link(TOWNSHIP), None
    for i in range(12):
        own = WORLD.segment(VILLAGE, [shop(f"k{i}", VILLAGE)], state=state, hlc=HLC + i, readers=READERS)
        state = own.after
        county.take(link, own.raw)
    lsn = county.store.lsn
    county.writer.local("shop", VILLAGE, [erase_change(LOG, i, "x") for i in range(12)])
    seen: list[int] = []
    after = lsn
    for _ in range(40):
        items, drained = county.store.feed_up(after, 3_000)
        assert sum(len(item.data) for item in items[:-1]) <= 3_000
        seen += [item.lsn for item in items]
        after = max([after, *seen])
        if drained:
            break
    assert seen == sorted(set(seen))
    assert len(seen) == 1 + 12 + 1  # the erases, the segments, the receipts
    assert after == county.store.lsn


def test_a_key_is_never_stashed_under_the_same_number_twice(make: Make) -> None:
    """AES-GCM with one nonce for two keys would give both away."""
    county = make(COUNTY)
    county.take(county.link(TOWNSHIP), OWN.raw)
    numbers = []
    for seq in (None, 0, 1):
        if seq is not None:
            county.writer.local("shop", VILLAGE, [erase_change(LOG, seq, "x")])
        stash = county.store.connection.execute("select content_key from segment where lsn = 1").fetchone()[0]
        numbers.append(stash[-8:])
    assert len(set(numbers)) == 3


def test_evidence_keeps_its_head_and_loses_its_body(make: Make) -> None:
    county = make(COUNTY)
    link = county.link(TOWNSHIP)
    other = WORLD.segment(VILLAGE, [shop("a", VILLAGE), shop("b", VILLAGE)], hlc=HLC + 7, readers=READERS)
    county.take(link, OWN.raw)
    assert county.take(link, other.raw)[0].refused == "FN-6420"
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])
    (data,) = county.store.connection.execute("select data from refused").fetchone()
    assert seg.parse(other.raw).body not in data
    assert seg.parse(other.raw).header.raw in data
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    assert evidence(county) == [data], "regression: the next erase took the head, too"


def refuse(node: Node, own: OwnSegment) -> None:
    """A segment of the village that is refused (its township has not cosigned it), and kept as evidence."""
    link = node.link(TOWNSHIP)
    witness = WORLD.cosignature(CITY, own.raw)
    node._lsn += 1
    ((_, done),) = node.writer.incoming([(link, Commit(node._lsn, own.raw, witness))])
    assert done.refused == "FN-6407"


def evidence(node: Node) -> list[bytes]:
    return [data for (data,) in node.store.connection.execute("select data from refused")]


def test_regression_evidence_of_what_is_not_held_loses_its_body_too(make: Make) -> None:
    """A segment was refused; what it holds was erased later. It was not held, so nothing was stripped, and the evidence
    stayed whole, sealed to this node."""
    county, own = make(COUNTY), records("a", "b")
    refuse(county, own)
    assert seg.parse(own.raw).body in evidence(county)[0]
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    (data,) = evidence(county)
    assert seg.parse(own.raw).body not in data
    assert seg.parse(own.raw).header.raw in data
    assert county.store.meta("unclean") == 1


def test_regression_evidence_that_comes_after_the_erase_has_no_body(make: Make) -> None:
    """An old copy of what was erased is offered, and refused: it was kept whole, for good."""
    county, own = make(COUNTY), records("a", "b")
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    refuse(county, own)
    (data,) = evidence(county)
    assert seg.parse(own.raw).body not in data
    assert seg.parse(own.raw).header.raw in data


@pytest.mark.parametrize("later", [False, True])
def test_regression_evidence_of_a_fork_loses_its_body_wherever_it_stands(make: Make, later: bool) -> None:
    """In a fork the same record stands at another number: an erase of that of the log did not reach it."""
    county = make(COUNTY)
    link = county.link(TOWNSHIP)
    county.take(link, OWN.raw, WORLD.segment(VILLAGE, [shop("d", VILLAGE)], state=OWN.after, hlc=HLC + 50).raw)
    other = WORLD.segment(VILLAGE, [shop("a", VILLAGE)], state=OWN.after, hlc=HLC + 60, readers=READERS)
    fork = [
        lambda: county.take(link, other.raw),
        lambda: county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")]),
    ]
    for step in reversed(fork) if later else fork:
        step()
    (data,) = evidence(county)
    assert seg.parse(other.raw).header.raw in data
    assert seg.parse(other.raw).body not in data


def test_evidence_of_what_nobody_erased_is_whole(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b")
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 7, "x")])
    refuse(county, own)
    assert evidence(county) == [own.raw]


def test_regression_evidence_that_cannot_be_read_goes_with_the_next_erase(make: Make) -> None:
    """Nobody knows what it holds, so no erase ever reached it: a copy whose header was damaged on its way."""
    county, own = make(COUNTY), records("a", "b")
    at = own.raw.index(str(LOG).encode())
    broken = own.raw[:at] + b"\xff" + own.raw[at + 1 :]
    ((_, done),) = county.writer.incoming([(county.link(TOWNSHIP), Commit(1, broken, None))])
    assert done.refused
    assert seg.parse(own.raw).body in evidence(county)[0]
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    assert evidence(county) == [b""]


def test_regression_a_carrier_s_evidence_loses_its_body_when_the_segment_comes_stripped(make: Make) -> None:
    """It had refused the whole one and never held it; no erase that it can read tells it."""
    city, own = make(CITY), records("a", "b")
    link = city.link(COUNTY)
    ((_, done),) = city.writer.incoming([(link, Commit(1, own.raw, WORLD.cosignature(CITY, own.raw)))])
    assert done.refused == "FN-6407"
    city.store.connection.execute("update refused set first = 1")  # no reason to refuse what comes now
    (done,) = city.take(link, resealed(own, COUNTY, 0))
    assert not done.refused
    assert seg.parse(own.raw).body not in evidence(city)[0]


def half_of(raw: bytes, share: float = 0.9) -> HalfSegment:
    return HalfSegment(9, len(raw), bytes(32), bytearray(raw[: int(len(raw) * share)]))


def test_regression_half_a_segment_that_is_not_held_goes_with_its_erase(make: Make) -> None:
    """The line was cut in the midst of it; the erase came another way, and whoever had sent it never came back."""
    county, own = make(COUNTY), records("a", "b")
    county.writer.keep_half(TOWNSHIP, half_of(own.raw))
    assert county.store.partial(TOWNSHIP) is not None
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    assert county.store.partial(TOWNSHIP) is None


def test_regression_half_a_segment_is_not_kept_after_its_erase(make: Make) -> None:
    """An old copy, cut in the midst."""
    county, own = make(COUNTY), records("a", "b")
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    county.writer.keep_half(TOWNSHIP, half_of(own.raw))
    assert county.store.partial(TOWNSHIP) is None
    county.writer.keep_half(TOWNSHIP, half_of(resealed(own, VILLAGE, 1)))
    assert county.store.partial(TOWNSHIP) is not None, "stripped as far as is known"
    county.writer.keep_half(TOWNSHIP, half_of(own.raw, 0.1))
    assert county.store.partial(TOWNSHIP) is not None, "less than the header: nothing of it can be read"


def test_a_damaged_segment_does_not_stop_the_writer(make: Make) -> None:
    county, own = make(COUNTY), records("a", "b")
    link = county.link(TOWNSHIP)
    county.take(link, own.raw)
    county.store.connection.execute("update segment set data = ? where lsn = 1", (flipped(own.raw),))
    (done,) = county.take(link, erase_of(own, 0).raw)
    assert not done.refused
    with pytest.raises(FednodeError):
        county.columns()


def test_a_carrier_confirms_what_its_sealer_says_and_no_more(make: Make) -> None:
    """Regression: a receipt of the one strip, written after another erase, counted as that one's."""
    county, city, own = make(COUNTY), make(CITY), records("a", "b", "c")
    county.take(county.link(TOWNSHIP), own.raw)
    city.take(city.link(COUNTY), own.raw)

    def waited_for() -> list[list[str]]:
        said = [*county.receipts(), *city.receipts()]
        found = own_erasures(county.store, county.trust, said)
        return [[one.node for one in erasure.waiting if one.node in (CITY, COUNTY)] for erasure in found]

    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x")])
    first = county.raw()
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 1, "x")])
    assert waited_for() == [[CITY], [CITY]]
    city.take(city.link(COUNTY), first)  # later than both erases
    assert waited_for() == [[CITY], [CITY]]
    city.take(city.link(COUNTY), county.raw())
    assert waited_for() == [[], []]


def test_regression_who_has_to_confirm_is_not_looked_for_among_all_nodes(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For each version that was erased the path of each of 56,712 nodes of a province was gone up, and all receipts
    through for each of its holders (found by reading, for the simulator with the tree of Hebei)."""
    county, own = make(COUNTY), records("a", "b")
    county.take(county.link(TOWNSHIP), own.raw)
    county.writer.local("shop", VILLAGE, [erase_change(LOG, 0, "x"), erase_change(LOG, 1, "x")])
    gone_up: list[str] = []
    monkeypatch.setattr(erasures, "_above", lambda _trust, node: gone_up.append(node) or [])
    monkeypatch.setattr(erasures, "goes_down_to", lambda _down, scope: scope == (VILLAGE,))
    found = own_erasures(county.store, county.trust, county.receipts())
    assert [[one.node for one in erasure.holders][-3:] for erasure in found] == [[COUNTY, TOWNSHIP, VILLAGE]] * 2
    path = [one.node for one in county.trust.directory.path(VILLAGE)]
    assert [one.node for one in county.trust.directory.all() if one.node not in path]  # neighbours
    assert gone_up == []  # it goes to none of them


def test_a_carrier_that_takes_its_history_back_says_so_afterwards(make: Make) -> None:
    """Behind the fence it says nothing; the status would name it for ever."""
    city = make(CITY)
    with city.store.write() as tx:
        fence.put_up(tx, city.trust.me, "FN-7625", NOW_S * 1000)
    city.take(city.link(COUNTY), resealed(OWN, COUNTY, 1))
    assert city.receipts() == []
    with city.store.write() as tx:
        fence.lift(tx)
    city.writer.tell_stripped(0)
    assert [(one["sealer"], one["stripped"]) for one in city.receipts()] == [(f"{COUNTY}/1", 1)]
