"""Runs the crash lab (tests/lib/crash) over all positions of a life, and flips bits; prints one JSON document.

scripts/crashlab --seed 1                  every position of a life, and of each the images that the dice choose
scripts/crashlab --seed 1 --mixtures 40    more images of each position
scripts/crashlab --seed 1 --part 0/4       a quarter of the positions
scripts/crashlab --flips 1000              bits flipped, one at a time
scripts/crashlab -j 2 ...                  two processes, each with its part
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
import time
from pathlib import Path

from crash import flips, images, lab, life


def main() -> int:
    """0 when all of it held; else 1, with what did not."""
    parser = argparse.ArgumentParser(description="the crash lab", prog="scripts/crashlab")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--part", default="0/1", metavar="I/N", help="every Nth position, from the Ith")
    parser.add_argument("--mixtures", type=int, default=images.MIXTURES, metavar="N", help="by dice, of each position")
    parser.add_argument("-j", type=int, default=1, metavar="N", dest="jobs", help="so many processes")
    parser.add_argument("--flips", type=int, default=0, metavar="N")
    given = parser.parse_args()
    start = time.monotonic()
    with tempfile.TemporaryDirectory(dir=lab.in_memory()) as folder:
        made = life.live(Path(folder))
        if given.flips:
            tally = flips.flip(made, given.seed, given.flips, jobs=given.jobs)
            silent = sorted({(name, table) for name, _, _, table in tally.silent})
            found = {"flips": given.flips, "noticed": dict(tally.seen.most_common()), "silent_in": silent}
            bad = bool(tally.silent)
        else:
            first, step = (int(one) for one in given.part.split("/"))
            positions = range(1 + first, len(made.trace) + 1, step)
            report = lab.look(made, given.seed, positions, mixtures=given.mixtures, jobs=given.jobs)
            found, bad = dataclasses.asdict(report), bool(report.faults)
    print(json.dumps({"seed": given.seed, **found, "seconds": round(time.monotonic() - start, 1)}, indent=1))
    return int(bad)


if __name__ == "__main__":
    sys.exit(main())
