"""What a server serves, and the outcome of a service's work as gRPC has it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
import structlog

from hostler.protocol import EngagementEnded, GRPCStatus, RunnerService

from . import _codec as codec
from ._buffers import Buffer
from ._health import Health
from ._status import DEADLINE_EXCEEDED, INTERNAL, OK, UNAVAILABLE, UNDECODABLE, UNKNOWN

log = structlog.get_logger(__name__)

_T = TypeVar("_T")
_Data = TypeVar("_Data", bytes, Buffer)
_INTERNAL_TEXT = "internal error"
OK_STATUS = OK, ""
SHUTTING_DOWN = UNAVAILABLE, "the server is shutting down"
"""(status, text) of what is cancelled from outside."""
DEADLINE_PASSED = DEADLINE_EXCEEDED, "deadline exceeded"
"""And of what was not done when its client gave it up."""


@attrs.define(eq=False)
class Serving:
    """What all RPCs of one server share."""

    service: RunnerService
    shared_calls: int
    """Calls that one ``EngageMany`` stream may carry at once; 0 = there is no such method."""
    health: Health = attrs.Factory(Health)
    stopping: bool = False
    waiting: int = 0
    """Streams of which no message has come."""


async def outcome_of(rpc: Callable[[], Awaitable[None]], peer: str) -> tuple[int, str]:
    """The status that ``rpc``, the service's part, ends with. Only lets cancellations out."""
    try:
        await rpc()
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


def decode(decoder: Callable[[_Data], _T], message: _Data, peer: str) -> _T:
    """Decode what a client sent; one log line and INTERNAL, as grpc-go has it, if that fails."""
    try:
        return decoder(message)
    except codec.CodecError as error:
        log.warning("undecodable message", peer=peer, reason=str(error))
        raise GRPCStatus(INTERNAL, UNDECODABLE) from error
