"""The project's own source, for the tests that check its style: its files, parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("proto", "crypto", "sync", "node")


@dataclass(frozen=True, slots=True)
class Source:
    """One Python file. `name` is its path from the root, as `sync/merge.py`."""

    name: str
    text: str
    tree: ast.Module

    @property
    def room(self) -> str:
        return self.name.split("/", 1)[0]

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, dotted name) of each import: `x.y` for `from x import y`, with a dot before it for a relative one."""
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                prefix = "." * node.level + (node.module or "")
                yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


@cache
def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file in the folders, generated code left out."""
    return tuple(
        Source(str(path.relative_to(ROOT)), text := path.read_text(encoding="utf-8"), ast.parse(text, str(path)))
        for folder in folders
        for path in sorted((ROOT / folder).rglob("*.py"))
        if not path.name.endswith("_pb2.py")
    )


def dotted(node: ast.expr) -> str:
    """`time.time` for the expression that says so; "" for one that is not a dotted name."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""
