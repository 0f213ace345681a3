"""How things are said on a page: its language, and what templates call to put numbers and times into words.

>>> chosen("", "zh-CN,zh;q=0.9,en;q=0.8", ""), chosen("en", "zh", ""), chosen("", "fr", "zh"), chosen("", "", "")
('zh', 'en', 'zh', 'en')
>>> chosen("", "en;q=0.3, zh;q=0.7", "")
'zh'
"""

from __future__ import annotations

from datetime import UTC, datetime

from fednode.node.messages import LANGUAGES, catalogue, text

# A state has a shape of its own, beside its colour: whoever sees no colours, sees it all the same.
SHAPES = {
    "ok": "●",
    "behind": "◐",
    "stale": "▲",
    "never": "○",
    "unknown": "?",
    "alert": "◆",
    "revoked": "✕",
    "superseded": "⊘",
}


LEVEL_SHAPES = {"critical": "◆", "warning": "▲", "notice": "●"}


def chosen(cookie: str, accepted: str, default: str) -> str:
    """The language of a page: what the reader has chosen, what the browser asks for, what the node is set to."""
    if cookie in LANGUAGES:
        return cookie
    asked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accepted[:200].split(",")):
        name, _, weight = part.strip().partition(";q=")
        try:
            quality = float(weight or 1)
        except ValueError:
            continue
        if name.lower()[:2] in LANGUAGES and quality > 0:
            asked.append((-quality, place, name.lower()[:2]))
    return min(asked)[2] if asked else default if default in LANGUAGES else "en"


def worded(lang: str, kind: str, name: str) -> str:
    """`state.ok`, `level.city` in words; a name that has none as it stands."""
    return named(lang, f"{kind}.", name)


def named(lang: str, prefix: str, name: str) -> str:
    """As `worded`, for keys that go on without a dot: `alerts.rule_cut`."""
    return text(prefix + name, lang) if prefix + name in catalogue() else name


def moment(ms: int) -> str:
    """A time as ISO 8601 in UTC, to the second: what a browser puts into its own zone."""
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
