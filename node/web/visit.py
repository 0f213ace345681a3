"""What a page is, and what it is given: one request, its account, its language, and a way to answer.

Rules
1. A page is a plain function of a `Visit`; it runs in a thread of the desk, and may take its time.
2. Whoever may not do a page's action never gets to the function; nor does a POST without the form's token.
3. Words come from the message catalogue, in the visit's language; what a template shows is escaped.
4. Filters stand in the URL, so that a page can be kept, sent and gone back to.

>>> Page("/conflicts", lambda visit: visit.render("conflicts.html")).methods
('GET',)
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response

from fednode.node.journal import DONE
from fednode.node.messages import text
from fednode.node.web import roles
from fednode.node.web.accounts import Account
from fednode.node.web.desk import Reader
from fednode.node.web.words import worded
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.web.site import Site

TEXT_MAX = 256
ACTOR = "{name} (console)"


@dataclass(slots=True)
class Visit:
    """One request. `query`, `form`: as they came, each name once; `path`: the parameters of the page's path;
    `form_token`: what each form of the answer carries; `mark`: from where on the page hears what has moved
    (`live`)."""

    site: Site
    request: Request
    reader: Reader
    account: Account | None
    lang: str
    theme: str
    address: str
    form_token: str
    form: Mapping[str, str] = field(default_factory=dict)
    mark: str = ""

    # ------------------------------------------------------------ what was asked

    @property
    def app(self) -> App:
        """The node."""
        return self.site.app

    @property
    def path(self) -> Mapping[str, Any]:
        """Parameters of the path."""
        return self.request.path_params

    @property
    def query(self) -> Mapping[str, str]:
        """Parameters of the URL."""
        return self.request.query_params

    def value(self, name: str, default: str = "", *, most: int = TEXT_MAX) -> str:
        """A parameter of the URL, or, where something was sent, of the form. Raises Refused FN-2801 where it is too
        long."""
        value = self.form.get(name, self.query.get(name, default)).strip()
        if len(value) > most:
            raise Refused("FN-2801", field=name, value=value[:40] + "...")
        return value

    def number(self, name: str, default: int, least: int, most: int) -> int:
        """A whole number. Raises Refused FN-2801 for what is none, or out of bounds."""
        value = self.value(name)
        if not value:
            return default
        if not (value.isascii() and value.isdigit() and len(value) <= 18 and least <= int(value) <= most):
            raise Refused("FN-2801", field=name, value=value[:40])
        return int(value)

    def choice(self, name: str, choices: tuple[str, ...], default: str = "") -> str:
        """One of several. Raises Refused FN-2801 for another."""
        value = self.value(name) or default
        if value and value not in choices:
            raise Refused("FN-2801", field=name, value=value[:40])
        return value

    def choices(self, name: str, choices: tuple[str, ...]) -> tuple[str, ...]:
        """Several, as the URL names them (`state=stale&state=alert`). Raises Refused FN-2801 for another."""
        values = tuple(value for value in self.request.query_params.getlist(name) if value)
        for value in values:
            if value not in choices:
                raise Refused("FN-2801", field=name, value=value[:40])
        return values

    def may(self, action: str) -> bool:
        """Whether the account's role allows an action."""
        return self.account is not None and roles.may(self.account.role, action)

    def url(self, **changed: Any) -> str:
        """This page's URL with some parameters changed; None or "" takes one out."""
        query = {name: self.request.query_params.getlist(name) for name in self.query}
        for name, value in changed.items():
            query[name] = list(value) if isinstance(value, tuple | list) else [value]
        pairs = [(name, one) for name, values in query.items() for one in values if one not in (None, "")]
        return self.request.url.path + ("?" + urlencode(pairs) if pairs else "")

    # ------------------------------------------------------------ what is answered

    def words(self, key: str, /, **params: Any) -> str:
        """Words in the visit's language."""
        return text(key, self.lang, **params)

    def worded(self, kind: str, name: str) -> str:
        """A name in words (`state.ok`, `level.city`); one that has none as it stands."""
        return worded(self.lang, kind, name)

    def render(self, template: str, status: int = 200, **data: Any) -> Response:
        """A page made of a template."""
        return self.site.render(self, template, status, data)

    def json(self, data: Any, status: int = 200) -> Response:
        """A document for scripts."""
        return JSONResponse(data, status)

    def go(self, path: str) -> Response:
        """On to another page of the console: what follows a form that was sent."""
        return RedirectResponse(path, 303)

    # ------------------------------------------------------------ what is done

    @property
    def actor(self) -> str:
        """Who acts, for the audit."""
        return ACTOR.format(name=self.account.name if self.account else "-")

    @property
    def acting(self) -> App:
        """The node for a service that acts (`alerting.acting`): this thread's store, and this account as who acts."""
        found = copy.copy(self.reader.app)
        found.operator = self.actor
        return found

    def act(self, action: str, outcome: str = DONE, *, who: str = "", code: str = "", **details: Any) -> None:
        """Write in the audit what this visit has done: `action` as the CLI calls it. Raises StoreError, Refused."""
        app = self.app
        journal = app.journal(app.new_writer(self.reader.store))
        journal.event(action, outcome, who=who or self.actor, code=code, address=self.address, **details)
        app.poke()


@dataclass(frozen=True, slots=True)
class Page:
    """One page. `path` as Starlette writes it (`/mesh/{node}`); `may`: what one must be allowed to do ("" for anybody,
    signed in or not); `tell`: what the audit calls it where somebody was not ("": it is told of nobody)."""

    path: str
    show: Callable[[Visit], Response]
    may: str = roles.LOOK
    methods: tuple[str, ...] = ("GET",)
    tell: str = ""


@dataclass(frozen=True, slots=True)
class Nav:
    """An entry of the navigation: the key of its words, where it leads, its place (small numbers come first), and what
    one must be allowed to do to see it."""

    key: str
    path: str
    order: int
    may: str = roles.LOOK
