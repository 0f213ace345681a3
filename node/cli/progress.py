"""A bar for what takes a while: how far, how many a second, how long still.

Rules
1. On stderr, and only for a person: none without a terminal, with --json or --quiet.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from fednode.node.cli.frame import Session

Update = Callable[[int, int | None, int], None]


def _nothing(_done: int, _total: int | None, _count: int) -> None:
    """Nobody looks."""


@contextmanager
def bar(session: Session, label: str) -> Iterator[Update]:
    """Yields `update(done, total, count)`: `done` of `total` (of whatever kind) is through, and with it `count` rows or
    changes. `label`: the key of its words."""
    if session.as_json or session.quiet or not sys.stderr.isatty():
        yield _nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (
        *(TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[rate]}")),
        TimeRemainingColumn(),
    )
    started = time.monotonic()
    with Progress(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task(session.words(label), total=None, rate="")

        def update(done: int, total: int | None, count: int) -> None:
            rate = f"{count:,} ({count / max(0.001, time.monotonic() - started):,.0f}/s)"
            shown.update(task, completed=done, total=total, rate=rate)

        yield update
