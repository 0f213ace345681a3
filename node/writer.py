"""The one way into log.db: this node's own changes, and what peers send.

Rules
1. A group is one transaction: segments, cursors, cosignatures, clock, and what is told of refusals (`on_refusals`).
   Reports are made after it is on disk (`incoming` returns them).
2. Own changes: stamp -> log.extend -> append. Compare-and-swap on the log's size makes a second process harmless.
3. Segments of peers: verify -> cosign (when it came from below) -> append. What fails is kept as evidence and
   reported as refused; the rest of the group goes on.
4. A parent cosigns a checkpoint only in the transaction that stores what leads to it; sizes never go down.
5. What an erase names is stripped in the transaction that appends the erase (`fednode.node.stripping`).
6. Where the disk is nearly full, changes and segments are refused; erases, audit, acknowledgements not (`node.room`).
7. System segments are believed (trust) as soon as they are appended: what follows in the group is verified by them.

>>> # writer.local("admin-licence", "130102001001", [Change(key, payload)])
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import msgspec

from fednode.crypto import checkpoint
from fednode.crypto.certs import Identity
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.suite import SUITE_1
from fednode.node import mending, sqlite
from fednode.node.fence import FORK, OF_MINE, heads, note, proved, put_up, standing
from fednode.node.home import NodeKeys
from fednode.node.link import Alarm, Link, Refusal
from fednode.node.rewrapping import Rewrapping
from fednode.node.rewraps import EVIDENCE
from fednode.node.store import CHECK_BYTES, Store
from fednode.node.stripping import Stripping
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.node.witness import Keeper, arrived, take, wait
from fednode.sync import rewrap, wire
from fednode.sync import segment as seg
from fednode.sync.change import ERASE, NODES, OF_ITSELF, RECEIPTS, Change, Columns, LogName
from fednode.sync.clock import HybridClock, bound, effective
from fednode.sync.effects import Commit, Done, HalfSegment
from fednode.sync.errors import PeerError, Refused
from fednode.sync.feed import Side
from fednode.sync.identity import covers
from fednode.sync.log import cut, extend
from fednode.sync.strip import erase_change, may_erase
from fednode.sync.verify import Context, Gap, Held, VerifiedSegment, check_signed, verify, verify_first_parent
from fednode.sync.wire import HEADS_MAX, Cosignature, Cursor, Want

RECENT_EVIDENCE_BYTES = 256 * 1024
NOT_YET = frozenset({"FN-5411", "FN-5422", "FN-5430", "FN-5431"})  # who it is about may not be known yet


class Writer:
    """Writes for one store, in one thread. `now_ms`: the corrected clock; `rng`: secure random bytes."""

    def __init__(
        self, store: Store, trust: Trust, keys: NodeKeys, now_ms: Callable[[], int], rng: Callable[[int], bytes]
    ) -> None:
        self.store, self.trust, self.keys = store, trust, keys
        self._now_ms, self._rng = now_ms, rng
        self._key_id = SUITE_1.hash(keys.seal.public)[:8]
        self.refusals: list[Refusal] = []  # of the last group
        self.on_refusals: Callable[[Transaction, Sequence[Refusal]], None] = lambda tx, refusals: None
        self.alarms: list[Alarm] = []
        self.late: list[int] = []  # what an old primary wrote that is to be made again
        self.on_late: Callable[[list[int]], None] = lambda lsns: None
        self.stripping = Stripping(store, trust, keys, now_ms, rng)
        self.rewrapping = Rewrapping(store, trust, keys, self.stripping)
        self.gives = True  # False: somebody else sees to what is due to readers that came later

    # ------------------------------------------------------------ own changes

    def local(
        self, dataset: str, area: str, changes: Sequence[Change], extra: Callable[[Transaction], None] | None = None
    ) -> list[int]:
        """Append changes to this node's log for a dataset and an area; durable on return. `extra` runs in the same
        transaction. Returns arrival numbers. Raises Refused FN-3401 (dataset), FN-5301 (level), FN-5302 (area), FN-5303
        (fenced), FN-5306 (a standby), StoreError."""
        self.trust.refresh(self.store)
        declared = self.trust.dataset(dataset)
        if declared is None:
            raise Refused("FN-3401", dataset=dataset)
        me = self.trust.me
        if me.stands_for and dataset not in OF_ITSELF:
            raise Refused("FN-5306", node=me.node, primary=me.stands_for)
        if me.level not in declared.writers:
            raise Refused("FN-5301", dataset=dataset, level=me.level)
        if not covers(me.scope, area):
            raise Refused("FN-5302", area=area, scope=", ".join(me.scope))
        name = self.trust.log_name(dataset, area)
        readers, carried = ([], False) if name.is_open else self.trust.readers(declared, area)
        if not name.is_system and any(change.op != ERASE for change in changes):
            self.store.room.check()
        try:
            with self.telling() as tx:
                lsns = self._extend(tx, name, changes, readers, carried)
                if extra is not None:
                    extra(tx)
        except BaseException:
            if name.is_open:
                self.trust.reload(self.store)
            raise
        self._give()
        return lsns

    def _receipts(self, tx: Transaction) -> None:
        """What was stripped, and given, in this transaction is told of in the same. Behind the fence nothing is told:
        a recovery does it afterwards (`tell_stripped`)."""
        if (self.stripping.learnt or tx.twins) and standing(self.store) is None:
            self._erase_copies(tx)
        for area, changes in self.stripping.receipts():
            if standing(self.store) is None:
                self.append_system(tx, RECEIPTS, area, changes)
        self.rewrapping.tell(tx)

    def _erase_copies(self, tx: Transaction) -> None:
        """What was erased is erased at its other place, too, whoever wrote it there first."""
        while places := self.stripping.copies():
            found: dict[LogName, list[Change]] = {}
            for log, seq, place in dict.fromkeys(places):
                if (name := self._erases_in(log)) is not None:
                    found.setdefault(name, []).append(erase_change(log, seq, f"the same as {place}"))
            for name, changes in found.items():
                declared = self.trust.dataset(name.dataset)
                if declared is not None:
                    readers = self.trust.readers(declared, name.audience or self.trust.area)
                    self._extend(tx, name, changes, *readers)
            if not found:
                break

    def _erases_in(self, log: LogName) -> LogName | None:
        """This node's log for an erase of what stands in another; None where it may not erase that, or the erase would
        not reach whoever wrote it (`node.erasing`, rule 1)."""
        me, declared = self.trust.me, self.trust.dataset(log.dataset)
        if declared is None or me.level not in declared.writers or me.stands_for:
            return None
        if declared.flow == "down" and log.origin != me.node:
            return None
        if not may_erase(me, log, log.dataset, self.trust.directory):
            return None
        return self.trust.log_name(log.dataset, self.stripping.area_of(log))

    def tell_stripped(self, after: int) -> None:
        """Write the receipts of what was stripped since an arrival number behind the fence."""
        self.trust.refresh(self.store)
        with self.telling():
            self.stripping.again(after)
            self.stripping.learnt = True

    @contextmanager
    def telling(self) -> Iterator[Transaction]:
        """A transaction at whose end what follows from it for what was erased is done, and told."""
        self.stripping.begin()
        self.rewrapping.begin()
        with self.store.write() as tx:
            yield tx
            self._receipts(tx)
        self._wipe()

    def _wipe(self) -> None:
        """What was stripped is to be nowhere: not in the write-ahead log either. If somebody reads there now, the next
        one will do it."""
        if self.stripping.done:
            sqlite.truncate(self.store.connection)

    def _give(self) -> None:
        """Some of what is due to readers that came later. What was asked for is done and on disk: trouble of this is
        for the next time."""
        if self.gives:
            with suppress(FednodeError):
                self.rewrapping.step()

    def append_system(self, tx: Transaction, dataset: str, area: str, changes: Sequence[Change]) -> list[int]:
        """Extend one of this node's sealed system logs inside a running transaction of this writer's store, so that an
        act and what is told of it are one. Returns arrival numbers. Raises Refused FN-5303."""
        name = self.trust.log_name(dataset, area)
        declared = self.trust.dataset(dataset)
        if declared is None or not name.is_system or name.is_open:
            raise ValueError(f"{dataset} is no sealed system dataset")
        return self._extend(tx, name, changes, *self.trust.readers(declared, area))

    def _extend(
        self, tx: Transaction, name: LogName, changes: Sequence[Change], readers: list[seg.Reader], carried: bool
    ) -> list[int]:
        if (fence := standing(self.store)) is not None:
            raise Refused("FN-5303", code=fence.code)
        clock = HybridClock(int(self.store.meta("hlc", 0)))
        state = self.store.log_state(name)
        lsns = []
        route = self.trust.route(name)
        for part in cut(changes):
            stamps = clock.run(self._now_ms(), len(part))
            version, bodies = self.trust.catalog_version, self.trust.bodies
            sealed, key = not name.is_open, self.keys.sign
            for own in extend(state, part, stamps, version, key, readers, sealed, self._rng, carried, bodies):
                lsns.append(tx.append_own(own, route))
                state = own.after
                if ERASE in own.columns.ops:
                    self.stripping.learn(tx, name, own.first, own.columns, lsns[-1])
                if name.is_open:
                    self.rewrapping.learned(tx, name, own.columns)
                    self.trust.take(name, own.columns)
        tx.set_meta("hlc", clock.last)
        if name.is_open and lsns:
            tx.set_meta("system_lsn", lsns[-1])
        return lsns

    # ------------------------------------------------------------ from peers

    def incoming(self, batch: Iterable[tuple[Link, Commit]]) -> list[tuple[Link, Done]]:
        """Verify and store what peers sent: one durable transaction. On StoreError nothing of it is kept and nothing
        may be
        acknowledged."""
        group = list(batch)
        if any(commit.data for _, commit in group):  # cosignatures are small
            self.store.room.check()
        self.trust.refresh(self.store)
        self.refusals.clear()
        reports: list[tuple[Link, Done]] = []
        links = {id(link): link for link, _ in group}.values()
        told, newest = len(self.alarms), self.store.lsn
        before = [(link, link.have, link.position, set(link.holes), link.check, link.brink) for link in links]
        self.stripping.begin()
        self.rewrapping.begin()
        try:
            with self.store.write() as tx:
                clock = HybridClock(int(self.store.meta("hlc", 0)))
                for link, commit in group:
                    done = replace(self._one(tx, clock, link, commit), ahead=commit.ahead)
                    reports.append((link, done))
                    if done.refused:
                        tx.refused_at(link.peer_id, commit.lsn, done.refused)
                    if done.mended or done.unfit or commit.ahead:  # it is out of its turn
                        continue
                    link.position = max(link.position, commit.lsn)
                    if done.gap is None:
                        link.holes.discard(commit.lsn)
                    else:
                        link.leave_out(commit.lsn)
                    if commit.lsn == link.position:
                        link.check = link.seen
                for link in links:
                    self._move_have(tx, link)
                if early := arrived(tx, newest):
                    self._learn(tx, early, self.trust.parent.node if self.trust.parent else "")
                tx.set_meta("hlc", clock.last)
                if self.refusals:
                    self.on_refusals(tx, self.refusals)
                self._receipts(tx)
        except BaseException:
            for link, have, position, holes, check, brink in before:
                link.have, link.position, link.holes, link.check = have, position, holes, check
                link.brink = brink
            del self.alarms[told:]
            self.late.clear()
            self.trust.reload(self.store)
            raise
        self._wipe()
        self._give()
        if self.late:
            late, self.late = self.late, []
            self.on_late(late)
        return reports

    def _move_have(self, tx: Transaction, link: Link) -> None:
        upto = link.whole
        check = link.check if upto == link.position else b""
        if upto > link.have:
            link.have = upto
            tx.raise_have(link.peer_id, Cursor(link.store, upto, check))

    def _context(self, link: Link) -> Context:
        return Context(
            self.trust.me,
            link.peer,
            link.from_parent,
            self.trust.directory,
            self.trust.dataset,
            self._key_id,
            lambda envelope: seg.unwrap(envelope, self._key_id, self.keys.seal.private),
            self._now_ms() // 1000,
            self.trust.lawful,
            link.from_parent and link.restoring,
            link.gathers,
        )

    def _one(self, tx: Transaction, clock: HybridClock, link: Link, commit: Commit) -> Done:
        log, first, link.seen = "", 0, b""
        try:
            if commit.late is not None:
                return self._late(tx, link, commit)
            if rewrap.is_rewrap(commit.data):
                return self._rewrap(tx, link, commit)
            envelope = seg.parse(commit.data)
            header = envelope.header
            log, first, link.seen = str(header.log), header.first, header.root[:CHECK_BYTES]
            state = self.store.log_state(header.log)
            if first > state.size and self.store.refusals(log, first):
                return Done(commit.lsn, refused="FN-6413")
            if first < state.size and mending.is_damaged(self.store, envelope):
                return self._mend(tx, clock, link, commit, envelope)
            if commit.asked is not None:  # another neighbour was faster
                return Done(commit.lsn, unfit=commit.asked)
            if header.stripped and self.stripping.handed_back(tx, envelope, self._context(link)):
                return Done(commit.lsn)
            verified = verify(envelope, lambda _name: state, self._context(link), commit.first_parent)
            return self._append(tx, clock, link, commit, verified)
        except Gap as gap:
            return Done(commit.lsn, gap=Want(gap.log, gap.size))
        except Held as held:
            return self._seen(tx, clock, link, commit, held)
        except PeerError as error:
            if commit.ahead and error.code in NOT_YET:  # as a gap: it comes in its turn, and is judged then
                return Done(commit.lsn, gap=Want(log, first))
            return self._refuse(tx, link, commit, log, first, error)

    def _seen(self, tx: Transaction, clock: HybridClock, link: Link, commit: Commit, held: Held) -> Done:
        try:
            return self._held(tx, clock, link, commit, held)
        except PeerError as error:
            return self._refuse(tx, link, commit, str(held.state.name), held.envelope.header.first, error)

    def _mend(self, tx: Transaction, clock: HybridClock, link: Link, commit: Commit, envelope: seg.Envelope) -> Done:
        """What comes for a segment that is damaged here takes its place, or changes nothing."""
        want = Want(str(envelope.header.log), envelope.header.first, restore=True)
        lsn = mending.mend(tx, self.store, envelope, lambda one: seg.unwrap(one, self._key_id, self.keys.seal.private))
        try:
            if lsn is not None:
                self.stripping.settle(tx, self.store.segments(lsn - 1, 1)[0], announce=True)
            if lsn is not None or self.stripping.restored(tx, envelope, self._context(link)):
                mending.mended(tx, envelope)
                self._signed_meanwhile(tx, clock, link, commit, envelope.header)
                return Done(commit.lsn, mended=want)
        except PeerError as error:
            refused = self._refuse(tx, link, commit, want.log, want.first, error)
            return Done(commit.lsn, refused=refused.refused, unfit=want)
        there = self.store.held_range(envelope.header.log, envelope.header.first)
        first_hand = self.trust.directory.parent_of(envelope.header.log.origin) == self.trust.node
        cosigned = there[4] if there is not None and first_hand and not link.from_parent else None
        return Done(commit.lsn, cosigned, unfit=want)  # what this node cosigned when it came whole, it still has

    def _signed_meanwhile(
        self, tx: Transaction, clock: HybridClock, link: Link, commit: Commit, header: seg.Header
    ) -> None:
        """What was signed of a head while its segment was damaged here, and could not be kept; and what this node could
        not sign for whoever did not hear of it (`node.outcomes`)."""
        lsn = self.store.ending_at(header.log, header.end)
        if lsn is None:
            return
        if (
            self.trust.side(header.log) is Side.BELOW
            and self.trust.directory.parent_of(header.log.origin) != self.trust.node
        ):
            keeper = Keeper(tx, self.trust)
            keeper.keep(header.log, header.end, replace(self._cosign(clock, header), witness=self.trust.node))
            keeper.settle()
        if link.from_parent and commit.first_parent is not None:
            head = (header.log, header.end, header.root, commit.first_parent)
            tx.set_first_parent(lsn, verify_first_parent(self.trust.directory, *head, self.trust.node, mine=True))
        if early := arrived(tx, lsn - 1):
            self._learn(tx, early, link.peer.node)

    def _append(
        self, tx: Transaction, clock: HybridClock, link: Link, commit: Commit, verified: VerifiedSegment
    ) -> Done:
        header = verified.envelope.header
        own, first_parent = None, verified.first_parent
        if not link.from_parent:
            first_hand = verified.origin.issuer == self.trust.node
            if first_hand and first_parent is not None:  # of an earlier life: what this node cosigned then stands
                own = first_parent
            else:
                own = self._cosign(clock, header)
                first_parent = own if first_hand else first_parent
            self._one_order(link, commit.lsn, header)
        lsn = tx.append_verified(verified, self.trust.route(header.log), link.peer_id, commit.lsn, first_parent)
        nobody_above = self.trust.parent is None  # its earlier lives are history as they are
        of_old = verified.side is Side.SELF and not link.restoring and not nobody_above
        # who lacks what is held back could not take what follows it in its log, either
        if of_old and (first_parent is None or self.store.is_held_back(header.log)):
            tx.hold_back(lsn)
            self.late.append(lsn)
            if header.log.dataset == NODES and verified.columns is not None:
                self._say_again(tx, header, verified.columns)
        if verified.columns is not None:
            self.stripping.arrived(tx, header, verified.columns, lsn, link.peer.node)
        else:
            self.stripping.carries(header, tx)
        clock.observe(effective(header.last_hlc, bound(first_parent.time_s) if first_parent else None))
        if header.log.is_open and verified.columns is not None:
            self.rewrapping.learned(tx, header.log, verified.columns)
            self.trust.take(header.log, verified.columns)
            tx.set_meta("system_lsn", lsn)
        if verified.envelope.sealed:
            read = verified.columns is not None
            self.rewrapping.arrived(tx, header, lsn, link.peer.node, self._context(link), read)
        return Done(commit.lsn, own, at=lsn)

    def _say_again(self, tx: Transaction, header: seg.Header, columns: Columns) -> None:
        """Who is who is said again at once: what comes next may be of nodes that it tells of, and stands behind it then
        for everybody who gets both. All else of an earlier life is made again after this (`node.salvage`)."""
        if standing(self.store) is not None:
            return
        with suppress(PeerError, Refused):  # it is for that to say so
            self.trust.lawful(header.log, columns)
            name = self.trust.log_name(NODES, self.trust.area)
            changes = [
                Change(key, payload, op, columns.base(i))
                for i, (key, payload, op) in enumerate(zip(columns.keys, columns.payloads, columns.ops, strict=True))
            ]
            first = self.store.log_state(name).size
            self._extend(tx, name, changes, [], False)
            tx.made_again(header.log, range(header.first, header.end), name, first)

    def _rewrap(self, tx: Transaction, link: Link, commit: Commit) -> Done:
        log, first = "", 0
        try:
            found = rewrap.parse(commit.data)
            log, first = str(found.log), found.first
            self.rewrapping.taken(tx, found, link.peer.node, self._context(link))
            return Done(commit.lsn)
        except rewrap.Renamed:  # nothing is wrong, and nobody needs it any more
            return Done(commit.lsn)
        except PeerError as error:  # it says nothing of the log: what comes of that is judged as ever
            return self._refuse(tx, link, commit, log + EVIDENCE, first, error)

    def _one_order(self, link: Link, peer_lsn: int, header: seg.Header) -> None:
        """Two installations with one identity each have an arrival order of their own: two segments at one place."""
        others = [
            at for at in self.store.came_at(link.peer_id, peer_lsn, link.since) if at != (str(header.log), header.first)
        ]
        if not others or link.fenced:
            return
        link.fenced = True
        log, node = others[0][0], link.peer.node
        told = note(self.trust.directory.life(header.log.origin, header.log.incarnation) or link.peer, header)
        held = LogName.parse(log)
        origin = self.trust.directory.life(held.origin, held.incarnation)
        evidence = (told, *(heads(self.store, origin, [held]) if origin else ()))
        self.alarms.append(Alarm("FN-5515", node, {"node": node, "log": log}, evidence, link))

    def _cosign(self, clock: HybridClock, header: seg.Header) -> Cosignature:
        """This node's cosignature of the checkpoint at a segment's end."""
        time_s = clock.witness_time(self._now_ms(), header.last_hlc)
        head = checkpoint.Checkpoint(str(header.log), header.end, header.root)
        return Cosignature(time_s, checkpoint.cosign(head, self.keys.sign, time_s))

    def _late(self, tx: Transaction, link: Link, commit: Commit) -> Done:
        late = commit.late
        if late is None:
            raise RuntimeError("not a late cosignature")
        name = LogName.parse(late.log)
        if not link.from_parent:  # a child would move what its parent has passed on already
            raise PeerError("FN-5413", node=name.origin, peer=link.peer.node)
        given = verify_first_parent(
            self.trust.directory, name, late.size, late.root, late.first_parent, self.trust.node
        )
        lsn = self.store.ending_at(name, late.size)
        place = self.store.place(lsn) if lsn is not None else None
        if lsn is None or place is None:
            return Done(commit.lsn)
        if place[2] != late.root:
            raise PeerError("FN-6420", log=late.log, first=late.size, size=late.size, node=name.origin)
        tx.set_first_parent(lsn, given)
        return Done(commit.lsn)

    def _held(self, tx: Transaction, clock: HybridClock, link: Link, commit: Commit, held: Held) -> Done:
        header = held.envelope.header
        there = self.store.held_range(header.log, header.first)
        same = there is not None and (
            there[1] == SUITE_1.hash(commit.data)
            or (there[2] == header.end and seg.parse(there[3]).header.root == header.root)
        )
        if not same or there is None:
            return self._fork(tx, link, commit, held)
        self.stripping.offered(tx, held.envelope, self._context(link))
        if link.from_parent:
            if commit.first_parent is not None:
                head = (header.log, header.end, header.root, commit.first_parent)
                given = verify_first_parent(self.trust.directory, *head, self.trust.node, mine=True)
                tx.set_first_parent(there[0], given)
            return Done(commit.lsn)
        tx.came_again(link.peer_id, link.since, commit.lsn, there[0])
        first_hand = self.trust.directory.parent_of(header.log.origin) == self.trust.node
        if first_hand and there[4] is not None:
            return Done(commit.lsn, there[4], at=there[0])
        own = self._cosign(clock, header)
        if first_hand:
            tx.set_first_parent(there[0], own)
        elif commit.first_parent is not None and there[4] is not None and not link.peer.stands_for:
            self._stands(tx, header, there[4], commit.first_parent)
        return Done(commit.lsn, own, at=there[0])

    def _stands(self, tx: Transaction, header: seg.Header, mine: Cosignature, theirs: Cosignature) -> None:
        """Where a first parent has cosigned a segment twice, and those below have another one than was taken here, they
        are told (`node.witness`, rule 5)."""
        same = (mine.time_s, mine.signature) == (theirs.time_s, theirs.signature)
        directory = self.trust.directory
        if same or self.trust.node not in [one.node for one in directory.path(header.log.origin)[:-1]]:
            return
        with suppress(PeerError):  # they have none that holds
            given = verify_first_parent(directory, header.log, header.end, header.root, theirs, self.trust.node)
            keeper = Keeper(tx, self.trust)
            keeper.stand(header.log, header.end, replace(mine, witness=given.witness))
            keeper.settle()

    def _fork(self, tx: Transaction, link: Link, commit: Commit, held: Held) -> Done:
        header = held.envelope.header
        log = str(header.log)
        try:
            _, origin = check_signed(commit.data, self._context(link))
            error = PeerError(FORK, log=log, first=header.first, size=held.state.size, node=header.log.origin)
            evidence = (note(origin, header), *self._held_notes(origin, header))
            self.alarms.append(Alarm(FORK, origin.node, dict(error.params), evidence))
        except PeerError as unsigned:
            error = unsigned
        return self._refuse(tx, link, commit, log, header.first, error)

    def _held_notes(self, origin: Identity, header: seg.Header) -> tuple[str, ...]:
        """The heads of a log that is held: where the segment at hand begins or ends, and the newest."""
        there = self.store.held_range(header.log, header.first)
        found = () if there is None else (note(origin, seg.parse(there[3]).header),)
        return tuple(dict.fromkeys((*found, *heads(self.store, origin, [header.log]))))

    def _refuse(self, tx: Transaction, link: Link, commit: Commit, log: str, first: int, error: PeerError) -> Done:
        params = msgspec.json.encode({key: str(value) for key, value in error.params.items()}).decode()
        data = self.stripping.evidence(commit.data, error.code)[:RECENT_EVIDENCE_BYTES]
        news = tx.keep_evidence(self._now_ms(), link.peer.node, error.code, log[:256], first, params, data)
        if news:
            self.refusals.append(Refusal(link.peer.node, error.code, log, error.params, commit.data))
        return Done(commit.lsn, refused=error.code)

    def keep_half(self, peer: str, half: HalfSegment | None) -> None:
        """What a cut left of a segment, for the next session; not where it may be of what was erased, nor where there
        is no room."""
        with self.store.write() as tx:
            header = seg.beginning(bytes(half.data)) if half is not None else None
            lost = self.store.room.low or (header is not None and self.stripping.outlived(header))
            tx.set_partial(peer, None if lost else half)

    # ------------------------------------------------------------ acknowledgements

    def acknowledged(
        self, peer_id: int, outcomes: Sequence[tuple[int, Cosignature | None, str]], witness: Identity, upto: int
    ) -> None:
        """The peer holds (or refuses) these items of this node's feed, and with them all up to `upto`. Its cosignatures
        are verified, then kept: as first parent's for this node's own logs, as a witness's for what others hold. What a
        successor had cosigned before its old primary came with its own counts as everybody else has it. Raises FN-6414.
        """
        beside = self.trust.me.stands_for == witness.node
        mine = self.trust.directory.parent_of(self.trust.node) == witness.node
        lives = self.trust.directory.lives(witness.node)
        tell = bool(self.trust.directory.standbys_of(self.trust.node))
        self.refusals.clear()
        with self.store.write() as tx:
            keeper, newest = Keeper(tx, self.trust), self.store.lsn
            # a refusal may say that this store has lost what a cosignature beside it is of: it comes first
            for lsn, given, refused in sorted(outcomes, key=lambda one: not one[2]):
                if lsn > newest:  # there never was such a thing
                    continue
                if refused in OF_MINE and mine:
                    self._forked(tx, lsn, refused)
                if refused:
                    at = f"lsn:{lsn}"
                    if tx.keep_evidence(self._now_ms(), witness.node, refused, at, lsn, '{"by":"peer"}', b""):
                        self.refusals.append(Refusal(witness.node, refused, at, by_peer=True))
                    continue
                if given is None or not mine:
                    continue
                lsn = self.store.announced(lsn)
                named = Cosignature(given.time_s, given.signature, witness.node)
                try:
                    place = self.store.place(lsn)
                except IntegrityError:
                    self._wait(tx, lsn, named)
                    continue
                if place is None:
                    continue
                name, size, root = place
                try:
                    _check(lives, name, size, root, given)
                except PeerError:
                    if standing(self.store) is None:
                        raise
                    continue  # it is of the history that this store has lost
                first_hand = name.origin == self.trust.node
                if first_hand:
                    tx.set_first_parent(lsn, named, tell=tell)
                elif beside and self._issuer(name) == witness.node:
                    tx.set_first_parent(lsn, named, instead=True)
                if not first_hand or (self.trust.may_have_children and self.trust.route(name).down):
                    keeper.keep(name, size, named)
            keeper.settle()
            tx.raise_acked(peer_id, upto)
            if self.refusals:
                self.on_refusals(tx, self.refusals)

    def _wait(self, tx: Transaction, lsn: int, given: Cosignature) -> None:
        """A cosignature of a head whose segment is damaged here waits until that is mended."""
        sql = "select l.name, s.first + s.count from segment s join log l on l.id = s.log_id where s.lsn = ?"
        for name, size in self.store.rows(sql, lsn):
            wait(tx, name, size, [given])

    def _issuer(self, name: LogName) -> str:
        """The first parent of who wrote a log."""
        life = self.trust.directory.life(name.origin, name.incarnation)
        return life.issuer if life is not None else ""

    def witnessed(self, link: Link, told: wire.Witnessed) -> None:
        """What the parent passes on of nodes above: what verifies is kept. What does not is evidence; where this store
        is fenced, it is of the history that was lost."""
        self.trust.refresh(self.store)
        self.refusals.clear()
        with self.store.write() as tx:
            self._learn(tx, told, link.peer.node)
            tx.set_witnessed(link.peer_id, told.upto)
            if self.refusals:
                self.on_refusals(tx, self.refusals)

    def _learn(self, tx: Transaction, told: wire.Witnessed, peer: str) -> None:
        for head, error in take(tx, self.trust, told):
            params = msgspec.json.encode(dict(error.params)).decode()
            at = f"{head.log}@{head.size}"[:256]  # not the log's own name: nothing of its feed was refused
            place = (self._now_ms(), peer, error.code, at, head.size)
            if standing(self.store) is None and tx.keep_evidence(*place, params, b""):
                self.refusals.append(Refusal(peer, error.code, head.log, error.params))

    def _forked(self, tx: Transaction, lsn: int, code: str) -> None:
        place = self.store.place(lsn)
        me = self.trust.me
        if place is not None and (place[0].origin, place[0].incarnation) == (me.node, me.incarnation):
            put_up(tx, me, code, self._now_ms())

    def fence(self, code: str) -> None:
        """Put up the fence: the parent has said why."""
        with self.store.write() as tx:
            put_up(tx, self.trust.me, code, self._now_ms())

    def peer_fenced(self, link: Link, code: str, told: Sequence[str]) -> None:
        """A child has fenced itself: its heads and what is held here of the same logs, side by side."""
        link.fenced = True
        lives = self.trust.directory.lives(link.peer.node)
        theirs = proved(lives, told)
        logs = [LogName.parse(head.origin) for head, _ in theirs][: HEADS_MAX // 2]
        ours = heads(self.store, link.peer, logs) if logs else heads(self.store, link.peer)
        evidence = tuple(dict.fromkeys((*(text for _, text in theirs[: HEADS_MAX // 2]), *ours)))[:HEADS_MAX]
        log = str(logs[0]) if logs else ""
        self.alarms.append(Alarm(code, link.peer.node, {"node": link.peer.node, "log": log}, evidence))


def _check(lives: Sequence[Identity], name: LogName, size: int, root: bytes, given: Cosignature) -> None:
    """By the witness, in any of its lives: what it cosigned in one stands in the next."""
    head = checkpoint.Checkpoint(str(name), size, root)
    for key in dict.fromkeys(one.sign_key for one in lives):
        with suppress(IntegrityError):
            return checkpoint.verify_cosignature(head, key, given.time_s, given.signature)
    raise PeerError("FN-6414", log=str(name), witness=lives[0].node if lives else "")
