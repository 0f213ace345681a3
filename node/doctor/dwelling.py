"""The home: its files, who may read them, keys, certificate, both databases, the daemon, and whether it may write.

>>> missing(Path("/nonexistent"))[0]
'chain.pem'
"""

from __future__ import annotations

import pwd
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from fednode.crypto.errors import IntegrityError
from fednode.node import audit, fence, scrub, sqlite, waiting
from fednode.node.checker import Checker
from fednode.node.clocks import Judge
from fednode.node.config import SECRETS
from fednode.node.doctor.finding import Fault, Finding, Span, failure, ok, warning
from fednode.node.doctor.scene import LOOK_S, Scene
from fednode.node.home import CHAIN, CONFIG, LOG_DB, ROOT_CERTIFICATE, Home
from fednode.node.schema import lacking, log_migrations, state_migrations
from fednode.node.status import days_left
from fednode.sync.change import LogName
from fednode.sync.enrol import renewal_due
from fednode.sync.errors import PeerError, StoreError

FILES = (CHAIN, ROOT_CERTIFICATE, LOG_DB, "keys/sign.pem", "keys/seal.pem", "keys/tls.pem")
SQLITE_STEPS = 10_000
NEWEST = 50  # segments that the quick look proves
BEHIND_MANY = 1_000
PROBLEMS_SHOWN = 20


def missing(home: Path) -> list[str]:
    """Files that every home has, and that are not there."""
    return [name for name in FILES if not (home / name).is_file()]


def dwelling(scene: Scene) -> Finding:
    """That a node lives here, whole."""
    home = scene.home
    if not home.path.is_dir() or not any((home.path / name).exists() for name in FILES):
        pending = waiting.load(home.path)
        if pending is not None:
            return failure("doctor.home_waits", node=pending.node, path=str(home.path))
        raise StoreError("FN-7618", path=str(home.path))
    if gone := missing(home.path):
        return failure("doctor.home_broken", path=str(home.path), files=", ".join(gone)).having(missing=gone)
    if home.recovery.exists():
        raise StoreError("FN-7625", path=str(home.path))
    return ok("doctor.home", path=str(home.path)).having(path=str(home.path))


def settings(scene: Scene) -> Finding:
    """That the settings can be read, every one of them."""
    _, origins = scene.settings
    given = sorted(name for name, origin in origins.items() if origin != "default")
    return ok("doctor.settings", count=len(given)).having(given=given)


# ---------------------------------------------------------------- who may read and write


def permissions(scene: Scene) -> Finding:
    """Private keys for nobody else, the rest written by nobody else, all of it by this user."""
    home = scene.home
    owner = home.path.stat().st_uid
    name = _account(owner)
    for path in sorted(home.keys_dir.glob("*.pem")):
        if path.stat().st_mode & 0o077:
            return failure("doctor.keys_open", path=str(home.keys_dir)).having(path=str(path))
    for path in (home.path, home.keys_dir):
        if path.stat().st_mode & 0o022:
            return failure("doctor.home_open", path=str(path)).having(path=str(path))
    if strangers := [one for one in _contents(home) if one.lstat().st_uid != owner]:
        other = _account(strangers[0].lstat().st_uid)
        told: dict[str, Any] = {"path": str(strangers[0]), "other": other, "owner": name, "home": str(home.path)}
        return failure("doctor.owners", **told).having(paths=[str(one) for one in strangers[:PROBLEMS_SHOWN]])
    config = home.path / CONFIG
    if _holds_secret(scene) and config.stat().st_mode & 0o077:
        return warning("doctor.config_open", path=str(config)).having(path=str(config))
    return ok("doctor.permissions", owner=name).having(owner=name)


def _contents(home: Home) -> list[Path]:
    """Files of the home that the node writes."""
    folders = (home.path, home.keys_dir, home.run_dir)
    return sorted(one for folder in folders if folder.is_dir() for one in folder.iterdir() if not one.is_symlink())


def _holds_secret(scene: Scene) -> bool:
    """Whether the settings' file has a secret in it."""
    return any(scene.settings[1][name].startswith("file ") for name in SECRETS)


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


# ---------------------------------------------------------------- keys, certificate


def keys(scene: Scene) -> Finding:
    """That the private keys can be read, with the passphrase where there is one."""
    _ = scene.keys
    locked = scene.config.passphrase is not None
    return ok("doctor.keys_locked" if locked else "doctor.keys").having(passphrase=locked)


def certificate(scene: Scene) -> Finding:
    """The chain up to the root, that the keys fit, until when it holds, whether it was revoked."""
    chain = scene.chain
    me, held = chain[0], scene.keys
    if me.sign_key != held.sign.public or me.tls_key != held.tls.public_der or me.seal_key != held.seal.public:
        raise IntegrityError("FN-6115", node=me.node, path=str(scene.home.path))
    try:
        app = scene.app
    except (StoreError, IntegrityError):  # the store's own check says so
        now_s, judge, revoked = scene.clock() // 1000, Judge(scene.clock() // 1000), False
    else:
        now_s, judge, revoked = app.now_s, app.judge(), app.trust.directory.is_revoked(me.node)
    data = {"node": me.node, "valid_to_s": me.not_after, "days_left": days_left(me.not_after, now_s)}
    told = {"node": me.node, "days": data["days_left"], "issuer": me.issuer}
    if revoked:
        return failure("doctor.certificate_revoked", **told).having(**data)
    try:
        judge.check(chain)
    except PeerError as error:
        return Finding(state="failure", error=error, data=data)
    late = me.not_after - (me.not_after - me.not_before) // 6
    if renewal_due(me, now_s) and now_s > late:
        return warning("doctor.certificate_old", **told).having(**data)
    return ok("doctor.certificate", **told).having(**data)


# ---------------------------------------------------------------- the databases


def store(scene: Scene) -> Finding:
    """log.db: its shape, what the daemon's own verification found, and the newest segments, or with `full` all."""
    held = scene.store
    told: dict[str, Any] = {"changes": audit.size_of_all(held)}
    if older := lacking(held.connection, log_migrations, held.path):
        return warning("doctor.store_older", **told).having(lacking=older)
    through, fault = sqlite.whole(held.connection, SQLITE_STEPS, scene.until(LOOK_S))
    if fault:
        return failure("doctor.store_torn", reason=fault[:200], path=str(held.path))
    known = _told(scrub.load(held).problems)
    found = _all(scene) if scene.full else _newest(scene)
    data = {**told, "whole": through, "full": scene.full}
    if problems := found or known:
        told |= {"count": len(problems), "log": problems[0]["log"], "reason": Fault(problems[0]["code"])}
        return failure("doctor.store_damaged", code=problems[0]["code"], **told).having(
            **data, problems=problems[:PROBLEMS_SHOWN]
        )
    if scene.full:
        return ok("doctor.store_proved", **told).having(**data, problems=[])
    return ok("doctor.store", newest=NEWEST, **told).having(**data, problems=[])


def _all(scene: Scene) -> list[dict[str, Any]]:
    """What does not hold of all that is held: as `fednode audit verify --full` proves it, and nothing is written."""
    whole = audit.Audit(scene.store, scene.app.trust, keep=False)
    report = whole.run(whole.here, scene.progress)
    return _told(report.problems)


def _told(problems: Iterable[audit.Problem]) -> list[dict[str, Any]]:
    return [{"log": one.log, "first": one.first, "end": one.end, "code": one.code} for one in problems]


def _newest(scene: Scene) -> list[dict[str, Any]]:
    """What does not hold of the newest segments: bytes, signatures, certificates."""
    held, trust = scene.store, scene.app.trust
    checker, go_on = Checker(held, trust.directory, trust.node), scene.until(LOOK_S)
    found = []
    rows = held.rows(
        """select s.lsn, l.name, s.first, s.count from segment s join log l on l.id = s.log_id
           order by s.lsn desc limit ?""",
        NEWEST,
    )
    for lsn, name, first, count in rows:
        seen = checker.check(LogName.parse(name), lsn, first, count)
        if seen.code:
            found.append({"log": name, "first": first, "end": seen.end, "code": seen.code})
        if not go_on():
            break
    return found


def tables(scene: Scene) -> Finding:
    """state.db: its shape, and how far it follows. It can always be made again."""
    path, lsn = scene.home.state_db, scene.store.lsn
    if not path.exists():
        return ok("doctor.tables_none") if not lsn else warning("doctor.tables_missing", path=str(path))
    connection = sqlite.look(path)
    try:
        if older := lacking(connection, state_migrations, path):
            return warning("doctor.store_older", changes=0).having(lacking=older)
        through, fault = sqlite.whole(connection, SQLITE_STEPS, scene.until(LOOK_S))
        row = connection.execute("select value from meta where key = 'lsn'").fetchone()
    except sqlite.DatabaseError as error:
        raise sqlite.trouble(error, path) from error
    finally:
        connection.close()
    behind = max(0, lsn - int(row[0] if row else 0))
    if fault:
        return failure("doctor.tables_torn", reason=fault[:200], path=str(path))
    one = warning("doctor.tables_behind", behind=behind) if behind > BEHIND_MANY else ok("doctor.tables", behind=behind)
    return one.having(behind=behind, whole=through)


# ---------------------------------------------------------------- the daemon


def daemon(scene: Scene) -> Finding:
    """Whether it runs."""
    if not scene.running:
        return warning("doctor.daemon_off")
    return ok("doctor.daemon", pid=scene.pid or "?").having(pid=scene.pid)


def standing(scene: Scene) -> Finding:
    """Whether this node may still write, and whether something was refused."""
    app = scene.app
    there = fence.standing(app.store)
    refused = int(app.store.rows("select count(*) from refused")[0][0])
    if there is not None:
        age = Span(max(0, app.now_ms() - there.at_ms))
        words = "doctor.superseded" if there.code in fence.SUPERSEDED else "doctor.fenced"
        return failure(words, code=there.code, age=age).having(fenced=there.code, refused=refused)
    if refused:
        return warning("doctor.refused", count=refused).having(fenced="", refused=refused)
    return ok("doctor.standing").having(fenced="", refused=0)
