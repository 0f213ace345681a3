"""Durations and sizes for people, and versions of the program to compare.

>>> human_ms(65_000, "en"), human_bytes(1536)
('1 min 5 s', '1.5 KiB')
>>> version_number("0.2.0"), version_number("a new one")
(2, None)
"""

from __future__ import annotations

import re

_VERSION = re.compile(r"(\d{1,4})\.(\d{1,4})(?:\..*)?")


def version_number(text: str) -> int | None:
    """A version as a number to compare (major * 10,000 + minor); None for what is none."""
    found = _VERSION.fullmatch(text.strip())
    return None if found is None else int(found[1]) * 10_000 + int(found[2])


def human_ms(ms: int, lang: str) -> str:
    """A duration for people."""
    seconds = ms // 1000
    units = (("d", "天", 86400), ("h", "小时", 3600), ("min", "分", 60), ("s", "秒", 1))
    parts = []
    for en, zh, size in units:
        count, seconds = divmod(seconds, size)
        if count:
            parts.append(f"{count} {zh if lang == 'zh' else en}")
    return " ".join(parts[:2]) or ("0 秒" if lang == "zh" else "0 s")


def human_bytes(count: int) -> str:
    """A size for people."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return ""
