"""The catalog: the province's signed, versioned directory of datasets (资源目录), which says what may be recorded.

Rules
1. A catalog is one document. People write it as TOML (strict: a key that is not known is a mistake); it travels as
   canonical JSON (lenient: a key that is not known comes from a newer program, and is left out).
2. Versions rise by publication and never go down. What was recorded under an older version stays readable, so a new
   version takes no dataset and no field away, and changes no type, key, merge rule or flow (`check_succession`).
3. Whatever is wrong is refused as a whole (Refused FN-32xx), with the dataset and the field that it is about.
4. A dataset's key is made of fields; their texts are so limited that no key is longer than a change may carry.

>>> field = {"code": "name", "zh": "名称", "en": "Name", "type": "text", "max": 20, "required": True}
>>> dataset = {"name": "shop", "zh": "店铺", "en": "Shops", "key": ["name"],
...            "writers": ["village"], "readers": ["city"], "field": [field]}
>>> catalog = Catalog.from_toml_dict({"version": 3, "dataset": [dataset]})
>>> catalog.datasets["shop"].fields[0].type, Catalog.from_json(catalog.to_json()) == catalog
('text', True)
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import msgspec

from fednode.sync.change import ALERTS, AUDIT, CATALOG, KEY_BYTES_MAX, NODES, RECEIPTS, SYSTEM_PREFIX
from fednode.sync.errors import PeerError, Refused
from fednode.sync.identity import LEVELS
from fednode.sync.merge import RULES
from fednode.sync.packing import BODIES_MAX
from fednode.sync.spelling import known_keys

TYPES = ("text", "enum", "uscc", "date", "decimal", "integer", "area")
CLASSES = ("public", "internal", "confidential")
FLOWS = ("up", "down", "both")
ACTIONS = ("keep", "withdraw", "strip")
SUBJECTS = ("organisation", "person", "place", "thing")

CATALOG_KEY = b"catalog"
VERSION_MAX = (1 << 32) - 1  # what a leaf and a segment can name (`schema_version`)
RETENTION_DAYS_MAX = 366_000  # a thousand years: any day that far from another is a date
DATASETS_MAX = 200
FIELDS_MAX = 200
TEXT_MAX = 20_000
PLACES_MAX = 6
KEY_PART_BYTES = {"uscc": 18, "date": 10, "decimal": 24, "integer": 16, "area": 12}
CHARACTER_BYTES = 4

_NAME = re.compile(r"[a-z][a-z0-9-]{0,30}(\.[a-z0-9-]{1,31})?")
_CODE = re.compile(r"[a-z][a-z0-9_]{0,62}")
_LEVEL = re.compile(r"[a-z][a-z0-9-]{0,31}")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


class EnumValue(msgspec.Struct, frozen=True, omit_defaults=True):
    """One value of an enumeration. `value` is recorded; titles and aliases are taken on input as well."""

    value: str
    zh: str = ""
    en: str = ""
    aliases: tuple[str, ...] = ()


class Field(msgspec.Struct, frozen=True, omit_defaults=True, rename={"cls": "class"}):
    """One field. `max`: characters of a text; `lengths`: its exact lengths, where only some are right; `lines`: it may
    have several. `no_end`: the date that stands for "no end"; `not_before`: the date field that this one may not
    precede. `aliases`: other headers under which spreadsheets have it."""

    code: str
    zh: str
    en: str
    type: str
    required: bool = False
    max: int = 0
    lengths: tuple[int, ...] = ()
    lines: bool = False
    values: tuple[EnumValue, ...] = ()
    places: int = PLACES_MAX
    no_end: str = ""
    not_before: str = ""
    index: bool = False
    search: bool = False
    cls: str = "public"
    aliases: tuple[str, ...] = ()
    note: str = ""


class Retention(msgspec.Struct, frozen=True, omit_defaults=True):
    """What happens `days` after the date in `field`: `withdraw` from public view, or `strip` of the payload."""

    action: str = "keep"
    field: str = ""
    days: int = 0


class Timeliness(msgspec.Struct, frozen=True, omit_defaults=True):
    """A record is due within `working_days` of the date in `field`."""

    field: str
    working_days: int


class Dataset(msgspec.Struct, frozen=True, omit_defaults=True, rename={"fields": "field", "cls": "class"}):
    """One kind of record. `writers` and `readers` are levels; `area_field`: the field whose area must lie in the
    writer's scope; `targets`: records that each node of a level is to hold in the end; `no_blank`: levels of which no
    node may be without a record."""

    name: str
    zh: str
    en: str
    key: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    fields: tuple[Field, ...] = ()
    flow: str = "up"
    merge: str = "latest"
    area_field: str = ""
    cls: str = "public"
    subject: str = "organisation"
    legal_basis: str = ""
    retention: Retention = Retention()
    timeliness: Timeliness | None = None
    targets: dict[str, int] = {}
    no_blank: tuple[str, ...] = ()

    @property
    def is_public(self) -> bool:
        """Whether everybody may read all of it."""
        return self.cls == "public" and all(field.cls == "public" for field in self.fields)

    def field(self, code: str) -> Field | None:
        """The field with this code."""
        return next((one for one in self.fields if one.code == code), None)


class _Document(msgspec.Struct, frozen=True, omit_defaults=True):
    version: int
    dataset: tuple[Dataset, ...]
    zh: str = ""
    en: str = ""
    targets: dict[str, int] = {}
    bodies: int = 1


@dataclass(frozen=True, slots=True)
class Catalog:
    """A version of the catalog, checked. `targets`: records that each node of a level is to hold, over all datasets;
    `bodies`: how bodies of segments may be packed, since every node of the trust domain reads that (`packing`)."""

    version: int
    datasets: dict[str, Dataset]
    zh: str = ""
    en: str = ""
    targets: tuple[tuple[str, int], ...] = ()
    bodies: int = 1

    @classmethod
    def from_toml_dict(cls, document: Mapping[str, Any], levels: Sequence[str] = LEVELS) -> Catalog:
        """A catalog out of what `tomllib` read. `levels`: those of the trust domain. Raises Refused FN-32xx."""
        plain = _values_as_tables(document)
        known_keys(plain, _Document)
        return cls._checked(plain, levels)

    @classmethod
    def from_json(cls, payload: bytes) -> Catalog:
        """A catalog out of a change of `sys.catalog`. Raises Refused FN-32xx."""
        try:
            document = msgspec.json.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused("FN-3201", reason=str(error)[:200]) from error
        return cls._checked(document, None)

    @classmethod
    def _checked(cls, plain: Any, levels: Sequence[str] | None) -> Catalog:
        try:
            document = msgspec.convert(plain, _Document)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at ")
            raise Refused("FN-3202", where=_where(plain, where.strip("`")), reason=what) from error
        if document.version < 1:
            raise Refused("FN-3203", version=document.version)
        if document.version > VERSION_MAX:
            allowed = f"1-{VERSION_MAX}"
            raise Refused("FN-3209", where="catalog", attribute="version", value=document.version, allowed=allowed)
        most = BODIES_MAX if levels is not None else document.bodies  # whoever publishes; a newer node may know more
        if not 1 <= document.bodies <= most:
            allowed = f"1-{BODIES_MAX}"
            raise Refused("FN-3209", where="catalog", attribute="bodies", value=document.bodies, allowed=allowed)
        if not 1 <= len(document.dataset) <= DATASETS_MAX:
            raise Refused("FN-3204", count=len(document.dataset), limit=DATASETS_MAX)
        datasets: dict[str, Dataset] = {}
        for one in document.dataset:
            _check_dataset(one, levels)
            if one.name in datasets:
                raise Refused("FN-3205", dataset=one.name)
            datasets[one.name] = one
        _check_levels("catalog", "targets", document.targets, levels)
        targets = tuple(sorted(document.targets.items()))
        return cls(document.version, datasets, document.zh, document.en, targets, document.bodies)

    def to_json(self) -> bytes:
        """The catalog as it travels: canonical (keys are ASCII and numbers whole, so sorting is all it takes)."""
        datasets, targets = tuple(self.datasets.values()), dict(self.targets)
        document = _Document(self.version, datasets, self.zh, self.en, targets, self.bodies)
        return msgspec.json.encode(document, order="sorted")


@cache
def system_datasets(levels: tuple[str, ...]) -> Mapping[str, Dataset]:
    """The datasets that are there without a catalog: written and read at every level of the trust domain."""
    datasets = (
        Dataset(NODES, "节点目录", "Nodes", ("node",), levels, levels, flow="both"),
        Dataset(CATALOG, "资源目录", "Catalog", ("catalog",), levels, levels, flow="down"),
        Dataset(AUDIT, "审计", "Audit", ("event",), levels, levels),
        Dataset(ALERTS, "告警", "Alerts", ("alert",), levels, levels),
        Dataset(RECEIPTS, "删除回执", "Receipts of erasure", ("receipt",), levels, levels, flow="both"),
    )
    return {one.name: one for one in datasets}


SYSTEM_DATASETS = system_datasets(LEVELS)


def check_succession(old: Catalog, new: Catalog) -> None:
    """Whether `new` may follow `old`. Raises PeerError FN-6210 (older), FN-6211 (same version, other content),
    Refused FN-3220 to FN-3224 (what is recorded would no longer be readable, or would merge differently)."""
    if new.version < old.version:
        raise PeerError("FN-6210", theirs=new.version, ours=old.version)
    if new.version == old.version:
        if new != old:
            raise PeerError("FN-6211", version=new.version)
        return
    for name, before in old.datasets.items():
        after = new.datasets.get(name)
        if after is None:
            raise Refused("FN-3220", dataset=name)
        for field in before.fields:
            now = after.field(field.code)
            if now is None:
                raise Refused("FN-3221", dataset=name, field=field.code)
            if now.type != field.type:
                raise Refused("FN-3222", dataset=name, field=field.code, was=field.type, now=now.type)
        if after.key != before.key:
            raise Refused("FN-3223", dataset=name, was=", ".join(before.key), now=", ".join(after.key))
        for attribute in ("merge", "flow", "area_field"):
            was, becomes = getattr(before, attribute), getattr(after, attribute)
            if was != becomes:
                raise Refused("FN-3224", dataset=name, attribute=attribute, was=was, now=becomes)


# ---------------------------------------------------------------- what may stand in a catalog


def _values_as_tables(document: Mapping[str, Any]) -> dict[str, Any]:
    """`values = ["普通", "特许"]` is short for tables with a value each."""
    plain: dict[str, Any] = msgspec.to_builtins(document)
    for dataset in _tables(plain.get("dataset")):
        for field in _tables(dataset.get("field")):
            if isinstance(field.get("values"), list):
                field["values"] = [{"value": one} if isinstance(one, str) else one for one in field["values"]]
    return plain


def _tables(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def _where(document: Any, path: str) -> str:
    """`$.dataset[0].field[2].max` with the names that people know: `admin-licence xk_wsh max`."""
    words: list[str] = []
    node = document
    for step in re.findall(r"\w+", path):
        if isinstance(node, list) and step.isdigit() and int(step) < len(node):
            node = node[int(step)]
            name = (node.get("name") or node.get("code") or node.get("value")) if isinstance(node, dict) else None
            words.append(str(name or f"#{int(step) + 1}"))
        else:
            node = node.get(step) if isinstance(node, dict) else None
            if not isinstance(node, list):
                words.append(step)
    return " ".join(words) or "catalog"


def _check_dataset(dataset: Dataset, levels: Sequence[str] | None) -> None:
    name = dataset.name
    if not _NAME.fullmatch(name) or name.startswith(SYSTEM_PREFIX):
        raise Refused("FN-3207", dataset=name)
    if not 1 <= len(dataset.fields) <= FIELDS_MAX:
        raise Refused("FN-3208", dataset=name, count=len(dataset.fields), limit=FIELDS_MAX)
    for attribute, value, allowed in (
        ("flow", dataset.flow, FLOWS),
        ("merge", dataset.merge, RULES),
        ("class", dataset.cls, CLASSES),
        ("subject", dataset.subject, SUBJECTS),
        ("retention.action", dataset.retention.action, ACTIONS),
    ):
        if value not in allowed:
            raise Refused("FN-3209", where=name, attribute=attribute, value=value, allowed=", ".join(allowed))
    if not 0 <= dataset.retention.days <= RETENTION_DAYS_MAX:
        days, limit = dataset.retention.days, f"0-{RETENTION_DAYS_MAX}"
        raise Refused("FN-3209", where=name, attribute="retention.days", value=days, allowed=limit)
    for attribute, named in (
        ("writers", dataset.writers),
        ("readers", dataset.readers),
        ("targets", dataset.targets),
        ("no_blank", dataset.no_blank),
    ):
        _check_levels(name, attribute, named, levels)
    if not dataset.writers or not dataset.readers:
        raise Refused("FN-3210", dataset=name)
    seen: set[str] = set()
    for field in dataset.fields:
        if field.code in seen:
            raise Refused("FN-3211", dataset=name, field=field.code)
        seen.add(field.code)
        _check_field(dataset, field)
    _check_references(dataset)
    _check_key(dataset)


def _check_levels(where: str, attribute: str, named: Iterable[str], levels: Sequence[str] | None) -> None:
    for one in named:
        if one not in levels if levels is not None else not _LEVEL.fullmatch(one):
            raise Refused("FN-3209", where=where, attribute=attribute, value=one, allowed=", ".join(levels or LEVELS))


def _check_field(dataset: Dataset, field: Field) -> None:
    where = f"{dataset.name} {field.code}"
    if not _CODE.fullmatch(field.code) or field.code.startswith("record_"):
        raise Refused("FN-3212", dataset=dataset.name, field=field.code)
    for attribute, value, allowed in (("type", field.type, TYPES), ("class", field.cls, CLASSES)):
        if value not in allowed:
            raise Refused("FN-3209", where=where, attribute=attribute, value=value, allowed=", ".join(allowed))
    if field.type == "text":
        longest = max(field.lengths, default=field.max)
        if not 1 <= longest <= TEXT_MAX or min(field.lengths, default=1) < 1:
            raise Refused("FN-3213", dataset=dataset.name, field=field.code, limit=TEXT_MAX)
    if not 0 <= field.places <= PLACES_MAX:
        raise Refused("FN-3209", where=where, attribute="places", value=field.places, allowed=f"0-{PLACES_MAX}")
    if (field.type == "enum") != bool(field.values):
        raise Refused("FN-3214", dataset=dataset.name, field=field.code)
    names: dict[str, str] = {}
    for one in field.values:
        for name in {one.value, one.zh, one.en, *one.aliases} - {""}:
            if names.setdefault(name, one.value) != one.value:
                raise Refused("FN-3215", dataset=dataset.name, field=field.code, value=name)
    if field.no_end and (field.type != "date" or not _DATE.fullmatch(field.no_end)):
        raise Refused("FN-3209", where=where, attribute="no_end", value=field.no_end, allowed="YYYY-MM-DD")


def _check_references(dataset: Dataset) -> None:
    """Every field that is named is there, and of a type that makes sense where it is named."""
    named: list[tuple[str, str, tuple[str, ...]]] = [("key", code, ()) for code in dataset.key]
    named += [("not_before", field.not_before, ("date",)) for field in dataset.fields if field.not_before]
    if dataset.area_field:
        named.append(("area_field", dataset.area_field, ("area",)))
    if dataset.timeliness is not None:
        named.append(("timeliness.field", dataset.timeliness.field, ("date",)))
    if dataset.retention.field or dataset.retention.action != "keep":
        named.append(("retention.field", dataset.retention.field, ("date",)))
    for attribute, code, types in named:
        field = dataset.field(code)
        if field is None or (types and field.type not in types):
            wanted = ", ".join(one.code for one in dataset.fields if not types or one.type in types)
            raise Refused("FN-3216", dataset=dataset.name, attribute=attribute, field=code, wanted=wanted)


def _check_key(dataset: Dataset) -> None:
    fields = [field for field in dataset.fields if field.code in dataset.key]
    if not any(field.required for field in fields) or len(set(dataset.key)) != len(dataset.key):
        raise Refused("FN-3217", dataset=dataset.name)
    size = len(fields) - 1
    for field in fields:
        longest = max([field.max, *field.lengths, *(len(one.value) for one in field.values)])
        size += KEY_PART_BYTES.get(field.type, longest * CHARACTER_BYTES)
    if size > KEY_BYTES_MAX:
        raise Refused("FN-3218", dataset=dataset.name, size=size, limit=KEY_BYTES_MAX)
