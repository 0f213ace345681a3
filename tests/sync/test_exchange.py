"""Two exchanges joined without a network: what flows, what is refused, what a cut, a loss and a repetition do."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.sync import exchange as ex
from fednode.sync import wire
from fednode.sync.effects import (
    Again,
    Alert,
    Close,
    Commit,
    Done,
    HalfSegment,
    Item,
    PeerClock,
    PeerFenced,
    Pull,
    RenewAnswered,
    RenewAsked,
    Send,
)
from fednode.sync.errors import PeerError, Unavailable
from fednode.sync.pace import CHUNK_BYTES_START
from fednode.sync.segment import ENVELOPE_BYTES_MAX
from sides import NOW, WINDOW, Side, broken, gap, item, join, late, pair, settle
from world import Stream

# ---------------------------------------------------------------- what flows


def test_feeds_flow_both_ways_and_are_acknowledged() -> None:
    up, down = [item(i, 3_000 * i) for i in range(1, 40)], [item(i, 70_000) for i in range(5, 12)]
    child, parent = pair(up, down)
    settle(child, parent)
    assert parent.held == {one.lsn: one.data for one in up}
    assert child.held == {one.lsn: one.data for one in down}
    assert [one.lsn for one in child.acked] == [one.lsn for one in up]
    assert [one.lsn for one in parent.acked] == [one.lsn for one in down]
    assert child.exchange.pending == parent.exchange.pending == 0
    assert (child.idles(), parent.idles()) == ([39], [11])
    assert child.closed is parent.closed is None


def test_idle_is_said_again_only_after_something_new() -> None:
    """A wake with nothing in it (the store grew by what the peer itself had sent) costs no frame."""
    child, parent = pair([item(1)])
    settle(child, parent)
    for side in (child, parent):
        side.do(side.exchange.wake(NOW))
    settle(child, parent)
    assert (child.idles(), parent.idles()) == ([1], [0])
    child.items.append(item(2))
    child.do(child.exchange.wake(NOW))
    settle(child, parent)
    assert (child.idles(), parent.idles()) == ([1, 2], [0])


def test_an_ack_comes_only_after_committed() -> None:
    child, parent = pair([item(1), item(2), item(3)])
    settle(child, parent, commits=False)
    assert [one.lsn for one in parent.commits] == [1, 2, 3]
    assert parent.messages(wire.Ack) == []
    assert (child.acked, child.exchange.pending) == ([], 3)
    parent.commit(2)
    settle(child, parent, commits=False)
    assert ([one.lsn for one in child.acked], child.exchange.pending) == ([1, 2], 1)


def test_what_is_refused_is_acknowledged_with_its_code_and_the_feed_goes_on() -> None:
    child, parent = pair([item(1), item(2)])
    settle(child, parent, commits=False)
    given_ = wire.Cosignature(7, bytes(64))
    parent.do(parent.exchange.committed([Done(1, refused="FN-6406"), Done(2, given_)], NOW))
    settle(child, parent, commits=False)
    assert child.acked == [wire.Outcome(1, None, "FN-6406"), wire.Outcome(2, given_)]
    assert child.closed is None


def test_many_outcomes_are_split_into_acks_that_are_legal() -> None:
    count = 2 * wire.OUTCOMES_MAX + 1
    child, parent = pair([item(i, 10) for i in range(1, count + 1)])
    settle(child, parent)
    assert [len(ack.outcomes) for ack in parent.messages(wire.Ack)] == [wire.OUTCOMES_MAX, wire.OUTCOMES_MAX, 1]
    assert len(child.acked) == count


def test_outcomes_that_were_lost_are_told_at_admission() -> None:
    child, parent = pair()
    parent.hold_admission = True
    parent.read()
    known = tuple(wire.Outcome(i) for i in range(1, wire.OUTCOMES_MAX + 2))
    parent.admit(acks=known)
    settle(child, parent)
    assert tuple(child.acked) == known


def test_the_feed_starts_after_what_the_peer_has() -> None:
    child, parent = pair([item(1), item(2), item(3)], child={"start": 2})
    settle(child, parent)
    assert list(parent.held) == [3]


def test_growth_is_pushed() -> None:
    child, parent = pair()
    settle(child, parent)
    child.items.append(item(1))
    child.do(child.exchange.wake(NOW))
    settle(child, parent)
    assert list(parent.held) == [1]


def test_growth_during_a_pull_is_not_missed() -> None:
    child, parent = pair()
    pulls: list[Pull] = []
    child.pull = lambda after, bytes_max: pulls.append(Pull(after, bytes_max))  # type: ignore[method-assign]
    settle(child, parent)
    assert len(pulls) == 1
    child.do(child.exchange.wake(NOW))  # something came while the driver was still reading
    child.do(child.exchange.feed([], True, NOW))
    assert len(pulls) == 2


@pytest.mark.parametrize("who", ["child", "parent"])
def test_one_side_may_have_no_feed(who: str) -> None:
    child, parent = pair([item(1)], [item(1)], child={"feeds": who != "child"}, parent={"feeds": who != "parent"})
    settle(child, parent)
    assert list(parent.held) == ([] if who == "child" else [1])
    assert list(child.held) == ([] if who == "parent" else [1])


def test_late_cosignatures_are_commits_of_their_own() -> None:
    child, parent = pair([], [item(1), late(2)])
    settle(child, parent)
    assert [(one.lsn, one.late is not None) for one in child.of(Commit)] == [(1, False), (2, True)]
    assert parent.exchange.pending == 0


def test_the_first_parents_cosignature_travels_with_its_segment() -> None:
    given_ = wire.Cosignature(7, bytes(64), "130102")
    plain = item(1, 200_000)
    child, parent = pair([Item(1, plain.data, given_, None, plain.digest)])
    settle(child, parent)
    assert parent.of(Commit) == [Commit(1, plain.data, given_)]


def test_the_child_reads_its_parents_clock() -> None:
    child, parent = pair()
    settle(child, parent)
    assert child.of(PeerClock) == [PeerClock(NOW, NOW, NOW)]
    assert parent.of(PeerClock) == []


# ---------------------------------------------------------------- once


def test_once_ends_when_both_feeds_are_drained_and_acknowledged() -> None:
    child, parent = pair([item(i) for i in range(1, 5)], [item(i) for i in range(1, 5)], child={"once": True})
    settle(child, parent)
    assert child.closed == Close(None, 0)
    assert parent.closed == Close(None, 0)
    assert len(parent.held) == len(child.held) == 4
    assert child.sent[-1] == wire.Bye()


def test_once_waits_for_the_commit_at_both_ends() -> None:
    child, parent = pair([item(1)], [item(1)], child={"once": True})
    settle(child, parent, commits=False)
    assert child.closed is None
    parent.commit()
    settle(child, parent, commits=False)
    assert child.closed is None  # its own commit is due
    child.commit()
    settle(child, parent, commits=False)
    assert child.closed == Close(None, 0)


def test_once_with_nothing_to_do_ends() -> None:
    child, parent = pair(child={"once": True})
    settle(child, parent)
    assert child.closed == Close(None, 0)


@pytest.mark.parametrize("idle_first", [True, False])
def test_regression_once_waits_for_what_it_asked_for_again(idle_first: bool) -> None:
    """It ended as soon as it had asked, so a node that only ever runs `sync` would never have got it."""
    child, parent = pair([], [item(1), item(2)], child={"once": True})
    parent.read()
    while child.inbox and (idle_first or len(child.inbox) > 1):
        child.read()
    gap(child, 2, wire.Want("hebei/13/1/x", 1), 1)
    assert child.closed is None
    settle(child, parent)
    assert sorted(child.held) == [1, 2]
    assert child.closed == Close(None, 0)


def test_once_ends_when_the_peer_has_not_got_it_either() -> None:
    child, parent = pair([], [item(1), item(2)], child={"once": True})
    settle(child, parent, commits=False)
    gap(child, 2, wire.Want("hebei/13/1/x", 9), 1)
    settle(child, parent)
    assert parent.messages(wire.Missing) == [wire.Missing("hebei/13/1/x", 9)]
    assert child.closed == Close(None, 0)


def test_once_ends_when_the_peer_wants_what_is_lost_here() -> None:
    """It waited for an ack that could not come: beats kept `fednode sync` alive for ever."""
    child, parent = pair([item(1), item(2), item(3)], [], child={"once": True})
    settle(child, parent, commits=False)
    child.items.clear()  # the parent lacks what came before 2, and the child has lost it
    gap(parent, 2, wire.Want("hebei/1301/1/x", 0), 1)
    settle(child, parent, commits=False)
    assert child.messages(wire.Missing) == [wire.Missing("hebei/1301/1/x", 0)]
    assert child.closed is None  # 3 is still to be answered
    parent.do(parent.exchange.committed([Done(3)], NOW))
    settle(child, parent, commits=False)
    assert child.closed == Close(None, 0)
    assert child.answered == 1  # 2 is sent again the next time


def test_what_was_sent_again_in_vain_is_not_asked_for_a_third_time() -> None:
    child, parent = pair([], [item(1), item(2)], child={"once": True})
    settle(child, parent, commits=False)
    want = wire.Want("hebei/13/1/x", 1)
    gap(child, 2, want, 1)
    settle(child, parent, commits=False)
    assert [one.lsn for one in child.commits] == [1, 2]
    gap(child, 2, want, 1)
    settle(child, parent, commits=False)
    assert child.messages(wire.Want) == [want]
    assert child.of(Alert) == [Alert("FN-6412", {"log": want.log, "first": 1})]
    assert child.closed == Close(None, 0)


def test_while_there_is_progress_more_is_asked_for() -> None:
    child, parent = pair([], [item(i) for i in range(1, 5)], child={"once": True})
    settle(child, parent, commits=False)
    for first in (1, 2, 3):
        gap(child, 4, wire.Want("hebei/13/1/x", first), 1, 2, 3)
        settle(child, parent, commits=False)
    assert len(child.messages(wire.Want)) == 3
    settle(child, parent)
    assert child.closed == Close(None, 0)
    assert child.of(Alert) == []


# ---------------------------------------------------------------- chunks, credit, cuts


def opened(dials: bool = False, **more: Any) -> tuple[Side, Side, int]:
    """A pair with nothing to send, and the number of the next frame that the parent expects."""
    child, parent = pair(parent=more)
    settle(child, parent)
    return child, parent, parent.exchange._received_number + 1


DATA = Stream("chunk")(1000)
DIGEST = hashlib.sha256(DATA).digest()


@pytest.mark.parametrize(
    ("chunks", "code"),
    [
        ([wire.Chunk(1, 0, DATA[:10])], "FN-5507"),  # never introduced
        ([wire.Chunk(1, 5, DATA[:10], 1000, DIGEST)], "FN-5507"),  # starts in the middle of nothing
        ([wire.Chunk(1, 0, DATA[:10], 1000, DIGEST), wire.Chunk(1, 20, DATA[20:])], "FN-5507"),  # a hole
        ([wire.Chunk(1, 0, DATA[:10], 1000, DIGEST), wire.Chunk(1, 5, DATA[5:])], "FN-5507"),  # an overlap
        ([wire.Chunk(1, 0, DATA[:10], 1000, DIGEST), wire.Chunk(2, 10, DATA[10:])], "FN-5507"),  # another's
        ([wire.Chunk(1, 0, DATA, 999, DIGEST)], "FN-5507"),  # more than was said
        ([wire.Chunk(1, 0, DATA, 1000, bytes(32))], "FN-6405"),  # not what was said
        ([wire.Chunk(1, 0, DATA, ENVELOPE_BYTES_MAX + 1, DIGEST)], "FN-6401"),  # more than may be
        ([wire.Chunk(1, 0, DATA[:999], 1000, b"")], "FN-6401"),  # no digest, and not all of it
    ],
)
def test_chunks_that_do_not_make_a_segment(chunks: list[wire.Chunk], code: str) -> None:
    _, parent, number = opened()
    for i, chunk in enumerate(chunks):
        parent.do(parent.exchange.receive(wire.encode(number + i, chunk), NOW))
    broken(parent, code)
    assert parent.commits == []


def test_credit_holds_the_sender_back() -> None:
    up = [item(i, 500_000) for i in range(1, 21)]
    child, parent = pair(up)
    settle(child, parent, commits=False)
    sent = sum(len(one.data) for one in child.messages(wire.Chunk))
    assert sent == WINDOW
    parent.commit()
    settle(child, parent, commits=False)
    more = sum(len(one.data) for one in child.messages(wire.Chunk))
    assert WINDOW < more <= 2 * WINDOW
    settle(child, parent)
    assert len(parent.held) == 20


def test_a_peer_cannot_have_more_sent_than_a_window() -> None:
    """Nor by a greater window in its Hello, nor by credit that it gives without end: it would fill memory, ours or
    the network's."""
    up = [item(i, 1_000_000) for i in range(1, 20)]
    child, parent = pair(up, parent={"window": 2**63})
    settle(child, parent, commits=False)
    assert sum(len(one.data) for one in child.messages(wire.Chunk)) == WINDOW
    number = child.exchange._received_number + 1
    child.do(child.exchange.receive(wire.encode(number, wire.Credit(2**63)), NOW))
    assert sum(len(one.data) for one in child.messages(wire.Chunk)) == 2 * WINDOW


def test_credit_may_be_overrun_by_a_chunk_and_no_more() -> None:
    _, parent, number = opened()
    size = wire.CHUNK_BYTES_MAX
    chunks = WINDOW // size + 1
    total = (chunks + 1) * size
    first = wire.Chunk(1, 0, bytes(size), ENVELOPE_BYTES_MAX, bytes(32))
    assert total > ENVELOPE_BYTES_MAX  # so it takes two segments
    for i in range(chunks):
        chunk = first if i == 0 else wire.Chunk(1, i * size, bytes(size))
        if i * size == ENVELOPE_BYTES_MAX:
            chunk = wire.Chunk(2, 0, bytes(size), size + 1, bytes(32))
        if i * size == ENVELOPE_BYTES_MAX - size:
            chunk = wire.Chunk(1, i * size, bytes(size - 1))
        parent.do(parent.exchange.receive(wire.encode(number + i, chunk), NOW))
    assert parent.closed is None
    parent.do(parent.exchange.receive(wire.encode(number + chunks, wire.Chunk(2, size, b"xx")), NOW))
    broken(parent, "FN-5506")


@pytest.mark.parametrize("window", [200_000, 1_000_000, WINDOW])
def test_regression_any_window_drains(window: int) -> None:
    """Credit came back only by the megabyte: a peer with a smaller window waited for ever."""
    up = [item(i, 30_000) for i in range(1, 60)]
    child, parent = pair(up, parent={"window": window})
    for _ in range(1000):  # the slowest writer: one commit at a time
        settle(child, parent, commits=False)
        if not parent.commits:
            break
        parent.commit(1)
    assert len(parent.held) == len(up)
    assert len(child.acked) == len(up)


def test_to_a_peer_of_version_1_each_segment_has_its_digest_and_idle_is_a_frame() -> None:
    up = [item(1), item(2)]
    child, parent = pair(up, parent={"version_max": 1})
    settle(child, parent)
    assert [one.digest for one in child.messages(wire.Chunk)] == [one.digest for one in up]
    assert child.messages(wire.Idle) == [wire.Idle(2)]
    assert list(parent.held) == [1, 2]


def test_from_version_2_on_what_one_chunk_holds_has_no_digest_and_the_last_says_idle() -> None:
    up = [item(1), item(2, CHUNK_BYTES_START + 1)]
    child, parent = pair(up)
    settle(child, parent)
    chunks = child.messages(wire.Chunk)
    assert [(one.lsn, len(one.digest), one.idle) for one in chunks] == [(1, 0, False), (2, 32, False), (2, 0, True)]
    assert child.messages(wire.Idle) == []
    assert parent.held == {one.lsn: one.data for one in up}


def test_idle_in_passing_ends_what_was_half_here() -> None:
    """A peer that says so in the middle of a segment has broken the order, as one that sends Idle there."""
    _, parent, number = opened()
    parent.do(parent.exchange.receive(wire.encode(number, wire.Chunk(1, 0, DATA[:10], 1000, DIGEST, idle=True)), NOW))
    parent.do(parent.exchange.receive(wire.encode(number + 1, wire.Chunk(1, 10, DATA[10:])), NOW))
    broken(parent, "FN-5507")


@pytest.mark.parametrize("cut_after", [1, 3, 7])
def test_a_cut_resumes_at_the_chunk(cut_after: int) -> None:
    big = item(1, 10 * CHUNK_BYTES_START)
    child, parent = pair([big, item(2)])
    parent.read()
    child.read()
    while child.inbox:
        child.read()
    for _ in range(cut_after):
        parent.read()
    half = parent.exchange.half
    assert isinstance(half, HalfSegment)
    assert len(half.data) == cut_after * CHUNK_BYTES_START
    held = len(half.data)
    partial = wire.Partial(1, big.digest, held)
    again, store = pair([big, item(2)], parent={"half": half, "partial": partial})
    settle(again, store)
    chunks = again.messages(wire.Chunk)
    assert (chunks[0].offset, chunks[0].total) == (held, len(big.data))
    assert sum(len(one.data) for one in chunks if one.lsn == 1) == len(big.data) - held
    assert store.held[1] == big.data
    assert list(store.held) == [1, 2]


@pytest.mark.parametrize("other", [item(1, 5 * 65536), item(7, 10 * 65536)])
def test_what_is_half_there_of_another_segment_is_thrown_away(other: Item) -> None:
    half = HalfSegment(other.lsn, len(other.data), other.digest, bytearray(other.data[:65536]))
    partial = wire.Partial(other.lsn, other.digest, 65536)
    real = item(2, 300_000)
    child, parent = pair([real], parent={"half": half, "partial": partial})
    settle(child, parent)
    assert parent.held == {2: real.data}


@settings(max_examples=60, derandomize=True, deadline=None)
@given(
    st.lists(st.integers(1, 200_000), max_size=12),
    st.lists(st.integers(1, 200_000), max_size=12),
    st.lists(st.integers(0, 3), max_size=200),
    st.booleans(),
)
def test_any_interleaving_ends_with_the_same(up: list[int], down: list[int], moves: list[int], once: bool) -> None:
    """Frames are read and commits made in any order that keeps each direction's: all is held and acknowledged."""
    feeds = [[item(i, size) for i, size in enumerate(sizes, 1)] for sizes in (up, down)]
    child, parent = pair(*feeds, child={"once": once})
    for move in moves:
        side = (child, parent)[move & 1]
        if move & 2 and side.commits:
            side.commit(1)
        elif side.inbox:
            side.read()
    settle(child, parent)
    assert parent.held == {one.lsn: one.data for one in feeds[0]}
    assert child.held == {one.lsn: one.data for one in feeds[1]}
    assert child.exchange.pending == parent.exchange.pending == 0
    assert (child.closed is not None) == once


# ---------------------------------------------------------------- gaps


def test_a_gap_is_asked_for_and_sent_again_before_all_else() -> None:
    child, parent = pair([item(i) for i in range(1, 5)])
    settle(child, parent, commits=False)
    want = wire.Want("hebei/1301/1/x", 1)
    parent.commits.clear()
    parent.do(parent.exchange.committed([Done(1, gap=want), Done(2), Done(3), Done(4)], NOW))
    settle(child, parent, commits=False)
    assert child.of(Again) == [Again(want.log, 1, 4)]
    assert [one.lsn for one in parent.commits] == [1, 2, 3, 4]
    parent.commit()
    settle(child, parent)
    assert child.exchange.pending == 0


def test_regression_what_lies_behind_a_hole_is_not_acknowledged_up_to_there() -> None:
    """An ack for 4 said that 1 was held too, which the parent had asked for again: "nothing pending" was not true."""
    child, parent = pair([item(i) for i in range(1, 5)])
    settle(child, parent, commits=False)
    parent.commits.clear()
    parent.do(parent.exchange.committed([Done(1, gap=wire.Want("hebei/1301/1/x", 1)), Done(2), Done(4)], NOW))
    settle(child, parent, commits=False)
    assert [outcome.lsn for outcome in child.acked] == [2, 4]
    assert child.answered == 0
    parent.commits = parent.commits[:1]
    parent.commit()
    settle(child, parent, commits=False)
    assert child.answered == 2
    parent.do(parent.exchange.committed([Done(3)], NOW))
    settle(child, parent, commits=False)
    assert child.answered == 4


def test_regression_nobody_acknowledges_what_was_not_sent() -> None:
    """An ack with a high number would have ended all waiting, for good."""
    child, parent = pair([item(1), item(2)])
    settle(child, parent)
    assert child.answered == 2
    parent.do(parent.exchange.committed([Done(1 << 60)], NOW))
    settle(child, parent)
    assert child.answered == 2


def test_outcomes_told_at_admission_count_as_they_come() -> None:
    """The link may be cut between them; who was told a part is told the rest the next time."""
    child, parent = pair(child={"start": wire.OUTCOMES_MAX + 9})
    parent.hold_admission = True
    parent.read()
    parent.admit(acks=tuple(wire.Outcome(i) for i in range(1, wire.OUTCOMES_MAX + 10)))
    child.read()
    child.read()
    assert child.answered == wire.OUTCOMES_MAX
    settle(child, parent)
    assert child.answered == wire.OUTCOMES_MAX + 9


def test_what_is_not_there_either_is_said() -> None:
    child, parent = pair()
    settle(child, parent)
    parent.do(parent.exchange.committed([Done(1, gap=wire.Want("hebei/1301/1/x", 9))], NOW))
    settle(child, parent)
    assert child.messages(wire.Missing) == [wire.Missing("hebei/1301/1/x", 9)]
    assert parent.of(Alert) == [Alert("FN-6412", {"log": "hebei/1301/1/x", "first": 9})]
    assert parent.closed is None


def test_what_is_sent_again_does_not_cut_into_a_segment_that_has_begun() -> None:
    up = [item(1, 3_000_000), item(2, 3_000_000), item(3, 10)]
    child, parent = pair(up)
    settle(child, parent, commits=False)  # credit ends in the middle of 2
    parent.do(parent.exchange.committed([Done(1, gap=wire.Want("hebei/1301/1/x", 1))], NOW))
    parent.commits.clear()
    settle(child, parent)
    assert parent.closed is None
    assert sorted(parent.held) == [1, 2, 3]


# ---------------------------------------------------------------- time, ends, renewal


def test_beats_and_silence() -> None:
    child, parent = pair()
    settle(child, parent)
    assert child.exchange.tick(NOW + ex.BEAT_MS - 1) == []
    (beat,) = child.exchange.tick(NOW + ex.BEAT_MS)
    assert isinstance(beat, Send)
    assert wire.decode(beat.data)[1] == wire.Beat(NOW + ex.BEAT_MS)
    assert parent.exchange.receive(beat.data, NOW + ex.BEAT_MS) == []
    assert not any(isinstance(one, Close) for one in parent.exchange.tick(NOW + ex.BEAT_MS + ex.SILENCE_MS_MAX))
    child.do(child.exchange.tick(NOW + ex.SILENCE_MS_MAX + 1))
    assert isinstance(child.closed and child.closed.error, Unavailable)
    broken(child, "FN-4502")


def test_a_busy_parent_is_obeyed() -> None:
    child, parent = pair()
    parent.hold_admission = True
    parent.read()
    parent.do(parent.exchange.refuse(Unavailable("FN-4501"), NOW, 30_000))
    settle(child, parent)
    closing = child.closed
    assert closing is not None
    assert closing.retry_after_ms == 30_000
    assert isinstance(closing.error, Unavailable)
    assert (closing.error.code, closing.error.retry_after_ms) == ("FN-4501", 30_000)


def test_a_refused_child_is_told_why() -> None:
    child, parent = pair()
    parent.hold_admission = True
    parent.read()
    parent.do(parent.exchange.refuse(PeerError("FN-5402", node="1301"), NOW))
    settle(child, parent)
    closing = child.closed
    assert closing is not None
    assert isinstance(closing.error, PeerError)
    assert (closing.error.code, closing.error.params["code"]) == ("FN-5508", "FN-5402")


def test_renewal_goes_up_and_comes_down() -> None:
    """An exchange that ends when all is done waits for the answer."""
    child, parent = Side(dials=True, once=True), Side(dials=False)
    join(child, parent)
    parent.do(parent.exchange.start(NOW))
    child.hold_admission = True
    child.do(child.exchange.start(NOW))
    parent.read()
    child.read()
    child.admit(renew=wire.Renew(b"request", 3), fenced=wire.Fenced("FN-6422", ("note",)))
    settle(child, parent)
    assert parent.of(RenewAsked) == [RenewAsked(b"request", 3)]
    assert parent.of(PeerFenced) == [PeerFenced("FN-6422", ("note",))]
    assert child.closed is None
    parent.do(parent.exchange.answer_renewal((b"own", b"root"), "", NOW))
    settle(child, parent)
    assert child.of(RenewAnswered) == [RenewAnswered((b"own", b"root"), "")]
    assert child.closed == Close(None, 0)


def test_regression_what_is_asked_for_after_idle_begins_at_its_beginning() -> None:
    """Found by the simulator with bits that flip: a peer gives up what it has half when it hears that there is no more,
    and what it then asked for in the place of a damaged segment came from the middle on (FN-5507)."""
    big = item(1, 10 * CHUNK_BYTES_START)
    half = HalfSegment(1, len(big.data), big.digest, bytearray(big.data[:CHUNK_BYTES_START]))
    partial = wire.Partial(1, big.digest, CHUNK_BYTES_START)
    child, parent = pair([], parent={"half": half, "partial": partial})
    settle(child, parent)
    assert parent.exchange.half is None
    child.do(child.exchange.resend("log", 0, [big], NOW))
    settle(child, parent)
    assert [one.offset for one in child.messages(wire.Chunk)][:1] == [0]
    assert parent.held == {1: big.data}
