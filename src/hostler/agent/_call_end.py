"""What an agent notes of a call on its way: in the call's model, and in its counters."""

from __future__ import annotations

import datetime as dt

import trio

from hostler._concurrency.nurseries import is_cancellation
from hostler.call import PendingCall
from hostler.errors import CallTimeout, ServerBusy
from hostler.metrics import CallStatus

from ._events import AgentEvents

CANCELLED_TEXT = "cancelled"


class CallRecord:
    """Of one call, which waits for a slot from now on."""

    def __init__(self, call: PendingCall, events: AgentEvents) -> None:
        self._call = call
        self._events = events
        self.submitted_at = trio.current_time()
        self._slot_at = 0.0
        self._started = False
        self.waited: float | None = None
        """Seconds until it had its container."""
        events.submitted()

    def has_slot(self, now: float) -> None:
        """It has one, since ``now``."""
        self._slot_at = now
        self.waited = now - self.submitted_at
        call = self._call
        call.model.started_at = dt.datetime.now(dt.UTC)
        call.model.status = "running"
        call.timings.scheduler_ns = round((now - self.submitted_at) * 1e9)

    def starts(self) -> None:
        """Its function works on it from here on."""
        self._started = True
        self._events.started()

    def waits_again(self) -> None:
        """Its container had ended before its function got anything of it."""
        self._started = False
        self._call.model.status = ""
        self._events.waits_again()

    def end(self, error: BaseException | None) -> float | None:
        """It is over, however far it came. Returns the seconds that it had its container, if its
        function has worked on it."""
        complete(self._call, error)
        status: CallStatus = "completed"
        if error is not None:
            status = _outcome_of(error, started=self._started)
        if not self._started:
            self._events.ended_waiting(status)
            return None
        seconds = trio.current_time() - self._slot_at
        self._call.timings.execution_ns = round(seconds * 1e9)
        self._events.ended_running(status)
        return seconds


def complete(call: PendingCall, error: BaseException | None) -> None:
    """The call is over, whether or not it had begun: fill in its model."""
    model = call.model
    model.completed_at = dt.datetime.now(dt.UTC)
    if error is None:
        model.status = "success"
    elif isinstance(error, CallTimeout):
        model.status = "timeout"
    else:
        model.status = "error"
        model.error = _text_of(error)


def _text_of(error: BaseException) -> str:
    if is_cancellation(error):
        return CANCELLED_TEXT
    return str(error) or type(error).__name__


def _outcome_of(error: BaseException, *, started: bool) -> CallStatus:
    """The one name under which it is counted."""
    if is_cancellation(error):
        return "canceled"
    if isinstance(error, CallTimeout) and started:
        return "timeouts"
    if isinstance(error, ServerBusy) and not started:
        return "server_busy"
    return "errors"
