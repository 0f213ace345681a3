"""Where a node is, in bytes, and what a parent says of it in a session that is open."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fednode.proto import fednode_pb2 as pb
from fednode.sync import effects as fx
from fednode.sync import wire
from fednode.sync.errors import PeerError
from fednode.sync.wire_where import (
    NODE_CHARACTERS_MAX,
    REQUEST_BYTES_MAX,
    Whereabouts,
    refusal_out,
    reply_in,
    reply_out,
    request_in,
    request_out,
)
from sides import NOW, pair, settle

VECTORS = Path(__file__).with_name("vectors")
TOLD = Whereabouts((b"own", b"root"), ("10.0.0.1:7443", "[::1]:7443"))
BEAT = wire.Beat(1_780_000_000_000, None, ("10.0.0.1:7443",), None, ("10.0.0.2:7443", "county.example:7443"))


def test_golden_bytes() -> None:
    golden = json.loads((VECTORS / "where.json").read_text("utf-8"))
    assert golden == {
        "request": request_out("130102").hex(),
        "reply": reply_out(TOLD).hex(),
        "refusal": refusal_out("FN-5511", {"node": "130102001"}).hex(),
        "beat": wire.encode(3, BEAT).hex(),
    }
    assert request_in(bytes.fromhex(golden["request"])) == "130102"
    assert reply_in(bytes.fromhex(golden["reply"])) == TOLD
    assert wire.decode(bytes.fromhex(golden["beat"])) == (3, BEAT)
    with pytest.raises(PeerError) as refused:
        reply_in(bytes.fromhex(golden["refusal"]))
    assert (refused.value.code, dict(refused.value.params)) == ("FN-5511", {"node": "130102001"})


def code_of(data: bytes, read: object) -> str:
    with pytest.raises(PeerError) as refused:
        read(data)  # type: ignore[operator]
    return str(refused.value.code)


def test_what_is_too_large_or_no_message_is_refused() -> None:
    assert request_in(request_out("1" * 253)) == "1" * NODE_CHARACTERS_MAX
    assert len(request_out("1" * 253)) == REQUEST_BYTES_MAX
    assert code_of(request_out("1" * 254), request_in) == "FN-5501"
    assert code_of(b"\xff", request_in) == code_of(b"\xff", reply_in) == "FN-5502"
    chain, address = (b"x" * wire.CERTIFICATE_BYTES_MAX,) * wire.CHAIN_LENGTH_MAX, "a" * wire.ADDRESS_CHARACTERS_MAX
    most = Whereabouts(chain, (address,) * wire.ADDRESSES_MAX)
    assert reply_in(reply_out(most)) == most
    for more in (
        pb.WhereReply(chain=(*chain, b"x")),
        pb.WhereReply(chain=(chain[0] + b"x",)),
        pb.WhereReply(addresses=(address,) * (wire.ADDRESSES_MAX + 1)),
        pb.WhereReply(addresses=(address + "a",)),
    ):
        assert code_of(more.SerializeToString(), reply_in) == "FN-5502"


def test_a_child_hears_once_what_has_changed_and_a_parent_listens_to_none_of_it() -> None:
    child, parent = pair()
    settle(child, parent)
    for standbys, issuers in ((("a:1",), ()), (("a:1",), ("b:2",)), ((), ("b:2",)), ((), ())):
        for _ in range(2):
            parent.do(parent.exchange.tell_places(standbys, issuers, NOW))
        settle(child, parent)
        assert child.of(fx.Places)[-1] == fx.Places(standbys, issuers)
    assert len(child.of(fx.Places)) == 4
    child.do(child.exchange.tell_places(("c:3",), ("d:4",), NOW))
    settle(child, parent)
    assert not parent.of(fx.Places)
