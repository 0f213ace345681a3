"""Rows that imports refused, by reason: out of the audit's `import` events, of this node and those below it.

Rules
1. An event has the reasons of its import as one text (`told`), the most frequent first; what has no room in it is
   `other`. A row with two reasons counts in both, so reasons may add up to more than the rows.
2. Of a file that was imported again, by its node into the same dataset and area, the last import counts alone: a file
   that was corrected in its place has other bytes, and counts anew.
3. Counted is by dataset, area and reason. Neither rows nor values are known here: those are in the rejects file beside
   what was imported.
4. Events come from other nodes: what is not as it should be is passed over.

>>> told({"uscc_check": 3, "required": 12})
'required 12, uscc_check 3'
>>> reasons("required 12, uscc_check 3, <b> 1, x -1"), told({"a" * 200: 2, "b" * 100: 1, "c": 1})[-13:]
({'required': 12, 'uscc_check': 3}, 'aa 2, other 2')
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from fednode.node import sqlite
from fednode.node.journal import TEXT_BYTES_MAX
from fednode.sync.change import AUDIT
from fednode.sync.clock import stamp

OTHER = "other"
_REASON = re.compile(r"([a-z][a-z0-9_]{0,39}) ([0-9]{1,15})")
DAYS_DEFAULT = 30
DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class Row:
    """Rows of one dataset and area that were refused for one reason."""

    area: str
    dataset: str
    reason: str
    rows: int


@dataclass(slots=True)
class Rejected:
    """What imports had since a time: how many there were, what they read and refused, and why. `untold`: refused rows
    of imports that did not say why (an older program)."""

    imports: int = 0
    read: int = 0
    rejected: int = 0
    untold: int = 0
    rows: list[Row] = field(default_factory=list)


def told(counts: Mapping[str, int]) -> str:
    """Reasons as an event has them (rule 1)."""
    parts: list[str] = []
    ordered = sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    for place, (name, count) in enumerate(ordered):
        part = f"{name} {count}"
        rest = f"{OTHER} {sum(n for _, n in ordered[place:])}"
        last = place == len(ordered) - 1
        if len(", ".join([*parts, part, *([] if last else [rest])])) > TEXT_BYTES_MAX:
            return ", ".join([*parts, rest])
        parts.append(part)
    return ", ".join(parts)


def reasons(text: str) -> dict[str, int]:
    """What `told` says (rule 4)."""
    found = (_REASON.fullmatch(part) for part in text.split(", "))
    return {one[1]: int(one[2]) for one in found if one is not None}


def rejected(
    connection: sqlite.Connection, since_ms: int, inside: Callable[[str], bool] = lambda area: True, dataset: str = ""
) -> Rejected:
    """Of the imports since a time (Unix milliseconds) into areas that are `inside`. `connection`: to state.db; an
    event's key begins with its stamp, so these are a range of the index."""
    rows = connection.execute(
        """select log, payload ->> '$.details' from record
           where key >= ? and key < 'g' and dataset = (select id from dataset where name = ?) and op = 1
           and json_valid(payload) and payload ->> '$.action' = 'import' order by key""",
        (f"{stamp(max(0, since_ms)):016x}", AUDIT),
    ).fetchall()
    last: dict[tuple[int, str, str, str], dict[str, Any]] = {}  # whose log it is tells who imported, not the payload
    for number, (log, text) in enumerate(rows):
        details = _details(text)
        if "read" not in details:  # the command was refused before it read anything
            continue
        dataset_, area, sha256 = (str(details.get(name) or "") for name in ("dataset", "area", "sha256"))
        last[log, dataset_, area, sha256 or str(number)] = details
    found = Rejected()
    counts: Counter[tuple[str, str, str]] = Counter()
    for details in last.values():
        area, name = str(details.get("area", "")), str(details.get("dataset", ""))
        if not inside(area) or dataset not in ("", name):
            continue
        refused = _count(details.get("rejected"))
        why = reasons(str(details.get("reasons", "")))
        found.imports += 1
        found.read += _count(details.get("read"))
        found.rejected += refused
        found.untold += refused if not why else 0
        for reason, count in why.items():
            counts[area, name, reason] += count
    ordered = sorted(counts.items(), key=lambda one: (one[0][0], one[0][1], -one[1], one[0][2]))
    found.rows = [Row(*place, count) for place, count in ordered]
    return found


def _details(text: str | None) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(text or "{}")
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 53 else 0
