"""Seeds of the small simulator, in which two of four primaries fail in every run: those that have found something.

1: what was made again was erased in one place alone; announced, where it is held back (FN-5412). 7: a segment that
follows one that is held back, and went down without it. 34, 66: a successor's own certificate came to the level above
after what it had written. 46: what a child gave back it had stripped itself (FN-5419). 53: what an old primary had
acknowledged of a child that was revoked later was refused by its successor (FN-5420). 88: a successor was taken for a
copy of its old primary, which the level above had met since (FN-5514). 291: two cosignatures of one change, and so two
winners. 332: the same at an old primary that comes back with its own. 337: two neighbours burn within half a minute,
and the lower one's successor is invited anew, as FN-5519 says. 447: a county revoked a village by its clock, which was
behind the time of its cosignature of what that had written before. 516: the same by two clocks, of an old primary that
cosigned and of its successor that revoked. 580: a village was told to be held what had been refused in the same
session, while its county waited for a standby. 644: a successor was not told that the level above had cosigned what it
had made again, and of two places of one change the first won at it alone. 751: what was erased before it could be made
again is not made again, which the checks did not know. 760: what stood over a late write and was said once more was
erased in one place alone. 796: a segment of which something had been said once more before it was made again was not,
and all else in it was lost. 874: two cosignatures of one change, of which the levels above have the first, and nobody
below had heard of it. 960: a county that started again forgot what it had heard of the city's new life, and its
villages refused what that wrote (FN-5412). 972: a standby's own log came to a child before the word of who that standby
was (FN-5411). 982: a standby was given no key of what was written by a catalog that came to its primary later. 3176: a
first parent's cosignature went out with the time of another (FN-6407). 3404: a county and its city burnt, and what the
province alone held of the county came back to nobody. 5269, 5615: the same, stripped. 5434: an old primary was not told
of what its parent had cosigned of it. 6977: what a standby had sealed again came before the word of who that was
(FN-5419).
"""

from __future__ import annotations

import pytest

from sim.story import run

FOUND = (
    1,
    7,
    34,
    46,
    53,
    66,
    88,
    291,
    332,
    337,
    447,
    516,
    580,
    644,
    751,
    760,
    796,
    874,
    960,
    972,
    982,
    3176,
    3404,
    5269,
    5434,
    5615,
    6977,
)


@pytest.mark.sim
@pytest.mark.parametrize("seed", FOUND)
def test_a_small_seed_holds_while_nodes_are_succeeded(seed: int) -> None:
    assert run(seed, promoting=True, small=True).promoted == 2
