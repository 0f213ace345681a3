"""standby, promote: the replica that can take this node's place, and its taking it."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node.cli.frame import Group, Session, command, human_ms, option, table
from fednode.node.cli.identity import given, given_out, seconds_of

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.succession import Plan, Taken


@click.group(cls=Group, help="help.standby")
def standby() -> None:
    """The replica that can take this node's place."""


@command("help.standby_invite", "invite")
@option("--id", "node", default="", words="option.standby_id", metavar="NODE")
@option("--name", default="", words="option.name")
@option("--expires", default="7d", show_default=True, words="option.expires", metavar="7d")
@option("--token-file", words="option.token_out", metavar="FILE")
def invite(session: Session, node: str, name: str, expires: str, token_file: str | None) -> None:
    """Print a token for a standby of this node."""
    from fednode.sync.enrol import Token

    ttl_s = seconds_of(expires)
    app = session.app()
    token = given_out(token_file, lambda: app.invite_standby(name, node, ttl_s))
    called = Token.decode(token).node
    session.note("standby.invited", node=called, me=app.trust.node, time=human_ms(ttl_s * 1000, session.lang))
    session.done(given(session, app, called, token, token_file, ttl_s), [token_file or token])


@command("help.standby_list")
def list_(session: Session) -> None:
    """The standbys of this node, and how far behind each is; at a standby, how far behind it is itself."""
    from fednode.node.lag import listing

    app = session.app()
    found = listing(app)
    rows = [
        (
            one["id"],
            one["name"],
            one["for"],
            session.words("standby.heir" if one["heir"] else "standby.no_heir"),
            _count(one["behind_changes"]),
            "-" if one["behind_ms"] is None else human_ms(one["behind_ms"], session.lang),
        )
        for one in found
    ]
    heads = [session.words(f"head.{key}") for key in ("id", "name", "stands_for", "may_succeed", "behind", "lag")]
    session.done({"standbys": found}, table(rows, heads) if rows else [session.words("standby.none")])


def _count(changes: int | None) -> str:
    return "-" if changes is None else str(changes)


@command("help.standby_allow", "standby.allow")
@click.argument("node")
def allow(session: Session, node: str) -> None:
    """Let a standby succeed its primary one day."""
    from fednode.node import succession

    app = session.app()
    found = succession.allow(app, node)
    session.done(
        {"node": node, "for": found.stands_for}, [session.words("standby.allowed", node=node, primary=found.stands_for)]
    )


standby.add_command(invite, "invite")
standby.add_command(list_, "list")
standby.add_command(allow, "allow")


# ---------------------------------------------------------------- promotion


@command("help.promote", "promote")
@option("--root-key", words="option.root_key", metavar="FILE")
@option("--address", "addresses", multiple=True, words="option.issuer_address", metavar="HOST:PORT")
@option("--primary-is-gone", is_flag=True, words="option.primary_is_gone")
@option("--yes", is_flag=True, words="option.yes")
@option("--dry-run", is_flag=True, words="option.dry_run")
def promote(
    session: Session, root_key: str | None, addresses: tuple[str, ...], primary_is_gone: bool, yes: bool, dry_run: bool
) -> None:
    """Take the primary's place, for good."""
    from fednode.node import succession
    from fednode.node.home import Home

    app = session.app()
    plan = succession.plan(app)
    with Home.load(session.home).lock():
        checks = asyncio.run(succession.check(app))
        shown = {**dataclasses.asdict(plan), **dataclasses.asdict(checks)}
        if dry_run:
            session.done({"dry_run": True, "plan": shown}, _plan_lines(session, app, plan, checks))
            return
        for line in _plan_lines(session, app, plan, checks) if not (session.as_json or session.quiet) else ():
            session.say(line)
        succession.agree(plan, checks, primary_is_gone)
        session.confirm(plan.primary, yes)
        key = app.home.read_root_key(Path(root_key), session.config()[0].passphrase) if root_key else None
        taken: Taken = asyncio.run(succession.promote(app, addresses, key))
    lines = [
        session.words("promote.done", node=taken.node, incarnation=taken.incarnation, again=taken.again),
        session.words("promote.next"),
    ]
    session.done({"dry_run": False, "promoted": dataclasses.asdict(taken)}, lines)


def _plan_lines(session: Session, app: App, plan: Plan, checks: Any) -> list[str]:
    words = session.words
    heard = words("status.never")
    if plan.heard_ms is not None:
        heard = words("status.ago", age=human_ms(max(0, app.now_ms() - plan.heard_ms), session.lang))
    lines = [
        words("promote.plan", standby=plan.standby, primary=plan.primary, life=plan.life + 1),
        words("promote.heard", heard=heard),
        words("promote.reachable" if checks.reachable else "promote.unreachable", primary=plan.primary),
        words("promote.verified", changes=checks.changes) if not checks.problems else words(
            "promote.damaged", count=checks.problems
        ),
        words("promote.heir" if plan.heir else "promote.no_heir", standby=plan.standby),
    ]  # fmt: skip
    if plan.uncosigned:
        lines.append(words("promote.uncosigned", count=plan.uncosigned))
    if plan.children:
        lines.append(words("promote.children", count=len(plan.children), nodes=", ".join(plan.children[:8])))
    return lines
