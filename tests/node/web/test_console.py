"""The console of a node that runs, over a real socket: signing in, what each role may, forms, languages, errors."""

from __future__ import annotations

import contextlib
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from console import ANY_PORT, PASSWORD, Visitor, enrol
from fednode.node.app import real_clock
from fednode.node.events import Events, Filter
from fednode.node.web import roles
from fednode.node.web.accounts import FILE, Accounts
from fednode.node.web.limits import ACCOUNT_MAX, WINDOW_MS
from fednode.node.web.pages import navigation, routes
from mesh import Mesh, Running

MINUTE_MS = 60_000


class Clock:
    """The machine's, some time ahead."""

    ahead_ms = 0

    def __call__(self) -> int:
        return real_clock() + self.ahead_ms


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def node(tmp_path: Path, clock: Clock) -> AsyncIterator[Running]:
    async with Mesh(tmp_path, clock) as mesh:
        yield await mesh.found(publish=False, http_listen=ANY_PORT)


def audit(node: Running, action: str) -> list[tuple[str, str, str]]:
    """(who, outcome, code) of the events of an act, the oldest first."""
    projector = node.app.new_projector()
    found = [(one.who, one.outcome, one.code) for one in Events(projector).all(Filter(action=action))]
    projector.close()
    return found[::-1]


async def test_signing_in_looking_and_signing_out(node: Running) -> None:
    enrol(node, "alice", roles.VIEWER)
    async with Visitor(node) as alice:
        first = await alice.get("/node")
        assert (first.url.path, first.url.params["back"]) == ("/signin", "/node")
        answer = await alice.sign_in("alice")
        assert answer.status_code == 303
        page = await alice.get("/node")
        assert page.status_code == 200
        assert "河北省" in page.text
        cookie = alice.http.cookies["fednode-session"]
        assert cookie not in page.text
        assert cookie.encode() not in (node.app.home.path / FILE).read_bytes(), "only its hash is kept"
        assert (await alice.post("/signout")).headers["location"] == "/signin"
        alice.http.cookies.set("fednode-session", cookie)
        assert (await alice.get("/session")).status_code == 401, "the session is over, whatever the browser still has"
    assert audit(node, "user") == [("alice (console)", "done", ""), ("alice (console)", "done", "")]


async def test_cookies_and_headers_give_nothing_away(node: Running) -> None:
    enrol(node, "alice", roles.VIEWER)
    async with Visitor(node) as alice:
        cookie = (await alice.sign_in("alice")).headers["set-cookie"].lower()
        assert "httponly" in cookie
        assert "samesite=strict" in cookie
        for path in ("/node", "/static/base.css", "/healthz", "/nowhere"):
            headers = (await alice.get(path)).headers
            assert "default-src 'self'" in headers["content-security-policy"]
            assert "unsafe" not in headers["content-security-policy"]
            assert headers["x-content-type-options"] == "nosniff"
            assert "server" not in headers
        assert (await alice.get("/node")).headers["cache-control"] == "no-store"


async def test_a_wrong_password_is_told_and_the_next_ones_have_to_wait(node: Running, clock: Clock) -> None:
    enrol(node, "alice", roles.VIEWER)
    async with Visitor(node) as thief:
        answer = await thief.sign_in("alice", "wrong password 1")
        assert answer.status_code == 401
        assert "FN-5801" in answer.text
        for _ in range(ACCOUNT_MAX - 1):
            assert (await thief.sign_in("alice", "wrong password 1")).status_code == 401
        late = await thief.sign_in("alice")
        assert (late.status_code, "FN-4801" in late.text) == (429, True)
        assert 0 < int(late.headers["retry-after"]) <= WINDOW_MS // 1000
        assert (await thief.sign_in("nobody", "wrong password 1")).status_code == 401, "of another name it is heard"
        clock.ahead_ms += WINDOW_MS
        assert (await thief.sign_in("alice")).status_code == 303
    events = audit(node, "user.signin")
    refused = [("alice (console)", "refused", "FN-5801"), ("alice (console)", "refused", "FN-4801")]
    assert events == [*refused, ("nobody (console)", "refused", "FN-5801"), ("alice (console)", "done", "")]


async def test_a_session_ends_when_idle_when_old_and_with_the_account(node: Running, clock: Clock) -> None:
    enrol(node, "alice", roles.VIEWER)
    async with Visitor(node) as alice:

        async def there() -> bool:
            return (await alice.get("/session")).status_code == 200

        await alice.sign_in("alice")
        for _ in range(24):  # in use all the time, up to the twelve hours
            clock.ahead_ms += 29 * MINUTE_MS
            assert await there()
        clock.ahead_ms += 29 * MINUTE_MS
        assert not await there(), "too old"
        await alice.sign_in("alice")
        clock.ahead_ms += 30 * MINUTE_MS
        assert not await there(), "idle"
        for change in (
            lambda accounts: accounts.set_role("alice", roles.AUDITOR),
            lambda accounts: accounts.set_password("alice", PASSWORD),
            lambda accounts: accounts.disable("alice"),
        ):
            await alice.sign_in("alice")
            assert await there()
            accounts = Accounts.open(node.app.home.path)
            change(accounts)
            accounts.close()
            assert not await there()
        assert (await alice.sign_in("alice")).status_code == 401, "disabled"


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "http://evil.example"}])
async def test_a_form_of_another_site_does_nothing(node: Running, headers: dict[str, str]) -> None:
    async with Visitor(node) as alice:
        await alice.join(roles.VIEWER)
        answer = await alice.http.post("/signout", data={"form_token": alice.last}, headers=headers)
        assert (answer.status_code, "FN-5803" in answer.text) == (403, True)
        assert (await alice.get("/session")).status_code == 200


async def test_a_form_needs_its_own_visitor_s_token(node: Running) -> None:
    async with Visitor(node) as alice, Visitor(node) as mallory:
        await alice.join(roles.VIEWER)
        await mallory.join(roles.VIEWER, "mallory")
        for token in ("", "0" * 64, mallory.last):
            answer = await alice.post("/signout", token=token)
            assert (answer.status_code, "FN-5803" in answer.text) == (403, True)
        stale = await mallory.http.post("/signin", data={"name": "mallory", "password": PASSWORD})
        assert stale.status_code == 403, "signing somebody in from elsewhere is no good either"


async def test_every_page_asks_for_its_right_and_the_navigation_shows_no_more(node: Running) -> None:
    """For each role: what it may not do is refused, and not offered."""
    paths = {page.path: page.may for page in routes() if "GET" in page.methods and page.may and "{" not in page.path}
    for role in roles.ROLES:
        async with Visitor(node) as visitor:
            await visitor.join(role, role)
            home = await visitor.get("/node")
            for path, action in paths.items():
                answer = await visitor.get(path)
                allowed = roles.may(role, action)
                assert (answer.status_code == 403) is (not allowed), path
            offered = {entry.path for entry in navigation() if f'href="{entry.path}"' in home.text}
            assert offered == {entry.path for entry in navigation() if roles.may(role, entry.may)}
    async with Visitor(node) as nobody:
        for path in paths:
            assert (await nobody.get(path)).url.path == "/signin"


async def test_both_languages_and_both_themes(node: Running) -> None:
    async with Visitor(node, headers={"accept-language": "zh-CN,zh;q=0.9"}) as alice:
        page = await alice.get("/signin")
        assert '<html lang="zh-CN"' in page.text
        assert "登录" in page.text
        back = await alice.http.get("/preferences", params={"lang": "en", "theme": "dark", "back": "/signin"})
        assert (back.status_code, back.headers["location"]) == (303, "/signin")
        page = await alice.get("/signin")
        assert '<html lang="en" data-theme="dark"' in page.text
        away = await alice.http.get("/preferences", params={"back": "//evil.example/"})
        assert away.headers["location"] == "/"


async def test_errors_are_pages_with_a_code_and_documents_for_scripts(node: Running) -> None:
    async with Visitor(node) as alice:
        await alice.join(roles.VIEWER)
        page = await alice.get("/nowhere<script>")
        assert (page.status_code, "FN-3801" in page.text) == (404, True)
        assert "<script>" not in re.sub("<script src", "", page.text)
        told = await alice.get("/nowhere", headers={"accept": "application/json", "accept-language": "zh"})
        assert (told.status_code, told.json()["error"]["code"]) == (404, "FN-3801")
        assert "没有页面" in told.json()["error"]["message"]
        assert (await alice.http.delete("/node")).status_code == 405
        big = await alice.http.post("/signout", content=b"a=" + b"x" * 70_000)
        assert (big.status_code, "FN-2807" in big.text) == (413, True)


async def test_what_is_live_tells_what_has_changed_and_only_to_who_is_signed_in(node: Running) -> None:
    async with Visitor(node) as alice:
        assert (await alice.http.get("/live")).status_code == 401
        await alice.join(roles.VIEWER)
        async with alice.http.stream("GET", "/live") as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            lines = stream.aiter_lines()
            assert await anext(lines) == "retry: 3000"
            node.app.journal().note("put", number=1)
            mark = ""
            async for line in lines:
                mark = line.removeprefix("id: ") if line.startswith("id: ") else mark
                if line.startswith("data:") and '"log"' in line:
                    break
        page = await alice.get("/node")
        older = re.search(r'data-mark="([^"]+)"', page.text)
        assert older is not None
        node.app.journal().note("put", number=2)  # before the page listens, or while its line is cut
        for headers, at in (({}, older[1]), ({"last-event-id": mark}, ""), ({}, "another-daemon.7")):
            async with alice.http.stream("GET", "/live", params={"at": at}, headers=headers) as stream:
                async for line in stream.aiter_lines():
                    if line.startswith("data:") and '"log"' in line:
                        break


async def test_the_daemon_stops_while_a_page_listens(node: Running, tmp_path: Path) -> None:
    async with Visitor(node) as alice:
        await alice.join(roles.VIEWER)
        async with alice.http.stream("GET", "/live") as stream:
            lines = stream.aiter_lines()
            await anext(lines)
            node.stop()
            assert node.task is not None
            await node.task
            node.task = None
            with contextlib.suppress(httpx.HTTPError):
                async for _ in lines:
                    pass
    assert not (node.app.home.run_dir / "http").exists()
