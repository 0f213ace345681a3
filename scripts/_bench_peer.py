"""scripts/bench peer: what PostgreSQL's logical replication takes on this machine, to hold `scripts/bench hop` against.
Prints one JSON document.

Bars of the hop were set beside figures of other systems, taken on "such a machine". Machines differ by a factor of two,
and so does one machine from hour to hour: what can be compared is the ratio of two runs, one right after the other. Two
clusters on loopback, TLS, `fsync` and `synchronous_commit` on at both ends, rows as the hop's, their JSON as text with
the key beside it.

    visible_per_s   the backlog lies in the publisher; from the moment the subscription is switched on until the
                    subscriber's table has all of it (applied from the publisher's log, not by a first COPY)
    single_p50_ms   one more row, nothing else to do, 5 ms and more between them: the INSERT returns when the
                    subscriber has it on disk (`synchronous_standby_names` names the subscription)

Needs PostgreSQL 15 or newer (Debian: postgresql); where it runs as root, a user `postgres`, for the server refuses to
run as root.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/lib"))

import _bench_data
from _bench_hop import machine, note

from ports import free_port

WAIT_S, POLL_S, A_SECOND = 600.0, 0.003, 100
CONFIG = """
listen_addresses = '127.0.0.1'
port = {port}
unix_socket_directories = '{folder}'
ssl = on
ssl_cert_file = '{folder}/server.crt'
ssl_key_file = '{folder}/server.key'
wal_level = logical
shared_buffers = 256MB
max_wal_size = 4GB
"""


class Cluster:
    """A server of its own in a folder."""

    def __init__(self, binaries: Path, folder: Path, name: str) -> None:
        self.binaries, self.data, self.port = binaries, folder / name, free_port()
        self._as = ["runuser", "-u", "postgres", "--"] if os.getuid() == 0 else []
        self._run("initdb", "-A", "trust", "-U", "postgres", "-D", str(self.data))
        certificate = ["openssl", "req", "-new", "-x509", "-days", "2", "-nodes", "-subj", "/CN=localhost"]
        files = ["-out", str(self.data / "server.crt"), "-keyout", str(self.data / "server.key")]
        subprocess.run([*self._as, *certificate, *files], check=True, capture_output=True)
        with (self.data / "postgresql.conf").open("a") as config:
            config.write(CONFIG.format(port=self.port, folder=self.data))
        self._run("pg_ctl", "-D", str(self.data), "-l", str(self.data / "log"), "-w", "start")

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run([*self._as, str(self.binaries / name), *arguments], check=True, stdout=subprocess.DEVNULL)

    @property
    def address(self) -> str:
        return f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres sslmode=require"

    def sql(self, *statements: str, copy: Path | None = None) -> str:
        """What psql prints, each statement in a transaction of its own."""
        orders = [part for statement in statements for part in ("-c", statement)]
        with copy.open("rb") if copy else open(os.devnull, "rb") as given:
            done = subprocess.run(
                [str(self.binaries / "psql"), self.address, "-X", "-A", "-t", "-q", *orders],
                check=True,
                stdin=given,
                stdout=subprocess.PIPE,
            )
        return done.stdout.decode().strip()

    def until(self, statement: str, wanted: str) -> float:
        """When (monotonic seconds) a statement gave this."""
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            if self.sql(statement) == wanted:
                return time.monotonic()
            time.sleep(POLL_S)
        raise RuntimeError(f"not within {WAIT_S:.0f} s: {statement} gives {wanted}")

    def stop(self) -> None:
        self._run("pg_ctl", "-D", str(self.data), "-m", "immediate", "-w", "stop")


def rows(path: Path, count: int, seed: int) -> None:
    """Rows as COPY takes them."""
    r = random.Random(seed)
    with path.open("w", encoding="utf-8") as out:
        for _ in range(count):
            row = _bench_data.row(r)
            out.write(f"{row['uscc']}\t{json.dumps(row, ensure_ascii=False, sort_keys=True)}\n")


def bulk(publisher: Cluster, subscriber: Cluster, folder: Path, changes: int) -> float:
    """Changes a second until the subscriber's table has the whole backlog."""
    table = "create table record (key text primary key, payload text)"
    publisher.sql(table, "create publication p for table record")
    subscriber.sql(
        table,
        f"create subscription s connection '{publisher.address}' publication p"
        " with (copy_data = false, synchronous_commit = on)",  # off is its default: it would be durable after 200 ms
    )
    publisher.until("select count(*) from pg_stat_replication where state = 'streaming'", "1")
    subscriber.sql("alter subscription s disable")
    publisher.until("select count(*) from pg_stat_replication", "0")
    rows(folder / "rows", changes, 1)
    publisher.sql("copy record from stdin", copy=folder / "rows")
    os.sync()
    held = str(changes)
    started = time.monotonic()
    subscriber.sql("alter subscription s enable")
    return changes / (subscriber.until("select count(*) from record", held) - started)


def single(publisher: Cluster, folder: Path, count: int) -> list[float]:
    """Milliseconds from an INSERT until it returns, the subscriber's disk in it."""
    publisher.sql("alter system set synchronous_standby_names = 's'", "select pg_reload_conf()")
    publisher.until("show synchronous_standby_names", "s")
    r = random.Random(2)
    payload = json.dumps(_bench_data.row(r), ensure_ascii=False, sort_keys=True).replace("'", "''")
    script = folder / "one.sql"
    script.write_text(f"insert into record values (cast(gen_random_uuid() as text), '{payload}');\n")
    logs = folder / "latency"
    command = [
        str(publisher.binaries / "pgbench"),
        "-n",
        "-c",
        "1",
        "-M",
        "prepared",
        "-R",
        str(A_SECOND),
        "-t",
        str(count),
    ]
    subprocess.run(
        [*command, "-f", str(script), "-l", f"--log-prefix={logs}", publisher.address],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    lines = [line.split() for path in folder.glob("latency.*") for line in path.read_text().splitlines()]
    return sorted((int(line[2]) - int(line[6])) / 1000 for line in lines)  # less how late it began


def peer(binaries: Path, folder: Path, changes: int, singles: int) -> dict[str, Any]:
    result: dict[str, Any] = {"bench": "peer", "changes": changes, "machine": machine(folder)}
    result["postgresql"] = subprocess.run(
        [str(binaries / "postgres"), "--version"], check=True, capture_output=True, text=True
    ).stdout.strip()
    if os.getuid() == 0:
        shutil.chown(folder, "postgres")
    made: list[Cluster] = []
    try:
        for name in ("publisher", "subscriber"):
            made.append(Cluster(binaries, folder, name))
        note("two clusters; the backlog is written")
        result["visible_per_s"] = round(bulk(*made, folder, changes))
        os.sync()
        time.sleep(2)
        took = single(made[0], folder, singles)
        result |= {
            "single_p50_ms": round(statistics.median(took), 2),
            "single_p99_ms": round(took[int(len(took) * 0.99)], 2),
            "singles": len(took),
        }
    finally:
        for one in reversed(made):
            one.stop()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/bench peer", description=__doc__.split("\n\n")[0])
    parser.add_argument("--changes", type=int, default=200_000)
    parser.add_argument("--singles", type=int, default=200)
    parser.add_argument(
        "--dir", type=Path, help="where to make the folder of the two clusters (a real disk; default: TMPDIR)"
    )
    arguments = parser.parse_args()
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        sys.exit("scripts/bench peer needs PostgreSQL: apt install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="fednode-peer-", dir=arguments.dir))
    try:
        print(json.dumps(peer(found[-1].parent, folder, arguments.changes, arguments.singles), indent=1))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
