"""Certificates: what a chain proves, what no issuer may say, and the same chain before openssl."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from fednode.crypto import canonical, certs, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import TlsKey
from fednode.crypto.suite import SUITE_1
from fednode.sync.identity import LEVELS
from world import DAYS, NOW_S, World, keys_of, seed

VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE = "130102001001", "130102001", "130102", "1301", "13"
SMALL_ORDER = (1).to_bytes(32, "little")


@pytest.fixture(scope="module")
def world() -> World:
    return World()


def refused(code: str, call: Any, *arguments: Any, **more: Any) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        call(*arguments, **more)
    assert caught.value.code == code
    return caught.value


def forged(
    child: Identity, issuer: Identity, key: TlsKey, pathlen: int | None = None, wide: bool = True, **profile: Any
) -> bytes:
    """A certificate that says whatever it likes, signed with `key`."""
    issuer_certificate = x509.load_der_x509_certificate(issuer.der)
    builder = issuing._builder(
        child,
        load_der_public_key(child.tls_key),
        issuer_certificate.subject,
        issuer_certificate.public_key(),
        7,
        pathlen,
        wide,
    )
    if profile:
        kept = [one for one in builder._extensions if one.oid != certs.PROFILE]
        (old,) = [one for one in builder._extensions if one.oid == certs.PROFILE]
        said = canonical.loads(certs.text_of(old.value.public_bytes()))
        said = {name: value for name, value in {**said, **profile}.items() if value is not ...}
        builder._extensions = kept
        text = certs.text_der(canonical.dumps(said))
        builder = builder.add_extension(x509.UnrecognizedExtension(certs.PROFILE, text), critical=False)
    return builder.sign(key.key, hashes.SHA256(), ecdsa_deterministic=True).public_bytes(Encoding.DER)


# ---------------------------------------------------------------- what a chain says


def test_a_chain_of_five_levels(world: World) -> None:
    chain = world.places[VILLAGE].chain
    found = certs.check_chain(chain, world.root_sha256, NOW_S)
    assert [one.node for one in found] == [VILLAGE, TOWNSHIP, COUNTY, CITY, PROVINCE, "root"]
    assert [one.level for one in found] == [*reversed(LEVELS), "root"]
    own, keys = found[0], world.places[VILLAGE].keys
    assert (own.sign_key, own.seal_key, own.tls_key) == (keys.sign.public, keys.seal.public, keys.tls.public_der)
    assert (own.scope, own.incarnation, own.issuer, own.may_issue) == ((VILLAGE,), 1, TOWNSHIP, True)
    assert (own.not_before, own.not_after) == (NOW_S - certs.BACKDATE_S, NOW_S + DAYS * 86400)
    assert own.dns == f"{VILLAGE}.{TOWNSHIP}.{COUNTY}.{CITY}.{PROVINCE}.hebei.fednode.internal"
    assert all(one.may_issue for one in found[1:])
    assert found[-1].levels == LEVELS


def test_a_certificate_ends_with_its_issuers(world: World) -> None:
    late = world.certificate("130102", level="county", parent="1301", scope=("130102",), days=10_000)
    assert certs.parse(late).not_after == world.identity("1301").not_after


@pytest.mark.parametrize("node", ["1301", "13-city", "City_01", "a" * 64, "石家庄"])
def test_names_that_are_no_dns_labels_get_one(node: str) -> None:
    label = certs.dns_label(node)
    assert len(label) <= 40
    assert label.replace("-", "").isalnum()
    assert label.isascii()
    assert label == certs.dns_label(node)
    assert label != certs.dns_label(node + "x")


@pytest.mark.parametrize(
    ("scope", "area", "inside"),
    [
        (("1301",), "1301", True),
        (("1301",), "130102", True),
        (("1301",), "13", False),
        (("1301",), "1302", False),
        (("1302", "1301"), "130102001", True),
        ((), "13", False),
    ],
)
def test_scopes_are_prefixes(scope: tuple[str, ...], area: str, inside: bool) -> None:
    assert certs.covers(scope, area) is inside


# ---------------------------------------------------------------- what no issuer may say


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"scope": ("1302",)}, "scope"),
        ({"scope": (TOWNSHIP, "1302")}, "scope"),
        ({"scope": ("1301",)}, "scope"),  # wider than the issuer's
        ({"level": "county"}, "level"),  # the issuer's own
        ({"level": "city"}, "level"),  # above it
        ({"level": "root"}, "level"),
        ({"level": "empire"}, "level"),
        ({"domain": "henan"}, "domain"),
        ({"issuer": CITY}, "issuer"),
        ({"issuer": "root"}, "issuer"),
        ({"dns": f"{TOWNSHIP}.hebei.fednode.internal"}, "dns"),
        ({"dns": f"{TOWNSHIP}.evil.example"}, "dns"),
        ({"dns": f"x.{COUNTY}.{CITY}.{PROVINCE}.hebei.fednode.internal"}, "dns"),
        ({"node": COUNTY}, "dns"),
    ],
)
def test_a_child_lies_inside_its_issuer(world: World, changed: dict[str, Any], reason: str) -> None:
    """Signed with the issuer's true key: what is refused is what it says."""
    issuer, key = world.issuer(COUNTY)
    child = world.identity(TOWNSHIP)
    assert certs.check_issued(certs.parse(forged(child, issuer, key)), issuer, LEVELS) is None
    bad = certs.parse(forged(replace(child, **changed), issuer, key))
    assert refused("FN-6102", certs.check_issued, bad, issuer, LEVELS).params["reason"] == reason
    chain = (bad.der, *world.places[COUNTY].chain)
    assert refused("FN-6102", certs.check_chain, chain, world.root_sha256).params["reason"] == reason


@pytest.mark.parametrize("node", [COUNTY, "root"])
def test_a_node_is_not_its_own_issuer(world: World, node: str) -> None:
    issuer, key = world.issuer(COUNTY)
    dns = f"{certs.dns_label(node)}.{issuer.dns}"
    bad = certs.parse(forged(replace(world.identity(TOWNSHIP), node=node, dns=dns), issuer, key))
    assert refused("FN-6102", certs.check_issued, bad, issuer, LEVELS).params["reason"] == "node"


def test_a_forged_issuer(world: World) -> None:
    """All is in order, but for the key: another's with the issuer's name on it."""
    issuer, _ = world.issuer(COUNTY)
    bad = forged(world.identity(TOWNSHIP), issuer, keys_of("stranger").tls)
    chain = (bad, *world.places[COUNTY].chain)
    assert refused("FN-6102", certs.check_chain, chain, world.root_sha256).params["reason"] == "signature"


def test_an_issuer_that_is_made_up_in_between(world: World) -> None:
    """A stranger's county, self-made, with a township below it."""
    stranger = keys_of("stranger").tls
    city, _ = world.issuer(CITY)
    county = forged(replace(world.identity(COUNTY), tls_key=stranger.public_der), city, stranger, 2)
    township = forged(world.identity(TOWNSHIP), certs.parse(county), stranger, 1)
    chain = (township, county, *world.places[CITY].chain)
    error = refused("FN-6102", certs.check_chain, chain, world.root_sha256)
    assert (error.params["node"], error.params["reason"]) == (COUNTY, "signature")


def test_a_village_issues_for_its_standby_alone(world: World) -> None:
    village, key = world.issuer(VILLAGE)
    standby = world.certificate(f"{VILLAGE}-s1", level="village", parent=VILLAGE, scope=(VILLAGE,), standby=True)
    found = certs.check_chain((standby, *world.places[VILLAGE].chain), world.root_sha256, NOW_S)[0]
    assert (found.stands_for, found.may_issue) == (VILLAGE, False)
    for level, reason in (("village", "level"), ("group", "level")):
        below = replace(world.identity(VILLAGE), node="g1", level=level, issuer=VILLAGE, dns=f"g1.{village.dns}")
        bad = certs.parse(forged(below, village, key))
        assert refused("FN-6102", certs.check_issued, bad, village, LEVELS).params["reason"] == reason


def test_a_standby_issues_nothing(world: World) -> None:
    place = world.places[VILLAGE]
    der = world.certificate(f"{VILLAGE}-s1", level="village", parent=VILLAGE, scope=(VILLAGE,), standby=True)
    standby = certs.parse(der)
    deeper = (*LEVELS, "group")
    below = replace(place.identity, node="g1", level="group", issuer=standby.node, dns=f"g1.{standby.dns}")
    bad = certs.parse(forged(below, standby, place.keys.tls))
    assert refused("FN-6102", certs.check_issued, bad, standby, deeper).params["reason"] == "issuer may not issue"


@pytest.mark.parametrize(
    ("level", "scope", "reason"),
    [
        ("township", ("1302",), "scope"),
        ("county", (TOWNSHIP,), "level"),
        ("province", (TOWNSHIP,), "level"),
        ("nowhere", (TOWNSHIP,), "level"),
    ],
)
def test_issuing_refuses_what_checking_would(world: World, level: str, scope: tuple[str, ...], reason: str) -> None:
    call = lambda: world.certificate(TOWNSHIP, level=level, parent=COUNTY, scope=scope)  # noqa: E731
    assert refused("FN-6102", call).params["reason"] == reason


def test_a_chain_with_another_root(world: World) -> None:
    other = World("henan")
    chain = world.places[CITY].chain
    refused("FN-6103", certs.check_chain, chain, other.root_sha256)
    refused("FN-6103", certs.check_chain, (*chain[:-1], other.root_der), world.root_sha256)
    refused("FN-6103", certs.check_chain, chain[:-1], world.root_sha256)
    refused("FN-6103", certs.check_chain, (), world.root_sha256)
    bad = (*other.places[CITY].chain[:-1], world.root_der)
    refused("FN-6102", certs.check_chain, bad, world.root_sha256)


def test_a_chain_with_a_step_left_out_or_turned_round(world: World) -> None:
    chain = world.places[TOWNSHIP].chain
    for i in range(len(chain) - 1):
        shorter = (*chain[:i], *chain[i + 1 :])
        if i == 0:
            assert certs.check_chain(shorter, world.root_sha256)[0].node == COUNTY
        else:
            refused("FN-6102", certs.check_chain, shorter, world.root_sha256)
    refused("FN-6102", certs.check_chain, (chain[1], chain[0], *chain[2:]), world.root_sha256)
    refused("FN-6102", certs.check_chain, (chain[-1], chain[-1]), world.root_sha256)


def test_a_node_cannot_pass_for_the_root(world: World) -> None:
    """Whoever pins a node's certificate instead of the root's has pinned nothing."""
    chain = world.places[CITY].chain
    error = refused("FN-6102", certs.check_chain, chain[:2], SUITE_1.hash(chain[1]))
    assert error.params["reason"] == "root"


def test_time(world: World) -> None:
    chain, root = world.places[VILLAGE].chain, world.root_sha256
    own = world.identity(VILLAGE)
    for now_s in (own.not_before, own.not_after):
        certs.check_chain(chain, root, now_s)
    error = refused("FN-6104", certs.check_chain, chain, root, own.not_before - 1)
    assert error.params["valid_from"] == certs.iso(own.not_before)
    refused("FN-6105", certs.check_chain, chain, root, own.not_after + 1)
    refused("FN-6104", certs.check_chain, chain, root, 0)
    certs.check_chain(chain, root)  # a log outlives the certificates of its writer


def test_tls_takes_a_certificate_whatever_the_clock_says_and_we_do_not(world: World) -> None:
    chain, root = world.places[VILLAGE].chain, world.root_sha256
    for wall_s in (0, 1_451_606_400, 2_082_758_400, 4_070_908_800):  # 1970, 2016, 2036, 2099
        assert certs.outside_tls_dates(chain, wall_s) is None
        refused("FN-6104" if wall_s < NOW_S else "FN-6105", certs.check_chain, chain, root, wall_s)


def test_certificates_of_release_0_1_hold_by_their_dates_everywhere() -> None:
    old = World(wide=False)
    chain, own = old.places[VILLAGE].chain, old.identity(VILLAGE)
    certs.check_chain(chain, old.root_sha256, NOW_S)
    for wall_s, fits in ((own.not_before - 1, False), (own.not_before, True), (own.not_after, True),
                         (own.not_after + 1, False)):  # fmt: skip
        assert (certs.outside_tls_dates(chain, wall_s) is None) is fits
    mixed = (chain[0], *World().places[VILLAGE].chain[1:])
    assert certs.outside_tls_dates(mixed, 0) == chain[0]
    refused("FN-6101", certs.tls_dates, b"junk")


@pytest.mark.parametrize(
    "times",
    [
        {"from": ...},
        {"to": ...},
        {"from": "1"},
        {"to": 1.5},
        {"from": True},
        {"from": -1},
        {"to": certs.WIDE[1] + 1},
        {"from": NOW_S, "to": NOW_S - 1},
    ],
)
def test_times_that_cannot_be(world: World, times: dict[str, Any]) -> None:
    issuer, key = world.issuer(COUNTY)
    refused("FN-6101", certs.parse, forged(world.identity(TOWNSHIP), issuer, key, **times))


def test_times_in_the_profile_and_dates_that_say_something_do_not_go_together(world: World) -> None:
    """Or TLS and the application would judge the same certificate differently."""
    issuer, key = world.issuer(COUNTY)
    said = {"from": NOW_S, "to": NOW_S + 1}
    assert certs.parse(forged(world.identity(TOWNSHIP), issuer, key, **said)).not_after == NOW_S + 1
    refused("FN-6101", certs.parse, forged(world.identity(TOWNSHIP), issuer, key, None, False, **said))


def test_an_expired_issuer_is_found(world: World) -> None:
    """A child never outlives its issuer when `issue` makes it; a forger may say so."""
    issuer, key = world.issuer(COUNTY)
    bad = forged(replace(world.identity(TOWNSHIP), not_after=issuer.not_after + 10_000), issuer, key)
    chain = (bad, *world.places[COUNTY].chain)
    error = refused("FN-6105", certs.check_chain, chain, world.root_sha256, issuer.not_after + 1)
    assert error.params["node"] == COUNTY


# ---------------------------------------------------------------- what does not parse


@pytest.mark.parametrize(
    "profile",
    [
        {"v": 2},
        {"v": ...},
        {"sign": SMALL_ORDER.hex()},
        {"sign": bytes(32).hex()},
        {"sign": "00"},
        {"sign": "zz"},
        {"sign": ...},
        {"seal": SMALL_ORDER.hex()},
        {"seal": "00"},
        {"seal": 5},
        {"scope": []},
        {"scope": ["1"]},
        {"scope": ["13x"]},
        {"scope": [13]},
        {"scope": 13},
        {"scope": ["13"] * (certs.SCOPE_MAX + 1)},
        {"inc": 0},
        {"inc": -1},
        {"inc": 10**9},
        {"inc": "1"},
        {"inc": ...},
        {"name": "x" * (certs.TITLE_MAX + 1)},
        {"name": 5},
    ],
)
def test_profiles_that_cannot_be(world: World, profile: dict[str, Any]) -> None:
    issuer, key = world.issuer(COUNTY)
    right = {"inc": 2, "scope": ["13"] * certs.SCOPE_MAX, "name": "x" * certs.TITLE_MAX}
    assert certs.parse(forged(world.identity(TOWNSHIP), issuer, key, **right)).incarnation == 2
    refused("FN-6101", certs.parse, forged(world.identity(TOWNSHIP), issuer, key, **profile))


@pytest.mark.parametrize("changed", [{"node": "-x"}, {"node": "a/b"}, {"node": "x y"}, {"domain": "Hebei"}])
def test_names_that_cannot_be(world: World, changed: dict[str, str]) -> None:
    issuer, key = world.issuer(COUNTY)
    refused("FN-6101", certs.parse, forged(replace(world.identity(TOWNSHIP), **changed), issuer, key))


def test_another_kind_of_certificate(world: World) -> None:
    """One without our profile, one with an Ed25519 key, and what is none at all."""
    name = x509.Name([])
    key = ed25519.Ed25519PrivateKey.from_private_bytes(seed("x"))
    start, end = (x509.load_der_x509_certificate(world.root_der).__getattribute__(n) for n in (
        "not_valid_before_utc", "not_valid_after_utc"))  # fmt: skip
    builder = x509.CertificateBuilder(name, name, key.public_key(), 5, start, end)
    refused("FN-6101", certs.parse, builder.sign(key, None).public_bytes(Encoding.DER))
    for junk in (b"", b"0", b"\x30\x82", bytes(500), world.root_der[:-1], world.root_der + b"\x00"):
        refused("FN-6101", certs.parse, junk)


@pytest.mark.filterwarnings("ignore:Parsed a serial number")  # the library says so before it refuses
@pytest.mark.parametrize(("node", "parent"), [(VILLAGE, TOWNSHIP), (TOWNSHIP, COUNTY), (COUNTY, CITY)])
def test_no_byte_of_a_certificate_can_change(world: World, node: str, parent: str) -> None:
    issuer, _ = world.issuer(parent)
    der = world.places[node].chain[0]
    codes = set()
    for at in range(len(der)):
        for bit in (1, 0x20, 0x80):
            altered = bytearray(der)
            altered[at] ^= bit
            with pytest.raises(IntegrityError) as caught:
                certs.check_issued(certs.parse.__wrapped__(bytes(altered)), issuer, LEVELS)
            codes.add(caught.value.code)
    assert codes == {"FN-6101", "FN-6102"}


@pytest.mark.parametrize("size", [0, 1, 127, 128, 255, 256, 5000, 65535])
def test_the_profile_is_der(size: int) -> None:
    """Lengths in their shortest form, as other ASN.1 readers insist."""
    der = certs.text_der(b"x" * size)
    assert len(der) == size + (2 if size < 128 else 3 if size < 256 else 4)
    assert certs.text_of(der) == b"x" * size
    for bad in (der + b"x", b"\x04" + der[1:], b"\x0c\x82\x00\x01x", b"\x0c\x81\x01x", b"\x0c\x80", b"\x0c", b""):
        with pytest.raises(ValueError, match="UTF8String"):
            certs.text_of(bad)


# ---------------------------------------------------------------- requests


def test_a_request_comes_back(world: World) -> None:
    keys = keys_of("new")
    request = issuing.parse_request(issuing.make_request("1303", keys.tls, keys.sign, keys.seal))
    assert request == issuing.Request("1303", keys.tls.public_der, keys.sign.public, keys.seal.public, wide=True)


def test_a_node_of_release_0_1_gets_a_certificate_that_it_can_read(world: World) -> None:
    """Its request does not ask for times in the profile, so its certificate has real X.509 dates; the chain above it
    may be of either kind."""
    keys = keys_of("new")
    der = issuing.make_request("1303", keys.tls, keys.sign, keys.seal, wide=False)
    request = issuing.parse_request(der)
    assert request == issuing.Request("1303", keys.tls.public_der, keys.sign.public, keys.seal.public)
    issuer, key = world.issuer(PROVINCE)
    made = issuing.issue(request, issuing.Grant("x", "city", ("1303",), 1, 365, 9), issuer, key, LEVELS, now_s=NOW_S)
    assert certs.tls_dates(made) == (NOW_S - certs.BACKDATE_S, NOW_S + 365 * 86400)
    assert certs.tls_dates(made) == (certs.parse(made).not_before, certs.parse(made).not_after)
    certs.check_chain((made, *world.places[PROVINCE].chain), world.root_sha256, NOW_S)


def test_no_byte_of_a_request_can_change() -> None:
    """Every key in it is proved to be in its maker's hands."""
    keys = keys_of("new")
    der = issuing.make_request("1303", keys.tls, keys.sign, keys.seal)
    for at in range(len(der)):
        for bit in (1, 0x20, 0x80):
            altered = bytearray(der)
            altered[at] ^= bit
            refused("FN-6106", issuing.parse_request, bytes(altered))


def with_profile(tls: TlsKey, node: str, **profile: Any) -> bytes:
    text = certs.text_der(canonical.dumps(profile))
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, node)]))
        .add_extension(x509.UnrecognizedExtension(certs.PROFILE, text), critical=False)
        .sign(tls.key, hashes.SHA256())
        .public_bytes(Encoding.DER)
    )


def test_a_signing_key_is_asked_for_by_its_owner_alone() -> None:
    """Mallory holds a TLS key of her own and asks to have the village's signing key bound to it."""
    mine, theirs = keys_of("mallory"), keys_of("village")
    stolen = issuing.parse_request(issuing.make_request("1303", theirs.tls, theirs.sign, theirs.seal))
    proof = theirs.sign.sign(issuing._possession("1303", theirs.tls.public_der, theirs.seal.public))
    said = {"v": 1, "sign": stolen.sign_key.hex(), "seal": stolen.seal_key.hex(), "proof": proof.hex(), "wide": True}
    refused("FN-6106", issuing.parse_request, with_profile(mine.tls, "1303", **said))
    assert issuing.parse_request(with_profile(theirs.tls, "1303", **said)) == stolen
    refused("FN-6106", issuing.parse_request, with_profile(theirs.tls, "1304", **said))  # for another name
    other = {**said, "seal": mine.seal.public.hex()}
    refused("FN-6106", issuing.parse_request, with_profile(theirs.tls, "1303", **other))


@pytest.mark.parametrize("raw", [bytes(32), SMALL_ORDER, (2**255 - 19).to_bytes(32, "little"), bytes(31)])
@pytest.mark.parametrize("which", ["sign", "seal"])
def test_keys_that_must_not_be_certified(raw: bytes, which: str) -> None:
    keys = keys_of("new")
    said = {"v": 1, "sign": keys.sign.public.hex(), "seal": keys.seal.public.hex(), which: raw.hex()}
    seal_key = bytes.fromhex(said["seal"])
    proof = keys.sign.sign(issuing._possession("1303", keys.tls.public_der, seal_key))
    refused("FN-6106", issuing.parse_request, with_profile(keys.tls, "1303", proof=proof.hex(), **said))


# ---------------------------------------------------------------- before an implementation that is not ours

openssl = pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl command here")


def openssl_verify(folder: Path, chain: Sequence[bytes], now_s: int = NOW_S) -> str:
    """What `openssl verify` says of a chain, own certificate first, root last."""
    pems = [x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in chain]
    (folder / "leaf.pem").write_bytes(pems[0])
    (folder / "between.pem").write_bytes(b"".join(pems[1:-1]))
    (folder / "root.pem").write_bytes(pems[-1])
    command = [
        "openssl",
        "verify",
        "-x509_strict",
        "-purpose",
        "sslserver",
        "-attime",
        str(now_s),
        "-CAfile",
        "root.pem",
    ]
    done = subprocess.run(
        [*command, "-untrusted", "between.pem", "leaf.pem"], cwd=folder, capture_output=True, text=True, check=False
    )
    return "ok" if done.returncode == 0 else done.stdout + done.stderr


@openssl
@pytest.mark.parametrize("node", [CITY, COUNTY, TOWNSHIP, VILLAGE])
def test_openssl_verifies_our_chains(world: World, node: str, tmp_path: Path) -> None:
    for now_s in (1, NOW_S, 4_070_908_800):  # 1970, today, 2099: a machine's clock may say anything
        assert openssl_verify(tmp_path, world.places[node].chain, now_s) == "ok"
    assert openssl_verify(tmp_path, World(wide=False).places[node].chain) == "ok"


@openssl
def test_openssl_refuses_what_we_refuse(world: World, tmp_path: Path) -> None:
    issuer, key = world.issuer(COUNTY)
    above = world.places[COUNTY].chain
    child = world.identity(TOWNSHIP)
    said = openssl_verify(tmp_path, (forged(replace(child, dns="x.evil.example"), issuer, key), *above))
    assert "permitted subtree violation" in said
    said = openssl_verify(tmp_path, (forged(child, issuer, keys_of("stranger").tls), *above))
    assert "certificate signature failure" in said
    said = openssl_verify(tmp_path, World(wide=False).places[COUNTY].chain, child.not_after + 1)
    assert "certificate has expired" in said
    old = World(wide=False)
    village, village_key = old.issuer(VILLAGE)
    below = replace(child, node="g1", dns=f"g1.{village.dns}")
    said = openssl_verify(tmp_path, (forged(below, village, village_key), *old.places[VILLAGE].chain))
    assert "invalid CA certificate" in said
    village, village_key = world.issuer(VILLAGE)
    below = replace(child, node="g1", dns=f"g1.{village.dns}", tls_key=village.tls_key)
    deeper = replace(below, node="g2", dns=f"g2.{below.dns}", issuer="g1")
    middle = forged(below, village, village_key)
    chain = (forged(deeper, certs.parse(middle), village_key), middle, *world.places[VILLAGE].chain)
    assert "path length constraint exceeded" in openssl_verify(tmp_path, chain)
