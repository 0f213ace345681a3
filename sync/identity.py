"""Who is who: the directory of nodes, a projection of `sys.nodes` logs. Pure.

Rules
1. A node enters with a certificate that its issuer's log carries; the issuer must be in the directory before it, and
   the certificate must lie inside the issuer's (`fednode.crypto.certs.check_issued`).
2. Of two certificates of a node the one of the higher incarnation is in force, then the later one. Neither ever goes
   back. The earlier lives of a node stay known: what they signed is still to be verified, with keys that no later
   certificate of the same life may change.
3. Whoever stands above a node may revoke it. A revocation names the incarnations up to which it holds: a node that
   joins again comes back in a higher one.
4. `seed` takes this node's own chain, which was verified when it was installed.
5. `floor_s` is a time that has certainly passed: the latest at which a node above (or the node itself) has certified
   or revoked somebody, as long as its own certificate held then. Stamps of changes and cosignatures are no such proof:
   they follow what was seen, and could be carried forward from below.
6. A standby is a child of its primary that covers no area: nothing is addressed to it, and it is no issuer.
7. A succession that was granted in advance is in force once its issuer has taken it in, as any certificate.

>>> covers(("1301", "1302"), "130102001"), covers(("1301",), "13")
(True, False)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fednode.crypto import certs
from fednode.crypto.certs import ROOT, Identity, covers
from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.sync.clock import SKEW_MS_MAX, WALL_MS_MAX
from fednode.sync.errors import PeerError

__all__ = [
    "LEVELS",
    "Directory",
    "Identity",
    "Revocation",
    "covers",
    "heir_payload",
    "node_payload",
    "revocation_payload",
    "sealed_payload",
]

LEVELS = ("province", "city", "county", "township", "village")
CERTIFICATE_HEX_MAX = 2 * 8 * 1024
DEPTH_MAX = 16
INCARNATION_MAX = 10**9  # as in certificates and names of logs


@dataclass(frozen=True, slots=True)
class Revocation:
    """`incarnation`: this one and all before it. `at_ms`: Unix milliseconds, by the revoker's clock."""

    node: str
    incarnation: int
    at_ms: int
    reason: str
    by: str

    @property
    def until_ms(self) -> int:
        """Up to when what the node's parent has cosigned stands. Who revokes and who cosigned may be two machines (a
        successor and an old primary): what was acknowledged is not thrown away because their clocks differ. A parent
        that has heard of the revocation cosigns nothing any more."""
        return self.at_ms + SKEW_MS_MAX


def node_payload(certificate: bytes) -> dict[str, Any]:
    """The change that enrols a node, or renews its certificate."""
    return {"kind": "node", "certificate": certificate.hex()}


def heir_payload(node: str, standby: str) -> dict[str, Any]:
    """The change by which a node's issuer says that a standby of it may succeed it."""
    return {"kind": "heir", "node": node, "standby": standby}


def sealed_payload(certificate: bytes, node: str, standby: str, incarnation: int) -> dict[str, Any]:
    """The change by which a node's issuer says that it has granted a succession in advance (`fednode.sync.grant`): of
    no effect until somebody shows that certificate."""
    digest = SUITE_1.hash(certificate).hex()
    return {"kind": "sealed", "node": node, "standby": standby, "incarnation": incarnation, "sha256": digest}


def revocation_payload(node: str, incarnation: int, at_ms: int, reason: str) -> dict[str, Any]:
    """The change that revokes a node."""
    return {"kind": "revoke", "node": node, "incarnation": incarnation, "at_ms": at_ms, "reason": reason[:500]}


def _older(one: Identity, known: Identity) -> bool:
    """Whether a certificate does not take the place of another of the same node. Of two that were made in the same
    second the one that TLS takes at any time stays: a node asks for it as soon as it has the other."""
    mine, theirs = (one.incarnation, one.not_before), (known.incarnation, known.not_before)
    return mine < theirs or (
        mine == theirs and certs.tls_dates(known.der) == certs.WIDE and certs.tls_dates(one.der) != certs.WIDE
    )


class Directory:
    """The nodes that this node knows. `root_der`: the pinned root."""

    def __init__(self, root_der: bytes, domain: str) -> None:
        self.root = certs.parse(root_der)
        self.domain = domain
        self.levels: tuple[str, ...] = self.root.levels or LEVELS
        self._nodes: dict[str, Identity] = {}
        self._lives: dict[str, dict[int, Identity]] = {}
        self._by_scope: dict[str, list[str]] = {}
        self._standbys: dict[str, dict[str, Identity]] = {}
        self._heirs: set[tuple[str, str]] = set()
        self._sealed: dict[tuple[str, int, str], str] = {}  # (node, incarnation, certificate) -> standby
        self._revoked: dict[str, dict[int, Revocation]] = {}
        self._acted_s: dict[str, int] = {}  # node -> when it last certified or revoked somebody (rule 5)
        self.heard: frozenset[tuple[str, int]] = frozenset()  # lives that no log has said yet
        self.version = 0  # rises with all that is taken in

    # ------------------------------------------------------------ following the logs

    def seed(self, chain: Sequence[bytes]) -> None:
        """Take in a verified chain, own certificate first, root last."""
        for der in reversed(chain[:-1]):
            self._add(certs.parse(der))
        self.version += 1

    def _acted(self, node: str, at_s: int) -> None:
        by = self.root if node == ROOT else self._nodes.get(node)
        if by is not None and at_s <= by.not_after:
            self._acted_s[node] = max(at_s, self._acted_s.get(node, 0))

    def floor_s(self, node: str) -> int:
        """Unix seconds that have certainly passed, as a node may know it (rule 5); 0 when nothing says so."""
        above = [ROOT, *(one.node for one in self.path(node))]
        return max(self._acted_s.get(one, 0) for one in above)

    def _add(self, identity: Identity) -> None:
        self._acted(identity.issuer, identity.not_before + certs.BACKDATE_S)
        lives = self._lives.setdefault(identity.node, {})
        if identity.incarnation not in lives or lives[identity.incarnation].not_before <= identity.not_before:
            lives[identity.incarnation] = identity
        known = self._nodes.get(identity.node)
        if known is not None:
            if _older(identity, known):
                return
            for prefix in () if known.stands_for else known.scope:
                self._by_scope[prefix].remove(known.node)
        self._nodes[identity.node] = identity
        if identity.stands_for:
            self._standbys.setdefault(identity.stands_for, {})[identity.node] = identity
        for prefix in () if identity.stands_for else identity.scope:
            self._by_scope.setdefault(prefix, []).append(identity.node)

    def apply(self, origin: str, payload: Mapping[str, Any]) -> None:
        """Take in one verified change of a `sys.nodes` log (it passed `check`)."""
        kind = payload.get("kind")
        if kind == "node":
            self._add(certs.parse(bytes.fromhex(payload["certificate"])))
        elif kind == "revoke":
            found = self._revocation(origin, payload)
            self._acted(origin, found.at_ms // 1000)
            of_node = self._revoked.setdefault(found.node, {})
            known = of_node.get(found.incarnation)
            # of one incarnation the earlier revocation holds, whichever log brought it first
            if known is None or found.at_ms < known.at_ms:
                of_node[found.incarnation] = found
        elif kind == "heir":
            self._heirs.add((payload["node"], payload["standby"]))
        elif kind == "sealed":
            self._sealed[payload["node"], payload["incarnation"], payload["sha256"]] = payload["standby"]
        self.version += 1  # at the end: who looks meanwhile, in another thread, asks again

    @staticmethod
    def _revocation(origin: str, payload: Mapping[str, Any]) -> Revocation:
        node, reason = payload.get("node"), str(payload.get("reason", ""))
        incarnation, at_ms = payload.get("incarnation"), payload.get("at_ms")
        if not isinstance(node, str) or not isinstance(incarnation, int) or not isinstance(at_ms, int):
            raise PeerError("FN-6402", reason="revocation")
        return Revocation(node, incarnation, at_ms, reason, origin)

    def check(self, origin: str, payload: Any) -> None:
        """Whether `origin` may say this. Raises PeerError FN-5430 (may not enrol), FN-5431 (may not revoke),
        FN-6402."""
        if not isinstance(payload, Mapping):
            raise PeerError("FN-6402", reason="not an object")
        kind = payload.get("kind")
        if kind == "node":
            self._check_node(origin, payload)
        elif kind == "revoke":
            found = self._revocation(origin, payload)
            # not in `apply`: what was taken in before this was looked at stays
            if not 0 < found.incarnation < INCARNATION_MAX or not 0 <= found.at_ms <= WALL_MS_MAX:
                raise PeerError("FN-6402", reason="revocation")
            if origin not in [one.node for one in self.path(found.node)[:-1]]:
                raise PeerError("FN-5431", node=found.node, origin=origin)
        elif kind == "heir":
            node, standby = payload.get("node"), payload.get("standby")
            if not isinstance(node, str) or not isinstance(standby, str):
                raise PeerError("FN-6402", reason="heir")
            if self.parent_of(node) != origin:
                raise PeerError("FN-5430", node=standby, origin=origin, reason="heir")
        elif kind == "sealed":
            self._check_sealed(origin, payload)
        # A kind that is not known here comes from a newer node: kept in the log, and of no effect.

    def _check_sealed(self, origin: str, payload: Mapping[str, Any]) -> None:
        texts = [payload.get(name) for name in ("node", "standby", "sha256")]
        if not all(isinstance(one, str) for one in texts) or not isinstance(payload.get("incarnation"), int):
            raise PeerError("FN-6402", reason="sealed")
        if self.parent_of(payload["node"]) != origin:
            raise PeerError("FN-5430", node=payload["standby"], origin=origin, reason="sealed")

    def _check_node(self, origin: str, payload: Mapping[str, Any]) -> None:
        text = payload.get("certificate")
        try:
            if not isinstance(text, str) or len(text) > CERTIFICATE_HEX_MAX:
                raise PeerError("FN-6402", reason="certificate")
            identity = certs.parse(bytes.fromhex(text))
            issuers = [self.root] if identity.issuer == ROOT else self.lives(identity.issuer)
            speaks = identity.node if identity.issuer == ROOT else identity.issuer
            if not issuers or speaks != origin:
                raise PeerError("FN-5430", node=identity.node, origin=origin, reason="issuer")
            known = self._nodes.get(identity.node)
            if known is not None and known.issuer != identity.issuer and not self._may_move(known, identity):
                raise PeerError("FN-5430", node=identity.node, origin=origin, reason="parent")
            life = self.life(identity.node, identity.incarnation)
            if life is not None and (life.sign_key, life.seal_key) != (identity.sign_key, identity.seal_key):
                raise PeerError("FN-5430", node=identity.node, origin=origin, reason="keys")
            if known is not None and known.stands_for != identity.stands_for:
                raise PeerError("FN-5430", node=identity.node, origin=origin, reason="for")
            self._check_issued(identity, issuers)
        except (IntegrityError, ValueError) as error:
            raise PeerError("FN-5430", node=origin, origin=origin, reason=str(error)[:200]) from error

    def _check_issued(self, identity: Identity, issuers: Sequence[Identity]) -> None:
        """An issuer that lost its keys signed with others before."""
        for issuer in issuers[:-1]:
            with suppress(IntegrityError):
                certs.check_issued(identity, issuer, self.levels)
                return
        certs.check_issued(identity, issuers[-1], self.levels)

    def _may_move(self, known: Identity, new: Identity) -> bool:
        """A node changes its parent only by a new life, and after somebody above it has ended the old one: an issuer
        cannot take another's child away."""
        return new.incarnation > known.incarnation and self.is_revoked(known.node)

    # ------------------------------------------------------------ questions

    def get(self, node: str | None) -> Identity | None:
        """A node's identity in force (revoked or not), None when it is not known."""
        return self._nodes.get(node) if node else None

    def life(self, node: str, incarnation: int) -> Identity | None:
        """A node as it was in one of its lives, by the latest certificate of that; its logs outlive it."""
        return self._lives.get(node, {}).get(incarnation)

    def said(self, node: str) -> int:
        """The latest incarnation of a node that a log has said, or this node's own chain: what was written in earlier
        ones is late from then on. What was only heard takes nothing away: whoever told has accepted what it gives of
        the life before in good order, and the word of the log comes after that."""
        lives = self._lives.get(node, {})
        return max((one for one in lives if (node, one) not in self.heard), default=0)

    def lives(self, node: str | None) -> list[Identity]:
        """Every life known of a node, the newest first."""
        lives = self._lives.get(node, {}) if node else {}
        return [lives[incarnation] for incarnation in sorted(lives, reverse=True)]

    def all(self) -> list[Identity]:
        """Every node known, in order of id."""
        return [self._nodes[node] for node in sorted(self._nodes)]

    def parent_of(self, node: str) -> str | None:
        """The id of the node above; None at the province and for an unknown node."""
        identity = self._nodes.get(node)
        return None if identity is None or identity.issuer == ROOT else identity.issuer

    def children_of(self, node: str) -> list[Identity]:
        """Nodes right below one."""
        return [one for one in self.all() if one.issuer == node]

    def standbys_of(self, node: str) -> list[Identity]:
        """The standbys of a node that are in good standing."""
        return [one for one in self._standbys.get(node, {}).values() if not self.is_revoked(one.node)]

    def is_heir(self, standby: Identity) -> bool:
        """Whether the issuer of a standby's primary has said that it may succeed it."""
        return (standby.stands_for, standby.node) in self._heirs and not self.is_revoked(standby.node)

    def sealed_to(self, shown: Identity) -> str:
        """The standby to which this very certificate was granted in advance; "" for none."""
        return self._sealed.get((shown.node, shown.incarnation, SUITE_1.hash(shown.der).hex()), "")

    def path(self, node: str) -> list[Identity]:
        """From the province down to the node; empty when it is not known."""
        path: list[Identity] = []
        current: str | None = node
        while current is not None and len(path) < DEPTH_MAX:
            identity = self._nodes.get(current)
            if identity is None:
                return []
            path.append(identity)
            current = self.parent_of(current)
        return path[::-1]

    def chain(self, node: str) -> tuple[bytes, ...]:
        """Certificates, own first, root last; of an issuer the life that has signed the one before."""
        found: list[Identity] = []
        for one in reversed(self.path(node)):
            found.append(self._signer(found[-1], one) if found else one)
        return (*(one.der for one in found), self.root.der)

    def _signer(self, child: Identity, issuer: Identity) -> Identity:
        """A node's life that has certified another; the one in force where none did."""
        lives = self.lives(issuer.node)
        if len(lives) < 2:
            return issuer
        _, signed_by = certs.key_ids(child.der)
        return next((one for one in lives if certs.key_ids(one.der)[0] == signed_by), issuer)

    def unbroken(self, node: str) -> int:
        """Up to which incarnation all lives of a node are known, from the first on. Who joined in its third knows that
        one alone, and gets logs of the others."""
        known, count = {life.incarnation for life in self.lives(node)}, 0
        while count + 1 in known:
            count += 1
        return count

    def later(self, node: str, known: Sequence[int]) -> list[Identity]:
        """The later lives of the nodes from the province down to one, for who knows those incarnations of them (of
        `node` first, then of its parent): whoever stands higher first, the earlier life first."""
        found: list[Identity] = []
        for one, incarnation in zip(reversed(self.path(node)), known, strict=False):
            found[:0] = [life for life in reversed(self.lives(one.node)) if life.incarnation > incarnation]
        return found

    def node_covering(self, area: str) -> Identity | None:
        """The node with the narrowest scope that an area lies in; of several the lowest, then the first by name."""
        for end in range(len(area), 1, -1):
            found = [self._nodes[node] for node in self._by_scope.get(area[:end], ())]
            if found:
                return min(found, key=lambda one: (-self.rank(one.level), one.node))
        return None

    def rank(self, level: str) -> int:
        """0 for the highest level; unknown levels come after the lowest."""
        return self.levels.index(level) if level in self.levels else len(self.levels)

    def revocation(self, node: str, incarnation: int = 0) -> Revocation | None:
        """The revocation that holds for a node's incarnation (0: the one in force); of several the earliest."""
        identity = self._nodes.get(node)
        if identity is None:
            return None
        life = incarnation or identity.incarnation
        found = [one for upto, one in self._revoked.get(node, {}).items() if upto >= life]
        return min(found, key=lambda one: (one.at_ms, one.incarnation), default=None)

    def is_revoked(self, node: str) -> bool:
        return self.revocation(node) is not None
