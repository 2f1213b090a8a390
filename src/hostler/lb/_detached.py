"""Calls whose client only waits for the acknowledgement."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ..abc import ResponseWriter
from ..errors import APIError
from ..protocol import Headers

log = structlog.get_logger(__name__)

ACCEPTED = 202


class AckWriter(ResponseWriter):
    """Takes the response head of a detached call as its acknowledgement, and nothing else."""

    def __init__(self, acknowledge: Callable[[], None]) -> None:
        self._acknowledge = acknowledge
        self.acknowledged = False

    async def start(self, status: int, headers: Headers) -> None:
        if status != ACCEPTED:
            log.warning("detached call was answered, not acknowledged", status=status)
        self.acknowledge()

    async def write(self, data: bytes | memoryview) -> None:
        pass

    def acknowledge(self) -> None:
        """The call is under way, or already over. Idempotent."""
        if not self.acknowledged:
            self.acknowledged = True
            self._acknowledge()


def log_late_failure(call_id: str, error: Exception) -> None:
    """The client has its 202: nobody else learns of an internal failure."""
    if not isinstance(error, APIError):
        log.error("detached call failed", call_id=call_id, exc_info=error)
