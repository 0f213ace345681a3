"""The planted bugs (tests/mutants, scripts/mutants) still fit the program, and name tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from fednode.sync.errors import PeerError
from mutants import FOLDER, Edit, Mutant, Stale, load
from mutants_plugin import noticed
from source import ROOT

MUTANTS = load()
TEST = re.compile(r"(?P<file>tests/[a-z0-9_/]+\.py)::(?P<name>test_[a-z0-9_]+)(\[[^\]]+\])?")


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_it_can_still_be_planted(mutant: Mutant) -> None:
    mutant.plant(ROOT)


def test_each_says_what_it_is_and_names_tests_that_are_there() -> None:
    wrong = []
    for one in MUTANTS:
        if not re.fullmatch(r"[a-z0-9-]{4,40}", one.name) or not 0 <= one.breaks <= 30 or not one.why or not one.tests:
            wrong.append(one.name)
        for test in one.tests:
            found = TEST.fullmatch(test)
            text = (ROOT / found["file"]).read_text("utf-8") if found else ""
            if not found or not re.search(rf"^(async )?def {found['name']}\(", text, re.MULTILINE):
                wrong.append(f"{one.name}: {test}")
    assert wrong == []


def test_there_are_many_and_each_stands_in_the_docs() -> None:
    page = (ROOT / "docs/reliability.md").read_text("utf-8")
    assert len(MUTANTS) >= 100
    assert [one.name for one in MUTANTS if f"| `{one.name}` |" not in page] == [], (
        "docs/reliability.md: scripts/mutants"
    )
    told = set(re.findall(r"^\| `([a-z0-9-]+)` \| [^|]+ \| [^|]* \| `[^`]+` \| [0-9.]+ \|$", page, re.MULTILINE))
    assert told == {one.name for one in MUTANTS}


@pytest.mark.parametrize(
    ("edit", "what"),
    [
        (Edit("crypto/a.py", "y = 1", "y = 2"), "0 times"),
        (Edit("crypto/a.py", "x", "y"), "2 times"),
        (Edit("crypto/a.py", "x = 1", "x = "), "no Python"),
        (Edit("crypto/b.py", "x = 1", "x = 2"), "no file"),
        (Edit("tests/a.py", "x = 1", "x = 2"), "no file"),
    ],
)
def test_what_does_not_fit_is_an_error(tmp_path: Path, edit: Edit, what: str) -> None:
    for folder in ("crypto", "tests"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("x = 1\nz = x\n", "utf-8")
    with pytest.raises(Stale, match=what):
        Mutant("name", "why", 1, ("tests/a.py::test_a",), (edit,)).plant(tmp_path)


def test_edits_of_one_file_add_up_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "crypto").mkdir()
    path = tmp_path / "crypto/a.py"
    path.write_text("x = 1\ny = 2\n", "utf-8")
    edits = (Edit("crypto/a.py", "x = 1", "x = 3"), Edit("crypto/a.py", "y = 2", "y = 4"))
    assert Mutant("name", "why", 1, (), edits).plant(tmp_path) == {path: "x = 3\ny = 4\n"}
    assert path.read_text("utf-8") == "x = 1\ny = 2\n"


@pytest.mark.parametrize("text", ['[[mutant]]\nname = "a"\n', "[[mutant]", "twice"])
def test_what_is_not_written_as_it_should_be_is_an_error(tmp_path: Path, text: str) -> None:
    if text == "twice":
        text = next(FOLDER.glob("*.toml")).read_text("utf-8")
        (tmp_path / "b.toml").write_text(text, "utf-8")
    (tmp_path / "a.toml").write_text(text, "utf-8")
    with pytest.raises(Stale):
        load(tmp_path)


def test_a_bug_that_does_not_run_was_noticed_by_nobody() -> None:
    assert all(map(noticed, (AssertionError(), PeerError("FN-6402"), pytest.fail.Exception("DID NOT RAISE"))))
    assert not any(map(noticed, (NameError(), ImportError(), SyntaxError(), TypeError(), RecursionError())))
    assert noticed(ExceptionGroup("both", [AssertionError(), PeerError("FN-6402")]))
    assert not noticed(ExceptionGroup("one", [AssertionError(), NameError()]))
