"""Bundles going out: what a peer is owed, written onto a stick.

Rules
1. What is owed is what an exchange would send: the feed after what the peer has acknowledged, acknowledgements that it
   has not heard of, late cosignatures. A bundle always begins there, so a stick that is lost costs nothing.
   A peer that says that it holds less (a store that was restored; what went ahead of its turn) is believed.
2. Nothing is held in memory but a stretch of the feed: neither the bundle nor its acknowledgements.
3. Segments that are damaged here are left out, and counted: the exchange leaves them out, too.

>>> # exported = export(app, "130102001", Path("/media/stick"))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.crypto.certs import Identity
from fednode.crypto.suite import SUITE_1
from fednode.node import acks, admission, fence, stick, urgent, whereabouts, witness
from fednode.node.outcomes import outcomes
from fednode.node.resealed import HANDED_BACK_SINCE
from fednode.node.rows import Peer
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.sync import bundle as bun
from fednode.sync import volume as vol
from fednode.sync import wire
from fednode.sync.bundle import Opening
from fednode.sync.effects import Item
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, Refused
from fednode.sync.side import HURRY_SINCE, PULL_BYTES

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.trust import Trust

VOLUME_BYTES = 32 * 1024 * 1024
PARENT, STANDBY = "parent", "standby"


@dataclass(slots=True)
class Exported:
    """A bundle that was written; with `dry_run` one that would be. `after`, `upto`: which part of this node's arrival
    order; `acks`: how much of the peer's it acknowledges; `damaged`: segments that were left out."""

    recipient: str
    after: int
    upto: int
    segments: int = 0
    acks: int = 0
    bytes: int = 0
    files: tuple[str, ...] = ()
    fingerprint: str = ""
    id: str = ""
    damaged: int = 0


def peer_of(app: App, to: str) -> tuple[Identity, bool]:
    """The peer that a bundle may be for, and whether it is the parent. Raises Refused FN-3110 (unknown), FN-3520 (not
    one standby), FN-5125 (not a direct peer), PeerError FN-5511 (revoked)."""
    trust = app.trust
    trust.refresh(app.store)
    parent = trust.parent
    if to == PARENT and parent is not None:
        to = parent.node
    elif to == STANDBY:
        to = _standby(trust)
    identity = trust.directory.get(to)
    if identity is None:
        raise Refused("FN-3110", node=to)
    to_parent = parent is not None and parent.node == to
    if not to_parent and trust.directory.parent_of(to) != trust.node:
        raise Refused("FN-5125", node=to)
    if trust.directory.is_revoked(to):
        raise PeerError("FN-5511", node=to)
    return identity, to_parent


def _standby(trust: Trust) -> str:
    """The one that this node has. Raises Refused FN-3520."""
    found = [one.node for one in trust.directory.standbys_of(trust.node)]
    if len(found) != 1:
        raise Refused("FN-3520", count=len(found), standbys=", ".join(found) or "-")
    return found[0]


def export(
    app: App,
    to: str,
    target: Path,
    *,
    volume_bytes: int = VOLUME_BYTES,
    since: int | None = None,
    dry_run: bool = False,
    refused: Mapping[int, str] | None = None,
) -> Exported:
    """Write what a peer is owed. `since`: after this arrival number of this node's, instead of after what the peer has
    acknowledged; `refused`: what it is to hear of its own segments, beside what the store knows. Raises what `peer_of`
    and `stick.write_bundle` raise, Refused FN-3507 for a size of volumes that is none, FN-3518 where it takes too many
    of them, FN-3519 where one file cannot hold it."""
    if not vol.VOLUME_BYTES_MIN <= volume_bytes <= vol.VOLUME_BYTES_MAX:
        raise Refused("FN-3507", size=volume_bytes, size_min=vol.VOLUME_BYTES_MIN, size_max=vol.VOLUME_BYTES_MAX)
    identity, to_parent = peer_of(app, to)
    me = app.trust.me
    header = vol.Header(
        app.trust.domain,
        me.node,
        me.incarnation,
        identity.node,
        app.rng(vol.ID_BYTES),
        app.now_ms(),
        SUITE_1.hash(identity.seal_key)[:8],
    )
    content = _Content(app, identity, to_parent, since, refused or {})
    folder = stick.folder_of(target)
    limits = (volume_bytes, vol.VOLUMES_MAX) if folder is not None else (vol.VOLUME_BYTES_MAX, 1)
    pieces = vol.pack(content.frames(), header, identity.seal_key, app.keys.sign.sign, app.rng, *limits)
    exported = content.exported
    if dry_run:
        exported.bytes = sum(len(data) for _, data in pieces)
        return exported
    last = b""

    def kept() -> Iterator[tuple[int, bytes]]:
        nonlocal last
        for number, data in pieces:
            last = data
            yield number, data

    try:
        written = stick.write_bundle(target, header.id, kept())
    except Refused as error:
        if folder is not None or error.code != "FN-3518":
            raise
        raise Refused("FN-3519", path=str(target), size_max=vol.VOLUME_BYTES_MAX) from error
    exported.bytes, exported.files = written.bytes, tuple(map(str, written.files))
    exported.id, exported.fingerprint = header.id.hex(), vol.manifest_of(last).fingerprint
    if folder is not None and since is None:
        stick.remove_older(folder, written, me.node, identity.node)
    told: dict[str, Any] = {
        "peer": identity.node,
        "fingerprint": exported.fingerprint,
        "after": exported.after,
        "upto": exported.upto,
    }
    app.journal().note("bundle.export", **told, segments=exported.segments, bytes=written.bytes)
    return exported


def note_behind(tx: Transaction, peer: Peer, have: int | None) -> None:
    """A peer has said by stick up to where it holds this node's feed; None: it said nothing that fits this store."""
    behind = have is not None and have < peer.acked
    tx.set_meta(f"behind/{peer.node}", f"{have}/{peer.acked}" if behind else None)


def _after(store: Store, peer: Peer | None) -> int:
    """After which arrival number a bundle begins."""
    if peer is None:
        return 0
    have, _, acked = str(store.meta(f"behind/{peer.node}") or "").partition("/")
    return int(have) if acked == str(peer.acked) else peer.acked  # a session since has begun where the peer was


class _Content:
    """What goes into a bundle."""

    def __init__(
        self, app: App, identity: Identity, to_parent: bool, since: int | None, refused: Mapping[int, str]
    ) -> None:
        self._app, self._identity, self._to_parent, self._refused = app, identity, to_parent, refused
        self._peer = app.store.peer(identity.node)
        begin = since if since is not None else _after(app.store, self._peer)
        self.exported = Exported(identity.node, begin, app.store.lsn)

    def frames(self) -> Iterator[bytes]:
        """In order. Only what is needed now is in memory."""
        store, frames = self._app.store, bun.Frames()
        yield bun.opening_frame(self._opening())
        standing = fence.standing(store) if self._to_parent else None
        if standing is not None:
            yield frames.of(wire.Fenced(standing.code, standing.heads))
        yield from frames.acks(self._outcomes(store, self._peer))
        yield from frames.items(self._ahead(store), ahead=True)
        after, upto, drained = self.exported.after, self.exported.upto, False
        before = set(store.damaged)
        feed = self._feed(store)
        while not drained:
            items, drained = feed(after, PULL_BYTES, until=upto)
            yield from frames.items(items)
            self.exported.segments += sum(1 for item in items if item.late is None)
            after = items[-1].lsn if items else upto
        self.exported.damaged = len(store.damaged - before)
        yield from self._witnessed(frames)

    def _ahead(self, store: Store) -> tuple[Item, ...]:
        """As in an exchange (`admission.enter`). A successor has met nobody yet: whom it does not know is taken for
        one that knows what goes ahead. One that does not takes it as well, but may count as held what lies before it,
        should the power go in the middle of that import, and the stick be lost."""
        if admission.protocol(store, self._identity.node, HURRY_SINCE) < HURRY_SINCE:
            return ()
        found = urgent.who_is_who(store, self._app.trust.me, self.exported.after)
        self.exported.segments += len(found)
        return found

    def _feed(self, store: Store) -> Callable[..., tuple[list[Item], bool]]:
        """As in an exchange (`admission.feeds`)."""
        if self._to_parent:
            return store.feed_up
        if self._identity.stands_for == self._app.trust.node:
            return partial(store.feed_all, self._identity.node)
        back = admission.protocol(store, self._identity.node) >= HANDED_BACK_SINCE
        return partial(store.feed_down, self._identity.scope, back=back)

    def _witnessed(self, frames: bun.Frames) -> Iterator[bytes]:
        """What witnesses above have signed, for a child that was seen to take it."""
        store, trust, identity = self._app.store, self._app.trust, self._identity
        upto = None if self._to_parent or self._peer is None else self._peer.witnessed
        if upto is None or admission.protocol(store, identity.node) < wire.SINCE[wire.Witnessed]:
            return
        while (told := witness.owed(store, trust, identity, upto)[0]) is not None:
            upto = told.upto
            if told.heads:
                yield frames.of(told)

    def _opening(self) -> Opening:
        app, trust = self._app, self._app.trust
        place = (trust, app.store, app.now_ms(), app.software, self._peer, None)
        hello = admission.hello(*place, unsure=not app.reference.sure, to=self._greeted())
        span = (self.exported.after, self.exported.upto)
        if not self._to_parent:
            chain = trust.directory.chain(self._identity.node)
            return Opening(hello, *span, chain, app.exchange_addresses()[: bun.ADDRESSES_MAX])
        due = renewal_due(trust.me, app.now_s)
        return Opening(hello, *span, trust.directory.chain(trust.node), (), app.renewal_request() if due else b"")

    def _greeted(self) -> admission.Greeted:
        """Where this node and those about it can be dialled; to a child, the lives of those above it."""
        app = self._app
        if self._to_parent:
            return admission.Greeted(addresses=whereabouts.of_myself(app))
        places = admission.places(app.store, app.trust, self._identity.node)
        above, lives = whereabouts.issuers(app, app.store), admission.all_lives(app.trust)
        return admission.Greeted(0, (), places, above, lives=lives)

    def _outcomes(self, store: Store, peer: Peer | None) -> Iterator[wire.Outcome]:
        if peer is None:
            return
        app, heard = self._app, admission.heard(store, peer.node)
        may = acks.may(app.config, store, app.trust) if not self._identity.stands_for and not self._to_parent else None
        for one in outcomes(store, app.trust, peer, heard, app.keys.sign, app.now_ms(), may):
            if one.lsn not in self._refused:
                self.exported.acks += 1
                yield one
        for lsn in sorted(self._refused):
            self.exported.acks += 1
            yield wire.Outcome(lsn, refused=self._refused[lsn])
