"""What holds for all tests.

- hypothesis measures no times: a deadline fails on a slow machine.
- The files that take longest come first: `scripts/test` gives its workers whole files, in this order, and none is to be
  left alone with a long one at the end.
"""

from __future__ import annotations

from collections import Counter
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fednode", deadline=None)
settings.load_profile("fednode")

USUAL_MS = {"e2e": 15_000, "slow": 10_000, "sim": 5_000}  # by mark; a rough guess does
USUAL_OF_DAEMONS_MS, USUAL_OF_OTHERS_MS = 1_500, 20


def _usual_ms(item: pytest.Item) -> int:
    """How long a test like this one takes."""
    marked = [usual for mark, usual in USUAL_MS.items() if item.get_closest_marker(mark)]
    if marked:
        return max(marked)
    return USUAL_OF_DAEMONS_MS if iscoroutinefunction(getattr(item, "obj", None)) else USUAL_OF_OTHERS_MS


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest file first; within a file the order stays."""
    files: Counter[Path] = Counter()
    for item in items:
        files[item.path] += _usual_ms(item)
    items.sort(key=lambda item: -files[item.path])
