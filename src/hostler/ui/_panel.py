"""All that a node knows, in one document."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import attrs

from ._activity import Activity, FnActivity
from ._catalog import Directory
from ._documents import Containers, Listed, Load, State
from ._runners import RunnerLoads
from ._share import MAX_ROWS, Cursor, FnShare, Share, state_of

if TYPE_CHECKING:  # no node has both
    from hostler.agent import Agent, FnContainers
    from hostler.lb import LBAgent


class StateSource(Protocol):
    """What the page shows."""

    async def state(self, cursor: Cursor) -> tuple[State, Cursor]:
        """What is so now and what is new since ``cursor``, and the cursor for the next time. Does
        not wait for long."""


@attrs.define(kw_only=True, eq=False)
class Panel:
    """The parts of a node that the page looks at; ``None`` = the node has none.

    It is filled in while the node opens, and read whenever somebody looks.
    """

    node: Literal["full", "lb", "runner", "api"]
    is_ready: Callable[[], bool]
    activity: Activity | None = None
    agent: Agent | None = None
    lb: LBAgent | None = None
    runners: RunnerLoads | None = None
    directory: Directory | None = None
    started: float = attrs.Factory(time.time)

    async def state(self, cursor: Cursor) -> tuple[State, Cursor]:
        """See `StateSource`. Waits for the list of functions, not long."""
        now = time.time()
        return state_of([await self.share(cursor, now)], cursor, now)

    async def share(self, cursor: Cursor, now: float) -> Share:
        """What this process alone tells of time ``now``."""
        if self.directory is not None:
            await self.directory.refresh()
        functions, total = self._functions()
        activity, process = self.activity, os.getpid()
        seen = cursor.seen.get(process, 0)
        return Share(
            process=process,
            node=self.node,
            ready=self.is_ready(),
            started=self.started,
            calls=activity.calls if activity else 0,
            failed=activity.failed if activity else 0,
            load=self._load(),
            seconds=activity.seconds_since(cursor.second, now) if activity else None,
            recent=activity.recent_since(seen) if activity else None,
            functions=functions,
            functions_total=total,
            listing=self._listing(),
            runners=self.runners.rows(activity) if self.runners and activity else None,
        )

    def _listing(self) -> Listed:
        if self.directory is None:
            return "none"
        if self.directory.stale or self.directory.listing is None:
            return "stale"
        return "complete" if self.directory.listing.complete else "partial"

    def _load(self) -> Load | None:
        if self.agent is not None:
            s = self.agent.statistics()
            return Load(
                queued=s.queued,
                running=s.running,
                launches_waiting=s.waiting_for_room,
                memory_used=s.used.memory,
                memory_total=s.total.memory,
                cpus_used=s.used.cpus,
                cpus_total=s.total.cpus,
            )
        if self.lb is not None:
            found = self.lb.statistics()
            return Load(queued=found.queued, running=found.running)
        return None

    def _functions(self) -> tuple[list[FnShare], int]:
        """Those that were called first, then the others that are listed."""
        known = dict(self.activity.functions()) if self.activity else {}
        containers = _census(self.agent) if self.agent else {}
        for fn_id, found in containers.items():
            known.setdefault(fn_id, FnActivity(image=found.image))
        listing = self.directory.listing if self.directory else None
        if listing is not None:
            listed = {fn.id: (app, fn) for app, fn in listing.functions}
            for fn_id, (app, fn) in listed.items():
                entry = known.setdefault(fn_id, FnActivity())
                entry.app, entry.name, entry.image = app.name, fn.name, fn.image
            if listing.complete:  # what is not there has been removed
                known = {i: known[i] for i in known if i in listed or i in containers}
        rows = [self._row(fn_id, known[fn_id], containers) for fn_id in list(known)[:MAX_ROWS]]
        return rows, len(known)

    def _row(
        self, fn_id: str, function: FnActivity, containers: Mapping[str, FnContainers]
    ) -> FnShare:
        return FnShare(
            id=fn_id,
            app=function.app,
            name=function.name,
            image=function.image,
            calls=function.calls,
            failed=function.failed,
            samples=list(function.samples),
            last=function.last,
            containers=None if self.agent is None else _containers(containers.get(fn_id)),
        )


def _census(agent: Agent) -> Mapping[str, FnContainers]:
    from hostler.agent import census

    return census(agent)


def _containers(found: FnContainers | None) -> Containers:
    from hostler.agent import ContainerState

    if found is None:
        return Containers()
    return Containers(
        starting=found.states[ContainerState.START] + found.states[ContainerState.WAIT],
        idle=found.states[ContainerState.IDLE],
        busy=found.states[ContainerState.BUSY],
        paused=found.states[ContainerState.PAUSED],
        memory=found.memory,
    )
