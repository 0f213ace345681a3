"""Which threads give way."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from fednode.node.threads import NICE, give_way


def test_grpc_s_threads_give_way_and_the_program_s_own_do_not(tmp_path: Path) -> None:
    begun, end, ids = threading.Barrier(3), threading.Event(), dict[str, int]()

    def run(name: str) -> None:
        ids[name] = threading.get_native_id()
        begun.wait()
        end.wait()

    before = os.getpriority(os.PRIO_PROCESS, 0)
    threads = [threading.Thread(target=run, args=(name,)) for name in ("event_engine", "fednode-writer")]
    try:
        for one in threads:
            one.start()
        begun.wait()
        for name, number in ids.items():
            (tmp_path / str(number)).mkdir()
            (tmp_path / str(number) / "comm").write_text(name + "\n")
        (tmp_path / "4194305").mkdir()  # it has ended, and says nothing any more
        assert give_way(tmp_path) == 1
        after = {name: os.getpriority(os.PRIO_PROCESS, number) for name, number in ids.items()}
        assert after == {"event_engine": NICE, "fednode-writer": before}
    finally:
        end.set()
        for one in threads:
            one.join()


def test_where_the_system_has_no_such_thing_nothing_happens(tmp_path: Path) -> None:
    assert give_way(tmp_path / "nowhere") == 0
