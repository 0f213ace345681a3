"""A planned switchover over real sockets: both change places, nothing is lost, whatever goes wrong before is undone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.node import fence, succession, switchover, syncing
from fednode.node.demotion import handing_of
from fednode.node.events import Events
from fednode.node.lag import listing
from fednode.node.switchover import ASKED, DONE, FAILED, HANDED, Order
from fednode.proto import fednode_pb2 as pb
from fednode.sync import wire
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from mesh import Mesh, Running
from standbys import county_with_villages, held_by, standby_of, with_standby, write_some


@asynccontextmanager
async def running(*nodes: Running) -> AsyncIterator[None]:
    """As `fednode run` has it: the home is locked."""
    locks = [node.app.home.lock() for node in nodes]
    for one in locks:
        one.__enter__()
    try:
        yield
    finally:
        for one in reversed(locks):
            one.__exit__(None, None, None)


async def even(mesh: Mesh, standby: Running) -> None:
    """The standby knows that it holds everything."""
    await mesh.until(lambda: [one["behind_changes"] for one in listing(standby.app, of_others=False)] == [0])


async def switch(mesh: Mesh, standby: Running) -> Order:
    """`fednode promote --planned`, to its end."""
    await even(mesh, standby)
    switchover.order(standby.app)
    await mesh.until(lambda: over(standby) is not None)
    found = over(standby)
    assert found is not None
    return found


def over(node: Running) -> Order | None:
    """The order, when it is over."""
    with contextlib.suppress(StoreError):  # the node is being opened anew
        found = switchover.order_of(node.app.store)
        return found if found is not None and found.over else None
    return None


async def test_there_and_back_with_a_child_that_goes_on_writing(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        async with running(county, standby):
            write_some(township, 3, 1)
            write_some(county, 2, 2)
            writing = asyncio.create_task(keep_writing(township))
            found = await switch(mesh, standby)
            assert (found.state, found.code, found.back) == (DONE, "", "130102-s2")
            assert (standby.app.trust.me.node, standby.app.trust.me.incarnation) == ("130102", 2)
            await mesh.until(lambda: county.app.trust.me.stands_for == "130102")
            assert county.app.trust.node == "130102-s2"
            await mesh.until(lambda: township.app.trust.directory.get("130102").incarnation == 2)
            write_some(standby, 1, 3)
            await even(mesh, county)
            await mesh.until(lambda: county.app.trust.directory.is_heir(county.app.trust.me))
            found = await switch(mesh, county)
            assert (found.state, found.back) == (DONE, "130102-s3")
            assert (county.app.trust.me.node, county.app.trust.me.incarnation) == ("130102", 3)
            await mesh.until(lambda: standby.app.trust.me.stands_for == "130102")
            await mesh.until(lambda: township.app.trust.directory.get("130102").incarnation == 3)
            written = await stop_writing(writing)
            assert written > 0
            total = 3 + 2 + 1 + written
            await mesh.until(lambda: township.pending() == 0)
            await mesh.until(lambda: len(city.records()) == total)
            await mesh.until(lambda: held_by(standby, county))
            for node in (city, county, township, standby):
                assert node.app.store.refused() == []
                assert fence.standing(node.app.store) is None
            await nothing_was_made_again(county, standby)


async def keep_writing(node: Running) -> int:
    """A change every few milliseconds, until it is cancelled."""
    count = 0
    try:
        while True:
            write_some(node, 1, 1000 + count)
            count += 1
            tick = asyncio.Event()
            asyncio.get_running_loop().call_later(0.05, tick.set)
            await tick.wait()
    except asyncio.CancelledError:
        return count


async def stop_writing(task: asyncio.Task[int]) -> int:
    task.cancel()
    return await task


async def nothing_was_made_again(*nodes: Running) -> None:
    """What a primary had written was cosigned before it handed over: no change stands twice."""
    for node in nodes:
        assert node.app.store.rows("select count(*) from held_back") == [(0,)]


# ---------------------------------------------------------------- what is asked before anything stops


async def test_it_is_ordered_at_a_standby_whose_daemon_runs(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, _, standby = await with_standby(mesh)
        with pytest.raises(Refused, match="FN-5307"):
            switchover.order(county.app)
        with pytest.raises(Refused, match="FN-5313"):
            switchover.order(standby.app)
        await mesh.halt(standby)
        async with running(standby):
            switchover.order(standby.app)
            with pytest.raises(Refused, match="FN-5314"):
                switchover.order(standby.app)


async def untouched(mesh: Mesh, county: Running, township: Running) -> None:
    """The primary goes on as if nothing had been."""
    assert fence.standing(county.app.store) is None
    assert handing_of(county.app.store) is None
    write_some(county, 1, 77)
    write_some(township, 1, 78)
    await mesh.until(lambda: township.pending() == 0)


async def test_a_standby_that_lags_does_not_begin(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await with_standby(mesh)
        async with running(county, standby):
            await even(mesh, standby)
            engine_of(standby).lags.told = wire.Lag(switchover.BEHIND_MAX + 1, 1)
            switchover.order(standby.app)
            await mesh.until(lambda: over(standby) is not None)
            assert (over(standby).state, over(standby).code) == (FAILED, "FN-5122")
            await untouched(mesh, county, township)


def engine_of(node: Running) -> Any:
    """The engine of its daemon."""
    return node.stop.__self__.engine  # type: ignore[attr-defined]


async def test_nobody_stops_before_the_issuer_has_agreed(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("130102")))
        async with running(county, standby):
            found = await switch(mesh, standby)
            assert (found.state, found.code) == (FAILED, "FN-5118")  # nobody has allowed it
            await untouched(mesh, county, township)
            await mesh.halt(city)
            found = await switch(mesh, standby)
            assert (found.state, found.code) == (FAILED, "FN-4501")
            assert handing_of(county.app.store) is None


# ---------------------------------------------------------------- what is undone


async def test_an_issuer_that_changes_its_mind_stops_nothing_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await with_standby(mesh)
        plain = succession.ask

        async def ask(*given: Any, dry: bool = False, **more: Any) -> Any:
            if not dry:
                assert fence.standing(county.app.store).code == fence.HANDED
                with pytest.raises(Refused, match="FN-5516"):
                    write_some(county, 1, 5)
                raise PeerError("FN-5118", node="130102-s1", primary="130102")
            return await plain(*given, dry=dry, **more)

        monkeypatch.setattr(succession, "ask", ask)
        async with running(county, standby):
            found = await switch(mesh, standby)
            assert (found.state, found.code) == (FAILED, "FN-5118")
            await untouched(mesh, county, township)
            await mesh.until(lambda: len(standby.records()) == 2)


async def test_a_feed_that_does_not_come_is_waited_for_and_then_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await with_standby(mesh)
        monkeypatch.setattr(switchover, "DRAIN_S", 0.0)

        async def never(*_: Any) -> int:
            return 1 << 40

        monkeypatch.setattr(switchover, "witnessed_upto", never)
        async with running(county, standby):
            found = await switch(mesh, standby)
            assert (found.state, found.code) == (FAILED, "FN-4525")
            await untouched(mesh, county, township)


def asks(standby: Running, county: Running, **more: Any) -> tuple[Identity, pb.HandOverRequest]:
    """What a standby asks for, and who it is by its certificate."""
    token = Token(county.app.trust.root_sha256, bytes(16), "130102-s2", county.app.now_s + 1000, ("127.0.0.1:1",))
    request = pb.HandOverRequest(**{"node": "130102", "life": 1, "token": token.encode(), **more})
    return certs.parse(standby.app.trust.directory.chain(standby.app.trust.node)[0]), request


async def test_a_standby_that_was_cut_off_in_the_middle_lets_the_primary_go_on(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await with_standby(mesh)
        await mesh.until(lambda: held_by(standby, county))
        await mesh.halt(standby)
        with standby.app.store.write() as tx:
            switchover._keep(tx, Order(HANDED, "x", 1))
        switchover.hand_over(county.app, county.app.new_writer(county.app.store), *asks(standby, county))
        assert fence.superseded(county.app.store)
        with pytest.raises(Unavailable):
            await syncing.sync_once(township.app)
        await mesh.run(standby)
        await mesh.until(lambda: over(standby) is not None)
        assert (over(standby).state, over(standby).code) == (FAILED, "FN-4522")
        await untouched(mesh, county, township)


async def test_an_order_that_nobody_had_begun_is_given_up_at_the_next_start(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, township, standby = await with_standby(mesh)
        await mesh.halt(standby)
        with standby.app.store.write() as tx:
            switchover._keep(tx, Order(ASKED, "x", 1))
        await mesh.run(standby)
        await mesh.until(lambda: over(standby) is not None)
        assert (over(standby).state, over(standby).code) == (FAILED, "FN-4522")
        await untouched(mesh, county, township)


async def test_a_primary_that_hears_no_more_goes_on_when_its_parent_still_knows_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        await mesh.halt(standby)
        switchover.hand_over(county.app, county.app.new_writer(county.app.store), *asks(standby, county))
        await mesh.halt(city)
        monkeypatch.setattr(switchover, "GIVEN_UP_MS", 0)
        county.app.poke()
        await mesh.halt(township)
        await mesh.run(township)
        assert handing_of(county.app.store) is not None  # nobody above has said that it may
        await mesh.run(city)
        await mesh.until(lambda: handing_of(county.app.store) is None)
        await untouched(mesh, county, township)
        await mesh.until(lambda: "FN-4523" in codes(city))


def codes(node: Running) -> set[str]:
    """Codes of the alerts known at a node."""
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        return {one.code for one in Events(projector).alerts()}
    finally:
        projector.close()
        projector.store.close()


async def test_a_person_may_let_the_primary_go_on(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        with pytest.raises(Refused, match="FN-5315"):
            await switchover.resume(county.app)
        await mesh.halt(standby)
        switchover.hand_over(county.app, county.app.new_writer(county.app.store), *asks(standby, county))
        await mesh.halt(city)
        with pytest.raises(Unavailable):  # it cannot know whether another has the name
            await switchover.resume(county.app)
        await mesh.run(city)
        await switchover.resume(county.app)
        await untouched(mesh, county, township)


async def test_a_primary_that_was_started_again_comes_back_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(city.records()) == 2)
        async with running(county, standby):
            await even(mesh, standby)
            found = switchover.Switchover._take

            def taken(self: Any, *given: Any) -> None:
                found(self, *given)
                county.stop()  # the power goes there, right now

            monkeypatch.setattr(switchover.Switchover, "_take", taken)
            switchover.order(standby.app)
            await mesh.until(lambda: standby.app.trust.node == "130102")
            await mesh.until(lambda: county.task is not None and county.task.done())
            assert handing_of(county.app.store) is not None
            await mesh.run(county)
            await mesh.until(lambda: county.app.trust.node == "130102-s2")
            await mesh.until(lambda: bool(township.app.trust.directory.standbys_of("130102")))
            write_some(township, 1, 2)
            await mesh.until(lambda: len(county.records()) == 3)


# ---------------------------------------------------------------- who may ask


async def test_who_may_ask_a_primary_to_hand_over(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await with_standby(mesh)
        writer = county.app.new_writer(county.app.store)

        def refused(asker: Running, **more: Any) -> str:
            with pytest.raises(PeerError) as caught:
                switchover.hand_over(county.app, writer, *asks(asker, county, **more))
            assert handing_of(county.app.store) is None
            return caught.value.code

        assert refused(township) == "FN-5512"
        assert refused(city) == "FN-5512"
        assert refused(standby, life=2) == "FN-5119"
        with county.app.store.write() as tx:
            fence.put_up(tx, county.app.trust.me, "FN-6422", 1)
        assert refused(standby) == "FN-5517"
        with county.app.store.write() as tx:
            fence.lift(tx)
        other = await standby_of(mesh, county)
        assert refused(other) == "FN-5118"
        county.app.revoke("130102-s1", "sold")
        assert refused(standby) == "FN-5511"


async def test_only_the_primary_s_own_word_lets_it_succeed_again(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, _, standby = await with_standby(mesh)
        with pytest.raises(PeerError, match="FN-5124"):
            await succession.ask(standby.app, consent=bytes(64), back="130102-s2")
        text = succession.consent_text("130102", 1, "130102-s1", "130102-s9")
        with pytest.raises(PeerError, match="FN-5124"):  # of another
            await succession.ask(standby.app, consent=standby.app.keys.sign.sign(text), back="130102-s9")
        signed = county.app.keys.sign.sign(text)
        with pytest.raises(PeerError, match="FN-5124"):  # for another id
            await succession.ask(standby.app, consent=signed, back="130102-s8")
        assert city.app.trust.directory.get("130102").incarnation == 1
        assert await succession.ask(standby.app, dry=True) == ((), ())
        assert city.app.trust.directory.get("130102").incarnation == 1
        await succession.ask(standby.app, consent=signed, back="130102-s9")
        city.app.trust.refresh(city.app.store)
        assert city.app.trust.directory.get("130102").incarnation == 2
        assert ("130102", "130102-s9") in city.app.trust.directory._heirs


async def test_the_province_changes_places_with_its_root_key(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        standby = await standby_of(mesh, province)
        await mesh.until(lambda: bool(city.app.trust.directory.standbys_of("13")))
        await mesh.until(lambda: standby.app.config.listen in city.app.parent_addresses())  # told in the open session
        root_key = province.app.home.root_key(None)
        assert root_key is not None
        write_some(city, 3, 1)
        async with running(province, standby):
            await even(mesh, standby)
            switchover.order(standby.app, succession.by_root(standby.app, root_key))
            await mesh.until(lambda: over(standby) is not None)
            assert (over(standby).state, standby.app.trust.node) == (DONE, "13")
            await mesh.until(lambda: province.app.trust.me.stands_for == "13")
            await mesh.until(lambda: [one.node for one in city.app.trust.directory.standbys_of("13")] == ["13-s2"])
            write_some(city, 2, 2)
            await mesh.until(lambda: len(standby.records()) == 5 and len(province.records()) == 5)
            await even(mesh, province)
            switchover.order(province.app, succession.by_root(province.app, root_key))
            await mesh.until(lambda: over(province) is not None and province.app.trust.me.incarnation == 3)
            await mesh.until(lambda: standby.app.trust.me.stands_for == "13")
