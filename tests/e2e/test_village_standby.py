"""A village's standby, with real processes and SIGKILL."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from sites import BEFORE, allowed, comes_back, fill, promoted, site, sound

pytestmark = pytest.mark.e2e


def test_a_village_has_a_standby(tmp_path: Path) -> None:
    """It has no children, and its certificate may issue for its standby alone."""
    with site(tmp_path) as nodes:
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
