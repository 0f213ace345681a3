"""Who may exchange, and where an exchange begins: the decisions of both sides, without I/O of their own but the
store's.

Rules
1. A child shows the certificate that TLS verified; it must be the one in force, issued by this node, not revoked, and
   hold by a clock that may be believed (`node.clocks`): TLS itself goes by no clock.
2. A peer's cursor is believed only where it names a place in this very store (`Cursor.check`): after a store was
   restored or made anew the feed starts from its beginning, and what is held already is recognised.
   Where it names a place that this store never had or has lost, and the peer is the parent, this node fences itself
   (`node.fence`); a child that comes with another store in the same incarnation is refused until it has recovered.
3. Outcomes that the peer has not heard of (its connection was cut before the ack) are told at once (`node.outcomes`).
4. gRPC's daemon and the simulator both go through here.

>>> # entry = enter(writer, child, hello, from_parent=False, now_ms=...)
>>> # exchange.admitted(entry.admission, now_ms)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import IntegrityError
from fednode.node import demotion, fence, outcomes, refill, urgent, witness
from fednode.node.clocks import Judge
from fednode.node.demotion import FOUND, ISSUERS, REACHED_LAST, SUCCESSORS
from fednode.node.fence import Place
from fednode.node.link import Alarm, Link
from fednode.node.outcomes import May
from fednode.node.resealed import HANDED_BACK_SINCE
from fednode.node.rows import Peer
from fednode.node.store import Store
from fednode.node.transaction import ROUTES, Transaction
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync import frames, versions, wire
from fednode.sync.effects import Admission, HalfSegment, Item, Places
from fednode.sync.errors import PeerError
from fednode.sync.exchange import WINDOW_BYTES
from fednode.sync.side import PULL_BYTES

REACHED_AT = "reached_at/"  # + the id of a child or standby: where it can be dialled, a child's standbys too (meta)
STOOD_FOR = "stood_for"  # the id of a standby that has taken its primary's name, until all that follows is done (meta)
RESTORED_STORE, RESTORED_LSN = "restored_store", "restored_lsn"  # the parent's store that gave all up to there (meta)
MET_IN = "met_in/"  # + a child's id: the incarnation in which it was let in last, with the store that is known (meta)
GATHERS = "gathers"  # this node's life began from less than it had: its neighbours give what they hold of earlier ones
CHILD = "child"
NO_ROOM = "FN-4505"  # a parent that takes nothing in has no room on its disk
Feed = Callable[[int, int], tuple[list[Item], bool]]
Again = Callable[[str, int, int], list[Item]]


@dataclass(frozen=True, slots=True)
class Entry:
    """A peer that was let in: its row, its link for the writer, what the exchange needs, and what a cut had left half
    received. `owed`: it has yet to hear of what it sent, the last of it stored at this number."""

    peer: Peer
    link: Link
    admission: Admission
    half: HalfSegment | None
    owed: int = 0


@dataclass(frozen=True, slots=True)
class Greeted:
    """What a greeting says to this peer alone. `knows`: the peer's incarnation as known here; `chain`: this node's, for
    a peer that does not know its incarnation; `addresses`: of this node's standbys, to a parent its own besides;
    `issuers`: where this node dials its parent; `above`: up to which incarnation those above are known here;
    `lives`: later ones of this node, and of those above it, than its child knows."""

    knows: int = 0
    chain: tuple[bytes, ...] = ()
    addresses: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()
    above: tuple[int, ...] = ()
    lives: tuple[bytes, ...] = ()


def to_parent(trust: Trust, addresses: tuple[str, ...] = ()) -> Greeted:
    """What this node says to its parent alone."""
    above = list(reversed(trust.directory.path(trust.node)[:-1]))
    known = tuple(trust.directory.unbroken(one.node) for one in above)
    return Greeted(above[0].incarnation if above else 0, addresses=addresses, above=known)


def to_child(store: Store, trust: Trust, child: Identity, greeting: wire.Hello, issuers: tuple[str, ...]) -> Greeted:
    """What this node says to a child alone."""
    chain = trust.directory.chain(trust.node) if 0 < greeting.knows < trust.me.incarnation else ()
    return Greeted(0, chain, places(store, trust, child.node), issuers, lives=later_lives(trust, greeting.above))


def places(store: Store, trust: Trust, child: str) -> tuple[str, ...]:
    """Where this node's standbys can be dialled, for a child that may be one itself."""
    standbys = [one.node for one in trust.directory.standbys_of(trust.node) if one.node != child]
    found = [json_list(store.meta(REACHED_AT + node)) for node in standbys]
    return tuple(address for each in found for address in each)[: wire.ADDRESSES_MAX]


def told(store: Store, where: Places) -> None:
    """The parent has said where its standbys and its own parent can be dialled from now on."""
    with store.write() as tx:
        for key, addresses in ((SUCCESSORS, where.standbys), (ISSUERS, where.issuers)):
            if addresses is not None:
                note_addresses(tx, key, addresses)


def later_lives(trust: Trust, known: Sequence[int]) -> tuple[bytes, ...]:
    """The certificates of this node's lives, and of those above it, that a child does not know."""
    return tuple(one.der for one in trust.directory.later(trust.node, known)[-wire.LIVES_MAX :])


def all_lives(trust: Trust) -> tuple[bytes, ...]:
    """The same for a child that is not asked what it knows. Who joined in a later life knows that one alone: the first
    is told, too, wherever there are others."""
    lives = [trust.directory.lives(one.node) for one in reversed(trust.directory.path(trust.node))]
    return later_lives(trust, [0 if len(each) > 1 else each[0].incarnation for each in lives])


def reached(store: Store, address: str) -> None:
    """The parent was reached at an address that is not the first of those known: next time it is. What others said of
    where it might be is over."""
    with store.write() as tx:
        note_addresses(tx, REACHED_LAST, (address,))
        tx.set_meta(FOUND, None)


def json_list(text: str | None) -> list[str]:
    """A list of texts out of `meta`; empty where there is none."""
    found: list[str] = msgspec.json.decode(text) if text else []
    return found


def note_addresses(tx: Transaction, key: str, addresses: tuple[str, ...]) -> None:
    """Keep what a peer says about addresses, when it is news."""
    text = msgspec.json.encode(addresses).decode()
    if tx.store.meta(key) != text and (addresses or tx.store.meta(key)):
        tx.set_meta(key, text)


def hello(
    trust: Trust,
    store: Store,
    now_ms: int,
    software: str,
    peer: Peer | None,
    half: HalfSegment | None,
    feeds: bool = True,
    wants: bool = True,
    restore: bool = False,
    window: int = WINDOW_BYTES,
    unsure: bool = False,
    to: Greeted | None = None,
    reports: wire.HealthPlace | None = None,
) -> wire.Hello:
    """This node's greeting to a peer. `now_ms`: its reference clock, `unsure` of it or not; `window`: bytes that the
    peer may send before it is given credit; `reports`: how far a child's have come, None: none are taken."""
    to = to or Greeted()
    return wire.Hello(
        trust.node,
        to.chain,
        now_ms,
        store.store_id,
        peer.have if peer else wire.Cursor(),
        peer.acked if peer else 0,
        min(window, store.profile.window_bytes),
        wire.Partial(half.lsn, half.digest, len(half.data)) if half else None,
        feeds,
        wants and not store.room.low,  # what cannot be stored is not asked for; this node's own feed goes on
        trust.catalog_version,
        software,
        restore,
        versions.SPOKEN.low,
        versions.SPOKEN.high,
        # who asks for a new life alone does not hold yet what it would be told of
        None
        if (restore and not wants) or (peer is not None and peer.role == CHILD)
        else (peer.witnessed or 0)
        if peer
        else 0,
        unsure,
        trust.me.incarnation,
        to.knows,
        to.addresses,
        to.issuers,
        to.above,
        to.lives,
        frames.GATHERS if store.meta(GATHERS) else frames.GATHERS_NOT,
        reports,
    )


def protocol(store: Store, node: str, unmet: int = versions.SPOKEN.low) -> int:
    """The version to speak to a peer that does not answer at once (a bundle): what it spoke when it was last met,
    `unmet` (the oldest) when it never was."""
    return min(int(store.meta(f"protocol/{node}", unmet)), versions.SPOKEN.high)


def check_child(trust: Trust, shown: Identity, greeting: wire.Hello, judge: Judge) -> Identity:
    """The child that a certificate shows. Raises PeerError FN-5510 to FN-5513, FN-5519, FN-5130, FN-5131."""
    identity = trust.directory.get(shown.node)
    if greeting.node != shown.node or shown.domain != trust.domain:
        raise PeerError("FN-5510", node=greeting.node, certificate=shown.node)
    if trust.directory.is_revoked(shown.node):
        raise PeerError("FN-5511", node=shown.node)
    if identity is None or trust.directory.parent_of(shown.node) != trust.node:
        raise PeerError("FN-5512", node=shown.node)
    same_keys = (shown.sign_key, shown.tls_key) == (identity.sign_key, identity.tls_key)
    # a node that takes its history back may have been given a new life, and not have heard of it
    behind = greeting.restore and same_keys and shown.incarnation < identity.incarnation
    if shown.incarnation > identity.incarnation:
        # given by who this node was before, and not heard of since: no reason for the child to fence itself (FN-5513)
        raise PeerError("FN-5519", node=shown.node, theirs=shown.incarnation, ours=identity.incarnation)
    if not behind and (shown.incarnation != identity.incarnation or shown.sign_key != identity.sign_key):
        raise PeerError("FN-5513", node=shown.node, theirs=shown.incarnation, ours=identity.incarnation)
    # who has these keys may use the newest certificate for them, though its answer was lost on the way
    held = identity if same_keys else shown
    judge.check((held, *trust.directory.path(trust.node), trust.directory.root))
    return identity


def check_parent(trust: Trust, greeting: wire.Hello, judge: Judge) -> Identity:
    """The parent; TLS has verified its name. Whether its certificate still holds, and this node's, is judged by the
    time that it has just told. Raises PeerError FN-5510, FN-5511, FN-5513 (an earlier life of it), FN-5130, FN-5131."""
    parent = trust.parent
    if parent is None or greeting.node != parent.node:
        raise PeerError("FN-5510", node=greeting.node, certificate=parent.node if parent else "")
    trust.hear(greeting.lives)
    parent = trust.parent or parent
    if greeting.incarnation > parent.incarnation and greeting.chain:
        parent = _later_life(trust, parent, greeting)
    if trust.directory.is_revoked(parent.node):
        raise PeerError("FN-5511", node=parent.node)
    if 0 < greeting.incarnation < parent.incarnation:  # 0: a program that does not say it
        raise PeerError("FN-5513", node=parent.node, theirs=greeting.incarnation, ours=parent.incarnation)
    judge.check((*trust.directory.path(trust.node), trust.directory.root))
    return parent


def _later_life(trust: Trust, known: Identity, greeting: wire.Hello) -> Identity:
    """The parent goes on in a later incarnation (it was recovered, or a standby took its place): its chain says so."""
    try:
        shown = certs.check_chain(greeting.chain, trust.root_sha256)[0]
    except IntegrityError as error:
        raise PeerError("FN-5510", node=greeting.node, certificate=known.node) from error
    if (shown.node, shown.incarnation, shown.issuer) != (known.node, greeting.incarnation, known.issuer):
        raise PeerError("FN-5510", node=greeting.node, certificate=shown.node)
    trust.hear(greeting.chain[-2::-1])
    return trust.directory.get(known.node) or shown


def _check_store(writer: Writer, identity: Identity, greeting: wire.Hello) -> None:
    """A child that comes with another store, in the same incarnation, has lost its own or is a copy: it must take its
    history back first. Raises PeerError FN-5514."""
    peer = writer.store.peer(identity.node)
    if peer is None or greeting.restore or peer.have.store in (b"", greeting.store):
        return
    met = writer.store.meta(MET_IN + identity.node)
    if met is not None and int(met) != identity.incarnation:  # what is held of this life came by another way
        return
    held = fence.heads(writer.store, identity)
    if held:
        node = identity.node
        writer.alarms.append(Alarm("FN-5514", node, {"node": node, "incarnation": identity.incarnation}, held))
        raise PeerError("FN-5514", node=node, incarnation=identity.incarnation)


def enter(
    writer: Writer,
    identity: Identity,
    greeting: wire.Hello,
    from_parent: bool,
    now_ms: int,
    software: str,
    restoring: bool = False,
    unsure: bool = False,
    issuers: tuple[str, ...] = (),
    may: May | None = None,
    reports: wire.HealthPlace | None = None,
    window: int = WINDOW_BYTES,
    tells: bool = True,
) -> Entry:
    """Let a peer in that was checked: one transaction for its row, then what the exchange needs. A parent's side
    answers with its own greeting (`Admission.reply`). `restoring`: this node takes its history back; `unsure`: it has
    not learnt the time yet; `issuers`: where it dials its parent; `may`: `outcomes`; `reports`, `window`: `hello`;
    `tells`: whether the greeting's word on addresses is news."""
    restoring = restoring or (greeting.restore and not from_parent)  # a parent has nothing to take back here
    store, trust = writer.store, writer.trust
    if not from_parent:
        _check_store(writer, identity, greeting)
    place = fence.place(store, greeting.have)
    sound = place is Place.SAME
    with store.write() as tx:
        peer = tx.ensure_peer(identity.node, "parent" if from_parent else CHILD)
        # a child that takes its history back sends nothing yet; a parent that gathers does
        if peer.have.store != greeting.store and (from_parent or not greeting.restore):
            before = store.peer_with_store(greeting.store) if identity.stands_for == trust.node else None
            tx.meet_store(peer.id, greeting.store)
            if before is not None:  # the old primary: its order was followed to here
                tx.set_have(peer.id, before.have)
        if place.code and from_parent:
            fence.put_up(tx, trust.me, place.code, now_ms)
        elif place.code:  # a child may say anything: this node does not stop, but those above hear of it
            params = {"node": trust.node, "by": identity.node}
            writer.alarms.append(Alarm(place.code, trust.node, params, fence.heads(store, trust.me)))
        if sound and not from_parent:
            # A child does not raise it here: outcomes alone acknowledge what its parent holds, for they bring the
            # cosignatures. Were the link cut before them, the parent would think that they had been heard.
            tx.raise_acked(peer.id, greeting.have.lsn)
        if not from_parent:
            if not greeting.restore:
                tx.set_meta(MET_IN + identity.node, identity.incarnation)
            tx.set_witnessed(peer.id, witness.start(store, greeting))
        if greeting.have.within(store.store_id):  # else it may be what another store of this name acknowledged
            tx.heard(peer.id, greeting.acked)
        tx.set_meta(f"heard/{identity.node}", greeting.acked)
        tx.set_meta(f"protocol/{identity.node}", greeting.version_max)
        if from_parent:
            tx.set_meta(f"program/{identity.node}", greeting.software)
            trust.keep_heard(tx)
            demotion.settle(store, trust, tx)
        if from_parent and tells:
            note_addresses(tx, SUCCESSORS, greeting.addresses)
            note_addresses(tx, ISSUERS, greeting.issuers)
        elif tells:
            note_addresses(tx, REACHED_AT + identity.node, greeting.addresses)
        tx.touch_peer(peer.id, now_ms, None if greeting.wants or not from_parent else NO_ROOM)
        peer = store.peer(identity.node) or replace(peer, last_ms=now_ms)
    link = Link(identity, peer.id, greeting.store, from_parent, peer.have.lsn, position=peer.have.lsn)
    link.since, link.restoring, link.before = peer.since, restoring, peer.have.lsn
    link.gathers = bool(store.meta(GATHERS))
    gathers = greeting.gathers == frames.GATHERS or (from_parent and greeting.restore)
    link.gives_back = identity.incarnation if gathers else 0
    as_ever = link.gathers and greeting.gathers == frames.GATHERS_UNKNOWN
    half = store.partial(identity.node)
    to = None if from_parent else to_child(store, trust, identity, greeting, issuers)
    given = (trust, store, now_ms, software, peer, half)
    reply = (
        None if from_parent else hello(*given, unsure=unsure, to=to, restore=as_ever, window=window, reports=reports)
    )
    acks = () if restoring else outcomes.unheard(store, trust, peer, greeting.acked, writer.keys.sign, now_ms, may)
    owed = 0 if may is None else outcomes.newest_from(store, peer, greeting.acked)
    there = fence.standing(store) if from_parent and not restoring else None
    told = wire.Fenced(there.code, there.heads) if there and there.code != fence.HANDED else None
    start = greeting.have.lsn if sound else 0
    if from_parent and store.meta(RESTORED_STORE) == greeting.store:
        start = max(start, int(store.meta(RESTORED_LSN)))  # that much came from it
    # not after `acked`: who went by this peer's name before may have acknowledged more (small, promoting, seed 938)
    ahead = () if from_parent and restoring else urgent.who_is_who(store, trust.me, start)
    admitted = Admission(start, acks, reply, told, None if from_parent else peer.witnessed, ahead=ahead)
    return Entry(peer, link, admitted, half, owed)


def note_restored(tx: Transaction, parent: Peer) -> None:
    """All that is here came from the parent's store, up to the first that did not: its feed begins after that."""
    upto = tx.store.first_own() - 1
    tx.set_meta(RESTORED_STORE, parent.have.store)
    tx.set_meta(RESTORED_LSN, upto)
    tx.raise_acked(parent.id, upto)


def heard(store: Store, node: str) -> int:
    """Up to which arrival number of its own a peer was last seen to have this node's acknowledgements."""
    return int(store.meta(f"heard/{node}", 0))


def program(store: Store, node: str) -> str:
    """What the parent said at the last meeting that it runs; "" for one that was not met since this is kept."""
    return str(store.meta(f"program/{node}", ""))


def feeds(store: Store, trust: Trust, link: Link) -> tuple[Feed, Again]:
    """The feed for a peer, and the way to fetch a part of one log again. To a child that takes its history back goes,
    besides what always does, all that is held of it and of those below it; to one that goes on from less than its life
    before had, what came of them in that life; to a standby, everything. What a peer said that it holds is left out
    (`node.refill`)."""
    if link.from_parent:
        up = partial(store.feed_up, lives=(link.peer.node, link.gives_back))
        return _refilled(store, link, up), _again(up)
    if link.peer.stands_for == trust.node:
        everything = partial(store.feed_all, link.peer.node)
        return _refilled(store, link, everything), _again(everything)
    scope, below = link.peer.scope, partial(refill.below, store, trust, link.peer.node)
    edge = refill.edge(store, link)
    back = protocol(store, link.peer.node) >= HANDED_BACK_SINCE

    def down(
        after: int,
        size: int,
        log: str = "",
        first: int = 0,
        until: int = 1 << 62,
        only: Sequence[int] | None = None,
    ) -> tuple[list[Item], bool]:
        if link.restoring:
            return store.feed_down(scope, after, size, log, first, until, below(), only, back)
        last = edge()
        if after < last:  # what its earlier life had from below, and brings nobody any more
            upto = until if log else min(until, last)
            items, drained = store.feed_down(scope, after, size, log, first, upto, below(), only, back)
            if log or items:
                return items, drained and upto == until
        lives = store.lives(link.peer.node, link.gives_back)
        return store.feed_down(scope, max(after, last), size, log, first, until, lives, only, back)

    return _refilled(store, link, down), _again(down)


def _refilled(store: Store, link: Link, feed: Callable[..., tuple[list[Item], bool]]) -> Feed:
    onward = _onward(store, feed)

    def next_items(after: int, bytes_max: int) -> tuple[list[Item], bool]:
        refill = link.refill
        if refill is not None and after < refill.upto:
            items, _ = feed(after, bytes_max, until=refill.upto, only=refill.missing)
            if items:
                return items, False
            after = refill.upto
        return onward(after, bytes_max)

    return next_items


def _onward(store: Store, feed: Feed) -> Feed:
    """The same, at the cost of what has come since the last look. A peer's cursor stands at the last item that was for
    it, and what came after that may be long: a standby holds all that its primary does, and sends up only what it
    writes itself. What was looked at is looked at again only while something of it is damaged, or where logs go other
    ways since."""
    after_it = upto = 0  # between the two nothing is for this peer
    routes: object = None

    def next_items(after: int, bytes_max: int) -> tuple[list[Item], bool]:
        nonlocal after_it, upto, routes
        now = store.metas("lsn", ROUTES)
        if now.get(ROUTES) != routes:
            after_it, upto, routes = 0, 0, now.get(ROUTES)
        items, drained = feed(upto if after_it <= after < upto else after, bytes_max)
        if drained and not store.damaged:
            after_it, upto = items[-1].lsn if items else after, int(now["lsn"])
        return items, drained

    return next_items


def hurry(store: Store, trust: Trust, link: Link) -> Callable[[int, int], urgent.Found]:
    """What of a peer's feed goes ahead of its turn. Nothing to a child that takes its history back: it takes all."""
    if link.restoring:
        return lambda _after, beyond: ([], beyond, False)
    if link.from_parent:
        return store.hurry_up
    if link.peer.stands_for == trust.node:
        return partial(store.hurry_all, link.peer.node)
    scope = link.peer.scope
    return lambda after, beyond: store.hurry_down(scope, after, beyond)


def _again(fetch: Callable[[int, int, str, int, int], tuple[list[Item], bool]]) -> Again:
    """Of a long stretch only its start is fetched, and its last segment: that one comes too early once more, so the
    peer asks for what is still missing."""

    def again(name: str, first: int, until: int) -> list[Item]:
        items, drained = fetch(0, PULL_BYTES, name, first, until)
        last = items[-1:]
        while not drained:
            more, drained = fetch(last[-1].lsn, PULL_BYTES, name, first, until)
            last = more[-1:] or last
        return items if last == items[-1:] else [*items, *last]

    return again
