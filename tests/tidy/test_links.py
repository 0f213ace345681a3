"""Every link of the documentation leads to a file of the checkout, and to a heading of it; every page stands in the
site's navigation."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from source import ROOT

TOP = ("README.md", "README.zh.md", "CHANGELOG.md", "deploy/README.md")
PAGES = sorted([*(ROOT / name for name in TOP), *(ROOT / "docs").rglob("*.md")])
LINK = re.compile(r"\]\(([^)\s]+)\)")


def prose(text: str) -> Iterator[str]:
    """The lines of a page that are no code."""
    fenced = False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        if not fenced and not line.startswith("    ") and not line.startswith("```"):
            yield line


@cache
def anchors(page: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub and the site make them."""
    headings = (line.lstrip("#") for line in prose(page.read_text("utf-8")) if re.match(r"#{1,6} ", line))
    return frozenset(re.sub(r"[^\w\- ]", "", one.strip().lower()).replace(" ", "-") for one in headings)


def broken(page: Path, line: str) -> Iterator[str]:
    """The links of a line that lead nowhere."""
    for link in LINK.findall(re.sub(r"`[^`]*`", "", line)):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        there = (page.parent / name).resolve() if name else page
        if not there.is_file() or (anchor and anchor not in anchors(there)):
            yield link


def test_every_link_leads_somewhere() -> None:
    lost = [
        f"{page.relative_to(ROOT)}: {link}"
        for page in PAGES
        for line in prose(page.read_text("utf-8"))
        for link in broken(page, line)
    ]
    assert lost == []


def test_a_link_that_leads_nowhere_is_noticed() -> None:
    page = ROOT / "docs/faq.md"
    assert list(broken(page, "[a](none.md), [b](cli.md#nope), [c](#nope), [d](cli.md#audit), [e](cli.md)")) == [
        "none.md",
        "cli.md#nope",
        "#nope",
    ]


def test_every_page_stands_in_the_navigation_once() -> None:
    spec = importlib.util.spec_from_file_location("_docs", ROOT / "scripts/_docs.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    assert sorted(made.listed(made.settings()["nav"])) == sorted(str(page.relative_to(ROOT)) for page in PAGES)
