"""A city and whoever succeeds it, carried by stick in one process: what the old one wrote late, and what stands where.

>>> # row = made(folder); successor = promote(row, standby, province); bring(row, successor, "parent", province)
"""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import msgspec

from fednode.crypto import canonical, certs, issuing
from fednode.node import bundle_out, bundles, succession
from fednode.node.app import App
from fednode.node.link import Link
from fednode.node.projection import Projector
from fednode.node.rows import Row as Record
from fednode.proto import fednode_pb2 as pb
from fednode.sync import segment as seg
from fednode.sync.change import UPSERT, Change, LogName
from fednode.sync.clock import milliseconds
from fednode.sync.effects import Commit
from fednode.sync.enrol import Joined, Token
from fednode.sync.merge import RULES
from fednode.sync.strip import erase_change
from sim.datasets import catalog
from sticks import REAL, Row, carry, only

DATASET = "latest"
LAST: dict[str, int] = {}  # the stamp of the last change of a record
FIRST, AGAIN = (LogName("hebei", "1301", life, DATASET) for life in (1, 2))


def made(folder: Path) -> Row:
    """The province, a city with a record of each rule, a county, the city's standby; all have all."""
    row = Row(folder, 2, catalog(1))
    province, city, _ = row.apps
    standby = row.standby_of(city)
    for rule in RULES:
        put(city, rule, {"a": "first", "b": "first"})
    carry(row, city, province)
    bring(row, city, "standby", standby)
    return row


def bring(row: Row, sender: App, to: str, receiver: App) -> bundles.Imported:
    """A stick there; the answer goes back."""
    carried = row.stick()
    bundle_out.export(sender, to, carried)
    there = only(bundles.take_in(receiver, [carried]))
    only(bundles.take_in(sender, [carried]))
    assert there.error is None
    return there


def promote(row: Row, standby: App, issuer: App) -> App:
    """The standby is its primary from now on, as the issuer says."""
    me = standby.trust.me
    succession.allow(issuer, me.node)
    request = pb.SuccessionRequest(node=me.stands_for, life=succession.plan(standby).life)
    keys = standby.keys
    request.request = issuing.make_request(me.stands_for, keys.tls, keys.sign, keys.seal)
    reply = succession.grant(issuer, issuer.new_writer(issuer.store), me, request)
    succession.take(standby, tuple(reply.chain))
    return again(row, standby)


def again(row: Row, app: App) -> App:
    """Its next start."""
    app.close()
    opened = App.open(app.home.path, app.config, **REAL)
    row.apps[row.apps.index(app)] = opened
    return opened


def write(app: App, *keys: str, area: str = "1301") -> list[int]:
    """New records, one segment."""
    changes = [Change(key.encode(), canonical.dumps({"id": key})) for key in keys]
    return app.new_writer(app.store).local(DATASET, area, changes)


def come_back(row: Row, old: App, successor: App) -> App:
    """As its successor's standby, with its store."""
    token, keys = Token.decode(successor.invite_standby()), old.keys
    der = issuing.make_request(token.node, keys.tls, keys.sign, keys.seal)
    asked = pb.JoinRequest(node=token.node, secret=token.secret, request=der)
    chain = tuple(successor.enrol(successor.new_writer(successor.store), asked).chain)
    old._become_standby(Joined(chain, (), certs.parse(chain[0])))
    return again(row, old)


def holders(app: App, key: str) -> list[tuple[str, int]]:
    """Where a key stands in the logs that a node reads."""
    found = []
    for held in app.store.segments(0, 1_000):
        columns = app.store.columns(held)
        keys = columns.keys if columns is not None else []
        found += [(str(held.name), held.first + i) for i, one in enumerate(keys) if one == key.encode()]
    return sorted(found)


def contents(app: App) -> list[bytes]:
    """The payloads that stand in the logs that a node reads."""
    columns = [app.store.columns(held) for held in app.store.segments(0, 1_000)]
    return [payload for each in columns if each is not None for payload in each.payloads]


def erase(app: App, log: LogName, seq: int) -> None:
    app.new_writer(app.store).local(DATASET, "1301", [erase_change(log, seq, "court order")])


def put(app: App, rule: str, payload: dict[str, str | None], op: int = UPSERT) -> None:
    """A change of the record 1 of a city, by one that has seen what is there."""
    there = current(app, rule)
    while app.now_ms() <= milliseconds(LAST.get(rule, 0)):  # another millisecond than that of the change before it
        pass
    content = canonical.dumps({"id": "1", **payload}) if op == UPSERT else b""
    app.new_writer(app.store).local(rule, "1301", [Change(b"1", content, op, there.hlc if there else 0)])
    LAST[rule] = app.store.log_state(app.trust.log_name(rule, "1301")).last_hlc


def current(app: App, rule: str) -> Record | None:
    with closing(app.new_projector(app.store)) as projector:
        projector.catch_up()
        return projector.current(rule, "1301", ["1"]).get("1")


def said(app: App, rule: str) -> dict[str, str] | None:
    there = current(app, rule)
    record: dict[str, str] | None = msgspec.json.decode(there.payload) if there and there.payload else None
    return record


def lost(app: App, rule: str) -> list[dict[str, str]]:
    """What is listed as a conflict."""
    with closing(app.new_projector(app.store)) as projector:
        projector.catch_up()
        rows = [projector.versions(rule, "1301", "1")[place] for place in _conflicts(projector)]
        return [msgspec.json.decode(projector.payload(one) or b"null") for one in rows]


def _conflicts(projector: Projector) -> list[tuple[int, int]]:
    return projector.connection.execute("select log, seq from superseded where conflict = 1").fetchall()


class Late:
    """A city whose successor goes on while the city, cut off, does so, too."""

    def __init__(self, row: Row, rule: str) -> None:
        self.row, self.rule = row, rule
        self.province, self.old, _, self.new = row.apps
        self.from_here = self.old.store.lsn

    def promote(self) -> None:
        self.new = promote(self.row, self.new, self.province)
        self.promoted_at = self.new.store.lsn
        bring(self.row, self.new, "parent", self.province)

    def found(self, count: int | None = None) -> None:
        """What the old one wrote, or the first of it, comes to its successor, and from there to the province."""
        sent, _ = self.old.store.feed_up(self.from_here, 1 << 20)
        items = [one for one in sent if one.data and seg.parse(one.data).header.log.origin == "1301"][:count]
        self.from_here = items[-1].lsn
        peer = self.new.store.peer("13")
        assert peer is not None
        link = Link(self.province.trust.me, peer.id, self.province.store.store_id, True, peer.have.lsn, gathers=True)
        commits = [(link, Commit(link.have + 1 + i, one.data, None)) for i, one in enumerate(items)]
        outcomes = self.new.new_writer(self.new.store).incoming(commits)
        assert [done.refused for _, done in outcomes] == [""] * len(items)
        bring(self.row, self.new, "parent", self.province)
        assert current(self.new, self.rule) is not None
        assert said(self.new, self.rule) == said(self.province, self.rule)
        assert self.province.store.refused() == []


def in_turn(row: Row, old: App, successor: App, issuer: App, *, gives: bool = True) -> App:
    """The old primary comes back as its successor's standby, and is promoted in its turn. `gives`: what it wrote late
    was given to the successor before."""
    back = come_back(row, old, successor)
    if gives:
        carry(row, back, successor)
    bring(row, successor, "parent", issuer)
    bring(row, successor, "standby", back)
    third = promote(row, back, issuer)
    if gives:
        bring(row, third, "parent", issuer)
    return third
