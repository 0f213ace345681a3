"""doctor, self-test: what is wrong with a node and its machine, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.cli.progress import Update, bar

if TYPE_CHECKING:
    from fednode.node.doctor.scene import Progress

COLOURS = {"ok": "green", "warning": "yellow", "failure": "red", "not_applicable": "bright_black"}
INDENT = "      "


@command("help.doctor")
@option("--full", is_flag=True, words="option.doctor_full")
def doctor(session: Session, full: bool) -> None:
    """Numbered checks; writes nothing."""
    from fednode.node.doctor import finding
    from fednode.node.doctor.checks import CHECKS
    from fednode.node.doctor.scene import Scene

    with bar(session, "verify.progress") if full else nullcontext(None) as update:
        scene = Scene(session.home, session.config, full=full, progress=_progress(update))
        try:
            found = finding.run(CHECKS, scene)
        finally:
            scene.close()
    shown = finding.document(found, session.lang)
    data = {"doctor": {"home": str(scene.home.path), "full": full, **shown}}
    session.done(data, lines(session, shown, "check", "doctor.sum"), finding.exit_code(found))


@command("help.self_test")
def self_test(session: Session) -> None:
    """Whether this machine can run the program."""
    from fednode.node.config import Config
    from fednode.node.doctor import finding
    from fednode.node.doctor.scene import Scene
    from fednode.node.doctor.selftest import TESTS

    found = finding.run(TESTS, Scene(session.home, lambda: (Config(), {})))
    shown = finding.document(found, session.lang)
    session.done({"self_test": shown}, lines(session, shown, "selfcheck", "selftest.sum"), finding.exit_code(found))


def _progress(update: Update | None) -> Progress:
    from fednode.node.doctor.scene import quiet

    return quiet if update is None else lambda done, of: update(done, of, done)


def lines(session: Session, shown: dict[str, Any], kind: str, end: str) -> list[str]:
    """The checks, what to do below each that is not well, and the sum; with --quiet only what is not well. `kind`:
    whose titles these are; `end`: the words of the sum."""
    checks = [one for one in shown["checks"] if not session.quiet or one["state"] in ("warning", "failure")]
    rows = [(one["number"], session.words(f"{kind}.{one['id']}"), one["message"]) for one in checks]
    states = [session.words(f"doctor.state_{one['state']}") for one in checks]
    said = []
    for state, line, one in zip(_padded(states), table(rows, ("", "", ""))[1:], checks, strict=True):
        said.append(f"{_coloured(session, one['state'], state)}{line}")
        said += [f"{INDENT}→ {one['next']}"] if one["next"] and one["state"] != "not_applicable" else []
    words = f"{end}_{shown['state']}"
    return [*said, "", _coloured(session, shown["state"], session.words(words, **shown["counts"]))]


def _padded(cells: Sequence[str]) -> list[str]:
    return [line.removesuffix(".") for line in table([(cell, ".") for cell in cells], ("", ""))[1:]]


def _coloured(session: Session, state: str, words: str) -> str:
    """In colour on a terminal, unless NO_COLOR says no."""
    return words if "NO_COLOR" in session.environ else str(click.style(words, fg=COLOURS[state]))
