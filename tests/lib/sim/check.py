"""What must hold when a story is over. Numbers are those of shared/INVARIANTS.md.

1  what was acknowledged to an operator is in the node's own log; 2, 3: what a peer acknowledged, it holds
5, 9  every node holds the same records as the province, for the areas in its scope
6, 10  every log is whole, in order, and leads to the roots that were signed
14, 15  what was erased is stripped wherever it is held, and no record shows it
16, 18  nothing was refused of a node in good standing; 20: a revoked node's late changes were
13  a node can show who above it has signed the newest checkpoint of each of its logs
17, 18  where some lie: who does not holds nothing of an honest node's log but what that wrote. All else is asked of
    nodes that are neither liars nor below one, and need none of them for it
24  a winner's time is not in the future, however wrong its author's clock
"""

from __future__ import annotations

from bisect import bisect_left

from fednode.node import witness
from fednode.node.audit import verify_store
from fednode.sync import segment as seg
from fednode.sync.change import LogName
from fednode.sync.clock import milliseconds
from fednode.sync.errors import PeerError
from fednode.sync.identity import covers
from sim.hierarchy import START_MS
from sim.world import SimNode, World

HELD_MAX = 1_000_000
Rows = dict[tuple[str, str, str], tuple[int, str | None]]
EXPECTED_OF_THE_REVOKED = frozenset(("FN-5420", "FN-5511", "FN-5508", "FN-6413", "FN-5430", "FN-5431"))
# FN-6409 (seed 30): what a rolled-back store writes on top of its fork, where the parent's history of that log ends, is
# stamped earlier than what was lost; the stamps are looked at before the root (FN-6411). It fences the node, too
# FN-5514, FN-5515: by stick, before the fence is up
EXPECTED_OF_THE_RESTORED = frozenset(
    ("FN-6409", "FN-6420", "FN-6411", "FN-6413", "FN-5412", "FN-5508", "FN-5513", "FN-5514", "FN-5515")
)
# by stick: one that was written before the fire (seed 12)
EXPECTED_OF_THE_BURNT = frozenset(("FN-5513",))
# by stick: what is damaged is not on it, and what follows in that log waits for what precedes it
EXPECTED_OF_THE_DAMAGED = frozenset(("FN-3508",))
# it goes on in its old life until it hears of the new one; FN-5523: by stick, what was sealed to who it was; FN-5443: a
# key that it gave or was given in its old life, or by its standby's name (docs/formats.md); FN-5519: who granted its
# new life was succeeded as well, and its successor has not heard of that yet (seed 75)
EXPECTED_OF_THE_SUCCEEDED = frozenset(("FN-5513", "FN-5508", "FN-5523", "FN-5443", "FN-5519"))


def check(world: World) -> int:
    """Every check; the number of records at the province. Raises AssertionError. Each node is looked at once: where
    most sleep it is woken for all of it."""
    everything = _Everything(world)
    promised = _promised(world)
    _refusals(world)
    _found(world)
    gone = {content: place for place, content in world.gone.items() if place in world.erased}
    for node in world.nodes.values():
        if node.id not in world.liars:
            _whole(world, node)
            _true(world, node)
        _acknowledged(world, node, promised.get(node.id, []))
        _erased(world, node)
        _gone(world, node, gone)
        _witnessed(world, node)
        everything.agrees(node)
    return len(everything.rows)


def _whole(world: World, node: SimNode) -> None:
    problems = verify_store(node.store, node.trust).problems
    if node.id in world.revoked & world.flipped:  # nobody gives it anything any more (seed 151)
        problems = [one for one in problems if (one.log, one.first) not in world.spoilt]
    assert not problems, f"{node.id}: {problems[:3]}"


def _true(world: World, node: SimNode) -> None:
    if not world.liars:
        return
    for log_id, name, size in node.store.logs():
        origin = world.nodes.get(name.origin)
        if not size or origin is None or name.origin in world.liars | world.restored or name.incarnation != 1:
            continue
        theirs = origin.store.log_id(name)
        there = origin.store.segment_at(theirs, size - 1) if theirs is not None else None
        assert there is not None, f"{node.id} holds more of {name} than its origin has written"
        here = node.store.segment_at(log_id, size - 1)
        assert here is not None
        mine, true = seg.parse(here.raw).header, seg.parse(there.raw).header
        assert (mine.end, mine.root) == (true.end, true.root), f"{node.id} holds another {name} than its origin wrote"


def _promised(world: World) -> dict[str, list[tuple[str, int]]]:
    """Who goes by what name now -> up to where it acknowledged which logs."""
    found: dict[str, list[tuple[str, int]]] = {}
    for acker, log, size in world.acked | world.written:
        acker = world.became.get(acker, acker)
        # what a fire took comes back from the others, and a revoked one neither takes nor gives any more (seeds 45, 47)
        if acker in world.liars:
            continue
        if acker in world.burnt and world.revoked & {acker, LogName.parse(log).origin}:
            continue
        if acker in world.revoked and world.nodes[acker].restoring:  # just when it took its own back (liars, seed 2)
            continue
        found.setdefault(acker, []).append((log, size))
    return found


def _acknowledged(world: World, node: SimNode, promised: list[tuple[str, int]]) -> None:
    for log, size in sorted(promised):
        held = node.store.log_state(LogName.parse(log)).size
        if held < size:
            held = max(held, _again(world, node.id, LogName.parse(log)))
        assert held >= size, f"{node.id} had acknowledged {log} up to {size}, and holds {held}"


def _again(world: World, acker: str, log: LogName) -> int:
    """Up to where a node has a log of an earlier life of a node above it, as it was written or as that made it again:
    its predecessor had acknowledged it, and nobody else but the old primary above had it (small, promoting, seed 66).
    What was erased before it could be made again is not: then the node has the erase (small, promoting, seed 751)."""
    origin = world.nodes.get(log.origin)
    if origin is None or log.origin == acker or not origin.store.is_held_back(log):
        return 0
    here, places = world.nodes[acker].store, dict[int, list[tuple[LogName, int]]]()
    sql = "select first, count, new_log, new_first from made_again where log = ?"
    for first, count, new, at in origin.store.rows(sql, str(log)):
        for i in range(count):
            places.setdefault(first + i, []).append((LogName.parse(new), at + i))
    gone = {seq for (seq,) in here.rows("select seq from erased where log = ?", str(log))}
    held = here.log_state(log).size
    while held in gone or any(here.log_state(new).size > at for new, at in places.get(held, ())):
        held += 1
    return held


def _late(world: World, ones: tuple[str, str], what: str) -> bool:
    """Whether what one refused is an old primary's, of a life that was over there, whose successor has made all of it
    again, and both have that. It may be one above, from which the other took it before it heard of the successor
    (small, promoting, seed 88: a county's old primary had heard of the city's next life; its successor, whose standby
    it is since, took the city's last in the life before). Or the other is the old primary itself, which is on the line
    to its issuer while that grants the succession: what is on its way then has no cosignature any more (seed 692).
    """
    try:
        log = LogName.parse(what)
    except PeerError:  # not about a segment
        return False
    if log.origin not in world.promoted:
        return False
    both = [world.became.get(one, one) for one in ones]
    held = max(world.nodes[one].store.log_state(log).size for one in both)
    others = [one for one in both if one != log.origin]
    return bool(others) and all(_again(world, one, log) >= held > 0 for one in others)


def _follows(world: World, ones: tuple[str, str], what: str) -> bool:
    """Whether what one refused follows, in its log, what it had refused of the same peer, and might (`_late`): nothing
    can be taken in without what precedes it (small, promoting, seed 927: the old primary had written three times)."""
    before = any(
        code == "FN-5412" and {node, peer} == {*ones} and log == what for node, peer, code, log in world.refusals
    )
    return before and _late(world, ones, what)


def _refusals(world: World) -> None:
    for node, peer, code, what in world.refusals:
        about_revoked = any(one in (node, peer) or f"/{one}/" in what or one in what for one in world.revoked)
        expected = about_revoked and code in EXPECTED_OF_THE_REVOKED
        about_restored = any(one in (node, peer) or f"/{one}/" in what or one in what for one in world.restored)
        expected = expected or (about_restored and code in EXPECTED_OF_THE_RESTORED)
        expected = expected or (code in EXPECTED_OF_THE_BURNT and bool(world.burnt & {node, peer}))
        expected = expected or (code in EXPECTED_OF_THE_SUCCEEDED and bool(world.promoted & {node, peer}))
        expected = expected or (code in EXPECTED_OF_THE_DAMAGED and bool(world.flipped & {node, peer}))
        expected = expected or any(one in (node, peer) or f"/{one}/" in what for one in world.liars)
        expected = expected or (code == "FN-5412" and _late(world, (node, peer), what))
        expected = expected or (code == "FN-6413" and _follows(world, (node, peer), what))
        assert expected, f"{node} refused {peer}: {code} {what}"


def _found(world: World) -> None:
    """12: every store that was rolled back was found, told to all above, and goes on in a new life. 22."""
    told = {tuple(key.split("/")[:2]) for _, dataset, key in rows(world.nodes["13"]) if dataset == "sys.alerts"}
    for node in sorted(world.restored - world.revoked - world.burnt):  # what burnt meanwhile nobody had to notice
        if world.astray(node):
            continue
        assert world.nodes[node].trust.me.incarnation > 1, f"{node} was rolled back, and nobody noticed"
        assert any(one == node for _, one in told), f"the province has not heard of {node}"


def _witnessed(world: World, node: SimNode) -> None:
    """The newest checkpoint of each of a node's own logs that goes up is signed by every node above, and it can show
    that."""
    if node.id in world.revoked or world.astray(node.id):
        return
    names = [one.node for one in node.trust.directory.path(node.id)[:-1]]
    for log_id, name, size in node.store.logs():
        if (name.origin, name.incarnation) != (node.id, node.trust.me.incarnation):
            continue
        if not node.trust.route(name).up or set(names) & world.revoked:
            continue
        signed = {one.witness for one in witness.kept(node.store, log_id) if one.size == size}
        assert signed >= set(names[:-1]), f"{node.id} cannot show who has signed {name} at {size}: {sorted(signed)}"


def _erased(world: World, node: SimNode) -> None:
    logs = {str(name): log_id for log_id, name, _ in node.store.logs()} if world.erased else {}
    for eraser, log, seq in sorted(one for one in world.erased if one[1] in logs):
        log_id = logs[log]
        held = node.store.segment_at(log_id, seq)
        columns = node.store.columns(held) if held is not None else None
        if held is None or columns is None or world.revoked & {eraser, node.id}:
            continue
        if world.astray(eraser) or world.astray(node.id):
            continue
        assert seq - held.first in columns.leaves, f"{node.id} holds what {eraser} erased: {log}#{seq}"
        node.projector.catch_up()
        for table in ("record", "superseded"):
            row = node.projector.connection.execute(
                f"select 1 from {table} where log = ? and seq = ?", (log_id, seq)
            ).fetchone()
            assert row is None, f"{node.id} has a {table} of {log}#{seq}, which {eraser} erased"


def _gone(world: World, node: SimNode, gone: dict[bytes, tuple[str, str, int]]) -> None:
    """14, 15: what was erased is in no log, of no life."""
    for held in node.store.segments(0, HELD_MAX) if gone else ():
        columns = node.store.columns(held)
        left = gone.keys() & set(columns.payloads) if columns is not None else ()
        told = f"{node.id} holds, in {held.name} from {held.first} on, what was erased as"
        assert node.id in world.revoked or not left, f"{told} {[gone[one] for one in left]}"


def rows(node: SimNode) -> Rows:
    """(area, dataset, key) -> (op, payload), of the winning versions."""
    node.projector.catch_up()
    found = node.projector.connection.execute(
        "select a.code, d.name, r.key, r.op, r.payload"
        " from record r join area a on a.id = r.area join dataset d on d.id = r.dataset"
    ).fetchall()
    return {(area, dataset, key): (op, payload) for area, dataset, key, op, payload in found}


class _Everything:
    """The province's records, which all others are compared with."""

    def __init__(self, world: World) -> None:
        province = world.nodes["13"]
        self._world, self.rows = world, rows(province)
        self._places = sorted(self.rows)  # those of an area and of what lies in it follow each other
        late = province.projector.connection.execute("select max(effective) from record").fetchone()[0]
        if late is not None:
            latest = milliseconds(late)
            assert latest <= world.clock.now_ms + 5 * 60_000, f"a record is from {latest - START_MS} ms after the start"

    def _inside(self, scope: tuple[str, ...]) -> Rows:
        found: Rows = {}
        for area in scope:
            for at in range(bisect_left(self._places, (area,)), len(self._places)):
                if not covers(scope, self._places[at][0]):
                    break
                found[self._places[at]] = self.rows[self._places[at]]
        return found

    def agrees(self, node: SimNode) -> None:
        """A node holds the same as the province for its areas, and nothing of any other."""
        world = self._world
        if node.id in world.revoked or world.astray(node.id):
            return
        mine = rows(node)
        scope = node.trust.me.scope
        strangers = {area for area, *_ in mine if not covers(scope, area)}
        assert not strangers, f"{node.id} holds records of {sorted(strangers)}"
        for _, name, _ in node.store.logs():
            theirs = name.audience and not covers(scope, name.audience)
            assert not theirs, f"{node.id} holds {name}, which is for another"
        expected = self._inside(scope)
        for place in expected.keys() | mine.keys():
            if place[0] in world.revoked or world.astray(place[0]):
                continue
            assert mine.get(place) == expected.get(place), f"{node.id} and the province differ at {place}"
