"""run, sync, status, refused, rebuild: the node at work."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import Callable
from typing import Any

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.notify import Notifier
from fednode.node.timetable import Unreadable, on_the_wall, parse_rate, rate_text
from fednode.node.units import human_bytes, human_ms
from fednode.sync.errors import Refused, Unavailable


def _logs(session: Session, flags: dict[str, Any] | None = None) -> None:
    session.logs(session.config(flags)[0])


@command("help.run", "daemon.started")
@option("--listen", words="option.listen", metavar="HOST:PORT")
@option("--enrol-listen", words="option.enrol_listen", metavar="HOST:PORT")
@option("--http", words="option.http", metavar="HOST:PORT")
def run_(session: Session, listen: str | None, enrol_listen: str | None, http: str | None) -> None:
    """The daemon: serves the children, keeps an exchange with the parent, until SIGTERM."""
    from fednode.node.journal import DAEMON

    flags = {"listen": listen, "enrol_listen": enrol_listen, "http_listen": http}
    _logs(session, flags)
    app = session.app(flags)
    with app.home.lock():
        app.operator = DAEMON  # what happens from now on is nobody's command
        asyncio.run(_serve(session, app))
    session.note("run.stopped", node=app.trust.node)


async def _serve(session: Session, app: Any) -> None:
    from fednode.node import daemon

    loop = asyncio.get_running_loop()
    manager = Notifier(session.environ, os.getpid())

    def ready(port: int, enrol_port: int) -> None:
        found: dict[str, Any] = {"node": app.trust.node, "port": port, "enrol_port": enrol_port}
        key = "run.ready" if port else "run.ready_leaf"
        session.note(key, **found)
        manager.ready(session.words(key, **found))
        if app.config.http_listen:
            from fednode.node.web.server import url_of

            found["http"] = url_of(app.home)
            session.note("run.http", url=found["http"])
        if session.as_json:
            session.done(found)

    def stopper(stop: Callable[[], None]) -> None:
        def told() -> None:
            manager.stopping()
            stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, told)

    try:
        await daemon.serve(app, ready, stopper, session.became)
    finally:
        manager.stopping()


@command("help.sync", "sync")
@option("--up", is_flag=True, words="option.up")
@option("--down", is_flag=True, words="option.down")
@option("--limit", metavar="RATE", words="option.rate")
def sync(session: Session, up: bool, down: bool, limit: str | None) -> None:
    """One exchange with the parent, now."""
    from fednode.node import syncing
    from fednode.node.fence import standing

    _logs(session)
    app = session.app()
    both = up == down
    try:
        rate = parse_rate(limit) if limit is not None else None
    except Unreadable as error:
        raise Refused("FN-2734", value=limit) from error
    try:
        asked = up or down or limit is not None
        once = syncing.sync_once(app, up=both or up, down=both or down, limit=rate) if asked else syncing.sync_now(app)
        report = asyncio.run(once)
    except Unavailable as error:
        pending = _pending(app)
        error.params = {**error.params, "pending": pending}
        session.note("sync.pending" if pending else "sync.nothing_pending", pending=pending)
        raise
    moved: dict[str, Any] = {name: getattr(report, name) for name in ("sent", "acked", "received")}
    moved["refused"] = len(report.refused)
    app.journal().note("sync", parent=report.parent, address=report.address, **moved)
    shown = dataclasses.asdict(report)
    shown["refused"] = [{"by": by, "code": code} for by, code in report.refused]
    lines = [
        session.words(
            "sync.done",
            parent=report.parent,
            acked=report.acked,
            received=report.received,
            up=human_bytes(report.bytes_sent),
            down=human_bytes(report.bytes_received),
        ),
        session.words("sync.pending" if report.pending else "sync.nothing_pending", pending=report.pending),
    ]
    lines += [session.words("sync.refused", by=by, code=code) for by, code in report.refused]
    low = app.room.low and (both or down)
    if low:
        lines.append(session.words("sync.no_room"))
    fence = standing(app.store)
    if fence is not None:
        age = session.words("status.ago", age=human_ms(max(0, app.now_ms() - fence.at_ms), session.lang))
        lines.append(session.words(_fence_words(fence.code), code=fence.code, age=age))
    shown["fenced"] = fence.code if fence is not None else None
    code = 6 if fence is not None else 5 if report.refused else 7 if low else 0
    session.done({"sync": shown}, lines, code)


def _fence_words(code: str) -> str:
    """Which words a fence takes: what to do differs where another installation goes on as this node."""
    from fednode.node.fence import SUPERSEDED

    return "status.superseded" if code in SUPERSEDED else "status.fenced"


def _pending(app: Any) -> int:
    parent = app.trust.parent
    peer = app.store.peer(parent.node) if parent else None
    return int(app.store.backlog_up(peer.acked if peer else 0).changes)


@command("help.status")
def status(session: Session) -> None:
    """How this node stands."""
    from fednode.node.status import collect

    app = session.app()
    found = collect(app)
    session.done({"status": found}, _status_lines(session, app, found))


def _clock_line(session: Session, app: Any) -> str:
    """How this machine's clock stands, and what to do where it is off."""
    from fednode.node.cli.identity import clock_words
    from fednode.node.clocks import WARN_MS

    told = clock_words(app, session.lang)
    if not app.reference.sure:
        return session.words("status.clock_unsure", **told)
    if abs(app.reference.offset_ms) > WARN_MS:
        return session.words("status.clock_off", **told)
    return session.words("status.clock", offset=app.reference.offset_ms)


def _status_lines(session: Session, app: Any, found: dict[str, Any]) -> list[str]:
    words, lang, now_ms = session.words, session.lang, app.now_ms()

    def age(ms: int | None) -> str:
        return words("status.never") if ms is None else words("status.ago", age=human_ms(max(0, now_ms - ms), lang))

    node, store, parent = found["node"], found["store"], found["parent"]
    lines = [
        words(
            "status.node", level=session.level(node["level"]), **{key: node[key] for key in ("id", "name", "domain")}
        ),
        words("status.running" if found["running"] else "status.stopped"),
    ]
    if found["handing"]:
        lines.append(words("status.handing", standby=found["handing"]["standby"], age=age(found["handing"]["at_ms"])))
    elif fence := found["fenced"]:
        lines.append(words(_fence_words(fence["code"]), code=fence["code"], age=age(fence["at_ms"])))
    if parent is None:
        lines.append(words("status.top"))
    else:
        lines.append(
            words(
                "status.parent", id=parent["id"], name=parent["name"], age=age(parent["last_exchange_ms"]),
                error=parent["last_error"] or "-",
            )
        )  # fmt: skip
        pending = parent["pending_changes"]
        key = "status.pending" if pending else "status.nothing_pending"
        lines.append(words(key, pending=pending, size=human_bytes(parent["pending_bytes"])))
        lines += _window_lines(session, found["sync"])
    lines.append(
        words(
            "status.store", changes=store["changes"], logs=store["logs"], records=found["projection"]["records"],
            behind=found["projection"]["behind"],
        )
    )  # fmt: skip
    lines += [_standby_line(session, node["id"], one) for one in found["standbys"]]
    lines += _ack_lines(session, found["ack"], age)
    lines += _drill_lines(session, found["drill"], age)
    if store["refused"]:
        lines.append(words("status.refused", count=store["refused"]))
    lines.append(words("status.catalog", version=found["catalog"]))
    lines.append(words("status.certificate", days=found["certificate"]["days_left"]))
    lines.append(_clock_line(session, app))
    lines += _verified_lines(session, found["verified"], age)
    lines += _backup_lines(session, found["backup"], age)
    disk = found["disk"]
    key = "status.disk_low" if disk["low"] else "status.disk"
    lines.append(words(key, free=human_bytes(disk["free_bytes"]), reserve=human_bytes(disk["reserve_bytes"])))
    if found["children"]:
        rows = [
            (
                one["id"],
                one["name"],
                age(one["last_exchange_ms"]),
                one["pending_changes"],
                words("nodes.revoked" if one["revoked"] else "nodes.in_force"),
            )
            for one in found["children"]
        ]
        heads = [words(f"head.{key}") for key in ("id", "name", "last_exchange", "pending", "state")]
        lines += ["", *table(rows, heads)]
    return lines


def _backup_lines(session: Session, found: dict[str, Any] | None, age: Callable[[int | None], str]) -> list[str]:
    if found is None:
        return []
    number = "-" if found["number"] is None else found["number"]
    return [session.words("status.backup", number=number, age=age(found["made_ms"]), place=found["place"])]


def _standby_line(session: Session, me: str, one: dict[str, Any]) -> str:
    """How far a standby of this node is behind, or this standby itself."""
    told = {"id": one["id"], "primary": one["for"], "changes": one["behind_changes"]}
    if one["behind_ms"] is None:
        return session.words("status.standby_never", **told)
    told["time"] = human_ms(one["behind_ms"], session.lang)
    if one["behind_changes"] is None:
        return session.words("status.standby_silent", **told)
    side = "standby_me" if one["id"] == me else "standby"
    return session.words(f"status.{side}_behind" if one["behind_changes"] else f"status.{side}_even", **told)


def _drill_lines(session: Session, found: dict[str, Any] | None, age: Callable[[int | None], str]) -> list[str]:
    if found is None:
        return []
    lines = [session.words("status.drill_overdue", age=age(found["good_ms"]), days=found["days"])]
    if not found["overdue"]:
        lines = [session.words("status.drill", age=age(found["last_ms"]))]
    if found["passed"] is False:
        lines.append(session.words("status.drill_failed", age=age(found["last_ms"]), report=found["report"]))
    return lines


def _ack_lines(session: Session, found: dict[str, Any] | None, age: Callable[[int | None], str]) -> list[str]:
    """Where children are acknowledged only when a standby has it: what waits, and whether a standby is away."""
    if found is None:
        return []
    lines = [session.words("status.ack", waiting=found["waiting_changes"])]
    if found["away_since_ms"] is not None:
        lines.append(session.words(f"status.ack_{found['away']}", age=age(found["away_since_ms"])))
    return lines


def _window_lines(session: Session, found: dict[str, Any]) -> list[str]:
    """What the sync windows and the limit say, where there are any."""
    lines = []
    if found["windows"] and found["open"]:
        until = on_the_wall(found["until_ms"], found["zone"])
        lines.append(session.words("status.window_open", time=until))
    elif found["windows"]:
        opens = on_the_wall(found["next_open_ms"], found["zone"])
        lines.append(session.words("status.window_closed", time=opens))
    if found["limit_bit_s"]:
        lines.append(session.words("status.limit", rate=rate_text(found["limit_bit_s"])))
    return lines


def _verified_lines(session: Session, found: dict[str, Any], age: Callable[[int | None], str]) -> list[str]:
    words, full, scrub = session.words, found["full"], found["scrub"]
    lines = [words("status.verified", age=age(full["at_ms"] if full else None))]
    if scrub["started_ms"]:
        last = age(scrub["last_ended_ms"])
        lines.append(words("status.scrub", done=scrub["changes"], of=scrub["of"], last=last))
    bad = len(scrub["problems"]) + (full["problems"] if full else 0)
    if bad:
        lines.append(words("status.damaged", count=bad))
    return lines


@command("help.refused", "refused.retry")
@option("--limit", default=100, show_default=True, words="option.limit")
@option("--retry", metavar="PEER", words="option.retry")
def refused(session: Session, limit: int, retry: str | None) -> None:
    """What was refused, and the evidence that was kept."""
    app = session.app()
    if retry:
        with app.store.write() as tx:
            count = tx.forget_refused(retry)
            app.journal().within(tx, "refused.retry", peer=retry, count=count)
        app.poke()
        session.done({"retried": count}, [session.words("refused.retried", count=count, peer=retry)])
        return
    session.action = ""
    found = app.store.refused(limit)
    rows = [(one["id"], one["peer"], one["code"], one["log"], one["first"]) for one in found]
    heads = [session.words(f"head.{key}") for key in ("number", "peer", "code", "log", "first")]
    session.done({"refused": found}, table(rows, heads) if rows else [session.words("refused.none")])


@command("help.rebuild", "rebuild")
def rebuild(session: Session) -> None:
    """Make state.db again from log.db."""
    app = session.app()
    projector = app.new_projector()
    applied = projector.rebuild()
    projector.index_text()
    app.journal().note("rebuild", changes=applied)
    session.done({"changes": applied}, [session.words("rebuild.done", changes=applied)])
