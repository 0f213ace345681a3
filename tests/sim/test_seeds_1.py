"""Seeds of the simulator: the odd ones. In two files, so that two workers share them."""

from __future__ import annotations

import pytest

from sim.story import run

FAST = range(1, 10, 2)
REST = range(1 + 10, 50, 2)


@pytest.mark.sim
@pytest.mark.parametrize("seed", FAST)
def test_a_seed_holds(seed: int) -> None:
    run(seed)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("seed", REST)
def test_many_seeds_hold(seed: int) -> None:
    run(seed, light=True)  # the same story (test_simulator.py), sooner
