"""Malicious, old and odd sticks: they are refused, or do nothing. Each test is of something that once was not so, or of
a row of the threat model."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import pytest

from fednode.node import bundle_look, bundle_out, bundles, fence, stick
from fednode.node.app import App, random_bytes
from fednode.node.config import Config
from fednode.proto import fednode_pb2 as pb
from fednode.sync import volume as vol
from fednode.sync import wire
from fednode.sync.change import Change
from fednode.sync.errors import PeerError, Refused
from sticks import Row, code, forge, header, held, only, opening, write, write_much

EVIL = ("evil.example:7443",)


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 1)
    yield made
    made.close()


def addresses(app: App) -> tuple[str, ...]:
    return app.home.addresses()


def alerts(app: App) -> int:
    return sum(size for _, name, size in app.store.logs() if name.dataset == "sys.alerts")


class Device:
    """A stick that shows one file the first time that it is opened, another the second time, and so on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, path: Path, *shown: bytes) -> None:
        self._path, self._shown, self.opened = path, shown, 0
        self._open = stick.opened
        monkeypatch.setattr(stick, "opened", self._opened)

    def _opened(self, path: Path) -> AbstractContextManager[BinaryIO]:
        if path == self._path:
            self._path.write_bytes(self._shown[min(self.opened, len(self._shown) - 1)])
            self.opened += 1
        return self._open(path)


def test_a_device_that_shows_another_file_at_each_reading_cannot_speak_for_the_sender(
    row: Row, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Was: the head of the first reading was believed, the hash of the second. Anybody can seal to a node."""
    province, city = row.apps
    carried = row.stick()
    (file,) = map(Path, bundle_out.export(province, "1301", carried).files)
    genuine = file.read_bytes()
    head = vol.read_head(_reader(genuine)).header
    false = opening(province, city, addresses=EVIL, upto=1 << 40)
    file.unlink()
    forged = forge(carried, head, city, false)
    data, before = forged.read_bytes(), addresses(city)
    for shown in ((data, genuine, data), (genuine, data), (genuine, genuine, data)):
        device = Device(monkeypatch, forged, *shown)
        assert code(bundles.take_in(city, [carried], answer=False)) in ("FN-6504", "FN-6502", "FN-3503")
        assert device.opened >= 2
        assert addresses(city) == before
        monkeypatch.undo()


def _reader(data: bytes) -> vol.Read:
    rest = memoryview(data)

    def read(size: int) -> bytes:
        nonlocal rest
        part, rest = bytes(rest[:size]), rest[size:]
        return part

    return read


def test_a_manifest_beside_the_signed_one_that_claims_more_does_not_hide_it(row: Row) -> None:
    """Was: of two manifests the one counted that more volumes bore out, signed or not."""
    province, city = row.apps
    write_much(city, 6)
    carried = row.stick()
    files = list(map(Path, bundle_out.export(city, "13", carried, volume_bytes=128 * 1024).files))
    volumes = [vol.Volume(_reader(path.read_bytes())) for path in files]
    signed = [volume.skip() for volume in volumes][-1]
    assert signed is not None
    more = dataclasses.replace(volumes[0].head.header, volume=len(files) + 1)
    data, sealer = vol._head(more, province.keys.seal.public, random_bytes(32))
    data += vol._frame(sealer, b"frame", True)
    sums = [volume.sum for volume in volumes] + [vol.Sum(len(data), vol.SUITE_1.hash(data))]
    data += vol._manifest(signed.header, sums, lambda _: bytes(64))
    (carried / stick.volume_name(more.id, more.volume)).write_bytes(data)
    assert only(bundles.take_in(province, [carried])).error is None
    assert held(province) == 600


@pytest.mark.parametrize("made_ms", [vol.MADE_MS_MAX + 1, (1 << 48) - 1, (1 << 64) - 1])
def test_a_date_that_no_calendar_knows_is_damage(row: Row, made_ms: int) -> None:
    """Was: a traceback."""
    province, city = row.apps
    carried = row.stick()
    path = forge(carried, header(city, province), province, opening(city, province))
    data = path.read_bytes()
    raw = pb.VolumeHeader.FromString(vol.read_head(_reader(data)).raw)
    raw.made_ms = made_ms
    body = pb.Volume(header=raw.SerializeToString(), commit=bytes(32), wrap=bytes(80)).SerializeToString()
    path.write_bytes(vol.MAGIC + len(body).to_bytes(4, "big") + body)
    with pytest.raises(vol.IntegrityError, match="FN-6505"):
        bundles.take_in(province, [carried])


def test_a_bundle_of_a_newer_program_says_so(row: Row) -> None:
    """Was: `not a bundle, or damaged`."""
    province, city = row.apps
    carried = row.stick()
    path = forge(carried, header(city, province), province, opening(city, province))
    raw = pb.VolumeHeader.FromString(vol.read_head(_reader(path.read_bytes())).raw)
    raw.version = 2
    body = pb.Volume(header=raw.SerializeToString(), commit=bytes(32), wrap=bytes(80)).SerializeToString()
    path.write_bytes(vol.MAGIC + len(body).to_bytes(4, "big") + body)
    with pytest.raises(PeerError, match="FN-5524"):
        bundles.take_in(province, [carried])


def test_another_protocol_and_a_restore_are_refused(row: Row) -> None:
    province, city = row.apps
    for change, expected in (({"version_min": 9, "version_max": 9}, "FN-5518"), ({"restore": True}, "FN-5504")):
        carried = row.stick()
        first = opening(city, province)
        first = dataclasses.replace(first, hello=dataclasses.replace(first.hello, **change))
        forge(carried, header(city, province), province, first, (), city.keys.sign.sign)
        assert code(bundles.take_in(province, [carried])) == expected


def test_an_old_stick_does_not_bring_old_addresses_back(row: Row) -> None:
    province, city = row.apps
    first, second = row.stick(), row.stick()
    bundle_out.export(province, "1301", first)
    province.config = Config(advertise=("new.example:7443",))
    bundle_out.export(province, "1301", second)
    assert only(bundles.take_in(city, [second])).error is None
    assert addresses(city) == ("new.example:7443",)
    assert only(bundles.take_in(city, [first])).error is None
    assert addresses(city) == ("new.example:7443",)


def test_an_acknowledgement_for_another_store_does_nothing(row: Row) -> None:
    """Was: an old stick's refusal put the fence up again in the new life, for the numbers of a store that was gone."""
    province, city = row.apps
    write(city, "a")
    last = city.store.lsn
    first = opening(province, city)
    have = wire.Cursor(random_bytes(16), last, b"")
    for cursor, fenced in ((have, False), (dataclasses.replace(have, store=city.store.store_id), True)):
        carried = row.stick()
        told = dataclasses.replace(first, hello=dataclasses.replace(first.hello, have=cursor))
        ack = wire.Ack(tuple(wire.Outcome(lsn, refused="FN-6420") for lsn in range(1, last + 1)))
        forge(carried, header(province, city), city, told, [ack], province.keys.sign.sign)
        assert only(bundles.take_in(city, [carried], answer=False)).error is None
        assert (fence.standing(city.store) is not None) is fenced


def test_what_a_bundle_without_segments_reports_goes_up(row: Row) -> None:
    """Was: alarms of a bundle without segments were lost."""
    province, city = row.apps
    carried, before = row.stick(), alerts(province)
    fenced = wire.Fenced("FN-6422")
    forge(carried, header(city, province), province, opening(city, province), [fenced], city.keys.sign.sign)
    assert only(bundles.take_in(province, [carried])).error is None
    assert alerts(province) == before + 1


def test_a_child_that_the_same_stick_revokes_is_refused(tmp_path: Path) -> None:
    row = Row(tmp_path, 2)
    province, city, county = row.apps
    carried = row.stick()
    bundle_out.export(city, "13", carried)
    bundles.take_in(province, [carried], answer=False)  # it hears of the county
    write(county, "late")
    carried = row.stick()
    bundle_out.export(county, "1301", carried)
    province.revoke("130102", "stolen")
    bundle_out.export(province, "1301", carried)
    found = {one.sender: one.error.code if one.error else "" for one in bundles.take_in(city, [carried]).bundles}
    assert found == {"13": "", "130102": "FN-5511"}
    assert held(city) == 0
    row.close()


def rolled_back(app: App, backup: bytes) -> App:
    """The node again, with the log.db that it had."""
    app.close()
    for path in app.home.path.glob("*.db*"):
        path.unlink()
    app.home.log_db.write_bytes(backup)
    return App.open(app.home.path, app.config)


def backup_of(app: App) -> bytes:
    app.store.connection.execute("pragma wal_checkpoint(truncate)")
    return app.home.log_db.read_bytes()


def test_a_store_that_was_rolled_back_cannot_hide_it_by_stick(row: Row) -> None:
    """Was: what it had written anew moved its parent's cursor, and with it went what would have shown the rollback
    (simulator, seed 93)."""
    province, city = row.apps
    backup = backup_of(city)
    for key in ("a", "b", "c"):
        write(city, key)
    carried = row.stick()
    bundle_out.export(city, "13", carried)
    assert only(bundles.take_in(province, [carried], answer=False)).error is None
    again = rolled_back(city, backup)
    writer = again.new_writer(again.store)
    writer.local("org-registration", again.trust.area, [Change(b"other", b'{"name":"x"}')])
    stick_ = row.stick()
    bundle_out.export(again, "13", stick_)
    before, told = [size for _, name, size in province.store.logs() if name.origin == "1301"], alerts(province)
    report = bundles.take_in(province, [stick_], answer=False)
    assert code(report) == "FN-5515"
    assert [size for _, name, size in province.store.logs() if name.origin == "1301"] == before
    assert alerts(province) == told + 1
    back = row.stick()
    bundle_out.export(province, "1301", back)
    bundles.take_in(again, [back], answer=False)
    assert fence.standing(again.store) is not None, "and it hears of it by the next stick"
    again.close()


def test_a_store_that_was_rolled_back_is_not_let_past_what_was_refused_of_it(row: Row) -> None:
    """Was: a fork that was refused, in an answer that was lost, counted as known; the next stick moved its parent's
    cursor past it, and the rollback was never found (simulator, seed 30)."""
    province, city = row.apps
    backup = backup_of(city)
    for key in ("a", "b", "c"):
        write(city, key)
    for _ in range(2):  # the second one brings what the first wrote into the audit
        carried = row.stick()
        bundle_out.export(city, "13", carried)
        assert only(bundles.take_in(province, [carried], answer=False)).error is None
    again = rolled_back(city, backup)
    seen = []
    for _ in range(3):  # another audit
        carried = row.stick()
        bundle_out.export(again, "13", carried)
        one = only(bundles.take_in(province, [carried], answer=False))
        seen.append((one.error.code if one.error else "", [why for _, why in one.refused]))
    assert seen == [("", []), ("", ["FN-6420"]), ("FN-5515", [])]
    peer = province.store.peer("1301")
    assert peer is not None
    assert fence.place(again.store, peer.have).code, "it is found at the first meeting"
    again.close()


def test_refusals_without_end_are_counted(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    province, city = row.apps
    monkeypatch.setattr(bundles, "REFUSED_MAX", 3)
    carried = row.stick()
    digest = vol.SUITE_1.hash(b"junk")
    junk = [wire.Chunk(1000 + i, 0, b"junk", 4, digest) for i in range(5)]
    forge(carried, header(city, province), province, opening(city, province), junk, city.keys.sign.sign)
    one = only(bundles.take_in(province, [carried]))
    assert (one.error, one.refusals, len(one.refused)) == (None, 5, 3)


def test_many_bundles_that_nobody_signed_do_not_fill_the_audit(row: Row) -> None:
    province, city = row.apps
    carried = row.stick()
    for _ in range(6):
        forge(carried, header(city, province), province, opening(city, province))
    before = province.store.lsn
    report = bundles.take_in(province, [carried])
    assert [one.error.code for one in report.bundles if one.error] == ["FN-6502"] * 6
    assert province.store.lsn == before + 1


def test_manifests_without_end_do_not_fill_the_memory(row: Row) -> None:
    """INVARIANTS 25. Was: each was kept, with all its sums."""
    province, city = row.apps
    carried, head = row.stick(), header(city, province)
    sums = [vol.Sum(1, bytes(32))] * vol.VOLUMES_MAX
    for number in range(1, 26):
        data, sealer = vol._head(dataclasses.replace(head, volume=number), province.keys.seal.public, bytes(32))
        data += vol._frame(sealer, b"frame", True)
        sums[0] = vol.Sum(number, bytes(32))
        data += vol._manifest(head, sums, lambda _: bytes(64))
        (carried / stick.volume_name(head.id, number)).write_bytes(data)
    tracemalloc.start()
    try:
        assert code(bundles.take_in(province, [carried])) == "FN-6504"
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 1024 * 1024


def test_a_stick_full_of_little_files_stays_small_in_memory(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    province, city = row.apps
    carried = row.stick()
    data = forge(carried, header(city, province), province, opening(city, province)).read_bytes()
    raw = vol.read_head(_reader(data)).raw
    size = 700
    for number in range(size - 1):
        id_ = number.to_bytes(16, "big")
        other = raw.replace(pb.VolumeHeader.FromString(raw).id, id_)
        (carried / stick.volume_name(id_, 1)).write_bytes(data.replace(raw, other))
    tracemalloc.start()
    try:
        report = bundles.take_in(province, [carried])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(report.bundles) == size
    assert peak / size * stick.FILES_MAX < 96 * 1024 * 1024
    monkeypatch.setattr(stick, "FILES_MAX", size)
    (carried / stick.volume_name(random_bytes(16), 1)).write_bytes(data)
    with pytest.raises(Refused, match="FN-3506"):
        bundles.take_in(province, [carried])


@pytest.mark.parametrize("size", [stick.REQUESTS_MAX, stick.REQUESTS_MAX + 1])
def test_so_many_requests_to_join_and_no_more(row: Row, size: int) -> None:
    carried = row.stick()
    for number in range(size):
        (carried / f"fednode-{number:016x}.fnr").write_bytes(b"FNREQST1")
    if size > stick.REQUESTS_MAX:
        with pytest.raises(Refused, match="FN-3506"):
            bundles.take_in(row.apps[0], [carried])
    else:
        assert len(bundles.take_in(row.apps[0], [carried]).asking) == size


def test_one_file_that_cannot_hold_it_is_refused_and_leaves_nothing(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Was: the second volume was written over the first."""
    _, city = row.apps
    write_much(city, 4)
    monkeypatch.setattr(vol, "VOLUME_BYTES_MAX", 160 * 1024)
    carried = row.stick()
    with pytest.raises(Refused, match="FN-3519"):
        bundle_out.export(city, "13", carried / "one.fnb", volume_bytes=128 * 1024)
    assert not list(carried.iterdir())


def test_nothing_but_volumes_and_requests_is_opened(row: Row, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else lies on a stick (an autorun.inf, another's photographs, a folder) is not even looked at."""
    province, city = row.apps
    write(city, "a")
    carried = row.stick()
    bundle_out.export(city, "13", carried)
    (carried / "autorun.inf").write_bytes(b"x")
    (carried / "fednode-..%2f..%2fetc-0001.fnb").write_bytes(b"x")
    (carried / "deep").mkdir()
    (carried / "deep" / stick.volume_name(bytes(16), 1)).write_bytes(b"x")
    opened: list[str] = []
    real = stick.opened

    def watched(path: Path) -> AbstractContextManager[BinaryIO]:
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(stick, "opened", watched)
    assert only(bundles.take_in(province, [carried])).error is None
    assert all(stick.VOLUME_NAME.fullmatch(name) for name in opened)
    assert held(province) == 1


def test_the_newest_of_two_manifests_signed_by_the_sender_needs_all_its_volumes(row: Row) -> None:
    """Volumes of two bundles do not make one, whatever they are renamed to."""
    province, city = row.apps
    write_much(city, 5)
    first, second = row.stick(), row.stick()
    a = list(map(Path, bundle_out.export(city, "13", first, volume_bytes=128 * 1024).files))
    b = list(map(Path, bundle_out.export(city, "13", second, volume_bytes=128 * 1024).files))
    mixed = row.stick()
    for number, (mine, theirs) in enumerate(zip(a, b, strict=True)):
        (mixed / mine.name).write_bytes((mine if number % 2 else theirs).read_bytes())
    found = bundles.take_in(province, [mixed])
    assert {one.error.code for one in found.bundles if one.error} <= {"FN-3502", "FN-3503"}
    assert len(found.bundles) == 2
    assert held(province) == 0


def test_look_knows_whose_signature_it_is(row: Row) -> None:
    province, city = row.apps
    carried = row.stick()
    bundle_out.export(city, "13", carried)
    forge(carried, header(city, province), province, opening(city, province))
    parts = stick.scan([carried]).parts
    assert {one.signed for one in bundle_look.look(parts, province.trust.directory)} == {True, False}
    assert {one.signed for one in bundle_look.look(parts)} == {None}
