"""The allocator's habits, as far as a program may set them without a library of its own.

Rules
1. A segment is decoded in about a megabyte of short-lived blocks. glibc gives what is freed at the top of the heap back
   to the kernel, and takes it again, zeroed page by page, for the next segment: as dear as decoding it. It gives back
   less once it has seen a larger block come and go (mallopt(3), M_MMAP_THRESHOLD: the dynamic threshold, and twice as
   much before the heap is trimmed). So one comes and goes, and nothing of it is ever touched.
2. Other allocators take no notice, and lose nothing.
3. Python's collector looks at every object there is once in a while, for 40 ms of a daemon that holds little, with the
   interpreter's lock: who sent a record waits. What a daemon has made until it is ready stays as long as it runs, so
   the collector is told to pass it over (`settle`), until the end (`unsettle`).

>>> keep_warm()
"""

from __future__ import annotations

import gc

WARM_BYTES = 4 * 1024 * 1024  # four times what a normal segment takes; at most twice this stays with the process


def keep_warm() -> None:
    """Let this process keep what it frees, up to a few megabytes, for what comes next."""
    bytes(WARM_BYTES)


def settle() -> None:
    """What there is now, stays."""
    gc.collect()
    gc.freeze()


def unsettle() -> None:
    """What there is may go."""
    gc.unfreeze()
