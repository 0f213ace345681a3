"""`fednode recover`: a node whose store is lost, damaged, rolled back or cloned takes its own history back.

Rules
1. A new store is made beside the old one. The parent gives a new incarnation first, later than any that was lived here,
   which fences whoever else has these keys, then all that it holds of this node and of those below it; each segment is
   verified as ever. Until all that is here the new store is fenced: nothing may go on in the old life, and nobody gets
   what was written in the new one before the word of it.
2. The old store is moved aside, never deleted (`log.db.before-recover-<time>`). What it holds and nobody else does is
   made again or taken over (`node.salvage`).
3. Where it stands is in `recover.json`, written before each step; each step may be cut off anywhere and run again.
   While that file is there, nothing else opens this node.

4. A home that was put back from a backup (`node.backup.restoring`) goes on in its own store: a new incarnation first,
   then what the parent holds that is newer. What it wrote in its old life and the parent does not hold is made again.

5. Above the province is nobody. Where its own store can be read and holds (it was rolled back, or cloned; single
   segments may be damaged), it goes on in that, in a new incarnation by the root key; its children give what they hold
   and it does not. A store that is lost comes back from a standby or a backup.

    begin -> TAKING (from the parent) -> MOVING (old store aside, new one in its place) -> SALVAGING -> gone
    restore -> RESTORED (new life, taken back, made again) -> gone
    begin -> SETTLING (the province's own store becomes another one) -> RESTORED -> gone

>>> State("20260101T000000Z", 1, "FN-6422").step, next_numbers(4711)
('taking', 1000000000)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from fednode.crypto import certs
from fednode.crypto.certs import iso
from fednode.crypto.errors import FednodeError
from fednode.crypto.keys import TlsKey
from fednode.node import clocks, fence, files, salvage, syncing
from fednode.node.admission import GATHERS, note_restored
from fednode.node.app import App, real_clock
from fednode.node.audit import verify_store
from fednode.node.config import Config
from fednode.node.home import LOG_DB, Home
from fednode.node.journal import DAEMON, DONE
from fednode.node.salvage import Salvage, Salvaged
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.sync.change import AUDIT
from fednode.sync.errors import Refused, StoreError

TAKING, MOVING, SALVAGING, RESTORED, SETTLING = "taking", "moving", "salvaging", "restored", "settling"
DAMAGED = "FN-6601"  # its children have it whole
NEW, UNMADE = LOG_DB + ".recovering", LOG_DB + ".recovering.new"
EVENTS_AT_ONCE = 100
NUMBERS = 1_000_000_000  # arrival numbers go on at the next multiple when an old store is put back
FILES = ("-wal", "-shm", "")  # the database itself last: without it there is none to open


class State(msgspec.Struct, frozen=True):
    """Where a recovery stands. `at`: when it began, as the old store's new name has it; `life`: the incarnation that is
    left, the last that was lived here; `code`, `heads`: why, and what the old store showed; `number`: of the backup
    that was put back; `asked`: whether a life was asked for since then."""

    at: str
    life: int
    code: str
    heads: tuple[str, ...] = ()
    step: str = TAKING
    number: int = 0
    asked: bool = False


def state_of(home: Home) -> State | None:
    """Where a recovery stands; None while none is under way. Raises StoreError FN-7619."""
    return files.read(home.recovery, State)


@dataclass(slots=True)
class Plan:
    """What a recovery would do, found out without doing anything. `lsn`, `unsent`: of the old store, None where it
    cannot be read; `restored`: the number of the backup that it goes on from, 0 for none."""

    node: str
    parent: str
    life: int
    code: str
    begun: bool
    lsn: int | None = None
    unsent: int | None = None
    restored: int = 0


@dataclass(slots=True)
class Result:
    """What a recovery did. `aside`: where the old store is, "" when there was none; `number`: of the backup that was
    put back; `newer`: of the newest that is known to have been made, where that is another."""

    node: str = ""
    parent: str = ""
    left: int = 0
    incarnation: int = 0
    taken: int = 0
    bytes_received: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    aside: str = ""
    salvaged: Salvaged = field(default_factory=Salvaged)
    number: int = 0
    newer: int = 0


class Recovery:
    """One home's. Hold its lock (`Home.lock`) around `run`."""

    def __init__(
        self,
        path: Path,
        config: Config,
        *,
        clock: Callable[[], int] = real_clock,
        rng: Callable[[int], bytes] = os.urandom,
        operator: str = DAEMON,
    ) -> None:
        self.home = Home.load(path)
        self._config, self._clock, self._rng, self._operator = config, clock, rng, operator
        self._keys = self.home.keys(config.passphrase)

    # ------------------------------------------------------------ what would be done

    def plan(self) -> Plan:
        """Look, and change nothing. Raises Refused FN-5304 at a province whose own store cannot be gone on from."""
        begun = state_of(self.home)
        me, parent = self._identity(begun)
        if not parent and begun is None:
            self._check_own(me)
        plan = Plan(me.node, parent, begun.life if begun else me.incarnation, begun.code if begun else "", bool(begun))
        plan.restored = begun.number if begun and begun.step == RESTORED else 0
        old = self._aside(begun) if begun and begun.step == SALVAGING else self.home.log_db
        half_moved = begun is not None and begun.step == MOVING  # opened without its journal it would stay without
        if half_moved or plan.restored or not old.exists():
            return plan
        with contextlib.suppress(FednodeError), contextlib.closing(self._open(old)) as store:
            there = fence.standing(store)
            plan.code = plan.code or (there.code if there else "")
            plan.lsn = store.lsn
            peer = store.peer(parent)
            plan.unsent = store.backlog_up(peer.acked if peer else 0).changes if parent else 0
        return plan

    def _identity(self, begun: State | None) -> tuple[Any, str]:
        me = certs.parse(self.home.chain()[0])
        return me, "" if me.issuer == certs.ROOT else me.issuer

    def _check_own(self, me: Any) -> None:
        """The province's own store is there, and all that it holds verifies, but for bytes that were damaged."""
        try:
            with contextlib.closing(self._open(self.home.log_db)) as store:
                problems = verify_store(store, Trust.load(store, self.home.chain(), me.node)).problems
        except FednodeError as error:
            raise Refused("FN-5304", node=me.node) from error
        if any(one.code != DAMAGED for one in problems):
            raise Refused("FN-5304", node=me.node)

    def _open(self, path: Path) -> Store:
        return Store.open(path, stash_key=self._keys.stash_key)

    def _load(self, home: Home) -> App:
        return App.load(home, self._config, clock=self._clock, rng=self._rng, operator=self._operator)

    # ------------------------------------------------------------ the steps

    def run(self, root_key: TlsKey | None = None) -> Result:
        """Begin, or go on. `root_key`: for a province, where it does not lie in its home. Raises Unavailable (the
        parent is away: run it again), PeerError (it refuses), StoreError, Refused FN-5304, FN-5331 (the province needs
        the root key), FN-5309 (this is another)."""
        plan = self.plan()
        begun = state_of(self.home)
        if begun is None and not plan.parent:
            self._check_root_key(plan, root_key)
        state = begun or self._begin(plan)
        result = Result(plan.node, plan.parent, state.life, number=state.number)
        if state.step == SETTLING:
            self._settle(state)
            state = self._keep(state, RESTORED)
        if state.step == RESTORED:
            self._go_on(state, result, root_key)
            self.home.recovery.unlink()
            return result
        if state.step == TAKING:
            self._take(state, result)
            state = self._keep(state, MOVING)
        if state.step == MOVING:
            self._move(state)
            state = self._keep(state, SALVAGING)
        self._salvage(state, result)
        files.remove(self.home.recovery)
        return result

    def _begin(self, plan: Plan) -> State:
        now = iso(self._clock() // 1000).replace("-", "").replace(":", "")
        heads: tuple[str, ...] = ()
        life = plan.life
        with contextlib.suppress(FednodeError, OSError), contextlib.closing(self._open(self.home.log_db)) as store:
            there = fence.standing(store)
            heads = there.heads if there else ()
            if plan.parent:  # which may have let it in anew without having heard of its later lives (FN-5519)
                life = max([life, *(name.incarnation for _, name, _ in store.logs() if name.origin == plan.node)])
        return self._keep(State(now, life, plan.code, heads), TAKING if plan.parent else SETTLING)

    def _keep(self, state: State, step: str) -> State:
        state = msgspec.structs.replace(state, step=step)
        self.home.write_recovery(msgspec.json.encode(state))
        return state

    # ------------------------------------------------------------ the province, from what it has

    def _check_root_key(self, plan: Plan, root_key: TlsKey | None) -> None:
        """Before anything is done: without it the new life cannot begin."""
        key = root_key or self.home.root_key(self._config.passphrase)
        if key is None:
            raise Refused("FN-5331", node=plan.node)
        if key.public_der != certs.parse(self.home.chain()[-1]).tls_key:
            raise Refused("FN-5309", node=plan.node)

    def _settle(self, state: State) -> None:
        with contextlib.closing(self._open(self.home.log_db)) as store, store.write() as tx:
            me = certs.parse(self.home.chain()[0])
            another(tx, me, self._rng(16), store.lsn, state.code or "FN-7625", self._clock())

    # ------------------------------------------------------------ taking

    def _take(self, state: State, result: Result) -> None:
        new = self._new_store(state)
        home = Home(self.home.path)
        home.log_db = new
        app = self._load(home)
        try:
            while (known := app.trust.me.incarnation) <= state.life:
                asyncio.run(syncing.new_life(app, known))
            report = asyncio.run(syncing.take_back(app))
            result.taken, result.bytes_received = report.received, report.bytes_received
            result.refused = report.refused
            peer = app.store.peer(result.parent)
            if peer is None:
                raise StoreError("FN-7607", path=str(app.store.path), reason="peer")
            with app.store.write() as tx:
                note_restored(tx, peer)
            _lift(app, 0)
        finally:
            app.close()

    def _new_store(self, state: State) -> Path:
        path, unmade = self.home.path / NEW, self.home.path / UNMADE
        if not path.exists():
            for suffix in FILES:
                unmade.with_name(unmade.name + suffix).unlink(missing_ok=True)
            store = Store.create(unmade, store_id=self._rng(16), stash_key=self._keys.stash_key)
            with store.write() as tx:  # nothing is written in the old life
                fence.put_up(tx, certs.parse(self.home.chain()[0]), state.code or "FN-7625", self._clock())
            store.close()
            files.move(unmade, path)
        return path

    # ------------------------------------------------------------ from a backup

    def _go_on(self, state: State, result: Result, root_key: TlsKey | None) -> None:
        from fednode.node import succession

        app = self._load(self.home)
        try:
            if app.trust.parent is None:
                if app.trust.me.incarnation == state.life:
                    succession.next_life(app, root_key)
            else:
                self._new_life(app, state)
            since = app.store.lsn // NUMBERS * NUMBERS  # all that was given out since the backup was put back
            if app.trust.parent is not None:
                report = asyncio.run(syncing.take_back(app))
                result.taken, result.bytes_received = report.received, report.bytes_received
                result.refused = report.refused
            _lift(app, since)
            again = succession.begin_life(app)
            result.salvaged.appended, result.incarnation = again, app.trust.me.incarnation
            result.newer = newest_told(app, since, state.number)
            told: dict[str, Any] = {"left": state.life, "incarnation": result.incarnation, "taken": result.taken}
            if state.number:
                app.journal().event("restore", number=state.number, **told, again=again)
            else:
                app.journal().event("recover", code=state.code, **told, appended=again)
        finally:
            app.close()

    def _new_life(self, app: App, state: State) -> None:
        """A life that no other installation has had. The first that is given may be the one in which this node went on
        since the backup was made (who asks again gets the same): it is left, too."""
        if not state.asked:
            if app.trust.me.incarnation == state.life:
                asyncio.run(syncing.new_life(app, state.life))
            state = msgspec.structs.replace(state, life=app.trust.me.incarnation, asked=True)
            self._keep(state, state.step)
        if app.trust.me.incarnation == state.life:
            asyncio.run(syncing.new_life(app, state.life))

    # ------------------------------------------------------------ moving

    def _aside(self, state: State) -> Path:
        return self.home.path / f"{LOG_DB}.before-recover-{state.at}"

    def _move(self, state: State) -> None:
        """The old store's files aside, then the new one in its place; what was done before the power went is not done
        again."""
        new, there, aside = self.home.path / NEW, self.home.log_db, self._aside(state)
        if not new.exists():
            return
        self._open(new).close()  # whoever closes a database last folds its journal into it
        try:
            for suffix in FILES:
                if there.with_name(there.name + suffix).exists():
                    files.move(there.with_name(there.name + suffix), aside.with_name(aside.name + suffix))
            files.move(new, there)
        except OSError as error:
            raise StoreError("FN-7617", path=str(there), reason=error.strerror or str(error)) from error

    # ------------------------------------------------------------ salvaging

    def _salvage(self, state: State, result: Result) -> None:
        app = self._load(self.home)
        try:
            writer = app.new_writer(app.store)
            aside = self._aside(state)
            if aside.exists():
                result.aside = str(aside)
                result.salvaged = self._take_over(aside, writer)
            result.incarnation = app.trust.me.incarnation
            self._tell(app, writer, state, result)
        finally:
            app.close()

    def _take_over(self, aside: Path, writer: Any) -> Salvaged:
        try:
            old = self._open(aside)
        except FednodeError:  # too much damage to read anything
            return Salvaged(whole=False)
        with contextlib.closing(old):
            return Salvage(old, writer).run()

    @staticmethod
    def _tell(app: App, writer: Any, state: State, result: Result) -> None:
        """The audit has it with the fence's code, those above hear of it with what the old store showed."""
        journal, done = app.journal(writer), result.salvaged
        journal.event(
            "recover",
            code=state.code,
            left=state.life,
            incarnation=result.incarnation,
            taken=result.taken,
            appended=done.appended,
            below=done.below,
            skipped=len(done.skipped),
            damaged=done.damaged,
        )
        if state.code:
            params = {"node": app.trust.node, "left": state.life, "incarnation": result.incarnation}
            journal.alert(state.code, app.trust.node, params, state.heads)


def next_numbers(lsn: int) -> int:
    """The first arrival number that a store which had come so far once cannot have given out since."""
    return (lsn // NUMBERS + 1) * NUMBERS


def another(tx: Transaction, me: Any, store_id: bytes, lsn: int, code: str, now_ms: int) -> None:
    """Make an old store another one: with an id of its own, arrival numbers that were never given out, and a fence."""
    tx.set_meta("store_id", store_id)
    tx.set_meta("lsn", next_numbers(lsn))
    tx.execute("delete from meta where key like 'backup/%' or key in (?, ?)", clocks.OFFSET, clocks.ANCHOR)
    # what earlier lives left to do was done by this very store: its numbers are those that count
    made_again = "select coalesce(max(lsn), 0) from held_back"
    tx.execute(f"insert or replace into meta values (?, ({made_again}))", salvage.META)
    fence.put_up(tx, me, code, now_ms)


def _lift(app: App, since: int) -> None:
    """The history is here, and in it that this node has a new life: only now it writes in that, for who gets what it
    writes must have heard of it. First of all, receipts of what was stripped meanwhile; and whoever lacks a key of what
    has come is given it."""
    writer = app.new_writer(app.store)
    with app.store.write() as tx:
        fence.lift(tx)
        tx.set_meta(GATHERS, 1)
        writer.rewrapping.anew(tx)
    writer.tell_stripped(since)


def newest_told(app: App, after: int, number: int) -> int:
    """The number of the newest backup that this node's own events tell of among what was taken back, where it is not
    the one that was put back; else 0."""
    newest = 0
    while held := app.store.segments(after, EVENTS_AT_ONCE, dataset=AUDIT):
        for one in held:
            columns = app.store.columns(one) if one.name.origin == app.trust.node else None
            for position, payload in enumerate(columns.payloads if columns else ()):
                if columns is None or position in columns.leaves or b'"backup"' not in payload:
                    continue
                event = msgspec.json.decode(payload)
                if event.get("action") == "backup" and event.get("outcome") == DONE:
                    newest = max(newest, int(event["details"]["number"]))
        after = held[-1].lsn
    return newest if newest > number else 0
