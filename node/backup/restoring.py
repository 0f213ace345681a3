"""Putting a backup back: a home in an empty place, as the node stood when the backup was made. `node.recovery` goes on
from there.

Rules
1. Nothing is put back that does not verify: the manifest (by the root that the recovery key names), every object, then
   the whole store as `fednode audit verify --full` does it. Before that there is no home: it is built beside its
   place.
2. What is put back is old by nature, and its node has gone on since. So the store gets an id of its own, arrival
   numbers that were never given out (a content key is stashed under each once), a fence, and `recover.json`: nothing
   opens this home before `Recovery` has asked for a new incarnation and taken back what is newer.
3. Cursors of what peers sent stay: a peer gives what came after. What was erased by then stays erased.
4. Up to an arrival number (`upto`): what came later is cut off, the logs end where they did then, and peers are asked
   from the start. What was erased later stays erased all the same.

>>> # Restoring(path, config, chosen, key, clock=real_clock, rng=random_bytes).run()
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import iso
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.crypto.merkle import Frontier
from fednode.node import files, scrub, sqlite, sums
from fednode.node.admission import RESTORED_LSN, RESTORED_STORE
from fednode.node.audit import verify_store
from fednode.node.backup.checking import read
from fednode.node.backup.keyfile import RecoveryKey
from fednode.node.backup.making import BY_ARRIVAL, FILE, LEFT_OUT, MIGRATION
from fednode.node.backup.series import Backup, Series
from fednode.node.config import Config, load
from fednode.node.home import ADDRESSES, CONFIG, Home, NodeKeys
from fednode.node.recovery import RESTORED, State, another
from fednode.node.schema import make_as_of
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync import segment as seg
from fednode.sync.backup import REST, Entry, Table
from fednode.sync.errors import Refused, StoreError

HOME_FILES = ("keys/sign.pem", "keys/seal.pem", "keys/tls.pem", "keys/root.pem", CONFIG, ADDRESSES)
FENCE = "FN-7626"


@dataclass(frozen=True, slots=True)
class Chosen:
    """What is to be put back. `upto`: the last arrival number, None for all of it."""

    series: Series
    backup: Backup
    entries: tuple[Entry, ...]
    upto: int | None = None


def choose(series: Series, newest: Backup, key: RecoveryKey, number: int | None, upto: int | None) -> Chosen:
    """A backup of a store that can be put back. Raises IntegrityError FN-6640 to FN-6644, Refused FN-3363 (there is no
    such backup, or it does not reach so far), FN-5330 (another recovery key)."""
    numbers = series.numbers()
    if number is not None and number not in numbers:
        raise Refused("FN-3363", number=number, numbers=", ".join(map(str, numbers)), lsn=newest.manifest.lsn)
    backup = series.backup(number if number is not None else numbers[-1])
    manifest = backup.manifest
    if manifest.key_id != key.key.key_id:
        raise Refused("FN-5330", number=manifest.number)
    if upto is not None and not 1 <= upto <= manifest.lsn:
        raise Refused("FN-3363", number=manifest.number, numbers=", ".join(map(str, numbers)), lsn=manifest.lsn)
    return Chosen(series, backup, series.index(manifest), upto)


class Restoring:
    """One home out of one backup. `progress`: told how many of the objects' bytes were read."""

    def __init__(
        self,
        path: Path,
        config: Config,
        chosen: Chosen,
        key: RecoveryKey,
        *,
        clock: Callable[[], int],
        rng: Callable[[int], bytes],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self._path, self._config, self._chosen, self._key = path, config, chosen, key
        self._clock, self._rng, self._progress = clock, rng, progress
        self._manifest = chosen.backup.manifest
        self._me = certs.parse(self._manifest.chain[0])
        self._passphrase = config.passphrase

    def run(self) -> None:
        """Build the home and put it into its place. Raises StoreError FN-7616 (there is something there), FN-7608 (by a
        newer program), IntegrityError FN-6640 to FN-6648."""
        with Home.create(self._path) as home:
            self._fill(home)
            keys = home.keys(self._passphrase)
            if (keys.sign.public, keys.tls.public_der) != (self._me.sign_key, self._me.tls_key):
                raise IntegrityError("FN-6647", file="keys")
            self._settle(home, keys)
            self._verify(home, keys)
            now = iso(self._clock() // 1000).replace("-", "").replace(":", "")
            state = State(now, self._me.incarnation, FENCE, (), RESTORED, self._manifest.number)
            home.write_recovery(msgspec.json.encode(state))

    # ------------------------------------------------------------ filling

    def _fill(self, home: Home) -> None:
        connection = sqlite.connect(home.log_db, synchronous="FULL")
        total, done = sum(one.size for one in self._chosen.entries), 0
        rest = [one for one in self._chosen.entries if one.kind == REST]
        others = [one for one in self._chosen.entries if one.kind != REST]
        try:
            for entry in (*rest, *others):  # the rest says what the tables are
                tables = read(self._chosen.series, entry, self._manifest, self._key.key.private)
                if entry is rest[0]:
                    self._begin(home, connection, tables)
                with sqlite.transaction(connection, home.log_db):
                    for table in tables:
                        self._take(home, connection, entry, table)
                done += entry.size
                self._progress(done, total)
        finally:
            connection.close()

    def _begin(self, home: Home, connection: sqlite.Connection, tables: Iterable[Table]) -> None:
        """The tables as that program knew them."""
        names = [str(row[0]) for table in tables if table.name == MIGRATION for row in table.rows]
        make_as_of(connection, names, home.log_db)
        home.write_chain(self._manifest.chain)

    def _take(self, home: Home, connection: sqlite.Connection, entry: Entry, table: Table) -> None:
        if table.name == FILE:
            for name, data in sorted(table.rows, key=lambda row: str(row[0])):  # config.toml comes before keys/
                self._file(home, name, data)
                if name == CONFIG and not (self._path.expanduser() / CONFIG).exists():
                    self._passphrase = self._passphrase or load(home.path, {})[0].passphrase
        elif table.name != MIGRATION:
            there = {row[1] for row in connection.execute(f'pragma table_info("{table.name}")')}
            wanted = table.name in BY_ARRIVAL if entry.kind != REST else table.name not in (*BY_ARRIVAL, *LEFT_OUT)
            if not wanted or there != {*table.columns}:
                raise IntegrityError("FN-6647", file=entry.file)
            columns, marks = ", ".join(f'"{one}"' for one in table.columns), ", ".join("?" for _ in table.columns)
            sql = f'insert or replace into "{table.name}" ({columns}) values ({marks})'
            try:
                connection.executemany(sql, sums.without(table.name, table.columns, table.rows))
            except (OverflowError, sqlite.Error) as error:
                raise IntegrityError("FN-6647", file=entry.file) from error

    def _file(self, home: Home, name: str, data: Any) -> None:
        """A file of the home; private keys under the passphrase of this place, or of the settings that come with
        them."""
        if name not in HOME_FILES or not isinstance(data, bytes):
            raise IntegrityError("FN-6647", file=str(name)[:100])
        kinds: dict[str, Any] = {"sign.pem": SigningKey, "seal.pem": SealKey, "tls.pem": TlsKey, "root.pem": TlsKey}
        if (kind := kinds.get(name.removeprefix("keys/"))) is not None:
            data = kind.from_pem(data).to_pem(self._passphrase)
        try:
            files.write(home.path / name, data, 0o600)
        except OSError as error:
            raise StoreError("FN-7617", path=str(home.path / name), reason=error.strerror or str(error)) from error

    # ------------------------------------------------------------ what makes it another store

    def _settle(self, home: Home, keys: NodeKeys) -> None:
        store = Store.open(home.log_db, stash_key=keys.stash_key)
        try:
            parent = store.peer(self._me.issuer)
            if self._chosen.upto is not None and self._chosen.upto < store.lsn:
                cut(store, self._chosen.upto)
            with store.write() as tx:
                another(tx, self._me, self._rng(16), self._manifest.lsn, FENCE, self._clock())
                if parent is not None and parent.have.store:  # as far as it held this node's feed then, it still does
                    tx.set_meta(RESTORED_STORE, parent.have.store)
                    tx.set_meta(RESTORED_LSN, parent.acked)
        finally:
            store.close()

    def _verify(self, home: Home, keys: NodeKeys) -> None:
        store = Store.open(home.log_db, stash_key=keys.stash_key)
        try:
            trust = Trust.load(store, self._manifest.chain, self._me.node)
            problems = verify_store(store, trust).problems
            if problems:
                one = problems[0]
                raise IntegrityError("FN-6648", count=len(problems), log=one.log, first=one.first, code=one.code)
        finally:
            store.close()


# ---------------------------------------------------------------- up to an arrival number


def cut(store: Store, upto: int) -> None:
    """Take a store back to an arrival number (rule 4)."""
    ends = {
        log_id: _state_at(store, log_id, upto)
        for (log_id,) in store.rows("select distinct log_id from segment where lsn > ?", upto)
    }
    with store.write() as tx:
        tx.execute("delete from held_back where lsn > ?", upto)
        for told in ("came_again", "refused_at"):  # everything comes again, as no cursor stays
            tx.execute(f"delete from {told}")
        tx.execute("delete from early")
        tx.execute("delete from rewrap where lsn > ?", upto)
        for table in reversed(BY_ARRIVAL):
            tx.execute(f"delete from {table} where lsn > ?", upto)
        for log_id, end in ends.items():
            tx.execute("delete from verified where log_id = ?", log_id)
            size = end[0] if end is not None else 0
            tx.execute("delete from witness where log_id = ? and size > ?", log_id, size)
            if end is None:
                tx.execute("delete from log where id = ?", log_id)
            else:
                sql = "update log set size = ?, root = ?, frontier = ?, last_hlc = ? where id = ?"
                tx.execute(sql, *end, log_id)
        tx.execute("update peer set have_lsn = 0, have_check = null, acked = min(acked, ?)", upto)
        tx.execute("update meta set value = min(value, ?) where key = 'system_lsn'", upto)
        tx.set_meta(scrub.META, None)


def _state_at(store: Store, log_id: int, upto: int) -> tuple[int, bytes, bytes | None, int] | None:
    """(size, root, frontier, last stamp) of a log as it stood; None where nothing of it was there."""
    readable = store.rows("select frontier is not null from log where id = ?", log_id)[0][0]
    frontier, last = Frontier.EMPTY, None
    for (first,) in store.rows("select first from segment where log_id = ? and lsn <= ? order by first", log_id, upto):
        last = store.segment_at(log_id, first)
        if last is not None and readable:
            columns = store.columns(last)
            if columns is None:
                readable = False
                continue
            frontier = frontier.grow(seg.leaf_hashes(columns, seg.parse(last.raw).header.suite))[0]
    if last is None:
        return None
    header = seg.parse(last.raw).header
    return header.end, header.root, frontier.to_bytes() if readable else None, header.last_hlc
