"""Ports, names, the parent: that it can be reached, and that it is the parent; what was exchanged with it, and when.

Rules
1. The parent notices a connection and no session: after TLS nothing is asked of it.
2. One of its addresses has to work; those that do not are said.

>>> name_of("10.0.0.1:7443"), name_of("[::1]:1"), name_of("city.example:7443")
('', '', 'city.example')
>>> dialled("0.0.0.0:7443"), dialled("[::]:1"), dialled("10.0.0.1:1")
('127.0.0.1:7443', '[::1]:1', '10.0.0.1:1')
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
from concurrent.futures import ThreadPoolExecutor

from fednode.crypto import certs
from fednode.crypto.errors import IntegrityError
from fednode.node import carrier
from fednode.node.doctor.finding import Finding, Size, Span, beside, failure, ok, warning
from fednode.node.doctor.scene import NAME_S, Scene, answer, in_time, split
from fednode.node.home import CHAIN, ROOT_CERTIFICATE
from fednode.node.lag import Samples
from fednode.node.mesh import own
from fednode.node.mesh.watcher import bounds_of
from fednode.sync.errors import Unavailable

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"  # RFC 9113, section 3.4
ADDRESSES_MAX = 16


def name_of(address: str) -> str:
    """The name in an address; "" where it is a number."""
    host = split(address)[0]
    try:
        ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    return ""


def dialled(address: str) -> str:
    """How this machine reaches what listens at an address: every address means the loopback."""
    host, port = split(address)
    if host in ("0.0.0.0", "*"):  # noqa: S104  # what is listened at, not what is bound here
        return f"127.0.0.1:{port}"
    return f"[::1]:{port}" if host == "::" else address


# ---------------------------------------------------------------- ports


def ports(scene: Scene) -> Finding:
    """This node's own: free while its daemon is stopped, held by it while it runs."""
    app = scene.app
    if not app.serves:
        return beside("doctor.ports_none")
    for address in (app.config.listen, app.config.enrol_listen):
        told = {"address": address}
        if not scene.running:
            if reason := _taken(address):
                return failure("doctor.port_taken", reason=reason, **told).having(**told)
            continue
        try:
            shown = certs.parse(carrier.presented_certificate(dialled(address)))
        except (Unavailable, IntegrityError):
            return failure("doctor.port_silent", **told).having(**told)
        if shown.tls_key != app.keys.tls.public_der:
            return failure("doctor.port_other", other=shown.node, **told).having(**told)
    both = f"{app.config.listen}, {app.config.enrol_listen}"
    return ok("doctor.ports_held" if scene.running else "doctor.ports_free", addresses=both)


def _taken(address: str) -> str:
    """ "" where this address can be listened at, else why not."""
    host, port = split(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError as error:
            return error.strerror or str(error)
    return ""


# ---------------------------------------------------------------- names


def names(scene: Scene) -> Finding:
    """Names among the addresses of the parent, and among those that children are told."""
    app = scene.app
    parents = [one for one in map(name_of, app.parent_addresses()) if one]
    mine = [one for one in map(name_of, (*app.config.advertise, *app.config.advertise_enrol)) if one]
    every = list(dict.fromkeys((*parents, *mine)))[:ADDRESSES_MAX]
    if not every:
        return beside("doctor.names_none")
    with ThreadPoolExecutor(len(every)) as pool:
        unknown = [one for one, known in zip(every, pool.map(_known, every), strict=True) if not known]
    told = {"names": ", ".join(unknown or every)}
    data = {"names": every, "unknown": unknown}
    if not unknown:
        return ok("doctor.names", **told).having(**data)
    alone = app.trust.parent is not None and all(name_of(one) in unknown for one in app.parent_addresses())
    return (failure if alone else warning)("doctor.names_unknown", **told).having(**data)


def _known(name: str) -> bool:
    try:
        return bool(in_time(lambda: socket.getaddrinfo(name, None), NAME_S))
    except OSError:
        return False


# ---------------------------------------------------------------- the parent


def reach(scene: Scene) -> Finding:
    """That somebody listens where the parent should."""
    app = scene.app
    if app.trust.parent is None:
        return beside("doctor.top")
    addresses = app.parent_addresses()[:ADDRESSES_MAX]
    if not addresses:
        return failure("doctor.parent_nowhere", parent=app.trust.parent.node)
    with ThreadPoolExecutor(len(addresses)) as pool:
        scene.reached = dict(zip(addresses, pool.map(lambda one: answer(one, scene.reach_s), addresses), strict=True))
    silent = {one: why for one, why in scene.reached.items() if why}
    told = {
        "parent": app.trust.parent.node,
        "address": ", ".join(one for one in addresses if one not in silent),
        "silent": "; ".join(f"{one}: {why}" for one, why in silent.items()),
    }
    if len(silent) == len(addresses):
        one = failure("doctor.parent_silent", **told)
    else:
        one = warning("doctor.parent_partly", **told) if silent else ok("doctor.parent_reached", **told)
    return one.having(addresses=scene.reached)


def identity(scene: Scene) -> Finding:
    """That who answers there is the parent, and takes this node's certificate: TLS, both ways."""
    app = scene.app
    parent = app.trust.parent
    if parent is None:
        return beside("doctor.top")
    app.check_tls_clock()
    last: Finding | None = None
    for address in (one for one, why in scene.reached.items() if not why):
        told = {"parent": parent.node, "address": address}
        try:
            shown, taken = _shake(scene, address)
        except ssl.SSLCertVerificationError as error:
            last = last or failure("doctor.parent_other", reason=error.verify_message or str(error), **told)
        except (OSError, ssl.SSLError) as error:
            last = last or failure("doctor.parent_no_tls", reason=str(error)[:200], **told)
        else:
            if not taken:
                return failure("doctor.parent_refuses", **told).having(address=address)
            data = {"address": address, "node": shown.node, "incarnation": shown.incarnation}
            return ok("doctor.parent_proved", name=shown.name, **told).having(**data)
    return last or failure("doctor.parent_nowhere", parent=parent.node)


def _shake(scene: Scene, address: str) -> tuple[certs.Identity, bool]:
    """Whose certificate is shown there, verified up to this node's root; and whether this node's was taken. Raises
    OSError, SSLError, IntegrityError FN-6101."""
    home, app = scene.home, scene.app
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cafile=str(home.path / ROOT_CERTIFICATE))
    context.load_cert_chain(home.path / CHAIN, home.keys_dir / "tls.pem", app.config.passphrase or "")
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(split(address), timeout=scene.reach_s) as raw,
        context.wrap_socket(raw, server_hostname=app.parent_dns()) as tls,
    ):
        shown = certs.parse(tls.getpeercert(binary_form=True) or b"")
        try:  # a certificate that is not taken shows only now, in TLS 1.3
            tls.sendall(PREFACE)
            return shown, bool(tls.recv(1))
        except (ssl.SSLError, ConnectionError):
            return shown, False


# ---------------------------------------------------------------- what was exchanged


def exchanged(scene: Scene) -> Finding:
    """When this node last met its parent, and how that ended."""
    app = scene.app
    parent = app.trust.parent
    if parent is None:
        return beside("doctor.top")
    peer = app.store.peer(parent.node)
    last_ms, code = (peer.last_ms, peer.last_error or "") if peer is not None else (None, "")
    data = {"last_exchange_ms": last_ms, "last_error": code or None}
    if last_ms is None:
        return warning("doctor.never_met", parent=parent.node, code=code or "-").having(**data)
    age_ms = max(0, app.now_ms() - last_ms)
    told = {"parent": parent.node, "age": Span(age_ms), "code": code}
    if code:
        one = warning("doctor.met_badly", **told)
    elif age_ms > bounds_of(app).stale_s(app.trust.me.level) * 1000:
        one = warning("doctor.met_long_ago", **told)
    else:
        one = ok("doctor.met", **told)
    return one.having(**data)


def backlog(scene: Scene) -> Finding:
    """What is saved here and the parent does not hold."""
    app = scene.app
    if app.trust.parent is None:
        return beside("doctor.top")
    peer = app.store.peer(app.trust.parent.node)
    held, bounds = app.store.backlog_up(peer.acked if peer else 0), bounds_of(app)
    since_s = own.load(app, app.store, Samples(), own.Alerts()).since_s
    age_s = max(0, app.now_s - since_s) if since_s else 0
    told = {"changes": held.changes, "bytes": Size(held.bytes), "age": Span(age_s * 1000)}
    data = {"changes": held.changes, "system": held.system, "bytes": held.bytes, "since_s": since_s or None}
    many = bool(bounds.changes) and held.changes > bounds.changes
    if many or age_s > bounds.behind_s(app.trust.me.level):
        return warning("doctor.backlog_old", **told).having(**data)
    return ok("doctor.backlog" if held.bytes else "doctor.backlog_none", **told).having(**data)
