"""The tables of log.db, state.db, health.db, alerts.db and accounts.db, as migrations.

Rules
1. A migration that has landed is never edited; a change is a new one. sqlite-utils runs each in a transaction and
   remembers it.
2. A database that knows migrations this program does not is newer than the program: refused (FN-7608), untouched.
3. All that are pending are one transaction; log.db is copied first (`node.upgrading`).

log.db   `log` one row for each log held, `segment` the sealed bytes in arrival order, `late` first-parent
         cosignatures that lowered a stamp after the fact (they share the arrival order), `witness` cosignatures of the
         levels above, `peer` cursors, `invite` tokens (hashes), `refused` evidence, `partial` half-received segments,
         `verified` how far logs were verified, `tree` inner nodes to prove from, `erased` what was erased (`record_key`
         sealed, until state.db has forgotten it too), `resealed` stripped segments that are sent again (in the arrival
         order), `withheld` what came stripped and no erase explains, `chain` a running checksum of the arrival order,
         `urgent` what goes ahead of its turn, `rewrap` content keys for readers that came later (in the arrival order),
         `rewrap_key` readers' keys that were seen (`upto`: to what segments something is still due),
         `came_again` what a child sent that was held before, until it has heard of it, `refused_at` the same of what
         was refused of a peer, `early` what nodes above have
         signed of heads that are not here yet, `held_back` segments of earlier lives that go nowhere, `made_again` what
         of those was made again in a later life, and as what, `meta` the rest.
state.db `record` current values, `superseded` what each record was before, `dataset` and `area` the small numbers,
`meta` cursors.
health.db `node` one row for each node of this one's subtree (`node.mesh.table`), `child` how far each child's reports
         have come, `traffic` and `meeting` what moved with whom (`node.mesh.history`), `meta` the count.
alerts.db `active` what holds of this node's rules, `silence` what is kept quiet until when, `delivery` the outbox
         (`node.alerting.outbox`), `meta` what was found last (`node.alerting.local`).
accounts.db `account` operators of the console, `session` who is signed in (`node.web.accounts`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from sqlite_utils import Database, Migrations

from fednode.node.sqlite import Connection, DatabaseError, connect, transaction, trouble
from fednode.sync.errors import StoreError

log_migrations = Migrations("fednode-log")
state_migrations = Migrations("fednode-state")
health_migrations = Migrations("fednode-health")
alerts_migrations = Migrations("fednode-alerts")
accounts_migrations = Migrations("fednode-accounts")


@log_migrations()
def m001_log(db: Database) -> None:
    """The first shape of log.db."""
    for statement in (
        "create table meta (key text primary key, value) without rowid",
        """create table log (
            id integer primary key, name text not null unique, origin text not null, incarnation integer not null,
            dataset text not null, audience text not null, size integer not null, root blob not null, frontier blob,
            last_hlc integer not null, up integer not null, down text not null)""",
        "create index log_down on log (down) where down <> ''",
        """create table segment (
            lsn integer primary key, log_id integer not null references log, first integer not null, count integer not
            null,
            last_hlc integer not null, sha256 blob not null, content_key blob, first_time integer, first_signature blob,
            peer integer, peer_lsn integer, data blob not null)""",
        "create unique index segment_place on segment (log_id, first)",
        "create index segment_log_lsn on segment (log_id, lsn)",
        "create index segment_peer on segment (peer, peer_lsn) where peer is not null",
        """create table late (
            lsn integer primary key, log_id integer not null references log, segment_lsn integer not null,
            time_s integer not null, peer integer, peer_lsn integer)""",
        """create table witness (
            log_id integer not null references log, witness text not null, size integer not null, time_s integer not
            null,
            signature blob not null, primary key (log_id, witness)) without rowid""",
        """create table peer (
            id integer primary key, node text not null unique, role text not null, acked integer not null default 0,
            have_store blob, have_lsn integer not null default 0, have_check blob, last_ms integer, last_error text,
            addresses text)""",
        """create table invite (
            token_hash blob primary key, node text not null, name text not null, level text not null, scope text not
            null,
            expires_s integer not null, used_s integer, used_key blob) without rowid""",
        """create table refused (
            id integer primary key, at_ms integer not null, peer text not null, code text not null, log text not null,
            first integer not null, params text not null, data blob, unique (peer, log, first, code))""",
        "create index refused_log on refused (log, first)",
        """create table partial (
            peer text primary key, lsn integer not null, total integer not null, digest blob not null, data blob not
            null,
            first_time integer, first_signature blob, first_witness text) without rowid""",
    ):
        db.conn.execute(statement)


@log_migrations()
def m002_tree(db: Database) -> None:
    """Nodes of the logs' Merkle trees. A log that is older than this table has fewer; `node.tree` makes up for it."""
    db.conn.execute(
        """create table tree (
            log_id integer not null references log, level integer not null, idx integer not null, hash blob not null,
            primary key (log_id, level, idx)) without rowid"""
    )


@log_migrations()
def m003_verified(db: Database) -> None:
    """How far each log was found to hold, so that an incremental verification goes on from there (`node.audit`)."""
    db.conn.execute(
        """create table verified (
            log_id integer primary key references log, size integer not null, root blob not null, frontier blob,
            last_hlc integer not null)"""
    )


@log_migrations()
def m004_peer_store(db: Database) -> None:
    """Since which arrival number a peer has had its present store."""
    db.conn.execute("alter table peer add column since integer not null default 0")


@log_migrations()
def m005_erased(db: Database) -> None:
    """What was erased, and segments that were stripped and sealed again."""
    for statement in (
        """create table erased (
            log text not null, seq integer not null, by_log text not null, by_seq integer not null,
            by_lsn integer not null, at_ms integer not null, stripped integer not null default 0, record_key blob,
            primary key (log, seq)) without rowid""",
        "create index erased_by on erased (by_log, by_seq)",
        "create index erased_key on erased (by_lsn) where record_key is not null",
        "create table resealed (lsn integer primary key, segment_lsn integer not null references segment)",
        "create index resealed_segment on resealed (segment_lsn)",
        """create table withheld (
            log text not null, first integer not null, peer text not null, at_ms integer not null,
            primary key (log, first)) without rowid""",
    ):
        db.conn.execute(statement)


@log_migrations()
def m006_chain(db: Database) -> None:
    """A running checksum of the arrival order, from the first segment after this migration on (`Store.chain_at`)."""
    db.conn.execute("create table chain (lsn integer primary key, sum blob not null)")


@log_migrations()
def m007_urgent(db: Database) -> None:
    """Which segments go ahead of their turn (`node.urgent`). What is in the store already is looked at once."""
    for statement in (
        "create table urgent (lsn integer primary key)",
        """insert into urgent select s.lsn from segment s join log l on l.id = s.log_id
           where l.dataset in ('sys.nodes', 'sys.catalog', 'sys.alerts', 'sys.receipts')
              or s.lsn in (select by_lsn from erased)""",
    ):
        db.conn.execute(statement)


@log_migrations()
def m008_witness(db: Database) -> None:
    """Cosignatures at several sizes, and the order in which they are passed down (`node.witness`): `number`, and to
    which `child`. What is older has no child: the next one of its log takes its place."""
    for statement in (
        "alter table witness rename to witness_before",
        """create table witness (
            log_id integer not null references log, size integer not null, witness text not null,
            time_s integer not null, signature blob not null, number integer not null, child text,
            primary key (log_id, size, witness)) without rowid""",
        "insert into witness select log_id, size, witness, time_s, signature, 0, null from witness_before",
        "drop table witness_before",
        "create index witness_child on witness (child, number) where child is not null",
        "insert or ignore into meta values ('witnessed', 0)",
        "alter table peer add column witnessed integer",
    ):
        db.conn.execute(statement)


@log_migrations()
def m009_stick_key(db: Database) -> None:
    """The public half of the key that a token's secret gives: it proves requests by stick (`sync.enrol`, rule 4)."""
    db.conn.execute("alter table invite add column stick_key blob")


@log_migrations()
def m010_held_back(db: Database) -> None:
    """Segments of an earlier life of this node's that its parent is not known to have cosigned: their changes were made
    again, and they go nowhere (`node.succession`)."""
    db.conn.execute("create table held_back (lsn integer primary key references segment)")


@log_migrations()
def m011_rewrap(db: Database) -> None:
    """Content keys of segments for readers that came later."""
    for statement in (
        """create table rewrap (
            lsn integer primary key, log text not null, first integer not null, node text not null, key_id blob not
            null, sha256 blob not null, up integer not null, down text not null, opened integer,
            data blob not null)""",
        "create unique index rewrap_place on rewrap (log, first, key_id, node)",
        "create index rewrap_node on rewrap (node, lsn)",
        "create index rewrap_opened on rewrap (lsn) where opened is not null",
        """create table rewrap_key (
            key_id blob not null, node text not null, after_lsn integer not null default 0, upto integer,
            given integer not null default 0, primary key (key_id, node)) without rowid""",
        "create index rewrap_due on rewrap_key (key_id) where upto is not null",
        "create index log_audience on log (audience) where audience <> ''",
    ):
        db.conn.execute(statement)


@log_migrations()
def m012_handed_back(db: Database) -> None:
    """To whom below an announcement goes that came from there: the area of a child that carries and cannot read."""
    db.conn.execute("alter table resealed add column back text not null default ''")


@log_migrations()
def m013_came_again(db: Database) -> None:
    """Segments that were held before when a child sent them, at which place of its order: until it has heard of it."""
    db.conn.execute(
        """create table came_again (
            peer integer not null, peer_lsn integer not null, lsn integer not null references segment,
            primary key (peer, peer_lsn)) without rowid"""
    )


@log_migrations()
def m014_early(db: Database) -> None:
    """What nodes above have signed of heads that are not here yet (`node.witness`, rule 4)."""
    for statement in (
        """create table early (
            id integer primary key, log text not null, size integer not null, witness text not null, time_s integer not
            null,
            signature blob not null)""",
        "create unique index early_head on early (log, size, witness)",
    ):
        db.conn.execute(statement)


@log_migrations()
def m015_made_again(db: Database) -> None:
    """What was made again in a later life of this node's, and as what: an erase of the one is one of the other."""
    for statement in (
        """create table made_again (
            log text not null, first integer not null, count integer not null, new_log text not null, new_first integer
            not null, primary key (log, first, new_log, new_first)) without rowid""",
        "create index made_again_as on made_again (new_log, new_first)",
    ):
        db.conn.execute(statement)


@log_migrations()
def m016_refused_at(db: Database) -> None:
    """What of a peer's was refused, at which place of its order: until it has heard of it (`node.outcomes`)."""
    db.conn.execute(
        """create table refused_at (
            peer integer not null, peer_lsn integer not null, code text not null, primary key (peer, peer_lsn))
           without rowid"""
    )


@state_migrations()
def m001_state(db: Database) -> None:
    """The first shape of state.db."""
    for statement in (
        "create table meta (key text primary key, value) without rowid",
        "create table dataset (id integer primary key, name text not null unique)",
        "create table area (id integer primary key, code text not null unique)",
        """create table record (
            id integer primary key, dataset integer not null, area integer not null, key text not null, op integer not
            null,
            effective integer not null, hlc integer not null, base integer not null, log integer not null, seq integer
            not null,
            schema_version integer not null, payload text)""",
        "create unique index record_key on record (key, dataset, area)",
        """create table superseded (
            dataset integer not null, area integer not null, key text not null, log integer not null, seq integer not
            null,
            op integer not null, effective integer not null, hlc integer not null, base integer not null,
            schema_version integer not null, conflict integer not null,
            primary key (dataset, area, key, log, seq)) without rowid""",
        "create index superseded_conflict on superseded (conflict) where conflict = 1",
        "create table stale_text (id integer primary key)",
    ):
        db.conn.execute(statement)


@health_migrations()
def m001_health(db: Database) -> None:
    """The first shape of health.db."""
    for statement in (
        "create table meta (key text primary key, value) without rowid",
        "create table child (id text primary key, epoch integer not null, upto integer not null) without rowid",
        """create table node (
            id text not null unique, known integer not null default 0, via text not null default '',
            name text, level text, area text, parent text, path text, branch text, life integer, stands_for text,
            revoked integer not null default 0, children integer not null default 0,
            said_life integer, seen_s integer, up integer not null default 0, load blob, about blob,
            changes integer, system integer, bytes integer, since_s integer, alerts_critical integer,
            alerts_warning integer, standbys integer, standby_changes integer, standby_since_s integer,
            software text, catalog integer, disk_free_mib integer, disk_total_mib integer, clock_ms integer,
            unsure integer, certificate_s integer, drill_s integer, fenced text,
            accused integer not null default 0, arrived_ms integer,
            v_seen integer not null default 0, v_load integer not null default 0, v_about integer not null default 0,
            version integer not null default 0, urgent integer not null default 0, parked integer not null
            default 0)""",
        "create index node_version on node (version)",
        "create index node_path on node (path)",
        "create index node_area on node (area)",
        "create index node_parents on node (path) where children > 0",
        "create index node_parked on node (via) where known = 0",
    ):
        db.conn.execute(statement)


@health_migrations()
def m002_history(db: Database) -> None:
    """What moved between this node and each peer, and when they met (`node.mesh.history`)."""
    db.conn.execute(
        """create table traffic (
            node text not null, step_s integer not null, at_s integer not null, segments_out integer not null,
            segments_in integer not null, bytes_out integer not null, bytes_in integer not null, changes integer not
            null,
            lag_s integer not null, primary key (node, step_s, at_s)) without rowid"""
    )
    db.conn.execute(
        """create table meeting (
            id integer primary key, node text not null, dialled integer not null, began_s integer not null, ended_s
            integer not null,
            segments_out integer not null, segments_in integer not null, bytes_out integer not null, bytes_in integer
            not null,
            code text not null)"""
    )
    db.conn.execute("create index meeting_node on meeting (node, id)")


@alerts_migrations()
def m001_alerts(db: Database) -> None:
    """The first shape of alerts.db."""
    for statement in (
        "create table meta (key text primary key, value) without rowid",
        "create table active (key text primary key, rule text not null, gone_ms integer) without rowid",
        """create table silence (
            id integer primary key autoincrement, kind text not null, target text not null, until_ms integer not null,
            at_ms integer not null, by text not null, note text not null, unique (kind, target))""",
    ):
        db.conn.execute(statement)


@alerts_migrations()
def m002_delivery(db: Database) -> None:
    """What is to be told to whom (`node.alerting.outbox`)."""
    db.conn.execute(
        """create table delivery (
            id text not null, target text not null, alert text not null, area text not null, raised_ms integer not null,
            kind text not null, body blob not null, made_ms integer not null, attempts integer not null default 0,
            next_ms integer not null, done_ms integer, error text not null default '', unique (id, target))"""
    )
    db.conn.execute("create index delivery_due on delivery (target, next_ms) where done_ms is null")
    db.conn.execute("create index delivery_alert on delivery (alert, area, raised_ms)")


@accounts_migrations()
def m001_accounts(db: Database) -> None:
    """The first shape of accounts.db."""
    for statement in (
        """create table account (
            name text primary key, role text not null, password text not null, disabled integer not null default 0,
            made_ms integer not null, last_ms integer) without rowid""",
        """create table session (
            hash blob primary key, account text not null references account, began_ms integer not null,
            seen_ms integer not null, address text not null) without rowid""",
        "create index session_account on session (account)",
    ):
        db.conn.execute(statement)


def shape(connection: Connection) -> set[tuple[str, ...]]:
    """What a database says of itself: kind, name, table and text of each table, index, view."""
    rows = connection.execute("select type, name, tbl_name, coalesce(sql, '') from sqlite_master")
    return {(*rest, re.sub("[ \n]+", " ", sql)) for *rest, sql in rows if not str(rest[1]).startswith("sqlite_stat")}


def fresh(migrations: Migrations) -> Connection:
    """An empty database of this shape, in memory."""
    connection = connect(Path(":memory:"), synchronous="NORMAL")
    migrations.apply(Database(connection))
    return connection


@cache
def log_shape() -> frozenset[tuple[str, ...]]:
    """The shape of log.db."""
    with closing(fresh(log_migrations)) as connection:
        return frozenset(shape(connection))


def applied(connection: Connection) -> list[str]:
    """The migrations of log.db that a database has had, in order."""
    return [migration.name for migration in log_migrations.applied(Database(connection))]


def lacking(connection: Connection, migrations: Migrations, path: Path) -> list[str]:
    """The migrations that a database still lacks; nothing is written. Raises StoreError FN-7608 when it was written by
    a newer program."""
    had = _had(connection, migrations, path)
    if unknown := _unknown(had, migrations):
        raise StoreError("FN-7608", path=str(path), migration=unknown[-1])
    return [migration.name for migration in migrations._migrations if migration.name not in had]


def _had(connection: Connection, migrations: Migrations, path: Path) -> set[str]:
    """What `migrations.applied` says, in two looks instead of nine: every database is asked whenever it is opened."""
    table = migrations.migrations_table
    try:
        if not connection.execute("select 1 from sqlite_master where type = 'table' and name = ?", (table,)).fetchone():
            return set()
        names = connection.execute(f"select name from [{table}] where migration_set = ?", (migrations.name,))
        return {name for (name,) in names}
    except DatabaseError as error:
        raise trouble(error, path) from error


def _unknown(had: set[str], migrations: Migrations) -> tuple[str, ...]:
    return tuple(sorted(had - {migration.name for migration in migrations._migrations}))


def make_as_of(connection: Connection, names: list[str], path: Path) -> None:
    """Make the tables of an empty log.db as they were after these migrations. Raises StoreError FN-7608 when a newer
    program has had others."""
    known = [migration.name for migration in log_migrations._migrations]
    if names != known[: len(names)]:
        raise StoreError("FN-7608", path=str(path), migration=next((one for one in names if one not in known), ""))
    with transaction(connection, path):
        log_migrations.apply(Database(connection), stop_before=known[len(names) :])


def newer(connection: Connection, migrations: Migrations, path: Path) -> tuple[str, ...]:
    """The migrations that a database has had and this program does not know, in order. Raises StoreError."""
    return _unknown(_had(connection, migrations, path), migrations)


def opened(path: Path, migrations: Migrations, *, synchronous: str, cache_kib: int, secure: bool = True) -> Connection:
    """A database of a node beside its log, brought up to date; made where there is none. Raises StoreError."""
    connection = connect(path, synchronous=synchronous, cache_kib=cache_kib, secure=secure)
    try:
        migrate(connection, migrations, path)
    except BaseException:
        connection.close()
        raise
    return connection


class File:
    """One of these, with its table `meta`. Not thread-safe: one for each thread."""

    def __init__(self, connection: Connection, path: Path) -> None:
        self._c, self.path = connection, path

    @property
    def connection(self) -> Connection:
        """For who reads other tables of it."""
        return self._c

    def close(self) -> None:
        self._c.close()

    def meta(self, key: str, default: Any = None) -> Any:
        """A value of the `meta` table."""
        row = self._c.execute("select value from meta where key = ?", (key,)).fetchone()
        return default if row is None else row[0]

    def set_meta(self, key: str, value: Any) -> None:
        """One value, by itself."""
        with transaction(self._c, self.path) as c:
            c.execute("insert or replace into meta values (?, ?)", (key, value))


def migrate(
    connection: Connection, migrations: Migrations, path: Path, before: Callable[[Path], None] | None = None
) -> None:
    """Bring a database up to date; whoever opens it at the same moment waits. `before` is called before one that is not
    new is changed, when nobody else can change it. Raises StoreError FN-7608 when it was written by a newer program,
    and what `sqlite.trouble` makes of SQLite's own errors."""
    try:
        if lacking(connection, migrations, path):
            with transaction(connection, path):
                db = Database(connection)
                if before is not None and migrations.applied(db) and migrations.pending(db):
                    before(path)
                migrations.apply(db)
    except DatabaseError as error:
        raise trouble(error, path) from error
