"""Makes sync/dictionary.py: what zstd knows of our records before it has seen any.   python scripts/_dictionary.py

Trained on the sample records of the shipped catalog, one to three to a body, and on the lines of the audit's golden
file. It was run once: another zstd trains another dictionary, and bodies name theirs by its number. A better one gets
the next number and stands beside it; what names one that was ever written stays readable."""

from __future__ import annotations

import base64
import random
import sys
import textwrap
from pathlib import Path

import msgspec
import zstandard

from fednode.node import shipped
from fednode.proto import fednode_pb2 as pb

ROOT = Path(__file__).resolve().parents[1]
NUMBER = 0x464E0001  # "FN", 1: zstd reserves numbers below 32,768 and above 2^31
SIZE = 4096
RECORDS = 1500
HEAD = '''"""The dictionary of small bodies (zstd, RFC 8878 section 5). Made by scripts/_dictionary.py; never changed.

>>> len(DICTIONARY)
{size}
"""

from base64 import b85decode

NUMBER = {number:#x}
DICTIONARY = b85decode(
'''


def samples() -> list[bytes]:
    """Bodies as `segment.encode_body` makes them, before packing."""
    import sample_data

    rng = random.Random(1)
    payloads: list[tuple[bytes, bytes]] = []
    for name, declared in shipped.catalog().datasets.items():
        for one in sample_data.records(name, RECORDS, seed=7):
            record = {code: value for code, value in sorted(one.items()) if value not in ("", None)}
            payloads.append(
                ("\0".join(str(record.get(code, "")) for code in declared.key).encode(), msgspec.json.encode(record))
            )
    golden = (ROOT / "tests/node/vectors/journal.txt").read_bytes().splitlines()
    payloads += [tuple(line.split(b" ", 1)) for line in golden] * 40  # type: ignore[misc]
    rng.shuffle(payloads)
    bodies: list[bytes] = []
    while payloads:
        taken, payloads = payloads[: rng.randint(1, 3)], payloads[3:]
        stamp = (1_780_000_000_000 + rng.randrange(10**9)) << 16
        body = pb.Body(
            schema_version=1,
            seed=rng.randbytes(32),
            keys=b"".join(key for key, _ in taken),
            key_lengths=[len(key) for key, _ in taken],
            first_hlc=stamp,
            hlc_deltas=[1] * (len(taken) - 1),
            payloads=b"".join(payload for _, payload in taken),
            payload_lengths=[len(payload) for _, payload in taken],
        )
        bodies.append(body.SerializeToString())
    return bodies


def main() -> None:
    made = zstandard.train_dictionary(SIZE, samples(), dict_id=NUMBER, level=19).as_bytes()
    text = base64.b85encode(made).decode()
    lines = [f'    "{line}"' for line in textwrap.wrap(text, 100, break_on_hyphens=False)]
    path = ROOT / "sync/dictionary.py"
    path.write_text(HEAD.format(number=NUMBER, size=len(made)) + "\n".join(lines) + "\n)\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT / "tests/lib"))
    main()
