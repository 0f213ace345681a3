"""Rows of log.db, and of the record table, as values. `node.store` and `node.projection` read and write them.

>>> Peer(1, "13", "parent", 0, Cursor(), None, None).since
0
"""

from __future__ import annotations

from dataclasses import dataclass

from fednode.sync.change import LogName
from fednode.sync.clock import bound
from fednode.sync.wire import Cursor


@dataclass(frozen=True, slots=True)
class Held:
    """A segment as it lies in the store."""

    lsn: int
    log_id: int
    name: LogName
    first: int
    count: int
    last_hlc: int
    first_time: int | None
    raw: bytes
    content_key: bytes

    @property
    def bound(self) -> int | None:
        """The bound of its first parent's cosignature."""
        return None if self.first_time is None else bound(self.first_time)


@dataclass(frozen=True, slots=True)
class Peer:
    """Where this node stands with a peer. `acked`: up to which arrival number the peer holds this node's feed;
    `have`: this node the peer's; `since`: this store's arrival number when the peer's present store was first met;
    `witnessed`: how far a child has what it is told of witnesses (None: it does not take it), or this node what the
    parent tells.
    """

    id: int
    node: str
    role: str
    acked: int
    have: Cursor
    last_ms: int | None
    last_error: str | None
    since: int = 0
    witnessed: int | None = None


@dataclass(frozen=True, slots=True)
class Backlog:
    """What a peer has not acknowledged. `changes`: of records; `system`: of logs about the mesh itself (nodes, catalog,
    audit, alerts)."""

    changes: int
    system: int
    segments: int
    bytes: int

    @property
    def all(self) -> int:
        """Changes of either kind."""
        return self.changes + self.system


@dataclass(frozen=True, slots=True)
class Row:
    """The current version of a record."""

    id: int
    key: str
    op: int
    payload: bytes | None
    effective: int
    hlc: int
    base: int
    log: int
    seq: int
    schema_version: int
