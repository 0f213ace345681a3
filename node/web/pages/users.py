"""Accounts of the console, for administrators. `fednode user` on the machine does the same."""

from __future__ import annotations

from starlette.responses import Response

from fednode.node.web import roles
from fednode.node.web.visit import Nav, Page, Visit
from fednode.sync.errors import Refused

PATH = "/users"
DONE = ("add", "passwd", "role", "disable", "enable")


def show(visit: Visit) -> Response:
    """Every account."""
    accounts = visit.reader.accounts.all()
    return visit.render("users.html", accounts=accounts, roles=tuple(roles.ROLES), done=visit.choice("done", DONE))


def add(visit: Visit) -> Response:
    """A new one."""
    name, role = visit.value("name").lower(), visit.value("role")
    visit.reader.accounts.add(name, role, _password(visit), visit.app.clock())
    return _done(visit, "add", name, role=role)


def passwd(visit: Visit) -> Response:
    """Another password: whoever uses the account signs in again."""
    name = visit.value("name")
    visit.reader.accounts.set_password(name, _password(visit))
    return _done(visit, "passwd", name)


def role(visit: Visit) -> Response:
    """Another role; not one's own, so that somebody is left who may."""
    name, given = _other(visit), visit.value("role")
    visit.reader.accounts.set_role(name, given)
    return _done(visit, "role", name, role=given)


def disable(visit: Visit) -> Response:
    """Nobody signs in with it any more."""
    name = _other(visit)
    visit.reader.accounts.disable(name)
    return _done(visit, "disable", name)


def enable(visit: Visit) -> Response:
    """Somebody may again."""
    name = _other(visit)
    visit.reader.accounts.disable(name, disabled=False)
    return _done(visit, "enable", name)


def _other(visit: Visit) -> str:
    """The account that is meant. Raises Refused FN-3804 for the visitor's own."""
    name = visit.value("name")
    if visit.account is not None and name == visit.account.name:
        raise Refused("FN-3804")
    return name


def _password(visit: Visit) -> str:
    """As it was typed, spaces and all. Raises Refused FN-2809 where the two differ."""
    given = visit.form.get("password", "")
    if given != visit.form.get("again", ""):
        raise Refused("FN-2809")
    return given


def _done(visit: Visit, act: str, name: str, **details: str) -> Response:
    visit.act(f"user.{act}", account=name, **details)
    return visit.go(f"{PATH}?done={act}")


ROUTES = (
    Page(PATH, show, roles.USERS),
    *(
        Page(f"{PATH}/{act.__name__}", act, roles.USERS, ("POST",), f"user.{act.__name__}")
        for act in (add, passwd, role, disable, enable)
    ),
)
NAV = (Nav("web.nav.users", PATH, 95, roles.USERS),)
