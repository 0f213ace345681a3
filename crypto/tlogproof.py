"""Proof files (C2SP tlog-proof): a leaf's place in a log, the path to the root, and the signed checkpoint, in one text.

Rules
1. Lines: `c2sp.org/tlog-proof@v1`, `extra <base64>` where there is any, `index <decimal>`, the hashes of the path from
   the bottom in base64, an empty line, the checkpoint's note as it was signed.
2. One form: what `parse` takes, `format` gives back byte for byte. So a file in which anything was altered is another
   file, and a line that is not used by a check cannot hide in it.
3. Nothing is verified here. `extra` is covered by no signature of the log; `fednode.sync.proof_file` says what ours is.

>>> from fednode.crypto.note import Line
>>> note = Note("hebei/13/1/x\\n1\\n" + "A" * 43 + "=\\n", (Line("hebei/13", b"\\0\\0\\0\\1", b"s" * 64),))
>>> text = TlogProof(0, (), note, b"more").format()
>>> text.splitlines()[:3], parse(text.encode()).extra
(['c2sp.org/tlog-proof@v1', 'extra bW9yZQ==', 'index 0'], b'more')
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from fednode.crypto import note
from fednode.crypto.errors import IntegrityError
from fednode.crypto.merkle import HASH_BYTES, PROOF_HASHES_MAX
from fednode.crypto.note import Note

HEADER = "c2sp.org/tlog-proof@v1"
FILE_BYTES_MAX = 4 * 1024 * 1024  # the longest payload, in JSON and in base64, and room for certificates
_INDEX = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class TlogProof:
    """`hashes`: the path, from the leaf's sibling up. `extra`: bytes of the application's, empty for none."""

    index: int
    hashes: tuple[bytes, ...]
    checkpoint: Note
    extra: bytes = b""

    def format(self) -> str:
        """The file's text. Raises IntegrityError FN-6208 for a note that would not parse again."""
        lines = [HEADER, *([f"extra {_encode(self.extra)}"] if self.extra else []), f"index {self.index}"]
        return "\n".join([*lines, *map(_encode, self.hashes), "", ""]) + self.checkpoint.format()


def parse(data: bytes) -> TlogProof:
    """Raises IntegrityError FN-6220 (too large), FN-6221 (not a proof file), FN-6208 (its checkpoint is not a note)."""
    if len(data) > FILE_BYTES_MAX:
        raise IntegrityError("FN-6220", size=len(data), limit=FILE_BYTES_MAX)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise IntegrityError("FN-6221", reason="UTF-8") from error
    head, _, signed = text.partition("\n\n")
    lines = head.split("\n")
    if lines.pop(0) != HEADER:
        raise IntegrityError("FN-6221", reason=HEADER)
    extra = b""
    if lines and lines[0].startswith("extra "):
        extra = _decode(lines.pop(0).removeprefix("extra "), "extra")
        if not extra:
            raise IntegrityError("FN-6221", reason="extra")
    index = lines.pop(0).removeprefix("index ") if lines and lines[0].startswith("index ") else ""
    if not _INDEX.fullmatch(index):
        raise IntegrityError("FN-6221", reason="index")
    hashes = tuple(_decode(line, "hash") for line in lines[: PROOF_HASHES_MAX + 1])
    if len(hashes) > PROOF_HASHES_MAX or any(len(one) != HASH_BYTES for one in hashes):
        raise IntegrityError("FN-6221", reason="hash")
    return TlogProof(int(index), hashes, note.parse(signed), extra)


def _encode(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _decode(encoded: str, what: str) -> bytes:
    """Base64 in its one form."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError("FN-6221", reason=what) from error
    if _encode(data) != encoded:
        raise IntegrityError("FN-6221", reason=what)
    return data
