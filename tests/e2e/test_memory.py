"""A node inside a memory control group of 120 MiB, page cache included: what does not fit is killed by the kernel."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fednode.node.shipped import catalog
from processes import ROOT
from sample_data import records, write

LIMIT = 120 * 1024 * 1024
ROWS = 30_000
NAME = "admin-licence"
VERSION_1, VERSION_2 = Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of this test's own."""
    at, name = (VERSION_1, "memory.limit_in_bytes") if VERSION_1.is_dir() else (VERSION_2, "memory.max")
    made = at / f"fednode-test-{os.getpid()}"
    try:
        made.mkdir()
        (made / name).write_text(str(LIMIT))
    except OSError as error:
        with contextlib.suppress(OSError):
            made.rmdir()
        pytest.skip(f"no memory control group can be made here: {error}")
    yield made
    made.rmdir()


def run(group: Path, home: Path, *words: str) -> dict[str, Any]:
    """One command inside the group."""
    fednode = str(Path(sys.executable).with_name("fednode"))
    script = f'echo $$ > "{group}/cgroup.procs" && exec "$@"'
    done = subprocess.run(
        ["bash", "-c", script, "bash", fednode, "--home", str(home), "--json", *words],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, f"{words[0]}: {done.returncode} {done.stdout}{done.stderr}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.e2e
def test_a_node_works_inside_120_mib(group: Path, tmp_path: Path) -> None:
    home, path = tmp_path / "13", tmp_path / "rows.csv"
    write(path, catalog().datasets[NAME], records(NAME, ROWS, seed=1, area="130102001001"))
    run(group, home, "init", "--id", "13", "--level", "province", "--name", "x", "--domain", "hebei")
    shown = run(group, home, "config", "show", "--origin")
    assert shown["config"]["profile"] == "small", "it sees that it has little"
    assert shown["origins"]["profile"] == "default: 120 MiB of memory"
    run(group, home, "catalog", "publish", "--shipped")
    assert run(group, home, "import", NAME, str(path))["added"] == ROWS
    assert run(group, home, "find", NAME, "--text", "公司", "--limit", "1")["records"]
    assert run(group, home, "rebuild")["changes"] == ROWS
    assert run(group, home, "verify", "--full")["problems"] == []
