"""Telling listeners of the end of a call."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog
import trio

from .abc import CallListener

if TYPE_CHECKING:
    from .call import PendingCall

log = structlog.get_logger(__name__)

LISTENER_SECONDS = 10.0
"""Seconds for one listener's ``after_call``. It can't be cancelled, so it must have an end."""


async def tell_after(listeners: Iterable[CallListener], call: PendingCall) -> None:
    """Tell those who had been told of the begin of ``call``, whatever the others do, and also if
    it was cancelled: each is shielded, and has a deadline. Raises nothing."""
    for listener in listeners:
        try:
            listener.note_end(call)
        except Exception as error:  # noqa: BLE001  (logged there)
            _log_failure(listener, call, error)
        # A scope costs more than the rest of this.
        if hears(listener.after_call, CallListener.after_call):
            await _tell(listener, call)


def hears(method: object, default: object) -> bool:
    """Whether a listener's ``method`` is another than the ``default``, which does nothing."""
    return getattr(method, "__func__", None) is not default


async def _tell(listener: CallListener, call: PendingCall) -> None:
    deadline = trio.current_time() + LISTENER_SECONDS
    with trio.CancelScope(shield=True, deadline=deadline) as scope:
        try:
            await listener.after_call(call)
        except Exception as error:  # noqa: BLE001  (logged there)
            _log_failure(listener, call, error)
    if scope.cancelled_caught:
        log.error(
            "after-call listener took too long",
            call_id=call.model.id,
            listener=repr(listener),
            seconds=LISTENER_SECONDS,
        )


def _log_failure(listener: CallListener, call: PendingCall, error: Exception) -> None:
    log.error(
        "after-call listener failed",
        call_id=call.model.id,
        listener=repr(listener),
        exc_info=error,
    )
