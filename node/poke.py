"""A word from one process to another on the same home: "the store has grown". Lost words do no harm: the daemon looks
by itself too.

>>> poke(Path("/nonexistent"))
False
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

NAME = "poke.sock"


def poke(run_dir: Path) -> bool:
    """Tell the daemon of this home, if there is one."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
        out.setblocking(False)
        try:
            out.sendto(b"!", str(run_dir / NAME))
        except OSError:
            return False
    return True


class Listener:
    """Calls back in the event loop whenever somebody pokes; several pokes may be one call."""

    def __init__(self, run_dir: Path, callback: Callable[[], None]) -> None:
        self._path = run_dir / NAME
        self._callback = callback
        self._socket: socket.socket | None = None
        with contextlib.suppress(
            OSError
        ):  # a path too long for a socket, or a read-only folder: the daemon looks by itself
            self._path.unlink(missing_ok=True)
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
            self._socket.bind(str(self._path))
            asyncio.get_running_loop().add_reader(self._socket.fileno(), self._read)

    def _read(self) -> None:
        if self._socket is None:
            return
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        self._callback()

    def close(self) -> None:
        if self._socket is not None:
            with contextlib.suppress(OSError, ValueError, RuntimeError):
                asyncio.get_running_loop().remove_reader(self._socket.fileno())
            self._socket.close()
            self._path.unlink(missing_ok=True)
