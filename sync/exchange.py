"""The exchange: one session between child and parent, as a state machine without I/O.

gRPC, bundles and the simulator drive it: bytes and clock readings in, effects out. The driver carries the effects out
and
reports back; the engine itself never touches a socket, a disk or a clock.

    NEW --start(child)--> GREETING --Hello--> ADMITTING --admitted--> OPEN --Bye / error--> CLOSED
    NEW (parent) ---------------------Hello--> ADMITTING

Rules
1. The child dials and greets first. Nothing else is accepted before both Hellos.
2. `committed` is the only maker of an Ack: what is not durable cannot be acknowledged.
3. A peer sends at most `window` bytes beyond the credit that it was given; credit comes back as segments are
   committed or refused.
4. Frames are numbered. One seen before is ignored; a gap ends the session (the link lost something; the cursor finds
   the place).
5. A segment that is refused does not stop the feed: its outcome carries the code, the cursor moves on, the evidence
   is kept.
6. A segment that came too early is not kept: it is asked for again, with all that precedes it, by Want.
7. A PeerError ends the session with a Bye that carries its code. Any other exception is a bug.
8. Tables, not branches, say which message is legal when (`fednode.sync.states`).
9. What the parent sends while the child still admits it waits, bounded, and is handled as soon as it is admitted.
10. Who was let in by TLS and does not greet within `GREETING_MS_MAX` has to go: it holds a place of those who do.
11. What a peer wants again is looked up one by one, while little of it waits to be sent (`AGAIN_BYTES_MAX`): a few
   bytes that ask for much do not fill the memory of whoever is asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from fednode.sync import versions, wire
from fednode.sync.effects import (
    Acked,
    Admission,
    Admit,
    Alert,
    Behind,
    Close,
    Done,
    Effect,
    HalfSegment,
    Item,
    Learn,
    PeerClock,
    PeerFenced,
    Places,
    RenewAnswered,
    RenewAsked,
    Sounded,
)
from fednode.sync.errors import PeerError, Unavailable
from fednode.sync.side import HURRY_SINCE, UNACKED_MAX, WANTS_MAX, Side
from fednode.sync.states import LEGAL, State

WINDOW_BYTES = 4 * 1024 * 1024
EARLY_BYTES_MAX = 2 * WINDOW_BYTES
BEAT_MS = 20_000
BRIEF_FROM = 2  # the version from which a peer takes whole chunks without a digest, and Chunk.idle
SILENCE_MS_MAX = 70_000
GREETING_MS_MAX = 15_000


class Exchange(Side):
    """One side of one session. `dials`: this side is the child. `once`: end when both feeds are drained.
    `speaks`: protocol versions, `versions.SPOKEN` where it is left out."""

    # ------------------------------------------------------------ life

    def start(self, now_ms: int) -> list[Effect]:
        """The child's first move; the parent only starts its clock."""
        self._last_sent_ms = self._last_received_ms = self._hello_sent_ms = now_ms
        if not self._dials:
            return []
        if self._hello is None or self.state is not State.NEW:
            raise RuntimeError("start: a child starts once, with its Hello")
        self.state = State.GREETING
        return [self._send(self._hello, now_ms)]

    def receive(self, data: bytes, now_ms: int) -> list[Effect]:
        """One frame from the peer."""
        if self.state is State.CLOSED:
            return []
        if self.state is State.ADMITTING and self._dials:
            return self._keep_early(data, now_ms)
        try:
            number, message = wire.decode(data)
            if number <= self._received_number:
                return []
            if number != self._received_number + 1:
                return self._close(Unavailable("FN-4503", expected=self._received_number + 1, got=number), now_ms)
            self._received_number = number
            self._last_received_ms = now_ms
            if not isinstance(message, LEGAL[self.state]):
                raise PeerError("FN-5504", state=self.state.value, message=type(message).__name__)
            handler = _HANDLERS[type(message)]
            return handler(self, message, now_ms)
        except PeerError as error:
            return [Alert(error.code, dict(error.params)), *self._close(error, now_ms)]

    def _keep_early(self, data: bytes, now_ms: int) -> list[Effect]:
        """The parent goes on right after its Hello, while this side still looks at who it is: rule 9."""
        self._early.append(data)
        self._early_bytes += len(data)
        if self._early_bytes > EARLY_BYTES_MAX:
            error = PeerError("FN-5506", over=self._early_bytes - EARLY_BYTES_MAX)
            return [Alert(error.code, dict(error.params)), *self._close(error, now_ms)]
        return []

    def admitted(self, admission: Admission, now_ms: int) -> list[Effect]:
        """The peer is who it says and may go on."""
        if self.state is not State.ADMITTING or self._peer is None:
            raise RuntimeError("admitted: nobody asked")
        effects: list[Effect] = []
        if admission.reply is not None:
            self._hello = admission.reply
            effects.append(self._send(admission.reply, now_ms))
        self.state = State.OPEN
        self._outbox.position, self._outbox.partial = admission.start, self._peer.partial
        self._told = admission.told if self.knows(wire.Witnessed) else None
        self._health = self._peer.health if self._dials and self.tells_health and self.knows(wire.Health) else None
        self._outbox.credit, self._outbox.brief = self._peer.window, self.version >= BRIEF_FROM
        if self._hello is not None:
            self._inbox.open(self._hello.window)
        self._renewing = admission.renew is not None
        effects += [self._send(one, now_ms) for one in (admission.fenced, admission.renew) if one is not None]
        for i in range(0, len(admission.acks), wire.OUTCOMES_MAX):
            effects.append(self._send(wire.Ack(admission.acks[i : i + wire.OUTCOMES_MAX]), now_ms))
        if not (self._hello and self._hello.feeds and self._peer.wants):
            self._drained = True
        elif self.version >= HURRY_SINCE:
            self._outbox.add_ahead(admission.ahead)
        tells = self._begin()
        effects += self._pump(now_ms)
        early, self._early, self._early_bytes = self._early, [], 0
        for data in early:
            effects += self.receive(data, now_ms)
        return effects + tells

    def refuse(self, error: Exception, now_ms: int, retry_after_ms: int = 0) -> list[Effect]:
        """The peer may not go on (or not now); also the way to end a session from this side with a reason."""
        return self._close(error, now_ms, retry_after_ms)

    def finish(self, now_ms: int) -> list[Effect]:
        """End politely: the node is stopping."""
        return self._close(None, now_ms)

    def tick(self, now_ms: int) -> list[Effect]:
        """Call every few seconds: sends beats, notices silence."""
        if self.state is State.CLOSED or (self.state is State.NEW and self._dials):
            return []
        if now_ms - self._last_received_ms > (GREETING_MS_MAX if self.state is State.NEW else SILENCE_MS_MAX):
            return self._close(Unavailable("FN-4502", silent_ms=now_ms - self._last_received_ms), now_ms)
        if self.state is not State.OPEN:
            return []
        beat = [self._send(wire.Beat(now_ms, self._lag), now_ms)] if now_ms - self._last_sent_ms >= BEAT_MS else []
        return [*beat, *self._tell_more(), *self._pull_health(), *self._look_up()]

    # ------------------------------------------------------------ the driver's reports

    def wake(self, now_ms: int) -> list[Effect]:
        """The feed has grown."""
        if self.state is not State.OPEN or not (self._hello and self._hello.feeds and self._peer and self._peer.wants):
            return []
        self._urgent = True
        if self._pulling:
            self._woken = True
            return []
        self._drained = False
        return self._pump(now_ms)

    def feed(self, items: Sequence[Item], drained: bool, now_ms: int) -> list[Effect]:
        """The answer to Pull, in arrival order."""
        self._pulling = False
        self._drained = drained and not self._woken
        self._woken = False
        if self.state is not State.OPEN:
            return []
        if items:
            self._outbox.add(items)
            self._idle_sent = False
        return self._pump(now_ms)

    def hurried(self, items: Sequence[Item], seen: int, more: bool, now_ms: int) -> list[Effect]:
        """The answer to Hurry: what goes ahead, in arrival order; up to where the feed was looked through, and whether
        there is more to be had when this is sent."""
        self._hurrying, self._hurried = False, max(self._hurried, seen)
        self._urgent = more and bool(items)
        if self.state is not State.OPEN:
            return []
        self._outbox.add_ahead(items)
        return self._pump(now_ms)

    def ready(self, room: int, now_ms: int, chunk_bytes: int = wire.CHUNK_BYTES_MAX) -> list[Effect]:
        """The line takes so many bytes of segments now, in chunks of at most so many."""
        self._outbox.room, self._outbox.chunk_bytes = room, chunk_bytes
        pumped = self._pump(now_ms) if self.state is State.OPEN and not self._outbox.empty else []
        return [*pumped, *self._look_up()]

    def grant(self, bytes_max: int, now_ms: int) -> tuple[list[Effect], int]:
        """Under a limit on what comes in: give the peer credit, `bytes_max` at most. And how much that was."""
        granted = self._inbox.grant(bytes_max) if self.state is State.OPEN else 0
        return ([self._send(wire.Credit(granted), now_ms)] if granted else []), granted

    def resend(self, log: str, first: int, items: Sequence[Item], now_ms: int) -> list[Effect]:
        """The answer to Again; no items: this side does not hold them either."""
        if self.state is not State.OPEN:
            return []
        if not items:
            self._in_vain += 1
            return [self._send(wire.Missing(log, first), now_ms), *self._finish_once(now_ms)]
        self._outbox.add_again(items)
        self._idle_sent = False
        return self._pump(now_ms)

    def committed(self, reports: Iterable[Done], now_ms: int) -> list[Effect]:
        """The writer's reports, after its commit: the only maker of an Ack."""
        if self.state is not State.OPEN:
            return []
        outcomes: list[wire.Outcome] = []
        effects: list[Effect] = []
        freed = 0
        for report in reports:
            freed += self._inbox.done(report.lsn)
            self._inbox.mending -= {report.mended, report.unfit}
            if report.gap is not None and report.ahead:
                continue  # it will come in its turn
            if report.gap is not None:
                effects.append(self._too_early(report.lsn, report.gap, now_ms))
                continue
            self._inbox.filled(report.lsn)
            outcomes.append(wire.Outcome(report.lsn, report.cosignature, report.refused))
        for i in range(0, len(outcomes), wire.OUTCOMES_MAX):
            effects.append(self._send(wire.Ack(tuple(outcomes[i : i + wire.OUTCOMES_MAX])), now_ms))
        if credit := self._inbox.credit(freed):
            effects.append(self._send(wire.Credit(credit), now_ms))
        return effects + self._finish_once(now_ms)

    def _too_early(self, lsn: int, want: wire.Want, now_ms: int) -> Effect:
        if self._inbox.early(lsn, want):
            return self._send(want, now_ms)
        return Alert("FN-6412", {"log": want.log, "first": want.first})

    def ask_renewal(self, renew: wire.Renew, now_ms: int) -> list[Effect]:
        """Ask the parent for a certificate, once: `RenewAnswered` comes of it."""
        if self.state is not State.OPEN or self._renewing:
            return []
        self._renewing = True
        return [self._send(renew, now_ms)]

    def answer_renewal(self, chain: tuple[bytes, ...], refused: str, now_ms: int) -> list[Effect]:
        """The parent's answer."""
        return [self._send(wire.Renewed(chain, refused), now_ms)] if self.state is State.OPEN else []

    def ask_segment(self, log: str, first: int, now_ms: int) -> list[Effect]:
        """Ask for one segment in the place of one that is damaged here; `missing` or the writer's report ends it."""
        want = wire.Want(log, first, restore=True)
        if self.state is not State.OPEN or want in self._inbox.mending:
            return []
        self._inbox.mending.add(want)
        return [self._send(want, now_ms)]

    @property
    def half(self) -> HalfSegment | None:
        """A segment that is arriving: the driver keeps it for the next session, and may give the last one's back."""
        return self._inbox.half

    @half.setter
    def half(self, half: HalfSegment | None) -> None:
        self._inbox.half = half

    @property
    def pending(self) -> int:
        """Items sent or queued and not yet acknowledged."""
        return len(self._outbox.unacked)

    # ------------------------------------------------------------ messages

    def _on_hello(self, hello: wire.Hello, now_ms: int) -> list[Effect]:
        theirs = versions.Versions(hello.version_min, hello.version_max)
        self.version = versions.agree(self.speaks, theirs, hello.software)
        self._peer = replace(hello, window=min(hello.window, WINDOW_BYTES))
        self.state = State.ADMITTING
        reading = [PeerClock(self._hello_sent_ms, now_ms, hello.now_ms, hello.unsure)] if self._dials else []
        return [*reading, Admit(hello)]

    def _on_chunk(self, chunk: wire.Chunk, now_ms: int) -> list[Effect]:
        whole = self._inbox.chunk(chunk)
        if chunk.idle:
            self._inbox.half = None
        return [] if whole is None else [whole]

    def _on_late(self, late: wire.Late, now_ms: int) -> list[Effect]:
        return [self._inbox.late(late)]

    def _on_witnessed(self, told: wire.Witnessed, now_ms: int) -> list[Effect]:
        if not self._dials:
            raise PeerError("FN-5504", state="open", message="Witnessed")
        self._inbox.told(told)
        return [Learn(told)]

    def learnt(self, told: wire.Witnessed, now_ms: int) -> list[Effect]:
        """The writer is through with what `Learn` gave it."""
        freed = self._inbox.learnt(told)
        if self.state is not State.OPEN:
            return []
        credit = self._inbox.credit(freed)
        return [*([self._send(wire.Credit(credit), now_ms)] if credit else []), *self._finish_once(now_ms)]

    def _on_ack(self, ack: wire.Ack, now_ms: int) -> list[Effect]:
        waited = len(self._outbox.unacked) >= UNACKED_MAX
        upto = self._outbox.answered(outcome.lsn for outcome in ack.outcomes)
        self._pace.heard([outcome.lsn for outcome in ack.outcomes], now_ms)
        return [Acked(ack.outcomes, upto), *(self._pump(now_ms) if waited else self._finish_once(now_ms))]

    def _on_credit(self, credit: wire.Credit, now_ms: int) -> list[Effect]:
        self._outbox.credit = min(self._outbox.credit + credit.bytes, WINDOW_BYTES)
        effects = [*self._pump(now_ms), *self._look_up()]
        return [*effects, *self._tell_more()] if self._tell_starved and self._idle_sent else effects

    def _on_idle(self, idle: wire.Idle, now_ms: int) -> list[Effect]:
        self._inbox.idle = True
        self._inbox.half = None  # the peer has sent all it has: what is half here will start again in another session
        return self._finish_once(now_ms)

    def _on_want(self, want: wire.Want, now_ms: int) -> list[Effect]:
        if len(self._wanted) >= WANTS_MAX and want not in self._wanted:
            raise PeerError("FN-5504", state="open", message="Want")
        self._wanted[want] = None
        return self._look_up()

    def _on_missing(self, missing: wire.Missing, now_ms: int) -> list[Effect]:
        if self._echoes(missing):
            return [Sounded()]
        self._inbox.missing(missing.log, missing.first)
        return [Alert("FN-6412", {"log": missing.log, "first": missing.first}), *self._finish_once(now_ms)]

    def _on_renew(self, renew: wire.Renew, now_ms: int) -> list[Effect]:
        if self._dials:
            raise PeerError("FN-5504", state="open", message="Renew")
        return [RenewAsked(renew.request, renew.life)]

    def _on_renewed(self, renewed: wire.Renewed, now_ms: int) -> list[Effect]:
        if not self._dials:
            raise PeerError("FN-5504", state="open", message="Renewed")
        self._renewing = False
        return [RenewAnswered(renewed.chain, renewed.refused), *self._finish_once(now_ms)]

    def _on_fenced(self, fenced: wire.Fenced, now_ms: int) -> list[Effect]:
        return [PeerFenced(fenced.code, fenced.heads)]

    def _on_beat(self, beat: wire.Beat, now_ms: int) -> list[Effect]:
        if not self._dials:
            return []
        told: list[Effect] = [Behind(beat.lag, beat.records)] if beat.lag is not None else []
        places = Places(beat.standbys, beat.issuers)
        return told if places == Places(None, None) else [*told, places]

    def _on_unknown(self, hint: wire.Unknown, now_ms: int) -> list[Effect]:
        return []

    def _on_bye(self, bye: wire.Bye, now_ms: int) -> list[Effect]:
        self.state = State.CLOSED
        ms = bye.retry_after_ms
        if not bye.code:
            return [Close(None, bye.retry_after_ms)]
        if bye.code.startswith("FN-4"):
            return [Close(Unavailable(bye.code, retry_after_ms=ms, detail=bye.detail, seconds=-(-ms // 1000)), ms)]
        too_old = versions.told(bye.params) if bye.code == versions.TOO_OLD else None
        error = too_old or PeerError("FN-5508", code=bye.code, detail=bye.detail)
        error.told = bye.params or None
        return [Close(error, bye.retry_after_ms)]


_HANDLERS: dict[type, Callable[[Exchange, Any, int], list[Effect]]] = {
    wire.Hello: Exchange._on_hello,
    wire.Chunk: Exchange._on_chunk,
    wire.Late: Exchange._on_late,
    wire.Witnessed: Exchange._on_witnessed,
    wire.Health: Exchange._on_health,
    wire.Ack: Exchange._on_ack,
    wire.Credit: Exchange._on_credit,
    wire.Idle: Exchange._on_idle,
    wire.Want: Exchange._on_want,
    wire.Missing: Exchange._on_missing,
    wire.Renew: Exchange._on_renew,
    wire.Renewed: Exchange._on_renewed,
    wire.Fenced: Exchange._on_fenced,
    wire.Beat: Exchange._on_beat,
    wire.Holdings: Exchange._on_holdings,
    wire.Bye: Exchange._on_bye,
    wire.Unknown: Exchange._on_unknown,
}
