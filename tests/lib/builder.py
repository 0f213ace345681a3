"""The scripts that build releases, as modules: they are no package."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from source import ROOT


def module(name: str) -> Any:
    """`scripts/NAME.py`."""
    if str(ROOT / "scripts") not in sys.path:
        sys.path.append(str(ROOT / "scripts"))
    return importlib.import_module(name)
