"""The worked examples in the docstrings work."""

from __future__ import annotations

import doctest
import importlib

import pytest

from source import PACKAGES, Source, sources

EXAMPLES = [source for source in sources(*PACKAGES, "src") if ">>>" in source.text]


def module_name(source: Source) -> str:
    path = source.name.removeprefix("src/fednode/").removesuffix("__init__.py").removesuffix(".py").strip("/")
    return ".".join(("fednode", *path.split("/"))).rstrip(".")


@pytest.mark.parametrize("name", [module_name(source) for source in EXAMPLES])
def test_examples(name: str) -> None:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.REPORT_NDIFF)
    assert results.failed == 0, "see the output above"
