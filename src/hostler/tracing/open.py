"""Making a tracer from the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from .._spans import Tracer
from ..config import NodeConfig
from ..errors import ConfigError

EXTRA = "hostler[tracing]"


@asynccontextmanager
async def open_tracer(config: NodeConfig, node: str) -> AsyncIterator[Tracer | None]:
    """A tracer for the collectors of ``config``; ``None`` without any. ``node`` is what the
    process is called there.

    Spans wait in a bounded queue and are sent by threads, so that a collector which is slow, or
    not there, costs spans and nothing else. Leaving the block gives what is queued a few seconds
    to be sent. Raises `ConfigError` if OpenTelemetry is not installed.
    """
    if not (config.zipkin_url or config.jaeger_url):
        yield None
        return
    try:
        from .export import open_exporting
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"FN_ZIPKIN_URL and FN_JAEGER_URL need OpenTelemetry: pip install '{EXTRA}' ({error})"
        ) from error
    async with open_exporting(zipkin=config.zipkin_url, jaeger=config.jaeger_url, node=node) as it:
        yield it
