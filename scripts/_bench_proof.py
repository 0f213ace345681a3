"""scripts/bench proof: what it costs to prove one record out of many. Prints one JSON document.

A province holds one city's log of `--changes` changes (10,000,000 unless told otherwise). The log is made here and not
received: segments of 1,000 small changes, each extended, sealed and signed by the city's key and appended by the store
as they would be (`sync.log.extend`, `Transaction.append_own`), without the gates of `sync.verify`, which cost time and
leave nothing in the store; the projection then reads all of it. The province cosigned the last checkpoint. What is
timed is `Prover.prove`, whole: from the key to a file that has been checked as its reader will check it, on the files'
pages as they are in memory or on disk after the build.

    prove_p50_ms, prove_p99_ms, prove_max_ms   --proofs random records, one after the other, in one process
    first_ms               the very first, which loads certificates and opens the files
    segments_read_max      segments opened for the path: the bar is O(log n)
    file_bytes             of the largest proof file
    check_p50_ms           what its reader spends
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from fednode.crypto import canonical, checkpoint, issuing
from fednode.crypto.certs import Identity, parse
from fednode.crypto.checkpoint import Checkpoint
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.home import NodeKeys
from fednode.node.proving import Proved, Prover
from fednode.sync import proof_file
from fednode.sync.catalog import Catalog
from fednode.sync.change import NODES, Change, LogName
from fednode.sync.identity import node_payload
from fednode.sync.log import LogState, extend
from fednode.sync.segment import Reader
from fednode.sync.wire import Cosignature

SEGMENT, GROUP = 1_000, 50
CATALOG = {
    "version": 1,
    "dataset": [
        {
            "name": "bench",
            "zh": "测试",
            "en": "Bench",
            "key": ["id"],
            "writers": ["city"],
            "readers": ["province", "city"],
            "field": [
                {"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 12, "required": True},
                {"code": "name", "zh": "名称", "en": "Name", "type": "text", "max": 40},
            ],
        }
    ],
}


def key_of(n: int) -> str:
    return f"k{n:09d}"


def city(app: App) -> tuple[NodeKeys, Identity]:
    """A city that the province has certified."""
    keys = NodeKeys.generate(os.urandom)
    asked = issuing.parse_request(issuing.make_request("1301", keys.tls, keys.sign, keys.seal))
    der = app._certify(asked, "石家庄市", "city", ("1301",), 1)
    app.new_writer(app.store).local(NODES, "13", [Change(b"1301", canonical.dumps(node_payload(der)))])
    return keys, parse(der)


def build(app: App, count: int) -> None:
    """The city's log in the province's store."""
    keys, _ = city(app)
    name = LogName("bench", "1301", 1, "bench")
    reader = Reader(app.keys.seal.key_id, app.keys.seal.public)
    state, route = LogState(name), app.trust.route(name)
    hlc = (app.now_ms() - 86_400_000) << 16
    lsn = 0
    for group in range(0, count, SEGMENT * GROUP):
        with app.store.write() as tx:
            for first in range(group, min(group + SEGMENT * GROUP, count), SEGMENT):
                numbers = range(first, min(first + SEGMENT, count))
                changes = [Change((k := key_of(n)).encode(), b'{"id":"%s"}' % k.encode()) for n in numbers]
                stamps = range(hlc + first, hlc + first + len(changes))
                for own in extend(state, changes, stamps, 1, keys.sign, [reader], True, os.urandom):
                    lsn, state = tx.append_own(own, route), own.after
    time_s = app.now_s
    head = Checkpoint(str(name), state.size, state.root)
    with app.store.write() as tx:
        tx.set_first_parent(lsn, Cosignature(time_s, checkpoint.cosign(head, app.keys.sign, time_s)))


def timed(work: Any) -> tuple[float, Any]:
    start = time.perf_counter()
    found = work()
    return (time.perf_counter() - start) * 1000, found


def bench(folder: Path, count: int, proofs: int) -> dict[str, Any]:
    app = App.init_province(folder / "13", Config(), node="13", name="河北省", domain="bench")
    app.publish_catalog(Catalog.from_toml_dict(CATALOG))
    build_ms, _ = timed(lambda: build(app, count))
    app.close()
    app = App.open(folder / "13", Config())
    records = app.records()
    project_ms, _ = timed(records.projector.catch_up)
    app.close()
    app = App.open(folder / "13", Config())
    prover = Prover(app.records(), app.keys.sign, app.now_ms)
    rng = random.Random(1)
    root = app.trust.directory.root.der
    first_ms, _ = timed(lambda: prover.prove("bench", key_of(rng.randrange(count))))
    spent, checks, found = [], [], list[Proved]()
    for _ in range(proofs):
        key = key_of(rng.randrange(count))
        ms, proved = timed(lambda key=key: prover.prove("bench", key))
        assert proved.checked.leaf.key == key
        assert len(proved.checked.witnesses) == 1
        checks.append(timed(lambda data=proved.data: proof_file.check(data, root))[0])
        spent.append(ms)
        found.append(proved)
    app.close()
    spent.sort()
    return {
        "changes": count,
        "segments": -(-count // SEGMENT),
        "how": "one city's log in a province's store: extended, sealed, signed and appended here, not received",
        "build_s": round(build_ms / 1000, 1),
        "project_s": round(project_ms / 1000, 1),
        "disk_mb": round(sum(one.stat().st_size for one in (folder / "13").rglob("*") if one.is_file()) / 2**20),
        "proofs": proofs,
        "prove_p50_ms": round(statistics.median(spent), 1),
        "prove_p99_ms": round(spent[int(len(spent) * 0.99)], 1),
        "prove_max_ms": round(spent[-1], 1),
        "first_ms": round(first_ms, 1),
        "segments_read_mean": round(statistics.mean(one.segments_read for one in found), 2),
        "segments_read_max": max(one.segments_read for one in found),
        "file_bytes": max(len(one.data) for one in found),
        "check_p50_ms": round(statistics.median(checks), 1),
        "load_1min": round(os.getloadavg()[0], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--changes", type=int, default=10_000_000)
    parser.add_argument("--proofs", type=int, default=500)
    parser.add_argument("--folder", type=Path, help="where the stores are made, on the disk to be measured")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=given.folder))
    try:
        print(json.dumps(bench(folder, given.changes, given.proofs), ensure_ascii=False, indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
