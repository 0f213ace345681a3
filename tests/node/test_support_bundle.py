"""`fednode support-bundle`: secrets and records are put everywhere, and nothing of them is in it."""

from __future__ import annotations

import base64
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from fednode.node import sqlite
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.config import NAMES, SECRETS, Config, load
from fednode.node.doctor import bundle
from fednode.node.doctor.scene import Scene
from fednode.node.shipped import catalog
from fednode.sync.enrol import Token
from sample_data import records, write

CANARY = "91130100CANARY0X7Q"
NAME = "张三丰有限公司"
PASSPHRASE = "correct-horse-CANARY"
ENVIRON = {"LANG": "C.UTF-8", "FEDNODE_PASSPHRASE": PASSPHRASE, "FEDNODE_BACKUP_SECRET_KEY": "s3-CANARY-secret"}


def everything(data: bytes) -> bytes:
    """All bytes of a bundle: its file, and what is in it, names too."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        inside = [tar.extractfile(one).read() + one.name.encode() for one in tar]  # type: ignore[union-attr]
    return b"\n".join((data, *inside))


def spellings(secret: bytes) -> Iterator[bytes]:
    """A secret as it is, in hex, and in base64 wherever it begins."""
    yield from (secret, secret.hex().encode(), secret.hex().upper().encode())
    for skip in range(3):
        coded = base64.b64encode(secret[skip:])[4:-4]
        yield from (coded, coded.replace(b"+", b"-").replace(b"/", b"_"))


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A province with records, a token given out, settings with secrets; then what no honest node has: secrets and
    records in every table, every run file, every file's name."""
    home = tmp_path / "home"
    run = ["--home", str(home), "--json"]
    assert invoke([*run, "init", "--id", "13", "--name", NAME], ENVIRON) == 0
    assert invoke([*run, "catalog", "publish", "--shipped"], ENVIRON) == 0
    path = tmp_path / "rows.csv"
    write(path, catalog().datasets["admin-licence"], records("admin-licence", 5, seed=3, area="13"))
    assert invoke([*run, "import", "admin-licence", str(path)], ENVIRON) == 0
    assert invoke([*run, "rebuild"], ENVIRON) == 0
    assert invoke([*run, "mesh"], ENVIRON) == 0
    (home / "config.toml").write_text(f'lang = "en"\n[backup]\naccess_key = "{CANARY}"\nto = "/mnt/{NAME}"\n')
    for name, tables in {
        "state.db": ("record", "superseded"),
        "log.db": ("refused", "peer", "invite", "erased", "partial", "withheld", "meta"),
        "health.db": ("node",),
    }.items():
        connection = sqlite.connect(home / name, synchronous="FULL")
        for table in tables:
            plant(connection, table)
        connection.close()
    (home / "run/jobs").mkdir(parents=True, exist_ok=True)
    (home / "run/jobs/sync.json").write_text(json.dumps({"outcome": NAME, "code": CANARY, "by": NAME, "began_ms": 7}))
    (home / f"{NAME}{CANARY}.csv").write_text(CANARY)
    capsys.readouterr()
    return home


def plant(connection: sqlite.Connection, table: str) -> None:
    """A row full of a record and a secret; in the columns that are numbers, numbers."""
    columns = connection.execute(f"pragma table_info({table})").fetchall()
    numbers = {"integer": 777_777}
    values = [numbers.get(kind.lower(), f"{CANARY} {NAME}") for _, _, kind, *_ in columns]
    connection.execute(f"insert into {table} values ({', '.join('?' * len(values))})", values)


LINES = (
    {"timestamp": "2026-01-02T03:04:05.678Z", "level": "error", "logger": "fednode.daemon", "event": "store trouble"},
    {"level": "error", "logger": "fednode.daemon", "event": f"row {CANARY} of {NAME}", "code": "FN-7605", "count": 3},
    {"level": NAME, "logger": "fednode.x", "event": "job", "job": CANARY, "code": CANARY, "reason": NAME, CANARY: 1},
    {"level": "error", "logger": f"fednode.{CANARY}", "event": "job", "timestamp": CANARY},
    {"level": "error", "logger": "fednode", "event": "unexpected error", "exception": f"ValueError: {PASSPHRASE}"},
)


def test_no_secret_and_no_record_is_in_it(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = App.open(home, load(home, ENVIRON)[0])
    given = app.invite("1301", "city", NAME)
    token = Token.decode(given)
    keys = app.keys
    app.close()
    connection = sqlite.connect(home / "state.db", synchronous="NORMAL", readonly=True)
    rows = connection.execute(
        "select key, payload from record where dataset in (select id from dataset where name = 'admin-licence')"
    ).fetchall()
    connection.close()
    assert len(rows) == 5
    log, out = tmp_path / "daemon.log", tmp_path / "out.tar.gz"
    log.write_text("\n".join([*map(json.dumps, LINES), f"plain {CANARY}"]), "utf-8")
    code = invoke(["--home", str(home), "support-bundle", str(out), "--log", str(log)], ENVIRON)
    assert code == 0
    told = capsys.readouterr().out
    found = everything(out.read_bytes())
    secrets = [CANARY.encode(), NAME.encode(), PASSPHRASE.encode(), b"s3-CANARY", given.encode(), given[-30:].encode()]
    secrets += [keys.sign.private, keys.seal.private, keys.stash_key, token.secret]
    secrets += [line for path in (home / "keys").iterdir() for line in path.read_bytes().splitlines() if len(line) > 40]
    for key, payload in rows:
        secrets += [key.encode(), *(one.encode() for one in strings(json.loads(payload)))]
    assert len(secrets) > 60
    for secret in filter(None, secrets):
        for spelt in spellings(secret) if len(secret) >= 12 else (secret,):
            assert spelt not in found, secret
            assert spelt not in told.encode(), secret
    with tarfile.open(out) as tar:
        names = [Path(one.name).name for one in tar]
        lines = tar.extractfile("fednode-support/log.jsonl")
        assert lines is not None
        shown = [json.loads(line) for line in lines.read().splitlines()]
    assert shown[0]["event"] == "store trouble"
    assert (shown[1]["event"], shown[1]["code"], shown[1]["count"]) == ("other", "FN-7605", 3)
    assert shown[-1] == {"left_out": 2}
    for name in names:
        assert name in told
    assert out.stat().st_mode & 0o077 == 0


def strings(value: object) -> Iterator[str]:
    """Texts of a record that could be told from anything else."""
    values = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for one in values:
        if isinstance(one, str) and len(one) >= 6 and not one.startswith("20"):
            yield one
        elif not isinstance(one, str):
            yield from strings(one)


def test_the_list_comes_before_the_file(home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.tar.gz"
    words = ["--home", str(home), "--json", "support-bundle", str(out)]
    before = sorted(path.name for path in home.rglob("*"))
    assert invoke([*words, "--dry-run"], ENVIRON) == 0
    planned = json.loads(capsys.readouterr().out)["support_bundle"]
    assert not out.exists()
    assert invoke(words, ENVIRON) == 0
    written = json.loads(capsys.readouterr().out)["support_bundle"]
    assert [one["name"] for one in planned["contents"]] == [one["name"] for one in written["contents"]]
    with tarfile.open(out) as tar:
        assert [Path(one.name).name for one in tar] == [one["name"] for one in written["contents"]]
        data = {Path(one.name).stem: json.load(tar.extractfile(one)) for one in tar if one.name.endswith(".json")}  # type: ignore[arg-type]
    assert data["status"]["node"] == "13"
    assert data["tables"]["state.db"]["rows"]["record"] >= 5
    assert {one["number"] for one in data["doctor"]} == set(range(1, 21))
    assert data["settings"]["backup_to"] == {"value": "-", "from": "file"}
    assert sorted(path.name for path in home.rglob("*")) == before
    assert invoke(words, ENVIRON) == 3
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "FN-3760"


def test_where_there_is_no_node_it_says_so(tmp_path: Path) -> None:
    parts = bundle.collect(Scene(tmp_path / "x", lambda: (Config(), dict.fromkeys(NAMES, "default"))), [])
    data = {one.name: one.data for one in parts}
    assert json.loads(data["status.json"]) == {"error": "FN-7619"}
    assert json.loads(data["versions.json"])["fednode"]


def test_settings_that_may_be_a_secret_are_withheld() -> None:
    """A new setting is withheld until it is named."""
    withheld = {"backup_to", "backup_key", "backup_endpoint", "backup_region", "backup_access_key", *SECRETS}
    assert set(bundle.SETTINGS) <= set(NAMES) - withheld


def test_texts_of_findings_that_are_not_listed_are_withheld() -> None:
    """By name: what an error quotes may be a path, a name, or a record."""
    assert bundle._shown("node", "1301") == "1301"
    assert [bundle._shown(name, "张三") for name in ("reason", "path", "value")] == ["-"] * 3
