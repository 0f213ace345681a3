"""A province that runs, with a tree of nodes below it that only report: for pages, pictures and measurements of them.

The daemon, its store, its console and health.db are real. Who is below is not in `sys.nodes`: that would take a
certificate for each; the directory's list is handed in instead (`roster`), and what comes in of them goes through the
frames and the fold that a child's session uses.

    async with Mesh(tmp_path) as mesh:
        province = await Province.found(mesh, small(), monkeypatch)
        province.all_well()
        province.tell("130101", Load(alerts_critical=1))
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from console import ANY_PORT
from fednode.node.mesh import watcher
from fednode.node.mesh.table import FRAME_ENTRIES, Table, Who
from fednode.node.mesh.watcher import bounds_of
from fednode.sync import wire
from fednode.sync.health import About, Health, HealthEntry, HealthPlace, Load, Seen
from fednode.sync.wire_health import about_bytes, load_bytes
from mesh import Mesh, Running

ME = "13"
LEVELS = ("province", "city", "county", "township", "village")
Row = tuple[str, str, str, str]  # code, parent, level, name


def small(cities: int = 3, counties: int = 3, towns: int = 2, villages: int = 4) -> list[Row]:
    """A small province."""
    found: list[Row] = [(ME, "", "province", "河北省")]
    for a in range(1, cities + 1):
        city = f"{ME}{a:02}"
        found.append((city, ME, "city", f"第{a}市"))
        for b in range(1, counties + 1):
            county = f"{city}{b:02}"
            found.append((county, city, "county", f"第{b}县"))
            for c in range(1, towns + 1):
                town = f"{county}{c:03}"
                found.append((town, county, "township", f"第{c}镇"))
                found += [(f"{town}{d:03}", town, "village", f"第{d}村") for d in range(1, villages + 1)]
    return found


def real(path: Path) -> list[Row]:
    """A file of divisions: columns `code`, `parent`, `level`, `name`."""
    with path.open(encoding="utf-8") as file:
        return [(row["code"], row["parent"], row["level"], row["name"]) for row in csv.DictReader(file)]


def people(rows: Sequence[Row]) -> list[Who]:
    """As the directory would have them."""
    paths: dict[str, str] = {}
    children: dict[str, int] = {}
    for code, parent, _, _ in sorted(rows, key=lambda row: LEVELS.index(row[2])):
        paths[code] = f"{paths[parent]} {code}" if parent else code
        children[parent] = children.get(parent, 0) + 1
    return [
        Who(code, name, level, code, parent, paths[code], 1, "", False, children.get(code, 0))
        for code, parent, level, name in rows
    ]


class Province:
    """Of which this process plays the nodes below: it writes health.db beside the daemon, as a command does."""

    def __init__(self, node: Running, who: list[Who]) -> None:
        self.node, self.who = node, {one.id: one for one in who}
        self.cities: dict[str, list[str]] = {}
        for one in who:
            parts = one.path.split(" ")
            if len(parts) > 1:
                self.cities.setdefault(parts[1], []).append(one.id)
        self._inside = {city: frozenset(nodes) for city, nodes in self.cities.items()}
        self._upto = dict.fromkeys(self.cities, 0)
        app = node.app
        self.table = Table.open(app.home.health_db, bytes(4), bounds_of(app))

    @classmethod
    async def found(cls, mesh: Mesh, rows: Sequence[Row], monkeypatch: pytest.MonkeyPatch, **more: Any) -> Province:
        """A province that serves its console; nobody has reported yet."""
        who = people(rows)
        monkeypatch.setattr(watcher, "roster", lambda _trust: who)
        found = cls(await mesh.found(ME, http_listen=ANY_PORT, **more), who)
        await mesh.until(lambda: found.table.meta(watcher.ROSTER) is not None)
        return found

    def close(self) -> None:
        """The table that this process writes."""
        self.table.close()

    def entry(
        self, node: str, load: Load | None = None, about: About | None = None, seen: Seen | None = None
    ) -> HealthEntry:
        """What is told of a node that has met its parent now."""
        told = (None if load is None else load_bytes(load), None if about is None else about_bytes(about))
        if node in self.cities:
            return HealthEntry("", 1, None, *told)
        return HealthEntry(node, 1, seen or Seen(self.node.app.now_s, up=False), *told)

    def frames(self, city: str, entries: Sequence[HealthEntry]) -> list[bytes]:
        """What a city passes on, as it comes over the wire."""
        found = []
        for i in range(0, len(entries), FRAME_ENTRIES):
            part = tuple(entries[i : i + FRAME_ENTRIES])
            self._upto[city] += len(part)
            found.append(wire.encode(1, Health(HealthPlace(1, self._upto[city]), part)))
        return found

    def fold(self, city: str, frames: Sequence[bytes]) -> None:
        """What comes of a city is taken in; their exchange is open."""
        app, inside = self.node.app, self._inside[city]
        for data in frames:
            told = wire.decode(data)[1]
            if isinstance(told, Health):
                self.table.fold(city, 1, told, app.now_ms(), inside.__contains__)
        self.table.see(city, 1, app.now_s, app.now_ms(), up=True)

    def all_well(self) -> None:
        """Everybody has reported, and has nothing to say."""
        fine = Load(), About("0.2.0", 7, 11_000, 30_720, 5, False, self.node.app.now_s + 300 * 86_400)
        for city, nodes in self.cities.items():
            self.fold(city, self.frames(city, [self.entry(one, *fine) for one in nodes]))

    def tell(self, node: str, load: Load | None = None, about: About | None = None, seen: Seen | None = None) -> None:
        """One node's report arrives."""
        city = self.who[node].path.split(" ")[1]
        self.fold(city, self.frames(city, [self.entry(node, load, about, seen)]))
