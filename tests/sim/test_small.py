"""Seeds of the small simulator, without promotions: those that have found something.

300: a city's cosignature moved the stamp of what a county had written, and nobody told the village below (a mistake of
the simulator's, which did not look at what an acknowledgement makes new); and the county's correction did not beat what
it had seen, for the city cut both down to the same second (`sync.clock`).
"""

from __future__ import annotations

import pytest

from sim.story import run

FOUND = (300,)


@pytest.mark.sim
@pytest.mark.parametrize("seed", FOUND)
def test_a_small_seed_holds(seed: int) -> None:
    assert run(seed, small=True).records
