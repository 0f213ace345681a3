"""Logs: standard logging records to stderr, as lines for people or as JSON, by structlog.

Rules
1. Logs never go to stdout. Times are UTC, ISO 8601. What a record carries as `extra` becomes fields.
2. Nothing confidential is logged: codes, names of logs, numbers; never payloads, keys or tokens.

>>> fields(logging.makeLogRecord({"msg": "x", "peer": "1301"}))
{'peer': '1301'}
"""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

_STANDARD = frozenset((*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"))


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """What a record carries beyond the standard attributes."""
    return {key: value for key, value in record.__dict__.items() if key not in _STANDARD and not key.startswith("_")}


def _extra(_logger: Any, _name: str, event: dict[str, Any]) -> dict[str, Any]:
    record = event.get("_record")
    if isinstance(record, logging.LogRecord):
        event.update(fields(record))
    return event


def set_up(level: str, form: str, *, plain: bool = False) -> None:
    """Send every record of `level` and above to stderr. `form`: "text" or "json"; `plain`: no colours (NO_COLOR)."""
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _extra,
        structlog.processors.format_exc_info,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty() and not plain)
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("apscheduler", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
