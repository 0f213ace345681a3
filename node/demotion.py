"""The old primary comes back: it joins as a standby of its successor, with its store, and gives what only it has.

Rules
1. Nothing of it is lost, nothing is merged in silence: its late writes go up in its old logs, as they were signed; the
   successor keeps them, makes their changes again in its own life, and says so in the audit.
2. Its feed goes on where the successor's copy of its store ended (the store's id is the same), so it gives just that.
3. When all of it is acknowledged it passes nothing on any more, like any standby (`settle`).

>>> LATE_UPTO
'late_upto'
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from fednode.node import fence
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync.change import LogName
from fednode.sync.feed import Route

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.transaction import Transaction

REACHED_LAST = "parent_at"  # where the parent was reached last, when that was not the first of its addresses (meta)
SUCCESSORS = "successors"  # where the parent's standbys can be dialled (meta)
ISSUERS = "issuers"  # where the parent's own parent can be dialled (meta)
FOUND = "found_at"  # where the node above says that the parent can be dialled, until it was reached (meta)
HANDING = "handing"  # at a primary: to whom it hands over (meta, `node.switchover`)
COMES_BACK = "comes_back"  # at its successor: hash of the token and certificate request of the old primary (meta)
LATE_UPTO = "late_upto"  # the last arrival number of its life as a primary, until the successor has all of it (meta)


class Handing(msgspec.Struct, frozen=True):
    """What a primary has agreed to (`node.switchover`): who takes its place, the token that it comes back with."""

    standby: str
    token: str
    at_ms: int


def handing_of(store: Store) -> Handing | None:
    """To whom this primary hands over."""
    text = store.meta(HANDING)
    return None if text is None else msgspec.json.decode(text, type=Handing)


def begin(app: App) -> None:
    """Once this home's certificate is a standby's: what it holds goes up to its successor, the fence is taken away."""
    trust = app.trust
    with app.store.write() as tx:
        tx.set_routes((log_id, Route(_gives_up(trust, name), "")) for log_id, name, _ in app.store.logs())
        tx.set_meta(LATE_UPTO, app.store.lsn)
        tx.set_meta(REACHED_LAST, None)
        tx.set_meta(SUCCESSORS, None)
        tx.set_meta(ISSUERS, None)
        tx.set_meta(FOUND, None)
        tx.set_meta(HANDING, None)
        fence.lift(tx)


def _gives_up(trust: Trust, name: LogName) -> bool:
    """Whether a log goes up to the successor: what this node's, or came from below it, in its life as a primary."""
    path = [one.node for one in trust.directory.path(name.origin)]
    return trust.me.stands_for in path and name.origin != trust.node


def settle(store: Store, trust: Trust, tx: Transaction) -> None:
    """Pass nothing on any more, when the successor holds all of it."""
    upto = store.meta(LATE_UPTO)
    if upto is None:
        return
    peer = store.peer(trust.me.stands_for)
    if peer is not None and peer.acked >= int(upto):
        reroute(store, trust, tx)
        tx.set_meta(LATE_UPTO, None)


def reroute(store: Store, trust: Trust, tx: Transaction) -> None:
    """The route of every log anew: this node is another one than when they came."""
    tx.set_routes((log_id, trust.route(name)) for log_id, name, _ in store.logs())
