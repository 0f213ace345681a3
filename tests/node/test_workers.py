"""When workers may be forked: in a process of its own, for pytest's has threads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stored import fill

SCRIPT = """
import json, sys, threading
from pathlib import Path
from fednode.node import audit, workers
from fednode.node.store import Store
from stored import STASH, COUNTY, known

path = Path(sys.argv[1])
workers.CHANGES_MIN = audit.RUN_CHANGES = 1
told = {"nobody has it open": workers.may_fork(path)}
store = Store.open(path, stash_key=STASH)
told["open"] = workers.may_fork(path)
with store.away():
    told["closed meanwhile"] = workers.may_fork(path)
stop = threading.Event()
thread = threading.Thread(target=stop.wait)
thread.start()
with store.away():
    told["a thread"] = workers.may_fork(path)
stop.set()
thread.join()
methods, plain = [], workers.get_context
workers.get_context = lambda method: methods.append(method) or plain(method)
told["alone"] = repr(audit.verify_store(store, known(COUNTY)))
told["together"] = repr(workers.verify(store, known(COUNTY), jobs=3))
other = Store.read(path, stash_key=STASH)
told["another has it open"] = repr(workers.verify(store, known(COUNTY), jobs=2))
told["methods"] = methods
print(json.dumps(told))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="forks only on Linux")
def test_workers_are_forked_where_no_thread_and_no_connection_is(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    fill(path)
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(path)], capture_output=True, text=True, env=environ)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert [told[when] for when in ("nobody has it open", "closed meanwhile")] == [True, True]
    assert [told[when] for when in ("open", "a thread")] == [False, False]
    assert told["alone"] == told["together"] == told["another has it open"]
    assert told["methods"] == ["fork", "spawn"]
