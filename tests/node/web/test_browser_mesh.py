"""The pages of the mesh, of exchanges and of coverage in real headless Chromium: one node, one browser for all of them.

With FEDNODE_SCREENSHOTS set (`scripts/screenshots`) the tree is the real one, and pictures of it are kept.
"""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from browser import IMAGES, PHONE, TIMEOUT_MS, Chromium, chromium, needs_chromium
from fednode.node.mesh.history import History, Moved
from fednode.sync.health import Load, Seen
from mesh import Mesh
from province import Province, real, small
from source import ROOT

pytestmark = [needs_chromium, pytest.mark.slow]
DIVISIONS = ROOT.parent / "shared/data/hebei-divisions.csv"
HOUR_S = 3600
CITY, COUNTY, VILLAGE = "1301", "130102", "130102001001"
expect.set_options(timeout=TIMEOUT_MS)


async def pictured(browser: Chromium, page: Page, name: str) -> None:
    """Kept in light and dark, as far as somebody wants pictures."""
    if not os.environ.get(IMAGES):
        return
    for scheme in ("light", "dark"):
        await page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await page.wait_for_timeout(400)  # no test: the picture is drawn again
        await browser.picture(page, f"{name}-{scheme}")
    await page.emulate_media(color_scheme="light")


async def drawn(page: Page) -> None:
    await page.wait_for_selector("canvas[data-ready]")


async def count(page: Page, state: str, number: int) -> None:
    """The legend comes to say so, without a reload."""
    await expect(page.locator(f"[data-count-state={state}]")).to_have_text(f"{number:,}")


def wrong(province: Province) -> None:
    """Here and there something is the matter."""
    now_s, ids = province.node.app.now_s, [one for one in province.who if one != "13"]
    for n, node in enumerate(ids[5 :: max(7, len(ids) // 300)]):
        if province.who[node].children == 0 and node != VILLAGE:
            if n % 2:
                province.tell(node, seen=Seen(now_s - 30 * HOUR_S))
            else:
                province.tell(node, Load(340, bytes=99_000, since_s=now_s - 40 * HOUR_S))
    cut = next(one.id for one in province.who.values() if one.level == "county" and one.id.startswith("1302"))
    province.tell(cut, seen=Seen(now_s - 5 * HOUR_S))


async def the_picture(browser: Chromium, page: Page, province: Province) -> None:
    await page.goto("/mesh")
    await drawn(page)
    await expect(page.locator("[data-count-all]")).to_have_text(f"{len(province.who):,}")
    assert await browser.faults(page) == []
    await pictured(browser, page, "overview-zh")
    await page.evaluate("() => { window.never_reloaded = true; }")
    await count(page, "alert", 0)
    province.tell(VILLAGE, Load(alerts_critical=1))
    await count(page, "alert", 1)
    await expect(page.locator("#overview-list")).to_contain_text(VILLAGE)

    await page.click("label:has-text('告警')")  # in the legend
    await page.wait_for_url("**/mesh?state=alert")
    await expect(page.locator("#overview-list tbody tr")).to_have_count(1)
    await page.focus("canvas")
    await page.keyboard.press("n")
    said = page.locator("#overview-said")
    await expect(said).to_contain_text(province.who[VILLAGE].name)
    await expect(said).to_contain_text("告警")
    await expect(page.locator("#overview-tip")).to_be_visible()
    for _ in range(3):
        await page.keyboard.press("ArrowUp")
    await expect(said).to_contain_text(province.who[CITY].name)
    await page.keyboard.press("+")
    await page.wait_for_url(f"**/mesh?at={CITY}&state=alert")
    await expect(page.locator("#overview-trail [aria-current]")).to_have_text(province.who[CITY].name)
    await expect(page.locator("[data-count-all]")).to_have_text(f"{len(province.cities[CITY]):,}")
    await expect(page.locator("#overview-groups")).to_contain_text(COUNTY)
    await page.keyboard.press("Escape")
    await page.wait_for_url("**/mesh?state=alert")
    await page.go_back()
    await expect(page.locator("#overview-trail [aria-current]")).to_have_text(province.who[CITY].name)
    assert await page.evaluate("() => window.never_reloaded"), "none of this is a new page"
    await page.reload()
    await drawn(page)
    await expect(page.locator("[data-filter=state][value=alert]")).to_be_checked()


async def by_mouse(browser: Chromium, page: Page, province: Province) -> None:
    """The name of a group zooms, a cell opens its page; what is under the mouse is shown."""
    await page.goto(f"/mesh?at={CITY}")
    await drawn(page)
    await pictured(browser, page, "overview-city-zh")
    await page.click("canvas", position={"x": 12, "y": 8})  # the strip with a county's name
    await page.wait_for_url(re.compile(r"/mesh\?at=1301\d\d$"))
    county = page.url.partition("at=")[2]
    await expect(page.locator("#overview-trail [aria-current]")).to_have_text(province.who[county].name)
    villages = sum(one.level == "village" and f" {county} " in one.path for one in province.who.values())
    await expect(page.locator("[data-count-of-level=village]")).to_have_text(f"{villages:,}")
    await pictured(browser, page, "overview-county-zh")
    await page.hover("canvas", position={"x": 14, "y": 32})  # the first cell of the first township: itself
    tip = page.locator("#overview-tip")
    await expect(tip).to_contain_text("乡级")
    shown = await tip.inner_text()
    await page.click("canvas", position={"x": 14, "y": 32})
    await page.wait_for_url("**/mesh/*")
    name, code = shown.partition(",")[0].split(" ")
    await expect(page.locator("h1")).to_contain_text(f"{code} {name}")


async def by_finger(page: Page) -> None:
    """The first touch shows what the second would open."""
    await page.goto(f"/mesh?at={CITY}")
    await drawn(page)
    touch = """(canvas) => {
      const box = canvas.getBoundingClientRect(), where = {clientX: box.left + 12, clientY: box.top + 8};
      canvas.dispatchEvent(new PointerEvent("click", {pointerType: "touch", bubbles: true, ...where}));
    }"""
    await page.eval_on_selector("canvas", touch)
    await expect(page.locator("#overview-tip")).to_contain_text("县级")
    assert page.url.endswith(f"at={CITY}")
    await page.eval_on_selector("canvas", touch)
    await page.wait_for_url(re.compile(r"/mesh\?at=1301\d\d$"))


async def one_node(browser: Chromium, page: Page, province: Province) -> None:
    await page.goto(f"/mesh/{VILLAGE}")
    facts = page.locator("#mesh-node")
    await expect(facts).to_contain_text("告警")
    await expect(page.locator(".wayup >> nth=0").locator("li")).to_have_count(4)
    province.tell(VILLAGE, Load())
    await expect(facts.locator("dd >> nth=0")).to_contain_text("正常")
    await page.goto(f"/mesh/{COUNTY}")
    await expect(page.locator("#mesh-node tbody tr >> nth=0")).to_contain_text(COUNTY)
    assert await browser.faults(page) == []
    await pictured(browser, page, "node-county-zh")


async def exchanges(browser: Chromium, page: Page, province: Province) -> None:
    table, now_s = province.table, province.node.app.now_s
    history = History(table.connection, table.path)
    for n in range(140):
        at_s, busy = now_s - 84_000 + 600 * n, abs(70 - n)
        province.tell(CITY, Load(changes=busy * 9, since_s=at_s - busy * 8))
        if not 30 < n < 40:  # the line was cut
            history.add({CITY: Moved(3, 9, 400_000 + 9_000 * n, 900_000 + (n % 7) * 600_000)}, at_s, "", "13")
    province.tell(CITY, Load())
    await page.goto("/exchanges?peer=*&span=day")
    await page.wait_for_selector("[data-charts][data-ready] canvas")
    assert await page.locator(".chart canvas").count() == 3
    await expect(page.locator(".chart >> nth=2")).to_contain_text("发送")
    assert await browser.faults(page) == []
    await page.click("summary")
    await expect(page.locator("#exchanges-table tbody tr")).to_have_count(60)
    await page.click("summary")
    await page.evaluate("() => scrollTo(0, 0)")
    await pictured(browser, page, "exchanges-zh")


async def covered(browser: Chromium, page: Page, province: Province) -> None:
    await page.goto("/coverage")
    await page.wait_for_selector("#coverage-rows")
    await expect(page.locator(".figures .big >> nth=0")).to_have_text("2")
    assert await browser.faults(page) == []
    async with page.expect_download() as coming:
        await page.click("text=CSV")
    path = await (await coming.value).path()
    text = await asyncio.to_thread(lambda: path.read_text(encoding="utf-8-sig"))
    assert text.splitlines()[1].startswith("13,河北省,省级,")
    await pictured(browser, page, "coverage-zh")


async def in_english_on_a_phone(browser: Chromium, page: Page) -> None:
    await page.set_viewport_size(PHONE)  # type: ignore[arg-type]
    await page.emulate_media(color_scheme="dark")
    for path, ready in (
        ("/mesh", "canvas[data-ready]"),
        (f"/mesh/{COUNTY}", "#mesh-node"),
        ("/exchanges?peer=*", "[data-ready]"),
    ):
        await page.goto(path)
        await page.wait_for_selector(ready)
        assert await browser.faults(page) == [], path
    await page.goto("/mesh")
    await drawn(page)
    await browser.picture(page, "overview-phone-dark")


async def test_the_pages_of_the_mesh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = real(DIVISIONS) if os.environ.get(IMAGES) and DIVISIONS.exists() else small()
    async with Mesh(tmp_path) as mesh:
        province = await Province.found(mesh, rows, monkeypatch)
        child = await mesh.child(province.node, CITY, "city")
        await mesh.until(lambda: not child.pending())
        await mesh.halt(child)
        for key in ("a", "b"):
            province.node.write(key, {"name": "甲"})
        province.all_well()
        wrong(province)
        async with chromium(province.node) as browser:
            page = await browser.sign_in("alice", "viewer", lang="zh-CN")
            await the_picture(browser, page, province)
            await by_mouse(browser, page, province)
            await by_finger(page)
            await one_node(browser, page, province)
            await exchanges(browser, page, province)
            await covered(browser, page, province)
            await page.goto("/preferences?lang=en&back=%2Fmesh")
            await drawn(page)
            assert await browser.faults(page) == []
            await pictured(browser, page, "overview-en")
            await in_english_on_a_phone(browser, page)
            assert browser.outside == []
            assert browser.trouble == []
        province.close()
