"""`fednode erase`: find the versions of a record, erase them, leave nothing behind here.

Rules
1. Whoever may write the dataset, and whose scope covers the record's area, may erase. What flows down only, from a node
   above, must be erased there: this node's erase would not reach those above it.
2. All versions that this node knows are erased, or one of them, counted as `get --history` counts: 1 is the newest.
   When the current one goes alone, the record falls back to the version before it.
3. Each version is one erase, which names its place and never the key; so does the event in the audit.
4. What the command line left in free pages, indexes and the write-ahead log is cleaned up at once, where the files are
   small; else by the daemon.

>>> # done = erase(records, "admin-licence", "A1", "court order 12"); done.erases
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from fednode.node import sqlite
from fednode.node.cleaning import clean_log, clean_state
from fednode.node.follower import follow
from fednode.node.projection import Projector
from fednode.node.records import Records
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.sync.errors import Refused, StoreError
from fednode.sync.strip import erase_change


@dataclass(frozen=True, slots=True)
class Place:
    """A version that is erased: where it stands, and the erase that names it ("" in a dry run)."""

    log: str
    seq: int
    erase: str


@dataclass(frozen=True, slots=True)
class Erased:
    """What an erase did, or would do."""

    dataset: str
    area: str
    places: tuple[Place, ...]


def erase(
    records: Records,
    dataset: str,
    key: str,
    reason: str,
    *,
    area: str | None = None,
    number: int | None = None,
    dry_run: bool = False,
) -> Erased:
    """Erase a record, or one version of it. Raises Refused FN-2720 (no reason), FN-2716 (no such version), FN-5312 (to
    be erased above), and what writing raises."""
    if not reason.strip():
        raise Refused("FN-2720")
    place, versions = records.versions(dataset, key, area)
    if number is not None:
        if not 1 <= number <= len(versions):
            raise Refused("FN-2716", version=number, count=len(versions))
        versions = [versions[number - 1]]
    declared, me = records.declared(dataset), records.trust.me
    for log, _ in versions:
        if declared.flow == "down" and log.origin != me.node:
            raise Refused("FN-5312", node=log.origin, dataset=dataset)
    if dry_run:
        return Erased(dataset, place, tuple(Place(str(log), seq, "") for log, seq in versions))
    name = records.trust.log_name(dataset, place)
    before = 0

    def tell(tx: Transaction) -> None:
        nonlocal before
        before = records.store.log_state(name).size - len(versions)
        records.journal.within(
            tx, "erase", dataset=dataset, area=place, log=str(name), number=before, changes=len(versions), reason=reason
        )

    changes = [erase_change(log, seq, reason) for log, seq in versions]
    records.writer.local(dataset, place, changes, tell)
    follow(records.projector)
    with contextlib.suppress(StoreError, sqlite.DatabaseError):  # it is done; the daemon cleans up when there is room
        clean(records.store, records.projector)
    places = [Place(str(log), seq, f"{name}#{before + i}") for i, (log, seq) in enumerate(versions)]
    return Erased(dataset, place, tuple(places))


def clean(store: Store, projector: Projector, *, thorough: bool = False) -> None:
    """Everything that can be cleaned up now (rule 4)."""
    while clean_state(projector, thorough=thorough) or clean_log(store, thorough=thorough):
        pass
