"""How far behind a standby is (node/lag.py), what a mesh need not show."""

from __future__ import annotations

from pathlib import Path

from fednode.node.lag import FILE, SAMPLES_MAX, STATE_BYTES_MAX, Samples, Word, keep, read


def test_since_when_there_is_more_than_a_number() -> None:
    samples = Samples()
    assert samples.since(0) == 0
    samples.note(1_000, 5)
    samples.note(2_000, 5)
    samples.note(3_000, 8)
    assert [samples.since(lsn) for lsn in (0, 4, 5, 7, 8, 9)] == [1_000, 1_000, 3_000, 3_000, 0, 0]


def test_what_nobody_is_behind_is_forgotten_and_the_last_stays() -> None:
    samples = Samples()
    for second in range(10):
        samples.note(second * 1_000, second)
    samples.forget(6)
    assert samples.since(0) == 7_000
    samples.forget(9)
    assert (samples.since(8), samples.since(9)) == (9_000, 0)
    samples.note(11_000, 9)
    assert samples.since(9) == 0


def test_samples_of_weeks_stay_few_and_keep_the_oldest() -> None:
    samples = Samples()
    for second in range(5 * SAMPLES_MAX):
        samples.note(second * 1_000, second + 1)
    assert len(samples._found) <= SAMPLES_MAX
    last = 5 * SAMPLES_MAX
    told = [samples.since(lsn) for lsn in range(0, last, 97)]
    assert all(0 <= lsn * 1_000 - since < 600_000 for lsn, since in zip(range(0, last, 97), told, strict=True))
    assert samples.since(last) == 0


def test_words_are_read_as_they_were_kept_and_trash_is_nothing(tmp_path: Path) -> None:
    assert read(tmp_path) == {}
    words = {"130102-s1": Word(7, 1_000, 2_000), "130102-s2": Word()}
    keep(tmp_path, words)
    assert read(tmp_path) == words
    (tmp_path / FILE).write_bytes(b"{")
    assert read(tmp_path) == {}
    (tmp_path / FILE).write_bytes(b" " * (STATE_BYTES_MAX + 1))
    assert read(tmp_path) == {}
    keep(tmp_path / "nowhere", words)  # a folder that cannot be written is no reason to stop
