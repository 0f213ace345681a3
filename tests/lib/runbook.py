"""docs/recovery.md as the tests follow it: the commands of a section, in order.

>>> # for home, *words in commands("Changing places on purpose"): ...
"""

from __future__ import annotations

import re
import shlex

from processes import ROOT

PAGE = (ROOT / "docs/recovery.md").read_text("utf-8")


def commands(title: str) -> list[list[str]]:
    """The commands of a section of the page: the words after `fednode`."""
    section = PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]
    return [shlex.split(line) for line in re.findall(r"^    fednode (.*)$", section, re.MULTILINE)]
