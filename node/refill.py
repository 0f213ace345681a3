"""What a peer lacks of its feed, where its cursor says nothing about this store: one of the two was promoted, recovered
or made anew. Only that is sent, not all that is held (`Holdings`, sync/side, rule 6).

Rules
1. Who tells, tells of the logs that the other's feed may have: from below, those of that part of the tree; from above,
   those from above; to and from a standby, all that is not the standby's own. Who gathers what others hold of its
   earlier lives tells of its own, too; to its parent up to where that is known to have cosigned them, for it may have
   cosigned more, and this life's predecessor, or its standby, not have heard of it (so does a standby, of what its
   primary wrote: it may be the old one). And it tells its parent of those below it: what these gave to an earlier
   life, and lost with it, nobody else brings (a county and its city that burn in one night).
2. What is believed is a log's size together with its root there. What does not fit (a fork) counts as not held: it is
   sent, and found by whoever verifies it.
3. No signature is missed by what is not sent. Of its own logs a node also sends again what has no first parent's
   cosignature: the outcome brings it. Of all others whoever is a witness says it of the head that it holds. What this
   life has from below, and its parent has not acknowledged, is sent to the parent though that holds it: a first parent
   may have cosigned it once more (`node.witness`, rule 5).
4. Announcements of stripped segments and late cosignatures are all sent: who holds a segment may not have heard of
   them.
5. What the peer holds counts as acknowledged up to the first thing that it lacks; that may be less than before, for the
   one that had acknowledged it is gone.
6. A list of what is lacking is not longer than `MISSING_MAX`: then the feed begins at its beginning, and what is held
   already is recognised.

>>> lacks = Refill([3, 5], 9)
>>> lacks.counts(2), lacks.counts(3), lacks.counts(5), lacks.counts(12)
(2, 4, 9, 12)
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fednode.crypto import checkpoint
from fednode.node import witness
from fednode.node.checker import cosigned
from fednode.node.fence import Place
from fednode.node.store import CHECK_BYTES, Store
from fednode.node.trust import Trust
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.change import LogName

if TYPE_CHECKING:
    from fednode.node.link import Link
    from fednode.node.writer import Writer

MISSING_MAX = 20_000


@dataclass(slots=True)
class Refill:
    """Arrival numbers of what a peer lacks, up to one (`upto`): what comes after that is its feed."""

    missing: list[int]
    upto: int

    def counts(self, upto: int) -> int:
        """Up to where the peer holds all, once it has answered all that was sent up to an arrival number (rule 5)."""
        if upto >= self.upto:
            return upto
        after = bisect_right(self.missing, upto)
        return self.missing[after] - 1 if after < len(self.missing) else self.upto


# ---------------------------------------------------------------- whoever tells


def holdings(writer: Writer, link: Link, now_ms: int) -> list[wire.Holding]:
    """What is held here of the logs that a peer's feed may have (rule 1); with this node's word as a witness (rule
    3)."""
    store, trust = writer.store, writer.trust
    origins = [origin for (origin,) in store.rows("select distinct origin from log")]
    gives = {origin for origin in origins if _gives(trust, link, origin)}
    signs = {one for one in gives if not link.from_parent and _witness(trust, one)}
    found = []
    for name, origin, life, size, root, last in store.rows(
        "select name, origin, incarnation, size, root, last_hlc from log where size > 0"
    ):
        earlier = origin == trust.node and life < trust.me.incarnation
        if link.from_parent and (earlier or (origin == trust.me.stands_for and trust.directory.parent_of(origin))):
            size, root = _cosigned(store, name, size, root)
        if origin in gives and size:
            head = checkpoint.Checkpoint(name, size, root)
            given = witness.sign_head(store, writer.keys.sign, head, last, now_ms) if origin in signs else None
            found.append(wire.Holding(name, size, root[:CHECK_BYTES], given))
    return found


def _cosigned(store: Store, name: str, size: int, root: bytes) -> tuple[int, bytes]:
    """A log's size and root where what its first parent is known here to have cosigned ends; 0: nothing of it is."""
    sql = "select min(s.first) from segment s join log l on l.id = s.log_id where l.name = ? and s.first_time is null"
    edge = store.rows(sql, name)[0][0]
    if edge is None:
        return size, root
    lsn = store.ending_at(LogName.parse(name), edge)
    place = store.place(lsn) if lsn is not None else None
    return (edge, place[2]) if place is not None else (0, b"")


def _witness(trust: Trust, origin: str) -> bool:
    """Whether this node is a witness of an origin's logs, and not the first."""
    above = [one.node for one in trust.directory.path(origin)[:-2]]
    return trust.node in above


def _gives(trust: Trust, link: Link, origin: str) -> bool:
    """Whether logs of an origin may be in a peer's feed."""
    peer, me, directory = link.peer, trust.me, trust.directory
    if link.from_parent and me.stands_for:
        return origin != me.node
    if link.gathers and (origin == me.node or (link.from_parent and _below(trust, me.node, origin))):
        return True
    if link.from_parent:
        return origin in [one.node for one in directory.path(me.node)[:-1]]
    if peer.stands_for:  # an old primary, that gives what only it has
        return True
    return _below(trust, peer.node, origin)


def _below(trust: Trust, node: str, origin: str) -> bool:
    """Whether one is a node, or stands below it."""
    return node in [one.node for one in trust.directory.path(origin)]


# ---------------------------------------------------------------- whoever is told


def compare(writer: Writer, link: Link, part: fx.Compare) -> None:
    """Take in what the peer holds; after the last part, find out what it lacks (`Link.refill`)."""
    store = writer.store
    if link.from_parent and any(_lost(store, writer.trust, one) for one in part.entries):
        writer.fence(Place.BEHIND.code)
    with store.write() as tx:
        keeper = witness.Keeper(tx, writer.trust)
        for one in part.entries:
            if (log_id := _agreed(store, one)) is not None:
                link.told[log_id] = one.size
                _keep(keeper, store, writer.trust, link, one)
        keeper.settle()
    if not part.last:
        return
    upto = store.lsn
    missing = sorted({lsn for lsn in _missing(store, writer.trust, link) if lsn <= upto})
    link.told = {}
    with store.write() as tx:
        acked = missing[0] - 1 if missing else upto
        tx.execute("update peer set acked = ? where id = ?", acked, link.peer_id)
        tx.forget_rejected(link.peer.node)
    if len(missing) <= MISSING_MAX:
        link.refill = Refill(missing, upto)


def _keep(keeper: witness.Keeper, store: Store, trust: Trust, link: Link, one: wire.Holding) -> None:
    """A parent's cosignature of a head that is one here, too."""
    if one.cosignature is None or not link.from_parent:
        return
    name = LogName.parse(one.log)
    lsn = store.ending_at(name, one.size)
    place = store.place(lsn) if lsn is not None else None
    if place is None:
        return
    given = wire.Cosignature(one.cosignature.time_s, one.cosignature.signature, link.peer.node)
    if cosigned(checkpoint.Checkpoint(one.log, one.size, place[2]), trust.directory.lives(link.peer.node), given):
        keeper.keep(name, one.size, given)


def _lost(store: Store, trust: Trust, one: wire.Holding) -> bool:
    """Whether a parent holds more of this life's own logs than there is here: the store was rolled back, and the cursor
    that shows it (`admission.enter`) went with the parent's predecessor."""
    mine = one.log.startswith(f"{trust.domain}/{trust.node}/{trust.me.incarnation}/")
    return mine and one.size > store.log_state(LogName.parse(one.log)).size


def _agreed(store: Store, one: wire.Holding) -> int | None:
    """The number of a log that is held here, too, where both have the same up to the shorter one's end (rule 2)."""
    rows = store.rows("select id, size, root from log where name = ?", one.log)
    if not rows:
        return None
    log_id, size, root = rows[0]
    if one.size >= size:
        return int(log_id) if one.size > size or root[:CHECK_BYTES] == one.check else None
    lsn = store.ending_at(LogName.parse(one.log), one.size)
    place = store.place(lsn) if lsn is not None else None
    return int(log_id) if place is not None and place[2][:CHECK_BYTES] == one.check else None


def _missing(store: Store, trust: Trust, link: Link) -> Iterator[int]:
    """Log by log: the cost grows with the logs and with what is lacking, not with what is held."""
    mine = trust.node if link.from_parent else ""
    for log_id, origin, size in _feed_logs(store, trust, link):
        told, own = link.told.get(log_id, 0), origin == mine
        if told >= size and not own:
            continue
        rows = store.rows(
            """select lsn from segment where log_id = ? and (first + count > ? or (? and first_time is null))
               and lsn not in (select lsn from held_back)""",
            *(log_id, told, own),
        )
        yield from (lsn for (lsn,) in rows)
    if link.from_parent:
        yield from _from_below(store, trust, link)
    elif last := edge(store, link)():
        yield from _had(store, trust, link, last)


def edge(store: Store, link: Link) -> Callable[[], int]:
    """Tells up to which arrival number what a child that gathers had from below, in an earlier life, is given back; 0
    for others. What came after is of this life: it has that itself. Where that begins is looked for until it is
    known: all logs are gone through for it."""
    gives = not link.from_parent and not link.peer.stands_for and link.gives_back > 1
    known: int | None = None if gives else 0

    def last() -> int:
        nonlocal known
        if known is None:
            newest = store.lsn  # before it is looked: what comes in between may be of this life
            first = store.rows(
                """select min(s.lsn) from segment s join log l on l.id = s.log_id
                   where l.origin = ? and l.incarnation = ? and s.first = 0""",
                *(link.peer.node, link.gives_back),
            )[0][0]
            if first is None:
                return newest
            known = int(first) - 1
        return known

    return last


def below(store: Store, trust: Trust, node: str) -> tuple[int, ...]:
    """The logs of a node and of those below it."""
    logs = [(log_id, name.origin) for log_id, name, _ in store.logs()]
    inside = {origin for origin in {origin for _, origin in logs} if _below(trust, node, origin)}
    return tuple(log_id for log_id, origin in logs if origin in inside)


def _had(store: Store, trust: Trust, link: Link, last: int) -> Iterator[int]:
    """What a child's earlier life had from below, and it has not."""
    for log_id in below(store, trust, link.peer.node):
        rows = store.rows(
            """select lsn from segment where log_id = ? and first + count > ? and lsn <= ?
               and lsn not in (select lsn from held_back)""",
            *(log_id, link.told.get(log_id, 0), last),
        )
        yield from (lsn for (lsn,) in rows)


def _from_below(store: Store, trust: Trust, link: Link) -> Iterator[int]:
    """What came from children in this life, and the parent, whichever store that had, has not acknowledged."""
    rows = store.rows(
        """select s.lsn from segment s join log l on l.id = s.log_id join peer p on p.id = s.peer
           where p.role = 'child' and l.up = 1 and s.lsn not in (select lsn from held_back)
           and s.lsn > (select acked from peer where id = ?1)
           and s.lsn > (select coalesce(min(o.lsn), 0) from segment o join log m on m.id = o.log_id
                        where m.origin = ?2 and m.incarnation = ?3 and o.first = 0)""",
        *(link.peer_id, trust.node, trust.me.incarnation),
    )
    yield from (lsn for (lsn,) in rows)


def _feed_logs(store: Store, trust: Trust, link: Link) -> list[tuple[int, str, int]]:
    """(number, origin, size) of the logs in the feed for a peer."""
    what = "select id, origin, size from log where size > 0 and "
    back = (link.peer.node, link.gives_back)
    if link.from_parent:
        rows = store.rows(what + "(up = 1 or (origin = ? and incarnation < ?))", *back)
    elif link.peer.stands_for == trust.node:
        rows = store.rows(what + "origin <> ?", link.peer.node)
    else:
        ids = ",".join(map(str, (*store.down_logs(link.peer.scope), *store.lives(*back))))
        rows = store.rows(what + f"id in ({ids})")
    return [(log_id, origin, size) for log_id, origin, size in rows]
