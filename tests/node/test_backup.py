"""Backups of real nodes in real folders: made beside a running daemon, put back after all has burnt, over real gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from backups import KEY, back_up, burn, chosen, go_on, keep_backups, put_back, recovery_key, series_of
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.keys import SealKey
from fednode.node import fence, succession, syncing
from fednode.node.app import App, real_clock
from fednode.node.audit import verify_store
from fednode.node.backup import making
from fednode.node.backup.checking import check
from fednode.node.backup.keyfile import RecoveryKey
from fednode.node.backup.making import Last, Maker, remembered
from fednode.node.backup.places import Folder
from fednode.node.backup.restoring import Restoring
from fednode.node.backup.series import Series, folder_of
from fednode.node.config import Config
from fednode.node.erasing import erase
from fednode.node.home import Home, NodeKeys
from fednode.node.recovery import Recovery
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer
from fednode.sync import backup as fmt
from fednode.sync import segment as seg
from fednode.sync.errors import Refused, StoreError, Unavailable
from mesh import Mesh, Running


async def family(mesh: Mesh) -> tuple[Running, Running, Running, Running]:
    """Province, city, county, township; all with the catalog."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county")
    town = await mesh.child(county, "130102001", "township")
    await mesh.until(lambda: town.app.trust.catalog_version == 1)
    return province, city, county, town


async def test_a_county_that_burnt_comes_back_from_its_backup_and_what_others_hold(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county, town = await family(mesh)
        keep_backups(county, tmp_path / "backup")
        county.write("k1", {"name": "一"})
        town.write("t1", {"name": "镇"})
        await mesh.until(lambda: {"k1", "t1"} <= province.records().keys() and county.pending() == 0)
        made = await asyncio.to_thread(back_up, county)  # beside its daemon
        assert (made.number, made.kept) == (1, 1)
        county.write("k2", {"name": "二"})  # its parent has it, the backup has not
        town.write("t2", {"name": "镇二"})
        await mesh.until(lambda: {"k2", "t2"} <= province.records().keys() and county.pending() == 0)
        await mesh.halt(county)
        town.write("t3", {"name": "镇三"})  # nobody above has it
        key = recovery_key(county.app)
        burn(county)
        put_back(county, chosen(tmp_path / "backup", key), key)
        result = await go_on(county)
        assert (result.node, result.left, result.incarnation, result.refused) == ("130102", 1, 3, [])
        assert {"k1", "k2", "t1", "t2"} <= county.records().keys()
        await mesh.run(county)
        await mesh.until(lambda: "t3" in province.records() and town.pending() == 0)
        county.write("k3", {"name": "三"})
        await mesh.until(lambda: "k3" in province.records() and county.pending() == 0)
        assert county.records() == province.records()
        for node in (province, city, county, town):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert fence.standing(node.app.store) is None
            assert node.app.store.refused() == []


async def lone(mesh: Mesh, tmp_path: Path, **more: int) -> tuple[Running, Path]:
    """A province and a city that does not run; the city keeps backups."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
    await mesh.halt(city)
    keep_backups(city, tmp_path / "backup", **more)
    return city, tmp_path / "backup"


def files(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in place.rglob("*") if path.is_file()}


async def test_what_only_the_backup_holds_is_made_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})  # its parent never had it
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        assert city.app.home.path.joinpath("recover.json").exists()
        with pytest.raises(StoreError, match="FN-7625"):
            App.open(city.app.home.path, city.app.config)
        result = await go_on(city)
        assert result.salvaged.appended >= 1
        await mesh.run(city)
        province = mesh.running[0]
        await mesh.until(lambda: "k1" in province.records() and city.pending() == 0)
        assert province.app.store.refused() == []
        assert not verify_store(city.app.store, city.app.trust).problems


async def test_a_backup_costs_what_is_new(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path, keep=1)
        for number in range(40):
            for row in range(5):
                city.write(f"k{number}-{row}", {"name": "一" * 50})
            made = back_up(city)
        series = series_of(place, recovery_key(city.app))
        backup = series.backup(made.number)
        entries = series.index(backup.manifest)
        assert made.number == 40
        assert len([one for one in entries if one.kind == "segments"]) <= 8
        assert len(files(place)) == len(entries) + 2
        assert made.bytes < made.total_bytes / 2
        assert not check(series, KEY.private, remembered(city.app.store, str(place))).problems


async def test_an_erase_leaves_no_backup_that_holds_it(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("secret-key", {"name": "一个秘密"})
        back_up(city)
        city.write("k2", {"name": "二"})
        back_up(city)
        series = series_of(place, recovery_key(city.app))
        keys = city.app.keys
        assert series.numbers() == [1, 2]
        held = _everything(series, keys)
        assert b"secret-key" in held
        records = city.app.records()
        records.projector.catch_up()
        erase(records, "admin-licence", "secret-key", "court order 12")
        records.close()
        made = back_up(city)
        assert series.numbers() == [3]
        assert made.kept == 1
        assert b"secret-key" not in _everything(series, keys)
        assert "一个秘密".encode() not in _everything(series, keys)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        await go_on(city)
        assert "secret-key" not in city.records()
        assert "k2" in city.records()


def _everything(series: Series, keys: NodeKeys) -> bytes:
    """What whoever has the recovery key (and with it the node's) can read in all the objects there."""
    found = []
    for path in (Path(series.place.shown) / series.folder).glob("*.object"):
        _, tables = fmt.open_object(path.read_bytes(), KEY.private)
        for table in tables:
            for row in table.rows:
                found += [value for value in row if isinstance(value, bytes)]
                if table.name == "segment":
                    found += _opened(dict(zip(table.columns, row, strict=True))["data"], keys)
    return b"\n".join(found)


def _opened(data: bytes, keys: NodeKeys) -> list[bytes]:
    envelope = seg.parse(data)
    content_key = seg.unwrap(envelope, keys.seal.key_id, keys.seal.private) if envelope.sealed else None
    if envelope.sealed and content_key is None:
        return []
    columns = seg.open_with_content_key(envelope, content_key) if content_key else seg.decode_body(envelope.body)
    return [*columns.keys, *columns.payloads]


# ---------------------------------------------------------------- altered places


def _alter(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def _newest(folder: Path) -> list[Path]:
    """The objects of the newest backup, the largest first."""
    manifest = max(folder.glob("*.manifest")).read_text("utf-8")
    index = next(line.split(" ")[1] for line in manifest.split("\n") if line.startswith("index "))
    names = [line.split(" ")[4] for line in (folder / f"{index}.index").read_text("ascii").splitlines()]
    return sorted((folder / f"{name}.object" for name in names), key=lambda path: -path.stat().st_size)


def _cut(folder: Path, _others: Path) -> None:
    path = _newest(folder)[0]
    path.write_bytes(path.read_bytes()[:-7])


def _swap(folder: Path, _others: Path) -> None:
    first, second = _newest(folder)[:2]
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def _replay(folder: Path, _others: Path) -> None:
    """The manifest of an older backup in the newest one's place."""
    (folder / "0000000003.manifest").write_bytes((folder / "0000000002.manifest").read_bytes())


def _hole(folder: Path, _others: Path) -> None:
    (folder / "0000000002.manifest").unlink()


def _missing(folder: Path, _others: Path) -> None:
    _newest(folder)[0].unlink()


def _foreign_object(folder: Path, others: Path) -> None:
    _newest(folder)[0].write_bytes(_newest(others)[0].read_bytes())


def _foreign_manifest(folder: Path, others: Path) -> None:
    (folder / "0000000003.manifest").write_bytes((others / "0000000001.manifest").read_bytes())


def _index(folder: Path, _others: Path) -> None:
    for path in folder.glob("*.index"):
        _alter(path, 60)


def _manifest(folder: Path, _others: Path) -> None:
    _alter(folder / "0000000003.manifest", 120)


TAMPERINGS: dict[str, tuple[Callable[[Path, Path], None], str, bool]] = {
    # what is done, the code that verify gives, whether a restore of the newest is refused (it may be whole)
    "an object that is cut": (_cut, "FN-6640", True),
    "two objects swapped": (_swap, "FN-6640", True),
    "an older manifest in the place of the newest": (_replay, "FN-6643", True),
    "a manifest missing in between": (_hole, "FN-6644", False),
    "an object missing": (_missing, "FN-6642", True),
    "another node's object": (_foreign_object, "FN-6640", True),
    "another node's manifest": (_foreign_manifest, "FN-6643", True),
    "an index altered": (_index, "FN-6640", True),
    "a manifest altered": (_manifest, "FN-66", True),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RecoveryKey, str, Last]:
    """Three backups of a city, one of its province, in one place."""
    folder = tmp_path_factory.mktemp("places")

    async def made() -> tuple[RecoveryKey, str, Last]:
        async with Mesh(folder) as mesh:
            city, place = await lone(mesh, folder)
            for number in range(3):
                city.write(f"k{number}", {"name": "一" * (3_000 if number == 0 else 10)})
                back_up(city)
            province = mesh.running[0]
            keep_backups(province, place)
            back_up(province)
            last = remembered(city.app.store, str(place))
            assert last is not None
            return recovery_key(city.app), city.app.store.store_id.hex(), last

    key, store, last = asyncio.run(made())
    return folder / "backup", key, store, last


@pytest.mark.parametrize("what", TAMPERINGS)
def test_what_was_tampered_with_is_found_and_not_put_back(
    places: tuple[Path, RecoveryKey, str, Last], what: str, tmp_path: Path
) -> None:
    whole, key, store, last = places
    place = tmp_path / "place"
    shutil.copytree(whole, place)
    folder = place / "hebei" / "1301" / store
    (others,) = (place / "hebei" / "13").iterdir()
    series = Series(Folder(place), f"hebei/1301/{store}", key.root_sha256)
    for private in (None, KEY.private):
        assert not check(series, private, last).problems
    tamper, code, refused = TAMPERINGS[what]
    tamper(folder, others)
    for private in (None, KEY.private):
        found = check(series, private, last).problems
        assert found, what
        assert all(one.code.startswith(code) for one in found[:1]), [one.code for one in found]
    home = tmp_path / "home"
    config = Config()

    def restore() -> None:
        Restoring(home, config, chosen(place, key, "1301"), key, clock=real_clock, rng=os.urandom).run()

    if refused:
        with pytest.raises(IntegrityError, match="FN-66"):
            restore()
        assert not home.exists(), "nothing half done"
        assert [path.name for path in tmp_path.iterdir()] == ["place"]
    else:
        restore()


def test_the_newest_backup_taken_away_is_found_at_the_node_and_by_its_number(
    places: tuple[Path, RecoveryKey, str, Last], tmp_path: Path
) -> None:
    """The whole place put back to an older state: nothing in it is wrong."""
    whole, key, store, last = places
    place = tmp_path / "place"
    shutil.copytree(whole, place)
    (place / "hebei" / "1301" / store / "0000000003.manifest").unlink()
    series = Series(Folder(place), f"hebei/1301/{store}", key.root_sha256)
    assert check(series, KEY.private).problems == []
    assert [one.code for one in check(series, KEY.private, last).problems] == ["FN-6645"]
    assert chosen(place, key, "1301").backup.manifest.number == 2


def test_another_s_key_opens_nothing(places: tuple[Path, RecoveryKey, str, Last]) -> None:
    place, key, _, _ = places
    other = RecoveryKey(SealKey.from_seed(bytes(31) + b"\x09"), key.domain, key.root_sha256)
    with pytest.raises(Refused, match="FN-5330"):
        chosen(place, other, "1301")
    with pytest.raises(Refused, match="FN-3362"):
        chosen(place, key)
    with pytest.raises(IntegrityError, match="FN-6641"):
        chosen(place, RecoveryKey(key.key, key.domain, bytes(32)), "1301")
    with pytest.raises(Refused, match="FN-3361"):
        chosen(place, key, "1302")
    with pytest.raises(Refused, match="FN-3363"):
        chosen(place, key, "1301", number=4)
    with pytest.raises(Refused, match="FN-3363"):
        chosen(place, key, "1301", upto=10**9)


# ---------------------------------------------------------------- cut off, altered, twice


class Cut(Exception):
    """The power goes."""


class Failing(Folder):
    """A folder that is lost after so many writes and removals: before one, or right after it is on the disk."""

    def __init__(self, path: Path, steps: int, *, after: bool) -> None:
        super().__init__(path)
        self.left, self._after = steps, after

    def _step(self, work: Callable[[], None]) -> None:
        self.left -= 1
        if self.left < 0 and not self._after:
            raise Cut
        work()
        if self.left < 0:
            raise Cut

    def write(self, name: str, data: bytes) -> None:
        self._step(lambda: super(Failing, self).write(name, data))

    def remove(self, name: str) -> None:
        self._step(lambda: super(Failing, self).remove(name))


@pytest.mark.parametrize("after", [False, True])
async def test_a_backup_that_is_cut_off_anywhere_leaves_the_others_whole_and_goes_on(
    tmp_path: Path, *, after: bool
) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path, keep=2)
        series = Series(Folder(place), _folder(city), city.app.trust.root_sha256)
        cuts, done = 0, False
        for number in range(3):  # the third removes the first
            city.write(f"k{number}", {"name": "一" * 4_000})
            back_up(city)
        for steps in range(50):
            before = series.numbers()
            city.write(f"more{steps}", {"name": "一"})
            failing = Failing(place, steps, after=after)
            try:
                Maker(city.app, failing, KEY.public).run()
                done = failing.left >= 0
            except Cut:
                cuts += 1
            assert set(series.numbers()[-2:]) >= set(before[-1:]), "what was there is there"
            last = remembered(city.app.store, str(place))
            assert not check(series, KEY.private, last if series.numbers()[-1] == last.number else None).problems
            back_up(city)
            assert not check(series, KEY.private, remembered(city.app.store, str(place))).problems
            assert len(series.numbers()) == 2
            left = {name for name in files(place) if not name.endswith(".manifest")}
            held = {e.file for n in series.numbers() for e in series.index(series.backup(n).manifest)}
            assert left == held | {series.backup(n).manifest.index_file for n in series.numbers()}, (
                "nothing is left over"
            )
            if done:
                break
        assert done
        assert cuts >= 5


def _folder(node: Running) -> str:
    return folder_of(node.app.trust.domain, node.app.trust.node, node.app.store.store_id)


async def test_a_place_that_is_not_as_the_node_left_it_is_not_built_upon(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        back_up(city)
        shutil.copytree(place, tmp_path / "older")
        back_up(city)
        newer = tmp_path / "newer"
        shutil.move(place, newer)
        for state in (tmp_path / "older", None):  # put back; lost
            shutil.rmtree(place, ignore_errors=True)
            if state is not None:
                shutil.copytree(state, place)
            before = files(place)
            with pytest.raises(IntegrityError, match="FN-6645"):
                back_up(city)
            assert files(place) == before
        made = back_up(city, anew=True)
        assert made.number == 3
        series = series_of(place, recovery_key(city.app))
        assert series.numbers() == [3]
        assert not check(series, KEY.private, remembered(city.app.store, str(place))).problems
        assert back_up(city).number == 4


async def test_an_object_that_is_missing_is_written_anew_by_the_next_backup(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一" * 3_000})
        back_up(city)
        _newest(place / _folder(city))[0].unlink()
        series = series_of(place, recovery_key(city.app))
        assert [one.code for one in check(series).problems] == ["FN-6642"]
        back_up(city)
        assert check(series, KEY.private, numbers=(2,)).problems == []


async def test_a_damaged_segment_is_written_over_no_sound_one(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})
        back_up(city)
        with city.app.store.write() as tx:
            tx.execute("update segment set data = zeroblob(length(data)) where lsn = (select max(lsn) from segment)")
        city.write("k2", {"name": "二"})
        with pytest.raises(IntegrityError, match="FN-6601"):
            back_up(city)
        series = series_of(place, recovery_key(city.app))
        assert series.numbers() == [1]
        assert check(series, KEY.private).problems == []


async def test_a_backup_is_one_state_while_others_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something is written after each object: the last step reads one state all the same."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        monkeypatch.setattr(making, "BATCH_BYTES", 20_000)
        city.app.profile = dataclasses.replace(city.app.profile, object_bytes=4_000)
        for number in range(6):
            for row in range(4):
                city.write(f"k{number}-{row}", {"name": os.urandom(1_000).hex()})
        real, count = Folder.write, 0

        def write(self: Folder, name: str, data: bytes) -> None:
            nonlocal count
            count += 1
            city.write(f"meanwhile{count}", {"name": "一"})
            real(self, name, data)

        monkeypatch.setattr(Folder, "write", write)
        made = back_up(city)
        assert count > 6
        series = series_of(place, recovery_key(city.app))
        assert check(series, KEY.private).problems == []
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        await go_on(city)
        assert len(city.records()) >= 24
        assert made.objects >= 6


# ---------------------------------------------------------------- the province; a point in time


@pytest.mark.parametrize("offline", [False, True])
async def test_the_province_comes_back_with_its_root_key(tmp_path: Path, *, offline: bool) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        keep_backups(province, tmp_path / "backup")
        root_pem = province.app.home.keys_dir / "root.pem"
        if offline:
            root_pem = root_pem.rename(tmp_path / "root.pem")
        province.write("p1", {"name": "省"})
        city.write("k1", {"name": "一"})
        await mesh.until(lambda: "k1" in province.records() and city.pending() == 0)
        await asyncio.to_thread(back_up, province)
        city.write("k2", {"name": "二"})
        await mesh.until(lambda: "k2" in province.records() and city.pending() == 0)
        await mesh.halt(province)
        city.write("k3", {"name": "三"})
        key = recovery_key(province.app)
        burn(province)
        put_back(province, chosen(tmp_path / "backup", key), key)
        recovery = Recovery(province.app.home.path, province.app.config)
        if offline:
            with pytest.raises(Refused, match="FN-5331"):
                await asyncio.to_thread(recovery.run)
            root_key = recovery.home.read_root_key(root_pem, None)
            result = await asyncio.to_thread(recovery.run, root_key)
            province.app = App.open(province.app.home.path, province.app.config)
        else:
            result = await go_on(province)
        assert (result.left, result.incarnation, result.parent) == (1, 11, "")
        await mesh.run(province)
        await mesh.until(lambda: {"p1", "k1", "k2", "k3"} <= province.records().keys() and city.pending() == 0)
        province.write("p2", {"name": "省二"})
        await mesh.until(lambda: city.app.trust.directory.get("13").incarnation == 11)
        for node in (province, city):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []


async def test_up_to_an_arrival_number(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})
        upto = city.app.store.lsn
        states = {str(name): city.app.store.log_state(name) for _, name, _ in city.app.store.logs()}
        city.write("k1", {"name": "错"})
        city.write("k2", {"name": "错"})
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key, upto=upto), key)
        with contextlib.closing(Store.open(city.app.home.log_db, stash_key=city.app.keys.stash_key)) as store:
            assert {str(name): store.log_state(name) for _, name, _ in store.logs()} == states
        await go_on(city)
        assert city.records() == {"k1": {"name": "一"}}
        assert city.app.store.lsn > 1_000_000_000
        assert not verify_store(city.app.store, city.app.trust).problems


async def test_up_to_an_arrival_number_before_a_late_reader_was_given_its_keys(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        for number in range(3):
            city.write(f"k{number}", {"name": str(number)}, area="130102")
        county = await mesh.child(city, "130102", "county")
        keep_backups(county, tmp_path / "backup")
        await mesh.until(lambda: len(county.records()) == 3)
        await asyncio.to_thread(back_up, county)
        await mesh.halt(county)
        sql = "select min(s.lsn) from segment s join log l on l.id = s.log_id where l.audience = '130102'"
        ((first,),) = county.app.store.rows(sql)
        key = recovery_key(county.app)
        burn(county)
        put_back(county, chosen(tmp_path / "backup", key, upto=first - 1), key)
        with contextlib.closing(Store.open(county.app.home.log_db, stash_key=county.app.keys.stash_key)) as store:
            assert store.rows("select * from rewrap") == []
        await go_on(county)
        await mesh.run(county)
        await mesh.until(lambda: len(county.records()) == 3)
        assert verify_store(county.app.store, county.app.trust, full=True).carried == 0


# ---------------------------------------------------------------- what only children hold


async def test_children_give_the_province_what_it_wrote_since_its_backup(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        keep_backups(province, tmp_path / "backup")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        await asyncio.to_thread(back_up, province)
        later = await mesh.child(province, "1302", "city")  # enrolled since: only the cities know
        province.write("p1", {"name": "只有下级持有"}, area="1301")
        await mesh.until(lambda: later.app.trust.catalog_version == 1)
        later.write("l1", {"name": "后"})
        await mesh.until(lambda: "p1" in city.records() and later.pending() == 0)
        await mesh.until(lambda: city.app.trust.directory.get("1302") is not None)
        await mesh.halt(later)  # were it the first to dial, it would be refused, and come again in a minute
        await mesh.halt(province)
        key = recovery_key(province.app)
        burn(province)
        put_back(province, chosen(tmp_path / "backup", key), key)
        await go_on(province)
        assert province.app.trust.directory.get("1302") is None
        await mesh.run(province)
        await mesh.until(lambda: province.app.trust.directory.get("1302") is not None)
        await mesh.run(later)
        await mesh.until(lambda: {"p1", "l1"} <= province.records().keys())
        await mesh.until(lambda: later.app.trust.directory.get("13").incarnation == 11)
        for node in (province, city, later):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []
        assert province.app.store.rows("select * from held_back") == []


async def test_a_child_gives_what_only_it_holds_of_its_parent_and_it_is_made_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county, town = await family(mesh)
        keep_backups(county, tmp_path / "backup")
        await mesh.until(lambda: county.pending() == 0)
        await asyncio.to_thread(back_up, county)
        await mesh.halt(city)  # nobody above hears any more
        county.write("k9", {"name": "更正"}, area="130102001")
        await mesh.until(lambda: "k9" in town.records())
        await mesh.halt(county)
        key = recovery_key(county.app)
        burn(county)
        await mesh.run(city)
        put_back(county, chosen(tmp_path / "backup", key), key)
        await go_on(county)
        assert "k9" not in county.records()
        await mesh.run(county)
        await mesh.until(lambda: "k9" in county.records() and "k9" in province.records())
        await mesh.until(lambda: county.pending() == 0 and town.pending() == 0)
        assert county.records() == province.records()
        for node in (province, city, county, town):
            assert not verify_store(node.app.store, node.app.trust).problems
            assert node.app.store.refused() == []


async def test_a_backup_that_was_stopped_goes_on_with_what_it_had_written(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        for number in range(12):
            city.write(f"k{number}", {"name": os.urandom(3_000).hex()})
        city.app.profile = dataclasses.replace(city.app.profile, object_bytes=8_000)
        asked = 0

        def stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > 4

        with pytest.raises(Unavailable, match="FN-4521"):
            Maker(city.app, Folder(place), KEY.public, stop=stop).run()
        # only what a whole step has written counts
        monkey = pytest.MonkeyPatch()
        with monkey.context() as patch:
            patch.setattr(making, "BATCH_BYTES", 16_000)
            asked = 0
            with pytest.raises(Unavailable, match="FN-4521"):
                Maker(city.app, Folder(place), KEY.public, stop=stop).run()
        (left,) = (
            value for key, value in city.app.store.rows("select key, value from meta") if key.startswith("backup/")
        )
        begun = fmt.parse_index(left.partition("\n")[2].encode())
        assert begun
        made = back_up(city)
        series = series_of(place, recovery_key(city.app))
        entries = series.index(series.backup(made.number).manifest)
        assert {one.sha256 for one in begun} <= {one.sha256 for one in entries}, "they were not written again"
        assert check(series, KEY.private, remembered(city.app.store, str(place))).problems == []
        assert len([name for name in files(place) if name.endswith(".object")]) == len(entries), "nothing is left over"
        assert not [key for (key,) in city.app.store.rows("select key from meta where key like 'backup/making/%'")]


async def test_a_stranger_s_file_in_the_folder_stays(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path, keep=1)
        back_up(city)
        (place / _folder(city) / "README").write_text("whose these are")
        back_up(city)
        assert "README" in files(place)


@pytest.mark.parametrize("where", ["file", "environment"])
async def test_private_keys_come_back_under_the_passphrase_of_the_place(tmp_path: Path, where: str) -> None:
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        if where == "file":
            (city.app.home.path / "config.toml").write_text('passphrase = "春眠"\n', "utf-8")
        back_up(city)
        key, secret = recovery_key(city.app), "春眠" if where == "file" else "不觉晓"
        config = (
            city.app.config if where == "file" else dataclasses.replace(city.app.config, passphrase=secret.encode())
        )
        burn(city)
        Restoring(city.app.home.path, config, chosen(place, key), key, clock=real_clock, rng=os.urandom).run()
        assert b"ENCRYPTED" in (city.app.home.keys_dir / "seal.pem").read_bytes()
        city.app.config = dataclasses.replace(config, passphrase=secret.encode())
        assert (await go_on(city)).incarnation == 3


@pytest.mark.parametrize("cut", range(10))
async def test_a_restore_that_is_cut_off_anywhere_goes_on(
    tmp_path: Path, cut: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every change that going on from a backup makes, cut off before it and run again."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})  # nobody above has these
        city.write("k2", {"name": "二"})
        back_up(city)
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        count = 0

        def step(real: Any) -> Any:
            def stepped(*arguments: Any, **named: Any) -> Any:
                nonlocal count
                if getattr(getattr(arguments[0], "trust", None), "node", "1301") != "1301":
                    return real(*arguments, **named)
                count += 1
                if count == cut + 1:
                    raise Cut
                return real(*arguments, **named)

            return stepped

        with monkeypatch.context() as patch:
            patch.setattr(Home, "write_chain", step(Home.write_chain))
            patch.setattr(Writer, "local", step(Writer.local))
            patch.setattr(Transaction, "hold_back", step(Transaction.hold_back))
            patch.setattr(fence, "lift", step(fence.lift))
            patch.setattr(succession, "make_again", step(succession.make_again))
            with contextlib.suppress(Cut, RuntimeError, FednodeError):
                await asyncio.to_thread(Recovery(city.app.home.path, city.app.config).run)
        assert count > cut or cut == 9
        if count > cut:
            assert (city.app.home.path / "recover.json").exists()
            await asyncio.to_thread(Recovery(city.app.home.path, city.app.config).run)
        city.app = App.open(city.app.home.path, city.app.config)
        assert city.app.trust.me.incarnation == 3
        assert city.records() == {"k1": {"name": "一"}, "k2": {"name": "二"}}
        await mesh.run(city)
        province = mesh.running[0]
        await mesh.until(lambda: city.pending() == 0 and {"k1", "k2"} <= province.records().keys())
        logs = [name for _, name, _ in province.app.store.logs() if name.origin == "1301"]
        again = [name for name in logs if name.incarnation == 3 and name.dataset == "admin-licence"]
        assert len(again) <= 1
        assert province.app.store.refused() == []
        assert not verify_store(city.app.store, city.app.trust).problems


async def test_a_backup_of_an_earlier_life_does_not_go_on_in_one_that_was_lived(tmp_path: Path) -> None:
    """Regression: who asks for a new life in the place of an old one gets the one that is in force; that was another
    store's."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        province = mesh.running[0]
        city.write("k1", {"name": "一"})
        back_up(city)
        city.app.store.close()
        for path in city.app.home.path.glob("log.db*"):
            path.unlink()
        recovered = await go_on(city)
        assert recovered.incarnation == 2
        city.write("k2", {"name": "二"})
        await syncing.sync_once(city.app)
        city.write("k3", {"name": "三"})  # in the second life, and with nobody else
        key = recovery_key(city.app)
        burn(city)
        put_back(city, chosen(place, key), key)
        result = await go_on(city)
        assert (result.left, result.incarnation) == (1, 3)
        assert city.records().keys() == {"k1", "k2"}
        await mesh.run(city)
        city.write("k4", {"name": "四"})
        await mesh.until(lambda: city.pending() == 0 and {"k1", "k2", "k4"} <= province.records().keys())
        assert province.app.store.refused() == [] == city.app.store.refused()
        assert not verify_store(city.app.store, city.app.trust).problems


@pytest.mark.parametrize("restored", [True, False])
async def test_a_new_life_writes_nothing_before_its_enrolment_is_here(tmp_path: Path, *, restored: bool) -> None:
    """Regression (simulator, seed 32, burning): an erase came back with the history, its receipt was written in the new
    life and passed down before the word of that life; who got it refused it for good (FN-5412)."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("k1", {"name": "一"})
        back_up(city)
        records = city.app.records()
        records.projector.catch_up()
        erase(records, "admin-licence", "k1", "court order 12")
        records.close()
        await syncing.sync_once(city.app)
        key = recovery_key(city.app)
        if restored:
            burn(city)
            put_back(city, chosen(place, key), key)
        else:
            city.app.store.close()
            for path in city.app.home.path.glob("log.db*"):
                path.unlink()
        await go_on(city)
        me, store = city.app.trust.me, city.app.store
        sql = "select s.lsn from segment s join log l on l.id = s.log_id where l.origin = ? and l.incarnation = ?"
        own = store.rows(f"{sql} order by s.lsn", me.node, me.incarnation)
        enrolled = store.rows(f"{sql} and l.dataset = 'sys.nodes' order by s.lsn desc", "13", 1)
        assert own[0][0] > enrolled[0][0]
        assert [
            name for _, name, _ in store.logs() if (name.dataset, name.incarnation) == ("sys.receipts", me.incarnation)
        ]
        assert "k1" not in city.records()
