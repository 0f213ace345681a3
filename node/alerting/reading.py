"""The alerts as a document: for `fednode alerts`, and for whoever shows them otherwise.

Rules
1. It works beside the daemon and without one, with no link, and writes nothing.
2. An alert is `open`; `silenced` while a silence of this node covers it; `acked` when somebody sees to it; `closed`.
   The first that holds: closed, silenced, acked, open. What is silenced is shown, and told to nobody.
3. Texts are in the language that is asked for; parameters come from other nodes, and are made safe to show.

>>> # document = listing(app, Wanted(levels=("critical",), area="1301"), "zh"); document["alerts"][0]["message"]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node.alerting.local import Silence, if_readable
from fednode.node.alerting.raising import reading, rules_of
from fednode.node.alerting.rules import LEVELS
from fednode.node.events import Alert, Events
from fednode.node.journal import OPEN
from fednode.node.messages import error_text
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.trust import Trust

PAGE_DEFAULT, PAGE_MAX = 100, 10_000
ACKED, SILENCED, CLOSED = "acked", "silenced", "closed"
STATES = (OPEN, ACKED, SILENCED, CLOSED)
SHOWN = (OPEN, ACKED, SILENCED)
ID_DIGITS = 8


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which alerts: of these levels and states, about nodes in this area, of this rule, about this node. `after`: the
    key of the last one of the page before."""

    levels: tuple[str, ...] = ()
    states: tuple[str, ...] = SHOWN
    area: str = ""
    rule: str = ""
    node: str = ""
    limit: int = PAGE_DEFAULT
    after: str = ""


def id_of(key: str) -> str:
    """A short name of an alert, to type; the same everywhere."""
    return SUITE_1.hash(key.encode()).hex()[:ID_DIGITS]


def area_of(trust: Trust, alert: Alert) -> str:
    """The area that an alert is about: what it names, else its node's, else whose log it stands in."""
    named = alert.params.get("area")
    if isinstance(named, str) and named:
        return named
    known = trust.directory.get(alert.node)
    return known.scope[0] if known is not None else alert.area


def silences(app: App) -> list[Silence]:
    """Those that hold now; none where the file cannot be read."""
    with if_readable(app.home.alerts_db) as local:
        return [] if local is None else local.silences(app.now_ms())


def state_of(alert: Alert, area: str, quiet: Iterable[Silence]) -> str:
    """Rule 2."""
    if alert.state != OPEN:
        return CLOSED
    if any(one.covers(alert.rule, alert.node, area) for one in quiet):
        return SILENCED
    return ACKED if alert.acked_ms else OPEN


def message(alert: Alert, lang: str) -> tuple[str, str]:
    """What happened, and what to do next."""
    return error_text(FednodeError(alert.code, **{str(name): value for name, value in alert.params.items()}), lang)


def listing(app: App, wanted: Wanted, lang: str) -> dict[str, Any]:
    """A page of alerts, the newest first; how many there are of each level and state, of all that are not closed; the
    silences."""
    app.trust.refresh(app.store)
    with reading(app) as (_, projector):
        found = Events(projector, rules_of(app)).alerts(closed=CLOSED in wanted.states)
    quiet = silences(app)
    total = {level: dict.fromkeys(SHOWN, 0) for level in LEVELS}
    alerts: list[dict[str, Any]] = []
    matches: Counter[str] = Counter()
    after = wanted.after
    for alert in found:
        area = area_of(app.trust, alert)
        state = state_of(alert, area, quiet)
        if state != CLOSED:
            total[alert.level][state] += 1
        if not _matches(alert, area, state, wanted):
            continue
        matches["all"] += 1
        if after:
            after = "" if alert.key == after else after
        elif len(alerts) < wanted.limit:
            alerts.append(_shown(app, alert, area, state, lang))
    if after:
        raise Refused("FN-2001", option="--after", value=wanted.after)
    more = alerts and matches["all"] > len(alerts) and len(alerts) == wanted.limit
    return {
        "me": app.trust.node,
        "now_ms": app.now_ms(),
        "total": total,
        "alerts": alerts,
        "next": alerts[-1]["key"] if more else "",
        "silences": [asdict(one) for one in quiet],
    }


def _matches(alert: Alert, area: str, state: str, wanted: Wanted) -> bool:
    return (
        state in wanted.states
        and (not wanted.levels or alert.level in wanted.levels)
        and area.startswith(wanted.area)
        and wanted.rule in ("", alert.rule)
        and wanted.node in ("", alert.node)
    )


def _shown(app: App, alert: Alert, area: str, state: str, lang: str) -> dict[str, Any]:
    text, hint = message(alert, lang)
    known = app.trust.directory.get(alert.node)
    found = {**asdict(alert), "id": id_of(alert.key), "area": area, "message": text, "hint": hint, "shown": state}
    return {**found, "node_level": known.level if known is not None else ""}


def rules(app: App) -> list[dict[str, Any]]:
    """The rules as they hold here."""
    return [asdict(one) for one in rules_of(app)]
