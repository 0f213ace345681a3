"""What makes the simulator fast. None of it changes what happens: the trace of a seed is the same with and without
(tests/sim/test_simulator.py).

`remembered`: pure functions that 31 nodes in one process ask the same again and again.
Databases are mapped (nobody flips a bit under SQLite's feet here), and a connection keeps its statements.
`light`: besides, a suite of the same sizes that hides nothing and binds nobody, for who looks at what nodes do and not
at cryptography. Whoever knows a public key can sign for it: a Byzantine node of the simulator must not.
"""

from __future__ import annotations

import gc
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from typing import Any
from unittest import mock

from fednode.crypto.errors import IntegrityError
from fednode.crypto.suite import Suite
from fednode.node import profile, sqlite
from fednode.sync import segment, wire
from fednode.sync.catalog import Catalog

TAG_BYTES = 16
ENC_BYTES = 32
MANY, FEW = 1 << 16, 1 << 13  # of each; few where nodes are so many that they seldom ask the same
STATEMENTS = 1_000
MAPPED_BYTES = 1 << 28


def _light_sign(seed: bytes, message: bytes) -> bytes:
    return hashlib.sha512(b"light" + Suite.public_of(seed) + message).digest()


def _light_verify(public: bytes, message: bytes, signature: bytes) -> None:
    Suite.check_public(public)
    if hashlib.sha512(b"light" + public + message).digest() != signature:
        raise IntegrityError("FN-6201")


def _tag(key: bytes, *parts: bytes) -> bytes:
    return hashlib.blake2b(b"".join(parts), key=key, digest_size=TAG_BYTES).digest()


def _light_seal(key: bytes, nonce: bytes, data: bytes, aad: bytes) -> bytes:
    return data + _tag(key, nonce, aad, data)


def _light_open(key: bytes, nonce: bytes, data: bytes, aad: bytes) -> bytes:
    plain, tag = data[:-TAG_BYTES], data[-TAG_BYTES:]
    if _tag(key, nonce, aad, plain) != tag:
        raise IntegrityError("FN-6204")
    return plain


def _light_hpke_seal(_self: Suite, public: bytes, info: bytes, plaintext: bytes) -> bytes:
    Suite.check_seal_public(public)
    return hashlib.sha256(info).digest() + plaintext + _tag(public, info, plaintext)


def _light_hpke_open(_self: Suite, private: bytes, info: bytes, sealed: bytes) -> bytes:
    plain, tag = sealed[ENC_BYTES:-TAG_BYTES], sealed[-TAG_BYTES:]
    if _tag(Suite.seal_public_of(private), info, plain) != tag:
        raise IntegrityError("FN-6204")
    return plain


def _light_keystream(seed: bytes, size: int) -> bytes:
    return hashlib.shake_128(seed).digest(size)


_LIGHT: dict[str, Any] = {
    "sign": staticmethod(_light_sign),
    "verify": staticmethod(_light_verify),
    "aead_seal": staticmethod(_light_seal),
    "aead_open": staticmethod(_light_open),
    "hpke_seal": _light_hpke_seal,
    "hpke_open": _light_hpke_open,
    "keystream": staticmethod(_light_keystream),
}
_PURE: tuple[tuple[Any, str, bool], ...] = (  # where, what, whether it is a static method
    (Suite, "verify", True),
    (Suite, "keystream", True),
    (Catalog, "from_json", True),
    (segment, "parse", False),
    (segment, "_plain", False),
    (segment, "decode_leaves", False),
    (wire, "decode", False),
    (profile, "memory_bytes", False),
)
_connect = sqlite.sqlite3.connect
_in_force = [""]


def _mapped(*place: Any, **settings: Any) -> Any:
    connection = _connect(*place, **{**settings, "cached_statements": STATEMENTS})
    connection.execute(f"pragma mmap_size={MAPPED_BYTES}")
    return connection


def mode() -> str:
    """ "light", or "": stores that were written in one cannot be read in the other."""
    return _in_force[-1]


@contextmanager
def remembered(answers: int = MANY) -> Iterator[None]:
    """Pure functions remember what they have said, so many answers each. Errors are not remembered; nothing is, beyond
    this."""
    with ExitStack() as patches:
        for where, name, static in _PURE:
            known: Callable[..., Any] = lru_cache(maxsize=answers)(getattr(where, name))
            patches.callback(known.cache_clear)  # type: ignore[attr-defined]
            patches.enter_context(mock.patch.object(where, name, staticmethod(known) if static else known))
        yield


@contextmanager
def quickly(*, light: bool = False, answers: int = MANY) -> Iterator[None]:
    """All of it, as long as the block lasts."""
    collects = gc.isenabled()
    gc.disable()
    with ExitStack() as patches:
        for name, what in _LIGHT.items() if light else ():
            patches.enter_context(mock.patch.object(Suite, name, what))
        patches.enter_context(remembered(answers))
        patches.enter_context(mock.patch.object(sqlite.sqlite3, "connect", _mapped))
        _in_force.append("light" if light else "")
        try:
            yield
        finally:
            _in_force.pop()
            gc.unfreeze()
            if collects:
                gc.enable()
