"""The catalogue of words agrees with the code that raises: each code is there in both languages, with its values."""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Iterator

import pytest

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.node.messages import catalogue
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable
from source import PACKAGES, Source, dotted, sources

FAMILIES = {
    family.__name__: family for family in (FednodeError, IntegrityError, PeerError, Refused, StoreError, Unavailable)
}
NOT_PARAMS = {"retry_after_ms"}  # an attribute of Unavailable, see sync/errors.py
CODE = re.compile(r"FN-\d{4}")
ERROR_KEYS = {"en", "zh", "en_hint", "zh_hint"}
CHINESE = re.compile("[\u4e00-\u9fff]")


def names(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name is not None}


def codes(source: Source) -> Iterator[tuple[int, str]]:
    """(line, code) of each string that is a code and nothing else; prose that mentions one does not count."""
    for node in source.nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and CODE.fullmatch(node.value):
            yield node.lineno, node.value


def keyed_calls(functions: set[str]) -> Iterator[tuple[str, str, str, set[str] | None]]:
    """(place, function, first argument, names of keyword arguments or None when there is a `**`)."""
    for source in sources(*PACKAGES):
        for call in source.calls():
            function = dotted(call.func).split(".")[-1]
            if function in functions and call.args and isinstance(call.args[0], ast.Constant):
                keywords = {keyword.arg for keyword in call.keywords}
                given = None if None in keywords else {name for name in keywords if name}
                yield f"{source.name}:{call.lineno}", function, str(call.args[0].value), given


def needed(key: str) -> set[str]:
    return set().union(*(names(template) for template in catalogue().get(key, {}).values()))


def report(breaches: list[str]) -> None:
    if breaches:
        pytest.fail("\n" + "\n".join(breaches), pytrace=False)


def test_every_code_has_words() -> None:
    report(
        [
            f"{source.name}:{line} {code} is not in node/messages"
            for source in sources(*PACKAGES)
            for line, code in codes(source)
            if code not in catalogue()
        ]
    )


def test_every_text_has_words() -> None:
    report(
        [
            f"{place} {key} is not in node/messages"
            for place, _, key, _ in keyed_calls({"text"})
            if key not in catalogue()
        ]
    )


@pytest.mark.parametrize("key", sorted(catalogue()))
def test_both_languages_say_the_same(key: str) -> None:
    entry = catalogue()[key]
    assert {"en", "zh"} <= set(entry) <= ERROR_KEYS
    assert ("en_hint" in entry) == ("zh_hint" in entry), "a hint in one language only"
    assert names(entry["en"]) == names(entry["zh"])
    assert names(entry.get("en_hint", "")) == names(entry.get("zh_hint", ""))
    assert "" not in needed(key), "parameters have names"
    if key.startswith("FN-"):
        assert CODE.fullmatch(key)
        assert FednodeError(key).exit_code != 1, "no family has this first digit"
        assert CHINESE.search(entry["zh"]), "not Chinese"
        assert not CHINESE.search(entry["en"]), "not English"


def test_the_words_name_only_what_the_code_gives() -> None:
    report(
        [
            f"{place} {key} does not give {', '.join(sorted(missing))}"
            for place, _, key, given in keyed_calls({*FAMILIES, "text"})
            if given is not None and (missing := needed(key) - (given - NOT_PARAMS))
        ]
    )


def test_codes_belong_to_the_class_that_carries_them() -> None:
    report(
        [
            f"{place} {function} cannot carry {code}: {FAMILIES[function].__doc__}"
            for place, function, code, _ in keyed_calls(set(FAMILIES))
            if FednodeError(code).exit_code not in FAMILIES[function].exit_codes
        ]
    )
