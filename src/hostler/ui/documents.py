"""The state of a node as ``/ui/state.json`` and ``/ui/events`` send it.

Times are milliseconds, sizes bytes, dates seconds since 1970. A value that the node can't know is
null or left out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .seconds import Second

Outcome = Literal["success", "error", "timeout", "refused", "cancelled"]
Listed = Literal["complete", "partial", "stale", "none"]
"""Which functions the list has: all; some; all of an earlier time, since the database does not
answer; or only functions that were called here."""


class Stages(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Where the time of a call went. Their sum is the call's whole time.

    ``queue``: it waited for a container; ``pull``, ``create`` and ``init``: one was started for it;
    ``execution``: the function ran; ``transit``: all else, such as the way to a runner and back.
    """

    queue: float
    pull: float
    create: float
    init: float
    execution: float
    transit: float


class CallRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A call that has ended. ``seq`` counts the calls of its process."""

    seq: int
    id: str
    fn_id: str
    app: str
    fn: str
    at: float
    ms: float
    outcome: Outcome
    message: str
    """The error text that the client got; "" = none, or not known."""
    stages: Stages
    detached: bool
    runner: str
    attempts: int


class ContainerStates(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    starting: int = 0
    idle: int = 0
    busy: int = 0
    paused: int = 0
    memory: int = 0


class FnKnown(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A function that the node knows: by name, by calls, or by containers."""

    id: str
    app: str
    """The app's name; "" = not known here. The same for ``name``."""
    name: str
    image: str
    calls: int
    failed: int
    last: float | None
    """When the last call ended."""
    containers: ContainerStates | None
    """``None`` = this node runs no containers."""


class FnRow(FnKnown, frozen=True, gc=False, kw_only=True):
    """A function as people and programs see it."""

    median: float | None
    """Median duration of the last calls; ``None`` = no call."""


class RunnerRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    address: str
    state: str
    """``in use``, ``ejected``, ``refuses`` (by its own word), ``returning`` or ``unreachable`` (and
    tried all the same)."""
    cause: str
    share: float
    """Part of its usual calls that the runner gets now."""
    calls: int
    """Calls of this LB that ended on the runner."""
    active: int | None
    """Calls on the runner from all LBs. ``None``, also below: the runner reports no load."""
    free_memory: int | None
    reclaimable_memory: int | None
    idle_containers: int | None


class NodeLoad(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """Calls and resources of a node; memory and milli-CPUs only where containers run."""

    queued: int
    running: int
    launches_waiting: int = 0
    memory_used: int | None = None
    memory_total: int | None = None
    cpus_used: int | None = None
    cpus_total: int | None = None


class State(msgspec.Struct, frozen=True, kw_only=True):
    """The whole state. In ``tick`` events ``seconds`` and ``recent`` have only what is new."""

    node: str
    """``full``, ``lb``, ``runner`` or ``api``."""
    version: str
    ready: bool
    trouble: str
    """Why it is not ready, if more than a start or a drain is the reason."""
    started: float
    now: float
    calls: int
    failed: int
    load: NodeLoad | None
    seconds: list[Second] | None
    """``None``, as ``recent``: the node runs no calls."""
    recent: list[CallRow] | None
    """The newest call is last."""
    functions: list[FnRow]
    functions_total: int
    """More than the number of rows if only the most recently used functions are shown."""
    listing: Listed
    runners: list[RunnerRow] | None
