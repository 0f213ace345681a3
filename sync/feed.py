"""Feeds: which logs go to which peer. Decided once for each log; the store keeps the answer beside it.

Rules
1. Up go the logs of this node and of everyone below it, when their dataset flows up.
2. Down go only logs of this node and of those above it: with an audience, to the one child whose scope covers the
   audience's area;
   without one, when the dataset flows down, to every child.
3. Nothing goes back to where it came from, but the stripped form of what a child carries and cannot read
   (`node.resealed`); nothing of a child goes to its sibling.
4. A standby's feed is everything but its own. It passes on nothing but its own, until it is promoted. What it writes
   of itself goes from its primary as if that had written it: its receipts come to whoever may have erased.

>>> route(LogName.parse("hebei/130102/1/admin-licence@130102001001"), Side.SELF, True, False, ("130102",))
Route(up=True, down='130102001001')
>>> route(LogName.parse("hebei/13/1/sys.catalog"), Side.ABOVE, False, True, ("130102",))
Route(up=False, down='*')
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from fednode.sync.change import LogName
from fednode.sync.identity import covers

EVERY_CHILD = "*"


class Side(Enum):
    """Where a log's origin stands, seen from this node."""

    SELF = "self"
    ABOVE = "above"
    BELOW = "below"


@dataclass(frozen=True, slots=True)
class Route:
    """`down`: "" nobody, "*" every child, else the area whose covering child gets it."""

    up: bool
    down: str


def route(name: LogName, side: Side, flows_up: bool, flows_down: bool, scope: tuple[str, ...]) -> Route:
    """The route of a log at a node with this scope."""
    up = flows_up and side is not Side.ABOVE
    if side is Side.BELOW:
        return Route(up, "")
    if name.audience:
        return Route(up, name.audience if covers(scope, name.audience) else "")
    return Route(up, EVERY_CHILD if flows_down else "")


def goes_down_to(down: str, child_scope: tuple[str, ...]) -> bool:
    """Whether a log with this `Route.down` is in the feed of a child with this scope."""
    return down == EVERY_CHILD or (bool(down) and covers(child_scope, down))
