"""audit: what can be proved of what this node holds. `fednode verify` is short for `fednode audit verify`."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.crypto.errors import FednodeError
from fednode.node.cli.frame import Group, Session, command

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.audit import Report


@click.group(cls=Group, help="help.audit")
def audit() -> None:
    """Verify, prove, check."""


@command("help.verify", "audit.verify")
def verify(session: Session) -> None:
    """Verify every log that this node holds, from its disk."""
    from fednode.node import audit as audits

    app = session.app()
    report = audits.verify_store(app.store, app.trust)
    problems = [dataclasses.asdict(one) for one in report.problems]
    lines = [session.words("verify.problem", **one) for one in problems]
    lines.append(
        session.words(
            "verify.bad" if problems else "verify.good",
            logs=report.logs,
            segments=report.segments,
            changes=report.changes,
            carried=report.carried,
        )
    )
    data = {
        "logs": report.logs,
        "segments": report.segments,
        "changes": report.changes,
        "carried": report.carried,
        "problems": problems,
    }
    _tell(app, report)
    session.done(data, lines, 6 if problems else 0)


def _tell(app: App, report: Report) -> None:
    """Write in the audit how a verification ended; what it found is shown even where that cannot be written."""
    told: dict[str, Any] = {"logs": report.logs, "segments": report.segments, "problems": len(report.problems)}
    code = report.problems[0].code if report.problems else ""
    with contextlib.suppress(FednodeError):
        app.journal().event("audit.verify", "failed" if code else "done", code=code, **told)


audit.add_command(verify, "verify")
