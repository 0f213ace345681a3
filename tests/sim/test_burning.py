"""Seeds of the simulator in which nodes burn and come back from their backups (`fednode restore`)."""

from __future__ import annotations

import pytest

from sim.story import run

FAST = (1, 32, 44)  # what these have found is in the history of this file
REST = range(60)


@pytest.mark.sim
@pytest.mark.parametrize("seed", FAST)
def test_a_seed_holds_while_nodes_burn(seed: int) -> None:
    run(seed, burning=True)


@pytest.mark.sim
@pytest.mark.slow
@pytest.mark.parametrize("seed", REST)
def test_many_seeds_hold_while_nodes_burn(seed: int) -> None:
    run(seed, burning=True)
