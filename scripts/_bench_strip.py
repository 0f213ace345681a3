"""scripts/bench strip: what it costs to erase one record out of many. Prints one JSON document.

A province holds one city's log of `--changes` changes (10,000,000 unless told otherwise), made as `scripts/bench proof`
makes it, and its projection. What is timed is `erasing.erase`, without what it leaves for the daily job where the files
are larger than 256 MiB (they are written anew there: `clean_s`, with --clean).

    erase_p50_ms, erase_max_ms   --erases random records, one after the other: found, stripped, forgotten, told, durable
    segments_replaced            for each erase: the bar is 1
    rows_written                 rows of log.db that SQLite says an erase inserted, updated or deleted (the largest)
    clean_s                      merging the full-text index and writing both files anew
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

from _bench_proof import CATALOG, build, key_of

from fednode.node import erasing
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.records import Records
from fednode.sync.catalog import Catalog


def one(records: Records, key: str) -> tuple[float, int, int]:
    """Milliseconds, segments replaced, rows of log.db written."""
    c = records.store.connection
    before = c.execute("select count(*) from resealed").fetchone()[0]
    rows = c.total_changes
    start = time.perf_counter()
    erasing.erase(records, "bench", key, "bench")
    spent = (time.perf_counter() - start) * 1000
    return spent, c.execute("select count(*) from resealed").fetchone()[0] - before, c.total_changes - rows


def measure(folder: Path, count: int, erases: int, clean: bool) -> dict[str, Any]:
    app = App.init_province(folder / "home", Config(), node="13", name="河北省", domain="bench")
    app.publish_catalog(Catalog.from_toml_dict({**CATALOG, "dataset": [{**CATALOG["dataset"][0], **WRITERS}]}))
    start = time.perf_counter()
    build(app, count)
    records = app.records()
    records.projector.catch_up()
    built = time.perf_counter() - start
    rng = random.Random(7)
    with mock.patch.object(erasing, "clean"):
        seen = [one(records, key_of(n)) for n in rng.sample(range(count), erases)]
    result: dict[str, Any] = {
        "changes": count,
        "build_s": round(built, 1),
        "log_bytes": app.home.log_db.stat().st_size,
        "state_bytes": app.home.state_db.stat().st_size,
        "erases": erases,
        "erase_p50_ms": round(statistics.median(ms for ms, _, _ in seen), 2),
        "erase_max_ms": round(max(ms for ms, _, _ in seen), 2),
        "segments_replaced": max(segments for _, segments, _ in seen),
        "rows_written": max(rows for _, _, rows in seen),
    }
    if clean:
        start = time.perf_counter()
        erasing.clean(records.store, records.projector, thorough=True)
        result["clean_s"] = round(time.perf_counter() - start, 1)
    records.close()
    app.close()
    return result


WRITERS = {"writers": ["province", "city"]}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench strip", description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=10_000_000)
    parser.add_argument("--erases", type=int, default=20)
    parser.add_argument("--clean", action="store_true")
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=given.folder))
    try:
        print(json.dumps(measure(folder, given.changes, given.erases, given.clean), indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
