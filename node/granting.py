"""A succession that its issuer grants in advance (`fednode.sync.grant`), and what becomes of it.

    issuer: seal -> file, code           two people keep them, offline
    standby: promote --grant FILE        when the issuer cannot be asked
    issuer: honour                       when it meets the successor: from then on it is as if it had been asked

Rules
1. The issuer says in its log that it has granted it, and which certificate; nobody else's is honoured. For the province
   the root key signs, and there is nobody to honour anything.
2. A grant is for one incarnation: when the primary has gone on to that one otherwise, it is void. So is one of a
   standby that was revoked.
3. Children believe the successor's chain, as ever; the levels above hear of it from the issuer.

>>> # file, code = seal(app, "130102-s1"); chain = opened(standby_app, file, code)
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fednode.crypto import certs, issuing
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.issuing import Request
from fednode.crypto.keys import TlsKey
from fednode.crypto.suite import SUITE_1
from fednode.node import succession
from fednode.node.app import encoded
from fednode.sync import grant
from fednode.sync.change import NODES, Change
from fednode.sync.errors import PeerError, Refused
from fednode.sync.identity import node_payload, sealed_payload

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.writer import Writer


def seal(app: App, standby: str, root_key: TlsKey | None = None) -> tuple[bytes, str]:
    """Grant a succession in advance: the file, and the code that opens it. `root_key`: the domain's, for the
    province's standby. Raises Refused FN-3110, FN-5117 (no standby of a child of this node), FN-5511, FN-5309."""
    app.trust.refresh(app.store)
    directory = app.trust.directory
    found = directory.get(standby)
    if found is None:
        raise Refused("FN-3110", node=standby)
    primary = directory.get(found.stands_for)
    if primary is None or directory.is_revoked(standby):
        raise Refused("FN-5511" if primary else "FN-5117", node=standby, me=app.trust.node)
    asked = Request(primary.node, found.tls_key, found.sign_key, found.seal_key, wide=True)
    if root_key is not None:
        der = _by_root(app, primary, asked, root_key)
    elif directory.parent_of(primary.node) == app.trust.node:
        der = app.certify(asked, primary.name, primary.level, primary.scope, primary.incarnation + 1)
    else:
        raise Refused("FN-5117", node=standby, me=app.trust.node)
    made = certs.parse(der)
    secret = app.rng(grant.SECRET_BYTES)
    place = (app.trust.domain, primary.node, made.incarnation, standby, made.issuer, app.now_s, made.not_after)
    head = grant.Head(*place, SUITE_1.hash(found.seal_key)[:8])
    file = grant.lock(head, der, found.seal_key, secret, app.rng)
    _tell(app, made, standby)
    return file, grant.code_of(secret)


def _by_root(app: App, primary: Identity, asked: Request, root_key: TlsKey) -> bytes:
    root = app.trust.directory.root
    if primary.issuer != ROOT or root_key.public_der != root.tls_key:
        raise Refused("FN-5309", node=primary.node)
    given = replace(app.grant(primary.name, primary.level, primary.scope, primary.incarnation + 1), standby=False)
    return issuing.issue(asked, given, root, root_key, app.trust.directory.levels, now_s=app.now_s)


def _tell(app: App, made: Identity, standby: str) -> None:
    """In the issuer's log, so that it knows the certificate again, and the audit has it. Of the province's the audit
    alone hears."""
    told: dict[str, Any] = {"node": made.node, "standby": standby, "incarnation": made.incarnation}
    if made.issuer == ROOT:
        app.journal().note("standby.seal", **told)
        return
    payload = sealed_payload(made.der, made.node, standby, made.incarnation)
    change = Change(f"sealed/{made.node}/{standby}/{made.incarnation}".encode(), encoded(payload))
    writer = app.new_writer(app.store)
    journal = app.journal(writer)
    writer.local(NODES, app.trust.area, [change], lambda tx: journal.within(tx, "standby.seal", **told))
    app.poke()


def opened(app: App, file: bytes, code: str) -> tuple[bytes, ...]:
    """At the standby: the chain of the primary's name. Raises Refused FN-3120 to FN-3122, FN-3123 (for another node or
    domain), FN-3124 (the primary has gone on: it is void), IntegrityError FN-6204 (another code), and those of a chain
    that does not hold."""
    plan = succession.plan(app)
    head, sealed = grant.read(file)
    if (head.domain, head.primary, head.standby) != (app.trust.domain, plan.primary, plan.standby):
        raise Refused("FN-3123", primary=head.primary, standby=head.standby, me=plan.standby)
    if head.incarnation <= plan.life:
        raise Refused("FN-3124", primary=plan.primary, granted=head.incarnation, now=plan.life)
    der = grant.unlock(head, sealed, app.keys.seal, grant.secret_of(code))
    directory = app.trust.directory
    above = (directory.root.der,) if head.issuer == ROOT else directory.chain(head.issuer)
    certs.check_chain((der, *above), app.trust.root_sha256, app.now_s)
    return (der, *above)


def honour(app: App, writer: Writer, shown: Identity) -> None:
    """At the issuer: take in a successor that shows what was granted to it in advance. Raises PeerError FN-5511 (the
    standby was revoked), FN-5119 (the primary has gone on otherwise)."""
    trust = app.trust
    trust.refresh(writer.store)
    directory = trust.directory
    standby, known = directory.get(directory.sealed_to(shown)), directory.get(shown.node)
    if standby is None or known is None or directory.parent_of(shown.node) != trust.node:
        return
    if known.incarnation >= shown.incarnation:
        if known.sign_key != shown.sign_key:
            raise PeerError("FN-5119", node=known.node, known=shown.incarnation - 1, now=known.incarnation)
        return
    if directory.is_revoked(standby.node):
        raise PeerError("FN-5511", node=standby.node)
    change = Change(shown.node.encode(), encoded(node_payload(shown.der)))
    told: dict[str, Any] = {"node": shown.node, "standby": standby.node, "incarnation": shown.incarnation}
    journal = app.journal(writer)
    writer.local(NODES, trust.area, [change], lambda tx: journal.within(tx, "succession", sealed=True, **told))
