"""The demonstration: 河北省 > 石家庄市 > 长安区 > 建北街道 > 棉一东社区, five processes, real gRPC with mutual TLS.

Everything is done through the command line, as an operator would. Each step is checked; the first that does not hold
ends it with exit code 1 and the folder kept. Nothing here sleeps for a fixed time: it waits until a thing is so, up to
`WAIT_S`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FEDNODE = Path(sys.executable).with_name("fednode")
WAIT_S = 60.0
POLL_S = 0.1

CHAIN = (
    ("13", "province", "河北省"),
    ("1301", "city", "石家庄市"),
    ("130102", "county", "长安区"),
    ("130102001", "township", "建北街道"),
    ("130102001001", "village", "棉一东社区"),
)
VILLAGE, TOWNSHIP, COUNTY, PROVINCE = CHAIN[4][0], CHAIN[3][0], CHAIN[2][0], CHAIN[0][0]


class Failed(Exception):
    """A step that did not hold."""


class Demo:
    """The five nodes, in one folder."""

    def __init__(self, folder: Path, as_json: bool) -> None:
        self.folder, self.as_json = folder, as_json
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.steps: list[dict[str, Any]] = []
        self.started = time.monotonic()
        self.last = self.started

    # ------------------------------------------------------------ tools

    def home(self, node: str) -> Path:
        return self.folder / node

    def run(self, node: str, *words: str, expect: int = 0) -> dict[str, Any]:
        """One command at one node; its JSON document."""
        command = [str(FEDNODE), "--home", str(self.home(node)), "--json", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=ROOT)
        if done.returncode != expect:
            shown = " ".join(words)
            raise Failed(f"{node}: `{shown}` exits {done.returncode}, not {expect}\n{done.stdout}{done.stderr}")
        document: dict[str, Any] = json.loads(done.stdout)
        return document

    def start(self, node: str) -> None:
        """Start a node's daemon; returns when its ports are open or its run directory says it runs."""
        with (self.home(node) / "daemon.log").open("ab") as log:
            command = [str(FEDNODE), "--home", str(self.home(node)), "run"]
            self.daemons[node] = subprocess.Popen(command, stdout=log, stderr=log, cwd=ROOT)
        self.until(f"{node} runs", lambda: bool(self.run(node, "status")["status"]["running"]))

    def kill(self, node: str, how: signal.Signals) -> None:
        process = self.daemons.pop(node)
        process.send_signal(how)
        process.wait(timeout=30)

    def until(self, what: str, holds: Callable[[], bool]) -> None:
        """Wait until something holds."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            for node, process in self.daemons.items():
                if process.poll() is not None:
                    log = (self.home(node) / "daemon.log").read_text(errors="replace")[-2000:]
                    raise Failed(f"the daemon of {node} ended with {process.returncode}\n{log}")
            if holds():
                return
            time.sleep(POLL_S)
        raise Failed(f"not within {WAIT_S:.0f} s: {what}")

    def say(self, what: str, **values: Any) -> None:
        """One line of the report."""
        now = time.monotonic()
        step = {"step": what, "seconds": round(now - self.last, 2), **values}
        self.steps.append(step)
        self.last = now
        if not self.as_json:
            print(f"[{now - self.started:6.1f} s] {what}", flush=True)

    def records(self, node: str) -> tuple[int, str]:
        """How many records a node holds, and their digest."""
        found = self.run(node, "digest")
        return int(found["records"]), str(found["digest"])

    def pending(self, node: str) -> int:
        """Changes saved at a node that its parent does not hold."""
        parent = self.run(node, "status")["status"]["parent"]
        return int(parent["pending_changes"])

    def sample(self, dataset: str, rows: int, seed: int, *, area: str = VILLAGE) -> Path:
        path = self.folder / f"{dataset}-{seed}.csv"
        command = [str(ROOT / "scripts/sample-data"), "--dataset", dataset, "--rows", str(rows)]
        subprocess.run([*command, "--seed", str(seed), "-o", str(path)], check=True, capture_output=True, cwd=ROOT)
        return path

    # ------------------------------------------------------------ the story

    def found(self) -> None:
        """The chain: init, then invite and join, level by level."""
        for node, level, name in CHAIN:
            listen, enrol = free_port(), free_port()
            self.home(node).mkdir(parents=True)
            (self.home(node) / "config.toml").write_text(
                f'listen = "127.0.0.1:{listen}"\nenrol_listen = "127.0.0.1:{enrol}"\n'
                f'advertise = ["127.0.0.1:{listen}"]\nadvertise_enrol = ["127.0.0.1:{enrol}"]\n'
            )
            if node == PROVINCE:
                self.run(node, "init", "--id", node, "--level", level, "--name", name, "--domain", "hebei")
            else:
                parent = CHAIN[[one[0] for one in CHAIN].index(node) - 1][0]
                token = self.run(parent, "invite", node, "--level", level, "--name", name)["token"]
                self.run(node, "join", token)
            self.start(node)
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
        self.found()
        self.catalog()
        held = self.first_import(rows)
        self.cut(held, rows // 4)
        self.correct()
        self.agree()

    def stop(self) -> None:
        for node in [one[0] for one in reversed(CHAIN) if one[0] in self.daemons]:
            self.kill(node, signal.SIGTERM)


def free_port() -> int:
    """A port that nobody uses now. Drawn below the ephemeral range, so that no outgoing connection takes it
    meanwhile."""
    start = 20_000 + os.getpid() % 10_000
    for port in range(start, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in _given:
            _given.add(port)
            return port
    raise Failed("no free port")


_given: set[int] = set()


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
            demo.stop()
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
