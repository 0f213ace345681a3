"""What the disk may hold when the power goes: every image that a recorded trace allows, or a seeded choice of them.

The model (POSIX, as SQLite assumes it, without powersafe overwrite; see sqlite.org/atomiccommit.html)
1. What was synced is there. Of what was not, any part may be: nothing, all, all up to some point, any one write alone,
   any mixture (drives reorder), and of a write any sectors of 512 bytes.
2. A new name is on disk with the first sync of its file, a removed one with the sync of its folder; until then either
   may be.
3. A truncation may be lost, or come before the writes that preceded it.

>>> # for image in images(trace, Random(1), at=position): image.write(folder)
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from crash.recorder import Create, Delete, Event, Said, Sync, Truncate, Write

SECTOR_BYTES = 512
MIXTURES = 2  # of each position


@dataclass(frozen=True)
class Image:
    """Files by name, as a machine finds them when it starts again. `at`: how many events had happened; `how`: what
    became of those that were not synced; `digests`: of each file."""

    at: int
    how: str
    files: dict[str, bytes]
    digests: dict[str, bytes]

    def with_file(self, name: str, data: bytes) -> Image:
        """The same with another file of this name."""
        digests = {**self.digests, name: hashlib.sha256(data).digest()}
        return Image(self.at, self.how, {**self.files, name: data}, digests)

    @property
    def digest(self) -> bytes:
        """The same for the same files."""
        whole = hashlib.sha256()
        for name, data in sorted(self.digests.items()):
            whole.update(f"{name}\0".encode() + data)
        return whole.digest()

    def write(self, folder: Path) -> None:
        """Put it into an empty folder."""
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)


class Disk:
    """Files, as far as they are on disk, and what is on its way there."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = {name: bytearray(data) for name, data in files.items()}
        self.waiting: list[Event] = []
        self._whole: dict[str, tuple[bytes, bytes]] = {}  # what is on disk, and its digest; not again for each image

    def take(self, event: Event) -> None:
        """One more thing has happened."""
        match event:
            case Sync(path):
                self._whole.pop(path, None)
                for one in [one for one in self.waiting if not isinstance(one, Said) and one.path == path]:
                    apply(self.files, one)
                self.waiting = [one for one in self.waiting if isinstance(one, Said) or one.path != path]
            case Delete(path, True):
                self.waiting = [one for one in self.waiting if isinstance(one, Said) or one.path != path]
                self.files.pop(path, None)
                self._whole.pop(path, None)
            case Said():
                pass
            case _:
                self.waiting.append(event)

    def image(self, at: int, how: str, happened: Iterable[Event]) -> Image:
        """With some of what is on its way."""
        touched = {one.path for one in happened if not isinstance(one, Said)}
        changed = {name: bytearray(data) for name, data in self.files.items() if name in touched}
        for one in happened:
            apply(changed, one)
        files = {name: self._on_disk(name) for name in self.files if name not in touched}
        for name, data in changed.items():
            made = bytes(data)
            files[name] = made, hashlib.sha256(made).digest()
        return Image(
            at, how, {name: data for name, (data, _) in files.items()}, {name: one for name, (_, one) in files.items()}
        )

    def _on_disk(self, name: str) -> tuple[bytes, bytes]:
        if name not in self._whole:
            data = bytes(self.files[name])
            self._whole[name] = data, hashlib.sha256(data).digest()
        return self._whole[name]


def apply(files: dict[str, bytearray], event: Event) -> None:
    """What an event makes of files. What is written to a file whose name is not there makes one."""
    match event:
        case Create(path):
            files.setdefault(path, bytearray())
        case Write(path, at, data):
            there = files.setdefault(path, bytearray())
            if len(there) < at:
                there.extend(bytes(at - len(there)))
            there[at : at + len(data)] = data
        case Truncate(path, size):
            there = files.setdefault(path, bytearray())
            if len(there) > size:
                del there[size:]
            else:
                there.extend(bytes(size - len(there)))
        case Delete(path):
            files.pop(path, None)


def torn(event: Write, rng: Random) -> list[Event]:
    """Some sectors of a write, at least one less than all where there are several."""
    cuts = range(0, len(event.data), SECTOR_BYTES)
    kept = sorted(rng.sample(cuts, rng.randrange(len(cuts)))) if len(cuts) > 1 else []
    return [Write(event.path, event.at + cut, event.data[cut : cut + SECTOR_BYTES]) for cut in kept]


def at_position(disk: Disk, at: int, rng: Random, mixtures: int = MIXTURES) -> Iterator[Image]:
    """What may be there after so many events: first all of it, which is what a killed process leaves."""
    waiting = list(disk.waiting)
    yield disk.image(at, "all", waiting)
    if not waiting:
        return
    yield disk.image(at, "nothing", [])
    yield disk.image(at, "first of them", waiting[:-1])
    yield disk.image(at, "last alone", waiting[-1:])
    last = waiting[-1]
    if isinstance(last, Write):
        yield disk.image(at, "last torn", [*waiting[:-1], *torn(last, rng)])
    for _ in range(mixtures):
        some = [one for one in waiting if rng.random() < 0.5]
        sectors: list[Event] = []
        for one in some:
            sectors += torn(one, rng) if isinstance(one, Write) and rng.random() < 0.2 else [one]
        yield disk.image(at, "a mixture", sectors)


def images(
    before: dict[str, bytes],
    trace: Sequence[Event],
    seed: int,
    wanted: Iterable[int] | None = None,
    mixtures: int = MIXTURES,
) -> Iterator[Image]:
    """The images at each position of a trace, or at those wanted. `before`: the files when it began. Each position has
    dice of its own, so that the images are the same whichever others are wanted."""
    chosen = None if wanted is None else set(wanted)
    disk = Disk(before)
    for at, event in enumerate(trace, 1):
        disk.take(event)
        if chosen is None or at in chosen:
            yield from at_position(disk, at, Random(f"{seed}/{at}"), mixtures)


def as_killed(before: dict[str, bytes], trace: Sequence[Event]) -> Iterator[Image]:
    """Of each position the image in which all is there."""
    disk = Disk(before)
    for at, event in enumerate(trace, 1):
        disk.take(event)
        yield disk.image(at, "all", list(disk.waiting))
