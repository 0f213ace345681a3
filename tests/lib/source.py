"""The project's own source, for the tests that check its style: each file read once, and parsed once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache, cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("proto", "crypto", "sync", "node")


class Source:
    """One Python file. `name` is its path from the root, as `sync/merge.py`."""

    def __init__(self, name: str) -> None:
        self.name, self.text = name, (ROOT / name).read_text(encoding="utf-8")

    @property
    def room(self) -> str:
        return self.name.split("/", 1)[0]

    @cached_property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.name)

    @cached_property
    def nodes(self) -> list[ast.AST]:
        """All that is in the tree."""
        return list(ast.walk(self.tree))

    def calls(self) -> Iterator[ast.Call]:
        return (node for node in self.nodes if isinstance(node, ast.Call))

    def imports(self) -> Iterator[tuple[int, str]]:
        """(line, dotted name) of each import: `x.y` for `from x import y`, with a dot before it for a relative one."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from ((node.lineno, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                prefix = "." * node.level + (node.module or "")
                yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file in the folders, generated code left out."""
    return tuple(source for folder in folders for source in _inside(folder))


@cache
def _inside(folder: str) -> tuple[Source, ...]:
    return tuple(
        Source(str(path.relative_to(ROOT)))
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
