"""Where a node can be dialled: told while it is there, asked of the level above when it is gone, over real sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from fednode.node import carrier, fence, succession, syncing, whereabouts
from fednode.node.admission import REACHED_AT, json_list
from fednode.node.app import App
from fednode.node.bundle_out import export
from fednode.node.bundles import take_in
from fednode.node.demotion import FOUND, ISSUERS, REACHED_LAST, SUCCESSORS
from fednode.node.engine import Engine
from fednode.node.whereabouts import ANSWERS_MAX, HOUR_MS, ROUNDS, Asking, Watch
from fednode.proto import fednode_pb2 as pb
from fednode.sync.errors import PeerError, Unavailable
from fednode.sync.wire_where import Whereabouts
from mesh import Mesh, Running, configuration
from standbys import county_with_villages, promote, standby_of, write_some

COUNTY, TOWNSHIP = "130102", "130102001"


def known(node: Running, key: str) -> list[str]:
    return json_list(node.app.store.meta(key))


async def lost(mesh: Mesh) -> tuple[Running, Running, Running, Running]:
    """A city, a county that is gone, a township that was away when the county got its standby, and that."""
    city, county, township = await county_with_villages(mesh)
    await mesh.until(lambda: known(township, ISSUERS) == [city.app.config.listen])
    await mesh.halt(township)
    standby = await standby_of(mesh, county)
    await mesh.until(lambda: bool(city.app.trust.directory.standbys_of(COUNTY)))
    succession.allow(city.app, "130102-s1")
    await mesh.until(lambda: standby.app.trust.directory.is_heir(standby.app.trust.me))
    await mesh.until(lambda: standby.app.config.listen in known(city, REACHED_AT + COUNTY))
    await mesh.halt(county)
    assert not known(township, SUCCESSORS)
    return city, county, township, standby


@asynccontextmanager
async def engine_of(node: Running) -> AsyncIterator[Engine]:
    engine = Engine(node.app)
    try:
        yield engine
    finally:
        await engine.stop()


def told_of(**given: Any) -> bytes:
    return pb.WhereReply(**given).SerializeToString()


async def asked(node: Running) -> tuple[str, ...]:
    async with engine_of(node) as engine:
        return await whereabouts.ask(engine)


# ---------------------------------------------------------------- found


async def test_a_child_that_never_heard_of_the_standby_finds_it_through_the_level_above(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, _, township, standby = await lost(mesh)
        write_some(township, 2, 1)
        await promote(mesh, standby)
        await mesh.run(township)
        await mesh.until(lambda: len(city.records()) == 2)
        assert township.app.parent_addresses()[0] == standby.app.config.listen
        assert known(township, REACHED_LAST) == [standby.app.config.listen]
        assert not known(township, FOUND), "the parent was met, and says itself where it is"
        assert township.app.trust.directory.get(COUNTY).incarnation == 2


async def test_a_command_by_hand_finds_it_too(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, _, township, standby = await lost(mesh)
        await promote(mesh, standby)
        write_some(township, 3, 1)
        report = await syncing.sync_once(township.app)
        assert (report.address, report.pending) == (standby.app.config.listen, 0)


async def test_a_parent_that_went_on_at_another_address_is_found(tmp_path: Path) -> None:
    """As after `restore` on another machine, which nobody has told the children of."""
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        await mesh.until(lambda: known(township, ISSUERS) == [city.app.config.listen])
        await mesh.halt(county)
        county.app.close()
        county.app = App.open(county.app.home.path, configuration(), clock=mesh.clock)
        await mesh.run(county)
        write_some(township, 2, 1)
        await mesh.until(lambda: len(city.records()) == 2)
        assert township.app.parent_addresses()[0] == county.app.config.listen


async def test_what_is_told_is_kept_for_whoever_takes_the_place_later(tmp_path: Path) -> None:
    """The standby is there, and nobody has promoted it yet: it is no parent, and the child tries it again."""
    async with Mesh(tmp_path) as mesh:
        city, _, township, standby = await lost(mesh)
        assert await asked(township) == (standby.app.config.listen,)
        assert known(township, FOUND) == [standby.app.config.listen]
        assert township.app.parent_addresses()[-1] == standby.app.config.listen
        assert await asked(township) == (), "that is no news any more"
        lsn = city.app.store.lsn
        with pytest.raises(Unavailable):
            await syncing.sync_once(township.app)
        assert city.app.store.lsn == lsn, "whoever is asked writes nothing"
        await promote(mesh, standby)
        assert (await syncing.sync_once(township.app)).address == standby.app.config.listen


async def test_the_earlier_life_is_over_where_the_level_above_tells_of_a_later_one(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township, standby = await lost(mesh)
        await mesh.halt(standby)
        chain, addresses = await succession.ask(standby.app)
        succession.take(standby.app, chain, addresses)  # it has the name, and is not running yet
        assert await asked(township) == (standby.app.config.listen,)
        assert township.app.trust.directory.get(COUNTY).incarnation == 2
        await mesh.halt(city)  # so that the old primary does not hear of it
        await mesh.run(county)
        with township.app.store.write() as tx:
            tx.set_meta(FOUND, None)
        with pytest.raises(PeerError) as refused:
            await syncing.sync_once(township.app)
        assert (refused.value.code, fence.standing(county.app.store)) == ("FN-5513", None)


# ---------------------------------------------------------------- told


async def test_what_changes_is_told_in_open_sessions(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        await mesh.until(lambda: known(city, REACHED_AT + COUNTY) == [county.app.config.listen])
        of_county, of_city = await standby_of(mesh, county), await standby_of(mesh, city)
        both = [county.app.config.listen, of_county.app.config.listen]
        await mesh.until(lambda: known(city, REACHED_AT + COUNTY) == both)
        both = [city.app.config.listen, of_city.app.config.listen]
        await mesh.until(lambda: known(township, ISSUERS) == both)
        await mesh.until(lambda: known(township, SUCCESSORS) == [of_county.app.config.listen])
        assert known(of_county, SUCCESSORS) == [], "a standby is not told of itself"


async def test_regression_a_name_is_looked_up_before_the_parent_is_dialled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked up between the dialling and the greeting, a busy parent's answer (FN-4508) was now and then lost: the
    greeting met a call that had ended."""
    async with Mesh(tmp_path) as mesh:
        _, county, _ = await county_with_villages(mesh)
        await mesh.halt(county)
        done: list[str] = []

        async def dial(*_: Any) -> Any:
            done.append("dialled")
            raise Unavailable("FN-4501", address="", reason="")

        def looked_up(_app: App) -> tuple[str, ...]:
            done.append("looked up")
            return ()

        monkeypatch.setattr(carrier, "dial", dial)
        monkeypatch.setattr(App, "exchange_addresses", looked_up)
        with pytest.raises(Unavailable):
            await syncing.sync_once(county.app)
        assert done[:2] == ["looked up", "dialled"]
        assert done.count("looked up") == 1


async def test_a_stick_tells_it_too(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: known(county, REACHED_AT + "130102-s1") == [standby.app.config.listen])
        for node in (township, county):
            await mesh.halt(node)
        with township.app.store.write() as tx:
            tx.set_meta(SUCCESSORS, None)
            tx.set_meta(ISSUERS, None)
        old = tmp_path / "old"
        export(county.app, TOWNSHIP, old)
        with county.app.store.write() as tx:
            tx.set_meta(REACHED_AT + "130102-s1", '["10.0.0.9:7443"]')
        county.app.journal().note("daemon.started")
        export(county.app, TOWNSHIP, tmp_path / "new")
        for stick in ("new", "old"):  # what an older stick says of addresses counts for nothing
            (one,) = take_in(township.app, [tmp_path / stick], answer=False).bundles
            assert one.error is None
            assert known(township, SUCCESSORS) == ["10.0.0.9:7443"]
            assert known(township, ISSUERS) == [city.app.config.listen]
        with county.app.store.write() as tx:
            tx.set_meta(REACHED_AT + TOWNSHIP, None)
        export(township.app, COUNTY, tmp_path / "up")
        take_in(county.app, [tmp_path / "up"], answer=False)
        assert known(county, REACHED_AT + TOWNSHIP) == [township.app.config.listen]


# ---------------------------------------------------------------- who is answered


class Asked:
    """A node that is asked, without a daemon; its clock is set by hand."""

    def __init__(self, app: App) -> None:
        self.app, self.now_ms = app, 0
        engine = cast("Engine", SimpleNamespace(app=app, store=app.store, sessions=set()))
        self.where = Watch(engine, lambda: self.now_ms)

    def answer(self, asker: Running, node: str = COUNTY) -> Whereabouts:
        return self.where.answer(asker.app.trust.me, node)

    def refusal(self, asker: Running, node: str = COUNTY) -> str:
        with pytest.raises((PeerError, Unavailable)) as refused:
            self.answer(asker, node)
        return str(cast("Any", refused.value).code)


async def test_only_a_childs_child_is_told_and_of_its_own_parent_alone(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        other = await mesh.child(city, "130104", "county")
        cousin = await mesh.child(other, "130104001", "township")
        village = await mesh.child(township, "130102001001", "village")
        directory = city.app.trust.directory
        await mesh.until(lambda: all(directory.get(one) for one in (TOWNSHIP, "130104001", "130102001001")))
        await mesh.until(lambda: bool(known(city, REACHED_AT + COUNTY)))
        asked = Asked(city.app)
        told = asked.answer(township)
        assert told == Whereabouts(directory.chain(COUNTY), (county.app.config.listen,))
        assert asked.refusal(cousin) == "FN-5126", "a sibling's child"
        assert asked.refusal(village) == "FN-5126", "not a child of it, but of its child"
        assert asked.refusal(county) == "FN-5126", "itself"
        assert asked.refusal(village, TOWNSHIP) == "FN-5126", "that is for the county to say"
        assert Asked(other.app).refusal(township) == "FN-5512", "a stranger"
        city.app.revoke(TOWNSHIP, "stolen")
        city.app.trust.refresh(city.app.store)
        assert asked.refusal(township) == "FN-5511"
        assert asked.answer(cousin, "130104").chain
        city.app.revoke("130104", "stolen")
        city.app.trust.refresh(city.app.store)
        assert asked.refusal(cousin, "130104") == "FN-5511", "the parent was revoked: nothing leads to it"


async def test_who_is_refused_is_told_why_and_goes_on(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, _, township, _ = await lost(mesh)
        place = (city.app.config.listen, township.app.credentials(), city.app.trust.me.dns)
        with pytest.raises(PeerError) as refused:
            await carrier.where(*place, "130104")
        assert (refused.value.code, dict(refused.value.params)) == ("FN-5126", {"node": TOWNSHIP, "me": "1301"})
        city.app.revoke(TOWNSHIP, "stolen")
        await mesh.until(lambda: city.app.trust.directory.is_revoked(TOWNSHIP))
        assert await asked(township) == ()


async def test_a_node_whose_place_was_taken_says_nothing(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, _, township = await county_with_villages(mesh)
        await mesh.until(lambda: bool(known(city, REACHED_AT + COUNTY)))
        asked = Asked(city.app)
        assert asked.answer(township).chain
        with city.app.store.write() as tx:
            fence.put_up(tx, city.app.trust.me, "FN-5513", city.app.now_ms())
        assert asked.refusal(township) == "FN-4512"


async def test_whoever_asks_ten_thousand_times_gets_forty_answers_and_takes_nobody_elses(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city, county, township = await county_with_villages(mesh)
        sister = await mesh.child(county, "130102002", "township")
        await mesh.until(lambda: city.app.trust.directory.get("130102002") is not None)
        asked, before = Asked(city.app), city.app.store.lsn
        for _ in range(ANSWERS_MAX):
            asked.answer(township)
        for _ in range(10_000 - ANSWERS_MAX):
            with pytest.raises(Unavailable) as refused:
                asked.answer(township)
        assert (refused.value.code, refused.value.retry_after_ms) == ("FN-4508", HOUR_MS)
        assert asked.answer(sister).chain
        asked.now_ms = HOUR_MS - 1
        assert asked.refusal(township) == "FN-4508"
        asked.now_ms = HOUR_MS
        assert asked.answer(township).chain
        assert city.app.store.lsn == before


async def test_a_busy_level_above_and_one_that_is_older_are_no_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        city, _, township, standby = await lost(mesh)
        place = (city.app.config.listen, township.app.credentials(), city.app.trust.me.dns)
        request = COUNTY
        monkeypatch.setattr(whereabouts, "ANSWERS_MAX", 1)
        assert (await carrier.where(*place, request)).chain
        with pytest.raises(Unavailable) as busy:
            await carrier.where(*place, request)
        assert busy.value.code == "FN-4508"
        assert 0 < busy.value.retry_after_ms <= HOUR_MS
        assert await asked(township) == ()
        monkeypatch.undo()
        assert await asked(township) == (standby.app.config.listen,)
        service = carrier._Handler.service

        def older(self: carrier._Handler, details: Any) -> Any:
            return None if details.method == carrier.WHERE else service(self, details)

        monkeypatch.setattr(carrier._Handler, "service", older)
        with pytest.raises(Unavailable, match="UNIMPLEMENTED"):
            await carrier.where(*place, request)
        assert await asked(township) == ()


# ---------------------------------------------------------------- what is believed of an answer


async def test_an_answer_about_another_or_an_earlier_life_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        city, _, township, standby = await lost(mesh)
        directory, first = city.app.trust.directory, city.app.trust.directory.chain(COUNTY)
        replies = [
            told_of(chain=directory.chain("1301"), addresses=["10.0.0.1:1"]),
            told_of(chain=first[:-1], addresses=["10.0.0.1:1"]),
            told_of(addresses=["10.0.0.1:1"]),
            b"\xff",
            told_of(chain=[b"nothing", *first[1:]], addresses=["10.0.0.1:1"]),
            told_of(chain=first, addresses=["10.0.0.1:1"] * 17),
        ]

        unary = carrier._unary

        async def told(address: str, tls: Any, name: str | None, method: str, *rest: Any) -> bytes:
            return replies[0] if method == carrier.WHERE else await unary(address, tls, name, method, *rest)

        monkeypatch.setattr(carrier, "_unary", told)
        while replies:
            assert await asked(township) == ()
            del replies[0]
        replies.append(told_of(chain=first, addresses=["unix:/run/x", "10.0.0.1:99999", "10.0.0.1:1"]))
        assert await asked(township) == ("10.0.0.1:1",)
        await promote(mesh, standby)
        replies[0] = told_of(chain=directory.chain(COUNTY), addresses=["10.0.0.2:1"])
        assert await asked(township) == ("10.0.0.2:1",)
        assert township.app.trust.directory.get(COUNTY).incarnation == 2
        replies[0] = told_of(chain=first, addresses=["10.0.0.3:1"])
        assert await asked(township) == (), "whoever says that has not heard of the later life"
        assert known(township, FOUND) == ["10.0.0.2:1", "10.0.0.1:1"]


async def test_the_provinces_children_have_nobody_to_ask(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.halt(city)
        assert await asked(city) == ()


# ---------------------------------------------------------------- when


@pytest.mark.parametrize(("edge", "share"), [(bytes(4), 0.5), (b"\xff" * 4, 1.5)])
def test_it_asks_after_some_rounds_and_then_ever_more_rarely(edge: bytes, share: float) -> None:
    now = [1000.0]
    asking, asks = Asking(lambda: now[0], lambda _size: edge), []
    assert [asking.failed() for _ in range(ROUNDS)] == [False] * (ROUNDS - 1) + [True]
    for _ in range(4 * 3600):
        now[0] += 1.0
        if asking.failed():
            asks.append(now[0])
    waits = [second - first for first, second in pairwise([1000.0, *asks])]
    for waited, wanted in zip(waits, [5, 10, 20, 40, 80, 160, 320, 600, 600], strict=False):
        assert share * wanted - 1 <= waited <= share * wanted + 1
    assert len(asks) < 4 * ANSWERS_MAX, "it stays within what it is answered"
    asking.reached()
    assert [asking.failed() for _ in range(ROUNDS)] == [False] * (ROUNDS - 1) + [True]
