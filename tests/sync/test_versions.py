"""N and N-1 talk in both directions, N-2 is told what to install; recorded sessions of older versions are replayed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from chain import COUNTY, TOWNSHIP, VILLAGE, Chain
from fednode.node import admission
from fednode.node.messages import error_text
from fednode.proto import fednode_pb2 as pb
from fednode.sync import effects as fx
from fednode.sync import versions, wire
from fednode.sync.bundle import Intake
from fednode.sync.errors import PeerError
from fednode.sync.exchange import State
from fednode.sync.versions import Versions
from make_sessions import KINDS
from parties import Party, meet, settle
from sides import NOW, broken, hello, pair
from world import shop

VECTORS = Path(__file__).parent / "vectors"
UNKNOWN_HINT = 1999  # a number that no hint has
V1, V2, V3 = Versions(1, 1), Versions(1, 2), Versions(2, 3)
RECORDED = sorted({int(one.stem.rpartition("v")[2]) for one in VECTORS.glob("frames-v*.txt")})


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    yield made
    made.close()


def recorded(name: str) -> dict[str, list[bytes]]:
    """Frames of a recorded session: `>` child to parent, `<` parent to child."""
    found: dict[str, list[bytes]] = {">": [], "<": []}
    for line in (VECTORS / f"session-{name}.txt").read_text("utf-8").splitlines():
        found[line[0]].append(bytes.fromhex(line[2:]))
    return found


def test_the_version_before_this_one_is_recorded_and_both_have_a_release() -> None:
    assert versions.SPOKEN.high - versions.SPOKEN.low == 1
    assert set(range(versions.SPOKEN.low, versions.SPOKEN.high)) <= set(RECORDED)
    assert set(versions.RELEASES) >= {versions.SPOKEN.low, versions.SPOKEN.high}


@pytest.mark.parametrize(
    ("ours", "theirs", "outcome"),
    [
        (V2, V2, 2), (V2, V1, 1), (V1, V2, 1), (V2, V3, 2), (V3, V2, 2),
        (V3, V1, "FN-5505"), (V1, V3, "FN-5518"), (V2, Versions(0, 0), "FN-5505"), (V2, Versions(5, 1), "FN-5518"),
        (V2, Versions(0, 9), 2), (V2, Versions(2**31, 2**32 - 1), "FN-5518"),
    ],
)  # fmt: skip
def test_which_version_two_programs_speak(ours: Versions, theirs: Versions, outcome: int | str) -> None:
    if isinstance(outcome, int):
        assert versions.agree(ours, theirs, "") == outcome
        return
    with pytest.raises(PeerError, match=outcome):
        versions.agree(ours, theirs, "")


@pytest.mark.parametrize(
    ("software", "install"),
    [("fednode/0.9.1", "fednode>=0.9.1"), ("fednode/1.0.0rc1+x", "fednode>=1.0.0"), ("other/1", "fednode>=0.2.0"),
     ("fednode/\x1b[2J", "fednode>=0.2.0"), ("", "fednode>=0.2.0")],
)  # fmt: skip
def test_the_older_side_is_told_the_package(software: str, install: str) -> None:
    with pytest.raises(PeerError) as caught:
        versions.agree(V1, V3, software)
    assert caught.value.code == "FN-5518"
    assert caught.value.params["install"] == install
    with pytest.raises(PeerError) as caught:
        versions.agree(V2, Versions(0, 0), software)
    assert caught.value.params["install"] == "fednode>=0.2.0"


@pytest.mark.parametrize(
    "params",
    [{}, {"theirs": "1-1", "ours": "2-3"}, {"theirs": "1", "ours": "2-3", "install": "fednode>=1"},
     {"theirs": "1-1", "ours": "2-3", "install": "fednode>=1; rm -rf /"}],
)  # fmt: skip
def test_words_of_a_peer_that_make_no_sense_are_not_repeated(params: dict[str, str]) -> None:
    assert versions.told(params) is None


# ---------------------------------------------------------------- unknown frames


def hint(number: int, field: int) -> bytes:
    """A frame of a later version's."""
    tag = field << 3 | 2
    varint = b""
    while tag > 0x7F:
        varint, tag = varint + bytes((tag & 0x7F | 0x80,)), tag >> 7
    return pb.Frame(number=number).SerializeToString() + varint + bytes((tag, 3)) + b"new"


def test_a_hint_that_is_not_known_is_counted_and_the_session_goes_on() -> None:
    child, parent = pair()
    settle_pair(child, parent)
    number = len(child.sent) + 1
    parent.do(parent.exchange.receive(hint(number, UNKNOWN_HINT), NOW))
    parent.do(parent.exchange.receive(wire.encode(number + 1, wire.Beat(NOW)), NOW))
    assert parent.exchange.state is State.OPEN
    parent.do(parent.exchange.receive(hint(number + 2, versions.HINTS_FROM - 1), NOW))
    broken(parent, "FN-5503")


def settle_pair(*sides: Any) -> None:
    while any(one.inbox for one in sides):
        for one in sides:
            while one.inbox:
                one.read()


def test_a_hint_before_the_hello_is_not_legal() -> None:
    _, parent = pair()
    parent.do(parent.exchange.receive(hint(1, UNKNOWN_HINT), NOW))
    broken(parent, "FN-5504")


def test_a_hint_in_a_bundle_means_nothing() -> None:
    intake = Intake()
    assert intake.take(hint(1, UNKNOWN_HINT)) is None
    with pytest.raises(PeerError, match="FN-5503"):
        intake.take(hint(2, versions.HINTS_FROM - 1))


def test_a_new_kind_of_frame_is_never_sent_to_an_older_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(wire.SINCE, wire.Missing, 2)
    for peer, knows in ((V1, False), (V2, True)):
        _, parent = pair()
        parent.do(parent.exchange.receive(wire.encode(1, hello("1301", version_max=peer.high)), NOW))
        assert parent.exchange.knows(wire.Missing) is knows
        if knows:
            parent.do(parent.exchange.resend("log", 0, (), NOW))
        else:
            with pytest.raises(RuntimeError, match="version 1"):
                parent.exchange.resend("log", 0, (), NOW)


# ---------------------------------------------------------------- the golden corpora


@pytest.mark.parametrize("version", RECORDED)
def test_every_frame_of_an_older_version_is_read_and_written_as_it_was(version: int) -> None:
    lines = (VECTORS / f"frames-v{version}.txt").read_text("utf-8").splitlines()
    kinds = [one for one in KINDS if wire.SINCE.get(type(one), 1) <= version]
    assert [line.split()[0] for line in lines] == [type(one).__name__ for one in kinds]
    for number, (line, message) in enumerate(zip(lines, kinds, strict=True), 1):
        data = bytes.fromhex(line.split()[1])
        assert wire.decode(data) == (number, message)
        assert wire.encode(number, message) == data


@pytest.mark.parametrize("version", RECORDED)
def test_a_recorded_child_is_served_by_this_program(chain: Chain, version: int) -> None:
    """What a village of that version sent is verified, stored, acknowledged."""
    frames = recorded(f"whole-v{version}")[">"]
    parent = Party(chain[TOWNSHIP], VILLAGE, dials=False, answer=(b"chain",), once=False)
    chain[COUNTY].write(shop("corrected", VILLAGE), audience=VILLAGE)
    settle(*meet(chain[TOWNSHIP], chain[COUNTY]))
    parent.start()
    for frame in frames:
        parent.receive(frame)
    assert parent.exchange.version == version
    assert parent.closed == fx.Close(None)
    assert len(chain[TOWNSHIP].records()) == 60 + 1
    answered = [one for message in parent.sent if isinstance(message, wire.Ack) for one in message.outcomes]
    assert [(one.lsn, bool(one.cosignature), one.refused) for one in answered][:3] == [(n, True, "") for n in (1, 2, 3)]
    assert any(isinstance(message, wire.Renewed) for message in parent.sent)
    # of its own Missing, which answers a Want that this parent did not send
    assert [one.code for one in parent.happened if isinstance(one, fx.Alert)] == ["FN-6412"]


@pytest.mark.parametrize("version", RECORDED)
def test_a_recorded_parent_is_understood_by_this_program(chain: Chain, version: int) -> None:
    """What a township of that version sent: its correction is stored, its certificate taken, its questions answered.
    Its acknowledgements are of the recorded segments, not of ours: they are read, and their cosignatures are looked at
    by `test_verify`."""
    frames = recorded(f"whole-v{version}")["<"]
    child = Party(chain[VILLAGE], TOWNSHIP, dials=True, once=False, renew=wire.Renew(b"request"))
    acked: list[wire.Outcome] = []
    child.take_acks = acked.extend
    child.start()
    for frame in frames:
        child.receive(frame)
    assert child.exchange.version == version
    assert child.exchange.state is State.OPEN
    assert list(chain[VILLAGE].records()) == ["corrected"]
    assert [one.lsn for one in acked][:3] == [1, 2, 3]
    assert [len(one.chain) for one in child.happened if isinstance(one, fx.RenewAnswered)] == [6]
    kinds = {type(one) for one in child.sent}
    assert {wire.Ack, wire.Missing, wire.Renew} <= kinds  # what its Wants ask for is not in this store
    assert not [one for one in child.happened if isinstance(one, fx.Alert)]


@pytest.mark.parametrize("version", RECORDED)
def test_a_recorded_node_behind_the_fence_is_heard(chain: Chain, version: int) -> None:
    parent = Party(chain[TOWNSHIP], VILLAGE, dials=False)
    parent.start()
    frames = recorded(f"fenced-v{version}")[">"]
    for frame in frames:
        parent.receive(frame)
    (told,) = [one for one in parent.happened if isinstance(one, fx.PeerFenced)]
    assert told.code == "FN-6420"
    assert told.heads[0].startswith(f"hebei/{VILLAGE}/1/shop\n60\n")
    assert parent.closed == fx.Close(None)


# ---------------------------------------------------------------- today's program as its neighbours


@pytest.mark.parametrize(("below", "above"), [(V1, V2), (V2, V1), (V2, V3), (V3, V2), (V2, V2)])
def test_neighbouring_versions_exchange_in_both_directions(chain: Chain, below: Versions, above: Versions) -> None:
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    village.write(*(shop(f"v{number}", VILLAGE) for number in range(30)))
    chain[COUNTY].write(shop("corrected", VILLAGE), audience=VILLAGE)
    settle(*meet(township, chain[COUNTY]))
    child, parent = meet(village, township, speaks=below, above=above)
    settle(child, parent)
    assert child.closed == parent.closed == fx.Close(None)
    assert child.exchange.version == parent.exchange.version == min(below.high, above.high)
    assert village.records() == township.records()
    assert len(village.records()) == 31
    for side in (child, parent):
        assert all(wire.SINCE.get(type(one), 1) <= side.exchange.version for one in side.sent)
    assert admission.protocol(township.store, VILLAGE) == min(below.high, versions.SPOKEN.high)


def test_the_version_for_a_bundle_is_what_the_peer_last_spoke(chain: Chain) -> None:
    assert admission.protocol(chain[TOWNSHIP].store, VILLAGE) == versions.SPOKEN.low  # never met
    for speaks in (V2, V1):
        settle(*meet(chain[VILLAGE], chain[TOWNSHIP], speaks=speaks))
        assert admission.protocol(chain[TOWNSHIP].store, VILLAGE) == speaks.high


@pytest.mark.parametrize("older", ["child", "parent"])
def test_two_versions_apart_the_older_side_is_told_to_upgrade(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, older: str
) -> None:
    """Here the other side is today's program two versions on: it finds out, or is found out, and both say the same."""
    monkeypatch.setitem(versions.RELEASES, 4, "0.4.0")
    spoken = {"child": Versions(3, 4), "parent": Versions(3, 4), older: versions.SPOKEN}
    village, township = chain[VILLAGE], chain[TOWNSHIP]
    village.write(shop("v", VILLAGE))
    child = Party(village, TOWNSHIP, dials=True, speaks=spoken["child"], software="fednode/0.4.0")
    parent = Party(township, VILLAGE, dials=False, speaks=spoken["parent"], software="fednode/0.4.0")
    child.start()
    parent.start()
    for frame in child.frames:
        parent.receive(frame)
    for frame in parent.frames:
        child.receive(frame)
    for side, mine in ((child, "child"), (parent, "parent")):
        assert side.closed is not None
        error = side.closed.error
        assert isinstance(error, PeerError)
        assert (error.code, error.exit_code) == ("FN-5518" if mine == older else "FN-5505", 5)
        assert error.params["install"] == "fednode>=0.4.0"
        for lang in ("zh", "en"):
            assert "fednode>=0.4.0" in error_text(error, lang)[1]
    bye = parent.sent[-1]
    assert isinstance(bye, wire.Bye)
    assert bye.code == "FN-5505"  # what version 1 knows
    assert "install=fednode>=0.4.0" in bye.detail  # what version 1 shows
    assert village.store.lsn == 1
    assert village.store.backlog_up(0).changes == 1
