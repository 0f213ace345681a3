"""A succession granted in advance (sync/grant.py): who opens it, with what, and what is no grant."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fednode.crypto.errors import FednodeError, IntegrityError
from fednode.crypto.keys import SealKey
from fednode.sync import grant
from fednode.sync.errors import Refused
from world import Stream

KEY = SealKey.from_seed(bytes(31) + b"\x01")
SECRET = bytes(range(16))
HEAD = grant.Head("hebei", "130102", 2, "130102-s1", "1301", 1_780_000_000, 1_811_536_000, KEY.key_id)
VECTOR = Path(__file__).with_name("vectors") / "grant-1.txt"


def locked() -> bytes:
    return grant.lock(HEAD, b"a certificate", KEY.public, SECRET, Stream("grant"))


def test_what_release_wrote_is_read_for_ever() -> None:
    head, sealed = grant.read(VECTOR.read_bytes())
    assert head == HEAD
    assert grant.unlock(head, sealed, KEY, grant.secret_of(grant.code_of(SECRET))) == b"a certificate"
    assert VECTOR.read_bytes().startswith(b"fednode grant 1\ndomain hebei\nprimary 130102\nincarnation 2\n")


def test_it_opens_to_that_standby_with_that_code_alone() -> None:
    head, sealed = grant.read(locked())
    assert grant.unlock(head, sealed, KEY, SECRET) == b"a certificate"
    with pytest.raises(Refused, match="FN-3122"):
        grant.unlock(head, sealed, SealKey.from_seed(bytes(31) + b"\x02"), SECRET)
    with pytest.raises(IntegrityError, match="FN-6204"):
        grant.unlock(head, sealed, KEY, bytes(16))


@pytest.mark.parametrize("name", ["domain", "primary", "incarnation", "standby", "issuer", "made", "valid-to"])
def test_the_head_is_bound_to_what_is_sealed(name: str) -> None:
    lines = locked().decode().split("\n")
    at = next(i for i, line in enumerate(lines) if line.startswith(f"{name} "))
    lines[at] = f"{lines[at][:-1]}{'1' if lines[at][-1] != '1' else '2'}"
    head, sealed = grant.read("\n".join(lines).encode())
    with pytest.raises(IntegrityError, match="FN-6204"):
        grant.unlock(head, sealed, KEY, SECRET)


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_altered_files_are_refused(place: int, difference: int) -> None:
    data = bytearray(locked())
    data[place % len(data)] ^= difference
    # base64 has bits that mean nothing, and lines may end otherwise
    assert opened(bytes(data)) in ("FN-3121", "FN-3122", "FN-6204", (HEAD, b"a certificate"))


def opened(data: bytes) -> str | tuple[grant.Head, bytes]:
    """What a file holds, or the code of the refusal."""
    try:
        head, sealed = grant.read(data)
        return head, grant.unlock(head, sealed, KEY, SECRET)
    except FednodeError as error:
        return error.code


@settings(max_examples=300, derandomize=True, deadline=None)
@given(st.binary(max_size=400))
def test_whatever_is_no_grant_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Refused, match="FN-3121"):
        grant.read(data)


def test_how_long_a_file_may_be() -> None:
    data = locked()
    lines = data + b"A" * (grant.FILE_BYTES_MAX - len(data))
    with pytest.raises(Refused, match="FN-3121"):
        grant.read(lines + b"\n")


def test_windows_may_have_had_it_in_its_hands() -> None:
    head, sealed = grant.read(locked().replace(b"\n", b"\r\n"))
    assert grant.unlock(head, sealed, KEY, SECRET) == b"a certificate"


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.binary(min_size=16, max_size=16), st.integers(0, 29), st.sampled_from("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"))
def test_a_slip_of_the_pen_is_noticed(secret: bytes, place: int, instead: str) -> None:
    code = grant.code_of(secret)
    assert grant.secret_of(code) == grant.secret_of(code.lower().replace("-", " ")) == secret
    plain = code.replace("-", "")
    other = plain[:place] + instead + plain[place + 1 :]
    if other != plain:
        with pytest.raises(Refused, match="FN-3120"):
            grant.secret_of(other)


@pytest.mark.parametrize("code", ["", "A", "AAAAA", "0" * 30, "A" * 31, "Ä" * 30])
def test_what_is_no_code(code: str) -> None:
    with pytest.raises(Refused, match="FN-3120"):
        grant.secret_of(code)
