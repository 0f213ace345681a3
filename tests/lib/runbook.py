"""Pages of the documentation as the tests follow them: `commands` of a section of docs/recovery.md one by one, all
of a page as one shell script (`script`), as a reader would type it, or its command lines (`typed`, `named`).

>>> # for home, *words in commands("Changing places on purpose"): ...
>>> # subprocess.run(["bash", "-c", script("faq.md", {"^sudo systemctl": "needs systemd"})])
"""

from __future__ import annotations

import re
import shlex
import textwrap
from collections.abc import Iterator, Mapping

from processes import ROOT

PAGE = (ROOT / "docs/recovery.md").read_text("utf-8")
# A reader waits a moment for a daemon to start, or to stop; a script asks.
PRELUDE = r"""
set -euo pipefail
set -m
sudo() { "$@"; }
ready() {
  local port
  port=$(sed -n 's/^enrol_listen = ".*:\([0-9]*\)"/\1/p' "$1/config.toml")
  until (: < "/dev/tcp/127.0.0.1/$port") 2>/dev/null; do sleep 0.1; done
}
trap 'kill $(jobs -p) 2>/dev/null || true; wait || true' EXIT
"""


def commands(title: str) -> list[list[str]]:
    """The commands of a section of the page, in its blocks and in its sentences: the words after `fednode`."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    found = re.findall(r"^    fednode (.*)$|`fednode (--home [^`]*)`", section, re.MULTILINE)
    return [shlex.split(in_block or in_sentence) for in_block, in_sentence in found]


def lines(name: str) -> list[str]:
    """What a reader of a page types: the lines of its indented blocks, in order."""
    return list(_lines((ROOT / "docs" / name).read_text("utf-8")))


def _lines(text: str) -> Iterator[str]:
    inside, before = False, ""
    for line in text.splitlines():
        indented = line.startswith("    ")
        inside = indented and (inside or not before.strip())
        if inside:
            yield line[4:]
        before = line


def typed(name: str) -> list[str]:
    """The command lines of a page (a path from the checkout's root) that stand by themselves, in order: what follows
    `fednode`, without comments."""
    inside = (line for _, line in _told(name, by_themselves=True))
    found = (re.match(r"\s*(?:sudo )?(?:-u fednode )?fednode (.+)", line) for line in inside)
    return [re.sub(r"\s+#.*", "", match[1]).removesuffix("&").strip() for match in found if match]


def named(name: str) -> list[str]:
    """The command lines that a page names in a sentence or a table: what follows `fednode`."""
    text = "\n".join(line for _, line in _told(name, by_themselves=False))
    return [one.replace("\\|", "|") for one in re.findall(r"`(?:sudo )?fednode ([^`]+)`", text)]


def blocks(name: str) -> list[str]:
    """The blocks of code of a page, without what they are indented by."""
    text, found = (ROOT / name).read_text("utf-8"), [[""]]
    for line in text.splitlines():
        if line.startswith("    ") or (found[-1] and not line.strip()):
            found[-1].append(line)
        elif found[-1]:
            found.append([])
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [one for one in (*(textwrap.dedent("\n".join(lines)) for lines in found), *fenced) if one.strip()]


def _told(name: str, *, by_themselves: bool) -> Iterator[tuple[bool, str]]:
    """Lines of a page: those of its blocks of code, or all others."""
    fenced, inside, before = False, False, ""
    for line in (ROOT / name).read_text("utf-8").splitlines():
        if line.lstrip().startswith("```"):
            fenced = not fenced
        else:
            indented = line.startswith("    ")
            inside = indented and (inside or not before.strip())
            if (fenced or inside) == by_themselves:
                yield fenced, line
        before = line


def script(name: str, left_out: Mapping[str, str], replaced: Mapping[str, str] | None = None) -> str:
    """A page as one script for bash, which ends with the first command that fails. `left_out`: beginnings of lines
    (regular expressions) that no test can run, and why; `replaced`: texts that are others here (ports, folders, whose
    machine it is). Each of both must be there: what no page says any more is no exception."""
    todo = lines(name)
    unused = [form for form in left_out if not any(re.match(form, line) for line in todo)]
    unused += [old for old in replaced or {} if not any(old in line for line in todo)]
    if unused:
        raise ValueError(f"docs/{name} has no line {unused}")
    made = [PRELUDE]
    for line in todo:
        if any(re.match(form, line) for form in left_out):
            continue
        for old, new in (replaced or {}).items():
            line = line.replace(old, new)
        made.append(line)
        if started := re.search(r"fednode --home (\S+) run &$", line):
            made.append(f"ready {started[1]}")
        if line.startswith("kill "):
            made += [f"wait {job} || true" for job in line.split()[1:]]
    return "\n".join(made) + "\n"
