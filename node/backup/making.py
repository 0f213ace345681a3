"""Making a backup of log.db, the keys and the settings, beside whatever else the node does.

Rules
1. The last step reads one state of log.db (a read transaction): segments up to its last arrival number, and all else as
   it stood then. Before that, what is much is written in steps of `BATCH_BYTES`, so that the write-ahead log does not
   grow meanwhile.
2. Segments are written once. An object is written anew when what it holds has changed (it was stripped, its first
   parent's cosignature has come), when it is missing, and with what is new when it is small: so a backup costs what is
   new, and the number of objects grows with the logarithm of the backups.
3. Every file is read back before the manifest is written, the manifest before anything is forgotten.
4. The node remembers its last backup in a place (number and hash of the manifest). A place that holds anything else was
   altered, or another installation writes there: nothing is added to it (FN-6645) unless it is begun anew.
5. The newest `keep` backups stay. An older one that still holds what was erased since goes at once. What no backup
   names is removed.
6. What was written when it was interrupted is remembered, too (`backup/making/`), and goes into the next one.
7. The segments of a damaged store are not written over sound ones: FN-6601 ends it.

>>> # made = Maker(app, place, key).run(); made.number
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import TYPE_CHECKING, Any

import msgspec

from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node.backup.places import Folder, Place
from fednode.node.backup.series import Backup, Series, fingerprint, folder_of
from fednode.node.home import ADDRESSES, CONFIG
from fednode.node.schema import applied
from fednode.node.store import Store
from fednode.sync import backup as fmt
from fednode.sync.backup import REST, SEGMENTS, Entry, Header, Manifest, Table
from fednode.sync.errors import Unavailable

if TYPE_CHECKING:
    from fednode.node.app import App

BATCH_BYTES = 32 * 1024 * 1024
SMALL_BYTES = 1024  # what an object takes, whatever is in it
ROW_BYTES = 16  # what a row takes, at least
BY_ARRIVAL = ("segment", "chain", "urgent", "late", "resealed")  # tables that only grow, by arrival number
LEFT_OUT = ("tree", "partial")  # made again (`node.tree`), or asked for again
FILE, MIGRATION = "file", "migration"  # of the rest: what is no table
_OURS = re.compile(r"[0-9a-f]{64}\.(?:object|index)|[0-9]{10}\.manifest")


@dataclass(slots=True)
class Made:
    """A backup that was made. `objects`, `bytes`: what was written; `kept`: how many backups there are now; `removed`:
    files of older ones."""

    place: str
    number: int
    lsn: int
    fingerprint: str
    objects: int = 0
    bytes: int = 0
    total_bytes: int = 0
    kept: int = 0
    removed: int = 0


class Last(msgspec.Struct, frozen=True):
    """What a node remembers of its last backup in a place."""

    number: int
    sha256: str
    lsn: int
    made_ms: int


def remembered(store: Store, place: Place | str) -> Last | None:
    """The last backup of this store in a place (or in one that is shown so)."""
    text = store.meta(_meta(place))
    return None if text is None else msgspec.json.decode(text, type=Last)


def _meta(place: Place | str, what: str = "") -> str:
    shown = place if isinstance(place, str) else place.shown
    return f"backup/{what}{SUITE_1.hash(shown.encode()).hex()[:16]}"


class Maker:
    """One backup into one place. `public`: the recovery key; `anew`: nothing that is there is built upon; `stop`: asked
    before each file, whether to give up."""

    def __init__(
        self, app: App, place: Place, public: bytes, *, anew: bool = False, stop: Callable[[], bool] = lambda: False
    ) -> None:
        self._app, self._place, self._public, self._anew, self._stop = app, place, public, anew, stop
        self._key_id = SUITE_1.hash(public)[: fmt.KEY_ID_BYTES]
        self._object_bytes = app.profile.object_bytes
        self._store = app.new_store()
        trust = app.trust
        self._folder = folder_of(trust.domain, trust.node, self._store.store_id)
        self._series = Series(place, self._folder, trust.root_sha256)
        self._entries: list[Entry] = []
        self._files: set[str] = set()
        self._made = Made(place.shown, 0, 0, "")

    def run(self) -> Made:
        """Raises StoreError FN-766x, Unavailable FN-4520 (the place), IntegrityError FN-6645 (rule 4), FN-6646 (what
        was written does not read back), FN-6601 (rule 7)."""
        try:
            if isinstance(self._place, Folder):
                self._place.tidy(self._folder)
            last = self._last()
            self._entries = self._begun(last)
            self._files = set(self._place.files(self._folder))
            while not self._step(last):
                pass
            self._forget()
            return self._made
        finally:
            self._store.close()

    # ------------------------------------------------------------ what is there

    def _last(self) -> Backup | None:
        known, numbers = remembered(self._store, self._place), self._series.numbers()
        if self._anew:
            return None
        if known is None and not numbers:
            return None
        wanted = known.number if known else 0
        found = numbers[-1] if numbers else 0
        try:
            last = self._series.backup(wanted) if known else None
            if known and last and last.sha256.hex() != known.sha256:
                raise IntegrityError("FN-6645", place=self._place.shown, number=wanted, found=found)
            if found == wanted + 1:  # written, and the power went before it was remembered
                next_ = self._series.backup(found)
                if next_.manifest.previous.hex() == (known.sha256 if known else "") and self._is_mine(next_):
                    return next_
        except IntegrityError as error:
            raise IntegrityError("FN-6645", place=self._place.shown, number=wanted, found=found) from error
        if found != wanted:
            raise IntegrityError("FN-6645", place=self._place.shown, number=wanted, found=found)
        return last

    def _begun(self, last: Backup | None) -> list[Entry]:
        """The objects to build upon: those of a backup that was interrupted, else those of the last one."""
        if self._anew:
            return []
        key_id, _, index = str(self._store.meta(_meta(self._place, "making/"), "")).partition("\n")
        if key_id == self._key_id.hex():
            return list(fmt.parse_index(index.encode()))
        if last is None or last.manifest.key_id != self._key_id:
            return []
        return [one for one in self._series.index(last.manifest) if one.kind == SEGMENTS]

    def _remember(self) -> None:
        """What was written so far (rule 6)."""
        text = f"{self._key_id.hex()}\n{fmt.encode_index(self._entries).decode()}"
        with self._store.write() as tx:
            tx.set_meta(_meta(self._place, "making/"), text)

    def _is_mine(self, one: Backup) -> bool:
        return one.manifest.lsn <= self._store.lsn and one.signer.sign_key == self._app.keys.sign.public

    @contextmanager
    def _snapshot(self) -> Iterator[Store]:
        store = Store.read(self._app.home.log_db, stash_key=self._app.keys.stash_key)
        try:
            store.connection.execute("begin")
            yield store
        finally:
            store.close()

    # ------------------------------------------------------------ steps

    def _step(self, last: Backup | None) -> bool:
        """Write what is missing, at most `BATCH_BYTES` of segments; whether that was all, and the backup is made."""
        with self._snapshot() as store:
            upto, lsn = self._entries[-1].last if self._entries else 0, store.lsn
            first, size = self._with_small(store, upto, lsn)
            if size > BATCH_BYTES:
                _, end = self._batch(store, first, lsn)
                self._put(self._objects(store, first, end), first, end)
                return False
            changed = self._changed(store)
            for one in changed:
                if size > BATCH_BYTES:
                    break
                size += one.size
                self._put(self._objects(store, one.first, one.last), one.first, one.last)
            else:
                if first <= lsn:
                    self._put(self._objects(store, first, lsn), first, lsn)
                rest = [self._keep(entry, data) for entry, data in self._rest(store)]
                self._write_manifest(last, lsn, rest)
                return True
            return False

    def _with_small(self, store: Store, upto: int, lsn: int) -> tuple[int, int]:
        """Where what is new begins, and how many bytes it has (or that it is more than a batch); with the last objects
        that are smaller (rule 2)."""
        first, (size, _) = upto + 1, self._batch(store, upto + 1, lsn)
        if first > lsn:
            return first, 0
        for one in reversed(self._entries):
            if one.size > min(2 * size + SMALL_BYTES, self._object_bytes // 2):
                break
            first, size = one.first, size + one.size
        return first, size

    @staticmethod
    def _batch(store: Store, first: int, lsn: int) -> tuple[int, int]:
        """Bytes of segments from an arrival number on, up to a little more than a batch, and where that ends."""
        size = 0
        sql = "select lsn, length(data) from segment where lsn >= ? order by lsn"
        for one, length in store.connection.execute(sql, (first,)):
            size += length
            if size > BATCH_BYTES:
                return size, int(one)
        return size, lsn

    def _changed(self, store: Store) -> list[Entry]:
        """Objects that are missing, or that hold what is not so any more."""
        return [
            one
            for one in self._entries
            if one.file not in self._files or _state(store, one.first, one.last) != one.state
        ]

    def _put(self, made: Iterator[tuple[Entry, bytes]], first: int, last: int) -> None:
        """These objects take the place of whatever covered [first, last]."""
        new = [self._keep(entry, data) for entry, data in made]
        before = takewhile(lambda one: one.last < first, self._entries)
        self._entries = [*before, *new, *(one for one in self._entries if one.first > last)]
        self._remember()

    # ------------------------------------------------------------ what goes in

    def _objects(self, store: Store, first: int, last: int) -> Iterator[tuple[Entry, bytes]]:
        """Objects that cover [first, last]."""
        start, size = first, 0
        rows = store.rows("select lsn, length(data) from segment where lsn between ? and ? order by lsn", first, last)
        for lsn, length in rows:
            size += length
            if size >= self._object_bytes and lsn < last:
                yield self._segments(store, start, lsn)
                start, size = lsn + 1, 0
        yield self._segments(store, start, last)

    def _segments(self, store: Store, first: int, last: int) -> tuple[Entry, bytes]:
        tables = [_table(store, name, "where lsn between ? and ? order by lsn", first, last) for name in BY_ARRIVAL]
        place = {name: at for at, name in enumerate(tables[0].columns)}
        for row in tables[0].rows:
            if SUITE_1.hash(row[place["data"]]) != row[place["sha256"]]:
                raise IntegrityError("FN-6601", lsn=row[place["lsn"]], path=str(store.path))
        return self._sealed(SEGMENTS, first, last, tables, _state(store, first, last))

    def _sealed(self, kind: str, first: int, last: int, tables: list[Table], state: bytes) -> tuple[Entry, bytes]:
        trust = self._app.trust
        header = Header(trust.domain, trust.node, self._store.store_id, kind, first, last)
        data = fmt.seal_object(header, tables, self._public, self._app.rng)
        return Entry(kind, first, last, len(data), SUITE_1.hash(data), state), data

    def _rest(self, store: Store) -> Iterator[tuple[Entry, bytes]]:
        """All else, in parts: what is small, or changes."""
        part, size, tables = 1, 0, list[Table]()
        for table in self._rest_tables(store):
            rows = list[Any]()
            for row in table.rows:
                rows.append(row)
                size += ROW_BYTES + sum(len(value) for value in row if isinstance(value, bytes | str))
                if size >= self._object_bytes // 2:
                    yield self._sealed(
                        *(REST, part, part), [*tables, Table(table.name, table.columns, rows)], bytes(fmt.HASH_BYTES)
                    )
                    part, size, tables, rows = part + 1, 0, [], []
            tables.append(Table(table.name, table.columns, rows))
        yield self._sealed(REST, part, part, tables, bytes(fmt.HASH_BYTES))

    def _rest_tables(self, store: Store) -> Iterator[Table]:
        yield Table(FILE, ("name", "data"), self._home_files())
        yield Table(MIGRATION, ("name",), [(name,) for name in applied(store.connection)])
        names = store.rows("select name from sqlite_master where type = 'table' order by name")
        for (name,) in names:
            if not name.startswith(("sqlite_", "_sqlite_")) and name not in (*BY_ARRIVAL, *LEFT_OUT):
                yield _table(store, name, "")

    def _home_files(self) -> list[tuple[str, bytes]]:
        """The private keys go without their passphrase: it is the recovery key that guards them here."""
        home, keys = self._app.home, self._app.keys
        found = [
            ("keys/sign.pem", keys.sign.to_pem()),
            ("keys/seal.pem", keys.seal.to_pem()),
            ("keys/tls.pem", keys.tls.to_pem()),
        ]
        root = home.root_key(self._app.config.passphrase)
        if root is not None:
            found.append(("keys/root.pem", root.to_pem()))
        found += [
            (name, (home.path / name).read_bytes()) for name in (CONFIG, ADDRESSES) if (home.path / name).exists()
        ]
        return found

    # ------------------------------------------------------------ writing

    def _keep(self, entry: Entry, data: bytes) -> Entry:
        self._write(entry.file, data)
        self._made.objects += 1
        return entry

    def _write(self, name: str, data: bytes) -> None:
        if self._stop():
            raise Unavailable("FN-4521", place=self._place.shown)
        self._place.write(f"{self._folder}/{name}", data)
        if self._place.read(f"{self._folder}/{name}", len(data)) != data:
            raise IntegrityError("FN-6646", place=self._place.shown, file=name)
        self._files.add(name)
        self._made.bytes += len(data)

    def _write_manifest(self, last: Backup | None, lsn: int, rest: list[Entry]) -> None:
        app, entries = self._app, [*self._entries, *rest]
        index = fmt.encode_index(entries)
        fmt.parse_index(index)  # that a reader takes it
        me = app.trust.me
        number = max([0, *self._series.numbers()])
        known = remembered(self._store, self._place)
        number = max(number, known.number if known else 0) + 1
        manifest = Manifest(
            *(app.trust.domain, me.node, me.incarnation, self._store.store_id, number, app.now_ms(), lsn),
            *(self._key_id, last.sha256 if last else b"", SUITE_1.hash(index), len(index)),
            app.trust.directory.chain(me.node),
        )
        data = manifest.sign(app.keys.sign.public, app.keys.sign.sign)
        fmt.parse_manifest(data, app.trust.root_sha256)
        self._write(manifest.index_file, index)
        self._write(manifest.file, data)
        sha256 = fmt.fingerprint(data)
        self._made.number, self._made.lsn, self._made.fingerprint = number, lsn, fingerprint(sha256)
        self._made.total_bytes = sum(one.size for one in entries) + len(index) + len(data)
        note = Last(number, sha256.hex(), lsn, manifest.made_ms)
        with self._store.write() as tx:
            tx.set_meta(_meta(self._place), msgspec.json.encode(note).decode())
            tx.execute("delete from meta where key = ?", _meta(self._place, "making/"))
        app.journal(app.new_writer(self._store)).note(
            "backup",
            place=self._place.shown,
            number=number,
            lsn=lsn,
            fingerprint=self._made.fingerprint,
            bytes=self._made.bytes,
        )

    # ------------------------------------------------------------ forgetting

    def _forget(self) -> None:
        """Older backups (rule 5), then the files that none names any more. Where one does not hold, nothing goes: it is
        `fednode backup verify` that looks into it."""
        numbers = self._series.numbers()
        stay = numbers[-self._app.config.backup_keep :]
        self._made.kept = len(numbers)
        try:
            kept = {number: self._series.backup(number).manifest for number in stay}
            needed = {number: self._series.index(one) for number, one in kept.items()}
        except IntegrityError:
            return
        now = {one.sha256 for one in needed[stay[-1]]}
        holds = [
            number
            for number, entries in needed.items()
            if any(one.sha256 not in now and self._erased_since(one, kept[number].lsn) for one in entries)
        ]
        stay = [number for number in stay if number > max(holds, default=0)]  # no hole is left between them
        names = {one.file for number in stay for one in needed[number]}
        names |= {name for number in stay for name in (kept[number].file, kept[number].index_file)}
        files = [name for name in self._place.files(self._folder) if _OURS.fullmatch(name) and name not in names]
        for name in sorted(files, key=lambda one: not one.endswith(".manifest")):  # what names others goes first
            self._place.remove(f"{self._folder}/{name}")
        self._made.kept, self._made.removed = len(stay), len(files)

    def _erased_since(self, entry: Entry, lsn: int) -> bool:
        """Whether something that an object holds was erased after its backup was made, or stripped only then."""
        return entry.kind == SEGMENTS and bool(
            self._store.rows(
                """select 1 from erased e join log l on l.name = e.log
                   join segment s on s.log_id = l.id and s.first <= e.seq and e.seq < s.first + s.count
                   where s.lsn between ?2 and ?3 and (e.by_lsn > ?1 or exists (
                       select 1 from resealed r where r.segment_lsn = s.lsn and r.lsn > ?1)) limit 1""",
                *(lsn, entry.first, entry.last),
            )
        )


def _table(store: Store, name: str, where: str, *parameters: int) -> Table:
    cursor = store.connection.execute(f"select * from {name} {where}", parameters)
    return Table(name, tuple(column[0] for column in cursor.description), cursor.fetchall())


def _state(store: Store, first: int, last: int) -> bytes:
    return fmt.state_of(
        store.connection.execute(
            "select lsn, sha256, first_time, content_key from segment where lsn between ? and ? order by lsn",
            (first, last),
        )
    )
