"""A session that is sounded: the peer's answer comes behind all that it had sent before."""

from __future__ import annotations

import pytest

from fednode.sync import wire
from fednode.sync.effects import Alert, Sounded
from fednode.sync.side import NOWHERE, SOUNDINGS_MAX
from fednode.sync.versions import SPOKEN
from sides import NOW, Side, item, pair, settle

LOG = "hebei/1301/1/sys.audit"


def sound(side: Side) -> int:
    number, effects = side.exchange.sound(LOG, NOW)
    side.do(effects)
    return number


@pytest.mark.parametrize("version", [SPOKEN.low, SPOKEN.high])
def test_a_peer_of_any_version_answers_and_it_is_no_alert(version: int) -> None:
    child, parent = pair(parent={"version_max": version})
    settle(child, parent)
    number = sound(child)
    assert child.messages(wire.Want) == [wire.Want(LOG, NOWHERE + number, restore=True)]
    assert not child.exchange.echoed(number)
    settle(child, parent)
    assert child.exchange.echoed(number)
    assert child.of(Sounded) == [Sounded()]
    assert child.of(Alert) == parent.of(Alert) == []
    assert child.closed is parent.closed is None


def test_what_was_sent_before_has_come() -> None:
    child, parent = pair()
    settle(child, parent)
    assert child.exchange.heard_out
    parent.items.append(item(1))
    parent.do(parent.exchange.wake(NOW))
    number = sound(child)
    settle(child, parent, commits=False)
    assert child.exchange.echoed(number)
    assert [one.lsn for one in child.commits] == [1]
    assert not child.exchange.heard_out, "it is not stored yet"
    settle(child, parent)
    assert child.exchange.heard_out


def test_what_is_said_and_answered() -> None:
    child, parent = pair()
    settle(child, parent)
    assert child.exchange.answered
    child.items.append(item(1))
    child.do(child.exchange.wake(NOW))
    assert not child.exchange.answered
    settle(child, parent, commits=False)
    assert not child.exchange.answered
    settle(child, parent)
    assert child.exchange.answered


def test_a_peer_that_lacks_credit_may_have_more() -> None:
    child, parent = pair([], [item(1, 3000)], child={"window": 1000, "paced": True})
    settle(child, parent, commits=False)
    assert not child.exchange.heard_out
    assert child.exchange.underway[1] > 0


@pytest.mark.parametrize(("side", "changed"), [("child", "feeds"), ("child", "wants"), ("parent", "wants")])
def test_a_session_of_one_way(side: str, changed: str) -> None:
    child, parent = pair()
    settle(child, parent)
    assert child.exchange.both_ways
    child, parent = pair(**{side: {changed: False}})
    settle(child, parent)
    assert not child.exchange.both_ways


def test_so_many_soundings_and_no_more() -> None:
    child, parent = pair()
    settle(child, parent)
    numbers = [sound(child) for _ in range(SOUNDINGS_MAX)]
    assert numbers == list(range(1, SOUNDINGS_MAX + 1))
    assert sound(child) == 0
    settle(child, parent)
    assert all(child.exchange.echoed(one) for one in numbers)
    assert sound(child) == SOUNDINGS_MAX + 1


def test_none_where_the_session_is_not_open() -> None:
    assert Side(dials=True).exchange.sound(LOG, NOW) == (0, [])


def test_what_is_missing_beyond_what_was_asked_is_an_alert() -> None:
    child, parent = pair()
    settle(child, parent)
    parent.do([parent.exchange._send(wire.Missing(LOG, NOWHERE + 1), NOW)])
    settle(child, parent)
    assert len(child.of(Alert)) == 1
    assert child.of(Sounded) == []
