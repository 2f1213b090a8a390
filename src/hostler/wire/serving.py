"""What all RPCs of one server share: the service, gRPC health, and outcomes as gRPC statuses."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

import attrs
import structlog
import trio

from .._fast import FastService, fast_way
from ..protocol import ClientFrame, Data, EngagementEnded, GRPCStatus, RunnerService, TryCall
from .buffers import Buffer
from .codec import messages as codec
from .connection import WireConnection
from .status import (
    DEADLINE_EXCEEDED,
    INTERNAL,
    OK,
    RESOURCE_EXHAUSTED,
    UNAVAILABLE,
    UNDECODABLE,
    UNKNOWN,
)

FIRST_SECONDS = 10.0
"""How long a stream or a call may take for its first message. Until it has come, a stream has no
task, but memory."""

DATA_SECONDS = 300.0
"""How long a call may take from its try to its first data: as long as a client of a load balancer
has for its request. Load balancers that do not stream bodies send both together."""

MAX_WAITING, FEW_WAITING = 4096, 16
"""Streams and calls that may wait for these messages: those of all clients together, and those that
one connection may have all the same, which take no more than the connection itself."""

TOO_LATE = "no message came in time"

SERVICES = ("", "RunnerProtocol")
"""Whose health is known; the empty name is the server as a whole."""

NOT_FOUND = 5


class Health:
    """The service ``grpc.health.v1.Health``, which load balancers and orchestrators know. Says
    SERVING until `shut_down`, and never again."""

    def __init__(self) -> None:
        self._down = trio.Event()

    def shut_down(self) -> None:
        """Say NOT_SERVING from now on, to those who watch too. Synchronous, idempotent."""
        self._down.set()

    def check(self, service: str) -> bytes:
        """The answer to ``Check``. Raises `GRPCStatus` for a service that is not there."""
        if service not in SERVICES:
            raise GRPCStatus(NOT_FOUND, "unknown service")
        return self._response(service)

    async def watch(self, service: str) -> AsyncGenerator[bytes, None]:
        """The answers to ``Watch``: the state now and each change, without an end.

        Trio-flavoured. A service that is not there is reported as such, as the standard says:
        it might come.
        """
        yield self._response(service)
        if not self._down.is_set():
            await self._down.wait()
            if service in SERVICES:
                yield self._response(service)
        await trio.sleep_forever()

    def _response(self, service: str) -> bytes:
        if service not in SERVICES:
            return codec.encode_health(codec.SERVICE_UNKNOWN)
        return codec.encode_health(codec.NOT_SERVING if self._down.is_set() else codec.SERVING)


log = structlog.get_logger(__name__)

_T = TypeVar("_T")


_INTERNAL_TEXT = "internal error"
OK_STATUS = OK, ""

SHUTTING_DOWN = UNAVAILABLE, "the server is shutting down"
"""(status, text) of what is cancelled from outside."""

DEADLINE_PASSED = DEADLINE_EXCEEDED, "deadline exceeded"
"""And of what was not done when its client gave it up."""


@attrs.define(eq=False)
class ServerContext:
    """What all RPCs of one server share."""

    service: RunnerService
    shared_calls: int
    """Calls that one ``EngageMany`` stream may carry at once; 0 = there is no such method."""
    fast_service: FastService | None = attrs.field(init=False)
    health: Health = attrs.Factory(Health)
    stopping: bool = False
    turns: trio.Lock = attrs.Factory(trio.Lock)
    """See `WireProtocol.turns`."""
    waiting: int = 0
    """Streams without a message, and calls without their try or their first data."""

    @fast_service.default
    def _fast_service(self) -> FastService | None:
        return fast_way(self.service, FastService)

    async def receive_soon(
        self,
        receive: Callable[[], Awaitable[_T]],
        connection: WireConnection,
        awaited: type[ClientFrame],
    ) -> _T:
        """What ``receive`` waits for: ``awaited``, the try of a call or its first data.

        Trio-flavoured. Raises `GRPCStatus` if it does not come in time, or too many wait."""
        if self.waiting >= MAX_WAITING and connection.waiting >= FEW_WAITING:
            raise GRPCStatus(RESOURCE_EXHAUSTED, "too many calls wait for their first data")
        self.waiting += 1
        connection.waiting += 1
        try:
            with trio.fail_after(FIRST_SECONDS if awaited is TryCall else DATA_SECONDS):
                return await receive()
        except trio.TooSlowError:
            raise GRPCStatus(DEADLINE_EXCEEDED, TOO_LATE) from None
        finally:
            self.waiting -= 1
            connection.waiting -= 1


def awaited_after(frame: ClientFrame) -> type[ClientFrame] | None:
    """What has to follow soon. (The data of a call that reserves follow its commit, which the
    service waits for.)"""
    return Data if isinstance(frame, TryCall) and not frame.reserve else None


async def outcome_of(rpc: Awaitable[None], peer: str) -> tuple[int, str]:
    """The status that ``rpc``, the service's part, ends with. Only lets cancellations out."""
    try:
        await rpc
    except BaseException as error:  # noqa: BLE001  (what is no Exception is raised again)
        cancelled, errors = _split(error)
        outcome = _status_of(errors, peer)
        if cancelled is not None:
            raise cancelled from None
        return outcome
    return OK_STATUS


def _split(error: BaseException) -> tuple[BaseException | None, list[Exception]]:
    """(what must go on, what the RPC failed with), taken out of exception groups."""
    if isinstance(error, BaseExceptionGroup):
        regular, rest = error.split(Exception)
        return rest, _leaves(regular) if regular is not None else []
    if isinstance(error, Exception):
        return None, [error]
    return error, []


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    found: list[Exception] = []
    for error in group.exceptions:
        found += _leaves(error) if isinstance(error, BaseExceptionGroup) else [error]
    return found


def _status_of(errors: list[Exception], peer: str) -> tuple[int, str]:
    """A status that the service chose, unless something unforeseen happened beside it."""
    unforeseen = [e for e in errors if not isinstance(e, (GRPCStatus, EngagementEnded))]
    for error in unforeseen:
        log.error("rpc failed", peer=peer, exc_info=error)
    if unforeseen:
        return UNKNOWN, _INTERNAL_TEXT
    for error in errors:
        if isinstance(error, GRPCStatus):
            return error.status, error.text
    return UNAVAILABLE, "the peer is gone"


def decode(decoder: Callable[[Buffer], _T], message: Buffer, peer: str) -> _T:
    """Decode what a client sent; one log line and INTERNAL, as grpc-go has it, if that fails."""
    try:
        return decoder(message)
    except codec.CodecError as error:
        log.warning("undecodable message", peer=peer, reason=str(error))
        raise GRPCStatus(INTERNAL, UNDECODABLE) from error
