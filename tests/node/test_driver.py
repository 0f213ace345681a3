"""A session over a stream of bytes: whatever happens to one of its parts, it ends, and says why."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fednode.crypto.errors import IntegrityError
from fednode.node import writer_thread
from fednode.node.driver import OUT_BYTES_MAX, REFUSED_AT_ONCE, REFUSED_MAX, STORING_MAX, Session, Welcome
from fednode.node.hooks import Hooks
from fednode.node.link import Link
from fednode.node.profile import NORMAL
from fednode.node.shares import Shares
from fednode.node.writer_thread import WriterThread
from fednode.sync import wire
from fednode.sync.effects import Admission, Close, Commit, Done, Effect, PeerFenced, RenewAsked
from fednode.sync.errors import Unavailable
from fednode.sync.exchange import Exchange
from sides import NOW, hello, item
from world import World

CHILD = World().identity("1301")


class Pipe:
    """A stream that the test holds the other end of: a child that greets, and says more once it was greeted."""

    def __init__(self, *then: wire.Message) -> None:
        self.incoming: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.sent: list[wire.Message] = []
        self.idle = asyncio.Event()
        self._number, self._then = 0, then
        self.says(hello("1301"))

    async def read(self) -> bytes | None:
        return await self.incoming.get()

    async def write(self, data: bytes) -> None:
        self.sent.append(wire.decode(data)[1])
        if isinstance(self.sent[-1], wire.Hello):
            self.says(*self._then)
        if isinstance(last := self.sent[-1], wire.Idle) or (isinstance(last, wire.Chunk) and last.idle):
            self.idle.set()

    def says(self, *messages: wire.Message) -> None:
        """The peer sends these."""
        for message in messages:
            self._number += 1
            self.incoming.put_nowait(wire.encode(self._number, message))


class Paper:
    """The writer thread and the store of a node where nothing is kept."""

    profile = NORMAL

    def partial(self, _node: str) -> None:
        return None

    async def call(self, _function: Callable[..., Any], _lane: str = "") -> None:
        await asyncio.sleep(0)


def welcome(
    again: Callable[..., Any] = lambda *_: [], feed: Callable[..., Any] = lambda *_: ([], True), start: int = 0
) -> Welcome:
    link = Link(CHILD, 1, bytes(16), False, 0)
    return Welcome(link, Admission(start, (), hello("13")), feed, again)


def session(pipe: Pipe, admit: Callable[[wire.Hello], Awaitable[Welcome]], hooks: Hooks | None = None) -> Session:
    """A parent's side."""
    paper: Any = Paper()
    return Session(pipe, Exchange(dials=False), paper, paper, lambda: NOW, admit, hooks or Hooks())


def at_once(given: Welcome) -> Callable[[wire.Hello], Awaitable[Welcome]]:
    async def admit(_hello: wire.Hello) -> Welcome:
        await asyncio.sleep(0)
        return given

    return admit


async def end_of(one: Session) -> Close:
    return await asyncio.wait_for(one.run(), 60)


def fail(error: Exception) -> Callable[..., Any]:
    def raises(*_: Any) -> Any:
        raise error

    return raises


async def test_regression_a_damaged_segment_that_is_asked_for_again_ends_the_session() -> None:
    """It ended the task that read, and the session hung until its silence was noticed."""
    pipe = Pipe(wire.Want("hebei/13/1/x", 0))
    close = await end_of(session(pipe, at_once(welcome(again=fail(IntegrityError("FN-6601", lsn=1, path="p"))))))
    assert getattr(close.error, "code", "") == "FN-6601"
    assert isinstance(pipe.sent[-1], wire.Bye)
    assert pipe.sent[-1].code == "FN-6601"


@pytest.mark.parametrize("where", ["again", "admit", "hook"])
async def test_regression_a_bug_ends_the_session_at_once(where: str, caplog: pytest.LogCaptureFixture) -> None:
    pipe = Pipe(wire.Want("hebei/13/1/x", 0))
    broken = Hooks()
    if where == "hook":
        broken.admitted = fail(ZeroDivisionError())  # type: ignore[method-assign]
    admit = fail(ZeroDivisionError()) if where == "admit" else at_once(welcome(again=fail(ZeroDivisionError())))
    close = await end_of(session(pipe, admit, broken))
    assert isinstance(close.error, ZeroDivisionError)
    assert "session failed" in caplog.text


@pytest.mark.parametrize("way", ["bye", "cut"])
async def test_regression_a_peer_that_leaves_while_it_is_admitted(way: str, caplog: pytest.LogCaptureFixture) -> None:
    """`admitted` was called on an exchange that had ended: RuntimeError."""
    pipe, let_in = Pipe(), asyncio.Event()

    async def admit(_hello: wire.Hello) -> Welcome:
        await let_in.wait()
        return welcome()

    one = session(pipe, admit)
    if way == "bye":
        pipe.says(wire.Bye("FN-4501", "", 0))
    else:
        pipe.incoming.put_nowait(None)
    close = await end_of(one)
    assert isinstance(close.error, Unavailable)
    let_in.set()
    await asyncio.gather(*one._jobs)
    assert one.peer is None
    assert "session failed" not in caplog.text


async def test_a_feed_is_sent_and_a_polite_end_is_no_error() -> None:
    pipe = Pipe()
    one = session(pipe, at_once(welcome(feed=lambda after, _size: ([] if after else [item(1)], True))))
    running = asyncio.ensure_future(end_of(one))
    await pipe.idle.wait()
    pipe.says(wire.Bye())
    close = await running
    assert close.error is None
    assert [type(message) for message in pipe.sent] == [wire.Hello, wire.Chunk]


# ---------------------------------------------------------------- a peer that does not stop


class Stuck(Paper):
    """A writer that is busy until the test lets it go on."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Commit, Callable[[Done | Exception], None]]] = []
        self.calls: list[asyncio.Future[None]] = []

    def commit(self, _link: Link, commit: Commit, done: Callable[[Done | Exception], None]) -> None:
        self.waiting.append((commit, done))

    async def call(self, function: Callable[..., Any], _lane: str = "") -> None:
        if getattr(function, "__name__", "") != "keep":  # at the end of a session
            self.calls.append(asyncio.get_running_loop().create_future())
            await self.calls[-1]

    def go_on(self) -> None:
        waiting, self.waiting = self.waiting, []
        for commit, done in waiting:
            done(Done(commit.lsn))
        calls, self.calls = self.calls, []
        for one in calls:
            one.set_result(None)


MUCH = 3 * STORING_MAX
FLOODS: dict[str, Callable[[int], wire.Message]] = {
    "one byte": lambda n: wire.Chunk(n, 0, b"x", 1, hashlib.sha256(b"x").digest()),
    "acks": lambda n: wire.Ack((wire.Outcome(n, None, "FN-6406"),)),
    "fenced": lambda n: wire.Fenced("FN-6422", (f"note {n}",)),
    "renew": lambda n: wire.Renew(b"r%d" % n),
}


class Spawning(Hooks):
    """As the engine does: what is asked for is a job of the writer."""

    def effect(self, session: Session, effect: Effect) -> None:
        if isinstance(effect, PeerFenced | RenewAsked):

            def job(_writer: Any) -> None: ...

            session.spawn(session._writer.call(job))


async def turn(times: int = 4 * MUCH) -> None:
    """All that can go on without the test goes on."""
    for _ in range(times):
        await asyncio.sleep(0)


@pytest.mark.parametrize("kind", list(FLOODS))
async def test_regression_a_peer_is_read_no_faster_than_it_is_stored(kind: str) -> None:
    """Whatever costs it no credit, or hardly any, was queued for the writer as fast as it came, without a bound."""
    writer: Any = Stuck()
    pipe = Pipe(*(FLOODS[kind](number) for number in range(1, MUCH + 1)))
    one = Session(pipe, Exchange(dials=False), writer, writer, lambda: NOW, at_once(welcome(start=MUCH)), Spawning())
    running = asyncio.ensure_future(end_of(one))
    await turn()
    waiting = len(writer.waiting) + len(one._acks) + len(writer.calls)
    assert STORING_MAX // 2 < waiting <= STORING_MAX + 1
    assert pipe.incoming.qsize() > MUCH - 2 * STORING_MAX
    for _ in range(MUCH):
        if pipe.incoming.empty():
            break
        writer.go_on()
        await turn(50)
    assert pipe.incoming.empty(), "and goes on as soon as there is room"
    pipe.says(wire.Bye())
    while not running.done():
        writer.go_on()
        await asyncio.sleep(0)
    assert (await running).error is None
    assert len(one.report.refused) <= REFUSED_MAX


async def test_regression_an_end_that_waits_for_what_is_being_stored_leaves_the_loop_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It asked in each turn of the loop whether the acknowledgements were stored: with a writer that had much to do, a
    processor for each session that ended."""
    writer: Any = Stuck()
    asked, flush = [0], Session._flush_acks

    async def counted(one: Session) -> None:
        asked[0] += 1
        await flush(one)

    monkeypatch.setattr(Session, "_flush_acks", counted)
    pipe = Pipe(wire.Ack((wire.Outcome(1, None, "FN-6406"),)), wire.Bye())
    one = Session(pipe, Exchange(dials=False), writer, writer, lambda: NOW, at_once(welcome(start=1)), Hooks())
    running = asyncio.ensure_future(end_of(one))
    await turn(1_000)
    assert len(writer.calls) == 1
    assert not running.done(), "they are stored before it ends"
    assert asked[0] <= 3
    writer.go_on()
    assert (await running).error is None
    assert one.settled


async def test_regression_many_refusals_are_not_one_job_of_the_writer() -> None:
    """A hundred were, each of them an alert: others waited for a fifth of a second. What of the feed is held is said
    with the last of them, when all are stored."""
    sizes, uptos = list[int](), list[int]()

    class Counting(Paper):
        async def call(self, function: Any, _lane: str = "") -> None:
            await asyncio.sleep(0)
            if getattr(getattr(function, "func", None), "__name__", "") == "_acknowledge":
                sizes.append(len(function.args[1]))
                uptos.append(function.args[3])

    refusals = [wire.Outcome(n, None, "FN-6406") for n in range(1, 20)]
    kept = [wire.Outcome(n, None) for n in range(20, 60)]
    writer: Any = Counting()
    pipe = Pipe(wire.Ack((*refusals, *kept)), wire.Bye())
    one = Session(pipe, Exchange(dials=False), writer, writer, lambda: NOW, at_once(welcome(start=60)), Hooks())
    assert (await end_of(one)).error is None
    jobs = 19 // REFUSED_AT_ONCE  # the last refusals go with what is kept
    assert sizes == [*[REFUSED_AT_ONCE] * jobs, 59 - jobs * REFUSED_AT_ONCE]
    assert uptos[:-1] == [0] * jobs
    assert uptos[-1] > 0


async def test_regression_a_peer_that_reads_no_answers_is_not_read() -> None:
    """Each Want of 30 bytes for what is not there had an answer queued for a line that took nothing."""

    class Deaf(Pipe):
        takes = asyncio.Event()

        async def write(self, data: bytes) -> None:
            await super().write(data)
            await self.takes.wait()

    log = "hebei/130102001001/1/" + "x" * 200
    many = 3 * OUT_BYTES_MAX // 200
    pipe = Deaf()
    pipe.takes.set()
    one = session(pipe, at_once(welcome()))
    running = asyncio.ensure_future(end_of(one))
    await pipe.idle.wait()
    pipe.takes.clear()
    pipe.says(*(wire.Want(log, number) for number in range(many)))
    await turn(2 * many)
    assert one.crowded
    before = pipe.incoming.qsize()
    await turn(1_000)
    assert (pipe.incoming.qsize(), one.crowded) == (before, True)
    assert sum(map(len, list(one._out._queue))) < OUT_BYTES_MAX + 1_000  # type: ignore[attr-defined]
    pipe.takes.set()
    pipe.says(wire.Bye())
    assert (await running).error is None
    assert len([message for message in pipe.sent if isinstance(message, wire.Missing)]) == many


@pytest.mark.asyncio
async def test_regression_a_child_whose_messages_take_much_is_read_more_slowly() -> None:
    """Who sent the most had the most of the loop's time: with a hundred of them nothing was left for the others."""
    shares, beats = Shares(), 400
    # as if each message took long: the account is far over what one may have at once
    shares.spent(CHILD.node, 60, asyncio.get_running_loop().time())
    pipe, paper = Pipe(*(wire.Beat(NOW) for _ in range(beats))), Paper()
    any_paper: Any = paper
    parts = (pipe, Exchange(dials=False), any_paper, any_paper, lambda: NOW, at_once(welcome()), Hooks())
    slow = Session(*parts, shares=shares)
    slow.shown = CHILD.node
    running = asyncio.ensure_future(slow.run())
    await turn(4 * beats)
    assert pipe.incoming.qsize() >= beats - 2
    slow.end(None)
    assert (await asyncio.wait_for(running, 60)).error is None, "and is ended as ever"


# ---------------------------------------------------------------- the writer's thread


class Shelf:
    """A Writer whose store is a number."""

    profile = NORMAL

    def __init__(self) -> None:
        self.store, self.alarms, self.lsn, self.drawn = self, [], 7, 0

    def close(self) -> None: ...


@pytest.mark.asyncio
async def test_that_there_is_more_is_said_once_and_after_who_made_it_was_told() -> None:
    """By this thread's own count; where another has written, when that is seen."""
    shelf: Any = Shelf()
    said: list[str] = []
    thread = WriterThread(lambda: shelf, lambda: said.append("more"))

    def appends(_writer: Any) -> str:
        shelf.lsn, shelf.drawn = shelf.lsn + 1, shelf.drawn + 1
        return "done"

    def elsewhere(_writer: Any) -> None:
        shelf.lsn += 1

    async def after(function: Callable[[Any], Any]) -> list[str]:
        await thread.call(function)
        await thread.call(lambda _writer: None)  # what was seen after the first was posted before this is answered
        done, said[:] = list(said), []
        return done

    await after(lambda _writer: None)  # the first look
    assert await after(lambda _writer: None) == []
    assert await after(appends) == ["more"]
    assert await after(elsewhere) == ["more"]
    await asyncio.to_thread(thread.stop)
    assert said == []


@pytest.mark.asyncio
async def test_regression_one_that_fails_to_hear_keeps_it_from_no_other() -> None:
    heard: list[int] = []

    def deaf() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        writer_thread._all([lambda: heard.append(1), deaf, lambda: heard.append(2)])
    await turn(2)
    assert heard == [1, 2]
