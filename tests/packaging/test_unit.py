"""The systemd unit: systemd itself finds nothing wrong with it, and how much it leaves open is bounded."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from fednode.node.carrier import SESSIONS_MAX
from source import ROOT

EXPOSURE_MAX = 20  # tenths, as systemd-analyze counts: "OK" ends at 49
UNIT = ROOT / "deploy/fednode.service"


def analyze(tmp_path: Path, *command: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    unit = tmp_path / "fednode.service"
    unit.write_text(UNIT.read_text("utf-8").replace("/usr/bin/fednode", "/bin/true"), "utf-8")
    done = subprocess.run(["systemd-analyze", *command, unit], capture_output=True, text=True, check=False)
    if "nrecognized option" in done.stderr:
        pytest.skip("systemd-analyze is too old")
    return done


def test_systemd_finds_nothing_wrong(tmp_path: Path) -> None:
    done = analyze(tmp_path, "verify")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_it_leaves_little_open(tmp_path: Path) -> None:
    done = analyze(tmp_path, "security", "--offline=true", "--json=short", f"--threshold={EXPOSURE_MAX}")
    assert done.returncode == 0, done.stdout
    closed = {one["json_field"] for one in json.loads(done.stdout) if one["set"]}
    assert {"NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateDevices", "MemoryDenyWriteExecute"} <= closed


def test_a_daemon_that_is_silent_is_started_anew_and_a_machine_that_cannot_is_left_alone() -> None:
    settings = dict(re.findall(r"^(\w+)=(.*)$", UNIT.read_text("utf-8"), re.MULTILINE))
    assert settings["Type"] == "notify"
    assert int(settings["WatchdogSec"]) >= 60, "a slow disk holds the loop up"
    assert settings["Restart"] == "always"
    checks = (ROOT / "deploy/binary/machine.sh").read_text("utf-8")
    assert f"\nCANNOT={settings['RestartPreventExitStatus']}\n" in checks


def test_regression_there_are_descriptors_for_all_that_may_be_connected() -> None:
    """systemd gives 1,024 by itself: the thousandth child could not connect, and no file could be opened any more."""
    (limit,) = re.findall("^LimitNOFILE=([0-9]+)$", UNIT.read_text("utf-8"), re.MULTILINE)
    assert int(limit) > 2 * SESSIONS_MAX
