"""Canonical JSON (RFC 8785): what is hashed or signed has one form.

Rules
1. `dumps` gives the one form, or refuses what has none: NaN, integers beyond 2^53 - 1, half a surrogate pair.
2. `loads` takes the one form alone: a key given twice, a space, a number written otherwise could be read in two ways.
3. Flat objects of text, whole numbers, booleans, null and lists of text, which is what records and the profiles of
   certificates are, take a fast path (ten times as fast); the tests hold it to the library's bytes.

>>> dumps({"b": 1, "a": "石"}).decode()
'{"a":"石","b":1}'
"""

from __future__ import annotations

import json
from typing import Any

import msgspec
import rfc8785

from fednode.crypto.errors import IntegrityError

INTEGER_MAX = 2**53 - 1
# Keys sort by UTF-16 code unit; the fast encoder sorts by code point, which is the same below the surrogates.
_BEFORE_SURROGATES = "\ud7ff"

_fast = msgspec.json.Encoder(order="sorted").encode


def dumps(value: Any) -> bytes:
    """UTF-8 bytes of the one form. Raises IntegrityError FN-6206 for what JSON cannot say."""
    try:
        return _fast(value) if _is_plain(value) else rfc8785.dumps(value)
    except (rfc8785.CanonicalizationError, UnicodeError, RecursionError) as error:
        raise IntegrityError("FN-6206", reason=str(error)[:200]) from error


def _is_plain(value: Any) -> bool:
    if type(value) is not dict:
        return False
    for key, item in value.items():
        if type(key) is not str or not (key.isascii() or max(key) <= _BEFORE_SURROGATES):
            return False
        kind = type(item)
        if kind is str or item is None or kind is bool:
            continue
        if kind is list and all(type(one) is str for one in item):
            continue
        if kind is not int or not -INTEGER_MAX <= item <= INTEGER_MAX:
            return False
    return True


def _number(text: str) -> int | float:
    """All JSON numbers are doubles to RFC 8785, and those from 2^53 to 10^21 are written without an exponent."""
    return int(text) if len(text) < 16 or abs(int(text)) <= INTEGER_MAX else float(text)


def loads(data: bytes) -> Any:
    """The value of canonical JSON. Raises IntegrityError FN-6206 for any other form of it."""
    try:
        value = json.loads(data.decode(), parse_int=_number)  # bytes alone would let json guess UTF-16
    except (ValueError, RecursionError) as error:
        raise IntegrityError("FN-6206", reason=str(error)[:200]) from error
    if dumps(value) != data:
        raise IntegrityError("FN-6206", reason="not canonical")
    return value
