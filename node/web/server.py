"""uvicorn in the daemon's own loop: where the console listens, with which certificate, and how it ends.

Rules
1. A loopback address may be plain. Any other is served with TLS (1.2 at least): the node's own certificate, or the one
   of the settings; plain only where the settings say so (`http_plain`: a reverse proxy does TLS).
2. The address is bound before anything else is done, so that a port that is taken is an error of the start (FN-7801).
3. Signals are the daemon's: uvicorn's own handling of them is left out. What is still open at the end has `GRACE_S`.
4. Where the console is found stands in `run/http` while it runs.

>>> split("127.0.0.1:8080"), split("[::1]:0")
(('127.0.0.1', 8080), ('::1', 0))
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from fednode.crypto.errors import FednodeError
from fednode.node import files
from fednode.node.home import CHAIN, Home
from fednode.node.web.pictures import warm
from fednode.node.web.probes import is_loopback
from fednode.node.web.site import Site
from fednode.sync.errors import Refused, StoreError

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.engine import Engine

log = logging.getLogger("fednode.web")
PLACE = "http"
GRACE_S = 2
CONNECTIONS_MAX = 500
BACKLOG = 128
HEADER_BYTES_MAX = 16 * 1024
KEEP_ALIVE_S = 10
TEND_S = 600.0


def split(address: str) -> tuple[str, int]:
    """Host and port of an address of the settings."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def url_of(home: Home) -> str:
    """Where the console of a home is; "" where none runs."""
    try:
        return (home.run_dir / PLACE).read_text("utf-8").strip()
    except OSError:
        return ""


class _Uvicorn(uvicorn.Server):
    """Rule 3. `open`: set when it listens."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.open = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.open.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Server:
    """The console of one daemon."""

    def __init__(self, app: App, engine: Engine) -> None:
        self.app = app
        self.site = Site(app, engine)
        self.url = ""
        self._server: _Uvicorn | None = None
        self._task: asyncio.Task[None] | None = None
        self._tending: asyncio.Task[None] | None = None
        self._tls: ssl.SSLContext | None = None
        self._certificate: bytes = b""

    async def start(self) -> None:
        """Raises StoreError FN-7801 when the port is taken, FN-7802 for a certificate that cannot be read, Refused
        FN-2805."""
        host, port = split(self.app.config.http_listen)
        bound = _bind(host, port, self.app.config.http_listen)
        try:
            plain = is_loopback(host) or self.app.config.http_plain
            self._tls = None if plain and not self.app.config.http_certificate else self._context()
            self.site.tls = self._tls is not None
            self._server = _Uvicorn(self._config())
            self._task = asyncio.create_task(self._server.serve([bound]))
            self._tending = asyncio.create_task(self._tend())
            waiting = asyncio.create_task(self._server.open.wait())
            await asyncio.wait({waiting, self._task}, return_when=asyncio.FIRST_COMPLETED)
            if self._task.done():
                waiting.cancel()
                self._task.result()
        except BaseException:
            bound.close()
            raise
        port = int(bound.getsockname()[1])
        shown = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if self._tls else 'http'}://{shown}:{port}"
        files.jot(self.app.home.run_dir / PLACE, self.url.encode())
        log.info("console", extra={"url": self.url})

    def _config(self) -> uvicorn.Config:
        proxies = list(self.app.config.http_proxies)
        config = uvicorn.Config(
            self.site.asgi(),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=proxies or None,
            limit_concurrency=CONNECTIONS_MAX,
            backlog=BACKLOG,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=GRACE_S,
            h11_max_incomplete_event_size=HEADER_BYTES_MAX,
            ssl_context_factory=(lambda _config, _default: self._tls) if self._tls else None,  # type: ignore[arg-type,return-value]
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        return config

    # ------------------------------------------------------------ TLS

    def _files(self) -> tuple[Path, Path, bytes | None]:
        """Certificate, key, and the key's passphrase."""
        config, home = self.app.config, self.app.home
        if bool(config.http_certificate) != bool(config.http_key):
            raise Refused("FN-2805")
        if config.http_certificate:
            return Path(config.http_certificate).expanduser(), Path(config.http_key).expanduser(), None
        return home.path / CHAIN, home.keys_dir / "tls.pem", config.passphrase

    def _context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
        self._load(context)
        return context

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key, passphrase = self._files()
        try:
            read = certificate.read_bytes()
            context.load_cert_chain(certificate, key, password=passphrase or b"")
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError("FN-7802", path=str(certificate), key=str(key), reason=reason) from error
        if context is self._tls or self._tls is None:
            self._certificate = read

    async def _tend(self) -> None:
        """Now and then, while it runs; at first what the first page would wait for."""
        with contextlib.suppress(FednodeError):  # health.db may not be there yet
            await self.site.desk.ask(lambda _: warm(self.site))
        while True:
            await asyncio.sleep(TEND_S)
            await asyncio.to_thread(self.look)
            with contextlib.suppress(FednodeError):  # a full disk: the next time
                await self.site.desk.ask(self.site.sweep)

    def look(self) -> None:
        """A certificate that was renewed is shown from the next connection on. Not in the event loop."""
        if self._tls is None:
            return
        try:
            if self._files()[0].read_bytes() != self._certificate:
                self._context()  # a certificate whose key has not come yet would spoil the one that is served
                self._load(self._tls)
        except (OSError, StoreError) as error:
            log.error("the console's certificate", extra={"reason": str(error)})

    # ------------------------------------------------------------ the end

    async def stop(self) -> None:
        """No new connections; those that are open have a moment."""
        with contextlib.suppress(OSError):
            (self.app.home.run_dir / PLACE).unlink()
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        if self._server is not None and self._task is not None:
            self.site.live.end()
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)
        await asyncio.to_thread(self.site.close)


def _bind(host: str, port: int, address: str) -> socket.socket:
    """A socket that is bound, and listens once uvicorn has it. Raises StoreError FN-7801."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise StoreError("FN-7801", address=address, reason=error.strerror or str(error)) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(place)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        raise StoreError("FN-7801", address=address, reason=error.strerror or str(error)) from error
    bound.setblocking(False)
    return bound
