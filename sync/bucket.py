"""A token bucket: so many bytes a second, on average, and no more than so many at once. Without a clock: whoever asks
says what time it is.

Rules
1. Something may go while the bucket is not empty, however large it is; the bucket then owes the rest. So over any span
   of time no more than `rate * seconds + burst` and the last piece goes through.
2. A clock that is set back gives nothing and takes nothing.

>>> bucket = Bucket(1000, 500)
>>> bucket.wait_s(500, 0.0), bucket.wait_s(100, 0.0), bucket.wait_s(100, 0.5)
(0.0, 0.001, 0.0)
"""

from __future__ import annotations

from dataclasses import dataclass

STEP_S = 0.001  # at least so long a wait


@dataclass(slots=True)
class Bucket:
    """`rate`: bytes a second; `burst`: bytes that may go at once after a rest."""

    rate: float
    burst: float
    _level: float = 0.0
    _at_s: float | None = None

    def available(self, now_s: float) -> int:
        """Bytes that may go now."""
        if self._at_s is None:
            self._level = self.burst
        else:
            self._level = min(self.burst, self._level + max(0.0, now_s - self._at_s) * self.rate)
        self._at_s = now_s
        return max(0, int(self._level))

    def take(self, size: int) -> None:
        """So many bytes have gone."""
        self._level -= size

    def wait_s(self, size: int, now_s: float) -> float:
        """How long to wait before so many bytes may go; they are taken when it is 0."""
        if self.available(now_s) > 0:
            self.take(size)
            return 0.0
        return max(STEP_S, (1.0 - self._level) / self.rate)
