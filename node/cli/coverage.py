"""coverage: how many records there are of each dataset and area, against the catalog's targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.coverage import ALL, PAGE_DEFAULT, PAGE_MAX, Coverage, Row, Wanted
from fednode.node.coverage_cells import TERMS, Cells, Tongue, area_cells, china
from fednode.node.ingest.rejects import reason_text
from fednode.node.messages import catalogue, safe
from fednode.node.published import DAYS_MAX, growth
from fednode.node.rejected import DAY_MS, DAYS_DEFAULT, rejected
from fednode.sync.errors import Refused
from fednode.sync.formats import Problem, canonical_area

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.sheets import Cell
Grown = Mapping[date, Mapping[str, int]]


@command("help.coverage")
@click.argument("dataset", default="")
@option("--area", default="", words="option.coverage_area", metavar="CODE")
@option("--level", "levels", multiple=True, words="option.coverage_level")
@option("--blank", is_flag=True, words="option.coverage_blank")
@option(
    "--limit", default=PAGE_DEFAULT, show_default=True, type=click.IntRange(1, PAGE_MAX), words="option.coverage_limit"
)
@option("--after", default="", words="option.coverage_after", metavar="CODE")
@option("--days", type=click.IntRange(1, DAYS_MAX), words="option.coverage_days")
@option("--timely", is_flag=True, words="option.coverage_timely")
@option("--rejected", "refused", is_flag=True, words="option.coverage_rejected")
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
    days: int | None,
    timely: bool,
    refused: bool,
    as_csv: str,
    as_xlsx: str,
) -> None:
    """Records of each dataset and area, or of each day; or rows that imports refused."""
    from fednode.node.coverage import measured, opened

    app = session.app()
    unknown = [one for one in levels if one not in app.trust.directory.levels]
    if unknown:
        raise Refused("FN-2001", option="--level", value=unknown[0])
    if (days or refused) and (levels or blank or after or timely):
        reason = "--level --blank --after --timely"
        name = "--rejected" if refused else "--days"
        raise Refused("FN-2706", name=name, reason=reason, command="fednode coverage")
    if app.trust.catalog is not None and dataset and dataset not in app.trust.catalog.datasets:
        raise Refused("FN-3401", dataset=dataset)
    if refused:
        _rejected(session, app, dataset, area, days or DAYS_DEFAULT, (as_csv, as_xlsx))
        return
    whole = Wanted(dataset, area, levels, blank)
    with opened(app) as connection:
        found = measured(app, connection, timely=timely)
        inside = found.inside(whole)
        names = [name for name in found.names(whole) if name != ALL]
        grown = growth(connection, names, inside.__contains__, app.now_ms(), days) if days else None
    rows, following = ([], "") if days else found.page(dataclasses.replace(whole, limit=limit, after=after))
    heads, cells = (
        area_cells(_tongue(session), found, whole, timely=timely)
        if grown is None
        else _day_cells(session, found, grown)
    )
    document: dict[str, Any] = {
        "me": app.trust.node,
        "now_ms": app.now_ms(),
        "catalog": found.catalog.version,
        "areas": len(inside),
        "records": found.total(whole),
        "blanks": found.blanks(whole),
        "unread": list(found.unread),
        "rows": [dataclasses.asdict(row) for row in rows],
        "next": following,
        "days": grown and [{"day": day.isoformat(), "records": counts} for day, counts in grown.items()],
        "timely": _limits(found, whole) if timely else None,
        "files": _written(session.words("coverage.title"), heads, cells, as_csv, as_xlsx),
    }
    session.done({"coverage": document}, _lines(session, found, document, rows))


def _rejected(session: Session, app: App, dataset: str, area: str, days: int, files: tuple[str, str]) -> None:
    """Rows that imports refused, by area, dataset and reason."""
    from fednode.node.coverage import opened

    words, now_ms, under = session.words, app.now_ms(), canonical_area(area)
    with opened(app) as connection:
        found = rejected(connection, now_ms - days * DAY_MS, lambda one: one.startswith(under), dataset)
    catalog = app.trust.catalog

    def title(name: str) -> str:
        declared = catalog.datasets.get(name) if catalog is not None else None
        return safe(name) if declared is None else declared.zh if session.lang == "zh" else declared.en

    def reason(name: str) -> str:
        known = f"reason.{name}" in catalogue()
        return reason_text(Problem("", name, detail="…"), session.lang) if known else name

    def cells() -> Iterator[Sequence[Cell]]:
        for row in found.rows:
            yield row.area, row.dataset, title(row.dataset), row.reason, reason(row.reason), row.rows

    heads = [words(f"head.{key}") for key in ("area", "dataset", "title", "code", "reason", "rows")]
    document: dict[str, Any] = {
        "me": app.trust.node,
        "now_ms": now_ms,
        "rejected": {"days": days, **dataclasses.asdict(found)},
        "files": _written(words("coverage.rejected_title"), heads, cells, *files),
    }
    told = {name: getattr(found, name) for name in ("imports", "read", "rejected")}
    lines = [words("coverage.rejected", days=days, **told)]
    lines += [words("coverage.untold", count=found.untold)] if found.untold else []
    lines += [words("coverage.written", **file) for file in document["files"]]
    if found.rows and not document["files"]:
        shown = [(safe(row.area), title(row.dataset), row.reason, row.rows, reason(row.reason)) for row in found.rows]
        keys = ("area", "dataset", "code", "rows", "reason")
        lines += ["", *table(shown, [words(f"head.{key}") for key in keys])]
    session.done({"coverage": document}, lines)


def _written(title: str, heads: list[str], cells: Cells, as_csv: str, as_xlsx: str) -> list[dict[str, Any]]:
    """Every row, in the files that were asked for."""
    from fednode.node.sheets import write_csv, write_xlsx

    files = []
    if as_csv:
        files.append({"path": as_csv, "rows": write_csv(Path(as_csv), heads, cells())})
    if as_xlsx:
        files.append({"path": as_xlsx, "rows": write_xlsx(Path(as_xlsx), title, heads, cells())})
    return files


def _day_cells(session: Session, found: Coverage, grown: Grown) -> tuple[list[str], Cells]:
    """The heads of a file of days, and what makes its rows."""
    heads = [session.words(f"head.{key}") for key in ("day", "dataset", "title", "records")]

    def cells() -> Iterator[Sequence[Cell]]:
        for day, counts in grown.items():
            for name, count in counts.items():
                yield day.isoformat(), name, _title(session, found, name), count

    return heads, cells


def _limits(found: Coverage, whole: Wanted) -> dict[str, Any]:
    """From which date on how many working days there are, and of which years the holidays are known; `guessed`:
    of how many of the records that are asked for they are not."""
    from fednode.node.workdays import FIRST_YEAR, LAST_YEAR

    due = {name: found.catalog.datasets[name].timeliness for name in found.names(whole) if name != ALL}
    terms = found.terms(whole)
    return {
        "limits": {
            name: {"field": one.field, "working_days": one.working_days} for name, one in due.items() if one is not None
        },
        "guessed": terms.guessed if terms is not None else 0,
        "first_year": FIRST_YEAR,
        "last_year": LAST_YEAR,
    }


def _tongue(session: Session) -> Tongue:
    return Tongue(session.words, session.level, session.lang)


def _title(session: Session, found: Coverage, dataset: str) -> str:
    return _tongue(session).title(found, dataset)


def _lines(session: Session, found: Coverage, document: dict[str, Any], rows: Sequence[Row]) -> list[str]:
    words = session.words
    lines = [words("coverage.total", areas=document["areas"], records=document["records"])]
    if document["blanks"]:
        counts = ", ".join(f"{_title(session, found, name)} {count}" for name, count in document["blanks"].items())
        lines.append(words("coverage.blank", counts=counts))
    if document["unread"]:
        lines.append(words("coverage.unread", datasets=", ".join(document["unread"])))
    if document["timely"]:
        lines += _limit_lines(session, found, document["timely"])
    for file in document["files"]:
        lines.append(words("coverage.written", **file))
    if document["days"] and not document["files"]:
        names = list(document["blanks"])
        shown = [(one["day"], *(one["records"][name] for name in names)) for one in document["days"]]
        lines += ["", *table(shown, [words("head.day"), *(_title(session, found, name) for name in names)])]
    if rows and not document["files"]:
        lines += ["", *_table(session, found, rows, timely=bool(document["timely"]))]
        if any(row.target_of == "catalog" for row in rows):
            lines += ["", words("coverage.targets", all=words("coverage.all"))]
        if document["next"]:
            lines += ["", words("find.more", after=document["next"])]
    return lines


def _limit_lines(session: Session, found: Coverage, timely: dict[str, Any]) -> list[str]:
    words = session.words
    limits = [
        words("coverage.limit", title=_title(session, found, name), days=one["working_days"], field=one["field"])
        for name, one in timely["limits"].items()
    ]
    lines = [
        words("coverage.limits", limits="; ".join(limits) or "-", first=timely["first_year"], last=timely["last_year"])
    ]
    guessed = timely["guessed"]
    return [*lines, words("coverage.guessed", count=guessed)] if guessed else lines


def _table(session: Session, found: Coverage, rows: Sequence[Row], *, timely: bool) -> list[str]:
    shown = [
        (
            f"{row.area} {row.name}".strip(),
            session.level(row.level) if row.level else "-",
            _title(session, found, row.dataset),
            row.records,
            "-" if row.target is None else row.target,
            "-" if row.share is None else f"{row.share:.2%}",
            china(row.newest_ms) or "-",
            session.words("yes") if row.blank else "",
            *([getattr(row.timely, key, "-") for key in TERMS[:-1]] if timely else ()),
        )
        for row in rows
    ]
    keys = (
        "area",
        "level",
        "dataset",
        "records",
        "target",
        "share",
        "newest",
        "blank",
        *(TERMS[:-1] if timely else ()),
    )
    return table(shown, [session.words(f"head.{key}") for key in keys])
