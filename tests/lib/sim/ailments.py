"""What befalls the disks of a simulated province, besides power cuts and commits that they do not take: they are full
for a while, and bits flip in what lies there.

Rules
1. Full: the machine has less than its reserve (`node.room`). Changes and segments are refused, what is small and nobody
   else has is not; who is connected is parted from, and the next greeting says that nothing is taken in, until there
   is room again (`node.keeper`).
2. A bit flips in a segment, or in the hash that is kept of it, where a neighbour has it, too: what nobody else has is
   gone with it. Whatever reads it finds it, the scrub at the latest; whoever is connected is asked (`node.mending`).
   Not in those without which a node does not start, who is who and the catalog: they are `fednode recover`'s.
3. In the end all is whole (`sim.story` asks `damaged`).
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from fednode.crypto.errors import IntegrityError
from fednode.node import mending, scrub
from fednode.node.projection import Projector
from fednode.node.room import NO_LIMIT, Room
from fednode.sync.change import CATALOG, NODES, LogName
from sim.disk import IO_CODE

if TYPE_CHECKING:
    from sim.session import End
    from sim.world import SimNode, World

LOW = "FN-7630"
OF_DISKS = (IO_CODE, LOW, mending.DAMAGED)
NOTICED_MS = 1_000  # until the daemon looks at its disk
FULL_MS = (20_000, 120_000)
SCRUBBED_MS = (1_000, 60_000)
AGAIN_MS = 5_000


class Disk(Room):
    """The room on a machine's disk: enough, or less than the reserve."""

    def __init__(self) -> None:
        super().__init__(Path("/nowhere"), 1)
        self.full = False

    def left(self) -> int:
        return 0 if self.full else NO_LIMIT


class Connected:
    """With whom a machine has an open session, for its mender."""

    def __init__(self, node: SimNode) -> None:
        self._node = node

    def __iter__(self) -> Iterator[End]:
        return iter([end for end in self._node.sessions if end.link is not None])


class Projection(Projector):
    """As the daemon has it: what cannot be read stops it until that is mended."""

    def step(self) -> tuple[int, bool]:
        try:
            return super().step()
        except IntegrityError as error:
            if error.code != mending.DAMAGED:
                raise
            return 0, False


def mender(node: SimNode) -> mending.Mender:
    """Who sees to what is damaged at a machine, from its start on."""

    def keep(places: list[mending.Place]) -> None:
        node.guarded(partial(remember, places))

    def remember(places: list[mending.Place]) -> None:
        with node.store.write() as tx:
            mending.remember(tx, places)

    return mending.Mender(node.store, Connected(node), keep, lambda: node.world.clock.now_ms)  # type: ignore[arg-type]


def ailments(world: World, rng: random.Random) -> None:
    """A few disks are full for a while, bits flip on a few others."""
    span_ms, nodes = world.shape.faults_ms, list(world.nodes.values())
    for node in rng.sample(nodes, world.shape.full):
        at_ms = rng.randint(0, span_ms)
        world.clock.at(at_ms, partial(fill, node, rng.randint(*FULL_MS) * world.stretch))
    for node in rng.choices(nodes, k=world.shape.flipped):
        world.clock.at(rng.randint(span_ms // 4, span_ms), partial(flip, node, random.Random(rng.random())))


def fill(node: SimNode, for_ms: int) -> None:
    """A disk is full from now on."""
    node.disk.full = True
    node.world.note("full", node.id)
    node.world.clock.at(NOTICED_MS, partial(part, node))
    node.world.clock.at(for_ms, partial(empty, node))


def empty(node: SimNode) -> None:
    """There is room again."""
    if node.disk.full:
        node.disk.full = False
        node.world.note("room", node.id)
        part(node)


def part(node: SimNode) -> None:
    """Sessions end, to greet anew."""
    for end in list(node.sessions):
        end.session.end()


def flip(node: SimNode, dice: random.Random) -> None:
    """A bit of a segment, or of its hash, that a neighbour has as well."""
    if not node.up:
        return
    up = node.store.peer(node.member.parent)
    places = node.store.rows(
        """select s.lsn, l.name, s.first from segment s join log l on l.id = s.log_id
           where l.dataset not in (?, ?) and (s.peer is not null or (l.up = 1 and s.lsn <= ?)) order by s.lsn""",
        *(NODES, CATALOG, up.acked if up is not None else 0),
    )
    places = [place for place in places if place[1:] not in node.world.spoilt]
    if not places:
        return
    lsn, log, first = dice.choice(places)
    node.world.spoilt.add((log, first))  # once: somebody has it whole, and its hash is that of its bytes or they of it
    column = dice.choice(("data", "sha256"))
    connection = node.store.connection
    (value,) = connection.execute(f"select {column} from segment where lsn = ?", (lsn,)).fetchone()
    at = dice.randrange(8 * len(value))
    spoilt = value[: at // 8] + bytes((value[at // 8] ^ 1 << at % 8,)) + value[at // 8 + 1 :]
    connection.execute(f"update segment set {column} = ? where lsn = ?", (spoilt, lsn))
    node.world.note("flipped", node.id, log, first, column, at)
    node.world.flipped.add(node.id)
    node.world.clock.at(dice.randint(*SCRUBBED_MS) * node.world.stretch, partial(look_through, node))


def look_through(node: SimNode) -> None:
    """The scrub comes by."""
    if not node.up:
        node.world.clock.at(AGAIN_MS, partial(look_through, node))
        return
    one = scrub.Scrub(node.store, node.trust.directory, node.trust.node, 1, lambda: 0.0)
    began = max(1, node.now_ms())
    problems = [*one.step(began), *one.step(began + scrub.DAY_MS)]
    found = [(each.log, each.first) for each in problems if each.code == mending.DAMAGED]
    node.world.note("scrubbed", node.id, len(problems), found)
    node.mender.found(found)


def place(node: SimNode, lsn: int) -> tuple[LogName, int, bytes] | None:
    """What lies at an arrival number; None where that cannot be read."""
    try:
        return node.store.place(lsn)
    except IntegrityError:
        return None


def damaged(node: SimNode) -> bool:
    """Whether something lies there spoilt, as far as it has been found."""
    return node.id in node.world.flipped and bool(mending.known(node.store))


def peace(world: World) -> None:
    """There is room everywhere, and each scrub comes by once more."""
    for node in world.nodes.values():
        empty(node)
        if node.id in world.flipped:
            look_through(node)
