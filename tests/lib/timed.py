"""A catalog of which records have their time, and a clock that is set by hand.

>>> Clock()() == START_MS
True
"""

from __future__ import annotations

from typing import Any

DAY_MS = 86_400_000
START_MS = 1_780_000_000_000
CATALOG: dict[str, Any] = {
    "version": 1,
    "dataset": [
        {
            "name": name,
            "zh": name,
            "en": name,
            "key": ["id"],
            "merge": merge,
            "writers": ["province"],
            "readers": ["province"],
            "retention": kept,
            "field": [
                {
                    "code": "id",
                    "zh": "编号",
                    "en": "Number",
                    "type": "text",
                    "max": 40,
                    "required": True,
                    "search": True,
                },
                {"code": "text", "zh": "内容", "en": "Text", "type": "text", "max": 200},
                {"code": "until", "zh": "有效期", "en": "Until", "type": "date", "no_end": "2099-12-31"},
            ],
        }
        for name, merge, kept in (
            ("timed", "latest", {"action": "strip", "field": "until", "days": 30}),
            ("shown", "latest", {"action": "withdraw", "field": "until", "days": 30}),
            ("lasting", "latest", {}),
            ("fields", "field", {}),
        )
    ],
}


class Clock:
    """Unix milliseconds: set `ms`."""

    def __init__(self) -> None:
        self.ms = START_MS

    def __call__(self) -> int:
        return self.ms
