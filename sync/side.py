"""One side of a session: what it knows of itself and the peer, and how it speaks. `fednode.sync.exchange` is what it
does when it is spoken to.

Rules
1. Every frame leaves through `_send`, which numbers it.
2. `_pump` says what the credit allows, asks for more when little is left and not too much is unanswered, and says Idle
   once when all is said: with the last chunk, from version 2 on.
3. Where more waits than `hurry_from` bytes, what is urgent in the feed is asked for, and goes ahead of it.
4. A session that was opened for one exchange ends when both feeds are drained and nothing is waited for.
5. What witnesses above have signed comes after all else: once the feed is drained, right before the first Idle, so that
   what it is about, and the certificates that it is verified with, are there; then with the ticks. What may still
   become more waits up to `TELL_MS`: one frame has what several levels have signed of many logs. It goes only to a
   child that says that it takes it (`Hello.witnessed`), and costs credit.
6. Whose cursor says nothing about the peer's store (it has met another one) says which logs it holds up to where
   (`Holdings`); the peer waits for that, and sends what is lacking. Both read it off the two Hellos.
7. How this node and those below it are (`Health`) goes to a parent that says that it takes it (`Hello.health`): with
   the ticks, when it is news (`news`), and as the last word of a session that ends by itself. The driver says what is
   ripe. Nobody waits for an answer; it costs credit, and without credit it stays here.
8. A side may sound a session that is open (`sound`): it wants a segment that no log has (`NOWHERE`). The peer, of
   whatever version, says that it is missing, behind all that it had sent before: the line is alive, and that has come.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fednode.sync import versions, wire
from fednode.sync.effects import (
    Again,
    Close,
    Compare,
    Effect,
    HalfSegment,
    HearHealth,
    Hurry,
    Pull,
    PullHealth,
    PullHoldings,
    PullWitnessed,
    Send,
)
from fednode.sync.errors import PeerError
from fednode.sync.inbox import Inbox
from fednode.sync.outbox import ROOM_MAX, Outbox
from fednode.sync.pace import Pace
from fednode.sync.states import State
from fednode.sync.versions import Versions

QUEUE_BYTES_LOW = 1024 * 1024
HURRY_FROM_BYTES = 64 * 1024
HURRY_SINCE = 2  # the protocol version that knows Chunk.ahead
PULL_BYTES = 2 * 1024 * 1024
TELL_MS = 60_000
AGAIN_BYTES_MAX = 4 * 1024 * 1024
WANTS_MAX = 10_000  # that wait to be looked up
UNACKED_MAX = 20_000  # then no more of the feed is read: late cosignatures cost the peer no credit
LOGS_MAX = 1_000_000  # that a peer may say it holds
NOWHERE = 1 << 48  # no log has so many changes
SOUNDINGS_MAX = 64  # that wait for their answer


class Side:
    """What outlives a message, and sending."""

    def __init__(
        self,
        *,
        dials: bool,
        hello: wire.Hello | None = None,
        once: bool = False,
        half: HalfSegment | None = None,
        speaks: Versions | None = None,
        paced: bool = False,
    ) -> None:
        self.speaks = speaks or versions.SPOKEN
        self.state = State.NEW
        self._inbox = Inbox(half, paced=paced)
        self._dials, self._once = dials, once
        self._hello = hello
        self._peer: wire.Hello | None = None
        self.version = 0  # of the session, from the peer's Hello on
        self._sent_number = self._received_number = 0
        self._outbox, self._pace = Outbox(), Pace()
        self._pulling = self._drained = self._idle_sent = self._woken = self._renewing = False
        self.hurry_from = ROOM_MAX  # a driver that carries out `Hurry` says HURRY_FROM_BYTES
        self._hurried = 0  # up to where the feed was looked through for what is urgent
        self._hurrying, self._urgent = False, True
        self._in_vain = 0  # how often the peer asked for what this side no longer holds
        self._soundings = 0
        self._sounding: set[int] = set()  # those that were not answered yet
        self._wanted: dict[wire.Want, None] = {}  # by the peer, not looked up yet
        self._early: list[bytes] = []
        self._early_bytes = 0
        self._hello_sent_ms = self._last_sent_ms = self._last_received_ms = 0
        self._comparing = self._all_told = False  # whether the peer still has to say, or has said, what it holds
        self._told_logs = 0
        self._lag: wire.Lag | None = None
        self._records: wire.RecordsDigest | None = None
        self._told: int | None = None  # how far the child was told what witnesses have signed; None: it is not told
        self._told_first = self._tell_starved = False
        self.tells_health = False  # a driver that carries out `PullHealth` says so
        self._health: wire.HealthPlace | None = None  # how far the parent has been told; None: it takes none
        self._health_asked = self._health_last = False
        self._tell_by_ms: int | None = 0  # when what waits to be told goes, ripe or not; None: nothing waits

    @property
    def dials(self) -> bool:
        """Whether this side is the child."""
        return self._dials

    @property
    def once(self) -> bool:
        """Whether it ends when both feeds are drained."""
        return self._once

    @property
    def greeted(self) -> bool:
        """Whether the peer has said something that can be understood."""
        return self._received_number > 0

    @property
    def chunk_bytes(self) -> int:
        """The largest chunk, by what the line was seen to carry."""
        return self._pace.chunk_bytes

    @property
    def quiet(self) -> bool:
        """Whether both sides have said all that they have, and all of it is answered."""
        told = self._drained and self._outbox.empty and not self._outbox.unacked and not self._wanted
        return told and not self._inbox.busy

    @property
    def both_ways(self) -> bool:
        """Whether each side has said in its greeting that it sends, and takes."""
        mine, theirs = self._hello, self._peer
        return mine is not None and theirs is not None and mine.feeds and mine.wants and theirs.feeds and theirs.wants

    @property
    def answered(self) -> bool:
        """Whether all that this side has is said and answered, but for what the peer cannot take without what is lost
        here."""
        outbox = self._outbox
        told = self._drained and outbox.empty and not self._wanted
        return told and len(outbox.unacked) <= self._in_vain

    @property
    def heard_out(self) -> bool:
        """Whether the peer has said that it has nothing more (and it was not for want of credit that it said no more),
        and nothing of it, no certificate either, is waited for."""
        inbox = self._inbox
        return inbox.idle and not inbox.waiting and inbox.allowed > 0 and not self._renewing

    @property
    def underway(self) -> tuple[int, int]:
        """Bytes that wait to be sent, and those of what is half here."""
        half = self._inbox.half
        return self._outbox.bytes_waiting, len(half.data) if half is not None else 0

    def silent_ms(self, now_ms: int) -> int:
        """Since when the peer was not heard."""
        return max(0, now_ms - self._last_received_ms)

    def knows(self, kind: type) -> bool:
        """Whether the peer's version has this kind of message: no other may be sent to it."""
        return wire.SINCE.get(kind, 0) <= self.version

    def _send(self, message: wire.Message, now_ms: int) -> Send:
        if not self.knows(type(message)):
            raise RuntimeError(f"{type(message).__name__} in a session of version {self.version}")
        self._sent_number += 1
        self._last_sent_ms = now_ms
        return Send(wire.encode(self._sent_number, message))

    def _pump(self, now_ms: int) -> list[Effect]:
        outbox = self._outbox
        if self._hurrying or self._comparing:  # nothing more goes out before the answer
            return []
        late = outbox.bytes_waiting > self.hurry_from and not outbox.hurrying
        if late and self._urgent and self.version >= HURRY_SINCE:
            self._hurrying = True
            return [Hurry(outbox.sent, self._hurried)]
        messages: list[wire.Message] = list(outbox.take(self.chunk_bytes))
        for one in messages:
            if isinstance(one, wire.Chunk):
                self._pace.sent(one.lsn, len(one.data), now_ms)
        little = outbox.bytes_waiting < QUEUE_BYTES_LOW and len(outbox.unacked) < UNACKED_MAX
        pull = not self._drained and not self._pulling and little
        first = False
        if not pull and self._drained and outbox.empty and not self._idle_sent:
            first = self._told is not None and not self._told_first
            if not first:
                self._idle_sent = True
                self._say_idle(messages)
        effects: list[Effect] = [self._send(message, now_ms) for message in messages]
        if first and self._told is not None:
            self._told_first = True
            return [*effects, PullWitnessed(self._told)]
        if pull:
            self._pulling = True
            effects.append(Pull(outbox.position, PULL_BYTES))
        return effects + self._finish_once(now_ms)

    def _look_up(self) -> list[Effect]:
        """The oldest of what the peer wants (`Exchange`, rule 11)."""
        if self.state is not State.OPEN or not self._wanted or self._outbox.bytes_again >= AGAIN_BYTES_MAX:
            return []
        want = next(iter(self._wanted))
        del self._wanted[want]
        return [Again(want.log, want.first, self._outbox.position, want.restore)]

    def _tell_more(self) -> list[Effect]:
        """Rule 5, after the first time."""
        if self._told is None or not self._told_first or self._pulling or not self._drained or not self._outbox.empty:
            return []
        return [PullWitnessed(self._told)]

    def tell(self, found: wire.Witnessed | None, ripe: bool, now_ms: int) -> list[Effect]:
        """The answer to PullWitnessed. `ripe`: there is no use in waiting for more."""
        if self.state is not State.OPEN or self._told is None:
            return []
        if found is None or not found.heads:
            self._told = found.upto if found is not None else self._told
            self._tell_by_ms = None
            return self._pump(now_ms)
        if self._tell_by_ms is None:
            self._tell_by_ms = now_ms + TELL_MS
        self._tell_starved = self._outbox.credit <= 0
        if self._tell_starved or (not ripe and now_ms < self._tell_by_ms):
            return self._pump(now_ms)
        self._told = found.upto
        self._outbox.credit -= found.cost
        return [self._send(found, now_ms), PullWitnessed(self._told)]

    def _say_idle(self, messages: list[wire.Message]) -> None:
        """In passing where the peer understands that: 40 bytes less for a single change. With it the peer gives up what
        it has half: what is sent after that begins at its beginning."""
        self._outbox.partial = None
        if messages and isinstance(last := messages[-1], wire.Chunk) and self._outbox.brief:
            messages[-1] = replace(last, idle=True)
        else:
            messages.append(wire.Idle(self._outbox.position))

    def tell_lag(self, lag: wire.Lag, records: wire.RecordsDigest | None, now_ms: int) -> list[Effect]:
        """To a standby: how far behind it is, where that has changed; every beat repeats it. And what to compare with,
        where that has."""
        if self.state is not State.OPEN or (lag, records) == (self._lag, self._records):
            return []
        news, self._lag, self._records = records if records != self._records else None, lag, records
        return [self._send(wire.Beat(now_ms, lag, records=news), now_ms)]

    def tell_places(self, standbys: tuple[str, ...], issuers: tuple[str, ...], now_ms: int) -> list[Effect]:
        """To a child: where this node's standbys can be dialled, and its parent, where that has changed since the
        greeting."""
        hello = self._hello
        if self.state is not State.OPEN or hello is None or (standbys, issuers) == (hello.addresses, hello.issuers):
            return []
        self._hello = replace(hello, addresses=standbys, issuers=issuers)
        return [self._send(wire.Beat(now_ms, self._lag, standbys, issuers=issuers), now_ms)]

    # ------------------------------------------------------------ sounding

    def sound(self, log: str, now_ms: int) -> tuple[int, list[Effect]]:
        """Rule 8, with the name of a log of this node. The number for `echoed`; 0: not now. `Sounded` comes of it."""
        if self.state is not State.OPEN or len(self._sounding) >= SOUNDINGS_MAX:
            return 0, []
        self._soundings += 1
        self._sounding.add(self._soundings)
        return self._soundings, [self._send(wire.Want(log, NOWHERE + self._soundings, restore=True), now_ms)]

    def echoed(self, number: int) -> bool:
        """Whether a sounding was answered."""
        return number not in self._sounding

    def _echoes(self, missing: wire.Missing) -> bool:
        number = missing.first - NOWHERE
        if number not in self._sounding:
            return False
        self._sounding.discard(number)
        return True

    # ------------------------------------------------------------ how nodes are

    def news(self, now_ms: int) -> list[Effect]:
        """What is known of this node and those below it has changed for the worse, or back: it need not wait."""
        return self._pull_health()

    def _pull_health(self) -> list[Effect]:
        """Rule 7."""
        if self.state is not State.OPEN or self._health is None or self._health_asked or self._outbox.credit <= 0:
            return []
        self._health_asked = True
        return [PullHealth(self._health, self._health_last)]

    def tell_health(self, found: wire.Health | None, now_ms: int) -> list[Effect]:
        """The answer to PullHealth; None: nothing, or not yet."""
        self._health_asked = False
        if self.state is not State.OPEN:
            return []
        if found is None:
            return self._finish_once(now_ms)
        self._health = found.place
        if not found.entries:
            return self._pull_health()
        self._outbox.credit -= found.cost
        return [self._send(found, now_ms), *(self._pull_health() or self._finish_once(now_ms))]

    def _on_health(self, told: wire.Health, now_ms: int) -> list[Effect]:
        if self._dials:
            raise PeerError("FN-5504", state="open", message="Health")
        self._inbox.told(told)
        return [HearHealth(told)]

    def folded(self, told: wire.Health, now_ms: int) -> list[Effect]:
        """What `HearHealth` gave is folded, or left."""
        freed = self._inbox.learnt(told)
        credit = self._inbox.credit(freed) if self.state is State.OPEN else 0
        return [self._send(wire.Credit(credit), now_ms)] if credit else []

    # ------------------------------------------------------------ what is held where a cursor is of no use

    def _begin(self) -> list[Effect]:
        """Rule 6."""
        mine, theirs = self._hello, self._peer
        if mine is None or theirs is None or mine.restore or theirs.restore or not self.knows(wire.Holdings):
            return []
        self._comparing = mine.feeds and theirs.wants and not theirs.have.within(mine.store)
        tells = mine.wants and theirs.feeds and not mine.have.within(theirs.store)
        return [PullHoldings()] if tells else []

    def hold(self, entries: Sequence[wire.Holding], now_ms: int) -> list[Effect]:
        """The answer to PullHoldings."""
        if self.state is not State.OPEN:
            return []
        size = wire.HOLDINGS_MAX
        parts = [tuple(entries[i : i + size]) for i in range(0, len(entries), size)] or [()]
        last = len(parts) - 1
        return [self._send(wire.Holdings(part, i == last), now_ms) for i, part in enumerate(parts)]

    def compared(self, now_ms: int) -> list[Effect]:
        """What the peer lacks is known: the feed may begin."""
        self._comparing = False
        return self._pump(now_ms) if self.state is State.OPEN else []

    def _on_holdings(self, told: wire.Holdings, now_ms: int) -> list[Effect]:
        self._told_logs += len(told.entries)
        if not self._comparing or self._all_told or self._told_logs > LOGS_MAX:
            raise PeerError("FN-5504", state="open", message="Holdings")
        self._all_told = told.last
        return [Compare(told.entries, told.last)]

    # ------------------------------------------------------------ the end

    def _finish_once(self, now_ms: int) -> list[Effect]:
        outbox = self._outbox
        if not self._once or self.state is not State.OPEN or not self._drained or not outbox.empty:
            return []
        if (
            self._wanted or len(outbox.unacked) > self._in_vain
        ):  # what the peer cannot take without what is lost here stays unanswered
            return []
        takes = bool(self._hello and self._hello.wants and self._peer and self._peer.feeds)
        if (takes and not self._inbox.idle) or self._inbox.waiting or self._renewing or self._health_asked:
            return []
        if not self._health_last:
            self._health_last = True
            if asked := self._pull_health():
                return asked
        return self._close(None, now_ms)

    def _close(self, error: Exception | None, now_ms: int, retry_after_ms: int = 0) -> list[Effect]:
        if self.state is State.CLOSED:
            return []
        code = getattr(error, "code", "FN-5500") if error is not None else ""
        effects: list[Effect] = []
        if not (self._dials and self.state is State.NEW):  # a child that never spoke owes no farewell
            code = versions.TOO_OLD if code == versions.TOO_OLD_HERE else code
            params = {name: str(value) for name, value in getattr(error, "params", {}).items()}
            effects.append(self._send(wire.Bye(code, str(error or ""), retry_after_ms, params), now_ms))
        self.state = State.CLOSED
        return [*effects, Close(error, retry_after_ms)]
