"""standby, promote: the replica that can take this node's place, and its taking it."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from fednode.crypto.errors import FednodeError
from fednode.node.cli.frame import Group, Session, command, option, table
from fednode.node.cli.identity import given, given_out, seconds_of
from fednode.node.units import human_ms
from fednode.sync.errors import Refused, StoreError

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.succession import Checks, Plan, Taken


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


@command("help.standby_seal", "standby.seal")
@click.argument("node")
@option("--out", required=True, words="option.grant_out", metavar="FILE")
@option("--code-file", words="option.code_out", metavar="FILE")
@option("--root-key", words="option.root_key", metavar="FILE")
def seal(session: Session, node: str, out: str, code_file: str | None, root_key: str | None) -> None:
    """Grant a succession in advance: a file, and a code that opens it."""
    from fednode.node import files, granting

    app = session.app()
    key = app.home.read_root_key(Path(root_key), session.config()[0].passphrase) if root_key else None
    try:
        draft = files.Draft(Path(out), 0o600, exclusive=True)
    except OSError as error:
        raise StoreError("FN-7617", path=out, reason=error.strerror or str(error)) from error
    try:
        file, code = granting.seal(app, node, key)
        draft.write(file)
        if code_file:
            files.write(Path(code_file), f"{code}\n".encode(), 0o600, exclusive=True)
        draft.commit()
    except OSError as error:
        raise StoreError("FN-7617", path=str(error.filename or out), reason=error.strerror or str(error)) from error
    finally:
        draft.discard()
    session.note("standby.sealed", node=node, path=out)
    found = {"node": node, "file": out, "code": None if code_file else code, "code_file": code_file}
    session.done(found, [code_file or code])


@command("help.standby_resume", "handover.cancelled")
@option("--yes", is_flag=True, words="option.yes")
def resume(session: Session, yes: bool) -> None:
    """At a primary: go on, a switchover did not come through."""
    from fednode.node import switchover

    app = session.app()
    session.confirm(app.trust.node, yes)
    asyncio.run(switchover.resume(app))
    session.done({"node": app.trust.node}, [session.words("switchover.resumed", node=app.trust.node)])


standby.add_command(invite, "invite")
standby.add_command(list_, "list")
standby.add_command(allow, "allow")
standby.add_command(resume, "resume")
standby.add_command(seal, "seal")


# ---------------------------------------------------------------- promotion


@command("help.promote", "promote")
@option("--planned", is_flag=True, words="option.planned")
@option("--root-key", words="option.root_key", metavar="FILE")
@option("--grant", words="option.promote_grant", metavar="FILE")
@option("--code-file", words="option.code_file", metavar="FILE")
@option("--address", "addresses", multiple=True, words="option.issuer_address", metavar="HOST:PORT")
@option("--primary-is-gone", is_flag=True, words="option.primary_is_gone")
@option("--yes", is_flag=True, words="option.yes")
@option("--dry-run", is_flag=True, words="option.dry_run")
def promote(
    session: Session,
    planned: bool,
    root_key: str | None,
    grant: str | None,
    code_file: str | None,
    addresses: tuple[str, ...],
    primary_is_gone: bool,
    yes: bool,
    dry_run: bool,
) -> None:
    """Take the primary's place, for good; or change places with it."""
    from fednode.node import succession
    from fednode.node.home import Home

    app = session.app()
    plan = succession.plan(app)
    key = app.home.read_root_key(Path(root_key), session.config()[0].passphrase) if root_key else None
    granted = _granted(session, app, grant, code_file)
    if granted:
        plan.heir = True
    if planned:
        _switch(session, app, plan, succession.by_root(app, key) if key is not None else granted, yes, dry_run)
        return
    with Home.load(session.home).lock():
        checks = asyncio.run(succession.check(app))
        if _shown(session, app, plan, checks, dry_run):
            return
        succession.agree(plan, checks, primary_is_gone)
        session.confirm(plan.primary, yes)
        taken: Taken = asyncio.run(succession.promote(app, addresses, key, granted))
    lines = [
        session.words("promote.done", node=taken.node, incarnation=taken.incarnation, again=taken.again),
        session.words("promote.next"),
    ]
    session.done({"dry_run": False, "promoted": dataclasses.asdict(taken)}, lines)


def _shown(session: Session, app: App, plan: Plan, checks: Checks, dry_run: bool) -> bool:
    """Say what would be done, before it is. Whether that was all that was asked for."""
    lines = _plan_lines(session, app, plan, checks)
    if dry_run:
        session.done({"dry_run": True, "plan": {**dataclasses.asdict(plan), **dataclasses.asdict(checks)}}, lines)
    elif not session.as_json and not session.quiet:
        for line in lines:
            session.say(line)
    return dry_run


def _granted(session: Session, app: App, file: str | None, code_file: str | None) -> tuple[bytes, ...]:
    """What was granted in advance; nothing where no file is given."""
    from fednode.node import granting

    if file is None:
        return ()
    try:
        data = Path(file).read_bytes()
        code = Path(code_file).read_text("ascii", "replace") if code_file else ""
    except OSError as error:
        raise Refused("FN-3300", path=str(error.filename), reason=error.strerror or str(error)) from error
    if not code:
        if session.as_json or not sys.stdin.isatty():
            raise Refused("FN-3120")
        code = click.prompt(session.words("standby.code"), err=True)
    return granting.opened(app, data, code)


def _switch(session: Session, app: App, plan: Plan, granted: tuple[bytes, ...], yes: bool, dry_run: bool) -> None:
    """The daemon does it; this waits, and says how it went."""
    from fednode.node import succession, switchover

    checks = succession.verified(app)
    if _shown(session, app, plan, checks, dry_run):
        return
    succession.agree(plan, checks, True)
    session.confirm(plan.primary, yes)
    switchover.order(app, granted)
    session.note("switchover.ordered", primary=plan.primary)
    found = switchover.follow(app, time.sleep)
    session.action = ""  # what became of it is told by whoever did it
    if found.state == switchover.FAILED:
        raise FednodeError(found.code, **found.params)
    told = {"node": plan.primary, "incarnation": plan.life + 1, "pause_ms": found.pause_ms, "back": found.back}
    pause = human_ms(found.pause_ms, session.lang) if found.pause_ms >= 1000 else f"{found.pause_ms} ms"
    session.done({"dry_run": False, "switched": told}, [session.words("switchover.done", **{**told, "pause": pause})])


def _plan_lines(session: Session, app: App, plan: Plan, checks: Checks) -> list[str]:
    words = session.words
    heard = words("status.never")
    if plan.heard_ms is not None:
        heard = words("status.ago", age=human_ms(max(0, app.now_ms() - plan.heard_ms), session.lang))
    lines = [
        words("promote.plan", standby=plan.standby, primary=plan.primary, life=plan.life + 1),
        words("promote.heard", heard=heard),
        *_reach_lines(session, plan, checks),
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


def _reach_lines(session: Session, plan: Plan, checks: Checks) -> list[str]:
    if checks.reachable is None:
        return []
    return [session.words("promote.reachable" if checks.reachable else "promote.unreachable", primary=plan.primary)]
