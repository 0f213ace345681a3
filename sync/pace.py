"""How much to hand the line at once, by what it was seen to carry. Pure: readings of a clock in, sizes out.

Rules
1. A chunk arrives whole or not at all, so it should take the line about a second (`CHUNK_MS`): a cut then loses no more
   than that, and a line that is cut every few seconds still moves something. While nothing is known it is
   `CHUNK_BYTES_START`, and grows with what went out (`CHUNK_PART` of it): a fast line has answered nothing yet when
   megabytes are on their way, and a slow one has answered long before.
2. The rate is what the peer acknowledged, by the time that passed since this side began to send: it counts what has
   arrived and is durable, whatever buffers there are on the way. A small exchange measures the round trip rather than
   the line, so below `SAMPLE_BYTES` it can raise the rate, not lower it.

>>> pace = Pace()
>>> pace.chunk_bytes
8192
>>> pace.sent(1, 80_000, now_ms=0); pace.heard([1], now_ms=10_000); pace.chunk_bytes
8000
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from fednode.sync.wire import CHUNK_BYTES_MAX

CHUNK_BYTES_START = 8 * 1024
CHUNK_BYTES_MIN = 4 * 1024
CHUNK_MS = 1000
CHUNK_PART = 16
SAMPLE_BYTES = 32 * 1024
MEMORY_MS = 20_000  # what was seen longer ago counts half


@dataclass(slots=True)
class Pace:
    """`rate`: bytes a second that were seen to arrive, 0 while nothing is known."""

    rate: float = 0.0
    _unheard: dict[int, int] = field(default_factory=dict)
    _since_ms: float = 0.0
    _heard: float = 0.0
    _sent: int = 0

    def sent(self, lsn: int, size: int, now_ms: int) -> None:
        """So much of a segment went out."""
        if not self._unheard:
            self._since_ms, self._heard = now_ms, 0.0
        self._unheard[lsn] = self._unheard.get(lsn, 0) + size
        self._sent += size

    def heard(self, lsns: Iterable[int], now_ms: int) -> None:
        """These segments were answered for."""
        size = sum(self._unheard.pop(lsn, 0) for lsn in lsns)
        self._heard += size
        took = now_ms - self._since_ms
        seen = self._heard * 1000 / max(1.0, took)
        self.rate = seen if self._heard >= SAMPLE_BYTES else max(self.rate, seen)
        if took > MEMORY_MS:
            self._since_ms, self._heard = now_ms - took / 2, self._heard / 2

    @property
    def chunk_bytes(self) -> int:
        """At most so much of a segment in one frame."""
        if not self.rate:
            return max(CHUNK_BYTES_START, min(CHUNK_BYTES_MAX, self._sent // CHUNK_PART))
        return max(CHUNK_BYTES_MIN, min(CHUNK_BYTES_MAX, int(self.rate * CHUNK_MS / 1000)))
