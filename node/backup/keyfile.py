"""The recovery key: what backups are sealed to. Its private half lives offline, in a file of its own.

Rules
1. The file is PKCS #8 in PEM, under a passphrase where one is given, with lines of text before it (RFC 7468 allows
   them): whose trust domain it is for, and the root's SHA-256. So who restores on an empty machine knows whom to
   believe with nothing else at hand.
2. The node keeps the public half alone, in its settings (`[backup] key`): it cannot read its own backups.

>>> made = RecoveryKey(SealKey.from_seed(bytes(31) + b"\\x01"), "hebei", bytes(32))
>>> parse(made.to_file(b"secret"), b"secret") == made
True
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from fednode.crypto.keys import SealKey
from fednode.node import stick
from fednode.sync.backup import encode_key
from fednode.sync.errors import Refused

FILE_BYTES_MAX = 16 * 1024
_TEXT = re.compile(
    r"fednode recovery key 1\ndomain ([a-z0-9-]{1,32})\nroot ([0-9a-f]{64})\nkey (\S+)\n\n(-----BEGIN .*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class RecoveryKey:
    """`root_sha256`: the root that whoever restores believes."""

    key: SealKey
    domain: str
    root_sha256: bytes

    @property
    def text(self) -> str:
        """The public half, as it stands in the settings."""
        return encode_key(self.key.public)

    def to_file(self, passphrase: bytes | None) -> bytes:
        head = f"fednode recovery key 1\ndomain {self.domain}\nroot {self.root_sha256.hex()}\nkey {self.text}\n\n"
        return head.encode() + self.key.to_pem(passphrase)


def parse(data: bytes, passphrase: bytes | None) -> RecoveryKey:
    """Raises Refused FN-2743 for another file, FednodeError FN-7615 (the passphrase)."""
    match = _TEXT.fullmatch(data.decode("ascii", errors="replace").replace("\r\n", "\n"))
    if match is None:
        raise Refused("FN-2743")
    found = RecoveryKey(SealKey.from_pem(match[4].encode(), passphrase), match[1], bytes.fromhex(match[2]))
    if found.text != match[3]:
        raise Refused("FN-2743")
    return found


def read(path: Path, passphrase: bytes | None) -> RecoveryKey:
    """Raises as `parse`, and StoreError FN-7651, Refused FN-3505 for what is no file."""
    with stick.opened(path) as file:
        return parse(file.read(FILE_BYTES_MAX), passphrase)
