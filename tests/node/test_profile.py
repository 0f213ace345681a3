"""How much memory a node takes: which profile, and that it reaches what takes the memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fednode.node import admission, profile
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import Config
from fednode.node.profile import MIB, NORMAL, SMALL, SMALL_BYTES_MAX, chosen, memory_bytes


@pytest.mark.parametrize(
    ("setting", "memory", "expected"),
    [
        ("auto", SMALL_BYTES_MAX, SMALL),
        ("auto", SMALL_BYTES_MAX + 1, NORMAL),
        ("auto", 0, NORMAL),
        ("small", 64 * SMALL_BYTES_MAX, SMALL),
        ("normal", MIB, NORMAL),
    ],
)
def test_which(setting: str, memory: int, expected: profile.Profile) -> None:
    assert chosen(setting, memory) is expected


def test_the_least_of_machine_and_container_counts(tmp_path: Path) -> None:
    machine, groups = tmp_path / "meminfo", tmp_path / "cgroup"
    machine.write_text("MemFree: 5 kB\nMemTotal:        9216 kB\n")
    groups.write_text("4:memory,hugetlb:/system.slice/a:b\n1:cpu:/\n0::/mine\n")

    def seen(*files: tuple[str, str]) -> int:
        for name, text in files:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        return memory_bytes(machine, groups, tmp_path) // MIB

    assert seen() == 9
    assert seen(("memory.max", "max\n")) == 9, "no limit"
    assert seen(("memory.max", f"{8 * MIB}\n")) == 8, "a container, version 2"
    assert seen(("memory/memory.limit_in_bytes", f"{7 * MIB}\n")) == 7, "a container, version 1"
    assert seen(("mine/memory.max", f"{6 * MIB}\n")) == 6, "a service, version 2"
    assert seen(("memory/system.slice/a:b/memory.limit_in_bytes", f"{5 * MIB}\n")) == 5, "a service, version 1"
    assert memory_bytes(tmp_path / "nowhere", tmp_path / "nowhere", tmp_path / "nowhere") == 0


def test_small_reaches_the_caches_and_what_peers_may_send(tmp_path: Path) -> None:
    config = Config(profile="small")
    app = App.init_province(tmp_path / "13", config, node="13", name="河北省", domain="hebei")
    records = app.records()
    try:
        log, state = app.store.connection, records.projector.connection
        assert log.execute("pragma cache_size").fetchone()[0] == -SMALL.log_cache_kib
        assert state.execute("pragma cache_size").fetchone()[0] == -SMALL.state_cache_kib
        assert state.execute("pragma wal_autocheckpoint").fetchone()[0] == SMALL.state_wal_pages
        assert log.execute("pragma soft_heap_limit").fetchone()[0] == SMALL.heap_bytes
        assert app.new_store().profile is SMALL
        greeting = admission.hello(app.trust, app.store, 0, "x", None, None)
        assert greeting.window == SMALL.window_bytes
    finally:
        log.execute("pragma soft_heap_limit=0")  # it is the process's
        records.close()
        app.close()


def test_config_show_says_which_and_why(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def shown(**environ: str) -> tuple[str, str]:
        assert invoke(["--home", str(tmp_path), "--json", "config", "show", "--origin"], environ) == 0
        document = json.loads(capsys.readouterr().out)
        return document["config"]["profile"], document["origins"]["profile"]

    assert shown(FEDNODE_PROFILE="small") == ("small", "environment FEDNODE_PROFILE")
    name, origin = shown()
    assert name == chosen("auto", memory_bytes()).name
    assert origin == f"default: {memory_bytes() // MIB} MiB of memory"
