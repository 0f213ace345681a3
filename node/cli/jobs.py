"""jobs: what this node does by itself, and when; and one of them by hand."""

from __future__ import annotations

import time
from typing import Any

import rich_click as click

from fednode.node.cli.frame import Group, Session, command, table
from fednode.node.jobs import BY_NAME
from fednode.node.timetable import on_the_wall
from fednode.node.units import human_ms


@click.group(cls=Group, help="help.jobs", invoke_without_command=True)
@click.pass_context
def jobs(context: click.Context) -> None:
    """What this node does by itself: what, how often, when next, how the last one ended."""
    from fednode.node.jobs import listing

    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    session.command = "jobs"
    app = session.app()
    running = app.home.running()
    found = listing(app)
    told = [{**one, "what": session.words(f"job.{one['name']}")} for one in found]
    rows = [_row(session, one, app.now_ms()) for one in told]
    heads = [session.words(f"head.{key}") for key in ("job", "schedule", "next", "last", "outcome", "took", "what")]
    lines = table(rows, heads)
    if not running:
        lines += ["", session.words("jobs.stopped")]
    session.done({"running": running, "jobs": told}, lines)


def _row(session: Session, one: dict[str, Any], now_ms: int) -> tuple[str, ...]:
    words = session.words
    last = one["last_ms"]
    ended = words(f"outcome.{one['outcome']}") if one["outcome"] else "-"
    return (
        one["name"],
        schedule(session, one),
        on_the_wall(one["next_ms"], one.get("zone", "")) if one["next_ms"] else "-",
        words("status.never")
        if last is None
        else words("status.ago", age=human_ms(max(0, now_ms - last), session.lang)),
        f"{ended} {one['code'] or ''}".strip(),
        "-" if one["took_ms"] is None else took(one["took_ms"]),
        one["what"],
    )


def schedule(session: Session, one: dict[str, Any]) -> str:
    """How often, or in which windows, in words."""
    if one["every_s"] is not None:
        return session.words("jobs.every", time=human_ms(round(one["every_s"] * 1000), session.lang))
    return ", ".join(one["windows"]) or session.words("jobs.always")


def took(ms: int) -> str:
    """How long something took, in seconds."""
    return f"{ms / 1000:.3g} s"


@command("help.jobs_run", "jobs.run")
@click.argument("job", type=click.Choice(tuple(BY_NAME)))
def run_(session: Session, job: str) -> None:
    """Run one job now, in this process."""
    from fednode.node.jobs import run_by_hand

    session.logs(session.config()[0])
    app = session.app()
    began = time.monotonic()
    found = run_by_hand(app, job, time.monotonic)
    took_ms = round((time.monotonic() - began) * 1000)
    app.journal().note("jobs.run", job=job, **found)
    shown = " ".join(f"{name}={value}" for name, value in found.items())
    done = session.words("jobs.done", job=job, time=took(took_ms), found=shown)
    session.done({"job": job, "took_ms": took_ms, "found": found}, [done])


jobs.add_command(run_, "run")
