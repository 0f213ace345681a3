"""What may be written to log.db, all or nothing: a transaction of the store.

Made by `Store.write` only, which begins it (`BEGIN IMMEDIATE`) and commits it (`synchronous=FULL`): when that block has
ended, all of it is on disk. The rules are the store's (`fednode.node.store`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from fednode.crypto.merkle import TreeNode
from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite, urgent
from fednode.node.rows import Peer
from fednode.sync.change import LogName
from fednode.sync.clock import bound
from fednode.sync.effects import HalfSegment
from fednode.sync.errors import StoreError
from fednode.sync.feed import Route
from fednode.sync.log import LogState, OwnSegment
from fednode.sync.verify import VerifiedSegment
from fednode.sync.wire import Cosignature, Cursor

if TYPE_CHECKING:
    from fednode.node.store import Store

CHAIN_BYTES = 8
EVIDENCE_ROWS_MAX = 10_000  # of one peer
REFUSED_MAX = 1_000  # of one peer: of so many it is told again
EVIDENCE_BYTES_MAX = 16 * 1024 * 1024
ROUTES = "routes"  # how often logs were sent other ways than they came with (meta)
EVIDENCE = "evidence/"  # in `meta`, with the peer: what is kept of it


class Transaction:
    """What may be written, all or nothing. Made by `Store.write` only."""

    def __init__(self, store: Store, connection: sqlite.Connection) -> None:
        self.store = store
        self._c = self.connection = connection
        self.drawn = 0  # arrival numbers
        self.twins = False  # whether it was learnt which changes are the same (`made_again`)

    def execute(self, sql: str, *parameters: Any) -> None:
        """For modules with a table of their own."""
        self._c.execute(sql, parameters)

    def set_meta(self, key: str, value: Any) -> None:
        self._c.execute("insert or replace into meta values (?, ?)", (key, value))

    def next_lsn(self) -> int:
        self.drawn += 1
        return int(self._c.execute("update meta set value = value + 1 where key = 'lsn' returning value").fetchone()[0])

    def append_own(self, own: OwnSegment, route: Route) -> int:
        """Append an extension of one of this node's logs. Raises StoreError FN-7611 when the log has moved on."""
        return self._append(
            *(own.before, own.after, own.nodes, own.raw, own.first, own.count),
            *(own.content_key, route, None, None, None),
        )

    def append_verified(
        self, verified: VerifiedSegment, route: Route, peer_id: int, peer_lsn: int, first_parent: Cosignature | None
    ) -> int:
        """Append a segment from a peer. `first_parent`: given with it, or this node's own cosignature. Returns its
        arrival number.
        """
        header = verified.envelope.header
        return self._append(
            verified.before,
            verified.after,
            verified.nodes,
            verified.raw,
            header.first,
            header.count,
            verified.content_key,
            route,
            first_parent,
            peer_id,
            peer_lsn,
        )

    def _append(
        self,
        before: LogState,
        after: LogState,
        nodes: list[TreeNode],
        raw: bytes,
        first: int,
        count: int,
        content_key: bytes,
        route: Route,
        first_parent: Cosignature | None,
        peer_id: int | None,
        peer_lsn: int | None,
    ) -> int:
        log_id = self._move_log(before, after, route)
        if nodes:
            self.keep_nodes(log_id, nodes)
        lsn = self.next_lsn()
        self._chain(lsn, log_id, first, after.root)
        stash = self.store.stash(content_key, lsn) if content_key else None
        self._c.execute(
            "insert into segment values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                lsn,
                log_id,
                first,
                count,
                after.last_hlc,
                SUITE_1.hash(raw),
                stash,
                first_parent.time_s if first_parent else None,
                first_parent.signature if first_parent else None,
                peer_id,
                peer_lsn,
                raw,
            ),
        )
        if urgent.by_log(after.name, count):
            urgent.mark(self, lsn)
        return lsn

    def _chain(self, lsn: int, log_id: int, first: int, root: bytes) -> None:
        """The checksum of the arrival order, one segment further (docs/formats.md)."""
        link = self.store.chain_at(lsn) + b"%d %d %d " % (lsn, log_id, first) + root
        self._c.execute("insert into chain values (?, ?)", (lsn, SUITE_1.hash(link)[:CHAIN_BYTES]))

    def keep_nodes(self, log_id: int, nodes: list[TreeNode]) -> None:
        """Nodes of a log's tree, to prove from (`fednode.node.tree`)."""
        rows = [(log_id, node.level, node.index, node.hash) for node in nodes]
        self._c.executemany("insert or replace into tree values (?, ?, ?, ?)", rows)

    def _move_log(self, before: LogState, after: LogState, route: Route) -> int:
        name = after.name
        frontier = None if after.frontier is None else after.frontier.to_bytes()
        if before.size == 0:
            self._c.execute(
                """insert into log (name, origin, incarnation, dataset, audience, size, root, frontier, last_hlc, up,
                down)
                   values (?, ?, ?, ?, ?, 0, x'', null, 0, ?, ?) on conflict do nothing""",
                (str(name), name.origin, name.incarnation, name.dataset, name.audience, int(route.up), route.down),
            )
        row = self._c.execute(
            "update log set size = ?, root = ?, frontier = ?, last_hlc = ? where name = ? and size = ? returning id",
            (after.size, after.root, frontier, after.last_hlc, str(name), before.size),
        ).fetchone()
        if row is None:
            raise StoreError("FN-7611", log=str(name), size=before.size)
        return int(row[0])

    def set_routes(self, routes: Iterable[tuple[int, Route]]) -> None:
        """Which way logs go on from here, from now on."""
        for log_id, route in routes:
            self._c.execute("update log set up = ?, down = ? where id = ?", (int(route.up), route.down, log_id))
        self.set_meta(ROUTES, int(self.store.meta(ROUTES, 0)) + 1)

    # ------------------------------------------------------------ peers

    def ensure_peer(self, node: str, role: str) -> Peer:
        self._c.execute(
            "insert into peer (node, role) values (?, ?) on conflict (node) do update set role = excluded.role",
            (node, role),
        )
        peer = self.store.peer(node)
        if peer is None:
            raise StoreError("FN-7607", path=str(self.store.path), reason="peer")
        return peer

    def set_have(self, peer_id: int, cursor: Cursor) -> None:
        """How far this node holds the peer's feed."""
        self._c.execute(
            "update peer set have_store = ?, have_lsn = ?, have_check = ? where id = ?",
            (cursor.store, cursor.lsn, cursor.check, peer_id),
        )

    def raise_have(self, peer_id: int, cursor: Cursor) -> None:
        """The same, where it is further than what came some other way meanwhile: by stick, or in another session."""
        self._c.execute(
            """update peer set have_store = ?1, have_lsn = ?2, have_check = ?3
               where id = ?4 and (have_store is not ?1 or have_lsn < ?2)""",
            (cursor.store, cursor.lsn, cursor.check, peer_id),
        )

    def meet_store(self, peer_id: int, store: bytes) -> None:
        """The peer has another store than before: its feed is taken from the start."""
        self.set_have(peer_id, Cursor(store, 0, b""))
        self._c.execute("update peer set since = ?, witnessed = null where id = ?", (self.store.lsn, peer_id))
        self.heard(peer_id, 1 << 62)

    def came_again(self, peer_id: int, since: int, peer_lsn: int, lsn: int) -> None:
        """A segment that is held came from a child at a place where it did not come before: its outcome is told again
        until the child has heard of it."""
        self._c.execute(
            """insert or replace into came_again select ?1, ?2, lsn from segment
               where lsn = ?3 and not (peer is ?1 and peer_lsn is ?2 and lsn > ?4)""",
            (peer_id, peer_lsn, lsn, since),
        )

    def heard(self, peer_id: int, upto: int) -> None:
        """A peer has heard of what it sent, up to one of its arrival numbers."""
        for table in ("came_again", "refused_at"):
            self._c.execute(f"delete from {table} where peer = ? and peer_lsn <= ?", (peer_id, upto))

    def refused_at(self, peer_id: int, peer_lsn: int, code: str) -> None:
        """What a peer sent was refused: it is told again until the peer has heard of it. The first `REFUSED_MAX`."""
        self._c.execute(
            """insert or ignore into refused_at select ?1, ?2, ?3
               where (select count(*) from refused_at where peer = ?1) < ?4""",
            (peer_id, peer_lsn, code, REFUSED_MAX),
        )

    def raise_acked(self, peer_id: int, acked: int) -> None:
        """The peer holds this node's feed up to here; never goes down."""
        self._c.execute("update peer set acked = max(acked, ?) where id = ?", (acked, peer_id))

    def touch_peer(self, peer_id: int, now_ms: int, error: str | None = None) -> None:
        self._c.execute("update peer set last_ms = ?, last_error = ? where id = ?", (now_ms, error, peer_id))

    def note_error(self, peer_id: int, code: str) -> None:
        """Why a peer was not reached; the time of the last exchange stays."""
        self._c.execute("update peer set last_error = ? where id = ?", (code, peer_id))

    def set_first_parent(
        self, lsn: int, given: Cosignature, *, tell: bool = False, instead: bool = False
    ) -> tuple[int, int] | None:
        """The first parent's cosignature of a segment already held: the earliest counts, or this one (`instead`). When
        it moves a stamp, a `late` entry makes the projections and the feeds take notice; `tell`: in any case, for a
        standby wants it. Returns (log id, lsn of the late entry), or None when nothing follows from it."""
        row = self._c.execute("select log_id, last_hlc, first_time from segment where lsn = ?", (lsn,)).fetchone()
        if row is None or (row[2] is not None and (row[2] == given.time_s or (row[2] < given.time_s and not instead))):
            return None
        self._c.execute(
            "update segment set first_time = ?, first_signature = ? where lsn = ?", (given.time_s, given.signature, lsn)
        )
        earliest = given.time_s if row[2] is None else min(row[2], given.time_s)
        if row[1] <= bound(earliest) and not tell:
            return None
        late = self.next_lsn()
        self._c.execute(
            "insert into late (lsn, log_id, segment_lsn, time_s) values (?, ?, ?, ?)", (late, row[0], lsn, given.time_s)
        )
        return row[0], late

    def set_witnessed(self, peer_id: int, number: int | None) -> None:
        """How far a child has what it is told of witnesses, or this node what its parent tells."""
        self._c.execute("update peer set witnessed = ? where id = ?", (number, peer_id))

    def hold_back(self, lsn: int) -> None:
        """A segment of an earlier life that goes nowhere: its changes are made again in this one. What came later may
        have been made again before it."""
        self._c.execute("insert or ignore into held_back values (?)", (lsn,))
        if int(self.store.meta("salvaged", 0)) >= lsn:
            self.set_meta("salvaged", lsn - 1)
        self._c.execute("delete from resealed where segment_lsn = ?", (lsn,))

    def made_again(self, log: LogName, positions: Sequence[int], new: LogName, new_first: int) -> None:
        """Changes of a log of an earlier life, at these positions (rising), were made again in another log from a
        number on."""
        runs: list[list[int]] = []  # first, count, first of the new ones
        for i, seq in enumerate(positions):
            if runs and seq == runs[-1][0] + runs[-1][1]:
                runs[-1][1] += 1
            else:
                runs.append([seq, 1, new_first + i])
        self.know_twins((str(log), first, count, str(new), at) for first, count, at in runs)

    def know_twins(self, rows: Iterable[Sequence[Any]]) -> None:
        """Rows of `made_again`."""
        self._c.executemany("insert or ignore into made_again values (?, ?, ?, ?, ?)", rows)
        self.twins = True

    def keep_evidence(self, at_ms: int, peer: str, code: str, log: str, first: int, params: str, data: bytes) -> bool:
        """Keep what was refused, once; of one peer `EVIDENCE_ROWS_MAX`, the segments themselves up to
        `EVIDENCE_BYTES_MAX`: it may send as much as it likes. Returns whether it is news, and was kept."""
        rows, size = self._evidence(peer)
        if rows >= EVIDENCE_ROWS_MAX:
            return False
        kept = data if size + len(data) <= EVIDENCE_BYTES_MAX else b""
        cursor = self._c.execute(
            "insert or ignore into refused (at_ms, peer, code, log, first, params, data) values (?, ?, ?, ?, ?, ?, ?)",
            (at_ms, peer, code, log, first, params, kept),
        )
        if cursor.rowcount:
            self.set_meta(EVIDENCE + peer, f"{rows + 1} {size + len(kept)}")
        return bool(cursor.rowcount)

    def _evidence(self, peer: str) -> tuple[int, int]:
        """How much is kept of what a peer sent and was refused: pieces and bytes. A store of before has not counted."""
        counted = self.store.meta(EVIDENCE + peer)
        if counted is None:
            there = "select count(*), coalesce(sum(length(data)), 0) from refused where peer = ?"
            counted = "{} {}".format(*self._c.execute(there, (peer,)).fetchone())
        rows, size = map(int, counted.split())
        return rows, size

    def forget_refused(self, peer: str, only: Sequence[int] | None = None) -> int:
        """Give what a peer sent and was refused (`only`: of these numbers) another chance: its feed is asked for from
        the start. Returns how many."""
        if only is None:
            count = self._c.execute("delete from refused where peer = ?", (peer,)).rowcount
        else:
            rows = [(peer, number) for number in only]
            count = self._c.executemany("delete from refused where peer = ? and id = ?", rows).rowcount
        self._c.execute("delete from meta where key = ?", (EVIDENCE + peer,))
        self._c.execute("delete from refused_at where peer = (select id from peer where node = ?)", (peer,))
        self._c.execute("update peer set have_lsn = 0, have_check = null where node = ?", (peer,))
        return int(count)

    def forget_rejected(self, peer: str) -> None:
        """What a peer refused of this node's is judged once more: what it lacks is sent again."""
        self._c.execute("delete from refused where peer = ? and log like 'lsn:%'", (peer,))
        self._c.execute("delete from meta where key = ?", (EVIDENCE + peer,))

    def set_partial(self, peer: str, half: HalfSegment | None) -> None:
        self._c.execute("delete from partial where peer = ?", (peer,))
        if half is not None:
            given = half.first_parent
            self._c.execute(
                "insert into partial values (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    peer,
                    half.lsn,
                    half.total,
                    half.digest,
                    bytes(half.data),
                    given.time_s if given else None,
                    given.signature if given else None,
                    given.witness if given else None,
                ),
            )

    # ------------------------------------------------------------ invitations

    def add_invite(
        self, token_hash: bytes, stick_key: bytes, node: str, name: str, level: str, scope: str, expires_s: int
    ) -> None:
        self._c.execute(
            "insert into invite (token_hash, stick_key, node, name, level, scope, expires_s) values (?,?,?,?,?,?,?)",
            (token_hash, stick_key, node, name, level, scope, expires_s),
        )

    def use_invite(self, token_hash: bytes, used_s: int, used_key: bytes) -> None:
        self._c.execute(
            "update invite set used_s = ?, used_key = ? where token_hash = ?", (used_s, used_key, token_hash)
        )
