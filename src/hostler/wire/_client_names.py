"""Which clients a server talks to, of those whose certificates are good."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any, cast

import trio

from ._connection import WireProtocol


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


class GuardedProtocol(WireProtocol):
    """A server's connection. With ``allowed`` names, a client with another is refused before it
    got a byte: so it has sent no call yet, and can place it elsewhere."""

    def __init__(self, *args: Any, allowed: Collection[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._allowed = allowed
        self.refused: Refused | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._allowed:
            reason = refusal_of(transport.get_extra_info("peercert"), self._allowed)
            if reason:
                self.refused = Refused(transport, reason)
                transport.set_protocol(self.refused)
                return
        super().connection_made(transport)


class Refused(asyncio.Protocol):
    """What is left of a refused client: a connection to close."""

    def __init__(self, transport: asyncio.BaseTransport, reason: str) -> None:
        self.reason = reason
        self._transport = cast(asyncio.Transport, transport)
        self._lost = trio.Event()

    def connection_lost(self, exc: BaseException | None) -> None:
        self._lost.set()

    async def aclose(self) -> None:
        """Say goodbye in TLS, so that the client sees an end and not a failure. If cancelled, the
        connection is just dropped. Trio-flavoured."""
        self._transport.close()
        try:
            await self._lost.wait()
        finally:
            self._transport.abort()


def _folded(name: str) -> str:
    return name.lower()
