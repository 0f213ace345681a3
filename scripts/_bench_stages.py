"""scripts/bench stages: what one change costs in each stage of the way, in one process. Prints one JSON document.

CPU time of the thread, the best of several runs, so that what else the machine does matters less than for `hop`; a
second core that is busy still makes all of it slower. Segments of 1,000 changes, as in bulk.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import _bench_data
import msgspec

from fednode.crypto.keys import SealKey, SigningKey
from fednode.crypto.merkle import Frontier
from fednode.crypto.suite import SUITE_1
from fednode.node import shipped, sqlite
from fednode.node.profile import NORMAL
from fednode.node.projection import _insert, field_sql
from fednode.node.schema import migrate, state_migrations
from fednode.sync import segment as seg
from fednode.sync.change import Change, Columns, LogName
from fednode.sync.formats import compile_dataset
from fednode.sync.log import LogState, OwnSegment, extend
from fednode.sync.verify import _reader

DATASET = "org-registration"
ROWS = 1_000
RUNS = 5


def best(work: Callable[[Any], Any], over: list[Any], changes: int) -> tuple[float, list[Any]]:
    """Microseconds of CPU for each change, the best of some runs; and what came out."""
    least, found = float("inf"), []
    for _ in range(RUNS):
        start = time.thread_time()
        found = [work(one) for one in over]
        least = min(least, time.thread_time() - start)
    return round(least / changes * 1e6, 2), found


def chunks(items: list[Any], size: int) -> Iterable[list[Any]]:
    return (items[i : i + size] for i in range(0, len(items), size))


def segments(changes: list[Change], key: SigningKey, reader: seg.Reader) -> list[OwnSegment]:
    state = LogState(LogName.parse(f"hebei/1301/1/{DATASET}"))
    made = []
    for part in chunks(changes, ROWS):
        first = state.last_hlc + 1 or 1
        for own in extend(state, part, range(first, first + len(part)), 1, key, [reader], True, os.urandom):
            made.append(own)
            state = own.after
    return made


def table(folder: Path, owns: list[OwnSegment], indexed: bool) -> float:
    """The record table: one run (it cannot be repeated on the same rows)."""
    folder.mkdir()
    path = folder / "state.db"
    c = sqlite.connect(path, synchronous="NORMAL", cache_kib=NORMAL.state_cache_kib, wal_pages=NORMAL.state_wal_pages)
    migrate(c, state_migrations, path)
    declared = shipped.catalog().datasets[DATASET]
    for field in declared.fields if indexed else ():
        if field.index and field_sql(declared, field) != "r.key":
            c.execute(f"create index \"field:{field.code}\" on record (payload ->> '$.{field.code}') where dataset = 1")
    rows = []
    for own in owns:
        texts = [(k.decode(), h, h, own.first + i, p.decode()) for i, (k, h, p) in enumerate(_rows(own.columns))]
        rows.append([value for row in texts for value in row])
    start = time.thread_time()
    for some in chunks(rows, NORMAL.step_segments):
        with sqlite.transaction(c, path):
            for values in some:
                c.execute(_insert(len(values) // 5), (1, 1, 1, 1, *values))
    spent = time.thread_time() - start
    c.close()
    return round(spent / sum(own.count for own in owns) * 1e6, 2)


def _rows(columns: Columns) -> Iterable[tuple[bytes, int, bytes]]:
    return zip(columns.keys, columns.hlcs, columns.payloads, strict=True)


def stages(count: int, folder: Path) -> dict[str, Any]:
    declared = shipped.catalog().datasets[DATASET]
    rows = list(_bench_data.rows(count))
    validate = compile_dataset(declared, _bench_data.FIELDS)
    cells = [[row[name] for name in _bench_data.FIELDS] for row in rows]
    cost: dict[str, float] = {}
    cost["validate a row of CSV"], checked = best(validate, cells, count)
    cost["encode its JSON"], payloads = best(lambda one: msgspec.json.encode(one[0]), checked, count)
    changes = [Change(one[1].encode(), payload) for one, payload in zip(checked, payloads, strict=True)]
    rng = random.Random(1)
    key, reader = SigningKey.from_seed(rng.randbytes(32)), SealKey.from_seed(rng.randbytes(32))
    key_id = SUITE_1.hash(reader.public)[:8]
    owns = segments(changes, key, seg.Reader(key_id, reader.public))
    columns = [own.columns for own in owns]
    cost["columns to zstd"], bodies = best(seg.encode_body, columns, count)
    cost["leaf hashes"], leaves = best(seg.leaf_hashes, columns, count)
    cost["tree"], _ = best(lambda one: Frontier.EMPTY.extend(one).root(), leaves, count)
    start = time.thread_time()
    segments(changes, key, seg.Reader(key_id, reader.public))
    cost["extend, all of it (the child's side)"] = round((time.thread_time() - start) / count * 1e6, 2)
    cost["unseal"], _ = best(lambda one: seg.unwrap(seg.parse(one.raw), key_id, reader.private), owns, count)
    cost["zstd to columns"], _ = best(seg.decode_body, bodies, count)
    cost["payloads are objects, areas"], _ = best(
        lambda one: list(map(_reader(one, declared.area_field), one.payloads)), columns, count
    )
    cost["record table without field indexes"] = table(folder / "plain", owns, False)
    cost["record table with those of the catalog"] = table(folder / "indexed", owns, True)
    return {
        "bench": "stages",
        "changes": count,
        "json_bytes": round(sum(map(len, payloads)) / count),
        "sealed_bytes": round(sum(len(own.raw) for own in owns) / count, 1),
        "load_1min": round(os.getloadavg()[0], 2),
        "us_of_cpu_per_change": cost,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench stages", description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=100_000)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-"))
    try:
        print(json.dumps(stages(arguments.changes, folder), indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
