"""gRPC: the only module that imports grpc. Bytes of frames out, bytes of frames in; errors of the network become
`Unavailable`.

Rules
1. Two ports. The exchange asks for a client certificate of the trust domain (mutual TLS 1.3); the enrolment port
   cannot, since who
   joins has none yet: it serves the chain (public) and `Join` (a secret in, a certificate out), nothing else.
2. Frames are raw bytes here: a decoder that raised inside gRPC would reach the peer as UNKNOWN. Decoding is the
   driver's.
3. The client checks the parent's DNS name (`Identity.dns`), since gRPC cannot check a URI name.
4. Who joins fetches the chain first, over TLS that proves nothing yet, checks the root's hash against the token, and
   only then opens
   a second connection, verified against that root, over which the secret goes.
5. A child shows its own certificate alone: its parent, who issued it, has the rest. It saves a slow line the chain in
   the handshake, and again in each TLS session ticket. A parent whose program wants the whole chain hangs up, and gets
   it at once.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import grpc
import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from google.protobuf.message import DecodeError
from grpc.experimental.session_cache import ssl_session_cache_lru

from fednode.crypto.certs import iso, outside_tls_dates, tls_dates
from fednode.node.home import pem_of
from fednode.proto import fednode_pb2 as pb
from fednode.sync.enrol import ChainSeen
from fednode.sync.errors import BUSY, PeerError, Refused, StoreError, Unavailable, busy
from fednode.sync.versions import Versions
from fednode.sync.wire import FRAME_BYTES_MAX
from fednode.sync.wire_where import Whereabouts, refusal_out, reply_in, reply_out, request_in, request_out

EXCHANGE = "/fednode.v1.Exchange/Run"
SUCCEED = "/fednode.v1.Exchange/Succeed"
HAND_OVER = "/fednode.v1.Exchange/HandOver"
WHERE = "/fednode.v1.Exchange/Where"
ENROL_CHAIN = "/fednode.v1.Enrol/Chain"
ENROL_JOIN = "/fednode.v1.Enrol/Join"
ENROL_BYTES_MAX = 64 * 1024
CONNECT_S = 10.0
JOIN_S = 30.0
NEVER_MS = 2**31 - 1
IDLE_MS = 120_000  # a connection without a session
SWAP_S = 0.25  # a thousand times what gRPC takes from its question to its use of the answer
HEAR_S = 10.0  # a greeting, of who is told to come again
HANDSHAKE_MS = 30_000  # of TLS; a slow line takes some seconds
ENROL_AGE_MS = 60_000  # a connection to the enrolment port, whatever is asked on it: anybody may open one
ENROL_CALLS_MAX = 64
SESSIONS_MAX = 6_000
CONNECTIONS_MAX = 8_000  # to the exchange: some 100 kB each, whoever opens them
ENROL_CONNECTIONS_MAX = 256
TLS_SESSIONS = 8
LOOKAHEAD_BYTES = 8 * 1024 * 1024  # the exchange has its own flow control: HTTP/2's need not probe for a window
SERVED_LOOKAHEAD_BYTES = 256 * 1024  # what gRPC keeps of one child that is read more slowly than it sends
NO_ANSWER = "Failed to connect to remote host"  # gRPC's words where there was not even a TCP connection
RETRY_METADATA = "fednode-retry-ms"

_LIMITS = [
    ("grpc.max_receive_message_length", FRAME_BYTES_MAX + 1024),
    ("grpc.max_send_message_length", FRAME_BYTES_MAX + 1024),
    # none: the exchange has beats. gRPC's sets TCP_USER_TIMEOUT, too, and ends a slow line that is busy for 20 s
    ("grpc.keepalive_time_ms", NEVER_MS),
    ("grpc.max_metadata_size", 4096),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # none: what travels is packed and sealed
    ("grpc.http2.bdp_probe", 0),
]
_CLIENT = [*_LIMITS, ("grpc.http2.lookahead_bytes", LOOKAHEAD_BYTES)]
_SERVER = [
    *_LIMITS,
    ("grpc.http2.lookahead_bytes", SERVED_LOOKAHEAD_BYTES),
    ("grpc.so_reuseport", 0),
    ("grpc.max_concurrent_streams", 16),
    ("grpc.max_connection_idle_ms", IDLE_MS),
    ("grpc.server_handshake_timeout_ms", HANDSHAKE_MS),
]
_EXCHANGE_SERVER = [
    *_SERVER,
    ("grpc.max_allowed_incoming_connections", CONNECTIONS_MAX),
    # calls that wait for the event loop: beyond 1,000 gRPC throws some away, and does not say when to come again
    ("grpc.server.max_pending_requests", SESSIONS_MAX),
    ("grpc.server.max_pending_requests_hard_limit", SESSIONS_MAX),
]
_ENROL_SERVER = [
    *_SERVER,
    ("grpc.max_allowed_incoming_connections", ENROL_CONNECTIONS_MAX),
    ("grpc.max_connection_age_ms", ENROL_AGE_MS),
    ("grpc.max_connection_age_grace_ms", int(JOIN_S * 1000)),
]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Credentials:
    """PEM: this node's TLS key; its own certificate; its chain (own first, without the root); who may have issued its
    children's (itself and those above, in each of their lives); the root."""

    key: bytes
    own: bytes
    chain: bytes
    issuers: bytes
    root: bytes


class Stream(Protocol):
    """One exchange's bytes. `read` returns None at the end; both raise Unavailable FN-4501 when the link is gone."""

    async def read(self) -> bytes | None: ...
    async def write(self, data: bytes) -> None: ...


def _busy(metadata: Any) -> Unavailable:
    """The peer has no room now, and may have said when it will."""
    text = next((value for key, value in metadata or () if key == RETRY_METADATA and isinstance(value, str)), "")
    retry_ms = int(text) if re.fullmatch("[0-9]{1,9}", text) else 0
    return busy(retry_ms)


def _gone(error: grpc.RpcError, address: str) -> Unavailable:
    code = error.code() if hasattr(error, "code") else None
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return _busy(error.trailing_metadata() if hasattr(error, "trailing_metadata") else None)
    details = error.details() if hasattr(error, "details") else str(error)
    return Unavailable("FN-4501", address=address, reason=f"{code.name if code else ''}: {(details or '')[:300]}")


class _NotConnectedError(Exception):
    """There was no call at all: `why`."""

    def __init__(self, why: Unavailable) -> None:
        super().__init__(why)
        self.why = why


# ---------------------------------------------------------------- the child's side


class _Call:
    def __init__(self, call: Any, address: str) -> None:
        self._call, self._address = call, address

    async def read(self) -> bytes | None:
        try:
            data = await self._call.read()
        except grpc.RpcError as error:
            raise _gone(error, self._address) from error
        return None if data is grpc.aio.EOF else bytes(data)

    async def write(self, data: bytes) -> None:
        try:
            await self._call.write(data)
        except grpc.RpcError as error:
            raise _gone(error, self._address) from error
        except Exception as error:  # grpc.aio raises InvalidStateError and the like once a call is over
            if self._call.done() and await self._call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise _busy(await self._call.trailing_metadata()) from error
            raise Unavailable("FN-4501", address=self._address, reason=str(error)) from error


_caches: dict[Credentials, Any] = {}
_whole: set[str] = set()  # addresses of parents that want the whole chain


def _session_cache(credentials: Credentials) -> Any:
    """TLS sessions to go on with, for as long as the certificate is this one."""
    if credentials not in _caches:
        _caches.clear()
        _caches[credentials] = ssl_session_cache_lru(TLS_SESSIONS)
    return _caches[credentials]


async def dial(address: str, credentials: Credentials, name: str, use: Callable[[Stream], Awaitable[T]]) -> T:
    """Open an exchange with the parent and let `use` drive it. `name`: the parent's DNS name in its certificate. Raises
    Unavailable FN-4501, FN-4508."""
    whole = address in _whole
    try:
        return await _dial(address, credentials, whole, name, use)
    except _NotConnectedError as error:
        if whole or error.why.code == BUSY or NO_ANSWER in str(error.why):
            _whole.discard(address)
            raise error.why from error
    try:
        done = await _dial(address, credentials, True, name, use)
    except _NotConnectedError as error:
        raise error.why from error
    _whole.add(address)
    return done


async def _dial(
    address: str, credentials: Credentials, whole: bool, name: str, use: Callable[[Stream], Awaitable[T]]
) -> T:
    shown = credentials.chain if whole else credentials.own
    tls = grpc.ssl_channel_credentials(credentials.root, credentials.key, shown)
    options = [
        *_CLIENT,
        ("grpc.ssl_target_name_override", name),
        ("grpc.enable_retries", 0),
        ("grpc.ssl_session_cache", _session_cache(credentials)),
    ]
    async with grpc.aio.secure_channel(address, tls, options=options) as channel:
        call = channel.stream_stream(EXCHANGE)(wait_for_ready=False)
        try:
            await call.wait_for_connection()
        except grpc.RpcError as error:
            raise _NotConnectedError(_gone(error, address)) from error
        try:
            return await use(_Call(call, address))
        finally:
            call.cancel()


async def _unary(
    address: str,
    tls: grpc.ChannelCredentials,
    name: str | None,
    method: str,
    request: bytes,
    seconds: float = JOIN_S,
) -> bytes:
    options = list(_CLIENT)
    if name:
        options.append(("grpc.ssl_target_name_override", name))  # type: ignore[arg-type]
    async with grpc.aio.secure_channel(address, tls, options=options) as channel:
        try:
            return bytes(await channel.unary_unary(method)(request, timeout=seconds))
        except grpc.RpcError as error:
            raise _gone(error, address) from error


def presented_certificate(address: str) -> bytes:
    """The certificate (DER) that a server presents, unverified. Raises Unavailable FN-4501."""
    host, _, port = address.rpartition(":")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    try:
        with (
            socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S) as raw,
            context.wrap_socket(raw) as wrapped,
        ):
            der = wrapped.getpeercert(binary_form=True)
    except (OSError, ValueError) as error:
        raise Unavailable("FN-4501", address=address, reason=str(error)) from error
    if not der:
        raise Unavailable("FN-4501", address=address, reason="no certificate")
    return der


async def fetch_chain(address: str, wall_s: int) -> ChainSeen:
    """What an enrolment server shows: nothing of it is trusted yet. `wall_s`: this machine's clock. Raises Unavailable
    FN-4501, Refused FN-5133 when TLS would refuse the server's certificate at this machine's time."""
    leaf = presented_certificate(address)
    if outside_tls_dates((leaf,), wall_s) is not None:
        start, end = tls_dates(leaf)
        raise Refused("FN-5133", here=iso(wall_s), valid_from=iso(start), valid_to=iso(end))
    certificate = x509.load_der_x509_certificate(leaf)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    dns = names.get_values_for_type(x509.DNSName)
    tls = grpc.ssl_channel_credentials(pem_of((leaf,)))
    reply = pb.ChainReply.FromString(await _unary(address, tls, dns[0] if dns else None, ENROL_CHAIN, b""))
    spoken = Versions(reply.version_min, reply.version_max)
    return ChainSeen(tuple(reply.chain), leaf, reply.now_ms, spoken)


async def join(address: str, root_der: bytes, name: str, request: pb.JoinRequest) -> pb.JoinReply:
    """Send a JoinRequest over TLS verified against the pinned root."""
    tls = grpc.ssl_channel_credentials(pem_of((root_der,)))
    data = await _unary(address, tls, name, ENROL_JOIN, request.SerializeToString())
    return pb.JoinReply.FromString(data)


async def succeed(address: str, credentials: Credentials, name: str, request: pb.SuccessionRequest) -> pb.JoinReply:
    """Ask a primary's issuer for its name. `name`: the issuer's DNS name. Raises Unavailable."""
    data = await _unary(address, _mutual(credentials), name, SUCCEED, request.SerializeToString())
    return pb.JoinReply.FromString(data)


async def hand_over(address: str, credentials: Credentials, name: str, request: pb.HandOverRequest) -> pb.HandOverReply:
    """Ask a primary to hand over. `name`: its DNS name. Raises Unavailable."""
    data = await _unary(address, _mutual(credentials), name, HAND_OVER, request.SerializeToString())
    return pb.HandOverReply.FromString(data)


async def where(address: str, credentials: Credentials, name: str, node: str) -> Whereabouts:
    """Ask the node above the parent where that is (`node`). `name`: the DNS name of who is asked. Raises Unavailable
    (also where that is an older program, or has answered enough: FN-4508), PeerError with its code where it refuses."""
    return reply_in(await _unary(address, _mutual(credentials), name, WHERE, request_out(node), CONNECT_S))


async def served_chain(address: str, root: bytes, name: str) -> tuple[bytes, ...]:
    """The chain of whoever serves an enrolment port under a DNS name. `root`: PEM. Raises Unavailable where nobody does
    that the root vouches for."""
    data = await _unary(address, grpc.ssl_channel_credentials(root), name, ENROL_CHAIN, b"")
    return tuple(pb.ChainReply.FromString(data).chain)


def _mutual(credentials: Credentials) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(credentials.root, credentials.key, credentials.chain)


# ---------------------------------------------------------------- the parent's side


class _Served:
    def __init__(self, context: Any, peer: str) -> None:
        self._context, self._peer = context, peer

    async def read(self) -> bytes | None:
        try:
            data = await self._context.read()
        except grpc.RpcError as error:
            raise _gone(error, self._peer) from error
        except Exception as error:  # the call was cancelled under us
            raise Unavailable("FN-4501", address=self._peer, reason=str(error)) from error
        return None if data is grpc.aio.EOF else bytes(data)

    async def write(self, data: bytes) -> None:
        try:
            await self._context.write(data)
        except Exception as error:  # as above: grpc.aio has no common class for it
            raise Unavailable("FN-4501", address=self._peer, reason=str(error)) from error


# Stream, the child's certificate (DER) as TLS verified it. Raises Unavailable when there is no room.
OnExchange = Callable[[Stream, bytes], Awaitable[None]]
# The same certificate.
OnSucceed = Callable[[pb.SuccessionRequest, bytes], Awaitable[pb.JoinReply]]
OnHandOver = Callable[[pb.HandOverRequest, bytes], Awaitable[pb.HandOverReply]]
# The node that is asked for, the same certificate. Raises PeerError, and Unavailable where there is no answer for now.
OnWhere = Callable[[str, bytes], Awaitable[Whereabouts]]
OnChain = Callable[[], Awaitable[pb.ChainReply]]
OnJoin = Callable[[pb.JoinRequest], Awaitable[pb.JoinReply]]


class _Handler(grpc.GenericRpcHandler):
    """The methods of one port."""

    def __init__(self, methods: dict[str, Any]) -> None:
        self._methods = methods

    def service(self, handler_call_details: Any) -> Any:
        return self._methods.get(handler_call_details.method)


def _shown(context: Any) -> bytes:
    """The certificate (DER) that TLS has verified."""
    shown = context.auth_context().get("x509_pem_cert", [b""])[0]
    return x509.load_pem_x509_certificate(shown).public_bytes(Encoding.DER)


async def _heard(context: Any) -> None:
    """Let a child say its greeting before it is told to come again. gRPC for Python forgets the answer where that comes
    while something is being written: INTERNAL, and nothing of when to come."""
    reading = asyncio.ensure_future(context.read())
    reading.add_done_callback(lambda done: done.cancelled() or done.exception())
    await asyncio.wait((reading,), timeout=HEAR_S)


async def _refuse_for_now(context: Any, no_room: Unavailable) -> None:
    retry = ((RETRY_METADATA, str(no_room.retry_after_ms)),)
    await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, no_room.code, retry)


def _exchange_handler(
    on_exchange: OnExchange, on_succeed: OnSucceed, on_hand_over: OnHandOver, on_where: OnWhere
) -> _Handler:
    async def run(_requests: AsyncIterator[bytes], context: Any) -> None:
        try:
            await on_exchange(_Served(context, context.peer()), _shown(context))
        except Unavailable as no_room:
            await _heard(context)
            await _refuse_for_now(context, no_room)

    async def succeed_(request: bytes, context: Any) -> bytes:
        parsed = await _parsed(pb.SuccessionRequest, request, context)
        return (await on_succeed(parsed, _shown(context))).SerializeToString()

    async def hand_over_(request: bytes, context: Any) -> bytes:
        parsed = await _parsed(pb.HandOverRequest, request, context)
        return (await on_hand_over(parsed, _shown(context))).SerializeToString()

    async def where_(request: bytes, context: Any) -> bytes:
        try:
            return reply_out(await on_where(request_in(request), _shown(context)))
        except PeerError as error:
            return refusal_out(error.code, error.params)
        except Unavailable as no_room:
            await _refuse_for_now(context, no_room)
            raise  # `abort` has raised

    return _Handler(
        {
            EXCHANGE: grpc.stream_stream_rpc_method_handler(run),
            SUCCEED: grpc.unary_unary_rpc_method_handler(succeed_),
            HAND_OVER: grpc.unary_unary_rpc_method_handler(hand_over_),
            WHERE: grpc.unary_unary_rpc_method_handler(where_),
        }
    )


async def _parsed(kind: Any, request: bytes, context: Any) -> Any:
    if len(request) > ENROL_BYTES_MAX:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "FN-5501")
    try:
        return kind.FromString(request)
    except DecodeError:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "FN-5502")


def _enrol_handler(on_chain: OnChain, on_join: OnJoin) -> _Handler:
    async def chain(_request: bytes, _context: Any) -> bytes:
        return (await on_chain()).SerializeToString()

    async def join_(request: bytes, context: Any) -> bytes:
        return (await on_join(await _parsed(pb.JoinRequest, request, context))).SerializeToString()

    return _Handler(
        {
            ENROL_CHAIN: grpc.unary_unary_rpc_method_handler(chain),
            ENROL_JOIN: grpc.unary_unary_rpc_method_handler(join_),
        }
    )


async def _start(server: grpc.aio.Server, address: str, tls: grpc.ServerCredentials) -> int:
    try:
        port = int(server.add_secure_port(address, tls))
    except RuntimeError as error:
        raise StoreError("FN-7620", address=address) from error
    if port == 0:
        raise StoreError("FN-7620", address=address)
    await server.start()
    return port


class _Shown:
    """What a port shows: gRPC asks at each connection (`changed`), one connection at a time, in a thread of its own. A
    configuration is handed out where it is another one, and never else: it would end every TLS session that a child
    goes on with, and gRPC 1.85 swaps it while other handshakes may be reading it. Two strangers who connected at the
    same moment ended the process in that way. Where it is another one, those who were answered before have long read
    theirs when it is swapped (`SWAP_S`), and nobody else is let on meanwhile."""

    def __init__(self, credentials: Callable[[], Credentials], wait: Callable[[float], object]) -> None:
        self._credentials, self._wait = credentials, wait
        self._now = credentials()

    def configuration(self) -> grpc.ServerCertificateConfiguration:
        now = self._now
        return grpc.ssl_server_certificate_configuration([(now.key, now.chain)], now.root + now.issuers)

    def changed(self) -> grpc.ServerCertificateConfiguration | None:
        """None while it is the same."""
        now = self._credentials()
        if now == self._now:
            return None
        self._now = now
        self._wait(SWAP_S)
        return self.configuration()


class Server:
    """The two ports of a node that has children. `credentials` is asked again for each new connection: certificates
    rotate live. `wait`: seconds, in a thread of gRPC's.
    """

    def __init__(self, credentials: Callable[[], Credentials], wait: Callable[[float], object] = time.sleep) -> None:
        self._credentials, self._wait = credentials, wait
        self._servers: list[grpc.aio.Server] = []
        self.port = self.enrol_port = 0

    async def start(
        self,
        listen: str,
        enrol_listen: str,
        on_exchange: OnExchange,
        on_succeed: OnSucceed,
        on_hand_over: OnHandOver,
        on_where: OnWhere,
        on_chain: OnChain,
        on_join: OnJoin,
    ) -> None:
        """Raises StoreError FN-7620 when a port is taken."""
        shown = _Shown(self._credentials, self._wait)
        mutual = grpc.dynamic_ssl_server_credentials(
            shown.configuration(), shown.changed, require_client_authentication=True
        )
        server = grpc.aio.server(options=_EXCHANGE_SERVER, maximum_concurrent_rpcs=SESSIONS_MAX)
        server.add_generic_rpc_handlers((_exchange_handler(on_exchange, on_succeed, on_hand_over, on_where),))
        self.port = await _start(server, listen, mutual)
        self._servers.append(server)
        shown_to_all = _Shown(self._credentials, self._wait)
        plain = grpc.dynamic_ssl_server_credentials(shown_to_all.configuration(), shown_to_all.changed)
        enrol = grpc.aio.server(options=_ENROL_SERVER, maximum_concurrent_rpcs=ENROL_CALLS_MAX)
        enrol.add_generic_rpc_handlers((_enrol_handler(on_chain, on_join),))
        self.enrol_port = await _start(enrol, enrol_listen, plain)
        self._servers.append(enrol)

    async def stop(self, grace_s: float) -> None:
        for server in self._servers:
            await server.stop(grace_s)
        self._servers.clear()
