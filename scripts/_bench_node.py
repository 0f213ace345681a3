"""One node as a process of its own, for scripts/_bench_hop.py: events out as JSON lines, orders in as JSON lines.

    _bench_node.py daemon HOME         ready (ports), dialling (when), then orders: wire, singles N, memory, stop
    _bench_node.py import HOME FILE    the real import path, then the record table and the full text

With BENCH_METER in the environment, what is said of memory also has CPU by what it is for (`_bench_meter.py`).

Settings come from the environment (FEDNODE_LISTEN and so on), as for `fednode run`.

The daemon is the real one; only the moment of dialling is noted, and a change is appended where `put` appends it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import socket
import stat
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bench_data
import msgspec
from _bench_meter import Meter

from fednode.node import carrier, config, driver, profile
from fednode.node.app import App
from fednode.node.daemon import Daemon, serve
from fednode.node.driver import Session
from fednode.node.ingest.source import open_source
from fednode.sync import effects as fx
from fednode.sync.change import Change

DATASET = "org-registration"
TCP_INFO_ACKED = 120  # struct tcp_info of linux/tcp.h: tcpi_bytes_acked, tcpi_bytes_received
WAIT_S = 30.0
METER = Meter()


def say(event: str, **values: Any) -> None:
    print(json.dumps({"event": event, "at": time.monotonic(), **values}), flush=True)


def cpu_of_threads() -> dict[str, float]:
    """CPU seconds of each named thread of this process; `other`: gRPC's own."""
    names = {one.native_id: one.name for one in threading.enumerate()}
    found: dict[str, float] = {}
    for task in os.listdir("/proc/self/task"):
        fields = Path(f"/proc/self/task/{task}/stat").read_text().rpartition(")")[2].split()
        spent = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")  # utime, stime of proc(5)
        name = names.get(int(task), "other").replace("MainThread", "loop").removeprefix("fednode-").split()[0]
        name = "other" if name.startswith(("Thread-", "asyncio_")) else name
        found[name] = round(found.get(name, 0.0) + spent, 2)
    return found


def memory() -> dict[str, Any]:
    """Peak and present resident memory of this process, MiB; its CPU seconds."""
    text = Path("/proc/self/status").read_text()
    kib = {
        line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.startswith(("VmHWM", "VmRSS"))
    }
    cpu = os.times()
    return {
        "peak_mb": kib["VmHWM"] / 1024,
        "rss_mb": kib["VmRSS"] / 1024,
        "cpu_s": cpu.user + cpu.system,
        "threads": cpu_of_threads(),
        "audit": METER.spent(),
    }


def wire_bytes(port: int) -> tuple[int, int]:
    """(sent, received) payload bytes of this process's TCP connections to a port, as the kernel counts them: TLS and
    HTTP/2 included, TCP and IP headers not."""
    sent = received = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                if one.family not in (socket.AF_INET, socket.AF_INET6) or one.getpeername()[1] != port:
                    continue
                info = one.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        except OSError:
            continue
        acked, got = struct.unpack_from("QQ", info, TCP_INFO_ACKED)
        sent, received = sent + acked, received + got
    return sent, received


def load(home: Path) -> App:
    settings = config.load(home, os.environ, {})[0]
    profile.thrifty(profile.chosen(settings.profile, profile.memory_bytes()))
    return App.open(home, settings)


def change(r: random.Random) -> Change:
    one = dict(sorted(_bench_data.row(r).items()))
    return Change(one["uscc"].encode(), msgspec.json.encode(one))


async def singles(daemon: Daemon, count: int) -> tuple[list[float], list[float], list[int]]:
    """One change at a time: milliseconds from `append` until the parent's ack is here (so the parent has it on disk),
    and until the ack is on this node's disk too; bytes of each one's JSON."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[float] = loop.create_future()
    stored: asyncio.Future[float] = loop.create_future()
    acked, plain = driver._DO[fx.Acked], daemon.engine.acked
    wanted = 0

    def on_ack(session: Session, effect: fx.Acked) -> None:
        if effect.upto >= wanted and not heard.done():
            heard.set_result(time.perf_counter())
        acked(session, effect)

    def on_stored(session: Session) -> None:
        plain(session)
        if heard.done() and not stored.done():
            stored.set_result(time.perf_counter())

    driver._DO[fx.Acked], daemon.engine.acked = on_ack, on_stored  # type: ignore[method-assign]
    r = random.Random(time.time_ns())
    area = daemon.app.trust.area
    at_parent, here, sizes = [], [], []
    for _ in range(count):
        one = change(r)
        sizes.append(len(one.payload))
        heard, stored = loop.create_future(), loop.create_future()
        wanted = daemon.engine.store.lsn + 1  # nothing else writes
        start = time.perf_counter()
        await daemon.engine.writer.call(lambda w, one=one: w.local(DATASET, area, [one]))
        at_parent.append((await asyncio.wait_for(heard, WAIT_S) - start) * 1000)
        here.append((await asyncio.wait_for(stored, WAIT_S) - start) * 1000)
        await asyncio.sleep(0.005)
    driver._DO[fx.Acked], daemon.engine.acked = acked, plain  # type: ignore[method-assign]
    return at_parent, here, sizes


async def obey(daemon: Daemon) -> None:
    """Carry out orders until told to stop, or until the other end is gone."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        if order["do"] == "stop":
            break
        if order["do"] == "wire":
            sent, received = wire_bytes(order["port"])
            say("wire", sent=sent, received=received)
        elif order["do"] == "singles":
            at_parent, here, sizes = await singles(daemon, order["count"])
            say("singles", ms=at_parent, stored_ms=here, json=sizes)
        elif order["do"] == "memory":
            say("memory", **memory())
    daemon.stop()


async def run(home: Path) -> None:
    plain = carrier.dial

    async def dial(*arguments: Any) -> Any:
        say("dialling", **memory())
        return await plain(*arguments)

    carrier.dial = dial  # type: ignore[assignment]
    app = load(home)
    obeying: list[asyncio.Task[None]] = []

    def begin(stop: Callable[[], None]) -> None:
        obeying.append(asyncio.create_task(obey(stop.__self__)))  # type: ignore[attr-defined]

    await serve(app, lambda port, enrol_port: say("ready", port=port, enrol_port=enrol_port), begin)
    await obeying[0]
    app.close()
    say("ended", **memory())


def main() -> None:
    what, home = sys.argv[1], Path(sys.argv[2])
    if os.environ.get("BENCH_METER"):
        METER.begin()
    if what == "daemon":
        asyncio.run(run(home))
        return
    app = load(home)
    before = memory()
    start = time.perf_counter()
    records = app.records()
    source = open_source(Path(sys.argv[3]), records.declared(DATASET))
    report = records.import_rows(DATASET, source)
    durable = time.perf_counter() - start
    at_import = memory()
    records.projector.catch_up()
    visible = time.perf_counter() - start
    records.projector.index_text()
    searchable = time.perf_counter() - start
    say(
        "imported",
        rows=report.added,
        seconds=durable,
        visible=visible,
        searchable=searchable,
        before=before,
        **at_import,
    )
    app.close()


if __name__ == "__main__":
    main()
