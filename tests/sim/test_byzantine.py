"""Seeds of the simulator in which a relay and a village lie."""

from __future__ import annotations

import pytest

from sim.story import Told, tell

SEEDS = range(3)


@pytest.mark.sim
@pytest.mark.parametrize("seed", SEEDS)
def test_who_does_not_lie_is_neither_deceived_nor_held_up(seed: int) -> None:
    result, _ = tell(seed, Told(byzantine=True, light=True))
    assert result.lies
