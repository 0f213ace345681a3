"""Exchanges by stick: five real homes in a row, and no network."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path

import pytest

import fednode
from fednode.crypto.errors import IntegrityError
from fednode.node import bundles, joining, shipped, stick
from fednode.node.app import App, random_bytes, real_clock
from fednode.node.config import Config
from fednode.node.proving import Prover
from fednode.sync import versions
from fednode.sync.change import Change
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, StoreError

PATH = (("1301", "city"), ("130102", "county"), ("130102001", "township"), ("130102001001", "village"))
SETTINGS = Config(advertise=("parent.example:7443",), advertise_enrol=("parent.example:7444",))


class Row:
    """Nodes from the province down, each joined by stick."""

    def __init__(self, folder: Path, depth: int) -> None:
        self.folder, self._sticks = folder, count()
        province = App.init_province(folder / "13", SETTINGS, node="13", name="河北省", domain="hebei")
        province.publish_catalog(shipped.catalog())
        self.apps = [province]
        for node, level in PATH[:depth]:
            self.apps.append(self.join(self.apps[-1], node, level))

    def stick(self) -> Path:
        path = self.folder / f"stick{next(self._sticks)}"
        path.mkdir()
        return path

    def join(self, parent: App, node: str, level: str) -> App:
        carried = self.stick()
        token = Token.decode(parent.invite(node, level, node))
        joining.ask(self.folder / node, SETTINGS, "", token, carried, random_bytes)
        assert [one.recipient for one in bundles.take_in(parent, [carried]).joined] == [node]
        app, report = joining.finish(
            self.folder / node, SETTINGS, [carried], "", rng=random_bytes, clock=real_clock, operator="test"
        )
        assert [one.error for one in report.bundles] == [None]
        bundles.take_in(parent, [carried])  # what the child wrote back
        return app

    def close(self) -> None:
        for app in self.apps:
            app.close()


def write(app: App, *keys: str) -> None:
    writer = app.new_writer(app.store)
    writer.local("admin-licence", app.trust.area, [Change(key.encode(), b'{"name":"x"}') for key in keys])


def held(app: App) -> int:
    return sum(size for _, name, size in app.store.logs() if name.dataset == "admin-licence")


def pending(app: App) -> int:
    parent = app.store.peer(app.trust.parent.node) if app.trust.parent else None
    return app.store.backlog_up(parent.acked if parent else 0).changes


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only(report: bundles.Report) -> bundles.Imported:
    (one,) = report.bundles
    return one


def code(report: bundles.Report) -> str:
    error = only(report).error
    return error.code if error else ""


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 1)
    yield made
    made.close()


def test_a_village_without_any_link_reaches_the_province_and_hears_of_it(tmp_path: Path) -> None:
    row = Row(tmp_path, 4)
    try:
        assert row.apps[-1].trust.catalog_version == 1
        write(row.apps[-1], *(f"k{i}" for i in range(200)))
        assert pending(row.apps[-1]) == 200
        for parent, child in reversed(list(pairwise(row.apps))):
            carried = row.stick()
            bundles.export(child, "parent", carried)
            one = only(bundles.take_in(parent, [carried]))
            assert one.error is None
            assert not one.refused
            assert one.answer is not None
            back = only(bundles.take_in(child, [carried]))
            assert back.error is None
            assert back.acked
            assert pending(child) == 0
        assert [held(app) for app in row.apps] == [200] * 5
        assert not any(app.store.refused() for app in row.apps)
    finally:
        row.close()


def test_twice_late_and_in_the_wrong_order_changes_nothing(row: Row) -> None:
    province, city = row.apps
    first, second = row.stick(), row.stick()
    write(city, "a")
    bundles.export(city, "13", first)
    write(city, "b")
    bundles.export(city, "13", second)
    assert only(bundles.take_in(province, [second])).error is None
    assert held(province) == 2
    for carried in (first, second, first):
        one = next(one for one in bundles.take_in(province, [carried], answer=False).bundles)
        assert (one.error, one.held) == (None, 0)
    assert held(province) == 2
    assert not province.store.refused()


def test_a_volume_that_is_missing_cut_or_altered_leaves_everything_as_it_was(row: Row) -> None:
    province, city = row.apps
    writer = city.new_writer(city.store)
    for i in range(12):  # random letters do not compress
        record = [Change(f"{i}-{j}".encode(), b'{"x":"' + random_bytes(400).hex().encode() + b'"}') for j in range(100)]
        writer.local("admin-licence", city.trust.area, record)
    carried = row.stick()
    files = [Path(one) for one in bundles.export(city, "13", carried, volume_bytes=128 * 1024).files]
    assert len(files) >= 3
    whole, before = contents(carried), province.store.lsn

    def after(damage: Path, data: bytes | None) -> str:
        for name, content in whole.items():
            (carried / name).write_bytes(content)
        damage.unlink() if data is None else damage.write_bytes(data)
        found = code(bundles.take_in(province, [carried], dry_run=True))
        assert held(province) == 0
        return found

    assert after(files[1], None) == "FN-3502"
    assert after(files[-1], None) == "FN-3503"
    for number, path in enumerate(files):
        data = whole[path.name]
        assert after(path, data[:-1]) in ("FN-6504", "FN-3503"), number
        for place in (len(data) // 3, len(data) // 2, len(data) - 90):
            flipped = bytearray(data)
            flipped[place] ^= 1
            assert after(path, bytes(flipped)) in ("FN-6504", "FN-6502", "FN-3503"), (number, place)
    assert province.store.lsn == before
    for name, content in whole.items():
        (carried / name).write_bytes(content)
    assert only(bundles.take_in(province, [carried])).error is None
    assert held(province) == 1200


def test_a_stick_that_begins_too_late_says_from_where_to_export(row: Row) -> None:
    province, city = row.apps
    write(city, "a")
    carried = row.stick()
    bundles.export(city, "13", carried, since=city.store.lsn)
    report = bundles.take_in(province, [carried])
    assert code(report) == "FN-3504"
    assert held(province) == 0


def test_nothing_of_a_stolen_stick_can_be_read(row: Row) -> None:
    _, city = row.apps
    write(city, "a-very-special-key")
    carried = row.stick()
    (file,) = bundles.export(city, "13", carried).files
    data = Path(file).read_bytes()
    for needle in (b"admin-licence", b"sys.audit", b"a-very-special-key", city.home.chain()[0][:64]):
        assert needle not in data


def test_a_stick_of_another_domain_and_one_of_a_revoked_node_do_nothing(row: Row, tmp_path: Path) -> None:
    province, city = row.apps
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    other = Row(elsewhere, 1)
    carried = row.stick()
    bundles.export(other.apps[1], "13", carried)
    other.close()
    assert code(bundles.take_in(province, [carried])) == "FN-5523"
    again = row.stick()
    bundles.export(city, "13", again)
    province.revoke("1301", "stolen")
    assert code(bundles.take_in(province, [again])) == "FN-5511"


def test_a_read_only_stick_is_taken_and_the_answer_is_said_to_be_missing(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    province, city = row.apps
    write(city, "a")
    carried = row.stick()
    bundles.export(city, "13", carried)

    def read_only(path: Path, *_: object) -> None:
        raise stick.trouble(path, OSError(30, "Read-only file system"))

    monkeypatch.setattr(stick, "write_bundle", read_only)
    one = only(bundles.take_in(province, [carried]))
    assert one.error is None
    assert held(province) == 1
    assert isinstance(one.unanswered, StoreError)
    assert one.unanswered.code == "FN-7652"


def test_links_are_not_followed(row: Row) -> None:
    province, city = row.apps
    carried, hidden = row.stick(), row.stick()
    (file,) = bundles.export(city, "13", carried).files
    shutil.move(file, hidden / "x.fnb")
    Path(file).symlink_to(hidden / "x.fnb")
    with pytest.raises(Refused, match="FN-3505"):
        bundles.take_in(province, [carried])


def test_joining_without_a_token_needs_both_fingerprints(tmp_path: Path) -> None:
    row = Row(tmp_path, 0)
    (province,) = row.apps
    carried = row.stick()
    home = tmp_path / "1301"
    asked = joining.ask(home, SETTINGS, "1301", None, carried, random_bytes)
    report = bundles.take_in(province, [carried])
    assert report.asking == [("1301", asked.fingerprint, "")]
    given = ("1301", "city", "石家庄市", (), 3600)
    with pytest.raises(Refused, match="FN-3509"):
        joining.invite_and_answer(province, carried, "1111 2222", *given)
    joining.invite_and_answer(province, carried, asked.fingerprint, *given)
    more = {"rng": random_bytes, "clock": real_clock, "operator": "test"}
    with pytest.raises(Refused, match="FN-3516"):
        joining.finish(home, SETTINGS, [carried], "", **more)  # type: ignore[arg-type]
    with pytest.raises(PeerError, match="FN-6110"):
        joining.finish(home, SETTINGS, [carried], "1" * 20, **more)  # type: ignore[arg-type]
    root = joining.root_fingerprint(province.trust.root_sha256)
    app, _ = joining.finish(home, SETTINGS, [carried], root, **more)  # type: ignore[arg-type]
    assert app.trust.me.level == "city"
    assert app.trust.catalog_version == 1
    app.close()
    row.close()


def test_a_manifest_of_somebody_else_is_no_signature(row: Row) -> None:
    province, city = row.apps
    carried = row.stick()
    (file,) = bundles.export(city, "13", carried).files
    (one,) = bundles.look(stick.scan([Path(file)]).parts)
    assert one.manifest is not None
    with pytest.raises(IntegrityError, match="FN-6502"):
        one.manifest.check(province.trust.me.sign_key)


def test_a_bundle_of_a_program_two_versions_on_says_what_to_install(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    province, city = row.apps
    write(city, "k")
    carried = row.stick()
    ours = versions.SPOKEN
    monkeypatch.setattr(versions, "SPOKEN", versions.Versions(ours.high + 1, ours.high + 2))
    bundles.export(city, "parent", carried)
    monkeypatch.setattr(versions, "SPOKEN", ours)
    one = only(bundles.take_in(province, [carried]))
    assert one.error is not None
    assert (one.error.code, one.error.exit_code) == ("FN-5518", 5)
    assert one.error.params["install"] == f"fednode>={fednode.__version__}"  # what wrote it
    assert held(province) == 0


# ---------------------------------------------------------------- what the levels above have signed


def carry(row: Row, child: App, parent: App) -> None:
    """Up, and the answer back."""
    carried = row.stick()
    bundles.export(child, "parent", carried)
    for app in (parent, child):
        assert [one.error for one in bundles.take_in(app, [carried]).bundles] == [None]


def seen_by(app: App) -> list[str]:
    records = app.records()
    try:
        proved = Prover(records, app.keys.sign, app.now_ms).prove("admin-licence", "k0")
        return [one.identity.node for one in proved.checked.witnesses]
    finally:
        records.close()


def test_a_village_without_any_link_shows_every_level_that_has_signed(tmp_path: Path) -> None:
    row = Row(tmp_path, 4)
    try:
        village = row.apps[-1]
        write(village, "k0")
        way = list(pairwise(row.apps))
        for parent, child in reversed(way):
            carry(row, child, parent)
        assert seen_by(village) == ["130102001"]
        for parent, child in way:
            carry(row, child, parent)
        assert seen_by(village) == ["130102001", "130102", "1301", "13"]
    finally:
        row.close()


def test_a_child_that_was_never_seen_to_take_it_is_told_nothing_by_stick(tmp_path: Path) -> None:
    """A program of version 1 refuses a bundle with a frame that it does not know."""
    row = Row(tmp_path, 3)
    try:
        county, township = row.apps[2:4]
        write(township, "k0")
        for parent, child in reversed(list(pairwise(row.apps))):
            carry(row, child, parent)
        with county.store.write() as tx:
            tx.set_meta("protocol/130102001", 1)
        target = row.stick()
        bundles.export(county, "130102001", target)
        report = bundles.take_in(township, [target], answer=False)
        assert [one.error for one in report.bundles] == [None]
        assert seen_by(township) == ["130102"]
        with county.store.write() as tx:
            tx.set_meta("protocol/130102001", 2)
        target = row.stick()
        bundles.export(county, "130102001", target)
        bundles.take_in(township, [target], answer=False)
        assert seen_by(township) == ["130102", "1301"]
    finally:
        row.close()
