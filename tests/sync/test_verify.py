"""Every gate of fednode.sync.verify: a segment that is right in all but one respect fails at that gate and no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from fednode.crypto import canonical, checkpoint, merkle
from fednode.crypto.keys import SigningKey
from fednode.proto import fednode_pb2 as pb
from fednode.sync import segment as seg
from fednode.sync.catalog import CATALOG_KEY, Catalog
from fednode.sync.change import CATALOG, DELETE, NODES, UPSERT, Change, Columns, LogName
from fednode.sync.clock import bound
from fednode.sync.errors import PeerError
from fednode.sync.feed import Side
from fednode.sync.identity import Revocation, node_payload, revocation_payload
from fednode.sync.log import LogState, OwnSegment
from fednode.sync.strip import reseal, strip
from fednode.sync.verify import (
    NESTING_MAX,
    Gap,
    Held,
    check_signed,
    verify,
    verify_first_parent,
)
from world import CATALOG_TOML, NOW_S, Stream, World, fresh, keys_of, shop

VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"
HLC = (NOW_S * 1000) << 16


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def refused(code: str, *arguments: Any) -> PeerError:
    with pytest.raises(PeerError) as caught:
        verify(*arguments)
    assert caught.value.code == code
    return caught.value


def forged(
    world: World,
    columns: Columns,
    *,
    node: str = VILLAGE,
    readers: tuple[str, ...] = (PROVINCE, COUNTY, TOWNSHIP),
    key: SigningKey | None = None,
    log: LogName | None = None,
    before: LogState | None = None,
    sealed: bool = True,
    **changed: Any,
) -> bytes:
    """A segment in which the origin says what it wants: everything is signed by it and fits, but for `changed`."""
    name = log or world.log(node)
    key = key or world.places[node].keys.sign
    frontier = (before.frontier if before else None) or merkle.Frontier.EMPTY
    after = frontier.extend(seg.leaf_hashes(columns))
    root = changed.pop("root", after.root())
    count = changed.pop("count", len(columns))
    first = changed.pop("first", frontier.size)
    signed = checkpoint.signature(checkpoint.Checkpoint(str(name), first + count, root), key)
    draft = seg.Draft(1, name, first, count, root, signed, columns.hlcs[-1])
    body = changed.pop("body", None) or seg.encode_body(columns)
    sign = changed.pop("sign", key.sign)
    raw, _ = seg.seal_segment(
        replace(draft, **changed), body, world.readers(*readers) if sealed else [], sealed, sign, Stream("forged")
    )
    return raw


def columns(*changes: Change, hlc: int = HLC) -> Columns:
    return Columns(
        1,
        [one.key for one in changes],
        list(range(hlc, hlc + len(changes))),
        bytes(one.op for one in changes),
        [one.payload for one in changes],
        bytes(range(32)),
    )


GOOD = columns(shop("a", VILLAGE), shop("b", VILLAGE))


def rebuilt(raw: bytes, change: Callable[[pb.Header, pb.Envelope], None]) -> bytes:
    """The same envelope with something else in it, nothing signed again."""
    envelope = pb.Envelope.FromString(raw)
    header = pb.Header.FromString(envelope.header)
    change(header, envelope)
    envelope.header = header.SerializeToString()
    return envelope.SerializeToString()


# ---------------------------------------------------------------- what passes


def test_a_first_parent_needs_no_cosignature(world: World) -> None:
    own = world.segment(VILLAGE)
    got = verify(own.raw, fresh, world.context(TOWNSHIP, VILLAGE), None)
    assert (got.side, got.origin.node, got.first_parent) == (Side.BELOW, VILLAGE, None)
    assert (got.after, got.raw, got.columns) == (own.after, own.raw, own.columns)
    assert got.content_key == own.content_key


@pytest.mark.parametrize(("me", "peer"), [(COUNTY, TOWNSHIP), (PROVINCE, CITY)])
def test_further_up_the_first_parents_cosignature_travels_along(world: World, me: str, peer: str) -> None:
    own = world.segment(VILLAGE)
    given = world.cosignature(TOWNSHIP, own.raw)
    got = verify(own.raw, fresh, world.context(me, peer), given)
    assert (got.columns, got.first_parent) == (own.columns, given)
    assert bound(got.first_parent.time_s) == ((NOW_S * 1000) << 16) + 0xFFFF


def test_who_is_no_reader_carries_and_knows_size_and_root(world: World) -> None:
    own = world.segment(VILLAGE)
    got = verify(own.raw, fresh, world.context(CITY, COUNTY), world.cosignature(TOWNSHIP, own.raw))
    assert (got.columns, got.content_key) == (None, b"")
    assert (got.after.frontier, got.after.size, got.after.root) == (None, 2, own.after.root)
    second = world.segment(VILLAGE, [shop("c", VILLAGE)], state=own.after, hlc=HLC + 100)
    more = verify(second.raw, lambda _: got.after, world.context(CITY, COUNTY), world.cosignature(TOWNSHIP, second.raw))
    assert (more.after.size, more.after.root) == (3, second.after.root)


@pytest.mark.parametrize("me", [COUNTY, TOWNSHIP, VILLAGE])
def test_from_above(world: World, me: str) -> None:
    own = world.segment(COUNTY, [shop("a", VILLAGE)], audience=VILLAGE)
    peer = world.identity(me).issuer
    if me == COUNTY:
        refused("FN-5413", own.raw, fresh, world.context(me, peer, from_parent=True), None)  # its own, sent back
        return
    got = verify(own.raw, fresh, world.context(me, peer, from_parent=True), None)
    assert (got.side, got.columns) == (Side.ABOVE, own.columns)


def test_a_log_continues_exactly(world: World) -> None:
    first = world.segment(VILLAGE)
    second = world.segment(VILLAGE, [shop("c", VILLAGE)], state=first.after, hlc=HLC + 100)
    got = verify(second.raw, lambda _: first.after, world.context(TOWNSHIP, VILLAGE), None)
    assert got.after == second.after


def test_the_forger_of_these_tests_makes_what_passes(world: World) -> None:
    """Else the refusals below could have another cause than the one they name."""
    assert verify(forged(world, GOOD), fresh, world.context(TOWNSHIP, VILLAGE), None).columns == GOOD


# ---------------------------------------------------------------- 1: it parses, its suite is known


def test_gate_1_garbage_and_size(world: World) -> None:
    context = world.context(TOWNSHIP, VILLAGE)
    refused("FN-6402", b"\xff\xff\xff", fresh, context, None)
    refused("FN-6401", bytes(seg.ENVELOPE_BYTES_MAX + 1), fresh, context, None)


def test_gate_1_another_suite_and_another_version(world: World) -> None:
    context = world.context(TOWNSHIP, VILLAGE)

    def suite(header: pb.Header, _: pb.Envelope) -> None:
        header.suite = 2

    def version(header: pb.Header, _: pb.Envelope) -> None:
        header.version = 2

    raw = world.segment(VILLAGE).raw
    assert refused("FN-6403", rebuilt(raw, suite), fresh, context, None).params["version"] == "suite 2"
    assert refused("FN-6403", rebuilt(raw, version), fresh, context, None).params["version"] == 2


# ---------------------------------------------------------------- 2: of this trust domain


def test_gate_2_another_trust_domain(world: World) -> None:
    other = World("henan")
    refused("FN-5410", other.segment(VILLAGE).raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


# ---------------------------------------------------------------- 3: the origin is enrolled, in this incarnation


def test_gate_3_an_origin_that_nobody_enrolled(world: World) -> None:
    context = world.context(TOWNSHIP, VILLAGE, directory=world.directory(without=[VILLAGE]))
    refused("FN-5411", world.segment(VILLAGE).raw, fresh, context, None)


@pytest.mark.parametrize("incarnation", [2, 999])
def test_gate_3_a_life_that_is_not_in_force(world: World, incarnation: int) -> None:
    raw = world.segment(VILLAGE, incarnation=incarnation).raw
    refused("FN-5412", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


def test_gate_3_an_old_life_is_fenced(world: World) -> None:
    directory = world.directory()
    again = world.certificate(VILLAGE, level="village", parent=TOWNSHIP, scope=(VILLAGE,), life=2)
    directory.apply(TOWNSHIP, node_payload(again))
    context = world.context(TOWNSHIP, VILLAGE, directory=directory)
    refused("FN-5412", world.segment(VILLAGE).raw, fresh, context, None)
    new = world.segment(VILLAGE, incarnation=2, key=keys_of(f"hebei/{VILLAGE}", 2).sign)
    assert verify(new.raw, fresh, context, None).origin.incarnation == 2


def test_gate_9_what_the_first_parent_saw_of_an_old_life_is_history(world: World) -> None:
    """A node that lost its store took a new life: what was cosigned before still comes, from whoever holds it."""
    directory = world.directory()
    again = world.certificate(VILLAGE, level="village", parent=TOWNSHIP, scope=(VILLAGE,), life=2)
    directory.apply(TOWNSHIP, node_payload(again))
    own = world.segment(VILLAGE)
    seen = world.cosignature(TOWNSHIP, own.raw)
    for me, peer in ((COUNTY, TOWNSHIP), (TOWNSHIP, VILLAGE)):
        got = verify(own.raw, fresh, world.context(me, peer, directory=directory), seen)
        assert (got.origin.incarnation, got.first_parent) == (1, seen)
        other = replace(seen, signature=bytes(64))
        refused("FN-6407", own.raw, fresh, world.context(me, peer, directory=directory), other)
        refused("FN-5412", own.raw, fresh, world.context(me, peer, directory=directory), None)


def test_gate_9_a_witness_is_known_by_the_keys_of_all_its_lives(world: World) -> None:
    directory = world.directory()
    own = world.segment(VILLAGE)
    seen = world.cosignature(TOWNSHIP, own.raw)
    again = world.certificate(TOWNSHIP, level="township", parent=COUNTY, scope=(TOWNSHIP,), life=2)
    directory.apply(COUNTY, node_payload(again))
    context = world.context(PROVINCE, CITY, directory=directory)
    assert verify(own.raw, fresh, context, seen).first_parent == seen


def test_gate_9_what_this_node_cosigned_in_an_earlier_life_stands(world: World) -> None:
    directory = world.directory()
    own = world.segment(VILLAGE)
    seen = world.cosignature(TOWNSHIP, own.raw)
    again = world.certificate(TOWNSHIP, level="township", parent=COUNTY, scope=(TOWNSHIP,), life=2)
    directory.apply(COUNTY, node_payload(again))
    context = world.context(TOWNSHIP, VILLAGE, directory=directory)
    assert verify(own.raw, fresh, context, seen).first_parent == seen
    others = (
        replace(seen, time_s=seen.time_s - 1),
        replace(seen, signature=bytes(64)),
        world.cosignature(CITY, own.raw),
    )
    for other in others:  # passed over: this node cosigns anew
        assert verify(own.raw, fresh, context, other).first_parent is None


@pytest.mark.parametrize(("origin", "side"), [(TOWNSHIP, Side.SELF), (VILLAGE, Side.BELOW)])
def test_gate_4_a_node_takes_its_history_back_from_its_parent(world: World, origin: str, side: Side) -> None:
    own = world.segment(origin, dataset="shop" if origin == VILLAGE else "sys.audit", readers=(TOWNSHIP,))
    witness = COUNTY if origin == TOWNSHIP else TOWNSHIP
    context = world.context(TOWNSHIP, COUNTY, from_parent=True, restoring=True)
    given = world.cosignature(witness, own.raw)
    got = verify(own.raw, fresh, context, given)
    assert (got.side, got.columns, got.first_parent) == (side, own.columns, given)
    refused("FN-6408", own.raw, fresh, context, None)
    refused(
        "FN-5413", world.segment("130104").raw, fresh, context, world.cosignature(CITY, world.segment("130104").raw)
    )
    ordinary = world.context(TOWNSHIP, COUNTY, from_parent=True)
    refused("FN-5413", own.raw, fresh, ordinary, given)


# ---------------------------------------------------------------- 4: on the side of the peer


@pytest.mark.parametrize(
    ("me", "peer", "from_parent", "origin"),
    [
        (CITY, "130104", False, VILLAGE),  # a sibling brings what is not below it
        (TOWNSHIP, VILLAGE, False, COUNTY),  # a child brings what is above
        (TOWNSHIP, COUNTY, True, VILLAGE),  # the parent brings what is below this node
        (VILLAGE, TOWNSHIP, True, "130104"),  # the parent brings a sibling's
        (COUNTY, CITY, True, COUNTY),  # the parent brings back what is this node's own
    ],
)
def test_gate_4_from_the_wrong_side(world: World, me: str, peer: str, from_parent: bool, origin: str) -> None:
    own = world.segment(origin)
    parent = world.identity(origin).issuer
    given = world.cosignature(parent, own.raw)
    refused("FN-5413", own.raw, fresh, world.context(me, peer, from_parent=from_parent), given)


# ---------------------------------------------------------------- 5: entitled


@pytest.mark.parametrize(
    ("node", "dataset", "audience", "sealed", "code"),
    [
        (COUNTY, "shop", "130104001001", True, "FN-5415"),  # area outside the writer's scope
        (COUNTY, "shop", "13", True, "FN-5415"),  # wider than the writer's scope
        (COUNTY, "nothing", "", True, "FN-5416"),  # not in the catalog
        (COUNTY, "sys.other", "", False, "FN-5416"),  # no such system dataset travels
        (COUNTY, NODES, "130102001", False, "FN-5416"),  # system logs have no audience
        (COUNTY, NODES, "", True, "FN-5416"),  # and are not sealed
        (COUNTY, CATALOG, "", False, "FN-5417"),  # the province's alone
        (TOWNSHIP, "shop", "", True, "FN-5417"),  # a level that may not write it
        (COUNTY, "shop", "", False, "FN-5418"),  # what is sealed must be sealed
    ],
)
def test_gate_5_not_entitled(world: World, node: str, dataset: str, audience: str, sealed: bool, code: str) -> None:
    own = world.segment(node, dataset=dataset, audience=audience, sealed=sealed)
    me = world.identity(node).issuer
    refused(code, own.raw, fresh, world.context(me, node), None)


def test_gate_5_a_neighbours_area(world: World) -> None:
    """A node whose scope is another's prefix-neighbour: 1399 is not 13."""
    own = world.segment("9902", dataset="sys.nodes", audience="1301")
    refused("FN-5415", own.raw, fresh, world.context(PROVINCE, "9902"), None)


# ---------------------------------------------------------------- 6: continues the log


def test_gate_6_something_is_missing(world: World) -> None:
    first = world.segment(VILLAGE)
    second = world.segment(VILLAGE, [shop("c", VILLAGE)], state=first.after, hlc=HLC + 100)
    with pytest.raises(Gap) as caught:
        verify(second.raw, fresh, world.context(TOWNSHIP, VILLAGE), None)
    assert (caught.value.log, caught.value.size) == (str(world.log(VILLAGE)), 0)


def test_gate_6_one_change_is_missing(world: World) -> None:
    """Also for who carries the log, and has no tree that would not fit."""
    first = world.segment(VILLAGE, [shop("a", VILLAGE)])
    second = world.segment(VILLAGE, [shop("b", VILLAGE)], state=first.after, hlc=HLC + 100, readers=(COUNTY,))
    for reader, given in ((TOWNSHIP, None), (COUNTY, world.cosignature(TOWNSHIP, second.raw))):
        peer = VILLAGE if reader == TOWNSHIP else TOWNSHIP
        with pytest.raises(Gap) as caught:
            verify(second.raw, fresh, world.context(reader, peer), given)
        assert caught.value.size == 0


def test_gate_6_it_is_there_already(world: World) -> None:
    own = world.segment(VILLAGE)
    with pytest.raises(Held) as caught:
        verify(own.raw, lambda _: own.after, world.context(TOWNSHIP, VILLAGE), None)
    assert (caught.value.envelope.raw, caught.value.state) == (own.raw, own.after)


def test_gate_6_a_fork_is_held_and_proved_to_be_the_origins(world: World) -> None:
    mine = world.segment(VILLAGE, [shop("a", VILLAGE)])
    other = world.segment(VILLAGE, [shop("z", VILLAGE)])
    context = world.context(TOWNSHIP, VILLAGE)
    with pytest.raises(Held):
        verify(other.raw, lambda _: mine.after, context, None)
    envelope, origin = check_signed(other.raw, context)
    assert (envelope.header.root, origin.node) == (other.after.root, VILLAGE)
    with pytest.raises(PeerError) as caught:
        check_signed(world.segment(VILLAGE, key=keys_of("stranger").sign).raw, context)
    assert caught.value.code == "FN-6406"


# ---------------------------------------------------------------- 7, 8: signatures


def test_gate_7_the_checkpoint_is_by_another_key(world: World) -> None:
    key = keys_of("stranger").sign
    raw = forged(world, GOOD, key=key, sign=world.places[VILLAGE].keys.sign.sign)
    refused("FN-6406", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


def test_gate_7_the_checkpoint_of_another_log(world: World) -> None:
    """A true checkpoint of the same writer, moved to another log."""
    name = world.log(VILLAGE)
    frontier = merkle.Frontier.EMPTY.extend(seg.leaf_hashes(GOOD))
    head = checkpoint.Checkpoint(str(replace(name, dataset="other")), frontier.size, frontier.root())
    signed = checkpoint.signature(head, world.places[VILLAGE].keys.sign)
    refused("FN-6406", forged(world, GOOD, checkpoint=signed), fresh, world.context(TOWNSHIP, VILLAGE), None)


def test_gate_8_the_envelope_is_sealed_by_another_key(world: World) -> None:
    raw = forged(world, GOOD, sign=keys_of("stranger").sign.sign)
    refused("FN-6406", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


def test_gate_8_a_relay_finds_altered_wraps_and_body(world: World) -> None:
    """The city cannot open it, and refuses it all the same."""
    own = world.segment(VILLAGE)
    given = world.cosignature(TOWNSHIP, own.raw)

    def swap(_: pb.Header, envelope: pb.Envelope) -> None:
        wraps = list(envelope.wraps)
        del envelope.wraps[:]
        envelope.wraps.extend([wraps[1], wraps[0], *wraps[2:]])

    def flip(_: pb.Header, envelope: pb.Envelope) -> None:
        envelope.body = bytes((envelope.body[0] ^ 1,)) + envelope.body[1:]

    def readers(header: pb.Header, envelope: pb.Envelope) -> None:
        del header.readers[0]
        del envelope.wraps[0]

    for change in (swap, flip, readers):
        refused("FN-6406", rebuilt(own.raw, change), fresh, world.context(CITY, COUNTY), given)


# ---------------------------------------------------------------- 9: witnessed


def test_gate_9_from_further_away_without_a_witness(world: World) -> None:
    refused("FN-6408", world.segment(VILLAGE).raw, fresh, world.context(COUNTY, TOWNSHIP), None)


def test_gate_9_a_witness_that_is_not_the_first_parent(world: World) -> None:
    own = world.segment(VILLAGE)
    context = world.context(PROVINCE, CITY)
    good = world.cosignature(TOWNSHIP, own.raw)
    wrong = (
        world.cosignature(COUNTY, own.raw),  # a grandparent
        replace(world.cosignature(COUNTY, own.raw), witness=TOWNSHIP),  # who says to be the parent
        replace(good, witness=COUNTY),  # the parent's, under another name
        replace(good, time_s=good.time_s - 1),  # an earlier time than was signed
        replace(good, signature=bytes(64)),
        world.cosignature(TOWNSHIP, world.segment(VILLAGE, [shop("z", VILLAGE)]).raw),  # of another head
    )
    for given in wrong:
        refused("FN-6407", own.raw, fresh, context, given)


def test_gate_9_nobody_is_told_what_it_has_witnessed_itself(world: World) -> None:
    """A late cosignature of a child's log that claims to be this node's own, sent back by its parent."""
    own = world.segment(VILLAGE)
    given = world.cosignature(TOWNSHIP, own.raw)
    place = (world.directory(), own.after.name, own.after.size, own.after.root)
    assert verify_first_parent(*place, given, COUNTY) == given
    assert verify_first_parent(*place, replace(given, witness=""), COUNTY) == given
    with pytest.raises(PeerError) as caught:
        verify_first_parent(*place, given, TOWNSHIP)
    assert caught.value.code == "FN-6407"


# ---------------------------------------------------------------- 10: not revoked


def test_gate_10_revoked(world: World) -> None:
    """Regression (simulator, small, promoting, seed 516): what an old primary had acknowledged, by a clock that was
    fifteen seconds ahead of that by which its successor revoked the child later, was refused everywhere, and lost."""
    directory = world.directory()
    revoked_s = NOW_S + 1000
    directory.apply(COUNTY, revocation_payload(VILLAGE, 1, revoked_s * 1000, "stolen"))
    assert directory.revocation(VILLAGE) == Revocation(VILLAGE, 1, revoked_s * 1000, "stolen", COUNTY)
    own = world.segment(VILLAGE)
    refused("FN-5420", own.raw, fresh, world.context(TOWNSHIP, VILLAGE, directory=directory), None)
    context = world.context(COUNTY, TOWNSHIP, directory=directory)
    for time_s in (revoked_s, revoked_s + 300):
        before = world.cosignature(TOWNSHIP, own.raw, time_s)
        assert verify(own.raw, fresh, context, before).first_parent == before
    refused("FN-5420", own.raw, fresh, context, world.cosignature(TOWNSHIP, own.raw, revoked_s + 301))


# ---------------------------------------------------------------- 11: it opens, and is what the header says


def unwrapping(content_key: bytes) -> Callable[[seg.Envelope], bytes]:
    return lambda _: content_key


def test_gate_11_a_wrong_content_key(world: World) -> None:
    raw = world.segment(VILLAGE).raw
    refused("FN-6404", raw, fresh, world.context(TOWNSHIP, VILLAGE, unwrap=unwrapping(bytes(32))), None)


def test_gate_11_a_wrap_that_does_not_open(world: World) -> None:
    """The village names its reader and wraps nothing for it: signed, so it is the village's doing."""
    keys = world.places[VILLAGE].keys.sign

    def spoil(header: pb.Header, envelope: pb.Envelope) -> None:
        envelope.wraps[2] = bytes(len(envelope.wraps[2]))
        raw = header.SerializeToString()
        digest = seg.seal.envelope_digest(raw, envelope.commit, list(envelope.wraps), envelope.body)
        envelope.signature = keys.sign(digest)

    raw = rebuilt(world.segment(VILLAGE).raw, spoil)
    refused("FN-6404", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


def test_gate_11_another_count_or_stamp_than_the_header_says(world: World) -> None:
    context = world.context(TOWNSHIP, VILLAGE)
    refused("FN-6409", forged(world, GOOD, count=3), fresh, context, None)
    refused("FN-6409", forged(world, GOOD, last_hlc=HLC + 2), fresh, context, None)


def test_gate_11_stamps_that_do_not_rise(world: World) -> None:
    before = LogState(world.log(VILLAGE), merkle.Frontier.EMPTY, HLC)
    refused("FN-6409", forged(world, GOOD), lambda _: before, world.context(TOWNSHIP, VILLAGE), None)
    before = replace(before, last_hlc=HLC - 1)
    assert verify(forged(world, GOOD), lambda _: before, world.context(TOWNSHIP, VILLAGE), None).columns == GOOD


def test_a_reader_that_is_left_out_halfway_carries_from_then_on(world: World) -> None:
    """The catalog may take a level's right to read: what follows is carried, under the origin's signatures."""
    first = world.segment(VILLAGE)
    second = world.segment(VILLAGE, [shop("c", VILLAGE)], state=first.after, hlc=HLC + 100, readers=(PROVINCE,))
    verified = verify(second.raw, lambda _: first.after, world.context(TOWNSHIP, VILLAGE), None)
    assert verified.columns is None
    assert (verified.after.frontier, verified.after.size) == (None, second.after.size)
    assert verified.after.root == second.after.root


def test_gate_14_who_only_carries_is_shown_that_a_log_goes_on(world: World) -> None:
    """Otherwise it would cosign two histories of a log that it cannot read."""
    own = world.segment(VILLAGE)
    context = world.context(CITY, COUNTY)
    held = verify(own.raw, fresh, context, world.cosignature(TOWNSHIP, own.raw)).after
    more = [shop("c", VILLAGE)]
    good = world.segment(VILLAGE, more, state=own.after, hlc=HLC + 100)
    none = world.segment(VILLAGE, more, state=own.after, hlc=HLC + 100, prove=False)
    other = world.segment(VILLAGE, [shop("x", VILLAGE), shop("y", VILLAGE)])
    elsewhere = world.segment(VILLAGE, more, state=other.after, hlc=HLC + 100)
    assert verify(good.raw, lambda _: held, context, world.cosignature(TOWNSHIP, good.raw)).after.size == 3
    for bad in (none, elsewhere):
        refused("FN-6415", bad.raw, lambda _: held, context, world.cosignature(TOWNSHIP, bad.raw))


def test_gate_14_a_reader_without_a_key_takes_it_and_checks_a_proof_that_is_there(world: World) -> None:
    """A node with new keys: what was sealed to its old ones goes on to those who read it."""
    own = world.segment(VILLAGE, readers=(PROVINCE,))
    context = world.context(COUNTY, TOWNSHIP)
    held = verify(own.raw, fresh, context, world.cosignature(TOWNSHIP, own.raw)).after
    assert held.frontier is None
    more = [shop("c", VILLAGE)]
    none = world.segment(VILLAGE, more, state=own.after, hlc=HLC + 100, prove=False, readers=(PROVINCE,))
    assert verify(none.raw, lambda _: held, context, world.cosignature(TOWNSHIP, none.raw)).after.size == 3
    other = world.segment(VILLAGE, [shop("x", VILLAGE), shop("y", VILLAGE)])
    elsewhere = world.segment(VILLAGE, more, state=other.after, hlc=HLC + 100, readers=(PROVINCE,))
    refused("FN-6415", elsewhere.raw, lambda _: held, context, world.cosignature(TOWNSHIP, elsewhere.raw))


def test_a_reader_that_comes_in_halfway_reads_from_then_on(world: World) -> None:
    """A county wrote for a village before it knew it; simulator, seed 4 of its second story."""
    first = world.segment(VILLAGE, readers=(PROVINCE,))
    carried = verify(first.raw, fresh, world.context(TOWNSHIP, VILLAGE), None).after
    assert carried.frontier is None
    second = world.segment(VILLAGE, [shop("c", VILLAGE)], state=first.after, hlc=HLC + 100)
    verified = verify(second.raw, lambda _: carried, world.context(TOWNSHIP, VILLAGE), None)
    assert verified.columns == second.columns
    assert (verified.after.frontier, verified.after.root) == (None, second.after.root)


# ---------------------------------------------------------------- 12: the root


def test_gate_12_another_root_than_was_signed(world: World) -> None:
    context = world.context(TOWNSHIP, VILLAGE)
    refused("FN-6411", forged(world, GOOD, root=bytes(32)), fresh, context, None)
    other = seg.encode_body(columns(shop("a", VILLAGE), shop("c", VILLAGE)))
    refused("FN-6411", forged(world, GOOD, body=other), fresh, context, None)


def test_gate_12_another_history_than_is_held(world: World) -> None:
    """The same size, another past: the root does not follow from what this node holds."""
    held = world.segment(VILLAGE, [shop("x", VILLAGE), shop("y", VILLAGE)])
    theirs = world.segment(VILLAGE)
    second = world.segment(VILLAGE, [shop("c", VILLAGE)], state=theirs.after, hlc=HLC + 100)
    refused("FN-6411", second.raw, lambda _: held.after, world.context(TOWNSHIP, VILLAGE), None)


# ---------------------------------------------------------------- 13: lawful


@pytest.mark.parametrize(
    "change",
    [
        Change(b"a", b"not json"),
        Change(b"a", b"[]"),
        Change(b"a", b'"text"'),
        Change(b"a", b""),
        Change(b"a", b'{"a":1} '[:-1] + b"x"),
        Change(b"a", b"{}", DELETE),
        Change(b"\xff\xfe", b"{}"),
        Change(b"a", b'{"a":' + b"[" * 50_000),
        Change(b"a", b'{"a":"\xff"}'),
        Change(b"a", b'{"a":1e999}'),
        Change(b"a", b'{"a":"\\ud800"}'),
        Change(b"a", b'{"a" :\n[1e999]}'),
    ],
    ids=["text", "list", "string", "empty", "tail", "delete", "key", "deep", "utf8", "huge", "surrogate", "spaced"],
)
def test_gate_13_payloads_that_are_no_records(world: World, change: Change) -> None:
    raw = forged(world, columns(change))
    refused("FN-6402", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


@pytest.mark.parametrize("area", ["130102001002", "1301", [], 5, {"a": 1}])
def test_gate_13_a_record_about_another_area(world: World, area: object) -> None:
    raw = forged(world, columns(shop("a", VILLAGE), shop("b", area)))  # type: ignore[arg-type]
    refused("FN-5415", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)


def test_gate_13_is_not_asked_of_what_was_stripped(world: World) -> None:
    """Leaf hashes stand for what is gone, and the root still follows."""
    bad = columns(shop("a", VILLAGE), shop("b", "99"))
    raw = forged(world, bad)
    refused("FN-5415", raw, fresh, world.context(TOWNSHIP, VILLAGE), None)
    village = world.places[VILLAGE]
    gone, _ = reseal(
        seg.parse(raw), strip(bad, [1]), village.identity, world.readers(TOWNSHIP), village.keys.sign.sign, Stream("s")
    )
    got = verify(gone, fresh, world.context(TOWNSHIP, VILLAGE), None)
    assert got.after.root == merkle.root(seg.leaf_hashes(bad))
    assert got.columns == strip(bad, [1])


def system(world: World, node: str, dataset: str, payload: bytes, *, key: bytes = b"x", op: int = UPSERT) -> OwnSegment:
    return world.segment(node, [Change(key, payload, op)], dataset=dataset)


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (revocation_payload("130104", 1, 5, ""), "FN-5431"),  # not below the county
        (revocation_payload("13", 1, 5, ""), "FN-5431"),  # above it
        (revocation_payload("130102", 1, 5, ""), "FN-5431"),  # itself
        ({"kind": "revoke"}, "FN-6402"),
        ({"kind": "revoke", "node": "x", "incarnation": {}, "at_ms": 1}, "FN-6402"),
        ({"kind": "node"}, "FN-6402"),
        ({"kind": "node", "certificate": "zz"}, "FN-5430"),
        ({"kind": "node", "certificate": "00" * 20}, "FN-5430"),
        ({"kind": "node", "certificate": 5}, "FN-6402"),
        ([], "FN-6402"),
        ("text", "FN-6402"),
    ],
)
def test_gate_13_unlawful_system_changes(world: World, payload: object, code: str) -> None:
    own = system(world, COUNTY, NODES, canonical.dumps(payload))
    refused(code, own.raw, fresh, world.context(CITY, COUNTY), None)


@pytest.mark.parametrize(
    ("payload", "in_nodes", "in_catalog"),
    [
        (b"not json", "FN-6402", "FN-3201"),
        (b"", "FN-6402", "FN-3201"),
        (b'{"a":' + b"[" * 50_000, "FN-6402", "FN-6402"),
    ],
    ids=["text", "empty", "deep"],
)
def test_gate_13_system_payloads_that_are_no_json(world: World, payload: bytes, in_nodes: str, in_catalog: str) -> None:
    refused(in_nodes, system(world, COUNTY, NODES, payload).raw, fresh, world.context(CITY, COUNTY), None)
    context = world.context(CITY, PROVINCE, from_parent=True)
    refused(in_catalog, system(world, PROVINCE, CATALOG, payload).raw, fresh, context, None)


def test_gate_13_a_certificate_that_its_origin_may_not_give(world: World) -> None:
    """A true certificate of a township's child, in the county's own log."""
    own = system(world, COUNTY, NODES, canonical.dumps(node_payload(world.places[VILLAGE].chain[0])))
    refused("FN-5430", own.raw, fresh, world.context(CITY, COUNTY), None)
    lawful = system(world, COUNTY, NODES, canonical.dumps(node_payload(world.places[TOWNSHIP].chain[0])))
    assert verify(lawful.raw, fresh, world.context(CITY, COUNTY), None).columns == lawful.columns


def test_gate_13_a_catalog_that_may_not_follow(world: World) -> None:
    def published(version: int, **changed: Any) -> bytes:
        return Catalog.from_toml_dict({**CATALOG_TOML, "version": version, **changed}).to_json()

    context = world.context(CITY, PROVINCE, from_parent=True)
    newer = system(world, PROVINCE, CATALOG, published(2), key=CATALOG_KEY)
    assert verify(newer.raw, fresh, context, None).columns == newer.columns
    other = {**CATALOG_TOML["dataset"][0], "merge": "authority"}  # type: ignore[index]
    again = system(world, PROVINCE, CATALOG, published(1, zh="另"), key=CATALOG_KEY)
    refused("FN-6211", again.raw, fresh, context, None)
    changed = system(world, PROVINCE, CATALOG, published(2, dataset=[other]), key=CATALOG_KEY)
    refused("FN-3224", changed.raw, fresh, context, None)


# ---------------------------------------------------------------- in one piece


def test_every_altered_byte_is_refused(world: World) -> None:
    """No byte of a segment may change: sampled here, whatever gate finds it."""
    own = world.segment(VILLAGE)
    context = world.context(TOWNSHIP, VILLAGE)
    for at in range(0, len(own.raw), 7):
        altered = bytearray(own.raw)
        altered[at] ^= 0x10
        with pytest.raises((PeerError, Gap, Held)):
            verify(bytes(altered), fresh, context, None)


def test_regression_nesting_is_bounded_where_it_is_verified(world: World) -> None:
    """Deep JSON made the decoder run out of stack: an exception that is no PeerError stopped the whole group."""
    context = world.context(TOWNSHIP, VILLAGE)

    def nested(depth: int) -> bytes:
        inner = b"[" * (depth - 1) + b"]" * (depth - 1)
        return forged(world, columns(Change(b"a", b'{"a":' + inner + b',"t":"[[[{{{\\"[[[' + b"[{" * 40 + b'"}')))

    assert verify(nested(NESTING_MAX), fresh, context, None).columns is not None
    assert refused("FN-6402", nested(NESTING_MAX + 1), fresh, context, None).params["reason"] == "nesting"
