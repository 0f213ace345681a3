"""What people do with alerts: see to one, close one, keep something quiet for a while. Each act is in the audit.

Rules
1. An alert is named by its key, or by the short id that the list shows.
2. A silence has an end, at most `SILENCE_DAYS_MAX` away, and is of a rule, a node, or an area with all below it.

>>> until_ms("4h", 1000), until_ms("2001-01-01T00:00:00+00:00", 1000), until_ms("soon", 1000)
(14401000, 978307200999, None)
"""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from fednode.node.alerting.local import OF_AREA, OF_NODE, OF_RULE, SILENCE_DAYS_MAX, Local, Silence
from fednode.node.alerting.raising import reading, rules_of
from fednode.node.alerting.reading import id_of
from fednode.node.alerting.rules import RULES
from fednode.node.events import Alert, Events, time_of
from fednode.node.journal import TEXT_BYTES_MAX, cut
from fednode.node.timetable import DAY_MS, Unreadable, parse_duration
from fednode.sync.errors import Refused
from fednode.sync.formats import canonical_area
from fednode.sync.identity import covers

if TYPE_CHECKING:
    from fednode.node.app import App


def until_ms(text: str, now_ms: int) -> int | None:
    """An end out of a span (`4h`, `7d`) or a time; None for what is neither."""
    try:
        return now_ms + parse_duration(text) * 1000
    except Unreadable:
        return time_of(text, end=True)


def _key(events: Events, given: str) -> str:
    """Rule 1. What names nothing is left as it is."""
    found = {one.key for one in events.alerts()}
    named = [key for key in found if id_of(key) == given]
    return named[0] if given not in found and len(named) == 1 else given


def ack(app: App, given: str, note: str) -> list[Alert]:
    """Say that somebody sees to an open alert; it goes up, and down to where it was raised. Raises Refused FN-3331."""
    return _act(app, given, note, close=False)


def close(app: App, given: str, reason: str) -> list[Alert]:
    """Say that an alert has been looked into. Raises Refused FN-3331."""
    return _act(app, given, reason, close=True)


def _act(app: App, given: str, text: str, *, close: bool) -> list[Alert]:
    app.trust.refresh(app.store)
    with reading(app) as (_, projector):
        events = Events(projector, rules_of(app))
        writer = app.new_writer(app.store)
        act = events.close if close else events.ack
        done = act(writer, app.journal(writer), _key(events, given), text, app.operator, app.now_ms())
    app.poke()
    return done


def target_of(app: App, given: str, *, below: bool) -> tuple[str, str]:
    """The kind and the name of what is meant; `below`: of a node's area with all in it. Raises Refused FN-3332."""
    if given in RULES and not below:
        return OF_RULE, given
    app.trust.refresh(app.store)
    directory = app.trust.directory
    known = directory.get(given)
    if known is not None:
        return (OF_AREA, known.scope[0]) if below else (OF_NODE, given)
    area = canonical_area(given)
    if area.isascii() and area.isdigit() and covers(app.trust.me.scope, area):
        return OF_AREA, area
    raise Refused("FN-3332", target=given)


def silence(app: App, given: str, until: int, note: str, *, below: bool = False) -> Silence:
    """Keep something quiet until then (Unix milliseconds). Raises Refused FN-3332 (nothing of that name), FN-3333 (the
    end is past, or too far away)."""
    kind, target = target_of(app, given, below=below)
    now_ms = app.now_ms()
    if not now_ms < until <= now_ms + SILENCE_DAYS_MAX * DAY_MS:
        raise Refused("FN-3333", days=SILENCE_DAYS_MAX)
    with closing(Local.open(app.home.alerts_db)) as local:
        app.journal().event("alerts.silence", kind=kind, target=target, until_ms=until, note=note)
        return local.silence(kind, target, until, now_ms, app.operator, cut(note, TEXT_BYTES_MAX))


def unsilence(app: App, given: str, *, below: bool = False) -> tuple[str, str]:
    """End a silence now. Raises Refused FN-3334 where there is none."""
    with closing(Local.open(app.home.alerts_db)) as local:
        there = {(one.kind, one.target) for one in local.silences(app.now_ms())}
        named = [one for one in there if one[1] == given and (not below or one[0] == OF_AREA)]
        found = named[0] if len(named) == 1 else target_of(app, given, below=below)
        if found not in there:
            raise Refused("FN-3334", target=given)
        app.journal().event("alerts.unsilence", kind=found[0], target=found[1])
        local.unsilence(*found)
        return found
