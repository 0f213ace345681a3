"""What goes over the wire in an exchange, as values. `fednode.sync.wire` makes bytes of them and reads them.

Rules
1. Immutable, without behaviour (but what they cost). Texts and sizes are limited where bytes become values, not here.
2. A kind of frame that came after version 1 of the protocol stands in `SINCE` (`fednode.sync.versions`, rule 4).

>>> Outcome(7).refused, Hello("1301", (), 0, b"").version_max >= 2
('', True)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from fednode.sync.health import Health, HealthPlace
from fednode.sync.versions import SPOKEN


@dataclass(frozen=True, slots=True)
class Cursor:
    """A place in a store's arrival order; `check` is the head of the SHA-256 of the segment there."""

    store: bytes = b""
    lsn: int = 0
    check: bytes = b""

    def within(self, store: bytes) -> bool:
        """Whether it says anything about this store."""
        return self.lsn > 0 and self.store == store


@dataclass(frozen=True, slots=True)
class Partial:
    """A segment of which `offset` bytes have arrived."""

    lsn: int
    digest: bytes
    offset: int


GATHERS_UNKNOWN, GATHERS_NOT, GATHERS = 0, 1, 2  # Hello.gathers


@dataclass(frozen=True, slots=True)
class Hello:
    """`unsure`: the sender has not learnt the time from its own parent since it booted; `above`: a child knows these
    incarnations of those above it, its parent first; `lives`: the certificates of their later ones."""

    node: str
    chain: tuple[bytes, ...]
    now_ms: int
    store: bytes
    have: Cursor = Cursor()
    acked: int = 0
    window: int = 0
    partial: Partial | None = None
    feeds: bool = True
    wants: bool = True
    catalog_version: int = 0
    software: str = ""
    restore: bool = False
    version_min: int = SPOKEN.low
    version_max: int = SPOKEN.high
    witnessed: int | None = None  # how far it has what `Witnessed` tells; None: it does not take it
    unsure: bool = False
    incarnation: int = 0
    knows: int = 0
    addresses: tuple[str, ...] = ()
    issuers: tuple[str, ...] = ()
    above: tuple[int, ...] = ()
    lives: tuple[bytes, ...] = ()
    gathers: int = (
        0  # `GATHERS`: its life began from less than it had, so the peer gives what it holds of the earlier ones
    )
    health: HealthPlace | None = None  # to a child: how far its reports have come; None: it takes none


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's signature (C2SP tlog-cosignature v1) over a checkpoint, made at `time_s`."""

    time_s: int
    signature: bytes
    witness: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """`total` and `digest` (and the first parent's cosignature) come with the first chunk of a segment in a session.
    From version 2 on: `ahead`, the segment comes ahead of its turn in the feed, the receiver's cursor stays; a chunk
    that is all of a segment has no digest; `idle` says in passing what Idle says."""

    lsn: int
    offset: int
    data: bytes
    total: int = 0
    digest: bytes = b""
    first_parent: Cosignature | None = None
    ahead: bool = False
    idle: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the segment at `lsn` of the sender's feed: durable (with the receiver's cosignature) or
    refused.
    """

    lsn: int
    cosignature: Cosignature | None = None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Ack:
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True)
class Credit:
    bytes: int


@dataclass(frozen=True, slots=True)
class Idle:
    lsn: int


@dataclass(frozen=True, slots=True)
class Lag:
    """What a standby has not acknowledged: so many changes; its primary has had the oldest of them since `since_ms`."""

    changes: int = 0
    since_ms: int = 0


@dataclass(frozen=True, slots=True)
class RecordsDigest:
    """How many records the sender had at an arrival number of its own, and their digest (hex)."""

    lsn: int
    at_ms: int
    records: int
    digest: str


@dataclass(frozen=True, slots=True)
class Beat:
    """`lag`: to a standby, how far behind it is; `standbys`: to a child, where the sender's standbys can be dialled
    from now on; `records`: to a standby, what to compare its records with; `issuers`: to a child, where the sender
    dials its own parent from now on."""

    now_ms: int
    lag: Lag | None = None
    standbys: tuple[str, ...] | None = None
    records: RecordsDigest | None = None
    issuers: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Bye:
    """`params`: what the words for the code name; nothing before version 2."""

    code: str = ""
    detail: str = ""
    retry_after_ms: int = 0
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Want:
    """`restore`: just the segment that begins there, in place of a damaged one; else all of the log from there on."""

    log: str
    first: int
    restore: bool = False


@dataclass(frozen=True, slots=True)
class Missing:
    log: str
    first: int


@dataclass(frozen=True, slots=True)
class Renew:
    """`life`: the incarnation that the child leaves for a new one, 0 for a plain renewal."""

    request: bytes
    life: int = 0


@dataclass(frozen=True, slots=True)
class Renewed:
    chain: tuple[bytes, ...]
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Late:
    """A first-parent cosignature that lowers a stamp of a segment sent before."""

    lsn: int
    log: str
    size: int
    root: bytes
    first_parent: Cosignature


@dataclass(frozen=True, slots=True)
class Fenced:
    """The sender's own store is not what its logs say: it writes no more. `heads`: notes of what it holds of them."""

    code: str
    heads: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WitnessedHead:
    """What witnesses have signed of one checkpoint; each cosignature names its witness."""

    log: str
    size: int
    cosignatures: tuple[Cosignature, ...]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Cosignatures by nodes above the sender, of logs that the receiver holds. `upto`: the sender's count."""

    upto: int
    heads: tuple[WitnessedHead, ...] = ()

    @property
    def cost(self) -> int:
        """Bytes of credit: about what it takes."""
        return sum(len(head.log) + 20 + 100 * len(head.cosignatures) for head in self.heads)


@dataclass(frozen=True, slots=True)
class Holding:
    """So much of a log; `check`: the head of its root there. `cosignature`: the sender's of that, where it is a witness
    and not the first."""

    log: str
    size: int
    check: bytes
    cosignature: Cosignature | None = None


@dataclass(frozen=True, slots=True)
class Holdings:
    """What the sender holds of the logs that the peer's feed may have. `last`: that is all."""

    entries: tuple[Holding, ...] = ()
    last: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """A hint of a newer peer's that is not known here: it is counted, and means nothing. Never sent."""

    field: int


SINCE: dict[type, int] = {
    Witnessed: 2,
    Holdings: 2,
    Health: 2,
}  # the version that brought a kind of frame, of those that came after version 1
Message = (
    Hello | Chunk | Ack | Credit | Idle | Beat | Bye | Want | Missing | Renew | Renewed | Late | Fenced | Witnessed
    | Holdings | Health
)  # fmt: skip
