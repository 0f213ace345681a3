"""The receipt of a record for a service counter: one A4 page to print, in Chinese and English, with a QR code.

Rules
1. One HTML file with all in it: no script, no network, no font of its own. What is shown comes out of a proof that was
   checked (`Checked`), and is escaped.
2. The QR code holds the proof whole where that fits, else it names the file (`fednode.sync.proof_code`); the page says
   which.
3. The page stays one page: many fields and long texts are cut, and the page says so. The proof file has all.
4. A PDF is printed by the Chromium of the machine.

>>> moment(1_780_000_000)
'2026-05-29 04:26:40 (UTC+8)'
"""

from __future__ import annotations

import html
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unicodedata import east_asian_width

import segno

from fednode.crypto.certs import Identity
from fednode.crypto.suite import SUITE_1
from fednode.node import files
from fednode.node.messages import catalogue, text
from fednode.node.proof_words import fields_of, grouped
from fednode.sync import proof_code
from fednode.sync.errors import Refused, StoreError
from fednode.sync.proof_file import Checked

VALUE_MAX, NAME_MAX, KEY_MAX = 90, 40, 150
# The record's room, in two columns; a row's height; how much of a title and a value one line takes (a Chinese character
# takes two cells)
ROOM_MM, LINE_MM, ROW_MM, TITLE_CELLS, VALUE_CELLS = 130, 3.4, 1.2, 22, 36
PRINT_S = 60
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
_CHINA = timedelta(hours=8)
_STYLE = """
@page { size: A4; margin: 12mm }
* { box-sizing: border-box }
body { font: 9.5pt/1.35 "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", SimSun, sans-serif; color: #000;
  width: 186mm; margin: 0 auto }
h1 { font-size: 16pt; margin: 0 0 1mm } h1 small, h2 small, th small { font-weight: normal; color: #444 }
h2 { font-size: 10.5pt; margin: 3mm 0 .5mm; border-bottom: .4mm solid #000 }
table { border-collapse: collapse; width: 100%; table-layout: fixed }
th { text-align: left; width: 56mm; font-weight: 600 } th, td { padding: .5mm 1mm; vertical-align: top;
  border-bottom: .1mm solid #bbb; overflow-wrap: anywhere }
.small { font-size: 8pt } .small code { font-size: 7.5pt }
.many { columns: 2; column-gap: 4mm; font-size: 7.5pt; line-height: 1.25 } .many th { width: 36mm }
.many tr { break-inside: avoid }
code { font: 8pt/1.3 "DejaVu Sans Mono", Consolas, monospace; overflow-wrap: anywhere }
.code { display: flex; gap: 6mm; margin-top: 3mm; font-size: 8.5pt; break-inside: avoid }
.code svg { width: 78mm; height: 78mm; flex: none }
.warn { font-weight: 700 }
"""


def moment(seconds: int) -> str:
    """A time as it is read in China."""
    return (datetime.fromtimestamp(seconds, UTC) + _CHINA).strftime("%Y-%m-%d %H:%M:%S (UTC+8)")


def render(data: bytes, checked: Checked, root_sha256: bytes) -> str:
    """The page, for a proof file and what it was checked to prove."""
    code = proof_code.to_code(data)
    svg = segno.make(code or proof_code.reference(data, checked), error="l", micro=False).svg_inline(
        border=2, omitsize=True
    )
    head = [
        ("receipt.domain", checked.log.domain),
        ("receipt.dataset", " ".join(filter(None, (checked.titles.zh, checked.titles.en, checked.log.dataset)))),
        ("receipt.key", _cut(checked.leaf.key, KEY_MAX)),
        ("receipt.area", checked.area),
    ]
    place = [
        ("receipt.log", str(checked.log)),
        ("receipt.index", both("receipt.of", index=checked.index, size=checked.head.size)),
        ("receipt.tree", checked.head.root.hex()),
        ("receipt.file", SUITE_1.hash(data).hex()),
        ("receipt.root", grouped(root_sha256.hex())),
        ("receipt.made", f"{_who(checked.maker)}, {moment(checked.made_ms // 1000)}"),
    ]
    title = text("receipt.title", "zh")
    return "\n".join(
        [
            f'<!doctype html><html lang="zh"><head><meta charset="utf-8"><title>{_escaped(title)}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{_titled('receipt.title')}</h1>",
            _table((_titled(key), value) for key, value in head),
            f"<h2>{_titled('receipt.record')}</h2>",
            _record(checked),
            f"<h2>{_titled('receipt.seen')}</h2>",
            f'<div class="small">{_seen(checked)}</div>',
            f"<h2>{_titled('receipt.place')}</h2>",
            f'<div class="small">{_table((_titled(key), value) for key, value in place)}</div>',
            f'<div class="code">{svg}<div>{_paragraphs("receipt.code" if code else "receipt.code_reference")}',
            "<p><code>fednode audit check FILE --root root.pem</code></p>",
            f"{_paragraphs('receipt.fingerprint')}</div></div></body></html>\n",
        ]
    )


def _record(checked: Checked) -> str:
    zh, en = list(fields_of(checked, "zh")), list(fields_of(checked, "en"))
    if not zh:
        return _paragraphs("receipt.deleted")
    rows, left_mm, cut = [], float(ROOM_MM), 0
    for (title, value), (title_en, _) in zip(zh, en, strict=True):
        shown, english = _cut(value, VALUE_MAX), title_en if title_en != title else ""
        lines = max(-(-_cells(f"{title} {english}") // TITLE_CELLS), -(-_cells(shown) // VALUE_CELLS), 1)
        high_mm = lines * LINE_MM + ROW_MM
        if high_mm > left_mm:
            cut += 1
            continue
        left_mm -= high_mm
        cut += shown != value
        rows.append((_escaped(title) + (f" <small>{_escaped(english)}</small>" if english else ""), shown))
    table = _table(rows)
    more = f"<p>{_escaped(both('receipt.more', count=cut))}</p>" if cut else ""
    return (f'<div class="many">{table}</div>' if ROOM_MM - left_mm > ROOM_MM / 3 else table) + more


def _cut(value: str, longest: int) -> str:
    return value if len(value) <= longest else value[:longest] + "…"


def _cells(value: str) -> int:
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in value)


def _seen(checked: Checked) -> str:
    rows = [(_titled("receipt.written"), f"{_who(checked.writer)}, {moment(checked.written_ms // 1000)}")]
    for one in checked.witnesses:
        rows.append((_titled("receipt.witness"), f"{_who(one.identity)}, {moment(one.time_s)}"))
    lonely = not checked.witnesses and checked.unseen_by
    return _table(rows) + (f'<p class="warn">{_escaped(both("receipt.unseen"))}</p>' if lonely else "")


def both(key: str, **params: object) -> str:
    """Words in Chinese and English."""
    return f"{text(key, 'zh', **params)} / {text(key, 'en', **params)}"


def _who(one: Identity) -> str:
    level = both(f"level.{one.level}") if f"level.{one.level}" in catalogue() else one.level
    return f"{_cut(one.name, NAME_MAX)} ({one.node}, {level})"


def _escaped(value: str) -> str:
    """For HTML; line breaks and other control characters become spaces."""
    return html.escape("".join(character if character.isprintable() else " " for character in value))


def _titled(key: str) -> str:
    return f"{_escaped(text(key, 'zh'))} <small>{_escaped(text(key, 'en'))}</small>"


def _paragraphs(key: str) -> str:
    return f"<p>{_escaped(text(key, 'zh'))}</p><p>{_escaped(text(key, 'en'))}</p>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    """Heads are HTML, values are text."""
    return (
        "<table>" + "".join(f"<tr><th>{head}</th><td>{_escaped(value)}</td></tr>" for head, value in rows) + "</table>"
    )


# ---------------------------------------------------------------- PDF


def browser() -> str | None:
    """The Chromium of this machine."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


def print_pdf(page: str, path: Path) -> None:
    """Print a page. Raises Refused FN-2718 where there is no Chromium, StoreError FN-7702 when it fails."""
    program = browser()
    if program is None:
        raise Refused("FN-2718")
    with tempfile.TemporaryDirectory(prefix="fednode-receipt-") as folder:
        source, made = Path(folder) / "receipt.html", Path(folder) / "receipt.pdf"
        files.write(source, page.encode())
        command = [program, "--headless", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
        command += ["--disable-component-update", "--disable-sync", f"--user-data-dir={folder}/profile"]
        command += ["--no-sandbox"] if os.geteuid() == 0 else []  # Chromium refuses to run as root with it
        command += ["--no-pdf-header-footer", f"--print-to-pdf={made}", source.as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=PRINT_S, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise StoreError("FN-7702", reason=str(error)[:200]) from error
        if done.returncode or not made.is_file():
            raise StoreError("FN-7702", reason=done.stderr.decode(errors="replace")[-200:])
        files.write(path, made.read_bytes())
