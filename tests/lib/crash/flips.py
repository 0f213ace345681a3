"""One flipped bit in a database of a node: who notices.

>>> # tally = flip(life, seed, 1000); tally.silent
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import traceback
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crash.images import Image, images
from crash.lab import Commits, States, contents, go_on, in_memory, in_parts
from crash.life import LOG, STATE, Life
from crash.pages import Pages
from fednode.crypto.errors import FednodeError
from fednode.node import audit, erasing, sqlite
from fednode.node.app import App
from fednode.node.audit import Problem
from fednode.node.config import Config
from fednode.node.scrub import DAY_MS, Scrub, State
from fednode.node.table_scrub import Tables
from sim.quick import remembered

FAULT = "a fault of the program"
OLDER = "nobody: an older store, whose end nobody else had seen"


@dataclass
class Tally:
    """How many flips were noticed by what. `silent`: (file, byte, bit, tables) of those that changed what is said and
    were not, or at which the program ended by a fault of its own. A log.db that is what it was after an earlier commit
    is none of them: nothing of it is wrong, and that its end is missing can be known only by who has seen that
    (docs/security.md)."""

    seen: Counter[str] = field(default_factory=Counter)
    silent: list[tuple[str, int, int, str]] = field(default_factory=list)


def tables(path: Path) -> dict[str, str]:
    """A digest over each table of a database, over its schema, and over what SQLite finds in its indexes. Left out is
    what is never said and never used:
    - in state.db the number and the time of its migration: nobody reads them (in log.db they are summed);
    - in state.db's `meta` `fresh`, up to the cursor: what was erased up to there was stripped before state.db was made,
      and what lies before the cursor is not taken in again;
    - of full text the bytes that it is made of, where each word is found in the same places of the same records, which
      have as many words (`words`): FTS5 keeps counts there for ranking, which nobody asks for, and for its own
      housekeeping, and prefixes of words that are as good when longer."""
    found: dict[str, str] = {}
    with closing(sqlite.sqlite3.connect(str(path))) as connection:
        shape = connection.execute("select type, name, tbl_name, sql from sqlite_master").fetchall()
        found["schema"], state = repr(shape), path.name == STATE
        for (name,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            columns = "migration_set, name" if state and name == "_sqlite_migrations" else "*"
            rows = connection.execute(f"select {columns} from {name}").fetchall()
            if state and name == "meta":
                upto = dict(rows).get("lsn", 0)
                rows = [(k, 0 if k == "fresh" and isinstance(v, int) and 0 <= v <= upto else v) for k, v in rows]
            if name not in ("record_fts_data", "record_fts_idx"):
                found[name] = hashlib.sha256(repr(rows).encode()).hexdigest()
        if "record_fts" in found:
            found["words"] = words(connection)
        found["order"] = str(connection.execute("pragma integrity_check(1)").fetchone()[0])
    return found


def said(path: Path) -> str:
    """What a state.db says, whatever numbers it gave to records, datasets and areas."""
    with closing(sqlite.sqlite3.connect(str(path))) as connection:
        rows = [
            sorted(connection.execute(sql).fetchall(), key=repr)
            for sql in (
                """select d.name, a.code, r.key, r.op, r.effective, r.hlc, r.base, r.log, r.seq, r.schema_version,
                   r.payload from record r join dataset d on d.id = r.dataset join area a on a.id = r.area""",
                """select d.name, a.code, s.key, s.op, s.effective, s.hlc, s.base, s.log, s.seq, s.conflict
                   from superseded s join dataset d on d.id = s.dataset join area a on a.id = s.area""",
                """select key, value from meta
                   where key in ('store_id', 'lsn', 'chain', 'unclean', 'views', 'text_shape')""",
                "select name from sqlite_master",
            )
        ]
        connection.execute("create virtual table temp.places using fts5vocab(main, record_fts, instance)")
        found = connection.execute(
            """select p.term, p.offset, r.log, r.seq from places p left join record r on r.id = p.doc"""
        ).fetchall()
        order = connection.execute("pragma integrity_check(1)").fetchone()
        return hashlib.sha256(repr((rows, sorted(found, key=repr), order)).encode()).hexdigest()


def words(connection: sqlite.Connection) -> str:
    """All that full text can say: each word, and in which records it is found, there and by a search."""
    connection.execute("create virtual table temp.places using fts5vocab(main, record_fts, instance)")
    places = connection.execute("select * from places").fetchall()
    hits = [
        connection.execute("select rowid from record_fts where record_fts match ?", (f'"{word}"',)).fetchall()
        for word in sorted({place[0] for place in places})
    ]
    return hashlib.sha256(repr((places, hits)).encode()).hexdigest()


def whole(life: Life) -> Image:
    """The disk as the node left it at the end, the write-ahead log still there."""
    last = max(at for at, event in enumerate(life.trace, 1) if getattr(event, "path", "") == f"{LOG}-wal")
    return next(images(life.before, life.trace, 0, [last - 2]))


def scrubbed(app: App) -> list[Problem]:
    """What a round of the scrub finds."""
    scrub = Scrub(
        *(app.store, app.trust.directory, app.trust.node, 1, lambda: 0.0),
        Tables(app.store, app.home.state_db, app.trust),
    )
    scrub.state = State(started_ms=1)
    found = scrub.step(2 * DAY_MS)
    assert scrub.state.last_ended_ms
    return found


class Flipping:
    """One bit after the other. Who notices depends on the pages that SQLite shows, so it is asked once for all flips
    that leave the same (behind a flipped bit a write-ahead log ends, wherever in a frame that is)."""

    def __init__(self, life: Life, folder: Path) -> None:
        self._life, self._folder, self._home = life, folder, folder / "home"
        self._pages = Pages(folder / "pages")
        self._known: dict[tuple[bytes, bytes], tuple[str, str]] = {}
        self.image = whole(life)
        self._place(self.image)
        self._before = {name: tables(self._home / name) for name in (LOG, STATE)}
        with closing(App.open(self._home, Config())) as app:
            if found := _by_itself(app):
                raise AssertionError(f"nothing was flipped: {found}")
        self._said = said(self._home / STATE)
        states = States(folder / "states")
        self._older = frozenset(Commits.of(life, states).states) - {states.of(self.image)}

    def _place(self, image: Image) -> None:
        shutil.rmtree(self._home, ignore_errors=True)
        shutil.copytree(self._life.home, self._home)
        image.write(self._home)

    def flip(self, name: str, at: int, bit: int) -> tuple[str, str]:
        """(by what it was noticed, in which tables)."""
        data = bytearray(self.image.files[name])
        data[at] ^= 1 << bit
        flipped = self.image.with_file(name, bytes(data))
        key = self._pages.of(flipped, LOG), self._pages.of(flipped, STATE)
        if key not in self._known:
            self._place(flipped)
            self._known[key] = self._noticed(LOG if name.startswith(LOG) else STATE)
        return self._known[key]

    def _noticed(self, base: str) -> tuple[str, str]:
        changed, state = "", ""
        try:
            state = contents(self._home / LOG)
            before, after = self._before[base], tables(self._home / base)
            changed = ",".join(sorted(one for one in before.keys() | after.keys() if before.get(one) != after.get(one)))
            if not changed:
                return "harmless", ""
        except (sqlite.Error, UnicodeError):
            changed = "?"
        try:
            with closing(App.open(self._home, Config())) as app:
                by = _by_itself(app)
            if by:
                return by, changed
            if base == STATE and changed != "?" and said(self._home / base) == self._said:
                return "made again at the start", changed
            met = go_on(self._life, len(self._life.trace), self._home, self._folder) if base == LOG else []
        except (FednodeError, sqlite.Error) as error:
            return f"refused: {getattr(error, 'code', type(error).__name__)}", changed
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            traceback.print_exc()
            return FAULT, f"{type(error).__name__}: {error}"
        if met:
            return "first contact", changed
        return OLDER if state in self._older else "silent", changed


def _by_itself(app: App) -> str:
    """What of the node notices before it has met anybody."""
    records = app.records()
    with closing(records.projector):
        records.projector.catch_up()
        records.projector.index_text()
        erasing.clean(app.store, records.projector)
        if scrubbed(app):
            return "scrub"
        records.digest()
        return "verify" if audit.verify_store(app.store, app.trust).problems else ""


def flip(life: Life, seed: int, count: int, *, jobs: int = 1) -> Tally:
    """So many flips, one at a time, at places that the dice choose among all bytes of all databases. `jobs`: so many
    processes, each with a part of them."""
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder, remembered():

        def part(number: int) -> Tally:
            mine = Path(folder) / str(number)
            mine.mkdir()
            flipping, tally = Flipping(life, mine), Tally()
            rng = Random(f"{seed}/{number}/{jobs}")
            names = sorted(flipping.image.files)
            sizes = [len(flipping.image.files[name]) for name in names]
            for _ in range(count * number // jobs, count * (number + 1) // jobs):
                (name,) = rng.choices(names, sizes)
                at, bit = rng.randrange(len(flipping.image.files[name])), rng.randrange(8)
                by, table = flipping.flip(name, at, bit)
                tally.seen[by] += 1
                if by in ("silent", FAULT):
                    tally.silent.append((name, at, bit, table))
            return tally

        whole_tally = Tally()
        for one in in_parts(part, jobs):
            whole_tally.seen += one.seen
            whole_tally.silent += one.silent
        return whole_tally
