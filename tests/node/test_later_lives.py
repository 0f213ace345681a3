"""Who goes on in a new life is believed at every level below, whatever comes first: the word of that life, or what was
written in it."""

from __future__ import annotations

from pathlib import Path

from chain import CITY, COUNTY, PROVINCE, WORLD, Node
from fednode.crypto import certs, issuing
from fednode.node import admission, shipped, succession
from fednode.node.app import App, encoded
from fednode.node.trust import Trust
from fednode.sync.catalog import Catalog
from fednode.sync.change import NODES, Change
from fednode.sync.effects import Commit
from fednode.sync.identity import LEVELS, node_payload
from mesh import Mesh, Running
from rekeyed import rekeyed
from standbys import standby_of, with_standby, write_some
from world import NOW_S


async def succeed(mesh: Mesh, standby: Running) -> None:
    """A stopped standby, its name taken already, runs."""
    standby.app.close()
    standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
    await mesh.run(standby)


async def test_what_a_successor_writes_before_its_issuer_s_word_has_come(tmp_path: Path) -> None:
    """The city is away when the county's standby takes over: the township hears of the new life from the county itself,
    and the village from the township. It refused all of the county's new logs for good (FN-5412)."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        village = await mesh.child(township, "130102001001", "village")
        await mesh.until(lambda: county.app.trust.directory.get("130102001001") is not None)
        await mesh.halt(city)
        write_some(county, 2, 7, area="130102001001")
        await mesh.until(lambda: len(standby.records()) == 2 and len(village.records()) == 2)
        await mesh.halt(county)
        await mesh.halt(standby)
        await mesh.run(city)
        chain, addresses = await succession.ask(standby.app)
        await mesh.halt(city)
        succession.take(standby.app, chain, addresses)
        await succeed(mesh, standby)
        write_some(standby, 1, 8, area="130102001001")
        await mesh.until(lambda: len(village.records()) == 3)
        assert village.app.store.refused() == [] == township.app.store.refused()
        await mesh.halt(village)
        await mesh.halt(township)  # whoever starts again knows it still
        township.app.close()
        township.app = App.open(township.app.home.path, township.app.config, clock=mesh.clock)
        assert township.app.trust.directory.life("130102", 2) is not None
        await mesh.run(township)
        await mesh.run(village)
        await mesh.run(city)
        write_some(standby, 1, 9, area="130102001001")
        await mesh.until(lambda: len(village.records()) == 4 == len(city.records()))
        for node in (city, standby, township, village):
            assert node.app.store.refused() == []


async def test_what_only_a_child_has_of_its_primary_is_not_lost(tmp_path: Path) -> None:
    """Found by the simulator (promoting, seed 9): the standby lagged, and a correction was at the township alone."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        await mesh.halt(city)
        await mesh.halt(standby)
        write_some(county, 2, 7, area="130102001")
        await mesh.until(lambda: len(township.records()) == 2)
        await mesh.halt(county)
        assert standby.records() == {}
        await mesh.run(city)
        chain, addresses = await succession.ask(standby.app)
        succession.take(standby.app, chain, addresses)
        await succeed(mesh, standby)
        await mesh.until(lambda: len(city.records()) == 2 and city.records() == township.records())
        await mesh.until(lambda: standby.records() == city.records())
        assert [one.app.store.refused() for one in (city, standby, township)] == [[], [], []]


async def test_what_only_the_level_above_has_of_its_primary_comes_back(tmp_path: Path) -> None:
    """Simulator (promoting, seed 3): the standby lagged; what the county had written itself had gone up, and the
    successor never had it."""
    async with Mesh(tmp_path) as mesh:
        city, county, _, standby = await with_standby(mesh)
        await mesh.halt(standby)
        write_some(county, 2, 7)
        await mesh.until(lambda: len(city.records()) == 2)
        await mesh.halt(county)
        assert standby.records() == {}
        chain, addresses = await succession.ask(standby.app)
        succession.take(standby.app, chain, addresses)
        await succeed(mesh, standby)
        await mesh.until(lambda: standby.records() == city.records())
        own = [name for _, name, _ in standby.app.store.logs() if name.origin == "130102" and not name.is_system]
        assert {name.incarnation for name in own} == {1}
        assert [one.app.store.refused() for one in (city, standby)] == [[], []]


async def test_what_a_promoted_province_writes_reaches_the_counties(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, "130102", "county")
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("13")))
        await mesh.until(lambda: county.app.trust.catalog_version > 0)
        await mesh.until(lambda: standby.app.config.listen in city.app.parent_addresses())
        root_key = province.app.home.root_key(None)
        assert root_key is not None
        await mesh.until(lambda: standby.app.trust.catalog_version > 0)
        await mesh.halt(province)
        await mesh.halt(standby)
        await succession.promote(standby.app, root_key=root_key)
        await succeed(mesh, standby)
        old = shipped.catalog()
        standby.app.publish_catalog(Catalog(old.version + 1, old.datasets, old.zh, old.en, old.targets))
        await mesh.until(lambda: city.app.trust.catalog_version == old.version + 1)
        await mesh.until(lambda: county.app.trust.catalog_version == old.version + 1)
        assert county.app.store.refused() == []
        # the city's certificate is by the province as it was before
        later = await mesh.child(city, "130104", "county")
        await mesh.until(lambda: later.app.trust.catalog_version == old.version + 1)
        assert later.app.store.refused() == []


def second_lives() -> tuple[bytes, bytes]:
    """The province's second life by the root, and the city's by that."""
    province = rekeyed(WORLD, PROVINCE)
    keys = WORLD.keys(CITY, 2)
    asked = issuing.parse_request(issuing.make_request(CITY, keys.tls, keys.sign, keys.seal))
    grant = issuing.Grant(CITY, "city", (CITY,), 2, 365, 7)
    return province.chain[0], issuing.issue(
        asked, grant, certs.parse(province.chain[0]), province.keys.tls, LEVELS, now_s=NOW_S
    )


def test_regression_what_was_heard_is_known_after_a_start_where_its_issuer_has_a_later_life_too(
    tmp_path: Path,
) -> None:
    """Found by the simulator (promoting, small, seed 960): the province was succeeded, then the city. A county that had
    heard of the city's new life looked, as it started again, whether the province's old one could have said that,
    before it had read in its log that there is a new one. It forgot what it had heard, and its villages refused all of
    the city's new logs for good (FN-5412)."""
    county = Node(COUNTY, tmp_path / COUNTY)
    place = WORLD.places[COUNTY]
    trust = county.writer.trust = Trust.load(county.store, place.chain, COUNTY)
    province, city = second_lives()
    trust.hear([province, city])
    said = Change(PROVINCE.encode(), encoded(node_payload(province)))
    of_province = WORLD.segment(
        PROVINCE, [said], dataset=NODES, incarnation=2, key=WORLD.keys(PROVINCE, 2).sign, sealed=False
    )
    (done,) = county.take(CITY, Commit(1, of_province.raw))
    assert done.refused == ""
    with county.store.write() as tx:
        trust.keep_heard(tx)
    again = Trust.load(county.store, place.chain, COUNTY)
    assert again.directory.heard == {(CITY, 2)} == trust.directory.heard
    assert admission.later_lives(again, (1, 1, 2)) == (city,)  # what its villages are told
    county.store.close()
