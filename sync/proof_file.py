"""A record's proof, whole in one file: what an auditor checks with the root certificate alone. Pure.

The file is a C2SP tlog-proof (`fednode.crypto.tlogproof`), so tools that are not ours check its log. Its `extra` is
ours, canonical JSON, version 1: what the leaf is made of, the titles of dataset and fields, certificates, who made the
file and when, and the maker's signature over all of that. `check` judges it in this order (the code cites the numbers):

 1. the file parses, within the limits; it carries an `extra` of a version that is known here
 2. it is a proof under the very root that was given
 3. the leaf made of the record lies at that place of the tree whose root the checkpoint names
 4. the first certificate is that of the log's writer, in the incarnation that the log's name says
 5. the writer signed the checkpoint
 6. every other signature on it is a cosignature by a node above the writer; each holds
 7. the certificates of writer and witnesses lead to the root, and were valid: the writer's when the first witness saw
    the checkpoint (without one: when the writer says it wrote), a witness's when it signed
 8. the log's area lies in the writer's scope
 9. the maker's signature over the `extra` holds: so the titles are those that a node of this trust domain gave

Whether a certificate had been revoked cannot be told from a file. A checkpoint that nobody above has signed is only
its writer's word: that is no error, and `Checked.witnesses` is empty.

>>> UNKNOWN_EXTRA = Note("x\\n", (Line("hebei/13", b"\\0\\0\\0\\1", b"s" * 64),))
>>> try:
...     check(TlogProof(0, (), UNKNOWN_EXTRA, b'{"v":9}').format().encode(), b"")
... except IntegrityError as error:
...     print(error)
FN-6223 (theirs=9, ours=1)
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import msgspec

from fednode.crypto import canonical, certs, checkpoint, merkle, note, tlogproof
from fednode.crypto.certs import ROOT, Identity, covers, iso
from fednode.crypto.checkpoint import Checkpoint, Cosigner
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.note import Line, Note
from fednode.crypto.suite import SUITE_1
from fednode.crypto.tlogproof import TlogProof
from fednode.sync.change import KEY_BYTES_MAX, OPS, LogName
from fednode.sync.clock import STAMP_MAX, milliseconds
from fednode.sync.errors import PeerError

__all__ = ["VERSION", "Checked", "Head", "Leaf", "Line", "Note", "Titles", "TlogProof", "Witness", "check", "compose"]

VERSION = 1
CERTIFICATES_MAX = 64
DEPTH_MAX = 16
SALT_BYTES = 32
_STAMP = re.compile("0|[1-9][0-9]{0,18}")


class Leaf(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the leaf is made of. `hlc`: decimal (JSON has no u64); `salt`: base64."""

    key: str
    hlc: str
    op: int
    schema: int
    salt: str
    payload: str

    @classmethod
    def of(cls, key: bytes, hlc: int, op: int, schema: int, salt: bytes, payload: bytes) -> Leaf:
        return cls(key.decode(), str(hlc), op, schema, _text(salt), payload.decode())

    def hash(self) -> bytes:
        """The leaf hash. Raises IntegrityError FN-6224 for values that no leaf has."""
        salt, key = _bytes(self.salt), self.key.encode()
        wrong = (
            (len(salt) != SALT_BYTES, "salt"),
            (not _STAMP.fullmatch(self.hlc) or int(self.hlc) > STAMP_MAX, "hlc"),
            (self.op not in OPS, "op"),
            (not 0 <= self.schema < 1 << 32, "schema"),
            (len(key) > KEY_BYTES_MAX, "key"),
        )
        for bad, what in wrong:
            if bad:
                raise IntegrityError("FN-6224", reason=what)
        committed = merkle.commitment(salt, self.payload.encode())
        return merkle.leaf(int(self.hlc), self.op, self.schema, key, committed)

    def data(self) -> bytes:
        """What the leaf hash is made of after its 0x00 (RFC 6962), for other tools; of a leaf whose `hash` is right."""
        key, committed = self.key.encode(), merkle.commitment(_bytes(self.salt), self.payload.encode())
        head = b"\x01" + int(self.hlc).to_bytes(8, "big") + bytes((self.op,)) + self.schema.to_bytes(4, "big")
        return head + len(key).to_bytes(2, "big") + key + committed


class FieldTitle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A field of the record in words; `value_...`: its value, where the catalog has a title for it."""

    code: str
    zh: str
    en: str
    value_zh: str = ""
    value_en: str = ""


class Titles(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The dataset and its fields in words, as the maker's catalog has them."""

    zh: str
    en: str
    fields: tuple[FieldTitle, ...]


class _Extra(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: int
    root: str
    leaf: Leaf
    titles: Titles
    certificates: tuple[str, ...]
    by: str
    made_ms: int
    signature: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """A checkpoint with its writer's signature and the cosignatures to be shown with it."""

    checkpoint: Checkpoint
    signature: bytes
    cosigners: tuple[Cosigner, ...] = ()


@dataclass(frozen=True, slots=True)
class Witness:
    """Somebody above the writer who signed the checkpoint, at `time_s` by its own clock."""

    identity: Identity
    time_s: int


@dataclass(frozen=True, slots=True)
class Checked:
    """What a proof file proves. `unseen_by`: the nodes above the writer that have not signed, the highest first."""

    log: LogName
    index: int
    head: Checkpoint
    leaf: Leaf
    titles: Titles
    writer: Identity
    witnesses: tuple[Witness, ...]
    unseen_by: tuple[Identity, ...]
    maker: Identity
    made_ms: int
    root: Identity

    @property
    def area(self) -> str:
        return self.log.audience or self.writer.scope[0]

    @property
    def written_ms(self) -> int:
        """The writer's own stamp, Unix milliseconds."""
        return milliseconds(int(self.leaf.hlc))


# ---------------------------------------------------------------- making


def compose(
    leaf: Leaf,
    index: int,
    hashes: Sequence[bytes],
    head: Head,
    titles: Titles,
    certificates: Sequence[bytes],
    root_sha256: bytes,
    maker: Identity,
    sign: Callable[[bytes], bytes],
    made_ms: int,
) -> bytes:
    """The file. `certificates`: the writer's first, then those that lead from it, the witnesses and the maker to the
    root, in any order, the root left out. `sign`: by the maker's key. Nothing is checked: see `check`."""
    ders = tuple(_text(der) for der in certificates)
    extra = _Extra(VERSION, _text(root_sha256), leaf, titles, ders, maker.node, made_ms)
    extra = msgspec.structs.replace(extra, signature=_text(sign(_signed(extra))))
    log = LogName.parse(head.checkpoint.origin)
    writer = certs.parse(certificates[0])
    signed = checkpoint.to_note(head.checkpoint, log.signer, writer.sign_key, head.signature, head.cosigners)
    return TlogProof(index, tuple(hashes), note.parse(signed), _canonical(extra)).format().encode()


def _canonical(extra: _Extra) -> bytes:
    return canonical.dumps(msgspec.to_builtins(extra))


def _signed(extra: _Extra) -> bytes:
    """What the maker signs."""
    return b"fednode proof v1\n" + _canonical(msgspec.structs.replace(extra, signature=""))


# ---------------------------------------------------------------- checking


def check(data: bytes, root_der: bytes) -> Checked:
    """Judge a file (rules 1 to 9). Raises IntegrityError, with a code for each way of failing."""
    file = _parsed(data)  # 1
    extra = _extra(file.extra)
    root_sha256 = SUITE_1.hash(root_der)
    if _bytes(extra.root) != root_sha256:  # 2
        raise IntegrityError("FN-6225", found=_bytes(extra.root).hex(), given=root_sha256.hex())
    try:
        head = checkpoint.from_text(file.checkpoint.text)
        log = LogName.parse(head.origin)
    except (IntegrityError, PeerError) as error:
        raise IntegrityError("FN-6221", reason="checkpoint") from error
    try:
        merkle.verify_inclusion(extra.leaf.hash(), file.index, head.size, file.hashes, head.root)  # 3
    except IntegrityError as error:
        if error.code != "FN-6203":
            raise
        raise IntegrityError("FN-6226", log=head.origin, index=file.index, size=head.size) from error
    pool = _Pool(extra.certificates, root_der)
    writer = pool.identities[0]
    if (writer.domain, writer.node, writer.incarnation) != (log.domain, log.origin, log.incarnation):  # 4
        raise IntegrityError("FN-6229", log=head.origin, node=writer.node, incarnation=writer.incarnation)
    witnesses = _signatures(file.checkpoint, log, writer, pool)  # 5, 6
    written_s = milliseconds(int(extra.leaf.hlc)) // 1000
    seen_s = min((one.time_s for one in witnesses), default=written_s)
    path = pool.path(writer, seen_s)  # 7
    above = {one.node for one in path[1:]}
    for one in witnesses:
        if one.identity.node not in above:
            raise IntegrityError("FN-6232", name=f"{log.domain}/{one.identity.node}", node=writer.node)
        pool.path(one.identity, one.time_s)
    if not covers(writer.scope, log.audience or writer.scope[0]):  # 8
        raise IntegrityError("FN-6230", node=writer.node, area=log.audience, scope=", ".join(writer.scope))
    maker = _maker(extra, pool)  # 9
    seen_by = {one.identity.node for one in witnesses}
    unseen = tuple(one for one in reversed(path[1:]) if one.node not in seen_by)
    return Checked(
        *(log, file.index, head, extra.leaf, extra.titles, writer, witnesses, unseen),
        *(maker, extra.made_ms, pool.root),
    )


def _parsed(data: bytes) -> TlogProof:
    try:
        return tlogproof.parse(data)
    except IntegrityError as error:
        if error.code != "FN-6208":
            raise
        raise IntegrityError("FN-6221", reason="checkpoint") from error


def _extra(raw: bytes) -> _Extra:
    if not raw:
        raise IntegrityError("FN-6222")
    try:
        document = canonical.loads(raw)
        version = document["v"] if isinstance(document, dict) and "v" in document else None
        if version != VERSION:
            raise IntegrityError("FN-6223", theirs=str(version)[:20], ours=VERSION)
        extra = msgspec.convert(document, _Extra)
        if not 1 <= len(extra.certificates) <= CERTIFICATES_MAX:
            raise ValueError("certificates")
        return extra
    except (ValueError, FednodeError) as error:
        if isinstance(error, FednodeError) and error.code == "FN-6223":
            raise
        raise IntegrityError("FN-6224", reason=str(error)[:200]) from error


def _signatures(signed: Note, log: LogName, writer: Identity, pool: _Pool) -> tuple[Witness, ...]:
    """The witnesses, each of whose cosignatures holds; the first line is the writer's own signature."""
    own, *others = signed.lines
    if own.name != log.signer or own.key_id != note.key_id(log.signer, note.ED25519, writer.sign_key):
        raise IntegrityError("FN-6228", log=str(log), node=writer.node)
    try:
        note.verify(Note(signed.text, (own,)), log.signer, writer.sign_key)
    except IntegrityError as error:
        raise IntegrityError("FN-6228", log=str(log), node=writer.node) from error
    witnesses: list[Witness] = []
    for line in others:
        found = pool.signer(line)
        if found is None or found.node in (writer.node, *(one.identity.node for one in witnesses)):
            raise IntegrityError("FN-6232", name=line.name, node=writer.node)
        try:
            time_s = note.verify_cosignature(Note(signed.text, (line,)), line.name, found.sign_key)
        except IntegrityError as error:
            raise IntegrityError("FN-6231", node=found.node) from error
        witnesses.append(Witness(found, time_s))
    return tuple(witnesses)


def _maker(extra: _Extra, pool: _Pool) -> Identity:
    message, signature = _signed(extra), _bytes(extra.signature)
    for one in pool.identities:
        if one.node == extra.by:
            try:
                SUITE_1.verify(one.sign_key, message, signature)
            except IntegrityError:
                continue
            pool.path(one, extra.made_ms // 1000)
            return one
    raise IntegrityError("FN-6233", node=extra.by)


class _Pool:
    """The certificates of a file."""

    def __init__(self, certificates: Sequence[str], root_der: bytes) -> None:
        self.identities = [certs.parse(_bytes(der)) for der in certificates]
        self.root = certs.parse(root_der)
        if self.root.node != ROOT or self.root.level != ROOT:
            raise IntegrityError("FN-6102", node=self.root.node, issuer=ROOT, reason="root")

    def signer(self, line: Line) -> Identity | None:
        """Whose cosignature a line says it is."""
        for one in self.identities:
            name = f"{one.domain}/{one.node}"
            if line.name == name and line.key_id == note.key_id(name, note.COSIGNATURE, one.sign_key):
                return one
        return None

    def path(self, identity: Identity, time_s: int) -> list[Identity]:
        """From a node up to the province, each certificate issued by the next and valid at a time, the last by the
        root; a node's own may be a later one for the same key. Raises IntegrityError FN-6102 (not issued so), FN-6227
        (not valid then)."""
        same = (identity.node, identity.incarnation, identity.sign_key)
        own = [one for one in self.identities if (one.node, one.incarnation, one.sign_key) == same]
        path = [next((one for one in own if _valid(one, time_s)), identity)]
        while path[-1].issuer != ROOT:
            if len(path) > DEPTH_MAX:
                raise IntegrityError("FN-6102", node=identity.node, issuer=path[-1].issuer, reason="depth")
            path.append(self._issuer(path[-1], time_s))
        certs.check_issued(path[-1], self.root, self.root.levels)
        for one in (*path, self.root):
            if not _valid(one, time_s):
                span = {"valid_from": iso(one.not_before), "valid_to": iso(one.not_after)}
                raise IntegrityError("FN-6227", node=one.node, **span, at=iso(time_s))
        return path

    def _issuer(self, child: Identity, time_s: int) -> Identity:
        """Who issued a certificate; of several certificates of that node one that was valid then, if there is any."""
        wrong = IntegrityError("FN-6102", node=child.node, issuer=child.issuer, reason="certificate missing")
        found = [one for one in self.identities if one.node == child.issuer]
        for one in sorted(found, key=lambda one: not _valid(one, time_s)):
            try:
                certs.check_issued(child, one, self.root.levels)
            except IntegrityError as error:
                wrong = error
            else:
                return one
        raise wrong


def _valid(one: Identity, time_s: int) -> bool:
    return one.not_before <= time_s <= one.not_after


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError("FN-6224", reason="base64") from error
