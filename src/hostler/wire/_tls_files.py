"""PEM files that are used anew when they have changed, without a restart."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable, Iterator
from typing import NoReturn, TypeAlias

import structlog
import trio
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hostler.abc import PKIData
from hostler.errors import ConfigError
from hostler.metrics import Count

log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class TLSMetrics(Collector):
    """Counts changed TLS files. Making one registers it."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.loads = Count("fn_tls_reload_count", "Changed TLS files that were taken", "unknown")
        self.failures = Count(
            "fn_tls_reload_failure_count", "Changed TLS files that could not be used", "unknown"
        )
        registry.register(self)

    def collect(self) -> Iterator[Metric]:
        yield self.loads.metric()
        yield self.failures.metric()


@functools.cache
def default_tls_metrics() -> TLSMetrics:
    """Those of this process, in prometheus_client's own registry."""
    return TLSMetrics()


class TLSFiles:
    """A TLS context that follows its files. ``make`` is `client_tls` or `server_tls`.

    Takes the place of a fixed context. Raises `ConfigError` if the files can't be used now; when
    they can't be used later, the context stays as it is. ``context`` is the one for the next
    handshake. Connections that stand are not touched by a change; a client opens new ones for new
    calls, and closes the old ones once they are idle.
    """

    def __init__(
        self,
        pki: PKIData,
        make: Callable[[PKIData], ssl.SSLContext],
        *,
        metrics: TLSMetrics | None = None,
    ) -> None:
        self.pki = pki
        # Before they are read: a change meanwhile has to be seen later.
        self._seen = self._stamp()
        self.context = make(pki)
        self._metrics = metrics or default_tls_metrics()
        self._make = make

    def __repr__(self) -> str:
        return f"<TLSFiles {self.pki.cert}>"

    def reload(self) -> bool:
        """Look at the files; whether they have changed and are used from now on.

        Reads a few small files, synchronously. Files that make no sense together, as half-way
        through their replacement, are looked at again when they have changed again.
        """
        stamp = self._stamp()
        if stamp == self._seen:
            return False
        self._seen = stamp
        try:
            context = self._make(self.pki)
        except (ConfigError, OSError) as error:
            self._metrics.failures.inc()
            log.warning("changed TLS files can't be used, the former stay", reason=str(error))
            return False
        self.context = context
        self._metrics.loads.inc()
        log.info("TLS files reloaded", cert=self.pki.cert)
        return True

    async def watch(self, interval: float) -> NoReturn:
        """`reload` every ``interval`` seconds, until cancelled. Trio-flavoured."""
        while True:
            await trio.sleep(interval)
            self.reload()

    def _stamp(self) -> _Stamp:
        return tuple(_stamp(path) for path in (self.pki.ca, self.pki.key, self.pki.cert))


def _stamp(path: str) -> tuple[int, int, int]:
    """What changes when a file is written, replaced, or reached over another link."""
    try:
        found = os.stat(path)
    except OSError:
        return (0, 0, 0)
    return (found.st_ino, found.st_mtime_ns, found.st_size)


TLS: TypeAlias = ssl.SSLContext | TLSFiles
"""What a client or a server takes: a fixed context, or files to follow."""


def current_context(tls: TLS | None) -> ssl.SSLContext | None:
    """The context for a handshake now."""
    return tls.context if isinstance(tls, TLSFiles) else tls
