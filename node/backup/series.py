"""The backups of one store in one place: `<domain>/<node>/<store id>/`. Reading them, with nothing believed that does
not verify.

Rules
1. A manifest counts for what its own signed text says: store, number and node must be those of the folder and the file
   that it lies in.
2. An object counts when its size and hash are those of the index, the index when its are those of the manifest.
3. Of several stores of one node (it was recovered, or restored) the one of the highest incarnation is the newest, then
   the one that was backed up last: who has the keys of an earlier life makes nothing that counts for more.

>>> folder_of("hebei", "130102", bytes(16))
'hebei/130102/00000000000000000000000000000000'
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node.backup.places import Place
from fednode.sync import backup as fmt
from fednode.sync.backup import Entry, Manifest
from fednode.sync.errors import Refused

MANIFEST_BYTES_MAX = 64 * 1024
_STORE = re.compile("[0-9a-f]{32}")
_MANIFEST = re.compile(r"([0-9]{10})\.manifest")


def folder_of(domain: str, node: str, store: bytes) -> str:
    """Where the backups of a store lie."""
    return f"{domain}/{node}/{store.hex()}"


@dataclass(frozen=True, slots=True)
class Backup:
    """One backup whose manifest holds. `sha256`: of the manifest's file."""

    manifest: Manifest
    signer: Identity
    sha256: bytes

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.sha256)


def fingerprint(sha256: bytes) -> str:
    """A manifest as people compare it: the beginning of its hash."""
    text = sha256.hex()[:20]
    return " ".join(text[i : i + 4] for i in range(0, 20, 4))


class Series:
    """The backups of one store. `root_sha256`: the pinned root."""

    def __init__(self, place: Place, folder: str, root_sha256: bytes) -> None:
        self.place, self.folder = place, folder
        self._root = root_sha256

    def numbers(self) -> list[int]:
        """Which backups are there, in order."""
        found = (_MANIFEST.fullmatch(name) for name in self.place.files(self.folder))
        return sorted(int(match[1]) for match in found if match)

    def backup(self, number: int) -> Backup:
        """Raises IntegrityError FN-6640, FN-6641, FN-6642 (it is not there), FN-6643 (of another store, or another
        number)."""
        name = fmt.manifest_file(number)
        data = self.place.read(f"{self.folder}/{name}", MANIFEST_BYTES_MAX)
        if data is None:
            raise IntegrityError("FN-6642", file=name)
        manifest, signer = fmt.parse_manifest(data, self._root)
        if folder_of(manifest.domain, manifest.node, manifest.store) != self.folder or manifest.number != number:
            raise IntegrityError("FN-6643", file=name)
        return Backup(manifest, signer, fmt.fingerprint(data))

    def index(self, manifest: Manifest) -> tuple[Entry, ...]:
        """The objects of a backup. Raises IntegrityError FN-6640, FN-6642."""
        data = self._file(manifest.index_file, manifest.index_size, manifest.index)
        entries = fmt.parse_index(data)
        upto = max((one.last for one in entries if one.kind == fmt.SEGMENTS), default=0)
        if upto != manifest.lsn:
            raise fmt.broken(manifest.index_file, "lsn")
        return entries

    def object(self, entry: Entry) -> bytes:
        """An object's bytes. Raises IntegrityError FN-6640, FN-6642."""
        return self._file(entry.file, entry.size, entry.sha256)

    def _file(self, name: str, size: int, sha256: bytes) -> bytes:
        if size > fmt.INDEX_BYTES_MAX:
            raise fmt.broken(name, "size")
        data = self.place.read(f"{self.folder}/{name}", size)
        if data is None:
            raise IntegrityError("FN-6642", file=name)
        if len(data) != size or SUITE_1.hash(data) != sha256:
            raise fmt.broken(name, "hash")
        return data

    def opened(self, entry: Entry, manifest: Manifest, private: bytes) -> tuple[fmt.Table, ...]:
        """What is in an object. Raises as `object`, and IntegrityError FN-6643 where it is not what the index says,
        FN-6204 where the key does not open it."""
        header, tables = fmt.open_object(self.object(entry), private)
        wanted = fmt.Header(manifest.domain, manifest.node, manifest.store, entry.kind, entry.first, entry.last)
        if header != wanted:
            raise IntegrityError("FN-6643", file=entry.file)
        return tables


def all_series(
    place: Place, root_sha256: bytes, node: str = "", *, strict: bool = False
) -> list[tuple[Series, Backup]]:
    """Every store of which something lies in a place, with its newest backup; the newest store first (rule 3). Only of
    one node, where one is named. A manifest that does not hold is passed over (`checking` says what it is); `strict`:
    it is raised, so that nobody takes an older one for the newest."""
    found = []
    for domain in place.folders(""):
        for named in place.folders(domain):
            for store in place.folders(f"{domain}/{named}") if node in ("", named) else ():
                series = Series(place, f"{domain}/{named}/{store}", root_sha256)
                newest = _newest(series, strict) if _STORE.fullmatch(store) else None
                if newest is not None:
                    found.append((series, newest))
    return sorted(found, key=lambda one: (one[1].manifest.incarnation, one[1].manifest.made_ms), reverse=True)


def _newest(series: Series, strict: bool) -> Backup | None:
    for number in reversed(series.numbers()):
        try:
            return series.backup(number)
        except FednodeError:
            if strict:
                raise
    return None


def only_node(found: list[tuple[Series, Backup]], place: Place, node: str = "") -> tuple[Series, Backup]:
    """The newest store of the one node that a place has backups of. Raises Refused FN-3361 (none), FN-3362 (several: it
    must be named)."""
    nodes = sorted({backup.manifest.node for _, backup in found})
    if not nodes:
        raise Refused("FN-3361", place=place.shown, node=node or "*")
    if len(nodes) > 1:
        raise Refused("FN-3362", place=place.shown, nodes=", ".join(nodes[:20]))
    return found[0]
