"""Joining: the token in every wrong form, both sides' decisions, and a man in the middle who learns nothing."""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import certs, issuing
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.sync import enrol
from fednode.sync.enrol import AskChain, AskJoin, ChainSeen, Invitation, Joined, JoinSeen, Keys, Token
from fednode.sync.errors import PeerError, Refused
from fednode.sync.identity import LEVELS
from fednode.sync.versions import Versions
from world import NOW_S, World, keys_of, seed

VECTORS = Path(__file__).parent / "vectors"
SECRET = seed("secret")[:16]
LATER = NOW_S + 3600


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def token(world: World, **changed: Any) -> Token:
    made = Token(world.root_sha256, SECRET, "1303", LATER, ("10.0.0.1:7444", "gw.example:7444"))
    return replace(made, **changed)


def refused(kind: type[FednodeError], code: str, call: Any, *arguments: Any) -> FednodeError:
    with pytest.raises(kind) as caught:
        call(*arguments)
    assert caught.value.code == code
    return caught.value


# ---------------------------------------------------------------- the token as text


@settings(max_examples=150, derandomize=True, deadline=None)
@given(
    st.binary(min_size=32, max_size=32),
    st.binary(min_size=16, max_size=16),
    st.from_regex(certs.NODE_NAME, fullmatch=True),
    st.integers(0, 2**40),
    st.lists(st.from_regex(r"[a-z0-9.\[\]:-]{1,40}", fullmatch=True), max_size=enrol.ADDRESSES_MAX).map(tuple),
)
def test_a_token_comes_back(root: bytes, secret: bytes, node: str, expires_s: int, addresses: tuple[str, ...]) -> None:
    made = Token(root, secret, node, expires_s, addresses)
    assert Token.decode(made.encode()) == made


def test_a_token_survives_a_line_break_and_spaces(world: World) -> None:
    text = token(world).encode()
    assert Token.decode(f"  {text[:30]}\n   {text[30:]}\n") == token(world)


def test_every_altered_character_is_noticed(world: World) -> None:
    text = token(world).encode()
    start = len(enrol.TOKEN_PREFIX)
    for at in range(len(text)):
        for other in "Ax_-0.":
            if other == text[at]:
                continue
            bad = text[:at] + other + text[at + 1 :]
            refused(Refused, "FN-3102" if at >= start else "FN-3101", Token.decode, bad)


def test_every_cut_is_noticed(world: World) -> None:
    text = token(world).encode()
    for end in range(len(text)):
        refused(Refused, "FN-3102" if end >= len(enrol.TOKEN_PREFIX) else "FN-3101", Token.decode, text[:end])
    for extra in ("A", "AA", "AAAA", "="):
        refused(Refused, "FN-3102", Token.decode, text + extra)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=100).map(lambda raw: enrol.TOKEN_PREFIX + raw.hex()))
def test_any_other_text_is_no_token(text: str) -> None:
    for candidate in (text, enrol.TOKEN_PREFIX + text):
        with pytest.raises(Refused) as caught:
            Token.decode(candidate)
        assert caught.value.code in ("FN-3101", "FN-3102")


def test_the_length_limit(world: World) -> None:
    long = token(world, addresses=("a" * 1200,)).encode()
    assert len(long) < enrol.TOKEN_CHARACTERS_MAX
    assert Token.decode(long).addresses == ("a" * 1200,)
    refused(Refused, "FN-3101", Token.decode, token(world, addresses=("a" * 2000,)).encode())


def test_the_hash_that_is_kept_does_not_open_the_door(world: World) -> None:
    one = token(world)
    assert one.hash == enrol.token_hash(SECRET)
    assert SECRET not in one.hash
    assert enrol.token_hash(one.hash[:16]) != one.hash


def test_tokens_are_read_as_ever() -> None:
    want = json.loads((VECTORS / "token.json").read_text("utf-8"))
    made = Token(
        bytes.fromhex(want["root_sha256"]),
        bytes.fromhex(want["secret"]),
        want["node"],
        want["expires_s"],
        tuple(want["addresses"]),
    )
    assert Token.decode(want["token"]) == made
    assert made.encode() == want["token"]
    assert made.hash.hex() == want["hash"]


# ---------------------------------------------------------------- the side that joins


class Parent:
    """The honest other end of `joining`."""

    def __init__(self, world: World, node: str = "13") -> None:
        self.world, self.node = world, node
        self.identity = world.identity(node)

    def chain_seen(self, **changed: Any) -> ChainSeen:
        chain = self.world.places[self.node].chain
        return replace(ChainSeen(chain, chain[0], NOW_S * 1000), **changed)

    def join_seen(self, ask: AskJoin, *, now_s: int = NOW_S, **changed: Any) -> JoinSeen:
        request = issuing.parse_request(ask.request)
        issuer, key = self.world.issuer(self.node)
        grant = issuing.Grant("邯郸市", "city", ("1304",), 1, 365, 99)
        der = issuing.issue(request, grant, issuer, key, LEVELS, now_s=now_s)
        chain = (der, *self.world.places[self.node].chain)
        return replace(JoinSeen(chain, ("10.0.0.1:7443",), "", {}, NOW_S * 1000), **changed)


def start(world: World, wall_s: int = NOW_S, **changed: Any) -> tuple[Generator[Any, Any, Joined], Keys]:
    keys = keys_of("joiner")
    asking = enrol.joining(token(world, **changed), keys, wall_s * 1000)
    assert next(asking) == AskChain()
    return asking, keys


def finish(asking: Generator[Any, Any, Joined], answer: JoinSeen) -> Joined:
    with pytest.raises(StopIteration) as done:
        asking.send(answer)
    joined: Joined = done.value.value
    return joined


def test_joining(world: World) -> None:
    parent = Parent(world)
    asking, keys = start(world)
    ask = asking.send(parent.chain_seen())
    assert (ask.root, ask.dns, ask.secret) == (world.root_der, parent.identity.dns, SECRET)
    answer = parent.join_seen(ask)
    joined = finish(asking, answer)
    assert (joined.chain, joined.addresses) == (answer.chain, ("10.0.0.1:7443",))
    assert (joined.identity.node, joined.identity.level, joined.identity.sign_key) == ("1303", "city", keys.sign.public)


def test_a_man_in_the_middle_is_found_before_the_secret_leaves(world: World) -> None:
    """The first thing that is sent holds nothing; what would hold the secret is never asked for."""
    evil = World("hebei")  # the same names, another root
    evil_root = issuing.make_root("hebei", ("13",), LEVELS, keys_of("evil").tls, now_s=NOW_S, days=7300, serial=1)
    evil_chain = (*evil.places["13"].chain[:-1], evil_root)
    asking, _ = start(world)
    error = refused(PeerError, "FN-6110", asking.send, ChainSeen(evil_chain, evil_chain[0], NOW_S * 1000))
    assert error.params == {"found": certs.SUITE_1.hash(evil_root).hex(), "pinned": world.root_sha256.hex()}
    with pytest.raises(StopIteration):
        next(asking)


def test_a_copied_chain_does_not_help_the_man_in_the_middle(world: World) -> None:
    """The chain is public; the TLS connection must be with the very certificate at its head."""
    asking, _ = start(world)
    mine = World("henan").places["13"].chain[0]
    refused(PeerError, "FN-6111", asking.send, Parent(world).chain_seen(tls_leaf=mine))


@pytest.mark.parametrize("cut", [(), (0,), (1,)])
def test_a_chain_that_does_not_hold(world: World, cut: tuple[int, ...]) -> None:
    chain = tuple(world.places["13"].chain[i] for i in cut)
    asking, _ = start(world)
    code = {(): "FN-6110", (0,): "FN-6110", (1,): "FN-6111"}[cut]
    refused(PeerError, code, asking.send, ChainSeen(chain, b"", NOW_S * 1000))


def test_a_forged_parent_under_the_true_root(world: World) -> None:
    other = World("henan")
    chain = (other.places["13"].chain[0], world.root_der)
    asking, _ = start(world)
    refused(IntegrityError, "FN-6102", asking.send, ChainSeen(chain, chain[0], NOW_S * 1000))


@pytest.mark.parametrize(("speaks", "code"), [((0, 0), "FN-5505"), ((7, 8), "FN-5518")])
def test_a_parent_without_a_common_version_is_not_told_the_secret(
    world: World, speaks: tuple[int, int], code: str
) -> None:
    asking, _ = start(world)
    refused(PeerError, code, asking.send, Parent(world).chain_seen(speaks=Versions(*speaks)))


def test_an_expired_token_is_not_used(world: World) -> None:
    """By the parent's clock, whatever this machine's says."""
    for wall_s in (0, NOW_S, 2 * NOW_S):
        asking, _ = start(world, wall_s)
        error = refused(Refused, "FN-5103", asking.send, Parent(world).chain_seen(now_ms=(LATER + 1) * 1000))
        assert error.params["now"] == certs.iso(LATER + 1)
        asking, _ = start(world, wall_s)
        assert isinstance(asking.send(Parent(world).chain_seen(now_ms=LATER * 1000)), AskJoin)


CLOCKS = {"1970": 0, "2016": 1_451_606_400, "2036": 2_082_758_400, "2099": 4_070_908_800}


@pytest.mark.parametrize("year", CLOCKS)
def test_a_clock_that_is_years_off_joins_and_knows_by_how_much(world: World, year: str) -> None:
    parent = Parent(world)
    asking, _ = start(world, CLOCKS[year])
    ask = asking.send(parent.chain_seen())
    assert finish(asking, parent.join_seen(ask)).skew_ms == (NOW_S - CLOCKS[year]) * 1000


@pytest.mark.parametrize("year", CLOCKS)
def test_a_clock_that_tls_would_refuse_is_named(year: str) -> None:
    """Certificates of release 0.1: TLS goes by their dates and this machine's clock. Nothing secret is sent."""
    asking, _ = start(OLD, CLOCKS[year])
    error = refused(Refused, "FN-5113", asking.send, Parent(OLD).chain_seen())
    assert error.params == {"here": certs.iso(CLOCKS[year]), "parent": certs.iso(NOW_S)}


@pytest.mark.parametrize("year", CLOCKS)
def test_a_parent_of_release_0_1_is_not_told_the_secret_at_a_wrong_time(world: World, year: str) -> None:
    """It would certify with dates around its own time, and the token would have been used in vain."""
    speaks = Versions(1, 1)
    asking, _ = start(world, CLOCKS[year])
    refused(Refused, "FN-5113", asking.send, Parent(world).chain_seen(speaks=speaks))
    for off_s in (-certs.BACKDATE_S, 0, enrol.DATED_LIFE_S_MIN):
        asking, _ = start(world, NOW_S + off_s)
        assert isinstance(asking.send(Parent(world).chain_seen(speaks=speaks)), AskJoin)
    for off_s in (-certs.BACKDATE_S - 1, enrol.DATED_LIFE_S_MIN + 1):
        asking, _ = start(world, NOW_S + off_s)
        refused(Refused, "FN-5113", asking.send, Parent(world).chain_seen(speaks=speaks))


OLD = World(wide=False)


@pytest.mark.parametrize(("now_s", "code"), [(0, "FN-5131"), (NOW_S + 25 * 365 * 86_400, "FN-5130")])
def test_a_parent_whose_own_certificate_does_not_hold_by_its_own_clock(world: World, now_s: int, code: str) -> None:
    asking, _ = start(world)
    error = refused(PeerError, code, asking.send, Parent(world).chain_seen(now_ms=now_s * 1000))
    assert error.params["now"] == certs.iso(now_s)


def test_a_certificate_from_the_future_is_named(world: World) -> None:
    parent = Parent(world)
    asking, _ = start(world)
    ask = asking.send(parent.chain_seen())
    refused(PeerError, "FN-5131", asking.send, parent.join_seen(ask, now_s=NOW_S + 2 * certs.BACKDATE_S))


def test_a_refusal_is_passed_on_with_its_code(world: World) -> None:
    parent = Parent(world)
    asking, _ = start(world)
    asking.send(parent.chain_seen())
    answer = JoinSeen((), (), "FN-5102", {"node": "1303"}, NOW_S * 1000)
    assert refused(PeerError, "FN-5102", asking.send, answer).params == {"node": "1303"}


def test_a_certificate_for_somebody_else(world: World) -> None:
    """For another name; for other keys, so that the parent could sign and read in this node's place."""
    parent = Parent(world)
    other = keys_of("other")
    mine = keys_of("joiner")
    requests = (
        issuing.make_request("1304", mine.tls, mine.sign, mine.seal),
        issuing.make_request("1303", mine.tls, other.sign, mine.seal),
        issuing.make_request("1303", mine.tls, mine.sign, other.seal),
    )
    for request in requests:
        asking, _ = start(world)
        ask = asking.send(parent.chain_seen())
        refused(PeerError, "FN-6112", asking.send, parent.join_seen(replace(ask, request=request)))


def test_regression_a_certificate_with_another_tls_key(world: World) -> None:
    """The node could never have dialled with it."""
    parent, mine = Parent(world), keys_of("joiner")
    asking, _ = start(world)
    ask = asking.send(parent.chain_seen())
    request = issuing.make_request("1303", keys_of("other").tls, mine.sign, mine.seal)
    refused(PeerError, "FN-6112", asking.send, parent.join_seen(replace(ask, request=request)))


def test_a_certificate_under_another_root(world: World) -> None:
    parent = Parent(world)
    asking, _ = start(world)
    ask = asking.send(parent.chain_seen())
    refused(IntegrityError, "FN-6103", asking.send, Parent(World("henan")).join_seen(ask))


def test_the_driver_may_not_confuse_the_steps(world: World) -> None:
    parent = Parent(world)
    asking, _ = start(world)
    with pytest.raises(RuntimeError, match="ChainSeen"):
        asking.send(JoinSeen((), (), "", {}, 0))
    asking, _ = start(world)
    asking.send(parent.chain_seen())
    with pytest.raises(RuntimeError, match="JoinSeen"):
        asking.send(parent.chain_seen())


# ---------------------------------------------------------------- the side that issues


def invite(world: World, me: str, node: str, level: str, *scope: str) -> None:
    enrol.check_invitation(world.identity(me), LEVELS, node, level, scope)


def test_who_may_be_invited(world: World) -> None:
    invite(world, "13", "1303", "city", "1303")
    invite(world, "13", "v", "village", "130102001002")  # levels may be skipped
    invite(world, "1301", "130105", "county", "130105", "130106")


@pytest.mark.parametrize(
    ("me", "node", "level", "scope", "code"),
    [
        ("13", "", "city", ("1303",), "FN-2101"),
        ("13", "a/b", "city", ("1303",), "FN-2101"),
        ("13", "-x", "city", ("1303",), "FN-2101"),
        ("13", "x" * 65, "city", ("1303",), "FN-2101"),
        ("13", "root", "city", ("1303",), "FN-2101"),
        ("13", "1303", "town", ("1303",), "FN-2102"),
        ("13", "1303", "city", ("13x",), "FN-2103"),
        ("13", "1303", "city", ("1",), "FN-2103"),
        ("130102001001", "g1", "village", ("130102001001",), "FN-5105"),
        ("1301", "1303", "city", ("1301",), "FN-5106"),
        ("1301", "1303", "province", ("1301",), "FN-5106"),
        ("1301", "1301", "county", ("130102",), "FN-5108"),
        ("1301", "130203", "county", ("130203",), "FN-5107"),
        ("1301", "130103", "county", ("130103", "1302"), "FN-5107"),
        ("1301", "130103", "county", ("13",), "FN-5107"),
    ],
)
def test_who_may_not(world: World, me: str, node: str, level: str, scope: tuple[str, ...], code: str) -> None:
    refused(Refused, code, lambda: invite(world, me, node, level, *scope))


INVITED = Invitation("1303", "邯郸市", "city", ("1303",), LATER)
KEY, OTHER = seed("key"), seed("other")


@pytest.mark.parametrize(
    ("invitation", "node", "key", "now_s", "code"),
    [
        (None, "1303", KEY, NOW_S, "FN-5101"),
        (INVITED, "1304", KEY, NOW_S, "FN-5104"),
        (INVITED, "1303", KEY, LATER + 1, "FN-5103"),
        (replace(INVITED, used_key=OTHER), "1303", KEY, NOW_S, "FN-5102"),
        (INVITED, "1303", KEY, LATER, ""),
        (replace(INVITED, used_key=KEY), "1303", KEY, NOW_S, ""),  # the reply was lost
        (replace(INVITED, used_key=KEY), "1303", KEY, LATER + 10**6, ""),  # and it took long to ask again
    ],
)
def test_a_token_works_once_in_time_for_its_name(
    invitation: Invitation | None, node: str, key: bytes, now_s: int, code: str
) -> None:
    if code:
        refused(PeerError, code, enrol.check_use, invitation, node, key, now_s)
    else:
        assert enrol.check_use(invitation, node, key, now_s) == invitation


def test_incarnations(world: World) -> None:
    known = world.identity("1301")
    assert enrol.next_incarnation(None, KEY, False) == 1
    assert enrol.next_incarnation(known, known.sign_key, False) == 1
    assert enrol.next_incarnation(known, KEY, False) == 2
    assert enrol.next_incarnation(known, known.sign_key, True) == 2


def test_renewal_is_due_at_two_thirds_of_a_life(world: World) -> None:
    own = world.identity("1301")
    due = own.not_before + (own.not_after - own.not_before) * 2 // 3
    assert not enrol.renewal_due(own, due - 1)
    assert enrol.renewal_due(own, due + 1)


def test_a_renewal_keeps_the_node_and_its_keys(world: World) -> None:
    known, mine, other = world.identity("1301"), world.keys("1301"), keys_of("other")
    good = issuing.make_request("1301", mine.tls, mine.sign, mine.seal)
    assert enrol.check_renewal(known, good).node == "1301"
    rolled = issuing.make_request("1301", other.tls, mine.sign, mine.seal)  # the TLS key may be a new one
    assert enrol.check_renewal(known, rolled).tls_key == other.tls.public_der
    for bad in (
        issuing.make_request("1302", mine.tls, mine.sign, mine.seal),
        issuing.make_request("1301", mine.tls, other.sign, mine.seal),
        issuing.make_request("1301", mine.tls, mine.sign, other.seal),
        b"",
        good[:-1],
    ):
        refused(PeerError, "FN-5114", enrol.check_renewal, known, bad)
    refused(PeerError, "FN-5114", enrol.check_renewal, None, good)
