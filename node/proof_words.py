"""A record and its proof in words, for people: shared by the command line and the receipt.

>>> grouped("0123456789abcdef")
'0123 4567 89ab cdef'
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from fednode.sync.catalog import Dataset, Field
from fednode.sync.change import UPSERT
from fednode.sync.proof_file import Checked, FieldTitle, Titles


def grouped(sha256: str) -> str:
    """A fingerprint as it is read out on the telephone."""
    return " ".join(sha256[i : i + 4] for i in range(0, len(sha256), 4))


def record_of(checked: Checked) -> dict[str, Any] | None:
    """The record, None for a deletion. What is signed as a record and is none is shown as it stands."""
    if checked.leaf.op != UPSERT:
        return None
    try:
        found = msgspec.json.decode(checked.leaf.payload)
    except (msgspec.DecodeError, RecursionError):
        found = checked.leaf.payload
    return found if isinstance(found, dict) else {"": found}


def titles_of(declared: Dataset | None, record: Mapping[str, Any]) -> Titles:
    """What the catalog says of a dataset, and of those of its fields that a record has."""
    fields = [one for one in (declared.fields if declared else ()) if one.code in record]
    titles = tuple(_title(field, record[field.code]) for field in fields)
    return Titles(declared.zh if declared else "", declared.en if declared else "", titles)


def _title(field: Field, value: object) -> FieldTitle:
    known = next((one for one in field.values if one.value == value), None)
    return FieldTitle(field.code, field.zh, field.en, known.zh if known else "", known.en if known else "")


def fields_of(checked: Checked, lang: str) -> Iterator[tuple[str, str]]:
    """(title, value) of each field of a proof's record."""
    return in_words(record_of(checked) or {}, checked.titles, lang)


def in_words(record: Mapping[str, Any], titles: Titles, lang: str) -> Iterator[tuple[str, str]]:
    """(title, value) of each field, in the catalog's order; those that it does not name come last, by their codes."""
    named = {one.code: one for one in titles.fields}
    for code in dict.fromkeys((*(code for code in named if code in record), *record)):
        title, value = named.get(code), record[code]
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if title is None:
            yield code, text
            continue
        words = title.value_zh if lang == "zh" else title.value_en
        yield (title.zh if lang == "zh" else title.en) or code, f"{words} ({text})" if words and words != text else text
