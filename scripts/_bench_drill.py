"""scripts/bench drill: a drill on many records, by the commands. Prints one JSON document; progress goes to stderr.

A province, a city with the records and one county, and the city's standby, each a process of its own, on loopback and
a real disk. `import_s`: CSV of registrations into the city; `standby_s`: from the invitation until the new standby
answers `digest` with all of them; `drill_s`: `fednode drill` at the standby, with what its report says: the steps, RPO,
RTO.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _bench_data import write_csv

import processes
from processes import Processes
from sites import allowed, site

DATASET = "org-registration"
WAIT_S = 1_800.0


def drill(nodes: Processes, records: int) -> dict[str, Any]:
    """Seconds of each part, and the report's own figures."""
    nodes.found("130102", "county", "长安区", "1301")
    rows = nodes.folder / "rows.csv"
    write_csv(rows, records)
    start = time.monotonic()
    added = nodes.run("1301", "import", DATASET, str(rows))["added"]
    found: dict[str, Any] = {"records": added, "import_s": round(time.monotonic() - start, 1)}
    print(found, file=sys.stderr, flush=True)
    start = time.monotonic()
    standby = nodes.standby("1301")
    allowed(nodes, "13", standby)
    nodes.until("the standby has all", lambda: nodes.records(standby)[0] == added)
    found["standby_s"] = round(time.monotonic() - start, 1)
    print(found, file=sys.stderr, flush=True)
    start = time.monotonic()
    report = nodes.run(standby, "drill")["drill"]
    found["drill_s"] = round(time.monotonic() - start, 1)
    steps = {one["name"]: {"outcome": one["outcome"], "took_s": one["took_s"]} for one in report["steps"]}
    return found | {"steps": steps} | {name: report[name] for name in ("rpo_changes", "rpo_ms", "rto_s")}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench drill", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--records", type=int, default=1_000_000)
    arguments = parser.parse_args()
    processes.WAIT_S = WAIT_S
    with tempfile.TemporaryDirectory(prefix="fednode-drill-") as folder, site(Path(folder)) as nodes:
        nodes.forked = False  # what an operator would wait for
        found = drill(nodes, arguments.records)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
