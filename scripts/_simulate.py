"""Runs seeds of the simulator (tests/lib/sim)."""

from __future__ import annotations

import argparse
import logging
import sys
import time

from sim.story import run


def main() -> int:
    """One line a seed; 1 at the first that does not hold."""
    parser = argparse.ArgumentParser(description="seeds of the simulator")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--burning", action="store_true", help="nodes burn, and come back from their backups")
    parser.add_argument("--promoting", action="store_true", help="primaries fail, and their standbys are promoted")
    parser.add_argument(
        "--small", action="store_true", help="7 nodes and two and a half minutes in place of 31 and six"
    )
    given = parser.parse_args()
    logging.disable(logging.WARNING)  # nodes say what befalls them
    for seed in range(given.seed, given.seed + given.count):
        start = time.monotonic()
        try:
            result = run(seed, burning=given.burning, promoting=given.promoting, small=given.small)
        except AssertionError as error:
            print(error, file=sys.stderr)
            return 1
        spent = time.monotonic() - start
        promoted = f"{result.promoted} promoted, " if given.promoting else ""
        print(
            f"seed {seed}: {result.digest[:16]} {result.events} events, {result.records} records, "
            f"{result.resumed} resumed, {promoted}quiet after {result.quiet_after_ms // 1000} s, {spent:.2f} s",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
