"""An import that is killed in the middle: what it has written is in the audit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.shipped import catalog
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


def test_regression_a_killed_import_leaves_no_change_without_an_event(tmp_path: Path) -> None:
    """The event came at the end alone."""
    app = App.init_province(tmp_path / "13", Config(), node="13", name="省", domain="hebei")
    app.publish_catalog(catalog())
    path = tmp_path / "x.csv"
    write(path, catalog().datasets[LICENCE], records(LICENCE, 3 * GROUP, seed=5, area="130102001001"))
    command = [sys.executable, "-c", KILLED, str(tmp_path / "13"), str(path), str(GROUP)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, env={**os.environ})
    assert done.returncode == -signal.SIGKILL, done.stderr
    projector = app.new_projector()
    assert projector.catch_up() == GROUP, "one group is in, whole"
    projector.close()
    assert actions(app).count("import.started") == 1
    assert "import" not in actions(app)
    app.close()
