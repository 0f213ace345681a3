"""One flipped bit in a database of a node: who notices.

>>> # tally = flip(life, Random(1), 1000); tally["silent"]
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crash.images import Image, images
from crash.lab import go_on
from crash.life import LOG, STATE, Life
from fednode.crypto.errors import FednodeError
from fednode.node import audit, sqlite
from fednode.node.app import App
from fednode.node.audit import Problem
from fednode.node.config import Config
from fednode.node.table_scrub import Tables


@dataclass
class Tally:
    """How many flips were noticed by what. `silent`: (file, byte, bit, tables) of those that changed what is said and
    were not."""

    seen: Counter[str] = field(default_factory=Counter)
    silent: list[tuple[str, int, int, str]] = field(default_factory=list)


def tables(path: Path) -> dict[str, str]:
    """A digest over each table of a database."""
    found: dict[str, str] = {}
    with closing(sqlite.sqlite3.connect(str(path))) as connection:
        for (name,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            rows = repr(connection.execute(f"select * from {name}").fetchall())
            found[name] = hashlib.sha256(rows.encode()).hexdigest()
    return found


def whole(life: Life, rng: Random) -> Image:
    """The disk as the node left it at the end, the write-ahead log still there."""
    last = max(at for at, event in enumerate(life.trace, 1) if getattr(event, "path", "") == f"{LOG}-wal")
    return next(images(life.before, life.trace, rng, [last - 2]))


def compared(app: App) -> list[Problem]:
    """What the scrub finds in the record table."""
    found, after = [], 0
    while True:
        after, _, problems = Tables(app.store, app.home.state_db, app.trust.dataset).check(after)
        found += problems
        if not after:
            return found


def _noticed(life: Life, home: Path, before: dict[str, dict[str, str]], name: str) -> tuple[str, str]:
    """(by what, which tables changed)."""
    base = LOG if name.startswith(LOG) else STATE
    changed = ""
    try:
        after = tables(home / base)
        changed = ",".join(
            sorted(one for one in before[base].keys() | after.keys() if before[base].get(one) != after.get(one))
        )
        if not changed:
            return "harmless", ""
    except (sqlite.Error, UnicodeError):
        changed = "?"
    try:
        with closing(App.open(home, Config())) as app:
            if app.store.rows("pragma quick_check")[0][0] != "ok":
                return "sqlite", changed
            if audit.verify_store(app.store, app.trust).problems:
                return "verify", changed
            records = app.records()
            with closing(records.projector):
                if records.projector.connection.execute("pragma quick_check").fetchone()[0] != "ok":
                    return "sqlite", changed
                records.projector.catch_up()
                records.digest()
                if compared(app):
                    return "scrub", changed
        met = go_on(life, len(life.trace), home, home.parent) if base == LOG else []
    except (FednodeError, sqlite.Error) as error:
        return f"refused: {getattr(error, 'code', type(error).__name__)}", changed
    return "first contact" if met else "silent", changed


def flip(life: Life, rng: Random, count: int) -> Tally:
    """So many flips, one at a time, at places that the dice choose among all bytes of all databases."""
    tally = Tally()
    shm = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        home = Path(folder) / "home"
        image = whole(life, rng)

        def place(files: dict[str, bytes]) -> None:
            shutil.rmtree(home, ignore_errors=True)
            shutil.copytree(life.home, home)
            Image(image.at, image.how, files).write(home)

        place(image.files)
        before = {name: tables(home / name) for name in (LOG, STATE)}
        names = sorted(image.files)
        sizes = [len(image.files[name]) for name in names]
        for _ in range(count):
            (name,) = rng.choices(names, sizes)
            at, bit = rng.randrange(len(image.files[name])), rng.randrange(8)
            data = bytearray(image.files[name])
            data[at] ^= 1 << bit
            place({**image.files, name: bytes(data)})
            by, table = _noticed(life, home, before, name)
            tally.seen[by] += 1
            if by == "silent":
                tally.silent.append((name, at, bit, table))
    return tally
