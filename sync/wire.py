"""Frames: typed values to protobuf bytes and back. With `segment` the only module of `sync` that knows protobuf.

Rules
1. What comes in becomes a typed value here, once, or a PeerError FN-55xx; nothing else is raised.
2. Unknown fields are ignored (a newer peer may send them); an unknown frame is a PeerError, or `Unknown` where it is a
   hint (`fednode.sync.versions`, rule 4).
3. Limits: a frame is at most `FRAME_BYTES_MAX`, a chunk's data at most `CHUNK_BYTES_MAX`. Numbers that go to a store
   fit it (`NUMBER_MAX`), a clock's reading fits a stamp.

>>> decode(encode(7, Idle(lsn=3)))
(7, Idle(lsn=3))
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from fednode.proto import fednode_pb2 as pb
from fednode.sync.clock import WALL_MS_MAX
from fednode.sync.errors import PeerError
from fednode.sync.frames import (
    SINCE,
    Ack,
    Beat,
    Bye,
    Chunk,
    Cosignature,
    Credit,
    Cursor,
    Fenced,
    Hello,
    Holding,
    Holdings,
    Idle,
    Lag,
    Late,
    Message,
    Missing,
    Outcome,
    Partial,
    RecordsDigest,
    Renew,
    Renewed,
    Unknown,
    Want,
    Witnessed,
    WitnessedHead,
)
from fednode.sync.health import Health, HealthPlace
from fednode.sync.versions import HINTS_FROM
from fednode.sync.wire_health import frame_in, frame_out, place_in, place_out

__all__ = [
    "SINCE", "Ack", "Beat", "Bye", "Chunk", "Cosignature", "Credit", "Cursor", "Fenced", "Health", "HealthPlace",
    "Hello", "Holding", "Holdings", "Idle", "Lag", "Late", "Message", "Missing", "Outcome", "Partial",
    "RecordsDigest", "Renew", "Renewed", "Unknown", "Want", "Witnessed", "WitnessedHead",
]  # fmt: skip

CHUNK_BYTES_MAX = 64 * 1024
FRAME_BYTES_MAX = CHUNK_BYTES_MAX + 32 * 1024
CHAIN_LENGTH_MAX = 12
CERTIFICATE_BYTES_MAX = 8 * 1024
LIVES_MAX = 24  # certificates of later lives in a greeting
OUTCOMES_MAX, HEADS_MAX = 512, 8
WITNESSED_MAX = 512  # cosignatures in one frame
HOLDINGS_MAX = 200  # logs in one frame
LOG_CHARACTERS_MAX = 256
CHECK_BYTES = 8
DIGEST_CHARACTERS = 64
ADDRESSES_MAX, ADDRESS_CHARACTERS_MAX = 16, 260
HEAD_CHARACTERS_MAX = 2048
NUMBER_MAX = (1 << 63) - 1  # SQLite's integers are signed
LENGTH_DELIMITED = 2  # the wire type of messages
PARAMS_MAX, PARAM_CHARACTERS_MAX = 12, 200


def _cosignature_out(value: Cosignature | None) -> pb.Cosignature | None:
    if value is None:
        return None
    return pb.Cosignature(time_s=value.time_s, signature=value.signature, witness=value.witness)


def _hello_out(m: Hello) -> pb.Frame:
    partial = None
    if m.partial is not None:
        partial = pb.Partial(lsn=m.partial.lsn, digest=m.partial.digest, offset=m.partial.offset)
    hello = pb.Hello(
        version_min=m.version_min,
        version_max=m.version_max,
        software=m.software,
        node=m.node,
        chain=m.chain,
        now_ms=m.now_ms,
        catalog_version=m.catalog_version,
        store=m.store,
        have=pb.Cursor(store=m.have.store, lsn=m.have.lsn, check=m.have.check) if m.have.lsn else None,
        acked=m.acked,
        window=m.window,
        partial=partial,
        feeds=m.feeds,
        wants=m.wants,
        restore=m.restore,
        witnessed=m.witnessed,
        unsure=m.unsure,
        incarnation=m.incarnation,
        knows=m.knows,
        addresses=m.addresses,
        issuers=m.issuers,
        above=m.above,
        lives=m.lives,
        gathers=m.gathers,
        health=place_out(m.health),
    )
    return pb.Frame(hello=hello)


def _chunk_out(m: Chunk) -> pb.Frame:
    first_parent = _cosignature_out(m.first_parent)
    chunk = pb.Chunk(lsn=m.lsn, offset=m.offset, data=m.data, total=m.total, digest=m.digest, first_parent=first_parent)
    chunk.ahead, chunk.idle = m.ahead, m.idle
    return pb.Frame(chunk=chunk)


def _ack_out(m: Ack) -> pb.Frame:
    outcomes = [
        pb.Outcome(lsn=o.lsn, cosignature=_cosignature_out(o.cosignature), refused=o.refused) for o in m.outcomes
    ]
    return pb.Frame(ack=pb.Ack(outcomes=outcomes))


def _holdings_out(m: Holdings) -> pb.Frame:
    frame = pb.Frame(holdings=pb.Holdings(last=m.last))
    for one in m.entries:
        given = _cosignature_out(one.cosignature)
        frame.holdings.entries.add(log=one.log, size=one.size, check=one.check, cosignature=given)
    return frame


def _beat_out(m: Beat) -> pb.Frame:
    lag = None if m.lag is None else pb.Lag(changes=m.lag.changes, since_ms=m.lag.since_ms)
    standbys = None if m.standbys is None else pb.Places(addresses=m.standbys)
    issuers = None if m.issuers is None else pb.Places(addresses=m.issuers)
    frame = pb.Frame(beat=pb.Beat(now_ms=m.now_ms, lag=lag, standbys=standbys, issuers=issuers))
    if m.records is not None:
        of = m.records
        frame.beat.records.MergeFrom(pb.RecordsDigest(lsn=of.lsn, at_ms=of.at_ms, records=of.records, digest=of.digest))
    return frame


def params_in(given: Mapping[str, str]) -> dict[str, str]:
    """What the words for a code name, cut to its limits."""
    cut = PARAM_CHARACTERS_MAX
    return {name[:cut]: given[name][:cut] for name in sorted(given)[:PARAMS_MAX]}


def _witnessed_out(m: Witnessed) -> pb.Frame:
    frame = pb.Frame(witnessed=pb.Witnessed(upto=m.upto))
    for one in m.heads:
        signed = frame.witnessed.heads.add(log=one.log, size=one.size).cosignatures
        for by in one.cosignatures:
            signed.add(time_s=by.time_s, signature=by.signature, witness=by.witness)
    return frame


def _late_out(m: Late) -> pb.Frame:
    late = pb.Late(lsn=m.lsn, log=m.log, size=m.size, root=m.root, first_parent=_cosignature_out(m.first_parent))
    return pb.Frame(late=late)


_OUT: dict[type, Callable[..., pb.Frame]] = {
    Hello: _hello_out,
    Chunk: _chunk_out,
    Ack: _ack_out,
    Late: _late_out,
    Witnessed: _witnessed_out,
    Health: frame_out,
    Credit: lambda m: pb.Frame(credit=pb.Credit(bytes=m.bytes)),
    Idle: lambda m: pb.Frame(idle=pb.Idle(lsn=m.lsn)),
    Beat: _beat_out,
    Holdings: _holdings_out,
    Bye: lambda m: pb.Frame(
        bye=pb.Bye(code=m.code, detail=m.detail[:500], retry_after_ms=m.retry_after_ms, params=params_in(m.params))
    ),
    Want: lambda m: pb.Frame(want=pb.Want(log=m.log, first=m.first, restore=m.restore)),
    Missing: lambda m: pb.Frame(missing=pb.Missing(log=m.log, first=m.first)),
    Renew: lambda m: pb.Frame(renew=pb.Renew(request=m.request, life=m.life)),
    Fenced: lambda m: pb.Frame(fenced=pb.Fenced(code=m.code, heads=m.heads)),
    Renewed: lambda m: pb.Frame(renewed=pb.Renewed(chain=m.chain, refused=m.refused)),
}


def encode(number: int, message: Message) -> bytes:
    """The bytes of a frame. `number` counts from 1 in each direction."""
    frame = _OUT[type(message)](message)
    frame.number = number
    return frame.SerializeToString()


# ---------------------------------------------------------------- in


def _limit(bad: bool, what: str) -> None:
    if bad:
        raise PeerError("FN-5502", reason=what)


def _number(*values: int) -> None:
    _limit(max(values) > NUMBER_MAX, "number")


def _cosignature_in(value: pb.Cosignature) -> Cosignature:
    _limit(len(value.signature) != 64 or value.time_s > 1 << 40 or len(value.witness) > 64, "cosignature")
    return Cosignature(value.time_s, value.signature, value.witness)


def chain_in(chain: object, most: int = CHAIN_LENGTH_MAX) -> tuple[bytes, ...]:
    """Certificates, within limits. Raises PeerError FN-5502."""
    certificates = tuple(chain)  # type: ignore[arg-type, var-annotated]
    _limit(len(certificates) > most, "chain")
    _limit(any(len(certificate) > CERTIFICATE_BYTES_MAX for certificate in certificates), "certificate")
    return certificates


def addresses_in(addresses: object) -> tuple[str, ...]:
    """Addresses, within limits. Raises PeerError FN-5502."""
    found = tuple(addresses)  # type: ignore[arg-type, var-annotated]
    _limit(len(found) > ADDRESSES_MAX or any(len(one) > ADDRESS_CHARACTERS_MAX for one in found), "addresses")
    return found


def _hello_in(m: pb.Hello) -> Hello:
    _limit(len(m.store) > 32 or len(m.have.store) > 32 or len(m.have.check) > 8 or len(m.partial.digest) > 32, "hello")
    _number(m.have.lsn, m.acked, m.partial.lsn, m.partial.offset, m.catalog_version, m.witnessed)
    _limit(m.now_ms > WALL_MS_MAX, "clock")
    _limit(len(m.above) > CHAIN_LENGTH_MAX, "above")
    partial = None
    if m.HasField("partial"):
        partial = Partial(m.partial.lsn, m.partial.digest, m.partial.offset)
    return Hello(
        m.node[:64],
        chain_in(m.chain),
        m.now_ms,
        m.store,
        Cursor(m.have.store, m.have.lsn, m.have.check),
        m.acked,
        m.window,
        partial,
        m.feeds,
        m.wants,
        m.catalog_version,
        m.software[:64],
        m.restore,
        m.version_min,
        m.version_max,
        m.witnessed if m.HasField("witnessed") else None,
        m.unsure,
        m.incarnation,
        m.knows,
        addresses_in(m.addresses),
        addresses_in(m.issuers),
        tuple(m.above),
        chain_in(m.lives, LIVES_MAX),
        m.gathers,
        place_in(m.health) if m.HasField("health") else None,
    )


def _chunk_in(m: pb.Chunk) -> Chunk:
    _limit(len(m.data) > CHUNK_BYTES_MAX or not m.data, "chunk")
    _limit(len(m.digest) not in (0, 32), "digest")
    _number(m.lsn, m.offset, m.total)
    first_parent = _cosignature_in(m.first_parent) if m.HasField("first_parent") else None
    return Chunk(m.lsn, m.offset, m.data, m.total, m.digest, first_parent, m.ahead, m.idle)


def _ack_in(m: pb.Ack) -> Ack:
    _limit(len(m.outcomes) > OUTCOMES_MAX, "ack")
    _number(0, *(o.lsn for o in m.outcomes))
    return Ack(
        tuple(
            Outcome(o.lsn, _cosignature_in(o.cosignature) if o.HasField("cosignature") else None, o.refused[:16])
            for o in m.outcomes
        )
    )


def _holdings_in(m: pb.Holdings) -> Holdings:
    _limit(len(m.entries) > HOLDINGS_MAX, "holdings")
    _limit(any(len(one.log) > LOG_CHARACTERS_MAX or len(one.check) != CHECK_BYTES for one in m.entries), "holding")
    _number(0, *(one.size for one in m.entries))
    return Holdings(tuple(map(_holding_in, m.entries)), m.last)


def _holding_in(m: pb.Holding) -> Holding:
    given = _cosignature_in(m.cosignature) if m.HasField("cosignature") else None
    return Holding(m.log, m.size, m.check, given)


def _beat_in(m: pb.Beat) -> Beat:
    of = m.records
    _number(m.lag.changes, m.lag.since_ms, of.lsn, of.at_ms, of.records)
    lag = Lag(m.lag.changes, m.lag.since_ms) if m.HasField("lag") else None
    standbys = addresses_in(m.standbys.addresses) if m.HasField("standbys") else None
    told = RecordsDigest(of.lsn, of.at_ms, of.records, of.digest[:DIGEST_CHARACTERS])
    records = told if m.HasField("records") else None
    issuers = addresses_in(m.issuers.addresses) if m.HasField("issuers") else None
    return Beat(m.now_ms, lag, standbys, records, issuers)


def _late_in(m: pb.Late) -> Late:
    _limit(len(m.root) != 32 or len(m.log) > 256, "late")
    _number(m.lsn, m.size)
    return Late(m.lsn, m.log, m.size, m.root, _cosignature_in(m.first_parent))


def _witnessed_in(m: pb.Witnessed) -> Witnessed:
    count = sum(len(one.cosignatures) for one in m.heads)
    _limit(max(count, len(m.heads)) > WITNESSED_MAX or any(len(one.log) > 256 for one in m.heads), "witnessed")
    _number(m.upto, *(one.size for one in m.heads))
    heads = (WitnessedHead(one.log, one.size, tuple(map(_cosignature_in, one.cosignatures))) for one in m.heads)
    return Witnessed(m.upto, tuple(heads))


def _want_in(m: pb.Want) -> Want:
    _number(m.first)
    return Want(m.log[:256], m.first, m.restore)


def _missing_in(m: pb.Missing) -> Missing:
    _number(m.first)
    return Missing(m.log[:256], m.first)


def _fenced_in(m: pb.Fenced) -> Fenced:
    _limit(len(m.heads) > HEADS_MAX or any(len(one) > HEAD_CHARACTERS_MAX for one in m.heads), "heads")
    return Fenced(m.code[:16], tuple(m.heads))


_IN: dict[str, Callable[..., Message]] = {
    "hello": _hello_in,
    "chunk": _chunk_in,
    "ack": _ack_in,
    "late": _late_in,
    "witnessed": _witnessed_in,
    "health": frame_in,
    "credit": lambda m: Credit(m.bytes),
    "idle": lambda m: Idle(m.lsn),
    "beat": _beat_in,
    "holdings": _holdings_in,
    "bye": lambda m: Bye(m.code[:16], m.detail[:500], m.retry_after_ms, params_in(m.params)),
    "want": _want_in,
    "missing": _missing_in,
    "renew": lambda m: Renew(m.request[:CERTIFICATE_BYTES_MAX], m.life),
    "fenced": _fenced_in,
    "renewed": lambda m: Renewed(chain_in(m.chain), m.refused[:16]),
}


def _unknown(frame: pb.Frame) -> Iterator[Any]:
    found: Any = UnknownFieldSet(frame)  # its stubs do not say that it can be walked through
    yield from found


def _hint(frame: pb.Frame) -> Unknown:
    """A frame without a body that is known here."""
    fields = [(one.field_number, one.wire_type) for one in _unknown(frame)]
    numbers = [number for number, _ in fields]
    if len(fields) != 1 or numbers[0] < HINTS_FROM or fields[0][1] != LENGTH_DELIMITED:
        raise PeerError("FN-5503", reason=", ".join(map(str, numbers[:8])) or "empty")
    return Unknown(numbers[0])


def decode(data: bytes) -> tuple[int, Message | Unknown]:
    """Number and message of a frame. Raises PeerError FN-5501 (too large), FN-5502 (malformed), FN-5503 (unknown)."""
    if len(data) > FRAME_BYTES_MAX:
        raise PeerError("FN-5501", size=len(data), limit=FRAME_BYTES_MAX)
    try:
        frame = pb.Frame.FromString(data)
    except DecodeError as error:
        raise PeerError("FN-5502", reason="protobuf") from error
    kind = frame.WhichOneof("body")
    if kind is None:
        return frame.number, _hint(frame)
    return frame.number, _IN[kind](getattr(frame, kind))
