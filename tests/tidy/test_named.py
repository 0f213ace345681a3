"""What the docs name is there: tests, and the list of invariants whole."""

from __future__ import annotations

import re

import pytest

from fednode.sync import wire
from fednode.sync.states import LEGAL
from source import ROOT, sources

NAMED = re.compile(r"`(test_[a-z0-9_]+\.py)::(test_[a-z0-9_]+)`")
ROW = re.compile(r"^\| (\d+) \| `([a-z-]+)` \|", re.MULTILINE)
INVARIANTS = ROOT / "docs/invariants.md"


def test_every_test_that_the_docs_name_exists() -> None:
    there = {
        (source.name.rpartition("/")[2], name)
        for source in sources("tests")
        for name in re.findall(r"^(?:async )?def (test_\w+)", source.text, re.MULTILINE)
    }
    named = {found for page in (ROOT / "docs").glob("*.md") for found in NAMED.findall(page.read_text("utf-8"))}
    assert len(named) > 50
    missing = sorted("::".join(one) for one in named - there)
    if missing:
        pytest.fail("docs name tests that are not there:\n" + "\n".join(missing), pytrace=False)


def test_every_invariant_has_its_number_and_a_name_of_its_own() -> None:
    found = ROW.findall(INVARIANTS.read_text("utf-8"))
    assert [int(number) for number, _ in found] == list(range(1, 31))
    assert len({name for _, name in found}) == len(found)


def test_every_frame_stands_in_the_table_of_the_formats() -> None:
    table = (ROOT / "docs/formats.md").read_text("utf-8").split("### Frames")[1].split("###")[0]
    named = {
        name for row in re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }
    assert named == {frame.__name__ for legal in LEGAL.values() for frame in legal} - {wire.Unknown.__name__}
