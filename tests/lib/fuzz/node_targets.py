"""Targets in `fednode.node`: files that people bring, settings, what they type, what a peer's reasons say.

>>> [one.name for one in TARGETS][:3]
['encoding', 'csv', 'jsonl']
"""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
import unicodedata
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from openpyxl import Workbook

from fednode.crypto.errors import FednodeError
from fednode.node import config, events, ingest, records, shipped, timetable
from fednode.node.ingest.text import detect
from fednode.node.messages import LANGUAGES, catalogue, error_text
from fednode.node.projection import fts_phrase
from fednode.sync.catalog import Dataset
from fednode.sync.errors import PeerError
from fednode.sync.formats import RowValidator
from fuzz.sync_targets import CATALOG, FIELDS
from fuzz.target import TEXT, Target, codes, law

SHOP = Dataset("shop", "店铺", "Shops", ("t",), ("village",), ("city",), FIELDS)
ROWS = (
    ("文(必填)", "Lines", "类", "代码", "日期", "金额", "数", "区划"),
    ("长安店", "ab", "普通", "911100006000373410", "2024年3月5日", "1,234.5", "7", "130102"),
    ("=x", "", "特许", "", "45356", "", "-0", "1301020010"),
)


@cache
def _file() -> Path:
    """The file that is read: in memory where there is a file system for that."""
    place = Path(tempfile.mkdtemp(prefix="fednode-fuzz-", dir="/dev/shm" if Path("/dev/shm").is_dir() else None))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    return place / "config.toml"


def _put(data: bytes) -> Path:
    _file().write_bytes(data)
    return _file()


# ---------------------------------------------------------------- files of records


def _encoding(data: bytes) -> None:
    found = detect(_put(data))
    data.decode(found.codec)


def _encodings() -> Iterator[bytes]:
    text = "\n".join(",".join(row) for row in ROWS)
    yield from (text.encode(codec) for codec in ("utf-8", "utf-8-sig", "gb18030", "utf-16"))


def _rows(data: bytes) -> None:
    """A file as an import reads it, up to what would be recorded."""
    source = ingest.open_source(_put(data), SHOP)
    validate = RowValidator(SHOP, source.columns)
    for _, cells, problems in source.rows():
        found = validate(cells)
        for problem in [*problems, *(found if isinstance(found, list) else ())]:
            for lang in LANGUAGES:
                ingest.problem_text(problem, SHOP, lang)
        if isinstance(found, tuple):
            records.encode(found[0]), found[1].encode()


def _csv_files() -> Iterator[bytes]:
    yield from _encodings()
    yield '说明\n\nt\te\tu\n"a\nb"\t1\t\nx\t\t\t\t\n'.encode()
    yield b"t;e\r\nx;1\r\n"


def _json_files() -> Iterator[bytes]:
    yield '{"文":"a","金额":1.5,"数":7,"x":null}\n\n{"t":"b","t ":"c","e":true,"d":[1]}\n'.encode()
    yield '{"t":"石"}\n'.encode("gb18030")


@cache
def _books() -> tuple[bytes, ...]:
    found = []
    for merged in (False, True):
        book = Workbook()
        sheet: Any = book.active
        for row in ROWS:
            sheet.append(row)
        sheet["F3"] = "=1+1"
        if merged:
            sheet.merge_cells("A2:A3")
        book.save(_file())
        found.append(_file().read_bytes())
    return tuple(found)


FILES = codes("3300 3301 3303 3304 3305 3306 3307 3308 3309 3310 3311 3312 3313 3314")

# ---------------------------------------------------------------- settings


def _config(data: bytes) -> None:
    found, _ = config.load(_put(data).parent, {})
    config.shown(found)


def _configs() -> Iterator[bytes]:
    yield b'listen = "0.0.0.0:7443"\nparent_addresses = ["a:1", "[::1]:2"]\nreserve_mib = 32\n'
    yield (
        b'[sync]\nwindows = ["mon-fri 22:00-02:00"]\nzone = "Asia/Shanghai"\nurgent = true\n'
        b'[[sync.limits]]\nfrom = "08:00"\nto = "18:00"\nlimit = "32k"\n'
    )
    yield b'[backup]\nto = "s3://b/p"\nkey = ""\nendpoint = "https://x.example"\n[jobs]\nscrub = "1m"\n'
    yield b'passphrase = "x"\nlog.level = "info"\ndrill_days = 3\n'


def _catalog_file(data: bytes) -> None:
    found = shipped.read_catalog(_put(data))
    law(type(found).from_json(found.to_json()) == found, "a catalog travels")


def _catalog_files() -> Iterator[bytes]:
    yield (
        'version = 3\nbodies = 2\n[[dataset]]\nname = "shop"\nzh = "店铺"\nen = "Shops"\nkey = ["name"]\n'
        'writers = ["village"]\nreaders = ["city"]\ntargets = { city = 3 }\n'
        '[[dataset.field]]\ncode = "name"\nzh = "名"\nen = "Name"\ntype = "text"\nmax = 20\nrequired = true\n'
        '[[dataset.field]]\ncode = "e"\nzh = "类"\nen = "Kind"\ntype = "enum"\nvalues = ["普", "特"]\n'
        '[dataset.retention]\naction = "keep"\n'
    ).encode()


def _times(data: bytes) -> None:
    """Spans, rates, zones, lines of settings, and times and places as they are typed."""
    text = data.decode("utf-8", "surrogateescape")
    for read in (timetable.parse_span, timetable.parse_duration, timetable.parse_zone, timetable.parse_limit):
        _unreadable(read, text)
    rate = _unreadable(timetable.parse_rate, text)
    if rate:
        law(timetable.parse_rate(timetable.rate_text(rate)) == rate, f"{text!r} is {rate}")
    span = _unreadable(timetable.parse_span, text)
    if span is not None:
        table = timetable.Timetable((span,), "+08:00")
        law((table.open_until(10**12) or 10**12 + 1) > 10**12, "a span ends later than it is open")
        table.next_open(10**12)
    for end in (False, True):
        moment = events.time_of(text, end=end)
        law(moment is None or abs(moment) < 1 << 62, "a time fits a store")
    for cursor in (events._cursor, records._cursor):
        try:
            cursor(text)
        except FednodeError as error:
            law(error.code == "FN-3330", str(error))


def _unreadable(read: Any, text: str) -> Any:
    try:
        return read(text)
    except timetable.Unreadable:
        return None


def _typed() -> Iterator[bytes]:
    for text in ("mon-fri 22:00-02:00", "00:00-24:00", "32k", "1.5M", "10m", "+08:00", "Asia/Shanghai",
                 "sun 8:00-9:00 64k", "2026-01-01", "2026-01-01T10:00:00+08:00", "17-3", "123"):  # fmt: skip
        yield text.encode()


@cache
def _index() -> sqlite3.Connection:
    index = sqlite3.connect(":memory:")
    index.execute("create virtual table words using fts5(text)")
    return index


def _search(data: bytes) -> None:
    """Words that somebody looks for, in the full-text index."""
    text = data.decode("utf-8", "replace")
    _index().execute("select count(*) from words where words match ?", (fts_phrase(text),)).fetchall()


def _reason(data: bytes) -> None:
    """What a peer gives as its reason, in words: they never fail, and are safe to show."""
    code, _, rest = data.decode("utf-8", "replace").partition("\n")
    params = {name: value for name, _, value in (line.partition("=") for line in rest.split("\n"))}
    for error in (
        PeerError("FN-5508", code=code, detail=rest),
        PeerError(code, **{f"p{n}": v for n, v in params.items()}),
    ):
        error.told = params
        for lang in LANGUAGES:
            shown = "".join(error_text(error, lang)).replace("\n", "")
            unsafe = [one for one in shown if unicodedata.category(one) in ("Cc", "Cf", "Cs", "Zl", "Zp")]
            law(not unsafe, f"{shown!r} is not safe to show: {unsafe}")


def _reasons() -> Iterator[bytes]:
    for code in ("FN-5103", "FN-5505", "FN-6411", "FN-9999"):
        names = sorted({part for words in catalogue().get(code, {}).values() for part in words.split("{")[1:]})
        yield "\n".join([code, *(f"{one.split('}')[0]}=x" for one in names)]).encode()


TARGETS = (
    Target("encoding", _encoding, FILES, _encodings, TEXT),
    Target("csv", _rows, FILES, _csv_files, TEXT),
    Target("jsonl", _rows, FILES, _json_files, TEXT),
    Target("xlsx", _rows, FILES, _books, bytes_max=16384),
    Target("config", _config, codes("2601 2602 2603 7619"), _configs, TEXT),
    Target("catalog-file", _catalog_file, CATALOG, _catalog_files, TEXT),
    Target("typed", _times, codes(""), _typed, TEXT, bytes_max=200),
    Target("search", _search, codes(""), lambda: ['石家庄 "a" OR b*'.encode(), b"NEAR(a b)"], TEXT, bytes_max=300),
    Target("reason", _reason, codes(""), _reasons, TEXT, bytes_max=600),
)
