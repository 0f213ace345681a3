"""scripts/bench audit: how fast a store is verified, against the speed of hashing alone. Prints one JSON document.

A city writes `--changes` registrations (some 330 bytes of JSON each, `_bench_data.py`), a province takes them in as
from a child and cosigns each segment; what is verified is the province's log.db, on a real disk, in the page cache.

    verify_per_s      what `audit verify --full` does, all cores, from the call to the report: starting the processes is
                      in it. In a process of its own that does nothing else, as the command is one
    command_s         the whole command `fednode audit verify --full`, once, from its start to its end, in seconds
    hash_per_s        hashing alone, as many processes: all that a verification must hash of the same segments (SHA-256
                      of the row and of the envelope, keystream of salts, commitments, leaves, subtrees), from bytes and
                      decoded columns that lie in memory; the processes run before the time begins, decoding and
                      signatures are not in it
    ratio             verify_per_s / hash_per_s; `ratio_one` in one process
    ..._one           in one process
    stages_us         CPU a change of each stage of verification, in one process
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _bench_data
import msgspec
from _bench_hop import join, listening, machine, note

from fednode.crypto import checkpoint, merkle, seal
from fednode.crypto.suite import SUITE_1
from fednode.node import audit, heap, workers
from fednode.node.app import App
from fednode.node.link import Link
from fednode.node.store import Store
from fednode.sync import segment as seg
from fednode.sync.change import Change, Columns
from fednode.sync.effects import Commit

DATASET = "org-registration"
BATCH = 20_000
RUNS = 3
STAGE_SEGMENTS = 100


def fill(folder: Path, count: int) -> App:
    """Both nodes, and all of it at the province."""
    asyncio.run(join(folder))
    city = App.open(folder / "1301", listening("1301"))
    province = App.open(folder / "13", listening("13"))
    writer, taker = city.new_writer(), province.new_writer()
    with taker.store.write() as tx:
        peer = tx.ensure_peer("1301", "child")
    after = 0
    link = Link(city.trust.me, peer.id, city.store.store_id, False, 0)
    some: list[Change] = []
    for i, row in enumerate(_bench_data.rows(count), 1):
        some.append(Change(row["uscc"].encode(), msgspec.json.encode(row)))
        if len(some) == BATCH or i == count:
            writer.local(DATASET, city.trust.area, some)
            some = []
            items, _ = city.store.feed_up(after, 1 << 40)
            done = taker.incoming([(link, Commit(item.lsn, item.data, None)) for item in items])
            bad = [one.refused for _, one in done if one.refused]
            if bad:
                raise RuntimeError(f"refused: {bad[0]}")
            after = items[-1].lsn
    writer.store.close()
    taker.store.close()
    city.close()
    return province


def each(store: Store) -> Iterable[tuple[seg.Envelope, Columns]]:
    """Every segment of the bulk, read and opened."""
    after = 0
    while held := store.segments(after, 64, dataset=DATASET):
        for one in held:
            columns = store.columns(one)
            if columns is None:
                raise RuntimeError("unreadable")
            yield seg.parse(one.raw), columns
        after = held[-1].lsn


def hash_all(some: list[tuple[seg.Envelope, Columns]]) -> None:
    for envelope, columns in some:
        SUITE_1.hash(envelope.raw)
        envelope.digest()
        merkle.subtrees(envelope.header.first, seg.leaf_hashes(columns))


def _hashing(path: Path, stash_key: bytes, part: int, parts: int, ready: Any, begin: Any, out: Any) -> None:
    heap.keep_warm()
    store = Store.read(path, stash_key=stash_key)
    mine = [one for i, one in enumerate(each(store)) if i % parts == part]
    for _ in range(RUNS):
        ready.wait()
        begin.wait()
        hash_all(mine)
        out.put(time.monotonic())


def hashing(store: Store, changes: int, jobs: int) -> list[float]:
    """Changes a second of hashing alone, of some runs."""
    context = multiprocessing.get_context("spawn")
    ready, begin, out = context.Barrier(jobs + 1), context.Barrier(jobs + 1), context.Queue()
    processes = [
        context.Process(target=_hashing, args=(store.path, store.stash_key, part, jobs, ready, begin, out))
        for part in range(jobs)
    ]
    for process in processes:
        process.start()
    rates = []
    for _ in range(RUNS):
        ready.wait()
        start = time.monotonic()
        begin.wait()
        rates.append(changes / (max(out.get() for _ in processes) - start))
    for process in processes:
        process.join()
    return rates


def verifying(home: Path, jobs: int) -> list[float]:
    """Changes a second of full verifications, in a fresh process."""
    command = [sys.executable, __file__, "--verify", str(home), "--jobs", str(jobs)]
    rates: list[float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return rates


def verify_here(home: Path, jobs: int) -> list[float]:
    """The process that `verifying` starts."""
    node = App.open(home, listening(home.name))
    rates = []
    for _ in range(RUNS):
        start = time.monotonic()
        report = workers.verify(node.store, node.trust, jobs=jobs)
        took = time.monotonic() - start
        if report.problems or report.carried:
            raise RuntimeError(f"it does not hold: {report}")
        rates.append(report.changes / took)
    return rates


def command(home: Path) -> float:
    """Seconds of the whole command."""
    fednode = str(Path(sys.executable).with_name("fednode"))
    start = time.monotonic()
    subprocess.run([fednode, "--home", str(home), "audit", "verify", "--full"], check=True, capture_output=True)
    return round(time.monotonic() - start, 2)


def stages(store: Store) -> dict[str, float]:
    """Microseconds of CPU a change of each stage, the best of some runs, over the first segments of the bulk."""
    rows = store.rows(
        """select s.lsn, s.data, s.content_key from segment s join log l on l.id = s.log_id where l.dataset = ?
           order by s.lsn limit ?""",
        DATASET,
        STAGE_SEGMENTS,
    )
    raws = [row[1] for row in rows]
    changes = sum(seg.parse(raw).header.count for raw in raws)
    cost: dict[str, float] = {}

    def best(name: str, work: Callable[[Any], Any], over: list[Any]) -> list[Any]:
        least, found = float("inf"), []
        for _ in range(RUNS):
            start = time.thread_time()
            found = [work(one) for one in over]
            least = min(least, time.thread_time() - start)
        cost[name] = round(least / changes * 1e6, 3)
        return found

    best("read the row", lambda row: store.rows("select data from segment where lsn = ?", row[0]), rows)
    best("SHA-256 of the bytes", SUITE_1.hash, raws)
    envelopes = best("parse", seg.parse, raws)
    best("digest of the envelope", lambda one: one.digest(), envelopes)
    keys = [store.unstash(row[2]) for row in rows]
    bodies = best(
        "content key, unseal",
        lambda one: seal.open_with_key(one[0].commit, one[0].body, one[0].header.raw, one[1], SUITE_1),
        list(zip(envelopes, keys, strict=True)),
    )
    columns = best("zstd to columns", seg.decode_body, bodies)
    leaves = best("hash: salts, commitments, leaves", seg.leaf_hashes, columns)
    best("hash: subtrees", lambda one: merkle.subtrees(0, one), leaves)
    return cost


def signatures(province: App) -> float:
    """The three Ed25519 verifications of a segment, by what `Checker` does with them."""
    (held,) = province.store.segments(0, 1, dataset=DATASET)
    header = seg.parse(held.raw).header
    head = checkpoint.Checkpoint(str(held.name), header.end, header.root)
    origin = province.trust.directory.get(held.name.origin)
    if origin is None:
        raise RuntimeError("no origin")
    start, count = time.thread_time(), 300
    for _ in range(count):
        checkpoint.verify_signature(head, origin.sign_key, header.checkpoint)
    return round((time.thread_time() - start) / count * 3 / header.count * 1e6, 3)


def measure(folder: Path, changes: int, jobs: int) -> dict[str, Any]:
    note("writing, at a city; taking in, at the province")
    province = fill(folder, changes)
    note("verifying and hashing")
    audit.verify_store(province.store, province.trust)  # the page cache is warm for all that follows
    result: dict[str, Any] = {"bench": "audit", "changes": changes, "jobs": jobs, "machine": machine(folder)}
    result["sealed_bytes"] = round(
        province.store.rows("select sum(length(data)) * 1.0 / sum(count) from segment")[0][0], 1
    )
    pairs = {"": jobs, "_one": 1}
    for name, count in pairs.items():
        verified, hashed = verifying(folder / "13", count), hashing(province.store, changes, count)
        result[f"verify{name}_per_s"] = round(statistics.median(verified))
        result[f"hash{name}_per_s"] = round(statistics.median(hashed))
        result[f"ratio{name}"] = round(statistics.median(verified) / statistics.median(hashed), 3)
        result[f"runs{name}"] = {"verify": list(map(round, verified)), "hash": list(map(round, hashed))}
    result["command_s"] = command(folder / "13")
    result["stages_us"] = {**stages(province.store), "three signatures a segment": signatures(province)}
    result["load_1min_after"] = round(os.getloadavg()[0], 2)
    province.close()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench audit", description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=1_000_000)
    parser.add_argument("--jobs", type=int, default=workers.cores())
    parser.add_argument("--dir", help="where the stores lie (a real disk); else the folder for temporary files")
    parser.add_argument("--verify", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.verify:
        print(json.dumps(verify_here(arguments.verify, arguments.jobs)))
        return
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=arguments.dir))
    try:
        print(json.dumps(measure(folder, arguments.changes, arguments.jobs), indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
