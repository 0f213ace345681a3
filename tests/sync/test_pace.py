"""How large a chunk is, and how much the driver is given: by what the line was seen to carry."""

from __future__ import annotations

import pytest

from fednode.sync import wire
from fednode.sync.pace import CHUNK_BYTES_MIN, CHUNK_BYTES_START, CHUNK_PART, MEMORY_MS, SAMPLE_BYTES, Pace
from sides import NOW, item, pair, settle


def seen(size: int, took_ms: int) -> Pace:
    pace = Pace()
    pace.sent(1, size, NOW)
    pace.heard([1], NOW + took_ms)
    return pace


@pytest.mark.parametrize(
    ("size", "took_ms", "chunk"),
    [
        (80_000, 10_000, 8_000),  # 64 kbit/s
        (80_000, 80_000, CHUNK_BYTES_MIN),
        (1_000_000, 500, wire.CHUNK_BYTES_MAX),
        (100_000, 0, wire.CHUNK_BYTES_MAX),  # less than a millisecond
    ],
)
def test_a_chunk_takes_the_line_about_a_second(size: int, took_ms: int, chunk: int) -> None:
    assert seen(size, took_ms).chunk_bytes == chunk


def test_while_nothing_is_known_a_chunk_is_small() -> None:
    assert Pace().chunk_bytes == CHUNK_BYTES_START


@pytest.mark.parametrize(
    ("sent", "chunk"),
    [
        (CHUNK_PART * (CHUNK_BYTES_START + 1) - 1, CHUNK_BYTES_START),
        (CHUNK_PART * (CHUNK_BYTES_START + 1), CHUNK_BYTES_START + 1),
        (CHUNK_PART * wire.CHUNK_BYTES_MAX, wire.CHUNK_BYTES_MAX),
        (9_000_000, wire.CHUNK_BYTES_MAX),
    ],
)
def test_while_nothing_is_known_a_chunk_grows_with_what_went_out(sent: int, chunk: int) -> None:
    pace = Pace()
    pace.sent(1, sent // 2, NOW)
    pace.sent(2, sent - sent // 2, NOW)
    assert pace.chunk_bytes == chunk
    pace.heard([1, 2], NOW + sent // 8)  # 64 kbit/s
    assert pace.chunk_bytes == 8_000


def test_a_small_exchange_raises_the_rate_and_never_lowers_it() -> None:
    pace = seen(500_000, 1_000)
    before = pace.rate
    pace.sent(2, SAMPLE_BYTES - 1, NOW + 5_000)
    pace.heard([2], NOW + 9_000)
    assert pace.rate == before
    pace.sent(3, SAMPLE_BYTES, NOW + 10_000)
    pace.heard([3], NOW + 14_000)
    assert pace.rate == SAMPLE_BYTES / 4


def test_what_was_seen_long_ago_counts_less_and_less() -> None:
    pace = Pace()
    for i in range(1, 13):  # always something on its way; from the second on ten times as fast
        pace.sent(i, 100_000 if i == 1 else 1_000_000, NOW + (i - 1) * (MEMORY_MS + 1))
        pace.sent(i + 1, 0, NOW + (i - 1) * (MEMORY_MS + 1))
        pace.heard([i], NOW + i * (MEMORY_MS + 1))
    assert pace.rate > 40_000


def test_chunks_of_an_exchange_follow_what_was_acknowledged() -> None:
    """64 kbit/s: the second segment goes in chunks of a second."""
    child, parent = pair([item(1, 80_000)])
    settle(child, parent, commits=False)
    assert [len(one.data) for one in child.messages(wire.Chunk)][:2] == [CHUNK_BYTES_START] * 2
    parent.commit()
    child.do(child.exchange.receive(parent.other.inbox.popleft(), NOW + 10_000))
    child.items.append(item(2, 80_000))
    child.do(child.exchange.wake(NOW + 10_000))
    assert {len(one.data) for one in child.messages(wire.Chunk) if one.lsn == 2} == {8_000}
