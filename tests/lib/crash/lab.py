"""What must hold in whatever a node's disk holds after a power cut.

Every state that was ever committed is known by a digest over all tables of log.db; then

1. *whole or not at all, and what was promised is there*: log.db in any image is one of the states committed between
   the last promise (a command that ended with 0, a bundle that lies on the stick) and the moment of the cut;
2. *it starts, and proves itself*: the node opens on the image, every log verifies;
3. *derived is derived*: state.db, brought up to date, says the same as one made anew from that log.db;
4. *erased stays erased*: once an erase was promised, no file has a byte of it after the node has started and cleaned
   up;
5. *it goes on*: the neighbours as they were at that moment, a stick to and fro on either side: all that the county has
   the city has, all that the city has the province has; no fork, no fence, nothing refused.

>>> # report = look(live(folder), Random(1), wanted=positions)
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from crash.images import Image, images
from crash.life import CITY, COUNTY, LOG, NEEDLE, STATE, Life
from crash.recorder import Event, Said, Write
from fednode.crypto.errors import FednodeError
from fednode.node import audit, bundle_out, bundles, erasing, fence, sqlite
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.records import Records
from sticks import SETTINGS, only, write


@dataclass
class Report:
    """What was looked at. `faults`: what does not hold, with the position and the manner."""

    events: int = 0
    images: int = 0
    distinct: int = 0
    states: int = 0
    opened: int = 0
    went_on: int = 0
    faults: list[str] = field(default_factory=list)


def contents(path: Path) -> str:
    """A digest over all that is in a database, whatever its pages look like."""
    whole = hashlib.sha256()
    with closing(sqlite.sqlite3.connect(str(path))) as connection:
        names = connection.execute("select name, sql from sqlite_master where type = 'table' order by name").fetchall()
        for name, sql in names:
            whole.update(f"{name}\0{sql}\0".encode())
            for row in connection.execute(f"select * from {name}"):
                whole.update(repr(row).encode())
    return whole.hexdigest()


class Looking:
    """One look at a life."""

    def __init__(self, life: Life, rng: Random, folder: Path) -> None:
        self._life, self._rng, self._folder = life, rng, folder
        self.report = Report(events=len(life.trace))
        self._states: list[str] = []  # of log.db, in the order of their commits
        self._known: dict[bytes, str] = {}
        self._proved: dict[str, str] = {}  # by state of log.db: the digest of its records
        self._went_on: set[str] = set()
        self._erased = next((at for at, one in enumerate(life.trace) if _is_erase(one)), len(life.trace))

    def _fault(self, image: Image, what: str) -> None:
        self.report.faults.append(f"after {image.at} events, {image.how}: {what}")

    def _place(self, image: Image) -> Path:
        home = self._folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._life.home, home)
        image.write(home)
        return home

    def _state(self, image: Image, home: Path) -> str:
        try:
            return contents(home / LOG) if LOG in image.files else "none"
        except sqlite.Error as error:
            return f"cannot be read: {error}"

    def take(self, image: Image, promised: int, *, start: bool) -> int:
        """Look at one image. `promised`: which state at least; `start`: start the node on it. Returns the number of the
        newest state."""
        self.report.images += 1
        digest = image.digest
        new = digest not in self._known
        home = self._place(image) if new else self._folder
        state = self._known[digest] if not new else self._state(image, home)
        self._known[digest] = state
        if image.how == "all" and (not self._states or state != self._states[-1]):
            self._states.append(state)
            self.report.states += 1
        if state not in self._states[promised:]:
            seen = self._states.index(state) if state in self._states else state
            self._fault(image, f"log.db is in state {seen}, promised was {promised} of {len(self._states) - 1}")
        if new:
            self.report.distinct += 1
            if start:
                self._start(image, home, state)
        return len(self._states) - 1

    def _start(self, image: Image, home: Path, state: str) -> None:
        """The node starts on it, proves itself, and says what a node says that was made anew from the same log."""
        try:
            with closing(App.open(home, Config())) as app:
                self.report.opened += 1
                records = app.records()
                records.projector.catch_up()
                said = records.digest().digest
                if image.at > self._erased:
                    self._clean(image, records)
                records.projector.close()
                if state not in self._proved:
                    self._proved[state] = _made_anew(app)
                    for problem in audit.verify_store(app.store, app.trust).problems:
                        self._fault(image, str(problem))
                if said != self._proved[state]:
                    self._fault(image, "state.db says something else")
        except (FednodeError, sqlite.Error) as error:
            self._fault(image, f"it does not start: {error!r}")
            return
        if state not in self._went_on:
            self._went_on.add(state)
            try:
                for what in go_on(self._life, image.at, home, self._folder):
                    self._fault(image, what)
                self.report.went_on += 1
            except (FednodeError, sqlite.Error) as error:
                self._fault(image, f"it does not go on: {error!r}")

    def _clean(self, image: Image, records: Records) -> None:
        """As the daemon does it when it starts."""
        erasing.clean(records.store, records.projector)
        for path in records.store.path.parent.rglob("*"):
            if path.is_file() and NEEDLE.encode() in path.read_bytes():
                self._fault(image, f"{path.name} holds what was erased")


def go_on(life: Life, at: int, home: Path, folder: Path) -> list[str]:
    """The node of a home and its neighbours as they were after so many events, a stick to and fro on either side: what
    does not hold. Raises FednodeError where one of them cannot."""
    place = folder / "mesh"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(life.peers_at(at), place)
    shutil.copytree(home, place / CITY)
    with ExitStack() as opened:
        province, city, county = (
            opened.enter_context(closing(App.open(place / node, SETTINGS))) for node in ("13", CITY, COUNTY)
        )
        faults: list[str] = []
        if not city.trust.directory.is_revoked(COUNTY):
            write(county, "later")
            faults += _meet(county, city, folder)
        return faults + _meet(city, province, folder)


def _meet(child: App, parent: App, folder: Path) -> list[str]:
    stick = Path(tempfile.mkdtemp(dir=folder))
    owed = [(name, size) for _, name, size in child.store.logs() if child.trust.route(name).up]
    bundle_out.export(child, "parent", stick)
    for reader in (parent, child):
        found = only(bundles.take_in(reader, [stick]))
        if found.error is not None:
            return [f"{reader.trust.node}: {found.error!r}"]
    held = {str(name): size for _, name, size in parent.store.logs()}
    faults = [
        f"{parent.trust.node} holds {held.get(str(name), 0)} of {size} of {name}"
        for name, size in owed
        if held.get(str(name), 0) < size
    ]
    return faults + [f"{app.trust.node} has fenced itself" for app in (child, parent) if fence.standing(app.store)]


def _is_erase(event: Event) -> bool:
    return isinstance(event, Said) and event.what.startswith("erase ")


def _made_anew(app: App) -> str:
    for suffix in ("", "-wal", "-shm"):
        app.home.state_db.with_name(STATE + suffix).unlink(missing_ok=True)
    records = app.records()
    records.projector.catch_up()
    digest = records.digest().digest
    records.projector.close()
    return str(digest)


def _next(life: Life, image: Image) -> Event | None:
    return life.trace[image.at] if image.at < len(life.trace) else None


def look(life: Life, rng: Random, wanted: Iterable[int] | None = None) -> Report:
    """Every image at these positions, or at all. States are told wherever a row of writes ends: none begins within."""
    shm = Path("/dev/shm")
    chosen = None if wanted is None else set(wanted)
    with tempfile.TemporaryDirectory(dir=shm if shm.is_dir() else None) as folder:
        looking = Looking(life, rng, Path(folder))
        promised, newest, at = 0, 0, 0
        for image in images(life.before, life.trace, rng):
            while at < image.at:
                if isinstance(life.trace[at], Said):
                    promised = newest
                at += 1
            here = chosen is None or image.at in chosen
            if here or (image.how == "all" and not isinstance(_next(life, image), Write)):
                newest = looking.take(image, promised, start=here)
        return looking.report
