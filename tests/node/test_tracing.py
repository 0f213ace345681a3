"""Traces: what a real OTLP collector gets of two real nodes, and what it costs those who want none."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

import fednode
from console import ANY_PORT, Visitor
from fednode.node import tracing
from fednode.node.config import Config
from fednode.node.jobs import Ledger
from fednode.node.tracing import ATTRIBUTES, OFF
from fednode.sync.errors import Refused, Unavailable
from mesh import Mesh, Running

ROOT = Path(__file__).resolve().parents[2]
KEY, SECRET, ACCOUNT, PLACE = "key-of-a-record", "机密内容", "zhang-san", "no-such-node"


class Collector(ThreadingHTTPServer):
    """OTLP over HTTP. `status`: what it answers."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Post)
        self.status, self.bodies = 200, list[bytes]()
        self.url = f"http://127.0.0.1:{self.server_port}/v1/traces"

    def spans(self, node: str) -> dict[str, list[Span]]:
        """What a node's daemon has told, by the spans' names."""
        found: dict[str, list[Span]] = {}
        for body in self.bodies:
            for of_a_node in ExportTraceServiceRequest.FromString(body).resource_spans:
                resource = _attributes(of_a_node.resource)
                assert (resource["service.name"], resource["service.version"]) == ("fednode", fednode.__version__)
                for scope in of_a_node.scope_spans if resource["service.instance.id"] == node else ():
                    for span in scope.spans:
                        found.setdefault(span.name, []).append(span)
        return found


class _Post(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.path == "/v1/traces" and self.server.status == 200:
            self.server.bodies.append(body)
        self.send_response(self.server.status)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with Collector() as found:
        thread = threading.Thread(target=found.serve_forever, args=(0.02,))
        thread.start()
        yield found
        found.shutdown()
        thread.join()


def _attributes(one: Any) -> dict[str, Any]:
    return {item.key: getattr(item.value, item.value.WhichOneof("value")) for item in one.attributes}


def _one(spans: dict[str, list[Span]], name: str, **wanted: Any) -> dict[str, Any]:
    """The attributes of the first span of a name that has those that are wanted; there is one."""
    found = [_attributes(span) for span in spans.get(name, [])]
    given = {ATTRIBUTES[key]: value for key, value in wanted.items()}
    fitting = [one for one in found if given.items() <= one.items()]
    assert fitting, (name, wanted, found)
    return fitting[0]


def _projected(node: Running) -> bool:
    """Whether the daemon has the record in its tables."""
    projector = node.app.new_projector()
    try:
        return projector.connection.execute("select 1 from record where key = ?", (KEY,)).fetchone() is not None
    finally:
        projector.close()
        projector.store.close()


async def test_two_nodes_and_a_collector(tmp_path: Path, collector: Collector) -> None:
    async with Mesh(tmp_path) as mesh:
        province = await mesh.found(trace_endpoint=collector.url, http_listen=ANY_PORT)
        city = await mesh.child(province, "1301", "city", trace_endpoint=collector.url)
        await mesh.until(lambda: city.app.trust.catalog_version == 1)
        city.write(KEY, {"name": SECRET})
        await mesh.until(lambda: _projected(province))
        async with Visitor(province) as visitor:
            await visitor.join("viewer", ACCOUNT)
            assert (await visitor.get("/node")).status_code == 200
            assert (await visitor.get(f"/mesh/{PLACE}")).status_code == 404
        ledger = Ledger(province.app.home.run_dir, "test")
        await mesh.until(lambda: ledger.read("watch").outcome == "done")
        await mesh.halt(province)
        await mesh.halt(city)
    above, below = collector.spans("13"), collector.spans("1301")
    assert "error.type" not in _one(above, "exchange", peer="1301", role="child", outcome="done")
    assert _one(below, "exchange", peer="13", role="parent")["fednode.outcome"]
    for spans, moved in ((below, "sent"), (above, "received")):
        exchanges = [_attributes(one) for one in spans["exchange"]]
        assert sum(one[f"fednode.exchange.segments_{moved}"] for one in exchanges) >= 1
        assert sum(one[f"fednode.exchange.bytes_{moved}"] for one in exchanges) > 500
    assert (below["exchange"][0].kind, above["exchange"][0].kind) == (Span.SPAN_KIND_CLIENT, Span.SPAN_KIND_SERVER)
    assert sum(_attributes(one)["fednode.commit.count"] for one in above["commit"]) >= 1
    assert [_attributes(one)["fednode.projection.changes"] for one in above["projection"]] == [1]
    assert _one(above, "job watch", outcome="done") == {"fednode.job.name": "watch", "fednode.outcome": "done"}
    assert _one(above, "GET /node", status=200) == {
        "http.request.method": "GET",
        "http.route": "/node",
        "http.response.status_code": 200,
    }
    assert _one(above, "GET /mesh/{node}", status=404)["http.route"] == "/mesh/{node}"
    every = [span for spans in (*above.values(), *below.values()) for span in spans]
    assert {key for span in every for key in _attributes(span)} <= set(ATTRIBUTES.values())
    assert all(span.end_time_unix_nano >= span.start_time_unix_nano > 0 and not span.parent_span_id for span in every)
    told = b"".join(collector.bodies)
    assert [one for one in (KEY, SECRET, ACCOUNT, PLACE) if one.encode() in told] == []


def test_what_fails_is_marked_and_what_did_nothing_is_left_out(collector: Collector) -> None:
    made = tracing.tracer(Config(trace_endpoint=collector.url), "13", fednode.__version__)
    with pytest.raises(Unavailable), made.span("commit", commits=2):
        raise Unavailable("FN-4506", parent="13")
    with pytest.raises(ZeroDivisionError), made.span("projection"):
        raise ZeroDivisionError
    with made.span("job watch") as span:
        span.drop()
    with made.span("exchange", "client", error=""):
        pass
    made.stop()
    spans = collector.spans("13")
    assert {name: [_attributes(one) for one in found] for name, found in spans.items()} == {
        "commit": [{"fednode.commit.count": 2, "error.type": "FN-4506"}],
        "projection": [{"error.type": "ZeroDivisionError"}],
        "exchange": [{}],
    }
    assert spans["commit"][0].status.code == Status.STATUS_CODE_ERROR != spans["exchange"][0].status.code


def test_a_sample_of_none_exports_none(collector: Collector) -> None:
    made = tracing.tracer(Config(trace_endpoint=collector.url, trace_sample=0.0), "13", fednode.__version__)
    with made.span("commit", commits=2):
        pass
    made.stop()
    assert collector.bodies == []


def test_a_collector_that_is_away_is_one_line_in_the_log(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    made: Any = tracing.tracer(Config(trace_endpoint=collector.url), "13", fednode.__version__)

    def batch() -> None:
        with made.span("commit"):
            pass
        made._provider.force_flush()

    collector.status = 403
    batch()
    batch()
    collector.status = 200
    batch()
    batch()
    made.stop()
    assert [(one.name, one.levelname) for one in caplog.records] == [
        ("fednode.tracing", "WARNING"),
        ("fednode.tracing", "INFO"),
    ]
    assert len(collector.spans("13")["commit"]) == 2


WITHOUT = """
import asyncio, sys
from pathlib import Path
from mesh import Mesh
async def run():
    async with Mesh(Path(sys.argv[1])) as mesh:
        await mesh.found(publish=False, http_listen="127.0.0.1:0")
asyncio.run(run())
print([name for name in sys.modules if name.partition(".")[0] in ("opentelemetry", "requests")])
"""


def test_without_an_endpoint_nothing_of_it_is_imported(tmp_path: Path) -> None:
    """A daemon with its console, from its start to its end."""
    paths = {"PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'tests/lib'}"}
    command = [sys.executable, "-c", WITHOUT, str(tmp_path)]
    assert subprocess.run(command, env=paths, capture_output=True, text=True, check=True).stdout == "[]\n"


def test_an_endpoint_without_the_extra_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.sdk.trace", None)
    with pytest.raises(Refused) as caught:
        tracing.tracer(Config(trace_endpoint="http://127.0.0.1:4318/v1/traces"), "13", fednode.__version__)
    assert caught.value.code == "FN-2604"
    assert tracing.tracer(Config(), "13", fednode.__version__) is OFF


def test_every_attribute_is_in_the_docs() -> None:
    docs = (ROOT / "docs/monitoring.md").read_text(encoding="utf-8")
    assert [name for name in ATTRIBUTES.values() if f"`{name}`" not in docs] == []
