"""Seeds of the simulator in which primaries fail, and their standbys are promoted."""

from __future__ import annotations

import pytest

from fednode.node.ackgate import AckGate
from sim.story import run

FAST = (0, 21)  # with sticks, rollbacks and villages' clocks; more succeed one another in test_promoting_small


@pytest.mark.sim
@pytest.mark.parametrize("seed", FAST)
def test_a_seed_holds_while_nodes_are_succeeded(seed: int) -> None:
    run(seed, promoting=True)


@pytest.mark.sim
def test_it_finds_an_acknowledgement_that_no_standby_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AckGate, "may", lambda _gate, _upto: lambda _at: True)
    with pytest.raises(AssertionError, match=r"its standbys hold \[0\]"):
        run(0, promoting=True)
