"""bundle: exchanges by stick; and the commands' parts that join by stick (`join --request`, `--grant`, `invite
--answer`)."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.crypto.errors import FednodeError
from fednode.node.cli.frame import Group, Session, command, option, plain
from fednode.node.messages import error_text
from fednode.node.units import human_bytes
from fednode.sync.errors import Refused
from fednode.sync.wire import NUMBER_MAX

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.bundle_look import Look
    from fednode.node.bundle_out import Exported
    from fednode.node.bundles import Imported, Report
    from fednode.sync.enrol import Token

_SIZE = re.compile(r"([0-9]{1,15})([KMG]?)i?B?", re.IGNORECASE)
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}


def size_of(text: str) -> int:
    """A size such as 32M, in bytes. Raises Refused FN-2732."""
    found = _SIZE.fullmatch(text.strip())
    if found is None:
        raise Refused("FN-2732", value=text)
    return int(found[1]) * _UNITS[found[2].upper()]


@click.group(cls=Group, help="help.bundle")
def bundle() -> None:
    """Exchange by stick."""


# ---------------------------------------------------------------- export


@command("help.bundle_export", "bundle.export")
@option("--to", required=True, words="option.to", metavar="NODE")
@option("-o", "--output", required=True, words="option.stick", metavar="PATH")
@option("--volume-size", default="32M", show_default=True, words="option.volume_size", metavar="32M")
@option("--from", "since", type=click.IntRange(0, NUMBER_MAX), words="option.from", metavar="N")
@option("--dry-run", is_flag=True, words="option.dry_run")
def export(session: Session, to: str, output: str, volume_size: str, since: int | None, dry_run: bool) -> None:
    """Write what a peer is owed."""
    from fednode.node import bundle_out

    app, size = session.app(), size_of(volume_size)
    found = bundle_out.export(app, to, Path(output), volume_bytes=size, since=since, dry_run=dry_run)
    session.done({"bundle": _exported(found), "dry_run": dry_run}, _export_lines(session, found, dry_run))


def _exported(found: Exported) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "files": list(found.files)}


def _export_lines(session: Session, found: Exported, dry_run: bool = False) -> list[str]:
    told = {"to": found.recipient, "segments": found.segments, "acks": found.acks, "size": human_bytes(found.bytes)}
    if dry_run:
        return [session.words("bundle.would", **told)]
    lines = [session.words("bundle.exported", **told, after=found.after, upto=found.upto)]
    lines += [f"  {file}" for file in found.files]
    lines.append(session.words("bundle.fingerprint", fingerprint=found.fingerprint))
    return [*lines, *([session.words("bundle.left_out", count=found.damaged)] if found.damaged else [])]


# ---------------------------------------------------------------- import


@command("help.bundle_import", "bundle.import")
@click.argument("paths", nargs=-1, required=True)
@option("--dry-run", is_flag=True, words="option.dry_run")
@option("--no-reply", is_flag=True, words="option.no_reply")
def import_(session: Session, paths: tuple[str, ...], dry_run: bool, no_reply: bool) -> None:
    """Take in what is for this node, and write the answer back."""
    from fednode.node import bundles

    app = session.app()
    report = bundles.take_in(app, [Path(one) for one in paths], dry_run=dry_run, answer=not no_reply)
    _imported(session, report, {"dry_run": dry_run}, [], dry_run=dry_run)


def _imported(
    session: Session, report: Report, more: dict[str, Any], before: Sequence[str], *, dry_run: bool = False
) -> None:
    errors = [one.error for one in report.bundles if one.error is not None]
    if len(errors) == len(report.bundles) == 1 and not report.joined and not before:
        session.action = ""  # the audit has it
        raise errors[0]
    lines = list(before)
    for one in report.bundles:
        lines += _import_lines(session, one, dry_run)
    for joined in report.joined:
        lines.append(session.words("bundle.joined", node=joined.recipient, fingerprint=joined.fingerprint))
    for node, fingerprint, told in report.asking:
        why = error_text(FednodeError(told), session.lang)[0] if told else ""
        key = "bundle.asking_refused" if told else "bundle.asking"
        lines.append(session.words(key, node=node, fingerprint=fingerprint, code=told, why=why))
    lines += [session.words("bundle.other", sender=a, recipient=b) for a, b in report.others]
    lines += [session.words("bundle.broken", path=path) for path in report.broken]
    refused = any(one.refusals for one in report.bundles) or any(told for _, _, told in report.asking)
    code = errors[0].exit_code if errors else 5 if refused else 0
    document: dict[str, Any] = {
        "bundles": [_import_document(session, one) for one in report.bundles],
        "joined": [_exported(one) for one in report.joined],
        "asking": [{"node": node, "fingerprint": f, "code": c} for node, f, c in report.asking],
        "others": [{"from": a, "to": b} for a, b in report.others],
        "broken": report.broken,
        "applied": report.applied,
    }
    session.done({**more, **document}, lines, code)


def _import_document(session: Session, one: Imported) -> dict[str, Any]:
    names = (
        "sender",
        "id",
        "made_ms",
        "fingerprint",
        "bytes",
        "after",
        "upto",
        "segments",
        "held",
        "acked",
        "refusals",
    )
    return {
        **{name: getattr(one, name) for name in names},
        "refused": [{"by": by, "code": code} for by, code in one.refused],
        "error": _error(session, one.error),
        "answer": _exported(one.answer) if one.answer else None,
        "unanswered": _error(session, one.unanswered),
    }


def _error(session: Session, error: FednodeError | None) -> dict[str, Any] | None:
    if error is None:
        return None
    message, hint = error_text(error, session.lang)
    params = {name: plain(value) for name, value in error.params.items()}
    return {"code": error.code, "exit": error.exit_code, "message": message, "hint": hint, "params": params}


def _import_lines(session: Session, one: Imported, dry_run: bool) -> list[str]:
    words = session.words
    if one.error is not None:
        message, hint = error_text(one.error, session.lang)
        return [f"{one.error.code}: {message}", *([f"  {hint}"] if hint else [])]
    counts = {"segments": one.segments, "held": one.held, "acked": one.acked}
    lines = [words("bundle.would_import" if dry_run else "bundle.imported", sender=one.sender, **counts)]
    lines.append(words("bundle.fingerprint", fingerprint=one.fingerprint))
    for (by, code), count in Counter(one.refused).most_common():
        lines.append(words("sync.refused", by=by, code=code) + (f" ({count})" if count > 1 else ""))
    if one.answer is not None:
        lines.append(words("bundle.answered", to=one.sender, size=human_bytes(one.answer.bytes)))
    if one.unanswered is not None:
        lines.append(words("bundle.unanswered", why=error_text(one.unanswered, session.lang)[0]))
    return lines


# ---------------------------------------------------------------- inspect


@command("help.bundle_inspect")
@click.argument("paths", nargs=-1, required=True)
def inspect(session: Session, paths: tuple[str, ...]) -> None:
    """What can be seen of bundles, before anything is believed."""
    from fednode.node import stick
    from fednode.node.bundle_look import look
    from fednode.node.home import Home

    found = stick.scan([Path(one) for one in paths])
    app = session.app() if Home.exists(session.home) else None
    if app is not None:
        app.trust.refresh(app.store)
    shown, lines = [], []
    for one in look(found.parts, app.trust.directory if app is not None else None):
        document = _look(app, one)
        shown.append(document)
        lines += _look_lines(session, document)
    for path in found.requests:
        document = _request(path)
        shown.append(document)
        lines.append(session.words("bundle.request", node=document["node"], fingerprint=document["fingerprint"]))
    lines += [session.words("bundle.broken", path=path) for path, _ in found.broken]
    if not shown and not found.broken:
        lines.append(session.words("bundle.none", path=", ".join(paths)))
    session.done({"bundles": shown, "broken": [str(path) for path, _ in found.broken]}, lines)


def _look(app: App | None, one: Look) -> dict[str, Any]:
    from fednode.node.bundle_look import contents

    header = one.header
    document: dict[str, Any] = {
        "kind": "bundle",
        "domain": header.domain,
        "from": header.sender,
        "to": header.recipient,
        "id": header.id.hex(),
        "made_ms": header.made_ms,
        "volumes": sorted(one.parts),
        "of": len(one.manifest.volumes) if one.manifest else None,
        "missing": one.missing,
        "damaged": one.damaged,
        "bytes": one.bytes,
        "fingerprint": one.fingerprint,
        "signature": one.signed,
        "contents": contents(app, one) if app is not None else None,
    }
    return document


def _look_lines(session: Session, found: dict[str, Any]) -> list[str]:
    from fednode.crypto.certs import iso

    words = session.words
    whole = found["of"] is not None and not found["missing"] and not found["damaged"]
    state = words("bundle.whole" if whole else "bundle.not_whole")
    told = {"sender": found["from"], "recipient": found["to"], "domain": found["domain"]}
    made, size = iso(found["made_ms"] // 1000), human_bytes(found["bytes"])
    lines = [words("bundle.shown", **told, made=made, size=size, volumes=len(found["volumes"]), state=state)]
    if found["fingerprint"]:
        lines.append(words("bundle.fingerprint", fingerprint=found["fingerprint"]))
    if found["signature"] is not None:
        lines.append(words("bundle.signed" if found["signature"] else "bundle.unsigned", sender=found["from"]))
    if found["contents"]:
        lines.append(words("bundle.contents", **found["contents"]))
    return lines


def _request(path: Path) -> dict[str, Any]:
    from fednode.crypto import issuing
    from fednode.crypto.suite import SUITE_1
    from fednode.node import stick
    from fednode.sync import bundle as bun
    from fednode.sync import volume as vol

    der, proof = bun.parse_request(stick.read_small(path, bun.REQUEST_BYTES_MAX))
    node, fingerprint = issuing.parse_request(der).node, vol.digits(SUITE_1.hash(der))
    return {"kind": "request", "node": node, "fingerprint": fingerprint, "token": bool(proof)}


bundle.add_command(export, "export")
bundle.add_command(import_, "import")
bundle.add_command(inspect, "inspect")


# ---------------------------------------------------------------- joining


def asked(session: Session, node: str, token: Token | None, output: str) -> None:
    """`join --request`."""
    from fednode.node import joining
    from fednode.node.app import random_bytes

    session.action = ""  # there is no audit yet
    found = joining.ask(session.home, session.config()[0], node, token, Path(output), random_bytes)
    lines = [
        session.words("join.asked", node=found.node, file=found.file),
        session.words("bundle.fingerprint", fingerprint=found.fingerprint),
        session.words("join.asked_next" if found.token else "join.asked_next_no_token", home=session.home),
    ]
    session.done({"request": dataclasses.asdict(found)}, lines)


def granted(session: Session, grant: str, root: str) -> None:
    """`join --grant`."""
    from fednode.node import joining
    from fednode.node.app import random_bytes, real_clock
    from fednode.node.status import identity

    more: dict[str, Any] = {"rng": random_bytes, "clock": real_clock, "operator": session.operator}
    app, report = joining.finish(session.home, session.config()[0], [Path(grant)], root, **more)
    parent, me = app.trust.parent, identity(app.trust.me)
    told = {"level": session.level(me["level"]), **{key: me[key] for key in ("id", "name", "domain")}}
    line = session.words("join.done", home=app.home.path, parent=parent.name if parent else "", **told)
    document = {"node": me, "home": str(app.home.path), "parent": parent.node if parent else None}
    _imported(session, report, document, [line])
    app.close()


def answered(
    session: Session,
    app: App,
    answer: str,
    fingerprint: str,
    node: str,
    level: str,
    name: str,
    scope: tuple[str, ...],
    ttl_s: int,
) -> None:
    """`invite --answer`."""
    from fednode.node import joining

    found = joining.invite_and_answer(app, Path(answer), fingerprint, node, level, name, scope, ttl_s)
    root = joining.root_fingerprint(app.trust.root_sha256)
    lines = [session.words("invite.answered", node=node, name=name), *_export_lines(session, found)]
    lines.append(session.words("invite.root", fingerprint=root, node=node))
    session.done({"node": node, "bundle": _exported(found), "root_fingerprint": root}, lines)
