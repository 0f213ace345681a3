"""The console as an ASGI application: who is there, what they may do, and how a page's answer or its error is sent.

Rules
1. The order for each request: its size; who is signed in; whether they may; for a POST, that it comes from this console
   (`Sec-Fetch-Site` or `Origin`, and the form's token). Only then the page's function.
2. The form's token is derived from the secret cookie of the visitor, so nothing of it is kept, and another site, which
   cannot read the cookie, cannot make one.
3. Every answer says that nothing may come from elsewhere, be framed, guessed or kept (`HEADERS`).
4. An error of a family is a page with its code and what to do next, in the visitor's language; any other is a bug: it
   goes into the program's log, and the page says FN-7001.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, quote, urlsplit

import jinja2
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node import sqlite
from fednode.node.journal import REFUSED, Throttle
from fednode.node.messages import error_text, text
from fednode.node.timetable import parse_duration
from fednode.node.units import human_bytes, human_ms
from fednode.node.web import pages, probes
from fednode.node.web.accounts import TOKEN_BYTES, Account
from fednode.node.web.desk import Desk, Reader
from fednode.node.web.limits import Limits
from fednode.node.web.live import Live
from fednode.node.web.metrics import Metrics
from fednode.node.web.visit import Page, Visit
from fednode.node.web.words import LEVEL_SHAPES, SHAPES, chosen, moment, named, worded
from fednode.sync.errors import PeerError, Refused, Unavailable

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from fednode.node.app import App
    from fednode.node.engine import Engine

log = logging.getLogger("fednode.web")
HERE = Path(__file__).parent
BODY_BYTES_MAX = 64 * 1024
FIELDS_MAX = 100
SESSION, FORM, LANG, THEME = "session", "form", "lang", "theme"
THEMES = ("light", "dark")
KEEP_S = 365 * 86400  # language and theme
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'; object-src 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}
# An error's HTTP status: by its code, else by the first digit of it.
STATUS = {
    "FN-2806": 405,
    "FN-2807": 413,
    "FN-3110": 404,
    "FN-3801": 404,
    "FN-3802": 404,
    "FN-4801": 429,
    "FN-5801": 401,
    "FN-5802": 403,
    "FN-5803": 403,
    "FN-5804": 401,
    "FN-7001": 500,
}
STATUS_OF_DIGIT = {"2": 400, "3": 422, "4": 503, "5": 403, "6": 500, "7": 503}


class Site:
    """One console. `engine`: the daemon's, for what is known in memory alone."""

    def __init__(self, app: App, engine: Engine) -> None:
        self.app, self.engine = app, engine
        self.desk = Desk(app)
        self.limits = Limits()
        self.throttle = Throttle(app.clock)
        self.ends: list[Callable[[], None]] = []  # what a page keeps between visits, and how it ends
        self.idle_ms = parse_duration(app.config.http_idle) * 1000
        self.whole_ms = parse_duration(app.config.http_session) * 1000
        self.live = Live(app.home, app.rng(8).hex())
        self.metrics = Metrics(app, engine)
        self.metrics.listeners = lambda: self.live.listeners
        self.tls = False
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(HERE / "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )

    def close(self) -> None:
        """Not in the event loop."""
        self.live.close()
        self.desk.close()
        for end in self.ends:
            end()

    def sweep(self, reader: Reader) -> None:
        """Forget sessions that have ended."""
        reader.accounts.sweep(self.app.clock(), self.idle_ms, self.whole_ms)

    # ------------------------------------------------------------ the application

    def asgi(self) -> ASGIApp:
        """What uvicorn serves."""
        found = [
            Route("/healthz", probes.alive),
            Route("/readyz", partial(probes.ready, self)),
            Route("/metrics", partial(probes.scrape, self)),
            Route("/live", self._listen),
            Route("/preferences", self._prefer),
            Route("/", self._first),
            *(Route(page.path, self._endpoint(page), methods=list(page.methods)) for page in pages.routes()),
            Mount("/static", StaticFiles(directory=HERE / "static")),
        ]
        handlers: Mapping[Any, Any] = {HTTPException: self._http_error}
        return _Guard(Starlette(routes=found, exception_handlers=handlers), self.metrics)

    def _endpoint(self, page: Page) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            name = f"{request.method} {page.path}"
            with self.app.tracer.span(name, "server", method=request.method, route=page.path) as span:
                response = await answer(request)
                status = response.status_code
                span.set(status=status, error=str(status) if status >= 500 else "")
            return response

        async def answer(request: Request) -> Response:
            try:
                form = await _form(request) if request.method == "POST" else {}
                return await self.desk.ask(lambda reader: self._answer(reader, page, request, form))
            except FednodeError as error:
                return self._failed(request, error)
            except sqlite.DatabaseError as error:
                return self._failed(request, sqlite.trouble(error, self.app.home.path))
            except ClientDisconnect:
                return Response(status_code=400)
            except Exception as error:  # a bug in one page: said so, and the others go on
                log.exception("page", extra={"path": request.url.path})
                return self._failed(request, FednodeError("FN-7001", reason=type(error).__name__))

        return endpoint

    def _answer(self, reader: Reader, page: Page, request: Request, form: Mapping[str, str]) -> Response:
        """In a thread of the desk (rule 1)."""
        account = self.signed_in(reader, request)
        visit = self._visit(request, reader, account, form)
        try:
            if page.may and account is None:
                return self._sign_in_first(visit)
            if request.method == "POST":
                self._check_origin(request)
                if not hmac.compare_digest(form.get("form_token", "").encode(), visit.form_token.encode()):
                    raise PeerError("FN-5803")
            if page.may and not visit.may(page.may):
                self._tell_refused(visit, page)
                raise PeerError("FN-5802", role=account.role if account else "")
            response = page.show(visit)
        except FednodeError as error:
            response = self._failed(request, error, visit)
        if not request.cookies.get(self.cookie(FORM)):
            self.set_cookie(response, FORM, visit.request.state.form_cookie, None)
        return response

    def _visit(self, request: Request, reader: Reader, account: Account | None, form: Mapping[str, str]) -> Visit:
        cookie = request.cookies.get(self.cookie(FORM)) or self.app.rng(TOKEN_BYTES).hex()
        request.state.form_cookie = cookie
        secret = request.cookies.get(self.cookie(SESSION), "") if account else ""
        token = SUITE_1.hash(f"fednode console form v1\n{secret}\n{cookie}".encode("utf-8", "replace")).hex()
        mark = self.live.mark() if account else ""  # before the page reads anything
        lang, theme = self._lang(request), self._theme(request)
        return Visit(self, request, reader, account, lang, theme, _address(request), token, form, mark)

    def signed_in(self, reader: Reader, request: Request) -> Account | None:
        """Whose session the request belongs to."""
        token = request.cookies.get(self.cookie(SESSION), "")
        if not token:
            return None
        return reader.accounts.session(token, self.app.clock(), self.idle_ms, self.whole_ms)

    def _sign_in_first(self, visit: Visit) -> Response:
        request = visit.request
        if request.method != "GET" or wants_json(request) or request.headers.get("x-fednode-live"):
            return self._failed(request, PeerError("FN-5801"), visit)
        back = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"/signin?back={quote(back, safe='')}", 303)

    @staticmethod
    def _check_origin(request: Request) -> None:
        """That a form was sent by a page of this console. Raises PeerError FN-5803."""
        site = request.headers.get("sec-fetch-site")
        origin = request.headers.get("origin")
        if site is not None and site not in ("same-origin", "none"):
            raise PeerError("FN-5803")
        if site is None and origin is not None and urlsplit(origin).netloc != request.headers.get("host"):
            raise PeerError("FN-5803")

    def _tell_refused(self, visit: Visit, page: Page) -> None:
        if page.tell and self.throttle.admit("console", f"{visit.actor} {page.tell}") is not None:
            visit.act(page.tell, REFUSED, code="FN-5802")

    # ------------------------------------------------------------ cookies

    def secure(self) -> bool:
        """Whether cookies may travel over TLS alone: always, but where a loopback address is served plain."""
        config = self.app.config
        return self.tls or config.http_plain or bool(config.http_proxies)

    def cookie(self, name: str) -> str:
        """A cookie's name: with TLS one that only this very host can set, and only over TLS."""
        return f"__Host-fednode-{name}" if self.secure() else f"fednode-{name}"

    def set_cookie(self, response: Response, name: str, value: str, keep_s: int | None) -> None:
        """`keep_s`: None until the browser is closed; 0: take it away."""
        response.set_cookie(
            *(self.cookie(name), value, keep_s, None, "/", None),
            secure=self.secure(),
            httponly=True,
            samesite="strict" if name in (SESSION, FORM) else "lax",
        )

    def _lang(self, request: Request) -> str:
        cookie = request.cookies.get(self.cookie(LANG), "")
        return chosen(cookie, request.headers.get("accept-language", ""), self.app.config.lang)

    def _theme(self, request: Request) -> str:
        cookie = request.cookies.get(self.cookie(THEME), "")
        return cookie if cookie in THEMES else ""

    async def _prefer(self, request: Request) -> Response:
        """Language and theme: nothing but cookies, so a plain link does."""
        query = request.query_params
        response = RedirectResponse(safe_path(query.get("back", "")), 303)
        if query.get("lang") in ("en", "zh"):
            self.set_cookie(response, LANG, query["lang"], KEEP_S)
        if query.get("theme") in (*THEMES, "auto"):
            known = query["theme"] in THEMES
            self.set_cookie(response, THEME, query["theme"] if known else "", KEEP_S if known else 0)
        return response

    # ------------------------------------------------------------ answers

    async def _first(self, request: Request) -> Response:
        return RedirectResponse(pages.navigation()[0].path, 303)

    async def _listen(self, request: Request) -> Response:
        """What has changed, as it changes: see `live`."""

        async def there() -> bool:
            return await self.desk.ask(lambda reader: self.signed_in(reader, request)) is not None

        try:
            if not await there():
                raise PeerError("FN-5801")
            seen = request.headers.get("last-event-id") or request.query_params.get("at", "")
            return self.live.response(there, seen[:64])
        except FednodeError as error:
            return self._failed(request, error)

    def render(self, visit: Visit, template: str, status: int, data: Mapping[str, Any]) -> Response:
        """A page made of a template; in a thread of the desk."""
        return self._page(visit.request, visit.lang, visit.theme, template, status, {"visit": visit, **data})

    def _page(
        self, request: Request, lang: str, theme: str, template: str, status: int, data: Mapping[str, Any]
    ) -> Response:
        visit: Visit | None = data.get("visit")
        now_ms = self.app.now_ms()
        given: dict[str, Any] = {
            "visit": None,
            "lang": lang,
            "theme": theme,
            "w": lambda key, /, **params: text(key, lang, **params),
            "worded": partial(worded, lang),
            "named": partial(named, lang),
            "level_shapes": LEVEL_SHAPES,
            "human_ms": lambda ms: human_ms(ms, lang),
            "human_bytes": human_bytes,
            "moment": moment,
            "shapes": SHAPES,
            "now_ms": now_ms,
            "node": self.app.trust.me,
            "account": visit.account if visit else None,
            "nav": [one for one in pages.navigation() if visit is not None and visit.may(one.may)],
            "here": request.url.path,
            "back": quote(request.url.path + (f"?{request.url.query}" if request.url.query else ""), safe=""),
            "form_token": visit.form_token if visit else "",
            "mark": visit.mark if visit else "",
        }
        html = self._templates.get_template(template).render({**given, **data})
        return Response(html, status, media_type="text/html", headers={"cache-control": "no-store"})

    def _failed(self, request: Request, error: FednodeError, visit: Visit | None = None) -> Response:
        """An error as a page, or as a document where scripts ask."""
        lang = self._lang(request)
        message, hint = error_text(error, lang)
        status = STATUS.get(error.code, STATUS_OF_DIGIT.get(error.code[3:4], 500))
        if status >= 500:
            log.error("page", extra={"path": request.url.path, "code": error.code, "reason": str(error)})
        if wants_json(request):
            told = {"code": error.code, "message": message, "hint": hint}
            response: Response = JSONResponse({"error": told}, status)
        else:
            data = {"visit": visit, "code": error.code, "message": message, "hint": hint}
            response = self._page(request, lang, self._theme(request), "error.html", status, data)
        if isinstance(error, Unavailable) and error.retry_after_ms:
            response.headers["retry-after"] = str(-(-error.retry_after_ms // 1000))
        return response

    async def _http_error(self, request: Request, error: HTTPException) -> Response:
        """What Starlette says by itself: no such page, another method."""
        method = error.status_code == 405
        code, found = ("FN-2806", "method") if method else ("FN-3801", "path")
        value = request.method if method else request.url.path[:100]
        told = Refused(code, **{found: value})
        try:
            return await self.desk.ask(lambda reader: self._failed_for(reader, request, told))
        except (FednodeError, sqlite.DatabaseError):
            return self._failed(request, told)

    def _failed_for(self, reader: Reader, request: Request, error: FednodeError) -> Response:
        """An error's page for whoever is there, with their way to go on."""
        visit = self._visit(request, reader, self.signed_in(reader, request), {})
        return self._failed(request, error, visit)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


def wants_json(request: Request) -> bool:
    """Whether a script asks."""
    return request.headers.get("accept", "").partition(",")[0].strip() == "application/json"


def safe_path(path: str) -> str:
    """A place within this console; "/" for any other.

    >>> safe_path("/mesh?state=stale"), safe_path("//evil.example"), safe_path("https://evil.example")
    ('/mesh?state=stale', '/', '/')
    """
    inside = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable() and len(path) <= 2000
    return path if inside and "\\" not in path else "/"


async def _form(request: Request) -> dict[str, str]:
    """What a form sent (application/x-www-form-urlencoded). Raises Refused FN-2807 for too much, FN-2801."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > BODY_BYTES_MAX:
            raise Refused("FN-2807", limit=BODY_BYTES_MAX)
    try:
        return dict(parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError as error:
        raise Refused("FN-2801", field="form", value=str(error)[:40]) from error


class _Guard:
    """Headers on every answer, and a count of them."""

    def __init__(self, inner: ASGIApp, metrics: Metrics) -> None:
        self._inner, self._metrics = inner, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers[name] = value
                if "cache-control" not in headers:
                    headers["cache-control"] = "no-cache" if scope["path"].startswith("/static/") else "no-store"
                message["headers"] = headers.raw
                self._metrics.answered(int(message["status"]))
            await send(message)

        await self._inner(scope, receive, sending)
