"""backup, restore: copies of this node that a recovery key opens, and a node out of one of them."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node import files
from fednode.node.cli.frame import Group, Session, command, option, table
from fednode.node.messages import error_text
from fednode.node.timetable import on_the_wall
from fednode.node.units import human_bytes
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.backup.checking import Checked
    from fednode.node.backup.keyfile import RecoveryKey
    from fednode.node.backup.restoring import Chosen

SHOWN_MAX = 20


@click.group(cls=Group, help="help.backup", invoke_without_command=True, action="backup")
@option("--to", "target", default="", words="option.backup_to", metavar="PLACE")
@option("--anew", is_flag=True, words="option.backup_anew")
@click.pass_context
def backup(context: click.Context, target: str, anew: bool) -> None:
    """Back this node up, now."""
    from fednode.node.backup.acting import back_up
    from fednode.node.jobs import turn_by_hand

    session: Session = context.obj
    if context.invoked_subcommand is not None:
        if target or anew:
            raise Refused("FN-2745")
        return
    session.command, session.action = "backup", "backup"
    app = session.app()
    made = turn_by_hand(app, "backup", time.monotonic, lambda: back_up(app, target, anew=anew))
    lines = [
        session.words(
            "backup.done", number=made.number, lsn=made.lsn, place=made.place, size=human_bytes(made.bytes),
            total=human_bytes(made.total_bytes),
        ),
        session.words("backup.fingerprint", fingerprint=made.fingerprint),
        session.words("backup.kept", kept=made.kept, removed=made.removed),
    ]  # fmt: skip
    session.done({"backup": dataclasses.asdict(made)}, lines)


@command("help.backup_key", "backup.key")
@option("--out", "-o", "out", required=True, words="option.backup_key_out", metavar="FILE")
@option("--passphrase-file", words="option.recovery_passphrase", metavar="FILE")
def key(session: Session, out: str, passphrase_file: str | None) -> None:
    """Make a recovery key."""
    from fednode.crypto.keys import SealKey
    from fednode.node.backup.keyfile import RecoveryKey

    app = session.app()
    made = RecoveryKey(SealKey.generate(app.rng), app.trust.domain, app.trust.root_sha256)
    data = made.to_file(passphrase(session, passphrase_file))
    files.write(Path(out), data, 0o600, exclusive=True)
    app.journal().note("backup.key", key=made.text)
    lines = [session.words("backup.key_made", path=out), "", "[backup]", f'key = "{made.text}"']
    session.done({"key": made.text, "file": out}, lines)


def passphrase(session: Session, path: str | None) -> bytes | None:
    """The recovery key's passphrase: from a file, or FEDNODE_RECOVERY_PASSPHRASE_FILE; None where there is none."""
    named = path or session.environ.get("FEDNODE_RECOVERY_PASSPHRASE_FILE")
    if not named:
        return None
    try:
        found = Path(named).expanduser().read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise Refused("FN-3300", path=named, reason=error.strerror or str(error)) from error
    if not found:
        raise Refused("FN-3300", path=named, reason="empty")
    return found


def read_key(session: Session, path: str, passphrase_file: str | None) -> RecoveryKey:
    """The recovery key out of its file."""
    from fednode.node.backup.keyfile import read

    return read(Path(path).expanduser(), passphrase(session, passphrase_file))


# ---------------------------------------------------------------- looking


@command("help.backup_list")
@click.argument("place", required=False, default="")
@option("--key", "key_file", words="option.recovery_key", metavar="FILE")
@option("--passphrase-file", words="option.recovery_passphrase", metavar="FILE")
def list_(session: Session, place: str, key_file: str | None, passphrase_file: str | None) -> None:
    """The backups in a place."""
    where, root, _ = _place(session, place, key_file, passphrase_file)
    found = _listed(where, root)
    heads = [session.words(f"head.{one}") for one in ("id", "store", "number", "made", "lsn", "size", "fingerprint")]
    rows = [
        (
            one["node"],
            one["store"][:8],
            one["number"],
            on_the_wall(one["made_ms"], "") if one["made_ms"] else one["code"],
            one["lsn"],
            "-" if one["bytes"] is None else human_bytes(one["bytes"]),
            one["fingerprint"],
        )
        for one in found
    ]
    lines = table(rows, heads) if rows else [session.words("backup.none", place=where.shown)]
    session.done({"place": where.shown, "backups": found}, lines)


def _place(session: Session, place: str, key_file: str | None, passphrase_file: str | None) -> Any:
    """The place, the root to believe, and the recovery key, if one is given: with it no node is needed here."""
    from fednode.node.backup.acting import place_named
    from fednode.node.backup.places import place_of

    if key_file:
        recovery = read_key(session, key_file, passphrase_file)
        config, _ = session.config()
        return place_of(place or config.backup_to, config), recovery.root_sha256, recovery
    app = session.app()
    return place_named(app, place), app.trust.root_sha256, None


def _listed(place: Any, root: bytes) -> list[dict[str, Any]]:
    from fednode.crypto.errors import IntegrityError
    from fednode.node.backup.series import all_series

    found = []
    for series, _ in all_series(place, root):
        _, node, store = series.folder.split("/")
        for number in reversed(series.numbers()):
            one: dict[str, Any] = {"node": node, "store": store, "number": number}
            try:
                backup = series.backup(number)
                size = sum(entry.size for entry in series.index(backup.manifest))
                made = backup.manifest
                one |= {"made_ms": made.made_ms, "lsn": made.lsn, "incarnation": made.incarnation, "bytes": size}
                one |= {"fingerprint": backup.fingerprint, "key_id": made.key_id.hex(), "code": None}
            except IntegrityError as error:
                one |= {"made_ms": None, "lsn": None, "incarnation": None, "bytes": None}
                one |= {"fingerprint": "", "key_id": None, "code": error.code}
            found.append(one)
    return found


@command("help.backup_verify", "backup.verify")
@click.argument("place", required=False, default="")
@option("--key", "key_file", words="option.recovery_key", metavar="FILE")
@option("--passphrase-file", words="option.recovery_passphrase", metavar="FILE")
@option("--node", default="", words="option.backup_node", metavar="NODE")
def verify(session: Session, place: str, key_file: str | None, passphrase_file: str | None, node: str) -> None:
    """Whether the backups in a place hold."""
    from fednode.node.backup.checking import check
    from fednode.node.backup.making import remembered
    from fednode.node.backup.series import Series, all_series, folder_of, only_node

    where, root, recovery = _place(session, place, key_file, passphrase_file)
    app, last = session.opened, None
    if app is not None and node in ("", app.trust.node):
        last = remembered(app.store, where)
        series = Series(where, folder_of(app.trust.domain, app.trust.node, app.store.store_id), root)
    else:
        series, _ = only_node(all_series(where, root, node), where, node)
    checked = check(series, recovery.key.private if recovery else None, last)
    if not checked.numbers and last is None:
        raise Refused("FN-3361", place=where.shown, node=checked.node)
    if app is not None:
        told = {"place": where.shown, "backups": len(checked.numbers), "problems": len(checked.problems)}
        app.journal().note("backup.verify", **told)
    problems = [{"number": one.number, "file": one.file, "code": one.code} for one in checked.problems]
    shown = {**dataclasses.asdict(dataclasses.replace(checked, problems=[])), "problems": problems}
    session.done({"verified": shown}, _checked_lines(session, checked), 6 if checked.problems else 0)


def _checked_lines(session: Session, checked: Checked) -> list[str]:
    words = session.words
    counts = {"backups": len(checked.numbers), "objects": checked.objects, "size": human_bytes(checked.bytes)}
    lines = [words("backup.checked", node=checked.node, place=checked.place, **counts)]
    lines.append(words("backup.opened", count=checked.opened) if checked.opened else words("backup.not_opened"))
    for one in checked.problems[:SHOWN_MAX]:
        lines.append(f"  {one.number}  {one.file}  {one.code}  {error_text(one.error, session.lang)[0]}")
    if len(checked.problems) > SHOWN_MAX:
        lines.append(words("recover.more", count=len(checked.problems) - SHOWN_MAX))
    lines.append(words("backup.broken") if checked.problems else words("backup.sound"))
    return lines


backup.add_command(key, "key")
backup.add_command(list_, "list")
backup.add_command(verify, "verify")


# ---------------------------------------------------------------- restore


@command("help.restore", "restore")
@click.argument("place")
@option("--key", "key_file", required=True, words="option.recovery_key", metavar="FILE")
@option("--passphrase-file", words="option.recovery_passphrase", metavar="FILE")
@option("--node", default="", words="option.backup_node", metavar="NODE")
@option("--number", type=click.IntRange(1), words="option.backup_number")
@option("--at-least", type=click.IntRange(1), words="option.backup_at_least")
@option("--lsn", type=click.IntRange(1), words="option.backup_lsn")
@option("--root-key", words="option.root_key", metavar="FILE")
@option("--yes", is_flag=True, words="option.yes")
@option("--dry-run", is_flag=True, words="option.dry_run")
def restore(
    session: Session,
    place: str,
    key_file: str,
    passphrase_file: str | None,
    node: str,
    number: int | None,
    at_least: int | None,
    lsn: int | None,
    root_key: str | None,
    yes: bool,
    dry_run: bool,
) -> None:
    """Put a backup back and go on from it in a new incarnation."""
    from fednode.node.app import random_bytes, real_clock
    from fednode.node.backup.places import place_of
    from fednode.node.backup.restoring import Restoring, choose
    from fednode.node.backup.series import all_series, only_node
    from fednode.node.home import Home
    from fednode.node.recovery import Recovery

    config, _ = session.config()
    session.logs(config)
    Home.check_free(session.home)
    recovery = read_key(session, key_file, passphrase_file)
    where = place_of(place, config)
    series, newest = only_node(all_series(where, recovery.root_sha256, node, strict=True), where, node)
    chosen = choose(series, newest, recovery, number, lsn)
    made = chosen.backup.manifest
    if at_least is not None and made.number < at_least:
        raise Refused("FN-5332", number=made.number, wanted=at_least)
    plan = _plan(chosen)
    if dry_run:
        session.done({"dry_run": True, "plan": plan}, _plan_lines(session, plan))
        return
    for line in _plan_lines(session, plan) if not (session.as_json or session.quiet) else ():
        session.say(line)
    session.confirm(made.node, yes)
    Restoring(session.home, config, chosen, recovery, clock=real_clock, rng=random_bytes).run()
    going_on = Recovery(session.home, session.config()[0], operator=session.operator)
    with going_on.home.lock():
        key = going_on.home.read_root_key(Path(root_key), config.passphrase) if root_key else None
        result = going_on.run(key)
    shown = dataclasses.asdict(result)
    shown["refused"] = [{"by": by, "code": code} for by, code in result.refused]
    session.done({"dry_run": False, "restored": shown}, _result_lines(session, result), 3 if result.refused else 0)


def _plan(chosen: Chosen) -> dict[str, Any]:
    made = chosen.backup.manifest
    return {
        "place": chosen.series.place.shown,
        "node": made.node,
        "incarnation": made.incarnation,
        "store": made.store.hex(),
        "number": made.number,
        "newest": chosen.series.numbers()[-1],
        "made_ms": made.made_ms,
        "lsn": made.lsn if chosen.upto is None else chosen.upto,
        "bytes": sum(one.size for one in chosen.entries),
        "fingerprint": chosen.backup.fingerprint,
    }


def _plan_lines(session: Session, plan: dict[str, Any]) -> list[str]:
    words = session.words
    size, made = human_bytes(plan["bytes"]), on_the_wall(plan["made_ms"], "")
    lines = [
        words("restore.plan", node=plan["node"], number=plan["number"], made=made, size=size, place=plan["place"]),
        words("backup.fingerprint", fingerprint=plan["fingerprint"]),
        words("restore.upto", lsn=plan["lsn"]),
    ]
    if plan["newest"] != plan["number"]:
        lines.append(words("restore.not_newest", newest=plan["newest"]))
    return lines


def _result_lines(session: Session, result: Any) -> list[str]:
    words = session.words
    lines = [words("restore.done", node=result.node, incarnation=result.incarnation, number=result.number)]
    if result.parent:
        size = human_bytes(result.bytes_received)
        lines.append(words("restore.taken", taken=result.taken, size=size, parent=result.parent))
    if result.salvaged.appended:
        lines.append(words("restore.again", count=result.salvaged.appended))
    if result.newer:
        lines.append(words("restore.newer", newer=result.newer, number=result.number))
    lines += [words("sync.refused", by=by, code=code) for by, code in result.refused[:SHOWN_MAX]]
    lines.append(words("restore.next"))
    return lines
