"""Backups of real nodes in real folders: made beside a running daemon, put back after all has burnt, over real gRPC."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from backups import (
    KEY,
    Cut,
    back_up,
    burn,
    chosen,
    files,
    folder,
    go_on,
    keep_backups,
    lone,
    newest_objects,
    put_back,
    recovery_key,
    series_of,
)
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SealKey
from fednode.node.app import real_clock
from fednode.node.backup import making
from fednode.node.backup.checking import check
from fednode.node.backup.keyfile import RecoveryKey
from fednode.node.backup.making import Last, Maker, remembered
from fednode.node.backup.places import Folder
from fednode.node.backup.restoring import Restoring
from fednode.node.backup.series import Series
from fednode.node.config import Config
from fednode.node.erasing import erase
from fednode.node.home import NodeKeys
from fednode.sync import backup as fmt
from fednode.sync import segment as seg
from fednode.sync.errors import Refused, Unavailable
from fednode.sync.strip import erase_change
from mesh import Mesh


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


async def test_regression_what_is_stripped_long_after_its_erase_leaves_the_backups_too(tmp_path: Path) -> None:
    """It could not be read when the erase came (its key came later), and a backup was made in between: by the place of
    the erase that one held nothing that was erased since."""
    async with Mesh(tmp_path) as mesh:
        city, place = await lone(mesh, tmp_path)
        city.write("secret-key", {"name": "一个秘密"})
        store, writer = city.app.store, city.app.new_writer(city.app.store)
        name = city.app.trust.log_name("admin-licence", "1301")
        lsn = store.ending_at(name, 1)
        assert lsn is not None
        key = store.segments(lsn - 1, 1)[0].content_key
        with store.write() as tx:
            tx.execute("update segment set content_key = null where lsn = ?", lsn)
        writer.local("admin-licence", "1301", [erase_change(name, 0, "court order 12")])
        back_up(city)
        series, keys = series_of(place, recovery_key(city.app)), city.app.keys
        assert b"secret-key" in _everything(series, keys)
        with writer.telling() as tx:
            tx.execute("update segment set content_key = ? where lsn = ?", key, lsn)
            writer.stripping.settle(tx, store.segments(lsn - 1, 1)[0], announce=True)
        back_up(city)
        assert series.numbers() == [2]
        assert b"secret-key" not in _everything(series, keys)


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


def _cut(folder: Path, _others: Path) -> None:
    path = newest_objects(folder)[0]
    path.write_bytes(path.read_bytes()[:-7])


def _swap(folder: Path, _others: Path) -> None:
    first, second = newest_objects(folder)[:2]
    data = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(data)


def _replay(folder: Path, _others: Path) -> None:
    """The manifest of an older backup in the newest one's place."""
    (folder / "0000000003.manifest").write_bytes((folder / "0000000002.manifest").read_bytes())


def _hole(folder: Path, _others: Path) -> None:
    (folder / "0000000002.manifest").unlink()


def _missing(folder: Path, _others: Path) -> None:
    newest_objects(folder)[0].unlink()


def _foreign_object(folder: Path, others: Path) -> None:
    newest_objects(folder)[0].write_bytes(newest_objects(others)[0].read_bytes())


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
        series = Series(Folder(place), folder(city), city.app.trust.root_sha256)
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
        newest_objects(place / folder(city))[0].unlink()
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


# ---------------------------------------------------------------- what only children hold


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
        (place / folder(city) / "README").write_text("whose these are")
        back_up(city)
        assert "README" in files(place)
