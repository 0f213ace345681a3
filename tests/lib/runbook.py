"""Pages of the documentation as the tests follow them: `commands` of a section of docs/recovery.md one by one, or all
of a page as one shell script (`script`), as a reader would type it.

>>> # for home, *words in commands("Changing places on purpose"): ...
>>> # subprocess.run(["bash", "-c", script("faq.md", {"^sudo systemctl": "needs systemd"})])
"""

from __future__ import annotations

import re
import shlex
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
    """The commands of a section of the page: the words after `fednode`."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^    fednode (.*)$", section, re.MULTILINE)]


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
