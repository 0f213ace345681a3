"""What a successor makes again of an earlier life stands twice, and what an old primary brings back; in one process,
carried by stick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from fednode.crypto import checkpoint
from fednode.node import admission, bundle_out, bundles, refill, sqlite, urgent
from fednode.node.app import App, real_clock
from fednode.node.audit import verify_store
from fednode.node.link import Link
from fednode.node.rows import Peer
from fednode.node.salvage import Salvage
from fednode.node.store import Store
from fednode.sync import effects as fx
from fednode.sync import rewrap
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, NODES, RECEIPTS, Change, LogName
from fednode.sync.effects import Commit
from fednode.sync.errors import PeerError
from fednode.sync.strip import check_sealer, erase_change
from fednode.sync.wire import Cosignature
from sim.datasets import catalog
from sticks import Row, carry, only
from successions import (
    AGAIN,
    DATASET,
    FIRST,
    bring,
    come_back,
    erase,
    holders,
    in_turn,
    made,
    promote,
    write,
)

WRITTEN_AS_STANDBY = LogName("hebei", "1301-s1", 1, RECEIPTS)


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    row = made(tmp_path_factory.mktemp("row"))
    yield row
    row.close()


@pytest.fixture
def row(beginning: Row, tmp_path: Path) -> Iterator[Row]:
    made = beginning.copy(tmp_path)
    yield made
    made.close()


@pytest.fixture
def succeeded(row: Row) -> tuple[Row, App, App, App]:
    """The row, the province, the county, and the city's successor, which alone holds what the city wrote last."""
    province, city, county, standby = row.apps
    write(city, "a", "b")
    bring(row, city, "standby", standby)
    successor = promote(row, standby, province)
    bring(row, successor, "parent", province)
    return row, province, county, successor


def test_who_erases_the_second_erases_the_first(succeeded: tuple[Row, App, App, App]) -> None:
    """The one that erases has never had the first, and names the second alone."""
    row, province, _, successor = succeeded
    assert holders(province, "a") == [(str(AGAIN), 0)]
    assert holders(successor, "a") == [(str(FIRST), 1), (str(AGAIN), 0)]
    erase(province, AGAIN, 0)
    bring(row, province, "1301", successor)
    assert holders(successor, "a") == []
    assert holders(successor, "b") == [(str(FIRST), 2), (str(AGAIN), 1)]
    bring(row, successor, "parent", province)
    assert [one.store.refused() for one in (province, successor)] == [[], []]


def test_who_erases_the_first_erases_the_second(succeeded: tuple[Row, App, App, App]) -> None:
    row, province, _, successor = succeeded
    erase(successor, FIRST, 2)
    assert holders(successor, "b") == []
    bring(row, successor, "parent", province)
    assert holders(province, "b") == []
    assert holders(province, "a") == [(str(AGAIN), 0)]


def test_regression_what_was_erased_meanwhile_is_not_made_again_from_a_store_that_was_set_aside(
    succeeded: tuple[Row, App, App, App],
) -> None:
    """The old primary is found, and recovered instead of joined: its own store still holds what its successor has
    erased, by name, and nobody holds the log any more. It was made again."""
    row, province, _, successor = succeeded
    old = row.apps[1]
    erase(province, AGAIN, 0)
    bring(row, province, "1301", successor)
    forget_log(successor, FIRST)
    found = Salvage(old.store, successor.new_writer(successor.store)).run()
    assert (found.damaged, found.skipped) == (0, [])
    assert holders(successor, "a") == []
    assert holders(successor, "b") == [(str(AGAIN), 1), (str(AGAIN), 3)], "that nobody erased"


def forget_log(app: App, log: LogName) -> None:
    """As a store that has never had it, nor made it again."""
    with app.store.write() as tx:
        at = "log_id = (select id from log where name = ?)"
        tx.execute(f"delete from held_back where lsn in (select lsn from segment where {at})", str(log))
        tx.execute(f"delete from segment where {at}", str(log))
        tx.execute("delete from log where name = ?", str(log))
        tx.execute("delete from made_again where log = ?", str(log))


def test_regression_what_an_old_store_made_again_is_erased_in_both_places_at_once(
    succeeded: tuple[Row, App, App, App], tmp_path: Path
) -> None:
    """A recovery hears of the erase first, and then from the store that was set aside which two belong together: the
    first stayed until the next erase of anything."""
    row, province, _, successor = succeeded
    sqlite.copy(successor.store.path, tmp_path / "aside.db")
    with successor.store.write() as tx:
        tx.execute("delete from made_again")
    erase(province, AGAIN, 0)
    bring(row, province, "1301", successor)
    assert holders(successor, "a") == [(str(FIRST), 1)]
    with closing(Store.open(tmp_path / "aside.db", stash_key=successor.keys.stash_key)) as aside:
        Salvage(aside, successor.new_writer(successor.store)).run()
    assert holders(successor, "a") == []
    assert bring(row, successor, "parent", province).refused == []


def test_regression_what_was_erased_while_it_was_made_again_goes_in_both_places(
    succeeded: tuple[Row, App, App, App],
) -> None:
    """By another process of the node, between the reading and the writing."""
    _, _, _, successor = succeeded
    with successor.store.write() as tx:
        tx.execute("delete from made_again")
    erase(successor, FIRST, 2)
    assert holders(successor, "b") == [(str(AGAIN), 1)]
    successor.new_writer(successor.store).local(
        DATASET, "1301", [Change(b"c", b"{}")], lambda tx: tx.made_again(FIRST, [1, 2], AGAIN, 0)
    )
    assert holders(successor, "b") == []


def test_regression_what_is_held_back_is_not_announced_when_it_is_stripped(
    succeeded: tuple[Row, App, App, App],
) -> None:
    """Found by the simulator (promoting, small, seed 1): the level above refused it (FN-5412)."""
    row, province, _, successor = succeeded
    erase(successor, FIRST, 1)
    assert bring(row, successor, "parent", province).refused == []
    assert [one.store.refused() for one in (province, successor)] == [[], []]


def test_regression_what_is_held_back_is_no_backlog(succeeded: tuple[Row, App, App, App]) -> None:
    """It goes nowhere: `fednode status` said for ever that somebody lacked it."""
    _, _, _, successor = succeeded
    last = max(lsn for (lsn,) in successor.store.rows("select lsn from held_back"))
    everything = successor.store.rows("select count(*) from segment where lsn >= ?", last)[0][0]
    assert successor.store.backlog_standby("nobody", last - 1).segments == everything - 1


def test_regression_what_follows_what_is_held_back_is_made_again_too(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 7): the standby had not heard that the level above had cosigned
    the first of two segments. The second went down to a county that could not take it without the first, and asked for
    that again and again (FN-6412)."""
    province, city, county, standby = row.apps
    for key in ("a", "b"):
        write(city, key, area="130102")
    carry(row, city, province)
    bring(row, city, "standby", standby)
    first = LogName("hebei", "1301", 1, DATASET, "130102")
    lsn = standby.store.ending_at(first, 1)
    with standby.store.write() as tx:
        tx.execute("update segment set first_time = null, first_signature = null where lsn = ?", lsn)
    successor = promote(row, standby, province)
    assert set(successor.store.made_again(first, 0, 2)) == {0, 1}
    there = bring(row, successor, "130102", county)
    assert (there.refused, county.store.refused()) == ([], [])
    assert [log for log, _ in holders(county, "b")] == ["hebei/1301/2/latest@130102"]


def test_regression_what_comes_later_of_a_log_that_is_held_back_is_made_again_too(
    succeeded: tuple[Row, App, App, App],
) -> None:
    """The same: the level above gives back what followed, which it has cosigned."""
    row, province, _, successor = succeeded
    old = row.apps[1]
    (lsn,) = write(old, "c")
    raw = old.store.segments(lsn - 1, 1)[0].raw
    header = seg.parse(raw).header
    head = checkpoint.Checkpoint(str(FIRST), header.end, header.root)
    given = Cosignature(province.now_s, checkpoint.cosign(head, province.keys.sign, province.now_s), "13")
    writer = successor.new_writer(successor.store)
    peer = successor.store.peer("13")
    assert peer is not None
    link = Link(province.trust.me, peer.id, province.store.store_id, True, peer.have.lsn, gathers=True)
    ((_, done),) = writer.incoming([(link, Commit(link.have + 1, raw, given))])
    assert (done.refused, done.gap) == ("", None)
    assert set(successor.store.made_again(FIRST, 3, 1)) == {3}


# ---------------------------------------------------------------- who is who, and who may have sealed again


def test_regression_who_is_who_goes_ahead_where_it_was_made_again(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 34): as above, where the standby held it when it was promoted."""
    province, city, _, standby = row.apps
    assert urgent.who_is_who(city.store, city.trust.me, 0) == ()
    row.apps.append(row.join(city, "130104", "county"))
    bring(row, city, "standby", standby)
    successor = promote(row, standby, province)
    ahead = urgent.who_is_who(successor.store, successor.trust.me, 0)
    assert [str(seg.parse(one.data).header.log) for one in ahead] == [f"hebei/1301/2/{NODES}"] * len(ahead)
    assert len(ahead) > 0
    assert urgent.who_is_who(successor.store, successor.trust.me, ahead[-1].lsn) == ()


@pytest.fixture
def unheard_of(row: Row) -> tuple[Row, App]:
    """The row, and the city's successor, which had written something of itself as a standby that nobody but the city
    had heard of."""
    province, _, county, standby = row.apps
    standby.new_writer(standby.store).local(RECEIPTS, "1301", [Change(b"it stripped something", b"{}")])
    with standby.store.write() as tx:
        of_nodes = "log_id in (select id from log where origin = '1301' and dataset = 'sys.nodes')"
        tx.execute(f"update segment set first_time = null, first_signature = null where {of_nodes}")
    successor = promote(row, standby, province)
    assert county.trust.directory.get("1301-s1") is None
    return row, successor


def let_in(county: App, successor: App) -> tuple[Peer, admission.Entry]:
    """The county dials the city's successor: that one's row there, and how it was let in."""
    peer = county.store.peer("1301")
    assert peer is not None
    hello = admission.hello(county.trust, county.store, county.now_ms(), "test", peer, None)
    writer, now_ms = successor.new_writer(successor.store), successor.now_ms()
    return peer, admission.enter(writer, county.trust.me, hello, False, now_ms, "test")


def test_regression_who_is_who_goes_ahead_to_a_child_too(unheard_of: tuple[Row, App]) -> None:
    """Found by the simulator (promoting, small, seed 972): what a standby writes of itself goes down to the children of
    its primary; one that had never heard of that standby refused it (FN-5411) when it was promoted."""
    row, successor = unheard_of
    county = row.apps[2]
    peer, entry = let_in(county, successor)
    county.trust.hear([successor.trust.me.der])
    feed, _ = admission.feeds(successor.store, successor.trust, entry.link)
    ahead = [Commit(one.lsn, one.data, one.first_parent, ahead=True) for one in entry.admission.ahead]
    in_turn = [Commit(one.lsn, one.data, one.first_parent) for one in feed(0, 1 << 20)[0] if one.data]
    link = Link(successor.trust.me, peer.id, successor.store.store_id, True, 0)
    outcomes = county.new_writer(county.store).incoming([(link, one) for one in (*ahead, *in_turn)])
    assert [done.refused for _, done in outcomes] == [""] * len(outcomes)
    assert county.store.log_state(WRITTEN_AS_STANDBY).size == 1


def test_regression_who_is_who_goes_ahead_whatever_the_child_s_predecessor_had(unheard_of: tuple[Row, App]) -> None:
    """Found by the simulator (promoting, small, seed 938): the old county had met the city's successor; to its own
    successor only that went ahead which the old one had not acknowledged, and it came before what precedes it."""
    row, successor = unheard_of
    with successor.store.write() as tx:
        tx.raise_acked(tx.ensure_peer("130102", admission.CHILD).id, successor.store.lsn)
    _, entry = let_in(row.apps[2], successor)
    assert [seg.parse(one.data).header.first for one in entry.admission.ahead][:1] == [0]


def test_regression_who_is_who_goes_ahead_by_stick_too(unheard_of: tuple[Row, App]) -> None:
    """The same to a child, and to the level above, that the successor has never met."""
    row, successor = unheard_of
    province, _, county, _ = row.apps
    assert bring(row, successor, "130102", county).refused == []
    assert bring(row, successor, "parent", province).refused == []
    assert [one.store.log_state(WRITTEN_AS_STANDBY).size for one in (county, province)] == [1, 1]


def test_regression_what_goes_ahead_of_what_it_rests_on_is_taken_in_its_turn(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 405): what a successor said again went ahead to a child that had
    not heard yet of whom it was about, which it refused (FN-5430; here FN-5431), with an alert."""
    province, city, county, standby = row.apps
    row.apps.append(row.join(city, "130104", "county"))
    carry(row, city, province)
    city.revoke("130104", "lost")
    bring(row, city, "standby", standby)
    successor = promote(row, standby, province)
    ahead = urgent.who_is_who(successor.store, successor.trust.me, 0)
    assert [str(seg.parse(one.data).header.log) for one in ahead] == [f"hebei/1301/2/{NODES}"] * len(ahead)
    assert len(ahead) > 0
    assert county.trust.directory.get("130104") is None
    assert bring(row, successor, "130102", county).refused == []
    county.trust.refresh(county.store)
    assert county.trust.directory.is_revoked("130104")


def test_regression_what_a_standby_has_sealed_again_is_taken_once_its_name_is_known(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 6977): to a child of its primary that had never heard of it; what
    it had sealed again stood, in its place, before the word of who it is, and was refused for good (FN-5419)."""
    _, city, county, standby = row.apps
    write(city, "a", area="130102")
    bring(row, city, "standby", standby)
    log = city.trust.log_name(DATASET, "130102")
    city.new_writer(city.store).local(DATASET, "130102", [erase_change(log, 0, "court order")])
    bring(row, city, "standby", standby)
    held = standby.store.segments(0, 1_000)
    (sealed, *_), who = [one for one in held if one.name == log], [one for one in held if one.name.dataset == NODES]
    assert seg.parse(sealed.raw).header.sealer == "1301-s1/1"
    assert county.trust.directory.get("1301-s1") is None
    peer = county.store.peer("1301")
    assert peer is not None
    writer = county.new_writer(county.store)
    link = Link(city.trust.me, peer.id, city.store.store_id, True, 0)
    ((_, ahead),) = writer.incoming([(link, Commit(sealed.lsn, sealed.raw, None, ahead=True))])
    assert (ahead.refused, ahead.gap is None) == ("", False)
    told = writer.incoming([(link, Commit(one.lsn, one.raw, None)) for one in (sealed, *who, sealed)])
    assert [done.refused for _, done in told] == ["FN-5422", *[""] * len(who), ""]


def test_regression_a_child_gives_back_what_it_has_stripped(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 46): its parent's successor refused it (FN-5419), and all that
    followed in the log."""
    _, city, county, _ = row.apps
    (lsn,) = write(city, "a", area="130102")
    header = seg.parse(city.store.segments(lsn - 1, 1)[0].raw).header
    stripped = replace(header, sealer="130102/1", stripped=1)
    origin, peer, directory = city.trust.me, county.trust.me, city.trust.directory
    check_sealer(stripped, origin, peer, directory, from_parent=False)
    row.apps.append(row.join(city, "130104", "county"))
    sibling = row.apps[-1].trust.me
    with pytest.raises(PeerError, match="FN-5419"):
        check_sealer(stripped, origin, sibling, directory, from_parent=False)


def gathering(parent: App, child: App) -> Link:
    """A parent's, to a child that went on in a new life from less than it had."""
    peer = parent.store.peer(child.trust.node)
    assert peer is not None
    return Link(child.trust.me, peer.id, child.store.store_id, False, 0, gives_back=child.trust.me.incarnation)


def coming(parent: App, child: App) -> list[str]:
    """The logs of the segments in the feed for a child that gathers, if it said nothing of what it holds."""
    items, _ = admission.feeds(parent.store, parent.trust, gathering(parent, child))[0](0, 1 << 20)
    return [str(seg.parse(one.data).header.log) for one in items if one.data and not rewrap.is_rewrap(one.data)]


def given(child: App, parent: App) -> list[fx.Done]:
    """A child that went on in a new life meets its parent, and both say what they hold: what it takes of that one's
    feed."""
    there, here = parent.new_writer(parent.store), child.new_writer(child.store)
    below = admission.hello(child.trust, child.store, child.now_ms(), "test", child.store.peer(parent.trust.node), None)
    down = admission.enter(there, child.trust.me, below, False, parent.now_ms(), "test")
    assert down.admission.reply is not None
    up = admission.enter(here, parent.trust.me, down.admission.reply, True, child.now_ms(), "test")
    held = refill.holdings(here, up.link, child.now_ms())
    refill.compare(there, down.link, fx.Compare(tuple(held), True))
    items, _ = admission.feeds(parent.store, parent.trust, down.link)[0](0, 1 << 20)
    commits = [(up.link, Commit(one.lsn, one.data, one.first_parent)) for one in items if one.data]
    return [done for _, done in here.incoming(commits)]


@pytest.mark.parametrize("earlier", [False, True], ids=["of a whole log", "of the end of a log"])
def test_regression_what_the_level_above_cosigned_counts_at_a_successor_too(row: Row, earlier: bool) -> None:
    """Found by the simulator (promoting, small, seed 644): a county whose clock was ahead failed before its standby had
    heard that the city had cosigned what it wrote. The successor made that again; of the first, which it held without
    the cosignature, it was never told: there alone that counted as of a moment to come, and won."""
    province, city, _, standby = row.apps
    name = LogName("hebei", "1301", 1, DATASET, "" if earlier else "130102")  # of the one all have the beginning
    city.clock = lambda: real_clock() + 366 * 86_400_000
    write(city, "ahead", area="1301" if earlier else "130102")
    city.clock = real_clock
    bring(row, city, "standby", standby)
    bring(row, city, "parent", province)
    successor = promote(row, standby, province)
    first = province.store.log_state(name).size - 1
    there, here = (one.store.held_range(name, first) for one in (province, successor))
    assert there is not None
    assert here is not None
    assert (there[4] is None, here[4]) == (False, None)
    assert {done.refused for done in given(successor, province)} == {""}
    again = successor.store.held_range(name, first)
    assert again is not None
    assert again[4] == there[4]
    assert set(successor.store.made_again(name, first, 1)) == {first}


@pytest.mark.parametrize("erased", [False, True])
def test_regression_what_the_level_above_alone_has_of_below_comes_back(row: Row, erased: bool) -> None:
    """Found by the simulator (promoting, small, seed 3404): a city had acknowledged what its county wrote, and passed
    it on; both burnt before their standbys had it. The province kept it for itself. `erased`: as one that is stripped
    (seed 5269)."""
    province, city, county, standby = row.apps
    carry(row, county, city)
    bring(row, city, "standby", standby)
    write(county, "lost twice", area="130102")
    carry(row, county, city)
    carry(row, city, province)
    name = county.trust.log_name(DATASET, "130102")
    if erased:
        province.new_writer(province.store).local(DATASET, "13", [erase_change(name, 0, "court order")])
    successor = promote(row, standby, province)
    assert successor.store.log_state(name).size == 0
    done = given(successor, province)
    assert ({one.refused for one in done}, successor.store.log_state(name).size) == ({""}, 1)
    assert bool(holders(successor, "lost twice")) is not erased
    lsn = successor.store.ending_at(name, 1)
    assert lsn is not None
    assert successor.store.first_parent(lsn) is not None
    write(county, "of today", area="130102")
    bring(row, successor, "130102", county)
    carry(row, county, successor)
    carry(row, successor, province)
    assert province.store.log_state(name).size == 2
    assert coming(province, successor).count(str(name)) == 1 + erased, "not what this life has brought"


def test_regression_what_comes_while_it_is_looked_is_not_given_back(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first segments of a successor came between the look for them and the look for the newest: they went back to
    it, and were refused (FN-5413)."""
    province, _, _, standby = row.apps
    successor = promote(row, standby, province)
    link, before, rows = gathering(province, successor), province.store.lsn, province.store.rows

    def meanwhile(sql: str, *arguments: object) -> list[tuple[object, ...]]:
        found = rows(sql, *arguments)
        monkeypatch.undo()
        carry(row, successor, province)
        return found

    monkeypatch.setattr(province.store, "rows", meanwhile)
    assert refill.edge(province.store, link)() == before < province.store.lsn


# ---------------------------------------------------------------- the old one comes back


def counts(app: App, key: str) -> int:
    """As of when the county's record counts."""
    with closing(app.new_projector(app.store)) as projector:
        projector.catch_up()
        return projector.current(DATASET, "130102", [key])[key].effective


def test_regression_an_old_primary_hears_what_its_parent_has_cosigned_of_it(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 5434): the city failed before it heard that. Its successor had it
    from the province, with the cosignature; the old city, its standby, said that it holds it, and was told nothing."""
    province, city, _, standby = row.apps
    (lsn,) = write(city, "unheard")
    carry(row, city, province)
    with city.store.write() as tx:  # the answer is on its way
        tx.execute("update segment set first_time = null, first_signature = null where lsn = ?", lsn)
    successor = promote(row, standby, province)
    given(successor, province)
    old = come_back(row, city, successor)
    first = province.store.log_state(FIRST).size - 1
    assert {done.refused for done in given(old, successor)} == {""}
    there = [one.store.held_range(FIRST, first) for one in (province, successor, old)]
    assert len({one[4] for one in there if one is not None}) == 1
    assert there[2] is not None
    assert there[2][4] is not None


def test_regression_what_a_successor_cosigned_counts_at_its_old_primary_too(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 332): a city took what its county wrote, whose clock was ahead,
    and failed before the county had heard of that. The city's successor cosigned it, later; the old city, its standby,
    went on with its own cosignature, by which the change counted as of an earlier moment than everywhere else."""
    province, city, county, standby = row.apps
    county.clock = lambda: real_clock() + 366 * 86_400_000
    write(county, "ahead", area="130102")
    carried = row.stick()
    bundle_out.export(county, "parent", carried)
    assert only(bundles.take_in(city, [carried])).refused == []
    taken = counts(city, "ahead")
    successor = promote(row, standby, province)
    successor.clock = lambda: real_clock() + 60_000
    bring(row, successor, "130102", county)
    carry(row, county, successor)
    carry(row, successor, province)
    old = come_back(row, city, successor)
    carry(row, old, successor)
    everywhere = {one.trust.node: counts(one, "ahead") for one in (province, successor, county, old)}
    assert set(everywhere.values()) == {everywhere["13"]}
    assert everywhere["13"] > taken
    assert [one.store.refused() for one in (province, successor, county, old)] == [[], [], [], []]
    assert verify_store(old.store, old.trust).problems == []


def test_regression_a_standby_is_given_what_was_written_by_a_catalog_that_came_to_its_primary_later(row: Row) -> None:
    """Found by the simulator (promoting, small, seed 982): a city's successor did not know yet by which catalog the
    county below had written, so it gave the key to nobody; the old city, its standby, never read that."""
    province, city, county, standby = row.apps
    province.new_writer(province.store).local(CATALOG, "13", [Change(b"catalog", catalog(2).to_json())])
    carry(row, city, province)
    carry(row, county, city)
    successor = promote(row, standby, province)
    bring(row, successor, "130102", county)
    write(county, "new", area="130102")
    old = come_back(row, city, successor)
    carry(row, county, successor)
    assert (county.trust.catalog_version, successor.trust.catalog_version) == (2, 1)
    carry(row, successor, province)
    bring(row, successor, "standby", old)
    assert [log for log, _ in holders(old, "new")] == [f"hebei/130102/1/{DATASET}"]
    assert [one.store.refused() for one in (province, successor, county, old)] == [[], [], [], []]


def test_regression_two_successors_in_turn_do_not_make_the_same_again(
    succeeded: tuple[Row, App, App, App],
) -> None:
    """The old primary comes back as its successor's standby, with what it had written last, and is promoted in turn: it
    made that again once more, and who erased the one place left the other."""
    row, province, _, successor = succeeded
    third = in_turn(row, row.apps[1], successor, province)
    assert holders(third, "a") == [(str(FIRST), 1), (str(AGAIN), 0)]
    erase(province, AGAIN, 0)
    bring(row, province, "1301", third)
    bring(row, third, "parent", province)
    assert [holders(one, "a") for one in (third, province)] == [[], []]
    assert [len(holders(one, "b")) for one in (third, province)] == [2, 1], "that nobody erased"
    assert [one.store.refused() for one in (third, province)] == [[], []]


def test_regression_a_standby_that_was_a_successor_writes_no_erases(succeeded: tuple[Row, App, App, App]) -> None:
    """It knows which two are the same, and learnt of the erase of one: it erased the other in a log of its own, as no
    standby may; its primary refused that."""
    row, province, _, successor = succeeded
    third = in_turn(row, row.apps[1], successor, province)
    back = come_back(row, successor, third)
    with third.store.write() as tx:
        tx.execute("delete from made_again")
    erase(province, AGAIN, 0)
    bring(row, province, "1301", third)
    bring(row, third, "standby", back)
    assert [
        str(name) for _, name, _ in back.store.logs() if name.origin == back.trust.node and not name.is_system
    ] == []
    assert [one.store.refused() for one in (province, third, back)] == [[], [], []]
    assert holders(back, "a") == [(str(FIRST), 1)]
    bring(row, third, "parent", province)
    fourth = promote(row, back, province)
    assert holders(fourth, "a") == [], "when it is its primary again"
    assert bring(row, fourth, "parent", province).refused == []
