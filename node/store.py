"""log.db: what this node holds, in the order in which it arrived. The only thing that must never be lost.

Rules
1. `create` makes a store, `open` only loads one. Nothing else creates.
2. All writes go through `write()`: one transaction, `BEGIN IMMEDIATE`, `synchronous=FULL`. When it has ended, it is
   on disk. Where the disk is nearly full, the reserve makes way for it (`node.room`).
3. `append` takes only an `OwnSegment` or a `VerifiedSegment`: a type says what has been proved. It is a
   compare-and-swap on the log's size.
4. The bytes of a segment carry a SHA-256 that is checked at every read (IntegrityError FN-6601 names the log and the
   range).
5. Several processes may use one store (the daemon and a command beside it): nothing that matters is cached across
   transactions.
6. Sums over what nothing else proves are written in each transaction (`node.sums`).
7. Content keys are kept wrapped under the node's stash key, so that the disk alone reveals nothing.

>>> # store = Store.create(path, store_id=rng(16), stash_key=rng(32))
>>> # with store.write() as tx: tx.append_own(own, route)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fednode.crypto.errors import IntegrityError
from fednode.crypto.merkle import Frontier
from fednode.crypto.suite import SUITE_1
from fednode.node import profile, resealed, rewraps, room, sqlite, sums, urgent
from fednode.node.rows import Backlog, Held, Peer
from fednode.node.schema import lacking, log_migrations, migrate
from fednode.node.transaction import Transaction
from fednode.node.upgrading import copy_before
from fednode.sync import segment as seg
from fednode.sync.change import Columns, LogName
from fednode.sync.effects import HalfSegment, Item
from fednode.sync.enrol import Invitation
from fednode.sync.errors import StoreError
from fednode.sync.log import LogState
from fednode.sync.wire import Cosignature, Cursor

CHECK_BYTES = 8
_SEGMENT = """
    select s.lsn, s.log_id, l.name, s.first, s.count, s.last_hlc, s.first_time, s.data, s.content_key, s.sha256
    from segment s join log l on l.id = s.log_id"""


class Store:
    """A node's log.db. Not thread-safe: one Store object for each thread."""

    def __init__(self, connection: sqlite.Connection, path: Path, stash_key: bytes) -> None:
        self._c = connection
        self.path = path
        self._stash_key = stash_key
        self.store_id: bytes = self.meta("store_id")
        self.damaged: set[tuple[str, int]] = set()  # what feeds met and passed over: (log, first)
        self.drawn = 0  # arrival numbers, in transactions of this object that are on disk
        self._noted: sums.Noted | None = None  # with the first transaction
        self.room = room.NOWHERE  # whoever opens a home's store says where its room is,
        self.profile = profile.NORMAL  # and how much memory there is

    @classmethod
    def create(cls, path: Path, *, store_id: bytes, stash_key: bytes) -> Store:
        """A new, empty store. Raises StoreError FN-7609 when there is one already."""
        if path.exists():
            raise StoreError("FN-7609", path=str(path))
        connection = sqlite.connect(path, synchronous="FULL")
        migrate(connection, log_migrations, path)
        with sqlite.transaction(connection, path):
            connection.execute("insert into meta values ('store_id', ?), ('lsn', 0), ('hlc', 0)", (store_id,))
        sums.begin(connection, path, anew=True)
        return cls(connection, path, stash_key)

    @classmethod
    def open(cls, path: Path, *, stash_key: bytes) -> Store:
        """An existing store. Raises StoreError FN-7610 when there is none, FN-7608 when it is newer than the
        program.
        """
        if not path.exists():
            raise StoreError("FN-7610", path=str(path))
        connection = sqlite.connect(path, synchronous="FULL")
        changed = bool(lacking(connection, log_migrations, path))
        migrate(connection, log_migrations, path, copy_before)
        sums.begin(connection, path, anew=changed)
        return cls(connection, path, stash_key)

    @classmethod
    def read(cls, path: Path, *, stash_key: bytes) -> Store:
        """A store that is open already elsewhere, for reading only."""
        return cls(sqlite.connect(path, synchronous="FULL", readonly=True), path, stash_key)

    @classmethod
    def look(cls, path: Path, *, stash_key: bytes) -> Store:
        """An existing store for reading only, without a trace of it: for `fednode doctor`. Raises StoreError FN-7610
        when there is none, and what `sqlite.look` raises."""
        if not path.exists():
            raise StoreError("FN-7610", path=str(path))
        connection = sqlite.look(path)
        try:
            return cls(connection, path, stash_key)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        self._c.close()

    @contextmanager
    def away(self) -> Iterator[None]:
        """No connection to the database for a while: for who starts processes by fork (`fednode.node.workers`)."""
        self._c.close()
        try:
            yield
        finally:
            self._c, self._noted = sqlite.connect(self.path, synchronous="FULL"), None

    @property
    def stash_key(self) -> bytes:
        """For a process of one's own that reads this store."""
        return self._stash_key

    @property
    def connection(self) -> sqlite.Connection:
        """For the modules that keep a subject of their own in log.db (`resealed`, `erasures`)."""
        return self._c

    def suit(self, chosen: profile.Profile) -> None:
        """Take as much memory as a profile allows, here and in what works on this store."""
        self.profile = chosen
        sqlite.limit(self._c, chosen.log_cache_kib, chosen.heap_bytes)

    @contextmanager
    def write(self) -> Iterator[Transaction]:
        """One durable transaction."""
        self.room.make_way()
        if self._noted is None:
            with sqlite.told(self.path):
                self._noted = sums.Noted(self._c)
        self._noted.forget()
        with sqlite.transaction(self._c, self.path):
            tx = Transaction(self, self._c)
            yield tx
            self._noted.settle()
        self._noted.stand()
        self.drawn += tx.drawn
        if self.room.given_up:
            sqlite.truncate(self._c)  # what the write-ahead log takes is room as well

    # ------------------------------------------------------------ reading

    def _rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        try:
            rows: list[tuple[Any, ...]] = self._c.execute(sql, parameters).fetchall()
            return rows
        except sqlite.UNREADABLE as error:
            raise sqlite.trouble(error, self.path) from error

    def rows(self, sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """For modules that look at the store in a way of their own."""
        return self._rows(sql, *parameters)

    def meta(self, key: str, default: Any = None) -> Any:
        """A value of the `meta` table."""
        rows = self._rows("select value from meta where key = ?", key)
        return rows[0][0] if rows else default

    def metas(self, *keys: str) -> dict[str, Any]:
        """Those of some values of the `meta` table that there are, in one look."""
        return dict(self._rows(f"select key, value from meta where key in ({', '.join('?' * len(keys))})", *keys))

    @property
    def lsn(self) -> int:
        """The last arrival number given out."""
        return int(self.meta("lsn"))

    def data_version(self) -> int:
        """A number that changes when another connection, of this or another process, has committed."""
        return int(self._rows("pragma data_version")[0][0])

    def log_state(self, name: LogName) -> LogState:
        """Where a log stands here; an unknown log is empty."""
        rows = self._rows("select size, root, frontier, last_hlc from log where name = ?", str(name))
        if not rows:
            return LogState(name)
        size, root, frontier, last_hlc = rows[0]
        if frontier is None:
            return LogState(name, None, last_hlc, size, root)
        return LogState(name, Frontier.from_bytes(frontier), last_hlc)

    def logs(self) -> list[tuple[int, LogName, int]]:
        """(id, name, size) of every log held."""
        return [(r[0], LogName.parse(r[1]), r[2]) for r in self._rows("select id, name, size from log order by id")]

    def log_id(self, name: LogName) -> int | None:
        """The number of a log here; None where nothing of it is held."""
        rows = self._rows("select id from log where name = ?", str(name))
        return int(rows[0][0]) if rows else None

    def _checked(self, lsn: int, sha256: bytes, data: bytes, what: str = "") -> bytes:
        if SUITE_1.hash(data) != sha256:
            raise IntegrityError("FN-6601", lsn=lsn, path=str(self.path))
        return data

    def segments(self, after: int, limit: int, *, dataset: str = "") -> list[Held]:
        """Segments in arrival order after an arrival number, at most `limit`, only of a dataset when one is named."""
        sql = _SEGMENT + """ where s.lsn > ?"""
        parameters: list[Any] = [after]
        if dataset:
            sql += " and l.dataset = ?"
            parameters.append(dataset)
        rows = self._rows(sql + " order by s.lsn limit ?", *parameters, limit)
        return [self._held(row) for row in rows]

    def digests(self, after: int, limit: int) -> list[tuple[int, LogName, int, bytes]]:
        """(lsn, log, first, SHA-256 as kept) of segments in arrival order; their bytes are not read."""
        rows = self._rows(
            """select s.lsn, l.name, s.first, s.sha256 from segment s join log l on l.id = s.log_id
               where s.lsn > ? order by s.lsn limit ?""",
            after,
            limit,
        )
        return [(lsn, LogName.parse(name), first, sha256) for lsn, name, first, sha256 in rows]

    def digest(self, name: LogName, first: int) -> bytes | None:
        """The SHA-256, as kept, of the segment that starts at `first`."""
        rows = self._rows(
            "select s.sha256 from segment s join log l on l.id = s.log_id where l.name = ? and s.first = ?",
            str(name),
            first,
        )
        return rows[0][0] if rows else None

    def segment_at(self, log_id: int, seq: int) -> Held | None:
        """The segment that holds change `seq` of a log."""
        rows = self._rows(
            """select s.lsn, s.log_id, l.name, s.first, s.count, s.last_hlc, s.first_time, s.data, s.content_key,
            s.sha256
               from segment s join log l on l.id = s.log_id where s.log_id = ? and s.first <= ? order by s.first desc
               limit 1""",
            log_id,
            seq,
        )
        return self._held(rows[0]) if rows and seq < rows[0][3] + rows[0][4] else None

    def _held(self, row: tuple[Any, ...]) -> Held:
        lsn, log_id, name, first, count, last_hlc, first_time, data, content_key, sha256 = row
        self._checked(lsn, sha256, data)
        return Held(lsn, log_id, LogName.parse(name), first, count, last_hlc, first_time, data, content_key or b"")

    def columns(self, held: Held) -> Columns | None:
        """What is in a held segment; None where this node only carries it."""
        envelope = seg.parse(held.raw)
        if not envelope.sealed:
            return seg.decode_body(envelope.body)
        if not held.content_key:
            return None
        return seg.open_with_content_key(envelope, self.unstash(held.content_key))

    def held_range(self, name: LogName, first: int) -> tuple[int, bytes, int, bytes, Cosignature | None] | None:
        """(lsn, sha256, end, raw, first-parent cosignature) of the segment that starts at `first`."""
        rows = self._rows(
            """select s.lsn, s.sha256, s.first + s.count, s.data, s.first_time, s.first_signature
               from segment s join log l on l.id = s.log_id where l.name = ? and s.first = ?""",
            str(name),
            first,
        )
        if not rows:
            return None
        lsn, sha256, end, data, time_s, signature = rows[0]
        return lsn, sha256, end, data, None if time_s is None else Cosignature(time_s, signature)

    def places(self, log_id: int, after: int, limit: int) -> list[tuple[int, int, int]]:
        """(lsn, first, count) of a log's segments whose first change comes after one, in order. What is no number is no
        place: a gap."""
        rows = self._rows(
            """select lsn, first, count from segment where log_id = ? and first > ?
               and typeof(first) = 'integer' and typeof(count) = 'integer' order by first limit ?""",
            log_id,
            after,
            limit,
        )
        return [(lsn, first, count) for lsn, first, count in rows]

    def first_parent(self, lsn: int) -> Cosignature | None:
        """The first parent's cosignature of a segment."""
        rows = self._rows("select first_time, first_signature from segment where lsn = ?", lsn)
        return Cosignature(*rows[0]) if rows and rows[0][0] is not None else None

    def ending_at(self, name: LogName, size: int) -> int | None:
        """Arrival number of the segment after which a log had exactly this size."""
        rows = self._rows(
            """select s.lsn, s.first + s.count from segment s join log l on l.id = s.log_id
               where l.name = ? and s.first < ? order by s.first desc limit 1""",
            str(name),
            size,
        )
        return rows[0][0] if rows and rows[0][1] == size else None

    def place(self, lsn: int) -> tuple[LogName, int, bytes] | None:
        """(log, size after it, root there) of the segment at an arrival number. Raises IntegrityError FN-6601."""
        rows = self._rows("select sha256, data from segment where lsn = ?", lsn)
        if not rows:
            return None
        header = seg.parse(self._checked(lsn, *rows[0])).header
        return header.log, header.end, header.root

    def announced(self, lsn: int) -> int:
        """The arrival number of the segment that was announced under one (`node.resealed`); of all others their own."""
        rows = self._rows("select segment_lsn from resealed where lsn = ?", lsn)
        return int(rows[0][0]) if rows else lsn

    def chain_at(self, lsn: int) -> bytes:
        """The checksum of the arrival order up to a number: with the number it is a position that no other history has.
        Empty before the first segment that has one."""
        rows = self._rows("select sum from chain where lsn <= ? order by lsn desc limit 1", lsn)
        return rows[0][0] if rows else b""

    # ------------------------------------------------------------ feeds

    def checks_at(self, lsn: int) -> tuple[bytes, ...]:
        """What a peer must show of the segment at an arrival number to be believed: the head of its root (which
        outlives a strip), or of its bytes' hash, as programs before did. Empty when nothing whole lies there."""
        rows = self._rows(
            """select sha256, data from segment
               where lsn = ?1 or lsn = (select segment_lsn from resealed where lsn = ?1)""",
            lsn,
        )
        if not rows or SUITE_1.hash(rows[0][1]) != rows[0][0]:
            return ()
        return seg.parse(rows[0][1]).header.root[:CHECK_BYTES], rows[0][0][:CHECK_BYTES]

    def feed_up(
        self,
        after: int,
        bytes_max: int,
        log: str = "",
        first: int = 0,
        until: int = 1 << 62,
        only: Sequence[int] | None = None,
        lives: tuple[str, int] = ("", 0),
    ) -> tuple[list[Item], bool]:
        """Items for the parent after an arrival number, and whether that is all there is. `only`: of the segments just
        these; `lives`: a node (the parent) whose logs of incarnations before one it is given back."""
        until = min(until, self.lsn)  # what is committed between the queries below is for the next call
        where, parameters = "(l.up = 1 or (l.origin = ? and l.incarnation < ?))", list[Any](lives)
        if log:
            where, parameters = f"{where} and l.name = ? and s.first + s.count > ?", [*lives, log, first]
        return self._items(where, parameters, after, until, bytes_max, ("up = 1", []), part=bool(log), only=only)

    def feed_down(
        self,
        scope: tuple[str, ...],
        after: int,
        bytes_max: int,
        log: str = "",
        first: int = 0,
        until: int = 1 << 62,
        also: Sequence[int] = (),
        only: Sequence[int] | None = None,
        back: bool = True,
    ) -> tuple[list[Item], bool]:
        """Items for a child with this scope: logs for every child, and those whose audience the child covers; `also`:
        the logs that it takes back; `back`: and what is stripped here of those that it carries and cannot read."""
        until = min(until, self.lsn)  # what is committed between the queries below is for the next call
        ids = self.down_logs(scope)
        where, parameters = f"s.log_id in ({','.join(map(str, (*ids, *also)))})", []
        if log:
            where, parameters = where + " and l.name = ? and s.first + s.count > ?", [log, first]
        to, given = _covered(scope), resealed.back_to(scope) if back else None
        return self._items(
            where, parameters, after, until, bytes_max, to, part=bool(log), ids=ids, only=only, back=given
        )

    def down_logs(self, scope: tuple[str, ...]) -> list[int]:
        """Numbers of the logs that go down to a child with this scope."""
        likes, ranges = _covered(scope)
        return [
            row[0] for row in self._rows(f"select id from log where down <> '' and (down = '*' or {likes})", *ranges)
        ]

    def grown_down(self, after: int) -> list[str]:
        """Where what has a later arrival number than this goes down to (`Route.down`), each once."""
        rows = self._rows(
            """select l.down from segment s join log l on l.id = s.log_id where s.lsn > ?1 and l.down <> ''
               union select l.down from late t join log l on l.id = t.log_id where t.lsn > ?1 and l.down <> ''
               union select l.down from resealed r join segment s on s.lsn = r.segment_lsn
               join log l on l.id = s.log_id where r.lsn > ?1 and l.down <> ''
               union select back from resealed where lsn > ?1 and back <> ''
               union select down from rewrap where lsn > ?1 and down <> ''""",
            after,
        )
        return [down for (down,) in rows]

    def lives(self, node: str, before: int) -> list[int]:
        """Numbers of a node's own logs of incarnations before one. Before the first there are none: all logs are not
        looked through for them."""
        if before <= 1:
            return []
        return [row[0] for row in self._rows("select id from log where origin = ? and incarnation < ?", node, before)]

    def hurry_up(self, after: int, beyond: int) -> urgent.Found:
        """What of the parent's feed goes ahead of its turn (`node.urgent`)."""
        return urgent.find(self, "l.up = 1", after, beyond)

    def hurry_down(self, scope: tuple[str, ...], after: int, beyond: int) -> urgent.Found:
        """The same for a child with this scope."""
        ids = ",".join(map(str, self.down_logs(scope)))
        return urgent.find(self, f"s.log_id in ({ids})", after, beyond)

    def hurry_all(self, but: str, after: int, beyond: int) -> urgent.Found:
        """The same for a standby: of everything but its own."""
        ids = ",".join(str(row[0]) for row in self._rows("select id from log where origin <> ?", but))
        return urgent.find(self, f"s.log_id in ({ids})", after, beyond)

    def feed_all(
        self,
        but: str,
        after: int,
        bytes_max: int,
        log: str = "",
        first: int = 0,
        until: int = 1 << 62,
        only: Sequence[int] | None = None,
    ) -> tuple[list[Item], bool]:
        """Items for a standby: everything but what that node itself wrote, and of rewraps its own."""
        until = min(until, self.lsn)  # what is committed between the queries below is for the next call
        ids = [row[0] for row in self._rows("select id from log where origin <> ?", but)]
        where, parameters = "l.origin <> ?", list[Any]((but,))
        if log:
            where, parameters = where + " and l.name = ? and s.first + s.count > ?", [but, log, first]
        to = ("node = ?", [but])
        return self._items(where, parameters, after, until, bytes_max, to, part=bool(log), ids=ids, only=only)

    def _items(
        self,
        where: str,
        parameters: list[Any],
        after: int,
        until: int,
        bytes_max: int,
        to: tuple[str, list[str]],
        *,
        part: bool,
        ids: list[int] | None = None,
        only: Sequence[int] | None = None,
        back: tuple[str, list[str]] | None = None,
    ) -> tuple[list[Item], bool]:
        with sqlite.told(self.path):
            these = "" if only is None else "and s.lsn in (select value from json_each(?))"
            cursor = self._c.execute(
                f"""select s.lsn, s.data, s.sha256, s.first_time, s.first_signature, l.name, s.first
                    from segment s join log l on l.id = s.log_id
                    where {where} and s.lsn > ? and s.lsn <= ? and s.lsn not in (select lsn from held_back) {these}
                    order by s.lsn""",
                (*parameters, after, until, *(() if only is None else (json.dumps(only),))),
            )
            items: list[Item] = []
            size, drained = 0, True
            for lsn, data, sha256, time_s, signature, name, first in cursor:
                if items and size + len(data) > bytes_max:
                    drained = False
                    break
                if SUITE_1.hash(data) != sha256:
                    self.damaged.add((name, first))
                    continue
                size += len(data)
                items.append(Item(lsn, data, None if time_s is None else Cosignature(time_s, signature), digest=sha256))
            cursor.close()
            if part:  # of one log, for a peer that asked for it
                return items, drained
            if items and drained and len(items) == until - after:  # each number is given out once: that is all
                return items, drained
            until = until if drained else items[-1].lsn
            if back is not None:
                where, parameters = f"({where} or {back[0]})", [*parameters, *back[1]]
            again, last = resealed.items(self._c, where, parameters, after, until, bytes_max - size)
            given, last = rewraps.items(self._c, *to, after, last, bytes_max - size)
            late = resealed.late_items(self._c, ids, after, last) if ids else []
            if again or given or late:
                items = [one for one in (*items, *again, *given, *late) if one.lsn <= last]
                items.sort(key=lambda item: item.lsn)
            return items, drained and last == until

    def late_after(self, after: int, limit: int) -> list[tuple[int, int]]:
        """(lsn, segment lsn) of late cosignatures, for the projections."""
        return [
            (r[0], r[1])
            for r in self._rows("select lsn, segment_lsn from late where lsn > ? order by lsn limit ?", after, limit)
        ]

    def opened_after(self, after: int, limit: int) -> list[tuple[int, int]]:
        """(lsn, segment lsn) of what became readable by a rewrap, for the projections."""
        sql = "select lsn, opened from rewrap where opened is not null and lsn > ? order by lsn limit ?"
        return [(lsn, segment) for lsn, segment in self._rows(sql, after, limit)]

    def last_of_feed(self, standby: str) -> int:
        """The last arrival number of what a standby is sent."""
        rows = self._rows(
            """select max(lsn) from (
                   select max(s.lsn) as lsn from segment s join log l on l.id = s.log_id
                   where l.origin <> ?1 and s.lsn not in (select lsn from held_back)
                   union all select max(r.lsn) from resealed r join segment s on s.lsn = r.segment_lsn
                   join log l on l.id = s.log_id where l.origin <> ?1
                   union all select max(t.lsn) from late t join log l on l.id = t.log_id where l.origin <> ?1
                   union all select max(lsn) from rewrap where node = ?1 and data <> x'')""",
            standby,
        )
        return int(rows[0][0] or 0)

    def backlog_up(self, acked: int) -> Backlog:
        """What the parent has not acknowledged."""
        return self._backlog("l.up = 1", acked)

    def backlog_down(self, scope: tuple[str, ...], acked: int) -> Backlog:
        """What a child has not acknowledged."""
        ids = ",".join(map(str, self.down_logs(scope)))
        return self._backlog(f"s.log_id in ({ids})", acked)

    def backlog_standby(self, node: str, acked: int) -> Backlog:
        """What a standby has not acknowledged."""
        return self._backlog("l.origin <> ?2", acked, node)

    def _backlog(self, where: str, acked: int, *more: Any) -> Backlog:
        """Segments of some logs after an arrival number; those that are sent again count, their changes do not. What is
        held back goes nowhere."""
        rows = self._rows(
            f"""select coalesce(sum(iif(system, 0, changes)), 0), coalesce(sum(iif(system, changes, 0)), 0), count(*),
                coalesce(sum(size), 0) from (
                    select l.dataset like 'sys.%' as system, s.count as changes, length(s.data) as size
                    from segment s join log l on l.id = s.log_id
                    where {where} and s.lsn > ?1 and s.lsn not in (select lsn from held_back)
                    union all select 0, 0, length(s.data) from resealed r join segment s on s.lsn = r.segment_lsn
                    join log l on l.id = s.log_id where {where} and r.lsn > ?1)""",
            *(acked, *more),
        )
        return Backlog(*rows[0])

    def is_held_back(self, log: LogName) -> bool:
        """Whether something of a log is held back: then all that follows it is."""
        sql = "select 1 from held_back h join segment s on s.lsn = h.lsn join log l on l.id = s.log_id where l.name = ?"
        return bool(self._rows(sql + " limit 1", str(log)))

    def made_again(self, log: LogName, first: int, count: int) -> dict[int, list[tuple[LogName, int]]]:
        """Of changes of a log those that were made again, or said once more (for each late write), and as what."""
        rows = self._rows(
            """select first, count, new_log, new_first from made_again
               where log = ? and first < ? and first + count > ? order by new_log, new_first""",
            *(str(log), first + count, first),
        )
        found: dict[int, list[tuple[LogName, int]]] = {}
        for start, length, new, at in rows:
            for seq in range(max(start, first), min(start + length, first + count)):
                found.setdefault(seq, []).append((LogName.parse(new), at + seq - start))
        return found

    def first_of(self, log: LogName, seq: int) -> list[tuple[LogName, int]]:
        """What a change is the making again of, or repeats."""
        rows = self._rows(
            """select log, first + ?2 - new_first from made_again
               where new_log = ?1 and new_first <= ?2 and ?2 < new_first + count""",
            *(str(log), seq),
        )
        return [(LogName.parse(one), at) for one, at in rows]

    def held_back_at(self, log_id: int, seq: int) -> int | None:
        """The arrival number of the segment that holds a change, where it is held back."""
        rows = self._rows(
            """select s.lsn from held_back h join segment s on s.lsn = h.lsn
               where s.log_id = ? and s.first <= ? and ? < s.first + s.count""",
            *(log_id, seq, seq),
        )
        return int(rows[0][0]) if rows else None

    def to_make_again(self) -> list[int]:
        """Segments of earlier lives that are held back, and whose changes were not made again yet."""
        done = int(self.meta("salvaged", 0))
        return [row[0] for row in self._rows("select lsn from held_back where lsn > ? order by lsn", done)]

    # ------------------------------------------------------------ peers and evidence

    def peer(self, node: str) -> Peer | None:
        rows = self._rows(
            """select id, node, role, acked, have_store, have_lsn, have_check, last_ms, last_error, since, witnessed
               from peer where node = ?""",
            node,
        )
        if not rows:
            return None
        pid, name, role, acked, store, lsn, check, *rest = rows[0]
        return Peer(pid, name, role, acked, Cursor(store or b"", lsn, check or b""), *rest)

    def peer_with_store(self, store_id: bytes) -> Peer | None:
        """A peer whose feed was followed under this store's id."""
        rows = self._rows("select node from peer where have_store = ? order by have_lsn desc", store_id)
        return self.peer(rows[0][0]) if rows and store_id else None

    def peers(self) -> list[Peer]:
        found = (self.peer(row[0]) for row in self._rows("select node from peer order by node"))
        return [peer for peer in found if peer is not None]

    def first_own(self) -> int:
        """The arrival number of the first segment that no peer sent; past the last one where all came from peers."""
        rows = self._rows("select min(lsn) from segment where peer is null")
        return int(rows[0][0] or self.lsn + 1)

    def came_at(self, peer_id: int, peer_lsn: int, since: int) -> list[tuple[str, int]]:
        """(log, first) of what came from a peer at one place of its arrival order, after an arrival number of ours."""
        rows = self._rows(
            """select l.name, s.first from segment s join log l on l.id = s.log_id
               where s.peer = ? and s.peer_lsn = ? and s.lsn > ?""",
            peer_id,
            peer_lsn,
            since,
        )
        return [(log, first) for log, first in rows]

    def refused(self, limit: int = 100) -> list[dict[str, Any]]:
        """Evidence of what was refused, newest first."""
        names = ("id", "at_ms", "peer", "code", "log", "first", "params")
        rows = self._rows(f"select {', '.join(names)} from refused order by id desc limit ?", limit)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def refusals(self, log: str, first: int) -> frozenset[str]:
        """Why something of this log, at or before `first`, was refused; empty: nothing was."""
        rows = self._rows("select distinct code from refused where log = ? and first <= ?", log, first)
        return frozenset(code for (code,) in rows)

    def partial(self, peer: str) -> HalfSegment | None:
        """What a cut left of a segment from a peer."""
        rows = self._rows(
            "select lsn, total, digest, data, first_time, first_signature, first_witness from partial where peer = ?",
            peer,
        )
        if not rows:
            return None
        lsn, total, digest, data, time_s, signature, witness = rows[0]
        first_parent = None if time_s is None else Cosignature(time_s, signature, witness or "")
        return HalfSegment(lsn, total, digest, bytearray(data), first_parent)

    def invitation(self, token_hash: bytes) -> Invitation | None:
        """What a token stands for; None for one that was never given out."""
        rows = self._rows(
            "select node, name, level, scope, expires_s, used_key from invite where token_hash = ?", token_hash
        )
        return _invitation(*rows[0]) if rows else None

    def invitations(self) -> list[Invitation]:
        """Every token given out, the newest last."""
        rows = self._rows("select node, name, level, scope, expires_s, used_key from invite order by expires_s, node")
        return [_invitation(*row) for row in rows]

    # ------------------------------------------------------------ the stash

    def stash(self, content_key: bytes, lsn: int) -> bytes:
        """A content key wrapped under the stash key (the arrival number is the nonce: used once)."""
        return SUITE_1.aead_seal(self._stash_key, lsn.to_bytes(12, "big"), content_key, b"stash") + lsn.to_bytes(
            8, "big"
        )

    def unstash(self, wrapped: bytes) -> bytes:
        nonce = int.from_bytes(wrapped[-8:], "big").to_bytes(12, "big")
        return SUITE_1.aead_open(self._stash_key, nonce, wrapped[:-8], b"stash")


def _covered(scope: tuple[str, ...]) -> tuple[str, list[str]]:
    """The condition that `down` names an area in a scope, and its parameters."""
    likes = " or ".join("(down >= ? and down < ?)" for _ in scope)
    return likes, [edge for prefix in scope for edge in (prefix, prefix + ":")]  # ':' follows '9'


def _invitation(node: str, name: str, level: str, scope: str, expires_s: int, used_key: bytes | None) -> Invitation:
    return Invitation(node, name, level, tuple(scope.split(",")), expires_s, used_key)
