"""Nodes that have nothing to do sleep, so that a whole province of them goes into one process: at most so many are open
(`Shape.open_max`).

Asleep is stopped, as by SIGTERM: its databases are closed, and nothing of it is in memory but what the world knows of
it. The two files lie here, packed: as what is different in them from a new store's. Whoever asks for its store, its
trust, its writer or its projection starts it again by that (`SimNode.__getattr__`): a frame, its window, an operator,
or who checks it in the end. Who sleeps: of those with no session and nothing to be written the lowest, then whoever was
wanted longest ago, never the last few; so it is the same in every run.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING

import zstandard

from sim.hierarchy import ENDS, OFTEN, START_MS, Shape, blank, home_of
from sim.quick import mode

if TYPE_CHECKING:
    from sim.world import SimNode

FILES = ("log.db", "log.db-wal", "state.db", "state.db-wal")
IN_HAND = 3  # whoever was woken last may still be in somebody's hands
FIRST, SPREAD, LAST = 0.002, 0.004, 0.95  # of the time between two meetings
AT_ONCE = 8  # this part of all goes to sleep at once: looking for them takes time
ROOM = 2  # what a session needs
STOPS = 1_000  # after so many what the stopped programs left in memory is collected: `sim.quick` has it done by nobody
ALL = 8  # collections: one of so many looks through what is older, too, which takes seconds where a province is told
LEVEL = 1  # of zstd: of what is packed most is a certificate, or was packed before


@cache
def _dictionary(name: str, mode: str) -> zstandard.ZstdCompressionDict:
    data = (blank(mode) / name).read_bytes()
    found = zstandard.ZstdCompressionDict(data, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
    found.precompute_compress(level=LEVEL)
    return found


class Dormitory:
    """Who is awake, and the files of who is not. `open_max`: so many are awake, or a few more where all have something
    to do; 0: nobody sleeps."""

    def __init__(self, open_max: int) -> None:
        self.open_max = open_max
        self._stops = 0
        self.most = self.woken = 0  # who was awake at one time at most, and how often somebody woke
        self.goes: Callable[[SimNode], object] = lambda node: None  # asked before somebody goes to sleep
        self._awake: dict[str, SimNode] = {}  # whoever was wanted last is last
        self._packed: dict[str, list[tuple[str, bytes]]] = {}

    @property
    def packed_bytes(self) -> int:
        """What the files of those who sleep take."""
        return sum(len(data) for one in self._packed.values() for _, data in one)

    def up(self, node: SimNode) -> None:
        """A node is about to be open, or is wanted again: others make room for it."""
        if not self.open_max:
            return
        self._awake.pop(node.id, None)
        self._make_room(self.open_max - 1)
        self._awake[node.id] = node
        self.most = max(self.most, len(self._awake))

    def down(self, node: SimNode) -> None:
        """A node is closed."""
        self._awake.pop(node.id, None)

    def room(self, *nodes: SimNode) -> bool:
        """Whether these may be open at once with all that have something to do."""
        if not self.open_max:
            return True
        wanted = {one.id for one in nodes}
        return sum(1 for one in self._awake.values() if one.busy and one.id not in wanted) + ROOM <= self.open_max

    def _make_room(self, most: int) -> None:
        if len(self._awake) <= most:
            return
        most -= most // AT_ONCE
        idle = [one for one in list(self._awake.values())[:-IN_HAND] if not one.busy]
        idle.sort(key=lambda one: -len(one.id))  # of one level whoever was wanted longest ago comes first
        for one in idle[: len(self._awake) - most]:
            one.stop()

    # ------------------------------------------------------------ files

    def keep(self, node: SimNode) -> None:
        """Pack the files of a node that was closed."""
        kept = []
        for name in FILES:
            path = node.folder / name
            if path.exists():
                packer = zstandard.ZstdCompressor(dict_data=_dictionary(name.removesuffix("-wal"), mode()))
                kept.append((name, packer.compress(path.read_bytes())))
                path.unlink()
        self._packed[node.id] = kept
        self._stops += 1
        if self._stops % STOPS == 0:
            gc.collect(1 if self._stops // STOPS % ALL else 2)

    def give_back(self, node: SimNode) -> None:
        """Its files lie in its home again; a node that was never awake gets its first."""
        kept = self._packed.pop(node.id, None)
        if kept is None:
            home_of(node.folder, node.member, node.world.children_of(node.id))
            return
        for name, data in kept:
            unpacker = zstandard.ZstdDecompressor(dict_data=_dictionary(name.removesuffix("-wal"), mode()))
            (node.folder / name).write_bytes(unpacker.decompress(data))


class Windows:
    """When nodes meet their parents, where they are not connected all the time. Those below one meet it one soon after
    the other; the higher levels begin. Once faults have stopped nobody waits for a window (`story`)."""

    def __init__(self, seed: int, shape: Shape) -> None:
        self._rng = random.Random(f"windows {seed}")
        self._village_ms = shape.faults_ms // max(1, shape.meetings)
        self._seed, self._met = seed, set[str]()
        self.closed = False

    def next(self, node: str, level: str, now_ms: int) -> int | None:
        """In how many milliseconds the next one begins; None: in none."""
        if self.closed:
            return None
        rng, every_ms = self._rng, self._village_ms
        first = node not in self._met
        self._met.add(node)
        if level != "village":
            if first:  # its parent comes before it
                return int(every_ms * FIRST * (ENDS.index(len(node)) + rng.random() / 2))
            return int(every_ms / OFTEN * (0.8 + 0.4 * rng.random()))
        slot = random.Random(f"slot {self._seed} {node[:-3]}").uniform(FIRST * len(ENDS), LAST)
        at_ms = int(every_ms * (slot + SPREAD * random.Random(f"slot {self._seed} {node}").random()))
        return (START_MS + at_ms - now_ms) % every_ms or every_ms
