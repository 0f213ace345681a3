"""What of a process's CPU goes into proving: for `scripts/bench hop --audit`.

A timer around each function that would not be there if nothing had to be proved. They are called once or a few times
for a segment of 1,000 changes, so that the timer (two readings of the thread's own CPU clock, under a microsecond each)
does not show. Of calls within one another the outermost counts.

    leaves       salts, commitments and leaf hashes of a segment
    tree         the log's tree: nodes, root, proofs that it only grew
    nodes        keeping the tree's nodes, and the arrival order's checksum, in log.db
    signatures   every Ed25519 signature made or verified: checkpoints, cosignatures, and those of envelopes, too
    hashes       SHA-256 of a segment's bytes, of envelopes for their signature, and whatever else is hashed whole
    journal      events written to sys.audit
    scrub        steps of the scrub
"""

from __future__ import annotations

import functools
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from fednode.crypto import merkle, proof
from fednode.crypto.merkle import Frontier
from fednode.crypto.suite import Suite
from fednode.node.journal import Journal
from fednode.node.scrub import Scrub
from fednode.node.transaction import Transaction
from fednode.sync import log, segment

PARTS: dict[str, tuple[tuple[Any, str], ...]] = {
    "leaves": ((segment, "leaf_hashes"), (log, "leaf_hashes"), (segment, "decode_leaves")),
    "tree": (
        *((Frontier, name) for name in ("grow", "root", "join")),
        *((merkle, name) for name in ("subtrees", "verify_consistency")),
        (proof, "extension"),
    ),
    "nodes": ((Transaction, "keep_nodes"), (Transaction, "_chain")),
    "signatures": ((Suite, "sign"), (Suite, "verify")),
    "hashes": ((Suite, "hash"),),
    "journal": ((Journal, "event"), (Journal, "within")),
    "scrub": ((Scrub, "step"),),
}


class Meter:
    """CPU seconds by part, of all threads. `begin` puts the timers in."""

    def __init__(self) -> None:
        self._here = threading.local()
        self._lock = threading.Lock()
        self._spent: Counter[str] = Counter()

    def begin(self) -> None:
        for part, places in PARTS.items():
            for owner, name in places:
                plain = owner.__dict__[name]  # not getattr: a static method stays one
                timed = self._timed(part, plain.__func__ if isinstance(plain, staticmethod) else plain)
                setattr(owner, name, staticmethod(timed) if isinstance(plain, staticmethod) else timed)

    def _timed(self, part: str, plain: Callable[..., Any]) -> Callable[..., Any]:
        here, clock = self._here, time.thread_time

        @functools.wraps(plain)
        def timed(*arguments: Any, **more: Any) -> Any:
            if getattr(here, "inside", False):
                return plain(*arguments, **more)
            here.inside = True
            start = clock()
            try:
                return plain(*arguments, **more)
            finally:
                spent = clock() - start
                here.inside = False
                with self._lock:
                    self._spent[part] += spent

        return timed

    def spent(self) -> dict[str, float]:
        """Until now."""
        with self._lock:
            return {part: self._spent[part] for part in PARTS}
