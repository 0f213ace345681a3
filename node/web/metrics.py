"""What Prometheus is told of this node: docs/monitoring.md lists it, deploy/grafana has a dashboard.

Rules
1. Names by Prometheus' convention: `fednode_`, base units, `_total` for what only rises.
2. The number of series does not grow with the mesh: nodes are counted by level and state, never named.
3. What is in a database is read when it is asked for, in a thread of the desk; a part that cannot be read is left out,
   and `fednode_scrape_errors_total` says so. Nothing is kept in the process's default registry.

>>> sorted(GAUGES)[:2]
['fednode_alerts_open', 'fednode_backlog_bytes']
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client import (
    CONTENT_TYPE_PLAIN_0_0_4,
    CollectorRegistry,
    Counter,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

import fednode
from fednode.crypto.errors import FednodeError
from fednode.node import fence, lag, sqlite
from fednode.node.alerting.rules import LEVELS
from fednode.node.mesh import own
from fednode.node.mesh.view import Filter

if TYPE_CHECKING:
    from fednode.node.app import App
    from fednode.node.engine import Engine
    from fednode.node.web.desk import Reader

log = logging.getLogger("fednode.web")
CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, that nobody reads
# name -> (what it is, its labels)
GAUGES: dict[str, tuple[str, tuple[str, ...]]] = {
    "fednode_build_info": ("This node and its program; always 1.", ("version", "node", "level", "domain")),
    "fednode_store_segments": ("Arrival number of the newest segment in log.db.", ()),
    "fednode_store_changes": ("Changes held, of records and of the mesh's own logs.", ("kind",)),
    "fednode_projection_behind_segments": ("Segments that state.db has yet to take in.", ()),
    "fednode_refused_segments": ("Segments that were refused and are kept as evidence (100 at most are counted).", ()),
    "fednode_backlog_changes": ("Changes that the parent has not acknowledged.", ("kind",)),
    "fednode_backlog_bytes": ("Bytes that the parent has not acknowledged.", ()),
    "fednode_backlog_oldest_timestamp_seconds": ("Since when the oldest of them is here; 0: there is none.", ()),
    "fednode_parent_last_exchange_timestamp_seconds": ("When the last exchange with the parent ended.", ()),
    "fednode_sessions_open": ("Exchanges that are open, with the parent and with children.", ("peer",)),
    "fednode_standbys": ("Standbys of this node.", ()),
    "fednode_standby_lag_changes": ("Changes that no standby has acknowledged.", ()),
    "fednode_alerts_open": ("Open alerts that this node has raised.", ("severity",)),
    "fednode_mesh_nodes": ("Nodes of this subtree, as the last reports have them.", ("level", "state")),
    "fednode_mesh_cuts": ("Nodes below which nothing is known.", ()),
    "fednode_fenced": ("1: this node writes no more.", ()),
    "fednode_disk_free_bytes": ("Free where the home is.", ()),
    "fednode_disk_reserve_bytes": ("Held by the reserve.", ()),
    "fednode_disk_low": ("1: changes and segments are refused for want of room.", ()),
    "fednode_certificate_expiry_timestamp_seconds": ("When this node's certificate ends.", ()),
    "fednode_clock_offset_seconds": ("The corrected clock minus this machine's.", ()),
    "fednode_clock_sure": ("1: the time was learnt since the machine was started.", ()),
    "fednode_catalog_version": ("The catalog in force.", ()),
    "fednode_console_listeners": ("Pages of the console that are open.", ()),
}
COUNTERS: dict[str, tuple[str, tuple[str, ...]]] = {
    "fednode_http_requests": ("Answers of the console, by the first digit of their status.", ("status",)),
    "fednode_sign_ins": ("Attempts to sign in to the console.", ("outcome",)),
    "fednode_scrape_errors": ("Parts of this page that could not be read.", ()),
}


class _Parts(Collector):
    """The gauges of one scrape."""

    def __init__(self) -> None:
        self._families: dict[str, GaugeMetricFamily] = {}

    def put(self, name: str, value: float, *labels: str) -> None:
        about, names = GAUGES[name]
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = GaugeMetricFamily(name, about, labels=names)
        family.add_metric(list(labels), value)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        yield from self._families.values()


class Metrics:
    """Of one console."""

    def __init__(self, app: App, engine: Engine) -> None:
        self._app, self._engine = app, engine
        self.listeners: Callable[[], int] = lambda: 0
        self._registry = CollectorRegistry(auto_describe=True)
        ProcessCollector(registry=self._registry)
        made = {
            name: Counter(name, about, labels, registry=self._registry) for name, (about, labels) in COUNTERS.items()
        }
        self._answers, self._sign_ins = made["fednode_http_requests"], made["fednode_sign_ins"]
        self._errors = made["fednode_scrape_errors"]
        for outcome in ("done", "refused"):
            self._sign_ins.labels(outcome)

    def answered(self, status: int) -> None:
        """One answer of the console."""
        self._answers.labels(f"{status // 100}xx").inc()

    def signed_in(self, outcome: str) -> None:
        """One attempt: `done` or `refused`."""
        self._sign_ins.labels(outcome).inc()

    def page(self, reader: Reader) -> bytes:
        """The text that Prometheus reads; in a thread of the desk."""
        parts = _Parts()
        for part in (self._node, self._store, self._upwards, self._machine, self._below):
            try:
                part(reader, parts)
            except (FednodeError, sqlite.DatabaseError, OSError) as error:
                self._errors.inc()
                log.warning("metrics", extra={"part": part.__name__, "reason": str(error)})
        once = CollectorRegistry()
        once.register(parts)
        return generate_latest(once) + generate_latest(self._registry)

    def _node(self, reader: Reader, parts: _Parts) -> None:
        app, me = self._app, self._app.trust.me
        parts.put("fednode_build_info", 1, fednode.__version__, me.node, me.level, me.domain)
        parts.put("fednode_certificate_expiry_timestamp_seconds", me.not_after)
        parts.put("fednode_clock_offset_seconds", app.reference.offset_ms / 1000)
        parts.put("fednode_clock_sure", int(app.reference.sure))
        parts.put("fednode_catalog_version", app.trust.catalog_version)
        parts.put("fednode_console_listeners", self.listeners())
        sessions = [one.exchange.dials for one in list(self._engine.sessions)]
        parts.put("fednode_sessions_open", sum(sessions), "parent")
        parts.put("fednode_sessions_open", len(sessions) - sum(sessions), "child")

    def _store(self, reader: Reader, parts: _Parts) -> None:
        store = reader.store
        logs = store.logs()
        lsn = store.lsn
        parts.put("fednode_store_segments", lsn)
        parts.put("fednode_store_changes", sum(size for _, name, size in logs if not name.is_system), "record")
        parts.put("fednode_store_changes", sum(size for _, name, size in logs if name.is_system), "system")
        parts.put("fednode_projection_behind_segments", max(0, lsn - reader.projector.cursor))
        parts.put("fednode_refused_segments", len(store.refused()))
        parts.put("fednode_fenced", int(fence.standing(store) is not None))

    def _upwards(self, reader: Reader, parts: _Parts) -> None:
        app, store = reader.app, reader.store
        parent = app.trust.parent
        if parent is not None:
            peer = store.peer(parent.node)
            backlog = store.backlog_up(peer.acked if peer else 0)
            parts.put("fednode_backlog_changes", backlog.changes, "record")
            parts.put("fednode_backlog_changes", backlog.system, "system")
            parts.put("fednode_backlog_bytes", backlog.bytes)
            if peer is not None and peer.last_ms:
                parts.put("fednode_parent_last_exchange_timestamp_seconds", peer.last_ms / 1000)
        found = own.alerts(app.home.state_db, app.trust.node)
        for severity in LEVELS:
            parts.put("fednode_alerts_open", found.raised[severity], severity)
        standbys = lag.listing(app, of_others=False)
        parts.put("fednode_standbys", len(standbys))
        behind = [int(one["behind_changes"]) for one in standbys if one["behind_changes"] is not None]
        if behind:
            parts.put("fednode_standby_lag_changes", min(behind))

    def _machine(self, reader: Reader, parts: _Parts) -> None:
        room = self._app.room
        parts.put("fednode_disk_free_bytes", shutil.disk_usage(self._app.home.path).free)
        parts.put("fednode_disk_reserve_bytes", room.held())
        parts.put("fednode_disk_low", int(room.low))

    def _below(self, reader: Reader, parts: _Parts) -> None:
        if not self._app.home.health_db.exists():
            return
        with reader.mesh() as view:
            for group in view.counts("level", Filter()):
                for state, count in group["states"].items():
                    parts.put("fednode_mesh_nodes", count, group["level"], state)
            parts.put("fednode_mesh_cuts", len(view.cuts()))
            mine: dict[str, Any] = view.node(self._app.trust.node) or {}
            parts.put("fednode_backlog_oldest_timestamp_seconds", (mine.get("since_ms") or 0) / 1000)
