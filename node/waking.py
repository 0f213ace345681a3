"""Whose feed may have grown. A node with many children looks once at what is new, instead of once for each of them.

Rules
1. A feed grows with the arrival order alone. What has come since the last look goes down to every child, to areas
   (`Route.down`), or to nobody: then only those are woken to whom it goes.
2. The parent and standbys are always woken, and children that take their earlier lives back: their feeds are others.
3. Where the store cannot tell, everybody is.

>>> # may_have = Waking(store).look(); [session.wake() for session in sessions if may_have(session.link)]
"""

from __future__ import annotations

from collections.abc import Callable

from fednode.crypto.errors import FednodeError
from fednode.node.store import Store
from fednode.node.writer import Link
from fednode.sync.feed import EVERY_CHILD, goes_down_to


class Waking:
    """Looks at one store, from what it holds now on."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._looked = store.lsn

    def look(self) -> Callable[[Link | None], bool]:
        """Tells of a peer whether its feed may have grown since the last look. The store is asked once, when the first
        child is asked for: who has none pays nothing."""
        grown: list[str] | None = None

        def may_have(link: Link | None) -> bool:
            nonlocal grown
            if link is None or link.from_parent or link.peer.stands_for or link.restoring or link.gives_back:
                return True
            if grown is None:
                grown = self._grown()
            return any(goes_down_to(down, link.peer.scope) for down in grown)

        return may_have

    def _grown(self) -> list[str]:
        """Where something new goes down to."""
        try:
            newest = self._store.lsn
            grown = self._store.grown_down(self._looked)
        except FednodeError:
            return [EVERY_CHILD]
        self._looked = newest
        return grown
