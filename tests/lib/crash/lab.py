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

1 is asked of every image. What a node does when it starts depends on the pages that SQLite shows it, so 2 and 3 are
asked once for all images with the same pages of both databases (`pages`); 4 is about bytes, too: the node is started on
each image in which erased words lie anywhere. 5 is asked once for each state.

>>> # report = look(live(folder), seed, wanted=positions)
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import TypeVar

from crash.images import MIXTURES, Image, as_killed, images
from crash.life import CITY, COUNTY, LOG, NEEDLE, STATE, Life
from crash.pages import Pages
from crash.recorder import Event, Said
from fednode.crypto.errors import FednodeError
from fednode.node import audit, bundle_out, bundles, erasing, fence, sqlite
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.records import Records
from sim.quick import remembered
from sticks import SETTINGS, only, write

Part = TypeVar("Part")


@dataclass
class Report:
    """What was looked at. `distinct`: images with other bytes than any before; `opened`: databases with other pages
    than any before, on which the node was started; `faults`: what does not hold, with the position and the manner."""

    events: int = 0
    states: int = 0
    images: int = 0
    distinct: int = 0
    opened: int = 0
    went_on: int = 0
    faults: list[str] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """What was looked at elsewhere in the same life; what both looked at counts twice."""
        self.images += other.images
        self.distinct += other.distinct
        self.opened += other.opened
        self.went_on += other.went_on
        self.faults += other.faults


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


class States:
    """The states of log.db, each read once for all files of the same pages."""

    def __init__(self, folder: Path) -> None:
        self.pages = Pages(folder)
        self._known: dict[bytes, str] = {}

    def of(self, image: Image) -> str:
        """A digest of what log.db says, or why it cannot be read."""
        pages = self.pages.of(image, LOG)
        if pages not in self._known:
            self._known[pages] = self._read(image)
        return self._known[pages]

    def _read(self, image: Image) -> str:
        if LOG not in image.files:
            return "none"
        try:
            return contents(self.pages.place(image, LOG, touched=True))
        except sqlite.Error as error:
            return f"cannot be read: {error}"


@dataclass(frozen=True)
class Commits:
    """The states of log.db, in the order of their commits, and after each event of a life: which of them was promised,
    and how many there are."""

    states: Sequence[str]
    after: Sequence[tuple[int, int]]

    @classmethod
    def of(cls, life: Life, states: States) -> Commits:
        """What a process leaves that is killed at each position."""
        seen: list[str] = []
        after: list[tuple[int, int]] = []
        promised = 0
        for image, event in zip(as_killed(life.before, life.trace), life.trace, strict=True):
            if isinstance(event, Said):
                promised = len(seen) - 1
            state = states.of(image)
            if not seen or state != seen[-1]:
                seen.append(state)
            after.append((promised, len(seen)))
        return cls(seen, after)


class Looking:
    """One look at a life, or at a part of it."""

    def __init__(self, life: Life, folder: Path, states: States, commits: Commits) -> None:
        self._life, self._folder, self._states, self._commits = life, folder, states, commits
        self.report = Report(events=len(life.trace), states=len(commits.states))
        self._known: set[bytes] = set()
        self._started: set[tuple[bytes, bytes, bool]] = set()
        self._proved: dict[str, str] = {}  # by state of log.db: the digest of its records
        self._went_on: set[str] = set()
        self._erased = next((at for at, one in enumerate(life.trace) if _is_erase(one)), len(life.trace))

    def _fault(self, image: Image, what: str) -> None:
        self.report.faults.append(f"after {image.at} events, {image.how}: {what}")

    def take(self, image: Image) -> None:
        """Look at one image."""
        self.report.images += 1
        state = self._states.of(image)
        promised, newest = self._commits.after[image.at - 1]
        if state not in self._commits.states[promised:newest]:
            seen = self._commits.states.index(state) if state in self._commits.states else state
            self._fault(image, f"log.db is in state {seen}, promised was {promised} of {newest - 1}")
        digest = image.digest
        if digest not in self._known:
            self._known.add(digest)
            self.report.distinct += 1
            if self._is_new(image):
                self._start(image, state)

    def _is_new(self, image: Image) -> bool:
        """Whether the node was not yet started on a store of these pages. Where erased words lie in the files it is
        started in any case: those may lie where no page is."""
        erased = image.at > self._erased
        if erased and any(NEEDLE.encode() in data for data in image.files.values()):
            return True
        key = self._states.pages.of(image, LOG), self._states.pages.of(image, STATE), erased
        new = key not in self._started
        self._started.add(key)
        return new

    def _place(self, image: Image) -> Path:
        home = self._folder / "home"
        shutil.rmtree(home, ignore_errors=True)
        shutil.copytree(self._life.home, home)
        image.write(home)
        return home

    def _start(self, image: Image, state: str) -> None:
        """The node starts on it, proves itself, and says what a node says that was made anew from the same log."""
        home = self._place(image)
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


def look(
    life: Life, seed: int, wanted: Iterable[int] | None = None, *, mixtures: int = MIXTURES, jobs: int = 1
) -> Report:
    """Every image at these positions, or at all. `jobs`: so many processes, each with a part of them."""
    positions = sorted(set(range(1, len(life.trace) + 1) if wanted is None else wanted))
    with tempfile.TemporaryDirectory(dir=in_memory()) as folder, remembered():
        states = States(Path(folder) / "states")
        commits = Commits.of(life, states)

        def part(number: int) -> Report:  # neighbours are alike, so they stay together
            some = positions[len(positions) * number // jobs : len(positions) * (number + 1) // jobs]
            mine = Path(folder) / str(number)
            mine.mkdir()
            states.pages.move(mine / "states")
            looking = Looking(life, mine, states, commits)
            for image in images(life.before, life.trace, seed, some, mixtures):
                looking.take(image)
            return looking.report

        whole = Report(len(life.trace), len(commits.states))
        for one in in_parts(part, jobs):
            whole.add(one)
        return whole


def in_parts(part: Callable[[int], Part], jobs: int) -> list[Part]:
    """What becomes of each part, each in a process of its own where there are several. Raises EOFError where one of
    them ended without a word."""
    if jobs == 1:
        return [part(0)]
    context = get_context("fork")
    running = []
    for number in range(jobs):
        reading, writing = context.Pipe(duplex=False)
        process = context.Process(target=lambda to, one: to.send(part(one)), args=(writing, number))
        process.start()
        writing.close()
        running.append((process, reading))
    reports = []
    for process, reading in running:
        reports.append(reading.recv())
        process.join()
    return reports


def in_memory() -> Path | None:
    """Where a disk is memory; None: nowhere."""
    shm = Path("/dev/shm")
    return shm if shm.is_dir() else None
