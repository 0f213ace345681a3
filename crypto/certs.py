"""Certificates: who a node is, and that whoever is above it said so. X.509 v3, P-256, profile of our own in one
extension.

Rules
1. One certificate for each node. Its P-256 key does TLS and, where the node may have children, signs their
   certificates. The extension `PROFILE` binds to it the Ed25519 key that signs logs, the X25519 key that content keys
   are sealed to, the level, the scope and the incarnation.
2. A child lies inside its issuer: scope, level, DNS name (also as a critical name constraint, RFC 5280 4.2.1.10) and
   the trust domain. One kind of child is its issuer's equal: a standby, which stands `for` it and issues nothing.
   `check_issued` is the one place that says so, `check_chain` walks a chain with it up to a pinned root.
3. Names: SAN URI `fednode://<domain>/<node>`, and a DNS name under the issuer's (`Identity.dns`): gRPC checks that one.
4. Ed25519 keys of small order or in a form that is not canonical are refused when they are asked to be certified.
5. Seconds are Unix seconds.
6. TLS libraries hold a certificate's X.509 dates against their machine's own clock, which may be years off in a
   village. So those dates say "no well-defined expiration" (`WIDE`: 1970 to 9999-12-31, RFC 5280 4.1.2.5), and how
   long a certificate holds stands in the profile (`from`, `to`), where the application judges it by a clock that it
   may believe. Certificates without these two (of release 0.1, or for a node of that release) hold by their X.509
   dates.

>>> dns_label("130102"), dns_label("Ab_c")[:2]
('130102', 'x-')
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fednode.crypto import canonical
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1

PROFILE = x509.ObjectIdentifier("2.25.329800735698586629295641978511506172918")  # a UUID of our own (ITU-T X.667)
PROFILE_VERSION = 1
ROOT = "root"  # node id and level of the root
DNS_SUFFIX = "fednode.internal"  # .internal is reserved for private use (ICANN, 2024)
BACKDATE_S = 3600  # clocks of those who check may be a little behind
NODE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
DOMAIN_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
AREA = re.compile(r"[0-9]{2,12}")
SCOPE_MAX = 64
TITLE_MAX = 200
# All that `cryptography` and the reading of what it returns may raise for a certificate or request from outside.
UNREADABLE = (
    *(ValueError, KeyError, TypeError, IndexError, InvalidSignature, UnsupportedAlgorithm),
    *(x509.ExtensionNotFound, x509.DuplicateExtension, x509.InvalidVersion, x509.UnsupportedGeneralNameType),
)
WIDE = (0, 253_402_300_799)  # 1970-01-01T00:00:00Z, 9999-12-31T23:59:59Z
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Identity:
    """What a certificate says. `issuer`: node id of the issuer, "root" for the province's. `levels`: of the domain (the
    root's). `stands_for`: the primary of a standby, "" for every other node."""

    domain: str
    node: str
    name: str
    level: str
    scope: tuple[str, ...]
    incarnation: int
    issuer: str
    sign_key: bytes
    seal_key: bytes
    tls_key: bytes
    may_issue: bool
    not_before: int
    not_after: int
    dns: str
    levels: tuple[str, ...]
    der: bytes
    stands_for: str = ""


def covers(scope: Sequence[str], area: str) -> bool:
    """Whether an area lies in a scope (a list of prefixes)."""
    return any(area.startswith(prefix) for prefix in scope)


def dns_label(node: str) -> str:
    """A DNS label for a node id: itself where it is one, else a hash of it."""
    return node if _LABEL.fullmatch(node) else "x-" + SUITE_1.hash(node.encode())[:12].hex()


# ---------------------------------------------------------------- reading


def text_der(text: bytes) -> bytes:
    """A DER UTF8String: the length in its shortest form, or other readers of ASN.1 refuse it."""
    size = len(text)
    if size < 0x80:
        return b"\x0c" + bytes((size,)) + text
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return b"\x0c" + bytes((0x80 | len(length),)) + length + text


def text_of(der: bytes) -> bytes:
    """The text of a DER UTF8String. Raises ValueError."""
    skip = 2 + (der[1] & 0x7F if len(der) > 1 and der[1] & 0x80 else 0)
    text = der[skip:]
    if text_der(text) != der:
        raise ValueError("not a UTF8String")
    return text


def spki(key: Any) -> bytes:
    """A public key as SubjectPublicKeyInfo (DER)."""
    return bytes(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


@lru_cache(maxsize=4096)
def parse(der: bytes) -> Identity:
    """What a certificate says; nothing about whether it is to be believed. Raises IntegrityError FN-6101."""
    try:
        return _parse(der)
    except UNREADABLE as error:
        raise IntegrityError("FN-6101", reason=str(error)[:200]) from error
    except FednodeError as error:
        raise IntegrityError("FN-6101", reason=error.code) from error


def _parse(der: bytes) -> Identity:
    certificate = x509.load_der_x509_certificate(der)
    extensions, public = certificate.extensions, certificate.public_key()
    profile = canonical.loads(text_of(extensions.get_extension_for_oid(PROFILE).value.public_bytes()))
    if profile["v"] != PROFILE_VERSION:
        raise ValueError("profile version")
    dates = (int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp()))
    if "from" in profile or "to" in profile:
        dates = _validity(profile, dates)
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    (uri,) = names.get_values_for_type(x509.UniformResourceIdentifier)
    (dns,) = names.get_values_for_type(x509.DNSName)
    domain, node = uri.removeprefix("fednode://").split("/")
    may_issue = bool(extensions.get_extension_for_class(x509.BasicConstraints).value.ca)
    scope = tuple(profile["scope"])
    wrong = (
        (not uri.startswith("fednode://"), "uri"),
        (not DOMAIN_NAME.fullmatch(domain), "domain"),
        (not NODE_NAME.fullmatch(node), "node"),
        (not 1 <= len(scope) <= SCOPE_MAX or not all(AREA.fullmatch(area) for area in scope), "scope"),
        (type(profile["inc"]) is not int or not 1 <= profile["inc"] < 10**9, "incarnation"),
        (not isinstance(public, ec.EllipticCurvePublicKey), "key"),
        (type(profile["name"]) is not str or len(profile["name"]) > TITLE_MAX, "name"),
        (any(type(level) is not str for level in profile.get("levels", ())), "levels"),
        (der[-len(certificate.signature) - 1] != 0, "signature"),  # unused bits, which a reader may pass over
        (not isinstance(profile.get("for", ""), str) or (may_issue and bool(profile.get("for"))), "for"),
    )
    for bad, what in wrong:
        if bad:
            raise ValueError(what)
    sign_key, seal_key = bytes.fromhex(profile["sign"]), bytes.fromhex(profile["seal"])
    if node != ROOT:
        SUITE_1.check_public(sign_key)
        SUITE_1.check_seal_public(seal_key)
    return Identity(
        domain,
        node,
        str(profile["name"]),
        str(profile["level"]),
        scope,
        profile["inc"],
        str(profile["issuer"]),
        sign_key,
        seal_key,
        spki(public),
        may_issue,
        *dates,
        dns,
        tuple(profile.get("levels", ())),
        der,
        profile.get("for", ""),
    )


def _validity(profile: Any, dates: tuple[int, int]) -> tuple[int, int]:
    """The profile's times, which stand in the place of X.509 dates that say nothing."""
    start, end = profile["from"], profile["to"]
    if dates != WIDE or type(start) is not int or type(end) is not int or not WIDE[0] <= start <= end <= WIDE[1]:
        raise ValueError("validity")
    return start, end


@lru_cache(maxsize=4096)
def key_ids(der: bytes) -> tuple[bytes, bytes]:
    """The ids (X.509) of a certificate's own key, and of the key that signed it. Raises IntegrityError FN-6101."""
    try:
        extensions = x509.load_der_x509_certificate(der).extensions
        own = extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest
        by = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    except UNREADABLE as error:
        raise IntegrityError("FN-6101", reason=str(error)[:200]) from error
    return own, by or b""


@lru_cache(maxsize=4096)
def tls_dates(der: bytes) -> tuple[int, int]:
    """Between which seconds a TLS library takes a certificate, by its machine's clock. Raises IntegrityError
    FN-6101."""
    try:
        certificate = x509.load_der_x509_certificate(der)
    except UNREADABLE as error:
        raise IntegrityError("FN-6101", reason=str(error)[:200]) from error
    return int(certificate.not_valid_before_utc.timestamp()), int(certificate.not_valid_after_utc.timestamp())


def outside_tls_dates(chain: Sequence[bytes], wall_s: int) -> bytes | None:
    """The first certificate that a TLS library refuses on a machine whose clock says this; None when it takes all."""
    for der in chain:
        start, end = tls_dates(der)
        if not start <= wall_s <= end:
            return der
    return None


# ---------------------------------------------------------------- checking


def check_issued(child: Identity, issuer: Identity, levels: Sequence[str]) -> None:
    """That `issuer` may have said and did say what `child`'s certificate says. Raises IntegrityError FN-6102 with the
    reason. Times are not looked at: a log outlives the certificates of its writer."""
    ranks = {level: rank for rank, level in enumerate((ROOT, *levels))}
    wrong = (
        (child.domain != issuer.domain, "domain"),
        (child.issuer != issuer.node, "issuer"),
        (not issuer.may_issue, "issuer may not issue"),
        (child.level not in ranks or issuer.level not in ranks, "level"),
        (not child.stands_for and ranks.get(child.level, 0) <= ranks.get(issuer.level, 0), "level"),
        (bool(child.stands_for) and not _may_stand_for(child, issuer), "for"),
        (not all(covers(issuer.scope, area) for area in child.scope), "scope"),
        (child.dns != f"{dns_label(child.node)}.{issuer.dns}", "dns"),
        (child.node in (issuer.node, ROOT), "node"),
    )
    for bad, what in wrong:
        if bad:
            raise IntegrityError("FN-6102", node=child.node, issuer=issuer.node, reason=what)
    try:
        _check_signed(child.der, issuer.der)
    except UNREADABLE as error:
        raise IntegrityError("FN-6102", node=child.node, issuer=issuer.node, reason="signature") from error


@lru_cache(maxsize=1024)  # the same chain is shown at every session; only what holds is remembered
def _check_signed(child: bytes, issuer: bytes) -> None:
    certificate = x509.load_der_x509_certificate(child)
    certificate.verify_directly_issued_by(x509.load_der_x509_certificate(issuer))


def _may_stand_for(standby: Identity, primary: Identity) -> bool:
    return (standby.stands_for, standby.level, standby.scope) == (primary.node, primary.level, primary.scope)


def check_chain(chain: Sequence[bytes], root_sha256: bytes, now_s: int | None = None) -> tuple[Identity, ...]:
    """The identities of a chain (own certificate first, root last), each issued by the next, the last the pinned root.
    With `now_s`: all valid at that time. Raises IntegrityError FN-6101, FN-6102, FN-6103 (another root), FN-6104
    (time)."""
    if not chain or SUITE_1.hash(chain[-1]) != root_sha256:
        found = SUITE_1.hash(chain[-1]).hex() if chain else ""
        raise IntegrityError("FN-6103", found=found, pinned=root_sha256.hex())
    identities = tuple(parse(der) for der in chain)
    root = identities[-1]
    if root.node != ROOT or root.level != ROOT:
        raise IntegrityError("FN-6102", node=root.node, issuer=ROOT, reason="root")
    for child, issuer in pairwise(identities):
        check_issued(child, issuer, root.levels)
    for one in identities if now_s is not None else ():
        check_time(one, now_s or 0)
    return identities


def check_time(identity: Identity, now_s: int) -> None:
    """That a certificate is valid at a time. Raises IntegrityError FN-6104 (not yet) or FN-6105 (no longer)."""
    if now_s < identity.not_before:
        raise IntegrityError("FN-6104", node=identity.node, valid_from=iso(identity.not_before), now=iso(now_s))
    if now_s > identity.not_after:
        raise IntegrityError("FN-6105", node=identity.node, valid_to=iso(identity.not_after), now=iso(now_s))


def iso(seconds: int) -> str:
    """Unix seconds as UTC ISO 8601; as they are where no calendar has them: they may come from a peer."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
