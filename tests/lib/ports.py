"""Ports of the loopback that nobody else takes while a test's node is down and comes back.

A port that was free when it was looked at is not free later: an outgoing connection draws its own from 32,768 to
60,999, and another test's process looks too. So they are taken below that range, from blocks of a hundred; whoever
holds a block's first port, for as long as its process lives, has the others.

    listen = f"127.0.0.1:{free_port()}"
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

FIRST, LAST, BLOCK = 10_000, 32_700, 100
BLOCKS_MAX = 20  # of one process, which goes round them after that
_held: list[socket.socket] = []  # the first port of each of this process's blocks, bound until it ends


def free_port() -> int:
    """A port that no other process of the tests gives out, nor this one in its last 1,900."""
    return next(_ports)


def _free_ports() -> Iterator[int]:
    blocks: list[range] = []
    while True:
        if len(blocks) < BLOCKS_MAX:
            blocks.append(_block())
        else:
            blocks.append(blocks.pop(0))
        yield from (port for port in blocks[-1] if _is_free(port))


def _block() -> range:
    """A block that nobody holds; the search begins at another one in each process."""
    blocks = range(FIRST, LAST, BLOCK)
    start = os.getpid() * 37 % len(blocks)
    for at in range(len(blocks)):
        first = blocks[(start + at) % len(blocks)]
        holder = socket.socket()
        try:
            holder.bind(("127.0.0.1", first))
        except OSError:
            holder.close()
            continue
        _held.append(holder)
        return range(first + 1, first + BLOCK)
    raise AssertionError(f"all {len(blocks)} blocks of ports from {FIRST} on are held")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


_ports = _free_ports()
