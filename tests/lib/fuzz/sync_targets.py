"""Targets in `fednode.sync`: what nodes send each other, by link and by stick. Rule 1 of `crypto_targets`.

>>> [one.name for one in TARGETS][:3]
['frame', 'segment', 'body']
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any

import msgspec

from fednode.crypto import canonical
from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.proto import fednode_pb2 as pb
from fednode.sync import bundle as bun
from fednode.sync import enrol, packing, rewrap, verify, versions, wire, wire_where
from fednode.sync import segment as seg
from fednode.sync import volume as vol
from fednode.sync.catalog import VERSION_MAX, Catalog, Dataset, EnumValue, Field, check_succession
from fednode.sync.change import DELETE, ERASE, UPSERT, Change, Columns, LogName
from fednode.sync.enrol import ChainSeen, JoinSeen, Token
from fednode.sync.errors import PeerError
from fednode.sync.formats import Problem, parse
from fednode.sync.identity import Directory, heir_payload, node_payload, revocation_payload, sealed_payload
from fednode.sync.log import LogState
from fednode.sync.merge import RULES
from fednode.sync.strip import erase_change, erased_place, strip
from fednode.sync.versions import Versions
from fednode.sync.wire import Cosignature
from fuzz.crypto_targets import CHAIN, KEYS, SYNC_VECTORS, VILLAGE, world
from fuzz.target import PROTOBUF, TEXT, Target, codes, law
from world import CATALOG_TOML, NOW_S, Stream, fresh, keys_of, seed, shop

COUNTY, TOWNSHIP = "130102", "130102001"
WIRE = codes("5501 5502 5503")
STAMP = (NOW_S * 1000) << 16


def vector(name: str) -> Any:
    """A golden vector of sync's."""
    return json.loads((SYNC_VECTORS / name).read_text("utf-8"))


# ---------------------------------------------------------------- frames


def _frame(data: bytes) -> None:
    number, message = wire.decode(data)
    if isinstance(message, wire.Unknown):
        return
    law(wire.decode(wire.encode(number, message)) == (number, _plainly(message)), "a frame comes back")


def _plainly(message: wire.Message) -> wire.Message:
    """A cursor at 0 says nothing and is not written."""
    nowhere = isinstance(message, wire.Hello) and not message.have.lsn
    return replace(message, have=wire.Cursor()) if nowhere else message  # type: ignore[call-arg]


@cache
def frames() -> tuple[bytes, ...]:
    """Frames of every kind: those of the golden sessions, and one of each."""
    found: list[bytes] = []
    for name in ("session-whole-v1.txt", "session-fenced-v1.txt", "frames-v1.txt"):
        for line in (SYNC_VECTORS / name).read_text("utf-8").splitlines():
            found.append(bytes.fromhex(line.split()[-1]))
    by = Cosignature(NOW_S, bytes(64), "1301")
    made: tuple[wire.Message, ...] = (
        wire.Chunk(3, 0, b"segment", 7, b"", by, True, True),
        wire.Ack((wire.Outcome(1, by), wire.Outcome(2, None, "FN-6411"))),
        wire.Credit(65536),
        wire.Idle(9),
        wire.Beat(NOW_S * 1000, wire.Lag(3, NOW_S), ("10.0.0.1:7443",), wire.RecordsDigest(7, NOW_S, 9, "ab" * 32)),
        wire.Beat(NOW_S * 1000, None, (), None, ("10.0.0.2:7443",)),
        wire.Bye("FN-5505", "too old", 1000, {"theirs": "1-1", "ours": "2-3", "install": "fednode>=0.3.0"}),
        wire.Want("hebei/13/1/shop", 5, True),
        wire.Missing("hebei/13/1/shop", 5),
        wire.Renew(b"request", 2),
        wire.Renewed((b"chain",), ""),
        wire.Late(4, "hebei/13/1/shop", 5, bytes(32), by),
        wire.Fenced("FN-6422", ("note",)),
        wire.Holdings((wire.Holding("hebei/13/1/shop", 4, bytes(8), by),), True),
        wire.Witnessed(5, (wire.WitnessedHead("hebei/130102001001/1/shop", 3, (by, by)),)),
    )
    found += [wire.encode(number, one) for number, one in enumerate(made, 1)]
    chain = (b"own", b"root")
    hello = wire.Hello("1301", chain, NOW_S * 1000, bytes(16), wire.Cursor(bytes(16), 4, bytes(8)), 5, 1 << 22)
    hello = replace(hello, partial=wire.Partial(6, bytes(32), 4096), above=(1, 2), lives=(b"life",), witnessed=0)
    found.append(wire.encode(1, replace(hello, addresses=("10.0.0.1:7443",), issuers=("10.0.0.2:7443",))))
    found.append(b"\x08\x05\xa2\x40\x03abc")  # a hint that is not known
    return tuple(one for one in dict.fromkeys(found) if len(one) < 2500)


# ---------------------------------------------------------------- where a node is


def _where(data: bytes) -> None:
    """The first byte says which of the two it is."""
    if data[:1] == b"?":
        node = wire_where.request_in(data[1:])
        law(wire_where.request_in(wire_where.request_out(node)) == node, "a request comes back")
        return
    told = wire_where.reply_in(data[1:])
    law(wire_where.reply_in(wire_where.reply_out(told)) == told, "a reply comes back")


@cache
def wheres() -> tuple[bytes, ...]:
    told = wire_where.Whereabouts((b"own", b"root"), ("10.0.0.1:7443", "[::1]:7443"))
    refusal = wire_where.refusal_out("FN-5511", {"node": COUNTY})
    return (b"?" + wire_where.request_out(COUNTY), b"!" + wire_where.reply_out(told), b"!" + refusal)


def _where_refused(data: bytes) -> None:
    """A reply that refuses is whatever error it names."""
    try:
        _where(data)
    except PeerError as error:
        if error.code not in WIRE:
            law(len(error.code) <= 16, "a code")
            return
        raise


# ---------------------------------------------------------------- segments


@cache
def envelopes() -> tuple[bytes, ...]:
    """The golden segments."""
    names = ("segment-unsealed", "segment-sealed", "segment-readers", "segment-stripped")
    found = [bytes.fromhex(vector(f"{name}.json")["envelope"]) for name in names]
    found += [bytes.fromhex(one["envelope"]) for one in vector("segment-consistency.json")["segments"]]
    return (*found, bytes.fromhex(vector("rewrap.json")["envelope"]), world().segment(VILLAGE, readers=("13",)).raw)


def _segment(raw: bytes) -> None:
    seg.beginning(raw)
    envelope = seg.parse(raw)
    law(envelope.raw == raw and LogName.parse(str(envelope.header.log)) == envelope.header.log, "a log's name")
    law(0 < envelope.header.end <= 1 << 53, "the end of a segment")
    envelope.digest()
    law(seg.head_only(seg.head_only(raw)) == seg.head_only(raw), "what is kept as evidence")
    law(seg.beginning(seg.head_only(raw)) == envelope.header, "what evidence is of")
    for private in (KEYS.seal.private, world().places["13"].keys.seal.private):
        for key_id in dict.fromkeys(envelope.header.readers[:2]):
            content_key = seg.unwrap(envelope, key_id, private)
            if content_key is not None:
                _same(seg.open_body(envelope, content_key))
    if not envelope.sealed:
        _same(envelope.body)


def _same(compressed: bytes) -> None:
    """Both ways to read a body agree, and what was read is written so that it reads the same."""
    try:
        columns = seg.decode_body(compressed)
    except PeerError as error:
        law(_raised(lambda: seg.decode_leaves(compressed)) == error.code, f"decode_leaves does not raise {error}")
        raise
    leaves = seg.decode_leaves(compressed)
    found = (leaves.first_hlc, leaves.last_hlc, leaves.hashes, leaves.stripped)
    law(found == (columns.hlcs[0], columns.hlcs[-1], seg.leaf_hashes(columns), len(columns.leaves)), "leaves")
    law(seg.decode_body(seg.encode_body(columns)) == _plain(columns), "a body comes back")
    gone = strip(columns, [len(columns) - 1])
    law(seg.leaf_hashes(gone) == seg.leaf_hashes(columns), "leaves of a stripped segment")
    law(seg.decode_body(seg.encode_body(gone)) == gone, "a stripped body comes back")


def _plain(columns: Columns) -> Columns:
    """Bases that are all 0 are not written."""
    return columns if any(columns.bases) else replace(columns, bases=[])


def _raised(act: Any) -> str:
    try:
        act()
    except FednodeError as error:
        return error.code
    return ""


@cache
def bodies() -> tuple[bytes, ...]:
    """Plain bodies: of some changes, of one, of a stripped segment."""
    keys, payloads = [b"a", b"k2", b""], [b'{"area":"130102","name":"a"}', b"", b'{"reason":"r","v":1}']
    some = Columns(
        1, keys, [STAMP, STAMP + 1, STAMP + 9], bytes((UPSERT, DELETE, ERASE)), payloads, bytes(32), [0, 5, 0]
    )
    one = Columns(3, [b"k"], [STAMP], bytes((UPSERT,)), [b'{"name":"k"}'], bytes(range(32)))
    return tuple(packing.unpack(seg.encode_body(columns)) for columns in (some, one, strip(some, [1]), strip(one, [0])))


def _body_seeds() -> Iterator[bytes]:
    yield from (packing.pack(one, ways) for one in bodies() for ways in (1, 2))
    yield packing.pack(bytes(200_000))


def _unpacked(packed: bytes) -> None:
    plain = packing.unpack(packed)
    limit = max(packing.RATIO_FREE_BYTES, packing.RATIO_MAX * len(packed))
    law(len(plain) <= min(limit, packing.BODY_BYTES_MAX), "nobody unpacks more")
    law(packing.unpack(packing.pack(plain, 2)) == plain, "what is packed is unpacked")


def _signed(data: bytes) -> None:
    """A message like Envelope: a header that its origin signs as it stands, and a plain body, sealed to the readers.
    What is verified is taken in by a node's directory, as what it carries would be."""
    given = pb.Envelope.FromString(data)
    header = pb.Header.FromString(given.header)
    origin = world().places.get(header.log.split("/")[1] if header.log.count("/") > 1 else "", world().places[VILLAGE])
    log_ = _log(header.log)
    sealed = log_ is None or not log_.is_open
    body = packing.pack(given.body)
    leaves = _leaves(body)
    if leaves and not header.root:  # an honest origin: what is altered is what it says, not the root of it
        state = fresh(log_ or LogName("hebei", VILLAGE, 1, "shop")).frontier
        if state is not None:
            header.root = state.extend(leaves).root()
    text = verify.checkpoint.Checkpoint(header.log, header.first + header.count, header.root).text()
    header.checkpoint = origin.keys.sign.sign(text.encode())
    readers = world().readers("13", COUNTY, TOWNSHIP) if sealed else []
    header.readers[:] = [one.key_id for one in readers]
    if header.suite != 1:
        header.suite = 1
    raw, _ = seg._seal(header, body, readers, sealed, origin.keys.sign.sign, Stream("fuzz"))
    _verified(raw)


def _log(text: str) -> LogName | None:
    try:
        return LogName.parse(text)
    except PeerError:
        return None


def _leaves(body: bytes) -> list[bytes]:
    try:
        return seg.decode_leaves(body).hashes
    except PeerError:
        return []


@cache
def _directory() -> Directory:
    return world().directory()


def _verified(raw: bytes) -> None:
    """As the county looks at what the township sends."""
    envelope = seg.parse(raw)
    mine = envelope.header.log.origin in ("13", "1301")
    peer = "1301" if mine else TOWNSHIP
    context = world().context(COUNTY, peer, from_parent=mine, directory=_directory())
    given = world().cosignature(TOWNSHIP, raw) if envelope.header.log.origin == VILLAGE else None
    try:
        found = verify.verify(raw, fresh, context, given)
    except (verify.Gap, verify.Held):
        return
    if found.columns is None:
        return
    for op, payload in zip(found.columns.ops, found.columns.payloads, strict=True):
        if op == UPSERT and payload:
            law(isinstance(json.loads(payload), dict), "a payload that was verified is a JSON object")
    if found.envelope.header.log.is_open:
        _taken(found.envelope.header.log, found.columns)


def _taken(name: LogName, columns: Columns) -> None:
    """What is lawful is taken in, and whatever asks afterwards gets an answer."""
    from fednode.node.trust import Trust

    trust = Trust(world().places[COUNTY].chain, COUNTY)
    trust.directory, trust.catalog = world().directory(), world().catalog
    trust.take(name, columns)
    for one in trust.directory.all():
        trust.directory.path(one.node)
        trust.directory.revocation(one.node)
        trust.directory.chain(one.node)
        trust.directory.floor_s(one.node)
    trust.dataset("shop")


def _signed_seeds() -> Iterator[bytes]:
    """Headers without a root get the right one."""
    for body, log in (
        (_body([shop("a", VILLAGE), shop("b", VILLAGE)]), f"hebei/{VILLAGE}/1/shop"),
        (_body([Change(b"k", b"", DELETE)]), f"hebei/{VILLAGE}/1/shop"),
        (_body([shop("a", VILLAGE, note="x"), erase_change(LogName("hebei", VILLAGE, 1, "shop"), 0, "r")]),
         f"hebei/{VILLAGE}/1/shop"),
        (_body([Change(b"v", canonical.dumps(node_payload(world().places[VILLAGE].chain[0])))]),
         f"hebei/{TOWNSHIP}/1/sys.nodes"),
        (_body([Change(b"v", canonical.dumps(revocation_payload(VILLAGE, 1, NOW_S * 1000, "lost")))]),
         f"hebei/{TOWNSHIP}/1/sys.nodes"),
        (_body([Change(b"catalog", world().catalog.to_json())]), "hebei/13/1/sys.catalog"),
    ):  # fmt: skip
        columns = seg.decode_body(packing.pack(body))
        header = pb.Header(version=1, suite=1, log=log, first=0, count=len(columns), last_hlc=columns.hlcs[-1])
        yield pb.Envelope(header=header.SerializeToString(), body=body).SerializeToString()


def _body(changes: list[Change], version: int = 1) -> bytes:
    stamps = list(range(STAMP, STAMP + len(changes)))
    keys, payloads = [one.key for one in changes], [one.payload for one in changes]
    columns = Columns(version, keys, stamps, bytes(one.op for one in changes), payloads, bytes(32))
    return packing.unpack(seg.encode_body(columns))


VERIFIED = codes(
    "6401 6402 6403 6404 6406 6407 6408 6409 6410 6411 6415 5410 5411 5412 5413 5415 5416 5417 5418 5419 5420 5421 5422"
    " 5430 5431 6210 6211 3201 3202 3203 3204 3205 3206 3207 3208 3209 3210 3211 3212 3213 3214 3215 3216 3217 3218"
    " 3220 3221 3222 3223 3224"
)


def _payload(payload: bytes) -> None:
    """The fast way to look at payloads takes what the slow one takes: a JSON object that any reader reads."""
    name = LogName("hebei", VILLAGE, 1, "shop")
    origin, context = world().identity(VILLAGE), world().context(COUNTY, TOWNSHIP, directory=_directory())
    fast = _judged(name, [payload], origin, context)
    slow = _judged(name, [payload, b'{"a":"\\n"}'], origin, context)  # an escape: everything is read
    law(fast == slow, f"the fast way says {fast or 'yes'}, the slow one {slow or 'yes'}")
    if not fast:
        law(isinstance(msgspec.json.decode(payload), dict), "an object")
        json.loads(payload)


def _judged(name: LogName, payloads: list[bytes], origin: Any, context: verify.Context) -> str:
    count = len(payloads)
    columns = Columns(1, [b"k"] * count, list(range(1, count + 1)), bytes((UPSERT,)) * count, payloads, bytes(32))
    return _raised(lambda: verify.check_content(name, columns, origin, context))


def _payloads() -> Iterator[bytes]:
    yield from (b'{"area":"130102001001","name":"a"}', b'{"area":null,"b":true}', b'{"a":{"b":[1,2,"x"]},"n":-1.5e3}')
    yield from ('{"名称":"石家庄","b":"\\u77f3"}'.encode(), b'{ "a" : "b" , "c" : false }', b'{"area":["1"]}')


def _log_name(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    law(str(LogName.parse(text)) == text, "a log's name has one form")


def _log_names() -> Iterator[bytes]:
    yield from (b"hebei/130102/1/admin-licence@130102001001", b"hebei/13/12/sys.nodes", b"x/A-b_c.d/999999999/a")


def _erase(data: bytes) -> None:
    key, _, payload = data.partition(b"\n")
    log, seq, reason = erased_place(key, payload)
    law(erase_change(log, seq, reason).key == key, "an erase names its place in one way")


def _erases() -> Iterator[bytes]:
    made = erase_change(LogName("hebei", COUNTY, 1, "shop"), 17, "asked for")
    yield made.key + b"\n" + made.payload


def _rewrap(raw: bytes) -> None:
    found = rewrap.parse(raw)
    again = rewrap.encode(
        *(str(found.log), found.first, found.sha256, found.node, found.key_id, found.wrap, found.giver),
        *(lambda signed: raw[-64:], found.suite),
    )
    law(again == raw and rewrap.is_rewrap(raw), "a rewrap has one form")
    law(_raised(lambda: rewrap.check(found, _directory(), world().dataset)) in REWRAP, "who may give")


def _rewrap_inside(data: bytes) -> None:
    """A rewrap that the county has signed."""
    body = data[: rewrap.REWRAP_BYTES_MAX - 64]
    found = rewrap.parse(body + world().places[COUNTY].keys.sign.sign(b"fednode rewrap v1\n" + body))
    rewrap.check(found, _directory(), world().dataset)
    envelope = seg.parse(envelopes()[-1])
    rewrap.open_with(found, envelope, world().places[VILLAGE].keys.seal.private, lambda version: True)


REWRAP = frozenset(("", *codes("5440 5441 5443 6406 6403")))


@cache
def _rewraps() -> tuple[bytes, ...]:
    envelope = seg.parse(envelopes()[-1])
    made = [bytes.fromhex(one) for one in _texts(vector("rewrap.json")) if one.startswith("01")]
    county, village = world().places[COUNTY], world().identity(VILLAGE)
    own = world().segment(VILLAGE, readers=("13",))
    given = rewrap.give(
        envelope, wire_hash(envelope.raw), own.content_key, village, county.identity, county.keys.sign.sign
    )
    return (*(one for one in made if rewrap.is_rewrap(one) and 100 < len(one) <= rewrap.REWRAP_BYTES_MAX), given)


def wire_hash(data: bytes) -> bytes:
    """SHA-256."""
    return enrol.SUITE_1.hash(data)


def _texts(value: Any) -> Iterator[str]:
    for one in value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,):
        if isinstance(one, dict | list):
            yield from _texts(one)
        elif isinstance(one, str):
            yield one


# ---------------------------------------------------------------- who is who, and what is recorded


def _said(data: bytes) -> None:
    """What the township says of nodes, line by line."""
    directory = world().directory()
    for line in data.split(b"\n")[:8]:
        try:
            payload = msgspec.json.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # gate 13 has looked at that before
            continue
        directory.check(TOWNSHIP, payload)
        directory.apply(TOWNSHIP, payload)
    for one in directory.all():
        directory.path(one.node), directory.floor_s(one.node)
        for life in directory.lives(one.node):
            directory.is_heir(life), directory.sealed_to(life), directory.later(one.node, (1, 1, 1))
        if (found := directory.revocation(one.node)) is not None:
            law(abs(found.at_ms) < 1 << 63 and abs(found.incarnation) < 1 << 63, "numbers of a revocation")


def _sayings() -> Iterator[bytes]:
    der = world().places[VILLAGE].chain[0]
    said = (
        node_payload(der),
        revocation_payload(VILLAGE, 1, NOW_S * 1000, "lost"),
        heir_payload(VILLAGE, "s1"),
        sealed_payload(der, VILLAGE, "s1", 2),
    )
    yield from map(canonical.dumps, said)
    yield b"\n".join(map(canonical.dumps, said[1:]))


CATALOG = codes(" ".join(f"32{number:02}" for number in range(1, 19)))


def _catalog(payload: bytes) -> None:
    found = Catalog.from_json(payload)
    law(Catalog.from_json(found.to_json()) == found, "a catalog comes back")
    check_succession(found, found)
    law(found.version <= VERSION_MAX, "a catalog's version fits a segment")


@cache
def catalogs() -> tuple[bytes, ...]:
    """Catalogs as they travel: small ones that use every attribute."""
    values = [{"value": "1", "zh": "普", "aliases": ["x"]}]
    texts = {"code": "b", "zh": "种类", "en": "Kind", "type": "enum", "values": values}
    dataset = {
        **CATALOG_TOML["dataset"][0],  # type: ignore[index]
        "merge": RULES[-1], "class": "confidential", "retention": {"action": "strip", "field": "d", "days": 30},
        "timeliness": {"field": "d", "working_days": 7}, "targets": {"city": 3}, "no_blank": ["village"],
        "field": [
            {"code": "name", "zh": "名称", "en": "Name", "type": "text", "max": 20, "required": True, "search": True},
            {"code": "area", "zh": "区划", "en": "Area", "type": "area"},
            {"code": "d", "zh": "日期", "en": "Date", "type": "date", "no_end": "2099-12-31", "index": True},
            {"code": "e", "zh": "至", "en": "Until", "type": "date", "not_before": "d"},
            {"code": "n", "zh": "金额", "en": "Amount", "type": "decimal", "places": 2},
            texts,
        ],
    }  # fmt: skip
    full = Catalog.from_toml_dict({"version": 7, "zh": "目录", "en": "Catalog", "bodies": 2, "dataset": [dataset]})
    return world().catalog.to_json(), full.to_json()


FIELDS = (
    Field("t", "文", "Text", "text", max=200),
    Field("l", "文", "Lines", "text", lengths=(2, 18), lines=True),
    Field("e", "类", "Kind", "enum", values=(EnumValue("1", "普通", "plain", ("一般",)), EnumValue("2", "特许"))),
    Field("u", "代码", "Code", "uscc"),
    Field("d", "日期", "Date", "date", no_end="2099-12-31"),
    Field("n", "金额", "Amount", "decimal", places=2),
    Field("i", "数", "Number", "integer"),
    Field("a", "区划", "Area", "area"),
)


def _cell(data: bytes) -> None:
    """A cell of each type: what is recorded reads as itself."""
    cell = data.decode("utf-8", "surrogateescape")
    for field in FIELDS:
        value = parse(field, cell)
        if value is None or isinstance(value, Problem):
            continue
        again = parse(field, str(value))
        law(again == value, f"{field.type}: {cell!r} is {value!r}, which is {again!r}")
        json.dumps(value).encode()
        str(value).encode()


def _cells() -> Iterator[bytes]:
    for text in (
        *("普通", "911100006000373410", "2024年3月5日", "2024/3/5 12:30", "45356.5", "长期"),
        *("０１，２３４．５０", "-1,234,567.10"),
        *("130102000000", "1301", "9.1E+17", "一般 ", "石家庄\n长安", "e\u0301", "１３０１", "20240305", "+7.000"),
    ):  # fmt: skip
        yield text.encode()


# ---------------------------------------------------------------- joining, by link and by stick


def _token(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    token = Token.decode(text)
    cut = len(token.addresses) == enrol.ADDRESSES_MAX  # more are passed over
    law(cut or token.encode() == "".join(text.split()), f"a token has one form: {token}")
    enrol.certs.iso(token.expires_s)  # shown by `join`, and where it has expired


def _token_inside(body: bytes) -> None:
    _token((enrol.TOKEN_PREFIX + enrol._text(body + enrol._check(body))).encode())


@cache
def _tokens() -> tuple[Token, ...]:
    return (
        Token(bytes(32), bytes(16), "1301", 1_800_000_000, ("10.0.0.1:7444",)),
        Token(world().root_sha256, bytes(range(16)), VILLAGE, NOW_S, ("[::1]:7444", "a.example:1")),
        Token(bytes(32), bytes(16), "x", 0, ()),
    )


def _token_bodies() -> Iterator[bytes]:
    for one in _tokens():
        yield one.root_sha256 + one.secret + "\n".join([one.node, str(one.expires_s), *one.addresses]).encode()


def _joining(data: bytes) -> None:
    """What a parent answers to a node that joins: ChainReply and JoinReply, the two fields of a message."""
    both = pb.SignedManifest.FromString(data)
    seen, answer = pb.ChainReply.FromString(both.manifest), pb.JoinReply.FromString(both.signature)
    token = Token(world().root_sha256, bytes(16), "130102001002", NOW_S + 1000, ("x:1",))
    steps = enrol.joining(token, keys_of("joins"), NOW_S * 1000)
    next(steps)
    leaf = world().places[TOWNSHIP].chain[0]
    spoken = Versions(seen.version_min, seen.version_max)
    with suppress(StopIteration):
        steps.send(ChainSeen(tuple(seen.chain), leaf, seen.now_ms, spoken))
        given = (tuple(answer.chain), tuple(answer.addresses), answer.refused, dict(answer.params), answer.now_ms)
        try:
            steps.send(JoinSeen(*given))
        except PeerError as error:
            if not answer.refused:
                raise
            law(error.code == answer.refused, "the parent's own code")


@cache
def _joinings() -> tuple[bytes, ...]:
    township = world().places[TOWNSHIP]
    keys, now_ms = keys_of("joins"), NOW_S * 1000
    der = enrol.issuing.issue(
        enrol.issuing.parse_request(enrol.issuing.make_request("130102001002", keys.tls, keys.sign, keys.seal)),
        enrol.issuing.Grant("二村", "village", ("130102001002",), 1, 365, 77),
        *(township.identity, township.keys.tls, world().root.levels),
        now_s=NOW_S,
    )
    seen = pb.ChainReply(chain=township.chain, version_min=1, version_max=2, now_ms=now_ms).SerializeToString()
    answers = (
        pb.JoinReply(chain=(der, *township.chain), addresses=["x:1"], now_ms=now_ms),
        pb.JoinReply(refused="FN-5103", params={"node": "x", "expired": "a", "now": "b"}, now_ms=now_ms),
    )
    pairs = (pb.SignedManifest(manifest=seen, signature=one.SerializeToString()) for one in answers)
    return tuple(one.SerializeToString() for one in pairs)


def _opening(data: bytes) -> None:
    found = bun.parse_opening(data)
    again = bun.parse_opening(bun.opening_frame(found))
    law(again == replace(found, hello=_plainly(found.hello)), "an opening comes back")  # type: ignore[arg-type]


@cache
def _openings() -> tuple[bytes, ...]:
    hello = wire.Hello(TOWNSHIP, (), NOW_S * 1000, bytes(16), wire.Cursor(bytes(16), 3, bytes(8)), incarnation=1)
    return (
        bun.opening_frame(bun.Opening(hello, 3, 9)),
        bun.opening_frame(bun.Opening(hello, 0, 1, (b"own", b"root"), ("10.0.0.1:7443",), b"request")),
    )


def _intake(data: bytes) -> None:
    """Frames of a bundle, each after its length."""
    intake, at, held = bun.Intake(), 0, 0
    while at + 2 <= len(data):
        size = int.from_bytes(data[at : at + 2], "big")
        found = intake.take(data[at + 2 : at + 2 + size])
        at += 2 + size
        held = max(held, len(intake._inbox.half.data) if intake._inbox.half else 0)
        law(not intake._inbox._committing, "nothing is kept of what was handed over")
        if isinstance(found, bun.Commit) and found.late is None:
            law(0 < len(found.data) <= seg.ENVELOPE_BYTES_MAX, "a segment's size")
    law(held <= seg.ENVELOPE_BYTES_MAX, "half a segment")
    intake.end()


@cache
def _intakes() -> tuple[bytes, ...]:
    by, data = Cosignature(NOW_S, bytes(64)), b"".join(seed("x", n) for n in range(8))
    made = (
        (wire.Ack((wire.Outcome(3, by),)), wire.Chunk(1, 0, data[:100], len(data), wire_hash(data), by),
         wire.Chunk(1, 100, data[100:]), wire.Late(2, "hebei/13/1/x", 1, bytes(32), by)),
        (wire.Fenced("FN-6420", ("note",)), wire.Chunk(4, 0, b"abc", 3), wire.Witnessed(5, ())),
    )  # fmt: skip
    found = []
    for messages in made:
        parts = [wire.encode(number, one) for number, one in enumerate(messages, 1)]
        found.append(b"".join(len(one).to_bytes(2, "big") + one for one in parts))
    return tuple(found)


def _stick_request(data: bytes) -> None:
    der, proof = bun.parse_request(data)
    bun.proves(KEYS.sign.public, bytes(32), der, proof)


def _stick_requests() -> Iterator[bytes]:
    der = enrol.issuing.make_request("1303", KEYS.tls, KEYS.sign, KEYS.seal)
    yield bun.encode_request(der, None)
    yield bun.encode_request(der, _tokens()[0])


def _versions(data: bytes) -> None:
    """What a peer says of the versions that it speaks, in a Bye and in a Hello."""
    low, high = int.from_bytes(data[:4], "big"), int.from_bytes(data[4:8], "big")
    software, _, rest = data[8:].decode("utf-8", "replace").partition("\n")
    pairs = (line.partition("=") for line in rest.split("\n"))
    versions.told({name: value for name, _, value in pairs})
    law(versions.agree(versions.SPOKEN, Versions(low, high), software) in (1, 2), "a version that is spoken")


def _versions_seeds() -> Iterator[bytes]:
    for low, high in ((1, 2), (3, 4), (0, 0)):
        head = low.to_bytes(4, "big") + high.to_bytes(4, "big")
        yield head + b"fednode/0.3.0\ntheirs=1-1\nours=2-3\ninstall=fednode>=0.3.0"


TARGETS = (
    Target("frame", _frame, WIRE, frames, PROTOBUF),
    Target("where", _where_refused, WIRE, wheres, PROTOBUF),
    Target("segment", _segment, codes("6401 6402 6403 6410 6404 6202"), envelopes, PROTOBUF),
    Target("body", _same, codes("6401 6402"), _body_seeds),
    Target("body-inside", lambda data: _same(packing.pack(data)), codes("6401 6402"), bodies, PROTOBUF),
    Target("packing", _unpacked, codes("6401 6402"), _body_seeds),
    Target("verify-inside", _signed, VERIFIED, _signed_seeds, PROTOBUF, (bun.DecodeError,)),
    Target("payload", _payload, codes(""), _payloads, TEXT),
    Target("log-name", _log_name, codes("6410"), _log_names, TEXT, bytes_max=300),
    Target("erase", _erase, codes("6402 6410"), _erases, TEXT, bytes_max=800),
    Target("rewrap", _rewrap, codes("6402 6403 6410"), _rewraps, bytes_max=1100),
    Target("rewrap-inside", _rewrap_inside, codes("6402 6403 6406 6410 5440 5441 5443 6404 6409"),
           lambda: [one[:-64] for one in _rewraps()], bytes_max=1100),
    Target("directory", _said, codes("5430 5431 6402"), _sayings, TEXT),
    Target("catalog", _catalog, CATALOG, catalogs, TEXT, bytes_max=8192),
    Target("cell", _cell, codes(""), _cells, TEXT, bytes_max=300),
    Target("token", _token, codes("3101 3102"), lambda: [one.encode().encode() for one in _tokens()], TEXT),
    Target("token-inside", _token_inside, codes("3101 3102"), _token_bodies, TEXT, bytes_max=1600),
    Target("joining", _joining,
           CHAIN | codes("6110 6111 6112 5505 5518 5130 5131 5103 5113"), _joinings, PROTOBUF,
           (bun.DecodeError,), 12288),
    Target("opening", _opening, WIRE | codes("5504 5505 5518"), _openings, PROTOBUF),
    Target("intake", _intake, WIRE | codes("5504 5506 5507 6401 6405"), _intakes),
    Target("stick-request", _stick_request, codes("6503 5524"), _stick_requests, PROTOBUF),
    Target("versions", _versions, codes("5505 5518"), _versions_seeds, TEXT),
)  # fmt: skip
__all__ = ["TARGETS", "Dataset", "IntegrityError", "LogState", "vol"]
