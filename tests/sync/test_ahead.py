"""What goes ahead of its turn: nothing is lost, a log keeps its order, no cursor moves past what is not there."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.sync import wire
from fednode.sync.effects import Done, Hurry, Item
from fednode.sync.exchange import Exchange
from fednode.sync.outbox import TWICE_BYTES_MAX, Outbox
from fednode.sync.side import HURRY_FROM_BYTES
from fednode.sync.versions import Versions
from sides import NOW, Side, hello, item, join, pair, settle


@dataclass(frozen=True)
class Piece:
    """A segment of a feed: its place there, its log, its place in that, whether it is urgent."""

    lsn: int
    log: str
    seq: int
    urgent: bool
    size: int

    @property
    def item(self) -> Item:
        data = bytes([self.lsn % 251]) * self.size
        return Item(self.lsn, data, digest=hashlib.sha256(self.lsn.to_bytes(4, "big") + data).digest())


@dataclass
class Receiver:
    """The other side as its writer keeps the books: logs in order, a cursor that moves with what comes in its turn."""

    pieces: dict[int, Piece]
    sizes: dict[str, int] = field(default_factory=dict)
    stored: list[int] = field(default_factory=list)
    have: int = 0

    def take(self, chunk: wire.Chunk) -> bool:
        """One whole item; whether it is answered."""
        piece = self.pieces[chunk.lsn]
        size = self.sizes.get(piece.log, 0)
        assert piece.seq <= size, f"{piece} came before {piece.log} {size}"  # a log keeps its order: no gap, ever
        if piece.seq == size:
            self.sizes[piece.log] = size + 1
            self.stored.append(piece.lsn)
        if not chunk.ahead:
            self.have = max(self.have, chunk.lsn)
            missing = [one for one in self.pieces if one <= self.have and one not in self.stored]
            assert not missing, f"the cursor is at {self.have}, and {missing} are not there"
        return True


def urgent(pieces: list[Piece], after: int, beyond: int) -> tuple[list[Item], int]:
    """What node/urgent finds in a store."""
    chosen: set[int] = set()
    seen = max(after, beyond)
    for piece in pieces:
        if piece.urgent and piece.lsn > seen:
            chosen |= {one.lsn for one in pieces if one.log == piece.log and after < one.lsn <= piece.lsn}
            seen = piece.lsn
    return [piece.item for piece in pieces if piece.lsn in chosen], seen


URGENT = st.integers(0, 3).map(lambda n: n == 0)
SIZES = st.sampled_from([10, 900, TWICE_BYTES_MAX, TWICE_BYTES_MAX + 1, 9_000])
MADE = st.lists(st.tuples(st.sampled_from("ab"), URGENT, SIZES), min_size=6, max_size=40)
STEPS = st.lists(
    st.tuples(st.sampled_from(["grow", "grow", "send", "ack", "hurry", "feed", "feed", "cut"]), st.integers(0, 6)),
    min_size=8,
)


def feed_of(made: list[Any]) -> list[Piece]:
    sizes: dict[str, int] = {}
    pieces = []
    for lsn, (log, is_urgent, size) in enumerate(made, 1):
        pieces.append(Piece(lsn, log, sizes.get(log, 0), is_urgent, size))
        sizes[log] = sizes.get(log, 0) + 1
    return pieces


@settings(max_examples=400, deadline=None)
@given(MADE, STEPS)
def test_whatever_happens_nothing_is_lost_and_every_log_keeps_its_order(made: list[Any], steps: list[Any]) -> None:
    pieces = feed_of(made)
    receiver = Receiver({piece.lsn: piece for piece in pieces})
    outbox, beyond, grown, unanswered = Outbox(), 0, 1, []  # type: ignore[var-annotated]

    def send(count: int) -> None:
        for _ in range(count):
            outbox.room, outbox.chunk_bytes, outbox.credit = 1, 1 << 20, 1 << 20
            for chunk in outbox.take():
                assert isinstance(chunk, wire.Chunk)
                if receiver.take(chunk):
                    unanswered.append(chunk.lsn)

    def ack() -> None:
        upto = outbox.answered(unanswered)
        unanswered.clear()
        assert all(one.lsn in receiver.stored for one in pieces if one.lsn <= upto)

    for what, number in [*steps, *[("cut", 0), ("grow", 100), ("feed", 100), ("hurry", 0), ("send", 300), ("ack", 0)]]:
        known = pieces[:grown]
        if what == "grow":
            grown += number
        elif what == "feed":
            outbox.add([one.item for one in known if one.lsn > outbox.position][:number])
        elif what == "hurry" and not outbox.hurrying:
            items, beyond = urgent(known, outbox.sent, beyond)
            outbox.add_ahead(items)
        elif what == "send":
            send(number)
        elif what == "ack":
            ack()
        elif what == "cut":  # what was not answered is not known to be there
            outbox, beyond = Outbox(position=receiver.have), 0
            unanswered.clear()
    assert outbox.empty
    assert sorted(receiver.stored) == [piece.lsn for piece in pieces]
    assert outbox.answered([]) == outbox.position == len(pieces) or receiver.have == len(pieces)
    assert outbox.unacked == set()
    assert outbox.bytes_waiting == 0


def order(outbox: Outbox) -> list[tuple[int, bool]]:
    outbox.credit = outbox.room = 1 << 40
    return [(chunk.lsn, chunk.ahead) for chunk in outbox.take() if isinstance(chunk, wire.Chunk) and chunk.total]


def test_what_is_urgent_goes_before_the_feed_and_comes_again_in_its_turn() -> None:
    outbox = Outbox()
    outbox.add([item(n) for n in range(1, 5)])
    outbox.add_ahead([item(4)])
    outbox.add_ahead([item(4)])  # once is enough
    assert order(outbox) == [(4, True), (1, False), (2, False), (3, False), (4, False)]


def test_never_into_the_middle_of_an_item_and_what_is_asked_for_again_first() -> None:
    outbox = Outbox(credit=100)
    outbox.add([item(1), item(2)])
    assert [chunk.lsn for chunk in outbox.take() if isinstance(chunk, wire.Chunk)] == [1]
    outbox.add_ahead([item(2)])
    outbox.add_again([item(1)])
    outbox.credit = 1 << 30
    sent = [(chunk.lsn, chunk.offset, chunk.ahead) for chunk in outbox.take() if isinstance(chunk, wire.Chunk)]
    assert sent == [(1, 100, False), (1, 0, False), (2, 0, True), (2, 0, False)]


@pytest.mark.parametrize(("size", "again"), [(TWICE_BYTES_MAX, True), (TWICE_BYTES_MAX + 1, False)])
def test_what_is_large_and_answered_is_not_sent_twice(size: int, again: bool) -> None:
    outbox = Outbox()
    outbox.add([item(1)])
    outbox.add_ahead([item(2, size)])
    assert order(outbox) == [(2, True), (1, False)]
    assert outbox.answered([2]) == 0  # it moves no cursor
    outbox.add([item(2, size), item(3)])
    assert order(outbox) == ([(2, False)] if again else []) + [(3, False)]
    assert outbox.answered([1, *([2] if again else []), 3]) == 3
    assert outbox.unacked == set()


def test_a_half_that_the_peer_holds_goes_on_when_it_is_sent_first_though_it_is_not_first_in_the_feed() -> None:
    urgent_one = item(2)
    outbox = Outbox(partial=wire.Partial(2, urgent_one.digest, 300))
    outbox.add([item(1)])
    outbox.add_ahead([urgent_one])
    outbox.credit = 1 << 30
    assert [(chunk.lsn, chunk.offset) for chunk in outbox.take() if isinstance(chunk, wire.Chunk)] == [(2, 300), (1, 0)]


# ---------------------------------------------------------------- through the exchange


def big_feed() -> list[Item]:
    return [item(n, 30_000) for n in range(1, 8)] + [item(8, 200)]


def child(feed: list[Item], **more: Any) -> tuple[Side, Side]:
    """A child with more to say than the line takes, whose driver carries out Hurry."""
    one, other = Side(dials=True, feed=feed, **more), Side(dials=False)
    one.exchange.hurry_from = HURRY_FROM_BYTES
    join(one, other)
    other.do(other.exchange.start(NOW))
    one.do(one.exchange.start(NOW))
    one.do(one.exchange.ready(1, NOW))
    return one, other


def hurry(side: Side, items: list[Item]) -> None:
    asked = side.of(Hurry)[-1]
    found = [one for one in items if one.lsn > asked.after]
    side.do(side.exchange.hurried(found, max((one.lsn for one in found), default=asked.beyond), False, NOW))


def test_an_urgent_segment_overtakes_the_backlog_and_the_ack_does_not_move_the_cursor() -> None:
    feed = big_feed()
    one, other = child(feed)
    while one.inbox or other.inbox:
        for side in (one, other):
            while side.inbox:
                side.read()
    assert one.of(Hurry) == [Hurry(0, 0)]
    assert not one.messages(wire.Chunk)  # nothing goes out before the answer
    hurry(one, feed[-1:])
    settle(one, other)
    assert [(chunk.lsn, chunk.ahead) for chunk in one.messages(wire.Chunk)] == [(8, True)]
    assert [outcome.lsn for outcome in one.acked] == [8]
    assert one.answered == 0
    one.do(one.exchange.ready(1 << 30, NOW))
    settle(one, other)
    assert [chunk.lsn for chunk in one.messages(wire.Chunk) if chunk.total] == [8, *range(1, 9)]
    assert one.answered == 8
    assert other.held == {n.lsn: n.data for n in feed}


def test_what_came_ahead_and_too_early_is_not_asked_for_it_comes_in_its_turn() -> None:
    feed = big_feed()
    one, other = child(feed)
    while one.inbox or other.inbox:
        for side in (one, other):
            while side.inbox:
                side.read()
    hurry(one, feed[-1:])
    while other.inbox:
        other.read()
    other.commits.clear()
    other.do(other.exchange.committed([Done(8, gap=wire.Want("log", 1), ahead=True)], NOW))
    assert not other.messages(wire.Want)
    assert not other.messages(wire.Ack)
    one.do(one.exchange.ready(1 << 30, NOW))
    settle(one, other)
    assert other.held == {n.lsn: n.data for n in feed}
    assert one.answered == 8


def test_a_peer_of_version_one_gets_everything_in_its_turn() -> None:
    """It would take its cursor past what it has not got."""
    one, other = child(big_feed())
    other.exchange = Exchange(dials=False, speaks=Versions(1, 1))
    other.hello = hello("13", version_min=1, version_max=1)
    one.do(one.exchange.ready(1 << 30, NOW))
    settle(one, other)
    assert one.of(Hurry) == []
    assert not any(chunk.ahead for chunk in one.messages(wire.Chunk))
    assert len(other.held) == 8


def test_what_is_to_go_before_all_else_does_however_little_waits() -> None:
    feed = [item(n, 100) for n in range(1, 5)]
    one, other = Side(dials=True, feed=feed), Side(dials=False)
    one.ahead = (feed[2],)
    join(one, other)
    other.do(other.exchange.start(NOW))
    one.do(one.exchange.start(NOW))
    settle(one, other)
    assert [(chunk.lsn, chunk.ahead) for chunk in one.messages(wire.Chunk)][:2] == [(3, True), (1, False)]
    assert one.answered == 4
    assert other.held == {n.lsn: n.data for n in feed}
    older, other = Side(dials=True, feed=feed), Side(dials=False)
    older.ahead = (feed[2],)
    join(older, other)
    other.exchange = Exchange(dials=False, speaks=Versions(1, 1))
    other.hello = hello("13", version_min=1, version_max=1)
    other.do(other.exchange.start(NOW))
    older.do(older.exchange.start(NOW))
    settle(older, other)
    assert [chunk.lsn for chunk in older.messages(wire.Chunk)] == [1, 2, 3, 4]


def test_where_little_waits_nothing_is_hurried() -> None:
    one, other = pair([item(n, 1_000) for n in range(1, 60)])
    one.exchange.hurry_from = HURRY_FROM_BYTES
    settle(one, other)
    assert one.of(Hurry) == []


def test_the_flag_is_one_field_and_absent_where_it_is_not_set() -> None:
    """Golden bytes: an ordinary chunk is what it was before."""
    golden = "08011a2d08071a0361626320032a2000000000000000000000000000000000000000000000000000000000000000003801"
    plain = wire.Chunk(7, 0, b"abc", 3, bytes(32))
    ahead = wire.Chunk(7, 0, b"abc", 3, bytes(32), None, True)
    assert wire.encode(1, ahead).hex() == golden
    assert len(wire.encode(1, ahead)) == len(wire.encode(1, plain)) + 2
    assert wire.decode(wire.encode(1, ahead)) == (1, ahead)
    assert wire.decode(wire.encode(1, plain)) == (1, plain)
