"""Plants the bugs of tests/mutants, one at a time, each in a copy of the tree of its own, and runs the tests that are
to notice it.

scripts/mutants                  all of them, after their tests have passed without any bug; exit code 1 if one survives
scripts/mutants NAME...          only these
scripts/mutants --list           what there is
scripts/mutants --json           one JSON document instead of the table
scripts/mutants -j 2             so many at a time

A bug is *caught* when a test fails because something does not hold: an assertion of the test's or of the simulator's,
or an error that the program itself declares (FN-...). A bug that ends in anything else (an import that fails, a name
that is not there, a test that hangs) is *broken*: it proves nothing, and counts as not caught.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from importlib.util import cache_from_source
from pathlib import Path
from typing import Any

from mutants import Mutant, Stale, load
from source import ROOT

CAUGHT, SURVIVED, BROKEN = "caught", "survived", "broken"
TIMEOUT_S, ALL_TIMEOUT_S = 900, 7200
CACHES = (".git", ".venv*", "*_cache", ".hypothesis", "*.egg-info", "__pycache__", "build", "dist")
LEFT_OUT = shutil.ignore_patterns(*CACHES)
INVARIANT = re.compile(r"^\| (\d+) \| `([a-z-]+)` \|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one. `by`: the test that failed first; `says`: with what words; `seconds`: of processor time, for
    a clock on the wall says more of what else the machine does."""

    name: str
    why: str
    invariant: str
    verdict: str
    by: str
    says: str
    seconds: float


def run(tree: Path, tests: Sequence[str], *more: str, warm: bool = False) -> tuple[int, dict[str, Any], str]:
    """Run tests in a copy of the tree, on its own code: pytest's exit code, what the plugin wrote, pytest's output."""
    report = tree / "mutants-report.json"
    places = os.pathsep.join((str(tree / "src"), str(tree / "tests/lib")))
    environ = {**os.environ, "PYTHONPATH": places, "FEDNODE_MUTANTS_REPORT": str(report), "PYTHONHASHSEED": "0"}
    if not warm:
        environ["PYTHONDONTWRITEBYTECODE"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "mutants_plugin"]
    command += ["--hypothesis-seed=0", *more, *tests]
    try:
        longest_s = ALL_TIMEOUT_S if warm else TIMEOUT_S
        done = subprocess.run(command, cwd=tree, env=environ, capture_output=True, text=True, timeout=longest_s)
    except subprocess.TimeoutExpired:
        return -1, {}, f"no end after {longest_s} s"
    found: dict[str, Any] = json.loads(report.read_text("utf-8")) if report.exists() else {}
    return done.returncode, found, done.stdout + done.stderr


def outcome(mutant: Mutant, base: Path, folder: Path, invariants: dict[int, str]) -> Outcome:
    """Plant one bug in a copy of its own, and see who notices."""
    tree = folder / mutant.name
    shutil.copytree(base, tree, symlinks=True)
    for path, text in mutant.plant(tree).items():
        Path(cache_from_source(str(path))).unlink(missing_ok=True)
        path.write_text(text, "utf-8")
    code, report, output = run(tree, mutant.tests, "-x")
    first = next(iter(report.get("failures", [])), {})
    mine = report.get("program") == str((tree / "src/fednode").resolve())
    if code == 0 and mine:
        verdict, by, says = SURVIVED, "", ""
    elif code == 1 and mine and first.get("noticed"):
        verdict, by, says = CAUGHT, first["test"], f"{first['error']}: {first['says']}"
    else:
        why = f"{first['error']}: {first['says']}" if first else output.strip()[-400:]
        verdict, by, says = BROKEN, first.get("test", ""), why if mine or code else "another program was run"
    shutil.rmtree(tree)
    invariant = f"{mutant.breaks} {invariants[mutant.breaks]}" if mutant.breaks else ""
    return Outcome(mutant.name, mutant.why, invariant, verdict, by, says, report.get("seconds", 0.0))


def row(one: Outcome) -> str:
    """One line of the table."""
    by = one.by.removeprefix("tests/").partition("[")[0]
    told = f"`{by}`" if one.verdict == CAUGHT else f"**{one.verdict}** {one.says}"
    return f"| `{one.name}` | {one.why} | {one.invariant} | {told} | {one.seconds:.1f} |"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="plants bugs, and shows which test notices each", prog="scripts/mutants"
    )
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true", help="the names, and what is broken")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("-j", type=int, default=1, metavar="N", dest="jobs", help="so many at a time")
    return parser.parse_args()


def chosen(names: Sequence[str]) -> list[Mutant]:
    """Those that are named, or all. Raises Stale for a name that is not there, and for any that does not fit."""
    every = load()
    if unknown := sorted({*names} - {one.name for one in every}):
        raise Stale(f"there is no {', '.join(unknown)}")
    picked = [one for one in every if not names or one.name in names]
    for one in picked:
        one.plant(ROOT)
    return picked


def main() -> int:
    """0 when all were caught, 1 when one was not, or a test fails without any bug, 2 for one that does not fit."""
    given = arguments()
    try:
        picked = chosen(given.names)
    except Stale as error:
        print(error, file=sys.stderr)
        return 2
    if given.list:
        for one in picked:
            print(f"{one.name:32} {one.why}")
        return 0
    invariants = {
        int(number): name for number, name in INVARIANT.findall((ROOT / "docs/invariants.md").read_text("utf-8"))
    }
    start = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        base = Path(folder) / "tree"
        shutil.copytree(ROOT, base, symlinks=True, ignore=LEFT_OUT)
        tests = sorted({test for one in picked for test in one.tests})
        code, _, output = run(base, tests, *(("-n", str(given.jobs)) if given.jobs > 1 else ()), warm=True)
        used = resource.getrusage(resource.RUSAGE_CHILDREN)
        without_s = round(used.ru_utime + used.ru_stime, 1)
        if code:
            print(output, f"without any bug the tests fail already ({code})", sep="\n", file=sys.stderr)
            return 1
        if not given.json:
            print(f"{len(tests)} tests pass without any bug ({without_s} s)\n", flush=True)
            print("| bug | what is broken | invariant | caught by | s |\n| --- | --- | --- | --- | --- |", flush=True)
        found = []
        with ThreadPoolExecutor(given.jobs) as pool:
            for one in pool.map(lambda mutant: outcome(mutant, base, Path(folder), invariants), picked):
                found.append(one)
                if not given.json:
                    print(row(one), flush=True)
    bad = [one.name for one in found if one.verdict != CAUGHT]
    wall_s, cpu_s = round(time.monotonic() - start, 1), round(without_s + sum(one.seconds for one in found), 1)
    if given.json:
        document = {"tests": len(tests), "without_s": without_s, "cpu_s": cpu_s, "wall_s": wall_s, "not_caught": bad}
        print(json.dumps({**document, "mutants": [asdict(one) for one in found]}, indent=1, ensure_ascii=False))
    else:
        print(f"\n{len(found) - len(bad)} of {len(found)} caught, {cpu_s} s of processor time, {wall_s} s in all")
        if bad:
            print("not caught:", *bad)
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
