"""What stands in a node's audit, read from its log.

assert "import" in actions(app)
"""

from __future__ import annotations

import json

from fednode.node.app import App
from fednode.sync.change import AUDIT


def actions(app: App) -> list[str]:
    """The actions that the audit has, oldest first."""
    found = []
    for held in app.store.segments(0, 1_000, dataset=AUDIT):
        columns = app.store.columns(held)
        assert columns is not None
        found += [json.loads(payload)["action"] for payload in columns.payloads]
    return found
