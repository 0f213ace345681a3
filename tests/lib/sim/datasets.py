"""A small catalog with a dataset for each merge rule, and what makes the simulator fast: pure functions asked the same
again and again by 31 nodes in one process are remembered.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any
from unittest import mock

from fednode.crypto.suite import Suite
from fednode.sync.catalog import Catalog
from fednode.sync.identity import LEVELS
from fednode.sync.merge import RULES


def _dataset(rule: str) -> dict[str, Any]:
    field = {"code": "id", "zh": "编号", "en": "Number", "type": "text", "max": 20, "required": True}
    others = [
        {"code": code, "zh": code, "en": code, "type": "text", "max": 20_000, "search": code == "a"} for code in "abc"
    ]
    everyone = list(LEVELS)
    names = {"name": rule, "zh": rule, "en": rule, "merge": rule, "key": ["id"]}
    return {**names, "writers": everyone, "readers": everyone, "field": [field, *others]}


@cache
def catalog(version: int) -> Catalog:
    """A version of the catalog; its datasets are named after their merge rules."""
    return Catalog.from_toml_dict({"version": version, "dataset": [_dataset(rule) for rule in RULES]})


_verify = cache(Suite.verify)
_from_json = cache(Catalog.from_json)


@contextmanager
def remembered() -> Iterator[None]:
    """Signatures that held need not be checked again, the same catalog need not be parsed again. Errors are not
    remembered."""
    collects = gc.isenabled()
    gc.disable()
    try:
        with (
            mock.patch.object(Suite, "verify", staticmethod(_verify)),
            mock.patch.object(Catalog, "from_json", staticmethod(_from_json)),
        ):
            yield
    finally:
        _verify.cache_clear()
        if collects:
            gc.enable()
