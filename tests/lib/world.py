"""A small province with real keys and certificates, in memory: no disk, no network, no clock, no randomness.

    13 province > 1301 city > 130102 county > 130102001 township > 130102001001 village
                              130104 county
                > 1302 city
                > 9902 city (its own scope: 1399)

>>> world = World()
>>> world.identity("1301").level
'city'
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fednode.crypto import canonical, certs, checkpoint, issuing
from fednode.crypto.certs import Identity
from fednode.crypto.keys import SealKey, SigningKey, TlsKey
from fednode.crypto.merkle import Frontier
from fednode.node.trust import Trust
from fednode.sync import segment as seg
from fednode.sync.catalog import SYSTEM_DATASETS, Catalog, Dataset
from fednode.sync.change import Change, Columns, LogName
from fednode.sync.enrol import Keys
from fednode.sync.identity import LEVELS, Directory
from fednode.sync.log import LogState, OwnSegment, extend
from fednode.sync.verify import Context
from fednode.sync.wire import Cosignature

NOW_S = 1_780_000_000
DAYS = 365
TREE = (
    ("13", "province", "root", ("13",)),
    ("1301", "city", "13", ("1301",)),
    ("1302", "city", "13", ("1302",)),
    ("9902", "city", "13", ("1399",)),
    ("130102", "county", "1301", ("130102",)),
    ("130104", "county", "1301", ("130104",)),
    ("130102001", "township", "130102", ("130102001",)),
    ("130102001001", "village", "130102001", ("130102001001",)),
)
CATALOG_TOML = {
    "version": 1,
    "dataset": [
        {
            "name": "shop",
            "zh": "店铺",
            "en": "Shops",
            "key": ["name"],
            "writers": ["village", "county", "province"],
            "readers": ["village", "township", "county", "province"],  # not the city: it only carries
            "flow": "both",
            "area_field": "area",
            "field": [
                {"code": "name", "zh": "名称", "en": "Name", "type": "text", "max": 20, "required": True},
                {"code": "area", "zh": "区划", "en": "Area", "type": "area"},
            ],
        }
    ],
}


def seed(*parts: object) -> bytes:
    """32 bytes that are always the same for the same words."""
    return hashlib.sha256("/".join(map(str, parts)).encode()).digest()


class Clock:
    """A clock that is set by hand (`ms`), Unix milliseconds."""

    def __init__(self) -> None:
        self.ms = NOW_S * 1000

    def __call__(self) -> int:
        return self.ms


class Stream:
    """An rng that gives the same bytes in every run."""

    def __init__(self, *parts: object) -> None:
        self._parts, self._count = parts, 0

    def __call__(self, size: int) -> bytes:
        self._count += 1
        return hashlib.shake_256(seed(*self._parts, self._count)).digest(size)


def keys_of(name: str, life: int = 1) -> Keys:
    """The keys of a node's life."""
    tls = TlsKey.from_seed(seed(name, life, "tls") + bytes(8))
    return Keys(SigningKey.from_seed(seed(name, life, "sign")), SealKey.from_seed(seed(name, life, "seal")), tls)


@dataclass(frozen=True)
class Place:
    """A node of the world."""

    keys: Keys
    chain: tuple[bytes, ...]

    @property
    def identity(self) -> Identity:
        return certs.parse(self.chain[0])


class World:
    """The nodes of `TREE` under one root. `wide`: certificates of today; without it, of release 0.1."""

    def __init__(self, domain: str = "hebei", *, wide: bool = True) -> None:
        self.domain, self.wide = domain, wide
        self.root_key = TlsKey.from_seed(seed(domain, "root") + bytes(8))
        self.root_der = issuing.make_root(
            domain, ("13",), LEVELS, self.root_key, now_s=NOW_S, days=7300, serial=1, wide=wide
        )
        self.root = certs.parse(self.root_der)
        self.root_sha256 = hashlib.sha256(self.root_der).digest()
        self.catalog = Catalog.from_toml_dict(CATALOG_TOML)
        self.places: dict[str, Place] = {}
        for node, level, parent, scope in TREE:
            der = self.certificate(node, level=level, parent=parent, scope=scope)
            above = (self.root_der,) if parent == "root" else self.places[parent].chain
            self.places[node] = Place(self.keys(node), (der, *above))

    def keys(self, node: str, life: int = 1) -> Keys:
        return keys_of(f"{self.domain}/{node}", life)

    def identity(self, node: str) -> Identity:
        return self.places[node].identity

    def certificate(
        self,
        node: str,
        *,
        level: str,
        parent: str,
        scope: tuple[str, ...],
        life: int = 1,
        now_s: int = NOW_S,
        days: int = DAYS,
        incarnation: int = 0,
        standby: bool = False,
    ) -> bytes:
        """A certificate for a node, by a parent of this world ("root" for the root itself)."""
        mine = self.keys(node, life)
        made = issuing.make_request(node, mine.tls, mine.sign, mine.seal, wide=self.wide)
        request = issuing.parse_request(made)
        grant = issuing.Grant(node, level, scope, incarnation or life, days, int.from_bytes(seed(node)[:4], "big") + 1)
        grant = replace(grant, standby=standby)
        issuer, key = self.issuer(parent)
        return issuing.issue(request, grant, issuer, key, LEVELS, now_s=now_s)

    def issuer(self, node: str) -> tuple[Identity, TlsKey]:
        if node == "root":
            return self.root, self.root_key
        return self.identity(node), self.places[node].keys.tls

    def directory(self, *, without: Iterable[str] = ()) -> Directory:
        """All nodes known."""
        directory = Directory(self.root_der, self.domain)
        for node, place in self.places.items():
            if node not in without:
                directory.seed(place.chain)
        return directory

    def dataset(self, name: str) -> Dataset | None:
        return SYSTEM_DATASETS.get(name) or self.catalog.datasets.get(name)

    # ------------------------------------------------------------ segments

    def log(self, node: str, dataset: str = "shop", audience: str = "", incarnation: int = 1) -> LogName:
        return LogName(self.domain, node, incarnation, dataset, audience)

    def readers(self, *nodes: str) -> list[seg.Reader]:
        return [seg.Reader(self.places[one].keys.seal.key_id, self.places[one].keys.seal.public) for one in nodes]

    def segment(
        self,
        node: str,
        changes: Sequence[Change] | None = None,
        *,
        state: LogState | None = None,
        dataset: str = "shop",
        audience: str = "",
        readers: Sequence[str] = ("13", "130102", "130102001", "130102001001"),
        sealed: bool | None = None,
        hlc: int = (NOW_S * 1000) << 16,
        incarnation: int = 1,
        key: SigningKey | None = None,
        prove: bool = True,
    ) -> OwnSegment:
        """The one segment that these changes make at the end of a log."""
        before = state or LogState(self.log(node, dataset, audience, incarnation))
        given = changes if changes is not None else [shop("a", node), shop("b", node)]
        is_sealed = not before.name.is_open if sealed is None else sealed
        (made,) = extend(
            before,
            given,
            range(hlc, hlc + len(given)),
            1,
            key or self.places[node].keys.sign,
            self.readers(*readers) if is_sealed else [],
            is_sealed,
            Stream(node, dataset, audience, before.size, hlc),
            prove and is_sealed,
        )
        return made

    def cosignature(self, witness: str, raw: bytes, time_s: int = NOW_S) -> Cosignature:
        """A node's cosignature of the checkpoint at a segment's end."""
        header = seg.parse(raw).header
        head = checkpoint.Checkpoint(str(header.log), header.end, header.root)
        return Cosignature(time_s, checkpoint.cosign(head, self.places[witness].keys.sign, time_s), witness)

    # ------------------------------------------------------------ verification

    def context(self, me: str, peer: str, *, from_parent: bool = False, **changed: Any) -> Context:
        """How `me` looks at what `peer` sends."""
        keys = self.places[me].keys
        directory = changed.pop("directory", None) or self.directory()
        context = Context(
            self.identity(me),
            self.identity(peer),
            from_parent,
            directory,
            self.dataset,
            keys.seal.key_id,
            lambda envelope: seg.unwrap(envelope, keys.seal.key_id, keys.seal.private),
            NOW_S,
            self.lawful(directory),
        )
        return replace(context, **changed)

    def lawful(self, directory: Directory) -> Callable[[LogName, Columns], None]:
        """What a node with this directory and this world's catalog finds lawful."""
        trust = Trust(self.places["13"].chain, "13")
        trust.directory, trust.catalog = directory, self.catalog
        return trust.lawful


def shop(name: str, area: str, **more: Any) -> Change:
    """A change of the dataset of `CATALOG_TOML`."""
    return Change(name.encode(), canonical.dumps({"name": name, "area": area, **more}))


def fresh(name: LogName) -> LogState:
    """The state of a log of which nothing is held."""
    return LogState(name, Frontier.EMPTY)
