"""An event as a row for a spreadsheet: one form for the command line and the console.

>>> details_text({"dataset": "admin-licence", "changes": 3})
'dataset=admin-licence changes=3'
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fednode.node.events import Event

COLUMNS = ("time", "node", "name", "who", "action", "outcome", "code", "details", "log", "number", "altered")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a spreadsheet would compute, were it in a cell


def details_text(details: Mapping[str, Any]) -> str:
    """Details on one line."""
    return " ".join(f"{name}={value}" for name, value in details.items())


def cells(event: Event) -> list[str]:
    """The cells of an event, in the order of `COLUMNS`; nothing in them is computed by a spreadsheet."""
    when = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds")
    found = [when, event.node, event.name, event.who, event.action, event.outcome, event.code]
    found += [details_text(event.details), event.log, str(event.number), "1" if event.altered else ""]
    return [f"'{cell}" if cell.startswith(FORMULA) else cell for cell in found]
