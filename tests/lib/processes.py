"""Real nodes as real processes on loopback, driven through the command line: for the demonstration and the end-to-end
tests."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import prefork
from ports import free_port

ROOT = Path(__file__).resolve().parents[2]
FEDNODE = Path(sys.executable).with_name("fednode")
WAIT_S = 180.0
LOOK_S = 0.25
COMMAND_S = 300.0


class Failed(Exception):
    """Something did not hold."""


class Processes:
    """Nodes in one folder, each with a home, some with a daemon. `forked`: commands are forked from one server that has
    loaded the program (`prefork`), but where a node has an environment of its own."""

    def __init__(self, folder: Path, *, forked: bool = True) -> None:
        self.folder, self.forked = folder, forked
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.settings = "reserve_mib = 1\n"
        self.environment: dict[str, dict[str, str]] = {}  # node -> what its programs see besides

    def home(self, node: str) -> Path:
        return self.folder / node

    def _environ(self, node: str) -> dict[str, str]:
        return {**os.environ, **self.environment.get(node, {})}

    def _done(self, node: str, *words: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        command = ["--home", str(self.home(node)), *words]
        if self.forked and node not in self.environment:
            return prefork.run(command, timeout_s=COMMAND_S, cwd=ROOT)
        environ, nothing = self._environ(node), subprocess.DEVNULL
        return subprocess.run(
            [str(FEDNODE), *command],
            capture_output=True, text=True, timeout=COMMAND_S, cwd=ROOT, env=environ, stdin=nothing,
        )  # fmt: skip

    def run(self, node: str, *words: str, expect: int = 0) -> dict[str, Any]:
        """One command at one node; its JSON document."""
        done = self._done(node, "--json", *words)
        if done.returncode != expect:
            shown = " ".join(words)
            raise Failed(f"{node}: `{shown}` exits {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def text(self, node: str, *words: str, lang: str, expect: int = 0) -> str:
        """One command as a person at a terminal sees it, in a language: all that it says."""
        done = self._done(node, "--lang", lang, *words)
        if done.returncode != expect:
            shown = " ".join(words)
            raise Failed(f"{node}: `{shown}` exits {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def start(self, node: str) -> None:
        """Start a node's daemon; returns when it says that it is ready, its ports are open."""
        command = [str(FEDNODE), "--home", str(self.home(node)), "--json", "run"]
        told, environ = self.home(node) / "daemon.json", self._environ(node)
        with (self.home(node) / "daemon.log").open("ab") as log, told.open("wb") as out:
            self.daemons[node] = subprocess.Popen(command, stdout=out, stderr=log, cwd=ROOT, env=environ)
        self.until(f"{node} runs", lambda: told.read_bytes().endswith(b"\n"))

    def kill(self, node: str, how: signal.Signals) -> None:
        process = self.daemons.pop(node)
        process.send_signal(how)
        process.wait(timeout=WAIT_S)

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            for node, process in self.daemons.items():
                if process.poll() is not None:
                    log = (self.home(node) / "daemon.log").read_text(errors="replace")[-2000:]
                    raise Failed(f"the daemon of {node} ended with {process.returncode}\n{log}")
            if holds():
                return
            select.select(
                [], [], [], LOOK_S
            )  # to ask is to start a program: not without a pause, the daemons have work to do
        raise Failed(f"not within {WAIT_S:.0f} s: {what}")

    def found(self, node: str, level: str, name: str, parent: str = "") -> None:
        """Make a node: a province, or a child that its parent, which runs, invites. Its daemon is started."""
        self.settle(node)
        if parent:
            token = self.run(parent, "invite", node, "--level", level, "--name", name)["token"]
            self.run(node, "join", token)
        else:
            self.run(node, "init", "--id", node, "--level", level, "--name", name, "--domain", "hebei")
        self.start(node)

    def settle(self, node: str) -> None:
        """An empty home with ports of its own."""
        listen, enrol = free_port(), free_port()
        self.home(node).mkdir(parents=True)
        (self.home(node) / "config.toml").write_text(
            f'listen = "127.0.0.1:{listen}"\nenrol_listen = "127.0.0.1:{enrol}"\n'
            f'advertise = ["127.0.0.1:{listen}"]\nadvertise_enrol = ["127.0.0.1:{enrol}"]\n{self.settings}'
        )

    def standby(self, primary: str) -> str:
        """Make a standby of a node that runs, and start it; the folder it lives in has its id."""
        made = self.run(primary, "standby", "invite")
        self.settle(made["node"])
        self.run(made["node"], "join", made["token"])
        self.start(made["node"])
        return str(made["node"])

    def records(self, node: str) -> tuple[int, str]:
        """How many records a node holds, and their digest."""
        found = self.run(node, "digest")
        return int(found["records"]), str(found["digest"])

    def pending(self, node: str) -> int:
        """Changes saved at a node that its parent does not hold."""
        parent = self.run(node, "status")["status"]["parent"]
        return int(parent["pending_changes"])

    def stop_all(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Stop every daemon, the lowest first."""
        for node in reversed(list(self.daemons)):
            self.kill(node, how)
