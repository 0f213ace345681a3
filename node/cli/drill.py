"""drill: the rehearsal of a promotion, on a copy aside."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.units import human_ms

if TYPE_CHECKING:
    from fednode.node.drills import Report


@command("help.drill")
@option("--out", words="option.drill_out", metavar="DIR")
@option("--keep", is_flag=True, words="option.drill_keep")
@option("--list", "listed", is_flag=True, words="option.drill_list")
def drill(session: Session, out: str | None, keep: bool, listed: bool) -> None:
    """Rehearse a promotion: no child, no file of production is touched."""
    from fednode.crypto.suite import SUITE_1
    from fednode.node import drills
    from fednode.node.app import real_clock
    from fednode.node.drill import Drill
    from fednode.node.drill_report import page
    from fednode.node.home import Home

    home = Home.load(session.home)
    if listed:
        _list(session, home)
        return
    config, _ = session.config()
    one = Drill(
        *(home, config, real_clock, monotonic, os.urandom, session.operator),
        lambda step: session.note(f"drill.step.{step}"),
    )
    report, folder = one.run(Path(out) if out else None, keep=keep)
    data = drills.document(report)
    paths = drills.write(report, folder, page(report, SUITE_1.hash(data).hex()))
    session.done(
        {"drill": msgspec.to_builtins(report), "report": [str(path) for path in paths]},
        _lines(session, report, [str(path) for path in paths]),
        0 if report.passed else 6,
    )


def _lines(session: Session, report: Report, paths: list[str]) -> list[str]:
    from fednode.crypto.errors import FednodeError
    from fednode.node.messages import error_text

    words = session.words
    rows = [
        (words(f"drill.step.{one.name}"), words(f"drill.outcome.{one.outcome.replace(' ', '_')}"), f"{one.took_s:g} s")
        for one in report.steps
    ]
    lines = table(rows, [words(f"head.{key}") for key in ("step", "state", "took")])
    for one in report.steps:
        if one.code:
            lines.append(f"{one.code}: {error_text(FednodeError(one.code, **one.params), session.lang)[0]}")
    rpo = words("drill.unknown") if report.rpo_ms is None else human_ms(report.rpo_ms, session.lang)
    lines.append(words("drill.told", rpo=rpo, rto="-" if report.rto_s is None else f"{report.rto_s:g} s"))
    lines.append(words("drill.passed" if report.passed else "drill.failed"))
    lines.append(words("drill.filed", path=paths[1]))
    return lines


def _list(session: Session, home: Any) -> None:
    from fednode.node import drills

    made = drills.history(home)
    rows = [
        (
            one.folder,
            session.words("drill.outcome.passed" if one.passed else "drill.outcome.failed"),
            "-" if one.rpo_ms is None else human_ms(one.rpo_ms, session.lang),
            "-" if one.rto_s is None else f"{one.rto_s:g} s",
        )
        for one in made
    ]
    heads = [session.words(f"head.{key}") for key in ("report", "state", "rpo", "rto")]
    shown = table(rows, heads) if rows else [session.words("drill.none")]
    session.done({"drills": [dataclasses.asdict(one) for one in made]}, shown)
