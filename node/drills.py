"""The drills of a home: reports that stay, what the audit hears of them, and whether the next one is overdue.

Rules
1. A drill itself writes nothing but its report (`node.drill`). The daemon's job `drill` notes in the audit what was
   rehearsed since, with the report's SHA-256, so it goes up; and raises an alert when the last good one is too old.
2. Where there was none yet, time counts from the day on which the node was made.
3. What is left of a drill's copies (it was killed, or they were kept) goes as soon as something was stripped
   (`forget_copies`): they hold it whole.

>>> overdue(Drilled(0, True), 30, 31 * DAY_MS), overdue(Drilled(0, True), 0, 31 * DAY_MS)
(True, False)
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.certs import iso
from fednode.crypto.suite import SUITE_1
from fednode.node import files
from fednode.node import journal as events
from fednode.node.home import Home, held
from fednode.node.store import Store
from fednode.sync.errors import StoreError

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.writer import Writer

VERSION = 1
FOLDER, REPORT, PAGE = "drills", "report.json", "report.html"
COPIES = "shadow"  # beside the report, while a drill runs
PASSED, FAILED, LEFT_OUT = "passed", "failed", "left out"
DAY_MS = 86_400_000
NOTED = "drill_noted"  # up to which drill the audit has heard of them (meta)
OVERDUE = "FN-7640"


class Step(msgspec.Struct):
    """One step: `outcome`, what it took, what was found; `code`: why it failed."""

    name: str
    outcome: str = PASSED
    took_s: float = 0.0
    found: dict[str, Any] = {}
    code: str = ""
    params: dict[str, str] = {}


class Report(msgspec.Struct):
    """All that a drill found. Times are Unix milliseconds by this node's clock; `files`: SHA-256 before and after."""

    v: int
    at_ms: int
    node: str
    name: str
    stands_for: str
    incarnation: int
    domain: str
    root_sha256: str
    software: str
    host: str
    by: str
    daemon: bool
    steps: list[Step] = []
    rpo_changes: int | None = None
    rpo_ms: int | None = None
    rto_s: float | None = None
    files: dict[str, tuple[str, str]] = {}
    passed: bool = False

    def step(self, name: str) -> Step | None:
        return next((one for one in self.steps if one.name == name), None)


@dataclass(frozen=True, slots=True)
class Drilled:
    """A drill that was made."""

    at_ms: int
    passed: bool
    folder: str = ""
    sha256: str = ""
    rpo_ms: int | None = None
    rto_s: float | None = None


def history(home: Home) -> list[Drilled]:
    """The drills of a home, the newest first; what cannot be read is passed over."""
    found = []
    for path in sorted((home.path / FOLDER).glob(f"*/{REPORT}"), reverse=True):
        with contextlib.suppress(OSError, *files.UNREADABLE):
            data = path.read_bytes()
            one = msgspec.json.decode(data, type=Report)
            sha256 = SUITE_1.hash(data).hex()
            found.append(Drilled(one.at_ms, one.passed, str(path.parent), sha256, one.rpo_ms, one.rto_s))
    return found


def forget_copies(home: Path) -> None:
    """The copies of drills that do not run any more (rule 3)."""
    for left in (home / FOLDER).glob(f"*/{COPIES}"):
        with held(left) as alone:
            if alone:
                shutil.rmtree(left, ignore_errors=True)


def overdue(last: Drilled, days: int, now_ms: int) -> bool:
    """Whether the last good drill is too old. `days` 0: nobody asks."""
    return days > 0 and now_ms - last.at_ms > days * DAY_MS


def document(report: Report) -> bytes:
    """The report for machines."""
    return msgspec.json.format(msgspec.json.encode(report))


def write(report: Report, folder: Path, page: str) -> tuple[Path, Path]:
    """Put the report on disk, for machines and for people. Raises StoreError FN-7617."""
    paths = (folder / REPORT, folder / PAGE)
    try:
        files.write(paths[0], document(report))
        files.write(paths[1], page.encode())
    except OSError as error:
        raise StoreError("FN-7617", path=str(folder), reason=error.strerror or str(error)) from error
    return paths


# ---------------------------------------------------------------- what the daemon makes of it


def standing(app: App, store: Store | None = None) -> dict[str, Any] | None:
    """When the last drill was, and whether the next one is overdue; None where nobody asks for drills: at what is no
    standby and has made none. `store`: of another thread."""
    made = history(app.home)
    if not app.trust.me.stands_for and not made:
        return None
    good = next((one for one in made if one.passed), None)
    late = _late(app, store or app.store, good)
    last = made[0] if made else None
    return {
        "last_ms": last.at_ms if last else None,
        "passed": last.passed if last else None,
        "good_ms": good.at_ms if good else None,
        "rpo_ms": last.rpo_ms if last else None,
        "rto_s": last.rto_s if last else None,
        "days": app.config.drill_days,
        "overdue": late,
        "report": str(Path(last.folder) / PAGE) if last else None,
    }


def _late(app: App, store: Store, good: Drilled | None) -> bool:
    """Where there was none yet, from the day on that the node was made."""
    return overdue(good or Drilled(since_ms(store, app.trust.node), True), app.config.drill_days, app.now_ms())


def note(app: App, writer: Writer) -> dict[str, Any]:
    """Tell the audit of drills that were made since, and raise an alert when the last good one is too old."""
    made, journal, store = history(app.home), app.journal(writer), writer.store
    known_ms = int(store.meta(NOTED) or 0)
    news = [one for one in reversed(made) if one.at_ms > known_ms]
    for one in news:
        told: dict[str, Any] = {"at": iso(one.at_ms // 1000), "report": one.sha256}
        told |= {} if one.rpo_ms is None else {"rpo_ms": one.rpo_ms}
        told |= {} if one.rto_s is None else {"rto_ms": round(one.rto_s * 1000)}
        journal.event("drill", events.DONE if one.passed else events.FAILED, **told)
        with store.write() as tx:
            tx.set_meta(NOTED, one.at_ms)
    good = next((one for one in made if one.passed), None)
    late = _late(app, store, good)
    if late:
        since = iso(good.at_ms // 1000) if good else "-"
        journal.alert(OVERDUE, app.trust.node, {"node": app.trust.node, "since": since, "days": app.config.drill_days})
    return {"noted": len(news), "overdue": late}


def since_ms(store: Store, node: str) -> int:
    """Since when there is a node to drill: its own first change."""
    rows = store.rows(
        """select min(s.last_hlc) from segment s join log l on l.id = s.log_id where l.origin = ? and s.first = 0""",
        node,
    )
    return (rows[0][0] or 0) >> 16
