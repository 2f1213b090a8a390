"""The end of a call: its model and its counters."""

from __future__ import annotations

import datetime as dt

import trio

from hostler._groups import is_cancellation
from hostler.call import PendingCall
from hostler.errors import CallTimeout, ServerBusy

from ._events import AgentEvents

CANCELLED_TEXT = "cancelled"


def begin(call: PendingCall, submitted: float) -> float:
    """The call has a slot: fill in its model. ``submitted`` as of `trio.current_time`; returns
    the time now."""
    now = trio.current_time()
    call.model.started_at = dt.datetime.now(dt.UTC)
    call.model.status = "running"
    call.timings.scheduler_ns = round((now - submitted) * 1e9)
    return now


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


def count(events: AgentEvents, error: BaseException | None, *, started: bool) -> None:
    """Count the outcome under its one name."""
    if error is None:
        events.call_ended("completed")
    elif is_cancellation(error):
        events.call_ended("canceled")
    elif isinstance(error, CallTimeout) and started:
        events.call_ended("timeouts")
    elif isinstance(error, ServerBusy) and not started:
        events.call_ended("server_busy")
    else:
        events.call_ended("errors")
