"""Late writes of an old primary, and what was written meanwhile: what counts, and what an erase takes; in one process,
carried by stick."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from fednode.crypto import canonical
from fednode.node import succession
from fednode.sync.change import DELETE, NODES, Change, LogName
from fednode.sync.strip import erase_change
from sticks import Row
from successions import (
    AGAIN,
    DATASET,
    FIRST,
    Late,
    bring,
    contents,
    holders,
    in_turn,
    lost,
    made,
    put,
    said,
)


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
def test_regression_field_by_field_an_erase_takes_what_it_names_and_no_more(late: Late) -> None:
    """What stood over a late write was said once more in one change, whoever had said which field: an erase of one of
    them took the others, too."""
    put(late.old, late.rule, {"a": "late", "b": "late", "c": "late"})
    late.promote()
    for field in ("a", "b"):
        put(late.new, late.rule, {field: f"correction of {field}"})
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "correction of a", "b": "correction of b", "c": "late"}
    assert lost(late.province, late.rule) == [{"id": "1", "a": "late", "b": "late", "c": "late"}]
    correction = LogName("hebei", "1301", 2, late.rule)
    late.new.new_writer(late.new.store).local(late.rule, "1301", [erase_change(correction, 0, "court order")])
    bring(late.row, late.new, "parent", late.province)
    for one in (late.new, late.province):
        assert said(one, late.rule) == {"id": "1", "a": "late", "b": "correction of b", "c": "late"}
        assert [held for held in contents(one) if b"correction of a" in held] == []
        assert one.store.refused() == []


@pytest.mark.parametrize("late", ["field"], indirect=True)
def test_field_by_field_what_was_said_once_more_goes_with_what_it_repeats(late: Late) -> None:
    """An erase of that alone, from above, and of one of two."""
    put(late.old, late.rule, {"a": "late", "b": "late"})
    late.promote()
    for field in ("a", "b"):
        put(late.new, late.rule, {field: f"correction of {field}"})
    late.found()
    own = LogName("hebei", "1301", 2, late.rule)
    assert [late.new.store.first_of(own, seq) for seq in range(2, 5)] == [
        [(LogName("hebei", "1301", 1, late.rule), 1)],
        [(own, 0)],
        [(own, 1)],
    ]
    late.province.new_writer(late.province.store).local(late.rule, "1301", [erase_change(own, 4, "court order")])
    bring(late.row, late.province, "1301", late.new)
    bring(late.row, late.new, "parent", late.province)
    for one in (late.new, late.province):
        assert said(one, late.rule) == {"id": "1", "a": "correction of a", "b": "late"}
        assert [held for held in contents(one) if b"correction of b" in held] == []


@pytest.mark.parametrize("late", ["field"], indirect=True)
def test_field_by_field_a_deletion_is_said_once_more_too(late: Late) -> None:
    """A field that the record lost by a deletion, beside one that was set after that."""
    put(late.old, late.rule, {"a": "late", "b": "late", "c": "late"})
    late.promote()
    put(late.new, late.rule, {}, DELETE)
    put(late.new, late.rule, {"a": "correction"})
    late.found()
    assert said(late.province, late.rule) == {"id": "1", "a": "correction"}
    assert lost(late.province, late.rule) == [{"id": "1", "a": "late", "b": "late", "c": "late"}]


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


# ---------------------------------------------------------------- in two places


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_what_stood_over_two_late_writes_goes_from_all_its_places(late: Late) -> None:
    """It is said once more for each of them; an erase of one place takes all."""
    for value in ("late", "later"):
        put(late.old, late.rule, {"a": value})
    late.promote()
    put(late.new, late.rule, {"a": "correction"})
    correction = LogName("hebei", "1301", 2, late.rule)
    late.found(1)
    late.found()
    assert len(late.new.store.made_again(correction, 0, 1)[0]) == 2
    assert len([one for one in contents(late.province) if b"correction" in one]) == 3
    _, seq = late.new.store.made_again(correction, 0, 1)[0][0]
    late.province.new_writer(late.province.store).local(late.rule, "1301", [erase_change(correction, seq, "x")])
    bring(late.row, late.province, "1301", late.new)
    bring(late.row, late.new, "parent", late.province)
    for one in (late.new, late.province):
        assert [held for held in contents(one) if b"correction" in held] == []
        assert one.store.refused() == []


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_what_the_successor_before_has_not_made_again_is_made_again(late: Late) -> None:
    """Of three late writes it had the first, and the third says the same as that."""
    late.promote()
    for value in ("one", "two", "one"):
        put(late.old, late.rule, {"a": value})
    late.found(1)
    third = in_turn(late.row, late.old, late.new, late.province, gives=False)
    places = third.store.made_again(FIRST, 1, 3)
    lives = {seq: [log.incarnation for log, _ in found] for seq, found in places.items()}
    assert lives == {1: [2], 2: [3], 3: [3]}
    assert said(third, late.rule) == {"id": "1", "a": "one"}


@pytest.mark.parametrize("late", ["latest"], indirect=True)
def test_what_the_successor_before_wrote_earlier_is_another_change(late: Late) -> None:
    """It says the same and something else came in between: the late write, which is newer, is not lost."""
    late.promote()
    put(late.new, late.rule, {"a": "one"})
    put(late.new, late.rule, {"a": "two"})
    put(late.old, late.rule, {"a": "one"})
    third = in_turn(late.row, late.old, late.new, late.province, gives=False)
    assert [log.incarnation for log, _ in third.store.made_again(FIRST, 1, 1)[1]] == [3]
    assert said(third, late.rule) == {"id": "1", "a": "one"}
