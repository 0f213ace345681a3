"""A limit on what a session uses of the line, both ways: what it sends waits in front of the line, what comes in is
held back by giving less credit.

Rules
1. The limit is in bits per second, of the frames' bytes; TLS, HTTP/2 and TCP add 2 to 4 in a hundred. It may change
   with the time of day while the session goes on.
2. Small pieces: a chunk is at most what half a second carries, so that a beat, an ack, or what is urgent is not behind
   a long one. Credit is given back four times a second.
3. Time is given, and so is waiting: tests have a time of their own.

>>> Pacer(lambda: 32_000, lambda: 0.0).chunk_bytes
2000
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from fednode.sync.bucket import Bucket
from fednode.sync.exchange import WINDOW_BYTES
from fednode.sync.wire import CHUNK_BYTES_MAX

AHEAD_BYTES = 256 * 1024  # handed to the line and not yet taken by it: what is urgent comes behind so much at most
PAUSE_S_MAX = 1.0
GRANT_S = 0.25
CHUNK_BYTES_MIN = 512
WINDOW_BYTES_MIN = 4 * 1024


class Pacer:
    """One session's limit. `rate`: bits per second now, 0 for none; `seconds`: a clock that never jumps; `pause`:
    waits."""

    def __init__(
        self,
        rate: Callable[[], int],
        seconds: Callable[[], float],
        pause: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        self._rate, self._seconds, self.pause = rate, seconds, pause
        first = rate() / 8
        self._out, self._in = Bucket(first, first), Bucket(first, first)

    @property
    def chunk_bytes(self) -> int:
        """The largest chunk to send."""
        rate = self._rate()
        return min(CHUNK_BYTES_MAX, max(CHUNK_BYTES_MIN, rate // 16)) if rate else CHUNK_BYTES_MAX

    @property
    def ahead_bytes(self) -> int:
        """What may wait in front of the line."""
        return min(AHEAD_BYTES, 4 * self.chunk_bytes)

    @property
    def window(self) -> int:
        """The credit that the peer is given at the start: what two seconds carry."""
        rate = self._rate()
        return min(WINDOW_BYTES, max(WINDOW_BYTES_MIN, rate // 4)) if rate else WINDOW_BYTES

    async def before(self, size: int) -> None:
        """Wait until so many bytes may be sent."""
        while rate := self._rate():
            self._out.rate = self._out.burst = rate / 8
            wait_s = self._out.wait_s(size, self._seconds())
            if not wait_s:
                return
            await self.pause(min(wait_s, PAUSE_S_MAX))

    def allowed(self) -> int:
        """Bytes that may be let in now."""
        rate = self._rate()
        if not rate:
            return WINDOW_BYTES
        self._in.rate = self._in.burst = rate / 8
        return self._in.available(self._seconds())

    def let_in(self, size: int) -> None:
        """So many bytes of credit were given."""
        self._in.take(size)
