"""Receipts: one page, nothing from outside, escaped, with a code that leads back to the proof."""

from __future__ import annotations

import os
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest
import segno

from fednode.node import receipt
from fednode.node.cli import invoke
from fednode.sync import proof_code, proof_file
from fednode.sync.errors import Refused, StoreError
from fednode.sync.proof_file import Checked, FieldTitle
from proofs import PATH, made
from world import NOW_S, World

WORLD = World()
COUNTY = made(WORLD, writer="130102", witnesses=(("1301", NOW_S + 5), ("13", NOW_S + 65)), maker="130102")
VILLAGE = made(WORLD, witnesses=[(node, NOW_S) for node in PATH[1:]])


def check(data: bytes) -> Checked:
    return proof_file.check(data, WORLD.root_der)


def render(data: bytes, checked: Checked | None = None) -> str:
    return receipt.render(data, checked or check(data), WORLD.root_sha256)


class Page(HTMLParser):
    """The text of a page, and every tag and attribute in it."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: set[str] = set()
        self.outside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.outside += [f"{name}={value}" for name, value in attrs if name in ("src", "href", "onload")]

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def wide(fields: int, value: str, data: bytes = COUNTY) -> Checked:
    """A record of many fields."""
    checked = check(data)
    record = {f"f{n}": value for n in range(fields)}
    titles = tuple(FieldTitle(f"f{n}", f"字段{n}", f"Field {n}") for n in range(fields))
    leaf = msgspec.structs.replace(checked.leaf, payload=msgspec.json.encode(record).decode())
    return _replace(checked, leaf=leaf, titles=msgspec.structs.replace(checked.titles, fields=titles))


def _replace(checked: Checked, **more: Any) -> Checked:
    from dataclasses import replace

    return replace(checked, **more)


def test_the_page_says_all_that_the_proof_does() -> None:
    page = Page(render(COUNTY))
    for words in (
        *("数据存证回执", "Receipt of a record", "店铺", "Shops", "shop 3", "名称", "130102"),
        *("2026-05-29 04:26:40 (UTC+8)", "2026-05-29 04:26:45 (UTC+8)", "2026-05-29 04:27:45 (UTC+8)"),
        *("hebei/130102/1/shop", "编号 3（从 0 起），共 7 条", "省级", "city", check(COUNTY).head.root.hex()),
        *(WORLD.root_sha256.hex()[:4], "FNP2:", "fednode audit check"),
    ):
        assert words in page.text, words


def test_nothing_comes_from_outside() -> None:
    page = render(COUNTY)
    found = Page(page)
    assert not found.outside
    assert not found.tags & {"script", "link", "img", "iframe", "object"}
    assert "url(" not in page
    assert "@import" not in page
    assert re.findall(r"https?://[^\"' ]+", page) == ["http://www.w3.org/2000/svg"] * page.count("www.w3.org")


def test_what_a_record_says_is_text() -> None:
    evil = wide(2, "<script>alert(1)</script>\n\x1b[2J\u202e\"'&")
    page = render(COUNTY, evil)
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    for character in ("\x1b", "\u202e"):
        assert character not in page


def test_the_page_says_which_code_it_is() -> None:
    """What the code holds is in its modules: the same as those of the text that is meant."""
    for data, text, words in (
        (COUNTY, proof_code.to_code(COUNTY), "holds the whole proof"),
        (VILLAGE, proof_code.reference(VILLAGE, check(VILLAGE)), "names the proof file"),
    ):
        assert text is not None
        page = render(data)
        assert segno.make(text, error="l", micro=False).svg_inline(border=2, omitsize=True) in page
        assert words in Page(page).text


def test_nobody_above_is_said() -> None:
    lonely = made(WORLD, witnesses=())
    assert "仅为填报者一方之词" in Page(render(lonely)).text
    assert "仅为填报者一方之词" not in Page(render(VILLAGE)).text


def test_long_records_are_cut_and_that_is_said() -> None:
    most = int(receipt.ROOM_MM / (receipt.LINE_MM + receipt.ROW_MM))
    for fits in (wide(most, "x"), wide(1, "x" * receipt.VALUE_MAX)):
        assert "见存证文件" not in Page(render(COUNTY, fits)).text
    for more in (wide(most + 1, "x"), wide(1, "x" * (receipt.VALUE_MAX + 1))):
        assert "另有 1 个字段" in Page(render(COUNTY, more)).text


def test_a_deletion_is_said() -> None:
    checked = check(COUNTY)
    gone = _replace(checked, leaf=msgspec.structs.replace(checked.leaf, op=2, payload=""))
    assert "删除了此记录" in Page(render(COUNTY, gone)).text


# ---------------------------------------------------------------- PDF


def pages(pdf: bytes) -> int:
    return len(re.findall(rb"/Type\s*/Page\b", pdf))


@pytest.mark.slow
@pytest.mark.skipif(receipt.browser() is None, reason="no Chromium on this machine (apt install chromium)")
@pytest.mark.parametrize(
    "checked",
    [
        *(check(VILLAGE), wide(200, "名" * 20_000, VILLAGE), wide(200, "x", VILLAGE), wide(10, "W" * 60, VILLAGE)),
        *(wide(5, "1 2" * 30, VILLAGE), wide(13, "名" * 14, VILLAGE), wide(8, "x", VILLAGE)),
    ],
    ids=["plain", "long", "many", "wide", "few", "some", "half"],
)
def test_chromium_prints_one_page(tmp_path: Path, checked: Checked) -> None:
    receipt.print_pdf(render(VILLAGE, checked), tmp_path / "r.pdf")
    pdf = (tmp_path / "r.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert pages(pdf) == 1


def test_without_chromium_one_is_told_to_print_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receipt, "BROWSERS", ())
    with pytest.raises(Refused) as caught:
        receipt.print_pdf("", tmp_path / "r.pdf")
    assert caught.value.code == "FN-2718"


def test_a_browser_that_fails_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "bin" / "broken-browser"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho no display >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(receipt, "BROWSERS", ("broken-browser",))
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(StoreError) as caught:
        receipt.print_pdf("", tmp_path / "r.pdf")
    assert caught.value.code == "FN-7702"
    assert "no display" in caught.value.params["reason"]
    assert not (tmp_path / "r.pdf").exists()


# ---------------------------------------------------------------- the command


def test_the_text_of_a_code_is_checked_like_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from fednode.node.home import pem_of

    (tmp_path / "root.pem").write_bytes(pem_of((WORLD.root_der,)))
    code = proof_code.to_code(COUNTY)
    assert code is not None
    for text, expected in ((code, 0), (code + "\r\n", 0), (code[:-3], 6), ("FNP1:\xff", 6), ("FNP2:\xff", 6)):
        (tmp_path / "code.txt").write_text(text, encoding="utf-8", newline="")
        words = ["audit", "check", str(tmp_path / "code.txt"), "--root", str(tmp_path / "root.pem")]
        assert invoke(words, {}) == expected
    capsys.readouterr()
