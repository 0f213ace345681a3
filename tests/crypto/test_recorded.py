"""Recorded certificates, requests and tree edges: what a node has on its disk must be read for ever.

A certificate is deterministic here (RFC 6979), so it is made again as well; a `cryptography` that lays one out
differently makes that test fail, and then only the recorded ones count."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from fednode.crypto import certs, issuing, merkle
from fednode.crypto.merkle import Frontier
from world import NOW_S, World, keys_of, seed

VECTORS = Path(__file__).parent / "vectors"
NODES = ("13", "1301", "130102", "130102001", "130102001001")


def load(name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((VECTORS / name).read_text(encoding="utf-8"))
    return content


def plain(identity: certs.Identity) -> dict[str, Any]:
    """An identity as JSON has it, without its certificate."""
    fields = dataclasses.asdict(identity)
    del fields["der"]
    if not fields["stands_for"]:  # younger than the recorded ones
        del fields["stands_for"]
    return {
        name: value.hex() if isinstance(value, bytes) else list(value) if isinstance(value, tuple) else value
        for name, value in fields.items()
    }


def made_certificates(*, wide: bool) -> dict[str, Any]:
    world = World(wide=wide)
    keys = keys_of("vector")
    request = issuing.make_request("1303", keys.tls, keys.sign, keys.seal, wide=wide)
    chain = world.places["130102001001"].chain
    return {
        "what": "a village's chain, own certificate first, root last; a request for a certificate",
        "now_s": NOW_S,
        "root_sha256": world.root_sha256.hex(),
        "chain": [der.hex() for der in chain],
        "identities": [plain(certs.parse(der)) for der in chain],
        "request": request.hex(),
        "requested": {
            "node": "1303",
            "tls_key": keys.tls.public_der.hex(),
            "sign_key": keys.sign.public.hex(),
            "seal_key": keys.seal.public.hex(),
        },
    }


def made_frontiers() -> dict[str, Any]:
    cases = []
    for size in (0, 1, 2, 3, 7, 8, 100, 1000):
        edge = Frontier.EMPTY.extend([seed("leaf", i) for i in range(size)])
        cases.append({"size": size, "bytes": edge.to_bytes().hex(), "root": edge.root().hex()})
    return {"what": "edges of trees whose leaf i is SHA-256('leaf/i')", "cases": cases}


KINDS = [("certificate.json", False), ("certificate-wide.json", True)]


@pytest.mark.parametrize(("name", "wide"), KINDS)
def test_recorded_certificates_are_read_as_ever(name: str, wide: bool) -> None:
    want = load(name)
    chain = tuple(bytes.fromhex(der) for der in want["chain"])
    found = certs.check_chain(chain, bytes.fromhex(want["root_sha256"]), want["now_s"])
    assert [plain(one) for one in found] == want["identities"]
    request = issuing.parse_request(bytes.fromhex(want["request"]))
    assert request.wide is wide
    assert {
        "node": request.node,
        "tls_key": request.tls_key.hex(),
        "sign_key": request.sign_key.hex(),
        "seal_key": request.seal_key.hex(),
    } == want["requested"]


@pytest.mark.parametrize(("name", "wide"), KINDS)
def test_certificates_are_made_byte_for_byte_as_ever(name: str, wide: bool) -> None:
    assert made_certificates(wide=wide) == load(name)


@pytest.mark.parametrize("case", load("frontier.json")["cases"], ids=lambda case: str(case["size"]))
def test_recorded_edges_are_read_and_made_as_ever(case: dict[str, Any]) -> None:
    leaves = [seed("leaf", i) for i in range(case["size"])]
    edge = Frontier.from_bytes(bytes.fromhex(case["bytes"]))
    assert (edge.size, edge.root().hex()) == (case["size"], case["root"])
    assert edge == Frontier.EMPTY.extend(leaves)
    assert edge.to_bytes().hex() == case["bytes"]
    more = [seed("more", i) for i in range(5)]
    assert edge.extend(more).root() == merkle.root(leaves + more)
