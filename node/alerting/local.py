"""alerts.db: what a node keeps of alerts for itself: which of its rules hold, and what is silenced until when.

Rules
1. The alerts themselves are in `sys.alerts`. Whoever loses this file loses its silences, and tells what is open once
   more; what holds is found again, and what is open already is taken as it is.
2. A silence always has an end, at most `SILENCE_DAYS_MAX` away. It belongs to this node: nobody above or below hears
   of it. What is silenced is shown as such, and told to nobody.

>>> local = Local.open(Path(":memory:")); local.silence("rule", "disk", 1000, 0, "alice", "new disk on its way").target
'disk'
>>> [one.target for one in local.silences(999)], local.silences(1000), local.unsilence("rule", "disk")
(['disk'], [], True)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from fednode.node import sqlite
from fednode.node.schema import File, alerts_migrations, opened
from fednode.sync.errors import StoreError

CACHE_KIB = 1_024
SILENCE_DAYS_MAX = 366
OF_RULE, OF_NODE, OF_AREA = KINDS = ("rule", "node", "area")


@dataclass(frozen=True, slots=True)
class Silence:
    """`target`: a rule, a node, or an area with all below it."""

    kind: str
    target: str
    until_ms: int
    at_ms: int
    by: str
    note: str

    def covers(self, rule: str, node: str, area: str) -> bool:
        """Whether it is about an alert of this rule, about this node, in this area."""
        if self.kind == OF_AREA:
            return area.startswith(self.target)
        return self.target == (rule if self.kind == OF_RULE else node)


class Local(File):
    """Not thread-safe: one for each thread."""

    @classmethod
    def open(cls, path: Path) -> Self:
        """The file, made where there is none. Raises StoreError."""
        return cls(opened(path, alerts_migrations, synchronous="FULL", cache_kib=CACHE_KIB, secure=False), path)

    # ------------------------------------------------------------ what holds

    def active(self) -> dict[str, tuple[str, int | None]]:
        """Of each alert whose cause holds its rule, and since when it does not hold any more (None: it does)."""
        return {key: (rule, gone) for key, rule, gone in self._c.execute("select key, rule, gone_ms from active")}

    def set_active(self, news: Mapping[str, tuple[str, int | None]], ended: Iterable[str]) -> None:
        """Keep what has changed of it."""
        if not news and not ended:
            return
        with sqlite.transaction(self._c, self.path) as c:
            c.executemany("delete from active where key = ?", [(key,) for key in ended])
            c.executemany("insert or replace into active values (?, ?, ?)", [(key, *one) for key, one in news.items()])

    # ------------------------------------------------------------ silences

    def silence(self, kind: str, target: str, until_ms: int, now_ms: int, by: str, note: str) -> Silence:
        """Keep something quiet; one that there was of it is replaced."""
        one = Silence(kind, target, until_ms, now_ms, by, note)
        with sqlite.transaction(self._c, self.path) as c:
            c.execute("delete from silence where until_ms <= ?", (now_ms,))
            c.execute(
                "insert or replace into silence (kind, target, until_ms, at_ms, by, note) values (?, ?, ?, ?, ?, ?)",
                (kind, target, until_ms, now_ms, by, note),
            )
        return one

    def unsilence(self, kind: str, target: str) -> bool:
        """Whether there was one."""
        with sqlite.transaction(self._c, self.path) as c:
            return bool(c.execute("delete from silence where kind = ? and target = ?", (kind, target)).rowcount)

    def silences(self, now_ms: int) -> list[Silence]:
        """Those whose end has not come, the first to end first."""
        rows = self._c.execute(
            """select kind, target, until_ms, at_ms, by, note from silence where until_ms > ?
               order by until_ms, id""",
            (now_ms,),
        )
        return [Silence(*row) for row in rows]


def if_readable(path: Path) -> AbstractContextManager[Local | None]:
    """The file for who only shows what is in it; None where there is none yet, or it cannot be read."""
    if not path.exists():
        return nullcontext()
    try:
        return closing(Local.open(path))
    except StoreError:
        return nullcontext()
