"""`fednode.sync.health` as bytes: the frame, and the parts that are passed on as they came. Serves `fednode.sync.wire`.

Rules
1. A frame has at most `ENTRIES_MAX` nodes, a part at most `PART_BYTES_MAX` bytes; what is over, or makes no sense, is a
   PeerError FN-5502.
2. A part of a newer program's has fields that are not known here: they are passed over by who reads it.

>>> read_load(load_bytes(Load(changes=3))).changes, load_bytes(Load())
(3, b'')
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from fednode.proto import fednode_pb2 as pb
from fednode.sync.errors import PeerError
from fednode.sync.health import ENTRIES_MAX, PART_BYTES_MAX, About, Health, HealthEntry, HealthPlace, Load, Seen

NODE_CHARACTERS_MAX = 64
SOFTWARE_CHARACTERS_MAX = 64
CODE_CHARACTERS_MAX = 16
NUMBER_MAX = (1 << 63) - 1  # SQLite's integers are signed
SECONDS_MAX = 1 << 40
LOAD = tuple(Load.__dataclass_fields__)
ABOUT = tuple(About.__dataclass_fields__)


def _limit(bad: bool, what: str) -> None:
    if bad:
        raise PeerError("FN-5502", reason=what)


def place_out(place: HealthPlace | None) -> pb.HealthPlace | None:
    """As a field of a greeting."""
    return None if place is None else pb.HealthPlace(epoch=place.epoch, upto=place.upto)


def place_in(m: pb.HealthPlace) -> HealthPlace:
    """Raises PeerError FN-5502."""
    _limit(m.upto > NUMBER_MAX, "number")
    return HealthPlace(m.epoch, m.upto)


def frame_out(m: Health) -> pb.Frame:
    """A frame without its number."""
    frame = pb.Frame(health=pb.Health(epoch=m.place.epoch, upto=m.place.upto))
    for one in m.entries:
        life = one.life if one.life != 1 else 0
        seen = None if one.seen is None else pb.HealthSeen(at_s=one.seen.at_s, up=one.seen.up)
        frame.health.entries.add(node=one.node, life=life, seen=seen, load=one.load, about=one.about)
    return frame


def frame_in(m: pb.Health) -> Health:
    """Raises PeerError FN-5502."""
    _limit(len(m.entries) > ENTRIES_MAX, "health")
    _limit(m.upto > NUMBER_MAX, "number")
    return Health(HealthPlace(m.epoch, m.upto), tuple(map(_entry_in, m.entries)))


def _entry_in(m: pb.HealthEntry) -> HealthEntry:
    _limit(len(m.node) > NODE_CHARACTERS_MAX, "node")
    _limit(max(len(m.load), len(m.about)) > PART_BYTES_MAX, "health part")
    _limit(m.seen.at_s > SECONDS_MAX, "time")
    return HealthEntry(
        m.node,
        m.life or 1,
        Seen(m.seen.at_s, m.seen.up) if m.HasField("seen") else None,
        m.load if m.HasField("load") else None,
        m.about if m.HasField("about") else None,
    )


def load_bytes(load: Load) -> bytes:
    """The part as it travels."""
    return pb.HealthLoad(**{name: getattr(load, name) for name in LOAD}).SerializeToString()


def about_bytes(about: About) -> bytes:
    """The part as it travels."""
    return pb.HealthAbout(**{name: getattr(about, name) for name in ABOUT}).SerializeToString()


def read_load(data: bytes) -> Load:
    """Raises PeerError FN-5502."""
    return Load(**_read(pb.HealthLoad, data, LOAD))


def read_about(data: bytes) -> About:
    """Raises PeerError FN-5502."""
    found = _read(pb.HealthAbout, data, ABOUT)
    found["software"] = found["software"][:SOFTWARE_CHARACTERS_MAX]
    found["fenced"] = found["fenced"][:CODE_CHARACTERS_MAX]
    return About(**found)


def _read(kind: Any, data: bytes, names: tuple[str, ...]) -> dict[str, Any]:
    try:
        message = kind.FromString(data)
    except DecodeError as error:
        raise PeerError("FN-5502", reason="protobuf") from error
    found = {name: getattr(message, name) for name in names}
    _limit(any(type(value) is int and abs(value) > NUMBER_MAX for value in found.values()), "number")
    return found
