"""The pages of the console: each module here exports `ROUTES` (a tuple of `Page`) and, where it stands in the
navigation, `NAV` (a tuple of `Nav`). Nothing else names them.

>>> "/node" in [entry.path for entry in navigation()]
True
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from fednode.node.web.visit import Nav, Page


@cache
def _modules() -> tuple[object, ...]:
    names = sorted(found.name for found in pkgutil.iter_modules(__path__))
    return tuple(importlib.import_module(f"{__name__}.{name}") for name in names)


def routes() -> tuple[Page, ...]:
    """Every page."""
    return tuple(page for module in _modules() for page in getattr(module, "ROUTES", ()))


def navigation() -> tuple[Nav, ...]:
    """The entries of the navigation, in their order."""
    found = [entry for module in _modules() for entry in getattr(module, "NAV", ())]
    return tuple(sorted(found, key=lambda entry: (entry.order, entry.path)))
