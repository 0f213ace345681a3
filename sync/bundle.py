"""Bundles: an exchange frozen into files, for a place with no link. What is in them, and what is decided about them;
`fednode.sync.volume` has the files' format.

Rules
1. What travels is what an exchange sends: a Hello, acknowledgements, the feed after a cursor. The frames are those of
   `fednode.sync.wire`; what receives them is `Inbox`, then the writer. Only the carrier differs.
2. A bundle is for one peer: from the parent or a child, in force, to this node. Nobody else's is opened.
3. All of a bundle is proved before any of it is applied. A second reading is with the same keys: what has changed in
   between does not open.
4. A request to join holds nothing secret. It is signed with a key that only the token's secret gives (`sync.enrol`):
   neither whoever finds the stick, nor whoever reads what the parent keeps of the token, can ask in its place.

>>> frames, intake = Frames(), Intake()
>>> for frame in frames.items([Item(7, b"ab", digest=SUITE_1.hash(b"ab"))]): intake.take(frame).lsn
7
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from google.protobuf.message import DecodeError

from fednode.crypto.certs import Identity
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.proto import fednode_pb2 as pb
from fednode.sync import versions, wire
from fednode.sync.effects import Commit, Item
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError
from fednode.sync.identity import Directory
from fednode.sync.inbox import Inbox
from fednode.sync.outbox import Outbox
from fednode.sync.segment import ENVELOPE_BYTES_MAX
from fednode.sync.volume import Header, check_version

REQUEST_MAGIC = b"FNREQST1"
REQUEST_VERSION, REQUEST_BEFORE = 2, 1  # version 1 proved the hash of a token only: it counts as one without
REQUEST_BYTES_MAX = 16 * 1024
ADDRESSES_MAX, ADDRESS_CHARACTERS_MAX = 8, 262
_PROOF = b"fednode stick request v2\n"


@dataclass(frozen=True, slots=True)
class Opening:
    """What the exchange begins with: see the message in proto/fednode.proto."""

    hello: wire.Hello
    after: int
    upto: int
    chain: tuple[bytes, ...] = ()
    addresses: tuple[str, ...] = ()
    request: bytes = b""


def opening_frame(opening: Opening) -> bytes:
    """The first frame."""
    return pb.Opening(
        hello=wire.encode(1, opening.hello),
        after=opening.after,
        upto=opening.upto,
        chain=opening.chain,
        addresses=opening.addresses,
        request=opening.request,
    ).SerializeToString()


class Frames:
    """The frames after the opening, numbered as in an exchange."""

    def __init__(self) -> None:
        self._number = 0

    def of(self, message: wire.Message) -> bytes:
        self._number += 1
        return wire.encode(self._number, message)

    def acks(self, outcomes: Iterable[wire.Outcome]) -> Iterator[bytes]:
        """Acknowledgements."""
        rest = iter(outcomes)
        while some := tuple(islice(rest, wire.OUTCOMES_MAX)):
            yield self.of(wire.Ack(some))

    def items(self, items: Sequence[Item], *, ahead: bool = False) -> Iterator[bytes]:
        """A stretch of the feed: the chunks that an exchange would send, with all the credit that they need. `ahead`:
        it goes ahead of its turn, and comes in its turn once more."""
        outbox = Outbox(credit=sum(len(item.data) for item in items))
        (outbox.add_ahead if ahead else outbox.add)(items)
        for message in outbox.take():
            yield self.of(message)


def parse_opening(data: bytes) -> Opening:
    """The first frame. Raises PeerError FN-55xx: FN-5505, FN-5518 where the sender's protocol is none of ours."""
    try:
        found = pb.Opening.FromString(data)
    except DecodeError as error:
        raise PeerError("FN-5502", reason="opening") from error
    _, hello = wire.decode(found.hello)
    addresses = tuple(found.addresses)
    fits = len(addresses) <= ADDRESSES_MAX and all(len(one) <= ADDRESS_CHARACTERS_MAX for one in addresses)
    fits = fits and len(found.chain) <= wire.CHAIN_LENGTH_MAX and len(found.request) <= wire.CERTIFICATE_BYTES_MAX
    fits = fits and all(len(one) <= wire.CERTIFICATE_BYTES_MAX for one in found.chain)
    if not isinstance(hello, wire.Hello) or not fits or max(found.after, found.upto) > wire.NUMBER_MAX:
        raise PeerError("FN-5502", reason="opening")
    if hello.restore:  # a node takes its history back over a link only
        raise PeerError("FN-5504", state="bundle", message="restore")
    versions.agree(versions.SPOKEN, versions.Versions(hello.version_min, hello.version_max), hello.software)
    return Opening(hello, found.after, found.upto, tuple(found.chain), addresses, found.request)


class Intake:
    """What the frames after the opening mean to the writer, in order. Hints that are not known here mean nothing."""

    def __init__(self) -> None:
        self._inbox, self._number = Inbox(), 0
        self._inbox.open(ENVELOPE_BYTES_MAX)

    def take(self, data: bytes) -> Commit | wire.Ack | wire.Fenced | wire.Witnessed | None:
        """One frame. None: part of a segment. Raises PeerError FN-55xx, FN-64xx."""
        number, message = wire.decode(data)
        self._number += 1
        if number != self._number:
            raise PeerError("FN-5504", state="bundle", message=f"number {number}")
        commit: Commit | None = None
        if isinstance(message, wire.Ack | wire.Fenced | wire.Witnessed):
            return message
        if isinstance(message, wire.Unknown):
            return None
        if isinstance(message, wire.Chunk):
            commit = self._inbox.chunk(message)
        elif isinstance(message, wire.Late):
            commit = self._inbox.late(message)
        else:
            raise PeerError("FN-5504", state="bundle", message=type(message).__name__)
        if commit is not None:
            self._inbox.done(commit.lsn)
        return commit

    def end(self) -> None:
        """That nothing is half here. Raises PeerError FN-5507."""
        if self._inbox.half is not None:
            raise PeerError("FN-5507", lsn=self._inbox.half.lsn, offset=len(self._inbox.half.data))


# ---------------------------------------------------------------- deciding


def sender_of(header: Header, directory: Directory, me: str) -> Identity:
    """Who sent a bundle to this node: its parent, or a child of its own. Raises PeerError FN-5520 (another trust
    domain), FN-5522 (not for this node), FN-5521 (not a direct peer), FN-5511 (revoked), FN-5513 (another life)."""
    if header.domain != directory.domain:
        raise PeerError("FN-5520", theirs=header.domain, ours=directory.domain)
    if header.recipient != me:
        raise PeerError("FN-5522", sender=header.sender, recipient=header.recipient, node=me)
    known = directory.get(header.sender)
    from_parent = directory.parent_of(me) == header.sender
    if known is None or not (from_parent or directory.parent_of(header.sender) == me):
        raise PeerError("FN-5521", node=header.sender)
    if directory.is_revoked(header.sender):
        raise PeerError("FN-5511", node=header.sender)
    # of a new life of the parent's this node may learn from this very bundle: its chain says so
    if header.incarnation < known.incarnation or (header.incarnation > known.incarnation and not from_parent):
        raise PeerError("FN-5513", node=header.sender, theirs=header.incarnation, ours=known.incarnation)
    return known


# ---------------------------------------------------------------- asking to join


def encode_request(der: bytes, token: Token | None) -> bytes:
    """What a node writes that wants to join. `token`: the one that it was given, if any; its secret never leaves."""
    proof = request_proof(der, token) if token is not None else b""
    return REQUEST_MAGIC + pb.StickRequest(version=REQUEST_VERSION, request=der, signature=proof).SerializeToString()


def request_proof(der: bytes, token: Token) -> bytes:
    """Shows that who asks has the secret of a token: for this request (a name and its keys), in this trust domain."""
    return token.stick_key.sign(_PROOF + token.root_sha256 + der)


def proves(public: bytes, root_sha256: bytes, der: bytes, proof: bytes) -> bool:
    """Whether a request was signed with a token's key (`Token.stick_key`)."""
    try:
        SUITE_1.verify(public, _PROOF + root_sha256 + der, proof)
    except IntegrityError:
        return False
    return True


def parse_request(data: bytes) -> tuple[bytes, bytes]:
    """(request, proof; b"" for one that shows no token). Raises IntegrityError FN-6503, PeerError FN-5524."""
    try:
        if not data.startswith(REQUEST_MAGIC) or len(data) > REQUEST_BYTES_MAX:
            raise IntegrityError("FN-6503")
        found = pb.StickRequest.FromString(data[len(REQUEST_MAGIC) :])
    except DecodeError as error:
        raise IntegrityError("FN-6503") from error
    if found.version != REQUEST_BEFORE:
        check_version(found.version, REQUEST_VERSION)
    return found.request, found.signature if found.version == REQUEST_VERSION else b""
