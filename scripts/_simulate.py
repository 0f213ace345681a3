"""Runs seeds of the simulator (tests/lib/sim)."""

from __future__ import annotations

import argparse
import logging
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path

from sim.hierarchy import LARGE, SMALL, Shape, codes_of, of_codes, of_size, over_days
from sim.shrink import FAILURES, complaint, shrink
from sim.story import Told, tell

COUNT = 31
NODES_MIN = 20  # fewer have not enough villages for what befalls them

OPEN_MIN = 6  # a session takes two, and whoever looks at several has them in hand


def main() -> int:
    """One line a seed; 1 at the first that does not hold."""
    given = _given()
    shape, words = _shape(given)
    told = Told(
        shape,
        given.burning,
        given.promoting,
        given.byzantine,
        given.light,
        frozenset(map(int, given.only.split(","))) if given.only else None,
        frozenset(given.without.split(",") if given.without else ()),
        words,
    )
    logging.disable(logging.WARNING)  # nodes say what befalls them
    for seed in range(given.seed, given.seed + given.count):
        start, cpu = time.monotonic(), time.process_time()
        try:
            result, _ = tell(seed, told)
        except FAILURES as error:
            if not isinstance(error, AssertionError):
                traceback.print_exc()
                print("replay:", told.replay(seed), file=sys.stderr)
            else:
                print(error, file=sys.stderr)
            if given.shrink:
                print(shrink(seed, told, complaint(error), given.shrink), file=sys.stderr)
            return 1
        slept = f"{result.open_most} open at most, {result.woken} awakenings, " if given.open else ""
        spent, cpu = time.monotonic() - start, time.process_time() - cpu
        promoted = f"{result.promoted} promoted, " if given.promoting else ""
        print(
            f"seed {seed}: {result.digest[:16]} {result.events} events, {result.records} records, "
            f"{result.resumed} resumed, {promoted}{slept}quiet after {result.quiet_after_ms // 1000} s, "
            f"{result.node_days:.1f} node-days, {spent:.2f} s ({cpu:.2f} s of processor: "
            f"{result.node_days / cpu:.1f} node-days a second)",
            flush=True,
        )
    return 0


def _shape(given: argparse.Namespace) -> tuple[Shape, str]:
    """The world's, and the options that say so."""
    if given.small:
        return SMALL, "--small"
    shape, words = LARGE, []
    if given.divisions:
        shape = of_codes(codes_of(given.divisions, given.nodes))
        words.append(f"--divisions {given.divisions} --nodes {given.nodes}")
    elif given.nodes != COUNT:
        shape = of_size(given.nodes)
        words.append(f"--nodes {given.nodes}")
    if given.days:
        shape = over_days(shape, given.days)
        words.append(f"--days {given.days}")
    if given.calm > 1:
        shape = replace(shape, calm=given.calm)
        words.append(f"--calm {given.calm}")
    if given.open:
        shape = replace(shape, open_max=given.open)
        words.append(f"--open {given.open}")
    return shape, " ".join(words)


def _given() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="seeds of the simulator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1, help="how many seeds from that one on")
    parser.add_argument("--nodes", type=int, default=COUNT, help="how many; with --divisions 0 is all")
    parser.add_argument("--days", type=int, default=0, help="over how many days; 0: six minutes, all at once")
    parser.add_argument("--divisions", type=Path, help="the tree of a real province: a CSV file that begins with codes")
    parser.add_argument("--open", type=int, default=0, metavar="NODES", help="at once; the others sleep meanwhile")
    parser.add_argument("--calm", type=int, default=1, metavar="TIMES", help="less goes wrong by chance, so many times")
    parser.add_argument("--burning", action="store_true", help="nodes burn, and come back from their backups")
    parser.add_argument("--promoting", action="store_true", help="primaries fail, and their standbys are promoted")
    parser.add_argument("--small", action="store_true", help="7 nodes and two and a half minutes")
    parser.add_argument("--byzantine", action="store_true", help="a relay and a village lie")
    parser.add_argument("--light", action="store_true", help="without cryptography: same story, same digest")
    parser.add_argument("--only", help="of what is planned these numbers alone, as a shrunk seed prints them")
    parser.add_argument("--without", help="what never happens by chance, as a shrunk seed prints it")
    parser.add_argument("--shrink", type=int, default=60, metavar="RUNS", help="of a seed that fails; 0: not at all")
    given = parser.parse_args()
    if given.nodes < NODES_MIN and not (given.divisions and not given.nodes):
        parser.error(f"--nodes: at least {NODES_MIN}")
    if given.open and (given.open < OPEN_MIN or given.promoting):
        parser.error(f"--open: at least {OPEN_MIN}, and not with --promoting")
    return given


if __name__ == "__main__":
    sys.exit(main())
