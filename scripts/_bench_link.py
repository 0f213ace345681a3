"""scripts/bench link: a village's line. Prints one JSON document; takes four to five minutes, in real time.

Two processes on loopback, mutual TLS, durable at both ends, as in `scripts/bench hop`, with the line of
`tests/lib/shaper` between them:
64 kbit/s each way, 600 ms round trip, 5 % of packets lost, a cut every 60 s (rules and limits of that model in its
docstring). Bytes
are what the line carried, both ways: TLS and HTTP/2 in, TCP and IP headers and repeated packets not.

    first_...     1,000 licences at a child that then dials: until its store has all of them acknowledged
    open_...      1,000 more in the session that is open then
    cut_...       6,000 more, in the same session when the line is cut in the middle: the dial after it is in all of
                  its figures
    ..._ratio     bytes of both directions / sealed bytes of the licences' segments                    (bar 1.15)
    ..._ratio_of_all        the same / sealed bytes of all segments that went up: what the audit says of the import, too
    ..._of_json   the same / bytes of the licences' JSON                                               (bar 0.30)
    ..._share     bytes up / what the line could carry from the first of them until the last was off it (bar 0.90);
                  at 5 % loss 0.95 is all there is: what was lost takes the line twice
    ..._share_of_left       the same of what was left of the line once the losses of this run had their part
    ..._share_of_data       the same from the first byte after the last rest of half a round trip or more: the
                  handshakes are over then, and the segments begin
    ..._share_from_dial     the same from dialling until the last ack is stored
    single_...    one more licence in an idle session: bytes of both directions less its JSON          (bar 600)
    open_nothing_...        an idle session for 20 s, in which both sides say once that there is nothing new: bytes of
                  both directions; a dial is among them where the line was cut meanwhile
    resumed_...   1,000 more by a dial that goes on with a TLS session, as every dial of a daemon but its first
    nothing_...   `fednode sync` with nothing to say, by a dial of its own: bytes, round trips of 600 ms on a line that
                  only delays, with and
                  without the one that opens the TCP connection
    beside_...    the same beside a daemon that has a session open, in that: bytes of both directions (bar 3,000), round
                  trips that were waited for (bar 3), connections; the median of `TIMES`. `..._command_bytes`: of the
                  whole command, until what the audit says of it is acknowledged, too
    rsync_...     the child's log.db with the first 1,000 licences, by `rsync -z` to a copy from before them, over the
                  same line, again after each cut; where rsync is or can be installed (root on Debian or Ubuntu)
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lib"))

import _bench_hop as hop
from _bench_hop import Node, listening, note, one_value, until

import sample_data
from fednode.node.app import App
from fednode.node.ingest.source import open_source
from fednode.node.syncing import DAEMONS, sync_now, sync_once
from fednode.sync.exchange import BEAT_MS
from ports import free_port
from shaper import Line, Shaper

DATASET = "admin-licence"
TIMES = 5
RATE, DELAY_S, LOSS, CUT_S = 8000.0, 0.3, 0.05, 60.0
SEALED_OF_ALL = (
    "select coalesce(sum(length(s.data)), 0) from segment s join log l on l.id = s.log_id"
    " where l.up = 1 and s.lsn > {after}"
)
SEALED = f"{SEALED_OF_ALL} and l.dataset = '{DATASET}'"


def write_licences(folder: Path, count: int, seed: int) -> int:
    """Import licences at the child. Bytes of their JSON."""
    path = folder / f"licences-{seed}.csv"
    app = App.open(folder / "1301", listening("1301"))
    try:
        records = app.records()
        declared = records.declared(DATASET)
        sample_data.write(path, declared, sample_data.records(DATASET, count, seed=seed))
        report = records.import_rows(DATASET, open_source(path, declared))
        if report.added != count:
            raise RuntimeError(f"imported {report.added} of {count}")
        records.projector.catch_up()
        made = records.projector.connection.execute(
            """select sum(length(cast(payload as blob))) from (select payload from record where op = 1 and dataset =
               (select id from dataset where name = ?) order by id desc limit ?)""",
            (DATASET, count),
        ).fetchone()[0]
        app.poke()
        return int(made)
    finally:
        app.close()


class Measured:
    """Figures of one stretch of the line's time."""

    def __init__(self, folder: Path, line: Shaper) -> None:
        self.folder, self.line = folder, line
        self.log = folder / "1301/log.db"
        self.held = one_value(self.log, "select value from meta where key = 'lsn'")
        self.up, self.down, self.cuts, self.repeated = line.bytes_up, line.bytes_down, line.cuts, line.repeated_up
        line.first_up_at = 0.0

    async def acked(self, name: str, started: float, made: int) -> dict[str, Any]:
        """Until all that the child holds is acknowledged."""
        last = one_value(self.log, "select max(s.lsn) from segment s join log l on l.id = s.log_id where l.up = 1")
        ended = await asyncio.to_thread(until, self.log, "select max(acked) from peer", last)
        line = self.line
        sealed = one_value(self.log, SEALED.format(after=self.held))
        of_all = one_value(self.log, SEALED_OF_ALL.format(after=self.held))
        up, down = line.bytes_up - self.up, line.bytes_down - self.down
        took = RATE * (line.last_up_at - line.first_up_at)
        note(f"{name}: {ended - started:.1f} s, {up} up, {down} down, {sealed} sealed")
        return {
            f"{name}_s": round(ended - started, 1),
            f"{name}_sealed_bytes": sealed,
            f"{name}_bytes_up": up,
            f"{name}_bytes_down": down,
            f"{name}_ratio": round((up + down) / sealed, 3),
            f"{name}_ratio_of_all": round((up + down) / of_all, 3),
            f"{name}_of_json": round((up + down) / made, 3),
            f"{name}_share": round(up / took, 3),
            f"{name}_share_of_left": round(up / (took - line.repeated_up + self.repeated), 3),
            f"{name}_share_from_dial": round(up / RATE / (ended - started), 3),
            f"{name}_cuts": line.cuts - self.cuts,
            f"{name}_lost_bytes_up": line.repeated_up - self.repeated,
        }

    def share_of_data(self) -> float:
        """Of the line's rate, after the last rest."""
        line = self.line
        return round((line.bytes_up - line.paused_up_bytes) / RATE / (line.last_up_at - line.paused_up_at), 3)


async def bulk(folder: Path, line: Shaper, first: int, more: int) -> dict[str, Any]:
    shutil.copy(folder / "1301/log.db", folder / "before.db")
    made = write_licences(folder, first, 1)
    shutil.copy(folder / "1301/log.db", folder / "after.db")
    measured = Measured(folder, line)
    measured.held = 0
    child = Node("daemon", folder / "1301", FEDNODE_PARENT_ADDRESSES=f"127.0.0.1:{line.port}")
    try:
        started = (await asyncio.to_thread(child.event, "dialling"))["at"]
        figures = await measured.acked("first", started, made)
        figures["first_share_of_data"] = measured.share_of_data()
        figures |= await single(child, line)
        measured = Measured(folder, line)
        started = time.monotonic()
        made = await asyncio.to_thread(write_licences, folder, first, 3)
        figures |= await measured.acked("open", started, made)
        measured = Measured(folder, line)
        started = time.monotonic()
        made = await asyncio.to_thread(write_licences, folder, more, 2)
        figures |= await measured.acked("cut", started, made)
        return figures | await idle(line)
    finally:
        await asyncio.to_thread(child.end)


async def single(child: Node, line: Shaper) -> dict[str, Any]:
    """One changed record at a time in an idle session."""
    await asyncio.sleep(3)
    before = line.bytes_up + line.bytes_down
    found = await asyncio.to_thread(child.order, "singles", "singles", count=2)
    await asyncio.sleep(3)
    bytes_each = (line.bytes_up + line.bytes_down - before) / 2
    return {
        "single_bytes": round(bytes_each),
        "single_over_json": round(bytes_each - sum(found["json"]) / 2),
        "single_ms": [round(one) for one in found["ms"]],
    }


async def idle(line: Shaper) -> dict[str, Any]:
    """What an open session with nothing to say costs in the time of one beat of both sides."""
    await asyncio.sleep(3)
    before, cuts = line.bytes_up + line.bytes_down, line.cuts
    await asyncio.sleep(BEAT_MS / 1000)
    return {"open_nothing_bytes": line.bytes_up + line.bytes_down - before, "open_nothing_cuts": line.cuts - cuts}


async def nothing(folder: Path, port: int) -> dict[str, Any]:
    """`fednode sync` by hand with nothing to say: once with a full TLS handshake, then going on with that session.
    Round trips are what the line's delay adds to the same without any."""
    figures: dict[str, Any] = {}
    address = listening("1301")
    app = App.open(folder / "1301", address)
    took: dict[float, float] = {}
    for name, delay_s in (("nothing_first", DELAY_S), ("nothing_at_once", 0.0), ("nothing", DELAY_S)):
        async with Shaper("127.0.0.1", port, Line(delay_s=delay_s)) as line:
            app.config = replace(address, parent_addresses=(f"127.0.0.1:{line.port}",))
            start = time.monotonic()
            report = await sync_once(app)
            took[delay_s] = time.monotonic() - start
            figures[f"{name}_bytes"] = line.bytes_up + line.bytes_down
            figures[f"{name}_frame_bytes"] = report.bytes_sent + report.bytes_received
    app.close()
    trips = round((took[DELAY_S] - took[0.0]) / (2 * DELAY_S), 2)
    return {**figures, "nothing_round_trips": trips, "nothing_round_trips_after_tcp": round(trips - 1, 2)}


async def beside(folder: Path, port: int) -> dict[str, Any]:
    """`fednode sync` with nothing to say beside a daemon with an open session. Round trips as in `nothing`."""
    took: dict[float, float] = {}
    figures: dict[str, Any] = {}
    for delay_s in (0.0, DELAY_S):
        async with Shaper("127.0.0.1", port, Line(delay_s=delay_s)) as line:
            address = f"127.0.0.1:{line.port}"
            child = Node("daemon", folder / "1301", FEDNODE_PARENT_ADDRESSES=address)
            app = App.open(folder / "1301", replace(listening("1301"), parent_addresses=(address,)))
            try:
                await open_session(app)
                connections = line.connections
                found = [await once_beside(app, line) for _ in range(TIMES)]
                took[delay_s] = statistics.median(seconds for seconds, _, _ in found)
                figures["beside_bytes"] = statistics.median(moved for _, moved, _ in found)
                figures["beside_frame_bytes"] = statistics.median(frames for _, _, frames in found)
                figures["beside_command_bytes"] = await command_beside(folder, line)
                figures["beside_connections"] = line.connections - connections
            finally:
                app.close()
                await asyncio.to_thread(child.end)
    trips = (took[DELAY_S] - took[0.0]) / (2 * DELAY_S)
    return {**figures, "beside_ms_at_once": round(1000 * took[0.0]), "beside_round_trips": round(trips, 2)}


async def open_session(app: App) -> None:
    """Until the daemon has one, and it is quiet."""
    for _ in range(60):
        await asyncio.sleep(1)
        if (await sync_now(app)).over == DAEMONS:
            await asyncio.sleep(5)
            return
    raise RuntimeError("the daemon has no session")


async def once_beside(app: App, line: Shaper) -> tuple[float, int, int]:
    """Seconds; bytes of the line, of frames."""
    before, start = line.bytes_up + line.bytes_down, time.monotonic()
    report = await sync_now(app)
    took = time.monotonic() - start
    if report.over != DAEMONS:
        raise RuntimeError("the command has dialled")
    await asyncio.sleep(1)
    return took, line.bytes_up + line.bytes_down - before, report.bytes_sent + report.bytes_received


async def command_beside(folder: Path, line: Shaper) -> int:
    """The whole command, a process of its own, and what its entry in the audit costs the line."""
    before = line.bytes_up + line.bytes_down
    config = listening("1301")
    settings = {"FEDNODE_LISTEN": config.listen, "FEDNODE_PARENT_ADDRESSES": f"127.0.0.1:{line.port}"}
    command = (str(Path(sys.executable).with_name("fednode")), "--home", str(folder / "1301"), "--json", "sync")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, env={**os.environ, **settings}
    )
    out, _ = await process.communicate()
    if json.loads(out)["sync"]["over"] != DAEMONS:
        raise RuntimeError("the command has dialled")
    await asyncio.sleep(5)
    return line.bytes_up + line.bytes_down - before


async def resumed(folder: Path, port: int, count: int) -> dict[str, Any]:
    """By hand, after `nothing`, whose TLS session this process still has."""
    address = listening("1301")
    made = await asyncio.to_thread(write_licences, folder, count, 4)
    async with Shaper("127.0.0.1", port, Line(RATE, DELAY_S, LOSS, CUT_S, seed=1)) as line:
        measured = Measured(folder, line)
        measured.held = one_value(measured.log, "select max(acked) from peer")
        app = App.open(folder / "1301", replace(address, parent_addresses=(f"127.0.0.1:{line.port}",)))
        started = time.monotonic()
        try:
            await sync_once(app)
        finally:
            app.close()
        return await measured.acked("resumed", started, made)


def rsync_there() -> bool:
    """Whether rsync is installed; where the machine lets it, it is."""
    if shutil.which("rsync") is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        install = ["apt-get", "install", "-yqq", "--no-install-recommends", "rsync"]
        subprocess.run(install, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return shutil.which("rsync") is not None


async def rsync(folder: Path) -> dict[str, Any]:
    """The child's log.db, to where a copy from before its first licences lies; again after each cut."""
    if not await asyncio.to_thread(rsync_there):
        return {"rsync": "not installed"}
    there = folder / "rsync"
    there.mkdir()
    shutil.copy(folder / "before.db", there / "log.db")
    shutil.copy(folder / "after.db", folder / "log.db")
    conf = folder / "rsyncd.conf"
    conf.write_text(
        f"use chroot = no\n[store]\npath = {there}\nread only = no\nuid = {os.getuid()}\ngid = {os.getgid()}\n"
    )
    port = free_port()
    serve = ("rsync", "--daemon", "--no-detach", "--address=127.0.0.1", f"--port={port}", f"--config={conf}")
    server = await asyncio.create_subprocess_exec(*serve)
    try:
        await asyncio.sleep(1)
        async with Shaper("127.0.0.1", port, Line(RATE, DELAY_S, LOSS, CUT_S, seed=1)) as line:
            start, tries = time.monotonic(), 0
            code: int | None = None
            while code != 0 and tries < 20:
                tries += 1
                send = ("rsync", "-z", "--inplace", "--partial", str(folder / "log.db"))
                one = await asyncio.create_subprocess_exec(*send, f"rsync://127.0.0.1:{line.port}/store/log.db")
                code = await one.wait()
            if (there / "log.db").read_bytes() != (folder / "log.db").read_bytes():
                raise RuntimeError("rsync did not bring the file over")
            moved = line.bytes_up + line.bytes_down
            return {"rsync_bytes": moved, "rsync_s": round(time.monotonic() - start, 1), "rsync_tries": tries}
    finally:
        server.terminate()
        await server.wait()


async def link(folder: Path, first: int, more: int) -> dict[str, Any]:
    line = Line(RATE, DELAY_S, LOSS, CUT_S, seed=1)
    result: dict[str, Any] = {"bench": "link", "first": first, "more": more, "machine": hop.machine(folder)}
    await hop.join(folder)
    parent = Node("daemon", folder / "13")
    try:
        port = int((await asyncio.to_thread(parent.event, "ready"))["port"])
        async with Shaper("127.0.0.1", port, line) as shaper:
            result |= await bulk(folder, shaper, first, more)
            result |= {"packets_lost": shaper.lost, "connections": shaper.connections}
        result |= await nothing(folder, port)
        result |= await resumed(folder, port, first)
        result |= await beside(folder, port)
    finally:
        await asyncio.to_thread(parent.end)
    result |= await rsync(folder)
    if "rsync_bytes" in result:
        result["rsync_ratio"] = round(result["rsync_bytes"] / result["first_sealed_bytes"], 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench link", description=__doc__.split("\n\n")[0])
    parser.add_argument("--first", type=int, default=1000)
    parser.add_argument("--more", type=int, default=6000)
    parser.add_argument("--dir", type=Path, help="where to make the folder of the two nodes (default: TMPDIR)")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=arguments.dir))
    try:
        print(json.dumps(asyncio.run(link(folder, arguments.first, arguments.more)), indent=1))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
