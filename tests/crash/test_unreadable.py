"""Databases that cannot be read in one place: an I/O error at one read after the other, of what operators and peers do.

Whatever read it is, a command either does its work or says that the database is in trouble (FN-76xx, exit code 7),
and gives no other answer than it would have given; a peer is told of nothing that is not held. When the disk can be
read again all of it goes through.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from random import Random

import pytest

from chain import TOWNSHIP, VILLAGE, WORLD, Node
from crash import life
from crash.life import CITY, ENVIRON, LICENCE
from crash.recorder import failing
from fednode.crypto.errors import FednodeError
from fednode.node import bundle_out
from fednode.node.cli import invoke
from sticks import Row, write
from world import shop

TRIED = 8  # reads of each act
SEED = 20_261_127
TROUBLE = re.compile(r"FN-76\d\d")


class Nth:
    """Fails the read of this number, and no other."""

    def __init__(self, number: int) -> None:
        self.number, self.count, self.failed = number, 0, False
        self.armed = True

    def __call__(self, _path: str, _at: int) -> bool:
        if not self.armed:
            return False
        self.count += 1
        self.failed |= self.count == self.number
        return self.count == self.number


def some(reads: int, name: str) -> list[int]:
    """Of so many reads some, the first and the last among them."""
    return sorted({1, reads, *Random(f"{SEED}/{name}").sample(range(1, reads + 1), min(TRIED, reads))})


# ---------------------------------------------------------------- operators


@dataclass(frozen=True)
class Place:
    """A city that has records and an empty stick; `stick`: what its county has sent."""

    home: Path
    stick: Path
    more: str
    key: str


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("row")
    row = Row(folder, depth=2)
    people = type("People", (), {"folder": folder})()
    home, stick = folder / CITY, row.stick()
    command(home, "import", LICENCE, life._sample(people, 40, 1))
    write(row.apps[2], "k0", "k1", "k2")
    bundle_out.export(row.apps[2], "parent", stick)
    row.close()
    _, said = command(home, "find", LICENCE, "--limit", "1")
    return Place(home, stick, life._sample(people, 5, 2), json.loads(said)["records"][0]["key"])


def command(home: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was said."""
    out = StringIO()
    with redirect_stdout(out), redirect_stderr(StringIO()):
        code = invoke([*words, "--home", str(home), "--json"], ENVIRON)
    return code, out.getvalue()


ACTS: dict[str, Callable[[Place], Sequence[str]]] = {
    "put": lambda at: ("put", LICENCE, "--key", at.key, "--field", "xk_zt=2"),
    "delete": lambda at: ("delete", LICENCE, at.key),
    "import": lambda at: ("import", LICENCE, at.more),
    "find": lambda _: ("find", LICENCE, "--limit", "5"),
    "digest": lambda _: ("digest",),
    "conflicts": lambda _: ("conflicts",),
    "coverage": lambda _: ("coverage",),
    "erase": lambda at: ("erase", LICENCE, at.key, "--reason", "court order", "--yes"),
    "take-in": lambda at: ("bundle", "import", str(at.stick)),
    "verify": lambda _: ("verify", "--full", "--jobs", "1"),
    "compact": lambda _: ("compact",),
    "rebuild": lambda _: ("rebuild",),
    "status": lambda _: ("status",),
    "invite": lambda _: ("invite", "130104", "--level", "county", "--name", "桥西区"),
}
READING = ("find", "digest", "conflicts")  # two of these give the same answer
GONE = ("delete", "erase")  # done already, they find nothing


def fresh(place: Place, folder: Path) -> Path:
    home = folder / "home"
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(place.home, home)
    return home


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTS)
def test_what_an_operator_does_where_one_read_fails(place: Place, tmp_path: Path, name: str) -> None:
    words = ACTS[name](place)
    counting = Nth(0)
    home = fresh(place, tmp_path)
    before = command(home, "digest")
    with failing(home, counting):
        code, truth = command(home, *words)
    assert code == 0
    after = command(home, "digest")
    codes = []
    for number in some(counting.count, name):
        home = fresh(place, tmp_path)
        nth = Nth(number)
        with failing(home, nth):
            code, said = command(home, *words)
        assert nth.failed
        codes.append(code)
        assert code == 0 or (code == 7 and TROUBLE.search(said)), f"read {number}: {code} {said}"
        if code == 0 and name in READING:
            assert said == truth, f"read {number}"
        assert command(home, "digest") in ((after,) if code == 0 else (before, after)), f"read {number}"
        again, told = command(home, *words)
        assert again == 0 or (again == 3 and name in GONE), f"read {number}, and again: {told}"
        assert command(home, "digest") == after
        assert command(home, "verify", "--full", "--jobs", "1")[0] == 0
    assert 7 in codes, "no read that mattered"


# ---------------------------------------------------------------- peers


@pytest.mark.slow
@pytest.mark.parametrize("where", [TOWNSHIP, VILLAGE])
def test_what_a_child_sends_where_one_read_fails_at_either(tmp_path: Path, where: str) -> None:
    """An error is FN-76xx; what was acknowledged is held, and acknowledged with a cosignature that verifies."""
    village, township = (Node(node, tmp_path / node) for node in (VILLAGE, TOWNSHIP))
    for number in range(12):
        village.write(*(shop(f"k{number}-{i}", VILLAGE) for i in range(3)))
    for node, peer in ((village, TOWNSHIP), (township, VILLAGE)):
        node.link(peer)
        node.store.close()
    counting = Nth(0)
    outcomes = [carried(tmp_path, "counting", where, counting)]
    outcomes += [carried(tmp_path, str(one), where, Nth(one)) for one in some(counting.count, where)]
    assert outcomes[0] == ""
    assert any(outcomes), "no read that mattered"


def carried(folder: Path, name: str, where: str, nth: Nth) -> str:
    """All that a village has goes to its township, one read fails; then once more. The code of the error, or ""."""
    place = folder / name
    for node in (VILLAGE, TOWNSHIP):
        shutil.copytree(folder / node, place / node)
    nth.armed = False
    with failing(place / where, nth):
        village, township = (Node(node, place / node) for node in (VILLAGE, TOWNSHIP))
        code = ""
        nth.armed = True
        try:
            village.send(township)
        except FednodeError as error:
            code = error.code
    assert not code or TROUBLE.fullmatch(code)
    for node in (village, township):  # after trouble it reads again whom it knows, and these know by hand
        node.trust.directory, node.trust.catalog = WORLD.directory(), WORLD.catalog
    known = village.store.peer(TOWNSHIP)
    assert known is not None
    assert known.acked <= township.store.lsn, "acknowledged is what is not held"
    assert known.acked == village.store.lsn or code
    village.send(township)
    assert village.records() == township.records()
    assert len(township.records()) == 36
    for node in (village, township):
        assert node.verified() == set()
        assert node.refusals() == set()
        node.store.close()
    return code
