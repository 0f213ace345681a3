"""A pytest plugin for scripts/mutants: writes down each failure, what it was, which program was run, and the processor
time that it took. A failure is found, not made small: hypothesis does not shrink.

`pytest -p mutants_plugin`, with the file to write in FEDNODE_MUTANTS_REPORT.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, settings

_failures: list[dict[str, Any]] = []


def noticed(error: BaseException) -> bool:
    """Whether an exception says that something does not hold: a test's or the simulator's assertion, or an error that
    the program declares. Any other is a planted bug that does not run, and was noticed by nobody."""
    from fednode.crypto.errors import FednodeError

    if isinstance(error, BaseExceptionGroup):
        return all(noticed(one) for one in error.exceptions)
    return isinstance(error, AssertionError | pytest.fail.Exception | FednodeError)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    outcome: Any = yield
    report = outcome.get_result()
    if report.failed and call.excinfo is not None:
        error = call.excinfo.value
        text = next(iter(str(error).strip().splitlines()), "")
        said = {"test": item.nodeid, "when": report.when, "error": type(error).__name__, "says": text[:200]}
        _failures.append({**said, "noticed": noticed(error)})


def pytest_configure(config: pytest.Config) -> None:
    settings.register_profile("mutants", phases=[Phase.explicit, Phase.generate])
    settings.load_profile("mutants")


def pytest_sessionfinish(session: pytest.Session) -> None:
    import fednode

    if hasattr(session.config, "workerinput"):  # of pytest-xdist
        return
    seconds = round(sum(os.times()[:4]), 1)  # its own, and that of processes that it has waited for
    program = str(Path(fednode.__path__[0]).resolve())
    document = {"program": program, "failures": _failures, "seconds": seconds}
    Path(os.environ["FEDNODE_MUTANTS_REPORT"]).write_text(json.dumps(document), "utf-8")
