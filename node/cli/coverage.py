"""coverage: how many records there are of each dataset and area, against the catalog's targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.coverage import ALL, PAGE_DEFAULT, PAGE_MAX, Coverage, Row, Wanted
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.sheets import Cell

CHINA = timedelta(hours=8)


@command("help.coverage")
@click.argument("dataset", default="")
@option("--area", default="", words="option.coverage_area", metavar="CODE")
@option("--level", "levels", multiple=True, words="option.coverage_level")
@option("--blank", is_flag=True, words="option.coverage_blank")
@option(
    "--limit", default=PAGE_DEFAULT, show_default=True, type=click.IntRange(1, PAGE_MAX), words="option.coverage_limit"
)
@option("--after", default="", words="option.coverage_after", metavar="CODE")
@option("--csv", "as_csv", default="", words="option.csv_file", metavar="FILE")
@option("--xlsx", "as_xlsx", default="", words="option.xlsx_file", metavar="FILE")
def coverage(
    session: Session,
    dataset: str,
    area: str,
    levels: tuple[str, ...],
    blank: bool,
    limit: int,
    after: str,
    as_csv: str,
    as_xlsx: str,
) -> None:
    """Records of each dataset and area."""
    from fednode.node.coverage import measured

    app = session.app()
    unknown = [one for one in levels if one not in app.trust.directory.levels]
    if unknown:
        raise Refused("FN-2001", option="--level", value=unknown[0])
    if app.trust.catalog is not None and dataset and dataset not in app.trust.catalog.datasets:
        raise Refused("FN-3401", dataset=dataset)
    found = measured(app)
    whole = Wanted(dataset, area, levels, blank)
    rows, following = found.page(dataclasses.replace(whole, limit=limit, after=after))
    document: dict[str, Any] = {
        "me": app.trust.node,
        "now_ms": app.now_ms(),
        "catalog": found.catalog.version,
        "areas": sum(1 for _ in found.places(whole)),
        "records": found.total(whole),
        "blanks": found.blanks(whole),
        "unread": list(found.unread),
        "rows": [dataclasses.asdict(row) for row in rows],
        "next": following,
        "files": _written(session, found, whole, as_csv, as_xlsx),
    }
    session.done({"coverage": document}, _lines(session, found, document, rows))


def _written(session: Session, found: Coverage, whole: Wanted, as_csv: str, as_xlsx: str) -> list[dict[str, Any]]:
    """Every row, in the files that were asked for."""
    from fednode.node.sheets import write_csv, write_xlsx

    keys = ("area", "name", "level", "dataset", "title", "records", "own", "target", "target_of", "share", "newest")
    heads = [session.words(f"head.{key}") for key in (*keys, "blank", "must")]
    files = []
    if as_csv:
        files.append({"path": as_csv, "rows": write_csv(Path(as_csv), heads, _cells(session, found, whole))})
    if as_xlsx:
        title = session.words("coverage.title")
        files.append({"path": as_xlsx, "rows": write_xlsx(Path(as_xlsx), title, heads, _cells(session, found, whole))})
    return files


def _cells(session: Session, found: Coverage, whole: Wanted) -> Iterator[Sequence[Cell]]:
    yes = session.words("yes")
    for row in found.rows(whole):
        yield (
            *(row.area, row.name, session.level(row.level) if row.level else "", row.dataset),
            *(_title(session, found, row.dataset), row.records, row.own, row.target),
            session.words(f"coverage.target_of_{row.target_of}") if row.target_of else "",
            *(row.share, _time(row.newest_ms), yes if row.blank else "", yes if row.must else ""),
        )


def _title(session: Session, found: Coverage, dataset: str) -> str:
    if dataset == ALL:
        return session.words("coverage.all")
    declared = found.catalog.datasets[dataset]
    return declared.zh if session.lang == "zh" else declared.en


def _time(ms: int | None) -> str:
    """A time for people, in China's."""
    return "" if ms is None else (datetime.fromtimestamp(ms // 1000, UTC) + CHINA).strftime("%Y-%m-%d %H:%M")


def _lines(session: Session, found: Coverage, document: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    words = session.words
    lines = [words("coverage.total", areas=document["areas"], records=document["records"])]
    if document["blanks"]:
        counts = ", ".join(f"{_title(session, found, name)} {count}" for name, count in document["blanks"].items())
        lines.append(words("coverage.blank", counts=counts))
    if document["unread"]:
        lines.append(words("coverage.unread", datasets=", ".join(document["unread"])))
    for file in document["files"]:
        lines.append(words("coverage.written", **file))
    if rows and not document["files"]:
        lines += ["", *_table(session, found, rows)]
        if any(row.target_of == "catalog" for row in rows):
            lines += ["", words("coverage.targets", all=words("coverage.all"))]
        if document["next"]:
            lines += ["", words("find.more", after=document["next"])]
    return lines


def _table(session: Session, found: Coverage, rows: Sequence[Row]) -> list[str]:
    shown = [
        (
            f"{row.area} {row.name}".strip(),
            session.level(row.level) if row.level else "-",
            _title(session, found, row.dataset),
            row.records,
            "-" if row.target is None else row.target,
            "-" if row.share is None else f"{row.share:.2%}",
            _time(row.newest_ms) or "-",
            session.words("yes") if row.blank else "",
        )
        for row in rows
    ]
    keys = ("area", "level", "dataset", "records", "target", "share", "newest", "blank")
    return table(shown, [session.words(f"head.{key}") for key in keys])
