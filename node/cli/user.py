"""user: accounts of the web console, on the node's own machine."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node.cli.frame import Group, Session, command, option, table
from fednode.node.cli.journal import local_time
from fednode.sync.errors import Refused, StoreError

if TYPE_CHECKING:
    from fednode.node.web.accounts import Account, Accounts

ROLES = ("viewer", "operator", "administrator", "auditor")


@click.group(cls=Group, help="help.user")
def user() -> None:
    """Accounts of the web console."""


@contextlib.contextmanager
def _accounts(session: Session) -> Iterator[Accounts]:
    from fednode.node.web.accounts import Accounts

    found = Accounts.open(session.app().home.path)
    try:
        yield found
    finally:
        found.close()


def _password(session: Session, file: str | None) -> str:
    """Out of a file, or asked for twice. Raises Refused FN-2808, FN-2809, StoreError FN-7619."""
    if file == "-":
        return sys.stdin.readline().rstrip("\r\n")
    if file is not None:
        try:
            return Path(file).expanduser().read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError("FN-7619", path=file, reason=str(error)[:200]) from error
    if session.as_json or not sys.stdin.isatty():
        raise Refused("FN-2808")
    given, again = (
        str(click.prompt(session.words(key), hide_input=True, err=True)) for key in ("user.password", "user.again")
    )
    if given != again:
        raise Refused("FN-2809")
    return given


def _told(session: Session, account: Account) -> dict[str, Any]:
    return dataclasses.asdict(account)


def _changed(session: Session, account: Account, action: str, **details: Any) -> None:
    app = session.opened
    if app is not None:
        app.journal().note(action, account=account.name, **details)
        app.poke()
    standing = session.words("user.disabled" if account.disabled else "user.enabled")
    line = session.words("user.changed", name=account.name, role=account.role, standing=standing)
    session.done({"account": _told(session, account)}, [line])


@command("help.user_add", "user.add")
@click.argument("name")
@option("--role", type=click.Choice(ROLES), required=True, words="option.role")
@option("--password-file", metavar="FILE", words="option.password_file")
def add(session: Session, name: str, role: str, password_file: str | None) -> None:
    """A new account."""
    from fednode.node.web.accounts import check_name

    with _accounts(session) as accounts:
        check_name(name)
        app = session.opened
        now_ms = app.clock() if app is not None else 0
        made = accounts.add(name, role, _password(session, password_file), now_ms)
        _changed(session, made, "user.add", role=role)


@command("help.user_list")
def list_(session: Session) -> None:
    """Every account."""
    with _accounts(session) as accounts:
        found = accounts.all()
    rows = [
        (
            one.name,
            one.role,
            session.words("user.disabled" if one.disabled else "user.enabled"),
            session.words("status.never") if one.last_ms is None else local_time(one.last_ms),
        )
        for one in found
    ]
    heads = [session.words(f"head.{key}") for key in ("account", "role", "standing", "signed_in")]
    session.done(
        {"accounts": [_told(session, one) for one in found]},
        table(rows, heads) if rows else [session.words("user.none")],
    )


@command("help.user_passwd", "user.passwd")
@click.argument("name")
@option("--password-file", metavar="FILE", words="option.password_file")
def passwd(session: Session, name: str, password_file: str | None) -> None:
    """Another password."""
    with _accounts(session) as accounts:
        accounts.get(name)
        _changed(session, accounts.set_password(name, _password(session, password_file)), "user.passwd")


@command("help.user_role", "user.role")
@click.argument("name")
@click.argument("role", type=click.Choice(ROLES))
def role(session: Session, name: str, role: str) -> None:
    """Another role."""
    with _accounts(session) as accounts:
        _changed(session, accounts.set_role(name, role), "user.role", role=role)


@command("help.user_disable", "user.disable")
@click.argument("name")
@option("--undo", is_flag=True, words="option.undo")
def disable(session: Session, name: str, undo: bool) -> None:
    """No more signing in, or again."""
    with _accounts(session) as accounts:
        _changed(session, accounts.disable(name, not undo), "user.enable" if undo else "user.disable")


user.add_command(add, "add")
user.add_command(list_, "list")
user.add_command(passwd, "passwd")
user.add_command(role, "role")
user.add_command(disable, "disable")
