"""Canonical JSON (RFC 8785): what is hashed or signed has one form.

>>> dumps({"b": 1, "a": "石"}).decode()
'{"a":"石","b":1}'
"""

from __future__ import annotations

import json
from typing import Any

import rfc8785

from fednode.crypto.errors import IntegrityError


def dumps(value: Any) -> bytes:
    """UTF-8 bytes of the one form. Raises IntegrityError FN-6206 for what JSON cannot say."""
    try:
        return rfc8785.dumps(value)
    except rfc8785.CanonicalizationError as error:
        raise IntegrityError("FN-6206", reason=str(error)[:200]) from error


def loads(data: bytes) -> Any:
    """The value of canonical JSON. Raises IntegrityError FN-6206 for any other form of it."""
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise IntegrityError("FN-6206", reason=str(error)[:200]) from error
    if dumps(value) != data:
        raise IntegrityError("FN-6206", reason="not canonical")
    return value
