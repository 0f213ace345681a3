"""What one side of an exchange is receiving: chunks that become segments, under the credit that it gave.

Rules
1. The peer may send `allowed` bytes, and one chunk more; what is committed or refused gives its bytes back (`credit`).
2. Chunks come in order and without a hole; a segment is whole when its digest is right (it has none where one chunk
   is all of it). What a cut left of one (`half`)
   goes on where it ended, if the peer sends the very same.
3. Under a limit (`paced`) credit is not given back by what is committed, but as fast as the limit allows (`grant`);
   what is held in memory stays below `HELD_BYTES_MAX`.
4. What came too early is asked for once (`early`); asked the same twice, the peer has not got it either. No more than
   `HOLES_MAX` are remembered to be asked for: what comes early beyond that is not asked for in this session.

>>> inbox = Inbox(allowed=10)
>>> inbox.chunk(wire.Chunk(1, 0, b"ab", 3, hash_of(b"abc"))), inbox.chunk(wire.Chunk(1, 2, b"c")).data
(None, b'abc')
>>> inbox.early(2, wire.Want("log", 1)), inbox.early(2, wire.Want("log", 1)), inbox.waiting
(True, False, True)
"""

from __future__ import annotations

from dataclasses import dataclass, field

from fednode.crypto.suite import suite
from fednode.sync import wire
from fednode.sync.effects import Commit, HalfSegment
from fednode.sync.errors import PeerError
from fednode.sync.segment import ENVELOPE_BYTES_MAX, beginning

CREDIT_BATCH_BYTES = 64 * 1024
HELD_BYTES_MAX = 4 * 1024 * 1024
HOLES_MAX = 10_000
hash_of = suite(1).hash


@dataclass(slots=True)
class Inbox:
    """`window`: the credit given at the start; `idle`: the peer has said that it has nothing more; `mending`: segments
    that were asked for in the place of damaged ones."""

    half: HalfSegment | None = None
    window: int = 0
    allowed: int = 0
    idle: bool = False
    paced: bool = False
    mending: set[wire.Want | None] = field(default_factory=set)
    _committing: dict[int, int] = field(default_factory=dict)
    _owed: int = 0
    _holes: dict[int, wire.Want] = field(default_factory=dict)

    def open(self, window: int) -> None:
        """The peer was told that it may send so much."""
        self.window = self.allowed = window

    @property
    def waiting(self) -> bool:
        """Whether something is half here, with the writer, or asked for."""
        return bool(self._committing or self._holes or self.mending) or self.half is not None

    @property
    def busy(self) -> bool:
        """Whether the peer has more to say, or something of it is on its way."""
        return not self.idle or self.waiting

    def chunk(self, chunk: wire.Chunk) -> Commit | None:
        """The next bytes; the segment when it is whole. Raises PeerError FN-5506 (credit), FN-5507 (order), FN-6401,
        FN-6405."""
        self.idle = chunk.idle
        self.allowed -= len(chunk.data)
        if self.allowed < -wire.CHUNK_BYTES_MAX:
            raise PeerError("FN-5506", over=-self.allowed)
        half = self._begin(chunk) if chunk.total else self.half
        if self.paced:
            self._owed += len(chunk.data)
        if half is None or half.lsn != chunk.lsn or chunk.offset != len(half.data):
            raise PeerError("FN-5507", lsn=chunk.lsn, offset=chunk.offset)
        half.data += chunk.data
        if len(half.data) > half.total:
            raise PeerError("FN-5507", lsn=chunk.lsn, offset=chunk.offset)
        if len(half.data) < half.total:
            return None
        self.half = None
        data = bytes(half.data)
        if half.digest and hash_of(data) != half.digest:
            raise PeerError("FN-6405", lsn=chunk.lsn)
        self._committing[half.lsn] = self._committing.get(half.lsn, 0) + half.total
        return Commit(half.lsn, data, half.first_parent, ahead=half.ahead, asked=self._asked(data))

    def _asked(self, data: bytes) -> wire.Want | None:
        """For what a segment was asked for, where it was."""
        header = beginning(data) if self.mending else None
        want = wire.Want(str(header.log), header.first, restore=True) if header is not None else None
        return want if want in self.mending else None

    def _begin(self, chunk: wire.Chunk) -> HalfSegment:
        whole = chunk.offset == 0 and len(chunk.data) == chunk.total
        if chunk.total > ENVELOPE_BYTES_MAX or not (len(chunk.digest) == 32 or whole):
            raise PeerError("FN-6401", size=chunk.total, limit=ENVELOPE_BYTES_MAX)
        half = self.half
        if half is None or (half.lsn, half.digest) != (chunk.lsn, chunk.digest) or chunk.offset == 0:
            half = self.half = HalfSegment(chunk.lsn, chunk.total, chunk.digest)
        half.first_parent, half.ahead = chunk.first_parent, chunk.ahead
        return half

    def late(self, late: wire.Late) -> Commit:
        """A late cosignature: small, and free."""
        self._committing[late.lsn] = self._committing.get(late.lsn, 0)
        return Commit(late.lsn, b"", None, late)

    def told(self, told: wire.Witnessed | wire.Health) -> None:
        """What witnesses have signed, or how nodes are: it costs credit, as segments do. Raises PeerError FN-5506."""
        self.allowed -= told.cost
        if self.allowed < -wire.CHUNK_BYTES_MAX:
            raise PeerError("FN-5506", over=-self.allowed)
        if self.paced:
            self._owed += told.cost
        place = -1 - told.upto  # no arrival number
        self._committing[place] = self._committing.get(place, 0) + told.cost

    def learnt(self, told: wire.Witnessed | wire.Health) -> int:
        """The writer is through with it. Its bytes."""
        return self.done(-1 - told.upto)

    def done(self, lsn: int) -> int:
        """The writer is through with it. Its bytes."""
        freed = self._committing.pop(lsn, 0)
        if not self.paced:
            self.allowed += freed
            self._owed += freed
        return freed

    def filled(self, lsn: int) -> None:
        """It is here for good, whatever had been asked for it."""
        self._holes.pop(lsn, None)

    def early(self, lsn: int, want: wire.Want) -> bool:
        """Whether to ask for what precedes it (rule 4)."""
        if self._holes.get(lsn) == want:
            del self._holes[lsn]
            return False
        if len(self._holes) >= HOLES_MAX and lsn not in self._holes:
            return False
        self._holes[lsn] = want
        return True

    def missing(self, log: str, first: int) -> None:
        """The peer has not got what was asked for."""
        self._holes = {lsn: asked for lsn, asked in self._holes.items() if (asked.log, asked.first) != (log, first)}
        self.mending.discard(wire.Want(log, first, restore=True))

    def grant(self, bytes_max: int) -> int:
        """Under a limit: bytes to give back now, of `bytes_max` that it allows; a good part of the window, or what the
        peer waits for."""
        held = sum(self._committing.values()) + (len(self.half.data) if self.half is not None else 0)
        granted = min(self._owed, bytes_max, HELD_BYTES_MAX - held - self.allowed)
        if granted <= 0 or (granted < self.window // 4 and self.allowed > 0):
            return 0
        self._owed -= granted
        self.allowed += granted
        return granted

    def credit(self, freed: int) -> int:
        """Bytes to give back now: a good part of the window, or all when the writer has nothing left."""
        if self.paced:
            return 0
        rest = self._owed and not self._committing and freed > CREDIT_BATCH_BYTES
        if not rest and self._owed < max(1, self.window // 4):
            return 0
        owed, self._owed = self._owed, 0
        return owed
