"""The rules of alerts: what is looked at, from when on it is an alert, and of which level.

Rules
1. A setting is a line of `[alerts] rules`: the rule's name, then what differs from its default: `off`, a level, a
   threshold. What is not named there holds as it is here.
2. What is raised where it happens (forks, forged segments, damage; no room, a standby that went away) cannot be
   switched off: of these a setting only gives the level.
3. A rule about a child is its parent's: a county that is cut off is one alert, of whoever stands right above it.

>>> parse_rule("disk critical 5%")
Setting(name='disk', off=False, level='critical', threshold=5)
>>> rules = Rules.of(("disk critical 5%", "clock off"))
>>> rules["disk"].threshold, rules["clock"].off, rules["certificate"].threshold // 86400
(5, True, 60)
>>> level_of("FN-6420"), level_of("FN-4617"), rules.level_of("FN-4617"), rule_of("FN-5514"), rule_of("FN-6601")
('critical', 'warning', 'critical', 'fork', 'integrity')
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Self

from fednode.node.timetable import Unreadable, parse_duration
from fednode.node.units import version_number

CRITICAL, WARNING, NOTICE = LEVELS = ("critical", "warning", "notice")
OFF = "off"
SPAN, PERCENT, VERSION, NUMBER = "span", "percent", "version", "number"
MANY = "FN-4613"  # in place of more alerts of one rule than anybody reads


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule as it is by itself. `codes`: of its alerts; `kind`: of its threshold, "" for none; `fixed`: it cannot be
    switched off."""

    name: str
    codes: tuple[str, ...]
    level: str
    kind: str = ""
    threshold: str = ""
    fixed: bool = False


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        rule.name: rule
        for rule in (
            Rule("cut", ("FN-4611",), CRITICAL),  # how long: [health] stale
            Rule("stale", ("FN-4610",), WARNING),
            Rule("backlog", ("FN-4612",), WARNING),  # how old, how many: [health] behind
            Rule("version", ("FN-4614",), NOTICE, VERSION, ""),  # "": this node's own
            Rule("clock", ("FN-4615",), WARNING, SPAN, "5m"),
            Rule("certificate", ("FN-4616",), WARNING, SPAN, "60d"),
            Rule("disk", ("FN-4617",), WARNING, PERCENT, "10%"),
            Rule("room", ("FN-7630",), CRITICAL, fixed=True),  # raised by node/keeper
            Rule("standby", ("FN-4618",), WARNING, SPAN, "1h"),
            Rule("away", ("FN-4524",), WARNING, fixed=True),  # raised by node/acks
            Rule("drill", ("FN-7640",), WARNING, fixed=True),  # how old: drill_days
            Rule("revoked", ("FN-4619",), WARNING, SPAN, "1d"),
            Rule("refusals", ("FN-4620",), WARNING, NUMBER, "3"),
            Rule("blank", ("FN-4621",), WARNING),
            Rule("late", ("FN-4622",), NOTICE, PERCENT, "10%"),
            Rule(
                *("fork", ("FN-5412", "FN-5513", "FN-5514", "FN-5515", "FN-6420", "FN-6422", "FN-6423"), CRITICAL),
                fixed=True,
            ),
            Rule("integrity", ("FN-6",), CRITICAL, fixed=True),
            Rule("refused", ("FN-5",), CRITICAL, fixed=True),
            Rule("other", ("FN-",), WARNING, fixed=True),
        )
    }
)
EVIDENCE = frozenset(("fork", "integrity", "refused", "other"))  # people close these
_RULE_OF = {code: rule.name for rule in RULES.values() for code in rule.codes} | {MANY: "stale"}


@dataclass(frozen=True, slots=True)
class Setting:
    """A rule as it holds here. `threshold`: seconds, per cent, a number, a version (major * 10,000 + minor), None."""

    name: str
    off: bool = False
    level: str = ""
    threshold: int | None = None


def rule_of(code: str) -> str:
    """The rule whose alert has this code."""
    found = (_RULE_OF.get(code[:end]) for end in (7, 4, 3))
    return next((one for one in found if one is not None), "other")


def level_of(code: str) -> str:
    """The level of an alert with this code, where nobody has set another."""
    return RULES[rule_of(code)].level


def _threshold(kind: str, text: str) -> int | None:
    """Raises Unreadable."""
    if kind == SPAN:
        return parse_duration(text)
    if kind == VERSION and (number := version_number(text)) is not None:
        return number
    if kind == PERCENT and re.fullmatch(r"\d{1,2}%", text, re.ASCII) and text != "0%":
        return int(text[:-1])
    if kind == NUMBER and re.fullmatch(r"[1-9]\d{0,3}", text, re.ASCII):
        return int(text)
    raise Unreadable(text)


def parse_rule(text: str) -> Setting:
    """One line of the settings (rule 1). Raises Unreadable."""
    name, *more = text.split()[:4] or [""]
    rule = RULES.get(name)
    if rule is None or not more or len(text.split()) > 3:
        raise Unreadable(text)
    found = Setting(name)
    for word in more:
        if word == OFF and len(more) == 1 and not rule.fixed:
            found = replace(found, off=True)
        elif word in LEVELS and not found.level:
            found = replace(found, level=word)
        elif found.threshold is None:
            found = replace(found, threshold=_threshold(rule.kind, word))
        else:
            raise Unreadable(text)
    return found


class Rules:
    """Every rule as it holds at a node."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._settings = settings

    @classmethod
    def of(cls, lines: Iterable[str]) -> Self:
        """As the settings say; the last line on a rule counts. Raises Unreadable."""
        given = {one.name: one for one in map(parse_rule, lines)}
        found = {}
        for name, rule in RULES.items():
            one = given.get(name, Setting(name))
            threshold = one.threshold
            if threshold is None and rule.threshold:
                threshold = _threshold(rule.kind, rule.threshold)
            found[name] = Setting(name, one.off, one.level or rule.level, threshold)
        return cls(found)

    def __getitem__(self, name: str) -> Setting:
        return self._settings[name]

    def __iter__(self) -> Iterator[Setting]:
        return iter(self._settings.values())

    def level_of(self, code: str) -> str:
        """The level of an alert that does not say its own."""
        return self._settings[rule_of(code)].level
