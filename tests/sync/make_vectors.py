"""Writes the golden vectors of a new format version. Never over a file: see vectors/README.md.

>>> # .venv/bin/python tests/sync/make_vectors.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import zstandard

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "lib")]

from test_backup_format import vector as backup_vector  # noqa: E402
from test_rewrap import vector as rewrap_vector  # noqa: E402
from test_segment import VECTORS, made, proved, seg_reader  # noqa: E402
from test_strip import stripped_vector  # noqa: E402
from test_volume import bundle_vector, request_vector  # noqa: E402

import proofs  # noqa: E402
from fednode.node.home import pem_of  # noqa: E402
from fednode.sync import segment as seg  # noqa: E402
from fednode.sync.change import Change  # noqa: E402
from fednode.sync.log import LogState, extend  # noqa: E402
from world import Stream, World, keys_of  # noqa: E402


def with_readers() -> dict[str, Any]:
    """The sealed vector again, with two readers."""
    base = made(sealed=True)
    seeds = [keys_of("reader", life).seal.private.hex() for life in (1, 2)]
    envelope = seg.parse(bytes.fromhex(base["envelope"]))
    changes = [Change(bytes.fromhex(k), bytes.fromhex(p), op, at) for k, p, op, at in base["changes"]]
    readers = [seg_reader(one) for one in seeds]
    key = keys_of("vector").sign
    (own,) = extend(LogState(envelope.header.log), changes, base["stamps"], 4, key, readers, True, Stream("vector"))
    again = seg.parse(own.raw)
    return {
        **base,
        "reader_seeds": seeds,
        "header": again.header.raw.hex(),
        "commit": again.commit.hex(),
        "digest": again.digest().hex(),
        "envelope": own.raw.hex(),
    }


def write(name: str, content: dict[str, Any]) -> None:
    """One file, if there is none."""
    path = VECTORS / name
    if path.exists():
        print(f"{name}: is there, not touched")
        return
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    write("segment-unsealed.json", made(sealed=False))
    write("segment-sealed.json", made(sealed=True))
    write("segment-readers.json", with_readers())
    write("segment-consistency.json", proved())
    write("segment-stripped.json", stripped_vector())
    write("bundle.json", bundle_vector())
    write("request.json", request_vector())
    write("backup.json", backup_vector())
    write("rewrap.json", rewrap_vector())
    for name, wide in (("", False), ("-wide", True)):
        proof, root = VECTORS / f"record{name}.tlog-proof", VECTORS / f"root{name}.pem"
        if not proof.exists():
            proof.write_bytes(proofs.made(World(wide=wide)))
            root.write_bytes(pem_of((World(wide=wide).root_der,)))
    write("README.json", {"zstd": list(zstandard.ZSTD_VERSION)})
