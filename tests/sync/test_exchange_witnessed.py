"""What witnesses above have signed: to whom it is told, when, how much of it at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fednode.sync import side, wire
from fednode.sync.effects import Learn, PullWitnessed
from fednode.sync.exchange import Exchange
from fednode.sync.frames import Cosignature, Witnessed, WitnessedHead
from fednode.sync.versions import Versions
from sides import NOW, Side, broken, item, pair, settle

VECTORS = Path(__file__).parent / "vectors"
LOG = "hebei/130102001001/1/shop"


def told(upto: int, *sizes: int, by: tuple[str, ...] = ("130102",), log: str = LOG) -> Witnessed:
    given = tuple(Cosignature(1_780_000_000 + n, bytes((n,)) * 64, one) for n, one in enumerate(by))
    return Witnessed(upto, tuple(WitnessedHead(log, size, given) for size in sizes))


def both(*to_tell: tuple[Witnessed, bool], down: Any = (), **child: Any) -> tuple[Side, Side]:
    """A child that takes it, and its parent, settled."""
    sides = pair(down=down, child={"witnessed": 0, **child}, parent={"to_tell": to_tell, "told": 0})
    settle(*sides)
    return sides


def later(parent: Side, child: Side, after_ms: int) -> None:
    parent.now_ms = child.now_ms = NOW + after_ms
    for one in (child, parent):
        one.do(one.exchange.receive(wire.encode(one.exchange._received_number + 1, wire.Beat(1)), one.now_ms))
        one.other.exchange._sent_number += 1
    parent.do(parent.exchange.tick(parent.now_ms))
    settle(child, parent)


# ---------------------------------------------------------------- to whom


def test_a_child_that_takes_it_is_told_after_all_else_and_before_the_first_idle() -> None:
    child, parent = both((told(7, 3), False), down=[item(1), item(2)])
    kinds = [type(one) for one in parent.sent]
    assert kinds.index(wire.Witnessed) == kinds.index(wire.Idle) - 1
    assert kinds.index(wire.Witnessed) > max(n for n, kind in enumerate(kinds) if kind is wire.Chunk)
    assert child.learning == [told(7, 3)]


@pytest.mark.parametrize("how", ["does not say it", "is of version 1"])
def test_a_peer_that_does_not_know_it_is_told_nothing(how: str) -> None:
    """N talks with N-1: an older child never says `Hello.witnessed`, and what it ignores would cost it credit."""
    if how == "is of version 1":
        old = {"speaks": Versions(1, 1), "version_max": 1}
        sides = pair(child=old, parent={"to_tell": [(told(7, 3), True)], "told": 0})
    else:
        sides = pair(parent={"to_tell": [(told(7, 3), True)], "told": None})
    settle(*sides)
    sides[1].do(sides[1].exchange.tick(NOW + 5_000))
    settle(*sides)
    assert not sides[1].of(PullWitnessed)
    assert not sides[1].messages(Witnessed)
    assert sides[1].messages(wire.Idle)


def test_a_child_tells_its_parent_nothing() -> None:
    _child, parent = both()
    frame = wire.encode(parent.exchange._received_number + 1, told(1, 1))
    parent.do(parent.exchange.receive(frame, NOW))
    broken(parent, "FN-5504")


# ---------------------------------------------------------------- when


def test_what_waits_already_goes_at_once_in_as_many_frames_as_it_needs() -> None:
    child, parent = both((told(5, 1), False), (told(9, 2), False), (told(12, 3), True))
    assert [one.upto for one in child.learning] == [5, 9, 12]
    assert len(parent.messages(wire.Idle)) == 1


def test_what_comes_later_waits_for_the_highest_and_no_longer_than_a_minute() -> None:
    child, parent = both()
    parent.to_tell = [(told(3, 1), False)]
    later(parent, child, 5_000)
    later(parent, child, 10_000)
    assert not child.learning
    parent.to_tell = [(told(4, 1, by=("130102", "1301", "13")), True)]
    later(parent, child, 15_000)
    assert [one.upto for one in child.learning] == [4]
    parent.to_tell = [(told(6, 2), False)]
    later(parent, child, 20_000)
    later(parent, child, 20_000 + side.TELL_MS - 1)
    assert [one.upto for one in child.learning] == [4]
    later(parent, child, 20_000 + side.TELL_MS)
    assert [one.upto for one in child.learning] == [4, 6]


def test_a_log_that_grows_all_the_time_is_one_frame_a_tick() -> None:
    """However many changes there are: the newest stands for all."""
    child, parent = both()
    for n in range(1, 50):
        parent.to_tell = [(told(n, n), True)]
    later(parent, child, 5_000)
    assert [one.upto for one in child.learning] == [49]


def test_nothing_is_told_in_the_middle_of_a_backlog() -> None:
    child, parent = pair(
        down=[item(n, 700_000) for n in range(1, 9)],
        child={"witnessed": 0, "window": 1_000_000},
        parent={"to_tell": [(told(7, 3), True)], "told": 0},
    )
    settle(child, parent, commits=False)
    parent.do(parent.exchange.tick(NOW + 5_000))
    settle(child, parent, commits=False)
    assert not parent.of(PullWitnessed)
    settle(child, parent)
    assert [one.upto for one in child.learning] == [7]


def test_what_is_for_another_child_moves_the_place_and_no_byte() -> None:
    child, parent = both((Witnessed(40), True))
    before = len(parent.sent)
    parent.to_tell = []
    later(parent, child, 5_000)
    assert parent.of(PullWitnessed)[-1].after == 40
    assert not [one for one in parent.sent[before:] if isinstance(one, Witnessed)]


def test_it_costs_credit_which_comes_back_when_it_was_stored() -> None:
    many = [told(n, *range(1, 400)) for n in range(1, 40)]
    child, parent = pair(
        child={"witnessed": 0, "window": 200_000}, parent={"to_tell": [(one, True) for one in many], "told": 0}
    )
    settle(child, parent)
    first = len(child.learning)
    assert 1 <= first < len(many)
    assert sum(one.cost for one in child.learning) < 200_000 + wire.CHUNK_BYTES_MAX
    done = 0
    while done < len(child.learning):
        for one in child.learning[done:]:
            done += 1
            child.do(child.exchange.learnt(one, NOW))
        settle(child, parent)
    assert child.learning == many


def test_more_than_the_credit_ends_the_session() -> None:
    child, _parent = both(window=1_000)
    one = told(1, *range(1, 500))
    number = child.exchange._received_number
    for n in (1, 2):
        child.do(child.exchange.receive(wire.encode(number + n, one), NOW))
    broken(child, "FN-5506")


def test_one_exchange_by_hand_ends_when_it_is_stored() -> None:
    child, parent = both((told(7, 3), False), once=True)
    assert child.closed is None
    child.do(child.exchange.learnt(child.learning[0], NOW))
    settle(child, parent)
    assert child.closed is not None
    assert child.closed.error is None
    assert child.of(Learn) == [Learn(told(7, 3))]


# ---------------------------------------------------------------- bytes


def test_its_bytes_are_as_ever() -> None:
    want = json.loads((VECTORS / "witnessed.json").read_text("utf-8"))
    frame = bytes.fromhex(want["frame"])
    message = told(9, 3, 8, by=("130102", "13"))
    assert wire.encode(7, message) == frame
    assert wire.decode(frame) == (7, message)
    greeting = bytes.fromhex(want["hello"])
    assert wire.encode(1, wire.Hello("1301", (), NOW, bytes(16), witnessed=300)) == greeting
    assert isinstance(wire.decode(greeting)[1], wire.Hello)
    without = wire.encode(1, wire.Hello("1301", (), NOW, bytes(16)))
    assert without == bytes.fromhex(want["hello_without"])


def test_the_engine_asks_nothing_of_a_side_that_is_not_open() -> None:
    assert Exchange(dials=False).tell(told(1, 1), True, NOW) == []
