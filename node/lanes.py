"""What waits for the writer: each peer's in its order, the peers in turn.

Rules
1. A lane is a peer ("": this node's own work). What is put into a lane comes out in the order in which it was put in.
2. One of each lane comes out, then the next of each: a peer that sends much waits for itself.
3. After `end` nothing goes in; what is there comes out, then None, for ever.

>>> lanes = Lanes()
>>> for lane, job in (("a", 1), ("a", 2), ("a", 3), ("b", 4)): lanes.put(lane, job)
>>> lanes.end(); [lanes.get() for _ in range(5)]
[1, 4, 2, 3, None]
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any


class Lanes:
    """A queue between threads."""

    def __init__(self) -> None:
        self._lanes: dict[str, deque[Any]] = {}  # in the order of their turns
        self._more = threading.Condition()
        self._ended = False

    def put(self, lane: str, job: Any) -> None:
        """Add a job."""
        with self._more:
            self._lanes.setdefault(lane, deque()).append(job)
            self._more.notify()

    def end(self) -> None:
        """There is no more to come."""
        with self._more:
            self._ended = True
            self._more.notify()

    def get(self) -> Any:
        """The next job, when there is one; None at the end."""
        with self._more:
            while not self._lanes and not self._ended:
                self._more.wait()
            return self._next()

    def look(self) -> Any:
        """The next job; None where there is none now."""
        with self._more:
            return self._next()

    def _next(self) -> Any:
        if not self._lanes:
            return None
        lane = next(iter(self._lanes))
        jobs = self._lanes.pop(lane)
        job = jobs.popleft()
        if jobs:
            self._lanes[lane] = jobs
        return job

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._lanes
