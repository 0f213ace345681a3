"""What holds for all tests.

- hypothesis measures no times: a deadline fails on a slow machine.
- The files that take longest come first: `scripts/test` gives its workers whole files, in this order, and none is to be
  left alone with a long one at the end.
- What runs in an event loop is marked `daemons`: most of it is nodes that talk over sockets, a second or two each.
"""

from __future__ import annotations

from collections import Counter
from inspect import iscoroutinefunction
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("fednode", deadline=None)
settings.load_profile("fednode")

USUAL_MS = {"e2e": 15_000, "slow": 10_000, "sim": 5_000, "daemons": 1_500}  # by mark; a rough guess does
USUAL_OF_OTHERS_MS = 20


def _usual_ms(item: pytest.Item) -> int:
    """How long a test like this one takes."""
    return max((usual for mark, usual in USUAL_MS.items() if item.get_closest_marker(mark)), default=USUAL_OF_OTHERS_MS)


@pytest.hookimpl(tryfirst=True)  # before `-m` looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Longest file first; within a file the order stays."""
    files: Counter[Path] = Counter()
    for item in items:
        if iscoroutinefunction(getattr(item, "obj", None)):
            item.add_marker(pytest.mark.daemons)
        files[item.path] += _usual_ms(item)
    items.sort(key=lambda item: -files[item.path])
