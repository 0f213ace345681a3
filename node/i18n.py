"""Which language to speak: Chinese or English.

Rules
1. The flag `--lang` decides, then `FEDNODE_LANG`, then the locale as POSIX orders it: `LC_ALL`, `LC_MESSAGES`, `LANG`;
   the first that is set and not empty.
2. Anything that begins with `zh` is Chinese, all else English. Nothing here fails: words are needed to report failures.

>>> language("", {"LANG": "zh_CN.UTF-8"}), language("en", {"LANG": "zh_CN.UTF-8"}), language("", {})
('zh', 'en', 'en')
"""

from __future__ import annotations

from collections.abc import Mapping

VARIABLES = ("FEDNODE_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def language(flag: str | None, environ: Mapping[str, str]) -> str:
    """ "zh" or "en". `flag`: the value of `--lang`, empty or None when it was not given; `environ`: the environment."""
    chosen = flag or next((environ[name] for name in VARIABLES if environ.get(name)), "")
    return "zh" if chosen.lower().startswith("zh") else "en"
