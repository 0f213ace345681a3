"""scripts/bench promotion: what a standby is worth, on this machine. Prints one JSON document; progress goes to stderr.

A province, a city with 100 counties and a million records of theirs, and the city's standby, on loopback. City and
standby are processes of their own, the counties' daemons (real ones, real gRPC) share four. Mutual TLS, durable on a
real disk at every hop.

    hop_ack_per_s      `scripts/bench hop`, first, in the same run
    catch_up_per_s     a fresh standby, from the moment it dials until the city has its acknowledgement of everything
    catch_up_of_hop    the one by the other (bar: 0.8)
    lag_..._ms         steady load, so many single changes a second from all counties: from the moment a change is seen
                       in the city's store until the standby's acknowledgement of it is there (bar: 1 s at p99)
    promotion          the city is killed (SIGKILL); `fednode promote --yes` at the standby at once, then its daemon
      verify_s         before that: `fednode audit verify` at the standby, as on any day; the promotion verifies what
                       came after
      stopped_s        until the standby's daemon has stopped, for the command
      promote_s        from the kill until the command's end
      serving_s        until the standby's ports are open
      first_s, median_s, all_s   until the first, half, all of the counties have a change acknowledged that they wrote
                       when the city was killed (bar: 10 s for all)

    _bench_promotion.py children FOLDER PART     a process of counties: orders in, events out, as _bench_node.py
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import shutil
import signal
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import _bench_data
import _bench_hop
import msgspec
from _bench_hop import listening, machine, note, one_value, until
from _bench_node import DATASET, say

from fednode.node import shipped
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.daemon import serve
from fednode.node.demotion import SUCCESSORS
from fednode.node.syncing import sync_once
from fednode.sync.change import Change
from fednode.sync.enrol import Token

FEDNODE = Path(sys.executable).with_name("fednode")
CITY, STANDBY = "1301", "1301-s1"
CHILDREN_MAX = 100
WRITE_AT_ONCE = 10_000
PROCESSES = 4  # for the counties' daemons
QUIET = ("blank off", "late off")  # a hundred daily surveys, all in the first minute, would be what is measured
LOOK_S = 0.25  # often enough for a bar of 10 s, and little beside what is measured
LAST = f"select max(s.lsn) from segment s join log l on l.id = s.log_id where l.origin <> '{STANDBY}'"


class Node(_bench_hop.Node):
    """A process of _bench_node.py."""


class Children(_bench_hop.Node):
    """Some of the counties, in one process."""

    script = "_bench_promotion.py"

    def tell(self, **order: Any) -> None:
        if self.process.stdin is None:
            raise RuntimeError("no stdin")
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()


def county(number: int) -> str:
    """Its id, and its area: each has one of its own, as in a province."""
    return f"1301{number:02}"


def settings(home: Path) -> dict[str, str]:
    config = listening(home.name)
    return {"FEDNODE_LISTEN": config.listen, "FEDNODE_ENROL_LISTEN": config.enrol_listen}


def run(home: Path, *words: str) -> dict[str, Any]:
    """One command of the real command line."""
    done = subprocess.run(
        [str(FEDNODE), "--home", str(home), "--json", *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **settings(home)},
    )
    if done.returncode:
        raise RuntimeError(f"{words}: {done.stdout}{done.stderr}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


# ---------------------------------------------------------------- the counties


async def children(homes: list[Path]) -> None:
    """Daemons of all counties, in one process."""
    config = Config(scrub_days=0, alerts_rules=QUIET, listen="127.0.0.1:0", enrol_listen="127.0.0.1:0")
    apps = [App.open(home, config) for home in homes]
    stops: list[Callable[[], None]] = []
    running = [asyncio.create_task(serve(app, lambda _port, _enrol: None, stops.append)) for app in apps]
    say("ready", count=len(apps))
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        if order["do"] == "stop":
            break
        if order["do"] == "steady":
            say("steady", written=await steady(apps, order["rate"], order["seconds"]))
        elif order["do"] == "one":
            say("one", acked=await one_each(apps))
    for stop in stops:
        stop()
    await asyncio.gather(*running)
    say("ended")


def registered(one: dict[str, str], area: str) -> Change:
    """A change as an import writes it, of an organisation of a county's area."""
    row = dict(sorted({**one, "area": area}.items()))
    return Change(row["uscc"].encode(), msgspec.json.encode(row))


def write(app: App, r: random.Random) -> None:
    app.new_writer(app.store).local(DATASET, app.trust.area, [registered(_bench_data.row(r), app.trust.area)])
    app.poke()


async def steady(apps: list[App], rate: float, seconds: int) -> int:
    """Single changes, from one county after the other, so many a second."""
    r, loop, count = random.Random(time.time_ns()), asyncio.get_running_loop(), round(rate * seconds)
    start = loop.time()
    for number in range(count):
        write(apps[number % len(apps)], r)
        await asyncio.sleep(max(0.0, start + (number + 1) / rate - loop.time()))
    return count


async def one_each(apps: list[App]) -> list[float]:
    """A change from each county, now: when (monotonic seconds) each was acknowledged."""
    r = random.Random(time.time_ns())
    waiting = {}
    for app in apps:
        write(app, r)
        waiting[app.trust.node] = (app, app.store.lsn)
    acked = []
    while waiting:
        await asyncio.sleep(LOOK_S)
        for node, (app, lsn) in list(waiting.items()):
            peer = app.store.peer(CITY)
            done = app.store.rows("select first_time from segment where lsn >= ? order by lsn limit 1", lsn)
            if peer is not None and done and done[0][0] is not None:
                acked.append(time.monotonic())
                del waiting[node]
    return acked


# ---------------------------------------------------------------- making it


async def found(folder: Path, count: int, records: int) -> None:
    """Province, city, counties with their records."""
    province = App.init_province(folder / "13", listening("13"), node="13", name="河北省", domain="hebei")
    province.publish_catalog(shipped.catalog())
    token = Token.decode(province.invite(CITY, "city", "石家庄市"))
    province.close()
    parent = Node("daemon", folder / "13")
    parent.event("ready", 30)
    city = await App.join(folder / CITY, listening(CITY), token)
    await sync_once(city)
    tokens = [city.invite(one, "county", f"county {one}", (one,)) for one in map(county, range(count))]
    city.close()
    serving = Node("daemon", folder / CITY)
    serving.event("ready", 30)
    rows = _bench_data.rows(records)
    for number, text in enumerate(tokens):
        app = await App.join(folder / "children" / county(number), Config(), Token.decode(text))
        await sync_once(app)
        fill(app, rows, records // count)
        app.close()
    await asyncio.to_thread(serving.end)
    await asyncio.to_thread(parent.end)


def fill(app: App, rows: Any, count: int) -> None:
    writer = app.new_writer(app.store)
    left = count
    while left:
        part = [next(rows) for _ in range(min(left, WRITE_AT_ONCE))]
        writer.local(DATASET, app.trust.area, [registered(one, app.trust.area) for one in part])
        left -= len(part)


# ---------------------------------------------------------------- measuring


def caught_up(folder: Path) -> float:
    """When the city has its standby's acknowledgement of everything."""
    log = folder / CITY / "log.db"
    return until(log, f"select acked from peer where node = '{STANDBY}'", one_value(log, LAST))


def lags(folder: Path, seconds: float) -> list[float]:
    """Sampled at the city: how long each number was not acknowledged yet (milliseconds)."""
    connection = sqlite3.connect(f"file:{folder / CITY / 'log.db'}?mode=ro", uri=True)
    end, seen, waiting, found = time.monotonic() + seconds, 0, [], []
    try:
        while time.monotonic() < end or waiting:
            now = time.monotonic()
            lsn, acked = connection.execute(
                f"""select ({LAST}), (select acked from peer where node = '{STANDBY}')"""
            ).fetchone()
            if lsn > seen:
                waiting.append((lsn, now))
                seen = lsn
            done = [one for one in waiting if one[0] <= acked]
            found += [(now - at) * 1000 for _, at in done]
            waiting = waiting[len(done) :]
            if now > end + 30:
                break
            time.sleep(0.001)
    finally:
        connection.close()
    return found


def promotion(folder: Path, nodes: dict[str, Any], counties: list[Children]) -> dict[str, Any]:
    """The city is killed; how long it takes."""
    home = folder / STANDBY
    began = time.monotonic()
    verified = run(home, "audit", "verify")
    verify_s = time.monotonic() - began
    standby, city = nodes["standby"], nodes["city"]
    city.process.send_signal(signal.SIGKILL)
    killed = time.monotonic()
    for some in counties:
        some.tell(do="one")
    standby.end()
    stopped = time.monotonic()
    run(home, "promote", "--yes", "--primary-is-gone")
    promoted = time.monotonic()
    nodes["standby"] = Node("daemon", home)
    serving = nodes["standby"].event("ready")["at"]
    acked = sorted(at - killed for some in counties for at in some.event("one")["acked"])
    return {
        "verify_s": round(verify_s, 2),
        "verified_changes": verified.get("changes"),
        "stopped_s": round(stopped - killed, 2),
        "promote_s": round(promoted - killed, 2),
        "serving_s": round(serving - killed, 2),
        "first_s": round(acked[0], 2),
        "median_s": round(statistics.median(acked), 2),
        "all_s": round(acked[-1], 2),
    }


def measure(folder: Path, count: int, records: int, hop_changes: int, rate: int, seconds: int) -> dict[str, Any]:
    result: dict[str, Any] = {"bench": "promotion", "records": records, "children": count, "machine": machine(folder)}
    if hop_changes:
        note("hop")
        hop = _bench_hop.hop(folder / "hop", hop_changes, 0, "", False)
        result["hop_ack_per_s"] = hop["ack_per_s"]
        shutil.rmtree(folder / "hop", ignore_errors=True)
        listening.cache_clear()
    note("founding")
    asyncio.run(found(folder, count, records))
    nodes: dict[str, Any] = {"province": Node("daemon", folder / "13"), "city": Node("daemon", folder / CITY)}
    for one in nodes.values():
        one.event("ready")
    began = time.monotonic()
    counties = started(folder)
    until(
        folder / CITY / "log.db",
        f"select sum(size) from log where dataset = '{DATASET}'",
        records // count * count,
    )
    note(f"the city has all after {time.monotonic() - began:.1f} s")
    result["fill_per_s"] = round(records / (time.monotonic() - began))
    until(folder / "13" / "log.db", f"select sum(size) from log where dataset = '{DATASET}'", records // count * count)
    for some in counties:
        some.end()  # a hop is two processes on this machine, and so is what is compared with it
    token = Token.decode(run(folder / CITY, "standby", "invite")["token"])
    asyncio.run(join_standby(folder, token))
    nodes["standby"] = Node("daemon", folder / STANDBY)
    dialled = nodes["standby"].event("dialling")["at"]
    took = caught_up(folder) - dialled
    changes = one_value(folder / STANDBY / "log.db", f"select sum(size) from log where dataset = '{DATASET}'")
    result["catch_up_per_s"] = round(changes / took)
    if hop_changes:
        result["catch_up_of_hop"] = round(result["catch_up_per_s"] / result["hop_ack_per_s"], 3)
    note(f"the standby has all after {took:.1f} s: {result['catch_up_per_s']} a second")
    until(folder / STANDBY / "state.db", f"select count(*) from record where {_bench_hop.OF_THE_DATASET}", changes)
    run(folder / "13", "standby", "allow", STANDBY)
    counties = started(folder)
    rest(folder)
    os.sync()
    for some in counties:
        some.tell(do="steady", rate=rate / PROCESSES, seconds=seconds)
    told = sorted(lags(folder, seconds))
    for some in counties:
        some.event("steady")
    result |= {
        "lag_samples": len(told),
        "lag_p50_ms": round(told[len(told) // 2], 1),
        "lag_p99_ms": round(told[len(told) * 99 // 100], 1),
        "lag_max_ms": round(told[-1], 1),
    }
    note(f"lag p99 {result['lag_p99_ms']} ms")
    result["promotion"] = promotion(folder, nodes, counties)
    for some in counties:
        some.end()
    for name in ("standby", "province"):
        nodes[name].end()
    return result


def started(folder: Path) -> list[Children]:
    """The counties' daemons."""
    counties = [Children("children", folder / "children", str(part)) for part in range(PROCESSES)]
    for some in counties:
        some.event("ready")
    return counties


def rest(folder: Path) -> None:
    """Until every node has projected what it holds, full text, too: on machines of their own that would slow nobody;
    and every county knows its city's standby."""
    for home in sorted((folder / "children").iterdir()):
        until(home / "log.db", f"select count(*) from meta where key = '{SUCCESSORS}'", 1)
    for home in [folder / "13", folder / CITY, folder / STANDBY, *sorted((folder / "children").iterdir())]:
        last = one_value(home / "state.db", "select max(id) from record")
        until(home / "state.db", "select value from meta where key = 'text_id'", last)
    note("all are at rest")


async def join_standby(folder: Path, token: Token) -> None:
    app = await App.join(folder / STANDBY, listening(STANDBY), token)
    app.close()


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "children":
        homes = sorted(path for path in Path(sys.argv[2]).iterdir() if path.is_dir())
        asyncio.run(children(homes[int(sys.argv[3]) :: PROCESSES]))
        return
    parser = argparse.ArgumentParser(prog="scripts/bench promotion", description=__doc__.split("\n\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--children", type=int, default=100)
    parser.add_argument("--hop", type=int, default=200_000, help="changes of the hop that is measured first; 0: none")
    parser.add_argument("--rate", type=int, default=50, help="changes a second of the steady load")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--dir", type=Path, help="where to make the folder of the nodes (a real disk; default: TMPDIR)")
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    given = parser.parse_args()
    if not 0 < given.children <= CHILDREN_MAX:
        parser.error(f"--children: 1 to {CHILDREN_MAX}, an area for each")
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=given.dir))
    (folder / "children").mkdir()
    (folder / "hop").mkdir()
    try:
        print(
            json.dumps(measure(folder, given.children, given.records, given.hop, given.rate, given.seconds), indent=1)
        )
    finally:
        if not given.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
