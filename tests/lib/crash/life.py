"""A node's whole working life over the recorder: a city between its province and a county, which meet it by stick.
Everything is done by the command line, as operators do it, in this process.

>>> # life = live(folder); len(life.trace)
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import sample_data
from crash.recorder import Event, Said, recorded
from fednode.node import bundle_out, bundles, shipped
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import Config
from sticks import PATH, Row, only, write

LICENCE = "admin-licence"
LOG, STATE = "log.db", "state.db"
CITY, COUNTY = PATH[0][0], PATH[1][0]
ENVIRON = {"LANG": "C.UTF-8"}
NEEDLE = "the-words-that-were-erased"


@dataclass
class Life:
    """What was recorded. `before`: the databases when it began; `home`: the files that are no databases; `peers`:
    folders with the homes of the neighbours, and after how many events they were so."""

    before: dict[str, bytes]
    trace: list[Event]
    home: Path
    peers: list[tuple[int, Path]]

    def peers_at(self, at: int) -> Path:
        """The neighbours after so many events."""
        return [path for since, path in self.peers if since <= at][-1]


class Operators:
    """People at the city, its county and the province."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.row = Row(folder, depth=2)
        self.province, self.city, self.county = self.row.apps
        self.trace: list[Event] = []
        self.peers: list[tuple[int, Path]] = []

    def note_peers(self) -> None:
        """How the neighbours are now."""
        kept = self.folder / f"peers{len(self.peers)}"
        for app in (self.province, self.county):
            shutil.copytree(app.home.path, kept / app.trust.node, ignore=shutil.ignore_patterns("*-shm"))
        self.peers.append((len(self.trace), kept))

    def at_the_city(self, *words: str, expect: int = 0) -> dict[str, Any]:
        """A command; when it has ended, what it did is promised."""
        out = StringIO()
        with redirect_stdout(out), redirect_stderr(StringIO()):
            code = invoke([*words, "--home", str(self.folder / CITY), "--json"], ENVIRON)
        assert code == expect, f"{words}: {code}\n{out.getvalue()}"
        self.trace.append(Said(" ".join(words)))
        return dict(json.loads(out.getvalue()))

    def from_below(self) -> None:
        """A stick from the county and back."""
        self._carry(self.county, self.city)

    def upward(self) -> None:
        """A stick to the province and back."""
        self._carry(self.city, self.province)

    def _carry(self, child: App, parent: App) -> None:
        carried = self.row.stick()
        bundle_out.export(child, "parent", carried)
        self.note_peers()
        only(bundles.take_in(parent, [carried]))
        self.note_peers()
        only(bundles.take_in(child, [carried]))
        self.note_peers()
        self.trace.append(Said(f"stick {child.trust.node} {parent.trust.node}"))


def _sample(people: Operators, count: int, seed: int) -> str:
    path = people.folder / f"{seed}.csv"
    declared = shipped.catalog().datasets[LICENCE]
    sample_data.write(path, declared, sample_data.records(LICENCE, count, seed=seed, area="130102001001"))
    return str(path)


def _key(people: Operators) -> str:
    return str(people.at_the_city("find", LICENCE, "--limit", "1")["records"][0]["key"])


def _import(people: Operators) -> None:
    people.at_the_city("import", LICENCE, _sample(people, 40, 1))
    people.at_the_city("import", LICENCE, _sample(people, 5, 2))


def _change(people: Operators) -> None:
    key = _key(people)
    people.at_the_city("put", LICENCE, "--key", key, "--field", "xk_zt=2")
    people.at_the_city("delete", LICENCE, key)


def take_in(people: Operators) -> None:
    write(people.county, *(f"k{i}" for i in range(6)))
    people.note_peers()
    people.from_below()
    write(people.county, "k0", "k7")
    people.note_peers()
    people.from_below()


def _send(people: Operators) -> None:
    people.upward()
    people.upward()


def erase(people: Operators) -> None:
    key = _key(people)
    people.at_the_city("put", LICENCE, "--key", key, "--field", f"bz={NEEDLE}")
    people.at_the_city("find", LICENCE, "--where", f"bz={NEEDLE}")  # so it is in state.db
    people.at_the_city("erase", LICENCE, key, "--reason", "court order", "--yes")
    people.upward()
    people.from_below()


def _manage(people: Operators) -> None:
    people.at_the_city("invite", "130104", "--level", "county", "--name", "桥西区")
    people.at_the_city("verify", "--full", "--jobs", "1")
    people.at_the_city("compact")
    people.at_the_city("jobs", "run", "cleaning")


def _start_again(people: Operators) -> None:
    people.at_the_city("rebuild")
    people.at_the_city("revoke", "130102", "--reason", "stolen", "--yes")
    people.upward()


ACTS: tuple[Callable[[Operators], None], ...] = (
    _import, _change, take_in, _send, erase, _manage, _start_again,
)  # fmt: skip


@contextmanager
def _sticks_promise(people: Operators) -> Iterator[None]:
    """A bundle that has its name on a stick is out of the node's hands: what it says is promised."""
    replace = os.replace

    def replaced(old: Any, new: Any, **more: Any) -> None:
        if "/stick" in str(new):
            people.trace.append(Said(f"on a stick: {Path(new).name}"))
        replace(old, new, **more)

    os.replace = replaced  # type: ignore[assignment]
    try:
        yield
    finally:
        os.replace = replace


def live(folder: Path, acts: Sequence[Callable[[Operators], None]] = ACTS) -> Life:
    """Do all of it, and record what the city's disk sees."""
    people = Operators(folder)
    try:
        home = folder / CITY
        people.city.close()
        before = {path.name: path.read_bytes() for path in home.iterdir() if _is_database(path)}
        kept = folder / "home"
        shutil.copytree(home, kept, ignore=lambda _, names: [one for one in names if _is_database(Path(one))])
        with recorded(home) as trace, _sticks_promise(people):
            people.trace = trace
            people.city = people.row.apps[1] = App.open(home, Config())  # open all the time, as a daemon has it
            people.note_peers()
            for act in acts:
                act(people)
            people.city.close()
        return Life(before, trace, kept, people.peers)
    finally:
        people.row.close()


def _is_database(path: Path) -> bool:
    return ".db" in path.name
