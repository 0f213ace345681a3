"""Real headless Chromium on a console: Debian's, driven by Playwright, with axe-core for what people who cannot see, or
cannot use a mouse, would stumble over.

async with Mesh(tmp_path) as mesh:
    node = await mesh.found(http_listen=ANY_PORT)
    async with chromium(node) as browser:
        page = await browser.sign_in("alice", "viewer")
        await page.goto("/node")
        assert await browser.faults(page) == []
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright

from console import PASSWORD, enrol
from fednode.node.web.server import url_of
from mesh import Running
from source import ROOT

CHROMIUM = Path(os.environ.get("FEDNODE_CHROMIUM", "/usr/bin/chromium"))
AXE = ROOT / "tests/vendor/axe-core/axe.min.js"
IMAGES = "FEDNODE_SCREENSHOTS"  # a folder: pictures are kept there
SERIOUS = ("serious", "critical")
TIMEOUT_MS = 60_000.0
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
# What sticks out of the window, the innermost alone; what may be scrolled does not.
WIDER = """() => document.documentElement.scrollWidth <= document.documentElement.clientWidth ? [] :
    [...document.querySelectorAll("main *, header *")]
    .filter((one) => !one.closest(".scroll"))
    .filter((one) => one.getBoundingClientRect().right > document.documentElement.clientWidth)
    .map((one) => `wider than the window: ${one.outerHTML.slice(0, 120)}`).slice(-3)"""
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}")


class Chromium:
    """One browser at one node's console. `outside`: requests that went anywhere else; `trouble`: what its console
    complained about."""

    def __init__(self, browser: Browser, node: Running) -> None:
        self.browser, self.node, self.url = browser, node, url_of(node.app.home)
        self.outside: list[str] = []
        self.trouble: list[str] = []

    async def page(self, *, lang: str = "en-US", dark: bool = False, phone: bool = False) -> Page:
        """A window of its own, nobody signed in."""
        context = await self.browser.new_context(
            base_url=self.url,
            locale=lang,
            color_scheme="dark" if dark else "light",
            viewport=PHONE if phone else DESK,  # type: ignore[arg-type]
            ignore_https_errors=True,
        )
        context.set_default_timeout(TIMEOUT_MS)
        page = await context.new_page()
        page.on("request", lambda request: self._asked(request.url))
        page.on("console", lambda said: self._said(said.type, said.text))
        page.on("pageerror", lambda error: self.trouble.append(str(error)))
        return page

    def _asked(self, url: str) -> None:
        if not url.startswith((self.url, "data:", "blob:")):
            self.outside.append(url)

    def _said(self, kind: str, text: str) -> None:
        if kind == "error" and "Failed to load resource" not in text:  # that is an answer of 4xx
            self.trouble.append(text)

    async def sign_in(self, name: str, role: str, **how: Any) -> Page:
        """A window of somebody with this role, who has signed in through the form."""
        enrol(self.node, name, role)
        page = await self.page(**how)
        await page.goto("/signin")
        await page.fill("#name", name)
        await page.fill("#password", PASSWORD)
        await page.press("#password", "Enter")
        await page.wait_for_selector("html[data-signed-in]")
        return page

    async def faults(self, page: Page) -> list[str]:
        """What axe finds serious on a page, and what is wider than the window: an empty list is good."""
        # not add_script_tag: the page's own policy forbids scripts that are not its own
        await page.evaluate(AXE.read_text(encoding="utf-8"))
        found = await page.evaluate("() => axe.run(document, {resultTypes: ['violations']})")
        faults = [
            f"{one['id']}: {node['html'][:200]} {node['failureSummary'][:300]}"
            for one in found["violations"]
            if one["impact"] in SERIOUS
            for node in one["nodes"]
        ]
        return [*faults, *await page.evaluate(WIDER)]

    async def picture(self, page: Page, name: str) -> None:
        """Keep a picture, where somebody wants pictures (`scripts/screenshots`)."""
        folder = os.environ.get(IMAGES)
        if folder:
            await page.screenshot(path=Path(folder) / f"{name}.png")


@asynccontextmanager
async def chromium(node: Running) -> AsyncIterator[Chromium]:
    """A browser, closed at the end."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        try:
            yield Chromium(browser, node)
        finally:
            await browser.close()
