"""import, put, get, find, delete, conflicts, digest: records in and out."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import rich_click as click

from fednode.node.cli.frame import Session, command, human_ms, option, table
from fednode.sync.errors import Refused

Progress = Callable[[int, int], None]


def _pairs(given: tuple[str, ...], name: str) -> dict[str, str]:
    """{"a": "b"} of ("a=b",). Raises Refused FN-2706."""
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key:
            raise Refused("FN-2706", name=name, reason=one, command="fednode")
        found[key] = value
    return found


@contextmanager
def _progress(session: Session) -> Iterator[Progress]:
    """A bar on stderr with rate and time left; none without a terminal, with --json or --quiet."""
    if session.as_json or session.quiet or not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(session.words("import.progress"), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@command("help.import")
@click.argument("dataset")
@click.argument("files", nargs=-1, required=True)
@option("--map", "mapping", multiple=True, words="option.map", metavar="HEADER=CODE")
@option("--area", words="option.area", metavar="CODE", default="")
@option("--sheet", words="option.sheet", default="")
@option("--encoding", words="option.encoding", default="")
@option("--rejects", words="option.rejects", metavar="FILE")
@option("--dry-run", is_flag=True, words="option.dry_run")
def import_(
    session: Session,
    dataset: str,
    files: tuple[str, ...],
    mapping: tuple[str, ...],
    area: str,
    sheet: str,
    encoding: str,
    rejects: str | None,
    dry_run: bool,
) -> None:
    """Import files; good rows are in, bad rows go to a file of rejects."""
    app = session.app()
    records = app.records()
    chosen = _pairs(mapping, "--map")
    reports = []
    for file in files:
        path = Path(file)
        out = Path(rejects) if rejects else path.with_name(f"{path.stem}.rejects.csv")
        with _progress(session) as progress:
            reports.append(
                records.import_file(
                    dataset,
                    path,
                    mapping=chosen,
                    area=area,
                    sheet=sheet,
                    encoding=encoding,
                    rejects=out,
                    lang=session.lang,
                    dry_run=dry_run,
                    progress=progress,
                )
            )
        app.poke()
    shown = [
        {
            "file": file,
            "encoding": one.encoding,
            "read": one.read,
            "added": one.added,
            "changed": one.changed,
            "unchanged": one.unchanged,
            "rejected": one.rejected,
            "rejects_file": str(one.rejects_path) if one.rejects_path else None,
            "unknown_headers": list(one.unknown),
        }
        for file, one in zip(files, reports, strict=True)
    ]
    totals = {key: sum(one[key] for one in shown) for key in ("read", "added", "changed", "unchanged", "rejected")}
    lines = []
    for one in shown:
        lines.append(session.words("import.done", **{key: one[key] for key in ("file", "encoding", *totals)}))
        if one["unknown_headers"]:
            lines.append(session.words("import.unknown", file=one["file"], headers=", ".join(one["unknown_headers"])))
        if one["rejects_file"]:
            lines.append(session.words("import.rejects", path=one["rejects_file"]))
    if dry_run:
        lines.append(session.words("import.dry_run"))
    session.done({"files": shown, **totals, "dry_run": dry_run}, lines, 3 if totals["rejected"] else 0)


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


@command("help.put")
@click.argument("dataset")
@click.argument("record", required=False)
@option("--field", "fields", multiple=True, words="option.field", metavar="CODE=VALUE")
@option("--area", words="option.area", metavar="CODE", default="")
def put(session: Session, dataset: str, record: str | None, fields: tuple[str, ...], area: str) -> None:
    """Write one record."""
    app = session.app()
    done = app.records().put(dataset, _document(record, fields), area=area)
    app.poke()
    key = "put.done" if done.changed else "put.unchanged"
    session.done({"key": done.key, "area": done.area, "changed": done.changed}, [session.words(key, key=done.key)])


@command("help.delete")
@click.argument("dataset")
@click.argument("key")
@option("--area", words="option.area", metavar="CODE", default="")
def delete(session: Session, dataset: str, key: str, area: str) -> None:
    """Delete one record."""
    app = session.app()
    done = app.records().delete(dataset, key, area=area)
    app.poke()
    session.done(
        {"key": done.key, "area": done.area, "changed": done.changed}, [session.words("delete.done", key=done.key)]
    )


@command("help.get")
@click.argument("dataset")
@click.argument("key")
@option("--area", words="option.area", metavar="CODE", default="")
@option("--history", is_flag=True, words="option.history")
def get(session: Session, dataset: str, key: str, area: str, history: bool) -> None:
    """Show one record."""
    app = session.app()
    records = app.records()
    found = msgspec.to_builtins(records.get(dataset, key, area=area))
    data = dict(found)
    lines = [msgspec.json.format(msgspec.json.encode(found["record"])).decode()]
    if found["held_by_parent"] is not None:
        held = session.words("yes" if found["held_by_parent"] else "no")
        lines.append(session.words("get.saved", held=held))
    if history:
        data["versions"] = [msgspec.to_builtins(one) for one in records.history(dataset, key, area=area)]
        lines += _history_lines(session, app, data["versions"])
    session.done(data, lines)


def _history_lines(session: Session, app: Any, versions: list[dict[str, Any]]) -> list[str]:
    now_ms = app.now_ms()
    rows = [
        (
            session.words("status.ago", age=human_ms(max(0, now_ms - one["time_ms"]), session.lang)),
            one["origin"],
            one["op"],
            session.words("yes") if one["conflict"] else "",
            msgspec.json.encode(one["record"]).decode() if one["record"] is not None else "",
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
@option("--limit", default=50, show_default=True, words="option.limit", type=click.IntRange(1, 10_000))
@option("--after", words="option.after", default=0, type=int)
@option("--csv", "as_csv", is_flag=True, words="option.csv")
def find(
    session: Session,
    dataset: str,
    where: tuple[str, ...],
    text: str,
    since: str,
    until: str,
    date_field: str,
    limit: int,
    after: int,
    as_csv: bool,
) -> None:
    """Find records."""
    app = session.app()
    page = app.records().find(
        dataset,
        where=_pairs(where, "--where"),
        text=text,
        since=since,
        until=until,
        date_field=date_field,
        limit=limit,
        after=after,
    )
    shown = [{"key": one.key, "area": one.area, "record": one.record} for one in page.records]
    declared = app.trust.dataset(dataset)
    codes = [field.code for field in declared.fields] if declared is not None else []
    if as_csv:
        lines = [_csv_text(shown, codes)]
    else:
        columns = codes[:6]
        rows = [(one["key"], *(one["record"].get(code, "") for code in columns)) for one in shown]
        lines = table(rows, [session.words("head.key"), *columns]) if rows else [session.words("find.none")]
        if page.next is not None:
            lines.append(session.words("find.more", after=page.next))
    session.done({"records": shown, "next": page.next}, lines)


def _csv_text(rows: list[dict[str, Any]], codes: list[str]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["key", "area", *codes])
    for one in rows:
        writer.writerow([one["key"], one["area"], *(one["record"].get(code, "") for code in codes)])
    return out.getvalue().rstrip("\n")


@command("help.conflicts")
@click.argument("dataset", required=False)
@option("--limit", default=100, show_default=True, words="option.limit", type=click.IntRange(1, 10_000))
def conflicts(session: Session, dataset: str | None, limit: int) -> None:
    """Concurrent changes that lost."""
    found = [msgspec.to_builtins(one) for one in session.app().records().conflicts(dataset or "", limit=limit)]
    rows = [(one["dataset"], one["area"], one["key"], one["origin"], one["op"]) for one in found]
    heads = [session.words(f"head.{key}") for key in ("dataset", "area", "key", "id", "what")]
    session.done({"conflicts": found}, table(rows, heads) if rows else [session.words("conflicts.none")])


@command("help.digest")
@click.argument("dataset", required=False)
@option("--area", words="option.area", metavar="CODE", default="")
def digest(session: Session, dataset: str | None, area: str) -> None:
    """A digest over the records: the same wherever the same records are."""
    found = session.app().records().digest(dataset or "", area=area)
    session.done(
        {"records": found.records, "digest": found.digest},
        [session.words("digest.done", records=found.records, digest=found.digest)],
    )
