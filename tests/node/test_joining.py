"""Joining by stick: who may, with what, and what an attacker who has the stick, or what the parent keeps, can do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.crypto.suite import SUITE_1
from fednode.node import bundle_out, bundles, joining, stick
from fednode.node.app import App, random_bytes
from fednode.node.config import Config
from fednode.proto import fednode_pb2 as pb
from fednode.sync import bundle as bun
from fednode.sync import enrol
from fednode.sync import volume as vol
from fednode.sync.enrol import Token
from fednode.sync.errors import PeerError, Refused
from sticks import REAL, SETTINGS, Row, forge, only, opening

YEAR_MS = 365 * 86_400_000


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 0)
    yield made
    made.close()


def asked(row: Row, token: Token | None, home: str = "1301") -> Path:
    """A request on a stick of its own."""
    carried = row.stick()
    joining.ask(row.folder / home, SETTINGS, "1301", token, carried, random_bytes)
    return carried


def request_of(carried: Path) -> Path:
    (path,) = carried.glob("*.fnr")
    return path


def invited(row: Row) -> Token:
    return Token.decode(row.apps[0].invite("1301", "city", "石家庄市"))


def let_in(row: Row, *carried: Path) -> list[str]:
    """Who was, and the codes of who was not."""
    try:
        report = bundles.take_in(row.apps[0], carried)
    except Refused as error:
        return [error.code]
    return [one.recipient for one in report.joined] + [one for _, _, one in report.asking]


def test_the_secret_is_proved_and_never_written(row: Row) -> None:
    token = invited(row)
    carried = asked(row, token)
    data = request_of(carried).read_bytes()
    for secret in (token.secret, token.hash, token.stick_key.private, token.stick_key.public):
        assert secret not in data
    assert let_in(row, carried) == ["1301"]


def test_who_reads_what_the_parent_keeps_cannot_ask_in_its_place(row: Row) -> None:
    """Was: the proof was made with the token's hash, and that is what `log.db` holds."""
    token = invited(row)
    ((hashed, public),) = row.apps[0].store.rows("select token_hash, stick_key from invite")
    assert (hashed, public) == (token.hash, token.stick_key.public)
    der, _ = bun.parse_request(request_of(asked(row, None, "thief")).read_bytes())
    carried = row.stick()
    for number, proof in enumerate(
        (
            SUITE_1.mac(hashed, b"fednode stick request v1\n" + der),
            SUITE_1.mac(public, b"fednode stick request v2\n" + token.root_sha256 + der),
            SUITE_1.sign(hashed, b"fednode stick request v2\n" + token.root_sha256 + der),
            public + bytes(32),
            bytes(64),
        )
    ):
        request = pb.StickRequest(version=2, request=der, signature=proof)
        (carried / f"fednode-{number:016x}.fnr").write_bytes(bun.REQUEST_MAGIC + request.SerializeToString())
    assert let_in(row, carried) == ["FN-5101"] * 5
    assert row.apps[0].trust.directory.get("1301") is None


def test_the_proof_is_bound_to_the_name_and_the_keys_and_the_root(row: Row) -> None:
    token = invited(row)
    _, proof = bun.parse_request(request_of(asked(row, token)).read_bytes())
    other, _ = bun.parse_request(request_of(asked(row, None, "thief")).read_bytes())
    carried = row.stick()
    stolen = pb.StickRequest(version=2, request=other, signature=proof)
    (carried / f"fednode-{1:016x}.fnr").write_bytes(bun.REQUEST_MAGIC + stolen.SerializeToString())
    assert let_in(row, carried) == ["FN-5101"]
    assert not bun.proves(token.stick_key.public, bytes(32), other, bun.request_proof(other, token))
    assert bun.proves(token.stick_key.public, token.root_sha256, other, bun.request_proof(other, token))


def test_a_token_works_once(row: Row) -> None:
    token = invited(row)
    first, second = asked(row, token), asked(row, token, "another")
    assert let_in(row, first) == ["1301"]
    assert let_in(row, second) == ["FN-5102"]
    assert let_in(row, first) == ["1301"], "the answer was lost: the same again"


def test_a_token_in_time_only(row: Row) -> None:
    token = Token.decode(row.apps[0].invite("1301", "city", "x", ttl_s=-1))
    assert let_in(row, asked(row, token)) == ["FN-5103"]


def test_a_request_of_an_older_program_counts_as_one_without_a_token(row: Row) -> None:
    token = invited(row)
    carried = asked(row, None)
    path = request_of(carried)
    der, _ = bun.parse_request(path.read_bytes())
    proof = SUITE_1.mac(token.hash, b"fednode stick request v1\n" + der)
    before = pb.StickRequest(version=1, request=der).SerializeToString() + b"\x1a\x20" + proof  # field 3
    path.write_bytes(bun.REQUEST_MAGIC + before)
    report = bundles.take_in(row.apps[0], [carried])
    assert report.asking == [("1301", vol.digits(SUITE_1.hash(der)), "")]
    assert not report.joined


def test_a_request_of_a_newer_program_says_so(row: Row) -> None:
    carried = row.stick()
    newer = pb.StickRequest(version=3).SerializeToString()
    (carried / f"fednode-{1:016x}.fnr").write_bytes(bun.REQUEST_MAGIC + newer)
    assert let_in(row, carried) == ["FN-5524"]


def test_an_old_request_is_passed_over_and_a_new_one_of_the_same_node_is_not(row: Row) -> None:
    """Was: a node that had lost its keys could never join again by stick; its request was taken for the old one."""
    (province,) = row.apps
    city = row.join(province, "1301", "city")
    old = row.stick()
    token = invited(row)
    joining.ask(row.folder / "1301", SETTINGS, "", token, old, random_bytes)  # same keys, a fresh token: a rejoin
    copy = request_of(old).read_bytes()
    assert let_in(row, old) == ["1301"]
    again, _ = joining.finish(row.folder / "1301", SETTINGS, [old], "", **REAL)
    bundle_out.export(again, "13", old)
    again.close()
    bundles.take_in(province, [old])
    left = row.stick()
    (left / f"fednode-{1:016x}.fnr").write_bytes(copy)
    assert let_in(row, left) == ["FN-3501"], "answered long ago"
    assert let_in(row, asked(row, invited(row), "lost")) == ["1301"]
    known = province.trust.directory.get("1301")
    assert known is not None
    assert known.incarnation == 2
    city.close()


def test_junk_and_another_request_beside_the_right_one(row: Row) -> None:
    """Was: the first file that was no request, or another's of that name, ended it."""
    (province,) = row.apps
    carried = asked(row, None)
    fingerprint = joining.ask(row.folder / "1301", SETTINGS, "1301", None, carried, random_bytes).fingerprint
    (carried / f"fednode-{0:016x}.fnr").write_bytes(b"junk")
    other = request_of(asked(row, None, "thief")).read_bytes()
    (carried / f"fednode-{1:016x}.fnr").write_bytes(other)
    given = ("1301", "city", "石家庄市", (), 3600)
    with pytest.raises(Refused, match="FN-3509"):
        joining.invite_and_answer(province, carried, "1" * 20, *given)
    with pytest.raises(Refused, match="FN-3513"):
        joining.invite_and_answer(province, carried, fingerprint, "1302", *given[1:])
    wide = fingerprint.translate({ord("0") + i: ord("０") + i for i in range(10)})
    assert joining.invite_and_answer(province, carried, wide, *given).recipient == "1301"


def stranger(folder: Path) -> App:
    """Somebody with another root, who has seen a stick."""
    return App.init_province(folder / "x", SETTINGS, node="13", name="x", domain="hebei")


class Waiting:
    """As whoever has seen the request knows the node: its name and its sealing key."""

    def __init__(self, seal_public: bytes) -> None:
        self.keys = self
        self.seal = self
        self.public = seal_public
        self.trust = self
        self.node = "1301"


def test_false_answers_beside_the_true_one(row: Row) -> None:
    """Was: the newest counted, whoever had made it; one whose chain is the root alone was a traceback."""
    (province,) = row.apps
    carried = asked(row, invited(row))
    request = bun.parse_request(request_of(carried).read_bytes())[0]
    seal = joining.issuing.parse_request(request).seal_key
    thief = stranger(row.folder)
    there: App = Waiting(seal)  # type: ignore[assignment]
    key_id = SUITE_1.hash(seal)[:8]
    late = province.now_ms() + YEAR_MS
    head = vol.Header("hebei", "13", 1, "1301", random_bytes(16), late, key_id)

    def lay_down() -> None:
        for chain in ((), province.trust.directory.chain("13")[-1:], thief.home.chain()):
            first = dataclasses.replace(opening(province, there), chain=chain)
            forge(carried, dataclasses.replace(head, id=random_bytes(16)), there, first, (), thief.keys.sign.sign)

    lay_down()
    with pytest.raises(PeerError, match=r"FN-6110|FN-6112"):
        joining.finish(row.folder / "1301", SETTINGS, [carried], "", **REAL)
    assert let_in(row, carried) == ["1301"]
    lay_down()
    app, report = joining.finish(row.folder / "1301", SETTINGS, [carried], "", **REAL)
    assert app.trust.node == "1301"
    assert "" in [one.error.code if one.error else "" for one in report.bundles]
    app.close()
    thief.close()


def test_the_root_alone_is_no_place(row: Row) -> None:
    (province,) = row.apps
    carried = asked(row, invited(row))
    seal = joining.issuing.parse_request(bun.parse_request(request_of(carried).read_bytes())[0]).seal_key
    there: App = Waiting(seal)  # type: ignore[assignment]
    head = vol.Header("hebei", "13", 1, "1301", random_bytes(16), 1, SUITE_1.hash(seal)[:8])
    root = dataclasses.replace(opening(province, there), chain=province.trust.directory.chain("13")[-1:])
    forge(carried, head, there, root)
    with pytest.raises(PeerError, match="FN-6112"):
        joining.finish(row.folder / "1301", SETTINGS, [carried], "", **REAL)


def test_a_clock_years_off_joins_and_renews_by_stick(row: Row) -> None:
    """Was: a renewal by stick was refused where the machine's clock was off, for a certificate's dates."""
    (province,) = row.apps
    carried = asked(row, invited(row))
    assert let_in(row, carried) == ["1301"]
    old: dict[str, object] = {**REAL, "clock": lambda: province.now_ms() - 20 * YEAR_MS}
    app, report = joining.finish(row.folder / "1301", SETTINGS, [carried], "", **old)  # type: ignore[arg-type]
    assert only(report).error is None
    bundles.take_in(province, [carried])
    before, ahead = app.home.chain()[0], 300 * 86_400_000
    province.clock = lambda: REAL["clock"]() + ahead
    app.clock = province.clock  # it is due by now
    again = row.stick()
    bundle_out.export(app, "parent", again)
    assert only(bundles.take_in(province, [again])).error is None
    app.clock = lambda: REAL["clock"]() - 20 * YEAR_MS
    one = only(bundles.take_in(app, [again]))
    assert (one.error, one.refused) == (None, [])
    assert app.home.chain()[0] != before
    newest = app.home.chain()
    assert bundles.take_chain(app, (before, *newest[1:])) is None, "an older one is left alone"
    app.close()


def test_an_old_answer_does_not_bring_an_old_certificate_back(row: Row) -> None:
    """Was: `join --grant` of an old stick put the certificate on it in force."""
    (province,) = row.apps
    carried = asked(row, invited(row))
    assert let_in(row, carried) == ["1301"]
    answer = {path.name: path.read_bytes() for path in carried.glob("*.fnb")}
    app, _ = joining.finish(row.folder / "1301", SETTINGS, [carried], "", **REAL)
    bundles.take_in(province, [carried])
    province.clock = lambda: REAL["clock"]() + 1000 * 86_400
    renewed = province.renew(province.new_writer(), app.trust.me, app.renewal_request())
    assert bundles.take_chain(app, renewed) is not None
    newest = app.home.chain()[0]
    app.close()
    old = row.stick()
    for name, data in answer.items():
        (old / name).write_bytes(data)
    again, _ = joining.finish(row.folder / "1301", SETTINGS, [old], "", **REAL)
    assert again.home.chain()[0] == newest
    again.close()


def test_a_token_s_key_is_that_of_the_vector() -> None:
    token = Token(bytes(32), bytes(range(16)), "1301", 1_800_000_000, ())
    assert token.stick_key.public.hex() == SUITE_1.public_of(token.stick_key.private).hex()
    assert token.stick_key.private == SUITE_1.hkdf(bytes(range(16)), b"", b"fednode invitation by stick v1\n", 32)
    assert token.stick_key.private != enrol.token_hash(token.secret)


def test_asking_from_a_folder_that_cannot_be_made(row: Row) -> None:
    with pytest.raises(stick.StoreError, match="FN-7650"):
        joining.ask(row.folder / "1301", Config(), "1301", None, row.folder / "no" / "such", random_bytes)
