"""OpenTelemetry: the one module that knows it."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import structlog
import trio
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.exporter.zipkin.json import ZipkinExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

from .._spans import Attributes, Kind

log = structlog.get_logger(__name__)

QUEUE_SPANS = 8192
"""Spans that wait for each collector; with more, the oldest are dropped."""
BATCH_SPANS = 512
PERIOD_MS = 1000
SEND_SECONDS = 5
"""For one batch. What can't be sent is dropped, not tried again."""
CLOSE_SECONDS = 5.0
"""For what is queued when a node ends."""

_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
}
_NONE: Attributes = {}


@asynccontextmanager
async def open_exporting(*, zipkin: str, jaeger: str, node: str) -> AsyncIterator[OtelTracer]:
    """A tracer whose spans are sent to the collectors whose URL is not ""."""
    exporters: list[_Telling] = []
    if zipkin:
        endpoint = _with_path(zipkin, "/api/v2/spans")
        exporters.append(_Telling(ZipkinExporter(endpoint=endpoint, timeout=SEND_SECONDS)))
    if jaeger:
        endpoint = _with_path(jaeger, "/v1/traces")
        exporters.append(_Telling(OTLPSpanExporter(endpoint=endpoint, timeout=SEND_SECONDS)))
    provider = TracerProvider(
        sampler=sampling.ALWAYS_ON,
        resource=Resource.create({"service.name": f"hostler-{node}"}),
        shutdown_on_exit=False,
    )
    for exporter in exporters:
        provider.add_span_processor(
            BatchSpanProcessor(
                exporter,
                max_queue_size=QUEUE_SPANS,
                max_export_batch_size=BATCH_SPANS,
                schedule_delay_millis=PERIOD_MS,
            )
        )
    with _silent(logging.getLogger("opentelemetry.exporter")):
        try:
            yield OtelTracer(provider.get_tracer("hostler"))
        finally:
            await _close(provider, exporters)


async def _close(provider: TracerProvider, exporters: Sequence[_Telling]) -> None:
    # Shielded, or the last calls of a node that is told to end at once would never be seen.
    with trio.CancelScope(shield=True, deadline=trio.current_time() + CLOSE_SECONDS) as scope:
        await trio.to_thread.run_sync(provider.shutdown, abandon_on_cancel=True)
    if scope.cancelled_caught:
        log.warning("spans were lost: a collector takes too long", seconds=CLOSE_SECONDS)
        for exporter in exporters:
            exporter.shutdown()


@contextmanager
def _silent(logger: logging.Logger) -> Iterator[None]:
    """The exporters' log has each failed attempt. `_Telling` logs what a reader needs."""
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


class OtelTracer:
    """A `hostler.tracing.Tracer`."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer

    def start(
        self,
        name: str,
        attributes: Attributes = _NONE,
        *,
        parent: str = "",
        kind: Kind = "internal",
    ) -> OtelSpan:
        context = trace.set_span_in_context(_remote(parent) if parent else trace.INVALID_SPAN)
        return OtelSpan(
            self._tracer,
            self._tracer.start_span(name, context, kind=_KINDS[kind], attributes=dict(attributes)),
        )


class OtelSpan:
    """A `hostler.tracing.Span`."""

    def __init__(self, tracer: trace.Tracer, span: trace.Span) -> None:
        self._tracer = tracer
        self._span = span
        context = span.get_span_context()
        self.traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"

    def child(
        self,
        name: str,
        attributes: Attributes = _NONE,
        *,
        kind: Kind = "internal",
        at: float | None = None,
    ) -> OtelSpan:
        span = self._tracer.start_span(
            name,
            trace.set_span_in_context(self._span),
            kind=_KINDS[kind],
            attributes=dict(attributes),
            start_time=_unix_ns(at),
        )
        return OtelSpan(self._tracer, span)

    def note(self, attributes: Attributes) -> None:
        if self._span.is_recording():
            self._span.set_attributes(dict(attributes))

    def end(self, error: str = "", *, at: float | None = None) -> None:
        if not self._span.is_recording():
            return
        if error:
            self._span.set_status(trace.StatusCode.ERROR, error)
        self._span.end(_unix_ns(at))


class _Telling(SpanExporter):
    """Logs when spans can't be delivered, and when they can again, but not each failure between."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self._failing = False
        self._closed = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if self._closed:
            return SpanExportResult.FAILURE
        reason = "the collector refuses them, or can't be reached"
        try:
            result = self._inner.export(spans)
        except Exception as error:  # noqa: BLE001  (whatever HTTP libraries raise)
            result, reason = SpanExportResult.FAILURE, str(error)
        failing = result is not SpanExportResult.SUCCESS
        if failing and not self._failing:
            log.warning("spans can't be delivered", reason=reason)
        elif self._failing and not failing:
            log.info("spans are delivered again")
        self._failing = failing
        return result

    def shutdown(self) -> None:
        """Send nothing any more, and wait for no further attempt. Idempotent."""
        if not self._closed:
            self._closed = True
            self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return self._inner.force_flush(timeout_millis)


def _remote(parent: str) -> trace.Span:
    _, trace_id, span_id, _ = parent.split("-")[:4]
    return trace.NonRecordingSpan(
        trace.SpanContext(
            int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=trace.TraceFlags(1)
        )
    )


def _unix_ns(at: float | None) -> int | None:
    if at is None:
        return None
    return time.time_ns() - round((trio.current_time() - at) * 1e9)


def _with_path(url: str, path: str) -> str:
    """Add the usual ``path`` to a ``url`` that has none."""
    return url.rstrip("/") + path if urlsplit(url).path in ("", "/") else url
