"""A node of the world that lost its keys and joined again: another life, other keys.

>>> rekeyed(World(), "130102").identity.incarnation
2
"""

from __future__ import annotations

from fednode.crypto.certs import Identity
from fednode.sync.identity import Directory
from world import TREE, Place, World


def rekeyed(world: World, node: str, life: int = 2) -> Place:
    """The node in a new life."""
    level, parent, scope = next((level, parent, scope) for one, level, parent, scope in TREE if one == node)
    der = world.certificate(node, level=level, parent=parent, scope=scope, life=life)
    return Place(world.keys(node, life), (der, *world.places[node].chain[1:]))


def knowing(world: World, *places: Place) -> Directory:
    """Everyone of the world, and these lives."""
    directory = world.directory()
    for place in places:
        directory.seed(place.chain)
    return directory


def identity(directory: Directory, node: str) -> Identity:
    found = directory.get(node)
    assert found is not None
    return found
