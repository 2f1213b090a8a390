"""TLS contexts, their reload, and which client names a server accepts."""

from __future__ import annotations

import functools
import os
import ssl
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

import structlog
import trio
from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from ..abc import PKIData
from ..errors import ConfigError
from ..metrics import CallCounter


def server_tls(pki: PKIData) -> ssl.SSLContext:
    """For a runner: shows its certificate and demands one of the client.

    Raises `ConfigError` if a file is missing or unusable. Reads the files now.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    _load(context, pki)
    return context


def client_tls(pki: PKIData) -> ssl.SSLContext:
    """For an LB: shows its certificate and checks the runner's name and certificate.

    The expected name is `GrpcRunnerClient`'s ``server_name``. Raises as `server_tls`.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _load(context, pki)
    return context


def http_tls(pki: PKIData) -> ssl.SSLContext:
    """For an HTTP front end: shows its certificate, and asks clients for none. ``pki.ca`` is not
    used. Raises as `server_tls`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _check_files(pki.key, pki.cert)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load_chain(context, pki)
    return context


def _load(context: ssl.SSLContext, pki: PKIData) -> None:
    _check_files(pki.ca, pki.key, pki.cert)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["h2"])
    try:
        context.load_verify_locations(cafile=pki.ca)
    except ssl.SSLError as error:
        raise ConfigError(f"{pki.ca} holds no usable PEM certificates: {error.reason}") from error
    _load_chain(context, pki)


def _check_files(*paths: str) -> None:
    for path in paths:
        if not os.path.isfile(path) or not os.access(path, os.R_OK):
            raise ConfigError(
                f"Cannot stat {path} for TLS: please specify a valid and readable file"
            )


def _load_chain(context: ssl.SSLContext, pki: PKIData) -> None:
    try:
        context.load_cert_chain(certfile=pki.cert, keyfile=pki.key)
    except ssl.SSLError as error:
        raise ConfigError(
            f"{pki.cert} and {pki.key} are no certificate and its key: {error.reason}"
        ) from error


log = structlog.get_logger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


class TLSMetrics(Collector):
    """Counts changed TLS files. Making one registers it."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self.loads = CallCounter(
            "fn_tls_reload_count", "Changed TLS files that were taken", "unknown"
        )
        self.failures = CallCounter(
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
    """A TLS context that follows its files. ``make`` is `client_tls`, `server_tls` or
    `http_tls`.

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


def certificate_names(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """The names in a certificate as `ssl.SSLSocket.getpeercert` gives it.

    Those of the subject's alternative names (DNS names, addresses, URIs such as SPIFFE ids); the
    common name only counts where there are none (RFC 6125, section 6.4.4). DNS names and common
    names are in lower case.
    """
    alternatives = certificate.get("subjectAltName", ())
    if alternatives:
        return tuple(_folded(value) if kind == "DNS" else value for kind, value in alternatives)
    subject = (pair for part in certificate.get("subject", ()) for pair in part)
    return tuple(_folded(value) for key, value in subject if key == "commonName")


def refusal_of(certificate: Mapping[str, Any] | None, allowed: Collection[str]) -> str:
    """Why a client may not come in; "" = it may. A name has to be equal to an allowed one, in
    upper or lower case if it is a DNS name; patterns are not known."""
    names = certificate_names(certificate or {})
    if not names:
        return "the client's certificate has no name"
    folded = {_folded(name) for name in allowed}
    if any(name in allowed or name in folded for name in names):
        return ""
    shown = ", ".join(repr(name) for name in names)
    return f"the client's certificate is of {shown}, which is not among the allowed names"


def _folded(name: str) -> str:
    return name.lower()
