"""A real S3-compatible storage on loopback: OpenStack Swift with its S3 API, out of Debian's packages (swift-proxy,
swift-account, swift-container, swift-object). It checks signatures and keeps objects on disk."""

from __future__ import annotations

import getpass
import select
import shutil
import socket
import subprocess
import time
import urllib.request
from datetime import timedelta
from pathlib import Path
from types import TracebackType

from ports import free_port

SERVERS = ("account", "container", "object", "proxy")
USER, SECRET = "test:tester", "testing"
WAIT_S = 120.0
_STORAGE = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
[pipeline:main]
pipeline = {name}-server
[app:{name}-server]
use = egg:swift#{name}
"""
_PROXY = """[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}
swift_dir = {folder}
[pipeline:main]
pipeline = catch_errors gatekeeper cache listing_formats s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true
[filter:s3api]
use = egg:swift#s3api
location = us-east-1
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:listing_formats]
use = egg:swift#listing_formats
"""


def installed() -> bool:
    """Whether this machine has it."""
    return all(shutil.which(f"swift-{name}-server") for name in SERVERS) and Path("/etc/swift/swift.conf").exists()


class Swift:
    """Four processes, one device; `endpoint` once it is entered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.endpoint = ""
        self._processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Swift:
        (self.folder / "devices" / "d1").mkdir(parents=True)
        ports = {name: free_port() for name in SERVERS}
        for name in SERVERS:
            text = _PROXY if name == "proxy" else _STORAGE
            filled = text.format(name=name, port=ports[name], user=getpass.getuser(), folder=self.folder)
            (self.folder / f"{name}.conf").write_text(filled, "utf-8")
            if name != "proxy":
                self._ring(name, ports[name])
        self.endpoint = f"http://127.0.0.1:{ports['proxy']}"
        self.start()
        for port in ports.values():
            self._until_it_answers(port)
        return self

    def start(self) -> None:
        for name in SERVERS:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [f"swift-{name}-server", str(self.folder / f"{name}.conf")]
                self._processes.append(subprocess.Popen(command, stdout=log, stderr=log))

    def stop(self) -> None:
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        self._processes.clear()

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        self.stop()

    def bucket(self, name: str) -> str:
        """A new bucket; the place that it is. The request is signed by the client that the program uses."""
        import obstore
        from obstore.store import S3Store

        signed = {"access_key_id": USER, "secret_access_key": SECRET, "region": "us-east-1"}
        options = {"client_options": {"allow_http": True}, "virtual_hosted_style_request": False}
        store = S3Store(name, endpoint=self.endpoint, **signed, **options)
        url = obstore.sign(store, "PUT", "", timedelta(seconds=60))
        with urllib.request.urlopen(urllib.request.Request(url, method="PUT")) as answer:
            if answer.status != 200:
                raise AssertionError(answer.status)
        return f"s3://{name}/fednode"

    def _ring(self, name: str, port: int) -> None:
        for words in (("create", "4", "1", "0"), ("add", f"r1z1-127.0.0.1:{port}/d1", "1"), ("rebalance",)):
            command = ["swift-ring-builder", f"{name}.builder", *words]
            subprocess.run(command, cwd=self.folder, check=True, capture_output=True)

    def _until_it_answers(self, port: int) -> None:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    return
            except OSError:
                select.select([], [], [], 0.05)
        raise AssertionError((self.folder / "proxy.log").read_text(errors="replace")[-2000:])
