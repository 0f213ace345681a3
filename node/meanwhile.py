"""What was written while nobody here had heard of a change that is made again now, and stands.

Rules
1. A change that is made again has a new stamp: by `latest` it would win over all that is there. It counts as of the
   moment in which it was written first. Where something else wins then, this node says that once more right behind it,
   in the same transaction: so every node agrees, whatever its program, and the late one is listed as a conflict.
2. What was made again counts where it stood first; what was said once more counts there, too, and not twice.
3. Under `field` only those fields are said once more that the late change would take. What is made again now or next
   is not said once more: it says itself what it says.
4. What is said once more stands twice: who erases the one erases the other, whoever wrote that (`node.stripping`, rule
   7). So it repeats one change, and not what several say field by field: an erase takes what it names, and no more. Of
   a dataset that only flows down what a node above wrote is left: it must be erased there (`node.erasing`).
5. A life since then, on another machine, may have made a change again, which only that machine's store knows: where
   two successors follow one another and the first primary comes back in between. It is known by its content and its
   later stamp, each once: it is not made again a second time, and the two are erased together.
6. Where what won is of a level that wins anyway (`authority`), nothing needs to be said.

>>> # stands = Meanwhile(projector).over(held, changes); [one.change for one in stands]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from fednode.crypto import canonical
from fednode.crypto.errors import FednodeError
from fednode.node.projection import Projector
from fednode.node.rows import Held, Row
from fednode.sync import merge
from fednode.sync.catalog import Dataset
from fednode.sync.change import DELETE, ERASE, JUST_BEFORE, UPSERT, Change, Columns, LogName

Place = tuple[LogName, int]


@dataclass(frozen=True, slots=True)
class Stands:
    """What stands over a late change of a record. `change`: what is said once more; `places`: what that repeats."""

    change: Change
    places: list[Place]


class Meanwhile:
    """For one projection, which it brings up to date when it is asked for the first time."""

    def __init__(self, projector: Projector) -> None:
        self._projector, self._store, self._trust = projector, projector.store, projector.trust
        self._followed = False

    def over(self, held: Held, changes: Sequence[Change]) -> list[Stands]:
        """What stands over the changes of a segment of an earlier life: for each record one, or under `field` one for
        each change that says a field."""
        declared = self._declared(held)
        if declared is None:
            return []
        found: dict[bytes, list[Change]] = {}
        for change in changes:
            if change.op != ERASE:
                found.setdefault(change.key, []).append(change)
        return [one for key, late in found.items() for one in self._over(declared, held, key, late)]

    def made_again(self, held: Held, columns: Columns, positions: Sequence[int]) -> dict[int, Place]:
        """What of a segment of an earlier life was made again in a life between that and this one, and as what."""
        declared, found = self._declared(held), dict[int, Place]()
        lives = range(held.name.incarnation + 1, self._trust.me.incarnation)
        logs = {str(replace(held.name, incarnation=life)) for life in lives}
        if declared is None or not any(self._store.log_id(LogName.parse(one)) for one in logs):
            return found
        taken = set[Place]()
        for i in positions:
            versions = self._projector.versions(declared.name, self._area(held), columns.keys[i].decode())
            for row in sorted(versions.values(), key=lambda one: one.hlc):
                place = (self._projector.log_name(row.log), row.seq)
                if str(place[0]) not in logs or row.hlc <= columns.hlcs[i] or row.op != columns.ops[i]:
                    continue
                again = place in taken or any(log == held.name for log, _ in self._store.first_of(*place))
                if not again and self._content(row) == columns.payloads[i]:
                    found[i] = place
                    taken.add(place)
                    break
        return found

    def _content(self, row: Row) -> bytes | None:
        """The payload of a version; None of what is damaged or was stripped."""
        try:
            return b"" if row.op == DELETE else self._projector.payload(row)
        except FednodeError:
            return None

    def _declared(self, held: Held) -> Dataset | None:
        """The dataset of a segment, if it is one of records; what is here is projected then."""
        declared = None if held.name.is_system else self._trust.dataset(held.name.dataset)
        if declared is not None and not self._followed:
            self._projector.catch_up()
            self._followed = True
        return declared

    def _area(self, held: Held) -> str:
        return held.name.audience or self._trust.area

    def _over(self, declared: Dataset, held: Held, key: bytes, late: Sequence[Change]) -> list[Stands]:
        versions = self._projector.versions(declared.name, self._area(held), key.decode())
        places = {at: (self._projector.log_name(row.log), row.seq) for at, row in versions.items()}
        there = set(places.values())
        first = {at: row for at, row in versions.items() if not self._repeats(places[at], there)}
        judged = self._projector.judge(declared.merge, first)
        if judged is None:
            return []
        best, payload, _ = judged
        if declared.merge == "field":
            return self._fields(declared, held, best, payload, late, {places[at]: row for at, row in first.items()})
        if self._comes(best, held):
            return []
        higher = self._projector.version(best).rank > self._projector.rank(self._trust.me)
        if declared.merge == "authority" and higher:
            return []
        return [Stands(Change(key, payload or b"", best.op, best.hlc), [places[(best.log, best.seq)]])]

    def _comes(self, row: Row, held: Held) -> bool:
        """Whether a version is one of those that are made again, now or next."""
        at = self._store.held_back_at(row.log, row.seq)
        return at is not None and at >= held.lsn

    def _repeats(self, place: Place, there: set[Place]) -> bool:
        """Whether a version is the making again of another that is there."""
        return any(one in there for one in self._store.first_of(*place))

    def _fields(
        self,
        declared: Dataset,
        held: Held,
        best: Row,
        payload: bytes | None,
        late: Sequence[Change],
        versions: Mapping[Place, Row],
    ) -> list[Stands]:
        record: dict[str, Any] = msgspec.json.decode(payload) if payload is not None else {}
        told = [(one.op, msgspec.json.decode(one.payload or b"{}")) for one in late]
        after = merge.overlay([(UPSERT, record), *told])
        taken = {name for name in record.keys() | after.keys() if record.get(name) != after.get(name)}
        key = late[0].key
        if payload is None:
            return [Stands(Change(key, b"", DELETE, best.hlc), [])] if taken and not self._comes(best, held) else []
        by_teller: dict[Place, list[str]] = {}
        fields = {place: self._said(row) for place, row in versions.items()}
        for name in sorted(taken):
            place = self._teller(name, versions, fields)
            if not self._comes(versions[place], held):
                by_teller.setdefault(place, []).append(name)
        found = list[Stands]()
        for place in sorted(by_teller, key=lambda one: self._order(versions[one])):
            said = {name: record.get(name) for name in (*declared.key, *by_teller[place])}
            change = Change(key, canonical.dumps(said), UPSERT, JUST_BEFORE if found else best.hlc)
            found.append(Stands(change, [] if versions[place].op == DELETE else [place]))
        return found

    def _said(self, row: Row) -> dict[str, Any]:
        """The fields that a version names."""
        content = self._projector.payload(row)
        found: dict[str, Any] = msgspec.json.decode(content) if content is not None else {}
        return found

    def _teller(self, name: str, versions: Mapping[Place, Row], fields: Mapping[Place, Mapping[str, Any]]) -> Place:
        """By which version a field is what it is: the last that names it, or that empties the record."""
        telling = [place for place, row in versions.items() if row.op == DELETE or name in fields[place]]
        return max(telling, key=lambda one: self._order(versions[one]))

    def _order(self, row: Row) -> merge.Order:
        return merge.order("field", self._projector.version(row))
