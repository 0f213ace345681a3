"""Clocks that are years off, jump or stand still: what a node takes for the time, who judges certificates by what, and
that everything converges the same whatever a village's clock says."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from chain import COUNTY, TOWNSHIP, VILLAGE, WORLD, Chain
from fednode.crypto import certs, issuing
from fednode.node import admission, bundles, clocks, daemon, joining, retention, shipped, syncing
from fednode.node.app import App, boot_id, random_bytes, real_clock, real_steady
from fednode.node.clocks import Anchor, Judge, Reference
from fednode.node.engine import Engine
from fednode.proto import fednode_pb2 as pb
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.clock import milliseconds
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, Unavailable
from fednode.sync.exchange import SILENCE_MS_MAX, Exchange
from fednode.sync.identity import Directory, revocation_payload
from mesh import Mesh, Running, configuration
from world import NOW_S

YEAR_MS = 365 * 86_400_000
YEARS = (1970, 2016, 2036, 2099)


def epoch_ms(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1000


# ---------------------------------------------------------------- the reference clock


class Machine:
    """A machine's two clocks, and what is remembered on its disk."""

    def __init__(self, wall_ms: int) -> None:
        self.wall_ms, self.steady_ms, self.boot = wall_ms, 5_000, "first"
        self.floor_s = NOW_S
        self.kept: dict[str, Any] = {}

    def reference(self, **more: Any) -> Reference:
        given: dict[str, Any] = {"boot": self.boot, "floor_s": lambda: self.floor_s, **self.kept, **more}
        return Reference(lambda: self.wall_ms, lambda: self.steady_ms, **given)

    def run(self, ms: int) -> None:
        self.wall_ms += ms
        self.steady_ms += ms


def met(machine: Machine, true_ms: int) -> Reference:
    """A node that has met its parent."""
    time = machine.reference()
    assert time.learn(true_ms - time.now_ms(), unsure=False)
    assert time.sure
    assert time.now_ms() == true_ms
    machine.kept = {"anchor": time.anchor, "offset_ms": time.offset_ms, "heard_ms": true_ms}
    return time


TRUE_MS = (NOW_S + 90 * 86_400) * 1000


def test_a_floor_that_is_seen_late_counts_from_then_on_not_from_the_boot() -> None:
    """Regression (simulator, seed 103): a township that was not sure lived in the future by as long as it had run."""
    machine = Machine(wall_ms=0)
    time = machine.reference()
    assert time.now_ms() == NOW_S * 1000
    machine.run(400_000)
    machine.floor_s = NOW_S + 390  # before what runs by itself: no news
    assert time.now_ms() == NOW_S * 1000 + 400_000
    machine.floor_s = NOW_S + 410
    assert time.now_ms() == (NOW_S + 410) * 1000
    machine.run(1_000)
    assert time.now_ms() == (NOW_S + 411) * 1000


@pytest.mark.parametrize("year", YEARS)
def test_a_clock_that_jumps_or_stands_still_changes_nothing_once_the_time_is_learnt(year: int) -> None:
    machine = Machine(epoch_ms(year))
    time = met(machine, TRUE_MS)
    for jump in (-40 * YEAR_MS, 0, 60 * YEAR_MS):
        machine.wall_ms = max(0, machine.wall_ms + jump)
        assert time.now_ms() == TRUE_MS
        assert time.offset_ms == TRUE_MS - machine.wall_ms
    machine.steady_ms += 3_600_000  # an hour in which the wall clock stood still
    assert time.now_ms() == TRUE_MS + 3_600_000
    other = machine.reference()  # another process of the same boot
    assert (other.sure, other.now_ms()) == (True, TRUE_MS + 3_600_000)


@pytest.mark.parametrize("year", YEARS)
def test_after_a_boot_a_node_is_not_sure_until_it_meets_its_parent(year: int) -> None:
    machine = Machine(TRUE_MS)
    met(machine, TRUE_MS)
    machine.boot, machine.steady_ms, machine.wall_ms = "second", 100, epoch_ms(year)
    time = machine.reference()
    assert not time.sure
    assert time.now_ms() == max(epoch_ms(year), NOW_S * 1000)  # never before what was certified above it
    if year < 2026:
        machine.steady_ms += 70_000
        assert time.now_ms() == NOW_S * 1000 + 70_000  # timers go on
    assert time.learn(TRUE_MS - time.now_ms(), unsure=False)
    assert (time.sure, time.now_ms()) == (True, TRUE_MS)


def test_a_correction_of_the_operator_s_is_followed_before_the_time_is_learnt() -> None:
    machine = Machine(0)
    time = machine.reference()
    assert time.now_ms() == NOW_S * 1000
    machine.wall_ms = TRUE_MS
    assert time.now_ms() == TRUE_MS


def stands_still(machine: Machine) -> None:
    machine.steady_ms += SILENCE_MS_MAX + 1


def goes_back(machine: Machine) -> None:
    for _ in range(3):  # again and again: each time the timers would begin anew
        machine.wall_ms -= YEAR_MS
        machine.steady_ms += SILENCE_MS_MAX // 3 + 1


@pytest.mark.parametrize("broken", [stands_still, goes_back])
def test_regression_a_broken_clock_does_not_make_a_silent_parent_be_waited_for_for_ever(
    broken: Callable[[Machine], None],
) -> None:
    """A village whose clock stood still, or went back again and again, before it had learnt the time waited as long for
    a greeting that was lost (simulator, seeds 81 and 127)."""
    machine = Machine(epoch_ms(2036))
    now_ms = machine.reference().timer()
    exchange = Exchange(dials=True, hello=wire.Hello("1301", (), now_ms(), bytes(16)))
    exchange.start(now_ms())
    broken(machine)
    (close,) = [one for one in exchange.tick(now_ms()) if isinstance(one, fx.Close)]
    assert isinstance(close.error, Unavailable)
    assert close.error.code == "FN-4502"


def test_a_session_s_timers_know_nothing_of_what_is_learnt_or_set() -> None:
    machine = Machine(epoch_ms(1970))
    time = machine.reference()
    now_ms, begun = time.timer(), time.now_ms()
    machine.wall_ms = epoch_ms(2099)
    machine.steady_ms += 20
    assert now_ms() == begun + 20
    time.learn(TRUE_MS - time.now_ms(), unsure=False)
    machine.run(5)
    assert (now_ms(), time.now_ms(), time.timer()()) == (begun + 25, TRUE_MS + 5, TRUE_MS + 5)


@pytest.mark.parametrize(("steady", "boot"), [(None, ""), (None, "b"), (lambda: 7, "")])
def test_without_a_steady_clock_it_is_the_wall_clock_put_right(steady: Any, boot: str) -> None:
    wall = [1_000]
    time = Reference(lambda: wall[0], steady, boot=boot)
    assert time.learn(500, unsure=False)
    wall[0] += 5
    assert (time.sure, time.now_ms(), time.anchor, time.offset_ms) == (True, 1505, None, 500)


def test_an_anchor_of_another_boot_or_of_a_later_time_is_not_used() -> None:
    for anchor in (Anchor("other", 1, TRUE_MS), Anchor("first", 6_000, TRUE_MS)):
        assert not Machine(0).reference(anchor=anchor).sure
    assert Machine(0).reference(anchor=Anchor("first", 5_000, TRUE_MS)).now_ms() == TRUE_MS


def test_the_province_trusts_its_own_clock_and_nobody_else_s() -> None:
    machine = Machine(TRUE_MS)
    time = machine.reference(province=True)
    assert time.sure
    assert not time.learn(YEAR_MS, unsure=False)
    assert time.now_ms() == TRUE_MS
    machine.wall_ms = 1_000
    assert (time.now_ms(), time.anchor) == (1_000, None)


def test_who_is_sure_does_not_learn_from_who_is_not() -> None:
    machine = Machine(0)
    time = machine.reference()
    assert time.learn(TRUE_MS - time.now_ms(), unsure=True)  # better than nothing
    assert (time.sure, time.now_ms(), time.anchor) == (False, TRUE_MS, None)
    assert time.learn(1_000, unsure=False)
    assert not time.learn(YEAR_MS, unsure=True)
    assert time.now_ms() == TRUE_MS + 1_000


@pytest.mark.parametrize("year", YEARS)
def test_what_cannot_be_undone_waits_until_the_parent_has_been_heard_to_be_that_far(year: int) -> None:
    machine = Machine(epoch_ms(year))
    time = machine.reference()
    assert time.certain_ms() == NOW_S * 1000
    time.hear(TRUE_MS)  # a bundle
    assert time.certain_ms() == (TRUE_MS if year > 2026 else NOW_S * 1000)
    time = met(machine, TRUE_MS)
    assert time.certain_ms() == TRUE_MS
    machine.boot = "second"
    assert machine.reference().certain_ms() <= TRUE_MS


def test_a_wall_clock_beyond_all_bounds_is_cut() -> None:
    for wall_ms in (-(10**18), 10**18):
        time = Machine(wall_ms).reference()
        assert NOW_S * 1000 <= time.now_ms() < 1 << 47
        assert time.learn(TRUE_MS - time.now_ms(), unsure=False)
        assert time.now_ms() == TRUE_MS


def test_the_real_clocks() -> None:
    before = real_steady()
    assert real_steady() >= before
    assert boot_id() == boot_id()


def test_it_is_kept_in_the_store(tmp_path: Path) -> None:
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="x", domain="hebei")
    machine = Machine(0)
    time = met(machine, TRUE_MS)
    with app.store.write() as tx:
        time.keep(tx)
    kept = app.store.meta(clocks.ANCHOR)
    assert kept == b'{"boot":"first","steady_ms":5000,"now_ms":%d}' % TRUE_MS
    assert int(app.store.meta(clocks.OFFSET)) == TRUE_MS
    app.close()


# ---------------------------------------------------------------- judging certificates

OWN = WORLD.identity(TOWNSHIP)


@pytest.mark.parametrize(
    ("judge", "code"),
    [
        (Judge(NOW_S), ""),
        (Judge(OWN.not_before - 1), "FN-5131"),
        (Judge(OWN.not_after), ""),
        (Judge(OWN.not_after + 1), "FN-5130"),
        (Judge(NOW_S, OWN.not_after + 1), "FN-5130"),  # set back, and found out
        (Judge(0, OWN.not_after, believed=False), ""),
        (Judge(0, OWN.not_after + 1, believed=False), "FN-5130"),
        (Judge(OWN.not_after + 1, NOW_S, believed=False), ""),  # it says nothing
    ],
)
def test_who_judges_by_what(judge: Judge, code: str) -> None:
    if not code:
        judge.check((OWN,))
        return
    with pytest.raises(PeerError, match=code) as caught:
        judge.check((OWN,))
    assert caught.value.params["node"] == TOWNSHIP


@pytest.mark.parametrize(
    ("year", "sure", "believed"), [(1970, False, True), (2099, False, False), (2099, True, True), (2016, True, True)]
)
def test_a_clock_is_believed_when_it_is_sure_or_inside_of_the_own_certificate(
    year: int, sure: bool, believed: bool
) -> None:
    """1970 is taken for the floor, which lies inside."""
    machine = Machine(epoch_ms(year))
    time = met(machine, TRUE_MS) if sure else machine.reference()
    assert time.judge((OWN,)).believed is believed


def greeting(node: str) -> wire.Hello:
    return wire.Hello(node, (), NOW_S * 1000, bytes(16))


PATH = (("13", "root", "province"), ("1301", "13", "city"), (COUNTY, "1301", "county"), (TOWNSHIP, COUNTY, "township"),
        (VILLAGE, TOWNSHIP, "village"))  # fmt: skip


def renewed(directory: Directory, at_s: int, depth: int) -> None:
    """So many nodes from the province down get fresh certificates, as their issuers' logs bring them."""
    for node, above, level in PATH[:depth]:
        issuer = directory.root if above == "root" else directory.get(above)
        assert issuer is not None
        keys = WORLD.places[node].keys
        request = issuing.parse_request(issuing.make_request(node, keys.tls, keys.sign, keys.seal))
        key = WORLD.root_key if above == "root" else WORLD.places[above].keys.tls
        grant = issuing.Grant(node, level, WORLD.identity(node).scope, 1, 365, 77)
        der = issuing.issue(request, grant, issuer, key, directory.levels, now_s=at_s)
        directory.apply(above, {"kind": "node", "certificate": der.hex()})


def test_an_expired_child_is_refused_by_the_parent_s_clock(chain: Chain) -> None:
    trust, shown = chain[TOWNSHIP].trust, WORLD.identity(VILLAGE)
    admission.check_child(trust, shown, greeting(VILLAGE), Judge(shown.not_after))
    with pytest.raises(PeerError, match="FN-5130") as caught:
        admission.check_child(trust, shown, greeting(VILLAGE), Judge(shown.not_after + 1))
    assert caught.value.params["node"] == VILLAGE


def test_a_child_that_did_not_hear_of_its_renewal_is_let_in(chain: Chain) -> None:
    """The answer was lost, the old certificate has ended: the same keys have a newer one."""
    old, trust = WORLD.identity(VILLAGE), chain[TOWNSHIP].trust
    judge = Judge(old.not_after + 86_400)
    renewed(trust.directory, NOW_S + 200 * 86_400, 4)
    with pytest.raises(PeerError, match="FN-5130"):
        admission.check_child(trust, old, greeting(VILLAGE), judge)
    renewed(trust.directory, NOW_S + 200 * 86_400, 5)
    assert admission.check_child(trust, old, greeting(VILLAGE), judge).not_before > old.not_before
    other = replace(old, tls_key=WORLD.identity(COUNTY).tls_key)
    with pytest.raises(PeerError, match="FN-5130"):
        admission.check_child(trust, other, greeting(VILLAGE), judge)


def test_an_expired_parent_is_refused_by_the_time_that_it_tells(chain: Chain) -> None:
    trust, parent = chain[VILLAGE].trust, WORLD.identity(TOWNSHIP)
    admission.check_parent(trust, greeting(TOWNSHIP), Judge(parent.not_after))
    with pytest.raises(PeerError, match="FN-5130"):
        admission.check_parent(trust, greeting(TOWNSHIP), Judge(parent.not_after + 1))


@pytest.mark.parametrize("news", ["certificate", "revocation"])
def test_a_stolen_expired_parent_that_lies_about_the_time_is_found_by_what_was_certified_above(
    chain: Chain, news: str
) -> None:
    """The county has certified, or revoked, somebody after the township's certificate had ended: the village saw it."""
    trust, parent = chain[VILLAGE].trust, WORLD.identity(TOWNSHIP)
    at_s = parent.not_after + 60
    renewed(trust.directory, NOW_S + 200 * 86_400, 3)
    lie_s = NOW_S + 300 * 86_400
    lie = Judge(lie_s, trust.directory.floor_s(VILLAGE))
    admission.check_parent(trust, greeting(TOWNSHIP), lie)  # nothing shows it yet
    if news == "revocation":
        trust.directory.apply(COUNTY, revocation_payload("130102002", 1, at_s * 1000, "lost"))
    else:
        keys = WORLD.places["130104"].keys
        request = issuing.parse_request(issuing.make_request("130102009", keys.tls, keys.sign, keys.seal))
        county = trust.directory.get(COUNTY)
        assert county is not None
        grant = issuing.Grant("x", "township", ("130102009",), 1, 365, 78)
        der = issuing.issue(request, grant, county, WORLD.places[COUNTY].keys.tls, trust.directory.levels, now_s=at_s)
        trust.directory.apply(COUNTY, {"kind": "node", "certificate": der.hex()})
    assert trust.directory.floor_s(VILLAGE) == at_s
    with pytest.raises(PeerError, match="FN-5130") as caught:
        admission.check_parent(trust, greeting(TOWNSHIP), Judge(lie_s, trust.directory.floor_s(VILLAGE)))
    assert caught.value.params["node"] == TOWNSHIP


def test_a_clock_that_was_years_ahead_above_does_not_raise_the_floor(chain: Chain) -> None:
    """What a node says after the end of its own certificate shows that its clock is wrong, not what time it is."""
    directory = chain[VILLAGE].trust.directory
    before = directory.floor_s(VILLAGE)
    assert before == NOW_S
    directory.apply(COUNTY, revocation_payload("130102002", 1, epoch_ms(2099), "lost"))
    assert directory.floor_s(VILLAGE) == before
    directory.apply(COUNTY, revocation_payload("130102003", 1, (NOW_S + 5) * 1000, "lost"))
    assert directory.floor_s(VILLAGE) == NOW_S + 5
    directory.apply("130104", revocation_payload("130104003", 1, (NOW_S + 50) * 1000, "lost"))  # beside, not above
    assert directory.floor_s(VILLAGE) == NOW_S + 5


# ---------------------------------------------------------------- whole nodes


class Clock:
    """A village's: it may jump, and stand still."""

    def __init__(self, year: int) -> None:
        self._shift_ms = epoch_ms(year) - real_clock()
        self.frozen_ms: int | None = None

    def __call__(self) -> int:
        return real_clock() + self._shift_ms if self.frozen_ms is None else self.frozen_ms

    def jump(self, by_ms: int) -> None:
        self._shift_ms += by_ms

    def freeze(self) -> None:
        self.frozen_ms = self()


async def village(mesh: Mesh, parent: Running, clock: Callable[[], int], node: str = "1301") -> Running:
    """A child whose machine has this clock, running."""
    token = Token.decode(parent.app.invite(node, "city", node))
    return await mesh.start(await App.join(mesh.folder / node, configuration(), token, clock=clock))


def digest(node: Running) -> Any:
    """Every record, with its effective time: what a level has to agree on with any other."""
    projector = node.app.new_projector()
    try:
        projector.catch_up()
        return projector.connection.execute(
            """select d.name, a.code, r.key, r.op, r.payload, r.effective from record r
               join dataset d on d.id = r.dataset join area a on a.id = r.area
               where d.name not like 'sys.%' order by 1, 2, 3"""
        ).fetchall()
    finally:
        projector.close()
        projector.store.close()


@pytest.mark.parametrize("year", YEARS)
@pytest.mark.parametrize("how", ["off", "jumps", "frozen"])
async def test_a_village_with_any_clock_joins_writes_syncs_and_wins_nothing(
    tmp_path: Path, year: int, how: str
) -> None:
    clock = Clock(year)
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        if how == "frozen":
            clock.freeze()
        node = await village(mesh, province, clock)
        await mesh.until(lambda: node.app.trust.catalog_version == 1)
        assert node.app.reference.sure
        assert abs(node.app.now_ms() - real_clock()) < 60_000
        node.write("first", {"name": "village"})
        await mesh.until(lambda: "first" in province.records())
        await mesh.halt(node)
        # years pass on its clock between the exchanges, back or forth; both change the same record unseen by each other
        if how == "jumps":
            clock.jump(-YEAR_MS * 30 if year > 2016 else YEAR_MS * 30)
        node.write("first", {"name": "village again"})
        node.write("second", {"name": "village"})
        await mesh.run(node)
        await mesh.until(lambda: node.pending() == 0 and "second" in province.records())
        province.write("first", {"name": "corrected"}, area="1301")  # after it had seen the village's
        await mesh.until(lambda: node.records().get("first") == {"name": "corrected"})
        await mesh.until(lambda: digest(node) == digest(province))
        assert province.records() == {"first": {"name": "corrected"}, "second": {"name": "village"}}
        latest = max(milliseconds(row[-1]) for row in digest(province))
        assert latest <= real_clock() + 5 * 60_000
        assert [one.app.store.refused() for one in (province, node)] == [[], []]


async def test_a_daemon_that_starts_anew_with_its_clock_moved_goes_on(tmp_path: Path) -> None:
    clock = Clock(2026)
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        node = await village(mesh, province, clock)
        await mesh.until(lambda: node.app.trust.catalog_version == 1)
        for year in (2099, 1970, 2036, 2016):
            await mesh.halt(node)
            node.app.close()
            node.app = App.open(mesh.folder / "1301", node.app.config, clock=Clock(year))
            assert not node.app.reference.sure
            node.write(f"k{year}", {"name": "x"})
            await mesh.run(node)
            await mesh.until(lambda: node.pending() == 0 and node.app.reference.sure)
        assert len(province.records()) == 4
        await mesh.until(lambda: digest(node) == digest(province))
        assert max(milliseconds(row[-1]) for row in digest(province)) <= real_clock() + 5 * 60_000


class Stalled:
    """A line on which nothing comes. `waited_for`: somebody reads."""

    def __init__(self) -> None:
        self.waited_for = asyncio.Event()

    async def read(self) -> bytes | None:
        self.waited_for.set()
        await asyncio.Event().wait()
        return None

    async def write(self, data: bytes) -> None:
        pass


async def test_a_session_s_timers_do_not_follow_a_clock_that_jumps(tmp_path: Path) -> None:
    clock = Clock(2026)
    app = App.init_province(tmp_path / "13", configuration(), node="13", name="x", domain="hebei", clock=clock)
    app.reference = Reference.load(app.store, app.trust, clock, real_steady, boot_id())
    engine = Engine(app)
    line = Stalled()
    serving = asyncio.create_task(engine.serve_child(line, app.trust.me.der))
    await line.waited_for.wait()
    (session,) = engine.sessions
    clock.jump(10 * YEAR_MS)
    assert app.now_ms() > session.now_ms() + 9 * YEAR_MS
    session.end(None)
    await serving
    await engine.stop()
    app.close()


async def test_what_a_parent_with_a_wrong_clock_has_taught_is_put_right_with_it(tmp_path: Path) -> None:
    """A city starts with a dead clock while the province is away, and its county has nothing better."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await village(mesh, province, Clock(2026))
        county = await mesh.start(
            await App.join(
                mesh.folder / "130102",
                configuration(),
                Token.decode(city.app.invite("130102", "county", "x")),
                clock=Clock(2016),
            )
        )
        await mesh.until(lambda: county.app.trust.catalog_version == 1)
        for node in (county, city, province):
            await mesh.halt(node)
        for node, folder, year in ((city, "1301", 2036), (county, "130102", 2016)):
            node.app.close()
            node.app = App.open(mesh.folder / folder, node.app.config, clock=Clock(year))
            await mesh.run(node)
        await mesh.until(lambda: county.app.now_ms() > epoch_ms(2036))
        assert not county.app.reference.sure
        county.write("k", {"name": "x"})
        await mesh.run(province)
        await mesh.until(lambda: county.app.reference.sure and city.app.reference.sure)
        assert abs(county.app.now_ms() - real_clock()) < 60_000
        await mesh.until(lambda: "k" in province.records())


async def test_a_certificate_that_has_ended_is_refused_though_its_owner_s_clock_says_otherwise(tmp_path: Path) -> None:
    shift = [0]
    async with Mesh(tmp_path, lambda: real_clock() + shift[0]) as mesh:
        province = await mesh.found()
        node = await village(mesh, province, real_clock)
        await mesh.until(lambda: node.app.trust.catalog_version == 1)
        await mesh.halt(node)
        node.write("k", {"name": "x"})
        shift[0] = 2 * YEAR_MS  # two years later, by the province's clock; the village's stands where it was
        with pytest.raises(PeerError, match="FN-5130"):
            await syncing.sync_once(node.app)
        assert province.records() == {}
        node.app.close()
        token = Token.decode(province.app.invite("1301", "city", "1301"))
        node.app = await App.join(tmp_path / "1301", node.app.config, token)
        assert node.app.trust.me.incarnation == 1
        assert (await syncing.sync_once(node.app)).pending == 0
        await mesh.until(lambda: province.records() == {"k": {"name": "x"}})


async def test_a_village_whose_clock_is_wrong_renews_its_certificate_in_time(tmp_path: Path) -> None:
    """At 1970 its own clock would never say that it is due, at 2099 always."""
    shift = [0]
    async with Mesh(tmp_path, lambda: real_clock() + shift[0]) as mesh:
        province = await mesh.found()
        for node_id, year in (("1301", 1970), ("1302", 2099)):
            clock = Clock(year)
            node = await village(mesh, province, clock, node_id)
            await mesh.until(lambda node=node: node.app.reference.sure)  # type: ignore[misc]
            first = node.app.trust.me.not_before
            await mesh.halt(node)
            await syncing.sync_once(node.app)
            assert node.app.trust.me.not_before == first
            shift[0] = 300 * 86_400_000
            await mesh.run(node)
            await mesh.until(lambda node=node, first=first: node.app.trust.me.not_before > first)  # type: ignore[misc]
            await mesh.halt(node)
            shift[0] = 0


def of_release_0_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """Roots and requests as that release made them."""
    monkeypatch.setattr(issuing, "make_root", partial(issuing.make_root, wide=False))
    monkeypatch.setattr(issuing, "make_request", partial(issuing.make_request, wide=False))


async def test_a_certificate_of_release_0_1_is_replaced_at_the_first_meeting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        with monkeypatch.context() as then:
            of_release_0_1(then)
            token = Token.decode(province.app.invite("1301", "city", "1301"))
            app = await App.join(tmp_path / "1301", configuration(), token)
        assert certs.tls_dates(app.trust.me.der) == (app.trust.me.not_before, app.trust.me.not_after)
        node = await mesh.start(app)
        await mesh.until(lambda: certs.tls_dates(node.app.trust.me.der) == certs.WIDE)
        assert certs.tls_dates(node.app.home.chain()[0]) == certs.WIDE
        known = province.app.trust.directory.get("1301")
        assert known is not None
        assert known.der == node.app.trust.me.der
        assert (await syncing.sync_once(node.app)).pending == 0  # and not again
        assert known == province.app.trust.directory.get("1301")


@pytest.mark.parametrize("year", YEARS)
async def test_joining_a_domain_of_release_0_1_with_a_wrong_clock_says_so_and_leaves_no_half_made_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    """TLS goes by those certificates' dates, so nothing can be done but to set the clock. In 2036 the province's still
    holds."""
    with monkeypatch.context() as then:
        of_release_0_1(then)
        async with Mesh(tmp_path) as mesh:
            province = await mesh.found()
            token = Token.decode(province.app.invite("1301", "city", "1301"))
            with pytest.raises(Refused, match="FN-5113" if year == 2036 else "FN-5133") as caught:
                await App.join(tmp_path / "1301", configuration(), token, clock=Clock(year))
            assert caught.value.params["here"].startswith(str(year))
            assert not (tmp_path / "1301").exists()
            node = await village(mesh, province, real_clock)  # the clock is set; the same token would do as well
            await mesh.halt(node)
            node.app.clock = Clock(year)
            with pytest.raises(Unavailable, match="FN-4518"):
                await syncing.sync_once(node.app)


def test_an_unsure_parent_certifies_nobody_by_a_clock_that_cannot_be(tmp_path: Path) -> None:
    parent, child = _two(tmp_path)
    token = Token.decode(parent.invite("130102", "county", "x"))
    keys = child.keys
    request = pb.JoinRequest(
        node="130102",
        secret=token.secret,
        request=issuing.make_request("130102", keys.tls, keys.sign, keys.seal),
    )
    parent.close()
    for year, fine in ((2099, False), (2036, False), (1970, True)):
        app = App.open(tmp_path / "1301", configuration(), clock=Clock(year))
        assert not app.reference.sure
        if fine:
            assert app.enrol(app.new_writer(), request).refused == ""
        else:
            with pytest.raises(PeerError, match="FN-5132"):
                app.enrol(app.new_writer(), request)
        app.close()
    child.close()


def _two(folder: Path, clock: Callable[[], int] = real_clock) -> tuple[App, App]:
    """A city that has joined by stick, and its province."""
    province = App.init_province(folder / "13", configuration(), node="13", name="x", domain="hebei")
    province.publish_catalog(shipped.catalog())
    stick = folder / "stick"
    stick.mkdir()
    token = Token.decode(province.invite("1301", "city", "x"))
    joining.ask(folder / "1301", configuration(), "", token, stick, random_bytes)
    bundles.take_in(province, [stick])
    given: dict[str, Any] = {"rng": random_bytes, "clock": clock, "operator": "test"}
    city, report = joining.finish(folder / "1301", configuration(), [stick], "", **given)
    assert [one.error for one in report.bundles] == [None]
    return city, province


@pytest.mark.parametrize("year", YEARS)
def test_by_stick_a_village_with_any_clock_joins_and_is_corrected(tmp_path: Path, year: int) -> None:
    """No link ever: it never learns the time, its changes are bounded by when its parent saw them."""
    city, province = _two(tmp_path, Clock(year))
    nodes = Running(city), Running(province)
    assert not city.reference.sure
    assert abs(city.reference.certain_ms() - real_clock()) < 2 * 86_400_000  # the bundle said so
    nodes[0].write("first", {"name": "village"})
    nodes[0].write("second", {"name": "village"})
    stick = tmp_path / "second"
    stick.mkdir()
    bundles.export(city, "parent", stick)
    bundles.take_in(province, [stick])
    nodes[1].write("first", {"name": "corrected"}, area="1301")
    for path in (stick, stick.with_name("third")):
        path.mkdir(exist_ok=True)
        bundles.export(province, "1301", path)
        assert [one.error for one in bundles.take_in(city, [path]).bundles if one.sender == "13"][-1:] == [None]
    assert digest(nodes[0]) == digest(nodes[1])
    assert nodes[0].records() == {"first": {"name": "corrected"}, "second": {"name": "village"}}
    assert max(milliseconds(row[-1]) for row in digest(nodes[1])) <= real_clock() + 5 * 60_000
    for app in (city, province):
        app.close()


@pytest.mark.parametrize("year", [2036, 2099])
async def test_retention_does_not_go_by_a_clock_that_nobody_has_confirmed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, year: int
) -> None:
    """What it strips does not come back."""
    city, province = _two(tmp_path)
    city.close()
    app = App.open(tmp_path / "1301", configuration(), clock=Clock(year))
    asked: list[int] = []
    monkeypatch.setattr(retention, "run_daily", lambda _records, now_ms: asked.append(now_ms) or retention.Report())
    runner = daemon.Daemon(app)
    await runner._daily()
    assert abs(asked[0] - real_clock()) < 2 * 86_400_000
    app.reference.learn(real_clock() + 86_400_000 * 5 - app.now_ms(), unsure=False)
    await runner._daily()
    assert asked[1] - asked[0] > 4 * 86_400_000
    await asyncio.to_thread(runner.engine.close)
    await asyncio.to_thread(runner.projector.stop)
    app.close()
    province.close()
