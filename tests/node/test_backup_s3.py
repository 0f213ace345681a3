"""Backups in a bucket: a real S3-compatible storage (OpenStack Swift) over real sockets, and what it may refuse."""

from __future__ import annotations

import asyncio
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from backups import KEY, back_up, burn, chosen, go_on, keep_backups, put_back, recovery_key, series_of
from fednode.crypto.errors import IntegrityError
from fednode.node.app import real_clock
from fednode.node.backup import s3
from fednode.node.backup.checking import check
from fednode.node.backup.keyfile import RecoveryKey
from fednode.node.backup.making import remembered
from fednode.node.backup.places import Place, place_of
from fednode.node.backup.restoring import Restoring
from fednode.node.backup.s3 import split
from fednode.node.config import Config
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from mesh import Mesh
from swift import SECRET, USER, Swift, installed

needs_swift = pytest.mark.skipif(not installed(), reason="Debian's swift-proxy, -account, -container, -object")


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    with Swift(tmp_path_factory.mktemp("swift")) as running:
        yield running


def settings(swift: Swift, **changed: Any) -> dict[str, Any]:
    given = {"backup_endpoint": swift.endpoint, "backup_access_key": USER, "backup_secret_key": SECRET.encode()}
    return {**given, **changed}


@pytest.mark.parametrize(
    "text", ["s3://", "s3://b", "s3://UPPER/x", "s3://bucket//x", "s3://bucket/../x y", "gs://bucket/x", "http://x/y"]
)
def test_what_is_no_bucket_is_refused(text: str) -> None:
    with pytest.raises(Refused, match="FN-2741"):
        place_of(text, Config(backup_access_key="a", backup_secret_key=b"b"))


def test_a_bucket_needs_a_key() -> None:
    with pytest.raises(Refused, match="FN-2746"):
        place_of("s3://bucket/x", Config(backup_access_key="a"))
    assert split("s3://bucket") == ("bucket", "")


@needs_swift
async def test_a_city_comes_back_from_a_bucket(swift: Swift, tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        place = swift.bucket("city")
        keep_backups(city, place, keep=2)
        city.app.config = dataclasses.replace(city.app.config, **settings(swift))
        for number in range(4):
            city.write(f"k{number}", {"name": os.urandom(2_000).hex()})
            made = await asyncio.to_thread(back_up, city)
        assert (made.number, made.place, made.kept) == (4, place, 2)
        where, key = place_of(place, city.app.config), recovery_key(city.app)
        series = await asyncio.to_thread(series_of, where, key)
        assert series.numbers() == [3, 4]
        last = remembered(city.app.store, where)
        assert await asyncio.to_thread(check, series, KEY.private, last) == await asyncio.to_thread(
            check, series, KEY.private
        )
        assert check(series, KEY.private, last).problems == []
        held = {one.file for number in (3, 4) for one in series.index(series.backup(number).manifest)}
        assert {name for name in where.files(series.folder) if name.endswith(".object")} == held
        await mesh.until(lambda: city.pending() == 0)
        await mesh.halt(city)
        config = city.app.config
        burn(city)
        put_back(city, chosen(place_of(place, config), key), key)
        result = await go_on(city)
        assert (result.number, result.incarnation) == (4, 3)
        assert city.records().keys() == {"k0", "k1", "k2", "k3"}


@needs_swift
def test_a_file_in_a_bucket(swift: Swift) -> None:
    place = place_of(swift.bucket("files"), Config(**settings(swift)))
    assert place.read("a/b/x", 10) is None
    assert place.files("a/b") == []
    place.write("a/b/x", b"0123456789")
    place.write("a/b/x", b"0123456789")  # the same again
    with pytest.raises(StoreError, match="FN-7662"):
        place.write("a/b/x", b"0123456780")
    with pytest.raises(StoreError, match="FN-7662"):
        place.write("a/b/x", b"012345678")
    assert place.read("a/b/x", 10) == b"0123456789"
    assert place.read("a/b/x", 3) == b"0123"
    assert (place.folders(""), place.folders("a"), place.files("a/b"), place.files("a")) == (["a"], ["b"], ["x"], [])
    place.remove("a/b/x")
    place.remove("a/b/x")
    assert place.files("a/b") == []


@needs_swift
def test_what_a_storage_refuses(swift: Swift, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3, "RETRIES", 0)
    there = swift.bucket("mine")
    wrong = place_of(there, Config(**settings(swift, backup_secret_key=b"another")))
    none = place_of("s3://not-there/x", Config(**settings(swift)))
    for place, reason in ((wrong, "SignatureDoesNotMatch"), (none, "NoSuchBucket")):
        with pytest.raises(PeerError, match="FN-5333") as caught:
            place.files("a")
        assert caught.value.params["reason"] == reason
        with pytest.raises(PeerError, match="FN-5333"):
            place.write("a/x", b"x")
    away = place_of(there, Config(**settings(swift, backup_endpoint="http://127.0.0.1:9")))
    for work in (lambda: away.files("a"), lambda: away.read("a/x", 1), lambda: away.write("a/x", b"x")):
        with pytest.raises(Unavailable, match="FN-4520"):
            work()
    with pytest.raises(Unavailable, match="FN-4520"):
        away.remove("a/x")


@needs_swift
async def test_a_bucket_that_was_tampered_with(swift: Swift, tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        place = swift.bucket("tampered")
        keep_backups(province, place)
        province.app.config = dataclasses.replace(province.app.config, **settings(swift))
        await asyncio.to_thread(back_up, province)
        where, key = place_of(place, province.app.config), recovery_key(province.app)
        series = series_of(where, key)
        name = next(one for one in where.files(series.folder) if one.endswith(".object"))
        data = bytearray(where.read(f"{series.folder}/{name}", 1 << 20) or b"")
        data[-1] ^= 1
        where.remove(f"{series.folder}/{name}")
        assert [one.code for one in check(series).problems] == ["FN-6642"]
        where.write(f"{series.folder}/{name}", bytes(data))
        assert [one.code for one in check(series).problems] == ["FN-6640"]
        with pytest.raises(IntegrityError, match="FN-6640"):
            put_back_into(tmp_path / "home", where, key)


def put_back_into(home: Path, where: Place, key: RecoveryKey) -> None:
    Restoring(home, Config(), chosen(where, key), key, clock=real_clock, rng=os.urandom).run()
