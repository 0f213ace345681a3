"""The directory: who enters, who renews, who moves, who is revoked; nothing ever goes back."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import certs
from fednode.sync.errors import PeerError
from fednode.sync.identity import LEVELS, Directory, Revocation, node_payload, revocation_payload
from rekeyed import knowing, rekeyed
from world import NOW_S, World

VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def refused(code: str, call: Any, *arguments: Any) -> PeerError:
    with pytest.raises(PeerError) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value


def take(directory: Directory, origin: str, payload: dict[str, Any]) -> None:
    """As verification does: checked, then applied."""
    directory.check(origin, payload)
    directory.apply(origin, payload)


def empty(world: World) -> Directory:
    return Directory(world.root_der, world.domain)


def county(world: World, **changed: Any) -> bytes:
    given_: dict[str, Any] = {"level": "county", "parent": CITY, "scope": (COUNTY,)}
    return world.certificate(COUNTY, **{**given_, **changed})


def test_a_chain_leads_through_the_life_that_signed(world: World) -> None:
    """A standby of a primary that was succeeded: with the successor's certificate in between TLS refused it."""
    successor = rekeyed(world, COUNTY)
    directory = knowing(world, successor)
    assert directory.get(COUNTY) == successor.identity
    assert directory.chain(COUNTY)[0] == successor.chain[0]
    assert directory.chain(TOWNSHIP) == world.places[TOWNSHIP].chain
    for node in (COUNTY, TOWNSHIP, VILLAGE):
        assert certs.check_chain(directory.chain(node), world.root_sha256, NOW_S)[0].node == node


# ---------------------------------------------------------------- entering


def test_nodes_enter_from_the_top(world: World) -> None:
    directory = empty(world)
    village = node_payload(world.places[VILLAGE].chain[0])
    assert refused("FN-5430", directory.check, TOWNSHIP, village).params["reason"] == "issuer"
    for node, origin in (
        (PROVINCE, PROVINCE),
        (CITY, PROVINCE),
        (COUNTY, CITY),
        (TOWNSHIP, COUNTY),
        (VILLAGE, TOWNSHIP),
    ):
        take(directory, origin, node_payload(world.places[node].chain[0]))
    assert [one.node for one in directory.path(VILLAGE)] == [PROVINCE, CITY, COUNTY, TOWNSHIP, VILLAGE]
    assert directory.chain(VILLAGE) == world.places[VILLAGE].chain
    assert (directory.parent_of(VILLAGE), directory.parent_of(PROVINCE), directory.parent_of("x")) == (
        TOWNSHIP,
        None,
        None,
    )
    assert [one.node for one in directory.children_of(CITY)] == [COUNTY]


@pytest.mark.parametrize("origin", [PROVINCE, CITY, COUNTY, VILLAGE, "1302", "root", ""])
def test_only_the_issuer_speaks_for_a_certificate(world: World, origin: str) -> None:
    payload = node_payload(world.places[VILLAGE].chain[0])
    refused("FN-5430", world.directory().check, origin, payload)
    world.directory().check(TOWNSHIP, payload)


def test_another_domains_nodes_do_not_enter(world: World) -> None:
    other = World("henan")
    for origin, node in ((PROVINCE, CITY), (PROVINCE, PROVINCE)):
        refused("FN-5430", world.directory().check, origin, node_payload(other.places[node].chain[0]))


def test_a_kind_that_is_not_known_is_let_pass_and_has_no_effect(world: World) -> None:
    directory = world.directory()
    before = directory.all()
    take(directory, COUNTY, {"kind": "grant", "node": VILLAGE})
    take(directory, COUNTY, {})
    assert directory.all() == before


@pytest.mark.parametrize("payload", [[], "text", None, 5, True])
def test_regression_what_is_no_object_is_refused(world: World, payload: object) -> None:
    """It was an AttributeError, which is no PeerError, and stopped the group."""
    refused("FN-6402", world.directory().check, COUNTY, payload)


@pytest.mark.parametrize("certificate", [None, 5, [], "x" * 20_000])
def test_certificates_that_cannot_be(world: World, certificate: object) -> None:
    refused("FN-6402", world.directory().check, COUNTY, {"kind": "node", "certificate": certificate})


# ---------------------------------------------------------------- renewing: nothing goes back


def test_a_later_certificate_is_in_force(world: World) -> None:
    directory = world.directory()
    renewed = county(world, now_s=NOW_S + 1000)
    take(directory, CITY, node_payload(renewed))
    found = directory.get(COUNTY)
    assert found is not None
    assert found.der == renewed
    assert len(directory.all()) == len(world.places)


def test_an_older_certificate_never_wins(world: World) -> None:
    directory = world.directory()
    renewed = county(world, now_s=NOW_S + 1000)
    take(directory, CITY, node_payload(renewed))
    take(directory, CITY, node_payload(world.places[COUNTY].chain[0]))
    directory.seed(world.places[TOWNSHIP].chain)  # an old chain, as from a backup
    found = directory.get(COUNTY)
    assert found is not None
    assert found.der == renewed


def test_a_higher_incarnation_wins_over_a_later_certificate(world: World) -> None:
    directory = world.directory()
    second = county(world, life=2, now_s=NOW_S - 5000)
    take(directory, CITY, node_payload(second))
    take(directory, CITY, node_payload(county(world, now_s=NOW_S + 9000)))
    found = directory.get(COUNTY)
    assert found is not None
    assert (found.incarnation, found.der) == (2, second)


def test_earlier_lives_stay_known(world: World) -> None:
    """What they signed is still to be verified, by the key that they had."""
    directory = world.directory()
    renewed, second = county(world, now_s=NOW_S + 1000), county(world, life=2)
    for der in (renewed, second, world.places[COUNTY].chain[0]):
        take(directory, CITY, node_payload(der))
    found = [directory.life(COUNTY, incarnation) for incarnation in (1, 2, 3)]
    assert [one.der if one else None for one in found] == [renewed, second, None]
    assert [one.der for one in directory.lives(COUNTY)] == [second, renewed]
    assert directory.lives("9") == directory.lives(None) == []


def test_any_order_of_certificates_ends_with_the_same(world: World) -> None:
    ders = [county(world, now_s=NOW_S + at) for at in (0, 500, 900)] + [county(world, life=2)]
    for order in itertools.permutations(ders):
        directory = world.directory(without=[VILLAGE, TOWNSHIP, COUNTY])
        for der in order:
            directory.apply(CITY, node_payload(der))
        found = directory.get(COUNTY)
        assert found is not None
        assert found.der == ders[3]


def test_a_wider_scope_is_seen_at_once(world: World) -> None:
    directory = world.directory()
    wider = county(world, scope=(COUNTY, "130103"), now_s=NOW_S + 1000)
    take(directory, CITY, node_payload(wider))
    found = directory.node_covering("130103005")
    assert found is not None
    assert found.node == COUNTY
    narrower = county(world, scope=("130103",), now_s=NOW_S + 2000)
    take(directory, CITY, node_payload(narrower))
    found = directory.node_covering(f"{COUNTY}009")
    assert found is not None
    assert found.node == CITY


# ---------------------------------------------------------------- moving


def moved(world: World, life: int) -> bytes:
    """The county as a child of the province itself."""
    return county(world, parent=PROVINCE, life=life, now_s=NOW_S + 1000)


def test_a_node_moves_only_by_a_new_life_after_the_old_one_was_ended(world: World) -> None:
    """Regression: a higher incarnation alone was enough, so any county could shut another's township out."""
    directory = world.directory()
    for life in (1, 2):
        error = refused("FN-5430", directory.check, PROVINCE, node_payload(moved(world, life)))
        assert error.params["reason"] == "parent"
    take(directory, CITY, revocation_payload(COUNTY, 1, NOW_S * 1000, "moves"))
    assert refused("FN-5430", directory.check, PROVINCE, node_payload(moved(world, 1))).params["reason"] == "parent"
    take(directory, PROVINCE, node_payload(moved(world, 2)))
    assert directory.parent_of(COUNTY) == PROVINCE
    assert [one.node for one in directory.path(COUNTY)] == [PROVINCE, COUNTY]
    assert COUNTY not in [one.node for one in directory.children_of(CITY)]


def test_nobody_takes_another_nodes_name(world: World) -> None:
    """A city issues a certificate, inside its own scope, that bears the name of a node of another city's."""
    stolen = world.certificate("130104", level="county", parent="1302", scope=("130204",))
    error = refused("FN-5430", world.directory().check, "1302", node_payload(stolen))
    assert error.params["reason"] == "parent"


def test_the_path_of_a_loop_ends(world: World) -> None:
    """Two nodes, each the other's issuer, can only come of broken data; it must end all the same."""
    directory = world.directory()
    one, two = world.identity(COUNTY), world.identity(TOWNSHIP)
    from dataclasses import replace

    directory._nodes[COUNTY] = replace(one, issuer=TOWNSHIP)
    directory._nodes[TOWNSHIP] = replace(two, issuer=COUNTY)
    assert len(directory.path(TOWNSHIP)) <= 16


# ---------------------------------------------------------------- revoking


def revoked_at(directory: Directory, node: str, incarnation: int = 0) -> int | None:
    """Unix milliseconds; None where it is not revoked."""
    found = directory.revocation(node, incarnation)
    return found.at_ms if found is not None else None


@pytest.mark.parametrize("origin", [PROVINCE, CITY, COUNTY, TOWNSHIP])
def test_whoever_stands_above_may_revoke(world: World, origin: str) -> None:
    directory = world.directory()
    take(directory, origin, revocation_payload(VILLAGE, 1, 7000, "stolen"))
    assert directory.is_revoked(VILLAGE)
    assert directory.revocation(VILLAGE) == Revocation(VILLAGE, 1, 7000, "stolen", origin)
    assert revoked_at(directory, VILLAGE) == 7000
    assert directory.get(VILLAGE) is not None
    assert not directory.is_revoked(TOWNSHIP)


@pytest.mark.parametrize("origin", [VILLAGE, "1302", "130104", "nobody", ""])
def test_nobody_else_may(world: World, origin: str) -> None:
    refused("FN-5431", world.directory().check, origin, revocation_payload(VILLAGE, 1, 7000, ""))


def test_a_node_that_nobody_knows_cannot_be_revoked(world: World) -> None:
    refused("FN-5431", world.directory().check, PROVINCE, revocation_payload("nobody", 1, 7000, ""))


@pytest.mark.parametrize(
    "payload",
    [
        {"kind": "revoke"},
        {"kind": "revoke", "node": VILLAGE, "incarnation": 1},
        {"kind": "revoke", "node": VILLAGE, "incarnation": None, "at_ms": 1},
        {"kind": "revoke", "node": VILLAGE, "incarnation": "x", "at_ms": 1},
        {"kind": "revoke", "node": VILLAGE, "incarnation": float("inf"), "at_ms": 1},
    ],
)
def test_revocations_that_cannot_be(world: World, payload: dict[str, Any]) -> None:
    refused("FN-6402", world.directory().check, PROVINCE, payload)


def test_a_new_life_is_not_revoked(world: World) -> None:
    directory = world.directory()
    take(directory, PROVINCE, revocation_payload(COUNTY, 1, 7000, "lost"))
    take(directory, CITY, node_payload(county(world, now_s=NOW_S + 1000)))
    assert directory.is_revoked(COUNTY)  # a fresh certificate of the same life changes nothing
    take(directory, CITY, node_payload(county(world, life=2)))
    assert not directory.is_revoked(COUNTY)
    take(directory, PROVINCE, revocation_payload(COUNTY, 2, 9000, "again"))
    assert revoked_at(directory, COUNTY) == 9000


revocations = st.lists(st.tuples(st.sampled_from((PROVINCE, CITY)), st.integers(1, 3), st.integers(0, 9)), min_size=1)


@settings(max_examples=60, derandomize=True, deadline=None)
@given(revocations, st.randoms(use_true_random=False))
def test_any_order_of_revocations_ends_with_the_same(given_: list[tuple[str, int, int]], random: Any) -> None:
    world = _world()
    shuffled = list(given_)
    random.shuffle(shuffled)
    found = []
    for order in (given_, shuffled, shuffled + given_):
        directory = world.directory()
        for origin, incarnation, at_ms in order:
            directory.apply(origin, revocation_payload(COUNTY, incarnation, at_ms, ""))
        found.append(revoked_at(directory, COUNTY))
    assert found == [min(at for _, _, at in given_)] * 3  # the county is in its first life: each of them covers it


def test_each_life_has_its_own_revocation_and_keys(world: World) -> None:
    directory = world.directory()
    take(directory, PROVINCE, revocation_payload(COUNTY, 1, 7000, "lost"))
    take(directory, CITY, node_payload(county(world, life=2)))
    take(directory, PROVINCE, revocation_payload(COUNTY, 2, 9000, "again"))
    assert [revoked_at(directory, COUNTY, life) for life in (1, 2, 3)] == [7000, 9000, None]
    assert [one.incarnation for one in directory.lives(COUNTY)] == [2, 1]
    first = directory.life(COUNTY, 1)
    assert first is not None
    assert first.sign_key == world.identity(COUNTY).sign_key


def test_keys_never_change_within_a_life(world: World) -> None:
    other = world.certificate(
        COUNTY, level="county", parent=CITY, scope=(COUNTY,), life=2, incarnation=1, now_s=NOW_S + 9
    )
    refused("FN-5430", world.directory().check, CITY, node_payload(other))


def test_what_an_issuer_signed_with_the_keys_of_an_earlier_life_is_lawful(world: World) -> None:
    """It lost them; its children's certificates are in its history."""
    directory = world.directory()
    take(directory, CITY, node_payload(county(world, life=2)))
    directory.check(COUNTY, node_payload(world.places["130102001"].chain[0]))


def test_a_chain_goes_through_the_lives_that_signed_it(world: World) -> None:
    """The county lost its keys, or a standby with others succeeded it: the township's certificate is by the old
    ones."""
    directory = world.directory()
    take(directory, CITY, node_payload(county(world, life=2)))
    assert [one.incarnation for one in directory.path(VILLAGE)] == [1, 1, 2, 1, 1]
    assert directory.chain(VILLAGE) == world.places[VILLAGE].chain
    certs.check_chain(directory.chain(VILLAGE), world.root_sha256)
    assert directory.chain(COUNTY) == (county(world, life=2), *world.places[CITY].chain)
    assert directory.chain("99") == (world.root_der,)
    assert Directory(world.root_der, world.domain).chain(VILLAGE) == (world.root_der,)


def test_the_later_lives_of_those_above(world: World) -> None:
    directory = world.directory()
    second, third = county(world, life=2), county(world, life=3)
    above = world.certificate(CITY, level="city", parent=PROVINCE, scope=(CITY,), life=2)
    for origin, der in ((CITY, second), (CITY, third), (PROVINCE, above)):
        take(directory, origin, node_payload(der))
    assert [one.der for one in directory.later(TOWNSHIP, (1, 1, 1, 1))] == [above, second, third]
    assert [one.der for one in directory.later(TOWNSHIP, (1, 2, 1, 1))] == [above, third]
    assert [one.der for one in directory.later(COUNTY, (3, 1))] == [above]
    assert directory.later(TOWNSHIP, (1, 3, 2, 1)) == [] == directory.later(TOWNSHIP, ())
    assert directory.later("99", (1,)) == []


def test_who_joined_in_a_later_life_of_its_parent_does_not_know_those_before(world: World) -> None:
    """A standby that came two lives later was given what was written in the second, and refused it (FN-5412)."""
    second, third = county(world, life=2), county(world, life=3)
    directory = world.directory()
    assert directory.unbroken(COUNTY) == 1
    take(directory, CITY, node_payload(third))
    assert directory.unbroken(COUNTY) == 1
    assert [one.der for one in directory.later(COUNTY, (directory.unbroken(COUNTY), 1, 1))] == [third]
    take(directory, CITY, node_payload(second))
    assert directory.unbroken(COUNTY) == 3
    alone = Directory(directory.root.der, directory.domain)
    alone.seed((third, *directory.chain(CITY)))
    assert alone.unbroken(COUNTY) == 0
    assert [one.incarnation for one in directory.later(COUNTY, (alone.unbroken(COUNTY), 1, 1))] == [1, 2, 3]


_WORLDS: list[World] = []


def _world() -> World:
    if not _WORLDS:
        _WORLDS.append(World())
    return _WORLDS[0]


# ---------------------------------------------------------------- questions


def test_the_narrowest_node_covers_an_area(world: World) -> None:
    directory = world.directory()
    for area, node in (
        (VILLAGE, VILLAGE),
        ("130102001002", TOWNSHIP),
        ("130102002", COUNTY),
        ("1301", CITY),
        ("1303", PROVINCE),
        ("1399", "9902"),
        ("14", None),
        ("", None),
    ):
        found = directory.node_covering(area)
        assert (found.node if found else None) == node


def test_ranks(world: World) -> None:
    directory = world.directory()
    assert [directory.rank(level) for level in LEVELS] == [0, 1, 2, 3, 4]
    assert directory.rank("nowhere") == 5


def test_what_is_believed_is_what_the_root_said(world: World) -> None:
    assert world.directory().levels == LEVELS
    assert certs.parse(world.root_der).levels == LEVELS


@pytest.mark.parametrize("wide_first", [False, True])
def test_of_two_certificates_of_the_same_second_the_wide_one_stays(wide_first: bool) -> None:
    """A node that is certified as release 0.1 was, and renews at once: whichever comes first, it does not ask again."""
    wide, dated = World().places["1301"].chain[0], World(wide=False).places["1301"].chain[0]
    directory = World().directory()
    for der in (wide, dated) if wide_first else (dated, wide):
        directory.apply("13", node_payload(der))
    known = directory.get("1301")
    assert known is not None
    assert known.der == wide
