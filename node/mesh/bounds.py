"""From when on a node is stale, or behind: thresholds of the settings, by level.

Rules
1. A bound without a level holds for all that have none of their own: `["26h", "county 1h"]`.
2. Between two contacts nothing is late: a village that is up an hour a day is not stale after an hour.

>>> parse_bound("county 1h"), parse_bound("26h")
(('county', 3600), ('', 93600))
>>> Bounds.of(("26h", "county 1h"), ("2d",), 10).stale_s("county")
3600
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self

from fednode.node.timetable import parse_duration
from fednode.sync.health import About, Load

OK, BEHIND, STALE, NEVER, UNKNOWN, ALERT, REVOKED, SUPERSEDED = STATES = (
    *("ok", "behind", "stale", "never", "unknown"),
    *("alert", "revoked", "superseded"),
)
DEFAULT_S = 26 * 3600


def parse_bound(text: str) -> tuple[str, int]:
    """A level ("": all others) and seconds. Raises Unreadable."""
    level, _, span = text.strip().rpartition(" ")
    return level.strip(), parse_duration(span)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Seconds by level, and so many changes that a node with more is behind however young they are (0: none is)."""

    stale: Mapping[str, int] = field(default_factory=dict)
    behind: Mapping[str, int] = field(default_factory=dict)
    changes: int = 0

    @classmethod
    def of(cls, stale: Sequence[str], behind: Sequence[str], changes: int) -> Self:
        """As the settings say. Raises Unreadable."""
        return cls(dict(map(parse_bound, stale)), dict(map(parse_bound, behind)), changes)

    def stale_s(self, level: str) -> int:
        """How old the last sign of a node may be."""
        return self.stale.get(level, self.stale.get("", DEFAULT_S))

    def behind_s(self, level: str) -> int:
        """How old the oldest change may be that its parent does not hold."""
        return self.behind.get(level, self.behind.get("", DEFAULT_S))

    def grade(self, level: str, load: Load, about: About, now_s: int) -> str:
        """OK, BEHIND or ALERT: what a node's own word makes of it."""
        if load.alerts_critical or about.fenced:
            return ALERT
        old = bool(load.since_s) and now_s - load.since_s > self.behind_s(level)
        much = 0 < self.changes <= load.changes + load.system
        return BEHIND if old or much else OK
