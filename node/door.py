"""A child has connected: it gets a seat, waits for one on its line, or is told when to come again.

Rules
1. Who is not served for a while (`node.pauses`, rule 3) is held, then told when to come.
2. Whose turn is near (`node.turns`) waits for it on its line and asks again when it is due, as it would have done from
   outside: a TLS handshake more costs both ends as much as letting a child in, and a rush is when there is no time for
   it. Nobody waits for longer than `LINE_MS` in all, for a child gives a parent that says nothing fifteen seconds
   (`fednode.sync.exchange`); and no more than `LINE_MAX` do, of one child no more than may have seats. Who is doubted
   (`node.doubts`) does not.
3. Nothing is read of a child while it waits.

>>> # seat = await door.enter("1301")
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

from fednode.node import pauses
from fednode.node.doubts import Doubts
from fednode.node.turns import OF_ONE_MAX, Turns
from fednode.sync.errors import busy

LINE_MS = 8_000
LINE_MAX = 1_000


class Door:
    """Of one node. `clock_ms`: one that never jumps; `sleep`: asyncio's."""

    def __init__(
        self,
        turns: Turns,
        paused: pauses.Pauses,
        doubts: Doubts,
        clock_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._turns, self._pauses, self._doubts = turns, paused, doubts
        self._clock_ms, self._sleep = clock_ms, sleep
        self._held, self._line = Counter[str](), Counter[str]()  # who is held, and who waits on its line

    async def enter(self, node: str) -> int:
        """The number of a child's seat (`Turns.leave`). Raises Unavailable FN-4508 when it is not its turn."""
        if pause_ms := self._pauses.left_ms(node, self._clock_ms()):
            await self._hold(node, pause_ms)
        until_ms = self._clock_ms() + LINE_MS
        while True:
            now_ms, doubted = self._clock_ms(), self._doubts.doubted(node)
            turn = self._turns.ask(node, now_ms, doubted=doubted)
            if isinstance(turn, int):
                return turn
            many = self._line[node] >= OF_ONE_MAX or self._line.total() >= LINE_MAX
            if doubted or many or now_ms + turn.retry_ms > until_ms:
                raise busy(turn.retry_ms)
            await self._wait(self._line, node, turn.retry_ms / 1000)

    @property
    def waiting(self) -> int:
        """Who waits on its line."""
        return self._line.total()

    async def _hold(self, node: str, pause_ms: int) -> None:
        """Raises Unavailable FN-4508."""
        if self._held[node] < pauses.HELD_MAX:
            await self._wait(self._held, node, min(pause_ms / 1000, pauses.HOLD_S))
        raise busy(max(self._pauses.left_ms(node, self._clock_ms()), pauses.PAUSE_MS_MIN))

    async def _wait(self, those: Counter[str], node: str, seconds: float) -> None:
        those[node] += 1
        try:
            await self._sleep(seconds)
        finally:
            those[node] -= 1
            if not those[node]:
                del those[node]
