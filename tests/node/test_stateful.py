"""Whatever operators do at three nodes in a row, and however often the line between them is cut: against a dict.

A county and a village below it write the same records (real stores, real verification, the real engine in one
process); a township between them carries and reads. Each value is written once, so it says which write it is.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chain import COUNTY, TOWNSHIP, VILLAGE, Node
from fednode.node.erasing import erase
from fednode.node.ingest import open_source
from fednode.node.journal import Journal, Throttle
from fednode.node.projection import Projector
from fednode.node.records import Records
from fednode.sync.catalog import Catalog
from fednode.sync.errors import Refused
from parties import meet, settle

PATH = (VILLAGE, TOWNSHIP, COUNTY)
WRITERS = (VILLAGE, COUNTY)
KEYS = ("a", "b", "石|c", "d%")
EVERYONE = ["village", "township", "county"]
TEXT = {"type": "text", "max": 40}
CATALOG = Catalog.from_toml_dict(
    {
        "version": 1,
        "dataset": [
            {
                "name": "shop", "zh": "店铺", "en": "Shops", "key": ["id"], "flow": "both",
                "writers": ["village", "county"], "readers": EVERYONE,
                "field": [
                    {"code": "id", "zh": "编号", "en": "Number", "required": True, **TEXT},
                    {"code": "a", "zh": "内容", "en": "Text", "search": True, **TEXT},
                ],
            }
        ],
    }
)  # fmt: skip
ROUNDS_MAX = 6  # exchanges on each of the two hops until nothing more is owed

writers, keys, nodes = st.sampled_from(WRITERS), st.sampled_from(KEYS), st.sampled_from(PATH)


class Member:
    """A node with the services of its operator. `text`: what is looked for is indexed."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder = name, folder
        self.open()

    def open(self) -> None:
        self.node = Node(self.name, self.folder)
        self.node.trust.catalog = CATALOG
        writer, clock = self.node.writer, lambda: self.node.now_ms
        self.projector = Projector(self.folder / "state.db", self.node.store, self.node.trust)
        journal = Journal(writer, clock, "tester", "fednode/test", Throttle(clock))
        self.records = Records(writer, self.projector, self.node.trust, journal)

    def close(self) -> None:
        self.projector.close()
        self.node.store.close()

    def get(self, key: str) -> str | None:
        """The value of a record, None where there is none."""
        try:
            return str(self.records.get("shop", self.key(key), VILLAGE).record["a"])
        except Refused as error:
            if error.code != "FN-3324":
                raise
            return None

    @staticmethod
    def key(name: str) -> str:
        """As the catalog makes it of the key field's value."""
        return name.replace("%", "%25").replace("|", "%7C")

    def all(self) -> dict[str, str]:
        return {str(one.record["id"]): str(one.record["a"]) for one in self.records.find_all("shop")}

    def versions(self, key: str) -> set[str]:
        """Every value that the history of a record shows."""
        try:
            found = self.records.history("shop", self.key(key), VILLAGE)
        except Refused:
            return set()
        return {str(one.record["a"]) for one in found if one.record is not None}


class Operators(RuleBasedStateMachine):
    """The model: `agreed`, what all have when nothing is owed; `touched`, what was written to a key since then, by
    whom; `erased`, the values of versions that somebody erased."""

    def __init__(self) -> None:
        super().__init__()
        shm = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="fednode-stateful-", dir=shm if shm.is_dir() else None))
        self.members = {name: Member(name, self.folder / name) for name in PATH}
        self.agreed: dict[str, str | None] = dict.fromkeys(KEYS)
        self.touched: dict[str, dict[str, set[str | None]]] = {key: {} for key in KEYS}
        self.last: dict[tuple[str, str], str | None] = {}
        self.erased: set[str] = set()
        self.count = 0

    def teardown(self) -> None:
        for one in self.members.values():
            assert one.node.verified() == set()
            one.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def value(self) -> str:
        self.count += 1
        return f"v{self.count}"

    def wrote(self, member: Member, key: str, value: str | None) -> None:
        self.touched[key].setdefault(member.name, set()).add(value)
        self.last[member.name, key] = value
        assert member.get(key) == value

    # ------------------------------------------------------------ what operators do

    @initialize()
    def greet(self) -> None:
        """All have met before."""
        self.converge()

    @rule(name=writers, key=keys)
    def put(self, name: str, key: str) -> None:
        member, value = self.members[name], self.value()
        was = member.get(key)
        done = member.records.put("shop", {"编号": key, "a": value}, VILLAGE)
        assert (done.key, done.outcome) == (member.key(key), "added" if was is None else "changed")
        self.wrote(member, key, value)

    @rule(name=writers, key=keys)
    def put_the_same(self, name: str, key: str) -> None:
        member = self.members[name]
        was, lsn = member.get(key), member.node.store.lsn
        if was is not None:
            assert member.records.put("shop", {"id": key, "a": was}, VILLAGE).outcome == "unchanged"
            assert member.node.store.lsn == lsn

    @rule(name=writers, key=keys)
    def delete(self, name: str, key: str) -> None:
        member = self.members[name]
        if member.get(key) is None:
            with pytest.raises(Refused, match="FN-3324"):
                member.records.delete("shop", member.key(key), VILLAGE)
            return
        assert member.records.delete("shop", member.key(key), VILLAGE).outcome == "deleted"
        self.wrote(member, key, None)

    @rule(name=writers, chosen=st.lists(keys, min_size=1, max_size=3, unique=True), bad=st.booleans())
    def import_(self, name: str, chosen: list[str], bad: bool) -> None:
        member = self.members[name]
        values = {key: self.value() for key in chosen}
        was = {key: member.get(key) for key in chosen}
        path = self.folder / "rows.csv"
        rows = ["编号,内容", *(f"{key},{value}" for key, value in values.items()), *([",x"] if bad else [])]
        path.write_text("\n".join(rows) + "\n", encoding="utf-8")
        declared = member.records.declared("shop")
        report = member.records.import_rows("shop", open_source(path, declared), area=VILLAGE)
        added = sum(one is None for one in was.values())
        assert (report.added, report.changed, report.rejected) == (added, len(chosen) - added, int(bad))
        for key, value in values.items():
            self.wrote(member, key, value)

    @rule(name=writers, key=keys)
    def erase(self, name: str, key: str) -> None:
        member = self.members[name]
        known = member.versions(key)
        if member.get(key) is None:
            return
        erase(member.records, "shop", member.key(key), "court order", area=VILLAGE)
        self.erased |= known
        self.wrote(member, key, None)
        assert not member.versions(key)

    @rule(name=nodes)
    def restart(self, name: str) -> None:
        self.members[name].close()
        self.members[name].open()

    @rule(name=nodes, lost=st.booleans())
    def rebuild(self, name: str, lost: bool) -> None:
        """Made anew from the log, it says the same."""
        member = self.members[name]
        before = member.all()
        if lost:
            member.close()
            for path in self.folder.joinpath(name).glob("state.db*"):
                path.unlink()
            member.open()
        else:
            member.projector.rebuild()
        assert member.all() == before

    # ------------------------------------------------------------ what the line does

    @rule(lower=st.sampled_from((VILLAGE, TOWNSHIP)), frames=st.integers(1, 12))
    def cut(self, lower: str, frames: int) -> None:
        """An exchange that is cut after so many frames."""
        upper = PATH[PATH.index(lower) + 1]
        sides = meet(self.members[lower].node, self.members[upper].node)
        for _ in range(frames):
            for side in sides:
                if side.inbox:
                    side.receive(side.inbox.popleft())

    def exchange(self, lower: str, upper: str) -> None:
        sides = meet(self.members[lower].node, self.members[upper].node)
        settle(*sides)
        for side in sides:
            assert side.closed is not None
            assert side.closed.error is None

    @rule()
    def converge(self) -> None:
        """Up and down until nothing is owed. All agree then; on what, the model knows where one alone wrote."""
        for _ in range(ROUNDS_MAX):
            before = [one.node.store.lsn for one in self.members.values()]
            for lower, upper in ((VILLAGE, TOWNSHIP), (TOWNSHIP, COUNTY)):
                self.exchange(lower, upper)
            if before == [one.node.store.lsn for one in self.members.values()]:
                break
        else:
            pytest.fail("it never comes to rest")
        for key in KEYS:
            said = {one.get(key) for one in self.members.values()}
            assert len(said) == 1, f"{key}: {said}"
            found, by = said.pop(), self.touched[key]
            if not by:
                assert found == self.agreed[key]
            elif len(by) == 1:
                assert found == self.last[next(iter(by)), key]
            else:
                assert found in {self.last[name, key] for name in by}, f"{key}: {found}, {by}"
            self.agreed[key] = found
        self.touched = {key: {} for key in KEYS}
        assert len({one.records.digest("shop").digest for one in self.members.values()}) == 1
        for one in self.members.values():
            assert not one.node.refusals()
            shown = {value for key in KEYS for value in one.versions(key)}
            assert not shown & self.erased, "erased is erased, wherever it was"

    # ------------------------------------------------------------ always

    @invariant()
    def lists_and_records_agree(self) -> None:
        for one in self.members.values():
            assert one.all() == {key: value for key in KEYS if (value := one.get(key)) is not None}

    @invariant()
    def nobody_has_what_was_never_written(self) -> None:
        for one in self.members.values():
            for key in KEYS:
                written = {self.agreed[key]}.union(*self.touched[key].values())
                assert one.get(key) in written, f"{one.name} has {one.get(key)} as {key}: {written}"

    @precondition(lambda self: self.count)
    @rule(name=nodes, key=keys)
    def search(self, name: str, key: str) -> None:
        """The full-text index finds what is there, and nothing that was."""
        member = self.members[name]
        now = member.get(key)
        for value in {now, f"v{self.count}"} - {None}:
            found = {str(one.record["a"]) for one in member.records.find("shop", text=str(value)).items}
            assert found == ({value} if value in member.all().values() else set())


Operators.TestCase.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, derandomize=True, database=None,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
TestOperators: Any = Operators.TestCase
