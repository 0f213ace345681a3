"""Commands of `fednode` as processes of their own, without a start of Python for each: a server that has loaded the
program forks one for each command. To start takes half a second of a core, and the end-to-end tests do it a thousand
times; to fork takes a twentieth of it.

Rules
1. What a command does it does in a process of its own: memory, files, signals and end are nobody else's. Only loading
   is shared: nothing of the program has run in the server, and the server has one thread.
2. Daemons are not started so, nor what has an environment of its own or dies on purpose, nor what scripts/demo shows:
   those are programs from their first instruction (`processes`).

>>> run(["version", "--json"], timeout_s=60).returncode
0
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import pkgutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

REQUEST_BYTES = 1 << 18
ANSWER_BYTES = 64
PROGRAM = str(Path(sys.executable).with_name("fednode"))
NOT_LOADED = ("fednode.node.web",)  # a daemon's alone


def run(
    words: Sequence[str], *, timeout_s: float, cwd: Path | None = None, environ: Mapping[str, str] = os.environ
) -> subprocess.CompletedProcess[str]:
    """One command, as subprocess.run(["fednode", *words], capture_output=True, text=True) has it, with nothing on
    stdin. Raises subprocess.TimeoutExpired."""
    asked = {"words": list(words), "cwd": str(cwd or Path.cwd()), "environ": dict(environ)}
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, open(os.memfd_create("out"), "rb") as out, open(os.memfd_create("err"), "rb") as err:
        with there:
            socket.send_fds(_server(), [json.dumps(asked).encode()], [there.fileno(), out.fileno(), err.fileno()])
        here.settimeout(timeout_s)
        pid = int(here.recv(ANSWER_BYTES))
        try:
            status = int(here.recv(ANSWER_BYTES))
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            raise subprocess.TimeoutExpired([PROGRAM, *words], timeout_s) from None
        texts = [os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess([PROGRAM, *words], os.waitstatus_to_exitcode(status), *texts)


@cache
def _server() -> socket.socket:
    """The way to the server, started when it is first asked; it ends with this process."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with there:
        command = [sys.executable, "-P", __file__, str(there.fileno())]  # -P: the program sees no module of the tests
        environ = {**os.environ, "GRPC_VERBOSITY": "NONE"}  # as the program's `main` has it before gRPC is loaded
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=environ, pass_fds=[there.fileno()]
        )

    def over() -> None:
        here.close()
        server.wait()

    atexit.register(over)
    return here


# ---------------------------------------------------------------- in the server


class Server:
    """Forks, and tells who asked how it ended."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._running: dict[int, socket.socket] = {}

    def serve(self) -> None:
        """Until nobody asks any more. Returns in the processes forked."""
        signal.signal(signal.SIGCHLD, self._ended)
        while True:
            request, passed, _, _ = socket.recv_fds(self._control, REQUEST_BYTES, 3)
            if not request:
                os._exit(0)
            asked = json.loads(request)
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])  # it may end before we know its number
            pid = os.fork()
            if pid == 0:
                self._become(asked, passed)
                return
            asker = self._running[pid] = socket.socket(fileno=passed[0])
            asker.send(str(pid).encode())
            for descriptor in passed[1:]:
                os.close(descriptor)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])

    def _ended(self, _number: int, _frame: FrameType | None) -> None:
        while self._running:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._running.pop(pid) as asker:
                asker.send(str(status).encode())

    def _become(self, asked: dict[str, Any], passed: Sequence[int]) -> None:
        """In the process forked: nothing of the server's, and all that the program is to find."""
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        self._control.close()
        for other in self._running.values():
            other.close()
        for target, descriptor in zip((1, 2), passed[1:], strict=True):
            os.dup2(descriptor, target)
        for descriptor in passed:
            os.close(descriptor)
        os.chdir(asked["cwd"])
        os.environ.clear()
        os.environ.update(asked["environ"])
        sys.argv[1:] = asked["words"]


def load() -> None:
    """All of the program that a command may want."""
    import fednode

    for module in pkgutil.walk_packages(fednode.__path__, "fednode."):
        if not module.name.startswith(NOT_LOADED):
            import_module(module.name)
    if threading.active_count() != 1:
        raise RuntimeError("to load the program has started a thread: it cannot be forked")
    gc.collect()
    gc.freeze()


def end(code: int) -> NoReturn:
    """As an interpreter ends, but that it takes nothing down: to take down all that was loaded is half of a command."""
    threading._shutdown()  # type: ignore[attr-defined] # it waits for threads
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


def run_main() -> int:
    """The program, as its console script has it; its exit code."""
    from fednode.node.cli import main

    try:
        main()
    except SystemExit as ended:
        if isinstance(ended.code, int):
            return ended.code
        raise
    return 0


if __name__ == "__main__":
    load()
    sys.argv[0] = PROGRAM
    Server(socket.socket(fileno=int(sys.argv[1]))).serve()
    end(run_main())
