"""The report of a drill for people: one HTML file in Chinese and English, to print and to file.

Rules
1. One file with all in it: no script, no network. What comes from data is escaped.
2. It says what the JSON beside it says, and the SHA-256 of that.

>>> seconds(1.5), seconds(None)
('1.5 s', '-')
"""

from __future__ import annotations

import html
from collections.abc import Iterable

from fednode.node.drills import FAILED, PASSED, Report, Step
from fednode.node.messages import catalogue, error_text, text
from fednode.node.receipt import both, moment
from fednode.sync.errors import StoreError

_STYLE = """
@page { size: A4; margin: 14mm }
body { font: 10pt/1.4 "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", SimSun, sans-serif; color: #000;
  max-width: 186mm; margin: 0 auto }
h1 { font-size: 17pt; margin: 0 0 2mm } h2 { font-size: 11pt; margin: 5mm 0 1mm; border-bottom: .4mm solid #000 }
h1 small, h2 small, th small { font-weight: normal; color: #444 }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; padding: .7mm 1.5mm; vertical-align: top;
  border-bottom: .1mm solid #bbb; overflow-wrap: anywhere } th { width: 62mm; font-weight: 600 }
.verdict { font-size: 13pt; font-weight: 700; border: .6mm solid #000; padding: 2mm 4mm; margin: 3mm 0 }
.failed { background: #000; color: #fff } code { font: 8pt/1.3 "DejaVu Sans Mono", Consolas, monospace }
.small { font-size: 8.5pt } .sign td { height: 12mm }
"""


def seconds(took_s: float | None) -> str:
    """A span that was measured."""
    return "-" if took_s is None else f"{took_s:g} s"


def page(report: Report, json_sha256: str) -> str:
    """The page's HTML."""
    verdict = "drill.passed" if report.passed else "drill.failed"
    title = _escaped(both("drill.title"))
    return "\n".join(
        [
            f'<!doctype html><html lang="zh"><head><meta charset="utf-8"><title>{title}</title>',
            f"<style>{_STYLE}</style></head><body>",
            f"<h1>{_titled('drill.title')}</h1>",
            f'<div class="verdict{"" if report.passed else " failed"}">{_escaped(both(verdict))}</div>',
            _table(_head(report)),
            f"<h2>{_titled('drill.goals')}</h2>",
            _table(_goals(report)),
            f"<h2>{_titled('drill.steps')}</h2>",
            _table((_titled(f"drill.step.{one.name}"), _step(one)) for one in report.steps),
            f"<h2>{_titled('drill.untouched')}</h2>",
            f'<div class="small"><p>{_escaped(both("drill.isolation"))}</p>{_table(_files(report))}</div>',
            f"<h2>{_titled('drill.signatures')}</h2>",
            f'<table class="sign"><tr><th>{_titled("drill.operator")}</th><td></td></tr>',
            f"<tr><th>{_titled('drill.auditor')}</th><td></td></tr></table>",
            f'<p class="small">report.json SHA-256 <code>{json_sha256}</code></p></body></html>\n',
        ]
    )


def _head(report: Report) -> Iterable[tuple[str, str]]:
    primary = report.stands_for or report.node
    yield _titled("drill.at"), _escaped(moment(report.at_ms // 1000))
    yield _titled("drill.node"), _escaped(f"{report.name} ({report.node})")
    yield _titled("drill.primary"), _escaped(f"{primary}, {report.domain}")
    yield _titled("drill.root"), f"<code>{report.root_sha256}</code>"
    yield _titled("drill.by"), _escaped(f"{report.by}; {report.host}; {report.software}")
    yield _titled("drill.daemon"), _escaped(both("drill.yes" if report.daemon else "drill.no"))


def _goals(report: Report) -> Iterable[tuple[str, str]]:
    if report.rpo_ms is None:
        rpo = both("drill.unknown")
    elif report.rpo_changes is None:
        rpo = both("drill.rpo_silent", time=seconds(report.rpo_ms / 1000))
    else:
        rpo = both("drill.rpo_told", changes=report.rpo_changes, time=seconds(report.rpo_ms / 1000))
    yield _titled("drill.rpo"), _escaped(rpo)
    yield _titled("drill.rto"), _escaped(seconds(report.rto_s))


def _step(one: Step) -> str:
    outcome = {PASSED: "drill.ok", FAILED: "drill.bad"}.get(one.outcome, "drill.left_out")
    lines = [f"<b>{_escaped(both(outcome))}</b>, {seconds(one.took_s)}"]
    found = "; ".join(f"{key} {value}" for key, value in one.found.items())
    if found:
        lines.append(f"<code>{_escaped(found)}</code>")
    if one.code:
        error = StoreError(one.code, **one.params)
        lines += [_escaped(f"{one.code}: {error_text(error, lang)[0]}") for lang in ("zh", "en")]
    return "<br>".join(lines)


def _files(report: Report) -> Iterable[tuple[str, str]]:
    for name, (before, after) in report.files.items():
        same = _escaped(both("drill.same" if before == after else "drill.changed"))
        yield _escaped(name), f"{same}<br><code>{before or '-'}<br>{after or '-'}</code>"


def _titled(key: str) -> str:
    if key not in catalogue():
        return _escaped(key)
    return f"{_escaped(text(key, 'zh'))} <small>{_escaped(text(key, 'en'))}</small>"


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><th>{title}</th><td>{value}</td></tr>" for title, value in rows) + "</table>"


def _escaped(value: str) -> str:
    return html.escape("".join(character if character.isprintable() else " " for character in value))
