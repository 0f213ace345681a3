"""A planned switchover: a primary and its standby change places, nothing is lost, the pause is seconds.

    standby                         primary                        issuer
    would it be granted? ------------------------------------------->
    hand over ---------------------> fences itself, children go
                                     what it wrote is cosigned above
       <---- up to where its feed goes, and that it agrees
    takes the feed up to there
    the name, with the primary's word --------------------------------> certifies, lets the old one come back
    is the primary (restarts)
       <---- joins as its standby, with the token that it was given

Rules
1. A person orders it at the standby (`fednode promote --planned`); the standby's daemon carries it out. The order, and
   how it stands, is in its store (`ORDER`), so that the command sees it and a start knows what was interrupted.
2. Before anything is stopped it is asked whether all will be granted. Whatever fails before the name is taken is
   undone: the primary is told to go on, and the order says why.
3. A primary that hands over writes nothing and serves no child (`fence.HANDED`), from the transaction on in which it
   agrees. It goes on by itself only when the standby says so, or when the time is over and its parent still takes it
   for itself; else a person decides (`resume`).
4. The name that is taken is the point of no return (`node.succession`); what the old primary has to do then (`Return`)
   waits for its successor for as long as it takes. Its certificate as a standby is made before the first child comes,
   so that children seal to it from the start.

>>> Order(ASKED).over, Order(DONE).over
(False, True)
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto import certs, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.node import carrier, fence, succession
from fednode.node.demotion import COMES_BACK, HANDING, Handing, handing_of
from fednode.node.home import pem_of
from fednode.node.schedule import retrying
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.proto import fednode_pb2 as pb
from fednode.sync import enrol
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused, Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.engine import Engine
    from fednode.node.writer import Writer

log = logging.getLogger("fednode.switchover")
ORDER = "switchover"  # at a standby: what was ordered, and how it stands (meta)
ASKED, HANDED, TAKEN, DONE, FAILED = "asked", "handed", "taken", "done", "failed"
BEHIND_MAX = 1_000  # changes: more would make the pause long
WITNESS_S = 5.0  # for what a primary has written to be cosigned above
DRAIN_S = 30.0
ASK_S = 20.0
GIVEN_UP_MS = 120_000  # then a primary looks whether it still is one
NOT_THROUGH = "FN-4523"
PROBE_MAX_S = 4.0
FOLLOW_S, STOPPED_MAX = 0.1, 100


class Order(msgspec.Struct, frozen=True):
    """`chain`: the certificates of the name where they were granted beforehand (hex); `code`, `params`: why it failed;
    `pause_ms`: from the primary's last word until this node serves; `back`: what the old primary is called now."""

    state: str
    by: str = ""
    at_ms: int = 0
    chain: tuple[str, ...] = ()
    code: str = ""
    params: dict[str, str] = {}
    pause_ms: int = 0
    back: str = ""

    @property
    def over(self) -> bool:
        return self.state in (DONE, FAILED)


def order_of(store: Store) -> Order | None:
    """What was ordered last, and how it stands."""
    text = store.meta(ORDER)
    return None if text is None else msgspec.json.decode(text, type=Order)


def _keep(tx: Transaction, order: Order) -> None:
    tx.set_meta(ORDER, msgspec.json.encode(order).decode())


def order(app: App, chain: tuple[bytes, ...] = ()) -> None:
    """Order it. Raises Refused FN-5307 (no standby), FN-5313 (no daemon runs here), FN-5314 (it is under way)."""
    succession.plan(app)
    if not app.home.running():
        raise Refused("FN-5313", node=app.trust.node)
    before = order_of(app.store)
    if before is not None and not before.over:
        raise Refused("FN-5314", node=app.trust.node)
    with app.store.write() as tx:
        _keep(tx, Order(ASKED, app.operator, app.now_ms(), tuple(one.hex() for one in chain)))
    app.poke()


def follow(app: App, pause: Callable[[float], None]) -> Order:
    """Wait until an order is over; the daemon carries it out. `pause`: lets some seconds pass. Raises Unavailable
    FN-4522: the daemon has ended meanwhile, and does not come back."""
    stopped = 0
    while True:
        found = order_of(app.store)
        if found is not None and found.over:
            return found
        stopped = 0 if app.home.running() else stopped + 1
        if stopped > STOPPED_MAX:
            raise Unavailable("FN-4522")
        pause(FOLLOW_S)


# ---------------------------------------------------------------- the standby's side


class Switchover:
    """Carries an order out, in a standby's daemon. `taken` is called when this node has the name and must begin
    anew."""

    def __init__(self, app: App, engine: Engine, taken: Callable[[], None]) -> None:
        self._app, self._engine, self._taken = app, engine, taken
        self._task: asyncio.Task[None] | None = None

    async def begin(self, began_ms: int) -> None:
        """At a start: an order that was interrupted is given up, one that went through is done."""
        found = order_of(self._engine.store)
        if found is None or found.over:
            return
        if self._app.trust.me.stands_for:
            await self._give_up(found, Unavailable("FN-4522"))
        else:
            await self._note(msgspec.structs.replace(found, state=DONE, pause_ms=max(0, began_ms - found.at_ms)))

    def look(self) -> None:
        """Whether something was ordered. Every second or so, and when another process has written."""
        found = order_of(self._engine.store)
        if found is None or found.state != ASKED or self._task is not None:
            return
        self._task = asyncio.get_running_loop().create_task(self._run(found))

    async def stop(self) -> None:
        """Leave it; the next start gives it up."""
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _note(self, order: Order) -> None:
        def note(writer: Writer) -> None:
            with writer.store.write() as tx:
                _keep(tx, order)

        await self._engine.writer.call(note)

    async def _run(self, found: Order) -> None:
        try:
            await self._carry_out(found)
        except FednodeError as error:
            log.warning("switchover", extra={"code": error.code, "reason": str(error)})
            await self._give_up(order_of(self._engine.store) or found, error)
        finally:
            self._task = None

    async def _give_up(self, order: Order, error: FednodeError) -> None:
        """Tell the primary to go on, where it has stopped."""
        if order.state == HANDED:
            with contextlib.suppress(FednodeError):
                await self._primary(pb.HandOverRequest(node=self._app.trust.me.stands_for, cancel=True))
        params = {name: str(value) for name, value in error.params.items()}
        await self._note(msgspec.structs.replace(order, state=FAILED, code=error.code, params=params))

    async def _primary(self, request: pb.HandOverRequest) -> pb.HandOverReply:
        """Ask the primary something. Raises Unavailable, PeerError with its code."""
        app = self._app
        last: Exception = Unavailable("FN-4506", parent=request.node)
        for address in app.parent_addresses():
            try:
                reply = await carrier.hand_over(address, app.credentials(), app.parent_dns(), request)
            except Unavailable as error:
                last = error
                continue
            if reply.refused:
                raise PeerError(reply.refused, **dict(reply.params))
            return reply
        raise last

    async def _carry_out(self, order: Order) -> None:
        app, store = self._app, self._engine.store
        plan = succession.plan(app)
        chain = tuple(bytes.fromhex(one) for one in order.chain)
        self._check(plan)
        if not chain:
            await succession.ask(app, dry=True)
        token = Token(app.trust.root_sha256, app.rng(enrol.SECRET_BYTES), _next_id(app, plan.primary), *self._where())
        request = pb.HandOverRequest(node=plan.primary, life=plan.life, token=token.encode())
        order = msgspec.structs.replace(order, state=HANDED, at_ms=app.now_ms(), back=token.node)
        await self._note(order)  # before it is asked: its answer may be lost
        reply = await self._primary(request)

        def drained() -> bool:
            peer = store.peer(plan.primary)
            return peer is not None and peer.have.lsn >= reply.upto

        if not await self._engine.until(drained, DRAIN_S):
            raise Unavailable("FN-4525", primary=plan.primary, seconds=round(DRAIN_S))
        addresses = succession.issuers_of(app)
        if not chain:
            chain, addresses = await self._ask(reply.consent, token.node)
        self._take(chain, addresses, token, reply.request, order)
        self._taken()

    def _check(self, plan: succession.Plan) -> None:
        """That it may begin. Raises Refused FN-5122 (too far behind), Unavailable FN-4501 (no session with the
        primary)."""
        sessions = [one for one in self._engine.sessions if one.link is not None and one.link.from_parent]
        if not sessions:
            raise Unavailable("FN-4506", parent=plan.primary)
        lag = self._engine.lags.told
        if lag is None or lag.changes > BEHIND_MAX:
            changes = "?" if lag is None else lag.changes
            raise Refused("FN-5122", node=plan.standby, primary=plan.primary, changes=changes)

    def _where(self) -> tuple[int, tuple[str, ...]]:
        """Until when the old primary's token is good, and where it is to go with it."""
        from fednode.node.app import TOKEN_TTL_S

        return self._app.now_s + TOKEN_TTL_S, self._app.enrol_addresses()

    async def _ask(self, consent: bytes, back: str) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
        """The name. An answer that was lost is asked for again."""
        loop = asyncio.get_running_loop()
        end = loop.time() + ASK_S
        while True:
            try:
                return await succession.ask(self._app, consent=consent, back=back)
            except Unavailable:
                if loop.time() > end:
                    raise
                await asyncio.sleep(0.5)

    def _take(
        self, chain: tuple[bytes, ...], addresses: tuple[str, ...], token: Token, request: bytes, order: Order
    ) -> None:
        me = self._app.trust.me

        def also(tx: Transaction) -> None:
            place = (token.node, me.name, me.level, ",".join(me.scope), token.expires_s)
            tx.add_invite(token.hash, token.stick_key.public, *place)
            tx.set_meta(COMES_BACK, msgspec.json.encode((token.hash.hex(), request.hex())).decode())
            _keep(tx, msgspec.structs.replace(order, state=TAKEN))

        succession.take(self._app, chain, addresses, also)


def _next_id(app: App, primary: str) -> str:
    """What the old primary will be called."""
    taken = {one.node for one in app.trust.directory.all()}
    number = 1
    while f"{primary}-s{number}" in taken:
        number += 1
    return f"{primary}-s{number}"


# ---------------------------------------------------------------- the primary's side


def hand_over(app: App, writer: Writer, asker: Identity, request: pb.HandOverRequest) -> Handing | None:
    """Agree, in one transaction, or (`cancel`) go on; None then. Raises PeerError FN-5512 (no standby of this node's),
    FN-5511, FN-5118 (nobody lets it succeed), FN-5119 (another life), FN-5517 (fenced for another reason); Refused
    FN-3101, FN-3102 for a token with which this node could not come back: after it has agreed it is too late."""
    trust, store = app.trust, writer.store
    trust.refresh(store)
    standby = trust.directory.get(asker.node)
    if standby is None or standby.sign_key != asker.sign_key or standby.stands_for != trust.node:
        raise PeerError("FN-5512", node=asker.node)
    if trust.directory.is_revoked(standby.node):
        raise PeerError("FN-5511", node=standby.node)
    before = handing_of(store)
    if request.cancel:
        if before is not None and before.standby == standby.node:
            go_on(app, writer, "standby")
        return None
    if trust.parent is not None and not trust.directory.is_heir(standby):
        raise PeerError("FN-5118", node=standby.node, primary=trust.node)
    if request.life != trust.me.incarnation:
        raise PeerError("FN-5119", node=trust.node, known=request.life, now=trust.me.incarnation)
    there = fence.standing(store)
    if there is not None and (before is None or before.standby != standby.node):
        raise PeerError("FN-5517", node=trust.node, code=there.code)
    if not certs.NODE_NAME.fullmatch(Token.decode(request.token).node):
        raise Refused("FN-3102")
    found = Handing(standby.node, request.token, app.now_ms())
    journal = app.journal(writer)
    with store.write() as tx:
        if there is None:
            journal.within(tx, "handover", standby=standby.node)
        fence.put_up(tx, trust.me, fence.HANDED, found.at_ms)
        tx.set_meta(HANDING, msgspec.json.encode(found).decode())
    return found


async def witnessed_upto(app: App, engine: Engine, standby: str) -> int:
    """Up to where the standby's feed goes, once those above have signed what this node wrote last: what they have not
    would have to be made again."""
    store, parent = engine.store, app.trust.parent

    def signed() -> bool:
        peer = store.peer(parent.node) if parent is not None else None
        return peer is None or store.backlog_up(peer.acked).segments == 0

    if not await engine.until(signed, WITNESS_S):
        log.warning("not all is cosigned by the parent")
    return store.last_of_feed(standby)


def go_on(app: App, writer: Writer, by: str) -> None:
    """The primary goes on as it was."""
    journal = app.journal(writer)
    with writer.store.write() as tx:
        fence.lift(tx)
        tx.set_meta(HANDING, None)
        journal.within(tx, "handover.cancelled", by=by)


def agreed(app: App, found: Handing, upto: int) -> pb.HandOverReply:
    """What a primary answers: its word for its issuer, and what it needs to come back."""
    back = Token.decode(found.token).node
    text = succession.consent_text(app.trust.node, app.trust.me.incarnation, found.standby, back)
    request = issuing.make_request(back, app.keys.tls, app.keys.sign, app.keys.seal)
    return pb.HandOverReply(upto=upto, consent=app.keys.sign.sign(text), request=request)


async def resume(app: App) -> None:
    """By hand, at a primary whose switchover did not come through. Raises Refused FN-5315 (none is under way), and
    what the parent says when it is asked whether this node still is the one: PeerError FN-5508, Unavailable."""
    from fednode.node import syncing

    if handing_of(app.store) is None:
        raise Refused("FN-5315", node=app.trust.node)
    if app.trust.parent is not None:
        await syncing.sync_once(app)
    go_on(app, app.new_writer(app.store), "operator")
    app.poke()


class Return:
    """A primary that has handed over: it waits until its successor serves; `found` is called then, and it is to come
    back as its standby."""

    def __init__(self, app: App, engine: Engine, found: Callable[[Callable[[], Awaitable[App]]], None]) -> None:
        self._app, self._engine, self._found = app, engine, found
        self._task: asyncio.Task[None] | None = None

    def look(self) -> None:
        """Whether this node has handed over. Every second or so."""
        there = handing_of(self._engine.store)
        if there is None:
            if self._task is not None:
                self._task.cancel()
                self._task = None
        elif self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._wait(there))
        elif self._app.now_ms() - there.at_ms > GIVEN_UP_MS and self._is_still_the_one():
            self._engine.soon(self._go_on(there))

    async def stop(self) -> None:
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _is_still_the_one(self) -> bool:
        """Whether the parent talks to this node: it would not, had it given the name to another."""
        return any(one.link is not None and one.link.from_parent for one in self._engine.sessions)

    async def _go_on(self, there: Handing) -> None:
        def job(writer: Writer) -> None:
            if handing_of(writer.store) == there:
                go_on(self._app, writer, "time")
                told = {"standby": there.standby, "since": certs.iso(there.at_ms // 1000)}
                self._app.journal(writer).alert(NOT_THROUGH, self._app.trust.node, told)

        with contextlib.suppress(FednodeError):
            await self._engine.writer.call(job)

    async def _wait(self, there: Handing) -> None:
        token = Token.decode(there.token)
        async for attempt in retrying(lambda: PROBE_MAX_S):
            with attempt:
                await self._probe(token)
        self._found(lambda: come_back(self._app, token))

    async def _probe(self, token: Token) -> None:
        """Whether somebody serves as this node, in a later incarnation. Raises Unavailable."""
        app, me = self._app, self._app.trust.me
        last: Exception = Unavailable("FN-4506", parent=me.node)
        root = pem_of(app.trust.directory.chain(me.node)[-1:])
        for address in token.addresses:
            try:
                shown = certs.check_chain(await carrier.served_chain(address, root, me.dns), app.trust.root_sha256)[0]
            except (Unavailable, IntegrityError) as error:
                last = error
                continue
            if shown.node == me.node and shown.incarnation > me.incarnation:
                return
        raise last if isinstance(last, Unavailable) else Unavailable("FN-4507", reason=str(last))


async def come_back(app: App, token: Token) -> App:
    """The old primary as its successor's standby; as it was, where that is refused: it is tried again."""
    from fednode.node.app import App

    place: dict[str, Any] = {"clock": app.clock, "rng": app.rng, "operator": app.operator}
    try:
        return await App.join(app.home.path, app.config, token, **place)
    except FednodeError as error:
        log.warning("not taken back yet", extra={"code": error.code, "reason": str(error)})
        await asyncio.sleep(PROBE_MAX_S)
        return App.open(app.home.path, app.config, **place)
