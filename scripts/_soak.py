"""Runs all that tries to break the program, in turns, until the time is up; keeps where it was, and writes a report."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TAIL_LINES = 60  # of what a failure said
PARTS = 200  # a turn of the crash lab looks at one moment of so many


@dataclass(frozen=True, slots=True)
class Turn:
    """One of those who take turns. `command`: with {seed}, {part}; `seeds`: how many a turn uses up; `figure`: what is
    counted, a pattern whose groups are added up over the output."""

    name: str
    command: str
    seeds: int
    counts: str
    figure: str


TURNS = (
    Turn("simulation", "scripts/simulate --seed {seed} --count 10", 10, "seeds", r"^seed \d+: "),
    Turn("small", "scripts/simulate --small --seed {seed} --count 50", 50, "seeds", r"^seed \d+: "),
    Turn("light", "scripts/simulate --light --seed {seed} --count 20", 20, "seeds", r"^seed \d+: "),
    Turn(
        "days", "scripts/simulate --light --days 30 --seed {seed} --count 4", 4, "node-days", r", ([\d.]+) node-days,"
    ),
    Turn("burning", "scripts/simulate --burning --seed {seed} --count 4", 4, "seeds", r"^seed \d+: "),
    Turn("promoting", "scripts/simulate --promoting --seed {seed} --count 2", 2, "seeds", r"^seed \d+: "),
    Turn(
        "promoting-small", "scripts/simulate --promoting --small --seed {seed} --count 10", 10, "seeds", r"^seed \d+: "
    ),
    Turn("liars", "scripts/simulate --byzantine --light --seed {seed} --count 10", 10, "seeds", r"^seed \d+: "),
    Turn("crashlab", "scripts/crashlab --seed {seed} --part {part}/" + str(PARTS), 1, "images", r'"images": (\d+)'),
    Turn("flips", "scripts/crashlab --flips 40 --seed {seed}", 1, "flips", r'"flips": (\d+)'),
    Turn("fuzz", "scripts/fuzz --all --seconds 2 --seed {seed}", 1, "inputs", r"([\d,]+) inputs"),
)


def figure(turn: Turn, said: str) -> float:
    """What a turn came to, by what it said."""
    found = re.findall(turn.figure, said, re.MULTILINE)
    if not re.compile(turn.figure).groups:
        return float(len(found))
    return sum(float(one.replace(",", "")) for one in found)


def take(turn: Turn, state: dict[str, Any]) -> None:
    """One turn, and what became of it into the state. After a failure it goes on behind the seed that failed."""
    mine = state.setdefault(turn.name, {"next": 0, "seconds": 0.0, "figure": 0.0, "failures": []})
    command = turn.command.format(seed=mine["next"], part=mine["next"] % PARTS)
    start = time.monotonic()
    done = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True, check=False)
    mine["seconds"] += time.monotonic() - start
    mine["figure"] += figure(turn, done.stdout)
    first, mine["next"] = mine["next"], mine["next"] + turn.seeds
    if done.returncode:
        said = done.stdout + done.stderr
        failed = [int(seed) for seed in re.findall(r"^(?:replay: .*--seed|seed) (\d+)", done.stderr, re.MULTILINE)]
        if failed:
            mine["next"] = max(first, *failed) + 1
        mine["failures"].append({"command": command, "said": said.splitlines()[-TAIL_LINES:]})


def report(state: dict[str, Any], commit: str) -> str:
    """What was run, in Markdown."""
    lines = [f"# Soak of {commit}", "", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", ""]
    lines += ["| what | command | seeds | came to | seconds | failures |", "| --- | --- | --- | --- | --- | --- |"]
    known = {turn.name: turn for turn in TURNS}
    for name, mine in state.items():
        turn = known[name]
        seeds = f"0 to {mine['next'] - 1}"
        came_to = f"{mine['figure']:,.0f} {turn.counts}"
        lines.append(
            f"| {name} | `{turn.command}` | {seeds} | {came_to} | {mine['seconds']:,.0f} | {len(mine['failures'])} |"
        )
    for name, mine in state.items():
        for one in mine["failures"]:
            lines += ["", f"## {name}: `{one['command']}`", "", "```", *one["said"], "```"]
    return "\n".join(lines) + "\n"


def main() -> int:
    """1 if anything failed, in this run or before on this commit."""
    parser = argparse.ArgumentParser(description="all that tries to break the program", prog="scripts/soak")
    parser.add_argument("--hours", type=float, default=8)
    parser.add_argument("--into", type=Path, default=ROOT / "build" / "soak")
    parser.add_argument("--only", nargs="+", choices=[turn.name for turn in TURNS], metavar="NAME")
    given = parser.parse_args()
    git = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    given.into.mkdir(parents=True, exist_ok=True)
    kept, words = given.into / f"{commit}.json", given.into / f"{commit}.md"
    state: dict[str, Any] = json.loads(kept.read_text()) if kept.exists() else {}
    turns = [turn for turn in TURNS if not given.only or turn.name in given.only]
    until = time.monotonic() + given.hours * 3600
    while time.monotonic() < until:
        turn = min(turns, key=lambda one: state.get(one.name, {}).get("seconds", 0.0))  # who has had the least time
        take(turn, state)
        beside = kept.with_suffix(".new")
        beside.write_text(json.dumps(state, indent=1))
        beside.replace(kept)
        words.write_text(report(state, commit))
        mine = state[turn.name]
        print(
            f"{turn.name}: {mine['figure']:,.0f} {turn.counts} in {mine['seconds']:,.0f} s, "
            f"{len(mine['failures'])} failures",
            flush=True,
        )
    print(words)
    return int(any(mine["failures"] for mine in state.values()))


if __name__ == "__main__":
    sys.exit(main())
