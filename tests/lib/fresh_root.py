"""A fresh Debian root, and a stand-in for systemd in it: what an installer does to a machine, without a machine.

systemd is not run: it cannot be in a chroot. `systemctl` in the root is a script that asks `StandIn`, which reads the
unit that was installed, starts its ExecStart as its User, in its Environment, with what the kernel offers of its
hardening to any process (no new privileges, no memory both writable and executable), and listens on NOTIFY_SOCKET as
systemd does. Sandboxing by mounts and system call filters is not tried here.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
import termios
import threading
import time
from collections.abc import Sequence
from pathlib import Path

SUITE = "bookworm"
INCLUDE = "openssl"  # what a village's computer has beside the least that there is
CACHE = Path(os.environ.get("FEDNODE_TEST_CACHE", "/var/cache/fednode-test"))
DEBOOTSTRAP_S = 1800
WAIT_S = 300
PR_SET_NO_NEW_PRIVS, PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN = 38, 65, 1

SYSTEMCTL = """#!/bin/sh
# asks the test's stand-in for systemd
at=/run/stand-in/$$
printf '%s' "$*" >"$at.new" && mv "$at.new" "$at.ask"
while [ ! -e "$at.answer" ]; do sleep 0.1; done
read -r code <"$at.answer"
rm -f "$at.answer"
exit "$code"
"""


def why_not() -> str:
    """Why there can be no fresh root here, "" where there can."""
    if os.getuid() != 0:
        return "a fresh root wants root"
    missing = [name for name in ("unshare", "nsenter", "chroot") if shutil.which(name) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    done = subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False)
    if done.returncode != 0:
        return "mount namespaces are not permitted here"
    if not _cached().exists() and shutil.which("debootstrap") is None:
        return "debootstrap is not installed"
    return ""


def _cached() -> Path:
    return CACHE / f"{SUITE}-minbase-{INCLUDE}.tar"


def unpacked(target: Path) -> str:
    """A fresh Debian at `target`; made by debootstrap once, kept as an archive. Why it could not be made, or ""."""
    if not _cached().exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        making = CACHE / f"making-{os.getpid()}"
        command = ["debootstrap", "--variant=minbase", f"--include={INCLUDE}", SUITE, str(making)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=DEBOOTSTRAP_S, check=False)
        if done.returncode == 0:
            shutil.rmtree(making / "var/cache/apt/archives", ignore_errors=True)
            draft = CACHE / f"{making.name}.tar"
            subprocess.run(["tar", "-C", str(making), "-cf", str(draft), "."], check=True)
            draft.rename(_cached())
        shutil.rmtree(making, ignore_errors=True)
        if done.returncode != 0:
            return f"debootstrap could not: {(done.stdout + done.stderr)[-300:]}"
    target.mkdir(parents=True)
    subprocess.run(["tar", "-C", str(target), "-xf", str(_cached())], check=True)
    return ""


class Root:
    """The root, in a mount namespace of its own that ends with the test."""

    def __init__(self, path: Path) -> None:
        self.path = path
        mounts = (
            f"mount -t proc proc {path}/proc && mount --rbind /dev {path}/dev && echo mounted && exec sleep infinity"
        )
        self._holder = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", "sh", "-c", mounts], stdout=subprocess.PIPE
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"mounted\n", "proc and dev could not be mounted"
        self.enter = ["nsenter", f"--mount=/proc/{self._holder.pid}/ns/mnt", "--"]
        (path / "usr/bin/systemctl").write_text(SYSTEMCTL, "ascii")
        (path / "usr/bin/systemctl").chmod(0o755)
        self.systemd = StandIn(self)

    def _command(self, words: tuple[str, ...], environ: dict[str, str]) -> list[str]:
        command = [*self.enter, "chroot", str(self.path), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
        return [*command, "LANG=C.UTF-8", *(f"{name}={value}" for name, value in environ.items()), *words]

    def run(self, *words: str, given: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """A command in the root, as root, in an environment of its own."""
        command = self._command(words, environ)
        return subprocess.run(command, input=given, capture_output=True, text=True, timeout=WAIT_S, check=False)

    def talk(self, *words: str, answers: Sequence[tuple[str, str]]) -> tuple[int, str]:
        """A command at a terminal, as a person uses it: each answer (its keys) is typed once its prompt stands there.
        Returns exit code and all that was on the screen."""
        master, slave = pty.openpty()
        process = subprocess.Popen(
            self._command(words, {}), stdin=slave, stdout=slave, stderr=slave, preexec_fn=_own_terminal
        )
        os.close(slave)
        screen, seen, left = b"", 0, list(answers)
        with os.fdopen(master, "r+b", buffering=0) as terminal, contextlib.suppress(OSError):  # EIO: it has ended
            while select.select([terminal], [], [], WAIT_S)[0] and (more := terminal.read(4096)):
                screen += more
                while left and (at := screen.find(left[0][0].encode(), seen)) >= 0:
                    seen = at + len(left[0][0].encode())
                    terminal.write(left.pop(0)[1].encode())
        try:
            code = process.wait(WAIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        text = screen.decode()
        assert not left, f"never asked for {left[0][0]}\n{text}"
        return code, text

    def close(self) -> None:
        self.systemd.close()
        self._holder.kill()
        self._holder.communicate()


class StandIn:
    """Starts and stops what the unit says, and knows when it is ready."""

    def __init__(self, root: Root) -> None:
        self.root = root
        self.said: list[dict[str, str]] = []
        self.enabled: set[str] = set()
        self.process: subprocess.Popen[bytes] | None = None
        self._asked = root.path / "run/stand-in"
        self._asked.mkdir(mode=0o700)
        (root.path / "run/systemd").mkdir(exist_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(root.path / "run/systemd/notify"))
        (root.path / "run/systemd/notify").chmod(0o777)
        self._over = threading.Event()
        self._listener = threading.Thread(target=self._serve)
        self._listener.start()

    def close(self) -> None:
        self._over.set()
        self._listener.join()
        self._stop()
        self._socket.close()

    def _serve(self) -> None:
        while not self._over.wait(0.05):
            for asked in self._asked.glob("*.ask"):
                words = asked.read_text("utf-8").split()
                asked.unlink()
                threading.Thread(target=self._answer, args=(asked.with_suffix(".answer"), words)).start()

    def _answer(self, answer: Path, words: list[str]) -> None:
        verb = words[0]
        code = 0
        if verb in ("restart", "stop", "disable"):
            self._stop()
        if verb in ("restart", "start"):
            code = self._start()
        if verb in ("enable", "disable"):
            (self.enabled.add if verb == "enable" else self.enabled.discard)(words[-1])
        draft = answer.with_suffix(".draft")
        draft.write_text(f"{code}\n", "ascii")
        draft.rename(answer)

    def unit(self) -> dict[str, str]:
        """The settings of the unit that is installed, and of what was added to it."""
        own, packaged = (self.root.path / at for at in ("etc/systemd/system", "usr/lib/systemd/system"))
        unit = next(at / "fednode.service" for at in (own, packaged) if (at / "fednode.service").exists())
        settings: dict[str, str] = {}
        for path in (unit, *sorted((own / "fednode.service.d").glob("*.conf"))):
            for name, value in re.findall(r"^(\w+)=(.*)$", path.read_text("utf-8"), re.MULTILINE):
                before = settings.get(name, "")
                settings[name] = f"{before} {value}".strip() if name == "Environment" else value
        return settings

    def _start(self) -> int:
        unit = self.unit()
        if not (self.root.path / unit["ConditionPathExists"].lstrip("/")).exists():
            return 0  # as systemd: a condition that does not hold is no failure
        environ = unit["Environment"].split()
        environ += [
            "PATH=/usr/bin:/bin",
            "NOTIFY_SOCKET=/run/systemd/notify",
            f"WATCHDOG_USEC={int(unit['WatchdogSec']) * 10**6}",
        ]
        inside = ["chroot", f"--userspec={unit['User']}:{unit['Group']}", str(self.root.path)]
        command = [*self.root.enter, *inside, "env", "-i", *environ, *unit["ExecStart"].split()]
        log = (self.root.path / "daemon.log").open("ab")
        with log:
            self.process = process = subprocess.Popen(command, stdout=log, stderr=log, preexec_fn=_harden)
        end = time.monotonic() + int(unit["TimeoutStartSec"])
        while time.monotonic() < end:
            if process.poll() is not None:
                return 1
            if select.select([self._socket], [], [], 0.1)[0]:
                told = dict(line.split("=", 1) for line in self._socket.recv(4096).decode().split("\n"))
                self.said.append(told)
                if told.get("READY") == "1":
                    return 0
        return 1

    def _stop(self) -> None:
        process, self.process = self.process, None
        if process is not None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()


def _own_terminal() -> None:
    """What is on fd 0 is this process's terminal: Ctrl-C reaches it, though whoever runs the tests is deaf to it."""
    for heard in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        signal.signal(heard, signal.SIG_DFL)
    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def _harden() -> None:
    """What the unit asks of the kernel and any process can have. An old kernel has no MDWE: it refuses, and is let."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_MDWE, MDWE_REFUSE_EXEC_GAIN, 0, 0, 0)
