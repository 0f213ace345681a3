"""What one side of an exchange still has to send: items of its feed, cut into chunks, under the peer's credit.

Rules
1. At most `credit` bytes of segments go out, and no more than the line takes now (`room`, and a part of a chunk): what
   is handed over cannot be overtaken any more. Late cosignatures are small and free.
2. An item that a cut left half sent goes on at the byte that the peer holds (`partial`), if it is the very same item
   and the first that is sent.
3. What must be sent again goes before all else, but never into the middle of an item that has begun.

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

ROOM_MAX = 1 << 62  # whoever does not say how much the line takes takes everything


@dataclass(slots=True)
class _Outgoing:
    item: Item
    offset: int
    introduced: bool = False


@dataclass(slots=True)
class Outbox:
    """`position`: last arrival number put in; `credit`: bytes that may be sent; `unacked`: items that went in and were
    not answered, `heard`: the greatest that was; `partial`: what the peer holds of one of them; `room`: bytes that the
    line takes now; `chunk_bytes`: the largest chunk."""

    position: int = 0
    credit: int = 0
    partial: wire.Partial | None = None
    unacked: set[int] = field(default_factory=set)
    heard: int = 0
    bytes_waiting: int = 0
    room: int = ROOM_MAX
    chunk_bytes: int = wire.CHUNK_BYTES_MAX
    _queue: deque[_Outgoing] = field(default_factory=deque)

    @property
    def empty(self) -> bool:
        return not self._queue

    def answered(self, lsns: Iterable[int]) -> int:
        """The peer has answered for these. Up to which arrival number it has for everything: not past what it asked for
        again, what it was not sent, or what it still has to say."""
        for lsn in lsns:
            self.unacked.discard(lsn)
            self.heard = max(self.heard, lsn)
        return min(self.heard, min(self.unacked) - 1 if self.unacked else self.position)

    def add(self, items: Sequence[Item]) -> None:
        """The next items of the feed, in arrival order."""
        self._put(items)
        if items:
            self.position = max(self.position, max(item.lsn for item in items))

    def add_again(self, items: Sequence[Item]) -> None:
        """Items that the peer lacks, before all that waits (rule 3)."""
        behind = list(self._queue)
        self._queue.clear()
        if behind and behind[0].introduced:
            self._queue.append(behind.pop(0))
        self._put(items)
        self._queue.extend(behind)

    def _put(self, items: Sequence[Item]) -> None:
        for item in items:
            offset = self._held_by_peer(item)
            if item.data:  # the peer keeps one half: another item's first chunk would end it
                self.partial = None
            self._queue.append(_Outgoing(item, offset))
            self.bytes_waiting += len(item.data) - offset
            self.unacked.add(item.lsn)

    def _held_by_peer(self, item: Item) -> int:
        partial = self.partial
        same = partial is not None and (partial.lsn, partial.digest) == (item.lsn, item.digest)
        return partial.offset if partial is not None and same and partial.offset < len(item.data) else 0

    def take(self) -> Iterator[wire.Chunk | wire.Late]:
        """What may be sent now."""
        while self._queue and (min(self.credit, self.room) > 0 or self._queue[0].item.late):
            out = self._queue[0]
            if out.item.late is not None:
                self._queue.popleft()
                yield out.item.late
                continue
            yield self._chunk(out)

    def _chunk(self, out: _Outgoing) -> wire.Chunk:
        item, offset, first = out.item, out.offset, not out.introduced
        data = item.data[offset : offset + min(self.chunk_bytes, self.credit)]
        out.introduced = True
        out.offset += len(data)
        self.credit -= len(data)
        self.room -= len(data)
        self.bytes_waiting -= len(data)
        if out.offset == len(item.data):
            self._queue.popleft()
        if not first:
            return wire.Chunk(item.lsn, offset, data)
        return wire.Chunk(item.lsn, offset, data, len(item.data), item.digest, item.first_parent)
