"""What was done at this node and what befell it: the writer of its `sys.audit` and `sys.alerts` logs.

Rules
1. An event is one change of `sys.audit`: written once, never changed. Its key is a stamp in hex and the node, so keys
   sort by time, over all nodes. It stands in the transaction of what it tells of (`within`) wherever there is one.
2. An alert is one record of `sys.alerts`, for each (code, node, subject): raised again with the same evidence it
   changes nothing; new evidence is a new version, and opens it again.
3. Details are short texts and numbers. Never a payload, the contents or the key of a record, a secret, a token.
4. Both logs are sealed to the nodes above and flow up. Whoever writes here need not be this node's operator: texts may
   come from a hostile peer, so everything has a limit.

>>> # journal = app.journal(writer)
>>> # journal.event("erase", dataset="admin-licence", changes=3)
>>> # journal.alert("FN-6420", "130102", {"log": "hebei/130102/1/admin-licence"}, [note_held, note_offered])
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fednode.crypto import canonical
from fednode.crypto.canonical import INTEGER_MAX
from fednode.node.store import Held, Transaction
from fednode.node.writer import Writer
from fednode.sync.change import ALERTS, AUDIT, KEY_BYTES_MAX, UPSERT, Change
from fednode.sync.clock import HybridClock

VERSION = 1
DAEMON = "daemon"
DONE, REFUSED, FAILED = "done", "refused", "failed"
OPEN, CLOSED = "open", "closed"
TEXT_BYTES_MAX = 256
DETAILS_MAX = 16
EVIDENCE_MAX = 8
EVIDENCE_BYTES_MAX = 4 * 1024  # all together less than what unpacks freely (sync.segment.RATIO_FREE_BYTES)

Detail = str | int | bool


def event_key(stamp: int, node: str) -> str:
    """The key of an event: sorts by time."""
    return f"{stamp:016x}/{node}"


def alert_key(code: str, node: str, subject: str) -> str:
    """The key of an alert."""
    return cut(f"{code}/{node}/{subject}", KEY_BYTES_MAX)


def cut(text: str, bytes_max: int) -> str:
    """A text that UTF-8 can say, in so many bytes at most."""
    return text.encode("utf-8", "replace")[:bytes_max].decode(errors="ignore")


def small(details: Mapping[str, Any]) -> dict[str, Detail]:
    """Details within their limits: whole numbers that JSON can say, all else as text."""
    return {
        name: value if isinstance(value, int) and abs(value) <= INTEGER_MAX else cut(str(value), TEXT_BYTES_MAX)
        for name, value in list(details.items())[:DETAILS_MAX]
    }


class Journal:
    """Writes events and alerts with a Writer, in its thread. `who`: whoever acts; `now_ms`: the corrected clock."""

    def __init__(self, writer: Writer, now_ms: Callable[[], int], who: str, software: str) -> None:
        self._writer, self._store, self._trust = writer, writer.store, writer.trust
        self._now_ms, self._who, self._software = now_ms, who, software
        self._alerts: dict[str, dict[str, Any]] = {}
        self._last: Held | None = None
        self._read = 0

    # ------------------------------------------------------------ events

    def event(
        self, action: str, outcome: str = DONE, *, who: str | None = None, code: str = "", **details: Detail
    ) -> None:
        """Append one event, durable on return. Raises StoreError."""
        self._trust.refresh(self._store)
        with self._store.write() as tx:
            self.within(tx, action, outcome, who=who, code=code, **details)

    def within(
        self,
        tx: Transaction,
        action: str,
        outcome: str = DONE,
        *,
        who: str | None = None,
        code: str = "",
        **details: Detail,
    ) -> None:
        """Append one event in a transaction of this writer's store. `code`: why, where the outcome is not `done`."""
        now_ms = self._now_ms()
        payload: dict[str, Any] = {
            "v": VERSION,
            "at_ms": now_ms,
            "node": self._trust.node,
            "who": cut(who or self._who, TEXT_BYTES_MAX),
            "software": self._software,
            "action": action,
            "outcome": outcome,
            "details": small(details),
        }
        if code:
            payload["code"] = cut(code, TEXT_BYTES_MAX)
        stamp = HybridClock(int(self._store.meta("hlc", 0))).next(now_ms)
        change = Change(event_key(stamp, self._trust.node).encode(), canonical.dumps(payload))
        self._writer.append_system(tx, AUDIT, self._trust.area, [change])

    # ------------------------------------------------------------ alerts

    def alert(self, code: str, node: str, params: Mapping[str, Any], evidence: Sequence[str] = ()) -> bool:
        """Raise an alert about a node, durable on return. True when it, or its evidence, is new. Raises StoreError."""
        self._trust.refresh(self._store)
        with self._store.write() as tx:
            return self.alert_within(tx, code, node, params, evidence)

    def alert_within(
        self, tx: Transaction, code: str, node: str, params: Mapping[str, Any], evidence: Sequence[str] = ()
    ) -> bool:
        """As `alert`, in a transaction of this writer's store. What tells two alerts about a node apart is the log that
        `params` names, if any."""
        told = small(params)
        texts = [cut(text, EVIDENCE_BYTES_MAX) for text in evidence[:EVIDENCE_MAX]]
        key = alert_key(code, node, str(told.get("log", "")))
        before = self._own_alert(key)
        if before is not None and before["params"] == told and before["evidence"] == texts:
            return False
        payload = {
            "v": VERSION,
            "at_ms": self._now_ms(),
            "by": self._trust.node,
            "software": self._software,
            "code": cut(code, TEXT_BYTES_MAX),
            "node": cut(node, TEXT_BYTES_MAX),
            "params": told,
            "evidence": texts,
            "state": OPEN,
        }
        change = Change(key.encode(), canonical.dumps(payload))
        self._writer.append_system(tx, ALERTS, self._trust.area, [change])
        return True

    def _own_alert(self, key: str) -> dict[str, Any] | None:
        """The newest version of an alert of this node's own. Its log is short, and read on from where it was left; the
        projection may be far behind. From its start where that place has changed (a transaction was rolled back)."""
        log_id = self._store.log_id(self._trust.log_name(ALERTS, self._trust.area))
        if log_id is None:
            return None
        if self._last is None or self._store.segment_at(log_id, self._read - 1) != self._last:
            self._alerts, self._read = {}, 0
        while (held := self._store.segment_at(log_id, self._read)) is not None:
            columns = self._store.columns(held)
            for position, changed in enumerate(columns.keys if columns else ()):
                if columns is not None and columns.ops[position] == UPSERT and position not in columns.leaves:
                    self._alerts[changed.decode()] = canonical.loads(columns.payloads[position])
            self._last, self._read = held, held.first + held.count
        return self._alerts.get(key)
