"""What comes from peers, through the real writer and store: late cosignatures, cursors, what is committed meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fednode.crypto.errors import IntegrityError
from fednode.node import link as links
from fednode.node import projection, resealed, sqlite, transaction
from fednode.node import trust as trusting
from fednode.node.link import Link
from fednode.node.projection import Projector
from fednode.node.room import MIB, Room
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, NODES, UPSERT, Change, Columns
from fednode.sync.effects import Commit, Done
from fednode.sync.errors import PeerError, StoreError
from fednode.sync.feed import EVERY_CHILD, Route
from fednode.sync.identity import node_payload, revocation_payload
from fednode.sync.log import OwnSegment
from fednode.sync.side import PULL_BYTES
from fednode.sync.strip import erase_change
from fednode.sync.wire import Cosignature, Late, Want
from world import NOW_S, Stream, World, seed, shop

WORLD = World()
VILLAGE, TOWNSHIP, COUNTY = "130102001001", "130102001", "130102"
AHEAD = ((NOW_S + 3600) * 1000) << 16  # an hour ahead of everybody


class Node:
    """A node that knows all of the world."""

    def __init__(self, node: str, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        place = WORLD.places[node]
        self.path, self.now_s = folder, NOW_S
        self.store = Store.create(folder / "log.db", store_id=seed(node)[:16], stash_key=seed("stash"))
        self.trust = Trust(place.chain, node)
        self.trust.directory, self.trust.catalog = WORLD.directory(), WORLD.catalog
        self.writer = Writer(self.store, self.trust, place.keys, lambda: self.now_s * 1000, Stream(node))  # type: ignore[arg-type]

    def link(self, peer: str) -> Link:
        """A session's view of a peer."""
        with self.store.write() as tx:
            row = tx.ensure_peer(peer, "x")
        from_parent = self.trust.directory.parent_of(self.trust.node) == peer
        return Link(WORLD.identity(peer), row.id, bytes(16), from_parent, row.have.lsn, position=row.have.lsn)

    def take(self, link: Link, *commits: Commit) -> list[Done]:
        return [done for _, done in self.writer.incoming([(link, commit) for commit in commits])]

    def have(self, peer: str) -> int:
        row = self.store.peer(peer)
        assert row is not None
        return row.have.lsn


@pytest.fixture
def township(tmp_path: Path) -> Iterator[Node]:
    node = Node(TOWNSHIP, tmp_path / TOWNSHIP)
    yield node
    node.store.close()


def chain_of(count: int) -> list[OwnSegment]:
    """Consecutive segments of the village's log."""
    made: list[OwnSegment] = []
    for i in range(count):
        state = made[-1].after if made else None
        hlc = (NOW_S * 1000 + i) << 16
        made.append(WORLD.segment(VILLAGE, [shop(f"k{i}", VILLAGE)], state=state, hlc=hlc, readers=(TOWNSHIP,)))
    return made


def correction(hlc: int = AHEAD) -> OwnSegment:
    return WORLD.segment(COUNTY, [shop("a", VILLAGE)], audience=VILLAGE, hlc=hlc)


def late(own: OwnSegment, witness: str = "1301", **changed: Any) -> Late:
    given = WORLD.cosignature(witness, own.raw)
    told = Late(9, str(own.after.name), own.after.size, own.after.root, given)
    return replace(told, **changed)


# ---------------------------------------------------------------- what a witness has signed


def test_what_was_cosigned_once_is_told_again_as_it_was(township: Node) -> None:
    """A second time would be a second bound: the levels above could have heard the one, the child the other."""
    link, (own,) = township.link(VILLAGE), chain_of(1)
    (first,) = township.take(link, Commit(1, own.raw))
    township.now_s += 3600
    (again,) = township.take(link, Commit(1, own.raw))
    assert first.cosignature is not None
    assert again.cosignature == first.cosignature == township.store.first_parent(1)


def test_a_cosignature_that_does_not_verify_is_not_kept(tmp_path: Path) -> None:
    village = Node(VILLAGE, tmp_path / VILLAGE)
    link = village.link(TOWNSHIP)
    (lsn,) = village.writer.local("shop", VILLAGE, [shop("a", VILLAGE)])
    raw = village.store.segments(0, 1)[0].raw
    for given in (WORLD.cosignature(COUNTY, raw), replace(WORLD.cosignature(TOWNSHIP, raw), time_s=NOW_S - 1)):
        with pytest.raises(PeerError, match="FN-6414"):
            village.writer.acknowledged(link.peer_id, [(lsn, given, "")], link.peer, lsn)
        assert village.store.first_parent(lsn) is None
        assert village.store.peer(TOWNSHIP).acked == 0  # type: ignore[union-attr]
    village.writer.acknowledged(link.peer_id, [(lsn, WORLD.cosignature(TOWNSHIP, raw), "")], link.peer, lsn)
    assert village.store.first_parent(lsn) is not None
    village.writer.acknowledged(link.peer_id, [], link.peer, 0)
    assert village.store.peer(TOWNSHIP).acked == lsn, "an older word takes nothing back"  # type: ignore[union-attr]
    village.store.close()


def test_stamps_of_all_logs_rise_over_a_start_with_a_clock_set_back(tmp_path: Path) -> None:
    county = Node(COUNTY, tmp_path / COUNTY)
    county.writer.local("shop", COUNTY, [shop("a", COUNTY)])
    county.now_s -= 86_400
    again = Writer(county.store, county.trust, WORLD.places[COUNTY].keys, lambda: county.now_s * 1000, Stream("again"))  # type: ignore[arg-type]
    again.local("shop", VILLAGE, [shop("b", VILLAGE)])  # another log
    before, after = (held.last_hlc for held in county.store.segments(0, 2))
    assert after > before
    county.store.close()


# ---------------------------------------------------------------- who may read, and what stays


def test_a_segment_is_sealed_to_whoever_may_read_it_and_to_nobody_else(tmp_path: Path) -> None:
    village = Node(VILLAGE, tmp_path / VILLAGE)

    def readers() -> set[bytes]:
        (lsn,) = village.writer.local("shop", VILLAGE, [shop("a", VILLAGE)])
        return {*seg.parse(village.store.segments(lsn - 1, 1)[0].raw).header.readers}

    may = {node: one.key_id for node in ("13", COUNTY, TOWNSHIP, VILLAGE) for one in WORLD.readers(node)}
    assert readers() == set(may.values()), "the city carries it, and is no reader"
    village.trust.directory.apply(COUNTY, revocation_payload(TOWNSHIP, 1, NOW_S * 1000, "stolen"))
    assert readers() == set(may.values()) - {may[TOWNSHIP]}
    village.store.close()


def test_the_very_bytes_of_what_was_erased_are_in_no_file_when_the_erase_is_done(tmp_path: Path) -> None:
    village = Node(VILLAGE, tmp_path / VILLAGE)
    village.writer.local("shop", VILLAGE, [shop("a", VILLAGE)])
    needle = seg.parse(village.store.segments(0, 1)[0].raw).body[:48]

    def holding() -> list[str]:
        return [one.name for one in sorted(village.path.iterdir()) if needle in one.read_bytes()]

    assert holding() == ["log.db-wal"]
    village.writer.local("shop", VILLAGE, [erase_change(village.trust.log_name("shop", VILLAGE), 0, "court order")])
    assert holding() == []
    village.store.close()


def test_a_flipped_bit_is_found_at_every_read(township: Node) -> None:
    own = correction()
    append(township.store, own)
    flipped = own.raw[:-9] + bytes((own.raw[-9] ^ 1,)) + own.raw[-8:]
    with township.store.write() as tx:
        tx.execute("update segment set data = ?", flipped)
    for read in (township.store.segments, township.store.segment_at):
        with pytest.raises(IntegrityError, match="FN-6601"):
            read(1, 0) if read == township.store.segment_at else read(0, 1)
    assert township.store.feed_down(("130102001",), 0, PULL_BYTES)[0] == []


def test_of_two_catalogs_the_newer_is_in_force_in_whatever_order_they_come(township: Node) -> None:
    catalog = township.trust.catalog
    assert catalog is not None
    for version in (3, 2):
        said = replace(catalog, version=version).to_json()
        columns = Columns(version, [b"catalog"], [version], bytes((UPSERT,)), [said])
        township.trust.take(WORLD.log("13", CATALOG), columns)
        assert township.trust.catalog_version == 3


# ---------------------------------------------------------------- little room


def test_where_there_is_little_room_changes_and_segments_are_refused_and_erases_are_not(tmp_path: Path) -> None:
    county = Node(COUNTY, tmp_path / COUNTY)
    link = county.link(TOWNSHIP)
    own = WORLD.segment(VILLAGE, readers=(COUNTY,))
    county.writer.local("shop", COUNTY, [shop("a", COUNTY)])
    free = 8 * MIB  # beside a reserve that is not laid down yet
    county.store.room = Room(county.path, 8 * MIB, free=lambda _folder: free)
    before = county.store.lsn
    with pytest.raises(StoreError, match="FN-7630"):
        county.writer.local("shop", COUNTY, [shop("b", COUNTY)])
    with pytest.raises(StoreError, match="FN-7630"):
        county.take(link, Commit(1, own.raw, WORLD.cosignature(TOWNSHIP, own.raw)))
    assert county.store.lsn == before
    assert county.have(TOWNSHIP) == 0
    log = county.trust.log_name("shop", COUNTY)
    county.writer.local("shop", COUNTY, [erase_change(log, 0, "court order")])
    free = 16 * MIB
    county.writer.local("shop", COUNTY, [shop("b", COUNTY)])
    assert not county.take(link, Commit(1, own.raw, WORLD.cosignature(TOWNSHIP, own.raw)))[0].refused
    county.store.close()


# ---------------------------------------------------------------- late cosignatures


def test_a_late_cosignature_from_the_parent_is_kept(township: Node) -> None:
    link = township.link(COUNTY)
    own = correction()
    assert township.take(link, Commit(1, own.raw), Commit(9, b"", None, late(own))) == [Done(1), Done(9)]
    assert township.store.first_parent(1) is not None
    assert township.store.late_after(0, 9) == [(2, 1)]


def test_regression_a_late_cosignature_of_another_history_is_refused(township: Node) -> None:
    """It was kept, and the segment that is held then did not verify any more."""
    link = township.link(COUNTY)
    own, other = correction(), correction(AHEAD + 5)
    told = late(other)
    assert told.root != own.after.root
    assert township.take(link, Commit(1, own.raw), Commit(9, b"", None, told))[1].refused == "FN-6420"
    assert township.store.first_parent(1) is None
    assert [row["code"] for row in township.store.refused()] == ["FN-6420"]


def test_regression_a_late_cosignature_is_for_the_segment_that_ends_there(township: Node) -> None:
    """One for a size inside a segment went to the whole of it."""
    link = township.link(COUNTY)
    changes = [shop("a", VILLAGE), shop("b", VILLAGE)]
    both = WORLD.segment(COUNTY, changes, audience=VILLAGE, hlc=AHEAD, readers=(TOWNSHIP,))
    one = WORLD.segment(COUNTY, changes[:1], audience=VILLAGE, hlc=AHEAD, readers=(TOWNSHIP,))
    assert township.take(link, Commit(1, both.raw), Commit(9, b"", None, late(one))) == [Done(1), Done(9)]
    assert township.store.first_parent(1) is None


def test_regression_a_late_cosignature_from_below_is_refused(tmp_path: Path) -> None:
    """A township could have moved stamps of its villages after the county had passed them on."""
    county = Node(COUNTY, tmp_path / COUNTY)
    link = county.link(TOWNSHIP)
    own = WORLD.segment(VILLAGE, hlc=AHEAD, readers=(COUNTY,))
    at_first = WORLD.cosignature(TOWNSHIP, own.raw, NOW_S + 60)
    (done,) = county.take(link, Commit(1, own.raw, at_first))
    assert not done.refused
    told = late(own, TOWNSHIP)
    assert county.take(link, Commit(2, b"", None, told))[0].refused == "FN-5413"
    kept = county.store.first_parent(1)
    assert kept is not None
    assert kept.time_s == NOW_S + 60
    county.store.close()


# ---------------------------------------------------------------- cursors


def test_a_hole_holds_the_cursor_back_and_what_fills_it_moves_it_on(township: Node) -> None:
    """Regression: it moved on only with the next new segment, so a session later all was sent again."""
    link = township.link(VILLAGE)
    one, two, three = chain_of(3)
    done = township.take(link, Commit(1, one.raw), Commit(3, three.raw))
    assert done[1].gap == Want(str(two.after.name), 1)
    assert township.have(VILLAGE) == 2
    assert not township.take(link, Commit(2, two.raw))[0].gap
    assert township.have(VILLAGE) == 2
    assert township.take(link, Commit(3, three.raw))[0].cosignature
    assert township.have(VILLAGE) == 3


def test_regression_a_hole_filled_behind_the_newest_moves_the_cursor(township: Node) -> None:
    link = township.link(VILLAGE)
    one, two = chain_of(2)
    (other,) = [WORLD.segment(VILLAGE, [shop("z", VILLAGE)], audience=VILLAGE, readers=(TOWNSHIP,))]
    township.take(link, Commit(2, two.raw), Commit(3, other.raw))
    assert township.have(VILLAGE) == 1
    township.take(link, Commit(1, one.raw), Commit(2, two.raw))
    assert township.have(VILLAGE) == 3
    row = township.store.peer(VILLAGE)
    assert row is not None
    assert len(row.have.check) == 8


def test_regression_what_is_left_out_is_remembered_within_bounds(
    township: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number was kept for each segment that came before what precedes it, which need not ever come."""
    monkeypatch.setattr(links, "HOLES_MAX", 2)
    link = township.link(VILLAGE)
    made = chain_of(6)
    township.take(link, Commit(1, made[0].raw))
    early = [Commit(number + 1, made[number].raw) for number in (2, 3, 4, 5)]
    assert all(done.gap for done in township.take(link, *early))
    assert (link.holes, link.brink, township.have(VILLAGE)) == ({3, 4}, 5, 2)
    township.take(link, Commit(2, made[1].raw), *early[:2])
    assert (link.holes, township.have(VILLAGE)) == (set(), 4), "no further than what it did not remember"
    township.take(link, *early[2:])
    assert township.have(VILLAGE) == 4
    again = township.link(VILLAGE)
    township.take(again, *early[2:])
    assert township.have(VILLAGE) == 6, "the next session goes on there"


def test_regression_evidence_of_one_peer_is_bounded(township: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A child filled its parent's disk with what was refused, 256 KiB each: then no child's changes were taken."""
    link = township.link(VILLAGE)
    junk = [Stream("junk", number)(1_000) for number in range(1, 9)]
    monkeypatch.setattr(transaction, "EVIDENCE_BYTES_MAX", 2_500)
    monkeypatch.setattr(transaction, "EVIDENCE_ROWS_MAX", 3)

    def kept() -> list[int]:
        return [size for (size,) in township.store.rows("select length(data) from refused order by id")]

    def refused(data: bytes, lsn: int, log: str) -> bool:
        with township.store.write() as tx:
            return tx.keep_evidence(1, VILLAGE, "FN-6401", log, lsn, "{}", data)

    assert [refused(one, lsn, "x") for lsn, one in enumerate(junk, 1)] == [True] * 3 + [False] * 5
    assert kept() == [1_000, 1_000, 0]
    (done,) = township.take(link, Commit(1, junk[0]))
    assert (done.refused, kept()) == ("FN-6402", [1_000, 1_000, 0]), "it is refused all the same"
    assert not township.writer.refusals
    with township.store.write() as tx:
        assert tx.keep_evidence(1, COUNTY, "FN-6401", "x", 1, "{}", junk[0]), "of another peer there is room"
        assert tx.forget_refused(VILLAGE) == 3
    assert refused(junk[1], 9, "x")
    assert kept() == [1_000, 1_000]


def test_regression_a_peer_refuses_no_more_than_there_is(township: Node) -> None:
    """Each number that a child said that it refuses was kept, whether there was such a thing or not."""
    link = township.link(VILLAGE)
    township.take(link, Commit(1, chain_of(1)[0].raw))
    newest = township.store.lsn
    outcomes = [(lsn, None, "FN-6406") for lsn in (newest, newest + 1, 1 << 40)]
    township.writer.acknowledged(link.peer_id, outcomes, WORLD.identity(VILLAGE), 0)
    assert township.store.rows("select first from refused") == [(newest,)]


def test_a_group_that_fails_leaves_the_link_as_it_was(township: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    link = township.link(VILLAGE)
    one, two, three = chain_of(3)
    township.take(link, Commit(1, one.raw))
    before = replace(link, holes=set(link.holes))
    monkeypatch.setattr(Writer, "_move_have", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        township.take(link, Commit(2, two.raw), Commit(4, three.raw))
    assert link == before
    monkeypatch.undo()
    assert not township.take(link, Commit(2, two.raw))[0].gap
    assert township.have(VILLAGE) == 2


# ---------------------------------------------------------------- what another connection commits meanwhile


class Meanwhile:
    """Runs something once, right before a query: another connection commits in between."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, method: str, what: Callable[[], None], owner: Any = Store
    ) -> None:
        real = getattr(owner, method)
        self.done = False

        def before(*arguments: Any, **named: Any) -> Any:
            if not self.done:
                self.done = True
                what()
            return real(*arguments, **named)

        monkeypatch.setattr(owner, method, before)


def second(node: Node) -> Store:
    return Store.open(node.path / "log.db", stash_key=seed("stash"))


@contextmanager
def side_by_side(node: Node) -> Iterator[tuple[Projector, Projector]]:
    """Two projectors on one state.db, as two processes have it."""
    place = node.path / "state.db"
    with (
        closing(second(node)) as store,
        closing(Projector(place, node.store, node.trust)) as one,
        closing(Projector(place, store, node.trust)) as two,
    ):
        yield one, two


def append(store: Store, own: OwnSegment) -> None:
    with store.write() as tx:
        tx.append_own(own, Route(True, EVERY_CHILD))


def lower(store: Store, lsn: int) -> None:
    """A late cosignature comes for a segment."""
    with store.write() as tx:
        assert tx.set_first_parent(lsn, Cosignature(NOW_S, bytes(64))) is not None


def test_regression_a_projection_skips_nothing_that_is_committed_between_its_queries(
    township: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late cosignature seen without the segment before it took the cursor past that segment, for good."""
    append(township.store, correction())
    projector = Projector(township.path / "state.db", township.store, township.trust)
    other = second(township)

    def commits() -> None:
        append(other, WORLD.segment(COUNTY, [shop("b", COUNTY)], readers=(TOWNSHIP,)))
        lower(other, 1)

    between = Meanwhile(monkeypatch, "late_after", commits)
    projector.catch_up()
    assert between.done
    assert projector.cursor == 3
    assert projector.connection.execute("select key from record order by key").fetchall() == [("a",), ("b",)]
    projector.close()
    other.close()


def test_a_projection_that_another_process_was_faster_with_changes_nothing(
    township: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(township.store, correction())
    with side_by_side(township) as (one, two):
        refresh = township.trust.refresh

        def meanwhile(store: Store) -> bool:
            monkeypatch.setattr(township.trust, "refresh", refresh)
            append(two.store, WORLD.segment(COUNTY, [shop("b", COUNTY)], readers=(TOWNSHIP,)))
            assert two.catch_up() == 2
            return refresh(store)

        monkeypatch.setattr(township.trust, "refresh", meanwhile)
        assert one.step() == (0, True), "what the other has done is neither done nor counted again"
        assert one.cursor == two.cursor == 2


def test_regression_who_catches_up_beside_a_busy_daemon_waits_for_as_long_as_it_goes_on(
    township: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`fednode digest` at a standby that took in a million records: FN-7606, as the daemon was always faster."""
    append(township.store, correction())
    with side_by_side(township) as (one, busy):
        monkeypatch.setattr(sqlite, "BUSY_MS", 0)
        one.connection.execute("pragma busy_timeout = 0")
        refresh = township.trust.refresh

        def meanwhile(store: Store) -> bool:
            monkeypatch.setattr(township.trust, "refresh", refresh)
            busy.catch_up()
            busy.connection.execute("begin immediate")  # it is at the next already
            return refresh(store)

        monkeypatch.setattr(township.trust, "refresh", meanwhile)
        assert one.catch_up() == 0
        assert one.cursor == busy.cursor == township.store.lsn
        append(township.store, WORLD.segment(COUNTY, [shop("b", COUNTY)], readers=(TOWNSHIP,)))
        with pytest.raises(StoreError, match="FN-7606"):
            one.catch_up()  # nobody goes on
        busy.connection.execute("rollback")
        assert one.catch_up() == 1


def test_regression_a_daemon_goes_on_beside_who_catches_up_for_as_long_as_that_goes_on(
    township: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other way round: beside `fednode coverage` or `fednode alerts` at a standby that took in much its daemon said
    that the projection had stopped (FN-7606), and made a pause of ten seconds."""
    append(township.store, correction())
    with side_by_side(township) as (daemons, by_hand):
        daemons.connection.execute("pragma busy_timeout = 0")
        refresh = township.trust.refresh

        def meanwhile(store: Store) -> bool:
            monkeypatch.setattr(township.trust, "refresh", refresh)
            by_hand.catch_up()
            by_hand.connection.execute("begin immediate")  # it is at the next already
            return refresh(store)

        monkeypatch.setattr(township.trust, "refresh", meanwhile)
        assert daemons.step() == (0, True)
        append(township.store, WORLD.segment(COUNTY, [shop("b", COUNTY)], readers=(TOWNSHIP,)))
        with pytest.raises(StoreError, match="FN-7606"):
            daemons.step()  # nobody goes on
        by_hand.connection.execute("rollback")
        assert daemons.step() == (1, True)


def test_regression_nobody_waits_for_indexes_that_another_makes(
    township: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same standby: to make the indexes takes longer than anybody waits for a lock."""
    monkeypatch.setattr(projection, "INDEX_ROWS_MIN", 1)
    append(township.store, correction())
    with side_by_side(township) as (one, busy):
        while busy.step()[1]:
            pass
        busy.connection.execute("begin immediate")
        assert one.catch_up() == 0
        assert one.cursor == township.store.lsn
        assert one.connection.execute("pragma busy_timeout").fetchone()[0] == sqlite.BUSY_MS
        busy.connection.execute("rollback")
        assert one.index_fields()  # they were due


def test_a_log_that_was_extended_meanwhile_is_not_extended_from_where_it_was(township: Node) -> None:
    """Two processes start from one state: compare and swap lets one of them through."""
    one, other = (WORLD.segment(TOWNSHIP, [shop(key, TOWNSHIP)], readers=(COUNTY,)) for key in ("a", "b"))
    append(township.store, one)
    before = township.store.log_state(one.after.name)
    with pytest.raises(StoreError, match="FN-7611"):
        append(township.store, other)
    assert township.store.log_state(one.after.name) == before == one.after
    assert township.store.lsn == 1


@pytest.mark.parametrize("method", ["_down", "late_items", "items"])
def test_regression_a_feed_skips_nothing_that_is_committed_between_its_queries(
    township: Node, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """A new log or segment that the first query did not see yet, and something later that the next one did."""
    append(township.store, correction())
    other = second(township)

    def commits() -> None:
        append(other, WORLD.segment(COUNTY, [shop("b", COUNTY)], readers=(TOWNSHIP,)))
        lower(other, 1)

    if method == "_down":
        real = Store._rows

        def rows(store: Store, sql: str, *parameters: Any) -> Any:
            found = real(store, sql, *parameters)
            if store is township.store and sql.startswith("select id from log") and other.lsn == 1:
                commits()
            return found

        monkeypatch.setattr(Store, "_rows", rows)
    else:
        Meanwhile(monkeypatch, method, commits, resealed)
    scope = (VILLAGE,)
    seen: list[int] = []
    after = 0
    for _ in range(3):
        items, _ = township.store.feed_down(scope, after, PULL_BYTES)
        seen += [item.lsn for item in items]
        after = max([after, *seen])
    assert other.lsn == 3
    assert seen == [1, 2, 3]
    other.close()


def test_regression_belief_skips_nothing_that_is_committed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node enrolled between the last query and the note of how far had been read was unknown until the next start."""
    node = Node("1301", tmp_path / "1301")
    node.trust.directory = WORLD.directory(without=(COUNTY, "130104", TOWNSHIP, VILLAGE))
    reading = Trust(WORLD.places["1301"].chain, "1301")

    def enrol(child: str) -> None:
        payload = msgspec.json.encode(node_payload(WORLD.places[child].chain[0]))
        node.writer.local(NODES, "1301", [Change(child.encode(), payload)])

    enrol(COUNTY)
    real = Store.segments
    enrolled: list[str] = []

    def segments(store: Store, *arguments: Any, **named: Any) -> Any:
        found = real(store, *arguments, **named)
        if not found and not enrolled:
            enrolled.append("130104")
            enrol("130104")
        return found

    other = second(node)
    monkeypatch.setattr(Store, "segments", segments)
    assert reading.refresh(other)
    assert enrolled == ["130104"]
    reading.refresh(other)
    assert reading.directory.get(COUNTY) is not None
    assert reading.directory.get("130104") is not None
    other.close()
    node.store.close()


# ---------------------------------------------------------------- two installations with one identity


def test_regression_two_threads_that_follow_the_logs_take_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event loop and the writer took in the same enrolments at once, and one found the lists altered under it."""
    node = Node("1301", tmp_path / "1301")
    node.trust.directory = WORLD.directory(without=(COUNTY, "130104", TOWNSHIP, VILLAGE))
    reading = Trust(WORLD.places["1301"].chain, "1301")
    payload = msgspec.json.encode(node_payload(WORLD.places[COUNTY].chain[0]))
    node.writer.local(NODES, "1301", [Change(COUNTY.encode(), payload)])
    real, taken, answers = Trust.take, list[str](), list[bool]()
    first, other = second(node), second(node)
    thread = threading.Thread(target=lambda: answers.append(reading.refresh(other)))

    def take(trust: Trust, *given: Any) -> None:
        taken.append(threading.current_thread().name)
        if not thread.is_alive() and not answers:
            thread.start()
            thread.join(0.1)  # it waits for its turn; without turns it is through by then
        real(trust, *given)

    monkeypatch.setattr(Trust, "take", take)
    assert reading.refresh(first)
    thread.join()
    assert answers == [False]
    assert taken == [threading.current_thread().name]


def test_two_segments_at_one_place_of_a_peers_order_are_two_installations(township: Node) -> None:
    """Neither log forks; each is stored, the one that came second has to stop, once."""
    first, second = township.link(VILLAGE), township.link(VILLAGE)
    shops, audit = WORLD.segment(VILLAGE), WORLD.segment(VILLAGE, dataset="sys.audit", readers=(TOWNSHIP,))
    more = WORLD.segment(VILLAGE, state=audit.after, dataset="sys.audit", hlc=AHEAD, readers=(TOWNSHIP,))
    assert not township.take(first, Commit(1, shops.raw))[0].refused
    assert not township.take(second, Commit(1, audit.raw))[0].refused
    assert not township.take(second, Commit(2, more.raw))[0].refused
    (alarm,) = township.writer.alarms
    assert (alarm.code, alarm.node, alarm.ends) == ("FN-5515", VILLAGE, second)
    assert len(alarm.evidence) == 2


def test_a_peer_with_another_store_counts_anew(township: Node) -> None:
    link = township.link(VILLAGE)
    shops, audit = WORLD.segment(VILLAGE), WORLD.segment(VILLAGE, dataset="sys.audit", readers=(TOWNSHIP,))
    township.take(link, Commit(1, shops.raw))
    with township.store.write() as tx:
        tx.meet_store(link.peer_id, b"another store")
    peer = township.store.peer(VILLAGE)
    assert peer is not None
    again = replace(township.link(VILLAGE), since=peer.since)
    township.take(again, Commit(1, audit.raw))
    assert township.writer.alarms == []


# ---------------------------------------------------------------- what is worked out once


def test_what_follows_from_who_is_who_is_worked_out_again_when_that_changes(tmp_path: Path) -> None:
    """Who is revoked gets no key of what is written afterwards."""
    village = Node(VILLAGE, tmp_path / VILLAGE)
    shop_ = village.trust.dataset("shop")
    assert shop_ is not None
    before, _ = village.trust.readers(shop_, VILLAGE)
    assert village.trust.readers(shop_, VILLAGE)[0] is before
    village.trust.directory.apply(COUNTY, revocation_payload(TOWNSHIP, 1, NOW_S * 1000, "stolen"))
    after, _ = village.trust.readers(shop_, VILLAGE)
    gone = WORLD.identity(TOWNSHIP).seal_key
    assert gone in [one.public for one in before]
    assert [one for one in before if one.public != gone] == after
    village.trust.directory = WORLD.directory()
    assert village.trust.readers(shop_, VILLAGE)[0] == before
    village.store.close()


def test_no_more_answers_are_kept_than_there_is_room_for(township: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trusting, "KNOWN_MAX", 2)
    asked: list[int] = []
    for question in (1, 2, 1, 3, 1):
        assert township.trust.known(question, lambda q=question: asked.append(q) or q) == question  # type: ignore[misc]
    assert asked == [1, 2, 3, 1] or asked == [1, 2, 1, 3, 1]


def test_a_store_counts_the_arrival_numbers_that_are_on_disk(township: Node) -> None:
    append(township.store, chain_of(1)[0])
    assert township.store.drawn == 1

    def fails() -> None:
        with township.store.write() as tx:
            tx.next_lsn()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    with township.store.write() as tx:
        tx.set_meta("hlc", 1)
    assert township.store.drawn == 1
