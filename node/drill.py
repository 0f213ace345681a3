"""The rehearsal of a promotion, on a copy aside: what a standby is worth, before it is needed.

    copy -> what is new verified, then every log -> records made again, compared with the primary's
         -> shadow promoted, served -> shadow child joins, writes, is acknowledged -> report

Rules
1. Nothing of production is written, and nothing is sent: log.db and state.db are read through connections that cannot
   write, all else happens in a folder of the drill's own (`fednode.node.shadow`). What the files were before and after
   is in the report.
2. A step that fails ends the drill; the report has it all the same. What was found wrong is not repaired.
3. RPO is what the primary had and this node had not, as the primary said last. RTO is the time from the decision until
   a child is acknowledged: what came since the last verification verified, the name taken, served, a child joined.
   Copying, verifying all, and making the records again are rehearsal, and counted apart.

>>> # report, folder = Drill(home, config, real_clock, monotonic, os.urandom, "alice").run()
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import platform
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fednode.crypto import certs
from fednode.crypto.certs import iso
from fednode.crypto.errors import FednodeError
from fednode.crypto.suite import SUITE_1
from fednode.node import audit, digests, lag, rewraps, shadow, sqlite, succession, syncing
from fednode.node.config import Config
from fednode.node.daemon import Daemon
from fednode.node.drills import COPIES, FAILED, FOLDER, LEFT_OUT, PASSED, VERSION, Report, Step
from fednode.node.home import Home, NodeKeys, held
from fednode.node.projection import Projector
from fednode.node.records import digest_of
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.sync.change import SYSTEM_PREFIX, Change
from fednode.sync.errors import StoreError

PRODUCTION = ("log.db", "log.db-wal", "state.db", "state.db-wal", "chain.pem", "root.pem", "addresses", "config.toml")
DATABASES = PRODUCTION[:4]


# ---------------------------------------------------------------- one drill


@dataclass(slots=True)
class Drill:
    """One home's. `clock`: Unix milliseconds; `seconds`: a clock that only runs; `progress` is told each step."""

    home: Home
    config: Config
    clock: Callable[[], int]
    seconds: Callable[[], float]
    rng: Callable[[int], bytes]
    by: str
    progress: Callable[[str], None] = lambda step: None
    _keys: NodeKeys = field(init=False)
    _report: Report = field(init=False)
    _folder: Path = field(init=False)

    def run(self, out: Path | None = None, *, keep: bool = False) -> tuple[Report, Path]:
        """The report, and the folder where it lies. `out`: the folder, where not one of the home's; `keep`: with the
        copies. Raises StoreError FN-7641 (no room), FN-7617; what a step finds is in the report."""
        self._keys = self.home.keys(self.config.passphrase)
        self._report = self._begin()
        stamp = iso(self._report.at_ms // 1000).replace("-", "").replace(":", "")
        self._folder = out or self.home.path / FOLDER / stamp
        self._check_room()
        before = self._digests()
        try:
            self._copies.mkdir(parents=True, mode=0o700)
        except OSError as error:
            raise StoreError("FN-7617", path=str(self._folder), reason=error.strerror or str(error)) from error
        with held(self._copies):
            try:
                self._steps()
            finally:
                if not keep:
                    shutil.rmtree(self._copies, ignore_errors=True)
        self._end(before)
        return self._report, self._folder

    @property
    def _copies(self) -> Path:
        return self._folder / COPIES

    def _begin(self) -> Report:
        chain = self.home.chain()
        me, root = certs.parse(chain[0]), chain[-1]
        return Report(
            *(VERSION, self.clock(), me.node, me.name, me.stands_for, me.incarnation, me.domain),
            *(SUITE_1.hash(root).hex(), shadow.Shadow.software, platform.node(), self.by, self.home.running()),
        )

    def _check_room(self) -> None:
        needed = 2 * sum(path.stat().st_size for path in self._production(DATABASES))
        there = next(path for path in (self._folder, *self._folder.absolute().parents) if path.is_dir())
        free = shutil.disk_usage(there).free
        if free < needed:
            raise StoreError("FN-7641", path=str(self._folder), free=free, needed=needed)

    def _production(self, names: tuple[str, ...]) -> list[Path]:
        keys = sorted(self.home.keys_dir.glob("*.pem")) if names == PRODUCTION else []
        return [path for path in (*(self.home.path / name for name in names), *keys) if path.is_file()]

    def _digests(self) -> dict[str, str]:
        """SHA-256 of the production files."""
        found = {}
        for path in self._production(PRODUCTION):
            with path.open("rb") as file:
                found[str(path.relative_to(self.home.path))] = hashlib.file_digest(file, "sha256").hexdigest()
        return found

    def _end(self, before: dict[str, str]) -> None:
        report, after = self._report, self._digests()
        report.files = {name: (before.get(name, ""), after.get(name, "")) for name in sorted({*before, *after})}
        written = report.daemon  # a daemon goes on writing its databases
        same = all(one == two for name, (one, two) in report.files.items() if not (written and name in DATABASES))
        report.steps.append(Step("untouched", PASSED if same else FAILED, found={"files": len(report.files)}))
        report.passed = all(step.outcome != FAILED for step in report.steps)

    # ------------------------------------------------------------ the steps

    def _steps(self) -> None:
        with contextlib.suppress(_FailedError):
            with self._step("copy") as step:
                step.found = self._copy()
            store = Store.open(self._shadow / "log.db", stash_key=self._keys.stash_key)
            try:
                real = Trust.load(store, self.home.chain(), self._report.node)
                self._lag(real)
                with self._step("new") as step:
                    step.found = self._verify(store, real, full=False)
                with self._step("verify") as step:
                    step.found = self._verify(store, real)
                with self._step("records") as step:
                    step.found = self._compare(store, real, step)
            finally:
                store.close()
            asyncio.run(self._promote(real))

    @property
    def _shadow(self) -> Path:
        return self._copies / "parent"

    @contextlib.contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        self.progress(name)
        step, began = Step(name), self.seconds()
        self._report.steps.append(step)
        try:
            yield step
        except FednodeError as error:
            step.outcome, step.code = FAILED, error.code
            step.params = {key: str(value)[:200] for key, value in error.params.items()}
        finally:
            step.took_s = round(self.seconds() - began, 3)
        if step.outcome == FAILED:
            raise _FailedError

    def _copy(self) -> dict[str, Any]:
        self._shadow.mkdir(mode=0o700)
        found = {}
        for name in ("log.db", "state.db"):
            source = self.home.path / name
            if source.is_file():
                sqlite.copy(source, self._shadow / name)
                found[name] = (self._shadow / name).stat().st_size
        return found

    def _lag(self, real: Trust) -> None:
        """What would be lost with the primary, by its own last word."""
        me = real.me
        if not me.stands_for:
            self._report.rpo_changes, self._report.rpo_ms = 0, 0
            return
        word = lag.read(self.home.run_dir).get(me.stands_for, lag.Word())
        store = Store.read(self._shadow / "log.db", stash_key=self._keys.stash_key)
        try:
            peer = store.peer(me.stands_for)
        finally:
            store.close()
        now_ms = max(self.clock(), word.at_ms)  # a word may come while the copy is made
        told = lag.of_myself(word, self._report.daemon, peer.last_ms if peer else None, now_ms)
        self._report.rpo_changes, self._report.rpo_ms = told

    def _verify(self, store: Store, real: Trust, *, full: bool = True) -> dict[str, Any]:
        report = audit.verify_store(store, real, full=full)
        if report.problems:
            one = report.problems[0]
            raise StoreError("FN-7642", count=len(report.problems), log=one.log, first=one.first, code=one.code)
        counts = ("logs", "segments", "changes", "carried", "stripped")
        return {name: getattr(report, name) for name in counts}

    def _compare(self, store: Store, real: Trust, step: Step) -> dict[str, Any]:
        """The records made again from the log, and compared: at a standby with what its primary has told, elsewhere
        with the node's own table."""
        known, upto = self._reference(store, real)
        projector = Projector(self._copies / "again.db", store, real)
        try:
            projector.upto = upto
            projector.catch_up()
            found = digest_of(projector.connection)
        finally:
            projector.close()
        told: dict[str, Any] = {"records": found.records, "digest": found.digest}
        if known is None or upto is None:
            step.outcome = LEFT_OUT if real.me.stands_for else PASSED
            return told
        told |= {"theirs": known.records, "their_digest": known.digest, "at_ms": known.at_ms, "lsn": known.lsn}
        if (known.records, known.digest) != (found.records, found.digest):
            raise StoreError("FN-7643", ours=found.records, theirs=known.records, lsn=known.lsn)
        return told

    def _reference(self, store: Store, real: Trust) -> tuple[digests.Known | None, int | None]:
        if real.me.stands_for:
            known = digests.read(self.home.run_dir)
            return known, None if known is None else digests.place(store, real.me.stands_for, known)
        if not (self._shadow / "state.db").is_file():
            return None, None
        table = sqlite.connect(self._shadow / "state.db", synchronous="NORMAL", readonly=True)
        try:
            row = table.execute("select value from meta where key = 'lsn'").fetchone()
            found, lsn = digest_of(table), int(row[0]) if row else 0
        finally:
            table.close()
        return digests.Known(store.store_id.hex(), lsn, self._report.at_ms, found.records, found.digest), lsn

    # ------------------------------------------------------------ the shadow

    async def _promote(self, real: Trust) -> None:
        with self._step("promote") as step:
            app = shadow.parent(self._shadow, real, self._keys.seal, self.clock, self.rng)
            again = succession.settle(app)
            step.found = {"incarnation": app.trust.me.incarnation, "again": again, "root": app.trust.root_sha256.hex()}
        try:
            await self._serve(app)
        finally:
            app.close()
        of_rto = [one.took_s for one in self._report.steps if one.name in ("new", "promote", "serve", "child")]
        self._report.rto_s = round(sum(of_rto), 3)

    async def _serve(self, app: shadow.Shadow) -> None:
        ready, daemon = asyncio.Event(), Daemon(app)
        with self._step("serve") as step:
            running = asyncio.create_task(daemon.run(lambda port, enrol_port: ready.set()))
            waiting = asyncio.create_task(ready.wait())
            await asyncio.wait({running, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if running.done():
                waiting.cancel()
                running.result()
            step.found = {"listen": app.config.listen}
        try:
            await self._child(app)
        finally:
            daemon.stop()
            await running

    async def _child(self, app: shadow.Shadow) -> None:
        plays = shadow.part(app.trust)
        if plays is None:
            self._report.steps.append(Step("child", LEFT_OUT))
            return
        with self._step("child") as step:
            child = await shadow.child(self._copies / "child", app, plays)
            try:
                written = _write(child, app)
                report = await syncing.sync_once(child)
                step.found = {"node": plays.node, "real": plays.real, "written": written, "acked": report.acked}
                step.found |= {"received": report.received}
                if (refused := _refused(child)) or report.pending or not _cosigned(child):
                    raise StoreError("FN-7644", refused=refused, pending=report.pending)
            finally:
                child.close()


class _FailedError(Exception):
    """A step has failed: the drill is over."""


def _write(child: shadow.Shadow, parent: shadow.Shadow) -> int:
    """The child writes one of its records again, as it is: nothing else would be valid for certain. How many it was:
    none where it has no record; then what it says of itself has to do."""
    projector = parent.new_projector(parent.store)
    try:
        rows = projector.connection.execute(
            """select d.name, r.key, r.payload, a.code from record r join dataset d on d.id = r.dataset
               join area a on a.id = r.area where r.op = 1 and a.code like ? order by r.id limit 100""",
            (f"{child.trust.area}%",),
        ).fetchall()
    finally:
        projector.close()
    me = child.trust.me
    for dataset, key, payload, area in rows:
        declared = child.trust.dataset(dataset)
        if not dataset.startswith(SYSTEM_PREFIX) and declared is not None and me.level in declared.writers:
            child.new_writer(child.store).local(dataset, area, [Change(key.encode(), payload.encode())])
            return 1
    return 0


def _refused(child: shadow.Shadow) -> int:
    """How many segments one of the two has refused. Rewraps do not count: the keys of this child are new, and it is
    offered what others wrote long ago, which it does not hold."""
    return sum(not one["log"].endswith(rewraps.EVIDENCE) for one in child.store.refused())


def _cosigned(child: shadow.Shadow) -> bool:
    """Whether all that the child wrote has its parent's signature."""
    rows = child.store.rows(
        """select count(*) from segment s join log l on l.id = s.log_id
           where l.origin = ? and s.first_time is null""",
        child.trust.node,
    )
    return int(rows[0][0]) == 0
