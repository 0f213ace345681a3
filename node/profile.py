"""How much memory a node's work may take: one place for the sizes that trade memory for speed.

Rules
1. `normal` is the speed that docs/performance.md says; `small` is for a machine of 1 GiB: 120 MiB at most, whatever it
   does, and slower in bulk.
2. The setting `profile` says which; `auto`, the default, looks at the memory of the machine, or of the container.
3. No profile changes what is stored or sent, only how much of it at a time.

>>> chosen("auto", 512 * MIB).name, chosen("auto", 2048 * MIB).name, chosen("small", 2048 * MIB).name
('small', 'normal', 'small')
"""

from __future__ import annotations

import contextlib
import ctypes
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024
AUTO, NORMAL_NAME, SMALL_NAME = "auto", "normal", "small"
SMALL_BYTES_MAX = 1024 * MIB  # a machine of 1 GiB shows somewhat less than that
MEMORY, GROUPS, GROUPS_AT = Path("/proc/meminfo"), Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # mallopt(3) of glibc


@dataclass(frozen=True, slots=True)
class Profile:
    """`window_bytes`: what a peer may send ahead; `pull_bytes`: read of a feed at a time; `group_bytes`: segments of
    one transaction; `batch_rows`: rows of an import in one; `step_segments`, `text_rows`: what one transaction of a
    projection takes in; `object_bytes`: segments in one object of a backup; `jobs_max`: processes of a verification,
    0: one a core; `heap_bytes`: what SQLite's caches may take all together before they give way, 0: no limit;
    `arenas`: of glibc's allocator, 0: as it likes."""

    name: str
    log_cache_kib: int
    state_cache_kib: int
    state_wal_pages: int
    window_bytes: int
    pull_bytes: int
    group_bytes: int
    batch_rows: int
    step_segments: int
    text_rows: int
    object_bytes: int
    jobs_max: int
    heap_bytes: int
    arenas: int


NORMAL = Profile(
    NORMAL_NAME,
    log_cache_kib=8 * 1024,
    state_cache_kib=64 * 1024,
    state_wal_pages=8_000,  # every 32 MiB: indexes in no order are written again and again until then
    window_bytes=4 * MIB,
    pull_bytes=2 * MIB,
    group_bytes=8 * MIB,
    batch_rows=10_000,
    step_segments=16,
    text_rows=2_000,
    object_bytes=8 * MIB,
    jobs_max=0,
    heap_bytes=0,
    arenas=0,
)
SMALL = Profile(
    SMALL_NAME,
    log_cache_kib=1024,
    state_cache_kib=6 * 1024,
    state_wal_pages=2_000,
    window_bytes=MIB,
    pull_bytes=MIB // 2,
    group_bytes=MIB,
    batch_rows=1_000,
    step_segments=4,
    text_rows=500,
    object_bytes=MIB,
    jobs_max=1,
    heap_bytes=16 * MIB,
    arenas=1,
)


def limits(groups: Path = GROUPS, at: Path = GROUPS_AT) -> list[Path]:
    """Files that may name a limit of this process's control group (cgroups(7), of either version): a container has it
    at the root, a service of systemd in its own folder."""
    found = [at / "memory.max", at / "memory" / "memory.limit_in_bytes"]
    with contextlib.suppress(OSError, ValueError):
        for line in groups.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            if not controllers:
                found.append(at / path.lstrip("/") / "memory.max")
            elif "memory" in controllers.split(","):
                found.append(at / "memory" / path.lstrip("/") / "memory.limit_in_bytes")
    return found


def memory_bytes(meminfo: Path = MEMORY, groups: Path = GROUPS, at: Path = GROUPS_AT) -> int:
    """The memory of this machine, or of its container or service where that has less. 0 where nobody says."""
    found = []
    with contextlib.suppress(OSError, ValueError, IndexError):
        line = next(one for one in meminfo.read_text().splitlines() if one.startswith("MemTotal:"))
        found.append(int(line.split()[1]) * 1024)
    for path in limits(groups, at):
        with contextlib.suppress(OSError, ValueError):  # "max": none
            found.append(int(path.read_text()))
    return min(found, default=0)


def chosen(setting: str, memory: int) -> Profile:
    """The profile of a setting (`auto`, `normal`, `small`) on a machine with so many bytes; 0: not known."""
    if setting == AUTO:
        return SMALL if 0 < memory <= SMALL_BYTES_MAX else NORMAL
    return SMALL if setting == SMALL_NAME else NORMAL


def thrifty(profile: Profile) -> None:
    """Let the C library give back what is freed, and keep to few arenas: for this whole process, before it has threads.
    Where the C library is not glibc nothing happens."""
    if not profile.arenas:
        return
    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(M_ARENA_MAX, profile.arenas)
        mallopt(M_TRIM_THRESHOLD, MIB)
        mallopt(M_MMAP_THRESHOLD, MIB // 4)
