"""A target: a reader of bytes that come from outside, what it may say to them, and how it is tried.

Rules
1. A reader returns, or raises an error of a code that its docstring declares (`codes`), or one of `others`. Anything
   else is a `Finding`: another exception, another code, a law that does not hold (what was read is written as it was,
   two ways to read agree), more than `SECONDS_MAX` of this thread's own time.
2. The first error of each code and parameters is put into words, in both languages.
3. A target makes its own `seeds`, out of golden vectors and the world of `world`; what a run found lies beside them in
   tests/fuzz/corpus. `shape` says how an altered input keeps enough of its form to get further in.

>>> def number(data: bytes) -> None:
...     int(data.decode())
>>> target = Target("number", number, frozenset(), lambda: [b"7"], others=(ValueError,))
>>> put(target, b"7"), put(target, b"x")
(True, False)
>>> put(Target("number", number, frozenset(), lambda: [b"7"]), b"x")
Traceback (most recent call last):
...
fuzz.target.Finding: number: ValueError: invalid literal for int() with base 10: 'x'
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fednode.crypto.errors import FednodeError
from fednode.node.messages import LANGUAGES, catalogue, error_text

SECONDS_MAX = 1.0  # for one input: of the processor, whatever else the machine does
BYTES, PROTOBUF, TEXT = "bytes", "protobuf", "text"
_NAMES = re.compile(r"(?<!\{)\{(\w+)\}")


class Finding(AssertionError):
    """What a reader must not do."""


@dataclass(frozen=True, slots=True)
class Target:
    """`run`: reads, and holds what it read against the laws; `shape`: BYTES, PROTOBUF or TEXT."""

    name: str
    run: Callable[[bytes], object]
    codes: frozenset[str]
    seeds: Callable[[], Iterable[bytes]]
    shape: str = BYTES
    others: tuple[type[Exception], ...] = ()
    bytes_max: int = 4096


_worded: set[tuple[str, str, frozenset[str]]] = set()


def put(target: Target, data: bytes, seconds_max: float = SECONDS_MAX) -> bool:
    """Try one input; whether it was taken. Raises Finding."""
    begun, taken = time.thread_time(), True
    try:
        target.run(data)
    except FednodeError as error:
        taken = False
        if error.code not in target.codes:
            raise Finding(f"{target.name}: {type(error).__name__} {error} is not declared") from error
        _in_words(target, error)
    except target.others:
        taken = False
    except Exception as error:
        raise Finding(f"{target.name}: {type(error).__name__}: {str(error)[:300]}") from error
    spent = time.thread_time() - begun
    if spent > seconds_max:
        raise Finding(f"{target.name}: {spent:.1f} s for {len(data)} bytes")
    return taken


def _in_words(target: Target, error: FednodeError) -> None:
    place = (target.name, error.code, frozenset(error.params))
    if place in _worded:
        return
    _worded.add(place)
    entry = catalogue().get(error.code)
    law(entry is not None, f"{target.name}: {error.code} has no words")
    lacking = {name for words in (entry or {}).values() for name in _NAMES.findall(words)} - error.params.keys()
    law(not lacking, f"{target.name}: the words of {error.code} name {sorted(lacking)}, which {error} does not give")
    for lang in LANGUAGES:
        law(bool(error_text(error, lang)[0]), f"{target.name}: {error.code} in {lang}")


def law(holds: bool, what: str) -> None:
    """A law of what was read."""
    if not holds:
        raise Finding(what)


def codes(text: str) -> frozenset[str]:
    """Codes by their digits: `codes("6401 6402")`."""
    return frozenset(f"FN-{one}" for one in text.split())
