"""A village that never has a link: what flows up and down reaches it by stick, and what it owes comes back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fednode.node import bundle_out, bundles, erasing, erasures
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.sync.catalog import Catalog
from sticks import PATH, Row, carry, held, only, pending, write

NEEDLES = {"key": b"KEYxq9zebra77", "payload": b"PAYLOADxq9giraffe88", "word": b"xq9giraffe88"}
SETTLED = 3  # rounds of one stick through all levels and back: news go down, receipts up, acknowledgements down


def catalog(version: int) -> Catalog:
    given = {"type": "text", "max": 200, "search": True}
    fields = [
        {"code": "id", "zh": "编号", "en": "Number", "required": True, **given},
        {"code": "name", "zh": "名称", "en": "Name", "index": True, **given},
    ]
    everybody = ("village", "township", "county", "city", "province")
    declared = {"zh": "公开", "en": "Public", "key": ["id"], "writers": ("village", "county"), "readers": everybody}
    more = [{**declared, "name": "second", "field": fields}] if version > 1 else []
    return Catalog.from_toml_dict(
        {"version": version, "dataset": [{**declared, "name": "public", "field": fields}, *more]}
    )


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 4, catalog(1))
    yield made
    made.close()


def around(row: Row, rounds: int = 1) -> None:
    """A stick goes from the village up to the province and down again."""
    for _ in range(rounds):
        for parent, child in reversed(list(pairwise(row.apps))):
            carry(row, child, parent)
        for parent, child in pairwise(row.apps):
            carry(row, child, parent)


def revealed(app: App) -> list[tuple[str, str]]:
    """Which needles are in which of a node's files: the databases, their write-ahead logs, whatever there is."""
    files = {path.name: path.read_bytes() for path in app.home.path.rglob("*") if path.is_file()}
    return [(what, name) for name, data in files.items() for what, needle in NEEDLES.items() if needle in data]


def index(app: App) -> None:
    """As the daemon does when nothing else is to be done."""
    projector = app.new_projector()
    projector.catch_up()
    projector.index_text()
    projector.close()
    projector.store.close()


def put(app: App, key: str, name: str, dataset: str = "public") -> None:
    records = app.records()
    records.put(dataset, {"id": key, "name": name})
    records.projector.close()


def test_a_catalog_an_erase_and_its_receipts_by_stick_alone(row: Row) -> None:
    province, _, county, _, village = row.apps
    put(village, "KEYxq9zebra77", "PAYLOADxq9giraffe88")
    put(village, "kept", "stays")
    around(row)
    for app in row.apps:
        index(app)
        assert {what for what, _ in revealed(app)} == set(NEEDLES), app.trust.node
    province.publish_catalog(catalog(2))
    records = county.records()
    done = erasing.erase(records, "public", "KEYxq9zebra77", "court order 12", area="130102001001")
    records.projector.close()
    assert len(done.places) == 1
    around(row, SETTLED)
    assert [app.trust.catalog_version for app in row.apps] == [2] * 5
    put(village, "second", "x", "second")
    for app in row.apps:
        assert revealed(app) == [], app.trust.node
        assert verify_store(app.store, app.trust).problems == []
        assert app.store.refused() == []
    projector = county.new_projector()
    projector.catch_up()
    (status,) = erasures.own_erasures(county.store, county.trust, erasures.receipts(projector))
    projector.close()
    assert status.waiting == []
    assert [one.node for one in status.holders] == ["13", *(node for node, _ in PATH)]


def test_a_revocation_by_stick(row: Row) -> None:
    province, _, county, township, village = row.apps
    around(row)
    province.revoke("130102001001", "stolen")
    for parent, child in pairwise(row.apps[:-1]):
        carry(row, child, parent)
    assert township.trust.directory.is_revoked("130102001001")
    put(village, "late", "x")
    carried = row.stick()
    bundle_out.export(village, "parent", carried)
    one = only(bundles.take_in(township, [carried]))
    assert one.error is not None
    assert one.error.code == "FN-5511"
    assert not any("late" in one["log"] or "public" in one["log"] for one in county.store.refused())


def test_the_village_hears_of_its_neighbour_s_revocation(row: Row) -> None:
    township, village = row.apps[3:]
    neighbour = row.join(township, "130102001002", "village")
    township.revoke("130102001002", "lost")
    carry(row, village, township)
    assert village.trust.directory.is_revoked("130102001002")
    neighbour.close()


def test_cosignatures_and_acknowledgements_come_back(row: Row) -> None:
    township, village = row.apps[3:]
    put(village, "a", "x")
    assert pending(village) > 0
    up, down = carry(row, village, township)
    assert (up.held > 0, down.acked > 0, pending(village)) == (True, True, 0)
    log_id = village.store.log_id(village.trust.log_name("public", village.trust.area))
    assert log_id is not None
    mine = village.store.segment_at(log_id, 0)
    assert mine is not None
    assert village.store.first_parent(mine.lsn) is not None
    around(row)
    witnesses = {one for (one,) in village.store.rows("select witness from witness")}
    assert witnesses <= {"130102001", "130102", "1301", "13"}


def test_sticks_that_cross_and_come_late_and_twice(tmp_path: Path) -> None:
    """Each side writes before it has seen the other's; the older ones come last, and again."""
    row = Row(tmp_path, 1)
    province, city = row.apps
    ups, downs = [], []
    for number in range(3):
        write(city, f"c{number}")
        write(province, f"p{number}")
        up, down = row.stick(), row.stick()
        bundle_out.export(city, "13", up)
        bundle_out.export(province, "1301", down)
        ups.append(up)
        downs.append(down)
    for order in ((2, 0, 1), (1, 1, 0)):
        for number in order:
            for app, carried in ((province, ups[number]), (city, downs[number])):
                found = bundles.take_in(app, [carried])
                assert [one.error for one in found.bundles] == [None] * len(found.bundles)
    assert held(province) == 6
    carry(row, city, province)
    for app in row.apps:
        assert app.store.refused() == []
        assert verify_store(app.store, app.trust).problems == []
    assert pending(city) == 0
    row.close()
