"""The standard gRPC health service, ``grpc.health.v1.Health``, of a runner's server.

Load balancers and orchestrators know it:
https://github.com/grpc/grpc/blob/master/doc/health-checking.md. Its two messages have one field
each, so they are written here instead of generated.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import betterproto
import trio

from hostler.protocol import GRPCStatus

from ._codec import CodecError

CHECK = "/grpc.health.v1.Health/Check"
WATCH = "/grpc.health.v1.Health/Watch"
SERVICES = ("", "RunnerProtocol")
"""Whose health is known; the empty name is the server as a whole."""

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
NOT_FOUND = 5


@dataclass(eq=False, repr=False)
class HealthCheckRequest(betterproto.Message):
    service: str = betterproto.string_field(1)


@dataclass(eq=False, repr=False)
class HealthCheckResponse(betterproto.Message):
    status: int = betterproto.int32_field(1)  # an enumeration there; the encoding is the same


def decode_request(data: bytes) -> str:
    """The name of the service that is asked for. Raises `CodecError`."""
    try:
        return HealthCheckRequest().parse(data).service
    except Exception as error:  # (the compiled codec raises bare RuntimeErrors)
        raise CodecError(f"cannot decode a HealthCheckRequest: {error}") from error


class Health:
    """SERVING until `shut_down`, and never again."""

    def __init__(self) -> None:
        self._down = trio.Event()

    def __repr__(self) -> str:
        return f"<Health {'NOT_SERVING' if self._down.is_set() else 'SERVING'}>"

    def shut_down(self) -> None:
        """Say NOT_SERVING from now on, to those who watch too. Synchronous, idempotent."""
        self._down.set()

    def check(self, service: str) -> bytes:
        """The answer to ``Check``. Raises `GRPCStatus` for a service that is not there."""
        if service not in SERVICES:
            raise GRPCStatus(NOT_FOUND, "unknown service")
        return self._response(service)

    async def watch(self, service: str, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Answer ``Watch``: the state now and each change, until cancelled.

        Trio-flavoured. A service that is not there is reported as such, as the standard says:
        it might come.
        """
        await send(self._response(service))
        if not self._down.is_set():
            await self._down.wait()
            if service in SERVICES:
                await send(self._response(service))
        await trio.sleep_forever()

    def _response(self, service: str) -> bytes:
        status = NOT_SERVING if self._down.is_set() else SERVING
        return bytes(HealthCheckResponse(status=status if service in SERVICES else SERVICE_UNKNOWN))
