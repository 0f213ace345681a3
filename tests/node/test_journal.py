"""The audit and the alerts of a node: what is written, once, within limits, and where it can be read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fednode.crypto import canonical, checkpoint
from fednode.node.app import App
from fednode.node.config import Config
from fednode.node.fence import OF_MINE
from fednode.node.journal import (
    ALARMING,
    DETAILS_MAX,
    EVIDENCE_BYTES_MAX,
    EVIDENCE_MAX,
    SUBJECTS_MAX,
    TEXT_BYTES_MAX,
    WINDOW_MS,
    Journal,
    alert_key,
)
from fednode.node.link import Link
from fednode.node.messages import error_text
from fednode.node.rows import Peer
from fednode.node.store import Store
from fednode.node.transaction import Transaction
from fednode.node.trust import Trust
from fednode.node.writer import Writer
from fednode.sync.change import ALERTS, AUDIT, KEY_BYTES_MAX, Change
from fednode.sync.effects import Commit
from fednode.sync.errors import PeerError, StoreError
from world import NOW_S, Clock, Stream, World, seed, shop

LOG = "hebei/1301/1/admin-licence"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(tmp_path: Path, clock: Clock) -> Iterator[App]:
    made = App.init_province(
        tmp_path / "13", Config(), node="13", name="河北省", domain="hebei", clock=clock, rng=Stream("journal")
    )
    yield made
    made.close()


def written(at: App | Store, dataset: str) -> list[tuple[str, dict[str, Any]]]:
    """(key, payload) of every change of a node's own log of a dataset, in order."""
    store = at.store if isinstance(at, App) else at
    found = []
    for held in store.segments(0, 1000, dataset=dataset):
        columns = store.columns(held)
        assert columns is not None
        found += [(key.decode(), canonical.loads(one)) for key, one in zip(columns.keys, columns.payloads, strict=True)]
    return found


def fresh(app: App) -> int:
    """How many events there are before the test's own."""
    return len(written(app, AUDIT))


def failing(app: App, what: Callable[[Transaction], None]) -> None:
    """A transaction that comes to nothing in the end."""

    def run() -> None:
        with app.store.write() as tx:
            what(tx)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run()


# ---------------------------------------------------------------- events


def test_an_event_says_who_did_what_when_and_how_it_ended(app: App, clock: Clock) -> None:
    before = fresh(app)
    app.operator = "alice (uid 1000)"
    app.journal().event("erase", dataset="admin-licence", changes=3, all=True)
    ((key, payload),) = written(app, AUDIT)[before:]
    assert key.endswith("/13")
    assert payload == {
        "v": 1,
        "at_ms": clock.ms,
        "node": "13",
        "who": "alice (uid 1000)",
        "software": app.software,
        "action": "erase",
        "outcome": "done",
        "details": {"dataset": "admin-licence", "changes": 3, "all": True},
    }


def test_keys_are_unique_and_sort_by_time_even_when_the_clock_goes_back(app: App, clock: Clock) -> None:
    journal = app.journal()
    for step_ms in (0, 0, 5, -60_000, 60_000):
        clock.ms += step_ms
        journal.event("x")
    keys = [key for key, _ in written(app, AUDIT)]
    assert keys == sorted(set(keys))


def test_an_event_in_a_transaction_goes_with_it(app: App) -> None:
    before = fresh(app)
    writer = app.new_writer(app.store)
    journal = app.journal(writer)
    failing(app, lambda tx: journal.within(tx, "x"))
    assert fresh(app) == before
    writer.local("sys.nodes", "13", [Change(b"k", b'{"kind":"none"}')], lambda tx: journal.within(tx, "x"))
    assert fresh(app) == before + 1


def test_details_are_bounded(app: App) -> None:
    journal = app.journal()
    journal.event("x", text="a" * TEXT_BYTES_MAX, **{f"n{i}": i for i in range(DETAILS_MAX - 1)})
    journal.event("x", text="a" * (TEXT_BYTES_MAX + 1), **{f"n{i}": i for i in range(DETAILS_MAX)})
    (_, at), (_, over) = written(app, AUDIT)[-2:]
    assert at["details"] == over["details"]
    assert len(at["details"]) == DETAILS_MAX
    assert len(at["details"]["text"]) == TEXT_BYTES_MAX


def test_what_json_cannot_say_is_said_otherwise(app: App) -> None:
    app.journal().event("x", big=1 << 60, half="\ud800", who="\udc80")
    payload = written(app, AUDIT)[-1][1]
    assert payload["details"] == {"big": str(1 << 60), "half": "?"}
    assert payload["who"] == "?"


# ---------------------------------------------------------------- alerts


def test_an_alert_raised_again_changes_nothing_until_its_evidence_does(app: App) -> None:
    journal = app.journal()
    assert journal.alert("FN-6420", "1301", {"log": LOG, "size": 5}, ["head 1", "head 2"])
    assert not journal.alert("FN-6420", "1301", {"log": LOG, "size": 5}, ["head 1", "head 2"])
    assert not app.journal().alert("FN-6420", "1301", {"log": LOG, "size": 5}, ["head 1", "head 2"])
    assert journal.alert("FN-6420", "1301", {"log": LOG, "size": 5}, ["head 1", "head 3"])
    assert journal.alert("FN-6420", "1301", {"log": LOG + "x", "size": 5}, ["head 1", "head 3"])
    keys = [key for key, _ in written(app, ALERTS)]
    assert keys == [f"FN-6420/1301/{LOG}"] * 2 + [f"FN-6420/1301/{LOG}x"]


def test_an_alert_that_was_rolled_back_is_raised_again(app: App) -> None:
    journal = app.journal()
    raised: list[bool] = []
    failing(app, lambda tx: raised.extend(journal.alert_within(tx, "FN-6420", "1301", {"log": LOG}) for _ in range(2)))
    assert raised == [True, False]
    assert journal.alert("FN-6406", "1301", {"log": LOG})  # takes the place in the log that the other had
    assert journal.alert("FN-6420", "1301", {"log": LOG})


def test_evidence_and_keys_are_bounded(app: App) -> None:
    journal = app.journal()
    texts = ["石" * (EVIDENCE_BYTES_MAX // 3) + "x"] * EVIDENCE_MAX  # it must not become what nobody would unpack
    assert journal.alert("FN-6420", "1301", {}, texts)
    assert not journal.alert("FN-6420", "1301", {}, [*(text + "x" for text in texts), "x"])
    assert len(alert_key("FN-6420", "1301", "石" * 2000).encode()) in range(KEY_BYTES_MAX - 2, KEY_BYTES_MAX + 1)


# ---------------------------------------------------------------- what peers cause


def test_an_event_of_a_peer_is_written_once_an_hour(app: App, clock: Clock) -> None:
    before = fresh(app)
    journal = app.journal()
    for step_ms in (0, 1, WINDOW_MS - 2):
        clock.ms += step_ms
        journal.befell("session.refused", "refused", peer="1301", code="FN-5511")
    assert fresh(app) == before + 1
    app.journal().befell("session.refused", "refused", peer="1301", code="FN-5512")
    assert fresh(app) == before + 2
    clock.ms += 1
    journal.befell("session.refused", "refused", peer="1301", code="FN-5511")
    (_, last) = written(app, AUDIT)[-1]
    assert fresh(app) == before + 3
    assert last["details"] == {"peer": "1301"}, "what was held back was told with the event before"
    assert written(app, AUDIT)[-2][1]["details"] == {"peer": "1301", "held_back": 2}


def test_a_peer_that_makes_up_names_does_not_fill_the_log(app: App, clock: Clock) -> None:
    before = fresh(app)
    journal = app.journal()
    for i in range(SUBJECTS_MAX):
        journal.befell("join.refused", "refused", peer=f"n{i}", code="FN-5101")
    assert fresh(app) == before + SUBJECTS_MAX
    journal.befell("join.refused", "refused", peer="one more", code="FN-5101")
    assert fresh(app) == before + SUBJECTS_MAX
    journal.befell("session.refused", "refused", peer="1301", code="FN-5511")
    assert fresh(app) == before + SUBJECTS_MAX + 1, "other kinds have a budget of their own"
    clock.ms += WINDOW_MS
    journal.befell("join.refused", "refused", peer="one more", code="FN-5101")
    assert written(app, AUDIT)[-1][1]["details"] == {"peer": "one more", "held_back": 1}


def test_a_peer_that_makes_up_alerts_does_not_fill_the_log(app: App) -> None:
    journal = app.journal()
    assert all(journal.alert("FN-6406", "1301", {"log": LOG, "first": i}) for i in range(SUBJECTS_MAX))
    assert not journal.alert("FN-6406", "1301", {"log": LOG, "first": SUBJECTS_MAX})
    assert journal.alert("FN-6406", "1302", {"log": LOG})


def journalled(folder: Path, node: str, child: str) -> tuple[World, Writer, Peer]:
    """A writer of a node whose refusals are in its journal, and a child of its."""
    world = World()
    place = world.places[node]
    store = Store.create(folder / "log.db", store_id=seed("store")[:16], stash_key=seed("stash"))
    trust = Trust(place.chain, node)
    trust.directory, trust.catalog = world.directory(), world.catalog
    writer = Writer(store, trust, place.keys, lambda: NOW_S * 1000, Stream("journal"))  # type: ignore[arg-type]
    writer.on_refusals = Journal(writer, lambda: NOW_S * 1000, "daemon", "test").refused
    with store.write() as tx:
        return world, writer, tx.ensure_peer(child, "child")


def test_a_segment_that_is_refused_is_an_event_and_where_it_is_alarming_an_alert(tmp_path: Path) -> None:
    """In the transaction that keeps the evidence, with the head that was offered and the one that is held as notes."""
    world, writer, peer = journalled(tmp_path, "130102001", "130102001001")
    store = writer.store
    link = Link(world.identity("130102001001"), peer.id, bytes(16), False, 0)
    good = world.segment("130102001001", readers=("130102001",))
    sign = world.places["130102"].keys.sign
    later = (NOW_S * 1000 + 1) << 16
    forged = world.segment("130102001001", state=good.after, key=sign, readers=("130102001",), hlc=later)
    sent = (Commit(1, good.raw), Commit(2, forged.raw), Commit(2, forged.raw))
    outcomes = writer.incoming([(link, commit) for commit in sent])
    assert [done.refused for _, done in outcomes] == ["", "FN-6406", "FN-6406"]
    ((_, event),) = written(store, AUDIT)
    assert (event["action"], event["code"], event["outcome"]) == ("segment.refused", "FN-6406", "refused")
    assert event["details"] == {"peer": "130102001001", "log": str(good.after.name)}
    ((key, alert),) = written(store, ALERTS)
    assert key == f"FN-6406/130102001001/{good.after.name}"
    assert alert["peer"] == "130102001001"
    heads = [checkpoint.from_note(text)[0].size for text in alert["evidence"]]
    assert heads == [forged.after.size, good.after.size]
    assert [row["code"] for row in store.refused()] == ["FN-6406"]
    store.close()


def test_alerts_of_one_transaction_are_one_segment(tmp_path: Path) -> None:
    """Sealing and storing one is most of what an alert costs, and a thief refuses as fast as it can."""
    world, writer, peer = journalled(tmp_path, "130102", "130102001")
    store, trust = writer.store, writer.trust
    areas = ("130102", "130102", "130102001", "130102002")
    lsns = [writer.local("shop", area, [shop(str(n), area)])[0] for n, area in enumerate(areas)]
    outcomes = [(lsn, None, "FN-6406") for lsn in (*lsns, lsns[0])]  # one of them twice: nothing new
    writer.acknowledged(peer.id, outcomes, world.identity("130102001"), lsns[-1])
    logs = [str(trust.log_name("shop", area)) for area in areas[1:]]
    found = written(store, ALERTS)
    assert [(alert["params"]["log"], alert["params"]["first"]) for _, alert in found] == [
        *zip(logs, (1, 0, 0), strict=True)
    ]
    log_id = store.log_id(trust.log_name(ALERTS, trust.area))
    assert store.rows("select first, count from segment where log_id = ?", log_id) == [(0, len(logs))]
    assert len(store.refused()) == len(lsns)
    store.close()


@pytest.mark.parametrize("code", sorted(OF_MINE & ALARMING))
def test_an_alert_of_what_a_peer_refused_says_of_what(tmp_path: Path, code: str) -> None:
    """Regression: "from change {first}: the leaves do not lead to the signed root at size {size}"."""
    world, writer, peer = journalled(tmp_path, "130102", "130102001")
    store = writer.store
    (lsn,) = writer.local("shop", "130102", [shop("a", "130102"), shop("b", "130102")])
    writer.acknowledged(peer.id, [(lsn, None, code)], world.identity("130102001"), lsn)
    ((_, alert),) = written(store, ALERTS)
    told = alert["params"]
    assert (told["log"], told["first"], told["size"]) == ("hebei/130102/1/shop", 0, 2)
    for lang in ("en", "zh"):
        assert "{" not in error_text(PeerError(code, **told), lang)[0]
    store.close()


# ---------------------------------------------------------------- the format


def test_golden_payloads(app: App, clock: Clock) -> None:
    """The bytes of docs/formats.md: `"key" payload`, a line each. A change here is a new version of the format."""
    clock.ms = NOW_S * 1000 + 500
    app.operator, app.software = "李明 (alice, uid 1000)", "fednode/0"
    journal = app.journal()
    journal.event("put", dataset="admin-licence", area="13", log="hebei/13/1/admin-licence", number=7)
    journal.event("revoke", "refused", code="FN-5115", node="13")
    journal.alert("FN-6420", "1301", {"first": 3, "log": LOG, "node": "1301", "size": 5}, ["hebei/1301/1/x\n5\nroot\n"])
    lines = []
    for dataset, count in ((AUDIT, 2), (ALERTS, 1)):
        for held in app.store.segments(0, 100, dataset=dataset)[-count:]:
            columns = app.store.columns(held)
            assert columns is not None
            lines.append(columns.keys[0] + b" " + columns.payloads[0])
    assert b"\n".join(lines) + b"\n" == (Path(__file__).parent / "vectors/journal.txt").read_bytes()


# ---------------------------------------------------------------- the writer


def test_only_sealed_system_logs_are_extended_inside_a_transaction(app: App) -> None:
    writer = app.new_writer(app.store)
    for dataset in ("sys.nodes", "sys.catalog", "admin-licence", "sys.galaxy"):
        with pytest.raises(ValueError, match=dataset), app.store.write() as tx:
            writer.append_system(tx, dataset, "13", [Change(b"k", b"{}")])


def test_a_store_that_cannot_write_says_so(app: App) -> None:
    pages = app.store._c.execute("pragma page_count").fetchone()[0]
    app.store._c.execute(f"pragma max_page_count = {pages}")
    journal: Journal = app.journal()
    with pytest.raises(StoreError):
        any(journal.event("x") for _ in range(200))  # type: ignore[func-returns-value]


def test_regression_a_domain_with_levels_of_its_own(tmp_path: Path, clock: Clock) -> None:
    """System datasets named the five default levels as their writers and readers: such a province could not even be
    founded (FN-5301)."""
    levels = ("country", "region", "office")
    app = App.init_province(
        tmp_path / "cn", Config(), node="11", name="国", level="country", domain="cn", levels=levels, clock=clock
    )
    app.journal().event("x")
    assert app.trust.dataset(AUDIT).readers == levels  # type: ignore[union-attr]
    assert written(app, AUDIT)
    app.close()


def test_payloads_are_canonical(app: App) -> None:
    app.journal().alert("FN-6420", "1301", {"log": LOG, "石": 1}, ["x"])
    for dataset in (ALERTS,):
        for held in app.store.segments(0, 10, dataset=dataset):
            columns = app.store.columns(held)
            assert columns is not None
            for payload in columns.payloads:
                assert canonical.dumps(msgspec.json.decode(payload)) == payload
