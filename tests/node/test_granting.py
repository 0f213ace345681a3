"""A succession that was granted in advance, over real sockets: the issuer is away, then it is back."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import TlsKey
from fednode.node import fence, granting, succession
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.sync.errors import PeerError, Refused
from mesh import Mesh, Running
from runbook import commands
from standbys import standby_of, with_standby, write_some


async def succeed(mesh: Mesh, standby: Running, chain: tuple[bytes, ...]) -> None:
    """`fednode promote --grant`, then the daemon again."""
    await mesh.halt(standby)
    taken = await succession.promote(standby.app, granted=chain)
    assert taken.incarnation == 2
    standby.app.close()
    standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
    await mesh.run(standby)


async def test_it_succeeds_while_the_issuer_is_away_and_the_issuer_takes_it_in_when_it_is_back(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(city.records()) == 2 and len(standby.records()) == 2)
        file, code = granting.seal(city.app, "130102-s1")
        await mesh.halt(city)
        await mesh.halt(county)
        await succeed(mesh, standby, granting.opened(standby.app, file, code))
        write_some(township, 3, 2)
        await mesh.until(lambda: len(standby.records()) == 5)  # its children are served
        assert township.app.trust.directory.get("130102").incarnation == 2
        await mesh.run(city)
        await mesh.until(lambda: len(city.records()) == 5)
        assert city.app.trust.directory.get("130102").incarnation == 2
        await mesh.run(county)
        await mesh.until(lambda: fence.superseded(county.app.store))
        assert city.app.store.refused() == []
        with pytest.raises(PeerError, match="FN-5119"):  # of another standby, for the same life: too late
            granting.honour(city.app, city.app.new_writer(city.app.store), forged(city, standby))


def forged(city: Running, standby: Running) -> Any:
    """Another certificate for the life that has begun, granted as well."""
    from fednode.crypto import certs, issuing

    keys = TlsKey.generate()
    known = city.app.trust.directory.get("130102")
    request = issuing.make_request("130102", keys, county_keys(standby), standby.app.keys.seal)
    der = city.app.certify(issuing.parse_request(request), known.name, known.level, known.scope, 2)
    shown = certs.parse(der)
    granting._tell(city.app, shown, "130102-s1")
    city.app.trust.refresh(city.app.store)
    return shown


def county_keys(standby: Running) -> Any:
    from fednode.crypto.keys import SigningKey

    return SigningKey.from_seed(bytes(31) + b"\x07")


async def test_what_makes_a_grant_void(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, _, standby = await with_standby(mesh)
        file, code = granting.seal(city.app, "130102-s1")
        other = await standby_of(mesh, county)
        with pytest.raises(Refused, match="FN-3123"):
            granting.opened(other.app, file, code)
        with pytest.raises(IntegrityError, match="FN-6204"):
            granting.opened(standby.app, file, granting.seal(city.app, "130102-s1")[1])
        with pytest.raises(Refused, match="FN-3121"):
            granting.opened(standby.app, b"x", code)
        with pytest.raises(Refused, match="FN-5307"):
            granting.opened(county.app, file, code)
        chain = granting.opened(standby.app, file, code)
        city.app.revoke("130102-s1", "stolen")
        await mesh.halt(county)
        await succeed(mesh, standby, chain)
        write_some(standby, 1, 1)
        await mesh.until(lambda: city.app.store.peer("130102") is not None)
        await mesh.until(lambda: refused_there(city))
        assert city.app.trust.directory.get("130102").incarnation == 1
        assert not standby.app.trust.directory.is_heir(standby.app.trust.me)


def refused_there(city: Running) -> bool:
    """Whether the city's audit has it that a session was refused."""
    projector = city.app.new_projector()
    try:
        projector.catch_up()
        rows = projector.connection.execute("select payload from record where payload like '%session.refused%'")
        return any("FN-5511" in payload for (payload,) in rows)
    finally:
        projector.close()
        projector.store.close()


async def test_a_primary_that_has_gone_on_makes_it_void(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, _, standby = await with_standby(mesh)
        other = await standby_of(mesh, county)
        await mesh.until(lambda: city.app.trust.directory.get("130102-s2") is not None)
        succession.allow(city.app, "130102-s2")
        file, code = granting.seal(city.app, "130102-s1")
        await mesh.until(lambda: other.app.trust.directory.is_heir(other.app.trust.me))
        await mesh.until(lambda: other.app.config.listen in standby.app.parent_addresses())
        await mesh.halt(county)
        await mesh.halt(other)
        await succession.promote(other.app)
        other.app.close()
        other.app = App.open(other.app.home.path, other.app.config, clock=mesh.clock)
        await mesh.run(other)
        await mesh.until(lambda: standby.app.trust.directory.get("130102").incarnation == 2)
        with pytest.raises(Refused, match="FN-3124"):
            granting.opened(standby.app, file, code)


async def test_who_may_grant_it(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, _ = await with_standby(mesh)
        province = mesh.running[0]
        for node in (county, township, province):
            with pytest.raises(Refused, match=r"FN-5117|FN-3110"):
                granting.seal(node.app, "130102-s1")
        with pytest.raises(Refused, match="FN-5117"):
            granting.seal(city.app, "130102001")
        with pytest.raises(Refused, match="FN-3110"):
            granting.seal(city.app, "nobody")
        with pytest.raises(Refused, match="FN-5309"):
            granting.seal(city.app, "130102-s1", TlsKey.generate())
        city.app.revoke("130102-s1", "sold")
        with pytest.raises(Refused, match="FN-5511"):
            granting.seal(city.app, "130102-s1")


async def test_the_province_s_is_signed_by_the_root_key(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: standby.app.config.listen in city.app.parent_addresses())
        root_key = province.app.home.root_key(None)
        with pytest.raises(Refused, match="FN-5117"):
            granting.seal(province.app, "13-s1")
        file, code = granting.seal(province.app, "13-s1", root_key)
        await mesh.halt(province)
        await succeed(mesh, standby, granting.opened(standby.app, file, code))
        write_some(city, 2, 1)
        await mesh.until(lambda: len(standby.records()) == 2)


async def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of docs/recovery.md, and what is refused."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)

        async def run(node: Running, *words: str, expect: int = 0) -> dict[str, Any]:
            capsys.readouterr()
            arguments = ["--home", str(node.app.home.path), "--json", *words]
            code = await asyncio.to_thread(invoke, arguments, {"LANG": "C.UTF-8"})
            document: dict[str, Any] = json.loads(capsys.readouterr().out)
            assert code == expect, document
            return document

        file, code_file = tmp_path / "grant.txt", tmp_path / "code.txt"
        page = commands("For the day on which the level above cannot be asked either")
        sealed, promote = ([str(tmp_path / word) if word.endswith(".txt") else word for word in one] for one in page)
        assert (sealed[:2], promote[:2]) == (["--home", "above"], ["--home", "standby"])
        told = await run(city, *sealed[2:])
        assert told["code"] is None
        assert oct(file.stat().st_mode & 0o777) == oct(code_file.stat().st_mode & 0o777) == "0o600"
        again = ("standby", "seal", "130102-s1", "--out", str(file))
        assert (await run(city, *again, expect=7))["error"]["code"] == "FN-7617"  # it is never written over
        told = await run(city, "standby", "seal", "130102-s1", "--out", str(tmp_path / "other.txt"))
        assert len(told["code"].replace("-", "")) == 30
        await mesh.halt(city)
        await mesh.halt(county)
        await mesh.halt(standby)
        grant = ("--grant", str(file))
        assert (await run(standby, "promote", *grant, "--yes", expect=3))["error"]["code"] == "FN-3120"
        (tmp_path / "wrong.txt").write_text(told["code"])
        wrong = ("--code-file", str(tmp_path / "wrong.txt"))
        assert (await run(standby, "promote", *grant, *wrong, "--yes", expect=6))["error"]["code"] == "FN-6204"
        told = await run(standby, *promote[2:], "--yes")
        assert (told["promoted"]["node"], told["promoted"]["incarnation"]) == ("130102", 2)
        standby.app.close()
        standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
        await mesh.run(standby)
        write_some(township, 1, 1)
        await mesh.until(lambda: len(standby.records()) == 1)
