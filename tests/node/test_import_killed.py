"""What the audit has of an import, wherever it ends: killed, broken in the middle, in one group of rows or several."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.ingest import open_source
from fednode.node.ingest.source import Row, Source
from fednode.node.shipped import catalog
from fednode.sync.errors import Refused
from journals import actions
from sample_data import records, write

LICENCE, GROUP = "admin-licence", 20
KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.ingest import open_source

app = App.open(Path(sys.argv[1]), Config())
app.store.suit(replace(app.profile, batch_rows=int(sys.argv[3])))
records = app.records()
source = open_source(Path(sys.argv[2]), records.declared("admin-licence"), {})
records.import_rows("admin-licence", source, on_progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))
"""


def province(folder: Path, rows: int) -> App:
    """A province with a catalog, and a file of so many licences beside it."""
    app = App.init_province(folder / "13", Config(), node="13", name="省", domain="hebei")
    app.publish_catalog(catalog())
    write(folder / "x.csv", catalog().datasets[LICENCE], records(LICENCE, rows, seed=5, area="130102001001"))
    return app


def imported(app: App, path: Path) -> None:
    app.store.suit(replace(app.profile, batch_rows=GROUP))
    having = app.records()
    having.import_rows(LICENCE, open_source(path, having.declared(LICENCE)))


def test_regression_a_killed_import_leaves_no_change_without_an_event(tmp_path: Path) -> None:
    """The event came at the end alone."""
    app = province(tmp_path, 3 * GROUP)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "13"), str(tmp_path / "x.csv"), str(GROUP)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env={**os.environ})
    assert done.returncode == -signal.SIGKILL, done.stderr
    projector = app.new_projector()
    assert projector.catch_up() == GROUP, "one group is in, whole"
    projector.close()
    assert actions(app).count("import.started") == 1
    assert "import" not in actions(app)
    app.close()


@pytest.mark.parametrize("rows", [1, GROUP, GROUP + 1, 2 * GROUP])
def test_one_group_of_rows_is_told_whole_with_its_changes_and_several_when_they_begin_and_end(
    tmp_path: Path, rows: int
) -> None:
    app = province(tmp_path, rows)
    begun = len(actions(app))
    imported(app, tmp_path / "x.csv")
    assert actions(app)[begun:] == (["import"] if rows <= GROUP else ["import.started", "import"])
    app.close()


def test_a_file_that_breaks_in_its_first_group_is_told_as_begun_and_not_as_a_whole_import(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = province(tmp_path, GROUP)
    begun = len(actions(app))
    plain = Source.rows

    def broken(source: Source) -> Iterator[Row]:
        some = plain(source)
        yield next(some)
        raise Refused("FN-3309", path="x.csv")

    monkeypatch.setattr(Source, "rows", broken)
    with pytest.raises(Refused):
        imported(app, tmp_path / "x.csv")
    assert actions(app)[begun:] == ["import.started"]
    app.close()


def test_the_event_of_one_group_is_in_the_transaction_of_its_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What cannot be told is not written."""
    app = province(tmp_path, GROUP)
    begun = len(actions(app))
    having = app.records()

    def fails(*_: object, **__: object) -> None:
        raise OSError("no event")

    monkeypatch.setattr(having.journal, "within", fails)
    with pytest.raises(OSError, match="no event"):
        having.import_rows(LICENCE, open_source(tmp_path / "x.csv", having.declared(LICENCE)))
    assert (actions(app)[begun:], app.store.segments(0, 9, dataset=LICENCE)) == ([], [])
    app.close()
