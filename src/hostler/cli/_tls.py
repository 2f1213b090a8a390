"""TLS files of a node, followed while it runs."""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import structlog
import trio

from hostler import wire
from hostler._concurrency.nurseries import open_background
from hostler.abc import PKIData

log = structlog.get_logger(__name__)


@asynccontextmanager
async def following_tls(
    pki: PKIData | None, make: Callable[[PKIData], ssl.SSLContext], interval: float
) -> AsyncIterator[wire.TLSFiles | None]:
    """The files of ``pki``, looked at every ``interval`` seconds and at once on SIGHUP.

    ``None`` without ``pki``. Raises `ConfigError` if they can't be used now.
    """
    if pki is None:
        yield None
        return
    files = wire.TLSFiles(pki, make)
    with trio.open_signal_receiver(signal.SIGHUP) as signals:
        async with open_background() as nursery:
            nursery.start_soon(files.watch, interval)
            nursery.start_soon(_reload_on, signals, files)
            yield files
            nursery.cancel_scope.cancel()


async def _reload_on(signals: AsyncIterator[int], files: wire.TLSFiles) -> None:
    async for _ in signals:
        log.info("looking at the TLS files", changed=files.reload())
