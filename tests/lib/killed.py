"""A command that is killed (SIGKILL) at one of its own steps: run as a program of its own.

python tests/lib/killed.py STEP NUMBER COMMAND...

STEP: `write`, `fsync`, `replace` (calls of `node.files`), `append` (a segment inside a transaction), `commit` (after a
group is on disk), `enter`, `project`, `answer`. It dies right before the NUMBER-th of them (`commit`: after). Ends with
the command's exit code where there are fewer.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from fednode.node import admission, bundles, files
from fednode.node.cli import invoke
from fednode.node.transaction import Transaction
from fednode.node.writer import Writer

GROUP_BYTES = 100_000  # several groups out of little


class Step:
    """Counts down to the end."""

    def __init__(self, number: int) -> None:
        self.left = number

    def before(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            self._count()
            return real(*given, **more)

        return call

    def after(self, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*given: Any, **more: Any) -> Any:
            done = real(*given, **more)
            self._count()
            return done

        return call

    def _count(self) -> None:
        self.left -= 1
        if self.left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


class Calls:
    """The module `os` with one call counted."""

    def __init__(self, name: str, step: Step) -> None:
        setattr(self, name, step.before(getattr(os, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def main(name: str, number: int, command: list[str]) -> int:
    step = Step(number)
    patched: Any = bundles
    patched.GROUP_BYTES_MAX = GROUP_BYTES
    places: dict[str, tuple[Any, str]] = {
        "append": (Transaction, "append_verified"),
        "enter": (admission, "enter"),
        "project": (bundles, "_project"),
        "answer": (bundles, "_answer"),
    }
    if name in ("write", "fsync", "replace"):
        setattr(files, "os", Calls(name, step))  # noqa: B010 - a stand-in for a module
    elif name == "commit":
        setattr(Writer, "incoming", step.after(Writer.incoming))  # noqa: B010
    else:
        owner, attribute = places[name]
        setattr(owner, attribute, step.before(getattr(owner, attribute)))
    return invoke(command, {"LANG": "C.UTF-8"})


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3:]))
