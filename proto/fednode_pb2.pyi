from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Envelope(_message.Message):
    __slots__ = ("header", "commit", "wraps", "body", "signature")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    WRAPS_FIELD_NUMBER: _ClassVar[int]
    BODY_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    commit: bytes
    wraps: _containers.RepeatedScalarFieldContainer[bytes]
    body: bytes
    signature: bytes
    def __init__(self, header: _Optional[bytes] = ..., commit: _Optional[bytes] = ..., wraps: _Optional[_Iterable[bytes]] = ..., body: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class Header(_message.Message):
    __slots__ = ("version", "suite", "log", "first", "count", "root", "checkpoint", "last_hlc", "readers", "sealer", "consistency", "stripped")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    COUNT_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    CHECKPOINT_FIELD_NUMBER: _ClassVar[int]
    LAST_HLC_FIELD_NUMBER: _ClassVar[int]
    READERS_FIELD_NUMBER: _ClassVar[int]
    SEALER_FIELD_NUMBER: _ClassVar[int]
    CONSISTENCY_FIELD_NUMBER: _ClassVar[int]
    STRIPPED_FIELD_NUMBER: _ClassVar[int]
    version: int
    suite: int
    log: str
    first: int
    count: int
    root: bytes
    checkpoint: bytes
    last_hlc: int
    readers: _containers.RepeatedScalarFieldContainer[bytes]
    sealer: str
    consistency: _containers.RepeatedScalarFieldContainer[bytes]
    stripped: int
    def __init__(self, version: _Optional[int] = ..., suite: _Optional[int] = ..., log: _Optional[str] = ..., first: _Optional[int] = ..., count: _Optional[int] = ..., root: _Optional[bytes] = ..., checkpoint: _Optional[bytes] = ..., last_hlc: _Optional[int] = ..., readers: _Optional[_Iterable[bytes]] = ..., sealer: _Optional[str] = ..., consistency: _Optional[_Iterable[bytes]] = ..., stripped: _Optional[int] = ...) -> None: ...

class Body(_message.Message):
    __slots__ = ("schema_version", "seed", "keys", "key_lengths", "first_hlc", "hlc_deltas", "ops", "payloads", "payload_lengths", "bases", "stripped", "leaves", "salts")
    SCHEMA_VERSION_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    KEYS_FIELD_NUMBER: _ClassVar[int]
    KEY_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    FIRST_HLC_FIELD_NUMBER: _ClassVar[int]
    HLC_DELTAS_FIELD_NUMBER: _ClassVar[int]
    OPS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_LENGTHS_FIELD_NUMBER: _ClassVar[int]
    BASES_FIELD_NUMBER: _ClassVar[int]
    STRIPPED_FIELD_NUMBER: _ClassVar[int]
    LEAVES_FIELD_NUMBER: _ClassVar[int]
    SALTS_FIELD_NUMBER: _ClassVar[int]
    schema_version: int
    seed: bytes
    keys: bytes
    key_lengths: _containers.RepeatedScalarFieldContainer[int]
    first_hlc: int
    hlc_deltas: _containers.RepeatedScalarFieldContainer[int]
    ops: bytes
    payloads: bytes
    payload_lengths: _containers.RepeatedScalarFieldContainer[int]
    bases: _containers.RepeatedScalarFieldContainer[int]
    stripped: _containers.RepeatedScalarFieldContainer[int]
    leaves: bytes
    salts: bytes
    def __init__(self, schema_version: _Optional[int] = ..., seed: _Optional[bytes] = ..., keys: _Optional[bytes] = ..., key_lengths: _Optional[_Iterable[int]] = ..., first_hlc: _Optional[int] = ..., hlc_deltas: _Optional[_Iterable[int]] = ..., ops: _Optional[bytes] = ..., payloads: _Optional[bytes] = ..., payload_lengths: _Optional[_Iterable[int]] = ..., bases: _Optional[_Iterable[int]] = ..., stripped: _Optional[_Iterable[int]] = ..., leaves: _Optional[bytes] = ..., salts: _Optional[bytes] = ...) -> None: ...

class Frame(_message.Message):
    __slots__ = ("number", "hello", "chunk", "ack", "credit", "idle", "beat", "bye", "want", "missing", "renew", "renewed", "late", "fenced", "holdings", "witnessed", "health")
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    HELLO_FIELD_NUMBER: _ClassVar[int]
    CHUNK_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    BEAT_FIELD_NUMBER: _ClassVar[int]
    BYE_FIELD_NUMBER: _ClassVar[int]
    WANT_FIELD_NUMBER: _ClassVar[int]
    MISSING_FIELD_NUMBER: _ClassVar[int]
    RENEW_FIELD_NUMBER: _ClassVar[int]
    RENEWED_FIELD_NUMBER: _ClassVar[int]
    LATE_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    HOLDINGS_FIELD_NUMBER: _ClassVar[int]
    WITNESSED_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    number: int
    hello: Hello
    chunk: Chunk
    ack: Ack
    credit: Credit
    idle: Idle
    beat: Beat
    bye: Bye
    want: Want
    missing: Missing
    renew: Renew
    renewed: Renewed
    late: Late
    fenced: Fenced
    holdings: Holdings
    witnessed: Witnessed
    health: Health
    def __init__(self, number: _Optional[int] = ..., hello: _Optional[_Union[Hello, _Mapping]] = ..., chunk: _Optional[_Union[Chunk, _Mapping]] = ..., ack: _Optional[_Union[Ack, _Mapping]] = ..., credit: _Optional[_Union[Credit, _Mapping]] = ..., idle: _Optional[_Union[Idle, _Mapping]] = ..., beat: _Optional[_Union[Beat, _Mapping]] = ..., bye: _Optional[_Union[Bye, _Mapping]] = ..., want: _Optional[_Union[Want, _Mapping]] = ..., missing: _Optional[_Union[Missing, _Mapping]] = ..., renew: _Optional[_Union[Renew, _Mapping]] = ..., renewed: _Optional[_Union[Renewed, _Mapping]] = ..., late: _Optional[_Union[Late, _Mapping]] = ..., fenced: _Optional[_Union[Fenced, _Mapping]] = ..., holdings: _Optional[_Union[Holdings, _Mapping]] = ..., witnessed: _Optional[_Union[Witnessed, _Mapping]] = ..., health: _Optional[_Union[Health, _Mapping]] = ...) -> None: ...

class Cursor(_message.Message):
    __slots__ = ("store", "lsn", "check")
    STORE_FIELD_NUMBER: _ClassVar[int]
    LSN_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    store: bytes
    lsn: int
    check: bytes
    def __init__(self, store: _Optional[bytes] = ..., lsn: _Optional[int] = ..., check: _Optional[bytes] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("version_min", "version_max", "software", "node", "chain", "now_ms", "catalog_version", "store", "have", "acked", "window", "partial", "feeds", "wants", "restore", "witnessed", "unsure", "incarnation", "knows", "addresses", "issuers", "above", "lives", "gathers", "health")
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    NODE_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    CATALOG_VERSION_FIELD_NUMBER: _ClassVar[int]
    STORE_FIELD_NUMBER: _ClassVar[int]
    HAVE_FIELD_NUMBER: _ClassVar[int]
    ACKED_FIELD_NUMBER: _ClassVar[int]
    WINDOW_FIELD_NUMBER: _ClassVar[int]
    PARTIAL_FIELD_NUMBER: _ClassVar[int]
    FEEDS_FIELD_NUMBER: _ClassVar[int]
    WANTS_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    WITNESSED_FIELD_NUMBER: _ClassVar[int]
    UNSURE_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    KNOWS_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    ISSUERS_FIELD_NUMBER: _ClassVar[int]
    ABOVE_FIELD_NUMBER: _ClassVar[int]
    LIVES_FIELD_NUMBER: _ClassVar[int]
    GATHERS_FIELD_NUMBER: _ClassVar[int]
    HEALTH_FIELD_NUMBER: _ClassVar[int]
    version_min: int
    version_max: int
    software: str
    node: str
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    now_ms: int
    catalog_version: int
    store: bytes
    have: Cursor
    acked: int
    window: int
    partial: Partial
    feeds: bool
    wants: bool
    restore: bool
    witnessed: int
    unsure: bool
    incarnation: int
    knows: int
    addresses: _containers.RepeatedScalarFieldContainer[str]
    issuers: _containers.RepeatedScalarFieldContainer[str]
    above: _containers.RepeatedScalarFieldContainer[int]
    lives: _containers.RepeatedScalarFieldContainer[bytes]
    gathers: int
    health: HealthPlace
    def __init__(self, version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., software: _Optional[str] = ..., node: _Optional[str] = ..., chain: _Optional[_Iterable[bytes]] = ..., now_ms: _Optional[int] = ..., catalog_version: _Optional[int] = ..., store: _Optional[bytes] = ..., have: _Optional[_Union[Cursor, _Mapping]] = ..., acked: _Optional[int] = ..., window: _Optional[int] = ..., partial: _Optional[_Union[Partial, _Mapping]] = ..., feeds: _Optional[bool] = ..., wants: _Optional[bool] = ..., restore: _Optional[bool] = ..., witnessed: _Optional[int] = ..., unsure: _Optional[bool] = ..., incarnation: _Optional[int] = ..., knows: _Optional[int] = ..., addresses: _Optional[_Iterable[str]] = ..., issuers: _Optional[_Iterable[str]] = ..., above: _Optional[_Iterable[int]] = ..., lives: _Optional[_Iterable[bytes]] = ..., gathers: _Optional[int] = ..., health: _Optional[_Union[HealthPlace, _Mapping]] = ...) -> None: ...

class Partial(_message.Message):
    __slots__ = ("lsn", "digest", "offset")
    LSN_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    digest: bytes
    offset: int
    def __init__(self, lsn: _Optional[int] = ..., digest: _Optional[bytes] = ..., offset: _Optional[int] = ...) -> None: ...

class Chunk(_message.Message):
    __slots__ = ("lsn", "offset", "data", "total", "digest", "first_parent", "ahead", "idle")
    LSN_FIELD_NUMBER: _ClassVar[int]
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    DATA_FIELD_NUMBER: _ClassVar[int]
    TOTAL_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    FIRST_PARENT_FIELD_NUMBER: _ClassVar[int]
    AHEAD_FIELD_NUMBER: _ClassVar[int]
    IDLE_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    offset: int
    data: bytes
    total: int
    digest: bytes
    first_parent: Cosignature
    ahead: bool
    idle: bool
    def __init__(self, lsn: _Optional[int] = ..., offset: _Optional[int] = ..., data: _Optional[bytes] = ..., total: _Optional[int] = ..., digest: _Optional[bytes] = ..., first_parent: _Optional[_Union[Cosignature, _Mapping]] = ..., ahead: _Optional[bool] = ..., idle: _Optional[bool] = ...) -> None: ...

class Cosignature(_message.Message):
    __slots__ = ("time_s", "signature", "witness")
    TIME_S_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    WITNESS_FIELD_NUMBER: _ClassVar[int]
    time_s: int
    signature: bytes
    witness: str
    def __init__(self, time_s: _Optional[int] = ..., signature: _Optional[bytes] = ..., witness: _Optional[str] = ...) -> None: ...

class Ack(_message.Message):
    __slots__ = ("outcomes",)
    OUTCOMES_FIELD_NUMBER: _ClassVar[int]
    outcomes: _containers.RepeatedCompositeFieldContainer[Outcome]
    def __init__(self, outcomes: _Optional[_Iterable[_Union[Outcome, _Mapping]]] = ...) -> None: ...

class Outcome(_message.Message):
    __slots__ = ("lsn", "cosignature", "refused")
    LSN_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    cosignature: Cosignature
    refused: str
    def __init__(self, lsn: _Optional[int] = ..., cosignature: _Optional[_Union[Cosignature, _Mapping]] = ..., refused: _Optional[str] = ...) -> None: ...

class Credit(_message.Message):
    __slots__ = ("bytes",)
    BYTES_FIELD_NUMBER: _ClassVar[int]
    bytes: int
    def __init__(self, bytes: _Optional[int] = ...) -> None: ...

class Idle(_message.Message):
    __slots__ = ("lsn",)
    LSN_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    def __init__(self, lsn: _Optional[int] = ...) -> None: ...

class Beat(_message.Message):
    __slots__ = ("now_ms", "lag", "standbys", "records", "issuers")
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    LAG_FIELD_NUMBER: _ClassVar[int]
    STANDBYS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    ISSUERS_FIELD_NUMBER: _ClassVar[int]
    now_ms: int
    lag: Lag
    standbys: Places
    records: RecordsDigest
    issuers: Places
    def __init__(self, now_ms: _Optional[int] = ..., lag: _Optional[_Union[Lag, _Mapping]] = ..., standbys: _Optional[_Union[Places, _Mapping]] = ..., records: _Optional[_Union[RecordsDigest, _Mapping]] = ..., issuers: _Optional[_Union[Places, _Mapping]] = ...) -> None: ...

class RecordsDigest(_message.Message):
    __slots__ = ("lsn", "at_ms", "records", "digest")
    LSN_FIELD_NUMBER: _ClassVar[int]
    AT_MS_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    at_ms: int
    records: int
    digest: str
    def __init__(self, lsn: _Optional[int] = ..., at_ms: _Optional[int] = ..., records: _Optional[int] = ..., digest: _Optional[str] = ...) -> None: ...

class Places(_message.Message):
    __slots__ = ("addresses",)
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class Lag(_message.Message):
    __slots__ = ("changes", "since_ms")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    SINCE_MS_FIELD_NUMBER: _ClassVar[int]
    changes: int
    since_ms: int
    def __init__(self, changes: _Optional[int] = ..., since_ms: _Optional[int] = ...) -> None: ...

class Bye(_message.Message):
    __slots__ = ("code", "detail", "retry_after_ms", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    DETAIL_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    code: str
    detail: str
    retry_after_ms: int
    params: _containers.ScalarMap[str, str]
    def __init__(self, code: _Optional[str] = ..., detail: _Optional[str] = ..., retry_after_ms: _Optional[int] = ..., params: _Optional[_Mapping[str, str]] = ...) -> None: ...

class Want(_message.Message):
    __slots__ = ("log", "first", "restore")
    LOG_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    RESTORE_FIELD_NUMBER: _ClassVar[int]
    log: str
    first: int
    restore: bool
    def __init__(self, log: _Optional[str] = ..., first: _Optional[int] = ..., restore: _Optional[bool] = ...) -> None: ...

class Missing(_message.Message):
    __slots__ = ("log", "first")
    LOG_FIELD_NUMBER: _ClassVar[int]
    FIRST_FIELD_NUMBER: _ClassVar[int]
    log: str
    first: int
    def __init__(self, log: _Optional[str] = ..., first: _Optional[int] = ...) -> None: ...

class Renew(_message.Message):
    __slots__ = ("request", "life")
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    request: bytes
    life: int
    def __init__(self, request: _Optional[bytes] = ..., life: _Optional[int] = ...) -> None: ...

class Renewed(_message.Message):
    __slots__ = ("chain", "refused")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    refused: str
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., refused: _Optional[str] = ...) -> None: ...

class Fenced(_message.Message):
    __slots__ = ("code", "heads")
    CODE_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    code: str
    heads: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, code: _Optional[str] = ..., heads: _Optional[_Iterable[str]] = ...) -> None: ...

class Holdings(_message.Message):
    __slots__ = ("entries", "last")
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    LAST_FIELD_NUMBER: _ClassVar[int]
    entries: _containers.RepeatedCompositeFieldContainer[Holding]
    last: bool
    def __init__(self, entries: _Optional[_Iterable[_Union[Holding, _Mapping]]] = ..., last: _Optional[bool] = ...) -> None: ...

class Holding(_message.Message):
    __slots__ = ("log", "size", "check", "cosignature")
    LOG_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    CHECK_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURE_FIELD_NUMBER: _ClassVar[int]
    log: str
    size: int
    check: bytes
    cosignature: Cosignature
    def __init__(self, log: _Optional[str] = ..., size: _Optional[int] = ..., check: _Optional[bytes] = ..., cosignature: _Optional[_Union[Cosignature, _Mapping]] = ...) -> None: ...

class Late(_message.Message):
    __slots__ = ("lsn", "log", "size", "root", "first_parent")
    LSN_FIELD_NUMBER: _ClassVar[int]
    LOG_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    FIRST_PARENT_FIELD_NUMBER: _ClassVar[int]
    lsn: int
    log: str
    size: int
    root: bytes
    first_parent: Cosignature
    def __init__(self, lsn: _Optional[int] = ..., log: _Optional[str] = ..., size: _Optional[int] = ..., root: _Optional[bytes] = ..., first_parent: _Optional[_Union[Cosignature, _Mapping]] = ...) -> None: ...

class Witnessed(_message.Message):
    __slots__ = ("upto", "heads")
    UPTO_FIELD_NUMBER: _ClassVar[int]
    HEADS_FIELD_NUMBER: _ClassVar[int]
    upto: int
    heads: _containers.RepeatedCompositeFieldContainer[WitnessedHead]
    def __init__(self, upto: _Optional[int] = ..., heads: _Optional[_Iterable[_Union[WitnessedHead, _Mapping]]] = ...) -> None: ...

class WitnessedHead(_message.Message):
    __slots__ = ("log", "size", "cosignatures")
    LOG_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    COSIGNATURES_FIELD_NUMBER: _ClassVar[int]
    log: str
    size: int
    cosignatures: _containers.RepeatedCompositeFieldContainer[Cosignature]
    def __init__(self, log: _Optional[str] = ..., size: _Optional[int] = ..., cosignatures: _Optional[_Iterable[_Union[Cosignature, _Mapping]]] = ...) -> None: ...

class Health(_message.Message):
    __slots__ = ("epoch", "upto", "entries")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    UPTO_FIELD_NUMBER: _ClassVar[int]
    ENTRIES_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    upto: int
    entries: _containers.RepeatedCompositeFieldContainer[HealthEntry]
    def __init__(self, epoch: _Optional[int] = ..., upto: _Optional[int] = ..., entries: _Optional[_Iterable[_Union[HealthEntry, _Mapping]]] = ...) -> None: ...

class HealthPlace(_message.Message):
    __slots__ = ("epoch", "upto")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    UPTO_FIELD_NUMBER: _ClassVar[int]
    epoch: int
    upto: int
    def __init__(self, epoch: _Optional[int] = ..., upto: _Optional[int] = ...) -> None: ...

class HealthEntry(_message.Message):
    __slots__ = ("node", "life", "seen", "load", "about")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    SEEN_FIELD_NUMBER: _ClassVar[int]
    LOAD_FIELD_NUMBER: _ClassVar[int]
    ABOUT_FIELD_NUMBER: _ClassVar[int]
    node: str
    life: int
    seen: HealthSeen
    load: bytes
    about: bytes
    def __init__(self, node: _Optional[str] = ..., life: _Optional[int] = ..., seen: _Optional[_Union[HealthSeen, _Mapping]] = ..., load: _Optional[bytes] = ..., about: _Optional[bytes] = ...) -> None: ...

class HealthSeen(_message.Message):
    __slots__ = ("at_s", "up")
    AT_S_FIELD_NUMBER: _ClassVar[int]
    UP_FIELD_NUMBER: _ClassVar[int]
    at_s: int
    up: bool
    def __init__(self, at_s: _Optional[int] = ..., up: _Optional[bool] = ...) -> None: ...

class HealthLoad(_message.Message):
    __slots__ = ("changes", "system", "bytes", "since_s", "alerts_critical", "alerts_warning", "standbys", "standby_changes", "standby_since_s")
    CHANGES_FIELD_NUMBER: _ClassVar[int]
    SYSTEM_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    SINCE_S_FIELD_NUMBER: _ClassVar[int]
    ALERTS_CRITICAL_FIELD_NUMBER: _ClassVar[int]
    ALERTS_WARNING_FIELD_NUMBER: _ClassVar[int]
    STANDBYS_FIELD_NUMBER: _ClassVar[int]
    STANDBY_CHANGES_FIELD_NUMBER: _ClassVar[int]
    STANDBY_SINCE_S_FIELD_NUMBER: _ClassVar[int]
    changes: int
    system: int
    bytes: int
    since_s: int
    alerts_critical: int
    alerts_warning: int
    standbys: int
    standby_changes: int
    standby_since_s: int
    def __init__(self, changes: _Optional[int] = ..., system: _Optional[int] = ..., bytes: _Optional[int] = ..., since_s: _Optional[int] = ..., alerts_critical: _Optional[int] = ..., alerts_warning: _Optional[int] = ..., standbys: _Optional[int] = ..., standby_changes: _Optional[int] = ..., standby_since_s: _Optional[int] = ...) -> None: ...

class HealthAbout(_message.Message):
    __slots__ = ("software", "catalog", "disk_free_mib", "disk_total_mib", "clock_ms", "unsure", "certificate_s", "drill_s", "fenced")
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    CATALOG_FIELD_NUMBER: _ClassVar[int]
    DISK_FREE_MIB_FIELD_NUMBER: _ClassVar[int]
    DISK_TOTAL_MIB_FIELD_NUMBER: _ClassVar[int]
    CLOCK_MS_FIELD_NUMBER: _ClassVar[int]
    UNSURE_FIELD_NUMBER: _ClassVar[int]
    CERTIFICATE_S_FIELD_NUMBER: _ClassVar[int]
    DRILL_S_FIELD_NUMBER: _ClassVar[int]
    FENCED_FIELD_NUMBER: _ClassVar[int]
    software: str
    catalog: int
    disk_free_mib: int
    disk_total_mib: int
    clock_ms: int
    unsure: bool
    certificate_s: int
    drill_s: int
    fenced: str
    def __init__(self, software: _Optional[str] = ..., catalog: _Optional[int] = ..., disk_free_mib: _Optional[int] = ..., disk_total_mib: _Optional[int] = ..., clock_ms: _Optional[int] = ..., unsure: _Optional[bool] = ..., certificate_s: _Optional[int] = ..., drill_s: _Optional[int] = ..., fenced: _Optional[str] = ...) -> None: ...

class Volume(_message.Message):
    __slots__ = ("header", "commit", "wrap")
    HEADER_FIELD_NUMBER: _ClassVar[int]
    COMMIT_FIELD_NUMBER: _ClassVar[int]
    WRAP_FIELD_NUMBER: _ClassVar[int]
    header: bytes
    commit: bytes
    wrap: bytes
    def __init__(self, header: _Optional[bytes] = ..., commit: _Optional[bytes] = ..., wrap: _Optional[bytes] = ...) -> None: ...

class VolumeHeader(_message.Message):
    __slots__ = ("version", "suite", "domain", "sender", "incarnation", "recipient", "id", "volume", "made_ms", "key_id")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SUITE_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    VOLUME_FIELD_NUMBER: _ClassVar[int]
    MADE_MS_FIELD_NUMBER: _ClassVar[int]
    KEY_ID_FIELD_NUMBER: _ClassVar[int]
    version: int
    suite: int
    domain: str
    sender: str
    incarnation: int
    recipient: str
    id: bytes
    volume: int
    made_ms: int
    key_id: bytes
    def __init__(self, version: _Optional[int] = ..., suite: _Optional[int] = ..., domain: _Optional[str] = ..., sender: _Optional[str] = ..., incarnation: _Optional[int] = ..., recipient: _Optional[str] = ..., id: _Optional[bytes] = ..., volume: _Optional[int] = ..., made_ms: _Optional[int] = ..., key_id: _Optional[bytes] = ...) -> None: ...

class Opening(_message.Message):
    __slots__ = ("hello", "after", "upto", "chain", "addresses", "request")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    UPTO_FIELD_NUMBER: _ClassVar[int]
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    hello: bytes
    after: int
    upto: int
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    request: bytes
    def __init__(self, hello: _Optional[bytes] = ..., after: _Optional[int] = ..., upto: _Optional[int] = ..., chain: _Optional[_Iterable[bytes]] = ..., addresses: _Optional[_Iterable[str]] = ..., request: _Optional[bytes] = ...) -> None: ...

class Manifest(_message.Message):
    __slots__ = ("version", "domain", "sender", "incarnation", "recipient", "id", "made_ms", "volumes")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DOMAIN_FIELD_NUMBER: _ClassVar[int]
    SENDER_FIELD_NUMBER: _ClassVar[int]
    INCARNATION_FIELD_NUMBER: _ClassVar[int]
    RECIPIENT_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MADE_MS_FIELD_NUMBER: _ClassVar[int]
    VOLUMES_FIELD_NUMBER: _ClassVar[int]
    version: int
    domain: str
    sender: str
    incarnation: int
    recipient: str
    id: bytes
    made_ms: int
    volumes: _containers.RepeatedCompositeFieldContainer[VolumeSum]
    def __init__(self, version: _Optional[int] = ..., domain: _Optional[str] = ..., sender: _Optional[str] = ..., incarnation: _Optional[int] = ..., recipient: _Optional[str] = ..., id: _Optional[bytes] = ..., made_ms: _Optional[int] = ..., volumes: _Optional[_Iterable[_Union[VolumeSum, _Mapping]]] = ...) -> None: ...

class VolumeSum(_message.Message):
    __slots__ = ("size", "sha256")
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHA256_FIELD_NUMBER: _ClassVar[int]
    size: int
    sha256: bytes
    def __init__(self, size: _Optional[int] = ..., sha256: _Optional[bytes] = ...) -> None: ...

class SignedManifest(_message.Message):
    __slots__ = ("manifest", "signature")
    MANIFEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    manifest: bytes
    signature: bytes
    def __init__(self, manifest: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class StickRequest(_message.Message):
    __slots__ = ("version", "request", "signature")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SIGNATURE_FIELD_NUMBER: _ClassVar[int]
    version: int
    request: bytes
    signature: bytes
    def __init__(self, version: _Optional[int] = ..., request: _Optional[bytes] = ..., signature: _Optional[bytes] = ...) -> None: ...

class ChainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ChainReply(_message.Message):
    __slots__ = ("chain", "version_min", "version_max", "now_ms")
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MIN_FIELD_NUMBER: _ClassVar[int]
    VERSION_MAX_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    version_min: int
    version_max: int
    now_ms: int
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., version_min: _Optional[int] = ..., version_max: _Optional[int] = ..., now_ms: _Optional[int] = ...) -> None: ...

class JoinRequest(_message.Message):
    __slots__ = ("node", "secret", "request", "software", "addresses")
    NODE_FIELD_NUMBER: _ClassVar[int]
    SECRET_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    SOFTWARE_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    node: str
    secret: bytes
    request: bytes
    software: str
    addresses: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, node: _Optional[str] = ..., secret: _Optional[bytes] = ..., request: _Optional[bytes] = ..., software: _Optional[str] = ..., addresses: _Optional[_Iterable[str]] = ...) -> None: ...

class SuccessionRequest(_message.Message):
    __slots__ = ("node", "life", "request", "consent", "back", "dry")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    BACK_FIELD_NUMBER: _ClassVar[int]
    DRY_FIELD_NUMBER: _ClassVar[int]
    node: str
    life: int
    request: bytes
    consent: bytes
    back: str
    dry: bool
    def __init__(self, node: _Optional[str] = ..., life: _Optional[int] = ..., request: _Optional[bytes] = ..., consent: _Optional[bytes] = ..., back: _Optional[str] = ..., dry: _Optional[bool] = ...) -> None: ...

class HandOverRequest(_message.Message):
    __slots__ = ("node", "life", "token", "cancel")
    NODE_FIELD_NUMBER: _ClassVar[int]
    LIFE_FIELD_NUMBER: _ClassVar[int]
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    CANCEL_FIELD_NUMBER: _ClassVar[int]
    node: str
    life: int
    token: str
    cancel: bool
    def __init__(self, node: _Optional[str] = ..., life: _Optional[int] = ..., token: _Optional[str] = ..., cancel: _Optional[bool] = ...) -> None: ...

class HandOverReply(_message.Message):
    __slots__ = ("refused", "params", "upto", "consent", "request")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    UPTO_FIELD_NUMBER: _ClassVar[int]
    CONSENT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_FIELD_NUMBER: _ClassVar[int]
    refused: str
    params: _containers.ScalarMap[str, str]
    upto: int
    consent: bytes
    request: bytes
    def __init__(self, refused: _Optional[str] = ..., params: _Optional[_Mapping[str, str]] = ..., upto: _Optional[int] = ..., consent: _Optional[bytes] = ..., request: _Optional[bytes] = ...) -> None: ...

class WhereRequest(_message.Message):
    __slots__ = ("node",)
    NODE_FIELD_NUMBER: _ClassVar[int]
    node: str
    def __init__(self, node: _Optional[str] = ...) -> None: ...

class WhereReply(_message.Message):
    __slots__ = ("chain", "addresses", "refused", "params")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    refused: str
    params: _containers.ScalarMap[str, str]
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., addresses: _Optional[_Iterable[str]] = ..., refused: _Optional[str] = ..., params: _Optional[_Mapping[str, str]] = ...) -> None: ...

class JoinReply(_message.Message):
    __slots__ = ("chain", "addresses", "refused", "params", "now_ms")
    class ParamsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CHAIN_FIELD_NUMBER: _ClassVar[int]
    ADDRESSES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    PARAMS_FIELD_NUMBER: _ClassVar[int]
    NOW_MS_FIELD_NUMBER: _ClassVar[int]
    chain: _containers.RepeatedScalarFieldContainer[bytes]
    addresses: _containers.RepeatedScalarFieldContainer[str]
    refused: str
    params: _containers.ScalarMap[str, str]
    now_ms: int
    def __init__(self, chain: _Optional[_Iterable[bytes]] = ..., addresses: _Optional[_Iterable[str]] = ..., refused: _Optional[str] = ..., params: _Optional[_Mapping[str, str]] = ..., now_ms: _Optional[int] = ...) -> None: ...
