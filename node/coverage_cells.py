"""Coverage as cells of a table: what a file of the command line and one of the console have in common.

>>> china(1_780_000_000_000)
'2026-05-29 04:26'
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from fednode.node.coverage import ALL, Coverage, Wanted
from fednode.node.sheets import Cell

Cells = Callable[[], Iterator[Sequence[Cell]]]
CHINA = timedelta(hours=8)
TERMS = ("dated", "late", "undated", "longest", "guessed")
AREA_KEYS = ("area", "name", "level", "dataset", "title", "records", "own", "target", "target_of", "share", "newest")


@dataclass(frozen=True, slots=True)
class Tongue:
    """How things are said: `words` of the catalogue's key, `level` of a level's name, in the language `lang`."""

    words: Callable[[str], str]
    level: Callable[[str], str]
    lang: str

    def title(self, found: Coverage, dataset: str) -> str:
        """A dataset's title."""
        if dataset == ALL:
            return self.words("coverage.all")
        declared = found.catalog.datasets[dataset]
        return declared.zh if self.lang == "zh" else declared.en


def china(ms: int | None) -> str:
    """A time for people, in China's."""
    return "" if ms is None else (datetime.fromtimestamp(ms // 1000, UTC) + CHINA).strftime("%Y-%m-%d %H:%M")


def area_cells(tongue: Tongue, found: Coverage, whole: Wanted, *, timely: bool) -> tuple[list[str], Cells]:
    """The heads of a file of areas, and what makes its rows."""
    words = tongue.words
    yes = words("yes")

    def cells() -> Iterator[Sequence[Cell]]:
        for row in found.rows(whole):
            yield (
                *(row.area, row.name, tongue.level(row.level) if row.level else "", row.dataset),
                *(tongue.title(found, row.dataset), row.records, row.own, row.target),
                words(f"coverage.target_of_{row.target_of}") if row.target_of else "",
                *(row.share, china(row.newest_ms), yes if row.blank else "", yes if row.must else ""),
                *([getattr(row.timely, key, None) for key in TERMS] if timely else ()),
            )

    return [words(f"head.{key}") for key in (*AREA_KEYS, "blank", "must", *(TERMS if timely else ()))], cells
