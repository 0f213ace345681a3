"""Files of sample records: seeded, valid codes and check digits, real area names, invented organisations.

The same arguments give the same file. Used by `scripts/sample-data`, the tests and the bench. Authorities and their
codes depend on the area alone, decision numbers on the seed and the row: files of different seeds never share a key.

>>> rows = list(records("admin-licence", 2, seed=1))
>>> rows[0]["xk_xkjg"], rows[0]["xk_wsh"] != rows[1]["xk_wsh"]
('石家庄市长安区行政审批局', True)
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from openpyxl import Workbook
from stdnum.cn import uscc

from fednode.node import shipped
from fednode.sync.catalog import Dataset

AREA = "130102001001"
FORMS = ("csv", "tsv", "xlsx", "jsonl")
ENCODINGS = ("utf-8", "utf-8-sig", "gb18030", "utf-16")
ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"

_FIRST = "晨瑞恒泰鑫博远盛华安康宏启明景嘉润祥裕和德信诚佳禾沃川岳岭澜"
_SECOND = "光达源丰通业隆成捷洋辉凯元兴林合创新航宇川图美邦立方舟石原野"
_TRADES = (
    ("餐饮服务", "食品经营许可", "热食类食品制售；自制饮品制售"),
    ("食品销售", "食品经营许可", "预包装食品销售；散装食品销售"),
    ("建筑工程", "建筑业企业资质", "建筑工程施工总承包三级"),
    ("医疗器械", "第二类医疗器械经营备案", "第二类医疗器械销售"),
    ("道路运输", "道路运输经营许可", "普通货物道路运输"),
    ("印刷包装", "印刷经营许可", "包装装潢印刷品印刷"),
    ("人力资源", "人力资源服务许可", "人才供求信息的收集和发布；职业介绍"),
    ("环保科技", "排污许可", "废水排放；废气排放"),
    ("农业种植", "农药经营许可", "农药（限制使用农药除外）零售"),
    ("文化传媒", "出版物经营许可", "图书、报刊零售"),
)
_KINDS = ("普通", "特许", "认可", "核准", "登记", "其他")
_SURNAMES = "王李张刘陈杨赵黄周吴徐孙马朱胡郭何林高罗"
_GIVEN = "建国秀英志强丽敏文博雅静海涛晓燕明远佳怡子轩思源"
_BREACHES = (
    ("未按规定公示许可证", "未在经营场所醒目位置公示食品经营许可证", "《中华人民共和国食品安全法》第一百二十六条"),
    ("超范围经营", "超出核准的经营范围从事经营活动", "《中华人民共和国市场主体登记管理条例》第四十六条"),
    ("未建立进货查验制度", "采购食品时未查验供货者的许可证和合格证明", "《中华人民共和国食品安全法》第一百二十六条"),
    ("违法排放污染物", "未按排污许可证的规定排放污染物", "《排污许可管理条例》第三十四条"),
    ("安全生产违法", "未对从业人员进行安全生产教育和培训", "《中华人民共和国安全生产法》第九十七条"),
)


def code(region: str, kind: str, body: str) -> str:
    """A unified social credit code: `kind` two digits, `region` six, `body` nine characters, and the check digit."""
    start = f"{kind}{region}{body}"
    return start + uscc.calc_check_digit(start)


def _random_code(region: str, kind: str, rng: random.Random) -> str:
    return code(region, kind, "MA" + "".join(rng.choices(ALPHABET, k=7)))


def _steady_code(region: str, name: str) -> str:
    """The code of an authority: the same in every file."""
    digest = hashlib.sha256(f"{region}{name}".encode()).digest()
    return code(region, "11", "".join(ALPHABET[byte % 31] for byte in digest[:9]))


class Place:
    """Where the records are made: names of the area and those above it."""

    def __init__(self, area: str) -> None:
        known = shipped.divisions()
        if area not in known:
            raise SystemExit(f"sample-data: {area} is no area of Hebei")
        path = [known[area]]
        while path[-1].parent:
            path.append(known[path[-1].parent])
        names = {one.level: one.name for one in path}
        self.area = area
        self.region = (area[:6] + "000000")[:6]
        self.city = names.get("city", "河北省")
        self.county = names.get("county", "")
        self.street = names.get("township", "")
        self.village = names.get("village", "").removesuffix("居民委员会").removesuffix("村民委员会")
        self.office = f"{self.city}{self.county}"

    def authority(self, name: str) -> tuple[str, str]:
        title = f"{self.office}{name}"
        return title, _steady_code(self.region, title)


def _date(rng: random.Random, year: int) -> str:
    return f"{year}-{rng.randint(1, 12):02}-{rng.randint(1, 28):02}"


def _organisation(place: Place, rng: random.Random, trade: str) -> str:
    brand = rng.choice(_FIRST) + rng.choice(_SECOND) + rng.choice(("", "", rng.choice(_FIRST)))
    return f"{place.city.removesuffix('市')}{brand}{trade}有限公司"


def _person(rng: random.Random) -> str:
    return rng.choice(_SURNAMES) + "".join(rng.choices(_GIVEN, k=rng.choice((1, 2))))


def _licence(place: Place, number: str, rng: random.Random) -> dict[str, str]:
    trade, licence, content = rng.choice(_TRADES)
    office, office_code = place.authority("行政审批局")
    year = rng.randint(2021, 2024)
    decided = _date(rng, year)
    record = {
        "xk_xdr_mc": _organisation(place, rng, trade),
        "xk_xdr_lb": "法人及非法人组织",
        "xk_xdr_shxym": _random_code(place.region, "91", rng),
        "xk_frdb": _person(rng),
        "xk_xkws": f"准予{licence}决定书",
        "xk_wsh": f"冀{place.county[:1]}审许〔{year}〕第{number}号",
        "xk_xklb": rng.choice(_KINDS),
        "xk_xkzs": f"{licence}证",
        "xk_xkbh": f"JY{place.region}{number}",
        "xk_nr": content,
        "xk_jdrq": decided,
        "xk_yxqz": decided,
        "xk_yxqzi": rng.choice(("2099-12-31", f"{year + 5}{decided[4:]}", f"{year + 3}{decided[4:]}")),
        "xk_xkjg": office,
        "xk_xkjgdm": office_code,
        "xk_zt": "1" if rng.random() < 0.95 else "2",
        "xk_lydw": office,
        "xk_lydwdm": office_code,
    }
    if rng.random() < 0.3:
        record["bz"] = f"经营场所：{place.county}{place.street}{place.village}"
    return record


def _slim_licence(place: Place, number: str, rng: random.Random) -> dict[str, str]:
    _, office_code = place.authority("行政审批局")
    decided = _date(rng, 2024)
    return {
        "xk_xdr_mc": rng.choice(_FIRST) + rng.choice(_SECOND) + "公司",
        "xk_xdr_lb": "个体工商户",
        "xk_xdr_shxym": _random_code(place.region, "92", rng),
        "xk_xkws": "许可",
        "xk_wsh": f"许{rng.getrandbits(48):012x}",  # random: the bench wants keys in no order
        "xk_xklb": rng.choice(_KINDS),
        "xk_nr": "食品",
        "xk_jdrq": decided,
        "xk_yxqz": decided,
        "xk_yxqzi": "2099-12-31",
        "xk_xkjg": "局",
        "xk_xkjgdm": office_code,
        "xk_zt": "1",
        "xk_lydw": "局",
        "xk_lydwdm": office_code,
    }


def _penalty(place: Place, number: str, rng: random.Random) -> dict[str, str]:
    kind, facts, ground = rng.choice(_BREACHES)
    office, office_code = place.authority("市场监督管理局")
    year = rng.randint(2021, 2024)
    decided = _date(rng, year)
    penalty = rng.choice(("警告", "罚款", "罚款", "罚款", "没收违法所得"))
    record = {
        "cf_xdr_mc": _organisation(place, rng, rng.choice(_TRADES)[0]),
        "cf_xdr_lb": "法人及非法人组织",
        "cf_xdr_shxym": _random_code(place.region, "91", rng),
        "cf_frdb": _person(rng),
        "cf_wsh": f"冀{place.county[:1]}市监罚〔{year}〕第{number}号",
        "cf_wfxw": kind,
        "cf_wfss": facts,
        "cf_cfyj": ground,
        "cf_cflb": penalty,
        "cf_nr": penalty,
        "cf_jdrq": decided,
        "cf_yxq": f"{year + 1}{decided[4:]}",
        "cf_gsjzq": f"{year + 1}{decided[4:]}",
        "cf_cfjg": office,
        "cf_cfjgdm": office_code,
        "cf_sjly": office,
        "cf_sjlydm": office_code,
    }
    if penalty != "警告":
        yuan = rng.randint(1, 400) * 500
        amount = f"{yuan // 10_000}.{yuan % 10_000:04}".rstrip("0").rstrip(".")
        record["cf_nr_fk" if penalty == "罚款" else "cf_nr_wfff"] = amount
        record["cf_nr"] = f"{penalty}{yuan}元"
    return record


def _registration(place: Place, number: str, rng: random.Random) -> dict[str, str]:
    trade, _, content = rng.choice(_TRADES)
    office, _ = place.authority("市场监督管理局")
    return {
        "uscc": _random_code(place.region, "91", rng),
        "name": _organisation(place, rng, trade),
        "kind": "企业",
        "address": f"{place.office}{place.street}{place.village}{int(number[-6:]) % 900 + 1}号",
        "authority": office,
        "established": _date(rng, rng.randint(2001, 2024)),
        "state": rng.choice(("存续", "存续", "存续", "注销", "吊销")),
        "business_scope": content,
        "area": place.area,
    }


_MAKERS = {
    ("admin-licence", False): _licence,
    ("admin-licence", True): _slim_licence,
    ("admin-penalty", False): _penalty,
    ("org-registration", False): _registration,
}


def records(dataset: str, count: int, *, seed: int, area: str = AREA, slim: bool = False) -> Iterator[dict[str, str]]:
    """Valid records, as code -> text."""
    make = _MAKERS.get((dataset, slim)) or _MAKERS[dataset, False]
    rng, place = random.Random(f"{dataset}/{seed}/{area}"), Place(area)  # a wrong area is told before a file is made
    return (make(place, f"{seed % 1000:03}{i:06}", rng) for i in range(count))


def spoil(dataset: Dataset, record: dict[str, str], which: int) -> dict[str, str]:
    """A record with one fault, of a kind that counties really send; `which` chooses."""
    bad = dict(record)
    uscc_field = next(field.code for field in dataset.fields if field.type == "uscc")
    date_field = next(field.code for field in dataset.fields if field.type == "date")
    enum_field = next(field.code for field in dataset.fields if field.type == "enum")
    text_field = next(field.code for field in dataset.fields if field.type == "text" and field.required)
    faults = (
        (uscc_field, bad[uscc_field][:-1] + ALPHABET[(ALPHABET.index(bad[uscc_field][-1]) + 1) % 31]),
        (date_field, "2023-02-30"),
        (enum_field, "不详"),
        (text_field, ""),
        (uscc_field, bad[uscc_field][:15]),
        (text_field, "超长" * 200),
        (uscc_field, "9.11301E+17"),
    )
    field, value = faults[which % len(faults)]
    bad[field] = value
    return bad


def write(
    path: Path,
    dataset: Dataset,
    rows: Iterator[dict[str, str]],
    *,
    form: str = "csv",
    encoding: str = "utf-8",
    headers: str = "zh",
) -> None:
    """Write records to a file: `form` csv, tsv, xlsx or jsonl; `headers` zh, en or code."""
    codes = [field.code for field in dataset.fields]
    titles = [str(getattr(field, headers)) for field in dataset.fields]
    if form == "jsonl":
        with path.open("w", encoding=encoding) as file:
            named = dict(zip(codes, titles, strict=True))
            for row in rows:
                file.write(json.dumps({named[name]: value for name, value in row.items()}, ensure_ascii=False) + "\n")
    elif form == "xlsx":
        book = Workbook(write_only=True)
        sheet = book.create_sheet(dataset.zh)
        sheet.append(titles)
        for row in rows:
            sheet.append([row.get(name) for name in codes])
        book.save(path)
    else:
        with path.open("w", encoding=encoding, newline="") as file:
            writer = csv.writer(file, delimiter="\t" if form == "tsv" else ",")
            writer.writerow(titles)
            writer.writerows([row.get(name, "") for name in codes] for row in rows)


def spoiled(dataset: Dataset, rows: Iterator[dict[str, str]], count: int, bad: int) -> Iterator[dict[str, str]]:
    """The rows, `bad` of them with a fault, spread evenly."""
    chosen = {i * count // bad: i for i in range(bad)} if bad else {}
    for i, row in enumerate(rows):
        yield spoil(dataset, row, chosen[i]) if i in chosen else row


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of scripts/sample-data."""
    parser = argparse.ArgumentParser(prog="scripts/sample-data", description=(__doc__ or "").split("\n", 1)[0])
    names = list(shipped.catalog().datasets)
    parser.add_argument("--dataset", choices=names, default=names[0])
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--area", default=AREA, help="the area whose records they are (default: %(default)s)")
    parser.add_argument("--format", choices=FORMS, dest="form", help="default: as the name of FILE ends, else csv")
    parser.add_argument("--encoding", choices=ENCODINGS, default="utf-8")
    parser.add_argument("--headers", choices=("zh", "en", "code"), default="zh")
    parser.add_argument("--bad", type=int, default=0, metavar="K", help="make K of the rows bad")
    parser.add_argument("--slim", action="store_true", help="required fields only, short values (for the bench)")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE")
    given = parser.parse_args(arguments)
    if not 0 <= given.bad <= given.rows:
        parser.error("--bad: from 0 to the number of rows")
    dataset = shipped.catalog().datasets[given.dataset]
    rows = records(given.dataset, given.rows, seed=given.seed, area=given.area, slim=given.slim)
    rows = spoiled(dataset, rows, given.rows, given.bad)
    ending = given.output.suffix.lower().removeprefix(".")
    form = given.form or (ending if ending in FORMS else "csv")
    write(given.output, dataset, rows, form=form, encoding=given.encoding, headers=given.headers)
    print(f"{given.output}: {given.rows} rows of {given.dataset}, {given.bad} of them bad", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
