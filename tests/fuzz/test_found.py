"""What fuzzing has found, one by one. The inputs lie in corpus/, too; here is what each of them did."""

from __future__ import annotations

import base64
import dataclasses
import json
import sqlite3
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fednode.crypto import canonical, certs, note
from fednode.crypto.errors import FednodeError
from fednode.crypto.keys import SealKey
from fednode.node import config, fence, proof_words, shipped, switchover, timetable
from fednode.node.projection import fts_phrase
from fednode.proto import fednode_pb2 as pb
from fednode.sync import proof_file
from fednode.sync.catalog import RETENTION_DAYS_MAX, VERSION_MAX, Catalog, Field
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError
from fednode.sync.formats import Problem, parse
from fednode.sync.identity import revocation_payload
from fuzz import crypto_targets, file_targets, peer_targets, state_targets, sync_targets
from fuzz.crypto_targets import world
from world import NOW_S


def refused(code: str, act: Callable[[], object]) -> None:
    with pytest.raises(FednodeError) as caught:
        act()
    assert caught.value.code == code


def test_regression_a_verifier_key_with_half_a_character() -> None:
    text = note.verifier_key("hebei/13", note.ED25519, world().places["13"].keys.sign.public)
    refused("FN-6208", lambda: note.parse_verifier_key(text.replace("13", "\udc88")))


@pytest.mark.parametrize(
    ("name", "value"), [("inc", True), ("levels", [["city"]]), ("levels", [True]), ("name", ["x"]), ("name", {})]
)
def test_regression_a_certificate_whose_profile_is_of_other_kinds(name: str, value: object) -> None:
    """`true` was an incarnation, a list a name; a list as a level ended the look at the chain in a TypeError."""
    profile = canonical.loads(next(iter(crypto_targets._profile_seeds())))
    crypto_targets._certificate_inside(canonical.dumps(profile))
    refused("FN-6101", lambda: crypto_targets._certificate_inside(canonical.dumps({**profile, name: value})))


def test_regression_a_key_file_that_names_another_algorithm() -> None:
    """Found by atheris: 32 bytes as an Ed448 or X448 key are an InternalError to the library, and no ValueError."""
    pem = crypto_targets.KEYS.seal.to_pem()
    der = base64.b64decode(b"".join(pem.split(b"\n")[1:-2]))
    for number in (0x6F, 0x71):
        other = der.replace(b"\x2b\x65\x6e", bytes((0x2B, 0x65, number)))
        text = b"-----BEGIN PRIVATE KEY-----\n" + base64.b64encode(other) + b"\n-----END PRIVATE KEY-----\n"
        refused("FN-7615", lambda text=text: SealKey.from_pem(text))


@pytest.mark.parametrize("payload", [b'{"version":1,"zh":"\xff"}', b"[" * 100_000, b'{"a":' * 100_000])
def test_regression_a_catalog_that_is_no_text_or_too_deep(payload: bytes) -> None:
    refused("FN-3201", lambda: Catalog.from_json(payload))


def catalog_with(**changed: object) -> Catalog:
    return Catalog.from_json(json.dumps({**json.loads(world().catalog.to_json()), **changed}).encode())


def test_regression_a_catalogs_version_fits_a_segment() -> None:
    """Publishing one like 20261126120000 ended in a traceback; from a log it would have stopped all writing here."""
    assert catalog_with(version=VERSION_MAX).version == VERSION_MAX
    for version in (VERSION_MAX + 1, 20261126120000, 1 << 70):
        refused("FN-3209", lambda version=version: catalog_with(version=version))


@pytest.mark.parametrize("days", [-1, RETENTION_DAYS_MAX + 1, 10**30])
def test_regression_days_of_retention_that_no_calendar_has(days: int) -> None:
    """Every read of a withdrawn dataset ended in an OverflowError."""
    document = json.loads(world().catalog.to_json())
    document["dataset"][0]["field"].append({"code": "d", "zh": "d", "en": "d", "type": "date"})
    document["dataset"][0]["retention"] = {"action": "withdraw", "field": "d", "days": RETENTION_DAYS_MAX}
    assert Catalog.from_json(json.dumps(document).encode()).datasets["shop"].retention.days == RETENTION_DAYS_MAX
    document["dataset"][0]["retention"]["days"] = days
    refused("FN-3209", lambda: Catalog.from_json(json.dumps(document).encode()))


@pytest.mark.parametrize("expires", ["+32", "-1", "007", " 7", "1_0", "٧", "9" * 12, "92233720368547758084775808"])
def test_regression_a_token_has_one_spelling_of_its_end(expires: str) -> None:
    good = Token(bytes(32), bytes(16), "1301", 99_999_999_999, ())
    assert Token.decode(good.encode()) == good
    body = bytes(48) + f"1301\n{expires}".encode()
    refused("FN-3102", lambda: sync_targets._token_inside(body))


def test_regression_a_parents_clock_that_no_calendar_has() -> None:
    assert certs.iso(0) == "1970-01-01T00:00:00Z"
    for seconds in (1 << 40, 1 << 63, 1 << 80, -(1 << 63)):
        assert certs.iso(seconds) == str(seconds)
    token = Token(world().root_sha256, bytes(16), "130102001002", NOW_S, ("x:1",))
    steps = sync_targets.enrol.joining(token, sync_targets.keys_of("joins"), NOW_S * 1000)
    next(steps)
    chain = world().places["130102001"].chain
    with pytest.raises(PeerError, match="FN-5130"):
        steps.send(sync_targets.ChainSeen(chain, chain[0], (1 << 63) - 1))


@pytest.mark.parametrize(("incarnation", "at_ms"), [(1, 1 << 64), (1, -1), (0, 0), (10**9, 0), (1 << 70, 0), (-1, 0)])
def test_regression_a_revocation_at_a_time_that_no_clock_shows(incarnation: int, at_ms: int) -> None:
    directory = world().directory()
    directory.check("130102001", revocation_payload("130102001001", 10**9 - 1, NOW_S * 1000, "lost"))
    refused(
        "FN-6402", lambda: directory.check("130102001", revocation_payload("130102001001", incarnation, at_ms, "lost"))
    )


@pytest.mark.parametrize("raw", [b"", b"{", b'{"v": 1}', b'{"domain":"\xff"}'])
def test_regression_the_header_of_an_object_that_is_not_canonical(raw: bytes) -> None:
    refused("FN-6640", lambda: file_targets._object_header(raw))


@pytest.mark.parametrize(
    "body",
    [b"\x91\x93\xa1\xff\x90\x90", b"\x91\x93\xa1a\x91\xa1b\x91" + b"\x91" * 5000 + b"\x01"],
    ids=["text", "depth"],
)
def test_regression_an_object_with_text_that_is_none_or_too_deep(body: bytes) -> None:
    refused("FN-6640", lambda: file_targets._object_inside(body))


@pytest.mark.parametrize("payload", [b"", b"1_0", b'{"a"', b"[" * 5000], ids=["empty", "number", "cut", "depth"])
def test_regression_a_signed_record_that_is_no_json_is_shown_as_it_stands(payload: bytes) -> None:
    checked = proof_file.check(file_targets.proof_of(payload), world().root_der)
    assert list(proof_words.fields_of(checked, "en")) == [("", payload.decode())]


def test_regression_a_search_for_a_zero_character() -> None:
    with closing(sqlite3.connect(":memory:")) as index:
        index.execute("create virtual table words using fts5(text)")
        index.execute("insert into words values ('a b')")
        for text, found in (("a\0b", 1), ("\0", 0), ('"\0', 0)):
            rows = index.execute("select 1 from words where words match ?", (fts_phrase(text),)).fetchall()
            assert len(rows) == found, text


def test_regression_a_day_number_that_no_spreadsheet_makes() -> None:
    """Found by atheris: five zeros were a day of 1899, which is no date when it is written out."""
    for cell in ("00000", "00001", "00045", "09999"):
        assert parse(Field("d", "日期", "Date", "date"), cell) == Problem("d", "date", cell)
    assert parse(Field("d", "日期", "Date", "date"), "10000") == "1927-05-18"


def test_regression_a_line_break_among_the_digits_of_a_credit_code() -> None:
    """It ended the whole import."""
    found = parse(Field("u", "代码", "Code", "uscc"), "9111000\n6000373410")
    assert isinstance(found, Problem)
    assert found.reason == "uscc_format"


def test_regression_every_number_of_the_settings_is_read_as_one(tmp_path: Path) -> None:
    """`drill_days = 90` was refused, and FEDNODE_DRILL_DAYS=90 was a text that the daemon then counted with."""
    numbers = {one.name for one in dataclasses.fields(config.Config) if isinstance(one.default, int)}
    assert numbers - config.SWITCHES == set(config.NUMBERS)
    (tmp_path / "config.toml").write_text("drill_days = 90\n", encoding="utf-8")
    assert config.load(tmp_path, {})[0].drill_days == 90
    assert config.load(tmp_path, {"FEDNODE_DRILL_DAYS": "0"})[0].drill_days == 0
    refused("FN-2602", lambda: config.load(tmp_path, {"FEDNODE_DRILL_DAYS": "3661"}))


@pytest.mark.parametrize(
    ("rate", "text"),
    [(949_672_900, "949672.9k"), (1_234_567_000, "1234.567M"), (2400, "2.4k"), (10**12, "1000G"), (64_001, "64.001k")],
)
def test_regression_a_rate_is_shown_as_it_is_set(rate: int, text: str) -> None:
    """949,672,900 was shown as 949673k."""
    assert timetable.rate_text(rate) == text
    assert timetable.parse_rate(text) == rate


TOO_MUCH = {
    "digits": "scrub_days = " + "9" * 5000,
    "hexadecimal": "listen = 0x" + "f" * 5000,
    "65 bits": "scrub_days = 18446744073709551616",
    "depth": "listen = " + "[" * 3000,
}


@pytest.mark.parametrize("text", TOO_MUCH.values(), ids=TOO_MUCH)
def test_regression_toml_that_the_library_cannot_bear(tmp_path: Path, text: str) -> None:
    file = tmp_path / "config.toml"
    file.write_text(text, encoding="utf-8")
    refused("FN-2603", lambda: config.load(tmp_path, {}))
    refused("FN-3201", lambda: shipped.read_catalog(file))
    if text == TOO_MUCH["digits"]:  # the reason for all of this
        with pytest.raises(ValueError, match="4300 digits") as caught:
            tomllib.loads(text)
        assert not isinstance(caught.value, tomllib.TOMLDecodeError)


def test_regression_a_primary_agreed_to_hand_over_with_a_token_that_is_none() -> None:
    """By reading for the target `hand-over`: it put up its fence, could not make its word for the issuer out of what
    the standby had sent as a token, and stood there, writing no more."""
    pair = peer_targets._pair()
    me = pair.city.trust.me
    for token in ("", "fednode1.x", pair.token[:-3] + "abc"):
        request = pb.HandOverRequest(node=me.node, life=me.incarnation, token=token)
        codes = {"FN-3101", "FN-3102"}
        with pytest.raises(FednodeError) as caught:
            switchover.hand_over(pair.city, pair.city.new_writer(pair.city.store), pair.standby.trust.me, request)
        assert caught.value.code in codes
        assert fence.standing(pair.city.store) is None


SPOILT = (b"", b"{", b"[]", b'{"node":7}', b'{"at":"\xff"}', b"\xb1")


@pytest.mark.parametrize("data", SPOILT)
def test_regression_what_is_left_for_who_goes_on_and_cannot_be_read_is_told_by_its_file(data: bytes) -> None:
    """A recovery and a join that go on ended in a DecodeError (FN-7001, "a fault of the program")."""
    refused("FN-7619", lambda: state_targets._recovery(data))
    refused("FN-7619", lambda: state_targets._joining(data))


def test_regression_a_certificate_of_a_version_that_there_is_not() -> None:
    """`InvalidVersion` is no ValueError to the library."""
    pem = next(iter(state_targets._chains())).split(b"-----END")[0].split(b"-----", 2)[2]
    der = base64.b64decode(b"".join(pem.split()))
    at = der.index(b"\xa0\x03\x02\x01\x02") + 4
    body = base64.b64encode(der[:at] + b"\x03" + der[at + 1 :])
    text = b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n"
    refused("FN-7619", lambda: state_targets._chain(text))
    refused("FN-6234", lambda: state_targets._root_file(text))


def test_regression_addresses_that_are_no_text() -> None:
    refused("FN-7619", lambda: state_targets._addresses(b"parent.example:7443\n\xb1\n"))


def test_regression_notes_that_are_no_text_are_nothing() -> None:
    """One such byte in the state of a job ended whatever ran it: msgspec says so by a UnicodeDecodeError."""
    state_targets._notes(b'{"by":"\xb1","next_ms":7}')
