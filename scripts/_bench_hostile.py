"""scripts/bench hostile, scripts/bench children: one real daemon, and too many who want something of it. Prints one
JSON document; progress goes to stderr.

The node is a province, `fednode run` as a process of its own, with mutual TLS on loopback and its store on a real disk.
Honest children are guests (tests/lib/hostile.py): the real exchange and real gRPC, with a log and without a home.

`hostile`: honest children write one after the other, so many changes a second; first alone (the baseline), then while
strangers and thieves are at work: eight kinds of each, a fifth of them with certificates of children, one connection
each, opened again 0.2 s after the node has hung up.

    ack_..._ms        from a change until its acknowledgement (it is on the node's disk), of children that are connected
    dial_..._ms       a child that dials, brings one change, and leaves: from dialling until its acknowledgement
    rss_mb, ...       the daemon's resident memory, processor seconds, open files; `rss_peak_mb` over the whole run
    p99_ratio         of ack, under attack to alone (bar: 2)
    control_p99_ms    of ack, while as many processes as attack are busy with nothing, behind the daemon as these are:
                      what the bench itself costs, for want of other machines

`children`: so many children dial at once, bring one change each, and leave (`--stay`: stay connected), told to come
again when there is no seat. The clients' own work is on the same machine.

    served_..._s      from the start until a child has its acknowledgement: half, 99 of 100, all of them
    told_to_wait      how often one was told to come again
    connected         how many were connected when all had been served (`then`: what the daemon has at that moment)
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import multiprocessing
import os
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lib"))
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

import msgspec
from _bench_hop import Node, listening, machine, note
from _bench_node import change

import hostile
from fednode.node import carrier, shipped
from fednode.node.app import App
from fednode.node.schedule import RETRY_MAX_S, retrying
from fednode.sync.change import Change
from fednode.sync.errors import BUSY, Unavailable
from hostile import Guest, Tally, Target

FORK = multiprocessing.get_context("fork")
CLIENTS = 4  # processes
RAMP_S = 10.0
PAUSE_S = 0.2
DIAL_EVERY_S = 0.5
RETRY_S = 1.0
LOOK_S = 5.0
WITHIN_S = 5.0
LATE_S = 60.0  # whoever waits for longer is counted, and not waited for


def enough_files() -> int:
    """As many open files as this process may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def spent(pid: int) -> dict[str, float]:
    """What a process has, and has used."""
    text = Path(f"/proc/{pid}/status").read_text()
    kib = {line.split(":")[0]: int(line.split()[1]) for line in text.splitlines() if line.startswith("Vm")}
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    cpu = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return {
        "rss_mb": round(kib["VmRSS"] / 1024, 1),
        "rss_peak_mb": round(kib["VmHWM"] / 1024, 1),
        "cpu_s": round(cpu, 2),
        "files": len(os.listdir(f"/proc/{pid}/fd")),
    }


def shares(pid: int, clients: list[Any]) -> dict[str, float]:
    """Processor seconds of the daemon, of the honest children (this process), of the attackers."""
    attackers = sum(spent(one.pid)["cpu_s"] for one in clients)
    return {"daemon": spent(pid)["cpu_s"], "honest": spent(os.getpid())["cpu_s"], "attackers": attackers}


def figures(name: str, seconds: list[float]) -> dict[str, float]:
    found = sorted(seconds)
    if not found:
        return {f"{name}_samples": 0}
    at = {"p50": len(found) // 2, "p99": len(found) * 99 // 100, "max": len(found) - 1}
    return {f"{name}_samples": len(found), **{f"{name}_{key}_ms": round(found[i] * 1000, 1) for key, i in at.items()}}


def own(guest: Guest, r: random.Random) -> Change:
    """A change of an area of a child's."""
    one = change(r)
    payload = {**msgspec.json.decode(one.payload or b""), "area": guest.area}
    return Change(one.key, msgspec.json.encode(payload))


def target() -> Target:
    """Where the province listens."""
    return Target(listening("13").listen, listening("13").enrol_listen, lambda: asyncio.sleep(PAUSE_S))


def founded(folder: Path, guests: int) -> list[Guest]:
    """A province whose children are enrolled."""
    app = App.init_province(folder / "13", listening("13"), node="13", name="河北省", domain="hebei")
    app.publish_catalog(shipped.catalog())
    found = hostile.enrolled(app, guests)
    app.close()
    return found


# ---------------------------------------------------------------- hostile


def give_way() -> None:
    """This process has what the node and the honest leave of the machine: in the world attackers bring their own."""
    if os.sched_getscheduler(0) == os.SCHED_RR:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    else:
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


def end_of_it(processes: list[Any]) -> None:
    """They may have the machine, so that they end where others want it, too."""
    for one in processes:
        with contextlib.suppress(OSError):
            os.sched_setscheduler(one.pid, os.SCHED_OTHER, os.sched_param(0))


def burning(begin: Any, end: Any) -> None:
    """A process that is busy with nothing: for the control."""
    give_way()
    begin.wait()
    while not end.is_set():
        sum(range(100_000))


def attacking(
    to: Target, strangers: int, thieves: list[Guest], only: list[str], begin: Any, end: Any, result: Any
) -> None:
    """A process of attackers. `only`: see `hostile.attack`."""
    enough_files()
    give_way()

    async def attack() -> None:
        tally: Tally = Tally()
        jobs = hostile.attack(to, strangers, thieves, tally, only)
        await asyncio.to_thread(end.wait)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        result.put(dict(tally))

    begin.wait()
    asyncio.run(attack())


async def steady(to: Target, guests: list[Guest], coming: list[Guest], rate: float, seconds: float) -> dict[str, Any]:
    """Changes one after the other, and children that come and go."""
    r, loop = random.Random(1), asyncio.get_running_loop()
    end, puts, dials = loop.time() + seconds, [], []

    async def put(guest: Guest) -> None:
        puts.append(await guest.put(own(guest, r)))

    async def dial() -> None:
        guest, began = coming.pop(), loop.time()
        while True:
            job = asyncio.ensure_future(carrier.dial(to.exchange, guest.credentials, guest.parent, guest.run))
            asked = asyncio.ensure_future(guest.put(own(guest, r)))
            await asyncio.wait([job, asked], return_when=asyncio.FIRST_COMPLETED)
            if asked.done():
                dials.append(loop.time() - began)
                coming.insert(0, guest)
                job.cancel()
                await asyncio.gather(job, return_exceptions=True)
                return
            asked.cancel()
            await asyncio.gather(job, asked, return_exceptions=True)
            await asyncio.sleep(RETRY_S)

    waiting: list[asyncio.Future[None]] = []
    number, next_dial = 0, loop.time()
    while loop.time() < end:
        waiting.append(asyncio.ensure_future(put(guests[number % len(guests)])))
        number += 1
        if loop.time() >= next_dial and coming:
            waiting.append(asyncio.ensure_future(dial()))
            next_dial += DIAL_EVERY_S
        await asyncio.sleep(1 / rate)
    _, late = await asyncio.wait(waiting, timeout=LATE_S)
    for one in late:
        one.cancel()
    return {**figures("ack", puts), **figures("dial", dials), "not_acked": len(late)}


async def connected(to: Target, guests: list[Guest]) -> list[asyncio.Future[None]]:
    """Honest children, at the node for good."""
    jobs = []
    for guest in guests:
        jobs.append(asyncio.ensure_future(carrier.dial(to.exchange, guest.credentials, guest.parent, guest.run)))
        await guest.put(own(guest, random.Random(len(jobs))))

    async def tick() -> None:
        while True:
            await asyncio.sleep(hostile.TICK_S)
            for guest in guests:
                guest.tick()

    return [*jobs, asyncio.ensure_future(tick())]


def hostility(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    thieves, honest = arguments.streams // 5, arguments.honest
    guests = founded(folder, thieves + honest + 40)
    thief, rest = guests[:thieves], guests[thieves:]
    to = target()
    begin, end, result = FORK.Event(), FORK.Event(), FORK.Queue()
    strangers = arguments.streams - thieves
    processes = [
        FORK.Process(
            target=attacking,
            args=(to, strangers // CLIENTS, thief[part::CLIENTS], arguments.only, begin, end, result),
            daemon=True,
        )
        for part in range(CLIENTS)
    ]
    burn, burnt = FORK.Event(), FORK.Event()
    burners = [FORK.Process(target=burning, args=(burn, burnt), daemon=True) for _ in range(CLIENTS)]
    for one in (*processes, *burners):
        one.start()
    daemon = Node("daemon", folder / "13")
    daemon.event("ready")
    pid = daemon.process.pid

    async def measure() -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        jobs = await connected(to, rest[:honest])
        before = spent(pid)
        note("alone")
        alone = await steady(to, rest[:honest], rest[honest:], arguments.rate, arguments.seconds)
        calm = spent(pid)
        burn.set()
        note("control")
        control = await steady(to, rest[:honest], rest[honest:], arguments.rate, arguments.seconds)
        burnt.set()
        begin.set()
        note("attack")
        await asyncio.sleep(RAMP_S)
        since, began = shares(pid, processes), loop.time()
        attacked = await steady(to, rest[:honest], rest[honest:], arguments.rate, arguments.seconds)
        took = loop.time() - began
        share = {name: round((now - since[name]) / took, 2) for name, now in shares(pid, processes).items()}
        under = spent(pid)
        gone = [one.closed for one in rest[:honest] if one.exchange is None]
        end.set()
        end_of_it(processes)
        tally: Tally = Tally()
        for _ in processes:
            tally.update(await asyncio.to_thread(result.get, True, 120))
        await asyncio.sleep(RAMP_S)
        after = spent(pid)
        for job in jobs:
            job.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)
        ratio = attacked["ack_p99_ms"] / alone["ack_p99_ms"]
        return {
            "alone": {**alone, "daemon": calm, "began": before},
            "control": control,
            "attacked": {**attacked, "cores": share, "daemon": under, "honest_lost": len(gone)},
            "p99_ratio": round(ratio, 2),
            "control_p99_ms": control["ack_p99_ms"],
            "after": after,
            "tally": dict(sorted(tally.items())),
            "log_db_mb": round((folder / "13/log.db").stat().st_size / 2**20, 1),
        }

    found = asyncio.run(measure())
    for one in (*processes, *burners):
        one.join(30)
    daemon.end()
    return {"bench": "hostile", "strangers": strangers, "thieves": thieves, "honest": honest, **found}


# ---------------------------------------------------------------- children


def dialling(to: Target, guests: list[Guest], stay: bool, begin: Any, end: Any, result: Any, count: Any) -> None:
    """A process of children."""
    enough_files()
    heard: Tally = Tally()
    # each is a machine of its own, and goes on with its own TLS sessions
    carrier._session_cache = functools.cache(lambda _: carrier.ssl_session_cache_lru(carrier.TLS_SESSIONS))

    async def attempt(guest: Guest, asked: asyncio.Future[float], stays: list[asyncio.Future[None]]) -> None:
        """Dial until it has its acknowledgement, or is told why not. Raises Unavailable."""
        job = asyncio.ensure_future(carrier.dial(to.exchange, guest.credentials, guest.parent, guest.run))
        await asyncio.wait([job, asked], return_when=asyncio.FIRST_COMPLETED)
        if asked.done() and stay:
            stays.append(job)
            return
        if asked.done():
            job.cancel()
        (found,) = await asyncio.gather(job, return_exceptions=True)
        if not asked.done():
            error = found if isinstance(found, Exception) else guest.closed
            code = getattr(error, "code", "")
            heard[code if code == BUSY else str(error)[:120]] += 1
            raise error if isinstance(error, Unavailable) else Unavailable("FN-4501", address="", reason=str(error))

    async def one(guest: Guest, r: random.Random, stays: list[asyncio.Future[None]]) -> tuple[float, int]:
        guest.seal(own(guest, r))
        await asyncio.sleep(r.uniform(0, WITHIN_S))
        asked, attempts = guest.until_acked(), 0
        async for trying in retrying(lambda: RETRY_MAX_S):  # as the daemon's dialer does
            attempts += 1
            with trying:
                await attempt(guest, asked, stays)
        with count.get_lock():
            count.value += 1
        return asked.result(), attempts - 1

    async def all_of_them() -> None:
        r, stays = random.Random(os.getpid()), list[asyncio.Future[None]]()

        async def tick() -> None:
            while True:
                await asyncio.sleep(hostile.TICK_S)
                for guest in guests:
                    guest.tick()

        ticking = asyncio.ensure_future(tick())
        found = await asyncio.gather(*(one(guest, r, stays) for guest in guests))
        result.put((found, dict(heard)))
        await asyncio.to_thread(end.wait)
        result.put(sum(one.exchange is not None for one in guests))
        ticking.cancel()
        for job in stays:
            job.cancel()
        await asyncio.gather(*stays, return_exceptions=True)

    begin.wait()
    asyncio.run(all_of_them())


def children(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    note(f"{arguments.children} children join")
    guests = founded(folder, arguments.children)
    to = target()
    begin, end, result, count = FORK.Event(), FORK.Event(), FORK.Queue(), FORK.Value("i", 0)
    processes = [
        FORK.Process(
            target=dialling, args=(to, guests[part::CLIENTS], arguments.stay, begin, end, result, count), daemon=True
        )
        for part in range(CLIENTS)
    ]
    for one in processes:
        one.start()
    daemon = Node("daemon", folder / "13", FEDNODE_SERVE_SESSIONS=str(arguments.seats))
    daemon.event("ready")
    pid = daemon.process.pid
    before = spent(pid)
    note("they dial")
    began = time.monotonic()
    begin.set()
    while count.value < len(guests):
        time.sleep(LOOK_S)
        note(f"{time.monotonic() - began:.0f} s: {count.value} served; {spent(pid)}")
    heard: Tally = Tally()
    found: list[tuple[float, int]] = []
    for _ in processes:
        some, told = result.get(True, 60)
        found += some
        heard.update(told)
    served = sorted(at - began for at, _ in found)
    full = spent(pid)
    end.set()
    connected = sum(result.get(True, 60) for _ in processes)
    for one in processes:
        one.join(60)
    daemon.end()
    return {
        "bench": "children",
        "children": len(served),
        "seats": arguments.seats,
        "stay": arguments.stay,
        "served_half_s": round(served[len(served) // 2], 1),
        "served_p99_s": round(served[len(served) * 99 // 100], 1),
        "served_all_s": round(served[-1], 1),
        "told_to_wait": sum(waits for _, waits in found),
        "most_told_to_wait": max(waits for _, waits in found),
        "connected": connected,
        "heard": dict(heard.most_common(12)),
        "before": before,
        "then": full,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench")
    parser.add_argument("what", choices=("hostile", "children"))
    parser.add_argument("--streams", type=int, default=1_000)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--honest", type=int, default=20)
    parser.add_argument("--rate", type=float, default=20)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--children", type=int, default=5_000)
    parser.add_argument("--seats", type=int, default=2_000)
    parser.add_argument("--stay", action="store_true")
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    files = enough_files()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as temporary:
        folder = Path(temporary)
        found = (hostility if arguments.what == "hostile" else children)(folder, arguments)
        print(json.dumps({**found, "files_max": files, "machine": machine(folder)}, indent=1, ensure_ascii=False))


if __name__ == "__main__":
    main()
