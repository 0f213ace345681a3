"""What the writer knows of a peer during a session, and what it has to tell of peers.

>>> # link = Link(identity, peer.id, greeting.store, from_parent=False, have=peer.have.lsn, position=peer.have.lsn)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from fednode.crypto.certs import Identity

if TYPE_CHECKING:
    from fednode.node.refill import Refill

HOLES_MAX = 10_000  # of one session: what is left out beyond that stops the peer's cursor there


@dataclass(slots=True)
class Link:
    """A peer as the writer sees it during a session. `holes`: arrival numbers of the peer's that were left out until
    what precedes them has come, the first `HOLES_MAX` of them, `brink`: the least of the others; `position`: the
    greatest that was looked at, `check`: the head of the root of what lay there, `seen`: of what was looked at last;
    `since`: see `rows.Peer`; `restoring`: the child takes its history back; `fenced`: the peer has said that it fenced
    itself; `gathers`: this node takes from the peer what that holds of its own earlier lives; `gives_back`: the peer
    does so, of its lives before this one; `told`: what it has said that it holds, by the number of the log here;
    `refill`: what it lacks; `before`: up to where the peer's feed was held when the session began."""

    peer: Identity
    peer_id: int
    store: bytes
    from_parent: bool
    have: int
    holes: set[int] = field(default_factory=set)
    position: int = 0
    check: bytes = b""
    since: int = 0
    restoring: bool = False
    fenced: bool = False
    gathers: bool = False
    gives_back: int = 0
    seen: bytes = field(default=b"", compare=False)
    told: dict[int, int] = field(default_factory=dict)
    refill: Refill | None = None
    brink: int = 0
    before: int = 0

    def leave_out(self, lsn: int) -> None:
        """What precedes it has not come yet."""
        if lsn in self.holes or len(self.holes) < HOLES_MAX:
            self.holes.add(lsn)
        else:
            self.brink = min(self.brink or lsn, lsn)

    @property
    def whole(self) -> int:
        """Up to where nothing was left out."""
        out = [*((min(self.holes),) if self.holes else ()), *((self.brink,) if self.brink else ())]
        return min(out) - 1 if out else self.position

    def holds(self, answered: int) -> int:
        """Up to where the peer holds this node's feed, once it has answered all that was sent up to there."""
        return answered if self.refill is None else self.refill.counts(answered)


@dataclass(frozen=True, slots=True)
class Alarm:
    """What the levels above must hear of, with signed heads as evidence. `ends`: the session that ends with it."""

    code: str
    node: str
    params: Mapping[str, Any]
    evidence: tuple[str, ...] = ()
    ends: Link | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something of a peer's was refused for the first time; or (`by_peer`) a peer refused something of this node's.
    `raw`: the segment."""

    peer: str
    code: str
    log: str
    params: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    by_peer: bool = False
