"""A support bundle: what a helper far away needs to know of a node, and nothing else.

Rules
1. Allow, do not forbid: each part names the fields that it takes. Of what is in a home and not named here nothing is
   read: no record, no key of a record, no key, no token, no name of a person or of a place, no setting that may be a
   secret. Numbers, codes (FN-...), ids of nodes and datasets, addresses of nodes, versions.
2. A text is taken only where it has a form that a record's does not: a code, an id of a node, a constant of this
   program.
3. Reading is the doctor's: without a trace, beside the daemon and without one. What cannot be read is a part that says
   why, by its code.
4. The list of what is in it is the same whether it is written or only shown.

>>> code_of("FN-4506"), code_of("911300000000000000"), node_of("1301"), node_of("石家庄")
('FN-4506', '', '1301', '')
"""

from __future__ import annotations

import gzip
import io
import os
import platform
import re
import sys
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from typing import Any

import msgspec

import fednode
from fednode.crypto import certs
from fednode.crypto.errors import FednodeError
from fednode.node import admission, fence, jobs, profile, sqlite
from fednode.node.doctor import finding
from fednode.node.doctor.checks import CHECKS
from fednode.node.doctor.finding import Finding, Size, Span
from fednode.node.doctor.logtail import tail
from fednode.node.doctor.machine import available_bytes
from fednode.node.doctor.scene import Scene
from fednode.node.lag import Samples
from fednode.node.mesh import own
from fednode.node.room import free_bytes
from fednode.sync import segment, versions

SHAPE_VERSION = 1
SETTINGS = (  # what may be shown; of all others only whether they are set
    *("listen", "enrol_listen", "advertise", "advertise_enrol", "parent_addresses", "log_level", "log_format", "lang"),
    *("scrub_days", "reserve_mib", "profile", "health_interval", "health_stale", "health_behind"),
    *("health_behind_changes", "sync_windows", "sync_zone", "sync_limit", "sync_limits", "sync_urgent"),
    *("serve_sessions", "serve_quantum", "ack", "ack_wait", "ack_away", "jobs_scrub", "jobs_renewal"),
    *("jobs_retention", "jobs_cleaning", "jobs_drill", "drill_days", "jobs_backup", "jobs_jitter", "backup_keep"),
    *("alerts_every", "alerts_coverage", "trace_sample"),
)
# Texts of findings that may be shown: ids, versions, addresses of nodes, times.
PARAMS = frozenset(
    (
        *("node", "parent", "issuer", "address", "addresses", "code", "software", "sqlite", "spoken", "ours", "theirs"),
        *("here", "set", "other", "pid"),
    )
)
LIBRARIES = ("cryptography", "grpcio", "msgspec", "protobuf", "pynacl", "pysqlite3", "sqlite-utils", "zstandard")
REFUSED_MAX = 200
_CODE = re.compile(r"FN-[0-9]{4}")


def code_of(value: Any) -> str:
    """A code, or nothing."""
    return value if isinstance(value, str) and _CODE.fullmatch(value) else ""


def node_of(value: Any) -> str:
    """An id of a node, or nothing. A unified social credit code would have the form, too; what has 18 characters is no
    id that is shown."""
    right = isinstance(value, str) and certs.NODE_NAME.fullmatch(value) and len(value) < 18
    return str(value) if right else ""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of the bundle. `what`: key of the words that say what is in it."""

    name: str
    what: str
    data: bytes


# ---------------------------------------------------------------- parts


def _doctor(scene: Scene) -> Any:
    found = finding.run(CHECKS, scene)
    return [
        {
            "number": check.number,
            "id": check.id,
            "state": one.state,
            "code": one.code,
            "words": one.words,
            "params": {name: _shown(name, value) for name, value in _params(one).items()},
            "data": {name: value for name, value in one.data.items() if isinstance(value, int | None)},
        }
        for check, one in found
    ]


def _params(one: Finding) -> dict[str, Any]:
    return one.params if one.error is None else {}


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Size):
        return value.bytes
    if isinstance(value, Span):
        return value.ms
    return value if isinstance(value, int | float) or (name in PARAMS and isinstance(value, str)) else "-"


def _versions(_scene: Scene) -> Any:
    return {
        "fednode": fednode.__version__,
        "protocol": str(versions.SPOKEN),
        "segment": segment.VERSION,
        "sqlite": ".".join(map(str, sqlite.version())),
        "python": platform.python_version(),
        "frozen": bool(getattr(sys, "frozen", False)),
        "libraries": {name: _version(name) for name in LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def _machine(scene: Scene) -> Any:
    found = os.statvfs(scene.existing())
    return {
        "system": platform.system(),
        "kernel": platform.release(),
        "processor": platform.machine(),
        "library": " ".join(platform.libc_ver()),
        "cores": os.cpu_count() or 0,
        "memory_bytes": profile.memory_bytes(),
        "memory_free_bytes": available_bytes(),
        "disk_bytes": found.f_frsize * found.f_blocks,
        "disk_free_bytes": free_bytes(scene.existing()),
        "clock_ms": scene.clock(),
    }


def _settings(scene: Scene) -> Any:
    from fednode.node.config import shown

    config, origins = scene.settings
    values = shown(config)
    return {
        name: {"value": values[name] if name in SETTINGS else "-", "from": origins[name].split()[0].rstrip(":")}
        for name in values
    }


def _status(scene: Scene) -> Any:
    app = scene.app
    me, there = app.trust.me, fence.standing(app.store)
    return {
        "node": me.node,
        "level": me.level,
        "domain": me.domain,
        "scope": list(me.scope),
        "incarnation": me.incarnation,
        "stands_for": me.stands_for,
        "valid_to_s": me.not_after,
        "root_sha256": app.trust.root_sha256.hex(),
        "parent": app.trust.parent.node if app.trust.parent else None,
        "parent_program": admission.program(app.store, app.trust.parent.node) if app.trust.parent else None,
        "parent_addresses": list(app.parent_addresses()),
        "running": scene.running,
        "lsn": app.store.lsn,
        "catalog": app.trust.catalog_version,
        "clock": {"offset_ms": app.reference.offset_ms, "sure": app.reference.sure},
        "fenced": code_of(there.code) if there else None,
        "home_files": [name for name in _HOME if (app.home.path / name).exists()],
    }


_HOME = (
    *("config.toml", "chain.pem", "root.pem", "addresses", "recover.json", "reserve", "log.db", "log.db-wal"),
    *("state.db", "state.db-wal", "health.db", "keys/sign.pem", "keys/seal.pem", "keys/tls.pem", "keys/root.pem"),
)


def _logs(scene: Scene) -> Any:
    """Logs by their name (domain, node, incarnation, dataset, area) and size."""
    return [{"log": str(name), "changes": size} for _, name, size in scene.store.logs()]


def _tables(scene: Scene) -> Any:
    """Tables of the databases and how many rows they have."""
    home, found = scene.home, {}
    for path in (home.log_db, home.state_db, home.health_db):
        if path.exists():
            connection = sqlite.look(path)
            try:
                found[path.name] = _counted(connection)
            finally:
                connection.close()
    return found


def _counted(connection: sqlite.Connection) -> dict[str, Any]:
    names = [row[0] for row in connection.execute("select name from sqlite_master where type = 'table' order by name")]
    pages, size, free = (
        connection.execute(f"pragma {name}").fetchone()[0] for name in ("page_count", "page_size", "freelist_count")
    )
    rows = {name: connection.execute(f'select count(*) from "{name}"').fetchone()[0] for name in names if _plain(name)}
    return {"bytes": pages * size, "free_bytes": free * size, "rows": rows}


def _plain(name: str) -> bool:
    return re.fullmatch(r"[a-z_]{1,40}", name) is not None


def _peers(scene: Scene) -> Any:
    return [
        {
            "node": node_of(one.node),
            "role": one.role if one.role in ("parent", "child") else "-",
            "acked": one.acked,
            "have": one.have.lsn,
            "last_ms": one.last_ms,
            "last_error": code_of(one.last_error),
        }
        for one in scene.store.peers()
    ]


def _refused(scene: Scene) -> Any:
    """What was refused: which code, of whom, how often; not what it was about."""
    rows = scene.store.rows(
        "select code, peer, count(*), max(at_ms) from refused group by code, peer order by 4 desc limit ?", REFUSED_MAX
    )
    return [
        {"code": code_of(code), "peer": node_of(peer), "count": count, "last_ms": last_ms}
        for code, peer, count, last_ms in rows
    ]


def _jobs(scene: Scene) -> Any:
    """What became of each job, as its file says."""
    found = []
    for job in jobs.JOBS:
        try:
            with (scene.home.run_dir / "jobs" / f"{job.name}.json").open("rb") as file:
                state = msgspec.json.decode(file.read(jobs.STATE_BYTES_MAX), type=jobs.State)
        except (OSError, msgspec.DecodeError):
            continue
        outcome = state.outcome if state.outcome in ("done", "refused", "failed") else "-"
        told = {"began_ms": state.began_ms, "took_ms": state.took_ms, "next_ms": state.next_ms}
        found.append({"job": job.name, "outcome": outcome, "code": code_of(state.code), **told})
    return found


def _mesh(scene: Scene) -> Any:
    """This node's own row of `fednode mesh`."""
    app, alerts = scene.app, own.Alerts()
    if app.home.state_db.exists():
        connection = sqlite.look(app.home.state_db)
        try:
            alerts = own.alerts_in(connection, app.trust.node)
        finally:
            connection.close()
    about = asdict(own.about(app, app.store))
    return {"load": asdict(own.load(app, app.store, Samples(), alerts)), "about": about}


PARTS: dict[str, Callable[[Scene], Any]] = {
    "doctor": _doctor,
    "versions": _versions,
    "machine": _machine,
    "settings": _settings,
    "status": _status,
    "logs": _logs,
    "tables": _tables,
    "peers": _peers,
    "refused": _refused,
    "jobs": _jobs,
    "mesh": _mesh,
}


# ---------------------------------------------------------------- all of it


def collect(scene: Scene, log_lines: Iterable[str]) -> list[Part]:
    """Everything that goes into a bundle. `log_lines`: of the daemon's log, as JSON, the oldest first."""
    parts = [Part(f"{name}.json", f"bundle_part.{name}", _json(scene, make)) for name, make in PARTS.items()]
    kept, left_out = tail(log_lines)
    lines = b"".join(msgspec.json.encode(one) + b"\n" for one in (*kept, {"left_out": left_out}))
    parts.append(Part("log.jsonl", "bundle_part.log", lines))
    made = {"version": SHAPE_VERSION, "made_ms": scene.clock(), "parts": [one.name for one in parts]}
    return [Part("about.json", "bundle_part.about", msgspec.json.format(msgspec.json.encode(made))), *parts]


def _json(scene: Scene, make: Callable[[Scene], Any]) -> bytes:
    try:
        found = make(scene)
    except FednodeError as error:
        found = {"error": error.code}
    except OSError as error:
        found = {"error": f"errno {error.errno}"}
    except sqlite.DatabaseError:
        found = {"error": "FN-7604"}
    return msgspec.json.format(msgspec.json.encode(found)) + b"\n"


def packed(parts: Iterable[Part], folder: str, made_s: int) -> bytes:
    """A .tar.gz of these files in one folder; owned by nobody."""
    whole = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=whole, mode="wb", mtime=made_s) as pressed,
        tarfile.TarFile(fileobj=pressed, mode="w") as tar,
    ):
        for part in parts:
            member = tarfile.TarInfo(f"{folder}/{part.name}")
            member.size, member.mtime, member.mode = len(part.data), made_s, 0o644
            tar.addfile(member, io.BytesIO(part.data))
    return whole.getvalue()
