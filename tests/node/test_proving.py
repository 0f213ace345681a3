"""Proof files made by real nodes: what each of five levels can show, and the commands that make and check them."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import proofbundle.tlogproof as theirs
import pytest

from fednode.crypto import tlogproof
from fednode.crypto.suite import SUITE_1
from fednode.node import driver, erasing, sqlite, witness
from fednode.node.app import App
from fednode.node.cli import invoke
from fednode.node.proving import Proved, Prover
from fednode.sync import proof_file, strip
from fednode.sync import segment as seg
from fednode.sync.change import Change
from fednode.sync.errors import Refused
from mesh import Mesh, Running
from proofs import third_party

LEVELS = (("1301", "city"), ("130102", "county"), ("130102001", "township"), ("130102001001", "village"))
LOG = "hebei/130102001001/1/admin-licence"
RECORD = {"xk_xdr_mc": "石家庄甲店", "xk_zt": "1"}
DAY_MS = 86_400_000


def prover(app: App) -> Prover:
    return Prover(app.records(), app.keys.sign, app.now_ms)


def prove(node: Running, key: str = "k1", **more: Any) -> Proved:
    return prover(node.app).prove("admin-licence", key, **more)


def seen_by(proved: Proved) -> list[str]:
    return [one.identity.node for one in proved.checked.witnesses]


async def five_levels(mesh: Mesh) -> list[Running]:
    """Province to village, with one record of the village's at the province."""
    chain = [await mesh.found()]
    for node, level in LEVELS:
        chain.append(await mesh.child(chain[-1], node, level))
    village = chain[-1]
    await mesh.until(lambda: village.app.trust.catalog_version == 1)
    village.write("k1", RECORD)
    await mesh.until(lambda: chain[0].records().get("k1") == RECORD)
    return chain


def acked(node: Running) -> Callable[[], bool]:
    """Whether the parent's cosignatures of all that this node holds have come back."""
    return lambda: node.pending() == 0


def told(node: Running, log: str = LOG, size: int = 1) -> Callable[[], bool]:
    """Whether what all levels above this node's parent have signed of a log at this size has come down to it."""
    store, trust = node.app.store, node.app.trust
    writer = trust.directory.get("130102001001")
    above = {one.node for one in trust.directory.path(trust.node)[:-1]} - {writer.issuer if writer else ""}

    def holds() -> bool:
        log_id = store.rows("select id from log where name = ?", log)[0][0]
        return above <= {one.witness for one in witness.kept(store, log_id) if one.size == size}

    return holds


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """What witnesses have signed comes down with the ticks of the sessions."""
    monkeypatch.setattr(driver, "TICK_S", 0.05)


@pytest.mark.usefixtures("quick")
async def test_each_level_proves_with_the_cosignatures_of_all_levels(tmp_path: Path) -> None:
    """The village had its parent's alone: those of the levels above did not come down."""
    async with Mesh(tmp_path) as mesh:
        chain = await five_levels(mesh)
        province, city, county, township, village = chain
        for node in chain[1:]:
            await mesh.until(acked(node))
            await mesh.until(told(node))
        log = LOG
        assert nodes_of(village.app, log) == nodes_of(province.app, log) != []
        root = province.app.trust.directory.root.der
        everybody = ["130102001", "130102", "1301", "13"]
        for node, wanted in (
            (province, ["130102001", "13"]),
            (city, ["130102001", "1301", "13"]),
            (county, everybody),
            (township, everybody),
            (village, everybody),
        ):
            proved = prove(node)
            checked = proof_file.check(proved.data, root)
            assert checked == proved.checked
            assert seen_by(proved) == wanted
            assert third_party(proved.data, checked)["ok"]
            assert [one.node for one in checked.unseen_by] == [one for one in everybody[::-1] if one not in wanted]
            assert json.loads(checked.leaf.payload) == RECORD
            assert (checked.writer.node, checked.area, checked.maker.node) == (
                "130102001001", "130102001001", node.app.trust.node,
            )  # fmt: skip
            titles = {one.code: one for one in checked.titles.fields}
            assert titles["xk_zt"].zh == "当前状态"


@pytest.mark.usefixtures("quick")
async def test_the_checkpoint_with_the_most_cosignatures_is_taken(tmp_path: Path) -> None:
    """The county goes away: what comes then only the township has seen, and the older is still proved by all."""
    async with Mesh(tmp_path) as mesh:
        chain = await five_levels(mesh)
        county, township, village = chain[2:]
        await mesh.until(lambda: acked(village)() and acked(township)() and told(village)())
        await mesh.halt(county)
        village.write("k2", {"xk_xdr_mc": "乙"})
        await mesh.until(lambda: "k2" in township.records() and acked(village)())
        for node in (township, village):
            older, newer = prove(node), prove(node, "k2")
            assert (seen_by(older), older.checked.head.size) == (["130102001", "130102", "1301", "13"], 1)
            assert (seen_by(newer), newer.checked.head.size) == (["130102001"], 2)


async def test_a_renewed_certificate_does_not_spoil_what_was_seen_before(tmp_path: Path) -> None:
    """The proof carries the one that was valid then, out of the issuer's log."""
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        city.write("k1", RECORD)
        await mesh.until(lambda: city.pending() == 0 and "k1" in province.records())
        await mesh.halt(city)
        await mesh.halt(province)
        before = prove(province).checked.writer
        now_ms = province.app.clock()
        province.app.clock = lambda: now_ms + 300 * DAY_MS
        province.app.renew(province.app.new_writer(), before, city.app.renewal_request())
        renewed = province.app.trust.directory.get("1301")
        assert renewed is not None
        proved = prove(province)
        assert proved.checked.witnesses[0].time_s < renewed.not_before
        assert proved.checked.writer == before
        assert seen_by(proved) == ["13"]


async def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found()
        city = await mesh.child(province, "1301", "city")
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        city.write("k1", RECORD)
        await mesh.until(lambda: city.pending() == 0 and "k1" in province.records())
        file, root = tmp_path / "k1.tlog-proof", tmp_path / "root.pem"

        def run(*words: str, lang: str = "en") -> tuple[int, str, str]:
            capsys.readouterr()
            code = invoke(["--lang", lang, *words], {})
            out, err = capsys.readouterr()
            return code, out, err

        home = ("--home", str(tmp_path / "13"))
        assert run("audit", "prove", "admin-licence", "k1", "-o", str(file), *home)[0] == 0
        code, out, _ = run("audit", "root", "-o", str(root), *home)
        assert code == 0
        fingerprint = province.app.trust.root_sha256.hex()
        assert fingerprint in out.replace(" ", "")
        nowhere = ("--home", str(tmp_path / "nowhere"))  # no node, no store
        code, out, _ = run("audit", "check", str(file), "--root", str(root), *nowhere, lang="zh")
        assert code == 0
        for words in ("存证成立", "石家庄甲店", "当前状态", "1301", "见证会签"):
            assert words in out, words
        code, out, _ = run("audit", "check", str(file), "--root", str(root), "--json", *nowhere)
        document = json.loads(out)
        assert document["record"] == RECORD
        assert [one["node"] for one in document["witnesses"]] == ["13"]
        data, keys = base64.b64decode(document["leaf_data"]), [one["key"] for one in document["witnesses"]]
        writer = document["writer"]["key"]
        assert theirs.verify_tlog_proof(file.read_text("utf-8"), data, writer, keys, threshold=1)["ok"]
        # and what does not hold
        other = tmp_path / "other.pem"
        App.init_province(tmp_path / "14", province.app.config, node="14", name="山西", domain="shanxi").close()
        other.write_bytes((tmp_path / "14" / "root.pem").read_bytes())
        for data, pem, code_ in (
            (file.read_bytes(), other, "FN-6225"),
            (file.read_bytes()[:-10], root, "FN-6221"),
            (b"\xff\xfe", root, "FN-6221"),
            (bytes(tlogproof.FILE_BYTES_MAX + 1), root, "FN-6220"),
            (file.read_bytes(), file, "FN-6234"),
        ):
            (tmp_path / "altered").write_bytes(data)
            code, _, err = run("audit", "check", str(tmp_path / "altered"), "--root", str(pem), *nowhere)
            assert (code, code_ in err) == (6, True), (code_, err)
        assert run("audit", "check", str(tmp_path / "none"), "--root", str(root))[0] == 7
        page = tmp_path / "k1.html"
        assert run("audit", "prove", "admin-licence", "k1", "-o", str(file), "--receipt", str(page), *home)[0] == 0
        assert "石家庄甲店" in page.read_text(encoding="utf-8")
        for words, code_ in (
            (("--receipt", "x.docx"), "FN-2717"),
            (("--version", "2"), "FN-2716"),
            (("--area", "13"), "FN-3324"),
            (("--area", "x"), "FN-3323"),
        ):
            code, _, err = run("audit", "prove", "admin-licence", "k1", "-o", str(file), *home, *words)
            assert (code, code_ in err) == (int(code_[3]), True), err
        assert run("audit", "prove", "admin-licence", "k9", "-o", str(file), *home)[0] == 3


# ---------------------------------------------------------------- one node


@pytest.fixture
def province(tmp_path: Path) -> Any:
    from fednode.node import shipped
    from mesh import configuration

    app = App.init_province(tmp_path / "13", configuration(), node="13", name="河北省", domain="hebei")
    app.publish_catalog(shipped.catalog())
    yield Running(app)
    app.close()


def test_each_version_is_proved(province: Running) -> None:
    province.write("k1", {"xk_zt": "1"})
    province.write("k1", {"xk_zt": "2"})
    records = province.app.records()
    records.delete("admin-licence", "k1", area="13")
    with pytest.raises(Refused) as caught:
        prove(province)
    assert caught.value.code == "FN-3324"
    ops = [prove(province, version=number).checked.leaf for number in (1, 2, 3)]
    assert [(leaf.op, leaf.payload) for leaf in ops] == [(2, ""), (1, '{"xk_zt": "2"}'), (1, '{"xk_zt": "1"}')]


def test_an_event_of_the_audit_is_proved_like_a_record(province: Running) -> None:
    province.app.journal().event("test", subject="x")
    rows = province.app.records()
    rows.projector.catch_up()
    ((key,),) = rows._rows("select key from record r join dataset d on d.id = r.dataset where d.name = 'sys.audit'")[
        -1:
    ]
    proved = prover(province.app).prove("sys.audit", key)
    assert json.loads(proved.checked.leaf.payload)["action"] == "test"


def test_a_province_has_nobody_above_and_says_so(province: Running) -> None:
    province.write("k1", RECORD)
    checked = prove(province).checked
    assert (checked.witnesses, checked.unseen_by) == ((), ())


def nodes_of(app: App, log: str) -> list[tuple[int, int, bytes]]:
    """The kept nodes of a log."""
    return app.store.rows(
        "select level, idx, hash from tree join log on log.id = log_id where name = ? order by level, idx", log
    )


def test_altered_nodes_of_the_tree_are_made_again(province: Running) -> None:
    """They are only a projection: a bit that flips there must not take the proofs of a log away."""
    for i in range(5):
        province.write(f"k{i}", RECORD)
    log = "hebei/13/1/admin-licence"
    whole = nodes_of(province.app, log)
    assert [(level, index) for level, index, _ in whole] == [
        *((0, n) for n in range(5)), (1, 0), (1, 1), (2, 0),
    ]  # fmt: skip
    connection = sqlite.connect(province.app.home.log_db, synchronous="FULL")
    connection.execute("update tree set hash = zeroblob(32) where level = 1 and log_id in (select id from log)")
    connection.close()
    assert nodes_of(province.app, log) != whole
    assert prove(province, "k0").checked.index == 0
    assert nodes_of(province.app, log) == whole


def test_what_was_erased_is_not_proved_and_what_stands_beside_it_is(province: Running, tmp_path: Path) -> None:
    """The segment is stripped: its salts stand one by one, its leaves lead to the same root."""
    app = province.app
    records = app.records()
    changes = [Change(key.encode(), json.dumps({"xk_zt": key}).encode()) for key in ("a", "b", "c")]
    records.writer.local("admin-licence", "13", changes)
    before = proof_file.check(prove(province, "c").data, app.trust.directory.root.der)
    erasing.erase(records, "admin-licence", "b", "法院裁定")
    for version in (None, 1):
        with pytest.raises(Refused) as caught:
            prove(province, "b", version=version)
        assert caught.value.code == "FN-3324"  # not even the key is known any more
    after = prove(province, "c").checked
    assert after.leaf == before.leaf
    assert (after.index, after.head.size) == (2, 4)


def test_a_change_that_somebody_stripped(province: Running) -> None:
    """The record table still has it, the log has its leaf alone."""
    app = province.app
    changes = [Change(key.encode(), json.dumps({"xk_zt": key}).encode()) for key in ("a", "b")]
    (lsn,) = app.records().writer.local("admin-licence", "13", changes)
    app.records().projector.catch_up()
    (held,) = app.store.segments(lsn - 1, 1)
    columns = app.store.columns(held)
    assert columns is not None
    envelope = seg.parse(held.raw)
    raw, content_key = strip.reseal(envelope, strip.strip(columns, [0]), app.trust.me, [], app.keys.sign.sign, app.rng)
    with app.store.write() as tx:
        values = (raw, SUITE_1.hash(raw), app.store.stash(content_key, lsn + 1000), lsn)
        tx.execute("update segment set data = ?, sha256 = ?, content_key = ? where lsn = ?", *values)
    with pytest.raises(Refused) as caught:
        prove(province, "a")
    assert caught.value.code == "FN-3403"
    assert prove(province, "b").checked.index == 1


def test_one_version_that_was_erased(province: Running) -> None:
    province.write("k1", {"xk_zt": "1"})
    province.write("k1", {"xk_zt": "2"})
    erasing.erase(province.app.records(), "admin-licence", "k1", "更正", number=2)
    assert json.loads(prove(province).checked.leaf.payload) == {"xk_zt": "2"}
