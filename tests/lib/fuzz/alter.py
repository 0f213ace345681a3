"""Altering inputs: byte by byte, as text, or field by field where they are protobuf. Same dice, same bytes.

>>> import random
>>> altered(b"abc", random.Random(1), [b"xyz"]) == altered(b"abc", random.Random(1), [b"xyz"])
True
>>> fields(b"\\x08\\x07\\x12\\x02ab")
[(1, 0, 7), (2, 2, b'ab')]
>>> joined([(1, 0, 7), (2, 2, b"ab")])
b'\\x08\\x07\\x12\\x02ab'
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

from fuzz.target import PROTOBUF, TEXT

Field = tuple[int, int, int | bytes]
NUMBERS = (
    *(0, 1, 2, 3, 7, 31, 32, 63, 64, 127, 128, 200, 255, 256, 1023, 1024, 1025, 4999, 5000, 5001, 65535, 65536),
    *((1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 53) - 1, 1 << 53, (1 << 62), (1 << 63) - 1, 1 << 63),
    (1 << 64) - 1,
)
DEPTH_MAX = 4
SIZES = (1, 2, 4, 8)
# Pieces that mean something to one reader or another.
WORDS = tuple(
    word.encode()
    for word in (
        *(
            "",
            " ",
            "\n",
            "\n\n",
            "\r\n",
            "\t",
            ",",
            '"',
            "'",
            "\\",
            "/",
            "|",
            "%",
            "-",
            "+",
            "=",
            ":",
            ".",
            "\0",
            "\x7f",
            "\u2028",
        ),
        *(
            "0",
            "-1",
            "1e999",
            "NaN",
            "Infinity",
            "0x10",
            "1_0",
            "١",
            "²",
            "９",
            "石",
            "é",
            "\ufeff",
            "\U0001f600",
            "e\u0301",
        ),
        *("{}", "[]", "null", "true", '"v":1', '"v":true', '{"a":', "[" * 40, "{" * 40, "\\ud800", "\\u0000"),
        *(
            "9" * 20,
            "1" * 5000,
            "2026-02-30",
            "0000-00-00",
            "24:00",
            "99:99",
            "mon-sun",
            "Asia/Shanghai",
            "../../etc/passwd",
        ),
        *("FN-5505", "hebei/13/1/sys.nodes", "@130102", "#0", "#99999999999999999999", "— ", "fednode1.", "FNP2:"),
    )
)
_DIGITS = re.compile(rb"[0-9]+")


def altered(data: bytes, rng: random.Random, others: Sequence[bytes], shape: str = "", size_max: int = 65536) -> bytes:
    """Another input: a few changes, rarely many. `others`: inputs to take pieces from."""
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5, 9))):
        if shape == PROTOBUF and rng.random() < 0.75:
            data = _field(data, rng, others)
        elif shape == TEXT and rng.random() < 0.5:
            data = rng.choice(_TEXTUAL)(data, rng, others)
        else:
            data = rng.choice(_ANY)(data, rng, others)
    return data[:size_max]


# ---------------------------------------------------------------- bytes


def _place(data: bytes, rng: random.Random) -> int:
    return rng.randrange(len(data) + 1)


def _flip(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    if not data:
        return bytes((rng.randrange(256),))
    at = rng.randrange(len(data))
    return data[:at] + bytes((data[at] ^ (1 << rng.randrange(8)),)) + data[at + 1 :]


def _set(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    return data[:at] + bytes((rng.choice((0, 1, 9, 10, 32, 48, 127, 128, 255, rng.randrange(256))),)) + data[at + 1 :]


def _number(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at, size = _place(data, rng), rng.choice(SIZES)
    made = (rng.choice(NUMBERS) & ((1 << 8 * size) - 1)).to_bytes(size, rng.choice(("big", "little")))
    return data[:at] + made + data[at + size :]


def _insert(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    return data[:at] + rng.randbytes(rng.choice((1, 1, 2, 8, 32, 80))) + data[at:]


def _remove(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    return data[:at] + data[at + rng.choice((1, 1, 2, 8, 32, 64, len(data))) :]


def _repeat(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    piece = data[at : at + rng.choice((1, 4, 16, 64, 256))]
    return data[:at] + piece * rng.choice((1, 1, 2, 40)) + data[at:]


def _swap(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    a, b, c = sorted(_place(data, rng) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _splice(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    other = rng.choice(others) if others else data
    a, b, at = _place(other, rng), _place(other, rng), _place(data, rng)
    return data[:at] + other[min(a, b) : max(a, b)] + data[at + rng.choice((0, abs(a - b))) :]


def _word(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    at = _place(data, rng)
    word = rng.choice(WORDS)
    return data[:at] + word + data[at + rng.choice((0, len(word))) :]


# ---------------------------------------------------------------- text


def _decimal(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    found = list(_DIGITS.finditer(data))
    if not found:
        return data
    one = rng.choice(found)
    sign = rng.choice((b"", b"", b"-", b"0", b"+"))
    return data[: one.start()] + sign + str(rng.choice(NUMBERS)).encode() + data[one.end() :]


def _line(data: bytes, rng: random.Random, _: Sequence[bytes]) -> bytes:
    lines = data.split(rng.choice((b"\n", b",", b" ", b'"')))
    mark = data[len(lines[0]) : len(lines[0]) + 1] or b"\n"
    a, b = rng.randrange(len(lines)), rng.randrange(len(lines))
    made = rng.choice(("drop", "twice", "swap"))
    if made == "drop":
        del lines[a]
    elif made == "twice":
        lines.insert(b, lines[a])
    else:
        lines[a], lines[b] = lines[b], lines[a]
    return mark.join(lines)


# Values of each kind, to put in each other's places.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 1.5, 1e300, "", "x", "130102", "\u202e", "x" * 300, [], {}, [[]], [True], ["x"]),
    *({"a": 1}, {"a": []}, [{}], (1 << 53) - 1, 1 << 53, 1 << 63, 1 << 64, -(1 << 63), ["130102"] * 70),
)


def _json(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    """A value of another kind somewhere in a JSON document, a member less or more."""
    try:
        value = json.loads(data) if data[:1] in (b"{", b"[") else None
    except (ValueError, RecursionError):
        value = None
    if not value:
        return rng.choice(_ANY)(data, rng, others)
    node = value
    while True:
        places = list(node) if isinstance(node, dict) else list(range(len(node)))
        place = rng.choice(places)
        if not (isinstance(node[place], dict | list) and node[place] and rng.random() < 0.7):
            break
        node = node[place]
    act = rng.random()
    if act < 0.15:
        del node[place]
    elif act < 0.3 and isinstance(node, dict):
        node[rng.choice(("x", "v", "kind", "name", ""))] = rng.choice(VALUES)
    elif act < 0.45 and isinstance(node, list):
        node.append(rng.choice((node[place], *VALUES)))
    else:
        node[place] = rng.choice(VALUES)
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode("utf-8", "replace")


Change = Callable[[bytes, random.Random, Sequence[bytes]], bytes]
_ANY: tuple[Change, ...] = (_flip, _flip, _set, _number, _insert, _remove, _repeat, _swap, _splice, _word)
_TEXTUAL: tuple[Change, ...] = (_decimal, _line, _word, _json)


# ---------------------------------------------------------------- protobuf


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if not byte & 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("varint")


def fields(data: bytes) -> list[Field] | None:
    """(number, wire type, value) of each field; None for what is no message."""
    found: list[Field] = []
    at = 0
    try:
        while at < len(data):
            tag, at = _varint(data, at)
            number, kind = tag >> 3, tag & 7
            value: int | bytes
            if kind == 0:
                value, at = _varint(data, at)
            elif kind == 2:
                size, at = _varint(data, at)
                value, at = data[at : at + size], at + size
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                value, at = data[at : at + size], at + size
            else:
                return None
            if at > len(data) or not number:
                return None
            found.append((number, kind, value))
    except (IndexError, ValueError):
        return None
    return found


def varint(value: int) -> bytes:
    """A number as protobuf writes it."""
    out = bytearray()
    while True:
        value, byte = value >> 7, value & 0x7F
        out.append(byte | (0x80 if value else 0))
        if not value:
            return bytes(out)


def joined(found: Sequence[Field]) -> bytes:
    """The message of these fields."""
    out = []
    for number, kind, value in found:
        if isinstance(value, int):
            out.append(varint(number << 3 | kind) + varint(value & ((1 << 64) - 1)))
        else:
            out.append(varint(number << 3 | kind) + (varint(len(value)) if kind == 2 else b"") + value)
    return b"".join(out)


def _field(data: bytes, rng: random.Random, others: Sequence[bytes], depth: int = 0) -> bytes:
    """Change one field, perhaps of a message within; lengths fit again."""
    found = fields(data)
    if not found:
        return rng.choice(_ANY)(data, rng, others)
    at = rng.randrange(len(found))
    number, kind, value = found[at]
    act = rng.random()
    if act < 0.08:
        del found[at]
    elif act < 0.16:
        found[at:at] = [found[at]] * rng.choice((1, 1, 2, 30))
    elif act < 0.22:
        other = rng.randrange(len(found))
        found[at], found[other] = found[other], found[at]
    elif act < 0.28:
        found[at] = (rng.choice((number + 1, max(1, number - 1), rng.randrange(1, 30), 1024, 2000)), kind, value)
    elif act < 0.36:
        found += _borrowed(rng, others)
    elif isinstance(value, int):
        near = (value + 1, max(0, value - 1), value ^ (1 << rng.randrange(63)))
        found[at] = (number, kind, rng.choice((*near, rng.choice(NUMBERS))))
    elif depth < DEPTH_MAX and fields(value) and rng.random() < 0.7:
        found[at] = (number, kind, _field(value, rng, others, depth + 1))
    else:
        found[at] = (number, kind, rng.choice(_ANY)(value, rng, others))
    return joined(found)


def _borrowed(rng: random.Random, others: Sequence[bytes]) -> list[Field]:
    found = fields(rng.choice(others)) if others else None
    return [rng.choice(found)] if found else []
