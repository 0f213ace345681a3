"""The end of the daemon's log, with what may leave the machine: of each line when, how grave, which part of the
program, one of its constant messages, a code, counts.

>>> tail(['{"level": "info", "logger": "fednode.daemon", "event": "sync window", "x": "y"}'])
([{'level': 'info', 'logger': 'fednode.daemon', 'event': 'sync window'}], 0)
>>> tail(["panic: 91130100MA07", '{"level": "info", "logger": "root", "event": "hello"}'])
([], 2)
"""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

LINES_MAX = 2_000
LINE_CHARACTERS_MAX = 16_384
JOURNAL_S = 20
UNIT = "fednode"
OTHER = "other"
# Constant messages of this program; any other is `OTHER`.
EVENTS = frozenset(
    (
        *("no standby acknowledges", "a standby has caught up", "switchover", "not all is cosigned by the parent"),
        *("not taken back yet", "health not kept", "health left out", "store trouble", "writer failed"),
        *("session failed", "sync window", "errand", "exchange with the parent ended", "parent not reachable", "job"),
        *("disk nearly full", "room on the disk again", "alert not recorded", "damaged segment"),
        *("damaged segment mended", "views keep their day", "records not digested", "scrub", "damage", "alert"),
        *("session ended", "clock is off", "renewal refused", "renewal not usable", "certificate renewed"),
        *("the ports cannot be opened", "handover refused", "state.db is behind", "projection stopped"),
        *("the service manager does not listen", "not in the audit", "too many alerts", "unexpected error"),
    )
)
LEVELS = frozenset(("debug", "info", "warning", "error", "critical"))
NUMBERS = frozenset(
    ("attempt", "behind", "bytes", "changes", "count", "first", "end", "free", "lsn", "offset_ms", "open", "seconds")
)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]{8,15}Z?")
_LOGGER = re.compile(r"fednode(\.[a-z_]{1,20}){0,3}")
_CODE = re.compile(r"FN-[0-9]{4}")
_JOB = re.compile(r"[a-z]{1,12}")


def tail(lines: Iterable[str]) -> tuple[list[dict[str, Any]], int]:
    """What is taken of the last lines, and how many lines there were of which nothing is."""
    kept: deque[dict[str, Any]] = deque(maxlen=LINES_MAX)
    left_out = 0
    for line in lines:
        one = _taken(line[:LINE_CHARACTERS_MAX])
        if one is None:
            left_out += 1
        else:
            kept.append(one)
    return list(kept), left_out


def _taken(line: str) -> dict[str, Any] | None:
    try:
        said = msgspec.json.decode(line.encode("utf-8", "replace"))
    except msgspec.DecodeError:
        return None
    if not isinstance(said, dict) or not _matches(_LOGGER, said.get("logger")):
        return None
    level, event = said.get("level"), said.get("event")
    taken: dict[str, Any] = {"at": said["timestamp"]} if _matches(_TIME, said.get("timestamp")) else {}
    taken |= {"level": level if level in LEVELS else OTHER, "logger": said["logger"]}
    taken["event"] = event if event in EVENTS else OTHER
    for name, form in (("code", _CODE), ("job", _JOB)):
        if _matches(form, said.get(name)):
            taken[name] = said[name]
    return taken | {name: said[name] for name in sorted(NUMBERS & said.keys()) if isinstance(said[name], int | float)}


def _matches(form: re.Pattern[str], value: Any) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None


def journal(unit: str = UNIT) -> list[str]:
    """The last lines that the service has written, as the system's journal has them; none where there is no journal."""
    program = shutil.which("journalctl")
    if program is None:
        return []
    words = [program, "--unit", unit, "--lines", str(LINES_MAX), "--output", "cat", "--no-pager", "--quiet"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(words, capture_output=True, timeout=JOURNAL_S, check=False)
        return done.stdout.decode("utf-8", "replace").splitlines()
    return []


def file_lines(path: Path) -> Iterator[str]:
    """The last lines of a log file. Raises OSError."""
    with path.open("rb") as file:
        last = deque(file, maxlen=LINES_MAX)
    return (line.decode("utf-8", "replace").rstrip("\n") for line in last)
