"""What a proof says of its record, for people: shared by the command line and the receipt.

>>> grouped("0123456789abcdef")
'0123 4567 89ab cdef'
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from fednode.sync.change import UPSERT
from fednode.sync.proof_file import Checked


def grouped(sha256: str) -> str:
    """A fingerprint as it is read out on the telephone."""
    return " ".join(sha256[i : i + 4] for i in range(0, len(sha256), 4))


def record_of(checked: Checked) -> dict[str, Any] | None:
    """The record, None for a deletion."""
    if checked.leaf.op != UPSERT:
        return None
    found = msgspec.json.decode(checked.leaf.payload)
    return found if isinstance(found, dict) else {"": found}


def fields_of(checked: Checked, lang: str) -> Iterator[tuple[str, str]]:
    """(title, value) of each field in words; a field that the catalog does not name goes by its code."""
    titles = {one.code: one for one in checked.titles.fields}
    for code, value in (record_of(checked) or {}).items():
        title = titles.get(code)
        text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        if title is None:
            yield code, text
            continue
        words = title.value_zh if lang == "zh" else title.value_en
        yield (title.zh if lang == "zh" else title.en) or code, f"{words} ({text})" if words and words != text else text
