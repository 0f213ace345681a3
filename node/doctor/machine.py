"""The machine and the program: disk, memory, clock, SQLite, versions.

>>> plausible(1_000), plausible(1_900_000_000_000)
(False, True)
"""

from __future__ import annotations

import contextlib
import os
import platform
from pathlib import Path

import fednode
from fednode.crypto import certs
from fednode.crypto.errors import FednodeError
from fednode.node import admission, profile, sqlite
from fednode.node.clocks import WARN_MS
from fednode.node.config import Config
from fednode.node.doctor.finding import Finding, Size, Span, beside, failure, ok, warning
from fednode.node.doctor.scene import Scene
from fednode.node.room import MIB, Room, free_bytes
from fednode.sync import versions
from fednode.sync.errors import StoreError

PLENTY_BYTES = 1024 * MIB  # with less free than that the operator is told
LEAST_BYTES = 64 * MIB  # where no reserve says how much there must be
MEMORY_LEAST, MEMORY_LITTLE = 48 * MIB, 120 * MIB  # a node of the small profile takes 120 MiB at most
EPOCH_MS = 1_735_689_600_000  # 2025-01-01: no machine that runs this lives before
END_MS = 4_102_444_800_000  # 2100-01-01


def plausible(wall_ms: int) -> bool:
    """Whether a clock may be right."""
    return EPOCH_MS <= wall_ms < END_MS


# ---------------------------------------------------------------- disk, memory


def disk(scene: Scene) -> Finding:
    """Free space where the home is, or will be; and free names (inodes)."""
    folder = scene.existing()
    reserve = Config().reserve_mib
    with contextlib.suppress(FednodeError):  # what is wrong with the settings is said by their own check
        reserve = scene.config.reserve_mib
    found, free = os.statvfs(folder), free_bytes(folder)
    total = found.f_frsize * found.f_blocks
    told = {"free": Size(free), "total": Size(total), "path": str(folder)}
    room = Room(scene.home.path, reserve * MIB)
    if room.low if scene.home.path.is_dir() and reserve else free < LEAST_BYTES:
        one = failure("doctor.disk_low", **told)
    elif found.f_files and not found.f_favail:
        one = failure("doctor.disk_names", **told)
    else:
        one = warning("doctor.disk_little", **told) if free < PLENTY_BYTES else ok("doctor.disk", **told)
    return one.having(free_bytes=free, total_bytes=total, path=str(folder))


def available_bytes(meminfo: Path = profile.MEMORY) -> int:
    """Memory that programs may still take; 0 where nobody says."""
    try:
        lines = meminfo.read_text("ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, ValueError, IndexError, StopIteration):
        return 0


def memory(scene: Scene, meminfo: Path = profile.MEMORY) -> Finding:
    """Free memory, and all of it."""
    free, total = available_bytes(meminfo), profile.memory_bytes(meminfo)
    if not free:
        return beside("doctor.memory_unknown")
    told = {"free": Size(free), "total": Size(total)}
    if free < MEMORY_LEAST:
        one = failure("doctor.memory_low", **told)
    else:
        one = warning("doctor.memory_little", **told) if free < MEMORY_LITTLE else ok("doctor.memory", **told)
    return one.having(free_bytes=free, total_bytes=total)


# ---------------------------------------------------------------- the clock


def clock(scene: Scene) -> Finding:
    """This machine's clock: against the parent's, as this node last heard it, and whether it may be right at all."""
    wall_ms = scene.clock()
    told = {"here": certs.iso(max(0, wall_ms) // 1000)}
    try:
        app = scene.app
    except (FednodeError, OSError):  # no node yet, or a broken one: other checks say so
        return clock_alone(scene)
    reference = app.reference
    if app.trust.parent is None:
        right = plausible(wall_ms) and wall_ms // 1000 >= min(one.not_before for one in scene.chain) - certs.BACKDATE_S
        one = ok("doctor.clock_province", **told) if right else failure("doctor.clock_impossible", **told)
    else:
        parent = certs.iso(app.now_s)
        told |= {"parent": parent, "set": parent.replace("T", " ").rstrip("Z")}
        if not reference.sure:
            one = warning("doctor.clock_unsure", **told)
        elif abs(reference.offset_ms) > WARN_MS:
            one = warning("doctor.clock_off", age=Span(abs(reference.offset_ms)), **told)
        else:
            one = ok("doctor.clock", offset=reference.offset_ms, **told)
    return one.having(wall_ms=wall_ms, offset_ms=reference.offset_ms, sure=reference.sure)


def clock_alone(scene: Scene) -> Finding:
    """Where there is nothing to compare it with: a node with a wrong clock goes by its parent's."""
    told = {"here": certs.iso(max(0, scene.clock()) // 1000)}
    return ok("doctor.clock_alone", **told) if plausible(scene.clock()) else warning("doctor.clock_impossible", **told)


# ---------------------------------------------------------------- the program


def program(_scene: Scene) -> Finding:
    """The program, and what it stands on."""
    found = sqlite.version()
    shown = ".".join(map(str, found))
    if found < sqlite.VERSION_MIN:
        raise StoreError("FN-7601", found=shown, needed=".".join(map(str, sqlite.VERSION_MIN)))
    told = {"software": fednode.__version__, "sqlite": shown, "spoken": str(versions.SPOKEN)}
    return ok("doctor.program", **told).having(**told, python=platform.python_version())


def peers_program(scene: Scene) -> Finding:
    """This program against the parent's, as it said at the last meeting."""
    app = scene.app
    parent = app.trust.parent
    if parent is None:
        return beside("doctor.top")
    peer = app.store.peer(parent.node)
    theirs = admission.program(app.store, parent.node)
    highest = int(app.store.meta(f"protocol/{parent.node}", 0))
    told = {"parent": parent.node, "theirs": theirs or "?", "ours": app.software}
    if peer is not None and peer.last_error == versions.TOO_OLD_HERE:
        one = failure("doctor.version_old_here", **told)
    elif peer is not None and peer.last_error == versions.TOO_OLD:
        one = failure("doctor.version_old_there", **told)
    elif not theirs:
        one = beside("doctor.version_unknown", **told)
    elif highest > versions.SPOKEN.high:
        one = warning("doctor.version_behind", **told)
    else:
        one = ok("doctor.version", **told)
    return one.having(ours=app.software, theirs=theirs, protocol_max=highest)
