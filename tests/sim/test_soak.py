"""The soak: what it counts, what it keeps, how it goes on."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def soak() -> Any:
    spec = importlib.util.spec_from_file_location("_soak", ROOT / "scripts/_soak.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["_soak"] = module
    spec.loader.exec_module(module)
    return module


def test_what_each_turn_says_is_counted(soak: Any) -> None:
    turns = {turn.name: turn for turn in soak.TURNS}
    line = "seed 7: abcdef 7739 events, 241 records, quiet after 60 s, 930.2 node-days, 4.43 s\n"
    assert soak.figure(turns["simulation"], line * 3) == 3
    assert soak.figure(turns["days"], line * 2) == pytest.approx(1860.4)
    assert soak.figure(turns["crashlab"], '{\n "seed": 1,\n "images": 14358,\n') == 14_358
    assert soak.figure(turns["flips"], '{\n "flips": 40,\n') == 40
    assert soak.figure(turns["fuzz"], "note: 12,862 inputs in 3 s\ncsv: 38 inputs in 3 s\n") == 12_900


def test_seeds_go_on_and_failures_are_kept(soak: Any, tmp_path: Path) -> None:
    state: dict[str, Any] = {}
    turn = soak.Turn("simulation", "sh -c exit", 10, "seeds", r"^seed \d+: ")
    soak.take(turn, state)
    assert (state["simulation"]["next"], state["simulation"]["failures"]) == (10, [])
    fails = tmp_path / "fails.py"
    said = "seed 11: lost\nreplay: scripts/simulate --seed 11"
    fails.write_text(f"import sys; print('seed 10: fine'); sys.exit({said!r})")
    soak.take(soak.Turn("simulation", f"{sys.executable} {fails}", 10, "seeds", turn.figure), state)
    mine = state["simulation"]
    assert (mine["next"], mine["figure"]) == (12, 1)
    words = soak.report(state, "0123456789ab")
    assert "replay: scripts/simulate --seed 11" in words
    assert "| simulation |" in words
