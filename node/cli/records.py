"""import, put, get, find, delete, conflicts, digest: records in and out."""

from __future__ import annotations

import csv
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.cli.progress import Update, bar
from fednode.node.importing import COUNTS
from fednode.node.ingest.rejects import Rejects, rejects_paths
from fednode.node.ingest.source import open_source
from fednode.node.proof_words import in_words, titles_of
from fednode.node.rejected import told
from fednode.sync.change import DELETE, ERASE, UPSERT
from fednode.sync.errors import Refused

FIND_COLUMNS = 6  # the fields of a table on a terminal; --csv and --json have all


def _pairs(given: tuple[str, ...], name: str) -> dict[str, str]:
    """{"a": "b"} of ("a=b",). Raises Refused FN-2706."""
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise Refused("FN-2706", name=name, reason=one, command="fednode")
        found[key] = value
    return found


@command("help.import", "import")
@click.argument("dataset")
@click.argument("files", nargs=-1, required=True)
@option("--map", "mapping", multiple=True, words="option.map", metavar="HEADER=CODE")
@option("--area", words="option.area", metavar="CODE")
@option("--sheet", words="option.sheet", default="")
@option("--encoding", words="option.encoding", default="")
@option("--rejects", words="option.rejects", metavar="FILE")
@option("--dry-run", is_flag=True, words="option.dry_run")
def import_(
    session: Session,
    dataset: str,
    files: tuple[str, ...],
    mapping: tuple[str, ...],
    area: str | None,
    sheet: str,
    encoding: str,
    rejects: str | None,
    dry_run: bool,
) -> None:
    """Import files; good rows are in, bad rows go to a file of rejects."""
    app = session.app()
    records = app.records()
    declared = records.declared(dataset)
    sources = [
        open_source(Path(file), declared, _pairs(mapping, "--map"), encoding=encoding, sheet=sheet) for file in files
    ]
    shown, lines = [], []
    for source in sources:
        session.about["file"] = source.path.name
        outs = rejects_paths(source.path, rejects, several=len(sources) > 1)
        bad = Rejects(outs, declared, source.headers, source.columns, session.lang)
        with bad, bar(session, "import.progress") as update:

            def progress(report: Any, source: Any, update: Update = update) -> None:
                session.about |= {name: getattr(report, name) for name in COUNTS}  # for the audit of one that fails
                session.about |= {"reasons": told(report.reasons)} if report.reasons else {}
                update(source.done, source.size, report.read)

            report = records.import_rows(
                dataset, source, area=area, dry_run=dry_run, on_reject=bad.add, on_progress=progress
            )
        app.poke()
        one = {
            "file": str(source.path),
            "format": source.format,
            "encoding": source.encoding,
            **{name: getattr(report, name) for name in COUNTS},
            "rejects_file": str(outs[0]) if bad.count else None,
            "rejects_files": [str(out) for out in outs] if bad.count else [],
            "reasons": dict(report.reasons.most_common()),
            "unknown_headers": source.unknown,
            "problems": [
                {"row": row, "field": problem.field, "reason": problem.reason, "value": problem.value}
                for row, problems in report.problems
                for problem in problems
            ],
        }
        shown.append(one)
        lines += _import_lines(session, one)
    totals = {key: sum(one[key] for one in shown) for key in COUNTS}
    if dry_run:
        lines.append(session.words("import.dry_run"))
    session.done({"files": shown, **totals, "dry_run": dry_run}, lines, 3 if totals["rejected"] else 0)


def _import_lines(session: Session, one: dict[str, Any]) -> list[str]:
    kind = ", ".join(part for part in (one["format"].upper(), one["encoding"]) if part)
    lines = [session.words("import.done", kind=kind, **{key: one[key] for key in ("file", *COUNTS)})]
    if one["unknown_headers"]:
        lines.append(session.words("import.unknown", file=one["file"], headers=", ".join(one["unknown_headers"])))
    if one["reasons"]:
        lines.append(session.words("import.reasons", reasons=told(one["reasons"])))
    if one["rejects_file"]:
        lines.append(session.words("import.rejects", path=", ".join(one["rejects_files"])))
    return lines


def _document(given: str | None, fields: tuple[str, ...]) -> dict[str, Any]:
    """The record out of JSON, of stdin ("-"), or of code=value pairs."""
    if bool(given) == bool(fields):
        raise Refused("FN-2710")
    if fields:
        return dict(_pairs(fields, "--field"))
    text = sys.stdin.read() if given == "-" else given or ""
    try:
        found = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise Refused("FN-2711", reason=str(error)) from error
    if not isinstance(found, dict):
        raise Refused("FN-2711", reason="{...}")
    return found


def _written(session: Session, app: Any, done: Any) -> None:
    app.poke()
    data = {"key": done.key, "area": done.area, "outcome": done.outcome, "changed": done.outcome != "unchanged"}
    key = {"unchanged": "put.unchanged", "deleted": "delete.done"}.get(done.outcome, "put.done")
    session.done(data, [session.words(key, key=done.key)])


@command("help.put", "put")
@click.argument("dataset")
@click.argument("record", required=False)
@option("--field", "fields", multiple=True, words="option.field", metavar="CODE=VALUE")
@option("--key", words="option.key", metavar="KEY")
@option("--area", words="option.area", metavar="CODE")
def put(
    session: Session, dataset: str, record: str | None, fields: tuple[str, ...], key: str | None, area: str | None
) -> None:
    """Write one record; with --key change fields of one that is there."""
    app = session.app()
    document = _document(record, fields)
    records = app.records()
    done = (
        records.amend(dataset, key, document, area, lang=session.lang)
        if key
        else records.put(dataset, document, area, lang=session.lang)
    )
    _written(session, app, done)


@command("help.delete", "delete")
@click.argument("dataset")
@click.argument("key")
@option("--area", words="option.area", metavar="CODE")
def delete(session: Session, dataset: str, key: str, area: str | None) -> None:
    """Delete one record."""
    app = session.app()
    _written(session, app, app.records().delete(dataset, key, area))


@command("help.get")
@click.argument("dataset")
@click.argument("key")
@option("--area", words="option.area", metavar="CODE")
@option("--history", is_flag=True, words="option.history")
@option("--withdrawn", is_flag=True, words="option.withdrawn")
def get(session: Session, dataset: str, key: str, area: str | None, history: bool, withdrawn: bool) -> None:
    """Show one record."""
    app = session.app()
    records = app.records()
    data: dict[str, Any] = {"dataset": dataset, "key": key}
    lines: list[str] = []
    versions = records.history(dataset, key, area, withdrawn=withdrawn) if history else []
    if not history or (versions and versions[0].op == UPSERT):
        found = records.get(dataset, key, area, withdrawn=withdrawn)
        data |= dataclasses.asdict(found)
        titles = titles_of(records.declared(dataset), found.record)
        lines += [f"{title}: {value}" for title, value in in_words(found.record, titles, session.lang)]
        held = found.standing.held_by_parent
        if held is not None:
            lines.append(session.words("get.saved", held=session.words("yes" if held else "no")))
        if found.withdrawn:
            lines.append(session.words("get.withdrawn", since=found.withdrawn))
    if history:
        data["versions"] = [dataclasses.asdict(one) for one in versions]
        lines += _history_lines(session, versions)
    session.done(data, lines)


def _history_lines(session: Session, versions: list[Any]) -> list[str]:
    from fednode.crypto.certs import iso

    names = {UPSERT: "op.upsert", DELETE: "op.delete", ERASE: "op.erase"}
    rows = [
        (
            iso(one.standing.effective_ms // 1000),
            one.standing.origin,
            session.words(names[one.op]),
            session.words("yes") if one.conflict else "",
            msgspec.json.encode(one.record).decode() if one.record is not None else "",
        )
        for one in versions
    ]
    return ["", *table(rows, [session.words(f"head.{key}") for key in ("time", "id", "what", "conflict", "value")])]


@command("help.find")
@click.argument("dataset")
@option("--where", multiple=True, words="option.where", metavar="CODE=VALUE")
@option("--text", words="option.text", default="")
@option("--since", words="option.since", metavar="DATE", default="")
@option("--until", words="option.until", metavar="DATE", default="")
@option("--date-field", words="option.date_field", metavar="CODE", default="")
@option("--area", words="option.area", metavar="CODE", default="")
@option("--limit", default=50, show_default=True, words="option.limit", type=click.IntRange(1, 10_000))
@option("--after", words="option.after", default="")
@option("--withdrawn", is_flag=True, words="option.withdrawn")
@option("--csv", "as_csv", is_flag=True, words="option.csv")
def find(
    session: Session,
    dataset: str,
    where: tuple[str, ...],
    text: str,
    since: str,
    until: str,
    date_field: str,
    area: str,
    limit: int,
    after: str,
    withdrawn: bool,
    as_csv: bool,
) -> None:
    """Find records."""
    records = session.app().records()
    page = records.find(
        dataset,
        _pairs(where, "--where"),
        text=text,
        since=since,
        until=until,
        date_field=date_field,
        area=area,
        limit=limit,
        cursor=after,
        withdrawn=withdrawn,
    )
    fields = records.declared(dataset).fields
    if as_csv:
        lines = [_csv_text(page.items, [field.code for field in fields])]
    elif page.items:
        shown = fields[:FIND_COLUMNS]
        rows = [(one.key, *(one.record.get(field.code, "") for field in shown)) for one in page.items]
        titles = [field.zh if session.lang == "zh" else field.en for field in shown]
        lines = table(rows, [session.words("head.key"), *titles])
        if hidden := sum(bool(one.withdrawn) for one in page.items):
            lines.append(session.words("find.withdrawn", count=hidden))
    else:
        lines = [session.words("find.none")]
    if page.cursor and not as_csv:
        lines.append(session.words("find.more", after=page.cursor))
    session.done({"records": [dataclasses.asdict(one) for one in page.items], "next": page.cursor}, lines)


def _csv_text(items: Sequence[Any], codes: list[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["key", "area", *codes])
    for one in items:
        writer.writerow([one.key, one.area, *(one.record.get(code, "") for code in codes)])
    return out.getvalue().rstrip("\n")


@command("help.conflicts")
@click.argument("dataset", required=False)
@option("--limit", default=100, show_default=True, words="option.limit", type=click.IntRange(1, 10_000))
def conflicts(session: Session, dataset: str | None, limit: int) -> None:
    """Concurrent changes that lost."""
    from fednode.node.follower import follow

    projector = session.app().new_projector()
    follow(projector)
    found = projector.conflicts(dataset or "", limit)
    rows = [(one["dataset"], one["area"], one["key"], one["log"], one["seq"]) for one in found]
    heads = [session.words(f"head.{key}") for key in ("dataset", "area", "key", "log", "number")]
    session.done({"conflicts": found}, table(rows, heads) if rows else [session.words("conflicts.none")])


@command("help.digest")
@click.argument("dataset", required=False)
@option("--area", words="option.area", metavar="CODE", default="")
def digest(session: Session, dataset: str | None, area: str) -> None:
    """A digest over the records: the same wherever the same records are."""
    found = session.app().records().digest(dataset, area)
    session.done(dataclasses.asdict(found), [session.words("digest.done", records=found.records, digest=found.digest)])
