"""The four families that decide the reaction to an error. The code says what happened, the class what to do about it.

| class | exit | reaction |
| --- | --- | --- |
| `Refused` | 2, 3 or 5 | the caller's or the operator's mistake: report it, with what to do next |
| `PeerError` | 5 or 6 | refuse the peer, keep the evidence, no blind retry |
| `Unavailable` | 4 | try again later, not before `retry_after_ms`: the only class that is retried |
| `StoreError` | 7 | stop writing and load again from disk |

`fednode.crypto.errors.IntegrityError` (6) is the fifth: a proof that does not hold. Any other exception is a bug.

>>> error = Unavailable("FN-4501", retry_after_ms=30_000, parent="1301")
>>> error.retry_after_ms, str(error), error.exit_code
(30000, 'FN-4501 (parent=1301)', 4)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fednode.crypto.errors import FednodeError


class Refused(FednodeError):
    """The caller's or the operator's mistake: usage (2), input refused (3), not permitted here (5)."""

    exit_codes = frozenset({2, 3, 5})


class PeerError(FednodeError):
    """A peer broke the contract (5) or sent what cannot be proved (6). The peer is refused and the evidence kept.
    `told`: where the peer gave the code (FN-5508), what its words name."""

    exit_codes = frozenset({5, 6})
    told: Mapping[str, str] | None = None


class Unavailable(FednodeError):
    """A peer cannot be reached, or is busy. `retry_after_ms`: when to try again, 0 when it did not say."""

    exit_codes = frozenset({4})

    def __init__(self, code: str, /, *, retry_after_ms: int = 0, **params: Any) -> None:
        super().__init__(code, **params)
        self.retry_after_ms = retry_after_ms


BUSY = "FN-4508"


def busy(retry_ms: int) -> Unavailable:
    """FN-4508: a peer has no room for this one now, and says in how many milliseconds to come again."""
    return Unavailable(BUSY, retry_after_ms=retry_ms, seconds=-(-retry_ms // 1000))


class StoreError(FednodeError):
    """This node's own store or home is in trouble: stop writing, and load again from disk."""

    exit_codes = frozenset({7})
