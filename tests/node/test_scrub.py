"""The scrub goes round the whole store within its days, a little at a time, and remembers its place."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from fednode.node.audit import Problem, mend
from fednode.node.scrub import DAY_MS, META, STEP_MS, Scrub, due, load, save
from fednode.node.store import Store
from stored import COUNTY, OWN, STASH, THEIRS, Bench, fill, known

START = 1_780_000_000_000
CHANGES = 24


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sound") / "log.db"
    fill(path)
    return path


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Iterator[Store]:
    shutil.copy(sound, tmp_path / "log.db")
    store = Store.open(tmp_path / "log.db", stash_key=STASH)
    yield store
    store.close()


def scrubbing(store: Store, days: int = 1, ms: float = 0) -> Scrub:
    """`ms`: what a look at the clock takes."""
    ticks = count()
    return Scrub(store, known(COUNTY).directory, COUNTY, days, lambda: next(ticks) * ms)


def test_altered_nodes_of_a_tree_are_told_once_and_put_right(store: Store) -> None:
    kept = "select * from tree order by 1, 2, 3"
    before = store.rows(kept)
    bench = Bench(store.path)
    bench.sql("update tree set hash = zeroblob(32) where level = 1")
    scrub = scrubbing(store)
    scrub.step(START)
    found = scrub.step(START + DAY_MS)
    assert {one.code for one in found} == {"FN-6635"}
    assert {one.log for one in found} >= {OWN, THEIRS}
    mend(store, scrub.altered)
    assert store.rows(kept) == before
    scrub.step(START + DAY_MS + 1)
    assert scrub.step(START + 3 * DAY_MS) == []


def test_it_keeps_pace_and_then_rests_until_the_next_round(store: Store) -> None:
    scrub = scrubbing(store)
    done = []
    for hour in range(24):
        assert scrub.step(START + hour * DAY_MS // 24) == []
        done.append(scrub.state.done)
    assert done[0] == 0
    assert all(CHANGES * hour // 24 <= found <= CHANGES * hour // 24 + 4 for hour, found in enumerate(done))
    assert scrub.step(START + DAY_MS - 1) == []
    assert scrub.state.ended_ms == 0
    scrub.step(START + DAY_MS)
    assert (scrub.state.ended_ms, scrub.state.last_changes) == (START + DAY_MS, CHANGES)
    scrub.step(START + DAY_MS + 1)
    state = scrub.state
    assert (state.started_ms, state.ended_ms, state.done, state.last_ended_ms) == (
        START + DAY_MS + 1,
        0,
        0,
        START + DAY_MS,
    )


def test_a_round_that_ends_early_is_not_begun_again_before_its_time(store: Store) -> None:
    scrub = scrubbing(store)
    scrub.step(START)
    scrub.state.started_ms -= DAY_MS - 5
    scrub.step(START + 5)
    assert scrub.state.ended_ms == START + 5
    before = scrub.state.started_ms
    scrub.state.started_ms += 1000
    scrub.step(START + 10)
    assert scrub.state.started_ms == before + 1000


def test_a_step_is_bounded_and_gives_way(store: Store) -> None:
    scrub = scrubbing(store, ms=STEP_MS / 3)
    scrub.step(START)
    scrub.step(START + 2 * DAY_MS)
    first = scrub.state.done
    assert 0 < first <= 9
    scrub.step(START + 2 * DAY_MS, lambda: False)
    assert scrub.state.done == first
    steps = 2
    while not scrub.state.ended_ms:
        scrub.step(START + 2 * DAY_MS)
        steps += 1
    assert scrub.state.done == CHANGES
    assert 5 <= steps <= 8


def test_it_goes_on_where_it_was(store: Store) -> None:
    scrub = scrubbing(store)
    scrub.step(START)
    scrub.step(START + DAY_MS // 2)
    save(store, scrub.state)
    after = scrubbing(store)
    assert after.state == scrub.state
    assert (after.state.done, after.state.edge.size) == (15, 0)
    assert after.step(START + DAY_MS) == []
    assert after.state.last_changes == CHANGES


def test_in_the_middle_of_a_log_too(store: Store) -> None:
    scrub = scrubbing(store)
    scrub.step(START)
    scrub.step(START + DAY_MS // 4)
    assert scrub.state.edge.size == 8
    save(store, scrub.state)
    after = scrubbing(store)
    assert after.step(START + DAY_MS) == []
    assert (after.state.done, after.state.problems) == (CHANGES, [])


def test_a_place_that_cannot_be_read_is_the_start(store: Store) -> None:
    with store.write() as tx:
        tx.set_meta(META, b"{nonsense")
    assert scrubbing(store).state == load(store)
    assert load(store).started_ms == 0


def test_a_clock_that_went_back_begins_a_round(store: Store) -> None:
    scrub = scrubbing(store)
    scrub.step(START)
    scrub.step(START - 5)
    assert scrub.state.started_ms == START - 5


def test_a_problem_is_told_once_a_round_and_the_round_goes_on(store: Store) -> None:
    bench = Bench(store.path)
    bench.flip("data", THEIRS, 3, 99)
    bench.flip("sha256", OWN, 0)
    bench.c.close()
    scrub = scrubbing(store)
    scrub.step(START)
    found = []
    for hour in range(1, 25):
        found += scrub.step(START + hour * DAY_MS // 24)
    expected = [Problem(THEIRS, 3, 4, "FN-6601"), Problem(OWN, 0, 2, "FN-6601")]
    assert found == scrub.state.problems == expected
    assert (scrub.state.last_problems, scrub.state.last_changes) == (2, CHANGES)
    save(store, scrub.state)
    assert load(store) == scrub.state


def test_what_is_due() -> None:
    assert [due(100, 0, DAY_MS * days, 10) for days in (0, 5, 10, 20)] == [0, 50, 100, 100]
    assert due(0, 0, DAY_MS, 7) == 0
    assert due(100, DAY_MS, 0, 7) == 0
