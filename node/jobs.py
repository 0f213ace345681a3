"""The jobs of a node: what there is, what became of each, and how one is run by hand.

Rules
1. What became of a job is in a small file of the run folder (`run/jobs/NAME.json`), so that a command sees it beside
   the daemon and without one. It may be lost: nothing rests on it.
2. One runs at a time: whoever runs a job holds its lock, which the kernel lets go when the process dies. The daemon
   leaves a job out that is run by hand; by hand it is refused (FN-7635) while the daemon is at it.
3. A job that found nothing to do (`IDLE`) leaves its last run as it was. What runs every few seconds is noted every
   half a minute.

>>> [job.name for job in JOBS][:9]
['watch', 'sync', 'renewal', 'scrub', 'retention', 'cleaning', 'backup', 'drill', 'health']
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from fednode.crypto.errors import FednodeError
from fednode.node import drills, files, retention, scrub
from fednode.node.config import Config
from fednode.node.erasing import clean
from fednode.node.journal import DONE, FAILED, REFUSED
from fednode.node.table_scrub import Tables
from fednode.node.timetable import Timetable, parse_duration, parse_limit, parse_rate, parse_span, rate_at
from fednode.node.withdrawal import day_of
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, Refused, StoreError

if TYPE_CHECKING:
    from fednode.node.app import App

IDLE = "idle"
T = TypeVar("T")
KEEP_MS = 30_000
WATCH_S = 1.0
STATE_BYTES_MAX = 16 * 1024


@dataclass(frozen=True, slots=True)
class Job:
    """`setting`: what says how often ("" where nothing does)."""

    name: str
    setting: str = ""

    def seconds(self, config: Config) -> float:
        """How often it runs."""
        return float(parse_duration(getattr(config, self.setting))) if self.setting else WATCH_S


JOBS = (
    Job("watch"),
    Job("sync"),
    Job("renewal", "jobs_renewal"),
    Job("scrub", "jobs_scrub"),
    Job("retention", "jobs_retention"),
    Job("cleaning", "jobs_cleaning"),
    Job("backup", "jobs_backup"),
    Job("drill", "jobs_drill"),
    Job("health", "health_interval"),
    Job("alerts", "alerts_every"),
    Job("coverage", "alerts_coverage"),
    Job("notify", "alerts_every"),
)
OF_A_CHILD = ("sync", "renewal")
BY_NAME = {job.name: job for job in JOBS}


def exists(job: Job, app: App) -> bool:
    """Whether this node has such a job: the province has no parent to meet, a scrub may be switched off, backups need a
    place and a key."""
    if job.name in OF_A_CHILD:
        return app.trust.parent is not None
    if job.name == "backup":
        return bool(app.config.backup_to and app.config.backup_key)
    if job.name == "notify":
        return bool(app.config.alerts_webhooks or (app.config.alerts_smtp and app.config.alerts_mail_to))
    if job.name == "drill":
        rehearses = app.trust.me.stands_for or (app.home.path / drills.FOLDER).is_dir()
        return bool(rehearses and app.config.drill_days)
    return job.name != "scrub" or bool(app.config.scrub_days)


def spread(seconds: float, percent: int, rng: Callable[[int], bytes]) -> float:
    """So many seconds, give or take so many per cent. `rng`: random bytes."""
    return seconds * (1 + percent / 100 * (int.from_bytes(rng(4), "big") / (1 << 31) - 1))


def outcome_of(error: Exception) -> str:
    """How a job, or an exchange, ended that an error ended."""
    return REFUSED if isinstance(error, Refused | PeerError) else FAILED


# ---------------------------------------------------------------- what became of them


class State(msgspec.Struct):
    """A job's last run and its next; times are Unix milliseconds by the corrected clock, 0 for never or not known."""

    began_ms: int = 0
    took_ms: int = 0
    outcome: str = ""
    code: str = ""
    by: str = ""
    next_ms: int = 0


class Ledger:
    """What became of the jobs of one home. `who`: runs them."""

    def __init__(self, run_dir: Path, who: str) -> None:
        self._folder, self._who = run_dir / "jobs", who
        self._kept: dict[str, int] = {}
        with contextlib.suppress(OSError):  # a read-only folder: the jobs run all the same
            self._folder.mkdir(mode=0o700, exist_ok=True)

    def read(self, name: str) -> State:
        """What is known of a job; what cannot be read is nothing."""
        try:
            with (self._folder / f"{name}.json").open("rb") as file:
                return msgspec.json.decode(file.read(STATE_BYTES_MAX), type=State)
        except (OSError, *files.UNREADABLE):
            return State()

    def plan(self, name: str, next_ms: int) -> None:
        """When a job runs next."""
        state = self.read(name)
        state.next_ms = next_ms
        self._write(name, state)

    def note(
        self, name: str, began_ms: int, took_ms: int, outcome: str = "", code: str = "", next_ms: int | None = None
    ) -> None:
        """A job has run. `outcome`: done where empty; `IDLE` moves only the next time."""
        before = self.read(name)
        planned = before.next_ms if next_ms is None else next_ms
        same = (before.began_ms, before.took_ms, before.outcome, before.code, before.by)
        if outcome != IDLE:
            same = (began_ms, took_ms, outcome or DONE, code, self._who)
        if same[2:] == (before.outcome, before.code, before.by) and 0 <= began_ms - self._kept.get(name, 0) < KEEP_MS:
            return
        self._kept[name] = began_ms
        self._write(name, State(*same, planned))

    def _write(self, name: str, state: State) -> None:
        with contextlib.suppress(OSError):  # rule 1: the disk may be full
            files.jot(self._folder / f"{name}.json", msgspec.json.encode(state))

    @contextmanager
    def turn(self, name: str) -> Iterator[bool]:
        """Hold a job's lock; False where somebody else does. Where no lock can be made, there is nobody else."""
        try:
            descriptor = files.lock_file(self._folder / f"{name}.lock")
        except OSError:
            yield True
            return
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


# ---------------------------------------------------------------- by hand


def retain(app: App, now_ms: int) -> dict[str, Any]:
    """Retention by the catalog, in whatever thread. Raises Refused FN-5303 behind the fence."""
    records = app.records(app.new_store())
    try:
        report = retention.run_daily(records, now_ms)
        with records.store.write() as tx:
            tx.set_meta("retention_day", day_of(now_ms).isoformat())
        return {"versions": report.versions, "segments": report.segments}
    finally:
        records.close()
        records.store.close()


def clean_up(app: App) -> dict[str, Any]:
    """Write the files anew where something was stripped, large ones too."""
    store = app.new_store()
    projector = app.new_projector(store)
    try:
        was = bool(store.meta("unclean", 0)) or bool(projector.unclean)
        clean(store, projector, thorough=True)
        still = bool(store.meta("unclean", 0)) or bool(projector.unclean)
        return {"unclean": was, "left": still}
    finally:
        projector.close()
        store.close()


def save(app: App, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Back the node up as the settings say, in whatever thread. `stop`: whether to give up; the next one goes on. The
    audit hears of a failure."""
    from fednode.node.backup.acting import back_up

    try:
        made = back_up(app, stop=stop)
    except FednodeError as error:
        store = app.new_store()
        app.journal(app.new_writer(store)).befell("backup", outcome_of(error), code=error.code)
        store.close()
        raise
    return {"number": made.number, "lsn": made.lsn, "bytes": made.bytes, "kept": made.kept}


def _scrub(app: App) -> dict[str, Any]:
    if not app.config.scrub_days:
        raise Refused("FN-3704", job="scrub", setting="scrub_days")
    from time import monotonic

    tables = Tables(app.store, app.home.state_db, app.trust)
    place = (app.store, app.trust.directory, app.trust.node, app.config.scrub_days)
    one = scrub.Scrub(*place, lambda: monotonic() * 1000, tables)
    before = one.state.done
    problems = one.step(app.now_ms())
    one.mend(app.store, problems)
    scrub.save(app.store, one.state)
    for found in problems:
        told = {"log": found.log, "first": found.first, "end": found.end}
        app.journal().alert(found.code, app.trust.node, told)
    return {"changes": max(0, one.state.done - before), "problems": len(problems)}


def _sync(app: App) -> dict[str, Any]:
    from fednode.node import syncing

    report = asyncio.run(syncing.sync_once(app))
    return {"acked": report.acked, "received": report.received, "pending": report.pending}


def _renew(app: App) -> dict[str, Any]:
    """An exchange asks for a certificate as soon as two thirds of its life are over; before that there is nothing to
    do."""
    due = renewal_due(app.trust.me, app.now_s)
    if due:
        _sync(app)
    return {"due": due, "valid_to_s": app.trust.me.not_after}


def note_drills(app: App) -> dict[str, Any]:
    """What was rehearsed since goes into the audit; what is overdue is an alert."""
    store = app.new_store()
    try:
        return drills.note(app, app.new_writer(store))
    finally:
        store.close()


def look_at_health(app: App) -> dict[str, Any]:
    """Make this node's own report now."""
    from fednode.node.lag import Samples
    from fednode.node.mesh.watcher import Keeping

    store = app.new_store()
    keeping = Keeping(app, store)
    try:
        keeping.look(Samples())
        return {"reports": keeping.table.place().upto}
    finally:
        keeping.close()
        store.close()


def look_at_alerts(app: App) -> dict[str, Any]:
    """Open and close the alerts that the rules call for."""
    from fednode.node.alerting import raising
    from fednode.node.alerting.local import Local

    with closing(Local.open(app.home.alerts_db)) as local, closing(app.new_store()) as store:
        plan = raising.look(app, local, serving=app.home.running())
        done = raising.carry_out(app, app.new_writer(store), plan)
        raising.settle(local, plan)
        return done


def survey(app: App) -> dict[str, Any]:
    """Look at the areas, for the rules about them."""
    from fednode.node.alerting import raising
    from fednode.node.alerting.local import Local

    with closing(Local.open(app.home.alerts_db)) as local:
        return raising.survey(app, local)


def notify(app: App) -> dict[str, Any]:
    """Tell the targets of the settings what has opened and closed."""
    from fednode.node.alerting import outbox
    from fednode.node.alerting.targets import attempt
    from fednode.node.schedule import letter_wait_s

    return outbox.deliver(app, lambda to, what: attempt(to, what, app.config, app.now_s), letter_wait_s)


_RUN: dict[str, Callable[[App], dict[str, Any]]] = {
    "watch": lambda app: {"told": app.poke()},
    "sync": _sync,
    "renewal": _renew,
    "scrub": _scrub,
    "retention": lambda app: retain(app, app.reference.certain_ms()),
    "cleaning": clean_up,
    "backup": save,
    "drill": note_drills,
    "health": look_at_health,
    "alerts": look_at_alerts,
    "coverage": survey,
    "notify": notify,
}


def run_by_hand(app: App, name: str, seconds: Callable[[], float]) -> dict[str, Any]:
    """Run a job now, in this process, beside a daemon or without one. What it found. Raises Refused FN-3704
    (it is switched off), StoreError FN-7635 (it is running), FN-7621 (no parent), and what the job itself raises."""
    job = BY_NAME[name]
    if not exists(job, app) and app.trust.parent is None and name in OF_A_CHILD:
        raise StoreError("FN-7621")
    found = turn_by_hand(app, name, seconds, lambda: _RUN[name](app))
    app.poke()
    return found


def turn_by_hand(app: App, name: str, seconds: Callable[[], float], work: Callable[[], T]) -> T:
    """Do a job's work in its turn, and note how it ended. Raises StoreError FN-7635 (it is running)."""
    ledger = Ledger(app.home.run_dir, app.operator)
    with ledger.turn(name) as free:
        if not free:
            raise StoreError("FN-7635", job=name)
        began_ms, began_s = app.now_ms(), seconds()
        try:
            found = work()
        except FednodeError as error:
            ledger.note(name, began_ms, round((seconds() - began_s) * 1000), outcome_of(error), error.code)
            raise
        ledger.note(name, began_ms, round((seconds() - began_s) * 1000))
    return found


def windows(config: Config) -> Timetable:
    """When the daemon uses the line to the parent."""
    return Timetable([parse_span(one) for one in config.sync_windows], config.sync_zone)


def limit(config: Config, now_ms: int) -> int:
    """What an exchange with the parent may use of the line now, bits per second; 0: all of it."""
    return rate_at(
        [parse_limit(one) for one in config.sync_limits], parse_rate(config.sync_limit), config.sync_zone, now_ms
    )


def window(app: App) -> dict[str, Any]:
    """How the sync windows stand, and what of the line may be used, by the corrected clock."""
    table, now_ms = windows(app.config), app.now_ms()
    until_ms = table.open_until(now_ms)
    return {
        "windows": list(app.config.sync_windows),
        "zone": app.config.sync_zone,
        "open": until_ms is not None,
        "until_ms": until_ms if table.spans else None,
        "next_open_ms": table.next_open(now_ms),
        "limit_bit_s": limit(app.config, now_ms) or None,
    }


def listing(app: App) -> list[dict[str, Any]]:
    """Every job of this node, as `fednode jobs` shows it. Of `sync` the last run is the last exchange, whoever made it,
    the next one the next window."""
    ledger = Ledger(app.home.run_dir, app.operator)
    running = app.home.running()
    found = []
    for job in JOBS:
        if not exists(job, app):
            continue
        state = ledger.read(job.name)
        one: dict[str, Any] = {
            "name": job.name,
            "setting": job.setting,
            "every_s": job.seconds(app.config),
            "next_ms": state.next_ms or None if running else None,
            "last_ms": state.began_ms or None,
            "took_ms": state.took_ms if state.began_ms else None,
            "outcome": state.outcome or None,
            "code": state.code or None,
            "by": state.by or None,
        }
        if job.name == "sync":
            one |= _sync_line(app, running)
        found.append(one)
    return found


def _sync_line(app: App, running: bool) -> dict[str, Any]:
    parent = app.trust.parent
    peer = app.store.peer(parent.node) if parent is not None else None
    stands = window(app)
    outcome = None if peer is None or (peer.last_ms is None and not peer.last_error) else DONE
    code = peer.last_error if peer is not None else None
    return {
        "setting": "sync_windows",
        "every_s": None,
        "windows": stands["windows"],
        "zone": stands["zone"],
        "open": stands["open"],
        "next_ms": None if stands["open"] or not running else stands["next_open_ms"],
        "last_ms": peer.last_ms if peer is not None else None,
        "outcome": FAILED if code else outcome,
        "code": code,
    }
