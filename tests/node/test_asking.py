"""`fednode sync` beside a daemon, in the session that it has open: real daemons, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fednode.node import asking, engine, syncing
from fednode.node.cli import invoke
from fednode.node.driver import REFUSED_MAX, Report, Session
from fednode.sync.change import NODES, Change
from fednode.sync.effects import Done
from fednode.sync.errors import Unavailable
from mesh import Mesh, Running
from ports import free_port
from shaper import Line, Shaper
from standbys import county_with_villages, standby_of, write_some

NOTHING_BYTES_MAX = 3_000


@dataclass
class Place:
    """A province and a city whose daemon has a session open with it, over a line that counts."""

    mesh: Mesh
    province: Running
    city: Running
    line: Shaper
    dialled: list[Session] = field(default_factory=list)  # every session with a parent, a command's own among them
    before: int = 0

    @property
    def new(self) -> int:
        """Sessions since it was quiet."""
        return len(self.dialled) - self.before

    @property
    def bytes(self) -> int:
        return self.line.bytes_up + self.line.bytes_down

    async def quiet(self) -> None:
        """Until the daemon's session is open and has nothing to say."""
        await self.mesh.until(lambda: bool(self.dialled) and self.dialled[-1].exchange.quiet)
        await self.mesh.until(lambda: self.city.app.trust.catalog_version == 1 and self.city.pending() == 0)
        await self.mesh.until(lambda: self.dialled[-1].exchange.quiet)
        self.before = len(self.dialled)

    def all_acked(self) -> bool:
        """What the audit says, too."""
        store = self.city.app.store
        peer = store.peer("13")
        return peer is not None and store.backlog_up(peer.acked).segments == 0

    def save(self, key: str) -> None:
        """At the city, by a process that tells nobody."""
        writer = self.city.app.new_writer()
        writer.local("admin-licence", self.city.app.trust.area, [Change(key.encode(), b'{"name":"x"}')])
        writer.store.close()

    def in_tables(self) -> set[str]:
        """Keys of records in the city's state.db, as it is."""
        projector = self.city.app.new_projector()
        try:
            return {key for (key,) in projector.connection.execute("select key from record where op = 1")}
        finally:
            projector.close()
            projector.store.close()

    def command(self, *words: str) -> int:
        """A command at the city, for another thread. Its exit code."""
        environ = {"LANG": "C.UTF-8", "FEDNODE_PARENT_ADDRESSES": f"127.0.0.1:{self.line.port}"}
        return invoke(["--home", str(self.city.app.home.path), "--json", *words], environ)


@pytest.fixture
async def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    dialled: list[Session] = []
    plain = engine.Engine.admitted

    def admitted(self: engine.Engine, session: Session, owed: int) -> None:
        plain(self, session, owed)
        if session.exchange.dials:
            dialled.append(session)

    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        await mesh.halt(city)
        monkeypatch.setattr(engine.Engine, "admitted", admitted)
        host, _, port = province.app.config.listen.partition(":")
        async with Shaper(host, int(port), Line()) as line:
            object.__setattr__(city.app.config, "parent_addresses", (f"127.0.0.1:{line.port}",))
            found = Place(mesh, province, city, line, dialled)
            await mesh.run(city)
            await found.quiet()
            yield found
            await mesh.halt(city)


def when_sounded(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Do something at the moment when a session is asked for an exchange."""
    plain = Session.sound

    def sound(self: Session, log: str) -> int:
        do()
        return plain(self, log)

    monkeypatch.setattr(Session, "sound", sound)


def when_asked(monkeypatch: pytest.MonkeyPatch, do: Callable[[], None]) -> None:
    """Do something at the moment when the daemon is asked: it has not looked at the store by itself meanwhile."""
    plain = asking.Listener._session

    def session(self: asking.Listener, addresses: Sequence[str]) -> Session | None:
        do()
        return plain(self, addresses)

    monkeypatch.setattr(asking.Listener, "_session", session)


# ---------------------------------------------------------------- in the daemon's session


async def test_what_moves_both_ways(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    when_asked(monkeypatch, lambda: place.save("up"))
    when_sounded(monkeypatch, lambda: place.province.write("down", {"name": "乙"}, area="1301"))
    report = await syncing.sync_now(place.city.app)
    assert (report.over, place.new, report.pending, report.refused) == ("daemon", 0, 0, [])
    assert (report.parent, report.address) == ("13", f"127.0.0.1:{place.line.port}")
    assert report.sent >= 1 <= report.acked
    assert report.received >= 1
    assert report.applied >= 1
    assert {"up", "down"} <= place.in_tables()
    await place.mesh.until(lambda: {"up", "down"} <= set(place.province.records()))


async def test_nothing_to_say_costs_a_few_bytes_and_no_connection(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    """Was: 9.9 kB and four round trips, for it dialled beside the daemon's session."""
    before, connections = place.bytes, place.line.connections
    report = await syncing.sync_now(place.city.app)
    assert (report.over, report.sent, report.acked, report.received, report.applied) == ("daemon", 0, 0, 0, 0)
    assert 0 < report.bytes_sent < 200
    assert 0 < report.bytes_received < 200
    assert place.bytes - before < 1_000
    code = await asyncio.to_thread(place.command, "sync")
    shown = json.loads(capsys.readouterr().out)["sync"]
    assert (code, shown["over"], shown["pending"], shown["fenced"], shown["refused"]) == (0, "daemon", 0, None, [])
    await place.mesh.until(lambda: place.all_acked() and place.dialled[-1].exchange.quiet)
    assert place.bytes - before < NOTHING_BYTES_MAX, "with what the audit says of it"
    assert (place.line.connections, place.new) == (connections, 0)


async def test_what_the_parent_refuses_is_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    payload = b'{"kind":"revoke","node":"1302","incarnation":1,"at_ms":1,"reason":"coup"}'
    app = place.city.app
    app.trust.directory.check = lambda *_: None  # type: ignore[method-assign]  # the city's program was altered

    def write() -> None:
        writer = app.new_writer()
        writer.local(NODES, app.trust.area, [Change(b"revoked/1302", payload)])
        writer.store.close()

    with monkeypatch.context() as patched:
        when_asked(patched, write)
        report = await syncing.sync_now(app)
    assert (report.over, report.pending, report.refused) == ("daemon", 0, [("peer", "FN-5431")])
    assert (await syncing.sync_now(app)).refused == [], "once"


async def test_what_is_not_acknowledged_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The parent has answered the sounding, and takes its time with the rest."""
    held: list[Callable[[], None]] = []
    answer, until = Session.answer, engine.Engine.until
    looks = 0

    def hold(self: Session, reports: Sequence[Done]) -> None:
        (answer(self, reports) if self.exchange.dials else held.append(lambda: answer(self, reports)))

    async def looked(self: engine.Engine, holds: Callable[[], bool], seconds: float) -> bool:
        nonlocal looks
        looks += bool(held) and place.dialled[0].exchange.echoed(1)
        while looks >= 3 and held:
            held.pop(0)()
        return await until(self, holds, seconds)

    monkeypatch.setattr(Session, "answer", hold)
    monkeypatch.setattr(engine.Engine, "until", looked)
    monkeypatch.setattr(asking, "LOOK_S", 0.05)
    when_asked(monkeypatch, lambda: place.save("k"))
    report = await syncing.sync_now(place.city.app)
    assert (report.over, report.pending, looks >= 3) == ("daemon", 0, True)


async def test_two_at_once_are_both_answered(place: Place) -> None:
    place.save("k")
    one, other = await asyncio.gather(syncing.sync_now(place.city.app), syncing.sync_now(place.city.app))
    assert (one.over, other.over, one.pending, other.pending) == ("daemon", "daemon", 0, 0)
    assert place.new == 0
    assert "k" in place.in_tables()


async def test_a_session_under_a_limit_will_do(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        city = await mesh.child(await mesh.found(), "1301", "city", sync_limit="240k")
        await mesh.until(lambda: city.app.trust.catalog_version == 1 and city.pending() == 0)
        city.write("k", {"name": "x"})
        report = await syncing.sync_now(city.app)
        assert (report.over, report.pending) == ("daemon", 0)


async def test_a_standby_asks_its_primary(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        _, county, _ = await county_with_villages(mesh)
        standby = await standby_of(mesh, county)
        await mesh.until(lambda: standby.app.trust.catalog_version == 1)
        write_some(county, 3, 1)
        while (report := await syncing.sync_now(standby.app)).over != "daemon":
            pass  # its session is not open yet: each of these is an exchange
        assert report.parent == "130102"
        assert standby.records() == county.records() != {}


async def test_a_certificate_that_is_due_is_renewed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the daemon's session: the command goes on by itself."""
    old = place.city.app.trust.me.der
    monkeypatch.setattr(engine, "renewal_due", lambda me, _now_s: me.der == old)
    report = await syncing.sync_now(place.city.app)
    assert place.city.app.trust.me.der != old
    assert (report.over, report.pending) == ("own", 0)


# ---------------------------------------------------------------- by itself


async def test_a_session_that_is_cut_meanwhile(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command dials; where that is in vain, nothing is lost, and it says so."""
    when_sounded(monkeypatch, place.line.cut)
    place.save("a")
    report = await syncing.sync_now(place.city.app)
    assert (report.over, report.pending) == ("own", 0)
    await place.quiet()
    target = place.line.target

    def away() -> None:
        place.line.target = ("127.0.0.1", free_port())
        place.line.cut()
        place.save("b")

    when_sounded(monkeypatch, away)
    with pytest.raises(Unavailable):
        await syncing.sync_now(place.city.app)
    assert place.city.pending() == 1
    code = await asyncio.to_thread(place.command, "sync")
    assert code == 4
    place.line.target = target
    await place.mesh.until(lambda: {"a", "b"} <= set(place.province.records()))


async def test_a_line_that_is_silent_is_not_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NAT forgot it; the daemon has not noticed yet."""
    monkeypatch.setattr(asking, "SILENT_MS_MAX", 50)
    monkeypatch.setattr(asking, "LOOK_S", 0.05)
    place.line.forget()
    assert (await syncing.sync_now(place.city.app)).over == "own", "though nothing waits to go up"
    place.line.forget()
    place.save("k")
    report = await syncing.sync_now(place.city.app)
    assert (report.over, report.pending) == ("own", 0)
    await place.mesh.until(lambda: "k" in place.province.records())


async def test_a_session_in_which_nothing_moves_is_not_waited_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "STILL_S", 0.1)
    monkeypatch.setattr(asking, "LOOK_S", 0.05)
    monkeypatch.setattr(type(place.dialled[-1].exchange), "heard_out", False)
    report = await syncing.sync_now(place.city.app)
    assert (report.over, report.pending) == ("own", 0)


async def test_options_are_for_a_session_of_the_commands_own(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for more in (("--up",), ("--down",), ("--up", "--down"), ("--limit", "0")):
        code = await asyncio.to_thread(place.command, "sync", *more)
        assert (code, json.loads(capsys.readouterr().out)["sync"]["over"]) == (0, "own")
    assert place.new == 4


async def test_an_address_that_the_daemon_did_not_dial(place: Place) -> None:
    answer = await asking.ask(place.city.app.home.run_dir, ("192.0.2.1:7443",))
    assert answer is not None
    assert answer.outcome == asking.NOT_HERE


async def test_no_room_and_a_fence_are_told_by_a_session_of_its_own(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(type(place.city.app.room), "low", True)
        assert (await syncing.sync_now(place.city.app)).over == "own"
    with monkeypatch.context() as patched:
        patched.setattr(asking, "fence", SimpleNamespace(standing=lambda _store: object()))
        assert (await syncing.sync_now(place.city.app)).over == "own"


async def test_a_daemon_that_stops_and_no_daemon(place: Place) -> None:
    """Its socket goes with it."""
    path = place.city.app.home.run_dir / asking.NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await place.mesh.halt(place.city)
    assert not path.exists()
    place.save("k")
    report = await syncing.sync_now(place.city.app)
    assert (report.over, report.pending) == ("own", 0)
    assert "k" in place.province.records()


async def test_a_daemon_without_a_session(tmp_path: Path) -> None:
    """Outside its windows."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city", sync_windows=("02:00-02:01",), sync_zone="+08:00")
        object.__setattr__(city.app.config, "sync_windows", ("02:00-02:01",))
        report = await syncing.sync_now(city.app)
        assert (report.over, report.pending, city.app.trust.catalog_version) == ("own", 0, 1)


async def test_a_home_with_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    async with Mesh(tmp_path / ("x" * 100)) as mesh:
        mesh.folder.mkdir()
        city = await mesh.child(await mesh.found(), "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        assert (await syncing.sync_now(city.app)).over == "own"


# ---------------------------------------------------------------- bad askers


async def opened(place: Place, say: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    reader, writer = await asyncio.open_unix_connection(str(place.city.app.home.run_dir / asking.NAME))
    writer.write(say)
    return reader, writer


@pytest.mark.parametrize(
    "say",
    [
        *(b"", b"\n", b"\xff\xfe\n", b"{}\n", b'{"addresses": 7}\n', b"[" * 10_000 + b"\n"),
        *(b"x" * (asking.ASK_BYTES_MAX + 1), b'{"addresses": [], "addre'),
    ],
)
async def test_garbage_and_silence_do_no_harm(place: Place, monkeypatch: pytest.MonkeyPatch, say: bytes) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(asking, "ASK_S", 0.1)
        reader, writer = await opened(place, say)
        assert await reader.read() == b"", "the daemon hangs up"
        writer.close()
    assert (await syncing.sync_now(place.city.app)).over == "daemon"


async def test_no_more_askers_than_there_may_be(place: Place) -> None:
    held = [await opened(place) for _ in range(asking.ASKERS_MAX)]
    assert (await syncing.sync_now(place.city.app)).over == "own"
    for _, writer in held:
        writer.close()
    await asyncio.gather(*(reader.read() for reader, _ in held))
    await place.quiet()
    assert (await syncing.sync_now(place.city.app)).over == "daemon"


async def test_who_hangs_up_is_not_worked_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, over = asyncio.Event(), asyncio.Event()
    plain = asking.Listener._met

    async def met(self: asking.Listener, *given: Any) -> str:
        begun.set()
        try:
            return await plain(self, *given)
        finally:
            over.set()

    monkeypatch.setattr(asking.Listener, "_met", met)
    place.line.forget()
    _, writer = await opened(place, b'{"addresses": ["127.0.0.1:%d"]}\n' % place.line.port)
    await begun.wait()
    writer.close()
    await asyncio.wait_for(over.wait(), 60)


async def test_soundings_without_an_answer_are_not_heaped_up(place: Place) -> None:
    place.line.forget()
    session = place.dialled[-1]
    while session.sound("hebei/1301/1/sys.audit"):
        pass
    answer = await asking.ask(place.city.app.home.run_dir, (f"127.0.0.1:{place.line.port}",))
    assert answer == asking.Answer(asking.NOT_HERE, asking.SyncReport())


# ---------------------------------------------------------------- bad daemons


Answering = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def says(data: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readline()
    writer.write(data)
    with contextlib.suppress(ConnectionError):
        await writer.drain()
        await reader.read()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        b"\xff\n",
        b"{}x\n",
        b'{"outcome": 3}\n',
        b'{"outcome": "done"}\n',
        b"[]\n",
        b"x" * (asking.ANSWER_BYTES_MAX + 1),
        b'{"outc',
    ],
)
async def test_a_daemon_that_talks_garbage_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes
) -> None:
    monkeypatch.setattr(asking, "HEARD_S", 0.1)
    served = asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await says(data, reader, writer)
        writer.close()
        served.set()

    server = await asyncio.start_unix_server(answer, str(tmp_path / asking.NAME))
    assert await asking.ask(tmp_path, ()) is None
    await served.wait()
    server.close()


async def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    """Left by a daemon that was killed."""
    left = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    left.bind(str(tmp_path / asking.NAME))
    left.close()
    assert await asking.ask(tmp_path, ()) is None


def test_what_was_refused_since() -> None:
    """Of a session that has refused more than is named."""
    report = Report()
    for number in range(REFUSED_MAX + 5):
        report.refuse("peer", f"FN-{number}")
    then = Report(refusals=report.refusals)
    assert report.since(then).refused == []
    report.refuse("us", "FN-1")
    assert report.since(then).refused == [("us", "FN-1")]
    assert (len(report.refused), report.since(Report()).refusals) == (REFUSED_MAX, REFUSED_MAX + 6)
