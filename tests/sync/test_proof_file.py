"""Proof files: what holds, what each alteration is refused as, at what time certificates are judged. And golden files.

`vectors/record.tlog-proof` and `vectors/root.pem` are a village's record, seen by township and county; nobody needs
more than these two and RFC 9162, C2SP and docs/formats.md to check it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto import canonical, issuing, tlogproof
from fednode.crypto.errors import IntegrityError
from fednode.node.home import pem_of, root_of_pem
from fednode.sync import proof_file
from fednode.sync.identity import LEVELS
from fednode.sync.proof_file import Checked
from proofs import PATH, VILLAGE, made, third_party
from world import DAYS, NOW_S, World

VECTORS = Path(__file__).parent / "vectors"
GOLDEN = (VECTORS / "record.tlog-proof").read_bytes()
ROOT = root_of_pem(VECTORS / "root.pem").der
WORLD = World(wide=False)  # as release 0.1 made it; what it wrote stays readable
WIDE_WORLD = World()
YEAR_S = DAYS * 86400
CHAIN = WORLD.places[VILLAGE].chain[:-1]


def check(data: bytes) -> Checked:
    return proof_file.check(data, WORLD.root_der)


def refused(code: str, data: bytes, root: bytes = ROOT) -> IntegrityError:
    with pytest.raises(IntegrityError) as caught:
        proof_file.check(data, root)
    assert caught.value.code == code, caught.value
    return caught.value


# ---------------------------------------------------------------- golden


def test_the_golden_file_is_read_as_ever() -> None:
    checked = proof_file.check(GOLDEN, ROOT)
    assert str(checked.log) == "hebei/130102001001/1/shop"
    assert (checked.index, checked.head.size, checked.leaf.key) == (3, 7, "shop 3")
    assert checked.leaf.payload == '{"area":"130102001001","name":"shop 3"}'
    assert (checked.writer.node, checked.area, checked.written_ms) == (VILLAGE, VILLAGE, NOW_S * 1000)
    assert [(one.identity.node, one.time_s - NOW_S) for one in checked.witnesses] == [
        ("130102001", 60),
        ("130102", 120),
    ]
    assert [one.node for one in checked.unseen_by] == ["13", "1301"]
    assert (checked.maker.node, checked.made_ms) == ("130102", (NOW_S + 180) * 1000)
    assert [(one.code, one.zh) for one in checked.titles.fields] == [("name", "名称"), ("area", "区划")]


@pytest.mark.parametrize(("world", "name"), [(WORLD, ""), (WIDE_WORLD, "-wide")], ids=["0.1", "0.2"])
def test_the_golden_files_are_made_byte_for_byte_as_ever(world: World, name: str) -> None:
    golden, root = (VECTORS / f"record{name}.tlog-proof").read_bytes(), (VECTORS / f"root{name}.pem").read_bytes()
    assert made(world) == golden
    assert pem_of((world.root_der,)) == root
    checked = proof_file.check(golden, root_of_pem(VECTORS / f"root{name}.pem").der)
    assert checked.leaf.key == "shop 3"
    assert third_party(golden, checked)["ok"]


def test_a_tool_that_is_not_ours_verifies_the_golden_file() -> None:
    found = third_party(GOLDEN, proof_file.check(GOLDEN, ROOT))
    assert found["ok"], found
    assert len(found["witnesses"]) == 2
    for was, now in ((b"index 3", b"index 2"), (b"\n7\n", b"\n8\n")):
        assert not third_party(GOLDEN.replace(was, now, 1), proof_file.check(GOLDEN, ROOT))["ok"]


# ---------------------------------------------------------------- alterations


def lines_of(data: bytes) -> list[str]:
    return data.decode().split("\n")


def with_line(number: int, text: str) -> bytes:
    lines = lines_of(GOLDEN)
    lines[number] = text
    return "\n".join(lines).encode()


def other(encoded: str) -> str:
    """Base64 of as many bytes, one bit of which is another."""
    data = bytearray(base64.b64decode(encoded))
    data[len(data) // 2] ^= 1
    return base64.b64encode(data).decode()


SIGNED = {  # line -> (what it is, code when its contents are others of the same form)
    2: ("index", "FN-6226"),
    3: ("the path's first hash", "FN-6226"),
    4: ("the path's second hash", "FN-6226"),
    5: ("the path's last hash", "FN-6226"),
    7: ("log", "FN-6229"),
    8: ("size", "FN-6228"),  # the path of change 3 is the same in a tree of 8: the signature tells
    9: ("root", "FN-6226"),
    11: ("the writer's signature", "FN-6228"),
    12: ("the township's cosignature", "FN-6231"),
    13: ("the county's cosignature", "FN-6231"),
}


@pytest.mark.parametrize("number", SIGNED)
def test_each_line_with_other_contents(number: int) -> None:
    """The extra's are below, part by part."""
    line = lines_of(GOLDEN)[number]
    head, _, last = line.rpartition(" ")
    altered = {2: "index 2", 7: line.replace("/130102001001/", "/130102001002/"), 8: "8"}.get(number)
    refused(SIGNED[number][1], with_line(number, altered or f"{head} {other(last)}".strip()))


@pytest.mark.parametrize("number", range(14))
def test_each_line_left_out_or_given_twice(number: int) -> None:
    lines = lines_of(GOLDEN)
    assert len(lines) == 15
    without = "\n".join(lines[:number] + lines[number + 1 :]).encode()
    if number in (12, 13):  # a proof with one cosignature less is a proof of less, and still one
        assert len(check(without).witnesses) == 1
    else:
        code = {1: "FN-6222", 3: "FN-6226", 4: "FN-6226", 5: "FN-6226", 11: "FN-6228"}.get(number, "FN-6221")
        refused(code, without)
    twice = "\n".join([*lines[:number], lines[number], *lines[number:]]).encode()
    code = {3: "FN-6226", 4: "FN-6226", 5: "FN-6226", 8: "FN-6221", 9: "FN-6228"}.get(number)
    refused(code or ("FN-6232" if number >= 11 else "FN-6221"), twice)


@pytest.mark.parametrize(
    ("line", "what"),
    [(7, "hebei/130102001001/2/shop"), (7, "hubei/130102001001/1/shop"), (7, "hebei/130102001/1/shop")],
)
def test_another_log(line: int, what: str) -> None:
    refused("FN-6229", with_line(line, what))


def test_the_same_writer_s_other_log() -> None:
    refused("FN-6228", with_line(7, "hebei/130102001001/1/licence"))


def altered_extra(change: Callable[[dict[str, Any]], Any]) -> bytes:
    file = tlogproof.parse(GOLDEN)
    extra = json.loads(file.extra)
    change(extra)
    return tlogproof.TlogProof(file.index, file.hashes, file.checkpoint, canonical.dumps(extra)).format().encode()


EXTRA: list[tuple[str, str, Callable[[dict[str, Any]], Any]]] = [
    ("version", "FN-6223", lambda e: e.update(v=2)),
    ("no version", "FN-6223", lambda e: e.pop("v")),
    ("root", "FN-6225", lambda e: e.update(root=other(e["root"]))),
    ("payload", "FN-6226", lambda e: e["leaf"].update(payload=e["leaf"]["payload"].replace("shop 3", "shop 4"))),
    ("key", "FN-6226", lambda e: e["leaf"].update(key="shop 4")),
    ("time", "FN-6226", lambda e: e["leaf"].update(hlc=str(int(e["leaf"]["hlc"]) - 1))),
    ("operation", "FN-6226", lambda e: e["leaf"].update(op=2)),
    ("catalog version", "FN-6226", lambda e: e["leaf"].update(schema=2)),
    ("salt", "FN-6226", lambda e: e["leaf"].update(salt=other(e["leaf"]["salt"]))),
    ("salt of another length", "FN-6224", lambda e: e["leaf"].update(salt="AAAA")),
    ("unknown operation", "FN-6224", lambda e: e["leaf"].update(op=9)),
    ("time in another form", "FN-6224", lambda e: e["leaf"].update(hlc="0" + e["leaf"]["hlc"])),
    ("time that is no stamp", "FN-6224", lambda e: e["leaf"].update(hlc="9223372036854775808")),
    ("negative catalog version", "FN-6224", lambda e: e["leaf"].update(schema=-1)),
    ("dataset's title", "FN-6233", lambda e: e["titles"].update(zh="餐馆")),
    ("field's title", "FN-6233", lambda e: e["titles"]["fields"][0].update(zh="地址")),
    ("field left out", "FN-6233", lambda e: e["titles"]["fields"].pop()),
    ("maker", "FN-6233", lambda e: e.update(by="1301")),
    ("maker who is not known", "FN-6233", lambda e: e.update(by="1399")),
    ("time of making", "FN-6233", lambda e: e.update(made_ms=e["made_ms"] + 1)),
    ("maker's signature", "FN-6233", lambda e: e.update(signature=other(e["signature"]))),
    ("maker's signature gone", "FN-6224", lambda e: e.update(signature=7)),
    ("writer's certificate", "FN-6229", lambda e: e["certificates"].pop(0)),
    ("issuer's certificate", "FN-6102", lambda e: e["certificates"].pop(3)),
    ("province's certificate", "FN-6102", lambda e: e["certificates"].pop()),
    ("witness's certificate", "FN-6232", lambda e: e["certificates"].pop(1)),
    ("damaged certificate", "FN-6101", lambda e: e["certificates"].append("AAAA")),
    ("no certificate", "FN-6224", lambda e: e.update(certificates=[])),
    ("65 certificates", "FN-6224", lambda e: e.update(certificates=e["certificates"] * 13)),
    ("order of certificates", "FN-6233", lambda e: e["certificates"].insert(1, e["certificates"].pop())),
    ("a key that is not known", "FN-6224", lambda e: e.update(more=1)),
    ("a part that is missing", "FN-6224", lambda e: e.pop("titles")),
]


@pytest.mark.parametrize(("what", "code", "change"), EXTRA, ids=[one[0] for one in EXTRA])
def test_each_part_of_the_extra(what: str, code: str, change: Callable[[dict[str, Any]], Any]) -> None:
    refused(code, altered_extra(change))


def test_an_extra_that_is_not_canonical_json() -> None:
    file = tlogproof.parse(GOLDEN)
    for extra in (b"\xff", b"{", b"[]", b"null", file.extra.replace(b":", b": ", 1), file.extra[:-1]):
        other_file = tlogproof.TlogProof(file.index, file.hashes, file.checkpoint, extra)
        refused("FN-6223" if extra in (b"[]", b"null") else "FN-6224", other_file.format().encode())


@settings(max_examples=400, deadline=None)
@given(st.integers(0, len(GOLDEN) - 1), st.integers(0, 7))
def test_no_bit_can_be_flipped(at: int, bit: int) -> None:
    data = bytearray(GOLDEN)
    data[at] ^= 1 << bit
    with pytest.raises(IntegrityError):
        proof_file.check(bytes(data), ROOT)


@given(st.binary(max_size=500))
def test_garbage_is_refused(noise: bytes) -> None:
    refused("FN-6221", noise)


def test_another_root_is_said_first() -> None:
    error = refused("FN-6225", GOLDEN, World("shanxi").root_der)
    assert (error.params["found"], error.params["given"]) == (
        WORLD.root_sha256.hex(), World("shanxi").root_sha256.hex(),
    )  # fmt: skip


def test_a_root_that_is_none() -> None:
    refused("FN-6225", GOLDEN, CHAIN[-1])
    refused("FN-6102", altered_extra(lambda e: e.update(root=_sha256(CHAIN[-1]))), CHAIN[-1])


def _sha256(der: bytes) -> str:
    from fednode.crypto.suite import SUITE_1

    return base64.b64encode(SUITE_1.hash(der)).decode()


# ---------------------------------------------------------------- who may say what


def test_nobody_above_is_no_error() -> None:
    checked = check(made(WORLD, witnesses=()))
    assert checked.witnesses == ()
    assert [one.node for one in checked.unseen_by] == list(PATH[:0:-1])


def test_a_witness_that_is_not_above() -> None:
    sibling = WORLD.places["130104"].chain[0]
    file = made(WORLD, witnesses=[("130102001", NOW_S), ("130104", NOW_S)], certificates=[*CHAIN, sibling])
    refused("FN-6232", file)
    refused("FN-6232", made(WORLD, witnesses=[("130104", NOW_S)]))  # nor is its certificate there
    refused("FN-6232", made(WORLD, witnesses=[(VILLAGE, NOW_S)]))  # nor can one witness for oneself
    refused("FN-6232", made(WORLD, witnesses=[("1301", NOW_S), ("1301", NOW_S)]))


def test_an_area_outside_the_writer_s_scope() -> None:
    assert check(made(WORLD, writer="130102", audience="130102001", witnesses=[("1301", NOW_S)])).area == "130102001"
    refused("FN-6230", made(WORLD, audience="130104", witnesses=()))


def test_a_maker_below_or_beside_shows_its_own_chain() -> None:
    beside = WORLD.places["130104"].chain[:-1]
    assert check(made(WORLD, maker="130104", certificates=[*CHAIN, *beside])).maker.node == "130104"
    refused("FN-6233", made(WORLD, maker="130104"))


# ---------------------------------------------------------------- time


def test_certificates_are_judged_when_the_first_witness_saw_it() -> None:
    """Not now: a proof outlives them. `check` is not even told what time it is."""
    late = NOW_S + YEAR_S - 10
    check(made(WORLD, witnesses=[("130102001", late)], made_s=late + 1))
    for time_s in (NOW_S + YEAR_S + 10, NOW_S - 2 * 86400, 0, 2**62):
        refused("FN-6227", made(WORLD, witnesses=[("130102001", time_s)]))
    # the writer says that it wrote long before it had a certificate; the first witness saw it later
    check(made(WORLD, hlc=1 << 16))


def test_without_a_witness_the_writer_s_own_time_counts() -> None:
    for seconds in (NOW_S + YEAR_S + 10, NOW_S - 2 * 86400):
        refused("FN-6227", made(WORLD, witnesses=(), hlc=(seconds * 1000) << 16))


def test_the_maker_s_certificate_is_judged_when_it_made_the_file() -> None:
    refused("FN-6227", made(WORLD, made_s=NOW_S + YEAR_S + 10))


def renewed(node: str, now_s: int) -> bytes:
    """Another certificate for the same keys, by an issuer that has renewed its own."""
    mine, place = WORLD.identity(node), WORLD.places[node].keys
    issuer, key = WORLD.issuer(mine.issuer)
    request = issuing.parse_request(issuing.make_request(node, place.tls, place.sign, place.seal))
    grant = issuing.Grant(node, mine.level, mine.scope, 1, DAYS, now_s)
    return issuing.issue(request, grant, replace(issuer, not_after=now_s + 2 * YEAR_S), key, LEVELS, now_s=now_s)


def test_a_witness_signs_with_the_certificate_that_it_has_by_then() -> None:
    later = NOW_S + YEAR_S + 1000
    fresh = [renewed(node, later - 500) for node in ("13", "1301", "130102")]
    times = {"witnesses": [("130102001", NOW_S + 5), ("130102", later)], "made_s": later + 1}
    refused("FN-6227", made(WORLD, **times))
    assert check(made(WORLD, **times, certificates=[*CHAIN, *fresh])).witnesses
    refused("FN-6227", made(WORLD, **times, certificates=[*CHAIN, fresh[0], fresh[2]]))
