"""Where a node can be dialled: what its neighbours are told while it is there, and whom they ask when it is gone.

Rules
1. A node says to its parent where it and its standbys can be dialled, and to its children where its standbys and its
   own parent can (also by stick). Each keeps it in `meta`. What changes is told at once: down in a beat; up in the
   greeting of a new session, for it is rare, and a greeting is counted as one.
2. Who has reached its parent at none of its addresses for `ROUNDS` rounds asks the node above that, over mutual TLS
   (`Where`), and again ever more rarely (`Asking`). No answer, from an older program too, changes nothing.
3. Answered is only whose parent is the node that it asks for, where that is a child of the one that is asked. The
   answer is looked up and nothing is written; one asker gets `ANSWERS_MAX` of them in an hour.
4. An answer says where to dial, no more: whoever is met there has to show the certificate in force (`node.admission`).
   Its chain counts as one in a greeting does: with a later life of the parent the earlier one is over here.
5. The province has nobody above it: its children know what it has told them itself.

>>> asking = Asking(lambda: 100.0, bytes)
>>> [asking.failed() for _ in range(ROUNDS + 1)]
[False, False, True, False]
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.node import admission, fence
from fednode.node.admission import REACHED_AT, json_list, note_addresses
from fednode.node.config import is_address
from fednode.node.demotion import FOUND, ISSUERS
from fednode.node.jobs import spread
from fednode.sync import wire
from fednode.sync.errors import PeerError, Unavailable, busy
from fednode.sync.wire_where import Whereabouts

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.engine import Engine
    from fednode.node.store import Store
    from fednode.node.writer import Writer

log = logging.getLogger("fednode.whereabouts")
ROUNDS = 3  # in which no address of the parent answered
FIRST_S, MAX_S = 5.0, 600.0  # between one question and the next
SPREAD_PERCENT = 50
ANSWERS_MAX, HOUR_MS = 40, 3_600_000


def issuers(app: App, store: Store) -> tuple[str, ...]:
    """Where this node dials its own parent, for its children. `store`: of the thread that asks."""
    return app.parent_addresses(store)[: wire.ADDRESSES_MAX]


def of_myself(app: App) -> tuple[str, ...]:
    """Where this node can be dialled, and who may take its place, for its parent."""
    own = app.exchange_addresses() if _dialled(app) else ()
    return (*own, *admission.places(app.store, app.trust, ""))[: wire.ADDRESSES_MAX]


def _dialled(app: App) -> bool:
    return app.serves or bool(app.trust.me.stands_for)


# ---------------------------------------------------------------- whoever asks


class Asking:
    """When to ask: pure. `seconds`: a clock that never jumps; `rng`: random bytes."""

    def __init__(self, seconds: Callable[[], float], rng: Callable[[int], bytes]) -> None:
        self._seconds, self._rng = seconds, rng
        self._rounds = self._asked = 0
        self._next_s = 0.0

    def reached(self) -> None:
        """The parent answers: all begins anew."""
        self._rounds = self._asked = 0
        self._next_s = 0.0

    def failed(self) -> bool:
        """No address of the parent has answered, once more. Whether it is time to ask."""
        self._rounds += 1
        if self._rounds < ROUNDS or self._seconds() < self._next_s:
            return False
        wait_s = min(FIRST_S * 2 ** min(self._asked, 16), MAX_S)
        self._next_s = self._seconds() + spread(wait_s, SPREAD_PERCENT, self._rng)
        self._asked += 1
        return True


async def ask(engine: Engine) -> tuple[str, ...]:
    """Ask the node above the parent where that is now, and keep what it says. The addresses that are news; none where
    nobody is above it, nobody answers, or there is nothing new."""
    from fednode.node import carrier

    app, trust = engine.app, engine.app.trust
    parent = trust.parent
    above = trust.directory.get(trust.directory.parent_of(parent.node)) if parent is not None else None
    if parent is None or above is None:
        return ()
    for address in json_list(engine.store.meta(ISSUERS)):
        try:
            app.check_tls_clock()
            told = await carrier.where(address, app.credentials(), above.dns, parent.node)
            _take(app, parent, told)
        except FednodeError as error:
            log.info("not told where the parent is", extra={"by": above.node, "code": error.code, "address": address})
            continue
        known = app.parent_addresses(engine.store)
        new = tuple(one for one in told.addresses if is_address(one) and one not in known)
        await engine.writer.call(partial(_keep, app, by=above.node, new=new))
        return new
    return ()


def _take(app: App, parent: Identity, told: Whereabouts) -> None:
    """The parent's certificates in force, as if it had greeted with them. Raises IntegrityError, PeerError FN-5510
    (another's), FN-5513 (an earlier life: who tells it has not heard of the one that is known here)."""
    shown = certs.check_chain(told.chain, app.trust.root_sha256)[0]
    if (shown.node, shown.issuer) != (parent.node, parent.issuer):
        raise PeerError("FN-5510", node=parent.node, certificate=shown.node)
    if shown.incarnation < parent.incarnation:
        raise PeerError("FN-5513", node=parent.node, theirs=shown.incarnation, ours=parent.incarnation)
    app.trust.hear(told.chain[-2::-1])


def _keep(app: App, writer: Writer, by: str, new: tuple[str, ...]) -> None:
    with writer.store.write() as tx:
        app.trust.keep_heard(tx)
        if new:
            known = json_list(writer.store.meta(FOUND))
            note_addresses(tx, FOUND, tuple(dict.fromkeys((*new, *known)))[: wire.ADDRESSES_MAX])
    if new:
        app.journal(writer).befell("parent.told", peer=by, addresses=", ".join(new))


# ---------------------------------------------------------------- whoever is asked


class Watch:
    """A daemon's: tells its neighbours, and answers who asks. `clock_ms`: a clock that never jumps."""

    def __init__(self, engine: Engine, clock_ms: Callable[[], int]) -> None:
        self._engine, self._clock_ms = engine, clock_ms
        self._own: tuple[str, ...] = ()  # as looked up last
        self._standbys: tuple[str, ...] = ()  # as the parent was told
        self._given: dict[str, int] = {}  # answers since `_since_ms`; whoever is counted is in the directory
        self._since_ms = 0

    async def look_up(self) -> None:
        """Before the parent is dialled: a machine's name may take a while, so it is done in another thread; and who has
        connected greets at once, else what a busy parent says instead of an answer is lost."""
        app = self._engine.app
        self._own = await asyncio.to_thread(app.exchange_addresses) if _dialled(app) else ()

    def to_parent(self) -> tuple[str, ...]:
        """For a greeting."""
        self._standbys = admission.places(self._engine.store, self._engine.app.trust, "")
        return (*self._own, *self._standbys)[: wire.ADDRESSES_MAX]

    def look(self) -> None:
        """Every second or so: who is connected hears what has changed."""
        app, sessions = self._engine.app, [one for one in self._engine.sessions if one.link is not None]
        if not sessions:
            return
        store = self._engine.store
        standbys, above = admission.places(store, app.trust, ""), issuers(app, store)
        own = {one.node for one in app.trust.directory.standbys_of(app.trust.node)}
        for session in sessions:
            if not session.exchange.dials:
                there = session.shown in own
                others = admission.places(store, app.trust, session.shown) if there else standbys
                session.tell_places(others, above)
            elif standbys != self._standbys and not session.errand:
                session.end(None)

    def answer(self, asker: Identity, node: str) -> Whereabouts:
        """Answer a WhereRequest. `asker`: as TLS has verified it. Raises PeerError FN-5512 (not known here), FN-5126
        (rule 3), FN-5511 (revoked), FN-5130, FN-5131; Unavailable FN-4512 (another has taken this node's place),
        FN-4508 (enough for now)."""
        app, trust = self._engine.app, self._engine.app.trust
        directory, known = trust.directory, trust.directory.get(asker.node)
        if known is None or (known.domain, known.sign_key) != (asker.domain, asker.sign_key):
            raise PeerError("FN-5512", node=asker.node)
        if directory.parent_of(asker.node) != node or directory.parent_of(node) != trust.node:
            raise PeerError("FN-5126", node=asker.node, me=trust.node)
        for one in (asker.node, node):
            if directory.is_revoked(one):
                raise PeerError("FN-5511", node=one)
        if fence.superseded(self._engine.store):
            raise Unavailable("FN-4512", node=trust.node)
        self._count(asker.node)
        app.judge().check((known,))
        return Whereabouts(directory.chain(node), tuple(json_list(self._engine.store.meta(REACHED_AT + node))))

    def _count(self, node: str) -> None:
        now_ms = self._clock_ms()
        if now_ms - self._since_ms >= HOUR_MS:
            self._since_ms, self._given = now_ms, {}
        given = self._given.get(node, 0)
        if given >= ANSWERS_MAX:
            raise busy(self._since_ms + HOUR_MS - now_ms)
        self._given[node] = given + 1
