"""A succession that is granted in advance and kept offline: for the day on which the issuer cannot be asked. Pure.

Rules
1. What is granted is a certificate: the primary's name, in the next incarnation, with the standby's keys. It opens to
   nobody else, for it is sealed to the standby; and not to the standby alone, for it is sealed under a code, too,
   which another person keeps.
2. The head stands in clear, for whoever looks which of several files it is; it is bound to what is sealed.
3. The code is 128 random bits with a check, in base32: it is read out over the phone. A wrong one opens nothing.

>>> code = code_of(bytes(16)); code, secret_of(code.lower().replace("-", " ")) == bytes(16)
('AAAAA-AAAAA-AAAAA-AAAAA-AAAAA-AM4TB', True)
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from dataclasses import dataclass

from fednode.crypto import seal
from fednode.crypto.errors import IntegrityError
from fednode.crypto.keys import SealKey
from fednode.crypto.suite import SUITE_1
from fednode.sync.errors import Refused

SECRET_BYTES = 16
CHECK_CHARACTERS = 4
GROUP = 5
FILE_BYTES_MAX = 64 * 1024
LINE = 76
_CODE = b"fednode grant code v1\n"
_TEXT = re.compile(
    r"fednode grant 1\ndomain ([a-z0-9-]{1,32})\nprimary (\S{1,64})\nincarnation ([0-9]{1,9})\nstandby (\S{1,64})\n"
    r"issuer (\S{1,64})\nmade ([0-9]{1,12})\nvalid-to ([0-9]{1,12})\nkey ([0-9a-f]{16})\n\n([A-Za-z0-9+/=\n]+)"
)


@dataclass(frozen=True, slots=True)
class Head:
    """Who may take which name, in which incarnation; times in Unix seconds. `key_id`: of the standby's sealing key."""

    domain: str
    primary: str
    incarnation: int
    standby: str
    issuer: str
    made_s: int
    valid_to_s: int
    key_id: bytes

    @property
    def text(self) -> bytes:
        lines = (
            "fednode grant 1",
            f"domain {self.domain}",
            f"primary {self.primary}",
            f"incarnation {self.incarnation}",
            f"standby {self.standby}",
            f"issuer {self.issuer}",
            f"made {self.made_s}",
            f"valid-to {self.valid_to_s}",
            f"key {self.key_id.hex()}",
        )
        return "".join(f"{line}\n" for line in lines).encode()


def code_of(secret: bytes) -> str:
    """The code in groups, as it is written down."""
    text = base64.b32encode(secret).decode().rstrip("=")
    text += base64.b32encode(SUITE_1.hash(_CODE + secret)).decode()[:CHECK_CHARACTERS]
    return "-".join(text[i : i + GROUP] for i in range(0, len(text), GROUP))


def secret_of(code: str) -> bytes:
    """Raises Refused FN-3120: a slip of the pen."""
    text = re.sub(r"[\s-]", "", code).upper()
    try:
        secret = base64.b32decode(text[:-CHECK_CHARACTERS] + "=" * (-len(text[:-CHECK_CHARACTERS]) % 8))
    except ValueError as error:  # binascii.Error is one
        raise Refused("FN-3120") from error
    if len(secret) != SECRET_BYTES or code_of(secret).replace("-", "") != text:
        raise Refused("FN-3120")
    return secret


def lock(head: Head, certificate: bytes, public: bytes, secret: bytes, rng: Callable[[int], bytes]) -> bytes:
    """The file. `public`: the standby's sealing key; `secret`: of the code."""
    inner = seal.seal_body(certificate, head.text, (), _key(head, secret), SUITE_1)
    body = inner.commit + inner.ciphertext
    outer = seal.seal_body(body, head.text, [(head.key_id, public)], rng(seal.KEY_BYTES), SUITE_1)
    text = base64.b64encode(outer.commit + outer.wraps[0] + outer.ciphertext).decode()
    return head.text + b"\n" + "".join(f"{text[i : i + LINE]}\n" for i in range(0, len(text), LINE)).encode()


def read(data: bytes) -> tuple[Head, bytes]:
    """The head, and what is sealed. Raises Refused FN-3121: no such file."""
    match = _TEXT.fullmatch(data[:FILE_BYTES_MAX].decode("ascii", errors="replace").replace("\r\n", "\n"))
    if match is None or len(data) > FILE_BYTES_MAX:
        raise Refused("FN-3121")
    domain, primary, incarnation, standby, issuer, made, valid_to, key_id, text = match.groups()
    head = Head(
        *(domain, primary, int(incarnation), standby, issuer, int(made), int(valid_to), bytes.fromhex(key_id)),
    )
    try:
        return head, base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error as error:
        raise Refused("FN-3121") from error


def unlock(head: Head, sealed: bytes, key: SealKey, secret: bytes) -> bytes:
    """The certificate. Raises Refused FN-3122 (sealed to another key), IntegrityError FN-6204 (another code, or altered
    bytes)."""
    if key.key_id != head.key_id:
        raise Refused("FN-3122", standby=head.standby)
    size = seal.KEY_BYTES
    commit, wrap, rest = sealed[:size], sealed[size : size + seal.WRAP_BYTES], sealed[size + seal.WRAP_BYTES :]
    body = seal.open_with_key(commit, rest, head.text, seal.unwrap(key.private, wrap, head.text, SUITE_1), SUITE_1)
    if len(body) < size:
        raise IntegrityError("FN-6204")
    return seal.open_with_key(body[:size], body[size:], head.text, _key(head, secret), SUITE_1)


def _key(head: Head, secret: bytes) -> bytes:
    return SUITE_1.hkdf(secret, SUITE_1.hash(head.text), _CODE, seal.KEY_BYTES)
