"""Succession: a standby takes its primary's name. The issuer's side, and the standby's.

Rules
1. Who may succeed is the issuer's decision, a change of its own `sys.nodes` log (`allow`); who does is a person's, at
   the standby (`fednode promote`). Nothing is promoted by itself.
2. The issuer gives a certificate of the primary's id, in the next incarnation, with the standby's keys: what a node
   that lost its keys and joins again gets, too. Who asks again for what it did not hear gets the same.
3. The chain on the standby's disk is the point of no return. What follows (`settle`) may be cut off anywhere and is
   done at the next start: routes anew, what the primary's issuer has not cosigned made again as changes of this life,
   the standby's own id revoked.
4. For the province the root key is the issuer (`by_root`), since no node stands above it.

>>> STOOD_FOR
'stood_for'
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto import certs, checkpoint, issuing
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import TlsKey
from fednode.crypto.suite import SUITE_1
from fednode.node import audit, syncing
from fednode.node.admission import GATHERS, STOOD_FOR, json_list
from fednode.node.app import ROOT_DAYS, App, encoded
from fednode.node.demotion import COMES_BACK, FOUND, ISSUERS, REACHED_LAST, SUCCESSORS, reroute
from fednode.node.meanwhile import Meanwhile
from fednode.node.salvage import Salvage
from fednode.proto import fednode_pb2 as pb
from fednode.sync.change import NODES, Change
from fednode.sync.enrol import check_renewal
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from fednode.sync.identity import Directory, heir_payload, node_payload
from fednode.sync.wire import Cosignature

if TYPE_CHECKING:
    from fednode.node.transaction import Transaction
    from fednode.node.writer import Writer

LIVES_LEFT_OUT = 10

# ---------------------------------------------------------------- the issuer


def allow(app: App, standby: str) -> Identity:
    """Let a standby succeed its primary one day; the word spreads by itself. Raises Refused FN-3110 (unknown), FN-5117
    (no standby of a child of this node)."""
    app.trust.refresh(app.store)
    directory = app.trust.directory
    found = directory.get(standby)
    if found is None:
        raise Refused("FN-3110", node=standby)
    if not found.stands_for or directory.parent_of(found.stands_for) != app.trust.node:
        raise Refused("FN-5117", node=standby, me=app.trust.node)
    if directory.is_revoked(standby):
        raise Refused("FN-5511", node=standby)
    if directory.is_heir(found):
        return found
    writer = app.new_writer(app.store)
    change = _heir(found.stands_for, standby)
    told = {"node": found.stands_for, "standby": standby}
    journal = app.journal(writer)
    writer.local(NODES, app.trust.area, [change], lambda tx: journal.within(tx, "standby.allow", **told))
    app.poke()
    return found


def grant(app: App, writer: Writer, asker: Identity, request: pb.SuccessionRequest) -> pb.JoinReply:
    """Answer a SuccessionRequest. `asker`: as TLS has verified it. Raises PeerError FN-5118 (not allowed), FN-5119
    (another life has begun), FN-5511, FN-5114."""
    trust = app.trust
    trust.refresh(writer.store)
    directory = trust.directory
    standby, primary = directory.get(asker.node), directory.get(request.node)
    if standby is None or primary is None or standby.sign_key != asker.sign_key:
        raise PeerError("FN-5512", node=asker.node)
    if directory.is_revoked(standby.node):
        raise PeerError("FN-5511", node=standby.node)
    if standby.stands_for != primary.node or directory.parent_of(primary.node) != trust.node:
        raise PeerError("FN-5118", node=standby.node, primary=primary.node)
    if primary.sign_key != standby.sign_key:  # else it has succeeded already, and did not hear of it
        if not directory.is_heir(standby):
            raise PeerError("FN-5118", node=standby.node, primary=primary.node)
        if primary.incarnation != request.life:
            raise PeerError("FN-5119", node=primary.node, known=request.life, now=primary.incarnation)
        if request.dry:
            return pb.JoinReply(now_ms=app.now_ms())
        asked = check_renewal(_as(primary, standby), request.request)
        der = app.certify(asked, primary.name, primary.level, primary.scope, primary.incarnation + 1)
        changes = [
            Change(primary.node.encode(), encoded(node_payload(der))),
            *_back(directory, primary, request, standby),
        ]
        told: dict[str, Any] = {"node": primary.node, "standby": standby.node, "incarnation": primary.incarnation + 1}
        told["planned"] = bool(request.consent)
        journal = app.journal(writer)
        writer.local(NODES, trust.area, changes, lambda tx: journal.within(tx, "succession", **told))
    return pb.JoinReply(chain=directory.chain(primary.node), addresses=app.exchange_addresses(), now_ms=app.now_ms())


def consent_text(primary: str, life: int, standby: str, back: str) -> bytes:
    """What a primary signs that hands over: to whom, and as whom it comes back."""
    return SUITE_1.hash(b"fednode hand over v1\n" + "\n".join((primary, str(life), standby, back)).encode())


def _back(directory: Directory, primary: Identity, request: pb.SuccessionRequest, standby: Identity) -> list[Change]:
    """Whoever hands over in good order may succeed again. Raises PeerError FN-5124: that is not the primary's word."""
    if not request.consent:
        return []
    text = consent_text(primary.node, primary.incarnation, standby.node, request.back)
    known = directory.get(request.back)
    try:
        SUITE_1.verify(primary.sign_key, text, request.consent)
    except IntegrityError as error:
        raise PeerError("FN-5124", node=primary.node, standby=standby.node) from error
    if not certs.NODE_NAME.fullmatch(request.back) or (known is not None and known.stands_for != primary.node):
        raise PeerError("FN-5124", node=primary.node, standby=request.back)
    return [_heir(primary.node, request.back)]


def _heir(primary: str, standby: str) -> Change:
    return Change(f"heir/{primary}/{standby}".encode(), encoded(heir_payload(primary, standby)))


def _as(primary: Identity, standby: Identity) -> Identity:
    """The primary with the standby's keys: what the request must be for."""
    return replace(primary, sign_key=standby.sign_key, seal_key=standby.seal_key, tls_key=standby.tls_key)


def next_life(app: App, root_key: TlsKey | None) -> None:
    """The province goes on in a later incarnation with the keys that it has: the root key says so, out of its home or
    given. Some are left out: lives that its backup does not know of. Raises Refused FN-5331 where the key is neither,
    FN-5309 (another key)."""
    me, directory = app.trust.me, app.trust.directory
    key = root_key or app.home.root_key(app.config.passphrase)
    if key is None:
        raise Refused("FN-5331", node=me.node)
    if key.public_der != directory.root.tls_key:
        raise Refused("FN-5309", node=me.node)
    asked = issuing.parse_request(app.renewal_request())
    grant_ = app.grant(me.name, me.level, me.scope, me.incarnation + LIVES_LEFT_OUT)
    grant_ = replace(grant_, standby=False, days=ROOT_DAYS)
    der = issuing.issue(asked, grant_, directory.root, key, directory.levels, now_s=app.now_s)
    app.install_chain((der, directory.root.der))


def begin_life(app: App) -> int:
    """What a node does that goes on in its own store, in a new incarnation: the province says so in its log (for
    others their parent has); what nobody above is known to hold of earlier lives is made again. Returns how many
    changes were. Nothing when all is done."""
    me, writer = app.trust.me, app.new_writer(app.store)
    if me.issuer == ROOT:
        if not app.store.log_state(app.trust.log_name(NODES, app.trust.area)).size:
            writer.local(NODES, app.trust.area, [Change(me.node.encode(), encoded(node_payload(me.der)))])
        return 0
    with app.store.write() as tx:
        for lsn, _ in _tail(app, me.node, me.incarnation):
            tx.hold_back(lsn)
    return make_again(app, writer, app.store.to_make_again())


# ---------------------------------------------------------------- the standby


@dataclass(slots=True)
class Plan:
    """What a promotion would do. `heard_ms`: when this node last heard from the primary (Unix milliseconds);
    `uncosigned`: changes of the primary's own that its parent is not known to hold: they are made again; `children`:
    who has to find this node; `heir`: the issuer has allowed it, or need not be asked."""

    standby: str
    primary: str
    life: int
    heard_ms: int | None
    uncosigned: int
    children: list[str] = field(default_factory=list)
    heir: bool = False


def plan(app: App) -> Plan:
    """Look, and change nothing. Raises Refused FN-5307: this node is no standby."""
    me, directory = app.trust.me, app.trust.directory
    if not me.stands_for:
        raise Refused("FN-5307", node=me.node)
    primary = directory.get(me.stands_for)
    if primary is None:
        raise StoreError("FN-7613", node=me.stands_for)
    peer = app.store.peer(primary.node)
    children = [one.node for one in directory.children_of(primary.node) if not one.stands_for]
    uncosigned = sum(count for _, count in _tail(app, primary.node, primary.incarnation + 1))
    return Plan(
        *(me.node, primary.node, primary.incarnation, peer.last_ms if peer else None, uncosigned),
        *(children, primary.issuer == ROOT or directory.is_heir(me)),
    )


def _tail(app: App, node: str, before: int) -> list[tuple[int, int]]:
    """(lsn, changes) of the segments of a node's own logs, of incarnations before one, that no first parent has
    cosigned, as known here, and of what follows one in its log: nobody else could take that without it. None at the
    province, which has nobody above it."""
    if app.trust.directory.parent_of(node) is None:
        return []
    rows = app.store.rows(
        """with edge as materialized (
               select s.log_id, min(s.first) as at from segment s join log l on l.id = s.log_id
               where l.origin = ? and l.incarnation < ? and s.first_time is null group by s.log_id)
           select s.lsn, s.count from edge e join segment s on s.log_id = e.log_id and s.first >= e.at
           order by s.lsn""",
        node,
        before,
    )
    return [(lsn, count) for lsn, count in rows]


async def ask(
    app: App, addresses: Sequence[str] = (), *, consent: bytes = b"", back: str = "", dry: bool = False
) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """Ask the issuer for the primary's name: the chain, and where to dial the issuer. `consent`, `back`: the primary's
    word, and as whom it comes back; `dry`: only whether it would be given. Raises Unavailable, PeerError with the
    issuer's code, Refused FN-5308 when no address of it is known."""
    from fednode.node import carrier

    found = plan(app)
    primary = app.trust.directory.get(found.primary)
    issuer = app.trust.directory.get(primary.issuer) if primary else None
    known = tuple(addresses) or issuers_of(app)
    if issuer is None or not known:
        raise Refused("FN-5308", primary=found.primary)
    request = pb.SuccessionRequest(node=found.primary, life=found.life, request=_request(app, found.primary))
    request.consent, request.back, request.dry = consent, back, dry
    last: Exception = Unavailable("FN-4506", parent=issuer.node)
    for address in known:
        try:
            reply = await carrier.succeed(address, app.credentials(), issuer.dns, request)
        except Unavailable as error:
            last = error
            continue
        if reply.refused:
            raise PeerError(reply.refused, **dict(reply.params))
        return tuple(reply.chain), tuple(reply.addresses)
    raise last


def issuers_of(app: App) -> tuple[str, ...]:
    """Where the primary dials its parent, as it has told."""
    return tuple(json_list(app.store.meta(ISSUERS)))


def _request(app: App, node: str) -> bytes:
    return issuing.make_request(node, app.keys.tls, app.keys.sign, app.keys.seal)


def by_root(app: App, root_key: TlsKey) -> tuple[bytes, ...]:
    """The province's name, by the root key: the chain. Raises Refused FN-5307, FN-5309 (another key, or not the
    province's standby)."""
    found = plan(app)
    primary, root = app.trust.directory.get(found.primary), app.trust.directory.root
    if primary is None or primary.issuer != ROOT or root_key.public_der != root.tls_key:
        raise Refused("FN-5309", node=found.standby)
    asked = issuing.parse_request(_request(app, primary.node))
    grant_ = app.grant(primary.name, primary.level, primary.scope, found.life + 1)
    der = issuing.issue(asked, grant_, root, root_key, app.trust.directory.levels, now_s=app.now_s)
    return (der, root.der)


def take(
    app: App,
    chain: tuple[bytes, ...],
    addresses: tuple[str, ...] = (),
    also: Callable[[Transaction], None] = lambda tx: None,
) -> None:
    """Take the name: from here on there is no way back. `addresses`: of the issuer; `also`: in the same transaction.
    Raises IntegrityError or PeerError FN-6112 for a chain that is not the primary's with this node's keys."""
    found = plan(app)
    me = certs.check_chain(chain, app.trust.root_sha256, app.now_s)[0]
    mine = (app.keys.sign.public, app.keys.seal.public, app.keys.tls.public_der)
    if (me.node, (me.sign_key, me.seal_key, me.tls_key)) != (found.primary, mine) or me.incarnation <= found.life:
        raise PeerError("FN-6112", node=me.node)
    with app.store.write() as tx:
        tx.set_meta(STOOD_FOR, found.standby)
        also(tx)
    app.home.write_addresses(addresses)
    app.home.write_chain(chain)


@dataclass(frozen=True, slots=True)
class Checks:
    """What was looked at before a promotion. `reachable`: the primary answers (then this node has taken all it gave),
    None where it was not asked; `problems` of `changes`: what verification found."""

    reachable: bool | None
    changes: int
    problems: int


async def check(app: App) -> Checks:
    """Take what the primary still gives, if it answers; then verify what came since the last time."""
    plan(app)
    reachable = True
    try:
        await syncing.sync_once(app)
    except (Unavailable, PeerError):
        reachable = False
    return verified(app, reachable)


def verified(app: App, reachable: bool | None = None) -> Checks:
    """Verify what came since the last time."""
    report = audit.verify_store(app.store, app.trust, full=False)
    return Checks(reachable, report.changes, len(report.problems))


def agree(found: Plan, checks: Checks, primary_is_gone: bool) -> None:
    """Raises Refused FN-5120 (the primary answers), FN-5121 (what is held does not verify)."""
    if checks.problems:
        raise Refused("FN-5121", count=checks.problems)
    if checks.reachable and not primary_is_gone:
        raise Refused("FN-5120", primary=found.primary)


@dataclass(frozen=True, slots=True)
class Taken:
    """`again`: changes of the earlier life that were made again."""

    node: str
    incarnation: int
    again: int


async def promote(
    app: App,
    addresses: Sequence[str] = (),
    root_key: TlsKey | None = None,
    granted: tuple[bytes, ...] = (),
) -> Taken:
    """Ask, take, settle. `granted`: the chain, where it was granted in advance. Run it again after any interruption.
    Raises what `ask`, `by_root` and `take` raise."""
    if root_key is not None:
        granted = by_root(app, root_key)
    chain, issuers = (granted, tuple(addresses) or issuers_of(app)) if granted else await ask(app, addresses)
    take(app, chain, issuers)
    after = App.open(app.home.path, app.config, clock=app.clock, rng=app.rng, operator=app.operator, settle=False)
    try:
        again = settle(after)
        return Taken(after.trust.node, after.trust.me.incarnation, again)
    finally:
        after.close()


def settle(app: App) -> int:
    """What a promotion leaves to do, once the name is taken, or an old primary's late writes; returns how many changes
    of the promotion were made again. Nothing when all is done."""
    standby = app.store.meta(STOOD_FOR)
    writer = app.new_writer(app.store)
    if standby is None or app.trust.me.stands_for:
        if left := app.store.to_make_again():
            late_writes(app, writer, left)
        return 0
    me, parent = app.trust.me, app.trust.parent
    tail = [lsn for lsn, _ in _tail(app, me.node, me.incarnation)]
    with app.store.write() as tx:
        reroute(app.store, app.trust, tx)
        writer.rewrapping.anew(tx)
        if parent is not None:  # nothing of this feed has been acknowledged yet
            tx.execute("update peer set acked = 0 where node = ?", parent.node)
        _cosign_own(app, tx, standby)
        tx.set_meta(REACHED_LAST, None)
        tx.set_meta(SUCCESSORS, None)  # other standbys of the primary: of this node, now
        tx.set_meta(ISSUERS, None)  # of the primary's parent: this node's own, now
        tx.set_meta(FOUND, None)
        tx.set_meta(GATHERS, 1)  # what of the primary's own only a child has
        for lsn in tail:
            tx.hold_back(lsn)
    again = make_again(app, writer, tail)
    writer.tell_stripped(app.store.lsn)  # a standby erases nothing: now it does, of two that it knows are the same
    _let_back(app, writer)
    _say(app, writer, standby, again)
    return again


def _let_back(app: App, writer: Writer) -> None:
    """An old primary that has handed over comes back as a standby: its certificate is there before it asks for it."""
    text = app.store.meta(COMES_BACK)
    if text is None:
        return
    hashed, request = msgspec.json.decode(text, type=tuple[str, str])
    with suppress(PeerError, IntegrityError):  # it may join with its token all the same
        app.admit(writer, bytes.fromhex(hashed), issuing.parse_request(bytes.fromhex(request)))
    with app.store.write() as tx:
        tx.set_meta(COMES_BACK, None)


def _cosign_own(app: App, tx: Transaction, standby: str) -> None:
    """What the standby wrote of itself and its primary has not cosigned: its primary is this node now."""
    rows = app.store.rows(
        """select s.lsn from segment s join log l on l.id = s.log_id where l.origin = ? and s.first_time is null""",
        standby,
    )
    time_s = app.now_s
    for (lsn,) in rows:
        place = app.store.place(lsn)
        if place is not None:
            head = checkpoint.Checkpoint(str(place[0]), place[1], place[2])
            tx.set_first_parent(lsn, Cosignature(time_s, checkpoint.cosign(head, app.keys.sign, time_s)))


def make_again(app: App, writer: Writer, lsns: Sequence[int]) -> int:
    """Segments of earlier lives that nobody above is known to hold: their changes as changes of this life, in their
    order; what stands over them stands (`node.meanwhile`). Returns how many."""
    if not lsns:
        return 0
    projector = app.new_projector(writer.store)
    try:
        salvage = Salvage(writer.store, writer, Meanwhile(projector))
        for lsn in sorted(lsns):
            (held,) = writer.store.segments(lsn - 1, 1)
            salvage.make_again(held)
        return salvage.found.appended
    finally:
        projector.close()


def late_writes(app: App, writer: Writer, lsns: Sequence[int]) -> None:
    """What an old primary had beyond: made again, and told."""
    again = make_again(app, writer, lsns)
    app.journal(writer).note("late.writes", segments=len(lsns), again=again)


def _say(app: App, writer: Writer, standby: str, again: int) -> None:
    """The enrolment (at the province nobody above says it), the end of the standby's id, the event; then it is done."""
    me, trust = app.trust.me, app.trust
    changes = []
    if me.issuer == ROOT:
        changes.append(Change(me.node.encode(), encoded(node_payload(me.der))))
    stood = trust.directory.get(standby)
    life = stood.incarnation if stood else 1
    changes.append(app.revocation(standby, life, f"succeeded {me.node}"))
    journal = app.journal(writer)

    def done(tx: Transaction) -> None:
        tx.set_meta(STOOD_FOR, None)
        journal.within(tx, "promote", standby=standby, incarnation=me.incarnation, again=again)

    writer.local(NODES, trust.area, changes, done)
