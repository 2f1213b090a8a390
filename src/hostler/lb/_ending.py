"""How a call ended: one table for the counters, the model and the caller. Pure."""

from __future__ import annotations

from typing import Literal

from .._groups import is_cancellation
from ..errors import ServerBusy, ServiceReservationFailure, code_of
from ..metrics import CallStatus

ModelStatus = Literal["success", "timeout", "error"]
"""What becomes of ``Call.status``."""


def status_of(error: BaseException | None) -> CallStatus:
    """The counter and latency label of a call that ended with ``error``."""
    if error is None:
        return "completed"
    if isinstance(error, ServiceReservationFailure):
        return "timeouts"
    if is_cancellation(error):
        return "canceled"
    if code_of(error) == ServerBusy.default_code:
        return "server_busy"
    return "errors"


def model_status(error: BaseException | None) -> ModelStatus:
    if error is None:
        return "success"
    return "timeout" if isinstance(error, ServiceReservationFailure) else "error"


def text_of(error: BaseException | None) -> str:
    """What the model and the log say of ``error``."""
    if error is None:
        return ""
    if is_cancellation(error):
        return "cancelled"
    return str(error) or type(error).__name__
