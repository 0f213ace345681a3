"""Misspelt keys in a file that a person wrote: found, and named with their place.

>>> class Field(msgspec.Struct):
...     name: str
>>> known_keys({"nmae": "x"}, Field)
Traceback (most recent call last):
    ...
fednode.sync.errors.Refused: FN-3206 (where=catalog, key=nmae, known=name)
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from fednode.sync.errors import Refused


def known_keys(table: Mapping[str, Any], kind: type[msgspec.Struct], where: str = "") -> None:
    """Check the keys of a table, and of those in it, against the structs that it is to become (the shape of the rest is
    msgspec's to check). `where`: the place, for the error. Raises Refused FN-3206, which names the place."""
    known = _types(kind)
    here = f"{where} {table.get('name') or table.get('code') or table.get('value') or ''}".strip()
    for key, value in table.items():
        if key not in known:
            raise Refused("FN-3206", where=here or "catalog", key=key, known=", ".join(sorted(known)))
        inner = _struct_in(known[key])
        for one in value if isinstance(value, list) else [value]:
            if inner is not None and isinstance(one, dict):
                known_keys(one, inner, here)


@cache
def _types(kind: type[msgspec.Struct]) -> Mapping[str, Any]:
    """Key in the file -> annotation (to look them up is most of the reading of a catalog)."""
    return {one.encode_name: one.type for one in msgspec.structs.fields(kind)}


def _struct_in(annotation: Any) -> type[msgspec.Struct] | None:
    """The struct that an annotation is made of, as `Field` in `tuple[Field, ...]`."""
    for one in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(one, type) and issubclass(one, msgspec.Struct):
            return one
    return None
