"""A standby that is reached by stick: it holds and reads what its primary does, and its acknowledgements come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node import bundle_out, bundles, succession
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.node.follower import follow
from fednode.sync.errors import Refused
from sticks import REAL, Row, only, write


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 2)
    yield made
    made.close()


def carry(row: Row, sender: App, to: str, receiver: App) -> bundles.Imported:
    """A stick there; the answer goes back."""
    carried = row.stick()
    bundle_out.export(sender, to, carried)
    there = only(bundles.take_in(receiver, [carried]))
    back = only(bundles.take_in(sender, [carried]))
    for one in (there, back):
        if one.error is not None:
            raise one.error
    return there


def logs(app: App, but: str) -> dict[str, tuple[int, bytes]]:
    return {
        str(name): (size, app.store.log_state(name).root) for _, name, size in app.store.logs() if name.origin != but
    }


def records(app: App) -> list[tuple[str, bytes]]:
    projector = app.new_projector()
    try:
        follow(projector)
        sql = "select key, payload from record where dataset = (select id from dataset where name = 'admin-licence')"
        return sorted(projector.connection.execute(sql).fetchall())
    finally:
        projector.close()
        projector.store.close()


def test_a_standby_without_a_link_holds_and_reads_what_its_primary_does(row: Row) -> None:
    _, city, county = row.apps
    standby = row.standby_of(city)
    assert standby.trust.me.stands_for == "1301"
    write(county, "a", "b")
    write(city, "c")
    carry(row, county, "parent", city)
    there = carry(row, city, "standby", standby)
    assert there.held > 0
    assert there.refused == []
    assert (
        logs(standby, standby.trust.node).items()
        >= {
            log: head for log, head in logs(city, standby.trust.node).items() if not log.endswith("/1/sys.audit")
        }.items()
    )
    assert len(records(standby)) == 3
    assert records(standby) == records(city)
    peer = city.store.peer(standby.trust.node)
    assert peer is not None
    assert peer.acked >= there.upto, "what the stick brought is acknowledged by the answer"
    write(county, "d")
    carry(row, county, "parent", city)
    assert carry(row, city, standby.trust.node, standby).held > 0
    assert records(standby) == records(city)
    assert carry(row, standby, "parent", city).error is None
    for app in (city, standby):
        assert verify_store(app.store, app.trust).problems == []


def test_which_standby_is_asked_where_it_is_not_clear(row: Row) -> None:
    city = row.apps[1]
    with pytest.raises(Refused, match="FN-3520") as none:
        bundle_out.export(city, "standby", row.stick())
    assert none.value.params == {"count": 0, "standbys": "-"}
    one, other = row.standby_of(city), row.standby_of(city)
    with pytest.raises(Refused, match="FN-3520") as two:
        bundle_out.export(city, "standby", row.stick())
    assert two.value.params == {"count": 2, "standbys": f"{one.trust.node}, {other.trust.node}"}
    with pytest.raises(Refused, match="FN-3110"):
        bundle_out.export(city, "1399", row.stick())


def test_regression_who_joined_in_a_later_life_of_the_province_takes_what_was_written_before_by_stick(
    tmp_path: Path,
) -> None:
    """Its own chain shows that life alone, and nobody above the province says the others; by stick only those after
    the first were told. What came down of the first was refused (FN-5412), and never came again."""
    row = Row(tmp_path, 0)
    try:
        province = row.apps[0]
        write(province, "a")
        standby = row.standby_of(province)
        carry(row, province, "standby", standby)
        root_key = province.home.root_key(None)
        assert root_key is not None
        succession.take(standby, succession.by_root(standby, root_key))
        standby.close()
        successor = App.open(standby.home.path, standby.config, **REAL)
        row.apps[-1] = successor
        other = row.join(successor, "1302", "city")
        row.apps.append(other)
        carry(row, successor, "1302", other)
        assert other.store.refused() == []
        assert {name.incarnation for _, name, _ in other.store.logs() if name.origin == "13"} == {1, 2}
    finally:
        row.close()
