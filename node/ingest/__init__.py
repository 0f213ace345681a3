"""Reading what people have: CSV, TSV, XLSX, XLS and JSON Lines, as counties really send them; and handing back the bad
rows.

Rules
1. The file is looked at as a whole before the first row is taken: format by its first bytes, encoding by decoding all
   of it. What cannot be told for certain is refused, never guessed (`text`).
2. The header is the row, among the first few, that names the most fields, by code, title or alias (`headers`). A
   required field without a column is refused with the header that comes nearest.
3. Rows come one by one, numbered as in a spreadsheet; memory does not grow with a text file. Cells are text; what a row
   cannot say (a merged cell, a formula without a value) is a `Problem` of that row.
4. Bad rows go to a file that can be corrected and sent again (`rejects`): columns that begin with `#` are not read.

>>> # source = open_source(Path("许可.csv"), dataset, {"许可单位": "xk_xkjg"})
>>> # source.encoding, source.unknown, next(source.rows())
"""

from __future__ import annotations

from fednode.node.ingest.rejects import Rejects, problem_text
from fednode.node.ingest.source import Row, Source, open_source

__all__ = ["Rejects", "Row", "Source", "open_source", "problem_text"]
