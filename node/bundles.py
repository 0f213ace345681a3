"""Exchanges by stick: a bundle is written for a peer, or taken in from one.

Rules
1. What is owed is what an exchange would send: the feed after what the peer has acknowledged, acknowledgements that it
   has not heard of, late cosignatures. A bundle always begins there, so a stick that is lost costs nothing.
2. A bundle is looked at whole first (every volume there, the sender's signature, every frame opens) and applied only
   then, by the writer that serves an exchange: `admission.enter`, `Writer.incoming`, `Writer.acknowledged`.
3. A bundle of up to GROUP_BYTES_MAX is applied in one transaction. A larger one in several, in order: what is cut short
   leaves a verified whole, and the same stick again goes on where it ended.
4. What begins after more than this node holds is refused, with the number to export from. What was taken already
   changes nothing.
5. After an import the same stick carries the answer. That it cannot be written is said, and is no failure.

>>> # exported = export(app, "130102001", Path("/media/stick"))
>>> # for one in take_in(app, [Path("/media/stick")]): one.received, one.answer
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.crypto import certs, issuing, stream
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import admission, fence, stick, witness
from fednode.node.fence import Place
from fednode.node.rows import Peer
from fednode.node.stick import Part
from fednode.node.store import Store
from fednode.node.writer import Link, Writer
from fednode.sync import bundle as bun
from fednode.sync import versions, wire
from fednode.sync import volume as vol
from fednode.sync.bundle import Intake, Opening
from fednode.sync.effects import Commit
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, Refused
from fednode.sync.side import PULL_BYTES

if TYPE_CHECKING:
    from fednode.node.app import App

VOLUME_BYTES = 32 * 1024 * 1024
GROUP_BYTES_MAX = 16 * 1024 * 1024
GROUP_COMMITS_MAX = 4_096
PARENT = "parent"
NAMED_MAX = 10


# ---------------------------------------------------------------- exporting


@dataclass(slots=True)
class Exported:
    """A bundle that was written; with `dry_run` one that would be. `after`, `upto`: which part of this node's arrival
    order; `acks`: how much of the peer's it acknowledges."""

    recipient: str
    after: int
    upto: int
    segments: int = 0
    acks: int = 0
    bytes: int = 0
    files: tuple[str, ...] = ()
    fingerprint: str = ""
    id: str = ""


def peer_of(app: App, to: str) -> tuple[Identity, bool]:
    """The peer that a bundle may be for, and whether it is the parent. Raises Refused FN-3110 (unknown), FN-5125 (not a
    direct peer), PeerError FN-5511 (revoked)."""
    trust = app.trust
    trust.refresh(app.store)
    parent = trust.parent
    if to == PARENT and parent is not None:
        to = parent.node
    identity = trust.directory.get(to)
    if identity is None:
        raise Refused("FN-3110", node=to)
    from_parent = parent is not None and parent.node == to
    if not from_parent and trust.directory.parent_of(to) != trust.node:
        raise Refused("FN-5125", node=to)
    if trust.directory.is_revoked(to):
        raise PeerError("FN-5511", node=to)
    return identity, from_parent


def export(
    app: App,
    to: str,
    target: Path,
    *,
    volume_bytes: int = VOLUME_BYTES,
    since: int | None = None,
    dry_run: bool = False,
    refused: Mapping[int, str] | None = None,
) -> Exported:
    """Write what a peer is owed. `since`: after this arrival number of this node's, instead of after what the peer has
    acknowledged; `refused`: what it is to hear of its own segments, beside what the store knows. Raises what `peer_of`
    and `stick.write_bundle` raise, Refused FN-3507 for a size of volumes that is none."""
    if not vol.VOLUME_BYTES_MIN <= volume_bytes <= vol.VOLUME_BYTES_MAX:
        raise Refused("FN-3507", size=volume_bytes, size_min=vol.VOLUME_BYTES_MIN, size_max=vol.VOLUME_BYTES_MAX)
    identity, to_parent = peer_of(app, to)
    me = app.trust.me
    header = vol.Header(
        app.trust.domain,
        me.node,
        me.incarnation,
        identity.node,
        app.rng(vol.ID_BYTES),
        app.now_ms(),
        SUITE_1.hash(identity.seal_key)[:8],
    )
    content = _Content(app, identity, to_parent, since, refused or {})
    folder = stick.folder_of(target)
    limit = volume_bytes if folder is not None else vol.VOLUME_BYTES_MAX
    pieces = vol.pack(content.frames(), header, identity.seal_key, app.keys.sign.sign, app.rng, limit)
    exported = content.exported
    if dry_run:
        exported.bytes = sum(len(data) for _, data in pieces)
        return exported
    last = b""

    def kept() -> Iterator[tuple[int, bytes]]:
        nonlocal last
        for number, data in pieces:
            last = data
            yield number, data

    written = stick.write_bundle(target, header.id, kept())
    exported.bytes, exported.files = written.bytes, tuple(map(str, written.files))
    exported.id, exported.fingerprint = header.id.hex(), vol.manifest_of(last).fingerprint
    if folder is not None and since is None:
        stick.remove_older(folder, written, me.node, identity.node)
    told: dict[str, Any] = {
        "peer": identity.node,
        "fingerprint": exported.fingerprint,
        "after": exported.after,
        "upto": exported.upto,
    }
    app.journal().note("bundle.export", **told, segments=exported.segments, bytes=written.bytes)
    return exported


class _Content:
    """What goes into a bundle."""

    def __init__(
        self, app: App, identity: Identity, to_parent: bool, since: int | None, refused: Mapping[int, str]
    ) -> None:
        self._app, self._identity, self._to_parent, self._refused = app, identity, to_parent, refused
        self._peer = app.store.peer(identity.node)
        acked = self._peer.acked if self._peer else 0
        self.exported = Exported(identity.node, acked if since is None else since, app.store.lsn)

    def frames(self) -> Iterator[bytes]:
        """In order. Only what is needed now is in memory."""
        store, frames = self._app.store, bun.Frames()
        yield bun.opening_frame(self._opening())
        standing = fence.standing(store) if self._to_parent else None
        if standing is not None:
            yield frames.of(wire.Fenced(standing.code, standing.heads))
        outcomes = self._outcomes(store, self._peer)
        self.exported.acks = len(outcomes)
        yield from frames.acks(outcomes)
        after, upto, drained = self.exported.after, self.exported.upto, False
        while not drained:
            if self._to_parent:
                items, drained = store.feed_up(after, PULL_BYTES, until=upto)
            else:
                items, drained = store.feed_down(self._identity.scope, after, PULL_BYTES, until=upto)
            yield from frames.items(items)
            self.exported.segments += sum(1 for item in items if item.late is None)
            after = items[-1].lsn if items else upto
        yield from self._witnessed(frames)

    def _witnessed(self, frames: bun.Frames) -> Iterator[bytes]:
        """What witnesses above have signed, for a child that was seen to take it."""
        store, trust, identity = self._app.store, self._app.trust, self._identity
        upto = None if self._to_parent or self._peer is None else self._peer.witnessed
        if upto is None or admission.protocol(store, identity.node) < wire.SINCE[wire.Witnessed]:
            return
        while (told := witness.owed(store, trust, identity, upto)[0]) is not None:
            upto = told.upto
            if told.heads:
                yield frames.of(told)

    def _opening(self) -> Opening:
        app, trust = self._app, self._app.trust
        place = (trust, app.store, app.now_ms(), app.software, self._peer, None)
        hello = admission.hello(*place, unsure=not app.reference.sure)
        span = (self.exported.after, self.exported.upto)
        if not self._to_parent:
            chain = trust.directory.chain(self._identity.node)
            return Opening(hello, *span, chain, app.exchange_addresses()[: bun.ADDRESSES_MAX])
        due = renewal_due(trust.me, app.now_s)
        return Opening(hello, *span, trust.directory.chain(trust.node), (), app.renewal_request() if due else b"")

    def _outcomes(self, store: Store, peer: Peer | None) -> list[wire.Outcome]:
        if peer is None:
            return []
        known = admission.unheard(
            *(store, self._app.trust, peer, admission.heard(store, peer.node)),
            *(self._app.keys.sign, self._app.now_ms()),
        )
        outcomes = {one.lsn: one for one in known}
        for lsn, code in self._refused.items():
            outcomes[lsn] = wire.Outcome(lsn, refused=code)
        return [outcomes[lsn] for lsn in sorted(outcomes)]


# ---------------------------------------------------------------- looking


@dataclass(slots=True)
class Look:
    """What can be seen of a bundle. `missing`: numbers of volumes; None where the one with the manifest is not there.
    `damaged`: volumes that are not what the manifest says. `opening`: where this node has the key."""

    header: vol.Header
    parts: dict[int, list[Part]]
    manifest: vol.Manifest | None = None
    missing: list[int] | None = None
    damaged: list[int] = field(default_factory=list)
    chosen: list[Part] = field(default_factory=list)

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint if self.manifest else ""

    @property
    def bytes(self) -> int:
        return sum(parts[0].size for parts in self.parts.values())

    @property
    def whole(self) -> bool:
        return self.manifest is not None and not self.missing and not self.damaged

    def check(self) -> vol.Manifest:
        """Raises Refused FN-3502 (volumes missing), FN-3503 (the last one is), IntegrityError FN-6504 (damaged)."""
        sender, made = self.header.sender, certs.iso(self.header.made_ms // 1000)
        if self.damaged:
            raise IntegrityError("FN-6504", volume=_numbers(self.damaged), sender=sender, made=made)
        if self.manifest is None:
            raise Refused("FN-3503", here=_numbers(sorted(self.parts)), sender=sender, made=made)
        if self.missing:
            count = len(self.manifest.volumes)
            raise Refused("FN-3502", missing=_numbers(self.missing), count=count, sender=sender, made=made)
        return self.manifest


def _numbers(numbers: Sequence[int]) -> str:
    shown = ", ".join(map(str, numbers[:NAMED_MAX]))
    return shown + (", ..." if len(numbers) > NAMED_MAX else "")


def look(parts: Sequence[Part]) -> list[Look]:
    """The bundles that files belong to, oldest first; every file is read once, nothing is opened."""
    looks: dict[vol.Header, Look] = {}
    for part in parts:
        header = replace(part.head.header, volume=1)
        one = looks.setdefault(header, Look(header, {}))
        one.parts.setdefault(part.head.header.volume, []).append(part)
    for one in looks.values():
        _compare(one)
    return sorted(looks.values(), key=lambda one: (one.header.made_ms, one.header.id))


def _compare(one: Look) -> None:
    """Find the manifest, and for each of its volumes a file that is what it says. Of several manifests (somebody wrote
    one of his own beside it) the one counts that the most volumes bear out."""
    sums: dict[Path, vol.Sum] = {}
    manifests: list[vol.Manifest] = []
    for parts in one.parts.values():
        for part in parts:
            with stick.opened(part.path) as file, contextlib.suppress(FednodeError):
                read = vol.Volume(file.read)
                manifest = read.skip()
                sums[part.path] = read.sum
                if manifest is not None and _names(manifest, one.header):
                    manifests.append(manifest)

    def fits(manifest: vol.Manifest) -> list[Part | None]:
        return [
            next((part for part in one.parts.get(number, ()) if sums.get(part.path) == expected), None)
            for number, expected in enumerate(manifest.volumes, 1)
        ]

    if not manifests:
        unread = [number for number, parts in one.parts.items() if not any(part.path in sums for part in parts)]
        one.damaged = sorted(unread)
        return
    one.manifest = max(manifests, key=lambda manifest: sum(part is not None for part in fits(manifest)))
    found = fits(one.manifest)
    one.missing = [n for n, part in enumerate(found, 1) if part is None and n not in one.parts]
    one.damaged = [n for n, part in enumerate(found, 1) if part is None and n in one.parts]
    one.chosen = [part for part in found if part is not None]


def _names(manifest: vol.Manifest, header: vol.Header) -> bool:
    return replace(manifest.header, key_id=b"") == replace(header, key_id=b"")


# ---------------------------------------------------------------- opening


class Opened:
    """A bundle that is whole, from whom it says, and opens with this node's key: its keys are kept, so that a second
    reading sees the same or nothing. `sender`, `from_parent`: as they were found to be."""

    sender: Identity
    from_parent: bool

    def __init__(self, one: Look, seal_private: bytes) -> None:
        self.look, self.manifest = one, one.check()
        self._keys = [stream.unwrap(seal_private, part.head.wrap, part.head.raw) for part in one.chosen]
        self.opening = bun.parse_opening(next(self._frames()))

    def _frames(self) -> Iterator[bytes]:
        for part, key in zip(self.look.chosen, self._keys, strict=True):
            with stick.opened(part.path) as file:
                read = vol.Volume(file.read)
                if read.head != part.head:
                    raise IntegrityError("FN-6504", **self._named(part))
                try:
                    yield from read.open(key)
                except IntegrityError as error:
                    raise IntegrityError("FN-6504", **self._named(part)) from error

    def _named(self, part: Part) -> dict[str, str]:
        header = self.look.header
        return {
            "volume": str(part.head.header.volume),
            "sender": header.sender,
            "made": certs.iso(header.made_ms // 1000),
        }

    def messages(self) -> Iterator[Commit | wire.Ack | wire.Fenced | wire.Witnessed]:
        """What is in it, in order. Raises IntegrityError FN-6504, PeerError FN-55xx."""
        intake, frames = Intake(), self._frames()
        next(frames)
        for frame in frames:
            message = intake.take(frame)
            if message is not None:
                yield message
        intake.end()


def _opened(app: App, one: Look) -> Opened:
    """Gates before anything is applied: sender, completeness, signature, contents. Raises what those raise."""
    trust = app.trust
    trust.refresh(app.store)
    sender = bun.sender_of(one.header, trust.directory, trust.node)
    manifest = one.check()
    if one.header.key_id != SUITE_1.hash(app.keys.seal.public)[:8]:
        raise PeerError("FN-5523", sender=sender.node, node=trust.node)
    newer = one.header.incarnation > sender.incarnation
    if not newer:
        manifest.check(sender.sign_key)
    opened = Opened(one, app.keys.seal.private)
    if newer:
        sender = _new_life(app, one.header, opened.opening.chain)
        manifest.check(sender.sign_key)
    if opened.opening.hello.node != sender.node:
        raise PeerError("FN-5510", node=opened.opening.hello.node, certificate=sender.node)
    hello = opened.opening.hello
    versions.agree(versions.SPOKEN, versions.Versions(hello.version_min, hello.version_max), hello.software)
    opened.sender, opened.from_parent = sender, trust.directory.parent_of(trust.node) == sender.node
    for _ in opened.messages():
        pass
    return opened


def judge(app: App, one: Look) -> tuple[bool | None, dict[str, int] | None]:
    """For whoever only looks: whether the signature is that of the node that it names (None: it is not known here), and
    what is inside, where this node has the key."""
    app.trust.refresh(app.store)
    sender = app.trust.directory.get(one.header.sender)
    signed = None
    if sender is not None and one.manifest is not None:
        try:
            one.manifest.check(sender.sign_key)
            signed = True
        except IntegrityError:
            signed = False
    try:
        opened = Opened(one, app.keys.seal.private)
        kinds = [type(message) for message in opened.messages()]
    except FednodeError:
        return signed, None
    opening = opened.opening
    counts = {"segments": kinds.count(Commit), "acks": kinds.count(wire.Ack)}
    return signed, {"after": opening.after, "upto": opening.upto, "peer_holds": opening.hello.have.lsn, **counts}


def _new_life(app: App, header: vol.Header, chain: tuple[bytes, ...]) -> Identity:
    """The parent in a life that is news here: this node's chain, as the parent sends it, leads through it."""
    above = certs.check_chain(chain, app.trust.root_sha256)[1:2]
    if not above or (above[0].node, above[0].incarnation) != (header.sender, header.incarnation):
        raise IntegrityError("FN-6502", node=header.sender)
    return above[0]


# ---------------------------------------------------------------- importing


@dataclass(slots=True)
class Imported:
    """What became of one bundle. `error`: why it was not taken, whole or from some point on. `received`: segments that
    are held now; `refused`: (whose word, code); `answer`: what was written back, `unanswered`: why nothing was."""

    sender: str
    id: str
    made_ms: int
    fingerprint: str
    bytes: int
    after: int = 0
    upto: int = 0
    segments: int = 0
    received: int = 0
    acked: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    held: int = 0
    error: FednodeError | None = None
    answer: Exported | None = None
    unanswered: FednodeError | None = None
    opened: Opened | None = None


@dataclass(slots=True)
class Report:
    """What an import found. `others`: (from, to) of bundles for somebody else; `joined`: nodes that asked to join and
    were let in; `asking`: (node, fingerprint, code) of those that were not."""

    bundles: list[Imported] = field(default_factory=list)
    others: list[tuple[str, str]] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    joined: list[Exported] = field(default_factory=list)
    asking: list[tuple[str, str, str]] = field(default_factory=list)
    applied: int = 0


def take_in(app: App, paths: Sequence[Path], *, dry_run: bool = False, answer: bool = True) -> Report:
    """Import what is for this node in some folders and files. What is wrong with one bundle stands in its `error` and
    does not stop the others. Raises Refused FN-3501 when there is nothing for this node, and what `stick.scan`
    raises."""
    found = stick.scan(paths)
    report, mine = Report(broken=[str(path) for path in found.broken]), []
    for part in found.parts:
        header = part.head.header
        if (header.domain, header.recipient) == (app.trust.domain, app.trust.node):
            mine.append(part)
        elif header.sender != app.trust.node and (header.sender, header.recipient) not in report.others:
            report.others.append((header.sender, header.recipient))
    writer = app.new_writer(app.store)
    for path in found.requests:
        _let_in(app, writer, path, report, dry_run=dry_run)
    if not mine and not report.joined and not report.asking:
        raise _nothing(app, paths, found, report)
    opened = [(one, _open(app, writer, one, dry_run=dry_run)) for one in look(mine)]
    opened.sort(key=lambda pair: (pair[1].sender, pair[1].after, pair[1].upto))  # one may lead to the next
    refused: dict[str, dict[int, str]] = {}
    for _, imported in opened:
        if imported.error is None:
            _import(app, writer, imported, refused.setdefault(imported.sender, {}), dry_run=dry_run)
        report.bundles.append(imported)
    if not dry_run:
        report.applied = _project(app)
        if answer:
            _answer(app, opened, refused)
    return report


def _let_in(app: App, writer: Writer, path: Path, report: Report, *, dry_run: bool) -> None:
    """A request to join: who shows that he has a token of this node's is let in, and finds the answer on the stick."""
    fingerprint, node = "", ""
    try:
        der, proof = bun.parse_request(stick.read_small(path, bun.REQUEST_BYTES_MAX))
        fingerprint, node = vol.digits(SUITE_1.hash(der)), issuing.parse_request(der).node
        peer = app.store.peer(node)
        if peer is not None and peer.have.lsn:  # long here: the request is still on the stick
            return
        if dry_run or not proof:
            report.asking.append((node, fingerprint, ""))
            return
        app.admit_request(writer, der, proof)
        report.joined.append(export(app, node, path.parent))
    except FednodeError as error:
        report.asking.append((node, fingerprint, error.code))
        if not dry_run:
            app.journal(writer).note("join.refused", "refused", code=error.code, peer=node)


def _nothing(app: App, paths: Sequence[Path], found: stick.Found, report: Report) -> FednodeError:
    if found.broken and not found.parts:
        return IntegrityError("FN-6505", path=str(found.broken[0]))
    foreign = next((one.head.header for one in found.parts if one.head.header.domain != app.trust.domain), None)
    if foreign is not None and foreign.recipient == app.trust.node:
        return PeerError("FN-5520", theirs=foreign.domain, ours=app.trust.domain)
    others = ", ".join(f"{sender} -> {recipient}" for sender, recipient in report.others[:NAMED_MAX])
    return Refused("FN-3501", path=", ".join(map(str, paths)), node=app.trust.node, others=others or "-")


def _project(app: App) -> int:
    projector = app.new_projector()
    try:
        return projector.catch_up()
    finally:
        projector.close()
        projector.store.close()
        app.poke()


def _open(app: App, writer: Writer, one: Look, *, dry_run: bool) -> Imported:
    header = one.header
    imported = Imported(header.sender, header.id.hex(), header.made_ms, one.fingerprint, one.bytes)
    try:
        imported.opened = _opened(app, one)
        imported.after, imported.upto = imported.opened.opening.after, imported.opened.opening.upto
    except FednodeError as error:
        _failed(app, writer, imported, error, dry_run=dry_run)
    return imported


def _failed(app: App, writer: Writer, imported: Imported, error: FednodeError, *, dry_run: bool) -> None:
    imported.error = error
    _alarms(app, writer)
    if not dry_run:
        outcome = "refused" if isinstance(error, Refused | PeerError) else "failed"
        told = {"peer": imported.sender, "fingerprint": imported.fingerprint}
        app.journal(writer).note("bundle.import", outcome, code=error.code, **told)


def _import(app: App, writer: Writer, imported: Imported, refused: dict[int, str], *, dry_run: bool) -> None:
    opened = imported.opened
    if opened is None:
        return
    try:
        _check_span(app.store, opened.opening, imported.sender)
        if dry_run:
            imported.segments = sum(isinstance(one, Commit) and one.late is None for one in opened.messages())
            return
        _apply(app, writer, opened, imported, refused)
        _certificates(app, writer, opened, imported)
    except FednodeError as error:
        _failed(app, writer, imported, error, dry_run=dry_run)
        return
    told: dict[str, Any] = {"peer": imported.sender, "fingerprint": imported.fingerprint}
    counts: dict[str, Any] = {"segments": imported.segments, "held": imported.held, "refused": len(imported.refused)}
    app.journal(writer).note("bundle.import", **told, after=imported.after, upto=imported.upto, **counts)


def _check_span(store: Store, opening: Opening, sender: str) -> None:
    peer = store.peer(sender)
    have = peer.have.lsn if peer is not None and peer.have.store == opening.hello.store else 0
    if opening.after > have:
        raise Refused("FN-3504", sender=sender, after=opening.after, have=have)


def _apply(app: App, writer: Writer, opened: Opened, imported: Imported, refused: dict[int, str]) -> None:
    hello, sender = opened.opening.hello, opened.sender
    known = app.trust.directory.get(sender.node) or sender
    entry = admission.enter(writer, known, hello, opened.from_parent, app.now_ms(), app.software)
    if opened.from_parent and not hello.unsure:
        app.reference.hear(hello.now_ms)
        with app.store.write() as tx:
            app.reference.keep(tx)
    believed = fence.place(app.store, hello.have) is Place.SAME
    batch = _Batch(app, writer, entry.link, imported, refused)
    for message in opened.messages():
        if isinstance(message, Commit):
            batch.add(message)
        elif isinstance(message, wire.Fenced):
            writer.peer_fenced(entry.link, message.code, message.heads)
        elif isinstance(message, wire.Witnessed):
            batch.flush()  # what it is about is in it
            if opened.from_parent:
                writer.witnessed(entry.link, message)
        else:
            outcomes = [(one.lsn, one.cosignature, one.refused) for one in message.outcomes]
            imported.refused += [("peer", one.refused) for one in message.outcomes if one.refused]
            imported.acked += len(outcomes)
            writer.acknowledged(entry.peer.id, outcomes, sender, 0)
    batch.flush()
    if believed:
        writer.acknowledged(entry.peer.id, (), sender, hello.have.lsn)
    if batch.gap is not None:
        raise Refused("FN-3508", sender=sender.node, log=batch.gap.log, first=batch.gap.first)


def _alarms(app: App, writer: Writer, link: Link | None = None) -> None:
    """What the levels above must hear of; some of it ends the import."""
    alarms, writer.alarms = writer.alarms, []
    for alarm in alarms:
        with contextlib.suppress(Refused):  # fenced itself: what it has to tell goes with its next bundle
            app.journal(writer).alert(alarm.code, alarm.node, alarm.params, alarm.evidence)
        if link is not None and alarm.ends is link:
            raise PeerError(alarm.code, **alarm.params)


class _Batch:
    """Hands what comes to the writer, so much at a time (rule 3)."""

    def __init__(self, app: App, writer: Writer, link: Link, imported: Imported, refused: dict[int, str]) -> None:
        self._app, self._writer, self._link = app, writer, link
        self._imported, self._refused = imported, refused
        self._commits: list[Commit] = []
        self._bytes = 0
        self.gap: wire.Want | None = None

    def add(self, commit: Commit) -> None:
        if self._bytes + len(commit.data) > GROUP_BYTES_MAX or len(self._commits) >= GROUP_COMMITS_MAX:
            self.flush()
        self._commits.append(commit)
        self._bytes += len(commit.data)

    def flush(self) -> None:
        """One transaction."""
        if not self._commits:
            return
        commits, self._commits, self._bytes = self._commits, [], 0
        lsn = self._app.store.lsn
        done = [report for _, report in self._writer.incoming([(self._link, commit) for commit in commits])]
        self._imported.segments += sum(commit.late is None for commit in commits)
        for one in done:
            self.gap = self.gap or one.gap
            if one.refused:
                self._refused[one.lsn] = one.refused
                self._imported.refused.append(("us", one.refused))
        self._imported.received += sum(
            commit.late is None and not one.refused and one.gap is None
            for commit, one in zip(commits, done, strict=True)
        )
        self._imported.held += self._app.store.lsn - lsn
        _alarms(self._app, self._writer, self._link)


def _certificates(app: App, writer: Writer, opened: Opened, imported: Imported) -> None:
    """A child that asks gets a fresh certificate; what the parent sends of this node's own is taken. What is wrong with
    it is said, and leaves what was imported as it is."""
    opening, sender = opened.opening, opened.sender
    try:
        if not opened.from_parent:
            if opening.request:
                app.renew(writer, sender, opening.request)
            return
        if opening.chain and opening.chain[0] != app.home.chain()[0]:
            newest, mine = certs.parse(opening.chain[0]), certs.parse(app.home.chain()[0])
            if (newest.incarnation, newest.not_before) > (mine.incarnation, mine.not_before):
                app.install_chain(opening.chain)
                app.journal(writer).note("certificate.renewed", peer=sender.node, valid_to_s=newest.not_after)
        if opening.addresses and opening.addresses != app.home.addresses():
            app.home.write_addresses(opening.addresses)
    except (PeerError, IntegrityError) as error:
        imported.refused.append(("us", error.code))
        app.journal(writer).note("renewal.refused", "refused", code=error.code, peer=sender.node)


def _answer(app: App, opened: Sequence[tuple[Look, Imported]], refused: dict[str, dict[int, str]]) -> None:
    """Write back to each sender, once, where its newest bundle lies."""
    newest = {imported.sender: (one, imported) for one, imported in opened if imported.error is None}
    for sender, (one, imported) in newest.items():
        last = one.chosen[-1].path
        named = stick.VOLUME_NAME.fullmatch(last.name) is not None
        target = last.parent if named else last.with_name(f"{last.stem}-answer{stick.SUFFIX}")
        try:
            imported.answer = export(app, sender, target, refused=refused.get(sender))
        except FednodeError as error:
            imported.unanswered = error
