"""What became of what a peer sent, for whoever did not hear of it: told again with the next greeting.

Rules
1. A line that is cut takes acknowledgements along. Until the peer's greeting says that it has heard of them, they are
   told again, in the peer's order, for who hears of one takes all before it as answered: of segments that came from it
   (`segment.peer_lsn`), of those that were held before (`came_again`), and of what was refused (`refused_at`).
2. What this node has cosigned as the first parent is kept, and told again; of other logs it signs the newest head anew.
3. Of one peer `transaction.REFUSED_MAX` refusals are remembered: it may send as much as it likes.

>>> # for one in outcomes(store, trust, peer, heard(store, peer.node), key, now_ms): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from fednode.crypto.keys import SigningKey
from fednode.node import witness
from fednode.node.rows import Peer
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync import wire
from fednode.sync.change import LogName
from fednode.sync.feed import Side

PAGE = 1024
May = Callable[[int], bool]


def unheard(
    store: Store, trust: Trust, peer: Peer, acked: int, key: SigningKey, now_ms: int, may: May | None = None
) -> tuple[wire.Outcome, ...]:
    """Outcomes of what the peer sent after one of its arrival numbers. `may`: as `outcomes` takes it."""
    return tuple(outcomes(store, trust, peer, acked, key, now_ms, may))


def outcomes(
    store: Store, trust: Trust, peer: Peer, acked: int, key: SigningKey, now_ms: int, may: May | None = None
) -> Iterator[wire.Outcome]:
    """The same one by one: there may be very many. `may`: whether it may be told that one of this store's numbers is
    durable; they end with the first that may not."""

    def cosignature(name: LogName, time_s: int | None, signature: bytes | None, newest: int) -> wire.Cosignature | None:
        if trust.directory.parent_of(name.origin) == trust.node:
            return None if time_s is None else wire.Cosignature(time_s, signature or b"")
        return witness.sign_newest(store, key, newest, now_ms) if newest and trust.side(name) is Side.BELOW else None

    last = acked
    while rows := _page(store, peer, last):
        for peer_lsn, refused, lsn, name, time_s, signature, newest in rows:
            if refused:
                yield wire.Outcome(peer_lsn, refused=refused)
                continue
            if may is not None and not may(lsn):
                return
            yield wire.Outcome(peer_lsn, cosignature(LogName.parse(name), time_s, signature, lsn if newest else 0))
        last = rows[-1][0]
    if peer.have.lsn > last:  # the end of what was looked at: it was refused, or is no segment
        yield wire.Outcome(peer.have.lsn)


_Outcome = tuple[int, str, int, str, int | None, bytes | None, int]


def _page(store: Store, peer: Peer, after: int) -> list[_Outcome]:
    """What came from a peer after one of its arrival numbers, up to where its feed was looked at: (its number, why it
    was refused or "", this store's number, log, first parent's time and signature, whether it is the newest of its
    log); not what came from a store that it had before, unless it came again."""
    return store.rows(
        """select s.peer_lsn as at, '', s.lsn, l.name, s.first_time, s.first_signature, s.first + s.count = l.size
           from segment s join log l on l.id = s.log_id
           where s.peer = ?1 and s.peer_lsn > ?2 and s.peer_lsn <= ?3 and s.lsn > ?4
           union all
           select a.peer_lsn, '', s.lsn, l.name, s.first_time, s.first_signature, s.first + s.count = l.size
           from came_again a join segment s on s.lsn = a.lsn join log l on l.id = s.log_id
           where a.peer = ?1 and a.peer_lsn > ?2 and a.peer_lsn <= ?3
           union all
           select r.peer_lsn, r.code, 0, '', null, null, 0 from refused_at r
           where r.peer = ?1 and r.peer_lsn > ?2 and r.peer_lsn <= ?3 and not exists (
               select 1 from segment s where s.peer = ?1 and s.peer_lsn = r.peer_lsn and s.lsn > ?4)
           order by at limit ?5""",
        *(peer.id, after, peer.have.lsn, peer.since, PAGE),
    )


def newest_from(store: Store, peer: Peer, after: int) -> int:
    """The greatest arrival number of what came from a peer after one of its numbers; 0 where nothing did."""
    rows = store.rows(
        """select max(lsn) from (
               select lsn from segment where peer = ?1 and peer_lsn > ?2 and peer_lsn <= ?3 and lsn > ?4
               union all select lsn from came_again where peer = ?1 and peer_lsn > ?2 and peer_lsn <= ?3)""",
        *(peer.id, after, peer.have.lsn, peer.since),
    )
    return int(rows[0][0] or 0)
