"""The ports that tests give to nodes stay theirs (test_turns_mesh failed in CI: a connection took one while its
node was down)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from ports import BLOCK, FIRST, LAST, free_port

LIB = Path(__file__).parents[1] / "lib"


def test_processes_side_by_side_never_give_out_the_same_port() -> None:
    ours = {free_port() for _ in range(2 * BLOCK)}
    script = f"from ports import free_port; print(*(free_port() for _ in range({2 * BLOCK})))"
    environment = {**os.environ, "PYTHONPATH": str(LIB)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    theirs = {int(port) for port in done.stdout.split()}
    assert (len(ours), len(theirs), ours & theirs) == (2 * BLOCK, 2 * BLOCK, set())
    both = ours | theirs
    assert (min(both) > FIRST, max(both) < LAST, LAST < 32_768) == (True, True, True)
