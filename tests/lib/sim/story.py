"""One seed's story: operators at work while everything fails, then peace, then every check.

>>> # result = run(7); result.digest
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

import msgspec

from fednode.node import witness
from fednode.sync.change import CATALOG, DELETE, NODES, UPSERT, Change
from fednode.sync.merge import RULES
from sim import ailments
from sim.byzantine import liars
from sim.check import check
from sim.datasets import catalog
from sim.hierarchy import DAY_MS, LARGE, SMALL, Shape
from sim.network import Faults, Planned
from sim.promotion import promotions, settled
from sim.quick import FEW, MANY, quickly
from sim.recovery import back_up, burn, keep_backup, restore_backup
from sim.sticks import SimApp, carry, carry_for_whoever_is_cut_off
from sim.world import SimNode, World

PEACE_MS = 30 * 60 * 1000  # everything must be everywhere within this time after the last fault
STEP_MS = 60 * 1000
VISIT_MS, LEVEL_MS, ROUNDS = 20, 60_000, 12  # where nodes meet their parents in turns
BURNT = 4  # nodes that burn, where any do
FAR, DEAF = 3, 2  # lines that are slow, and that fall silent in one direction
KEYS = 8
YEAR_MS = 365 * 86_400_000
EPOCH_2036_MS, EPOCH_2099_MS = 2_082_758_400_000, 4_070_908_800_000


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. `digest`: of the trace; `records`: at the province; `resumed`: segments that a cut had
    left half received, and that went on from there; `brought`: what sticks brought that was not there yet; `promoted`:
    nodes that were succeeded; `ailments`: commits that a disk did not take, or had no room for; `mended`: segments in
    which a bit had flipped; `lies`: frames in which somebody lied.
    Where nodes sleep, `open_most`: how many were open at one time; `woken`: how often one woke; `asleep_bytes`: what
    the files of those take that sleep in the end."""

    seed: int
    digest: str
    events: int
    records: int
    quiet_after_ms: int
    resumed: int
    hurried: int
    brought: int = 0
    promoted: int = 0
    ailments: int = 0
    lies: int = 0
    node_days: float = 0.0
    open_most: int = 0
    woken: int = 0
    asleep_bytes: int = 0
    mended: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """How a seed is told. `shape`: of the world; `burning`: nodes of any level burn, and come back from their backups;
    `promoting`: some have standbys, fail, and are succeeded; `byzantine`: some lie (`sim.byzantine`); `light`: without
    cryptography (`sim.quick`). `only`: these of the things that were planned (`Planned.number`), and no other;
    `without`: what never happens by chance (`Faults.kinds`). `words`: the options of `scripts/simulate` that make such
    a shape."""

    shape: Shape = LARGE
    burning: bool = False
    promoting: bool = False
    byzantine: bool = False
    light: bool = False
    only: frozenset[int] | None = None
    without: frozenset[str] = frozenset()
    words: str = ""

    def replay(self, seed: int) -> str:
        """The command that tells it again."""
        words = [f"--{one}" for one in ("burning", "promoting", "byzantine", "light") if getattr(self, one)]
        words += [self.words] if self.words else []
        words += [f"--only {','.join(map(str, sorted(self.only)))}"] if self.only is not None else []
        words += [f"--without {','.join(sorted(self.without))}"] if self.without else []
        return " ".join((f"scripts/simulate --seed {seed}", *words))


def run(
    seed: int,
    faults: Faults | None = None,
    *,
    burning: bool = False,
    promoting: bool = False,
    small: bool = False,
    light: bool = False,
) -> Result:
    """Run one seed; `small`: in a few nodes, in a short time, else as `Told` has it. Raises AssertionError, with the
    seed and how to replay it, when something does not hold."""
    told = Told(LARGE, burning, promoting, light=light)
    return tell(seed, replace(told, shape=SMALL, words="--small") if small else told, faults)[0]


def tell(seed: int, told: Told, faults: Faults | None = None) -> tuple[Result, list[Planned]]:
    """Run one seed in some way; also what was planned for it. Raises AssertionError as `run` does."""
    with quickly(light=told.light, answers=FEW if told.shape.open_max else MANY):
        return _tell(seed, told, faults or Faults())


def planned(seed: int, told: Told) -> list[Planned]:
    """What a seed has happen, when it is told in this way; nothing of it happens."""
    with quickly(light=told.light):
        world = World(seed, Faults(), told.shape)
        try:
            return _plan(world, told)
        finally:
            world.close()


def _tell(seed: int, told: Told, faults: Faults) -> tuple[Result, list[Planned]]:
    never = told.without if told.shape.frail else told.without | {"io_error"}
    world = World(seed, faults.without(never).rarer(told.shape.calm), told.shape)
    world.promoting = told.promoting
    try:
        plan = _plan(world, told)
        for one in plan:
            if told.only is None or one.number in told.only:
                world.clock.at(one.at_ms, one.what)
        world.clock.run_until(world.clock.now_ms + world.shape.faults_ms)
        _peace(world)
        while world.shape.open_max and world.clock.now_ms < world.sticks_until_ms:  # of days some arrive hours later
            world.clock.run_until(world.sticks_until_ms)
        start, rounds = world.clock.now_ms, 0
        while moving := _moving(world):
            late = rounds > ROUNDS if world.shape.open_max else world.clock.now_ms - start >= PEACE_MS
            assert not late, f"not all is everywhere within the bound: {moving}\n{_all_owing(world)}"
            if "13" in world.promoted:
                _publish(world)  # somebody notices if the disk took it along before a city had it (small, seed 140)
            rounds += 1
            world.clock.run_until(world.clock.now_ms + (_round(world) if world.shape.open_max else STEP_MS))
        quiet = world.clock.now_ms - start
        records = check(world)
        happened = (world.clock.digest(), world.clock.happened)
        moved = (world.resumed, world.hurried, world.brought, len(world.promoted), world.ailments, world.lies)
        node_days = len(world.nodes) * (world.shape.faults_ms + quiet) / DAY_MS
        slept = (world.dormitory.most, world.dormitory.woken, world.dormitory.packed_bytes)
        return Result(seed, *happened, records, quiet, *moved, node_days, *slept, world.mended), plan
    except AssertionError as error:
        raise AssertionError(f"seed {seed}: {error}\nreplay: {told.replay(seed)}") from error
    finally:
        world.close()


def _plan(world: World, told: Told) -> list[Planned]:
    with world.clock.planning() as plan:
        _skew_clocks(world)
        _operators(world)
        if world.shape.frail:
            _lines(world, random.Random(f"lines {world.seed}"))
            if not (world.shape.open_max or told.burning or told.promoting or told.byzantine):
                ailments.ailments(world, random.Random(f"ailments {world.seed}"))
        if world.shape.open_max:
            _naps(world, random.Random(f"naps {world.seed}"))
        if told.burning:
            _fires(world, random.Random(f"fires {world.seed}"))
        if told.promoting:
            promotions(world, random.Random(f"promotions {world.seed}"))
        if told.byzantine:
            liars(world, random.Random(f"liars {world.seed}"))
    return plan


def _skew_clocks(world: World) -> None:
    """Villages' clocks are years off, some jump; everybody else's are a little off. On top of that, from a stream of
    its own (so that the rest of a seed's story stays what it was): in a few villages the clock jumps again and again,
    stands still, or is at 1970, 2036 or 2099 from the first boot on."""
    _broken_clocks(world, random.Random(f"clocks {world.seed}"))
    rng, span_ms = world.clock.rng, world.shape.faults_ms
    for node in world.nodes.values():
        if node.member.level == "village" and rng.random() < 0.5:
            node.skew_ms = rng.choice((-1, 1)) * rng.randint(1, 10) * YEAR_MS
            if rng.random() < 0.6:  # works for a while before it learns the time from its parent
                _part(world, node, rng.randint(60_000 * world.stretch, span_ms // 2))
            if rng.random() < 0.3:
                world.clock.at(rng.randint(0, span_ms), partial(_jump, node, rng.randint(-YEAR_MS, YEAR_MS)))
        elif node.member.parent:
            node.skew_ms = rng.randint(-60_000, 60_000)


def _naps(world: World, rng: random.Random) -> None:
    """Nodes of any level are stopped and started again, if nothing is going on there."""
    nodes = list(world.nodes.values())
    for _ in range(world.shape.naps):
        node = nodes[int(len(nodes) * rng.random() ** 2)]  # the higher ones as often as the many low ones
        world.clock.at(rng.randint(0, world.shape.faults_ms), node.stop)


def _fires(world: World, rng: random.Random) -> None:
    """Nodes are backed up now and then, and burn later on; no two of them above each other: what both held is gone."""
    burnt: list[SimNode] = []
    nodes = [node for node in world.nodes.values() if node.member.parent]
    for node in rng.sample(nodes, len(nodes)):
        if len(burnt) < BURNT and not any(_related(world, node, other) for other in burnt):
            burnt.append(node)
    span_ms = world.shape.faults_ms
    for node in burnt:
        since = rng.randint(span_ms // 8, span_ms // 2)
        for _ in range(rng.randint(1, 3)):
            world.clock.at(rng.randint(span_ms // 12, since), partial(back_up, node))
        world.clock.at(since + rng.randint(1_000 * world.stretch, span_ms // 3), partial(burn, node))


def _related(world: World, one: SimNode, other: SimNode) -> bool:
    return one.id in _above(world, other) or other.id in _above(world, one)


def _above(world: World, node: SimNode) -> set[str]:
    found = set[str]()
    while node.member.parent:
        node = world.nodes[node.member.parent]
        found.add(node.id)
    return found


def _jump(node: SimNode, by_ms: int) -> None:
    node.skew_ms += by_ms


def _broken_clocks(world: World, rng: random.Random) -> None:
    villages = [node for node in world.nodes.values() if node.member.level == "village"]
    restless, frozen, *dead = rng.sample(villages, world.shape.broken)
    span_ms = world.shape.faults_ms
    for at_ms in range(0, span_ms, 40_000 * world.stretch):
        world.clock.at(
            at_ms + rng.randint(0, 20_000 * world.stretch), partial(_jump, restless, rng.randint(-40, 40) * YEAR_MS)
        )
    world.clock.at(rng.randint(0, span_ms // 2), partial(_freeze, frozen, rng.randint(-30, 30) * YEAR_MS))
    for node in dead:
        node.frozen_ms = rng.choice((0, EPOCH_2036_MS, EPOCH_2099_MS))
        world.clock.at(rng.randint(0, span_ms), partial(_thaw, node))


def _lines(world: World, rng: random.Random) -> None:
    """A few lines are slow, more so in one direction; on a few others one direction falls silent for a while, and
    neither side is told."""
    span_ms = world.shape.faults_ms
    below = [node.id for node in world.nodes.values() if node.member.parent]
    far = rng.sample(below, FAR + DEAF)
    for node in far[:FAR]:
        for up in (True, False):
            slowest = rng.choice((1_000, 8_000, 20_000))
            world.clock.at(rng.randint(0, span_ms // 2), partial(_slow, world, node, up, slowest))
    for node in far[FAR:]:
        since, up = rng.randint(0, span_ms * 3 // 4), rng.random() < 0.5
        world.clock.at(since, partial(_deafen, world, node, up))
        world.clock.at(since + rng.randint(30_000, 120_000) * world.stretch, partial(_restore_line, world, node, up))


def _slow(world: World, node: str, up: bool, slowest_ms: int) -> None:
    world.lines[node, up] = replace(world.faults, latency_ms=(slowest_ms // 10, slowest_ms))


def _deafen(world: World, node: str, up: bool) -> None:
    world.note("deaf", node, up)
    world.lines[node, up] = replace(world.faults, lose=1.0)


def _restore_line(world: World, node: str, up: bool) -> None:
    world.lines.pop((node, up), None)


def _freeze(node: SimNode, off_ms: int) -> None:
    node.frozen_ms = max(0, node.wall_ms() + off_ms)


def _thaw(node: SimNode) -> None:
    """The clock runs again, from where it stood."""
    if node.frozen_ms is not None:
        node.skew_ms, node.frozen_ms = node.frozen_ms - node.world.clock.now_ms, None


def _operators(world: World) -> None:
    rng, at, shape = world.clock.rng, world.clock.at, world.shape
    span_ms = shape.faults_ms
    nodes = list(world.nodes.values())
    villages = [node for node in nodes if node.member.level == "village"]
    busy = rng.sample(villages, shape.busy)
    for number in range(shape.writes):
        node = rng.choice(busy if rng.random() < 0.7 else nodes)
        at(rng.randint(0, span_ms), partial(_write, world, node, number))
    for number in range(shape.corrections):
        at(rng.randint(0, span_ms), partial(_correct, world, rng.choice(busy), number))
    for _ in range(shape.erases):
        village = rng.choice(busy)
        by = rng.choice((village, village, world.nodes[village.id[:6]]))
        at(rng.randint(span_ms // 6, span_ms), partial(_erase, world, by, village.id))
    for village in busy[: shape.apart]:
        # a long time apart, so that the village and its county change the same records unseen by each other
        at(rng.randint(0, span_ms // 2), partial(_part, world, village, span_ms // 2))
    for village in busy[shape.apart :][: shape.batteries]:
        # its clock's battery dies while the link is down: what it writes then is stamped years off
        since = rng.randint(span_ms // 4, span_ms // 2)
        at(since, partial(_part, world, village, span_ms // 3))
        at(since, partial(_jump, village, rng.choice((-1, 1)) * rng.randint(1, 10) * YEAR_MS))
    if shape.sticks:
        _sticks(world, busy)
    for _ in range(shape.parted):
        for_ms = rng.randint(5_000, 240_000) * world.stretch
        at(rng.randint(0, span_ms), partial(_part, world, rng.choice(nodes), for_ms))
    for _ in range(shape.crashed):
        at(rng.randint(0, span_ms), partial(_crash, rng.choice(nodes)))
    for node in rng.sample(villages, shape.restored):
        since = rng.randint(span_ms // 6, span_ms // 2)
        at(since, partial(keep_backup, node))
        at(since + rng.randint(span_ms // 6, span_ms // 3), partial(_restore, world, node))
    at(rng.randint(0, span_ms) // (8 if shape.open_max else 1), partial(_publish, world))
    if rng.random() < 0.5:
        at(rng.randint(span_ms // 2, span_ms), partial(_revoke, world, rng.choice(villages)))


def _sticks(world: World, busy: list[SimNode]) -> None:
    """One busy village has no link at all; sticks go to and fro there, and wherever a link is down."""
    rng, at, span_ms = world.clock.rng, world.clock.at, world.shape.faults_ms
    alone = busy[-1]
    at(0, partial(_part, world, alone, span_ms))
    for since in range(span_ms // 6, span_ms, span_ms // 8):
        at(since, partial(carry, world, alone, world.nodes[alone.member.parent], rng.random() < 0.6))
    for _ in range(world.shape.sticks):
        at(rng.randint(span_ms // 8, span_ms), partial(carry_for_whoever_is_cut_off, world, rng.choice(busy)))


def _payload(world: World, dataset: str, key: str, number: int, *, big: bool = False) -> bytes:
    """A record; under the `field` rule a few of its fields."""
    rng = world.clock.rng
    text = rng.randbytes(90_000).hex() if big else f"许可 {number}"
    fields = {"id": key, "a": text, "b": str(number), "c": rng.choice("xyz")}
    if dataset == "field":
        fields = {code: fields[code] for code in ("id", *sorted(rng.sample("abc", rng.randint(1, 2))))}
    return msgspec.json.encode(fields, order="deterministic")


def _write(world: World, node: SimNode, number: int) -> None:
    """A few changes of one node's own: new records, changes of old ones, deletions."""
    if not node.up:
        return
    rng = world.clock.rng
    dataset = rng.choice(RULES)
    node.projector.catch_up()
    changes = []
    for _ in range(rng.randint(1, 12)):
        key = f"k{rng.randint(0, KEYS)}"
        base = _base(node, dataset, node.trust.area, key)
        if base and rng.random() < 0.15:
            changes.append(Change(key.encode(), b"", DELETE, base))
        else:
            payload = _payload(world, dataset, key, number, big=rng.random() < 0.05)
            changes.append(Change(key.encode(), payload, UPSERT, base))
    node.write(dataset, node.trust.area, list({change.key: change for change in changes}.values()))


def _base(node: SimNode, dataset: str, area: str, key: str) -> int:
    row = node.projector.current(dataset, area, [key]).get(key)
    return row.hlc if row else 0


def _correct(world: World, village: SimNode, number: int) -> None:
    """The county of a village corrects one of its records, or makes one for it; not before it has heard of the
    village: what is sealed without its key it can never read (seed 508)."""
    county = world.nodes[village.id[:6]]
    if not county.up or county.trust.directory.get(village.id) is None:
        return
    county.projector.catch_up()
    dataset, key = world.clock.rng.choice(RULES), f"k{world.clock.rng.randint(0, KEYS)}"
    base = _base(county, dataset, village.id, key)
    payload = _payload(world, dataset, key, 1000 + number)
    county.write(dataset, village.id, [Change(key.encode(), payload, UPSERT, base)])


def _erase(world: World, node: SimNode, area: str) -> None:
    """A village, or its county, erases a record of the village: all of its versions, or one of them."""
    if not node.up:
        return
    rng = world.clock.rng
    node.projector.catch_up()
    dataset = rng.choice(RULES)
    found = node.versions(dataset, area)
    if not found:
        return
    places = found[rng.choice(sorted(found))]
    node.erase(dataset, area, places if rng.random() < 0.6 else [rng.choice(places)])


def _restore(world: World, node: SimNode) -> None:
    """An old backup in the place of the store, and work goes on until somebody notices."""
    restore_backup(node)
    for number in range(2):
        world.clock.at(world.clock.rng.randint(0, 30_000), partial(_write, world, node, 2000 + number))
    if node.id in world.restored:
        world.clock.at(world.clock.rng.randint(20_000, 90_000), node.recovery.when_fenced)


def _part(world: World, node: SimNode, for_ms: int) -> None:
    world.part(node.id, for_ms)


def _crash(node: SimNode) -> None:
    node.crash("by chance")


def _publish(world: World) -> None:
    province = world.nodes["13"]
    if province.trust.catalog_version == 2:
        return
    if not province.up:
        world.clock.at(5_000, partial(_publish, world))
        return
    if not province.write(CATALOG, "13", [Change(b"catalog", catalog(2).to_json())]):
        world.clock.at(5_000, partial(_publish, world))


def _revoke(world: World, village: SimNode) -> None:
    township = world.nodes[village.member.parent]
    if not township.up:
        return
    world.revoked.add(village.id)
    township.write(NODES, township.trust.area, [SimApp(township).revocation(village.id, 1, "lost")])


def _peace(world: World) -> None:
    """Faults stop; who is down comes back."""
    world.faults = Faults.none()
    world.stretch = 1
    world.mend_lines()
    world.windows.closed = bool(world.shape.open_max)
    world.dormitory.goes = partial(_look, world)
    for end in [end for node in world.nodes.values() for end in node.sessions]:
        end.session.stir()
    for node in (*world.nodes.values(), *(one for each in world.former.values() for one in each)):
        node.boot()
    ailments.peace(world)


def _round(world: World) -> int:
    """All nodes from the lowest level up, and down again, meet their parents if anything is owed; how long it takes in
    milliseconds."""
    levels: dict[int, list[SimNode]] = {}
    for node in world.nodes.values():
        levels.setdefault(len(node.id), []).append(node)
    ends, at_ms = sorted(levels)[1:], 0
    for down, turn in enumerate((ends[::-1], ends)):
        for end in turn:
            for node in sorted(levels[end], key=lambda one: one.id):
                world.clock.at(at_ms, partial(_visit, world, node, bool(down)))
                at_ms += VISIT_MS
            at_ms += LEVEL_MS  # until all of it has come to an end
    return at_ms


def _visit(world: World, node: SimNode, down: bool) -> None:
    """On the way up whoever has something for its parent, on the way down whoever lacks something."""
    if node.id not in world.revoked and (_owes(world, node) if down else node.up and node.gives()):
        node.dial()


def _moving(world: World) -> str:
    """What somebody still owes somebody; "" where all is quiet."""
    if not settled(world):
        waits = {name: [one.id for one in each] for name, each in world.former.items() if each}
        return f"not settled: {waits} {sorted(world.island)}"
    return next((f"{node.id}: {owed}" for node, owed in _owing(world)), "")


def _owing(world: World) -> Iterator[tuple[SimNode, str]]:
    """Who owes something or is owed it, and what."""
    for node in world.nodes.values():
        if node.id not in world.revoked and not world.astray(node.id) and (owed := _owes(world, node)):
            yield node, owed


def _all_owing(world: World) -> str:
    """For who looks into it: all of them, and what the first has for its parent."""
    found = list(_owing(world))
    first = found[0][0] if found else world.nodes["13"]
    up = first.store.peer(first.member.parent)
    acked = up.acked if up else 0
    rows = first.store.rows(
        """select s.lsn, r.lsn, l.name, s.first, s.count from segment s join log l on l.id = s.log_id
           left join resealed r on r.segment_lsn = s.lsn where l.up = 1 and (s.lsn > ?1 or r.lsn > ?1) limit 9""",
        acked,
    )
    told = ", ".join(f"{one.id} {owed}" for one, owed in found[:20])
    return (
        f"{len(found)}: {told}; {first.id}, beyond {acked}: {rows}; {len(first.sessions)} sessions, tried {first.tries}"
    )


def _look(world: World, node: SimNode) -> None:
    """Somebody goes to sleep: nobody has to wake it to ask what it owes."""
    parent = world.nodes[node.member.parent]
    if parent.up and not parent.asleep:
        _owes(world, node)


def _owes(world: World, node: SimNode) -> str:
    """What a node has to give or to get. Nobody who sleeps is asked again where nothing has changed since."""
    if not world.shape.open_max:
        return _owes_now(world, node)
    parent = world.nodes.get(node.member.parent, node)
    state = (node.boots, node.up, node.restoring, node.changes, parent.boots, parent.grown())
    if world.owes.get(node.id) != state:
        if found := _owes_now(world, node):
            return found
        world.owes[node.id] = state
    return ""


def _owes_now(world: World, node: SimNode) -> str:
    if not node.up or node.restoring or node.trust.catalog_version != 2:
        return "down" if not node.up else "restoring" if node.restoring else "an old catalog"
    if node.id in world.restored | world.burnt and node.trust.me.incarnation == 1:
        return "in its first life"
    parent = node.trust.parent
    if parent is None:
        return ""
    above = world.nodes[parent.node]
    up, down = node.store.peer(parent.node), above.store.peer(node.id)
    if up is None or down is None:
        return "never met its parent"
    if ailments.damaged(node):
        return "something is damaged"
    if node.store.backlog_up(up.acked).segments:
        return "the parent lacks something of it"
    if node.trust.me.stands_for:
        owed = bool(above.store.backlog_standby(node.id, down.acked).segments)
    else:
        owed = bool(above.store.backlog_down(node.trust.me.scope, down.acked).segments)
    if owed or node.store.to_make_again():
        return "it lacks something of its parent" if owed else "something is to be made again"
    told = witness.owed(above.store, above.trust, node.trust.me, up.witnessed or 0)[0]
    return "witnesses" if told is not None and told.heads else ""
