"""Files of a home that only the node writes, as they are when somebody else has, or a disk has spoilt them: what is
needed is told by its file (FN-7619), what may be lost is nothing. And the root certificate, which people bring.

>>> [one.name for one in TARGETS]
['recovery-state', 'join-state', 'addresses', 'chain-file', 'root-file', 'notes']
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec

from crash.lab import in_memory
from fednode.node import digests, drills, jobs, lag, recovery, waiting
from fednode.node.home import ADDRESSES, CHAIN, RECOVERY, ROOT_CERTIFICATE, Home, pem_of, root_of_pem
from fuzz.crypto_targets import world
from fuzz.target import TEXT, Target, codes, law

VILLAGE = "130102001001"


@cache
def _home() -> Home:
    """An empty one, in memory where there is a file system for that."""
    folder = Path(tempfile.mkdtemp(prefix="fednode-fuzz-", dir=in_memory()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    home = Home(folder / "home")
    for path in (home.run_dir / "jobs", home.path / drills.FOLDER / "1", waiting.folder(home.path)):
        path.mkdir(parents=True)
    (home.path / ROOT_CERTIFICATE).write_bytes(pem_of(world().places[VILLAGE].chain[-1:]))
    return home


def _recovery(data: bytes) -> None:
    (_home().path / RECOVERY).write_bytes(data)
    found = recovery.state_of(_home())
    law(found is not None and msgspec.json.decode(msgspec.json.encode(found), type=recovery.State) == found, "one form")


def _recoveries() -> Iterator[bytes]:
    yield msgspec.json.encode(recovery.State("20260101T000000Z", 1, "FN-5515", ("ab" * 32,), asked=True))


def _joining(data: bytes) -> None:
    (waiting.folder(_home().path) / waiting.WAITING).write_bytes(data)
    law(waiting.load(_home().path) is not None, "a request waits")


def _joinings() -> Iterator[bytes]:
    yield msgspec.json.encode(waiting.Pending(VILLAGE, "ab" * 32))


def _addresses(data: bytes) -> None:
    (_home().path / ADDRESSES).write_bytes(data)
    _home().addresses()


def _chain(data: bytes) -> None:
    (_home().path / CHAIN).write_bytes(data)
    law(len(_home().chain()) >= 1, "the root is one")


def _root_file(data: bytes) -> None:
    """The root certificate that an auditor or an operator brings."""
    path = _home().path / "brought.pem"
    path.write_bytes(data)
    root_of_pem(path)


def _root_files() -> Iterator[bytes]:
    yield (_home().path / ROOT_CERTIFICATE).read_bytes()


def _chains() -> Iterator[bytes]:
    yield pem_of(world().places[VILLAGE].chain[:-1])


def _notes(data: bytes) -> None:
    """What may be lost: states of jobs, a standby's lag, digests, drills."""
    home = _home()
    for path in (
        home.run_dir / "jobs" / "scrub.json",
        home.run_dir / lag.FILE,
        home.run_dir / digests.FILE,
        home.path / drills.FOLDER / "1" / drills.REPORT,
    ):
        path.write_bytes(data)
    jobs.Ledger(home.run_dir, "test").read("scrub")
    lag.read(home.run_dir)
    digests.read(home.run_dir)
    drills.history(home)


def _noted() -> Iterator[bytes]:
    yield msgspec.json.encode(jobs.State(by="石", next_ms=7))
    yield msgspec.json.encode({VILLAGE: lag.Word(1, 2, 3)})
    yield msgspec.json.encode(digests.Known("ab", 1, 2, 3, "cd"))
    yield b'{"v":1,"at_ms":5,"node":"13","name":"x","steps":[{"name":"a","found":{"b":1}}]}'


TARGETS = (
    Target("recovery-state", _recovery, codes("7619"), _recoveries, TEXT, bytes_max=600),
    Target("join-state", _joining, codes("7619"), _joinings, TEXT, bytes_max=600),
    Target("addresses", _addresses, codes("7619"), lambda: ["a:1\n[::1]:2\n石.example:3\n".encode()], TEXT),
    Target("chain-file", _chain, codes("7619"), _chains, TEXT, bytes_max=8192),
    Target("root-file", _root_file, codes("6234"), _root_files, TEXT),
    Target("notes", _notes, codes(""), _noted, TEXT, bytes_max=600),
)
