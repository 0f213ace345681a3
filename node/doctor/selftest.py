"""Whether this machine can run the program at all: `fednode self-test`, before there is a node.

Rules
1. What a node needs is done for real, and small: a database written through to the disk, signatures, a session over
   mutual TLS on the loopback. What was written for it is taken away again.
2. It takes less than three seconds on an old machine, and needs no network, no home, no privileges.

>>> [check.id for check in TESTS]
['processor', 'system', 'program', 'memory', 'disk', 'clock', 'database', 'cryptography', 'network']
"""

from __future__ import annotations

import asyncio
import os
import platform
import sys
import tempfile
from pathlib import Path
from typing import Any

from fednode.crypto import certs, issuing
from fednode.crypto.issuing import Grant
from fednode.crypto.keys import TlsKey
from fednode.node import carrier, files, sqlite
from fednode.node.app import random_bytes, real_clock
from fednode.node.doctor import machine
from fednode.node.doctor.answers import ANSWERS, wrong_answers
from fednode.node.doctor.finding import Check, Finding, Span, failure, ok, warning
from fednode.node.doctor.scene import Scene
from fednode.node.home import NodeKeys, pem_of
from fednode.sync.errors import StoreError
from fednode.sync.identity import LEVELS

PROCESSORS = ("x86_64", "aarch64")
GLIBC_MIN = (2, 28)  # the oldest for which the libraries are built (their wheels are manylinux_2_28)
ROWS = 200
SLOW_MS = 500  # for one write through to the disk
LOOPBACK = "127.0.0.1:0"
SESSION_S = 10.0
SAID = b"fednode self-test"


def processor(_scene: Scene, found: str = "") -> Finding:
    """One that the program is made for."""
    found, bits = found or platform.machine(), sys.maxsize.bit_length() + 1
    told = {"found": found, "bits": bits, "cores": os.cpu_count() or 1}
    one = ok("selftest.processor", **told)
    if found not in PROCESSORS or bits != 64:
        one = warning("selftest.processor_other", **told)
    return one.having(**told)


def system(_scene: Scene, found: str = "") -> Finding:
    """The C library."""
    library, version = ("glibc", found) if found else platform.libc_ver()
    told: dict[str, Any] = {"system": f"{platform.system()} {platform.release()}", "library": library or "?"}
    told |= {"version": version or "?", "least": ".".join(map(str, GLIBC_MIN))}
    if library != "glibc":
        one = warning("selftest.system_other", **told)
    elif tuple(int(part) for part in version.split(".")[:2] if part.isdigit()) < GLIBC_MIN:
        one = failure("selftest.system_old", **told)
    else:
        one = ok("selftest.system", **told)
    return one.having(**told)


def database(scene: Scene) -> Finding:
    """A database of the kind that a node keeps, in the folder of the home where that may be written: written through to
    the disk, read back, whole."""
    beside = scene.existing()
    folder = beside if os.access(beside, os.W_OK) else Path(tempfile.gettempdir())
    with tempfile.TemporaryDirectory(prefix=".fednode-self-test-", dir=folder) as name:
        path = Path(name) / "log.db"
        connection = sqlite.connect(path, synchronous="FULL")
        try:
            with sqlite.transaction(connection, path):
                connection.execute("create table t (id integer primary key, data blob not null)")
            began = scene.steady_s()
            with sqlite.transaction(connection, path):
                rows = [(number, random_bytes(1024)) for number in range(ROWS)]
                connection.executemany("insert into t values (?, ?)", rows)
            took_ms = round((scene.steady_s() - began) * 1000)
            files.write(Path(name) / "file", SAID, 0o600)
            there = connection.execute("select id, data from t order by id").fetchall() == rows
            through, fault = sqlite.whole(connection, 10_000, lambda: True)
        finally:
            connection.close()
        same = (Path(name) / "file").read_bytes() == SAID
    told: dict[str, Any] = {"path": str(folder), "took": Span(took_ms), "took_ms": took_ms}
    if not (there and through and same) or fault:
        return failure("selftest.database_wrong", reason=fault[:200] or "-", **told)
    one = warning("selftest.database_slow", **told) if took_ms > SLOW_MS else ok("selftest.database", **told)
    return one.having(path=str(folder), took_ms=took_ms)


def cryptography(_scene: Scene) -> Finding:
    """Known answers."""
    if found := wrong_answers():
        return failure("selftest.cryptography_wrong", names=", ".join(found)).having(wrong=found)
    return ok("selftest.cryptography", count=len(ANSWERS)).having(wrong=[])


# ---------------------------------------------------------------- a session over the loopback


def network(_scene: Scene) -> Finding:
    """Two ports, and a session with mutual TLS over one of them."""
    said = asyncio.run(_converse())
    if said != SAID:
        return failure("selftest.network_wrong")
    return ok("selftest.network")


def _credentials() -> tuple[carrier.Credentials, str]:
    """Of a node that shows itself to itself; and the name in its certificate."""
    now_s, root_key, keys = real_clock() // 1000, TlsKey.generate(), NodeKeys.generate(random_bytes)
    root = issuing.make_root("self-test", ("13",), LEVELS, root_key, now_s=now_s, days=1, serial=1)
    request = issuing.parse_request(issuing.make_request("13", keys.tls, keys.sign, keys.seal))
    grant = Grant("self-test", LEVELS[0], ("13",), 1, 1, 2)
    own = issuing.issue(request, grant, certs.parse(root), root_key, LEVELS, now_s=now_s)
    mine, above = pem_of((own,)), pem_of((root,))
    return carrier.Credentials(keys.tls.to_pem(None), mine, mine, mine, above), certs.parse(own).dns


async def _converse() -> bytes:
    """What comes back of what was sent. Raises StoreError FN-7620, Unavailable."""
    credentials, name = _credentials()

    async def echo(stream: carrier.Stream, _shown: bytes) -> None:
        await stream.write(await stream.read() or b"")

    async def nothing(*_: Any) -> Any:
        raise StoreError("FN-7001", reason="self-test")

    async def ask(stream: carrier.Stream) -> bytes:
        await stream.write(SAID)
        return await stream.read() or b""

    server = carrier.Server(lambda: credentials)
    try:
        async with asyncio.timeout(SESSION_S):
            await server.start(LOOPBACK, LOOPBACK, echo, nothing, nothing, nothing, nothing, nothing)
            return await carrier.dial(f"127.0.0.1:{server.port}", credentials, name, ask)
    finally:
        await server.stop(0)


TESTS: tuple[Check[Scene], ...] = (
    Check(1, "processor", 7, processor),
    Check(2, "system", 7, system),
    Check(3, "program", 7, machine.program),
    Check(4, "memory", 7, machine.memory),
    Check(5, "disk", 7, machine.disk),
    Check(6, "clock", 7, machine.clock_alone),
    Check(7, "database", 7, database, ("program",)),
    Check(8, "cryptography", 7, cryptography),
    Check(9, "network", 7, network, ("cryptography",)),
)
