"""alerts: what somebody must look into, at this node and below; who sees to it, and what is kept quiet until when."""

from __future__ import annotations

from typing import Any

import rich_click as click

from fednode.node.alerting import acting, outbox, reading, targets
from fednode.node.alerting.reading import CLOSED, PAGE_DEFAULT, PAGE_MAX, SHOWN, STATES, Wanted
from fednode.node.alerting.rules import LEVELS, RULES, Setting
from fednode.node.cli.frame import Group, Session, command, option, table
from fednode.node.cli.journal import local_time
from fednode.node.messages import safe
from fednode.node.units import human_ms
from fednode.sync.errors import Refused

UNREACHED = 4  # the exit code


@click.group(cls=Group, help="help.alerts", invoke_without_command=True)
@option("--level", "levels", multiple=True, type=click.Choice(LEVELS), words="option.alerts_level")
@option("--area", default="", words="option.alerts_area")
@option("--state", "states", multiple=True, type=click.Choice(STATES), words="option.alerts_state")
@option("--rule", default="", metavar="RULE", words="option.alerts_rule")
@option("--node", default="", metavar="CODE", words="option.alerts_node")
@option("--all", "everything", is_flag=True, words="option.all_alerts")
@option("--evidence", is_flag=True, words="option.evidence")
@option("--limit", default=PAGE_DEFAULT, show_default=True, type=click.IntRange(1, PAGE_MAX), words="option.limit")
@option("--after", default="", words="option.after")
@click.pass_context
def alerts(
    context: click.Context,
    levels: tuple[str, ...],
    area: str,
    states: tuple[str, ...],
    rule: str,
    node: str,
    everything: bool,
    evidence: bool,
    limit: int,
    after: str,
) -> None:
    """What somebody must look into, the newest first."""
    if context.invoked_subcommand is not None:
        return
    session: Session = context.obj
    session.command = "alerts"
    if rule and rule not in RULES:
        raise Refused("FN-2001", option="--rule", value=rule)
    wanted = Wanted(levels, states or (STATES if everything else SHOWN), area, rule, node, limit, after)
    app = session.app()
    found = {**reading.listing(app, wanted, session.lang), "outbox": outbox.standing(app)}
    lines = [] if not any(sum(one.values()) for one in found["total"].values()) else [_total(session, found["total"])]
    for one in found["alerts"]:
        lines += _alert_lines(session, one, evidence)
    if not found["alerts"]:
        lines.append(session.words("alerts.none"))
    if found["silences"]:
        lines += ["", *_silences(session, found)]
    for waits in found["outbox"]:
        told = {name: waits[name] for name in ("target", "waiting", "error")}
        lines += ["", session.words("alerts.waiting", since=local_time(waits["since_ms"]), **told)]
    if found["next"]:
        lines += ["", session.words("find.more", after=found["next"])]
    session.done(found, lines)


def _total(session: Session, total: dict[str, dict[str, int]]) -> str:
    parts = []
    for level, states in total.items():
        for state, count in states.items():
            if count:
                name = f"{session.words(f'alerts.level_{level}')} {session.words(f'alerts.state_{state}')}"
                parts.append(f"{name} {count}")
    return ", ".join(parts)


def _alert_lines(session: Session, one: dict[str, Any], evidence: bool) -> list[str]:
    words = session.words
    told = {name: one[name] for name in ("code", "node", "name", "by")}
    level = words(f"alerts.level_{one['level']}")
    lines = [
        words("alerts.line", time=local_time(one["raised_ms"]), level=level, **told),
        f"    {one['message']}",
        words("alerts.key", id=one["id"], key=one["key"], count=len(one["evidence"])),
    ]
    if one["shown"] == CLOSED and one["gone"]:
        lines.append(words("alerts.gone"))
    elif one["shown"] == CLOSED:
        lines.append(words("alerts.closed", who=one["closed_by"], reason=one["reason"]))
    elif one["acked_ms"]:
        lines.append(words("alerts.acked", who=one["acked_by"], note=one["note"]))
    if one["shown"] == reading.SILENCED:
        lines.append(words("alerts.silenced"))
    if evidence:
        for text in one["evidence"]:
            lines += ["", *map(safe, text.splitlines())]
        lines += [""] if one["evidence"] else []
    return lines


def _silences(session: Session, found: dict[str, Any]) -> list[str]:
    rows = [
        (one["target"], session.words(f"alerts.kind_{one['kind']}"), local_time(one["until_ms"]), safe(one["by"]),
         safe(one["note"]))
        for one in found["silences"]
    ]  # fmt: skip
    heads = [session.words(f"head.{key}") for key in ("silenced", "kind", "until", "who", "note")]
    return table(rows, heads)


# ---------------------------------------------------------------- what is done with them


@command("help.alerts_close", "alerts.close")
@click.argument("key")
@option("--reason", required=True, words="option.reason")
def close(session: Session, key: str, reason: str) -> None:
    """Say that an alert has been looked into."""
    done = acting.close(session.app(), key, reason)
    session.done({"key": done[0].key, "records": len(done)}, [session.words("alerts.close_done", key=done[0].key)])


@command("help.alerts_ack", "alerts.ack")
@click.argument("key")
@option("--note", default="", words="option.alerts_note")
def ack(session: Session, key: str, note: str) -> None:
    """Say that somebody sees to an alert."""
    done = acting.ack(session.app(), key, note)
    session.done({"key": done[0].key, "records": len(done)}, [session.words("alerts.ack_done", key=done[0].key)])


@command("help.alerts_silence", "alerts.silence")
@click.argument("target")
@option("--until", required=True, metavar="TIME", words="option.alerts_until")
@option("--below", is_flag=True, words="option.alerts_below")
@option("--note", default="", words="option.alerts_note")
def silence(session: Session, target: str, until: str, below: bool, note: str) -> None:
    """Keep a rule, a node or an area quiet for a while."""
    app = session.app()
    end_ms = acting.until_ms(until, app.now_ms())
    if end_ms is None:
        raise Refused("FN-2001", option="--until", value=until)
    one = acting.silence(app, target, end_ms, note, below=below)
    kind = session.words(f"alerts.kind_{one.kind}")
    line = session.words("alerts.silence_done", kind=kind, target=one.target, until=local_time(one.until_ms))
    session.done({"kind": one.kind, "target": one.target, "until_ms": one.until_ms}, [line])


@command("help.alerts_unsilence", "alerts.unsilence")
@click.argument("target")
@option("--below", is_flag=True, words="option.alerts_below")
def unsilence(session: Session, target: str, below: bool) -> None:
    """End a silence now."""
    kind, name = acting.unsilence(session.app(), target, below=below)
    line = session.words("alerts.unsilence_done", kind=session.words(f"alerts.kind_{kind}"), target=name)
    session.done({"kind": kind, "target": name}, [line])


@command("help.alerts_test", "alerts.test")
def test(session: Session) -> None:
    """Send a trial to each target."""
    app = session.app()
    found = outbox.trial(app, lambda to, what: targets.attempt(to, what, app.config, app.now_s))
    if not found:
        raise Refused("FN-3335")
    lines = [
        session.words("alerts.test_done", target=name)
        if told.ok
        else session.words("alerts.test_failed", target=name, reason=told.reason)
        for name, told in found
    ]
    document = [{"target": name, "ok": told.ok, "reason": told.reason} for name, told in found]
    session.done({"targets": document}, lines, 0 if all(told.ok for _, told in found) else UNREACHED)


@command("help.alerts_rules")
def rules(session: Session) -> None:
    """The rules as they hold here."""
    found = reading.rules(session.app())
    rows = [
        (
            one["name"],
            session.words("alerts.off") if one["off"] else session.words(f"alerts.level_{one['level']}"),
            _threshold(session, Setting(**one)),
            session.words(f"alerts.rule_{one['name']}"),
        )
        for one in found
    ]
    heads = [session.words(f"head.{key}") for key in ("rule", "alert_level", "threshold", "what")]
    session.done({"rules": found}, table(rows, heads))


def _threshold(session: Session, one: Setting) -> str:
    kind = RULES[one.name].kind
    if one.threshold is None:
        return "-"
    if kind == "span":
        return human_ms(one.threshold * 1000, session.lang)
    if kind == "version":
        return f"{one.threshold // 10_000}.{one.threshold % 10_000}"
    return f"{one.threshold}%" if kind == "percent" else str(one.threshold)


for _one in (close, ack, silence, unsilence, test, rules):
    alerts.add_command(_one, _one.name)
