"""What a primary's records were at one place of its arrival order, told to its standbys: whoever rehearses a promotion
compares with that, and asks nobody.

Rules
1. Once a day a node that has standbys counts and digests its records (`Records.digest`), together with the arrival
   number up to which they are.
2. It is told in a beat, like the lag. A standby keeps the last one in its run folder (`run/digest.json`): it is told
   again in each session.
3. A standby's store has the same segments in another numbering: `place` says up to which of its own numbers it has just
   what its primary had then.

>>> Known("", 7, 0, 0, "").lsn
7
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from fednode.node import files
from fednode.node.records import digest_of
from fednode.node.store import Store
from fednode.sync import wire

if TYPE_CHECKING:
    from fednode.node.app import App

DIGEST = "digest"  # at a primary: the last one (meta)
FILE = "digest.json"
BYTES_MAX = 4096
DAY_MS = 86_400_000


class Known(msgspec.Struct, frozen=True):
    """`records` and their `digest` at the arrival number `lsn` of a store (its id in hex); `at_ms`: when that was."""

    store: str
    lsn: int
    at_ms: int
    records: int
    digest: str


def take(app: App) -> Known:
    """Count and digest this node's records, now, and keep it. In any thread."""
    store = app.new_store()
    projector = app.new_projector(store)
    try:
        projector.catch_up()
        projector.connection.execute("begin")
        try:
            lsn, found = projector.cursor, digest_of(projector.connection)
        finally:
            projector.connection.execute("commit")
        known = Known(store.store_id.hex(), lsn, app.now_ms(), found.records, found.digest)
        with store.write() as tx:
            tx.set_meta(DIGEST, msgspec.json.encode(known).decode())
        return known
    finally:
        projector.close()
        store.close()


def due(store: Store, now_ms: int) -> bool:
    """Whether the last one is a day old."""
    known = last(store)
    return known is None or not 0 <= now_ms - known.at_ms < DAY_MS


def last(store: Store) -> Known | None:
    """The last one that this node has taken."""
    text = store.meta(DIGEST)
    return None if text is None else msgspec.json.decode(text, type=Known)


def to_tell(store: Store) -> wire.RecordsDigest | None:
    """The same, for a standby."""
    known = last(store)
    return None if known is None else wire.RecordsDigest(known.lsn, known.at_ms, known.records, known.digest)


def heard(run_dir: Path, store: bytes, told: wire.RecordsDigest) -> None:
    """A standby keeps what its primary has told; `store`: the primary's."""
    with contextlib.suppress(OSError):
        known = Known(store.hex(), told.lsn, told.at_ms, told.records, told.digest)
        files.jot(run_dir / FILE, msgspec.json.encode(known))


def read(run_dir: Path) -> Known | None:
    """What a standby was told last; None where that cannot be read."""
    try:
        with (run_dir / FILE).open("rb") as file:
            return msgspec.json.decode(file.read(BYTES_MAX), type=Known)
    except (OSError, *files.UNREADABLE):
        return None


def place(store: Store, primary: str, known: Known) -> int | None:
    """Up to which arrival number a standby's store has just what its primary's had; None where it does not reach so
    far, or follows another store."""
    peer = store.peer(primary)
    if peer is None or peer.have.store.hex() != known.store or peer.have.lsn < known.lsn:
        return None
    rows = store.rows(
        "select min(lsn) from segment where peer = ? and lsn > ? and peer_lsn > ?", peer.id, peer.since, known.lsn
    )
    return store.lsn if rows[0][0] is None else int(rows[0][0]) - 1
