"""How a call ended: one table for the counters, the log, the model and the caller. Pure."""

from __future__ import annotations

from typing import Literal, NamedTuple

from .._concurrency.nurseries import is_cancellation
from ..errors import ServerBusy, ServiceReservationFailure, code_of
from ..metrics import CallStatus

CANCELLED_CODE = 444


class Ending(NamedTuple):
    """``status`` is the label of counters and latencies, ``model_status`` what becomes of
    ``Call.status``, ``text`` what the model and the log say of an error, ``code`` the HTTP status
    that this outcome has for a client."""

    status: CallStatus
    model_status: Literal["success", "timeout", "error"]
    text: str
    code: int


GOOD = Ending("completed", "success", "", 200)


def ending_of(error: BaseException | None) -> Ending:
    """That of a call that ended with ``error``."""
    if error is None:
        return GOOD
    if is_cancellation(error):
        return Ending("canceled", "error", "cancelled", CANCELLED_CODE)
    code, text = code_of(error), str(error) or type(error).__name__
    if isinstance(error, ServiceReservationFailure):
        return Ending("timeouts", "timeout", text, code or 500)
    busy = code == ServerBusy.default_code
    return Ending("server_busy" if busy else "errors", "error", text, code or 500)
