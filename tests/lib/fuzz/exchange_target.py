"""Two exchanges, and a script that says what befalls them: the state machine as a target.

Rules
1. The first bytes say what both sides are; each step after that is a byte for what happens and a few for how. Frames
   are delivered, lost, repeated, overtaken, altered, cut in two; a peer says whatever a frame can say, with the right
   number; the writer commits, refuses, misses what comes before; time passes; the driver does all that it may do.
2. What must hold at each step: no exception; nothing is done for a peer before it was admitted; what is not committed
   is not acknowledged; no more is sent than there is credit for; what waits is bounded; a session ends once, with an
   error of the two families or none, and is silent after that; where nothing was forged, what arrives is what was
   sent.

>>> [one.name for one in TARGETS]
['exchange']
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from fednode.crypto.errors import FednodeError
from fednode.sync import effects as fx
from fednode.sync import exchange as ex
from fednode.sync import wire
from fednode.sync.errors import PeerError, Unavailable
from fednode.sync.segment import ENVELOPE_BYTES_MAX
from fednode.sync.side import AGAIN_BYTES_MAX, WANTS_MAX
from fednode.sync.states import State
from fuzz.alter import varint
from fuzz.target import Target, law
from sides import NOW, WINDOW, item, join, late
from sides import Side as Driven
from world import seed

SIZES = (1, 100, 4096, 70_000)
WINDOWS = (WINDOW, 0, 100, 65_536, 1 << 40)
STEPS_MAX = 120
LOG = "hebei/13/1/shop"
_ITEMS = {(lsn, size): item(lsn, size) for lsn in range(1, 7) for size in SIZES}
# Only for a peer that was admitted.
AFTER_ADMISSION = (
    *(fx.Commit, fx.Learn, fx.Compare, fx.Acked, fx.Again, fx.RenewAsked, fx.RenewAnswered, fx.PeerFenced, fx.Behind),
    *(fx.Places, fx.Pull, fx.Hurry, fx.PullWitnessed, fx.PullHoldings),
)


class Script:
    """Bytes, read one after the other; zeros behind the end."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    @property
    def more(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def of(self, choices: Any) -> Any:
        return choices[self.byte() % len(choices)]

    def take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


class Watched(Driven):
    """A side whose every effect is looked at (rule 2)."""

    def __init__(self, **given: Any) -> None:
        self.admitted_once = self.committing = False
        self.told_credit, self.spent, self.number = 0, 0, 0
        self.done_for: set[int] = set()
        self.asked_again: list[fx.Again] = []
        super().__init__(**given)

    def do(self, effects: Iterable[fx.Effect]) -> None:
        taken = list(effects)
        for effect in taken:
            if isinstance(effect, AFTER_ADMISSION):
                law(self.admitted_once, f"{type(effect).__name__} before admission")
            if isinstance(effect, fx.Send):
                self._sent(effect)
            elif isinstance(effect, fx.Commit):
                law(
                    len(effect.data) <= ENVELOPE_BYTES_MAX and bool(effect.data) != bool(effect.late),
                    "what is committed",
                )
            elif isinstance(effect, fx.Close):
                law(isinstance(effect.error, PeerError | Unavailable | None), f"the end: {effect.error!r}")
                law(self.exchange.state is State.CLOSED, "a session that has ended is closed")
                law(not self.of(fx.Close), "a session ends once")
            elif isinstance(effect, fx.Again):
                self.asked_again.append(effect)
            super().do([effect])

    def _sent(self, effect: fx.Send) -> None:
        law(len(effect.data) <= wire.FRAME_BYTES_MAX, "a frame's size")
        number, message = wire.decode(effect.data)
        self.number += 1
        law(number == self.number, "frames are numbered")
        if isinstance(message, wire.Ack):
            law(self.committing, "an Ack is made by `committed` alone")
        if isinstance(message, wire.Chunk):
            self.spent += len(message.data)
            law(self.spent <= self.told_credit, f"{self.spent} bytes under a credit of {self.told_credit}")
        if isinstance(message, wire.Witnessed):
            self.spent += message.cost

    def receive(self, data: bytes) -> None:
        """One frame. What it may cost is counted before it is read."""
        state = self.exchange.state
        peer_window = self.exchange._peer
        try:
            _, message = wire.decode(data)
        except FednodeError:
            message = None
        if isinstance(message, wire.Credit):
            self.told_credit += message.bytes  # at most: a frame that is ignored gives nothing
        if isinstance(message, wire.Hello) and peer_window is None:
            self.told_credit += min(message.window, WINDOW)
        effects = self.exchange.receive(data, self.now_ms)
        if state is State.CLOSED:
            law(not effects, "silent after the end")
        self.do(effects)
        self.look()

    def look(self) -> None:
        """The bounds."""
        one = self.exchange
        law(one._outbox.credit <= WINDOW, "credit is bounded")
        law(one._outbox.bytes_again < AGAIN_BYTES_MAX + 6 * SIZES[-1], "what is to be sent again is bounded")
        law(len(one._wanted) <= WANTS_MAX, "what is wanted is bounded")
        law(one._early_bytes <= ex.EARLY_BYTES_MAX + wire.FRAME_BYTES_MAX, "what came early is bounded")
        if one.state is State.OPEN:
            law(one._inbox.allowed >= -2 * wire.CHUNK_BYTES_MAX, "who sends more than it may is cut off")
        half = one.half
        if half is not None and one.state is not State.CLOSED:
            law(len(half.data) <= half.total <= ENVELOPE_BYTES_MAX, "half a segment")

    def admit(self, **more: Any) -> None:
        if self.exchange.state is State.ADMITTING:
            self.admitted_once = True
            self.committing = True  # what is owed from before is acknowledged now
            super().admit(**more)
            self.committing = False

    def report(self, done: list[fx.Done]) -> None:
        self.committing = True
        self.do(self.exchange.committed(done, self.now_ms))
        self.committing = False
        self.look()

    def commit(self, count: int | None = None) -> None:
        done, self.commits = self.commits[:count], self.commits[len(self.commits) if count is None else count :]
        for one in done:
            self.held[one.lsn] = one.data
        self.report([fx.Done(one.lsn, ahead=one.ahead) for one in done])


def _side(script: Script, dials: bool, met: bool) -> Watched:
    flags = script.byte()
    count = script.byte() % 6
    feed = [late(lsn) if script.byte() % 9 == 0 else _ITEMS[lsn, script.of(SIZES)] for lsn in range(1, count + 1)]
    more: dict[str, Any] = {"window": script.of(WINDOWS), "once": bool(flags & 1), "paced": flags & 6 == 6}
    if not met:
        more["have"] = wire.Cursor()
    if flags & 8:
        more["version_max"] = 1
    if flags & 16 and dials:
        more["witnessed"] = 0
    if flags & 48 == 48 and not dials:
        by = wire.Cosignature(1, bytes(64), "13")
        more |= {"told": 0, "to_tell": [(wire.Witnessed(3, (wire.WitnessedHead(LOG, 2, (by,) * 3),)), bool(flags & 1))]}
    if flags & 64:
        more["holdings"] = [wire.Holding(f"{LOG}{n}", n, bytes(8)) for n in range(flags % 5)]
    side = Watched(dials=dials, feed=feed, **more)
    side.hold_admission = bool(flags & 128)
    if flags & 24 == 24:
        side.exchange.hurry_from = 1000
    return side


class Play:
    """Both sides and the script. `forged`: somebody said what no exchange would say."""

    def __init__(self, script: Script) -> None:
        self.script = script
        met = script.byte() % 3 != 0
        self.child, self.parent = _side(script, True, met), _side(script, False, met)
        self.forged = False
        join(self.child, self.parent)
        self.parent.do(self.parent.exchange.start(NOW))
        self.child.do(self.child.exchange.start(NOW))

    def run(self) -> None:
        for _ in range(STEPS_MAX):
            if not self.script.more:
                break
            act = self.script.byte()
            side = self.child if act & 1 else self.parent
            _ACTS[(act >> 1) % len(_ACTS)](self, side)
            side.look()
        for _ in range(40):  # and what is on its way arrives
            for side in (self.child, self.parent):
                if side.inbox:
                    side.receive(side.inbox.popleft())
                side.admit()
                if side.commits:
                    side.commit()
        for side in (self.child, self.parent):
            self._whole(side)

    def _whole(self, side: Watched) -> None:
        other = side.other
        sent = {one.lsn: one.data for one in other.items}
        if not self.forged:
            law(all(data == sent.get(lsn) for lsn, data in side.held.items()), "what arrives is what was sent")
            lsns = {one.lsn for one in other.acked}
            law(lsns <= side.held.keys() | side.done_for, "what is acknowledged is held")  # type: ignore[attr-defined]
        closed = side.of(fx.Close)
        law(len(closed) <= 1 and bool(closed) == (side.exchange.state is State.CLOSED), "the end of a session")
        for after in (side.exchange.tick, side.exchange.wake, side.exchange.finish) if closed else ():
            law(not after(NOW + 10**7), "silent after the end")

    # ------------------------------------------------------------ steps

    def deliver(self, side: Watched) -> None:
        for _ in range(1 + self.script.byte() % 4):
            if side.inbox:
                side.receive(side.inbox.popleft())

    def lose(self, side: Watched) -> None:
        if side.inbox:
            side.inbox.popleft()

    def repeat(self, side: Watched) -> None:
        if side.inbox:
            side.receive(side.inbox[0])

    def overtake(self, side: Watched) -> None:
        if len(side.inbox) > 1:
            side.inbox.rotate(-1 - self.script.byte() % (len(side.inbox) - 1))

    def alter(self, side: Watched) -> None:
        if side.inbox:
            self.forged = True
            frame = bytearray(side.inbox.popleft())
            at = (self.script.byte() << 8 | self.script.byte()) % len(frame)
            frame[at] ^= self.script.byte() or 1
            side.receive(bytes(frame))

    def cut(self, side: Watched) -> None:
        if side.inbox:
            self.forged = True
            frame = side.inbox.popleft()
            at = (self.script.byte() << 8 | self.script.byte()) % (len(frame) + 1)
            side.receive(frame[:at])
            side.receive(frame[at:])

    def say(self, side: Watched) -> None:
        """Any message, with small numbers."""
        self.forged = True
        lsn, size = self.script.byte() % 8, self.script.byte()
        number = side.exchange._received_number + 1
        side.receive(wire.encode(number, _messages(lsn, size)[self.script.byte() % len(_KINDS)]))

    def say_raw(self, side: Watched) -> None:
        """Any fields, with the right number."""
        self.forged = True
        number = side.exchange._received_number + 1
        side.receive(b"\x08" + varint(number) + self.script.take(self.script.byte() % 64))

    def flood(self, side: Watched) -> None:
        """Many chunks, whatever the credit."""
        self.forged = True
        data = bytes(wire.CHUNK_BYTES_MAX)
        for n in range(self.script.byte() % 90):
            number = side.exchange._received_number + 1
            side.receive(wire.encode(number, wire.Chunk(n + 1, 0, data, len(data), b"")))

    def clamour(self, side: Watched) -> None:
        """Many wants, whatever the credit."""
        self.forged = True
        for n in range(self.script.byte() % 90):
            number = side.exchange._received_number + 1
            side.receive(wire.encode(number, wire.Want(f"{LOG}{n // 5}", n % 5)))

    def commit(self, side: Watched) -> None:
        count = self.script.byte() % 4
        side.done_for |= {one.lsn for one in side.commits[: count or None]}
        side.commit(count or None)

    def refuse_some(self, side: Watched) -> None:
        done, side.commits = side.commits[:2], side.commits[2:]
        side.done_for |= {one.lsn for one in done}
        side.report([fx.Done(one.lsn, refused="FN-6411") for one in done])

    def miss(self, side: Watched) -> None:
        done, side.commits = side.commits[:1], side.commits[1:]
        first = self.script.byte() % 4
        side.report([fx.Done(one.lsn, gap=wire.Want(LOG, first), ahead=one.ahead) for one in done])

    def pass_time(self, side: Watched) -> None:
        side.now_ms += self.script.of((0, 5_000, 21_000, 71_000))
        side.do(side.exchange.tick(side.now_ms))

    def wake(self, side: Watched) -> None:
        lsn = len(side.items) + 1
        if lsn <= 6:
            side.items.append(_ITEMS[lsn, self.script.of(SIZES)])
        side.do(side.exchange.wake(side.now_ms))

    def ready(self, side: Watched) -> None:
        room = self.script.of((0, 1, 1000, 65_536, 1 << 40))
        side.do(side.exchange.ready(room, side.now_ms, self.script.of((64, 512, wire.CHUNK_BYTES_MAX))))

    def ask(self, side: Watched) -> None:
        one, what = side.exchange, self.script.byte() % 6
        if what == 0:
            side.do(one.ask_segment(LOG, 1, side.now_ms))
        elif what == 1 and one.dials:
            side.do(one.ask_renewal(wire.Renew(b"r"), side.now_ms))
        elif what == 2:
            side.do(one.answer_renewal((b"c",), "", side.now_ms))
        elif what == 3:
            side.do(one.tell_lag(wire.Lag(3, NOW), wire.RecordsDigest(1, NOW, 2, "ab"), side.now_ms))
        elif what == 4:
            side.do(one.tell_places(("10.0.0.1:7443",), ("10.0.0.2:7443",), side.now_ms))
        else:
            effects, granted = one.grant(self.script.byte() << 10, side.now_ms)
            law(0 <= granted <= 255 << 10, "what is granted")
            side.do(effects)

    def learn(self, side: Watched) -> None:
        if side.learning:
            side.do(side.exchange.learnt(side.learning.pop(0), side.now_ms))

    def admit(self, side: Watched) -> None:
        side.admit()

    def end(self, side: Watched) -> None:
        error = self.script.of((None, Unavailable("FN-4508", retry_after_ms=5), PeerError("FN-5511", node="x")))
        side.do(side.exchange.finish(side.now_ms) if error is None else side.exchange.refuse(error, side.now_ms, 7))

    def hurry(self, side: Watched) -> None:
        if side.exchange._hurrying:
            side.do(side.exchange.hurried(side.items[-1:], len(side.items), bool(self.script.byte() % 2), side.now_ms))


def _messages(lsn: int, size: int) -> tuple[wire.Message, ...]:
    by, data = wire.Cosignature(1, bytes(64), "13"), seed(lsn)[: size % 32 + 1]
    return (
        wire.Hello("13", (b"c",), NOW, bytes(16), window=size << 12, restore=size % 7 == 0, version_max=size % 4),
        wire.Chunk(lsn, 0, data, len(data), b"", by, size % 2 == 0, size % 3 == 0),
        wire.Chunk(lsn, size % 3, data, size % 40, bytes(32) if size % 2 else b""),
        wire.Ack(tuple(wire.Outcome(lsn + n, by if n % 2 else None, "FN-6411"[: n % 3 * 7]) for n in range(size % 5))),
        wire.Credit((size << (size % 8 * 8)) & ((1 << 64) - 1)),
        wire.Idle(lsn),
        wire.Beat(NOW, wire.Lag(size, NOW), ("a:1",) * (size % 3), wire.RecordsDigest(1, 1, 1, "x")),
        wire.Bye("" if size % 3 == 0 else f"FN-{size % 9}50{size % 10}", "why", size, {"theirs": "1-1", "ours": "3-4"}),
        wire.Want(LOG, lsn, size % 2 == 0),
        wire.Missing(LOG, lsn),
        wire.Renew(data, size),
        wire.Renewed((data,), ""),
        wire.Late(lsn, LOG, size, bytes(32), by),
        wire.Fenced("FN-6420", ("note",)),
        wire.Witnessed(lsn, (wire.WitnessedHead(LOG, size, (by,) * (size % 4)),)),
        wire.Holdings(tuple(wire.Holding(LOG, n, bytes(8)) for n in range(size % 6)), size % 2 == 0),
    )  # fmt: skip


_KINDS = _messages(0, 0)
_ACTS: tuple[Callable[[Play, Watched], None], ...] = (
    *(Play.deliver, Play.deliver, Play.commit, Play.deliver, Play.say, Play.lose, Play.repeat, Play.overtake),
    *(Play.alter, Play.cut, Play.say_raw, Play.say, Play.refuse_some, Play.miss, Play.pass_time, Play.wake),
    *(Play.ready, Play.ask, Play.learn, Play.admit, Play.end, Play.hurry, Play.flood, Play.clamour),
)


def _play(data: bytes) -> None:
    Play(Script(data)).run()


def _plays() -> Iterator[bytes]:
    """Two quiet ones, one of each step, and some by dice."""
    honest = bytes(range(0, 6, 1)) * 6
    yield b"\x01\x00\x03\x01\x01\x02\x00\x00\x02\x01\x03\x00" + honest
    yield b"\x00\x51\x02\x01\x01\x04\x00\x70\x03\x01\x01\x01\x00" + honest
    for act in range(0, len(_ACTS), 3):
        yield (
            b"\x01\x00\x04\x01\x03\x02\x01\x00\x00\x02\x01\x03\x00"
            + bytes((0, 3, 1, 3, act * 2, 3, 7, act * 2 + 3, 5, act * 2 + 5, 2)) * 3
        )
    for n in range(4):
        yield seed("play", n) + seed("play", n, "more")


TARGETS = (Target("exchange", _play, frozenset(), _plays, bytes_max=400),)
