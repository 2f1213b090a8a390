"""The runners of a pool: health and load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hostler.abc import LoadListener, Runner, RunnerPool
from hostler.protocol import LoadHint

from ._activity import Activity
from ._documents import RunnerRow

if TYPE_CHECKING:  # only a load balancer has one
    from hostler.pool import DynamicPool, RunnerHealth


class RunnerLoads(LoadListener):
    """What the runners of ``pool`` tell of their load. They are known by their addresses."""

    def __init__(self, pool: DynamicPool) -> None:
        self._pool = pool
        self._hints: dict[str, LoadHint] = {}
        pool.add_load_listener(self)

    def note_load(self, pool: RunnerPool, runner: Runner, hint: LoadHint | None) -> None:
        if hint is None:
            self._hints.pop(runner.address, None)
        else:
            self._hints[runner.address] = hint

    def rows(self, activity: Activity) -> list[RunnerRow]:
        return [self._row(health, activity) for health in self._pool.health()]

    def _row(self, health: RunnerHealth, activity: Activity) -> RunnerRow:
        hint = self._hints.get(health.address)
        return RunnerRow(
            address=health.address,
            state=health.state,
            cause=health.cause,
            share=round(health.share, 2),
            calls=activity.calls_of_runner(health.address),
            active=None if hint is None else hint.active,
            free_memory=None if hint is None else hint.free_memory,
            reclaimable_memory=None if hint is None else hint.reclaimable_memory,
            idle_containers=None if hint is None else sum(hint.warm.values()),
        )
