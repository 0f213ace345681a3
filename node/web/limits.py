"""How often somebody may try a password: by account, and by address.

Rules
1. An attempt counts before the password is looked at, so that many at the same moment gain nothing. One that succeeds
   clears the account's count, and not the address's.
2. What is counted is bounded: of more than `KEYS_MAX` names or addresses the oldest are forgotten.
3. A clock that was set back makes nobody wait for longer than the window.

>>> limits = Limits(account=2, address=9)
>>> [limits.attempt("alice", "10.0.0.1", now_ms) for now_ms in (0, 1, 2)]
[0, 0, 899998]
>>> limits.succeeded("alice"); limits.attempt("alice", "10.0.0.1", 3)
0
"""

from __future__ import annotations

import threading
from collections import OrderedDict

WINDOW_MS = 15 * 60 * 1000
ACCOUNT_MAX, ADDRESS_MAX = 10, 50
KEYS_MAX = 10_000


class Limits:
    """Of one console. `account`, `address`: attempts within the window."""

    def __init__(self, account: int = ACCOUNT_MAX, address: int = ADDRESS_MAX) -> None:
        self._most = {"account": account, "address": address}
        self._tried: OrderedDict[tuple[str, str], list[int]] = OrderedDict()
        self._turn = threading.Lock()

    def attempt(self, account: str, address: str, now_ms: int) -> int:
        """Count one; the milliseconds to wait where there were too many already: then it counts for nothing."""
        keys = (("account", account), ("address", address))
        with self._turn:
            recent = {key: self._recent(key, now_ms) for key in keys}
            waits = [
                WINDOW_MS - (now_ms - times[-self._most[key[0]]])
                for key, times in recent.items()
                if len(times) >= self._most[key[0]]
            ]
            if waits:
                return max(waits)
            for key, times in recent.items():
                self._tried[key] = [*times, now_ms]
                self._tried.move_to_end(key)
            while len(self._tried) > KEYS_MAX:
                self._tried.popitem(last=False)
            return 0

    def succeeded(self, account: str) -> None:
        """The password was right."""
        with self._turn:
            self._tried.pop(("account", account), None)

    def _recent(self, key: tuple[str, str], now_ms: int) -> list[int]:
        return [at for at in self._tried.get(key, []) if 0 <= now_ms - at < WINDOW_MS]
