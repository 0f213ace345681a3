"""audit: what can be proved of what this node holds. `fednode verify` is short for `fednode audit verify`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.crypto.errors import FednodeError
from fednode.node import status
from fednode.node.cli import journal, proofs
from fednode.node.cli.frame import Group, Session, command, option
from fednode.node.cli.progress import bar
from fednode.node.messages import catalogue, error_text

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.audit import Report


@click.group(cls=Group, help="help.audit")
def audit() -> None:
    """Verify, prove, check."""


@command("help.verify", "audit.verify")
@option("--full", is_flag=True, words="option.full")
@option("--log", "only", default="", metavar="NAME", words="option.log")
@option("--jobs", type=click.IntRange(1, 256), metavar="N", words="option.jobs")
def verify(session: Session, full: bool, only: str, jobs: int | None) -> None:
    """Verify the logs that this node holds, from its disk: what came since the last time, or all of it."""
    from fednode.node import mending, retention, workers

    app = session.app()
    # The bar has a thread, and processes are started before there is any.
    jobs = jobs or app.profile.jobs_max
    with (
        workers.prepared(app.store, app.trust, full=full, only=only, jobs=jobs) as verify_all,
        bar(session, "verify.progress") as update,
    ):
        report = verify_all(lambda done, total: update(done, total, done))
    if not only:
        status.note_verified(app.store, app.now_ms(), report)
    counts = {name: getattr(report, name) for name in ("logs", "segments", "changes", "carried", "stripped")}
    problems = [dataclasses.asdict(one) for one in report.problems]
    lines = [session.words("verify.problem", what=_what(session, one["code"]), **one) for one in problems]
    unexplained = retention.withheld(app.store)
    if unexplained:
        lines.append(session.words("verify.withheld", count=unexplained))
    damaged = [(one.log, one.first) for one in report.problems if one.code == mending.DAMAGED]
    if damaged:
        with app.store.write() as tx:
            mending.remember(tx, damaged)
        app.poke()
        lines.append(session.words("verify.mending"))
    lines.append(session.words("verify.bad" if problems else "verify.good" if full else "verify.good_new", **counts))
    _tell(app, report)
    session.done({"full": full, **counts, "withheld": unexplained, "problems": problems}, lines, 6 if problems else 0)


def _what(session: Session, code: str) -> str:
    """What is wrong with a range of a log, in a few words; a code from elsewhere in its own."""
    key = f"verify.{code}"
    return session.words(key) if key in catalogue() else error_text(FednodeError(code), session.lang)[0]


def _tell(app: App, report: Report) -> None:
    """Write in the audit how a verification ended; what it found is shown even where that cannot be written."""
    told: dict[str, Any] = {"logs": report.logs, "segments": report.segments, "problems": len(report.problems)}
    code = report.problems[0].code if report.problems else ""
    app.journal().note("audit.verify", "failed" if code else "done", code=code, **told)


audit.add_command(verify, "verify")
audit.add_command(proofs.prove, "prove")
audit.add_command(proofs.check, "check")
audit.add_command(proofs.root, "root")
audit.add_command(journal.log, "log")
