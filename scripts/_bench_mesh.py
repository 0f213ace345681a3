"""scripts/bench mesh: the real tree of Hebei folded into the province's table, in one process. Prints a JSON document.

Every node of the tree meets its parent once in ten minutes of virtual time; each city passes on once a minute what has
changed below it, in frames as they come over the wire (decoded here). With every meeting `seen` changes, with one in
ten the backlog, with one in a hundred the rest.

    nodes, taken_in_s   the tree, and how long it takes to take its names in (once, when sys.nodes has grown)
    reports_s           reports that come in, a second of virtual time
    cpu_percent         of one core, to decode and fold them (bar: 15)
    bytes_s             what comes in of them, a second
    rss_mib             memory of the process, the directory with its identities in it (bar: 400)
    file_mib            health.db
    ..._ms, ..._cpu_ms  a query, the longest of ten, on the wall (bar: 200) and of the processor; `view`: what each look
                        prepares, in all of them
    console             with --page: a real daemon's console in Chromium (`_bench_console`)
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import random
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _bench_console import measure

from fednode.crypto.certs import Identity
from fednode.node.mesh.bounds import Bounds
from fednode.node.mesh.table import FRAME_ENTRIES, Table
from fednode.node.mesh.view import Filter, View
from fednode.node.mesh.watcher import roster
from fednode.node.trust import Trust
from fednode.sync import wire
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen
from fednode.sync.identity import Directory
from fednode.sync.wire_health import about_bytes, load_bytes

TREE = Path(__file__).resolve().parents[2] / "shared/data/hebei-divisions.csv"
START_MS = 1_780_000_000_000
EVERY_MINUTES = 10
ME = "13"
BOUNDS = Bounds.of(("26h", "city 15m", "county 1h"), ("26h", "city 30m", "county 2h"), 10_000)


class Tree:
    """What `roster` and `inside` need of a Trust, without 56,712 certificates."""

    def __init__(self, path: Path) -> None:
        self.node = ME
        self.directory = Directory.__new__(Directory)
        blank: dict[str, Any] = {"_nodes": {}, "_lives": {}, "_by_scope": {}, "_standbys": {}, "_revoked": {}}
        for name, value in {**blank, "_acted_s": {}, "root": None, "heard": frozenset()}.items():
            setattr(self.directory, name, value)
        self.directory.levels = ("province", "city", "county", "township", "village")
        with path.open(encoding="utf-8") as file:
            for row in csv.DictReader(file):
                keys = (bytes(32), bytes(32), bytes(91))
                self.directory._add(
                    Identity(
                        *("hebei", row["code"], row["name"], row["level"], (row["code"],), 1, row["parent"] or "root"),
                        *(*keys, True, START_MS // 1000, START_MS // 1000 + 365 * 86400, row["code"], (), b""),
                    )
                )

    def cities(self) -> dict[str, list[str]]:
        """Each node right below the province, and all below it."""
        found: dict[str, list[str]] = {}
        for one in self.directory.all():
            path = [above.node for above in self.directory.path(one.node)]
            if len(path) > 1:
                found.setdefault(path[1], []).append(one.node)
        return found


def entry(node: str, rng: random.Random, now_s: int) -> HealthEntry:
    """A meeting of a node with its parent."""
    load = about = None
    if rng.random() < 0.1:
        backlog = rng.choice((0, 0, 0, 12, 340))
        load = load_bytes(Load(backlog, bytes=backlog * 300, since_s=now_s - 4000 if backlog else 0))
    if rng.random() < 0.01:
        free = rng.randrange(2_000, 20_000)
        about = about_bytes(About("0.2.0", 7, free, 30_720, rng.randrange(-900, 900), False, now_s + 86400 * 300))
    return HealthEntry(node, 1, Seen(now_s, up=False), load, about)


def frames(city: str, nodes: list[str], start: int, rng: random.Random, now_s: int, *, first: bool) -> list[bytes]:
    """What a city passes on, encoded."""
    found = []
    for i in range(0, len(nodes), FRAME_ENTRIES):
        part = nodes[i : i + FRAME_ENTRIES]
        entries = []
        for node in part:
            one = entry(node, rng, now_s)
            if first:
                whole = (load_bytes(Load()), about_bytes(About("0.2.0", 7, 11_000, 30_720, 5, False, now_s + 86400)))
                one = HealthEntry(node, 1, one.seen, *whole)
            entries.append(HealthEntry("", 1, None, one.load, one.about) if node == city else one)
        found.append(wire.encode(1, Health(HealthPlace(1, start + i + len(part)), tuple(entries))))
    return found


def longest(name: str, work: Callable[[], Any]) -> dict[str, float]:
    """Of ten: on the wall, and of the processor."""
    took, spent = [], []
    for _ in range(10):
        began, used = time.perf_counter(), time.process_time()
        work()
        took.append(time.perf_counter() - began)
        spent.append(time.process_time() - used)
    return {f"{name}_ms": round(max(took) * 1000, 1), f"{name}_cpu_ms": round(max(spent) * 1000, 1)}


def queries(table: Table, now_ms: int) -> dict[str, float]:
    """How long each takes, with the view made for it."""

    def view() -> View:
        return View(table.connection, ME, BOUNDS, now_ms)

    def one() -> None:
        shown = view()
        shown.way_up(shown.node("130102001001") or {"path": ""})

    asked: dict[str, Callable[[], Any]] = {
        "view": view,
        "page": lambda: view().page(Filter()),
        "page_late": lambda: view().page(Filter(states=("stale", "behind", "alert"))),
        "page_villages": lambda: view().page(Filter(levels=("village",), area="1309", limit=1000)),
        "by_state": lambda: view().counts("state", Filter()),
        "by_level": lambda: view().counts("level", Filter()),
        "by_area": lambda: view().counts("area", Filter()),
        "cuts": lambda: view().cuts(),
        "node": one,
    }
    found: dict[str, float] = {}
    for name, work in asked.items():
        found |= longest(name, work)
    return found


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--minutes", type=int, default=60, help="of virtual time")
    parser.add_argument("--page", type=float, default=0, help="the console, too: so many seconds for each share")
    given = parser.parse_args()
    rng = random.Random(1)
    tree = Tree(TREE)
    trust: Trust = tree  # type: ignore[assignment]
    cities = tree.cities()
    with tempfile.TemporaryDirectory() as folder:
        table = Table.open(Path(folder) / "health.db", bytes(4), BOUNDS)
        began = time.perf_counter()
        people = roster(trust)
        table.name(people, ME)
        taken_in_s = time.perf_counter() - began
        counts = dict.fromkeys(cities, 0)

        def pass_on(minute: int, *, first: bool) -> tuple[float, int, int]:
            """CPU seconds, reports and bytes of one minute."""
            now_ms, spent, reports, size = START_MS + minute * 60_000, 0.0, 0, 0
            for city, below in cities.items():
                due = below if first else below[minute % EVERY_MINUTES :: EVERY_MINUTES]
                coming = frames(city, due, counts[city], rng, now_ms // 1000, first=first)
                counts[city] += len(due)

                def inside(node: str, city: str = city) -> bool | None:
                    path = [above.node for above in tree.directory.path(node)]
                    return city in path[:-1] if path else None

                before = time.process_time()
                for data in coming:
                    told = wire.decode(data)[1]
                    if not isinstance(told, Health):
                        raise TypeError(told)
                    table.fold(city, 1, told, now_ms, inside)
                    size += len(data)
                table.see(city, 1, now_ms // 1000, now_ms, up=True)
                spent += time.process_time() - before
                reports += len(due)
            return spent, reports, size

        pass_on(0, first=True)
        spent, reports, size = map(
            sum, zip(*(pass_on(n, first=False) for n in range(1, given.minutes + 1)), strict=True)
        )
        seconds = given.minutes * 60
        now_ms = START_MS + given.minutes * 60_000
        print(
            json.dumps(
                {
                    "nodes": len(people),
                    "taken_in_s": round(taken_in_s, 2),
                    "minutes": given.minutes,
                    "reports_s": round(reports / seconds, 1),
                    "cpu_percent": round(100 * spent / seconds, 2),
                    "bytes_s": round(size / seconds),
                    "rss_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                    "file_mib": round(table.path.stat().st_size / 2**20, 1),
                    **queries(table, now_ms),
                    **({"console": asyncio.run(measure(given.page))} if given.page else {}),
                },
                indent=1,
            )
        )
        table.close()


if __name__ == "__main__":
    main()
