"""One segment as it lies in log.db, proved by itself: bytes, place, chain, signatures, stamps, leaves.

Rules
1. A check needs nothing but the segment's own row and who is who, so segments are checked in any order and on any
   number of cores. What needs the segments before it (gaps, stamps, roots) is `fednode.node.audit.Fold`'s.
2. The same fault has the same code as when it comes from a peer (`fednode.sync.verify`); what only a store can have
   wrong is FN-66xx.
3. A code and no exception: one bad segment does not stop the rest.

>>> Seen(0, 3).end
3
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fednode.crypto import certs, checkpoint
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.merkle import subtrees
from fednode.crypto.suite import SUITE_1
from fednode.node.store import Store
from fednode.sync import segment as seg
from fednode.sync.change import LogName
from fednode.sync.errors import PeerError
from fednode.sync.identity import Directory
from fednode.sync.verify import verify_signatures
from fednode.sync.wire import Cosignature

_ROW = """select first, count, last_hlc, sha256, content_key, first_time, first_signature, data
    from segment where lsn = ?"""


@dataclass(slots=True)
class Seen:
    """What a segment is and proves by itself. `code`: what is wrong with it, "" for nothing. `parts`: the full subtrees
    of its leaves (`crypto.merkle.subtrees`); None where this node carries it and does not read it. `consistency`: what
    the origin proves to those (RFC 9162), from `first` to `end`."""

    first: int
    count: int
    code: str = ""
    root: bytes = b""
    first_hlc: int = 0
    last_hlc: int = 0
    parts: list[bytes] | None = None
    stripped: int = 0
    consistency: tuple[bytes, ...] = ()

    @property
    def end(self) -> int:
        return self.first + self.count


class Checker:
    """Checks segments of one store. `me`: this node's id."""

    def __init__(self, store: Store, directory: Directory, me: str) -> None:
        self._store, self._directory, self._me = store, directory, me
        self._chained: dict[bytes, bool] = {}

    def check(self, name: LogName, lsn: int, first: int, count: int) -> Seen:
        """The segment at an arrival number, which should be changes [first, first + count) of a log."""
        seen = Seen(first, count)
        try:
            self._check(name, lsn, seen)
        except FednodeError as error:
            seen.code, seen.parts = error.code, None
        return seen

    def check_all(self, name: LogName, places: Sequence[tuple[int, int, int]]) -> list[Seen]:
        """Several segments of a log, each by its (lsn, first, count)."""
        return [self.check(name, *place) for place in places]

    def _check(self, name: LogName, lsn: int, seen: Seen) -> None:
        rows = self._store.rows(_ROW, lsn)
        if not rows:
            raise IntegrityError("FN-6602", log=str(name), first=seen.first)
        first, count, last_hlc, sha256, wrapped, first_time, first_signature, data = rows[0]
        if not _shaped(rows[0]) or SUITE_1.hash(data) != sha256:
            raise IntegrityError("FN-6601", lsn=lsn, path=str(self._store.path))
        envelope = seg.parse(data)
        header = envelope.header
        if header.log != name or (header.first, header.count, header.last_hlc) != (first, count, last_hlc):
            raise IntegrityError("FN-6604", log=str(name), first=seen.first)
        origin = self.origin(name)
        verify_signatures(envelope, origin, self._directory)
        seen.root, seen.first_hlc, seen.last_hlc = header.root, header.last_hlc, header.last_hlc
        seen.consistency = header.consistency
        if first_time is not None:
            head = checkpoint.Checkpoint(str(name), header.end, header.root)
            if not cosigned(head, self.lives(origin.issuer), Cosignature(first_time, first_signature)):
                raise PeerError("FN-6407", log=str(name), witness=origin.issuer)
        if not envelope.sealed or wrapped:
            self._leaves(envelope, wrapped, seen)
        elif self._should_read(name, header):
            raise PeerError("FN-6404", log=str(name), first=header.first)

    def _leaves(self, envelope: seg.Envelope, wrapped: bytes | None, seen: Seen) -> None:
        header = envelope.header
        body = seg.open_body(envelope, self._store.unstash(wrapped) if wrapped else b"")
        leaves = seg.decode_leaves(body, header.suite)
        if (len(leaves.hashes), leaves.stripped) != (
            header.count,
            header.stripped,
        ) or leaves.last_hlc != header.last_hlc:
            raise PeerError("FN-6409", log=str(header.log), first=header.first)
        seen.first_hlc, seen.stripped = leaves.first_hlc, leaves.stripped
        seen.parts = subtrees(header.first, leaves.hashes)

    def _should_read(self, name: LogName, header: seg.Header) -> bool:
        """Whether its content key was taken away: it is sealed to this node's present key, or is of its own present
        life."""
        me = self._directory.get(self._me)
        if me is None:
            return False
        return (name.origin, name.incarnation) == (me.node, me.incarnation) or SUITE_1.hash(me.seal_key)[
            :8
        ] in header.readers

    # ------------------------------------------------------------ who signed

    def lives(self, node: str) -> list[Identity]:
        """Every life of a node that is known here and was certified, the newest first."""
        return [one for one in self._directory.lives(node) if self._holds(one, len(self._directory.levels) + 1)]

    def origin(self, name: LogName) -> Identity:
        """Who wrote a log, in the life that its name says; the chain of certificates leads to the pinned root. Raises
        IntegrityError FN-6605 (not known), FN-6102 (the chain does not hold)."""
        origin = self._directory.life(name.origin, name.incarnation)
        if origin is None:
            raise IntegrityError("FN-6605", log=str(name), node=name.origin)
        if not self._holds(origin, len(self._directory.levels) + 1):
            raise IntegrityError("FN-6102", node=origin.node, issuer=origin.issuer, reason="chain")
        return origin

    def _holds(self, identity: Identity, depth_max: int) -> bool:
        """Whether some life of its issuer certified it, and so on up to the root."""
        known = self._chained.get(identity.der)
        if known is None:
            directory = self._directory
            issuers = [directory.root] if identity.issuer == ROOT else directory.lives(identity.issuer)
            known = self._chained[identity.der] = depth_max > 0 and any(
                issuer.node == ROOT or self._holds(issuer, depth_max - 1)
                for issuer in issuers
                if self._issued(identity, issuer)
            )
        return known

    def _issued(self, identity: Identity, issuer: Identity) -> bool:
        try:
            certs.check_issued(identity, issuer, self._directory.levels)
        except IntegrityError:
            return False
        return True


def _shaped(row: Sequence[Any]) -> bool:
    """Whether the columns are of their kinds: SQLite keeps whatever it is given."""
    first, count, last_hlc, sha256, wrapped, first_time, first_signature, data = row
    numbers, blobs = (first, count, last_hlc), (sha256, data)
    return (
        all(isinstance(one, int) for one in numbers)
        and all(isinstance(one, bytes) for one in blobs)
        and isinstance(wrapped, bytes | None)
        and ((isinstance(first_time, int) and isinstance(first_signature, bytes)) or first_time is None)
    )


def cosigned(head: checkpoint.Checkpoint, witnesses: Sequence[Identity], given: Cosignature) -> bool:
    """Whether one of these, the lives of one node, cosigned a checkpoint."""
    for witness in witnesses:
        try:
            checkpoint.verify_cosignature(head, witness.sign_key, given.time_s, given.signature)
        except IntegrityError:
            continue
        return True
    return False
