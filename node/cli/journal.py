"""audit log: what was done at this node and those below it."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import msgspec
import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.events import PAGE_DEFAULT, PAGE_MAX, Event, Events, Filter, time_of
from fednode.node.events_csv import COLUMNS, cells, details_text
from fednode.node.files import Draft
from fednode.node.journal import DONE, FAILED, REFUSED
from fednode.node.messages import catalogue, safe
from fednode.sync.errors import Refused

# ---------------------------------------------------------------- the audit


@command("help.audit_log", "audit.log")
@option("--since", words="option.since_time", metavar="TIME", default="")
@option("--until", words="option.until_time", metavar="TIME", default="")
@option("--node", words="option.of_node", metavar="CODE", default="")
@option("--who", words="option.who", metavar="NAME", default="")
@option("--action", words="option.action", default="")
@option("--outcome", words="option.outcome", type=click.Choice((DONE, REFUSED, FAILED)))
@option("--limit", words="option.limit", type=click.IntRange(1, PAGE_MAX))
@option("--after", words="option.after", default="")
@option("--csv", "as_csv", is_flag=True, words="option.csv")
@option("--jsonl", "as_jsonl", is_flag=True, words="option.jsonl")
@option("-o", "--out", words="option.out_new", metavar="FILE")
def log(
    session: Session,
    since: str,
    until: str,
    node: str,
    who: str,
    action: str,
    outcome: str | None,
    limit: int | None,
    after: str,
    as_csv: bool,
    as_jsonl: bool,
    out: str | None,
) -> None:
    """Events, the newest first; exports have all of them."""
    if as_csv and as_jsonl:
        raise Refused("FN-2706", name="--csv", reason="--jsonl", command="fednode audit log")
    wanted = Filter(_time("--since", since, 0), _time("--until", until, None), node, who, action, outcome or "")
    app = session.app()
    events = Events(app.new_projector())
    cursor = ""
    export = as_csv or as_jsonl or out is not None
    if export and limit is None:
        found: Iterable[Event] = events.all(wanted, after)
    else:
        found, cursor = events.page(wanted, limit or PAGE_DEFAULT, after)
    if export:
        form = _csv if as_csv or (not as_jsonl and str(out).endswith(".csv")) else _jsonl
        with _new_file(out) as file:
            count = sum(1 for _ in form(found, file))
            shown = [] if out else [file.getvalue().rstrip("\n")]  # type: ignore[attr-defined]
        data: dict[str, Any] = {"out": out, "count": count, "next": cursor}
    else:
        rows = list(found)
        count = len(rows)
        shown = _lines(session, rows, cursor)
        data = {"events": [dataclasses.asdict(one) for one in rows], "next": cursor}
    app.journal().note("audit.log", filters=", ".join(wanted.names), count=count, exported=export)
    if out:
        session.note("audit.exported", count=count, path=out)
    session.done(data, shown)


def _time(name: str, text: str, default: int | None) -> int:
    """A time of the command line. Raises Refused FN-2001."""
    if not text:
        return Filter().until_ms if default is None else default
    found = time_of(text, end=default is None)
    if found is None:
        raise Refused("FN-2001", option=name, value=text)
    return found


def local_time(ms: int) -> str:
    """A moment in this machine's zone."""
    return datetime.fromtimestamp(ms / 1000, UTC).astimezone().isoformat(" ", "seconds")


def _worded(session: Session, kind: str, name: str) -> str:
    """An action or an outcome in words; one of a newer program as it stands."""
    key = f"{kind}.{name}"
    return session.words(key) if key in catalogue() else safe(name)


def _lines(session: Session, found: Sequence[Event], cursor: str) -> list[str]:
    if not found:
        return [session.words("audit.none")]
    rows = [
        (
            local_time(one.at_ms),
            one.node,
            safe(one.who),
            _worded(session, "action", one.action),
            " ".join(part for part in (_worded(session, "outcome", one.outcome), one.code) if part),
            safe(details_text(one.details)) + (session.words("audit.altered") if one.altered else ""),
        )
        for one in found
    ]
    heads = [session.words(f"head.{key}") for key in ("time", "node", "who", "what", "outcome", "details")]
    return [*table(rows, heads), *([session.words("find.more", after=cursor)] if cursor else [])]


def _csv(found: Iterable[Event], file: TextIO) -> Iterator[Event]:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in found:
        writer.writerow(cells(one))
        yield one


def _jsonl(found: Iterable[Event], file: TextIO) -> Iterator[Event]:
    for one in found:
        file.write(msgspec.json.encode(dataclasses.asdict(one)).decode() + "\n")
        yield one


@contextmanager
def _new_file(path: str | None) -> Iterator[TextIO]:
    """A file that was not there before and that only its owner may read, gone again when something fails; or memory."""
    if path is None:
        yield io.StringIO()
        return
    encoding = "utf-8-sig" if path.endswith(".csv") else "utf-8"  # spreadsheets go by the mark
    draft = Draft(Path(path), 0o600, exclusive=True)
    try:
        file = io.TextIOWrapper(draft.file, encoding=encoding, newline="", write_through=True)
        yield file
        file.flush()
        draft.commit()
    except BaseException:
        draft.discard()
        raise
