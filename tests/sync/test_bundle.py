"""Whose bundles a node opens: `fednode.node.bundles` asks this of each, whatever it has looked at before."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fednode.sync.bundle import sender_of
from fednode.sync.errors import PeerError
from fednode.sync.identity import revocation_payload
from fednode.sync.volume import Header
from world import NOW_S, World

CITY, COUNTY, TOWNSHIP, NEIGHBOUR = "1301", "130102", "130102001", "130104"
HEADER = Header("hebei", TOWNSHIP, 1, COUNTY, bytes(16), NOW_S * 1000, bytes(8))


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def test_a_child_and_the_parent_are_heard(world: World) -> None:
    assert sender_of(HEADER, world.directory(), COUNTY).node == TOWNSHIP
    down = replace(HEADER, sender=COUNTY, recipient=TOWNSHIP)
    assert sender_of(down, world.directory(), TOWNSHIP).node == COUNTY
    assert sender_of(replace(down, incarnation=2), world.directory(), TOWNSHIP).node == COUNTY, "a later life of it"


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"domain": "henan"}, "FN-5520"),
        ({"recipient": CITY}, "FN-5522"),
        ({"recipient": NEIGHBOUR}, "FN-5522"),
        ({"sender": NEIGHBOUR}, "FN-5521"),
        ({"sender": "nobody"}, "FN-5521"),
        ({"sender": COUNTY}, "FN-5521"),
        ({"incarnation": 2}, "FN-5513"),
    ],
)
def test_nobody_else_is(world: World, changed: dict[str, object], code: str) -> None:
    with pytest.raises(PeerError) as caught:
        sender_of(replace(HEADER, **changed), world.directory(), COUNTY)  # type: ignore[arg-type]
    assert caught.value.code == code


def test_who_was_revoked_is_not(world: World) -> None:
    directory = world.directory()
    directory.apply(COUNTY, revocation_payload(TOWNSHIP, 1, NOW_S * 1000, "stolen"))
    with pytest.raises(PeerError, match="FN-5511"):
        sender_of(HEADER, directory, COUNTY)
