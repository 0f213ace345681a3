"""A standby takes its primary's place, and the old primary comes back, over real sockets."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fednode.crypto.issuing import make_request, parse_request
from fednode.crypto.keys import TlsKey
from fednode.node import fence, shipped, succession, syncing
from fednode.node.app import App, real_clock
from fednode.node.audit import verify_store
from fednode.node.demotion import ISSUERS, REACHED_LAST, SUCCESSORS
from fednode.node.recovery import Recovery, Result
from fednode.proto import fednode_pb2 as pb
from fednode.sync.catalog import Catalog
from fednode.sync.change import RECEIPTS, Change, LogName
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from fednode.sync.strip import erase_change
from mesh import Mesh, Running, configuration
from standbys import DATASET, county_with_villages, held_by, promote, standby_of, waiting, with_standby, write_some

OF_STANDBY = LogName("hebei", "130102-s1", 1, RECEIPTS)

# ---------------------------------------------------------------- promotion


async def test_a_promoted_standby_is_found_by_its_children_and_goes_on(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        write_some(township, 5, 1)
        write_some(county, 3, 2)
        await mesh.until(lambda: len(city.records()) == 8 and len(standby.records()) == 8)
        await mesh.halt(county)
        write_some(township, 4, 3)  # nobody is there to take them
        await promote(mesh, standby)
        assert (standby.app.trust.me.node, standby.app.trust.me.incarnation) == ("130102", 2)
        await mesh.until(lambda: len(city.records()) == 12)
        write_some(standby, 2, 4)
        write_some(standby, 1, 5, area="130102001")
        await mesh.until(lambda: len(city.records()) == 15 and city.records() == standby.records())
        await mesh.until(lambda: len(township.records()) == 10)
        assert township.app.trust.directory.get("130102").incarnation == 2
        assert city.app.trust.directory.is_revoked("130102-s1")
        assert township.app.parent_addresses()[0] == standby.app.config.listen  # known for the next time


async def test_nobody_succeeds_whom_the_issuer_has_not_allowed(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, _ = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("130102")))
        await mesh.until(lambda: standby.app.store.meta(ISSUERS) is not None)
        await mesh.halt(county)
        await mesh.halt(standby)
        with pytest.raises(PeerError, match="FN-5118"):
            await succession.ask(standby.app)
        with pytest.raises(Refused, match="FN-5117"):
            succession.allow(city.app, "130102")
        assert App.open(standby.app.home.path, standby.app.config).trust.me.stands_for == "130102"
        succession.allow(city.app, "130102-s1")
        _only_the_life_after_the_one_in_force(city.app, standby.app)
        city.app.revoke("130102-s1", "stolen")
        with pytest.raises(PeerError, match="FN-5511"):
            await succession.ask(standby.app)


def _only_the_life_after_the_one_in_force(issuer: App, standby: App) -> None:
    """Nothing is granted to who knows another life than is in force, and nobody takes the one in force once more."""
    directory, me = issuer.trust.directory, standby.trust.me
    primary = directory.get("130102")
    assert primary is not None
    writer = issuer.new_writer(issuer.store)
    for life in (0, 2):
        with pytest.raises(PeerError, match="FN-5119"):
            succession.grant(issuer, writer, me, pb.SuccessionRequest(node="130102", life=life, dry=True))
    request = make_request("130102", standby.keys.tls, standby.keys.sign, standby.keys.seal)
    der = issuer.certify(parse_request(request), primary.name, primary.level, primary.scope, primary.incarnation)
    with pytest.raises(PeerError, match="FN-6112"):
        succession.take(standby, (der, *directory.chain("1301")))
    assert App.open(standby.home.path, standby.config).trust.me.stands_for == "130102"


def test_nobody_is_promoted_beside_a_primary_that_answers_or_with_what_does_not_verify() -> None:
    plan = succession.Plan("130102-s1", "130102", 1, None, 0)
    with pytest.raises(Refused, match="FN-5120"):
        succession.agree(plan, succession.Checks(reachable=True, changes=1, problems=0), primary_is_gone=False)
    for reachable, gone in ((True, True), (False, False), (None, False)):
        succession.agree(plan, succession.Checks(reachable, changes=1, problems=0), primary_is_gone=gone)
        with pytest.raises(Refused, match="FN-5121"):
            succession.agree(plan, succession.Checks(reachable, changes=1, problems=1), primary_is_gone=gone)


async def test_what_is_not_a_standby_is_not_promoted(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, _ = await county_with_villages(mesh)
        with pytest.raises(Refused, match="FN-5307"):
            succession.plan(county.app)


async def test_the_old_primary_is_fenced_and_refused(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await with_standby(mesh)
        await mesh.halt(county)
        await promote(mesh, standby)
        await mesh.until(lambda: township.app.trust.directory.get("130102").incarnation == 2)
        await mesh.halt(standby)
        await mesh.halt(township)
        write_some(township, 1, 1)
        await mesh.run(county)  # somebody finds the old machine and starts it
        with pytest.raises((PeerError, Unavailable)):  # the old one answers and is refused, the successor is away
            await syncing.sync_once(township.app)
        assert county.records() == {}
        await mesh.until(lambda: fence.standing(county.app.store) is not None)
        with pytest.raises(Refused, match="FN-5303"):
            write_some(county, 1, 9)


async def test_what_only_the_standby_holds_of_its_primary_is_made_again_once(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        await mesh.halt(city)
        write_some(county, 2, 7)
        write_some(county, 1, 8, area="130102001")
        await mesh.until(lambda: len(standby.records()) == 3 and len(township.records()) == 1)
        await mesh.halt(county)
        await mesh.halt(standby)
        await mesh.run(city)
        assert succession.plan(standby.app).uncosigned >= 3
        chain, addresses = await succession.ask(standby.app)
        succession.take(standby.app, chain, addresses)
        standby.app.close()
        for _ in range(2):  # cut off before it settled; then settled, and opened again
            standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
            standby.app.close()
        standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
        await mesh.run(standby)
        await mesh.until(lambda: city.records() == standby.records() and len(city.records()) == 3)
        sizes = {str(name): size for _, name, size in city.app.store.logs()}
        assert (sizes["hebei/130102/2/admin-licence"], sizes["hebei/130102/2/admin-licence@130102001"]) == (2, 1)
        assert city.app.store.refused() == []
        assert township.app.store.refused() == []


async def test_what_the_standby_had_stripped_is_believed_of_its_successor(tmp_path: Path) -> None:
    """Regression: it was sealed in the standby's name, which stands on nobody's path: refused (FN-5419), and with it
    the rest of the log for good."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        await mesh.halt(city)
        write_some(township, 3, 7)
        await mesh.until(lambda: len(standby.records()) == 3)
        (name,) = [one for _, one, _ in township.app.store.logs() if one.dataset == DATASET]
        writer = township.app.new_writer()
        writer.local(DATASET, "130102001", [erase_change(name, 0, "court order")])
        writer.store.close()
        township.app.poke()
        await mesh.until(lambda: len(standby.records()) == 2)
        await mesh.halt(county)
        await mesh.halt(standby)
        await mesh.run(city)
        await promote(mesh, standby)
        await mesh.until(lambda: len(city.records()) == 2)
        write_some(township, 1, 8)
        await mesh.until(lambda: len(city.records()) == 3)
        assert [one.app.store.refused() for one in (city, township, standby)] == [[], [], []]
        await mesh.until(lambda: waiting(township) == [])


async def test_the_root_key_promotes_the_province_s_standby(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("13")))
        await mesh.until(lambda: standby.app.config.listen in city.app.parent_addresses())
        root_key = province.app.home.root_key(None)
        assert root_key is not None
        write_some(city, 3, 1)
        await mesh.until(lambda: len(standby.records()) == 3)
        await mesh.halt(province)
        await mesh.halt(standby)
        with pytest.raises(Refused, match="FN-5309"):
            succession.by_root(standby.app, TlsKey.generate())
        taken = await succession.promote(standby.app, root_key=root_key)
        assert (taken.node, taken.incarnation) == ("13", 2)
        standby.app.close()
        standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
        await mesh.run(standby)
        write_some(city, 2, 2)
        await mesh.until(lambda: len(standby.records()) == 5)
        old = shipped.catalog()
        standby.app.publish_catalog(Catalog(old.version + 1, old.datasets, old.zh, old.en, old.targets))
        await mesh.until(lambda: city.app.trust.catalog_version == old.version + 1)


async def recovered(mesh: Mesh, node: Running) -> Result:
    """`fednode recover` on a node whose daemon is stopped, then its daemon again."""
    await mesh.halt(node)
    node.app.close()
    place = node.app.home.path, node.app.config
    result = await asyncio.to_thread(Recovery(*place).run)
    node.app = App.open(*place, clock=mesh.clock)
    await mesh.run(node)
    return result


async def test_who_has_a_life_that_its_parent_s_successor_never_heard_of_is_invited_anew(tmp_path: Path) -> None:
    """As FN-5519 says it. Regression: with the keys that the successor knew it was given a life that it had lived
    already, whose logs its children have."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        county = await mesh.child(city, "130102", "county")
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: standby.app.config.listen in city.app.parent_addresses())
        await mesh.until(lambda: standby.app.trust.directory.get("130102") is not None and held_by(standby, province))
        root_key = province.app.home.root_key(None)
        assert root_key is not None
        await mesh.halt(standby)
        assert (await recovered(mesh, city)).incarnation == 2
        write_some(city, 1, 1, area="130102")
        await mesh.until(lambda: len(county.records()) == 1)
        await mesh.halt(province)
        await succession.promote(standby.app, root_key=root_key)
        standby.app.close()
        standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
        await mesh.run(standby)
        await mesh.until(lambda: _last_error(city, "13") == "FN-5519")
        await mesh.halt(city)
        token = Token.decode(standby.app.invite("1301", "city", "1301"))
        city.app.close()
        city.app = await App.join(city.app.home.path, city.app.config, token, clock=mesh.clock)
        result = await recovered(mesh, city)
        assert (result.left, result.incarnation) == (2, 3)
        write_some(city, 1, 2, area="130102")
        await mesh.until(lambda: len(county.records()) == 2 and standby.records() == county.records())
        assert [one.app.store.refused() for one in (standby, city, county)] == [[], [], []]


def _last_error(node: Running, peer: str) -> str | None:
    found = node.app.store.peer(peer)
    return found.last_error if found else None


async def test_who_takes_its_history_back_from_a_successor_hears_first_who_is_who(tmp_path: Path) -> None:
    """Regression: what the standby had written of itself came before the successor's word of who that was, and was
    refused (FN-5411). To others the word goes ahead (seed 972 of the simulator, promoting, small)."""
    later_ms = 0
    async with Mesh(tmp_path, lambda: real_clock() + later_ms) as mesh:
        _, county, township, standby = await with_standby(mesh)
        writer = standby.app.new_writer()
        writer.local(RECEIPTS, "130102", [Change(b"it stripped something", b"{}")])
        writer.store.close()
        await mesh.until(lambda: county.app.store.log_state(OF_STANDBY).size == 1)
        await mesh.halt(county)
        await mesh.halt(standby)
        with standby.app.store.write() as tx:  # it has not heard that the city has them
            of_nodes = "log_id in (select id from log where origin = '130102' and dataset = 'sys.nodes')"
            tx.execute(f"update segment set first_time = null, first_signature = null where {of_nodes}")
        later_ms = 10_000  # a cosignature's time is in whole seconds, rounded up
        await promote(mesh, standby)
        township.app.home.write_addresses((standby.app.config.listen,))
        await recovered(mesh, township)
        await mesh.until(lambda: township.app.store.log_state(OF_STANDBY).size == 1)
        assert township.app.store.refused() == []


# ---------------------------------------------------------------- the old primary comes back


async def come_back(mesh: Mesh, old: Running, successor: Running) -> None:
    """`fednode join TOKEN` on the old machine, with its store."""
    await mesh.halt(old)
    token = Token.decode(successor.app.invite_standby())
    old.app.close()
    old.app = await App.join(old.app.home.path, old.app.config, token, clock=mesh.clock)
    await mesh.run(old)


async def test_an_old_primary_gives_what_only_it_has_and_follows(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        write_some(county, 1, 1)
        await mesh.until(lambda: len(city.records()) == 1 and len(standby.records()) == 1)
        await mesh.until(lambda: not succession.plan(standby.app).uncosigned)
        await mesh.halt(standby)
        await mesh.halt(city)
        write_some(county, 2, 2)  # nobody but the county has these
        write_some(township, 1, 3)
        await mesh.until(lambda: len(county.records()) == 4)
        await mesh.halt(county)
        await mesh.halt(township)
        await mesh.run(city)
        await promote(mesh, standby)
        write_some(standby, 1, 4)
        await mesh.until(lambda: len(city.records()) == 2)
        await mesh.run(county)
        await mesh.until(lambda: fence.superseded(county.app.store))
        await come_back(mesh, county, standby)
        assert county.app.trust.me.stands_for == "130102"
        await mesh.until(lambda: len(city.records()) == 5 and city.records() == standby.records())
        await mesh.run(township)
        write_some(township, 1, 5)
        await mesh.until(lambda: len(city.records()) == 6 and held_by(county, standby))
        sizes = {str(name): size for _, name, size in city.app.store.logs()}
        assert (sizes["hebei/130102/1/admin-licence"], sizes["hebei/130102/2/admin-licence"]) == (1, 3)
        assert [one.app.store.refused() for one in (city, standby, township)] == [[], [], []]


@pytest.mark.parametrize("ahead_ms", [-10_000, 60_000])  # a cosignature's time is in whole seconds, rounded up
async def test_what_an_old_primary_took_of_a_child_that_was_revoked_later_is_kept(
    tmp_path: Path, ahead_ms: int
) -> None:
    """Regression (simulator, small, promoting, seed 53): its cosignature, which says that it came before, was passed
    over by its successor: refused (FN-5420), though it was acknowledged, and the child cannot give it again.
    `ahead_ms`: by how much the old primary's clock is ahead of the successor's (seed 516)."""
    later_ms = 0
    async with Mesh(tmp_path, lambda: real_clock() + later_ms) as mesh:
        city, county, township, standby = await with_standby(mesh)
        await mesh.until(lambda: not succession.plan(standby.app).uncosigned)
        await mesh.halt(standby)
        await mesh.halt(city)
        later_ms = max(0, ahead_ms)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(county.records()) == 2 and not _unacknowledged(township))
        await mesh.halt(county)
        await mesh.halt(township)
        later_ms = 0
        await mesh.run(city)
        await promote(mesh, standby)
        later_ms = max(0, -ahead_ms)
        standby.app.revoke("130102001", "stolen")
        await mesh.until(lambda: city.app.trust.directory.is_revoked("130102001"))
        await mesh.run(county)
        await mesh.until(lambda: fence.superseded(county.app.store))
        await come_back(mesh, county, standby)
        await mesh.until(lambda: held_by(county, standby))
        assert [one.app.store.refused() for one in (city, standby, county)] == [[], [], []]
        await mesh.until(lambda: len(city.records()) == 2 and city.records() == standby.records())


def _unacknowledged(child: Running) -> int:
    """Segments of a child that its parent has not acknowledged."""
    peer = child.app.store.peer("130102")
    assert peer is not None
    return child.app.store.backlog_up(peer.acked).segments


async def test_the_province_s_old_machine_joins_its_successor_though_nobody_fenced_it(tmp_path: Path) -> None:
    """Regression: nobody is above the province who would, and `join` refused a home that was not fenced (FN-7616)."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("13")))
        await mesh.until(lambda: standby.app.config.listen in city.app.parent_addresses())
        write_some(city, 3, 1)
        await mesh.until(lambda: len(standby.records()) == 3)
        root_key = province.app.home.root_key(None)
        await mesh.halt(standby)
        write_some(province, 2, 2)  # nobody else has these
        await mesh.until(lambda: len(province.records()) == 5)
        token = Token.decode(province.app.invite_standby())
        with pytest.raises(StoreError, match="FN-7616"):  # its own: nobody has succeeded it
            await App.join(province.app.home.path, province.app.config, token, clock=mesh.clock)
        await mesh.halt(province)
        await succession.promote(standby.app, root_key=root_key)
        standby.app.close()
        standby.app = App.open(standby.app.home.path, standby.app.config, clock=mesh.clock)
        await mesh.run(standby)
        write_some(city, 1, 3)
        await mesh.until(lambda: len(standby.records()) == 4)
        assert not fence.superseded(province.app.store)
        with pytest.raises(StoreError, match="FN-7616"):  # it is not the city that succeeded it
            await App.join(
                province.app.home.path,
                province.app.config,
                Token.decode(city.app.invite_standby()),
                clock=mesh.clock,
            )
        await come_back(mesh, province, standby)
        assert province.app.trust.me.stands_for == "13"
        await mesh.until(lambda: len(standby.records()) == 6 and province.records() == standby.records())
        await mesh.until(lambda: held_by(province, standby))
        write_some(city, 1, 4)
        await mesh.until(lambda: len(province.records()) == 7)
        assert [one.app.store.refused() for one in (city, standby, province)] == [[], [], []]


async def test_an_old_primary_reads_what_was_written_while_it_was_away(tmp_path: Path) -> None:
    """Its key is known by another name: it was a primary's, and is a standby's."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        write_some(county, 1, 1)
        await mesh.until(lambda: len(city.records()) == 1 and len(standby.records()) == 1)
        await mesh.halt(county)
        await promote(mesh, standby)
        write_some(standby, 2, 2)
        write_some(standby, 1, 3, area="130102001")
        write_some(township, 2, 4)
        await mesh.until(lambda: len(city.records()) == 6)
        await mesh.run(county)
        await mesh.until(lambda: fence.superseded(county.app.store))
        assert len(county.records()) == 1
        await come_back(mesh, county, standby)
        await mesh.until(lambda: county.records() == standby.records())
        assert len(county.records()) == 6
        # keys come one by one, and that of the audit may be the last
        await mesh.until(lambda: verify_store(county.app.store, county.app.trust, full=True).carried == 0)
        assert [one.app.store.refused() for one in (city, standby, township, county)] == [[], [], [], []]


async def test_a_successor_gives_what_its_primary_no_longer_could(tmp_path: Path) -> None:
    """A township joins, and before its county can give it what was written for it, that is gone."""
    async with Mesh(tmp_path) as mesh:
        _, county, _, standby = await with_standby(mesh)
        write_some(county, 3, 1, area="130102002")
        await mesh.until(lambda: len(standby.records()) == 3)
        token = Token.decode(county.app.invite("130102002", "township", "x"))
        settings = configuration(parent_addresses=(standby.app.config.listen,))
        late = await App.join(mesh.folder / "130102002", settings, token)
        await mesh.until(lambda: standby.app.trust.directory.get("130102002") is not None)
        await mesh.until(lambda: not succession.plan(standby.app).uncosigned)
        await mesh.halt(county)
        await promote(mesh, standby)
        township = await mesh.start(late)
        await mesh.until(lambda: len(township.records()) == 3)
        assert verify_store(township.app.store, township.app.trust, full=True).carried == 0


async def test_a_child_that_meets_the_old_primary_again_does_not_fence_itself(tmp_path: Path) -> None:
    """It says that the other is of an earlier life; it took its own word for its parent's."""
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        await mesh.halt(county)
        await promote(mesh, standby)
        await mesh.until(lambda: township.app.trust.directory.get("130102").incarnation == 2)
        for node in (township, standby, city):
            await mesh.halt(node)
        await mesh.run(county)
        with township.app.store.write() as tx:
            tx.set_meta(REACHED_LAST, None)
            tx.set_meta(SUCCESSORS, None)
        with pytest.raises(PeerError, match="FN-5513"):
            await syncing.sync_once(township.app)
        assert fence.standing(township.app.store) is None
        await mesh.run(standby)
        await mesh.run(township)


async def test_two_primaries_for_a_while_then_one(tmp_path: Path) -> None:
    """Both alive, each with one of the children, written on both; then healed: nobody lends a hand to a child."""
    async with Mesh(tmp_path) as mesh:
        city, county, one, standby = await with_standby(mesh)
        two = await mesh.child(county, "130102002", "township")
        await mesh.until(lambda: two.app.trust.catalog_version == 1)
        await mesh.until(lambda: city.app.trust.directory.get("130102002") is not None)
        await syncing.sync_once(two.app)
        write_some(one, 1, 1)
        await mesh.until(lambda: len(city.records()) == 1 and len(standby.records()) == 1)
        for node in (one, two, city, county):  # the county is cut off from all but its second township
            await mesh.halt(node)
        await mesh.run(city)
        await promote(mesh, standby)
        await mesh.run(one)
        await mesh.until(lambda: one.app.trust.directory.get("130102").incarnation == 2)
        write_some(one, 2, 2)
        write_some(standby, 1, 3)
        await mesh.until(lambda: len(city.records()) == 4)
        for node in (city, standby, one):  # and now the other side
            await mesh.halt(node)
        await mesh.run(county)
        await mesh.run(two)
        write_some(two, 3, 4)
        write_some(county, 2, 5)
        await mesh.until(lambda: len(county.records()) == 6)
        for node in (city, standby, one):  # healed
            await mesh.run(node)
        await mesh.until(lambda: fence.superseded(county.app.store))
        await mesh.until(lambda: len(city.records()) == 7)  # the second township has found the successor by itself
        await come_back(mesh, county, standby)
        await mesh.until(lambda: len(city.records()) == 9 and city.records() == standby.records())
        await mesh.until(lambda: held_by(county, standby))
        assert [node.app.store.refused() for node in (city, standby, one, two)] == [[], [], [], []]
        assert [fence.standing(node.app.store) for node in (city, standby, county, one, two)] == [None] * 5
