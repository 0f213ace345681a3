"""What comes with the program: the catalog of organisations and the administrative divisions of Hebei.

Rules
1. Read from the installed package, wherever it is; nothing here is written.
2. A catalog that a person wrote is read in the same way as ours (`read_catalog`), and refused with the same words.

>>> list(catalog().datasets)
['admin-licence', 'admin-penalty', 'org-registration']
>>> divisions()["130102001"]
Division(code='130102001', name='建北街道', level='township', parent='130102')
"""

from __future__ import annotations

import csv
import io
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from fednode.node import toml
from fednode.sync.catalog import Catalog
from fednode.sync.errors import Refused
from fednode.sync.identity import LEVELS

CATALOG_BYTES_MAX = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Division:
    """An administrative division. `parent`: the code above, "" for the province."""

    code: str
    name: str
    level: str
    parent: str


def catalog() -> Catalog:
    """The shipped catalog."""
    text = resources.files("fednode.node").joinpath("data/catalogs/organisations.toml").read_text(encoding="utf-8")
    return Catalog.from_toml_dict(toml.loads(text))


def read_catalog(path: Path, levels: Sequence[str] = LEVELS) -> Catalog:
    """A catalog out of a TOML file. `levels`: those of the trust domain. Raises Refused FN-3300 (no such file),
    FN-32xx."""
    try:
        with path.open("rb") as file:
            data = file.read(CATALOG_BYTES_MAX + 1)
    except OSError as error:
        raise Refused("FN-3300", path=str(path), reason=error.strerror or str(error)) from error
    if len(data) > CATALOG_BYTES_MAX:
        raise Refused("FN-3201", reason=f"> {CATALOG_BYTES_MAX} bytes")
    try:
        document = toml.loads(data.decode("utf-8-sig"))
    except ValueError as error:  # UnicodeDecodeError is one
        raise Refused("FN-3201", reason=str(error)[:200]) from error
    return Catalog.from_toml_dict(document, levels)


@cache
def divisions() -> Mapping[str, Division]:
    """Every division of Hebei by its code, from the top down."""
    packed = resources.files("fednode.node").joinpath("data/hebei-divisions.csv.xz").read_bytes()
    rows = csv.reader(io.StringIO(lzma.decompress(packed).decode()))
    next(rows)
    return {code: Division(code, name, level, parent) for code, name, level, parent in rows}
