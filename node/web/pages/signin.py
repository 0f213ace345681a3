"""Signing in and out."""

from __future__ import annotations

from starlette.responses import Response

from fednode.node.journal import DONE, REFUSED
from fednode.node.web.accounts import NAME
from fednode.node.web.site import SESSION, safe_path
from fednode.node.web.visit import ACTOR, Page, Visit
from fednode.sync.errors import PeerError, Unavailable

SIGN_IN, SIGN_OUT = "user.signin", "user.signout"


def form(visit: Visit) -> Response:
    """The form; whoever is in goes on."""
    back = safe_path(visit.value("back", "/", most=2000))
    if visit.account is not None:
        return visit.go(back)
    return visit.render("signin.html", back=back, name="", failed=None, empty=not visit.reader.accounts.all())


def sign_in(visit: Visit) -> Response:
    """A name and a password, for a session's cookie."""
    site, name = visit.site, visit.value("name", most=64).lower()
    back = safe_path(visit.value("back", "/", most=2000))
    now_ms = site.app.clock()
    wait_ms = site.limits.attempt(name, visit.address, now_ms)
    if wait_ms:
        _failed(visit, name, "FN-4801")
        raise Unavailable("FN-4801", retry_after_ms=wait_ms, minutes=-(-wait_ms // 60_000))
    accounts = visit.reader.accounts
    account = accounts.verify(name, visit.form.get("password", ""))
    if account is None:
        _failed(visit, name, "FN-5801")
        failed = visit.words("FN-5801")
        return visit.render("signin.html", 401, back=back, name=name, failed=failed, empty=not accounts.all())
    site.limits.succeeded(name)
    token = accounts.begin(name, site.app.rng, now_ms, visit.address)
    visit.act(SIGN_IN, DONE, who=ACTOR.format(name=name), role=account.role)
    site.metrics.signed_in(DONE)
    response = visit.go(back)
    site.set_cookie(response, SESSION, token, None)
    return response


def _failed(visit: Visit, name: str, code: str) -> None:
    """Told once an hour for each name and address, however often it is tried; what is no name is not repeated."""
    site = visit.site
    site.metrics.signed_in(REFUSED)
    known = name if NAME.fullmatch(name) else "?"
    held = site.throttle.admit(SIGN_IN, f"{known} {visit.address} {code}")
    if held is not None:
        more = {"held_back": held} if held else {}
        visit.act(SIGN_IN, REFUSED, who=ACTOR.format(name=known), code=code, **more)


def sign_out(visit: Visit) -> Response:
    """The session ends, here and in the table."""
    site = visit.site
    token = visit.request.cookies.get(site.cookie(SESSION), "")
    response = visit.go("/signin")
    if visit.account is not None and token:
        visit.reader.accounts.end(token)
        visit.act(SIGN_OUT)
    site.set_cookie(response, SESSION, "", 0)
    return response


def no_session(visit: Visit) -> Response:
    """For scripts: who is there."""
    if visit.account is None:
        raise PeerError("FN-5801")
    return visit.json({"account": visit.account.name, "role": visit.account.role})


ROUTES = (
    Page("/signin", form, may=""),
    Page("/signin", sign_in, may="", methods=("POST",)),
    Page("/signout", sign_out, may="", methods=("POST",)),
    Page("/session", no_session, may=""),
)
