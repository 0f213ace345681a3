"""What a session (`node.driver`) tells whoever runs it, and what it asks.

>>> Hooks().stored(None, [])
[]
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from fednode.sync import effects as fx
from fednode.sync import wire

if TYPE_CHECKING:
    from fednode.node.driver import Session


class Hooks:
    """What the daemon wants to know of its sessions; each method may be overridden."""

    def stored(self, session: Session, reports: Sequence[fx.Done]) -> Sequence[fx.Done]:
        """What the peer sent is stored. What of it may be told now."""
        return reports

    def heard(self, session: Session, effect: fx.Acked) -> None:
        """The peer has acknowledged."""

    def acked(self, session: Session) -> None:
        """Acknowledgements of the peer are stored."""

    def closed(self, session: Session, close: fx.Close) -> None:
        """It has ended. Whoever serves it may be cancelled before its end: gRPC does when the peer hangs up."""

    def trouble(self, session: Session, code: str) -> None:
        """What the peer sent could not be stored."""

    def admitted(self, session: Session, owed: int) -> None:
        """The peer is known, the exchange open. `owed`: see `Welcome`."""

    def asked(self, session: Session, found: int) -> None:
        """The peer has asked for something again, and is sent so many segments."""

    def fed(self) -> None:
        """A feed was read."""

    def mended(self, want: wire.Want) -> None:
        """A damaged segment is whole again."""

    async def owed_health(self, session: Session, after: wire.HealthPlace, last: bool) -> wire.Health | None:
        """What to tell the parent of how nodes are; None: nothing, or not yet."""
        return None

    async def hear_health(self, session: Session, told: wire.Health) -> None:
        """A child tells how nodes are."""

    def effect(self, session: Session, effect: fx.Effect) -> None:
        """A clock reading, a renewal, an alert."""
