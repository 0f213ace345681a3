"""Where a node is: the request and the reply of `Where`, as bytes and as values (`fednode.node.whereabouts`).

Rules
1. As in `fednode.sync.wire`: what comes in becomes a typed value here, within limits, or a PeerError.
2. A reply that refuses is the error that it names.

>>> request_in(request_out("130102"))
'130102'
>>> reply_in(reply_out(Whereabouts((b"own", b"root"), ("10.0.0.1:7443",)))).addresses
('10.0.0.1:7443',)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from fednode.proto import fednode_pb2 as pb
from fednode.sync import wire
from fednode.sync.errors import PeerError

REQUEST_BYTES_MAX = 256
NODE_CHARACTERS_MAX = 64


@dataclass(frozen=True, slots=True)
class Whereabouts:
    """A node's certificates in force, own first, root last, and where it, or who may take its place, can be dialled."""

    chain: tuple[bytes, ...]
    addresses: tuple[str, ...]


def request_out(node: str) -> bytes:
    """A WhereRequest."""
    return pb.WhereRequest(node=node).SerializeToString()


def request_in(data: bytes) -> str:
    """The node that is asked for. Raises PeerError FN-5501 (too large), FN-5502 (malformed)."""
    if len(data) > REQUEST_BYTES_MAX:
        raise PeerError("FN-5501", size=len(data), limit=REQUEST_BYTES_MAX)
    try:
        return pb.WhereRequest.FromString(data).node[:NODE_CHARACTERS_MAX]
    except DecodeError as error:
        raise PeerError("FN-5502", reason="protobuf") from error


def reply_out(told: Whereabouts) -> bytes:
    """A WhereReply that answers."""
    return pb.WhereReply(chain=told.chain, addresses=told.addresses[: wire.ADDRESSES_MAX]).SerializeToString()


def refusal_out(code: str, params: Mapping[str, object]) -> bytes:
    """A WhereReply that refuses."""
    texts = wire.params_in({name: str(value) for name, value in params.items()})
    return pb.WhereReply(refused=code, params=texts).SerializeToString()


def reply_in(data: bytes) -> Whereabouts:
    """What a WhereReply says. Raises PeerError FN-5502 (malformed), or with the code that refuses."""
    try:
        reply = pb.WhereReply.FromString(data)
    except DecodeError as error:
        raise PeerError("FN-5502", reason="protobuf") from error
    if reply.refused:
        raise PeerError(reply.refused[:16], **wire.params_in(reply.params))
    return Whereabouts(wire.chain_in(reply.chain), wire.addresses_in(reply.addresses))
