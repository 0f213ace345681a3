"""The console of a node that really runs, and somebody who uses it.

async with Mesh(tmp_path) as mesh:
    node = await mesh.found(http_listen=ANY_PORT)
    async with Visitor(node) as alice:
        await alice.join("operator")
        page = await alice.get("/node")
"""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Any

import httpx

from fednode.node.web.accounts import Accounts
from fednode.node.web.server import url_of
from mesh import WAIT_S, Running

ANY_PORT = "127.0.0.1:0"
PASSWORD = "correct horse 电池 staple"
TOKEN = re.compile(r'name="form_token" value="([0-9a-f]{64})"')


def enrol(node: Running, name: str, role: str, password: str = PASSWORD) -> None:
    """An account, as `fednode user add` makes it."""
    accounts = Accounts.open(node.app.home.path)
    accounts.add(name, role, password, node.app.clock())
    accounts.close()


class Visitor:
    """One browser without a screen. `last`: the token of the last form that was seen."""

    def __init__(self, node: Running, **options: Any) -> None:
        self.node, self.name, self.last = node, "", ""
        self.http = httpx.AsyncClient(base_url=url_of(node.app.home), timeout=60, trust_env=False, **options)

    async def __aenter__(self) -> Visitor:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        await self.http.aclose()

    async def get(self, path: str, **options: Any) -> httpx.Response:
        """A page, where it leads to."""
        found = await self.http.get(path, follow_redirects=True, **options)
        if token := TOKEN.search(found.text):
            self.last = token[1]
        return found

    async def post(self, path: str, *, token: str | None = None, **fields: str) -> httpx.Response:
        """Send a form, with the token of the page that was looked at last; where it leads to is not followed."""
        return await self.http.post(path, data={"form_token": self.last if token is None else token, **fields})

    async def until(self, path: str, text: str) -> str:
        """A page that says something, asked for until it does: the daemon does its part by itself, a moment later."""
        loop = asyncio.get_running_loop()
        end = loop.time() + WAIT_S
        while loop.time() < end:
            if text in (page := (await self.get(path)).text):
                return page
        raise AssertionError(f"{path} does not say {text} within {WAIT_S:.0f} s")

    async def sign_in(self, name: str, password: str = PASSWORD) -> httpx.Response:
        """Through the form."""
        await self.get("/signin")
        answer = await self.post("/signin", name=name, password=password)
        if answer.status_code == 303:
            self.name = name
            await self.get(answer.headers["location"])
        return answer

    async def join(self, role: str, name: str = "alice") -> None:
        """An account with this role, signed in."""
        enrol(self.node, name, role)
        answer = await self.sign_in(name)
        assert answer.status_code == 303, answer.text
