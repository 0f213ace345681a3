"""The nodes that the simulator runs: keys, certificates and empty stores, made once for a process and copied for each
seed."""

from __future__ import annotations

import atexit
import hashlib
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cache
from itertools import accumulate
from pathlib import Path

import msgspec

from fednode.crypto import certs, issuing
from fednode.crypto.issuing import Grant
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.node import sums
from fednode.node.home import NodeKeys
from fednode.node.projection import Projector
from fednode.node.store import Store
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync.change import CATALOG, NODES, Change
from fednode.sync.identity import LEVELS, node_payload
from sim.datasets import catalog
from sim.quick import mode

START_MS = 1_780_000_000_000
DAY_MS = 86_400_000
NODE_DAYS = 31 * 30
NOBODY = b"a nobody's store"  # the id of no node's store
DIGITS = (2, 2, 2, 3, 3)  # of an area's code, more at each level
ENDS = tuple(accumulate(DIGITS))
COUNTIES = ("130102", "130104", "130202", "130203")
TOWNSHIPS = tuple(f"{county}00{number}" for county in COUNTIES for number in (1, 2))


@dataclass(frozen=True, slots=True)
class Shape:
    """How large the simulated province is, and how much happens in it. `tree`: level and nodes, from the top;
    `faults_ms`: until faults stop; `busy`: villages where most of the work is done, of which the first `apart` are cut
    off for half of the time, the next `batteries` for a third with clocks that lose the time, and the last, where there
    are `sticks`, for all of it; `broken`: villages whose clocks jump, or stand still; `restored`: those whose operator
    restores an old backup; `parted`, `crashed`: how often a node is cut off, or loses power, by chance; `promoted`:
    nodes with a standby, which fail; `erased_there`: erases of what each of them wrote; `persistent`: they fail as soon
    as they may; else one that may not when its time has come does not fail at all. `stretch`: how much slower all goes
    than in six minutes, where a story is told over days; `frail`: lines are slow, or silent in one direction, and disks
    do not take what is written. `open_max`: so many nodes are open at once, the others sleep (`sim.sleeping`), and
    meet their parents in windows: a village `meetings` times, everybody else `OFTEN` times as often; 0: all are open,
    and connected, all the time. `naps`: nodes of any level that stop and start again. `calm`: what goes
    wrong by chance (`Faults`) does so many times less often. `full`: disks that are, for a while; `flipped`: bits."""

    tree: tuple[tuple[str, tuple[str, ...]], ...]
    faults_ms: int
    writes: int
    busy: int
    apart: int
    batteries: int
    corrections: int
    erases: int
    sticks: int
    broken: int
    restored: int
    parted: int
    crashed: int
    promoted: int
    erased_there: int = 0
    persistent: bool = False
    stretch: int = 1
    frail: bool = True
    open_max: int = 0
    meetings: int = 8
    naps: int = 12
    calm: int = 1
    full: int = 3
    flipped: int = 6


OFTEN = 4  # times as often as a village whoever else meets its parent, where there are windows
LARGE = Shape(
    (
        ("province", ("13",)),
        ("city", ("1301", "1302")),
        ("county", COUNTIES),
        ("township", TOWNSHIPS),
        ("village", tuple(f"{town}00{number}" for town in TOWNSHIPS for number in (1, 2))),
    ),
    *(6 * 60 * 1000, 40, 5, 2, 2, 14, 8, 12, 5, 2, 4, 2, 4),
)
SMALL = Shape(  # 7 nodes and their standbys
    (
        ("province", ("13",)),
        ("city", ("1301",)),
        ("county", ("130102", "130104")),
        ("village", ("130102001001", "130102001002", "130104001001")),
    ),
    *(150 * 1000, 10, 3, 1, 0, 4, 3, 0, 2, 0, 2, 1, 2, 3, True, 1, False),
)


def of_size(count: int) -> Shape:
    """A province of so many nodes: each has as few children as five levels allow, and the last level is filled as far
    as that goes."""
    fan_out = next(n for n in range(1, 99) if sum(n**depth for depth in range(5)) >= count)
    found = level = ["13"]
    for digits in DIGITS[1:]:
        level = [f"{one}{number:0{digits}}" for one in level for number in range(1, fan_out + 1)]
        found = [*found, *level]
    return of_codes(found[:count])


def of_codes(codes: Sequence[str]) -> Shape:
    """A province of these areas, parents first."""
    levels: dict[str, list[str]] = {}
    for code in codes:
        levels.setdefault(LEVELS[ENDS.index(len(code))], []).append(code)
    return replace(LARGE, tree=tuple((level, tuple(nodes)) for level, nodes in levels.items()))


def codes_of(divisions: Path, count: int = 0) -> list[str]:
    """The areas of a real province (the first column of a CSV file), parents first; whole branches, as far as `count`
    goes."""
    with divisions.open(encoding="utf-8") as lines:
        codes = sorted(line.split(",", 1)[0] for line in lines if line[:2].isdigit())
    chosen = codes[:count] if count else codes  # sorted: what lies below a node follows it
    return sorted(chosen, key=lambda one: (len(one), one))


def over_days(shape: Shape, days: int) -> Shape:
    """The same story told over days; of more nodes, or for more days, than 31 for 30 there is more to tell."""
    nodes, villages = sum(len(level) for _, level in shape.tree), len(shape.tree[-1][1])
    much = max(1, days * nodes // NODE_DAYS)
    more = {name: getattr(shape, name) * much for name in ("writes", "corrections", "erases", "sticks", "parted")}
    return replace(
        shape,
        **more,
        faults_ms=days * DAY_MS,
        stretch=days * DAY_MS // shape.faults_ms,
        crashed=shape.crashed * much,
        meetings=days,
        busy=min(shape.busy * much, villages),
        restored=min(shape.restored * much, villages),
    )


def fast_folder() -> Path:
    """Memory if there is a file system for it: the simulator's power cuts are its own, the disk's speed is not its
    subject."""
    return Path("/dev/shm") if Path("/dev/shm").is_dir() else Path(tempfile.gettempdir())


@dataclass(frozen=True, slots=True)
class Member:
    """One node's identity. `chain`: own certificate first, root last."""

    node: str
    level: str
    parent: str
    keys: NodeKeys
    chain: tuple[bytes, ...]


def _seed(name: str, size: int = 32) -> bytes:
    return hashlib.shake_128(f"simulator {name}".encode()).digest(size)


def _keys(node: str) -> NodeKeys:
    return NodeKeys(
        SigningKey.from_seed(_seed(f"{node} sign")),
        SealKey.from_seed(_seed(f"{node} seal")),
        TlsKey.from_seed(_seed(f"{node} tls", 40)),
    )


def _nodes(shape: Shape) -> list[tuple[str, str, str]]:
    """(node, level, parent), parents first."""
    names = {node for _, nodes in shape.tree for node in nodes}

    def above(node: str) -> str:
        return next((node[:end] for end in reversed(ENDS) if end < len(node) and node[:end] in names), "")

    return [(node, level, above(node)) for level, nodes in shape.tree for node in nodes]


@cache
def members(shape: Shape = LARGE) -> dict[str, Member]:
    """Every node by its id."""
    now_s = START_MS // 1000
    root = issuing.make_root("hebei", ("13",), LEVELS, root_key(), now_s=now_s, days=3650, serial=1)
    found: dict[str, Member] = {}
    for serial, (node, level, parent) in enumerate(_nodes(shape), 2):
        keys = _keys(node)
        request = issuing.parse_request(issuing.make_request(node, keys.tls, keys.sign, keys.seal))
        above = found[parent].chain if parent else (root,)
        issuer_key = found[parent].keys.tls if parent else root_key()
        grant = Grant(node, level, (node,), 1, 3000, serial)
        der = issuing.issue(request, grant, certs.parse(above[0]), issuer_key, LEVELS, now_s=now_s)
        found[node] = Member(node, level, parent, keys, (der, *above))
    return found


def root_key() -> TlsKey:
    """The domain's, which lies in a safe."""
    return TlsKey.from_seed(_seed("root", 40))


def store_id_of(node: str) -> bytes:
    """Of a node's first store."""
    return _seed(f"{node} store", 16)


@cache
def standby_of(shape: Shape, node: str) -> Member:
    """A node's first standby, certified by it."""
    primary, name = members(shape)[node], f"{node}-s1"
    keys = _keys(name)
    request = issuing.parse_request(issuing.make_request(name, keys.tls, keys.sign, keys.seal))
    grant = Grant(name, primary.level, (node,), 1, 3000, int(node) + 1000, standby=True)
    issuer = certs.parse(primary.chain[0])
    der = issuing.issue(request, grant, issuer, primary.keys.tls, LEVELS, now_s=START_MS // 1000)
    return Member(name, primary.level, node, keys, (der, *primary.chain))


@cache
def blank(_mode: str) -> Path:
    """A folder with the databases of a node that has nothing, not even a name. One for each mode of `quick`."""
    folder = _folder("fednode-sim-blank-")
    member = members()["13"]
    store = Store.create(folder / "log.db", store_id=NOBODY, stash_key=member.keys.stash_key)
    Projector(folder / "state.db", store, Trust.load(store, member.chain, member.node)).close()
    store.close()
    return folder


def _sums(mode: str, node: str) -> tuple[bytes, bytes]:
    """The sum over `meta` (`node.sums`) of a store without a name, and of one with this node's."""
    was = _sum_of_blank(mode)
    nobody, named = (sums.row_hash("meta", ("store_id", one)) for one in (NOBODY, store_id_of(node)))
    return was, ((int.from_bytes(was, "big") - nobody + named) % (1 << 64)).to_bytes(8, "big")


@cache
def _sum_of_blank(mode: str) -> bytes:
    with closing(Store.read(blank(mode) / "log.db", stash_key=members()["13"].keys.stash_key)) as store:
        return bytes(store.meta(f"{sums.SUM}meta"))


def home_of(home: Path, member: Member, children: Sequence[Member]) -> None:
    """A node's home: a copy of what nobody has, with its name in it, its children enrolled, and the catalog published
    at the province."""
    home.mkdir(exist_ok=True)
    for name in ("log.db", "state.db"):
        data = (blank(mode()) / name).read_bytes()
        assert data.count(NOBODY) == 1
        data = data.replace(NOBODY, store_id_of(member.node))
        if name == "log.db":
            was, now = _sums(mode(), member.node)
            assert data.count(was) == 1
            data = data.replace(was, now)
        (home / name).write_bytes(data)
    if member.parent and not children:
        return
    store = Store.open(home / "log.db", stash_key=member.keys.stash_key)
    trust = Trust.load(store, member.chain, member.node)
    writer = Writer(store, trust, member.keys, lambda: START_MS, lambda size, n=member.node: _seed(f"{n} salt", size))
    if children:
        enrolments = [Change(one.node.encode(), msgspec.json.encode(node_payload(one.chain[0]))) for one in children]
        writer.local(NODES, trust.area, enrolments)
    if not member.parent:
        writer.local(CATALOG, trust.area, [Change(b"catalog", catalog(1).to_json())])
    Projector(home / "state.db", store, trust).close()
    store.close()


def children_in(shape: Shape) -> dict[str, list[Member]]:
    """Who is right below whom; nobody is below the lowest."""
    found: dict[str, list[Member]] = {}
    for member in members(shape).values():
        found.setdefault(member.parent or member.node, []).append(
            member
        )  # the root enrols nobody: its log is no node's
    return found


@cache
def template(shape: Shape, _mode: str) -> Path:
    """A folder with a home for each node. One for each mode of `quick`."""
    folder = _folder("fednode-sim-template-")
    children = children_in(shape)
    for member in members(shape).values():
        home_of(folder / member.node, member, children.get(member.node, []))
    return folder


def _folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=fast_folder()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def copy_to(folder: Path, shape: Shape = LARGE) -> None:
    """Fresh homes for one run."""
    shutil.copytree(template(replace(LARGE, tree=shape.tree), mode()), folder, dirs_exist_ok=True)
