"""Tells load balancers how busy this runner is, after changes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Protocol

import trio

from ..protocol import WARM_KEY_SECONDS, LoadHint

QUICK = 0.05
"""Seconds between two hints to one LB at least; changes in between are told together."""
SLOW = 0.5
"""The same while there is no news of room: load alone is no hurry."""
TURN = 0.01
"""Seconds by which each next LB hears later of room, so that not all send a call for it. By then
the first has used it, or it is there for all."""
MAX_TURNS = 20
"""LBs beyond that many hear of room together with the last."""


class LoadSource(Protocol):
    """What a `RunnerAgent` says of its load."""

    def load(self) -> LoadHint | None: ...

    def load_figures(self) -> LoadHint | None: ...

    async def wait_load_change(self) -> None: ...


class LoadFeed:
    """Of one agent. Those who watch take turns in hearing first of room."""

    def __init__(self, agent: LoadSource) -> None:
        self._agent = agent
        self._watchers: dict[object, None] = {}
        """Who has heard first of room goes to the end."""
        self._next_at = -math.inf
        """When the next may hear of room."""
        self._lists = False
        """Whether the agent names its hot containers at all."""

    def __repr__(self) -> str:
        return f"<LoadFeed watchers={len(self._watchers)}>"

    async def watch(self) -> AsyncGenerator[LoadHint, None]:
        """The load, now and after changes. Ends if the agent does not know its load."""
        watcher = object()
        self._watchers[watcher] = None
        try:
            told: LoadHint | None = None
            list_at = -math.inf
            while (load := await self._news(watcher, told, list_at)) is not None:
                told = load
                if load.complete:
                    self._lists = True
                    list_at = trio.current_time() + len(load.warm) * WARM_KEY_SECONDS
                yield load
                await trio.sleep(QUICK)
        finally:
            del self._watchers[watcher]

    async def _news(
        self, watcher: object, told: LoadHint | None, list_at: float
    ) -> LoadHint | None:
        """The load, once it is worth to be told after ``told``; with all hot containers, if they
        are of many functions, not before ``list_at``."""
        load = self._agent.load() if told is None else self._agent.load_figures()
        if told is None or load is None:
            await trio.lowlevel.checkpoint()
            return load
        patience = max(trio.current_time() + SLOW, list_at)
        least = room_of(told)
        while True:
            if _is_urgent(load, told, least):
                await self._turn(watcher)
                load = self._agent.load_figures() or told
                if _is_urgent(load, told, least):
                    if (now := trio.current_time()) < self._next_at:
                        continue
                    self._next_at = now + TURN
                    self._watchers[watcher] = self._watchers.pop(watcher)
                    return load if now < list_at else self._agent.load()
            differs = self._differs(load, told)
            if differs and trio.current_time() >= patience:
                return self._agent.load()
            # That a container is no longer worth keeping is no event.
            soon = (
                trio.current_time() + SLOW
                if load.protected_memory or load.protected_cpus
                else math.inf
            )
            with trio.move_on_at(patience if differs else soon):
                await self._agent.wait_load_change()
            await trio.sleep(QUICK)
            load = self._agent.load_figures() or told
            least = tuple(map(min, room_of(load), least))

    def _differs(self, load: LoadHint, told: LoadHint) -> bool:
        """Whether there is something to tell; the hot containers are, if they were left out."""
        if load.active != told.active or room_of(load) != room_of(told):
            return True
        if load.refused != told.refused:
            return True
        return load.warm != told.warm if load.complete else self._lists and not told.complete

    async def _turn(self, watcher: object) -> None:
        """Those go first who have waited longest for it; what they use is not told to others."""
        place = min(list(self._watchers).index(watcher), MAX_TURNS)
        await trio.sleep_until(max(trio.current_time() + place * TURN, self._next_at))


Room = tuple[int, ...]


def room_of(load: LoadHint) -> Room:
    """Bytes that new containers could have, all and without protected ones; likewise milli-CPUs."""
    memory = load.free_memory + load.reclaimable_memory
    cpus = (load.free_cpus or 0) + load.reclaimable_cpus
    return memory, memory - load.protected_memory, cpus, cpus - load.protected_cpus


def _is_urgent(load: LoadHint, told: LoadHint, least: Room) -> bool:
    """Whether there is so much more room that calls may wait for it: than was told, or, since
    those that were refused meanwhile know of that, than there was at ``least`` since then."""
    known = room_of(told) if load.refused == told.refused else least
    return any(now > 2 * before for now, before in zip(room_of(load), known, strict=True))
