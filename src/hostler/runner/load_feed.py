"""Load feed: streams load hints to load balancers, after changes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator
from typing import Protocol

import trio

from .._fast import FastAgent, fast_way
from ..protocol import WARM_KEY_SECONDS, LoadHint

QUICK = 0.05
"""Minimum seconds between two hints to one LB; changes in between are reported together."""
SLOW = 0.5
"""The same while there is no new room: load alone is not urgent."""
TURN = 0.01
"""Seconds by which each next LB hears of room later, so that not all send a call for it. By then
the first LB has used the room, or it is there for all."""
MAX_TURNS = 20
"""Further LBs hear of room together with the last one."""


class LoadSource(Protocol):
    """What a `RunnerAgent` reports of its load."""

    def load(self) -> LoadHint | None: ...

    async def wait_load_change(self) -> None: ...


class LoadFeed:
    """The load stream of one agent. The LBs that watch take turns in hearing first of room."""

    def __init__(self, agent: LoadSource) -> None:
        self._agent = agent
        fast = fast_way(agent, FastAgent)
        self._figures = agent.load if fast is None else fast.load_figures
        self._watchers: dict[object, None] = {}
        """The LB that has heard first of room moves to the end."""
        self._next_at = -math.inf
        """When the next LB may hear of room."""
        self._lists = False
        """Whether the agent names its hot containers at all."""

    def __repr__(self) -> str:
        return f"<LoadFeed watchers={len(self._watchers)}>"

    async def watch(self) -> AsyncGenerator[LoadHint, None]:
        """The load, now and after changes. Ends if the agent does not know its load."""
        watcher = object()
        self._watchers[watcher] = None
        try:
            reported: LoadHint | None = None
            list_at = -math.inf
            while (load := await self._next_report(watcher, reported, list_at)) is not None:
                reported = load
                if load.complete:
                    self._lists = True
                    list_at = trio.current_time() + len(load.warm) * WARM_KEY_SECONDS
                yield load
                await trio.sleep(QUICK)
        finally:
            del self._watchers[watcher]

    async def _next_report(
        self, watcher: object, reported: LoadHint | None, list_at: float
    ) -> LoadHint | None:
        """The next load worth reporting after ``reported``. It names all hot containers; if they
        are of many functions, not before ``list_at``."""
        load = self._agent.load() if reported is None else self._figures()
        if reported is None or load is None:
            await trio.lowlevel.checkpoint()
            return load
        report_at = max(trio.current_time() + SLOW, list_at)
        least = room_of(reported)
        while True:
            if _is_urgent(load, reported, least):
                await self._turn(watcher)
                load = self._figures() or reported
                if _is_urgent(load, reported, least):
                    if (now := trio.current_time()) < self._next_at:
                        continue
                    self._next_at = now + TURN
                    self._watchers[watcher] = self._watchers.pop(watcher)
                    return load if now < list_at else self._agent.load()
            differs = self._differs(load, reported)
            if differs and trio.current_time() >= report_at:
                return self._agent.load()
            # The end of a container's protection is no event, so look again soon.
            soon = (
                trio.current_time() + SLOW
                if load.protected_memory or load.protected_cpus
                else math.inf
            )
            with trio.move_on_at(report_at if differs else soon):
                await self._agent.wait_load_change()
            await trio.sleep(QUICK)
            load = self._figures() or reported
            least = tuple(map(min, room_of(load), least))

    def _differs(self, load: LoadHint, reported: LoadHint) -> bool:
        """Whether there is anything to report. Hot containers count as changed if they were left
        out."""
        if load.active != reported.active or room_of(load) != room_of(reported):
            return True
        if load.refused != reported.refused:
            return True
        if load.complete:
            return load.warm != reported.warm
        return self._lists and not reported.complete

    async def _turn(self, watcher: object) -> None:
        """Wait for the turn of ``watcher``. The LB that has waited longest goes first; room that it
        uses is not reported to the others."""
        place = min(list(self._watchers).index(watcher), MAX_TURNS)
        await trio.sleep_until(max(trio.current_time() + place * TURN, self._next_at))


Room = tuple[int, ...]


def room_of(load: LoadHint) -> Room:
    """Bytes that new containers could have, all and without protected ones; likewise milli-CPUs."""
    memory = load.free_memory + load.reclaimable_memory
    cpus = (load.free_cpus or 0) + load.reclaimable_cpus
    return memory, memory - load.protected_memory, cpus, cpus - load.protected_cpus


def _is_urgent(load: LoadHint, reported: LoadHint, least: Room) -> bool:
    """Whether there is so much more room that calls may wait for it. It is compared with the room
    last reported; if calls were refused since then, with the least room since, because these LBs
    know of that."""
    known = room_of(reported) if load.refused == reported.refused else least
    return any(now > 2 * before for now, before in zip(room_of(load), known, strict=True))
