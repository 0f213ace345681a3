"""What is still to be sent: where a half-sent item goes on."""

from __future__ import annotations

from fednode.sync import wire
from fednode.sync.effects import Item
from fednode.sync.outbox import Outbox

FIRST, SECOND = Item(14, b"a" * 10, digest=b"1" * 32), Item(15, b"b" * 10, digest=b"2" * 32)


def offsets(outbox: Outbox, *items: Item) -> list[tuple[int, int]]:
    outbox.add(items)
    outbox.credit = 1000
    return [(chunk.lsn, chunk.offset) for chunk in outbox.take() if isinstance(chunk, wire.Chunk)]


def test_the_first_item_goes_on_where_the_peer_holds_it() -> None:
    assert offsets(Outbox(partial=wire.Partial(15, SECOND.digest, 4)), SECOND) == [(15, 4)]


def test_an_item_behind_another_starts_again() -> None:
    """Simulator, seeds 14 and 45: the peer had half of 15 and lost 14 before its commit; 14's chunks ended its half."""
    assert offsets(Outbox(partial=wire.Partial(15, SECOND.digest, 4)), FIRST, SECOND) == [(14, 0), (15, 0)]


def test_what_is_sent_again_starts_again() -> None:
    outbox = Outbox(partial=wire.Partial(15, SECOND.digest, 4))
    assert offsets(outbox, SECOND) == [(15, 4)]
    outbox.add_again([SECOND])
    assert [chunk.offset for chunk in outbox.take() if isinstance(chunk, wire.Chunk)] == [0]


def test_regression_what_is_urgent_after_a_cut_does_not_end_what_the_peer_holds_half() -> None:
    """An alert that was raised while the line was cut went first, and 50 of 55 kB went over a village's line twice."""
    outbox = Outbox(partial=wire.Partial(15, SECOND.digest, 4))
    urgent = Item(16, b"c" * 10, digest=b"3" * 32)
    outbox.add([SECOND])
    outbox.add_ahead([urgent])
    assert offsets(outbox, urgent) == [(15, 4), (16, 0), (16, 0)]


def test_what_must_be_sent_again_goes_before_what_the_peer_holds_half() -> None:
    """The peer cannot take the half item without it."""
    outbox = Outbox(partial=wire.Partial(15, SECOND.digest, 4))
    outbox.add_again([FIRST])
    assert offsets(outbox, SECOND) == [(14, 0), (15, 0)]
