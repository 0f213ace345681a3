"""INVARIANTS 25: memory does not grow with a bundle, at either side."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sticks import Row, held, write_much

MEASURED = """
import resource, sys
from fednode.node.cli import invoke
code = invoke(sys.argv[1:], {"LANG": "C.UTF-8"})
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, file=sys.stderr)
sys.exit(code)
"""
MORE_MIB = 24  # half of what the larger bundle has more
SMALL, LARGE = 500, 1_600  # segments of about 45 kB; the smaller fills a group and the projection's page cache already


def peak_mib(home: Path, *words: object) -> int:
    """The largest resident size of a command in a process of its own."""
    command = [sys.executable, "-c", MEASURED, "--home", str(home), "--json", "bundle", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    return int(done.stderr.split()[-1])


def peaks(folder: Path, segments: int) -> tuple[int, list[int]]:
    """(bytes of the bundle in MiB, peaks at the sender, at the receiver, at the sender again)."""
    folder.mkdir()
    row = Row(folder, 1)
    write_much(row.apps[1], segments)
    row.close()
    carried = folder / "stick"
    city, province = folder / "1301", folder / "13"
    found = [peak_mib(city, "export", "--to", "13", "-o", carried)]
    size = sum(path.stat().st_size for path in carried.iterdir()) >> 20
    found += [peak_mib(province, "import", carried), peak_mib(city, "import", carried)]
    app = row.apps[0]
    app = type(app).open(province, app.config)
    assert held(app) == segments * 100
    app.close()
    return size, found


@pytest.mark.slow
def test_memory_does_not_grow_with_the_bundle(tmp_path: Path) -> None:
    small, at_small = peaks(tmp_path / "small", SMALL)
    large, at_large = peaks(tmp_path / "large", LARGE)
    assert large - small > 1.5 * MORE_MIB
    for less, more in zip(at_small, at_large, strict=True):
        assert more - less < MORE_MIB, (at_small, at_large)
