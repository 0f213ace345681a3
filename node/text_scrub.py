"""Full text in state.db against the records that it was made of. A part of the scrub (`node.table_scrub`).

Rules
1. A small index of the same kind is made in memory of some records, and each record is asked for in both, by all of its
   words in their order: what the one finds the other must find, and count as many words.
2. That nothing else is found: as many words lie in the index as its records have, all in all (`total`). FTS5's own
   count of them is for ranking, which nobody asks for.
3. Nothing is written: SQLite's own `integrity-check` of such an index would have to, and compares it with nothing.

>>> varints(bytes([0x05, 0x81, 0x00]))
[5, 128]
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

from fednode.node import sqlite
from fednode.node.projection import FULL_TEXT, indexed_text

WORDS = 40  # asked for at once
STRUCTURE = 10  # a row of FTS5's own (sqlite.org, fts5_index.c)
HEAD = 8  # of it: its cookie, and that it knows what was deleted

Fields = Mapping[int, list[str]]


def varints(data: bytes) -> list[int]:
    """SQLite's numbers of variable length, as many as there are."""
    found, number, taken = list[int](), 0, 0
    for byte in data:
        taken += 1
        if taken == 9:
            found.append((number << 8) | byte)
            number = taken = 0
            continue
        number = (number << 7) | (byte & 0x7F)
        if byte < 0x80:
            found.append(number)
            number = taken = 0
    return found


class Text:
    """The full text of one state.db, by a connection that reads. `fields`: of which it is made."""

    def __init__(self, connection: sqlite.Connection, fields: Fields) -> None:
        self._c, self._fields = connection, fields

    def wrong(self, first: int, last: int) -> list[int]:
        """Of the records of these numbers, and of none that are, those whose text is not in the index as it should
        be."""
        c = self._c
        rows = c.execute(
            """select id, dataset, op, payload from record where id between ? and ?
               and id <= coalesce((select value from meta where key = 'text_id'), 0)
               and id not in (select id from stale_text)""",
            (first, last),
        ).fetchall()
        texts = {
            number: indexed_text(self._fields[dataset], payload)
            for number, dataset, op, payload in rows
            if op == 1 and dataset in self._fields and payload is not None
        }
        sizes = _sizes(c, first, last)
        due = {number for number, *_ in rows}
        stray = {number for number in sizes if number not in texts and (number in due or not self._waits(number))}
        return sorted(stray | self._differing(texts, sizes))

    def _waits(self, number: int) -> bool:
        """Whether a record is there, and its text not what it was made of."""
        return bool(self._c.execute("select 1 from record where id = ?", (number,)).fetchone())

    def _differing(self, texts: Mapping[int, str], sizes: Mapping[int, tuple[int, int]]) -> set[int]:
        ranges, found = self._origins(), set[int]()
        with closing(sqlite.connect(Path(":memory:"), synchronous="NORMAL")) as fresh:
            fresh.execute(FULL_TEXT)
            fresh.executemany("insert into record_fts (rowid, text) values (?, ?)", texts.items())
            should = _sizes(fresh, min(texts, default=0), max(texts, default=0))
            for number, text in texts.items():
                size, origin = sizes.get(number, (-1, 0))
                known = any(low <= origin <= high for low, high in ranges)
                if size != should[number][0] or not known or not self._same(fresh, number, text):
                    found.add(number)
        return found

    def _same(self, fresh: sqlite.Connection, number: int, text: str) -> bool:
        words = text.replace("\0", " ").split()
        for at in range(0, len(words), WORDS):
            phrase = '"' + " ".join(words[at : at + WORDS]).replace('"', '""') + '"'
            one, other = (
                c.execute(
                    "select rowid from record_fts where record_fts match ? and rowid = ?", (phrase, number)
                ).fetchall()
                for c in (fresh, self._c)
            )
            if one != other:
                return False
        return True

    def _origins(self) -> list[tuple[int, int]]:
        """From which to which of its transactions each segment of the index has records (`fts5StructureDecode`)."""
        rows = self._c.execute("select block from record_fts_data where id = ?", (STRUCTURE,)).fetchall()
        numbers = varints(rows[0][0][HEAD:]) if rows else []
        found, at = list[tuple[int, int]](), 3
        for _ in range(numbers[0] if numbers else 0):
            count, at = numbers[at + 1], at + 2
            for _ in range(count):
                found.append((numbers[at + 3], numbers[at + 4]))
                at += 8
        return found

    def total(self) -> bool:
        """Whether as many words lie in the index as its records have."""
        c = self._c
        c.execute("create virtual table temp.record_words using fts5vocab(main, record_fts, row)")
        try:
            held = c.execute("select coalesce(sum(cnt), 0) from record_words").fetchone()[0]
        finally:
            c.execute("drop table temp.record_words")
        return bool(held == sum(sum(varints(size)) for (size,) in c.execute("select sz from record_fts_docsize")))


def _sizes(connection: sqlite.Connection, first: int, last: int) -> dict[int, tuple[int, int]]:
    """How many words each of these records has in an index, and from which of its transactions."""
    sql = "select id, sz, origin from record_fts_docsize where id between ? and ?"
    return {number: (sum(varints(size)), origin) for number, size, origin in connection.execute(sql, (first, last))}
