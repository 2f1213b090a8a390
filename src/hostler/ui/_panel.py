"""All that a node knows, in one document."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Literal

import attrs

from hostler.agent import Agent, ContainerState, FnContainers, census
from hostler.lb import LBAgent

from ._activity import Activity, FnActivity
from ._catalog import Directory
from ._documents import Containers, FnRow, Load, State
from ._runners import RunnerLoads

MAX_ROWS = 300
"""Functions in one document."""


@attrs.frozen
class Cursor:
    """What a reader has already got."""

    second: int = 0
    seq: int = 0


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
        """What is so now and what is new since ``cursor``. Waits for the list of functions, not
        long."""
        if self.directory is not None:
            await self.directory.refresh()
        functions, total = self._functions()
        activity = self.activity
        seconds = activity.seconds_since(cursor.second) if activity else None
        recent = activity.recent_since(cursor.seq) if activity else None
        state = State(
            node=self.node,
            version=version("hostler"),
            ready=self.is_ready(),
            started=self.started,
            now=time.time(),
            calls=activity.calls if activity else 0,
            failed=activity.failed if activity else 0,
            load=self._load(),
            seconds=seconds,
            recent=recent,
            functions=functions,
            functions_total=total,
            listing=self._listing(),
            runners=self.runners.rows(activity) if self.runners and activity else None,
        )
        return state, Cursor(
            second=seconds[-1].at if seconds else cursor.second,
            seq=activity.calls if activity else 0,
        )

    def _listing(self) -> Literal["complete", "partial", "stale", "none"]:
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

    def _functions(self) -> tuple[list[FnRow], int]:
        """Those that were called first, then the others that are listed."""
        known = dict(self.activity.functions()) if self.activity else {}
        containers: Mapping[str, FnContainers] = census(self.agent) if self.agent else {}
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
    ) -> FnRow:
        return FnRow(
            id=fn_id,
            app=function.app,
            name=function.name,
            image=function.image,
            calls=function.calls,
            failed=function.failed,
            median=function.median_ms,
            last=function.last,
            containers=None if self.agent is None else _containers(containers.get(fn_id)),
        )


def _containers(found: FnContainers | None) -> Containers:
    if found is None:
        return Containers()
    return Containers(
        starting=found.states[ContainerState.START] + found.states[ContainerState.WAIT],
        idle=found.states[ContainerState.IDLE],
        busy=found.states[ContainerState.BUSY],
        paused=found.states[ContainerState.PAUSED],
        memory=found.memory,
    )
