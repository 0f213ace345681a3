"""Readers that come later: what this node gives them, and what it is given (`fednode.sync.rewrap`), inside the writer's
transaction.

Rules
1. Nobody asks. Who lacks a key follows from the catalog, the nodes that are known and the header of a segment. Where
   this node is the one that gives (`giver_of`), and reads the segment itself, it does: each segment when it arrives,
   and all that is held when a node's key is new (`due`), in steps of `STEP_SEGMENTS`. Whose keys were replaced gives
   no more of what was sealed to the old ones: those that waited for it are due again, from the next.
2. A rewrap that comes is checked by everyone whom it passes. Who carries it passes it on; the one whom it is for opens
   the segment by it: the gates of `sync.verify` from 11 on, then it is like any segment that was sealed to this node.
3. When nothing of a log is unreadable any more, the log is whole: from then on its root is checked here.
4. Behind the fence nothing is given, nor while there is little room on the disk (`fednode.node.room`).
5. What is given is in the audit: to whom, how many segments (`on_given`).
6. A successor may be behind those below it and hold what was written by a catalog that it has not got yet. Who may read
   that it learns with the catalog: then it is due to those who lack it.

>>> # rewrapping.learned(tx, name, columns); rewrapping.arrived(...); while rewrapping.step(): pass
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError
from fednode.crypto.merkle import Frontier
from fednode.crypto.suite import SUITE_1
from fednode.node import rewraps
from fednode.node.fence import standing
from fednode.node.home import NodeKeys
from fednode.node.rows import Held
from fednode.node.store import Store
from fednode.node.stripping import Stripping
from fednode.node.transaction import Transaction
from fednode.node.tree import frontier_at
from fednode.node.trust import Trust
from fednode.sync import rewrap
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, NODES, UPSERT, Columns, LogName
from fednode.sync.errors import PeerError
from fednode.sync.rewrap import KEY_ID_BYTES, Rewrap
from fednode.sync.verify import Context, check_content

STEP_SEGMENTS = 200
STEP_KEYS = 100
_SEEDED = "rewrap_seeded"
_LATER = "rewrap_later"  # node -> the first segment that it may be given, or may not: the catalog will say (rule 6)


def due(store: Store) -> bool:
    """Whether something is still to be given to a new key."""
    return bool(store.rows("select 1 from rewrap_key where upto is not null limit 1"))


def key_id(identity: Identity) -> bytes:
    """The id of a node's key in force."""
    return SUITE_1.hash(identity.seal_key)[:KEY_ID_BYTES]


class Rewrapping:
    """For one Writer. `on_given`: told of (node, segments) in the transaction that keeps what was given."""

    def __init__(self, store: Store, trust: Trust, keys: NodeKeys, stripping: Stripping) -> None:
        self._store, self._trust, self._keys, self._stripping = store, trust, keys, stripping
        self._mine = SUITE_1.hash(keys.seal.public)[:KEY_ID_BYTES]
        self._told: dict[str, int] = {}
        self._edges: dict[int, Frontier] = {}  # log -> its tree up to what was opened last, in this transaction
        self.on_given: Callable[[Transaction, str, int], None] = lambda tx, node, segments: None
        stripping.on_resealed = self._resealed

    def begin(self) -> None:
        """A transaction begins: what one that was rolled back had to tell is forgotten."""
        self._told.clear()
        self._edges.clear()

    def tell(self, tx: Transaction) -> None:
        """At the end of a transaction, when its clock stands: what was given in it (rule 5)."""
        for node, segments in sorted(self._told.items()):
            self.on_given(tx, node, segments)
        self._told.clear()

    # ------------------------------------------------------------ who is new

    def learned(self, tx: Transaction, name: LogName, columns: Columns) -> None:
        """A segment of `sys.nodes` is about to be believed: a key that was never seen makes its node one to whom
        something may be due."""
        if name.dataset == CATALOG:
            self._now_due(tx)
        if name.dataset != NODES:
            return
        if not self._store.meta(_SEEDED):
            tx.set_meta(_SEEDED, 1)
            for one in self._trust.directory.all():
                if self._related(one):
                    tx.execute("insert or ignore into rewrap_key (key_id, node) values (?, ?)", key_id(one), one.node)
        for position, payload in enumerate(columns.payloads):
            if columns.ops[position] != UPSERT or position in columns.leaves:
                continue
            document = msgspec.json.decode(payload)
            if document.get("kind") != "node":
                continue
            one = certs.parse(bytes.fromhex(document["certificate"]))
            if not self._related(one):
                continue
            self._new_key(tx, one)
            known = self._trust.directory.get(one.node)
            if known is None or one.incarnation >= known.incarnation:  # else an old log comes once more
                rewraps.outdated(tx, one.node, key_id(one))

    def anew(self, tx: Transaction) -> None:
        """This node stands in another's place: nothing is known of whom that one gave what, so all keys are new."""
        tx.set_meta(_SEEDED, 1)
        tx.execute("delete from rewrap_key")
        for one in self._trust.directory.all():
            if self._related(one):
                self._new_key(tx, one)

    def _new_key(self, tx: Transaction, one: Identity) -> None:
        place = (key_id(one), one.node)
        if self._store.rows("select 1 from rewrap_key where key_id = ? and node = ?", *place):
            return
        upto = self._store.lsn
        tx.execute("insert into rewrap_key (key_id, node, upto) values (?, ?, ?)", *place, upto)
        if not self._renewed(one):
            return
        for other in self._trust.directory.all():  # it gave them what was sealed to its old key
            if other.node != one.node and self._renewed(other):
                sql = "update rewrap_key set upto = ?, after_lsn = 0, given = 0 where key_id = ? and node = ?"
                tx.execute(sql, upto, key_id(other), other.node)

    def _later(self, tx: Transaction, node: str, lsn: int) -> None:
        """Rule 6: whether a node may read a segment is not known yet."""
        waiting = self._waiting()
        if lsn < waiting.get(node, lsn + 1):
            tx.set_meta(_LATER, msgspec.json.encode({**waiting, node: lsn}).decode())

    def _waiting(self) -> dict[str, int]:
        return msgspec.json.decode(self._store.meta(_LATER, "{}"), type=dict[str, int])

    def _now_due(self, tx: Transaction) -> None:
        """Rule 6: a catalog has come."""
        waiting = self._waiting()
        if not waiting:
            return
        tx.set_meta(_LATER, "{}")
        for node, lsn in waiting.items():
            taker = self._trust.directory.get(node)
            if taker is not None:
                tx.execute("insert or ignore into rewrap_key (key_id, node) values (?, ?)", key_id(taker), node)
                tx.execute(
                    """update rewrap_key set after_lsn = iif(upto is null, ?1, min(after_lsn, ?1)),
                       given = iif(upto is null, 0, given), upto = ?2 where key_id = ?3 and node = ?4""",
                    *(lsn - 1, self._store.lsn, key_id(taker), node),
                )

    def _renewed(self, one: Identity) -> bool:
        """Whether a node had other keys in an earlier life."""
        return any(life.seal_key != one.seal_key for life in self._trust.directory.lives(one.node))

    def _related(self, one: Identity) -> bool:
        """Whether a node stands above or below this one: no other reads what this one does, by way of it."""
        directory, me = self._trust.directory, self._trust.node
        if one.node == me:
            return False
        above = [step.node for step in directory.path(one.issuer)]
        return me in above or one.node in [step.node for step in directory.path(me)]

    # ------------------------------------------------------------ giving

    def step(self) -> bool:
        """One bounded step of what is due to new keys, in a transaction of its own. Returns whether there is more."""
        if not due(self._store) or standing(self._store) is not None or self._store.room.low:
            return False
        self.begin()
        with self._store.write() as tx:
            room = STEP_SEGMENTS
            for _ in range(STEP_KEYS):
                if room <= 0 or not (rows := self._due()):
                    break
                room -= self._serve(tx, rows[0], room)
            self.tell(tx)
        return due(self._store)

    def _due(self) -> list[tuple[Any, ...]]:
        sql = "select key_id, node, after_lsn, upto, given from rewrap_key where upto is not null limit 1"
        return self._store.rows(sql)

    def _serve(self, tx: Transaction, due: tuple[Any, ...], room: int) -> int:
        """Some of what is due to one key. How many segments were looked at."""
        key, node, after, upto, given = due
        taker = self._trust.directory.get(node)
        logs = self._logs_for(taker) if taker is not None and key_id(taker) == key else []
        rows = self._store.rows(
            f"""select lsn from segment where log_id in ({",".join(map(str, logs))}) and lsn > ? and lsn <= ?
                and content_key is not null order by lsn limit ?""",
            *(after, upto, room),
        )
        for (lsn,) in rows:
            given += self._give(tx, lsn, untold=node)
        if len(rows) == room:
            place = "where key_id = ? and node = ?"
            tx.execute(f"update rewrap_key set after_lsn = ?, given = ? {place}", rows[-1][0], given, key, node)
            return room
        tx.execute("update rewrap_key set upto = null, given = ? where key_id = ? and node = ?", given, key, node)
        if given:
            self._told[node] = self._told.get(node, 0) + given
        return len(rows)

    def _logs_for(self, taker: Identity) -> list[int]:
        """The logs that a node may read and of which this one gives it what it lacks. A node in its first life has
        nothing below it yet, and nothing of its own here; a standby reads what its primary does."""
        condition, parameters = "1", list[Any]()
        if len(self._trust.directory.lives(taker.node)) == 1 and not taker.stands_for:
            ranges = " or ".join("(audience >= ? and audience < ?)" for _ in taker.scope)
            condition = f"audience <> '' and ({ranges})"
            parameters = [edge for prefix in taker.scope for edge in (prefix, prefix + ":")]  # ':' follows '9'
        rows = self._store.rows(f"select id, name from log where {condition} order by id", *parameters)
        return [number for number, name in rows if self._may_give(LogName.parse(name), taker.node)]

    def _may_give(self, name: LogName, taker: str) -> bool:
        """Whether this node may be the one that gives a node something of a log: it is the first to be asked, or the
        keys of all before it were replaced."""
        for _, one, givers in self._takers_of(name):
            if one.node == taker:
                before = [giver.node for giver in givers].index(self._trust.node)
                return all(self._renewed(giver) for giver in givers[:before])
        return False

    def _takers_of(self, name: LogName) -> list[tuple[bytes, Identity, list[Identity]]]:
        """To whom this node may give what they lack of a log, with their keys' ids and all who could give it."""
        return self._trust.known(("takers", name), lambda: self._work_out_takers(name))

    def _work_out_takers(self, name: LogName) -> list[tuple[bytes, Identity, list[Identity]]]:
        trust = self._trust
        dataset = None if name.is_open else trust.dataset(name.dataset)
        readers = rewrap.readers_of(name, dataset, trust.directory) if dataset is not None else []
        found = []
        for one in readers:
            givers = rewrap.givers_of(one.node, readers, trust.directory)
            if any(giver.node == trust.node for giver in givers):
                found.append((key_id(one), one, givers))
        return found

    def _give(self, tx: Transaction, lsn: int, *, untold: str = "") -> int:
        """Give what is lacking of one held segment that this node reads. How many rewraps were made for `untold`, of
        which the caller tells."""
        if standing(self._store) is not None:
            return 0
        try:
            (held,) = self._store.segments(lsn - 1, 1)
            envelope = seg.parse(held.raw)
            lacking = self._lacking(held.name, envelope.header)
            columns = self._store.columns(held) if lacking else None
        except FednodeError:  # damaged: when it is whole again, its readers have it or the next key asks
            return 0
        if columns is None:
            return 0
        sha256, content_key, made = SUITE_1.hash(held.raw), self._store.unstash(held.content_key), 0
        for key, one in lacking:
            if not self._trust.might_read(one, held.name, columns.schema_version):
                if columns.schema_version > self._trust.catalog_version:
                    self._later(tx, one.node, lsn)
                continue
            if rewraps.find(tx.connection, held.name, held.first, one.node, key) is not None:
                continue
            raw = rewrap.give(envelope, sha256, content_key, one, self._trust.me, self._keys.sign.sign)
            rewraps.add(tx, tx.next_lsn(), rewrap.parse(raw), **self._route(one))
            if one.node == untold:
                made += 1
            else:
                self._told[one.node] = self._told.get(one.node, 0) + 1
        return made

    def _lacking(self, name: LogName, header: seg.Header) -> list[tuple[bytes, Identity]]:
        lacking = [found for found in self._takers_of(name) if found[0] not in header.readers]
        by = [(key, one, rewrap.giver_of(givers, header.readers)) for key, one, givers in lacking]
        return [(key, one) for key, one, giver in by if giver is not None and giver.node == self._trust.node]

    def _route(self, taker: Identity) -> dict[str, Any]:
        """Which way to a node (as `rewraps.add` takes it). This node's standbys are given theirs by name
        (`Store.feed_all`): their area is this node's, and a child may have all of that for its own."""
        if self._trust.node in (taker.node, taker.stands_for):
            return {"up": False, "down": ""}
        if any(step.node == self._trust.node for step in self._trust.directory.path(taker.node)):
            return {"up": False, "down": taker.scope[0]}
        return {"up": True, "down": ""}

    def _resealed(self, tx: Transaction, lsn: int) -> None:
        """A segment was stripped here, under a new key."""
        self._give(tx, lsn)

    # ------------------------------------------------------------ what arrives

    def arrived(self, tx: Transaction, header: seg.Header, lsn: int, peer: str, context: Context, read: bool) -> None:
        """A segment was just appended: it may lack readers, or its key may have come before it. `read`: this node has
        its key."""
        if read:
            if self._lacking(header.log, header):
                self._give(tx, lsn)
            return
        waiting = rewraps.find(tx.connection, header.log, header.first, self._trust.node, self._mine)
        if waiting is None:
            return
        (held,) = self._store.segments(lsn - 1, 1)
        rewraps.remove(tx, waiting[0])
        found = rewrap.parse(waiting[2])
        if found.sha256 == SUITE_1.hash(held.raw):
            with suppress(PeerError):  # not this segment's key, or revoked since: the segment stays unreadable
                rewrap.check(found, self._trust.directory, self._trust.dataset)
                self._open(tx, found, held, peer, context)

    def taken(self, tx: Transaction, found: Rewrap, peer: str, context: Context) -> None:
        """A rewrap came from a peer (rule 2). Raises PeerError: what `rewrap.check` and `rewrap.open_with` raise,
        FN-5442 (it comes from the wrong side), FN-6411."""
        taker = rewrap.check(found, self._trust.directory, self._trust.dataset)
        route = self._route(taker)
        if context.from_parent if route["up"] else (not context.from_parent and (route["down"] or peer == taker.node)):
            raise PeerError("FN-5442", node=taker.node, peer=peer, log=str(found.log))
        there = self._store.digest(found.log, found.first)
        if there not in (None, found.sha256):
            return
        before = rewraps.find(tx.connection, found.log, found.first, found.node, found.key_id)
        if before is not None and (there is None or before[1] == found.sha256):
            return
        if taker.node != self._trust.node or there is None:
            if before is not None:
                rewraps.remove(tx, before[0])
            rewraps.add(tx, tx.next_lsn(), found, **route)
            return
        log_id = self._store.log_id(found.log)
        held = self._store.segment_at(log_id, found.first) if log_id is not None else None
        if held is not None and not held.content_key:
            self._open(tx, found, held, peer, context)

    def _open(self, tx: Transaction, found: Rewrap, held: Held, peer: str, context: Context) -> None:
        """All that is checked comes before anything that is written."""
        envelope, trust, store = seg.parse(held.raw), self._trust, self._store
        header = envelope.header
        content_key, columns = rewrap.open_with(
            found, envelope, self._keys.seal.private, lambda version: trust.might_read(trust.me, held.name, version)
        )
        sql = "select last_hlc from segment where log_id = ? and first < ? order by first desc limit 1"
        before = store.rows(sql, held.log_id, held.first)
        if before and columns.hlcs[0] <= before[0][0]:
            raise PeerError("FN-6409", log=str(held.name), first=held.first)
        edge = self._edge(held.log_id, held.first)
        grown, nodes = edge.grow(seg.leaf_hashes(columns, header.suite)) if edge is not None else (None, [])
        if grown is not None and grown.root() != header.root:
            raise PeerError("FN-6411", log=str(held.name), first=held.first, size=header.end)
        origin = trust.directory.life(held.name.origin, held.name.incarnation)
        if origin is None:
            raise PeerError("FN-5411", node=held.name.origin, log=str(held.name))
        check_content(held.name, columns, origin, context)
        lsn = tx.next_lsn()
        rewraps.add(tx, lsn, found, up=False, down="", opened=held.lsn)
        tx.execute("update segment set content_key = ? where lsn = ?", store.stash(content_key, lsn), held.lsn)
        tx.keep_nodes(held.log_id, nodes)
        if grown is not None:
            self._edges[held.log_id] = grown
        self._whole(tx, held)
        self._stripping.arrived(tx, header, columns, held.lsn, peer, announce=True)
        self._give(tx, held.lsn)

    def _edge(self, log_id: int, size: int) -> Frontier | None:
        """A log's tree up to a size; None where it is not known. Segments of a log are opened one after the other."""
        known = self._edges.get(log_id)
        return known if known is not None and known.size == size else frontier_at(self._store, log_id, size)

    def _whole(self, tx: Transaction, held: Held) -> None:
        """Rule 3, where this segment may have been the last."""
        size, root, frontier = self._store.rows("select size, root, frontier from log where id = ?", held.log_id)[0]
        if frontier is not None:
            return
        if held.first + held.count < size:
            after = self._store.rows(
                "select 1 from segment where log_id = ? and first = ? and content_key is not null",
                *(held.log_id, held.first + held.count),
            )
            if not after:
                return
        edge = self._edge(held.log_id, size)
        if edge is not None and edge.root() == root:
            tx.execute("update log set frontier = ? where id = ?", edge.to_bytes(), held.log_id)
