"""The console in real headless Chromium: signing in, a page that keeps itself current, phone and desk, light, dark."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser import chromium, needs_chromium
from console import ANY_PORT, PASSWORD, enrol
from fednode.node.alerting import acting
from fednode.node.web import roles
from fednode.node.web.pages import navigation
from fednode.sync.change import Change
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


async def test_every_page_of_the_navigation_is_usable_by_all(tmp_path: Path) -> None:
    """With something on it: on a desk in English and on a phone in Chinese, in the dark."""
    async with Mesh(tmp_path) as mesh:
        node = await mesh.found(http_listen=ANY_PORT)
        app = node.app
        told = {"node": "1301", "log": "hebei/1301/1/x", "first": 1, "size": 2}
        app.journal().alert("FN-6420", "1301", told, ["a head\n\nof a log"])
        acting.silence(app, "13", app.now_ms() + 3_600_000, "works")
        writer = app.new_writer()
        for text in (b"{}", b'{"a":1}'):
            writer.local("admin-licence", "13", [Change(b"k1", text, base=0)])
        writer.store.close()
        app.poke()
        async with chromium(node) as browser:
            desk = await browser.sign_in("alice", roles.ADMINISTRATOR)
            phone = await browser.sign_in("bob", roles.ADMINISTRATOR, lang="zh-CN", dark=True, phone=True)
            for page, name in ((desk, "desk"), (phone, "phone")):
                for entry in navigation():
                    await page.goto(entry.path)
                    for one in await page.locator("summary").all():
                        await one.click()  # what is folded is looked at, too
                    assert (entry.path, await browser.faults(page)) == (entry.path, [])
                    await browser.picture(page, f"{entry.path.strip('/').replace('/', '-')}-{name}")
            await desk.goto("/users")  # names of accounts were shown with a capital
            letters = "e => getComputedStyle(e, '::first-letter').textTransform"
            shown = await desk.evaluate(f"[...document.querySelectorAll('tbody th')].map({letters})")
            assert shown == ["none", "none"]
            await desk.goto("/alerts")
            await desk.click("summary:has-text('Act')")
            await desk.fill("article input[name=note] >> nth=0", "on my way")
            await desk.click("text=I see to it")
            await desk.wait_for_selector("text=alice (console) sees to it")
            assert browser.outside == []
            assert browser.trouble == []
