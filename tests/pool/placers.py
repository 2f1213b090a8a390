"""Placers, what is left in them, and calls that they place one after the other or at once."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

import trio
from trio.testing import wait_all_tasks_blocked

from hostler.abc import RunnerPool
from hostler.calls import PendingCall
from hostler.config import PlacerConfig
from hostler.pool import PLACERS, LoadTracker, NaivePlacer, SweepPlacer
from hostler.pool.runner_set import favourites, name_hashes
from hostler.pool.waiting_room import WaitingRoom

from .fakes import fresh_metrics

Kind = TypeVar("Kind", bound=SweepPlacer)

KINDS = tuple(PLACERS.values())


def make(
    kind: type[SweepPlacer] = NaivePlacer,
    *,
    timeout: float = 360.0,
    detached: float = 30.0,
    attempt: float = 2.0,
) -> SweepPlacer:
    config = PlacerConfig(
        placer_timeout=timeout, detached_placer_timeout=detached, attempt_timeout=attempt
    )
    return kind(config, metrics=fresh_metrics(), rng=random.Random(7))


class Steady(random.Random):
    """Jitter that is always the same factor."""

    def __init__(self, factor: float = 1.0) -> None:
        super().__init__(0)
        self._factor = factor

    def uniform(self, a: float, b: float) -> float:
        return self._factor


def ranking(key: str, addresses: Sequence[str]) -> tuple[int, ...]:
    """The indices of ``addresses``, the one that ``key`` prefers first."""
    return favourites(key, name_hashes(addresses), len(addresses))


def make_room(base: float = 1e6, limit: float = 1e6) -> WaitingRoom:
    """A room of runners that nothing is known of, without jitter."""
    config = PlacerConfig(retry_all_delay=base, retry_max_delay=limit)
    return WaitingRoom(config, LoadTracker(), Steady())


def is_idle(placer: SweepPlacer) -> bool:
    """Nothing is left of the calls: no call, no line, no room."""
    statistics = placer.statistics()
    return statistics.calls == 0 and statistics.waiting == 0 and not placer._waiting_rooms


async def place_all(
    placer: SweepPlacer, pool: RunnerPool, calls: Sequence[PendingCall]
) -> list[BaseException | None]:
    """Place ``calls`` at once, submitted in order; how each ended."""
    ends: list[BaseException | None] = [None] * len(calls)

    async def place(index: int) -> None:
        try:
            await placer.place_call(pool, calls[index])
        except Exception as error:
            ends[index] = error

    async with trio.open_nursery() as nursery:
        for index in range(len(calls)):
            nursery.start_soon(place, index)
    return ends


async def occupy(
    nursery: trio.Nursery, placer: SweepPlacer, pool: RunnerPool, *calls: PendingCall
) -> None:
    """Start ``calls`` one after the other; each has got as far as it can before the next."""
    for call in calls:
        nursery.start_soon(placer.place_call, pool, call)
        await wait_all_tasks_blocked()
        await trio.sleep(0.002)


def make_of_kind(kind: type[Kind]) -> Kind:
    return kind(PlacerConfig(), metrics=fresh_metrics(), rng=random.Random(3))
