"""Every input that is kept, and 200 alterations of each by fixed dice, put to its target: what `scripts/fuzz` does at
length with coverage to guide it, in short and always the same."""

from __future__ import annotations

import random
import resource
from pathlib import Path

import pytest

from fuzz.all_targets import TARGETS
from fuzz.alter import altered
from fuzz.target import Finding, Target, put

CORPUS = Path(__file__).with_name("corpus")
ALTERATIONS = 200
BYTES_MAX = 2 * 1024 * 1024  # of the whole corpus
FILES_MAX = 64  # for each target
SLOW = ("exchange", "web")  # each of their inputs is a session, or a page
SECONDS_MAX = 20.0  # of the processor for one input: scripts/fuzz holds it to one second, here it only has to end
GROWTH_MIB_MAX = 256  # of the process, by all inputs of a target
# cryptography warns of what a later release of it will refuse
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number which wasn't positive")


def files(target: Target) -> list[Path]:
    return sorted((CORPUS / target.name).iterdir())


@pytest.mark.parametrize(
    "target",
    [pytest.param(one, id=one.name, marks=[pytest.mark.slow] if one.name in SLOW else []) for one in TARGETS],
)
def test_whatever_the_bytes_it_takes_or_refuses_them(target: Target) -> None:
    kept = {path.name: path.read_bytes() for path in files(target)}
    others, before = list(kept.values()), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = 0
    for name, data in kept.items():
        dice = random.Random(f"{target.name}/{name}")
        inputs = [data, *(altered(data, dice, others, target.shape, target.bytes_max) for _ in range(ALTERATIONS))]
        for number, one in enumerate(inputs):
            try:
                taken += put(target, one, SECONDS_MAX)
            except Finding as finding:
                pytest.fail(f"{finding}\nalteration {number} of {name}: {one.hex()}", pytrace=False)
    assert taken, "nothing was taken: the target refuses whatever comes, and proves nothing"
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
    assert grown < GROWTH_MIB_MAX, f"{grown} MiB more"


def test_the_corpus_is_small_and_belongs_to_the_targets() -> None:
    assert {path.name for path in CORPUS.iterdir()} == {one.name for one in TARGETS}
    assert sum(path.stat().st_size for path in CORPUS.glob("*/*")) <= BYTES_MAX
    for target in TARGETS:
        assert 1 <= len(files(target)) <= FILES_MAX
        assert all(path.stat().st_size <= target.bytes_max for path in files(target)), target.name


def test_a_reader_that_errs_is_found() -> None:
    """That a target can fail: another kind of error, another code, a law that does not hold, words that lack a name."""
    from fednode.crypto.errors import IntegrityError

    def raising(error: Exception) -> Target:
        def run(_: bytes) -> None:
            raise error

        return Target("planted", run, frozenset(("FN-6201", "FN-6202")), lambda: [b""])

    for error, words in (
        (KeyError("x"), "KeyError"),
        (RecursionError("deep"), "RecursionError"),
        (IntegrityError("FN-6206", reason="x"), "FN-6206 .* is not declared"),
        (Finding("a law"), "a law"),
        (IntegrityError("FN-6202"), "name .'suite'., which FN-6202 does not give"),
    ):
        with pytest.raises(Finding, match=words):
            put(raising(error), b"")
    assert put(Target("planted", len, frozenset(), lambda: [b""]), b"")
