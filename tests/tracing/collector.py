"""Collectors of traces that read what arrives: Zipkin's JSON, and OTLP over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import msgspec
import trio
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from hostler.front import HttpServer, serve_http

LIMIT = 60


@attrs.frozen
class Seen:
    """A span as a collector sees it."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: str
    seconds: float
    attributes: dict[str, Any]
    failed: bool


class Collector:
    """Has the spans that have arrived."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Seen] = []
        self.paths: set[str] = set()
        self._changed = trio.lowlevel.ParkingLot()

    def note(self, path: str, spans: list[Seen]) -> None:
        self.paths.add(path)
        self.spans.extend(spans)
        self._changed.unpark_all()

    async def wait_for(self, *names: str) -> list[Seen]:
        """The first span of each name, when they are there."""
        with trio.fail_after(LIMIT):
            while missing := set(names) - {span.name for span in self.spans}:
                try:
                    await self._changed.park()
                except trio.Cancelled:
                    print(f"no spans {missing} among {[span.name for span in self.spans]}")  # noqa: T201
                    raise
        return [next(span for span in self.spans if span.name == name) for name in names]


@asynccontextmanager
async def open_collector(read: Callable[[bytes], list[Seen]]) -> AsyncIterator[Collector]:
    """A collector on a port of its own, whose requests ``read`` understands."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        collector.note(scope["path"], read(body))
        await send({"type": "http.response.start", "status": 202, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async with trio.open_nursery() as nursery:

        async def serve(task_status: trio.TaskStatus[HttpServer]) -> None:
            await serve_http(app, "127.0.0.1:0", task_status=task_status)

        server: HttpServer = await nursery.start(serve)
        collector = Collector(f"http://{server.addresses[0]}")
        yield collector
        nursery.cancel_scope.cancel()


def read_zipkin(body: bytes) -> list[Seen]:
    return [
        Seen(
            service=span["localEndpoint"]["serviceName"],
            name=span["name"],
            trace=span["traceId"],
            id=span["id"],
            parent=span.get("parentId", ""),
            kind=(span.get("kind") or "internal").lower(),
            seconds=span["duration"] / 1e6,
            attributes=span["tags"],
            failed="error" in span["tags"],
        )
        for span in msgspec.json.decode(body)
    ]


def read_otlp(body: bytes) -> list[Seen]:
    request = ExportTraceServiceRequest.FromString(body)
    found = []
    for resource in request.resource_spans:
        service = _values(resource.resource.attributes)["service.name"]
        for scope in resource.scope_spans:
            found += [
                Seen(
                    service=service,
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    seconds=(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                    attributes=_values(span.attributes),
                    failed=span.status.code == Status.STATUS_CODE_ERROR,
                )
                for span in scope.spans
            ]
    return found


def _values(pairs: Any) -> dict[str, str]:
    """As text, as Zipkin has them."""
    return {
        pair.key: str(getattr(pair.value, str(pair.value.WhichOneof("value")))) for pair in pairs
    }
