"""Which version of a record wins, and what it says: the merge, with ranks and payloads as this node has them. For the
projection that makes records, and for the scrub that looks whether it did.

>>> # Judge(store, trust).judge("latest", {(row.log, row.seq): row, ...})
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from fednode.crypto.certs import Identity
from fednode.node.rows import Row
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync import merge
from fednode.sync.change import DELETE, UPSERT, LogName
from fednode.sync.errors import StoreError

Versions = dict[tuple[int, int], Row]  # by their places: the number of a log, and the number there


class Judge:
    """Judges the versions of one node's records."""

    def __init__(self, store: Store, trust: Trust) -> None:
        self.store, self.trust = store, trust
        self._logs: dict[int, LogName] = {}

    def rank(self, node: Identity | None) -> int:
        """The rank of a node's level in the merge."""
        directory = self.trust.directory
        return len(directory.levels) - directory.rank(node.level) if node else 0

    def version(self, row: Row) -> merge.Version:
        """A version as the merge sees it."""
        name = self.log_name(row.log)
        rank = self.rank(self.trust.directory.life(name.origin, name.incarnation))
        return merge.Version(
            *(row.effective, row.hlc, name.origin, name.incarnation, row.seq, rank, row.op, row.base),
            place=row.log,
            audience=name.audience,
        )

    def log_name(self, log_id: int) -> LogName:
        """The name of a log by its number here."""
        if log_id not in self._logs:
            self._logs = {one: name for one, name, _ in self.store.logs()}
        return self._logs[log_id]

    def area_of(self, name: LogName) -> str:
        """The area whose records a log has."""
        if name.audience:
            return name.audience
        origin = self.trust.directory.life(name.origin, name.incarnation)
        return origin.scope[0] if origin else name.origin

    def judge(self, rule: str, versions: Versions) -> tuple[Row, bytes | None, set[tuple[int, int]]] | None:
        """What versions of a record say: the one that wins, the record's payload, and which of them are conflicts. None
        where there is none, or what they said is stripped: no record."""
        alive = dict(versions)
        told: dict[tuple[int, int], bytes | None] = {}
        while alive:
            winner, conflicts = merge.resolve(rule, [self.version(one) for one in alive.values()])
            best = alive[(winner.place, winner.seq)]
            for one in (best,) if rule != "field" else list(alive.values()):
                told[(one.log, one.seq)] = payload = self.payload(one)
                if payload is None and one.op == UPSERT:
                    del alive[(one.log, one.seq)]
            if (best.log, best.seq) in alive:
                whole = self._overlay(list(alive.values()), told) if rule == "field" else told[(best.log, best.seq)]
                return best, whole, {(one.place, one.seq) for one in conflicts}
        return None

    def payload(self, row: Row) -> bytes | None:
        """The payload of any version, out of the log; None for a deletion, and for what was stripped."""
        if row.op != UPSERT:
            return None
        held = self.store.segment_at(row.log, row.seq)
        columns = self.store.columns(held) if held else None
        if held is None or columns is None:
            raise StoreError("FN-7614", log=row.log, seq=row.seq)
        position = row.seq - held.first
        return None if position in columns.leaves else columns.payloads[position]

    def _overlay(self, versions: Sequence[Row], payloads: Mapping[tuple[int, int], bytes | None]) -> bytes | None:
        ordered = sorted(versions, key=lambda one: merge.order("field", self.version(one)))
        fields = [(one.op, msgspec.json.decode(payloads[(one.log, one.seq)] or b"{}")) for one in ordered]
        record = merge.overlay(fields)
        if not record and ordered[-1].op == DELETE:
            return None
        return msgspec.json.encode(dict(sorted(record.items())))
