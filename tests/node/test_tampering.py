"""Nothing can be altered, invented or left out unseen: each kind of tampering is planted, and the test says who finds
it, when, and as what.

The scene: a village's log has gone up through township, county and city (which only carries: it is no reader) to the
province. Two segments more have come as far as the county. Then somebody with the county's disk, and with its keys,
tampers with one of them before the city has it (`RELAYED`); or somebody with a disk tampers with what has long been
stored there (`STORED`); or an origin itself plays false (`PLAYED`). "refused": at first contact, nothing of it is
believed, the evidence is kept. "verify": `fednode audit verify` at that node.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chain import CITY, COUNTY, PATH, PROVINCE, SIBLING, TOWNSHIP, VILLAGE, WORLD, Chain, Node, forged, resealed
from fednode.crypto import canonical
from fednode.node.projection import Projector
from fednode.sync import segment as seg
from fednode.sync.change import CATALOG, DELETE, NODES, Change, Columns, LogName
from fednode.sync.effects import Commit
from fednode.sync.errors import Refused
from fednode.sync.identity import node_payload, revocation_payload
from fednode.sync.log import OwnSegment
from fednode.sync.strip import erase_change
from fednode.sync.wire import Want
from world import NOW_S, shop

LOG = WORLD.log(VILLAGE)
KEPT = {f"k{i}" for i in range(6)}


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    for start in (0, 3, 6, 9):
        made[VILLAGE].write(*(shop(f"k{i}", VILLAGE) for i in range(start, start + 3)))
        made[VILLAGE].now_ms += 1
        made.up(PATH if start < 6 else PATH[:3])
    yield made
    made.close()


# ---------------------------------------------------------------- what is done


Alter = Callable[[Columns], Columns]


def _with(values: list[bytes], position: int, value: bytes) -> list[bytes]:
    return [*values[:position], value, *values[position + 1 :]]


def payload(columns: Columns) -> Columns:
    return replace(columns, payloads=_with(columns.payloads, 1, shop("k7", VILLAGE, note="forged").payload))


def key(columns: Columns) -> Columns:
    return replace(columns, keys=_with(columns.keys, 1, b"forged"))


def time(columns: Columns) -> Columns:
    return replace(columns, hlcs=[columns.hlcs[0] - 1, *columns.hlcs[1:]])


def operation(columns: Columns) -> Columns:
    ops = columns.ops[:1] + bytes((DELETE,)) + columns.ops[2:]
    return replace(columns, ops=ops, payloads=_with(columns.payloads, 1, b""))


def order(columns: Columns) -> Columns:
    def swapped(values: list[bytes]) -> list[bytes]:
        return [values[1], values[0], *values[2:]]

    return replace(columns, keys=swapped(columns.keys), payloads=swapped(columns.payloads))


def _kept(columns: Columns, positions: list[int]) -> Columns:
    return replace(
        columns,
        keys=[columns.keys[i] for i in positions],
        hlcs=[columns.hlcs[i] for i in positions],
        ops=bytes(columns.ops[i] for i in positions),
        payloads=[columns.payloads[i] for i in positions],
    )


def head_left_out(columns: Columns) -> Columns:
    return _kept(columns, [1, 2])


def middle_left_out(columns: Columns) -> Columns:
    return _kept(columns, [0, 2])


def tail_left_out(columns: Columns) -> Columns:
    return _kept(columns, [0, 1])


def invented(columns: Columns) -> Columns:
    one = shop("invented", VILLAGE)
    return replace(
        columns,
        keys=[*columns.keys, one.key],
        hlcs=[*columns.hlcs, columns.hlcs[-1] + 1],
        ops=columns.ops + columns.ops[:1],
        payloads=[*columns.payloads, one.payload],
    )


ALTERATIONS = (
    *(payload, key, time, operation, order),
    *(head_left_out, middle_left_out, tail_left_out, invented),
)


SHORTER = (head_left_out, middle_left_out, tail_left_out, invented)


def tamper(node: Node, alter: Alter, number: int = 6, **forging: Any) -> None:
    """Put an altered segment in the place of the one that holds change `number` of the village's log."""
    held = node.held(LOG, number)
    envelope = seg.parse(held.raw)
    raw, content_key = forged(envelope, alter(node.columns(held)), by=node.node, **forging)
    node.replace(held.lsn, raw, content_key)


def reseal(node: Node, alter: Alter) -> None:
    """As `tamper`, in the node's own name, as if it had had to strip something."""
    held = node.held(LOG, 6)
    node.replace(held.lsn, *resealed(seg.parse(held.raw), alter(node.columns(held)), by=node.node))


def as_it_is(columns: Columns) -> Columns:
    return columns


# ---------------------------------------------------------------- by a relay, on the way


@dataclass(frozen=True)
class Relayed:
    """`refused`: who refuses it when it comes, as what."""

    name: str
    plant: Callable[[Chain], None]
    refused: tuple[str, str]


def _relayed(name: str, plant: Callable[[Node], None], who: str, code: str) -> Relayed:
    return Relayed(name, lambda chain: plant(chain[COUNTY]), (who, code))


def _row(column: str, value: object, number: int = 6) -> Callable[[Node], None]:
    def plant(node: Node) -> None:
        lsn = node.held(LOG, number).lsn
        with node.disk() as c:
            c.execute(f"update segment set {column} = ? where lsn = ?", (value, lsn))

    return plant


def _cosignature_by_itself(node: Node) -> None:
    held = node.held(LOG, 6)
    _row("first_signature", WORLD.cosignature(COUNTY, held.raw).signature)(node)


def _another_log(name: LogName, first: int = 6) -> Callable[[Node], None]:
    return lambda node: tamper(node, as_it_is, log=name, first=first)


RESEALED = dict.fromkeys(SHORTER, (CITY, "FN-6406"))
RELAYED = (
    *(
        _relayed(f"{alter.__name__}, as if the origin had signed", lambda c, a=alter: tamper(c, a), CITY, "FN-6406")  # type: ignore[misc]
        for alter in ALTERATIONS
    ),
    *(
        _relayed(
            *(f"{alter.__name__}, sealed again", lambda c, a=alter: reseal(c, a)),  # type: ignore[misc]
            *(PROVINCE, "FN-6409" if alter in SHORTER else "FN-6411"),
        )
        for alter in ALTERATIONS
    ),
    _relayed("signed anew by the relay", lambda c: tamper(c, payload, signer=COUNTY), CITY, "FN-6406"),
    _relayed("signed anew by a sibling", lambda c: tamper(c, payload, signer=SIBLING), CITY, "FN-6406"),
    _relayed("moved to another dataset", _another_log(WORLD.log(VILLAGE, "other")), CITY, "FN-5416"),
    _relayed("moved to the relay's own log", _another_log(WORLD.log(COUNTY), 0), CITY, "FN-6406"),
    _relayed("by a node that nobody enrolled", _another_log(WORLD.log("130102001999")), CITY, "FN-5411"),
    _relayed("by an earlier life of the node", _another_log(WORLD.log(VILLAGE, incarnation=2)), CITY, "FN-5412"),
    _relayed("by a node of another county", _another_log(WORLD.log(SIBLING)), CITY, "FN-5413"),
    _relayed("the first witness's time altered", _row("first_time", 1_000_000_000), CITY, "FN-6407"),
    _relayed("the relay as first witness", _cosignature_by_itself, CITY, "FN-6407"),
    _relayed("the first witness left out", _row("first_time", None), CITY, "FN-6408"),
)


@pytest.mark.parametrize("case", RELAYED, ids=lambda case: case.name)
def test_a_relay_is_found_at_first_contact(chain: Chain, case: Relayed) -> None:
    case.plant(chain)
    chain[SIBLING].write(shop("elsewhere", SIBLING))
    chain.up(PATH[2:])
    chain.up((SIBLING, CITY, PROVINCE))
    who, code = case.refused
    assert code in chain[who].refusals()
    found = set(chain[PROVINCE].records())
    assert found == KEPT | {"elsewhere"}  # nothing forged came in, and the rest of the mesh goes on


def test_what_a_relay_leaves_out_is_a_gap(chain: Chain) -> None:
    """The next segment shows it; what follows is asked for again and not believed before it is whole."""
    lsn = chain[COUNTY].held(LOG, 6).lsn
    with chain[COUNTY].disk() as c:
        c.execute("delete from segment where lsn = ?", (lsn,))
    (done,) = chain[COUNTY].send(chain[CITY])
    assert done.gap == Want(str(LOG), 6)
    assert set(chain[PROVINCE].records()) == KEPT
    assert chain[COUNTY].verified() == {"FN-6602"}


# ---------------------------------------------------------------- at a disk, at rest


@dataclass(frozen=True)
class Stored:
    """`verify`: what `fednode audit verify` at that node says; `serves`: whether the node can still read its log."""

    name: str
    plant: Callable[[Node], None]
    verify: str
    node: str = PROVINCE


def _sql(*statements: str) -> Callable[[Node], None]:
    def plant(node: Node) -> None:
        with node.disk() as c:
            for statement in statements:
                c.execute(statement.format(log=f"(select id from log where name = '{LOG}')"))

    return plant


def _flip(node: Node) -> None:
    held = node.held(LOG, 0)
    raw = bytearray(held.raw)
    raw[len(raw) // 2] ^= 1
    with node.disk() as c:
        c.execute("update segment set data = ? where lsn = ?", (bytes(raw), held.lsn))


def _forge(alter: Alter, **forging: Any) -> Callable[[Node], None]:
    return lambda node: tamper(node, alter, 3, **forging)


STORED = (
    Stored("a bit flipped", _flip, "FN-6601"),
    Stored(
        "the hash altered",
        _sql("update segment set sha256 = zeroblob(32) where log_id = {log} and first = 3"),
        "FN-6601",
    ),
    *(
        Stored(f"{alter.__name__}, by an insider", _forge(alter), "FN-6604" if alter in SHORTER else "FN-6406")
        for alter in ALTERATIONS
    ),
    Stored("signed anew by the insider", _forge(payload, signer=PROVINCE), "FN-6406"),
    Stored("the head gone", _sql("delete from segment where log_id = {log} and first = 0"), "FN-6602"),
    Stored("the tail gone", _sql("delete from segment where log_id = {log} and first = 3"), "FN-6602"),
    Stored(
        "two segments swapped",
        _sql(
            "update segment set first = 9 where log_id = {log} and first = 0",
            "update segment set first = 0 where log_id = {log} and first = 3",
            "update segment set first = 3 where log_id = {log} and first = 9",
        ),
        "FN-6604",
    ),
    Stored(
        "the log's root altered",
        _sql("update log set frontier = (select frontier from log where size = 0) where id = {log}"),
        "FN-6631",
    ),
    Stored("the log said to be longer", _sql("update log set size = 7 where id = {log}"), "FN-6602"),
    *(
        Stored(
            f"a kept node of the tree altered, level {level}",
            _sql(f"update tree set hash = zeroblob(32) where log_id = {{log}} and level = {level} and idx = {index}"),
            "FN-6635",
        )
        for level, index in ((1, 0), (1, 2), (2, 0))
    ),
    Stored(
        "a node of the tree planted where none is kept",
        _sql("insert into tree values ({log}, 0, 4, zeroblob(32))"),
        "FN-6635",
    ),
    Stored(
        "a cosignature altered", _sql("update segment set first_time = first_time - 60 where log_id = {log}"), "FN-6407"
    ),
)


@pytest.mark.parametrize("case", STORED, ids=lambda case: case.name)
def test_at_rest_it_is_found_by_verify(chain: Chain, case: Stored) -> None:
    assert chain[case.node].verified() == set()
    case.plant(chain[case.node])
    assert case.verify in chain[case.node].verified()


def test_altered_nodes_of_the_tree_are_put_right_by_verify(chain: Chain) -> None:
    """They are a projection: what they were before is known from the leaves."""
    node, kept = chain[PROVINCE], "select * from tree order by 1, 2, 3"
    before = node.store.rows(kept)
    with node.disk() as c:
        assert c.execute("update tree set hash = zeroblob(32) where log_id > 0").rowcount > 2
    assert node.verified() == {"FN-6635"}
    assert node.store.rows(kept) == before
    assert node.verified() == set()


def test_an_edited_record_table_is_made_again_from_the_log(chain: Chain) -> None:
    """state.db is a projection: whoever edits it deceives until `fednode rebuild`, and no longer."""
    node = chain[PROVINCE]
    rows = "select key, op, payload from record order by key"
    with closing(Projector(node.folder / "edited.db", node.store, node.trust)) as projector:
        projector.catch_up()
        before = projector.connection.execute(rows).fetchall()
        projector.connection.execute("update record set payload = replace(payload, 'k1', 'k9') where key = 'k1'")
        assert projector.connection.execute(rows).fetchall() != before
        projector.rebuild()
        assert projector.connection.execute(rows).fetchall() == before


# ---------------------------------------------------------------- by an origin itself


@dataclass(frozen=True)
class Played:
    """`sender`'s own segment, signed with its own key, and yet not lawful. `to`: who refuses it."""

    name: str
    sender: str
    make: Callable[[Chain], OwnSegment]
    to: str
    code: str


def _system(node: str, dataset: str, *payloads: object) -> Callable[[], OwnSegment]:
    changes = [Change(f"c{i}".encode(), canonical.dumps(one)) for i, one in enumerate(payloads)]
    return lambda: WORLD.segment(node, changes, dataset=dataset)


def _catalog(version: int) -> object:
    return msgspec.json.decode(replace(WORLD.catalog, version=version).to_json())


def _enrolled(node: str, **more: Any) -> object:
    return node_payload(WORLD.certificate(node, **more))


def _next(chain: Chain, at: str, node: str, *changes: Change, **more: Any) -> OwnSegment:
    """A segment that continues a node's log as another holds it."""
    state = chain[at].store.log_state(WORLD.log(node, more.pop("dataset", "shop"), more.get("audience", "")))
    return WORLD.segment(node, changes, state=state, hlc=max(state.last_hlc + 1, (NOW_S * 1000) << 16), **more)


def _system(node: str, at: str, dataset: str, payload: object) -> Callable[[Chain], OwnSegment]:
    change = Change(b"c", canonical.dumps(payload))
    return lambda chain: _next(chain, at, node, change, dataset=dataset)


def _catalog(version: int) -> object:
    return msgspec.json.decode(replace(WORLD.catalog, version=version).to_json())


def _hijack() -> object:
    der = WORLD.certificate(TOWNSHIP, level="township", parent=SIBLING, scope=("130104001",), life=2)
    return node_payload(der)


PLAYED = (
    Played(
        *("a record of another area", VILLAGE),
        lambda chain: _next(chain, TOWNSHIP, VILLAGE, shop("x", SIBLING)),
        *(TOWNSHIP, "FN-5415"),
    ),
    Played(
        *("a log for another area", COUNTY),
        lambda chain: _next(chain, CITY, COUNTY, shop("x", SIBLING), audience=SIBLING),
        *(CITY, "FN-5415"),
    ),
    Played(
        *("a dataset that its level may not write", CITY),
        lambda chain: _next(chain, PROVINCE, CITY, shop("x", CITY)),
        *(PROVINCE, "FN-5417"),
    ),
    Played("a catalog of its own", CITY, _system(CITY, PROVINCE, CATALOG, _catalog(9)), PROVINCE, "FN-5417"),
    Played("an older catalog", PROVINCE, _system(PROVINCE, CITY, CATALOG, _catalog(1)), CITY, "FN-6210"),
    Played("a child of another's, in a new life", SIBLING, _system(SIBLING, CITY, NODES, _hijack()), CITY, "FN-5430"),
    Played(
        *("a revocation of who is not below it", SIBLING),
        _system(SIBLING, CITY, NODES, revocation_payload(COUNTY, 1, NOW_S * 1000, "x")),
        *(CITY, "FN-5431"),
    ),
)


@pytest.mark.parametrize("case", PLAYED, ids=lambda case: case.name)
def test_an_origin_that_plays_false_is_refused(chain: Chain, case: Played) -> None:
    for node in chain.nodes.values():
        node.trust.catalog = replace(WORLD.catalog, version=2)
    (done,) = chain[case.to].take(case.sender, Commit(1, case.make(chain).raw))
    assert done.refused == case.code
    assert chain[case.to].refusals() == {case.code}


def test_two_histories_of_one_log_are_found_by_the_first_who_sees_both(chain: Chain, tmp_path: Path) -> None:
    """A home that was copied, or a history written anew with the origin's own key: both heads are kept."""
    clone = chain[VILLAGE].copy(tmp_path / "clone")
    chain[VILLAGE].write(shop("one", VILLAGE))
    for name in ("other", "later"):
        clone.now_ms += 1000
        clone.write(shop(name, VILLAGE))
    chain.up()
    assert [one.refused for one in clone.send(chain[TOWNSHIP])] == ["FN-6420", "FN-6411"]  # nor what was built on it
    assert "FN-6420" in chain[TOWNSHIP].refusals()
    with pytest.raises(Refused, match="FN-5303"):  # the clone has heard it, and writes no more
        clone.write(shop("again", VILLAGE))
    chain[SIBLING].write(shop("elsewhere", SIBLING))
    chain.up((SIBLING, CITY, PROVINCE))
    assert {"one", "elsewhere"} <= set(chain[PROVINCE].records())
    assert "other" not in chain[PROVINCE].records()
    clone.store.close()


def test_after_its_revocation_a_node_is_not_believed(chain: Chain) -> None:
    now_ms = (NOW_S + 60) * 1000
    for node in chain.nodes.values():
        node.trust.directory.apply(COUNTY, revocation_payload(VILLAGE, 1, now_ms, "stolen"))
        node.now_ms = now_ms + 60_000
    chain[VILLAGE].write(shop("stolen", VILLAGE))
    assert {one.refused for one in chain[VILLAGE].send(chain[TOWNSHIP])} == {"FN-5420"}
    chain.up(PATH[2:])
    assert set(chain[PROVINCE].records()) == KEPT | {f"k{i}" for i in range(6, 12)}  # witnessed before


def test_a_clock_in_the_future_wins_nothing(chain: Chain) -> None:
    """The first witness's time bounds the village's stamp, so the county's later correction is the winner."""
    chain[VILLAGE].now_ms = 2_082_758_400_000  # 2036
    chain[VILLAGE].write(shop("k0", VILLAGE, note="from 2036"))
    chain.up()
    for node in chain.nodes.values():
        node.now_ms = (NOW_S + 3600) * 1000
    chain[COUNTY].write(shop("k0", VILLAGE, note="corrected"), audience=VILLAGE)
    chain.up(PATH[2:])
    assert json.loads(chain[PROVINCE].records()["k0"])["note"] == "corrected"


def test_what_is_replayed_changes_nothing(chain: Chain) -> None:
    chain.up()
    before = chain[PROVINCE].records()
    for number in (0, 3, 6, 9):
        held = chain[CITY].held(LOG, number)
        given = chain[CITY].store.first_parent(held.lsn)
        assert chain[PROVINCE].take(CITY, Commit(held.lsn, held.raw, given))[0].refused == ""
    assert chain[PROVINCE].records() == before
    assert chain[PROVINCE].verified() == set()


# ---------------------------------------------------------------- what is to be forgotten


def test_what_was_erased_does_not_come_back(chain: Chain) -> None:
    """Replayed as it was before the erase, by a peer or by the origin itself: nobody takes it."""
    before = {node: chain[node].held(LOG, 0) for node in (VILLAGE, CITY, PROVINCE)}
    witness = chain[CITY].store.first_parent(before[CITY].lsn)
    chain[COUNTY].writer.local("shop", VILLAGE, [erase_change(LOG, 0, "a court's order")])
    chain.up()
    chain.up(PATH[2:])
    assert set(chain[PROVINCE].records()) == {f"k{i}" for i in range(1, 12)}
    for lsn in (before[CITY].lsn, 999):
        assert not chain[PROVINCE].take(CITY, Commit(lsn, before[CITY].raw, witness))[0].refused
    for node in (COUNTY, PROVINCE):
        held = chain[node].held(LOG, 0)
        assert set(chain[node].columns(held).leaves) == {0}
    assert "k0" not in chain[PROVINCE].records()
    assert chain[CITY].held(LOG, 0).raw != before[CITY].raw  # the carrier has the stripped one, too
    assert {node: chain[node].verified() for node in PATH} == {node: set() for node in PATH}


def test_a_relay_that_strips_what_nobody_erased_is_found(chain: Chain) -> None:
    """The leaf is left, so the gap is seen, and said, by the first reader above."""
    held = chain[COUNTY].held(LOG, 6)
    reseal(chain[COUNTY], as_it_is)
    chain.up(PATH[2:])
    with chain[PROVINCE].disk() as c:
        assert c.execute("select log, first from withheld").fetchall() == [(str(LOG), held.first)]
    assert set(chain[PROVINCE].records()) == {f"k{i}" for i in range(12) if i != 8}


def test_a_rolled_back_node_that_did_not_hear_of_its_fork_is_fenced_by_the_next_refusal(
    chain: Chain, tmp_path: Path
) -> None:
    """Its clock was ahead when it wrote what is lost: what it writes on top of its fork is older than what its parent
    holds."""
    clone, lost = chain[VILLAGE].copy(tmp_path / "clone"), chain[VILLAGE]
    lost.now_ms += 60_000
    lost.write(shop("one", VILLAGE))
    chain.up()
    (fork,) = clone.write(shop("other", VILLAGE))
    parent = chain[TOWNSHIP]
    items, _ = clone.store.feed_up(0, 1 << 20)
    assert [one.refused for one in parent.take(VILLAGE, Commit(fork, items[-1].data))] == ["FN-6420"]
    peer = clone.link(TOWNSHIP).peer_id
    with clone.store.write() as tx:  # the line was cut before the answer; the cursor says that it was looked at
        tx.raise_acked(peer, fork)
    clone.write(shop("later", VILLAGE))
    assert [one.refused for one in clone.send(parent)] == ["FN-6409"]
    with pytest.raises(Refused, match="FN-5303"):
        clone.write(shop("again", VILLAGE))
    clone.store.close()
