"""A small catalog with a dataset for each merge rule."""

from __future__ import annotations

from functools import cache
from typing import Any

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
