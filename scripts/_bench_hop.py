"""scripts/bench hop: what one hop costs, from a child's log to its parent's, on this machine. Prints one JSON document.

Two processes on loopback, mutual TLS, durable (`synchronous=FULL`, on a real disk) at both ends: a province, and a city
that joined through the enrolment port. The city's backlog is imported from CSV, and its own record table and full text
are up to date, before the exchange starts. Progress goes to stderr.

    import_rows_per_s      the real `import` path, until every row is durable in the log: read, validate, compare, seal,
                           commit; `import_visible_...`, `import_searchable_...`: until the node's own table, full text
    ack_per_s              from the moment the child dials until its store has all of them acknowledged
    visible_per_s          from the same moment until the parent's record table has them all; `indexed_per_s`: and the
                           indexes on fields, which a first load makes when it is through
    wire_bytes_per_change  both directions of the connection, as the kernel counts them (TLS and HTTP/2 included)
    rss_child_mb, rss_parent_mb            peak (VmHWM) of the daemons until everything was visible
    rss_child_idle_mb, rss_parent_idle_mb  started anew with all of it held, connected, nothing to do
    single_...             one more change, connected, nothing else to do, no dirty pages left of the bulk (`os.sync`):
                           appended in the daemon's writer thread until the parent's ack for it is here, so that it is
                           durable at the parent; `single_stored_...`: until that ack is durable at the child too;
                           `single_bytes` is counted as `wire_bytes_per_change`

    with --audit: what of the CPU of the bulk goes into proving (`_bench_meter.py` says what counts), of
    import                 the child's process, from the first row until all are durable in its log
    ack, visible           both daemons together, from dialling until the child has every acknowledgement, until the
                           parent's record table has all of it
    way                    import and visible: the whole way of a change
    wall_of_ack, wall_of_visible   the part of the wall time in which the parent, whom the child waits for, proves: by
                           so much sooner at most it would be through without
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import functools
import json
import os
import platform
import queue
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lib"))

import _bench_data
from _bench_node import DATASET

from fednode.node import shipped, sqlite
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.projection import INDEX_ROWS_MIN
from fednode.node.syncing import sync_once
from fednode.sync.enrol import Token
from ports import free_port

HERE = Path(__file__).resolve().parent
OF_THE_DATASET = f"dataset = (select id from dataset where name = '{DATASET}')"
VISIBLE = (  # counting is dear: only once there are enough rows of whatever kind
    "select case when (select max(id) from record) >= {changes}"
    f" then (select count(*) from record where {OF_THE_DATASET}) else 0 end"
)
POLL_S = 0.003
METERED = {"BENCH_METER": "1"}
SETTLE_S = 2.0
WAIT_S = 600.0


def note(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Node:
    """A process of _bench_node.py, or of another `script`. `more`: settings, as environment variables."""

    script = "_bench_node.py"

    def __init__(self, what: str, home: Path, *arguments: str, prefix: tuple[str, ...] = (), **more: str) -> None:
        command = [*prefix, sys.executable, str(HERE / self.script), what, str(home), *arguments]
        config = listening(home.name)
        settings = {"FEDNODE_LISTEN": config.listen, "FEDNODE_ENROL_LISTEN": config.enrol_listen, **more}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
        )
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.process.stdout or ():
            if line.startswith("{"):  # py-spy speaks on stdout too
                self._events.put(json.loads(line))
        self._events.put({"event": "gone"})

    def event(self, name: str, timeout: float = WAIT_S) -> dict[str, Any]:
        """The next event of this name; those before it are dropped."""
        while True:
            found = self._events.get(timeout=timeout)
            if found["event"] == name:
                return found
            if found["event"] == "gone":
                raise RuntimeError(f"the process ended with {self.process.wait()} before `{name}`")

    def order(self, what: str, event: str, **values: Any) -> dict[str, Any]:
        if self.process.stdin is None:
            raise RuntimeError("no stdin")
        self.process.stdin.write(json.dumps({"do": what, **values}) + "\n")
        self.process.stdin.flush()
        return self.event(event)

    def end(self) -> dict[str, Any]:
        ended = self.order("stop", "ended")
        self.process.wait(timeout=30)
        return ended


@functools.cache
def listening(node: str) -> Config:
    """The ports of a node, the same in every process that it has."""
    return Config(listen=f"127.0.0.1:{free_port()}", enrol_listen=f"127.0.0.1:{free_port()}")


def one_value(path: Path, sql: str) -> Any:
    connection = sqlite.connect(path, synchronous="NORMAL", readonly=True)
    try:
        return connection.execute(sql).fetchone()[0]
    finally:
        connection.close()


def until(path: Path, sql: str, least: int) -> float:
    """When (monotonic seconds) a value in a database reached `least`."""
    connection = sqlite.connect(path, synchronous="NORMAL", readonly=True)
    end = time.monotonic() + WAIT_S
    try:
        while time.monotonic() < end:
            row = connection.execute(sql).fetchone()
            if row is not None and row[0] is not None and row[0] >= least:
                return time.monotonic()
            time.sleep(POLL_S)
    finally:
        connection.close()
    raise RuntimeError(f"not within {WAIT_S:.0f} s: {sql} reaches {least}")


async def join(folder: Path) -> None:
    """Found the province, start it, let the city join and fetch the catalog."""
    province = App.init_province(folder / "13", listening("13"), node="13", name="河北省", domain="hebei")
    province.publish_catalog(shipped.catalog())
    token = Token.decode(province.invite("1301", "city", "石家庄市"))
    province.close()
    parent = Node("daemon", folder / "13")
    parent.event("ready", 30)
    city = await App.join(folder / "1301", listening("1301"), token)
    await sync_once(city)
    city.close()
    await asyncio.to_thread(parent.end)


Spent = tuple[float, dict[str, float]]


def spent(before: dict[str, Any], after: dict[str, Any]) -> Spent:
    """CPU seconds between two looks at a process: all, and by what was proved."""
    parts = {part: seconds - before["audit"][part] for part, seconds in after["audit"].items()}
    return after["cpu_s"] - before["cpu_s"], parts


def share(*some: Spent) -> dict[str, Any]:
    """What of the CPU of several processes goes into proving."""
    cpu = sum(one[0] for one in some)
    parts = {part: sum(one[1][part] for one in some) for part in some[0][1]}
    shares = {part: round(seconds / cpu, 4) for part, seconds in parts.items()}
    return {"cpu_s": round(cpu, 2), "share": round(sum(parts.values()) / cpu, 4), **shares}


def bulk(folder: Path, changes: int, profile: str, imported: Spent | None) -> tuple[dict[str, Any], Node, Node, int]:
    """The backlog goes over. `imported`: what its making took, when the CPU is asked for (--audit)."""

    def spy(name: str) -> tuple[str, ...]:
        if not profile:
            return ()
        return ("py-spy", "record", "-r", "250", "-t", "-f", "raw", "-o", f"{profile}.{name}.txt", "--")

    log, state = folder / "1301/log.db", folder / "13/state.db"
    last = one_value(log, "select max(s.lsn) from segment s join log l on l.id = s.log_id where l.up = 1")
    metered = {} if imported is None else METERED
    parent = Node("daemon", folder / "13", prefix=spy("parent"), **metered)
    port = int(parent.event("ready")["port"])
    before = parent.order("memory", "memory")
    child = Node("daemon", folder / "1301", prefix=spy("child"), **metered)
    dialling = child.event("dialling")
    started = dialling["at"]
    acked = until(log, "select max(acked) from peer", last) - started
    both = ((child, dialling), (parent, before))
    at_ack = [spent(then, node.order("memory", "memory")) for node, then in both] if imported else []
    visible = until(state, VISIBLE.format(changes=changes), changes) - started
    at_visible = [spent(then, node.order("memory", "memory")) for node, then in both] if imported else []
    indexed = 0.0
    if changes >= INDEX_ROWS_MIN:
        indexed = until(state, "select count(*) from meta where key = 'indexes'", 1) - started
    wire = child.order("wire", "wire", port=port)
    at_child, at_parent = child.order("memory", "memory"), parent.order("memory", "memory")
    note(f"acknowledged after {acked:.2f} s, visible after {visible:.2f} s")
    figures = {
        "ack_per_s": round(changes / acked),
        "visible_per_s": round(changes / visible),
        "indexed_per_s": round(changes / indexed) if indexed else None,
        "wire_bytes_per_change": round((wire["sent"] + wire["received"]) / changes, 1),
        "rss_child_mb": round(at_child["peak_mb"], 1),
        "rss_parent_mb": round(at_parent["peak_mb"], 1),
        "cpu_child_s": {"all": round(at_child["cpu_s"], 2), **at_child["threads"]},
        "cpu_parent_s": {"all": round(at_parent["cpu_s"], 2), **at_parent["threads"]},
    }
    if imported is not None:
        figures["audit"] = {
            "import": share(imported),
            "ack": share(*at_ack),
            "visible": share(*at_visible),
            "way": share(imported, *at_visible),
            "wall_of_ack": round(sum(at_ack[1][1].values()) / acked, 4),
            "wall_of_visible": round(sum(at_visible[1][1].values()) / visible, 4),
        }
    return figures, parent, child, port


def same(folder: Path, changes: int) -> None:
    """Both record tables hold the same, and all of it: else the figures would mean nothing."""
    sql = (
        "select count(*) || ' ' || sum(length(payload)) || ' ' || max(key) || ' ' || min(key) from record"
        f" where op = 1 and {OF_THE_DATASET}"
    )
    mine, theirs = (one_value(folder / node / "state.db", sql) for node in ("1301", "13"))
    if mine != theirs or int(mine.split()[0]) != changes:
        raise RuntimeError(f"the tables differ: {mine} / {theirs}")


def rest(folder: Path) -> None:
    """Until the parent has nothing left to do: full text comes last."""
    last = one_value(folder / "13/state.db", "select max(id) from record")
    until(folder / "13/state.db", "select value from meta where key = 'text_id'", last)


def single(folder: Path, parent: Node, child: Node, port: int, count: int) -> dict[str, Any]:
    """One change at a time, with nothing else to do at either end."""
    rest(folder)
    os.sync()
    time.sleep(SETTLE_S)
    child.order("singles", "singles", count=5)
    before = child.order("wire", "wire", port=port)
    cpu = [node.order("memory", "memory")["threads"] for node in (child, parent)]
    found = child.order("singles", "singles", count=count)
    took, stored = sorted(found["ms"]), sorted(found["stored_ms"])
    after = child.order("wire", "wire", port=port)
    spent = [
        {
            k: round((v - cpu[i].get(k, 0.0)) / count * 1000, 2)
            for k, v in node.order("memory", "memory")["threads"].items()
        }
        for i, node in enumerate((child, parent))
    ]
    moved = after["sent"] + after["received"] - before["sent"] - before["received"]
    return {
        "single_p50_ms": round(statistics.median(took), 2),
        "single_p99_ms": round(took[min(len(took) - 1, int(len(took) * 0.99))], 2),
        "single_stored_p50_ms": round(statistics.median(stored), 2),
        "single_bytes": round(moved / count),
        "single_cpu_child_ms": spent[0],
        "single_cpu_parent_ms": spent[1],
    }


def idle(folder: Path) -> dict[str, Any]:
    parent = Node("daemon", folder / "13")
    parent.event("ready")
    child = Node("daemon", folder / "1301")
    child.event("dialling")
    child.order("singles", "singles", count=1)  # returns once they are connected
    rest(folder)
    time.sleep(SETTLE_S)
    figures = {
        "rss_child_idle_mb": round(child.order("memory", "memory")["rss_mb"], 1),
        "rss_parent_idle_mb": round(parent.order("memory", "memory")["rss_mb"], 1),
    }
    child.end()
    parent.end()
    return figures


def fsync_ms(folder: Path) -> float:
    """What this disk takes for a small durable write: the floor under every durable figure."""
    took = []
    with (folder / "fsync").open("wb") as out:
        for _ in range(50):
            start = time.perf_counter()
            out.write(b"x" * 4096)
            out.flush()
            os.fdatasync(out.fileno())
            took.append((time.perf_counter() - start) * 1000)
    return round(statistics.median(took), 3)


def machine(folder: Path) -> dict[str, Any]:
    model = "?"
    with contextlib.suppress(OSError):
        names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
        model = names[0].split(":")[1].strip() if names else "?"
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "load_1min": round(os.getloadavg()[0], 2),
        "fsync_p50_ms": fsync_ms(folder),
        "python": platform.python_version(),
        "sqlite": ".".join(map(str, sqlite.version())),
        "kernel": platform.release(),
    }


def hop(folder: Path, changes: int, singles: int, profile: str, metered: bool) -> dict[str, Any]:
    result: dict[str, Any] = {"bench": "hop", "changes": changes, "machine": machine(folder)}
    asyncio.run(join(folder))
    _bench_data.write_csv(folder / "rows.csv", changes)
    note("joined; importing")
    importer = Node("import", folder / "1301", str(folder / "rows.csv"), **(METERED if metered else {}))
    imported = importer.event("imported")
    if imported["rows"] != changes:
        raise RuntimeError(f"imported {imported['rows']} rows of {changes}")
    note(f"imported in {imported['seconds']:.2f} s, in the child's table after {imported['visible']:.2f} s")
    making = spent(imported["before"], imported) if metered else None
    figures, parent, child, port = bulk(folder, changes, profile, making)
    same(folder, changes)
    result |= figures
    result |= {
        "import_rows_per_s": round(changes / imported["seconds"]),
        "import_visible_rows_per_s": round(changes / imported["visible"]),
        "import_searchable_rows_per_s": round(changes / imported["searchable"]),
        "rss_import_mb": round(imported["peak_mb"], 1),
    }
    if singles:
        result |= single(folder, parent, child, port, singles)
        result["singles"] = singles
    child.end()
    parent.end()
    if singles:
        result |= idle(folder)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench hop", description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument(
        "--dir", type=Path, help="where to make the folder of the two nodes (a real disk; default: TMPDIR)"
    )
    parser.add_argument("--keep", action="store_true", help="leave the folder")
    parser.add_argument(
        "--profile",
        default="",
        help="record both daemons with py-spy (on the PATH) into NAME.parent.txt, NAME.child.txt",
    )
    parser.add_argument("--audit", action="store_true", help="what of the CPU goes into proving, too")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=arguments.dir))
    try:
        found = hop(folder, arguments.changes, arguments.singles, arguments.profile, arguments.audit)
        print(json.dumps(found, indent=1))
    finally:
        if not arguments.keep:
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
