"""A table as a file to take away: written as the command line writes it, and sent whole.

>>> # sheet(visit, "coverage", lambda path: write_csv(path, heads, rows))
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from starlette.responses import Response

from fednode.node.web.visit import Visit

TYPES = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def sheet(visit: Visit, name: str, write: Callable[[Path], object], kind: str = "csv") -> Response:
    """What `write` puts into a file. Raises StoreError FN-7302."""
    with tempfile.TemporaryDirectory(dir=visit.app.home.run_dir) as folder:
        path = Path(folder) / f"{name}.{kind}"
        write(path)
        body = path.read_bytes()
    headers = {"content-disposition": f'attachment; filename="{name}.{kind}"'}
    return Response(body, media_type=TYPES[kind], headers=headers)
