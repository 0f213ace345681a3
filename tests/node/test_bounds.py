"""What a peer may cause in an hour, or in a session, has an end: certificates, lines of the log."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import issuing
from fednode.node import carrier
from fednode.node.app import App
from fednode.node.carrier import ENROL_CONNECTIONS_MAX
from fednode.node.daemon import Daemon
from fednode.node.driver import Session
from fednode.node.engine import ENOUGH, RENEWALS_MAX, Engine
from fednode.node.journal import SUBJECTS_MAX, TEXT_BYTES_MAX, WINDOW_MS
from fednode.node.link import Alarm, Link
from fednode.proto import fednode_pb2 as pb
from fednode.sync import effects as fx
from fednode.sync.change import NODES
from fednode.sync.enrol import Token
from fednode.sync.exchange import Exchange
from mesh import configuration
from world import Clock, World

CITY = "1301"
KEYS = World().places[CITY].keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> Iterator[App]:
    """A province, and a city that has joined it."""
    made = App.init_province(tmp_path / "13", configuration(), node="13", name="x", domain="hebei", clock=clock)
    secret = Token.decode(made.invite(CITY, "city", "x")).secret
    reply = made.enrol(made.new_writer(made.store), pb.JoinRequest(node=CITY, secret=secret, request=request()))
    assert not reply.refused
    yield made
    made.close()


def request() -> bytes:
    return issuing.make_request(CITY, KEYS.tls, KEYS.sign, KEYS.seal)


class Line:
    """What the engine asks of a session that wants a certificate."""

    def __init__(self, app: App) -> None:
        self.peer: Any = app.trust.directory.get(CITY)
        self.link = Link(self.peer, 1, bytes(16), False, 0, restoring=True)
        self.exchange = self
        self.answers: list[str] = []

    def answer_renewal(self, _chain: tuple[bytes, ...], refused: str, _now_ms: int) -> list[fx.Effect]:
        self.answers.append(refused)
        return []

    def _handle(self, _effects: list[fx.Effect]) -> None: ...


@pytest.mark.parametrize("lives", [False, True], ids=["certificates", "lives"])
async def test_regression_certificates_of_one_child_in_an_hour(app: App, clock: Clock, lives: bool) -> None:
    """Each was a change of `sys.nodes`, which flows to everybody, and a child could ask for any number; for new lives,
    too, so each with another incarnation."""
    engine, line = Engine(app), Line(app)

    async def ask() -> None:
        life = app.trust.directory.get(CITY).incarnation if lives else 0  # type: ignore[union-attr]
        await engine._renew(line, fx.RenewAsked(request(), life))  # type: ignore[arg-type]

    def certified() -> int:
        return app.store.log_state(app.trust.log_name(NODES, app.trust.area)).size

    before = certified()
    for _ in range(RENEWALS_MAX + 5):
        await ask()
    assert line.answers == [""] * RENEWALS_MAX + [ENOUGH] * 5
    assert certified() == before + RENEWALS_MAX
    clock.ms += WINDOW_MS
    await ask()
    assert line.answers[-1] == "", "an hour later it may again"
    await engine.stop()


async def test_regression_lines_of_the_log_that_anybody_can_cause(
    app: App, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """Who asks to join had a line of up to 64 KiB written each time, without a certificate or a token."""
    caplog.set_level(logging.WARNING)
    daemon = Daemon(app)
    for number in range(SUBJECTS_MAX + 5):
        reply = await daemon._join(pb.JoinRequest(node=f"{number}" * 10_000, secret=b"x", request=request()))
        assert reply.refused
    lines = [one for one in caplog.records if one.message == "join refused"]
    assert len(lines) == SUBJECTS_MAX
    assert max(len(one.node) for one in lines) == TEXT_BYTES_MAX  # type: ignore[attr-defined]
    await daemon.engine.stop()
    daemon.projector.stop()


async def test_regression_lines_of_the_log_that_a_child_can_cause(app: App, caplog: pytest.LogCaptureFixture) -> None:
    """Each Missing, of 30 bytes and without credit, was a line; so was each other history, however often it came."""
    caplog.set_level(logging.WARNING)
    engine: Any = Engine(app)
    session = Session(
        engine, Exchange(dials=False), engine.writer, engine.store, app.now_ms, engine.admit_child, engine
    )
    for number in range(SUBJECTS_MAX + 5):
        engine.effect(session, fx.Alert("FN-6412", {"log": "x", "first": number}))
    assert len(caplog.records) == SUBJECTS_MAX
    caplog.clear()
    fork = Alarm("FN-6420", CITY, {"log": "x"}, ("a", "b"))
    writer = app.new_writer(app.store)
    engine._alarmed(writer, [fork] * 3)
    assert len(caplog.records) == 1
    engine._journal = None
    await engine.stop()


async def test_regression_what_a_port_shows_is_replaced_only_where_it_is_another(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The enrolment port was given a new TLS configuration at each connection, and the other at its first: gRPC swaps
    it while other handshakes may be reading it. Some hundred who asked to join ended the process (SIGSEGV). Where it is
    another one, whoever was answered before has read it first."""
    asked: list[Any] = []
    real = carrier.grpc.dynamic_ssl_server_credentials

    def recorded(first: Any, fetch: Any, **more: Any) -> Any:
        asked.append(fetch)
        return real(first, fetch, **more)

    async def never(*_: Any) -> Any:
        raise NotImplementedError

    monkeypatch.setattr(carrier.grpc, "dynamic_ssl_server_credentials", recorded)
    now = [app.credentials()]
    waited: list[float] = []
    server = carrier.Server(lambda: now[0], waited.append)
    await server.start("127.0.0.1:0", "127.0.0.1:0", never, never, never, never, never, never)
    try:
        assert [fetch() for fetch in asked * 3] == [None] * 6
        assert waited == []
        now[0] = replace(now[0], issuers=now[0].root)
        assert all(fetch() is not None for fetch in asked)
        assert waited == [carrier.SWAP_S] * 2
        assert [fetch() for fetch in asked * 3] == [None] * 6
        assert len(waited) == 2
    finally:
        await server.stop(0)


def test_regression_as_many_calls_may_wait_for_the_loop_as_may_be_served() -> None:
    """From 1,000 on gRPC threw them away by chance: 5,000 children who dialled at once heard CANCELLED 7,000 times, and
    not when to come again."""
    options = dict(carrier._EXCHANGE_SERVER)
    for name in ("grpc.server.max_pending_requests", "grpc.server.max_pending_requests_hard_limit"):
        assert options[name] == carrier.SESSIONS_MAX


async def test_no_more_connections_to_the_enrolment_port_are_open_than_that(app: App) -> None:
    """Whoever opens them, and whatever is done on them: each costs some 100 kB."""

    async def never(*_: Any) -> Any:
        raise NotImplementedError

    server = carrier.Server(app.credentials)
    await server.start("127.0.0.1:0", "127.0.0.1:0", *(never,) * 6)
    opened = [await asyncio.open_connection("127.0.0.1", server.enrol_port) for _ in range(ENROL_CONNECTIONS_MAX + 1)]
    try:
        ends = [asyncio.ensure_future(reader.read()) for reader, _ in opened]
        done, open_still = await asyncio.wait(ends, timeout=60, return_when=asyncio.FIRST_COMPLETED)
        assert len(done) == 1, "one too many is hung up on at once, before a handshake"
        assert len(open_still) == ENROL_CONNECTIONS_MAX
    finally:
        for _, writer in opened:
            writer.transport.abort()
        await asyncio.gather(*ends, return_exceptions=True)
        await server.stop(0)
