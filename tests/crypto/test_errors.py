"""Errors: code, parameters, exit code; survive pickling (worker processes send them back)."""

from __future__ import annotations

import pickle

import pytest

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.sync.errors import PeerError, Refused, StoreError, Unavailable


@pytest.mark.parametrize("digit", range(2, 8))
def test_first_digit_is_the_exit_code(digit: int) -> None:
    assert FednodeError(f"FN-{digit}101").exit_code == digit


@pytest.mark.parametrize("code", ["", "FN-", "FN-8101", "FN-31011", "FN-3101\n", "fn-3101", "FN-٣101"])
def test_a_code_that_is_not_ours_exits_with_1_and_does_not_raise(code: str) -> None:
    assert PeerError(code).exit_code == 1


def test_text_names_the_parameters() -> None:
    assert str(Refused("FN-3101", dataset="x", code="y", row=3)) == "FN-3101 (dataset=x, code=y, row=3)"
    assert str(Refused("FN-3101")) == "FN-3101"


@pytest.mark.parametrize("family", [FednodeError, IntegrityError, Refused, PeerError, Unavailable, StoreError])
def test_pickle_keeps_everything(family: type[FednodeError]) -> None:
    error = family("FN-4501", parent="1301", size=3)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.code, dict(again.params)) == (family, "FN-4501", {"parent": "1301", "size": 3})


def test_pickle_keeps_the_retry_delay() -> None:
    again = pickle.loads(pickle.dumps(Unavailable("FN-4501", retry_after_ms=1500, parent="1301")))
    assert again.retry_after_ms == 1500
    assert "retry_after_ms" not in again.params
