"""audit: what can be proved of what this node holds. `fednode verify` is short for `fednode audit verify`."""

from __future__ import annotations

import dataclasses

import rich_click as click

from fednode.node.cli.frame import Group, Session, command


@click.group(cls=Group, help="help.audit")
def audit() -> None:
    """Verify, prove, check."""


@command("help.verify")
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
    session.done(data, lines, 6 if problems else 0)


audit.add_command(verify, "verify")
