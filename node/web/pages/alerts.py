"""Alerts: what somebody must look into; who sees to what; what is kept quiet until when."""

from __future__ import annotations

from starlette.responses import Response

from fednode.node.alerting import acting, reading
from fednode.node.alerting.local import KINDS, OF_AREA
from fednode.node.alerting.rules import LEVELS, RULES
from fednode.node.web import roles
from fednode.node.web.visit import Nav, Page, Visit
from fednode.sync.errors import Refused

PATH = "/alerts"
PAGE = 50
SPANS = ("4h", "1d", "7d", "30d")
DONE = ("ack", "close", "silence", "unsilence")
KEY_MAX = 1024


def show(visit: Visit) -> Response:
    """A page of alerts, the newest first, with the counts of all; filters in the URL."""
    levels, states = visit.choices("level", LEVELS), visit.choices("state", reading.STATES)
    wanted = reading.Wanted(
        *(
            levels,
            states or reading.SHOWN,
            visit.value("area"),
            visit.choice("rule", tuple(RULES)),
            visit.value("node"),
        ),
        limit=visit.number("limit", PAGE, 1, 500),
        after=visit.value("after", most=KEY_MAX),
    )
    found = reading.listing(visit.reader.app, wanted, visit.lang)
    if "json" in visit.query:
        return visit.json(found)
    return visit.render(
        "alerts.html",
        found=found,
        wanted=wanted,
        levels=LEVELS,
        states=reading.STATES,
        rules=tuple(RULES),
        spans=SPANS,
        may_act=visit.may(roles.ALERTS),
        done=visit.choice("done", DONE),
        next=visit.url(after=found["next"], done="") if found["next"] else "",
    )


def ack(visit: Visit) -> Response:
    """Somebody sees to it."""
    acting.ack(visit.acting, visit.value("key", most=KEY_MAX), visit.value("note"))
    return visit.go(f"{PATH}?done=ack")


def close(visit: Visit) -> Response:
    """It has been looked into, and why that is all."""
    acting.close(visit.acting, visit.value("key", most=KEY_MAX), _needed(visit, "note"))
    return visit.go(f"{PATH}?done=close")


def silence(visit: Visit) -> Response:
    """Quiet about a rule, a node, or an area, until then."""
    app = visit.acting
    kind = visit.choice("kind", KINDS)
    until_ms = acting.until_ms(visit.choice("until", SPANS, SPANS[0]), app.now_ms())
    acting.silence(app, _needed(visit, "target"), until_ms or 0, visit.value("note"), below=kind == OF_AREA)
    return visit.go(f"{PATH}?done=silence")


def unsilence(visit: Visit) -> Response:
    """No longer."""
    acting.unsilence(visit.acting, _needed(visit, "target"), below=visit.choice("kind", KINDS) == OF_AREA)
    return visit.go(f"{PATH}?done=unsilence")


def _needed(visit: Visit, name: str) -> str:
    value = visit.value(name)
    if not value:
        raise Refused("FN-2810", field=name)
    return value


ROUTES = (
    Page(PATH, show),
    *(
        Page(f"{PATH}/{act.__name__}", act, roles.ALERTS, ("POST",), f"alerts.{act.__name__}")
        for act in (ack, close, silence, unsilence)
    ),
)
NAV = (Nav("web.nav.alerts", PATH, 20),)
