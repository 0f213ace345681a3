"""Packing: the compression of a segment's body (zstd), within limits that hold before anything is unpacked.

Rules
1. Nobody unpacks more than `BODY_BYTES_MAX`, nor more than `RATIO_MAX` times what came; up to `RATIO_FREE_BYTES` the
   ratio is free.
2. What is honestly so repetitive that it would pass the ratio is filled up with a skippable frame (RFC 8878, section
   3.1.2) of zeros: whatever is packed can be unpacked.
3. Little is packed with a dictionary, where the catalog says that every node knows it (`BODIES_MAX`): a record by
   itself has nothing before it that it could refer to. The frame names its dictionary; none is a frame of its own.

>>> repetitive = bytes(1024 * 1024)
>>> unpack(pack(repetitive)) == repetitive
True
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import zstandard

from fednode.sync.dictionary import DICTIONARY, NUMBER
from fednode.sync.errors import PeerError

BODY_BYTES_MAX = 16 * 1024 * 1024
RATIO_MAX = 200
RATIO_FREE_BYTES = 64 * 1024  # tiny bodies may compress better than the ratio allows
ZSTD_LEVEL = 3
BODIES_MAX = 2  # 1: zstd; 2: also with the dictionary
BODIES_SINCE = {1: "0.1.0", 2: "0.2.0"}  # the first program that reads them
DICTIONARY_BYTES_MAX = 32 * 1024  # what is longer has enough of its own to refer to
SKIPPABLE = b"\x50\x2a\x4d\x18"


@cache
def _dictionary() -> zstandard.ZstdCompressionDict:
    made = zstandard.ZstdCompressionDict(DICTIONARY)
    made.precompute_compress(level=ZSTD_LEVEL)
    return made


def _compressor(known: bool) -> Any:
    given = _dictionary() if known else None
    return zstandard.ZstdCompressor(level=ZSTD_LEVEL, dict_data=given, write_checksum=False, write_content_size=True)


def _decompressor(known: bool) -> Any:
    return zstandard.ZstdDecompressor(dict_data=_dictionary() if known else None)


_kept: dict[Callable[[bool], Any], list[Any]] = {_compressor: [], _decompressor: []}


@contextmanager
def _lent(make: Callable[[bool], Any], *, known: bool) -> Iterator[Any]:
    """One that nobody else uses meanwhile. With the dictionary it is kept for the next: for a single record it takes
    longer to make one than to use it. Without it is for more than that, and as large as its work."""
    if not known:
        yield make(known)
        return
    kept = _kept[make]
    try:
        one = kept.pop()
    except IndexError:  # as many as were ever used at once
        one = make(known)
    try:
        yield one
    finally:
        kept.append(one)


def pack(plain: bytes, bodies: int = 1) -> bytes:
    """Compressed bytes, filled up where the ratio would be too high (rule 2). `bodies`: what every reader knows."""
    with _lent(_compressor, known=bodies >= 2 and len(plain) <= DICTIONARY_BYTES_MAX) as compressor:
        packed: bytes = compressor.compress(plain)
    if len(plain) <= max(RATIO_FREE_BYTES, RATIO_MAX * len(packed)):
        return packed
    lacking = -(-len(plain) // RATIO_MAX) - len(packed)
    return packed + SKIPPABLE + lacking.to_bytes(4, "little") + bytes(lacking)


def unpack(packed: bytes) -> bytes:
    """What was packed. Raises PeerError FN-6401 (a limit would be passed), FN-6402 (not packed)."""
    try:
        size = zstandard.frame_content_size(packed)
        if size < 0 or size > BODY_BYTES_MAX or size > max(RATIO_FREE_BYTES, RATIO_MAX * len(packed)):
            raise PeerError("FN-6401", size=size, limit=BODY_BYTES_MAX)
        number = zstandard.get_frame_parameters(packed).dict_id
        if number not in (0, NUMBER):
            raise PeerError("FN-6402", reason="dictionary")
        with _lent(_decompressor, known=number != 0) as decompressor:
            plain: bytes = decompressor.decompress(packed, max_output_size=BODY_BYTES_MAX)
    except zstandard.ZstdError as error:
        raise PeerError("FN-6402", reason="body") from error
    return plain
