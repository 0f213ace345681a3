"""A proof file as the text of one QR code, for paper. Pure.

Rules
1. `FNP1:` and base45 (RFC 9285), which a QR code packs tightly and every reader of QR codes gives back as text, of
   zlib (RFC 1950) of: index u64, number of hashes u8, the hashes, length of the extra u32, the extra, the checkpoint's
   note. Base64 inside base64, as the file has it, would not fit.
2. `FNP2:` is the same with the certificates taken out of the extra, which keeps an empty list of them, and put after
   the hashes: their number u8, then each with its length u16. As DER they have much in common with each other, as
   base64 nothing. `to_code` writes it where the first form is too long: release 0.1 reads only that one.
3. `from_code` gives back the very bytes of the file, or refuses. Limits hold before anything is unpacked.
4. A file of more than about 2,860 packed bytes does not fit in one code; `to_code` says so by None, and `reference`
   names the file instead.

>>> base45_decode(base45_encode(b"Hello!!")), base45_encode(b"AB")
(b'Hello!!', 'BB8')
"""

from __future__ import annotations

import base64
import zlib
from struct import Struct, error

from fednode.crypto import canonical, note, tlogproof
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.merkle import HASH_BYTES
from fednode.crypto.suite import SUITE_1
from fednode.crypto.tlogproof import FILE_BYTES_MAX, TlogProof
from fednode.sync.proof_file import Checked

PREFIX, PREFIX_2 = "FNP1:", "FNP2:"
CODE_CHARACTERS_MAX = 4296  # QR version 40, level L, alphanumeric (ISO/IEC 18004 table 7)
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ $%*+-./:"
_VALUES = {character: value for value, character in enumerate(_ALPHABET)}
_INDEX, _LENGTH, _COUNT, _SHORT = Struct(">QB"), Struct(">I"), Struct(">B"), Struct(">H")


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


def is_code(data: bytes) -> bool:
    """Whether this is the text of such a code, not a proof file."""
    return data.startswith((PREFIX.encode(), PREFIX_2.encode()))


def to_code(data: bytes) -> str | None:
    """The text of a QR code that holds a proof file whole; None when it is too long for one."""
    file = tlogproof.parse(data)
    begin = _INDEX.pack(file.index, len(file.hashes)) + b"".join(file.hashes)
    end = file.checkpoint.format().encode()
    code = PREFIX + _packed(begin, file.extra, end)
    if len(code) > CODE_CHARACTERS_MAX:
        try:
            certificates, extra = _taken_out(file.extra)
        except (FednodeError, ValueError, KeyError, TypeError):  # not one of ours
            return None
        begin += _COUNT.pack(len(certificates)) + b"".join(_SHORT.pack(len(one)) + one for one in certificates)
        code = PREFIX_2 + _packed(begin, extra, end)
    return code if len(code) <= CODE_CHARACTERS_MAX and from_code(code) == data else None


def _packed(begin: bytes, extra: bytes, end: bytes) -> str:
    return base45_encode(zlib.compress(begin + _LENGTH.pack(len(extra)) + extra + end, 9))


def _taken_out(extra: bytes) -> tuple[list[bytes], bytes]:
    document = canonical.loads(extra)
    certificates = [base64.b64decode(one) for one in document["certificates"]]
    return certificates, canonical.dumps({**document, "certificates": []})


def _put_back(certificates: list[bytes], extra: bytes) -> bytes:
    document = canonical.loads(extra)
    if not isinstance(document, dict):
        raise ValueError("extra")
    return canonical.dumps({**document, "certificates": [base64.b64encode(one).decode() for one in certificates]})


def from_code(text: str) -> bytes:
    """The proof file in a code. Raises IntegrityError FN-6221."""
    try:
        if not is_code(text[: len(PREFIX)].encode(errors="replace")) or len(text) > CODE_CHARACTERS_MAX:
            raise ValueError("length")
        unpack = zlib.decompressobj()
        body = unpack.decompress(base45_decode(text[len(PREFIX) :]), FILE_BYTES_MAX)
        if not unpack.eof or unpack.unused_data:
            raise ValueError("zlib")
        index, count = _INDEX.unpack_from(body)
        at = _INDEX.size + count * HASH_BYTES
        hashes = tuple(body[i : i + HASH_BYTES] for i in range(_INDEX.size, at, HASH_BYTES))
        certificates: list[bytes] = []
        if text.startswith(PREFIX_2):
            at = _certificates(body, at, certificates)
        (length,) = _LENGTH.unpack_from(body, at)
        at += _LENGTH.size
        extra, signed = body[at : at + length], body[at + length :].decode()
        if text.startswith(PREFIX_2):
            extra = _put_back(certificates, extra)
        data = TlogProof(index, hashes, note.parse(signed), extra).format().encode()
        tlogproof.parse(data)
    except (ValueError, RecursionError, error, zlib.error, FednodeError) as wrong:
        raise IntegrityError("FN-6221", reason="QR code") from wrong
    return data


def _certificates(body: bytes, at: int, into: list[bytes]) -> int:
    """Read them; where what follows begins."""
    (count,) = _COUNT.unpack_from(body, at)
    at += _COUNT.size
    for _ in range(count):
        (size,) = _SHORT.unpack_from(body, at)
        at += _SHORT.size + size
        into.append(body[at - size : at])
    return at


def reference(data: bytes, checked: Checked) -> str:
    """The text of a QR code that names a proof file: where the record stands, the checkpoint, the file's hash."""
    root = base64.b64encode(checked.head.root).decode()
    lines = ("fednode proof", str(checked.log), f"{checked.index} {checked.head.size}", root)
    return "\n".join([*lines, f"sha256 {SUITE_1.hash(data).hex()}"])
