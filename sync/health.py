"""How nodes are, as it goes up with the data: what is said of a node, in three parts that change apart from each other.

Rules
1. It is no change of a log: it may be lost, and comes again. It goes up only.
2. `Seen` is the parent's word on a child, by the parent's clock. While the exchange is open (`up`) nothing more need be
   said: the node is known to be there for as long as its parent is. `Load` and `About` are the node's own word.
3. `load` and `about` are passed on as the bytes that came (`fednode.sync.wire_health` makes and reads them): a node in
   between that is older than the one it speaks of loses nothing.
4. What moves all the time is rounded, so that it is seldom news: free disk and backlog by a sixteenth, a clock by half
   a second (`settle_load`, `settle_about`). Whether there is a backlog at all, and whether the clock is sure, is exact.

>>> settle(1000, 1050), settle(1000, 1100), settle(7, 0), settle(0, 1)
(1000, 1100, 0, 1)
"""

from __future__ import annotations

from dataclasses import dataclass, replace

ENTRIES_MAX = 256  # nodes in one frame
PART_BYTES_MAX = 256  # of one part of a node
CLOCK_STEP_MS = 500


@dataclass(frozen=True, slots=True)
class HealthPlace:
    """A place in a node's count of changes of reports. `epoch`: drawn when the count was begun."""

    epoch: int = 0
    upto: int = 0


@dataclass(frozen=True, slots=True)
class Seen:
    """When a node was last heard by its parent (Unix seconds, the parent's clock); `up`: their exchange is open."""

    at_s: int
    up: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """What its parent has not acknowledged (`changes` of records, `system` of logs about the mesh, `bytes`), held since
    `since_s`; open alerts that it raised; its standbys, and what none of them has acknowledged."""

    changes: int = 0
    system: int = 0
    bytes: int = 0
    since_s: int = 0
    alerts_critical: int = 0
    alerts_warning: int = 0
    standbys: int = 0
    standby_changes: int = 0
    standby_since_s: int = 0


@dataclass(frozen=True, slots=True)
class About:
    """`clock_ms`: how much its machine's clock was off, `unsure` of the time since it booted; `certificate_s`: until
    when its certificate holds; `drill_s`: its last good drill; `fenced`: why it writes no more."""

    software: str = ""
    catalog: int = 0
    disk_free_mib: int = 0
    disk_total_mib: int = 0
    clock_ms: int = 0
    unsure: bool = False
    certificate_s: int = 0
    drill_s: int = 0
    fenced: str = ""


@dataclass(frozen=True, slots=True)
class HealthEntry:
    """One node ("": the sender) in a life; of its parts those that have changed."""

    node: str
    life: int = 1
    seen: Seen | None = None
    load: bytes | None = None
    about: bytes | None = None

    @property
    def cost(self) -> int:
        """Bytes of credit: about what it takes."""
        return 24 + len(self.node) + len(self.load or b"") + len(self.about or b"")


@dataclass(frozen=True, slots=True)
class Health:
    """Reports that have changed up to a place in the sender's count."""

    place: HealthPlace
    entries: tuple[HealthEntry, ...] = ()

    @property
    def upto(self) -> int:
        """The place's number."""
        return self.place.upto

    @property
    def cost(self) -> int:
        """Bytes of credit: about what it takes."""
        return 16 + sum(one.cost for one in self.entries)


def settle(before: int, now: int) -> int:
    """A number that is rounded: the one before, where it is within a sixteenth of that, and neither is 0."""
    return before if before and now and abs(now - before) * 16 <= before else now


def settle_load(before: Load | None, now: Load) -> Load:
    """Rule 4. `before`: what was said last."""
    if before is None:
        return now
    return replace(
        now,
        changes=settle(before.changes, now.changes),
        system=settle(before.system, now.system),
        bytes=settle(before.bytes, now.bytes),
        standby_changes=settle(before.standby_changes, now.standby_changes),
    )


def settle_about(before: About | None, now: About) -> About:
    """Rule 4. `before`: what was said last."""
    if before is None:
        return now
    still = abs(now.clock_ms - before.clock_ms) < CLOCK_STEP_MS
    free = settle(before.disk_free_mib, now.disk_free_mib)
    return replace(now, disk_free_mib=free, clock_ms=before.clock_ms if still else now.clock_ms)
