"""The parts of a node that the page shows."""

from __future__ import annotations

import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

import attrs
import msgspec
import structlog
import trio

from ..abc import LoadListener, Runner, RunnerPool
from ..datastore import AppFilter, Datastore, FnFilter
from ..errors import APIError
from ..functions import FunctionTable
from ..models import App, Fn
from ..protocol import LoadHint
from .activity import Activity, FnActivity
from .aggregate import MAX_ROWS, ProcessFnState, ProcessState, StateCursor, state_of
from .documents import ContainerStates, Listed, NodeLoad, RunnerRow, State

if TYPE_CHECKING:
    from ..agent import Agent, FnContainers
    from ..lb import LBAgent
    from ..pool import DynamicPool, RunnerHealth


class RunnerLoads(LoadListener):
    """The load that the runners of ``pool`` report, by the runners' addresses."""

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
        """A row for each runner that the pool has now, with its last reported load and its calls in
        ``activity``. Synchronous."""
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


log = structlog.get_logger(__name__)

MAX_LISTED = 500
"""Functions that are listed at most."""

REFRESH_SECONDS = 10.0
"""Between two readings of the list. It is read only while somebody looks."""

READ_SECONDS = 3.0
"""A database that takes longer must not keep the page from showing the rest."""


@attrs.frozen
class Listing:
    """Functions with their apps."""

    functions: Sequence[tuple[App, Fn]] = ()
    complete: bool = True


class Directory:
    """The functions that are declared, or that a database has. They are read again when somebody
    looks and the last reading is old."""

    def __init__(self, functions: FunctionTable | Datastore) -> None:
        self._functions = functions
        self._lock = trio.Lock()
        self._due = float("-inf")
        self.listing: Listing | None = None
        self.stale = False
        """The last reading failed."""

    async def refresh(self) -> None:
        """Read the list if it is old. Raises nothing: if reading fails, the old list stays."""
        if trio.current_time() < self._due:
            return
        async with self._lock:
            if trio.current_time() < self._due:
                return
            try:
                with trio.fail_after(READ_SECONDS):
                    self.listing = await self._read()
                self.stale = False
            except Exception as error:  # noqa: BLE001  (a page without names is better than none)
                self.stale = True
                log.warning("functions can't be listed for the page", reason=str(error))
            self._due = trio.current_time() + REFRESH_SECONDS

    async def _read(self) -> Listing:
        pairs: list[tuple[App, Fn]] = []
        source = self._functions
        if isinstance(source, FunctionTable):
            pairs.extend((source.apps[fn.app_id], fn) for fn in source.fns.values())
            return Listing(pairs[:MAX_LISTED], complete=len(pairs) <= MAX_LISTED)
        apps = await source.apps.list(AppFilter(per_page=MAX_LISTED))
        for app in apps.items:
            left = MAX_LISTED - len(pairs)
            page = await source.fns.list(FnFilter(app_id=app.id, per_page=left))
            pairs.extend((app, fn) for fn in page.items)
            if len(pairs) == MAX_LISTED:
                return Listing(pairs, complete=False)
        return Listing(pairs, complete=not apps.next_cursor)


AskOthers = Callable[[bytes], Awaitable[Mapping[int, bytes]]]
"""Sends a question to the `Panel.answer` of each other process and returns the answers. A process
that does not answer in time is left out. The keys do not matter here."""


class _Question(msgspec.Struct, frozen=True, array_like=True):
    cursor: StateCursor
    now: float


@attrs.define(kw_only=True, eq=False)
class Panel:
    """The parts of a node that the page looks at; ``None`` = the node has none.

    It is filled in while the node opens, and read whenever somebody looks.
    """

    node: Literal["full", "lb", "runner", "api"]
    is_ready: Callable[[], bool]
    """May raise an `APIError` that says why the node is not ready."""
    activity: Activity | None = None
    agent: Agent | None = None
    lb: LBAgent | None = None
    runners: RunnerLoads | None = None
    directory: Directory | None = None
    ask_others: AskOthers | None = None
    """Reaches the other processes of the node."""
    started: float = attrs.Factory(time.time)

    async def state(self, cursor: StateCursor) -> tuple[State, StateCursor]:
        """The present state with what is new since ``cursor``, and the cursor for the next time.
        Waits a few seconds at most, for the list of functions and for other processes."""
        # One time for all, or a second that is over here and not yet there would lack theirs.
        question = _Question(cursor, time.time())
        told: list[bytes] = []
        if self.ask_others is not None:
            told += (await self.ask_others(msgspec.msgpack.encode(question))).values()
        shares = [
            await self.share(cursor, question.now),
            *(msgspec.msgpack.decode(answer, type=ProcessState) for answer in told),
        ]
        return state_of(shares, cursor, question.now)

    async def answer(self, question: bytes) -> bytes:
        """Answer the question of another process."""
        asked = msgspec.msgpack.decode(question, type=_Question)
        return msgspec.msgpack.encode(await self.share(asked.cursor, asked.now))

    async def share(self, cursor: StateCursor, now: float) -> ProcessState:
        """The part of this process at time ``now``."""
        if self.directory is not None:
            await self.directory.refresh()
        functions, total = self._functions()
        activity, process = self.activity, os.getpid()
        seen = cursor.seen.get(process, 0)
        ready, trouble = self._readiness()
        return ProcessState(
            process=process,
            node=self.node,
            ready=ready,
            trouble=trouble,
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

    def _readiness(self) -> tuple[bool, str]:
        try:
            return self.is_ready(), ""
        except APIError as error:
            return False, error.message

    def _listing(self) -> Listed:
        if self.directory is None:
            return "none"
        if self.directory.stale or self.directory.listing is None:
            return "stale"
        return "complete" if self.directory.listing.complete else "partial"

    def _load(self) -> NodeLoad | None:
        if self.agent is not None:
            s = self.agent.statistics()
            return NodeLoad(
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
            return NodeLoad(queued=found.queued, running=found.running)
        return None

    def _functions(self) -> tuple[list[ProcessFnState], int]:
        """Functions that were called come first, then other listed functions."""
        known = dict(self.activity.functions()) if self.activity else {}
        containers = _container_counts(self.agent) if self.agent else {}
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
    ) -> ProcessFnState:
        return ProcessFnState(
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


def _container_counts(agent: Agent) -> Mapping[str, FnContainers]:
    from ..agent import container_counts

    return container_counts(agent)


def _containers(found: FnContainers | None) -> ContainerStates:
    from ..agent import ContainerState

    if found is None:
        return ContainerStates()
    return ContainerStates(
        starting=found.states[ContainerState.START] + found.states[ContainerState.WAIT],
        idle=found.states[ContainerState.IDLE],
        busy=found.states[ContainerState.BUSY],
        paused=found.states[ContainerState.PAUSED],
        memory=found.memory,
    )
