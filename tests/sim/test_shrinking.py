"""A failing seed is made small."""

from __future__ import annotations

import pytest

from fednode.node.stripping import Stripping
from sim.network import Faults
from sim.shrink import Item, complaint, minimal, shrink
from sim.story import Told, planned, tell


def test_what_does_not_matter_is_left_out() -> None:
    asked: list[frozenset[Item]] = []

    def fails(items: frozenset[Item]) -> bool:
        asked.append(items)
        return {3, 40, "lose"} <= items

    assert minimal(["lose", "cut", *range(60)], fails) == ["lose", 3, 40]
    assert len(asked) < 60


def test_what_fails_without_anything_is_empty() -> None:
    assert minimal([1, 2, 3], lambda _items: True) == []


def test_complaints_of_one_kind_are_one() -> None:
    one = complaint(AssertionError("seed 7: 130102 holds what 1301 erased: hebei/130102/1/latest#3\nreplay: x"))
    other = complaint(AssertionError("seed 9: 13 holds what 130102001 erased: hebei/1/2/field#41"))
    assert one == other == "N holds what N erased: N"
    assert complaint(KeyError("x")) == "KeyError"


@pytest.mark.sim
@pytest.mark.slow
def test_a_planted_bug_is_shrunk_to_what_it_takes_and_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    """What arrives after its erase would be stored as it came."""
    monkeypatch.setattr(Stripping, "due", lambda _self, _log, _first, _end: [])
    told = Told(light=True)
    with pytest.raises(AssertionError, match="erased") as failed:
        tell(1, told)
    words = shrink(1, told, complaint(failed.value), 4)
    replay = words.splitlines()[-1]
    assert replay.startswith("replay: scripts/simulate --seed 1 --light --only ")
    only = frozenset(map(int, replay.split("--only ")[1].split()[0].split(",")))
    without = frozenset(replay.partition("--without ")[2].split(",")) - {""}
    assert without <= set(Faults.kinds())
    assert len(only) < len(planned(1, told))
    with pytest.raises(AssertionError) as again:
        tell(1, Told(light=True, only=only, without=without))
    assert complaint(again.value) == complaint(failed.value)
