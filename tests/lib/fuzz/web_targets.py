"""The web console as a target: bytes as they come from a browser's socket, through the very HTTP server, routing, pages
and threads that a daemon has; only the socket is a transport in memory. A province that has a few records, one
administrator who is signed in.

`@S` in an input is the session's cookie, `@T` the form token that goes with it and with the form cookie `f`, so that
what is altered gets past the door.

>>> [one.name for one in TARGETS]
['web']
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from crash.lab import in_memory
from fednode.crypto.suite import SUITE_1
from fednode.node.app import App
from fednode.node.engine import Engine
from fednode.node.web.accounts import Accounts
from fednode.node.web.server import Server
from fuzz.target import TEXT, Target, codes, law
from sticks import Row, write

NAME, PASSWORD = "alice", "correct horse 电池 staple"
ANSWER_S, WAIT_S = 0.3, 30.0
ANSWER = re.compile(rb"HTTP/1\.1 ([0-9]{3}) ")
MARK = b"<x9"  # what a page must never give back as it came


class _Transport(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 80)})
        self.written = bytearray()
        self.closed = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class Console:
    """One node's, without a port."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fednode-fuzz-", dir=in_memory()))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        logging.getLogger("fednode.web").setLevel(logging.CRITICAL)
        row = Row(self.folder, depth=1)
        write(row.apps[0], "k1", "k2")
        row.apps[1].close()
        self.app: App = row.apps[0]
        self.app.records().projector.catch_up()
        self.loop = asyncio.new_event_loop()
        self.engine, self.server = self.loop.run_until_complete(self._made())
        threading._register_atexit(self._end)  # type: ignore[attr-defined]  # before the threads are waited for
        self.accounts = Accounts.open(self.app.home.path)
        self.accounts.add(NAME, "administrator", PASSWORD, self.app.clock())
        self.session = ""
        self.config = self.server._config()
        self.config.load()
        logging.getLogger("uvicorn").setLevel(logging.CRITICAL)

    async def _made(self) -> tuple[Engine, Server]:
        engine = Engine(self.app)
        return engine, Server(self.app, engine)

    def _end(self) -> None:
        self.server.site.close()
        self.engine.close()

    def sign_in(self) -> None:
        """Unless somebody is: a request may have signed the administrator out, or taken the account away."""
        now_ms, site = self.app.clock(), self.server.site
        if self.session and self.accounts.session(self.session, now_ms, site.idle_ms, site.whole_ms) is not None:
            return
        self.accounts.disable(NAME, disabled=False)
        self.accounts.set_role(NAME, "administrator")
        self.session = self.accounts.begin(NAME, self.app.rng, now_ms, "127.0.0.1")

    def ask(self, data: bytes) -> bytes:
        """What comes back to these bytes on a connection of its own."""
        if not data:
            return b""  # no socket hands nothing on
        self.sign_in()
        token = SUITE_1.hash(f"fednode console form v1\n{self.session}\nf".encode()).hex()
        data = data.replace(b"@S", self.session.encode()).replace(b"@T", token.encode())
        return self.loop.run_until_complete(self._on_a_connection(data))

    async def _on_a_connection(self, data: bytes) -> bytes:
        state, transport = ServerState(), _Transport()
        protocol = H11Protocol(self.config, state, {}, self.loop)
        protocol.connection_made(transport)
        protocol.data_received(data)
        if protocol.cycle is not None and protocol.cycle.more_body:
            protocol.connection_lost(None)  # it promised more than it sent
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=ANSWER_S)
        protocol.connection_lost(None)  # who is told of changes as they come is told until he goes
        if state.tasks:
            await asyncio.wait(set(state.tasks), timeout=WAIT_S)
        law(not state.tasks, "a request goes on when whoever asked has gone")
        protocol._unset_keepalive_if_required()
        return bytes(transport.written)


@cache
def _console() -> Console:
    return Console()


def _web(data: bytes) -> None:
    answer = _console().ask(data)
    for status in ANSWER.findall(answer):
        law(status not in (b"500", b"501", b"502"), f"{status.decode()} is a fault of the program")
    head, _, body = answer.partition(b"\r\n\r\n")
    html = b"text/html" in head
    law(not html or MARK not in body, "what somebody typed came back as markup")
    law(MARK not in head, "what somebody typed is a header")


def _request(path: str, *headers: str, form: str | None = None) -> bytes:
    lines = ["Host: a", "Cookie: fednode-session=@S; fednode-form=f; fednode-lang=zh", *headers]
    if form is None:
        return "\r\n".join([f"GET {path} HTTP/1.1", *lines, "", ""]).encode()
    body = f"form_token=@T&{form}"
    size = len(body) - 2 + 64
    lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {size}"]
    return "\r\n".join([f"POST {path} HTTP/1.1", *lines, "", body]).encode()


def _requests() -> Iterator[bytes]:
    for path in ("/mesh?q=%3Cx9%3E&state=ok", "/mesh.csv?level=city", "/mesh/1301", "/data/mesh/layout",
                 "/data/mesh/states?at=1", "/data/mesh/changes?after=x", "/coverage?dataset=admin-licence",
                 "/coverage.csv?level=city", "/coverage.xlsx", "/exchanges?peer=1301&hours=5", "/conflicts?json",
                 "/data/exchanges?from=2026-01-01&to=2026-02-01", "/node?json", "/alerts?state=%3Cx9%3E&json",
                 "/audit?action=x&since=2026-01-01&cursor=17-3", "/audit.csv?until=2026-01-01T10:00:00%2B08:00",
                 "/users", "/signin?back=%2Fmesh%3Fq%3D%3Cx9%3E", "/session", "/metrics", "/healthz", "/static/a.js",
                 "/preferences?lang=en&theme=dark&back=//x", "/live?at=1", "/nowhere/%3Cx9%3E"):  # fmt: skip
        yield _request(path)
    yield _request("/node", "Accept: application/json", "Accept-Language: zh;q=0.1,en", "X-Fednode-Live: 1")
    yield _request("/signin", "Origin: http://a", form="name=%3Cx9%3E&password=x&back=%2Fmesh")
    yield _request("/users/add", form="name=bob&role=viewer&password=correct+horse+staple+1&again=x")
    yield _request("/users/role", form="name=bob&role=auditor")
    yield _request("/users/disable", "Sec-Fetch-Site: same-origin", form="name=%3Cx9%3E")
    yield _request("/alerts/ack", form="key=a%2Fb&note=%3Cx9%3E")
    yield _request("/alerts/silence", form="rule=offline&node=1301&until=2h&note=x")
    yield b"POST /signout HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab=cd\r\n0\r\n\r\n"


TARGETS = (Target("web", _web, codes(""), _requests, TEXT),)
