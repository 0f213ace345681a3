"""Which message is legal when, and what a lost, repeated or early frame does."""

from __future__ import annotations

import hashlib
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.sync import exchange as ex
from fednode.sync import side as side_of
from fednode.sync import wire
from fednode.sync.effects import (
    Admission,
    Again,
    Alert,
    Commit,
    Done,
    Pull,
)
from fednode.sync.errors import PeerError, Unavailable
from fednode.sync.exchange import Exchange
from fednode.sync.inbox import HOLES_MAX
from fednode.sync.side import AGAIN_BYTES_MAX, WANTS_MAX
from fednode.sync.states import State
from sides import NOW, Side, broken, hello, item, late, pair, settle

# ---------------------------------------------------------------- what is not legal

MESSAGES: dict[type, Any] = {
    wire.Hello: hello("x"),
    wire.Chunk: wire.Chunk(1, 0, b"x", 1, hashlib.sha256(b"x").digest()),
    wire.Ack: wire.Ack((wire.Outcome(1),)),
    wire.Credit: wire.Credit(1),
    wire.Idle: wire.Idle(1),
    wire.Beat: wire.Beat(1),
    wire.Bye: wire.Bye(),
    wire.Want: wire.Want("log", 1),
    wire.Missing: wire.Missing("log", 1),
    wire.Renew: wire.Renew(b"r"),
    wire.Renewed: wire.Renewed((b"c",)),
    wire.Fenced: wire.Fenced("FN-6422", ("note",)),
    wire.Late: wire.Late(1, "log", 1, bytes(32), wire.Cosignature(1, bytes(64))),
    wire.Witnessed: wire.Witnessed(1),
    wire.Holdings: wire.Holdings((), True),
    wire.Health: wire.Health(wire.HealthPlace(1, 1)),
}
LEGAL: dict[tuple[bool, State], set[type]] = {
    (False, State.NEW): {wire.Hello, wire.Bye},
    (True, State.GREETING): {wire.Hello, wire.Bye},
    (False, State.ADMITTING): {wire.Bye, wire.Beat},
    (False, State.OPEN): set(MESSAGES) - {wire.Hello, wire.Renewed, wire.Witnessed, wire.Holdings},
    (True, State.OPEN): set(MESSAGES) - {wire.Hello, wire.Renew, wire.Holdings, wire.Health},
}


def side_in(dials: bool, state: State) -> tuple[Side, int]:
    """A side in a state, and the number of the next frame that it expects."""
    child, parent = pair()
    if state in (State.NEW, State.GREETING):
        return (child if dials else parent), 1
    if state is State.ADMITTING:
        parent.hold_admission = True
        parent.read()
        return parent, 2
    settle(child, parent)
    side = child if dials else parent
    return side, side.exchange._received_number + 1


@pytest.mark.parametrize("kind", list(MESSAGES), ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(("dials", "state"), list(LEGAL), ids=lambda value: getattr(value, "value", str(value)))
def test_what_is_legal_when(dials: bool, state: State, kind: type) -> None:
    assert set(MESSAGES) == set(get_args(wire.Message))
    side, number = side_in(dials, state)
    assert side.exchange.state is state
    side.do(side.exchange.receive(wire.encode(number, MESSAGES[kind]), NOW))
    if kind in LEGAL[dials, state]:
        assert side.of(Alert) == ([Alert("FN-6412", {"log": "log", "first": 1})] if kind is wire.Missing else [])
        assert side.closed is None or kind is wire.Bye
        return
    broken(side, "FN-5504")
    assert side.of(Alert) == [Alert("FN-5504", {"state": state.value, "message": kind.__name__})]


@pytest.mark.parametrize("kind", list(MESSAGES), ids=lambda kind: kind.__name__)
def test_after_the_end_nothing_matters(kind: type) -> None:
    child, parent = pair()
    settle(child, parent)
    child.do(child.exchange.finish(NOW))
    before = len(child.happened)
    for number in range(1, 6):
        child.do(child.exchange.receive(wire.encode(number, MESSAGES[kind]), NOW))
    child.do(child.exchange.wake(NOW))
    child.do(child.exchange.feed([item(1)], True, NOW))
    child.do(child.exchange.committed([Done(1)], NOW))
    child.do(child.exchange.resend("log", 1, [], NOW))
    child.do(child.exchange.finish(NOW))
    child.do(child.exchange.tick(NOW + 10**6))
    assert len(child.happened) == before


def test_the_driver_may_not_confuse_the_steps() -> None:
    child, parent = pair()
    with pytest.raises(RuntimeError, match="start"):
        child.exchange.start(NOW)
    with pytest.raises(RuntimeError, match="admitted"):
        parent.exchange.admitted(Admission(0), NOW)
    with pytest.raises(RuntimeError, match="start"):
        Exchange(dials=True).start(NOW)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.binary(max_size=200), st.sampled_from(sorted(LEGAL, key=str)))
def test_garbage_ends_the_session_and_nothing_else(data: bytes, where: tuple[bool, State]) -> None:
    side, _ = side_in(*where)
    side.do(side.exchange.receive(data, NOW))
    if side.closed is not None and side.closed.error is not None:
        assert isinstance(side.closed.error, PeerError | Unavailable)


@pytest.mark.parametrize(("low", "high", "fine"), [(1, 1, True), (0, 9, True), (2, 3, True), (0, 0, False)])
def test_protocol_versions_must_meet(low: int, high: int, fine: bool) -> None:
    _, parent = pair()
    parent.hold_admission = True
    parent.do(parent.exchange.receive(wire.encode(1, hello("1301", version_min=low, version_max=high)), NOW))
    if fine:
        assert parent.exchange.state is State.ADMITTING
    else:
        broken(parent, "FN-5505")


def test_a_newer_peer_hears_the_code_that_every_version_knows() -> None:
    _, parent = pair()
    parent.do(parent.exchange.receive(wire.encode(1, hello("1301", version_min=3, version_max=4)), NOW))
    assert parent.closed is not None
    assert parent.closed.error is not None
    assert parent.closed.error.code == "FN-5518"  # type: ignore[attr-defined]
    assert parent.sent[-1].code == "FN-5505"  # type: ignore[union-attr]


# ---------------------------------------------------------------- frames lost, repeated, early


def test_a_repeated_frame_is_ignored() -> None:
    child, parent = pair([item(1), item(2)])
    while parent.inbox or child.inbox:
        for side in (child, parent):
            if side.inbox:
                side.inbox.insert(1, side.inbox[0])
                side.read()
                side.read()
    assert [one.lsn for one in parent.commits] == [1, 2]
    assert parent.closed is None


def test_an_old_frame_is_ignored() -> None:
    child, parent = pair([item(1)])
    greeting = parent.inbox[0]
    settle(child, parent)
    before = len(parent.happened)
    parent.do(parent.exchange.receive(greeting, NOW))
    assert len(parent.happened) == before


def test_a_lost_frame_ends_the_session() -> None:
    child, parent = pair([item(1), item(2), item(3)])
    parent.read()
    child.read()
    settle_once = [parent.inbox.popleft() for _ in range(2)]
    assert settle_once
    parent.read()
    assert parent.closed is not None
    assert isinstance(parent.closed.error, Unavailable)
    broken(parent, "FN-4503")
    assert parent.commits == []


def test_what_comes_while_the_child_admits_is_kept_in_order() -> None:
    child, parent = pair([], [item(1), item(2)])
    child.hold_admission = True
    parent.read()
    while child.inbox:
        child.read()
    assert (child.exchange.state, child.of(Commit)) == (State.ADMITTING, [])
    child.admit()
    assert [one.lsn for one in child.of(Commit)] == [1, 2]
    assert child.exchange.state is State.OPEN
    settle(child, parent)
    assert sorted(child.held) == [1, 2]


def test_what_comes_early_is_bounded() -> None:
    child, parent = pair()
    child.hold_admission = True
    parent.read()
    child.read()
    frame = wire.encode(2, wire.Chunk(1, 0, bytes(wire.CHUNK_BYTES_MAX), 10**6, bytes(32)))
    for _ in range(ex.EARLY_BYTES_MAX // len(frame)):
        child.do(child.exchange.receive(frame, NOW))
    assert child.closed is None
    child.do(child.exchange.receive(frame, NOW))
    broken(child, "FN-5506")


def test_what_comes_early_is_held_to_the_same_rules() -> None:
    child, parent = pair()
    child.hold_admission = True
    parent.read()
    child.read()
    child.do(child.exchange.receive(wire.encode(2, wire.Renew(b"r")), NOW))
    assert child.closed is None
    child.admit()
    broken(child, "FN-5504")


# ---------------------------------------------------------------- who asks for much


def test_regression_a_few_bytes_that_ask_for_much_do_not_fill_the_memory() -> None:
    """Each Want of 40 bytes had two MiB looked up, and kept until the peer gave credit: it need not."""
    child, parent = pair(down=[item(lsn, 200_000) for lsn in range(1, 11)], child={"window": 0})
    settle(child, parent)
    asked = [wire.Want("hebei/13/1/x", first % 10 + 1) for first in range(2_000)]
    for want in asked:
        number = parent.exchange._received_number + 1
        parent.do(parent.exchange.receive(wire.encode(number, want), NOW))
    outbox = parent.exchange._outbox
    assert outbox.bytes_again < AGAIN_BYTES_MAX + 10 * 200_000
    assert len(parent.exchange._wanted) == 10
    assert parent.closed is None
    assert len(parent.of(Again)) == 3, "2.0, 1.8 and 1.6 MB: then the rest waits"
    for _ in range(12):
        parent.do(parent.exchange.tick(NOW))
    assert len(parent.of(Again)) == 3
    while not outbox.empty:  # with credit all of it goes out, and the rest is looked up in its turn
        number = parent.exchange._received_number + 1
        parent.do(parent.exchange.receive(wire.encode(number, wire.Credit(1 << 20)), NOW))
    assert len(parent.of(Again)) == 13
    assert not parent.exchange._wanted


def test_the_limit_of_what_waits_to_be_looked_up() -> None:
    child, parent = pair(down=[item(1, 200_000)] * 30, child={"window": 0})
    settle(child, parent)

    def want(first: int) -> None:
        number = parent.exchange._received_number + 1
        parent.do(parent.exchange.receive(wire.encode(number, wire.Want("hebei/13/1/x", first)), NOW))

    want(0)
    assert parent.exchange._outbox.bytes_again >= AGAIN_BYTES_MAX
    for first in range(1, WANTS_MAX + 1):
        want(first)
    want(1)  # the same again is no more
    assert parent.closed is None
    want(0)
    broken(parent, "FN-5504")


def test_regression_a_peer_that_never_greets_is_not_waited_for() -> None:
    """It kept one of the 32 places of those who are being let in, for ever."""
    _, parent = pair()
    assert parent.exchange.state is State.NEW
    parent.do(parent.exchange.tick(NOW + ex.GREETING_MS_MAX))
    assert parent.closed is None
    parent.do(parent.exchange.tick(NOW + ex.GREETING_MS_MAX + 1))
    broken(parent, "FN-4502")


def test_regression_what_is_remembered_to_be_asked_for_is_bounded() -> None:
    """Each segment that came too early was remembered until what precedes it came: it need not ever come."""
    child, parent = pair()
    settle(child, parent)
    for lsn in range(1, HOLES_MAX + 3):
        parent.do(parent.exchange.committed([Done(lsn, gap=wire.Want("hebei/1301/1/x", lsn))], NOW))
    assert len(parent.messages(wire.Want)) == len(parent.exchange._inbox._holes) == HOLES_MAX
    assert len(parent.of(Alert)) == 2
    parent.do(parent.exchange.committed([Done(1)], NOW))
    parent.do(parent.exchange.committed([Done(HOLES_MAX + 2, gap=wire.Want("hebei/1301/1/x", 1))], NOW))
    assert len(parent.messages(wire.Want)) == HOLES_MAX + 1


def test_regression_a_peer_that_answers_nothing_does_not_get_the_whole_feed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Late cosignatures cost no credit: what was sent and not answered grew with the feed."""
    for module in (ex, side_of):
        monkeypatch.setattr(module, "UNACKED_MAX", most := 2_000)
    feed = [late(lsn) for lsn in range(1, 2 * most + 11)]
    child, parent = pair(down=[])
    settle(child, parent)
    outbox = parent.exchange._outbox
    asked = 0
    parent.do(parent.exchange.wake(NOW))

    def feed_it() -> None:
        nonlocal asked
        while parent.exchange._pulling or parent.of(Pull)[asked:]:
            asked += 1
            after = outbox.position
            parent.do(parent.exchange.feed(feed[after : after + 100], after + 100 >= len(feed), NOW))

    parent.exchange._drained = False
    parent.pull = lambda _after, _bytes: None  # type: ignore[method-assign]
    asked = len(parent.of(Pull))
    parent.do(parent.exchange._pump(NOW))
    feed_it()
    assert len(outbox.unacked) == most
    number = parent.exchange._received_number
    for first in range(1, most + 1, wire.OUTCOMES_MAX):
        number += 1
        outcomes = tuple(wire.Outcome(lsn) for lsn in range(first, min(first + wire.OUTCOMES_MAX, most + 1)))
        parent.do(parent.exchange.receive(wire.encode(number, wire.Ack(outcomes)), NOW))
        feed_it()
    assert outbox.position > most, "who answers gets the rest"
    assert len(outbox.unacked) <= most + 100


def test_a_session_does_not_end_while_the_peer_waits_for_what_it_wants() -> None:
    child, parent = pair(down=[item(1, 200_000)] * 30, child={"window": 0}, parent={"once": True})
    settle(child, parent)
    for first in (0, 1):
        number = parent.exchange._received_number + 1
        parent.do(parent.exchange.receive(wire.encode(number, wire.Want("hebei/13/1/x", first)), NOW))
    assert parent.exchange._wanted
    assert not parent.exchange.quiet
    assert parent.closed is None
