"""Whether backups hold: every manifest, every file, and with the recovery key what is in them.

Rules
1. Without the key: signatures, numbers without a hole, each manifest the hash of the one before, every file there with
   its size and hash; at the node itself, that the newest one is the one that it made last.
2. With the key, besides: every object opens, is the one that the index means, holds the arrival numbers that it should
   and segments whose bytes have their hash.
3. A problem names the backup, the file and a code; one does not stop the rest.

>>> Problem(3, "0000000003.manifest", IntegrityError("FN-6644", number=3)).code
'FN-6644'
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node.backup.making import BY_ARRIVAL, Last
from fednode.node.backup.series import Backup, Series
from fednode.sync import backup as fmt
from fednode.sync.backup import SEGMENTS, Entry, Manifest, Table
from fednode.sync.errors import StoreError, Unavailable


@dataclass(frozen=True, slots=True)
class Problem:
    """What does not hold, in which backup."""

    number: int
    file: str
    error: FednodeError

    @property
    def code(self) -> str:
        return self.error.code


@dataclass(slots=True)
class Checked:
    """What was looked at. `opened`: objects that the key has opened."""

    place: str
    node: str = ""
    store: str = ""
    numbers: list[int] = field(default_factory=list)
    objects: int = 0
    bytes: int = 0
    opened: int = 0
    problems: list[Problem] = field(default_factory=list)


def check(
    series: Series, private: bytes | None = None, last: Last | None = None, numbers: Sequence[int] = ()
) -> Checked:
    """Look at backups of one store. `last`: what the node remembers; `numbers`: only these (all without). Raises only
    StoreError and Unavailable, where the place cannot be read."""
    _, node, store = series.folder.split("/")
    there = series.numbers()
    found = Checked(series.place.shown, node, store, list(numbers) or there)
    seen: dict[bytes, FednodeError | None] = {}
    before: Backup | None = None
    for number in found.numbers:
        try:
            backup = series.backup(number)
            _follows(before, backup, found.numbers)
        except IntegrityError as error:
            found.problems.append(Problem(number, fmt.manifest_file(number), error))
            before = None
            continue
        before = backup
        _contents(series, backup.manifest, private, seen, found)
    newest = there[-1] if there else 0
    if last is not None and (last.number != newest or (before is not None and before.sha256.hex() != last.sha256)):
        gone = IntegrityError("FN-6645", place=found.place, number=last.number, found=newest)
        found.problems.append(Problem(last.number, fmt.manifest_file(last.number), gone))
    return found


def _follows(before: Backup | None, one: Backup, numbers: list[int]) -> None:
    """That a manifest is the next after the one before (rule 1); one that names none before was begun anew."""
    number = one.manifest.number
    if number != numbers[0] and number - 1 not in numbers:
        raise IntegrityError("FN-6644", number=number)
    if before is not None and one.manifest.previous not in (b"", before.sha256):
        raise IntegrityError("FN-6644", number=number)


def _contents(
    series: Series, manifest: Manifest, private: bytes | None, seen: dict[bytes, FednodeError | None], found: Checked
) -> None:
    try:
        entries = series.index(manifest)
    except IntegrityError as error:
        found.problems.append(Problem(manifest.number, manifest.index_file, error))
        return
    for entry in entries:
        if entry.sha256 in seen:
            if (known := seen[entry.sha256]) is not None:
                found.problems.append(Problem(manifest.number, entry.file, known))
            continue
        found.objects += 1
        found.bytes += entry.size
        try:
            if private is None:
                series.object(entry)
            else:
                read(series, entry, manifest, private)
                found.opened += 1
            seen[entry.sha256] = None
        except (StoreError, Unavailable):
            raise
        except FednodeError as error:
            seen[entry.sha256] = error.with_traceback(None)
            found.problems.append(Problem(manifest.number, entry.file, error))


def read(series: Series, entry: Entry, manifest: Manifest, private: bytes) -> tuple[Table, ...]:
    """What is in an object, looked at (rule 2). Raises IntegrityError FN-6640 to FN-6643, FN-6204, FN-6647."""
    tables = series.opened(entry, manifest, private)
    if entry.kind == SEGMENTS:
        _segments(entry, tables)
    return tables


def _segments(entry: Entry, tables: tuple[Table, ...]) -> None:
    wrong = IntegrityError("FN-6647", file=entry.file)
    if not tables or tables[0].name != "segment" or not {one.name for one in tables} <= {*BY_ARRIVAL}:
        raise wrong
    for table in tables:
        at = table.columns.index("lsn") if "lsn" in table.columns else -1
        numbers = [row[at] for row in table.rows]
        if at < 0 or any(type(one) is not int or not entry.first <= one <= entry.last for one in numbers):
            raise wrong
    rows = list(_rows(tables[0], wrong))
    if any(SUITE_1.hash(data) != sha256 for _, sha256, _, _, data in rows):
        raise wrong
    if fmt.state_of((lsn, sha256, time_s, key) for lsn, sha256, time_s, key, _ in rows) != entry.state:
        raise wrong


def _rows(table: Table, wrong: IntegrityError) -> Iterator[tuple[int, bytes, int | None, bytes | None, bytes]]:
    names = ("lsn", "sha256", "first_time", "content_key", "data")
    if not {*names} <= {*table.columns}:
        raise wrong
    at = [table.columns.index(name) for name in names]
    for row in table.rows:
        lsn, sha256, first_time, content_key, data = (row[one] for one in at)
        if not isinstance(sha256, bytes) or not isinstance(data, bytes):
            raise wrong
        yield lsn, sha256, first_time, content_key, data
