"""What a doctor looks at: a home and what is in it, read without a trace, and the machine around it.

Rules
1. Nothing is written: no folder made, no migration, no file beside a database that nobody has open.
2. Everything is loaded when it is first asked for, and raises the error that says what is wrong with it: a home that
   is missing or broken is something to report.
3. Beside a running daemon and without one.

>>> Scene(Path("/nonexistent"), lambda: (Config(), {})).home.path
PosixPath('/nonexistent')
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Any

from fednode.crypto import certs
from fednode.crypto.certs import Identity
from fednode.crypto.suite import SUITE_1
from fednode.node.app import App, real_clock
from fednode.node.config import Config
from fednode.node.home import Home, NodeKeys
from fednode.node.store import Store
from fednode.node.trust import Trust

REACH_S = 3.0  # for one address
NAME_S = 5.0  # for one name
LOOK_S = 2.0  # for SQLite's look at one database

Progress = Callable[[int, int], None]


def quiet(_done: int, _total: int) -> None:
    """No progress."""


class Scene:
    """`settings`: loads the configuration and says where each value came from; `clock`: this machine's, Unix
    milliseconds; `full`: verify all that is held; `steady_s`: any clock that runs steadily; `reach_s`: how long one
    address of the parent may take."""

    def __init__(
        self,
        path: Path,
        settings: Callable[[], tuple[Config, dict[str, str]]],
        *,
        clock: Callable[[], int] = real_clock,
        steady_s: Callable[[], float] = monotonic,
        full: bool = False,
        reach_s: float = REACH_S,
        progress: Progress = quiet,
    ) -> None:
        self.home = Home(path.expanduser().absolute())
        self.clock, self.steady_s, self.full, self.progress = clock, steady_s, full, progress
        self.reach_s = reach_s
        self._settings = settings
        self.reached: dict[str, str] = {}  # address of the parent -> "" where it answers, else why not

    # ------------------------------------------------------------ the home

    @cached_property
    def settings(self) -> tuple[Config, dict[str, str]]:
        """The configuration, and where it came from. Raises Refused, StoreError."""
        return self._settings()

    @property
    def config(self) -> Config:
        return self.settings[0]

    @cached_property
    def keys(self) -> NodeKeys:
        """Raises StoreError FN-7619, FednodeError FN-7615 (passphrase)."""
        return self.home.keys(self.config.passphrase)

    @cached_property
    def chain(self) -> tuple[Identity, ...]:
        """Own certificate first, root last; each was issued by the next. Raises IntegrityError, StoreError."""
        ders = self.home.chain()
        return certs.check_chain(ders, SUITE_1.hash(ders[-1]) if ders else b"")

    @cached_property
    def store(self) -> Store:
        """log.db. Raises StoreError."""
        return Store.look(self.home.log_db, stash_key=self.keys.stash_key)

    @cached_property
    def app(self) -> App:
        """The node, for reading. Raises what is wrong with any part of it."""
        ders = tuple(one.der for one in self.chain)
        trust = Trust.load(self.store, ders, self.chain[0].node)
        return App(self.home, self.config, self.keys, self.store, trust, self.clock)

    @cached_property
    def running(self) -> bool:
        """Whether the daemon of this home runs."""
        return self.home.running()

    @cached_property
    def pid(self) -> str:
        """Of the daemon, as its lock says."""
        with contextlib.suppress(OSError):
            return (self.home.run_dir / "lock").read_text("ascii", "replace").strip()[:20]
        return ""

    def close(self) -> None:
        if "store" in self.__dict__:
            self.store.close()

    # ------------------------------------------------------------ the machine

    def existing(self) -> Path:
        """The home, or the nearest folder above it that is there."""
        folder = self.home.path
        while not folder.is_dir() and folder != folder.parent:
            folder = folder.parent
        return folder

    def until(self, seconds: float) -> Callable[[], bool]:
        """Whether that time is not over."""
        end = self.steady_s() + seconds
        return lambda: self.steady_s() < end


def in_time(work: Callable[[], Any], seconds: float) -> list[Any]:
    """What some work returns, in a list; an empty one where it takes longer (resolving a name cannot be stopped: the
    thread is left to itself). Raises what the work raises."""
    done: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    return done


def split(address: str) -> tuple[str, int]:
    """Host and port of "host:port", "[::1]:port"."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def answer(address: str, seconds: float) -> str:
    """ "" where somebody listens at an address, else why not."""
    host, port = split(address)

    def meet() -> None:
        socket.create_connection((host, port), timeout=seconds).close()

    try:
        return "" if in_time(meet, seconds + NAME_S) else os.strerror(110)
    except OSError as error:
        return error.strerror or str(error)
