"""What of the event loop's time the messages of each child may have. Without I/O and without a clock.

Rules
1. Handling a message counts what it took, and `READ_S` for its way through gRPC. A child may have `BURST_S` at once.
2. Whoever has had more is not read for a while: so long that all those together have `SHARE` of the loop's time, in
   equal parts. The rest is for those who send now and then, whatever many others send.
3. Children that are doubted (`node.doubts`) have `SHARE_DOUBTED` together, and nothing of the others' share; each may
   have `BURST_DOUBTED_S` at once.
4. Who has had nothing lately is forgotten (`LOOK_S`).

>>> shares = Shares()
>>> shares.spent("1301", 0.01, now_s=0.0), shares.spent("1301", 0.1, now_s=0.0) > 0.1
(0.0, True)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

READ_S = 0.0002
BURST_S, BURST_DOUBTED_S = 0.05, 0.002
SHARE, SHARE_DOUBTED = 0.5, 0.02
PAUSE_S_MAX = 5.0  # nobody seems dead; what one message can cost is bounded anyway
LOOK_S = 0.1
RECENT_S = 1.0


@dataclass(slots=True)
class _Account:
    had_s: float = 0.0
    at_s: float = 0.0
    until_s: float = 0.0  # it is not read
    doubted: bool = False


class Shares:
    """Of one node. `now_s`, in every call: a clock that never jumps. `doubted`: of a child."""

    def __init__(self, doubted: Callable[[str], bool] = lambda child: False) -> None:
        self._doubted = doubted
        self._accounts: dict[str, _Account] = {}
        self._pausing, self._looked_s = {True: 0, False: 0}, -LOOK_S

    def spent(self, child: str, seconds: float, now_s: float) -> float:
        """A message of a child's was handled in so many seconds. For how long not to read the next."""
        if now_s - self._looked_s >= LOOK_S:
            self._look(now_s)
        account = self._accounts.setdefault(child, _Account(at_s=now_s))
        account.doubted = self._doubted(child)
        rate = self._rate(account)
        account.had_s = max(0.0, account.had_s - (now_s - account.at_s) * rate) + seconds + READ_S
        account.at_s = now_s
        pause_s = min(max(0.0, account.had_s - (BURST_DOUBTED_S if account.doubted else BURST_S)) / rate, PAUSE_S_MAX)
        account.until_s = now_s + pause_s
        return pause_s

    def _rate(self, account: _Account) -> float:
        return (SHARE_DOUBTED if account.doubted else SHARE) / max(1, self._pausing[account.doubted])

    def _look(self, now_s: float) -> None:
        """How many have had too much, a moment ago still: who has waited may not have been read yet. And forget who has
        not had anything lately."""
        self._accounts = {
            child: one for child, one in self._accounts.items() if one.had_s > (now_s - one.at_s) * self._rate(one)
        }
        for doubted in self._pausing:
            late = (one.until_s > now_s - RECENT_S for one in self._accounts.values() if one.doubted is doubted)
            self._pausing[doubted] = sum(late)
        self._looked_s = now_s

    @property
    def remembered(self) -> int:
        """How many have an account."""
        return len(self._accounts)
