"""A damaged segment is fetched again from a neighbour, the parent or a child, and what it stopped goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest

from fednode.crypto.errors import IntegrityError
from fednode.node import audit, erasures, mending, syncing
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.engine import Engine
from fednode.sync.change import LogName
from fednode.sync.enrol import Token
from fednode.sync.strip import erase_change
from fednode.sync.wire import Want
from mesh import Mesh, Running, configuration


def engine(node: Running) -> Engine:
    """The engine of a daemon that runs."""
    found: Engine = node.stop.__self__.engine  # type: ignore[attr-defined]
    return found


def log_of(node: Running, origin: str) -> LogName:
    """The log of the records that a node wrote."""
    return next(
        name for _, name, _ in node.app.store.logs() if (name.origin, name.dataset) == (origin, "admin-licence")
    )


def damage(node: Running, name: LogName, *, column: str = "data") -> None:
    """Flip a bit of the first segment of a log, past all that the program would check."""
    with node.app.store.write() as tx:
        log_id = node.app.store.log_id(name)
        (value,) = tx.connection.execute(
            f"select {column} from segment where log_id = ? and first = 0", (log_id,)
        ).fetchone()
        at = len(value) // 2
        bad = value[:at] + bytes((value[at] ^ 1,)) + value[at + 1 :]
        tx.connection.execute(f"update segment set {column} = ? where log_id = ? and first = 0", (bad, log_id))


def sound(node: Running) -> bool:
    return audit.verify_store(node.app.store, node.app.trust).problems == []


async def three(mesh: Mesh) -> tuple[Running, Running, Running]:
    province = await mesh.found()
    city = await mesh.child(province, "1301", "city")
    county = await mesh.child(city, "130102", "county")
    await mesh.until(lambda: county.app.trust.catalog_version == 1)
    county.write("k1", {"name": "一"})
    nodes = province, city, county
    await mesh.until(lambda: all("k1" in one.records() for one in nodes) and county.pending() == 0)
    return nodes


@pytest.mark.parametrize("column", ["data", "sha256"])
@pytest.mark.parametrize("who", [0, 1, 2])
async def test_a_damaged_segment_is_fetched_from_whoever_has_it(tmp_path: Path, who: int, column: str) -> None:
    """At its origin (from the parent), in the middle (from either side), at the top (from the child)."""
    async with Mesh(tmp_path) as mesh:
        nodes = await three(mesh)
        node = nodes[who]
        name = log_of(node, "130102")
        for one in nodes:
            await mesh.halt(one)
        damage(node, name, column=column)
        with pytest.raises(IntegrityError, match="FN-6601"):
            node.app.store.segment_at(node.app.store.log_id(name) or 0, 0)
        assert not sound(node)
        for one in nodes:
            await mesh.run(one)
        engine(node).mender.found([(str(name), 0)])
        await mesh.until(lambda: sound(node))
        assert node.records()["k1"] == {"name": "一"}
        nodes[2].write("k2", {"name": "二"})
        await mesh.until(lambda: all("k2" in one.records() for one in nodes))
        assert all(sound(one) for one in nodes)


async def test_what_a_verification_by_hand_finds_is_fetched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Regression: it was found, and stayed damaged until the scrub came by, weeks later."""
    async with Mesh(tmp_path) as mesh:
        _, city, _ = await three(mesh)
        damage(city, log_of(city, "130102"))
        command = ["--home", str(city.app.home.path), "--lang", "en", "audit", "verify", "--full"]
        assert await asyncio.to_thread(invoke, command, {"LANG": "C.UTF-8"}) == 6
        shown = capsys.readouterr().out
        assert "[0, 1): FN-6601" in shown
        assert "is asked for at the parent and the children" in shown
        await mesh.until(lambda: sound(city))
        assert mending.known(city.app.store) == []
        assert city.app.store.meta(mending.META) is None


async def test_what_was_found_is_known_after_a_restart(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province, city, county = await three(mesh)
        for one in (province, county):
            await mesh.halt(one)
        name = log_of(city, "130102")
        damage(city, name)
        engine(city).mender.found([(str(name), 0)])
        await mesh.until(lambda: mending.known(city.app.store) == [(str(name), 0)])
        await mesh.halt(city)
        await mesh.run(city)
        await mesh.run(county)
        await mesh.until(lambda: sound(city))


async def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        store = (await mesh.found()).app.store
        for count in (mending.KNOWN_MAX, mending.KNOWN_MAX + 1):
            with store.write() as tx:
                mending.remember(tx, [("fednode-test/13/1/sys.audit", first) for first in range(count)])
            kept = msgspec.json.decode(store.meta(mending.META) or b"")
            assert len(kept) == mending.KNOWN_MAX
            assert kept[-1] == ["fednode-test/13/1/sys.audit", count - 1]


async def test_an_exchange_by_hand_fetches_it_too(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, city, _ = await three(mesh)
        await mesh.halt(city)
        name = log_of(city, "130102")
        damage(city, name)
        with city.app.store.write() as tx:
            mending.remember(tx, [(str(name), 0)])
        await syncing.sync_once(city.app)
        assert sound(city)


async def test_a_feed_passes_damage_over_and_sends_it_when_it_is_mended(tmp_path: Path) -> None:
    """Regression: one damaged segment ended every session whose feed met it."""
    async with Mesh(tmp_path) as mesh:
        province, city, county = await three(mesh)
        await mesh.halt(province)
        county.write("k2", {"name": "二"})
        await mesh.until(lambda: county.pending() == 0)
        await mesh.halt(city)
        name = log_of(city, "130102")
        with city.app.store.write() as tx:
            row = "where log_id = ? and first = 1"
            log_id = city.app.store.log_id(name)
            (raw,) = tx.connection.execute(f"select data from segment {row}", (log_id,)).fetchone()
            bad = raw[:-1] + bytes((raw[-1] ^ 1,))
            tx.connection.execute(f"update segment set data = ? {row}", (bad, log_id))
        await mesh.halt(county)
        await mesh.run(province)
        await mesh.run(city)
        city.write("k9", {"name": "九"})
        await mesh.until(lambda: "k9" in province.records())  # the session goes on
        assert "k2" not in province.records()
        await mesh.run(county)
        await mesh.until(lambda: "k2" in province.records())
        assert sound(city)


async def test_the_stripped_form_takes_the_place_when_an_erase_was_missed(tmp_path: Path) -> None:
    """Regression: a neighbour that had stripped a segment meanwhile had only other bytes, so the alert stayed for ever;
    and who had asked for it in an exchange of its own waited for ever."""
    async with Mesh(tmp_path) as mesh:
        province, city, county = await three(mesh)
        county.write("k2", {"name": "留"})
        await mesh.until(lambda: "k2" in province.records() and county.pending() == 0)
        name = log_of(county, "130102")
        await mesh.halt(county)
        damage(county, name)
        writer = city.app.new_writer()
        writer.local("admin-licence", "130102", [erase_change(name, 0, "court order")])
        writer.store.close()
        city.app.poke()
        await mesh.until(lambda: "k1" not in province.records())
        await mesh.run(county)
        await mesh.until(lambda: county.app.store.rows("select 1 from erased") != [])
        assert not sound(county)
        engine(county).mender.found([(str(name), 0)])
        await mesh.until(lambda: sound(county))
        assert county.records() == province.records() == city.records()
        await mesh.until(lambda: not engine(county).mender._damaged)
        log_id = county.app.store.log_id(name)
        held = county.app.store.segment_at(log_id or 0, 0)
        assert held is not None
        columns = county.app.store.columns(held)
        assert columns is not None
        assert sorted(columns.leaves) == [0]
        assert county.app.store.rows("select stripped from erased") == [(1,)]
        await mesh.until(lambda: "130102" in confirmed(city))
        for node in (province, city, county):
            assert sound(node)
            assert node.app.store.refused() == []


def confirmed(node: Running) -> set[str]:
    """Whose receipts of the erase have come."""
    projector = node.app.new_projector()
    projector.catch_up()
    (one,) = erasures.own_erasures(projector.store, node.app.trust, erasures.receipts(projector), "")
    projector.close()
    projector.store.close()
    return {holder.node for holder in one.holders if holder.confirmed_ms is not None}


async def test_one_exchange_ends_though_nobody_has_what_was_asked_for(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _province, city, county = await three(mesh)
        await mesh.halt(county)
        name = log_of(county, "130102")
        damage(county, name)
        damage(city, name)
        engine(city).store.damaged.clear()
        report = await asyncio.wait_for(syncing.sync_once(county.app), 60)
        assert report is not None
        assert not sound(county)


async def test_a_neighbour_gives_only_what_the_asker_may_hold(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, city, county = await three(mesh)
        sibling = await mesh.child(city, "130104", "county")
        await mesh.until(lambda: sibling.app.trust.catalog_version == 1)
        (session,) = [one for one in engine(sibling).sessions if one.peer and one.peer.node == "1301"]
        name = str(log_of(county, "130102"))
        heard: list[Want] = []
        session._hooks.mended = heard.append  # type: ignore[method-assign]
        session.ask_segment(name, 0)
        await mesh.until(lambda: not session.exchange._inbox.mending)
        assert heard == []
        assert not any(
            one.origin == "130102" and one.dataset == "admin-licence" for _, one, _ in sibling.app.store.logs()
        )


async def test_a_standby_and_its_primary_mend_each_other(tmp_path: Path) -> None:
    """Regression: a standby was given nothing of those below its primary, and gave nothing of them back."""
    async with Mesh(tmp_path) as mesh:
        province, city, county = await three(mesh)
        token = Token.decode(city.app.invite_standby())
        standby = await mesh.start(await App.join(tmp_path / token.node, configuration(), token))
        await mesh.until(lambda: "k1" in standby.records())
        for one in (province, county):  # the two have nobody else
            await mesh.halt(one)
        names = [one for _, one, _ in standby.app.store.logs() if one.origin in ("13", "1301", "130102")]
        assert len({name.origin for name in names}) == 3
        for hurt in (standby, city):
            for name in names:
                damage(hurt, name)
            engine(hurt).mender.found([(str(name), 0) for name in names])
            await mesh.until(lambda hurt=hurt: sound(hurt))  # type: ignore[misc]
