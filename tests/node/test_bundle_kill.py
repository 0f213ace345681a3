"""SIGKILL in the middle of an export and of an import: nothing half done counts, and done again it is done."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node import bundle_out, bundles
from fednode.node.app import App
from fednode.node.audit import verify_store
from fednode.sync.errors import Refused
from sticks import SETTINGS, Row, code, held, only, pending, write_much

KILLED = Path(__file__).parents[1] / "lib" / "killed.py"
SEGMENTS = 8


@pytest.fixture
def row(tmp_path: Path) -> Iterator[Row]:
    made = Row(tmp_path, 1)
    write_much(made.apps[1], SEGMENTS)
    yield made
    made.close()


def kill(row: Row, step: str, number: int, node: str, *words: object) -> bool:
    """Run a command that dies on the way; whether it did."""
    command = [sys.executable, str(KILLED), step, str(number), "--home", str(row.folder / node), *map(str, words)]
    done = subprocess.run(command, capture_output=True, timeout=120)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr.decode()
    return done.returncode != 0


def sound(app: App) -> None:
    assert verify_store(app.store, app.trust).problems == []
    assert app.store.refused() == []


def export_dies(row: Row, step: str, number: int) -> bool:
    province, city = row.apps
    carried = row.stick()
    died = kill(row, step, number, "1301", "bundle", "export", "--to", "13", "-o", carried, "--volume-size", "128K")
    seen = ""
    try:
        seen = code(bundles.take_in(province, [carried], answer=False))
    except Refused as error:
        seen = error.code
    assert seen in ("", "FN-3501", "FN-3503")
    taken = not seen
    assert held(province) == (SEGMENTS * 100 if taken else 0)
    assert died or taken
    exported = bundle_out.export(city, "13", carried)
    assert sorted(map(str, carried.iterdir())) == sorted(exported.files), "nothing of the dead one is left"
    assert only(bundles.take_in(province, [carried])).error is None
    assert held(province) == SEGMENTS * 100
    for app in row.apps:
        sound(app)
    return died


@pytest.mark.parametrize(("step", "number"), [("write", 5), ("replace", 2)])
def test_an_export_that_is_killed(row: Row, step: str, number: int) -> None:
    assert export_dies(row, step, number)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
@pytest.mark.parametrize("number", range(6))
def test_an_export_that_is_killed_anywhere(row: Row, step: str, number: int) -> None:
    export_dies(row, step, number)


def import_dies(row: Row, step: str, number: int) -> bool:
    city = row.apps[1]
    carried = row.stick()
    bundle_out.export(city, "13", carried, volume_bytes=128 * 1024)
    died = kill(row, step, number, "13", "bundle", "import", carried)
    again = App.open(row.folder / "13", SETTINGS)  # as after the power came back
    there = held(again)
    assert there % 100 == 0, "whole segments"
    peer = again.store.peer("1301")
    assert peer is not None
    sound(again)
    one = only(bundles.take_in(again, [carried]))
    assert one.error is None
    assert held(again) == SEGMENTS * 100
    assert one.held >= (SEGMENTS * 100 - there) // 100
    sound(again)
    back = only(bundles.take_in(city, [carried], answer=False))
    assert (back.error, pending(city) <= 1) == (None, True), "all but the event of this import is acknowledged"
    again.close()
    sound(city)
    return died


@pytest.mark.parametrize(("step", "number"), [("append", 3), ("commit", 1), ("answer", 0)])
def test_an_import_that_is_killed(row: Row, step: str, number: int) -> None:
    assert import_dies(row, step, number)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("step", "numbers"),
    [("append", 9), ("commit", 5), ("enter", 1), ("project", 1), ("answer", 1), ("write", 3), ("replace", 1)],
)
def test_an_import_that_is_killed_anywhere(tmp_path: Path, step: str, numbers: int) -> None:
    for number in range(numbers):
        (tmp_path / str(number)).mkdir()
        row = Row(tmp_path / str(number), 1)
        write_much(row.apps[1], SEGMENTS)
        import_dies(row, step, number)
        row.close()


def test_an_import_cut_between_its_groups_leaves_a_prefix_and_goes_on(row: Row) -> None:
    """What `applied whole or not at all` means for more than one transaction (docs/architecture.md, Bundles)."""
    carried = row.stick()
    bundle_out.export(row.apps[1], "13", carried)
    assert kill(row, "commit", 1, "13", "bundle", "import", carried)
    again = App.open(row.folder / "13", SETTINGS)
    peer = again.store.peer("1301")
    assert peer is not None
    assert 0 < held(again) < SEGMENTS * 100
    assert peer.have.lsn > 0, "the cursor is at the prefix's end"
    one = only(bundles.take_in(again, [carried]))
    assert one.error is None
    assert 0 < one.held < one.segments, "what was there already is not taken twice"
    assert held(again) == SEGMENTS * 100
    again.close()
