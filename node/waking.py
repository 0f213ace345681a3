"""Whose feed may have grown. A node with many children looks once at what is new, instead of once for each of them.

Rules
1. A feed grows with the arrival order alone. What has come since the last look goes down to every child, to areas
   (`Route.down`), or to nobody: then only those are woken to whom it goes.
2. The parent and standbys are always woken, and children that take their earlier lives back: their feeds are others.
3. Where the store cannot tell, everybody is.
4. Where many are connected one look is for all that comes in a short while (`Rarely`): to look at thousands takes the
   event loop as long as a group of commits.

>>> # may_have = Waking(store).look(); [session.wake() for session in sessions if may_have(session.link)]
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fednode.crypto.errors import FednodeError
from fednode.node.link import Link
from fednode.node.store import Store
from fednode.sync.feed import EVERY_CHILD, goes_down_to

MANY, EACH_S = 200, 0.000025  # with 2,000 connected: a look of some 10 ms, at most every 50


class Rarely:
    """A look: at once, and where many are looked at some time after the last one."""

    def __init__(self, look: Callable[[], None]) -> None:
        self._look, self._loop = look, asyncio.get_running_loop()
        self._waiting: asyncio.TimerHandle | None = None
        self._next_s = 0.0

    def look(self, many: int) -> None:
        """At so many, or soon."""
        rest_s = self._next_s - self._loop.time()
        if self._waiting is None and (many < MANY or rest_s <= 0):
            self.now(many)
        elif self._waiting is None:
            self._waiting = self._loop.call_later(rest_s, self.now, many)

    def now(self, many: int) -> None:
        """At once."""
        self.cancel()
        self._next_s = self._loop.time() + many * EACH_S
        self._look()

    @property
    def waits(self) -> bool:
        """Whether a look was put off."""
        return self._waiting is not None

    def cancel(self) -> None:
        """What was put off is not done."""
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = None


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
