"""What of acknowledgements that wait for a standby is told to children (node/acks.py), with a store and no daemon."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

from chain import TOWNSHIP, VILLAGE, WORLD, Chain, Node
from fednode.node import admission
from fednode.node.acks import Acks
from fednode.node.config import Config
from fednode.node.link import Link
from fednode.node.writer import Writer
from fednode.sync import effects as fx
from parties import NOW_MS, meet, settle
from world import shop


def acks_of(node: Node) -> Acks:
    """As its daemon has them, with `ack = "standby"`."""

    async def call(job: Callable[[Writer], object]) -> object:
        return job(node.writer)

    app = SimpleNamespace(config=Config(ack="standby"), trust=node.trust, keys=node.keys, now_ms=lambda: node.now_ms)
    engine: Any = SimpleNamespace(
        app=app, store=node.store, writer=SimpleNamespace(call=call), clock_ms=lambda: node.now_ms
    )
    return Acks(engine)


class Talk:
    """A session, as `Acks` sees it: who it is with, and what was told."""

    def __init__(self, peer: Any, link: Link | None = None) -> None:
        self.peer, self.link = peer, link
        self.told: list[fx.Done] = []
        self.answer, self.spawn = self.told.extend, run


def run(work: Coroutine[Any, Any, Any]) -> None:
    """At once: it waits for nothing."""
    with suppress(StopIteration):
        work.send(None)


def test_regression_what_is_refused_in_a_session_is_never_told_to_be_held(chain: Chain) -> None:
    """Simulator, promoting, small, seed 580: a county waited for its standby; what a village had not heard of when its
    session began was told at last, up to the newest that had come since, which had been refused."""
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    village.write(shop("a", VILLAGE))
    child, parent = meet(village, township)
    child.take_acks = lambda _outcomes: None  # cut off
    settle(child, parent)
    greeting = admission.hello(village.trust, village.store, NOW_MS, "", village.store.peer(TOWNSHIP), None)
    acks, identity = acks_of(township), WORLD.identity(VILLAGE)
    entry = admission.enter(
        township.writer, identity, greeting, False, NOW_MS, "", may=acks.may(identity, from_parent=False)
    )
    session: Any = Talk(identity, entry.link)
    acks.begun(session, entry.owed)
    village.write(shop("b", VILLAGE))
    (_, second), _ = village.store.feed_up(0, 1 << 20)
    broken = second.data[:-1] + bytes([second.data[-1] ^ 1])
    reports = [done for _, done in township.writer.incoming([(entry.link, fx.Commit(second.lsn, broken))])]
    assert acks.take(session, reports) == []
    standby: Any = Talk(SimpleNamespace(node=f"{TOWNSHIP}-s1", stands_for=TOWNSHIP))
    acks.heard(standby, fx.Acked((), township.store.lsn))
    assert [(one.lsn, one.refused) for one in session.told] == [(1, ""), (2, "FN-6406")]
