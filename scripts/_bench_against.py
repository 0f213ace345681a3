"""scripts/bench against REV: hop of this checkout and of other commits, in turns, in one run. Prints one JSON document.

Each round runs `_bench_hop.py` once for every commit, with the code and the bench of that commit (so look at what a
figure of the same name meant there), and with this checkout's .venv. In turns, because a machine is not the same from
one minute to the next. `rounds`: the figures of each; `median`; and `ratio` for every REV: here / there. For what costs
(CPU, bytes, memory, milliseconds) a ratio above 1 is dearer here, for what is so much a second slower is below 1.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent.parent
PLAIN = ("import_rows_per_s", "ack_per_s", "visible_per_s", "wire_bytes_per_change", "rss_child_mb", "rss_parent_mb")
SINGLE = ("single_p50_ms", "single_bytes", "single_cpu_child_ms", "single_cpu_parent_ms")


def figures(found: dict[str, Any]) -> dict[str, float]:
    """Of one run. CPU seconds are those of the daemons, until everything is visible and indexed."""
    kept = {name: float(found[name]) for name in (*PLAIN, *SINGLE) if name in found}
    both = [float(found[f"cpu_{end}_s"]["all"]) for end in ("child", "parent")]
    return {**kept, "cpu_child_s": both[0], "cpu_parent_s": both[1], "cpu_both_s": round(sum(both), 2)}


def run(tree: Path, options: list[str]) -> dict[str, float]:
    command = [sys.executable, str(tree / "scripts/_bench_hop.py"), *options]
    environ = {**os.environ, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environ, cwd=tree)
    return figures(json.loads(done.stdout))


def against(revisions: list[str], rounds: int, options: list[str]) -> dict[str, Any]:
    git = ["git", "-C", str(HERE)]
    with tempfile.TemporaryDirectory(prefix="fednode-against-") as folder:
        trees = {"here": HERE} | {rev: Path(folder) / str(n) for n, rev in enumerate(revisions)}
        made: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
        try:
            for rev in revisions:
                subprocess.run([*git, "worktree", "add", "--quiet", "--detach", str(trees[rev]), rev], check=True)
            for _ in range(rounds):
                for name, tree in trees.items():
                    made[name].append(run(tree, options))
        finally:
            for rev in revisions:
                subprocess.run([*git, "worktree", "remove", "--force", str(trees[rev])], check=False)
    medians = {
        name: {figure: statistics.median(one[figure] for one in some) for figure in some[0]}
        for name, some in made.items()
    }
    mine = medians["here"]
    ratios = {
        rev: {figure: round(mine[figure] / value, 3) for figure, value in medians[rev].items() if figure in mine}
        for rev in revisions
    }
    return {
        "bench": "against",
        "load_1min": round(os.getloadavg()[0], 2),
        "ratio": ratios,
        "median": medians,
        "rounds": made,
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench against", description=__doc__.split("\n\n")[0])
    parser.add_argument("revisions", nargs="+", metavar="REV")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--singles", type=int, default=0)
    arguments = parser.parse_args()
    options = ["--changes", str(arguments.changes), "--singles", str(arguments.singles)]
    print(json.dumps(against(arguments.revisions, arguments.rounds, options), indent=1))


if __name__ == "__main__":
    main()
