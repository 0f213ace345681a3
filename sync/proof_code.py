"""A proof file as the text of one QR code, for paper. Pure.

Rules
1. `FNP1:` and base45 (RFC 9285), which a QR code packs tightly and every reader of QR codes gives back as text, of
   zlib (RFC 1950) of: index u64, number of hashes u8, the hashes, length of the extra u32, the extra, the checkpoint's
   note. Base64 inside base64, as the file has it, would not fit.
2. `from_code` gives back the very bytes of the file, or refuses. Limits hold before anything is unpacked.
3. A file of more than about 2,860 packed bytes does not fit in one code; `to_code` says so by None, and `reference`
   names the file instead.

>>> base45_decode(base45_encode(b"Hello!!")), base45_encode(b"AB")
(b'Hello!!', 'BB8')
"""

from __future__ import annotations

import base64
import zlib
from struct import Struct, error

from fednode.crypto import note, tlogproof
from fednode.crypto.errors import IntegrityError
from fednode.crypto.merkle import HASH_BYTES
from fednode.crypto.suite import SUITE_1
from fednode.crypto.tlogproof import FILE_BYTES_MAX, TlogProof
from fednode.sync.proof_file import Checked

PREFIX = "FNP1:"
CODE_CHARACTERS_MAX = 4296  # QR version 40, level L, alphanumeric (ISO/IEC 18004 table 7)
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_INDEX, _LENGTH = Struct(">QB"), Struct(">I")


def base45_encode(data: bytes) -> str:
    """RFC 9285: two bytes in three characters, a last one in two."""
    out = []
    for at in range(0, len(data), 2):
        pair = data[at : at + 2]
        value = int.from_bytes(pair, "big")
        for _ in range(len(pair) + 1):
            value, digit = divmod(value, 45)
            out.append(_ALPHABET[digit])
    return "".join(out)


def base45_decode(text: str) -> bytes:
    """Raises ValueError."""
    out = bytearray()
    for at in range(0, len(text), 3):
        group = text[at : at + 3]
        try:
            value = sum(_VALUES[character] * 45**i for i, character in enumerate(group))
            out += value.to_bytes(len(group) - 1, "big")
        except (KeyError, OverflowError) as wrong:
            raise ValueError("base45") from wrong
        if len(group) == 1:
            raise ValueError("base45")
    return bytes(out)


def to_code(data: bytes) -> str | None:
    """The text of a QR code that holds a proof file whole; None when it is too long for one."""
    file = tlogproof.parse(data)
    body = _INDEX.pack(file.index, len(file.hashes)) + b"".join(file.hashes)
    body += _LENGTH.pack(len(file.extra)) + file.extra + file.checkpoint.format().encode()
    code = PREFIX + base45_encode(zlib.compress(body, 9))
    return code if len(code) <= CODE_CHARACTERS_MAX else None


def from_code(text: str) -> bytes:
    """The proof file in a code. Raises IntegrityError FN-6221."""
    try:
        if not text.startswith(PREFIX) or len(text) > CODE_CHARACTERS_MAX:
            raise ValueError("length")
        unpack = zlib.decompressobj()
        body = unpack.decompress(base45_decode(text.removeprefix(PREFIX)), FILE_BYTES_MAX)
        if not unpack.eof or unpack.unused_data:
            raise ValueError("zlib")
        index, count = _INDEX.unpack_from(body)
        at = _INDEX.size + count * HASH_BYTES
        hashes = tuple(body[i : i + HASH_BYTES] for i in range(_INDEX.size, at, HASH_BYTES))
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        extra, signed = body[at : at + length], body[at + length :].decode()
        data = TlogProof(index, hashes, note.parse(signed), extra).format().encode()
        tlogproof.parse(data)
    except (ValueError, error, zlib.error, IntegrityError) as wrong:
        raise IntegrityError("FN-6221", reason="QR code") from wrong
    return data


def reference(data: bytes, checked: Checked) -> str:
    """The text of a QR code that names a proof file: where the record stands, the checkpoint, the file's hash."""
    root = base64.b64encode(checked.head.root).decode()
    lines = ("fednode proof", str(checked.log), f"{checked.index} {checked.head.size}", root)
    return "\n".join([*lines, f"sha256 {SUITE_1.hash(data).hex()}"])
