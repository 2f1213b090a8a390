"""What an engagement ends with: the `Finished` frame of a call."""

from __future__ import annotations

import datetime as dt
from typing import Any

from ..call import PendingCall
from ..dates import format_date
from ..errors import public_error
from ..frames import Finished, LoadHint


def finished(
    call: PendingCall | None, error: Exception | None, load: LoadHint | None = None
) -> Finished:
    """The frame for ``call`` (``None``: it could not even be made) that ended with ``error``,
    with ``load``, the agent's hint.

    An error that is no `APIError`, or one without a code, goes out as a bare 500: Fn sends code
    0 and the raw text, which its LB turns into a 200.
    """
    known = _known(call)
    if error is None:
        return Finished(success=True, load=load, **known)
    public = public_error(error)
    return Finished(
        success=False,
        load=load,
        error_code=public.code,
        error_text=public.message,
        error_user=public.blame == "user",
        **known,
    )


def _known(call: PendingCall | None) -> dict[str, Any]:
    if call is None:
        return {}
    known = facts(call)
    return {"details": known.pop("id"), "image": call.model.image, **known}


def facts(call: PendingCall) -> dict[str, Any]:
    """The id, the dates and the durations of ``call``, as `RunnerStatus` names them."""
    model, timings = call.model, call.timings
    completed_at = model.completed_at
    if completed_at is None and model.started_at is not None:
        completed_at = dt.datetime.now(dt.UTC)
    return {
        "id": model.id,
        "created_at": _text(model.created_at),
        "started_at": _text(model.started_at),
        "completed_at": _text(completed_at),
        "scheduler_ns": timings.scheduler_ns,
        "execution_ns": timings.execution_ns,
        "image_pull_wait_ns": timings.image_pull_wait_ns,
        "ctr_prep_ns": timings.ctr_prep_ns,
        "ctr_create_ns": timings.ctr_create_ns,
        "init_start_ns": timings.init_start_ns,
    }


def _text(date: dt.datetime | None) -> str:
    return "" if date is None else format_date(date)
