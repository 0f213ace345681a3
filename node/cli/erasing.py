"""erase, compact: what must be forgotten, who has confirmed that it is; what nobody needs any more."""

from __future__ import annotations

import dataclasses
from typing import Any

import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.units import human_bytes
from fednode.sync.errors import Refused


@command("help.erase", "erase")
@click.argument("dataset", required=False)
@click.argument("key", required=False)
@option("--reason", words="option.erase_reason", default="")
@option("--area", words="option.area", metavar="CODE")
@option("--version", "number", words="option.erase_version", metavar="N", type=click.IntRange(1))
@option("--status", is_flag=True, words="option.erase_status")
@option("--dry-run", is_flag=True, words="option.dry_run")
@option("--yes", is_flag=True, words="option.yes")
def erase(
    session: Session,
    dataset: str | None,
    key: str | None,
    reason: str,
    area: str | None,
    number: int | None,
    status: bool,
    dry_run: bool,
    yes: bool,
) -> None:
    """Erase a record, or one version of it; with --status: who has confirmed."""
    if status:
        _status(session, dataset or "")
        return
    if not dataset or not key:
        raise Refused("FN-2722")
    from fednode.node import erasing

    app = session.app()
    session.about.update(dataset=dataset, dry_run=dry_run)
    records = app.records()
    planned = erasing.erase(records, dataset, key, reason, area=area, number=number, dry_run=True)
    done = planned
    if not dry_run:
        session.note("erase.about_to", count=len(planned.places), dataset=dataset, area=planned.area)
        session.confirm(app.trust.node, yes)
        done = erasing.erase(records, dataset, key, reason, area=planned.area, number=number)
        app.poke()
    lines = [session.words("erase.dry_run" if dry_run else "erase.done", count=len(done.places))]
    lines += [f"  {one.log}#{one.seq}" for one in done.places]
    if not dry_run:
        lines.append(session.words("erase.next", erase=done.places[0].erase))
    session.done({**dataclasses.asdict(done), "dry_run": dry_run}, lines)


def _status(session: Session, wanted: str) -> None:
    from fednode.crypto.certs import iso
    from fednode.node import erasures
    from fednode.node.follower import follow

    app = session.app()
    projector = app.new_projector(app.store)
    follow(projector)
    found = erasures.own_erasures(app.store, app.trust, erasures.receipts(projector), wanted)
    projector.close()
    shown: list[dict[str, Any]] = []
    lines: list[str] = []
    for one in found:
        waiting = one.waiting
        shown.append({**dataclasses.asdict(one), "confirmed": len(one.holders) - len(waiting), "waiting": len(waiting)})
        lines.append(
            session.words(
                "erase.status",
                erase=one.erase,
                at=iso(one.at_ms // 1000),
                confirmed=len(one.holders) - len(waiting),
                count=len(one.holders),
            )
        )
        rows = [
            (
                holder.node,
                holder.name,
                session.level(holder.level),
                session.words(_state(holder)),
                iso(holder.confirmed_ms // 1000) if holder.confirmed_ms else "",
            )
            for holder in (one.holders if wanted else waiting)
        ]
        heads = [session.words(f"head.{key}") for key in ("id", "name", "level", "state", "time")]
        lines += [f"  {line}" for line in table(rows, heads)] if rows else []
    session.done({"erases": shown}, lines or [session.words("erase.none")])


def _state(holder: Any) -> str:
    if holder.confirmed_ms is not None:
        return "erase.confirmed"
    return "nodes.revoked" if holder.revoked else "erase.waiting"


@command("help.compact", "compact")
@option("--older-than", "days", words="option.older_than", default=30, show_default=True, type=click.IntRange(0))
@option("--dry-run", is_flag=True, words="option.dry_run")
def compact(session: Session, days: int, dry_run: bool) -> None:
    """Strip superseded versions, and write the files anew."""
    from fednode.node import retention

    app = session.app()
    session.about.update(days=days, dry_run=dry_run)
    before = _bytes(app)
    report = retention.compact_all(app.records(), app.now_ms(), days, dry_run=dry_run)
    after = _bytes(app)
    numbers = {"versions": report.versions, "segments": report.segments, "bytes_before": before, "bytes_after": after}
    key = "compact.dry_run" if dry_run else "compact.done"
    shown = {**numbers, "bytes_before": human_bytes(before), "bytes_after": human_bytes(after)}
    session.done({**numbers, "dry_run": dry_run}, [session.words(key, **shown)])


def _bytes(app: Any) -> int:
    return sum(path.stat().st_size for path in (app.home.log_db, app.home.state_db) if path.exists())
