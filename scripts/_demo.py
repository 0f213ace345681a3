"""The demonstration: 河北省 > 石家庄市 > 长安区 > 建北街道 > 棉一东社区, five processes, real gRPC with mutual TLS.

Everything is done through the command line, as an operator would. Each step is checked; the first that does not hold
ends it with exit code 1 and the folder kept. Nothing here sleeps for a fixed time: it waits until a thing is so, up to
`WAIT_S`.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from processes import ROOT, Failed, Processes

CHAIN = (
    ("13", "province", "河北省"),
    ("1301", "city", "石家庄市"),
    ("130102", "county", "长安区"),
    ("130102001", "township", "建北街道"),
    ("130102001001", "village", "棉一东社区"),
)
VILLAGE, TOWNSHIP, COUNTY, PROVINCE = CHAIN[4][0], CHAIN[3][0], CHAIN[2][0], CHAIN[0][0]


class Demo(Processes):
    """The five nodes, in one folder."""

    def __init__(self, folder: Path, as_json: bool) -> None:
        super().__init__(folder, forked=False)
        self.as_json = as_json
        self.steps: list[dict[str, Any]] = []
        self.started = time.monotonic()
        self.last = self.started

    def say(self, what: str, **values: Any) -> None:
        """One line of the report."""
        now = time.monotonic()
        step = {"step": what, "seconds": round(now - self.last, 2), **values}
        self.steps.append(step)
        self.last = now
        if not self.as_json:
            print(f"[{now - self.started:6.1f} s] {what}", flush=True)

    def sample(self, dataset: str, rows: int, seed: int, *, area: str = VILLAGE) -> Path:
        path = self.folder / f"{dataset}-{seed}.csv"
        command = [str(ROOT / "scripts/sample-data"), "--dataset", dataset, "--rows", str(rows)]
        subprocess.run([*command, "--seed", str(seed), "-o", str(path)], check=True, capture_output=True, cwd=ROOT)
        return path

    # ------------------------------------------------------------ the story

    def chain(self) -> None:
        """The chain: init, then invite and join, level by level."""
        parent = ""
        for node, level, name in CHAIN:
            self.found(node, level, name, parent)
            parent = node
        self.say("five nodes, each invited by the one above: " + " > ".join(name for _, _, name in CHAIN))

    def catalog(self) -> None:
        published = self.run(PROVINCE, "catalog", "publish", "--shipped")
        version = int(published["catalog"]["version"])
        self.until("the village has the catalog", lambda: self.run(VILLAGE, "status")["status"]["catalog"] == version)
        self.say(f"the province published catalog {version}; it reached the village by itself", version=version)

    def first_import(self, rows: int) -> int:
        licences, penalties = rows * 6 // 10, rows - rows * 6 // 10
        for dataset, count in (("admin-licence", licences), ("admin-penalty", penalties)):
            report = self.run(VILLAGE, "import", dataset, str(self.sample(dataset, count, 1)))
            if report["added"] != count:
                raise Failed(f"import added {report['added']} of {count}")
        self.say(f"the village imported {licences} licences and {penalties} penalties", rows=rows)
        self.until("the province has them", lambda: self.records(PROVINCE)[0] == rows)
        self.say(f"the province has all {rows}, pushed through four levels")
        again = self.run(VILLAGE, "import", "admin-licence", str(self.folder / "admin-licence-1.csv"))
        if again["added"] or again["changed"]:
            raise Failed("importing the same file again changed something")
        self.say("importing the same file again changed nothing")
        return rows

    def cut(self, held: int, rows: int) -> int:
        self.kill(TOWNSHIP, signal.SIGKILL)
        report = self.run(VILLAGE, "import", "admin-licence", str(self.sample("admin-licence", rows, 2)))
        record = self.first_licence(VILLAGE)
        record["record"]["xk_nr"] = record["record"]["xk_nr"] + "（更正）"
        self.run(VILLAGE, "put", "admin-licence", json.dumps(record["record"], ensure_ascii=False))
        waiting = self.pending(VILLAGE)
        if waiting < report["added"] + 1:
            raise Failed(f"{waiting} changes wait at the village, {report['added'] + 1} were made")
        failed = self.run(VILLAGE, "sync", expect=4)
        if failed["error"]["exit"] != 4:
            raise Failed("sync without a parent should exit 4")
        self.say(
            f"the township was killed; the village went on: {report['added']} new, one edit; {waiting} changes wait",
            waiting=waiting,
        )
        self.start(TOWNSHIP)
        total = held + int(report["added"])
        self.until("the backlog drained", lambda: self.pending(VILLAGE) == 0)
        self.until("the province has them", lambda: self.records(PROVINCE)[0] == total)
        self.say(f"the township came back; the backlog drained by itself, the province has {total}", total=total)
        return total

    def first_licence(self, node: str) -> dict[str, Any]:
        found: dict[str, Any] = self.run(node, "find", "admin-licence", "--limit", "1")["records"][0]
        return found

    def correct(self) -> None:
        record = self.first_licence(COUNTY)
        record["record"]["xk_zt"] = "2"
        self.run(COUNTY, "put", "admin-licence", json.dumps(record["record"], ensure_ascii=False), "--area", VILLAGE)
        for node in (PROVINCE, VILLAGE):
            self.until(
                f"{node} has the correction",
                lambda node=node: self.run(node, "get", "admin-licence", record["key"])["record"]["xk_zt"] == "2",
            )
        self.say("the county corrected a record of the village's: up to the province, down to that village")

    def agree(self) -> None:
        found: dict[str, tuple[int, str]] = {}

        def all_agree() -> bool:
            found.update({node: self.records(node) for node, _, _ in CHAIN})
            return len(set(found.values())) == 1

        self.until("every level agrees", all_agree)
        count, digest = found[PROVINCE]
        self.say(f"every level holds the same {count} records: digest {digest[:16]}", records=count, digest=digest)
        segments = changes = 0
        for node, _, _ in CHAIN:
            checked = self.run(node, "verify")
            segments, changes = segments + checked["segments"], changes + checked["changes"]
        self.say(f"every log verified at every level: {segments} segments, {changes} changes", segments=segments)

    def tell(self, rows: int) -> None:
        self.chain()
        self.catalog()
        held = self.first_import(rows)
        self.cut(held, rows // 4)
        self.correct()
        self.agree()


def main() -> int:
    parser = argparse.ArgumentParser(description="five nodes on this machine: data, a cut, a correction, proofs")
    parser.add_argument("--keep", action="store_true", help="leave the nodes running")
    parser.add_argument("--json", action="store_true", help="one JSON document instead of lines")
    parser.add_argument("--rows", type=int, default=1000, help="records of the first import (1000)")
    given = parser.parse_args()
    demo = Demo(Path(tempfile.mkdtemp(prefix="fednode-demo-")), given.json)
    error = ""
    try:
        demo.tell(given.rows)
        if not given.keep:
            demo.stop_all()
    except (Failed, subprocess.SubprocessError, KeyError, ValueError) as failure:
        error = f"{type(failure).__name__}: {failure}"
    finally:
        if error or not given.keep:
            for process in demo.daemons.values():
                process.kill()
    seconds = round(time.monotonic() - demo.started, 1)
    if given.json:
        kept = str(demo.folder) if given.keep or error else ""
        print(json.dumps({"ok": not error, "seconds": seconds, "steps": demo.steps, "error": error, "folder": kept}))
    elif error:
        print(f"FAILED: {error}\nThe nodes' folders are kept in {demo.folder}", file=sys.stderr)
    else:
        print(f"all of it held, in {seconds} s")
        if given.keep:
            print(f"the nodes run on; homes in {demo.folder}; stop them with: pkill -f {demo.folder}")
    if not error and not given.keep:
        shutil.rmtree(demo.folder)
    return 1 if error else 0


if __name__ == "__main__":
    sys.exit(main())
