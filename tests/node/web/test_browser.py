"""The console in real headless Chromium: signing in, a page that keeps itself current, phone and desk, light, dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser import chromium, needs_chromium
from console import ANY_PORT, PASSWORD, enrol
from mesh import Mesh

pytestmark = [needs_chromium, pytest.mark.slow]


async def test_signing_in_and_a_page_that_is_live(tmp_path: Path) -> None:
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found(http_listen=ANY_PORT)
        async with chromium(node) as browser:
            enrol(node, "alice", "viewer")
            page = await browser.page(lang="zh-CN", phone=True)
            await page.goto("/node")
            assert page.url.endswith("/signin?back=%2Fnode")
            assert await browser.faults(page) == []
            await page.keyboard.type("alice")  # the field has the focus
            await page.keyboard.press("Tab")
            await page.keyboard.type("not my password")
            await page.keyboard.press("Enter")
            await page.wait_for_selector("[role=alert]")
            assert await browser.faults(page) == []
            await page.keyboard.type(PASSWORD)
            await page.keyboard.press("Enter")
            await page.wait_for_selector("#node")
            assert await page.inner_text("h1") == "13 河北省"
            assert await browser.faults(page) == []
            await browser.picture(page, "node-phone")

            changes = "#node >> text=变更 >> xpath=following-sibling::dd[1] >> nth=0"
            await page.wait_for_selector(f"{changes} >> text=/^0$/")
            node.write("k1", {"name": "甲"})
            await page.wait_for_selector(f"{changes} >> text=/^1$/")

            await page.click("text=深色")
            await page.wait_for_selector("html[data-theme=dark]")
            assert await browser.faults(page) == []
            await page.click("text=English")
            await page.wait_for_selector("html[lang=en]")
            await page.set_viewport_size({"width": 1280, "height": 800})
            assert await browser.faults(page) == []
            await browser.picture(page, "node-dark")

            await page.goto("/nowhere")
            assert await browser.faults(page) == []
            await page.click("text=Sign out")
            await page.wait_for_selector("#password")
            await page.goto("/node")
            assert "/signin" in page.url
            assert browser.outside == []
            assert browser.trouble == []
