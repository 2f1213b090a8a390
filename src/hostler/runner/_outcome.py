"""What an engagement ends with: the `Finished` frame of a call."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ..call import PendingCall
from ..dates import format_date
from ..errors import public_error
from ..models import Call
from ..protocol import Finished, LoadHint


def finished(
    call: PendingCall | None, error: Exception | None, load: LoadHint | None = None
) -> Finished:
    """The frame for ``call`` (``None``: it could not even be made) that ended with ``error``,
    with ``load``, the agent's hint.

    An error that is no `APIError`, or one without a code, goes out as a bare 500: Fn sends code
    0 and the raw text, which its LB turns into a 200.
    """
    code, text, user = 0, "", False
    if error is not None:
        public = public_error(error)
        code, text, user = public.code, public.message, public.blame == "user"
    if call is None:
        return Finished(
            success=error is None, load=load, error_code=code, error_text=text, error_user=user
        )
    model, timings = call.model, call.timings
    return Finished(  # by place: sixteen names take longer than all the rest
        error is None,
        model.id,
        code,
        text,
        user,
        _text(model.created_at),
        _text(model.started_at),
        _text(_end_of(model)),
        timings.scheduler_ns,
        timings.execution_ns,
        model.image,
        timings.image_pull_wait_ns,
        timings.ctr_prep_ns,
        timings.ctr_create_ns,
        timings.init_start_ns,
        load,
    )


def facts(call: PendingCall) -> dict[str, Any]:
    """The id, the dates and the durations of ``call``, as `RunnerStatus` names them."""
    model, timings = call.model, call.timings
    return {
        "id": model.id,
        "created_at": _text(model.created_at),
        "started_at": _text(model.started_at),
        "completed_at": _text(_end_of(model)),
        "scheduler_ns": timings.scheduler_ns,
        "execution_ns": timings.execution_ns,
        "image_pull_wait_ns": timings.image_pull_wait_ns,
        "ctr_prep_ns": timings.ctr_prep_ns,
        "ctr_create_ns": timings.ctr_create_ns,
        "init_start_ns": timings.init_start_ns,
    }


def _end_of(model: Call) -> dt.datetime | None:
    if model.completed_at is None and model.started_at is not None:
        return dt.datetime.now(dt.UTC)
    return model.completed_at


def _text(date: dt.datetime | None) -> str:
    return "" if date is None else format_date(date)
