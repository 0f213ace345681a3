"""The thread that writes: takes what waits for the Writer, and tells the event loop what became of it.

Rules
1. All commits that wait are one group: one transaction, one fsync, then the reports.
2. Whose it is that has had least of the thread's time comes first (`node.lanes`).
3. Who gave the jobs is told first, then that the store has grown, in one call of the loop; by this thread's own count,
   and where another has written, when that is seen.
4. Nothing ends it but `stop`: trouble in the store is told to whoever waits, and the next job is another try.

>>> # thread = WriterThread(app.new_writer, engine.moved); await thread.call(lambda writer: ...); thread.stop()
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from fednode.crypto.errors import FednodeError
from fednode.node.lanes import Lanes
from fednode.node.link import Alarm, Link
from fednode.node.tracing import OFF, Tracer
from fednode.node.writer import Writer
from fednode.sync import effects as fx

log = logging.getLogger("fednode.driver")
GROUP_COMMITS_MAX = 256
ANSWER_TURNS = 3  # of the event loop: a report comes in, it is answered, the answer is written


@dataclass(frozen=True, slots=True)
class _Call:
    """A function of the Writer, and for whom (`node.lanes`)."""

    lane: str
    function: Callable[[Writer], Any]
    future: asyncio.Future[Any]


class WriterThread:
    """Runs jobs on a Writer of its own. `make` is called in the thread. Jobs are grouped commits, or functions of the
    Writer. `on_alarms` is called in the thread, with what a job left in `Writer.alarms`."""

    def __init__(
        self,
        make: Callable[[], Writer],
        on_group: Callable[[], None],
        on_alarms: Callable[[Writer, list[Alarm]], None] = lambda writer, alarms: None,
        tracer: Tracer = OFF,
        doubted: Callable[[str], bool] = lambda lane: False,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._jobs = Lanes(self._loop.time, doubted)
        self._make, self._on_group, self._on_alarms = make, on_group, on_alarms
        self._tracer = tracer
        self._thread = threading.Thread(target=self._run, name="fednode-writer", daemon=True)
        self._thread.start()

    def commit(self, link: Link, commit: fx.Commit, done: Callable[[fx.Done | Exception], None]) -> None:
        """Store one incoming item; `done` is called in the event loop, after its group is durable."""
        self._jobs.put(link.peer.node, (link, commit, done))

    async def call(self, function: Callable[[Writer], Any], lane: str = "") -> Any:
        """Run a function of the Writer in its thread. `lane`: the peer for whom it is, after all else of that peer's
        (`node.lanes`)."""
        future: asyncio.Future[Any] = self._loop.create_future()
        self._jobs.put(lane, _Call(lane, function, future))
        return await future

    def busy(self) -> bool:
        """Whether anything waits to be stored, or is being stored, but for what is set aside."""
        return self._at_work or not self._jobs.empty

    def stop(self) -> None:
        """Finish what is queued, then end."""
        self._jobs.end()
        self._thread.join()

    def _post(self, function: Callable[..., Any], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
            self._loop.call_soon_threadsafe(function, *arguments)

    def _run(self) -> None:
        writer = self._open()
        if writer is None:
            return
        lsn = -1
        try:
            while (job := self._jobs.get()) is not None:
                self._at_work = True
                group, last = self._gather(job, writer.store.profile.group_bytes)
                before = writer.store.drawn
                if group:
                    began = self._loop.time()
                    self._tell(self._commit(writer, group), writer.store.drawn != before, self._after_answers)
                    self._charge([link.peer.node for link, _, _ in group], began)
                drawn = writer.store.drawn
                if last is not None:
                    began = self._loop.time()
                    self._tell([self._function(writer, last)], writer.store.drawn != drawn, self._on_group)
                    self._charge([last.lane], began)
                if writer.alarms:
                    alarms, writer.alarms = writer.alarms, []
                    self._on_alarms(writer, alarms)
                self._at_work = False
                seen, lsn = lsn, self._lsn(writer)
                if lsn != seen + writer.store.drawn - before:  # another process, or another thread, has written, too
                    self._post(self._on_group)
        finally:
            writer.store.close()

    def _tell(self, told: list[Callable[[], None]], grown: bool, on_grown: Callable[[], None]) -> None:
        """What became of jobs, to those who gave them, and that there is more, where it is so: in one call, so that the
        loop need not be woken twice, nor be waited for by this thread in between."""
        self._post(_all, [*told, *((on_grown,) if grown else ())])

    def _charge(self, lanes: list[str], began: float) -> None:
        """What was begun then was for these lanes: each has its part of the time."""
        part = (self._loop.time() - began) / len(lanes)
        for lane, times in Counter(lanes).items():
            self._jobs.charge(lane, part * times)

    def _after_answers(self, turns: int = ANSWER_TURNS) -> None:
        """What peers sent is answered first, then others hear that there is more."""
        if turns:
            self._loop.call_soon(self._after_answers, turns - 1)
        else:
            self._on_group()

    _at_work = False

    def _open(self) -> Writer | None:
        """The writer. While the store cannot be opened, each job is told why, and the next one is another try; None at
        the end."""
        while True:
            try:
                return self._make()
            except FednodeError as error:
                log.error("store trouble", extra={"code": error.code, "params": dict(error.params)})
                job = self._jobs.get()
                if job is None:
                    return None
                if isinstance(job, _Call):
                    self._post(self._function(None, replace(job, function=_raiser(error))))
                else:
                    self._post(job[2], error)
                self._jobs.charge(job.lane if isinstance(job, _Call) else job[0].peer.node, 0.0)

    @staticmethod
    def _lsn(writer: Writer) -> int:
        """The last arrival number; -1 when the store cannot tell."""
        try:
            return writer.store.lsn
        except FednodeError:
            return -1

    def _gather(self, job: Any, bytes_max: int) -> tuple[list[Any], _Call | None]:
        """The commits that wait, up to the limits, and the job that ended the run."""
        group: list[Any] = []
        size = 0
        while job is not None:
            if isinstance(job, _Call):
                return group, job
            group.append(job)
            size += len(job[1].data)
            if len(group) >= GROUP_COMMITS_MAX or size >= bytes_max:
                break
            job = self._jobs.look()
        return group, None

    def _commit(self, writer: Writer, group: list[Any]) -> list[Callable[[], None]]:
        """Store a group. What its peers' sessions are to be told."""
        try:
            with self._tracer.span("commit", commits=len(group)):
                reports = writer.incoming([(link, commit) for link, commit, _ in group])
        except FednodeError as error:
            log.error("store trouble", extra={"code": error.code, "params": dict(error.params)})
            return [partial(done, error) for _, _, done in group]
        except Exception as error:  # a bug must not silence the writer: the sessions end, the next group is tried
            log.exception("writer failed")
            return [partial(done, error) for _, _, done in group]
        return [partial(done, report) for (_, _, done), (_, report) in zip(group, reports, strict=True)]

    @staticmethod
    def _function(writer: Any, call: _Call) -> Callable[[], None]:
        """Run a function. What whoever awaits it is to be told."""

        def settle(setter: Callable[[Any], None], value: Any) -> None:
            if not call.future.done():
                setter(value)

        try:
            value = call.function(writer)
        # whatever it is goes to whoever awaits it
        except Exception as error:  # noqa: BLE001
            return partial(settle, call.future.set_exception, error)
        return partial(settle, call.future.set_result, value)


def _all(told: Sequence[Callable[[], None]]) -> None:
    """Each of them, whatever comes of the others."""
    rest = iter(told)
    try:
        for tell in rest:
            tell()
    except Exception:
        asyncio.get_running_loop().call_soon(_all, list(rest))
        raise


def _raiser(error: Exception) -> Callable[[Any], Any]:
    def raising(_: Any) -> Any:
        raise error

    return raising
