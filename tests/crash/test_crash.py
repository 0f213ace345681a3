"""The crash lab, short: a seeded choice of what a disk may hold after a power cut; and that the lab finds what it must.
`scripts/crashlab` looks at all of it."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest

from crash import lab
from crash import life as living
from crash.images import Disk, at_position, images
from crash.recorder import Create, Delete, Said, Sync, Truncate, Write, recorded
from fednode.node import erasing, follower, sqlite, transaction
from fednode.node.writer import Writer

SEED = 20_261_126
POSITIONS = 120


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> living.Life:
    return living.live(tmp_path_factory.mktemp("life"))


def chosen(life: living.Life, seed: int, count: int) -> list[int]:
    """Positions; half of them where something has just been promised."""
    rng = Random(seed)
    said = [at for at, event in enumerate(life.trace, 1) if isinstance(event, Said)]
    return rng.sample(range(1, len(life.trace) + 1), count - count // 2) + rng.sample(said, min(len(said), count // 2))


@pytest.mark.slow
def test_after_a_power_cut_at_any_moment_the_node_goes_on_and_nothing_promised_is_lost(life: living.Life) -> None:
    report = lab.look(life, SEED, chosen(life, SEED, POSITIONS))
    assert report.faults == [], f"seed {SEED}"
    assert report.states > 50, "commits"
    assert report.opened > 50
    assert report.went_on > 15


@pytest.mark.slow
def test_what_a_stick_brings_is_there_with_its_cursor_or_not_at_all(tmp_path: Path) -> None:
    assert faults(tmp_path, living.take_in) == ""


# ---------------------------------------------------------------- the recorder


def test_what_sqlite_does_is_recorded_and_what_lies_elsewhere_is_not(tmp_path: Path) -> None:
    inside, outside = tmp_path / "in", tmp_path / "out"
    inside.mkdir()
    outside.mkdir()
    with recorded(inside) as trace:
        for folder in (inside, outside):
            connection = sqlite.connect(folder / "a.db", synchronous="FULL")
            connection.execute("create table t (x)")
            connection.execute("insert into t values (1)")
            connection.close()
    assert {getattr(one, "path", "") for one in trace} == {"a.db", "a.db-journal", "a.db-wal"}
    files: dict[str, bytes] = {}
    disk = Disk(files)
    for one in trace:
        disk.take(one)
    whole = next(at_position(disk, len(trace), Random(0)))
    assert whole.files["a.db"] == (inside / "a.db").read_bytes(), "played again it is the file"


def test_the_default_is_as_it_was_afterwards(tmp_path: Path) -> None:
    with recorded(tmp_path) as trace:
        pass
    sqlite.connect(tmp_path / "b.db", synchronous="FULL").close()
    assert trace == []


# ---------------------------------------------------------------- the images


def of(trace: list[Any], at: int, before: dict[str, bytes] | None = None) -> set[bytes | None]:
    """What may be in file `f` then."""
    return {image.files.get("f") for image in images(before or {}, trace, 1, [at])}


def test_what_was_synced_is_there_and_of_what_was_not_any_part_may_be() -> None:
    trace = [Create("f"), Write("f", 0, b"ab"), Sync("f"), Write("f", 2, b"c"), Write("f", 3, b"d")]
    assert of(trace, 3) == {b"ab"}
    assert of(trace, 5) >= {b"ab", b"abc", b"abcd", b"ab\0d"}
    assert of(trace, 2) >= {None, b"", b"ab"}


def test_a_write_may_be_torn_at_a_sector() -> None:
    new = b"x" * 1024
    seen = {image.files["f"] for seed in range(40) for image in images({"f": bytes(1024)}, [Write("f", 0, new)], seed)}
    assert seen == {bytes(1024), new, bytes(512) + new[512:], new[:512] + bytes(512)}


def test_a_truncation_may_be_lost_and_a_removal_is_certain_once_synced() -> None:
    assert of([Truncate("f", 1)], 1, {"f": b"abc"}) == {b"abc", b"a"}
    assert of([Delete("f", synced=False)], 1, {"f": b"abc"}) == {b"abc", None}
    assert of([Delete("f", synced=True)], 1, {"f": b"abc"}) == {None}


# ---------------------------------------------------------------- bugs that it must find


def faults(folder: Path, *acts: Any) -> str:
    made = living.live(folder, acts)
    return "\n".join(lab.look(made, SEED, chosen(made, SEED, 16)).faults)


@pytest.mark.slow
def test_it_finds_a_commit_that_is_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite.connect
    monkeypatch.setattr(sqlite, "connect", lambda path, **more: real(path, **{**more, "synchronous": "NORMAL"}))
    assert "promised was" in faults(tmp_path, living.ACTS[0])


@pytest.mark.slow
def test_it_finds_a_cursor_that_is_moved_in_a_transaction_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Writer.incoming

    def early(self: Writer, batch: Any) -> Any:
        group = list(batch)
        link = group[-1][0]
        with self.store.write() as tx:
            tx.execute("update peer set have_lsn = ? where id = ?", group[-1][1].lsn, link.peer_id)
        return real(self, group)

    monkeypatch.setattr(Writer, "incoming", early)
    assert "FN-5515" in faults(tmp_path, living.take_in), "the county holds another segment at that place"


@pytest.mark.slow
def test_it_finds_what_is_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = transaction.Transaction.next_lsn

    def in_between(self: transaction.Transaction) -> int:
        self.execute("commit")
        self.execute("begin immediate")
        return real(self)

    monkeypatch.setattr(transaction.Transaction, "next_lsn", in_between)
    assert faults(tmp_path, living.ACTS[0])


@pytest.mark.slow
def test_it_finds_what_was_erased_in_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "overwrite", lambda _connection, _on: None)
    for module in (erasing, follower):
        monkeypatch.setattr(module, "clean_state", lambda _projector, **_: False)
    assert "holds what was erased" in faults(tmp_path, living.ACTS[0], living.erase)
