"""One exchange with the parent, by hand: `fednode sync`, and what `fednode recover` asks of the parent.

Rules
1. `sync_now` asks the daemon of this home for it, who may have a session with the parent open (`node.asking`): that
   costs a round trip and a few bytes; a connection of its own costs four, and a whole TLS handshake. Where that is
   nothing, it dials.
2. `sync_once` always dials. It works beside a running daemon, which is told at the end that the store has grown.
3. Nothing is lost when it fails: what could not be sent stays pending, what was half received goes on at the chunk.

>>> # report = asyncio.run(sync_now(app)); report.pending, report.over
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

from fednode.node import admission, asking, carrier, erasing, poke, whereabouts
from fednode.node.asking import SyncReport
from fednode.node.dialer import EARLIER_LIFE
from fednode.node.driver import Report
from fednode.node.engine import Engine, code_of
from fednode.node.follower import follow_what_came
from fednode.node.room import if_room
from fednode.sync import effects as fx
from fednode.sync.errors import PeerError, StoreError, Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App


async def sync_now(app: App) -> SyncReport:
    """One exchange with the parent, now: in the session that the daemon has open with it, or else as `sync_once`."""
    if app.trust.parent is None:
        raise StoreError("FN-7621")
    answer = await asking.ask(app.home.run_dir, app.parent_addresses())
    moved = answer.report if answer is not None else SyncReport()
    if answer is None or answer.outcome != asking.DONE:
        report = await sync_once(app)
        report.add(moved)  # in the daemon's session, before it ended
        report.applied += moved.applied
        return report
    app.trust.refresh(app.store)
    peer = app.store.peer(moved.parent)
    moved.pending = app.store.backlog_up(peer.acked if peer else 0).changes
    _project(app, moved)
    return moved


async def sync_once(app: App, *, up: bool = True, down: bool = True, limit: int | None = None) -> SyncReport:
    """One exchange with the parent, now, whatever the sync windows say. `limit`: bits per second (0: none), where not
    as the settings say. Raises Unavailable (nothing lost; FN-4505: the parent has no room and sent only), PeerError
    (refused by the parent), StoreError.
    """
    async with _engine(app) as (engine, report):
        await _meet(
            engine,
            report,
            lambda stream: engine.converse(
                stream, once=True, address=report.address, feeds=up, wants=down, limit=limit
            ),
        )
        peer = engine.store.peer(report.parent)
        report.pending = engine.store.backlog_up(peer.acked if peer else 0).changes
    _project(app, report)
    poke.poke(app.home.run_dir)
    if up and report.pending and engine.parent_full:
        raise Unavailable(admission.NO_ROOM, reason="FN-7630")
    return report


def _project(app: App, report: SyncReport) -> None:
    projector = app.new_projector()
    try:
        report.applied += follow_what_came(projector)
        with if_room():
            erasing.clean(projector.store, projector)  # there may be no daemon to do it
    finally:
        projector.close()


async def new_life(app: App, life: int) -> None:
    """Ask the parent for a certificate of a new incarnation in the place of `life`, and nothing else. Raises as
    `sync_once` does."""
    await _with_parent(
        app, lambda engine, stream: engine.converse(stream, once=True, feeds=False, wants=False, restoring=life)
    )
    if app.trust.me.incarnation == life:
        raise PeerError("FN-5508", code="FN-5114", detail="Renew")


async def take_back(app: App) -> SyncReport:
    """Take this node's history back from its parent, into the store of `app`. What a cut leaves undone goes on with the
    next call. Raises as `sync_once` does; StoreError FN-7630 where there is no room for it: its parent would give it
    nothing, and it would go on with that."""
    app.room.check()
    return await _with_parent(app, lambda engine, stream: engine.converse(stream, once=True, feeds=False, restoring=0))


async def _with_parent(
    app: App, converse: Callable[[Engine, carrier.Stream], Awaitable[tuple[fx.Close, Report]]]
) -> SyncReport:
    async with _engine(app) as (engine, report):
        await _meet(engine, report, lambda stream: converse(engine, stream))
        if engine.renewal:
            raise PeerError("FN-5508", code=engine.renewal, detail="Renew")
    return report


@contextlib.asynccontextmanager
async def _engine(app: App) -> AsyncIterator[tuple[Engine, SyncReport]]:
    """An engine for one exchange with the parent, and the report of it. Raises StoreError FN-7621 where there is none
    above."""
    parent = app.trust.parent
    if parent is None:
        raise StoreError("FN-7621")
    engine = Engine(app)
    try:
        await engine.where.look_up()
        yield engine, SyncReport(parent=parent.node)
    finally:
        await engine.stop()


Converse = Callable[[carrier.Stream], Awaitable[tuple[fx.Close, Report]]]


async def _meet(engine: Engine, report: SyncReport, converse: Converse) -> None:
    """One exchange with the parent, at the first of its addresses that answers; where none does, the node above it may
    know another."""
    app = engine.app
    try:
        await _dial(app, app.parent_addresses(), report, converse)
    except (Unavailable, PeerError) as error:
        gone = not error.retry_after_ms if isinstance(error, Unavailable) else code_of(error) == EARLIER_LIFE
        found = await whereabouts.ask(engine) if gone else ()
        if not found:
            raise
        await _dial(app, found, report, converse)


async def _dial(app: App, addresses: Sequence[str], report: SyncReport, converse: Converse) -> None:
    last: Exception = Unavailable("FN-4506", parent=report.parent)
    for address in addresses:
        report.address = address
        try:
            app.check_tls_clock()
            close, moved = await carrier.dial(address, app.credentials(), app.parent_dns(), converse)
        except Unavailable as error:
            last = error
            if error.retry_after_ms:
                break
            continue
        report.add(moved)
        if close.error is None:
            return
        last = close.error
        if code_of(close.error) == EARLIER_LIFE:
            continue
        if not isinstance(close.error, Unavailable) or close.error.retry_after_ms:
            break
    raise last
