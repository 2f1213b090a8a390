"""The state of a node as ``/ui/state.json`` and ``/ui/events`` tell it.

Times are milliseconds, sizes bytes, dates seconds since 1970; what a node can't know is null or
left out.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from .seconds import Second

Outcome = Literal["success", "error", "timeout", "refused", "cancelled"]
Listed = Literal["complete", "partial", "stale", "none"]
"""Whether the functions are those that exist: all; some; all of earlier (the database does not
answer); or only those that were called here."""


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
    """A call that has ended. ``seq`` counts the calls of the process that has had it."""

    seq: int
    id: str
    fn_id: str
    app: str
    fn: str
    at: float
    ms: float
    outcome: Outcome
    message: str
    """What its client was told, if it failed; "" where that is not known."""
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
    """"" = only the function's id is known here; the same for ``name``."""
    name: str
    image: str
    calls: int
    failed: int
    last: float | None
    """When the last one ended."""
    containers: ContainerStates | None
    """``None`` = they are not on this node."""


class FnRow(FnKnown, frozen=True, gc=False, kw_only=True):
    """As people and programs see it."""

    median: float | None
    """Of its last calls; ``None`` = there were none."""


class RunnerRow(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    address: str
    state: str
    """``in use``, ``ejected``, ``refuses`` (by its own word) or ``returning``."""
    cause: str
    share: float
    """Of its calls, that it gets."""
    calls: int
    """That this LB has had there."""
    active: int | None
    """Calls there, from whatever LB; ``None``, also below: it does not tell its load."""
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
    """All of it. In ``tick`` events ``seconds`` and ``recent`` have only what is new."""

    node: str
    """``full``, ``lb``, ``runner`` or ``api``."""
    version: str
    ready: bool
    started: float
    now: float
    calls: int
    failed: int
    load: NodeLoad | None
    seconds: list[Second] | None
    """``None``, as ``recent``: the node runs no calls."""
    recent: list[CallRow] | None
    """The newest last."""
    functions: list[FnRow]
    functions_total: int
    """More than there are rows, if only the most recently used ones are shown."""
    listing: Listed
    runners: list[RunnerRow] | None
