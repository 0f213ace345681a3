"""What the service manager is told (systemd's sd_notify): that the node is ready, alive, stopping.

Rules
1. Datagrams of `NAME=value` lines in UTF-8 to the socket that `NOTIFY_SOCKET` names; one that begins with `@` lies in
   the abstract namespace. Where none is named, nothing is said.
2. The watchdog is fed from the event loop, at a third of `WATCHDOG_USEC`: a loop that stands still is started anew.
   `WATCHDOG_PID`, where it is set, must be this process.
3. A service manager that does not listen never stops the node.

>>> Notifier({}, 1).ready("all is well")
False
>>> period_s({"WATCHDOG_USEC": "3000000", "WATCHDOG_PID": "7"}, 7), period_s({"WATCHDOG_USEC": "no"}, 7)
(1.0, 0.0)
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Mapping

log = logging.getLogger("fednode.notify")
SHARE = 3  # of the time that systemd waits for a sign of life: two may be late
STATUS_CHARACTERS_MAX = 200


def period_s(environ: Mapping[str, str], pid: int) -> float:
    """Seconds between two signs of life; 0 where none are asked of this process."""
    asked = environ.get("WATCHDOG_USEC", "")
    if not (asked.isascii() and asked.isdigit()) or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    return int(asked) / 1_000_000 / SHARE


class Notifier:
    """The line to the service manager. `environ`: the environment; `pid`: of this process."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        named = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + named[1:] if named.startswith("@") else named
        self._period_s = period_s(environ, pid) if named else 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._heard = True

    def ready(self, status: str) -> bool:
        """The node serves; `status`: a line for `systemctl status`. From now on, in the loop that runs, signs of life.
        Whether anybody was told."""
        told = self._send("READY=1", f"STATUS={' '.join(status.split())[:STATUS_CHARACTERS_MAX]}")
        if self._period_s and self._timer is None:
            self._beat(asyncio.get_running_loop())
        return told

    def stopping(self) -> None:
        """The node ends, in its own time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._send("STOPPING=1")

    def _beat(self, loop: asyncio.AbstractEventLoop) -> None:
        self._send("WATCHDOG=1")
        self._timer = loop.call_later(self._period_s, self._beat, loop)

    def _send(self, *lines: str) -> bool:
        if not self._address:
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as line:
                line.setblocking(False)
                line.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            if self._heard:
                log.warning("the service manager does not listen", extra={"reason": error.strerror or str(error)})
            self._heard = False
            return False
        self._heard = True
        return True
