"""TOML that people write: settings, catalogs. The one place that reads it.

Rules
1. What TOML itself does not allow is refused, with the line: whole numbers beyond 64 bits, too, which the library of
   Python reads and nothing behind it can show or store.
2. Nothing but ValueError is raised, however deep the brackets, however long the number.

>>> loads("days = 7")
{'days': 7}
>>> loads("days = 0x" + "f" * 5000)
Traceback (most recent call last):
...
ValueError: a whole number of more than 64 bits
"""

from __future__ import annotations

import tomllib
from typing import Any

INTEGER_MAX = (1 << 63) - 1


def loads(text: str) -> dict[str, Any]:
    """The document. Raises ValueError (tomllib's own is one) for anything else."""
    try:
        document = tomllib.loads(text)
        _check(document)
    except RecursionError as error:
        raise ValueError("too many brackets inside each other") from error
    return document


def _check(value: Any) -> None:
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _check(one)
    elif isinstance(value, int) and not -INTEGER_MAX - 1 <= value <= INTEGER_MAX:
        raise ValueError("a whole number of more than 64 bits")
