"""sync/packing: whatever is packed can be unpacked, and nothing unpacks to more than the limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fednode.sync import segment as seg
from fednode.sync.change import PAYLOAD_BYTES_MAX, UPSERT, Columns
from fednode.sync.errors import PeerError
from fednode.sync.packing import RATIO_FREE_BYTES, RATIO_MAX, pack, unpack


@given(st.binary(max_size=64), st.integers(0, 40_000))
def test_whatever_is_packed_can_be_unpacked(piece: bytes, times: int) -> None:
    assert unpack(pack(piece * times)) == piece * times


@pytest.mark.parametrize("size", [RATIO_FREE_BYTES, RATIO_FREE_BYTES + 1, PAYLOAD_BYTES_MAX])
def test_what_is_filled_up_is_filled_to_the_ratio_and_no_further(size: int) -> None:
    packed = pack(bytes(size))
    assert unpack(packed) == bytes(size)
    assert len(packed) <= size // RATIO_MAX + 9


def test_regression_repetitive_records_can_be_read_again() -> None:
    """Many records with the same long text compressed better than 200 to 1: the segment was stored, and nobody, its own
    writer neither, could open it (FN-6401)."""
    payload = b'{"note":"' + b"x" * 2_000 + b'"}'
    columns = Columns(
        *(1, [f"k{i:03}".encode() for i in range(500)], list(range(1, 501)), bytes((UPSERT,)) * 500),
        *([payload] * 500, bytes(32)),
    )
    assert seg.decode_body(seg.encode_body(columns)) == columns


def test_a_filling_cut_off_is_refused() -> None:
    packed = pack(bytes(PAYLOAD_BYTES_MAX))
    with pytest.raises(PeerError, match="FN-6401"):
        unpack(packed[:-100])
