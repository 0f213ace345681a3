"""Changes, names of logs, and the columns that a segment holds.

Rules
1. A change is one upsert, delete or erase of a record. It is immutable; its place is (log, sequence number).
2. A log's name says who wrote it, in which life, of which dataset, for whom. The *area* of all its changes is the
   audience's
   area, or else the origin's own: a record is identified by (dataset, area, key), so nobody writes over a sibling's.
3. Columns hold one entry for each change. Stamps rise strictly within a log.

>>> name = LogName.parse("hebei/130102/1/admin-licence@130102001001")
>>> name.origin, name.incarnation, name.dataset, name.audience
('130102', 1, 'admin-licence', '130102001001')
>>> str(name)
'hebei/130102/1/admin-licence@130102001001'
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from fednode.sync.errors import PeerError

UPSERT, DELETE, ERASE = 1, 2, 3
OPS = frozenset((UPSERT, DELETE, ERASE))
JUST_BEFORE = -1  # as a base

KEY_BYTES_MAX = 1024
PAYLOAD_BYTES_MAX = 1024 * 1024
SEGMENT_CHANGES_MAX = 5_000
LOG_SIZE_MAX = 1 << 53

NODES = "sys.nodes"
CATALOG = "sys.catalog"
AUDIT = "sys.audit"
ALERTS = "sys.alerts"
RECEIPTS = "sys.receipts"
SYSTEM_PREFIX = "sys."
OF_ITSELF = frozenset((AUDIT, ALERTS, RECEIPTS))  # what every node writes of itself, a standby nothing else
OPEN_DATASETS = (NODES, CATALOG)

_NAME = re.compile(
    r"(?P<domain>[a-z0-9-]{1,32})/(?P<origin>[A-Za-z0-9._-]{1,64})/(?P<incarnation>[1-9][0-9]{0,8})"
    r"/(?P<dataset>[a-z][a-z0-9.-]{0,63})(?:@(?P<audience>[0-9]{2,12}))?"
)


@dataclass(frozen=True, slots=True)
class LogName:
    """The name of a log; also the origin line of its checkpoints."""

    domain: str
    origin: str
    incarnation: int
    dataset: str
    audience: str = ""

    def __str__(self) -> str:
        tail = f"@{self.audience}" if self.audience else ""
        return f"{self.domain}/{self.origin}/{self.incarnation}/{self.dataset}{tail}"

    @classmethod
    def parse(cls, text: str) -> LogName:
        """Raises PeerError FN-6410 for anything that is not exactly a log name."""
        return _parsed(text)

    @property
    def signer(self) -> str:
        """The name of the key that signs the log's checkpoints: `<domain>/<node>`."""
        return f"{self.domain}/{self.origin}"

    @property
    def is_open(self) -> bool:
        """Whether everyone reads it: signed, not sealed, and believed by `node.trust` as soon as it is appended."""
        return self.dataset in OPEN_DATASETS

    @property
    def is_system(self) -> bool:
        """Whether it is about the mesh itself (nodes, catalog, audit, alerts), not about records."""
        return self.dataset.startswith(SYSTEM_PREFIX)


@lru_cache(maxsize=8192)  # each row of a log and each header has one, the same all the time
def _parsed(text: str) -> LogName:
    match = _NAME.fullmatch(text)
    if match is None:
        raise PeerError("FN-6410", log=text[:200])
    parts = match.groupdict()
    return LogName(
        parts["domain"], parts["origin"], int(parts["incarnation"]), parts["dataset"], parts["audience"] or ""
    )


@dataclass(frozen=True, slots=True)
class Change:
    """One change before it has a stamp. `payload` is canonical JSON, empty for a delete; `base` is the stamp of the
    version that the author had before them, 0 for none, `JUST_BEFORE`: of the change right before it, in one call."""

    key: bytes
    payload: bytes
    op: int = UPSERT
    base: int = 0


@dataclass(frozen=True, slots=True)
class Columns:
    """The changes of one segment, column by column. All lists have one entry for each change, except `bases`, which is
    empty when all are 0. `seed` is the secret of the salts; a stripped segment has `leaves` and `salts` instead
    (position ->
    leaf hash of what is gone, position -> salt of what is left)."""

    schema_version: int
    keys: list[bytes]
    hlcs: list[int]
    ops: bytes
    payloads: list[bytes]
    seed: bytes = b""
    bases: list[int] = field(default_factory=list)
    leaves: dict[int, bytes] = field(default_factory=dict)
    salts: dict[int, bytes] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.keys)

    def base(self, position: int) -> int:
        return self.bases[position] if self.bases else 0
