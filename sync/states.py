"""Where a session of the exchange stands, and which message is legal then.

Rules
1. A table, not branches: what is not in `LEGAL` of a state ends the session (FN-5504).

>>> wire.Hello in LEGAL[State.OPEN]
False
"""

from __future__ import annotations

from enum import Enum

from fednode.sync import wire


class State(Enum):
    NEW = "new"
    GREETING = "greeting"
    ADMITTING = "admitting"
    OPEN = "open"
    CLOSED = "closed"


_ANY_TIME = (wire.Bye, wire.Beat, wire.Unknown)
LEGAL: dict[State, tuple[type, ...]] = {
    State.NEW: (wire.Hello, wire.Bye),
    State.GREETING: (wire.Hello, wire.Bye),
    State.ADMITTING: _ANY_TIME,
    State.OPEN: (
        *_ANY_TIME,
        *(wire.Chunk, wire.Late, wire.Ack, wire.Credit, wire.Idle, wire.Want, wire.Missing),
        *(wire.Renew, wire.Renewed, wire.Fenced, wire.Witnessed, wire.Holdings, wire.Health),
    ),
    State.CLOSED: (),
}
