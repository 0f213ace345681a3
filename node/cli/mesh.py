"""mesh: how this node and those below it are, as the last reports have it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import rich_click as click

from fednode.node.cli.frame import Session, command, option, table
from fednode.node.mesh.bounds import STATES
from fednode.node.mesh.view import GROUPS, PAGE_DEFAULT, PAGE_MAX, Filter
from fednode.node.units import human_bytes, human_ms
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.app import App

WATCH_S = 2.0
MIB = 1024 * 1024


@command("help.mesh")
@click.argument("node", default="")
@option("--by", type=click.Choice(GROUPS), words="option.mesh_by")
@option("--level", "levels", multiple=True, words="option.mesh_level")
@option("--area", default="", words="option.mesh_area")
@option("--state", "states", multiple=True, type=click.Choice(STATES), words="option.mesh_state")
@option("--limit", default=PAGE_DEFAULT, show_default=True, type=click.IntRange(1, PAGE_MAX), words="option.limit")
@option("--after", default="", words="option.after")
@option("--watch", is_flag=True, words="option.mesh_watch")
def mesh(
    session: Session,
    node: str,
    by: str | None,
    levels: tuple[str, ...],
    area: str,
    states: tuple[str, ...],
    limit: int,
    after: str,
    watch: bool,
) -> None:
    """The tree, or one node."""
    from fednode.node.mesh import reading

    app = session.app()
    wanted = Filter(levels, states, area, after, limit)
    if node and (by or levels or area or states or after):
        raise Refused("FN-2706", name="NODE", reason="--by --level --area --state --after", command="fednode mesh")
    unknown = [one for one in levels if one not in app.trust.directory.levels]
    if unknown:
        raise Refused("FN-2001", option="--level", value=unknown[0])

    def show() -> None:
        with reading.opened(app) as view:
            if node:
                found = reading.one(app, view, node)
                session.done({"mesh": found}, _node_lines(session, found))
            else:
                found = reading.overview(app, view, wanted, by or "")
                session.done({"mesh": found}, _lines(session, app, found, flat=bool(levels or states)))

    if watch:
        again(show, threading.Event().wait, clear=not session.as_json)
    else:
        show()


def again(show: Callable[[], None], pause: Callable[[float], object], *, clear: bool) -> None:
    """Show it again and again, until Ctrl-C: that is the way to end it, and no failure."""
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            if clear:
                click.clear()  # does nothing where there is no terminal
            show()
            pause(WATCH_S)


def _age(session: Session, ms: int | None, now_ms: int) -> str:
    if ms is None:
        return session.words("status.never")
    if now_ms - ms < 1000:
        return session.words("mesh.now")
    return session.words("status.ago", age=human_ms(max(0, now_ms - ms), session.lang))


def _states(session: Session, states: dict[str, int]) -> str:
    found = [f"{session.words(f'state.{state}')} {count}" for state, count in states.items() if count]
    return ", ".join(found) or "-"


def _lines(session: Session, app: App, found: dict[str, Any], *, flat: bool) -> list[str]:
    words = session.words
    total = found["total"]
    lines = [words("mesh.total", count=total["nodes"], states=_states(session, total["states"]))]
    if found["groups"] is not None:
        lines += ["", *_groups(session, found["groups"])]
    elif found["nodes"]:
        lines += ["", *_rows(session, found, flat=flat)]
    if found["cuts"]:
        lines.append("")
    for one in found["cuts"]:
        told = {"id": one["id"], "count": one["below"], "age": _age(session, one["since_ms"], found["now_ms"])}
        lines.append(words(f"mesh.cut_{one['why']}", **told))
    if found["invited"]:
        names = ", ".join(f"{one['id']} {one['name']}" for one in found["invited"][:10])
        lines += ["", words("mesh.invited", count=len(found["invited"]), names=names)]
    if found["next"]:
        lines += ["", words("find.more", after=found["next"])]
    return lines


def _groups(session: Session, groups: list[dict[str, Any]]) -> list[str]:
    shown = [state for state in STATES if any(one["states"][state] for one in groups)]
    rows = []
    for one in groups:
        name = session.level(one["level"]) if "level" in one else f"{one.get('id', '')} {one.get('name', '')}".strip()
        rows.append((name, one["nodes"], *(one["states"][state] for state in shown)))
    heads = [session.words("head.group"), session.words("head.nodes")]
    return table(rows, [*heads, *(session.words(f"state.{state}") for state in shown)])


def _rows(session: Session, found: dict[str, Any], *, flat: bool) -> list[str]:
    top = min(one["path"].count(" ") for one in found["nodes"])
    rows = []
    for one in found["nodes"]:
        indent = "" if flat else "  " * (one["path"].count(" ") - top)
        rows.append(
            (
                f"{indent}{one['id']} {one['name']}",
                session.level(one["level"]),
                session.words(f"state.{one['state']}"),
                _age(session, one["known_ms"], found["now_ms"]),
                _backlog(session, one, found["now_ms"]),
                one["software"] or "-",
                _disk(one),
                "-" if one["alerts_critical"] is None else one["alerts_critical"] + one["alerts_warning"],
            )
        )
    keys = ("node", "level", "state", "known", "backlog", "version", "disk", "alerts")
    return table(rows, [session.words(f"head.{key}") for key in keys])


def _backlog(session: Session, one: dict[str, Any], now_ms: int) -> str:
    if one["changes"] is None:
        return "-"
    count = one["changes"] + one["system"]
    if not one["since_ms"]:
        return "0"
    return f"{count} ({human_bytes(one['bytes'])}, {human_ms(max(0, now_ms - one['since_ms']), session.lang)})"


def _disk(one: dict[str, Any]) -> str:
    total = one["disk_total_mib"]
    return f"{human_bytes(one['disk_free_mib'] * MIB)} ({one['disk_free_mib'] * 100 // total}%)" if total else "-"


def _node_lines(session: Session, found: dict[str, Any]) -> list[str]:
    words, one, now_ms = session.words, found["node"], found["now_ms"]
    state = words(f"state.{one['state']}")
    told: list[tuple[str, Any]] = [
        ("node", f"{one['id']} {one['name']} ({session.level(one['level'])})"),
        ("state", state if one["cut"] is None else f"{state} ({words('mesh.below', id=one['cut'])})"),
        ("known", _age(session, one["known_ms"], now_ms)),
        ("last_seen", words("mesh.up") if one["up"] else _age(session, one["seen_ms"], now_ms)),
    ]
    if one["software"] is not None:
        offset = words("mesh.unsure") if one["unsure"] else f"{one['clock_ms']} ms"
        left = (one["certificate_s"] * 1000 - now_ms) // 86_400_000
        told += [
            ("backlog", _backlog(session, one, now_ms)),
            ("version", f"{one['software']}, {words('mesh.catalog', version=one['catalog'])}"),
            ("disk", _disk(one)),
            ("clock", offset),
            ("certificate", words("mesh.days", days=left)),
            ("alerts", words("mesh.alerts_count", critical=one["alerts_critical"], warning=one["alerts_warning"])),
        ]
        if one["standbys"]:
            told.append(
                ("standbys", words("mesh.standbys_count", count=one["standbys"], changes=one["standby_changes"]))
            )
        if one["drill_ms"]:
            told.append(("drill", _age(session, one["drill_ms"], now_ms)))
        if one["fenced"]:
            told.append(("fenced", one["fenced"]))
    if one["accused"]:
        told.append(("accused", one["accused"]))
    for above in found["way_up"]:
        age = _age(session, above["known_ms"], now_ms)
        told.append(("above", f"{above['id']} {above['name']}: {words('state.' + above['state'])}, {age}"))
    for standby in found["standbys"]:
        told.append(("standby", f"{standby['id']} {standby['name']}: {words('state.' + standby['state'])}"))
    return table([(words(f"mesh.{key}"), value) for key, value in told], ("", ""))[1:]
