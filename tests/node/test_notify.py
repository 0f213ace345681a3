"""The service manager is told that the node is ready, alive, stopping; the real daemon says it on a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.notify import SHARE, Notifier, period_s

WAIT_S = 120
FEDNODE = Path(sys.executable).with_name("fednode")


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    """A service manager's socket, at tmp_path/notify."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(WAIT_S)
        yield listening


def said(listening: socket.socket) -> dict[str, str]:
    """The next datagram."""
    return dict(line.split("=", 1) for line in listening.recv(4096).decode().split("\n"))


def test_it_says_ready_in_chinese_on_one_line(manager: socket.socket, tmp_path: Path) -> None:
    assert Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")}, 1).ready("节点 棉一东社区\nREADY=0 就绪")
    assert said(manager) == {"READY": "1", "STATUS": "节点 棉一东社区 READY=0 就绪"}


def test_a_socket_in_the_abstract_namespace() -> None:
    name = f"fednode-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind("\0" + name)
        listening.settimeout(WAIT_S)
        Notifier({"NOTIFY_SOCKET": "@" + name}, 1).stopping()
        assert said(listening) == {"STOPPING": "1"}


async def test_signs_of_life_come_from_the_loop_and_end_with_it(manager: socket.socket, tmp_path: Path) -> None:
    told = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": str(SHARE * 1000)}, 1)
    told.ready("")
    manager.setblocking(False)
    assert said(manager)["READY"] == "1"
    for _ in range(3):  # the loop goes on: they come
        while True:
            try:
                assert said(manager) == {"WATCHDOG": "1"}
                break
            except BlockingIOError:
                await asyncio.sleep(0)
    told.stopping()
    seen = []
    while not seen or seen[-1] != {"STOPPING": "1"}:
        seen.append(said(manager))
    await asyncio.sleep(0)
    assert told._timer is None


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "6000000"}, 2.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "7"}, 2.0),
        ({"WATCHDOG_USEC": "6000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "-1"}, 0.0),
        ({"WATCHDOG_USEC": "²"}, 0.0),
    ],
)
def test_the_watchdog_is_fed_where_this_process_is_asked(environ: dict[str, str], expected: float) -> None:
    assert period_s(environ, 7) == expected


def test_nobody_who_listens_is_no_error(tmp_path: Path) -> None:
    told = Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}, 1)
    assert not told.ready("")
    told.stopping()


def test_the_daemon_says_ready_alive_and_stopping(manager: socket.socket, tmp_path: Path) -> None:
    home = ("--home", str(tmp_path / "home"), "--lang", "zh")
    subprocess.run([FEDNODE, *home, "init", "--id", "13", "--name", "河北省"], check=True, capture_output=True)
    environ = os.environ | {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "3000"}
    environ |= {"FEDNODE_LISTEN": "127.0.0.1:0", "FEDNODE_ENROL_LISTEN": "127.0.0.1:0"}
    with subprocess.Popen([FEDNODE, *home, "run"], env=environ, stderr=subprocess.DEVNULL) as daemon:
        try:
            first = said(manager)
            assert first["READY"] == "1"
            assert "13" in first["STATUS"]
            assert not first["STATUS"].isascii()
            assert said(manager) == {"WATCHDOG": "1"}
            daemon.send_signal(signal.SIGTERM)
            while said(manager) != {"STOPPING": "1"}:
                pass
            assert daemon.wait(WAIT_S) == 0
        finally:
            daemon.kill()
