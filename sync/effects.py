"""What goes into an exchange and what comes out of it, as values. The engine decides, the driver does.

Rules
1. An effect is carried out once, in the order given. Its result, where it has one, is reported back by the method that
   it names.
2. `Send` after `Commit` never means that the commit is done: only `committed` makes an Ack.

>>> Pull(after=7, bytes_max=1024).after
7
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from fednode.sync import wire

# ---------------------------------------------------------------- what goes in


@dataclass(frozen=True, slots=True)
class Item:
    """One thing of this node's feed: a segment with its SHA-256, or a late cosignature (`late` set, `data` empty)."""

    lsn: int
    data: bytes
    first_parent: wire.Cosignature | None = None
    late: wire.Late | None = None
    digest: bytes = b""


@dataclass(frozen=True, slots=True)
class Admission:
    """What the driver found out about the peer. `start`: send what is after this arrival number; `acks`: outcomes of
    the peer's segments that the peer has not heard of; `ahead`: what of the feed goes before all else."""

    start: int
    acks: tuple[wire.Outcome, ...] = ()
    reply: wire.Hello | None = None  # the parent's own Hello; the child's went out first
    fenced: wire.Fenced | None = None  # what this side has to say of itself
    told: int | None = None  # how far the child has what `Witnessed` tells; None: it does not take it
    renew: wire.Renew | None = None  # the certificate that this side asks for
    ahead: tuple[Item, ...] = ()


@dataclass(frozen=True, slots=True)
class Done:
    """The writer's report on one incoming item. Exactly one of the three: durable (`cosignature` may be there),
    `refused`, or `gap`. `mended`: what was asked for, where it took a damaged segment's place; `unfit`: where it could
    not; `ahead`: it came ahead of its turn; `at`: the arrival number here of what is durable."""

    lsn: int
    cosignature: wire.Cosignature | None = None
    refused: str = ""
    gap: wire.Want | None = None
    mended: wire.Want | None = None
    ahead: bool = False
    unfit: wire.Want | None = None
    at: int = field(default=0, compare=False)


@dataclass(slots=True)
class HalfSegment:
    """A segment that is arriving. Kept by the driver between sessions, so that a cut resumes at the chunk."""

    lsn: int
    total: int
    digest: bytes
    data: bytearray = field(default_factory=bytearray)
    first_parent: wire.Cosignature | None = None
    ahead: bool = False


# ---------------------------------------------------------------- what comes out


@dataclass(frozen=True, slots=True)
class Send:
    data: bytes


@dataclass(frozen=True, slots=True)
class Admit:
    """Check who this is; then call `admitted`, or `refuse`."""

    hello: wire.Hello


@dataclass(frozen=True, slots=True)
class Pull:
    """Fetch items of the feed after an arrival number, about so many bytes of them; then call `feed`."""

    after: int
    bytes_max: int


@dataclass(frozen=True, slots=True)
class Hurry:
    """Fetch what is urgent in the feed beyond an arrival number, each with all that precedes it in its log after
    another one (`after`: up to there everything is sent); then call `hurried`."""

    after: int
    beyond: int


@dataclass(frozen=True, slots=True)
class Again:
    """The peer lacks a log from `first` on: fetch its segments up to arrival number `until`; then call `resend`.
    `restore`: just the one that begins there, wherever it lies: the peer's own is damaged."""

    log: str
    first: int
    until: int
    restore: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """Verify, make durable; then call `committed`. `late` instead of `data` for a late cosignature. `ahead`: it comes
    ahead of its turn, and moves no cursor. `asked`: it was asked for in the place of one that is damaged here."""

    lsn: int
    data: bytes
    first_parent: wire.Cosignature | None = None
    late: wire.Late | None = None
    ahead: bool = False
    asked: wire.Want | None = None


@dataclass(frozen=True, slots=True)
class PullWitnessed:
    """Look for what witnesses above have signed of the peer's logs, after this number; then call `tell`."""

    after: int


@dataclass(frozen=True, slots=True)
class Learn:
    """Verify what witnesses above have signed, make it durable; then call `learnt`."""

    told: wire.Witnessed


@dataclass(frozen=True, slots=True)
class PullHealth:
    """Look for reports that have changed after a place in this node's count; then call `tell_health`. `last`: it is the
    last chance in this session, there is no use in waiting for more."""

    after: wire.HealthPlace
    last: bool


@dataclass(frozen=True, slots=True)
class HearHealth:
    """Fold a child's reports into what is known; then call `folded`."""

    told: wire.Health


@dataclass(frozen=True, slots=True)
class PullHoldings:
    """Look up what this node holds of the logs that the peer's feed may have; then call `hold`."""


@dataclass(frozen=True, slots=True)
class Compare:
    """What the peer holds, part by part; after the last of them, when the feed gives what is lacking, call
    `compared`."""

    entries: tuple[wire.Holding, ...]
    last: bool


@dataclass(frozen=True, slots=True)
class Acked:
    """The peer holds these, durably, or refuses them. `upto`: all of the feed up to this arrival number is answered."""

    outcomes: tuple[wire.Outcome, ...]
    upto: int = 0


@dataclass(frozen=True, slots=True)
class PeerClock:
    """The peer's clock, read between two readings of the session's timer, all Unix milliseconds. `unsure`: by its own
    account."""

    sent_ms: int
    received_ms: int
    remote_ms: int
    unsure: bool = False


@dataclass(frozen=True, slots=True)
class RenewAsked:
    request: bytes
    life: int = 0


@dataclass(frozen=True, slots=True)
class RenewAnswered:
    chain: tuple[bytes, ...]
    refused: str


@dataclass(frozen=True, slots=True)
class PeerFenced:
    """The peer has fenced itself; `heads`: notes, not yet verified."""

    code: str
    heads: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """The primary has said how far this standby is behind; `records`: what to compare with."""

    lag: wire.Lag
    records: wire.RecordsDigest | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where the parent's standbys can be dialled from now on, and where it dials its own parent. None: it does not
    say."""

    standbys: tuple[str, ...] | None
    issuers: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Sounded:
    """The peer has answered a sounding (`Side.sound`)."""


@dataclass(frozen=True, slots=True)
class Alert:
    code: str
    params: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Close:
    """The session is over. `error` None: both sides were done. `retry_after_ms`: the peer asked for that much
    patience.
    """

    error: Exception | None = None
    retry_after_ms: int = 0


Effect = (
    Send | Admit | Pull | Hurry | Again | Commit | PullWitnessed | Learn | PullHealth | HearHealth | PullHoldings
    | Compare | Acked | PeerClock | RenewAsked | RenewAnswered | PeerFenced | Behind | Places | Sounded | Alert | Close
)  # fmt: skip
