"""What was done at this node and what befell it: the writer of its `sys.audit` and `sys.alerts` logs.

Rules
1. An event is one change of `sys.audit`: written once, never changed. Its key is a stamp in hex and the node, so keys
   sort by time, over all nodes. It stands in the transaction of what it tells of (`within`) wherever there is one.
2. An alert is one record of `sys.alerts`, for each (code, node, subject): raised again with the same evidence it
   changes nothing; new evidence is a new version, and opens it again. So it does when its cause was gone meanwhile.
3. Details are short texts and numbers. Never a payload, the contents or the key of a record, a secret, a token.
4. Both logs are sealed to the nodes above and flow up. What befalls a node may be a hostile peer's doing, so everything
   has a limit: the texts, and how much of a kind is written in an hour (`Throttle`).

>>> # journal = app.journal(writer)
>>> # journal.event("erase", dataset="admin-licence", changes=3)
>>> # journal.alert("FN-6420", "130102", {"log": "hebei/130102/1/admin-licence"}, [note_held, note_offered])
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fednode.crypto import canonical
from fednode.crypto.canonical import INTEGER_MAX
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.node import fence
from fednode.node.link import Refusal
from fednode.node.rows import Held
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer
from fednode.sync.change import ALERTS, AUDIT, KEY_BYTES_MAX, UPSERT, Change
from fednode.sync.clock import HybridClock
from fednode.sync.errors import PeerError, Refused
from fednode.sync.segment import Header, parse

log = logging.getLogger("fednode.journal")
VERSION = 1
RULE_VERSION = 2  # of an alert that a rule has raised, or that somebody has acknowledged
WINDOW_MS = 3_600_000
SUBJECTS_MAX = 50
# Refusals that somebody must look into; forks, rollbacks and clones are found by the writer itself (`Writer.alarms`).
ALARMING = frozenset(
    {"FN-5412", "FN-5419", "FN-5440", "FN-5441", "FN-6210", "FN-6211", "FN-6404", "FN-6405"}
    | {"FN-6406", "FN-6407", "FN-6409", "FN-6411", "FN-6414"}
)
DAEMON = "daemon"
FENCED = "FN-5303"
DONE, REFUSED, FAILED = "done", "refused", "failed"
OPEN, CLOSED = "open", "closed"
TEXT_BYTES_MAX = 256
DETAILS_MAX = 16
EVIDENCE_MAX = 8
EVIDENCE_BYTES_MAX = 4 * 1024  # all together less than what unpacks freely (sync.packing.RATIO_FREE_BYTES)

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


def _told(peer: str, held: int, details: Mapping[str, Any]) -> dict[str, Any]:
    """The details of an event that a peer caused. `held`: how many like it were held back before."""
    named = {"peer": peer} if peer else {}
    return {**named, **details, **({"held_back": held} if held else {})}


class Throttle:
    """How much may be written of what others cause. Of each subject (a peer and a code) once in an hour; of each kind
    no more than SUBJECTS_MAX subjects, for a peer may make up as many as it likes. What was held back is counted.
    `clock`: this machine's own, Unix milliseconds: no peer can move it."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock = clock
        self._last: dict[str, dict[str, int]] = {}
        self._held: dict[str, int] = {}

    def admit(self, kind: str, subject: str, *, again: bool = False) -> int | None:
        """How many of this kind were held back since the last; None when this one is to be held back, too. `again`: the
        same subject may come again."""
        now_ms = self._clock()
        last = {one: at for one, at in self._last.get(kind, {}).items() if 0 <= now_ms - at < WINDOW_MS}
        self._last[kind] = last
        if not again if subject in last else len(last) >= SUBJECTS_MAX:
            self._held[kind] = self._held.get(kind, 0) + 1
            return None
        last[subject] = now_ms
        return self._held.pop(kind, 0)

    def spare(self, kind: str, most: int = SUBJECTS_MAX) -> bool:
        """Whether one more of a kind is within what an hour may see of it."""
        now_ms = self._clock()
        seen = [at for at in self._last.get(kind, {}).values() if 0 <= now_ms - at < WINDOW_MS]
        if len(seen) >= most:
            return False
        self._last[kind] = {str(number): at for number, at in enumerate([*seen, now_ms])}
        return True


class Journal:
    """Writes events and alerts with a Writer, in its thread. `who`: whoever acts; `now_ms`: the corrected clock."""

    def __init__(
        self, writer: Writer, now_ms: Callable[[], int], who: str, software: str, throttle: Throttle | None = None
    ) -> None:
        self._writer, self._store, self._trust = writer, writer.store, writer.trust
        self._now_ms, self._who, self._software = now_ms, who, software
        self._throttle = throttle or Throttle(now_ms)
        self._alerts: dict[str, dict[str, Any]] = {}
        self._last: Held | None = None
        self._read = 0

    @property
    def now_ms(self) -> int:
        """The corrected clock."""
        return self._now_ms()

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

    def note(self, action: str, outcome: str = DONE, *, code: str = "", **details: Any) -> None:
        """As `event`, of what is done already: that it cannot be told does not undo it; the program's log has it."""
        try:
            self.event(action, outcome, code=code, **details)
        except FednodeError as error:
            level = logging.INFO if error.code == FENCED else logging.ERROR  # as it should be
            log.log(level, "not in the audit", extra={"action": action, "outcome": outcome, "code": error.code})

    def befell(self, action: str, outcome: str = DONE, *, peer: str = "", code: str = "", **details: Detail) -> None:
        """Append an event that a peer may have caused: of one peer and code once in an hour. Never raises."""
        held = self._throttle.admit(action, f"{peer} {code}")
        if held is not None:
            self.note(action, outcome, code=code, **_told(peer, held, details))

    def refused(self, tx: Transaction, refusals: Sequence[Refusal]) -> None:
        """Events of refusals, and alerts where they are alarming, in the transaction with the evidence. The alerts
        are one segment: sealing and storing it is most of what an alert costs."""
        alerts: dict[str, dict[str, Any]] = {}
        for one in refusals:
            action = "segment.rejected" if one.by_peer else "segment.refused"
            held = self._throttle.admit(action, f"{one.peer} {one.code}")
            try:
                if held is not None:
                    told = _told(one.peer, held, {"log": one.log})
                    self.within(tx, action, REFUSED, code=one.code, **told)
                if one.code in ALARMING:
                    self._alarm(alerts, one)
            except Refused as error:  # this node may not write at the moment: the evidence is kept all the same
                log.error("not in the audit", extra={"action": action, "code": error.code})
        try:
            self._append_alerts(tx, alerts)
        except Refused as error:
            log.error("not in the audit", extra={"action": "alert", "code": error.code})

    def given(self, tx: Transaction, node: str, segments: int) -> None:
        """The event that content keys were given to a reader that came later, in the transaction that keeps them."""
        self.within(tx, "rewrap", node=node, segments=segments)

    # ------------------------------------------------------------ alerts

    def alert(self, code: str, node: str, params: Mapping[str, Any], evidence: Sequence[str] = ()) -> bool:
        """Raise an alert about a node, durable on return. True when it, or its evidence, is new. Raises StoreError."""
        self._trust.refresh(self._store)
        with self._store.write() as tx:
            return self.alert_within(tx, code, node, params, evidence)

    def alert_within(
        self,
        tx: Transaction,
        code: str,
        node: str,
        params: Mapping[str, Any],
        evidence: Sequence[str] = (),
        source: str = "",
    ) -> bool:
        """As `alert`, in a transaction of this writer's store. What tells two alerts about a node apart is the log that
        `params` names, if any. `source`: whose doing it may be, where not the node's: of each so many an hour."""
        alerts: dict[str, dict[str, Any]] = {}
        self._raise(alerts, code, node, params, evidence, source)
        self._append_alerts(tx, alerts)
        return bool(alerts)

    def _append_alerts(self, tx: Transaction, alerts: Mapping[str, Mapping[str, Any]]) -> None:
        """Payloads by key."""
        changes = [Change(key.encode(), canonical.dumps(payload)) for key, payload in alerts.items()]
        if changes:
            self._writer.append_system(tx, ALERTS, self._trust.area, changes)

    def _raise(
        self,
        alerts: dict[str, dict[str, Any]],
        code: str,
        node: str,
        params: Mapping[str, Any],
        evidence: Sequence[str] = (),
        source: str = "",
    ) -> None:
        """Add an alert to those that are about to be appended, where it says anything new."""
        told = small(params)
        texts = [cut(text, EVIDENCE_BYTES_MAX) for text in evidence[:EVIDENCE_MAX]]
        key = alert_key(code, node, str(told.get("log", "")))
        before = alerts.get(key) or self._own_alert(key)
        same = before is not None and before["params"] == told and before["evidence"] == texts
        if same and before is not None and not before.get("gone"):  # gone, and there again: that is news
            return
        if self._throttle.admit(f"alert {source or node}", f"{key} {told} {texts}", again=True) is None:
            if self._throttle.spare(f"line too many alerts {source or node}", 1):
                log.error("too many alerts", extra={"alert": key, "source": source or node})
            return
        alerts[key] = {
            "v": VERSION,
            "at_ms": self._now_ms(),
            "by": self._trust.node,
            "peer": cut(source, TEXT_BYTES_MAX),
            "software": self._software,
            "code": cut(code, TEXT_BYTES_MAX),
            "node": cut(node, TEXT_BYTES_MAX),
            "params": told,
            "evidence": texts,
            "state": OPEN,
        }

    def rule_within(
        self,
        tx: Transaction,
        rule: str,
        level: str,
        code: str,
        node: str,
        params: Mapping[str, Any],
        base: int = 0,
        subject: str = "",
    ) -> None:
        """Raise what a rule has found about a node, in a transaction of this writer's store. `base`: the stamp of the
        version that there is."""
        payload = {
            "v": RULE_VERSION,
            "at_ms": self._now_ms(),
            "by": self._trust.node,
            "peer": "",
            "software": self._software,
            "code": code,
            "node": cut(node, TEXT_BYTES_MAX),
            "params": small(params),
            "evidence": [],
            "state": OPEN,
            "level": level,
            "rule": rule,
        }
        change = Change(alert_key(code, node, subject).encode(), canonical.dumps(payload), UPSERT, base)
        self._writer.append_system(tx, ALERTS, self._trust.area, [change])

    def _alarm(self, alerts: dict[str, dict[str, Any]], refusal: Refusal) -> None:
        """An alert of a refusal: about the log's origin, or this node where its own segment was refused; with the heads
        that are at odds."""
        if refusal.by_peer:
            node, told = self._rejected(int(refusal.log.removeprefix("lsn:")))
            self._raise(alerts, refusal.code, node, told, source=refusal.peer)
            return
        try:
            header = parse(refusal.raw).header
        except PeerError:  # not even a segment
            header = None
        node = header.log.origin if header else str(refusal.params.get("node", refusal.peer))
        told = {**refusal.params, "log": refusal.log}
        evidence = self._heads(header) if header else ()
        self._raise(alerts, refusal.code, node, told, evidence, refusal.peer)

    def _rejected(self, lsn: int) -> tuple[str, dict[str, Any]]:
        """Whose segment a peer refused, and what there is to say of it: the peer told a code alone."""
        try:
            place = self._store.place(lsn)
        except IntegrityError:  # damaged meanwhile
            place = None
        if place is None:
            return self._trust.node, {"log": f"lsn:{lsn}"}
        name, size, _ = place
        ((first,),) = self._store.rows("select first from segment where lsn = ?", lsn)
        parent = self._trust.directory.parent_of(name.origin) or ""
        who = {"node": name.origin, "sealer": name.origin, "witness": parent, "theirs": name.incarnation, "ours": "?"}
        return name.origin, {"log": str(name), "first": first, "size": size, "end": size, **who}

    def _heads(self, offered: Header) -> Sequence[str]:
        """Signed heads of one log as C2SP notes: the one that was offered, and the newest that is held."""
        origin = self._trust.directory.life(offered.log.origin, offered.log.incarnation)
        if origin is None:
            return ()
        return (fence.note(origin, offered), *fence.heads(self._store, origin, [offered.log]))

    def _own_alert(self, key: str) -> dict[str, Any] | None:
        """The newest version of an alert of this node's own. Its log is short, and read on from where it was left; the
        projection may be far behind. From its start where that place has changed (a transaction was rolled back); up to
        what is damaged in it: rather than none an alert is written twice."""
        log_id = self._store.log_id(self._trust.log_name(ALERTS, self._trust.area))
        if log_id is None:
            return None
        try:
            self._read_on(log_id)
        except IntegrityError:
            self._last = None
        return self._alerts.get(key)

    def _read_on(self, log_id: int) -> None:
        if self._last is None or self._store.segment_at(log_id, self._read - 1) != self._last:
            self._alerts, self._read = {}, 0
        while (held := self._store.segment_at(log_id, self._read)) is not None:
            columns = self._store.columns(held)
            for position, changed in enumerate(columns.keys if columns else ()):
                if columns is not None and columns.ops[position] == UPSERT and position not in columns.leaves:
                    self._alerts[changed.decode()] = canonical.loads(columns.payloads[position])
            self._last, self._read = held, held.first + held.count
