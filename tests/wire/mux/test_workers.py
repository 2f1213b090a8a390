"""Tasks and scopes that serve one call after the other."""

from __future__ import annotations

import math
from contextvars import ContextVar

import attrs
import pytest
import trio
import trio.testing

from hostler.wire.mux import server
from hostler.wire.mux.server import TaskPool

pytestmark = pytest.mark.fast

who = ContextVar("who", default="nobody")


@attrs.define
class Jobs:
    """Records what jobs see; each waits for a turn of its own."""

    record: list[tuple[str, trio.lowlevel.Task, str]] = attrs.Factory(list)
    scopes: list[trio.CancelScope] = attrs.Factory(list)

    def make(self, name: str, *, seconds: float = 0) -> server.Job:
        async def job(scope: trio.CancelScope) -> None:
            self.record.append((name, trio.lowlevel.current_task(), who.get()))
            self.scopes.append(scope)
            who.set(name)
            await trio.sleep(seconds)

        return job

    def tasks(self) -> list[trio.lowlevel.Task]:
        return [task for _, task, _ in self.record]


async def test_jobs_one_after_the_other_have_one_task_and_contexts_of_their_own() -> None:
    jobs = Jobs()
    async with trio.open_nursery() as nursery:
        workers = TaskPool(nursery)
        for name in "ab":
            who.set(f"starter of {name}")
            workers.start_soon(jobs.make(name))
            await trio.testing.wait_all_tasks_blocked()
        workers.close()
    assert len(set(jobs.tasks())) == 1
    assert [seen for _, _, seen in jobs.record] == ["starter of a", "starter of b"]
    assert jobs.scopes[0] is jobs.scopes[1]


async def test_jobs_at_the_same_time_have_tasks_of_their_own(
    autojump_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "MAX_IDLE", 2)
    jobs = Jobs()
    async with trio.open_nursery() as nursery:
        workers = TaskPool(nursery)
        for name in "abc":
            workers.start_soon(jobs.make(name, seconds=1))
        await trio.sleep(2)
        assert len(set(jobs.tasks())) == 3
        assert len(nursery.child_tasks) == 2
        workers.close()
    assert trio.current_time() == 2


async def test_a_job_that_is_cancelled_leaves_the_next_alone(
    autojump_clock: trio.testing.MockClock,
) -> None:
    jobs = Jobs()
    async with trio.open_nursery() as nursery:
        workers = TaskPool(nursery)
        workers.start_soon(jobs.make("a", seconds=math.inf))
        await trio.testing.wait_all_tasks_blocked()
        jobs.scopes[0].cancel()
        await trio.testing.wait_all_tasks_blocked()
        workers.start_soon(jobs.make("b", seconds=1))
        await trio.sleep(5)
        first, second = jobs.scopes
        assert first is not second
        assert not second.cancel_called
        assert len(set(jobs.tasks())) == 1
        workers.close()


async def test_a_job_that_is_cancelled_too_late_leaves_the_next_alone() -> None:
    seen = []

    async def late(scope: trio.CancelScope) -> None:
        seen.append(scope)
        scope.cancel()

    async with trio.open_nursery() as nursery:
        workers = TaskPool(nursery)
        for _ in range(2):
            workers.start_soon(late)
            await trio.testing.wait_all_tasks_blocked()
        workers.close()
    assert seen[0] is not seen[1]


async def test_what_runs_at_the_end_ends_by_itself(autojump_clock: trio.testing.MockClock) -> None:
    jobs = Jobs()
    async with trio.open_nursery() as nursery:
        workers = TaskPool(nursery)
        workers.start_soon(jobs.make("a", seconds=3))
        workers.close()
        workers.start_soon(jobs.make("b", seconds=4))
    assert trio.current_time() == 4


async def test_cancelling_all_ends_those_that_wait() -> None:
    jobs = Jobs()
    async with trio.open_nursery() as nursery:
        workers = TaskPool(nursery)
        workers.start_soon(jobs.make("a"))
        workers.start_soon(jobs.make("b", seconds=math.inf))
        await trio.testing.wait_all_tasks_blocked()
        workers.cancel()
    assert nursery.cancel_scope.cancelled_caught
