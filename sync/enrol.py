"""Joining: the token that is handed over, and the decisions on both sides. Pure.

Rules
1. A token pins the root: whoever joins proves the parent's chain against the SHA-256 in it before the secret leaves.
2. A token works once, in time, for one name. The parent keeps its hash only. The same node with the same keys may ask
   again (its reply was lost) and gets the same answer; anybody else is refused.
3. A node that joins again with its old keys keeps its incarnation; with new keys it gets the next one.
4. A request that travels by stick is signed with a key derived from the token's secret; its issuer keeps the public
   half. So the secret is proved and never written, and who reads what the issuer keeps cannot prove it.
5. `joining` is a generator: what it yields is to be sent, what is sent into it came back. It ends with `Joined`.

>>> token = Token(bytes(32), bytes(16), "1301", 1_800_000_000, ("10.0.0.1:7444",))
>>> text = token.encode(); text.startswith("fednode1."), Token.decode(text) == token
(True, True)
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

from fednode.crypto import certs, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.crypto.suite import SUITE_1
from fednode.sync.errors import PeerError, Refused
from fednode.sync.versions import SPOKEN, WIDE_DATES, Versions, agree

TOKEN_PREFIX = "fednode1."  # noqa: S105 - what every token begins with
TOKEN_CHARACTERS_MAX = 2048
SECRET_BYTES = 16
ADDRESSES_MAX = 8
RENEW_AT = 2 / 3  # of a certificate's life
CHECK_BYTES = 4
DATED_LIFE_S_MIN = 86400  # a certificate with dates of its own holds for a day at least
_EXPIRES = re.compile("0|[1-9][0-9]{0,10}")  # Unix seconds, up to the year 5138
_STICK = b"fednode invitation by stick v1\n"


@dataclass(frozen=True, slots=True)
class Token:
    """An invitation. `expires_s`: Unix seconds; `addresses`: host:port of the parent's enrolment port."""

    root_sha256: bytes
    secret: bytes
    node: str
    expires_s: int
    addresses: tuple[str, ...]

    def encode(self) -> str:
        """The text that is printed: prefix, then base64url of the fields and a checksum against typing errors."""
        fields = [self.node, str(self.expires_s), *self.addresses]
        body = self.root_sha256 + self.secret + "\n".join(fields).encode()
        return TOKEN_PREFIX + _text(body + _check(body))

    @classmethod
    def decode(cls, text: str) -> Token:
        """Raises Refused FN-3101 for a text that is not a token, FN-3102 for one that was altered or cut."""
        text = "".join(text.split())
        if not text.startswith(TOKEN_PREFIX) or len(text) > TOKEN_CHARACTERS_MAX:
            raise Refused("FN-3101", prefix=TOKEN_PREFIX)
        encoded = text.removeprefix(TOKEN_PREFIX)
        try:
            data = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
            body, check = data[:-CHECK_BYTES], data[-CHECK_BYTES:]
            if len(body) < 32 + SECRET_BYTES + 3 or _check(body) != check or _text(data) != encoded:
                raise ValueError("checksum, or another spelling of the same bytes")
            node, expires, *addresses = body[32 + SECRET_BYTES :].decode().split("\n")
            if not _EXPIRES.fullmatch(expires):
                raise ValueError("a time that no calendar has, or another spelling of it")
            return cls(body[:32], body[32 : 32 + SECRET_BYTES], node, int(expires), tuple(addresses[:ADDRESSES_MAX]))
        except (ValueError, binascii.Error) as error:
            raise Refused("FN-3102") from error

    @property
    def hash(self) -> bytes:
        """What the parent keeps."""
        return token_hash(self.secret)

    @property
    def stick_key(self) -> SigningKey:
        """Signs requests by stick (rule 4); the parent keeps the public half, too."""
        return SigningKey.from_seed(SUITE_1.hkdf(self.secret, b"", _STICK, 32))


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _check(body: bytes) -> bytes:
    return SUITE_1.hash(b"fednode token v1\n" + body)[:CHECK_BYTES]


def token_hash(secret: bytes) -> bytes:
    """The hash of a token's secret."""
    return SUITE_1.hash(b"fednode invitation v1\n" + secret)


# ---------------------------------------------------------------- the side that joins


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys that a node makes for itself."""

    sign: SigningKey
    seal: SealKey
    tls: TlsKey


@dataclass(frozen=True, slots=True)
class AskChain:
    """Fetch the parent's chain; send back `ChainSeen`."""


@dataclass(frozen=True, slots=True)
class ChainSeen:
    """`speaks`: the protocol versions of the parent."""

    chain: tuple[bytes, ...]
    tls_leaf: bytes
    now_ms: int
    speaks: Versions = SPOKEN


@dataclass(frozen=True, slots=True)
class AskJoin:
    """Send this over TLS verified against `root`, to the server with this DNS name; send back `JoinSeen`."""

    root: bytes
    dns: str
    secret: bytes
    request: bytes


@dataclass(frozen=True, slots=True)
class JoinSeen:
    chain: tuple[bytes, ...]
    addresses: tuple[str, ...]
    refused: str
    params: dict[str, Any]
    now_ms: int


@dataclass(frozen=True, slots=True)
class Joined:
    """A place in the trust domain: own chain, root last, and where to dial. `skew_ms`: how far the parent's clock is
    ahead of this machine's."""

    chain: tuple[bytes, ...]
    addresses: tuple[str, ...]
    identity: Identity
    skew_ms: int = 0


Ask = AskChain | AskJoin
Answer = ChainSeen | JoinSeen


def joining(
    token: Token, keys: Keys, wall_ms: int, judge: Callable[[Identity], None] = lambda _parent: None
) -> Generator[Ask, Answer, Joined]:
    """Join with a token. `wall_ms`: this machine's clock. It may be years off: all is judged by the parent's. `judge`:
    looks at who invites, proved under the token's root, before anything secret is sent, and raises where that is
    nobody to join. Raises
    PeerError FN-6110 (another root), FN-5505 or FN-5518 (no common version), FN-5130 or FN-5131 (a certificate does not
    hold), Refused FN-5103 (the token has expired), FN-5113 (TLS will refuse certificates of release 0.1 at this
    machine's time), PeerError with the parent's code when it refuses, IntegrityError when what it sent does not
    hold."""
    seen = yield AskChain()
    if not isinstance(seen, ChainSeen):
        raise RuntimeError("joining: a ChainSeen is due")
    try:
        chain = certs.check_chain(seen.chain, token.root_sha256)
    except IntegrityError as error:
        if error.code == "FN-6103":
            raise PeerError("FN-6110", found=error.params["found"], pinned=error.params["pinned"]) from error
        raise
    parent, now_s = chain[0], seen.now_ms // 1000
    if seen.tls_leaf != parent.der:
        raise PeerError("FN-6111", node=parent.node)
    agree(SPOKEN, seen.speaks, "")
    judge(parent)
    _check_dates(chain, seen.now_ms, wall_ms)
    old = seen.speaks.high < WIDE_DATES  # it will certify with dates around its own time
    if old and not now_s - certs.BACKDATE_S <= wall_ms // 1000 <= now_s + DATED_LIFE_S_MIN:
        raise Refused("FN-5113", here=certs.iso(wall_ms // 1000), parent=certs.iso(now_s))
    if now_s > token.expires_s:
        raise Refused("FN-5103", node=token.node, expired=certs.iso(token.expires_s), now=certs.iso(now_s))
    answer = yield AskJoin(
        seen.chain[-1], parent.dns, token.secret, issuing.make_request(token.node, keys.tls, keys.sign, keys.seal)
    )
    if not isinstance(answer, JoinSeen):
        raise RuntimeError("joining: a JoinSeen is due")
    if answer.refused:
        raise PeerError(answer.refused, **answer.params)
    granted = certs.check_chain(answer.chain, token.root_sha256)
    identity = granted[0]
    mine = (token.node, keys.sign.public, keys.seal.public, keys.tls.public_der)
    if (identity.node, identity.sign_key, identity.seal_key, identity.tls_key) != mine:
        raise PeerError("FN-6112", node=identity.node)
    _check_dates(granted, answer.now_ms, wall_ms)
    return Joined(answer.chain, answer.addresses, identity, answer.now_ms - wall_ms)


def _check_dates(chain: Sequence[Identity], now_ms: int, wall_ms: int) -> None:
    """That all hold by the parent's clock, and that TLS here will not refuse them by this machine's."""
    try:
        for one in chain:
            certs.check_time(one, now_ms // 1000)
    except IntegrityError as error:
        raise PeerError("FN-5130" if error.code == "FN-6105" else "FN-5131", **error.params) from error
    if certs.outside_tls_dates([one.der for one in chain], wall_ms // 1000) is not None:
        raise Refused("FN-5113", here=certs.iso(wall_ms // 1000), parent=certs.iso(now_ms // 1000))


# ---------------------------------------------------------------- the side that issues


@dataclass(frozen=True, slots=True)
class Invitation:
    """A token as its issuer keeps it."""

    node: str
    name: str
    level: str
    scope: tuple[str, ...]
    expires_s: int
    used_key: bytes | None = None


def check_invitation(me: Identity, levels: tuple[str, ...], node: str, level: str, scope: tuple[str, ...]) -> None:
    """Whether this node may invite. Raises Refused FN-2101 (name), FN-2102 (level unknown), FN-2103 (area), FN-5105
    (may not issue), FN-5106 (level), FN-5107 (scope), FN-5108 (its own name)."""
    if not certs.NODE_NAME.fullmatch(node) or node == certs.ROOT:
        raise Refused("FN-2101", node=node)
    if level not in levels:
        raise Refused("FN-2102", level=level, levels=", ".join(levels))
    for area in scope:
        if not certs.AREA.fullmatch(area):
            raise Refused("FN-2103", area=area)
    if not me.may_issue or me.level == levels[-1]:
        raise Refused("FN-5105", node=me.node, level=me.level)
    if levels.index(level) <= levels.index(me.level):
        raise Refused("FN-5106", node=node, level=level, mine=me.level)
    if node == me.node:
        raise Refused("FN-5108", node=node)
    for area in scope:
        if not certs.covers(me.scope, area):
            raise Refused("FN-5107", node=node, area=area, scope=", ".join(me.scope))


def check_standby_invitation(me: Identity, node: str) -> None:
    """Whether this node may invite a standby of its own by that name. Raises Refused FN-2101 (name), FN-5105 (may not
    issue), FN-5116 (it is a standby itself)."""
    if not certs.NODE_NAME.fullmatch(node) or node in (certs.ROOT, me.node):
        raise Refused("FN-2101", node=node)
    if me.stands_for:
        raise Refused("FN-5116", node=me.node, primary=me.stands_for)
    if not me.may_issue:
        raise Refused("FN-5105", node=me.node, level=me.level)


def check_use(invitation: Invitation | None, node: str, sign_key: bytes, now_s: int) -> Invitation:
    """Whether a token may be used. Raises PeerError FN-5101 (unknown), FN-5102 (used), FN-5103 (expired), FN-5104
    (other name)."""
    if invitation is None:
        raise PeerError("FN-5101", node=node)
    if invitation.node != node:
        raise PeerError("FN-5104", node=node, invited=invitation.node)
    if invitation.used_key is not None and invitation.used_key != sign_key:
        raise PeerError("FN-5102", node=node)
    if invitation.used_key is None and now_s > invitation.expires_s:
        raise PeerError("FN-5103", node=node, expired=certs.iso(invitation.expires_s), now=certs.iso(now_s))
    return invitation


def next_incarnation(known: Identity | None, sign_key: bytes, revoked: bool) -> int:
    """The incarnation for a node that joins (rule 3)."""
    if known is None:
        return 1
    return known.incarnation if known.sign_key == sign_key and not revoked else known.incarnation + 1


def renewal_due(identity: Identity, now_s: int) -> bool:
    """Whether two thirds of a certificate's life are over."""
    return now_s >= identity.not_before + (identity.not_after - identity.not_before) * RENEW_AT


def check_renewal(known: Identity | None, der: bytes) -> issuing.Request:
    """A renewal keeps the node and its keys. Raises PeerError FN-5114 when it does not."""
    try:
        request = issuing.parse_request(der)
    except FednodeError as error:
        raise PeerError("FN-5114", node=known.node if known else "", reason=error.code) from error
    if known is None or (request.node, request.sign_key, request.seal_key) != (
        known.node,
        known.sign_key,
        known.seal_key,
    ):
        raise PeerError("FN-5114", node=request.node, reason="keys")
    return request
