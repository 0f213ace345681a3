"""Two primaries for an hour, with real processes, cut lines and SIGKILL."""

from __future__ import annotations

import signal
from contextlib import closing
from pathlib import Path

import pytest

from cable import Cable
from sites import BEFORE, LICENCE, allowed, comes_back, dials, fill, knows, port, promoted, site, sound

pytestmark = pytest.mark.e2e
HOUR = 3_600  # changes on each side: one a second for an hour


def test_two_primaries_each_with_a_child_for_an_hour_then_one(tmp_path: Path) -> None:
    with site(tmp_path) as nodes:
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
