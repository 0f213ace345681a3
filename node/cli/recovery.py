"""recover: a node whose store is lost, damaged, rolled back or cloned takes its own history back from its parent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from fednode.node.cli.frame import Session, command, option
from fednode.node.units import human_bytes

SHOWN_MAX = 20


@command("help.recover", "recover")
@option("--yes", is_flag=True, words="option.yes")
@option("--dry-run", is_flag=True, words="option.dry_run")
@option("--root-key", words="option.root_key", metavar="FILE")
def recover(session: Session, yes: bool, dry_run: bool, root_key: str | None) -> None:
    """Take this node's history back and go on in a new incarnation."""
    from fednode.node.recovery import Recovery

    config, _ = session.config()
    session.logs(config)
    recovery = Recovery(session.home, config, operator=session.operator)
    plan = recovery.plan()
    shown: dict[str, Any] = dataclasses.asdict(plan)
    if dry_run:
        session.done({"dry_run": True, "plan": shown}, _plan_lines(session, shown))
        return
    for line in _plan_lines(session, shown) if not (session.as_json or session.quiet) else ():
        session.say(line)
    session.confirm(plan.node, yes)
    with recovery.home.lock():
        result = recovery.run(recovery.home.read_root_key(Path(root_key), config.passphrase) if root_key else None)
    found: dict[str, Any] = dataclasses.asdict(result)
    found["refused"] = [{"by": by, "code": code} for by, code in result.refused]
    found["salvaged"]["skipped"] = [{"log": log, "code": code} for log, code in result.salvaged.skipped]
    lossless = not result.refused and not result.salvaged.skipped and not result.salvaged.unreadable
    session.done({"dry_run": False, "recovered": found}, _result_lines(session, result), 0 if lossless else 3)


def _plan_lines(session: Session, plan: dict[str, Any]) -> list[str]:
    words = session.words
    which = "recover.plan" if plan["parent"] else "recover.plan_own"
    lines = [words(which, node=plan["node"], parent=plan["parent"], life=plan["life"])]
    if plan["restored"]:
        return [*lines, words("recover.restored", number=plan["restored"])]
    if plan["begun"]:
        lines.append(words("recover.begun"))
    if not plan["parent"]:
        return lines
    lines.append(words("recover.fenced", code=plan["code"]) if plan["code"] else words("recover.not_fenced"))
    if plan["lsn"] is None:
        lines.append(words("recover.no_store"))
    else:
        lines.append(words("recover.store", lsn=plan["lsn"], unsent=plan["unsent"]))
    return lines


def _result_lines(session: Session, result: Any) -> list[str]:
    words, done = session.words, result.salvaged
    if not result.parent:
        return [words("recover.done_own", node=result.node, incarnation=result.incarnation), words("recover.next_own")]
    lines = [
        words(
            "recover.done",
            node=result.node,
            incarnation=result.incarnation,
            taken=result.taken,
            size=human_bytes(result.bytes_received),
            parent=result.parent,
        )
    ]
    if result.aside:
        lines.append(words("recover.aside", path=result.aside))
    if done.appended or done.below:
        lines.append(words("recover.salvaged", appended=done.appended, below=done.below))
    lines += [f"  {one.dataset}  {one.area}  {one.key}" for one in done.again[:SHOWN_MAX]]
    if done.appended > SHOWN_MAX:
        lines.append(words("recover.more", count=done.appended - SHOWN_MAX))
    if done.damaged or not done.whole:
        lines.append(words("recover.damaged", count=done.damaged))
    if done.unreadable:
        lines.append(words("recover.unreadable", count=done.unreadable))
    lines += [words("recover.skipped", log=log, code=code) for log, code in done.skipped[:SHOWN_MAX]]
    lines += [words("sync.refused", by=by, code=code) for by, code in result.refused[:SHOWN_MAX]]
    return lines
