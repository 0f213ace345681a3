"""Signed notes (C2SP signed-note v1.0.0): a text, and lines of signatures under it. Third-party tools read these.

Rules
1. A note is a text that ends in a newline, an empty line, and one or more lines `— <name> <base64(key id ||
   signature)>`.
2. A key id is the first 4 bytes of SHA-256(name || "\\n" || type || public key): type 0x01 is Ed25519, 0x04 a
   timestamped cosignature (C2SP tlog-cosignature). The signature of type 0x04 is the time (u64) and the Ed25519
   signature.
3. Lines of keys that are not known are left alone, not errors.

>>> note = Note("text\\n", (Line("hebei/13", b"\\0\\0\\0\\1", b"s" * 64),))
>>> parse(note.format()) == note
True
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1

ED25519, COSIGNATURE = 0x01, 0x04
NOTE_BYTES_MAX = 64 * 1024
LINES_MAX = 100
_DASH = "\u2014 "


@dataclass(frozen=True, slots=True)
class Line:
    """One signature. `key_id`: 4 bytes."""

    name: str
    key_id: bytes
    signature: bytes

    def format(self) -> str:
        return f"{_DASH}{self.name} {base64.b64encode(self.key_id + self.signature).decode()}\n"


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    lines: tuple[Line, ...]

    def format(self) -> str:
        return self.text + "\n" + "".join(line.format() for line in self.lines)


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The 4-byte id of a key under a name."""
    return SUITE_1.hash(name.encode() + b"\n" + bytes((kind,)) + public)[:4]


def verifier_key(name: str, kind: int, public: bytes) -> str:
    """The key as verifiers take it (vkey): `<name>+<id in hex>+<base64(type || public key)>`."""
    encoded = base64.b64encode(bytes((kind,)) + public).decode()
    return f"{name}+{key_id(name, kind, public).hex()}+{encoded}"


def parse_verifier_key(text: str) -> tuple[str, int, bytes]:
    """(name, type, public key) of a vkey. Raises IntegrityError FN-6208."""
    try:
        name, given, encoded = text.split("+", 2)
        data = base64.b64decode(encoded, validate=True)
        kind, public = data[0], data[1:]
    except (ValueError, IndexError) as error:
        raise IntegrityError("FN-6208", reason="verifier key") from error
    if key_id(name, kind, public).hex() != given:
        raise IntegrityError("FN-6208", reason="key id")
    return name, kind, public


def parse(text: str) -> Note:
    """Raises IntegrityError FN-6208 for what is not a note."""
    cut = text.rfind("\n\n")
    if cut < 0 or len(text) > NOTE_BYTES_MAX or not text.endswith("\n"):
        raise IntegrityError("FN-6208", reason="form")
    body, rest = text[: cut + 1], text[cut + 2 :]
    if any(ord(character) < 0x20 and character != "\n" for character in text):
        raise IntegrityError("FN-6208", reason="control character")
    lines = rest.split("\n")[:-1]
    if not 1 <= len(lines) <= LINES_MAX:
        raise IntegrityError("FN-6208", reason="signatures")
    return Note(body, tuple(map(_line, lines)))


def _line(line: str) -> Line:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    try:
        data = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise IntegrityError("FN-6208", reason="signature") from error
    if not line.startswith(_DASH) or not name or "+" in name or len(data) < 5:
        raise IntegrityError("FN-6208", reason="signature")
    return Line(name, data[:4], data[4:])


def verify(note: Note, name: str, public: bytes) -> None:
    """That the note carries an Ed25519 signature by this key. Raises IntegrityError FN-6201."""
    wanted = key_id(name, ED25519, public)
    for line in note.lines:
        if line.name == name and line.key_id == wanted:
            SUITE_1.verify(public, note.text.encode(), line.signature)
            return
    raise IntegrityError("FN-6201")
