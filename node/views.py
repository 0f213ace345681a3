"""What SQL sees of a record: a field of a row, and the view of a dataset with a named column for each field.

>>> field_sql(Dataset("d", "", "", ("n",), (), ()), Field("n", "", "", "text"))
"r.payload ->> '$.n'"
"""

from __future__ import annotations

from fednode.node.withdrawal import shown_sql
from fednode.sync.catalog import Dataset, Field

KEY_SQL = "r.key"
KEY_TYPES = ("uscc", "date", "area")  # stand in the key as they stand in the record (sync.formats.key_text)
VIEWS = 2  # a new shape of the views for the same catalog


def field_sql(declared: Dataset, field: Field) -> str:
    """A field of a row `r` of `record`. Where the key is just this field, the key's own index serves."""
    if declared.key == (field.code,) and field.type in KEY_TYPES:
        return KEY_SQL
    return f"r.payload ->> '$.{field.code}'"


def view_sql(declared: Dataset, number: int) -> str:
    """The view of a dataset, which has this number in state.db: records that are there and may be shown."""
    columns = ", ".join(f'{field_sql(declared, field)} as "{field.code}"' for field in declared.fields)
    conditions = " and ".join(filter(None, (f"r.dataset = {number}", "r.op = 1", shown_sql(declared))))
    return f"""create view "{declared.name}" as select r.key as record_key, a.code as record_area, {columns},
        datetime((r.hlc >> 16) / 1000, 'unixepoch') as recorded_at from record r join area a on a.id = r.area
        where {conditions}"""
