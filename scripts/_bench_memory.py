"""scripts/bench memory: the most that a node ever holds in memory (VmHWM), in each of its heavy works. Prints one JSON
document.

A province and a city as for `scripts/bench hop`; every process has the profile that is measured (`small` and `normal`):

    import     `fednode import` of all rows, beside the city's daemon, whose parent is away
    beside     that daemon meanwhile: it projects, and indexes words
    child      a daemon that sends all of it; `parent`: one that takes it in, until it is in the record table and its
               words are indexed
    rebuild    `fednode rebuild` at the parent: the record table, its indexes, its words
    verify     `fednode audit verify --full` at the parent
    idle       a daemon that holds all of it, connected, with nothing to do (VmRSS)
    total_s    how long all of it took
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import _bench_data
from _bench_hop import VISIBLE, Node, idle, join, machine, note, one_value, rest, until
from _bench_node import DATASET

PROFILES = ("small", "normal")
BAR_MB = 120


def peak_mb(home: Path, profile: str, *words: str) -> float:
    """The peak of one command, of its first process."""
    command = [sys.executable, str(Path(__file__).with_name("_bench_peak.py")), "--home", str(home), "--quiet", *words]
    environ = {**os.environ, "FEDNODE_PROFILE": profile}
    done = subprocess.run(command, capture_output=True, text=True, env=environ, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit code {done.returncode}\n{done.stderr}")
    return float(done.stderr.rpartition("peak ")[2])


def measured(folder: Path, changes: int, profile: str) -> dict[str, Any]:
    started = time.monotonic()
    asyncio.run(join(folder))
    rows = folder / "rows.csv"
    _bench_data.write_csv(rows, changes)
    note(f"{profile}: joined; importing")
    beside = Node("daemon", folder / "1301", FEDNODE_PROFILE=profile)
    beside.event("ready")
    imported = peak_mb(folder / "1301", profile, "import", DATASET, str(rows))
    until(folder / "1301/state.db", VISIBLE.format(changes=changes), changes)
    rest_of(folder / "1301")
    at_beside = beside.end()
    note(f"{profile}: imported; sending")
    last = one_value(
        folder / "1301/log.db", "select max(s.lsn) from segment s join log l on l.id = s.log_id where l.up = 1"
    )
    parent = Node("daemon", folder / "13", FEDNODE_PROFILE=profile)
    parent.event("ready")
    child = Node("daemon", folder / "1301", FEDNODE_PROFILE=profile)
    child.event("dialling")
    until(folder / "1301/log.db", "select max(acked) from peer", last)
    until(folder / "13/state.db", VISIBLE.format(changes=changes), changes)
    rest(folder)
    at_child, at_parent = child.end(), parent.end()
    note(f"{profile}: rebuilding, verifying")
    figures = {
        "import": imported,
        "beside": at_beside["peak_mb"],
        "child": at_child["peak_mb"],
        "parent": at_parent["peak_mb"],
        "rebuild": peak_mb(folder / "13", profile, "rebuild"),
        "verify": peak_mb(folder / "13", profile, "audit", "verify", "--full"),
    }
    os.environ["FEDNODE_PROFILE"] = profile
    resting = idle(folder)
    del os.environ["FEDNODE_PROFILE"]
    figures["idle"] = max(resting.values())
    return {name: round(value, 1) for name, value in figures.items()} | {"total_s": round(time.monotonic() - started)}


def rest_of(home: Path) -> None:
    """Until a node's words are indexed."""
    last = one_value(home / "state.db", "select max(id) from record")
    until(home / "state.db", "select value from meta where key = 'text_id'", last)


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench memory", description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--profile", choices=PROFILES, action="append", help="only this one")
    parser.add_argument("--dir", type=Path, help="where to make the folder (a real disk; default: TMPDIR)")
    parser.add_argument("--address-space", type=int, metavar="MIB", default=0, help="RLIMIT_AS of every process")
    arguments = parser.parse_args()
    if arguments.address_space:
        limit = arguments.address_space * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    result: dict[str, Any] = {"bench": "memory", "changes": arguments.changes, "bar_mb": BAR_MB}
    for profile in arguments.profile or PROFILES:
        folder = Path(tempfile.mkdtemp(prefix="fednode-bench-", dir=arguments.dir))
        try:
            result.setdefault("machine", machine(folder))
            result[profile] = measured(folder, arguments.changes, profile)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
