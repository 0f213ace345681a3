"""Liars: a relay or a child whose program says on the line what an honest one does not.

They withhold segments, alter them, send old frames again, claim cosignatures that nobody gave, acknowledge what they do
not hold, and show a history of their own log that contradicts the one that others have. Their keys are their own: they
sign for nobody else (`sim.quick`).

What must hold whatever they do is in `check.py`: the others keep what they had acknowledged, hold nothing of an honest
node that it has not written, and agree among themselves as far as they need no liar for it.
"""

from __future__ import annotations

import random
import shutil
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync import wire
from fednode.sync.change import Change
from fednode.sync.errors import Refused
from sim.recovery import keep_backup

if TYPE_CHECKING:
    from sim.session import End
    from sim.world import SimNode, World

LIES = 0.05  # of frames
OLD_FRAMES = 20
COSIGNATURE = wire.Cosignature(1_780_000_000, bytes(64), "13")


class Liar:
    """What one of them says in place of what its program would."""

    def __init__(self, node: SimNode) -> None:
        self.node = node
        self._rng = random.Random(f"liar {node.world.seed} {node.id}")
        self._old: list[wire.Message] = []
        self._held_back: dict[int, int] = {}  # session -> the segment of which nothing more is sent
        self._fork: bytes = b""

    def says(self, end: End, number: int, message: wire.Message) -> wire.Message:
        """A message in place of this one; the numbers go on, or the line would be cut at once."""
        rng, true = self._rng, message
        beat = wire.Beat(end.now_ms())
        if isinstance(true, wire.Chunk) and self._held_back.get(id(end)) == true.lsn and true.offset:
            return beat
        if rng.random() < LIES:
            message = self._lie(end, true, beat)
        if isinstance(true, wire.Chunk | wire.Ack | wire.Witnessed) and len(self._old) < OLD_FRAMES:
            self._old.append(true)
        if message is not true:
            self.node.world.note("lie", self.node.id, number, type(true).__name__, type(message).__name__)
            self.node.world.lies += 1
        return message

    def _lie(self, end: End, true: wire.Message, beat: wire.Beat) -> wire.Message:
        rng = self._rng
        if isinstance(true, wire.Chunk):
            how = rng.choice(("withhold", "alter", "alter", "fork", "witness"))
            if how == "withhold" and not true.idle:
                self._held_back[id(end)] = true.lsn
                return beat
            if how == "fork" and self._fork and true.total == len(true.data) and not true.idle:
                return replace(true, data=self._fork, total=len(self._fork), digest=b"")
            if how == "witness" and true.total:
                return replace(true, first_parent=COSIGNATURE)
            data = bytearray(true.data)
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            return replace(true, data=bytes(data))
        if isinstance(true, wire.Ack):
            return wire.Ack(tuple(replace(one, refused="", cosignature=COSIGNATURE) for one in true.outcomes))
        if isinstance(true, wire.Beat) and self._old:
            old = rng.choice(self._old)
            if isinstance(old, wire.Ack) and rng.random() < 0.5:
                return wire.Ack(tuple(replace(one, lsn=one.lsn + 1) for one in old.outcomes))
            return old
        return true

    def contradict(self) -> None:
        """Make a segment that contradicts this node's own log: what a copy of its store would have
        written."""
        node = self.node
        keep_backup(node)
        copy = node.folder / "backup" / "log.db"
        if not node.up or not copy.exists():
            return
        place = node.folder / "fork"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(copy.parent, place)
        store = Store.open(place / "log.db", stash_key=node.member.keys.stash_key)
        try:
            trust = Trust.load(store, node.member.chain, node.id)
            if trust.dataset("latest") is None:
                return
            writer = Writer(store, trust, node.member.keys, node.now_ms, self._rng.randbytes)
            with suppress(Refused):  # it was found, and is fenced
                writer.local("latest", trust.area, [Change(b"k0", b'{"a":"fork","id":"k0"}')])
            self._fork = store.segments(store.lsn - 1, 1)[0].raw
        finally:
            store.close()
        node.write("latest", node.trust.area, [Change(b"k0", b'{"a":"true","id":"k0"}')])


def liars(world: World, rng: random.Random) -> None:
    """A township or a county lies, and a village elsewhere."""
    relay = rng.choice([node for node in world.nodes.values() if node.member.level in ("county", "township")])
    villages = [node for node in world.nodes.values() if node.member.level == "village"]
    village = rng.choice([node for node in villages if not node.id.startswith(relay.id)])
    for node in (relay, village):
        node.liar = Liar(node)
        world.liars.add(node.id)
        for _ in range(3):
            world.clock.at(rng.randint(1, world.shape.faults_ms), node.liar.contradict)
