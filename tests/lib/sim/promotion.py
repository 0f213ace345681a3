"""Primaries with standbys that fail, and operators who promote: `standby invite`, `standby allow`, `promote`, and
`join` of the old primary, by the code that the command line runs.

How a primary fails: its disk is gone for good; its power goes, and somebody starts it again later, in its old life; or
it is cut off with some of its children, and goes on there. What it acknowledges is told by its setting `ack`: under
"standby" and "hold" a standby has it on disk whenever a child is told (`check_ack`), and so whenever it is promoted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto import certs, issuing
from fednode.crypto.errors import FednodeError
from fednode.node import fence, succession
from fednode.node.acks import Acks
from fednode.node.config import Config
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.proto import fednode_pb2 as pb
from fednode.sync import effects as fx
from fednode.sync.change import NODES, Change, LogName
from fednode.sync.enrol import Joined, Token
from fednode.sync.identity import node_payload
from sim.hierarchy import Member, root_key, standby_of, store_id_of
from sim.recovery import app_of, lost
from sim.sticks import SimApp

if TYPE_CHECKING:
    from sim.world import End, SimNode, World

AGAIN_MS, LOOK_MS = 4_000, 2_000
ACKS = (
    Config(ack="standby", ack_away="hold", ack_wait="20s"),
    Config(ack="standby", ack_away="hold", ack_wait="20s"),
    Config(ack="standby", ack_away="alone", ack_wait="20s"),
    Config(),
)
GONE, OFF, ISLAND = "gone", "off", "island"


# ---------------------------------------------------------------- acknowledgements that wait for a standby


def _run(work: Coroutine[Any, Any, Any]) -> None:
    """What the daemon does in its event loop is done at once here."""
    try:
        work.send(None)
    except StopIteration:
        return
    raise RuntimeError("it waits for something")


class Talk:
    """A session as `node.acks` sees it."""

    def __init__(self, end: End) -> None:
        self._end = end

    @property
    def link(self) -> Any:
        return self._end.link

    @property
    def peer(self) -> Any:
        return self._end.link.peer if self._end.link is not None else None

    def answer(self, reports: list[fx.Done]) -> None:
        end = self._end
        if end.session.open and end.node.up:
            end.handle(end.exchange.committed(reports, end.now_ms()))

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        _run(work)

    def end(self, error: Exception, retry_ms: int) -> None:
        end = self._end
        if end.session.open and end.node.up:
            end.handle(end.exchange.refuse(error, end.now_ms(), retry_ms))


class _Writing:
    def __init__(self, node: SimNode) -> None:
        self._node = node

    async def call(self, job: Callable[[Any], Any]) -> Any:
        node, before = self._node, self._node.store.lsn
        done = node.guarded(lambda: job(node.writer))
        if node.up and node.store.lsn != before:  # as the daemon's writer does it after each job
            node.world.clock.at(1, node.moved)
        return done


class SimEngine:
    """The daemon as `node.acks` sees it."""

    def __init__(self, node: SimNode) -> None:
        self.app, self.store, self.writer = SimApp(node), node.store, _Writing(node)
        self._node = node

    def clock_ms(self) -> int:
        return self._node.world.clock.now_ms

    def soon(self, work: Coroutine[Any, Any, Any]) -> None:
        _run(work)


def acks_of(node: SimNode) -> Acks | None:
    """What a node waits for before it acknowledges; None where that is nothing."""
    engine: Any = SimEngine(node)
    return Acks(engine) if node.config.ack else None


def look(node: SimNode) -> None:
    """As the daemon does it every second."""
    if node.up and node.acks is not None:
        node.acks.look()
    if not node.gone:
        node.world.clock.at(LOOK_MS, partial(look, node))


def check_ack(node: SimNode, log: str, size: int) -> None:
    """What a child is told to be durable here is on a standby's disk. Raises AssertionError."""
    if node.config.ack != "standby" or node.config.ack_away != "hold" or node.trust.me.stands_for:
        return
    there = [one for one in node.world.nodes.values() if one.member.parent == node.id and _stands(one)]
    if node.world.nodes.get(node.id) is not node:  # an old primary: its standby goes by its name
        there.append(node.world.nodes[node.id])
    held = [_size(one, log) for one in there]
    assert max(held, default=0) >= size, f"{node.id} acknowledges {log} up to {size}, its standbys hold {held}"


def _stands(node: SimNode) -> bool:
    return node.member.node.rpartition("-")[0] == node.member.parent


def _size(node: SimNode, log: str) -> int:
    if node.up:
        return node.store.log_state(LogName.parse(log)).size
    store = Store.open(node.folder / "log.db", stash_key=node.member.keys.stash_key)
    try:
        return store.log_state(LogName.parse(log)).size
    finally:
        store.close()


# ---------------------------------------------------------------- the story


def promotions(world: World, rng: random.Random) -> None:
    """Some nodes get a standby, fail, and are succeeded."""
    faults_ms = world.shape.faults_ms
    chosen = [node for node in world.nodes.values() if node.member.level != "village"]
    for primary in rng.sample(chosen, world.shape.promoted):
        member = standby_of(world.shape, primary.id)
        home = world.folder / member.node
        home.mkdir()
        store = Store.create(home / "log.db", store_id=store_id_of(member.node), stash_key=member.keys.stash_key)
        Projector(home / "state.db", store, Trust.load(store, member.chain, member.node)).close()
        store.close()
        primary.config = rng.choice(ACKS)
        primary.acks = acks_of(primary)
        look(primary)
        world.clock.at(rng.randint(0, 2_000), partial(_enrol, world, primary.id, member))
        world.clock.at(rng.randint(5_000, 20_000), partial(_allow, world, primary.id, member.node))
        when = rng.randint(faults_ms // 6, faults_ms * 2 // 3)
        # nobody stands above the province to fence the old one
        how = rng.choice((GONE, OFF, ISLAND)) if primary.member.parent else GONE
        away_ms = rng.randint(20_000, faults_ms // 3)
        world.clock.at(when, partial(_fail, world, primary.id, member.node, how, away_ms, rng.randint(1_000, 40_000)))
        for number in range(10):
            at_ms = rng.randint(0, faults_ms)
            world.clock.at(at_ms, partial(_write_at, world, primary.id, rng.randint(0, 1 << 30), number))
        for _ in range(world.shape.erased_there):
            by = rng.choice((primary.id, primary.member.parent or primary.id))
            at_ms = rng.randint(faults_ms // 3, faults_ms * 4 // 3)  # before, after, and when an old primary is back
            world.clock.at(at_ms, partial(_erase_at, world, by, primary.id, rng.randint(0, 1 << 30)))


def _write_at(world: World, node: str, seed: int, number: int) -> None:
    """An operator's change at whoever is this node now: of its own, or for somebody below."""
    here, rng = world.nodes[node], random.Random(seed)
    if not here.up:
        return
    below = [one.node for one in here.trust.directory.all() if one.node.startswith(node) and not one.stands_for]
    area, key = rng.choice([node, *below]), f"k{rng.randint(0, 8)}"
    payload = msgspec.json.encode({"id": key, "a": f"promoted {number}", "b": str(seed), "c": "x"})
    here.projector.catch_up()
    row = here.projector.current("latest", area, [key]).get(key)
    here.write("latest", area, [Change(key.encode(), payload, base=row.hlc if row else 0)])


def _erase_at(world: World, by: str, area: str, seed: int) -> None:
    """Whoever goes by a name now erases a record of an area, or one version of it; what that was is to be nowhere in
    the end, however often it was made again."""
    here, rng = world.nodes[by], random.Random(seed)
    if not here.up:
        return
    here.projector.catch_up()
    found = here.versions("latest", area)
    if not found:
        return
    places = found[rng.choice(sorted(found))]
    here.erase("latest", area, places if rng.random() < 0.4 else [rng.choice(places)], for_good=True)


def _later(world: World, what: Callable[[], None]) -> None:
    world.clock.at(AGAIN_MS, what)


def _enrol(world: World, primary: str, member: Member) -> None:
    here = world.nodes[primary]
    payload = msgspec.json.encode(node_payload(member.chain[0]))
    if not here.write(NODES, here.trust.area, [Change(member.node.encode(), payload)]):
        _later(world, partial(_enrol, world, primary, member))
        return
    world.nodes[member.node] = type(world.nodes[primary])(world, member)
    look(world.nodes[member.node])


def _allow(world: World, primary: str, standby: str) -> None:
    """`fednode standby allow`, at the primary's issuer."""
    issuer = world.nodes.get(world.nodes[primary].member.parent)
    if issuer is None:  # the province: the root key says so on the day
        return
    done = None
    if issuer.up and not issuer.restoring:
        try:
            done = issuer.guarded(lambda: succession.allow(SimApp(issuer), standby))
        except FednodeError as error:  # not heard of yet
            world.note("not allowed", issuer.id, standby, error.code)
    if done is None:
        _later(world, partial(_allow, world, primary, standby))
        return
    world.note("allowed", issuer.id, standby)
    issuer.moved()


def _allow_again(world: World, old: SimNode, new: SimNode) -> None:
    """As FN-5118 says it: `standby allow`, at whoever is the issuer now. What the one before had allowed went with its
    disk, where its own standby did not have it yet (small, seed 38)."""
    issuer = world.nodes[old.member.parent]
    if old.member.parent in world.promoted and issuer.up and not issuer.restoring:
        with suppress(FednodeError):
            issuer.guarded(lambda: succession.allow(SimApp(issuer), new.id))
        world.note("allowed again", issuer.id, new.id)
        issuer.moved()


def _fail(world: World, primary: str, standby: str, how: str, away_ms: int, until_ms: int) -> None:
    """The primary fails. `away_ms`: for how long, where it comes back; `until_ms`: until somebody promotes."""
    old, new = world.nodes[primary], world.nodes.get(standby)
    below = {one.id for one in world.nodes.values() if one.member.parent == primary}
    if below & world.rollbacks.keys():  # the cursor that shows it would be gone (`recovery.burn`)
        return
    if new is None or not old.up or not _ready(world, old, new):
        if world.shape.persistent and primary not in world.failed:
            _later(world, partial(_fail, world, primary, standby, how, away_ms, until_ms))
        return
    world.note("fails", primary, how)
    world.failed.add(primary)
    if how == ISLAND:
        near = [one for one in world.nodes.values() if one.member.parent == primary and one is not new]
        world.island |= {id(old), *(id(one) for one in near[::2])}
        for one in (old, new, *near):
            for end in list(one.sessions):
                end.session.end()
        world.clock.at(away_ms, partial(_heal, world, [id(old), *(id(one) for one in near)]))
    else:
        old.crash("it fails")
        old.gone = old.off = True
        if how == OFF:
            old.gone = False
            world.clock.at(away_ms, partial(_on, old))
        else:
            lost(old, gone=True)
    world.clock.at(until_ms, partial(_promote, world, new, primary))


def _ready(world: World, old: SimNode, new: SimNode) -> bool:
    """Whether the standby follows, and may succeed: else nobody would promote it."""
    issuer = world.nodes.get(old.member.parent)
    if old.id in world.failed or old.store.peer(new.id) is None or not new.up or new.trust.catalog_version == 0:
        return False
    known = issuer.trust.directory.get(new.id) if issuer is not None and issuer.up else None
    return issuer is None or (known is not None and issuer.trust.directory.is_heir(known))


def _heal(world: World, apart: list[int]) -> None:
    world.note("healed")
    world.island -= set(apart)


def _on(old: SimNode) -> None:
    old.off = False
    old.boot()


def _promote(world: World, new: SimNode, primary: str) -> None:
    """`fednode promote`, again until it is done."""
    again = partial(_promote, world, new, primary)
    if not new.up:
        _later(world, again)
        return
    app, old = SimApp(new), world.nodes[primary]
    try:
        chain = _ask(world, new, old)
    except FednodeError as error:
        world.note("not granted", new.id, error.code)
        chain = None
        if error.code == "FN-5118":
            _allow_again(world, old, new)
    if chain is None:
        _later(world, again)
        return
    if old.config.ack == "standby" and old.config.ack_away == "hold":
        for acker, log, size in sorted(world.acked):
            origin = LogName.parse(log).origin  # what came from above it tells its parent at once
            told = acker == primary and origin.startswith(primary) and origin not in (primary, new.id)
            held = _size(new, log) if told else size
            assert held >= size, f"{primary} acknowledged {log} up to {size}; {new.id} holds {held}, and is promoted"
    if new.guarded(lambda: succession.take(app, chain) or True) is None:
        _later(world, again)
        return
    was = new.id
    new.member = Member(primary, old.member.level, old.member.parent, new.member.keys, chain)
    new.id, new.config = primary, Config() if old.gone else old.config  # until it has another standby
    del world.nodes[was]
    world.became[was] = primary
    world.nodes[primary] = new
    world.former.setdefault(primary, []).append(old)
    world.promoted.add(primary)
    world.note("promoted", primary, was)
    new.crash("it is another node now")
    world.clock.at(AGAIN_MS, partial(_come_back, world, old, primary))


def _ask(world: World, new: SimNode, old: SimNode) -> tuple[bytes, ...] | None:
    """The primary's name, by the root key or its issuer; None where that is not to be reached."""
    app = SimApp(new)
    if not old.member.parent:
        return succession.by_root(app, root_key())
    issuer = world.nodes[old.member.parent]
    if not issuer.up or issuer.restoring or issuer.id in world.parted_now() or old.id in world.parted_now():
        return None
    keys = new.member.keys
    request = pb.SuccessionRequest(node=old.id, life=succession.plan(app).life)
    request.request = issuing.make_request(old.id, keys.tls, keys.sign, keys.seal)
    reply = issuer.guarded(lambda: succession.grant(SimApp(issuer), issuer.writer, new.trust.me, request))
    if reply is None:
        return None
    issuer.moved()
    return tuple(reply.chain)


def not_heard_of(world: World, parent: str, child: SimNode) -> None:
    """As FN-5519 says it: who granted a node its life was succeeded or restored, and its machine is lost with the word
    of that; the node is invited anew (small, seed 337)."""
    above, asked = world.nodes[parent], (parent, child.id)
    if asked in world.invited or parent not in world.promoted or world.former[parent]:
        return  # its old machine is there, and will give what it alone has
    if not above.up or not child.up or above.restoring or child.restoring:
        return
    known = above.trust.directory.get(child.id)
    if known is None or known.incarnation >= child.trust.me.incarnation:  # it has heard of it meanwhile
        return
    try:
        reply = above.guarded(lambda: _invite_again(SimApp(above), above, child))
    except FednodeError as error:  # it does not know the time yet
        world.note("not invited", *asked, error.code)
        return
    if reply is None:
        return
    world.invited.add(asked)
    world.note("invited anew", *asked)
    above.moved()
    child.guarded(lambda: SimApp(child).install_chain(tuple(reply.chain)))
    child.crash("its daemon is started anew")


def _invite_again(app: SimApp, above: SimNode, child: SimNode) -> pb.JoinReply:
    me = child.trust.me
    token = Token.decode(app.invite(me.node, me.level, me.name, me.scope))
    request = pb.JoinRequest(node=me.node, secret=token.secret, request=SimApp(child).renewal_request())
    return app.enrol(above.writer, request)


def _come_back(world: World, old: SimNode, primary: str) -> None:
    """The old primary was fenced: its operator joins it as a standby of its successor, with its store."""
    again = partial(_come_back, world, old, primary)
    if old.gone:
        world.former[primary].remove(old)
        return
    new = world.nodes[primary]
    ready = old.up and new.up and not new.trust.me.stands_for and fence.superseded(old.store)
    if not ready or (id(old) in world.island) != (id(new) in world.island):
        _later(world, again)
        return
    successor = SimApp(new)
    try:
        reply = new.guarded(lambda: _let_in(successor, new, old))
    except FednodeError as error:
        world.note("not let in", primary, error.code)
        reply = None
    if reply is None:
        _later(world, again)
        return
    chain = tuple(reply.chain)
    joined = Joined(chain, (), certs.parse(chain[0]))
    if old.guarded(lambda: app_of(old)._become_standby(joined) or True) is None:
        _later(world, again)
        return
    old.member = Member(joined.identity.node, old.member.level, primary, old.member.keys, chain)
    old.id, old.config = joined.identity.node, Config()
    world.nodes[old.id] = old
    world.former[primary].remove(old)
    world.note("comes back", primary, old.id)
    old.crash("it is a standby now")


def _let_in(app: SimApp, new: SimNode, old: SimNode) -> pb.JoinReply:
    token = Token.decode(app.invite_standby())
    keys = old.member.keys
    der = issuing.make_request(token.node, keys.tls, keys.sign, keys.seal)
    return app.enrol(new.writer, pb.JoinRequest(node=token.node, secret=token.secret, request=der))


def settled(world: World) -> bool:
    """Whether every promotion is done, and every old primary that is left has come back."""
    return not any(world.former.values()) and not world.island
