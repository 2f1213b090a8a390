"""What a runner's last word about a call means. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..abc import NotPlaced, Outcome, Placed
from ..errors import (
    APIError,
    FunctionError,
    HostlerError,
    ServerBusy,
    ServiceReservationFailure,
)
from ..protocol import DEADLINE_STATUS, NACK_STATUS, EngagementFailed, Finished, LoadHint

if TYPE_CHECKING:
    from ..call import Timings

UNKNOWN_TEXT = "Unknown Error From Pure Runner"
NO_EOF_TEXT = "Purerunner missing EOF response"


class RunnerFault(HostlerError):
    """A runner failed a call for a reason that no client must see; the text is its own."""


class MissingEOF(HostlerError):
    """A runner went on after it had reported the outcome of a call."""

    def __init__(self) -> None:
        super().__init__(NO_EOF_TEXT)


def outcome_of(finished: Finished, *, answered: bool) -> Outcome:
    """The outcome that ``finished`` reports, with what the runner says about itself;
    ``answered`` = the response has begun.

    503 is a NACK: the call did not run and may go elsewhere. Once the response has begun that
    can't be true, so it is the call's error. An error needs a code of an HTTP error: 0, which
    Fn's runners send for their internal failures, and any other code are internal failures.
    """
    load = finished.load
    if finished.success:
        return Placed(None, load)
    code, text = finished.error_code, finished.error_text or UNKNOWN_TEXT
    if code == NACK_STATUS:
        return refusal(answered=answered, load=load)
    if not 400 <= code <= 599:
        return Placed(RunnerFault(f"code {code}: {text}"), load)
    if finished.error_user:
        return Placed(FunctionError(code, text), load)
    return Placed(APIError(code, text), load)


def outcome_of_failure(failure: EngagementFailed, *, answered: bool) -> Outcome:
    """The outcome of a stream that ended without a `Finished`."""
    if failure.status == NACK_STATUS:
        return refusal(answered=answered)
    if failure.status == DEADLINE_STATUS:  # our own, which the runner has kept
        return Placed(ServiceReservationFailure())
    return Placed(failure)


def refusal(*, answered: bool, load: LoadHint | None = None) -> Outcome:
    if answered:
        return Placed(ServerBusy(), load)
    retry_after = load.retry_after_ms / 1000 if load and load.retry_after_ms else None
    return NotPlaced(ServerBusy(), retry_after, load)


def fill_timings(timings: Timings, finished: Finished) -> None:
    """Take over the durations that the runner measured."""
    timings.scheduler_ns = finished.scheduler_ns
    timings.execution_ns = finished.execution_ns
    timings.image_pull_wait_ns = finished.image_pull_wait_ns
    timings.ctr_prep_ns = finished.ctr_prep_ns
    timings.ctr_create_ns = finished.ctr_create_ns
    timings.init_start_ns = finished.init_start_ns
