"""scripts/docs: the site is built, loads nothing from a network, and its search works where it is opened as a file."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Page, async_playwright

from browser import CHROMIUM, TIMEOUT_MS, needs_chromium
from source import ROOT


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs") / "site"
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/_docs.py", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_pages_load_nothing_from_a_network(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe)[^>]+src="?(?:https?:)?//|<link[^>]+stylesheet[^>]+href="?(?:https?:)?//"""
    )
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text("utf-8")), page


def test_a_table_s_code_has_its_bars(site: Path) -> None:
    assert "completion bash|zsh|fish" in (site / "docs/cli.html").read_text("utf-8")


@asynccontextmanager
async def technician(site: Path) -> AsyncIterator[Page]:
    """The technician's page, opened as a file."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = await browser.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        await page.goto((site / "docs/technician.zh.html").as_uri())
        yield page
        await browser.close()


@needs_chromium
async def test_the_search_finds_chinese_in_a_file(site: Path) -> None:
    outside: list[str] = []
    async with technician(site) as page:
        page.on("request", lambda one: None if one.url.startswith("file:") else outside.append(one.url))
        await page.reload()
        await page.get_by_role("button", name="Search").click()
        await page.get_by_placeholder("Search").fill("电话核对指纹")
        found = page.locator("a[href*='operate.zh.html']", has_text="电话核对指纹")
        await found.first.wait_for()
    assert outside == []


@needs_chromium
async def test_the_technician_s_page_is_a_few_sheets_of_a4(site: Path) -> None:
    async with technician(site) as page:
        printed = await page.pdf(prefer_css_page_size=True)
    sheets = re.findall(rb"/MediaBox \[0 0 ([0-9.]+) ([0-9.]+)\]", printed)
    assert {(round(float(wide)), round(float(high))) for wide, high in sheets} == {(595, 842)}
    assert len(sheets) <= 4
