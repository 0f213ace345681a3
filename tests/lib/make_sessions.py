"""Writes the golden corpus of a protocol version: whole sessions as they went over the wire, and a frame of each kind.
Never over a file: what is there was written by that version's own code, and stays.

>>> # .venv/bin/python tests/lib/make_sessions.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent)]

from chain import COUNTY, TOWNSHIP, VILLAGE, WORLD, Chain  # noqa: E402
from fednode.crypto import issuing  # noqa: E402
from fednode.sync import versions, wire  # noqa: E402
from parties import NOW_MS, Party, meet, settle  # noqa: E402
from world import NOW_S, shop  # noqa: E402

VECTORS = Path(__file__).parents[1] / "sync/vectors"
COSIGNATURE = wire.Cosignature(1_780_000_000, bytes(range(64)), "1301")
KINDS: tuple[wire.Message, ...] = (
    wire.Hello("1301", (b"own", b"root"), 1_780_000_000_123, bytes(16), wire.Cursor(b"\x01" * 16, 7, b"\x02" * 8),
               5, 4_194_304, wire.Partial(9, b"\x03" * 32, 65_536), True, True, 3, "fednode/0.1.0", True, 1, 1),
    wire.Chunk(9, 65_536, b"data", 70_000, b"\x04" * 32, COSIGNATURE),
    wire.Ack((wire.Outcome(1, COSIGNATURE), wire.Outcome(2, None, "FN-6406"), wire.Outcome(3))),
    wire.Credit(65_536),
    wire.Idle(9),
    wire.Beat(1_780_000_000_123),
    wire.Bye("FN-5511", "FN-5511 (node=1301)", 60_000),
    wire.Want("hebei/1301/1/shop", 7, True),
    wire.Missing("hebei/1301/1/shop", 7),
    wire.Renew(b"request", 2),
    wire.Renewed((b"own", b"root"), "FN-5114"),
    wire.Late(9, "hebei/1301/1/shop", 8, b"\x05" * 32, COSIGNATURE),
    wire.Fenced("FN-6420", ("head\n", "other\n")),
)  # fmt: skip


def _write(name: str, lines: list[str]) -> None:
    path = VECTORS / name
    if path.exists():
        print(f"{name}: is there, not touched")
        return
    path.write_text("\n".join(lines) + "\n", "utf-8")


def _session(child: Party, parent: Party) -> list[str]:
    """Each frame in the order in which it was sent within its direction: `>` child to parent, `<` parent to child."""
    assert child.closed is not None
    assert child.closed.error is None, child.closed
    return [f"> {one.hex()}" for one in child.frames] + [f"< {one.hex()}" for one in parent.frames]


def record(folder: Path) -> dict[str, list[str]]:
    """Sessions between a village and its township: see vectors/README.md."""
    chain = Chain(folder)
    village, township, county = chain[VILLAGE], chain[TOWNSHIP], chain[COUNTY]
    for number in range(3):
        village.write(*(shop(f"v{number}-{i}", VILLAGE, note="x" * 40) for i in range(20)))
    county.write(shop("corrected", VILLAGE), audience=VILLAGE)
    settle(*meet(township, county))
    keys = village.keys
    fresh = WORLD.certificate(VILLAGE, level="village", parent=TOWNSHIP, scope=(VILLAGE,), now_s=NOW_S + 86_400)
    renew = wire.Renew(issuing.make_request(VILLAGE, keys.tls, keys.sign, keys.seal))
    answer = (fresh, *WORLD.places[TOWNSHIP].chain)
    child, parent = meet(village, township, renew=renew, answer=answer, once=False)
    settle(child, parent)
    parent.do(parent.exchange.ask_segment(f"hebei/{VILLAGE}/1/shop", 0, NOW_MS))
    parent.do(parent.exchange.ask_segment(f"hebei/{VILLAGE}/1/shop", 19, NOW_MS))
    settle(child, parent)
    for side in (child, parent):
        side.do(side.exchange.tick(NOW_MS + 30_000))
    settle(child, parent)
    child.do(child.exchange.finish(NOW_MS))
    settle(child, parent)
    whole = _session(child, parent)
    village.writer.fence("FN-6420")
    again = meet(village, township)
    settle(*again)
    fenced = _session(*again)
    chain.close()
    return {"whole": whole, "fenced": fenced}


if __name__ == "__main__":
    version = versions.SPOKEN.high
    kinds = [f"{type(one).__name__} {wire.encode(n, one).hex()}" for n, one in enumerate(KINDS, 1)]
    _write(f"frames-v{version}.txt", kinds)
    with tempfile.TemporaryDirectory() as temporary:
        for name, lines in record(Path(temporary)).items():
            _write(f"session-{name}-v{version}.txt", lines)
