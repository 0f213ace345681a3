"""Who may do what in the console: a table, and nothing else.

>>> may("viewer", LOOK), may("viewer", USERS), may("", LOOK)
(True, False, False)
"""

from __future__ import annotations

LOOK = "look"  # at the mesh, alerts, coverage, exchanges, conflicts
ALERTS = "alerts"  # acknowledge and silence them
AUDIT = "audit"  # read the audit trail, and take it away as a file
USERS = "users"  # accounts of the console
ACTIONS = (LOOK, ALERTS, AUDIT, USERS)

VIEWER, OPERATOR, ADMINISTRATOR, AUDITOR = "viewer", "operator", "administrator", "auditor"
ROLES: dict[str, frozenset[str]] = {
    VIEWER: frozenset({LOOK}),
    OPERATOR: frozenset({LOOK, ALERTS}),
    ADMINISTRATOR: frozenset({LOOK, ALERTS, AUDIT, USERS}),
    AUDITOR: frozenset({LOOK, AUDIT}),
}


def may(role: str, action: str) -> bool:
    """Whether a role allows an action; a role that is none allows nothing."""
    return action in ROLES.get(role, frozenset())
