"""What was refused for what a node did not know is taken when it knows it (node/reconsider.py)."""

from __future__ import annotations

from pathlib import Path

import pytest

from chain import TOWNSHIP, VILLAGE, Chain, Node
from fednode.node import admission, reconsider, shipped, succession
from fednode.node.app import App
from fednode.sync import effects as fx
from fednode.sync import wire
from mesh import Mesh, Running
from parties import Party, meet, settle
from standbys import standby_of, with_standby, write_some
from world import shop


async def become(mesh: Mesh, standby: Running, chain: tuple[bytes, ...], addresses: tuple[str, ...]) -> None:
    """A stopped standby takes the name that it was given, and runs."""
    succession.take(standby.app, chain, addresses)
    standby.app.close()
    standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
    await mesh.run(standby)


def exchange(child: Node, parent: Node) -> tuple[Party, Party]:
    sides = meet(child, parent)
    settle(*sides)
    assert sides[0].closed == sides[1].closed == fx.Close(None)
    return sides


def chunks(side: Party) -> int:
    return sum(1 for one in side.sent if isinstance(one, wire.Chunk) and one.total)


def test_what_came_before_its_catalog_is_asked_for_when_that_is_there(chain: Chain) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    village.write(shop("held", VILLAGE))
    exchange(village, township)
    catalog, township.trust.catalog = township.trust.catalog, None
    village.write(shop("a", VILLAGE))
    village.write(shop("follows", VILLAGE))
    child, _ = exchange(village, township)
    told = [one for effect in child.of_kind(fx.Acked) for one in effect.outcomes]  # type: ignore[attr-defined]
    assert [one.refused for one in told] == ["FN-5416", "FN-6413"]
    assert township.refusals() == {"FN-5416"}
    assert village.refusals() == {"FN-5416", "FN-6413"}
    assert reconsider.due(township.store, township.trust) == {}
    township.trust.catalog = catalog
    village.write(shop("b", VILLAGE))
    assert list(reconsider.due(township.store, township.trust, VILLAGE)) == [VILLAGE]
    assert reconsider.due(township.store, township.trust, "130102") == {}
    assert reconsider.forget(township.writer, VILLAGE) == 1
    child, _ = exchange(village, township)
    assert chunks(child) == 3  # and nothing of what was held already
    assert sorted(township.records()) == ["a", "b", "follows", "held"]
    assert township.refusals() == set() == village.refusals()  # nor is it on record that it was refused over there
    assert township.verified() == set()
    row = village.store.peer(TOWNSHIP)
    assert row is not None
    assert row.acked == village.store.lsn
    assert reconsider.forget(township.writer, VILLAGE) == 0
    child, parent = exchange(village, township)
    assert chunks(child) == 0
    assert not any(isinstance(one, wire.Holdings) for one in parent.sent)  # the cursor is of use again


@pytest.mark.parametrize(
    ("code", "log", "params", "now"),
    [
        ("FN-5416", "hebei/130102001001/1/shop", "{}", True),
        ("FN-5416", "hebei/130102001001/1/nobody-has-this", "{}", False),
        ("FN-5416", "hebei/130102001001/1/sys.nodes", "{}", False),  # sealed, or for some alone
        ("FN-5411", "hebei/130104/1/shop", "{}", True),
        ("FN-5411", "hebei/130199/1/shop", "{}", False),
        ("FN-5412", "hebei/130104/1/shop", '{"theirs":"1","ours":"0"}', True),
        ("FN-5412", "hebei/130104/2/shop", '{"theirs":"2","ours":"1"}', False),  # that life is not known
        ("FN-5412", "hebei/130104/1/shop", '{"theirs":"1","ours":"2"}', False),  # it came late
        ("FN-5422", "hebei/130104/1/shop", '{"sealer":"1301/1"}', True),
        ("FN-5422", "hebei/130104/1/shop", '{"sealer":"1301/2"}', False),
        ("FN-5422", "hebei/130104/1/shop", "{}", False),
        ("FN-5420", "hebei/130104/1/shop", "{}", False),
        ("FN-5416", "lsn:7", '{"by":"peer"}', False),
        ("FN-5411", "hebei/130104/1/shop#rewrap", "{}", False),
        ("FN-5411", "", "{}", False),  # it could not even be read
    ],
)
def test_what_can_be_taken_by_now(chain: Chain, code: str, log: str, params: str, now: bool) -> None:
    township = chain[TOWNSHIP]
    with township.store.write() as tx:
        tx.keep_evidence(1, VILLAGE, code, log, 0, params, b"")
    assert (VILLAGE in reconsider.due(township.store, township.trust)) == now


def test_what_else_was_refused_of_a_peer_stays_on_record(chain: Chain) -> None:
    township = chain[TOWNSHIP]
    with township.store.write() as tx:
        tx.keep_evidence(1, VILLAGE, "FN-5416", "hebei/130102001001/1/shop", 0, "{}", b"seg")
        tx.keep_evidence(1, VILLAGE, "FN-6406", "hebei/130102001001/1/shop", 7, "{}", b"forged")
        tx.keep_evidence(1, "130102", "FN-5416", "hebei/130102001001/1/shop", 0, "{}", b"seg")
    assert reconsider.forget(township.writer, VILLAGE) == 1
    left = [(one["peer"], one["code"]) for one in township.store.refused()]
    assert left == [("130102", "FN-5416"), (VILLAGE, "FN-6406")]


def test_what_witnesses_have_signed_in_a_life_that_was_not_known_is_asked_for_too(chain: Chain) -> None:
    """It came with the segments that were refused, and the parent tells once."""
    village = chain[VILLAGE]
    exchange(village, chain[TOWNSHIP])
    peer_id = village.link(TOWNSHIP).peer_id
    with village.store.write() as tx:
        tx.set_witnessed(peer_id, 7)
        tx.keep_evidence(1, TOWNSHIP, "FN-6414", f"hebei/{VILLAGE}/1/shop@3", 3, "{}", b"")
    assert reconsider.forget(village.writer, TOWNSHIP) == 0  # not for that alone: it may be a lie
    assert village.refusals() == {"FN-6414"}
    with village.store.write() as tx:
        params = '{"theirs":"1","ours":"0"}'
        tx.keep_evidence(1, TOWNSHIP, "FN-5412", "hebei/130102/1/shop", 0, params, b"")
    assert reconsider.forget(village.writer, TOWNSHIP) == 1
    assert village.refusals() == set()
    peer = village.store.peer(TOWNSHIP)
    assert peer is not None
    assert peer.witnessed is None
    assert admission.hello(village.trust, village.store, 1, "test", peer, None).witnessed == 0


async def test_regression_a_successor_without_the_newest_catalog_takes_what_it_refused_when_that_has_come(
    tmp_path: Path,
) -> None:
    """It refused for good what a county wrote in a dataset that only the newest catalog has (FN-5416): the county took
    that for answered, and did not send it again when the catalog had come."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found(publish=False)
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, "130102", "county")
        standby = await standby_of(mesh, city)
        await mesh.until(lambda: bool(province.app.trust.directory.standbys_of("1301")))
        succession.allow(province.app, "1301-s1")
        await mesh.until(lambda: standby.app.trust.directory.is_heir(standby.app.trust.me))
        await mesh.until(lambda: standby.app.config.listen in county.app.parent_addresses())
        await mesh.halt(standby)
        province.app.publish_catalog(shipped.catalog())
        await mesh.until(lambda: county.app.trust.catalog_version == 1)
        await mesh.halt(city)
        chain, addresses = await succession.ask(standby.app)
        await mesh.halt(province)
        write_some(county, 2, 7)
        await become(mesh, standby, chain, addresses)
        await mesh.until(lambda: [one["code"] for one in standby.app.store.refused()] == ["FN-5416"])
        await mesh.run(province)
        await mesh.until(lambda: len(standby.records()) == 2 == len(province.records()))
        assert standby.app.store.refused() == []


async def test_regression_what_a_village_refused_of_a_life_that_it_had_not_heard_of_it_takes_when_it_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the simulator's seed 960 (promoting, small) left behind: refused for good (FN-5412), though the village
    heard of that life later."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        village = await mesh.child(township, "130102001001", "village")
        await mesh.until(lambda: standby.app.trust.directory.get("130102001001") is not None)
        for node in (city, county, standby):
            await mesh.halt(node)
        await mesh.run(city)
        chain, addresses = await succession.ask(standby.app)
        await mesh.halt(city)
        with monkeypatch.context() as silent:
            silent.setattr(admission, "later_lives", lambda trust, known: ())
            await become(mesh, standby, chain, addresses)
            write_some(standby, 1, 8, area="130102001001")
            await mesh.until(lambda: "FN-5412" in {one["code"] for one in village.app.store.refused()})
            await mesh.halt(township)
        assert len(village.records()) == 0 < len(township.records())
        await mesh.run(township)
        await mesh.until(lambda: len(village.records()) == 1)
        assert village.app.store.refused() == []
