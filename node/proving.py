"""Makes proof files (`fednode.sync.proof_file`) of records that this node holds.

Rules
1. A proof is of one change: the version in force, or the one that is asked for. What was erased cannot be proved any
   more: its leaf stays, and nothing is left to show.
2. The checkpoint is, of those that the record lies in, the one with the most cosignatures by nodes above the writer
   that this node has (`fednode.node.witness` has how they come down to it); of equals the one that the highest node has
   signed, then the newest. So a record of this minute is shown with few signatures, or with none, and a minute later
   with all. A node above the writer signs the newest head itself, as the witness that holds it; nobody ever signs a
   smaller size after a larger one.
3. Certificates are those that were valid when the first witness signed: a node renews its own every year, and a proof
   is judged at that time.
4. Every file is checked as its reader will check it before it is handed out. Where a kept node of the tree was altered,
   the nodes of that log are made again from its segments first.

>>> # proved = Prover(app.records(), app.keys.sign, app.now_ms).prove("admin-licence", key)
>>> # Path("record.tlog-proof").write_bytes(proved.data)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import msgspec

from fednode.crypto import certs, checkpoint, merkle, proof
from fednode.crypto.certs import ROOT, Identity
from fednode.crypto.checkpoint import Checkpoint, Cosigner
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SigningKey
from fednode.node import witness
from fednode.node.proof_words import titles_of
from fednode.node.records import Records
from fednode.node.rows import Held
from fednode.node.tree import LogTree, remake
from fednode.node.witness import Given
from fednode.sync import proof_file
from fednode.sync import segment as seg
from fednode.sync.change import DELETE, ERASE, NODES, UPSERT, Columns, LogName
from fednode.sync.clock import milliseconds
from fednode.sync.errors import Refused
from fednode.sync.proof_file import Checked, Head, Leaf
from fednode.sync.wire import Cosignature

PLACES_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class Proved:
    """A proof file, what it proves, and how many segments were read for its path."""

    data: bytes
    checked: Checked
    segments_read: int


class Prover:
    """`key`: this node's own, with which it signs what it makes; `now_ms`: the corrected clock."""

    def __init__(self, records: Records, key: SigningKey, now_ms: Callable[[], int]) -> None:
        self._records, self._store, self._trust = records, records.store, records.trust
        self._key, self._now_ms = key, now_ms

    def prove(self, dataset: str, key: str, area: str | None = None, version: int | None = None) -> Proved:
        """The proof of a record. `version`: 1 for the one in force, 2 for the one before it, as `get --history` lists
        them. Raises Refused FN-332x (no such record), FN-2716 (no such version), FN-3403 (erased), FN-3402 (not
        readable here), IntegrityError when what is held does not prove itself."""
        _, rows = self._records.rows(dataset, key, area)
        if version is not None and not 1 <= version <= len(rows):
            raise Refused("FN-2716", version=version, count=len(rows))
        row = rows[(version or 1) - 1][0]
        if version is None and row.op == DELETE:
            raise Refused("FN-3324", dataset=dataset, key=key)
        held = self._store.segment_at(row.log, row.seq)
        if held is None:
            raise IntegrityError("FN-6602", log_id=row.log, first=row.seq)
        columns = self._store.columns(held)
        if columns is None:
            raise Refused("FN-3402", log=str(held.name), first=held.first)
        position = row.seq - held.first
        if position in columns.leaves or columns.ops[position] == ERASE:
            raise Refused("FN-3403", dataset=dataset, key=key)
        leaf = _leaf(columns, position)
        head = self._head(held, row.seq)
        hashes, segments_read = self._path(held.log_id, leaf, row.seq, head.checkpoint)
        certificates = self._certificates(held.name, head, milliseconds(row.hlc) // 1000)
        root = self._trust.directory.root
        titles = titles_of(self._trust.dataset(dataset), msgspec.json.decode(leaf.payload) if leaf.op == UPSERT else {})
        data = proof_file.compose(
            *(leaf, row.seq, hashes, head, titles, certificates, self._trust.root_sha256),
            *(self._trust.me, self._key.sign, self._now_ms()),
        )
        return Proved(data, proof_file.check(data, root.der), segments_read)

    def _path(self, log_id: int, leaf: Leaf, seq: int, head: Checkpoint) -> tuple[list[bytes], int]:
        """The path from a leaf to a checkpoint's root, and how many segments were read for it."""
        tree = LogTree(self._store, log_id)
        hashes = proof.inclusion(tree.node, seq, head.size)
        try:
            merkle.verify_inclusion(leaf.hash(), seq, head.size, hashes, head.root)
        except IntegrityError:  # a kept node was altered: they are only a projection
            remake(self._store, log_id)
            hashes = proof.inclusion(tree.node, seq, head.size)
        return hashes, tree.segments_read

    # ------------------------------------------------------------ the checkpoint

    def _head(self, held: Held, seq: int) -> Head:
        """Rule 2."""
        log_id, name = held.log_id, held.name
        size = self._store.log_state(name).size
        above = witness.above(self._trust, name)
        given = witness.shown(witness.kept(self._store, log_id, after=seq), above)
        first = self._store.rows(  # the first parent's newest
            """select first + count from segment
               where log_id = ? and first_time is not null order by first desc limit 1""",
            log_id,
        )
        sizes = {held.first + held.count, size, *(one.size for one in given), *(at for (at,) in first if at > seq)}

        def worth(head: Head) -> tuple[int, int, int]:
            heights = [above.index(one.name.partition("/")[2]) for one in head.cosigners]
            return len(heights), -min(heights, default=0), head.checkpoint.size

        return max((self._signed(log_id, name, at, given, above, newest=at == size) for at in sizes), key=worth)

    def _signed(
        self, log_id: int, name: LogName, size: int, given: list[Given], names: list[str], *, newest: bool
    ) -> Head:
        """The checkpoint of a size, with every cosignature of it that this node has or may make."""
        last = self._store.segment_at(log_id, size - 1)
        if last is None or last.first + last.count != size:
            raise IntegrityError("FN-6602", log_id=log_id, first=size - 1)
        header = seg.parse(last.raw).header
        head = Checkpoint(str(name), size, header.root)
        above = names[::-1]
        found = {one.witness: Cosignature(one.time_s, one.signature) for one in given if one.size == size}
        first = self._store.first_parent(last.lsn)
        if first is not None and above:
            found[above[0]] = first
        me = self._trust.node
        if newest and me in above and me not in found:
            found[me] = witness.sign_head(self._store, self._key, head, header.last_hlc, self._now_ms())
        cosigners = [self._cosigner(head, node, found[node]) for node in above if node in found]
        return Head(head, header.checkpoint, tuple(one for one in cosigners if one is not None))

    def _cosigner(self, head: Checkpoint, node: str, given: Cosignature) -> Cosigner | None:
        """With the key that it was made with: a witness may have taken new keys since."""
        for life in self._trust.directory.lives(node):
            try:
                checkpoint.verify_cosignature(head, life.sign_key, given.time_s, given.signature)
            except IntegrityError:
                continue
            return Cosigner(f"{self._trust.domain}/{node}", life.sign_key, given.time_s, given.signature)
        return None

    # ------------------------------------------------------------ certificates

    def _certificates(self, name: LogName, head: Head, written_s: int) -> list[bytes]:
        """The writer's first, then all that lead from it, the witnesses and this node to the root. Rule 3."""
        seen_s = min((one.time_s for one in head.cosigners), default=written_s)
        found: dict[bytes, None] = {}
        self._climb(name.origin, seen_s, found, incarnation=name.incarnation)
        for one in head.cosigners:
            self._climb(one.name.partition("/")[2], one.time_s, found, sign_key=one.public)
        self._climb(self._trust.node, self._now_ms() // 1000, found, sign_key=self._key.public)
        return list(found)

    def _climb(
        self, node: str, time_s: int, found: dict[bytes, None], incarnation: int = 0, sign_key: bytes = b""
    ) -> None:
        """Take in the certificate of a node and of everybody above it, each as it was at a time."""

        def right(one: Identity) -> bool:
            return one.incarnation == (incarnation or one.incarnation) and one.sign_key == (sign_key or one.sign_key)

        certificate = self._certificate(node, time_s, right)
        while certificate is not None:
            found.setdefault(certificate.der)
            if certificate.issuer == ROOT:
                return
            certificate = self._certificate(certificate.issuer, time_s, lambda _: True)

    def _certificate(self, node: str, time_s: int, right: Callable[[Identity], bool]) -> Identity | None:
        """The certificate of a node that was valid at a time; where there was none, the newest."""
        lives = [one for one in self._trust.directory.lives(node) if right(one)]
        for one in (*lives, *(old for old in self._renewed(node) if right(old))):
            if one.not_before <= time_s <= one.not_after:
                return one
        return lives[0] if lives else None

    def _renewed(self, node: str) -> Iterator[Identity]:
        """Every certificate of a node out of its issuers' logs. Reads them, so it comes last."""
        directory = self._trust.directory
        issuers = {node if one.issuer == ROOT else one.issuer for one in directory.lives(node)}
        for issuer in issuers:
            for life in directory.lives(issuer):
                log_id = self._store.log_id(LogName(self._trust.domain, issuer, life.incarnation, NODES))
                if log_id is not None:
                    yield from self._certified(log_id, node)

    def _certified(self, log_id: int, node: str) -> Iterator[Identity]:
        after = -1
        while places := self._store.places(log_id, after, PLACES_AT_ONCE):
            for _, first, _ in places:
                held = self._store.segment_at(log_id, first)
                columns = self._store.columns(held) if held else None
                for key, payload in zip(columns.keys, columns.payloads, strict=True) if columns else ():
                    if key == node.encode() and (der := msgspec.json.decode(payload).get("certificate")):
                        yield certs.parse(bytes.fromhex(der))
            after = places[-1][1]


def _leaf(columns: Columns, position: int) -> Leaf:
    return Leaf.of(
        columns.keys[position],
        columns.hlcs[position],
        columns.ops[position],
        columns.schema_version,
        seg.salt_of(columns, position),
        columns.payloads[position],
    )
