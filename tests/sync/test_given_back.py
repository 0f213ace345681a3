"""What others give back to a node of its own earlier lives, and the gates of fednode.sync.verify."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fednode.sync.errors import PeerError
from fednode.sync.feed import Side
from fednode.sync.identity import node_payload
from fednode.sync.verify import verify
from world import World, fresh

VILLAGE, TOWNSHIP, COUNTY = "130102001001", "130102001", "130102"


def test_regression_what_a_child_gives_back_may_be_cosigned_by_a_life_that_is_not_known_yet() -> None:
    """Found by the simulator (promoting, small, seed 938): a county had cosigned in its new life what a township that
    was succeeded had written; a village gave it back to the successor, which had not heard of that life."""
    world = World()
    directory = world.directory()
    again = world.certificate(TOWNSHIP, level="township", parent=COUNTY, scope=(TOWNSHIP,), life=2)
    directory.apply(COUNTY, node_payload(again))
    own = world.segment(TOWNSHIP, dataset="sys.audit", readers=(TOWNSHIP,))
    seen = world.cosignature(COUNTY, own.raw)
    unknown = replace(seen, signature=bytes(64))
    me = replace(world.identity(TOWNSHIP), incarnation=2)
    context = replace(world.context(TOWNSHIP, VILLAGE, directory=directory), gathers=True, me=me)
    for given, kept in ((seen, seen), (unknown, None), (None, None)):
        got = verify(own.raw, fresh, context, given)
        assert (got.side, got.first_parent) == (Side.SELF, kept)
    above = replace(context, peer=world.identity(COUNTY), from_parent=True)
    assert verify(own.raw, fresh, above, seen).first_parent == seen
    with pytest.raises(PeerError, match="FN-6407"):
        verify(own.raw, fresh, above, unknown)
