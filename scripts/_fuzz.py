"""Runs the fuzz targets (tests/lib/fuzz) under atheris: each in a process of its own, time and memory limited."""

from __future__ import annotations

import argparse
import os
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CORPUS, BUILD = ROOT / "tests" / "fuzz" / "corpus", ROOT / "build" / "fuzz"
FINDINGS = BUILD / "findings"
RUNS_DEFAULT = 10_000
MEMORY_MIB_MAX = 2048  # instrumented code, the world's keys and libFuzzer's own tables are in it
HANG_S = 30  # libFuzzer's own guard; a target is held to SECONDS_MAX of the processor
# What is fuzzed; instrumenting all of node would take longer than many a run.
INSTRUMENTED = (
    *("fednode.crypto", "fednode.sync", "fednode.node.ingest", "fednode.node.config", "fednode.node.toml"),
    *("fednode.node.succession", "fednode.node.switchover", "fednode.node.web", "fednode.node.home"),
    *("fednode.node.timetable", "fednode.node.proof_words", "fednode.node.backup.keyfile", "fednode.node.messages"),
)
_DONE = re.compile(rb"stat::number_of_executed_units: *([0-9]+)")


def main() -> int:
    """0: no finding; 1: some; 2: no such target."""
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="coverage-guided fuzzing of what reads bytes")
    parser.add_argument("targets", nargs="*", metavar="TARGET")
    parser.add_argument("--list", action="store_true", help="the targets, and how large their corpora are")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--runs", type=int, default=0, help="inputs for each target")
    parser.add_argument("--seconds", type=int, default=0, help="time for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--merge", action="store_true", help="take what gets further into the corpus")
    parser.add_argument("--seed-corpus", action="store_true", help="write each target's own inputs into its corpus")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return _one(given.targets[0], given)
    names = _names()
    if given.seed_corpus:
        return _seeds(given.targets or names)
    if given.list:
        for name in names:
            sizes = [path.stat().st_size for path in (CORPUS / name).glob("*")]
            print(f"{name}: {len(sizes)} files, {sum(sizes)} bytes")
        return 0
    chosen = names if given.all else given.targets
    unknown = [name for name in chosen if name not in names]
    if unknown or not chosen:
        print(f"no such target: {', '.join(unknown)}" if unknown else parser.format_usage(), file=sys.stderr)
        return 2
    return max([_run(name, given) for name in chosen])


def _names() -> list[str]:
    from fuzz.all_targets import TARGETS

    return [one.name for one in TARGETS]


def _run(name: str, given: argparse.Namespace) -> int:
    """One target in a process of its own; prints its line."""
    for folder in (BUILD / name, FINDINGS):
        folder.mkdir(parents=True, exist_ok=True)
    before, start = set(FINDINGS.iterdir()), time.monotonic()
    command = [sys.executable, __file__, "--one", name, f"--runs={given.runs}", f"--seconds={given.seconds}"]
    done = subprocess.run([*command, f"--seed={given.seed}"], capture_output=True, check=False)
    (BUILD / f"{name}.log").write_bytes(done.stdout + done.stderr)
    counted, found = _DONE.findall(done.stderr), sorted(set(FINDINGS.iterdir()) - before)
    failed = done.returncode != 0 or bool(found)
    runs = int(counted[-1]) if counted else 0
    print(
        f"{name}: {runs} inputs, {time.monotonic() - start:.0f} s, {'FINDING' if failed else 'no finding'}", flush=True
    )
    for path in found:
        print(f"  {path.relative_to(ROOT)}")
    if failed:
        lines = done.stderr.decode(errors="replace").splitlines()
        print("\n".join(f"  {line}" for line in lines if "Finding" in line or "Error" in line or "ERROR" in line))
    if given.merge:
        _merge(name)
    return int(failed)


def _one(name: str, given: argparse.Namespace) -> int:
    """Inside the process of a target."""
    import atheris

    with atheris.instrument_imports(include=list(INSTRUMENTED), enable_loader_override=False):
        import fuzz.all_targets as known
    from fuzz.alter import altered
    from fuzz.target import put

    target = next(one for one in known.TARGETS if one.name == name)
    kept = [path.read_bytes() for path in sorted((CORPUS / name).glob("*"))] or list(target.seeds())
    if not (CORPUS / name).is_dir():
        for number, data in enumerate(kept):
            (BUILD / name / f"seed-{number:02}").write_bytes(data)

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        dice = random.Random(seed)
        if dice.random() < 0.4:
            return bytes(atheris.Mutate(data, size_max))
        return altered(bytes(data), dice, kept, target.shape, size_max)

    def once(data: bytes) -> None:
        put(target, data)

    arguments = [
        *(sys.argv[0], str(BUILD / name), *([str(CORPUS / name)] if (CORPUS / name).is_dir() else [])),
        *(
            f"-seed={given.seed}",
            f"-max_len={target.bytes_max}",
            f"-rss_limit_mb={MEMORY_MIB_MAX}",
            f"-timeout={HANG_S}",
        ),
        *(f"-artifact_prefix={FINDINGS}/{name}-", "-print_final_stats=1", "-verbosity=0", "-len_control=0"),
        f"-runs={given.runs or (-1 if given.seconds else RUNS_DEFAULT)}",
        *([f"-max_total_time={given.seconds}"] if given.seconds else []),
    ]
    atheris.Setup(arguments, once, custom_mutator=mutate)
    atheris.Fuzz()
    return 0


def _seeds(names: list[str]) -> int:
    """A corpus to begin with: golden vectors, and what the world of tests/lib/world makes. What is there stays."""
    from fuzz.all_targets import TARGETS

    for target in TARGETS:
        there = CORPUS / target.name
        if target.name in names and not there.exists():
            there.mkdir(parents=True)
            for number, data in enumerate(target.seeds()):
                (there / f"seed-{number:02}").write_bytes(data[: target.bytes_max])
    return 0


MERGED_FILES_MAX, MERGED_BYTES_MAX = 10, 2048  # the ordinary tests try each file 200 times


def _merge(name: str) -> None:
    """Some of what libFuzzer found to get further, small and large, beside what is there."""
    there = CORPUS / name
    there.mkdir(parents=True, exist_ok=True)
    room = MERGED_FILES_MAX - len(list(there.iterdir()))
    small = [path for path in (BUILD / name).glob("*") if 0 < path.stat().st_size <= MERGED_BYTES_MAX]
    made = sorted(small, key=lambda path: (path.stat().st_size, path.name))
    if room > 0 and made:
        for path in made[:: -(-len(made) // room)]:
            (there / path.name[:16]).write_bytes(path.read_bytes())


if __name__ == "__main__":
    os.environ.setdefault("PYTHONHASHSEED", "0")
    _: Any = sys.exit(main())
