"""Signed notes (C2SP signed-note v1.0.0): a text, and lines of signatures under it. Third-party tools read these.

Rules
1. A note is a text that ends in a newline, an empty line, and one or more lines `— <name> <base64(key id ||
   signature)>`.
2. A key id is the first 4 bytes of SHA-256(name || "\\n" || type || public key): type 0x01 is Ed25519, 0x04 a
   timestamped cosignature (C2SP tlog-cosignature). The signature of type 0x04 is the time (u64) and the Ed25519
   signature.
3. Lines of keys that are not known are left alone, not errors. Every line of a known key must verify.
4. One form: what `parse` takes, `format` gives back byte for byte, and `format` makes nothing that `parse` refuses.

>>> note = Note("text\\n", (Line("hebei/13", b"\\0\\0\\0\\1", b"s" * 64),))
>>> parse(note.format()) == note
True
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass

from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import SUITE_1

ED25519, COSIGNATURE = 0x01, 0x04
NOTE_BYTES_MAX = 64 * 1024
LINES_MAX = 100
KEY_BYTES = 32
TIME_MAX_S = 2**63 - 1
_DASH = "\u2014 "
_CONTROL = re.compile("[\x00-\t\x0b-\x1f]")  # all but the line feed


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
        """The note as it is published. Raises IntegrityError FN-6208 for what would not parse again."""
        formatted = self.text + "\n" + "".join(line.format() for line in self.lines)
        if parse(formatted) != self:
            raise IntegrityError("FN-6208", reason="form")
        return formatted


def key_id(name: str, kind: int, public: bytes) -> bytes:
    """The 4-byte id of a key under a name."""
    return SUITE_1.hash(name.encode() + b"\n" + bytes((kind,)) + public)[:4]


def verifier_key(name: str, kind: int, public: bytes) -> str:
    """The key as verifiers take it (vkey): `<name>+<id in hex>+<base64(type || public key)>`."""
    encoded = base64.b64encode(bytes((kind,)) + public).decode()
    return f"{name}+{key_id(name, kind, public).hex()}+{encoded}"


def parse_verifier_key(text: str) -> tuple[str, int, bytes]:
    """(name, type, public key) of a vkey. Raises IntegrityError FN-6208, FN-6205 (a key that must not be used)."""
    name, _, rest = text.partition("+")
    given, _, encoded = rest.partition("+")
    data = _decode(encoded)
    if not _is_name(name) or not _is_text(name) or len(data) != 1 + KEY_BYTES or data[0] not in (ED25519, COSIGNATURE):
        raise IntegrityError("FN-6208", reason="verifier key")
    if key_id(name, data[0], data[1:]).hex() != given:
        raise IntegrityError("FN-6208", reason="key id")
    SUITE_1.check_public(data[1:])
    return name, data[0], data[1:]


def parse(text: str) -> Note:
    """Raises IntegrityError FN-6208 for what is not a note."""
    cut = text.rfind("\n\n")
    try:
        size = len(text.encode())
    except UnicodeEncodeError as error:
        raise IntegrityError("FN-6208", reason="UTF-8") from error
    if cut < 0 or size > NOTE_BYTES_MAX or not text.endswith("\n"):
        raise IntegrityError("FN-6208", reason="form")
    body, rest = text[: cut + 1], text[cut + 2 :]
    if _CONTROL.search(text):
        raise IntegrityError("FN-6208", reason="control character")
    lines = rest.split("\n")[:-1]
    if not 1 <= len(lines) <= LINES_MAX:
        raise IntegrityError("FN-6208", reason="signatures")
    return Note(body, tuple(map(_line, lines)))


def _line(line: str) -> Line:
    name, _, encoded = line.removeprefix(_DASH).partition(" ")
    data = _decode(encoded)
    if not line.startswith(_DASH) or not _is_name(name) or len(data) < 5:
        raise IntegrityError("FN-6208", reason="signature")
    return Line(name, data[:4], data[4:])


def verify(note: Note, name: str, public: bytes) -> None:
    """That the note carries an Ed25519 signature by this key. Raises IntegrityError FN-6201."""
    for signature in _by(note, name, ED25519, public):
        SUITE_1.verify(public, note.text.encode(), signature)


def verify_cosignature(note: Note, name: str, public: bytes) -> int:
    """That the note carries a cosignature by this witness; its time (the latest, if there are several).

    Raises IntegrityError FN-6201."""
    times = []
    for stamped in _by(note, name, COSIGNATURE, public):
        time_s = int.from_bytes(stamped[:8], "big")
        if time_s > TIME_MAX_S:
            raise IntegrityError("FN-6201")
        SUITE_1.verify(public, cosigned(note.text, time_s), stamped[8:])
        times.append(time_s)
    return max(times)


def cosigned(text: str, time_s: int) -> bytes:
    """What a witness signs (C2SP tlog-cosignature)."""
    return f"cosignature/v1\ntime {time_s}\n{text}".encode()


def _by(note: Note, name: str, kind: int, public: bytes) -> list[bytes]:
    """The signatures that say they are by this key: one at least."""
    wanted = key_id(name, kind, public)
    found = [line.signature for line in note.lines if line.name == name and line.key_id == wanted]
    if not found:
        raise IntegrityError("FN-6201")
    return found


def _is_name(name: str) -> bool:
    return bool(name) and "+" not in name and not any(map(str.isspace, name))


def _is_text(name: str) -> bool:
    """Whether it can be written: half a surrogate pair cannot."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def _decode(encoded: str) -> bytes:
    """Base64 in its one form: other bits in the padding would make a second note of the same meaning."""
    try:
        data = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise IntegrityError("FN-6208", reason="base64") from error
    if base64.b64encode(data).decode() != encoded:
        raise IntegrityError("FN-6208", reason="base64")
    return data
