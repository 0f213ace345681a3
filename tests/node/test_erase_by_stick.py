"""An erase that travels by stick alone: it reaches whoever has no link, and their receipt comes back."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

from fednode.node import bundles, erasing, erasures, joining, shipped
from fednode.node.app import App, random_bytes, real_clock
from fednode.node.audit import verify_store
from fednode.node.config import Config
from fednode.node.records import Records
from fednode.sync import segment as seg
from fednode.sync.catalog import Catalog
from fednode.sync.enrol import Token
from sample_data import records as samples

PATH = (("1301", "city"), ("130102", "county"))
SETTINGS = Config(advertise=("parent.example:7443",), advertise_enrol=("parent.example:7444",))
LICENCE = "admin-licence"


class Row:
    """Province, city and county, which have met by stick alone."""

    def __init__(self, folder: Path, catalog: Catalog | None = None) -> None:
        self.folder, self._sticks = folder, count()
        province = App.init_province(folder / "13", SETTINGS, node="13", name="河北省", domain="hebei")
        province.publish_catalog(catalog or shipped.catalog())
        self.apps = [province]
        for node, level in PATH:
            self.apps.append(self._join(self.apps[-1], node, level))

    def stick(self) -> Path:
        path = self.folder / f"stick{next(self._sticks)}"
        path.mkdir()
        return path

    def _join(self, parent: App, node: str, level: str) -> App:
        carried = self.stick()
        token = Token.decode(parent.invite(node, level, node))
        joining.ask(self.folder / node, SETTINGS, "", token, carried, random_bytes)
        bundles.take_in(parent, [carried])
        app, _ = joining.finish(
            self.folder / node, SETTINGS, [carried], "", rng=random_bytes, clock=real_clock, operator="test"
        )
        bundles.take_in(parent, [carried])
        return app

    def carry(self, sender: App, receiver: App, to: str) -> Path:
        """One stick from one to the other."""
        carried = self.stick()
        bundles.export(sender, to, carried)
        report = bundles.take_in(receiver, [carried], answer=False)
        assert [(one.error, one.refused) for one in report.bundles] == [(None, [])]
        return carried

    def up(self) -> None:
        for parent, child in reversed(list(pairwise(self.apps))):
            self.carry(child, parent, "parent")

    def down(self) -> None:
        for parent, child in pairwise(self.apps):
            self.carry(parent, child, child.trust.node)

    def close(self) -> None:
        for app in self.apps:
            app.close()


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path)
    yield made
    made.close()


def shown(app: App) -> list[str]:
    records = app.records()
    found = [one.key for one in records.find(LICENCE, withdrawn=True, limit=100).items]
    records.close()
    return sorted(found)


def confirmed(app: App) -> tuple[set[str], set[str]]:
    """Who has confirmed the one erase of this node, and who has not."""
    records: Records = app.records()
    records.projector.catch_up()
    (one,) = erasures.own_erasures(app.store, app.trust, erasures.receipts(records.projector), "")
    records.close()
    waiting = {holder.node for holder in one.waiting}
    return {holder.node for holder in one.holders} - waiting, waiting


def test_an_erase_reaches_every_holder_by_stick_and_the_receipts_come_back(row: Row) -> None:
    province, city, county = row.apps
    records = county.records()
    keys = [records.put(LICENCE, one).key for one in samples(LICENCE, 2, seed=3, area="130102")]
    records.close()
    row.up()
    assert shown(province) == shown(city) == shown(county) == sorted(keys)
    old = row.carry(county, city, "parent")
    records = province.records()
    erasing.erase(records, LICENCE, keys[0], "court order 12")
    records.close()
    assert confirmed(province) == ({"13"}, {"1301", "130102"})
    row.down()
    assert shown(province) == shown(city) == shown(county) == [keys[1]]
    row.up()
    assert confirmed(province) == ({"13", "1301", "130102"}, set())
    bundles.take_in(city, [old], answer=False)  # an old stick turns up
    row.up()
    assert shown(province) == shown(city) == shown(county) == [keys[1]]
    for app in row.apps:
        assert verify_store(app.store, app.trust, full=True).problems == []
        assert app.store.refused() == []
        records = app.records()
        erasing.clean(app.store, records.projector)  # what its daemon does when it has a moment
        records.close()
        files = b"".join(path.read_bytes() for path in app.home.path.glob("*.db*"))
        assert keys[0].encode() not in files


SECRET = Catalog.from_toml_dict(
    {
        "version": 1,
        "dataset": [
            {
                "name": "secret",
                "zh": "secret",
                "en": "secret",
                "key": ["id"],
                "writers": ["county", "province"],
                "readers": ["county", "province"],  # the city carries
                "field": [{"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 40, "required": True}],
            }
        ],
    }
)


def test_who_carries_gets_the_stripped_form_from_above_by_stick(tmp_path: Path) -> None:
    """Regression: it came from below alone, and the county's machine is gone."""
    row = Row(tmp_path, SECRET)
    province, city, county = row.apps
    records = county.records()
    records.put("secret", {"id": "k1"})
    records.close()
    row.up()
    log_id = next(one for one, log, _ in city.store.logs() if log.dataset == "secret")
    held = city.store.segment_at(log_id, 0)
    assert held is not None
    sealed = seg.parse(held.raw).body
    assert any(sealed in path.read_bytes() for path in city.home.path.glob("*.db*"))
    records = province.records()
    records.projector.catch_up()
    erasing.erase(records, "secret", "k1", "court order 12", area="130102")
    records.close()
    row.carry(province, city, "1301")
    row.carry(city, province, "parent")
    assert confirmed(province) == ({"13", "1301"}, {"130102"})
    records = city.records()
    erasing.clean(city.store, records.projector)  # what its daemon does when it has a moment
    records.close()
    assert not any(sealed in path.read_bytes() for path in city.home.path.glob("*.db*"))
    assert [one.store.refused() for one in row.apps] == [[], [], []]
    row.close()


def test_a_reader_that_came_later_is_given_its_keys_by_stick(row: Row, tmp_path: Path) -> None:
    """The city wrote for a county before it joined."""
    _, city, _ = row.apps
    records = city.records()
    key = records.put(LICENCE, next(iter(samples(LICENCE, 1, seed=4, area="130104"))), area="130104").key
    records.close()
    late = row._join(city, "130104", "county")
    row.apps.append(late)
    row.carry(city, late, "130104")
    assert shown(late) == [key]
    assert late.store.refused() == []
    assert verify_store(late.store, late.trust, full=True).carried == 0
