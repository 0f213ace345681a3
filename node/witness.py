"""What nodes above a log's writer have signed of it: kept in log.db, and passed down to those who hold the log.

An ack brings a node its parent's cosignature of what it has sent up. From there it comes down, hop by hop, towards the
writer, and to those to whom the log flows down: so whoever proves a record shows every level that has seen it.

Rules
1. Kept of each log: each witness's newest; all of the checkpoint that the most have signed (`best`); and, so that a
   checkpoint can become that, the parent's of up to `WINDOW` sizes after the newest that somebody higher has signed.
2. Each gets a number, rising. A child is told what has a number after its cursor, of the newest ones and the best; what
   was passed over as no longer the newest, and is of the best now, gets a new number.
3. Taken is only what verifies: a checkpoint that is held here, by a node above the writer, with a key of one of its
   lives. Another node's word is not needed.
4. What is told of a head that is not here yet, or is damaged, waits for it (`early`, at most `EARLY_MAX`, the newest):
   a parent tells once, and to a successor it may do so before the segment has come from below.
5. A first parent's cosignature lies with its segment, and is not kept here. But one that was succeeded may have given
   two, and a stamp must count everywhere alike: it counts as it stands higher up. Whoever is shown another one from
   below keeps its own, to be told there, for good (`Keeper.stand`); it takes the place of what they have.

>>> best([Given(3, "13", 1, b"", 1), Given(3, "1301", 1, b"", 2), Given(7, "1301", 1, b"", 3)], ["13", "1301"])
3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fednode.crypto import checkpoint
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.keys import SigningKey
from fednode.node.checker import cosigned
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.sync import segment as seg
from fednode.sync import wire
from fednode.sync.change import LogName
from fednode.sync.clock import HybridClock
from fednode.sync.errors import PeerError
from fednode.sync.feed import goes_down_to
from fednode.sync.wire import Cosignature, Witnessed, WitnessedHead

WINDOW = 64
EARLY_MAX = 256
COUNT = "witnessed"  # the last number given out (meta)


@dataclass(frozen=True, slots=True)
class Given:
    """A witness's cosignature of a log at a size, as it is kept."""

    size: int
    witness: str
    time_s: int
    signature: bytes
    number: int


def kept(store: Store, log_id: int, after: int = 0) -> list[Given]:
    """What is kept of a log, of sizes after one."""
    rows = store.rows(
        "select size, witness, time_s, signature, number from witness where log_id = ? and size > ?", log_id, after
    )
    return [Given(*row) for row in rows]


def best(given: Sequence[Given], above: Sequence[str]) -> int:
    """The size that the most have signed; of equals the one that the highest has, then the largest. `above`: from the
    province down. 0 where nobody has signed any."""
    signed: dict[int, list[int]] = {}
    for one in given:
        height = above.index(one.witness) if one.witness in above else len(above)
        signed.setdefault(one.size, []).append(height)
    return max(signed, key=lambda size: (len(signed[size]), -min(signed[size]), size), default=0)


def shown(given: Sequence[Given], above: Sequence[str]) -> list[Given]:
    """Each witness's newest, and all of the best."""
    newest: dict[str, int] = {}
    for one in given:
        newest[one.witness] = max(one.size, newest.get(one.witness, 0))
    first = best(given, above)
    return [one for one in given if one.size in (first, newest[one.witness])]


def above(trust: Trust, name: LogName) -> list[str]:
    """The nodes above a log's writer, in the life that wrote it: from the province down."""
    writer = trust.directory.life(name.origin, name.incarnation)
    if writer is None or writer.issuer == ROOT:
        return []
    return [one.node for one in trust.directory.path(writer.issuer)]


def stands(trust: Trust, name: LogName, given: Sequence[Given]) -> list[Given]:
    """What is kept by rule 5, at the nodes above a log's writer."""
    names = above(trust, name)
    return [one for one in given if one.witness == names[-1]] if trust.node in names else []


# ---------------------------------------------------------------- keeping


class Keeper:
    """Keeps cosignatures in one transaction; `settle` at its end drops what rule 1 does not ask for."""

    def __init__(self, tx: Transaction, trust: Trust) -> None:
        self._tx, self._trust, self._c = tx, trust, tx.connection
        self._logs: dict[LogName, tuple[int, str | None] | None] = {}
        self._moved: dict[int, LogName] = {}

    def keep(self, name: LogName, size: int, given: Cosignature) -> None:
        """A cosignature that was verified; the witness stands in it."""
        if name not in self._logs:
            self._logs[name] = self._place(name)
        place = self._logs[name]
        if place is None:
            return
        log_id, below = place
        row = (log_id, size, given.witness, given.time_s, given.signature, self._number(), below)
        if self._c.execute("insert or ignore into witness values (?, ?, ?, ?, ?, ?, ?)", row).rowcount:
            self._moved[log_id] = name
            self._number_again(log_id, size, given.witness)

    def stand(self, name: LogName, size: int, given: Cosignature) -> None:
        """A first parent's cosignature that counts (rule 5); the first parent stands in it."""
        other = (self._tx.store.log_id(name), size, given.witness, given.signature)
        self._c.execute("delete from witness where log_id = ? and size = ? and witness = ? and signature <> ?", other)
        self.keep(name, size, given)

    def _place(self, name: LogName) -> tuple[int, str | None] | None:
        """The log's number, and which child holds it: "" for those to whom it flows down, None for nobody."""
        rows = self._tx.store.rows("select id, down from log where name = ?", str(name))
        if not rows:
            return None
        path = [one.node for one in self._trust.directory.path(name.origin)]
        if self._trust.node in path[:-1]:
            return rows[0][0], path[path.index(self._trust.node) + 1]
        return rows[0][0], "" if rows[0][1] else None

    def _number(self) -> int:
        sql = "update meta set value = value + 1 where key = ? returning value"
        return int(self._c.execute(sql, (COUNT,)).fetchone()[0])

    def _number_again(self, log_id: int, size: int, witness: str) -> None:
        """Rule 2."""
        passed = self._c.execute(
            """select witness from witness w where log_id = ?1 and size = ?2 and witness <> ?3 and exists (
                   select 1 from witness n where n.log_id = ?1 and n.witness = w.witness and n.size > ?2)""",
            (log_id, size, witness),
        ).fetchall()
        for (other,) in passed:
            self._c.execute(
                "update witness set number = ? where log_id = ? and size = ? and witness = ?",
                (self._number(), log_id, size, other),
            )

    def settle(self) -> None:
        """Rule 1."""
        parent = self._trust.parent
        for log_id, name in self._moved.items():
            given, names = kept(self._tx.store, log_id), above(self._trust, name)
            keep = {(one.size, one.witness) for one in (*shown(given, names), *stands(self._trust, name, given))}
            if parent is not None and names[:1] != [parent.node]:  # somebody higher may sign those, too
                signed = max((one.size for one in given if one.witness != parent.node), default=0)
                waiting = sorted(one.size for one in given if one.witness == parent.node and one.size > signed)
                keep |= {(size, parent.node) for size in waiting[-WINDOW:]}
            for one in given:
                if (one.size, one.witness) not in keep:
                    self._c.execute(
                        "delete from witness where log_id = ? and size = ? and witness = ?",
                        (log_id, one.size, one.witness),
                    )
        self._moved.clear()


def sign_newest(store: Store, key: SigningKey, lsn: int, now_ms: int) -> Cosignature | None:
    """This node's cosignature of the head at the end of a segment that is the newest of its log here. None where that
    is damaged."""
    try:
        header = seg.parse(store.segments(lsn - 1, 1)[0].raw).header
    except FednodeError:  # damaged: the next one will be signed
        return None
    head = checkpoint.Checkpoint(str(header.log), header.end, header.root)
    return sign_head(store, key, head, header.last_hlc, now_ms)


def sign_head(store: Store, key: SigningKey, head: checkpoint.Checkpoint, last_hlc: int, now_ms: int) -> Cosignature:
    """This node's cosignature of a head that it holds."""
    time_s = witness_time(store, now_ms, last_hlc)
    return Cosignature(time_s, checkpoint.cosign(head, key, time_s))


def witness_time(store: Store, now_ms: int, last_hlc: int = 0) -> int:
    """Unix seconds for what this node signs now: not before anything that it has signed as a witness, though its
    clock may be behind that (`HybridClock.witness_time`)."""
    return HybridClock(int(store.meta("hlc", 0))).witness_time(now_ms, last_hlc)


# ---------------------------------------------------------------- passing down


def owed(store: Store, trust: Trust, child: Identity, after: int) -> tuple[Witnessed | None, bool]:
    """What a child is to be told after a number, as much as one frame takes; and whether it is ripe: the highest node
    has signed, or there is more than that. None: nothing."""
    numbers = _after(store, child.node, after)
    if not numbers:
        return None, False
    upto, full = numbers[-1][0], len(numbers) == wire.WITNESSED_MAX
    names = [one.node for one in trust.directory.path(trust.node)]
    heads: list[WitnessedHead] = []
    ripe = full
    for log_id in dict.fromkeys(log_id for _, log_id in numbers):
        name, down = store.rows("select name, down from log where id = ?", log_id)[0]
        inside = any(one.node == child.node for one in trust.directory.path(LogName.parse(name).origin))
        if not inside and not goes_down_to(down, child.scope):
            continue
        signed: dict[int, list[Cosignature]] = {}
        given = kept(store, log_id)
        first = stands(trust, LogName.parse(name), given) if inside else []
        for one in dict.fromkeys((*shown(given, names), *first)):
            if after < one.number <= upto:
                signed.setdefault(one.size, []).append(Cosignature(one.time_s, one.signature, one.witness))
                ripe = ripe or one.witness == names[0] or one in first
        heads += [WitnessedHead(name, size, tuple(given)) for size, given in sorted(signed.items())]
    return Witnessed(upto, tuple(heads)), ripe


def _after(store: Store, child: str, after: int) -> list[tuple[int, int]]:
    """Number and log of what is for a child alone, and for all: asked every few seconds for each child, so at once."""
    rows = store.rows(
        "select number, log_id from witness where child in (?, '') and number > ? order by number limit ?",
        *(child, after, wire.WITNESSED_MAX),
    )
    return [(number, log_id) for number, log_id in rows]


def start(store: Store, greeting: wire.Hello) -> int | None:
    """After which number to tell a child that greets. None: it does not take it."""
    if greeting.witnessed is None:
        return None
    known = greeting.have.store == store.store_id and greeting.witnessed <= int(store.meta(COUNT, 0))
    return greeting.witnessed if known else 0


# ---------------------------------------------------------------- taking


def take(tx: Transaction, trust: Trust, told: Witnessed) -> Iterator[tuple[WitnessedHead, PeerError]]:
    """Keep what verifies (rule 3). What does not, and should: FN-6414 (of a head that is held here). What is not here
    yet waits (rule 4); what is by nobody above is left out."""
    keeper = Keeper(tx, trust)
    for head in told.heads:
        try:
            name = LogName.parse(head.log)
        except PeerError:
            continue
        names = above(trust, name)
        known = [given for given in head.cosignatures if given.witness in names]
        lsn = tx.store.ending_at(name, head.size)
        try:
            place = None if lsn is None else tx.store.place(lsn)
        except IntegrityError:  # damaged: it waits until that is mended
            place = None
        if place is None:
            if lsn is not None or head.size > tx.store.log_state(name).size:
                wait(tx, head.log, head.size, known)
            continue
        there = checkpoint.Checkpoint(str(name), head.size, place[2])
        mine = name.origin == trust.node or trust.node in names
        for given in known:
            if not cosigned(there, trust.directory.lives(given.witness), given):
                yield head, PeerError("FN-6414", log=head.log, witness=given.witness)
            elif mine and lsn is not None and given.witness == names[-1]:
                _stand(tx, trust, keeper, name, head.size, lsn, given)
            else:
                keeper.keep(name, head.size, given)
    keeper.settle()


def _stand(
    tx: Transaction, trust: Trust, keeper: Keeper, name: LogName, size: int, lsn: int, given: Cosignature
) -> None:
    """Rule 5."""
    tx.set_first_parent(lsn, given, tell=bool(trust.directory.standbys_of(trust.node)), instead=True)
    if name.origin != trust.node:
        keeper.stand(name, size, given)


def wait(tx: Transaction, log: str, size: int, given: Sequence[Cosignature]) -> None:
    """Rule 4."""
    for one in given:
        row = (log, size, one.witness, one.time_s, one.signature)
        tx.connection.execute("insert or replace into early values (null, ?, ?, ?, ?, ?)", row)
    tx.connection.execute("delete from early where id <= (select max(id) from early) - ?", (EARLY_MAX,))


def arrived(tx: Transaction, after: int) -> Witnessed | None:
    """What was told of the heads that have come after an arrival number, or were mended, before they did (rule 4). It
    waits no longer: `take` it."""
    if not tx.store.rows("select 1 from early limit 1"):
        return None
    rows = tx.store.rows(
        """select e.id, e.log, e.size, e.witness, e.time_s, e.signature from segment s join log l on l.id = s.log_id
           join early e on e.log = l.name and e.size = s.first + s.count where s.lsn > ?""",
        after,
    )
    tx.connection.executemany("delete from early where id = ?", [(number,) for number, *_ in rows])
    return Witnessed(
        0, tuple(WitnessedHead(log, size, (Cosignature(at, by, who),)) for _, log, size, who, at, by in rows)
    )
