"""Tasks and scopes that serve one call after the other.

To begin and end a task, and to enter and leave a cancel scope, costs more than all else that the
wire does for a small call.
"""

from __future__ import annotations

import contextvars
from collections.abc import Awaitable, Callable

import trio

MAX_IDLE = 64
"""Tasks that are kept for what comes next, some 3 KiB each."""

Job = Callable[[trio.CancelScope], Awaitable[None]]
"""Gets the scope that it runs in, to be cancelled by whoever ends it, but not any more once it has
returned: the next one may run there."""


class Workers:
    """Runs jobs in ``nursery`` as its own ``start_soon`` does, but in tasks that are done with
    others. Each has a copy of the context of whoever starts it, as a task of its own would have.
    """

    def __init__(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery
        self._idle: list[_Worker] = []
        self._closed = False

    def start_soon(self, job: Job) -> None:
        """Have ``job`` run. Synchronous. What it raises ends the nursery."""
        if self._idle:
            self._idle.pop().wake(job)
        else:
            self._nursery.start_soon(_Worker(self._idle, job).run, self)

    def close(self) -> None:
        """Let tasks end as soon as they have nothing to do, so that the nursery can. Jobs may still
        be started."""
        self._closed = True
        while self._idle:
            self._idle.pop().wake(None)

    def cancel(self) -> None:
        """Cancel all, and the nursery."""
        self._nursery.cancel_scope.cancel()

    def keeps_another(self) -> bool:
        """Whether a task with nothing to do is to wait for the next job."""
        return not self._closed and len(self._idle) < MAX_IDLE


class _Worker:
    def __init__(self, idle: list[_Worker], job: Job) -> None:
        self._idle = idle
        self._job: Job | None = job
        self._task: trio.lowlevel.Task

    async def run(self, workers: Workers) -> None:
        self._task = trio.lowlevel.current_task()
        while self._job is not None or workers.keeps_another():
            with trio.CancelScope() as scope:
                while not scope.cancel_called:
                    if self._job is None and not await self._next(workers):
                        return
                    await self._take()(scope)

    def _take(self) -> Job:
        assert self._job is not None
        job, self._job = self._job, None  # what is done must not be kept
        return job

    async def _next(self, workers: Workers) -> bool:
        """Wait for a job; whether there is one."""
        if workers.keeps_another():
            self._idle.append(self)
            await trio.lowlevel.wait_task_rescheduled(self._stop)
        return self._job is not None

    def wake(self, job: Job | None) -> None:
        self._job = job
        self._task.context = contextvars.copy_context()
        trio.lowlevel.reschedule(self._task)

    def _stop(self, _: object) -> trio.lowlevel.Abort:
        self._idle.remove(self)
        return trio.lowlevel.Abort.SUCCEEDED
