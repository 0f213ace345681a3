"""The documentation as a site: what docs/site/zensical.toml lists, built by Zensical, in strict mode.

Rules
1. The pages are those of the checkout, at their own places, so their links hold in both; what the settings name and
   nothing else is copied.
2. One thing is rewritten: `\\|` in the code of a table, which GitHub and the terminal want and this generator would
   show.
3. Nothing of a site is loaded from a network, and its search works where it is opened as a file.

>>> piped("| `a\\\\|b` | c |")
'| `a|b` | c |'
>>> piped("no table: `a\\\\|b`")
'no table: `a\\\\|b`'
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SETTINGS = ROOT / "docs/site/zensical.toml"
BESIDE = ("LICENSE", "docs/images", "docs/site/iframe-worker.js", "docs/site/print.css")


def settings() -> dict[str, Any]:
    """The generator's settings."""
    project: dict[str, Any] = tomllib.loads(SETTINGS.read_text("utf-8"))["project"]
    return project


def listed(entries: list[dict[str, Any]]) -> Iterator[str]:
    """The pages of a navigation, by their paths, in order."""
    for entry in entries:
        for what in entry.values():
            if isinstance(what, str):
                yield what
            else:
                yield from listed(what)


def piped(line: str) -> str:
    """A line of a page as this generator wants it."""
    return re.sub(r"`[^`]*`", lambda code: code[0].replace("\\|", "|"), line) if line.startswith("|") else line


def copy(source: Path) -> None:
    """Everything that the site is made of, into a folder."""
    for name in (*listed(settings()["nav"]), *BESIDE):
        there = source / name
        there.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, there)
        elif name.endswith(".md"):
            there.write_text("\n".join(map(piped, (ROOT / name).read_text("utf-8").split("\n"))), "utf-8")
        else:
            shutil.copy(ROOT / name, there)


def build(folder: Path) -> int:
    """The site, in a folder whose contents it replaces; the generator's exit code."""
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        copy(work / "source")
        shutil.copy(SETTINGS, work)
        done = subprocess.run(
            [sys.executable, "-m", "zensical", "build", "--strict", "--clean", "--config-file", work / SETTINGS.name],
            cwd=work,
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            # What is wrong comes before the trace of the program itself.
            print((done.stdout + done.stderr.partition("Traceback")[0]).strip(), file=sys.stderr)
            return 1
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(work / "site", folder)
    return 0


def main() -> int:
    """Build it where the caller says."""
    if len(sys.argv) != 2:
        print("usage: scripts/docs FOLDER", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.parent.mkdir(parents=True, exist_ok=True)
    code = build(folder)
    if not code:
        print(f"{len(list(folder.rglob('*.html')))} pages: {folder / 'index.html'}")
    return code


if __name__ == "__main__":
    sys.exit(main())
