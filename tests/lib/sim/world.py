"""31 nodes in one process, or as many as there are: the real exchange, verification, merge, log, segments, store,
writer, projections, on real SQLite files; simulated time, links, crashes, clocks and operators. Same seed, same trace.

In a world that lives for days, sessions in which nothing was said for a while rest: neither side is asked whether it is
time for a beat, and no beat is lost or late, until somebody has something to say.

What is checked all along: an ack leaves only for what lies in the store. At the end: see `check.py`.
"""

from __future__ import annotations

import gc
import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fednode.crypto import certs
from fednode.crypto.errors import IntegrityError
from fednode.node import erasing, fence, mending, reconsider, succession, witness
from fednode.node.acks import Acks
from fednode.node.admission import STOOD_FOR
from fednode.node.clocks import Judge, Reference
from fednode.node.config import Config
from fednode.node.journal import Journal
from fednode.node.trust import Trust
from fednode.node.waking import Waking
from fednode.node.writer import Writer
from fednode.sync import effects as fx
from fednode.sync.change import Change, LogName
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from fednode.sync.strip import erase_change
from sim import ailments, byzantine, promotion, recovery
from sim.disk import Crash, CrashingStore
from sim.hierarchy import LARGE, START_MS, Member, Shape, children_in, copy_to, fast_folder, members
from sim.network import Clockwork, Faults
from sim.session import End as End
from sim.session import SimSession
from sim.sleeping import Dormitory, Windows
from sim.sticks import SimApp

BACK_OFF = 7  # doublings of the time to the next dialling
REDIAL_MS = (200, 8_000)
BOOT_MS = (100, 20_000)
NO_ROOM_MS = (500, 5_000)
LOADED = ("store", "trust", "writer", "projector", "reference", "mender")  # of the program: a node that sleeps has none


class SimNode:
    """One machine: a disk (real files) and, while it is up, a Store, Trust, Writer and Projector on it."""

    def __init__(self, world: World, member: Member) -> None:
        self.world, self.member, self.id = world, member, member.node
        self.folder = world.folder / member.node
        self.recovery = recovery.SimRecovery(self)
        self.up = self.gone = self.off = self.asleep = False
        self.config = Config()
        self.disk = ailments.Disk()
        self.acks: Acks | None = None
        self.liar: byzantine.Liar | None = None
        self.shown: tuple[bytes, ...] = ()  # the certificates that lie in its home
        self.tries = self.in_vain = self.refused = 0
        self.changes = 0  # of its store
        self._gives: tuple[int, bool] = (-1, False)  # at so many changes
        self._grown: tuple[int, object] = (-1, None)
        self.skew_ms = self.stamped = self.boots = self._heard = 0
        self._known = (0, 0)
        self.frozen_ms: int | None = None
        self.sessions: list[End] = []
        self._queue: list[tuple[End, fx.Commit]] = []
        self._writing = False
        if world.dormitory.open_max:
            self.up = self.asleep = True
            self.boots = 1
            self._dial_in_window()
        else:
            self.boot()

    # ------------------------------------------------------------ power

    def boot(self) -> None:
        """Load everything from disk."""
        if self.up or self.gone or self.off:
            return
        self.boots += 1
        self.world.dormitory.up(self)
        self._load()
        self.up, self.in_vain = True, 0
        self.world.note("boot", self.id, self.store.lsn)
        self._settle()
        if self.up:
            self.acks = promotion.acks_of(self)
            self.world.clock.at(self.world.clock.rng.randint(*REDIAL_MS), self.dial)

    def _load(self) -> None:
        self.store = CrashingStore.open(self.folder / "log.db", stash_key=self.member.keys.stash_key)
        self.store.doomed = lambda: self.world.clock.chance(self.world.faults.crash_inside)
        self.store.changing = self._changing
        self.store.ailing = lambda: self.world.fails(self.world.faults.io_error)
        self.store.room = self.disk
        self.waking = Waking(self.store)
        self.trust = Trust.load(self.store, self.member.chain, self.id)
        self.writer = Writer(self.store, self.trust, self.member.keys, self.now_ms, self.world.clock.rng.randbytes)
        self.writer.on_late = lambda lsns: succession.late_writes(SimApp(self), self.writer, lsns)
        self.mender = ailments.mender(self)
        vars(self).pop("projector", None)
        if not self.world.shape.open_max:
            self._project()
        self._heard, self._known = self.trust.heard, self._knows()
        place = (self.wall_ms, lambda: self.world.clock.now_ms, f"{self.id}/{self.boots}")
        self.reference = Reference.load(self.store, self.trust, *place)

    def _settle(self) -> None:
        """What the program does as it starts."""
        if not self.up:
            return
        if self.store.meta(STOOD_FOR) is not None or (self.store.to_make_again() and not self.restoring):
            again = self.guarded(lambda: succession.settle(SimApp(self)))
            self.world.note("settled", self.id, again)

    def _changing(self) -> None:
        self.changes += 1

    def gives(self) -> bool:
        """Whether there is something here that its parent has not acknowledged."""
        if self._gives[0] != self.changes:
            up = self.store.peer(self.member.parent)
            self._gives = (self.changes, up is None or self.store.backlog_up(up.acked).segments > 0)
        return self._gives[1]

    def grown(self) -> object:
        """How far what it has for those below goes: the same as long as nothing was added."""
        if self._grown[0] != self.changes:
            self._grown = (self.changes, (self.store.lsn, self.store.meta(witness.COUNT, 0)))
        return self._grown[1]

    @property
    def busy(self) -> bool:
        """Whether it has something to do at the moment."""
        return bool(self.sessions or self._queue or self._writing or self.restoring)

    def stop(self) -> None:
        """Stop, as an operator stops the program; the machine stays as it is."""
        if not self.up or self.asleep or self.busy:
            return
        if self.member.parent:
            self.gives()  # so that nobody has to wake it to ask
            self.world.dormitory.goes(self)
        self._close()
        for name in LOADED:
            vars(self).pop(name, None)
        self.acks = None
        self.asleep = True
        self.world.note("asleep", self.id)
        self.world.dormitory.down(self)
        self.world.dormitory.keep(self)

    def _close(self) -> None:
        if "projector" in vars(self):
            self.projector.close()
        self.store.close()

    def wake(self) -> None:
        """Start again."""
        if not self.asleep:
            return
        self.world.dormitory.up(self)
        self.world.dormitory.give_back(self)
        self.asleep = False
        self.world.dormitory.woken += 1
        self._load()
        self.acks = promotion.acks_of(self)
        if self.store.meta(STOOD_FOR) is not None or self.store.to_make_again():
            self.world.clock.at(0, self._settle)  # whoever wakes it may be in the middle of something

    def _project(self) -> None:
        self.projector = ailments.Projection(self.folder / "state.db", self.store, self.trust)

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """What a node that sleeps does not have: it is woken. Its projection it needs less often than the rest."""
            if name not in LOADED or not (self.asleep or name == "projector"):
                raise AttributeError(name)
            self.wake()
            if name == "projector":
                self._project()
            return getattr(self, name)

    def crash(self, why: str) -> None:
        """All that is in memory is gone. `state.db` (synchronous=NORMAL) may lose its tail: an older copy comes
        back."""
        if not self.up:
            return
        self.wake()
        self.up = False
        self.world.dormitory.down(self)
        self.world.note("crash", self.id, why)
        self._queue.clear()
        self._writing = False
        for end in list(self.sessions):
            end.session.end()
        self._close()
        old, state = self.folder / "state.old", self.folder / "state.db"
        if old.exists() and self.world.clock.chance(self.world.faults.lose_state):
            shutil.copyfile(old, state)
        shutil.copyfile(state, old)
        self.world.clock.at(self.world.clock.rng.randint(*BOOT_MS), self.boot)

    @property
    def restoring(self) -> bool:
        """Whether it takes its history back at the moment."""
        return self.recovery.under_way

    def adopt(self, chain: tuple[bytes, ...]) -> None:
        """A fresh certificate, kept on disk."""
        certs.check_chain(chain, self.trust.root_sha256)
        self.member = replace(self.member, chain=chain)
        self.trust.adopt(chain)
        self.recovery.adopted()

    def wall_ms(self) -> int:
        """This machine's clock: it may be years off, and stand still."""
        return max(0, self.world.clock.now_ms + self.skew_ms) if self.frozen_ms is None else self.frozen_ms

    def now_ms(self) -> int:
        """The reference clock of this node."""
        return self.reference.now_ms()

    def judge(self) -> Judge:
        """Who says whether certificates hold."""
        directory = self.trust.directory
        return self.reference.judge((*directory.path(self.id), directory.root))

    def keep_time(self) -> None:
        with self.store.write() as tx:
            self.reference.keep(tx)

    def guarded(self, job: Callable[[], Any]) -> Any:
        """Run something that writes; the machine may lose power in it, or the disk not take it. None when it did."""
        try:
            return job()
        except Crash:
            self.crash("inside a transaction")
        except StoreError as error:
            self.ailed(error)
        except IntegrityError as error:
            self.unreadable(error)
        return None

    def unreadable(self, error: IntegrityError) -> None:
        """As the daemon has it: whoever is connected hears what could not be read."""
        if error.code != mending.DAMAGED:
            raise error
        self.world.note("unreadable", self.id)
        for end in list(self.sessions):
            end.handle(end.exchange.refuse(error, end.now_ms()))

    def ailed(self, error: StoreError) -> None:
        """As the daemon has it: sessions end, so that nothing is taken for stored, and begin again."""
        if error.code not in ailments.OF_DISKS:
            raise error
        self.world.note("disk", self.id)
        self.world.ailments += 1
        for end in list(self.sessions):
            end.handle(end.exchange.refuse(Unavailable("FN-4505", reason=error.code), end.now_ms(), 1_000))

    # ------------------------------------------------------------ exchange

    def dial(self) -> None:
        parent = self.world.parent_of(self)
        if parent is None or not self.up or any(end is end.session.ends[0] for end in self.sessions):
            return
        full = self.restoring and self.disk.full  # `syncing.take_back`: run it again when there is room
        if full or not parent.up or parent.restoring or self.world.parted(self, parent):
            self.tries += 1
            self.in_vain += 1
            self.world.clock.at(self.redial_ms(), self.dial)
            return
        if not self.world.dormitory.room(self, parent):
            self.world.clock.at(self.world.clock.rng.randint(*NO_ROOM_MS), self.dial)
            return
        self.in_vain = 0
        self.world.note("dial", self.id)
        self.world.dormitory.up(parent)
        self.world.dormitory.up(self)
        if not self.restoring:
            self.guarded(partial(self.reconsider, parent.id))
        if self.up:
            SimSession(self.world, self, parent)

    def dial_again(self, clean: bool) -> None:
        """A session is over. Where there are windows a clean end was that of what there was to say."""
        if clean and self.world.shape.open_max:
            self.refused = 0
            self._dial_in_window()
        else:
            self.refused = self.refused + 1 if self.world.shape.open_max else 0
            self.in_vain = max(self.in_vain, self.refused)
            self.world.clock.at(self.redial_ms(), self.dial)

    def _dial_in_window(self) -> None:
        after_ms = self.world.windows.next(self.member.node, self.member.level, self.world.clock.now_ms)
        if self.member.parent and after_ms is not None:
            self.world.clock.at(after_ms, self.dial)

    def redial_ms(self) -> int:
        """When to try again: who lives for days backs off, as the daemon does."""
        doublings = min(self.in_vain, BACK_OFF) if self.world.stretch > 1 else 0
        return self.world.clock.rng.randint(*REDIAL_MS) << doublings

    def enqueue(self, end: End, commit: fx.Commit) -> None:
        self._queue.append((end, commit))
        if not self._writing:
            self._writing = True
            self.world.clock.at(self.world.clock.rng.randint(1, 30), self._write)

    def _write(self) -> None:
        """The writer's turn: everything that waits is one transaction."""
        self._writing = False
        group, self._queue = [one for one in self._queue if one[0].session.open], []
        if not self.up or not group:
            return
        if self.world.clock.chance(self.world.faults.crash_before):
            self.crash("before a commit")
            return
        jobs = [(end.link, commit) for end, commit in group if end.link is not None]
        reports = self.guarded(lambda: self.writer.incoming(jobs))
        if reports is None:
            return
        for (end, commit), (_, done) in zip(group, reports, strict=True):
            log, end_size = end.commits.get(commit.lsn, ("late", 0))
            self.world.note("stored", self.id, log, end_size, done.refused, done.gap is not None)
            if done.mended is not None:
                self.world.mended += 1
                self.world.note("mended", self.id, done.mended.log, done.mended.first)
                self.mender.mended(done.mended)
        self._watch_refusals()
        if self.world.clock.chance(self.world.faults.crash_after):
            self.crash("after a commit, before its acks")
            return
        for end in dict.fromkeys(end for end, _ in group):
            mine = [done for (other, _), (_, done) in zip(group, reports, strict=True) if other is end]
            if self.acks is not None:
                mine = list(self.acks.take(end.talk, mine))  # type: ignore[arg-type]
            end.handle(end.exchange.committed(mine, end.now_ms()))
        self.moved()

    def _watch_refusals(self) -> None:
        for one in self.writer.refusals:
            if one.by_peer and not self.up:  # the power went in that transaction: it is told again
                continue
            self.world.refusals.append((self.id, one.peer, one.code, self._about(one.log)))
        self.writer.refusals.clear()
        self.watch_alarms()

    def _about(self, place: str) -> str:
        """The log that a refusal is about; where the peer said it, it names an arrival number of this store's (seed
        176), which may be a segment's that was stripped, and announced (small, promoting, seed 612). In the end another
        store may go by this node's name."""
        if not place.startswith("lsn:"):
            return place
        sql = """select l.name from log l join segment s on s.log_id = l.id where s.lsn = ?1 union
            select l.name from log l join segment s on s.log_id = l.id join resealed r on r.segment_lsn = s.lsn
            where r.lsn = ?1 union select l.name from log l join late t on t.log_id = l.id where t.lsn = ?1"""
        return "".join(name for (name,) in self.store.rows(sql, int(place.removeprefix("lsn:"))))

    def watch_alarms(self) -> None:
        """What the writer found goes up as alerts, as the daemon does it, and ends the session where it must."""
        alarms, self.writer.alarms = self.writer.alarms, []
        for one in alarms:
            self.world.alarms.add((one.code, one.node))
            self.world.note("alarm", self.id, one.code, one.node)
            journal = Journal(self.writer, self.now_ms, "sim", "sim")
            with suppress(Refused):  # fenced itself
                self.guarded(partial(journal.alert, one.code, one.node, one.params, one.evidence))
            if not self.up:
                return
            for end in list(self.sessions):
                if end.link is one.ends and one.ends is not None:
                    end.handle(end.exchange.refuse(PeerError(one.code, **one.params), end.now_ms()))
        if alarms:
            self.world.clock.at(1, self.moved)

    def acknowledged(self, end: End, effect: fx.Acked) -> None:
        if end.link is None:
            return
        for outcome in effect.outcomes:
            place = ailments.place(self, outcome.lsn)
            if place is not None and not outcome.refused and not self.liar:  # who sent something else deceives itself
                name, size, _ = place
                self.world.acked.add((end.peer.node.id, str(name), size))
        outcomes = [(one.lsn, one.cosignature, one.refused) for one in effect.outcomes]
        link, before = end.link, self.store.lsn
        try:
            self.guarded(lambda: self.writer.acknowledged(link.peer_id, outcomes, link.peer, link.holds(effect.upto)))
        except PeerError as error:
            end.handle(end.exchange.refuse(error, end.now_ms()))
        if self.up and self.store.lsn != before:  # a cosignature that moves a stamp goes down (small, seed 300)
            self.world.clock.at(1, self.moved)
        if self.acks is not None and self.up:
            self.acks.heard(end.talk, effect)  # type: ignore[arg-type]
        self._watch_refusals()

    def moved(self) -> None:
        """The store has grown: whoever is owed more is told; the projection follows, sometimes."""
        self.pass_on_what_was_heard()
        self.take_after_all()
        self.mender.look()
        may_have_grown = self.waking.look()
        for end in list(self.sessions):
            if self.up and (error := self._out_of_force(end)) is not None:
                end.handle(end.exchange.refuse(error, end.now_ms()))
            elif self.up and may_have_grown(end.link):
                end.handle(end.exchange.wake(end.now_ms()))
        if self.up and self.world.clock.chance(0.3):
            self.projector.catch_up(steps=1)
            if self.projector.unclean and self.world.clock.chance(0.5):
                self.clean()

    def _out_of_force(self, end: End) -> PeerError | None:
        """As the daemon has it: another installation took the place of this child."""
        link = end.link
        if link is None or link.from_parent or link.restoring:
            return None
        now = self.trust.directory.get(link.peer.node)
        if now is None or now.incarnation == link.peer.incarnation:
            return None
        return PeerError("FN-5513", node=now.node, theirs=link.peer.incarnation, ours=now.incarnation)

    def pass_on_what_was_heard(self) -> None:
        """As the daemon has it: those below hear of a later life of somebody above before they get what was written in
        it, in a new greeting."""
        if self.up and self.trust.heard != self._heard:
            self._heard = self.trust.heard
            self.pass_on()

    def _knows(self) -> tuple[int, int]:
        return self.trust.catalog_version, self.trust.heard

    def take_after_all(self) -> None:
        """As the daemon has it: what was refused for what is known now is asked for in a new greeting."""
        if not self.up or self._known == self._knows():
            return
        self._known = self._knows()
        due = reconsider.due(self.store, self.trust)
        for end in [end for end in self.sessions if end.peer.node.id in due and not end.exchange.once]:
            if end.link is not None or end.exchange.dials:  # a child that greets is asked anyway
                error = Unavailable("FN-4529", node=self.id, peer=end.peer.node.id)
                end.handle(end.exchange.refuse(error, end.now_ms()))

    def reconsider(self, peer: str) -> None:
        """The same, before a greeting."""
        if peer in reconsider.due(self.store, self.trust, peer):
            self.world.note("reconsiders", self.id, peer, reconsider.forget(self.writer, peer))

    def pass_on(self) -> None:
        """Part from those below."""
        for end in list(self.sessions):
            if end is end.session.ends[1]:
                end.session.end()

    def clean(self) -> None:
        """Nothing stays of what was erased; the power may go while it is done."""
        self.guarded(lambda: erasing.clean(self.store, self.projector))

    # ------------------------------------------------------------ operators

    def write(self, dataset: str, area: str, changes: list[Change]) -> bool:
        """An operator's change; False when the power went, or it was refused."""
        if not self.up or self.restoring or self.trust.dataset(dataset) is None:
            return False
        try:
            done = self.guarded(lambda: self.writer.local(dataset, area, changes))
        except Refused as error:
            if error.code not in ("FN-5303", "FN-5306"):
                raise
            return False
        if done is None:
            return False
        name = self.trust.log_name(dataset, area)
        state = self.store.log_state(name)
        self.world.written.add((self.id, str(name), state.size))
        assert state.last_hlc > self.stamped, f"{self.id}: a stamp of {name} went back"
        self.stamped = state.last_hlc
        self.world.note("wrote", self.id, dataset, area, len(changes), state.last_hlc)
        self.moved()
        return True

    def versions(self, dataset: str, area: str) -> dict[str, list[tuple[LogName, int]]]:
        """Key -> the places of all versions of a record, the current one first."""
        c = self.projector.connection
        names = {number: name for number, name, _ in self.store.logs()}
        rows = c.execute(
            """with place as (
                   select (select id from dataset where name = ?) as d, (select id from area where code = ?) as a)
               select key, log, seq, 0 from record join place on dataset = d and area = a union all
               select key, log, seq, 1 from superseded join place on dataset = d and area = a order by 4, 2, 3""",
            (dataset, area),
        ).fetchall()
        found: dict[str, list[tuple[LogName, int]]] = {}
        for key, log, seq, _ in rows:
            found.setdefault(key, []).append((names[log], seq))
        return found

    def erase(self, dataset: str, area: str, places: list[tuple[LogName, int]], *, for_good: bool = False) -> None:
        """An operator erases these versions. `for_good`: nobody writes the same again, so that their contents are to be
        nowhere in the end."""
        try:
            contents = [self._content(log, seq) for log, seq in places]
        except IntegrityError:  # the operator hears of it
            return
        if self.write(dataset, area, [erase_change(log, seq, "by order") for log, seq in places]):
            self.world.erased |= {(self.id, str(log), seq) for log, seq in places}
            self.world.note("erased", self.id, [(str(log), seq) for log, seq in places])
            if for_good:
                self.world.gone |= {
                    (self.id, str(log), seq): one for (log, seq), one in zip(places, contents, strict=True) if one
                }

    def _content(self, log: LogName, seq: int) -> bytes | None:
        """The payload of a version; None for a deletion, and for what is stripped already."""
        log_id = self.store.log_id(log)
        held = self.store.segment_at(log_id, seq) if log_id is not None else None
        columns = self.store.columns(held) if held is not None else None
        return (columns.payloads[seq - held.first] or None) if held is not None and columns is not None else None


class World:
    """All of it. Close it: the files of a run are deleted."""

    def __init__(self, seed: int, faults: Faults | None = None, shape: Shape = LARGE) -> None:
        self.seed, self.shape = seed, shape
        self.clock = Clockwork(seed, START_MS)
        self.stretch = shape.stretch  # how much slower things go
        self.faults = faults or Faults()
        self.lines: dict[tuple[str, bool], Faults] = {}  # of a child, up or down, where they are of their own kind
        self._disks = random.Random(f"disks {seed}")
        self.ailments = self.lies = self.mended = 0
        self.liars: set[str] = set()
        self.folder = Path(tempfile.mkdtemp(prefix=f"fednode-sim-{seed}-", dir=fast_folder()))
        if not shape.open_max:
            copy_to(self.folder, shape)
        self.owes: dict[str, object] = {}  # in what state of theirs a node and its parent owed each other nothing
        self.dormitory = Dormitory(shape.open_max)
        self.windows = Windows(seed, shape)
        self._children = children_in(shape) if shape.open_max else {}
        self.refusals: list[tuple[str, str, str, str]] = []
        self.acked: set[tuple[str, str, int]] = set()
        self.written: set[tuple[str, str, int]] = set()
        self.revoked: set[str] = set()
        self.flipped: set[str] = set()  # machines where a bit of what lies there is another one now
        self.spoilt: set[tuple[str, int]] = set()  # of which segments
        self.alarms: set[tuple[str, str]] = set()
        self.restored: set[str] = set()
        self.burnt: set[str] = set()
        self.promoting = False
        self.promoted: set[str] = set()
        self.failed: set[str] = set()
        self.invited: set[tuple[str, str]] = set()  # by whom, and who: once more, and why (`promotion.not_heard_of`)
        self.became: dict[str, str] = {}  # a standby's id -> whom it succeeded
        self.former: dict[str, list[SimNode]] = {}  # old primaries that did not come back yet
        self.island: set[int] = set()  # machines that reach each other, and nobody else
        self.erased: set[tuple[str, str, int]] = set()
        self.gone: dict[tuple[str, str, int], bytes] = {}  # of what was erased: contents that nobody writes again
        self.resumed = self.hurried = self.sticks = self.brought = 0
        self.sticks_until_ms = 0  # when the last that is on its way arrives
        self.rollbacks: dict[str, int] = {}
        self._parted: set[str] = set()
        self.nodes: dict[str, SimNode] = {}
        for member in members(shape).values():
            self.nodes[member.node] = SimNode(self, member)
        if shape.open_max:
            gc.freeze()  # all that stays: it is not looked through again and again for what does not (`sim.sleeping`)

    def children_of(self, node: str) -> list[Member]:
        """Who was below a node in the beginning, where nodes sleep."""
        return self._children.get(node, [])

    def note(self, *what: object) -> None:
        self.clock.note(*what)

    def line(self, child: str, up: bool) -> Faults:
        """How bad a line is in one direction."""
        return self.lines.get((child, up), self.faults)

    def fails(self, share: float) -> bool:
        """True for this share of calls, of dice that nothing else is thrown with."""
        return share > 0 and self._disks.random() < share

    def part(self, node: str, until_ms: int) -> None:
        """Cut a node off from its parent for a while."""
        self._parted.add(node)
        self.note("part", node)
        for end in list(self.nodes[node].sessions):
            if end is end.session.ends[0]:
                end.session.end()
        self.clock.at(until_ms, partial(self._parted.discard, node))

    def mend_lines(self) -> None:
        """Every line works again."""
        self._parted.clear()
        self.lines.clear()

    def parted(self, child: SimNode, parent: SimNode) -> bool:
        return child.id in self._parted or (id(child) in self.island) != (id(parent) in self.island)

    def parent_of(self, node: SimNode) -> SimNode | None:
        """Whom a node dials: its parent, or, at the next try, another installation that goes by that name."""
        first = self.nodes.get(node.member.parent)
        others = self.former.get(node.member.parent)
        if first is None or not others:
            return first
        found = [first, *(one for one in others if one.up and not fence.superseded(one.store))]
        return found[node.tries % len(found)]

    def astray(self, node: str) -> bool:
        """Whether it is a liar, or below one: what it sends and gets goes by that one's hands."""
        return any(node.startswith(liar) for liar in self.liars)

    def parted_now(self) -> list[str]:
        """Who has no link at the moment."""
        return sorted(self._parted)

    def close(self) -> None:
        for node in self.nodes.values():
            if node.up and not node.asleep:
                node._close()
        shutil.rmtree(self.folder, ignore_errors=True)
