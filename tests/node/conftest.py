"""What many tests of a node begin with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chain import Chain


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    """The nodes of `chain`, which have nothing yet."""
    found = Chain(tmp_path)
    yield found
    found.close()
