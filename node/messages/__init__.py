"""The one catalogue of words for people: `*.toml` in this folder, one file per area, each text in English and Chinese.

Rules
1. An error code is a table with `en` and `zh`, and optionally `en_hint` and `zh_hint`: what to do next. Any other text
   is a table with a dotted, quoted name (`["status.pending"]`) and `en` and `zh`.
2. A key stands in one file only. Both languages name the same `{parameters}`; tests/tidy checks it, and that every code
   raised in the packages is here.
3. Parameters may come from a peer: control and formatting characters are written as escapes, so no text can move the
   terminal's cursor, forge a line of a log or turn the writing direction. A parameter that is missing shows its name:
   words never fail.

>>> text("error.unknown", "en", code="FN-7999")
'error FN-7999'
>>> from fednode.crypto.errors import FednodeError
>>> error_text(FednodeError("FN-2001", option="--since", value="x\\x1b[2J"), "en")[0]
'--since: cannot read "x\\\\x1b[2J"'
"""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

from fednode.crypto.errors import FednodeError

LANGUAGES = ("en", "zh")
OF_THE_PEER = "FN-5508"  # the peer ended the exchange, with a code of its own
# Cc control, Cf formatting (direction marks too), Cs lone surrogates, Zl and Zp line and paragraph separators
_UNSAFE = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))


@cache
def catalogue() -> Mapping[str, Mapping[str, str]]:
    """Key -> {en, zh, en_hint?, zh_hint?}, of all files. Raises ValueError when a key stands twice or is malformed."""
    merged: dict[str, Mapping[str, str]] = {}
    files = (entry for entry in resources.files(__name__).iterdir() if entry.name.endswith(".toml"))
    for entry in sorted(files, key=lambda entry: entry.name):
        for key, value in tomllib.loads(entry.read_text(encoding="utf-8")).items():
            if key in merged:
                raise ValueError(f"messages/{entry.name}: {key} stands in another file too")
            if not isinstance(value, dict) or not all(isinstance(part, str) for part in value.values()):
                raise ValueError(f"messages/{entry.name}: {key} is not a table of texts (quote a dotted key)")
            merged[key] = value
    return merged


def text(key: str, lang: str, /, **params: Any) -> str:
    """The words for `key` in `lang` ("en" for any language that is not there). Raises KeyError for a key that is not in
    the catalogue: that is a bug."""
    entry = catalogue()[key]
    return _fill(entry.get(lang) or entry["en"], params)


def hint(key: str, lang: str, /, **params: Any) -> str:
    """What to do next, as a text has it; "" where it has none. Raises KeyError as `text` does."""
    entry = catalogue()[key]
    return _fill(entry.get(f"{lang}_hint") or entry.get("en_hint", ""), params)


def error_text(error: FednodeError, lang: str) -> tuple[str, str]:
    """What happened, and what to do next ("" for nothing). Never raises: a code without words shows itself."""
    entry = catalogue().get(error.code)
    if entry is None:
        return f"{text('error.unknown', lang, code=error.code)} {safe(str(error))}", ""
    hint = entry.get(f"{lang}_hint") or entry.get("en_hint", "")
    told, inner = getattr(error, "told", None), catalogue().get(str(error.params.get("code")))
    if error.code == OF_THE_PEER and told and inner is not None:  # its reason, in the words of this side
        detail = _fill(inner.get(lang) or inner["en"], told)
        hint = _fill(inner.get(f"{lang}_hint") or inner.get("en_hint", hint), {**error.params, **told})
        return _fill(entry.get(lang) or entry["en"], {**error.params, "detail": detail}), hint
    return _fill(entry.get(lang) or entry["en"], error.params), _fill(hint, error.params)


class _Params(dict[str, Any]):
    """Values for str.format_map, made safe to show; a name that is missing stands for itself."""

    def __missing__(self, name: str) -> str:
        return f"{{{name}}}"


def _fill(template: str, params: Mapping[str, Any]) -> str:
    values = _Params(
        (name, value if isinstance(value, int | float) else safe(str(value))) for name, value in params.items()
    )
    try:
        return template.format_map(values)
    except (ValueError, TypeError):  # a number format ({size:,}) met what is not a number: show the raw values
        return f"{template} {dict(values)}"


def safe(value: str) -> str:
    """A text as it may be shown (rule 3)."""
    if value.isascii() and value.isprintable():
        return value
    return "".join(
        character.encode("unicode_escape").decode() if unicodedata.category(character) in _UNSAFE else character
        for character in value
    )
