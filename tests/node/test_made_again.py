"""What a successor makes again of an earlier life stands twice, and what an old primary brings back; in one process,
carried by stick."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from fednode.crypto import canonical, certs, checkpoint, issuing
from fednode.node import admission, bundle_out, bundles, sqlite, succession, urgent
from fednode.node.app import App, real_clock
from fednode.node.audit import verify_store
from fednode.node.projection import Projector
from fednode.node.rows import Peer
from fednode.node.rows import Row as Record
from fednode.node.salvage import Salvage
from fednode.node.store import Store
from fednode.node.writer import Link
from fednode.proto import fednode_pb2 as pb
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, DELETE, NODES, RECEIPTS, UPSERT, Change, LogName
from fednode.sync.clock import milliseconds
from fednode.sync.effects import Commit
from fednode.sync.enrol import Joined, Token
from fednode.sync.errors import PeerError
from fednode.sync.merge import RULES
from fednode.sync.strip import check_sealer, erase_change
from fednode.sync.wire import Cosignature
from sim.datasets import catalog
from sticks import REAL, Row, carry, only

DATASET = "latest"
LAST: dict[str, int] = {}  # the stamp of the last change of a record in this file
WRITTEN_AS_STANDBY = LogName("hebei", "1301-s1", 1, RECEIPTS)
FIRST, AGAIN = (LogName("hebei", "1301", life, DATASET) for life in (1, 2))


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """The province, a city with a record of each rule, a county, the city's standby; all have all."""
    made = Row(tmp_path_factory.mktemp("row"), 2, catalog(1))
    province, city, _ = made.apps
    standby = made.standby_of(city)
    for rule in RULES:
        put(city, rule, {"a": "first", "b": "first"})
    carry(made, city, province)
    bring(made, city, "standby", standby)
    yield made
    made.close()


@pytest.fixture
def row(beginning: Row, tmp_path: Path) -> Iterator[Row]:
    made = beginning.copy(tmp_path)
    yield made
    made.close()


def bring(row: Row, sender: App, to: str, receiver: App) -> bundles.Imported:
    """A stick there; the answer goes back."""
    carried = row.stick()
    bundle_out.export(sender, to, carried)
    there = only(bundles.take_in(receiver, [carried]))
    only(bundles.take_in(sender, [carried]))
    assert there.error is None
    return there


def promote(row: Row, standby: App, issuer: App) -> App:
    """The standby is its primary from now on, as the issuer says."""
    me = standby.trust.me
    succession.allow(issuer, me.node)
    request = pb.SuccessionRequest(node=me.stands_for, life=succession.plan(standby).life)
    keys = standby.keys
    request.request = issuing.make_request(me.stands_for, keys.tls, keys.sign, keys.seal)
    reply = succession.grant(issuer, issuer.new_writer(issuer.store), me, request)
    succession.take(standby, tuple(reply.chain))
    return again(row, standby)


def again(row: Row, app: App) -> App:
    """Its next start."""
    app.close()
    opened = App.open(app.home.path, app.config, **REAL)
    row.apps[row.apps.index(app)] = opened
    return opened


def write(app: App, *keys: str, area: str = "1301") -> list[int]:
    """New records, one segment."""
    changes = [Change(key.encode(), canonical.dumps({"id": key})) for key in keys]
    return app.new_writer(app.store).local(DATASET, area, changes)


@pytest.fixture
def succeeded(row: Row) -> tuple[Row, App, App, App]:
    """The row, the province, the county, and the city's successor, which alone holds what the city wrote last."""
    province, city, county, standby = row.apps
    write(city, "a", "b")
    bring(row, city, "standby", standby)
    successor = promote(row, standby, province)
    bring(row, successor, "parent", province)
    return row, province, county, successor


def holders(app: App, key: str) -> list[tuple[str, int]]:
    """Where a key stands in the logs that a node reads."""
    found = []
    for held in app.store.segments(0, 1_000):
        columns = app.store.columns(held)
        keys = columns.keys if columns is not None else []
        found += [(str(held.name), held.first + i) for i, one in enumerate(keys) if one == key.encode()]
    return sorted(found)


def contents(app: App) -> list[bytes]:
    """The payloads that stand in the logs that a node reads."""
    columns = [app.store.columns(held) for held in app.store.segments(0, 1_000)]
    return [payload for each in columns if each is not None for payload in each.payloads]


def erase(app: App, log: LogName, seq: int) -> None:
    app.new_writer(app.store).local(DATASET, "1301", [erase_change(log, seq, "court order")])


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


# ---------------------------------------------------------------- late writes, and what was written meanwhile


def put(app: App, rule: str, payload: dict[str, str | None], op: int = UPSERT) -> None:
    """A change of the record 1 of a city, by one that has seen what is there."""
    there = current(app, rule)
    while app.now_ms() <= milliseconds(LAST.get(rule, 0)):  # another millisecond than that of the change before it
        pass
    content = canonical.dumps({"id": "1", **payload}) if op == UPSERT else b""
    app.new_writer(app.store).local(rule, "1301", [Change(b"1", content, op, there.hlc if there else 0)])
    LAST[rule] = app.store.log_state(app.trust.log_name(rule, "1301")).last_hlc


def current(app: App, rule: str) -> Record | None:
    with closing(app.new_projector(app.store)) as projector:
        projector.catch_up()
        return projector.current(rule, "1301", ["1"]).get("1")


def said(app: App, rule: str) -> dict[str, str] | None:
    there = current(app, rule)
    record: dict[str, str] | None = msgspec.json.decode(there.payload) if there and there.payload else None
    return record


def lost(app: App, rule: str) -> list[dict[str, str]]:
    """What is listed as a conflict."""
    with closing(app.new_projector(app.store)) as projector:
        projector.catch_up()
        rows = [projector.versions(rule, "1301", "1")[place] for place in _conflicts(projector)]
        return [msgspec.json.decode(projector.payload(one) or b"null") for one in rows]


def _conflicts(projector: Projector) -> list[tuple[int, int]]:
    return projector.connection.execute("select log, seq from superseded where conflict = 1").fetchall()


class Late:
    """A city whose successor goes on while the city, cut off, does so, too."""

    def __init__(self, row: Row, rule: str) -> None:
        self.row, self.rule = row, rule
        self.province, self.old, _, self.new = row.apps
        self.from_here = self.old.store.lsn

    def promote(self) -> None:
        self.new = promote(self.row, self.new, self.province)
        self.promoted_at = self.new.store.lsn
        bring(self.row, self.new, "parent", self.province)

    def found(self, count: int | None = None) -> None:
        """What the old one wrote, or the first of it, comes to its successor, and from there to the province."""
        sent, _ = self.old.store.feed_up(self.from_here, 1 << 20)
        items = [one for one in sent if one.data and seg.parse(one.data).header.log.origin == "1301"][:count]
        self.from_here = items[-1].lsn
        peer = self.new.store.peer("13")
        assert peer is not None
        link = Link(self.province.trust.me, peer.id, self.province.store.store_id, True, peer.have.lsn, gathers=True)
        commits = [(link, Commit(link.have + 1 + i, one.data, None)) for i, one in enumerate(items)]
        outcomes = self.new.new_writer(self.new.store).incoming(commits)
        assert [done.refused for _, done in outcomes] == [""] * len(items)
        bring(self.row, self.new, "parent", self.province)
        assert current(self.new, self.rule) is not None
        assert said(self.new, self.rule) == said(self.province, self.rule)
        assert self.province.store.refused() == []


@pytest.fixture
def late(row: Row, request: pytest.FixtureRequest) -> Late:
    return Late(row, request.param)


@pytest.mark.parametrize("late", ["latest", "authority"], indirect=True)
def test_a_late_write_does_not_win_over_what_was_written_after_it(late: Late) -> None:
    """It was made again with a new stamp, and won over the correction that the successor had made meanwhile."""
    put(late.old, late.rule, {"a": "late"})
    late.promote()
    put(late.new, late.rule, {"a": "correction"})
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "correction"}
    assert lost(late.province, late.rule) == [{"id": "1", "a": "late"}], "it is listed"


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_a_late_write_wins_over_what_was_written_before_it(late: Late) -> None:
    late.promote()
    put(late.new, late.rule, {"a": "correction"})
    put(late.old, late.rule, {"a": "late"})
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "late"}
    assert lost(late.province, late.rule) == [{"id": "1", "a": "correction"}], "it is listed"


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_late_writes_count_where_they_were_written_whatever_came_in_between(late: Late) -> None:
    """One before the correction, one after it, in segments of their own; and a deletion stands, too."""
    put(late.old, late.rule, {"a": "late"})
    late.promote()
    put(late.new, late.rule, {}, DELETE)
    put(late.old, late.rule, {"a": "later"})
    late.found(1)
    assert said(late.province, late.rule) is None
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "later"}


@pytest.mark.parametrize("late", ["field"], indirect=True)
def test_field_by_field_a_late_write_takes_only_what_nobody_set_after_it(late: Late) -> None:
    put(late.old, late.rule, {"a": "late", "c": "late"})
    late.promote()
    put(late.new, late.rule, {"a": "correction"})
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "correction", "b": "first", "c": "late"}


@pytest.mark.parametrize("late", ["field"], indirect=True)
def test_regression_what_is_made_again_next_is_not_said_once_more(late: Late) -> None:
    """Found by the simulator (promoting, small, seed 796): of two late segments the first was followed by what the
    second says of the same field. Then the second was taken for made again, and all else in it was lost."""
    put(late.old, late.rule, {"a": "late", "c": "late"})
    late.promote()
    put(late.new, late.rule, {"c": "correction"})
    contents = [{"id": "1", "a": "later"}, {"id": "2", "a": "other"}]
    changes = [Change(one["id"].encode(), canonical.dumps(one)) for one in contents]
    late.old.new_writer(late.old.store).local(late.rule, "1301", changes)
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "later", "b": "first", "c": "correction"}
    assert len(holders(late.province, "2")) == 1


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_regression_of_a_segment_what_was_not_said_once_more_is_made_again(late: Late) -> None:
    """The same in another way: what stood over a late change was in a segment with another record, and is of an earlier
    life later (the successor goes on in a new one, and the level above has not got that segment)."""
    late.promote()
    put(late.old, late.rule, {"a": "late"})
    changes = [Change(key.encode(), canonical.dumps({"id": key})) for key in ("1", "2")]
    late.new.new_writer(late.new.store).local(late.rule, "1301", changes)
    correction = late.new.store.lsn
    late.found()
    assert len(late.new.store.made_again(AGAIN, 0, 2)) == 1
    with late.new.store.write() as tx:
        tx.hold_back(correction)
    succession.make_again(late.new, late.new.new_writer(late.new.store), [correction])
    assert set(late.new.store.made_again(AGAIN, 0, 2)) == {0, 1}


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_what_was_said_once_more_goes_with_what_it_repeats(late: Late) -> None:
    """An erase of the correction takes both places of it, and the late write shows."""
    put(late.old, late.rule, {"a": "late"})
    late.promote()
    put(late.new, late.rule, {"a": "correction"})
    correction = LogName("hebei", "1301", 2, late.rule)
    late.found()
    late.new.new_writer(late.new.store).local(late.rule, "1301", [erase_change(correction, 0, "court order")])
    bring(late.row, late.new, "parent", late.province)
    assert said(late.province, late.rule) == {"id": "1", "a": "late"}


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_regression_what_was_said_once_more_goes_with_what_it_repeats_of_a_node_above(late: Late) -> None:
    """Found by the simulator (promoting, small, seeds 760 and 986): the province's correction stood over the late
    write, and was said once more by the city; the province erased that place alone, and its own went on saying the
    same."""
    put(late.old, late.rule, {"a": "late"})
    late.promote()
    put(late.province, late.rule, {"a": "correction"})
    bring(late.row, late.province, "1301", late.new)
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "correction"}
    first, again = LogName("hebei", "13", 1, late.rule, "1301"), LogName("hebei", "1301", 2, late.rule)
    assert late.new.store.first_of(again, 1) == [(first, 0)]
    late.province.new_writer(late.province.store).local(late.rule, "1301", [erase_change(again, 1, "court order")])
    bring(late.row, late.province, "1301", late.new)
    bring(late.row, late.new, "parent", late.province)
    for one in (late.province, late.new):
        assert said(one, late.rule) == {"id": "1", "a": "late"}
        assert [held for held in contents(one) if b"correction" in held] == []
        assert one.store.refused() == []


def test_where_a_node_erases_what_has_a_second_place(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its log of the same area, whoever wrote the first; not what is outside its scope, nor what flows down only."""
    city = row.apps[1]
    writer, declared = city.new_writer(city.store), city.trust.dataset(DATASET)
    assert declared is not None
    above, other = (LogName("hebei", "13", 1, DATASET, audience) for audience in ("1301", "1302"))
    below = LogName("hebei", "130102", 1, DATASET)
    assert writer._erases_in(above) == FIRST
    assert writer._erases_in(below) == LogName("hebei", "1301", 1, DATASET, "130102")
    assert writer._erases_in(other) is None
    down = msgspec.structs.replace(declared, flow="down")
    monkeypatch.setattr(city.trust, "dataset", lambda _: down)
    assert writer._erases_in(above) is None
    assert writer._erases_in(FIRST) == FIRST


# ---------------------------------------------------------------- who is who, and who may have sealed again


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_regression_who_is_who_is_made_again_before_what_comes_next(late: Late) -> None:
    """Found by the simulator (promoting, small, seed 66): what a county had written as the old city had enrolled it
    came to the level above before the city's successor had said who that was, and was refused for good (FN-5412)."""
    late.promote()
    late.row.apps.append(late.row.join(late.old, "130104", "county"))
    put(late.old, late.rule, {"a": "late"})
    late.found()
    nodes = LogName("hebei", "1301", 2, NODES)
    rows = late.new.store.rows(
        "select s.lsn, l.name from segment s join log l on l.id = s.log_id where l.origin = '1301' order by lsn"
    )
    said = max(lsn for lsn, name in rows if name == str(nodes))
    assert said < next(lsn for lsn, name in rows if name == f"hebei/1301/1/{late.rule}" and lsn > late.promoted_at)
    assert late.new.store.to_make_again() == []


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


# ---------------------------------------------------------------- the old one comes back


def come_back(row: Row, old: App, successor: App) -> App:
    """As its successor's standby, with its store."""
    token, keys = Token.decode(successor.invite_standby()), old.keys
    der = issuing.make_request(token.node, keys.tls, keys.sign, keys.seal)
    asked = pb.JoinRequest(node=token.node, secret=token.secret, request=der)
    chain = tuple(successor.enrol(successor.new_writer(successor.store), asked).chain)
    old._become_standby(Joined(chain, (), certs.parse(chain[0])))
    return again(row, old)


def counts(app: App, key: str) -> int:
    """As of when the county's record counts."""
    with closing(app.new_projector(app.store)) as projector:
        projector.catch_up()
        return projector.current(DATASET, "130102", [key])[key].effective


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
