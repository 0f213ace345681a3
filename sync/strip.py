"""Strip: a change's payload, key and salt go, its leaf stays, every proof still verifies. The erase that asks for it.

Rules
1. `strip` puts the leaf hash in the place of key, payload, base and salt. Stamp and kind stay: without the salt they
   tell nothing of what is gone. The surviving salts are written one by one, and the seed, from which all of them came,
   is destroyed.
2. Whoever strips seals the segment again, under a fresh key, to readers that it had before (`reseal`). Log, place, root
   and checkpoint stay as the origin signed them; the header names the sealer (`<node>/<incarnation>`) and says how many
   changes are stripped. Nobody seals again without stripping more.
3. Only who handled a segment may have sealed it again (`check_sealer`): the origin, whoever stands above it (what is
   stripped there comes down again to who carries it and cannot read), a standby of one of these; of what comes down
   from its origin, or is given back to that in a later life, who stands between that and the peer. A sealer that was
   revoked since is believed from the peers that came after it: they took it when it was in good standing, and a sealer
   can hide, not forge.
4. An erase is a change whose key is `<log>#<number>`, and never the record's own, and whose payload is
   `{"reason": ..., "v": 1}`. It stands in the eraser's log for the same dataset; the area of the log that it names lies
   in the eraser's scope. System logs and erases are not erased.

>>> from fednode.sync.change import UPSERT
>>> columns = Columns(1, [b"a", b"b"], [10, 11], bytes((UPSERT, UPSERT)), [b"{}", b"{}"], seed=bytes(32))
>>> gone = strip(columns, [0])
>>> gone.keys, gone.seed, leaf_hashes(gone) == leaf_hashes(columns), strip(gone, [0]) == gone
([b'', b'b'], b'', True, True)
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec

from fednode.crypto import canonical
from fednode.crypto.certs import Identity
from fednode.crypto.suite import suite as suite_of
from fednode.sync.change import ERASE, LOG_SIZE_MAX, SYSTEM_PREFIX, Change, Columns, LogName
from fednode.sync.errors import PeerError
from fednode.sync.identity import Directory, covers
from fednode.sync.segment import HASH_BYTES, Envelope, Header, Reader, Rng, encode_body, leaf_hashes, seal_again

REASON_MAX = 500
_SEALER = re.compile("(.+)/([1-9][0-9]{0,8})", re.DOTALL)  # node and incarnation


def strip(columns: Columns, positions: Iterable[int], suite: int = 1) -> Columns:
    """The columns without what stands at these positions, and at those that were stripped before."""
    count = len(columns)
    gone = set(positions) | columns.leaves.keys()
    if not gone or not gone <= set(range(count)):
        raise ValueError("strip needs positions of this segment")
    hashes = leaf_hashes(columns, suite)
    salts = columns.salts
    if not salts and not columns.leaves:
        stream = suite_of(suite).keystream(columns.seed, HASH_BYTES * count)
        salts = {i: stream[i * HASH_BYTES : (i + 1) * HASH_BYTES] for i in range(count)}
    bases = [0 if i in gone else base for i, base in enumerate(columns.bases)]
    return Columns(
        columns.schema_version,
        [b"" if i in gone else key for i, key in enumerate(columns.keys)],
        columns.hlcs,
        columns.ops,
        [b"" if i in gone else payload for i, payload in enumerate(columns.payloads)],
        b"",
        bases if any(bases) else [],
        {i: hashes[i] for i in sorted(gone)},
        {i: salts[i] for i in range(count) if i not in gone},
    )


def reseal(
    envelope: Envelope,
    columns: Columns,
    me: Identity,
    readers: Sequence[Reader],
    sign: Callable[[bytes], bytes],
    rng: Rng,
) -> tuple[bytes, bytes]:
    """Stripped columns in an envelope of their own: bytes and content key. `readers`: those of the envelope whose keys
    are still known."""
    sealer = f"{me.node}/{me.incarnation}"
    return seal_again(envelope, encode_body(columns), readers, sealer, len(columns.leaves), sign, rng)


# ---------------------------------------------------------------- who may have sealed


def life_named(sealer: str, directory: Directory) -> Identity | None:
    """Whom an envelope names as its sealer (`130102/1`), where that is known."""
    named = _SEALER.fullmatch(sealer)
    return directory.life(named[1], int(named[2])) if named else None


def sealer_of(header: Header, origin: Identity, directory: Directory) -> Identity:
    """Who signed the envelope. Raises PeerError FN-5419: re-sealed without reason, or by no name of a node; FN-5422:
    by nobody that is known here, yet or at all."""
    if not header.sealer and not header.stripped:
        return origin
    if not _SEALER.fullmatch(header.sealer) or not header.stripped or header.log.dataset.startswith(SYSTEM_PREFIX):
        raise PeerError("FN-5419", sealer=header.sealer, node=origin.node)
    sealer = life_named(header.sealer, directory)
    if sealer is None:
        raise PeerError("FN-5422", sealer=header.sealer, node=origin.node)
    return sealer


def check_sealer(header: Header, origin: Identity, peer: Identity, directory: Directory, *, from_parent: bool) -> None:
    """Rule 3. Raises PeerError FN-5419, FN-5422."""
    sealer = sealer_of(header, origin, directory)
    if sealer.node == origin.node:
        return
    above = [one.node for one in directory.path(origin.node)]
    to_peer = [one.node for one in directory.path(peer.node)]
    handled: list[str] = []
    if origin.node in to_peer[: None if from_parent else -1]:
        handled = to_peer[to_peer.index(origin.node) :]
    elif peer.node in above or peer.stands_for in above:
        handled = above
    entitled = sealer.node in handled or sealer.stands_for in handled
    if not entitled or (sealer.node == peer.node and directory.is_revoked(sealer.node)):
        raise PeerError("FN-5419", sealer=header.sealer, node=origin.node)


# ---------------------------------------------------------------- the erase


class _Erase(msgspec.Struct, forbid_unknown_fields=True):
    v: int
    reason: str


def erase_change(log: LogName, seq: int, reason: str) -> Change:
    """The change that erases change `seq` of a log."""
    payload: dict[str, Any] = {"v": 1, "reason": reason[:REASON_MAX]}
    return Change(place_key(log, seq), canonical.dumps(payload), ERASE)


def place_key(log: LogName, seq: int) -> bytes:
    """A change's place as text: `<log>#<number>`."""
    return f"{log}#{seq}".encode()


def erased_place(key: bytes, payload: bytes) -> tuple[LogName, int, str]:
    """Log, number and reason of an erase. Raises PeerError FN-6402 or FN-6410 for what is none."""
    try:
        log, mark, number = key.decode().rpartition("#")
        document = msgspec.json.decode(payload, type=_Erase)
    except (UnicodeDecodeError, msgspec.DecodeError) as error:
        raise PeerError("FN-6402", reason="erase") from error
    digits = number.isascii() and number.isdigit() and len(number) <= 16 and str(int(number)) == number
    if not mark or not digits or int(number) >= LOG_SIZE_MAX or document.v != 1 or len(document.reason) > REASON_MAX:
        raise PeerError("FN-6402", reason="erase")
    return LogName.parse(log), int(number), document.reason


def may_erase(eraser: Identity, log: LogName, dataset: str, directory: Directory) -> bool:
    """Whether a node's erase in its log of `dataset` may name changes of `log`. Of an origin that is not known nothing
    is held: its area will be looked at when it is."""
    if log.domain != eraser.domain or log.dataset != dataset or dataset.startswith(SYSTEM_PREFIX):
        return False
    origin = directory.get(log.origin)
    area = log.audience or (origin.scope[0] if origin else "")
    return not area or covers(eraser.scope, area)


def check_erase(eraser: Identity, carrier: LogName, key: bytes, payload: bytes, directory: Directory) -> None:
    """Gate 13 for an erase. Raises PeerError FN-5421 (not the eraser's to erase), FN-6402, FN-6410."""
    log, seq, _ = erased_place(key, payload)
    if not may_erase(eraser, log, carrier.dataset, directory):
        raise PeerError("FN-5421", node=eraser.node, log=str(log), seq=seq)
