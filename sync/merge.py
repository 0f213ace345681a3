"""Which change of a record wins. Deterministic: the same at every node, whatever the order of arrival.

Rules
1. The order is total: `latest` compares (effective stamp, stamp, origin, incarnation, sequence number, audience).
   `authority` puts the rank of the writer's level in front of it: the higher level wins.
2. `field` lays versions over one another in that order, field by field: each names only the fields it sets, null
   takes one away;
   a delete empties the record.
3. Nothing is dropped in silence: a version that lost, and that the version above it had not seen (`base`), is a
   conflict.
4. An erase is no version: it names others and takes their payload (the issue on audit).

>>> a = Version(10, 10, "x", 1, 0, 0, 1, 0); b = Version(12, 12, "y", 1, 0, 0, 1, 0)
>>> winner, conflicts = resolve("latest", [b, a])
>>> winner is b, conflicts == [a]
(True, True)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from fednode.sync.change import DELETE

RULES = ("latest", "authority", "field")
Order = tuple[int, int, int, str, int, int, str]


@dataclass(frozen=True, slots=True)
class Version:
    """One change of a record as the merge sees it. `rank`: 0 for a village, rising to the province. `place`: opaque
    to the merge.
    """

    effective: int
    hlc: int
    origin: str
    incarnation: int
    seq: int
    rank: int
    op: int
    base: int
    place: int = 0
    audience: str = ""


def order(rule: str, version: Version) -> Order:
    """The sort key of a version under a rule."""
    rank = version.rank if rule == "authority" else 0
    return (rank, version.effective, version.hlc, version.origin, version.incarnation, version.seq, version.audience)


def resolve(rule: str, versions: Iterable[Version]) -> tuple[Version, list[Version]]:
    """The winner, and the concurrent versions that lost (rule 3), oldest first. Duplicates count once."""
    unique = {(v.origin, v.incarnation, v.seq, v.place): v for v in versions}
    ordered = sorted(unique.values(), key=lambda v: order(rule, v))
    conflicts = [lower for lower, upper in pairwise(ordered) if upper.base != lower.hlc]
    return ordered[-1], conflicts


def overlay(ordered: Iterable[tuple[int, Mapping[str, Any]]]) -> dict[str, Any]:
    """The record under the `field` rule: (op, fields) from the lowest version to the highest."""
    record: dict[str, Any] = {}
    for op, fields in ordered:
        if op == DELETE:
            record = {}
            continue
        for name, value in fields.items():
            if value is None:
                record.pop(name, None)
            else:
                record[name] = value
    return record
