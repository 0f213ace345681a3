"""Opens alerts for what the rules find, and closes them when it is gone.

Rules
1. An alert is raised once: when its cause is there and was not before. Whoever closes it by hand, while the cause goes
   on, is not contradicted: it is raised again when it was gone meanwhile.
2. It closes itself when its cause has been gone for `CALM_MS`: what comes and goes is one alert.
3. Closed are only alerts that this node has raised, of rules that were looked at just now. What was raised where it
   happened (`room`, `away`, `drill`) is taken over; evidence (forks, damage) is for people to close.
4. Nothing is written while the node may not write (fenced), and where there is no room: it is found again.
5. Looking is done in any thread, on connections of its own; writing in the writer's, in one transaction.

>>> # plan = look(app, local, serving=True); done = carry_out(app, writer, plan); settle(local, plan)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.errors import FednodeError
from fednode.node import coverage, fence, mending, sqlite
from fednode.node.alerting import finding
from fednode.node.alerting.finding import Findings, Found
from fednode.node.alerting.local import Local
from fednode.node.alerting.rules import EVIDENCE, Rules
from fednode.node.events import Alert, Events
from fednode.node.journal import CLOSED, DAEMON, OPEN
from fednode.node.mesh.watcher import BEGAN, bounds_of

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.projection import Projector
    from fednode.node.store import Store
    from fednode.node.writer import Writer

log = logging.getLogger("fednode.alerts")
CALM_MS = 300_000
AREAS = "areas"  # what was found of areas the last time (meta of alerts.db)
ADOPTED = frozenset(("room", "away", "drill"))  # raised where they happen: what is open of them is ours


@dataclass(slots=True)
class Plan:
    """What is to be done: alerts to open, each with the stamp of the version that there is; to close; and what is to
    be kept of what holds."""

    opens: list[tuple[Found, int]] = field(default_factory=list)
    closes: list[tuple[Alert, int]] = field(default_factory=list)
    active: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)


def rules_of(app: App) -> Rules:
    """As the settings say."""
    return Rules.of(app.config.alerts_rules)


@contextmanager
def reading(app: App) -> Iterator[tuple[Store, Projector]]:
    """A store and a projection of this thread's own, which are closed at the end."""
    store = app.new_store()
    projector = app.new_projector(store)
    try:
        yield store, projector
    finally:
        projector.close()
        store.close()


# ---------------------------------------------------------------- looking


def look(app: App, local: Local, *, serving: bool) -> Plan:
    """What there is to do now. `serving`: a daemon of this home hears its children (only then they can be late).
    Raises StoreError."""
    with reading(app) as (store, projector):
        if fence.standing(store) is not None:
            return Plan()
        app.trust.refresh(store)
        rules = rules_of(app)
        events = Events(projector, rules)
        raised = events.raised_here(app.trust.node)
        before = local.active()
        found = _findings(app, local, store, projector, rules, set(before), serving=serving)
        return weigh(found, raised, before, app.now_ms(), _mended(store, raised))


def _findings(
    app: App, local: Local, store: Store, projector: Projector, rules: Rules, active: set[str], *, serving: bool
) -> Findings:
    all_, now_ms, me = Findings(), app.now_ms(), app.trust.node
    try:
        with health(app) as c:
            all_.found += finding.of_itself(c, me, rules, now_ms // 1000)
            all_.looked |= {"clock", "certificate", "disk", "standby"}
            began = c.execute("select value from meta where key = ?", (BEGAN,)).fetchone()
            if serving and began is not None:
                mesh = finding.of_mesh(c, me, bounds_of(app), rules, now_ms // 1000, int(began[0]))
                all_.found += finding.fewer(list(mesh), me, active)
                all_.looked |= set(finding.OF_MESH)
    except (sqlite.DatabaseError, FednodeError) as error:  # it may be lost, and is made anew
        log.info("health not read", extra={"reason": str(error)})
    all_.found += finding.raised_elsewhere(app, store, active)
    audit = finding.of_audit(projector.connection, app, rules, now_ms)
    all_.found += finding.fewer(list(audit), me, active)
    all_.looked |= ADOPTED | set(finding.OF_AUDIT)
    kept = local.meta(AREAS)
    if kept is not None:
        all_.found += finding.fewer(msgspec.json.decode(kept, type=list[Found]), me, active)
        all_.looked |= set(finding.OF_AREAS)
    all_.found = finding.without(all_.found, rules)
    return all_


@contextmanager
def health(app: App) -> Iterator[sqlite.Connection]:
    """health.db as it is. Raises StoreError FN-7602 where there is none yet."""
    connection = sqlite.connect(app.home.health_db, synchronous="NORMAL", readonly=True, cache_kib=512)
    try:
        yield connection
    finally:
        connection.close()


def _mended(store: Store, raised: dict[str, tuple[Alert, int]]) -> list[tuple[Alert, int]]:
    """Alerts of damaged segments that are whole again."""
    ours = [one for one in raised.values() if one[0].code == mending.DAMAGED and one[0].state == OPEN]
    if not ours:
        return []
    damaged = {name for name, _ in mending.known(store)}
    return [(alert, hlc) for alert, hlc in ours if alert.params.get("log") not in damaged]


def weigh(
    now: Findings,
    raised: dict[str, tuple[Alert, int]],
    before: dict[str, tuple[str, int | None]],
    now_ms: int,
    mended: list[tuple[Alert, int]] | tuple[()] = (),
) -> Plan:
    """Rules 1 to 3. `raised`: what this node has raised, by key, with its stamp; `before`: what held the last time."""
    plan = Plan()
    found = {one.key: one for one in now.found}
    for key, one in found.items():
        was = before.get(key)
        if was is None or was[1] is not None:
            plan.active[key] = (one.rule, None)
        alert, hlc = raised.get(key, (None, 0))
        if was is None and (alert is None or alert.state != OPEN):
            plan.opens.append((one, hlc))
    held = {**{key: (one.rule, None) for key, (one, _) in raised.items() if _ours(one)}, **before}
    for key, (rule, gone_ms) in held.items():
        if key in found or rule not in now.looked:
            continue
        if gone_ms is None or gone_ms > now_ms:  # the clock was put back
            plan.active[key] = (rule, now_ms)
        elif now_ms - gone_ms >= CALM_MS:
            plan.ended.append(key)
            alert, hlc = raised.get(key, (None, 0))
            if alert is not None and alert.state == OPEN:
                plan.closes.append((alert, hlc))
    plan.closes += mended
    return plan


def _ours(alert: Alert) -> bool:
    """Whether a rule may close it (rule 3)."""
    return alert.state == OPEN and alert.rule not in EVIDENCE


# ---------------------------------------------------------------- writing


def carry_out(app: App, writer: Writer, plan: Plan) -> dict[str, Any]:
    """In the writer's thread. What became of it, for the job. Raises StoreError; Refused FN-5303 behind the fence."""
    if plan.opens or plan.closes:
        app.trust.refresh(writer.store)
        journal, rules, now_ms = app.journal(writer), rules_of(app), app.now_ms()
        with reading(app) as (_, projector):
            events = Events(projector, rules)
            with writer.store.write() as tx:
                for one, base in plan.opens:
                    level = rules[one.rule].level
                    journal.rule_within(tx, one.rule, level, one.code, one.node, one.params, base, one.subject)
                told = {"state": CLOSED, "closed_ms": now_ms, "closed_by": DAEMON, "closed_at": app.trust.node}
                for alert, base in plan.closes:
                    events.rewrite(writer, tx, alert, base, {**told, "reason": "", "gone": True})
    for one, _ in plan.opens:
        log.warning("alert", extra={"code": one.code, "params": one.params, "rule": one.rule})
    return {"opened": len(plan.opens), "closed": len(plan.closes)}


def settle(local: Local, plan: Plan) -> None:
    """After that: what holds. Were this lost, the next look would take what is open as it is."""
    local.set_active(plan.active, plan.ended)


# ---------------------------------------------------------------- areas


def survey(app: App, local: Local) -> dict[str, Any]:
    """Look at the areas, which reads every record; the next look at the alerts goes by it. Raises StoreError."""
    store = app.new_store()
    try:
        with coverage.opened(app, store) as connection:
            found = list(finding.of_areas(connection, app, rules_of(app)))
    finally:
        store.close()
    local.set_meta(AREAS, msgspec.json.encode(found))
    return {"found": len(found)}
