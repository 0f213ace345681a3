"""Bundles coming in: what is for this node is proved, taken in by the writer that serves an exchange, and answered.

Rules
1. A bundle is looked at whole first (every volume there, the sender's signature, every frame opens, `bundle_look`) and
   applied only then, as an exchange does it: `admission.enter`, `Writer.incoming`, `Writer.acknowledged`.
2. A bundle of up to GROUP_BYTES_MAX is applied in one transaction. A larger one in several, in order: what is cut short
   leaves a verified whole, and the same stick again goes on where it ended.
3. What begins after more than this node holds is refused, and the answer says what it holds: the next bundle begins
   there. What was taken already changes nothing. Of what an older stick says only signed logs are believed: addresses
   and certificates are those of the newest bundle, acknowledgements those of this very store.
4. A child's feed has nothing new below the cursor of its store: a store that brings such news was rolled back, or is a
   copy. By stick the child cannot see that first, as it does in a session (`node.fence`); so nothing of it is taken.
5. The parent's bundles come before the children's: a child that they revoke is refused.
6. After an import the same stick carries the answer. That it cannot be written is said, and is no failure.
7. However much there is on a stick, memory and the audit grow by no more than limits allow.

>>> # for one in take_in(app, [Path("/media/stick")]).bundles: one.received, one.answer
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.crypto import certs, issuing
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import admission, bundle_out, erasing, fence, stick
from fednode.node.bundle_look import NAMED_MAX, Look, Opened, look, open_for
from fednode.node.bundle_out import Exported, export
from fednode.node.fence import Place
from fednode.node.follower import follow_what_came
from fednode.node.link import Alarm, Link
from fednode.node.room import if_room
from fednode.node.store import Store
from fednode.node.writer import Writer
from fednode.sync import bundle as bun
from fednode.sync import segment as seg
from fednode.sync import volume as vol
from fednode.sync import wire
from fednode.sync.bundle import Opening
from fednode.sync.effects import Commit
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, Refused

if TYPE_CHECKING:
    from fednode.node.app import App

GROUP_BYTES_MAX = 16 * 1024 * 1024
GROUP_COMMITS_MAX = 4_096
TOO_LATE = "FN-3504"
REFUSED_MAX = 1_000  # refusals of one bundle that are told one by one


@dataclass(slots=True)
class Imported:
    """What became of one bundle. `error`: why it was not taken, whole or from some point on. `segments`: in it, `held`:
    what it brought that was not here; `refused`: (whose word, code) of the first REFUSED_MAX, `refusals`: how many
    there were; `answer`: what was written back, `unanswered`: why nothing was."""

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
    refusals: int = 0
    held: int = 0
    error: FednodeError | None = None
    answer: Exported | None = None
    unanswered: FednodeError | None = None
    opened: Opened | None = None

    def refuse(self, by: str, code: str) -> None:
        self.refusals += 1
        if len(self.refused) < REFUSED_MAX:
            self.refused.append((by, code))


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
    report, mine = Report(broken=[str(path) for path, _ in found.broken]), []
    others: dict[tuple[str, str], None] = {}
    for part in found.parts:
        header = part.head.header
        if (header.domain, header.recipient) == (app.trust.domain, app.trust.node):
            mine.append(part)
        elif header.sender != app.trust.node:
            others[header.sender, header.recipient] = None
    report.others = list(others)
    writer = app.new_writer(app.store)
    for path in found.requests:
        _let_in(app, writer, path, report, dry_run=dry_run)
    if not mine and not report.joined and not report.asking:
        raise _nothing(app, paths, found, report)
    app.trust.refresh(app.store)
    opened = [(one, _open(app, writer, one, dry_run=dry_run)) for one in look(mine, app.trust.directory)]
    opened.sort(key=lambda pair: _turn(app, pair[1]))  # one may lead to the next
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


def _turn(app: App, one: Imported) -> tuple[bool, str, int, int]:
    """The order in which bundles are taken (rule 5)."""
    return one.sender != app.trust.directory.parent_of(app.trust.node), one.sender, one.after, one.upto


def _let_in(app: App, writer: Writer, path: Path, report: Report, *, dry_run: bool) -> None:
    """A request to join: who proves a token of this node's is let in, and finds the answer on the stick."""
    fingerprint, node = "", ""
    try:
        der, proof = bun.parse_request(stick.read_small(path, bun.REQUEST_BYTES_MAX))
        asked = issuing.parse_request(der)
        fingerprint, node = vol.digits(SUITE_1.hash(der)), asked.node
        if not proof and _here_already(app, asked):
            return
        if dry_run or not proof:
            report.asking.append((node, fingerprint, ""))
            return
        if not app.admit_request(writer, der, proof):  # answered long ago: the request is still on the stick
            return
        report.joined.append(export(app, node, path.parent))
    except FednodeError as error:
        report.asking.append((node, fingerprint, error.code))
        if not dry_run:
            app.journal(writer).befell("join.refused", "refused", peer=node, code=error.code)


def _here_already(app: App, asked: issuing.Request) -> bool:
    """Whether who asks without a token is a child in good standing, with these keys: an old request."""
    directory, peer = app.trust.directory, app.store.peer(asked.node)
    known = directory.get(asked.node)
    if known is None or peer is None or not peer.have.lsn or directory.is_revoked(asked.node):
        return False
    return known.sign_key == asked.sign_key and not renewal_due(known, app.now_s)


def _nothing(app: App, paths: Sequence[Path], found: stick.Found, report: Report) -> FednodeError:
    newer = next((error for _, error in found.broken if error.code == "FN-5524"), None)
    if newer is not None:
        return newer
    if found.broken and not found.parts:
        return IntegrityError("FN-6505", path=str(found.broken[0][0]))
    foreign = next((one.head.header for one in found.parts if one.head.header.domain != app.trust.domain), None)
    if foreign is not None and foreign.recipient == app.trust.node:
        return PeerError("FN-5520", theirs=foreign.domain, ours=app.trust.domain)
    others = ", ".join(f"{sender} -> {recipient}" for sender, recipient in report.others[:NAMED_MAX])
    return Refused("FN-3501", path=", ".join(map(str, paths)), node=app.trust.node, others=others or "-")


def _project(app: App) -> int:
    projector = app.new_projector()
    try:
        applied = follow_what_came(projector)
        with if_room():
            erasing.clean(projector.store, projector)  # a node that lives by sticks may have no daemon to do it
        return applied
    finally:
        projector.close()
        projector.store.close()
        app.poke()


def _open(app: App, writer: Writer, one: Look, *, dry_run: bool) -> Imported:
    header = one.header
    imported = Imported(header.sender, header.id.hex(), header.made_ms, one.fingerprint, one.bytes)
    try:
        imported.opened = open_for(app, one)
        imported.after, imported.upto = imported.opened.opening.after, imported.opened.opening.upto
    except FednodeError as error:
        _failed(app, writer, imported, error, dry_run=dry_run)
    return imported


def _failed(app: App, writer: Writer, imported: Imported, error: FednodeError, *, dry_run: bool) -> None:
    imported.error = error
    if dry_run:
        return
    with contextlib.suppress(FednodeError):  # the store itself may be what fails
        _alarms(app, writer)
    outcome = "refused" if isinstance(error, Refused | PeerError) else "failed"
    told = {"peer": imported.sender, "code": error.code, "fingerprint": imported.fingerprint}
    journal = app.journal(writer)
    # who sent it is proved, or anybody's word: a stick may hold very many of those
    (journal.note if imported.opened is not None else journal.befell)("bundle.import", outcome, **told)


def _import(app: App, writer: Writer, imported: Imported, refused: dict[int, str], *, dry_run: bool) -> None:
    opened = imported.opened
    if opened is None:
        return
    try:
        if not dry_run:
            app.trust.refresh(app.store)  # what was taken before may have revoked who sent this
            bun.sender_of(opened.look.header, app.trust.directory, app.trust.node)
        _check_span(app.store, opened.opening, imported.sender)
        if dry_run:
            imported.segments = sum(isinstance(one, Commit) and one.late is None for one in opened.messages())
            return
        _check_order(app, writer, opened)
        _apply(app, writer, opened, imported, refused)
    except FednodeError as error:
        _failed(app, writer, imported, error, dry_run=dry_run)
        return
    told: dict[str, Any] = {"peer": imported.sender, "fingerprint": imported.fingerprint}
    counts: dict[str, Any] = {"segments": imported.segments, "held": imported.held, "refused": imported.refusals}
    app.journal(writer).note("bundle.import", **told, after=imported.after, upto=imported.upto, **counts)


def _check_span(store: Store, opening: Opening, sender: str) -> None:
    peer = store.peer(sender)
    have = peer.have.lsn if peer is not None and peer.have.store == opening.hello.store else 0
    if opening.after > have:
        raise Refused(TOO_LATE, sender=sender, after=opening.after, have=have)


def _check_order(app: App, writer: Writer, opened: Opened) -> None:
    """Rule 4. Raises PeerError FN-5515."""
    sender, store = opened.sender, app.store
    peer = store.peer(sender.node)
    opening = opened.opening
    if opened.from_parent or peer is None or peer.have.store != opening.hello.store or opening.after >= peer.have.lsn:
        return
    for message in opened.messages():
        if not isinstance(message, Commit) or message.lsn > peer.have.lsn:
            continue
        if log := _news(store, message.data, sender.node):
            params = {"node": sender.node, "log": log}
            writer.alarms.append(Alarm("FN-5515", sender.node, params, fence.heads(store, sender)))
            raise PeerError("FN-5515", **params)


def _news(store: Store, data: bytes, sender: str) -> str:
    """The log of a segment that is not held here, nor refused, or refused because its sender's own history is another;
    "" for any other."""
    try:
        header = seg.parse(data).header
    except PeerError:
        return ""
    why = store.refusals(str(header.log), header.first)
    forked = header.log.origin == sender and why & fence.OF_MINE
    known = header.end <= store.log_state(header.log).size or (why and not forked)
    return "" if known else str(header.log)


def _apply(app: App, writer: Writer, opened: Opened, imported: Imported, refused: dict[int, str]) -> None:
    hello, sender = opened.opening.hello, opened.sender
    known = app.trust.directory.get(sender.node) or sender
    newest = _is_newest(app.store, opened.opening, sender.node)
    tells = newest and bool(hello.addresses or hello.issuers)  # older programs say nothing by stick
    entry = admission.enter(writer, known, hello, opened.from_parent, app.now_ms(), app.software, tells=tells)
    if opened.from_parent and newest and not hello.unsure:
        app.reference.hear(hello.now_ms)
        with app.store.write() as tx:
            app.reference.keep(tx)
    of_this_store = hello.have.store == app.store.store_id
    believed = fence.place(app.store, hello.have) is Place.SAME
    batch = _Batch(app, writer, entry.link, imported, refused)
    for message in opened.messages():
        if isinstance(message, Commit):
            batch.add(message)
        elif isinstance(message, wire.Fenced):
            writer.peer_fenced(entry.link, message.code, message.heads)
        elif isinstance(message, wire.Witnessed):
            batch.flush()  # what it is about is in it
            if opened.from_parent and newest:
                writer.witnessed(entry.link, message)
        elif of_this_store:
            outcomes = [(one.lsn, one.cosignature, one.refused) for one in message.outcomes]
            for one in message.outcomes:
                if one.refused:
                    imported.refuse("peer", one.refused)
            imported.acked += len(outcomes)
            writer.acknowledged(entry.peer.id, outcomes, sender, 0)
    batch.flush()
    _alarms(app, writer, entry.link)
    if believed:
        writer.acknowledged(entry.peer.id, (), sender, hello.have.lsn)
    if newest:
        _certificates(app, writer, opened, imported)
        with app.store.write() as tx:
            bundle_out.note_behind(tx, entry.peer, hello.have.lsn if believed else None)
            tx.set_meta(f"bundle/{sender.node}", f"{hello.store.hex()}/{opened.opening.upto}")
    if batch.gap is not None:
        raise Refused("FN-3508", sender=sender.node, log=batch.gap.log, first=batch.gap.first)


def _is_newest(store: Store, opening: Opening, sender: str) -> bool:
    """Whether no bundle was taken that its sender made later: every export is an event of its own, so `upto` grows."""
    known, _, upto = str(store.meta(f"bundle/{sender}", "/0")).partition("/")
    return known != opening.hello.store.hex() or opening.upto >= int(upto)


def _alarms(app: App, writer: Writer, link: Link | None = None) -> None:
    """What the levels above must hear of; some of it ends the import."""
    alarms, writer.alarms = writer.alarms, []
    for alarm in alarms:
        with contextlib.suppress(Refused):  # fenced itself: what it has to tell goes with its next bundle
            app.journal(writer).alert(alarm.code, alarm.node, alarm.params, alarm.evidence)
        if link is not None and alarm.ends is link:
            raise PeerError(alarm.code, **alarm.params)


class _Batch:
    """Hands what comes to the writer, so much at a time (rule 2)."""

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
            self.gap = self.gap or (None if one.ahead else one.gap)
            if one.refused:
                self._imported.refuse("us", one.refused)
                if len(self._refused) < REFUSED_MAX:
                    self._refused[one.lsn] = one.refused
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
        newest = take_chain(app, opening.chain)
        if newest is not None:
            app.journal(writer).note("certificate.renewed", peer=sender.node, valid_to_s=newest.not_after)
        if opening.addresses and opening.addresses != app.home.addresses():
            app.home.write_addresses(opening.addresses)
    except (PeerError, IntegrityError) as error:
        imported.refuse("us", error.code)
        app.journal(writer).note("renewal.refused", "refused", code=error.code, peer=sender.node)


def take_chain(app: App, chain: tuple[bytes, ...]) -> certs.Identity | None:
    """Put a certificate that came by stick in force where it is newer than this node's. Its dates are not judged: this
    machine's clock may be years off. Raises IntegrityError, PeerError FN-6112."""
    if not chain or chain[0] == app.home.chain()[0]:
        return None
    newest, mine = certs.parse(chain[0]), certs.parse(app.home.chain()[0])
    if (newest.incarnation, newest.not_before) <= (mine.incarnation, mine.not_before):
        return None
    return app.install_chain(chain, dated=False)


def _answer(app: App, opened: Sequence[tuple[Look, Imported]], refused: dict[str, dict[int, str]]) -> None:
    """Write back to each sender, once, where its newest bundle lies; also to one that sent too little."""
    heard = [pair for pair in opened if pair[1].error is None or pair[1].error.code == TOO_LATE]
    newest = {imported.sender: (one, imported) for one, imported in heard}
    for sender, (one, imported) in newest.items():
        last = one.chosen[-1].path
        named = stick.VOLUME_NAME.fullmatch(last.name) is not None
        target = last.parent if named else last.with_name(f"{last.stem}-answer{stick.SUFFIX}")
        try:
            imported.answer = export(app, sender, target, refused=refused.get(sender))
        except FednodeError as error:
            imported.unanswered = error
