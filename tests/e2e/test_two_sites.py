"""Standbys in earnest, with real processes, cut lines and SIGKILL: two primaries for a while, a standby of a standby's
site, a village's standby."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from cable import Cable
from fednode.node.shipped import catalog
from processes import Processes
from sample_data import records, write

pytestmark = pytest.mark.e2e
LICENCE = "admin-licence"
BEFORE = 200
HOUR = 3_600  # changes on each side: one a second for an hour


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Processes]:
    """A province and its city with the catalog, running; they are gone at the end."""
    found = Processes(tmp_path)
    try:
        found.found("13", "province", "河北省")
        found.run("13", "catalog", "publish", "--shipped")
        found.found("1301", "city", "石家庄市", "13")
        yield found
    finally:
        for process in found.daemons.values():
            process.kill()
            process.wait()


def fill(nodes: Processes, node: str, count: int, seed: int, area: str) -> list[str]:
    """Licences, by import; their keys."""
    path, rows = nodes.folder / f"{node}-{seed}.csv", list(records(LICENCE, count, seed=seed, area=area))
    write(path, catalog().datasets[LICENCE], iter(rows))
    assert nodes.run(node, "import", LICENCE, str(path))["added"] == count
    return ["|".join(row[field] for field in catalog().datasets[LICENCE].key) for row in rows]


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


def test_two_primaries_each_with_a_child_for_an_hour_then_one(nodes: Processes) -> None:
    for county, name in (("130102", "长安区"), ("130104", "桥西区")):
        nodes.found(county, "county", name, "1301")
    with closing(Cable(port(nodes, "13"))) as up, closing(Cable(port(nodes, "1301"))) as down:
        standby = nodes.standby("1301")
        allowed(nodes, "13", standby)
        dials(nodes, "1301", up)
        dials(nodes, "130104", down)
        disputed = fill(nodes, "1301", BEFORE, 1, "1301")[0]
        nodes.until("all have it", lambda: nodes.records("13") == nodes.records(standby) == nodes.records("1301"))
        nodes.until("the county knows the standby", lambda: knows(nodes, "130104", standby))

        up.cut()  # the city is cut off from the province, from its standby and from one of its counties
        down.cut()
        again = promoted(nodes, standby, "--primary-is-gone", "--address", f"127.0.0.1:{port(nodes, '13')}")
        assert again == 2
        fill(nodes, "130104", HOUR, 2, "130104")  # finds the successor
        fill(nodes, "130102", HOUR, 3, "130102")  # stays with the old primary
        nodes.until("one side", lambda: nodes.records(standby)[0] == BEFORE + HOUR and nodes.pending("130104") == 0)
        nodes.until("the other", lambda: nodes.records("1301")[0] == BEFORE + HOUR and nodes.pending("130102") == 0)
        nodes.kill("1301", signal.SIGKILL)
        nodes.start("1301")
        nodes.run("1301", "put", LICENCE, "--key", disputed, "--field", "xk_nr=old side")
        nodes.run(standby, "put", LICENCE, "--key", disputed, "--field", "xk_nr=new side")
        fill(nodes, "1301", 50, 4, "1301")
        fill(nodes, standby, 50, 5, "1301")
        nodes.kill(standby, signal.SIGKILL)
        nodes.start(standby)

        up.mend()  # healed: nobody touches a child
        down.mend()
        comes_back(nodes, "1301", standby)
        total = BEFORE + 2 * HOUR + 2 * 50
        nodes.until("every change of both is in", lambda: nodes.records("13")[0] == total)
        everywhere = ("13", standby, "1301")
        nodes.until("the same", lambda: len({nodes.records(node) for node in everywhere}) == 1)
        for number, county in enumerate(("130102", "130104")):
            fill(nodes, county, 10, 6 + number, county)
        nodes.until("both go on", lambda: nodes.records("13")[0] == total + 2 * 10)
        for node in everywhere:
            found = [one for one in nodes.run(node, "conflicts")["conflicts"] if one["key"] == disputed]
            lost = next(
                one for one in found if not one["log"].startswith("hebei/1301/1/")
            )  # as it came, and made again
            assert lost["log"] == "hebei/1301/2/admin-licence"
            told = nodes.run(node, "get", LICENCE, disputed, "--withdrawn", "--history")
            assert {"old side", "new side"} <= {one["record"]["xk_nr"] for one in told["versions"]}
        assert [one["incarnation"] for one in nodes.run("13", "nodes")["nodes"] if one["id"] == "1301"] == [2]
        sound(nodes, "13", standby, "1301", "130102", "130104")


def test_the_site_that_took_over_burns_down_too(nodes: Processes) -> None:
    """Two standbys in two towns: the second follows whoever is the primary, and takes over from the first."""
    nodes.found("130102", "county", "长安区", "1301")
    first, second = nodes.standby("1301"), nodes.standby("1301")
    for one in (first, second):
        allowed(nodes, "13", one)
    nodes.until("the county knows both", lambda: knows(nodes, "130102", first, second))
    nodes.run("130102", "sync")  # its parent tells where they are
    fill(nodes, "130102", BEFORE, 1, "130102")
    nodes.until("all have it", lambda: nodes.records(first)[0] == nodes.records(second)[0] == BEFORE)

    nodes.kill("1301", signal.SIGKILL)
    fill(nodes, "130102", BEFORE, 2, "130102")
    assert promoted(nodes, first) == 2
    nodes.until("the second follows", lambda: nodes.records(second)[0] == 2 * BEFORE)
    third = nodes.standby(first)
    nodes.until("it has all", lambda: nodes.records(third)[0] == 2 * BEFORE)
    nodes.until("the county knows them", lambda: knows(nodes, "130102", second, third))
    nodes.run("130102", "sync")

    nodes.kill(first, signal.SIGKILL)
    fill(nodes, "130102", BEFORE, 3, "130102")
    assert promoted(nodes, second) == 3
    nodes.until("the province has all", lambda: nodes.records("13")[0] == 3 * BEFORE)
    nodes.until("the third follows", lambda: nodes.records(third) == nodes.records("13") == nodes.records(second))

    for old in ("1301", first):  # both old machines are found
        nodes.start(old)
        comes_back(nodes, old, second)
    nodes.until("all follow", lambda: len({nodes.records(one) for one in ("13", second, third, first, "1301")}) == 1)
    sound(nodes, "13", "130102", second, third, first, "1301")


def test_a_village_has_a_standby(nodes: Processes) -> None:
    """It has no children, and its certificate may issue for its standby alone."""
    nodes.found("130102001001", "village", "建北社区", "1301")
    standby = nodes.standby("130102001001")
    allowed(nodes, "1301", standby)
    fill(nodes, "130102001001", BEFORE, 1, "130102001001")
    nodes.until("the standby has it", lambda: nodes.records(standby)[0] == BEFORE)
    nodes.kill("1301", signal.SIGKILL)  # the line is down: what follows has gone nowhere but to the standby
    fill(nodes, "130102001001", BEFORE, 2, "130102001001")
    nodes.until("the standby has this, too", lambda: nodes.records(standby)[0] == 2 * BEFORE)
    nodes.kill("130102001001", signal.SIGKILL)
    nodes.start("1301")
    assert promoted(nodes, standby) == 2
    fill(nodes, standby, BEFORE, 3, "130102001001")
    nodes.until("all is above", lambda: nodes.records("1301")[0] == 3 * BEFORE and nodes.pending(standby) == 0)
    nodes.start("130102001001")
    comes_back(nodes, "130102001001", standby)
    nodes.until("it follows", lambda: nodes.records("130102001001") == nodes.records(standby))
    sound(nodes, "13", "1301", standby, "130102001001")
