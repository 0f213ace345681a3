"""The demonstration, as a new user runs it: five processes, a kill, a correction, proofs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.e2e
def test_the_demonstration_holds() -> None:
    done = subprocess.run(
        ["bash", "scripts/demo", "--json", "--rows", "200"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.stdout, done.stderr
    document = json.loads(done.stdout)
    assert done.returncode == 0, document["error"]
    assert document["ok"]
    assert len(document["steps"]) >= 10
    assert document["steps"][-2]["records"] == 250
