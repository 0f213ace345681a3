"""Real processes on a machine whose clock is years off (libfaketime): TLS, gRPC and SQLite see that clock, too."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node.shipped import catalog
from processes import FEDNODE, Processes
from sample_data import records, write

LIBRARY = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
PROVINCE, CITY = "13", "1301"
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (Debian package faketime)"),
]


class FakeClock:
    """A machine's clock for the programs of one node: it runs, from what the file says; the file may be changed."""

    def __init__(self, nodes: Processes, node: str, folder: Path) -> None:
        self._file = folder / f"{node}.clock"
        nodes.environment[node] = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }

    def off(self, by: str) -> None:
        """By so much: "-10y", "+60y"."""
        self._file.write_text(by + "\n")


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[Processes]:
    """A province, running, with a catalog."""
    made = Processes(tmp_path)
    try:
        made.found(PROVINCE, "province", "河北省")
        made.run(PROVINCE, "catalog", "publish", "--shipped")
        yield made
    finally:
        for process in made.daemons.values():
            process.kill()
            process.wait()


def rows(path: Path, seed: int) -> str:
    """A file of 40 licences of the city's."""
    write(path, catalog().datasets["admin-licence"], records("admin-licence", 40, seed=seed, area=CITY))
    return str(path)


def corrected(nodes: Processes) -> None:
    """The province corrects a record of the city's that it has seen; the city gets it."""
    found = nodes.run(PROVINCE, "find", "admin-licence", "--limit", "1")["records"][0]
    key, record = found["key"], found["record"]
    record["xk_zt"] = "1" if record["xk_zt"] == "2" else "2"
    nodes.run(PROVINCE, "put", "admin-licence", json.dumps(record, ensure_ascii=False), "--area", CITY)
    nodes.until("corrected", lambda: nodes.run(CITY, "get", "admin-licence", key)["record"] == record)
    nodes.until("the same at both", lambda: nodes.records(CITY) == nodes.records(PROVINCE))


@pytest.mark.parametrize("off", ["-55y", "-10y", "+10y", "+73y"], ids=["1971", "2016", "2036", "2099"])
def test_a_node_whose_machine_is_years_off_joins_imports_syncs_and_is_corrected(
    nodes: Processes, tmp_path: Path, off: str
) -> None:
    clock = FakeClock(nodes, CITY, tmp_path)
    clock.off(off)
    nodes.found(CITY, "city", "石家庄市", PROVINCE)
    nodes.until("the catalog is there", lambda: nodes.run(CITY, "status")["status"]["catalog"] == 1)
    there = nodes.run(CITY, "status")["status"]["clock"]
    assert there["sure"]
    assert abs(there["offset_ms"]) > 9 * 365 * 86_400_000
    assert nodes.run(CITY, "import", "admin-licence", rows(tmp_path / "first.csv", 3))["added"] == 40
    nodes.until("it arrived", lambda: nodes.records(PROVINCE)[0] == 40)
    clock.off("+30y")  # under the running daemon
    assert nodes.run(CITY, "import", "admin-licence", rows(tmp_path / "second.csv", 4))["added"] == 40
    nodes.until("it arrived, too", lambda: nodes.records(PROVINCE)[0] == 80)
    corrected(nodes)
    nodes.kill(CITY, signal.SIGTERM)
    clock.off("-20y")
    nodes.start(CITY)
    corrected(nodes)
    assert nodes.run(PROVINCE, "verify")["problems"] == []
    assert nodes.run(CITY, "verify")["problems"] == []
    assert nodes.run(PROVINCE, "refused")["refused"] == []


def test_joining_with_a_wrong_clock_tells_the_operator_what_to_do(nodes: Processes, tmp_path: Path) -> None:
    clock = FakeClock(nodes, CITY, tmp_path)
    clock.off("-10y")
    token = nodes.run(PROVINCE, "invite", CITY, "--level", "city", "--name", "石家庄市")["token"]
    for lang, words in (("en", "this machine's clock is off by"), ("zh", "本机时钟偏差")):
        home = tmp_path / f"home-{lang}"
        command = [str(FEDNODE), "--home", str(home), "--lang", lang, "join", token]
        done = subprocess.run(command, capture_output=True, text=True, env=nodes._environ(CITY), check=False)
        if lang == "en":
            assert done.returncode == 0, done.stderr
            assert words in done.stderr
            assert "timedatectl set-time" in done.stderr
            status = subprocess.run(
                [str(FEDNODE), "--home", str(home), "--lang", lang, "status"],
                capture_output=True, text=True, env=nodes._environ(CITY), check=True,
            )  # fmt: skip
            assert "not compared with the parent's" in status.stdout
        else:  # the token was used
            assert done.returncode == 5
            assert not home.exists()
