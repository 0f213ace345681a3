"""A session over a stream of bytes: whatever happens to one of its parts, it ends, and says why."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from fednode.crypto.errors import IntegrityError
from fednode.node.driver import Hooks, Session, Welcome
from fednode.node.profile import NORMAL
from fednode.node.writer import Link
from fednode.sync import wire
from fednode.sync.effects import Admission, Close
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

    async def call(self, _function: Callable[..., Any]) -> None:
        await asyncio.sleep(0)


def welcome(again: Callable[..., Any] = lambda *_: [], feed: Callable[..., Any] = lambda *_: ([], True)) -> Welcome:
    link = Link(CHILD, 1, bytes(16), False, 0)
    return Welcome(link, Admission(0, (), hello("13")), feed, again)


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
