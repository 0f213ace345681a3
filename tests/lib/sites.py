"""Standbys in earnest, with real processes: a province and its city with the catalog, and what is done there.

with site(tmp_path) as nodes: standby = nodes.standby("1301"); allowed(nodes, "13", standby); promoted(nodes, standby)
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cable import Cable
from fednode.node.shipped import catalog
from processes import Processes
from sample_data import records, write

LICENCE = "admin-licence"
BEFORE = 200


@contextmanager
def site(folder: Path) -> Iterator[Processes]:
    """A province and its city with the catalog, running; they are gone at the end."""
    with province(folder) as found:
        found.found("1301", "city", "石家庄市", "13")
        yield found


@contextmanager
def province(folder: Path) -> Iterator[Processes]:
    """A province with the catalog, running; it is gone at the end, with all that was started beside it."""
    found = Processes(folder)
    try:
        found.found("13", "province", "河北省")
        found.run("13", "catalog", "publish", "--shipped")
        yield found
    finally:
        for process in found.daemons.values():
            process.kill()
            process.wait()


def fill(nodes: Processes, node: str, count: int, seed: int, area: str) -> list[str]:
    """Licences, by import; their keys."""
    path, rows = nodes.folder / f"{node}-{seed}.csv", list(records(LICENCE, count, seed=seed, area=area))
    dataset = catalog().datasets[LICENCE]
    write(path, dataset, iter(rows))
    assert nodes.run(node, "import", LICENCE, str(path))["added"] == count
    return ["|".join(row[field] for field in dataset.key) for row in rows]


def allowed(nodes: Processes, above: str, standby: str) -> None:
    """A standby that its issuer lets succeed, and that knows it."""
    nodes.until("they know it above", lambda: standby in [one["id"] for one in standbys(nodes, above)])
    nodes.run(above, "standby", "allow", standby)
    nodes.until("it may succeed", lambda: any(one["heir"] for one in standbys(nodes, standby)))


def standbys(nodes: Processes, node: str) -> list[dict[str, Any]]:
    return list(nodes.run(node, "standby", "list")["standbys"])


def knows(nodes: Processes, node: str, *others: str) -> bool:
    return set(others) <= {one["id"] for one in nodes.run(node, "nodes")["nodes"]}


def port(nodes: Processes, node: str) -> int:
    """Where a node serves its children."""
    text = (nodes.home(node) / "config.toml").read_text()
    return int(text.split('listen = "127.0.0.1:')[1].split('"')[0])


def set_(nodes: Processes, node: str, line: str) -> None:
    """Another setting, from the next start on."""
    file = nodes.home(node) / "config.toml"
    file.write_text(f"{line}\n{file.read_text()}")


def dials(nodes: Processes, node: str, cable: Cable) -> None:
    """From now on a node reaches its parent over this line alone."""
    nodes.kill(node, signal.SIGTERM)
    set_(nodes, node, f'parent_addresses = ["127.0.0.1:{cable.port}"]')
    nodes.start(node)


def promoted(nodes: Processes, standby: str, *more: str) -> int:
    """`fednode promote` where the standby's daemon runs; the new incarnation."""
    nodes.kill(standby, signal.SIGTERM)
    taken = nodes.run(standby, "promote", "--yes", *more)["promoted"]
    nodes.start(standby)
    return int(taken["incarnation"])


def comes_back(nodes: Processes, old: str, successor: str) -> None:
    """The old machine, fenced, joins as a standby of its successor."""
    nodes.until("it is fenced", lambda: nodes.run(old, "status")["status"]["fenced"] is not None)
    nodes.kill(old, signal.SIGTERM)
    file = nodes.home(old) / "config.toml"  # where its parent was is not where its successor is
    file.write_text(
        "\n".join(line for line in file.read_text().splitlines() if not line.startswith("parent_addresses"))
    )
    nodes.run(old, "join", nodes.run(successor, "standby", "invite")["token"])
    nodes.start(old)


def sound(nodes: Processes, *names: str) -> None:
    """All that is held verifies, nothing was refused, nobody is fenced."""
    for node in names:
        assert nodes.run(node, "verify", "--full")["problems"] == []
        assert nodes.run(node, "refused")["refused"] == []
        assert nodes.run(node, "status")["status"]["fenced"] is None
