"""A standby over real sockets: it joins, takes everything, reads everything, writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fednode.node import shipped, syncing
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.dialer import SUCCEEDED_S
from fednode.node.events import Events
from fednode.node.lag import listing
from fednode.node.schedule import RETRY_MAX_S
from fednode.node.status import collect
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused
from fednode.sync.strip import erase_change
from mesh import Mesh, Running, configuration
from sample_data import records, write
from standbys import DATASET, county_with_villages, held_by, logs, standby_of, waiting, write_some


async def test_a_standby_holds_and_reads_what_its_primary_does(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        assert standby.app.trust.me.stands_for == "130102"
        await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
        write_some(township, 5, 1)
        write_some(county, 3, 2)
        write_some(county, 2, 3, area="130102001")  # a correction that goes down
        await mesh.until(lambda: len(county.records()) == 10)
        await mesh.until(lambda: standby.records() == county.records())
        await mesh.until(lambda: held_by(standby, county))
        await mesh.until(lambda: len(city.records()) == 10 and city.records() == county.records())


async def test_a_standby_reads_what_was_written_before_it_came(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township = await county_with_villages(mesh)
        write_some(township, 5, 1)
        write_some(county, 3, 2)
        await mesh.until(lambda: len(county.records()) == 8)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: standby.records() == county.records())


async def test_a_standby_confirms_an_erase_to_whoever_asked_for_it(tmp_path: Path) -> None:
    """Regression: it stripped, and its receipt never came down; the list of who holds the record left it out."""
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(city.records()) == 2 and not township.pending())
        (name,) = [one for _, one, _ in township.app.store.logs() if one.dataset == DATASET]
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: len(standby.records()) == 2)
        await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
        await mesh.halt(standby)
        writer = township.app.new_writer()
        writer.local(DATASET, "130102001", [erase_change(name, 0, "court order")])
        writer.store.close()
        township.app.poke()
        await mesh.until(lambda: waiting(township) == ["130102-s1"])
        await mesh.run(standby)
        await mesh.until(lambda: waiting(township) == [])
        assert len(standby.records()) == 1
        assert [one.app.store.refused() for one in (city, county, township, standby)] == [[], [], [], []]


async def test_a_receipt_of_a_standby_above_comes_to_a_standby_below(tmp_path: Path) -> None:
    """Found by the simulator (promoting, seed 3): the township's standby refused it for good (FN-5413)."""
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(city.records()) == 2 and not township.pending())
        (name,) = [one for _, one, _ in township.app.store.logs() if one.dataset == DATASET]
        above, below = await standby_of(mesh, county), await standby_of(mesh, township)
        await mesh.until(lambda: len(above.records()) == 2 == len(below.records()))
        await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
        writer = township.app.new_writer()
        writer.local(DATASET, "130102001", [erase_change(name, 0, "court order")])
        writer.store.close()
        township.app.poke()
        await mesh.until(lambda: "hebei/130102-s1/1/sys.receipts@130102001" in logs(below))
        assert [one.app.store.refused() for one in (city, county, township, above, below)] == [[]] * 5


async def test_a_standby_writes_no_record_and_passes_nothing_on(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
        write_some(township, 1, 1)
        await mesh.until(lambda: len(standby.records()) == 1)
        with pytest.raises(Refused, match="FN-5306"):
            write_some(standby, 1, 2)
        assert standby.pending() == 0
        routes = standby.app.store.rows("select up, down from log where origin <> ?", "130102-s1")
        assert set(routes) == {(0, "")}
        with pytest.raises(Refused, match="FN-5116"):
            standby.app.invite_standby()
        with pytest.raises(Refused, match="FN-5105"):
            standby.app.invite("130102002", "township", "x")


async def test_the_province_has_a_standby_too(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("13")))
        write_some(city, 4, 1)
        await mesh.until(lambda: len(standby.records()) == 4)


async def test_a_village_opens_its_ports_when_it_has_invited_a_standby(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, _, township = await county_with_villages(mesh)
        village = await mesh.child(township, "130102001001", "village")
        await mesh.until(lambda: village.app.trust.catalog_version == 1)
        assert not opened(village)
        with pytest.raises(Refused, match="FN-5105"):
            village.app.invite("130102001002", "village", "x")
        token = Token.decode(village.app.invite_standby())
        await mesh.until(lambda: opened(village))
        standby = await mesh.start(await App.join(tmp_path / token.node, configuration(), token, clock=mesh.clock))
        write_some(village, 2, 1)
        await mesh.until(lambda: held_by(standby, village) and len(standby.records()) == 2)
        assert not standby.app.serves


def opened(node: Running) -> bool:
    """Whether its daemon serves. A join in this process may not begin before: it blocks the loop."""
    return bool(node.stop.__self__.server.enrol_port)  # type: ignore[attr-defined]


async def test_a_revoked_standby_gets_no_more_and_is_sealed_to_no_more(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
        county.app.revoke("130102-s1", "sold")
        await mesh.until(lambda: not township.app.trust.directory.standbys_of("130102"))
        write_some(township, 1, 1)
        await mesh.until(lambda: len(county.records()) == 1)
        with pytest.raises(PeerError):
            await syncing.sync_once(standby.app)
        assert standby.records() == {}


# ---------------------------------------------------------------- queries, and nothing else


async def test_a_standby_answers_queries_and_refuses_every_act(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
        write_some(township, 2, 1)
        await mesh.until(lambda: len(standby.records()) == 2)

        def run(*words: str, expect: int = 0) -> dict[str, Any]:
            capsys.readouterr()
            code = invoke(["--home", str(standby.app.home.path), "--json", *words], {"LANG": "C.UTF-8"})
            document: dict[str, Any] = json.loads(capsys.readouterr().out)
            assert code == expect, document
            return document

        key = "130102001|1|0"
        assert run("get", DATASET, key)["record"] == standby.records()[key]
        assert len(run("find", DATASET)["records"]) == 2
        assert run("digest")["records"] == 2
        rows = tmp_path / "rows.csv"
        write(rows, shipped.catalog().datasets[DATASET], records(DATASET, 3, seed=5, area="130102"))
        catalog = tmp_path / "catalog.toml"
        catalog.write_bytes(b"")
        refusals = {
            ("put", DATASET, "--key", key, "--field", "xk_zt=2"): "FN-5306",
            ("delete", DATASET, key): "FN-5306",
            ("import", DATASET, str(rows)): "FN-5306",
            ("erase", DATASET, key, "--reason", "x", "--yes"): "FN-5306",
            ("invite", "130102009", "--level", "township", "--name", "x"): "FN-5105",
            ("standby", "invite"): "FN-5116",
            ("standby", "allow", "130102-s1"): "FN-5117",
            ("revoke", "130102001", "--reason", "x", "--yes"): "FN-5115",
            ("catalog", "publish", "--shipped"): "FN-5201",
        }
        before = logs(standby)
        for words, code in refusals.items():
            assert run(*words, expect=5)["error"]["code"] == code, words
        assert (logs(standby), standby.records()) == (before, county.records())


# ---------------------------------------------------------------- where it can be dialled


async def test_children_hear_of_a_standby_while_their_session_is_open_and_try_it_often(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township = await county_with_villages(mesh)
        dialer = township.stop.__self__._dialer  # type: ignore[attr-defined]
        assert dialer._longest_s() == RETRY_MAX_S
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: standby.app.config.listen in township.app.parent_addresses())
        assert township.app.parent_addresses()[0] == county.app.config.listen
        assert dialer._longest_s() == SUCCEEDED_S


# ---------------------------------------------------------------- how far behind


def behind(node: Running) -> tuple[int | None, int | None]:
    """Changes and milliseconds, as a primary or its standby says."""
    (one,) = listing(node.app, of_others=False)
    return one["behind_changes"], one["behind_ms"]


async def test_both_sides_say_how_far_behind_a_standby_is(tmp_path: Path) -> None:
    now_ms = [1_780_000_000_000]
    async with Mesh(tmp_path, lambda: now_ms[0]) as mesh:
        _, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        assert collect(township.app)["standbys"] == []
        with standby.app.home.lock():  # as `fednode run` does
            await mesh.until(lambda: behind(county) == behind(standby) == (0, 0))
            await mesh.halt(standby)
        write_some(township, 5, 1)
        await mesh.until(lambda: len(county.records()) == 5)
        await mesh.until(lambda: behind(county)[0] is not None and behind(county)[0] >= 5)
        now_ms[0] += 60_000
        write_some(county, 2, 2)
        await mesh.until(lambda: behind(county)[0] is not None and behind(county)[0] >= 7)
        assert behind(county)[1] == 60_000
        assert behind(standby) == (None, 60_000)  # its daemon is stopped: what it lacks it cannot know
        await mesh.halt(county)
        await mesh.run(county)
        assert behind(county)[1] == 60_000  # its own start makes nothing younger
        with standby.app.home.lock():
            await mesh.run(standby)
            await mesh.until(lambda: behind(county) == behind(standby) == (0, 0))
            now_ms[0] += 120_000
            assert behind(standby) == (None, 120_000)  # no word since


async def test_a_standby_that_cannot_keep_up_knows_what_it_lacks(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, _ = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        with standby.app.home.lock():
            await mesh.until(lambda: behind(standby) == (0, 0))
            with standby.app.store.write():  # its disk is busy
                write_some(county, 3, 1)
                await mesh.until(lambda: (behind(standby)[0] or 0) >= 3)
            await mesh.until(lambda: behind(county) == behind(standby) == (0, 0))


# ---------------------------------------------------------------- acknowledged when a standby has it


async def waiting_for_standby(mesh: Mesh, **settings: str) -> tuple[Running, Running, Running, Running]:
    """City, county whose acknowledgements wait for its standby, township, the standby; all have met."""
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county", ack="standby", **settings)
    township = await mesh.child(county, "130102001", "township")
    await mesh.until(lambda: township.app.trust.catalog_version == 1)
    standby = await standby_of(mesh, county)
    await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
    await mesh.until(lambda: has_all(county, standby))
    return city, county, township, standby


def has_all(county: Running, standby: Running) -> bool:
    """Whether the standby has acknowledged all that there is."""
    peer = county.app.store.peer(standby.app.trust.node)
    return peer is not None and county.app.store.backlog_standby(peer.node, peer.acked).segments == 0


def ack_of(node: Running) -> dict[str, Any]:
    found = collect(node.app)["ack"]
    assert found is not None
    return dict(found)


async def test_a_child_is_acknowledged_when_a_standby_has_it(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await waiting_for_standby(mesh, ack_wait="1h")
        write_some(township, 3, 1)
        await mesh.until(lambda: township.pending() == 0)
        assert len(standby.records()) == 3
        await mesh.halt(standby)
        write_some(township, 2, 2)
        await mesh.until(lambda: len(county.records()) == 5)
        assert township.pending() == 2
        assert (ack_of(county)["waiting_changes"], ack_of(county)["away_since_ms"]) == (2, None)
        await mesh.run(standby)
        await mesh.until(lambda: township.pending() == 0)
        assert len(standby.records()) == 5
        await mesh.until(lambda: ack_of(county)["waiting_changes"] == 0)


async def test_what_a_child_had_not_heard_when_it_dialled_again_waits_as_well(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await waiting_for_standby(mesh, ack_wait="1h")
        await mesh.halt(standby)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(county.records()) == 2)
        await mesh.halt(township)
        await mesh.run(township)
        write_some(township, 1, 2)
        await mesh.until(lambda: len(county.records()) == 3)
        assert township.pending() == 3
        await mesh.run(standby)
        await mesh.until(lambda: township.pending() == 0)
        assert len(standby.records()) == 3


async def test_while_the_standby_is_away_acknowledgements_are_held(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await waiting_for_standby(mesh, ack_wait="1s")
        await mesh.halt(standby)
        write_some(township, 2, 1)
        await mesh.until(lambda: township.app.store.peer("130102").last_error == "FN-4519")
        await mesh.until(lambda: ack_of(county)["away_since_ms"] is not None)
        await mesh.until(lambda: "FN-4524" in codes(city))  # those above hear of it
        assert (township.pending(), len(county.records())) == (2, 2)
        await mesh.run(standby)
        await mesh.until(lambda: ack_of(county)["away_since_ms"] is None)
        for _ in range(
            20
        ):  # the daemon would do so within a minute; a busy machine's standby may need more than a second
            if township.pending():
                await syncing.sync_once(township.app)
        assert township.pending() == 0
        assert len(standby.records()) == 2


async def test_or_are_given_alone_and_said_to_be(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await waiting_for_standby(mesh, ack_wait="1s", ack_away="alone")
        await mesh.halt(standby)
        write_some(township, 2, 1)
        await mesh.until(lambda: township.pending() == 0)
        await mesh.until(lambda: ack_of(county)["away_since_ms"] is not None)
        await mesh.until(lambda: "FN-4524" in codes(city))
        assert standby.records() == {}
        await mesh.halt(county)
        await mesh.run(county)
        write_some(township, 2, 2)
        await mesh.until(lambda: township.pending() == 0)  # it had gone away before the start: nobody waits again
        await mesh.run(standby)
        await mesh.until(lambda: ack_of(county)["away_since_ms"] is None)
        assert len(standby.records()) == 4


def codes(node: Running) -> set[str]:
    """Codes of the alerts known at a node."""
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        return {one.code for one in Events(projector).alerts()}
    finally:
        projector.close()
        projector.store.close()
