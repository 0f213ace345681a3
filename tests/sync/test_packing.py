"""sync/packing: whatever is packed can be unpacked, and nothing unpacks to more than the limits."""

from __future__ import annotations

import hashlib

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fednode.sync import packing
from fednode.sync import segment as seg
from fednode.sync.change import PAYLOAD_BYTES_MAX, UPSERT, Columns
from fednode.sync.dictionary import DICTIONARY, NUMBER
from fednode.sync.errors import PeerError
from fednode.sync.packing import DICTIONARY_BYTES_MAX, RATIO_FREE_BYTES, RATIO_MAX, pack, unpack


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


# ---------------------------------------------------------------- the dictionary

RECORD = (
    '{"area":"130102","authority":"石家庄市长安区行政审批局","kind":"企业","name":"石家庄晨光商贸有限公司","state":"存续"}'
).encode()
PACKED = (  # what `pack(RECORD, 2)` gave when the dictionary was made
    "28b52ffd2301004e4690050100707be699a8e58589e59586e8b4b87d05fcdbdf7808e1a35193b2d54f720b5b20"
)


def test_little_is_packed_with_the_dictionary_and_names_it() -> None:
    packed = pack(RECORD, 2)
    assert zstandard.get_frame_parameters(packed).dict_id == NUMBER
    assert unpack(packed) == RECORD
    assert len(packed) < len(pack(RECORD)) - 40
    assert zstandard.get_frame_parameters(pack(RECORD)).dict_id == 0


def test_the_dictionary_is_the_one_of_the_formats_page() -> None:
    """Bodies that were ever written name it: it never changes."""
    assert hashlib.sha256(DICTIONARY).hexdigest() == "e78dc898c0d4f0a44c1e7a27f02c19d4259ef5ab119c21d1fe5479d7fee65fd4"
    assert zstandard.ZstdCompressionDict(DICTIONARY).dict_id() == NUMBER


def test_golden_what_was_packed_with_the_dictionary_is_read() -> None:
    assert unpack(bytes.fromhex(PACKED)) == RECORD


@given(st.binary(max_size=200), st.integers(0, 2_000))
def test_whatever_is_packed_with_the_dictionary_can_be_unpacked(piece: bytes, times: int) -> None:
    assert unpack(pack(piece * times, 2)) == piece * times


@pytest.mark.parametrize(("size", "known"), [(DICTIONARY_BYTES_MAX, NUMBER), (DICTIONARY_BYTES_MAX + 1, 0)])
def test_what_is_long_goes_without(size: int, known: int) -> None:
    assert zstandard.get_frame_parameters(pack(bytes(size), 2)).dict_id == known


def test_a_dictionary_that_is_not_known_is_refused() -> None:
    samples = [b'{"name":"%d","area":"13"}' % (i * 7919) for i in range(2000)]
    other = zstandard.train_dictionary(1024, samples, dict_id=NUMBER + 1)
    packed = zstandard.ZstdCompressor(dict_data=other, write_content_size=True).compress(RECORD)
    with pytest.raises(PeerError, match="FN-6402") as caught:
        unpack(packed)
    assert caught.value.params["reason"] == "dictionary"


@pytest.mark.parametrize(("bodies", "known"), [(1, 0), (2, NUMBER)])
def test_a_catalog_says_whether_every_node_knows_it(bodies: int, known: int) -> None:
    columns = Columns(1, [b"k"], [1], bytes((UPSERT,)), [RECORD], bytes(32))
    packed = seg.encode_body(columns, bodies)
    assert zstandard.get_frame_parameters(packed).dict_id == known
    assert seg.decode_body(packed) == columns
    assert seg.decode_leaves(packed).hashes == seg.leaf_hashes(columns)


def test_a_compressor_is_one_caller_s_alone_until_it_is_given_back() -> None:
    """With the dictionary they are kept (threads pack and unpack at the same time), without it none is."""
    for make in (packing._compressor, packing._decompressor):
        with packing._lent(make, known=True) as one, packing._lent(make, known=True) as other:
            assert one is not other
        with packing._lent(make, known=True) as again:
            assert again in (one, other)
        with packing._lent(make, known=False) as large:
            assert large not in (one, other)
        with packing._lent(make, known=False) as next_one:
            assert next_one is not large


def test_regression_a_kept_decompressor_remembers_nothing_of_what_it_refused() -> None:
    packed = pack(b"a record by itself", 2)
    with pytest.raises(PeerError, match="FN-6402"):
        unpack(packed[:-1])
    assert unpack(packed) == b"a record by itself"
