"""Issuing: roots, certificate requests with proof of possession, certificates. What they say is `fednode.crypto.certs`.

Rules
1. A request proves that its maker holds the TLS key (PKCS #10) and the signing key (a signature over both public keys).
2. A certificate is made inside its issuer's, and is read back and checked before it is handed out. Its validity stands
   where whoever asks for it reads it (`certs`, rule 6).
3. Keys, serial numbers and `now_s` are arguments; ECDSA signatures are deterministic (RFC 6979).

>>> from fednode.crypto.keys import SealKey, SigningKey, TlsKey
>>> keys = TlsKey.from_seed(bytes(40)), SigningKey.from_seed(bytes(32)), SealKey.from_seed(bytes(32))
>>> parse_request(make_request("1301", *keys)).node
'1301'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from cryptography.x509.oid import NameOID

from fednode.crypto import canonical
from fednode.crypto.certs import (
    BACKDATE_S,
    DNS_SUFFIX,
    PROFILE,
    PROFILE_VERSION,
    ROOT,
    TITLE_MAX,
    UNREADABLE,
    WIDE,
    Identity,
    check_issued,
    dns_label,
    parse,
    spki,
    text_der,
    text_of,
)
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.crypto.suite import SUITE_1


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed certificate request: proof of possession of the TLS key and of the signing key was checked. `wide`: its
    maker reads the validity from the profile (`certs`, rule 6)."""

    node: str
    tls_key: bytes
    sign_key: bytes
    seal_key: bytes
    wide: bool = False


def _builder(
    identity: Identity,
    public: Any,
    issuer_name: x509.Name,
    issuer_public: Any,
    serial: int,
    pathlen: int | None,
    wide: bool,
) -> x509.CertificateBuilder:
    dates = WIDE if wide else (identity.not_before, identity.not_after)
    profile: dict[str, Any] = {
        "v": PROFILE_VERSION,
        "inc": identity.incarnation,
        "issuer": identity.issuer,
        "level": identity.level,
        "name": identity.name,
        "scope": list(identity.scope),
        "seal": identity.seal_key.hex(),
        "sign": identity.sign_key.hex(),
    }
    if wide:
        profile["from"], profile["to"] = identity.not_before, identity.not_after
    if identity.levels:
        profile["levels"] = list(identity.levels)
    if identity.stands_for:
        profile["for"] = identity.stands_for
    ca = identity.may_issue
    names = [x509.DNSName(identity.dns), x509.UniformResourceIdentifier(f"fednode://{identity.domain}/{identity.node}")]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_name(identity.domain, identity.node))
        .issuer_name(issuer_name)
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(datetime.fromtimestamp(dates[0], UTC))
        .not_valid_after(datetime.fromtimestamp(dates[1], UTC))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=pathlen if ca else None), critical=True)
        .add_extension(_usage(ca), critical=True)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_public), critical=False)
        .add_extension(x509.UnrecognizedExtension(PROFILE, text_der(canonical.dumps(profile))), critical=False)
    )
    if ca:
        builder = builder.add_extension(x509.NameConstraints([x509.DNSName(identity.dns)], None), critical=True)
    return builder


def _name(domain: str, node: str) -> x509.Name:
    return x509.Name(
        [x509.NameAttribute(NameOID.ORGANIZATION_NAME, domain), x509.NameAttribute(NameOID.COMMON_NAME, node)]
    )


def _usage(ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=ca,
        crl_sign=ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _signed(builder: x509.CertificateBuilder, key: TlsKey) -> bytes:
    return builder.sign(key.key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


def make_root(
    domain: str,
    scope: tuple[str, ...],
    levels: tuple[str, ...],
    key: TlsKey,
    *,
    now_s: int,
    days: int,
    serial: int,
    wide: bool = True,
) -> bytes:
    """A self-signed root certificate (DER) for a trust domain. Its signing and sealing keys are empty: it only
    issues. `wide`: see `certs`, rule 6; without it as release 0.1 made it."""
    public = key.key.public_key()
    identity = Identity(
        domain,
        ROOT,
        domain,
        ROOT,
        scope,
        1,
        ROOT,
        bytes(32),
        bytes(32),
        b"",
        True,
        now_s - BACKDATE_S,
        now_s + days * 86400,
        f"{domain}.{DNS_SUFFIX}",
        levels,
        b"",
    )
    return _signed(_builder(identity, public, _name(domain, ROOT), public, serial, len(levels), wide), key)


def make_request(node: str, tls: TlsKey, sign: SigningKey, seal: SealKey, *, wide: bool = True) -> bytes:
    """A certificate request (PKCS #10, DER), with the signing key's proof of possession. `wide`: see `Request`."""
    profile: dict[str, Any] = {
        "v": PROFILE_VERSION,
        "sign": sign.public.hex(),
        "seal": seal.public.hex(),
        "proof": sign.sign(_possession(node, tls.public_der, seal.public)).hex(),
    }
    if wide:
        profile["wide"] = True
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)]))
        .add_extension(x509.UnrecognizedExtension(PROFILE, text_der(canonical.dumps(profile))), critical=False)
        .sign(tls.key, hashes.SHA256(), ecdsa_deterministic=True)
    )
    return request.public_bytes(Encoding.DER)


def _possession(node: str, tls_public: bytes, seal_public: bytes) -> bytes:
    return SUITE_1.hash(b"fednode request v1\n" + node.encode() + b"\n" + SUITE_1.hash(tls_public) + seal_public)


def parse_request(der: bytes) -> Request:
    """Check and read a certificate request. Raises IntegrityError FN-6106."""
    try:
        request = x509.load_der_x509_csr(der)
        profile = canonical.loads(text_of(request.extensions.get_extension_for_oid(PROFILE).value.public_bytes()))
        node = str(request.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
        sign_key, seal_key = bytes.fromhex(profile["sign"]), bytes.fromhex(profile["seal"])
        public = request.public_key()
        if not request.is_signature_valid or not isinstance(public, ec.EllipticCurvePublicKey) or len(seal_key) != 32:
            raise ValueError("signature")
        SUITE_1.check_public(sign_key)
        SUITE_1.check_seal_public(seal_key)
        SUITE_1.verify(sign_key, _possession(node, spki(public), seal_key), bytes.fromhex(profile["proof"]))
    except UNREADABLE as error:
        raise IntegrityError("FN-6106", reason=str(error)[:200]) from error
    except FednodeError as error:
        raise IntegrityError("FN-6106", reason=error.code) from error
    return Request(node, spki(public), sign_key, seal_key, profile.get("wide") is True)


@dataclass(frozen=True, slots=True)
class Grant:
    """What an issuer decides about a certificate. `standby`: of a standby of the issuer's own."""

    name: str
    level: str
    scope: tuple[str, ...]
    incarnation: int
    days: int
    serial: int
    standby: bool = False


def issue(request: Request, grant: Grant, issuer: Identity, key: TlsKey, levels: Sequence[str], *, now_s: int) -> bytes:
    """A certificate (DER) for a request. `levels`: the domain's. Raises IntegrityError FN-6102 when it would not be
    inside the issuer's."""
    ranks = {level: rank for rank, level in enumerate(levels)}
    lowest = grant.level == levels[-1]  # for its standbys alone; not asked for by release 0.1
    may_issue = grant.level in ranks and not grant.standby and (request.wide or not lowest)
    identity = Identity(
        issuer.domain,
        request.node,
        grant.name[:TITLE_MAX],
        grant.level,
        grant.scope,
        grant.incarnation,
        issuer.node,
        request.sign_key,
        request.seal_key,
        request.tls_key,
        may_issue,
        now_s - BACKDATE_S,
        min(now_s + grant.days * 86400, issuer.not_after),
        f"{dns_label(request.node)}.{issuer.dns}",
        (),
        b"",
        issuer.node if grant.standby else "",
    )
    issuer_certificate = x509.load_der_x509_certificate(issuer.der)
    public = load_der_public_key(request.tls_key)
    pathlen = len(levels) - 1 - ranks.get(grant.level, 0) if may_issue else None
    builder = _builder(
        identity,
        public,
        issuer_certificate.subject,
        issuer_certificate.public_key(),
        grant.serial,
        pathlen,
        request.wide,
    )
    der = _signed(builder, key)
    check_issued(parse(der), issuer, levels)
    return der
