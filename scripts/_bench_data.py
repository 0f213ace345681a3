"""Rows for the measurements: registrations of invented organisations (`org-registration`), some 320 bytes of JSON each.

Seeded. The keys, unified social credit codes, are random and valid (GB 32100-2015 and GB 11714-1997), so they come in
no order; the names of organisations are invented, those of areas and roads are real.

>>> len(row(random.Random(1))["uscc"])
18
"""

from __future__ import annotations

import csv
import random
from collections.abc import Iterator
from pathlib import Path

ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
ALNUM = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"
CODE_WEIGHTS = (1, 3, 9, 27, 19, 26, 16, 17, 20, 29, 25, 13, 8, 24, 10, 30, 28)
BODY_WEIGHTS = (3, 7, 9, 10, 5, 8, 4, 2)
AREAS = (
    ("130102", "长安区"),
    ("130104", "桥西区"),
    ("130105", "新华区"),
    ("130108", "裕华区"),
    ("130123", "正定县"),
    ("130125", "行唐县"),
    ("130131", "平山县"),
)
ROADS = [
    "中山",
    "和平",
    "建设",
    "体育",
    "槐安",
    "裕华",
    "翟营",
    "友谊",
    "维明",
    "胜利",
    "仓安",
    "石岗",
    "新石",
    "红旗",
    "学府",
    "广安",
]
SIGNS = "华盛泰丰瑞祥恒通达新源宏远金鼎天诚信德嘉美康安博雅东方永兴隆顺百川海纳"
TRADES = [
    "商贸",
    "科技",
    "食品",
    "建筑工程",
    "物流",
    "餐饮管理",
    "医药",
    "机械",
    "农业发展",
    "文化传播",
    "电子",
    "服装",
]
SCOPES = (
    "日用百货、五金交电、电子产品的批发与零售",
    "软件开发、技术咨询、技术服务",
    "预包装食品销售；餐饮服务",
    "建筑工程施工；室内外装饰装修",
    "普通货物道路运输；仓储服务",
    "农产品种植、收购、销售",
)
FIELDS = ("uscc", "name", "kind", "address", "authority", "established", "state", "business_scope", "area")


def code(r: random.Random, area: str) -> str:
    """A valid unified social credit code of an organisation registered in an area."""
    body = [r.choice(ALPHABET[:10] if r.random() < 0.3 else ALPHABET) for _ in range(8)]
    rest = 11 - sum(w * ALNUM.index(c) for w, c in zip(BODY_WEIGHTS, body, strict=True)) % 11
    text = r.choice(("91", "92", "93", "51", "12")) + area + "".join(body) + ("X" if rest == 10 else str(rest % 11))
    total = sum(w * ALPHABET.index(c) for w, c in zip(CODE_WEIGHTS, text, strict=True))
    return text + ALPHABET[(31 - total % 31) % 31]


def row(r: random.Random) -> dict[str, str]:
    """One registration."""
    area, district = r.choice(AREAS)
    name = "".join(r.choice(SIGNS) for _ in range(r.randint(2, 4)))
    return {
        "uscc": code(r, area),
        "name": f"石家庄{name}{r.choice(TRADES)}有限公司",
        "kind": "个体工商户" if r.random() < 0.15 else "企业",
        "address": f"河北省石家庄市{district}{r.choice(ROADS)}{r.choice(('路', '街', '大街'))}{r.randrange(1, 999)}号",
        "authority": f"{district}市场监督管理局",
        "established": f"{r.randint(1990, 2025)}-{r.randint(1, 12):02}-{r.randint(1, 28):02}",
        "state": r.choice(("存续",) * 8 + ("注销", "吊销")),
        "business_scope": r.choice(SCOPES),
        "area": area,
    }


def rows(count: int, seed: int = 1) -> Iterator[dict[str, str]]:
    """`count` registrations with different keys."""
    r = random.Random(seed)
    seen: set[str] = set()
    while len(seen) < count:
        one = row(r)
        if one["uscc"] not in seen:
            seen.add(one["uscc"])
            yield one


def write_csv(path: Path, count: int, seed: int = 1) -> None:
    """A file as a county would hand it in."""
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, FIELDS)
        writer.writeheader()
        writer.writerows(rows(count, seed))
