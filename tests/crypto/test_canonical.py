"""Canonical JSON: the RFC's examples, the fast path against the library, and one form only."""

from __future__ import annotations

import json
from typing import Any

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st

from fednode.crypto import canonical
from fednode.crypto.errors import IntegrityError

TEXT = st.text()  # surrogates and all planes; hypothesis leaves out lone surrogates unless asked
SCALARS = st.none() | st.booleans() | st.integers(-canonical.INTEGER_MAX, canonical.INTEGER_MAX) | TEXT
JSON = st.recursive(
    SCALARS | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(TEXT, SCALARS | st.lists(TEXT)))
def test_the_fast_path_writes_the_bytes_of_the_library(value: dict[str, Any]) -> None:
    assert canonical.dumps(value) == rfc8785.dumps(value)


def test_regression_the_profile_of_a_certificate_takes_the_fast_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A province of 56,712 nodes reads as many before a command begins: a quarter of that was its lists of text."""
    monkeypatch.setattr(rfc8785, "dumps", None)
    profile = {"inc": 1, "scope": ["1301", "1302"], "levels": ["province", "市"], "to": 9, "for": ""}
    assert canonical.loads(canonical.dumps(profile)) == profile
    assert canonical.dumps({"a": []}) == b'{"a":[]}'
    with pytest.raises(IntegrityError):
        canonical.dumps({"a": ["\ud800"]})
    with pytest.raises(TypeError):  # numbers in a list are written by the library
        canonical.dumps({"a": [1.0]})


@given(JSON)
def test_what_was_written_is_read_again(value: Any) -> None:
    data = canonical.dumps(value)
    assert canonical.dumps(canonical.loads(data)) == data


def test_the_examples_of_the_rfc() -> None:
    # RFC 8785 section 3.2.2 and 3.2.3
    value = {
        "numbers": [333333333.33333329, 1e30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000f\u000aA'\u0042\u0022\u005c\\\"\u002f",
        "literals": [None, True, False],
    }
    assert canonical.dumps(value).decode() == (
        '{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],'
        '"string":"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"}'
    )
    keys = ["\u20ac", "\r", "\ufb33", "1", "\U0001f600", "\u0080", "\u00f6"]
    ordered = ["\r", "1", "\u0080", "\u00f6", "\u20ac", "\U0001f600", "\ufb33"]
    assert list(json.loads(canonical.dumps(dict.fromkeys(keys, 1)))) == ordered


@pytest.mark.parametrize(
    "value",
    [
        {"a": canonical.INTEGER_MAX + 1},
        {"a": -canonical.INTEGER_MAX - 1},
        float("nan"),
        float("inf"),
        {"a": "\ud800"},
        {"\udfff": "a"},
        {"a": b"bytes"},
        {1: "a"},
        object(),
    ],
)
def test_what_has_no_form_is_refused(value: Any) -> None:
    with pytest.raises(IntegrityError) as caught:
        canonical.dumps(value)
    assert caught.value.code == "FN-6206"


def test_doubles_that_look_like_integers_are_read_as_doubles() -> None:
    value = canonical.loads(b"9007199254740992")
    assert (type(value), value) == (float, 2.0**53)


def test_the_largest_integers_have_a_form() -> None:
    for n in (canonical.INTEGER_MAX, -canonical.INTEGER_MAX):
        assert canonical.loads(canonical.dumps({"n": n})) == {"n": n}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b'{"a":1,"a":1}',
        b'{"a":1,"a":2}',
        b'{"b":1,"a":1}',
        b'{"a": 1}',
        b'{"a":1}\n',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":1e2}',
        b'{"a":"\\u0041"}',
        b'{"a":"\\/"}',
        b'{"a":NaN}',
        b'{"a":9007199254740993}',
        b'{"a":"\\ud800"}',
        b'{"a":"\xff"}',
        '{"a":1}'.encode("utf-16"),
        b"[" * 100_000,
        b"9" * 400,
        b"9" * 5000,
    ],
)
def test_any_other_form_is_refused(data: bytes) -> None:
    with pytest.raises(IntegrityError) as caught:
        canonical.loads(data)
    assert caught.value.code == "FN-6206"
