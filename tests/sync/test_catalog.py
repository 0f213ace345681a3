"""The catalog: what is taken, what is refused and with which words, what may follow what."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
import rfc8785

from fednode.crypto.errors import FednodeError
from fednode.node import shipped
from fednode.node.messages import catalogue, error_text
from fednode.sync.catalog import DATASETS_MAX, FIELDS_MAX, SYSTEM_DATASETS, TEXT_MAX, Catalog, check_succession
from fednode.sync.change import CATALOG, KEY_BYTES_MAX, NODES
from fednode.sync.errors import PeerError, Refused
from fednode.sync.identity import LEVELS

Document = dict[str, Any]


def document() -> Document:
    fields = [
        {"code": "name", "zh": "名称", "en": "Name", "type": "text", "max": 20, "required": True, "search": True},
        {"code": "made", "zh": "日期", "en": "Date", "type": "date", "index": True},
        {"code": "ends", "zh": "截止", "en": "Until", "type": "date", "not_before": "made"},
        {"code": "kind", "zh": "类别", "en": "Kind", "type": "enum", "values": ["a", {"value": "1", "zh": "有效"}]},
    ]
    dataset = {
        "name": "shop",
        "zh": "店铺",
        "en": "Shops",
        "key": ["name"],
        "writers": ["village"],
        "readers": ["city"],
    }
    return {"version": 3, "dataset": [{**dataset, "field": fields}]}


def made(change: Callable[[Document], object] = lambda document: None) -> Catalog:
    given = document()
    change(given)
    return Catalog.from_toml_dict(given)


def test_what_the_engine_relies_on() -> None:
    shop = made().datasets["shop"]
    assert (shop.name, shop.flow, shop.merge, shop.area_field) == ("shop", "up", "latest", "")
    assert (shop.writers, shop.readers) == (("village",), ("city",))
    assert [(field.code, field.index, field.search) for field in shop.fields][:2] == [
        ("name", False, True),
        ("made", True, False),
    ]
    assert shop.field("kind") is shop.fields[3]
    assert shop.field("none") is None


def test_it_travels_as_canonical_json() -> None:
    for catalog in (made(), shipped.catalog()):
        payload = catalog.to_json()
        assert Catalog.from_json(payload) == catalog
        assert rfc8785.dumps(msgspec.json.decode(payload)) == payload


def test_the_system_datasets() -> None:
    assert (SYSTEM_DATASETS[NODES].flow, SYSTEM_DATASETS[CATALOG].flow) == ("both", "down")
    assert all(one.writers == one.readers == LEVELS for one in SYSTEM_DATASETS.values())


def test_a_key_of_a_newer_program_is_left_out_when_it_comes_over_the_wire() -> None:
    plain = msgspec.json.decode(made().to_json())
    plain["dataset"][0]["field"][0]["from_the_future"] = 1
    assert Catalog.from_json(msgspec.json.encode(plain)) == made()


def one(document: Document) -> Document:
    found: Document = document["dataset"][0]
    return found


def field(document: Document, number: int) -> Document:
    found: Document = one(document)["field"][number]
    return found


BAD: list[tuple[str, Callable[[Document], object], dict[str, object]]] = [
    ("FN-3202", lambda d: d.pop("version"), {}),
    ("FN-3202", lambda d: field(d, 0).update(max="x"), {"where": "shop name max"}),
    ("FN-3202", lambda d: field(d, 1).pop("zh"), {"where": "shop made"}),
    ("FN-3202", lambda d: d.update(dataset="x"), {"where": "dataset"}),
    ("FN-3203", lambda d: d.update(version=0), {"version": 0}),
    ("FN-3204", lambda d: d.update(dataset=[]), {"count": 0}),
    ("FN-3205", lambda d: d["dataset"].append(copy.deepcopy(one(d))), {"dataset": "shop"}),
    ("FN-3206", lambda d: field(d, 0).update(maximum=3), {"where": "shop name", "key": "maximum"}),
    ("FN-3206", lambda d: d.update(verzion=3), {"where": "catalog"}),
    ("FN-3206", lambda d: field(d, 3)["values"].append({"value": "2", "cn": "x"}), {"where": "shop kind 2"}),
    ("FN-3207", lambda d: one(d).update(name="sys.shop"), {}),
    ("FN-3207", lambda d: one(d).update(name="Shop"), {}),
    ("FN-3208", lambda d: one(d).update(field=[]), {"count": 0}),
    ("FN-3209", lambda d: one(d).update(flow="sideways"), {"where": "shop", "attribute": "flow"}),
    ("FN-3209", lambda d: one(d).update(merge="mine"), {"attribute": "merge"}),
    ("FN-3209", lambda d: one(d).update({"class": "secret"}), {"attribute": "class"}),
    ("FN-3209", lambda d: one(d).update(writers=["hamlet"]), {"attribute": "writers", "value": "hamlet"}),
    ("FN-3209", lambda d: d.update(targets={"planet": 3}), {"where": "catalog", "attribute": "targets"}),
    ("FN-3209", lambda d: field(d, 0).update(type="float"), {"where": "shop name", "attribute": "type"}),
    ("FN-3209", lambda d: field(d, 1).update(places=7), {"attribute": "places"}),
    ("FN-3209", lambda d: field(d, 1).update(no_end="soon"), {"attribute": "no_end"}),
    ("FN-3210", lambda d: one(d).update(readers=[]), {"dataset": "shop"}),
    ("FN-3211", lambda d: one(d)["field"].append(dict(field(d, 1))), {"field": "made"}),
    ("FN-3212", lambda d: field(d, 0).update(code="Na me"), {"field": "Na me"}),
    ("FN-3212", lambda d: field(d, 1).update(code="record_key"), {"field": "record_key"}),
    ("FN-3213", lambda d: field(d, 0).pop("max"), {"field": "name"}),
    ("FN-3213", lambda d: field(d, 0).update(max=TEXT_MAX + 1), {"field": "name"}),
    ("FN-3214", lambda d: field(d, 3).pop("values"), {"field": "kind"}),
    ("FN-3214", lambda d: field(d, 0).update(values=["x"]), {"field": "name"}),
    ("FN-3215", lambda d: field(d, 3).update(values=["a", {"value": "b", "aliases": ["a"]}]), {"value": "a"}),
    ("FN-3216", lambda d: one(d).update(key=["nome"]), {"attribute": "key", "field": "nome"}),
    ("FN-3216", lambda d: field(d, 2).update(not_before="name"), {"attribute": "not_before", "wanted": "made, ends"}),
    ("FN-3216", lambda d: one(d).update(area_field="name"), {"attribute": "area_field"}),
    ("FN-3216", lambda d: one(d).update(timeliness={"field": "x", "working_days": 7}), {"field": "x"}),
    ("FN-3216", lambda d: one(d).update(retention={"action": "strip"}), {"attribute": "retention.field"}),
    ("FN-3217", lambda d: one(d).update(key=[]), {}),
    ("FN-3217", lambda d: one(d).update(key=["made"]), {}),
    ("FN-3217", lambda d: one(d).update(key=["name", "name"]), {}),
    ("FN-3218", lambda d: field(d, 0).update(max=KEY_BYTES_MAX // 4 + 1), {"limit": KEY_BYTES_MAX}),
]


@pytest.mark.parametrize(("code", "change", "params"), BAD)
def test_what_is_wrong_is_refused_with_its_place(
    code: str, change: Callable[[Document], object], params: dict[str, object]
) -> None:
    with pytest.raises(Refused) as caught:
        made(change)
    assert caught.value.code == code
    assert {name: caught.value.params.get(name) for name in params} == params
    for lang in ("en", "zh"):
        message, hint = error_text(caught.value, lang)
        assert "{" not in message + hint
        assert hint, "and what to do"


def test_limits_at_the_limit() -> None:
    made(lambda d: field(d, 0).update(max=KEY_BYTES_MAX // 4))
    extra = [{"code": f"f{i}", "zh": "", "en": "", "type": "date"} for i in range(FIELDS_MAX - 4)]
    assert len(made(lambda d: one(d)["field"].extend(extra)).datasets["shop"].fields) == FIELDS_MAX
    with pytest.raises(Refused, match="FN-3208"):
        made(lambda d: one(d)["field"].extend([*extra, {**extra[0], "code": "more"}]))
    many = [{**one(document()), "name": f"d{i}"} for i in range(DATASETS_MAX + 1)]
    made(lambda d: d.update(dataset=many[1:]))
    with pytest.raises(Refused, match="FN-3204"):
        made(lambda d: d.update(dataset=many))


def test_other_levels_of_a_trust_domain() -> None:
    given = document()
    given["dataset"][0].update(writers=["bund"], readers=["land"])
    assert Catalog.from_toml_dict(given, ("bund", "land")).datasets["shop"].writers == ("bund",)
    assert Catalog.from_json(Catalog.from_toml_dict(given, ("bund", "land")).to_json()).version == 3


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'"x"', b"{}", b'{"version": 1, "dataset": [1]}', b"\xff"])
def test_anything_else_over_the_wire_is_refused(payload: bytes) -> None:
    with pytest.raises(Refused, match=r"FN-320[12]"):
        Catalog.from_json(payload)


def newer(change: Callable[[Document], object]) -> Catalog:
    def both(given: Document) -> None:
        given["version"] = 4
        change(given)

    return made(both)


def test_a_newer_catalog_may_follow() -> None:
    check_succession(made(), made())
    check_succession(made(), newer(lambda d: one(d)["field"].append({**field(d, 1), "code": "more"})))
    check_succession(made(), newer(lambda d: one(d).update(readers=list(LEVELS))))
    check_succession(made(), newer(lambda d: d["dataset"].append({**copy.deepcopy(one(d)), "name": "other"})))


@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("FN-6210", lambda d: d.update(version=2)),
        ("FN-6211", lambda d: d.update(version=3, zh="x")),
        ("FN-3220", lambda d: one(d).update(name="store")),
        ("FN-3221", lambda d: field(d, 3).update(code="sort")),
        ("FN-3222", lambda d: field(d, 1).update(type="integer") or field(d, 2).pop("not_before")),
        ("FN-3223", lambda d: one(d).update(key=["name", "made"])),
        ("FN-3224", lambda d: one(d).update(merge="authority")),
        ("FN-3224", lambda d: one(d).update(flow="both")),
    ],
)
def test_what_may_not_follow(code: str, change: Callable[[Document], object]) -> None:
    with pytest.raises(FednodeError) as caught:
        check_succession(made(), newer(change))
    assert caught.value.code == code
    assert isinstance(caught.value, PeerError if code.startswith("FN-6") else Refused)
    assert code in catalogue()


def test_the_shipped_catalog() -> None:
    catalog = shipped.catalog()
    licence, penalty = catalog.datasets["admin-licence"], catalog.datasets["admin-penalty"]
    registration = catalog.datasets["org-registration"]
    assert licence.key == ("xk_xkjgdm", "xk_wsh", "xk_xkbh")
    assert penalty.key == ("cf_cfjgdm", "cf_wsh")
    assert registration.key == ("uscc",)
    assert [len(one.fields) for one in (licence, penalty, registration)] == [20, 21, 9]
    assert [one.code for one in licence.fields if one.required] == [
        *("xk_xdr_mc", "xk_xdr_lb", "xk_xdr_shxym", "xk_xkws", "xk_wsh", "xk_xklb", "xk_nr", "xk_jdrq", "xk_yxqz"),
        *("xk_yxqzi", "xk_xkjg", "xk_xkjgdm", "xk_zt", "xk_lydw", "xk_lydwdm"),
    ]
    assert [one.code for one in licence.fields if one.search] == ["xk_xdr_mc", "xk_nr"]
    assert {one.code for one in licence.fields if one.index} == {"xk_xdr_shxym", "xk_wsh", "xk_jdrq"}
    assert [one.code for one in (*licence.fields, *penalty.fields) if one.cls == "internal"] == ["xk_frdb", "cf_frdb"]
    assert (penalty.retention.action, penalty.retention.field) == ("withdraw", "cf_gsjzq")
    assert licence.writers == penalty.readers == LEVELS
    assert registration.area_field == "area"
    assert dict(catalog.targets) == {"province": 500_000_000, "city": 6_500_000, "county": 2_000_000}
