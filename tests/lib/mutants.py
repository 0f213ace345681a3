"""Planted bugs: each is a text to find in one of the program's files, and what to put in its place.

Rules
1. They lie in tests/mutants/*.toml. `old` is found by its words, not by a line number, so that it stays true when code
   moves; it must be there exactly once. A bug that cannot be planted any more is an error (`Stale`), never left out.
2. `breaks` is the number of the invariant (docs/invariants.md) that no longer holds, 0 for what none of them names;
   `tests` are those that are to notice, and nothing else is run.
3. `why` says in one line what is broken, as somebody would have broken it.
4. With the bug in it the file must still be Python: `plant` parses it.

>>> one = Mutant("x", "clock", 24, ("tests/x.py::test_y",), (Edit("a.py", "1 < 2", "1 <= 2"),))
>>> one.edits[0].applied("if 1 < 2:\\n    pass\\n")
'if 1 <= 2:\\n    pass\\n'
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from source import PACKAGES, ROOT

FOLDER = ROOT / "tests/mutants"
KEYS = {"name", "why", "breaks", "tests", "file", "old", "new", "also"}


class Stale(Exception):
    """A planted bug that does not fit the program any more."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One place. `file`: from the root, as `sync/merge.py`."""

    file: str
    old: str
    new: str

    def applied(self, text: str) -> str:
        """The file's text with the bug in it. Raises Stale."""
        if (found := text.count(self.old)) != 1:
            raise Stale(f"{self.file}: `old` is there {found} times, not once:\n{self.old}")
        return text.replace(self.old, self.new)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One planted bug; see the rules."""

    name: str
    why: str
    breaks: int
    tests: tuple[str, ...]
    edits: tuple[Edit, ...]

    def plant(self, root: Path) -> dict[Path, str]:
        """The files under `root` with the bug in them; nothing is written. Raises Stale."""
        texts: dict[Path, str] = {}
        for edit in self.edits:
            path = root / edit.file
            if edit.file.split("/")[0] not in PACKAGES or not path.is_file():
                raise Stale(f"{self.name}: {edit.file} is no file of the program")
            try:
                texts[path] = edit.applied(texts.get(path) or path.read_text("utf-8"))
            except Stale as error:
                raise Stale(f"{self.name}: {error}") from None
        for path, text in texts.items():
            try:
                ast.parse(text)
            except SyntaxError as error:
                raise Stale(f"{self.name}: {path.name} is no Python with it: {error}") from error
        return texts


def load(folder: Path = FOLDER) -> list[Mutant]:
    """All planted bugs, file by file. Raises Stale for one that is not written as the rules say."""
    found = []
    for path in sorted(folder.glob("*.toml")):
        try:
            document = tomllib.loads(path.read_text("utf-8"))
        except tomllib.TOMLDecodeError as error:
            raise Stale(f"{path.name}: {error}") from error
        found += [_mutant(path.name, table) for table in document.get("mutant", [])]
    names = [one.name for one in found]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise Stale(f"two of one name: {', '.join(doubled)}")
    return found


def _mutant(file: str, table: Mapping[str, Any]) -> Mutant:
    name = str(table.get("name", "?"))
    if wrong := sorted(KEYS - {"also"} - set(table)) + sorted(set(table) - KEYS):
        raise Stale(f"{file} {name}: lacks, or has and should not: {', '.join(wrong)}")
    edits = [Edit(one["file"], one["old"], one["new"]) for one in (table, *table.get("also", []))]
    return Mutant(name, table["why"], table["breaks"], tuple(table["tests"]), tuple(edits))
