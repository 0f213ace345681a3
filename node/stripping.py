"""What erases do at this node, inside the writer's transaction: remember, strip, tell.

Rules
1. An erase that is appended here, this node's own or a peer's, is remembered for good (`erased`), and what it names is
   stripped in the same transaction, if it is held and can be read.
2. What comes later (replayed, from a stick, out of a backup, out of order) is stripped before it is stored.
3. A stripped segment is announced to everyone who gets its log, and to a child through which it came and that cannot
   read it: who carries it puts the new bytes in the place of the old. It takes them only from who handled the segment
   (`sync.strip`), for fewer changes in clear than it holds, and for no other readers.
4. For each segment that was stripped here, or came stripped to who carries it, this node says so in `sys.receipts`: up,
   and down to the area of the record. The receipt names places in logs, never a key; a carrier's also who stripped what
   it holds, for only that node knows which changes these are.
5. A version that is stripped leaves its key, sealed, in `erased` until state.db has forgotten it too.
6. Evidence of what was refused loses its bodies with what they hold, also where this node does not hold that, or the
   evidence comes later; the signed heads stay. What cannot be read may hold anything: it goes with the next erase.
   So does all of a fork of the log: its numbers are others. Half a segment goes, too, and of what was erased none is
   kept.
7. A change that this node made again in a later life is there twice, and so is what it said once more (that may be
   another's: `node.meanwhile`). Only this node knows that it is the same, so it erases the other, too, by an erase of
   its own, in the transaction that learns of the first (`copies`, `Writer._erase_copies`).

>>> # stripping.begin(); stripping.learn(tx, name, first, columns); writer.append_system(tx, *receipt) for each receipt
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fednode.crypto import canonical
from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node import resealed, urgent
from fednode.node.erasures import seal_key
from fednode.node.fence import FORK
from fednode.node.home import NodeKeys
from fednode.node.rows import Held
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.tree import frontier_at
from fednode.node.trust import Trust
from fednode.sync import segment as seg
from fednode.sync.change import ERASE, Change, Columns, LogName
from fednode.sync.clock import milliseconds
from fednode.sync.errors import PeerError
from fednode.sync.identity import covers
from fednode.sync.segment import Reader
from fednode.sync.strip import erased_place, may_erase, reseal, strip
from fednode.sync.verify import Context, check_signed

VERSION = 1
HANDED_BACK_MAX = 16  # of one segment to one child, whatever it brings


@dataclass(frozen=True, slots=True)
class Receipt:
    """What this node says of a segment that it stripped. `erased`: numbers of the changes that erases name, None where
    it cannot read them; `stripped`: all that are; `sealer`: who stripped what is carried here."""

    log: LogName
    first: int
    count: int
    stripped: int
    erased: tuple[int, ...] | None
    sealer: str = ""

    def change(self, node: str, at_ms: int) -> Change:
        """The change of `sys.receipts`."""
        payload: dict[str, Any] = {
            "v": VERSION,
            "node": node,
            "at_ms": at_ms,
            "log": str(self.log),
            "first": self.first,
            "count": self.count,
            "stripped": self.stripped,
        }
        if self.erased is not None:
            payload["erased"] = list(self.erased)
        else:
            payload["sealer"] = self.sealer
        return Change(f"{node}/{self.log}#{self.first}".encode(), canonical.dumps(payload))


class Stripping:
    """For one Writer. `receipts`: what is still to be told of in the running transaction; `done`: whether anything was
    stripped in it; `learnt`: whether there was an erase in it."""

    def __init__(self, store: Store, trust: Trust, keys: NodeKeys, now_ms: Callable[[], int], rng: seg.Rng) -> None:
        self._store, self._trust, self._keys = store, trust, keys
        self._now_ms, self._rng = now_ms, rng
        self._receipts: dict[tuple[str, int], Receipt] = {}
        self.done = self.learnt = False
        self.on_resealed: Callable[[Transaction, int], None] = lambda tx, lsn: None

    def begin(self) -> None:
        """A transaction begins: what one that was rolled back had left is forgotten."""
        self._receipts.clear()
        self.done = self.learnt = False

    def receipts(self) -> Iterator[tuple[str, list[Change]]]:
        """(area, changes) to append to `sys.receipts`: the record's area, where it lies in this node's scope. A receipt
        is never older than the erase that was seen here, whatever the clocks: its time follows the stamps."""
        if not self._receipts:
            return
        now_ms = max(self._now_ms(), milliseconds(int(self._store.meta("hlc", 0))))
        areas: dict[str, list[Change]] = {}
        for receipt in self._receipts.values():
            area = self.area_of(receipt.log)
            area = area if area and covers(self._trust.me.scope, area) else self._trust.area
            areas.setdefault(area, []).append(receipt.change(self._trust.node, now_ms))
        self._receipts.clear()
        yield from areas.items()

    def again(self, after: int) -> None:
        """What was stripped since an arrival number is told of once more: where the fence stood, it was not. So is what
        is carried and came stripped."""
        carried = self._store.rows(
            """select s.data from segment s join log l on l.id = s.log_id
               where s.lsn > ? and s.content_key is null and l.dataset not like 'sys.%'""",
            after,
        )
        for (data,) in carried:
            with suppress(PeerError):  # damaged: it says so when it was mended
                self.carries(seg.parse(data).header)
        rows = self._store.rows(
            """select lsn from segment where lsn in (select segment_lsn from resealed where lsn > ?1)
               union select s.lsn from erased e join log l on l.name = e.log
               join segment s on s.log_id = l.id and s.first <= e.seq and e.seq < s.first + s.count
               where e.stripped = 1 and (e.by_lsn > ?1 or s.lsn > ?1)""",
            after,
        )
        for (lsn,) in rows:
            (held,) = self._store.segments(lsn - 1, 1)
            columns = self._store.columns(held)
            if columns is None:
                self.carries(seg.parse(held.raw).header)
                continue
            erased = tuple(self.due(held.name, held.first, held.first + held.count))
            self._tell(Receipt(held.name, held.first, held.count, len(columns.leaves), erased))

    def area_of(self, log: LogName) -> str:
        """The area whose records a log's are; "" where nothing is known of its origin."""
        origin = self._trust.directory.get(log.origin)
        return log.audience or (origin.scope[0] if origin else "")

    # ------------------------------------------------------------ erases

    def learn(self, tx: Transaction, name: LogName, first: int, columns: Columns, lsn: int) -> None:
        """The erases of a segment that was just appended (rule 1)."""
        wanted: dict[LogName, list[int]] = {}
        for position, op in enumerate(columns.ops):
            if op != ERASE or position in columns.leaves:
                continue
            log, seq, _ = erased_place(columns.keys[position], columns.payloads[position])
            at_ms = milliseconds(columns.hlcs[position])
            row = (str(log), seq, str(name), first + position, lsn, at_ms)
            tx.connection.execute(
                """insert or ignore into erased (log, seq, by_log, by_seq, by_lsn, at_ms) values (?, ?, ?, ?, ?, ?)""",
                row,
            )
            wanted.setdefault(log, []).append(seq)
        if wanted:
            self.learnt = True
            urgent.mark(tx, lsn)
        for log, seqs in wanted.items():
            self._strip_all(tx, log, seqs)
            self._forget_elsewhere(tx, log, min(seqs), max(seqs) + 1)

    def copies(self) -> list[tuple[LogName, int, str]]:
        """(log, number, place of what was erased): what the erased was made again as, or is the making again of, and
        was not erased yet (rule 7)."""
        rows = self._store.rows(
            """with pair as (
                   select log as a, first as at, new_log as b, new_first as as_at, count from made_again union all
                   select new_log, new_first, log, first, count from made_again)
               select p.b, p.as_at + e.seq - p.at, e.log || '#' || e.seq from pair p
               join erased e on e.log = p.a and e.seq >= p.at and e.seq < p.at + p.count
               where not exists (select 1 from erased o where o.log = p.b and o.seq = p.as_at + e.seq - p.at)
               order by 1, 2"""
        )
        return [(LogName.parse(log), seq, place) for log, seq, place in rows]

    def _strip_all(self, tx: Transaction, log: LogName, seqs: list[int]) -> None:
        log_id = self._store.log_id(log)
        waiting = sorted(set(seqs)) if log_id is not None else []
        while waiting and log_id is not None:
            held = self._segment_at(log_id, waiting[0])
            end = held.first + held.count if held is not None else waiting[0] + 1
            if held is not None:
                self.settle(tx, held, announce=True)
            waiting = [seq for seq in waiting if seq >= end]

    def _segment_at(self, log_id: int, seq: int) -> Held | None:
        """None for what is not held, and for what is damaged: it is stripped when it was mended (`settle`)."""
        try:
            return self._store.segment_at(log_id, seq)
        except FednodeError:
            return None

    def arrived(
        self, tx: Transaction, header: seg.Header, columns: Columns, lsn: int, peer: str, *, announce: bool = False
    ) -> None:
        """A segment of a peer's was just appended, or became readable (`announce`): rules 2 and 1."""
        due = self.due(header.log, header.first, header.end)
        if due:
            log_id = self._store.log_id(header.log)
            held = self._segment_at(log_id, header.first) if log_id is not None else None
            if held is not None:
                self.settle(tx, held, announce=announce)
        if columns.leaves and not columns.leaves.keys() <= {seq - header.first for seq in due}:
            tx.connection.execute(
                "insert or ignore into withheld values (?, ?, ?, ?)",
                (str(header.log), header.first, peer, self._now_ms()),
            )
        if ERASE in columns.ops:
            self.learn(tx, header.log, header.first, columns, lsn)

    def settle(self, tx: Transaction, held: Held, *, announce: bool) -> None:
        """Strip what erases name of a held segment, as far as it is not stripped yet, and tell of it."""
        columns = self._store.columns(held)
        if columns is None:
            return
        due = [
            seq
            for seq in self.due(held.name, held.first, held.first + held.count)
            if columns.ops[seq - held.first] != ERASE
        ]
        if not due:
            return
        for seq in due:
            position, sealed = seq - held.first, None
            if position not in columns.leaves:
                sealed = seal_key(self._store, held.name, seq, columns.keys[position])
            tx.connection.execute(
                "update erased set stripped = 1, record_key = coalesce(?, record_key) where log = ? and seq = ?",
                (sealed, str(held.name), seq),
            )
        back = self._through(seg.parse(held.raw).header)
        gone = self.strip(tx, held, columns, [seq - held.first for seq in due], announce=announce, back=back)
        self._tell(Receipt(held.name, held.first, held.count, len(gone.leaves), tuple(due)))

    def due(self, log: LogName, first: int, end: int) -> list[int]:
        """Numbers of a log's changes in [first, end) that were erased by somebody who may."""
        rows = self._store.connection.execute(
            "select seq, by_log from erased where log = ? and seq >= ? and seq < ?", (str(log), first, end)
        ).fetchall()
        directory, found = self._trust.directory, []
        for seq, by_log in rows:
            by = LogName.parse(by_log)
            eraser = directory.life(by.origin, by.incarnation)
            if eraser is not None and may_erase(eraser, log, by.dataset, directory):
                found.append(int(seq))
        return found

    # ------------------------------------------------------------ stripping

    def strip(
        self,
        tx: Transaction,
        held: Held,
        columns: Columns,
        positions: Iterable[int],
        *,
        announce: bool,
        back: str = "",
    ) -> Columns:
        """Strip positions of a held segment that this node can read; the columns that are left."""
        if columns.leaves.keys() >= set(positions):
            return columns
        envelope = seg.parse(held.raw)
        gone = strip(columns, positions, envelope.header.suite)
        readers = self._readers(held.name, envelope.header.readers)
        raw, content_key = reseal(envelope, gone, self._trust.me, readers, self._keys.sign.sign, self._rng)
        self._replace(tx, held.lsn, envelope.header, raw, content_key, announce=announce, back=back)
        self.on_resealed(tx, held.lsn)
        return gone

    def _readers(self, log: LogName, key_ids: tuple[bytes, ...]) -> list[Reader]:
        """The readers whose keys are still in force, in the order in which they were."""
        directory = self._trust.directory
        target = directory.node_covering(self.area_of(log)) if self.area_of(log) else None
        nodes = {
            one.node: one
            for end in (log.origin, self._trust.node, target.node if target else "")
            for one in directory.path(end)
        }
        known = {
            SUITE_1.hash(one.seal_key)[:8]: one.seal_key
            for node in nodes.values()
            for one in (node, *directory.standbys_of(node.node))
        }
        return [Reader(key_id, known[key_id]) for key_id in key_ids if key_id in known]

    def _replace(
        self,
        tx: Transaction,
        lsn: int,
        header: seg.Header,
        raw: bytes,
        content_key: bytes,
        *,
        announce: bool,
        back: str = "",
    ) -> None:
        """Stripped bytes in the place of a segment's, and nowhere the old ones."""
        resealed.replace(tx, lsn, raw, content_key, announce=announce, back=back)
        self._unclean(tx)
        self._forget_elsewhere(tx, header.log, header.first, header.end)

    def _forget_elsewhere(self, tx: Transaction, log: LogName, first: int, end: int) -> None:
        """Copies that are no segments: what is half received, and the bodies of evidence (rule 6)."""
        halves = tx.connection.execute("delete from partial").rowcount
        rows = tx.connection.execute(
            """select id, data, log, code from refused
               where ((log = ?1 and (first < ?2 or code = ?3)) or log = '') and length(data) > 0""",
            (str(log), end, FORK),
        ).fetchall()
        kept = [(_head_of(data, first, code) if named else b"", row, data) for row, data, named, code in rows]
        heads = [(head, row) for head, row, data in kept if head != data]
        tx.connection.executemany("update refused set data = ? where id = ?", heads)
        if halves or heads:
            self._unclean(tx)

    def _unclean(self, tx: Transaction) -> None:
        self.done = True
        tx.set_meta("unclean", 1)

    def outlived(self, header: seg.Header) -> bool:
        """Whether a peer's copy of a segment may hold what was erased: it is to be nowhere but in its place, where it
        is stripped."""
        return header.stripped < len(self.due(header.log, header.first, header.end))

    def evidence(self, raw: bytes, code: str) -> bytes:
        """What may be kept of a segment that is refused (rule 6)."""
        header = seg.beginning(raw)
        if header is None:
            return raw
        erased = code == FORK and self._store.rows("select 1 from erased where log = ? limit 1", str(header.log))
        return _head_of(raw, header.first, code) if erased or self.outlived(header) else raw

    # ------------------------------------------------------------ carriers

    def offered(self, tx: Transaction, envelope: seg.Envelope, context: Context) -> None:
        """A peer offers a segment that is held here in a stripped form (rule 3). Raises PeerError: not to be taken."""
        header = envelope.header
        log_id = self._store.log_id(header.log)
        held = self._segment_at(log_id, header.first) if log_id is not None else None
        if held is None:
            return
        mine = seg.parse(held.raw).header
        if header.stripped < mine.stripped and not context.from_parent:
            self._told_again(tx, held.lsn, mine, context.peer.node)
        if held.content_key or header.stripped <= mine.stripped:
            return  # who reads it strips it itself
        check_signed(envelope.raw, context)
        if (header.count, header.checkpoint) != (mine.count, mine.checkpoint) or not {*header.readers} <= {
            *mine.readers
        }:
            raise PeerError("FN-5419", sealer=header.sealer, node=header.log.origin)
        self._replace(tx, held.lsn, header, envelope.raw, b"", announce=True, back=self._through(header))
        self._tell(_carried(header))

    def _told_again(self, tx: Transaction, lsn: int, mine: seg.Header, node: str) -> None:
        """A child comes with an older copy of what was stripped: where it cannot read that itself, and has answered
        what it was told of it (it did not hold the segment then), it is told again."""
        child, back = self._store.peer(node), self._through(mine)
        if child is None or not back:
            return
        rows = self._store.rows("select lsn from resealed where segment_lsn = ? and back = ?", lsn, back)
        if len(rows) < HANDED_BACK_MAX and max((one for (one,) in rows), default=0) <= child.acked:
            resealed.announce(tx, lsn, back)

    def carries(self, header: seg.Header, tx: Transaction | None = None) -> None:
        """A segment came (`tx`) that this node cannot read: of what is stripped already, it says so (rule 4)."""
        if header.stripped:
            self._tell(_carried(header))
            if tx is not None:
                self._forget_elsewhere(tx, header.log, header.first, header.end)

    def handed_back(self, tx: Transaction, envelope: seg.Envelope, context: Context) -> bool:
        """Whether the parent gives, stripped, what came to it through this node: then it took the place of what is
        carried here, or is of no use. Raises PeerError (`offered`)."""
        header = envelope.header
        above = [one.node for one in self._trust.directory.path(header.log.origin)[:-1]]
        if not context.from_parent or context.restoring or context.me.stands_for or context.me.node not in above:
            return False
        if context.gathers and header.first >= self._store.log_state(header.log).size:  # it is given back, not handed
            return False
        self.offered(tx, envelope, context)
        return True

    def _through(self, header: seg.Header) -> str:
        """The area of the child through which a segment came, where that holds no key of it; else ""."""
        path = list(self._trust.directory.path(header.log.origin))[:-1]
        nodes = [one.node for one in path]
        child = path[nodes.index(self._trust.node) + 1 :][:1] if self._trust.node in nodes else []
        reads = any(SUITE_1.hash(one.seal_key)[:8] in header.readers for one in child)
        return child[0].scope[0] if child and not reads else ""

    def restored(self, tx: Transaction, envelope: seg.Envelope, context: Context) -> bool:
        """A neighbour offers, in a stripped form, a segment that is damaged here: whether it took the place. By the
        rules of whoever gets it whole: who reads the log takes it where erases name all that is gone from it, and it
        leads to the root that the origin signed; who carries it takes it from whoever may have sealed it. Raises
        PeerError (`check_signed`, `open_with_content_key`)."""
        header, store = envelope.header, self._store
        rows = store.rows(
            """select s.lsn, s.log_id, s.count, s.content_key is not null, l.size, l.root
               from segment s join log l on l.id = s.log_id where l.name = ? and s.first = ?""",
            *(str(header.log), header.first),
        )
        if not rows or not header.stripped:
            return False
        lsn, log_id, count, reads, size, root = rows[0]
        check_signed(envelope.raw, context)
        edge = None if header.end == size else frontier_at(store, log_id, header.end)
        known = root if header.end == size else edge and edge.root()
        if header.count != count or known not in (None, header.root):
            return False
        content_key = context.unwrap(envelope) if reads else b""
        if content_key is None or (reads and not self._explained(envelope, content_key, log_id)):
            return False
        self._replace(tx, lsn, header, envelope.raw, content_key, announce=True)
        if reads:
            self.settle(tx, store.segments(lsn - 1, 1)[0], announce=True)
        else:
            self._tell(_carried(header))
        return True

    def _explained(self, envelope: seg.Envelope, content_key: bytes, log_id: int) -> bool:
        header = envelope.header
        columns = seg.open_with_content_key(envelope, content_key)
        edge = frontier_at(self._store, log_id, header.first)
        if edge is None or edge.extend(seg.leaf_hashes(columns, header.suite)).root() != header.root:
            return False
        return {header.first + one for one in columns.leaves} <= set(self.due(header.log, header.first, header.end))

    def _tell(self, receipt: Receipt) -> None:
        self._receipts[(str(receipt.log), receipt.first)] = receipt


def _carried(header: seg.Header) -> Receipt:
    return Receipt(header.log, header.first, header.count, header.stripped, None, header.sealer)


def _head_of(data: bytes, first: int, code: str) -> bytes:
    """Evidence without what it is about: the signed head stays."""
    header = seg.beginning(data)
    before = header is not None and header.end <= first and code != FORK
    return data if before else seg.head_only(data)
