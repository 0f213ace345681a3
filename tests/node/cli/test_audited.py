"""Every command that acts is audited. A new command must decide: it names its act, or it stands in `READS`."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from fednode.crypto import canonical, issuing
from fednode.node.app import App
from fednode.node.cli import cli, invoke
from fednode.node.config import Config
from fednode.node.journal import Journal
from fednode.node.shipped import catalog
from fednode.sync.catalog import Catalog
from fednode.sync.change import AUDIT, NODES, Change
from fednode.sync.errors import StoreError
from fednode.sync.identity import node_payload
from hook import Hook
from sample_data import records, write
from world import keys_of

# Commands that change nothing (get and find of what is not public are audited where they read: node/records).
READS = {
    "backup list", "bundle inspect",
    "alerts", "alerts rules", "audit check", "audit root", "catalog export", "catalog list", "catalog show",
    "completion",
    "config show", "conflicts", "coverage", "digest", "docs", "doctor", "drill", "find", "get", "invites", "jobs",
    "mesh", "nodes",
    "self-test", "standby list", "status", "support-bundle", "user list", "version",
}  # fmt: skip
LICENCE = "admin-licence"
# Acts that take more than one node, or a daemon: tests/node/test_journal_mesh.py
IN_A_MESH = {
    "bundle export", "bundle import", "join", "promote", "recover", "restore", "run", "standby allow", "standby resume",
    "standby seal",
    "sync",
}  # fmt: skip


def commands(group: click.Group, path: str = "") -> Iterator[tuple[str, Any]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        assert found is not None
        if isinstance(found, click.Group):
            yield from commands(found, f"{path}{name} ")
        if not isinstance(found, click.Group) or found.invoke_without_command:
            yield f"{path}{name}", found


ACTS = {path: command.action for path, command in commands(cli) if getattr(command, "action", "")}


def test_every_command_names_its_act_or_only_reads() -> None:
    undecided = {path for path, _ in commands(cli)} - set(ACTS) - READS
    assert not undecided, "give `command(...)` an action, or add it to READS"
    assert not set(ACTS) & READS


class Desk:
    """One province, its operator, and what the audit says."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.home, self._capsys = folder, folder / "home", capsys

    def run(self, *words: str, expect: int = 0, **environ: str) -> dict[str, Any]:
        self._capsys.readouterr()
        code = invoke(["--home", str(self.home), "--json", *words], {"LANG": "C.UTF-8", **environ})
        document: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert code == expect, document
        return document

    def events(self) -> list[dict[str, Any]]:
        app = App.open(self.home, Config())
        found = []
        for held in app.store.segments(0, 1000, dataset=AUDIT):
            columns = app.store.columns(held)
            assert columns is not None
            found += [canonical.loads(payload) for payload in columns.payloads]
        app.close()
        return found

    def last(self) -> dict[str, Any]:
        return self.events()[-1]

    def alert(self, evidence: str = "head") -> None:
        app = App.open(self.home, Config())
        app.journal().alert("FN-6420", "1301", {"log": "l", "first": 1, "size": 2, "node": "1301"}, [evidence])
        app.close()

    def found(self) -> None:
        self.run("init", "--id", "13", "--name", "河北省")
        self.run("catalog", "publish", "--shipped")

    def sample(self, rows: int = 3) -> Path:
        path = self.folder / "x.csv"
        write(path, catalog().datasets[LICENCE], records(LICENCE, rows, seed=7, area="130102001001"))
        return path

    def put(self) -> str:
        record = {**next(iter(records(LICENCE, 1, seed=7, area="13"))), "xk_yxqzi": "2099-12-31"}  # never withdrawn
        return str(self.run("put", LICENCE, json.dumps(record, ensure_ascii=False))["key"])


@pytest.fixture
def desk(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Desk:
    return Desk(tmp_path, capsys)


def _erase(desk: Desk) -> None:
    desk.run("erase", LICENCE, desk.put(), "--reason", "court order", "--yes")


def _delete(desk: Desk) -> None:
    desk.run("delete", LICENCE, desk.put())


def _revoke(desk: Desk) -> None:
    """Revoking takes a child: one that was certified here."""
    app = App.open(desk.home, Config())
    mine = keys_of("x")
    asked = issuing.parse_request(issuing.make_request("1301", mine.tls, mine.sign, mine.seal))
    der = app.certify(asked, "石家庄市", "city", ("1301",), 1)
    app.new_writer(app.store).local(NODES, "13", [Change(b"1301", canonical.dumps(node_payload(der)))])
    app.close()
    desk.run("revoke", "1301", "--reason", "被盗", "--yes")


def _close(desk: Desk) -> None:
    desk.alert()
    desk.run("alerts", "close", desk.run("alerts")["alerts"][0]["key"], "--reason", "x")


def _ack(desk: Desk) -> None:
    desk.alert()
    desk.run("alerts", "ack", desk.run("alerts")["alerts"][0]["id"], "--note", "x")


def _unsilence(desk: Desk) -> None:
    desk.run("alerts", "silence", "disk", "--until", "4h")
    desk.run("alerts", "unsilence", "disk")


def _test(desk: Desk) -> None:
    hook = Hook()
    desk.run("alerts", "test", FEDNODE_ALERTS_WEBHOOKS=hook.url)
    hook.close()


def _recovery_key(desk: Desk) -> str:
    return str(desk.run("backup", "key", "--out", str(desk.folder / "recovery.pem"))["key"])


def _back_up(desk: Desk) -> None:
    desk.run("backup", "--to", str(desk.folder / "backup"), FEDNODE_BACKUP_KEY=_recovery_key(desk))


def _verify_backups(desk: Desk) -> None:
    _back_up(desk)
    desk.run("backup", "verify", str(desk.folder / "backup"))


def _user(desk: Desk, *words: str) -> None:
    """An account, and what is done with it."""
    secret = desk.folder / "password"
    secret.write_text("a passphrase of 某某\n", encoding="utf-8")
    given = ["--password-file", str(secret)]
    desk.run("user", "add", "alice", "--role", "viewer", *given)
    if words:
        desk.run("user", words[0], "alice", *words[1:], *(given if words[0] == "passwd" else []))


# What makes each act happen.
SCENES: dict[str, Callable[[Desk], Any]] = {
    "init": lambda desk: None,
    "backup": _back_up,
    "backup key": _recovery_key,
    "backup verify": _verify_backups,
    "catalog publish": lambda desk: None,
    "standby invite": lambda desk: desk.run("standby", "invite"),
    "invite": lambda desk: desk.run("invite", "1301", "--level", "city", "--name", "石家庄市"),
    "revoke": _revoke,
    "import": lambda desk: desk.run("import", LICENCE, str(desk.sample())),
    "put": lambda desk: desk.put(),
    "delete": _delete,
    "erase": _erase,
    "compact": lambda desk: desk.run("compact"),
    "jobs run": lambda desk: desk.run("jobs", "run", "cleaning"),
    "refused": lambda desk: desk.run("refused", "--retry", "1301"),
    "rebuild": lambda desk: desk.run("rebuild"),
    "store step-back": lambda desk: desk.run("store", "step-back"),
    "alerts ack": _ack,
    "alerts close": _close,
    "alerts test": _test,
    "alerts silence": lambda desk: desk.run("alerts", "silence", "13", "--below", "--until", "2d", "--note", "x"),
    "alerts unsilence": _unsilence,
    "audit log": lambda desk: desk.run("audit", "log"),
    "user add": _user,
    "user passwd": lambda desk: _user(desk, "passwd"),
    "user role": lambda desk: _user(desk, "role", "auditor"),
    "user disable": lambda desk: _user(desk, "disable"),
    "verify": lambda desk: desk.run("verify"),
    "audit verify": lambda desk: desk.run("audit", "verify"),
    "audit prove": lambda desk: desk.run("audit", "prove", LICENCE, desk.put(), "-o", str(desk.folder / "x")),
}


def test_every_act_has_its_scene() -> None:
    assert set(SCENES) == set(ACTS) - IN_A_MESH


@pytest.mark.parametrize("path", sorted(SCENES))
def test_what_is_done_is_in_the_audit(desk: Desk, path: str) -> None:
    desk.found()
    SCENES[path](desk)
    found = [one for one in desk.events() if one["action"] == ACTS[path]]
    assert [one["outcome"] for one in found] == ["done"]
    assert found[0]["who"].endswith(f"uid {os.getuid()})")


# ---------------------------------------------------------------- what is in it, and what is not


def test_an_import_of_one_group_is_told_once_with_its_changes(desk: Desk) -> None:
    desk.found()
    path = desk.sample()
    told = {"dataset": LICENCE, "area": "13", "file": "x.csv", "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    for added, unchanged in ((3, 0), (0, 3)):
        desk.run("import", LICENCE, str(path))
        last = desk.events()[-1]
        counts = {"read": 3, "added": added, "changed": 0, "unchanged": unchanged, "rejected": 0}
        assert (last["action"], last["details"]) == ("import", told | counts)
    actions = [one["action"] for one in desk.events()]
    assert (actions.count("import"), actions.count("import.started")) == (2, 0)


def test_a_put_names_the_place_of_the_change_and_not_its_key(desk: Desk) -> None:
    desk.found()
    key = desk.put()
    last = desk.last()
    place = {"log": f"hebei/13/1/{LICENCE}", "number": 0}
    assert last["details"] == {"dataset": LICENCE, "area": "13", **place}
    assert key not in json.dumps(last, ensure_ascii=False)


def test_no_secret_is_in_the_audit(desk: Desk) -> None:
    desk.found()
    token = desk.run("invite", "1301", "--level", "city", "--name", "石家庄市")["token"]
    assert token not in json.dumps(desk.events())
    assert set(desk.last()["details"]) == {"node", "level", "scope", "expires_s"}


def test_a_refusal_is_in_the_audit_with_its_code(desk: Desk) -> None:
    desk.found()
    desk.run("revoke", "13", "--reason", "x", "--yes", expect=5)
    last = desk.last()
    assert (last["action"], last["outcome"], last["code"]) == ("revoke", "refused", "FN-5115")
    assert last["details"] == {"node": "13"}


def test_a_failure_is_in_the_audit_with_what_was_done(desk: Desk) -> None:
    desk.found()
    path = desk.sample(25)
    with path.open("a") as file:
        file.write('"' + "石家庄,\n" * 50_000)
    desk.run("import", LICENCE, str(path), expect=3)
    last = desk.last()
    assert (last["action"], last["outcome"], last["code"]) == ("import", "refused", "FN-3309")
    assert (last["details"]["file"], last["details"]["added"]) == ("x.csv", 25)


def test_a_dry_run_writes_no_event_even_when_it_is_refused(desk: Desk) -> None:
    desk.found()
    before = desk.events()
    desk.run("import", LICENCE, str(desk.sample()), "--dry-run")
    desk.run("revoke", "13", "--reason", "x", "--dry-run", expect=5)
    desk.run("catalog", "publish", "--shipped", "--dry-run")
    assert desk.events() == before


def test_an_audit_that_cannot_be_written_does_not_hide_the_error(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.found()

    def full(*_: Any, **__: Any) -> None:
        raise StoreError("FN-7605", path="x", reason="full")

    monkeypatch.setattr(Journal, "event", full)
    assert desk.run("revoke", "13", "--reason", "x", "--yes", expect=5)["error"]["code"] == "FN-5115"


def test_who_several_people_with_one_account(desk: Desk) -> None:
    desk.found()
    desk.run("rebuild", FEDNODE_OPERATOR="李明")
    assert desk.last()["who"].startswith("李明 (")
    desk.run("rebuild", SUDO_USER="alice")
    assert desk.last()["who"].startswith("alice (")
    assert desk.last()["who"].endswith(f"uid {os.getuid()})")


# ---------------------------------------------------------------- reads


def _declare(desk: Desk, cls: str) -> None:
    """Another version of the catalog, with every field of one class."""
    text = catalog().to_json().decode()
    document = json.loads(text)
    document["version"] += 1
    for dataset in document["dataset"]:
        for field in dataset["field"]:
            field["class"] = cls
    app = App.open(desk.home, Config())
    app.publish_catalog(Catalog.from_json(json.dumps(document).encode()))
    app.close()


@pytest.mark.parametrize(("cls", "audited"), [("public", False), ("internal", True), ("confidential", True)])
def test_reads_of_what_is_not_public_are_audited(desk: Desk, cls: str, audited: bool) -> None:
    desk.found()
    _declare(desk, cls)
    key = desk.put()
    before = len(desk.events())
    desk.run("get", LICENCE, key)
    desk.run("get", LICENCE, key, "--history")
    desk.run("find", LICENCE, "--where", "xk_zt=1", "--text", "公司")
    found = desk.events()[before:]
    assert [one["action"] for one in found] == (["get", "history", "get", "find"] if audited else [])
    if audited:
        assert found[-1]["details"]["filters"] == "xk_zt, text"
        assert "公司" not in json.dumps(found, ensure_ascii=False)
        assert key not in json.dumps(found, ensure_ascii=False)


def test_what_cannot_be_audited_is_not_shown(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    desk.found()
    _declare(desk, "internal")
    key = desk.put()

    def full(*_: Any, **__: Any) -> None:
        raise StoreError("FN-7605", path="x", reason="full")

    monkeypatch.setattr(Journal, "event", full)
    assert "record" not in desk.run("get", LICENCE, key, expect=7)


# ---------------------------------------------------------------- and it does not mix with the records


def test_counts_and_digests_are_of_records_alone(desk: Desk) -> None:
    desk.found()
    empty = desk.run("digest")
    desk.run("rebuild")
    assert desk.run("digest") == empty
    assert empty["records"] == 0
    desk.put()
    status = desk.run("status")["status"]
    assert (status["store"]["changes"], status["projection"]["records"]) == (1, 1)
    assert status["store"]["system_changes"] >= 4
    assert desk.run("digest")["datasets"] == {LICENCE: 1}
    assert desk.run("find", AUDIT, expect=3)["error"]["code"] == "FN-3321"
