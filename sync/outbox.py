"""What one side of an exchange still has to send: items of its feed, cut into chunks, under the peer's credit.

Rules
1. At most `credit` bytes of segments go out, and no more than the line takes now (`room`, and a part of a chunk): what
   is handed over cannot be overtaken any more. Late cosignatures are small and free.
2. An item that a cut left half sent goes on at the byte that the peer holds (`partial`), if it is the very same item
   and the first that is sent.
3. What must be sent again goes before all else, then what is urgent (ahead of its turn), then the feed; but never into
   the middle of an item that has begun. What a cut left half sent has begun: something urgent before it would end it,
   and all of it would go over the line again.
4. What went ahead is sent once more in its turn, so that the peer's cursor passes it; unless it was answered meanwhile
   and is larger than `TWICE_BYTES_MAX`: then the cursor passes it with the item after it.
5. What is answered out of turn does not move `answered`: the feed is answered up to its first item that is not.

>>> outbox = Outbox()
>>> outbox.add([Item(1, b"abc", digest=bytes(32))]); outbox.credit = 2
>>> [(chunk.offset, chunk.data) for chunk in outbox.take()], outbox.empty
([(0, b'ab')], False)
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from fednode.sync import wire
from fednode.sync.effects import Item

TWICE_BYTES_MAX = 4 * 1024
ROOM_MAX = 1 << 62  # whoever does not say how much the line takes takes everything


@dataclass(slots=True)
class _Outgoing:
    item: Item
    offset: int = 0
    introduced: bool = False
    ahead: bool = False


@dataclass(slots=True)
class Outbox:
    """`position`: last arrival number put in; `credit`: bytes that may be sent; `unacked`: items that went in and were
    not answered, `heard`: the greatest of the feed that was; `partial`: what the peer holds of one of them; `room`:
    bytes that the line takes now; `chunk_bytes`: the largest chunk; `ahead`: what went ahead of its turn, and whether
    it was answered; `brief`: the peer takes whole chunks without a digest."""

    position: int = 0
    credit: int = 0
    partial: wire.Partial | None = None
    unacked: set[int] = field(default_factory=set)
    heard: int = 0
    bytes_waiting: int = 0
    room: int = ROOM_MAX
    chunk_bytes: int = wire.CHUNK_BYTES_MAX
    brief: bool = False
    ahead: dict[int, bool] = field(default_factory=dict)
    _again: deque[_Outgoing] = field(default_factory=deque)
    _urgent: deque[_Outgoing] = field(default_factory=deque)
    _feed: deque[_Outgoing] = field(default_factory=deque)

    @property
    def empty(self) -> bool:
        return self._next() is None

    @property
    def bytes_again(self) -> int:
        """What waits to be sent once more."""
        return sum(len(one.item.data) - one.offset for one in self._again)

    @property
    def hurrying(self) -> bool:
        """Whether something urgent still waits."""
        return bool(self._urgent)

    @property
    def sent(self) -> int:
        """Up to which arrival number the feed was begun to be sent; what comes after that can still be overtaken."""
        waiting = next((one.item.lsn for one in self._feed if not one.introduced), None)
        return self.position if waiting is None else waiting - 1

    def answered(self, lsns: Iterable[int]) -> int:
        """The peer has answered for these. Up to which arrival number it has for everything: not past what it asked for
        again, what it was not sent, or what it still has to say."""
        for lsn in lsns:
            self.unacked.discard(lsn)
            if lsn in self.ahead:
                self.ahead[lsn] = True
            if lsn <= self.position:
                self.heard = max(self.heard, lsn)
        first = min(self.unacked, default=self.position + 1)
        return min(self.heard, self.position, first - 1)

    def add(self, items: Sequence[Item]) -> None:
        """The next items of the feed, in arrival order."""
        for item in items:
            self._put(self._feed, item)
        if items:
            self.position = max(self.position, max(item.lsn for item in items))

    def add_again(self, items: Sequence[Item]) -> None:
        """Items that the peer lacks, before all that waits (rule 3)."""
        begun = self._again.popleft() if self._again and self._again[0].introduced else None
        for item in reversed(items):
            self._put(self._again, item, first=True)
        if begun is not None:
            self._again.appendleft(begun)

    def add_ahead(self, items: Sequence[Item]) -> None:
        """Urgent items of the feed that is still to come, each with all that precedes it in its log; in arrival order.
        What waits in its turn already is sent ahead all the same, and then in its turn."""
        for item in items:
            if item.lsn not in self.ahead:
                self.ahead[item.lsn] = False
                self._put(self._urgent, item).ahead = True

    def _put(self, queue: deque[_Outgoing], item: Item, *, first: bool = False) -> _Outgoing:
        out = _Outgoing(item)
        if first:
            queue.appendleft(out)
        else:
            queue.append(out)
        self.bytes_waiting += len(item.data)
        self.unacked.add(item.lsn)
        return out

    def _held_by_peer(self, item: Item) -> int:
        partial = self.partial
        same = partial is not None and (partial.lsn, partial.digest) == (item.lsn, item.digest)
        return partial.offset if partial is not None and same and partial.offset < len(item.data) else 0

    def _passed(self, out: _Outgoing) -> bool:
        """Whether the feed may go past an item that went ahead (rule 4)."""
        item = out.item
        if out.introduced or not self.ahead.get(item.lsn, False) or len(item.data) <= TWICE_BYTES_MAX:
            return False
        self.bytes_waiting -= len(item.data)
        self.unacked.discard(item.lsn)
        del self.ahead[item.lsn]
        self.heard = max(self.heard, item.lsn)
        return True

    def _next(self) -> deque[_Outgoing] | None:
        """Where what is next stands: one that has begun, else by rule 3."""
        while self._feed and self._passed(self._feed[0]):
            self._feed.popleft()
        queues = [queue for queue in (self._again, self._urgent, self._feed) if queue]
        begun = [queue for queue in queues if queue[0].introduced]
        if not begun and not self._again:
            begun = [queue for queue in queues if self._held_by_peer(queue[0].item)]
        return begun[0] if begun else queues[0] if queues else None

    def take(self, chunk_bytes: int = wire.CHUNK_BYTES_MAX) -> Iterator[wire.Chunk | wire.Late]:
        """What may be sent now, in chunks of at most so many bytes."""
        chunk_bytes = min(chunk_bytes, self.chunk_bytes)
        while (queue := self._next()) is not None and (min(self.credit, self.room) > 0 or queue[0].item.late):
            out = queue[0]
            if out.item.late is not None:
                queue.popleft()
                yield out.item.late
                continue
            chunk = self._chunk(out, chunk_bytes)
            if out.offset == len(out.item.data):
                queue.popleft()
                if not out.ahead:
                    self.ahead.pop(out.item.lsn, None)
            yield chunk

    def _chunk(self, out: _Outgoing, chunk_bytes: int) -> wire.Chunk:
        item, first = out.item, not out.introduced
        if first:
            out.offset = self._held_by_peer(item)
            self.bytes_waiting -= out.offset
            self.partial = None  # the peer keeps one half: another item's first chunk ends it
        offset = out.offset
        data = item.data[offset : offset + min(chunk_bytes, self.credit)]
        out.introduced = True
        out.offset += len(data)
        self.credit -= len(data)
        self.room -= len(data)
        self.bytes_waiting -= len(data)
        if not first:
            return wire.Chunk(item.lsn, offset, data)
        digest = b"" if self.brief and len(data) == len(item.data) else item.digest
        return wire.Chunk(item.lsn, offset, data, len(item.data), digest, item.first_parent, out.ahead)
