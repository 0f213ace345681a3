"""OpenTelemetry traces, where the settings name a collector (`[trace] endpoint`): docs/monitoring.md lists the spans.

Rules
1. Only this module imports OpenTelemetry (the extra `fednode[otel]`), and only where there is an endpoint. Without one
   a span is one and the same object that does nothing.
2. What an attribute may say is a fixed list (`ATTRIBUTES`): ids of nodes, counts, codes, routes of pages. Never a key
   or payload of a record, a unified social credit code, or whose account it was.
3. Spans are exported in batches by the SDK's own thread. A collector that is away loses spans and disturbs nothing: one
   line in the log when it goes, one when it is back.
4. Each span is a trace of its own. Nothing of it travels between nodes.

>>> with OFF.span("commit", commits=3) as span:
...     span.set(outcome="done")
>>> OFF.span("commit") is span
True
"""

from __future__ import annotations

import logging
import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypedDict, Unpack

from fednode.crypto.errors import FednodeError
from fednode.sync.errors import Refused

if TYPE_CHECKING:
    from collections.abc import Sequence

    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.trace import Span as SdkSpan

    from fednode.node.config import Config

log = logging.getLogger("fednode.tracing")
SERVICE = "fednode"
FLUSH_S = 2.0  # what a clean stop waits for the collector
EXPORT_TIMEOUT_S = 5.0
EXPORT_EVERY_MS = 5_000
QUEUE_MAX, BATCH_MAX = 2_048, 512  # spans; what comes when the queue is full is lost
NOISY = ("opentelemetry", "urllib3")  # they would say the same of each batch (rule 3)

Kind = Literal["internal", "client", "server"]


class Attributes(TypedDict, total=False):
    """What a span may say, by the names that this program uses."""

    peer: str
    role: str
    segments_sent: int
    segments_received: int
    bytes_sent: int
    bytes_received: int
    commits: int
    changes: int
    job: str
    outcome: str
    method: str
    route: str
    status: int
    error: str


# Name here -> name in the trace: OpenTelemetry's own where there is one.
ATTRIBUTES = {
    "peer": "fednode.peer.node",
    "role": "fednode.peer.role",
    "segments_sent": "fednode.exchange.segments_sent",
    "segments_received": "fednode.exchange.segments_received",
    "bytes_sent": "fednode.exchange.bytes_sent",
    "bytes_received": "fednode.exchange.bytes_received",
    "commits": "fednode.commit.count",
    "changes": "fednode.projection.changes",
    "job": "fednode.job.name",
    "outcome": "fednode.outcome",
    "method": "http.request.method",
    "route": "http.route",
    "status": "http.response.status_code",
    "error": "error.type",
}


class Span:
    """Something that is timed from `with` to its end. This one does nothing."""

    __slots__ = ()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        return None

    def set(self, **attributes: Unpack[Attributes]) -> None:
        """Say more of it. An empty text is left out; `error` (a code) marks it as failed."""

    def drop(self) -> None:
        """Nothing was done: it is not exported."""


class Tracer:
    """Makes spans. This one is off."""

    __slots__ = ()

    def span(self, name: str, kind: Kind = "internal", **attributes: Unpack[Attributes]) -> Span:
        """A span for a `with`; an exception that leaves it marks it with its code, or its class, and goes on."""
        return _NOTHING

    def stop(self) -> None:
        """Export what there is, in `FLUSH_S` at most. Not in the event loop."""


_NOTHING = Span()
OFF = Tracer()


def tracer(config: Config, node: str, version: str) -> Tracer:
    """What the settings ask for. `node`: this node's id. Raises Refused FN-2604 (the extra is not installed)."""
    if not config.trace_endpoint:
        return OFF
    try:
        return _Sdk(config, node, version)
    except ImportError as error:
        raise Refused("FN-2604", endpoint=config.trace_endpoint, reason=error.name or str(error)) from error


class _Sdk(Tracer):
    """With OpenTelemetry's SDK. Raises ImportError where it is not installed."""

    __slots__ = ("_exporter", "_kinds", "_make", "_provider")

    def __init__(self, config: Config, node: str, version: str) -> None:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
        from opentelemetry.trace import SpanKind

        for name in NOISY:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        told = {"service.name": SERVICE, "service.instance.id": node, "service.version": version}
        self._provider: TracerProvider = TracerProvider(
            sampler=TraceIdRatioBased(config.trace_sample),
            resource=Resource.create(told),
            shutdown_on_exit=False,  # `stop` does it
        )
        otlp = OTLPSpanExporter(endpoint=config.trace_endpoint, timeout=EXPORT_TIMEOUT_S)
        self._exporter = _say_once(otlp, config.trace_endpoint)
        self._provider.add_span_processor(
            BatchSpanProcessor(self._exporter, QUEUE_MAX, EXPORT_EVERY_MS, BATCH_MAX, round(EXPORT_TIMEOUT_S * 1000))
        )
        self._make = self._provider.get_tracer(SERVICE, version)
        self._kinds = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT, "server": SpanKind.SERVER}

    def span(self, name: str, kind: Kind = "internal", **attributes: Unpack[Attributes]) -> Span:
        made = _SdkSpan(self._make.start_span(name, kind=self._kinds[kind]))
        made.set(**attributes)
        return made

    def stop(self) -> None:
        ending = threading.Thread(target=self._provider.shutdown, name="fednode-traces", daemon=True)
        ending.start()
        ending.join(FLUSH_S)
        if ending.is_alive():  # the collector is away: no more attempts
            self._exporter.shutdown()


class _SdkSpan(Span):
    """One of the SDK's. It ends, and with that is exported, at the end of its `with`."""

    __slots__ = ("_dropped", "_span")

    def __init__(self, span: SdkSpan) -> None:
        self._span, self._dropped = span, False

    def set(self, **attributes: Unpack[Attributes]) -> None:
        given: dict[str, Any] = {ATTRIBUTES[name]: value for name, value in attributes.items() if value != ""}
        self._span.set_attributes(given)
        if attributes.get("error"):
            from opentelemetry.trace import StatusCode

            self._span.set_status(StatusCode.ERROR)

    def drop(self) -> None:
        self._dropped = True

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        if isinstance(value, Exception):  # not what cancels a task
            self.set(error=value.code if isinstance(value, FednodeError) else type(value).__name__)
            self._dropped = False
        if not self._dropped:
            self._span.end()


def _say_once(inner: SpanExporter, endpoint: str) -> SpanExporter:
    """An exporter that says when the collector goes and when it is back, in place of the SDK's line for each batch."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

    class Once(SpanExporter):
        away = False

        def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
            found = inner.export(spans)
            away = found is not SpanExportResult.SUCCESS
            if away and not self.away:
                log.warning("the collector of traces does not take them", extra={"endpoint": endpoint})
            elif self.away and not away:
                log.info("the collector of traces takes them again", extra={"endpoint": endpoint})
            self.away = away
            return found

        def shutdown(self) -> None:
            inner.shutdown()

    return Once()
