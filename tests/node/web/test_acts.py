"""The pages on which people act: alerts, accounts; the audit trail that says so; conflicts."""

from __future__ import annotations

import csv
import html
import io
import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from console import ANY_PORT, PASSWORD, Visitor
from fednode.node.alerting.reading import id_of
from fednode.node.events import Events, Filter
from fednode.node.web import roles
from fednode.node.web.accounts import Accounts
from fednode.sync.change import Change
from mesh import Mesh, Running


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Running]:
    async with Mesh(tmp_path) as mesh:
        yield await mesh.found(http_listen=ANY_PORT)


def audit(node: Running, action: str) -> list[tuple[str, str, dict[str, object]]]:
    """(who, outcome, details) of the events of an act, the oldest first, without addresses."""
    projector = node.app.new_projector()
    found = [(one.who, one.outcome, one.details) for one in Events(projector).all(Filter(action=action))]
    projector.close()
    return [(who, outcome, {k: v for k, v in told.items() if k != "address"}) for who, outcome, told in found[::-1]]


def raised(node: Running) -> str:
    """An alert, with a hostile text in it; its key."""
    node.app.journal().alert("FN-6420", "1301", {"log": "<script>alert(1)</script>", "first": 1}, ["a head"])
    projector = node.app.new_projector()
    (alert,) = Events(projector).alerts()
    projector.close()
    return alert.key


async def test_an_alert_is_seen_to_kept_quiet_and_closed(node: Running) -> None:
    key = raised(node)
    async with Visitor(node) as oscar:
        await oscar.join(roles.OPERATOR, "oscar")
        page = await oscar.get("/alerts")
        assert id_of(key) in page.text
        assert "<script>alert" not in page.text
        for act, more in (
            ("ack", {"key": key, "note": "on my way"}),
            ("silence", {"kind": "node", "target": "13", "until": "4h", "note": "works"}),
            ("unsilence", {"kind": "node", "target": "13"}),
            ("close", {"key": key, "note": "looked into"}),
        ):
            answer = await oscar.post(f"/alerts/{act}", **more)
            assert answer.headers["location"] == f"/alerts?done={act}", answer.text
            page = await oscar.get(answer.headers["location"])
            assert 'role="status"' in page.text
            ((who, outcome, _),) = audit(node, f"alerts.{act}")
            assert (who, outcome) == ("oscar (console)", "done")
        assert id_of(key) not in page.text
        closed = await oscar.get("/alerts?state=closed")
        assert "closed by oscar (console): looked into" in closed.text
        for act, more, code in (
            ("close", {"key": key, "note": "again"}, "FN-3331"),
            ("close", {"key": key, "note": ""}, "FN-2810"),
            ("silence", {"kind": "node", "target": "99", "until": "4h"}, "FN-3332"),
            ("silence", {"kind": "node", "target": "13", "until": "9999d"}, "FN-2801"),
        ):
            assert code in (await oscar.post(f"/alerts/{act}", **more)).text
        assert "FN-2801" in (await oscar.get("/alerts?level=loud")).text


async def test_who_may_only_look_acts_on_nothing_and_the_attempt_is_told(node: Running) -> None:
    key = raised(node)
    async with Visitor(node) as vera:
        await vera.join(roles.VIEWER, "vera")
        assert "/alerts/ack" not in (await vera.get("/alerts")).text
        for path in ("/alerts/ack", "/alerts/ack", "/users/add"):
            answer = await vera.post(
                path, key=key, name="mallory", role="administrator", password=PASSWORD, again=PASSWORD
            )
            assert (answer.status_code, "FN-5802" in answer.text) == (403, True)
    assert audit(node, "alerts") == [("vera (console)", "refused", {})], "told once, however often it is tried"
    assert audit(node, "user.add") == [("vera (console)", "refused", {})]


async def test_the_audit_trail_is_filtered_paged_and_taken_away(node: Running) -> None:
    for number in range(60):
        node.app.journal().event("put", who="=cmd|' /C calc'!A0", number=number)
    async with Visitor(node) as ada:
        await ada.join(roles.AUDITOR, "ada")
        await ada.until("/audit?action=put", "number=59")
        page = await ada.get("/audit?action=put")
        numbers = [int(one) for one in re.findall(r"number=(\d+)", page.text)]
        assert numbers == list(range(59, 9, -1))
        link = re.search(r'rel="next" href="([^"]+)"', page.text)
        assert link is not None
        page = await ada.get(html.unescape(link[1]))
        assert [int(one) for one in re.findall(r"number=(\d+)", page.text)] == list(range(9, -1, -1))
        assert 'rel="next"' not in page.text
        answer = await ada.get("/audit.csv?action=put&outcome=done")
        assert answer.headers["content-disposition"] == 'attachment; filename="audit-13.csv"'
        rows = list(csv.DictReader(io.StringIO(answer.text.removeprefix("\ufeff"))))
        assert [row["details"] for row in rows] == [f"number={number}" for number in range(59, -1, -1)]
        assert {row["who"] for row in rows} == {"'=cmd|' /C calc'!A0"}, "no spreadsheet computes it"
        assert "FN-2801" in (await ada.get("/audit?since=yesterday")).text
    looked = audit(node, "audit.log")
    assert {who for who, _, _ in looked} == {"ada (console)"}
    assert looked[-1][2] == {"filters": "action, outcome", "exported": True}


async def test_an_administrator_keeps_the_accounts(node: Running) -> None:
    async with Visitor(node) as root, Visitor(node) as bob:
        await root.join(roles.ADMINISTRATOR, "root")
        await root.get("/users")
        both = {"password": PASSWORD, "again": PASSWORD}
        answer = await root.post("/users/add", name="Bob", role="viewer", **both)
        assert answer.headers["location"] == "/users?done=add", answer.text
        assert (await bob.sign_in("bob")).status_code == 303
        await root.post("/users/role", name="bob", role="operator")
        assert (await bob.get("/session")).status_code == 401, "another role: signed in anew"
        await bob.sign_in("bob")
        assert (await bob.get("/session")).json() == {"account": "bob", "role": "operator"}
        await root.post("/users/disable", name="bob")
        assert (await bob.sign_in("bob")).status_code == 401
        await root.post("/users/enable", name="bob")
        other = "an entirely other 口令"
        await root.post("/users/passwd", name="bob", password=other, again=other)
        assert (await bob.sign_in("bob")).status_code == 401
        assert (await bob.sign_in("bob", other)).status_code == 303
        for act, more, code in (
            ("add", {"name": "bob", "role": "viewer", **both}, "FN-3803"),
            ("add", {"name": "eve", "role": "god", **both}, "FN-2804"),
            ("add", {"name": "eve", "role": "viewer", "password": PASSWORD, "again": PASSWORD + "x"}, "FN-2809"),
            ("add", {"name": "eve", "role": "viewer", "password": "short", "again": "short"}, "FN-2803"),
            ("role", {"name": "root", "role": "viewer"}, "FN-3804"),
            ("disable", {"name": "root"}, "FN-3804"),
            ("disable", {"name": "eve"}, "FN-3802"),
        ):
            assert code in (await root.post(f"/users/{act}", **more)).text, (act, more)
    acts = [(who, told["account"]) for who, _, told in audit(node, "user") if "account" in told]
    assert acts == [("root (console)", "bob")] * 5
    accounts = Accounts.open(node.app.home.path)
    assert [(one.name, one.role, one.disabled) for one in accounts.all()] == [
        ("bob", "operator", False),
        ("root", "administrator", False),
    ]
    accounts.close()


async def test_conflicts_say_where_and_not_what(node: Running) -> None:
    writer = node.app.new_writer()
    for text in ("甲", "乙"):  # neither has seen the other
        writer.local("admin-licence", "13", [Change(b"k1", f'{{"xk_ws":"{text}"}}'.encode(), base=0)])
    writer.store.close()
    node.app.poke()
    async with Visitor(node) as alice:
        await alice.join(roles.VIEWER)
        await alice.until("/conflicts?dataset=admin-licence", "hebei/13/1/admin-licence")
        page = await alice.get("/conflicts")
        assert ("k1" in page.text, "甲" in page.text) == (True, False)
        assert "FN-2801" in (await alice.get("/conflicts?dataset=nothing")).text
