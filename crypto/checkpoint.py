"""Checkpoints (C2SP tlog-checkpoint) and cosignatures (C2SP tlog-cosignature): who says how large a log is, and its
root.

Rules
1. A checkpoint is the text `<origin>\\n<size>\\n<base64(root)>\\n`, signed as a note by the log's writer, whose key
   name is the log's `<domain>/<node>`.
2. A cosignature signs `cosignature/v1\\ntime <seconds>\\n` and that very text: the witness saw this head, and had
   proved it consistent with the one before.
3. In a segment only the 64 bytes of the signature travel: origin, size and root are in its header already.

>>> head = Checkpoint("hebei/13/1/sys.nodes", 3, bytes(32))
>>> head.text().splitlines()[:2]
['hebei/13/1/sys.nodes', '3']
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import dataclass

from fednode.crypto import note
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SigningKey
from fednode.crypto.suite import SUITE_1

_SIZE = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: the log's name, the number of its leaves, its root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """The note's text: what is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def signature(head: Checkpoint, key: SigningKey) -> bytes:
    """The origin's signature, 64 bytes."""
    return key.sign(head.text().encode())


def verify_signature(head: Checkpoint, public: bytes, signed: bytes) -> None:
    """Raises IntegrityError FN-6201."""
    SUITE_1.verify(public, head.text().encode(), signed)


def cosign(head: Checkpoint, key: SigningKey, time_s: int) -> bytes:
    """A witness's signature made at `time_s` (Unix seconds), 64 bytes."""
    return key.sign(note.cosigned(head.text(), time_s))


def verify_cosignature(head: Checkpoint, public: bytes, time_s: int, signed: bytes) -> None:
    """Raises IntegrityError FN-6201."""
    SUITE_1.verify(public, note.cosigned(head.text(), time_s), signed)


# ---------------------------------------------------------------- as a note


@dataclass(frozen=True, slots=True)
class Cosigner:
    """A witness's name, raw public key, time and signature."""

    name: str
    public: bytes
    time_s: int
    signature: bytes


def to_note(head: Checkpoint, name: str, public: bytes, signed: bytes, cosigners: Sequence[Cosigner] = ()) -> str:
    """The checkpoint as a signed note, for tools that are not ours. `name`: the writer's `<domain>/<node>`."""
    lines = [note.Line(name, note.key_id(name, note.ED25519, public), signed)]
    for one in cosigners:
        stamped = one.time_s.to_bytes(8, "big") + one.signature
        lines.append(note.Line(one.name, note.key_id(one.name, note.COSIGNATURE, one.public), stamped))
    return note.Note(head.text(), tuple(lines)).format()


def from_text(text: str) -> Checkpoint:
    """A checkpoint's text; extension lines are allowed and ignored. Raises IntegrityError FN-6208."""
    lines = text.split("\n")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (IndexError, ValueError) as error:
        raise IntegrityError("FN-6208", reason="checkpoint") from error
    if not all(lines[:-1]) or lines[-1] or not _SIZE.fullmatch(lines[1]) or len(root) != 32:
        raise IntegrityError("FN-6208", reason="checkpoint")
    head = Checkpoint(lines[0], int(lines[1]), root)
    if not text.startswith(head.text()):  # base64 has other spellings of the same root
        raise IntegrityError("FN-6208", reason="checkpoint")
    return head


def from_note(text: str) -> tuple[Checkpoint, note.Note]:
    """The checkpoint in a note, not yet verified, and the note. Raises IntegrityError FN-6208."""
    parsed = note.parse(text)
    return from_text(parsed.text), parsed


def find_cosignature(parsed: note.Note, name: str, public: bytes) -> Cosigner | None:
    """A witness's cosignature out of a note, not yet verified."""
    wanted = note.key_id(name, note.COSIGNATURE, public)
    for line in parsed.lines:
        if line.name == name and line.key_id == wanted and len(line.signature) == 72:
            return Cosigner(name, public, int.from_bytes(line.signature[:8], "big"), line.signature[8:])
    return None
