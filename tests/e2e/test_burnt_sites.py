"""A standby of a standby's site: the one that took over burns down too. Real processes and SIGKILL."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sites import BEFORE, allowed, comes_back, fill, knows, promoted, site, sound

pytestmark = pytest.mark.e2e


def test_the_site_that_took_over_burns_down_too(tmp_path: Path) -> None:
    """Two standbys in two towns: the second follows whoever is the primary, and takes over from the first."""
    with site(tmp_path) as nodes:
        nodes.found("130102", "county", "长安区", "1301")
        first, second = nodes.standby("1301"), nodes.standby("1301")
        for one in (first, second):
            allowed(nodes, "13", one)
        nodes.until("the county knows both", lambda: knows(nodes, "130102", first, second))
        nodes.run("130102", "sync", "--limit", "0")  # a greeting: its parent tells where they are
        fill(nodes, "130102", BEFORE, 1, "130102")
        nodes.until("all have it", lambda: nodes.records(first)[0] == nodes.records(second)[0] == BEFORE)

        nodes.kill("1301", signal.SIGKILL)
        fill(nodes, "130102", BEFORE, 2, "130102")
        assert promoted(nodes, first) == 2
        nodes.until("the second follows", lambda: nodes.records(second)[0] == 2 * BEFORE)
        third = nodes.standby(first)
        nodes.until("it has all", lambda: nodes.records(third)[0] == 2 * BEFORE)
        nodes.until("the county knows them", lambda: knows(nodes, "130102", second, third))
        nodes.run("130102", "sync", "--limit", "0")

        nodes.kill(first, signal.SIGKILL)
        fill(nodes, "130102", BEFORE, 3, "130102")
        assert promoted(nodes, second) == 3
        nodes.until("the province has all", lambda: nodes.records("13")[0] == 3 * BEFORE)
        nodes.until("the third follows", lambda: nodes.records(third) == nodes.records("13") == nodes.records(second))

        for old in ("1301", first):  # both old machines are found
            nodes.start(old)
            comes_back(nodes, old, second)
        nodes.until(
            "all follow", lambda: len({nodes.records(one) for one in ("13", second, third, first, "1301")}) == 1
        )
        sound(nodes, "13", "130102", second, third, first, "1301")
